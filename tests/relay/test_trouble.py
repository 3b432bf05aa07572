"""A disk in trouble: who sends is asked to come again, the operator is told, nothing is lost.

The trouble is real as far as can be: SQLite meets it, in a node that has clients.
"""

import errno
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import pytest

from smtpproto.core.command import Mail, Rcpt
from smtpproto.relay.reports.story import Deferred, Delivered, Failed
from smtpproto.relay.spool import database
from smtpproto.relay.spool.check import check_spool
from smtpproto.relay.spool.disk import Disk
from smtpproto.relay.spool.seam import Fresh, Settlement, SpoolUnavailable
from smtpproto.relay.spool.sqlite import SQLiteSpool
from smtpproto.relay.spool.work import Work
from tests.relay.tape import Operation, Sync, Tape, Write
from tests.relay.world import MESSAGE, Node, world

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.rfc("5321 §4.2.5 4yz-delivers-nothing", "5321 §6.1 nothing-is-lost-by-a-crash"),
]

LARGE = MESSAGE + b"x" * 70 + b"\r\n" + b"a line of it\r\n" * 20_000


def pragma(monkeypatch: pytest.MonkeyPatch, statement: str) -> None:
    """Have every connection begin with a pragma, from here on."""
    real = database.connect

    def connect(path: Path, *, create: bool, busy_timeout: float) -> sqlite3.Connection:
        db = real(path, create=create, busy_timeout=busy_timeout)
        db.execute(statement)
        return db

    monkeypatch.setattr(database, "connect", connect)


async def said(node: Node, content: bytes = MESSAGE, local_part: str = "v") -> str:
    """Hand over a message for somebody here; return the answer."""
    (outcome,) = (await node.send("a@ext.example", [f"{local_part}@our.dom"], content)).outcomes
    return str(outcome.reply)


async def held_up(node: Node) -> list[str]:
    """Have two messages wait for their mailbox, one of them in a file; return their ids."""
    node.trouble["held@our.dom"] = OSError("not now")
    for content in MESSAGE, LARGE:
        assert (await said(node, content, "held")).startswith("250")
    return sorted(event.id for event in await node.until(Deferred, 2))


async def all_come(node: Node, count: int) -> None:
    node.trouble.clear()
    node.world.move(3600)
    await node.until(Delivered, count)
    assert node.told(Failed) == []
    assert await node.queue() == []


@pytest.mark.parametrize("content", [MESSAGE, LARGE], ids=["small", "large"])
@pytest.mark.parametrize(
    ("kind", "number", "answer", "told"),
    [
        (Write, errno.ENOSPC, "452 4.3.1", "the disk is full"),
        (Write, errno.EIO, "451 4.3.0", "the disk fails"),
        (Sync, errno.EIO, "451 4.3.0", "the disk fails"),
    ],
)
async def test_a_disk_that_is_full_or_fails(  # noqa: PLR0917 - pytest names them
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    kind: type[Write | Sync],
    number: int,
    answer: str,
    told: str,
    content: bytes,
) -> None:
    with Tape(real=False).runs() as tape:
        async with world(tmp_path) as w:
            node = await w.node("relay.example")
            node.spool.disk = tape
            ids = await held_up(node)
            caplog.clear()
            tape.trouble = lambda operation: number if isinstance(operation, kind) else 0
            for _ in range(2):
                assert (await said(node, content)).startswith(answer)
            logged = [r for r in caplog.records if r.name == "smtpproto.relay.intake.handler"]
            assert [r.levelno for r in logged] == [logging.ERROR] * 2
            assert all(told in r.getMessage() for r in logged)
            tape.trouble = lambda _: 0
            assert sorted(entry.id for entry in await node.queue()) == ids
            assert (await said(node, content)).startswith("250")
            await all_come(node, 3)


class Small(Disk):
    """Has so much room."""

    room = 1 << 30

    def free(self, path: Path) -> int:
        return self.room


