import email.policy
import signal

import anyio

from smtpproto import Envelope, Mail, Rcpt, Reply
from smtpproto.server import ContentStream, Server, Session


class Inbox:
    async def mail(self, session: Session, command: Mail) -> Reply | None:
        return None  # any sender will do

    async def rcpt(self, session: Session, command: Rcpt) -> Reply | None:
        if command.forward_path.mailbox.domain.lower() == b"example.org":
            return None
        return Reply(550, "5.7.1", "We take mail for example.org only")

    async def content(
        self, session: Session, envelope: Envelope, content: ContentStream
    ) -> Reply | None:
        octets = b"".join([chunk async for chunk in content])
        message = email.message_from_bytes(octets, policy=email.policy.default)
        print(f"{envelope.reverse_path} says {message['Subject']!r} to", *envelope.forward_paths)
        return None


async def main() -> None:
    server = Server(Inbox(), "mx.example.org")
    async with anyio.create_task_group() as tasks:
        host, port = await tasks.start(server.serve, "127.0.0.1", 2525)
        print(f"listening on {host}:{port}", flush=True)
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for _ in signals:
                server.stop()
                break
    print("goodbye")


anyio.run(main)
