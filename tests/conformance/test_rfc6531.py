"""RFC 6531: who may say what beyond ASCII, and when (§3.1, §3.2, §3.4 to §3.7.1)."""

import pytest
from attrs import evolve

from smtpproto import (
    STANDARD,
    BadCommand,
    Chunk,
    ClientConnection,
    Command,
    Content,
    Data,
    Ehlo,
    EndOfContent,
    Expn,
    Helo,
    Lhlo,
    LocalProtocolError,
    Mail,
    Rcpt,
    Reply,
    ReversePath,
    ServerConnection,
    Signal,
    Vrfy,
)
from smtpproto.extensions import (
    BINARYMIME,
    CHUNKING,
    DSN,
    EIGHTBITMIME,
    ENHANCEDSTATUSCODES,
    EXPN,
    SMTPUTF8,
)
from smtpproto.extensions.dsn import ORCPT, OriginalRecipient
from smtpproto.extensions.eightbitmime import BODY
from smtpproto.extensions.smtputf8 import UTF8
from smtpproto.testing import Pair
from smtpproto.trace import return_path
from tests.conformance.ends import HELLO, agreed, client_after, hear, say, saying, server_after

UTF = evolve(SMTPUTF8, obliges="")
PLAIN = (EIGHTBITMIME, ENHANCEDSTATUSCODES)
OFFER = (*PLAIN, UTF)
OFFERED = b"250-mx.example\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n"
NOT_OFFERED = b"250-mx.example\r\n250 8BITMIME\r\n"
ASKING = UTF8(True)
ASKED = HELLO + b"MAIL FROM:<a@b> SMTPUTF8\r\n"


def statuses(said: bytes) -> list[bytes]:
    return [line[:9] for line in said.split(b"\r\n")[:-1]]


# The offer


@pytest.mark.rfc(
    "6531 §3.1 keyword-is-smtputf8",
    "6531 §3.1 keyword-stands-alone",
    "6531 §3.1 no-verb-is-added",
)
def test_it_is_announced_by_its_keyword_alone() -> None:
    ehlo = say(server_after(extensions=OFFER), HELLO)
    assert ehlo.endswith(b"\r\n250 SMTPUTF8\r\n")
    assert SMTPUTF8.verbs == ()


@pytest.mark.rfc("6531 §3.1 client-looks-at-the-keyword-alone")
@pytest.mark.parametrize("behind", [b"", b" ", b" 8", b" =X UTF-8=no"])
def test_what_stands_behind_the_keyword_makes_no_difference(behind: bytes) -> None:
    client = client_after(b"250-mx\r\n250-SMTPUTF8%b\r\n250 8BITMIME\r\n" % behind)
    wire = client.send(Mail("é@b", ASKING))
    assert wire == "MAIL FROM:<é@b> SMTPUTF8\r\n".encode()


@pytest.mark.rfc("6531 §3.1 who-offers-it-does-all-of-it")
def test_it_is_offered_for_who_takes_it_on() -> None:
    assert SMTPUTF8.obliges
    assert "SMTPUTF8" not in ServerConnection("mx.example", STANDARD).offered
    assert "SMTPUTF8" in ServerConnection("mx.example", STANDARD, offer=OFFER).offered


@pytest.mark.rfc("6531 §3.1 valid-in-lmtp-too")
def test_it_is_for_lmtp_too() -> None:
    server = ServerConnection("mx.example", STANDARD, offer=OFFER, lmtp=True)
    pair = Pair(server, ClientConnection(STANDARD, lmtp=True))
    commands = [Mail("é@b", ASKING), Rcpt("ü@c")]
    pair.send(Lhlo("c.example"))
    for command in commands:
        pair.send(command)
    assert pair.server_events[-2:] == commands


# The parameter of MAIL


@pytest.mark.rfc("6531 §3.1 mail-may-be-10-octets-longer")
def test_the_line_of_mail_may_be_10_octets_longer() -> None:
    server = server_after(HELLO, (*PLAIN[1:], evolve(UTF, needs=())))
    line = b"MAIL FROM:<a@b> SMTPUTF8"
    assert say(server, line.ljust(520) + b"\r\nRSET\r\n").startswith(b"250 2.1.0")
    assert say(server, line.ljust(521) + b"\r\n").startswith(b"500")


