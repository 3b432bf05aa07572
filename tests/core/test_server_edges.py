"""Promises of ServerConnection at their very edge, each found by a mutant that nobody noticed."""

import pytest

from smtpproto import (
    NEED_DATA,
    Auth,
    BadCommand,
    Bdat,
    Command,
    Data,
    Expn,
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
from smtpproto.extensions import AUTH, BINARYMIME, CHUNKING, EIGHTBITMIME, EXPN
from smtpproto.mechanisms import PLAIN
from smtpproto.testing.pair import answer

from .serving import HELLO, make


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
