"""A queueing mail server in an app of yours: python examples/relay.py DIRECTORY PORT."""

import os
import random
import sys
import time
from pathlib import Path

import anyio

from smtpproto.relay import DnsResolver, Listener, Maildir, Relay, Router, SQLiteSpool


async def main(directory: str, port: str) -> None:
    data, name = Path(directory), "mail.example.org"
    router = Router(
        local_domains=["example.org"],
        smart_host=None,
        resolver=DnsResolver(),
        shuffle=random.shuffle,
        hostname=name,
    )
    mailboxes = Maildir(data / "mail", hostname=name, now=time.time, random_bytes=os.urandom)
    async with SQLiteSpool.open(data / "spool") as spool, anyio.create_task_group() as tasks:
        relay = Relay(hostname=name, spool=spool, mailboxes=mailboxes, router=router, observe=print)
        bound = await tasks.start(relay.run, [Listener("smtp", "127.0.0.1", int(port))])
        print("listening on", *bound[0], flush=True)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2])
