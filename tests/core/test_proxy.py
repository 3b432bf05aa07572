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
        b"PROXY UNKNOWN \r\r\n",
        b"PROXY UNKNOWN\n\r\n",
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


FOUR = bytes([192, 0, 2, 1, 192, 0, 2, 2]) + bytes.fromhex("c001 0019")
SIX = bytes.fromhex("20010db8") + bytes(11) + b"\1" + bytes(15) + b"\1" + bytes.fromhex("0000ffff")


def four(
    version: int = 2,
    tlvs: tuple[tuple[int, bytes], ...] = (),
    datagram: bool = False,
    checksum: bool = False,
) -> ProxyHeader:
    return ProxyHeader(
        version,
        source=("192.0.2.1", 0xC001),
        destination=("192.0.2.2", 25),
        datagram=datagram,
        tlvs=tlvs,
        checksum=checksum,
    )


def six(version: int = 2, datagram: bool = False) -> ProxyHeader:
    return ProxyHeader(
        version, source=("2001:db8::1", 0), destination=("::1", 65535), datagram=datagram
    )


LAID_OUT = {
    "version 1, IPv4": (
        four(1),
        b"PROXY TCP4 192.0.2.1 192.0.2.2 49153 25\r\n",
    ),
    "version 1, IPv6": (six(1), b"PROXY TCP6 2001:db8::1 ::1 0 65535\r\n"),
    "version 1, unknown": (ProxyHeader(1), b"PROXY UNKNOWN\r\n"),
    "local": (ProxyHeader(2, ProxyCommand.LOCAL), SIGNATURE + b"\x20\x00\x00\x00"),
    "unspecified": (ProxyHeader(2), SIGNATURE + b"\x21\x00\x00\x00"),
    "TCP over IPv4": (four(), SIGNATURE + b"\x21\x11\x00\x0c" + FOUR),
    "UDP over IPv4": (
        four(datagram=True),
        SIGNATURE + b"\x21\x12\x00\x0c" + FOUR,
    ),
    "TCP over IPv6": (six(), SIGNATURE + b"\x21\x21\x00\x24" + SIX),
    "UDP over IPv6": (
        six(datagram=True),
        SIGNATURE + b"\x21\x22\x00\x24" + SIX,
    ),
    "a unix stream": (
        ProxyHeader(2, source=b"/run/a MX", destination=b"/run/x/X"),
        SIGNATURE + b"\x21\x31\x00\xd8" + b"/run/a MX" + bytes(99) + b"/run/x/X" + bytes(100),
    ),
    "unix datagrams, of a name without a file and of none": (
        ProxyHeader(2, source=b"\0name", destination=b"", datagram=True),
        SIGNATURE + b"\x21\x32\x00\xd8" + b"\0name" + bytes(103 + 108),
    ),
    "a unix path behind zeros": (
        ProxyHeader(2, source=b"x" * 108, destination=b"\0\0end"),
        SIGNATURE + b"\x21\x31\x00\xd8" + b"x" * 108 + b"\0\0end" + bytes(103),
    ),
    "vectors": (
        four(
            tlvs=(
                (0, b""),
                (255, b"mail"),
                (4, bytes(257)),
                (0xEE, b""),
            )
        ),
        SIGNATURE
        + b"\x21\x11\x01\x1d"
        + FOUR
        + b"\x00\x00\x00\xff\x00\x04mail\x04\x01\x01"
        + bytes(257)
        + b"\xee\x00\x00",
    ),
}


@pytest.mark.parametrize("name", LAID_OUT)
def test_each_is_laid_out_as_the_text_has_it(name: str) -> None:
    header, octets = LAID_OUT[name]
    assert header.serialize() == octets
    assert ProxyHeader.parse(octets) == header


@pytest.mark.parametrize("name", LAID_OUT)
def test_a_header_is_whole_with_its_last_octet_and_not_before(name: str) -> None:
    header, octets = LAID_OUT[name]
    for cut in range(len(octets)):
        reader = ProxyReader()
        assert reader.feed(octets[:cut]) is None
        assert reader.leftover == b""
        assert reader.feed(octets[cut:] + b"EHLO c\r\n") == header
        assert reader.leftover == b"EHLO c\r\n"
        with pytest.raises(LocalProtocolError):
            reader.feed(b"")


@pytest.mark.parametrize("name", LAID_OUT)
def test_one_is_parsed_and_no_part_of_one_or_more(name: str) -> None:
    _, octets = LAID_OUT[name]
    for wrong in (b"", octets[:-1], octets + b"\0", octets + octets):
        with pytest.raises(GrammarError):
            ProxyHeader.parse(wrong)


