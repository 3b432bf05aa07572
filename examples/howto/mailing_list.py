"""A list whose members have a return path each: who bounces is known by the address."""

import os
import random
import sys
import time
from pathlib import Path

import anyio

from smtpproto.client import Client
from smtpproto.core.envelope import Envelope
from smtpproto.relay import (
    AliasTable,
    DnsResolver,
    Listener,
    Maildir,
    MailingList,
    Relay,
    Router,
    SQLiteSpool,
    Verp,
)
from smtpproto.relay.mailboxes.mailbox import listed_mailboxes
from smtpproto.relay.reports.story import Bounced, Delivered, Event, Expanded, Failed, Observer

OWNER = "dev-owner@example.org"
DEV = MailingList(["ann@example.org", "gone@example.org"], OWNER)


def relay(spool: SQLiteSpool, mailboxes: Maildir, router: Router, observe: Observer) -> Relay:
    return Relay(
        hostname="mail.example.org",
        spool=spool,
        mailboxes=mailboxes,
        router=router,
        aliases=AliasTable({}, lists={"dev@example.org": DEV}),
        verp=Verp([OWNER]),
        observe=observe,
    )


def tell(event: Event) -> None:
    if isinstance(event, Bounced) and event.action == "failed":
        print(f"{event.recipient} bounced: {event.status}", flush=True)
    elif isinstance(event, (Expanded, Failed)):
        print(type(event).__name__, event.forward_path, flush=True)


async def main(directory: str) -> None:
    data, name = Path(directory), "mail.example.org"
    router = Router(
        local_domains=["example.org"],
        smart_host=None,
        resolver=DnsResolver(),
        shuffle=random.shuffle,
        hostname=name,
    )
    mailboxes = Maildir(
        data / "mail",
        hostname=name,
        now=time.time,
        random_bytes=os.urandom,
        policy=listed_mailboxes(["ann", "dev-owner"]),
    )
    reported = anyio.Event()

    def observe(event: Event) -> None:
        tell(event)
        if isinstance(event, Delivered) and event.where == f"mailbox {OWNER}":
            reported.set()

    async with SQLiteSpool.open(data / "spool") as spool, anyio.create_task_group() as tasks:
        ours = relay(spool, mailboxes, router, observe)
        ((host, port),) = await tasks.start(ours.run, [Listener("smtp", "127.0.0.1", 0)])
        async with Client(host, port, tls="none") as client:
            letter = "Subject: Hello\r\n\r\nall\r\n"
            await client.send(Envelope("jo@example.net", ["dev@example.org"]), letter)
        await reported.wait()
        ours.stop()


if __name__ == "__main__":
    anyio.run(main, sys.argv[1])
