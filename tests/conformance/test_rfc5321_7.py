"""RFC 5321 §7: what either end keeps to itself, and what it may refuse."""

import pytest

from smtpproto import (
    STANDARD,
    Command,
    ConnectionClosed,
    Content,
    Data,
    Ehlo,
    EndOfContent,
    Envelope,
    Expn,
    Helo,
    Mail,
    Rcpt,
    Reply,
    ServerConnection,
    State,
    Vrfy,
)
from smtpproto.core.server_connection import ServerEvent
from smtpproto.extensions import EXPN
from smtpproto.result import Fate, Transaction
from smtpproto.testing.pair import answer
from tests.conformance.ends import HELLO, MAIL, RCPT, agreed, client_after, hear, say, server_after

# §7.2 Blind copies


@pytest.mark.rfc(
    "5321 §7.2 recipients-need-not-be-in-the-header",
    "5321 §7.2 client-copies-no-recipient-into-the-header",
)
@pytest.mark.parametrize("content", [b"", b"\r\nbody\r\n", b"To: else@where.example\r\n\r\nx\r\n"])
def test_who_is_asked_for_in_rcpt_is_not_looked_for_in_the_header_nor_put_there(
    content: bytes,
) -> None:
    client, server = client_after(), server_after(HELLO)
    for command in (Mail("a@b"), Rcpt("blind@d"), Rcpt("copy@d"), Data()):
        assert hear(client, say(server, client.send(command)))[0].code in (250, 354)
    assert server.envelope == Envelope("a@b", ["blind@d", "copy@d"])
    wire = client.send(Content(content)) + client.send(EndOfContent())
    assert wire == content + b".\r\n"
    assert hear(client, say(server, wire))[0].code == 250


# §7.3 VRFY and EXPN


@pytest.mark.rfc(
    "5321 §7.3 nothing-looks-verified-that-is-not",
    "5321 §7.3 disabled-vrfy-gets-252",
    "5321 §7.3 vrfy-is-not-always-550",
)
@pytest.mark.parametrize(
    "address", [b"a@b.example", b"<a@b.example>", b"Fred", b"nobody@[1.2.3.4]"]
)
def test_a_server_that_verifies_nothing_neither_affirms_nor_denies(address: bytes) -> None:
    said = say(server_after(HELLO), b"VRFY %b\r\n" % address)
    assert said.startswith(b"252 ")
    assert address not in said


@pytest.mark.rfc("5321 §7.3 disabled-expn-gets-252")
def test_expn_that_is_disabled_may_be_answered_as_well() -> None:
    server = ServerConnection("mx.example", STANDARD, offer=[EXPN])
    answer(server)
    assert b"250 EXPN\r\n" in say(server, HELLO)
    assert say(server, b"EXPN list\r\n", lambda s, _: Reply(252)) == b"252 \r\n"


@pytest.mark.rfc("5321 §7.3 expn-is-supported")
def test_a_list_can_be_asked_for_and_told() -> None:
    server, client = ServerConnection("mx.example", STANDARD, offer=[EXPN]), client_after()
    answer(server)
    say(server, HELLO)
    members = Reply(250, None, ["Jon Postel <Postel@isi.example>", "<fred@physics.example>"])
    asked: list[ServerEvent | None] = []

    def tell(server: ServerConnection, event: ServerEvent | None) -> Reply:
        asked.append(event)
        return members

    said = say(server, client.send(Expn("Example-People")), tell)
    assert asked == [Expn("Example-People")]
    assert hear(client, said) == [members]


@pytest.mark.rfc("5321 §7.3 vrfy-and-expn-may-need-a-login")
@pytest.mark.parametrize("command", [Vrfy("a"), Expn("a")])
def test_vrfy_and_expn_may_be_for_those_who_have_logged_in(command: Command) -> None:
    server, client = ServerConnection("mx.example", STANDARD, offer=[EXPN]), client_after()
    answer(server)
    say(server, HELLO)
    refusal = Reply(530, None, "Authentication required")
    assert hear(client, say(server, client.send(command), lambda s, _: refusal)) == [refusal]
    assert server.state is client.state is State.READY


# §7.4 251 and 551


@pytest.mark.rfc("5321 §7.4 new-address-is-not-adopted")
@pytest.mark.parametrize(("code", "fate"), [(251, Fate.ACCEPTED), (551, Fate.PERMANENT)])
def test_a_new_address_in_a_reply_changes_nothing_by_itself(code: int, fate: Fate) -> None:
    client = client_after()
    agreed(client, Mail("a@b"))
    client.send(Rcpt("old@d"))
    moved = Reply(code, None, "User not local; <new@elsewhere.example>")
    assert hear(client, moved.serialize()) == [moved]
    assert client.state is (State.RCPT if code == 251 else State.MAIL)
    transaction = Transaction(Envelope("a@b", ["old@d"]))
    transaction.heard(0, moved)
    transaction.settle(Reply(250))
    (outcome,) = transaction.result().outcomes
    assert (str(outcome.forward_path), outcome.fate, transaction.envelope) == (
        "<old@d>",
        fate,
        Envelope("a@b", ["old@d"]),
    )


# §7.5 Who we are


@pytest.mark.rfc("5321 §7.5 type-and-version-can-be-told")
def test_a_server_can_tell_what_it_is_in_its_greeting() -> None:
    server = ServerConnection("mx.example")
    greeting = Reply(220, None, "mx.example ESMTP Example 4.2")
    assert server.send(greeting) == b"220 mx.example ESMTP Example 4.2\r\n"
    assert server.state is State.GREETED


# §7.8 and §7.9 Refusing


@pytest.mark.rfc("5321 §7.8 attackers-may-be-cut-off")
def test_the_connection_may_be_closed_after_many_recipients_that_are_none() -> None:
    server, client = server_after(MAIL), client_after()
    agreed(client, Mail("a@b"))
    refused: list[int] = []

    def policy(server: ServerConnection, event: ServerEvent | None) -> Reply:
        refused.append(len(refused))
        return Reply(550) if len(refused) <= 3 else Reply(421, None, "Enough")

    for _ in range(4):
        hear(client, say(server, client.send(Rcpt("x@d")), policy))
    assert server.state is client.state is State.CLOSED
    assert server.next_event() == client.next_event() == ConnectionClosed()


@pytest.mark.rfc("5321 §7.9 anything-may-be-refused", "5321 §7.9 policy-says-550")
@pytest.mark.parametrize(
    ("before", "command"),
    [
        (b"", Ehlo("c.example")),
        (b"", Helo("c.example")),
        (HELLO, Mail("a@b")),
        (MAIL, Rcpt("c@d")),
        (RCPT, Rcpt("e@f")),
        (RCPT, Data()),
    ],
)
def test_every_step_towards_a_message_may_be_refused_with_550(
    before: bytes, command: Command
) -> None:
    server, client = server_after(before), client_after()
    state = server.state
    refusal = Reply(550, None, "Not from there")
    earlier = [Mail("a@b"), Rcpt("c@d")][: before.count(b"\r\n") - 1] if before else []
    agreed(client, *earlier)
    at_client = client.state
    assert hear(client, say(server, client.send(command), lambda s, _: refusal)) == [refusal]
    assert (server.state, client.state) == (state, at_client)
