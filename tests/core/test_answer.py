"""What a server's success is told by: the command's own code (RFC 5321 §4.3.2), and no other."""

import pytest

from smtpproto import Auth, LocalProtocolError, Reply, ServerConnection, StartTls
from smtpproto.extensions import XCLIENT
from smtpproto.extensions.xclient import XClient
from smtpproto.mechanisms import LOGIN
from smtpproto.testing.pair import answer

from .decisions import BASIC
from .serving import HELLO, say

TO_DATA = (b"MAIL FROM:<a@b>\r\n", b"RCPT TO:<c@d>\r\n")


KNOWN = (*BASIC, XCLIENT)


def serving(*octets: bytes) -> ServerConnection:
    server = ServerConnection(
        "mx.example",
        KNOWN,
        offer=KNOWN,
        mechanisms=(LOGIN,),
        plaintext_auth=True,
        tls_available=True,
    )
    answer(server)
    for some in octets:
        say(server, some)
    return server


def asked(line: bytes, *before: bytes) -> ServerConnection:
    """A server that owes a reply to the line."""
    server = serving(HELLO, *before)
    server.receive_data(line)
    while server.replies_owed == 0:
        server.next_event()
    return server


@pytest.mark.rfc(
    "5321 §4.3.2 data-gets-354-then-250",
    "5321 §4.3.2 quit-gets-221",
    "5321 §4.3.2 noop-gets-250",
)
@pytest.mark.parametrize(
    ("line", "wrong", "right"),
    [
        (b"NOOP\r\n", [221, 354, 334], 250),
        (b"NOOP\r\n", [221], 252),
        (b"MAIL FROM:<a@b>\r\n", [221, 354], 250),
        (b"STARTTLS\r\n", [250, 221, 235, 354], 220),
        (b"AUTH LOGIN\r\n", [250, 220, 221, 354], 235),
        (b"AUTH LOGIN\r\n", [250, 220, 221, 354], 334),
        (b"QUIT\r\n", [250, 220, 334], 221),
        (b"DATA\r\n", [250, 221, 334], 354),
        (b"XCLIENT NAME=a.example\r\n", [221, 334], 220),
        (b"RSET\r\n", [221], 250),
    ],
)
def test_a_success_is_told_by_its_own_code(line: bytes, wrong: list[int], right: int) -> None:
    server = asked(line, *(TO_DATA if line == b"DATA\r\n" else ()))
    before = (server.state, server.replies_owed)
    for code in wrong:
        with pytest.raises(LocalProtocolError):
            server.send(Reply(code))
        assert (server.state, server.replies_owed) == before
    assert server.send(Reply(right)).startswith(b"%d" % right)


@pytest.mark.rfc("5321 §4.3.2 connection-gets-220-or-554")
def test_the_greeting_is_220_or_a_refusal() -> None:
    server = ServerConnection("mx.example")
    for code in (250, 221):
        with pytest.raises(LocalProtocolError):
            server.send(Reply(code))
    assert server.send(Reply(554)) == b"554 \r\n"


def test_221_is_not_said_to_content() -> None:
    server = asked(b"x\r\n.\r\n", *TO_DATA, b"DATA\r\n")
    with pytest.raises(LocalProtocolError):
        server.send(Reply(221))
    assert server.send(Reply(250)).startswith(b"250")


@pytest.mark.rfc("4954 §4 challenge-is-334-with-base64")
@pytest.mark.parametrize(
    "challenge",
    [
        Reply(334, None, ["QUJD", "QUJD"]),
        Reply(334, None, "Username:"),
        Reply(334, None, "QUJ"),
        Reply(334, None, "QUJD "),
        Reply(334, None, " QUJD"),
    ],
)
def test_a_challenge_is_one_line_of_base64(challenge: Reply) -> None:
    server = asked(b"AUTH LOGIN\r\n")
    with pytest.raises(LocalProtocolError, match="334"):
        server.send(challenge)
    assert server.send(Reply(334, None, "QUJD")) == b"334 QUJD\r\n"
    server.receive_data(b"\r\n")
    server.next_event()
    with pytest.raises(LocalProtocolError, match="334"):
        server.send(challenge)
    assert server.send(Reply(334)) == b"334 \r\n"


@pytest.mark.rfc("5321 §2.2.1 extensions-are-supported")
@pytest.mark.parametrize("hello", [b"HELO c\r\n", b"EHLO c\r\nHELO c\r\n"])
def test_what_ehlo_announces_comes_behind_ehlo(hello: bytes) -> None:
    line = b"XCLIENT NAME=a.example\r\n"
    server = serving(hello)
    assert say(server, line) == b"503 5.5.1 Send EHLO first\r\n"
    server = serving(hello, HELLO)
    server.receive_data(line)
    assert isinstance(server.next_event(), XClient)


@pytest.mark.rfc("3207 4", "4954 4")
@pytest.mark.parametrize("line", [b"STARTTLS\r\n", b"AUTH LOGIN\r\n"])
def test_behind_helo_a_session_can_be_made_safer(line: bytes) -> None:
    server = serving(b"HELO c\r\n")
    server.receive_data(line)
    assert isinstance(server.next_event(), (StartTls, Auth))
    server = serving()
    assert say(server, line) == b"503 5.5.1 Send EHLO first\r\n"
