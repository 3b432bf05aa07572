"""The spool on SQLite. Theory of operation:

`DIRECTORY/spool.db` holds everything, in WAL mode with synchronous=FULL; content over
`INLINE_OCTETS` is streamed to `DIRECTORY/content/<id>` instead. Both directions keep one order:

- coming: content file synced, its directory synced, then the row committed;
- going: the row's removal committed, then the file removed.

So a row never lacks its file, and what a crash can leave is a file without a row, which the next
start removes. The same goes for a file whose commit ended in doubt (an error in COMMIT
itself): it stays until then.

Many messages share one sync (group commit): see `database.py`.

*Who may do what.* One process *serves*: it holds the file lock `DIRECTORY/lock`, takes mail in,
and claims. Who is lent it knows by heart (`leases.py`). Others (`smtpproto queue`) visit: they
read, retry, hold and delete at any time; that they did is seen at the next claim, by SQLite's
`data_version`. What a disk has lost all the same, `check.py` finds, and a clock that was set back
`timekeeping.py`.

A recipient's `due` is its `next_attempt`; it was the end of its lease once, while it was lent.
POSIX only: directories must be syncable.
"""

from __future__ import annotations

import logging
import os
import secrets
import sqlite3
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, TypeVar

from anyio import CancelScope, CapacityLimiter, create_task_group, current_time, sleep, to_thread

from .arrivals import Arrivals
from .claims import LOOK, Claims
from .database import DAMAGED, Database, as_unavailable, is_served, lock
from .disk import Disk
from .incoming import INLINE_OCTETS, SQLiteIncoming
from .outgoing import read_content
from .rows import SELECT_MESSAGE, SELECT_RECIPIENT, entries_of, parked, tally
from .salvage import MENDED
from .seam import (
    ID_RANDOM,
    AtHand,
    Entry,
    Fresh,
    Pages,
    Settlement,
    SpoolUnavailable,
    Tally,
    new_id,
)
from .settle import settle
from .timekeeping import STEP, Timekeeper, latest, set_back
from .work import Work

__all__ = ["INLINE_OCTETS", "SQLiteIncoming", "SQLiteSpool"]

T = TypeVar("T")

logger = logging.getLogger(__name__)

PAGE_ENTRIES = 100
#: Messages that wait in memory to be claimed, what recipients each may have, and octets of content.
ARRIVALS, ARRIVAL_RECIPIENTS, ARRIVAL_OCTETS = 1000, 10, 1 << 24
#: Octets of the disk to be left free: some times what the database's log takes.
RESERVE = 1 << 25
#: Files that are looked up at a time.
MANY = 500
REPAIR = "run `smtpproto queue check --repair`"


