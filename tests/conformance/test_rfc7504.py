"""RFC 7504: 521 and 556, said by a server and heard by a client."""

import pytest

from smtpproto import (
    STANDARD,
    ClientConnection,
    Data,
    Ehlo,
    Envelope,
    LocalProtocolError,
    Mail,
    Quit,
    Rcpt,
    Reply,
    ServerConnection,
    Severity,
    State,
)
from smtpproto.testing.pair import answer
from tests.conformance.ends import MAIL, RCPT, agreed, client_after, hear, say, server_after

NEVER = Reply(521, None, "mx.example takes no mail")


@pytest.mark.rfc(
    "7504 §3 521-refuses-the-connection",
    "7504 §3 session-goes-on-behind-521",
    "7504 §3 commands-behind-521-are-refused",
    "7504 §5.1 521-greets-and-556-answers-rcpt",
)
def test_behind_521_a_server_refuses_all_but_quit() -> None:
    server = ServerConnection("mx.example", STANDARD)
    assert server.send(NEVER) == b"521 mx.example takes no mail\r\n"
    for line in (b"EHLO c.example", b"HELO c.example", b"MAIL FROM:<a@b>", b"NOOP", b"RSET"):
        server.receive_data(line + b"\r\n")
        server.next_event()
        assert server.suggested_reply().severity is Severity.PERMANENT
        with pytest.raises(LocalProtocolError):
            server.send(Reply(250))
        answer(server)
    assert say(server, b"QUIT\r\n").startswith(b"221")
    assert server.state is State.CLOSED


@pytest.mark.rfc("7504 §3 session-goes-on-behind-521")
def test_behind_521_a_client_may_say_quit() -> None:
    client = ClientConnection(STANDARD)
    assert hear(client, b"521 never\r\n") == [Reply(521, None, "never")]
    with pytest.raises(LocalProtocolError):
        client.send(Ehlo("c.example"))
    client.send(Quit())
    assert hear(client, b"221 bye\r\n") == [Reply(221, None, "bye")]


@pytest.mark.rfc(
    "7504 §4 556-may-answer-rcpt",
    "7504 §4 556-is-permanent",
    "7504 §5.1 521-greets-and-556-answers-rcpt",
)
def test_556_refuses_one_recipient_for_good() -> None:
    no_mail_there = Reply(556, "5.1.10", "d takes no mail")
    server, client = server_after(RCPT, STANDARD), client_after()
    said = say(server, b"RCPT TO:<e@f>\r\n", lambda *_: no_mail_there)
    assert said == b"556 5.1.10 d takes no mail\r\n"
    agreed(client, Mail("a@b"), Rcpt("c@d"))
    client.send(Rcpt("e@f"))
    [reply] = hear(client, said)
    assert (reply, reply.severity) == (no_mail_there, Severity.PERMANENT)
    assert server.envelope == Envelope("a@b", ["c@d"])
    agreed(client, Data())


@pytest.mark.rfc("7504 §4 556-is-permanent")
def test_556_to_the_only_recipient_leaves_none() -> None:
    server = server_after(MAIL)
    say(server, b"RCPT TO:<e@f>\r\n", lambda *_: Reply(556))
    assert server.envelope is None
    assert say(server, b"DATA\r\n").startswith((b"503", b"554"))
