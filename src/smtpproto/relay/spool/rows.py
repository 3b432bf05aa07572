"""Rows of the SQLite spool, and the entries that they are."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from math import inf
from typing import Any, TypeVar

from smtpproto.core.command import BASE_VERBS, Mail, Rcpt, parse_command
from smtpproto.core.errors import GrammarError
from smtpproto.core.path import Mailbox

from .seam import Entry, Recipient, Tally

__all__ = ["SELECT_MESSAGE", "SELECT_RECIPIENT", "C", "entries_of", "parked", "parsed", "tally"]

logger = logging.getLogger(__name__)

#: A command that a row has.
C = TypeVar("C", Mail, Rcpt)

SELECT_MESSAGE = "SELECT id, arrived, mail, octets, origin FROM message"
SELECT_RECIPIENT = (
    "SELECT message, number, rcpt, attempts, next_attempt, last_reply, warned, alias, mail"
    " FROM recipient"
)


def tally(db: sqlite3.Connection) -> Tally:
    """Count messages and recipients; by indexes alone."""
    counts = "SELECT (SELECT count(*) FROM message), count(*), count(*) FILTER (WHERE due = ?)"
    messages, recipients, held = db.execute(f"{counts} FROM recipient", (inf,)).fetchone()
    # Ids sort by time.
    first = db.execute("SELECT arrived FROM message ORDER BY id LIMIT 1").fetchone()
    return Tally(messages, recipients, held, None if first is None else first[0])


def parked(db: sqlite3.Connection, owner: str, now: float) -> tuple[int, int]:
    """Count what an owner has parked for longer than `now`: messages, and octets."""
    messages, octets = db.execute(
        "SELECT count(*), total(octets) FROM parked WHERE owner = ? AND until > ?", (owner, now)
    ).fetchone()
    return messages, int(octets)


def entries_of(heads: Sequence[Any], rows: Sequence[Any]) -> list[Entry]:
    """Make entries of rows of SELECT_MESSAGE and SELECT_RECIPIENT.

    One that cannot be read is logged and left out: it must not block the others; its lease keeps
    it from coming again at once.
    """
    recipients: dict[str, list[Any]] = {}
    for id, *row in rows:
        recipients.setdefault(id, []).append(row)
    entries: list[Entry] = []
    for id, arrived, mail, octets, origin in heads:
        try:
            owed = tuple(
                Recipient(
                    number,
                    parsed(Rcpt, rcpt),
                    attempts,
                    next_attempt,
                    reply,
                    bool(warned),
                    None if alias is None else Mailbox.parse(alias),
                    None if own_mail is None else parsed(Mail, own_mail),
                )
                for (
                    number,
                    rcpt,
                    attempts,
                    next_attempt,
                    reply,
                    warned,
                    alias,
                    own_mail,
                ) in recipients.get(id, ())
            )
            entries.append(Entry(id, arrived, parsed(Mail, mail), owed, octets, origin))
        except GrammarError as error:
            logger.error("the spool's message %s is damaged: %s", id, error)
    return entries


def parsed(cls: type[C], line: object) -> C:
    """Read a command as it stands in a row; GrammarError where it is none of its class."""
    command = None
    if isinstance(line, bytes):
        command = parse_command(line.removesuffix(b"\r\n"), BASE_VERBS)
    if not isinstance(command, cls):
        raise GrammarError(f"no {cls.verb.decode()} command: {line!r}")
    return command
