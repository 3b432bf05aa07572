"""What the last attempts taught us of next hops: which are down, or crowded, or silent in part.

A next hop that cannot be talked with is *held* as one: whatever is due for it meanwhile is put off
to the end of the hold without being tried, and the first message behind that tries it again. So a
thousand messages for a dead host cost one connection now and then, and not a thousand.

Where one of its hosts alone cannot be reached, that one comes *last* for a while: each message
would wait for it else, before it goes to the next.

A next hop that takes mail more slowly than mail comes is *crowded*: only so many messages stand in
the line before it, and the others are put off for a little while, longer where that does not help.
So nobody who is slow can fill the hands that the others need, and in the line senders take turns.
Before one that has not answered yet, or not the last time, one message stands alone.

All of it is in memory, and may be forgotten: it costs one attempt to learn it again.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

import anyio
from attrs import define, field, frozen

from smtpproto.core.reply import Reply
from smtpproto.relay.routing.schedule import DEFAULT, Schedule

__all__ = ["HOLD", "Hold", "Hops", "hold_for"]

H = TypeVar("H", bound=Hashable)
T = TypeVar("T")


def hold_for(schedule: Schedule) -> Schedule:
    """Return how long next hops are held, for messages that are retried by `schedule`.

    A fifth of a message's first wait after the first failure, a minute by default, and twice as
    long after each more in a row, up to an eighth of its longest: half an hour.
    """
    first = schedule.first / 5
    return Schedule(first=first, factor=2, longest=max(first, schedule.longest / 8))


HOLD = hold_for(DEFAULT)

#: How long a put-off takes, in seconds, at first and at most.
SHORTEST, LONGEST = 5.0, 300.0

#: For so many seconds a host that could not be reached is the last to be tried.
LAST = 300.0


@frozen
class Hold:
    """A next hop is down: since when, until when (by the clock of its Hops), and how it failed."""

    since: float
    until: float
    where: str
    reply: Reply | None
    reason: str


@define(eq=False)
class _Line:
    """The line before one next hop: its places, and who waits for one, by sender in turn."""

    places: int
    free: int = field(init=False)
    users: int = 0
    waiting: OrderedDict[str, deque[anyio.Event]] = field(
        factory=OrderedDict[str, deque[anyio.Event]]
    )

    def __attrs_post_init__(self) -> None:
        self.free = self.places

    def widen(self, places: int) -> None:
        """Have so many places, if there were fewer."""
        while self.places < places:
            self.places += 1
            self.leave()

    async def take(self, sender: str, patience: float) -> bool:
        """Take a place; tell whether there was one within so many seconds."""
        if self.free:
            self.free -= 1
            return True
        if not patience:
            return False
        turn = anyio.Event()
        self.waiting.setdefault(sender, deque()).append(turn)
        try:
            with anyio.move_on_after(patience):
                await turn.wait()
        except BaseException:
            if turn.is_set():
                self.leave()
            raise
        finally:
            if not turn.is_set():
                self.waiting[sender].remove(turn)
                if not self.waiting[sender]:
                    del self.waiting[sender]
        return turn.is_set()

    def leave(self) -> None:
        """Give the place to the next sender's first, or back."""
        if not self.waiting:
            self.free += 1
            return
        sender, turns = self.waiting.popitem(last=False)
        turns.popleft().set()
        if turns:
            self.waiting[sender] = turns


@define(eq=False)
class _Turn:
    """One message's place at the front of a line; a context manager, see `Hops.turn`."""

    hops: Hops
    name: Hashable
    sender: str
    placed: bool = False

    async def __aenter__(self) -> float | None:
        self.placed = await self.hops.take(self.name, self.sender)
        return None if self.placed else self.hops.put_off(self.name)

    async def __aexit__(self, *error: object) -> None:
        self.hops.leave(self.name, placed=self.placed)


