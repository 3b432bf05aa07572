"""RFC 2033: LMTP at both ends."""

from textwrap import dedent

import pytest

from smtpproto import (
    NEED_DATA,
    STANDARD,
    BadCommand,
    Chunk,
    ClientConnection,
    Command,
    ConnectionClosed,
    Content,
    Data,
    Ehlo,
    EndOfContent,
    Envelope,
    Extension,
    Helo,
    Lhlo,
    LocalProtocolError,
    Mail,
    Noop,
    Quit,
    Rcpt,
    RemoteProtocolError,
    Reply,
    ServerConnection,
    Signal,
    State,
)
from smtpproto.extensions import CHUNKING, PIPELINING, SIZE
from smtpproto.testing import play_client, play_server
from smtpproto.testing.pair import Pair, Policy, answer
from tests.conformance.ends import hear, say, saying

LHLO = b"LHLO c.example\r\n"
MAIL = LHLO + b"MAIL FROM:<a@b>\r\n"


def lmtp_server(octets: bytes = b"", extensions: tuple[Extension, ...] = ()) -> ServerConnection:
    """An LMTP server that has answered these well."""
    server = ServerConnection("mx.example", extensions, lmtp=True)
    answer(server)
    say(server, octets)
    return server


def telling(*replies: Reply) -> Policy:
    """Accept all, and answer the content with these, one by one."""
    left = list(replies)

    def policy(server: ServerConnection, event: object) -> Reply:
        return left.pop(0) if isinstance(event, EndOfContent) else server.suggested_reply()

    return policy


def opened(*recipients: Reply, verdicts: tuple[Reply, ...] = ()) -> Pair:
    """Both ends, with a transaction of as many recipients, answered so."""
    ends = (
        ServerConnection("mx.example", STANDARD, lmtp=True),
        ClientConnection(STANDARD, lmtp=True),
    )
    pair = Pair(*ends)
    pair.send(Lhlo("c.example"))
    pair.send(Mail("a@b"))
    for number, reply in enumerate(recipients):
        pair.policy = saying(reply)
        pair.send(Rcpt(f"r{number}@d"))
    pair.policy = telling(*verdicts)
    return pair


OK, FULL, NO = Reply(250, "2.0.0", "kept"), Reply(452, "4.2.2", "full"), Reply(550, "5.1.1", "who?")


# 4 and 4.1: LHLO


@pytest.mark.rfc("2033 §4 all-else-is-smtp", "2033 §4.1 lhlo-does-what-ehlo-does")
def test_behind_lhlo_all_is_as_behind_ehlo() -> None:
    octets = (
        b"%b c.example\r\nMAIL FROM:<a@b> SIZE=10\r\nRCPT TO:<c@d>\r\nVRFY c\r\nRSET\r\nNOOP x\r\n"
        b"DATA\r\nMAIL FROM:a\r\nMAIL FROM:<a@b> X=1\r\nMAIL FROM:<a@b>\r\nXYZZY\r\n"
        b"RCPT TO:<c@d>\r\n%b again.example\r\nRCPT TO:<c@d>\r\nMAIL FROM:<a@b>\r\n"
        b"RCPT TO:<c@d>\r\nDATA\r\n..dot\r\n.\r\nQUIT\r\n"
    )
    smtp, lmtp = ServerConnection("mx.example", STANDARD), lmtp_server(extensions=STANDARD)
    answer(smtp)
    said = say(smtp, octets.replace(b"%b", b"EHLO"))
    assert say(lmtp, octets.replace(b"%b", b"LHLO")) == said
    assert said.endswith(b"221 2.0.0 mx.example Closing connection\r\n")


@pytest.mark.rfc("2033 §4.1 lhlo-replaces-helo-and-ehlo")
def test_lhlo_opens_lmtp_and_nothing_else_does() -> None:
    server, client = lmtp_server(), ClientConnection(lmtp=True)
    hear(client, b"220 mx.example LMTP\r\n")
    for wrong in (Ehlo("c"), Helo("c")):
        with pytest.raises(LocalProtocolError):
            client.send(wrong)
    assert client.send(Lhlo("c.example")) == LHLO
    assert hear(client, say(server, LHLO)) != []
    assert server.state is client.state is State.READY
    assert server.helo_name == b"c.example"
    client = ClientConnection()
    hear(client, b"220 mx.example ESMTP\r\n")
    with pytest.raises(LocalProtocolError):
        client.send(Lhlo("c.example"))


