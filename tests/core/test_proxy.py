"""The PROXY protocol, both versions, as HAProxy's doc/proxy-protocol.txt has it."""

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpproto import GrammarError, LocalProtocolError, RemoteProtocolError
from smtpproto.core.proxy import ProxyCommand, ProxyFamily, ProxyHeader, ProxyReader, crc32c

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
INET = ProxyHeader(2, source=("192.168.0.1", 56324), destination=("192.168.0.11", 443))


def block(kind: bytes, payload: bytes = b"", length: int | None = None) -> bytes:
    return (
        SIGNATURE + kind + struct.pack("!H", len(payload) if length is None else length) + payload
    )


ports = st.integers(0, 65535)
ends = st.one_of(
    st.tuples(*[st.tuples(st.ip_addresses(v=4).map(str), ports)] * 2),
    st.tuples(*[st.tuples(st.ip_addresses(v=6).map(str), ports)] * 2),
)
paths = st.binary(max_size=108).filter(lambda path: path[-1:] != b"\0")
tlvs = st.lists(
    st.tuples(st.integers(0, 255).filter(lambda kind: kind != 3), st.binary(max_size=40)),
    max_size=4,
)


@st.composite
def headers(draw: st.DrawFn) -> ProxyHeader:
    """Every header that can be written."""
    if draw(st.booleans()):
        one, other = draw(ends | st.just((None, None)))
        return ProxyHeader(1, ProxyCommand.PROXY, one, other)
    if draw(st.integers(0, 4)) == 0:
        return ProxyHeader(2, draw(st.sampled_from(ProxyCommand)))
    source, destination = draw(ends | st.tuples(paths, paths))
    return ProxyHeader(
        2,
        ProxyCommand.PROXY,
        source,
        destination,
        draw(st.booleans()),
        tuple(draw(tlvs)),
        draw(st.booleans()),
    )


@given(headers())
def test_what_is_written_is_read_back(header: ProxyHeader) -> None:
    assert ProxyHeader.parse(header.serialize()) == header


@given(headers(), st.binary(max_size=20), st.lists(st.integers(0, 500)))
def test_splitting_changes_nothing(header: ProxyHeader, behind: bytes, cuts: list[int]) -> None:
    octets = header.serialize() + behind
    reader = ProxyReader()
    bounds = sorted({0, len(octets), *(cut for cut in cuts if cut < len(octets))})
    read = None
    rest = b""
    for start, end in itertools.pairwise(bounds):
        if read is None:
            assert reader.leftover == b""
            read = reader.feed(octets[start:end])
        else:
            rest += octets[start:end]
    assert read == header
    assert reader.leftover + rest == behind


@given(st.lists(st.binary(max_size=300), max_size=4), st.sampled_from([b"", b"PROXY ", SIGNATURE]))
def test_reading_is_total(chunks: list[bytes], head: bytes) -> None:
    reader = ProxyReader()
    try:
        read = reader.feed(head)
        for chunk in chunks:
            if read is None:
                read = reader.feed(chunk)
    except RemoteProtocolError as error:
        assert error.reply is None  # noqa: PT017 - nothing may be said before the header is whole
        with pytest.raises(LocalProtocolError):
            reader.feed(b"")


@given(headers(), st.data())
def test_a_changed_octet_is_noticed_or_read_otherwise(
    header: ProxyHeader, data: st.DataObject
) -> None:
    octets = bytearray(header.serialize())
    at = data.draw(st.integers(0, len(octets) - 1))
    octets[at] ^= 1 << data.draw(st.integers(0, 7))
    try:
        read = ProxyHeader.parse(bytes(octets))
    except GrammarError:
        return
    assert not (header.checksum and read.checksum), "the checksum covers every octet"


def test_examples_of_version_1() -> None:
    line = b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"
    reader = ProxyReader()
    header = reader.feed(line + b"EHLO c\r\n")
    assert header == ProxyHeader(
        1, source=("192.168.0.1", 56324), destination=("192.168.0.11", 443)
    )
    assert header is not None
    assert header.family is ProxyFamily.INET
    assert reader.leftover == b"EHLO c\r\n"
    assert header.serialize() == line
    six = ProxyHeader.parse(b"PROXY TCP6 2001:DB8::1 ::1 0 65535\r\n")
    assert six.source == ("2001:db8::1", 0)
    assert six.family is ProxyFamily.INET6


@pytest.mark.parametrize("rest", [b"", b" ", b" ffff:f " + b"x" * 80])
def test_unknown_of_version_1_says_nothing(rest: bytes) -> None:
    header = ProxyHeader.parse(b"PROXY UNKNOWN" + rest + b"\r\n")
    assert header == ProxyHeader(1)
    assert header.family is ProxyFamily.UNSPECIFIED


def test_example_of_version_2() -> None:
    octets = bytes.fromhex("0d0a0d0a000d0a515549540a2111000cac130001ac130003a6520050")
    header = ProxyHeader.parse(octets)
    assert header == ProxyHeader(2, source=("172.19.0.1", 42578), destination=("172.19.0.3", 80))
    assert header.serialize() == octets


@pytest.mark.parametrize(
    "kind",
    [b"\x20\x00", b"\x20\x11", b"\x20\xff", b"\x21\x00", b"\x21\x10", b"\x21\x01"],
)
@pytest.mark.parametrize("payload", [b"", b"\xff" * 30])
def test_what_is_local_or_unspecified_is_skipped(kind: bytes, payload: bytes) -> None:
    header = ProxyHeader.parse(block(kind, payload))
    assert (header.source, header.destination, header.tlvs) == (None, None, ())
    assert header.command is ProxyCommand(kind[0] & 1)


