"""The spool: what was said 250 to is there, whole, whatever happens (RFC 5321 §4.2.5, §6.1)."""

import asyncio
import errno
import gc
import random
import sqlite3
import subprocess
import sys
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, suppress
from functools import partial
from math import inf
from pathlib import Path
from typing import Any
from zlib import crc32

import anyio
import anyio.abc
import anyio.lowlevel
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from smtpproto.core.command import Mail, Rcpt
from smtpproto.core.path import Mailbox
from smtpproto.relay.spool import database, schema
from smtpproto.relay.spool.check import Checked, check_spool
from smtpproto.relay.spool.claims import LOOK
from smtpproto.relay.spool.database import is_served
from smtpproto.relay.spool.disk import Disk
from smtpproto.relay.spool.leases import Leases
from smtpproto.relay.spool.seam import (
    CHUNK_OCTETS,
    ID_RANDOM,
    Entry,
    Fresh,
    Recipient,
    Settlement,
    Spool,
    SpoolUnavailable,
    Successor,
    new_id,
    successor,
)
from smtpproto.relay.spool.sqlite import INLINE_OCTETS, SQLiteIncoming, SQLiteSpool
from smtpproto.relay.spool.timekeeping import STEP
from smtpproto.relay.spool.work import Work

pytestmark = pytest.mark.anyio

MAIL = Mail("sender@example.org", {"BODY": "8BITMIME", "SIZE": 12, "ENVID": "x+3Dy"})
ANN = Rcpt("ann@example.net", {"NOTIFY": "NEVER"})
BOB = Rcpt('"b o b"@example.net')
SMALL = b"Subject: small\r\n\r\nbody\r\n"
LARGE = bytes(range(256)) * 600  # 153,600 octets


@asynccontextmanager
async def opened(path: Path, **options: Any) -> AsyncGenerator[SQLiteSpool, None]:
    """A spool with a clock and randomness of its own."""
    dice = random.Random(1)
    options = {"clock": lambda: 1_000_000.0, "random": dice.randrange} | options
    async with SQLiteSpool.open(path, **options) as spool:
        yield spool


class Watch:
    """A steady clock, which goes when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


async def keep(
    spool: Spool,
    content: bytes = SMALL,
    rcpts: Sequence[Rcpt] = (ANN,),
    *,
    now: float = 0.0,
    mail: Mail = MAIL,
) -> str:
    async with spool.receive() as incoming:
        for at in range(0, len(content), 30_000):
            await incoming.write(content[at : at + 30_000])
        await incoming.commit(mail, rcpts, now=now, origin="a test")
    return incoming.id


async def content_of(spool: Spool, id: str) -> bytes:
    return b"".join([chunk async for chunk in spool.content(id)])


async def all_of(spool: Spool) -> list[Entry]:
    return [entry async for entry in spool.entries()]


def files(path: Path) -> set[str]:
    return {file.name for file in (path / "content").iterdir()}


Sql = list[str]


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> Sql:
    """All SQL that is executed from here on."""
    seen: Sql = []
    real = database.connect

    def traced(path: Path, *, create: bool, busy_timeout: float) -> sqlite3.Connection:
        db = real(path, create=create, busy_timeout=busy_timeout)
        db.set_trace_callback(seen.append)
        return db

    monkeypatch.setattr(database, "connect", traced)
    return seen


class Failing(Disk):
    """Fails once at the call of that name, with that error, when armed."""

    def __init__(self, at: str, number: int = errno.EIO) -> None:
        self._at = at
        self._number = number

    def arm(self) -> None:
        def fail(*_: Any) -> None:
            delattr(self, self._at)  # and the class's own is seen again
            raise OSError(self._number, "as told")

        setattr(self, self._at, fail)


class Recording(Disk):
    """Writes down what is done, in order, and the size of each piece."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.sizes: list[int] = []

    def write(self, file: int, octets: bytes | bytearray) -> None:
        self.calls.append("write")
        self.sizes.append(len(octets))
        super().write(file, octets)

    def read(self, path: Path, offset: int, octets: int) -> bytes:
        self.sizes.append(octets)
        return super().read(path, offset, octets)

    def sync(self, file: int) -> None:
        self.calls.append("sync")
        super().sync(file)

    def sync_directory(self, path: Path) -> None:
        super().sync_directory(path)
        self.calls[-1] = f"sync {path.name}"

    def rewrite(self, path: Path) -> None:
        self.calls.append(f"rewrite {path.name}")
        super().rewrite(path)

    def remove(self, path: Path) -> None:
        self.calls.append("remove")
        super().remove(path)


# Durability


@pytest.mark.rfc("5321 §4.5.4.1 queue-has-the-envelope-too")
@pytest.mark.parametrize("content", [b"", SMALL, LARGE], ids=["empty", "small", "large"])
async def test_a_message_outlives_the_process_that_took_it(tmp_path: Path, content: bytes) -> None:
    async with opened(tmp_path) as spool:
        id = await keep(spool, content, (ANN, BOB), now=7.5)
    async with opened(tmp_path) as spool:
        (entry,) = await spool.claim(8.0, 10, 60)
        assert (entry.id, entry.arrived, entry.mail) == (id, 7.5, MAIL)
        assert (entry.octets, entry.origin) == (len(content), "a test")
        assert [(r.number, r.rcpt) for r in entry.recipients] == [(0, ANN), (1, BOB)]
        assert [(r.attempts, r.next_attempt, r.last_reply) for r in entry.recipients] == [
            (0, 7.5, None)
        ] * 2
        assert await content_of(spool, id) == content
    async with opened(tmp_path) as spool:
        await spool.settle(id, [Settlement(0, None), Settlement(1, 99.0, "450 later")], now=9.0)
    async with opened(tmp_path) as spool:
        entry_now = await spool.get(id)
        assert entry_now is not None
        (bob,) = entry_now.recipients
        assert (bob.number, bob.attempts, bob.next_attempt, bob.last_reply) == (
            1,
            1,
            99.0,
            "450 later",
        )
        assert await content_of(spool, id) == content
        await spool.settle(id, [Settlement(1, None)], now=100.0)
        assert files(tmp_path) == set()
    async with opened(tmp_path) as spool:
        assert await spool.get(id) is None
        assert await spool.next_due() is None


CHILD = """
import sys, anyio
from pathlib import Path
from smtpproto.core.command import Mail, Rcpt
from smtpproto.relay.spool.sqlite import SQLiteSpool

def content(id):
    return (id.encode() + b"\\r\\n") * (40 if int(id[-1], 36) % 2 else 6000)

async def session(spool):
    while True:
        async with spool.receive() as incoming:
            whole = content(incoming.id)
            for at in range(0, len(whole), 20000):
                await incoming.write(whole[at:at + 20000])
            await incoming.commit(Mail("a@b"), [Rcpt("c@d"), Rcpt("e@f")], now=0)
            print(incoming.id, flush=True)
        for entry in await spool.claim(1, 1, 60):
            if int(entry.id[-2], 36) % 3 == 0:
                await spool.release([entry])

async def main():
    async with SQLiteSpool.open(Path(sys.argv[1])) as spool:
        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                tasks.start_soon(session, spool)

anyio.run(main, backend=sys.argv[2])
"""


@pytest.mark.rfc("5321 §6.1 nothing-is-lost-by-a-crash")
async def test_whatever_was_committed_is_there_whole_after_kill_9(
    tmp_path: Path, anyio_backend_name: str
) -> None:
    dice = random.Random(anyio_backend_name)
    accepted: set[str] = set()
    for _ in range(5):
        async with await anyio.open_process(
            [sys.executable, "-c", CHILD, str(tmp_path), anyio_backend_name], stderr=None
        ) as child:
            assert child.stdout is not None
            enough = dice.randrange(1, 60)
            text = b""
            async for chunk in child.stdout:
                text += chunk
                if text.count(b"\n") >= enough:
                    child.kill()
        lines = text.decode().split("\n")[:-1]  # the last may be cut
        assert len(lines) >= enough
        accepted.update(lines)
        async with SQLiteSpool.open(tmp_path) as spool:
            entries = await all_of(spool)
            assert accepted <= {entry.id for entry in entries}
            for entry in entries:
                whole = (entry.id.encode() + b"\r\n") * (40 if int(entry.id[-1], 36) % 2 else 6000)
                assert len(entry.recipients) == 2
                assert entry.octets == len(whole)
                assert await content_of(spool, entry.id) == whole
            large = {entry.id for entry in entries if entry.octets > INLINE_OCTETS}
            assert files(tmp_path) == large
            # Nothing is lent: the one who had claimed it is dead.
            claimed = await spool.claim(1, 10_000, 60)
            assert {entry.id for entry in claimed} == {entry.id for entry in entries}


