"""A wire on asyncio: the socket itself, watched by the loop as long as somebody waits for it.

What arrives resumes the task that waits for it within the loop's own callback, so that a round trip
costs one system call each way and one turn of the loop. Nothing is read ahead: what nobody asks for
stays with the kernel, and so with the peer.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import socket
from collections.abc import Callable, Coroutine, Generator, Sequence
from typing import Any

import anyio
from anyio.abc import TaskGroup

from smtpproto.deadline import LazyTimer

from .bare import NOT_LISTENING, BareWire, Door, Ends
from .base import RECEIVE_OCTETS

__all__ = ["LoopWire", "loop_of_sockets", "serve_loop"]

log = logging.getLogger(__name__)

#: Seconds until we accept again where there were no more file descriptors.
PAUSE = 0.1


def loop_of_sockets() -> asyncio.AbstractEventLoop | None:
    """Return the running loop where it is asyncio's, and one that watches sockets."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return None
    blind = getattr(asyncio, "ProactorEventLoop", None)  # Windows: it completes, and never watches
    return None if blind is not None and isinstance(loop, blind) else loop


class _Bell:
    """What a task waits for. Rung, it lets the task go on now, and not a turn of the loop later.

    It is future-like in the sense of `asyncio.isfuture`, for one task and many waits.
    """

    __slots__ = ("_asyncio_future_blocking", "_callback", "_context", "_error", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._asyncio_future_blocking = False
        self._loop = loop
        self._callback: Callable[[_Bell], object] | None = None
        self._context: contextvars.Context
        self._error: BaseException | None = None

    def ring(self) -> bool:
        """Let the task go on, before this returns: for callbacks of the loop alone.

        False where none waits.
        """
        callback, self._callback = self._callback, None
        if callback is None:
            return False
        self._context.run(callback, self)
        return True

    def ring_soon(self, error: BaseException | None = None) -> bool:
        """Let the task go on in the next turn of the loop, with an error to raise if there is one.

        False where none waits.
        """
        callback, self._callback = self._callback, None
        if callback is None:
            return False
        self._error = error
        self._loop.call_soon(callback, self, context=self._context)
        return True

    @property
    def waited_for(self) -> bool:
        return self._callback is not None

    def __await__(self) -> Generator[_Bell, None, None]:
        self._error = None
        self._asyncio_future_blocking = True
        yield self  # the task, awakened, asks for the result

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
        if self._error is not None:
            raise self._error

    def cancel(self, msg: object = None) -> bool:
        # Cancel scopes know their own by what they said.
        return self.ring_soon(asyncio.CancelledError(*([] if msg is None else [msg])))


class _Overdue(Exception):  # noqa: N818 - no fault
    """Nobody waits any longer."""


class LoopWire(BareWire):
    """One connection."""

    def __init__(
        self, raw: socket.socket, loop: asyncio.AbstractEventLoop, ends: Ends | None = None
    ) -> None:
        super().__init__(raw, ends)
        self._loop = loop
        self._readable = _Bell(loop)
        self._writable = _Bell(loop)
        self._patience = LazyTimer(loop, self._give_up)
        self._watched = False
        self._emptying = False  # by the loop, with nobody waiting

    async def receive(self, max_bytes: int = RECEIVE_OCTETS) -> bytes:
        if self._readable.waited_for:
            raise anyio.BusyResourceError("receiving from")
        # A peer that has answered already, as on a busy machine, need not be watched for.
        if not self._watched and (data := self._receive_at_hand(max_bytes)) is not None:
            return data
        while True:
            if not self._watched:
                self._loop.add_reader(self._number, self._look)
                self._watched = True
            await self._readable
            if (data := self._receive_at_hand(max_bytes)) is not None:
                return data

    async def receive_by(self, at: float, max_bytes: int = RECEIVE_OCTETS) -> bytes | None:
        self._patience.set(at)
        try:
            return await self.receive(max_bytes)
        except _Overdue:
            return None
        finally:
            self._patience.set(float("inf"))

    def _give_up(self) -> None:
        self._readable.ring_soon(_Overdue())

    def _look(self) -> None:
        if not self._readable.ring():
            self._unwatch()

    def _unwatch(self) -> None:
        if self._watched:
            self._watched = False
            self._loop.remove_reader(self._number)

    async def drain(self) -> None:
        while self._unsent or self._emptying:
            if self._writable.waited_for:
                raise anyio.BusyResourceError("writing to")
            if not self._emptying:
                self._loop.add_writer(self._number, self._empty)
                self._emptying = True
            await self._writable
        self._check()

    def drain_soon(self) -> None:
        if not self._emptying:
            self._loop.add_writer(self._number, self._empty)
            self._emptying = True

    def _empty(self) -> None:
        self._send_unsent()
        if not self._unsent:
            self._stop_emptying()
            self._writable.ring()

    def _stop_emptying(self) -> None:
        if self._emptying:
            self._emptying = False
            self._loop.remove_writer(self._number)

    async def aclose(self) -> None:
        """Close at once; what has not left is lost."""
        if not self.closed:
            self._patience.off()
            self._unwatch()
            self._stop_emptying()
            self._unsent = b""
            self._socket.close()
            self._readable.ring_soon()
            self._writable.ring_soon()


async def serve_loop(
    loop: asyncio.AbstractEventLoop,
    sockets: Sequence[socket.socket],
    handler: Callable[[BareWire], Coroutine[Any, Any, None]],
    tasks: TaskGroup,
) -> None:
    """Accept at these sockets until cancelled. OSError when one does not listen any more."""
    broken: asyncio.Future[None] = loop.create_future()

    def make(raw: socket.socket, ends: Ends) -> LoopWire:
        return LoopWire(raw, loop, ends)

    def accept(door: Door) -> None:
        try:
            for wire in door.accept(make):
                tasks.start_soon(handler, wire)
        except OSError as error:
            loop.remove_reader(door.socket)
            if error.errno not in NOT_LISTENING:
                log.error("cannot accept a connection: %s", error)
                loop.call_later(PAUSE, watch, door)
            elif not broken.done():
                broken.set_exception(error)

    def watch(door: Door) -> None:
        if not broken.done() and door.socket.fileno() >= 0:
            loop.add_reader(door.socket, accept, door)

    for each in sockets:
        watch(Door(each))
    try:
        await broken
    finally:
        broken.cancel()
        for each in sockets:
            if each.fileno() >= 0:
                loop.remove_reader(each)