async def test_the_last_room_is_for_what_goes_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Mail is put off while there is still room to write down deliveries, and reports."""
    disk = Small()
    async with world(tmp_path) as w:
        node = await w.node("relay.example")
        node.spool.database._disk = disk
        ids = await held_up(node)
        disk.room = 1000
        await node.spool.retry("", 0)  # any transaction looks
        assert (await said(node)).startswith("452 4.3.1")
        assert "the disk is full" in caplog.text
        (first, _) = await node.queue()
        report = Fresh(Mail(None), (Rcpt("held@our.dom"),), LARGE, "a report")
        assert await node.spool.settle(first.id, [Settlement(0, None)], [report], now=w.now)
        await all_come(node, len(ids))
        disk.room = 1 << 30
        await node.spool.retry("", 0)
        assert (await said(node)).startswith("250")


async def test_where_no_file_may_grow_the_queue_is_emptied(tmp_path: Path) -> None:
    """The log has no more room, so it has to begin again where it has some."""

    def trouble(operation: Operation) -> int:
        if isinstance(operation, Write):
            size = operation.path.stat().st_size
            return errno.ENOSPC if operation.offset + len(operation.octets) > size else 0
        return 0

    async def insist(step: Callable[[], Awaitable[object]]) -> int:
        """Do it, and return how often it had to be tried."""
        for times in range(1, 4):
            with suppress(SpoolUnavailable):
                await step()
                return times
        pytest.fail("it never comes to its end")

    with Tape(real=False).runs() as tape:
        async with SQLiteSpool.open(tmp_path, disk=tape) as spool:
            for _ in range(40):
                async with spool.receive() as incoming:
                    await incoming.write(MESSAGE)
                    await incoming.commit(Mail("a@b"), [Rcpt("c@d")], now=0.0)
        async with SQLiteSpool.open(tmp_path, disk=tape) as spool:
            await spool.next_due()  # a reader keeps its connection
            entries = [entry async for entry in spool.entries()]
            for entry in entries[:3]:
                await spool.settle(entry.id, [Settlement(0, 5.0)], now=1.0)
            tape.trouble = trouble
            times = [
                await insist(partial(spool.settle, entry.id, [Settlement(0, None)], now=1.0))
                for entry in entries
            ]
            assert 1 < max(times) <= 2
            assert await spool.next_due() is None


async def test_a_database_that_may_not_grow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pragma(monkeypatch, "PRAGMA max_page_count = 20")
    async with world(tmp_path) as w:
        node = await w.node("relay.example")
        ids = await held_up(node)
        large = MESSAGE + b"a line of it\r\n" * 3000
        answers = [await said(node, large, "held") for _ in range(4)]
        full = [answer for answer in answers if not answer.startswith("250")]
        assert full
        assert all(answer.startswith("452 4.3.1") for answer in full)
        assert "the disk is full" in caplog.text
        # The way out is open: what is delivered makes room.
        await all_come(node, len(ids) + 4 - len(full))
        assert (await said(node, large)).startswith("250")


async def test_a_database_that_may_only_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with world(tmp_path) as w:
        node = await w.node("relay.example")
        await held_up(node)
        with monkeypatch.context() as while_it_lasts:
            pragma(while_it_lasts, "PRAGMA query_only = ON")
            await _disconnected(node)
            assert (await said(node)).startswith("451 4.3.0")
            assert "it cannot be written to" in caplog.text
        with suppress(SpoolUnavailable):
            await node.spool.retry("", 0)  # at the latest now it is over
        assert (await said(node)).startswith("250")
        await all_come(node, 3)


async def _disconnected(node: Node) -> None:
    """Have the writer connect anew."""

    def fail(_: sqlite3.Connection) -> None:
        raise ZeroDivisionError

    # Or what the new connection raises, where others had shared the transaction.
    with pytest.raises((ZeroDivisionError, SpoolUnavailable)):
        await node.spool.database.perform(Work(fail))


def page_of(path: Path, name: str) -> int:
    with closing(sqlite3.connect(path / "spool.db")) as db:
        query = "SELECT rootpage FROM sqlite_master WHERE name = ?"
        (page,) = db.execute(query, (name,)).fetchone()
    return int(page)


async def test_a_database_that_is_damaged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The node holds out until it is stopped and the spool mended; then all goes on."""
    spool = tmp_path / "relay.example" / "spool"
    async with world(tmp_path) as w:
        node = await w.node("relay.example")
        ids = await held_up(node)
        await node.stop()
        page = page_of(spool, "recipient_due")
        with (spool / "spool.db").open("r+b") as file:
            file.seek((page - 1) * database.PAGE_OCTETS)
            file.write(b"rubbish!" * (database.PAGE_OCTETS // 8))
        node = await w.node("relay.example")
        assert (await said(node)).startswith("451 4.3.0")
        assert (
            "the database is damaged; stop the server and run `smtpproto queue check" in caplog.text
        )
        await node.stop()
        assert not node.told(Failed)
        assert not node.told(Delivered)
        assert not check_spool(spool).sound
        assert check_spool(spool, repair=True).sound
        node = await w.node("relay.example")
        assert sorted(entry.id for entry in await node.queue()) == ids
        assert (await said(node)).startswith("250")
        await all_come(node, 3)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOENT], ids=["EIO", "ENOENT"])
async def test_content_that_cannot_be_read_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    async with world(tmp_path) as w:
        node = await w.node("relay.example")
        with monkeypatch.context() as while_it_lasts:

            def read(path: Path, offset: int, octets: int) -> bytes:
                raise OSError(number, "as told")

            while_it_lasts.setattr(node.spool.disk, "read", read)
            assert (await said(node, LARGE)).startswith("250")
            await node.until(Deferred)
        await all_come(node, 1)
        (mail,) = node.mail("v@our.dom")
        assert mail.endswith(LARGE.replace(b"\r\n", b"\n"))
