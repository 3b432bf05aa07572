"""RFC 1870: the size of a message, as a client declares and a server limits it."""

from pathlib import Path

import pytest
from attrs import evolve

from smtpproto import (
    NEED_DATA,
    STANDARD,
    ClientConnection,
    Content,
    Data,
    Ehlo,
    EndOfContent,
    Envelope,
    Extension,
    Limits,
    LocalProtocolError,
    Mail,
    Parameter,
    Parameters,
    Quit,
    Rcpt,
    Reply,
    Rset,
    ServerConnection,
    State,
)
from smtpproto.core.content import DotWriter
from smtpproto.core.server_connection import ServerEvent
from smtpproto.extensions import EXPN, HELP, SIZE
from smtpproto.extensions.size import SIZE_OCTETS
from smtpproto.relay.reports.story import Deferred, Delivered, Failed, Reported
from smtpproto.result import Fate, Transaction
from smtpproto.source import source
from smtpproto.testing import play_client, play_server, suggested
from smtpproto.testing.pair import answer
from tests.conformance.ends import HELLO, agreed, client_after, hear, pulled, say, saying
from tests.relay.world import world

OFFERED = b"250-mx.example\r\n250 SIZE 1000\r\n"


def limited(octets: bytes = HELLO, limit: int | None = 1000) -> ServerConnection:
    """A server of this limit that has answered `octets` well."""
    server = ServerConnection("mx.example", (SIZE,), limits=Limits(message=limit))
    answer(server)
    say(server, octets)
    return server


def declared(size: bytes) -> bytes:
    return HELLO + b"MAIL FROM:<a@b> SIZE=%b\r\nRCPT TO:<c@d>\r\nDATA\r\n" % size


# The offer


@pytest.mark.rfc(
    "1870 §3 keyword-is-size",
    "1870 §3 argument-is-the-largest-message",
    "1870 §3 size-param",
    "1870 §3 0-says-no-limit",
    "1870 §5 limit-may-be-chosen",
    "1870 §7 server-may-only-tell-its-limit",
    "1870 §7 bare-keyword-wants-a-look-at-the-room",
)
@pytest.mark.parametrize(
    ("limit", "line"), [(1, b"SIZE 1"), (26_214_400, b"SIZE 26214400"), (None, b"SIZE 0")]
)
def test_a_server_tells_its_limit(limit: int | None, line: bytes) -> None:
    ehlo = say(limited(b"", limit), HELLO)
    assert ehlo.endswith(b"\r\n250 " + line + b"\r\n")


@pytest.mark.rfc("1870 §3 no-verb-is-added")
def test_size_is_no_command() -> None:
    assert not SIZE.verbs
    assert say(limited(), b"SIZE 10\r\n").startswith(b"500")


@pytest.mark.rfc(
    "1870 §3 size-param",
    "1870 §3 0-says-no-limit",
    "1870 §3 no-argument-says-nothing",
    "1870 §4 argument-is-what-the-server-takes",
    "1870 §7 argument-is-optional",
    "1870 §7 no-argument-tells-no-limit",
)
@pytest.mark.parametrize(
    ("line", "limit"),
    [
        (b"SIZE 1000", 1000),
        (b"SIZE 0001000", 1000),
        (b"size 1", 1),
        (b"SIZE 0", None),
        (b"SIZE 000", None),
        (b"SIZE", None),
        # No size-param; of what it means nothing is known.
        (b"SIZE -1", None),
        (b"SIZE 1k", None),
        (b"SIZE 1_0", None),
        (b"SIZE 10 10", None),
    ],
)
def test_a_client_declares_what_the_argument_lets_it(line: bytes, limit: int | None) -> None:
    most = 10**20 - 1 if limit is None else limit
    client = client_after(b"250-mx.example\r\n250 " + line + b"\r\n")
    if limit is not None:
        with pytest.raises(LocalProtocolError, match="exceeds"):
            client.send(Mail("a@b", SIZE_OCTETS(limit + 1)))
    assert client.send(Mail("a@b", SIZE_OCTETS(most))) == b"MAIL FROM:<a@b> SIZE=%d\r\n" % most


