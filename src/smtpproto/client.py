"""The client over anyio: connects, secures, logs in, and hands messages over.

::

    async with Client("mail.example.org", 587, login=("me", "secret")) as client:
        await client.send(Envelope("me@example.org", ["you@example.net"]), message)

`send` raises DeliveryError unless every recipient was accepted, so that nothing is overlooked;
`deliver` returns the same Result and leaves the looking to you. Where one message is all there is
to send, `send_message` makes envelope and session for it. `smtpproto.blocking` is for scripts.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from email.message import Message
from types import TracebackType
from typing import Any, Self

import anyio
from anyio import to_thread
from anyio.abc import ByteStream
from attrs import define, evolve, field

from .arguments import arguments_of, expect, expect_pair
from .connector import Connector, TcpConnector, UnixConnector, connect_tcp
from .core.base64 import decode_base64
from .core.client_connection import ClientConnection
from .core.command import Auth, AuthResponse, Command, Ehlo, Helo, Lhlo, Quit, Rset, StartTls
from .core.connection import Limits
from .core.envelope import Envelope
from .core.errors import LocalProtocolError, RemoteProtocolError
from .core.event import TlsInfo
from .core.extension import Extension
from .core.reply import Reply, Severity
from .core.sasl import ClientExchange, Credentials, ExchangeError, Mechanism
from .core.state import State, moves
from .deadline import DeadlineError
from .extensions import STANDARD
from .handover import Handover
from .mechanisms import STANDARD as MECHANISMS
from .mechanisms import strongest
from .mechanisms.binding import binding_of
from .message import envelope_of
from .observe import Connected, Observer, TlsStarted, wire_log
from .result import (
    ClientError,
    ConnectError,
    DeliveryError,
    LoginError,
    RefusedError,
    Result,
    TlsError,
)
from .security import Tls, a_labels, verifying
from .session import ClientDeadlines, ClientSession, Clock
from .source import AnyContent, Reading, is_at_hand, source
from .stream import StreamLostError, first_cause, local_address, own_literal, peer_address

__all__ = [
    "Client",
    "ClientDeadlines",
    "Connector",
    "TcpConnector",
    "Tls",
    "UnixConnector",
    "connect_tcp",
    "send_message",
    "verifying",
]


@define(eq=False)
class Client:
    """One session with one server, as an async context manager.

    `tls` is one of Tls or its name; `ssl_context` replaces that of `verifying()` (for
    Tls.OPPORTUNISTIC: one that does not verify), and holds what else is wanted of TLS: trust of
    your own, a client certificate (`load_cert_chain`), versions, ALPN. The server has to show a
    certificate for `server_name`, by default the host, and is told that name (SNI).
    `login` is username and password, or Credentials; the first of
    `mechanisms` that is offered and that they serve is used, those that show a secret in clear
    only with `login_in_clear`. `bind_login` binds SCRAM to the TLS channel where that is offered.
    `helo_name` is our own domain; by default the address literal of our end (RFC 5321 §4.1.4).
    `lmtp` speaks LMTP (RFC 2033): the same methods and results, each recipient with a verdict of
    its own. `connector` makes the stream. What is not among `extensions` is not used, though it
    be offered. Parameters of a message that belong to `dispensable` extensions are left out where
    those are not offered, and `Result.left_out` says so; others are refused. `observe` is told of
    all that happens (`smtpproto.observe`), `trace` is shown the dialogue line by line, redacted.

    Entering raises ConnectError, TlsError, RefusedError or LoginError; making one for LMTP at
    port 25 LocalProtocolError. A session is for one task at a time, RuntimeError for the other;
    a client has one session at a time, and may be entered again behind that. ClientError where
    there is none.
    """

    host: str
    port: int = 587
    tls: Tls = field(default=Tls.REQUIRED, converter=Tls, kw_only=True)
    ssl_context: ssl.SSLContext | None = field(default=None, kw_only=True)
    login: Credentials | tuple[str, str] | None = field(default=None, kw_only=True, repr=False)
    login_in_clear: bool = field(default=False, kw_only=True)
    mechanisms: Sequence[Mechanism] = field(default=MECHANISMS, kw_only=True)
    bind_login: bool = field(default=False, kw_only=True)
    helo_name: str | None = field(default=None, kw_only=True)
    server_name: str | None = field(default=None, kw_only=True)
    extensions: Sequence[Extension] = field(default=STANDARD, kw_only=True)
    dispensable: Sequence[Extension] = field(default=(), kw_only=True)
    limits: Limits = field(factory=Limits, kw_only=True)
    deadlines: ClientDeadlines = field(factory=ClientDeadlines, kw_only=True)
    connector: Connector = field(default=connect_tcp, kw_only=True)
    lmtp: bool = field(default=False, kw_only=True)
    observe: Observer | None = field(default=None, kw_only=True)
    trace: Callable[[str], None] | None = field(default=None, kw_only=True)

    #: The server's greeting, once connected.
    greeting: Reply | None = field(default=None, init=False)
    _last: ClientSession | None = field(default=None, init=False, repr=False)
    _entered: bool = field(default=False, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        if self.lmtp and self.port == 25:
            raise LocalProtocolError("LMTP is not for port 25 (RFC 2033 §5)")
        if self.login is not None and not isinstance(self.login, Credentials):
            expect_pair(self.login, "login is (username, password), or Credentials")

    @property
    def _session(self) -> ClientSession:
        if self._last is None:
            raise ClientError("no session: it begins with `async with`")
        return self._last

    def _unshared(self) -> ClientSession:
        """Return the session for who is about to use it."""
        if (session := self._session).clock.running:
            raise RuntimeError("another task is using this session")
        return session

    @property
    def offered(self) -> dict[str, str]:
        """Keyword -> argument of the extensions that the server offers."""
        return self._session.connection.offered

    @property
    def tls_info(self) -> TlsInfo | None:
        """The TLS layer, None in clear."""
        return self._session.connection.tls

    @property
    def stream(self) -> ByteStream:
        """The stream below, for its attributes (certificate, addresses)."""
        return self._session.pump.stream

    @property
    def usable(self) -> bool:
        """Whether another transaction may be tried: the session is open, and MAILMAX not reached.

        MAILMAX is of LIMITS (RFC 9422): how many transactions the server grants a session.
        """
        return self._session.usable

    def takes(self, envelope: Envelope) -> bool:
        """Tell whether the session may name all domains of the recipients, with those it has named.

        RCPTDOMAINMAX is of LIMITS (RFC 9422): how many the server grants a session.
        """
        most, domains = self._session.offer.maxima.rcpt_domain, self._session.domains
        if most is None:
            return True
        wanted = {path.mailbox.domain.lower() for path in envelope.forward_paths}
        return len(domains | wanted) <= most

    # Opening and closing

    async def __aenter__(self) -> Self:
        if self._entered:
            raise ClientError("this session is open already")
        self._entered = True
        try:
            await self._enter(Clock(self.deadlines))
        except BaseException:
            self._entered = False
            raise
        return self

    async def _enter(self, clock: Clock) -> None:
        try:
            await self._open(self.tls, clock)
        except TlsError:
            # Only where the handshake failed: the session was left waiting for it.
            in_handshake = self._session.connection.state is State.TLS
            if self.tls is not Tls.OPPORTUNISTIC or not in_handshake:
                raise
            await self._open(Tls.NONE, clock)  # what was offered does not work; clear is allowed

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Say QUIT where that is possible, wait for its answer within the deadline, and close."""
        if (session := self._last) is None:
            return
        connection = session.connection
        try:
            heard = moves(connection.state, Quit) is not None and not connection.owed
            if heard and not session.pump.closed and not session.clock.running:
                with (
                    suppress(ClientError, StreamLostError, DeadlineError, RemoteProtocolError),
                    session.clock,
                ):
                    await session.ask(Quit(), "quit")
        finally:
            self._entered = False
            await session.aclose()

    async def _open(self, tls: Tls, clock: Clock) -> None:
        where = f"{self.host}:{self.port}"
        since = anyio.current_time()
        stream = await self._connect(where, clock)
        observers = [] if self.observe is None else [self.observe]
        if self.trace is not None:
            observers.append(wire_log(self.trace))
        connection = ClientConnection(self.extensions, limits=self.limits, lmtp=self.lmtp)
        self._last = session = ClientSession(
            stream, connection, clock, extensions=self.extensions, observers=observers
        )
        if observers:
            ends = peer_address(stream), local_address(stream)
            session.tell(Connected(self.host, self.port, *ends, anyio.current_time() - since))
        try:
            with clock:
                await self._begin(tls)
        except (StreamLostError, DeadlineError, RemoteProtocolError) as error:
            await session.aclose(str(error))
            silent = isinstance(error, DeadlineError) and error.name == "greeting"
            waits = silent and tls is not Tls.IMPLICIT
            hint = " (does it wait for TLS, tls='implicit'?)" if waits else ""
            raise ConnectError(f"{where}: {error}{hint}") from error
        except ClientError:
            await self.aclose()
            raise
        except BaseException:
            await session.aclose("the opening was broken off")
            raise

    async def _connect(self, where: str, clock: Clock) -> ByteStream:
        try:
            with clock:
                clock.within("connect")
                return await self.connector(self.host, self.port)
        except (OSError, ValueError) as error:  # ValueError: a name that cannot be looked up
            raise ConnectError(f"cannot connect to {where}: {first_cause(error)}") from error

    async def _begin(self, tls: Tls) -> None:
        session = self._session
        if tls is Tls.IMPLICIT:
            await self._start_tls(tls)
        self.greeting = await session.reply("greeting")
        self._require("greeting", self.greeting)
        await self._hello()
        if tls in (Tls.REQUIRED, Tls.OPPORTUNISTIC):
            if "STARTTLS" in self.offered:
                reply = await session.ask(StartTls(), "ehlo")
                if reply.severity is Severity.COMPLETION:
                    await self._start_tls(tls)
                    await self._hello()
                elif tls is Tls.REQUIRED:
                    raise TlsError(f"TLS is required and the server refused it: {reply}")
                elif session.connection.state is State.CLOSED:
                    raise RefusedError("STARTTLS", reply)
            elif tls is Tls.REQUIRED:
                raise TlsError(
                    "TLS is required and the server does not offer STARTTLS "
                    "(tls='implicit' is TLS from the first octet, tls='none' is none)"
                )
        if self.login is not None:
            session.clock.within("auth")
            await self._log_in(self.login)

    async def _start_tls(self, tls: Tls) -> None:
        session = self._session
        context = self.ssl_context
        if context is None:
            # In a thread: it reads the certificates that the system trusts.
            context = await to_thread.run_sync(verifying)
            if tls is Tls.OPPORTUNISTIC:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
        since = anyio.current_time()
        session.clock.within("tls")
        try:
            hostname = a_labels(self.server_name or self.host)
            await session.pump.start_tls(context, server_side=False, hostname=hostname)
        except (StreamLostError, ValueError) as error:  # ValueError: no name for a certificate
            hint = ""
            if tls is Tls.IMPLICIT and "WRONG_VERSION_NUMBER" in str(error):
                hint = " (no TLS is spoken there: it may begin by STARTTLS, tls='required')"
            raise TlsError(f"TLS with {self.host}:{self.port} failed: {error}{hint}") from error
        if session.connection.tls is not None:
            session.tell(TlsStarted(session.connection.tls, anyio.current_time() - since))

    async def _hello(self) -> None:
        session = self._session
        name = self.helo_name or own_literal(session.pump.stream)
        reply = await session.ask(Lhlo(name) if self.lmtp else Ehlo(name), "ehlo")
        closed = session.connection.state is State.CLOSED
        if reply.severity is Severity.PERMANENT and not closed and not self.lmtp:
            reply = await session.ask(Helo(name), "ehlo")  # RFC 5321 §3.2
        self._require("LHLO" if self.lmtp else "EHLO", reply)

    async def _log_in(self, login: Credentials | tuple[str, str]) -> None:
        session = self._session
        tls = session.connection.tls
        credentials = login if isinstance(login, Credentials) else Credentials(*login)
        if self.bind_login and tls is not None:
            credentials = evolve(credentials, binding=binding_of(tls))
        offered = self.offered.get("AUTH", "").upper().split()
        mechanism = strongest(offered, credentials, self.mechanisms)
        if mechanism is None:
            raise TlsError(
                f"the server offers no login that we know (AUTH {' '.join(offered) or 'missing'})"
            )
        if mechanism.plaintext and tls is None and not self.login_in_clear:
            raise TlsError("refusing to send a password in clear, without login_in_clear=True")
        exchange = ClientExchange(mechanism, credentials)
        initial = exchange.initial_response()
        command = Auth(mechanism.name, initial)
        held_back = len(command.serialize()) > Command.max_line  # RFC 4954 §4
        reply = await session.ask(Auth(mechanism.name) if held_back else command, None)
        doubt: ExchangeError | None = None
        while reply.severity is Severity.INTERMEDIATE:
            answer: bytes | None = None
            if held_back:
                answer, held_back = initial, False
            else:
                try:
                    (line,) = reply.lines
                    challenge = decode_base64(line)
                    # In a thread: SCRAM computes as long as the server likes, within limits.
                    answer = await to_thread.run_sync(exchange.respond, challenge)
                except ExchangeError as error:
                    doubt = error
                except ValueError:
                    pass  # not one line, or no base64: cancelled (RFC 4954 §4)
            reply = await session.ask(AuthResponse(answer), None)
        if reply.severity is Severity.COMPLETION and doubt is None:
            try:
                exchange.succeed()
            except ExchangeError as error:
                doubt = error
        if doubt is not None:
            raise LoginError(f"the login, given up because {doubt},", reply) from doubt
        if reply.severity is not Severity.COMPLETION:
            raise LoginError("the login", reply)

    def _require(self, step: str, reply: Reply) -> None:
        if reply.severity is not Severity.COMPLETION:
            raise RefusedError(step, reply)

    # Handing over

    async def send(self, envelope: Envelope, content: AnyContent) -> Result:
        """Hand a message over, to all of its recipients.

        Returns when every one was accepted; else raises DeliveryError with the Result, in which
        some may be. For the rest, see `deliver`.
        """
        result = await self.deliver(envelope, content)
        if not result.all_accepted:
            raise DeliveryError(result)
        return result

    async def deliver(
        self,
        envelope: Envelope,
        content: AnyContent,
        *,
        told: Callable[[int, Reply], None] | None = None,
    ) -> Result:
        """Hand a message over; return an outcome for each recipient, whatever the server does.

        `content` is what `source.source` takes. SIZE, BODY and SMTPUTF8 are asked for where they
        are offered and this message has use for them. What it needs and is not offered is found
        before anything is sent, and is an outcome too, marked `local`: an address beyond ASCII
        (5.6.7), such a header (5.6.9), 8-bit or binary content (5.6.3), a parameter (5.5.4). More
        recipients than RCPTMAX, or domains of them than RCPTDOMAINMAX (LIMITS, RFC 9422), and the
        rest are TRANSIENT with 452 4.5.3: for another transaction, or another session.

        An LMTP server answers for one recipient after the other, and may take long for each. So
        `told` is called with each one's number and reply as it comes: whoever is cut off before
        the last knows who has it.

        Raises LocalProtocolError for content or parameters that may be sent to nobody, what the
        content's own source raises, and ClientError when the session is not `usable`; nothing
        has been delivered then.
        """
        session = self._unshared()
        expect(envelope, Envelope, "an Envelope comes first")
        if not session.usable:
            most = (
                f": the server grants {session.transactions} transactions" if session.open else ""
            )
            raise ClientError(f"this session is over{most}")
        if left_out := self._left_out(envelope):
            envelope = envelope.without(left_out)
        handover = Handover(session, envelope, told)
        transaction = handover.transaction
        try:
            clock = session.clock
            with clock.own_waits() if is_at_hand(content) else clock:
                taken = await source(
                    content,
                    eight_bit_offered="8BITMIME" in self.offered,
                    binary_offered=session.offer.takes_binary,
                )
                if handover.fits(taken.octets):
                    reading = await Reading.of(taken, binary=handover.binary)
                    try:
                        if handover.fits(reading.octets):
                            await handover.run(reading)
                    finally:
                        await reading.aclose()
        except (StreamLostError, DeadlineError, RemoteProtocolError) as error:
            await session.aclose(str(error))
            transaction.lose(str(error))
            transaction.unheard = handover.unheard
        except RefusedError as closing:
            transaction.settle(closing.reply)
            transaction.unheard = handover.unheard
        except BaseException:
            # Not ours: cancelled, or the content is at fault. Without the end of the content
            # nothing is delivered, so where RSET does not do, there is nothing but to leave.
            if session.pump.unsent or not session.open:
                await session.aclose("a transaction was broken off")
            raise
        result = transaction.result()
        return evolve(result, left_out=left_out) if left_out else result

    def _left_out(self, envelope: Envelope) -> frozenset[str]:
        """Tell which parameters are there, dispensable, and not offered."""
        there = envelope.keywords if self.dispensable else None
        if not there:
            return frozenset()
        absent = {
            parameter.keyword
            for extension in self.dispensable
            if extension.keyword not in self.offered
            for parameter in (*extension.mail, *extension.rcpt)
        }
        return there & absent

    async def command(self, command: Command) -> Reply:
        """Send a command that is no part of a transaction (NOOP, VRFY, HELP); return the reply.

        Raises ConnectError when the session is lost on the way, ClientError when it is over, and
        LocalProtocolError for a command that may not be sent.
        """
        session = self._unshared()
        if not session.open:
            raise ClientError("this session is over")
        try:
            with session.clock:
                if session.connection.must_reset:
                    self._require("RSET", await session.ask(Rset(), "ehlo"))
                return await session.ask(command, "ehlo")
        except (StreamLostError, DeadlineError, RemoteProtocolError) as error:
            await session.aclose(str(error))
            raise ConnectError(f"{self.host}:{self.port}: {error}") from error


@arguments_of(Client)
async def send_message(message: Message[Any, Any], client: Client) -> Result:
    """Hand one message over, in a session of its own, to all whom its header names.

    Behind the message come the arguments of Client, as in
    `send_message(message, "mail.example.org", login=("me", "secret"))`. The envelope is what
    `smtpproto.message.envelope_of` makes of the header; Bcc is not sent. Raises what that does,
    before anything is connected; what entering a Client raises; and what `Client.send` does, so
    DeliveryError unless every recipient was accepted.
    """
    envelope = envelope_of(message)
    async with client:
        return await client.send(envelope, message)
