"""A server under hundreds of clients who do everything wrong, for minutes: does anything grow?

Clients connect, talk, and then cut, reset, dribble, break off chunks, send nonsense, break TLS and
log in with wrong passwords, all at random from a seed; the handler refuses, raises and takes its
time. After each third of the time everybody leaves, and the server counts what it has: memory,
Python objects, tasks, files. If it has more at the end than after the first third, or if there was
an error that nobody asked for, the run has failed.

    python benchmarks/soak.py [--minutes N] [--connections N] [--seed N] [--backend asyncio|trio]

With `--sessions N` it is over behind so many, if that is sooner.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import ByteStream, Process, SocketAttribute
from anyio.streams.buffered import BufferedByteReceiveStream
from anyio.streams.tls import TLSStream

HERE = Path(__file__).parent
LOST = (
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    anyio.EndOfStream,
    anyio.IncompleteRead,
    anyio.DelimiterNotFound,
    OSError,  # among them ssl.SSLError
)
#: Seconds after which a client gives up; no session of the server takes so long.
PATIENCE = 30
#: What may be more at the end: caches fill, and the allocator does not give back all it had.
MORE_OBJECTS = 1000
MORE_OCTETS = 4 << 20


class GoneError(Exception):
    """The client leaves, or was sent away."""


class Client:
    """One session of somebody who means no good, or has a bad line."""

    def __init__(self, stream: ByteStream, dice: random.Random, seen: Counter[str]) -> None:
        self.stream = stream
        self.reader = BufferedByteReceiveStream(stream)
        self.dice = dice
        self.seen = seen

    async def say(self, octets: bytes) -> None:
        """Send, sometimes in pieces."""
        if len(octets) > 1 and self.dice.random() < 0.1:
            cut = self.dice.randrange(1, len(octets))
            await self.stream.send(octets[:cut])
            await anyio.sleep(self.dice.random() * 0.05)
            octets = octets[cut:]
        await self.stream.send(octets)

    async def hear(self) -> int:
        """Read one reply; its code. GoneError after 421."""
        while True:
            line = await self.reader.receive_until(b"\r\n", 4096)
            if line[3:4] != b"-":
                code = int(line[:3])
                self.seen[str(code)] += 1
                if code == 421:
                    raise GoneError
                return code

    async def ask(self, line: bytes) -> int:
        await self.say(line + b"\r\n")
        return await self.hear()

    async def talk(self, context: ssl.SSLContext) -> None:
        """Have a session, up to whatever ends it."""
        if self.dice.random() < 0.05:
            await self.say(b"EHLO early.example\r\n")
            await self.hear()
            await self.hear()
        else:
            await self.hear()
            await self.ask(b"EHLO soak.example")
        if self.dice.random() < 0.2:
            await self.start_tls(context)
        for _ in range(self.dice.randrange(1, 5)):
            what = self.dice.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
            self.seen[what.__name__] += 1
            await what(self)
        if self.dice.random() < 0.7:
            await self.ask(b"QUIT")

    async def start_tls(self, context: ssl.SSLContext) -> None:
        if await self.ask(b"STARTTLS") != 220:
            return
        if self.dice.random() < 0.2:
            await self.say(self.dice.randbytes(50))
            raise GoneError
        self.stream = await TLSStream.wrap(
            self.stream, server_side=False, ssl_context=context, standard_compatible=False
        )
        self.reader = BufferedByteReceiveStream(self.stream)
        await self.ask(b"EHLO tls.example")

    # What one may do

    async def open(self) -> bool:
        """Begin a transaction with recipients of all kinds; tell whether there is one."""
        who = self.dice.choice([b"ann", b"ann", b"ann", b"raise", b"busy"])
        if await self.ask(b"MAIL FROM:<%b@example.org>" % who) != 250:
            return False
        kinds = [b"bob", b"bob", b"bob", b"no", b"later", b"slow", b"raise"]
        lines = [
            b"RCPT TO:<%b@example.net>\r\n" % self.dice.choice(kinds)
            for _ in range(self.dice.randrange(1, 6))
        ]
        await self.say(b"".join(lines))
        good = [await self.hear() == 250 for _ in lines]
        if not any(good):
            await self.ask(b"RSET")
        return any(good)

    def content(self) -> bytes:
        return b"Subject: soak\r\n\r\n" + b"x" * 76 * self.dice.randrange(1, 300) + b"\r\n"

    async def data(self) -> None:
        if await self.open() and await self.ask(b"DATA") == 354:
            await self.say(self.content() + b".\r\n")
            await self.hear()

    async def bdat(self) -> None:
        if await self.open():
            for last in (b"", b"", b" LAST"):
                content = self.content()
                await self.say(b"BDAT %d%b\r\n" % (len(content), last) + content)
                if await self.hear() != 250:
                    break
            await self.ask(b"RSET")

    async def cut_data(self) -> None:
        if await self.open() and await self.ask(b"DATA") == 354:
            content = self.content()
            await self.say(content[: self.dice.randrange(len(content))])
            raise GoneError

    async def cut_bdat(self) -> None:
        if await self.open():
            content = self.content()
            await self.say(b"BDAT %d LAST\r\n" % len(content) + content[: len(content) // 2])
            raise GoneError

    async def drop_bdat(self) -> None:
        if await self.open():
            await self.say(b"BDAT 4\r\nxxxxRSET\r\n")
            await self.hear()
            await self.hear()

    async def slow_data(self) -> None:
        """Dribble, until it is done or too slow."""
        if await self.open() and await self.ask(b"DATA") == 354:
            for _ in range(self.dice.randrange(1, 100)):
                await self.stream.send(b"x")
                await anyio.sleep(0.05)
            await self.say(b"\r\n.\r\n")
            await self.hear()

    async def bad_content(self) -> None:
        if await self.open() and await self.ask(b"DATA") == 354:
            await self.say(b"bare\nline\r\n.\r\n")
            await self.hear()

    async def large_content(self) -> None:
        if await self.open() and await self.ask(b"DATA") == 354:
            for _ in range(20):
                await self.say(b"x" * 10_000)
            await self.say(b"\r\n.\r\n")
            await self.hear()

    async def nonsense(self) -> None:
        for _ in range(self.dice.randrange(1, 12)):
            octets = self.dice.randbytes(self.dice.randrange(1, 100))
            await self.ask(b"X" + octets.replace(b"\r", b"").replace(b"\n", b""))

    async def flood(self) -> None:
        await self.say(b"NOOP\r\n" * self.dice.randrange(1, 100))
        await self.ask(b"NOOP")

    async def endless_line(self) -> None:
        await self.say(b"x" * 100_000)
        await self.hear()
        raise GoneError

    async def http(self) -> None:
        await self.ask(b"GET / HTTP/1.1")
        raise GoneError

    async def login(self) -> None:
        await self.ask(b"AUTH PLAIN AGFubgB3cm9uZw==")

    async def idle(self) -> None:
        await anyio.sleep(self.dice.random() * 3)
        await self.ask(b"NOOP")

    async def half_close(self) -> None:
        await self.say(b"NOOP\r\nMAIL FROM:<ann@example.org>\r\n")
        if isinstance(self.stream, TLSStream):
            raise GoneError  # there it cannot be done
        await self.stream.send_eof()
        await self.hear()
        await self.hear()
        raise GoneError

    async def leave(self) -> None:
        raise GoneError


WEIGHTS: dict[Callable[[Client], Awaitable[None]], float] = {
    Client.data: 10,
    Client.bdat: 5,
    Client.cut_data: 2,
    Client.cut_bdat: 2,
    Client.drop_bdat: 2,
    Client.slow_data: 1,
    Client.bad_content: 1,
    Client.large_content: 1,
    Client.nonsense: 1,
    Client.flood: 1,
    Client.endless_line: 0.5,
    Client.http: 0.5,
    Client.login: 1,
    Client.idle: 1,
    Client.half_close: 0.5,
    Client.leave: 1,
}


async def one_session(
    port: int, dice: random.Random, context: ssl.SSLContext, seen: Counter[str]
) -> None:
    with suppress(*LOST, GoneError), anyio.move_on_after(PATIENCE) as waited:
        stream = await anyio.connect_tcp("127.0.0.1", port)
        raw = stream.extra(SocketAttribute.raw_socket)
        client = Client(stream, dice, seen)
        try:
            if dice.random() > 0.02:  # some leave before they have heard anything
                await client.talk(context)
        finally:
            if dice.random() < 0.3:  # RST
                with suppress(OSError):
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await anyio.aclose_forcefully(client.stream)
    seen["sessions"] += 1
    seen["waited in vain"] += waited.cancelled_caught


async def crowd(
    port: int, given: argparse.Namespace, dice: random.Random, seen: Counter[str]
) -> None:
    """Have clients for a third of the whole run, one session after another."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    end = anyio.current_time() + given.minutes * 60 / 3
    most = seen["sessions"] + given.sessions / 3

    async def again_and_again(own: random.Random) -> None:
        await anyio.sleep(own.random())
        while anyio.current_time() < end and seen["sessions"] < most:
            await one_session(port, own, context, seen)

    async with anyio.create_task_group() as tasks:
        for _ in range(given.connections):
            tasks.start_soon(again_and_again, random.Random(dice.random()))


