"""RFC 5321 §2.3 and §2.4: what a domain, a line, a mailbox is, and what both ends may write."""

from collections.abc import Callable
from email.message import EmailMessage

import pytest

from smtpproto import (
    STANDARD,
    BadCommand,
    ClientConnection,
    Content,
    Data,
    Ehlo,
    EndOfContent,
    Envelope,
    Expn,
    ForwardPath,
    Helo,
    Help,
    LocalProtocolError,
    Mail,
    Mailbox,
    Noop,
    Quit,
    Rcpt,
    RemoteProtocolError,
    Reply,
    ReversePath,
    Rset,
    ServerConnection,
    State,
    Vrfy,
)
from smtpproto.core.command import parse_command
from smtpproto.extensions import EIGHTBITMIME
from smtpproto.server import Server
from smtpproto.testing.pair import Pair, answer, octet_by_octet
from tests.adapters.world import ENVELOPE, Box, session
from tests.conformance.ends import (
    HELLO,
    MAIL,
    RCPT,
    agreed,
    client_after,
    hear,
    pulled,
    say,
    server_after,
)

DOMAINS = [b"d", b"a.b", b"mx-1.example", b"1.2.example", b"a--b", b"x" * 63 + b".example"]
NO_DOMAINS = [b".", b"a.", b".a", b"a..b", b"-a", b"a-", b"a_b.c", b"a b", b"b\xc3\xbc.de", b"a!b"]


# Domains


@pytest.mark.rfc(
    "5321 §2.3.5 domain-is-labels-joined-by-dots",
    "5321 §2.3.5 labels-have-letters-digits-and-hyphens",
)
@pytest.mark.parametrize("domain", DOMAINS)
def test_a_domain(domain: bytes) -> None:
    assert pulled(HELLO, b"MAIL FROM:<a@%b>" % domain) == (Mail(Mailbox("a", domain)), None)
    assert Rcpt(Mailbox("a", domain)).serialize() == b"RCPT TO:<a@%b>\r\n" % domain
    assert Ehlo(domain).serialize() == b"EHLO %b\r\n" % domain


@pytest.mark.rfc(
    "5321 §2.3.5 domain-is-labels-joined-by-dots",
    "5321 §2.3.5 labels-have-letters-digits-and-hyphens",
    "5321 §2.3.5 ehlo-has-a-name-or-a-literal",
)
@pytest.mark.parametrize("domain", NO_DOMAINS)
def test_no_domain(domain: bytes) -> None:
    _, refusal = pulled(HELLO, b"MAIL FROM:<a@%b>" % domain)
    assert refusal is not None
    for make in (Ehlo, Helo):
        with pytest.raises(LocalProtocolError):
            make(domain)
    client = client_after()
    with pytest.raises(LocalProtocolError):
        client.send(Mail(Mailbox("a", domain)))


@pytest.mark.rfc("5321 §2.3.5 ehlo-has-a-name-or-a-literal")
@pytest.mark.parametrize("name", ["c", "c.example", "[192.0.2.1]", "[IPv6:2001:db8::1]"])
def test_a_client_says_a_name_or_a_literal(name: str) -> None:
    client = ClientConnection()
    hear(client, b"220 mx.example\r\n")
    assert client.send(Ehlo(name)) == f"EHLO {name}\r\n".encode()


@pytest.mark.rfc("5321 §2.3.5 postmaster-needs-no-domain")
def test_postmaster_is_written_and_read_without_a_domain() -> None:
    pair = Pair()
    for command in (Ehlo("c.example"), Mail(None), Rcpt("Postmaster")):
        (reply,) = pair.send(command)
        assert str(reply).startswith("250")
    assert pair.to_server.endswith(b"RCPT TO:<Postmaster>\r\n")
    assert pair.server.envelope == Envelope(None, ["Postmaster"])


# Lines and replies


