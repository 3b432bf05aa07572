"""What a client takes for an answer: hostile, odd, late and lost replies, at every split point."""

import pytest

from smtpproto import (
    NEED_DATA,
    Chunk,
    ClientConnection,
    Command,
    ConnectionClosed,
    Content,
    Data,
    Ehlo,
    EndOfContent,
    Limits,
    LocalProtocolError,
    Mail,
    Noop,
    Quit,
    Rcpt,
    RemoteProtocolError,
    Reply,
    Rset,
    StartTls,
    State,
)

from .hearing import OFFER, cuts, hear, in_state, make


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        (Mail("a@b"), b"354 go\r\n"),
        (Data(), b"250 ok\r\n"),
        (Ehlo("c"), b"354 x\r\n"),
        (Noop(), b"334 x\r\n"),
        (StartTls(), b"334 x\r\n"),
    ],
)
def test_answers_that_are_none(asked: Command, answer: bytes) -> None:
    for pieces in cuts(answer):
        client = make()
        if isinstance(asked, Data):
            client.send(Mail("a@b"))
            client.send(Rcpt("c@d"))
            hear(client, b"250 a\r\n250 b\r\n")
        client.send(asked)
        with pytest.raises(RemoteProtocolError):  # noqa: PT012
            for piece in pieces:
                hear(client, piece)
        assert client.next_event() == ConnectionClosed()
        assert client.asked is State.CLOSED


#: Ways into a transaction, each with its replies.
TRANSACTIONS: list[tuple[list[Command | Chunk], bytes]] = [
    ([Mail("a@b")], b"250 a\r\n"),
    ([Mail("a@b"), Rcpt("c@d")], b"250 a\r\n250 b\r\n"),
    ([Mail("a@b"), Rcpt("c@d"), Chunk(b"e")], b"250 a\r\n250 b\r\n250 c\r\n"),
    ([Mail("a@b"), Rcpt("c@d"), Chunk(b"e")], b"250 a\r\n250 b\r\n554 c\r\n"),
]


def within(begun: list[Command | Chunk], replies: bytes) -> ClientConnection:
    client = make(OFFER.replace(b"250 AUTH", b"250-CHUNKING\r\n250 AUTH"))
    for thing, reply in zip(begun, replies.splitlines(keepends=True), strict=True):
        client.send(thing)
        hear(client, reply)
    return client


@pytest.mark.parametrize("refusal", [b"450 no\r\n", b"500-what\r\n500 no\r\n", b"554\r\n"])
@pytest.mark.parametrize(("begun", "replies"), TRANSACTIONS)
def test_a_refused_rset_is_the_end_where_there_was_something_to_drop(
    begun: list[Command | Chunk], replies: bytes, refusal: bytes
) -> None:
    """Nobody can say whose recipients the next message would go to (RFC 5321 §4.1.1.5)."""
    for pieces in cuts(refusal):
        client = within(begun, replies)
        for command in (Rset(), Mail("x@y"), Rcpt("e@f"), Data()):
            client.send(command)
        with pytest.raises(RemoteProtocolError):  # noqa: PT012
            for piece in pieces:
                hear(client, piece)
        # What a server goes on with is heard no more: its 354 would be for the old recipients.
        assert hear(client, b"503 nested\r\n250 ok\r\n354 go\r\n") == [ConnectionClosed()]
        with pytest.raises(LocalProtocolError):
            client.send(Content(b"x"))


# Both of these were found by fuzzing, when a refused RSET still left its transaction open: MAIL was
# pipelined behind it, was refused as a second one, and yet counted for what came then.


