"""Two things at one moment: a server that stops, alarms that ring, writes that are under way."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from anyio.abc import ByteStream, SocketStream
from anyio.streams.tls import TLSStream

from smtpproto import Envelope, Limits, Mail, Reply, ServerConnection
from smtpproto.core.server_connection import ServerEvent
from smtpproto.deadline import Alarm
from smtpproto.handler import HangUp
from smtpproto.server import ContentStream, Server, ServerDeadlines, Session
from smtpproto.stream import Pump
from smtpproto.wire import BareWire, ForeignWire, Listener, LoopWire, as_wire, connect_unix

from .clock import anyio_backend  # noqa: F401 - a fixture
from .test_deadlines import SHORT, TIMED_OUT, in_content
from .wire import HOST, Wire, connect, opened
from .world import Box, Certificates, running

pytestmark = pytest.mark.anyio

IN_TRANSACTION = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n"
DOWN = b"421 4.3.2 localhost Service shutting down\r\n"


class Hooked(ByteStream):
    """A stream in memory, which calls back at each receive and send, before they return."""

    def __init__(
        self,
        *chunks: bytes,
        receiving: Callable[[bytes], object] = lambda _: None,
        sending: Callable[[bytes], Awaitable[object]] | None = None,
    ) -> None:
        self.chunks = list(chunks)
        self.receiving, self.sending = receiving, sending
        self.sent = b""

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        await anyio.lowlevel.checkpoint()
        if not self.chunks:
            await anyio.sleep_forever()
        data = self.chunks.pop(0)
        self.receiving(data)
        if not data:
            raise anyio.EndOfStream
        return data

    async def send(self, item: bytes) -> None:
        if self.sending is not None:
            await self.sending(item)
        self.sent += item

    async def send_eof(self) -> None:
        raise anyio.BrokenResourceError

    async def aclose(self) -> None:
        await anyio.lowlevel.checkpoint()


async def serve(server: Server, stream: ByteStream) -> None:
    with anyio.fail_after(60):
        await server.serve_stream(stream)


# The end of the server


async def test_stopping_while_a_reply_is_written(box: Box) -> None:
    """It is written to its end; and then there is no waiting for a command."""

    async def sending(octets: bytes) -> None:
        if octets.startswith(b"250-"):
            server.stop()
            await anyio.lowlevel.checkpoint()

    server = Server(box)
    stream = Hooked(b"EHLO client.example\r\n", sending=sending)
    await serve(server, stream)
    assert stream.sent.endswith(DOWN)
    assert b"250 HELP\r\n" in stream.sent


@pytest.mark.parametrize(
    "last",
    [
        b"MAIL FROM:<a@b.example>\r\n",
        IN_TRANSACTION + b"BDAT 2 LAST\r\nhi",
        b"NOOP",
        b"",
    ],
)
async def test_stopping_at_the_moment_a_command_comes(
    last: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """It is answered with 421; no handler is asked, to be cut off at once."""

    class Asked(Box):
        asked = False

        async def mail(self, session: Session, command: Mail) -> Reply | None:
            self.asked = True
            await anyio.lowlevel.checkpoint()
            return None

    handler = Asked()
    server = Server(handler)

    def receiving(data: bytes) -> None:
        if not data.startswith(b"EHLO"):
            server.stop()

    stream = Hooked(b"EHLO client.example\r\n", last, receiving=receiving)
    await serve(server, stream)
    assert not handler.asked
    assert handler.received == []
    if last:
        assert stream.sent.endswith(DOWN)
    assert caplog.text == ""


async def test_a_transaction_under_way_goes_on_when_the_server_stops(box: Box) -> None:
    server = Server(box)
    async with running(server) as port, await in_content(port) as wire:
        server.stop()
        await wire.say("hello", ".", "NOOP")
        assert (await wire.reply()).startswith("250")
        assert await wire.rest() == DOWN
    assert len(box.received) == 1


async def test_a_server_that_is_stopped_before_it_serves(box: Box) -> None:
    """It lets nobody in, and does not wait for ever."""
    server = Server(box)
    server.stop()
    async with anyio.create_task_group() as tasks:
        with anyio.fail_after(20):
            _, port = await tasks.start(server.serve)
    with pytest.raises(OSError, match="connect"):
        await connect(port)


# Alarms


async def test_an_alarm_rings_for_what_it_rang_for() -> None:
    """Not for what is set by those who tidy up."""
    alarm = Alarm()
    with alarm:
        alarm.set("handler", alarm.now() + 0.01)
        try:
            await anyio.sleep_forever()
        finally:
            alarm.set("write", alarm.now() + 60)
    assert alarm.rang == "handler"
    with alarm:
        alarm.ring("stop")
        alarm.ring("command")
        alarm.set("write", alarm.now() + 60)
        await anyio.sleep_forever()
    assert alarm.rang == "stop"


async def test_an_alarm_that_is_put_off_does_not_ring() -> None:
    alarm = Alarm()
    with alarm:
        for later in (60, float("inf")):
            alarm.set("soon", alarm.now() + 0.02)
            alarm.set("late", alarm.now() + later)
            await anyio.sleep(0.05)
    assert alarm.rang is None


async def test_an_alarm_that_was_off_rings_in_the_next_block() -> None:
    alarm = Alarm()
    with alarm:
        alarm.set("first", alarm.now() + 60)
        alarm.off()
        alarm.set("behind", alarm.now() + 60)
    assert alarm.rang is None
    with anyio.fail_after(60), alarm:
        alarm.set("second", alarm.now() + 0.01)
        await anyio.sleep_forever()
    assert alarm.rang == "second"


async def test_a_session_that_ends_within_content_is_no_slow_handler(
    box: Box, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(box, deadlines=ServerDeadlines(session=SHORT))
    async with running(server) as port, await in_content(port) as wire:
        await wire.say("Subject: no more")
        assert await wire.rest() == TIMED_OUT
    assert caplog.text == ""


async def test_a_client_that_does_not_listen_within_content_is_no_slow_handler(
    box: Box, caplog: pytest.LogCaptureFixture
) -> None:
    """Its replies to chunks cannot be written: nobody else is to blame, or waited for."""
    writes: list[bytes] = []

    async def sending(octets: bytes) -> None:
        writes.append(octets)
        if b"250 2.1.0" in octets:
            await anyio.sleep_forever()

    stream = Hooked(
        b"EHLO client.example\r\n",
        IN_TRANSACTION + b"BDAT 2\r\nhi",
        sending=sending,
    )
    await serve(Server(box, deadlines=ServerDeadlines(write=SHORT)), stream)
    assert len(writes) == 3
    assert caplog.text == ""


async def test_guessing_passwords_is_not_cut_short_by_a_deadline_of_before(box: Box) -> None:
    """The pause behind a failed login is nobody's wait: what was set before does not ring."""

    class Slow(Box):
        async def verify(self, session: Session, question: object) -> bool:
            await anyio.sleep(SHORT)
            return False

    slow = Slow()
    server = Server(
        slow,
        authenticator=slow,
        plaintext_auth="always",
        failed_login_delay=6 * SHORT,
        deadlines=ServerDeadlines(handler=4 * SHORT),
    )
    async with running(server) as port, await opened(port) as wire:
        assert (await wire.ask("AUTH PLAIN AGFubgB4")).startswith("535")
        assert (await wire.ask("NOOP")).startswith("250")


