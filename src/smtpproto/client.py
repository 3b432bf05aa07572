"""The client over anyio: connects, secures, logs in, and hands messages over.

::

    async with Client("mail.example.org", 587, login=("me", "secret")) as client:
        await client.send(Envelope("me@example.org", ["you@example.net"]), message)

`send` raises DeliveryError unless every recipient was accepted, so that nothing is overlooked;
`deliver` returns the same Result and leaves the looking to you.
"""

from __future__ import annotations

import enum
import ssl
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Protocol, Self

import anyio
from anyio import to_thread
from anyio.abc import ByteStream
from attrs import define, evolve, field, frozen

from .core.base64 import decode_base64
from .core.client_connection import ClientConnection, ClientEvent
from .core.command import Auth, AuthResponse, Command, Data, Ehlo, Helo, Mail, Quit, Rset, StartTls
from .core.connection import Limits
from .core.envelope import Envelope
from .core.errors import RemoteProtocolError
from .core.event import Content, EndOfContent, TlsInfo
from .core.extension import Extension
from .core.reply import Reply, Severity
from .core.sasl import ClientExchange, Credentials, ExchangeError, Mechanism
from .core.state import State, moves
from .deadline import DeadlineError, deadline
from .extensions import STANDARD
from .extensions.eightbitmime import BODY
from .extensions.size import SIZE_OCTETS
from .mechanisms import STANDARD as MECHANISMS
from .mechanisms import strongest
from .mechanisms.binding import binding_of
from .result import (
    ClientError,
    ConnectError,
    DeliveryError,
    LoginError,
    RefusedError,
    Result,
    TlsError,
    Transaction,
)
from .source import AnyContent, Source, source
from .stream import Pump, StreamLostError, first_cause, own_literal, shown
from .wire import connect_tcp

__all__ = ["Client", "ClientDeadlines", "Connector", "Tls", "connect_tcp"]

#: Commands on their way at most: what the replies to them fill must fit the pipe (RFC 2920 §3.1).
WINDOW = 100

NO_ROOM = Reply(552, "5.3.4", "The server takes no message of this size")
NOT_EIGHT_BIT = Reply(554, "5.6.3", "The server takes no 8-bit content")


class Tls(enum.Enum):
    """How a session is secured."""

    #: STARTTLS, verified, or nothing is sent.
    REQUIRED = "required"
    #: STARTTLS where it is offered, unverified: against those who only listen (RFC 7435).
    OPPORTUNISTIC = "opportunistic"
    #: TLS from the first octet, verified (RFC 8314 §3.3).
    IMPLICIT = "implicit"
    #: In clear.
    NONE = "none"


@frozen
class ClientDeadlines:
    """How long the client waits, in seconds; None for ever.

    `greeting` to `final_dot` are those of RFC 5321 §4.5.3.2, which asks for no less. The others
    it does not name: `ehlo` also bounds HELO, RSET and any other command, `auth` the whole login,
    `session` everything from connecting on.
    """

    connect: float | None = 30
    tls: float | None = 60
    greeting: float | None = 300
    ehlo: float | None = 300
    auth: float | None = 120
    mail: float | None = 300
    rcpt: float | None = 300
    data: float | None = 120
    block: float | None = 180
    final_dot: float | None = 600
    quit: float | None = 10
    session: float | None = 4 * 3600


class Connector(Protocol):
    """Opens a stream to a server: TCP by default; a proxy, a unix socket, a test's own pipe."""

    async def __call__(self, host: str, port: int) -> ByteStream:
        """Return a connected stream; OSError if it cannot be had."""
        ...


