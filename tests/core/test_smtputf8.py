"""SMTPUTF8 (RFC 6531): mailboxes beyond ASCII, and who may say them when."""

from collections.abc import Sequence

import pytest

from smtpproto import (
    STANDARD,
    BadCommand,
    ClientConnection,
    Command,
    Ehlo,
    Expn,
    Extension,
    ForwardPath,
    GrammarError,
    LocalProtocolError,
    Mail,
    Mailbox,
    Noop,
    Parameter,
    Parameters,
    Rcpt,
    Reply,
    ReversePath,
    Rset,
    ServerConnection,
    Vrfy,
)
from smtpproto.core.command import Query
from smtpproto.extensions import DSN, EXPN, SMTPUTF8
from smtpproto.extensions.dsn import ORCPT, OriginalRecipient
from smtpproto.testing import Pair

OFFER = [e for e in STANDARD if not e.obliges or e in (SMTPUTF8, EXPN)]
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


@pytest.mark.rfc("6531 §3.3 Mailbox", "6531 §3.1 both-paths-may-hold-utf8")
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


@pytest.mark.rfc("6531 §3.3 UTF8-non-ascii", "6531 §3.7 mailboxes-are-utf8-throughout")
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


@pytest.mark.rfc("6531 §3.3 sub-domain")
def test_a_source_route_may_have_u_labels() -> None:
    path, _ = ForwardPath.read("<@é.example,@y:ü@z>".encode())
    assert path == ForwardPath("ü@z")


def greeted(offer: Sequence[Extension] = OFFER) -> Pair:
    server = ServerConnection("mx.example", STANDARD, offer=offer)
    pair = Pair(server, ClientConnection(STANDARD))
    pair.send(Ehlo("c.example"))
    return pair


@pytest.mark.rfc("5321 §2.2.3 extensions-may-go-beyond-ascii")
@pytest.mark.rfc(
    "6531 §3.1 parameter-opens-the-whole-transaction",
    "6531 §3.1 both-paths-may-hold-utf8",
    "6531 §3.2 client-may-write-utf8-mailboxes",
)
def test_a_transaction_that_asked_takes_them() -> None:
    pair = greeted()
    commands = [Mail("é@b", {"SMTPUTF8": None}), Rcpt("ü@c"), Rcpt("a@ö.example")]
    replies = pair.send(*commands)
    assert [str(reply)[:3] for reply in replies] == ["250"] * 3
    assert pair.server_events[-3:] == commands
    assert pair.to_server.endswith("RCPT TO:<ü@c>\r\nRCPT TO:<a@ö.example>\r\n".encode())


@pytest.mark.rfc(
    "6531 §3.4 client-asks-where-the-envelope-needs-it",
    "6531 §3.5 rcpt-that-has-to-be-ascii-gets-553",
    "6531 §3.5 mail-that-has-to-be-ascii-gets-550",
    "6531 §3.5 both-say-x-6-7",
)
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
    code = 550 if isinstance(command, Mail) else 553
    assert (event.reply.code, str(event.reply.status)) == (code, "5.6.7")
    with pytest.raises(LocalProtocolError):
        pair.server.send(Reply(250))


@pytest.mark.rfc("6531 §3.5 nothing-of-it-to-who-does-not-offer-it")
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
    assert event.reply.code == 550
    with pytest.raises(LocalProtocolError):
        pair.server.send(Reply(250))


@pytest.mark.rfc(
    "6531 §3.1 parameter-of-queries-takes-no-value",
    "6531 §3.7.4.2 parameter-takes-no-value",
    "6531 §3.7.4.2 vrfy",
    "6531 §3.7.4.2 expn",
)
@pytest.mark.parametrize(
    ("query", "wire", "asked"),
    [
        (Vrfy("Fred"), b"VRFY Fred\r\n", (b"Fred", False)),
        (Vrfy("Fred SMTPUTF8"), b"VRFY Fred SMTPUTF8\r\n", (b"Fred", True)),
        (Vrfy("Fred", smtputf8=True), b"VRFY Fred SMTPUTF8\r\n", (b"Fred", True)),
        (Expn("my list  smtputf8"), b"EXPN my list SMTPUTF8\r\n", (b"my list", True)),
        (Vrfy("SMTPUTF8"), b"VRFY SMTPUTF8\r\n", (b"SMTPUTF8", False)),
        (Vrfy("SMTPUTF8", True), b"VRFY SMTPUTF8 SMTPUTF8\r\n", (b"SMTPUTF8", True)),
        (Vrfy("Fred SMTPUTF8=1"), b"VRFY Fred SMTPUTF8=1\r\n", (b"Fred SMTPUTF8=1", False)),
        (Expn("José"), "EXPN José\r\n".encode(), ("José".encode(), False)),
    ],
)
def test_a_query_is_written_and_read(query: Query, wire: bytes, asked: tuple[bytes, bool]) -> None:
    assert (query.text, query.smtputf8) == asked
    assert query.serialize() == wire
    assert type(query).parse(wire[5:-2]) == query


