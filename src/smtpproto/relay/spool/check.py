"""Is the SQLite spool sound, and can it be mended? For `smtpproto queue check`. It blocks.

What cannot stay goes to `DIRECTORY/quarantine` and not away: a message as `ID.json`, its envelope
and what is wrong with it, and `ID.eml`, its content; a database as it was. Nothing there is read
again by anybody but you.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

from attrs import define, field, frozen

from smtpproto.core.command import Mail, Rcpt
from smtpproto.core.errors import GrammarError
from smtpproto.core.path import Mailbox

from .database import as_unavailable, connect, lock
from .disk import Disk
from .rows import C, parsed
from .salvage import MENDED, finish, keep_file, legible, rebuild, until_damage
from .schema import MIGRATIONS, migrate
from .seam import SpoolUnavailable

__all__ = ["Checked", "Finding", "check_spool"]

#: Lines of SQLite's verdict that are passed on; a torn page makes thousands.
VERDICTS = 10


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

    def _found(self, what: str, problem: str, mend: Callable[[], str]) -> None:
        """Note it, and mend it by what `mend` does, which returns what that was."""
        done = mend() if self.repair else ""
        self.findings.append(Finding(what, problem, done, bool(done)))

    # The database

    def _raw(self) -> sqlite3.Connection:
        db = connect(self.directory / "spool.db", create=False, busy_timeout=self.busy_timeout)
        db.text_factory = legible
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

    def _messages(self, db: sqlite3.Connection) -> list[tuple[str, dict[int, str]]]:
        """Return each message that something is wrong with: what is, by recipient.

        -1 stands for the whole of it, -2 for its content.
        """
        damaged: list[tuple[str, dict[int, str]]] = []
        for id, mail, octets, inline in db.execute(
            "SELECT id, mail, octets, length(content) FROM message ORDER BY id"
        ):
            self.messages += 1
            problems: dict[int, str] = {}
            if (problem := _grammar(Mail, mail)) is not None:
                problems[-1] = problem
            rows = db.execute(
                "SELECT number, rcpt, alias, mail FROM recipient WHERE message = ?", (id,)
            )
            owed = 0
            for number, rcpt, alias, own_mail in rows:
                owed += 1
                problem = _grammar(Rcpt, rcpt) or _no_alias(alias)
                if problem is None and own_mail is not None:
                    problem = _grammar(Mail, own_mail)
                if problem is not None:
                    problems[number] = problem
            if not owed:
                problems[-1] = "it has no recipients"
            elif len([n for n in problems if n >= 0]) == owed:
                problems[-1] = "none of its recipients can be read"
            there = inline if inline is not None else self._size(id)
            if there is None:
                problems[-2] = "its content is gone"
            elif there != octets:
                problems[-2] = f"its content has {there} octets, and should have {octets}"
            if problems:
                damaged.append((id, problems))
        return damaged

    def _size(self, id: str) -> int | None:
        try:
            return (self.directory / "content" / id).stat().st_size
        except OSError:
            return None

    def _message(self, db: sqlite3.Connection, id: str, problems: dict[int, str]) -> None:
        if db.execute("SELECT 1 FROM message WHERE id = ?", (id,)).fetchone() is None:
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
            done = "it stays: its sender is told when it expires" if self.repair else ""
            self.findings.append(Finding(id, problems[-2], done))

    def _quarantine(
        self, db: sqlite3.Connection, id: str, problem: str, numbers: Sequence[int] | None
    ) -> str:
        """Take a message, or some of its recipients, out of the queue and keep it."""
        head = db.execute(
            "SELECT arrived, mail, origin, octets, content FROM message WHERE id = ?", (id,)
        ).fetchone()
        rows = db.execute(
            "SELECT number, rcpt, attempts, next_attempt, last_reply, alias, mail FROM recipient"
            " WHERE message = ? ORDER BY number",
            (id,),
        ).fetchall()
        arrived, mail, origin, octets, inline = head or (None, None, None, None, None)
        envelope = {
            "id": id,
            "problem": problem,
            "arrived": arrived,
            "mail": _text(mail),
            "origin": origin,
            "octets": octets,
            "recipients": [
                {
                    "rcpt": _text(rcpt),
                    "attempts": attempts,
                    "next_attempt": next_attempt,
                    "last_reply": reply,
                    "alias": _text(alias),
                    "mail": _text(own_mail),
                }
                for number, rcpt, attempts, next_attempt, reply, alias, own_mail in rows
                if numbers is None or number in numbers
            ],
        }
        where = self._keep(f"{id}.json", json.dumps(envelope, indent=2).encode())
        file = self.directory / "content" / id
        if inline is not None:
            self._keep(f"{id}.eml", inline if isinstance(inline, bytes) else str(inline).encode())
        elif file.is_file():
            keep_file(file, self.directory / "quarantine" / f"{id}.eml", self.disk)
        db.execute("BEGIN IMMEDIATE")
        if numbers is None:
            db.execute("DELETE FROM message WHERE id = ?", (id,))
            db.execute("DELETE FROM recipient WHERE message = ?", (id,))
        else:
            db.executemany(
                "DELETE FROM recipient WHERE message = ? AND number = ?",
                [(id, number) for number in numbers],
            )
        db.execute("COMMIT")
        if numbers is None and inline is None:
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
        return sorted(name for name in names if name.isalnum())

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


def _grammar(cls: type[C], line: object) -> str | None:
    if not isinstance(line, bytes):
        return f"no {cls.verb.decode()} command: {line!r}"
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


def _text(line: object) -> object:
    return (
        line.decode("utf-8", "backslashreplace").rstrip("\r\n") if isinstance(line, bytes) else line
    )
