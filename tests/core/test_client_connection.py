"""The client's end: what it may send, and what it takes for an answer."""

import pytest

from smtpproto import (
    NEED_DATA,
    PAUSED,
    STANDARD,
    Auth,
    AuthResponse,
    ClientConnection,
    Command,
    ConnectionClosed,
    Content,
    Data,
    Ehlo,
    EndOfContent,
    Expn,
    Helo,
    Help,
    Limits,
    LocalProtocolError,
    Mail,
    Noop,
    Quit,
    Rcpt,
    RemoteProtocolError,
    Reply,
    Rset,
    Signal,
    StartTls,
    State,
    Vrfy,
)
from smtpproto.core.client_connection import ClientEvent

OFFER = (
    b"250-mx\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250-8BITMIME\r\n250-STARTTLS\r\n"
    b"250 AUTH PLAIN\r\n"
)


def hear(client: ClientConnection, octets: bytes) -> list[ClientEvent]:
    client.receive_data(octets)
    events: list[ClientEvent] = []
    while not isinstance(event := client.next_event(), Signal):
        events.append(event)
        if isinstance(event, ConnectionClosed):
            break
    return events


def in_state(client: ClientConnection, state: State) -> bool:
    return client.state is client.asked is state


def make(offer: bytes = OFFER, limits: Limits | None = None) -> ClientConnection:
    client = ClientConnection(STANDARD, limits=limits or Limits())
    hear(client, b"220 mx\r\n")
    client.send(Ehlo("c.example"))
    hear(client, offer)
    assert client.state is client.asked is State.READY
    return client


def cuts(octets: bytes) -> list[list[bytes]]:
    each = [octets[at : at + 1] for at in range(len(octets))]
    return [[octets], each, *([octets[:at], octets[at:]] for at in range(1, len(octets)))]


def test_nothing_is_sent_before_the_greeting() -> None:
    client = ClientConnection(STANDARD)
    assert (client.state, client.asked, client.owed) == (State.CONNECTED, State.GREETED, 1)
    for thing in (Ehlo("c"), Quit(), Noop(), Content(b""), EndOfContent()):
        with pytest.raises(LocalProtocolError):
            client.send(thing)
    assert hear(client, b"220 mx\r\n") == [Reply(220, None, "mx")]


@pytest.mark.rfc("5321 §3.1")
@pytest.mark.parametrize("greeting", [b"554 no\r\n", b"450 no\r\n"])
def test_after_a_refusing_greeting_only_quit(greeting: bytes) -> None:
    client = ClientConnection(STANDARD)
    hear(client, greeting)
    assert client.state is State.REFUSED
    with pytest.raises(LocalProtocolError):
        client.send(Ehlo("c"))
    assert client.send(Quit()) == b"QUIT\r\n"
    assert hear(client, b"221 bye\r\n") == [Reply(221, None, "bye"), ConnectionClosed()]


@pytest.mark.parametrize("command", [Mail("a@b"), Rcpt("a@b"), Data(), StartTls(), Auth("PLAIN")])
def test_out_of_sequence(command: Command) -> None:
    client = ClientConnection(STANDARD)
    hear(client, b"220 mx\r\n")
    with pytest.raises(LocalProtocolError):
        client.send(command)
    assert client.owed == 0


@pytest.mark.rfc("2920 §3.1")
def test_what_may_be_pipelined() -> None:
    client = make()
    for command in (
        Mail("a@b"),
        Rcpt("c@d"),
        Rcpt("e@f"),
        Rset(),
        Mail("a@b"),
        Rcpt("c@d"),
        Data(),
    ):
        client.send(command)
    assert client.owed == 7
    assert (client.state, client.asked) == (State.READY, State.CONTENT)
    for other in (Rset(), Quit(), Noop()):
        with pytest.raises(LocalProtocolError):
            client.send(other)
    with pytest.raises(LocalProtocolError):
        client.send(Content(b"x"))


@pytest.mark.parametrize(
    "last", [Ehlo("c"), Noop(), Vrfy("a"), Expn("a"), Help(), StartTls(), Quit(), Auth("PLAIN")]
)
def test_what_must_be_the_last_of_a_group(last: Command) -> None:
    client = make()
    client.send(Rset())
    client.send(last)
    with pytest.raises(LocalProtocolError):
        client.send(Rset())


def test_nothing_is_pipelined_unless_it_was_offered() -> None:
    client = make(b"250 mx\r\n")
    client.send(Mail("a@b"))
    with pytest.raises(LocalProtocolError):
        client.send(Rcpt("c@d"))
    hear(client, b"250 ok\r\n")
    client.send(Rcpt("c@d"))


def test_a_pipelined_group_of_which_some_fail() -> None:
    client = make()
    for command in (Mail("a@b"), Rcpt("c@d"), Rcpt("e@f"), Data()):
        client.send(command)
    hear(client, b"550 no\r\n503 no\r\n503 no\r\n503 no\r\n")
    assert in_state(client, State.READY)
    for command in (Mail("a@b"), Rcpt("c@d"), Rcpt("e@f"), Data()):
        client.send(command)
    hear(client, b"250 ok\r\n550 no\r\n450 no\r\n354 go\r\n")  # RFC 2920 §3.1
    assert in_state(client, State.CONTENT)
    assert client.send(EndOfContent()) == b".\r\n"
    hear(client, b"554 no valid recipients\r\n")
    assert client.state is State.READY


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


@pytest.mark.rfc("5321 §4.2")
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


@pytest.mark.rfc("5321 §4.2")
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


@pytest.mark.rfc("5321 §3.8")
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


