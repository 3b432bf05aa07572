"""Who is sent away: hears why, whatever was still on its way, and has to go."""

import pytest

from smtpproto import Limits
from smtpproto.server import Server, ServerDeadlines

from .clock import anyio_backend  # noqa: F401 - a fixture
from .wire import connect
from .world import Box, Certificates, running, until

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("secure", [False, True])
async def test_who_is_sent_away_hears_why(secure: bool, box: Box, tls: Certificates) -> None:
    """A client that talks without listening has the replies before the 421, and the 421.

    A socket closed with input unread would take them back.
    """
    server = Server(
        box,
        tls=tls.server,
        limits=Limits(bad_commands=3),
        deadlines=ServerDeadlines(linger=0.2),
    )
    async with running(server) as port, await connect(port) as wire:
        await wire.reply()
        if secure:
            await wire.ask("EHLO client.example")
            await wire.ask("STARTTLS")
            await wire.start_tls(tls.trusting, server_side=False)
        await wire.send(b"WHAT\r\n" * 10_000)
        await until(lambda: not server.dialogues)
        replies = (await wire.rest()).decode().splitlines()
    assert [reply[:3] for reply in replies] == ["500", "500", "500", "421"]


async def test_who_does_not_go_is_cut_off(box: Box) -> None:
    """We listen to the rest for as long as that takes, within `linger`, and no longer."""
    server = Server(box, limits=Limits(bad_commands=0), deadlines=ServerDeadlines(linger=0.05))
    async with running(server) as port, await connect(port) as wire:
        await wire.reply()
        assert (await wire.ask("WHAT")).startswith("421")
        await until(lambda: not server.dialogues)
        assert await wire.rest() == b""
