"""How long a pool keeps a session that nobody uses, and waits for one that is to end."""

import anyio
import pytest

from smtpproto.pool import Pool
from smtpproto.server import Server

from .clock import anyio_backend  # noqa: F401 - a fixture
from .test_pool import IMPATIENT, UNWILLING, sessions, to
from .wire import Wire, raw_server
from .world import ENVELOPE, MESSAGE, Box, running

pytestmark = pytest.mark.anyio


async def test_an_unused_session_is_closed_with_quit() -> None:
    heard = anyio.Event()

    async def behaviour(wire: Wire) -> None:
        await wire.play(f"{UNWILLING}C: QUIT\nS: 221 bye")
        await wire.rest()
        heard.set()

    async with raw_server(behaviour) as port, Pool(to(port), idle=0.02) as pool:
        await pool.deliver(ENVELOPE, MESSAGE)
        await heard.wait()


async def test_each_unused_session_has_its_own_time(box: Box) -> None:
    """One that is used again meanwhile, or is old sooner than it is idle."""
    server = Server(box)
    async with running(server) as port, Pool(to(port), idle=0.05) as pool:
        for _ in range(8):
            await pool.send(ENVELOPE, MESSAGE)
            await anyio.sleep(0.01)
        assert sessions(box) == [1] * 8
        await anyio.sleep(0.06)
        assert not server.dialogues
        await pool.send(ENVELOPE, MESSAGE)
        assert sessions(box)[-1] == 2
    async with running(server) as port, Pool(to(port), idle=1000, life=0.05) as pool:
        await pool.send(ENVELOPE, MESSAGE)
        await anyio.sleep(0.06)
        assert not server.dialogues


async def test_a_server_that_never_answers_quit_holds_up_nobody() -> None:
    heard: list[str] = []

    async def behaviour(wire: Wire) -> None:
        await wire.play(UNWILLING)
        heard.append(await wire.hear())
        await wire.rest()

    async with raw_server(behaviour) as port:
        async with Pool(to(port, deadlines=IMPATIENT), messages=1) as pool:
            for _ in range(3):
                await pool.deliver(ENVELOPE, MESSAGE)
        assert heard == ["QUIT"] * 3
