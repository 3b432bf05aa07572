"""A raw client sends a message in chunks (RFC 3030) to our server: the handler sees one stream."""

import smtplib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiosmtplib
import anyio
import pytest

from smtpproto import Envelope, Limits, Rcpt, Reply
from smtpproto.handler import ContentError
from smtpproto.server import ContentStream, Server, ServerDeadlines, Session

from .clock import anyio_backend  # noqa: F401 - a fixture
from .wire import HOST, Wire, connect
from .world import MESSAGE, Box, Scripted, running, until

pytestmark = pytest.mark.anyio

OPENED = ["EHLO client.example", "MAIL FROM:<ann@example.org>", "RCPT TO:<bob@example.net>"]


def chunk(octets: bytes, *, last: bool = False) -> bytes:
    return b"BDAT %d%b\r\n%b" % (len(octets), b" LAST" if last else b"", octets)


async def opened(port: int, *lines: str) -> Wire:
    wire = await connect(port)
    assert (await wire.reply()).startswith("220")
    for line in lines or OPENED:
        assert (await wire.ask(line)).startswith("250")
    return wire


@asynccontextmanager
async def talking(handler: Any, **options: Any) -> AsyncIterator[Wire]:
    """A raw client behind an accepted RCPT, with a server of these options."""
    async with running(Server(handler, **options)) as port, await opened(port) as wire:
        yield wire


async def say(wire: Wire, octets: bytes, *codes: str) -> None:
    await wire.send(octets)
    for code in codes:
        assert (await wire.reply())[:3] == code


async def is_in_step(wire: Wire, box: Box) -> None:
    """A whole new transaction passes."""
    for line in OPENED[1:]:
        assert (await wire.ask(line)).startswith("250")
    before = len(box.received)
    await say(wire, chunk(MESSAGE, last=True), "250")
    assert [r.content for r in box.received[before:]] == [MESSAGE]


