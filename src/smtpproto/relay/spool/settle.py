"""Settling in the SQLite spool: what becomes of recipients, in a transaction that is going on."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from math import inf
from typing import cast

from .leases import Leases
from .seam import Settlement, successor

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
    there = cast("float | None", None if row is None else row[0])
    reply = settlement.reply
    if there is not None and lent_as not in (None, there) and (there < 0 or there == inf):
        next_attempt = there  # asked for, or held, while this attempt was under way: so be it
        reply = None if there == inf else reply  # why it is held stands there
    leases.back_to(next_attempt, id)
    return db.execute(
        "UPDATE recipient SET attempts = attempts + ?5, next_attempt = ?1, due = ?1,"
        " last_reply = coalesce(?2, last_reply), warned = warned OR ?6"
        " WHERE message = ?3 AND number = ?4",
        (next_attempt, reply, *key, settlement.counted, settlement.warned),
    )


def _replace(
    db: sqlite3.Connection, leases: Leases, id: str, settlement: Settlement, now: float
) -> None:
    """Put those behind an alias in its place, under numbers that nobody has had in its time."""
    leases.back_to(now, id)
    there = db.execute(
        "SELECT next_attempt FROM recipient WHERE message = ? AND number = ?",
        (id, settlement.recipient),
    ).fetchone()
    if there is not None:
        # Held while this attempt was under way: so are they.
        held = there[0] == inf
        alias = None if settlement.alias is None else settlement.alias.serialize()
        db.executemany(
            "INSERT INTO recipient"
            " SELECT ?1, ?2, ?3, 0, ?4, ?4, iif(?8, last_reply, NULL), 0, ?5, ?6"
            " FROM recipient WHERE message = ?1 AND number = ?7",
            [
                (
                    id,
                    successor(settlement.recipient, n),
                    new.rcpt.serialize(),
                    inf if held else now,
                    alias,
                    None if new.mail is None else new.mail.serialize(),
                    settlement.recipient,
                    held,
                )
                for n, new in enumerate(settlement.becomes)
            ],
        )
