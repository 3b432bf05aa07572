"""One session of `probe`, step by step, so that each failure is known by where it happened."""

from __future__ import annotations

import binascii
import ssl
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime

import anyio
from anyio.abc import ByteStream
from anyio.streams.tls import TLSAttribute
from attrs import define, field

from smtpproto.client import Connector, Tls, connect_tcp, verifying
from smtpproto.core.client_connection import ClientConnection, ClientEvent
from smtpproto.core.command import Auth, AuthResponse, Command, Ehlo, Helo, Quit, StartTls
from smtpproto.core.errors import RemoteProtocolError
from smtpproto.core.event import TlsInfo
from smtpproto.core.reply import Reply, Severity
from smtpproto.core.sasl import ClientExchange, Credentials, ExchangeError
from smtpproto.core.state import State
from smtpproto.deadline import DeadlineError, deadline
from smtpproto.extensions import STANDARD
from smtpproto.mechanisms import strongest
from smtpproto.relay.routing.route import HostPort
from smtpproto.stream import (
    Pump,
    StreamLostError,
    causes,
    local_address,
    peer_address,
    shown,
)

from .certificate import days_left
from .console import reply_text
from .values import is_loopback
from .words import explain

__all__ = ["Findings", "Probe"]

SOON = 14  # days before its end in which a certificate is worth a word


@define
class Findings:
    """What a probe has found out. `problems` are wrong; `notes` are only worth knowing."""

    offered: dict[str, str] = field(factory=dict[str, str])
    tls: TlsInfo | None = None
    #: In DER.
    certificate: bytes = b""
    trusted: bool = False
    logged_in: bool = False
    problems: list[str] = field(factory=list[str])
    notes: list[str] = field(factory=list[str])


class OverError(Exception):
    """There is nothing more to ask; what is wrong has been noted."""


class UntrustedError(Exception):
    """The certificate is not accepted, which the message explains."""


