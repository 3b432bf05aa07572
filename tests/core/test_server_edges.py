"""Promises of ServerConnection at their very edge, each found by a mutant that nobody noticed."""

from typing import Self

import pytest
from attrs import frozen

from smtpproto import (
    NEED_DATA,
    PAUSED,
    Auth,
    BadCommand,
    Bdat,
    Command,
    ConnectionClosed,
    Data,
    EndOfChunk,
    EndOfContent,
    Expn,
    Extension,
    Limits,
    LocalProtocolError,
    Mail,
    Parameters,
    Rcpt,
    RemoteProtocolError,
    Reply,
    ServerConnection,
    StartTls,
    State,
    Vrfy,
)
from smtpproto.core import refusal
from smtpproto.core.command import NOT_IMPLEMENTED, AuthResponse
from smtpproto.core.offer import UNKNOWN_PARAMETER
from smtpproto.core.reception import BARE_LINE_END
from smtpproto.extensions import (
    AUTH,
    BINARYMIME,
    CHUNKING,
    EIGHTBITMIME,
    ENHANCEDSTATUSCODES,
    EXPN,
)
from smtpproto.mechanisms import PLAIN
from smtpproto.testing.pair import answer

from .serving import HELLO, make


def test_a_closing_reply_is_cut_where_its_line_is_full() -> None:
    name = ".".join(["n" * 63] * 4)
    server = ServerConnection(name)
    closing = server.closing(Reply(421, "4.999.999", "x" * 490))
    assert len(closing.serialize()) <= 512
    assert closing.text.startswith(f"{name} xxx")
    server = ServerConnection("mx.example")
    full = Reply(421, "4.3.2", "x" * 500)
    assert server.closing(full) == Reply(421, "4.3.2", "mx.example " + "x" * 489)


@pytest.mark.rfc("5321 §4.2.2 closing-codes-name-the-server")
def test_a_name_stands_before_a_closing_reply_once() -> None:
    server = ServerConnection("mx.example")
    once = server.closing(Reply(421, "4.3.2", ["going", "down"]))
    assert once == Reply(421, "4.3.2", ["mx.example going", "down"])
    assert server.closing(once) is once
    assert server.closing(Reply(421)).serialize() == b"421 mx.example\r\n"
    assert server.closing(Reply(421, None, "MX.example")).lines == (b"MX.example",)
    assert server.closing(Reply(421, None, "mx.example.org")).lines != (b"mx.example.org",)


def test_what_is_known_before_the_client_spoke() -> None:
    server = ServerConnection("mx.example")
    assert server.helo_name is None
    assert server.extended is False
    assert server.early_talker is False


@pytest.mark.parametrize(("lmtp", "greeting"), [(False, "ESMTP"), (True, "LMTP")])
def test_the_greeting_names_the_protocol(lmtp: bool, greeting: str) -> None:
    server = ServerConnection("mx.example", lmtp=lmtp)
    assert server.suggested_reply().lines == (f"mx.example {greeting}".encode(),)


def test_the_longest_name_is_cut_at_200_octets_where_it_is_greeted() -> None:
    server = make()
    server.receive_data(b"EHLO " + b"a." * 120 + b"b\r\n")
    server.next_event()
    assert server.suggested_reply().lines[0] == b"mx.example greets " + b"a." * 100


@pytest.mark.parametrize("surplus", [0, 1])
def test_a_line_is_without_end_beyond_the_limit(surplus: int) -> None:
    server = make(HELLO, limits=Limits(endless_line=1000))
    server.receive_data(b"N" * (998 + surplus) + b"\r\n")
    if surplus:
        with pytest.raises(RemoteProtocolError):
            server.next_event()
    else:
        assert isinstance(server.next_event(), BadCommand)


@pytest.mark.parametrize("surplus", [0, 1])
def test_an_unfinished_line_is_without_end_beyond_the_limit(surplus: int) -> None:
    server = make(HELLO, limits=Limits(endless_line=1000))
    server.receive_data(b"N" * (1000 + surplus))
    if surplus:
        with pytest.raises(RemoteProtocolError):
            server.next_event()
    else:
        assert server.next_event() is NEED_DATA


