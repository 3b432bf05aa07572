"""Back-pressure, and what a trace shows: nothing piles up anywhere, nothing leaks."""

import base64
import tracemalloc
from collections.abc import AsyncIterator, Callable

import anyio
import pytest
from anyio.abc import ByteStream

from smtpproto import BadCommand, Envelope, Limits, Reply, Rset, ServerConnection
from smtpproto.client import Client
from smtpproto.core.server_connection import ServerEvent
from smtpproto.mechanisms import LOGIN, PLAIN
from smtpproto.result import LoginError
from smtpproto.server import ContentStream, Server, Session
from smtpproto.stream import Pump, StreamLostError, local_address, peer_address, shown

from .wire import HOST, Wire, connect, raw_server
from .world import (
    ENVELOPE,
    MESSAGE,
    PASSWORD,
    Accounts,
    Box,
    Certificates,
    Scripted,
    clear,
    running,
)

pytestmark = pytest.mark.anyio

MB = 1_000_000
LINE = b"0123456789" * 7 + b"\r\n"
CHUNK = LINE * 1000
# What the kernel's two buffers on the way may hold, with room to spare.
ON_THE_WAY = 20 * MB


class Slow(Box):
    """Counts the content's octets instead of keeping them, from when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may_go = anyio.Event()
        self.octets = 0
        self.largest = 0

    async def connect(self, session: Session) -> Reply | None:
        if self.where == "connect":
            await self.may_go.wait()
        return None

    where = "content"

    async def content(
        self, session: Session, envelope: Envelope, content: ContentStream
    ) -> Reply | None:
        if self.where == "content":
            await self.may_go.wait()
        async for chunk in content:
            self.octets += len(chunk)
            self.largest = max(self.largest, len(chunk))
        return None


async def stalled(count: Callable[[], int]) -> int:
    """The count, once it grows no more."""
    seen = -1
    while seen != count() or not seen:
        seen = count()
        await anyio.sleep(0.1)
    return seen


@pytest.mark.parametrize("secure", [False, True])
async def test_a_client_stalls_while_the_handler_does(secure: bool, tls: Certificates) -> None:
    """30 MB pass through; no more of it is under way at a time than the kernel holds."""
    handler = Slow()
    produced = 0

    async def content() -> AsyncIterator[bytes]:
        nonlocal produced
        while produced < 30 * MB:
            produced += len(CHUNK)
            yield CHUNK

    server = Server(handler, limits=Limits(message=None), tls=tls.server)
    async with (
        running(server) as port,
        Client(
            "localhost",
            port,
            tls="required" if secure else "none",
            ssl_context=tls.trusting,
        ) as client,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(client.send, ENVELOPE, content())
        assert await stalled(lambda: produced) < ON_THE_WAY
        assert handler.octets == 0
        handler.may_go.set()
    assert handler.octets == produced >= 30 * MB
    assert handler.largest <= 256 * 1024


@pytest.mark.parametrize("how", ["DATA", "BDAT"])
@pytest.mark.parametrize("secure", [False, True])
async def test_much_content_passes_in_little_memory(
    how: str, secure: bool, tls: Certificates
) -> None:
    """What both ends hold at any time does not grow with the message."""
    handler = Slow()
    handler.may_go.set()
    server = Server(handler, limits=Limits(message=None), tls=tls.server, implicit_tls=secure)
    chunks, block = 16 * MB // len(CHUNK), b"BDAT %d\r\n%b" % (len(CHUNK), CHUNK)
    async with running(server) as port, await connect(port) as wire:
        if secure:
            await wire.start_tls(tls.trusting, server_side=False)
        await wire.reply()
        await wire.ask("EHLO client.example")
        await wire.say("MAIL FROM:<ann@example.org>", "RCPT TO:<bob@example.net>")
        assert [(await wire.reply())[:3] for _ in range(2)] == ["250", "250"]
        if how == "DATA":
            assert (await wire.ask("DATA")).startswith("354")
        tracemalloc.start()
        try:
            for _ in range(chunks):
                await wire.send(CHUNK if how == "DATA" else block)
                if how == "BDAT":
                    assert (await wire.reply()).startswith("250")
            end = b".\r\n" if how == "DATA" else b"BDAT 0 LAST\r\n"
            await wire.send(end)
            assert (await wire.reply()).startswith("250")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert handler.octets == chunks * len(CHUNK)
    assert peak < 4 * MB


@pytest.mark.parametrize("where", ["connect", "content"])
async def test_a_client_that_never_waits_fills_no_memory(where: str) -> None:
    """All in one go, content included, before anything is answered: it has to stall as well."""
    handler = Slow()
    handler.where = where
    sent = 0
    async with (
        running(Server(handler, limits=Limits(message=None))) as port,
        await connect(port) as wire,
        anyio.create_task_group() as tasks,
    ):

        async def talk() -> None:
            nonlocal sent
            await wire.say(
                "EHLO client.example",
                "MAIL FROM:<ann@example.org>",
                "RCPT TO:<bob@example.net>",
                "DATA",
            )
            while sent < 30 * MB:
                await wire.send(CHUNK)
                sent += len(CHUNK)
            await wire.say(".", "QUIT")

        tasks.start_soon(talk)
        assert await stalled(lambda: sent) < ON_THE_WAY
        handler.may_go.set()
        heard = await wire.rest()
    assert b"354 " in heard
    assert heard.endswith(b"221 2.0.0 localhost Closing connection\r\n")
    assert handler.octets == sent >= 30 * MB


async def test_a_client_that_never_reads_its_replies_stalls(box: Box) -> None:
    """No reply is made before those before it have left."""
    commands = 0

    class Endless(Scripted):
        async def receive(self, max_bytes: int = 65_536) -> bytes:
            nonlocal commands
            commands += 1
            self.chunks.append(b"NOOP\r\nRSET\r\n")
            return await super().receive(max_bytes)

    stream = Endless(hang_at=10)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Server(box).serve_stream, stream)
        await stalled(lambda: commands)
        tasks.cancel_scope.cancel()
    assert commands <= 11


async def test_what_the_pump_was_cut_off_in_is_followed_by_nothing() -> None:
    stream = Scripted(hang_at=0)
    pump: Pump[ServerEvent] = Pump(stream, ServerConnection("x.example"))
    pump.put(b"250 first\r\n")
    with anyio.move_on_after(0.01):
        await pump.flush()
    stream.hang_at = None
    pump.put(b"250 second\r\n")
    with pytest.raises(StreamLostError, match="cut off"):
        await pump.flush()
    assert stream.sent == []
    assert not pump.closed
    await pump.aclose()
    assert pump.closed
    assert stream.closed


def secrets(password: str) -> list[str]:
    forms = [password, f"\0ann\0{password}"]
    return [password, *(base64.b64encode(form.encode()).decode() for form in forms)]


@pytest.mark.parametrize("mechanism", [PLAIN, LOGIN])
@pytest.mark.parametrize("password", [PASSWORD, "wrong-" + PASSWORD])
async def test_no_trace_shows_password_or_content(
    mechanism: object, password: str, box: Box
) -> None:
    lines: list[str] = []
    server = Server(
        box,
        authenticator=Accounts(),
        plaintext_auth="always",
        failed_login_delay=0.001,
        trace=lambda session, line: lines.append(line),
    )
    async with running(server) as port:
        try:
            async with clear(
                port,
                login=("ann", password),
                login_in_clear=True,
                mechanisms=[mechanism],
                trace=lines.append,
            ) as client:
                await client.send(ENVELOPE, MESSAGE)
        except LoginError:
            assert password != PASSWORD
    assert len(lines) > 10
    text = "\n".join(lines)
    for secret in secrets(password):
        assert secret not in text
    assert "****" in text
    if password == PASSWORD:
        assert text.count(f"C: BDAT {len(MESSAGE)} LAST") == 2
        assert "a dot" not in text


async def test_no_trace_shows_a_password_that_was_sent_wrongly(box: Box) -> None:
    """Malformed, misplaced or too early, it may be a password all the same."""
    lines: list[str] = []
    server = Server(
        box,
        authenticator=Accounts(),
        plaintext_auth="always",
        failed_login_delay=0.001,
        max_failed_logins=10,
        trace=lambda session, line: lines.append(line),
    )
    secret = base64.b64encode(b"\0ann\0" + PASSWORD.encode()).decode()
    async with running(server) as port, await connect(port) as wire:
        await wire.reply()
        await wire.ask(f"AUTH PLAIN {secret}")  # before EHLO
        await wire.ask("EHLO client.example")
        await wire.ask(f"AUTH  PLAIN {secret}")
        await wire.ask(f"auth plain {secret}!")
        await wire.ask(f"AUTH CRAM-MD5 {secret}")
        await wire.ask("AUTH LOGIN")
        await wire.ask(PASSWORD)  # not even base64
        await wire.ask("AUTH NONE")
        await wire.ask(PASSWORD)
        await wire.ask("NOOP")
        await wire.ask("SHOWN as it is no secret")
    text = "\n".join(lines)
    assert secret not in text
    assert PASSWORD not in text
    assert "C: SHOWN as it is no secret" in lines


def test_nothing_shown_can_end_a_line_or_steer_a_terminal() -> None:
    # ESC, a line separator, NEL, CSI: as a hostile peer may put them into its text
    text = "\x1b[2J \u2028C: MAIL \x85 \x9b ü".encode()
    reply = Reply.parse(b"250-one\r\n250 two\r\n")
    assert shown(reply) == ["250-one", "250 two"]
    (line,) = shown(BadCommand(text, Reply(500)))
    assert line == "\\x1b[2J \\x2028C: MAIL \\x85 \\x9b ü"
    assert shown(BadCommand(b"\xff\r\n", Reply(500))) == ["\\xff\\x0d\\x0a"]
    assert shown(BadCommand(b"AUTH PLAIN", Reply(500))) == ["AUTH PLAIN"]
    assert shown(Rset()) == ["RSET"]


async def test_a_hostile_reply_is_one_line_of_the_trace() -> None:
    async def behaviour(wire: Wire) -> None:
        await wire.send("220 hi \u2028C: QUIT \x85\r\n".encode())
        await wire.play("C: EHLO *\nS: 250 hi\nC: QUIT\nS: 221 bye")

    lines: list[str] = []
    async with raw_server(behaviour) as port, clear(port, trace=lines.append):
        pass
    assert lines[0] == "S: 220 hi \\x2028C: QUIT \\x85"
    assert lines.count("C: QUIT") == 1


async def test_addresses() -> None:
    stream: ByteStream = Scripted()
    assert peer_address(stream) == local_address(stream) == ("", 0)
    async with running(Server(Box())) as port, await connect(port) as wire:
        assert peer_address(wire.stream) == (HOST, port)
        assert local_address(wire.stream)[0] == HOST