@define(eq=False)
class Probe:
    """Talks to the server at `address` and tells `show` each line; `run` fills `findings`.

    `tls` None takes STARTTLS where it is offered. `context` verifies; None is the system's.
    `seconds` bounds each wait.
    """

    address: HostPort
    tls: Tls | None = field(default=None, kw_only=True)
    context: ssl.SSLContext | None = field(default=None, kw_only=True)
    login: tuple[str, str] | None = field(default=None, kw_only=True, repr=False)
    helo_name: str | None = field(default=None, kw_only=True)
    seconds: float = field(default=30.0, kw_only=True)
    show: Callable[[str], None] = field(default=lambda line: None, kw_only=True)
    connector: Connector = field(default=connect_tcp, kw_only=True)
    now: Callable[[], datetime] = field(default=lambda: datetime.now(UTC), kw_only=True)

    findings: Findings = field(factory=Findings, init=False)
    _quiet: bool = field(default=False, init=False)
    _loopback: bool = field(default=False, init=False)

    async def run(self) -> None:
        """Have the session; a second one, without verification, if the certificate is bad."""
        try:
            await self._session(verify=True)
        except UntrustedError as error:
            self.findings.problems.append(str(error))
            self.show("-- connecting again without checking the certificate, to see the rest")
            self._quiet = True
            try:
                await self._session(verify=False)
            except OverError:
                pass
            finally:
                self._quiet = False
        except OverError:
            pass

    def _wrong(self, words: str) -> OverError:
        self.findings.problems.append(words)
        return OverError(words)

    def _note(self, words: str) -> None:
        if words not in self.findings.notes:
            self.findings.notes.append(words)

    def _say(self, line: str) -> None:
        if not self._quiet:
            self.show(line)

    # The session

    async def _session(self, *, verify: bool) -> None:
        stream = await self._connect()
        session = _Talk(stream, self.seconds, self._say)
        try:
            try:
                await self._converse(session, verify=verify)
            finally:
                await self._quit(session)
        finally:
            await session.pump.aclose()

    async def _quit(self, session: _Talk) -> None:
        try:
            await session.quit()
        except RemoteProtocolError as error:
            self._wrong(f"what answers there does not keep to SMTP: {error}")

    async def _connect(self) -> ByteStream:
        try:
            with deadline("connect", self.seconds):
                stream = await self.connector(self.address.host, self.address.port)
        except (OSError, DeadlineError) as error:
            words = explain(error, self.address.host)
            raise self._wrong(f"cannot connect to {self.address}: {words}") from None
        host, port = peer_address(stream)
        self._loopback = is_loopback(host)
        self._say(f"-- connected to {HostPort(host, port)}")
        return stream

    async def _converse(self, session: _Talk, *, verify: bool) -> None:
        if self.tls is Tls.IMPLICIT:
            await self._start_tls(session, verify=verify)
        await self._greeting(session)
        await self._hello(session)
        clear = dict(session.connection.offered)
        if self.tls not in {Tls.IMPLICIT, Tls.NONE}:
            await self._maybe_starttls(session, verify=verify)
        self.findings.offered = session.connection.offered
        self._judge_offer(clear)
        if self.login is not None:
            await self._log_in(session, *self.login, trusted=verify)

    async def _greeting(self, session: _Talk) -> None:
        with self._step("the greeting"):
            reply = await session.reply("greeting")
        if reply.severity is not Severity.COMPLETION:
            raise self._wrong(f"the server does not want to talk to us: {reply_text(reply)}")

    async def _hello(self, session: _Talk) -> None:
        name = self.helo_name or session.literal()
        with self._step("EHLO"):
            reply = await session.ask(Ehlo(name))
            if reply.severity is Severity.PERMANENT and session.open:
                self._note("the server does not know EHLO, so it has no extensions at all")
                reply = await session.ask(Helo(name))
        if reply.severity is not Severity.COMPLETION:
            raise self._wrong(f"the server refuses our EHLO: {reply_text(reply)}")

    async def _maybe_starttls(self, session: _Talk, *, verify: bool) -> None:
        if "STARTTLS" not in session.connection.offered:
            words = "the server offers no TLS: everything goes in clear"
            wanted = self.tls is Tls.REQUIRED or (self.address.port == 587 and self.tls is None)
            if wanted and not (self._loopback and self.tls is None):
                self.findings.problems.append(words)
            else:
                self._note(words)
            return
        with self._step("STARTTLS"):
            reply = await session.ask(StartTls())
        if reply.severity is not Severity.COMPLETION:
            words = f"the server offers STARTTLS and then refuses it: {reply_text(reply)}"
            self.findings.problems.append(words)
            return
        await self._start_tls(session, verify=verify)
        await self._hello(session)

    async def _start_tls(self, session: _Talk, *, verify: bool) -> None:
        context = self.context or verifying()
        if not verify:
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        try:
            with deadline("tls", self.seconds):
                await session.pump.start_tls(context, server_side=False, hostname=self.address.host)
        except (StreamLostError, DeadlineError, RemoteProtocolError) as error:
            words = explain(error, self.address.host)
            if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes(error)):
                self._say(f"-- TLS handshake: {words}")
                raise UntrustedError(words) from None
            raise self._wrong(f"the TLS handshake failed: {words}") from None
        self._quiet = False
        self.findings.tls = session.connection.tls
        self.findings.trusted = verify
        certificate = session.pump.stream.extra(TLSAttribute.peer_certificate_binary, None)
        self.findings.certificate = certificate or b""
        assert self.findings.tls is not None
        self._say(f"-- TLS handshake: {self.findings.tls.version}, {self.findings.tls.cipher}")
        left = days_left(self.findings.certificate, self.now())
        if left is not None and 0 <= left < SOON:
            self._note(f"the certificate ends in {left} days")

    def _judge_offer(self, clear: dict[str, str]) -> None:
        offered, tls = self.findings.offered, self.findings.tls
        if tls is not None and self.tls is not Tls.IMPLICIT and "AUTH" in offered:
            if "AUTH" not in clear:
                self._note("logins are offered only after TLS, as they should be")
            elif not self._loopback:
                self._note("logins are offered before TLS, too, where they can be overheard")
        if "AUTH" not in offered and self.address.port in {465, 587} and self.login is None:
            self._note(f"no logins are offered, which port {self.address.port} is made for")

    # The login

    async def _log_in(self, session: _Talk, username: str, password: str, *, trusted: bool) -> None:
        offered = session.connection.offered
        mechanisms = offered.get("AUTH", "").upper().split()
        tls = session.connection.tls
        if "AUTH" not in offered:
            raise self._wrong(self._no_auth(tls))
        if tls is not None and not trusted:
            self._note("the login was not tried: the certificate is not trusted")
            return
        if tls is None and not self._loopback:
            raise self._wrong("the login was not tried: the password would go in clear")
        credentials = Credentials(username, password)
        mechanism = strongest(mechanisms, credentials)
        if mechanism is None:
            names = " ".join(mechanisms) or "none"
            raise self._wrong(f"no login by a password is offered, only: {names}")
        exchange = ClientExchange(mechanism, credentials)
        with self._step("the login"):
            initial = exchange.initial_response()
            command = Auth(mechanism.name, initial)
            held_back = len(command.serialize()) > Command.max_line  # RFC 4954 §4
            reply = await session.ask(Auth(mechanism.name) if held_back else command)
            while reply.severity is Severity.INTERMEDIATE:
                answer = initial if held_back else _respond(exchange, reply)
                held_back = False
                reply = await session.ask(AuthResponse(answer))
        if reply.severity is Severity.COMPLETION:
            try:
                exchange.succeed()
            except ExchangeError as error:
                raise self._wrong(f"the login: {error}") from None
            self.findings.logged_in = True
        elif reply.code == 535:
            raise self._wrong(f"the login is wrong, says the server: {reply_text(reply)}")
        elif reply.severity is Severity.TRANSIENT:
            raise self._wrong(f"the server cannot check logins now: {reply_text(reply)}")
        else:
            raise self._wrong(f"the login was refused: {reply_text(reply)}")

    def _no_auth(self, tls: TlsInfo | None) -> str:
        if tls is None and "STARTTLS" in self.findings.offered:
            return "no login is offered in clear; under TLS it may be (leave out --tls none)"
        ports = [port for port in (587, 465) if port != self.address.port]
        return "no login is offered here; try port " + " or ".join(map(str, ports))

    @contextmanager
    def _step(self, step: str) -> Generator[None]:
        """Turn what goes wrong in a step into words."""
        try:
            yield
        except RemoteProtocolError as error:
            first = "is no SMTP server" if step == "the greeting" else "does not keep to SMTP"
            raise self._wrong(f"what answers there {first}: {error}") from None
        except DeadlineError as error:
            words = explain(error)
            raise self._wrong(words if step == "the greeting" else f"{step}: {words}") from None
        except (StreamLostError, _HungUpError) as error:
            lost = isinstance(error, StreamLostError)
            words = explain(error) if lost else "the server closed the connection"
            if step == "the greeting" and self.tls is not Tls.IMPLICIT:
                words += " (it may refuse our address, or wait for TLS: --tls implicit)"
            raise self._wrong(f"no answer to {step}: {words}") from None