@pytest.mark.parametrize(
    "octets",
    [
        b"EHLO c\r\n",
        b"proxy TCP4 1.2.3.4 1.2.3.4 1 1\r\n",
        b"PROXY  TCP4 1.2.3.4 1.2.3.4 1 1\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1 \r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 01 1\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 -1 1\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1_0 1\r\n",
        b"PROXY TCP4 1.2.3.04 1.2.3.4 1 1\r\n",
        b"PROXY TCP4 1.2.3 1.2.3.4 1 1\r\n",
        b"PROXY TCP4 ::1 ::1 1 1\r\n",
        b"PROXY TCP6 1.2.3.4 1.2.3.4 1 1\r\n",
        b"PROXY TCP4 1.2.3.4 ::1 1 1\r\n",
        b"PROXY TCP6 fe80::1%eth0 ::1 1 1\r\n",
        "PROXY TCP4 1.2.3.٤ 1.2.3.4 1 1\r\n".encode(),
        b"PROXY UDP4 1.2.3.4 1.2.3.4 1 1\r\n",
        b"PROXY UNKNOWNS\r\n",
        b"PROXY UNKNOWN \n\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\n\r\n",
        b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",  # 108 octets
        b"PROXY " + b"x" * 101,  # and it need not end
        b"\r\n\r\n\0\r\nQUIT\r",
        block(b"\x11\x11", bytes(12)),
        block(b"\x22\x11", bytes(12)),
        block(b"\x21\x41", bytes(12)),
        block(b"\x21\x13", bytes(12)),
        block(b"\x21\x11", bytes(11)),
        block(b"\x21\x21", bytes(35)),
        block(b"\x21\x31", bytes(215)),
        block(b"\x21\x11", bytes(12) + b"\x01"),
        block(b"\x21\x11", bytes(12) + b"\x01\x00"),
        block(b"\x21\x11", bytes(12) + b"\x01\x00\x02a"),
        block(b"\x21\x11", bytes(12) + b"\x03\x00\x04\x00\x00\x00\x00"),
        block(b"\x21\x11", bytes(12) + b"\x03\x00\x03\x00\x00\x00"),
        block(b"\x21\x11", length=4097),
        block(b"\x21\x11", length=65535),
        block(b"\x22\x11", length=12),  # known to be none before it is whole
    ],
)
def test_everything_else_is_refused_at_every_split(octets: bytes) -> None:
    for cut in range(len(octets) + 1):
        reader = ProxyReader()
        with pytest.raises(RemoteProtocolError) as caught:  # noqa: PT012 - at either of the two
            if reader.feed(octets[:cut]) is None:
                reader.feed(octets[cut:])
        assert caught.value.reply is None
        assert reader.leftover == b""


def test_the_longest_line_is_read_and_no_longer_one() -> None:
    longest = b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n"
    assert len(longest) == 107
    assert ProxyHeader.parse(longest) == ProxyHeader(1)


def test_a_header_says_when_it_is_too_long_before_it_comes() -> None:
    reader = ProxyReader(max_payload=12)
    assert reader.feed(INET.serialize()) == INET
    with pytest.raises(RemoteProtocolError):
        ProxyReader(max_payload=11).feed(INET.serialize()[:16])


def test_checksum() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    header = ProxyHeader(2, source=INET.source, destination=INET.destination, checksum=True)
    octets = header.serialize()
    assert ProxyHeader.parse(octets).checksum
    twice = block(b"\x21\x11", octets[16:] + octets[-7:])
    with pytest.raises(GrammarError):
        ProxyHeader.parse(twice)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ProxyHeader(3),
        lambda: ProxyHeader(1, ProxyCommand.LOCAL),
        lambda: ProxyHeader(2, ProxyCommand.LOCAL, ("1.2.3.4", 1), ("1.2.3.4", 1)),
        lambda: ProxyHeader(2, source=("1.2.3.4", 1)),
        lambda: ProxyHeader(2, source=("1.2.3.4", 1), destination=("::1", 1)),
        lambda: ProxyHeader(2, source=("mx.example", 1), destination=("1.2.3.4", 1)),
        lambda: ProxyHeader(2, source=("1.2.3.4", 65536), destination=("1.2.3.4", 1)),
        lambda: ProxyHeader(2, source=("fe80::1%x\r\n", 1), destination=("::1", 1)),
        lambda: ProxyHeader(2, source=b"x" * 109, destination=b""),
        lambda: ProxyHeader(1, source=b"x", destination=b"x"),
        lambda: ProxyHeader(1, source=("1.2.3.4", 1), destination=("1.2.3.4", 1), checksum=True),
        lambda: ProxyHeader(2, checksum=True),
        lambda: ProxyHeader(2, source=b"x", destination=b"x", tlvs=((3, b"sum!"),)),
        lambda: ProxyHeader(2, source=b"x", destination=b"x", tlvs=((256, b""),)),
        lambda: ProxyHeader(2, source=b"x", destination=b"x", tlvs=((4, b"x" * 65500),)),
    ],
)
def test_what_cannot_be_written(make: object) -> None:
    assert callable(make)
    with pytest.raises(LocalProtocolError):
        make()