def test_a_mail_that_never_was_makes_no_content_binary() -> None:
    """BODY=BINARYMIME of the refused MAIL let a bare CR into the open 7-bit transaction."""
    client = make(b"250-mx\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 BINARYMIME\r\n")
    for command in (Mail("a@b"), Rcpt("c@d"), Rset(), Mail("a@b", {"BODY": "BINARYMIME"})):
        client.send(command)
    with pytest.raises(RemoteProtocolError, match="500 is no answer to Rset"):
        hear(client, b"250 mail\r\n250 rcpt\r\n500 rset\r\n503 nested\r\n")
    with pytest.raises(LocalProtocolError):
        client.send(Chunk(b"bare\r", last=True))


def test_a_mail_that_never_was_forgets_no_recipient_of_lmtp() -> None:
    """It set the number of recipients to 0, and so made the 354 that followed a lie."""
    client = make(lmtp=True)
    for command in (Mail("a@b"), Rcpt("c@d"), Rset(), Mail("e@f"), Data()):
        client.send(command)
    with pytest.raises(RemoteProtocolError, match="500 is no answer to Rset"):
        hear(client, b"250 mail\r\n250 rcpt\r\n500 rset\r\n503 nested\r\n354 go\r\n")
    assert client.state is State.CLOSED


@pytest.mark.parametrize("greeted", [True, False])
def test_a_refused_rset_is_nothing_where_there_was_nothing_to_drop(greeted: bool) -> None:
    """RFC 3207 §4: a server that demands TLS may say 530 to it."""
    client = make() if greeted else ClientConnection()
    if not greeted:
        hear(client, b"220 mx\r\n")
    client.send(Rset())
    assert hear(client, b"530 5.7.0 STARTTLS first\r\n") == [
        Reply(530, "5.7.0", "STARTTLS first"),
    ]
    assert in_state(client, State.READY if greeted else State.GREETED)


def test_rset_behind_a_refused_mail_has_nothing_to_drop() -> None:
    client = make()
    for command in (Mail("a@b"), Rset(), Mail("x@y")):
        client.send(command)
    hear(client, b"550 no\r\n530 no\r\n250 ok\r\n")
    assert in_state(client, State.MAIL)


@pytest.mark.parametrize(
    "octets",
    [
        b"hello\r\n", b"250-a\r\n251 b\r\n", b"250-a\r\nb\r\n", b"\r\n", b"250 a\rb\r\n",
        b"250 a\nb\r\n", b"1\r\n", b"HTTP/1.1 200 OK\r\n", b"\x15\x03\x01\r\n",
    ],
)  # fmt: skip
def test_lines_that_are_no_reply(octets: bytes) -> None:
    for pieces in cuts(octets):
        client = make()
        client.send(Noop())
        with pytest.raises(RemoteProtocolError):  # noqa: PT012
            for piece in pieces:
                hear(client, piece)


@pytest.mark.parametrize(
    "step", [b"250-x\r\n", b"2", b"250 " + b"y" * 100, b"\r", b"\n", b"250-\r\n"]
)
def test_replies_without_end(step: bytes) -> None:
    client = make(limits=Limits(reply=2000))
    client.send(Noop())
    with pytest.raises(RemoteProtocolError):  # noqa: PT012
        for _ in range(2100):
            hear(client, step)
            assert client.buffered <= 2000
    assert client.buffered == 0


@pytest.mark.rfc("5321 §4.2 any-text-is-taken")
def test_a_reply_may_have_as_many_octets_as_agreed() -> None:
    for surplus in (0, 1, 2, 3, 100):
        client = make(limits=Limits(reply=500))
        client.send(Noop())
        octets = b"250 " + b"x" * (494 + surplus) + b"\r\n"
        if surplus:
            with pytest.raises(RemoteProtocolError):
                hear(client, octets)
        else:
            assert len(hear(client, octets)) == 1


def test_an_ehlo_reply_of_ten_thousand_lines_is_read_where_it_is_allowed() -> None:
    offer = b"".join(b"250-X%d\r\n" % number for number in range(10_000)) + b"250 HELP\r\n"
    client = make(offer, Limits(reply=len(offer)))
    assert len(client.offered) == 10_000  # the first line is a greeting
    with pytest.raises(RemoteProtocolError, match="more than"):
        make(offer, Limits(reply=len(offer) - 1))


