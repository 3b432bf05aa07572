"""The tests' own clock."""

import time

import anyio
import pytest

from .clock import QUIET, anyio_backend  # noqa: F401 - a fixture

pytestmark = pytest.mark.anyio


async def test_a_day_passes_at_once() -> None:
    with anyio.fail_after(1e9):
        before = anyio.current_time()
        await anyio.sleep(80_000)
        assert anyio.current_time() - before == 80_000


async def test_time_stands_still_while_somebody_works() -> None:
    before = anyio.current_time()
    with anyio.fail_after(QUIET):
        time.sleep(2 * QUIET)  # noqa: ASYNC251 - the point
        await anyio.lowlevel.checkpoint()
    assert anyio.current_time() == before


async def test_a_thread_is_waited_for() -> None:
    before = anyio.current_time()
    with anyio.fail_after(1):
        await anyio.to_thread.run_sync(time.sleep, 3 * QUIET)
    assert anyio.current_time() == before


async def test_a_name_that_is_looked_up_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(*_: object) -> list[object]:
        time.sleep(3 * QUIET)
        return []

    monkeypatch.setattr("socket.getaddrinfo", slowly)
    before = anyio.current_time()
    with anyio.fail_after(1):
        assert await anyio.getaddrinfo("mx.example", 25) == []
    assert anyio.current_time() == before
