"""A shop whose letters go out by a relay of its own: embedded_relay.py DIRECTORY SMARTHOST PORT"""

import math
import os
import random
import sys
import time
from email.message import EmailMessage
from pathlib import Path

import anyio
from anyio.streams.memory import MemoryObjectSendStream

from smtpproto import Envelope
from smtpproto.relay import (
    Access,
    DnsResolver,
    Host,
    Maildir,
    Relay,
    Router,
    Schedule,
    Spool,
    SQLiteSpool,
)
from smtpproto.relay.reports.story import Accepted, Deferred, Delivered, Event, Failed

NAME = "shop.example.org"


class Orders:
    """Which letter is about which order: its `origin` says so, in the queue, too."""

    def __init__(self, told: MemoryObjectSendStream[str]) -> None:
        self.by_letter: dict[str, str] = {}
        self.told = told

    async def remember(self, spool: Spool) -> None:
        """Know again what waits since we ran the last time."""
        async for entry in spool.entries():
            self.by_letter[entry.id] = entry.origin

    def observe(self, event: Event) -> None:
        """Hear of every event; nothing waits here, for the mail waits meanwhile."""
        match event:
            case Accepted():
                self.by_letter[event.id] = event.origin
            case Delivered():
                self.tell(event.id, f"the letter is with {event.where}")
            case Deferred():
                self.tell(event.id, f"not yet: {event.reply}")
            case Failed():
                self.tell(event.id, f"will not arrive: {event.reply}")
            case _:
                pass

    def tell(self, letter: str, words: str) -> None:
        order = self.by_letter.get(letter)
        if order is not None:  # else it is one of the reports that the relay writes
            self.told.send_nowait(f"{order}: {words}")


def letter(order: str, to: str) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"] = f"orders@{NAME}", to
    message["Subject"] = f"Your order {order}"
    message.set_content("Thank you.\n")
    return message


def reports(root: Path) -> Maildir:
    """Reports to the shop come here, and nothing else does: it has no listener."""
    return Maildir(root, hostname=NAME, now=time.time, random_bytes=os.urandom)


async def main(data: Path, host: str, port: int) -> None:
    tell, told = anyio.create_memory_object_stream[str](math.inf)
    orders = Orders(tell)
    smart_host = Host(host, port=port, access=Access("none"))  # in the test; else leave it out
    async with SQLiteSpool.open(data / "spool") as spool, anyio.create_task_group() as tasks:
        relay = Relay(
            hostname=NAME,
            spool=spool,
            mailboxes=reports(data / "reports"),
            router=Router(
                local_domains=[NAME],
                smart_host=smart_host,
                resolver=DnsResolver(),
                shuffle=random.shuffle,
                hostname=NAME,
            ),
            schedule=Schedule(first=60, lifetime=2 * 86400),
            observe=orders.observe,
        )
        await orders.remember(spool)
        await tasks.start(relay.run, [])
        for order, to in (("17", "ann@example.net"), ("18", "no-one@example.net")):
            envelope = Envelope(f"orders@{NAME}", [to])
            await relay.submit(envelope, letter(order, to), origin=f"order {order}")
        for _ in range(2):
            print(await told.receive(), flush=True)
        relay.stop()
    tell.close()
    told.close()


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
