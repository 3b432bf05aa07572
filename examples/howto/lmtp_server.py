"""A store of mailboxes that takes mail by LMTP, and answers for each recipient by itself."""

from collections.abc import Mapping
from tempfile import TemporaryDirectory

import anyio
from attrs import define, field

from smtpproto import Envelope, Mail, Rcpt, Reply
from smtpproto.server import ContentStream, Server, Session
from smtpproto.wire import Listener, connect_unix

FULL = Reply(452, "4.2.2", "Mailbox full")


@define
class Mailboxes:
    """Local parts of those it has, each with the octets there is still room for."""

    room: dict[bytes, int]
    kept: dict[bytes, list[bytes]] = field(factory=dict)

    async def mail(self, session: Session, command: Mail) -> Reply | None:
        return None

    async def rcpt(self, session: Session, command: Rcpt) -> Reply | None:
        known = command.forward_path.mailbox.local_part in self.room
        return None if known else Reply(550, "5.1.1", "No such mailbox")

    async def deliver(
        self, session: Session, envelope: Envelope, content: ContentStream
    ) -> Mapping[Rcpt, Reply | None]:
        octets = b"".join([chunk async for chunk in content])
        return {rcpt: self.keep(rcpt, octets) for rcpt in envelope.rcpts}

    def keep(self, rcpt: Rcpt, octets: bytes) -> Reply | None:
        name = rcpt.forward_path.mailbox.local_part
        if len(octets) > self.room[name]:
            return FULL
        self.room[name] -= len(octets)
        self.kept.setdefault(name, []).append(octets)
        return None

    async def content(
        self, session: Session, envelope: Envelope, content: ContentStream
    ) -> Reply | None:
        return Reply(554, "5.3.3", "By LMTP only")


async def main() -> None:
    server = Server(Mailboxes({b"al": 1000, b"bo": 3}), "mailbox.example.org", lmtp=True)
    with TemporaryDirectory() as directory:
        path = f"{directory}/lmtp"
        async with (
            Listener(await anyio.create_unix_listener(path)) as listener,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(listener.serve, server.serve_stream, tasks)
            async with await connect_unix(path) as wire:
                for lines in (
                    b"LHLO client.example.org\r\n",
                    b"MAIL FROM:<jo@example.net>\r\nRCPT TO:<al@example.org>\r\n"
                    b"RCPT TO:<cy@example.org>\r\nRCPT TO:<bo@example.org>\r\nDATA\r\n",
                    b"Subject: Hi\r\n\r\nHello.\r\n.\r\nQUIT\r\n",
                ):
                    await wire.send(lines)
                heard = b""
                while b"\r\n221 " not in heard:
                    heard += await wire.receive()
            print(*[line for line in heard.decode().splitlines() if line[3] == " "], sep="\n")
            tasks.cancel_scope.cancel()


if __name__ == "__main__":
    anyio.run(main)
