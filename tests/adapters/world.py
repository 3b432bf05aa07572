"""What the adapters' tests share: our own server running, a handler that keeps what it is given."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import ByteStream
from attrs import define, field, frozen

from smtpproto import Envelope, Mail, Rcpt, Reply
from smtpproto.client import Client
from smtpproto.core.sasl import Verify
from smtpproto.server import ContentStream, Server, Session
from smtpproto.testing.certificate import Authority

from .wire import HOST

PASSWORD = "hunter2-and-more"
ENVELOPE = Envelope("ann@example.org", ["bob@example.net"])
MESSAGE = b"Subject: hello\r\n\r\n.a dot\r\nand the end\r\n"


@frozen
class Received:
    """One message that a handler took."""

    session: Session
    envelope: Envelope
    content: bytes


@define
class Box:
    """A handler that keeps everything; recipients named `no-…` are refused, `later-…` put off."""

    received: list[Received] = field(factory=list)
    replies: dict[str, Reply] = field(factory=dict)

    async def mail(self, session: Session, command: Mail) -> Reply | None:
        return self.replies.get("mail")

    async def rcpt(self, session: Session, command: Rcpt) -> Reply | None:
        name = str(command.forward_path).lstrip("<")
        if name.startswith("no-"):
            return Reply(550, "5.1.1", "No such mailbox")
        if name.startswith("later-"):
            return Reply(451, "4.2.1", "Not now")
        return self.replies.get("rcpt")

    async def content(
        self, session: Session, envelope: Envelope, content: ContentStream
    ) -> Reply | None:
        octets = b"".join([chunk async for chunk in content])
        self.received.append(Received(session, envelope, octets))
        return self.replies.get("content")


class Accounts:
    """Lets `ann` in, with PASSWORD."""

    async def verify(self, session: Session, question: Verify) -> bool:
        await anyio.lowlevel.checkpoint()
        return (question.username, question.password) == ("ann", PASSWORD)


@asynccontextmanager
async def running(server: Server) -> AsyncIterator[int]:
    """Run `server` on loopback; gives its port. Afterwards nothing of any session is left."""
    async with anyio.create_task_group() as tasks:
        _, port = await tasks.start(server.serve, HOST)
        yield port
        tasks.cancel_scope.cancel()
    assert not server.dialogues
    assert not server.dialogues


@asynccontextmanager
async def session(server: Server, **options: Any) -> AsyncIterator[Client]:
    """Our client with our server, in clear unless told otherwise."""
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(running(server))
        yield await stack.enter_async_context(clear(port, **options))


def clear(port: int, **options: Any) -> Client:
    return Client(HOST, port, **{"tls": "none", **options})


async def until(condition: Callable[[], bool]) -> None:
    """Let the others run, and time pass, until something holds."""
    pause = 0.001
    with anyio.fail_after(60):
        while not condition():
            await anyio.sleep(pause)
            pause = min(2 * pause, 0.1)


class Scripted(ByteStream):
    """A stream in memory: gives its chunks one by one, then waits; keeps what is sent.

    Sends hang from the write of that number on.
    """

    def __init__(self, *chunks: bytes, hang_at: int | None = None) -> None:
        self.chunks = list(chunks)
        self.hang_at = hang_at
        self.sent: list[bytes] = []
        self.closed = False

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        await anyio.lowlevel.checkpoint()
        if not self.chunks:
            await anyio.sleep_forever()
        return self.chunks.pop(0)

    async def send(self, item: bytes) -> None:
        await anyio.lowlevel.checkpoint()
        if self.hang_at is not None and len(self.sent) >= self.hang_at:
            await anyio.sleep_forever()
        self.sent.append(item)

    async def send_eof(self) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        self.closed = True


class CancelAt(Awaitable[None]):
    """Awaits `inner`, and cancels `scope` when it waits for the `number`-th time.

    `reached` tells whether it did wait that often.
    """

    def __init__(self, inner: Awaitable[Any], number: int, scope: anyio.CancelScope) -> None:
        self.inner, self.number, self.scope = inner, number, scope
        self.reached = False

    def __await__(self) -> Any:
        steps: Any = self.inner.__await__()
        try:
            waiting = next(steps)
            while True:
                self.number -= 1
                if self.number == 0:
                    self.reached = True
                    self.scope.cancel()
                try:
                    sent = yield waiting
                except GeneratorExit:
                    steps.close()
                    raise
                except BaseException as error:  # noqa: BLE001 - it is for `inner`
                    waiting = steps.throw(error)
                else:
                    waiting = steps.send(sent)
        except StopIteration as stop:
            return stop.value


@frozen
class Certificates:
    """Contexts: the server's, for localhost and 127.0.0.1; a client's that trusts it."""

    server: ssl.SSLContext
    trusting: ssl.SSLContext
    #: One for another name, by the same authority.
    wrong_name: ssl.SSLContext


def certificates(directory: Path) -> Certificates:
    """Made by an authority whose own certificate is in `directory`, as `ca.pem`."""
    authority = Authority(directory)
    return Certificates(
        authority.server_context("localhost", HOST),
        authority.client_context(),
        authority.server_context("elsewhere.example"),
    )