def _respond(exchange: ClientExchange, reply: Reply) -> bytes | None:
    try:
        return exchange.respond(binascii.a2b_base64(reply.lines[0], strict_mode=True))
    except (ValueError, ExchangeError):
        return None  # cancels


class _HungUpError(Exception):
    """The server closed the connection instead of replying."""


class _Talk:
    """The small verbs of a session: say, hear."""

    def __init__(self, stream: ByteStream, seconds: float, say: Callable[[str], None]) -> None:
        self.connection = ClientConnection(STANDARD)
        self.pump: Pump[ClientEvent] = Pump(stream, self.connection)
        self._say = say
        self._seconds = seconds

    @property
    def open(self) -> bool:
        return self.connection.state not in {State.CLOSED, State.TLS}

    def literal(self) -> str:
        """Return our address as a literal (RFC 5321 §4.1.3)."""
        address = local_address(self.pump.stream)[0].partition("%")[0]
        if not address:
            return "localhost"
        return f"[IPv6:{address}]" if ":" in address else f"[{address}]"

    async def ask(self, command: Command) -> Reply:
        if self.connection.buffered:
            # Said before we asked: a 421, or nothing that SMTP knows.
            early = self.connection.next_event()
            if not isinstance(early, Reply):
                raise RemoteProtocolError("it talks out of turn")
            return self._heard(early)
        self.pump.put(self.connection.send(command))
        for line in shown(command):
            self._say(f"C: {line}")
        return await self.reply("reply")

    async def reply(self, name: str) -> Reply:
        with deadline(name, self._seconds):
            event = await self.pump.pull()
        if not isinstance(event, Reply):
            self._say("-- the server closed the connection")
            raise _HungUpError
        return self._heard(event)

    def _heard(self, reply: Reply) -> Reply:
        for line in shown(reply):
            self._say(f"S: {line}")
        return reply

    async def quit(self) -> None:
        """Say goodbye where that can be said; it does not matter if nobody listens."""
        if self.open and not self.connection.owed:
            with anyio.move_on_after(min(self._seconds, 5)):
                try:
                    await self.ask(Quit())
                except (StreamLostError, DeadlineError, _HungUpError):
                    self._say("-- the server did not answer QUIT")
