"""After a power cut at any moment, and any way that it can go, the spool is as it was promised.

The spool's work is recorded, write by write and sync by sync (`tape.py`). For every moment of it
the disks that a cut may leave are made (`aftermath.py`), the spool is opened on each of them, and
held to this: it has what all steps made of it that had returned, and of those under way each one
whole or not at all; nothing else, no half message, no file too many (`cuts.py`).
"""

import errno
import itertools
import os
import random
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import pytest
from attrs import define

from smtpproto.relay.spool import database, incoming, schema
from smtpproto.relay.spool.check import check_spool
from smtpproto.relay.spool.seam import SpoolUnavailable
from smtpproto.relay.spool.sqlite import SQLiteSpool
from tests.relay.aftermath import (
    WAYS,
    Dropped,
    Image,
    Kept,
    NamesAlone,
    Platter,
    Torn,
)
from tests.relay.cuts import Began, Client, Enumeration, NoSync, Returned, found_in, put, work
from tests.relay.tape import Operation, Rename, Sync, Tape

pytestmark = pytest.mark.rfc(
    "5321 §4.2.5 2yz-takes-responsibility",
    "5321 §6.1 250-takes-responsibility",
    "5321 §6.1 nothing-is-lost-by-a-crash",
)

#: The long run, as CONTRIBUTING.md says: so many times as many ways for sectors to be torn.
CUTS = int(os.environ.get("SMTPPROTO_CUTS") or 1)


@pytest.fixture
def disk() -> Iterator[Path]:
    """A place where a sync costs nothing, if there is one."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as path:
        yield Path(path)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes a megabyte in life happens here in some kilobytes."""
    monkeypatch.setattr(incoming, "INLINE_OCTETS", 4096)
    monkeypatch.setattr(database, "CHECKPOINT_PAGES", 16)


async def recorded(path: Path) -> Tape:
    with Tape().runs() as tape:
        assert await work(path, tape) == 0
    return tape


# All is kept


def test_the_tape_misses_nothing(disk: Path) -> None:
    """Played to a disk that keeps everything it makes the very files that are there."""
    spool = disk / "spool"
    tape = anyio.run(recorded, spool)
    platter = Platter(disk)
    for operation in tape.operations:
        if not isinstance(operation, (Began, Returned)):
            platter.play(operation)
    played = {path: octets for path, octets in platter.cut(Kept(), 0).items() if octets is not None}
    there = {path: path.read_bytes() for path in spool.rglob("*") if path.is_file()}
    del there[spool / "lock"]  # it is empty, and it does not matter whether it is there
    assert played == there


