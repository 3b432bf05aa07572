"""What a session asks of the stream below it."""

from __future__ import annotations

import socket
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import anyio
from anyio.abc import ByteStream, SocketAttribute

__all__ = ["RECEIVE_OCTETS", "Attributes", "Wire", "host_and_port", "of_socket"]

#: What anyio calls extra attributes.
Attributes: TypeAlias = Mapping[Any, Callable[[], Any]]

#: Octets that one receive returns at most.
RECEIVE_OCTETS = 65_536


class Wire(ByteStream):
    """A byte stream that can begin to write without waiting.

    `receive` waits where there is nothing at hand, and only there: no checkpoint is made for its
    own sake. One task receives and one writes at a time.
    """

    async def receive_by(self, at: float, max_bytes: int = RECEIVE_OCTETS) -> bytes | None:
        """Receive; None where nothing has come at `at`, by the event loop's clock."""
        with anyio.CancelScope(deadline=at):
            return await self.receive(max_bytes)
        return None

    @abstractmethod
    def write(self, octets: bytes) -> bool:
        """Begin to send; tell whether all of it has left.

        What has not is kept: `drain` sends it. Raises as `send` does.
        """

    @property
    @abstractmethod
    def pending(self) -> bool:
        """Whether some of what was written has not left."""

    @abstractmethod
    async def drain(self) -> None:
        """Wait until all that was written has left.

        Cancelled, it may be called again, unless `write` and `send` raise from then on.
        """

    @abstractmethod
    def drain_soon(self) -> None:
        """Send the rest of what was written while the caller does something else."""

    @property
    def peer(self) -> tuple[str, int]:
        """The peer's IP address and port; ("", 0) where it has none, or has gone already."""
        return self._end(SocketAttribute.remote_address)

    @property
    def local(self) -> tuple[str, int]:
        """The same of our end."""
        return self._end(SocketAttribute.local_address)

    def _end(self, attribute: Any) -> tuple[str, int]:
        try:
            return host_and_port(self.extra(attribute, ""))
        except OSError:
            return "", 0

    @property
    @abstractmethod
    def extra_attributes(self) -> Attributes:
        """What can be asked of it: anyio's SocketAttribute and, under TLS, TLSAttribute."""

    async def send(self, item: bytes) -> None:
        """Send all of it. BrokenResourceError or ClosedResourceError where that cannot be."""
        if not self.write(item):
            await self.drain()


def of_socket(raw: socket.socket) -> Attributes:
    """Return what can be asked of a stream over this socket."""
    return {
        SocketAttribute.family: lambda: raw.family,
        SocketAttribute.local_address: lambda: _address(raw.getsockname()),
        SocketAttribute.remote_address: lambda: _address(raw.getpeername()),
        SocketAttribute.raw_socket: lambda: raw,
    }


def host_and_port(address: Any) -> tuple[str, int]:
    """Return what an IP address has; UNIX sockets have a path, bytes where it is no path."""
    if isinstance(address, (str, bytes)):
        return "", 0
    return address[0], address[1]


def _address(name: Any) -> Any:
    """Leave off what IPv6 adds behind host and port."""
    return name if isinstance(name, (str, bytes)) else (name[0], name[1])
