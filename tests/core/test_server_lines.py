"""What a server hears that is no command, or too long, or not SMTP, and what it never executes."""

import pytest

from smtpproto import (
    NEED_DATA,
    PAUSED,
    AuthResponse,
    BadCommand,
    ConnectionClosed,
    EndOfContent,
    Limits,
    LocalProtocolError,
    Noop,
    RemoteProtocolError,
    Reply,
    ServerConnection,
    StartTls,
    State,
)
from smtpproto.core.sasl import Challenge
from smtpproto.extensions import EIGHTBITMIME, ENHANCEDSTATUSCODES, SIZE
from smtpproto.testing.pair import answer, octet_by_octet

from .decisions import BASIC
from .serving import HELLO, in_state, make, say


@pytest.mark.rfc(
    "5321 §4.5.3.1.4 command-line-of-512-octets-is-taken",
    "5321 §4.5.3.1.4 command-line-has-512-octets-at-most",
    "5321 §4.5.3.1.4 extensions-lengthen-the-line",
    "5321 §4.5.3.1.9 line-too-long-gets-500",
)
@pytest.mark.parametrize(
    ("head", "longest"),
    [
        (b"NOOP ", 512),
        (b"VRFY ", 512),
        # SIZE adds 26 (RFC 1870 §3), BODY 17 (RFC 6152 §2)
        (b"MAIL FROM:<> ", 512 + 26 + 17),
        (b"RCPT TO:<a@b> ", 512),
        (b"XUNKNOWN ", 512),
        (b"EHLO ", 512),
    ],
)
def test_line_limits(head: bytes, longest: int) -> None:
    for surplus in (-1, 0, 1, 2):
        line = head + b"x" * (longest + surplus - len(head) - 2) + b"\r\n"
        assert len(line) == longest + surplus
        for pieces in ([line], octet_by_octet(line), [line[:-1], line[-1:]]):
            before = b"MAIL FROM:<a@b>\r\n" if head[:4] == b"RCPT" else b"NOOP\r\n"
            server = make(HELLO, before, extensions=(SIZE, EIGHTBITMIME, ENHANCEDSTATUSCODES))
            said = b"".join(say(server, piece) for piece in pieces)
            assert said.startswith(b"500 5.5.2 Line too long") is (surplus > 0)
            assert say(server, b"NOOP\r\n") == b"250 2.0.0 Ok\r\n"


@pytest.mark.rfc(
    "4954 §4 12288-octets-are-enough",
    "4954 §4 overlong-response-gets-500",
    "4954 §4 overlong-response-has-status-5-5-6",
)
@pytest.mark.parametrize("octets", [12_284, 12_288, 12_289, 12_290, 12_292])
def test_a_response_of_12288_octets_is_read_and_no_longer_one(octets: int) -> None:
    line = b"A" * octets + b"\r\n"
    for pieces in ([line], octet_by_octet(line), [line[:-1], line[-1:]]):
        server = make(HELLO)
        server.receive_data(b"AUTH PLAIN\r\n")
        server.next_event()
        server.send(Challenge(b"").reply())
        for piece in pieces:
            assert server.next_event() is NEED_DATA
            server.receive_data(piece)
        event = server.next_event()
        if octets > 12_288:
            assert isinstance(event, BadCommand)
            assert str(event.reply).startswith("500 5.5.6")
            server.send(event.reply)
            assert server.state is State.READY
        else:
            assert isinstance(event, AuthResponse)
            assert len(event.data or b"") == octets // 4 * 3


def test_a_line_without_end() -> None:
    server = make(HELLO)
    said, fed = b"", 0
    while not said:
        said = say(server, b"x" * 1000)
        fed += 1000
        assert server.buffered <= 12_291
        assert fed < 70_000
    assert said == b"500 5.5.2 Line too long\r\n"
    assert server.state is State.CLOSED


def test_the_error_budget() -> None:
    server = make(HELLO, limits=Limits(bad_commands=3))
    for _ in range(3):
        assert say(server, b"XYZZY\r\n").startswith(b"500")
    assert say(server, b"NOOP\r\n").startswith(b"250")
    assert say(server, b"XYZZY\r\n") == b"421 4.7.0 mx.example Too many errors\r\n"
    assert server.next_event() == ConnectionClosed()