@pytest.mark.rfc(
    "6531 §3.1 smtputf8-is-a-parameter-of-mail",
    "6531 §3.1 parameter-of-mail-takes-no-value",
    "6531 §3.4 parameter-takes-no-value",
)
def test_it_is_a_parameter_of_mail_without_a_value() -> None:
    mail = Mail("a@b", ASKING)
    wire = client_after(OFFERED).send(mail)
    assert wire == b"MAIL FROM:<a@b> SMTPUTF8\r\n"
    server = server_after(HELLO, OFFER)
    for value in (b"=", b"=1", b"=yes", b"=SMTPUTF8"):
        assert say(server, wire[:-2] + value + b"\r\n").startswith(b"501 5.5.4")
    with pytest.raises(LocalProtocolError):
        client_after(OFFERED).send(Mail("a@b", {"SMTPUTF8": "1"}))
    server.receive_data(wire.lower())
    assert server.next_event() == mail


@pytest.mark.rfc("6531 §3.4 it-is-not-asked-for-in-vain")
def test_it_is_not_added_to_what_does_not_need_it() -> None:
    assert client_after(OFFERED).send(Mail("a@b")) == b"MAIL FROM:<a@b>\r\n"


@pytest.mark.rfc(
    "6531 §3.5 nothing-of-it-to-who-does-not-offer-it",
    "6531 §3.2 no-utf8-mailbox-where-it-is-not-offered",
)
def test_a_client_writes_nothing_of_it_to_who_does_not_offer_it() -> None:
    client = client_after(NOT_OFFERED)
    for mail in (Mail("a@b", ASKING), Mail("é@b", ASKING), Mail("é@b"), Mail("a@é")):
        with pytest.raises(LocalProtocolError, match="SMTPUTF8"):
            client.send(mail)
    agreed(client, Mail("a@b"))
    for rcpt in (Rcpt("é@b"), Rcpt("a@é")):
        with pytest.raises(LocalProtocolError, match="SMTPUTF8"):
            client.send(rcpt)


# Names


@pytest.mark.rfc("6531 §3.2 utf8-is-taken-wherever-a-mailbox-stands")
@pytest.mark.parametrize("mailbox", ["é@b", "a@é", "é@é", '"é è"@b'])
def test_utf8_is_taken_wherever_a_mailbox_stands(mailbox: str) -> None:
    server = server_after(HELLO, (*OFFER, evolve(EXPN, obliges="")))
    lines = (
        f"VRFY {mailbox}",
        f"EXPN {mailbox} SMTPUTF8",
        f"MAIL FROM:<{mailbox}> SMTPUTF8",
        f"RCPT TO:<{mailbox}>",
        f"RCPT TO:<@é,@b:{mailbox}>",
    )
    said = say(server, "".join(f"{line}\r\n" for line in lines).encode())
    assert [code[:3] for code in statuses(said)] == [b"252", b"252", b"250", b"250", b"250"]


@pytest.mark.rfc("6531 §3.2 domains-have-labels-of-either-form")
@pytest.mark.parametrize("domain", ["bücher.example", "xn--bcher-kva.example", "xn--bcher-kva.é"])
def test_labels_of_either_form_go_as_they_are(domain: str) -> None:
    pair = Pair(ServerConnection("mx.example", OFFER), ClientConnection(STANDARD))
    pair.send(Ehlo("c.example"))
    commands: list[Command] = [Mail(f"a@{domain}", ASKING), Rcpt(f"é@{domain}")]
    for command in commands:
        (reply,) = pair.send(command)
        assert isinstance(reply, Reply)
        assert reply.code == 250
    assert pair.server_events[-2:] == commands
    assert pair.to_server.count(f"@{domain}>".encode()) == 2


@pytest.mark.rfc("6531 §3.2 a-labels-are-ascii")
def test_a_labels_need_no_smtputf8() -> None:
    client = client_after(NOT_OFFERED)
    wire = client.send(Mail("a@xn--bcher-kva.example"))
    assert say(server_after(HELLO, PLAIN), wire).startswith(b"250")


@pytest.mark.rfc("6531 §3.2 dsn-beside-it-takes-utf8-recipients")
@pytest.mark.parametrize("written", ["é@b", r"\x{E9}@b", "+C3+A9@b"])
def test_original_recipients_may_be_of_the_type_utf8(written: str) -> None:
    server = server_after(ASKED, (*OFFER, evolve(DSN, obliges="")))
    server.receive_data(f"RCPT TO:<c@d> ORCPT=utf-8;{written}\r\n".encode())
    rcpt = server.next_event()
    assert isinstance(rcpt, Rcpt)
    assert ORCPT.of(rcpt.parameters) == OriginalRecipient("utf-8", "é@b")