@pytest.mark.rfc(
    "5321 §2.3.7 commands-and-content-are-lines",
    "5321 §2.3.7 replies-are-lines",
    "5321 §2.3.8 lines-end-with-crlf",
)
def test_all_that_passes_is_lines() -> None:
    pair = Pair(cut=octet_by_octet)
    for command in (Ehlo("c.example"), Mail("a@b"), Rcpt("c@d"), Data()):
        pair.send(command)
    pair.send(Content(b"one\r\n\r\nno end"), EndOfContent())
    pair.send(Quit())
    assert pair.to_server.split(b"\r\n") == [
        b"EHLO c.example", b"MAIL FROM:<a@b>", b"RCPT TO:<c@d>", b"DATA", b"one", b"", b"no end",
        b".", b"QUIT", b"",
    ]  # fmt: skip
    *lines, last = pair.to_client.split(b"\r\n")
    assert last == b""
    assert all(line[:3].isdigit() and line[3:4] in b" -" for line in lines)
    assert len(lines) > len(pair.client_events) - 1  # that to EHLO has several


@pytest.mark.rfc("5321 §2.3.8 nothing-else-is-taken-for-a-line-end")
@pytest.mark.parametrize("no_end", [b"\n", b"\r", b"\0", b"\x0b", b"\x85", b"\n\r"])
def test_nothing_else_ends_a_line(no_end: bytes) -> None:
    server, client = server_after(), client_after()
    assert say(server, b"NOOP" + no_end) == b""
    assert say(server, b"NOOP\r\n")[:3] == b"500"  # it was one line
    client.send(Noop())
    assert hear(client, b"250 ok" + no_end) == []
    if no_end in (b"\0", b"\x0b", b"\x85"):
        assert len(hear(client, b"\r\n")) == 1
    else:
        with pytest.raises(RemoteProtocolError):
            hear(client, b"250 ok\r\n")


@pytest.mark.rfc("5321 §2.3.8 nothing-else-is-written-as-a-line-end")
@pytest.mark.parametrize("octet", ["\r", "\n", "\0"])
def test_nothing_else_is_written_as_a_line_end(octet: str) -> None:
    text = f"a{octet}b"
    for make in (Noop, Vrfy, Expn, Help, Ehlo, Helo, Mail, Rcpt):
        with pytest.raises(LocalProtocolError):
            make(text)
    for value in (text, [text], ["x", text]):
        with pytest.raises(LocalProtocolError):
            Reply(250, None, value)
    wire = Reply(250, None, ["a", "b"]).serialize() + Noop("a").serialize()
    assert wire.count(b"\r") == wire.count(b"\n") == wire.count(b"\r\n") == 3


@pytest.mark.rfc("5321 §2.3.8 server-may-limit-lines")
def test_a_line_that_is_too_long_is_refused_and_that_is_heard() -> None:
    server, client = server_after(HELLO), client_after()
    refused = say(server, b"NOOP " + b"x" * 600 + b"\r\n")
    assert refused.startswith(b"500")
    assert say(server, b"NOOP\r\n").startswith(b"250")
    client.send(Noop("x"))
    assert [reply.code for reply in hear(client, refused)] == [500]
    client.send(Noop())


@pytest.mark.rfc(
    "5321 §2.3.7 a-reply-is-a-code-and-perhaps-text", "5321 §2.4 replies-begin-with-three-digits"
)
@pytest.mark.parametrize("text", [b"", b" ", b" ok", b" 550 no", b" \xff"])
def test_a_reply_is_a_code_and_perhaps_text(text: bytes) -> None:
    client = client_after()
    client.send(Noop())
    (reply,) = hear(client, b"250%b\r\n" % text)
    assert (reply.code, reply.lines) == (250, (text[1:],))
    assert Reply(250).serialize().startswith(b"250")


@pytest.mark.rfc("5321 §2.4 replies-begin-with-three-digits")
@pytest.mark.parametrize(
    "line", [b"", b"ok", b"25 ok", b"2500 ok", b"25O ok", b" 250 ok", b"650 x"]
)
def test_what_does_not_begin_with_three_digits_is_no_reply(line: bytes) -> None:
    client = client_after()
    client.send(Noop())
    with pytest.raises(RemoteProtocolError):
        hear(client, line + b"\r\n")
    for code in (0, 25, 99, 650, 2500):
        with pytest.raises(LocalProtocolError):
            Reply(code)


@pytest.mark.rfc("5321 §2.3.7 programs-go-by-the-code")
@pytest.mark.parametrize("text", ["ok", "550 5.1.1 rejected", "421 closing", "354 go ahead"])
def test_whatever_the_text_says_the_code_decides(text: str) -> None:
    for code, state in ((250, State.RCPT), (550, State.MAIL), (451, State.MAIL)):
        client = client_after()
        agreed(client, Mail("a@b"))
        client.send(Rcpt("c@d"))
        hear(client, f"{code} {text}\r\n".encode())
        assert client.state is state