# Writes under way


@pytest.mark.parametrize("kind", ["own", "foreign"])
async def test_what_has_begun_to_leave_is_waited_for(kind: str) -> None:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    wire = await wire_of(ours, kind)
    much = b"x" * (8 << 20)
    pump: Pump[ServerEvent] = Pump(wire, ServerConnection("localhost"))
    assert pump.begin()
    pump.put(much)
    assert pump.unsent
    assert not pump.begin()
    assert not pump.begin()  # there is no more to begin, and yet it has not left
    assert pump.unsent
    received = 0
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pump.finish)
            while received < len(much):
                await anyio.wait_readable(theirs)
                received += len(theirs.recv(1 << 20))
    assert not pump.unsent
    assert pump.begin()
    theirs.close()
    await wire.aclose()


async def wire_of(raw: socket.socket, kind: str) -> Any:
    if kind == "foreign":
        return as_wire(await SocketStream.from_socket(raw))
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return BareWire(raw)
    return LoopWire(raw, loop)


async def test_hanging_up_leaves_out_nothing_that_was_owed() -> None:
    """Not even what had only begun to leave, while the handler waited."""

    class Hanging(Box):
        async def rcpt(self, session: Session, command: object) -> Reply | None:
            await anyio.sleep(SHORT / 3)  # the reply to MAIL begins to leave
            raise HangUp

    async def sending(octets: bytes) -> None:
        await anyio.sleep(SHORT)

    stream = Hooked(
        b"EHLO client.example\r\n",
        IN_TRANSACTION,
        sending=sending,
    )
    await serve(Server(Hanging()), stream)
    assert stream.sent.endswith(b"250 HELP\r\n250 2.1.0 Sender ok\r\n")


