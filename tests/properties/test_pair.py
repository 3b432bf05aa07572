"""The pair of `smtpproto.testing` itself."""

import pytest

from smtpproto import (
    Command,
    ConnectionClosed,
    Content,
    Data,
    Ehlo,
    EndOfContent,
    LocalProtocolError,
    Mail,
    Quit,
    Rcpt,
    Reply,
    StartTls,
    State,
)
from smtpproto.testing import Cut, Pair, at_points, octet_by_octet, whole
from smtpproto.testing.pair import pieces

from .ends import make_server

CUTS: list[Cut] = [whole, octet_by_octet, at_points(3, 70, 200)]


@pytest.mark.parametrize("cut", CUTS)
def test_a_session(cut: Cut) -> None:

    pair = Pair(make_server(), cut=cut)
    assert pair.idle
    assert pair.client_events == [Reply(220, None, "server.example ESMTP")]
    (hello,) = pair.send(Ehlo("client.example"))
    assert isinstance(hello, Reply)
    assert hello.code == 250
    group: list[Command] = [Mail("a@b.example"), Rcpt("c@d.example"), Data()]
    assert [str(reply)[:3] for reply in pair.send(*group)] == ["250", "250", "354"]
    pair.send(Content(b"hi"), EndOfContent())
    events = pair.server_events
    assert b"".join(e.data for e in events if isinstance(e, Content)) == b"hi\r\n"
    pair.send(StartTls())
    pair.start_tls()
    assert pair.client.state is pair.server.state is State.GREETED
    with pytest.raises(LocalProtocolError):
        pair.send(Mail("a@b.example"))
    assert pair.send(Quit())[-1] == ConnectionClosed()
    assert pair.to_server.endswith(b"QUIT\r\n")
    assert pair.to_client.startswith(b"220 server.example ESMTP\r\n")
    assert pair.server_events.count(ConnectionClosed()) == 1


def test_what_came_before_a_refusal_is_sent() -> None:
    pair = Pair()
    with pytest.raises(LocalProtocolError):
        pair.send(Ehlo("client.example"), Data())
    assert pair.client.state is State.READY


def test_the_client_goes() -> None:
    pair = Pair()
    pair.close_client()
    assert pair.server_events == [ConnectionClosed()]
    pair.close_client()
    assert pair.server_events == [ConnectionClosed()]


def test_the_server_loses_the_framing() -> None:
    pair = Pair()
    pair.client.send(Ehlo("client.example"))
    pair.feed_server(b"GET / HTTP/1.1\r\n")
    assert pair.server_events == [ConnectionClosed()]
    assert pair.client_events[-1] == Reply(500, "5.5.2", "This is an SMTP port")


def test_cuts() -> None:
    assert pieces(octet_by_octet, b"abc") == [b"a", b"b", b"c"]
    assert pieces(whole, b"") == []
    cut = at_points(0, 1, 4, 9)
    assert [pieces(cut, data) for data in (b"abc", b"def", b"ghijk")] == [
        [b"a", b"bc"],
        [b"d", b"ef"],
        [b"ghi", b"jk"],
    ]
