"""A wire that is the socket itself, and waits for it only when it must: for trio."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final, TypeAlias, TypeVar

import anyio
from anyio.abc import TaskGroup

from .base import RECEIVE_OCTETS, Attributes, Wire, host_and_port, of_socket

__all__ = ["NOT_LISTENING", "BareWire", "Door", "Ends", "serve_bare"]

log = logging.getLogger(__name__)

W = TypeVar("W", bound="BareWire")

ANY_ADDRESS = ("0.0.0.0", "::", "")  # noqa: S104 - what it looks like where it is bound to all
#: Octets that there is room for until more have come.
LITTLE = 16_384
#: Connections accepted before others get a turn.
ACCEPTED = 64
#: What accept says when it never will again; all else it says is about one connection, or passes.
NOT_LISTENING = (errno.EBADF, errno.EINVAL, errno.ENOTSOCK)


#: IP address and port of the peer, and of ours.
Ends: TypeAlias = tuple[tuple[str, int], tuple[str, int]]
#: Those of UNIX sockets.
NO_ENDS: Final[Ends] = ("", 0), ("", 0)


class BareWire(Wire):
    """One connection. `ends` are the addresses of peer and socket, where they are known."""

    def __init__(self, raw: socket.socket, ends: Ends | None = None) -> None:
        self._socket = raw
        self._ends = ends
        self._number = raw.fileno()
        self._room = LITTLE
        self._unsent = b""
        self._broken: OSError | None = None  # by a write that nobody waited for
        raw.setblocking(False)
        if ends is not NO_ENDS and (ends is not None or raw.family != socket.AF_UNIX):
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def peer(self) -> tuple[str, int]:
        return super().peer if self._ends is None else self._ends[0]

    @property
    def local(self) -> tuple[str, int]:
        return super().local if self._ends is None else self._ends[1]

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
            data = self._socket.recv(min(self._room, max_bytes))
        except BlockingIOError:
            return None
        except OSError as error:
            raise self._lost() from error
        if not data:
            raise anyio.EndOfStream
        # Room costs time, also where little comes: commands and replies need not have much.
        if len(data) >= LITTLE:
            self._room = RECEIVE_OCTETS
        elif len(data) < LITTLE // 2:
            self._room = LITTLE
        return data

    def write(self, octets: bytes) -> bool:
        if self._unsent or self._broken is not None:
            self._check()
            self._unsent += octets
            return False
        try:
            sent = self._socket.send(octets)
        except BlockingIOError:
            sent = 0
        except OSError as error:  # also where we have closed it
            self._broken = error
            raise self._lost() from error
        if sent == len(octets):
            return True
        self._unsent = octets[sent:]
        return False

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
    door = Door(listening)
    while True:
        await anyio.wait_readable(listening)
        try:
            for wire in door.accept(BareWire):
                tasks.start_soon(handler, wire)
        except OSError as error:
            if error.errno in NOT_LISTENING:
                raise
            log.error("cannot accept a connection: %s", error)
            await anyio.sleep(0.1)


class Door:
    """A listening socket, from which connections are taken."""

    def __init__(self, listening: socket.socket) -> None:
        listening.setblocking(False)
        self.socket = listening
        own = host_and_port(listening.getsockname())
        # Where it is one address, it is that of all of its connections: nobody has to ask.
        self._own = None if own[0] in ANY_ADDRESS else own

    def accept(self, make: Callable[[socket.socket, Ends], W]) -> Iterator[W]:
        """Make wires of those who wait there; OSError when it does not listen, or cannot now."""
        for _ in range(ACCEPTED):
            try:
                raw, name = self.socket.accept()
            except BlockingIOError:
                return
            try:
                yield make(raw, self._ends(raw, name))
            except OSError:  # the peer has gone, which some systems tell by refusing options
                raw.close()

    def _ends(self, raw: socket.socket, name: Any) -> Ends:
        if not isinstance(name, tuple):
            return NO_ENDS
        return host_and_port(name), self._own or host_and_port(raw.getsockname())
