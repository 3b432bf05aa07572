"""RFC 3030: content in chunks, and content of any octets, beside tests/core/test_chunking.py."""

from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest
from attrs import evolve

from smtpproto import (
    STANDARD,
    Chunk,
    ClientConnection,
    Content,
    Data,
    Ehlo,
    EndOfContent,
    Extension,
    LocalProtocolError,
    Mail,
    Noop,
    Parameter,
    Parameters,
    Rcpt,
    Rset,
    ServerConnection,
    State,
    Vrfy,
)
from smtpproto.extensions import BINARYMIME, CHUNKING, EIGHTBITMIME, PIPELINING
from smtpproto.extensions.eightbitmime import BODY
from smtpproto.source import source
from smtpproto.testing import Pair, play_client, play_server
from smtpproto.testing.pair import answer
from tests.conformance.ends import HELLO, MAIL, RCPT, agreed, client_after, hear, say, server_after

CHUNKED = (PIPELINING, CHUNKING)
BINARY = (PIPELINING, EIGHTBITMIME, CHUNKING, evolve(BINARYMIME, obliges=""))
ALL_OFFERED = b"250-mx.example\r\n250-8BITMIME\r\n250-CHUNKING\r\n250 BINARYMIME\r\n"
OCTETS = bytes(range(256))
BINARY_MAIL = HELLO + b"MAIL FROM:<a@b> BODY=BINARYMIME\r\nRCPT TO:<c@d>\r\n"


def codes(said: bytes) -> list[bytes]:
    return [line[:3] for line in said.split(b"\r\n")[:-1]]


def joined() -> Pair:
    pair = Pair(ServerConnection("mx.example", BINARY), ClientConnection(STANDARD))
    pair.send(Ehlo("c.example"))
    return pair


def received(pair: Pair) -> bytes:
    return b"".join(event.data for event in pair.server_events if isinstance(event, Content))


# The offer


@pytest.mark.rfc(
    "3030 §2 keyword-is-chunking",
    "3030 §3 keyword-is-binarymime",
    "3030 §3 keyword-stands-alone",
    "3030 §3 needs-chunking",
    "3030 §3 no-verb-is-added",
)
def test_the_keywords() -> None:
    ehlo = say(server_after(extensions=BINARY), HELLO)
    assert ehlo.endswith(b"\r\n250-CHUNKING\r\n250 BINARYMIME\r\n")
    without = tuple(e for e in BINARY if e.keyword != "CHUNKING")
    assert b"BINARYMIME" not in say(server_after(extensions=without), HELLO)
    assert not BINARYMIME.verbs
    assert say(server_after(HELLO, BINARY), b"BINARYMIME\r\n").startswith(b"500")


@pytest.mark.rfc("3030 §2 offer-is-in-a-250-to-ehlo", "3030 §2 bdat-only-where-it-is-offered")
@pytest.mark.parametrize("said", [b"250 mx\r\n", b"250-mx\r\n250 SIZE\r\n", b"250 CHUNKING\r\n"])
def test_where_the_keyword_is_not_offered_there_is_no_bdat(said: bytes) -> None:
    """The first line of the reply is a greeting, whatever it says."""
    client = client_after(said)
    agreed(client, Mail("a@b"), Rcpt("c@d"))
    with pytest.raises(LocalProtocolError, match="does not offer CHUNKING"):
        client.send(Chunk(b"x", last=True))


@pytest.mark.rfc("3030 §2 unknown-bdat-is-one-line-of-many")
def test_a_server_that_knows_no_chunks_reads_lines() -> None:
    server = server_after(RCPT)
    said = say(server, b"BDAT 14\r\n\xff\0\x80\r\nNOOP\r\nx" + b"x" * 2000 + b"\r\nNOOP\r\n")
    assert codes(said) == [b"500", b"500", b"250", b"500", b"250"]
    assert server.state is State.RCPT


# DATA beside BDAT


@pytest.mark.rfc(
    "3030 §2 bdat-stands-for-data",
    "3030 §2 data-stays",
    "3030 §2 client-may-use-data",
    "3030 §2 who-offers-takes-chunks",
    "3030 §2 both-in-one-session",
)
def test_data_and_bdat_in_one_session() -> None:
    pair = joined()
    for number in range(4):
        for command in (Mail("a@b"), Rcpt("c@d")):
            pair.send(command)
        if number % 2:
            pair.send(Chunk(b"by bdat\r\n", last=True))
        else:
            pair.send(Data())
            pair.send(Content(b"by data\r\n"), EndOfContent())
        assert pair.server_events[-1] == EndOfContent(9)
        assert pair.client.state is pair.server.state is State.READY
    assert received(pair) == b"by data\r\nby bdat\r\n" * 2


