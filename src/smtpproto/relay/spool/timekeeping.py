"""A wall clock that is set back, and what waits by it in the SQLite spool.

A clock that was ahead has written down times that are far away when it is right again, and what
waits for them would wait as long as it was wrong. So its going back is noticed, while we run by a
steady clock, and at a start by the latest time that the spool knows; then all that waits is due as
much sooner. Where it was right before and is wrong now, that costs an attempt too early.

What says when a message came stays as it was: by a clock that is wrong now it would be ages old as
soon as that is right again, and given up.
"""

from __future__ import annotations

import logging
import sqlite3
from math import inf

__all__ = ["STEP", "Timekeeper", "latest", "set_back"]

log = logging.getLogger(__name__)

#: Seconds by which clocks may differ before one was set, and for which a time noted is good enough.
STEP = 60.0


class Timekeeper:
    """Compares the wall clock's `now`, in seconds since the epoch, with the steady clock's `at`."""

    def __init__(self) -> None:
        self._ahead = -inf  # how far the wall clock is, at most, before the steady one
        self._noted = -inf

    def saw(self, now: float, at: float) -> None:
        """Take note of a time by which something is written down."""
        self._ahead = max(self._ahead, now - at)

    def back_by(self, now: float, at: float) -> float:
        """Return by how many seconds the wall clock has been set back; 0 where it was not."""
        self.saw(now, at)
        by = self._ahead - (now - at)
        return by if by > STEP else 0.0

    def believe(self, now: float, at: float) -> None:
        """Take the time for right from here on."""
        self._ahead = now - at

    def note(self, db: sqlite3.Connection, now: float) -> None:
        """Write down, in a transaction that is going on, how late it is; not each time."""
        if not -STEP <= now - self._noted <= STEP:
            self._noted = now
            db.execute("UPDATE clock SET latest = ?", (now,))


def latest(db: sqlite3.Connection) -> float:
    """Return the latest time at which something was written here."""
    last = "coalesce((SELECT arrived FROM message ORDER BY id DESC LIMIT 1), 0)"
    (time,) = db.execute(f"SELECT max(latest, {last}) FROM clock").fetchone()  # noqa: S608
    return float(time)


def set_back(db: sqlite3.Connection, now: float, by: float) -> int:
    """Make due by so many seconds sooner what waits for a time; return how many recipients."""
    log.warning("the clock was set back by %.0f seconds: what waits is due sooner", by)
    db.execute("UPDATE clock SET latest = ?", (now,))
    return db.execute(
        "UPDATE recipient SET next_attempt = max(due - ?1, ?2), due = max(due - ?1, ?2)"
        " WHERE due > ?2 AND due < ?3",
        (by, now, inf),
    ).rowcount