@pytest.mark.rfc("6531 §3.7.1 name-in-ehlo-is-ascii")
def test_a_client_gives_its_name_in_ascii() -> None:
    for make in (Ehlo, Helo, Lhlo):
        with pytest.raises(LocalProtocolError):
            make("bücher.example")
    client = client_after(OFFERED)
    assert client.send(Ehlo("xn--bcher-kva.example")) == b"EHLO xn--bcher-kva.example\r\n"


@pytest.mark.rfc("6531 §3.7.1 names-in-the-reply-are-ascii")
def test_the_names_in_the_reply_to_ehlo_are_ascii() -> None:
    with pytest.raises(LocalProtocolError):
        ServerConnection("bücher.example")
    server = server_after(HELLO, OFFER)
    assert say(server, "EHLO bücher.example\r\n".encode()).startswith(b"501")
    server.receive_data(b"EHLO xn--bcher-kva.example\r\n")
    server.next_event()
    lines = server.suggested_reply().lines
    with pytest.raises(LocalProtocolError):
        server.send(Reply(250, None, ["bücher.example", *lines[1:]]))
    assert server.send(Reply(250, None, ["xn--bcher-kva.example", *lines[1:]])).isascii()


@pytest.mark.rfc("6531 §3.7.3 return-path-may-have-u-labels")
def test_the_return_path_is_written_as_it_came() -> None:
    path, _ = ReversePath.read("<é@bücher.example>".encode())
    assert return_path(path) == "Return-Path: <é@bücher.example>\r\n".encode()


# Content


def carried(client: ClientConnection, server: ServerConnection, mail: Mail, octets: bytes) -> bytes:
    """Send a message; return its content as the server's caller gets it."""
    for command in (mail, Rcpt("c@d"), Data()):
        hear(client, say(server, client.send(command)))
    server.receive_data(client.send(Content(octets)) + client.send(EndOfContent()))
    received = b""
    while isinstance(event := server.next_event(), Content):
        received += event.data
    assert not isinstance(event, (Signal, BadCommand))
    return received


@pytest.mark.rfc(
    "6531 §3.1 header-may-hold-utf8",
    "6531 §3.2 client-may-send-utf8-header",
    "6531 §3.6 smtputf8-beside-body-8bitmime",
    "6531 §3.6 it-may-turn-out-not-to-be-needed",
    "6531 §3.6 8-bit-bodies-are-not-asked-for",
    "6531 §3.6 nobody-has-to-look-into-content",
)
@pytest.mark.parametrize(
    "asks", [ASKING | BODY("8BITMIME"), ASKING, BODY("8BITMIME")], ids=["both", "UTF-8", "8 bits"]
)
@pytest.mark.parametrize("subject", ["Grüße, José", "hello"])
def test_content_comes_out_as_it_went_in(asks: dict[str, bytes | None], subject: str) -> None:
    """Whether it makes use of SMTPUTF8 or not, and whether that was asked for or not."""
    octets = f"From: <{subject}@b>\r\nSubject: {subject}\r\n\r\ntext\r\n".encode()
    server = server_after(HELLO, OFFER)
    assert carried(client_after(OFFERED), server, Mail("a@b", asks), octets) == octets
    assert server.suggested_reply().code == 250


@pytest.mark.rfc("6531 §3.6 smtputf8-beside-body-binarymime")
def test_binary_content_where_that_is_offered_too() -> None:
    mail = Mail("é@b", ASKING | BODY("BINARYMIME"))
    with pytest.raises(LocalProtocolError, match="BODY=BINARYMIME"):
        client_after(OFFERED).send(mail)
    client = client_after(OFFERED.replace(b"250 ", b"250-BINARYMIME\r\n250-CHUNKING\r\n250 "))
    server = server_after(HELLO, (*OFFER, CHUNKING, evolve(BINARYMIME, obliges="")))
    octets = "Subject: é\r\n\r\n".encode() + b"\0\n\xff"
    for thing in (mail, Rcpt("ü@d"), Chunk(octets, last=True)):
        (reply,) = hear(client, say(server, client.send(thing)))
        assert reply.code == 250


