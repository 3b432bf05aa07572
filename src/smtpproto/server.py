"""The server over anyio: sessions, deadlines and limits around a `ServerConnection`.

Policy is the handler's, protocol the core's; between them are only octets and time.
"""

from __future__ import annotations

import errno
import ipaddress
import itertools
import logging
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
from contextlib import suppress
from typing import Any, Literal, TypeVar

import anyio
from anyio.abc import ByteStream, TaskStatus
from attrs import Factory, define, field, frozen

from .core.command import Auth, AuthResponse, Command, Data, Ehlo, Helo, Mail, Quit, Rcpt, StartTls
from .core.connection import Limits
from .core.errors import LocalProtocolError, RemoteProtocolError
from .core.event import BadCommand, ConnectionClosed, EndOfContent
from .core.extension import Extension
from .core.reply import Reply
from .core.sasl import (
    LOGIN,
    PLAIN,
    AuthenticationError,
    Mechanism,
    ServerExchange,
    Verify,
)
from .core.server_connection import ServerConnection, ServerEvent
from .core.state import State
from .extensions import STANDARD
from .handler import Authenticator, ContentError, ContentStream, Handler, Session, Welcomer
from .stream import (
    DeadlineError,
    Pump,
    StreamLostError,
    deadline,
    local_address,
    peer_address,
    shown,
)

__all__ = [
    "Authenticator",
    "ContentError",
    "ContentStream",
    "Handler",
    "Server",
    "ServerDeadlines",
    "Session",
    "Welcomer",
]

log = logging.getLogger(__name__)

T = TypeVar("T")

HANDLER_FAILED = Reply(451, "4.3.0", "Local error in processing")
SHUTTING_DOWN = Reply(421, "4.3.2", "Service shutting down")
TOO_SLOW = Reply(421, "4.4.2", "Timed out")
TOO_MANY_CONNECTIONS = Reply(421, "4.7.0", "Too many connections")
TOO_MANY_LOGINS = Reply(421, "4.7.0", "Too many failed logins")
LOGGED_IN = Reply(235, "2.7.0", "Authentication successful")


@frozen
class ServerDeadlines:
    """How long the server waits, in seconds; None for ever.

    RFC 5321 §4.5.3.2.7 asks for at least 5 minutes of patience with a client's next command.
    `command` bounds the wait for one whole line however it dribbles in, `block` that for the
    next octets of content, `handler` what a handler may take to answer (clients give the final
    dot 10 minutes), `drain` how long transactions under way may go on after `stop()`.
    """

    tls: float | None = 60
    command: float | None = 300
    auth: float | None = 120
    block: float | None = 180
    write: float | None = 180
    handler: float | None = 570
    session: float | None = 4 * 3600
    drain: float | None = 30


