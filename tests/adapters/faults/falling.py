"""Ways to fall for either end of a connection, in clear and under TLS."""

import re
import ssl
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import anyio
from anyio.abc import ByteStream
from anyio.streams.tls import TLSStream

from tests.adapters.test_loss import reset_on_close
from tests.adapters.wire import Wire

from .places import TLS, Step

__all__ = ["codes", "fall", "go_through", "secure"]


class Halving(ByteStream):
    """From when it is told so, it sends the first half of what it is given and no more."""

    def __init__(self, below: ByteStream) -> None:
        self.below, self.told = below, False

    async def send(self, item: bytes) -> None:
        await self.below.send(item[: len(item) // 2] if self.told else item)

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        return await self.below.receive(max_bytes)

    async def send_eof(self) -> None:
        await self.below.send_eof()

    async def aclose(self) -> None:
        await self.below.aclose()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return self.below.extra_attributes


async def secure(wire: Wire, context: ssl.SSLContext, *, server_side: bool) -> None:
    """Begin TLS in a way that allows for half a record."""
    wire.stream = Halving(wire.stream)
    await wire.start_tls(context, server_side=server_side)


async def say_half(wire: Wire, octets: bytes) -> None:
    """Say that, which is half of something; under TLS it is whole, in half a record."""
    if isinstance(wire.stream, TLSStream):
        below = wire.stream.transport_stream
        assert isinstance(below, Halving)
        below.told = True
    await wire.send(octets)


async def fall(
    wire: Wire, ending: str, half: bytes = b"", fallen: anyio.Event | None = None
) -> None:
    """Fall, having said `half` of something; where that is an end, the caller closes the wire."""
    stream = wire.stream
    if half:
        await say_half(wire, half)
    if fallen is not None:
        fallen.set()
    if ending == "reset":
        reset_on_close(stream)
    elif ending == "half-closed":
        if not isinstance(stream, TLSStream):
            await stream.send_eof()
        elif half:
            await stream.transport_stream.send_eof()
        else:
            await stream.unwrap()  # close_notify, and the other's is awaited


async def go_through(wire: Wire, steps: Iterable[Step], context: ssl.SSLContext) -> None:
    """Play a client's part: say each, and wait for the reply where one is expected."""
    for step in steps:
        if step is TLS:
            await secure(wire, context, server_side=False)
            continue
        said, expected = step
        if said:
            await wire.send(said.encode())
        if expected:
            assert (await wire.reply()).startswith(expected), step


def codes(heard: bytes) -> str:
    """Name replies by what a program goes by: `250 2.0.0, 421 4.4.2`."""
    lines = heard.decode().splitlines()
    found = [re.match(r"(\d{3})[ -](\d\.\d+\.\d+ )?", line) for line in lines if line[3:4] != "-"]
    return ", ".join(each[0].strip() for each in found if each)
