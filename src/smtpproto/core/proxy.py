"""The PROXY protocol, versions 1 and 2 (HAProxy's doc/proxy-protocol.txt): read and written.

What a load balancer sends ahead of the session, to tell who the client is. It says so to whoever
believes it: read one only from listed peers, and from those always. Nothing else may be sent, not
even a greeting, before it is whole (§2). `ProxyReader` reads one, `ProxyHeader.serialize` writes.
"""

from __future__ import annotations

import enum
import ipaddress
import re
import struct
from collections.abc import Iterable
from typing import TypeAlias

from attrs import field, frozen

from .errors import GrammarError, LocalProtocolError, RemoteProtocolError

__all__ = ["Address", "ProxyCommand", "ProxyFamily", "ProxyHeader", "ProxyReader", "crc32c"]

#: IP address and port; the path of a unix socket in octets; None where nothing is known.
Address: TypeAlias = "tuple[str, int] | bytes | None"

MAX_LINE = 107  # version 1, with CRLF (§2.1)
MAX_PAYLOAD = 65_535  # version 2: the length has two octets (§2.2)
UNIX_PATH = 108
CRC32C = 0x03  # the type of the vector that holds the checksum (§2.2.3)

_V1 = b"PROXY "
_V2 = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED = 16  # signature, version and command, family and transport, length
_LOCAL = 0x20  # version 2, command LOCAL

_PORT = r"(0|[1-9][0-9]{0,4})"
_LINE = re.compile(rf"PROXY TCP([46]) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+) {_PORT} {_PORT}")
_UNKNOWN = re.compile(r"PROXY UNKNOWN(?: [^\r\n]*)?")


class ProxyCommand(enum.Enum):
    """Whom the connection is for."""

    #: The proxy itself, to see whether we are well: take the connection as it is.
    LOCAL = 0
    #: A client, whose addresses follow.
    PROXY = 1


class ProxyFamily(enum.Enum):
    """Of which kind the addresses are; the number is that of version 2."""

    UNSPECIFIED = 0
    INET = 1
    INET6 = 2
    UNIX = 3


def _address(value: Address) -> Address:
    if value is None or isinstance(value, bytes):
        if value is not None and (len(value) > UNIX_PATH or value[-1:] == b"\0"):
            raise LocalProtocolError(f"not the path of a unix socket: {value!r}")
        return value
    host, port = value
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise LocalProtocolError(f"not an IP address: {host!r}") from None
    if "%" in host or not 0 <= port <= 65_535:
        raise LocalProtocolError(f"not an address and port: {value!r}")
    return str(address), port


def _family(address: Address) -> ProxyFamily:
    if address is None:
        return ProxyFamily.UNSPECIFIED
    if isinstance(address, bytes):
        return ProxyFamily.UNIX
    return ProxyFamily.INET6 if ":" in address[0] else ProxyFamily.INET


def _vectors(value: Iterable[tuple[int, bytes]]) -> tuple[tuple[int, bytes], ...]:
    vectors = tuple(value)
    for kind, content in vectors:
        if not 0 <= kind <= 255 or kind == CRC32C or len(content) > MAX_PAYLOAD:
            raise LocalProtocolError(f"no vector of type {kind} and {len(content)} octets")
    return vectors


