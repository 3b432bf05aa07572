"""One event loop that does the same thing each time: its clock, its order of tasks, its threads.

Trio shuffles the tasks that could run, and has a switch to shuffle them by a seed, which is what
Hypothesis uses. Its MockClock jumps to the next deadline when nobody has anything to do, so days
pass as fast as what happens in them. What would run in a thread runs at once, after as long as a
disk takes; anyio's one function for that is replaced for the while.
"""

import gc
import itertools
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar
from unittest.mock import patch

import anyio
import anyio.to_thread
import trio
import trio._core._run as scheduler
from attrs import define, field
from trio.testing import MockClock

__all__ = ["LIFE", "Died", "Life", "bury", "run"]

T = TypeVar("T")


class Died(BaseException):
    """The process that this task belongs to is no more: nothing it does has any effect."""


@define(eq=False)
class Life:
    """A process of a node, from its start to its end. It may be told when to die.

    `steps` counts what it did to its disk and to its connections: before and after each of these
    it may be dead.
    """

    node: Any
    number: int
    fatal: int | None = None
    die: Callable[[], None] = lambda: None
    dead: bool = False
    refused: bool = False  # it ended, and its disk would not take what it had to say
    buried: bool = False  # nothing of it is left, and what is closed now was open
    steps: int = 0
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    died: anyio.Event = field(factory=anyio.Event)
    ended: anyio.Event = field(factory=anyio.Event)

    def step(self) -> None:
        """Go on, or die here. Raises Died."""
        if self.buried:
            return
        self.steps += 1
        if self.steps == self.fatal and not self.dead:
            self.die()
        if self.dead:
            raise Died


#: Whose task this is; None: of the world outside.
LIFE: ContextVar[Life | None] = ContextVar("LIFE", default=None)


def run(seed: int, main: Callable[[random.Random], Awaitable[T]]) -> T:
    """Run `main` with the dice that all the world is thrown with."""
    dice = random.Random(seed)

    async def begin() -> T:
        return await main(dice)

    with _still(dice):
        return anyio.run(
            begin, backend="trio", backend_options={"clock": MockClock(autojump_threshold=0)}
        )


@contextmanager
def _still(dice: random.Random) -> Iterator[None]:
    """Take from the loop what comes from outside: luck, threads, and when garbage is found."""
    collected = gc.isenabled()

    async def at_once(
        work: Callable[..., Any], *args: Any, abandon_on_cancel: bool = False, limiter: Any = None
    ) -> Any:
        await trio.lowlevel.checkpoint_if_cancelled()
        turn = object()
        if limiter is not None:
            await limiter.acquire_on_behalf_of(turn)
        try:
            with trio.CancelScope(shield=True):
                return await _after_a_while(dice, work, *args)
        finally:
            if limiter is not None:
                limiter.release_on_behalf_of(turn)

    with (
        patch.object(scheduler, "_ALLOW_DETERMINISTIC_SCHEDULING", True),
        patch.object(scheduler, "_r", random.Random(dice.getrandbits(64))),
        patch.object(anyio.to_thread, "run_sync", at_once),
    ):
        gc.disable()
        try:
            yield
        finally:
            if collected:
                gc.enable()


async def _after_a_while(dice: random.Random, work: Callable[..., T], *args: Any) -> T:
    life = LIFE.get()
    if life is not None:
        life.step()
    await _latency(dice)
    if life is not None and life.dead:
        raise Died
    result = work(*args)
    if life is not None:
        life.step()
    await trio.lowlevel.cancel_shielded_checkpoint()
    if life is not None and life.dead:
        raise Died
    return result


async def _latency(dice: random.Random) -> None:
    """Take as long as a disk: mostly next to nothing, now and then a lot."""
    luck = dice.random()
    if luck < 0.9:
        await trio.lowlevel.cancel_shielded_checkpoint()
    else:
        await trio.sleep(0.02 if luck < 0.995 else 2.0)


async def bury(life: Life, tasks: Sequence[trio.lowlevel.Task]) -> None:
    """Return when no task of a dead process is left: of `tasks`, or below them.

    Whatever shields itself from cancellation is no longer shielded: SIGKILL asks nobody.
    """
    life.scope.cancel()
    while not life.ended.is_set():
        for each in itertools.chain.from_iterable(map(_below, tasks)):
            status: Any = each._cancel_status
            while status is not None and status._scope is not life.scope:
                if status._scope.shield:
                    status._scope.shield = False
                status = status._parent
        await trio.lowlevel.checkpoint()


def _below(task: trio.lowlevel.Task) -> Iterator[trio.lowlevel.Task]:
    waiting = [task]
    while waiting:
        task = waiting.pop()
        yield task
        for nursery in task.child_nurseries:
            waiting += sorted(nursery.child_tasks, key=lambda each: each._counter)
