"""Tasks that are kept for the next thing to do."""

from __future__ import annotations

from contextvars import ContextVar

import anyio
import pytest

from smtpproto.deadline import Alarm
from smtpproto.relay.delivery.hands import Hands

pytestmark = pytest.mark.anyio


#: Set in a task that has done something.
USED: ContextVar[bool] = ContextVar("USED", default=False)


class Bench:
    """What is being done waits here until it may be finished; `begun` by a new task, or not."""

    def __init__(self) -> None:
        self.begun: dict[int, bool] = {}
        self.may_end: dict[int, anyio.Event] = {}

    async def work(self, thing: int, _: Alarm) -> None:
        self.begun[thing] = not USED.get()
        USED.set(True)
        self.may_end[thing] = anyio.Event()
        await self.may_end[thing].wait()


async def test_things_are_done_side_by_side() -> None:
    bench = Bench()
    async with anyio.create_task_group() as tasks:
        hands = Hands(tasks, bench.work)
        for thing in range(3):
            hands.give(thing)
        await anyio.wait_all_tasks_blocked()
        assert bench.begun == {0: True, 1: True, 2: True}
        tasks.cancel_scope.cancel()


async def test_a_task_that_is_done_takes_the_next_thing() -> None:
    bench = Bench()
    async with anyio.create_task_group() as tasks:
        hands = Hands(tasks, bench.work)
        for thing in range(3):
            hands.give(thing)
            await anyio.wait_all_tasks_blocked()
            bench.may_end[thing].set()
            await anyio.wait_all_tasks_blocked()
        hands.dismiss()
    assert bench.begun == {0: True, 1: False, 2: False}


async def test_no_more_than_the_spare_ones_are_kept() -> None:
    bench = Bench()
    async with anyio.create_task_group() as tasks:
        hands = Hands(tasks, bench.work, spare=1)
        for thing in range(2):
            hands.give(thing)
        await anyio.wait_all_tasks_blocked()
        for thing in range(2):
            bench.may_end[thing].set()
        await anyio.wait_all_tasks_blocked()
        for thing in range(2, 4):
            hands.give(thing)
        await anyio.wait_all_tasks_blocked()
        assert sorted([bench.begun[2], bench.begun[3]]) == [False, True]
        tasks.cancel_scope.cancel()


async def test_who_is_dismissed_finishes_what_is_under_way() -> None:
    bench = Bench()
    finished: list[int] = []

    async def work(thing: int, alarm: Alarm) -> None:
        await bench.work(thing, alarm)
        finished.append(thing)

    async with anyio.create_task_group() as tasks:
        hands = Hands(tasks, work)
        hands.give(0)
        hands.give(1)
        await anyio.wait_all_tasks_blocked()
        bench.may_end[0].set()
        await anyio.wait_all_tasks_blocked()
        hands.dismiss()
        assert finished == [0]
        bench.may_end[1].set()
    assert finished == [0, 1]
