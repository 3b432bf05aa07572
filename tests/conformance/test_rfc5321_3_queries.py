"""RFC 5321 §3.4 and §3.5: mailboxes that have moved, VRFY and EXPN, at either end."""

import pytest

from smtpproto import (
    STANDARD,
    BadCommand,
    ClientConnection,
    Command,
    Ehlo,
    Envelope,
    Expn,
    Extension,
    LocalProtocolError,
    Mail,
    Rcpt,
    Reply,
    ServerConnection,
    State,
    Vrfy,
)
from smtpproto.extensions import EXPN
from smtpproto.result import Fate
from smtpproto.server import Server
from smtpproto.testing.pair import Pair, answer
from tests.adapters.world import ENVELOPE, MESSAGE, Box, session
from tests.conformance.ends import HELLO, RCPT, client_after, hear, say, server_after

MOVED = "User not local; will forward to <new@there.example>"
TRY = "User not local; please try <new@there.example>"


def rows_of(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.rfc(*(f"5321 §3.5.{name}" for name in names))


#: What VRFY may be answered with: of one mailbox, of several, of a list, of nobody, of who moved.
TO_VRFY = [
    pytest.param(Reply(code, None, text), marks=rows_of(*rows))
    for code, text, *rows in (
        (250, ["Fred Smith <fred@b.example>"], "1 the-answer-to-vrfy-may-have-the-full-name"),
        (250, ["fred@b.example"], "1 the-answer-to-vrfy-may-have-the-full-name"),
        (250, ["A list of four"], "1 vrfy-of-a-list", "2 answers-may-be-free-text"),
        (550, ["That is a mailing list, not a user"], "1 vrfy-of-a-list"),
        (252, ["Unable to verify members of mailing list"], "1 vrfy-of-a-list"),
        (252, ["Cannot VRFY user"], "3 252-where-it-looks-valid"),
        (553, ["User ambiguous"], "1 an-ambiguous-name-may-be-noted-or-listed"),
        (
            553,
            [" Ambiguous; Possibilities are", "Joe <joe@b.example>", "<harry@b.example>"],
            "1 an-ambiguous-name-may-be-noted-or-listed",
            "1 client-shows-553-to-the-user",
        ),
        (251, [MOVED], "3 251-and-551-to-vrfy"),
        (551, [TRY], "3 251-and-551-to-vrfy"),
    )
]
TO_EXPN = [
    pytest.param(Reply(code, None, text), marks=rows_of(*rows))
    for code, text, *rows in (
        (
            250,
            ["Jon <jon@a.example>", "<fred@b.example>", "Sam Q. Smith <sam@c.example>"],
            "1 expn-is-answered-with-mailboxes",
        ),
        (250, ["Jon <jon@a.example>"], "1 expn-of-a-user"),
        (550, ["That is a user name, not a mailing list"], "1 expn-of-a-user"),
        (550, ["Access Denied to You."], "1 expn-may-be-denied"),
        (252, ["Some of them, perhaps"], "2 answers-may-be-free-text"),
    )
]


def asked(command: Command, reply: Reply) -> None:
    """Ask, be answered so, and be where one was; half a transaction is under way."""
    server = ServerConnection("mx.example", [EXPN], offer=[EXPN])
    pair = Pair(server, ClientConnection([EXPN]))
    for before in (Ehlo("c.example"), Mail("a@b"), Rcpt("c@d")):
        pair.send(before)
    pair.policy = lambda s, event: reply if event == command else s.suggested_reply()
    assert pair.send(command) == [reply]
    assert pair.to_client.endswith(reply.serialize())
    assert pair.server_events[-1] == command
    assert pair.server.envelope == Envelope("a@b", ["c@d"])
    assert pair.client.state is pair.server.state is State.RCPT


@pytest.mark.rfc(
    "5321 §3.5.1 vrfy-and-expn-are-supported",
    "5321 §3.5.2 both-verbs-are-supported",
    "5321 §3.5.1 answers-are-for-diagnosis",
)
@pytest.mark.parametrize("reply", TO_VRFY)
def test_vrfy_may_be_answered_with(reply: Reply) -> None:
    asked(Vrfy("Smith"), reply)


@pytest.mark.rfc(
    "5321 §3.5.1 vrfy-and-expn-are-supported",
    "5321 §3.5.2 both-verbs-are-supported",
    "5321 §3.5.1 answers-are-for-diagnosis",
)
@pytest.mark.parametrize("reply", TO_EXPN)
def test_expn_may_be_answered_with(reply: Reply) -> None:
    asked(Expn("Example-People"), reply)


@pytest.mark.rfc(
    "5321 §3.5.1 vrfy-asks-for-a-name-or-a-mailbox",
    "5321 §3.5.1 mailboxes-with-a-domain-are-user-names",
)
@pytest.mark.parametrize(
    "text", ["smith", "smith@b.example", "<smith@b.example>", "Fred Foo", '"Fred Foo"', "/etc/list"]
)
def test_vrfy_asks_for_a_name_or_a_mailbox(text: str) -> None:
    client = client_after()
    wire = client.send(Vrfy(text))
    assert wire == f"VRFY {text}\r\n".encode()
    server = server_after(HELLO)
    server.receive_data(wire)
    assert server.next_event() == Vrfy(text)
    assert server.suggested_reply().code == 252


@pytest.mark.rfc(
    "5321 §3.5.3 252-where-it-looks-valid",
    "5321 §3.5.3 no-250-for-what-was-not-verified",
    "5321 §3.5.3 502-where-only-the-syntax-was-looked-at",
    "5321 §3.5.2 they-need-not-work-across-relays",
    "5321 §3.4 251-and-551-can-be-switched-off",
)
def test_by_itself_a_server_verifies_nobody() -> None:
    for extensions in ((), STANDARD):
        server = server_after(RCPT, extensions)
        for text in (b"smith", b"c@d", b"<a@elsewhere.example>"):
            assert say(server, b"VRFY %b\r\n" % text)[:3] == b"252"
            assert say(server, b"EXPN %b\r\n" % text)[:3] in (b"500", b"502")
        said = say(server, b"RCPT TO:<e@f>\r\nRCPT TO:<moved@b.example>\r\n")
        assert [line[:3] for line in said.splitlines()] == [b"250", b"250"]


@pytest.mark.rfc(
    "5321 §3.5.2 expn-is-listed-where-it-is-supported", "5321 §3.5.2 both-may-be-switched-off"
)
def test_expn_is_taken_where_it_is_listed_and_nowhere_else() -> None:
    for offer in ([EXPN], []):
        server = ServerConnection("mx.example", STANDARD, offer=offer)
        answer(server)
        assert (b"EXPN" in say(server, HELLO)) is bool(offer)
        server.receive_data(b"EXPN list\r\n")
        event = server.next_event()
        if offer:
            assert event == Expn("list")
            assert server.send(Reply(250, None, "<jo@b.example>")) == b"250 <jo@b.example>\r\n"
        else:
            assert isinstance(event, BadCommand)
            with pytest.raises(LocalProtocolError):
                server.send(Reply(250, None, "<jo@b.example>"))
    by_default = server_after(b"", STANDARD)
    assert b"EXPN" not in say(by_default, HELLO)


@pytest.mark.rfc("5321 §3.5.2 both-may-be-switched-off")
@pytest.mark.parametrize("command", [Vrfy("jo"), Expn("list")])
@pytest.mark.parametrize("code", [252, 502, 550])
def test_either_may_be_refused(command: Command, code: int) -> None:
    asked(command, Reply(code, None, "Not here"))


@pytest.mark.rfc("5321 §3.5.2 vrfy-may-be-listed", "5321 §3.5.2 client-needs-no-listing-for-vrfy")
@pytest.mark.parametrize("listed", [True, False])
def test_vrfy_may_be_listed_and_need_not_be(listed: bool) -> None:
    listing = [Extension("VRFY", rfc=5321)] if listed else []
    pair = Pair(ServerConnection("mx.example", listing), ClientConnection())
    pair.send(Ehlo("c.example"))
    assert ("VRFY" in pair.client.offered) is listed
    (reply,) = pair.send(Vrfy("jo"))
    assert str(reply).startswith("252")


# Those who have moved


@pytest.mark.rfc("5321 §3.4 server-may-forward-and-say-251", "5321 §3.4 nobody-relies-on-251")
def test_251_accepts_the_recipient_as_named() -> None:
    server, client = server_after(RCPT), client_after()
    moved = Reply(251, None, MOVED)
    said = say(server, b"RCPT TO:<old@b.example>\r\n", lambda s, _: moved)
    assert server.envelope == Envelope("a@b", ["c@d", "old@b.example"])
    assert say(server, b"RCPT TO:<old@b.example>\r\n").startswith(b"250")
    client.send(Mail("a@b"))
    hear(client, b"250 ok\r\n")
    client.send(Rcpt("old@b.example"))
    assert hear(client, said) == [moved]
    assert client.state is State.RCPT


@pytest.mark.rfc("5321 §3.4 server-may-refuse-and-say-551", "5321 §3.4 nobody-relies-on-551")
def test_551_refuses_the_recipient() -> None:
    server, client = server_after(RCPT), client_after()
    moved = Reply(551, None, TRY)
    said = say(server, b"RCPT TO:<old@b.example>\r\n", lambda s, _: moved)
    assert server.envelope == Envelope("a@b", ["c@d"])
    assert say(server, b"RCPT TO:<old@b.example>\r\n").startswith(b"250")
    client.send(Mail("a@b"))
    hear(client, b"250 ok\r\n")
    client.send(Rcpt("old@b.example"))
    assert hear(client, said) == [moved]
    assert client.state is State.MAIL


@pytest.mark.anyio
@pytest.mark.rfc(
    "5321 §3.4 server-may-forward-and-say-251",
    "5321 §3.4 server-may-refuse-and-say-551",
    "5321 §3.4 server-may-refuse-with-550",
    "5321 §3.4 server-may-forward-silently",
)
@pytest.mark.parametrize(
    ("reply", "fate"),
    [
        (Reply(250), Fate.ACCEPTED),
        (Reply(251, None, MOVED), Fate.ACCEPTED),
        (Reply(550, None, "No such user"), Fate.PERMANENT),
        (Reply(551, None, TRY), Fate.PERMANENT),
    ],
)
async def test_what_became_of_who_has_moved(reply: Reply, fate: Fate) -> None:
    box = Box(replies={"rcpt": reply})
    async with session(Server(box, offer=[])) as client:
        (outcome,) = (await client.deliver(ENVELOPE, MESSAGE)).outcomes
    assert outcome.fate is fate
    assert str(outcome.forward_path) == "<bob@example.net>"
    if fate is Fate.PERMANENT:
        assert outcome.reply == reply
    assert len(box.received) == (fate is Fate.ACCEPTED)
