"""Linearity: twice the input is twice the work, counted in octets looked at and lines run.

Wall time is never measured: what is counted is what `ReceiveBuffer` and `DotReader` are asked to
look through, how many lines of ours Python runs, and how many steps a regex takes.
"""

import importlib
import pkgutil
import re
import sys
from collections.abc import Callable
from itertools import chain, product
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import smtpproto
from smtpproto import (
    STANDARD,
    AuthResponse,
    Chunk,
    ClientConnection,
    Ehlo,
    GrammarError,
    Limits,
    Mail,
    Mailbox,
    Parameters,
    Rcpt,
    RemoteProtocolError,
    Reply,
    Signal,
)
from smtpproto.core import reception
from smtpproto.core.buffer import ReceiveBuffer
from smtpproto.core.content import DotReader, DotWriter
from smtpproto.core.proxy import ProxyHeader, ProxyReader
from smtpproto.core.sasl import AuthenticationError, Mechanism, ServerExchange
from smtpproto.core.server_connection import ServerConnection
from smtpproto.core.xtext import decode_xtext, encode_xtext
from smtpproto.extensions.dsn import NOTIFY
from smtpproto.extensions.limits import Maxima
from smtpproto.extensions.xforward import XForward
from smtpproto.mechanisms import OAUTHBEARER, PLAIN, SCRAM_SHA_256
from smtpproto.mechanisms.saslprep import saslprep
from smtpproto.testing.pair import answer

from .regexes import fits, steps

OURS = str(Path(smtpproto.__file__).parent)
HUGE = Limits(message=None, endless_line=10**9, reply=10**9, backlog=10**9, bad_commands=10**9)


class Work:
    """Octets that were searched or copied, and lines of ours that were run."""

    def __init__(self) -> None:
        self.octets = 0
        self.lines = 0

    def trace(self, frame: FrameType, what: str, _: object) -> object:
        if not frame.f_code.co_filename.startswith(OURS):
            return None
        if what == "line":
            self.lines += 1
        return self.trace


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], Work]:
    """Count what a call costs."""
    counts = Work()
    made, feed, peek = ReceiveBuffer.__init__, DotReader.feed, ReceiveBuffer.peek

    class Counted(bytearray):
        def find(self, needle: Any, start: Any = 0, *end: Any) -> int:
            at = super().find(needle, start, *end)
            counts.octets += (len(self) if at < 0 else at + len(needle)) - start
            return at

    def counted_made(self: ReceiveBuffer) -> None:
        made(self)
        self._data = Counted()

    def counted_feed(self: DotReader, data: bytes) -> tuple[bytes, int]:
        counts.octets += len(data)
        return feed(self, data)

    def counted_peek(self: ReceiveBuffer, octets: int) -> bytes:
        data = peek(self, octets)
        counts.octets += len(data)
        return data

    # A backlog is looked at in windows: small ones, so that it need not be large to be many.
    monkeypatch.setattr(reception, "FIRST_LOOK", 128)
    monkeypatch.setattr(reception, "MAX_PIECE", 1024)
    monkeypatch.setattr(ReceiveBuffer, "__init__", counted_made)
    monkeypatch.setattr(DotReader, "feed", counted_feed)
    monkeypatch.setattr(ReceiveBuffer, "peek", counted_peek)

    def measure(call: Callable[[], None]) -> Work:
        counts.octets = counts.lines = 0
        before = sys.gettrace()
        sys.settrace(counts.trace)  # type: ignore[arg-type]  # a trace returns itself
        try:
            call()
        finally:
            sys.settrace(before)
        found = Work()
        found.octets, found.lines = counts.octets, counts.lines
        return found

    return measure