async def sample(server: Process, lines: BufferedByteReceiveStream) -> dict[str, int]:
    """Ask the server what it has, when all its sessions have ended."""
    assert server.stdin is not None
    with anyio.fail_after(PATIENCE):
        while True:
            await server.stdin.send(b"count\n")
            counted: dict[str, int] = json.loads(await lines.receive_until(b"\n", 65_536))
            if not counted["sessions"]:
                return counted
            await anyio.sleep(0.2)


async def soak(given: argparse.Namespace, directory: str) -> list[str]:
    """Run; return what is wrong afterwards."""
    seen: Counter[str] = Counter()
    dice = random.Random(given.seed)
    most = given.connections * 9 // 10  # so that it is crowded, and some are sent away
    command = [sys.executable, str(HERE / "soak_server.py"), given.backend, str(most), directory]
    process = await anyio.open_process(command, stdin=subprocess.PIPE, stderr=None)
    async with process as server:
        assert server.stdout is not None
        try:
            lines = BufferedByteReceiveStream(server.stdout)
            port = int(await lines.receive_until(b"\n", 100))
            await crowd(port, given, dice, seen)
            first = await sample(server, lines)
            await crowd(port, given, dice, seen)
            second = await sample(server, lines)
            await crowd(port, given, dice, seen)
            last = await sample(server, lines)
        finally:
            server.kill()
    print(f"{given.backend}, {given.connections} connections, seed {given.seed}: {told(seen)}")
    print(f"{'after':12}{'one third':>14}{'two thirds':>14}{'all of it':>14}")
    for name in first:
        print(f"{name:12}{first[name]:>14,}{second[name]:>14,}{last[name]:>14,}")
    return list(wrong(first, last, seen))


