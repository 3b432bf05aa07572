"""Settling in the SQLite spool: what becomes of recipients, in a transaction that is going on."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from .leases import Leases
from .spool import Settlement

__all__ = ["settle"]


def settle(
    db: sqlite3.Connection,
    leases: Leases,
    id: str,
    settlements: Sequence[Settlement],
    now: float,
) -> bool:
    """Record what became of recipients; return whether there was anything to record it of.

    `leases` learn where to find those that stay, and do not forget yet that they are lent.
    """
    if not settlements:
        return db.execute("SELECT 1 FROM message WHERE id = ?", (id,)).fetchone() is not None
    found = 0
    for settlement in settlements:
        if settlement.becomes:
            _replace(db, leases, id, settlement, now)
        if settlement.next_attempt is None:
            done = db.execute(
                "DELETE FROM recipient WHERE message = ? AND number = ?",
                (id, settlement.recipient),
            )
        else:
            done = _defer(db, leases, id, settlement, settlement.next_attempt)
        found += done.rowcount
    return found > 0


def _defer(
    db: sqlite3.Connection, leases: Leases, id: str, settlement: Settlement, next_attempt: float
) -> sqlite3.Cursor:
    key = id, settlement.recipient
    row = db.execute(
        "SELECT next_attempt FROM recipient WHERE message = ? AND number = ?", key
    ).fetchone()
    lent_as = leases.lent_as(*key)
    if row is not None and row[0] < 0 and lent_as is not None and row[0] != lent_as:
        (next_attempt,) = row  # asked for while this attempt was under way: so once more
    leases.back_to(next_attempt, id)
    return db.execute(
        "UPDATE recipient SET attempts = attempts + ?5, next_attempt = ?1, due = ?1,"
        " last_reply = coalesce(?2, last_reply), warned = warned OR ?6"
        " WHERE message = ?3 AND number = ?4",
        (next_attempt, settlement.reply, *key, settlement.counted, settlement.warned),
    )


def _replace(
    db: sqlite3.Connection, leases: Leases, id: str, settlement: Settlement, now: float
) -> None:
    """Put those behind an alias in its place, under numbers that nobody has had in its time."""
    leases.back_to(now, id)
    numbers = [
        number for (number,) in db.execute("SELECT number FROM recipient WHERE message = ?", (id,))
    ]
    if settlement.recipient in numbers:
        alias = None if settlement.alias is None else settlement.alias.serialize()
        db.executemany(
            "INSERT INTO recipient VALUES (?, ?, ?, 0, ?, ?, NULL, 0, ?)",
            [
                (id, number, rcpt.serialize(), now, now, alias)
                for number, rcpt in enumerate(settlement.becomes, max(numbers) + 1)
            ],
        )
