"""Who is left alone for a while: destinations that could not be reached, and until when."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable

from attrs import frozen

from .result import ClientError, HeldOffError

__all__ = ["HoldOffs"]

#: The part of itself by which a hold-off is lengthened at most, so that many do not end together.
SPREAD = 0.25


@frozen
class _HoldOff:
    """One destination's: how many attempts failed in a row, how the last did, and until when.

    `seconds` is how long that is in all.
    """

    failures: int
    error: ClientError
    until: float
    seconds: float


class HoldOffs:
    """The destinations that were not to be had, each held off longer from failure to failure.

    `first` seconds, twice that, and so on, up to `longest`; and, within that, no shorter than the
    attempt took, so that what hangs is not waited for more often than not. A `first` of 0 holds
    nobody off. `jitter` gives numbers in [0, 1), `clock` the time in seconds. ValueError for times
    that are none.
    """

    def __init__(
        self,
        first: float,
        longest: float,
        jitter: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        if not 0 <= first <= longest < math.inf:
            raise ValueError("a hold-off lasts from 0 seconds on, and no longer than the longest")
        self._first, self._longest = first, longest
        self._jitter, self._clock = jitter, clock
        self._held: dict[Hashable, _HoldOff] = {}
        self._enough = 64  # so many are there when those of long ago are looked for

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._held)

    def failed(self, key: Hashable, error: ClientError, took: float) -> None:
        """An attempt to reach it has failed, after so many seconds."""
        if not self._first:
            return
        now = self._clock()
        known = self._held.pop(key, None)
        failures = 1 if known is None or self._is_of_long_ago(known, now) else known.failures + 1
        # The power is capped before it is taken: failures know no bound, floats do.
        steps = min(failures - 1, math.log2(self._longest / self._first))
        seconds = min(self._longest, max(self._first * 2**steps, took))
        seconds *= 1 + SPREAD * self._jitter()
        if len(self._held) >= self._enough:
            held = self._held.items()
            self._held = {k: each for k, each in held if not self._is_of_long_ago(each, now)}
            self._enough = max(64, 2 * len(self._held))
        self._held[key] = _HoldOff(failures, error, now + seconds, seconds)

    def reached(self, key: Hashable) -> None:
        """It can be reached."""
        self._held.pop(key, None)

    def refusal(self, key: Hashable) -> HeldOffError | None:
        """Return what to tell who wants to send there; None where it may be tried."""
        known = self._held.get(key)
        if known is None or (seconds := known.until - self._clock()) <= 0:
            return None
        return HeldOffError(known.error, known.failures, seconds)

    def lasts(self, key: Hashable) -> float:
        """Return how long it is held off since the last failure, in all; it may be over by now."""
        known = self._held.get(key)
        return 0 if known is None else known.seconds

    def _is_of_long_ago(self, known: _HoldOff, now: float) -> bool:
        return now > known.until + self._longest
