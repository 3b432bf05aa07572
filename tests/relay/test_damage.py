"""Content that a disk has changed is found out before anybody takes it for what came in."""

import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpproto.core.command import Mail, Rcpt
from smtpproto.relay import Schedule
from smtpproto.relay.mailboxes.aliases import AliasTable
from smtpproto.relay.reports.story import Deferred, Delivered, Expanded, Reported
from smtpproto.relay.spool.check import check_spool
from smtpproto.relay.spool.database import PAGE_OCTETS
from smtpproto.relay.spool.seam import DamagedError, Entry, SpoolUnavailable
from smtpproto.relay.spool.sqlite import INLINE_OCTETS, SQLiteSpool
from tests.relay.world import DAY, MESSAGE, START, Node, world

pytestmark = pytest.mark.anyio

SENDER = "ann@our.dom"
SMALL = MESSAGE + b"".join(b"%06d small\r\n" % n for n in range(2000))
LARGE = MESSAGE + b"".join(b"%06d large\r\n" % n for n in range(30_000))
assert len(SMALL) < INLINE_OCTETS < len(LARGE)

sizes = pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])


def flipped(octets: bytes, at: int, by: int = 1) -> bytes:
    return octets[:at] + bytes([octets[at] ^ by]) + octets[at + 1 :]


Change = Callable[[bytes], bytes]

CHANGES: dict[str, Change] = {
    "first bit": lambda octets: flipped(octets, 0),
    "middle": lambda octets: flipped(octets, len(octets) // 2, 0x20),
    "last bit": lambda octets: flipped(octets, len(octets) - 1, 0x80),
    "a sector of zeros": lambda octets: octets[:512] + bytes(512) + octets[1024:],
    "two changed places": lambda octets: octets[:9] + octets[10:11] + octets[9:10] + octets[11:],
    "truncated": lambda octets: octets[:-1],
    "empty": lambda _: b"",
    "longer": lambda octets: octets + b".",
}
changes = pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)


def on_disk(spool: Path, id: str, change: Change) -> None:
    """Change what the disk has of a message's content, behind the spool's back."""
    file = spool / "content" / id
    if file.exists():
        file.write_bytes(change(file.read_bytes()))
        return
    with closing(sqlite3.connect(spool / "spool.db", isolation_level=None)) as db:
        (octets,) = db.execute("SELECT content FROM message WHERE id = ?", (id,)).fetchone()
        db.execute("UPDATE message SET content = ? WHERE id = ?", (change(octets), id))


async def keep(spool: SQLiteSpool, content: bytes, *rcpts: str, held: str | None = None) -> str:
    async with spool.receive() as incoming:
        for at in range(0, len(content), 50_000):
            await incoming.write(content[at : at + 50_000])
        owed = [Rcpt(rcpt) for rcpt in rcpts or ("v@ext.example",)]
        await incoming.commit(Mail(SENDER), owed, now=START, held=held)
    return incoming.id


async def given_out(spool: SQLiteSpool, id: str) -> tuple[bytes, Exception | None]:
    """What a reader gets, and how it ends."""
    got = b""
    try:
        async for chunk in spool.content(id):
            got += chunk
    except SpoolUnavailable as error:
        return got, error
    return got, None


# The spool


@changes
@sizes
async def test_what_has_changed_is_never_given_out_whole(
    tmp_path: Path, content: bytes, change: Change
) -> None:
    async with SQLiteSpool.open(tmp_path) as spool:
        good, bad = await keep(spool, content), await keep(spool, content)
    on_disk(tmp_path, bad, change)
    async with SQLiteSpool.open(tmp_path) as spool:
        got, error = await given_out(spool, bad)
        assert isinstance(error, DamagedError)
        assert f"message {bad} is damaged: " in str(error)
        # Who knows its length is not led astray either, nor who reads no further.
        assert len(got) < len(content)
        if content is SMALL or len(change(content)) != len(content):
            assert got == b""
        assert await given_out(spool, good) == (content, None)