@define(eq=False)
class Server:
    """An SMTP server: `await task_group.start(server.serve, host, port)`.

    `handler` decides about mail; `authenticator` about logins, AUTH is offered where there is
    one. `tls` is the context for STARTTLS, or from the first octet with `implicit_tls`.
    `plaintext_auth` says where passwords may be sent without TLS. `max_connections_per_peer`
    counts by client address. `trace(session, line)` is shown the dialogue, redacted.
    """

    handler: Handler
    hostname: str = "localhost"
    tls: ssl.SSLContext | None = field(default=None, kw_only=True)
    implicit_tls: bool = field(default=False, kw_only=True)
    authenticator: Authenticator | None = field(default=None, kw_only=True)
    mechanisms: Sequence[Mechanism] = field(default=(PLAIN, LOGIN), kw_only=True)
    plaintext_auth: Literal["never", "loopback", "always"] = field(default="never", kw_only=True)
    extensions: Sequence[Extension] = field(default=STANDARD, kw_only=True)
    offer: Sequence[Extension] | None = field(default=None, kw_only=True)
    limits: Limits = field(factory=Limits, kw_only=True)
    deadlines: ServerDeadlines = field(factory=ServerDeadlines, kw_only=True)
    max_connections: int = field(default=1000, kw_only=True)
    max_connections_per_peer: int = field(default=50, kw_only=True)
    max_failed_logins: int = field(default=3, kw_only=True)
    failed_login_delay: float = field(default=1.0, kw_only=True)
    repair: bool = field(default=False, kw_only=True)
    trace: Callable[[Session, str], None] | None = field(default=None, kw_only=True)

    # What the running server keeps, for its dialogues.
    stopping: anyio.Event = field(factory=anyio.Event, init=False, repr=False)
    idle: set[anyio.CancelScope] = field(
        default=Factory(set[anyio.CancelScope]), init=False, repr=False
    )
    peers: Counter[str] = field(default=Factory(Counter[str]), init=False, repr=False)
    ids: Iterator[int] = field(default=Factory(lambda: itertools.count(1)), init=False, repr=False)

    def stop(self) -> None:
        """End gracefully: no new connections, 421 to idle ones, the others may finish.

        `serve` returns when they have, or when the drain deadline is over.
        """
        self.stopping.set()
        for scope in list(self.idle):
            scope.cancel()

    async def serve(
        self,
        host: str | None = "127.0.0.1",
        port: int = 0,
        *,
        task_status: TaskStatus[tuple[str, int]] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Listen and serve until `stop()` or cancellation; None listens on all addresses.

        Reports the address and port it is bound to when it is ready. OSError if it cannot bind.
        """
        async with (
            await anyio.create_tcp_listener(local_host=host, local_port=port) as listener,
            anyio.create_task_group() as sessions,
        ):
            task_status.started(local_address(listener))
            async with anyio.create_task_group() as accepting:
                accepting.start_soon(self._accept, listener, sessions)
                await self.stopping.wait()
                accepting.cancel_scope.cancel()
            await listener.aclose()
            if self.deadlines.drain is not None:
                sessions.cancel_scope.deadline = anyio.current_time() + self.deadlines.drain

    async def _accept(
        self, listener: anyio.abc.Listener[anyio.abc.SocketStream], sessions: anyio.abc.TaskGroup
    ) -> None:
        while True:
            try:
                await listener.serve(self.serve_stream, sessions)
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    raise
                log.error("cannot accept a connection: %s", error)
                await anyio.sleep(0.1)

    async def serve_stream(self, stream: ByteStream) -> None:
        """Serve one connection on a stream that is open already, and close it."""
        peer = peer_address(stream)
        session = Session(next(self.ids), peer, local_address(stream))
        self.peers[peer[0]] += 1
        try:
            await _Dialogue(self, session, stream).run()
        except Exception:
            log.exception("session %d with %s ended by an error", session.id, peer[0])
        finally:
            self.peers[peer[0]] -= 1
            if not self.peers[peer[0]]:
                del self.peers[peer[0]]
            await anyio.aclose_forcefully(stream)

    def has_room(self, session: Session) -> bool:
        return (
            self.peers.total() <= self.max_connections
            and self.peers[session.peer[0]] <= self.max_connections_per_peer
        )

    def plaintext_allowed(self, session: Session) -> bool:
        if self.plaintext_auth == "loopback":
            return bool(session.peer[0]) and ipaddress.ip_address(session.peer[0]).is_loopback
        return self.plaintext_auth == "always"


class _Dialogue:
    """One session from greeting to goodbye."""

    def __init__(self, server: Server, session: Session, stream: ByteStream) -> None:
        self.server = server
        self.session = session
        self.deadlines = server.deadlines
        self.connection = ServerConnection(
            server.hostname,
            server.extensions,
            offer=server.offer,
            limits=server.limits,
            mechanisms=server.mechanisms if server.authenticator else (),
            plaintext_auth=server.plaintext_allowed(session),
            tls_available=server.tls is not None,
            repair=server.repair,
        )
        self.pump: Pump[ServerEvent] = Pump(stream, self.connection)
        self.failed_logins = 0
        self.flusher: anyio.abc.TaskGroup
        self.handler_scope = anyio.CancelScope()

    async def run(self) -> None:
        try:
            async with anyio.create_task_group() as self.flusher:
                try:
                    with deadline("session", self.deadlines.session):
                        await self.converse()
                except DeadlineError as error:
                    if error.name not in ("tls", "write"):  # there the client cannot be told
                        await self.answer(TOO_SLOW)
                except RemoteProtocolError as error:
                    # Framing is lost and the connection closed: the last reply there is.
                    if error.reply is not None:
                        self.show("S", error.reply)
                        self.pump.put(error.reply.serialize())
                        await self.flush()
                self.flusher.cancel_scope.cancel()
        except* (StreamLostError, DeadlineError):
            pass  # the client has gone, or will not listen
        finally:
            await self.pump.aclose()  # by now it may be another stream than the one given

    async def converse(self) -> None:
        if self.server.implicit_tls:
            await self.start_tls()
        if not await self.greet():
            return
        while self.connection.state is not State.CLOSED:
            event = await self.next_command()
            if event is None:
                await self.answer(SHUTTING_DOWN)
            elif isinstance(event, ConnectionClosed):
                return
            else:
                await self.respond(event)

    async def greet(self) -> bool:
        reply = None
        if not self.server.has_room(self.session):
            reply = TOO_MANY_CONNECTIONS
        elif isinstance(self.server.handler, Welcomer):
            reply = await self.ask(self.server.handler.connect(self.session))
        await self.answer(reply)
        self.session.early_talker = self.connection.early_talker
        return self.connection.state is not State.CLOSED

    async def next_command(self) -> ServerEvent | None:
        """Wait for the next command; None when the server is to stop and none has come."""
        if self.server.stopping.is_set():
            return None
        with anyio.CancelScope() as idle:
            self.server.idle.add(idle)
            try:
                event = await self.pull("command", self.deadlines.command)
            finally:
                self.server.idle.discard(idle)
            self.show("C", event)
            return event
        return None

    async def respond(self, event: ServerEvent) -> None:
        handler = self.server.handler
        match event:
            case BadCommand():
                await self.answer(event.reply)
            case Mail():
                # The reply may share a write with others, if it is at hand (RFC 2920 §3.2).
                await self.answer(await self.ask(handler.mail(self.session, event)), flush=False)
            case Rcpt():
                await self.answer(await self.ask(handler.rcpt(self.session, event)), flush=False)
            case Data():
                await self.take_content()
            case Auth():
                await self.log_in(event)
            case StartTls():
                await self.answer(None)
                await self.start_tls()
            case Command():
                await self.answer(None, flush=not event.pipelined)
                if isinstance(event, (Ehlo, Helo)):
                    self.session.helo_name = event.name.decode()
                    self.session.extended = isinstance(event, Ehlo)
                elif isinstance(event, Quit):
                    return
            case _:  # pragma: no cover - content comes only after 354
                raise AssertionError(event)

    async def take_content(self) -> None:
        envelope = self.connection.envelope
        assert envelope is not None, "the core refuses DATA without recipients"
        await self.answer(None)
        stream = ContentStream(self.pull_content)
        reply = await self.ask(
            self.server.handler.content(self.session, envelope, stream), clock_runs=False
        )
        # Whatever the handler has read, the session goes on behind the true end of the content.
        while stream.end is None:
            with suppress(StopAsyncIteration):
                try:
                    await anext(stream)
                except ContentError as error:
                    if error.reply is None:
                        return
        self.show("C", stream.end)
        if stream.end.fault is not None:
            reply = stream.end.fault
        await self.answer(reply)

    async def start_tls(self) -> None:
        context = self.server.tls
        if context is None:
            raise LocalProtocolError("a server with implicit_tls needs a TLS context")
        with deadline("tls", self.deadlines.tls):
            await self.pump.start_tls(context, server_side=True)
        self.session.tls = self.connection.tls
        self.session.helo_name = ""
        self.session.extended = False
        self.session.identity = None

    async def log_in(self, command: Auth) -> None:
        mechanism = next(m for m in self.server.mechanisms if m.name == command.mechanism)
        exchange = ServerExchange(mechanism, command.initial_response)
        try:
            with deadline("auth", self.deadlines.auth):
                self.session.identity = await self.exchange(exchange)
        except AuthenticationError as error:
            await self.refuse_login(error.reply)
        else:
            if self.session.identity is not None:
                await self.answer(LOGGED_IN)

    async def exchange(self, exchange: ServerExchange) -> str | None:
        """Go through a SASL exchange; return who logged in, None if the connection ended."""
        assert self.server.authenticator is not None
        step = exchange.step()
        while not isinstance(step, str):
            if isinstance(step, Verify):
                right = await self.ask(self.server.authenticator.verify(self.session, step))
                if isinstance(right, Reply):  # the authenticator failed
                    raise AuthenticationError(Reply(454, "4.7.0", "Temporary failure"))
                step = exchange.step(right is True)
                continue
            await self.answer(step.reply())
            event = await self.pull("command", self.deadlines.command)
            self.show("C", event)
            if isinstance(event, BadCommand):
                raise AuthenticationError(event.reply)
            if not isinstance(event, AuthResponse):
                return None
            step = exchange.step(event.data)
        return step

    async def refuse_login(self, reply: Reply) -> None:
        self.failed_logins += 1
        if self.failed_logins >= self.server.max_failed_logins:
            reply = TOO_MANY_LOGINS
        # Guessing costs time (RFC 4954 §9).
        await anyio.sleep(self.server.failed_login_delay)
        await self.answer(reply)

    # The small verbs

    async def ask(self, answer: Awaitable[T], *, clock_runs: bool = True) -> T | Reply:
        """Await a handler's answer, within its deadline; what goes wrong becomes 451.

        If the handler waits for something, what was held back for the client leaves meanwhile.
        """
        try:
            with anyio.CancelScope() as self.handler_scope:
                if clock_runs:
                    self.start_handler_clock()
                return await _Noticing(answer, self.flush_soon)
            log.error("a handler took longer than %s s", self.deadlines.handler)
        except ContentError as error:
            return error.reply or HANDLER_FAILED
        except (RemoteProtocolError, StreamLostError, DeadlineError):
            if self.connection.state is State.CONTENT:
                raise  # not the handler's fault: the content it was reading has stopped
            log.exception("a handler failed in session %d", self.session.id)
        except Exception:
            log.exception("a handler failed in session %d", self.session.id)
        return HANDLER_FAILED

    def start_handler_clock(self) -> None:
        if self.deadlines.handler is not None:
            self.handler_scope.deadline = anyio.current_time() + self.deadlines.handler

    async def answer(self, reply: Reply | None, *, flush: bool = True) -> None:
        """Send a reply, None for the suggested one."""
        if reply is None:
            reply = self.connection.suggested_reply()
        self.pump.put(self.connection.send(reply))
        self.show("S", reply)
        if flush:
            await self.flush()

    async def pull(self, name: str, seconds: float | None) -> ServerEvent:
        with deadline(name, seconds):
            return await self.pump.pull()

    async def pull_content(self) -> ServerEvent:
        event = await self.pull("block", self.deadlines.block)
        if isinstance(event, EndOfContent):
            self.start_handler_clock()  # until here it was the client's time
        return event

    async def flush(self) -> None:
        with deadline("write", self.deadlines.write):
            await self.pump.flush()

    def flush_soon(self) -> None:
        self.flusher.start_soon(self.flush_quietly)

    async def flush_quietly(self) -> None:
        with suppress(StreamLostError, DeadlineError):  # the dialogue will notice by itself
            await self.flush()

    def show(self, side: str, thing: Any) -> None:
        if self.server.trace is not None:
            lines = [repr(thing.line)[2:-1]] if isinstance(thing, BadCommand) else shown(thing)
            for line in lines:
                self.server.trace(self.session, f"{side}: {line}")


class _Noticing(Awaitable[T]):
    """Awaits `inner`, and calls `on_wait` when it first has to wait (PEP 380, spelled out)."""

    def __init__(self, inner: Awaitable[T], on_wait: Callable[[], None]) -> None:
        self._inner = inner
        self._on_wait = on_wait

    def __await__(self) -> Generator[Any, Any, T]:
        steps = self._inner.__await__()
        assert isinstance(steps, Generator) or hasattr(steps, "send")
        try:
            waiting = next(steps)
            self._on_wait()
            while True:
                try:
                    sent = yield waiting
                except GeneratorExit:
                    steps.close()
                    raise
                except BaseException as error:  # noqa: BLE001 - whatever it is, it is for `inner`
                    waiting = steps.throw(error)
                else:
                    waiting = steps.send(sent)
        except StopIteration as stop:
            result: T = stop.value
            return result
