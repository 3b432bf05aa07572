"""A message on its way into the SQLite spool: first in memory, then, if it is large, in a file."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Sequence
from math import inf
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar
from zlib import crc32

from anyio import CancelScope
from anyio.lowlevel import checkpoint_if_cancelled

from smtpproto.core.command import Mail, Rcpt

from .arrivals import Arrivals
from .database import Database
from .disk import Disk
from .seam import Entry, Fresh, Parked, Recipient, SpoolUnavailable
from .work import Work

__all__ = ["INLINE_OCTETS", "SQLiteIncoming", "Store"]

#: Content up to this many octets stands in the row. A file costs two syncs of its own, and some
#: turns in threads: more than it costs to write so much twice, to the log and to the database.
INLINE_OCTETS = 1 << 17


T = TypeVar("T")


class Store(Protocol):
    """What such a message needs of the spool that it is for."""

    @property
    def database(self) -> Database:
        """Where its row goes."""
        ...

    @property
    def disk(self) -> Disk:
        """By which its file is written."""
        ...

    def content_path(self, id: str) -> Path:
        """Return where its file is to be."""
        ...

    def must_have_room(self) -> None:
        """Raise SpoolUnavailable where what comes in would use up the last room."""
        ...

    @property
    def arrivals(self) -> Arrivals:
        """Where small content is kept for its first attempt."""
        ...

    def saw(self, now: float) -> None:
        """Take note of a time by which something is written down."""
        ...

    def came(self, entry: Entry) -> None:
        """Take note of a message that is in the database now; in the writer's thread."""
        ...

    async def in_thread(self, call: Callable[[], T]) -> T:
        """Do what blocks; SpoolUnavailable where it fails."""
        ...

    async def tidy(self, call: Callable[[], None]) -> None:
        """Do what blocks, and is left to the next start where it fails."""
        ...


class SQLiteIncoming:
    """A message on its way in: its first octets in memory, and from INLINE_OCTETS on in a file."""

    def __init__(self, spool: Store, id: str) -> None:
        self.id = id
        self.octets = 0
        #: What keeps it; as soon as there is one, the file is its.
        self.work: Work[Any] | None = None
        self._spool = spool
        self._buffer = bytearray()
        self._checksum = 0
        self._file: int | None = None
        self._in_file = False
        self._sound = True
        self._discarded = False
        self._turn = threading.RLock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.discard()

    @property
    def _path(self) -> Path:
        return self._spool.content_path(self.id)

    @property
    def buffered(self) -> int:
        """Octets held in memory."""
        return len(self._buffer)

    async def write(self, chunk: bytes) -> None:
        if self.work is not None:
            raise RuntimeError("this message is complete")
        self._buffer += chunk
        self.octets += len(chunk)
        self._checksum = crc32(chunk, self._checksum)
        if len(self._buffer) > INLINE_OCTETS:
            await self._to_file(self._append)

    async def commit(
        self,
        mail: Mail,
        rcpts: Sequence[Rcpt],
        *,
        now: float,
        origin: str = "",
        held: str | None = None,
        parked: Parked | None = None,
    ) -> None:
        if not rcpts:
            raise ValueError("a message needs a recipient")
        self._spool.must_have_room()
        self._spool.saw(now)
        await checkpoint_if_cancelled()
        if self._in_file or self.work is not None or not self._sound:
            with CancelScope(shield=True):
                await self.finish()
        new = Fresh(mail, tuple(rcpts), b"", origin)
        if held is not None:  # nobody will ask for it soon
            self.work = Work(lambda db: self.insert(db, new, now, held, parked))
            await self._spool.database.perform(self.work)
            return
        recipients = tuple(Recipient(n, rcpt, 0, now, None) for n, rcpt in enumerate(rcpts))
        entry = Entry(self.id, now, mail, recipients, self.octets, origin)
        self.work = Work(
            lambda db: self.insert(db, new, now, None, parked),
            then=lambda: self._spool.came(entry),
        )
        arrivals = self._spool.arrivals
        # Before it can be claimed, settled, and dropped from there.
        if not self._in_file:
            arrivals.keep(self.id, bytes(self._buffer))
        try:
            await self._spool.database.perform(self.work)
        except BaseException:
            arrivals.drop(self.id)
            raise

    async def finish(self) -> None:
        """Make the file durable, if there is one, before `insert` may be committed."""
        if self.work is not None:
            raise RuntimeError("this message is complete")
        if self._in_file or not self._sound:
            await self._to_file(self._seal)

    def insert(
        self,
        db: sqlite3.Connection,
        new: Fresh,
        now: float,
        held: str | None = None,
        parked: Parked | None = None,
    ) -> None:
        """Write the row; its content is what has been written here."""
        content = None if self._in_file else self._buffer
        db.execute(
            "INSERT INTO message VALUES (?, ?, ?, ?, ?, ?, ?)",
            (self.id, now, new.mail.serialize(), new.origin, self.octets, content, self._checksum),
        )
        db.executemany(
            "INSERT INTO recipient VALUES (?1, ?2, ?3, 0, ?4, ?4, ?5, 0, NULL, NULL)",
            [
                (self.id, n, rcpt.serialize(), now if held is None else inf, held)
                for n, rcpt in enumerate(new.rcpts)
            ],
        )
        if parked is not None:
            db.execute(
                "INSERT INTO parked VALUES (?, ?, ?, ?)",
                (self.id, parked.owner, parked.until, self.octets),
            )

    async def discard(self) -> None:
        """Remove the file, unless a row has it, or may have it."""
        kept = self.work is not None and self.work.kept is not False
        if not kept and (self._in_file or not self._sound):
            with CancelScope(shield=True):
                await self._spool.tidy(self._discard)

    async def _to_file(self, step: Callable[[], None]) -> None:
        # After a failed write there is a hole, and after a failed fsync the next one succeeds
        # without the data: either way this content is of no more use.
        if not self._sound:
            raise SpoolUnavailable(f"{self._path}: an earlier write failed")
        self._sound = False
        await self._spool.in_thread(step)
        self._sound = True

    # The rest runs in threads. One that its task was torn from runs on, so they take turns.

    def _append(self) -> None:
        with self._turn:
            if self._file is None:
                if self._discarded:
                    raise SpoolUnavailable(f"{self._path}: discarded")
                self._file = self._spool.disk.create(self._path)
                self._in_file = True
            self._spool.disk.write(self._file, self._buffer)
            self._buffer.clear()

    def _seal(self) -> None:
        with self._turn:
            self._append()
            assert self._file is not None
            self._spool.disk.sync(self._file)
            self._close()
            self._spool.disk.sync_directory(self._path.parent)

    def _discard(self) -> None:
        with self._turn:
            self._discarded = True
            self._close()
            if self._in_file:  # made by us, and not by another of the same id
                self._spool.disk.remove(self._path)

    def _close(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            self._spool.disk.close(file)