@pytest.mark.rfc("2033 §4.1 no-2yz-to-helo-and-ehlo", "2033 §4.1 500-to-helo-and-ehlo")
@pytest.mark.parametrize("before", [b"", LHLO, MAIL])
@pytest.mark.parametrize("line", [b"EHLO c", b"HELO c", b"ehlo c", b"HELO"])
def test_ehlo_and_helo_cannot_be_granted(before: bytes, line: bytes) -> None:
    server = lmtp_server(before, STANDARD)
    kept = server.state
    server.receive_data(line + b"\r\n")
    bad = server.next_event()
    assert isinstance(bad, BadCommand)
    assert bad.reply.code == 500
    for code in (200, 220, 250, 251):
        with pytest.raises(LocalProtocolError):
            server.send(Reply(code))
    server.send(bad.reply)
    assert server.state is kept


@pytest.mark.rfc("2033 §4.1 misconfiguration-shows")
@pytest.mark.parametrize("lmtp", [False, True], ids=["LMTP asks SMTP", "SMTP asks LMTP"])
def test_ends_that_speak_different_protocols_get_no_further(lmtp: bool) -> None:
    server = ServerConnection("mx.example", STANDARD, lmtp=lmtp)
    client = ClientConnection(STANDARD, lmtp=not lmtp)
    pair = Pair(server, client)
    hello: list[Command] = [Ehlo("c"), Helo("c")] if lmtp else [Lhlo("c")]
    for command in hello:
        (reply,) = pair.send(command)
        assert str(reply).startswith("500")
    assert client.state is server.state is State.GREETED
    with pytest.raises(LocalProtocolError):
        client.send(Mail("a@b"))


# 4.2: DATA


@pytest.mark.rfc("2033 §4.2 data-without-a-recipient-gets-503")
@pytest.mark.parametrize("recipients", [(), (NO,), (FULL, NO)])
def test_data_without_a_recipient_gets_503(recipients: tuple[Reply, ...]) -> None:
    pair = opened(*recipients)
    (reply,) = pair.send(Data())
    assert str(reply).startswith("503")
    assert pair.client.state is pair.server.state is State.MAIL
    pair.server.receive_data(b"DATA\r\n")
    pair.server.next_event()
    with pytest.raises(LocalProtocolError):
        pair.server.send(Reply(354))
    client = opened(*recipients).client
    client.send(Data())
    with pytest.raises(RemoteProtocolError):
        hear(client, b"354 go\r\n")


RECIPIENTS = {
    (OK,): (OK,),
    (OK, OK): (OK, FULL),
    (OK, NO, OK): (FULL, OK),
    (NO, OK, FULL, OK, OK): (NO, OK, FULL),
    (Reply(251), Reply(250), Reply(252), Reply(450), Reply(550)): (OK, NO, FULL),
}


@pytest.mark.rfc(
    "2033 §3 one-reply-for-each-recipient",
    "2033 §4 successful-rcpt-got-2yz",
    "2033 §4.2 final-dot-has-a-reply-for-each-recipient",
    "2033 §4.2 replies-are-in-the-order-of-the-recipients",
)
@pytest.mark.parametrize(("recipients", "verdicts"), RECIPIENTS.items())
def test_the_final_dot_has_a_reply_for_each_recipient_that_was_accepted(
    recipients: tuple[Reply, ...], verdicts: tuple[Reply, ...]
) -> None:
    pair = opened(*recipients, verdicts=verdicts)
    accepted = [f"r{n}@d" for n, reply in enumerate(recipients) if reply.code < 300]
    assert pair.server.envelope == Envelope("a@b", accepted)
    pair.send(Data())
    assert pair.send(EndOfContent()) == [*verdicts]  # in the order of the envelope
    assert pair.idle
    assert pair.client.state is pair.server.state is State.READY
    with pytest.raises(LocalProtocolError):
        pair.server.send(OK)
    with pytest.raises(RemoteProtocolError):
        hear(pair.client, OK.serialize())