@pytest.mark.parametrize("text", ["", " ", "a\r\nb", "é\n", b"\xe9", "\ud800", "a "])
def test_what_cannot_be_asked_for(text: str | bytes) -> None:
    with pytest.raises(LocalProtocolError):
        Vrfy(text)


@pytest.mark.rfc("6531 §3.7.4.2 not-before-it-is-offered")
@pytest.mark.parametrize("query", [Vrfy("é"), Expn("é"), Vrfy("jo", True), Expn("é", True)])
def test_a_query_needs_the_offer(query: Query) -> None:
    pair = greeted([e for e in OFFER if e is not SMTPUTF8])
    sent = pair.to_server
    with pytest.raises(LocalProtocolError, match="does not offer SMTPUTF8"):
        pair.send(query)
    assert pair.to_server == sent
    pair.server.receive_data(query.serialize())
    bad = pair.server.next_event()
    assert isinstance(bad, BadCommand)
    assert bad.command == query
    assert (bad.reply.code, str(bad.reply.status)) == (
        (504, "5.5.4") if query.is_ascii else (553, "5.6.7")
    )
    with pytest.raises(LocalProtocolError):  # not even in a refusal
        pair.server.send(Reply(550, "5.1.1", "é"))
    pair = greeted()
    pair.send(query)
    assert pair.server_events[-1] == query


UTF8_TEXT = "User José <josé@example.com>"


def heard(command: Command, reply: Reply, *first: Command) -> Reply:
    """Let a server answer so, behind what came first; return what the client reads."""
    pair = greeted()
    pair.send(*first)
    pair.policy = lambda server, event: reply
    (read,) = pair.send(command)
    assert isinstance(read, Reply)
    return read


@pytest.mark.rfc(
    "6531 §3.7.4.1 251-and-551-may-hold-utf8",
    "6531 §3.7.4.2 parameter-lets-utf8-into-the-reply",
)
@pytest.mark.parametrize(
    ("first", "command", "code"),
    [
        ((), Vrfy("jo", True), 250),
        ((), Vrfy("jo", True), 553),
        ((), Expn("jo", True), 251),
        ((ASKING,), Rcpt("jo@example.com"), 251),
        ((ASKING,), Rcpt("jo@example.com"), 551),
    ],
)
def test_a_reply_may_hold_utf8_where_it_was_asked_for(
    first: Sequence[Command], command: Command, code: int
) -> None:
    reply = Reply(code, None, [UTF8_TEXT, "and so on"])
    assert heard(command, reply, *first) == reply.with_general_status()
    assert reply.text.startswith(UTF8_TEXT)


@pytest.mark.rfc("6531 §3.7.4.2 no-utf8-in-other-replies", "6531 §3.7.4.2 for-that-command-only")
@pytest.mark.parametrize(
    ("first", "command", "codes"),
    [
        ((), Vrfy("jo"), (250, 251, 252, 550, 553)),
        ((), Expn("é"), (250, 502, 550)),
        ((Mail("a@b"),), Rcpt("jo@example.com"), (251, 551)),
        ((ASKING, Rset(), Mail("a@b")), Rcpt("jo@example.com"), (251, 551)),
        ((ASKING,), Rcpt("jo@example.com"), (250, 550, 553, 421)),
        ((ASKING,), Noop(), (250, 251)),
        ((Vrfy("jo", True),), Noop(), (250, 251)),  # for that command only
        ((), ASKING, (250, 550)),
        ((), Ehlo("c"), (550,)),
    ],
)
def test_nowhere_else(first: Sequence[Command], command: Command, codes: Sequence[int]) -> None:
    pair = greeted()
    pair.send(*first)
    pair.server.receive_data(command.serialize())
    assert pair.server.next_event() == command
    for code in codes:
        with pytest.raises(LocalProtocolError, match="did not ask for"):
            pair.server.send(Reply(code, None, "é"))
    assert pair.server.replies_owed == 1
    refused = b"550 No\r\n" if isinstance(command, Ehlo) else b"550 5.0.0 No\r\n"
    assert pair.server.send(Reply(550, None, "No")) == refused


