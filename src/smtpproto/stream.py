"""The one pump: octets between a byte stream and a connection, with flushing, TLS and deadlines.

The seam below is anyio's `ByteStream`: whatever can receive, send and close may carry a session.
The seam above is `Pump`, which client and server share; neither touches the stream itself.
"""

from __future__ import annotations

import ssl
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Generic, TypeVar, cast

import anyio
from anyio import TypedAttributeProvider
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.tls import TLSAttribute, TLSStream

from .core.client_connection import ClientConnection, ClientEvent
from .core.command import Auth, AuthResponse, Command
from .core.event import (
    NEED_DATA,
    PAUSED,
    BadCommand,
    ConnectionClosed,
    Content,
    EndOfContent,
    TlsInfo,
)
from .core.reply import Reply
from .core.server_connection import ServerConnection, ServerEvent

__all__ = [
    "DeadlineError",
    "Pump",
    "StreamLostError",
    "causes",
    "deadline",
    "first_cause",
    "local_address",
    "own_literal",
    "peer_address",
    "read_on_demand",
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


class deadline:  # noqa: N801 - read as a verb: `with deadline("mail", 300)`
    """Bound what is awaited inside to `seconds` by the event loop's clock; None does not.

    `left` is what is left of them where they began to run before. Raises DeadlineError, which
    names the deadline.
    """

    __slots__ = ("_left", "_name", "_scope", "_seconds")

    def __init__(self, name: str, seconds: float | None, left: float | None = None) -> None:
        self._name = name
        self._seconds = seconds
        self._left = seconds if left is None else left
        self._scope: anyio.CancelScope | None = None

    def __enter__(self) -> None:
        # A class and one scope: this stands around every wait, and generators cost more.
        if self._seconds is not None and self._left is not None:
            self._scope = anyio.CancelScope(deadline=anyio.current_time() + self._left)
            self._scope.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._scope is None or self._seconds is None:
            return
        self._scope.__exit__(kind, error, traceback)
        if self._scope.cancelled_caught:  # all that it ever swallows is its own cancellation
            raise DeadlineError(self._name, self._seconds)


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
        self._torn = False  # a write was cut off, so nothing that follows can be understood
        #: We have closed the stream.
        self.closed = False

    @property
    def stream(self) -> ByteStream:
        """The stream of now: after STARTTLS, the TLS stream."""
        return self._stream

    @property
    def unsent(self) -> int:
        """Octets that were put and have not begun to leave."""
        return len(self._out)

    def put(self, octets: bytes) -> None:
        """Store octets to be written."""
        self._out += octets

    async def flush(self) -> None:
        """Write all that was put. StreamLostError when the stream is broken.

        Cancelled in the midst of a write, it leaves a stream that is broken.
        """
        while self._out:
            async with self._writing:
                if self._torn:
                    raise StreamLostError("an earlier write was cut off")
                octets = bytes(self._out)
                self._out.clear()
                if octets:
                    self._torn = True
                    with _lost_stream():
                        await self._stream.send(octets)
                    self._torn = False

    def pull_at_hand(self) -> Event | None:
        """Return the connection's next event; None when something has to be received for it."""
        event: object = self._connection.next_event()
        assert event is not PAUSED, "pulled while a reply or the TLS handshake is owed"
        return None if event is NEED_DATA else event  # type: ignore[return-value]  # the connection's kind decides

    async def pull(self) -> Event:
        """Return the connection's next event, receiving as long as there is none.

        Flushes before it waits. Raises RemoteProtocolError as the connection does, and
        StreamLostError. Must not be called while the connection is PAUSED.
        """
        while (event := self.pull_at_hand()) is None:
            await self.flush()
            self._connection.receive_data(await self._receive())
        return event

    async def listen(self, seconds: float) -> None:
        """Receive what comes within `seconds`, once, and say nothing."""
        with anyio.move_on_after(seconds):
            self._connection.receive_data(await self._receive())

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
        version = stream.extra(TLSAttribute.tls_version)
        certificate = stream.extra(TLSAttribute.peer_certificate_binary, None) or b""
        unique = b""
        # TLS 1.3 has none; that of a resumed session may be another session's (RFC 7677 §4).
        if version != "TLSv1.3" and not stream.extra(TLSAttribute.ssl_object).session_reused:
            unique = stream.extra(TLSAttribute.channel_binding_tls_unique, None) or b""
        self._connection.tls_started(TlsInfo(version, cipher[0], certificate, unique))

    async def aclose(self) -> None:
        """Close the stream without waiting for the peer."""
        self.closed = True
        await anyio.aclose_forcefully(self._stream)


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


def causes(error: BaseException) -> Iterator[BaseException]:
    """Go from an error down to what caused it, into groups, the error itself first."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        found = waiting.pop(0)
        if found is None or id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        if isinstance(found, BaseExceptionGroup):
            waiting += cast("BaseExceptionGroup[BaseException]", found).exceptions
        waiting.append(found.__cause__ or found.__context__)


def first_cause(error: BaseException) -> BaseException:
    """Go down to the OSError that says why: anyio's own words are that all attempts failed."""
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, OSError):
            error = below
        below = below.__cause__ or getattr(below, "exceptions", (None,))[0]
    return error