@pytest.mark.rfc("1870 §4 offer-is-in-a-250-to-ehlo", "1870 §4 client-may-declare")
@pytest.mark.parametrize(
    "said", [b"250 mx\r\n", b"250-mx\r\n250 8BITMIME\r\n", b"250 SIZE 10\r\n", b"550 SIZE\r\n"]
)
def test_where_it_is_not_offered_nothing_is_declared(said: bytes) -> None:
    """The first line of the reply is a greeting, whatever it says."""
    client = client_after(said)
    if said.startswith(b"250"):
        assert client.send(Mail("a@b")) == b"MAIL FROM:<a@b>\r\n"
        client = client_after(said)
    with pytest.raises(LocalProtocolError):
        client.send(Mail("a@b", SIZE_OCTETS(1)))


# The parameter


@pytest.mark.rfc(
    "1870 §3 size-is-a-parameter-of-mail",
    "1870 §4 extended-mail-is-taken",
    "1870 §4 client-may-declare",
    "1870 §6 size-stands-behind-the-address",
    "1870 §6 keyword-and-value-of-the-parameter",
    "1870 §6 value-counts-octets-in-decimal",
)
def test_size_is_a_parameter_of_mail() -> None:
    mail = Mail("ned@thor.example", SIZE_OCTETS(500))
    wire = client_after(OFFERED).send(mail)
    assert wire == b"MAIL FROM:<ned@thor.example> SIZE=500\r\n"
    for line in (wire, wire.replace(b"SIZE", b"sIzE")):
        assert pulled(HELLO, line.removesuffix(b"\r\n")) == (mail, None)
        assert say(limited(), line).startswith(b"250")
    read, _ = pulled(HELLO, b"MAIL FROM:<a@b> SIZE=0500")
    assert isinstance(read, Mail)
    assert SIZE_OCTETS.of(read.parameters) == 500


@pytest.mark.rfc("1870 §3 size-is-a-parameter-of-mail")
def test_size_is_no_parameter_of_rcpt() -> None:
    server = limited(HELLO + b"MAIL FROM:<a@b>\r\n")
    assert say(server, b"RCPT TO:<c@d> SIZE=1\r\n").startswith(b"555")
    client = client_after(OFFERED)
    agreed(client, Mail("a@b"))
    with pytest.raises(LocalProtocolError):
        client.send(Rcpt("c@d", SIZE_OCTETS(1)))


@pytest.mark.rfc("1870 §3 size-value")
@pytest.mark.parametrize("value", [b"0", b"1", b"0" * 19 + b"1", b"9" * 20])
def test_size_value_accepts(value: bytes) -> None:
    assert say(limited(limit=None), b"MAIL FROM:<a@b> SIZE=%b\r\n" % value).startswith(b"250")
    assert SIZE_OCTETS.of(Parameters({"SIZE": value})) == int(value)
    client = client_after(b"250-mx.example\r\n250 SIZE\r\n")
    assert client.send(Mail("a@b", {"SIZE": value})).endswith(b" SIZE=" + value + b"\r\n")


@pytest.mark.rfc("1870 §3 size-value")
@pytest.mark.parametrize(
    "value",
    [b"", b"=", b"=-1", b"=+1", b"=1.0", b"=1_0", b"=0x1", b"=1k", b"=\xd9\xa3", b"=" + b"0" * 21],
)
def test_size_value_refuses(value: bytes) -> None:
    said = say(limited(limit=None), b"MAIL FROM:<a@b> SIZE" + value + b"\r\n")
    assert said.startswith(b"501")
    client = client_after(b"250-mx.example\r\n250 SIZE\r\n")
    with pytest.raises(LocalProtocolError):
        client.send(Mail("a@b", {"SIZE": value[1:] or None}))


@pytest.mark.rfc("1870 §6 one-size-parameter")
def test_one_size_at_most() -> None:
    assert say(limited(), b"MAIL FROM:<a@b> SIZE=1 size=1\r\n").startswith(b"501")
    wire = client_after(OFFERED).send(Mail("a@b", SIZE_OCTETS(1) | SIZE_OCTETS(2)))
    assert wire == b"MAIL FROM:<a@b> SIZE=2\r\n"