def test_what_followed_a_refused_header_is_not_kept_and_nothing_more_is_read() -> None:
    reader = ProxyReader()
    with pytest.raises(RemoteProtocolError):
        reader.feed(b"EHLO c\r\n")
    assert reader.leftover == b""
    with pytest.raises(LocalProtocolError):
        reader.feed(INET.serialize())


def test_a_line_of_107_octets_without_an_end_waits_for_no_more() -> None:
    line = b"PROXY UNKNOWN ".ljust(107, b"x")
    assert ProxyReader().feed(line[:-1]) is None
    with pytest.raises(RemoteProtocolError):
        ProxyReader().feed(line)


def test_a_payload_of_65535_octets_is_the_largest_that_can_be_written() -> None:
    header = four(tlvs=((4, bytes(65_535 - 12 - 3)),))
    octets = header.serialize()
    assert len(octets) == 16 + 65_535
    assert octets[14:16] == b"\xff\xff"
    assert ProxyHeader.parse(octets) == header
    with pytest.raises(LocalProtocolError):
        four(tlvs=((4, bytes(65_535 - 12 - 3 + 1)),))


def test_the_checksum_may_stand_before_other_vectors() -> None:
    sum_at = 16 + 12 + 3
    octets = bytearray(block(b"\x21\x11", FOUR + b"\x03\x00\x04" + bytes(4) + b"\xea\x00\x01x"))
    octets[sum_at : sum_at + 4] = crc32c(bytes(octets)).to_bytes(4)
    assert ProxyHeader.parse(bytes(octets)) == four(tlvs=((0xEA, b"x"),), checksum=True)
    octets[-1] ^= 1
    with pytest.raises(GrammarError):
        ProxyHeader.parse(bytes(octets))


def test_a_right_checksum_in_a_vector_that_is_too_long_is_none() -> None:
    sum_at = 16 + 12 + 3
    octets = bytearray(block(b"\x21\x11", FOUR + b"\x03\x00\x05" + bytes(5)))
    octets[sum_at : sum_at + 4] = crc32c(bytes(octets)).to_bytes(4)
    with pytest.raises(GrammarError):
        ProxyHeader.parse(bytes(octets))


@pytest.mark.parametrize(
    ("octets", "value"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),  # this and what follows: RFC 3720 appendix B.4
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(reversed(range(32))), 0x113FDB5C),
    ],
)
def test_sums_that_others_worked_out(octets: bytes, value: int) -> None:
    assert crc32c(octets) == value


def test_a_sum_behind_its_octets_always_gives_the_same_sum() -> None:
    octets = (bytes([octet]) for octet in range(256))
    assert {crc32c(each + crc32c(each).to_bytes(4, "little")) for each in octets} == {0x48674BC7}


def test_checksum() -> None:
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
        lambda: ProxyHeader(2, source=("1.2.3.4", -1), destination=("1.2.3.4", 1)),
        lambda: ProxyHeader(2, source=b"x" * 109, destination=b""),
        lambda: ProxyHeader(2, source=b"", destination=b"x" * 109),
        lambda: ProxyHeader(2, source=b"/run/x\0", destination=b"/run/y"),
        lambda: ProxyHeader(1, source=b"x", destination=b"x"),
        lambda: ProxyHeader(1, source=("1.2.3.4", 1), destination=("1.2.3.4", 1), checksum=True),
        lambda: ProxyHeader(1, source=("1.2.3.4", 1), destination=("1.2.3.4", 1), datagram=True),
        lambda: ProxyHeader(1, source=("1.2.3.4", 1), destination=("1.2.3.4", 1), tlvs=((4, b""),)),
        lambda: ProxyHeader(2, checksum=True),
        lambda: ProxyHeader(2, datagram=True),
        lambda: ProxyHeader(2, tlvs=((4, b""),)),
        lambda: ProxyHeader(2, source=b"x", destination=b"x", tlvs=((3, b"sum!"),)),
        lambda: ProxyHeader(2, source=b"x", destination=b"x", tlvs=((256, b""),)),
        lambda: ProxyHeader(2, source=b"x", destination=b"x", tlvs=((-1, b""),)),
        lambda: ProxyHeader(2, source=b"x", destination=b"x", tlvs=((4, b"x" * 65500),)),
    ],
)
def test_what_cannot_be_written(make: object) -> None:
    assert callable(make)
    with pytest.raises(LocalProtocolError):
        make()


def test_local_of_a_family_that_nobody_knows_may_have_nothing_behind_it() -> None:
    """The proxy speaks for itself; what family it says does not matter."""
    assert ProxyReader().feed(SIGNATURE + b"\x20\x51\x00\x00") == ProxyHeader(2, ProxyCommand.LOCAL)
