"""Send a message: python examples/client.py HOST PORT SENDER RECIPIENT… (no TLS: it is a demo)."""

import sys
from email.message import EmailMessage

import anyio

from smtpproto import Envelope
from smtpproto.client import Client


async def main(*arguments: str) -> None:
    host, port, sender, *recipients = arguments
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = sender, recipients, "Hello"
    message.set_content("It arrived.\n")
    async with Client(host, int(port), tls="none") as client:
        print(await client.send(Envelope(sender, recipients), message))


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