def responding() -> ServerConnection:
    server = make(HELLO)
    server.receive_data(b"AUTH LOGIN\r\n")
    server.next_event()
    server.send(Reply(334, None, "VXNlcm5hbWU6"))
    return server


@pytest.mark.rfc("4954 §4 12288-octets-are-enough")
@pytest.mark.parametrize("surplus", [0, 1])
def test_a_response_has_12288_octets_before_its_line_end(surplus: int) -> None:
    server = responding()
    line = b"*" * surplus + b"A" * 12288
    server.receive_data(line + b"\r\n")
    event = server.next_event()
    if surplus:
        assert isinstance(event, BadCommand)
        assert event.line == line[: len(event.line)]
        assert str(event.reply.status) == "5.5.6"
    else:
        assert isinstance(event, AuthResponse)


def test_what_is_no_response_is_told_as_it_came() -> None:
    server = responding()
    server.receive_data(b"?\r\n")
    event = server.next_event()
    assert isinstance(event, BadCommand)
    assert event.line == b"?"


@pytest.mark.rfc("4954 §4 star-cancels", "4954 §4 cancelled-exchange-gets-501")
@pytest.mark.parametrize("code", [235, 250, 334])
def test_a_cancelled_login_is_refused_and_nothing_else(code: int) -> None:
    server = responding()
    server.receive_data(b"*\r\n")
    assert server.next_event() == AuthResponse(None)
    with pytest.raises(LocalProtocolError):
        server.send(Reply(code))
    server.send(server.suggested_reply())
    assert server.state is State.READY
    assert not server.authenticated


TRANSACTION = HELLO + b"MAIL FROM:<a@b>\r\n"
BINARY = HELLO + b"MAIL FROM:<a@b> BODY=BINARYMIME\r\nRCPT TO:<c@d>\r\n"
UNKNOWN = Parameters({"X": b"1"})


@pytest.mark.parametrize(
    ("before", "refused", "reply"),
    [
        (HELLO, Bdat(0), refusal.OUT_OF_SEQUENCE[State.READY]),
        (HELLO, Rcpt("a@b"), refusal.OUT_OF_SEQUENCE[State.READY]),
        (TRANSACTION, Mail("a@b"), refusal.OUT_OF_SEQUENCE[State.MAIL]),
        (TRANSACTION, Data(), refusal.NO_RECIPIENT),
        (TRANSACTION, Bdat(0), refusal.NO_RECIPIENT),
        (TRANSACTION, Rcpt("é@b"), refusal.NON_ASCII_RECIPIENT),
        (TRANSACTION, Rcpt("a@b", UNKNOWN), UNKNOWN_PARAMETER),
        (BINARY, Data(), refusal.NO_BINARY),
        (BINARY, Rcpt("e@f"), refusal.TOO_MANY_RECIPIENTS),
        (BINARY, Rcpt("e@f", UNKNOWN), refusal.TOO_MANY_RECIPIENTS),
        (HELLO, Mail("é@b"), refusal.NON_ASCII_SENDER),
        (HELLO, Mail("a@b", Parameters({"X": "é".encode()})), refusal.NON_ASCII_VALUE),
        (HELLO, Mail("a@b", Parameters({"BODY": b"9BIT"})), None),
        (HELLO, Vrfy("é"), refusal.NON_ASCII_RECIPIENT),
        (HELLO, Vrfy("a", smtputf8=True), refusal.NO_UTF8_REPLIES),
        (HELLO, Auth("NONE"), Auth.suggested),
        (HELLO, Mail("é@b", Parameters({"SMTPUTF8": None, "X": "é".encode()})), UNKNOWN_PARAMETER),
        (HELLO, Expn("a"), NOT_IMPLEMENTED),
    ],
    ids=lambda value: value.decode().split()[-1] if isinstance(value, bytes) else None,
)
def test_what_is_refused_is_told_with_the_command_that_it_is(
    before: bytes, refused: Command, reply: Reply | None
) -> None:
    offer = (AUTH, CHUNKING, BINARYMIME, EIGHTBITMIME)
    server = ServerConnection(
        "mx.example",
        (*offer, EXPN),
        offer=offer,
        limits=Limits(recipients=1),
        mechanisms=(PLAIN,),
        plaintext_auth=True,
    )
    answer(server)
    server.receive_data(before)
    answer(server)
    line = refused.serialize()
    server.receive_data(line)
    event = server.next_event()
    assert isinstance(event, BadCommand)
    assert event.line == line[:-2]
    assert event.command == refused
    assert reply is None or event.reply is reply


