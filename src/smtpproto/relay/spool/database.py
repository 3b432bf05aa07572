"""The spool's SQLite database: how it is opened, and the one writer that commits in groups.

*Group commit.* All that changes the database goes through one writer task. What arrives while a
transaction is being synced waits, and is the next transaction, all of it: many messages, one
sync. If that fails it is tried again one by one, so nobody fails for another's fault. The writer
is not touched by cancellation, and whoever waits for it is shielded from it too.

Claims, which change nothing here, have their turn between two of these (`Work.looks`), so that they
see each change whole, and wait for one sync at most. Readers have connections of their own and wait
for no writer (WAL); what is asked while they are busy goes to the next one that is free, all of it,
for to change threads costs more than most questions.

*When a sync fails.* What it was for may be lost, and the next sync says nothing of it: the system
takes for clean what it could not write. If that is in SQLite's log, the log has a hole that nobody
sees before the power is cut; then all that was committed behind it is lost, and old pages before it
are laid over newer ones in the database. So

- every transaction is synced for itself, and its COMMIT says whether that went well. Nothing is
  left to be synced by a checkpoint, which tells nobody where it fails;
- the log is written once more before anything is put behind it. What it has for sure is not
  changed by that;
- a start does not add to the log that it finds, for who knows how our predecessor ended. It has it
  copied, and begins another.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from anyio import CancelScope, CapacityLimiter, Event, create_task_group, to_thread

from .disk import Disk
from .schema import migrate
from .seam import SpoolUnavailable
from .work import Turn, Work

__all__ = [
    "DAMAGED",
    "PAGE_OCTETS",
    "Database",
    "as_unavailable",
    "connect",
    "is_code",
    "is_served",
    "lock",
]

T = TypeVar("T")

logger = logging.getLogger(__name__)

#: A page of a new database: a usual message is in one, and a large one in half as many as by
#: default, each of which is a write to the log.
PAGE_OCTETS = 8192
#: Pages of log after which they are copied into the database (a checkpoint).
CHECKPOINT_PAGES = 1000
#: Questions are answered by so many threads.
READERS = 2


def lock(directory: Path) -> int:
    """Become the one who serves the spool there, until what is returned is closed.

    Raises SpoolUnavailable if somebody else does.
    """
    held = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05)  # somebody may just have looked (`is_served`)
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(held)
        raise SpoolUnavailable(f"spool {directory}: another process serves it") from None
    except BaseException:
        os.close(held)
        raise
    return held


def is_served(directory: Path) -> bool:
    """Tell whether a process serves the spool there. OSError."""
    try:
        held = os.open(directory / "lock", os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(held)
    return False


def connect(
    path: Path, *, create: bool, busy_timeout: float, page: int | None = None
) -> sqlite3.Connection:
    """Open the database, to be used by one thread at a time; `busy_timeout` in seconds.

    `page` is how many octets a page of a new one has, PAGE_OCTETS if it is not told.
    """
    db = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={'rwc' if create else 'rw'}",
        uri=True,
        timeout=busy_timeout,
        isolation_level=None,  # we say BEGIN and COMMIT
        check_same_thread=False,
    )
    try:
        # Of one that is there it stays what it is.
        db.execute(f"PRAGMA page_size = {page or PAGE_OCTETS}")
        (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise SpoolUnavailable(f"{path}: no write-ahead log on this file system")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA fullfsync = ON")  # where fsync alone stops at the disk's cache
        db.execute("PRAGMA checkpoint_fullfsync = ON")
        db.execute("PRAGMA secure_delete = FAST")  # on, it rewrites every message that leaves
        db.execute("PRAGMA journal_size_limit = 67108864")
        db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    except BaseException:
        db.close()
        raise
    return db


def as_unavailable(error: sqlite3.Error | OSError, path: Path) -> SpoolUnavailable:
    """Say it to the operator: what it means, and what the system calls it."""
    meaning = next((words for code, words in _MEANINGS.items() if is_code(error, code)), "")
    name = getattr(error, "sqlite_errorname", "")
    said = f"{error} [{name}]" if name else str(error)
    text = f"spool {path}: {meaning}: {said}" if meaning else f"spool {path}: {said}"
    return SpoolUnavailable(text, full=is_code(error, sqlite3.SQLITE_FULL))


DAMAGED = "the database is damaged; stop the server and run `smtpproto queue check`"
_READ_ONLY = "it cannot be written to (a read-only file system, or not our file)"
_MEANINGS = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_READONLY: _READ_ONLY,
    sqlite3.SQLITE_IOERR: "the disk fails",
    sqlite3.SQLITE_CORRUPT: DAMAGED,
    sqlite3.SQLITE_NOTADB: DAMAGED,
    sqlite3.SQLITE_BUSY: "another process has it",
}
_ERRNOS = {
    errno.ENOSPC: sqlite3.SQLITE_FULL,
    errno.EDQUOT: sqlite3.SQLITE_FULL,
    errno.EROFS: sqlite3.SQLITE_READONLY,
    errno.EACCES: sqlite3.SQLITE_READONLY,
    errno.EPERM: sqlite3.SQLITE_READONLY,
    errno.EIO: sqlite3.SQLITE_IOERR,
}


def is_code(error: Exception, code: int) -> bool:
    """Tell whether an error is what SQLite's primary result code `code` says."""
    if isinstance(error, OSError):
        return _ERRNOS.get(error.errno or 0) == code
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == code


