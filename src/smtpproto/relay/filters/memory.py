"""What is remembered of clients, over restarts: a few numbers for each key, until they expire.

One small SQLite database, for its owner alone to read, used in a thread. It survives a crash of
ours; a power cut may cost the last moments of it (synchronous=NORMAL), for it is no mail.
"""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from anyio import CancelScope, CapacityLimiter, to_thread

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
        """Do `work`, which reads and writes and does nothing else, as one step."""
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
        self._one = CapacityLimiter(1)

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
                await to_thread.run_sync(db.close, limiter=memory._one)

    async def transact(self, work: Callable[[Book], T]) -> T:
        return await to_thread.run_sync(partial(self._transact, work), limiter=self._one)

    def _transact(self, work: Callable[[Book], T]) -> T:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            book = _Book(self._db)
            result = work(book)
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
        return result

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