def test_odd_lines_of_an_ehlo_reply() -> None:
    """Of a keyword that stands twice the last line counts; what is no ehlo-line is passed over."""
    client = make(
        b"250-mx\r\n250-SIZE 10\r\n250-size 20\r\n250-AUTH=PLAIN\r\n250-\xc5\xbfIZE 30\r\n"
        b"250-\xff\r\n250- SIZE 40\r\n250-SIZE\t50\r\n250-SIZE\x0b60\r\n250-\r\n250 -A\r\n"
    )
    assert client.offered == {"SIZE": "20"}
    with pytest.raises(LocalProtocolError):
        client.send(Mail("a@b", {"SIZE": 21}))


@pytest.mark.parametrize("limit", [b"", b"9" * 5000, b"-1", b"1_0", b"0x10", b"1 2", b"10.0"])
def test_a_size_that_is_none_limits_nothing(limit: bytes) -> None:
    """Python makes no number of 5,000 digits, and one of `1_0`."""
    client = make(b"250-mx\r\n250 SIZE " + limit + b"\r\n")
    assert client.send(Mail("a@b", {"SIZE": 11})) == b"MAIL FROM:<a@b> SIZE=11\r\n"


@pytest.mark.parametrize("surplus", [0, 1])
def test_a_line_that_has_not_ended_is_without_end_beyond_that(surplus: int) -> None:
    client = make(limits=Limits(reply=500))
    client.send(Noop())
    client.receive_data(b"250 " + b"x" * (496 + surplus))
    if surplus:
        with pytest.raises(RemoteProtocolError):
            client.next_event()
    else:
        assert client.next_event() is NEED_DATA


@pytest.mark.rfc("5321 §4.2 bare-code-is-a-reply", "5321 §4.2 any-text-is-taken")
def test_odd_replies_that_are_some() -> None:
    for octets in (
        b"250\r\n",
        b"250 \r\n",
        b"250 \xff\xfe caf\xc3\xa9\r\n",
        b"259 x\r\n",
        b"299 x\r\n",
    ):
        for pieces in cuts(octets):
            client = make()
            client.send(Noop())
            events = [event for piece in pieces for event in hear(client, piece)]
            assert events == [Reply.parse(octets)]


def test_a_reply_that_nobody_asked_for() -> None:
    for pieces in cuts(b"250 surprise\r\n"):
        client = make()
        with pytest.raises(RemoteProtocolError):  # noqa: PT012
            for piece in pieces:
                hear(client, piece)


@pytest.mark.parametrize("early", [b"250 early\r\n", b"2", b"250-early\r\n"])
def test_it_never_answers_the_next_command(early: bytes) -> None:
    client = make()
    client.receive_data(early)
    if early != b"250 early\r\n":
        assert client.next_event() is NEED_DATA
    with pytest.raises(LocalProtocolError):
        client.send(Noop())


@pytest.mark.parametrize("early", [b"250 early\r\n", b"25"])
def test_nor_the_end_of_content(early: bytes) -> None:
    client = make()
    for command in (Mail("a@b"), Rcpt("c@d"), Data()):
        client.send(command)
    hear(client, b"250 a\r\n250 b\r\n354 c\r\n")
    client.send(Content(b"hi\r\n"))
    client.receive_data(early)
    with pytest.raises(LocalProtocolError):
        client.send(EndOfContent())
    assert client.state is State.CONTENT


