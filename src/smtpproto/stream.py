"""The one pump: octets between a byte stream and a connection, with flushing and TLS.

The seam below is a `Wire`, which can be made of any anyio `ByteStream`: whatever can receive, send
and close may carry a session.
The seam above is `Pump`, which client and server share; neither touches the stream itself.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import suppress
from typing import Generic, TypeVar, cast

import anyio
from anyio.abc import ByteStream

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
from .wire import TlsWire, Wire, as_wire

__all__ = [
    "LOST",
    "Pump",
    "StreamLostError",
    "alone",
    "causes",
    "first_cause",
    "local_address",
    "lost",
    "own_literal",
    "peer_address",
    "shown",
]

Event = TypeVar("Event", ClientEvent, ServerEvent)


class StreamLostError(Exception):
    """The stream broke: reset, closed, or TLS failed on it."""


class Pump(Generic[Event]):
    """Moves octets between `stream` and `connection`, in both directions.

    What is put leaves when `flush` is called, or before the pump waits for input: so replies and
    commands that belong together share one write (RFC 2920 §3).
    """

    def __init__(self, stream: ByteStream, connection: ServerConnection | ClientConnection) -> None:
        self._wire = as_wire(stream)
        self._connection = connection
        self._out: list[bytes] = []
        #: Octets received so far.
        self.received = 0
        #: We have closed the stream.
        self.closed = False

    @property
    def stream(self) -> Wire:
        """The stream of now: after STARTTLS, the TLS stream."""
        return self._wire

    @property
    def unsent(self) -> bool:
        """Whether something was put and has not left."""
        return bool(self._out) or self._wire.pending

    def put(self, octets: bytes) -> None:
        """Store octets to be written."""
        self._out.append(octets)

    def begin(self) -> bool:
        """Begin to write all that was put; tell whether it has left. StreamLostError as `flush`."""
        if not self._out:
            return not self._wire.pending
        octets = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        try:
            return self._wire.write(octets)
        except LOST as error:
            raise lost(error) from error

    async def finish(self) -> None:
        """Wait until all that was begun has left. StreamLostError when the stream is broken."""
        try:
            await self._wire.drain()
        except LOST as error:
            raise lost(error) from error

    async def flush(self) -> None:
        """Write all that was put. StreamLostError when the stream is broken."""
        if not self.begin():
            await self.finish()

    def flush_soon(self) -> None:
        """Write all that was put, while the caller does something else."""
        with suppress(StreamLostError):  # whoever writes or reads next will notice
            if not self.begin():
                self._wire.drain_soon()

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
        event = self.pull_at_hand()
        return await self.wait() if event is None else event

    async def wait(self) -> Event:
        """Do as `pull` where nothing is at hand."""
        if self._out or self._wire.pending:
            await self.flush()
        while True:
            try:
                octets = await self._wire.receive()
            except LOST as error:
                octets = self._ended(error)
            if (event := self._take_in(octets)) is not None:
                return event
            # What is thrown away may come faster than we read: others have their turn.
            await anyio.lowlevel.checkpoint()

    async def wait_until(self, at: float) -> Event | None:
        """Do as `wait`; None where there is no event at `at`, by the event loop's clock."""
        if self._out or self._wire.pending:
            await self.flush()
        while True:
            try:
                octets = await self._wire.receive_by(at)
            except LOST as error:
                octets = self._ended(error)
            if octets is None:
                return None
            if (event := self._take_in(octets)) is not None:
                return event
            await anyio.lowlevel.checkpoint()

    async def receive(self) -> None:
        """Wait for what comes next and hand it to the connection, all that was put sent before."""
        if self._out or self._wire.pending:
            await self.flush()
        try:
            octets = await self._wire.receive()
        except LOST as error:
            octets = self._ended(error)
        self.received += len(octets)
        self._connection.receive_data(octets)

    async def receive_until(self, at: float) -> bool:
        """Do as `receive` where all has left; False where nothing has come at `at`."""
        try:
            octets = await self._wire.receive_by(at)
        except LOST as error:
            octets = self._ended(error)
        if octets is None:
            return False
        self.received += len(octets)
        self._connection.receive_data(octets)
        return True

    def _take_in(self, octets: bytes) -> Event | None:
        self.received += len(octets)
        self._connection.receive_data(octets)
        return self.pull_at_hand()

    def _ended(self, error: Exception) -> bytes:
        if isinstance(error, anyio.EndOfStream):
            return b""
        raise lost(error) from error

    async def listen(self, seconds: float) -> None:
        """Receive what comes within `seconds`, once, and say nothing."""
        with anyio.move_on_after(seconds):
            await self.receive()

    async def linger(self, octets: int) -> None:
        """Say that we have nothing more to say, and listen until the peer says so, too.

        A socket that is closed with input unread takes back what it has sent last; the peer would
        not see why it was sent away. Gives up after so many octets.
        """
        with suppress(*LOST):
            await self._wire.send_eof()
            while octets > 0:
                octets -= len(await self._wire.receive())

    async def start_tls(
        self,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        hostname: str | None = None,
        early: bytes = b"",
    ) -> None:
        """Wrap the stream in TLS and tell the connection. StreamLostError when it fails.

        `early` was received from the stream already, and is where TLS begins.
        """
        await self.flush()
        try:
            wire = await TlsWire.wrap(
                self._wire, context, server_side=server_side, hostname=hostname, early=early
            )
        except LOST as error:
            raise lost(error) from error
        self._wire = wire
        version, (cipher, *_) = wire.tls.version() or "", wire.tls.cipher() or ("",)
        unique = b""
        # TLS 1.3 has none; that of a resumed session may be another session's (RFC 7677 §4).
        if version != "TLSv1.3" and not wire.tls.session_reused:
            unique = wire.tls.get_channel_binding("tls-unique") or b""
        certificate = wire.tls.getpeercert(binary_form=True) or b""
        # The handshake fails where there is one that the context does not trust.
        looked_at = context.verify_mode is not ssl.CERT_NONE and bool(certificate)
        verified = looked_at and (server_side or context.check_hostname)
        self._connection.tls_started(TlsInfo(version, cipher, certificate, unique, verified))

    async def aclose(self) -> None:
        """Close the stream without waiting for the peer."""
        self.closed = True
        await self._wire.aclose()


