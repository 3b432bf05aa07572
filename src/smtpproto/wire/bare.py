"""A wire that is the socket itself, and waits for it only when it must: for trio."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
from anyio.abc import TaskGroup

from .base import RECEIVE_OCTETS, Attributes, Wire, of_socket

__all__ = ["ACCEPTED", "NOT_LISTENING", "BareWire", "made", "serve_bare"]

log = logging.getLogger(__name__)

#: Connections accepted before others get a turn.
ACCEPTED = 64
#: What accept says when it never will again; all else it says is about one connection, or passes.
NOT_LISTENING = (errno.EBADF, errno.EINVAL, errno.ENOTSOCK)


class BareWire(Wire):
    """One connection."""

    def __init__(self, raw: socket.socket) -> None:
        self._socket = raw
        self._number = raw.fileno()
        self._unsent = b""
        self._broken: OSError | None = None  # by a write that nobody waited for
        raw.setblocking(False)
        if raw.family != socket.AF_UNIX:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def closed(self) -> bool:
        """Whether we have closed it."""
        return self._socket.fileno() < 0

    async def receive(self, max_bytes: int = RECEIVE_OCTETS) -> bytes:
        if self.closed:
            raise anyio.ClosedResourceError
        while True:
            # Wait first: an answer is hardly ever there already, and others get their turn.
            await anyio.wait_readable(self._socket)
            if (data := self._receive_at_hand(max_bytes)) is not None:
                return data

    def _receive_at_hand(self, max_bytes: int) -> bytes | None:
        """Return what has arrived; None where nothing has."""
        try:
            data = self._socket.recv(max_bytes)
        except BlockingIOError:
            return None
        except OSError as error:
            raise self._lost() from error
        if not data:
            raise anyio.EndOfStream
        return data

    def write(self, octets: bytes) -> bool:
        self._check()
        if self._unsent:
            self._unsent += octets
        elif octets:
            self._unsent = octets
            self._send_unsent()
            self._check()
        return not self._unsent

    def _send_unsent(self) -> None:
        """Send what can leave; where nothing ever will, remember why."""
        try:
            sent = self._socket.send(self._unsent)
        except BlockingIOError:
            return
        except OSError as error:
            self._broken = error
            self._unsent = b""
        else:
            self._unsent = self._unsent[sent:]

    def _check(self) -> None:
        if self._broken is not None or self.closed:
            raise self._lost() from self._broken

    def _lost(self) -> Exception:
        return anyio.ClosedResourceError() if self.closed else anyio.BrokenResourceError()

    @property
    def pending(self) -> bool:
        return bool(self._unsent)

    async def drain(self) -> None:
        while self._unsent:
            await anyio.wait_writable(self._socket)
            self._send_unsent()
        self._check()

    def drain_soon(self) -> None:
        """Nothing: the rest leaves by the next `drain`. Replies hardly ever fill a pipe."""

    async def send_eof(self) -> None:
        await self.drain()
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise self._lost() from error

    async def aclose(self) -> None:
        """Close at once; what has not left is lost."""
        if not self.closed:
            anyio.notify_closing(self._socket)
            self._socket.close()

    @property
    def extra_attributes(self) -> Attributes:
        return of_socket(self._socket)


async def serve_bare(
    listening: socket.socket, handler: Callable[[Wire], Coroutine[Any, Any, None]], tasks: TaskGroup
) -> None:
    """Accept at a socket until cancelled. OSError when it does not listen any more."""
    listening.setblocking(False)
    while True:
        await anyio.wait_readable(listening)
        try:
            for _ in range(ACCEPTED):
                raw, _ = listening.accept()
                if (wire := made(raw, BareWire)) is not None:
                    tasks.start_soon(handler, wire)
        except BlockingIOError:
            continue
        except OSError as error:
            if error.errno in NOT_LISTENING:
                raise
            log.error("cannot accept a connection: %s", error)
            await anyio.sleep(0.1)


def made(raw: socket.socket, make: Callable[[socket.socket], BareWire]) -> BareWire | None:
    """Return a wire; None where the peer has gone, which some systems tell by refusing options."""
    try:
        return make(raw)
    except OSError:
        raw.close()
        return None
