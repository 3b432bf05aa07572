"""The server: what handlers may do to it, what clients may, and how it ends."""

import errno
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from smtpproto import Envelope, Limits, Mail, Rcpt, Reply
from smtpproto.client import Client
from smtpproto.result import TlsError
from smtpproto.server import (
    Connections,
    ContentError,
    ContentStream,
    Server,
    ServerDeadlines,
    Session,
)
from smtpproto.wire.bare import serve_bare

from .clock import anyio_backend  # noqa: F401 - a fixture
from .wire import HOST, Wire, connect
from .world import (
    ENVELOPE,
    MESSAGE,
    Accounts,
    Box,
    Certificates,
    Scripted,
    clear,
    running,
    until,
)

pytestmark = pytest.mark.anyio

OPENED = ["EHLO client.example", "MAIL FROM:<ann@example.org>", "RCPT TO:<bob@example.net>"]


async def opened(port: int, *lines: str) -> Wire:
    """A raw client that has been greeted and has had good replies to these lines."""
    wire = await connect(port)
    assert (await wire.reply()).startswith("220")
    for line in lines:
        reply = await wire.ask(line)
        assert reply[0] in "23", reply
    return wire


async def ended(wire: Wire) -> bytes:
    """What comes until the server closes; fails if it does not."""
    with anyio.fail_after(60):
        return await wire.rest()


# Handlers


class Failing(Box):
    """Raises, or answers what is no answer, in the method named."""

    def __init__(self, where: str, answer: Callable[[], Any]) -> None:
        super().__init__()
        self.where, self.answer = where, answer

    async def connect(self, session: Session) -> Reply | None:
        return self.answer() if self.where == "connect" else None

    async def mail(self, session: Session, command: Mail) -> Reply | None:
        return self.answer() if self.where == "mail" else None

    async def rcpt(self, session: Session, command: Rcpt) -> Reply | None:
        return self.answer() if self.where == "rcpt" else None

    async def content(
        self, session: Session, envelope: Envelope, content: ContentStream
    ) -> Reply | None:
        if self.where == "content":
            reply: Reply = self.answer()
            return reply
        return await super().content(session, envelope, content)


def raises() -> Any:
    raise RuntimeError("private: the path is /srv/secret")


def raises_a_group() -> Any:
    raise ExceptionGroup("private", [RuntimeError("private: one"), OSError("private: two")])


