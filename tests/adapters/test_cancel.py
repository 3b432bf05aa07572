"""Cancelled at every await, one after the other: nothing is left, and the next session works."""

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import anyio
import pytest
from anyio.abc import ByteStream, SocketAttribute

from smtpproto import STANDARD, Envelope, Mail, Rcpt, Reply
from smtpproto.client import Client, connect_tcp
from smtpproto.result import ClientError
from smtpproto.server import ContentStream, Server, Session

from .wire import HOST
from .world import (
    ENVELOPE,
    MESSAGE,
    PASSWORD,
    Accounts,
    Box,
    CancelAt,
    Certificates,
    clear,
    running,
    until,
)

pytestmark = pytest.mark.anyio


def closed(stream: ByteStream) -> bool:
    """Whether the socket below is closed."""
    number: int = stream.extra(SocketAttribute.raw_socket).fileno()
    return number < 0


class Recording:
    """A connector that remembers what it opened."""

    def __init__(self) -> None:
        self.streams: list[ByteStream] = []

    async def __call__(self, host: str, port: int) -> ByteStream:
        stream = await connect_tcp(host, port)
        self.streams.append(stream)
        return stream


async def pieces() -> AsyncIterator[bytes]:
    for _ in range(3):
        await anyio.lowlevel.checkpoint()
        yield MESSAGE


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("form", ["bytes", "path", "iterator"])
async def test_client_cancelled_at_every_await(
    secure: bool, form: str, box: Box, tls: Certificates, tmp_path: Path
) -> None:
    server = Server(box, tls=tls.server, authenticator=Accounts(), plaintext_auth="always")
    connector = Recording()

    async def whole(content: object) -> None:
        async with Client(
            "localhost",
            port,
            tls="required" if secure else "none",
            ssl_context=tls.trusting,
            login=("ann", PASSWORD),
            login_in_clear=True,
            connector=connector,
        ) as client:
            await client.send(ENVELOPE, content)  # type: ignore[arg-type]  # one of the three

    file = tmp_path / "message"
    file.write_bytes(MESSAGE)
    forms: dict[str, Callable[[], object]] = {
        "bytes": lambda: MESSAGE,
        "path": lambda: file,
        "iterator": pieces,
    }
    async with running(server) as port:
        tasks = len(anyio.get_running_tasks())
        for number in itertools.count(1):
            with anyio.CancelScope() as scope:
                journey = CancelAt(whole(forms[form]()), number, scope)
                await journey
            await until(lambda: all(map(closed, connector.streams)))
            await until(lambda: not server.peers)
            connector.streams.clear()
            if not journey.reached:
                break
            await until(lambda: len(anyio.get_running_tasks()) == tasks)
        assert number > 5
        box.received.clear()
        async with clear(port) as client:
            await client.send(ENVELOPE, MESSAGE)
    assert len(box.received) == 1


@pytest.mark.parametrize("hidden", [None, "CHUNKING"])
async def test_deliver_cancelled_at_every_await_leaves_a_session_used_rightly(
    hidden: str | None, box: Box
) -> None:
    """Still usable and in step, or over: never a reply taken for another's."""
    server = Server(box, offer=[e for e in STANDARD if not e.obliges and e.keyword != hidden])

    async def large() -> AsyncIterator[bytes]:
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
            yield MESSAGE * 1500

    async with running(server) as port:
        for number in itertools.count(1):
            box.received.clear()
            async with clear(port) as client:
                refused = Envelope("ann@example.org", ["no-b@example.net"])
                await client.deliver(refused, MESSAGE)  # so that RSET comes first
                with anyio.CancelScope() as scope:
                    journey = CancelAt(client.deliver(ENVELOPE, large()), number, scope)
                    await journey
                cancelled = scope.cancelled_caught
                if client.usable:
                    box.received.clear()
                    assert (await client.deliver(ENVELOPE, MESSAGE)).all_accepted
                    assert [r.content for r in box.received] == [MESSAGE]
                else:
                    assert cancelled
                    with pytest.raises(ClientError):
                        await client.deliver(ENVELOPE, MESSAGE)
            await until(lambda: not server.peers)
            if not journey.reached:
                break
        assert number > 5


class Waiting(Box):
    """A handler that waits a little everywhere."""

    async def connect(self, session: Session) -> Reply | None:
        await anyio.lowlevel.checkpoint()
        return None

    async def mail(self, session: Session, command: Mail) -> Reply | None:
        await anyio.lowlevel.checkpoint()
        return None

    async def rcpt(self, session: Session, command: Rcpt) -> Reply | None:
        await anyio.lowlevel.checkpoint()
        return await super().rcpt(session, command)

    async def content(
        self, session: Session, envelope: Envelope, content: ContentStream
    ) -> Reply | None:
        reply = await super().content(session, envelope, content)
        await anyio.lowlevel.checkpoint()
        return reply


@pytest.mark.parametrize("secure", [False, True])
async def test_server_session_cancelled_at_every_await(
    secure: bool, tls: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(
        Waiting(),
        tls=tls.server if secure else None,
        authenticator=Accounts(),
        plaintext_auth="always",
        greeting_delay=0.001,
    )

    async def visit(port: int) -> None:
        with suppress(ClientError):
            async with Client(
                "localhost",
                port,
                tls="required" if secure else "none",
                ssl_context=tls.trusting,
                login=("ann", PASSWORD),
                login_in_clear=True,
                connector=lambda host, port: connect_tcp(HOST, port),
            ) as client:
                await client.deliver(
                    Envelope("ann@example.org", ["no-a@example.net", "bob@example.net"]), MESSAGE
                )

    async with await anyio.create_tcp_listener(local_host=HOST) as listener:
        port = listener.extra(SocketAttribute.local_port)
        accepting = listener.listeners[0]
        assert isinstance(accepting, anyio.abc.SocketListener)
        for number in itertools.count(1):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(visit, port)
                stream = await accepting.accept()
                with anyio.CancelScope() as scope:
                    journey = CancelAt(server.serve_stream(stream), number, scope)
                    await journey
            await until(lambda stream=stream: closed(stream))  # type: ignore[misc]
            assert not server.peers
            assert not server.dialogues
            if not journey.reached:
                break
        assert number > 5
    assert caplog.text == ""


async def test_a_handler_is_told_that_it_was_cancelled() -> None:
    """And may do what it has to before it goes."""
    told: list[str] = []

    class Careful(Box):
        async def content(
            self, session: Session, envelope: Envelope, content: ContentStream
        ) -> Reply | None:
            told.append("begun")
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.lowlevel.checkpoint()
                    told.append("cleaned up")
            return None

    server = Server(Careful())
    async with (
        running(server) as port,
        anyio.create_task_group() as tasks,
        clear(port) as client,
    ):
        tasks.start_soon(client.deliver, ENVELOPE, MESSAGE)
        await until(lambda: bool(told))
        told.clear()
        tasks.cancel_scope.cancel()
    assert told == ["cleaned up"]