def test_whenever_the_power_is_cut_nothing_is_lost_and_nothing_comes_back(disk: Path) -> None:
    spool = disk / "spool"
    enumeration = Enumeration(spool, anyio.run(recorded, spool), disk / "after")
    anyio.run(partial(enumeration.run, [*WAYS, *[Torn()] * (CUTS - 1)], again=max(2, 200 // CUTS)))
    print(f"{len(enumeration.tape.operations)} moments, {enumeration.opened} disks")
    assert enumeration.opened > 1000


def test_a_migration_is_done_or_not(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = disk / "spool"
    tape = anyio.run(recorded, path)
    step = (
        "ALTER TABLE recipient ADD COLUMN hold INTEGER NOT NULL DEFAULT 0",
        "CREATE INDEX recipient_hold ON recipient (hold)",
    )
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, step))

    async def migrate() -> None:
        async with SQLiteSpool.open(path, disk=tape):
            pass

    before = len(tape.operations)
    with tape.runs():
        anyio.run(migrate)
    enumeration = Enumeration(path, tape, disk / "after")
    moments = range(before, len(tape.operations) + 1)
    anyio.run(partial(enumeration.run, moments=moments))
    assert enumeration.opened > 10


def test_a_repair_is_done_or_can_be_done_again(disk: Path) -> None:
    """Whenever the power is cut, a server finds nothing that it could take for whole."""
    path, scratch = disk / "spool", disk / "after"

    async def fill() -> None:
        async with SQLiteSpool.open(path) as spool:
            for key in range(60):
                await Client(spool, Tape(), itertools.count(1)).keep(key, 9000 if key < 3 else 140)

    anyio.run(fill)
    with closing(sqlite3.connect(path / "spool.db")) as db:
        (last_root,) = db.execute("SELECT max(rootpage) FROM sqlite_master").fetchone()
    with (path / "spool.db").open("r+b") as file:
        # The first page that is none's root: rows of a table.
        file.seek(last_root * database.PAGE_OCTETS)
        file.write(random.Random(1).randbytes(database.PAGE_OCTETS))
    before: Image = {path / "content": None}
    before |= {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    with Tape().runs() as tape:
        assert check_spool(path, repair=True, disk=tape).findings
    whole = anyio.run(found_in, path, NoSync())
    assert 20 < len(whole) < 60
    kept = {file.read_bytes() for file in (path / "quarantine").iterdir()}
    # Before the new database is complete there is nothing to be seen of it.
    done = next(n for n, operation in enumerate(tape.operations) if isinstance(operation, Rename))
    moments = {*range(0, done - 1, max(1, 60 // CUTS)), *range(done - 1, len(tape.operations) + 1)}
    enumeration = Enumeration(path, tape, scratch, before=before)

    async def look() -> None:
        for image, where in enumeration.disks([Dropped(), Kept(), NamesAlone(), Torn()], moments):
            put(image, scratch)
            if not check_spool(scratch, disk=NoSync()).findings:  # what a server would take
                assert await found_in(scratch, NoSync()) == whole, where
            else:
                check_spool(scratch, repair=True, disk=NoSync())
                assert await found_in(scratch, NoSync()) == whole, where
            # One that was cut in half may lie beside them, under their name without a number.
            assert {file.read_bytes() for file in (scratch / "quarantine").iterdir()} >= kept, where
            enumeration.opened += 1

    with Tape(real=False).runs():
        anyio.run(look)
    print(f"{enumeration.opened} disks")
    assert enumeration.opened > 30


# And where a promise is broken it is seen


class Forgetful(Tape):
    """Does not sync what it is told to."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self._what = what

    def sync(self, file: int) -> None:
        if self._what != "files":
            super().sync(file)

    def sync_directory(self, path: Path) -> None:
        if self._what != path.name:
            super().sync_directory(path)


def broken(what: str, monkeypatch: pytest.MonkeyPatch) -> Tape:
    """Break one rule of the spool's, and return the tape for it."""
    match what:
        case "every commit is synced":
            monkeypatch.setattr(database.Database, "_connected", _lazily_connected)
        case "files are synced":
            return Forgetful("files")
        case "their directory is synced":
            return Forgetful("content")
        case "the row goes before the file":
            drop = SQLiteSpool._drop_if_done

            def file_first(self: SQLiteSpool, db: sqlite3.Connection, id: str) -> list[Path]:
                gone = drop(self, db, id)
                for path in gone:
                    self.disk.remove(path)
                return gone

            monkeypatch.setattr(SQLiteSpool, "_drop_if_done", file_first)
        case "what no row has is removed":
            monkeypatch.setattr(SQLiteSpool, "_recover", lambda *_: None)
        case "reports are kept as their recipient goes":
            settle = SQLiteSpool.settle

            async def one_by_one(
                self: SQLiteSpool, id: str, some: Any, fresh: Any = (), *, now: float
            ) -> list[str]:
                await settle(self, id, some, now=now)
                for new in fresh:
                    async with self.receive() as report:
                        await report.write(new.content)
                        await report.commit(new.mail, new.rcpts, now=now)
                return []

            monkeypatch.setattr(SQLiteSpool, "settle", one_by_one)
    return Tape()


def _lazily_connected(self: Any, *, create: bool = False) -> sqlite3.Connection:
    if self._writer is None:
        self._writer = database.connect(self._path, create=create, busy_timeout=1)
    self._writer.execute("PRAGMA synchronous = NORMAL")
    db: sqlite3.Connection = self._writer
    return db


@pytest.mark.parametrize(
    "rule",
    [
        "every commit is synced",
        "files are synced",
        "their directory is synced",
        "the row goes before the file",
        "what no row has is removed",
        "reports are kept as their recipient goes",
    ],
)
def test_a_rule_that_is_broken_is_found_out(
    disk: Path, monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    async def record() -> Tape:
        with broken(rule, monkeypatch).runs() as tape:
            await work(disk / "spool", tape)
        return tape

    enumeration = Enumeration(disk / "spool", anyio.run(record), disk / "after")
    with pytest.raises((AssertionError, pytest.fail.Exception, SpoolUnavailable)):
        anyio.run(enumeration.run)


# A disk that fails


@define
class Lame:
    """Makes the operation number `at` fail, and for good all those behind it."""

    tape: Tape
    at: int
    number: int
    for_good: bool
    count: int = 0
    since: int | None = None  # the place on the tape where it began

    def __call__(self, _: Operation) -> int:
        self.count += 1
        if self.count == self.at:
            self.since = len(self.tape.operations)
        if self.count == self.at or (self.for_good and self.count > self.at):
            return self.number
        return 0


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
@pytest.mark.parametrize("for_good", [False, True], ids=["once", "for good"])
def test_whatever_fails_on_the_disk_nothing_is_lost(
    disk: Path, monkeypatch: pytest.MonkeyPatch, number: int, for_good: bool
) -> None:
    """And that includes a power cut later on, for which a failed sync is never made good."""
    monkeypatch.setattr(database, "CHECKPOINT_PAGES", 1)  # as often as can be
    failed = 0

    async def fail(at: int) -> bool:
        """Return whether there was anything to fail."""
        path = disk / f"spool {at}"
        with Tape().runs() as tape:
            tape.trouble = lame = Lame(tape, at, number, for_good)
            refused = await work(path, tape)
        # What failed once costs that once: one step, or a batch of them, or a start.
        assert for_good or refused <= 6
        if lame.since is None:
            return False
        enumeration = Enumeration(path, tape, disk / "after")
        end = len(tape.operations)
        moments = {*range(lame.since, end, max(1, 50 // CUTS)), end}
        try:
            await enumeration.run([Dropped(), Kept()], moments=moments)
        except BaseException as error:
            error.add_note(f"operation {at} had failed, at {lame.since}")
            raise
        shutil.rmtree(path, ignore_errors=True)  # it may not have come to be
        return True

    async def main() -> None:
        nonlocal failed
        step = max(1, 15 // CUTS)
        for at in itertools.count(1 + number % step, step):
            if not await fail(at):
                return
            failed += 1

    anyio.run(main)
    assert failed > 20
    print(f"{failed} operations failed")


@pytest.mark.parametrize("killed", [False, True])
def test_a_sync_that_failed_at_the_end_takes_nothing_with_it(
    disk: Path, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    """What it was for had been promised to nobody; but what comes next must not stand on it."""
    monkeypatch.setattr(database, "CHECKPOINT_PAGES", 1000)
    path = disk / "spool"
    left: list[database.Database] = []  # of the one who was killed: nothing is closed

    def stay(self: database.Database) -> None:
        left.append(self)

    async def record() -> Tape:
        with Tape().runs() as tape, monkeypatch.context() as while_it_lives:
            if killed:
                while_it_lives.setattr(database.Database, "stop", stay)
            async with SQLiteSpool.open(path, disk=tape) as spool:
                client = Client(spool, tape, itertools.count(1))
                await client.keep(1, 40)
                await client.claim()
                failing = iter([errno.EIO])
                tape.trouble = lambda operation: (
                    next(failing, 0) if isinstance(operation, Sync) else 0
                )
                if killed:
                    await client.keep(2, 40)
                    assert client.refused == 1
            assert next(failing, None) is None
            while_it_lives.undo()
            async with SQLiteSpool.open(path, disk=tape) as spool:
                await Client(spool, tape, itertools.count(1)).keep(3, 40)
            for database_left in left:
                database_left.stop()
        return tape

    enumeration = Enumeration(path, anyio.run(record), disk / "after")
    anyio.run(enumeration.run)


def test_a_log_whose_sync_has_failed_is_not_read_with_a_hole_in_it(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would lay old pages over newer ones: those that were copied from behind the hole."""
    monkeypatch.setattr(database, "CHECKPOINT_PAGES", 1000)
    path = disk / "spool"

    async def record() -> Tape:
        with Tape().runs() as tape:
            async with SQLiteSpool.open(path, disk=tape) as spool:
                client = Client(spool, tape, itertools.count(1))
                for key in range(100):  # more than one page of them
                    await client.keep(key, 40)
            async with SQLiteSpool.open(path, disk=tape) as spool:
                client = Client(spool, tape, itertools.count(1))
                await client.keep(100, 40)
                await spool.claim(1000.0, 10, 60.0)
                failing = iter([errno.EIO])
                tape.trouble = lambda operation: (
                    next(failing, 0) if isinstance(operation, Sync) else 0
                )
                armed.append(len(tape.operations))
                for key in range(101, 104):
                    await client.keep(key, 40)
                assert client.refused == 1
        return tape

    armed: list[int] = []
    enumeration = Enumeration(path, anyio.run(record), disk / "after")
    moments = range(armed[0], len(enumeration.tape.operations) + 1)
    anyio.run(partial(enumeration.run, moments=moments))
