"""What has just come in is handed on from memory, and nothing but the time shows it."""

import sqlite3
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest

from smtpproto.core.command import Mail, Rcpt
from smtpproto.relay.spool import sqlite
from smtpproto.relay.spool.arrivals import Arrivals
from smtpproto.relay.spool.claims import LOOK, Claims
from smtpproto.relay.spool.database import Database
from smtpproto.relay.spool.seam import DamagedError, Entry, Recipient, Settlement, SpoolUnavailable
from smtpproto.relay.spool.sqlite import SQLiteSpool

pytestmark = pytest.mark.anyio

MAIL = Mail("ann@example.org", {"ENVID": "x+3Dy"})
RCPT = Rcpt("bob@example.net", {"NOTIFY": "FAILURE"})
LEASE = 60.0
Steal = Callable[[], None]


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def opened(path: Path) -> AsyncGenerator[tuple[SQLiteSpool, Clock], None]:
    """A spool in which claims have looked, and found nothing."""
    clock = Clock()
    async with SQLiteSpool.open(path, clock=clock, steady=clock) as spool:
        assert await spool.claim(clock(), 1, LEASE) == []
        yield spool, clock


async def keep(spool: SQLiteSpool, now: float, content: bytes = b"a: b\r\n", rcpts: int = 1) -> str:
    async with spool.receive() as incoming:
        await incoming.write(content)
        await incoming.commit(MAIL, [RCPT] * rcpts, now=now, origin="a test")
    return incoming.id


@pytest.fixture
def without_database(monkeypatch: pytest.MonkeyPatch) -> Steal:
    """Take the database away: who still goes to it fails."""

    def fail(*_: object) -> NoReturn:
        raise SpoolUnavailable("nobody should look")

    def steal() -> None:
        monkeypatch.setattr(Database, "perform", fail)
        monkeypatch.setattr(Database, "read", fail)

    return steal


def ids(entries: list[Entry]) -> list[str]:
    return [entry.id for entry in entries]


async def test_it_is_claimed_and_read_without_a_look_into_the_database(
    tmp_path: Path, without_database: Steal
) -> None:
    async with opened(tmp_path) as (spool, clock):
        second, first = [await keep(spool, now) for now in (999.0, 998.0)]
        kept = [await spool.get(id) for id in (first, second)]
        without_database()
        assert await spool.next_due() == 998.0
        assert await spool.claim(997.0, 9, LEASE) == []
        assert await spool.claim(clock(), 9, LEASE) == kept  # as it would have been read
        assert await spool.next_due() == clock() + LEASE
        assert await spool.claim(clock(), 9, LEASE) == []
        assert [chunk async for chunk in spool.content(first)] == [b"a: b\r\n"]


async def test_it_returns_when_its_lease_ends(tmp_path: Path) -> None:
    async with opened(tmp_path) as (spool, clock):
        id = await keep(spool, 999.0)
        assert ids(await spool.claim(clock(), 9, LEASE)) == [id]
        clock.now += LEASE
        assert ids(await spool.claim(clock(), 9, LEASE)) == [id]


async def test_nobody_goes_before_those_that_have_waited_for_longer(tmp_path: Path) -> None:
    async with opened(tmp_path) as (spool, clock):
        old = await keep(spool, 990.0)
        await spool.claim(clock(), 1, LEASE)
        await spool.settle(old, [Settlement(0, 1001.0)], now=clock())
        new = await keep(spool, 1000.5)
        newer = await keep(spool, 1001.5)
        clock.now = 1002.0
        assert ids(await spool.claim(clock(), 2, LEASE)) == [new, old]
        assert ids(await spool.claim(clock(), 2, LEASE)) == [newer]


async def test_what_the_operator_does_to_it_counts(tmp_path: Path) -> None:
    async with opened(tmp_path) as (spool, clock):
        gone, done, asked = [await keep(spool, now) for now in (997.0, 998.0, 999.0)]
        assert await spool.delete(gone)
        await spool.settle(done, [Settlement(0, None)], now=clock())  # by who has not claimed it
        assert await spool.retry(asked, clock()) == 1
        (entry,) = await spool.claim(clock(), 9, LEASE)
        assert (entry.id, entry.recipients[0].asked) == (asked, clock())
        with pytest.raises(SpoolUnavailable, match="any more"):
            _ = [chunk async for chunk in spool.content(gone)]