async def test_files_are_synced_before_their_row_and_removed_after_it(
    tmp_path: Path, statements: Sql
) -> None:
    disk = Recording()
    async with opened(tmp_path, disk=disk) as spool:
        disk.calls = statements  # one list, so one order
        statements.clear()
        id = await keep(spool, LARGE)
        assert _order(statements) == ["write"] * 2 + ["sync", "sync content", "BEGIN", "COMMIT"]
        statements.clear()
        await spool.settle(id, [Settlement(0, None)], now=1)
        assert _order(statements) == ["BEGIN", "COMMIT", "remove"]


def _order(calls: Sequence[str]) -> list[str]:
    words = [call.split(" IMM")[0] for call in calls]
    known = ("write", "sync", "sync content", "BEGIN", "COMMIT", "remove")
    return [word for word in words if word in known]


async def test_every_commit_is_synced_and_a_claim_is_none(tmp_path: Path, statements: Sql) -> None:
    async with opened(tmp_path) as spool:
        for _ in range(3):
            await keep(spool)
        statements.clear()
        (entry, _) = await spool.claim(1, 2, 60)
        await spool.release([entry])
        assert await spool.claim(1, 1, 60) == [entry]
        changing = ("INSERT", "UPDATE", "DELETE", "BEGIN IMMEDIATE", "PRAGMA synchronous")
        assert not [sql for sql in statements if sql.startswith(changing)]

        def level(db: sqlite3.Connection) -> int:
            (number,) = db.execute("PRAGMA synchronous").fetchone()
            return int(number)

        assert await spool.database.perform(Work(level)) == 2  # FULL


async def test_a_message_that_is_kept_is_no_garbage_for_anybody_to_find(tmp_path: Path) -> None:
    """It would stay, with its content, until somebody looked."""
    async with opened(tmp_path) as spool:
        gc.disable()
        try:
            async with spool.receive() as incoming:
                await incoming.write(SMALL)
                await incoming.commit(MAIL, (ANN,), now=0.0)
            gone = weakref.ref(incoming)
            del incoming
            assert gone() is None
        finally:
            gc.enable()


async def test_leaving_without_commit_discards(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        for content in (SMALL, LARGE):
            async with spool.receive() as incoming:
                await incoming.write(content)

        async def fail() -> None:
            async with spool.receive() as incoming:
                await incoming.write(LARGE)
                assert len(files(tmp_path)) == 1
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):  # as it was raised, in no group
            await fail()
        assert files(tmp_path) == set()
        assert await all_of(spool) == []


async def test_an_error_of_the_callers_passes_through_open_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        async with opened(tmp_path):
            raise ZeroDivisionError