class SQLiteSpool:
    """A `Spool` in a directory. Make one by `open`."""

    def __init__(
        self,
        directory: Path,
        *,
        serving: bool,
        clock: Callable[[], float],
        steady: Callable[[], float],
        random: Callable[[int], int],
        disk: Disk,
        busy_timeout: float,
        reserve: int,
    ) -> None:
        self.directory = directory
        self.disk = disk
        self.arrivals = Arrivals(ARRIVALS, ARRIVAL_RECIPIENTS, ARRIVAL_OCTETS)
        self._claims = Claims(self.arrivals)
        self._leases = self._claims.leases
        self._time = Timekeeper()
        self._reserve = reserve
        self.database = Database(
            directory / "spool.db",
            create=serving,
            busy_timeout=busy_timeout,
            disk=disk,
            reserve=reserve,
        )
        self._serving = serving
        self._clock = clock
        self._steady = steady
        self._random = random
        self._content = directory / "content"
        self._lock: int | None = None
        self._threads = CapacityLimiter(8)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        directory: Path,
        *,
        serving: bool = True,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = current_time,
        random: Callable[[int], int] = secrets.randbelow,
        disk: Disk | None = None,
        busy_timeout: float = 10.0,
        reserve: int = RESERVE,
    ) -> AsyncGenerator[SQLiteSpool, None]:
        """Open the spool in `directory`, made if need be.

        `serving=False` visits one that is there, and perhaps being served by another process: to
        read, retry and delete. `clock` (seconds since the epoch) and `random` (a number below
        the one given) make ids. By `steady`, in seconds from whenever, leases end; it is asked in
        the event loop, and is that one's clock by itself. `busy_timeout`: seconds to wait for
        another process's transaction. `reserve`: octets of the disk that mail leaves free when it
        comes in, so that there is room to write down what goes out.

        Raises SpoolUnavailable: another process serves it, there is content but no database, …
        """
        spool = cls(
            directory,
            serving=serving,
            clock=clock,
            steady=steady,
            random=random,
            disk=disk or Disk(),
            busy_timeout=busy_timeout,
            reserve=reserve,
        )
        failure: Exception | None = None
        try:
            await spool.in_thread(spool._start)
            async with create_task_group() as tasks:
                tasks.start_soon(spool.database.run)
                try:
                    yield spool
                except Exception as error:  # noqa: BLE001 - led around the group, raised below
                    failure = error
                finally:
                    spool.database.finish()
        finally:
            with CancelScope(shield=True):
                await to_thread.run_sync(spool._stop)
        if failure is not None:
            raise failure

    def receive(self) -> AbstractAsyncContextManager[SQLiteIncoming]:
        self._must_serve()
        self.must_have_room()
        return self._begin()

    def _begin(self) -> SQLiteIncoming:
        return SQLiteIncoming(self, new_id(self._clock(), self._random(ID_RANDOM)))

    async def claim(self, now: float, limit: int, lease: float) -> list[Entry]:
        self._must_serve()
        if lease <= 0:
            raise ValueError("a lease has to last")

        at = self._steady()
        if by := self._time.back_by(now, at):
            await self._set_back(now, at, by)
        if self._claims.is_quiet(now, at):
            return self._claims.at_hand(now, limit, at + lease)
        look = partial(self._claims.look, now=now, limit=limit, at=at, end=at + lease)
        return await self.database.perform(Work(look, looks=True))

    async def _set_back(self, now: float, at: float, by: float) -> None:
        """Have nothing wait for the time that it was (`timekeeping.py`)."""
        await self.database.perform(Work(lambda db: set_back(db, now, by), then=self._claims.moved))
        self._time.believe(now, at)

    def saw(self, now: float) -> None:
        self._time.saw(now, self._steady())

    def came(self, entry: Entry) -> None:
        self._claims.came(entry)

    async def settle(
        self,
        id: str,
        settlements: Sequence[Settlement],
        fresh: Sequence[Fresh] = (),
        *,
        now: float,
    ) -> list[str]:
        if not all(new.rcpts for new in fresh):
            raise ValueError("a message needs a recipient")
        reports: list[SQLiteIncoming] = []

        def run(db: sqlite3.Connection) -> list[Path] | None:
            if not settle(db, self._leases, id, settlements, now):
                return None
            self._time.note(db, now)
            for new, report in zip(fresh, reports, strict=True):
                report.insert(db, new, now)
                self._leases.back_to(now, report.id)
            return self._drop_if_done(db, id)

        numbers = [settlement.recipient for settlement in settlements]
        work = Work(run, then=lambda: self._claims.settled(id, numbers))
        self.arrivals.drop(id)
        self.saw(now)
        if not fresh:  # `perform` is not interrupted
            gone = await self.database.perform(work)
            if gone:
                with CancelScope(shield=True):
                    await self._remove(gone)
            return []
        with CancelScope(shield=True):
            async with AsyncExitStack() as stack:
                for new in fresh:
                    report = await stack.enter_async_context(self._begin())
                    await report.write(new.content)
                    await report.finish()
                    reports.append(report)
                for report in reports:
                    report.work = work
                gone = await self.database.perform(work)
                if gone is None:  # nothing was kept: let the files go
                    for report in reports:
                        report.work = None
                    reports.clear()
                else:
                    await self._remove(gone)
        return [report.id for report in reports]

    async def release(self, entries: Iterable[Entry]) -> None:
        lent = [(entry.id, r.number) for entry in entries for r in entry.recipients]
        await self.database.perform(Work(lambda _: self._leases.given_back(lent), looks=True))

    def content(self, id: str) -> AsyncIterator[bytes]:
        at_hand = self.arrivals.content(id)
        return read_content(self, id) if at_hand is None else AtHand(at_hand)

    async def next_due(self) -> float | None:
        at = self._steady()
        if self._claims.is_quiet(self._clock(), at):
            due = self._leases.quiet_until
        else:
            due = await self.database.read(partial(self._claims.next_due, at=at))
        due = min(due, self.arrivals.due())
        wall = self._clock() - at
        if wall + self._leases.sooner < due:
            due = min(due, wall + self._leases.first_end(at))
        return None if due == inf else due

    def entries(self) -> Pages[Entry]:
        after = ""

        def page(db: sqlite3.Connection) -> tuple[list[Any], list[Any]]:
            heads = db.execute(
                f"{SELECT_MESSAGE} WHERE id > ? ORDER BY id LIMIT ?", (after, PAGE_ENTRIES)
            ).fetchall()
            bounds = (heads[0][0], heads[-1][0]) if heads else ("", "")
            rows = db.execute(
                f"{SELECT_RECIPIENT} WHERE message BETWEEN ? AND ? ORDER BY message, number", bounds
            ).fetchall()
            return heads, rows

        async def fetch() -> Sequence[Entry]:
            nonlocal after
            while True:
                heads, rows = await self.database.read(page)
                if not heads:
                    return []
                last = heads[-1][0]
                # As SQLite sorts them. Where the index has another id than the row, no end comes.
                if (isinstance(last, bytes), last) <= (isinstance(after, bytes), after):
                    raise SpoolUnavailable(f"spool {self.directory}: {DAMAGED}")
                after = last
                if entries := entries_of(heads, rows):
                    return entries

        return Pages(fetch)

    async def get(self, id: str) -> Entry | None:
        def one(db: sqlite3.Connection) -> list[Entry]:
            return entries_of(
                db.execute(f"{SELECT_MESSAGE} WHERE id = ?", (id,)).fetchall(),
                db.execute(
                    f"{SELECT_RECIPIENT} WHERE message = ? ORDER BY number", (id,)
                ).fetchall(),
            )

        return next(iter(await self.database.read(one)), None)

    async def tally(self) -> Tally:
        """Count what is here."""
        return await self.database.read(tally)

    async def parked(self, owner: str, now: float) -> tuple[int, int]:
        return await self.database.read(partial(parked, owner=owner, now=now))

    async def retry(self, id: str | None, now: float) -> int:
        return await self.database.perform(
            Work(
                lambda db: (
                    db.execute(
                        "UPDATE recipient SET next_attempt = -?1, due = -?1"
                        " WHERE due > 0 AND (message = ?2 OR (?2 IS NULL AND due < ?3))",
                        (now, id, inf),
                    ).rowcount
                ),
                then=self._claims.moved,
            )
        )

    async def hold(self, id: str, reason: str) -> int:
        return await self.database.perform(
            Work(
                lambda db: (
                    db.execute(
                        "UPDATE recipient SET next_attempt = ?1, due = ?1, last_reply = ?2"
                        " WHERE message = ?3 AND due < ?1",
                        (inf, reason, id),
                    ).rowcount
                ),
                then=self._claims.moved,
            )
        )

    async def delete(self, id: str) -> bool:
        self.arrivals.drop(id)
        numbers: list[int] = []

        def run(db: sqlite3.Connection) -> list[Path] | None:
            if db.execute("SELECT 1 FROM message WHERE id = ?", (id,)).fetchone() is None:
                return None
            rows = db.execute("SELECT number FROM recipient WHERE message = ?", (id,))
            numbers[:] = [number for (number,) in rows]
            db.execute("DELETE FROM recipient WHERE message = ?", (id,))
            return self._drop_if_done(db, id)

        work = Work(run, then=lambda: self._claims.settled(id, numbers))
        with CancelScope(shield=True):
            gone = await self.database.perform(work)
            if gone is not None:
                await self._remove(gone)
                return True
        return False

    async def noticed(self) -> bool:
        """Wait until a process that serves the spool lends by what a visitor has changed.

        Tell whether there is one: what it is trying already, it goes on to try.
        """
        if not await self.in_thread(partial(is_served, self.directory)):
            return False
        await sleep(LOOK)
        return True

    # What follows is for this file and `incoming` alone.

    def content_path(self, id: str) -> Path:
        return self._content / id

    def must_have_room(self) -> None:
        """Refuse what comes in while too little room is left."""
        if self.database.low:
            raise SpoolUnavailable(
                f"spool {self.directory}: the disk is full: of the reserve of {self._reserve}"
                " octets a part is used",
                full=True,
            )

    async def in_thread(self, call: Callable[[], T]) -> T:
        try:
            return await to_thread.run_sync(call, limiter=self._threads)
        except (sqlite3.Error, OSError) as error:
            raise as_unavailable(error, self.directory) from error

    async def tidy(self, call: Callable[[], None]) -> None:
        """Remove files that no row has; what fails is left to the next start."""
        try:
            await self.in_thread(call)
        except SpoolUnavailable as error:
            logger.warning("left for the next start to remove: %s", error)

    async def _remove(self, paths: Sequence[Path]) -> None:
        for path in paths:
            await self.tidy(partial(self.disk.remove, path))

    def _must_serve(self) -> None:
        if not self._serving:
            raise RuntimeError("a visitor may read, retry and delete")

    def _drop_if_done(self, db: sqlite3.Connection, id: str) -> list[Path]:
        """Drop a message whose last recipient is gone; return the file to remove with it."""
        done = (
            "DELETE FROM message WHERE id = ?1"
            " AND NOT EXISTS (SELECT 1 FROM recipient WHERE message = ?1)"
        )
        if db.execute(f"{done} AND content IS NOT NULL", (id,)).rowcount:  # it had no file
            return []
        return [self.content_path(id)] if db.execute(done, (id,)).rowcount else []

    def _start(self) -> None:
        database = self.directory / "spool.db"
        if not self._serving:
            if not database.is_file():
                raise SpoolUnavailable(f"no spool in {self.directory}")
            self.database.start()
            return
        self.disk.make_directory(self._content)
        self._lock = lock(self.directory)
        if (self.directory / MENDED).exists():
            raise SpoolUnavailable(f"spool {self.directory}: a repair was broken off; {REPAIR}")
        files = [name for name in self.disk.names(self._content) if name.isalnum()]  # are ours
        if files and not (database.is_file() and database.stat().st_size):
            # Content comes after the database, and goes before it: this is no new spool.
            raise SpoolUnavailable(
                f"spool {self.directory}: {len(files)} files of content and no database; {REPAIR}"
            )
        self._recover(self.database.start(), files)

    def _recover(self, db: sqlite3.Connection, files: Sequence[str]) -> None:
        """Clean up after a predecessor that did not end as it should have."""
        # A version that wrote its leases down has left them.
        db.execute("UPDATE recipient SET due = next_attempt WHERE due > next_attempt")
        now = self._clock()
        if (by := latest(db) - now) > STEP:
            set_back(db, now, by)
        files = sorted(files)  # as the index is; nothing else of the messages is read
        for at in range(0, len(files), MANY):
            some = files[at : at + MANY]
            marks = ", ".join("?" * len(some))
            known = db.execute(f"SELECT id FROM message WHERE id IN ({marks})", some)  # noqa: S608
            for name in set(some).difference(id for (id,) in known):
                self.disk.remove(self._content / name)

    def _stop(self) -> None:
        self.database.stop()
        if self._lock is not None:
            os.close(self._lock)  # and with it the lock is gone
            self._lock = None
