"""A server that falls, at every moment and in every way: what its client makes of that."""

import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from itertools import count
from typing import Any

import anyio
import pytest
from anyio.abc import ByteStream

from smtpproto import Envelope
from smtpproto.client import Client, ClientDeadlines
from smtpproto.pool import Pool
from smtpproto.result import ClientError, Fate, Result
from tests.adapters.clock import anyio_backend  # noqa: F401 - a fixture
from tests.adapters.wire import HOST, LOST, Wire, raw_server
from tests.adapters.world import Certificates, clear

from .falling import fall, secure
from .moments import MOMENTS, RECIPIENTS, TLS, Moment, Turn

pytestmark = pytest.mark.anyio

SHORT = 0.03
ENVELOPE = Envelope("ann@example.org", RECIPIENTS)
CONTENT = b"Subject: x\r\n\r\nand the end\r\n"
PIECE = b"Subject: x\r\n" + b"and on and on\r\n" * 4680  # of more than 64 KiB

#: What is said of it, where there is no reply that says so.
REASONS = {
    "closed": "closed the connection|EndOfStream|reset by peer|Broken pipe",
    "reset": "reset by peer|Broken pipe|refused|Connect call failed",
    "half-closed": "closed the connection|EndOfStream",
    "silent": "no progress within the {deadline} deadline",
    "421": "421|wrong version number",
    "nonsense": "reply|wrong version number",
}

SAID = {"421": b"421 4.3.2 bye\r\n", "nonsense": b"well\r\n"}


class Falling:
    """A server that plays a moment, and falls; whoever comes then is served as it should be.

    With `kept`, there is a whole message before, in the same session.
    """

    def __init__(self, moment: Moment, ending: str, tls: Certificates, *, kept: bool) -> None:
        self.moment, self.ending, self.tls, self.kept = moment, ending, tls, kept
        opening, message = moment.dialogue.opening, moment.dialogue.message
        self.whole = (*opening, *message)
        self.turns = (*opening, *message, *moment.turns[len(opening) :]) if kept else moment.turns
        self.sessions = count(1)
        self.fallen = anyio.Event()

    async def __call__(self, wire: Wire) -> None:
        first = next(self.sessions) == 1
        with suppress(*LOST):
            await self.play(wire, self.turns if first else self.whole)
            if first:
                await self.hear(wire, self.moment.awaited)
                await self.fall(wire)
            else:
                await wire.rest()

    async def play(self, wire: Wire, turns: tuple[Turn, ...]) -> None:
        for turn in turns:
            if turn is TLS:
                await secure(wire, self.tls.server, server_side=True)
            else:
                await self.hear(wire, turn[0])
                await wire.send(turn[1])

    async def hear(self, wire: Wire, awaited: bytes) -> None:
        heard = b""
        while awaited not in heard:
            heard += await wire.receive()

    async def fall(self, wire: Wire) -> None:
        await fall(wire, self.ending, self.moment.half, self.fallen)
        if self.ending in SAID:
            await wire.send(SAID[self.ending])
        if self.ending == "silent":
            await anyio.sleep_forever()
        if self.ending not in ("closed", "reset"):
            await wire.rest()

    def content(self) -> bytes | AsyncIterator[bytes]:
        """What to send: in the midst of it the server falls, if that is the moment."""
        return self.pieces() if self.moment.content else CONTENT

    async def pieces(self) -> AsyncIterator[bytes]:
        endless = self.moment.endless or self.ending in ("closed", "reset", "silent")
        while endless or not self.fallen.is_set():
            yield PIECE
            await anyio.lowlevel.checkpoint()

    def client(self, port: int) -> Client:
        own = self.moment.deadline if self.ending == "silent" else "quit"
        options: dict[str, Any] = {
            "tls": "none",
            "ssl_context": self.tls.trusting,
            "deadlines": ClientDeadlines(**{"quit": SHORT, own: SHORT}),
            "server_name": "localhost",
            **self.moment.dialogue.options,
        }
        if not self.moment.connected:
            options["connector"] = connecting(self.ending)
        return clear(port, **options)


def connecting(ending: str) -> Callable[[str, int], Any]:
    """What a moment before there is a connection means: refused, or no answer at all."""

    async def connector(host: str, port: int) -> ByteStream:
        if ending == "silent":
            await anyio.sleep_forever()
        with socket.socket() as bound:  # and it does not listen
            bound.bind((HOST, 0))
            return await anyio.connect_tcp(*bound.getsockname())

    return connector


def word_of(moment: Moment, result: Result) -> str:
    """The outcome of the last recipient; those of the others have to fit."""
    first, refused, last = result.outcomes
    assert first.fate.value == moment.first or first.fate is last.fate
    answered = last.accepted or b"550" in b"".join(said for _, said in moment.turns)
    assert refused.fate is (Fate.PERMANENT if answered else last.fate)
    return last.fate.value


async def reported(moment: Moment, deliver: Callable[[], Awaitable[Result]]) -> tuple[str, str]:
    """What that comes to, in the page's word, and why."""
    try:
        result = await deliver()
    except ClientError as error:
        return type(error).__name__, str(error)
    last = result.outcomes[-1]
    return word_of(moment, result), last.reason or str(last.reply)


ROWS = [(moment, ending) for moment in MOMENTS for ending in moment.outcomes]
EVERY_ROW = pytest.mark.parametrize(
    ("moment", "ending"), ROWS, ids=[f"{moment.name}, {ending}" for moment, ending in ROWS]
)
# In a pool, of a session that is opened for the message, and of one that it has kept.
POOLED = [
    (moment, ending, kept)
    for moment, ending in ROWS
    for kept in (False, True)
    if moment.within_a_message or not kept
]


@EVERY_ROW
async def test_what_the_client_reports(moment: Moment, ending: str, tls: Certificates) -> None:
    falling = Falling(moment, ending, tls, kept=False)

    async def deliver() -> Result:
        async with falling.client(port) as client:
            result = await client.deliver(ENVELOPE, falling.content())
            assert client.usable is result.outcomes[-1].accepted
        return result

    with anyio.fail_after(20):
        async with raw_server(falling) as port:
            word, reason = await reported(moment, deliver)
    assert word == moment.outcomes[ending]
    if word != "accepted":
        assert re.search(REASONS[ending].format(deadline=moment.deadline), reason), reason


@pytest.mark.parametrize(
    ("moment", "ending", "kept"),
    POOLED,
    ids=[f"{moment.name}, {ending}{', kept' * kept}" for moment, ending, kept in POOLED],
)
async def test_what_a_pool_does(moment: Moment, ending: str, kept: bool, tls: Certificates) -> None:
    """What the client does; a kept session may be replaced, but only behind MAIL."""
    falling = Falling(moment, ending, tls, kept=kept)

    def client() -> Client:
        return falling.client(port)

    with anyio.fail_after(20):
        async with raw_server(falling) as port, Pool(client) as pool:
            if falling.kept:
                before = await reported(moment, lambda: pool.deliver(ENVELOPE, CONTENT))
                assert before[0] == "accepted"
            word, _ = await reported(moment, lambda: pool.deliver(ENVELOPE, falling.content()))
    replaced = falling.kept and moment.replaced
    assert word == ("accepted" if replaced else moment.outcomes[ending])
