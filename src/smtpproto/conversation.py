"""How a session of a server talks: with the client, the handler and the clock.

The core says what was said and what may be answered; here it is awaited, within its deadline, and
what is written leaves in as few writes as RFC 2920 allows. What is said when is `dialogue`'s.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Generator, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
from anyio.abc import ByteStream

from .core.command import Auth, AuthResponse, Command
from .core.errors import LocalProtocolError, RemoteProtocolError
from .core.event import BadCommand
from .core.reply import Reply
from .core.sasl import AuthenticationError
from .core.server_connection import ServerConnection, ServerEvent
from .core.state import State
from .deadline import Alarm, DeadlineError, deadline, is_stray
from .handler import ContentError, HangUp, Session
from .stream import Pump, StreamLostError, alone, shown
from .wire import ForeignWire

if TYPE_CHECKING:
    from .server import Server

__all__ = ["HANDLER_FAILED", "NOT_NOW", "SHUTTING_DOWN", "Conversation"]

log = logging.getLogger(__name__)

T = TypeVar("T")

#: What we listen to from a client that is sent away, before it is cut off.
LINGER_OCTETS = 1 << 20

#: Commands, or pieces of content, that one session hears before others are heard.
TURN = 64

HANDLER_FAILED = Reply(451, "4.3.0", "Local error in processing")
#: These say who closes (RFC 5321 §4.2.2).
CLOSING = (221, 421)
NOT_NOW = Reply(421, "4.3.0", "Service not available")
SHUTTING_DOWN = Reply(421, "4.3.2", "Service shutting down")
TOO_SLOW = Reply(421, "4.4.2", "Timed out")

HANDLER_SLOW = "a handler took longer than %s s"


class Conversation:
    """One session, but for what is said in it."""

    def __init__(
        self,
        server: Server,
        session: Session,
        stream: ByteStream,
        early: bytes = b"",
        *,
        implicit_tls: bool,
    ) -> None:
        self.server = server
        self.powers = server.powers
        self.implicit_tls = implicit_tls
        self.session = session
        self.deadlines = server.deadlines  # of now: see `press`
        self.connection = ServerConnection(
            server.hostname,
            server.extensions,
            offer=server.offered_to(session.peer[0]),
            limits=server.limits,
            mechanisms=self.powers.mechanisms,
            plaintext_auth=server.plaintext_allowed(session),
            tls_available=server.tls is not None,
            repair=server.repair,
            lmtp=server.lmtp,
        )
        self.believed = session.peer[0]  # who it is, whoever it says that it comes from
        session.belongs_to(self.connection)
        self.early = early  # what of it came behind a proxy's header
        self.pump: Pump[ServerEvent] = Pump(stream, self.connection)
        self.alarm = Alarm()
        self.end = float("inf")  # of the session, by the loop's clock
        self.due = float("inf")  # when the alarm was last set for
        self.stopping = server.stopping.is_set()
        self.idle = False  # it waits for a command, and no transaction is on
        self.parted = False  # nothing that the client may say will be left unheard
        #: What to do instead of what a handler would have answered, if it takes too long.
        self.instead: Callable[[], Awaitable[None]] | None = None
        self.failed_logins = 0
        #: As whom the guard lets somebody try to log in.
        self.admitted: str | None = None
        self.commands = self.idle_commands = self.errors = 0
        #: Seconds by which content may yet fall behind its rate.
        self.credit = float("inf")
        self.login_begun = False
        self.in_turn = 0  # what it had at hand and did not wait for
        self.between_chunks = False
        self.hearing = False  # a handler waits for content: that is the client's time

    @abstractmethod
    async def begin(self) -> None:
        """Say and hear all of it, from the greeting on."""

    @abstractmethod
    async def converse(self) -> None:
        """Go on with it, behind a reply."""

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
            self.alarm.off()
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
            except HangUp as order:
                step = None
                self.pump.put(order.octets)
                self.parted = not order.octets
        await self.part()

    def go_on_after(self, rang: str) -> Callable[[], Awaitable[None]] | None:
        """Decide what follows when the alarm rang; None if it is only the goodbye."""
        reply = TOO_SLOW
        match "stop" if self.server.cutting else rang:
            case "write":
                raise StreamLostError("the client does not listen")
            case "handler":
                log.error(HANDLER_SLOW, self.deadlines.handler)
                if self.instead is not None:
                    return self.go_on_without_handler
                reply = NOT_NOW
            case "stop":
                reply = SHUTTING_DOWN
            case _:
                pass
        if self.can_talk:
            self.put(reply)
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
        if not self.parted:
            with anyio.move_on_after(self.deadlines.linger):
                await self.pump.linger(LINGER_OCTETS)

    def press(self, pressed: bool) -> None:
        """There are too many connections, or no more: take the deadlines of that."""
        self.deadlines = self.server.patience(pressed=pressed)
        seconds = self.deadlines.command
        if self.idle and pressed and seconds is not None and self.alarm.now() + seconds < self.due:
            self.wait("command", seconds)

    def cut(self) -> None:
        """End the session with 421, whatever is under way."""
        self.alarm.ring("stop")

    @property
    def can_talk(self) -> bool:
        in_handshake = self.connection.state is State.TLS or (
            self.implicit_tls and self.connection.tls is None
        )
        return not in_handshake and self.connection.state is not State.CLOSED

    # The small verbs

    def ask(
        self,
        handler: Callable[[], Awaitable[T]],
        *,
        failed: Reply = HANDLER_FAILED,
        instead: Callable[[], Awaitable[None]] | None = None,
    ) -> Awaitable[T | Reply]:
        """Await a handler's answer, within its deadline; what goes wrong becomes `failed`.

        If the handler waits for something, what was held back for the client leaves meanwhile.
        If it waits too long, `instead` takes the place of what follows; `failed`, by default.
        """
        if self.hearing:
            return self.ask_meanwhile(handler, failed)
        return self.answer_of(handler, failed, instead)

    async def ask_meanwhile(self, handler: Callable[[], Awaitable[T]], failed: Reply) -> T | Reply:
        """Ask while another handler waits for content: that is not to be cut off with this one."""
        self.wait("session", None)
        seconds = self.deadlines.handler
        with anyio.move_on_after(seconds):
            return await self.answer_of(handler, failed, meanwhile=True)
        log.error(HANDLER_SLOW, seconds)
        return failed

    async def answer_of(
        self,
        handler: Callable[[], Awaitable[T]],
        failed: Reply,
        instead: Callable[[], Awaitable[None]] | None = None,
        *,
        meanwhile: bool = False,
    ) -> T | Reply:
        answer: T | Reply
        try:
            steps = handler().__await__()
            try:
                waits = next(steps)
            except StopIteration as at_once:  # most have nothing to wait for
                answer = at_once.value
                return answer
            self.wait_for_handler()
            if not meanwhile:
                self.instead = instead or partial(self.answer, failed)
            answer = await _GoingOn(steps, waits)
        except BaseException as raised:
            error = alone(raised)  # out of a handler's own task group
            if isinstance(error, HangUp):
                raise error from None
            answer = failed
            if isinstance(error, ContentError):
                answer = error.reply or failed
            elif isinstance(error, AuthenticationError):
                answer = error.reply
            elif isinstance(error, Exception) or is_stray(raised):
                log.exception("a handler failed in session %d", self.session.id)
            else:
                raise
        if not meanwhile:
            self.instead = None
        return answer

    def wait_for_handler(self) -> None:
        self.pump.flush_soon()
        if not self.hearing:
            self.wait("handler", self.deadlines.handler)

    def wait(self, name: str, seconds: float | None) -> None:
        """Set the alarm for what is awaited next."""
        at = self.end if seconds is None else self.alarm.now() + seconds
        if at >= self.end:
            name, at = "session", self.end
        self.due = at
        self.alarm.set(name, at)

    async def answer(self, reply: Reply | None, *, failed: Reply = HANDLER_FAILED) -> None:
        """Send a reply, None for the suggested one; `failed` where a handler's is illegal."""
        self.put(reply, failed=failed)
        if not self.pump.begin():
            await self.flush()

    def put(self, reply: Reply | None, *, failed: Reply = HANDLER_FAILED) -> Reply:
        """Answer; what is written may share a write with others (RFC 2920 §3.2).

        Returns what was said.
        """
        if reply is None:
            reply = self.connection.suggested_reply()
        try:
            reply = self.signed(reply)
            octets = self.connection.send(reply)
        except (LocalProtocolError, AttributeError):  # the latter for what is no Reply at all
            log.exception("a handler's reply is none in session %d", self.session.id)
            reply, octets = self.instead_of_none(self.signed(failed))
        self.pump.put(octets)
        if self.server.trace is not None:
            self.show("S", reply)
        return reply

    def signed(self, reply: Reply) -> Reply:
        """Put our name to a reply that has it before its text, whoever wrote it (§4.2.2)."""
        return self.connection.closing(reply) if reply.code in CLOSING else reply

    def put_each(self, replies: Iterable[Reply | None]) -> None:
        """Answer as often as an answer is owed: for LMTP that is once for each recipient."""
        for reply in replies:
            if not self.connection.replies_owed:  # also where one of them closed the session
                return
            self.put(reply)

    def instead_of_none(self, failed: Reply) -> tuple[Reply, bytes]:
        try:
            return failed, self.connection.send(failed)
        except LocalProtocolError:  # RSET is not refused within a transaction (RFC 5321 §4.1.1.5)
            usual = self.connection.suggested_reply()
            return usual, self.connection.send(usual)

    async def pull(self, name: str, seconds: float | None) -> ServerEvent:
        event = self.pump.pull_at_hand()
        if event is None:
            event = await self.wait_for_event(name, seconds)
        return event

    async def pull_within(self, name: str, seconds: float | None) -> ServerEvent:
        """Pull while a handler reads: it is not cut off, but told that there will be no more."""
        event = self.pump.pull_at_hand()
        if self.had_its_turn():  # also where it waits, for that may be no wait at all
            await self.let_others_go_on()
        return await self.wait_within(name, seconds) if event is None else event

    async def wait_within(self, name: str, seconds: float | None) -> ServerEvent:
        if not self.pump.begin():
            await self.flush()
        self.wait("session", None)
        if seconds is None:
            return await self.pump.wait()
        event = await self.pump.wait_until(self.alarm.now() + seconds)
        if event is None:
            raise DeadlineError(name, seconds)
        return event

    def had_its_turn(self) -> bool:
        """Tell whether other sessions should go on, for this one has had much at hand."""
        self.in_turn += 1
        return self.in_turn >= TURN

    async def let_others_go_on(self) -> None:
        self.in_turn = 0
        self.wait("session", None)
        await anyio.lowlevel.checkpoint()

    async def pull_fast_enough(self) -> ServerEvent:
        """Pull what is content, at no less than its rate; what a handler takes is not counted."""
        event = self.pump.pull_at_hand()
        while event is None:
            name, seconds = "block", self.deadlines.block
            if seconds is None or self.credit < seconds:
                name, seconds = "grace", max(self.credit, 0)
            late: DeadlineError | None = None
            began, had = self.alarm.now(), self.pump.received
            try:
                if self.had_its_turn():  # also where it waits, for that may be no wait at all
                    await self.let_others_go_on()
                event = await self.wait_within(name, seconds)
            except DeadlineError as error:
                late = error
            finally:
                came = self.pump.received - had
                self.account(came, self.alarm.now() - began)
            # Octets that are no event, those of a message too large, are progress as well.
            if late is not None and (not came or self.credit <= 0):
                raise late
        return event

    def account(self, octets: int, seconds: float) -> None:
        """Write down that so many octets of content took so long to come."""
        rate, grace = self.deadlines.rate, self.deadlines.grace
        if rate is not None and grace is not None:
            self.credit = min(self.credit + octets / rate, grace) - seconds

    async def slow_down(self) -> None:
        """Have an error behind the first few wait for its answer."""
        self.errors += 1
        if self.errors > self.server.max_quick_errors and not self.server.connections.pressed:
            self.pump.flush_soon()
            self.wait("session", None)
            await anyio.sleep(self.server.error_delay)

    async def wait_for_event(self, name: str, seconds: float | None) -> ServerEvent:
        """Wait for what is not at hand."""
        if not self.pump.begin():
            await self.flush()
        self.wait(name, seconds)
        return await self.pump.wait()

    async def flush(self) -> None:
        if not self.pump.begin():
            self.wait("write", self.deadlines.write)
            await self.pump.finish()

    def show(self, side: str, thing: Any) -> None:
        """Trace it, without its secrets."""
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


class _GoingOn(Awaitable[T]):
    """What is left of an awaitable whose first step was made (PEP 380, spelled out)."""

    def __init__(self, steps: Generator[Any, Any, T], waits: object) -> None:
        self._steps = steps
        self._waits = waits

    def __await__(self) -> Generator[Any, Any, T]:
        steps, waits = self._steps, self._waits
        try:
            while True:
                try:
                    sent = yield waits
                except GeneratorExit:
                    steps.close()
                    raise
                except BaseException as error:  # noqa: BLE001 - whatever it is, it is for the steps
                    waits = steps.throw(error)
                else:
                    waits = steps.send(sent)
        except StopIteration as stop:
            result: T = stop.value
            return result