@pytest.mark.parametrize(
    "answer",
    [raises, raises_a_group, lambda: Reply(354, None, "go on"), lambda: Reply(334, None, "")],
)
@pytest.mark.parametrize("where", ["connect", "mail", "rcpt", "content"])
async def test_a_handler_that_fails_is_answered_for(
    where: str, answer: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    """451, nothing of the error on the wire, the traceback in the log, and life goes on."""
    handler = Failing(where, answer)
    async with running(Server(handler)) as port:
        async with await connect(port) as wire:
            if where == "connect":
                assert await ended(wire) == b"421 localhost Service not available\r\n"
            else:
                await wire.reply()
                heard = [await wire.ask(line) for line in [*OPENED, "DATA"]]
                if heard[-1].startswith("354"):
                    heard.append(await wire.ask("text", "."))
                (failed,) = [reply for reply in heard if reply.startswith("451")]
                assert failed == "451 4.3.0 Local error in processing"
                assert "private" not in "".join(heard)
                assert (await wire.ask("NOOP")).startswith("250")
        assert "Traceback" in caplog.text
        handler.where = ""
        async with clear(port) as client:
            await client.send(ENVELOPE, MESSAGE)


async def test_a_handler_with_the_wrong_signature_is_answered_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Wrong(Box):
        async def mail(self) -> None:  # type: ignore[override]  # the point
            pass

        def rcpt(self, session: Session, command: Rcpt) -> Reply:  # type: ignore[override]  # the point
            return Reply(250)

    wrong: Any = Wrong()
    async with running(Server(wrong)) as port, await opened(port, OPENED[0]) as wire:
        assert (await wire.ask(OPENED[1])).startswith("451 4.3.0")
        Wrong.mail = Box.mail  # type: ignore[method-assign, assignment]
        assert (await wire.ask(OPENED[1])).startswith("250")
        assert (await wire.ask(OPENED[2])).startswith("451 4.3.0")
    assert "TypeError" in caplog.text


@pytest.mark.rfc("2920 §3.2 replies-of-a-group-leave-together")
async def test_replies_to_pipelined_commands_share_one_write(box: Box) -> None:
    pipelined = "MAIL FROM:<a@example.org>", "RCPT TO:<b@example.net>", "RCPT TO:<c@example.net>"
    stream = Scripted(
        b"EHLO client.example\r\n",
        "\r\n".join([*pipelined, "RSET", *pipelined, "DATA", ""]).encode(),
        b"text\r\n.\r\nQUIT\r\n",
    )
    await Server(box).serve_stream(stream)
    assert [write.count(b"\r\n") for write in stream.sent] == [1, 7, 8, 1, 1]
    assert len(box.received) == 1


@pytest.mark.rfc("2920 §3.2 held-replies-leave-before-waiting")
async def test_what_was_held_back_leaves_when_a_handler_waits() -> None:
    class Waiting(Box):
        def __init__(self) -> None:
            super().__init__()
            self.may_go = anyio.Event()

        async def rcpt(self, session: Session, command: Rcpt) -> Reply | None:
            if "slow" in str(command.forward_path):
                await self.may_go.wait()
            return None

    handler = Waiting()
    async with running(Server(handler)) as port, await opened(port, OPENED[0]) as wire:
        await wire.say(
            "MAIL FROM:<a@example.org>",
            "RCPT TO:<b@example.net>",
            "RCPT TO:<slow@example.net>",
            "RCPT TO:<c@example.net>",
        )
        assert (await wire.reply()).startswith("250 2.1.0")
        assert (await wire.reply()).startswith("250 2.1.5")
        handler.may_go.set()
        assert (await wire.reply()).startswith("250 2.1.5")
        assert (await wire.reply()).startswith("250 2.1.5")


@pytest.mark.parametrize("reply", [None, Reply(250), Reply(550, "5.7.1", "Not this")])
async def test_a_handler_may_stop_reading_anywhere(reply: Reply | None) -> None:
    """The session goes on behind the true end of the content, whatever was read of it."""

    class Hasty(Box):
        reads = 0

        async def content(
            self, session: Session, envelope: Envelope, content: ContentStream
        ) -> Reply | None:
            for _ in range(self.reads):
                await anext(content)
            return reply

    handler = Hasty()
    async with running(Server(handler)) as port, clear(port) as client:
        for handler.reads in 0, 1, 2:
            content = b"MAIL FROM:<evil@example.org>\r\n" * 20_000
            (outcome,) = (await client.deliver(ENVELOPE, content)).outcomes
            assert outcome.accepted is (reply is None or reply.code == 250)
            assert client.usable


@pytest.mark.parametrize("deaf", [False, True])
@pytest.mark.parametrize(
    ("content", "answer"),
    [("a\nb\r\n.\r\n", "554 5.6.0 *"), ("x" * 300 + "\r\n.\r\n", "552 5.3.4 *")],
)
async def test_content_at_fault_is_refused_whatever_the_handler_says(
    deaf: bool, content: str, answer: str
) -> None:
    class Deaf(Box):
        errors: list[ContentError]

        async def content(
            self, session: Session, envelope: Envelope, content: ContentStream
        ) -> Reply | None:
            self.errors = []
            try:
                return await super().content(session, envelope, content)
            except ContentError as error:
                self.errors.append(error)
                if not deaf:
                    raise
                with pytest.raises(ContentError):  # it stays so
                    await anext(content)
            return Reply(250, "2.0.0", "All is well")

    handler = Deaf()
    server = Server(handler, limits=Limits(message=200))
    async with running(server) as port, await opened(port, *OPENED, "DATA") as wire:
        await wire.send(content.encode())
        await wire.play(f"S: {answer}\nC: NOOP\nS: 250*", side="C")
    (error,) = handler.errors
    assert error.reply is not None
    assert str(error.reply.code) == answer[:3]
    assert handler.received == []


async def test_repair_makes_whole_lines(box: Box) -> None:
    server = Server(box, repair=True)
    async with running(server) as port, await opened(port, *OPENED, "DATA") as wire:
        await wire.send(b"a\nb\rc\r\n.\r\n")
        assert (await wire.reply()).startswith("250")
    assert box.received[0].content == b"a\r\nb\r\nc\r\n"


@pytest.mark.rfc("5321 §4.1.1.10 lost-connection-is-a-temporary-failure")
async def test_content_cut_short_is_an_error_to_the_handler_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    errors: list[ContentError] = []

    class Watching(Box):
        async def content(
            self, session: Session, envelope: Envelope, content: ContentStream
        ) -> Reply | None:
            for _ in range(3):
                with pytest.raises(ContentError, match="broke off") as caught:
                    await super().content(session, envelope, content)
                errors.append(caught.value)
            return None

    server = Server(Watching())
    async with running(server) as port:
        async with await opened(port, *OPENED, "DATA") as wire:
            await wire.say("half of")
        await until(lambda: not server.dialogues)
    assert [error.reply for error in errors] == [None] * 3
    assert caplog.text == ""


async def test_what_a_session_knows(box: Box, tls: Certificates) -> None:
    server = Server(box, tls=tls.server, authenticator=Accounts())
    lines = "HELO first.example", *OPENED[1:], "DATA"
    async with running(server) as port, await opened(port, *lines) as wire:
        await wire.ask("text", ".")
    (received,) = box.received
    session = received.session
    assert (session.helo_name, session.extended, session.identity) == ("first.example", False, None)
    assert session.peer[0] == HOST
    assert session.local == (HOST, port)
    assert not session.early_talker


# Clients


@pytest.mark.rfc("5321 §4.3.1 talking-too-early-is-seen")
@pytest.mark.parametrize("early", [True, False])
async def test_talking_before_the_greeting_is_noticed(early: bool) -> None:
    seen: list[bool] = []

    class Watching(Box):
        async def connect(self, session: Session) -> Reply | None:
            seen.append(session.early_talker)
            return None

    server = Server(Watching(), greeting_delay=5 if early else 0.02)
    async with running(server) as port, await connect(port) as wire:
        if early:
            await wire.say("EHLO client.example")
        assert (await wire.reply()).startswith("220")
        if not early:
            await wire.say("EHLO client.example")
        assert (await wire.reply()).startswith("250")
    assert seen == [early]


async def test_a_welcomer_may_refuse() -> None:
    handler = Failing("connect", lambda: Reply(554, None, "Not for you"))
    async with running(Server(handler)) as port, await connect(port) as wire:
        assert await wire.reply() == "554 Not for you"
        assert (await wire.ask(OPENED[0])).startswith("503")
        assert (await wire.ask("QUIT")).startswith("221")
        assert await ended(wire) == b""


@pytest.mark.parametrize(
    "octets",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\n\r\nMAIL FROM:<evil@example.org>\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"x" * 70_000,
    ],
)
async def test_what_is_no_smtp_ends_the_session_at_once(octets: bytes, box: Box) -> None:
    async with running(Server(box)) as port, await opened(port) as wire:
        await wire.send(octets)
        rest = await ended(wire)
        assert rest.startswith(b"500 5.5.2 ")
        assert rest.count(b"\r\n") == 1