@pytest.mark.rfc(
    "3030 §2 data-and-bdat-do-not-mix",
    "3030 §2 data-behind-bdat-gets-503",
    "3030 §2 client-sends-nothing-that-rset-must-mend",
)
def test_data_is_not_for_behind_a_chunk() -> None:
    server = server_after(RCPT + b"BDAT 1\r\na", CHUNKED)
    assert say(server, b"DATA\r\n").startswith(b"503")
    assert server.state is State.CHUNKS
    pair = joined()
    for thing in (Mail("a@b"), Rcpt("c@d"), Chunk(b"a")):
        pair.send(thing)
    with pytest.raises(LocalProtocolError, match="out of sequence"):
        pair.send(Data())


@pytest.mark.rfc("3030 §2 data-and-bdat-do-not-mix")
def test_bdat_is_content_behind_data() -> None:
    server = server_after(RCPT + b"DATA\r\n", CHUNKED)
    assert say(server, b"BDAT 1 LAST\r\na") == b""
    assert server.state is State.CONTENT


# Chunks


@pytest.mark.rfc("3030 §2 bdat-behind-last-gets-503", "3030 §2 rset-mends-what-was-out-of-order")
@pytest.mark.parametrize("more", [b"BDAT 6\r\nQUIT\r\n", b"BDAT 6 LAST\r\nQUIT\r\n"])
def test_a_chunk_behind_the_last_gets_503(more: bytes) -> None:
    server = server_after(RCPT, CHUNKED)
    assert codes(say(server, b"BDAT 1 LAST\r\na" + more + more)) == [b"250", b"503", b"503"]
    assert codes(say(server, b"RSET\r\n" + RCPT + b"BDAT 0 LAST\r\n"))[-3:] == [b"250"] * 3


@pytest.mark.rfc("3030 §2 client-sends-nothing-that-rset-must-mend")
def test_a_client_sends_no_chunk_behind_the_last() -> None:
    pair = joined()
    for thing in (Mail("a@b"), Rcpt("c@d"), Chunk(b"a", last=True)):
        pair.send(thing)
    for last in (False, True):
        with pytest.raises(LocalProtocolError, match="out of sequence"):
            pair.send(Chunk(b"b", last=last))


@pytest.mark.rfc("3030 §2 rset-mends-what-was-out-of-order")
@pytest.mark.parametrize(
    "failed", [b"BDAT 2\r\na\n", b"BDAT 2 LAST\r\na\n", b"BDAT 1\r\naDATA\r\n"]
)
def test_rset_mends_what_failed(failed: bytes) -> None:
    server = server_after(RCPT, CHUNKED)
    assert codes(say(server, failed))[-1] in (b"554", b"503")
    assert codes(say(server, b"RSET\r\n" + RCPT + b"BDAT 2 LAST\r\nok"))[-4:] == [b"250"] * 4


@pytest.mark.rfc("3030 §2 no-new-transaction-before-rset")
def test_a_client_begins_nothing_new_before_rset() -> None:
    client = client_after(b"250-mx.example\r\n250 CHUNKING\r\n")
    agreed(client, Mail("a@b"), Rcpt("c@d"))
    client.send(Chunk(b"a"))
    hear(client, b"452 full\r\n")
    for command in (Mail("a@b"), Rcpt("c@d"), Data()):
        with pytest.raises(LocalProtocolError, match="out of sequence"):
            client.send(command)


@pytest.mark.rfc("3030 §2 rset-comes-next-behind-a-failed-chunk")
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("refusal", [b"452 full\r\n", b"554 no\r\n"])
def test_rset_comes_next_behind_a_refused_chunk(refusal: bytes, last: bool) -> None:
    client = client_after(b"250-mx.example\r\n250 CHUNKING\r\n")
    agreed(client, Mail("a@b"), Rcpt("c@d"))
    client.send(Chunk(b"a", last))
    hear(client, refusal)
    for command in (Noop(), Vrfy("jo"), Ehlo("c.example"), Mail("a@b")):
        with pytest.raises(LocalProtocolError):
            client.send(command)
    agreed(client, Rset(), Noop(), Mail("a@b"))