@given(data=st.data())
def test_wherever_octets_change_what_is_given_out_whole_is_what_came_in(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = data.draw(st.sampled_from([SMALL, LARGE]))
    path = tmp_path_factory.mktemp("spool")
    places = st.lists(
        st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), min_size=1, max_size=5
    )

    def change(octets: bytes) -> bytes:
        for at, by in data.draw(places):
            octets = flipped(octets, at, by)
        return octets

    async def main() -> None:
        async with SQLiteSpool.open(path) as spool:
            id = await keep(spool, content)
        on_disk(path, id, change)
        file = path / "content" / id
        async with SQLiteSpool.open(path) as spool:
            got, error = await given_out(spool, id)
        if error is None:
            assert got == content
        elif file.exists():
            assert file.read_bytes() != content

    anyio.run(main)


async def test_whatever_octet_of_the_database_flips_no_other_content_comes_of_it(
    tmp_path: Path,
) -> None:
    """It may be the length, the checksum, a page's head, or a type: all may happen but that."""
    sent = [b"%d\r\n" % n * 700 for n in range(20)]
    path, dice = tmp_path / "spool", random.Random(8)
    async with SQLiteSpool.open(path, clock=lambda: START, random=dice.randrange) as spool:
        for content in sent:
            await keep(spool, content)
    database = (path / "spool.db").read_bytes()
    seen = 0
    for at in sorted(dice.sample(range(PAGE_OCTETS, len(database)), 200)):
        (path / "spool.db").write_bytes(flipped(database, at, 1 << dice.randrange(8)))
        for log in path.glob("spool.db-*"):
            log.unlink()
        try:
            async with SQLiteSpool.open(path) as spool:
                entries: list[Entry] = [entry async for entry in spool.entries()]
                for entry in entries:
                    got, error = await given_out(spool, entry.id)
                    assert error is not None or got in sent, at
                    seen += isinstance(error, DamagedError)
        except SpoolUnavailable:
            pass
    assert seen > 50  # much of it is content


async def test_a_file_that_shrinks_while_it_is_read_is_found_out(tmp_path: Path) -> None:
    async with SQLiteSpool.open(tmp_path) as spool:
        id = await keep(spool, LARGE)
        chunks = spool.content(id)
        await anext(chunks)
        on_disk(tmp_path, id, lambda octets: octets[:100_000])
        with pytest.raises(DamagedError, match="100000 there"):
            [chunk async for chunk in chunks]


# Deliveries


async def held_and_changed(node: Node, content: bytes, change: Change, *rcpts: str) -> str:
    """Have a message in a node's queue that lets it go when it has been changed on the disk."""
    id = await keep(node.spool, content, *rcpts, held="a test")
    on_disk(node.directory / "spool", id, change)
    await node.spool.retry(id, START)
    node.relay.dispatcher.wake()
    return id


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]


Flip = partial(flipped, at=MESSAGE.index(b"dots"))


@sizes
async def test_a_host_never_gets_the_end_of_what_is_damaged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    async with world(tmp_path) as w:
        first = await w.host("mx1.ext.example", "ext.example")
        second = await w.host("mx2.ext.example", "ext.example", preference=20)
        node = await w.node("relay.example")
        id = await held_and_changed(node, content, Flip)
        (deferred,) = await node.until(Deferred)
        assert deferred.reply == "451 4.3.0 The message is damaged in the queue"
        assert first.contents == []
        assert first.accepted == []
        assert second.sessions == 0  # it would fare no better
        said = [f"message {id} is damaged: its content has changed since it came; it is not sent"]
        assert [line.split(": see")[0] for line in errors(caplog)] == said

        # From now on it is looked at before any host is bothered, and the log has it once.
        sessions = first.sessions
        for count in (2, 3):
            w.move(4 * 3600)
            await node.until(Deferred, count)
        assert (first.sessions, second.sessions) == (sessions, 0)
        assert len([line for line in errors(caplog) if not line.startswith("the report on")]) == 1
        (entry,) = [entry for entry in await node.queue() if entry.id == id]
        assert entry.recipients[0].last_reply == deferred.reply  # as `queue show` shows it

        on_disk(node.directory / "spool", id, Flip)  # it was put back
        w.move(4 * 3600)
        while not first.accepted:
            await node.until(Delivered, len(node.told(Delivered)) + 1)
        assert first.contents == [content]


