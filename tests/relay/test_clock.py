"""A wall clock that is set back: nothing waits longer than its own schedule says from then on."""

from __future__ import annotations

import logging
from math import inf
from pathlib import Path

import anyio
import pytest

from smtpproto import Mail, Rcpt
from smtpproto.core.reply import Reply
from smtpproto.relay import Host, NextHop, RouteTable, Rule, Schedule
from smtpproto.relay.delivery.hops import Hops
from smtpproto.relay.reports.story import Deferred, Delivered
from smtpproto.relay.spool.timekeeping import Timekeeper
from tests.relay.test_times import hand_over, until_held
from tests.relay.world import DAY, Node, World, world

pytestmark = pytest.mark.anyio

SENDER, TO = "ann@our.dom", "v@ext.example"
YEAR = 365 * DAY
SCHEDULE = Schedule(first=600, factor=2, longest=3600, spread=0, lifetime=1000 * DAY)


async def due(node: Node) -> list[float]:
    return [r.next_attempt for entry in await node.queue() for r in entry.recipients]


async def until_due_by(node: Node, time: float) -> None:
    """Wait until all that the operator does not hold is due by then; nobody is told of that."""
    while True:
        if max(each for each in await due(node) if each < inf) <= time:
            return
        await anyio.sleep(0.01)


async def deferred_in_the_future(w: World, node: Node) -> None:
    """Let a message be tried, and deferred, while the clock is a year ahead."""
    w.move(YEAR)
    await node.send(SENDER, [TO])
    (deferred,) = await node.until(Deferred)
    assert deferred.wait == 600
    w.move(-YEAR)


def dead() -> RouteTable:
    return RouteTable([Rule(NextHop.fixed(Host("there.example")), recipients=["ext.example"])])


async def test_what_waits_is_tried_when_its_schedule_says(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with world(tmp_path) as w:
        node = await w.node("relay.example", routes=dead(), schedule=SCHEDULE)
        await deferred_in_the_future(w, node)
        with caplog.at_level(logging.WARNING):
            await until_due_by(node, w.now + 600)
        assert "the clock was set back by 31536000 seconds" in caplog.text
        await w.fixed(("there.example", 25))
        w.move(600)
        await node.until(Delivered)


async def test_it_is_noticed_at_a_start_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with world(tmp_path) as w:
        node = await w.node("relay.example", routes=dead(), schedule=SCHEDULE)
        w.move(YEAR)
        await node.send(SENDER, [TO])
        await node.until(Deferred)
        await node.stop()
        w.move(-YEAR)
        await w.fixed(("there.example", 25))
        node = await w.node("relay.example", routes=dead(), schedule=SCHEDULE)
        assert max(await due(node)) <= w.now + 600
        w.move(600)
        await node.until(Delivered)
        await node.stop()
        assert "the clock was set back" in caplog.text
        caplog.clear()
        w.move(30)  # a start by a clock that is right moves nothing
        await w.node("relay.example", routes=dead(), schedule=SCHEDULE)
        assert "the clock was set back" not in caplog.text


async def test_a_start_knows_the_time_of_the_last_attempt(tmp_path: Path) -> None:
    """The message came before the clock was ahead."""
    async with world(tmp_path) as w:
        node = await w.node("relay.example", routes=dead(), schedule=SCHEDULE)
        await node.send(SENDER, [TO])
        await node.until(Deferred)
        w.move(YEAR)
        await node.until(Deferred, 2)
        await node.stop()
        w.move(-YEAR)
        node = await w.node("relay.example", routes=dead(), schedule=SCHEDULE)
        assert max(await due(node)) <= w.now + 1200


async def test_what_has_just_come_does_not_wait_for_the_time_at_which_it_came(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as w:
        node = await w.node("relay.example", routes=dead(), schedule=SCHEDULE)
        await w.fixed(("there.example", 25))
        w.now += YEAR
        async with node.spool.receive() as incoming:
            await incoming.write(b"Hi\r\n")
            await incoming.commit(Mail(SENDER), [Rcpt(TO)], now=w.now)
            w.now -= YEAR
        await node.until(Delivered)


async def test_what_waits_for_its_senders_time_or_for_the_operator_goes_no_sooner(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as w:
        node = await w.node("relay.example", kinds=["smtp", "submission"], schedule=SCHEDULE)
        asked = {"HOLDUNTIL": "2023-11-16T22:13:20Z"}
        await hand_over(node, asked, to="bob@our.dom", submission=True)
        release = w.now + 2 * DAY
        await until_held(node, release)
        async with node.spool.receive() as incoming:
            await incoming.write(b"Hi\r\n")
            await incoming.commit(Mail(SENDER), [Rcpt("cyd@our.dom")], now=w.now, held="wait")
        w.move(DAY)
        await w.put(node, SENDER, "dan@our.dom", content=b"Hi\r\n")  # the spool has seen that time
        await node.until(Delivered)
        w.move(-DAY)
        await until_due_by(node, release - 1)
        w.move(DAY)
        await until_held(node, release)
        assert len(node.told(Delivered)) == 1
        w.move(DAY)
        await node.until(Delivered, 2)
        (entry,) = await node.queue()
        assert entry.recipients[0].held


def test_small_steps_are_as_good_as_a_large_one() -> None:
    time = Timekeeper()
    assert time.back_by(1000, 0) == 0
    assert time.back_by(1100, 50) == 0  # set forward by 50
    assert time.back_by(1130, 110) == 0  # set back by 30
    assert time.back_by(1200, 220) == 70  # … and 40
    assert time.back_by(1210, 230) == 70  # as long as nobody believes it
    time.believe(1210, 230)
    assert time.back_by(1211, 231) == 0


def test_a_hold_is_over_where_it_has_not_begun() -> None:
    now = 1000.0
    hops = Hops(clock=lambda: now, random=lambda: 0.0, hold=Schedule(first=60, spread=0))
    for _ in range(3):
        hops.down("a", "mx.a:25", Reply(421, "4.3.2", "busy"), "", began=now)
        now += 1000
    now -= 500_000
    assert hops.held("a") is None
    assert hops.holding() == 0
    hops.down("a", "mx.a:25", None, "refused", began=now)
    assert hops.held("a") is not None
    assert hops.holding() == 1
    now += 480
    assert hops.held("a") is None


async def test_a_line_that_was_full_is_waited_in_again() -> None:
    now = 1000.0
    hops = Hops(clock=lambda: now, random=lambda: 0.0, front=1, patience=0.2)
    async with hops.turn("a", "one") as placed:
        assert placed is None
        async with hops.turn("a", "two") as come_again:
            assert come_again == now + 1
        now -= 500
        async with hops.turn("a", "two") as come_again:
            assert come_again == now + 1
