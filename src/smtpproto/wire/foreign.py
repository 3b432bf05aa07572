"""A wire over any other byte stream: a proxy's, one in memory, a test's own."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, cast

import anyio
from anyio.abc import ByteStream, TaskGroup

from .base import RECEIVE_OCTETS, Attributes, Wire

__all__ = ["ForeignWire", "as_wire"]


class ForeignWire(Wire):
    """Such a stream cannot begin to write without waiting: `tasks`, if there are any, do."""

    def __init__(self, stream: ByteStream) -> None:
        self.stream = stream
        self.tasks: TaskGroup | None = None
        self._unsent = b""
        self._writing = anyio.Lock()
        self._torn = False  # a write was cut off, so nothing that follows can be understood

    async def receive(self, max_bytes: int = RECEIVE_OCTETS) -> bytes:
        return await self.stream.receive(max_bytes)

    def write(self, octets: bytes) -> bool:
        self._unsent += octets
        return False

    @property
    def pending(self) -> bool:
        return bool(self._unsent) or self._writing.locked()

    async def drain(self) -> None:
        left = self.pending  # it may have been taken by another task, and be on its way
        while left:
            async with self._writing:
                if self._torn:
                    raise anyio.BrokenResourceError("an earlier write was cut off")
                octets, self._unsent = self._unsent, b""
                if octets:
                    self._torn = True
                    await self.stream.send(octets)
                    self._torn = False
            left = bool(self._unsent)

    def drain_soon(self) -> None:
        if self.tasks is not None:
            self.tasks.start_soon(self._drain_quietly)

    async def _drain_quietly(self) -> None:
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            await self.drain()  # whoever writes next will notice

    async def send_eof(self) -> None:
        await self.drain()
        await self.stream.send_eof()

    async def aclose(self) -> None:
        await anyio.aclose_forcefully(self.stream)

    @property
    def extra_attributes(self) -> Attributes:
        stream: Any = self.stream  # anyio's own type of it is not complete
        return cast(Attributes, stream.extra_attributes)


def as_wire(stream: ByteStream) -> Wire:
    """Return `stream` where it is a wire; else one above it."""
    return stream if isinstance(stream, Wire) else ForeignWire(stream)
