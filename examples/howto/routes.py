"""A relay by rules: python examples/howto/routes.py DIRECTORY PORT STORE.

Its mailboxes are in a store that speaks LMTP on the UNIX socket STORE.
"""

import os
import random
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import anyio

from smtpproto.core.path import Mailbox, ReversePath
from smtpproto.core.reply import Reply
from smtpproto.relay import (
    Access,
    ByMx,
    Discard,
    DnsResolver,
    Host,
    Listener,
    Maildir,
    NextHop,
    OnHold,
    Refuse,
    Relay,
    Router,
    RouteTable,
    Rule,
    Schedule,
    SQLiteSpool,
)


def table(store: str) -> RouteTable:
    password = os.environ.get("SHOP_PASSWORD", "secret")
    shop = Host(
        "smtp.shop-mail.example", port=587, access=Access("required", login=("shop", password))
    )
    return RouteTable(
        [
            Rule(Discard(), recipients=["noreply@example.org"]),
            Rule(
                NextHop.fixed(Host("localhost", path=store, lmtp=True, access=Access("none"))),
                recipients=["example.org"],
                schedule=Schedule(first=30, longest=600),
            ),
            Rule(OnHold("they move until Monday"), recipients=["moving.example"]),
            Rule(
                Refuse(Reply(550, "5.1.6", "They are at new.example now")),
                recipients=["old.example", ".old.example"],
            ),
            Rule(NextHop.fixed(shop), senders=["shop.example.org"]),
        ]
    )


class Customers:
    """Routes of our own: each customer's mail goes to the host that our records have."""

    def __init__(self, hosts: Mapping[str, str]) -> None:
        self.hosts = hosts

    async def find(self, mailbox: Mailbox, sender: ReversePath) -> Rule | None:
        host = self.hosts.get(mailbox.domain.decode())
        if host == "suspended":
            return Rule(Refuse(Reply(450, "4.2.1", "This customer is suspended")))
        return Rule(ByMx() if host is None else NextHop.fixed(Host(host)))


async def main(directory: str, port: str, store: str) -> None:
    data, name = Path(directory), "mail.example.org"
    router = Router(
        local_domains=["example.org"],
        routes=table(store),
        smart_host=None,
        resolver=DnsResolver(),
        shuffle=random.shuffle,
        hostname=name,
    )
    mailboxes = Maildir(data / "mail", hostname=name, now=time.time, random_bytes=os.urandom)
    async with SQLiteSpool.open(data / "spool") as spool, anyio.create_task_group() as tasks:
        relay = Relay(
            hostname=name,
            spool=spool,
            mailboxes=mailboxes,
            router=router,
            verify="callout",
            observe=print,
        )
        bound = await tasks.start(relay.run, [Listener("smtp", "127.0.0.1", int(port))])
        print("listening on", *bound[0], flush=True)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2], sys.argv[3])
