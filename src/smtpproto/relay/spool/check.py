"""Is the SQLite spool sound, and can it be mended? For `smtpproto queue check`. It blocks.

What cannot stay goes to `DIRECTORY/quarantine` and not away: a message as `ID.json`, its envelope
and what is wrong with it, and `ID.eml`, its content (`damaged.json` and `damaged.eml`, where its id
is none any more); a database as it was. Nothing there is read again by anybody but you.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from types import UnionType
from typing import TypeGuard
from zlib import crc32

from attrs import define, field, frozen

from smtpproto.core.command import Mail, Rcpt
from smtpproto.core.errors import GrammarError
from smtpproto.core.path import Mailbox

from .database import as_unavailable, connect, lock
from .disk import Disk
from .rows import SELECT_MESSAGE, SELECT_RECIPIENT, C, parsed
from .salvage import MENDED, finish, keep_file, rebuild, until_damage
from .schema import MIGRATIONS, migrate
from .seam import SpoolUnavailable

__all__ = ["Checked", "Finding", "check_spool"]

#: Lines of SQLite's verdict that are passed on; a torn page makes thousands.
VERDICTS = 10

#: What the spool reads besides.
SELECT_HIDDEN = "SELECT content, checksum, due FROM message, recipient"
#: Messages that are looked at, and octets of a file that are read, at a time.
SOME, PIECE = 100, 1 << 20
_SOME_MESSAGES = (
    "SELECT rowid, id, mail, typeof(content), CAST(content AS BLOB), checksum, arrived, origin,"
    " octets FROM message WHERE rowid > ? ORDER BY rowid LIMIT ?"
)
#: What may be done about content, which nobody can mend but by a copy of it.
_ADVICE = (
    "it is not sent, and its sender is told when it expires, unless you put its content back as it"
    " was, or delete it (`smtpproto queue delete`)"
)
#: Characters of an id at most; they have far fewer.
MAX_ID = 100
# What columns hold that are neither a command nor an address. Damage may leave anything in them.
_OF_MESSAGE = {"arrived": float, "origin": str, "octets": int}
_OF_RECIPIENT = {
    "attempts": int,
    "next_attempt": float,
    "due": float,
    "last_reply": str | None,
    "warned": int,
}


@frozen
class Finding:
    """Something wrong. `what` is a message's id, a file's name, or `spool.db`.

    `done` says what was done about it; empty: nothing. `mended`: it will not be found again.
    """

    what: str
    problem: str
    done: str = ""
    mended: bool = False


@frozen
class Checked:
    """What a check came to. `served`: a node runs, and so files were not held against it."""

    messages: int
    served: bool
    findings: tuple[Finding, ...]

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong, or nothing any more."""
        return all(finding.mended for finding in self.findings)


def check_spool(
    directory: Path, *, repair: bool = False, disk: Disk | None = None, busy_timeout: float = 10.0
) -> Checked:
    """Look at all that is in a spool; with `repair`, mend it.

    A node may run meanwhile, unless it is to be mended; while this looks none can start. Raises
    SpoolUnavailable if there is no spool, another process is in the way, or the disk fails.
    """
    if not directory.is_dir():
        raise SpoolUnavailable(f"no spool in {directory}")
    held: int | None = None
    try:
        try:
            held = lock(directory)
        except SpoolUnavailable:
            if repair:
                raise
        check = _Check(directory, disk or Disk(), repair, held is None, busy_timeout)
        check.run()
        return Checked(check.messages, check.served, tuple(check.findings))
    except (sqlite3.Error, OSError) as error:
        raise as_unavailable(error, directory) from error
    finally:
        if held is not None:
            os.close(held)