@pytest.mark.rfc(
    "6531 §3.5 header-that-a-recipient-cannot-take-gets-554", "6531 §3.5 and-says-x-6-9"
)
def test_content_that_a_recipient_cannot_take() -> None:
    client, server = client_after(OFFERED), server_after(HELLO, OFFER)
    carried(client, server, Mail("a@b", ASKING), "Subject: é\r\n\r\n".encode())
    refusal = Reply(554, "5.6.9", "No UTF-8 headers for c@d")
    wire = server.send(refusal)
    assert wire.startswith(b"554 5.6.9 ")
    assert hear(client, wire) == [refusal]
    assert refusal.status is not None
    assert refusal.status.registered is not None
    assert "UTF-8 in headers" in refusal.status.registered.text


# What stays as it is


SESSION = [Mail("a@b"), Rcpt("c@d"), Rcpt("Postmaster"), Vrfy("jo"), Data()]


@pytest.mark.rfc("6531 §3.2 all-else-is-as-without-it")
def test_mail_in_ascii_goes_as_where_nobody_knows_of_it() -> None:
    sessions: list[bytes] = []
    for offered, offer in ((OFFERED, OFFER), (NOT_OFFERED, PLAIN)):
        client, server = client_after(offered), server_after(HELLO, offer)
        wire = b""
        for command in SESSION:
            asked = client.send(command)
            said = say(server, asked)
            hear(client, said)
            wire += asked + said
        sessions.append(wire)
    assert sessions[0] == sessions[1]


@pytest.mark.rfc("6531 §3.5 other-refusals-stay")
@pytest.mark.parametrize(
    ("line", "reply"),
    [
        (b"RCPT TO:<c@d", b"501 5.1.3"),
        (b"RCPT TO:<c@d> X=1", b"555 5.5.4"),
        (b"MAIL FROM:<a@b>", b"503 5.5.1"),
        (b"DATA", b"503 5.5.1"),
        (b"NOPE", b"500 5.5.2"),
    ],
)
def test_other_refusals_are_the_same(line: bytes, reply: bytes) -> None:
    plain = HELLO + b"MAIL FROM:<a@b>\r\n"
    said = [say(server_after(*begun), line + b"\r\n") for begun in ((ASKED, OFFER), (plain, PLAIN))]
    assert said[0] == said[1]
    assert said[0].startswith(reply)


@pytest.mark.rfc("6531 §3.5 other-refusals-stay")
def test_a_mailbox_that_is_refused_for_itself_has_its_usual_code() -> None:
    gone = saying(Reply(550, "5.1.1", "No such mailbox"))
    said = say(server_after(ASKED, OFFER), "RCPT TO:<é@d>\r\n".encode(), gone)
    assert said == b"550 5.1.1 No such mailbox\r\n"


# Queries


@pytest.mark.rfc(
    "6531 §3.1 smtputf8-is-a-parameter-of-vrfy-and-expn",
    "6531 §3.7.4.2 vrfy",
    "6531 §3.7.4.2 expn",
)
@pytest.mark.parametrize("text", ["Fred", "José", '"Fred é" <jo@b>', "é@é"])
@pytest.mark.parametrize("asks", [True, False])
@pytest.mark.parametrize("query", [Vrfy, Expn])
def test_queries_with_and_without_the_parameter(
    query: type[Vrfy | Expn], asks: bool, text: str
) -> None:
    offer = OFFERED.replace(b"8BITMIME", b"EXPN")
    wire = client_after(offer).send(query(text, asks))
    assert wire == f"{query.__name__.upper()} {text}{' SMTPUTF8' * asks}\r\n".encode()
    server = server_after(HELLO, (*OFFER, evolve(EXPN, obliges="")))
    server.receive_data(wire)
    assert server.next_event() == query(text, asks)


@pytest.mark.rfc("6531 §3.7.4.2 vrfy", "6531 §3.7.4.2 expn")
@pytest.mark.parametrize("line", [b"VRFY ", b"VRFY \xe9", b"EXPN \xc3", "EXPN é\x7f".encode()])
def test_what_no_query_can_ask_for(line: bytes) -> None:
    server = server_after(HELLO, (*OFFER, evolve(EXPN, obliges="")))
    assert say(server, line + b"\r\n").startswith(b"501")
