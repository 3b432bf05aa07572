"""Behind XCLIENT the session starts over, at both ends."""

import pytest

from smtpproto import (
    STANDARD,
    Auth,
    BadCommand,
    ClientConnection,
    Command,
    Ehlo,
    LocalProtocolError,
    Mail,
    Rcpt,
    Reply,
    ServerConnection,
    State,
)
from smtpproto.core.server_connection import ServerEvent
from smtpproto.extensions.xclient import XCLIENT, XClient
from smtpproto.mechanisms import PLAIN
from smtpproto.testing import Pair, octet_by_octet, suggested

TAKE_ME = XClient({"ADDR": "192.0.2.1", "NAME": "spike.example"})


def policy(server: ServerConnection, event: ServerEvent | None) -> Reply:
    if isinstance(event, XClient):
        return Reply(550, "5.7.0", "No") if "LOGIN" in event.attributes else Reply(220, None, "hi")
    if isinstance(event, Auth):
        return Reply(235, "2.7.0", "In")
    return suggested(server, event)


def joined(*commands: Command) -> Pair:
    server = ServerConnection(
        "mx.example",
        STANDARD,
        offer=[e for e in STANDARD if not e.obliges or e is XCLIENT],
        mechanisms=(PLAIN,),
        plaintext_auth=True,
    )
    pair = Pair(server, ClientConnection(STANDARD), policy=policy, cut=octet_by_octet)
    for command in (Ehlo("c.example"), *commands):
        pair.send(command)
    return pair


def test_everything_is_forgotten() -> None:
    pair = joined(Auth("PLAIN", b"\0a\0b"))
    assert pair.client.authenticated
    assert pair.server.authenticated
    (reply,) = pair.send(TAKE_ME)
    assert str(reply).startswith("220")
    for end in (pair.client, pair.server):
        assert end.state is State.GREETED
        assert not end.authenticated
    assert pair.server.helo_name is None
    assert not pair.server.extended
    assert pair.client.offered == {}
    for command in (Mail("a@b"), Auth("PLAIN"), TAKE_ME):
        with pytest.raises(LocalProtocolError):
            pair.send(command)
    pair.server.receive_data(b"MAIL FROM:<a@b>\r\n")
    event = pair.server.next_event()
    assert isinstance(event, BadCommand)
    assert event.reply.code == 503


def test_then_it_is_a_session_like_any_other() -> None:
    pair = joined(TAKE_ME, Ehlo("spike.example"), TAKE_ME, Ehlo("other.example"))
    assert pair.server.helo_name == b"other.example"
    assert "XCLIENT" in pair.client.offered
    pair.send(Mail("a@b"))
    assert pair.client.state is pair.server.state is State.MAIL


def test_a_refused_one_changes_nothing() -> None:
    pair = joined(Auth("PLAIN", b"\0a\0b"))
    (reply,) = pair.send(XClient({"LOGIN": "root"}))
    assert str(reply).startswith("550")
    assert pair.client.state is pair.server.state is State.READY
    assert pair.client.authenticated
    assert pair.server.authenticated
    assert pair.server.helo_name == b"c.example"


@pytest.mark.parametrize(
    "before", [b"MAIL FROM:<a@b>\r\n", b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 1\r\nx"]
)
def test_not_within_a_transaction(before: bytes) -> None:
    pair = joined()
    pair.client.send(Mail("a@b"))
    pair.client.receive_data(b"250 ok\r\n")
    pair.client.next_event()
    with pytest.raises(LocalProtocolError, match="out of sequence"):
        pair.client.send(TAKE_ME)
    pair = joined()
    said = b""
    pair.server.receive_data(before + TAKE_ME.serialize())
    while not isinstance(event := pair.server.next_event(), BadCommand):
        if pair.server.replies_owed:
            said += pair.server.send(pair.server.suggested_reply())
    assert event.reply.code == 503
    assert event.command == TAKE_ME


def test_the_client_sends_nothing_behind_it_before_the_reply() -> None:
    pair = joined()
    pair.client.send(TAKE_ME)
    for command in (Ehlo("x"), Rcpt("a@b")):
        with pytest.raises(LocalProtocolError):
            pair.client.send(command)