@define
class _Check:
    directory: Path
    disk: Disk
    repair: bool
    served: bool
    busy_timeout: float
    messages: int = 0
    findings: list[Finding] = field(factory=list[Finding])
    _lost: list[Finding] = field(factory=list[Finding], init=False)

    def run(self) -> None:
        if (self.directory / MENDED).exists():
            self._found("spool.db", "a repair was broken off", self._finish)
            if not self.repair:
                return
        if not self._sound():
            return
        with closing(self._connect()) as db:
            for id, problems in self._messages(db):
                self._message(db, id, problems)
            self._strays(db)
            if not self.served:
                self._files(db)

    def _found(self, what: object, problem: str, mend: Callable[[], str]) -> None:
        """Note it, and mend it by what `mend` does, which returns what that was."""
        done = mend() if self.repair else ""
        shown = what if isinstance(what, str) and what.isprintable() else ascii(what)
        self.findings.append(Finding(shown, problem, done, bool(done)))

    # The database

    def _raw(self) -> sqlite3.Connection:
        db = connect(self.directory / "spool.db", create=False, busy_timeout=self.busy_timeout)
        db.text_factory = _text_or_octets
        return db

    def _connect(self) -> sqlite3.Connection:
        db = self._raw()
        try:
            migrate(db, may_change=self.repair)
        except BaseException:
            db.close()
            raise
        return db

    def _sound(self) -> bool:
        """Whether there is a database that can be looked into; mend it if need be."""
        if not (self.directory / "spool.db").is_file():
            if not self._names():
                raise SpoolUnavailable(f"no spool in {self.directory}")
            self._found("spool.db", "it is gone", self._rebuild)
            return self.repair
        verdicts = self._verdicts()
        for verdict in verdicts[:-1]:
            self.findings.append(Finding("spool.db", verdict, mended=self.repair))
        if verdicts:
            self._found("spool.db", verdicts[-1], self._mend)
            self.findings += self._lost
        return self.repair or not verdicts

    def _verdicts(self) -> list[str]:
        """What SQLite has against it."""
        if not (self.directory / "spool.db").stat().st_size:
            return ["it is empty"]
        lines = ["it cannot be read"]
        with until_damage(), closing(self._raw()) as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version == 0:
                return ["it is empty"]
            if version > len(MIGRATIONS):
                raise SpoolUnavailable(f"the spool's schema {version} is of a newer smtpproto")
            rows = db.execute(f"PRAGMA integrity_check({VERDICTS})").fetchall()
            lines = [line for (text,) in rows for line in str(text).splitlines()]
            if lines == ["ok"] and version == len(MIGRATIONS):
                lines = ["its tables lack columns"]
                for query in (SELECT_MESSAGE, SELECT_RECIPIENT, SELECT_HIDDEN):
                    db.execute(query)
                lines = ["ok"]
        return [] if lines == ["ok"] else lines[:VERDICTS]

    def _mend(self) -> str:
        with suppress(sqlite3.IntegrityError), until_damage():
            with closing(self._raw()) as db:
                db.execute("REINDEX")
            if not self._verdicts():
                return "its indexes were made anew"
        return self._rebuild()

    def _rebuild(self) -> str:
        messages, lost = rebuild(self.directory, self.disk)
        finish(self.directory, self.disk)
        self._lost = [Finding(id, f"its recipient {number} is lost") for id, number in lost]
        return f"made anew, with the {messages} messages that could be read; the old one is kept"

    def _finish(self) -> str:
        finish(self.directory, self.disk)
        return "it was brought to its end"

    # Messages

    def _messages(self, db: sqlite3.Connection) -> list[tuple[object, dict[int, str]]]:
        """Return each message that something is wrong with: what is, by recipient.

        -1 stands for the whole of it, -2 for its content. A row is found by its id, be it text as
        it should be or, damaged, other octets.
        """
        damaged: list[tuple[object, dict[int, str]]] = []
        last = -(1 << 63)
        # By some, so that the log of one who serves it can end meanwhile.
        while some := db.execute(_SOME_MESSAGES, (last, SOME)).fetchall():
            for _, id, mail, kind, inline, checksum, *others in some:
                problems: dict[int, str] = {}
                problem = _grammar(Mail, mail) or _odd(_OF_MESSAGE, others)
                if not _is_id(id):
                    problem = "its id is none"
                elif kind not in {"blob", "null"}:
                    problem = "its content is not octets"
                if problem is not None:
                    problems[-1] = problem
                owed, unreadable = self._recipients(db, id)
                problems |= unreadable
                if not owed:
                    problems[-1] = "it has no recipients"
                elif len([n for n in problems if n >= 0]) == owed:
                    problems[-1] = "none of its recipients can be read"
                problem = self._of_content(id, inline, others[-1], checksum)
                if problem is not None:
                    problems[-2] = problem
                if problems:
                    damaged.append((id, problems))
            last = some[-1][0]
            self.messages += len(some)
        return damaged

    def _recipients(self, db: sqlite3.Connection, id: object) -> tuple[int, dict[int, str]]:
        """Return how many recipients a message has, and what is wrong with some, by number."""
        problems: dict[int, str] = {}
        owed = 0
        for number, rcpt, alias, mail, *others in db.execute(
            "SELECT number, rcpt, alias, mail, attempts, next_attempt, due, last_reply, warned"
            " FROM recipient WHERE message IN (?1, CAST(?1 AS TEXT))",
            (id,),
        ):
            owed += 1
            problem = _grammar(Rcpt, rcpt) or _no_alias(alias) or _odd(_OF_RECIPIENT, others)
            if problem is None and mail is not None:
                problem = _grammar(Mail, mail)
            if not isinstance(number, int) or number < 0:
                problems[-1] = "a recipient of it has no number"
            elif problem is not None:
                problems[number] = problem
        return owed, problems

    def _of_content(
        self, id: object, inline: bytes | None, octets: object, checksum: object
    ) -> str | None:
        """Say what is wrong with a message's content; None for nothing."""
        if inline is None and not _is_id(id):
            return "its content is gone"
        file = self.directory / "content" / str(id)
        try:
            there = self.disk.size(file) if inline is None else len(inline)
            if there != octets:
                return f"its content has {there} octets, and should have {octets}"
            if checksum is None:  # it came when none was kept
                return None
            seen = self._checksum(file, there) if inline is None else crc32(inline)
        except FileNotFoundError:
            return "its content is gone"
        except OSError as error:
            return f"its content cannot be read: {error.strerror}"
        return None if seen == checksum else "its content has changed since it came"

    def _checksum(self, file: Path, octets: int) -> int:
        seen = 0
        for offset in range(0, octets, PIECE):
            seen = crc32(self.disk.read(file, offset, PIECE), seen)
        return seen

    def _message(self, db: sqlite3.Connection, id: object, problems: dict[int, str]) -> None:
        there = "SELECT 1 FROM message WHERE id IN (?1, CAST(?1 AS TEXT))"
        if db.execute(there, (id,)).fetchone() is None:
            return  # it has been done with meanwhile
        if -1 in problems:
            text = "; ".join(problems[n] for n in sorted(problems))
            self._found(id, text, partial(self._quarantine, db, id, text, None))
            return
        bad = sorted(n for n in problems if n >= 0)
        if bad:
            text = "; ".join(f"recipient {n}: {problems[n]}" for n in bad)
            self._found(id, text, partial(self._quarantine, db, id, text, bad))
        if -2 in problems:
            done = "it stays as it is" if self.repair else ""
            self.findings.append(Finding(str(id), f"{problems[-2]}; {_ADVICE}", done))

    def _quarantine(
        self, db: sqlite3.Connection, id: object, problem: str, numbers: Sequence[int] | None
    ) -> str:
        """Take a message, or some of its recipients, out of the queue and keep it."""
        head = db.execute(
            "SELECT arrived, mail, origin, octets, content FROM message"
            " WHERE id IN (?1, CAST(?1 AS TEXT))",
            (id,),
        ).fetchone()
        rows = db.execute(
            "SELECT number, rcpt, attempts, next_attempt, last_reply, alias, mail FROM recipient"
            " WHERE message IN (?1, CAST(?1 AS TEXT)) ORDER BY number",
            (id,),
        ).fetchall()
        arrived, mail, origin, octets, inline = head or (None, None, None, None, None)
        envelope = {
            "id": id,
            "problem": problem,
            "arrived": arrived,
            "mail": mail,
            "origin": origin,
            "octets": octets,
            "recipients": [
                {
                    "rcpt": rcpt,
                    "attempts": attempts,
                    "next_attempt": next_attempt,
                    "last_reply": reply,
                    "alias": alias,
                    "mail": own_mail,
                }
                for number, rcpt, attempts, next_attempt, reply, alias, own_mail in rows
                if numbers is None or number in numbers
            ],
        }
        name = id if _is_id(id) else "damaged"
        where = self._keep(f"{name}.json", json.dumps(envelope, indent=2, default=_text).encode())
        if inline is not None:
            self._keep(f"{name}.eml", inline if isinstance(inline, bytes) else str(inline).encode())
        file = self.directory / "content" / name
        if file.is_file():
            keep_file(file, self.directory / "quarantine" / f"{name}.eml", self.disk)
        db.execute("BEGIN IMMEDIATE")
        if numbers is None:
            db.execute("DELETE FROM message WHERE id IN (?1, CAST(?1 AS TEXT))", (id,))
            db.execute("DELETE FROM recipient WHERE message IN (?1, CAST(?1 AS TEXT))", (id,))
        else:
            db.executemany(
                "DELETE FROM recipient WHERE message IN (?1, CAST(?1 AS TEXT)) AND number = ?2",
                [(id, number) for number in numbers],
            )
        db.execute("COMMIT")
        if numbers is None:
            self.disk.remove(file)
        return f"moved to {where}"

    def _strays(self, db: sqlite3.Connection) -> None:
        strays = db.execute(
            "SELECT DISTINCT message FROM recipient"
            " WHERE NOT EXISTS (SELECT 1 FROM message WHERE id = message)"
        ).fetchall()
        for (id,) in strays:
            text = "there are recipients of it, and no message"
            self._found(id, text, partial(self._quarantine, db, id, text, None))

    # Files

    def _names(self) -> list[str]:
        """Return what is in `content` that may be ours."""
        content = self.directory / "content"
        names = self.disk.names(content) if content.is_dir() else []
        return sorted(filter(_is_id, names))

    def _files(self, db: sqlite3.Connection) -> None:
        found = {finding.what for finding in self.findings}
        for name in self._names():
            row = "SELECT 1 FROM message WHERE id = ? AND content IS NULL"
            if name not in found and db.execute(row, (name,)).fetchone() is None:
                text = "a file of content without a message"
                self._found(name, text, partial(self._move, name))

    def _move(self, name: str) -> str:
        file = self.directory / "content" / name
        where = keep_file(file, self.directory / "quarantine" / f"{name}.eml", self.disk)
        self.disk.remove(file)
        return f"moved to {where}"

    def _keep(self, name: str, octets: bytes) -> Path:
        """Write a file into the quarantine, durably, with the rest of what is there kept."""
        self.disk.make_directory(self.directory / "quarantine")
        for n in range(10_000):
            path = self.directory / "quarantine" / (f"{name}.{n}" if n else name)
            try:
                file = self.disk.create(path)
            except FileExistsError:
                continue
            try:
                self.disk.write(file, octets)
                self.disk.sync(file)
            finally:
                self.disk.close(file)
            self.disk.sync_directory(path.parent)
            return path
        raise FileExistsError(f"{name}: too many of that name in quarantine")


def _is_id(value: object) -> TypeGuard[str]:
    """Tell whether this may be a message's id, and so the name of a file."""
    return isinstance(value, str) and value.isascii() and value.isalnum() and len(value) <= MAX_ID


def _odd(types: Mapping[str, type | UnionType], values: Sequence[object]) -> str | None:
    """Say which column holds what it cannot; None for nothing."""
    for (name, kind), value in zip(types.items(), values, strict=True):
        if not isinstance(value, kind):
            return f"its {name} is {value!r}"
    return None


def _grammar(cls: type[C], line: object) -> str | None:
    try:
        parsed(cls, line)
    except GrammarError as error:
        return str(error)
    return None


def _no_alias(address: object) -> str | None:
    """Say what is wrong with the alias that a recipient came by; None for nothing."""
    if address is None:
        return None
    if not isinstance(address, bytes):
        return f"it came by no alias: {address!r}"
    try:
        Mailbox.parse(address)
    except GrammarError as error:
        return f"it came by no alias: {error}"
    return None


def _text_or_octets(octets: bytes) -> str | bytes:
    """Read text from the database; what is none any more stays octets, and can be found by them."""
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return octets


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "backslashreplace").rstrip("\r\n")
