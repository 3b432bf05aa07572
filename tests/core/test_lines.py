"""Content that was looked at for bare CRs and LFs once, as a whole (RFC 5321 §2.3.8)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpproto import Content, Data, EndOfContent, LocalProtocolError, Mail, Rcpt
from smtpproto.core.content import DotWriter
from smtpproto.core.event import Lines

from .hearing import hear, make

CONTENT = st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b".", b"x"])).map(b"".join)


def is_bare(data: bytes) -> bool:
    return b"\r" in data.replace(b"\r\n", b"") or b"\n" in data.replace(b"\r\n", b"")


@given(CONTENT)
def test_where_a_cr_or_lf_stands_alone_they_are_none(data: bytes) -> None:
    if is_bare(data):
        with pytest.raises(LocalProtocolError, match="bare CR or LF"):
            Lines(data)
    else:
        assert Lines(data).data == data


@pytest.mark.parametrize(
    ("data", "octets", "pieces"),
    [
        (b"ab\r\ncd", 3, [b"ab", b"\r\nc", b"d"]),
        (b"abcd", 2, [b"ab", b"cd"]),
        (b"abcde", 2, [b"ab", b"cd", b"e"]),
        (b"abc\r\nde", 4, [b"abc", b"\r\nde"]),
        (b"a\r\nb", 2, [b"a", b"\r\n", b"b"]),
        (b"", 2, []),
    ],
)
def test_where_it_is_cut(data: bytes, octets: int, pieces: list[bytes]) -> None:
    cut = Lines(data).pieces(octets)
    assert [piece.data for _, piece in zip(range(9), cut, strict=False)] == pieces


@given(CONTENT.filter(lambda data: not is_bare(data)), st.integers(2, 5))
def test_pieces_are_the_whole_and_part_no_crlf(data: bytes, octets: int) -> None:
    pieces = list(Lines(data).pieces(octets))
    assert b"".join(piece.data for piece in pieces) == data
    for piece in pieces:
        assert 0 < len(piece.data) <= octets
        assert not is_bare(piece.data)
    # As few as can be: only one that would part a CRLF is shorter.
    assert all(len(piece.data) >= octets - 1 for piece in pieces[:-1])


@given(CONTENT.filter(lambda data: not is_bare(data)), st.integers(2, 5))
def test_what_is_written_of_them_is_what_is_written_of_any_content(
    data: bytes, octets: int
) -> None:
    whole, pieces = DotWriter(), DotWriter()
    written = b"".join(pieces.feed(piece.data, clean=True) for piece in Lines(data).pieces(octets))
    assert written + pieces.finish() == whole.feed(data) + whole.finish()


def test_what_nobody_has_looked_at_is_looked_at() -> None:
    with pytest.raises(LocalProtocolError, match="bare CR or LF"):
        DotWriter().feed(b"a\nb")


def test_a_cr_of_before_is_not_forgotten_for_them() -> None:
    writer = DotWriter()
    writer.feed(b"a\r")
    with pytest.raises(LocalProtocolError, match="bare CR or LF"):
        writer.feed(b"b", clean=True)


def test_they_are_sent_as_other_content_is() -> None:
    client = make()
    client.send_group([Mail("a@b"), Rcpt("c@d"), Data()])
    hear(client, b"250 ok\r\n250 ok\r\n354 go\r\n")
    assert client.send(Lines(b".a\r\n")) == b"..a\r\n"
    assert client.send(Content(b"b")) == b"b"
    assert client.send(EndOfContent()) == b"\r\n.\r\n"