def test_a_second_starttls_and_a_second_login_are_told_so() -> None:
    server = make()
    server.receive_data(b"EHLO c.example\r\nSTARTTLS\r\n")
    answer(server)
    server.tls_started()
    server.receive_data(HELLO + b"STARTTLS\r\n")
    server.next_event()
    server.send(server.suggested_reply())
    event = server.next_event()
    assert event == BadCommand(b"STARTTLS", refusal.ALREADY_TLS, StartTls())
    server.send(refusal.ALREADY_TLS)
    server.receive_data(b"AUTH PLAIN AGEAYg==\r\nAUTH PLAIN\r\n")
    server.next_event()
    server.send(Reply(235, None, "ok"))
    assert server.next_event() == BadCommand(b"AUTH PLAIN", refusal.ALREADY_IN, Auth("PLAIN"))


@pytest.mark.parametrize("octets", [-1, 0, 10**20])
def test_a_limit_can_be_announced(octets: int) -> None:
    with pytest.raises(LocalProtocolError):
        Limits(message=octets)


@pytest.mark.rfc(
    "4954 §4 unusable-mechanism-gets-504", "4954 §4 unusable-mechanism-has-status-5-5-4"
)
def test_auth_without_a_mechanism_for_now_is_told_so() -> None:
    """PLAIN is known and not possible in clear, so AUTH is not offered."""
    server = ServerConnection("mx.example", (AUTH,), mechanisms=(PLAIN,), tls_available=True)
    answer(server)
    server.receive_data(HELLO)
    answer(server)
    assert "AUTH" not in server.offered
    server.receive_data(b"AUTH PLAIN\r\n")
    assert server.next_event() == BadCommand(b"AUTH PLAIN", Auth.suggested, Auth("PLAIN"))


def test_a_judge_is_asked_about_verbs_of_extensions_and_of_no_others() -> None:
    asked: list[Command] = []
    refused = Reply(550, "5.7.1", "Not this one")

    def judge(command: Command, offered: object) -> Reply | None:
        asked.append(command)
        return refused if command == Expn("secret") else None

    listing = Extension("EXPN", verbs=(Expn,), judge=judge)
    server = ServerConnection("mx.example", (listing,))
    answer(server)
    server.receive_data(HELLO + b"NOOP\r\nVRFY x\r\nEXPN open\r\nMAIL FROM:<a@b>\r\nRSET\r\n")
    events, _ = answer(server)
    assert Expn("open") in events
    assert asked == [Expn("open")]
    server.receive_data(b"EXPN secret\r\n")
    assert server.next_event() == BadCommand(b"EXPN secret", refused, Expn("secret"))
    assert server.suggested_reply() is refused


@pytest.mark.parametrize("budget", [0, 1])
def test_beyond_the_error_budget_policy_cannot_accept_either(budget: int) -> None:
    server = make(HELLO, limits=Limits(bad_commands=budget))
    server.receive_data(b"MAIL FROM:<a@b> X=1\r\n")  # a policy may know it
    event = server.next_event()
    assert isinstance(event, BadCommand)
    if budget:
        server.send(Reply(250))
        assert server.state is State.MAIL
    else:
        assert event.reply.code == 421
        with pytest.raises(LocalProtocolError):
            server.send(Reply(250))