# Mailboxes

LOCAL_PARTS = [
    b"a",
    b"a.b+c",
    b"v%other.example",
    b"other.example!v",
    b"/dev/null",
    b'"a@b"',
    b'"|x y"',
]


@pytest.mark.rfc(
    "5321 §2.3.11 a-mailbox-is-local-part-at-domain",
    "5321 §2.3.11 local-parts-mean-nothing-on-the-way",
    "5321 §2.4 case-of-local-parts-is-kept",
)
@pytest.mark.parametrize("local_part", [*LOCAL_PARTS, b"Smith", b"sMITH", b'"Odd Name"'])
def test_a_local_part_passes_as_it_is(local_part: bytes) -> None:
    path = b"<%b@D.Example>" % local_part
    mail, rcpt = ReversePath.read(path)[0], ForwardPath.read(path)[0]
    pair = Pair()
    for command in (Ehlo("c"), Mail(mail), Rcpt(rcpt)):
        pair.send(command)
    assert pair.to_server.endswith(b"MAIL FROM:%b\r\nRCPT TO:%b\r\n" % (path, path))
    assert pair.server.envelope is not None
    (forward_path,) = pair.server.envelope.forward_paths
    assert pair.server.envelope.reverse_path == mail
    assert (forward_path, forward_path.serialize()) == (rcpt, path)
    assert forward_path.mailbox.domain == b"D.Example"


@pytest.mark.rfc("5321 §2.3.11 a-mailbox-is-local-part-at-domain")
@pytest.mark.parametrize("text", ["a", "@d", "a@", "a@@d", "a d", "a@d@e", "a b@d"])
def test_what_is_no_local_part_at_a_domain_is_no_mailbox(text: str) -> None:
    _, refusal = pulled(HELLO, b"MAIL FROM:<%b>" % text.encode())
    assert refusal is not None
    assert refusal.code == 501
    with pytest.raises(LocalProtocolError):
        Mail(text)


@pytest.mark.rfc("5321 §2.4 local-parts-differ-by-case", "5321 §2.4 domains-do-not-differ-by-case")
def test_local_parts_differ_by_case_and_domains_do_not() -> None:
    smith = Mailbox.parse("smith@d.example")
    assert smith != Mailbox.parse("Smith@d.example")
    assert smith == Mailbox.parse("smith@D.EXAMPLE")
    server = server_after(MAIL)
    say(server, b"RCPT TO:<smith@d.example>\r\nRCPT TO:<Smith@d.example>\r\n")
    assert server.envelope is not None
    first, second = server.envelope.forward_paths
    assert first != second
    assert Rcpt("smith@d.example") == Rcpt("smith@D.example") != Rcpt("Smith@d.example")


# Commands


@pytest.mark.rfc("5321 §2.4 commands-begin-with-a-verb")
def test_a_command_begins_with_a_verb() -> None:
    for command in (Ehlo("c"), Mail("a@b"), Rcpt("a@b"), Data(), Rset(), Noop("x"), Quit()):
        assert command.serialize()[:4] == command.verb
        assert parse_command(command.serialize()[:-2], {command.verb: type(command)}) == command
    for line in (b"", b" NOOP", b"FROM:<a@b>", b"250 ok", b"<a@b>", b"NOOP:", b"\tNOOP"):
        assert say(server_after(HELLO), line + b"\r\n").startswith(b"500")


@pytest.mark.rfc("5321 §2.4 some-commands-have-arguments", "5321 §2.4 space-before-the-text")
def test_arguments_and_text_stand_behind_a_space() -> None:
    for line in (b"EHLO", b"HELO", b"MAIL", b"RCPT", b"VRFY"):
        assert say(server_after(MAIL), line + b"\r\n").startswith(b"501")
    for line in (b"DATA x", b"RSET x", b"QUIT x"):
        assert say(server_after(RCPT), line + b"\r\n").startswith(b"501")
    assert say(server_after(), b"EHLO:c\r\n").startswith(b"500")
    for make in (Ehlo, Helo, Vrfy, Expn):
        with pytest.raises(LocalProtocolError):
            make("")
    assert Ehlo("c").serialize() == b"EHLO c\r\n"
    assert [c.serialize() for c in (Data(), Rset(), Quit())] == [
        b"DATA\r\n", b"RSET\r\n", b"QUIT\r\n",
    ]  # fmt: skip
    assert Reply(250, None, "ok").serialize() == b"250 ok\r\n"
    client = client_after()
    client.send(Noop())
    with pytest.raises(RemoteProtocolError):
        hear(client, b"250ok\r\n")


