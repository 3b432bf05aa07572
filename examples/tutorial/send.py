import anyio

from smtpproto import Envelope
from smtpproto.client import Client


async def main() -> None:
    envelope = Envelope("me@example.org", ["you@example.net"])
    async with Client("127.0.0.1", 2525, tls="none") as client:
        print(await client.send(envelope, "Subject: Hello\n\nIt arrived.\n"))


anyio.run(main)
