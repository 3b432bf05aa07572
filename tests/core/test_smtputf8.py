"""SMTPUTF8 (RFC 6531): mailboxes beyond ASCII, and who may say them when."""

from collections.abc import Sequence

import pytest

from smtpproto import (
    STANDARD,
    BadCommand,
    ClientConnection,
    Command,
    Ehlo,
    Extension,
    ForwardPath,
    GrammarError,
    LocalProtocolError,
    Mail,
    Mailbox,
    Rcpt,
    Reply,
    ReversePath,
    Rset,
    ServerConnection,
    Vrfy,
)
from smtpproto.extensions import SMTPUTF8
from smtpproto.extensions.smtputf8 import utf8_query
from smtpproto.testing import Pair

OFFER = [e for e in STANDARD if not e.obliges or e is SMTPUTF8]
ASKING = Mail("a@b", {"SMTPUTF8": None})

MAILBOXES = {
    "é@b": ("é", "b"),
    "a@é": ("a", "é"),
    "Pelé@example.com": ("Pelé", "example.com"),
    "用户@例子.广告": ("用户", "例子.广告"),
    "\U0001f600@b": ("\U0001f600", "b"),
    "a.é.ü@x-é.y": ("a.é.ü", "x-é.y"),
    '"é"@b': ("é", "b"),
    '"é è"@b': ("é è", "b"),
    '"\\a\\"é"@b': ('a"é', "b"),
    "é@[192.0.2.1]": ("é", "[192.0.2.1]"),
    "é@" + "x" * 63: ("é", "x" * 63),
    "\x80@b": ("\x80", "b"),  # the grammar has it (RFC 3629 §4: UTF8-2)
    "\u2028@b": ("\u2028", "b"),
    "\uffff@\ud7ff\ue000": ("\uffff", "\ud7ff\ue000"),
    "e\u0301@b": ("e\u0301", "b"),
}
NO_MAILBOXES = [
    b"\xe9@b",  # Latin-1
    b"a@\xe9",
    b'"\xe9"@b',
    b"\x80@b",  # a lone continuation
    b"\xc3@b",  # cut short
    b"\xe2\x82@b",
    b"\xf0\x9f\x98@b",
    b"\xc0\xaf@b",  # overlong
    b"\xc1\xbf@b",
    b"\xe0\x80\xaf@b",
    b"\xe0\x9f\xbf@b",
    b"\xf0\x80\x80\xaf@b",
    b"\xf0\x8f\xbf\xbf@b",
    b"\xc0\x80@b",  # NUL, overlong
    b"\xc0\x8d\xc0\x8a@b",  # CR LF, overlong
    b"\xed\xa0\x80@b",  # surrogates
    b"\xed\xbf\xbf@b",
    b"\xed\xa0\xbd\xed\xb8\x80@b",  # a pair of them (CESU-8)
    b"\xf4\x90\x80\x80@b",  # beyond U+10FFFF
    b"\xf5\x80\x80\x80@b",
    b"\xff@b",
    b"\xfe@b",
    b'"\\\xc3\xa9"@b',  # only ASCII is quoted by a backslash
    "é@é.".encode(),
    "é@.é".encode(),
    "é@-é".encode(),
    "é@é-".encode(),
    "é@é_".encode(),
    "é@b c".encode(),
    "é@[é]".encode(),
    "é@[x:é]".encode(),
    "é.@b".encode(),
    "é..é@b".encode(),
    "é é@b".encode(),
    "é@".encode() + b"x" * 64,
    "é@".encode() + b"x" * 64 + "é".encode(),
    "é\r\n@b".encode(),
    "é\0@b".encode(),
    "é\x7f@b".encode(),
    "a@é> X=".encode(),
    ("é" * 127 + "@b").encode(),  # octets count
]


@pytest.mark.rfc("6531 §3.3")
@pytest.mark.parametrize("text", MAILBOXES)
def test_mailboxes(text: str) -> None:
    mailbox = Mailbox.parse(text)
    assert mailbox == Mailbox(*MAILBOXES[text])
    assert not mailbox.is_ascii
    assert Mailbox.parse(mailbox.serialize()) == mailbox
    assert str(mailbox).encode() == mailbox.serialize()
    for path in (ReversePath(mailbox), ForwardPath(mailbox)):
        wire = path.serialize()
        assert type(path).read(wire + b" X") == (path, len(wire))


def is_read_whole(path: type[ReversePath | ForwardPath], octets: bytes) -> bool:
    try:
        return path.read(octets)[1] == len(octets)
    except GrammarError:
        return False


