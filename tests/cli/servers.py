"""Servers for the commands to talk to, each in a thread with an event loop of its own."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from anyio.from_thread import start_blocking_portal
from attrs import define, field

from smtpproto.cli.node import ensure_certificate
from smtpproto.core.command import Mail, Rcpt
from smtpproto.core.envelope import Envelope
from smtpproto.core.reply import Reply
from smtpproto.core.sasl import Verify
from smtpproto.handler import ContentStream, Session
from smtpproto.server import Server

PASSWORD = "correct horse"
LOGIN = "ann"


@define
class Mailroom:
    """A handler that keeps what it accepts; recipients named after a reply code get that reply."""

    mails: list[tuple[Envelope, bytes]] = field(factory=list)
    identities: list[str | None] = field(factory=list)
    sessions: set[int] = field(factory=set)

    async def mail(self, session: Session, command: Mail) -> Reply | None:
        self.identities.append(session.identity)
        self.sessions.add(session.id)
        return None

    async def rcpt(self, session: Session, command: Rcpt) -> Reply | None:
        local_part = command.forward_path.mailbox.local_part.decode()
        if local_part.startswith(("4", "5")):
            return Reply(int(local_part[:3]), None, f"[bold]no[/bold] {local_part[3:]}")
        return None

    async def content(
        self, session: Session, envelope: Envelope, content: ContentStream
    ) -> Reply | None:
        self.mails.append((envelope, b"".join([chunk async for chunk in content])))
        return None

    async def verify(self, session: Session, question: Verify) -> bool:
        return (question.username, question.password) == (LOGIN, PASSWORD)


@contextmanager
def serving(server: Server) -> Iterator[int]:
    """Run `server` on loopback; the port it has."""
    with start_blocking_portal() as portal:
        future, (_, port) = portal.start_task(server.serve, "127.0.0.1", 0)
        yield port
        portal.call(server.stop)
        future.result()


@contextmanager
def scripted(*turns: bytes, hang_up: bool = True) -> Iterator[int]:
    """A peer that sends the first turn, and each other after something was received; the port.

    Then it hangs up, or says nothing more until it is hung up on.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def converse() -> None:
            try:
                while True:
                    stream, _ = listener.accept()
                    with stream:
                        for number, turn in enumerate(turns):
                            if number and not stream.recv(65_536):
                                break
                            stream.sendall(turn)
                        while not hang_up and stream.recv(65_536):
                            pass
            except OSError:
                pass  # the listener was closed: over

        thread = threading.Thread(target=converse, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
    thread.join(60)


@define
class Site:
    """A certificate and its server-side context."""

    cert: Path
    context: ssl.SSLContext

    @classmethod
    def make(cls, directory: Path, *names: str) -> "Site":
        made = ensure_certificate(directory, names)
        return cls(made.cert, made.server_context())
