"""Linearity: twice the input is twice the work, counted in octets looked at and lines run.

Wall time is never measured: what is counted is what `ReceiveBuffer` and `DotReader` are asked to
look through, and how many lines of the core Python runs.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest

import smtpproto.core
from smtpproto import STANDARD, ClientConnection, Ehlo, Limits, RemoteProtocolError, Signal
from smtpproto.core.buffer import ReceiveBuffer
from smtpproto.core.content import DotReader
from smtpproto.core.server_connection import ServerConnection
from smtpproto.testing.pair import answer

CORE = str(Path(smtpproto.core.__file__).parent)
HUGE = Limits(message=None, endless_line=10**9, reply=10**9, backlog=10**9, bad_commands=10**9)


class Work:
    """Octets that were searched or copied, and lines of the core that were run."""

    def __init__(self) -> None:
        self.octets = 0
        self.lines = 0

    def trace(self, frame: FrameType, what: str, _: object) -> object:
        if not frame.f_code.co_filename.startswith(CORE):
            return None
        if what == "line":
            self.lines += 1
        return self.trace


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], Work]:
    """Count what a call costs."""
    counts = Work()
    find, feed, peek = ReceiveBuffer._find, DotReader.feed, ReceiveBuffer.peek

    def counted_find(self: ReceiveBuffer, needle: bytes, start: int) -> int:
        at = find(self, needle, start)
        counts.octets += (len(self) if at < 0 else at + len(needle)) - start
        return at

    def counted_feed(self: DotReader, data: bytes) -> tuple[bytes, int]:
        counts.octets += len(data)
        return feed(self, data)

    def counted_peek(self: ReceiveBuffer, octets: int) -> bytes:
        data = peek(self, octets)
        counts.octets += len(data)
        return data

    monkeypatch.setattr(ReceiveBuffer, "_find", counted_find)
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


# Octets by step. A backlog is looked at in windows, so it has to be some of them.
SIZES = {1: 5_000, 10**9: 25_000}
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
    measure: Callable[[Callable[[], None]], Work], run: Callable[[int], None], size: int
) -> None:
    run(10)  # what is made once, as by a regex's first use, is not counted
    small, large = measure(lambda: run(size)), measure(lambda: run(2 * size))
    assert small.lines > 0
    assert small.octets > 0
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
