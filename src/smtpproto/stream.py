"""The one pump: octets between a byte stream and a connection, with flushing, TLS and deadlines.

The seam below is anyio's `ByteStream`: whatever can receive, send and close may carry a session.
The seam above is `Pump`, which client and server share; neither touches the stream itself.
"""

from __future__ import annotations

import ssl
from collections.abc import Generator
from contextlib import contextmanager
from typing import Generic, TypeVar

import anyio
from anyio import TypedAttributeProvider
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.tls import TLSAttribute, TLSStream

from .core.client_connection import ClientConnection, ClientEvent
from .core.command import Auth, AuthResponse, Command
from .core.event import NEED_DATA, PAUSED, Content, EndOfContent, Signal, TlsInfo
from .core.reply import Reply
from .core.server_connection import ServerConnection, ServerEvent

__all__ = [
    "DeadlineError",
    "Pump",
    "StreamLostError",
    "deadline",
    "local_address",
    "peer_address",
    "shown",
]

RECEIVE_OCTETS = 65_536

Event = TypeVar("Event", ClientEvent, ServerEvent)


class StreamLostError(Exception):
    """The stream broke: reset, closed, or TLS failed on it."""


class DeadlineError(TimeoutError):
    """A wait was longer than its deadline allows.

    `name` is the deadline's field in ClientDeadlines or ServerDeadlines, `seconds` its value.
    """

    def __init__(self, name: str, seconds: float) -> None:
        super().__init__(f"no progress within the {name} deadline of {seconds:g} s")
        self.name = name
        self.seconds = seconds


@contextmanager
def deadline(name: str, seconds: float | None) -> Generator[None]:
    """Bound what is awaited inside to `seconds` by the event loop's clock; None does not.

    Raises DeadlineError, which names the deadline.
    """
    if seconds is None:
        yield
        return
    with anyio.move_on_after(seconds) as scope:
        yield
    if scope.cancelled_caught:
        raise DeadlineError(name, seconds)


class Pump(Generic[Event]):
    """Moves octets between `stream` and `connection`, in both directions.

    What is put leaves when `flush` is called, or before the pump waits for input: so replies and
    commands that belong together share one write (RFC 2920 §3).
    """

    def __init__(self, stream: ByteStream, connection: ServerConnection | ClientConnection) -> None:
        self._stream = stream
        self._connection = connection
        self._out = bytearray()
        self._writing = anyio.Lock()

    @property
    def stream(self) -> ByteStream:
        """The stream of now: after STARTTLS, the TLS stream."""
        return self._stream

    def put(self, octets: bytes) -> None:
        """Store octets to be written."""
        self._out += octets

    async def flush(self) -> None:
        """Write all that was put. StreamLostError when the stream is broken."""
        while self._out:
            async with self._writing:
                octets = bytes(self._out)
                self._out.clear()
                if octets:
                    with _lost_stream():
                        await self._stream.send(octets)

    async def pull(self) -> Event:
        """Return the connection's next event, receiving as long as there is none.

        Flushes before it waits. Raises RemoteProtocolError as the connection does, and
        StreamLostError. Must not be called while the connection is PAUSED.
        """
        while True:
            event: object = self._connection.next_event()
            if event is NEED_DATA:
                await self.flush()
                self._connection.receive_data(await self._receive())
                continue
            assert event is not PAUSED, "pulled while a reply or the TLS handshake is owed"
            return event  # type: ignore[return-value]  # the connection's kind decides

    async def _receive(self) -> bytes:
        with _lost_stream():
            try:
                return await self._stream.receive(RECEIVE_OCTETS)
            except anyio.EndOfStream:
                return b""

    async def start_tls(
        self, context: ssl.SSLContext, *, server_side: bool, hostname: str | None = None
    ) -> None:
        """Wrap the stream in TLS and tell the connection. StreamLostError when it fails."""
        await self.flush()
        with _lost_stream():
            # Many peers close without TLS's own goodbye; SMTP marks its ends itself.
            stream = await TLSStream.wrap(
                self._stream,
                server_side=server_side,
                hostname=hostname,
                ssl_context=context,
                standard_compatible=False,
            )
        self._stream = stream
        cipher = stream.extra(TLSAttribute.cipher)
        self._connection.tls_started(
            TlsInfo(version=stream.extra(TLSAttribute.tls_version), cipher=cipher[0])
        )

    async def aclose(self) -> None:
        """Close the stream without waiting for the peer."""
        await anyio.aclose_forcefully(self._stream)


_LOST = (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream)


@contextmanager
def _lost_stream() -> Generator[None]:
    try:
        yield
    except (
        anyio.BrokenResourceError,
        anyio.ClosedResourceError,
        anyio.EndOfStream,
        OSError,
    ) as error:
        if isinstance(error, DeadlineError):
            raise
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
        raise StreamLostError(str(cause) or type(cause).__name__) from error


def peer_address(stream: TypedAttributeProvider) -> tuple[str, int]:
    """Return the peer's IP address and port; ("", 0) where the stream has none."""
    return _address(stream.extra(SocketAttribute.remote_address, ""))


def local_address(stream: TypedAttributeProvider) -> tuple[str, int]:
    """Return the IP address and port of our end; ("", 0) where the stream has none."""
    return _address(stream.extra(SocketAttribute.local_address, ""))


def _address(address: tuple[str, int] | str) -> tuple[str, int]:
    return ("", 0) if isinstance(address, str) else (address[0], address[1])


def shown(thing: Command | Content | EndOfContent | Reply | Signal) -> list[str]:
    """Return what a log may show of something sent or pulled: no password, no content."""
    match thing:
        case Reply():
            return thing.serialize().decode("utf-8", "backslashreplace").splitlines()
        case Auth():
            hidden = " ****" if thing.initial_response is not None else ""
            return [f"AUTH {thing.mechanism}{hidden}"]
        case AuthResponse():
            return ["*" if thing.data is None else "****"]
        case Command():
            return [thing.serialize().decode("utf-8", "backslashreplace").rstrip()]
        case EndOfContent():
            return ["."]
        case _:
            return []