@frozen
class ProxyHeader:
    """What a proxy says about a connection.

    `source` and `destination` are the client's end and the one that it connected to, of one
    family; None where the proxy does not know, and for LOCAL: then take those of the connection
    itself. `datagram` says that the client came by UDP or the like. Version 2 may carry vectors
    of type and octets (`tlvs`), and a `checksum` over all of it. LocalProtocolError for what
    cannot be written; version 1 has streams over IP, and nothing more.
    """

    version: int = 2
    command: ProxyCommand = ProxyCommand.PROXY
    source: Address = field(default=None, converter=_address)
    destination: Address = field(default=None, converter=_address)
    datagram: bool = False
    tlvs: tuple[tuple[int, bytes], ...] = field(default=(), converter=_vectors)
    checksum: bool = False

    def __attrs_post_init__(self) -> None:
        if self.version not in (1, 2):
            raise LocalProtocolError(f"no version of the PROXY protocol: {self.version}")
        if self.family is not _family(self.destination):
            raise LocalProtocolError("source and destination are of one family")
        more = bool(self.tlvs) or self.checksum or self.datagram
        if self.family is ProxyFamily.UNSPECIFIED:
            if more:
                raise LocalProtocolError("nothing can be said of unknown addresses")
        elif self.command is ProxyCommand.LOCAL:
            raise LocalProtocolError("LOCAL has no addresses")
        if self.version == 1 and (
            more or self.command is ProxyCommand.LOCAL or self.family is ProxyFamily.UNIX
        ):
            raise LocalProtocolError("version 1 cannot say this")
        if self.version == 2 and len(self._payload()) > MAX_PAYLOAD:
            raise LocalProtocolError(f"more than {MAX_PAYLOAD} octets")

    @property
    def family(self) -> ProxyFamily:
        """Of which kind the addresses are."""
        return _family(self.source)

    @classmethod
    def parse(cls, octets: bytes) -> ProxyHeader:
        """Read exactly one header; GrammarError if the octets are not that."""
        reader = ProxyReader(max_payload=MAX_PAYLOAD)
        try:
            header = reader.feed(octets)
        except RemoteProtocolError as error:
            raise GrammarError(str(error)) from None
        if header is None or reader.leftover:
            raise GrammarError("not exactly one PROXY header")
        return header

    def serialize(self) -> bytes:
        """Write it; send it at once, ahead of everything else."""
        return self._line() if self.version == 1 else self._block()

    def _line(self) -> bytes:
        if isinstance(self.source, tuple) and isinstance(self.destination, tuple):
            kind = "TCP6" if self.family is ProxyFamily.INET6 else "TCP4"
            (source, source_port), (destination, port) = self.source, self.destination
            return f"PROXY {kind} {source} {destination} {source_port} {port}\r\n".encode()
        return b"PROXY UNKNOWN\r\n"

    def _block(self) -> bytes:
        transport = 2 if self.datagram else 1 if self.source is not None else 0
        first = 0x20 | self.command.value
        second = self.family.value << 4 | transport
        payload = self._payload()
        block = _V2 + struct.pack("!BBH", first, second, len(payload)) + payload
        if self.checksum:
            block = block[:-4] + crc32c(block).to_bytes(4)
        return block

    def _payload(self) -> bytes:
        """Return what follows the fixed part, the checksum last and still 0."""
        vectors = [*self.tlvs, *([(CRC32C, bytes(4))] if self.checksum else [])]
        return _octets(self.source, self.destination) + b"".join(
            struct.pack("!BH", kind, len(content)) + content for kind, content in vectors
        )


def _octets(source: Address, destination: Address) -> bytes:
    if isinstance(source, tuple) and isinstance(destination, tuple):
        hosts = [ipaddress.ip_address(host).packed for host, _ in (source, destination)]
        return b"".join(hosts) + struct.pack("!HH", source[1], destination[1])
    if isinstance(source, bytes) and isinstance(destination, bytes):
        return source.ljust(UNIX_PATH, b"\0") + destination.ljust(UNIX_PATH, b"\0")
    return b""


class ProxyReader:
    """Reads the one header at the beginning of a connection, however its octets arrive.

    A header of version 2 with more than `max_payload` octets behind its fixed part is refused.
    """

    def __init__(self, max_payload: int = 4096) -> None:
        self._max_payload = max_payload
        self._buffer = bytearray()
        self._over = False

    @property
    def leftover(self) -> bytes:
        """What came behind the header: the session's first octets."""
        return bytes(self._buffer) if self._over else b""

    def feed(self, data: bytes) -> ProxyHeader | None:
        """Take octets; return the header once it is whole, None before.

        Raises RemoteProtocolError, as soon as it can be known, for everything that is no header:
        close without a word. LocalProtocolError when there has been an end already.
        """
        if self._over:
            raise LocalProtocolError("there is one PROXY header, and it has been read")
        self._buffer += data
        try:
            found = self._find()
            if found is None:
                return None
            octets, header = found
        except GrammarError as error:
            self._over = True
            self._buffer.clear()
            raise RemoteProtocolError(f"no PROXY header: {error}") from None
        self._over = True
        del self._buffer[:octets]
        return header

    def _find(self) -> tuple[int, ProxyHeader] | None:
        """Return the header and how many octets it has; None if there are too few yet."""
        buffer = self._buffer
        if buffer.startswith(_V1):
            end = buffer.find(b"\r\n", 0, MAX_LINE)
            if end < 0:
                if len(buffer) >= MAX_LINE:
                    raise GrammarError("a line without end")
                return None
            return end + 2, _read_line(bytes(buffer[:end]))
        if buffer.startswith(_V2):
            if len(buffer) < _FIXED:
                return None
            length = int.from_bytes(buffer[14:_FIXED])
            if length > self._max_payload:
                raise GrammarError(f"{length} octets, more than {self._max_payload}")
            kind = _read_kind(buffer[12], buffer[13])
            octets = _FIXED + length
            return None if len(buffer) < octets else (octets, _read_block(kind, buffer[:octets]))
        if _V1.startswith(buffer) or _V2.startswith(buffer):
            return None
        raise GrammarError("neither version begins so")


