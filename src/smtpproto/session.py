"""One session of a client below its steps: commands out, replies in, within deadlines, observed."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

import anyio
from anyio.abc import ByteStream
from attrs import field, frozen

from .core.client_connection import ClientConnection, ClientEvent
from .core.command import Command
from .core.errors import LocalProtocolError
from .core.event import NEED_DATA, Chunk, Content, EndOfContent
from .core.extension import Extension
from .core.reply import Reply
from .core.state import State
from .deadline import Alarm, DeadlineError
from .extensions.limits import Maxima
from .observe import Closed, Event, Observer, ReplyReceived, command_sent
from .result import RefusedError
from .stream import Pump, StreamLostError

__all__ = ["ClientDeadlines", "ClientSession", "Clock", "Offer"]

log = logging.getLogger(__name__)


@frozen
class ClientDeadlines:
    """How long the client waits, in seconds; None for ever.

    `greeting` to `final_dot` are those of RFC 5321 §4.5.3.2, which asks for no less. The others
    it does not name: `ehlo` also bounds HELO, RSET and any other command, `auth` the whole login,
    `session` everything from connecting on. `block` bounds each write of content and, where it
    goes by BDAT, the reply to each chunk but the last.
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


class Clock:
    """Bounds what is awaited in a `with` block, by a deadline that moves from wait to wait.

    Leaving the block raises DeadlineError for the wait that was cut off. Blocks do not nest.
    In `own_waits` only those of the session are bounded, and raise it: there it need not be
    possible to cut off anything else, and for that alone a scope costs as much as all waits.
    """

    def __init__(self, deadlines: ClientDeadlines) -> None:
        self._deadlines = deadlines
        seconds = deadlines.session
        self._end = float("inf") if seconds is None else anyio.current_time() + seconds
        self._alarm = Alarm()
        self._own = False
        self._waits_for, self._until = "session", self._end

    @property
    def until(self) -> float | None:
        """When the wait that comes has to end; None where the block sees to that."""
        return self._until if self._own else None

    def late(self) -> DeadlineError:
        """Return what a wait has earned that did not end by then."""
        return DeadlineError(self._waits_for, getattr(self._deadlines, self._waits_for))

    def own_waits(self) -> Self:
        """Return the clock for a block in which it bounds what the session itself waits for."""
        self._own, self._waits_for, self._until = True, "session", self._end
        return self

    def __enter__(self) -> Self:
        if self._own:
            return self
        self._alarm.__enter__()
        self._alarm.set("session", self._end)
        return self

    @property
    def running(self) -> bool:
        """Whether somebody is within a block."""
        return self._own or self._alarm.entered

    def off(self) -> None:
        """Leave no timer behind: the session is over."""
        self._alarm.off()

    def within(self, name: str) -> None:
        """Bound what comes next by the deadline of this name, and by what is left of `session`."""
        seconds: float | None = getattr(self._deadlines, name)
        at = self._end if seconds is None else self._alarm.now() + seconds
        if at >= self._end:
            name, at = "session", self._end
        if self._own:
            self._waits_for, self._until = name, at
        else:
            self._alarm.set(name, at)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._own:
            self._own = False
            return
        self._alarm.__exit__(kind, error, traceback)
        if (rang := self._alarm.rang) is not None:
            raise DeadlineError(rang, getattr(self._deadlines, rang))


@frozen
class Offer:
    """What the server offers and this client knows: keyword -> argument; and its LIMITS."""

    lines: Mapping[str, str]
    maxima: Maxima
    #: Content of any octets may be sent (RFC 3030 §3).
    takes_binary: bool = field(init=False)

    def __attrs_post_init__(self) -> None:
        binary = "BINARYMIME" in self.lines and "CHUNKING" in self.lines
        object.__setattr__(self, "takes_binary", binary)

    def __contains__(self, keyword: object) -> bool:
        return keyword in self.lines


