"""The client's end: what it may send, and what it takes for an answer."""

from typing import Any

import pytest

from smtpproto import (
    PAUSED,
    STANDARD,
    Auth,
    AuthResponse,
    Chunk,
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
    Vrfy,
)
from smtpproto.core.command import BASE_VERBS, parse_command

from .hearing import OFFER, hear, in_state, make


def test_nothing_is_sent_before_the_greeting() -> None:
    client = ClientConnection(STANDARD)
    assert (client.state, client.asked, client.owed) == (State.CONNECTED, State.GREETED, 1)
    for thing in (Ehlo("c"), Quit(), Noop(), Content(b""), EndOfContent()):
        with pytest.raises(LocalProtocolError):
            client.send(thing)
    assert hear(client, b"220 mx\r\n") == [Reply(220, None, "mx")]


@pytest.mark.rfc("5321 §3.1 server-may-greet-with-554")
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
    name = type(command).__name__
    with pytest.raises(LocalProtocolError, match=f"{name} is out of sequence in GREETED"):
        client.send(command)
    assert client.owed == 0


@pytest.mark.rfc("2920 §3.1 rset-mail-and-rcpt-go-anywhere", "2920 §3.1 others-end-a-group")
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


@pytest.mark.rfc("3207 §6 nothing-of-before-is-kept")
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


@pytest.mark.rfc("3207 §4.2 client-forgets-what-came-in-clear")
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
    for command, keyword in (
        (StartTls(), "STARTTLS"),
        (Auth("PLAIN"), "AUTH"),
        (Mail("a@b", {"SIZE": 1}), "SIZE"),
    ):
        with pytest.raises(LocalProtocolError, match=f"does not offer {keyword}"):
            client.send(command)


def test_helo_forgets_what_ehlo_learned() -> None:
    client = make()
    client.send(Helo("c"))
    hear(client, b"250 mx\r\n")
    assert client.offered == {}


@pytest.mark.parametrize("line", [b"EHLO my_host", b"EHLO a..b", b"HELO _"])
def test_a_name_that_was_read_is_not_said_where_it_is_none(line: bytes) -> None:
    client = make()
    read = parse_command(line, BASE_VERBS)
    with pytest.raises(LocalProtocolError):
        client.send(read)
    assert client.owed == 0


@pytest.mark.rfc("5321 §4.1.1.1 ehlo-line", "5321 §4.1.1.1 keywords-are-read-in-any-case")
def test_what_the_server_offers_is_read_widely() -> None:
    client = make(
        b"250-mx hello\r\n250-size 10\r\n250-AUTH  PLAIN   LOGIN \r\n250-AUTH=PLAIN\r\n250 \xff\r\n"
    )
    assert client.offered == {"SIZE": "10", "AUTH": "PLAIN LOGIN"}


@pytest.mark.rfc("5321 §4.5.3.1.4 command-line-has-512-octets-at-most")
def test_lines_that_are_too_long_are_not_sent() -> None:
    client = make()
    assert len(client.send(Noop("x" * 505))) == 512
    hear(client, b"250 ok\r\n")
    with pytest.raises(LocalProtocolError):
        client.send(Noop("x" * 506))
    with pytest.raises(LocalProtocolError):  # RFC 4954 §4: an initial response has to fit
        client.send(Auth("PLAIN", b"x" * 400))
    assert client.state is State.READY


@pytest.mark.rfc("4954 §4 auth-line-is-no-longer-than-others")
def test_the_auth_line_has_512_octets_at_most() -> None:
    client = make(b"250-mx\r\n250 AUTH LOGIN PLAI\r\n")
    response = b"x" * 375  # 500 octets in base64
    with pytest.raises(LocalProtocolError, match="512"):
        client.send(Auth("LOGIN", response))
    assert len(client.send(Auth("PLAI", response))) == 512


@pytest.mark.parametrize("thing", [b"NOOP\r\n", "NOOP", Noop, None])
def test_what_cannot_be_sent_is_told_so(thing: Any) -> None:
    client = make()
    with pytest.raises(LocalProtocolError, match="octets go as Content"):
        client.send(thing)
    for command, reply in ((Mail("a@b"), b"250 "), (Rcpt("c@d"), b"250 "), (Data(), b"354 ")):
        client.send(command)
        hear(client, reply + b"x\r\n")
    with pytest.raises(LocalProtocolError, match="octets go as Content"):
        client.send(thing)
    assert client.send(EndOfContent()) == b".\r\n"


BEYOND_ASCII = Content("é\r\n".encode())


def ready_for_content(
    parameters: dict[str, str | None], *, any_octets: bool = False
) -> ClientConnection:
    client = ClientConnection(STANDARD, any_octets=any_octets)
    hear(client, b"220 mx\r\n")
    for command, reply in (
        (
            Ehlo("c"),
            OFFER.replace(b"250 ", b"250-SMTPUTF8\r\n250-BINARYMIME\r\n250-CHUNKING\r\n250 "),
        ),
        (Mail("a@b", parameters), b"250 \r\n"),
        (Rcpt("c@d"), b"250 \r\n"),
    ):
        client.send(command)
        hear(client, reply)
    return client


