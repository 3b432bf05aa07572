"""Sockets as streams for sessions: many small reads and writes, each of which should cost little.

A `Wire` is an anyio `ByteStream` that can, besides, begin to write without waiting. Each event loop
has the one that is cheapest there: the bare socket, waited for on trio (`bare`), watched on
asyncio (`loop`). Any other ByteStream can be made one (`foreign`), and TLS is one above
another (`tls`). Nothing above this room knows which it has.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from os import PathLike
from typing import Any

import anyio
from anyio.abc import AsyncResource, SocketAttribute, TaskGroup

from .bare import BareWire, serve_bare
from .base import Wire
from .connect import HEAD_START, connected, connected_unix
from .foreign import ForeignWire, as_wire
from .loop import LoopWire, loop_of_sockets, serve_loop
from .tls import TlsWire

__all__ = [
    "BareWire",
    "ForeignWire",
    "Listener",
    "LoopWire",
    "TlsWire",
    "Wire",
    "as_wire",
    "connect_tcp",
    "connect_unix",
    "listen_tcp",
    "listen_unix",
]


async def connect_tcp(
    host: str, port: int, *, local_host: str | None = None, head_start: float = HEAD_START
) -> Wire:
    """Connect by TCP, trying all addresses of the host, one behind the other (RFC 8305).

    `local_host` is the address to connect from, `head_start` how many seconds each address has
    for itself before the next is tried as well. OSError if none can be reached.
    """
    return _wire(await connected(host, port, local_host, head_start))


async def connect_unix(path: str | PathLike[str]) -> Wire:
    """Connect to a UNIX socket. OSError if it cannot be had."""
    return _wire(await connected_unix(path))


def _wire(raw: socket.socket) -> Wire:
    loop = loop_of_sockets()
    return BareWire(raw) if loop is None else LoopWire(raw, loop)


class Listener(AsyncResource):
    """Listening sockets, bound and not accepting yet. Closed, it refuses new connections.

    Made of an anyio listener, or of sockets that listen already; it closes them.
    """

    def __init__(self, listening: anyio.abc.Listener[Any] | Sequence[socket.socket]) -> None:
        self._listener: AsyncResource | None = None
        if isinstance(listening, Sequence):
            self.sockets = list(listening)
            for each in self.sockets:
                each.setblocking(False)
        else:
            self._listener = listening
            several = getattr(listening, "listeners", [listening])
            self.sockets = [one.extra(SocketAttribute.raw_socket) for one in several]
        self._path: tuple[str, int] | None = None  # of a UNIX socket, with its inode
        if isinstance(path := self.sockets[0].getsockname(), str):
            self._path = path, os.stat(path).st_ino

    @property
    def address(self) -> tuple[str, int]:
        """The IP address and port of the first socket; the path and 0 of a UNIX socket."""
        name = self.sockets[0].getsockname()
        if isinstance(name, (str, bytes)):  # the latter are names that are no path
            return os.fsdecode(name), 0
        return name[0], name[1]

    async def aclose(self) -> None:
        if self._path is not None:
            (path, inode), self._path = self._path, None
            with suppress(FileNotFoundError):
                if os.stat(path).st_ino == inode:  # and not another server's by now
                    os.unlink(path)
        if self._listener is not None:
            await self._listener.aclose()
        for each in self.sockets:
            each.close()

    async def serve(
        self, handler: Callable[[Wire], Coroutine[Any, Any, None]], tasks: TaskGroup
    ) -> None:
        """Accept until cancelled; each connection has a task in `tasks`, which runs `handler`.

        OSError when the sockets cannot be listened at any more; what is wrong with one
        connection, or passes, is logged.
        """
        if (loop := loop_of_sockets()) is not None:
            await serve_loop(loop, self.sockets, handler, tasks)
        async with anyio.create_task_group() as accepting:
            first, *others = self.sockets
            for each in others:
                accepting.start_soon(serve_bare, each, handler, tasks)
            await serve_bare(first, handler, tasks)


async def listen_tcp(host: str | None, port: int, *, reuse_port: bool = False) -> Listener:
    """Bind to a host's addresses (None: all of ours) and a port (0: a free one).

    OSError if that cannot be.
    """
    return Listener(
        await anyio.create_tcp_listener(local_host=host, local_port=port, reuse_port=reuse_port)
    )


async def listen_unix(path: str | PathLike[str], *, mode: int | None = None) -> Listener:
    """Bind to a UNIX socket at a path, with these permissions (None: by the umask).

    A socket that nobody listens at is replaced; closing the listener removes it. OSError if it
    cannot be bound, also because somebody listens there.
    """
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        code = probe.connect_ex(os.fspath(path))
    if code in (0, errno.EAGAIN):  # the latter: too many wait there
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    return Listener(await anyio.create_unix_listener(path, mode=mode))