@pytest.mark.rfc("3030 §3 client-needs-chunking-for-it")
def test_a_client_declares_no_binary_without_chunking() -> None:
    for offered in (b"BINARYMIME", b"CHUNKING"):
        client = client_after(b"250-mx.example\r\n250-8BITMIME\r\n250 %b\r\n" % offered)
        with pytest.raises(LocalProtocolError):
            client.send(Mail("a@b", BODY("BINARYMIME")))
    assert client_after(ALL_OFFERED).send(Mail("a@b", BODY("BINARYMIME")))


@pytest.mark.rfc("3030 §3 client-needs-chunking-for-it", "3030 §3 body-value")
def test_a_client_declares_what_is_offered_and_no_more() -> None:
    """BODY is defined by two extensions, and either may be offered alone."""
    chunked = b"250-mx.example\r\n250-CHUNKING\r\n250 BINARYMIME\r\n"
    assert client_after(chunked).send(Mail("a@b", BODY("BINARYMIME")))
    assert client_after(chunked).send(Mail("a@b", BODY("7BIT")))
    with pytest.raises(LocalProtocolError, match="8BITMIME"):
        client_after(chunked).send(Mail("a@b", BODY("8BITMIME")))
    for offer in (b"250 BINARYMIME\r\n", b"250-8BITMIME\r\n250 CHUNKING\r\n", b"250 SIZE\r\n"):
        with pytest.raises(LocalProtocolError, match="BINARYMIME"):
            client_after(b"250-mx.example\r\n" + offer).send(Mail("a@b", BODY("BINARYMIME")))


@pytest.mark.rfc("3030 §3 needs-chunking", "3030 §3 body-value")
def test_a_server_takes_what_it_offers_and_no_more() -> None:
    offer = (evolve(BINARYMIME, obliges=""), CHUNKING)
    for value, code in ((b"BINARYMIME", b"250"), (b"7BIT", b"250"), (b"8BITMIME", b"501")):
        assert say(server_after(HELLO, offer), b"MAIL FROM:<> BODY=%b\r\n" % value)[:3] == code
    assert "BINARYMIME" not in server_after(HELLO, (BINARYMIME, EIGHTBITMIME)).offered


@pytest.mark.anyio
@pytest.mark.rfc(
    "3030 §3 may-be-encoded-in-seven-bits",
    "3030 §3 encoding-loses-nothing",
    "3030 §3 encoded-is-valid-mime",
    "3030 §3 nothing-is-encoded-twice",
)
@pytest.mark.parametrize("eight_bit", [True, False])
@pytest.mark.parametrize("alone", [True, False])
async def test_a_binary_part_is_encoded_and_decodes_to_what_it_was(
    eight_bit: bool, alone: bool
) -> None:
    octets = b"\x00\xffa\nb\rc\r\n.\r\n\x80"
    message = EmailMessage()
    if alone:
        message.set_content(octets, maintype="image", subtype="x-raw", cte="binary")
    else:
        message.set_content("text")
        message.add_attachment(octets, maintype="image", subtype="x-raw", cte="binary")
        message.add_attachment(octets, maintype="image", subtype="x-other", cte="base64")
    made = await source(message, eight_bit_offered=eight_bit)
    wire = made.chunks
    assert isinstance(wire, bytes)
    assert wire.isascii()
    assert wire.count(b"\r\n") == wire.count(b"\r") == wire.count(b"\n")
    read = message_from_bytes(wire, policy=policy.default)
    images = [part for part in read.walk() if part.get_content_maintype() == "image"]
    assert [part.get_content() for part in images] == [octets] * (1 if alone else 2)
    assert {part["Content-Transfer-Encoding"] for part in images} == {"base64"}
    assert all(not part.defects for part in read.walk())


@pytest.mark.rfc("3030 §2 no-reply-within-a-chunk", "3030 §2 failure-is-told-behind-the-octets")
@pytest.mark.parametrize("before", [b"", HELLO, MAIL, RCPT, RCPT + b"BDAT 1\r\n\n"])
def test_nothing_is_said_to_a_chunk_before_its_last_octet(before: bytes) -> None:
    """Where it is out of sequence it has failed from its first octet on."""
    server = server_after(before, CHUNKED)
    octets = b"BDAT 30 LAST\r\n" + b"\nQUIT\r\n\0" * 3 + b"NOOP\r\n"
    for at in range(len(octets) - 1):
        assert say(server, octets[at : at + 1]) == b""
    assert codes(say(server, octets[-1:])) == [b"554" if before == RCPT else b"503"]
    assert say(server, b"QUIT\r\n").startswith(b"221")


# Their number of octets


