"""Boundedness: whatever is fed, an end that is fed on NEED_DATA holds its limits and the last
piece, and no more.
"""

import random
from collections import deque
from collections.abc import Callable, Mapping
from enum import Enum
from types import FunctionType, MethodType

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from smtpproto import (
    NEED_DATA,
    PAUSED,
    STANDARD,
    ClientConnection,
    ConnectionClosed,
    Content,
    Extension,
    Limits,
    LocalProtocolError,
    Noop,
    RemoteProtocolError,
    ServerConnection,
    Signal,
    State,
)
from smtpproto.core.buffer import ReceiveBuffer
from smtpproto.core.offer import Offer
from smtpproto.core.reception import Reception
from smtpproto.core.sasl import Mechanism
from smtpproto.testing import strategies as smtp
from smtpproto.testing.pair import answer

from .ends import CLIENT_STATES, LIMITS, make_client, make_server, policy

PATIENT = evolve(LIMITS, bad_commands=10**6)
HELLO = b"EHLO c\r\n"
TO_DATA = HELLO + b"MAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\n"
TO_BDAT = HELLO + b"MAIL FROM:<>\r\nRCPT TO:<a@b>\r\nBDAT 3\r\nabcBDAT 9999999\r\n"
STREAMS = {
    "no line end": lambda i: b"x" * 700,
    "CR": lambda i: b"\r" * 500,
    "LF": lambda i: b"\n" * 500,
    "CRLF": lambda i: b"\r\n" * 50,
    "dots": lambda i: b"\r\n." * 50,
    "nearly the end": lambda i: b"\r\n.\r" * 40,
    "lines": lambda i: b"NOOP " + b"y" * 480 + b"\r\n",
    "recipients": lambda i: b"RCPT TO:<a@b>\r\n" * 20,
    "long replies": lambda i: b"250-" + b"z" * 400 + b"\r\n",
    "NUL": lambda i: b"\0" * 512,
    "octets one by one": lambda i: b"q",
    "chunks": lambda i: b"BDAT 100\r\n" + b"c" * 100,
    "empty chunks": lambda i: b"BDAT 0\r\n" * 20,
    "last chunks": lambda i: b"BDAT 300 LAST\r\n" + b"d" * 300,
    "envelopes": lambda i: b"MAIL FROM:<%b@b> SIZE=1\r\n" % (b"x" * 200) + b"RSET\r\n",
    "attributes": lambda i: b"XFORWARD NAME=%b\r\n" % (b"x" * 200),
    "names": lambda i: b"EHLO %d.example\r\nLHLO %d.example\r\n" % (i, i),
    "logins": lambda i: b"AUTH LOGIN\r\n%b\r\n" % (b"QUJD" * 100),
    "offers": lambda i: b"250-%d\r\n" % i * 20 + b"250 X\r\n",
    "refused chunks": lambda i: b"MAIL FROM:<>\r\nBDAT 300\r\n" + b"d" * 200,
}


@pytest.mark.parametrize("lmtp", [False, True])
@pytest.mark.parametrize("head", [b"", HELLO, TO_DATA, TO_BDAT, HELLO + b"AUTH LOGIN\r\n"])
@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS.keys())
def test_server(head: bytes, stream: Callable[[int], bytes], lmtp: bool) -> None:
    server = make_server(limits=PATIENT, lmtp=lmtp)
    head = head.replace(b"EHLO", b"LHLO") if lmtp else head
    answer(server)
    # The longest line that is ever kept is an AUTH response (RFC 4954 §4), with its CRLF.
    bound = 12_288 + 2 + 1
    if head:  # none at all would be the end of file
        server.receive_data(head)
    for i in range(60):
        answer(server)
        assert server.buffered <= bound
        server.receive_data(stream(i))
        assert server.buffered <= bound + len(stream(i))
    # Nor does anything gather behind the scenes.
    assert weight(server) <= weight(make_server(lmtp=lmtp)) + GATHERED


# An envelope as large as it may be, and the line that is being read; a list of all the commands
# of one run would be more.
GATHERED = 25_000
ENTRY = 16  # what an element of a container counts for, beside what it is


def weight(end: object) -> int:
    """Octets, and elements of containers, in all that an end holds on to for itself."""
    seen: dict[int, object] = {}
    waiting = [end]
    total = 0
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, SHARED):
            continue
        seen[id(thing)] = thing  # kept, so that no other gets its id
        if isinstance(thing, (bytes, bytearray, str)):
            total += len(thing)
        elif isinstance(thing, Mapping):
            total += ENTRY * len(thing)
            waiting += [*thing.keys(), *thing.values()]
        elif isinstance(thing, (list, tuple, set, frozenset, deque)):
            total += ENTRY * len(thing)
            waiting += thing
        else:
            slots = {slot for cls in type(thing).__mro__ for slot in getattr(cls, "__slots__", ())}
            held = {*getattr(thing, "__dict__", ()), *slots}
            waiting += [getattr(thing, name) for name in held if hasattr(thing, name)]
    return total


#: What many connections have in common, or nobody can make grow.
SHARED = (type, FunctionType, MethodType, Enum, Limits, Extension, Mechanism, Offer, int)


def test_weight_sees_what_gathers() -> None:
    server = make_server()
    before = weight(server)
    server.receive_data(b"x" * 1000)
    assert weight(server) == before + 1000
    server.hostname += "x" * 500
    assert weight(server) >= before + 1500
    client = make_client("greeting")
    before = weight(client)
    client.offered = {str(n): "y" for n in range(100)}
    assert weight(client) > before + 100 * ENTRY


@given(smtp.dialogue_octets(), st.booleans())
def test_any_dialogue_over_and_over(octets: bytes, lmtp: bool) -> None:
    octets = octets.replace(b"EHLO", b"LHLO") if lmtp else octets
    server = make_server(limits=PATIENT, lmtp=lmtp)
    answer(server)
    most = weight(server) + GATHERED
    for _ in range(30):
        server.receive_data(octets + b"\r\n.\r\nNOOP\r\n")
        answer(server, policy)
        if server.state in (State.CLOSED, State.TLS):
            break
    assert weight(server) <= most


@given(smtp.server_octets(), st.sampled_from(CLIENT_STATES))
def test_any_replies_over_and_over(octets: bytes, where: str) -> None:
    client = make_client(where)
    most = weight(client) + 2 * LIMITS.reply * (1 + ENTRY)
    for _ in range(60):
        client.receive_data(octets)
        try:
            while not isinstance(client.next_event(), (Signal, ConnectionClosed)):
                pass
            if client.state is not State.CLOSED and not client.owed:
                client.send(Noop())
        except (RemoteProtocolError, LocalProtocolError):
            break
        assert weight(client) <= most


@pytest.mark.parametrize("where", CLIENT_STATES)
@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS.keys())
def test_client(where: str, stream: Callable[[int], bytes]) -> None:
    client = make_client(where)
    # A line of a reply has six octets at least, and is then one element.
    most = weight(client) + LIMITS.reply * (1 + ENTRY)
    for i in range(200):
        client.receive_data(stream(i))
        assert weight(client) <= most + len(stream(i))
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
