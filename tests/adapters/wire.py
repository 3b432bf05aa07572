"""A raw end of a real connection that plays its part of a dialogue, octet by octet."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from fnmatch import fnmatchcase
from types import TracebackType
from typing import Self

import anyio
from anyio.abc import ByteStream, SocketStream
from anyio.streams.tls import TLSStream

HOST = "127.0.0.1"
LOST = (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream, OSError)


class Wire:
    """Says and hears lines. `reads` holds what each receive returned: one for each write there."""

    def __init__(self, stream: ByteStream) -> None:
        self.stream = stream
        self.reads: list[bytes] = []
        self._unread = b""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await anyio.aclose_forcefully(self.stream)

    async def send(self, octets: bytes) -> None:
        await self.stream.send(octets)

    async def say(self, *lines: str) -> None:
        """Send lines in one write."""
        await self.send("".join(f"{line}\r\n" for line in lines).encode())

    async def receive(self) -> bytes:
        data = await self.stream.receive()
        self.reads.append(data)
        return data

    async def hear(self) -> str:
        """One line, without its end."""
        while b"\r\n" not in self._unread:
            self._unread += await self.receive()
        line, _, self._unread = self._unread.partition(b"\r\n")
        return line.decode()

    async def take(self, octets: int) -> bytes:
        """So many octets, whatever they are."""
        while len(self._unread) < octets:
            self._unread += await self.receive()
        taken, self._unread = self._unread[:octets], self._unread[octets:]
        return taken

    async def reply(self) -> str:
        """One reply: its lines, joined by newlines."""
        lines = [await self.hear()]
        while lines[-1][3:4] == "-":
            lines.append(await self.hear())
        return "\n".join(lines)

    async def ask(self, *lines: str) -> str:
        """Send lines in one write, and return the first reply to them."""
        await self.say(*lines)
        return await self.reply()

    async def hear_content(self) -> list[str]:
        """The lines up to the lone dot."""
        lines: list[str] = []
        while (line := await self.hear()) != ".":
            lines.append(line)
        return lines

    async def rest(self) -> bytes:
        """All that is still to come, until the other end is gone."""
        with suppress(*LOST):
            while True:
                self._unread += await self.receive()
        rest, self._unread = self._unread, b""
        return rest

    async def start_tls(self, context: ssl.SSLContext, *, server_side: bool) -> None:
        self.stream = await TLSStream.wrap(
            self.stream,
            server_side=server_side,
            hostname=None if server_side else "localhost",
            ssl_context=context,
            standard_compatible=False,
        )

    async def play(self, script: str, *, side: str = "S") -> None:
        """Play one side of a script of `C: ` and `S: ` lines.

        Our own lines go out, those that stand together in one write; the other side's have to
        match, as file names match a pattern.
        """
        ours: list[str] = []
        for line in filter(None, map(str.strip, script.splitlines())):
            who, _, text = line.partition(": ")
            if who == side:
                ours.append(text)
                continue
            if ours:
                await self.say(*ours)
                ours = []
            heard = await self.hear()
            assert fnmatchcase(heard, text), f"expected {text!r}, heard {heard!r}"
        if ours:
            await self.say(*ours)


Behaviour = Callable[[Wire], Awaitable[None]]


@asynccontextmanager
async def raw_server(behaviour: Behaviour) -> AsyncIterator[int]:
    """Listen on loopback and let `behaviour` play the server; gives the port.

    What it raises ends the test; what remains of it at the end is cancelled.
    """

    async def serve(stream: SocketStream) -> None:
        async with Wire(stream) as wire:
            await behaviour(wire)

    async with (
        await anyio.create_tcp_listener(local_host=HOST) as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, serve)
        yield listener.extra(anyio.abc.SocketAttribute.local_port)
        tasks.cancel_scope.cancel()


async def connect(port: int) -> Wire:
    """A raw client's end."""
    return Wire(await anyio.connect_tcp(HOST, port))


async def opened(port: int) -> Wire:
    """Connect, and say EHLO."""
    wire = await connect(port)
    await wire.reply()
    await wire.ask("EHLO client.example")
    return wire


async def silence(wire: Wire) -> None:
    """A server that accepts and never says a word, until the client is gone."""
    await wire.rest()


def script(text: str) -> Behaviour:
    """A server that plays a script, then listens until the client is gone."""

    async def behaviour(wire: Wire) -> None:
        await wire.play(text)
        await wire.rest()

    return behaviour
