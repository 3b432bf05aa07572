"""A server with ready handlers: python examples/howto/ready_handlers.py DIRECTORY [PORT]

It takes mail for example.org into Maildirs below DIRECTORY. On a port of its own it is also a proxy
to itself, that lets nobody but example.net send.
"""

import sys
from pathlib import Path

import anyio

from smtpproto import Mail, Rcpt, Reply
from smtpproto.handlers import Forward, Maildirs, NextHop
from smtpproto.server import Server, Session


class Mailboxes(Maildirs):
    """A Maildir for everybody at example.org."""

    async def rcpt(self, session: Session, command: Rcpt) -> Reply | None:
        here = command.forward_path.mailbox.domain.lower() == b"example.org"
        return None if here else Reply(550, "5.7.1", "Not here")


class Gate(Forward):
    """Hands on what comes from example.net."""

    async def mail(self, session: Session, command: Mail) -> Reply | None:
        sender = command.reverse_path.mailbox
        if sender is None or sender.domain.lower() != b"example.net":
            return Reply(550, "5.7.1", "Not from there")
        return await super().mail(session, command)


async def main(directory: Path, port: int) -> None:
    async with anyio.create_task_group() as tasks:
        mailboxes = Server(Mailboxes(directory, hostname="mx.example.org"), "mx.example.org")
        host, behind = await tasks.start(mailboxes.serve, "127.0.0.1", 0)

        def next_hop() -> NextHop:
            return NextHop(host, behind, tls="none")

        gate = Server(Gate(next_hop, hostname="gate.example.org"), "gate.example.org")
        _, port = await tasks.start(gate.serve, "127.0.0.1", port)
        print("listening on 127.0.0.1", port, flush=True)


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 2525)