async def test_what_a_crash_left_is_removed_at_the_start_and_nothing_else(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        id = await keep(spool, LARGE)
    orphan = new_id(5, 5)
    (tmp_path / "content" / orphan).write_bytes(b"half a mess")
    (tmp_path / "content" / "lost+found").mkdir()
    async with opened(tmp_path, serving=False):
        assert orphan in files(tmp_path)  # not a visitor's business
    async with opened(tmp_path) as spool:
        assert files(tmp_path) == {id, "lost+found"}
        assert await content_of(spool, id) == LARGE


# Group commit


async def commit_together(spool: Spool, count: int, content: bytes = SMALL) -> list[str | None]:
    """Commit at once; the id of each, or None for what was refused."""
    ids: list[str | None] = []

    async def session() -> None:
        try:
            ids.append(await keep(spool, content))
        except SpoolUnavailable:
            ids.append(None)

    async with anyio.create_task_group() as tasks:
        for _ in range(count):
            tasks.start_soon(session)
    return ids


async def test_messages_that_come_together_share_a_transaction(
    tmp_path: Path, statements: Sql
) -> None:
    async with opened(tmp_path) as spool:
        statements.clear()
        ids = await commit_together(spool, 50)
        assert statements.count("COMMIT") <= 5
        assert len(set(ids)) == 50
        assert sorted(ids, key=str) == [entry.id for entry in await all_of(spool)]


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
async def test_one_that_fails_does_not_fail_the_others(tmp_path: Path, content: bytes) -> None:
    numbers = iter([1, 2, 2, 3])
    async with opened(tmp_path, random=lambda _: next(numbers)) as spool:
        ids = await commit_together(spool, 4, content)
        assert ids.count(None) == 1
        entries = await all_of(spool)
        assert {entry.id for entry in entries} == set(ids) - {None}
        for entry in entries:  # and the file of the one that has the id is still there
            assert await content_of(spool, entry.id) == content


async def test_a_bug_in_one_piece_of_work_is_raised_to_its_owner_alone(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        other: list[str] = []

        async def session() -> None:
            other.append(await keep(spool))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(session)
            with pytest.raises(ZeroDivisionError):
                await spool.database.perform(Work(lambda _: 1 // 0))
        assert [entry.id for entry in await all_of(spool)] == other


async def test_questions_that_come_together_share_a_thread_and_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []
    read = database.Database._read

    def counted(self: database.Database, batch: list[Any]) -> None:
        batches.append(len(batch))
        read(self, batch)

    monkeypatch.setattr(database.Database, "_read", counted)
    answers: list[object] = []

    async def ask(id: str) -> None:
        answers.append(await spool.get(id))

    async def ask_badly(query: str, error: type[Exception]) -> None:
        with pytest.raises(error):
            await spool.database.read(lambda db: db.execute(query).fetchone()[0])
        answers.append(error)

    async with opened(tmp_path) as spool:
        ids = [await keep(spool) for _ in range(20)]
        async with anyio.create_task_group() as tasks:
            for id in ids:
                tasks.start_soon(ask, id)
            tasks.start_soon(ask_badly, "SELECT x FROM nowhere", SpoolUnavailable)
            tasks.start_soon(ask_badly, "SELECT 1 WHERE 0", TypeError)
        assert sum(batches) == len(answers) == 22
        assert len(batches) <= 4
        assert {entry.id for entry in answers if isinstance(entry, Entry)} == set(ids)


async def test_who_is_cancelled_while_he_asks_does_not_wait(tmp_path: Path) -> None:
    gate = threading.Event()
    async with opened(tmp_path) as spool:
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(spool.database.read, lambda _: gate.wait())
                await anyio.wait_all_tasks_blocked()
                tasks.cancel_scope.cancel()
        finally:
            gate.set()
        assert await spool.get("nobody") is None


# Leases


async def test_what_is_claimed_is_not_claimed_again_until_the_lease_ends(tmp_path: Path) -> None:
    watch = Watch()
    async with opened(tmp_path, steady=watch, clock=lambda: 10.0) as spool:
        id = await keep(spool, rcpts=(ANN, BOB), now=10)
        assert await spool.claim(9.9, 5, 60) == []
        assert await spool.next_due() == 10
        (entry,) = await spool.claim(10, 5, 60)
        assert await spool.next_due() == 70
        watch.now = 59.9
        assert await spool.claim(10, 5, 60) == []
        watch.now = 60
        assert await spool.next_due() == 10
        (again,) = await spool.claim(10, 5, 60)
        assert again == entry
        assert await spool.next_due() == 70
        await spool.release([entry])
        assert await spool.next_due() == 10
        (again,) = await spool.claim(11, 5, 60)
        assert again == entry
        assert again.id == id


async def test_setting_the_clock_lends_nothing_twice(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await keep(spool, now=10)
        assert len(await spool.claim(10, 5, 60)) == 1
        assert await spool.claim(10 + 86400, 5, 60) == []
        await keep(spool, now=0)  # it was set back
        assert len(await spool.claim(0, 5, 60)) == 1


async def test_a_lease_that_has_ended_is_settled_by_whom_it_was_lent_to(tmp_path: Path) -> None:
    watch = Watch()
    async with opened(tmp_path, steady=watch) as spool:
        id = await keep(spool, rcpts=(ANN, BOB))
        await spool.claim(1, 5, 60)
        watch.now = 60
        await spool.settle(id, [Settlement(0, 100.0)], now=61)
        (entry,) = await spool.claim(62, 5, 60)
        assert [r.number for r in entry.recipients] == [1]
        (entry,) = await spool.claim(100, 5, 60)
        assert [r.number for r in entry.recipients] == [0]


async def test_a_settle_that_fails_leaves_it_lent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker will come again: it is not for another to send it, too."""
    async with opened(tmp_path) as spool:
        id = await keep(spool)
        await spool.claim(1, 5, 60)

        def fail(*_: object) -> None:
            raise sqlite3.OperationalError("as told")

        with monkeypatch.context() as while_it_lasts:
            while_it_lasts.setattr(SQLiteSpool, "_drop_if_done", fail)
            with pytest.raises(SpoolUnavailable, match="as told"):
                await spool.settle(id, [Settlement(0, None)], now=1)
        assert await spool.claim(2, 5, 60) == []
        await spool.settle(id, [Settlement(0, 1.5)], now=2)
        assert [entry.id for entry in await spool.claim(2, 5, 60)] == [id]


async def test_claims_do_not_walk_past_what_is_lent_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = 0
    is_lent = Leases.is_lent

    def counted(self: Leases, id: str, number: int, now: float) -> bool:
        nonlocal looked
        looked += 1
        return is_lent(self, id, number, now)

    async with opened(tmp_path) as spool:
        for n in range(20):
            await keep(spool, rcpts=(ANN, BOB) * 10, now=n)
        monkeypatch.setattr(Leases, "is_lent", counted)
        claimed: list[str] = []
        for _ in range(20):
            (entry,) = await spool.claim(50, 1, 60)
            assert len(entry.recipients) == 20
            claimed.append(entry.id)
            await keep(spool, now=100)
        # Each recipient in the order, with its message, and perhaps the one behind it.
        assert looked <= 20 * (20 + 20 + 21)
        assert len(set(claimed)) == 20
        assert len(await spool.claim(100, 30, 60)) == 20


async def test_a_claim_takes_the_longest_due_first_and_only_due_recipients(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        late = await keep(spool, now=30)
        both = await keep(spool, rcpts=(ANN, BOB), now=10)
        await spool.claim(10, 1, 60)
        await spool.settle(both, [Settlement(0, 500.0), Settlement(1, 40.0)], now=11)
        early = await keep(spool, now=20)
        first = await spool.claim(100, 2, 1000)
        assert [entry.id for entry in first] == [early, late]
        rest = await spool.claim(100, 2, 1000)
        assert [(e.id, [r.number for r in e.recipients]) for e in rest] == [(both, [1])]
        # Recipients of one message are lent apart, and settled apart.
        (ann,) = await spool.claim(500, 1, 1000)
        assert (ann.id, [r.number for r in ann.recipients]) == (both, [0])
        await spool.settle(both, [Settlement(1, None)], now=501)
        assert await spool.claim(502, 9, 1000) == []  # ann is still lent
        await spool.settle(early, [Settlement(0, None)], now=501)
        await spool.settle(late, [Settlement(0, 900.0)], now=501)
        assert await spool.next_due() == 900


async def test_claims_at_the_same_time_never_share_a_message(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        ids = [await keep(spool) for _ in range(10)]
        claimed: list[str] = []

        async def worker() -> None:
            claimed.extend(entry.id for entry in await spool.claim(1, 3, 60))

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(worker)
        assert sorted(claimed) == sorted(ids)


async def test_a_damaged_message_does_not_hold_up_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(tmp_path) as spool:
        damaged, good = await keep(spool), await keep(spool)
        await spool.database.perform(
            Work(lambda db: db.execute("UPDATE message SET mail = 'x' WHERE id = ?", (damaged,)))
        )
        await spool.database.perform(
            Work(lambda db: db.execute("UPDATE message SET mail = CAST(mail AS BLOB)"))
        )
        assert [entry.id for entry in await spool.claim(1, 2, 60)] == [good]
        assert damaged in caplog.text
        assert await spool.claim(1, 2, 60) == []  # no busy loop over it
        assert [entry.id for entry in await all_of(spool)] == [good]
        assert await spool.delete(damaged)


# Settling


REPORT = Fresh(Mail(None), (Rcpt("sender@example.org"),), b"it failed\r\n", "a report")
LONG_REPORT = Fresh(Mail(None), (Rcpt("sender@example.org"),), LARGE, "a report")


@pytest.mark.parametrize("report", [REPORT, LONG_REPORT], ids=["small", "large"])
async def test_recipients_and_reports_are_settled_in_one_transaction(
    tmp_path: Path, statements: Sql, report: Fresh
) -> None:
    async with opened(tmp_path) as spool:
        id = await keep(spool, LARGE, (ANN, BOB))
        await spool.claim(1, 1, 60)
        statements.clear()
        fresh = await spool.settle(
            id, [Settlement(0, None, "550 no"), Settlement(1, None)], [report, report], now=5
        )
        assert statements.count("COMMIT") == 1
        assert len(fresh) == 2
        assert await spool.get(id) is None
        for new in fresh:
            entry = await spool.get(new)
            assert entry is not None
            assert (entry.arrived, entry.mail, entry.origin) == (5, report.mail, "a report")
            assert [r.rcpt for r in entry.recipients] == list(report.rcpts)
            assert await content_of(spool, new) == report.content
        assert len(files(tmp_path)) == (2 if report is LONG_REPORT else 0)
        with pytest.raises(SpoolUnavailable):
            await content_of(spool, id)


@pytest.mark.parametrize("report", [REPORT, LONG_REPORT], ids=["small", "large"])
async def test_a_settle_that_fails_settles_nothing(tmp_path: Path, report: Fresh) -> None:
    numbers = iter([1, 2, 1])  # the second report's id is taken
    async with opened(tmp_path, random=lambda _: next(numbers)) as spool:
        id = await keep(spool, rcpts=(ANN, BOB))
        before = await all_of(spool)
        with pytest.raises(SpoolUnavailable):
            await spool.settle(id, [Settlement(0, None)], [report, report], now=5)
        assert await all_of(spool) == before
        assert files(tmp_path) == set()


@pytest.mark.parametrize("report", [REPORT, LONG_REPORT], ids=["small", "large"])
async def test_settling_what_is_gone_does_nothing(tmp_path: Path, report: Fresh) -> None:
    async with opened(tmp_path) as spool:
        id = await keep(spool, rcpts=(ANN, BOB))
        await spool.settle(id, [Settlement(0, None)], now=1)
        before = await all_of(spool)
        assert await spool.settle(id, [Settlement(0, None)], [report], now=2) == []
        assert await spool.settle("nobody", [Settlement(0, 5.0)], [report], now=2) == []
        assert await spool.settle("nobody", [], [report], now=2) == []
        assert await all_of(spool) == before
        assert files(tmp_path) == set()
        assert len(await spool.settle(id, [], [report], now=2)) == 1  # a delay notice


# Constant memory


async def test_large_content_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    disk = Recording()
    chunk = bytes(50_000)
    async with opened(tmp_path, disk=disk) as spool:
        async with spool.receive() as incoming:
            for _ in range(200):  # 10 MB
                await incoming.write(chunk)
                assert incoming.buffered <= INLINE_OCTETS
            await incoming.commit(MAIL, [ANN], now=0)
        assert sum(disk.sizes) == 10_000_000
        assert max(disk.sizes) <= INLINE_OCTETS + len(chunk)
        disk.sizes.clear()
        octets = 0
        async for piece in spool.content(incoming.id):
            assert len(piece) <= CHUNK_OCTETS
            octets += len(piece)
        assert octets == 10_000_000
        assert max(disk.sizes) <= CHUNK_OCTETS


async def test_a_part_of_the_content_is_never_passed_for_the_whole(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        id = await keep(spool, LARGE)
        (tmp_path / "content" / id).write_bytes(LARGE[:70_000])
        with pytest.raises(SpoolUnavailable, match="153600 octets expected, 70000 there"):
            await content_of(spool, id)


async def test_content_may_be_left_half_read(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        id = await keep(spool, LARGE)
        async for _ in spool.content(id):
            break
        await spool.delete(id)
        assert files(tmp_path) == set()


# Disks that fail


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("at", ["create", "write", "sync", "sync_directory", "close"])
async def test_a_disk_that_fails_costs_one_message_its_250_and_no_other(
    tmp_path: Path, at: str, number: int
) -> None:
    disk = Failing(at, number)
    async with opened(tmp_path, disk=disk) as spool:
        first = await keep(spool, LARGE)
        disk.arm()
        with pytest.raises(SpoolUnavailable) as caught:
            await keep(spool, LARGE)
        assert caught.value.full == (number == errno.ENOSPC)
        assert "as told" in str(caught.value)
        assert files(tmp_path) == {first}
        last = await keep(spool, LARGE)
        assert {entry.id for entry in await all_of(spool)} == {first, last}
        assert await content_of(spool, first) == await content_of(spool, last) == LARGE


@pytest.mark.parametrize("at", ["write", "sync"])
async def test_a_message_with_a_hole_can_not_be_committed(tmp_path: Path, at: str) -> None:
    """A second fsync may succeed without the data, so it is not even asked for."""
    disk = Failing(at)
    async with opened(tmp_path, disk=disk) as spool:
        disk.arm()
        async with spool.receive() as incoming:
            with suppress(SpoolUnavailable):
                await incoming.write(LARGE)
                await incoming.commit(MAIL, [ANN], now=0)
                pytest.fail("it did not fail")
            with pytest.raises(SpoolUnavailable, match="earlier"):
                await incoming.commit(MAIL, [ANN], now=0)
        assert await all_of(spool) == []
        assert files(tmp_path) == set()


async def test_a_file_that_can_not_be_removed_is_left_to_the_next_start(tmp_path: Path) -> None:
    disk = Failing("remove")
    async with opened(tmp_path, disk=disk) as spool:
        id = await keep(spool, LARGE)
        disk.arm()
        await spool.settle(id, [Settlement(0, None)], now=1)  # it is settled all the same
        assert await spool.get(id) is None
        assert files(tmp_path) == {id}
    async with opened(tmp_path):
        assert files(tmp_path) == set()


async def test_a_full_disk_is_told_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = database.connect

    def small(path: Path, *, create: bool, busy_timeout: float) -> sqlite3.Connection:
        db = real(path, create=create, busy_timeout=busy_timeout)
        db.execute("PRAGMA max_page_count = 40")
        return db

    monkeypatch.setattr(database, "connect", small)
    content = bytes(40_000)
    kept: list[str] = []
    async with opened(tmp_path) as spool:

        async def fill() -> None:
            while len(kept) < 40:
                kept.append(await keep(spool, content))

        with pytest.raises(SpoolUnavailable) as caught:
            await fill()
        assert caught.value.full
        assert kept
        ids = await commit_together(spool, 5, content)
        assert ids == [None] * 5
        assert [entry.id for entry in await all_of(spool)] == sorted(kept)
        for id in kept:
            assert await content_of(spool, id) == content
        # The way out of a full spool is open: what is delivered makes room.
        await spool.claim(1, 1, 60)
        await spool.settle(kept[0], [Settlement(0, None)], now=1)
        kept[0] = await keep(spool, content)
    async with opened(tmp_path) as spool:
        assert [entry.id for entry in await all_of(spool)] == sorted(kept)


class InDoubt:
    """A connection whose next COMMIT is done, and then said to have failed."""

    armed = False
    code = sqlite3.SQLITE_IOERR_FSYNC

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db

    def __getattr__(self, name: str) -> Any:
        return getattr(self.db, name)

    def execute(self, sql: str, *arguments: Any) -> Any:
        result = self.db.execute(sql, *arguments)
        if sql == "COMMIT" and InDoubt.armed:
            InDoubt.armed = False
            error = sqlite3.OperationalError("as told")
            error.sqlite_errorcode = InDoubt.code
            raise error
        return result


async def test_a_commit_in_doubt_keeps_its_file_and_its_log_is_written_once_more(
    tmp_path: Path, statements: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced: Callable[..., Any] = database.connect
    monkeypatch.setattr(
        database, "connect", lambda path, **options: InDoubt(traced(path, **options))
    )
    disk = Recording()
    async with opened(tmp_path, disk=disk) as spool:
        disk.calls = statements
        InDoubt.armed = True
        with pytest.raises(SpoolUnavailable) as caught:
            await keep(spool, LARGE)
        assert not caught.value.full
        (entry,) = await all_of(spool)  # here it was kept; 250 was not said
        assert await content_of(spool, entry.id) == LARGE
        statements.clear()
        await keep(spool)
        begun = [n for n, call in enumerate(statements) if call == "BEGIN IMMEDIATE"]
        assert begun[0] < statements.index("rewrite spool.db-wal") < begun[1]
        statements.clear()
        await keep(spool)
        assert "rewrite spool.db-wal" not in statements


async def test_a_commit_that_found_the_disk_full_is_in_doubt_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What got into the log may be whole by chance. Then the row has to have its file."""
    real: Callable[..., Any] = database.connect
    monkeypatch.setattr(database, "connect", lambda path, **options: InDoubt(real(path, **options)))
    monkeypatch.setattr(InDoubt, "code", sqlite3.SQLITE_FULL)
    async with opened(tmp_path) as spool:
        InDoubt.armed = True
        with pytest.raises(SpoolUnavailable) as caught:
            await keep(spool, LARGE)
        assert caught.value.full
    async with opened(tmp_path) as spool:
        (entry,) = await all_of(spool)
        assert await content_of(spool, entry.id) == LARGE


async def test_a_database_that_is_none_is_told_to_the_operator(tmp_path: Path) -> None:
    (tmp_path / "spool.db").write_bytes(b"this is no database" * 1000)
    with pytest.raises(SpoolUnavailable, match="not a database"):
        async with opened(tmp_path):
            pass


async def test_another_ones_lock_is_waited_for_and_then_told(tmp_path: Path) -> None:
    async with opened(tmp_path, busy_timeout=0.01) as spool:
        id = await keep(spool)
        other = sqlite3.connect(tmp_path / "spool.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        assert await commit_together(spool, 3) == [None] * 3
        assert [entry.id for entry in await all_of(spool)] == [id]  # reading goes on
        other.execute("ROLLBACK")
        other.close()
        await keep(spool)


# Cancellation


class Gated(Disk):
    """Waits in `sync` for the gate, once it is shut."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.waiting = threading.Event()

    def sync(self, file: int) -> None:
        self.waiting.set()
        self.gate.wait()
        super().sync(file)


@asynccontextmanager
async def writer_busy(spool: SQLiteSpool) -> AsyncGenerator[threading.Event, None]:
    """Keep the writer in a transaction until the event is set."""
    gate, began = threading.Event(), threading.Event()

    def run(_: sqlite3.Connection) -> None:
        began.set()
        gate.wait()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(spool.database.perform, Work(run))
        await anyio.to_thread.run_sync(began.wait)
        try:
            yield gate
        finally:
            gate.set()


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
async def test_a_commit_that_is_cancelled_before_it_begins_keeps_nothing(
    tmp_path: Path, content: bytes
) -> None:
    async with opened(tmp_path) as spool:
        with anyio.CancelScope() as scope:
            async with spool.receive() as incoming:
                await incoming.write(content)
                scope.cancel()
                await incoming.commit(MAIL, [ANN], now=0)
        assert scope.cancelled_caught
        assert await all_of(spool) == []
        assert files(tmp_path) == set()


async def test_a_commit_that_is_cancelled_while_it_waits_is_kept_whole(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        returned = False

        async def session(scope: anyio.CancelScope) -> None:
            nonlocal returned
            with scope:
                async with spool.receive() as incoming:
                    await incoming.write(SMALL)
                    await incoming.commit(MAIL, [ANN], now=0)
                    returned = True

        scope = anyio.CancelScope()
        async with writer_busy(spool) as gate, anyio.create_task_group() as tasks:
            tasks.start_soon(session, scope)
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
            await anyio.wait_all_tasks_blocked()
            assert not returned
            gate.set()
        assert returned  # so whoever asked knows that it is kept
        (entry,) = await all_of(spool)
        assert await content_of(spool, entry.id) == SMALL


async def test_a_commit_that_is_cancelled_while_its_file_is_synced_is_kept_whole(
    tmp_path: Path,
) -> None:
    disk = Gated()
    async with opened(tmp_path, disk=disk) as spool:
        disk.waiting.clear()
        disk.gate.clear()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(partial(keep, spool, LARGE))
                await anyio.to_thread.run_sync(disk.waiting.wait)
                tasks.cancel_scope.cancel()
                disk.gate.set()
        finally:
            disk.gate.set()
        (entry,) = await all_of(spool)
        assert await content_of(spool, entry.id) == LARGE
        assert files(tmp_path) == {entry.id}


async def test_a_claim_that_is_cancelled_says_what_it_has_lent(tmp_path: Path) -> None:
    """Else nobody would know, and the message would wait for its lease to end."""
    async with opened(tmp_path) as spool:
        id = await keep(spool)
        lent: list[Entry] = []

        async def worker() -> None:
            lent.extend(await spool.claim(1, 1, 60))

        async with writer_busy(spool) as gate, anyio.create_task_group() as tasks:
            tasks.start_soon(worker)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
            gate.set()
        assert [entry.id for entry in lent] == [id]
        await spool.release(lent)
        assert await spool.claim(1, 1, 60) == lent


@pytest.mark.rfc("1047")
async def test_what_was_delivered_is_written_down_though_we_are_cancelled(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        id = await keep(spool)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await spool.settle(id, [Settlement(0, None)], [REPORT], now=1)
        assert [entry.origin for entry in await all_of(spool)] == ["a report"]


async def test_work_under_way_is_finished_when_all_around_is_cancelled(tmp_path: Path) -> None:
    with anyio.CancelScope() as scope:
        async with (
            opened(tmp_path) as spool,
            writer_busy(spool) as gate,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(keep, spool)
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
            gate.set()
    async with opened(tmp_path) as spool:
        assert len(await all_of(spool)) == 1


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("begun", [False, True], ids=["queued", "begun"])
def test_a_commit_torn_off_by_asyncio_is_kept_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, begun: bool
) -> None:
    """`Task.cancel()` knows no shields: then a message may be kept without a 250."""
    gate, inserting = threading.Event(), threading.Event()
    real = SQLiteIncoming.insert

    def insert(*arguments: Any) -> None:
        inserting.set()
        gate.wait()
        real(*arguments)

    monkeypatch.setattr(SQLiteIncoming, "insert", insert)

    async def tear(spool: SQLiteSpool) -> None:
        torn = asyncio.create_task(keep(spool, content))
        if begun:
            await anyio.to_thread.run_sync(inserting.wait)
        else:
            await anyio.wait_all_tasks_blocked()
        torn.cancel()
        with pytest.raises(asyncio.CancelledError):
            await torn
        gate.set()

    async def main() -> list[Entry]:
        async with opened(tmp_path) as spool:
            try:
                if begun:
                    await tear(spool)
                else:
                    async with writer_busy(spool):
                        await tear(spool)
            finally:
                gate.set()
        async with opened(tmp_path) as spool:
            for entry in await all_of(spool):
                assert await content_of(spool, entry.id) == content
            return await all_of(spool)

    entries = asyncio.run(main())
    assert len(entries) == begun
    assert len(files(tmp_path)) == (begun and content == LARGE)


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
def test_a_commit_torn_off_behind_a_claim_has_its_file(tmp_path: Path, content: bytes) -> None:
    """It is taken, and its turn is to come: so it runs on, and nobody may remove what it needs."""
    gate, looking = threading.Event(), threading.Event()

    def look(_: sqlite3.Connection) -> None:
        looking.set()
        gate.wait()

    async def main() -> None:
        async with opened(tmp_path) as spool:
            try:
                async with anyio.create_task_group() as tasks, writer_busy(spool) as busy:
                    tasks.start_soon(spool.database.perform, Work(look, looks=True))
                    torn = asyncio.create_task(keep(spool, content))
                    with anyio.fail_after(60):
                        while not (spool.database._looks.works and spool.database._changes.works):
                            await anyio.lowlevel.checkpoint()
                    busy.set()
                    await anyio.to_thread.run_sync(looking.wait)
                    torn.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await torn
                    gate.set()
            finally:
                gate.set()
        async with opened(tmp_path) as spool:
            (entry,) = await all_of(spool)
            assert await content_of(spool, entry.id) == content

    asyncio.run(main())


async def test_an_alias_is_replaced_in_one_step_by_whom_it_stands_for(tmp_path: Path) -> None:
    everybody, eve = Mailbox.parse("all@example.org"), Rcpt("eve@example.org", {"NOTIFY": "NEVER"})
    owned = Mail("owner@example.org", {"RET": "HDRS"})
    step = Settlement(
        0, None, "250 expanded", becomes=(Successor(ANN), Successor(eve, owned)), alias=everybody
    )
    async with opened(tmp_path) as spool:
        id = await keep(spool, LARGE, (Rcpt("all@example.org"), BOB))
        await spool.claim(0, 9, 60)
        await spool.settle(id, [step, Settlement(1, 900.0, "450 later")], now=5)
        await spool.settle(id, [step], now=6)  # too late: the alias is gone
        (entry,) = await spool.claim(7, 9, 60)
        assert [(r.number, r.rcpt, r.alias, r.mail) for r in entry.recipients] == [
            (successor(0, 0), ANN, everybody, None),
            (successor(0, 1), eve, everybody, owned),
        ]
        assert all(r.attempts == 0 and r.next_attempt == 5 for r in entry.recipients)
        done = [Settlement(r.number, None) for r in entry.recipients]
        await spool.settle(id, done, now=8)
        (left,) = await all_of(spool)
        assert [r.rcpt for r in left.recipients] == [BOB]
    async with opened(tmp_path) as spool:
        assert await spool.settle(id, [evolve(step, recipient=1)], now=9) == []
        entry = next(iter(await all_of(spool)))
        # No number means two recipients, ever: what was done for one would be taken as done.
        assert [r.number for r in entry.recipients] == [successor(1, 0), successor(1, 1)]
        assert await content_of(spool, id) == LARGE


def test_numbers_of_successors_are_of_nobody_else() -> None:
    first = {successor(number, n) for number in range(100) for n in range(100)}
    second = {successor(number, n) for number in first for n in range(3)}
    assert len(first) == 100 * 100
    assert len(second) == 3 * len(first)
    assert min(first) >= 1 << 20  # more than anybody names in a transaction
    assert not first & second
    assert max(second) < 1 << 63


async def test_whom_an_alias_stands_for_is_found_before_what_was_looked_at(tmp_path: Path) -> None:
    step = Settlement(0, None, becomes=(Successor(ANN),), alias=Mailbox.parse("all@example.org"))
    async with opened(tmp_path) as spool:
        id = await keep(spool, now=1)
        await keep(spool, now=6)
        assert len(await spool.claim(6, 9, 60)) == 2
        await spool.settle(id, [step], now=5)  # the clock has been set
        assert [entry.id for entry in await spool.claim(6, 9, 60)] == [id]


async def test_who_takes_the_place_of_an_alias_that_was_held_meanwhile_is_held(
    tmp_path: Path,
) -> None:
    step = Settlement(0, None, becomes=(Successor(ANN),), alias=Mailbox.parse("all@example.org"))
    async with opened(tmp_path) as spool:
        id = await keep(spool)
        await spool.claim(1, 9, 60)
        await spool.hold(id, "a virus?")
        await spool.settle(id, [step], now=5)
        assert await spool.claim(6, 9, 60) == []
        (entry,) = await all_of(spool)
        assert [(r.held, r.last_reply) for r in entry.recipients] == [(True, "a virus?")]


# For the operator


async def test_the_queue_can_be_read_retried_and_deleted(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        ids = [await keep(spool, LARGE, (ANN, BOB)) for _ in range(3)]
        for id in ids:
            await spool.settle(id, [Settlement(0, 100.0, "451 no"), Settlement(1, 200.0)], now=0)
        assert await spool.retry("nobody", 5) == 0
        assert await spool.retry(ids[0], 5) == 2
        assert await spool.retry(ids[0], 5) == 0
        assert [entry.id for entry in await spool.claim(5, 9, 60)] == [ids[0]]
        assert await spool.retry(None, 6) == 4  # the others had been asked for
        assert [entry.id for entry in await spool.claim(6, 9, 60)] == sorted(ids[1:])
        assert await spool.delete(ids[1])
        assert not await spool.delete(ids[1])
        assert await spool.get(ids[1]) is None
        assert files(tmp_path) == {ids[0], ids[2]}


@pytest.mark.parametrize("visiting", [False, True])
async def test_who_is_asked_for_while_he_is_tried_is_tried_once_more(
    tmp_path: Path, visiting: bool
) -> None:
    """What the operator has mended may have come too late for the attempt under way."""
    async with opened(tmp_path) as spool, opened(tmp_path, serving=False) as visitor:
        id = await keep(spool, rcpts=(ANN, BOB), now=1)
        other = await keep(spool, now=2)
        await spool.claim(3, 9, 60)
        assert await (visitor if visiting else spool).retry(id, 5) == 2
        assert await spool.claim(6, 9, 60) == []  # and not by two at a time
        await spool.settle(id, [Settlement(0, None), Settlement(1, 900.0, "450 later")], now=7)
        await spool.settle(other, [Settlement(0, 800.0)], now=7)
        (entry,) = await spool.claim(8, 9, 60)
        (bob,) = entry.recipients
        assert (bob.number, bob.attempts, bob.asked, bob.last_reply) == (1, 1, 5, "450 later")
        await spool.settle(id, [Settlement(1, 900.0)], now=9)  # that was it
        assert await spool.claim(10, 9, 60) == []
        assert await spool.next_due() == 800


@pytest.mark.parametrize("visiting", [False, True])
async def test_what_is_held_stays_until_it_is_let_go_by_name(
    tmp_path: Path, visiting: bool
) -> None:
    async with opened(tmp_path) as spool, opened(tmp_path, serving=False) as visitor:
        operator = visitor if visiting else spool
        async with spool.receive() as incoming:
            await incoming.write(SMALL)
            rcpts = [Rcpt("ann@our.dom"), Rcpt("bob@our.dom")]
            await incoming.commit(Mail(None), rcpts, now=1, held="a virus")
        other = await keep(spool, rcpts=(ANN, BOB), now=2)
        assert [entry.id for entry in await spool.claim(1e12, 9, 60)] == [other]
        assert await operator.hold(other, "wait for Bob") == 2
        await spool.settle(other, [Settlement(0, 3.0, "450 later")], now=3)
        entries = await all_of(spool)
        assert [[r.last_reply for r in entry.recipients] for entry in entries] == [
            ["a virus", "a virus"],
            ["wait for Bob", "wait for Bob"],
        ]
        assert all(r.held for entry in entries for r in entry.recipients)
        assert await spool.next_due() is not None  # the lease of the other's second recipient
        await spool.release([entries[1]])
        assert await spool.next_due() is None
        assert await operator.retry(None, 5) == 0
        assert await spool.claim(1e12, 9, 60) == []
    async with opened(tmp_path) as spool:
        assert await spool.claim(1e12, 9, 60) == []
        assert await spool.retry(incoming.id, 6) == 2
        assert [entry.id for entry in await spool.claim(6, 9, 60)] == [incoming.id]
        assert await spool.hold("nobody", "why") == 0


@pytest.mark.parametrize("deleted", [True, False])
async def test_what_a_visitor_holds_or_deletes_is_lent_to_nobody_once_it_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deleted: bool
) -> None:
    watch, slept = Watch(), list[float]()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        watch.now += seconds

    monkeypatch.setattr("smtpproto.relay.spool.sqlite.sleep", sleep)
    async with (
        opened(tmp_path, steady=watch) as spool,
        opened(tmp_path, serving=False) as visitor,
    ):
        for notices in (False, True):
            watch.now += 100
            assert await spool.claim(1, 9, 60) == []  # from here on it need not look
            id = await keep(spool, now=1)
            done = await visitor.delete(id) if deleted else await visitor.hold(id, "why")
            assert done == 1
            if notices:
                assert await visitor.noticed()
            lent = [entry.id for entry in await spool.claim(1, 9, 60)]
            assert lent == ([] if notices else [id])
            await spool.delete(id)
    assert slept == [LOOK]
    async with opened(tmp_path, serving=False) as visitor:
        assert not await visitor.noticed()
    (tmp_path / "lock").unlink()
    assert not is_served(tmp_path)


async def test_what_a_visitor_asks_for_comes_before_what_was_looked_at(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool, opened(tmp_path, serving=False) as visitor:
        ids = [await keep(spool, now=n) for n in range(1, 5)]
        assert len(await spool.claim(4, 2, 60)) == 2
        await spool.settle(ids[0], [Settlement(0, 900.0)], now=4)
        for n in range(5, 7):  # he may ask more than once
            assert await visitor.retry(ids[0], n) == 1
            (first,) = await spool.claim(n, 1, 60)
            assert first.id == ids[0]
            await spool.settle(ids[0], [Settlement(0, 900.0)], now=n)
        assert [entry.id for entry in await spool.claim(9, 9, 60)] == ids[2:]


async def test_entries_come_page_by_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statements: Sql
) -> None:
    monkeypatch.setattr("smtpproto.relay.spool.sqlite.PAGE_ENTRIES", 3)
    async with opened(tmp_path) as spool:
        ids = [await keep(spool, rcpts=(ANN, BOB)) for _ in range(7)]
        statements.clear()
        found = await all_of(spool)
        assert [entry.id for entry in found] == sorted(ids)
        assert all(len(entry.recipients) == 2 for entry in found)
        assert sum("FROM message" in sql for sql in statements) == 4


VISITOR = """
import sys, anyio
from pathlib import Path
from smtpproto.relay.spool.sqlite import SQLiteSpool

async def main():
    async with SQLiteSpool.open(Path(sys.argv[1]), serving=False) as spool:
        async for entry in spool.entries():
            print(entry.id, entry.recipients[0].attempts)
        print(await spool.delete(sys.argv[3]), await spool.retry(None, 6))

anyio.run(main, backend=sys.argv[2])
"""


async def test_another_process_may_visit_while_this_one_serves(
    tmp_path: Path, anyio_backend_name: str
) -> None:
    async with opened(tmp_path) as spool:
        lent, deferred, gone = [await keep(spool, now=n) for n in range(1, 4)]
        await spool.settle(deferred, [Settlement(0, 1000.0)], now=2)
        await spool.claim(1, 1, 60)
        done = await anyio.run_process(
            [sys.executable, "-c", VISITOR, str(tmp_path), anyio_backend_name, gone], stderr=None
        )
        lines = done.stdout.decode().splitlines()
        assert lines[:-1] == sorted([f"{lent} 0", f"{deferred} 1", f"{gone} 0"])
        assert lines[-1] == "True 2"
        # What is lent stays lent, what was put forward is due, what was deleted is gone.
        assert [entry.id for entry in await spool.claim(50, 9, 60)] == [deferred]
        assert await spool.settle(gone, [Settlement(0, None)], [REPORT], now=51) == []


async def test_visitors_and_server_change_the_spool_at_the_same_time(
    tmp_path: Path, anyio_backend_name: str
) -> None:
    async with opened(tmp_path) as spool:
        doomed = [await keep(spool) for _ in range(4)]
        kept: list[str | None] = []

        async def visit(id: str) -> None:
            await anyio.run_process(
                [sys.executable, "-c", VISITOR, str(tmp_path), anyio_backend_name, id],
                stderr=None,
                stdout=subprocess.DEVNULL,
            )

        async with anyio.create_task_group() as tasks:
            for id in doomed:
                tasks.start_soon(visit, id)
            for _ in range(20):
                kept += await commit_together(spool, 5)
        assert [entry.id for entry in await all_of(spool)] == sorted(kept, key=str)


async def test_one_process_serves(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await keep(spool)
        await spool.claim(0, 1, 60)
        with pytest.raises(SpoolUnavailable, match="another process serves"):
            async with opened(tmp_path):
                pass
        assert await spool.claim(0, 1, 60) == []  # and its leases are its own


async def test_a_visitor_takes_no_mail_in_and_makes_no_spool(tmp_path: Path) -> None:
    with pytest.raises(SpoolUnavailable, match="no spool"):
        async with opened(tmp_path / "nowhere", serving=False):
            pass
    assert not (tmp_path / "nowhere").exists()
    async with opened(tmp_path):
        pass
    async with opened(tmp_path, serving=False) as visitor:
        with pytest.raises(RuntimeError):
            await keep(visitor)
        with pytest.raises(RuntimeError):
            await visitor.claim(0, 1, 60)


async def test_what_callers_may_not_ask(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        with pytest.raises(ValueError, match="recipient"):
            await keep(spool, rcpts=())
        with pytest.raises(ValueError, match="recipient"):
            await spool.settle("x", [], [Fresh(MAIL, (), b"", "")], now=0)
        with pytest.raises(ValueError, match="last"):
            await spool.claim(0, 1, 0)
        async with spool.receive() as incoming:
            await incoming.commit(MAIL, [ANN], now=0)
            with pytest.raises(RuntimeError):
                await incoming.write(b"more")
            with pytest.raises(RuntimeError):
                await incoming.commit(MAIL, [ANN], now=0)
    with pytest.raises(SpoolUnavailable, match="closed"):
        await spool.next_due()
    with pytest.raises(SpoolUnavailable, match="closed"):
        await spool.claim(0, 1, 60)


# Schema versions


async def test_an_older_schema_is_brought_up_to_date_with_all_its_mail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as spool:
        id = await keep(spool, LARGE)
    step = ("ALTER TABLE recipient ADD COLUMN hold INTEGER NOT NULL DEFAULT 0",)
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, step))
    with pytest.raises(SpoolUnavailable, match="old"):
        async with opened(tmp_path, serving=False):
            pass
    for _ in range(2):  # once, and not again
        async with opened(tmp_path) as spool:
            assert [entry.id for entry in await all_of(spool)] == [id]
            assert await content_of(spool, id) == LARGE
    monkeypatch.undo()
    with pytest.raises(SpoolUnavailable, match="newer"):
        async with opened(tmp_path):
            pass


#: A spool as the first version of the schema wrote it. It stays as it is, whatever becomes of ours.
VERSION_1 = r"""
CREATE TABLE message (
    id TEXT NOT NULL PRIMARY KEY,
    arrived REAL NOT NULL,
    mail BLOB NOT NULL,
    origin TEXT NOT NULL,
    octets INTEGER NOT NULL,
    content BLOB
);
CREATE TABLE recipient (
    message TEXT NOT NULL,
    number INTEGER NOT NULL,
    rcpt BLOB NOT NULL,
    attempts INTEGER NOT NULL,
    next_attempt REAL NOT NULL,
    due REAL NOT NULL,
    last_reply TEXT,
    PRIMARY KEY (message, number)
) WITHOUT ROWID;
CREATE INDEX recipient_due ON recipient (due);
CREATE INDEX recipient_lent ON recipient (due) WHERE due > next_attempt;
INSERT INTO message VALUES ('00HbXm5a4uDoYxU', 7.5,
    CAST('MAIL FROM:<sender@example.org> ENVID=x+3Dy' || char(13, 10) AS BLOB),
    'a test', 24, CAST('Subject: small' || char(13, 10, 13, 10) || 'body' || char(13, 10) AS BLOB));
INSERT INTO message VALUES ('00HbXm5a4yEIkcZ', 8.5,
    CAST('MAIL FROM:<>' || char(13, 10) AS BLOB), 'report on x', 153600, NULL);
INSERT INTO recipient VALUES ('00HbXm5a4uDoYxU', 1,
    CAST('RCPT TO:<"b o b"@example.net>' || char(13, 10) AS BLOB), 2, 40.0, 40.0, '450 later');
INSERT INTO recipient VALUES ('00HbXm5a4yEIkcZ', 0,
    CAST('RCPT TO:<ann@example.net> NOTIFY=NEVER' || char(13, 10) AS BLOB), 0, 8.5, 7208.5, NULL);
PRAGMA user_version = 1;
"""


async def test_a_spool_of_the_first_schema_is_taken_over_whole(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "spool.db")) as db:
        db.executescript(VERSION_1)
    small, large = "00HbXm5a4uDoYxU", "00HbXm5a4yEIkcZ"
    (tmp_path / "content").mkdir()
    (tmp_path / "content" / large).write_bytes(LARGE)
    async with opened(tmp_path) as spool:
        assert await spool.claim(50.0, 9, 60) == [
            Entry(
                large,
                8.5,
                Mail(None),
                (Recipient(0, ANN, 0, 8.5, None),),
                len(LARGE),
                "report on x",
            ),
            Entry(
                small,
                7.5,
                Mail("sender@example.org", {"ENVID": "x+3Dy"}),
                (Recipient(1, BOB, 2, 40.0, "450 later"),),
                len(SMALL),
                "a test",
            ),
        ]
        assert await content_of(spool, small) == SMALL
        assert await content_of(spool, large) == LARGE
    assert check_spool(tmp_path) == Checked(2, False, ())


@pytest.mark.parametrize("version", range(1, len(schema.MIGRATIONS)))
async def test_a_spool_of_any_older_schema_is_taken_over_with_its_content(
    tmp_path: Path, version: int
) -> None:
    """None of them has a checksum: its content is what it is. What comes from now on has one."""
    with closing(sqlite3.connect(tmp_path / "spool.db", isolation_level=None)) as db:
        db.executescript(VERSION_1)
        for step in (step for steps in schema.MIGRATIONS[1:version] for step in steps):
            db.execute(step)
        db.execute(f"PRAGMA user_version = {version}")
    old = {"00HbXm5a4uDoYxU": SMALL, "00HbXm5a4yEIkcZ": LARGE}
    (tmp_path / "content").mkdir()
    (tmp_path / "content" / "00HbXm5a4yEIkcZ").write_bytes(LARGE)
    async with opened(tmp_path) as spool:
        assert {id: await content_of(spool, id) for id in old} == old
        new = await keep(spool, LARGE)
    with closing(sqlite3.connect(tmp_path / "spool.db")) as db:
        known = dict(db.execute("SELECT id, checksum FROM message"))
    assert known == {**dict.fromkeys(old), new: crc32(LARGE)}
    assert check_spool(tmp_path) == Checked(3, False, ())


async def test_a_migration_that_fails_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as spool:
        id = await keep(spool)
    steps = ("ALTER TABLE recipient ADD COLUMN hold INTEGER", "NONSENSE")
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, steps))
    with pytest.raises(SpoolUnavailable, match="NONSENSE"):
        async with opened(tmp_path):
            pass
    monkeypatch.undo()
    async with opened(tmp_path) as spool:
        assert [entry.id for entry in await all_of(spool)] == [id]


# Against a model


class Model:
    """What a spool is, without a disk; one that `keeps_time` notices a clock that is set back."""

    def __init__(self, *, keeps_time: bool) -> None:
        self.keeps_time = keeps_time
        self.ahead = -inf  # how far the wall clock has been before the steady one
        # id -> content, and number -> [attempts, next attempt, reply]
        self.content: dict[str, bytes] = {}
        self.rcpts: dict[str, dict[int, list[Any]]] = {}
        # (id, number) -> end of its lease, and its next attempt as it was lent
        self.lent: dict[tuple[str, int], tuple[float, float]] = {}
        self.watch = Watch()

    def keep(self, id: str, content: bytes, rcpts: int, now: float) -> None:
        self.content[id] = content
        self.rcpts[id] = {n: [0, now, None] for n in range(rcpts)}

    def free(self) -> dict[tuple[str, int], float]:
        """When those are due that nobody has."""
        now = self.watch.now
        return {
            (id, n): row[1]
            for id, rows in self.rcpts.items()
            for n, row in rows.items()
            if self.lent.get((id, n), (now, 0))[0] <= now
        }

    def saw(self, now: float) -> None:
        self.ahead = max(self.ahead, now - self.watch.now)

    def claim(self, now: float, limit: int, lease: float) -> list[tuple[str, list[int]]]:
        self.saw(now)
        by = self.ahead - (now - self.watch.now)
        if self.keeps_time and by > STEP:
            self.ahead = now - self.watch.now
            for row in (row for rows in self.rcpts.values() for row in rows.values()):
                if now < row[1] < inf:
                    row[1] = max(row[1] - by, now)
        due = {
            key: next_attempt for key, next_attempt in self.free().items() if next_attempt <= now
        }
        first: dict[str, float] = {}
        for (id, _), next_attempt in due.items():
            first[id] = min(next_attempt, first.get(id, next_attempt))
        claimed: list[tuple[str, list[int]]] = []
        for id in sorted(first, key=lambda id: (first[id], id))[:limit]:
            numbers = sorted(n for other, n in due if other == id)
            for n in numbers:
                self.lent[id, n] = self.watch.now + lease, due[id, n]
            claimed.append((id, numbers))
        return claimed

    def settle(self, id: str, settlements: Sequence[Settlement]) -> bool:
        rows = self.rcpts.get(id, {})
        if not any(s.recipient in rows for s in settlements):
            return False
        for s in settlements:
            _, lent_as = self.lent.pop((id, s.recipient), (None, None))
            if s.recipient not in rows:
                continue
            if s.next_attempt is None:
                del rows[s.recipient]
            else:
                attempts, before, why = rows[s.recipient]
                stays = (before < 0 or before == inf) and lent_as not in (None, before)
                after = before if stays else s.next_attempt
                rows[s.recipient] = [attempts + 1, after, why if after == inf else s.reply]
        if not rows:
            self.delete(id)
        return True

    def release(self, lent: Sequence[tuple[str, list[int]]]) -> None:
        for id, numbers in lent:
            for n in numbers:
                self.lent.pop((id, n), None)

    def retry(self, id: str | None, now: float) -> int:
        count = 0
        for each, rows in self.rcpts.items():
            for row in rows.values():
                if row[1] > 0 and (id == each or (id is None and row[1] < inf)):
                    row[1] = -now
                    count += 1
        return count

    def hold(self, id: str, reason: str) -> int:
        held = [row for row in self.rcpts.get(id, {}).values() if row[1] < inf]
        for row in held:
            row[1:] = [inf, reason]
        return len(held)

    def next_due(self, wall: float) -> float | None:
        now = self.watch.now
        ends = [
            wall + end - now
            for (id, n), (end, _) in self.lent.items()
            if end > now and n in self.rcpts.get(id, ())
        ]
        dues = [due for due in self.free().values() if due < inf]
        return min([*dues, *ends], default=None)

    def delete(self, id: str) -> bool:
        self.rcpts.pop(id, None)
        return self.content.pop(id, None) is not None

    def restart(self) -> None:
        self.lent.clear()
        self.ahead = -inf


Step = tuple[str, int, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "keep",
                "keep",
                "claim",
                "claim",
                "settle",
                "settle",
                "release",
                "retry",
                "hold",
                "delete",
                "restart",
                "wait",
                "set the clock",
            ]
        ),
        st.integers(0, 11),
        st.integers(1, 3),
    ),
    max_size=30,
)


Opens = Callable[[Watch], AbstractAsyncContextManager[Spool]]


async def run_steps(
    opens: Opens, steps: Iterator[Step], path: Path | None = None, *, keeps_time: bool = False
) -> None:
    """Ask a spool and the model the same things; its large content has files in `path`."""
    model = Model(keeps_time=keeps_time)
    now = 0.0
    ids: list[str] = ["nobody"]
    going_on = True
    while going_on:
        lent: list[Entry] = []
        async with opens(model.watch) as spool:
            for word, choice, number in steps:
                id = ids[choice % len(ids)]
                if word == "keep":
                    content = LARGE if choice == 0 else SMALL * choice
                    new = await keep(spool, content, [ANN, BOB, ANN][:number], now=now)
                    model.keep(new, content, number, now)
                    model.saw(now)
                    ids.append(new)
                elif word == "claim":
                    entries = await spool.claim(now, number, 10 * choice + 1)
                    lent += entries
                    assert _numbers(entries) == model.claim(now, number, 10 * choice + 1)
                elif word == "settle":
                    some = [
                        Settlement(n, None if choice % 3 else now + choice, f"{choice}")
                        for n in range(choice % 2, number)
                    ]
                    if some:
                        fresh = await spool.settle(id, some, [REPORT] * (number - 1), now=now)
                        settled = model.settle(id, some)
                        model.saw(now)
                        assert len(fresh) == (number - 1 if settled else 0)
                        for new in fresh:
                            model.keep(new, REPORT.content, 1, now)
                        ids += fresh
                elif word == "release":
                    await spool.release(lent)
                    model.release(_numbers(lent))
                elif word == "retry":
                    which = None if number == 1 else id
                    assert await spool.retry(which, now) == model.retry(which, now)
                elif word == "hold":
                    assert await spool.hold(id, "why") == model.hold(id, "why")
                elif word == "delete":
                    assert await spool.delete(id) == model.delete(id)
                elif word == "wait":
                    now += 5 * choice
                    model.watch.now += 5 * choice
                elif word == "set the clock":
                    now = max(0.0, now + 100 * (choice - 5))
                else:
                    model.restart()
                    break
                assert await spool.next_due() == model.next_due(1_000_000.0)
            else:
                going_on = False
            found = {
                entry.id: {
                    r.number: [r.attempts, r.next_attempt, r.last_reply] for r in entry.recipients
                }
                for entry in await all_of(spool)
            }
            assert found == {id: dict(rows) for id, rows in model.rcpts.items()}
            for id, content in model.content.items():
                assert await content_of(spool, id) == content
            if path is not None:
                assert files(path) == {
                    id for id, content in model.content.items() if len(content) > INLINE_OCTETS
                }


def _numbers(entries: Sequence[Entry]) -> list[tuple[str, list[int]]]:
    return [(entry.id, [r.number for r in entry.recipients]) for entry in entries]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@given(steps=STEPS)
def test_it_does_what_the_model_does(
    tmp_path_factory: pytest.TempPathFactory, backend: str, steps: list[Step]
) -> None:
    path = tmp_path_factory.mktemp("spool")
    dice = random.Random(2)

    def opens(watch: Watch) -> AbstractAsyncContextManager[Spool]:
        return opened(path, random=dice.randrange, steady=watch)

    async def run() -> None:
        await run_steps(opens, iter(steps), path, keeps_time=True)

    anyio.run(run, backend=backend)


# Ids


@given(st.integers(0, 10**16), st.integers(0, 10**16), st.data())
def test_ids_sort_by_time_and_are_atoms(one: int, other: int, data: st.DataObject) -> None:
    numbers = st.integers(0, ID_RANDOM - 1)
    first, second = (new_id(t / 1e6, data.draw(numbers)) for t in (one, other))
    assert first.isalnum()
    assert first.isascii()
    assert len(first) == 15
    if int(one / 1e6 * 1e6) < int(other / 1e6 * 1e6):
        assert first < second


@given(st.integers(0, ID_RANDOM - 1), st.integers(0, ID_RANDOM - 1))
def test_ids_of_one_moment_differ_by_their_random_number(one: int, other: int) -> None:
    assert (new_id(1.5, one) == new_id(1.5, other)) == (one == other)