class Database:
    """The database in one file: `perform` changes it, `read` reads it.

    `start` it in a thread, `run` it as a task until after `finish`, and `stop` it in a thread.
    `create`: this process serves the spool, and may make or migrate it. `busy_timeout`: seconds to
    wait for another process's transaction. `reserve`: octets of the disk below which it is `low`.
    """

    def __init__(
        self,
        path: Path,
        *,
        create: bool,
        busy_timeout: float,
        disk: Disk | None = None,
        reserve: int = 0,
    ) -> None:
        self._path = path
        self._log = path.with_name(f"{path.name}-wal")
        self._disk = disk or Disk()
        self._create = create
        self._busy_timeout = busy_timeout
        self._writer: sqlite3.Connection | None = None
        self._doubtful = False  # a sync of the log has failed
        self._full = False  # there was no room in the log
        self._reserve = reserve
        #: Whether so little room is left that nothing more should come in.
        self.low = False
        self._readers: list[sqlite3.Connection] = []  # those idle
        # What comes next: for the writer, and for the readers.
        self._looks, self._changes, self._questions = Turn(), Turn(), Turn()
        self._wake = Event()
        self._asked = Event()
        self._closing = False
        self._writing = CapacityLimiter(1)
        self._reading = CapacityLimiter(READERS)

    def start(self) -> sqlite3.Connection:
        """Open it and bring its schema up to date; return the writer's connection."""
        db = self._connected(create=self._create)
        if self._create:
            (busy, _, _) = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if busy:
                raise SpoolUnavailable(f"{self._path}: its log must be renewed, and is being read")
        migrate(db, may_change=self._create)
        self._look_for_room()
        return db

    def finish(self) -> None:
        """Let the writer end when it has done what is there."""
        self._closing = True
        self._wake.set()
        self._asked.set()

    def stop(self) -> None:
        for reader in self._readers:
            reader.close()
        self._readers.clear()
        if self._writer is not None:
            with suppress(sqlite3.Error):
                self._writer.close()
            self._writer = None

    async def perform(self, work: Work[T]) -> T:
        """Have the writer do it; return its result, or raise SpoolUnavailable.

        Cancellation waits. If we are torn from the wait all the same, work that has not begun is
        withdrawn; the rest runs on.
        """
        turn = self._looks if work.looks else self._changes
        self._enter(turn, work)
        self._wake.set()
        try:
            await turn.wait()
        finally:
            turn.leave(work)
        return self._outcome(work)

    async def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run a query on a connection of its own, all of it in one snapshot."""
        work = Work(query, looks=True)
        turn = self._questions
        self._enter(turn, work)
        self._asked.set()
        try:
            await turn.over.wait()
        finally:
            turn.leave(work)
        return self._outcome(work)

    def _enter(self, turn: Turn, work: Work[Any]) -> None:
        if self._closing:
            raise SpoolUnavailable(f"{self._path}: closed")
        turn.works.append(work)

    def _outcome(self, work: Work[T]) -> T:
        if work.error is not None:
            if isinstance(work.error, (sqlite3.Error, OSError)):
                raise as_unavailable(work.error, self._path) from work.error
            raise work.error
        return work.result

    async def run(self) -> None:
        """Do what is there, until `finish` and all is done."""
        with CancelScope(shield=True):
            async with create_task_group() as tasks:
                tasks.start_soon(self.write)
                for _ in range(READERS):
                    tasks.start_soon(self.answer)

    async def write(self) -> None:
        """The writer task: whatever is there, in one transaction, again and again."""
        while True:
            looks, changes = self._looks, self._changes
            if looks.works or changes.works:
                self._looks, self._changes = Turn(), Turn()
                looks.begin()
                changes.begin()
                await self._take(looks, self._look, self._writing)
                await self._take(changes, self._work, self._writing)
            elif self._closing:
                return
            else:
                self._wake = Event()
                await self._wake.wait()

    async def answer(self) -> None:
        """A reader task."""
        while True:
            questions = self._questions
            if questions.works:
                self._questions = Turn()
                questions.begin()
                await self._take(questions, self._read, self._reading)
            elif self._closing:
                return
            else:
                if self._asked.is_set():
                    self._asked = Event()
                await self._asked.wait()

    async def _take(
        self, turn: Turn, do: Callable[[list[Work[Any]]], None], limiter: CapacityLimiter
    ) -> None:
        if turn.works:
            await to_thread.run_sync(do, turn.works, limiter=limiter)
            for work in turn.works:
                work.let_go()
            turn.over.set()

    def _look(self, batch: list[Work[Any]]) -> None:
        for work in batch:
            try:
                db = self._connected()
                db.execute("BEGIN")
                work.result = work.run(db)
                db.execute("COMMIT")
            except Exception as error:  # noqa: BLE001 - whoever waits has to hear of it
                self._start_over()
                work.error = error

    def _work(self, batch: list[Work[Any]]) -> None:
        self._transact(batch)
        self._look_for_room()

    def _look_for_room(self) -> None:
        with suppress(OSError):
            self.low = self._disk.free(self._path.parent) < self._reserve

    def _transact(self, batch: list[Work[Any]], *, doubt: bool = False) -> None:
        """Do all together; if that fails, each on its own.

        `doubt`: an earlier COMMIT of theirs failed, and may be read back after a crash.
        """
        committing = False
        try:
            db = self._connected()
            db.execute("BEGIN IMMEDIATE")
            results = [work.run(db) for work in batch]
            committing = True
            db.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - whoever waits has to hear of it
            self._start_over()
            # What is left of it in the log may by chance be whole, with what was there before.
            doubt |= committing
            if is_code(error, sqlite3.SQLITE_FULL):
                self._full = True
            elif committing:
                self._doubtful = True
            if len(batch) > 1 and not is_code(error, sqlite3.SQLITE_BUSY):
                for work in batch:
                    self._transact([work], doubt=doubt)
                return
            for work in batch:
                work.error = error
                work.kept = None if doubt else False
            return
        for work, result in zip(batch, results, strict=True):
            work.result = result
            work.kept = True
            if work.then is not None:
                work.then()

    def _connected(self, *, create: bool = False) -> sqlite3.Connection:
        if self._writer is None:
            self._writer = connect(self._path, create=create, busy_timeout=self._busy_timeout)
        db = self._writer
        if self._doubtful:
            self._renew(db)
        if self._full:
            self._full = False
            self._make_room(db)
        return db

    def _renew(self, db: sqlite3.Connection) -> None:
        """Bring the log to the disk after all. What it has for sure is not changed by that."""
        db.execute("BEGIN IMMEDIATE")  # so that nobody writes to it meanwhile
        try:
            self._disk.rewrite(self._log)
        finally:
            db.execute("ROLLBACK")
        self._doubtful = False

    def _make_room(self, db: sqlite3.Connection) -> None:
        """Let the log begin again where it has room, if what is in it can be copied."""
        try:
            db.execute("PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.Error as error:
            if not is_code(error, sqlite3.SQLITE_FULL):
                self._doubtful = True
                raise

    def _start_over(self) -> None:
        """Leave the connection as it is, and what has begun in it, for a new one."""
        old = self._writer
        if old is None:
            return
        try:
            self._writer = connect(self._path, create=False, busy_timeout=self._busy_timeout)
        except (sqlite3.Error, SpoolUnavailable):
            with suppress(sqlite3.Error):
                old.rollback()
            return
        with suppress(sqlite3.Error):
            old.close()

    def _read(self, batch: list[Work[Any]]) -> None:
        for work in batch:
            db: sqlite3.Connection | None = None
            try:
                db = self._reader()
                db.execute("BEGIN")
                work.result = work.run(db)
                db.execute("COMMIT")
            except Exception as error:  # noqa: BLE001 - whoever waits has to hear of it
                if db is not None:
                    db.close()
                work.error = error
            else:
                self._readers.append(db)

    def _reader(self) -> sqlite3.Connection:
        try:
            return self._readers.pop()
        except IndexError:
            return connect(self._path, create=False, busy_timeout=self._busy_timeout)