# Floods


async def turns_of_others(server: Server, stream: ByteStream) -> int:
    """How often others went on while a session was served."""
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(others)
        await serve(server, stream)
        tasks.cancel_scope.cancel()
    return turns


@pytest.mark.parametrize(
    "much",
    [b"RSET\r\n" * 10_000, IN_TRANSACTION + b"BDAT 1\r\nx" * 10_000],
    ids=["commands", "little chunks"],
)
async def test_others_get_their_turn_while_one_session_has_much_at_hand(
    much: bytes, box: Box
) -> None:
    stream = Hooked(b"EHLO client.example\r\n", much, b"")
    server = Server(box, max_commands=None, max_idle_commands=None)
    assert await turns_of_others(server, stream) > 100
    assert stream.sent.count(b"\r\n250 2.") >= 10_000


class Torrent(ForeignWire):
    """Has more at hand each time: a peer that is faster than we read."""

    def __init__(self, *chunks: bytes) -> None:
        super().__init__(Hooked())
        self.chunks = list(chunks)

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        if not self.chunks:
            raise anyio.EndOfStream
        return self.chunks.pop(0)


@pytest.mark.parametrize(
    "begin",
    [IN_TRANSACTION + b"DATA\r\n", b"BDAT 99999999999\r\n"],
    ids=["too large", "refused"],
)
async def test_what_is_thrown_away_takes_turns_too(begin: bytes, box: Box) -> None:
    """No event comes of it, and yet others go on, and deadlines hold."""
    wire = Torrent(b"EHLO client.example\r\n", begin, *[b"x" * 60_000] * 1000)
    assert await turns_of_others(Server(box, limits=Limits(message=1)), wire) > 500
    assert not wire.chunks


async def test_who_is_sent_away_and_sends_for_ever_is_cut_off(box: Box) -> None:
    """By octets as by time: here there is no limit of time."""
    limits = Limits(bad_commands=0)
    server = Server(box, limits=limits, deadlines=ServerDeadlines(linger=None))
    async with running(server) as port, await connect(port) as wire:
        await wire.reply()

        async def for_ever() -> None:
            while True:
                await wire.send(b"NONSENSE\r\n" * 5000)

        with anyio.fail_after(60), pytest.raises((anyio.BrokenResourceError, OSError)):
            await for_ever()


# The ends of TLS, and of the loop


