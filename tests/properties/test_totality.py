"""Totality: arbitrary octets give events or RemoteProtocolError, and never anything else."""

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpproto import (
    BadCommand,
    ConnectionClosed,
    Ehlo,
    LocalProtocolError,
    Mailbox,
    Noop,
    Reply,
    Vrfy,
)
from smtpproto.core.command import BASE_VERBS, LMTP_VERBS, AuthResponse, parse_command
from smtpproto.core.errors import GrammarError
from smtpproto.core.path import ForwardPath, ReversePath
from smtpproto.core.status import EnhancedStatus
from smtpproto.extensions import STANDARD
from smtpproto.testing import strategies as smtp
from smtpproto.testing.pair import answer

from .ends import CLIENT_STATES, OFFER, make_server, run_client, run_server

HEADS = st.sampled_from(
    [
        b"",
        b"EHLO c\r\n",
        b"EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\n",
        b"EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nBDAT 3\r\nabc",
        b"EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nBDAT 7\r\n\n",
        b"EHLO c\r\nMAIL FROM:<>\r\nBDAT 7\r\n",
        b"LHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nRCPT TO:<c@d>\r\n",
        b"EHLO c\r\nAUTH LOGIN\r\n",
        b"EHLO c\r\nMAIL FROM:<> SMTPUTF8\r\n",
    ]
)
LINES = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.sampled_from([b"EHLO ", b"MAIL FROM:<", b"RCPT TO:<@", b"AUTH ", b"\r\n", b"\r\n.\r\n"]),
        st.sampled_from([b"BDAT ", b"BDAT 5\r\n", b"BDAT 2 LAST\r\n", b"BDAT 0\r\n", b"DATA\r\n"]),
        st.sampled_from([b"XCLIENT ", b"XFORWARD ADDR=", b"ETRN ", b"VRFY ", b" SMTPUTF8\r\n"]),
        smtp.mutations(smtp.commands(OFFER).map(lambda command: command.serialize()), 1),
        smtp.bad_lines(600).map(lambda line: line + b"\r\n"),
    ),
    max_size=12,
).map(b"".join)


@given(HEADS, LINES)
def test_server(head: bytes, octets: bytes) -> None:
    # run_server lets nothing but RemoteProtocolError pass, and every session comes to its end
    events, said = run_server([head + octets] if head + octets else [], lmtp=head[:1] == b"L")
    assert isinstance(events[-1], ConnectionClosed)
    assert said.endswith(b"\r\n")


@given(HEADS, LINES)
def test_every_reply_of_a_server_is_a_reply(head: bytes, octets: bytes) -> None:
    _, said = run_server([head + octets] if head + octets else [], lmtp=head[:1] == b"L")
    whole: list[bytes] = []
    for line in said.removesuffix(b"\r\n").split(b"\r\n"):
        whole.append(line + b"\r\n")
        if line[3:4] == b" ":
            Reply.parse(b"".join(whole))
            whole.clear()
    assert not whole


@given(smtp.bad_lines(), st.booleans(), st.booleans())
def test_a_bad_line_is_refused_and_the_session_goes_on(
    line: bytes, lmtp: bool, greeted: bool
) -> None:
    hello = (b"LHLO" if lmtp else b"EHLO") + b" c.example\r\n"
    server = make_server(lmtp=lmtp)
    answer(server)
    server.receive_data((hello if greeted else b"") + line + b"\r\nNOOP\r\n")
    events, said = answer(server)
    bad = events[-2]
    assert isinstance(bad, BadCommand)
    assert 500 <= bad.reply.code < 555
    assert events[-1] == Noop()
    assert said.endswith(bad.reply.serialize() + b"250 2.0.0 Ok\r\n")


@pytest.mark.parametrize("where", CLIENT_STATES)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=30),
            st.sampled_from([b"250 ", b"250-", b"421 ", b"\r\n"]),
        ),
        max_size=10,
    ).map(b"".join)
)
def test_client(where: str, octets: bytes) -> None:
    events, lost, _ = run_client(where, [octets] if octets else [])
    assert lost or isinstance(events[-1], ConnectionClosed)


@given(st.one_of(st.binary(max_size=60), smtp.hostile_content()))
def test_parsers_raise_grammar_error_alone(octets: bytes) -> None:
    verbs = dict(BASE_VERBS) | dict(LMTP_VERBS)
    verbs |= {verb.verb: verb for e in STANDARD for verb in e.verbs}
    arguments = [
        b"MAIL FROM:",
        b"RCPT TO:<",
        b"EHLO ",
        b"AUTH ",
        b"AUTH PLAIN ",
        b"BDAT ",
        b"MAIL FROM:<> ",
        b"RCPT TO:<a@b> ",
        b"LHLO ",
        b"ETRN ",
        b"XCLIENT ADDR=",
        b"XFORWARD ",
        b"VRFY ",
    ]
    readers: list[Callable[[bytes], object]] = [
        Mailbox.parse,
        ReversePath.read,
        ForwardPath.read,
        Reply.parse,
        AuthResponse.parse,
        lambda o: EnhancedStatus.parse(o.decode("latin-1")),
        *(lambda o, head=head: parse_command(head + o, verbs) for head in [b"", *arguments]),
    ]
    for read in readers:
        try:
            read(octets)
        except GrammarError as error:
            Reply(error.code, error.status, str(error)[:400].encode("ascii", "replace"))


@given(st.one_of(st.text(max_size=20), st.text(alphabet="a@\ud800\udc80\r\n\0 <>", max_size=8)))
def test_a_callers_text_makes_local_protocol_error_alone(text: str) -> None:
    for make in (Mailbox.of, ReversePath.of, ForwardPath.of, Noop, Vrfy, Ehlo):
        try:
            value = make(text)
        except LocalProtocolError:
            continue
        octets = value.serialize().removesuffix(b"\r\n")
        assert not re.search(rb"[\x00-\x1f\x7f]", octets)
        assert octets.decode().isascii() or make not in (Noop, Ehlo)
