"""After a power cut at any moment, and any way that it can go, the spool is as it was promised.

The spool's work is recorded, write by write and sync by sync (`tape.py`). For every moment of it
the disks that a cut may leave are made (`aftermath.py`), the spool is opened on each of them, and
held to this: it has what all steps made of it that had returned, and of those under way each one
whole or not at all; nothing else, no half message, no file too many.
"""

import errno
import hashlib
import itertools
import os
import random
import shutil
import sqlite3
from collections.abc import Awaitable, Callable, Container, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import anyio
import pytest
from attrs import define, field, frozen

import smtpproto.relay.sqlite_database as database
import smtpproto.relay.sqlite_incoming as incoming
from smtpproto.core.command import Mail, Rcpt
from smtpproto.relay.disk import Disk
from smtpproto.relay.spool import Fresh, Settlement, SpoolUnavailable
from smtpproto.relay.sqlite_check import check_spool
from smtpproto.relay.sqlite_spool import SQLiteSpool
from tests.relay.aftermath import (
    WAYS,
    Dropped,
    Image,
    Kept,
    LastTorn,
    NamesAlone,
    Platter,
    Torn,
    Way,
)
from tests.relay.tape import Operation, Rename, Sync, Tape

pytestmark = pytest.mark.rfc(
    "5321 §4.2.5 2yz-takes-responsibility",
    "5321 §6.1 250-takes-responsibility",
    "5321 §6.1 nothing-is-lost-by-a-crash",
)

#: The long run, as CONTRIBUTING.md says: so many times as many ways for sectors to be torn.
CUTS = int(os.environ.get("SMTPPROTO_CUTS") or 1)

#: number -> (RCPT, attempts, next attempt, last reply) of who is owed it; content -> these
Owed: TypeAlias = dict[int, tuple[bytes, int, float, str | None]]
Mails: TypeAlias = dict[bytes, Owed]

MAIL = Mail("ann@example.org")


# What was promised


@frozen(eq=False)
class Step:
    """One change of the spool, to one message and the reports on it."""

    key: int
    apply: Callable[[Mails], None]


@frozen
class Began:
    step: Step


@frozen
class Returned:
    """Its caller knows that it is done."""

    step: Step


class Promise:
    """What the spool has to have, by what has been asked of it."""

    def __init__(self) -> None:
        self._steps: dict[int, list[tuple[Step, bool]]] = {}
        self._outcomes: dict[int, list[Mails]] = {}

    def hear(self, mark: Began | Returned) -> None:
        steps = self._steps.setdefault(mark.step.key, [])
        self._outcomes.pop(mark.step.key, None)
        if isinstance(mark, Began):
            steps.append((mark.step, False))
        else:
            steps[steps.index((mark.step, False))] = mark.step, True

    def outcomes(self, key: int) -> list[Mails]:
        """Return what may be there: each step that has not returned was done, or was not."""
        if key not in self._outcomes:
            outcomes: list[Mails] = [{}]
            for step, returned in self._steps[key]:
                without = [] if returned else outcomes
                done = [{content: dict(owed) for content, owed in m.items()} for m in outcomes]
                for mails in done:
                    step.apply(mails)
                outcomes = without + [mails for mails in done if mails not in without]
            self._outcomes[key] = outcomes
        return self._outcomes[key]

    def hold(self, found: Mails) -> None:
        """Fail unless it was kept."""
        of_key: dict[int, Mails] = {key: {} for key in self._steps}
        for content, owed in found.items():
            of_key[key_of(content)][content] = owed
        for key, mails in of_key.items():
            if mails not in self.outcomes(key):
                there = _readable(mails)
                promised = "\n      or ".join(map(_readable, self.outcomes(key)))
                pytest.fail(f"of {key}\n   found {there}\npromised {promised}", pytrace=False)


def _readable(mails: Mails) -> str:
    return " and ".join(f"{len(c)} octets for {o}" for c, o in mails.items()) or "nothing"