class Broken(Box):
    """Keeps the ContentError that ended a message, and what had come of it."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[ContentError] = []
        self.come = b""

    async def content(
        self, session: Session, envelope: Envelope, content: ContentStream
    ) -> Reply | None:
        self.come = b""
        try:
            async for octets in content:
                self.come += octets
        except ContentError as error:
            self.errors.append(error)
            raise
        return await super().content(session, envelope, _again(self.come))


def _again(octets: bytes) -> Any:
    async def stream() -> AsyncIterator[bytes]:
        yield octets

    return stream()


@pytest.mark.rfc("3030 §2 message-is-a-series-of-chunks", "3030 §2 data-behind-bdat-gets-503")
async def test_chunks_are_one_stream(box: Box) -> None:
    async with talking(box) as wire:
        await say(wire, chunk(b"Subject: x\r"), "250")
        await say(wire, b"NOOP\r\n", "250")
        await say(wire, chunk(b"\n\r\n.\r\n"), "250")
        await say(wire, b"DATA\r\nVRFY x\r\nXYZZY\r\n", "503", "252", "500")
        await say(wire, chunk(b"") + chunk(b"RSET\r\n") + chunk(b"end", last=True), *["250"] * 3)
        assert [r.content for r in box.received] == [b"Subject: x\r\n\r\n.\r\nRSET\r\nend"]
        assert box.received[0].envelope == Envelope("ann@example.org", "bob@example.net")
        await is_in_step(wire, box)


async def test_octet_by_octet(box: Box) -> None:
    octets = "\r\n".join([*OPENED, ""]).encode()
    octets += chunk(b"Hi\r") + b"NOOP\r\n" + chunk(b"\n", last=True) + b"QUIT\r\n"
    stream = Scripted(*(octets[at : at + 1] for at in range(len(octets))))
    await Server(box).serve_stream(stream)
    replies = b"".join(stream.sent).split(b"\r\n")
    assert [line[:3] for line in replies[-6:]] == [b"250", b"250", b"250", b"250", b"221", b""]
    assert box.received[0].content == b"Hi\r\n"


@pytest.mark.rfc("2920 §3.2 replies-of-a-group-leave-together")
async def test_replies_to_pipelined_chunks_share_one_write(box: Box) -> None:
    stream = Scripted(
        b"EHLO c\r\n",
        "\r\n".join([*OPENED[1:], ""]).encode(),
        chunk(b"a") + chunk(b"b") + b"NOOP\r\n" + chunk(b"c"),
        chunk(b"d", last=True) + b"QUIT\r\n",
    )
    await Server(box).serve_stream(stream)
    assert sum(write.count(b"Chunk received") for write in stream.sent) == 3
    assert [w.count(b"\r\n") for w in stream.sent if b"Chunk" in w] == [3, 1]
    assert box.received[0].content == b"abcd"


@pytest.mark.parametrize("drop", [b"RSET\r\n", b"EHLO again.example\r\n"])
async def test_a_transaction_dropped_between_chunks(drop: bytes) -> None:
    box = Broken()
    async with talking(box) as wire:
        await say(wire, chunk(b"half"), "250")
        await say(wire, drop, "250")
        assert box.come == b"half"
        await until(lambda: len(box.errors) == 1)
        assert box.errors[0].reply is None
        await say(wire, chunk(b"x", last=True), "503")
        await is_in_step(wire, box)
    assert len(box.received) == 1


async def test_the_reply_to_rset_does_not_wait_for_the_handler() -> None:
    class Slow(Box):
        def __init__(self) -> None:
            super().__init__()
            self.may_go = anyio.Event()

        async def content(
            self, session: Session, envelope: Envelope, content: ContentStream
        ) -> Reply | None:
            await anext(content)
            with pytest.raises(ContentError):
                await anext(content)
            await self.may_go.wait()
            return None

    handler = Slow()
    async with talking(handler) as wire:
        await say(wire, chunk(b"x"), "250")
        await say(wire, b"RSET\r\n", "250")
        handler.may_go.set()
        await say(wire, b"NOOP\r\n", "250")


@pytest.mark.rfc(
    "3030 §2 chunks-on-their-way-are-thrown-away", "3030 §2 rset-mends-what-was-out-of-order"
)
async def test_a_refused_chunk() -> None:
    box = Broken()
    async with talking(box, limits=Limits(message=100)) as wire:
        big = chunk(b"x" * 60)
        await say(wire, big + big + big + chunk(b"QUIT\r\n", last=True), "250", "552", "503", "503")
        await is_in_step(wire, box)
        for line in OPENED[1:]:
            await wire.ask(line)
        await say(wire, chunk(b"bare\n"), "554")
        await say(wire, b"RSET\r\n", "250")
        await is_in_step(wire, box)
    assert len(box.errors) == 2
    assert len(box.received) == 2


async def test_chunks_behind_a_refused_one_are_no_more_errors(box: Box) -> None:
    limits, never = Limits(message=100), 3600.0
    async with talking(box, limits=limits, max_quick_errors=1, error_delay=never) as wire:
        began = anyio.current_time()
        chunks = b"".join(chunk(b"x" * 60) for _ in range(20)) + chunk(b"", last=True)
        await say(wire, chunks, "250", "552", *["503"] * 19)
        await say(wire, b"NONSENSE\r\n", "500")
        assert anyio.current_time() - began < never
        await say(wire, b"NONSENSE\r\n", "500")  # the second error waits
        assert anyio.current_time() - began >= never


@pytest.mark.parametrize("reply", [None, Reply(250, "2.0.0", "sure"), Reply(451, "4.3.0", "no")])
async def test_a_handler_that_returns_early(reply: Reply | None) -> None:
    class Early(Box):
        async def content(
            self, session: Session, envelope: Envelope, content: ContentStream
        ) -> Reply | None:
            return reply

    async with talking(Early()) as wire:
        # Its answer is that to the last chunk: the others have only been counted.
        await say(wire, chunk(b"a" * 70_000) + b"NOOP\r\n" + chunk(b"b"), "250", "250", "250")
        await say(wire, chunk(b"", last=True), str(reply.code) if reply else "250")
        for line in OPENED[1:]:
            await wire.ask(line)
        await say(wire, chunk(b"a") + b"RSET\r\nNOOP\r\n", "250", "250", "250")
        for line in OPENED[1:]:
            await wire.ask(line)
        await say(wire, chunk(b"a\n") + chunk(b"b", last=True), "554", "503")
        await say(wire, b"NOOP\r\n", "250")


async def test_a_handler_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Box):
        async def content(
            self, session: Session, envelope: Envelope, content: ContentStream
        ) -> Reply | None:
            await anext(content)
            raise ValueError("private")

    async with talking(Failing()) as wire:
        await say(wire, chunk(b"a") + chunk(b"b") + chunk(b"c", last=True), "250", "250", "451")
        await say(wire, b"NOOP\r\n", "250")
    assert "private" in caplog.text


async def test_a_handler_that_gives_up_waiting_and_reads_on(box: Box) -> None:
    """A read that was cancelled between two chunks loses nothing."""

    class Impatient(Box):
        async def content(
            self, session: Session, envelope: Envelope, content: ContentStream
        ) -> Reply | None:
            octets = await anext(content)
            with anyio.CancelScope() as scope:
                scope.cancel()
                await anext(content)
            waiting.set()
            octets += b"".join([more async for more in content])
            await super().content(session, envelope, _again(octets))
            return None

    waiting = anyio.Event()
    handler = Impatient()
    async with talking(handler) as wire:
        await wire.send(chunk(b"one"))
        await waiting.wait()
        await say(wire, b"", "250")
        await say(wire, b"NOOP\r\n" + chunk(b"two") + chunk(b"", last=True), "250", "250", "250")
    assert handler.received[0].content == b"onetwo"


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"BDAT\r\n", "501"),
        (b"BDAT x\r\n", "501"),
        (b"GET / HTTP/1.1\r\n", "500"),
        (b"\x16", "500"),
    ],
)
async def test_the_framing_is_lost_between_chunks(line: bytes, code: str) -> None:
    box = Broken()
    async with talking(box) as wire:
        await say(wire, chunk(b"half") + line, "250", code)
        assert await wire.rest() == b""
    assert len(box.errors) == 1
    assert not box.received


@pytest.mark.parametrize("said", [b"", b"BDAT 5\r\nab", b"BDAT 5", b"QUIT\r\n"])
async def test_the_client_goes_in_mid_message(said: bytes) -> None:
    box = Broken()
    async with talking(box) as wire:
        await say(wire, chunk(b"half") + said, "250")
        if said == b"QUIT\r\n":
            assert (await wire.rest()).startswith(b"221")
        await wire.stream.aclose()
        await until(lambda: len(box.errors) == 1)
    assert not box.received


@pytest.mark.parametrize(
    ("name", "octets"), [("command", chunk(b"half")), ("block", b"BDAT 9\r\nhalf")]
)
async def test_deadlines(name: str, octets: bytes) -> None:
    box = Broken()
    deadlines = ServerDeadlines(**{name: 0.05})
    stream = Scripted("\r\n".join([*OPENED, ""]).encode() + octets)
    with anyio.fail_after(60):
        await Server(box, deadlines=deadlines).serve_stream(stream)
    assert stream.sent[-1].split(b"\r\n")[-2].startswith(b"421 4.4.2")
    assert len(box.errors) == 1
    assert box.come == b"half"


async def test_the_handlers_deadline_is_not_the_clients() -> None:
    class Late(Box):
        async def content(
            self, session: Session, envelope: Envelope, content: ContentStream
        ) -> Reply | None:
            await anext(content)
            await anyio.sleep_forever()
            raise AssertionError

    async with talking(Late(), deadlines=ServerDeadlines(handler=0.05)) as wire:
        await say(wire, chunk(b"a") + chunk(b"b") + chunk(b"c", last=True), "250", "250", "451")
        await say(wire, b"NOOP\r\n", "250")


async def test_nobody_to_send_it_to(box: Box) -> None:
    class Refusing(Box):
        async def rcpt(self, session: Session, command: Rcpt) -> Reply | None:
            return Reply(550, "5.1.1", "nobody")

    async with (
        running(Server(Refusing())) as port,
        await opened(port, *OPENED[:2]) as wire,
    ):
        await say(wire, f"{OPENED[2]}\r\n".encode(), "550")
        await say(wire, chunk(b"QUIT\r\n") + chunk(b"x", last=True), "503", "503")
        await say(wire, b"NOOP\r\n", "250")


async def test_other_clients_are_not_confused_by_the_offer(box: Box) -> None:
    async with running(Server(box)) as port:

        def by_smtplib() -> None:
            with smtplib.SMTP(HOST, port) as client:
                client.ehlo()
                assert client.has_extn("chunking")
                client.sendmail("ann@example.org", ["bob@example.net"], MESSAGE)

        await anyio.to_thread.run_sync(by_smtplib)
    assert [r.content for r in box.received] == [MESSAGE]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_nor_is_aiosmtplib(box: Box) -> None:
    async with running(Server(box)) as port:
        client = aiosmtplib.SMTP(hostname=HOST, port=port, start_tls=False)
        async with client:
            await client.sendmail("ann@example.org", ["bob@example.net"], MESSAGE)
    assert [r.content for r in box.received] == [MESSAGE]