@define(eq=False)
class Client:
    """One session with one server, as an async context manager.

    `tls` is one of Tls or its name; `ssl_context` replaces the default one, which verifies
    (Tls.OPPORTUNISTIC: does not). `login` is username and password, or Credentials; the first of
    `mechanisms` that is offered and that they serve is used, those that show a secret in clear
    only with `login_in_clear`. `bind_login` binds SCRAM to the TLS channel where that is offered.
    `helo_name` is our own domain; by default the address literal of our end
    (RFC 5321 §4.1.4). `trace` is shown the dialogue line by line, redacted.

    Entering raises ConnectError, TlsError, RefusedError or LoginError. A session is for one task
    at a time.
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
    limits: Limits = field(factory=Limits, kw_only=True)
    deadlines: ClientDeadlines = field(factory=ClientDeadlines, kw_only=True)
    connector: Connector = field(default=connect_tcp, kw_only=True)
    trace: Callable[[str], None] | None = field(default=None, kw_only=True)

    #: The server's greeting, once connected.
    greeting: Reply | None = field(default=None, init=False)
    _connection: ClientConnection = field(init=False, repr=False)
    _pump: Pump[ClientEvent] = field(init=False, repr=False)
    _end: float = field(default=0.0, init=False, repr=False)

    @property
    def offered(self) -> dict[str, str]:
        """Keyword -> argument of the extensions that the server offers."""
        return self._connection.offered

    @property
    def tls_info(self) -> TlsInfo | None:
        """The TLS layer, None in clear."""
        return self._connection.tls

    @property
    def stream(self) -> ByteStream:
        """The stream below, for its attributes (certificate, addresses)."""
        return self._pump.stream

    @property
    def usable(self) -> bool:
        """Whether another transaction may be tried on this session."""
        return (
            not self._pump.closed
            and not self._connection.owed
            and self._connection.state in (State.READY, State.MAIL, State.RCPT)
        )

    # Opening and closing

    async def __aenter__(self) -> Self:
        seconds = self.deadlines.session
        self._end = float("inf") if seconds is None else anyio.current_time() + seconds
        try:
            await self._open(self.tls)
        except TlsError:
            # Only where the handshake failed: the session was left waiting for it.
            if self.tls is not Tls.OPPORTUNISTIC or self._connection.state is not State.TLS:
                raise
            await self._open(Tls.NONE)  # what was offered does not work; clear is still allowed
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Say QUIT where that is possible, wait for its answer within the deadline, and close."""
        try:
            heard = moves(self._connection.state, Quit) is not None and not self._connection.owed
            if heard and not self._pump.closed:
                with suppress(ClientError, StreamLostError, DeadlineError, RemoteProtocolError):
                    await self._ask(Quit(), "quit")
        finally:
            await self._pump.aclose()

    async def _open(self, tls: Tls) -> None:
        try:
            with self._within("connect"):
                stream = await self.connector(self.host, self.port)
        except (OSError, ValueError) as error:  # ValueError: a name that cannot be looked up
            why = f"cannot connect to {self.host}:{self.port}: {first_cause(error)}"
            raise ConnectError(why) from error
        self._connection = ClientConnection(self.extensions, limits=self.limits)
        self._pump = Pump(stream, self._connection)
        try:
            await self._begin(tls)
        except (StreamLostError, DeadlineError, RemoteProtocolError) as error:
            await self._pump.aclose()
            raise ConnectError(f"{self.host}:{self.port}: {error}") from error
        except ClientError:
            await self.aclose()
            raise
        except BaseException:
            await self._pump.aclose()
            raise

    async def _begin(self, tls: Tls) -> None:
        if tls is Tls.IMPLICIT:
            await self._start_tls(tls)
        self.greeting = await self._reply("greeting")
        self._require("greeting", self.greeting)
        await self._hello()
        if tls in (Tls.REQUIRED, Tls.OPPORTUNISTIC):
            if "STARTTLS" in self.offered:
                reply = await self._ask(StartTls(), "ehlo")
                if reply.severity is Severity.COMPLETION:
                    await self._start_tls(tls)
                    await self._hello()
                elif tls is Tls.REQUIRED:
                    raise TlsError(f"TLS is required and the server refused it: {reply}")
                elif self._connection.state is State.CLOSED:
                    raise RefusedError("STARTTLS", reply)
            elif tls is Tls.REQUIRED:
                raise TlsError("TLS is required and the server does not offer STARTTLS")
        if self.login is not None:
            with self._within("auth"):
                await self._log_in(self.login)

    async def _start_tls(self, tls: Tls) -> None:
        context = self.ssl_context
        if context is None:
            # In a thread: it reads the certificates that the system trusts.
            context = await to_thread.run_sync(ssl.create_default_context)
            if tls is Tls.OPPORTUNISTIC:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
        try:
            with self._within("tls"):
                await self._pump.start_tls(
                    context, server_side=False, hostname=self.server_name or self.host
                )
        except (StreamLostError, ValueError) as error:  # ValueError: no name for a certificate
            raise TlsError(f"TLS with {self.host}:{self.port} failed: {error}") from error

    async def _hello(self) -> None:
        name = self.helo_name or own_literal(self._pump.stream)
        reply = await self._ask(Ehlo(name), "ehlo")
        if reply.severity is Severity.PERMANENT and self._connection.state is not State.CLOSED:
            reply = await self._ask(Helo(name), "ehlo")  # RFC 5321 §3.2
        self._require("EHLO", reply)

    async def _log_in(self, login: Credentials | tuple[str, str]) -> None:
        credentials = login if isinstance(login, Credentials) else Credentials(*login)
        if self.bind_login and self._connection.tls is not None:
            credentials = evolve(credentials, binding=binding_of(self._connection.tls))
        offered = self.offered.get("AUTH", "").upper().split()
        mechanism = strongest(offered, credentials, self.mechanisms)
        if mechanism is None:
            raise TlsError(
                f"the server offers no login that we know (AUTH {' '.join(offered) or 'missing'})"
            )
        if mechanism.plaintext and self._connection.tls is None and not self.login_in_clear:
            raise TlsError("refusing to send a password in clear")
        exchange = ClientExchange(mechanism, credentials)
        initial = exchange.initial_response()
        command = Auth(mechanism.name, initial)
        held_back = len(command.serialize()) > Command.max_line  # RFC 4954 §4
        reply = await self._ask(Auth(mechanism.name) if held_back else command, "auth")
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
            reply = await self._ask(AuthResponse(answer), "auth")
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

    async def deliver(self, envelope: Envelope, content: AnyContent) -> Result:
        """Hand a message over; return an outcome for each recipient, whatever happens.

        `content` is what `source.source` takes. MAIL, RCPTs and DATA leave in one write where the
        server offers PIPELINING; SIZE and BODY are asked for where offered and of use. Raises
        LocalProtocolError for content or an envelope that may not be sent, what the content's
        own source raises, and ClientError when the session is not `usable`.
        """
        if not self.usable:
            raise ClientError("this session is over")
        taken = await source(content, eight_bit_offered="8BITMIME" in self.offered)
        transaction = Transaction(envelope)
        refusal = self._unfit(taken)
        if refusal is not None:
            transaction.settle(refusal)
            return transaction.result()
        try:
            await self._transact(transaction, self._dress(envelope.mail, taken), taken)
        except (StreamLostError, DeadlineError, RemoteProtocolError) as error:
            await self._pump.aclose()
            transaction.lose(str(error))
        except RefusedError as closing:
            transaction.settle(closing.reply)
        except BaseException:
            # Not ours: cancelled, or the content is at fault. Without the final dot nothing is
            # delivered, so there is nothing to do but leave.
            if self._pump.unsent or not self.usable:
                await self._pump.aclose()
            raise
        return transaction.result()

    async def command(self, command: Command) -> Reply:
        """Send a command that is no part of a transaction (NOOP, VRFY, HELP); return the reply.

        Raises ConnectError when the session is lost on the way, ClientError when it is over, and
        LocalProtocolError for a command that may not be sent.
        """
        if not self.usable:
            raise ClientError("this session is over")
        try:
            return await self._ask(command, "ehlo")
        except (StreamLostError, DeadlineError, RemoteProtocolError) as error:
            await self._pump.aclose()
            raise ConnectError(f"{self.host}:{self.port}: {error}") from error

    def _unfit(self, taken: Source) -> Reply | None:
        limit = self.offered.get("SIZE", "")
        known = limit.isdecimal() and len(limit) <= 20  # RFC 1870 §5
        if taken.octets and known and 0 < int(limit) < taken.octets:
            return NO_ROOM
        if taken.eight_bit and "8BITMIME" not in self.offered:
            return NOT_EIGHT_BIT
        return None

    def _dress(self, mail: Mail, taken: Source) -> Mail:
        """Add what the server wants to know of this message."""
        extra: dict[str, bytes | None] = {}
        known = {extension.keyword for extension in self.extensions}
        usable = known & self.offered.keys()
        if taken.octets is not None and "SIZE" in usable:
            extra |= SIZE_OCTETS(taken.octets)
        if taken.eight_bit is not False and "8BITMIME" in usable:
            extra |= BODY("8BITMIME")
        missing = {key: value for key, value in extra.items() if key not in mail.parameters}
        return evolve(mail, parameters={**mail.parameters, **missing}) if missing else mail

    async def _transact(self, transaction: Transaction, mail: Mail, taken: Source) -> None:
        if self._connection.state is not State.READY:
            self._require("RSET", await self._ask(Rset(), "ehlo"))
        replies: list[Reply] = []
        try:
            await self._ask_all([mail, *transaction.envelope.rcpts, Data()], replies)
        finally:
            transaction.judge(replies)  # what was refused already stays so, whatever came then
        if self._connection.state is not State.CONTENT:
            return
        if transaction.open:
            await self._send_content(transaction, taken)
        # A server may say 354 though it accepted nobody; it gets an empty message, which goes to
        # nobody (RFC 2920 §3.1).
        self._put(EndOfContent())
        transaction.dot_sent = True
        transaction.settle(await self._reply("final_dot"))

    async def _ask_all(self, commands: Sequence[Command], replies: list[Reply]) -> None:
        """Ask MAIL, RCPTs and DATA as far as it makes sense; add the replies as they come."""
        pipelining = "PIPELINING" in self.offered

        async def catch_up() -> None:
            while self._connection.owed:
                name = commands[len(replies)].verb.decode().lower()
                replies.append(await self._reply(name))
                if self._connection.state is State.CLOSED:
                    raise RefusedError("the session", replies[-1])

        for command in commands:
            if not pipelining or self._connection.owed >= WINDOW:
                await catch_up()
            if not self._connection.owed and replies:
                accepted = [reply.severity is Severity.COMPLETION for reply in replies]
                if not accepted[0] or (isinstance(command, Data) and not any(accepted[1:])):
                    return
            self._put(command)
        await catch_up()

    async def _send_content(self, transaction: Transaction, taken: Source) -> None:
        seven_bit = taken.eight_bit is None and "8BITMIME" not in self.offered
        with self._within("session"):
            async with taken.reading() as chunks:
                async for chunk in chunks:
                    if seven_bit and not chunk.isascii():
                        transaction.settle(NOT_EIGHT_BIT)
                        raise StreamLostError("8-bit content for a server that takes none")
                    self._put(Content(chunk))
                    with self._within("block"):
                        await self._pump.flush()

    # The small verbs

    def _put(self, thing: Command | Content | EndOfContent) -> None:
        if self._connection.buffered and not self._connection.owed:
            # Said before we asked, so it can be no answer; a 421 is one to everything.
            event = self._connection.next_event()
            if isinstance(event, Reply):
                raise RefusedError("the session", event)
            raise StreamLostError("the server talks out of turn")
        self._pump.put(self._connection.send(thing))
        self._show("C", thing)

    async def _ask(self, command: Command, name: str) -> Reply:
        self._put(command)
        return await self._reply(name)

    async def _reply(self, name: str) -> Reply:
        with self._within(name):
            event = await self._pump.pull()
        if not isinstance(event, Reply):
            raise StreamLostError("the server closed the connection")
        self._show("S", event)
        return event

    def _show(self, side: str, thing: Command | Content | EndOfContent | Reply) -> None:
        if self.trace is not None:
            for line in shown(thing):
                self.trace(f"{side}: {line}")

    @contextmanager
    def _within(self, name: str) -> Generator[None]:
        """Bound a wait by its own deadline, and by what is left of the session's."""
        seconds: float | None = getattr(self.deadlines, name)
        left = max(self._end - anyio.current_time(), 0)
        if name == "session" or seconds is None or left < seconds:
            with deadline("session", self.deadlines.session, left):
                yield
        else:
            with deadline(name, seconds):
                yield