@pytest.mark.rfc(
    "6152 §3 no-8-bit-where-it-is-not-offered",
    "6152 §3 body-says-what-data-carries",
    "5321 §2.4 no-8-bit-content-without-an-extension",
)
def test_content_beyond_ascii_is_declared() -> None:
    client = ready_for_content({})
    client.send(Data())
    hear(client, b"354 \r\n")
    client.send(Content(b"x\x7f\r\n"))
    with pytest.raises(LocalProtocolError, match="BODY=8BITMIME"):
        client.send(BEYOND_ASCII)
    with pytest.raises(LocalProtocolError):  # half a message is not ended as if it were whole
        client.send(EndOfContent())


def test_a_chunk_beyond_ascii_is_declared() -> None:
    client = ready_for_content({})
    for last in (False, True):
        with pytest.raises(LocalProtocolError, match="BODY=8BITMIME"):
            client.send(Chunk(BEYOND_ASCII.data, last))
    assert client.send(Rset()) == b"RSET\r\n"


@pytest.mark.parametrize("parameters", [{"BODY": "8bitmime"}, {"SMTPUTF8": None}])
def test_declared_content_beyond_ascii_is_sent(parameters: dict[str, str | None]) -> None:
    client = ready_for_content(parameters)
    client.send(Data())
    hear(client, b"354 \r\n")
    assert client.send(BEYOND_ASCII) == BEYOND_ASCII.data
    for body in ("BINARYMIME", "8BITMIME"):
        client = ready_for_content({"BODY": body})
        assert client.send(Chunk(BEYOND_ASCII.data)).endswith(BEYOND_ASCII.data)


def test_a_caller_may_send_any_octets() -> None:
    client = ready_for_content({}, any_octets=True)
    assert client.send(Chunk(BEYOND_ASCII.data)).endswith(BEYOND_ASCII.data)
    with pytest.raises(LocalProtocolError, match="bare CR"):
        client.send(Chunk(b"\n"))


@pytest.mark.rfc("4954 §3 mechanisms-are-listed")
@pytest.mark.parametrize("listed", [b"AUTH PLAIN", b"AUTH", b"AUTH CRAM-MD5X XCRAM-MD5"])
def test_no_mechanism_is_asked_for_that_is_not_offered(listed: bytes) -> None:
    client = make(b"250-mx\r\n250 " + listed + b"\r\n")
    with pytest.raises(LocalProtocolError, match="does not offer AUTH CRAM-MD5"):
        client.send(Auth("CRAM-MD5"))
    assert in_state(client, State.READY)


def test_mechanisms_are_offered_in_any_case() -> None:
    client = make(b"250-mx\r\n250 AUTH plain Login\r\n")
    assert client.send(Auth("LOGIN")) == b"AUTH LOGIN\r\n"


@pytest.mark.rfc("4954 §4 only-one-login", "4954 §4 star-cancels", "4954 §4 long-lines-are-handled")
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


def test_behind_the_end_there_is_no_more_content() -> None:
    client = make()
    for command in (Mail("a@b"), Rcpt("c@d"), Data()):
        client.send(command)
    hear(client, b"250 a\r\n250 b\r\n354 c\r\n")
    client.send(EndOfContent())
    hear(client, b"250 taken\r\n")
    for thing in (Content(b"x"), EndOfContent()):
        with pytest.raises(LocalProtocolError, match="after the 354"):
            client.send(thing)


@pytest.mark.rfc("4954 §4 star-cancels", "4954 §4 cancelled-exchange-gets-501")
@pytest.mark.parametrize("code", [235, 250, 334, 354, 400, 421, 454, 501, 535])
def test_a_cancelled_auth_is_refused_and_nothing_else(code: int) -> None:
    client = make()
    client.send(Auth("PLAIN"))
    hear(client, b"334 \r\n")
    client.send(AuthResponse(None))
    client.receive_data(b"%d x\r\n" % code)
    if code < 400:
        with pytest.raises(RemoteProtocolError):
            client.next_event()
        assert not client.authenticated
    else:
        assert client.next_event() == Reply(code, None, "x")
        assert client.state is (State.CLOSED if code == 421 else State.READY)


# What a transaction asked for, where parts of a pipelined group fail

ASKING = Mail("a@b", {"SMTPUTF8": None})
UTF8 = b"250-mx\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-CHUNKING\r\n250 SMTPUTF8\r\n"
NON_ASCII = Rcpt("é@d.example")


@pytest.mark.rfc("6531 §3.1 parameter-opens-the-whole-transaction")
@pytest.mark.parametrize("asks", [True, False])
def test_a_refused_mail_does_not_matter_to_the_next_that_is_on_its_way(asks: bool) -> None:
    first, second = (Mail("a@b"), ASKING) if asks else (ASKING, Mail("a@b"))
    client = make(UTF8)
    for command in (first, Rset(), second):
        client.send(command)
    hear(client, b"550 no\r\n")
    if asks:
        client.send(NON_ASCII)
    else:
        with pytest.raises(LocalProtocolError, match="SMTPUTF8"):
            client.send(NON_ASCII)
