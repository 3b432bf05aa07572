"""A clock that stands still while anybody has something to do, and jumps when all only wait for it.

So no deadline is missed because the machine was busy, and no time has to be spent. Sockets are
real; what threads and other processes do is not seen. For a module: `from .clock import
anyio_backend`.
"""

import asyncio
import selectors
from typing import Any

import pytest
from trio.testing import MockClock

#: Seconds, by the real clock, in which nothing must have come before time passes: octets may be on
#: their way through the kernel. What takes less than that takes as long as it says.
QUIET = 0.05


class Quiet(selectors.DefaultSelector):
    """Where the loop would wait for its next timer, it waits until nothing comes any more."""

    passed = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        events = super().select(min(timeout, QUIET))
        if not events:
            self.passed += timeout
        return events


class Loop(asyncio.SelectorEventLoop):
    """asyncio's, by such a clock."""

    def __init__(self) -> None:
        self._quiet = Quiet()
        super().__init__(self._quiet)

    def time(self) -> float:
        return self._quiet.passed


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Run each async test on both event loops, by that clock."""
    if request.param == "asyncio":
        return "asyncio", {"loop_factory": Loop}
    return "trio", {"clock": MockClock(autojump_threshold=QUIET)}
