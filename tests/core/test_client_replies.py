"""What a client takes for an answer: hostile, odd, late and lost replies, at every split point."""

import pytest

from smtpproto import (
    NEED_DATA,
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
    StartTls,
    State,
)

from .hearing import cuts, hear, make


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
