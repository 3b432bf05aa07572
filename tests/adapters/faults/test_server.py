"""A client that falls, a handler that fails, a server that stops, at every moment of a session."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from smtpproto.server import Server, ServerDeadlines
from tests.adapters.clock import anyio_backend  # noqa: F401 - a fixture
from tests.adapters.test_server import stoppable
from tests.adapters.wire import connect
from tests.adapters.world import ENVELOPE, MESSAGE, Certificates, clear, until
from tests.adapters.world import running as running_for_ever

from .falling import codes, fall, go_through
from .places import DRAINS, FAILURES, PLACES, Drain, Failure, Place
from .witness import Witness

pytestmark = pytest.mark.anyio

SHORT = 0.05
FALLS = ("closed", "reset", "half-closed", "silent")
FAILS = ("raises", "waits", "hangs up", "cancelled")


@asynccontextmanager
async def running(server: Server) -> AsyncIterator[int]:
    """Run it, for a while: no test here may hang."""
    with anyio.fail_after(20):
        async with running_for_ever(server) as port:
            yield port


def serving(
    witness: Witness, tls: Certificates, options: Mapping[str, Any], deadlines: Mapping[str, float]
) -> Server:
    return Server(
        witness,
        tls=tls.server,
        authenticator=witness,
        plaintext_auth="always",
        failed_login_delay=0.001,
        deadlines=ServerDeadlines(**deadlines),
        **options,
    )


@pytest.mark.parametrize("ending", FALLS)
@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.name)
async def test_a_client_falls(
    place: Place, ending: str, tls: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    """And nothing is logged of it, and the next client is served."""
    # What has come to its end is held until the client has fallen.
    witness = Witness("end of content", "holds")
    deadlines: dict[str, float] = {}
    if ending == "silent" and place.deadline:
        deadlines[place.deadline] = SHORT
    server = serving(witness, tls, place.options, deadlines)
    async with running(server) as port:
        async with await connect(port) as wire:
            await go_through(wire, place.steps, tls.trusting)
            if place.taken:
                await wire.send(place.half.encode())
                await witness.there.wait()
                await fall(wire, ending)
            else:
                await fall(wire, ending, place.half.encode())
            witness.go.set()
            if ending not in ("closed", "reset"):
                heard = codes(await wire.rest())
                assert heard == (place.silent if ending == "silent" else place.half_closed)
        await until(lambda: not server.dialogues)
        assert witness.saw[-2:] == ([place.sees, "closed"] if place.sees else [])
        assert bool(witness.taken) is place.taken
        if not place.options:
            async with clear(port) as client:
                await client.send(ENVELOPE, MESSAGE)
    assert caplog.text == ""


@pytest.mark.parametrize("does", FAILS)
@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.power)
async def test_a_handler_fails(
    failure: Failure, does: str, tls: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    """No mail is taken, and nothing of an exception reaches the client."""
    power = failure.power.partition(",")[0]
    at_once = power in ("connect", "content")  # else it is not to fail on the way there
    witness = Witness(power if at_once else "", "waits" if does == "cancelled" else does)
    deadlines = {"handler": SHORT} if does == "waits" else {}
    server = serving(witness, tls, failure.options, deadlines)
    async with running(server) as port:
        wire = await connect(port)
        await go_through(wire, failure.steps, tls.trusting)
        witness.where = power
        await wire.send(failure.asks.encode())
        if does in ("raises", "waits"):
            expected = failure.raises if does == "raises" else failure.waits
            replies = [await wire.reply() for _ in expected.split(", ")]
            assert codes("\r\n".join(replies).encode()) == expected
            assert "secret" not in "".join(replies)
            if expected == "421":
                assert await wire.rest() == b""
            else:
                witness.where = ""
                assert (await wire.ask("NOOP")).startswith("250")
        elif does == "hangs up":
            assert await wire.rest() == b""
        else:
            await witness.there.wait()
    if does == "cancelled":
        assert await wire.rest() == b""
    await anyio.aclose_forcefully(wire.stream)
    assert witness.taken == []
    assert witness.saw[-1] == "closed"
    assert (f"{power} cancelled" in witness.saw) is (does in ("waits", "cancelled"))
    logged = {
        "raises": ["a handler failed in session", "Traceback", "the secret of the house"],
        "waits": ["a handler took longer than"],
    }.get(does, [])
    assert all(text in caplog.text for text in logged)
    assert bool(caplog.text) is bool(logged)


@pytest.mark.parametrize("drain", DRAINS, ids=lambda drain: drain.name)
@pytest.mark.parametrize("goes_on", [True, False], ids=["it goes on", "it says nothing"])
async def test_a_server_stops(
    drain: Drain, goes_on: bool, tls: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    witness = Witness(drain.holds, "holds")
    server = serving(witness, tls, drain.options, {} if goes_on else {"drain": SHORT})
    async with stoppable(server) as (port, _), await connect(port) as wire:
        await go_through(wire, drain.steps, tls.trusting)
        taken = len(witness.taken)
        if drain.half:
            await wire.send(drain.half.encode())
        if drain.holds:
            await witness.there.wait()
        server.stop()
        if goes_on and not drain.at_once:
            witness.go.set()
            await go_through(wire, drain.goes_on, tls.trusting)
        expected = drain.at_once or (drain.hears if goes_on else drain.behind)
        assert codes(await wire.rest()) == expected
    assert witness.saw[-1] == "closed"
    assert len(witness.taken) - taken == (goes_on and drain.takes)
    assert caplog.text == ""
