"""One session of a server, from greeting to goodbye: asks the core, the handler and the clock.

The core says what was said and what may be answered, the handler what to answer; here it is
awaited, within its deadline, and what is written leaves in as few writes as RFC 2920 allows.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Generator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
from anyio.abc import ByteStream
from attrs import evolve

from .core.command import (
    Auth,
    AuthResponse,
    Bdat,
    Command,
    Data,
    Ehlo,
    Helo,
    Mail,
    Quit,
    Rcpt,
    StartTls,
)
from .core.errors import LocalProtocolError, RemoteProtocolError
from .core.event import BadCommand, ConnectionClosed, EndOfChunk
from .core.reply import Reply
from .core.sasl import (
    AuthenticationError,
    Challenge,
    ChannelBinding,
    ServerContext,
    ServerExchange,
)
from .core.server_connection import ServerConnection, ServerEvent
from .core.state import State
from .handler import (
    ContentError,
    ContentStream,
    HangUp,
    Interceptor,
    Session,
    Welcomer,
    put_question,
)
from .stream import DeadlineError, Pump, StreamLostError, deadline, shown

if TYPE_CHECKING:
    from .server import Server

__all__ = ["Dialogue"]

log = logging.getLogger(__name__)

T = TypeVar("T")

HANDLER_FAILED = Reply(451, "4.3.0", "Local error in processing")
NOT_NOW = Reply(421, "4.3.0", "Service not available")
SHUTTING_DOWN = Reply(421, "4.3.2", "Service shutting down")
TOO_SLOW = Reply(421, "4.4.2", "Timed out")
TOO_MANY_CONNECTIONS = Reply(421, "4.7.0", "Too many connections")
TOO_MANY_LOGINS = Reply(421, "4.7.0", "Too many failed logins")
LOGGED_IN = Reply(235, "2.7.0", "Authentication successful")


class Dialogue:
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
            mechanisms=server.usable_mechanisms(),
            plaintext_auth=server.plaintext_allowed(session),
            tls_available=server.tls is not None,
            repair=server.repair,
        )
        self.pump: Pump[ServerEvent] = Pump(stream, self.connection)
        self.interceptor = server.handler if isinstance(server.handler, Interceptor) else None
        self.failed_logins = 0
        self.login_begun = False
        self.between_chunks = False
        self.flusher: anyio.abc.TaskGroup
        self.handler_scope = anyio.CancelScope()

    async def run(self) -> None:
        try:
            async with anyio.create_task_group() as self.flusher:
                try:
                    with deadline("session", self.deadlines.session):
                        await self.converse()
                except DeadlineError:
                    if self.can_talk:
                        await self.answer(self.connection.closing(TOO_SLOW))
                except RemoteProtocolError as error:
                    # Framing is lost and the connection closed: the last reply there is.
                    if error.reply is not None:
                        self.show("S", error.reply)
                        self.pump.put(error.reply.serialize())
                        await self.flush()
                except HangUp as order:
                    self.pump.put(order.octets)
                    await self.flush()
                self.flusher.cancel_scope.cancel()
        except* (StreamLostError, DeadlineError):
            pass  # the client has gone, or will not listen
        finally:
            await self.pump.aclose()  # by now it may be another stream than the one given

    @property
    def can_talk(self) -> bool:
        in_handshake = self.connection.state is State.TLS or (
            self.server.implicit_tls and self.connection.tls is None
        )
        return not in_handshake and self.connection.state is not State.CLOSED

    async def converse(self) -> None:
        if not self.server.has_room(self.session):
            # No handshake for those: it would cost more than they are worth.
            if self.can_talk:
                await self.answer(self.connection.closing(TOO_MANY_CONNECTIONS))
            return
        if self.server.implicit_tls:
            await self.start_tls()
        if not await self.greet():
            return
        while self.connection.state is not State.CLOSED:
            event = await self.next_command()
            if event is None:
                await self.answer(self.connection.closing(SHUTTING_DOWN))
            elif isinstance(event, ConnectionClosed):
                return
            else:
                await self.respond(event)

    async def greet(self) -> bool:
        if self.server.greeting_delay:
            await self.pump.listen(self.server.greeting_delay)
            self.session.early_talker = self.connection.buffered > 0
        reply = None
        not_now = self.connection.closing(NOT_NOW)
        handler = self.server.handler
        if isinstance(handler, Welcomer):
            reply = await self.ask(partial(handler.connect, self.session), failed=not_now)
        await self.answer(reply, failed=not_now)
        return self.connection.state is not State.CLOSED

    async def next_command(self) -> ServerEvent | None:
        """Wait for the next command; None when the server is to stop and no transaction is on."""
        if self.connection.state in (State.MAIL, State.RCPT):
            event: ServerEvent | None = await self.pull("command", self.deadlines.command)
        else:
            event = await self.pull_idle()
        if event is not None:
            self.show("C", event)
        return event

    async def pull_idle(self) -> ServerEvent | None:
        if self.server.stopping.is_set():
            return None
        event = self.pump.pull_at_hand()
        if event is None:
            await self.flush()  # outside of the scope: a reply is never cut off
            with anyio.CancelScope() as idle:
                self.server.idle.add(idle)
                try:
                    if not self.server.stopping.is_set():
                        event = await self.pull("command", self.deadlines.command)
                finally:
                    self.server.idle.discard(idle)
        return event

    async def respond(self, event: ServerEvent) -> None:
        handler = self.server.handler
        if self.interceptor is not None and isinstance(event, (Command, BadCommand)):
            usual = None if isinstance(event, Bdat) else self.connection.suggested_reply()
            before = partial(self.interceptor.before, self.session, event, usual)
            if (reply := await self.ask(before)) is not None:
                await self.answer(reply)
                return
        match event:
            case BadCommand():
                await self.answer(event.reply)
            case Mail():
                # The reply may share a write with others, if it is at hand (RFC 2920 §3.2).
                reply = await self.ask(partial(handler.mail, self.session, event))
                await self.answer(reply, flush=False)
            case Rcpt():
                reply = await self.ask(partial(handler.rcpt, self.session, event))
                await self.answer(reply, flush=False)
            case Data():
                await self.answer(None)
                await self.take_content()
            case Bdat():
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
        assert envelope is not None, "the core refuses DATA and BDAT without recipients"
        self.between_chunks = False
        stream = ContentStream(self.pull_content)
        reply = await self.ask(partial(self.server.handler.content, self.session, envelope, stream))
        # Whatever the handler has read, the session goes on behind the true end of the content.
        while stream.end is None:
            with suppress(StopAsyncIteration, ContentError):
                await anext(stream)
            if isinstance(stream.lost, _DroppedError):
                return
            if stream.lost is not None:
                raise stream.lost
        self.show("C", stream.end)
        if stream.end.fault is not None:
            reply = stream.end.fault
        await self.answer(reply)

    async def start_tls(self) -> None:
        context = self.server.tls
        assert context is not None, "neither offered nor implicit without one"
        with deadline("tls", self.deadlines.tls):
            await self.pump.start_tls(context, server_side=True)
        self.session.tls = self.connection.tls
        self.session.helo_name = ""
        self.session.extended = False
        self.session.identity = None

    async def log_in(self, command: Auth) -> None:
        mechanism = next(m for m in self.server.mechanisms if m.name == command.mechanism)
        exchange = ServerExchange(mechanism, command.initial_response, self.login_context())
        try:
            with deadline("auth", self.deadlines.auth):
                self.session.identity = await self.exchange(exchange)
        except AuthenticationError as error:
            await self.refuse_login(error.reply)
        else:
            if self.session.identity is not None:
                await self.answer(LOGGED_IN)

    def login_context(self) -> ServerContext:
        bindings, tls = self.server.sasl.bindings, self.connection.tls
        if bindings and tls is not None and tls.unique:
            bindings += (ChannelBinding("tls-unique", tls.unique),)
        return evolve(self.server.sasl, hostname=self.server.hostname, bindings=bindings)

    async def exchange(self, exchange: ServerExchange) -> str | None:
        """Go through a SASL exchange; return who logged in, None if the connection ended."""
        authenticator = self.server.authenticator
        step = exchange.step()
        while not isinstance(step, str):
            if not isinstance(step, Challenge):
                answer = await self.ask(partial(put_question, authenticator, self.session, step))
                if isinstance(answer, Reply):  # the authenticator failed
                    raise AuthenticationError(Reply(454, "4.7.0", "Temporary failure"))
                step = exchange.step(answer)
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
            reply = self.connection.closing(TOO_MANY_LOGINS)
        # Guessing costs time (RFC 4954 §9).
        await anyio.sleep(self.server.failed_login_delay)
        await self.answer(reply)

    # The small verbs

    async def ask(
        self, handler: Callable[[], Awaitable[T]], *, failed: Reply = HANDLER_FAILED
    ) -> T | Reply:
        """Await a handler's answer, within its deadline; what goes wrong becomes `failed`.

        If the handler waits for something, what was held back for the client leaves meanwhile.
        """
        try:
            with anyio.CancelScope() as self.handler_scope:
                self.start_handler_clock()
                return await _Noticing(handler(), self.flush_soon)
            log.error("a handler took longer than %s s", self.deadlines.handler)
        except HangUp:
            raise
        except ContentError as error:
            return error.reply or failed
        except Exception:
            log.exception("a handler failed in session %d", self.session.id)
        return failed

    def start_handler_clock(self) -> None:
        if self.deadlines.handler is not None:
            self.handler_scope.deadline = anyio.current_time() + self.deadlines.handler

    def stop_handler_clock(self) -> None:
        self.handler_scope.deadline = float("inf")

    async def answer(
        self, reply: Reply | None, *, flush: bool = True, failed: Reply = HANDLER_FAILED
    ) -> None:
        """Send a reply, None for the suggested one; `failed` where a handler's is illegal."""
        if reply is None:
            reply = self.connection.suggested_reply()
        try:
            octets = self.connection.send(reply)
        except LocalProtocolError:
            log.exception("a handler's reply is none in session %d", self.session.id)
            reply = failed
            octets = self.connection.send(reply)
        self.pump.put(octets)
        self.show("S", reply)
        if flush:
            await self.flush()

    async def pull(self, name: str, seconds: float | None) -> ServerEvent:
        event = self.pump.pull_at_hand()
        if event is None:
            await self.flush()
            with deadline(name, seconds):
                event = await self.pump.pull()
        return event

    async def pull_content(self) -> ServerEvent:
        self.stop_handler_clock()  # this is the client's time
        try:
            while True:
                if self.between_chunks:
                    await self.next_chunk()
                event = await self.pull("block", self.deadlines.block)
                if not isinstance(event, EndOfChunk):
                    return event
                # A handler may give up waiting and read on later: remember where we are.
                self.between_chunks = True
                await self.answer(event.fault, flush=False)
        finally:
            self.start_handler_clock()

    async def next_chunk(self) -> None:
        """Wait for another BDAT; answer what else is said meanwhile."""
        while self.connection.state is State.CHUNKS:
            event = await self.pull("command", self.deadlines.command)
            self.show("C", event)
            if isinstance(event, ConnectionClosed):
                raise StreamLostError("closed between two chunks")
            if isinstance(event, Bdat):
                self.between_chunks = False
                return
            await self.respond(event)
        await self.flush()  # the handler may take its time to tidy up
        raise _DroppedError("the client dropped the transaction between two chunks")

    async def flush(self) -> None:
        if self.pump.unsent:
            with deadline("write", self.deadlines.write):
                await self.pump.flush()

    def flush_soon(self) -> None:
        if self.pump.unsent:
            self.flusher.start_soon(self.flush_quietly)

    async def flush_quietly(self) -> None:
        with suppress(StreamLostError, DeadlineError):  # the dialogue will notice by itself
            await self.flush()

    def show(self, side: str, thing: Any) -> None:
        if self.server.trace is None:
            return
        # A line behind AUTH that is no command may be a password all the same.
        secret = isinstance(thing, BadCommand) and thing.command is None and self.login_begun
        for line in ["****"] if secret else shown(thing):
            self.server.trace(self.session, f"{side}: {line}")
        if isinstance(thing, (Auth, AuthResponse)):
            self.login_begun = True
        elif isinstance(thing, BadCommand):
            self.login_begun |= thing.line[:4].upper() == b"AUTH"
        elif isinstance(thing, Command):
            self.login_begun = False


class _DroppedError(StreamLostError):
    """There is no more content for this handler, and yet the session goes on."""


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
