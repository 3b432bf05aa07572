"""The tables of the SQLite spool, and how those of an older version become these."""

from __future__ import annotations

import sqlite3

from .seam import SpoolUnavailable

__all__ = ["MIGRATIONS", "migrate"]

#: What leads from each schema version (PRAGMA user_version) to the next. Only ever append.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE message (
            id TEXT NOT NULL PRIMARY KEY,
            arrived REAL NOT NULL,
            mail BLOB NOT NULL,      -- the MAIL command as on the wire
            origin TEXT NOT NULL,
            octets INTEGER NOT NULL,
            content BLOB             -- NULL: in a file; last, so that reading the rest is cheap
        )""",
        """CREATE TABLE recipient (
            message TEXT NOT NULL,
            number INTEGER NOT NULL,
            rcpt BLOB NOT NULL,      -- the RCPT command as on the wire
            attempts INTEGER NOT NULL,
            next_attempt REAL NOT NULL,
            due REAL NOT NULL,
            last_reply TEXT,
            PRIMARY KEY (message, number)
        ) WITHOUT ROWID""",
        "CREATE INDEX recipient_due ON recipient (due)",
        "CREATE INDEX recipient_lent ON recipient (due) WHERE due > next_attempt",
    ),
    (
        "ALTER TABLE recipient ADD COLUMN warned INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE recipient ADD COLUMN alias BLOB",  # as SMTP writes an address
    ),
    (
        "ALTER TABLE recipient ADD COLUMN mail BLOB",  # NULL: it goes on under the message's
        "DROP INDEX recipient_lent",  # leases are kept in memory
    ),
    (
        """CREATE TABLE parked (       -- whose messages are to be sent later
            message TEXT NOT NULL PRIMARY KEY,
            owner TEXT NOT NULL,
            until REAL NOT NULL,
            octets INTEGER NOT NULL
        ) WITHOUT ROWID""",
        "CREATE INDEX parked_owner ON parked (owner)",
        "CREATE TRIGGER parked_no_more AFTER DELETE ON message"
        " BEGIN DELETE FROM parked WHERE message = old.id; END",
        "CREATE TABLE clock (latest REAL NOT NULL)",  # of one row
        "INSERT INTO clock VALUES (0)",
    ),
    ("ALTER TABLE message ADD COLUMN checksum INTEGER",),  # CRC-32 of content; NULL: not known
)


def migrate(db: sqlite3.Connection, *, may_change: bool) -> None:
    """Bring the schema up to date; a visitor only checks that it is."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version == len(MIGRATIONS):
        return
    if version > len(MIGRATIONS):
        raise SpoolUnavailable(f"the spool's schema {version} is of a newer smtpproto")
    if not may_change:
        raise SpoolUnavailable(f"the spool's schema {version} is old; starting the server updates")
    db.execute("BEGIN IMMEDIATE")
    for steps in MIGRATIONS[version:]:
        for step in steps:
            db.execute(step)
    db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    db.execute("COMMIT")
