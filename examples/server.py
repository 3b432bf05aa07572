"""Receive mail and print it: python examples/server.py PORT."""

import sys

import anyio

from smtpproto import Envelope, Mail, Rcpt, Reply
from smtpproto.server import ContentStream, Server, Session


class Printer:
    async def mail(self, session: Session, command: Mail) -> Reply | None:
        return None

    async def rcpt(self, session: Session, command: Rcpt) -> Reply | None:
        here = command.forward_path.mailbox.domain.lower() == b"example.org"
        return None if here else Reply(550, "5.7.1", "Not here")

    async def content(
        self, session: Session, envelope: Envelope, content: ContentStream
    ) -> Reply | None:
        print(envelope.reverse_path, "->", *envelope.forward_paths)
        async for chunk in content:
            print(chunk.decode("utf-8", "backslashreplace"))
        return None


async def main(port: str) -> None:
    server = Server(Printer(), "mx.example.org")
    async with anyio.create_task_group() as tasks:
        address = await tasks.start(server.serve, "127.0.0.1", int(port))
        print("listening on", *address, flush=True)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1])
