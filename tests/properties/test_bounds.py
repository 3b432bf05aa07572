"""Boundedness: whatever is fed, an end that is fed on NEED_DATA holds its limits and the last
piece, and no more.
"""

import random
from collections.abc import Callable

import pytest

from smtpproto import (
    NEED_DATA,
    PAUSED,
    STANDARD,
    ClientConnection,
    ConnectionClosed,
    Content,
    Limits,
    LocalProtocolError,
    RemoteProtocolError,
    ServerConnection,
)
from smtpproto.core.buffer import ReceiveBuffer
from smtpproto.core.reception import Reception
from smtpproto.testing.pair import answer

from .ends import CLIENT_STATES, LIMITS, make_client, make_server

HELLO = b"EHLO c\r\n"
TO_DATA = HELLO + b"MAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\n"
TO_BDAT = HELLO + b"MAIL FROM:<>\r\nRCPT TO:<a@b>\r\nBDAT 3\r\nabcBDAT 9999999\r\n"
STREAMS = {
    "no line end": lambda i: b"x" * 700,
    "CR": lambda i: b"\r" * 500,
    "LF": lambda i: b"\n" * 500,
    "CRLF": lambda i: b"\r\n" * 200,
    "dots": lambda i: b"\r\n." * 200,
    "nearly the end": lambda i: b"\r\n.\r" * 100,
    "lines": lambda i: b"NOOP " + b"y" * 480 + b"\r\n",
    "recipients": lambda i: b"RCPT TO:<a@b>\r\n" * 20,
    "long replies": lambda i: b"250-" + b"z" * 400 + b"\r\n",
    "NUL": lambda i: b"\0" * 512,
    "octets one by one": lambda i: b"q",
    "chunks": lambda i: b"BDAT 100\r\n" + b"c" * 100,
    "empty chunks": lambda i: b"BDAT 0\r\n" * 20,
    "last chunks": lambda i: b"BDAT 300 LAST\r\n" + b"d" * 300,
    "refused chunks": lambda i: b"MAIL FROM:<>\r\nBDAT 300\r\n" + b"d" * 200,
}


@pytest.mark.parametrize("lmtp", [False, True])
@pytest.mark.parametrize("head", [b"", HELLO, TO_DATA, TO_BDAT, HELLO + b"AUTH LOGIN\r\n"])
@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS.keys())
def test_server(head: bytes, stream: Callable[[int], bytes], lmtp: bool) -> None:
    server = make_server(lmtp=lmtp)
    head = head.replace(b"EHLO", b"LHLO") if lmtp else head
    answer(server)
    # The longest line that is ever kept is an AUTH response (RFC 4954 §4), with its CRLF.
    bound = 12_288 + 2 + 1
    server.receive_data(head)
    for i in range(200):
        answer(server)
        assert server.buffered <= bound
        server.receive_data(stream(i))
        assert server.buffered <= bound + len(stream(i))
    # Nor do a transaction or its content gather behind the scenes.
    assert len(getattr(server, "_rcpts")) <= LIMITS.recipients  # noqa: B009


@pytest.mark.parametrize("where", CLIENT_STATES)
@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS.keys())
def test_client(where: str, stream: Callable[[int], bytes]) -> None:
    client = make_client(where)
    for i in range(200):
        client.receive_data(stream(i))
        assert client.buffered <= LIMITS.reply + len(stream(i))
        try:
            while client.next_event() not in (NEED_DATA, PAUSED, ConnectionClosed()):
                pass
        except RemoteProtocolError:
            assert client.buffered == 0
            return
        assert client.buffered <= LIMITS.reply


@pytest.mark.parametrize("head", [TO_DATA, TO_BDAT])
def test_a_message_is_never_gathered(head: bytes) -> None:
    server = ServerConnection("h.example", STANDARD, limits=Limits(message=None))
    server.receive_data(head)
    answer(server)
    seen = 0
    for _ in range(100):
        server.receive_data(b"0123456789abcdef" * 4096)
        while isinstance(event := server.next_event(), Content):
            seen += len(event.data)
        assert server.buffered == 0
    assert seen == 100 * 65536


def test_a_long_message_costs_no_memory_of_its_own() -> None:
    """What is remembered of content is of one size, however many pieces it came in."""
    reception = Reception(None, repair=False, binary=False)
    reception.begin_data()
    buffer = ReceiveBuffer()
    for _ in range(5000):
        buffer.append(b"x")
        assert reception.take(buffer) == b"x"
    slots = [getattr(reception, name) for name in Reception.__slots__]
    assert max(slot.bit_length() for slot in slots if isinstance(slot, int)) < 64


def test_feeding_without_pulling_ends_at_the_backlog() -> None:
    for end in (ServerConnection("h.example"), ClientConnection()):
        while end.buffered <= end.limits.backlog:
            end.receive_data(b"NOOP\r\n" * 1000)
        with pytest.raises(LocalProtocolError):
            end.receive_data(b"x")
        assert end.buffered <= end.limits.backlog + 6000


def test_a_closed_end_stores_nothing() -> None:
    server = make_server()
    answer(server)
    server.receive_data(b"GET / HTTP/1.1\r\n")
    with pytest.raises(RemoteProtocolError):
        server.next_event()
    server.receive_data(b"x" * 1000)
    assert server.buffered == 0
    assert server.next_event() == server.next_event() == ConnectionClosed()


@pytest.mark.parametrize("seed", range(20))
def test_the_buffer_takes_the_lines_that_split_takes(seed: int) -> None:
    chance = random.Random(seed)
    data = bytes(chance.choice(b"ab\r\n\r\n") for _ in range(400)) + b"\r\n"
    buffer, lines = ReceiveBuffer(), list[tuple[bytes, int]]()
    at = 0
    while at < len(data):
        step = chance.randint(1, 9)
        buffer.append(data[at : at + step])
        at += step
        while (line := buffer.take_line(6)) is not None:
            lines.append(line)
        assert len(buffer) <= 6 + 1
    # A line longer than 6 octets is cut to 6, and its true length known.
    assert lines == [(line[:6], len(line) + 2) for line in data.split(b"\r\n")[:-1]]
    assert len(buffer) == 0
