"""TLS between a session and the wire below it."""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import Self

import anyio
from anyio.streams.tls import TLSAttribute

from .base import RECEIVE_OCTETS, Attributes, Wire

__all__ = ["TlsWire", "refuse_old_versions"]

#: A record has this and no more (RFC 8446 §5.2); as much is given to TLS at a time, or what can be
#: received where half of the last was data, and not little.
RECORD = 5 + (1 << 14) + 256
#: What is given once more has come without data than one record may hold.
SIP = 1 << 10
#: What a record of data may cost beside the data, with what else may come for each.
AROUND = 256
#: So much of what is no data is borne, and then the session is broken.
IN_VAIN = 64 << 10


def refuse_old_versions(context: ssl.SSLContext) -> None:
    """Have a context take TLS 1.2 and later versions alone (RFC 8314 §4).

    Python's own contexts do so where it was built to know better than the system, which it was not
    everywhere.
    """
    context.minimum_version = max(context.minimum_version, ssl.TLSVersion.TLSv1_2)


class TlsWire(Wire):
    """TLS over `below`. Its end may come without TLS's own: SMTP marks its ends itself.

    Records need not hold data: a peer may ask for new keys as often as it likes (RFC 8446 §4.6.3),
    27 octets each time, which cost us a tenth of a millisecond or more, all that was received in
    one blocking call. So who sends little else is heard in sips, between which others have their
    turn, and is cut off in the end.
    """

    def __init__(
        self, below: Wire, context: ssl.SSLContext, *, server_side: bool, hostname: str | None
    ) -> None:
        self.below = below
        self._in = ssl.MemoryBIO()
        self._out = ssl.MemoryBIO()
        self._in_vain = 0  # octets received that brought no data, and were not paid for by any
        self._fed = self._gave = 0  # octets that TLS was given last, and of data since then
        self.tls = context.wrap_bio(self._in, self._out, server_side, hostname)

    @classmethod
    async def wrap(
        cls,
        below: Wire,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        hostname: str | None = None,
        early: bytes = b"",
    ) -> Self:
        """Shake hands over `below`, of which `early` was received before.

        ssl.SSLError where that fails, EndOfStream where it ends.
        """
        wire = cls(below, context, server_side=server_side, hostname=hostname)
        wire._in.write(early)
        while True:
            try:
                wire.tls.do_handshake()
            except ssl.SSLWantReadError:
                await wire._pass_on()
                wire._in.write(await below.receive())
            except ssl.SSLError:
                wire._begin_to_pass_on()  # the alert that says why
                raise
            else:
                await wire._pass_on()
                return wire

    async def _pass_on(self) -> None:
        if self._out.pending:
            await self.below.send(self._out.read())

    def _begin_to_pass_on(self) -> None:
        with suppress(OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            self.below.write(self._out.read())

    async def receive(self, max_bytes: int = RECEIVE_OCTETS) -> bytes:
        while True:
            try:
                data = self.tls.read(max_bytes)
            except ssl.SSLWantReadError:
                await self._pass_on()  # new keys were asked for
                await self._feed()
            except ssl.SSLZeroReturnError:
                raise anyio.EndOfStream from None
            except ssl.SSLEOFError:
                raise anyio.EndOfStream from None
            except ssl.SSLError as error:
                raise anyio.BrokenResourceError from error
            else:
                if not data:
                    raise anyio.EndOfStream
                self._gave += len(data)
                self._in_vain = max(self._in_vain - len(data) - AROUND, 0)
                return data

    async def _feed(self) -> None:
        """Give TLS more to read."""
        if self._in_vain > IN_VAIN:
            raise anyio.BrokenResourceError("TLS without end, and nothing in it")
        if self._in_vain > RECORD:
            await anyio.lowlevel.checkpoint()  # there may be more at hand, and then no wait
        usual = RECEIVE_OCTETS if max(self._fed, RECORD) <= 2 * self._gave else RECORD
        try:
            received = await self.below.receive(max(usual - self._in_vain, SIP))
        except anyio.EndOfStream:
            self._in.write_eof()
        else:
            self._fed, self._gave = len(received), 0
            self._in_vain += len(received)
            self._in.write(received)

    def write(self, octets: bytes) -> bool:
        if octets:
            try:
                self.tls.write(octets)
            except ssl.SSLError as error:
                raise anyio.BrokenResourceError from error
        return self.below.write(self._out.read())

    @property
    def pending(self) -> bool:
        return self.below.pending

    async def drain(self) -> None:
        await self.below.drain()

    def drain_soon(self) -> None:
        self.below.drain_soon()

    def _say_goodbye(self) -> None:
        with suppress(OSError):
            self.tls.unwrap()  # close_notify (RFC 8446 §6.1); nobody waits for the other's
        self._begin_to_pass_on()

    async def send_eof(self) -> None:
        self._say_goodbye()
        await self.below.send_eof()

    async def aclose(self) -> None:
        """Close at once, with TLS's own goodbye if it can leave at once."""
        self._say_goodbye()
        await self.below.aclose()

    @property
    def extra_attributes(self) -> Attributes:
        tls = self.tls
        return {
            **self.below.extra_attributes,
            TLSAttribute.alpn_protocol: tls.selected_alpn_protocol,
            TLSAttribute.channel_binding_tls_unique: tls.get_channel_binding,
            TLSAttribute.cipher: tls.cipher,
            TLSAttribute.peer_certificate_binary: lambda: tls.getpeercert(True),
            TLSAttribute.server_side: lambda: tls.server_side,
            TLSAttribute.ssl_object: lambda: tls,
            TLSAttribute.standard_compatible: lambda: False,
            TLSAttribute.tls_version: tls.version,
        }
