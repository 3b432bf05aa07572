"""Quoted-printable (RFC 2045 §6.7): any octets come back, and no line is long or a boundary."""

import binascii
from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from smtpproto.relay.content.quoted import WINDOW, QuotedPrintable, quoted_printable

TEXTS = st.one_of(
    st.binary(max_size=300),
    st.lists(st.sampled_from([*b"a-= .\t\r\n\xff"]), max_size=300).map(bytes),
    st.lists(st.sampled_from([b"a" * 40, b"-" * 40, b"\xff" * 20, b"--", b"\r\n", b"\n"])).map(
        b"".join
    ),
)


@example(b"a\xff\n" * 40)
@example(b"a" * 75 + b"--a")
@example(b"--\r\n--")
@given(TEXTS)
def test_any_octets_come_back_from_short_lines_that_are_no_boundary(text: bytes) -> None:
    encoded = quoted_printable(text)
    lines = encoded.split(b"\r\n")
    assert encoded.isascii()
    assert all(len(line) <= 76 and not line.startswith(b"--") for line in lines)
    assert not any(line.endswith((b" ", b"\t")) or b"\r" in line or b"\n" in line for line in lines)
    assert binascii.a2b_qp(encoded) == text


@given(TEXTS, st.lists(st.integers(0, 3 * WINDOW), max_size=5))
def test_cuts_change_nothing(text: bytes, cuts: list[int]) -> None:
    text = (text * 20_000)[: 2 * WINDOW + 1000]
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    encoder = QuotedPrintable()
    encoded = b"".join([encoder.feed(text[a:b]) for a, b in pairwise(places)] + [encoder.finish()])
    whole = QuotedPrintable()
    assert encoded == whole.feed(text) + whole.finish()
    assert binascii.a2b_qp(encoded) == text
    assert all(len(line) <= 76 and not line.startswith(b"--") for line in encoded.split(b"\r\n"))