async def test_tls_ends_as_tls_does(box: Box, tls: Certificates) -> None:
    """A client that wants its close_notify gets it, behind the last reply (RFC 8446 §6.1)."""
    server = Server(box, tls=tls.server, implicit_tls=True)
    async with running(server) as port:
        stream = await TLSStream.wrap(
            await anyio.connect_tcp(HOST, port),
            hostname="localhost",
            ssl_context=tls.trusting,
            standard_compatible=True,
        )
        await stream.receive()
        await stream.send(b"QUIT\r\n")
        assert (await stream.receive()).startswith(b"221")
        with pytest.raises(anyio.EndOfStream):
            await stream.receive()
        await anyio.aclose_forcefully(stream)


async def test_a_peer_that_has_gone_does_not_end_the_listening(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some systems refuse to set a socket's options then, with what a dead listener says."""
    made, first = BareWire.__init__, [True]

    def fails_once(self: BareWire, raw: socket.socket, *ends: Any) -> None:
        if first:
            first.clear()
            raise OSError(22, "Invalid argument")
        made(self, raw, *ends)

    monkeypatch.setattr(BareWire, "__init__", fails_once)
    async with running(Server(box)) as port:
        async with await connect(port) as wire:
            assert await wire.rest() == b""
        async with await connect(port) as wire:
            assert (await wire.reply()).startswith("220")


async def test_a_handler_that_cannot_be_looked_at_ends_one_session(
    caplog: pytest.LogCaptureFixture, box: Box
) -> None:
    class Broken:
        @property
        def stored(self) -> Any:
            raise ValueError("no database")

        async def lookup(self, session: Session, question: object) -> None:
            return None

    server = Server(box, authenticator=Broken(), plaintext_auth="always")
    async with running(server) as port:
        async with await connect(port) as wire:
            assert await wire.rest() == b""
        server.authenticator = None
        async with await connect(port) as wire:
            assert (await wire.reply()).startswith("220")
    assert "no database" in caplog.text


# uvloop


def test_on_uvloop(tls: Certificates, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The bell that wakes a reader is future-like, and its ring is within the loop's own call."""
    pytest.importorskip("uvloop")
    path = tmp_path_factory.mktemp("u") / "s"

    class Waiting(Box):
        async def mail(self, session: Session, command: Mail) -> Reply | None:
            await anyio.sleep(0.001)
            return None

        async def content(
            self, session: Session, envelope: Envelope, content: ContentStream
        ) -> Reply | None:
            async for _ in content:
                await anyio.lowlevel.checkpoint()
            return None

    async def main() -> None:
        server = Server(Waiting(), tls=tls.server, deadlines=ServerDeadlines(command=SHORT * 10))
        with anyio.fail_after(60):
            async with running(server) as port:
                async with await connect(port) as wire:
                    await dialogue(wire, secure=True)
                async with await connect(port) as wire:
                    await wire.reply()
                    assert await wire.rest() == TIMED_OUT
                async with await connect(port) as wire:
                    await wire.reply()
                    await wire.ask("EHLO client.example")
                    server.stop()
                    assert await wire.rest() == DOWN
            other = Server(Waiting())
            async with (
                Listener(await anyio.create_unix_listener(path)) as listener,
                anyio.create_task_group() as tasks,
            ):
                tasks.start_soon(listener.serve, other.serve_stream, tasks)
                async with Wire(await connect_unix(path)) as wire:
                    await dialogue(wire, secure=False)
                tasks.cancel_scope.cancel()

    async def dialogue(wire: Wire, *, secure: bool) -> None:
        assert (await wire.reply()).startswith("220")
        await wire.ask("EHLO client.example")
        if secure:
            await wire.ask("STARTTLS")
            await wire.start_tls(tls.trusting, server_side=False)
            await wire.ask("EHLO client.example")
        for _ in range(3):
            await wire.say("MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "DATA")
            assert [(await wire.reply())[:3] for _ in range(3)] == ["250", "250", "354"]
            await wire.send(b"x" * 70 + b"\r\n" + (b"line\r\n" * 100_000))
            assert (await wire.ask(".")).startswith("250")

    anyio.run(main, backend="asyncio", backend_options={"use_uvloop": True})