@pytest.mark.rfc("5321 §4.2 textstring")
@pytest.mark.parametrize(
    "octets",
    [
        b"250 \xff",
        b"250 a\x1b[31m",
        b"250 a\0",
        "250 é".encode(),
        b"250 " + b"x" * 507,
        b"250-a\r\n250 \x7f",
        b"299 a",
        b"560 a",
    ],
)
def test_a_reply_that_was_read_is_not_said_where_it_is_none_of_ours(octets: bytes) -> None:
    relayed = Reply.parse(octets + b"\r\n")
    assert not relayed.is_writable()
    pair = greeted()
    pair.server.receive_data(b"NOOP\r\n")
    assert pair.server.next_event() == Noop()
    with pytest.raises(LocalProtocolError):
        pair.server.send(relayed)
    said = pair.server.send(Reply.parse(b"250-a\tb\r\n250 c\r\n"))
    assert said == b"250-2.0.0 a\tb\r\n250 2.0.0 c\r\n"


@pytest.mark.rfc("6531 §3.7.4.2 parameter-lets-utf8-into-the-reply")
def test_a_reply_that_was_read_is_said_where_utf8_was_asked_for_and_it_is_that() -> None:
    for text, fine in (("é".encode(), True), (b"\xe9", False), ("é\x1b".encode(), False)):
        relayed = Reply.parse(b"250 %b\r\n" % text)
        assert relayed.is_writable(utf8=True) is fine
        pair = greeted()
        pair.server.receive_data(b"VRFY jo SMTPUTF8\r\n")
        assert pair.server.next_event() == Vrfy("jo", True)
        if fine:
            assert pair.server.send(relayed) == b"250 2.0.0 %b\r\n" % text
        else:
            with pytest.raises(LocalProtocolError):
                pair.server.send(relayed)


@pytest.mark.rfc("6531 §3.3 esmtp-value", "6531 §3.1 parameter-opens-the-whole-transaction")
def test_a_value_may_hold_utf8_in_a_transaction_that_asked() -> None:
    recipient = Rcpt("b@c", {"ORCPT": "utf-8;é@c"})
    pair = greeted([*OFFER, DSN])
    pair.send(ASKING)
    (reply,) = pair.send(recipient)
    assert str(reply).startswith("250 2.1.5")
    assert pair.to_server.endswith("RCPT TO:<b@c> ORCPT=utf-8;é@c\r\n".encode())
    read = pair.server_events[-1]
    assert isinstance(read, Rcpt)
    assert read == recipient
    assert ORCPT.of(read.parameters) == OriginalRecipient("utf-8", "é@c")
    pair.send(Rset(), Mail("a@b"))
    with pytest.raises(LocalProtocolError, match="SMTPUTF8"):
        pair.send(recipient)
    pair.server.receive_data(recipient.serialize())
    bad = pair.server.next_event()
    assert isinstance(bad, BadCommand)
    assert (bad.reply.code, str(bad.reply.status)) == (501, "5.5.4")


NO_VALUES = [
    b"\xe9",
    b"\xc3",
    b"\x80",
    b"\xed\xa0\x80",
    b"\xc0\xaf",
    b"a\xff",
    "é=".encode(),
    "é é".encode(),
]


@pytest.mark.parametrize("value", NO_VALUES)
def test_no_values(value: bytes) -> None:
    with pytest.raises(LocalProtocolError):
        Parameters({"X": value})
    with pytest.raises(GrammarError):
        Parameters.parse(b" X=" + value + b" X=1")


@pytest.mark.parametrize(
    ("asked", "parameter"),
    [
        (asked, p)
        for e in STANDARD
        for asked, all_ in ((Mail, e.mail), (Rcpt, e.rcpt))
        for p in all_
    ],
    ids=lambda value: getattr(value, "keyword", ""),
)
def test_values_have_no_look_alikes(asked: type[Command], parameter: Parameter[object]) -> None:
    """Of the values only ORCPT goes beyond ASCII; `str.upper()` makes S of a long s."""
    values = ["HDRſ", "ſUCCESS", "8BıTMIME", "٣", "NEVERſ", "120;ʀ", "２", "é", "FULLé", "utf-８;a"]
    for value in values:
        with pytest.raises(GrammarError):
            parameter.read(value.encode())
