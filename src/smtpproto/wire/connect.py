"""Connected sockets: all addresses of a host are tried, the next before the last has given up.

It waits for nothing but the sockets, so it is the same on every event loop, and however it is
cancelled, no socket is left open.
"""

from __future__ import annotations

import errno
import itertools
import os
import socket
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import anyio

__all__ = ["HEAD_START", "connected", "connected_unix"]

#: Seconds that one attempt has to itself (RFC 8305 §5).
HEAD_START = 0.25

Address: TypeAlias = "tuple[socket.AddressFamily, Any]"


async def connected(
    host: str, port: int, local_host: str | None = None, head_start: float = HEAD_START
) -> socket.socket:
    """Return a socket connected to a host by TCP (RFC 8305), from the address `local_host`.

    OSError where none of its addresses can be reached: that of the first attempt.
    """
    addresses = _in_turn(await _addresses(host, port))
    source = await _addresses(local_host, 0) if local_host is not None else []
    if len(addresses) == 1:
        ((family, address),) = addresses
        return await _attempt(family, address, _of_family(source, family))
    race = _Race(len(addresses))
    try:
        async with anyio.create_task_group() as race.tasks:
            for number, (family, address) in enumerate(addresses):
                start_from = _of_family(source, family)
                race.tasks.start_soon(race.run, number, family, address, start_from)
                with anyio.move_on_after(head_start):
                    await race.failed[number].wait()
    except BaseException:
        if race.winner is not None:
            race.winner.close()
        raise
    if race.winner is None:
        raise race.errors[min(race.errors)] if race.errors else OSError(f"{host} has no address")
    return race.winner


async def _addresses(host: str, port: int) -> list[Address]:
    try:  # an address needs no thread
        found: Any = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )
    except (OSError, UnicodeError):
        found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, address) for family, _, _, _, address in found]


def _of_family(source: Sequence[Address], family: socket.AddressFamily) -> Any:
    return next((address for kind, address in source if kind == family), None)


class _Race:
    """Attempts side by side; the first to succeed ends the others."""

    def __init__(self, size: int) -> None:
        self.tasks: anyio.abc.TaskGroup
        self.winner: socket.socket | None = None
        self.errors: dict[int, OSError] = {}
        self.failed = [anyio.Event() for _ in range(size)]

    async def run(
        self, number: int, family: socket.AddressFamily, address: Any, source: Any
    ) -> None:
        try:
            found = await _attempt(family, address, source)
        except OSError as error:
            self.errors[number] = error
            self.failed[number].set()
        else:
            if self.winner is None:
                self.winner = found
                self.tasks.cancel_scope.cancel()
            else:
                found.close()


async def connected_unix(path: str | os.PathLike[str]) -> socket.socket:
    """Return a socket connected to a UNIX socket. OSError if it cannot be had."""
    return await _attempt(socket.AF_UNIX, os.fspath(path), None)


async def _attempt(family: socket.AddressFamily, address: Any, source: Any) -> socket.socket:
    attempt = socket.socket(family, socket.SOCK_STREAM)
    try:
        attempt.setblocking(False)
        if source is not None:
            attempt.bind(source)
        code = attempt.connect_ex(address)
        # From a UNIX socket, EWOULDBLOCK says that too many are in the queue.
        if code in (errno.EINPROGRESS, errno.EWOULDBLOCK) and family != socket.AF_UNIX:
            await anyio.wait_writable(attempt)
            code = attempt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))  # the subclass that fits
    except BaseException:
        attempt.close()
        raise
    return attempt


def _in_turn(addresses: Iterable[Address]) -> list[Address]:
    """Let the families take turns, beginning with that of the first address (RFC 8305 §4)."""
    by_family: dict[socket.AddressFamily, list[Address]] = {}
    for each in addresses:
        by_family.setdefault(each[0], []).append(each)
    turns = itertools.zip_longest(*by_family.values())
    return [each for turn in turns for each in turn if each is not None]
