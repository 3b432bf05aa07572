"""From when on, and by when, a message is wanted: FUTURERELEASE (RFC 4865), DELIVERBY (RFC 2852).

All of it follows from MAIL as it came and from when it came, and both are in the spool: so there is
nothing else to keep. Times are seconds since the epoch.
"""

from __future__ import annotations

import math

from attrs import frozen

from smtpproto.core.command import Mail
from smtpproto.core.errors import GrammarError
from smtpproto.core.path import as_octets
from smtpproto.core.reply import Reply
from smtpproto.extensions.deliverby import BY, ByMode
from smtpproto.extensions.futurerelease import HOLDFOR, HOLDUNTIL, TOO_LATE
from smtpproto.relay.routing.schedule import DEFAULT, Schedule
from smtpproto.relay.spool.seam import Entry

__all__ = [
    "OVERDUE",
    "Deadline",
    "Times",
    "deadline",
    "hold_refusal",
    "release_asked",
    "release_time",
]

#: What a message with BY in mode R has earned when its time is over (RFC 2852 §4.1.3).
OVERDUE = Reply(554, "5.4.7", "Not delivered by the time that the sender wanted it by")


@frozen
class Deadline:
    """The deliver-by-time of a message, and what is to be done then and on the way to it."""

    at: float
    mode: ByMode
    trace: bool

    def left(self, now: float) -> int:
        """Return the whole seconds that are left, below zero where it is over (RFC 2852 §4.1.4)."""
        return math.floor(self.at - now)


def deadline(mail: Mail, arrived: float) -> Deadline | None:
    """Return by when it is wanted, if it said so; `arrived` is when MAIL came (RFC 2852 §4)."""
    if "BY" not in mail.parameters:
        return None
    try:
        by = BY.of(mail.parameters)
    except GrammarError:  # nobody who was asked for it has taken it so
        return None
    return None if by is None else Deadline(arrived + by.seconds, by.mode, by.trace)


def release_time(mail: Mail, arrived: float) -> float | None:
    """Return from when on it may be sent (RFC 4865 §4.2); None where it did not say."""
    if "HOLDFOR" not in mail.parameters and "HOLDUNTIL" not in mail.parameters:
        return None
    try:
        interval, until = HOLDFOR.of(mail.parameters), HOLDUNTIL.of(mail.parameters)
    except GrammarError:
        return None
    if interval is not None:
        return arrived + interval
    return None if until is None else until.timestamp()


def release_asked(mail: Mail) -> str | None:
    """Return what was asked of when to send it, as reports repeat it (RFC 4865 §5.1.2)."""
    for word, keyword in (("for", "HOLDFOR"), ("until", "HOLDUNTIL")):
        if (value := mail.parameters.get(keyword)) is not None:
            return f"{word};{as_octets(value).decode('ascii', 'backslashreplace')}"
    return None


def hold_refusal(mail: Mail, now: float) -> Reply | None:
    """Refuse a MAIL that comes now, and may not be sent before it is too late (RFC 4865 §5.2.2)."""
    by = deadline(mail, now)
    begins = release_time(mail, now)
    if by is None or begins is None or begins <= now:
        return None
    return TOO_LATE if begins >= by.at else None


@frozen
class Times:
    """When what is due for a message that cannot be delivered.

    It `begins` when it may be sent; from `late` on its sender is to hear that it is not there yet,
    and at `ends` it is given up. `wanted` is its deliver-by-time, if it has one: who said by when
    the message is wanted in mode N has said what is late, and hears of it then. `release` is until
    when its sender wants it held, if he does: nobody else waits where the clock was set back.
    """

    begins: float
    late: float
    ends: float
    wanted: Deadline | None = None
    release: float | None = None

    @classmethod
    def of(cls, entry: Entry, schedule: Schedule = DEFAULT) -> Times:
        """Return those of a message that is tried by this schedule."""
        release = release_time(entry.mail, entry.arrived)
        begins = entry.arrived if release is None else max(entry.arrived, release)
        late, ends = begins + schedule.notice, begins + schedule.lifetime
        wanted = deadline(entry.mail, entry.arrived)
        if wanted is None:
            return cls(begins, late, ends, release=release)
        if wanted.mode is ByMode.RETURN:
            return cls(begins, late, min(ends, wanted.at), wanted, release)
        return cls(begins, wanted.at, ends, wanted, release)

    def overdue(self, now: float) -> bool:
        """Tell whether it must not be tried any more (RFC 2852 §4.1.3)."""
        by = self.wanted
        return by is not None and by.mode is ByMode.RETURN and by.at <= now

    def behind(self, now: float) -> bool:
        """Tell whether it is not where it was wanted by now."""
        return self.wanted is not None and self.wanted.at <= now

    def wait(self, now: float, seconds: float) -> float:
        """Return how long to wait where an attempt would be due in so many seconds.

        There is one when the deliver-by-time comes, to say what is to be said then.
        """
        if self.wanted is None or (self.behind(now) and not self.overdue(now)):
            return seconds
        return min(seconds, max(self.wanted.at - now, 0.0))
