"""Submission (RFC 6409): what is asked of a mail program, and what is done for it."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpproto import Mail, Rcpt
from smtpproto.core.envelope import Envelope
from smtpproto.core.event import Content, EndOfContent
from smtpproto.core.path import Mailbox
from smtpproto.core.reply import Reply
from smtpproto.core.server_connection import ServerEvent
from smtpproto.handler import ContentError, ContentStream, Session
from smtpproto.relay.content.header import MAX_LINE, Field, is_date, is_message_id, split_header
from smtpproto.relay.intake.submission import Submission
from smtpproto.trace import MAX_HEADER

pytestmark = pytest.mark.anyio

NOW = 1_700_000_000.0
DATE = b"Date: Tue, 14 Nov 2023 22:13:20 +0000\r\n"
OURS = b"Message-ID: <0abc@relay.example>\r\n"
#: A message to which nothing is to be done.
DONE = (
    b"DKIM-Signature: v=1; h=from:to; b=abc=\r\n"
    b"From: Ann <ann@our.dom>\r\n"
    b"To: bob@ext.example,\r\n\t carl@ext.example\r\n"
    b"Subject :  spaces  \r\n"
    b"Date: Fri, 21 Nov 1997 09:55:06 -0600\r\n"
    b"Message-ID: <1234@local.machine.example>\r\n"
)
BODY = b"\r\n..dots\r\n\r\nFrom: no header\r\n"


async def own(identity: str, mailbox: Mailbox) -> bool:
    """Let ann send as ann@our.dom and ann@localhost."""
    return (identity, str(mailbox)) in (("ann", "ann@our.dom"), ("ann", "ann@localhost"))


def is_local(domain: bytes) -> bool:
    return domain.lower() in (b"our.dom", b"localhost")


DESK = Submission("relay.example", is_local, own)


def session(identity: str | None = "ann") -> Session:
    return Session(1, ("192.0.2.1", 4000), ("192.0.2.25", 587), identity=identity)


def stream(chunks: Sequence[bytes], fault: Reply | None = None) -> ContentStream:
    events: Iterator[ServerEvent] = iter([*map(Content, chunks), EndOfContent(fault=fault)])

    async def pull() -> ServerEvent:
        return next(events)

    return ContentStream(pull)


async def submitted(
    *chunks: bytes,
    sender: str | None = "ann@our.dom",
    parameters: Any = None,
    desk: Submission = DESK,
) -> bytes:
    envelope = Envelope(Mail(sender, parameters), ["bob@ext.example"])
    taken = await desk.complete(session(), envelope, stream(chunks), id="0abc", now=NOW)
    return b"".join([chunk async for chunk in taken])


async def refused(*chunks: bytes, **settings: Any) -> str:
    with pytest.raises(ContentError) as caught:
        await submitted(*chunks, **settings)
    return str(caught.value.reply)


# --- what is left alone ------------------------------------------------------------------------


async def test_a_finished_message_goes_on_octet_by_octet() -> None:
    assert await submitted(DONE + BODY) == DONE + BODY
    assert await submitted(DONE) == DONE  # without a body


@given(st.lists(st.integers(0, len(DONE + BODY)), max_size=8))
@pytest.mark.parametrize(
    "message", [DONE + BODY, b"Bcc: x@y.example\r\nTo: a@b.example\r\n" + BODY]
)
def test_how_content_is_cut_makes_no_difference(message: bytes, cuts: list[int]) -> None:
    assert _at_once(submitted(*cut(message, cuts))) == _at_once(submitted(message))


@given(
    st.lists(
        st.tuples(
            st.from_regex(r"X-[A-Za-z]{1,8}", fullmatch=True),
            st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40),
        ),
        max_size=6,
    ),
    st.binary().filter(lambda octets: b"\r" not in octets and b"\n" not in octets),
)
def test_what_is_added_stands_in_front_and_the_rest_stays(
    fields: list[tuple[str, str]], body: bytes
) -> None:
    header = b"".join(f"{name}: {value}\r\n".encode() for name, value in fields)
    message = header + b"From: ann@our.dom\r\n\r\n" + body + b"\r\n"
    assert _at_once(submitted(message)) == DATE + OURS + message


def cut(message: bytes, cuts: Sequence[int]) -> list[bytes]:
    places = [0, *sorted(min(each, len(message)) for each in cuts), len(message)]
    return [message[begin:end] for begin, end in pairwise(places)]


def _at_once(coroutine: Any) -> Any:
    """Run a coroutine that waits for nothing."""
    with pytest.raises(StopIteration) as caught:
        coroutine.send(None)
    return caught.value.value


# --- what is completed -------------------------------------------------------------------------


@pytest.mark.rfc(
    "6409 §8.2 date-may-be-added",
    "6409 §8.3 message-id-is-added",
    "6409 §8 messages-may-be-changed",
    "6409 §8 what-goes-on-is-well-formed",
)
async def test_date_and_message_id_are_added() -> None:
    message = b"From: ann@our.dom\r\nSubject: hi\r\n"
    assert await submitted(message + BODY) == DATE + OURS + message + BODY


@pytest.mark.rfc("6409 §8.2 date-may-be-added", "6409 §8.3 message-id-is-added")
async def test_a_date_and_a_message_id_that_are_none_are_replaced() -> None:
    wrong = b"Date: yesterday\r\nMessage-ID: <without-an-at>\r\n"
    message = b"From: ann@our.dom\r\n"
    assert await submitted(wrong + message + BODY) == DATE + OURS + message + BODY


@pytest.mark.rfc("6409 §8 what-goes-on-is-well-formed")
async def test_from_is_who_sends_where_there_is_none() -> None:
    added = DATE + OURS + b"From: ann@our.dom\r\n"
    assert await submitted(b"Subject: hi\r\n" + BODY) == added + b"Subject: hi\r\n" + BODY
    assert await submitted(b"From:  \r\n" + BODY) == added + BODY
    assert await submitted(BODY) == added + BODY
    assert (await refused(BODY, sender=None)).startswith("554 5.6.0 there is no From")


@pytest.mark.rfc("6409 §8.1 sender-may-be-added", "6409 §8.1 added-sender-is-valid")
async def test_several_authors_have_one_sender() -> None:
    desk = Submission("relay.example", is_local)
    authors = b"From: ann@our.dom, bob@our.dom\r\n"
    added = DATE + OURS + b"Sender: ann@our.dom\r\n"
    assert await submitted(authors + BODY, desk=desk) == added + authors + BODY
    named = authors + b"Sender: bob@our.dom\r\n"
    assert await submitted(named + BODY, desk=desk) == DATE + OURS + named + BODY
    assert "no Sender" in await refused(authors + BODY, desk=desk, sender=None)


async def test_blind_copies_are_blind() -> None:
    blind = b"Bcc: eve@ext.example\r\nbcc:\r\nResent-Bcc: x@ext.example,\r\n y@ext.example\r\n"
    with pytest.raises(ContentError):
        await submitted(blind + DONE + BODY)  # two of them are one too many
    blind = blind.replace(b"bcc:\r\n", b"")
    assert await submitted(DONE + blind + BODY) == DONE + BODY
    desk = Submission("relay.example", is_local, own, keep_bcc=True)
    assert await submitted(DONE + blind + BODY, desk=desk) == DONE + blind + BODY


async def test_fields_that_say_nothing_go() -> None:
    empty = b"Cc: \r\nReply-To:\r\nReturn-Path: <eve@ext.example>\r\n"
    assert await submitted(empty + DONE + BODY) == DONE + BODY


async def test_nobody_is_put_into_to() -> None:
    message = b"From: ann@our.dom\r\n"
    assert b"To:" not in await submitted(message + BODY)
    group = message + b"To: undisclosed-recipients:;\r\n"
    assert (await submitted(group + BODY)).endswith(group + BODY)


# --- as whom -----------------------------------------------------------------------------------


@pytest.mark.rfc("6409 §6.1 sender-may-be-refused-with-550")
async def test_who_has_logged_in_sends_as_nobody_else() -> None:
    assert await DESK.mail(session(), Mail("ann@our.dom")) is None
    reply = await DESK.mail(session(), Mail("bob@our.dom"))
    assert str(reply) == "550 5.7.1 you may not send as bob@our.dom"


@pytest.mark.rfc("6409 §3.2 null-reverse-path-may-be-submitted")
async def test_the_null_path_is_nobody_else() -> None:
    assert await DESK.mail(session(), Mail(None)) is None
    assert await submitted(DONE + BODY, sender=None) == DONE + BODY


@pytest.mark.rfc(
    "6409 §4.3 who-has-not-logged-in-is-refused", "6409 §4.3 530-until-there-is-a-login"
)
async def test_who_has_not_logged_in_sends_nothing() -> None:
    for sender in "ann@our.dom", None:
        reply = await DESK.mail(session(None), Mail(sender))
        assert reply is not None
        assert (reply.code, str(reply.status)) == (530, "5.7.0")


@pytest.mark.rfc("6409 §6.3 550-for-the-user")
@pytest.mark.parametrize("field", ["From", "Sender", "Resent-From", "Resent-Sender"])
async def test_nor_does_the_header_name_somebody_else(field: str) -> None:
    message = b"" if field == "From" else b"From: ann@our.dom\r\n"
    message += field.encode() + b": Bob <bob@our.dom>\r\n"
    said = await refused(message + BODY)
    assert said == f"550 5.7.1 {field}: you may not send as bob@our.dom"


async def test_one_own_author_does_not_make_the_others_ones_own() -> None:
    said = await refused(b"From: ann@our.dom, boss@our.dom\r\n" + BODY)
    assert said.startswith("550 5.7.1 From: you may not send as boss@our.dom")


@pytest.mark.parametrize(
    "hidden",
    [
        b"From: =?utf-8?q?ann=40our=2Edom?= <boss@our.dom>",
        b"From: ann@our.dom <boss@our.dom>",
        b'From: "ann@our.dom" <boss@our.dom>',
        b"From: boss@our.dom (ann@our.dom)",
        b"From: us: boss@our.dom;",
        b"From:\r\n boss@our.dom",
        b"FROM: boss@our.dom",
        b"From : boss@our.dom",
        b"From: <@our.dom,@ext.example:boss@our.dom>",
        b"From: ann@our.dom\r\nFrom: boss@our.dom",
        b"From: ann@our.dom,, boss@our.dom",
        b"From: ann@our.dom\x00, boss@our.dom",
        b"From: boss@our.dom>, <ann@our.dom",
    ],
)
async def test_no_way_of_writing_it_hides_an_author(hidden: bytes) -> None:
    assert (await refused(hidden + b"\r\n" + BODY))[:3] in ("550", "554")


# --- what is refused ---------------------------------------------------------------------------


@pytest.mark.rfc(
    "6409 §4.2 domains-of-the-envelope-are-complete", "6409 §4.2 incomplete-domains-are-554"
)
async def test_domains_of_the_envelope_are_complete() -> None:
    reply = await DESK.mail(session(), Mail("ann@sales"))
    assert str(reply) == "554 5.1.8 The sender's domain is not complete"
    reply = DESK.rcpt(Rcpt("bob@sales"))
    assert str(reply) == "554 5.1.2 The recipient's domain is not complete"
    for whole in "bob@ext.example", "bob@LOCALHOST", "bob@[192.0.2.1]", "Postmaster":
        assert DESK.rcpt(Rcpt(whole)) is None
    assert await DESK.mail(session(), Mail("ann@localhost")) is None


@pytest.mark.rfc(
    "6409 §4.2 domains-of-the-header-are-complete", "6409 §4.2 incomplete-domains-are-554"
)
@pytest.mark.parametrize("field", ["To", "Cc", "Reply-To", "From", "Resent-To"])
async def test_domains_of_the_header_are_complete(field: str) -> None:
    start = b"" if field == "From" else b"From: ann@our.dom\r\n"
    said = await refused(start + f"{field}: Bob <bob@sales>\r\n".encode() + BODY)
    assert said.startswith("554 5.6.0 ")
    assert "not complete" in said


@pytest.mark.rfc(
    "6409 §5.1 malformed-header-addresses-are-refused", "6409 §5.1 bad-header-addresses-are-554"
)
@pytest.mark.parametrize(
    "field",
    [
        b"To: bob",
        b"To: <bob@ext.example",
        b"Cc: bob@ext.example carl@ext.example",
        b"Reply-To: bob@@ext.example",
        b"To: a@b..example",
        b"To: us: bob@ext.example",
        b"Sender: ann@our.dom, bob@ext.example",
        b"From: nobody:;",
    ],
)
async def test_addresses_of_the_header_are_addresses(field: bytes) -> None:
    start = b"" if field.startswith(b"From") else b"From: ann@our.dom\r\n"
    assert (await refused(start + field + b"\r\n" + BODY)).startswith("554 5.6.0 ")


@pytest.mark.rfc("6409 §6.3 554-for-bad-content")
@pytest.mark.parametrize(
    ("header", "why"),
    [
        (b"From: ann@our.dom\r\nfrom: ann@our.dom\r\n", "2 fields From"),
        (DONE + b"Date: Fri, 21 Nov 1997 09:55:06 -0600\r\n", "2 fields Date"),
        (DONE + b"Subject: again\r\n", "2 fields Subject"),
        (DONE + b"To: d@ext.example\r\n", "2 fields To"),
        (DONE + b"From ann Tue Nov 14\r\n", "no header field: 'From ann Tue Nov 14'"),
        (b" folded: x\r\n" + DONE, "no header field"),
        (DONE + b"Sub ject: x\r\n", "no header field"),
        (DONE + b": x\r\n", "no header field"),
        (DONE + b"X: " + b"x" * (MAX_LINE - 2) + b"\r\n", "X has a line of more than 998"),
        (DONE + b"X: a\r\n \t\r\n b\r\n", "X is folded around an empty line"),
        (DONE + b"X: a\0b\r\n", "X has a NUL"),
        (DONE + b"X: a\nFrom: v@our.dom\r\n", "X has a CR or LF that stands alone"),
        (DONE + b"X: a\rBcc: v@our.dom\r\n", "X has a CR or LF that stands alone"),
        (DONE + b"X: gr\xc3\xbcn\r\n", "x goes beyond ASCII, which takes SMTPUTF8"),
        (b"hello world\r\n", "no header field: 'hello world'"),
    ],
)
async def test_a_header_that_is_none_is_refused_with_the_reason(header: bytes, why: str) -> None:
    said = await refused(header + BODY)
    assert said.startswith("554 5.6.0 ")
    assert why in said
    assert said.isascii()


async def test_with_smtputf8_a_header_is_utf8() -> None:
    utf8 = {"SMTPUTF8": None}
    message = DONE + "X: grün\r\n".encode() + BODY
    assert await submitted(message, parameters=utf8) == message
    said = await refused(DONE + b"X: gr\xfcn\r\n" + BODY, parameters=utf8)
    assert said == "554 5.6.0 x is not UTF-8"


async def test_the_longest_line_that_there_may_be() -> None:
    field = b"X: " + b"x" * (MAX_LINE - 3) + b"\r\n"
    line = b"y" * MAX_LINE + b"\r\n"
    assert await submitted(field + DONE + b"\r\n" + line) == field + DONE + b"\r\n" + line


@given(st.integers(MAX_LINE - 2, MAX_LINE + 3), st.lists(st.integers(0, 3000), max_size=6))
def test_a_line_of_the_body_has_998_octets_at_most(length: int, cuts: list[int]) -> None:
    message = DONE + b"\r\nshort\r\n" + b"y" * length + b"\r\nshort\r\n"
    content = submitted(*cut(message, cuts))
    if length <= MAX_LINE:
        assert _at_once(content) == message
        return
    with pytest.raises(ContentError) as caught:
        content.send(None)
    assert str(caught.value.reply) == "554 5.6.0 A line has more than 998 octets (RFC 5322 2.1.1)"


async def test_a_header_without_an_end_is_not_gathered_for_ever() -> None:
    read = 0
    chunk = b"X: " + b"x" * 500 + b"\r\n"

    async def pull() -> ServerEvent:
        nonlocal read
        read += len(chunk)
        return Content(chunk)

    with pytest.raises(ContentError) as caught:
        await DESK.complete(
            session(),
            Envelope("ann@our.dom", ["b@c.example"]),
            ContentStream(pull),
            id="a",
            now=NOW,
        )
    assert str(caught.value.reply).startswith("554 5.6.0 A header has at most")
    assert read <= MAX_HEADER + 2 * len(chunk)


async def test_a_large_header_is_read_like_a_small_one() -> None:
    to = b"To: " + b",\r\n ".join(b"u%d@ext.example" % number for number in range(5000)) + b"\r\n"
    message = DONE.replace(b"To: bob@ext.example,\r\n\t carl@ext.example\r\n", to) + BODY
    assert await submitted(message) == message
    assert "not complete" in await refused(message.replace(b"u4999@ext.example", b"u4999@ext"))


async def test_a_fault_of_the_content_is_its_own() -> None:
    fault = Reply(550, "5.6.11", "Bare CR or LF")
    with pytest.raises(ContentError) as caught:
        await DESK.complete(
            session(),
            Envelope("ann@our.dom", ["b@c.example"]),
            stream([b"From: ann@our.dom\r\n"], fault),
            id="a",
            now=NOW,
        )
    assert caught.value.reply == fault


# --- the grammar -------------------------------------------------------------------------------


def test_fields_keep_their_octets() -> None:
    header = b"A:b\r\nLong-One \t: c\r\n\td\r\n  e \r\nEmpty:\r\n"
    fields = split_header(header)
    assert fields == [
        Field("a", b"b", b"A:b\r\n"),
        Field("long-one", b"c\td  e", b"Long-One \t: c\r\n\td\r\n  e \r\n"),
        Field("empty", b"", b"Empty:\r\n"),
    ]
    assert b"".join(field.octets for field in fields) == header
    assert split_header(b"") == []


@pytest.mark.rfc("5322 §3.3", "5322 §4.3")
@pytest.mark.parametrize(
    "date",
    [
        b"Fri, 21 Nov 1997 09:55:06 -0600",
        b"21 Nov 1997 09:55 +0000",
        b"Tue, 1 Jul 2003 10:52:37 +0200",
        b"Thu, 13\r\n     Feb\r\n  1969\r\n 23:32\r\n -0330 (Newfoundland Time)".replace(
            b"\r\n", b""
        ),
        b"Tue,  1 Jul 03 10:52:37 GMT",
        b"Sun, 31 Dec 2016 23:59:60 +0000",
        b"21 Nov 97 09:55:06 EST",
    ],
)
def test_these_are_dates(date: bytes) -> None:
    assert is_date(date)


@pytest.mark.rfc("5322 §3.3")
@pytest.mark.parametrize(
    "date",
    [
        b"",
        b"now",
        b"2023-11-14T22:13:20Z",
        b"Tue, 14 Nov 2023 22:13:20",
        b"Tue, 32 Nov 2023 22:13:20 +0000",
        b"Tue, 14 Nov 2023 24:13:20 +0000",
        b"Tue, 14 Nov 2023 22:60:20 +0000",
        b"Tue, 14 Nov 2023 22:13:20 +0060",
        b"Dienstag, 14 Nov 2023 22:13:20 +0000",
        b"Tue, 14 Nov 2023 22:13:20 +0000 and more",
    ],
)
def test_these_are_none(date: bytes) -> None:
    assert not is_date(date)


@pytest.mark.rfc("5322 §3.6.4")
@pytest.mark.parametrize(
    ("id", "good"),
    [
        (b"<1234@local.machine.example>", True),
        (b"<a.b!c@[192.0.2.1]>", True),
        (b'<"a b"@c.example>', True),
        ("<grün@c.example>".encode(), True),
        (b"<a@b@c.example>", False),
        (b"<a>", False),
        (b"a@c.example", False),
        (b"<a..b@c.example>", False),
        (b"<a@c.example> <b@c.example>", False),
        (b"<a b@c.example>", False),
        (b"", False),
    ],
)
def test_message_ids(id: bytes, good: bool) -> None:
    assert is_message_id(id) is good