@pytest.mark.rfc("3207 §4")
def test_octets_behind_the_220_to_starttls() -> None:
    octets = b"220 go\r\n250-evil\r\n250 AUTH PLAIN\r\n"
    for at in range(len(octets)):
        client = make()
        client.send(StartTls())
        with pytest.raises(RemoteProtocolError):  # noqa: PT012
            for piece in (octets[:at], octets[at:]):
                if piece:
                    hear(client, piece)
        assert client.state is State.CLOSED
    client = make()
    client.send(StartTls())
    assert hear(client, b"220 go\r\n") == [Reply(220, None, "go")]
    assert client.next_event() is PAUSED
    client.receive_data(b"250 evil\r\n")
    with pytest.raises(RemoteProtocolError):
        client.tls_started()


def test_tls_makes_forget() -> None:
    client = make()
    client.send(Auth("PLAIN", b"\0a\0b"))
    hear(client, b"235 in\r\n")
    assert client.authenticated
    client.send(StartTls())
    hear(client, b"220 go\r\n")
    with pytest.raises(LocalProtocolError):
        client.send(Ehlo("c"))
    client.tls_started()
    assert (client.offered, client.authenticated) == ({}, False)
    assert client.state is client.asked is State.GREETED
    assert client.tls is not None


def test_end_of_file_before_the_handshake() -> None:
    client = make()
    client.send(StartTls())
    hear(client, b"220 go\r\n")
    client.receive_data(b"")
    assert client.next_event() == ConnectionClosed()


@pytest.mark.parametrize("refusal", [b"454 no\r\n", b"502 no\r\n"])
def test_a_refused_starttls_leaves_all_as_it_was(refusal: bytes) -> None:
    client = make()
    client.send(StartTls())
    hear(client, refusal)
    assert client.state is State.READY
    with pytest.raises(LocalProtocolError):
        client.tls_started()


def test_nothing_is_sent_that_was_not_offered() -> None:
    client = make(b"250 mx\r\n")
    for command in (
        StartTls(),
        Auth("PLAIN"),
        Mail("a@b", {"SIZE": 1}),
        Mail("a@b", {"XYZ": None}),
    ):
        with pytest.raises(LocalProtocolError, match="does not offer"):
            client.send(command)
    client = make()
    for command in (
        Mail("a@b", {"SIZE": "x"}),
        Mail("a@b", {"BODY": "9BIT"}),
        Mail("a@b", {"X": None}),
    ):
        with pytest.raises(LocalProtocolError):
            client.send(command)
    assert (
        client.send(Mail("a@b", {"size": 9, "body": "8BITMIME"}))
        == b"MAIL FROM:<a@b> SIZE=9 BODY=8BITMIME\r\n"
    )


def test_a_client_that_knows_no_extensions_sends_none() -> None:
    client = ClientConnection()
    hear(client, b"220 mx\r\n")
    client.send(Ehlo("c.example"))
    hear(client, b"250-mx\r\n250 SIZE\r\n")
    for command in (StartTls(), Auth("PLAIN"), Mail("a@b", {"SIZE": 1})):
        with pytest.raises(LocalProtocolError, match="does not offer"):
            client.send(command)


def test_helo_forgets_what_ehlo_learned() -> None:
    client = make()
    client.send(Helo("c"))
    hear(client, b"250 mx\r\n")
    assert client.offered == {}


@pytest.mark.rfc("5321 §4.1.1.1")
def test_what_the_server_offers_is_read_widely() -> None:
    client = make(
        b"250-mx hello\r\n250-size 10\r\n250-AUTH  PLAIN   LOGIN \r\n250-AUTH=PLAIN\r\n250 \xff\r\n"
    )
    assert client.offered == {"SIZE": "10", "AUTH": "PLAIN LOGIN"}


@pytest.mark.rfc("5321 §4.5.3.1.4")
def test_lines_that_are_too_long_are_not_sent() -> None:
    client = make()
    assert len(client.send(Noop("x" * 505))) == 512
    hear(client, b"250 ok\r\n")
    with pytest.raises(LocalProtocolError):
        client.send(Noop("x" * 506))
    with pytest.raises(LocalProtocolError):  # RFC 4954 §4: an initial response has to fit
        client.send(Auth("PLAIN", b"x" * 400))
    assert client.state is State.READY


@pytest.mark.rfc("4954 §4")
def test_auth() -> None:
    client = make()
    assert client.send(Auth("plain")) == b"AUTH PLAIN\r\n"
    hear(client, b"334 \r\n")
    assert in_state(client, State.AUTH)
    with pytest.raises(LocalProtocolError):
        client.send(Noop())
    with pytest.raises(LocalProtocolError):
        client.send(AuthResponse(b"x" * 9217))
    assert len(client.send(AuthResponse(b"x" * 9216))) == 12_290
    hear(client, b"334 Zm9v\r\n")
    assert client.send(AuthResponse(None)) == b"*\r\n"
    hear(client, b"501 cancelled\r\n")
    assert client.state is State.READY
    client.send(Auth("PLAIN", b""))
    hear(client, b"235 in\r\n")
    assert client.authenticated
    with pytest.raises(LocalProtocolError):
        client.send(Auth("PLAIN"))


def test_implicit_tls() -> None:
    client = ClientConnection(STANDARD)
    client.tls_started()
    assert client.state is State.CONNECTED
    assert hear(client, b"220 mx\r\n") == [Reply(220, None, "mx")]
    client = ClientConnection(STANDARD)
    client.receive_data(b"220 in clear\r\n")
    with pytest.raises(RemoteProtocolError):
        client.tls_started()