@pytest.mark.rfc(
    "2033 §4.3 last-chunk-has-a-reply-for-each-recipient", "2033 §4.3 other-chunks-have-one-reply"
)
@pytest.mark.parametrize(("recipients", "verdicts"), RECIPIENTS.items())
def test_the_last_chunk_has_a_reply_for_each_recipient_and_the_others_have_one(
    recipients: tuple[Reply, ...], verdicts: tuple[Reply, ...]
) -> None:
    pair = opened(*recipients, verdicts=verdicts)
    for chunk in (b"one\r\n", b"", b"two\r\n"):
        assert [str(reply)[:3] for reply in pair.send(Chunk(chunk))] == ["250"]
    assert pair.send(Chunk(b"", last=True)) == [*verdicts]
    assert pair.idle
    assert pair.client.state is pair.server.state is State.READY


@pytest.mark.rfc(
    "2033 §4.2 same-recipient-twice-has-two-replies",
    "2033 §4.2 2yz-takes-responsibility-for-its-recipient",
)
@pytest.mark.rfc(
    "2033 §4.3 same-recipient-twice-has-two-replies",
    "2033 §4.3 2yz-takes-responsibility-for-its-recipient",
)
@pytest.mark.parametrize("chunked", [False, True])
def test_each_rcpt_of_the_same_recipient_has_a_reply(chunked: bool) -> None:
    pair = opened(verdicts=(OK, NO, FULL))
    pair.policy, verdicts = telling(), pair.policy
    pair.send(*[Rcpt("c@d")] * 3)
    pair.policy = verdicts
    if not chunked:
        pair.send(Data())
    replies = pair.send(Chunk(b"x", last=True) if chunked else EndOfContent())
    # Whoever has the message is told apart from who has not, though it be the same mailbox.
    assert replies == [OK, NO, FULL]


@pytest.mark.rfc("2033 §4.2 multiline-reply-is-one")
@pytest.mark.rfc("2033 §4.3 multiline-reply-is-one")
@pytest.mark.parametrize("chunked", [False, True])
def test_a_reply_of_several_lines_is_for_one_recipient(chunked: bool) -> None:
    verdicts = (
        Reply(250, "2.0.0", ["kept", "and", "filed"]),
        Reply(550, "5.2.1", "closed"),
        Reply(452, "4.2.2", ["full", "up"]),
    )
    pair = opened(OK, OK, OK, verdicts=verdicts)
    if not chunked:
        pair.send(Data())
    assert pair.send(Chunk(b"x", last=True) if chunked else EndOfContent()) == [*verdicts]
    assert pair.idle


# Their names and words are others; who says what, and what comes of it, is the RFC's.
EXAMPLE = dedent("""\
    S: 220 mail.example LMTP here
    C: LHLO mail.example
    S: 250-mail.example
    S: 250-PIPELINING
    S: 250 SIZE
    C: MAIL FROM:<ann@far.example>
    S: 250 Fine
    C: RCPT TO:<one@mail.example>
    S: 250 Fine
    C: RCPT TO:<two@mail.example>
    S: 550 Nobody of this name
    C: RCPT TO:<three@mail.example>
    S: 250 Fine
    C: DATA
    S: 354 Let me have it
    C: This and
    C: that.
    C: .
    S: 250 Fine
    S: 452 The mailbox of three is full
    C: QUIT
    S: 221 mail.example says goodbye
    """)


@pytest.mark.rfc("2033 §4.2 example", "2033 §4.2 both-ends-may-have-one-name")
def test_the_example() -> None:
    lines = [line[3:] for line in EXAMPLE.splitlines() if line.startswith("S: ")]
    said = [Reply(int(line[:3]), None, line[4:]) for line in lines]
    said[1:4] = [Reply(250, None, ["mail.example", "PIPELINING", "SIZE"])]
    left = list(said)
    server = ServerConnection("mail.example", (PIPELINING, Extension("SIZE")), lmtp=True)
    play_server(EXAMPLE, server, policy=lambda s, _: left.pop(0))
    assert (left, server.state) == ([], State.CLOSED)
    client = ClientConnection((PIPELINING, SIZE), lmtp=True)
    assert play_client(EXAMPLE, client) == said
    assert client.state is State.CLOSED


# 4.3: BDAT without recipients