@pytest.mark.rfc("6531 §3.3")
@pytest.mark.parametrize("octets", NO_MAILBOXES)
def test_no_mailboxes(octets: bytes) -> None:
    with pytest.raises(GrammarError):
        Mailbox.parse(octets)
    with pytest.raises(LocalProtocolError):
        Mailbox.of(octets)
    for path in (ReversePath, ForwardPath):
        assert not is_read_whole(path, b"<%b>" % octets)


@pytest.mark.parametrize(
    "local", [o[:-2] for o in NO_MAILBOXES if o.endswith(b"@b") and not set(o) & set(b'\\". ')]
)
def test_local_parts_that_nothing_can_write(local: bytes) -> None:
    with pytest.raises(LocalProtocolError):
        Mailbox(local, "b")


def test_it_is_compared_as_it_is() -> None:
    """Never normalised, and of the domain only ASCII has no case."""
    assert Mailbox("é", "b") != Mailbox("e\u0301", "b")
    assert Mailbox("a", "É.Example") == Mailbox("a", "É.EXAMPLE")
    assert Mailbox("a", "É.example") != Mailbox("a", "é.example")


@pytest.mark.rfc("6531 §3.3")
def test_a_source_route_may_have_u_labels() -> None:
    path, _ = ForwardPath.read("<@é.example,@y:ü@z>".encode())
    assert path == ForwardPath("ü@z")


def greeted(offer: Sequence[Extension] = OFFER) -> Pair:
    server = ServerConnection("mx.example", STANDARD, offer=offer)
    pair = Pair(server, ClientConnection(STANDARD))
    pair.send(Ehlo("c.example"))
    return pair


@pytest.mark.rfc("6531 §3.4")
def test_a_transaction_that_asked_takes_them() -> None:
    pair = greeted()
    commands = [Mail("é@b", {"SMTPUTF8": None}), Rcpt("ü@c"), Rcpt("a@ö.example")]
    replies = pair.send(*commands)
    assert [str(reply)[:3] for reply in replies] == ["250"] * 3
    assert pair.server_events[-3:] == commands
    assert pair.to_server.endswith("RCPT TO:<ü@c>\r\nRCPT TO:<a@ö.example>\r\n".encode())


@pytest.mark.rfc("6531 §3.5")
@pytest.mark.parametrize(
    ("first", "command"),
    [
        ((), Mail("é@b")),
        ((), Mail("a@é", {"BODY": "8BITMIME"})),
        ((Mail("a@b"),), Rcpt("é@c")),
        ((Mail("a@b"), Rcpt("c@d")), Rcpt("c@é")),
        ((ASKING, Rset(), Mail("a@b")), Rcpt("é@c")),  # each transaction asks for itself
    ],
)
def test_one_that_did_not_does_not(first: Sequence[Command], command: Mail | Rcpt) -> None:
    pair = greeted()
    pair.send(*first)
    state, sent = pair.client.state, pair.to_server
    with pytest.raises(LocalProtocolError, match="SMTPUTF8"):
        pair.send(command)
    assert pair.to_server == sent
    assert pair.client.state is state
    pair.server.receive_data(command.serialize())
    event = pair.server.next_event()
    assert isinstance(event, BadCommand)
    assert (event.reply.code, str(event.reply.status)) == (553, "5.6.7")
    with pytest.raises(LocalProtocolError):
        pair.server.send(Reply(250))


@pytest.mark.rfc("6531 §3.1")
def test_where_it_is_not_offered_it_cannot_be_asked_for() -> None:
    pair = greeted([e for e in OFFER if e is not SMTPUTF8])
    with pytest.raises(LocalProtocolError, match="does not offer SMTPUTF8"):
        pair.send(Mail("é@b", {"SMTPUTF8": None}))
    pair.server.receive_data("MAIL FROM:<é@b> SMTPUTF8\r\n".encode())
    event = pair.server.next_event()
    assert isinstance(event, BadCommand)
    assert event.reply.code == 555


def test_what_policy_may_let_pass_is_ascii() -> None:
    """Parameters that nobody knows may be accepted; not together with what no one asked for."""
    pair = greeted()
    pair.server.receive_data("MAIL FROM:<é@b> XYZ=1\r\n".encode())
    event = pair.server.next_event()
    assert isinstance(event, BadCommand)
    assert event.reply.code == 553
    with pytest.raises(LocalProtocolError):
        pair.server.send(Reply(250))


@pytest.mark.rfc("6531 §3.7.4.2")
def test_vrfy_may_ask_for_a_reply_in_utf8() -> None:
    pair = greeted()
    (reply,) = pair.send(Vrfy("jo SMTPUTF8"))
    assert str(reply).startswith("252")
    query = pair.server_events[-1]
    assert isinstance(query, Vrfy)
    assert utf8_query(query) == (b"jo", True)
    with pytest.raises(LocalProtocolError):
        Vrfy("é")
