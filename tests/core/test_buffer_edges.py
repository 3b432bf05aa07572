"""ReceiveBuffer at its edges: what it finds where it has looked before, and what it forgets."""

from typing import Any

import pytest

from smtpproto.core.buffer import ReceiveBuffer


def holding(*octets: bytes) -> ReceiveBuffer:
    buffer = ReceiveBuffer()
    for some in octets:
        buffer.append(some)
    return buffer


@pytest.mark.parametrize("line", [b"", b"a", b"ab", b"abc"])
def test_the_first_line_may_be_empty_and_the_next_too(line: bytes) -> None:
    buffer = holding(line + b"\r\n" + b"\r\n")
    assert buffer.take_line(2) == (line[:2], len(line) + 2)
    assert buffer.take_line(2) == (b"", 2)
    assert buffer.take_line(2) is None
    assert len(buffer) == 0


@pytest.mark.parametrize("forget", ["skip", "clear"])
def test_after_octets_were_dropped_a_line_begins_at_the_first_that_is_left(forget: str) -> None:
    buffer = holding(b"abcdef")
    assert buffer.take_line(3) is None
    if forget == "skip":
        buffer.skip(3)
    else:
        buffer.clear()
    buffer.append(b"\r\n")
    assert buffer.take_line(9) == (b"", 2 if forget == "clear" else 5)


def test_a_long_line_is_kept_as_far_as_asked_and_its_length_is_known() -> None:
    buffer = holding(b"abcdef")
    assert buffer.take_line(4) is None
    assert (len(buffer), buffer.line_length) == (4, 6)
    buffer.append(b"g\r")
    assert buffer.take_line(4) is None
    assert (len(buffer), buffer.line_length) == (5, 8)  # that CR may begin a CRLF
    buffer.append(b"\n!")
    assert buffer.take_line(4) == (b"abcd", 9)
    assert buffer.line_length == 1


def test_a_line_of_just_what_is_kept_loses_nothing() -> None:
    buffer = holding(b"abcd")
    assert buffer.take_line(4) is None
    assert (len(buffer), buffer.line_length) == (4, 4)
    assert buffer.first_octet() == ord("a")
    assert buffer.peek(2) == b"ab"
    assert buffer.peek(9) == b"abcd"


def test_a_cr_that_begins_no_crlf_is_part_of_the_line() -> None:
    buffer = holding(b"a\r", b"b\r", b"\n")
    assert buffer.take_line(9) == (b"a\rb", 5)
    assert buffer.first_octet() is None


class Watched(bytearray):
    """Octets that count how many of them `find` had to look at."""

    looked_at = 0

    def find(self, needle: Any, start: Any = 0, *end: Any) -> int:
        at = super().find(needle, start, *end)
        self.looked_at += (len(self) if at < 0 else at + len(needle)) - (start or 0)
        return at


@pytest.mark.parametrize("step", [1, 2, 7, 100])
def test_no_octet_of_a_line_is_looked_at_twice(step: int) -> None:
    buffer = ReceiveBuffer()
    buffer._data = watched = Watched()
    for _ in range(100 // step):
        buffer.append(b"x" * step)
        assert buffer.take_line(1000) is None
    buffer.append(b"\r\n")
    found = buffer.take_line(1000)
    assert found is not None
    assert watched.looked_at == found[1]
