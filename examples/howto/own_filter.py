"""A relay with a filter of its own: nobody writes to more than two of ours at once, but friends."""

import os
import random
import sys
import tempfile
import time
from pathlib import Path

import anyio

from smtpproto import Envelope
from smtpproto.client import Client
from smtpproto.core.reply import Reply
from smtpproto.relay import DnsResolver, Listener, Maildir, Relay, Router, SQLiteSpool
from smtpproto.relay.filters import (
    Accept,
    Answer,
    Filter,
    HeaderSanity,
    Quarantine,
    Refuse,
    Seen,
    Stage,
)
from smtpproto.relay.reports.story import Event, Held, Judged


class Crowds:
    """Refuses a third recipient, has a mention of prizes looked at, and lets friends pass."""

    name = "crowds"
    stages = frozenset({Stage.MAIL, Stage.RCPT, Stage.CONTENT})

    def __init__(self, friends: frozenset[str], most: int = 2) -> None:
        self.friends = friends
        self.most = most

    async def judge(self, stage: Stage, seen: Seen) -> Answer | None:
        """Say what is to be done; None is no objection. Never block the event loop here."""
        sender = seen.mail and seen.mail.reverse_path.mailbox
        match stage:
            case Stage.MAIL if str(sender) in self.friends:
                return Accept("a friend")  # no filter behind this one is asked
            case Stage.RCPT if len(seen.rcpts) >= self.most:
                return Refuse(Reply(452, "4.5.3", f"No more than {self.most} at once, please"))
            case Stage.CONTENT if seen.content is not None:
                if b"prize" in await seen.content.beginning(10_000):
                    return Quarantine("it speaks of prizes")
        return None


def tell(event: Event) -> None:
    match event:
        case Judged():
            print(f"  {event.stage}: {event.said}")
        case Held():
            print(f"  held for {event.forward_path}: {event.reason}")
        case _:
            pass


def relay(folder: Path, spool: SQLiteSpool) -> Relay:
    return Relay(
        hostname="mail.example.org",
        spool=spool,
        mailboxes=Maildir(
            folder / "mail", hostname="mail.example.org", now=time.time, random_bytes=os.urandom
        ),
        router=Router(
            local_domains=["example.org"],
            smart_host=None,
            resolver=DnsResolver(),
            shuffle=random.shuffle,
            hostname="mail.example.org",
        ),
        check_senders=False,  # of whom the DNS would be asked
        observe=tell,
    )


async def send(port: int, sender: str, *recipients: str, text: str = "hello") -> None:
    """Send a message, and print what is answered for each recipient."""
    content = f"From: {sender}\r\nDate: Tue, 14 Nov 2023 12:00:00 +0000\r\n\r\n{text}\r\n"
    async with Client("127.0.0.1", port, tls="none") as client:
        result = await client.deliver(Envelope(sender, recipients), content.encode())
    for outcome in result.outcomes:
        print(f"{sender} to {outcome.forward_path}: {outcome.fate.value}")


async def main(folder: Path) -> None:
    async with SQLiteSpool.open(folder / "spool") as spool, anyio.create_task_group() as tasks:
        node = relay(folder, spool)
        filters: list[Filter] = [Crowds(frozenset({"al@example.net"})), HeaderSanity()]

        async def run(*, task_status: anyio.abc.TaskStatus[list[tuple[str, int]]]) -> None:
            await node.run([Listener("smtp", "127.0.0.1", 0, filters)], task_status=task_status)

        ((_, port),) = await tasks.start(run)
        people = ("bo@example.org", "cy@example.org", "di@example.org")
        await send(port, "jo@example.net", *people)
        await send(port, "al@example.net", *people)
        await send(port, "jo@example.net", "bo@example.org", text="You have won a prize")
        node.stop()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        anyio.run(main, Path(sys.argv[1] if len(sys.argv) > 1 else name))