class ClientSession:
    """A connection, the pump that moves its octets, the clock for its waits, and who is told."""

    def __init__(
        self,
        stream: ByteStream,
        connection: ClientConnection,
        clock: Clock,
        *,
        extensions: Sequence[Extension],
        observers: Sequence[Observer] = (),
    ) -> None:
        self.connection = connection
        self.pump: Pump[ClientEvent] = Pump(stream, connection)
        self.clock = clock
        #: Transactions that were begun, and the domains of their recipients where these count.
        self.transactions = 0
        self.domains: set[bytes] = set()
        self._known = frozenset(extension.keyword for extension in extensions)
        self._observers = tuple(observers)
        self._offer = Offer({}, Maxima())
        self._heard: dict[str, str] = {}  # what that offer was made of
        # What is owed a reply, and since when: kept where somebody is told.
        self._asked: deque[tuple[str, float]] = deque([("greeting", anyio.current_time())])

    @property
    def offer(self) -> Offer:
        """What was offered last that this client knows."""
        heard = self.connection.offered
        if heard is not self._heard:
            lines = {keyword: text for keyword, text in heard.items() if keyword in self._known}
            self._offer = Offer(lines, Maxima.parse(lines.get("LIMITS", "")))
            self._heard = heard
        return self._offer

    @property
    def observed(self) -> bool:
        """Whether anybody is told of events."""
        return bool(self._observers)

    @property
    def open(self) -> bool:
        """Whether commands may be sent."""
        return (
            not self.pump.closed and not self.connection.owed and self.connection.state in _BETWEEN
        )

    @property
    def usable(self) -> bool:
        """Whether another transaction may be tried."""
        most = self.offer.maxima.mail
        return self.open and (most is None or self.transactions < most)

    def tell(self, event: Event) -> None:
        """Tell everybody who asked. What an observer raises is logged: no mail hangs on it."""
        for observer in self._observers:
            try:
                observer(event)
            except Exception:
                log.exception("an observer failed")

    def put(self, thing: Command | Content | EndOfContent | Chunk) -> None:
        """Have it leave with the next write.

        LocalProtocolError as the connection raises it. RefusedError or StreamLostError where the
        server has said something that nobody asked for.
        """
        try:
            octets = self.connection.send(thing)
        except LocalProtocolError:
            self._check_turn()
            raise
        self._leave(octets, (thing,))

    def put_group(self, commands: Sequence[Command]) -> None:
        """Have commands leave together, with the next write. Raises as `put` does: all or none."""
        try:
            octets = self.connection.send_group(commands)
        except LocalProtocolError:
            self._check_turn()
            raise
        self._leave(octets, commands)

    def _check_turn(self) -> None:
        connection = self.connection
        if connection.buffered and not connection.owed:
            # Said before we asked, so it can be no answer; a 421 is one to everything.
            event = connection.next_event()
            if isinstance(event, Reply):
                raise RefusedError("the session", event) from None
            raise StreamLostError("the server talks out of turn") from None

    def _leave(
        self, octets: bytes, things: Sequence[Command | Content | EndOfContent | Chunk]
    ) -> None:
        self.pump.put(octets)
        for thing in things if self._observers else ():
            if not isinstance(thing, Content):
                sent = command_sent(thing)
                self._asked.append((sent.verb, anyio.current_time()))
                self.tell(sent)

    async def flush(self, name: str) -> None:
        """Write what was put, within the deadline of this name."""
        if not self.pump.begin():
            self.clock.within(name)
            await self._finish()

    async def _finish(self) -> None:
        if (until := self.clock.until) is None:
            await self.pump.finish()
            return
        with anyio.CancelScope(deadline=until) as scope:
            await self.pump.finish()
        if scope.cancelled_caught:
            raise self.clock.late()

    def reply_at_hand(self) -> Reply | None:
        """Return the next reply where it is there already; None where it is not.

        StreamLostError or RemoteProtocolError where there is none to come.
        """
        event = self.connection.next_event()
        if isinstance(event, Reply):
            if self._observers:
                self._tell_reply(event)
            return event
        if event is NEED_DATA:
            return None
        raise StreamLostError("the server closed the connection")

    async def reply(self, name: str | None) -> Reply:
        """Return the next reply, within the deadline of this name; None leaves that of before.

        StreamLostError or RemoteProtocolError where there is none.
        """
        return self.reply_at_hand() or await self.reply_to_come(name)

    async def reply_to_come(self, name: str | None) -> Reply:
        """Do as `reply` where none is at hand."""
        if name is not None:
            self.clock.within(name)
        until = self.clock.until
        while True:
            if until is None:
                await self.pump.receive()
            else:
                if not self.pump.begin():
                    await self._finish()
                if not await self.pump.receive_until(until):
                    raise self.clock.late()
            if (reply := self.reply_at_hand()) is not None:
                return reply

    def _tell_reply(self, reply: Reply) -> None:
        verb, since = self._asked[0] if self._asked else ("", anyio.current_time())
        # LMTP answers the content several times; it stays owed until the last (RFC 2033 §4.2).
        if len(self._asked) > self.connection.owed:
            self._asked.popleft()
        self.tell(ReplyReceived(verb, reply, anyio.current_time() - since))

    async def ask(self, command: Command, name: str | None) -> Reply:
        """Send one command and return its reply."""
        self.put(command)
        return await self.reply(name)

    async def aclose(self, reason: str = "") -> None:
        """Close the stream without another word."""
        was_closed = self.pump.closed
        self.clock.off()
        try:
            await self.pump.aclose()
        finally:
            if not was_closed:
                self.tell(Closed(reason))


# Where the next transaction may begin; behind RSET, but for the first.
_BETWEEN = (State.READY, State.MAIL, State.RCPT, State.CHUNKS, State.SPOILED)