async def test_a_tls_client_on_a_clear_port_fails_and_hangs_nothing(
    box: Box, tls: Certificates
) -> None:
    server = Server(box)
    async with running(server) as port:
        with pytest.raises(TlsError):
            await Client("localhost", port, tls="implicit", ssl_context=tls.trusting).__aenter__()
        await until(lambda: not server.dialogues)


async def test_clear_text_on_a_tls_port_ends_quietly(
    box: Box, tls: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(box, tls=tls.server, implicit_tls=True)
    async with running(server) as port:
        for octets in b"EHLO client.example\r\n", b"\x16\x03\x01", b"":
            async with await connect(port) as wire:
                await wire.send(octets)
                await wire.stream.send_eof()
                await ended(wire)
        await until(lambda: not server.dialogues)
    assert caplog.text == ""


async def test_too_many_bad_commands(box: Box) -> None:
    server = Server(box, limits=Limits(bad_commands=3))
    async with running(server) as port, await opened(port) as wire:
        for _ in range(3):
            assert (await wire.ask("NONSENSE")).startswith("5")
        assert await wire.ask("NONSENSE") == "421 4.7.0 localhost Too many errors"
        assert await ended(wire) == b""


@pytest.mark.rfc("5321 §4.5.4.2 several-sessions-at-once", "5321 §4.5.4.2 sessions-may-be-limited")
@pytest.mark.parametrize(
    ("connections", "held"),
    [(Connections(2), 2), (Connections(1000, 1), 1)],
)
async def test_connections_past_the_limit_hear_421(
    connections: Connections, held: int, box: Box
) -> None:
    server = Server(box, connections=connections)
    async with running(server) as port:
        wires = [await opened(port) for _ in range(held)]
        for _ in range(3):
            async with await connect(port) as wire:
                assert await ended(wire) == b"421 localhost Too many connections\r\n"
        await anyio.aclose_forcefully(wires.pop().stream)
        await until(lambda: len(server.connections) == held - 1)
        async with await opened(port, OPENED[0]):
            pass
        for wire in wires:
            await anyio.aclose_forcefully(wire.stream)


async def test_past_the_limit_there_is_no_handshake(box: Box, tls: Certificates) -> None:
    server = Server(box, tls=tls.server, implicit_tls=True, connections=Connections(1))
    async with running(server) as port, await connect(port):
        await until(lambda: len(server.connections) == 1)
        async with await connect(port) as wire:
            assert await ended(wire) == b""


async def test_streams_without_an_address_count_only_in_all(box: Box) -> None:
    server = Server(box, connections=Connections(1000, 1))
    async with anyio.create_task_group() as tasks:
        streams = [Scripted(b"EHLO x.example\r\n") for _ in range(3)]
        for stream in streams:
            tasks.start_soon(server.serve_stream, stream)
        await until(lambda: all(len(stream.sent) == 2 for stream in streams))
        tasks.cancel_scope.cancel()
    assert all(stream.sent[0].startswith(b"220") for stream in streams)


class Accepting:
    """A listening socket whose accepting fails, once for each error."""

    def __init__(self, *errors: OSError) -> None:
        self.errors = list(errors)
        self.own = socket.create_server((HOST, 0))
        socket.create_connection(self.own.getsockname()).close()  # so that it is readable

    def fileno(self) -> int:
        return self.own.fileno()

    def setblocking(self, flag: bool) -> None:
        self.own.setblocking(flag)

    def getsockname(self) -> Any:
        return self.own.getsockname()

    def accept(self) -> Any:
        if self.errors:
            raise self.errors.pop(0)
        return self.own.accept()


async def nobody(wire: Any) -> None:
    await anyio.aclose_forcefully(wire)


@pytest.mark.rfc("5321 §4.5.4.2 listens-all-the-time")
@pytest.mark.parametrize("anyio_backend", ["trio"])  # on asyncio the loop accepts
async def test_accepting_goes_on_when_one_connection_fails(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The errors of accept(2) are about one connection, or pass."""
    listening = Accepting(
        OSError(errno.EMFILE, "too many open files"),
        OSError(errno.ECONNABORTED, "it went away"),
    )
    with listening.own:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve_bare, listening, nobody, tasks)  # type: ignore[arg-type]  # as good as one
            await until(lambda: not listening.errors)
            tasks.cancel_scope.cancel()
    assert "too many open files" in caplog.text


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_a_listener_that_is_gone_ends_the_server() -> None:
    listening = Accepting(OSError(errno.EBADF, "closed"))
    with listening.own:
        async with anyio.create_task_group() as tasks:
            with pytest.raises(OSError, match="closed"):
                await serve_bare(listening, nobody, tasks)  # type: ignore[arg-type]  # as good as one


async def test_a_port_that_is_taken(box: Box) -> None:
    async with running(Server(box)) as port:
        with pytest.raises(OSError, match="in use"):
            await Server(box).serve(HOST, port)


async def test_an_error_of_ours_ends_one_session_only(
    box: Box, caplog: pytest.LogCaptureFixture
) -> None:
    def trace(session: Session, line: str) -> None:
        if line == "C: NOOP":
            raise ZeroDivisionError

    async with running(Server(box, trace=trace)) as port:
        async with await opened(port) as wire:
            await wire.say("NOOP")
            assert await ended(wire) == b""
        async with clear(port) as client:
            await client.send(ENVELOPE, MESSAGE)
    assert "ended by an error" in caplog.text


# The end


@asynccontextmanager
async def stoppable(server: Server) -> AsyncIterator[tuple[int, anyio.Event]]:
    """The port, and an event that says that `serve` has returned."""
    done = anyio.Event()

    async def serve(*, task_status: anyio.abc.TaskStatus[tuple[str, int]]) -> None:
        await server.serve(HOST, task_status=task_status)
        done.set()

    async with anyio.create_task_group() as tasks:
        _, port = await tasks.start(serve)
        with anyio.fail_after(60):
            yield port, done
            await done.wait()


async def listens(port: int) -> bool:
    try:
        await anyio.aclose_forcefully((await connect(port)).stream)
    except OSError:
        return False
    return True


SHUTTING_DOWN = b"421 4.3.2 localhost Service shutting down\r\n"


@pytest.mark.rfc("5321 §3.8 stopping-server-says-421")
async def test_stop_ends_the_idle_and_lets_transactions_finish(box: Box) -> None:
    server = Server(box)
    async with (
        stoppable(server) as (port, done),
        await opened(port) as fresh,
        await opened(port, OPENED[0]) as idle,
        await opened(port, *OPENED) as busy,
        await opened(port, *OPENED, "DATA") as taking,
    ):
        server.stop()
        assert await ended(fresh) == SHUTTING_DOWN
        assert await ended(idle) == SHUTTING_DOWN
        while await listens(port):
            pass
        assert not done.is_set()
        assert (await taking.ask("text", ".")).startswith("250 2.0.0")
        assert await ended(taking) == SHUTTING_DOWN
        assert (await busy.ask("DATA")).startswith("354")
        assert (await busy.ask("text", ".")).startswith("250 2.0.0")
        assert await ended(busy) == SHUTTING_DOWN
    assert len(box.received) == 2
    assert not server.dialogues


async def test_stop_has_an_end_of_its_own(box: Box) -> None:
    server = Server(box, deadlines=ServerDeadlines(drain=0.05))
    async with (
        stoppable(server) as (port, _),
        await opened(port, *OPENED) as between,
        await opened(port, *OPENED, "DATA") as wire,
    ):
        server.stop()
        await wire.say("and then nothing")
        assert await ended(wire) == SHUTTING_DOWN
        assert await ended(between) == SHUTTING_DOWN
    assert box.received == []
    assert not server.dialogues


@pytest.mark.rfc("5321 §3.8 stopping-server-says-421")
@pytest.mark.parametrize("deaf", [False, True])
async def test_at_the_end_a_handler_is_not_waited_for(deaf: bool) -> None:
    """Nor when it goes on after it was cancelled: then the connection is cut."""

    begun: list[Rcpt] = []

    class Slow(Box):
        async def rcpt(self, session: Session, command: Rcpt) -> Reply | None:
            begun.append(command)
            try:
                await anyio.Event().wait()
            finally:
                if deaf:
                    with anyio.move_on_after(0.2, shield=True):
                        await anyio.Event().wait()
            return None

    server = Server(Slow(), deadlines=ServerDeadlines(drain=0.02, cut=0.1))
    async with stoppable(server) as (port, _), await opened(port, *OPENED[:2]) as wire:
        await wire.say(OPENED[2])
        await until(lambda: bool(begun))
        server.stop()
        assert await ended(wire) == (b"" if deaf else SHUTTING_DOWN)


async def test_at_the_end_who_does_not_listen_is_cut_off(box: Box) -> None:
    server = Server(box, deadlines=ServerDeadlines(drain=0.02, cut=0.02, linger=None))
    async with stoppable(server) as (port, done), await opened(port, *OPENED, "DATA"):
        server.stop()
        await done.wait()
    assert not server.dialogues


async def test_at_the_end_a_handshake_is_cut_off_without_a_word(
    box: Box, tls: Certificates
) -> None:
    server = Server(box, tls=tls.server, deadlines=ServerDeadlines(drain=0.02))
    async with (
        stoppable(server) as (port, _),
        await opened(port, OPENED[0], "STARTTLS") as wire,
    ):
        server.stop()
        assert await ended(wire) == b""


async def test_stop_before_a_connection_is_greeted() -> None:
    may_go = anyio.Event()

    class Slow(Box):
        async def connect(self, session: Session) -> Reply | None:
            await may_go.wait()
            return None

    server = Server(Slow())
    async with stoppable(server) as (port, _), await connect(port) as wire:
        await until(lambda: bool(server.dialogues))
        server.stop()
        may_go.set()
        assert (await wire.reply()).startswith("220")
        assert await ended(wire) == SHUTTING_DOWN


async def test_stop_twice_and_without_sessions(box: Box) -> None:
    server = Server(box)
    async with stoppable(server):
        server.stop()
        server.stop()


async def test_cancelling_serve_ends_everything_at_once(box: Box) -> None:
    server = Server(box)
    async with running(server) as port:
        wires = [await opened(port, *OPENED) for _ in range(3)]
    for wire in wires:
        assert await ended(wire) == b""
        await anyio.aclose_forcefully(wire.stream)


async def test_none_listens_on_all_addresses(box: Box) -> None:
    server = Server(box)
    async with anyio.create_task_group() as tasks:
        _, port = await tasks.start(server.serve, None)
        async with clear(port) as client:
            await client.send(ENVELOPE, MESSAGE)
        tasks.cancel_scope.cancel()