@pytest.mark.rfc("5321 §2.4 case-does-not-matter")
@pytest.mark.parametrize("case", [bytes.upper, bytes.lower, bytes.title])
def test_case_does_not_matter(case: Callable[[bytes], bytes]) -> None:
    assert pulled(b"", case(b"EHLO c.example")) == (Ehlo(case(b"c.example")), None)
    sized = b" %b=8BITMIME" % case(b"body")
    command, refusal = pulled(HELLO, case(b"MAIL FROM:") + b"<a@b>" + sized)
    assert (command, refusal) == (Mail("a@b", {"BODY": "8BITMIME"}), None)
    assert pulled(HELLO, b"MAIL FROM:<a@b> BODY=" + case(b"8BITMIME"))[1] is None
    assert pulled(MAIL, case(b"RCPT TO:") + b"<a@b>") == (Rcpt("a@b"), None)
    assert pulled(RCPT, case(b"DATA")) == (Data(), None)
    client = client_after(b"250-%b\r\n250 %b\r\n" % (case(b"mx.example"), case(b"8bitmime")))
    client.send(Mail("a@b", {"BODY": "8BITMIME"}))
    assert [reply.code for reply in hear(client, b"250 " + case(b"sender ok") + b"\r\n")] == [250]


@pytest.mark.rfc("5321 §2.4 client-may-write-verbs-in-upper-case")
def test_a_client_writes_verbs_in_upper_case() -> None:
    for command in (Ehlo("c"), Helo("c"), Mail("a@b"), Rcpt("a@b"), Data(), Rset(), Quit()):
        head = command.serialize().partition(b"<")[0].removesuffix(b" c\r\n")
        assert head == head.upper()


@pytest.mark.rfc("5321 §2.4 nothing-happens-before-the-line-end")
@pytest.mark.parametrize(
    ("before", "line"),
    [(b"", b"EHLO c"), (HELLO, b"MAIL FROM:<a@b>"), (RCPT, b"RSET"), (RCPT, b"DATA"), (b"", b"X")],
)
def test_nothing_happens_before_the_line_end(before: bytes, line: bytes) -> None:
    server = server_after(before)
    kept = server.state, server.envelope
    for octet in octet_by_octet(line + b"\r"):
        server.receive_data(octet)
        assert answer(server) == ([], b"")
    assert (server.state, server.envelope) == kept
    assert say(server, b"\n") != b""


# What goes beyond ASCII


@pytest.mark.rfc("5321 §2.4 commands-and-replies-are-ascii")
def test_commands_and_replies_are_ascii() -> None:
    for make in (Noop, Help, Ehlo, Helo):
        with pytest.raises(LocalProtocolError):
            make("é")
    server = server_after(HELLO)
    server.receive_data(b"NOOP\r\n")
    server.next_event()
    with pytest.raises(LocalProtocolError):
        server.send(Reply(250, None, "é"))
    assert server.send(Reply(250, None, "e")).isascii()


@pytest.mark.rfc(
    "5321 §2.4 client-writes-ascii-addresses", "5321 §2.4 8bitmime-is-not-for-addresses"
)
@pytest.mark.parametrize("offer", [b"250 mx\r\n", b"250-mx\r\n250 8BITMIME\r\n"])
def test_a_client_sends_no_address_beyond_ascii(offer: bytes) -> None:
    asks = {"BODY": "8BITMIME"} if b"8BIT" in offer else {}
    client = client_after(offer)
    for mail in (Mail("é@b", asks), Mail("a@é.example", asks)):
        with pytest.raises(LocalProtocolError):
            client.send(mail)
    agreed(client, Mail("a@b", asks))
    with pytest.raises(LocalProtocolError):
        client.send(Rcpt("é@b"))


