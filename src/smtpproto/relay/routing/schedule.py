"""When to try again, and when to give up (RFC 5321 §4.5.4.1).

That clause asks for 30 minutes between attempts "in general", and for better where the reason is
known. We begin with five minutes: the commonest transient failure today is greylisting (RFC 6647),
which turns the first attempt of a stranger away and takes the next one after some minutes. From
there the intervals double, so a destination that is down soon sees fewer attempts, not more, than
by the fixed interval.
"""

from __future__ import annotations

import math
from typing import Any

from attrs import Attribute, field, frozen

__all__ = ["DEFAULT", "Schedule", "next_attempt"]


def _positive(_: object, attribute: Attribute[Any], value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{attribute.name} must be a positive number")


def _not_negative(_: object, attribute: Attribute[Any], value: float) -> None:
    if not 0 <= value < math.inf:
        raise ValueError(f"{attribute.name} must be a number, and not negative")


@frozen
class Schedule:
    """How a message is retried; all times in seconds. ValueError for what is no schedule.

    The waits are `first`, `first * factor`, … up to `longest`, each lengthened by up to the part
    `spread` of itself, so that what failed together does not come back together; a greylist's
    delay is never undercut. After `lifetime` a message is given up; 0 is one attempt. The first
    attempt to fail after `notice` has its sender told that the message is late (RFC 3461 §5.2.5),
    once; math.inf is never.
    """

    first: float = field(default=5 * 60.0, validator=_positive)
    factor: float = field(default=2.0, validator=_positive)
    longest: float = field(default=4 * 3600.0, validator=_positive)
    lifetime: float = field(default=5 * 86400.0, validator=_not_negative)
    spread: float = field(default=0.1, validator=_not_negative)
    notice: float = field(default=4 * 3600.0)

    def __attrs_post_init__(self) -> None:
        if self.factor < 1 or self.longest < self.first:
            raise ValueError("waits must not get shorter: factor >= 1 and longest >= first")
        if not self.notice >= 0:
            raise ValueError("notice must be a number, and not negative")

    def wait(self, attempts: int) -> float:
        """Return the wait after so many failed attempts, before jitter and end of life."""
        if self.factor == 1:
            return self.first
        # The power is capped before it is taken: attempts know no bound, floats do.
        steps = min(max(attempts - 1, 0), math.log(self.longest / self.first, self.factor))
        wait: float = self.first * self.factor**steps  # float**float is Any to the checkers
        return min(self.longest, wait)


DEFAULT = Schedule()


def next_attempt(
    age: float, attempts: int, jitter: float, schedule: Schedule = DEFAULT
) -> float | None:
    """Return the seconds to wait before the next attempt; None: give up.

    `age` is how long ago the message arrived, `attempts` how many have failed (this one
    included), `jitter` a random number in [0, 1). The last attempt is put at the end of life
    itself, unless the one before it was within `schedule.first` of that.
    """
    left = schedule.lifetime - age
    if left < schedule.first:
        return None
    return min(left, schedule.wait(attempts) * (1 + schedule.spread * jitter))