class Hops:
    """The memory of next hops, each by its name (`NextHop.name`).

    `clock` gives wall time in seconds since the epoch, `random` numbers in [0, 1). `front` messages
    may be at one next hop at a time that has talked with us, and one at others; the rest wait for
    `patience` seconds at most. `capacity` bounds how many next hops that have talked with us, are
    held or crowded are remembered, and how many hosts that are silent: of more, those that did so
    longest ago, or come back first, are forgotten.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        random: Callable[[], float],
        hold: Schedule = HOLD,
        front: int = 40,
        patience: float = 5.0,
        capacity: int = 10_000,
    ) -> None:
        self.front = front
        self.patience = patience
        self._clock, self._random = clock, random
        self._hold = hold
        self._capacity = capacity
        # The one that failed, or was too slow, longest ago is the first.
        self._down: OrderedDict[Hashable, tuple[int, Hold]] = OrderedDict()
        # Until, and the delay.
        self._slow: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()
        # By hash, so that no host is kept alive that routes have no more. Until; and nothing.
        self._silent: OrderedDict[Hashable, float] = OrderedDict()
        self._live: OrderedDict[Hashable, None] = OrderedDict()
        self._lines: dict[Hashable, _Line] = {}

    # Down

    def held(self, name: Hashable, *, asked: float | None = None) -> Hold | None:
        """Return the hold on a next hop, if there is one.

        `asked` is when the operator wanted it tried. That ends a hold, but not one that began
        later: a thousand messages that he asks for do not make a thousand attempts.
        """
        known = self._down.get(name)
        if known is None:
            return None
        _, hold = known
        # Before it began, the clock was set back.
        over = not hold.since <= self._clock() < hold.until
        return None if over or (asked is not None and asked > hold.since) else hold

    def now(self) -> float:
        """Return the time: what `down` wants to know of when an attempt began."""
        return self._clock()

    def down(
        self,
        name: Hashable,
        where: str,
        reply: Reply | None,
        reason: str,
        *,
        began: float,
        hold: Schedule | None = None,
    ) -> None:
        """Hold a next hop: it could not be talked with. `where` was tried, and how it failed.

        `hold` is for how long (`hold_for`), None for as long as any.
        Those who tried it side by side, who `began` before one of them failed, make one failure.
        """
        now = self._clock()
        self._live.pop(hash(name), None)
        failures, known = self._down.get(name, (0, None))
        if known is not None and began <= known.since <= now:
            return
        hold = hold or self._hold
        wait = hold.wait(failures + 1) * (1 + hold.spread * self._random())
        self._remember(
            self._down, name, (failures + 1, Hold(now, now + wait, where, reply, reason))
        )

    def up(self, name: Hashable, host: Hashable) -> None:
        """Forget that a next hop was down, and this host of it silent: it talks with us."""
        self._down.pop(name, None)
        self._silent.pop(hash(host), None)
        self._remember(self._live, hash(name), None)
        if (line := self._lines.get(name)) is not None:
            line.widen(self.front)

    def holding(self) -> int:
        """Return how many next hops are held now."""
        now = self._clock()
        return sum(hold.since <= now < hold.until for _, hold in self._down.values())

    # Silent

    def in_order(self, hosts: Sequence[H]) -> Sequence[H]:
        """Return the hosts of a next hop in the order in which to try them: silent ones last.

        RFC 5321 §5.1 has us try them in the order of preference, and on to the next until one takes
        the message. A silent one has been tried so, some minutes ago and by another message; to go
        past it is what would follow now as well, but for the wait (§4.5.4.1: keep a list of hosts
        that cannot be reached). None is left out: where the others fail, it is tried. When its
        time is over, who asks first tries it in its place, and others go past it meanwhile.
        """
        if not self._silent:  # as mostly
            return hosts
        now, first, last = self._clock(), list[H](), list[H]()
        for host in hosts:
            until = self._silent.get(hash(host))
            if until is not None and until - LAST <= now < until:
                last.append(host)
                continue
            if until is not None and not first:
                self.silent(host)
            first.append(host)
        return first + last

    def silent(self, host: Hashable) -> None:
        """Note that a host cannot be reached, or does not greet.

        Who refuses to talk is not silent: great care is to be had in remembering what servers say
        (RFC 5321 §4.5.4.1), and it costs no wait to hear it again.
        """
        self._remember(self._silent, hash(host), self._clock() + LAST)

    # Crowded

    def turn(self, name: Hashable, sender: str) -> AbstractAsyncContextManager[float | None]:
        """Wait for a place at the front of the line, and hold it in the block.

        `sender` is whose message it is: senders take turns. The value is None; or there is no
        place to be had, and it is the time to come again.
        """
        return _Turn(self, name, sender)

    # What a turn is made of

    async def take(self, name: Hashable, sender: str) -> bool:
        """Wait for a place; tell whether there was one. Who is told has to `leave`."""
        line = self._lines.get(name)
        if line is None:
            line = self._lines[name] = _Line(self.front if hash(name) in self._live else 1)
        line.users += 1
        try:
            until, delay = self._slow.get(name, (0.0, 0.0))
            slow = until - delay <= self._clock() < until
            return await line.take(sender, 0 if slow else self.patience)
        except BaseException:
            self.leave(name, placed=False)
            raise

    def leave(self, name: Hashable, *, placed: bool) -> None:
        """Give back a place, and go."""
        line = self._lines[name]
        if placed:
            line.leave()
        line.users -= 1
        if not line.users:
            del self._lines[name]

    def put_off(self, name: Hashable) -> float:
        """Return a time to come again: anywhere within the delay, so that not all come at once.

        The delay doubles for those who find the line full again, and is forgotten when nobody has
        for as long as it takes.
        """
        now = self._clock()
        until, delay = self._slow.get(name, (0.0, 0.0))
        if not until - delay <= now < until:
            delay = min(2 * delay, LONGEST) if until <= now < until + delay else SHORTEST
            self._remember(self._slow, name, (now + delay, delay))
        return now + max(delay * self._random(), SHORTEST / 5)

    def _remember(self, book: OrderedDict[Hashable, T], name: Hashable, what: T) -> None:
        book[name] = what
        book.move_to_end(name)
        if len(book) > self._capacity:
            book.popitem(last=False)