PAD = Parameter("XPAD", lambda value: value or b"", lambda value: value)


@pytest.mark.rfc("1870 §3 mail-line-is-26-longer")
@pytest.mark.parametrize("size_is_offered", [True, False])
def test_a_mail_line_has_room_for_size(size_is_offered: bool) -> None:
    """The rest of the line takes all 512 octets by itself."""
    extensions = (Extension("XPAD", mail=(PAD,)), *([SIZE] if size_is_offered else []))
    longest = 512 + 26 * size_is_offered
    for surplus in (0, 1):
        server = ServerConnection("mx.example", extensions)
        answer(server)
        client = ClientConnection(extensions)
        hear(client, b"220 mx.example\r\n")
        hear(client, say(server, client.send(Ehlo("c.example"))))
        size = SIZE_OCTETS(1) if size_is_offered else {}
        pad = longest + surplus - len(Mail("a@b", size | {"XPAD": "x"}).serialize()) + 1
        mail = Mail("a@b", size | {"XPAD": "x" * pad})
        line = mail.serialize()
        assert len(line) == longest + surplus
        assert say(server, line).startswith(b"500" if surplus else b"250")
        if surplus:
            with pytest.raises(LocalProtocolError, match="octets"):
                client.send(mail)
        else:
            assert client.send(mail) == line


# The limit


@pytest.mark.rfc(
    "1870 §4 declared-content-is-refused-at-once",
    "1870 §6.1 declared-size-is-held-against-the-limit",
    "1870 §6.1 552-where-it-is-over-the-limit",
    "1870 §7 server-takes-the-parameter-and-refuses-what-is-over",
)
@pytest.mark.parametrize(
    ("limit", "size", "code"),
    [
        (1000, b"0", b"250"),
        (1000, b"1000", b"250"),
        (1000, b"1001", b"552"),
        (1000, b"9" * 20, b"552"),
        (None, b"9" * 20, b"250"),
    ],
)
def test_a_declared_size_is_held_against_the_limit(
    limit: int | None, size: bytes, code: bytes
) -> None:
    server = limited(limit=limit)
    assert say(server, b"MAIL FROM:<a@b> SIZE=%b\r\n" % size).startswith(code)
    assert server.state is (State.MAIL if code == b"250" else State.READY)


# 8 octets a line, 9 with the dot that is stuffed in front.
DOTTED = b".dotted\r\n" * 125
assert len(DOTTED) == 1125


@pytest.mark.rfc(
    "1870 §4 server-may-have-a-limit",
    "1870 §4 larger-content-fails",
    "1870 §4 larger-content-gets-552",
    "1870 §5 size-counts-line-ends-and-no-dots-of-transport",
    "1870 §5 limit-is-the-largest-size-ever-taken",
)
@pytest.mark.parametrize("limit", [1124, 1125, None])
def test_content_is_counted_without_the_dots_of_transport(limit: int | None) -> None:
    server = limited(declared(b"1"), limit)
    over = limit == 1124
    wire = DOTTED.replace(b".", b"..") + b".\r\n"
    for _ in range(2):  # not this time alone
        server.receive_data(wire)
        while isinstance(event := server.next_event(), Content):
            pass
        assert isinstance(event, EndOfContent)
        assert event.octets == len(DOTTED)
        verdict = server.suggested_reply()
        assert verdict.code == (552 if over else 250)
        if over:
            with pytest.raises(LocalProtocolError):
                server.send(Reply(250))
        server.send(verdict)
        say(server, declared(b"1"))


@pytest.mark.rfc("1870 §6.3 no-552-for-what-was-agreed-to")
@pytest.mark.parametrize("size", [0, 2, 999, 1000])
def test_what_keeps_to_the_size_agreed_to_is_taken(size: int) -> None:
    server = limited(declared(b"%d" % size))
    content = b"x" * (size - 2) + b"\r\n" if size else b""
    assert say(server, content + b".\r\n").startswith(b"250")