@pytest.mark.rfc("2033 §4.3 last-chunk-without-a-recipient-has-no-reply")
@pytest.mark.parametrize("refused", [0, 2])
@pytest.mark.parametrize("content", [b"", b"QUIT\r\n"])
def test_a_last_chunk_without_a_recipient_has_no_reply(refused: int, content: bytes) -> None:
    server = lmtp_server(MAIL, (CHUNKING,))
    for _ in range(refused):
        say(server, b"RCPT TO:<no@d>\r\n", saying(NO))
    assert say(server, b"BDAT %d LAST\r\n%b" % (len(content), content)) == b""
    assert server.replies_owed == 0
    assert say(server, b"NOOP\r\nMAIL FROM:<e@f>\r\n").count(b"250") == 2  # it has ended


@pytest.mark.rfc("2033 §4.3 client-sends-no-chunk-without-a-recipient")
@pytest.mark.parametrize("recipients", [(), (NO, FULL)])
def test_a_client_sends_no_chunk_without_a_recipient(recipients: tuple[Reply, ...]) -> None:
    client = opened(*recipients).client
    for chunk in (Chunk(b"x"), Chunk(b"x", last=True)):
        with pytest.raises(LocalProtocolError):
            client.send(chunk)
    client = opened(*recipients).client
    client.send(Rcpt("later@d"))
    with pytest.raises(LocalProtocolError):  # nor before it knows
        client.send(Chunk(b"x", last=True))


# 5: what has to be there


@pytest.mark.rfc("2033 §5 pipelining-and-statuses-are-there", "2033 §5 8bitmime-is-there")
def test_an_lmtp_server_has_these_extensions() -> None:
    server = lmtp_server(extensions=STANDARD)
    said = say(server, LHLO)
    for keyword in (b"PIPELINING", b"ENHANCEDSTATUSCODES", b"8BITMIME"):
        assert keyword in said
    said = say(server, b"MAIL FROM:<a@b> BODY=8BITMIME\r\nRCPT TO:<c@d>\r\nDATA\r\n")
    assert said.startswith(b"250 2.1.0 Sender ok\r\n250 2.1.5 Recipient ok\r\n354 ")
    assert say(server, b"\xff\r\n.\r\n").startswith(b"250 2.0.0 ")


@pytest.mark.rfc("2033 §5 each-reply-leaves-soon")
def test_each_reply_is_given_out_as_it_is_known() -> None:
    server = lmtp_server(MAIL + b"RCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\nDATA\r\n")
    server.receive_data(b"x\r\n.\r\n")
    assert [server.next_event(), server.next_event()] == [Content(b"x\r\n"), EndOfContent(3)]
    assert server.send(Reply(250, None, "one")) == b"250 one\r\n"
    assert server.replies_owed == 1  # and the other may take its time
    assert isinstance(server.next_event(), Signal)
    assert server.send(Reply(450, None, "two")) == b"450 two\r\n"


@pytest.mark.rfc("2033 §5 replies-are-processed-as-they-come")
def test_a_client_has_each_reply_as_it_comes() -> None:
    client = opened(OK, OK, OK).client
    client.send(Data())
    hear(client, b"354 go\r\n")
    client.send(EndOfContent())
    for number in range(3):
        assert client.owed == 1
        with pytest.raises(LocalProtocolError):
            client.send(Noop())
        assert hear(client, b"250 %d\r\n" % number) == [Reply(250, None, str(number))]
        assert client.next_event() is NEED_DATA
    assert (client.owed, client.state) == (0, State.READY)


@pytest.mark.rfc("2033 §5 replies-that-came-count")
@pytest.mark.parametrize("lost", [b"", b"250", b"250-two\r\n", b"421 bye\r\n"])
def test_replies_that_came_before_the_end_are_there(lost: bytes) -> None:
    client = opened(OK, OK, OK).client
    client.send(Data())
    hear(client, b"354 go\r\n")
    client.send(EndOfContent())
    client.receive_data(b"250 one\r\n550 two\r\n" + lost)
    client.receive_data(b"")
    assert client.next_event() == Reply(250, None, "one")
    assert client.next_event() == Reply(550, None, "two")
    if b"421" in lost:
        assert client.next_event() == Reply(421, None, "bye")
    assert client.next_event() == ConnectionClosed()
    with pytest.raises(LocalProtocolError):
        client.send(Quit())
