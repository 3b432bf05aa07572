"""What is to be sent later, and how much of it each may have here at one time (RFC 4865 §6)."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from examples.howto import memory_spool
from smtpproto import Mail, Rcpt
from smtpproto.relay import Passwords, SQLiteSpool
from smtpproto.relay.mailboxes.quota import Quota
from smtpproto.relay.reports.story import Delivered
from smtpproto.relay.spool.disk import Disk
from smtpproto.relay.spool.salvage import finish, rebuild
from smtpproto.relay.spool.seam import Parked, Settlement, Spool, SpoolUnavailable
from tests.relay.world import MESSAGE, Node, Wire, World, world

pytestmark = pytest.mark.anyio

FULL = "552 5.7.0"
USERS = Passwords(dict.fromkeys(("ann", "ANN", "bob"), "secret"))


async def submission(w: World, quota: Quota, **settings: Any) -> Node:
    return await w.node(
        "relay.example",
        kinds=["smtp", "submission"],
        authenticator=USERS,
        hold_quota=quota,
        **settings,
    )


@asynccontextmanager
async def as_user(node: Node, name: str = "ann") -> AsyncIterator[Wire]:
    async with node.dial("submission") as wire:
        await wire.hello()
        login = b64encode(f"\0{name}\0secret".encode()).decode()
        assert (await wire.say(f"AUTH PLAIN {login}")).startswith("235")
        yield wire


async def mail(wire: Wire, asked: str = "HOLDFOR=60") -> str:
    return (await wire.say(f"MAIL FROM:<ann@our.dom> {asked}"))[:9].rstrip()


async def parked(wire: Wire, asked: str = "HOLDFOR=60", content: bytes = MESSAGE) -> str:
    """Submit a message; what is answered last."""
    if not (reply := await mail(wire, asked)).startswith("250"):
        return reply
    assert (await wire.say("RCPT TO:<bob@our.dom>")).startswith("250")
    assert (await wire.say("DATA")).startswith("354")
    return (await wire.say(content + b"."))[:9]


async def kept(spool: Spool, content: bytes, parked: Parked) -> str:
    async with spool.receive() as incoming:
        await incoming.write(content)
        await incoming.commit(Mail(None), [Rcpt("a@b.example")], now=1, parked=parked)
    return incoming.id


async def counted(spool: Spool) -> None:
    one = await kept(spool, b"12345", Parked("ann", 100))
    await kept(spool, b"123", Parked("ann", 200))
    await kept(spool, b"1", Parked("bob", 100))
    assert await spool.parked("ann", 50) == (2, 8)
    assert await spool.parked("ann", 100) == (1, 3)
    assert await spool.parked("eve", 50) == (0, 0)
    await spool.delete(one)
    assert await spool.parked("ann", 50) == (1, 3)
    (last,) = [entry for entry in await spool.claim(1, 9, 60) if entry.octets == 3]
    await spool.settle(last.id, [Settlement(0, None)], now=2)
    assert await spool.parked("ann", 50) == (0, 0)
    assert await spool.parked("bob", 50) == (1, 1)


async def test_a_spool_counts_what_is_parked_until_its_time_or_it_is_gone(tmp_path: Path) -> None:
    async with SQLiteSpool.open(tmp_path) as spool:
        await counted(spool)
    async with SQLiteSpool.open(tmp_path) as spool:
        assert await spool.parked("bob", 50) == (1, 1)
    await counted(memory_spool.MemorySpool())


async def test_a_spool_that_is_made_anew_still_counts_it(tmp_path: Path) -> None:
    async with SQLiteSpool.open(tmp_path) as spool:
        await kept(spool, b"1234", Parked("ann", 100))
    rebuild(tmp_path, Disk())
    finish(tmp_path, Disk())
    async with SQLiteSpool.open(tmp_path) as spool:
        assert await spool.parked("ann", 50) == (1, 4)


@pytest.mark.rfc(
    "4865 §6 store-has-a-quota-per-user",
    "4865 §6 above-the-quota-mail-is-refused",
    "4865 §6 refusal-for-quota-is-552",
)
async def test_a_login_has_so_many_messages_waiting_and_no_more(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await submission(w, Quota(messages=2))
        async with (
            as_user(node) as wire,
            as_user(node, "ANN") as again,
            as_user(node, "bob") as bob,
        ):
            assert await parked(wire) == "250 2.0.0"
            assert await parked(again, "HOLDUNTIL=2023-11-14T22:14:40Z") == "250 2.0.0"
            assert await parked(wire) == FULL
            assert await parked(again) == FULL
            assert await parked(wire, "") == "250 2.0.0"  # what is sent now is another matter
            assert await parked(wire, "HOLDUNTIL=2020-01-01T00:00:00Z") == "250 2.0.0"
            assert await parked(bob) == "250 2.0.0"
            w.move(60)
            await node.until(Delivered, 4)
            assert await parked(wire) == "250 2.0.0"
            assert await parked(wire) == FULL


async def test_a_login_has_so_many_octets_waiting_and_no_more(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await submission(w, Quota(octets=5000))
        async with as_user(node) as wire:
            assert await mail(wire, "HOLDFOR=60 SIZE=5001") == FULL
            large = MESSAGE + (b"x" * 900 + b"\r\n") * 6
            assert await parked(wire, content=large) == FULL  # it had not said so
            assert await parked(wire, content=large[:3000] + b"\r\n") == "250 2.0.0"
            assert await mail(wire, "HOLDFOR=60 SIZE=3000") == FULL
            assert await mail(wire, "HOLDFOR=60 SIZE=1000") == "250 2.1.0"
        assert len(await node.queue()) == 1


async def test_two_at_once_do_not_take_the_last_place_twice(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await submission(w, Quota(messages=1))
        async with as_user(node) as one, as_user(node) as two:
            for wire in (one, two):
                assert await mail(wire) == "250 2.1.0"
                await wire.say("RCPT TO:<bob@our.dom>")
                await wire.say("DATA")
            for wire in (one, two):
                await wire.stream.send(MESSAGE + b".\r\n")
            assert {(await wire.reply())[:9] for wire in (one, two)} == {"250 2.0.0", FULL}


async def test_what_waits_is_known_after_a_restart_and_no_more_when_it_is_deleted(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as w:
        node = await submission(w, Quota(messages=1))
        async with as_user(node) as wire:
            assert await parked(wire) == "250 2.0.0"
        await node.stop()
        node = await submission(w, Quota(messages=1))
        async with as_user(node) as wire:
            assert await parked(wire) == FULL
            (entry,) = await node.queue()
            await node.spool.delete(entry.id)
            assert await parked(wire) == "250 2.0.0"


async def test_where_nobody_can_count_it_comes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path) as w:
        node = await submission(w, Quota(messages=1))

        async def fails(owner: str, now: float) -> tuple[int, int]:
            raise SpoolUnavailable("the disk fails")

        monkeypatch.setattr(node.spool, "parked", fails)
        async with as_user(node) as wire:
            assert await mail(wire) == "451 4.3.0"
            assert await mail(wire, "") == "250 2.1.0"


async def test_without_a_quota_as_much_waits_as_comes(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await submission(w, Quota())
        async with as_user(node) as wire:
            for _ in range(3):
                assert await parked(wire) == "250 2.0.0"
