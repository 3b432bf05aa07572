"""Fields that only we may write: they are left out of what comes, and nothing else is touched."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator
from email import message_from_bytes
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpproto.trace import FieldRemoval, without_fields

NAMES = ["X-Spam", "Return-Path", "X-Spam-Score"]


def left_of(octets: bytes, *cuts: int, names: list[str] = NAMES) -> bytes:
    removal = FieldRemoval(names)
    edges = [0, *sorted(min(cut, len(octets)) for cut in cuts), len(octets)]
    kept = [removal.feed(octets[a:b]) for a, b in pairwise(edges)]
    return b"".join([*kept, removal.end()])


def by_lines(octets: bytes, names: list[str] = NAMES) -> bytes:
    """Do the same in the plainest way, with all of it at hand."""
    kept: list[bytes] = []
    lines = re.findall(rb"[^\n]*\n|[^\n]+", octets)
    dropping = False
    while lines and lines[0] not in (b"\r\n", b"\n"):
        line = lines.pop(0)
        if line[:1] not in (b" ", b"\t"):
            name, colon, _ = line[:998].partition(b":")
            known = {each.lower().encode() for each in names}
            dropping = bool(colon) and name.rstrip(b" \t").lower() in known
        if not dropping:
            kept.append(line)
    return b"".join([*kept, *lines])


PIECES = [
    *(b"X-Spam", b"x-spam:", b"X-SPAM-SCORE :", b"Return-Path:", b"X-Spam-Flag: no", b"Subject: x"),
    *(b"\r\n", b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b"x", b" " * 991, b"z" * 1200),
]


@given(st.lists(st.sampled_from(PIECES), max_size=30), st.lists(st.integers(0, 400), max_size=20))
def test_what_is_left_is_the_same_however_it_is_cut(pieces: list[bytes], cuts: list[int]) -> None:
    octets = b"".join(pieces)
    assert left_of(octets) == left_of(octets, *cuts) == by_lines(octets)
    assert left_of(octets, *range(len(octets))) == left_of(octets)


@given(st.binary(max_size=200), st.integers(0, 200))
def test_of_anything_nothing_is_lost_but_such_fields(octets: bytes, cut: int) -> None:
    assert left_of(octets, cut, names=["a"]) == by_lines(octets, ["a"])


@pytest.mark.parametrize(
    ("came", "stays"),
    [
        (b"X-Spam: no\r\nTo: a\r\n\r\n", b"To: a\r\n\r\n"),
        (
            b"To: a\r\nx-sPAM: no,\r\n\tnever,\r\n not at all\r\nCc: b\r\n\r\n",
            b"To: a\r\nCc: b\r\n\r\n",
        ),
        (b"X-Spam \t : no\r\n\r\n", b"\r\n"),
        (b"X-Spam: no\nTo: a\n\nX-Spam: body\n", b"To: a\n\nX-Spam: body\n"),
        (b"X-Spam: 1\r\nX-Spam-Score: 2\r\nX-Spam: 3\r\n\r\n", b"\r\n"),
        (b"X-Spam: no end", b""),
    ],
)
def test_a_field_goes_with_its_folded_lines(came: bytes, stays: bytes) -> None:
    assert left_of(came) == stays


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"\r\nX-Spam: body\r\n",
        b"X-Spa: a\r\nX-Spam-Flag: b\r\nXX-Spam: c\r\nSubject: X-Spam: d\r\n X-Spam: e\r\n\r\n",
        b" X-Spam: folded onto nothing\r\n\r\n",
        b"X-Spam\r\n: two lines\r\n\r\n",
        b"X-Spam",
        b"X-Spam" + b" " * 1000 + b": a line that is too long\r\n\r\n",
    ],
)
def test_all_else_stays_as_it_is(octets: bytes) -> None:
    assert left_of(octets) == octets
    assert left_of(octets, *range(len(octets))) == octets


def test_the_email_package_finds_none_of_them_any_more() -> None:
    came = b"From: a\r\nX-Spam: no\r\n way\r\nTo: b\r\nX-SPAM: no\r\n\r\nX-Spam: body\r\n"
    left = message_from_bytes(left_of(came))
    assert left.items() == [("From", "a"), ("To", "b")]
    assert left.get_payload() == "X-Spam: body\r\n"


@pytest.mark.parametrize("piece", [b"x", b" ", b"X-Spam ", b"X-Spam: ", b"a:\r\n"])
def test_what_is_kept_back_is_less_than_a_line(piece: bytes) -> None:
    removal = FieldRemoval(NAMES)
    removal.feed(b"X-Spam")
    for _ in range(2000):
        removal.feed(piece * 10)
        assert len(removal._held) < 998


def test_behind_the_header_chunks_pass_untouched() -> None:
    removal = FieldRemoval(NAMES)
    assert not removal.ended
    removal.feed(b"To: a\r\n\r\n")
    assert removal.ended
    body = b"X-Spam: " * 1000
    assert removal.feed(body) is body


def test_where_nothing_is_to_go_nothing_is_looked_at() -> None:
    chunk = b"X-Spam: yes\r\n"
    assert FieldRemoval([]).feed(chunk) is chunk


@pytest.mark.anyio
async def test_a_stream_without_such_fields() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for octets in (
            b"X-Sp",
            b"am: no\r\n",
            b"To: a\r\nX-Spa",
            b"",
            b"m: x\r\n\r",
            b"\nbody",
            b"\r",
        ):
            yield octets

    left = [chunk async for chunk in without_fields(chunks(), ["x-spam"])]
    assert b"".join(left) == b"To: a\r\n\r\nbody\r"
    assert all(left)


@pytest.mark.anyio
async def test_the_beginning_of_a_field_at_the_very_end_stays() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"To: a\r\nX-Spa"

    left = [chunk async for chunk in without_fields(chunks(), ["X-Spam"])]
    assert b"".join(left) == b"To: a\r\nX-Spa"


@pytest.mark.parametrize("begin", [b"To: a\r\n", b"X-Spam: no\r\n"])
@pytest.mark.parametrize("line", [b" \r\n", b" x\r\n", b" \n"])
def test_what_short_lines_cost_does_not_grow_by_their_number(begin: bytes, line: bytes) -> None:
    """A stranger may send a header of very many, and the event loop waits for it."""
    steps = 0

    def count(*_: object) -> None:
        nonlocal steps
        steps += 1

    removal = FieldRemoval(NAMES)
    sys.setprofile(count)
    try:
        kept = removal.feed(begin + line * 10_000)
    finally:
        sys.setprofile(None)
    assert kept == (b"" if begin.startswith(b"X-Spam") else begin + line * 10_000)
    assert steps < 100