@pytest.mark.rfc(
    "3030 §2 too-large-a-number-waits",
    "3030 §2 half-a-command-is-a-syntax-error",
    "3030 §2 bdat-says-how-many-octets-follow",
)
def test_a_number_that_is_too_large_takes_what_comes_next() -> None:
    server = server_after(RCPT, CHUNKED)
    server.receive_data(b"BDAT 10 LAST\r\nabc")
    events, said = answer(server)
    assert said == b""
    server.receive_data(b"NOOP\r\nRSET\r\n")
    more, said = answer(server)
    pieces = [event.data for event in (*events, *more) if isinstance(event, Content)]
    assert b"".join(pieces) == b"abcNOOP\r\nR"
    assert codes(said) == [b"250", b"500"]


@pytest.mark.rfc(
    "3030 §2 too-small-a-number-leaves-lines", "3030 §2 bdat-says-how-many-octets-follow"
)
def test_a_number_that_is_too_small_leaves_lines() -> None:
    server = server_after(RCPT, CHUNKED)
    said = say(server, b"BDAT 3\r\nabc\x80\xffef\r\n\r\nBDAT 0 LAST\r\n")
    assert codes(said) == [b"250", b"500", b"500", b"250"]


@pytest.mark.rfc("3030 §2 lines-of-any-octets-are-refused")
@pytest.mark.parametrize("state", [b"", HELLO, RCPT, RCPT + b"BDAT 1\r\na"])
def test_lines_of_any_octets_are_refused(state: bytes) -> None:
    """But for the first octet of TLS, behind which nothing can be understood."""
    others = OCTETS.replace(b"\r\n", b"\n\r")
    for first in set(OCTETS) - {0x16}:
        server = server_after(state, CHUNKED)
        line = bytes([first]) + others
        assert codes(say(server, line + b"\r\nNOOP\r\n")) == [b"500", b"250"]
    server = server_after(state, CHUNKED)
    assert say(server, b"\x16" + others).startswith(b"500")
    assert server.state is State.CLOSED


# BINARYMIME


@pytest.mark.rfc(
    "3030 §2 any-body-may-be-chunked",
    "3030 §3 body-may-be-binarymime",
    "3030 §3 body-value",
    "3030 §3 binarymime-means-any-octets",
    "3030 §3 client-may-ask-for-binary",
    "3030 §3 all-bits-are-kept",
)
@pytest.mark.parametrize(
    ("body", "content"),
    [
        ("7BIT", b"seven\r\n.\r\nbits"),
        ("8BITMIME", b"\xe4\xf6\xfc\xff\r\n"),
        ("BINARYMIME", OCTETS + OCTETS[::-1] + b"\r.\n.\r\n.\r\n"),
    ],
)
def test_chunks_carry_any_body(body: str, content: bytes) -> None:
    pair = joined()
    pair.send(Mail("a@b", BODY(body)))
    pair.send(Rcpt("c@d"))
    pair.send(Chunk(content[:7]), Chunk(content[7:], last=True))
    assert received(pair) == content
    assert pair.server_events[-1] == EndOfContent(len(content))
    assert pair.to_server.count(f"BODY={body}".encode()) == 1


@pytest.mark.rfc("3030 §3 body-value")
@pytest.mark.parametrize("value", [b"BINARY", b"BINARYMIMEX", b"8BIT", b"7BIT,BINARYMIME", b""])
def test_body_has_no_other_value(value: bytes) -> None:
    said = say(server_after(HELLO, BINARY), b"MAIL FROM:<a@b> BODY=%b\r\n" % value)
    assert said.startswith(b"501")
    if value:
        with pytest.raises(LocalProtocolError):
            client_after(ALL_OFFERED).send(Mail("a@b", {"BODY": value}))


PAD = Parameter("XPAD", lambda value: value or b"", lambda value: value)


@pytest.mark.rfc("3030 §3 mail-line-is-16-longer")
def test_a_mail_line_has_room_for_the_parameter() -> None:
    """The rest of the line takes all 512 octets by itself."""
    extensions = (*BINARY, Extension("XPAD", mail=(PAD,)))
    bare = Mail("a@b", {"XPAD": "x" * (512 - len(b"MAIL FROM:<a@b> XPAD=\r\n"))})
    mail = Mail("a@b", Parameters({**bare.parameters, **BODY("BINARYMIME")}))
    server = ServerConnection("mx.example", extensions)
    answer(server)
    client = ClientConnection(extensions)
    hear(client, b"220 mx.example\r\n")
    hear(client, say(server, client.send(Ehlo("c.example"))))
    wire = client.send(mail)
    assert (len(bare.serialize()), len(wire)) == (512, 512 + 16)
    assert say(server, wire).startswith(b"250")


