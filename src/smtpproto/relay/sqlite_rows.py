"""Rows of the SQLite spool, and the entries that they are."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, TypeVar

from smtpproto.core.command import BASE_VERBS, Mail, Rcpt, parse_command
from smtpproto.core.errors import GrammarError
from smtpproto.core.path import Mailbox

from .spool import Entry, Recipient

__all__ = ["SELECT_MESSAGE", "SELECT_RECIPIENT", "C", "entries_of", "parsed"]

logger = logging.getLogger(__name__)

#: A command that a row has.
C = TypeVar("C", Mail, Rcpt)

SELECT_MESSAGE = "SELECT id, arrived, mail, octets, origin FROM message"
SELECT_RECIPIENT = (
    "SELECT message, number, rcpt, attempts, next_attempt, last_reply, warned, alias, mail"
    " FROM recipient"
)


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


def parsed(cls: type[C], line: bytes) -> C:
    """Read a command as it stands in a row; GrammarError where it is none of its class."""
    command = parse_command(line.removesuffix(b"\r\n"), BASE_VERBS)
    if not isinstance(command, cls):
        raise GrammarError(f"no {cls.verb.decode()} command: {line!r}")
    return command
