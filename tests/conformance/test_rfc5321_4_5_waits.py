"""RFC 5321 §4.5.3.2: either end waits as long as it has to.

Minutes pass here in no time: the clock is trio's own for tests, which jumps ahead whenever nobody
has anything to do. asyncio has none; that both loops keep the deadlines, tests/adapters shows.
"""

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import pytest
from anyio.abc import ByteStream
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from trio.testing import MockClock

from smtpproto import Envelope
from smtpproto.client import Client, ClientDeadlines
from smtpproto.result import Result
from smtpproto.server import Server
from smtpproto.source import CHUNK
from tests.adapters.wire import Wire
from tests.adapters.world import ENVELOPE, Box

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, MockClock]]:
    return "trio", {"clock": MockClock(autojump_threshold=0)}


class End(ByteStream):
    """One end of a pipe in memory, where what is sent waits until it is read."""

    def __init__(
        self, source: MemoryObjectReceiveStream[bytes], sink: MemoryObjectSendStream[bytes]
    ) -> None:
        self.source, self.sink = source, sink

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        return await self.source.receive()

    async def send(self, item: bytes) -> None:
        await self.sink.send(item)

    async def send_eof(self) -> None:
        self.sink.close()

    async def aclose(self) -> None:
        self.source.close()
        self.sink.close()


def pipe() -> tuple[End, End]:
    there, read_there = anyio.create_memory_object_stream[bytes]()
    here, read_here = anyio.create_memory_object_stream[bytes]()
    return End(read_here, there), End(read_there, here)


DEFAULT = ClientDeadlines()
Pause = Callable[[str], Awaitable[None]]


async def slow_server(stream: End, pause: Pause, blocks: int) -> None:
    """Serve one transaction of so many blocks, with a pause before everything it does."""
    wire = Wire(stream)
    await pause("greeting")
    await wire.say("220 mx.example")
    await wire.hear()
    await wire.say("250 mx.example")
    while (line := await wire.hear()) != "DATA":
        await pause(line[:4].lower())
        await wire.say("250 ok")
    await pause("data")
    await wire.say("354 go")
    content = b""
    for _ in range(blocks):
        await pause("block")
        content += await wire.receive()
    assert content.endswith(b"\r\n.\r\n")
    await pause("final_dot")
    await wire.say("250 ok")
    await wire.rest()


@asynccontextmanager
async def client_of(
    server: Callable[[End], Coroutine[Any, Any, None]], **options: Any
) -> AsyncIterator[Client]:
    ours, theirs = pipe()

    async def connect(host: str, port: int) -> ByteStream:
        return ours

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server, theirs)
        async with (
            theirs,
            Client("mx.example", 25, tls="none", connector=connect, **options) as client,
        ):
            yield client
        tasks.cancel_scope.cancel()


async def delivered(
    pauses: Mapping[str, float],
    content: bytes = b"x\r\n",
    *,
    envelope: Envelope = ENVELOPE,
    deadlines: ClientDeadlines = DEFAULT,
) -> Result:
    """What becomes of a message at a server that pauses so many seconds before these things."""

    async def pause(name: str) -> None:
        await anyio.sleep(pauses.get(name, 0))

    server = partial(slow_server, pause=pause, blocks=math.ceil(len(content) / CHUNK))
    async with client_of(server, deadlines=deadlines) as client:
        return await client.deliver(envelope, content)


MINUTE = 60
#: The least that a client waits for (§4.5.3.2.1-6).
PATIENCE = {
    "greeting": 5 * MINUTE,
    "mail": 5 * MINUTE,
    "rcpt": 5 * MINUTE,
    "data": 2 * MINUTE,
    "block": 3 * MINUTE,
    "final_dot": 10 * MINUTE,
}
ROWS = {
    "greeting": "5321 §4.5.3.2.1 greeting-is-waited-for",
    "rcpt": "5321 §4.5.3.2.3 reply-to-rcpt-is-waited-for",
    "data": "5321 §4.5.3.2.4 354-is-waited-for-two-minutes",
    "block": "5321 §4.5.3.2.5 block-is-waited-for-three-minutes",
    "final_dot": "5321 §4.5.3.2.6 verdict-is-waited-for-ten-minutes",
}


@pytest.mark.rfc("5321 §4.5.3.2 timers-have-minima")
@pytest.mark.parametrize(
    ("step", "least"),
    [
        pytest.param(step, least, marks=pytest.mark.rfc(ROWS[step]) if step in ROWS else ())
        for step, least in PATIENCE.items()
    ],
)
async def test_a_client_waits_at_least_so_long(step: str, least: float) -> None:
    assert (await delivered({step: least - 1})).all_accepted


@pytest.mark.rfc("5321 §4.5.3.2 per-command-timers")
async def test_the_timer_begins_anew_with_each_command() -> None:
    """Together they take three times as long as one of them may."""
    almost = {name: seconds - 1 for name, seconds in PATIENCE.items()}
    recipients = [f"r{number}@example.net" for number in range(4)]
    result = await delivered(almost, envelope=Envelope("a@b.example", recipients))
    assert result.all_accepted


@pytest.mark.rfc("5321 §4.5.3.2 timer-for-each-buffer")
async def test_the_timer_begins_anew_with_each_block_of_content() -> None:
    content = b"x" * 70 + b"\r\n" * 150_000
    assert (await delivered({"block": 179}, content)).all_accepted
    result = await delivered({"block": math.inf}, content)
    assert "the block deadline" in str(result)


@pytest.mark.rfc("5321 §4.5.3.2 timers-can-be-set", "5321 §4.5.3.2.3 timer-of-rcpt-can-be-longer")
@pytest.mark.parametrize("step", PATIENCE)
async def test_each_timer_can_be_made_longer_or_shorter(step: str) -> None:
    assert (await delivered({step: 3000}, deadlines=ClientDeadlines(**{step: 3001}))).all_accepted
    if step != "greeting":  # where there is no session yet
        impatient = ClientDeadlines(**{step: 2})
        result = await delivered({step: 3}, deadlines=impatient)
        assert f"the {step} deadline of 2 s" in str(result)


@pytest.mark.rfc("5321 §4.5.3.2.7 server-waits-five-minutes", "5321 §4.5.3.2 timers-have-minima")
async def test_a_server_waits_five_minutes_for_each_command() -> None:
    box = Box()
    ours, theirs = pipe()
    async with anyio.create_task_group() as tasks, Wire(ours) as wire:
        tasks.start_soon(Server(box).serve_stream, theirs)
        assert (await wire.reply()).startswith("220")
        for line in ("EHLO c", "NOOP", "MAIL FROM:<a@b>", "RCPT TO:<c@d>", "DATA"):
            await anyio.sleep(5 * MINUTE - 1)
            assert (await wire.ask(line))[0] in "23"
        assert (await wire.ask("x", ".")).startswith("250")
        await anyio.sleep(5 * MINUTE - 1)
        assert (await wire.ask("QUIT")).startswith("221")
    assert len(box.received) == 1