@pytest.mark.rfc(
    "3030 §3 binary-does-not-go-by-data", "3030 §3 data-gets-503", "3030 §3 rset-mends-it"
)
def test_binary_does_not_go_by_data() -> None:
    server = server_after(BINARY_MAIL, BINARY)
    assert say(server, b"DATA\r\n").startswith(b"503")
    assert codes(say(server, b"RSET\r\n" + RCPT + b"DATA\r\n"))[-1] == b"354"
    client = client_after(ALL_OFFERED)
    agreed(client, Mail("a@b", BODY("BINARYMIME")), Rcpt("c@d"))
    with pytest.raises(LocalProtocolError, match="BDAT"):
        client.send(Data())


@pytest.mark.rfc(
    "3030 §3 no-binary-where-it-is-not-offered",
    "3030 §3 binary-content-is-declared",
    "3030 §3 may-fail-for-good",
)
@pytest.mark.parametrize("offered", [True, False])
def test_undeclared_binary_content_does_not_leave(offered: bool) -> None:
    said = ALL_OFFERED if offered else b"250-mx.example\r\n250-8BITMIME\r\n250 CHUNKING\r\n"
    for by_data in (True, False):
        client = client_after(said)
        if not offered:
            with pytest.raises(LocalProtocolError):
                client.send(Mail("a@b", BODY("BINARYMIME")))
        agreed(client, Mail("a@b", BODY("8BITMIME")), Rcpt("c@d"))
        if by_data:
            agreed(client, Data())
        with pytest.raises(LocalProtocolError, match="bare CR or LF"):
            client.send(Content(OCTETS) if by_data else Chunk(OCTETS, last=True))


@pytest.mark.rfc("3030 §3 undeclared-binary-is-taken")
@pytest.mark.parametrize("by_data", [True, False])
def test_a_header_that_speaks_of_binary_refuses_nothing(by_data: bool) -> None:
    content = b"MIME-Version: 1.0\r\nContent-Transfer-Encoding: binary\r\n\r\n\0\xff\x80\r\n"
    wire = b"BDAT %d LAST\r\n%b" % (len(content), content)
    if by_data:
        wire = b"DATA\r\n" + content + b".\r\n"
    assert codes(say(server_after(RCPT, CHUNKED), wire))[-1] == b"250"


# The examples


ONE_CHUNK = """
S: 220 cnri.example ESMTP
C: EHLO ymir.example
S: 250-cnri.example greets ymir.example
S: 250 CHUNKING
C: MAIL FROM:<Sam@Random.example>
S: 250 Sender ok
C: RCPT TO:<Susan@Random.example>
S: 250 Recipient ok
C: BDAT 94 LAST
C: To: Susan@random.example
C: From: Sam@random.example
C: Subject: This is a bodyless test message
S: 250 Message accepted
C: QUIT
S: 221 cnri.example Closing connection
-- CLOSED
"""
THREE_CHUNKS = """
S: 220 cnri.example ESMTP
C: EHLO ymir.example
S: 250-cnri.example greets ymir.example
S: 250-PIPELINING
S: 250-BINARYMIME
S: 250 CHUNKING
C: MAIL FROM:<ned@ymir.example> BODY=BINARYMIME
C: RCPT TO:<gvaudre@cnri.example>
C: RCPT TO:<jstewart@cnri.example>
S: 250 Sender ok
S: 250 Recipient ok
S: 250 Recipient ok
C: BDAT 10
C| \\x00\\xff\\n.\\n\\r.\\r\\n\\r
C: BDAT 3
C| .\\r\\n
C: BDAT 0 LAST
S: 250 Chunk received
S: 250 Chunk received
S: 250 Message accepted
C: QUIT
S: 221 cnri.example Closing connection
-- CLOSED
"""


@pytest.mark.rfc("3030 §4.1 one-chunk")
def test_the_example_of_one_chunk() -> None:
    play_server(ONE_CHUNK, ServerConnection("cnri.example", (CHUNKING,)))
    play_client(ONE_CHUNK, ClientConnection(STANDARD))


@pytest.mark.rfc(
    "3030 §4.2 binary-in-three-chunks-at-once",
    "3030 §4.2 client-sends-binary-in-three-chunks-at-once",
)
def test_the_example_of_binary_in_three_chunks_at_once() -> None:
    offer = (PIPELINING, evolve(BINARYMIME, obliges=""), CHUNKING)
    play_server(THREE_CHUNKS, ServerConnection("cnri.example", offer))
    play_client(THREE_CHUNKS, ClientConnection(STANDARD))
