"""Claiming in the SQLite spool: whose turn it is, by a look into the database where it takes one.

Where the last look has shown that nothing is due, it takes none: what comes in meanwhile is at hand
(`arrivals.py`), and lent to those who wait there, so that looks pass it by as well. Where something
older becomes due, or somebody has moved something, all that is at hand goes back to its place among
the others, and the next claim looks.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from math import inf

from .arrivals import Arrivals
from .leases import Lease, Leases
from .rows import SELECT_MESSAGE, SELECT_RECIPIENT, entries_of
from .seam import Entry

__all__ = ["LOOK", "Claims"]

#: Seconds for which claims need not look for what visitors have changed.
LOOK = 1.0
#: Recipients from a place on, the longest due first.
IN_ORDER = "SELECT due, message, number FROM recipient WHERE (due, message, number) > (?, ?, ?)"


class Claims:
    """Who is lent, and who comes next. Times are of the wall clock as `now`, of the steady as `at`.

    What takes a connection, and what changes places, is for the writer's thread.
    """

    def __init__(self, arrivals: Arrivals) -> None:
        self.leases = Leases()
        self.arrivals = arrivals
        self._seen: object = None  # what looks have seen of others' changes
        self._look_at = -inf

    def is_quiet(self, now: float, at: float) -> bool:
        """Tell whether nothing is due but what is lent, and what has just come in."""
        return now < self.leases.quiet_until and at < min(self.leases.sooner, self._look_at)

    def at_hand(self, now: float, limit: int, end: float) -> list[Entry]:
        """Claim from what has just come in, until `end` by the steady clock."""
        entries = self.arrivals.take(limit, now)
        for entry in entries:
            for recipient in entry.recipients:
                self.leases.lend(entry.id, recipient.number, Lease(end, recipient.next_attempt))
        return entries

    def look(
        self, db: sqlite3.Connection, now: float, limit: int, at: float, end: float
    ) -> list[Entry]:
        """Claim from all that there is."""
        self._notice_others(db)
        self.leases.end(at)
        self._mingle()
        place = self.leases.start
        more = False
        ids: dict[str, None] = {}  # an ordered set
        for due, id, number in db.execute(
            f"{IN_ORDER} AND due <= ? ORDER BY due, message, number", (*place, now)
        ):
            if not self.leases.is_lent(id, number, at):
                if id not in ids and len(ids) >= limit:
                    more = True
                    break
                ids[id] = None
            place = due, id, number
        entries: list[Entry] = []
        lent: list[tuple[str, int, float]] = []
        for id in ids:
            head = db.execute(f"{SELECT_MESSAGE} WHERE id = ?", (id,)).fetchone()
            rows = db.execute(
                f"{SELECT_RECIPIENT} WHERE message = ? AND due <= ? ORDER BY number", (id, now)
            ).fetchall()
            rows = [row for row in rows if not self.leases.is_lent(id, row[1], at)]
            lent += [(id, row[1], row[4]) for row in rows]
            entries += entries_of([head] if head else [], rows)
        for id, number, next_attempt in lent:
            self.leases.lend(id, number, Lease(end, next_attempt))
        self.leases.start = place
        if not more:
            (due,) = db.execute("SELECT min(due) FROM recipient WHERE due > ?", (now,)).fetchone()
            self.leases.quiet_until = inf if due is None else due
        self._look_at = at + LOOK
        return entries

    def next_due(self, db: sqlite3.Connection, at: float) -> float:
        """Return when the first is due that is not lent; infinity for none. In any thread."""
        order = f"{IN_ORDER} ORDER BY due, message, number"
        for due, id, number in db.execute(order, self.leases.place(at)):
            if not self.leases.is_lent(id, number, at):
                return float(due)
        return inf

    def came(self, entry: Entry) -> None:
        """Take note of a message that is in the database now."""
        if entry.arrived < self.leases.quiet_until:
            # Before it is there for others to claim: a lease of theirs has an end, and is to stay.
            for recipient in entry.recipients:
                self.leases.lend(entry.id, recipient.number, Lease(inf, entry.arrived))
            if self.arrivals.add(entry):
                return
            self.leases.settled(entry.id, [recipient.number for recipient in entry.recipients])
        self.leases.back_to(entry.arrived, entry.id)

    def settled(self, id: str, numbers: Sequence[int]) -> None:
        """Take note that recipients are done or deferred."""
        if id in self.arrivals:  # by somebody who has not claimed it
            self._mingle()
        self.leases.settled(id, numbers)

    def moved(self) -> None:
        """Take note that recipients have been made due."""
        self._mingle()
        self.leases.look_anew()

    def _mingle(self) -> None:
        """Put what has just come in to where it stands among all others."""
        for entry in self.arrivals.take_all():
            self.leases.settled(entry.id, [recipient.number for recipient in entry.recipients])
            self.leases.back_to(entry.arrived, entry.id)

    def _notice_others(self, db: sqlite3.Connection) -> None:
        """Look anew where visitors may have moved something, or it is not known."""
        (version,) = db.execute("PRAGMA data_version").fetchone()
        if self._seen != (db, version):
            self._seen = db, version
            self.leases.look_anew()
