"""Send a letter to everybody in a file, over a few sessions; say who did not get it, and why.

SMTP_PASSWORD=… python examples/howto/send_many.py HOST PORT USER SENDER FILE

Each line of the file is an address and, behind a space, a name.
"""

import os
import sys
from collections import Counter
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path

import anyio

from smtpproto import Envelope
from smtpproto.client import Client
from smtpproto.pool import Pool
from smtpproto.result import Fate


def letters(sender: str, file: Path) -> Iterator[tuple[Envelope, EmailMessage]]:
    """One for each line, written when it is its turn."""
    with file.open() as lines:
        for line in lines:
            address, _, name = line.strip().partition(" ")
            letter = EmailMessage()
            letter["From"], letter["To"], letter["Subject"] = sender, address, "News"
            letter.set_content(f"Dear {name},\n\nthere are some.\n")
            yield Envelope(sender, [address]), letter


async def send_all(
    host: str, port: int, login: tuple[str, str], sender: str, file: Path
) -> Counter[Fate]:
    """Return how many letters had which fate."""
    fates: Counter[Fate] = Counter()

    def connect() -> Client:
        return Client(host, port, login=login)

    async with Pool(connect) as pool, pool.send_many(letters(sender, file)) as outcomes:
        async for sent in outcomes:
            for outcome in sent.result.outcomes:
                fates[outcome.fate] += 1
                if not outcome.accepted:
                    print(f"line {sent.number + 1}: {outcome}")
    return fates


async def main(*arguments: str) -> None:
    host, port, user, sender, file = arguments
    login = (user, os.environ["SMTP_PASSWORD"])
    fates = await send_all(host, int(port), login, sender, Path(file))
    print(", ".join(f"{count} {fate.value}" for fate, count in fates.most_common()))
    if fates.keys() - {Fate.ACCEPTED}:
        sys.exit(1)


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