@pytest.mark.rfc(
    "1870 §6 size-ends-no-content",
    "1870 §6.1 more-than-declared-may-be-taken",
    "1870 §6.3 somewhat-more-may-be-taken",
)
@pytest.mark.parametrize("size", [b"0", b"3", b"5", b"1000"])
def test_only_the_final_dot_ends_the_content(size: bytes) -> None:
    server = limited(declared(size))
    content = b"five\r\nand more\r\n"
    for at in range(len(content)):
        assert say(server, content[at : at + 1]) == b""
        assert server.next_event() is NEED_DATA
    assert say(server, b".\r\n").startswith(b"250")


@pytest.mark.rfc("1870 §6.3 less-declared-assures-nothing")
def test_more_than_the_limit_is_refused_though_less_was_declared() -> None:
    server = limited(declared(b"5"))
    assert say(server, b"x" * 1001 + b"\r\n.\r\n").startswith(b"552")
    assert server.state is State.READY


# The answer to MAIL


@pytest.mark.rfc("1870 §6.1 mail-fails-as-it-always-could")
@pytest.mark.parametrize("code", [451, 452, 455, 503, 550, 552, 553, 555])
def test_mail_fails_as_it_always_could(code: int) -> None:
    server, client = limited(), client_after(OFFERED)
    refusal = Reply(code, None, "no")
    said = say(server, client.send(Mail("a@b", SIZE_OCTETS(500))), saying(refusal))
    assert hear(client, said) == [refusal]
    assert server.state is client.state is State.READY
    assert client.send(Rset()) == b"RSET\r\n"
    hear(client, say(server, b"RSET\r\n"))
    assert client.send(Quit()) == b"QUIT\r\n"


@pytest.mark.rfc(
    "1870 §4 server-may-refuse-what-would-fail",
    "1870 §6.1 room-may-be-looked-for",
    "1870 §6.1 452-where-there-is-no-room-now",
)
def test_policy_sees_the_size_and_may_say_452() -> None:
    def with_room_for_500(server: ServerConnection, event: ServerEvent | None) -> Reply:
        if isinstance(event, Mail) and (SIZE_OCTETS.of(event.parameters) or 0) > 500:
            return Reply(452, "4.3.1", "Insufficient system storage")
        return suggested(server, event)

    server = limited()
    for size, code in ((501, b"452 "), (500, b"250 ")):
        line = b"MAIL FROM:<a@b> SIZE=%d\r\n" % size
        assert say(server, line, with_room_for_500).startswith(code)


@pytest.mark.rfc("1870 §7 client-need-not-declare")
def test_mail_needs_no_size() -> None:
    assert client_after(OFFERED).send(Mail("a@b")) == b"MAIL FROM:<a@b>\r\n"
    assert say(limited(), b"MAIL FROM:<a@b>\r\n").startswith(b"250")


# Refusals behind MAIL


@pytest.mark.rfc("1870 §6.2 agreement-to-mail-is-no-promise", "1870 §4 full-store-fails-for-now")
@pytest.mark.parametrize(("code", "fate"), [(452, Fate.TRANSIENT), (552, Fate.PERMANENT)])
@pytest.mark.parametrize("at_data", [True, False])
def test_what_was_granted_may_still_fail(at_data: bool, code: int, fate: Fate) -> None:
    mail, rcpt = Mail("a@b", SIZE_OCTETS(500)), Rcpt("c@d")
    server, client = limited(), client_after(OFFERED)
    replies = [*hear(client, say(server, client.send(mail)))]
    replies += hear(client, say(server, client.send(rcpt)))
    transaction = Transaction(Envelope(mail, [rcpt]))
    refusal = Reply(code, None, "no room")
    if at_data:
        said = say(server, client.send(Data()), saying(refusal))
        transaction.heard(0, replies[-1])
        transaction.settle(*hear(client, said))
        assert client.state is server.state is State.RCPT
    else:
        hear(client, say(server, client.send(Data())))
        said = say(server, client.send(EndOfContent()), saying(refusal))
        transaction.settle(*hear(client, said))
        assert client.state is server.state is State.READY
    assert [outcome.fate for outcome in transaction.result().outcomes] == [fate]
    assert client.send(Rset()) == b"RSET\r\n"