def content_of(key: int, octets: int, part: int = 0) -> bytes:
    """Make content that is told from any other, and from any part of itself."""
    head = b"%d %d\r\n" % (key, part)
    body = b"".join(b"%064x\r\n" % (n * 0x9E3779B97F4A7C15) for n in range(octets // 66))
    return head + body + hashlib.sha256(head + body).hexdigest().encode()


def key_of(content: bytes) -> int:
    return int(content.split(b" ", 1)[0])


# What is asked of it


@define
class Client:
    """Asks things of a spool, and tells the tape what it asks and what it was answered."""

    spool: SQLiteSpool
    tape: Tape
    parts: Iterator[int]
    refused: int = 0

    async def _ask(self, step: Step, asked: Callable[[], Awaitable[object]]) -> bool:
        self.tape.mark(Began(step))
        try:
            await asked()
        except SpoolUnavailable:
            self.refused += 1
            return False
        self.tape.mark(Returned(step))
        return True

    async def keep(self, key: int, octets: int, rcpts: int = 2) -> None:
        content = content_of(key, octets)
        commands = [Rcpt(f"{n}@{key}.example") for n in range(rcpts)]

        def apply(mails: Mails) -> None:
            mails[content] = {
                n: (rcpt.serialize(), 0, 0.0, None) for n, rcpt in enumerate(commands)
            }

        try:
            async with self.spool.receive() as incoming:
                for at in range(0, len(content), 3000):
                    await incoming.write(content[at : at + 3000])
                step = Step(key, apply)
                await self._ask(step, lambda: incoming.commit(MAIL, commands, now=0.0))
        except SpoolUnavailable:
            self.refused += 1

    async def claim(self) -> dict[int, str]:
        """Borrow all; return the id of each message, by its key. Reports wait."""
        try:
            entries = await self.spool.claim(1000.0, 1000, 60.0)
        except SpoolUnavailable:
            self.refused += 1
            return {}
        return {
            int(str(e.recipients[0].rcpt.forward_path.mailbox.domain.split(b".")[0], "ascii")): e.id
            for e in entries
            if e.mail.reverse_path.mailbox is not None
        }

    async def settle(self, key: int, id: str, some: Sequence[Settlement], *reports: int) -> None:
        """Settle, with reports of so many octets; again and again, as the dispatcher does."""
        fresh = [
            Fresh(
                Mail(None),
                (Rcpt(f"0@{key}.example"),),
                content_of(key, octets, next(self.parts)),
                "",
            )
            for octets in reports
        ]

        def apply(mails: Mails) -> None:
            for content, owed in list(mails.items()):
                if content.startswith(b"%d 0\r\n" % key) and not owed.keys().isdisjoint(
                    [s.recipient for s in some]
                ):
                    for s in some:
                        rcpt, attempts, *_ = owed.pop(s.recipient, (b"", 0))
                        if s.next_attempt is not None and rcpt:
                            owed[s.recipient] = rcpt, attempts + 1, s.next_attempt, s.reply
                    if not owed:
                        del mails[content]
                    for new in fresh:
                        mails[new.content] = {0: (new.rcpts[0].serialize(), 0, 5.0, None)}

        for _ in range(3):
            step = Step(key, apply)
            if await self._ask(step, lambda: self.spool.settle(id, some, fresh, now=5.0)):
                break

    async def delete(self, key: int, id: str) -> None:
        await self._ask(Step(key, lambda mails: mails.clear()), lambda: self.spool.delete(id))


async def work(path: Path, tape: Tape) -> int:
    """All that a spool does, twice over, with a restart between; return how often it refused."""
    dice = random.Random(3)
    parts = itertools.count(1)
    refused = 0
    for first in (0, 10):
        try:
            async with SQLiteSpool.open(
                path, disk=tape, clock=lambda: 1e6, random=dice.randrange
            ) as spool:
                client = Client(spool, tape, parts)
                await _day(client, first)
                refused += client.refused
        except SpoolUnavailable:
            refused += 1
    return refused


async def _day(client: Client, first: int) -> None:
    async with anyio.create_task_group() as tasks:
        for key in range(first, first + 6):
            tasks.start_soon(client.keep, key, [40, 9000, 3000][key % 3])
    async with client.spool.receive() as left:
        try:
            await left.write(bytes(9000))
        except SpoolUnavailable:
            client.refused += 1
    ids = await client.claim()
    some = [
        (Settlement(0, None), Settlement(1, None)),  # delivered
        (Settlement(0, None), Settlement(1, 900.0, "450 later")),
        (Settlement(0, 800.0), Settlement(1, 900.0, "450 later")),
    ]
    reports = [(), (500,), (9000,)]
    async with anyio.create_task_group() as tasks:
        for key, id in ids.items():
            if key != first + 3:
                settle = partial(client.settle, key, id, some[key % 3], *reports[key % 7 % 3])
                tasks.start_soon(settle)
        tasks.start_soon(client.keep, first + 6, 6000)
    if first + 3 in ids:
        await client.delete(first + 3, ids[first + 3])
    await client.keep(first + 7, 2000, 1)
    if first + 4 in ids:
        await client.settle(first + 4, ids[first + 4], [Settlement(1, None)], 100, 9000)


# What is found


class NoSync(Disk):
    """For disks that nothing happens to."""

    def sync(self, file: int) -> None:
        pass


async def found_in(path: Path, disk: Disk) -> Mails:
    """Open the spool, and return what it has; fail where it is not sound in itself."""
    async with SQLiteSpool.open(path, disk=disk) as spool:
        entries = await spool.claim(1000.0, 1000, 60.0)  # all: no lease has outlived the cut
        found: Mails = {}
        in_files: set[str] = set()
        for entry in entries:
            content = b"".join([chunk async for chunk in spool.content(entry.id)])
            assert content not in found
            assert len(content) == entry.octets
            if entry.octets > incoming.INLINE_OCTETS:
                in_files.add(entry.id)
            found[content] = {
                r.number: (r.rcpt.serialize(), r.attempts, r.next_attempt, r.last_reply)
                for r in entry.recipients
            }
        assert {file.name for file in (path / "content").iterdir()} == in_files
        verdict = await spool.database.read(
            lambda db: [
                db.execute("PRAGMA integrity_check").fetchall(),
                db.execute("SELECT count(*) FROM message").fetchone(),
            ]
        )
        assert verdict == [[("ok",)], (len(entries),)]
    return found


def put(image: Image, path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    for name, content in image.items():
        if content is None:
            (path / name).mkdir()
        else:
            (path / name).write_bytes(content)
    # SQLite's index of its log is no file but memory; whatever of it is left means nothing.
    (path / "spool.db-shm").write_bytes(b"left from before" * 2048)


def relative(image: Image, root: Path) -> Image:
    return {path.relative_to(root): content for path, content in image.items()}


@define
class Enumeration:
    """Goes through a tape, and through all that a cut may leave of it."""

    root: Path
    tape: Tape
    scratch: Path
    promise: Promise = field(factory=Promise)
    before: Image = field(factory=dict[Path, bytes | None])
    seen: set[tuple[int, bytes]] = field(factory=set[tuple[int, bytes]])
    opened: int = 0

    def disks(self, ways: Sequence[Way], moments: Container[int]) -> Iterator[tuple[Image, str]]:
        """Give each disk that may be left at each of some moments, once, and say which it is."""
        platter = Platter(self.root, self.before)
        promised = 0  # counts what the promise has heard
        log: list[str] = []
        for moment, operation in enumerate([None, *self.tape.operations]):
            if isinstance(operation, (Began, Returned)):
                self.promise.hear(operation)
                promised += 1
                log.append(type(operation).__name__)
            elif operation is not None:
                platter.play(operation)
                log.append(str(operation))
            for n, way in enumerate(ways if moment in moments else ()):
                image = relative(platter.cut(way, n), self.root)
                mark = hashlib.sha256(repr(sorted(image.items())).encode()).digest()
                if (promised, mark) not in self.seen:
                    self.seen.add((promised, mark))
                    lines = "\n  ".join(log[-8:])
                    yield image, f"cut at {moment}, {type(way).__name__}:\n  {lines}"

    async def run(
        self, ways: Sequence[Way] = WAYS, *, moments: Container[int] | None = None, again: int = 0
    ) -> None:
        """Look at each disk; and at one in `again`, cut the power during recovery, too."""
        if moments is None:
            moments = range(len(self.tape.operations) + 1)
        with Tape(real=False).runs():
            for image, where in self.disks(ways, moments):
                try:
                    put(image, self.scratch)
                    if again and self.opened % again == again - 1:
                        await self._cut_again(image)
                        put(image, self.scratch)
                    self.promise.hold(await found_in(self.scratch, NoSync()))
                except BaseException as error:
                    error.add_note(where)
                    raise
                self.opened += 1

    async def _cut_again(self, image: Image) -> None:
        with Tape().runs() as tape:
            await found_in(self.scratch, tape)
        before = {self.scratch / path: content for path, content in image.items()}
        second = self.scratch.with_name("again")
        inner = Enumeration(self.scratch, tape, second, self.promise, before)
        await inner.run([Dropped(), Kept(), LastTorn(), Torn()])
        self.opened += inner.opened


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
    monkeypatch.setattr(database, "MIGRATIONS", (*database.MIGRATIONS, step))

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
                await Client(spool, Tape(), itertools.count(1)).keep(key, 9000 if key < 3 else 40)

    anyio.run(fill)
    with closing(sqlite3.connect(path / "spool.db")) as db:
        (last_root,) = db.execute("SELECT max(rootpage) FROM sqlite_master").fetchone()
    with (path / "spool.db").open("r+b") as file:
        file.seek(last_root * 4096)  # the first page that is none's root: rows of a table
        file.write(random.Random(1).randbytes(4096))
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
        case "leases end with their owner":
            monkeypatch.setattr(SQLiteSpool, "_recover", lambda *_: None)
            monkeypatch.setattr(NoSync, "create", NoSync.create)
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


def _lazily_connected(self: Any, *, lasting: bool, create: bool = False) -> sqlite3.Connection:
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
        "leases end with their owner",
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
        shutil.rmtree(path)
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


def test_a_checkpoint_that_fails_unheard_takes_nothing_with_it(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leases are not synced. The first who syncs the log for them has to be one who is heard.

    A reader keeps the log from being copied, or the next checkpoint would make it good.
    """
    monkeypatch.setattr(database, "CHECKPOINT_PAGES", 1000)
    path = disk / "spool"

    async def record() -> Tape:
        with Tape().runs() as tape:
            async with SQLiteSpool.open(path, disk=tape, busy_timeout=0) as spool:
                client = Client(spool, tape, itertools.count(1))
                await client.keep(1, 40)
                with closing(sqlite3.connect(path / "spool.db", isolation_level=None)) as reader:
                    reader.execute("BEGIN")
                    reader.execute("SELECT * FROM message").fetchall()
                    failed: list[Operation] = []

                    def trouble(operation: Operation) -> int:
                        if isinstance(operation, Sync) and not failed:
                            failed.append(operation)
                            return errno.EIO
                        return 0

                    monkeypatch.setattr(database, "CHECKPOINT_PAGES", 1)
                    tape.trouble = trouble
                    assert len(await client.claim()) == 1
                    await client.keep(2, 40)
                    await client.keep(3, 40)
                    assert failed
                await client.keep(4, 40)
                assert client.refused == 1  # and all is well again
        return tape

    enumeration = Enumeration(path, anyio.run(record), disk / "after")
    anyio.run(enumeration.run)


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
