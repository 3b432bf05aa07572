"""Target `proxy`: what a load balancer says first, or somebody who would like to be one.

What has to hold:

- nothing but RemoteProtocolError comes out, and no later than where it can be known;
- a header is the same however its octets arrive, and what is behind it is left as it was;
- what was read can be written, and is then read as the same;
- what was made can be written, and is read as the same (§2.2 of HAProxy's document).
"""

from smtpproto import LocalProtocolError, RemoteProtocolError
from smtpproto.core.proxy import Address, ProxyCommand, ProxyHeader, ProxyReader, crc32c

from .draw import OCTETWISE, Draw, cut_at

__all__ = ["proxy_headers"]

MOST = 600  # octets of payload that the reader takes
LONGEST_LINE = 107


def proxy_headers(data: bytes) -> None:
    """Read the wire; or make a header, and read what it writes with the wire behind it."""
    draw = Draw(data)
    made = a_header(draw) if draw.flag() else None
    points = draw.points()
    octets = made.serialize() + draw.wire if made else with_checksum(draw.wire, draw)
    whole = read([octets])
    assert read(cut_at(points, octets)) == whole
    assert read(cut_at(OCTETWISE, octets)) == whole
    if made is not None and len(made.serialize()) <= MOST:
        assert whole == (made, draw.wire)
    if not isinstance(whole, tuple):
        return
    header, behind = whole
    used = octets.removesuffix(behind) if behind else octets
    assert used + behind == octets
    assert ProxyHeader.parse(used) == header
    again = header.serialize()
    assert ProxyHeader.parse(again) == header
    assert ProxyHeader.parse(again).serialize() == again


def read(pieces: list[bytes]) -> tuple[ProxyHeader, bytes] | bool:
    """Return the header and what is behind it; else whether one could still come of it."""
    reader = ProxyReader(MOST)
    fed = 0
    most = LONGEST_LINE if pieces and pieces[0][:1] == b"P" else 16 + MOST
    while pieces:
        piece = pieces.pop(0)
        fed += len(piece)
        try:
            header = reader.feed(piece)
        except RemoteProtocolError:
            refuses_more(reader)
            return False
        if header is not None:
            refuses_more(reader)
            return header, reader.leftover + b"".join(pieces)
        assert fed < most, "it waits for more than there can be"
    return True


def refuses_more(reader: ProxyReader) -> None:
    try:
        reader.feed(b"x")
    except LocalProtocolError:
        return
    raise AssertionError("it reads on behind the end")


def with_checksum(octets: bytes, draw: Draw) -> bytes:
    """Set the checksum right, for no fuzzer will guess it."""
    at = octets.find(b"\3\0\4", 16) + 3
    if not draw.flag() or at < 19 or len(octets) < at + 4:
        return octets
    end = min(16 + int.from_bytes(octets[14:16]), len(octets))
    cleared = octets[:at] + bytes(4) + octets[at + 4 :]
    return octets[:at] + crc32c(cleared[:end]).to_bytes(4) + octets[at + 4 :]


def a_header(draw: Draw) -> ProxyHeader | None:
    """Make a header of what is drawn; None where there is no such one."""
    version = draw.one_of((2, 1))
    command = draw.one_of(tuple(reversed(ProxyCommand)))
    source, destination = an_address(draw), an_address(draw)
    kinds = [draw.below(256) for _ in range(draw.below(4))]
    tlvs = [(kind, draw.take(draw.below(40))) for kind in kinds]
    try:
        datagram, checksum = draw.flag(), draw.flag()
        return ProxyHeader(version, command, source, destination, datagram, tlvs, checksum)
    except LocalProtocolError:
        return None


def an_address(draw: Draw) -> Address:
    kind = draw.below(5)
    if kind == 0:
        return ".".join(str(draw.below(256)) for _ in range(4)), draw.below(65536)
    if kind == 1:
        return ":".join(f"{draw.below(65536):x}" for _ in range(8)), draw.below(65536)
    if kind == 2:
        return draw.take(draw.below(120))
    if kind == 3:
        return draw.take(draw.below(40)).decode("latin-1"), draw.below(65537)
    return None