#: What streams raise where they break.
LOST = (
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    anyio.EndOfStream,
    OSError,  # among them ssl.SSLError
)


def lost(error: Exception) -> StreamLostError:
    """Say of one of LOST what it means for a session."""
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    return StreamLostError(str(cause) or type(cause).__name__)


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


def alone(error: BaseException) -> BaseException:
    """Take an error out of groups in which it stands alone."""
    found: BaseException = error
    if isinstance(error, BaseExceptionGroup):
        errors = cast("BaseExceptionGroup[BaseException]", error).exceptions
        if len(errors) == 1:
            found = alone(errors[0])
    return found


def first_cause(error: BaseException) -> BaseException:
    """Go down to the OSError that says why: anyio's own words are that all attempts failed."""
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, OSError):
            error = below
        below = below.__cause__ or getattr(below, "exceptions", (None,))[0]
    return error


def peer_address(stream: ByteStream) -> tuple[str, int]:
    """Return the peer's IP address and port; ("", 0) where the stream has none."""
    return as_wire(stream).peer


def local_address(stream: ByteStream) -> tuple[str, int]:
    """Return the IP address and port of our end; ("", 0) where the stream has none."""
    return as_wire(stream).local


def own_literal(stream: ByteStream) -> str:
    """Write the address of our end as an address literal (RFC 5321 §4.1.3), for EHLO."""
    address = local_address(stream)[0].partition("%")[0]  # a zone means nothing to the other end
    if not address:
        return "localhost"
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"


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
