"""XCLIENT: a listed peer says whom to take it for; XFORWARD: whom it had the mail from."""

import anyio

from smtpproto import STANDARD, ClientConnection, Command, Ehlo, Envelope, Mail, Quit, Rcpt, Reply
from smtpproto.core.event import NEED_DATA
from smtpproto.extensions.xclient import XClient
from smtpproto.extensions.xforward import XForward
from smtpproto.server import ContentStream, Server, Session
from smtpproto.wire import Wire, connect_tcp


class Printer:
    async def mail(self, session: Session, command: Mail) -> Reply | None:
        print("mail from a client at", session.peer[0])
        if (said := session.preamble(XForward)) is not None:
            print("which was passed on for", said.attributes["ADDR"])
        return None

    async def rcpt(self, session: Session, command: Rcpt) -> Reply | None:
        return None

    async def content(
        self, session: Session, envelope: Envelope, content: ContentStream
    ) -> Reply | None:
        return None


def server() -> Server:
    """Announces them to its own machine, and to nobody else."""
    return Server(Printer(), xclient_from=["127.0.0.1"], xforward_from=["127.0.0.1"])


async def ask(wire: Wire, client: ClientConnection, *commands: Command) -> None:
    """Say each when the one before it has been answered, and print the first line of the answer."""
    for command in (None, *commands):
        if command is not None:
            await wire.send(client.send(command))
        while client.owed:
            event = client.next_event()
            if event is NEED_DATA:
                client.receive_data(await wire.receive())
            elif isinstance(event, Reply):
                print(event.code, event.lines[0].decode())


async def main() -> None:
    async with anyio.create_task_group() as tasks:
        host, port = await tasks.start(server().serve)
        client = ClientConnection(STANDARD)
        async with await connect_tcp(host, port) as wire:
            await ask(
                wire,
                client,
                Ehlo("proxy.example.org"),
                XClient({"ADDR": "203.0.113.5", "NAME": "laptop.example.net"}),
                Ehlo("laptop.example.net"),
                XForward({"ADDR": "198.51.100.9"}),
                Mail("jo@example.net"),
                Quit(),
            )
        tasks.cancel_scope.cancel()


if __name__ == "__main__":
    anyio.run(main)
