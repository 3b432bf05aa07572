"""How a client comes to its stream: TCP, a UNIX socket, or a connector of your own."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from anyio.abc import ByteStream
from attrs import field, frozen

from .wire import connect_tcp as tcp
from .wire import connect_unix as unix

__all__ = ["Connector", "TcpConnector", "UnixConnector", "connect_tcp"]


class Connector(Protocol):
    """Opens a stream to a server: by TCP, through a proxy, to a test's own pipe."""

    async def __call__(self, host: str, port: int) -> ByteStream:
        """Return a connected stream; OSError if it cannot be had."""
        ...


@frozen
class TcpConnector:
    """TCP to any address of the host, the next one tried while one is slow (RFC 8305).

    `local_host` is our end's address, where this machine has several; only addresses of its
    family are tried then. `happy_eyeballs_delay` is how many seconds an address has for itself.
    """

    local_host: str | None = None
    happy_eyeballs_delay: float = 0.25

    async def __call__(self, host: str, port: int) -> ByteStream:
        return await tcp(
            host, port, local_host=self.local_host, head_start=self.happy_eyeballs_delay
        )


@frozen
class UnixConnector:
    """A UNIX socket, as mail stores listen on for LMTP; the client's host and port mean nothing."""

    path: Path = field(converter=Path)

    async def __call__(self, host: str, port: int) -> ByteStream:
        try:
            return await unix(self.path)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from None


#: By TCP, with the defaults.
connect_tcp: Connector = TcpConnector()
