"""Tasks that are kept for the next thing to do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

import anyio
import pytest

from smtpproto.relay.delivery.hands import Hands

pytestmark = pytest.mark.anyio


#: Set in a task that has done something.
USED: ContextVar[bool] = ContextVar("USED", default=False)


class Bench:
    """What is being done waits here until it may be finished; `begun` by a new task, or not."""

    hands: Hands[int]

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
        self.finished.append(thing)
        await anyio.lowlevel.checkpoint()
        self.ends[thing].set()

    async def begin(self, *things: int) -> None:
        for thing in things:
            self.hands.give(thing)
        await anyio.wait_all_tasks_blocked()

    async def end(self, *things: int) -> None:
        for thing in things:
            self.may_end[thing].set()
        await anyio.wait_all_tasks_blocked()


@asynccontextmanager
async def at(bench: Bench, patience: float = 60, spare: int = 100) -> AsyncIterator[Bench]:
    """Hands at a bench, who are dismissed with the block and have to end then."""
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            bench.hands = Hands(tasks, bench.work, bench.finish, lambda: patience, spare=spare)
            yield bench
            bench.hands.dismiss()


async def test_things_are_done_side_by_side() -> None:
    async with at(Bench()) as bench:
        await bench.begin(0, 1, 2)
        assert bench.begun == {0: True, 1: True, 2: True}
        await bench.end(0, 1, 2)


async def test_a_task_that_is_done_takes_the_next_thing() -> None:
    async with at(Bench()) as bench:
        for thing in range(3):
            await bench.begin(thing)
            await bench.end(thing)
    assert bench.begun == {0: True, 1: False, 2: False}


async def test_no_more_than_the_spare_ones_are_kept() -> None:
    async with at(Bench(), spare=1) as bench:
        await bench.begin(0, 1)
        await bench.end(0, 1)
        await bench.begin(2, 3)
        assert sorted([bench.begun[2], bench.begun[3]]) == [False, True]
        await bench.end(2, 3)


async def test_who_is_dismissed_finishes_what_is_under_way() -> None:
    async with at(Bench()) as bench:
        await bench.begin(0, 1)
        await bench.end(0)
        bench.hands.dismiss()
        assert bench.finished == [0]
        await bench.end(1)
        assert bench.finished == [0, 1]


async def test_what_takes_too_long_is_cut_off_and_finished_and_the_task_goes_on() -> None:
    async with at(Bench(), patience=0.01) as bench:
        for thing in range(2):
            bench.hands.give(thing)
            await bench.ends[thing].wait()
    assert bench.begun == {0: True, 1: False}


async def test_what_ends_at_the_last_moment_is_finished_once() -> None:
    """The alarm has rung already, and is not for what comes behind."""

    class Deaf(Bench):
        async def work(self, thing: int) -> None:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.05)

    async with at(Deaf(), patience=0.01) as bench:
        bench.hands.give(0)
    assert bench.finished == [0]
    assert bench.ends[0].is_set()
