"""Who is being tried: what a spool that one process serves remembers of its claims.

It is not written down. If the process dies its leases die with it, which is what they are for; and
a claim costs no write. Leases end by a steady clock, so that setting the time lends nothing twice.

*Where to look.* The recipients in the spool have an order, the longest due first (`Place`). Those
that have been claimed are still in it, and to walk past all of them at every claim would cost the
more the more there are. So `start` is a place before which all are lent. Claims move it on;
whatever comes before it, or is given back, moves it there.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from threading import Lock
from typing import TypeAlias

from attrs import frozen

__all__ = ["START", "Lease", "Leases", "Place"]

#: When it is due, its message's id, and its number in that.
Place: TypeAlias = tuple[float, str, int]

#: Before all others.
START: Place = (-inf, "", -1)


@frozen
class Lease:
    """`end` by the steady clock; `next_attempt` as the recipient had it when it was lent."""

    end: float
    next_attempt: float


class Leases:
    """The leases of one spool. The writer's thread changes them, and who claims what has just come.

    `now` is by the steady clock, in seconds.
    """

    def __init__(self) -> None:
        self.start = START
        #: Before this time, by the wall clock, nothing is due that is not lent.
        self.quiet_until = -inf
        self._lock = Lock()
        self._lent: dict[tuple[str, int], Lease] = {}
        #: No lease ends sooner than this; that it was for may be settled.
        self.sooner = inf

    def is_lent(self, id: str, number: int, now: float) -> bool:
        """Tell whether somebody has this recipient."""
        lease = self._lent.get((id, number))
        return lease is not None and now < lease.end

    def lent_as(self, id: str, number: int) -> float | None:
        """Return the `next_attempt` with which it was lent, also when the lease has ended."""
        lease = self._lent.get((id, number))
        return None if lease is None else lease.next_attempt

    def place(self, now: float) -> Place:
        """Return where to look for those that are not lent."""
        return START if now >= self.sooner else self.start

    def first_end(self, now: float) -> float:
        """Return when the first lease ends that has not; infinity for none."""
        leases = list(self._lent.values())  # in one step, for they may change meanwhile
        return min((lease.end for lease in leases if lease.end > now), default=inf)

    # What changes them

    def end(self, now: float) -> None:
        """Take back what has not been settled in time."""
        with self._lock:
            if now >= self.sooner:
                self.look_anew()
                self.sooner = self.first_end(now)

    def lend(self, id: str, number: int, lease: Lease) -> None:
        """Note that somebody has this recipient, or has it for longer."""
        with self._lock:
            self._lent[id, number] = lease
            self.sooner = min(self.sooner, lease.end)

    def settled(self, id: str, numbers: Iterable[int]) -> None:
        """Forget what was lent, of which what is left in the spool has a place of its own."""
        for number in numbers:
            self._lent.pop((id, number), None)

    def given_back(self, lent: Iterable[tuple[str, int]]) -> None:
        """Forget what was lent; it stands in the spool where it stood."""
        for key in lent:
            if self._lent.pop(key, None) is not None:
                self.look_anew()

    def back_to(self, due: float, id: str) -> None:
        """Look at a message again that is due then."""
        self.start = min(self.start, (due, id, -1))
        self.quiet_until = min(self.quiet_until, due)

    def look_anew(self) -> None:
        """Look at all of them again: somebody has moved them."""
        self.start = START
        self.quiet_until = -inf
