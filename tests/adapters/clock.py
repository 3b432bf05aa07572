"""A clock that stands still while anybody has something to do, and jumps when all only wait for it.

So no deadline is missed because the machine was busy, and no time has to be spent. Sockets are
real, and threads are waited for; what other processes do is not seen. For a module:
`from tests.adapters.clock import anyio_backend`.
"""

import asyncio
import math
import selectors
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple

import anyio
import pytest
import sniffio
import trio
from trio.testing import MockClock

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

#: Seconds, by the real clock, in which nothing must have come before time passes: octets may be on
#: their way through the kernel. What takes less than that takes as long as it says.
QUIET = 0.05


class Quiet(selectors.DefaultSelector):
    """Where the loop would wait for its next timer, it waits until nothing comes any more."""

    passed = 0.0
    working: Callable[[], bool]

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        events = super().select(min(timeout, QUIET))
        if not events and not self.working():
            self.passed += timeout
        return events


class Loop(asyncio.SelectorEventLoop):
    """asyncio's, by such a clock."""

    def __init__(self) -> None:
        self._quiet = Quiet()
        self._quiet.working = self._threads_work
        self._executing: set[asyncio.Future[Any]] = set()
        super().__init__(self._quiet)

    def time(self) -> float:
        return self._quiet.passed

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:  # where names are looked up
        future = super().run_in_executor(executor, func, *args)
        self._executing.add(future)
        future.add_done_callback(self._executing.discard)
        return future

    def _threads_work(self) -> bool:
        sniffio.thread_local.name = "asyncio"  # no task asks here, but the loop
        try:
            limiter = anyio.to_thread.current_default_thread_limiter()
        finally:
            sniffio.thread_local.name = None
        return bool(self._executing or limiter.borrowed_tokens)


class Threads(trio.abc.Instrument):
    """Has trio's clock stand still while a thread works."""

    def __init__(self, clock: MockClock) -> None:
        self._clock = clock

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        working = trio.to_thread.current_default_thread_limiter().borrowed_tokens
        self._clock.autojump_threshold = math.inf if working else QUIET


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Run each async test on both event loops, by that clock."""
    if request.param == "asyncio":
        return "asyncio", {"loop_factory": Loop}
    clock = MockClock(autojump_threshold=QUIET)
    return "trio", {"clock": clock, "instruments": [Threads(clock)]}
