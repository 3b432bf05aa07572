"""A wire on asyncio: a transport's own protocol, without anything between.

A future a wait is all that it adds to what the loop does anyway; so a round trip costs a third of
what it does through a socket stream that works on every loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import socket
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Sequence
from typing import Any, cast

import anyio
from anyio.abc import TaskGroup

from .base import RECEIVE_OCTETS, Attributes, Wire, of_socket

__all__ = ["LoopWire", "serve_loop"]

#: Octets held for a reader who does not come; then the transport stops reading.
HELD = RECEIVE_OCTETS


class _Bell:
    """What a reader waits for. Rung, it lets the task go on now, and not a turn of the loop later.

    It is future-like in the sense of `asyncio.isfuture`, for one task and many waits.
    """

    __slots__ = ("_asyncio_future_blocking", "_callback", "_cancelled", "_context", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._asyncio_future_blocking = False
        self._loop = loop
        self._callback: Callable[[_Bell], object] | None = None
        self._context: contextvars.Context
        self._cancelled: asyncio.CancelledError | None = None

    def ring(self) -> None:
        callback = self._callback
        if callback is None:
            return
        self._callback = None
        if asyncio.current_task(self._loop) is None:
            self._context.run(callback, self)
        else:
            self._loop.call_soon(callback, self, context=self._context)

    @property
    def waited_for(self) -> bool:
        return self._callback is not None

    def __await__(self) -> Generator[_Bell, None, None]:
        self._cancelled = None
        self._asyncio_future_blocking = True
        yield self
        self.result()

    # What a task asks of a future

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def add_done_callback(
        self, callback: Callable[[_Bell], object], *, context: contextvars.Context
    ) -> None:
        self._callback, self._context = callback, context

    def done(self) -> bool:
        return self._callback is None

    def result(self) -> None:
        if self._cancelled is not None:
            raise self._cancelled

    def cancel(self, msg: object = None) -> bool:
        callback = self._callback
        if callback is None:
            return False
        self._callback = None
        # Cancel scopes know their own by what they said.
        self._cancelled = asyncio.CancelledError(*([] if msg is None else [msg]))
        self._loop.call_soon(callback, self, context=self._context)
        return True


class LoopWire(asyncio.Protocol, Wire):
    """One connection. `made` is called once it stands."""

    def __init__(self, made: Callable[[LoopWire], None] | None = None) -> None:
        self._made = made
        self._chunks: deque[bytes] = deque()
        self._held = 0
        self._reading = True
        self._ended = False
        self._gone = False
        self._said_eof = False
        self._broken: Exception | None = None
        self._closed = False
        self._full = False  # the transport has not got rid of what was written
        self._bell: _Bell
        self._drained: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport
        self._loop: asyncio.AbstractEventLoop

    # What the loop tells us

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._loop = asyncio.get_running_loop()
        self._bell = _Bell(self._loop)
        # Written means gone: so deadlines see a peer that does not read, and closing loses nothing.
        self._transport.set_write_buffer_limits(high=0)
        if self._made is not None:
            made, self._made = self._made, None
            made(self)

    def data_received(self, data: bytes) -> None:
        self._chunks.append(data)
        self._held += len(data)
        if self._held >= HELD:
            self._transport.pause_reading()
            self._reading = False
        self._bell.ring()

    def eof_received(self) -> bool:
        self._ended = True
        self._bell.ring()
        return True  # we may still have something to say

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = self._gone = True
        self._broken = exc
        self._full = False
        self._bell.ring()
        _wake(self._drained)

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        _wake(self._drained)

    # What a session wants

    async def receive(self, max_bytes: int = RECEIVE_OCTETS) -> bytes:
        if self._closed:
            raise anyio.ClosedResourceError
        if not self._chunks and not self._ended:
            if self._bell.waited_for:
                raise anyio.BusyResourceError("receiving from")
            await self._bell
        if not self._chunks:
            if self._closed:
                raise anyio.ClosedResourceError
            if self._broken is not None:
                raise anyio.BrokenResourceError from self._broken
            raise anyio.EndOfStream
        data = self._chunks.popleft()
        if len(data) > max_bytes:
            self._chunks.appendleft(data[max_bytes:])
            data = data[:max_bytes]
        self._held -= len(data)
        if not self._reading and self._held < HELD and not self._gone:
            self._transport.resume_reading()
            self._reading = True
        return data

    def write(self, octets: bytes) -> bool:
        if self._closed:
            raise anyio.ClosedResourceError
        # A transport that is broken says so later; what is written until then, it complains of.
        if self._gone or self._said_eof or self._transport.is_closing():
            raise anyio.BrokenResourceError from self._broken
        self._transport.write(octets)
        return not self._full

    async def drain(self) -> None:
        while self._full:
            if self._drained is not None:
                raise anyio.BusyResourceError("writing to")
            self._drained = self._loop.create_future()
            try:
                await self._drained
            finally:
                self._drained = None
        if self._gone and not self._closed:
            raise anyio.BrokenResourceError from self._broken

    def drain_soon(self) -> None:
        """The transport does."""

    async def send_eof(self) -> None:
        await self.drain()
        if not self._closed and not self._gone:
            self._said_eof = True
            self._transport.write_eof()

    async def aclose(self) -> None:
        """Close at once; what has not left is lost."""
        if not self._closed:
            self._closed = True
            self._transport.abort()
            self._bell.ring()
            _wake(self._drained)

    @property
    def extra_attributes(self) -> Attributes:
        return of_socket(self._transport.get_extra_info("socket"))


def _wake(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)


async def serve_loop(
    loop: asyncio.AbstractEventLoop,
    sockets: Sequence[socket.socket],
    handler: Callable[[Wire], Coroutine[Any, Any, None]],
    tasks: TaskGroup,
) -> None:
    """Accept at these sockets until cancelled, and close them."""

    def begin(wire: LoopWire) -> None:
        tasks.start_soon(handler, wire)

    servers: list[asyncio.Server] = []
    for each in sockets:
        create = loop.create_unix_server if each.family == socket.AF_UNIX else loop.create_server
        servers.append(await create(lambda: LoopWire(begin), sock=each))
    try:
        await anyio.sleep_forever()
    finally:
        for server in servers:
            server.close()
