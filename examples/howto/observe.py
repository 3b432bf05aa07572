"""See what a session goes through: how long each answer took, and how far the content is.

python examples/howto/observe.py HOST PORT SENDER RECIPIENT…
"""

import sys

import anyio

from smtpproto import Envelope
from smtpproto.client import Client
from smtpproto.observe import Event, ReplyReceived, progress

CONTENT = b"Subject: a long one\r\n\r\n" + 5000 * (b"0123456789" * 7 + b"\r\n")


def timing(event: Event) -> None:
    """Say how long the server took to answer what."""
    if isinstance(event, ReplyReceived):
        print(f"{event.verb}: {event.reply.code} after {event.seconds:.3f} s")


def bar(octets: int, total: int | None) -> None:
    """Say how much of the content is on its way."""
    if total:
        print(f"{octets / total:.0%} of {total} octets")


async def main(*arguments: str) -> None:
    host, port, sender, *recipients = arguments
    percent = progress(bar)

    def observer(event: Event) -> None:
        timing(event)
        percent(event)

    async with Client(host, int(port), tls="none", observe=observer) as client:
        await client.send(Envelope(sender, recipients), CONTENT)


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
