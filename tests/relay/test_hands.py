"""Tasks that are kept for the next thing to do."""

from __future__ import annotations

from contextvars import ContextVar

import anyio
import pytest

from smtpproto.relay.delivery.hands import Hands

pytestmark = pytest.mark.anyio


#: Set in a task that has done something.
USED: ContextVar[bool] = ContextVar("USED", default=False)


class Bench:
    """What is being done waits here until it may be finished; `begun` by a new task, or not."""

    def __init__(self) -> None:
        self.begun: dict[int, bool] = {}
        self.may_end: dict[int, anyio.Event] = {}
        self.finished: list[int] = []
        self.ends = [anyio.Event() for _ in range(4)]

    async def work(self, thing: int) -> None:
        self.begun[thing] = not USED.get()
        USED.set(True)
        self.may_end[thing] = anyio.Event()
        await self.may_end[thing].wait()

    async def finish(self, thing: int) -> None:
        await anyio.lowlevel.checkpoint()
        self.finished.append(thing)
        self.ends[thing].set()


async def test_things_are_done_side_by_side() -> None:
    bench = Bench()
    async with anyio.create_task_group() as tasks:
        hands = Hands(tasks, bench.work, bench.finish, lambda: 60)
        for thing in range(3):
            hands.give(thing)
        await anyio.wait_all_tasks_blocked()
        assert bench.begun == {0: True, 1: True, 2: True}
        tasks.cancel_scope.cancel()


async def test_a_task_that_is_done_takes_the_next_thing() -> None:
    bench = Bench()
    async with anyio.create_task_group() as tasks:
        hands = Hands(tasks, bench.work, bench.finish, lambda: 60)
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
        hands = Hands(tasks, bench.work, bench.finish, lambda: 60, spare=1)
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
    async with anyio.create_task_group() as tasks:
        hands = Hands(tasks, bench.work, bench.finish, lambda: 60)
        hands.give(0)
        hands.give(1)
        await anyio.wait_all_tasks_blocked()
        bench.may_end[0].set()
        await anyio.wait_all_tasks_blocked()
        hands.dismiss()
        assert bench.finished == [0]
        bench.may_end[1].set()
    assert bench.finished == [0, 1]


async def test_what_takes_too_long_is_cut_off_and_finished_and_the_task_goes_on() -> None:
    bench = Bench()
    async with anyio.create_task_group() as tasks:
        hands = Hands(tasks, bench.work, bench.finish, lambda: 0.01)
        for thing in range(2):
            hands.give(thing)
            await bench.ends[thing].wait()
        hands.dismiss()
    assert bench.begun == {0: True, 1: False}


async def test_what_ends_at_the_last_moment_is_finished_once() -> None:
    """The alarm has rung already, and is not for what comes behind."""
    bench = Bench()

    async def work(thing: int) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.05)

    async with anyio.create_task_group() as tasks:
        hands = Hands(tasks, work, bench.finish, lambda: 0.01)
        hands.give(0)
        hands.dismiss()
    assert bench.finished == [0]