def read_on_demand(stream: ByteStream) -> None:
    """Make an accepted stream read only when asked to.

    On asyncio, anyio lets an accepted connection read by itself until somebody waits for input,
    and keeps all of it: a client that never stops talking would fill our memory. There is no
    public way to say so.
    """
    pause = getattr(getattr(stream, "_transport", None), "pause_reading", None)
    if pause is not None:
        pause()


def peer_address(stream: TypedAttributeProvider) -> tuple[str, int]:
    """Return the peer's IP address and port; ("", 0) where the stream has none."""
    address: tuple[str, int] | str = ""
    with suppress(OSError):  # it has gone already
        address = stream.extra(SocketAttribute.remote_address, "")
    return _address(address)


def local_address(stream: TypedAttributeProvider) -> tuple[str, int]:
    """Return the IP address and port of our end; ("", 0) where the stream has none."""
    address: tuple[str, int] | str = ""
    with suppress(OSError):
        address = stream.extra(SocketAttribute.local_address, "")
    return _address(address)


def own_literal(stream: TypedAttributeProvider) -> str:
    """Write the address of our end as an address literal (RFC 5321 §4.1.3), for EHLO."""
    address = local_address(stream)[0].partition("%")[0]  # a zone means nothing to the other end
    if not address:
        return "localhost"
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"


def _address(address: tuple[str, int] | str) -> tuple[str, int]:
    return ("", 0) if isinstance(address, str) else (address[0], address[1])


def shown(
    thing: Command | BadCommand | Content | EndOfContent | Reply | ConnectionClosed,
) -> list[str]:
    """Return what a log may show of something sent or pulled: no password, no content.

    One item for each line, and nothing in it that could end a line or steer a terminal.
    """
    match thing:
        case Reply():
            return [_printable(line) for line in thing.serialize().split(b"\r\n")[:-1]]
        case Auth():
            hidden = " ****" if thing.initial_response is not None else ""
            return [f"AUTH {thing.mechanism}{hidden}"]
        case AuthResponse():
            return ["*" if thing.data is None else "****"]
        case BadCommand():
            words = thing.line.split(maxsplit=2)
            if len(words) > 2 and words[0].upper() == b"AUTH":
                return [_printable(b"%b %b ****" % (words[0], words[1]))]
            return [_printable(thing.line)]
        case Command():
            return [_printable(thing.serialize()[:-2])]
        case EndOfContent():
            return ["."]
        case _:
            return []


def _printable(octets: bytes) -> str:
    text = octets.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
