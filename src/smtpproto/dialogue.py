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
from .deadline import Alarm, DeadlineError, deadline
from .handler import ContentError, ContentStream, Session, Welcomer, put_question
from .stream import Pump, StreamLostError, shown
from .wire import ForeignWire

if TYPE_CHECKING:
    from .server import Server

__all__ = ["Dialogue"]

log = logging.getLogger(__name__)

T = TypeVar("T")

#: What we listen to from a client that is sent away, before it is cut off.
LINGER_OCTETS = 1 << 20

HANDLER_FAILED = Reply(451, "4.3.0", "Local error in processing")
NOT_NOW = Reply(421, "4.3.0", "Service not available")
SHUTTING_DOWN = Reply(421, "4.3.2", "Service shutting down")
TOO_SLOW = Reply(421, "4.4.2", "Timed out")
TOO_MANY_CONNECTIONS = Reply(421, "4.7.0", "Too many connections")
TOO_MANY_LOGINS = Reply(421, "4.7.0", "Too many failed logins")
NO_LOGIN_NOW = Reply(454, "4.7.0", "Temporary failure")
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
        self.alarm = Alarm()
        self.end = float("inf")  # of the session, by the loop's clock
        self.idle = False  # it waits for a command, and no transaction is on
        self.parted = False  # nothing that the client may say will be left unheard
        #: What to do instead of what a handler would have answered, if it takes too long.
        self.instead: Callable[[], Awaitable[None]] | None = None
        self.failed_logins = 0
        self.login_begun = False
        self.between_chunks = False
        self.hearing = False  # a handler waits for content: that is the client's time

    async def run(self) -> None:
        wire = self.pump.stream
        try:
            if isinstance(wire, ForeignWire):
                async with anyio.create_task_group() as wire.tasks:
                    await self.lead()
                    wire.tasks.cancel_scope.cancel()
            else:
                await self.lead()
        except* (StreamLostError, DeadlineError):
            pass  # the client has gone, or will not listen
        finally:
            await self.pump.aclose()

    async def lead(self) -> None:
        """Go through the session; on with it where a handler took too long."""
        step: Callable[[], Awaitable[None]] | None = self.begin
        while step is not None:
            try:
                with self.alarm:
                    await step()
                step = self.go_on_after(self.alarm.rang) if self.alarm.rang else None
            except DeadlineError:
                step = self.go_on_after("")
            except RemoteProtocolError as error:
                # Framing is lost and the connection closed: the last reply there is.
                step = None
                if error.reply is not None:
                    self.show("S", error.reply)
                    self.pump.put(error.reply.serialize())
        await self.part()

    def go_on_after(self, rang: str) -> Callable[[], Awaitable[None]] | None:
        """Decide what follows when the alarm rang; None if it is only the goodbye."""
        reply = TOO_SLOW
        match rang:
            case "write":
                raise StreamLostError("the client does not listen")
            case "handler":
                log.error("a handler took longer than %s s", self.deadlines.handler)
                if self.instead is not None:
                    return self.go_on_without_handler
                reply = NOT_NOW
            case "stop":
                reply = SHUTTING_DOWN
            case _:
                pass
        if self.can_talk:
            self.put(self.connection.closing(reply))
        return None

    async def go_on_without_handler(self) -> None:
        assert self.instead is not None, "else the session had ended"
        instead, self.instead = self.instead, None
        await instead()
        await self.converse()

    async def part(self) -> None:
        """Send the last reply, and see to it that it is heard."""
        if not self.pump.begin():
            with deadline("write", self.deadlines.write):
                await self.pump.finish()
        if not self.parted and self.deadlines.linger:
            with anyio.move_on_after(self.deadlines.linger):
                await self.pump.linger(LINGER_OCTETS)

    @property
    def can_talk(self) -> bool:
        in_handshake = self.connection.state is State.TLS or (
            self.server.implicit_tls and self.connection.tls is None
        )
        return not in_handshake and self.connection.state is not State.CLOSED

    async def begin(self) -> None:
        if self.deadlines.session is not None:
            self.end = self.alarm.now() + self.deadlines.session
        if not self.server.has_room(self.session):
            # No handshake for those, and no waiting: it would cost more than they are worth.
            self.parted = True
            if self.can_talk:
                await self.answer(self.connection.closing(TOO_MANY_CONNECTIONS))
            return
        if self.server.implicit_tls:
            await self.start_tls()
        if await self.greet():
            await self.converse()

    async def converse(self) -> None:
        while self.connection.state is not State.CLOSED:
            event = await self.next_command()
            if event is None:
                await self.answer(self.connection.closing(SHUTTING_DOWN))
            elif isinstance(event, ConnectionClosed):
                self.parted = True
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
            reply = await self.ask(
                partial(handler.connect, self.session),
                failed=not_now,
                instead=partial(self.answer, not_now),
            )
        await self.answer(reply, failed=not_now)
        return self.connection.state is not State.CLOSED

    async def next_command(self) -> ServerEvent | None:
        """Wait for the next command; None when the server is to stop and no transaction is on."""
        event = self.pump.pull_at_hand() if self.connection.buffered else None
        if self.connection.state not in (State.MAIL, State.RCPT):
            if self.server.stopping.is_set():
                return None
            if event is None:
                await self.flush()  # so that no reply is cut off when the server stops
                self.idle = True
        if event is None:
            try:
                event = await self.wait_for_event("command", self.deadlines.command)
            finally:
                self.idle = False
        self.show("C", event)
        return event

    def stop(self) -> None:
        """End the session where no transaction is on: the server stops."""
        if self.idle:
            self.alarm.ring("stop")

    async def respond(self, event: ServerEvent) -> None:
        handler = self.server.handler
        match event:
            case BadCommand():
                await self.answer(event.reply)
            case Mail():
                # The reply may share a write with others, if it is at hand (RFC 2920 §3.2).
                self.put(await self.ask(partial(handler.mail, self.session, event)))
            case Rcpt():
                self.put(await self.ask(partial(handler.rcpt, self.session, event)))
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
            case Quit():
                self.parted = not self.connection.buffered
                await self.answer(None)
            case Command():
                self.put(None)
                if not event.pipelined:
                    await self.flush()
                if isinstance(event, (Ehlo, Helo)):
                    self.session.helo_name = event.name.decode()
                    self.session.extended = isinstance(event, Ehlo)
            case _:  # pragma: no cover - content comes only after 354
                raise AssertionError(event)

    async def take_content(self) -> None:
        envelope = self.connection.envelope
        assert envelope is not None, "the core refuses DATA and BDAT without recipients"
        self.between_chunks = False
        stream = ContentStream(self.pull_content)
        handler = self.server.handler
        reply = await self.ask(
            partial(handler.content, self.session, envelope, stream),
            instead=partial(self.end_content, stream, HANDLER_FAILED),
        )
        await self.end_content(stream, reply)

    async def end_content(self, stream: ContentStream, reply: Reply | None) -> None:
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
        self.wait("session", None)
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
                answer = await self.ask(
                    partial(put_question, authenticator, self.session, step),
                    instead=partial(self.refuse_login, NO_LOGIN_NOW),
                )
                if isinstance(answer, Reply):  # the authenticator failed
                    raise AuthenticationError(NO_LOGIN_NOW)
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
        self,
        handler: Callable[[], Awaitable[T]],
        *,
        failed: Reply = HANDLER_FAILED,
        instead: Callable[[], Awaitable[None]] | None = None,
    ) -> T | Reply:
        """Await a handler's answer, within its deadline; what goes wrong becomes `failed`.

        If the handler waits for something, what was held back for the client leaves meanwhile.
        If it waits too long, `instead` takes the place of what follows; `failed`, by default.
        """
        # Within another handler's content there is no going on without that.
        outer = self.instead
        self.instead = None if outer else instead or partial(self.answer, failed)
        try:
            reply: T | Reply = await _Noticing(handler(), self.wait_for_handler)
        except ContentError as error:
            reply = error.reply or failed
        except Exception:
            log.exception("a handler failed in session %d", self.session.id)
            reply = failed
        self.instead = outer
        return reply

    def wait_for_handler(self) -> None:
        self.pump.flush_soon()
        if not self.hearing:
            self.wait("handler", self.deadlines.handler)

    def wait(self, name: str, seconds: float | None) -> None:
        """Set the alarm for what is awaited next."""
        at = self.end if seconds is None else self.alarm.now() + seconds
        if at < self.end:
            self.alarm.set(name, at)
        else:
            self.alarm.set("session", self.end)

    async def answer(self, reply: Reply | None, *, failed: Reply = HANDLER_FAILED) -> None:
        """Send a reply, None for the suggested one; `failed` where a handler's is illegal."""
        self.put(reply, failed=failed)
        await self.flush()

    def put(self, reply: Reply | None, *, failed: Reply = HANDLER_FAILED) -> None:
        """Answer; what is written may share a write with others (RFC 2920 §3.2)."""
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

    async def pull(self, name: str, seconds: float | None) -> ServerEvent:
        event = self.pump.pull_at_hand()
        if event is None:
            event = await self.wait_for_event(name, seconds)
        return event

    async def pull_within(self, name: str, seconds: float | None) -> ServerEvent:
        """Pull while a handler reads: it is not cut off, but told that there will be no more."""
        event = self.pump.pull_at_hand()
        if event is None:
            if self.pump.unsent:
                await self.flush()
            self.wait("session", None)
            with deadline(name, seconds):
                event = await self.pump.wait()
        return event

    async def wait_for_event(self, name: str, seconds: float | None) -> ServerEvent:
        """Wait for what is not at hand."""
        if self.pump.unsent:
            await self.flush()
        self.wait(name, seconds)
        return await self.pump.wait()

    async def pull_content(self) -> ServerEvent:
        self.hearing = True
        try:
            while True:
                if self.between_chunks:
                    await self.next_chunk()
                event = await self.pull_within("block", self.deadlines.block)
                if not isinstance(event, EndOfChunk):
                    return event
                # A handler may give up waiting and read on later: remember where we are.
                self.between_chunks = True
                self.put(event.fault)
        finally:
            self.hearing = False
            self.wait("handler", self.deadlines.handler)

    async def next_chunk(self) -> None:
        """Wait for another BDAT; answer what else is said meanwhile."""
        while self.connection.state is State.CHUNKS:
            event = await self.pull_within("command", self.deadlines.command)
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
        if not self.pump.begin():
            self.wait("write", self.deadlines.write)
            await self.pump.finish()

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