@pytest.mark.parametrize("pulled", [False, True])
def test_nor_a_pipelined_command(pulled: bool) -> None:
    for at in range(1, len(b"250 b\r\n") + 1):
        client = make()
        client.send(Mail("a@b"))
        client.receive_data(b"250 a\r\n" + b"250 b\r\n"[:at])
        client.send(Rcpt("c@d"))  # the second reply began before this
        assert client.next_event() == Reply(250, None, "a")
        client.receive_data(b"250 b\r\n"[at:] or b"250 c\r\n")
        with pytest.raises(RemoteProtocolError):
            client.next_event()
    client = make()
    client.send(Mail("a@b"))
    client.receive_data(b"250-a\r\n")  # half of its answer is no reason not to go on
    if pulled:
        client.next_event()
    client.send(Rcpt("c@d"))
    assert hear(client, b"250 a\r\n250 b\r\n") == [
        Reply(250, None, ["a", "a"]),
        Reply(250, None, "b"),
    ]
    assert client.state is State.RCPT


@pytest.mark.rfc("5321 §3.8 421-may-be-said-at-any-time")
@pytest.mark.parametrize("owed", [0, 1, 3])
def test_421_at_any_moment_is_an_event_and_closes(owed: int) -> None:
    for pieces in cuts(b"421 4.3.2 going down\r\n"):
        client = make()
        for command in (Mail("a@b"), Rcpt("c@d"), Data())[:owed]:
            client.send(command)
        events = [event for piece in pieces for event in hear(client, piece)]
        assert events == [Reply(421, "4.3.2", "going down"), ConnectionClosed()]
        assert client.state is client.asked is State.CLOSED
        with pytest.raises(LocalProtocolError):
            client.send(Quit())


def test_421_in_the_middle_of_content() -> None:
    client = make()
    for command in (Mail("a@b"), Rcpt("c@d"), Data()):
        client.send(command)
    hear(client, b"250 a\r\n250 b\r\n354 c\r\n")
    client.send(Content(b"hi\r\n"))
    assert hear(client, b"421 no\r\n")[0] == Reply(421, None, "no")


def test_end_of_file_at_every_octet() -> None:
    octets = b"250-a\r\n250 b\r\n354 c\r\n"
    for at in range(len(octets)):
        client = make()
        for command in (Mail("a@b"), Rcpt("c@d"), Data()):
            client.send(command)
        if at:
            hear(client, octets[:at])
        client.receive_data(b"")
        assert client.next_event() == client.next_event() == ConnectionClosed()


@pytest.mark.rfc("5321 §4.2.5 without-2yz-the-client-keeps-it")
@pytest.mark.parametrize("lost", [b"", b"421 4.3.2 going down\r\n"], ids=["EOF", "421"])
def test_lost_behind_the_final_dot_at_every_octet(lost: bytes) -> None:
    """Whether the message was taken, nobody can know: no reply to its end was ever pulled."""
    for at in range(len(octets := lost or b"250-a\r\n250 b\r\n")):
        client = make()
        for command in (Mail("a@b"), Rcpt("c@d"), Data()):
            client.send(command)
        hear(client, b"250 a\r\n250 b\r\n354 c\r\n")
        client.send(EndOfContent())
        events = hear(client, octets[:at]) if at else []
        if lost:
            events += hear(client, octets[at:])
            assert events == [Reply(421, "4.3.2", "going down"), ConnectionClosed()]
        else:
            client.receive_data(b"")
            assert [*events, client.next_event()] == [ConnectionClosed()]
            assert client.owed == 1
        assert client.state is State.CLOSED


@pytest.mark.rfc("5321 §4.3.2 unrecognized-codes-are-handled")
@pytest.mark.parametrize("code", [b"200", b"259", b"299", b"400", b"499", b"500", b"599"])
def test_an_unlisted_code_moves_as_its_first_digit_does(code: bytes) -> None:
    good = code[:1] == b"2"
    for pieces in cuts(code + b" what is that?\r\n"):
        client = make()
        client.send(Mail("a@b"))
        hear(client, b"250 ok\r\n")
        client.send(Rcpt("c@d"))
        for piece in pieces:
            hear(client, piece)
        assert client.state is (State.RCPT if good else State.MAIL)
