"""What is remembered of clients, over restarts: a few numbers for each key, until they expire.

One small SQLite database, for its owner alone to read, used in a thread. It survives a crash of
ours; a power cut may cost the last moments of it (synchronous=NORMAL), for it is no mail.

Several processes, and several in one, may have the same file open: each transaction sees what all
of them have written. What one is asked for while a transaction is going on waits, and is the next
one, all of it: to change threads and to commit cost more than what is done (group commit).
"""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from anyio import CancelScope, Lock, to_thread
from attrs import define, field

__all__ = ["Book", "Memory", "SQLiteMemory"]

T = TypeVar("T")


class Book(Protocol):
    """What is remembered, within one transaction.

    The first word of a key is its kind; however many there are of one, they push out no other.
    """

    def get(self, key: str, now: float) -> tuple[float, ...] | None:
        """Return the numbers of a key; None if there are none, or they have expired."""
        ...

    def put(self, key: str, value: tuple[float, ...], expires: float) -> None:
        """Remember some numbers until `expires`, in seconds since the epoch."""
        ...


class Memory(Protocol):
    """Remembers; what it raises is a failure of the filter that asked."""

    async def transact(self, work: Callable[[Book], T]) -> T:
        """Do `work`, which reads and writes and does nothing else, as one step.

        It may be done again, where nothing came of the first time.
        """
        ...


#: After so many that were written, those that have expired are forgotten.
SWEEP = 1000


class _Book:
    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self.puts = Counter[str]()  # by kind
        self.now = 0.0

    def get(self, key: str, now: float) -> tuple[float, ...] | None:
        self.now = max(self.now, now)
        row = self._db.execute(
            "SELECT value FROM memory WHERE key = ? AND expires > ?", (key, now)
        ).fetchone()
        return None if row is None else tuple(map(float, row[0].split()))

    def put(self, key: str, value: tuple[float, ...], expires: float) -> None:
        text = " ".join(map(repr, map(float, value)))
        self._db.execute("INSERT OR REPLACE INTO memory VALUES (?, ?, ?)", (key, text, expires))
        self.puts[key.partition(" ")[0]] += 1


@define(eq=False)
class _Asked(Generic[T]):
    """Work that is to be done, and then what it returned or raised."""

    work: Callable[[Book], T]
    begun: bool = field(default=False, init=False)
    results: list[T] = field(factory=list["T"], init=False)
    error: Exception | None = field(default=None, init=False)


class SQLiteMemory:
    """A `Memory` in a file. Make one by `open`.

    What has expired is forgotten soon. Some `capacity` keys of each kind are kept, and a tenth more
    at most for a while: of more, those that expire first are forgotten, for it is strangers who
    choose the keys.
    """

    def __init__(self, db: sqlite3.Connection, capacity: int) -> None:
        self._db = db
        self._capacity = capacity
        self._puts = Counter[str]()
        self._old = 0
        self._waiting: list[_Asked[Any]] = []
        self._turn = Lock(fast_acquire=True)

    @classmethod
    @asynccontextmanager
    async def open(
        cls, path: Path | str, *, capacity: int = 500_000
    ) -> AsyncGenerator[SQLiteMemory]:
        """Open the file at `path`, made if need be; sqlite3.Error, OSError if it cannot be."""
        db = await to_thread.run_sync(_connect, path)
        memory = cls(db, capacity)
        try:
            yield memory
        finally:
            with CancelScope(shield=True):
                async with memory._turn:
                    await to_thread.run_sync(db.close)

    async def transact(self, work: Callable[[Book], T]) -> T:
        asked = _Asked(work)
        self._waiting.append(asked)
        try:
            async with self._turn:
                if not asked.begun:  # else who had the turn before has taken it along
                    batch, self._waiting = self._waiting, []
                    for each in batch:
                        each.begun = True
                    with CancelScope(shield=True):  # others would go with us
                        await to_thread.run_sync(self._do, batch)
        except BaseException:
            if not asked.begun:
                self._waiting.remove(asked)
            raise
        if asked.error is not None:
            raise asked.error
        return asked.results[-1]

    def _do(self, batch: Sequence[_Asked[Any]]) -> None:
        """Do all together; where one of them fails by itself, each on its own."""
        try:
            self._transact(batch)
        except Exception as error:  # noqa: BLE001 - whoever waits has to hear of it
            if len(batch) > 1 and not isinstance(error, sqlite3.Error):
                for asked in batch:
                    self._do([asked])
                return
            for asked in batch:
                asked.error = error

    def _transact(self, batch: Sequence[_Asked[Any]]) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            book = _Book(self._db)
            for asked in batch:
                asked.results.append(asked.work(book))
            self._puts += book.puts
            self._old += book.puts.total()
            if self._old > SWEEP and book.now:
                self._old = 0
                self._db.execute("DELETE FROM memory WHERE expires <= ?", (book.now,))
            for kind in book.puts:
                if self._puts[kind] > self._capacity // 10:
                    self._puts[kind] = 0
                    self._forget(kind)
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # of a full disk, SQLite has ended it itself
                self._db.execute("ROLLBACK")
            raise

    def _forget(self, kind: str) -> None:
        # Of one word and of nothing else: as text they stand together.
        these = "key = ?1 OR (key >= ?1 || ' ' AND key < ?1 || '!')"
        (count,) = self._db.execute(
            f"SELECT count(*) FROM memory WHERE {these}",  # noqa: S608 - of ours
            (kind,),
        ).fetchone()
        if count > self._capacity:
            first = f"SELECT key FROM memory WHERE {these} ORDER BY expires LIMIT ?2"  # noqa: S608
            self._db.execute(
                f"DELETE FROM memory WHERE key IN ({first})",  # noqa: S608
                (kind, count - self._capacity),
            )


def _connect(path: Path | str) -> sqlite3.Connection:
    if path != ":memory:":  # it knows who writes to whom; what SQLite adds has the same mode
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute(
            "CREATE TABLE IF NOT EXISTS memory ("
            " key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL, expires REAL NOT NULL)"
            " WITHOUT ROWID"
        )
        db.execute("CREATE INDEX IF NOT EXISTS memory_expires ON memory (expires)")
    except BaseException:
        db.close()
        raise
    return db