@pytest.mark.rfc(
    "5321 §2.4 server-refuses-commands-beyond-ascii", "5321 §2.4 8bitmime-is-not-for-addresses"
)
@pytest.mark.parametrize(
    ("before", "line"),
    [
        (b"", "NOÖP"),
        (b"", "NOOP é"),
        (b"", "EHLO é.example"),
        (HELLO, "MAIL FROM:<é@b>"),
        (HELLO, "MAIL FROM:<é@b> BODY=8BITMIME"),
        (HELLO, "MAIL FROM:<a@b> BODY=é"),
        (MAIL, "RCPT TO:<é@b>"),
        (HELLO, "VRFY é"),
    ],
)
def test_a_command_beyond_ascii_is_refused_and_moves_nothing(before: bytes, line: str) -> None:
    for octets in (line.encode(), line.encode("latin-1")):
        server = ServerConnection("mx.example", STANDARD, offer=[EIGHTBITMIME])
        answer(server)
        say(server, before)
        state = server.state
        server.receive_data(octets + b"\r\n")
        bad = server.next_event()
        assert isinstance(bad, BadCommand)
        assert bad.reply.code >= 500
        with pytest.raises(LocalProtocolError):
            server.send(Reply(250))
        server.send(bad.reply)
        assert server.state is state


@pytest.mark.rfc(
    "5321 §2.4 server-may-refuse-8-bit-content",
    "5321 §2.4 server-may-refuse-8-bit-content-that-is-no-mime",
)
@pytest.mark.parametrize("asks", [{}, {"BODY": "8BITMIME"}])
def test_8_bit_content_may_be_refused_and_that_is_heard(asks: dict[str, str]) -> None:
    pair = Pair(
        client=ClientConnection(STANDARD, any_octets=True),
        policy=lambda server, event: (
            Reply(554, "5.6.0", "Octets over 127")
            if isinstance(event, EndOfContent)
            else server.suggested_reply()
        ),
    )
    for command in (Ehlo("c"), Mail("a@b", asks), Rcpt("c@d"), Data()):
        pair.send(command)
    replies = pair.send(Content(b"\xff\r\n"), EndOfContent())
    assert replies == [Reply(554, "5.6.0", "Octets over 127")]
    assert pair.client.state is pair.server.state is State.READY


@pytest.mark.rfc("5321 §2.4 server-supports-8bitmime", "5321 §2.4 client-may-ask-for-8-bit-content")
def test_8bitmime_is_offered_and_asked_for() -> None:
    pair = Pair()
    pair.send(Ehlo("c"))
    assert "8BITMIME" in pair.client.offered
    pair.send(Mail("a@b", {"BODY": "8BITMIME"}), Rcpt("c@d"), Data())
    pair.send(Content(b"\xff\r\n"), EndOfContent())
    assert Content(b"\xff\r\n") in pair.server_events
    assert str(pair.client_events[-1]).startswith("250")


@pytest.mark.rfc("5321 §2.4 8bitmime-does-not-permit-everything")
@pytest.mark.parametrize("octets", [b"\xff\n", b"\xff\r\xff", b"\n\xff\r\n"])
def test_8bitmime_does_not_permit_what_is_no_lines(octets: bytes) -> None:
    client = client_after(b"250-mx.example\r\n250 8BITMIME\r\n")
    agreed(client, Mail("a@b", {"BODY": "8BITMIME"}), Rcpt("c@d"), Data())
    with pytest.raises(LocalProtocolError):
        client.send(Content(octets))


def letter() -> EmailMessage:
    message = EmailMessage()
    message["From"] = "Jürgen <ann@example.org>"
    message["Subject"] = "Grüße"
    message.set_content("Grüße aus Köln\n", cte="8bit")
    return message


@pytest.mark.anyio
@pytest.mark.rfc("5321 §2.3.1 header-is-ascii", "5321 §2.4 8-bit-messages-of-ours-are-mime")
async def test_a_message_of_ours_has_an_ascii_header_that_tells_of_its_8_bit_body() -> None:
    box = Box()
    async with session(Server(box)) as client:
        assert "8BITMIME" in client.offered
        await client.send(ENVELOPE, letter())
    (received,) = box.received
    assert received.envelope.mail.parameters["BODY"] == b"8BITMIME"
    header, _, body = received.content.partition(b"\r\n\r\n")
    assert header.isascii()
    assert body == "Grüße aus Köln\r\n".encode()
    fields = header.lower().split(b"\r\n")
    assert b"mime-version: 1.0" in fields
    assert b"content-transfer-encoding: 8bit" in fields
    assert b'content-type: text/plain; charset="utf-8"' in fields