@sizes
async def test_nor_does_one_that_takes_chunks(tmp_path: Path, content: bytes) -> None:
    async with world(tmp_path) as w:
        there = await w.node("mx.ext.example", ["ext.example"])
        w.lead("ext.example", there)
        node = await w.node("relay.example")
        good = await keep(node.spool, content)
        await there.until(Delivered)
        await held_and_changed(node, content, Flip)
        await node.until(Deferred)
        assert [entry.id for entry in await there.queue()] == []
        assert len(there.mail("v@ext.example")) == 1
        assert good not in [entry.id for entry in await node.queue()]


@pytest.mark.parametrize("keywords", [(), ("PIPELINING",)], ids=["alone", "pipelining"])
@pytest.mark.parametrize("by", [0x80, 0x07], ids=["8-bit", "bare LF"])
async def test_damage_that_a_host_would_not_take_is_no_refusal(
    tmp_path: Path, by: int, keywords: tuple[str, ...]
) -> None:
    """Our client stops at such octets; but they are not the sender's, and nothing is for good."""
    end = LARGE.index(b"\r\n", len(LARGE) // 2)
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example", keywords=keywords)
        node = await w.node("relay.example")
        await held_and_changed(node, LARGE, lambda octets: flipped(octets, end, by))
        (deferred,) = await node.until(Deferred)
        assert deferred.reply == "451 4.3.0 The message is damaged in the queue"
        assert host.contents == []


@sizes
async def test_a_mailbox_gets_nothing_of_what_is_damaged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    async with world(tmp_path) as w:
        node = await w.node("relay.example")
        await held_and_changed(node, content, Flip, "bob@our.dom", "eve@our.dom")
        deferred = await node.until(Deferred, 2)
        assert {event.reply[:9] for event in deferred} == {"451 4.3.0"}
        assert node.files() == []
        assert len(errors(caplog)) == 1


async def test_what_is_behind_an_alias_gets_nothing_of_it(tmp_path: Path) -> None:
    """Of large content no more than the header is read for an alias: those behind it find out."""
    async with world(tmp_path) as w:
        node = await w.node("relay.example", aliases=AliasTable({"all": ["bob@our.dom"]}))
        await held_and_changed(node, SMALL, Flip, "all@our.dom")
        await node.until(Deferred, 1)
        assert node.told(Expanded) == []
        await held_and_changed(node, LARGE, Flip, "all@our.dom")
        await node.until(Deferred, 2)
        assert len(node.told(Expanded)) == 1
        assert node.files() == []


@sizes
@changes
async def test_its_sender_hears_when_it_expires(
    tmp_path: Path, content: bytes, change: Change
) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example")
        node = await w.node("relay.example", schedule=Schedule(first=DAY, longest=DAY))
        id = await held_and_changed(node, content, change)
        await node.until(Deferred)
        w.move(5 * DAY)
        (told, *_) = await node.until(Reported)
        assert told.id == id
        while not node.mail(SENDER):
            await node.until(Delivered, len(node.told(Delivered)) + 1)
        (report,) = node.mail(SENDER)
        assert b"\nStatus: 5.4.7\n" in report
        assert b"\nDiagnostic-Code: smtp; 451 4.3.0 The message is damaged in the queue\n" in report
        assert b"000001" not in report  # nothing of its body
        assert host.accepted == []
        assert await node.queue() == []


async def test_what_came_before_there_were_checksums_goes_out_as_it_is(tmp_path: Path) -> None:
    async with SQLiteSpool.open(tmp_path) as spool:
        ids = [await keep(spool, content) for content in (SMALL, LARGE)]
    with closing(sqlite3.connect(tmp_path / "spool.db", isolation_level=None)) as db:
        db.execute("UPDATE message SET checksum = NULL")
    async with SQLiteSpool.open(tmp_path) as spool:
        assert [await given_out(spool, id) for id in ids] == [(SMALL, None), (LARGE, None)]
    assert check_spool(tmp_path).sound