async def test_what_a_visitor_does_to_it_is_seen_soon(tmp_path: Path) -> None:
    async with opened(tmp_path) as (spool, clock):
        gone, there = [await keep(spool, now) for now in (998.0, 999.0)]
        async with SQLiteSpool.open(tmp_path, serving=False) as visitor:
            assert await visitor.delete(gone)
        clock.now += LOOK
        assert ids(await spool.claim(clock(), 9, LEASE)) == [there]


async def test_more_than_there_is_room_for_comes_in_the_same_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "ARRIVALS", 2)
    monkeypatch.setattr(sqlite, "ARRIVAL_OCTETS", 10)
    async with opened(tmp_path) as (spool, clock):
        kept = [await keep(spool, 990.0 + n, rcpts=1 + 20 * (n == 1)) for n in range(6)]
        assert ids(await spool.claim(clock(), 4, LEASE)) == kept[:4]
        assert ids(await spool.claim(clock(), 4, LEASE)) == kept[4:]
        for id in kept:
            assert [chunk async for chunk in spool.content(id)] == [b"a: b\r\n"]


async def test_content_is_read_from_the_disk_behind_the_first_attempt(tmp_path: Path) -> None:
    async with opened(tmp_path) as (spool, clock):
        id = await keep(spool, 999.0, b"x" * 100_000)
        assert [len(c) async for c in spool.content(id)] == [65536, 34464]
        await spool.claim(clock(), 9, LEASE)
        await spool.settle(id, [Settlement(0, clock() + 5)], now=clock())
        with sqlite3.connect(tmp_path / "spool.db") as db:
            db.execute("UPDATE message SET content = CAST(replace(content, 'x', 'y') AS BLOB)")
        db.close()
        with pytest.raises(DamagedError):
            await anext(spool.content(id))


async def test_what_could_not_be_kept_leaves_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as (spool, clock):
        nobody: Any = None
        async with spool.receive() as incoming:
            await incoming.write(b"a: b\r\n")
            with pytest.raises(SpoolUnavailable):
                await incoming.commit(MAIL, [RCPT], now=clock(), origin=nobody)
        assert spool.arrivals.content(incoming.id) is None
        assert await spool.claim(clock(), 9, LEASE) == []
        assert await spool.next_due() is None


def test_a_claim_in_the_moment_of_its_coming_has_an_end() -> None:
    """The writer's thread takes it in; the loop may claim it before that has drawn breath."""
    claimed: list[Entry] = []

    class Eager(Arrivals):
        def add(self, entry: Entry) -> bool:
            added = super().add(entry)
            claimed.extend(claims.at_hand(entry.arrived, 9, 60.0))
            return added

    claims = Claims(Eager(9, 9, 9))
    claims.leases.quiet_until = 1e9
    recipient = Recipient(0, Rcpt("bob@far.example"), 0, 5.0, None)
    entry = Entry("id", 5.0, Mail(None), (recipient,), 0, "")
    claims.came(entry)
    assert claimed == [entry]
    assert claims.leases.is_lent("id", 0, 59.0)
    assert not claims.leases.is_lent("id", 0, 60.0)


def test_its_room_is_given_back() -> None:
    arrivals = Arrivals(1, 1, 10)
    entry = Entry("a", 1.0, MAIL, (Recipient(0, RCPT, 0, 1.0, None),), 3, "")
    for _ in range(3):
        assert arrivals.add(entry)
        assert not arrivals.add(entry)
        arrivals.keep("a", b"12345678")
        arrivals.keep("b", b"123")
        assert (arrivals.content("a"), arrivals.content("b")) == (b"12345678", None)
        arrivals.drop("a")
        arrivals.drop("a")
        assert "a" in arrivals
        assert arrivals.take(5, 1.0) == [entry]
        assert "a" not in arrivals
