"""What fuzzers have found keeps its promises: the saved corpus and all findings, with no fuzzer."""

import re
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpproto import Mailbox
from smtpproto.core.content import DotReader, DotWriter
from smtpproto.core.proxy import ProxyReader
from smtpproto.core.sasl import ClientExchange

from . import corpus
from .draw import Draw, cut_at, drawn_from, edges
from .failure import failure, minimised
from .seeds import seeds
from .targets import TARGETS

FINDINGS = [(target, file) for target in TARGETS for file in corpus.findings(target)]


@pytest.mark.parametrize("target", TARGETS)
def test_corpus(target: str) -> None:
    inputs = corpus.load(target)
    assert len(inputs) >= 20, "python tests/fuzz/run.py makes one"
    for data in inputs:
        TARGETS[target](data)


@pytest.mark.parametrize("target", TARGETS)
def test_seeds(target: str) -> None:
    for data in seeds(target):
        TARGETS[target](data)


@pytest.mark.parametrize(
    ("target", "data"),
    [pytest.param(target, file.read_bytes(), id=file.name) for target, file in FINDINGS],
)
def test_finding(target: str, data: bytes) -> None:
    TARGETS[target](data)


# The targets can fail: each of these breaks one promise on purpose.


def unstuffed(self: DotWriter, data: bytes, *, clean: bool) -> bytes:
    return data


_feed = DotReader.feed


def lenient(self: DotReader, data: bytes) -> tuple[bytes, int]:
    return _feed(self, re.sub(rb"(?<!\r)\n\.\r?\n", b"\r\n.\r\n", data))


def unquoted(self: Mailbox) -> bytes:
    return b"%b@%b" % (self.local_part, self.domain) if self.domain else self.local_part


def forgetful(self: ProxyReader) -> bytes:
    return b""


def credulous(self: ClientExchange) -> None:
    """Believe what the server says."""


@pytest.mark.parametrize(
    ("target", "owner", "name", "broken"),
    [
        ("server", DotReader, "feed", lenient),
        ("client", DotWriter, "feed", unstuffed),
        ("joined", DotWriter, "feed", unstuffed),
        ("grammar", Mailbox, "serialize", unquoted),
        ("proxy", ProxyReader, "leftover", property(forgetful)),
        ("sasl", ClientExchange, "succeed", credulous),
    ],
)
def test_a_broken_promise_is_noticed(
    target: str, owner: type, name: str, broken: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, name, broken)
    assert any(failure(TARGETS[target], data) for data in chain(seeds(target), corpus.load(target)))


# What stands around them


@given(st.binary(max_size=40), st.lists(st.integers(0, 255), max_size=20))
def test_what_is_drawn_is_what_was_written(wire: bytes, choices: list[int]) -> None:
    draw = Draw(drawn_from(wire, choices))
    assert draw.wire == wire
    other = draw.fork()
    assert [draw.below(256) for _ in choices] == [other.below(256) for _ in choices] == choices
    assert (draw.below(1000), draw.flag(), draw.one_of("ab"), draw.points()) == (0, False, "a", [])


@given(st.binary(max_size=20))
def test_anything_can_be_drawn_from(data: bytes) -> None:
    draw = Draw(data)
    assert drawn_from(draw.wire, draw.choices)[:-1] == data[:-1]
    assert b"".join(cut_at([draw.below(20) for _ in range(4)], draw.wire)) == draw.wire


def _fails_on_bad(data: bytes) -> None:
    draw = Draw(data)
    assert not (b"BAD" in draw.wire and draw.below(256) > 7)


def test_a_failing_input_is_made_small() -> None:
    data = drawn_from(b"some words, and BAD ones among them", [200, 3, 4])
    assert minimised(_fails_on_bad, data) == drawn_from(b"BAD", [200])


@given(st.binary(max_size=40))
def test_edges_are_beside_line_ends_and_dots_behind_them(octets: bytes) -> None:
    found = edges(octets + b"\r\n.x")
    end = len(octets)
    assert {end, end + 1, end + 2, end + 3} <= set(found)
    assert b"".join(cut_at(found, octets)) == octets
