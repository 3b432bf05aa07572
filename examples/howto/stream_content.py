"""Send a message that is never held whole, and take it piece by piece."""

import hashlib
from collections.abc import AsyncIterator

import anyio

from smtpproto import Envelope, Limits, Mail, Rcpt, Reply
from smtpproto.client import Client
from smtpproto.server import ContentStream, Server, Session
from smtpproto.source import Source

LINES = 500_000
LINE = b"0123456789" * 7 + b"\r\n"
HEADER = b"Subject: a long one\r\n\r\n"


async def chunks() -> AsyncIterator[bytes]:
    """Yield the content as it comes to be: octets, with CRLF at the ends of lines."""
    yield HEADER
    for _ in range(LINES // 1000):
        yield LINE * 1000


class Digesting:
    """Keeps nothing of a message but how long it was, and its digest."""

    async def mail(self, session: Session, command: Mail) -> Reply | None:
        return None

    async def rcpt(self, session: Session, command: Rcpt) -> Reply | None:
        return None

    async def content(
        self, session: Session, envelope: Envelope, content: ContentStream
    ) -> Reply | None:
        digest, octets = hashlib.sha256(), 0
        async for chunk in content:  # the client waits while we do not ask for more
            digest.update(chunk)
            octets += len(chunk)
        return Reply(250, "2.0.0", f"{octets} octets, {digest.hexdigest()[:16]}")


async def main() -> None:
    server = Server(Digesting(), limits=Limits(message=50_000_000))
    async with anyio.create_task_group() as tasks:
        host, port = await tasks.start(server.serve)
        async with Client(host, port, tls="none") as client:
            envelope = Envelope("a@example.net", ["b@example.org"])
            print(await client.send(envelope, chunks()))

            # Who knows the size says so, and is refused before the content where it is too large.
            size = len(HEADER) + LINES * len(LINE)
            print(await client.send(envelope, Source(chunks(), octets=size, eight_bit=False)))
            print(await client.deliver(envelope, Source(chunks(), octets=10**9, eight_bit=False)))
        server.stop()


if __name__ == "__main__":
    anyio.run(main)