EXAMPLE = """
S: 220 sigurd.example ESMTP
C: EHLO ymir.example
S: 250-sigurd.example greets ymir.example
S: 250-SIZE 1000000
S: 250-HELP
S: 250 EXPN
C: MAIL FROM:<ned@thor.example> SIZE=500000
S: 250 Sender ok
C: RCPT TO:<ned@innosoft.example>
S: 250 Recipient ok
C: RCPT TO:<ned@ymir.example>
S: 552 Too large for this channel
C: RCPT TO:<ned@hmcvax.example>
S: 452 No room in this channel
C: DATA
S: 354 ...
C: not so long
C: .
S: 250 Message accepted
C: QUIT
S: 221 sigurd.example Closing connection
-- CLOSED
"""


@pytest.mark.rfc("1870 §6.4 recipient-may-be-refused-for-the-size")
def test_recipients_may_be_refused_for_the_size() -> None:
    def channels(server: ServerConnection, event: ServerEvent | None) -> Reply:
        if isinstance(event, Rcpt) and b"@ymir" in event.serialize():
            return Reply(552, None, "Too large for this channel")
        if isinstance(event, Rcpt) and b"@hmcvax" in event.serialize():
            return Reply(452, None, "No room in this channel")
        return suggested(server, event)

    extensions = (SIZE, HELP, evolve(EXPN, obliges=""))
    server = ServerConnection("sigurd.example", extensions, limits=Limits(message=1_000_000))
    play_server(EXAMPLE, server, policy=channels)
    client = ClientConnection(STANDARD)
    play_client(EXAMPLE.replace("S: 354 ...", "S: 354 go"), client)
    assert client.offered["SIZE"] == "1000000"


# What a relay makes of it


@pytest.mark.anyio
@pytest.mark.rfc(
    "1870 §6.2 mail-refused-for-now-is-tried-again", "1870 §6.4 452-to-rcpt-may-be-tried-again"
)
@pytest.mark.parametrize("verb", ["MAIL", "RCPT"])
async def test_mail_refused_with_452_is_tried_again(verb: str, tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example", {verb: "452 4.3.1 no room"})
        node = await w.node("relay.example")
        await node.send("ann@our.dom", ["v@ext.example"])
        (deferred,) = await node.until(Deferred)
        assert deferred.reply == "452 4.3.1 no room"
        host.says.clear()
        w.move(600)
        await node.until(Delivered)
        assert host.accepted == [["RCPT TO:<v@ext.example>"]]


@pytest.mark.anyio
@pytest.mark.rfc("1870 §6.2 mail-refused-for-ever-is-reported")
async def test_mail_refused_with_552_is_reported(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.host("mx.ext.example", "ext.example", {"MAIL": "552 5.3.4 too large"})
        node = await w.node("relay.example")
        await node.send("ann@our.dom", ["v@ext.example"])
        await node.until(Reported)
        (failed,) = node.told(Failed)
        assert failed.reply == "552 5.3.4 too large"
        await node.until(Delivered)
        (report,) = node.mail("ann@our.dom")
        assert b"552 5.3.4 too large" in report


@pytest.mark.anyio
@pytest.mark.rfc("1870 §6 declared-size-is-the-true-one")
@pytest.mark.parametrize("content", [b"", b"x", b"x\r\n", b".\r\n.", b"\r\n"])
async def test_what_is_declared_is_what_is_sent(content: bytes) -> None:
    made = await source(content, eight_bit_offered=True)
    writer, server = DotWriter(), limited(declared(b"%d" % (made.octets or 0)))
    server.receive_data(writer.feed(content) + writer.finish())
    while isinstance(event := server.next_event(), Content):
        pass
    assert event == EndOfContent(made.octets or 0)


@pytest.mark.rfc("1870 §6.4 552-to-rcpt-is-for-ever")
@pytest.mark.parametrize(
    ("status", "fate"),
    [("5.3.4", Fate.PERMANENT), ("5.2.3", Fate.PERMANENT), ("5.5.3", Fate.TRANSIENT)],
)
def test_552_to_rcpt_means_what_its_status_says(status: str, fate: Fate) -> None:
    transaction = Transaction(Envelope("a@b", ["c@d"]))
    transaction.heard(0, Reply(552, status))
    [outcome] = transaction.result().outcomes
    assert outcome.fate is fate
