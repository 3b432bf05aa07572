"""Who may have a connection, and which: the books of a pool, without I/O and without time.

Each destination has a lane: its connections, and those who wait for one of them. So what is slow
holds up its own lane. Who waits gets the first connection that is free, be it one that was just
opened or one that was used.

A lane that wants another connection stands in a ring for a place; places are dealt to the lane
that has least, and among equals in turn. While a lane waits for a place and all are taken,
connections that nobody uses are closed for it, the one idle for longest first; and who has more
than a fair share gives up one after the message it carries.

Who never answers keeps its place until a deadline ends that. So the less is known of the life of a
destination, the fewer places there are for opening its first connection: a hundred that are silent
leave room for those that are new, and these for those that answered.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from attrs import define, field

__all__ = ["Lane", "Lanes", "Ticket"]

S = TypeVar("S", bound=Hashable)

#: What is known of the life of a destination: a connection is open; or else the last attempt to
#: open one went well; there was none; it failed.
OPEN, ANSWERED, NEW, FAILED = KINDS = range(4)
#: And what part of all places first connections may have while they open: to destinations of a
#: kind, and of those behind it, together. It is not one half for all that is strange: what is down
#: for good comes back again and again, and must not be in the way of what is new; of that most is
#: well, and would wait for the few that are silent if it had no more than they fill; and even what
#: answered yesterday may be silent today, and not alone in that.
PARTS = 1, 7 / 8, 3 / 4, 1 / 2
#: Of so many destinations it is remembered how that ended, those that were tried last.
MEMORY = 10_000


@define(eq=False)
class Ticket(Generic[S]):
    """What one who asks for a connection holds, until there is a `session` for it or an `error`.

    The session is in use from then on. `wake` is called when a ticket is settled that was not at
    once.
    """

    lane: Lane[S]
    session: S | None = None
    error: Exception | None = None
    wake: Callable[[], None] | None = None

    @property
    def settled(self) -> bool:
        """Whether there is nothing more to wait for."""
        return self.session is not None or self.error is not None

    def settle(self, session: S | None = None, error: Exception | None = None) -> None:
        """Give it a connection, or the reason why there is none."""
        self.session, self.error = session, error
        if self.wake is not None:
            self.wake()


@define(eq=False)
class Lane(Generic[S]):
    """The connections to one destination, and who waits for them."""

    key: Hashable
    #: Connections that there may be: as many as we want, or less if the server would not.
    most: int
    alive: int = 0  # idle or in use
    opening: int = 0
    closing: int = 0
    idle: deque[S] = field(factory=deque[S])
    waiting: OrderedDict[Ticket[S], None] = field(factory=OrderedDict[Ticket[S], None])
    #: The kind among which it waits for a place, and that as which its first connection opens.
    ring: int | None = None
    first: int | None = None

    @property
    def count(self) -> int:
        """How many connections there are, from before they open until they are closed."""
        return self.alive + self.opening + self.closing

    @property
    def wants(self) -> bool:
        """Whether somebody waits here whom one connection more would help.

        Where there is none yet, one goes first, and the others wait for what becomes of it: a
        server that is down is asked once.
        """
        scouted = self.alive > 0 or not self.opening
        return len(self.waiting) > self.opening and self.count < self.most and scouted


class Lanes(Generic[S]):
    """The lanes of all destinations: at most `total` connections, and `each` in one lane.

    `open(lane)` is called for each connection that has to be opened, and `opened` or `unopened` has
    to be when it was; `part(lane, session)` for each that has to be closed, and `closed`. Every
    change is made by one call, which is over before anybody else has a turn; so there is nothing to
    lock.
    """

    def __init__(
        self,
        total: int,
        each: int,
        open: Callable[[Lane[S]], None],
        part: Callable[[Lane[S], S], None],
    ) -> None:
        self.total, self.each = total, each
        self._open, self._part = open, part
        #: Connections of all lanes, and how many of them are being closed.
        self.count = self.closing = 0
        #: Why nobody gets anything any more.
        self.over: Exception | None = None
        #: Those that nobody uses, with their lanes; the one idle for longest first.
        self.idle: dict[S, Lane[S]] = {}
        self._lanes: dict[Hashable, Lane[S]] = {}
        #: Those that want a place, by their kind, in the order in which they are to have one.
        self._rings: list[dict[Hashable, Lane[S]]] = [{} for _ in KINDS]
        #: How many first connections there are that open, of a kind or one behind it; and may be.
        self._firsts = [0 for _ in KINDS]
        self._most = [math.ceil(total * part) for part in PARTS]
        #: By the hash of the key: nothing is kept alive for this, such as a host's TLS context.
        self._answered: OrderedDict[int, bool] = OrderedDict()

    @property
    def lanes(self) -> tuple[Lane[S], ...]:
        """Those with a connection, or somebody who waits."""
        return tuple(self._lanes.values())

    # Those who want to send

    def ask(self, key: Hashable, *, first: bool = False) -> Ticket[S]:
        """Ask for a connection in the lane of this key; `first` before all who wait there."""
        lane = self._lanes.get(key) or Lane[S](key, self.each)
        ticket = Ticket(lane)
        if self.over is not None:
            ticket.settle(error=self.over)
            return ticket
        if lane.idle and not lane.waiting:  # as where there is little to do
            ticket.settle(self._last_used(lane))
            return ticket
        self._lanes[key] = lane
        lane.waiting[ticket] = None
        lane.waiting.move_to_end(ticket, last=not first)
        self._serve(lane)
        return ticket

    def withdraw(self, ticket: Ticket[S]) -> None:
        """Take back a ticket that nothing will be done with, settled or not."""
        if ticket.session is not None:
            self.put_back(ticket.lane, ticket.session)
        elif ticket.error is None:
            del ticket.lane.waiting[ticket]
            self._serve(ticket.lane)

    def opened(self, lane: Lane[S], session: S) -> None:
        """A connection is open, and for who waits longest."""
        self._learn(lane, answered=True)
        lane.opening -= 1
        lane.alive += 1
        lane.most = min(lane.most + 1, self.each)  # where the server would not once, step by step
        # It carries one message, whoever else waits: else places would go round and no message.
        if self.over is not None:
            self.retire(lane, session)
        else:
            self._offer(lane, session)

    def unopened(self, lane: Lane[S], error: Exception) -> None:
        """A connection could not be opened.

        Where others of this lane are open, the server wants no more of them, and they are worth
        waiting for. Where none are nor will be, the error is for all who wait.
        """
        self._learn(lane, answered=lane.alive > 0)
        lane.opening -= 1
        self.count -= 1
        if lane.alive:
            lane.most = lane.alive + lane.opening
        elif not lane.opening:
            self._turn_away(lane, error)
        self._serve(lane)

    def put_back(self, lane: Lane[S], session: S) -> None:
        """A connection is not in use any more, and may be used again."""
        if self.over is not None or self._has_too_much(lane):
            self.retire(lane, session)
        else:
            self._offer(lane, session)

    def retire(self, lane: Lane[S], session: S) -> None:
        """A connection is not in use any more, and must not be again."""
        self._close(lane, session)
        self._serve(lane)

    def retire_idle(self, lane: Lane[S]) -> None:
        """Nobody may use those again that nobody uses now."""
        while lane.idle:
            self.expire(lane.idle[0])

    def expire(self, session: S) -> None:
        """One that nobody uses was idle for long enough."""
        lane = self.idle.pop(session)
        lane.idle.remove(session)
        self.retire(lane, session)

    def closed(self, lane: Lane[S]) -> None:
        """A connection that was parted with is closed."""
        lane.closing -= 1
        self.closing -= 1
        self.count -= 1
        self._serve(lane)

    def end(self, error: Exception) -> None:
        """Give nothing to anybody from now on: who waits gets the error, and all are closed."""
        self.over = error
        for lane in self.lanes:
            self._turn_away(lane, error)
            self._serve(lane)
        for session in list(self.idle):
            self.expire(session)

    # What follows from it

    def _offer(self, lane: Lane[S], session: S) -> None:
        lane.idle.append(session)
        self.idle[session] = lane
        self._serve(lane)

    def _serve(self, lane: Lane[S]) -> None:
        """Give to a lane what there is for it, and note whether it wants more."""
        while lane.waiting and lane.idle:
            ticket, _ = lane.waiting.popitem(last=False)
            ticket.settle(self._last_used(lane))
        self._line_up(lane)
        if not lane.count and not lane.waiting:
            self._lanes.pop(lane.key, None)
        self._deal()

    def _last_used(self, lane: Lane[S]) -> S:
        """Take one that is idle: so those that are too many stay so."""
        session = lane.idle.pop()
        del self.idle[session]
        return session

    def _learn(self, lane: Lane[S], *, answered: bool) -> None:
        """An opening has ended: note what that says of the destination."""
        if lane.first is not None:
            self._count_first(lane.first, -1)
            lane.first = None
        self._answered[hash(lane.key)] = answered
        self._answered.move_to_end(hash(lane.key))
        if len(self._answered) > MEMORY:
            self._answered.popitem(last=False)

    def _count_first(self, kind: int, by: int) -> None:
        for each in KINDS[: kind + 1]:
            self._firsts[each] += by

    def _line_up(self, lane: Lane[S]) -> None:
        """See that a lane stands in the ring of its kind, if it wants a place, and in no other."""
        ring = self._kind(lane) if lane.wants else None
        if ring == lane.ring:
            return
        if lane.ring is not None:
            del self._rings[lane.ring][lane.key]
        if ring is not None:
            self._rings[ring][lane.key] = lane
        lane.ring = ring

    def _kind(self, lane: Lane[S]) -> int:
        if lane.alive:
            return OPEN
        answered = self._answered.get(hash(lane.key))
        return NEW if answered is None else ANSWERED if answered else FAILED

    def _deal(self) -> None:
        """Give the places that are free to those that want one; see that there will be more."""
        while self.count < self.total and (lane := self._next()) is not None:
            assert lane.ring is not None
            del self._rings[lane.ring][lane.key]
            if lane.ring != OPEN:
                lane.first = lane.ring
                self._count_first(lane.first, 1)
            lane.ring = None
            lane.opening += 1
            self.count += 1
            self._open(lane)
            self._line_up(lane)  # behind the others
        while self.idle and self._wanted() > self.closing:
            session, lane = next(iter(self.idle.items()))
            del self.idle[session]
            lane.idle.remove(session)
            self._close(lane, session)

    def _next(self) -> Lane[S] | None:
        """Return whose turn it is: one who has nothing comes before one who has little.

        And of those one of whom less is known comes first: they are few, and would wait else as
        long as there are others.
        """
        if not any(self._rings):  # as mostly
            return None
        for kind in FAILED, NEW, ANSWERED:
            if self._rings[kind] and all(map(self._room, KINDS[: kind + 1])):
                return next(iter(self._rings[kind].values()))
        return min(self._rings[OPEN].values(), key=lambda lane: lane.count, default=None)

    def _room(self, kind: int) -> int:
        """Return how many first connections more may be opening, of a kind or one behind it."""
        return self._most[kind] - self._firsts[kind]

    def _wanted(self) -> int:
        """Return how many lanes would be given a place each, were there enough of them."""
        if not any(self._rings):
            return 0
        wanted = 0
        for kind in FAILED, NEW, ANSWERED:
            wanted = min(wanted + len(self._rings[kind]), self._room(kind))
        return wanted + len(self._rings[OPEN])

    def _has_too_much(self, lane: Lane[S]) -> bool:
        """Tell whether a lane has to make room for one that has less.

        It does for one that has nothing; else only where both are better balanced then, or they
        would take it from each other for ever.
        """
        if self._wanted() <= self.closing:
            return False
        least = self._next()
        return least is not None and (not least.count or lane.count > least.count + 1)

    def _turn_away(self, lane: Lane[S], error: Exception) -> None:
        while lane.waiting:
            ticket, _ = lane.waiting.popitem(last=False)
            ticket.settle(error=error)

    def _close(self, lane: Lane[S], session: S) -> None:
        lane.alive -= 1
        lane.closing += 1
        self.closing += 1
        self._part(lane, session)
