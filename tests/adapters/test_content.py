"""Content in every form a caller may give it, and what the server then has."""

from collections.abc import AsyncIterator
from email import message_from_bytes, policy
from email.header import Header
from email.message import EmailMessage, Message
from pathlib import Path
from typing import Any

import pytest

from smtpproto import STANDARD, Content, Limits, LocalProtocolError, Reply
from smtpproto.client import ClientDeadlines
from smtpproto.result import Fate
from smtpproto.server import Server
from smtpproto.source import CHUNK, Reading, repeatable, source

from .wire import Wire, raw_server
from .world import ENVELOPE, MESSAGE, Box, clear, running, session, until

pytestmark = pytest.mark.anyio

TO_CONTENT = """
S: 220 hi\nC: EHLO *\nS: 250 hi\nC: MAIL *\nS: 250 ok\nC: RCPT *\nS: 250 ok\nC: DATA\nS: 354 go
"""
SEVEN_BIT = [e for e in STANDARD if e.keyword in ("PIPELINING", "SIZE")]
BIG = b"".join(b"line %d of a big message\r\n" % n for n in range(10_000))


async def pieces(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


class Pieces:
    """An async iterable that is no generator."""

    def __init__(self, *chunks: bytes) -> None:
        self.chunks = list(chunks)

    def __aiter__(self) -> "Pieces":
        return self

    async def __anext__(self) -> bytes:
        if not self.chunks:
            raise StopAsyncIteration
        return self.chunks.pop(0)


def email(text: str, **headers: str) -> EmailMessage:
    message = EmailMessage()
    for name, value in {"From": "ann@example.org", "To": "bob@example.net", **headers}.items():
        message[name] = value
    message.set_content(text, cte="8bit")
    return message


@pytest.mark.parametrize("form", ["bytes", "path", "file", "iterator", "iterable"])
@pytest.mark.parametrize("octets", [MESSAGE, BIG, b"", b"no end of line", b".", b".\r\n..\r\n"])
async def test_octets_arrive_as_they_are(
    form: str, octets: bytes, box: Box, tmp_path: Path
) -> None:
    file = tmp_path / "message"
    file.write_bytes(octets)
    with file.open("rb") as opened:
        content: Any = {
            "bytes": octets,
            "path": file,
            "file": opened,
            "iterator": pieces(*(octets[i : i + 997] for i in range(0, len(octets), 997))),
            "iterable": Pieces(octets[:5], b"", octets[5:]),
        }[form]
        async with session(Server(box)) as client:
            await client.send(ENVELOPE, content)
    # A message without a final CRLF gets one (RFC 5321 §4.1.1.4).
    expected = octets if octets.endswith(b"\r\n") or not octets else octets + b"\r\n"
    assert box.received[0].content == expected


@pytest.mark.rfc("5321 §4.5.3.1.7 client-says-size")
@pytest.mark.rfc(
    "1870 §3 value-is-the-size-of-the-message",
    "1870 §4 client-may-declare",
    "1870 §5 size-counts-line-ends-and-no-dots-of-transport",
    "1870 §6 value-counts-octets-in-decimal",
    "1870 §6 value-counts-header-body-and-line-ends",
    "1870 §7 client-need-not-declare",
)
@pytest.mark.rfc("6152 §3 body-says-what-data-carries")
async def test_size_and_body_are_declared_where_known(box: Box, tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(MESSAGE)
    (tmp_path / "big").write_bytes(BIG)
    async with session(Server(box)) as client:
        await client.send(ENVELOPE, MESSAGE)
        await client.send(ENVELOPE, tmp_path / "m")
        await client.send(ENVELOPE, MESSAGE + b"\xc3\xa4\r\n")
        await client.send(ENVELOPE, pieces(MESSAGE))
        await client.send(ENVELOPE, tmp_path / "big")
        await client.send(ENVELOPE, pieces(BIG))
    size = b"%d" % len(MESSAGE)
    assert [dict(r.envelope.mail.parameters) for r in box.received] == [
        {"SIZE": size},
        {"SIZE": size},
        {"SIZE": b"%d" % (len(MESSAGE) + 4), "BODY": b"8BITMIME"},
        {"SIZE": size},
        {"SIZE": b"%d" % len(BIG), "BODY": b"8BITMIME"},  # it may have some, further on
        {"BODY": b"8BITMIME"},
    ]


async def test_text_gets_the_line_ends_of_mail(box: Box) -> None:
    async with session(Server(box)) as client:
        await client.send(ENVELOPE, "Subject: x\n\ngrüße\rtwo\r\nthree")
    assert box.received[0].content == "Subject: x\r\n\r\ngrüße\r\ntwo\r\nthree\r\n".encode()


@pytest.mark.rfc("5322 §3.6.3")
async def test_bcc_is_not_sent_and_the_message_stays_as_it_was(box: Box) -> None:
    message = email("hello", Bcc="secret@example.net", Subject="x")
    message["Resent-Bcc"] = "secret@example.net"
    message.add_alternative("<p>hello</p>", subtype="html")
    message.add_attachment(b"\0\xff", maintype="application", subtype="octet-stream")
    before = repr([(part.items(), part.get_payload()) for part in message.walk() if part])
    async with session(Server(box)) as client:
        await client.send(ENVELOPE, message)
    assert b"secret" not in box.received[0].content
    assert b"bcc" not in box.received[0].content.lower()
    assert b"bob@example.net" in box.received[0].content
    assert message["Bcc"] == "secret@example.net"
    parts = [(part.get_content_type(), part.get_boundary()) for part in message.walk()]
    assert [boundary for _, boundary in parts] == [None] * len(parts)
    assert "secret" in before


@pytest.mark.rfc("6152 §3 convert-or-fail", "6152 §3 conversion-loses-nothing")
@pytest.mark.parametrize("offered", [True, False])
async def test_an_email_message_fits_what_the_server_takes(offered: bool, box: Box) -> None:
    async with session(Server(box, offer=None if offered else SEVEN_BIT)) as client:
        await client.send(ENVELOPE, email("Grüße\nund .\n.\nmehr"))
    octets = box.received[0].content
    assert octets.isascii() is not offered
    assert octets.count(b"\r\n") == octets.count(b"\n") == octets.count(b"\r")
    parsed = message_from_bytes(octets, policy=policy.default)
    assert isinstance(parsed, EmailMessage)
    assert parsed.get_content().replace("\r\n", "\n") == "Grüße\nund .\n.\nmehr\n"


async def test_an_old_style_message_goes_as_well(box: Box) -> None:
    message = Message()
    message["Subject"] = "old"
    to: Any = Header("Jürgen <bob@example.net>", "utf-8")  # an object, in the older API
    message["To"] = to
    message.set_payload("text\n")
    async with session(Server(box)) as client:
        await client.send(ENVELOPE, message)
    header, _, body = box.received[0].content.partition(b"\r\n\r\n")
    assert header.startswith(b"Subject: old\r\nTo: =?utf-8?")
    assert body == b"text\r\n"


@pytest.mark.rfc("5321 §2.3.8 client-sends-no-bare-cr-or-lf")
@pytest.mark.parametrize("octets", [b"a\nb\r\n", b"a\rb\r\n", b"\r\n.\n", b"end\r"])
async def test_bytes_with_a_bare_cr_or_lf_are_refused_and_nothing_is_sent(
    octets: bytes, box: Box
) -> None:
    lines: list[str] = []
    async with session(Server(box), trace=lines.append) as client:
        said = len(lines)
        with pytest.raises(LocalProtocolError, match="bare"):
            await client.deliver(ENVELOPE, octets)
        assert len(lines) == said
        await client.send(ENVELOPE, MESSAGE)
    assert len(box.received) == 1


@pytest.mark.rfc("5321 §2.3.8 client-sends-no-bare-cr-or-lf")
@pytest.mark.parametrize("form", ["path", "file", "iterator"])
async def test_a_fault_in_mid_stream_closes_without_the_final_dot(
    form: str, tmp_path: Path
) -> None:
    octets = b"x" * 70_000 + b"\r\n.\n.\r\nMAIL FROM:<evil@example.org>\r\n"
    (tmp_path / "m").write_bytes(octets)
    heard: list[bytes] = []

    async def behaviour(wire: Wire) -> None:
        await wire.play(
            "S: 220 hi\nC: EHLO *\nS: 250 hi\nC: MAIL *\nS: 250 ok\nC: RCPT *\nS: 250 ok"
        )
        await wire.play("C: DATA\nS: 354 go\n")
        heard.append(await wire.rest())

    with (tmp_path / "m").open("rb") as file:
        content: Any = {"path": tmp_path / "m", "file": file}.get(form) or pieces(
            octets[:65_536], octets[65_536:]
        )
        async with raw_server(behaviour) as port:
            async with clear(port) as client:
                with pytest.raises(LocalProtocolError, match="bare"):
                    await client.deliver(ENVELOPE, content)
                assert not client.usable
            await until(lambda: bool(heard))
    assert heard == [b"x" * 65_536]


@pytest.mark.rfc("5321 §2.4 no-8-bit-content-without-an-extension")
@pytest.mark.rfc("6152 §3 no-8-bit-where-it-is-not-offered", "6152 §3 convert-or-fail")
async def test_8_bit_octets_are_refused_where_they_are_not_taken(box: Box) -> None:
    async with session(Server(box, offer=SEVEN_BIT)) as client:
        (outcome,) = (await client.deliver(ENVELOPE, b"\xff\r\n")).outcomes
        assert outcome.fate is Fate.PERMANENT
        assert outcome.reply is not None
        assert (outcome.reply.code, str(outcome.reply.status)) == (554, "5.6.3")
        assert client.usable
        (outcome,) = (await client.deliver(ENVELOPE, pieces(b"ok\r\n", b"\xff\r\n"))).outcomes
        assert outcome.local
        assert client.usable
        # Found only on the way, it costs the session.
        (outcome,) = (await client.deliver(ENVELOPE, pieces(BIG, b"\xff\r\n"))).outcomes
        assert outcome.fate is Fate.PERMANENT
        assert not client.usable
    assert box.received == []


@pytest.mark.rfc(
    "1870 §3 0-says-no-limit",
    "1870 §3 no-argument-says-nothing",
    "1870 §4 argument-is-what-the-server-takes",
    "1870 §7 argument-is-optional",
    "1870 §7 client-may-only-compare",
)
@pytest.mark.parametrize("limit", ["10", "0", "", "99999999999999999999", "9" * 5000, "x"])
async def test_size_limit_of_the_server(limit: str) -> None:
    ended: list[str] = []

    async def behaviour(wire: Wire) -> None:
        await wire.play(f"S: 220 hi\nC: EHLO *\nS: 250-hi\nS: 250 SIZE {limit}")
        ended.append(await wire.hear())

    async with (
        raw_server(behaviour) as port,
        clear(port, deadlines=ClientDeadlines(quit=0.05)) as client,
    ):
        result = await client.deliver(ENVELOPE, MESSAGE)
        assert result.outcomes[0].fate is (Fate.PERMANENT if limit == "10" else Fate.TRANSIENT)
    mail = f"MAIL FROM:<ann@example.org> SIZE={len(MESSAGE)}"
    assert ended == ["QUIT" if limit == "10" else mail]


async def test_the_content_of_nobody_knows_what_is_a_type_error(box: Box) -> None:
    async with session(Server(box)) as client:
        with pytest.raises(TypeError, match="bytearray"):
            await client.deliver(ENVELOPE, bytearray(MESSAGE))  # type: ignore[arg-type]  # the point
        await client.send(ENVELOPE, MESSAGE)


async def test_a_file_that_is_not_there_costs_nothing(box: Box, tmp_path: Path) -> None:
    async with session(Server(box)) as client:
        with pytest.raises(FileNotFoundError):
            await client.deliver(ENVELOPE, tmp_path / "none")
        await client.send(ENVELOPE, MESSAGE)


async def test_a_source_that_fails_is_raised_and_nothing_is_delivered(box: Box) -> None:
    closed: list[bool] = []

    async def failing() -> AsyncIterator[bytes]:
        try:
            yield BIG
            raise RuntimeError("the disk is gone")
        finally:
            closed.append(True)

    async with running(Server(box, offer=SEVEN_BIT)) as port:
        async with clear(port) as client:
            with pytest.raises(RuntimeError, match="disk"):
                await client.deliver(ENVELOPE, failing())
            assert not client.usable
        async with clear(port) as client:
            await client.send(ENVELOPE, MESSAGE)
    assert [r.content for r in box.received] == [MESSAGE]
    assert closed == [True]


async def test_a_generator_is_closed_when_the_server_goes_away(box: Box) -> None:
    closed: list[bool] = []

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"and on and on\r\n" * 1000
        finally:
            closed.append(True)

    async def behaviour(wire: Wire) -> None:
        await wire.play(
            "S: 220 hi\nC: EHLO *\nS: 250 hi\nC: MAIL *\nS: 250 ok\nC: RCPT *\nS: 250 ok"
        )
        await wire.play("C: DATA\nS: 354 go\n")
        await wire.receive()

    async with raw_server(behaviour) as port, clear(port) as client:
        (outcome,) = (await client.deliver(ENVELOPE, endless())).outcomes
        assert outcome.fate is Fate.TRANSIENT
        assert outcome.reply is None
    assert closed == [True]


async def test_a_source_reads_a_path_without_leaving_it_open(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(BIG)
    taken = await source(tmp_path / "m", eight_bit_offered=True)
    assert taken.octets == len(BIG)
    reading = await Reading.of(taken)
    assert reading.head == BIG[:CHUNK]
    assert await reading.next_piece() == Content(BIG[:CHUNK])
    assert await reading.next_piece() == Content(BIG[CHUNK : 2 * CHUNK])
    await reading.aclose()
    # left early: a file left open would be a ResourceWarning, which fails the test run


async def test_the_server_has_its_own_limit(box: Box) -> None:
    async with session(Server(box, limits=Limits(message=100))) as client:
        (outcome,) = (await client.deliver(ENVELOPE, pieces(BIG))).outcomes
        assert outcome.reply == Reply(552, "5.3.4", "Message too big")
        assert not outcome.local
        await client.send(ENVELOPE, MESSAGE)
    assert len(box.received) == 1


async def test_content_may_be_begun_again_until_more_is_read_than_its_beginning() -> None:
    """And no more of it is kept than that."""

    content, chunks = repeatable(pieces(b"a" * (CHUNK - 1), b"", b"b", b"c"))
    assert content is chunks
    assert chunks is not None
    for _ in range(3):
        beginning = aiter(chunks)
        assert await anext(beginning) == b"a" * (CHUNK - 1)
        await beginning.aclose()
    whole = b"".join([chunk async for chunk in chunks])
    assert whole == b"a" * (CHUNK - 1) + b"bc"
    with pytest.raises(AssertionError, match="begun again"):
        await anext(aiter(chunks))