def told(seen: Counter[str]) -> str:
    replies = ", ".join(f"{code} {seen[code]:,}×" for code in sorted(seen) if code.isdigit())
    return f"{seen['sessions']:,} sessions; replies: {replies}"


def wrong(first: dict[str, int], last: dict[str, int], seen: Counter[str]) -> Any:
    """Give what there should not be."""
    may_be_more = {"octets": MORE_OCTETS, "objects": MORE_OBJECTS, "tasks": 0, "files": 0}
    for name, more in may_be_more.items():
        if last[name] > first[name] + more:
            yield f"{name} grew from {first[name]:,} to {last[name]:,}"
    if last["unexpected"]:
        yield f"{last['unexpected']} unexpected errors; they are on stderr"
    if seen["waited in vain"]:
        yield f"{seen['waited in vain']} clients waited for {PATIENCE} s in vain"
    if not last["messages"] > first["messages"] > 0:
        yield "no messages arrived"
    missing = {"250", "354", "421", "451", "500", "550", "552", "554", "535"} - seen.keys()
    if missing:
        yield f"nobody was answered {', '.join(sorted(missing))}: too short a run"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10, metavar="N")
    parser.add_argument("--sessions", type=float, default=math.inf, metavar="N")
    parser.add_argument("--connections", type=int, default=500, metavar="N")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32), metavar="N")
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        faults = anyio.run(soak, given, directory)
    for fault in faults:
        print("WRONG:", fault)
    print("failed" if faults else "passed: nothing grew")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
