"""Mail as an input of your application: python examples/howto/accept_into_app.py DIRECTORY PORT.

Each message becomes a file before it is accepted; the application reads the files.
"""

import email
import email.policy
import math
import os
import sys
import uuid
from pathlib import Path
from typing import BinaryIO

import anyio
from anyio import to_thread
from anyio.streams.memory import MemoryObjectSendStream
from attrs import frozen

from smtpproto import Envelope, Limits, Mail, Rcpt, Reply
from smtpproto.server import ContentStream, Server, Session


@frozen
class Inbox:
    """Takes mail for the `names` at example.org; each message is a file in `directory`."""

    directory: Path
    names: frozenset[bytes]
    arrived: MemoryObjectSendStream[Path]

    async def mail(self, session: Session, command: Mail) -> Reply | None:
        return None

    async def rcpt(self, session: Session, command: Rcpt) -> Reply | None:
        mailbox = command.forward_path.mailbox
        if mailbox.domain.lower() != b"example.org":
            return Reply(550, "5.7.1", "Not here")
        # What follows a "+" is left to the application.
        name = mailbox.local_part.lower().partition(b"+")[0]
        return None if name in self.names else Reply(550, "5.1.1", "No such mailbox")

    async def content(
        self, session: Session, envelope: Envelope, content: ContentStream
    ) -> Reply | None:
        path = self.directory / f"{uuid.uuid4().hex}.eml"
        part = path.with_suffix(".part")
        try:
            with part.open("xb") as file:
                async for chunk in content:
                    await to_thread.run_sync(file.write, chunk)
                await to_thread.run_sync(make_durable, file, path)
        except BaseException:
            part.unlink(missing_ok=True)  # cut short, or at fault: the server says so by itself
            raise
        self.arrived.send_nowait(path)
        return Reply(250, "2.0.0", f"Kept as {path.name}")


def make_durable(file: BinaryIO, path: Path) -> None:
    """Give a file its name once it is whole; then it outlives a power cut."""
    file.flush()
    os.fsync(file.fileno())
    Path(file.name).rename(path)
    directory = os.open(path.parent, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)


def handle(path: Path) -> None:
    """Do what the application does with a message."""
    message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
    print(f"{message['From']} asks: {message['Subject']}", flush=True)


async def main(directory: str, port: str) -> None:
    send, receive = anyio.create_memory_object_stream[Path](math.inf)
    inbox = Inbox(Path(directory), frozenset({b"help", b"postmaster"}), send)
    server = Server(inbox, "mx.example.org", limits=Limits(message=1_000_000))
    async with anyio.create_task_group() as tasks:
        address = await tasks.start(server.serve, "127.0.0.1", int(port))
        print("listening on", *address, flush=True)
        async for path in receive:
            await to_thread.run_sync(handle, path)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2])