@pytest.mark.rfc("3030 §2 text-has-line-ends-of-crlf")
def test_a_cr_at_the_end_of_the_last_chunk_stands_alone_and_of_another_may_not() -> None:
    server = ServerConnection("mx.example", (CHUNKING,))
    server.receive_data(TRANSACTION + b"RCPT TO:<c@d>\r\nBDAT 2\r\na\rBDAT 2 LAST\r\n\n\r")
    events, _ = answer(server)
    *_, chunk, _, _, end = events
    assert isinstance(chunk, EndOfChunk)
    assert chunk.fault is None
    assert isinstance(end, EndOfContent)
    assert end.fault is BARE_LINE_END


def test_only_lmtp_answers_the_last_chunk_for_each_recipient() -> None:
    for lmtp in (False, True):
        server = ServerConnection("mx.example", (CHUNKING,), lmtp=lmtp)
        hello = b"LHLO c\r\n" if lmtp else HELLO
        to = b"RCPT TO:<c@d>\r\n"
        server.receive_data(
            hello + b"MAIL FROM:<a@b>\r\n" + 2 * to + b"BDAT 1\r\n\nBDAT 1 LAST\r\nx"
        )
        while not (isinstance(event := server.next_event(), BadCommand)):
            if event is PAUSED:
                server.send(server.suggested_reply())
        assert event.command == Bdat(1, last=True)
        assert server.replies_owed == (2 if lmtp else 1)


@pytest.mark.parametrize(
    ("before", "reply", "words"),
    [
        ((), 354, "354 is no answer to Greeting in CONNECTED"),
        ((HELLO,), 354, "354 is no answer to EHLO in GREETED"),
        ((TRANSACTION, b"DATA\r\n"), 354, "354 is no answer to Command in MAIL"),
        (
            (TRANSACTION + b"RCPT TO:<c@d>\r\n", b"DATA\r\n"),
            250,
            "250 is no answer to DATA in RCPT",
        ),
    ],
)
def test_who_answers_wrongly_is_told_to_what(
    before: tuple[bytes, ...], reply: int, words: str
) -> None:
    server = ServerConnection("mx.example")
    for octets in before[:-1]:
        server.receive_data(octets)
        answer(server)
    if before:
        server.receive_data(before[-1])
        if server.next_event() is PAUSED:
            server.send(server.suggested_reply())
            server.next_event()
    with pytest.raises(LocalProtocolError, match=words):
        server.send(Reply(reply))


@frozen
class Again(Command):
    """A verb behind which the session begins anew."""

    verb = b"XAGAIN"
    starts_over = True

    @classmethod
    def parse(cls, argument: bytes) -> Self:
        return cls()


@pytest.mark.rfc("2034 §4 greetings-have-no-status")
@pytest.mark.parametrize(("code", "status"), [(220, b""), (550, b"5.0.0 ")])
def test_a_second_greeting_has_no_status_and_its_refusal_has_one(code: int, status: bytes) -> None:
    server = make(HELLO, extensions=(ENHANCEDSTATUSCODES, Extension("XAGAIN", verbs=(Again,))))
    server.receive_data(b"XAGAIN\r\n")
    assert server.next_event() == Again()
    assert server.send(Reply(code, None, "x")) == b"%d %bx\r\n" % (code, status)


@pytest.mark.rfc("3207 §4.2 server-forgets-what-came-in-clear")
def test_behind_starttls_it_knows_what_it_knew_at_the_beginning() -> None:
    server = make(HELLO)
    server.receive_data(b"AUTH PLAIN AGEAYg==\r\n")
    server.next_event()
    server.send(Reply(235))
    server.receive_data(b"STARTTLS\r\n")
    answer(server)
    server.tls_started()
    assert (server.helo_name, server.extended, server.authenticated) == (None, False, False)


@pytest.mark.parametrize("end", [b"QUIT\r\n", b"\x16\x03\x01", b""])
def test_when_it_is_over_nothing_is_owed(end: bytes) -> None:
    server = make(HELLO)
    server.receive_data(end)
    events, _ = answer(server)
    assert events[-1] == ConnectionClosed()
    assert server.replies_owed == 0
    with pytest.raises(LocalProtocolError, match="no reply is owed"):
        server.suggested_reply()
