"""A server that answers what it likes: what is told is true, nothing is sent twice, all ends."""

import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress

import anyio
import pytest

from smtpproto import Envelope
from smtpproto.client import Client, ClientDeadlines
from smtpproto.pool import Pool
from smtpproto.result import ClientError, Fate

from .test_cancel import Recording, closed
from .wire import LOST, Wire, raw_server
from .world import clear

pytestmark = pytest.mark.anyio

IMPATIENT = ClientDeadlines(
    connect=5,
    greeting=0.2,
    ehlo=0.2,
    mail=0.2,
    rcpt=0.2,
    data=0.2,
    block=0.4,
    final_dot=0.3,
    quit=0.1,
    session=20,
)
OFFERED = (
    b"PIPELINING",
    b"CHUNKING",
    b"8BITMIME",
    b"SMTPUTF8",
    b"SIZE 1000000",
    b"SIZE " + b"9" * 5000,
    b"LIMITS MAILMAX=3 RCPTMAX=2 RCPTDOMAINMAX=9",
    b"LIMITS MAILMAX=0 RCPTMAX=-1 RCPTDOMAINMAX=" + b"9" * 500,
    b"\xff\xfe",
)
USUAL = {"greeting": b"220 hi\r\n", "DATA": b"354 go on\r\n", "QUIT": b"221 bye\r\n"}
GOOD = b"250 fine\r\n"
ODD: dict[str, Callable[[bytes], bytes]] = {
    "closing": lambda _: b"421 bye\r\n",
    "closing, at length": lambda _: b"421-bye\r\n421 bye\r\n",
    "later": lambda _: b"450 later\r\n",
    "never": lambda _: b"550 never\r\n",
    "challenge": lambda _: b"334 \r\n",
    "other code": lambda _: b"235 what\r\n",
    "eight bit": lambda good: good[:4] + b"\xe4\xf6\x1b[2J\r\n",
    "garbage": lambda _: b"\xff\x00nonsense\r\n",
    "bare": lambda good: good.replace(b"\r\n", b"\n"),
    "without end": lambda _: b"250-" + b"x" * 70_000 + b"\r\n",
    "lines without end": lambda _: b"250-x\r\n" * 12_000,
    "changing": lambda _: b"250-a\r\n550 b\r\n",
    "silence": lambda _: b"",
    "half": lambda good: good[:-1],
    "twice": lambda good: good + good,
    "more": lambda good: good + b"250-and another",
}


class Hostile:
    """Counts, by message, whose content began to arrive and whose was accepted."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.begun: Counter[int] = Counter()
        self.accepted: set[int] = set()

    async def __call__(self, wire: Wire) -> None:
        with suppress(*LOST, UnicodeDecodeError, anyio.BusyResourceError):
            await self._session(wire)

    async def _session(self, wire: Wire) -> None:
        offered = [each for each in OFFERED if self.random.random() < 0.5]
        await self._answer(wire, "greeting", offered)
        message: int | None = None
        while True:
            verb, *words = (await wire.hear()).split()
            if verb == "BDAT":
                octets = await wire.take(int(words[0]))
                if octets.startswith(b"X-Number: "):
                    message = self._begins(octets.split(b"\r\n")[0].decode())
                await self._answer(wire, verb, offered, message if words[1:] else None)
            elif await self._answer(wire, verb, offered) == b"3" and verb == "DATA":
                for line in await wire.hear_content():
                    if line.startswith("X-Number: "):
                        message = self._begins(line)
                await self._answer(wire, ".", offered, message)

    def _begins(self, line: str) -> int:
        number = int(line.partition(" ")[2])
        self.begun[number] += 1
        return number

    async def _answer(
        self, wire: Wire, verb: str, offered: list[bytes], message: int | None = None
    ) -> bytes:
        """Return the first octet of what was said."""
        reply = USUAL.get(verb, GOOD)
        if verb == "EHLO":
            *others, last = [b"hi", *offered]
            reply = b"".join(b"250-%b\r\n" % line for line in others) + b"250 %b\r\n" % last
        if self.random.random() < 0.06:
            oddity = self.random.choice([*ODD, "cut"])
            # Behind commands in one write, nobody could tell one that is too many from the next.
            if oddity in ("twice", "more") and b"PIPELINING" in offered:
                oddity = "closing"
            if oddity == "cut":
                raise anyio.EndOfStream
            reply = ODD[oddity](reply)
        if message is not None and reply.startswith(b"2"):
            self.accepted.add(message)
        await wire.send(reply)
        return reply[:1]


def messages(count: int, seed: int) -> Iterator[tuple[Envelope, bytes | AsyncIterator[bytes]]]:
    choice = random.Random(seed).choice

    async def in_pieces(content: bytes) -> AsyncIterator[bytes]:
        for at in range(0, len(content), 30_000):
            yield content[at : at + 30_000]

    for number in range(count):
        content = b"X-Number: %d\r\n\r\n" % number + b"y" * choice([1, 100_000]) + b"\r\n"
        rcpts = [f"bob@{each}.example" for each in "abc"[: choice([1, 1, 3])]]
        envelope = Envelope("ann@example.org", rcpts)
        yield envelope, choice([lambda octets: octets, in_pieces])(content)


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_a_server_answers(seed: int) -> None:
    server = Hostile(seed)
    connector = Recording()

    def connect(port: int) -> Client:
        return clear(port, deadlines=IMPATIENT, connector=connector)

    fates: Counter[Fate] = Counter()
    async with raw_server(server) as port, Pool(lambda: connect(port), hold_off=0) as pool:
        with anyio.fail_after(60):
            async with pool.send_many(messages(60, seed)) as outcomes:
                async for sent in outcomes:
                    assert sent.error is None or isinstance(sent.error, ClientError)
                    fates.update(outcome.fate for outcome in sent.result.outcomes)
                    assert server.begun[sent.number] <= 1
                    if sent.result.any_accepted:
                        assert sent.number in server.accepted
                    assert str(sent.result).replace("\n", " ").isprintable()
    assert server.begun.total() > 20
    assert fates[Fate.ACCEPTED]
    assert fates[Fate.TRANSIENT]
    assert all(map(closed, connector.streams))