def _read_line(line: bytes) -> ProxyHeader:
    try:
        text = line.decode("ascii")
    except UnicodeDecodeError:
        raise GrammarError("a line that is not ASCII") from None
    if _UNKNOWN.fullmatch(text):
        return ProxyHeader(1)
    match = _LINE.fullmatch(text)
    if match is None:
        raise GrammarError(f"{text!r}")
    version, source, destination, source_port, port = match.groups()
    header = _made(
        1, source=(source, int(source_port)), destination=(destination, int(port)), datagram=False
    )
    if header.family is not (ProxyFamily.INET if version == "4" else ProxyFamily.INET6):
        raise GrammarError("addresses of another family than announced")
    return header


def _read_kind(first: int, second: int) -> tuple[ProxyCommand, ProxyFamily, int]:
    """Read version and command, family and transport; values not given away yet are refused.

    But for LOCAL, whose family is ignored (§2.2).
    """
    if first == _LOCAL:
        return ProxyCommand.LOCAL, ProxyFamily.UNSPECIFIED, 0
    if first >> 4 != 2 or first & 15 > 1 or second >> 4 > 3 or second & 15 > 2:
        raise GrammarError(f"an unknown version, command, family or transport: {first}, {second}")
    return ProxyCommand(first & 15), ProxyFamily(second >> 4), second & 15


def _read_block(
    kind: tuple[ProxyCommand, ProxyFamily, int], block: bytes | bytearray
) -> ProxyHeader:
    command, family, transport = kind
    if command is ProxyCommand.LOCAL or family is ProxyFamily.UNSPECIFIED or transport == 0:
        return ProxyHeader(2, command)  # whatever follows is skipped (§2.2)
    payload = bytes(block[_FIXED:])
    size = {ProxyFamily.INET: 4, ProxyFamily.INET6: 16}.get(family, UNIX_PATH)
    ports = 0 if family is ProxyFamily.UNIX else 4
    addresses, rest = payload[: 2 * size + ports], payload[2 * size + ports :]
    if len(addresses) < 2 * size + ports:
        raise GrammarError("too few octets for its addresses")
    source, destination = addresses[:size], addresses[size : 2 * size]
    tlvs, checksum = _read_vectors(rest)
    if checksum is not None:
        at = len(block) - len(rest) + checksum
        cleared = bytes(block[:at]) + bytes(4) + bytes(block[at + 4 :])
        if crc32c(cleared) != int.from_bytes(block[at : at + 4]):
            raise GrammarError("a wrong checksum")
    ends: list[Address]
    if family is ProxyFamily.UNIX:
        ends = [source.rstrip(b"\0"), destination.rstrip(b"\0")]
    else:
        source_port, port = struct.unpack("!HH", addresses[2 * size :])
        ends = [(_host(source), source_port), (_host(destination), port)]
    return _made(
        2,
        source=ends[0],
        destination=ends[1],
        datagram=transport == 2,
        tlvs=tlvs,
        checksum=checksum is not None,
    )


def _host(octets: bytes) -> str:
    return str(ipaddress.ip_address(octets))


def _read_vectors(octets: bytes) -> tuple[list[tuple[int, bytes]], int | None]:
    """Return the vectors but for the checksum, and where that one stands."""
    vectors: list[tuple[int, bytes]] = []
    checksum: int | None = None
    at = 0
    while at < len(octets):
        if at + 3 > len(octets):
            raise GrammarError("a vector that is cut short")
        kind, length = struct.unpack_from("!BH", octets, at)
        at += 3
        content = octets[at : at + length]
        if len(content) < length:
            raise GrammarError("a vector longer than its header")
        if kind != CRC32C:
            vectors.append((kind, content))
        elif checksum is not None or length != 4:
            raise GrammarError("not one checksum of four octets")
        else:
            checksum = at
        at += length
    return vectors, checksum


def _made(
    version: int,
    *,
    source: Address,
    destination: Address,
    datagram: bool,
    tlvs: Iterable[tuple[int, bytes]] = (),
    checksum: bool = False,
) -> ProxyHeader:
    """Make a header of what was read; GrammarError where it is none."""
    try:
        return ProxyHeader(
            version, ProxyCommand.PROXY, source, destination, datagram, tuple(tlvs), checksum
        )
    except LocalProtocolError as error:
        raise GrammarError(str(error)) from None


def _table() -> tuple[int, ...]:
    values: list[int] = []
    for octet in range(256):
        value = octet
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        values.append(value)
    return tuple(values)


_TABLE = _table()


def crc32c(octets: bytes) -> int:
    """Return the CRC of Castagnoli, as RFC 4960 appendix B has it."""
    value = 0xFFFFFFFF
    for octet in octets:
        value = value >> 8 ^ _TABLE[(value ^ octet) & 255]
    return value ^ 0xFFFFFFFF