def test_thousands_of_unknown_commands_in_one_segment() -> None:
    server = make(HELLO)
    said = say(server, b"XYZZY\r\n" * 5000)
    assert said.count(b"\r\n") == 21
    assert server.state is State.CLOSED
    assert server.buffered == 0


@pytest.mark.rfc("3207 §4.2 server-forgets-what-came-in-clear")
def test_what_is_pipelined_behind_starttls_is_never_executed() -> None:
    octets = b"STARTTLS\r\nMAIL FROM:<evil@b>\r\nRCPT TO:<evil@d>\r\n"
    for at in range(1, len(octets)):
        server = make(HELLO)
        events = []
        for piece in (octets[:at], octets[at:]):
            server.receive_data(piece)
            more, _ = answer(server)
            events += more
        assert events == [StartTls()]
        assert in_state(server, State.TLS)
        assert server.buffered == 0
        with pytest.raises(LocalProtocolError):
            server.send(Reply(220))
        server.receive_data(b"RSET\r\n")
        server.tls_started()
        assert server.next_event() is NEED_DATA
        assert in_state(server, State.GREETED)


@pytest.mark.rfc("3207 §4.2 server-forgets-what-came-in-clear")
def test_the_220_to_starttls_discards_at_once() -> None:
    server = make(HELLO)
    server.receive_data(b"STARTTLS\r\nRSET\r\n")
    assert server.next_event() == StartTls()
    assert server.buffered == 6
    server.send(server.suggested_reply())
    assert server.buffered == 0


@pytest.mark.rfc("3207 §4.2 server-forgets-what-came-in-clear", "3207 §6 nothing-of-before-is-kept")
def test_nothing_survives_starttls() -> None:
    server = make(HELLO)
    server.receive_data(b"AUTH PLAIN AGEAYg==\r\n")
    server.next_event()
    server.send(Reply(235, "2.7.0", "in"))
    assert server.authenticated
    say(server, b"STARTTLS\r\n")
    server.tls_started()
    assert not server.authenticated
    assert server.helo_name is None
    assert not server.extended
    assert server.envelope is None
    assert say(server, b"MAIL FROM:<>\r\n").startswith(b"503")
    assert say(server, HELLO + b"STARTTLS\r\n").endswith(b"503 5.5.1 TLS is already on\r\n")
    with pytest.raises(LocalProtocolError):
        server.tls_started()


def test_implicit_tls() -> None:
    server = ServerConnection("mx.example", BASIC, tls_available=True)
    server.tls_started()
    assert server.state is State.CONNECTED
    with pytest.raises(LocalProtocolError):
        server.tls_started()
    assert server.send(server.suggested_reply()).startswith(b"220")
    assert b"STARTTLS" not in say(server, HELLO)


def test_end_of_file_while_the_handshake_is_owed() -> None:
    server = make(HELLO, b"STARTTLS\r\n")
    assert server.next_event() is PAUSED
    server.receive_data(b"")
    assert server.next_event() == ConnectionClosed()


@pytest.mark.rfc("5321 §4.1.1.5 lost-connection-is-like-quit")
def test_end_of_file_at_every_octet() -> None:
    octets = HELLO + b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n.a\r\n.\r\nQUIT\r\n"
    for at in range(len(octets) + 1):
        server = make(*([octets[:at]] if at else []))
        server.receive_data(b"")
        events, _ = answer(server)
        assert isinstance(events[-1], ConnectionClosed)
        assert server.state is State.CLOSED
        assert not any(isinstance(e, EndOfContent) for e in events)


@pytest.mark.parametrize(
    "octets", [b"GET / HTTP/1.1\r\n", b"post /\r\n", b"CONNECT x\r\n", b"\x16\x03\x01\x02"]
)
def test_other_protocols(octets: bytes) -> None:
    server = make()
    server.receive_data(octets + b"MAIL FROM:<>\r\n")
    with pytest.raises(RemoteProtocolError) as caught:
        server.next_event()
    assert caught.value.reply is not None
    assert caught.value.reply.code == 500
    assert server.next_event() == ConnectionClosed()


def test_quit_with_more_behind_it() -> None:
    server = make()
    server.receive_data(b"QUIT\r\nNOOP\r\n")
    events, said = answer(server)
    assert [type(e).__name__ for e in events] == ["Quit", "ConnectionClosed"]
    assert said.startswith(b"221")
    assert Noop() not in events
