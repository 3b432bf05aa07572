"""The mailboxes of a relay, and how large: python examples/howto/mailboxes.py DIRECTORY PORT

Ann and Bob have mailboxes at example.org. What is for nobody there is Ann's, too.
"""

import os
import random
import sys
import time
from pathlib import Path

import anyio

from smtpproto.relay import (
    AliasTable,
    DnsResolver,
    Listener,
    Maildir,
    Quota,
    Relay,
    Router,
    SQLiteSpool,
    quotas,
)
from smtpproto.relay.mailboxes.mailbox import listed_mailboxes

NAME = "mail.example.org"


def make_mailboxes(root: Path) -> Maildir:
    return Maildir(
        root,
        hostname=NAME,
        now=time.time,
        random_bytes=os.urandom,
        policy=listed_mailboxes(["ann", "bob"]),
        quota=quotas(Quota(octets=1 << 30), {"bob@example.org": Quota(messages=2)}),
        folders=True,
    )


def make_aliases() -> AliasTable:
    return AliasTable(
        {"sales@example.org": ["bob@example.org"], "@example.org": ["ann@example.org"]}
    )


async def main(data: Path, port: int) -> None:
    router = Router(
        local_domains=["example.org"],
        smart_host=None,
        resolver=DnsResolver(),
        shuffle=random.shuffle,
        hostname=NAME,
    )
    async with SQLiteSpool.open(data / "spool") as spool, anyio.create_task_group() as tasks:
        relay = Relay(
            hostname=NAME,
            spool=spool,
            mailboxes=make_mailboxes(data / "mail"),
            router=router,
            aliases=make_aliases(),
            check_senders=False,  # on loopback there are no strangers
            observe=print,
        )
        bound = await tasks.start(relay.run, [Listener("smtp", "127.0.0.1", port)])
        print("listening on", *bound[0], flush=True)


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]), int(sys.argv[2]))