# Octets by step, at once or dribbled.
SIZES = {1: 3_000, 10**9: 12_000}
HELLO = b"EHLO c\r\n"
TO_DATA = b"MAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\n"
TO_BDAT = TO_DATA.removesuffix(b"DATA\r\n")
SERVER_INPUTS: dict[str, Callable[[int], bytes]] = {
    "a line without end": lambda n: b"x" * n,
    "CRs": lambda n: b"\r" * n,
    "LFs": lambda n: b"\n" * n,
    "empty lines": lambda n: b"\r\n" * (n // 8),
    "commands": lambda n: HELLO + b"NOOP\r\n" * (n // 8),
    "content of dots": lambda n: HELLO + TO_DATA + b"." * n,
    "content of lone dots": lambda n: HELLO + TO_DATA + b"\r\n..\r\n" * (n // 8),
    "content that nearly ends": lambda n: HELLO + TO_DATA + b"\r\n.\r" * (n // 4),
    "content of CRs": lambda n: HELLO + TO_DATA + b"\r" * n,
    "content of CRLFs": lambda n: HELLO + TO_DATA + b"\r\n" * (n // 2),
    "many empty messages": lambda n: HELLO + (TO_DATA + b".\r\n") * (n // 40),
    "one huge chunk": lambda n: HELLO + TO_BDAT + b"BDAT %d LAST\r\n" % n + b"x" * n,
    "small chunks": lambda n: HELLO + TO_BDAT + b"BDAT 1\r\nx" * (n // 9),
    "empty chunks": lambda n: HELLO + TO_BDAT + b"BDAT 0\r\n" * (n // 8),
    "small messages in chunks": lambda n: HELLO + (TO_BDAT + b"BDAT 1 LAST\r\nx") * (n // 40),
    "a chunk of CRs": lambda n: HELLO + TO_BDAT + b"BDAT %d LAST\r\n" % n + b"\r" * n,
    "refused chunks": lambda n: HELLO + TO_BDAT + b"BDAT 1\r\n\r" * (n // 9),
    "chunks of nothing": lambda n: HELLO + b"BDAT 5\r\nQUIT\r" * (n // 13),
    "an address of UTF-8": lambda n: HELLO + b"MAIL FROM:<" + "é".encode() * (n // 2) + b"\r\n",
    "many small messages": lambda n: HELLO + (TO_DATA + b"Hi\r\n.\r\n") * (n // 40),
    "one large message": lambda n: HELLO + TO_DATA + (b"x" * 70 + b"\r\n") * (n // 72),
    "a long AUTH": lambda n: HELLO + b"AUTH " + b"A" * n,
    "an address of quotes": lambda n: HELLO + b'MAIL FROM:<"' + b'\\"' * (n // 2),
    "a name of dots": lambda n: b"EHLO " + b"a." * (n // 2) + b"\r\n",
    "a route": lambda n: HELLO + b"RCPT TO:<" + b"@a," * (n // 3) + b"\r\n",
}


def _server(data: bytes, step: int) -> None:
    server = ServerConnection("h.example", STANDARD, limits=HUGE)
    answer(server)
    for at in range(0, len(data), step):
        server.receive_data(data[at : at + step])
        answer(server)


def _twice(
    measure: Callable[[Callable[[], None]], Work],
    run: Callable[[int], None],
    size: int,
    *,
    searches: bool = True,
) -> None:
    run(10)  # what is made once, as by a regex's first use, is not counted
    small, large = measure(lambda: run(size)), measure(lambda: run(2 * size))
    assert small.lines > 0
    assert (small.octets > 0) is searches
    # 2 would be exact; the little above it is for what is done once.
    assert large.octets <= 2.2 * small.octets + 20_000
    assert large.lines <= 2.2 * small.lines + 200


@pytest.mark.parametrize("step", [1, 10**9], ids=["dribbled", "at once"])
@pytest.mark.parametrize("make", SERVER_INPUTS.values(), ids=SERVER_INPUTS.keys())
def test_server(
    make: Callable[[int], bytes], step: int, work: Callable[[Callable[[], None]], Work]
) -> None:
    _twice(work, lambda n: _server(make(n), step), SIZES[step])


CLIENT_INPUTS: dict[str, Callable[[int], bytes]] = {
    "a reply without end": lambda n: b"250-" + b"x" * n,
    "lines without end": lambda n: b"250-\r\n" * (n // 6),
    "CRs": lambda n: b"250 " + b"\r" * n,
    "many lines": lambda n: b"250-hello\r\n" * (n // 11) + b"250 x\r\n",
    "many keywords": lambda n: b"250-KEY A B\r\n" * (n // 13) + b"250 X\r\n",
    "spaces": lambda n: b"250-h\r\n250 KEY" + b" " * n + b"\x01\r\n",
}


@pytest.mark.parametrize("step", [1, 10**9], ids=["dribbled", "at once"])
@pytest.mark.parametrize("make", CLIENT_INPUTS.values(), ids=CLIENT_INPUTS.keys())
def test_client(
    make: Callable[[int], bytes], step: int, work: Callable[[Callable[[], None]], Work]
) -> None:
    def run(n: int) -> None:
        client = ClientConnection(STANDARD, limits=HUGE)
        client.receive_data(b"220 x\r\n")
        client.next_event()
        client.send(Ehlo("c.example"))
        data = make(n)
        try:
            for at in range(0, len(data), step):
                client.receive_data(data[at : at + step])
                while not isinstance(client.next_event(), Signal):
                    pass
        except RemoteProtocolError:
            return

    _twice(work, run, SIZES[step])


@pytest.mark.parametrize("reply", [b"250 x\r\n", b"550 x\r\n"], ids=["accepted", "refused"])
def test_a_client_with_many_commands_under_way(
    reply: bytes, work: Callable[[Callable[[], None]], Work]
) -> None:
    def run(n: int) -> None:
        client = ClientConnection(STANDARD, limits=HUGE)
        client.receive_data(b"220 x\r\n")
        client.next_event()
        client.send(Ehlo("c.example"))
        client.receive_data(b"250-x\r\n250 PIPELINING\r\n")
        client.next_event()
        client.send(Mail("a@b"))
        for _ in range(n):
            client.send(Rcpt("c@d"))
        client.receive_data(b"250 x\r\n")
        client.next_event()
        for _ in range(n):
            client.receive_data(reply)
            client.next_event()
            client.send(Rcpt("c@d"))

    _twice(work, run, 100)


@pytest.mark.parametrize("reply", [b"250 x\r\n", b"550 x\r\n"], ids=["accepted", "refused"])
def test_a_client_with_many_chunks_under_way(
    reply: bytes, work: Callable[[Callable[[], None]], Work]
) -> None:
    def run(n: int) -> None:
        client = ClientConnection(STANDARD, limits=HUGE)
        client.receive_data(b"220 x\r\n")
        client.next_event()
        offer = b"250-x\r\n250-PIPELINING\r\n250 CHUNKING\r\n"
        for command, well in (
            (Ehlo("c.example"), offer),
            (Mail("a@b"), b"250 x\r\n"),
            (Rcpt("c@d"), b"250 x\r\n"),
        ):
            client.send(command)
            client.receive_data(well)
            client.next_event()
        for _ in range(n):
            client.send(Chunk(b"x"))
        client.receive_data(reply * n)
        for _ in range(n):
            client.next_event()

    _twice(work, run, 400)  # as many as it takes to be more than all the rest


def _header(n: int) -> bytes:
    vectors = ((1, b"x"),) * (n // 4)
    return ProxyHeader(
        2, source=("192.0.2.1", 1), destination=("192.0.2.2", 2), tlvs=vectors, checksum=True
    ).serialize()


def _dribbled(octets: bytes) -> None:
    reader = ProxyReader(max_payload=65_535)
    for at in range(len(octets)):
        reader.feed(octets[at : at + 1])


def _said(mechanism: Mechanism, message: bytes) -> None:
    ServerExchange(mechanism, message).step()


#: What no line's length keeps small, if somebody hands it in.
READERS: dict[str, Callable[[int], object]] = {
    "parameters": lambda n: Parameters.parse(b"".join(b" A%d=1" % i for i in range(n // 8))),
    "xtext": lambda n: decode_xtext(encode_xtext(b"+" * n)),
    "attributes": lambda n: XForward.parse(b"NAME=" + b"+41" * (n // 3)),
    "the same attribute": lambda n: XForward.parse(b"NAME=a " * (n // 7)),
    "a list": lambda n: NOTIFY.read(b"SUCCESS," * (n // 8)),
    "limits": lambda n: Maxima.parse("RCPTMAX=1 " * (n // 10)),
    "a mailbox in quotes": lambda n: Mailbox.parse(b'"' + b'\\"' * (n // 2) + b'"@d.example'),
    "a mailbox of dots": lambda n: Mailbox.parse(b"a." * (n // 2) + b"a@" + b"d." * n + b"d"),
    "a reply of many lines": lambda n: Reply.parse(
        b"250-2.0.0 x\r\n" * (n // 13) + b"250 2.0.0\r\n"
    ),
    "a challenge": lambda n: AuthResponse.parse(b"QUJD" * (n // 4)),
    "a header": lambda n: ProxyHeader.parse(_header(n)),
    "a header, dribbled": lambda n: _dribbled(_header(n)),
    "a line of version 1, dribbled": lambda n: _dribbled(b"PROXY UNKNOWN " + b"x" * n),
    "content written": lambda n: DotWriter().feed(b"\r\n.." * (n // 4)),
    "SASLprep": lambda n: saslprep("\u00ad\u00a0\ufb01" * (n // 3)),
    "PLAIN": lambda n: _said(PLAIN, b"\0" + b"a" * n + b"\0p"),
    "SCRAM": lambda n: _said(SCRAM_SHA_256, b"n,,n=" + b"=2C" * (n // 3) + b",r=x"),
    "OAUTHBEARER": lambda n: _said(OAUTHBEARER, b"n,,\1" + b"host=x\1" * (n // 7) + b"\1"),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS.keys())
def test_reader(read: Callable[[int], object], work: Callable[[Callable[[], None]], Work]) -> None:
    def run(n: int) -> None:
        try:
            read(n)
        except (GrammarError, RemoteProtocolError, AuthenticationError):
            return

    _twice(work, run, 4000, searches=False)


# Regexes


#: Rooms in which strangers' octets are read.
READ_BY = (
    *("core", "extensions", "mechanisms", "message", "trace"),
    *("relay.accounts", "relay.content", "relay.mailboxes", "relay.reports"),
)


def _modules(name: str) -> list[ModuleType]:
    found = importlib.import_module(f"smtpproto.{name}")
    inside = pkgutil.iter_modules(getattr(found, "__path__", []), f"{found.__name__}.")
    return [found, *(importlib.import_module(module.name) for module in inside)]


def _regexes() -> dict[str, re.Pattern[Any]]:
    found: dict[re.Pattern[Any], str] = {}
    for module in chain.from_iterable(map(_modules, READ_BY)):
        for name, value in vars(module).items():
            if isinstance(value, re.Pattern):
                found.setdefault(value, f"{module.__name__}.{name}")
    return {name: pattern for pattern, name in found.items()}


REGEXES = _regexes()
BEGINS = b'|<|<"|<a@|<@a:|"|a@[|n,,n=|PROXY|250|A=|;a=|;a="|a/|a:|Mon, 1 Jan 2000 '.split(b"|")
# Each of them over and over.
UNITS = [
    *b'a|-|.|a.|a-|@|@a,|\\|\\"|"| |a |=|+2B|,|0|1.|a=b,|[|:|1:|]|\r|;|; |("|()|\r\n '.split(b"|"),
    *"é é. é- -é".encode().split(),
]
# What few of them go on with.
ENDS = (b"\0", b'"')

MOST = 100_000


def _is_linear(pattern: re.Pattern[Any]) -> bool:
    for begin, unit, end in product(BEGINS, UNITS, ENDS):
        texts = [begin + unit * (size // len(unit)) + end for size in (60, 120)]
        small, large = (steps(pattern, text, MOST) for text in texts)
        if large == MOST or large > 2.2 * small + 200:
            return False
    return True


@pytest.mark.parametrize("pattern", REGEXES.values(), ids=REGEXES.keys())
def test_regex(pattern: re.Pattern[Any]) -> None:
    assert _is_linear(pattern)


@pytest.mark.parametrize(
    "pattern", [rb"(?:a+)+b", rb"a*a*b", rb"(?:a|a)*b", rb"(?:[a.]+\.?)*b", rb"\s*=?\s*b"]
)
def test_a_regex_that_is_not_linear_is_noticed(pattern: bytes) -> None:
    assert not _is_linear(re.compile(pattern))


@given(
    st.sampled_from([*REGEXES.values()]),
    st.sampled_from(BEGINS),
    st.lists(st.one_of(st.sampled_from(UNITS), st.binary(max_size=1)), max_size=8).map(b"".join),
)
def test_the_steps_are_those_of_a_matcher(
    pattern: re.Pattern[Any], begin: bytes, rest: bytes
) -> None:
    text = begin + rest
    whole = text if isinstance(pattern.pattern, bytes) else text.decode("latin-1")
    assert fits(pattern, text) is (pattern.fullmatch(whole) is not None)
