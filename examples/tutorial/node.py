import os
import random
import sys
import time
from ipaddress import ip_network
from pathlib import Path

import anyio

from smtpproto.relay import DnsResolver, HostPort, Listener, Maildir, Relay, Router, SQLiteSpool
from smtpproto.relay.reports.story import Event


def tell(event: Event) -> None:
    print(type(event).__name__, flush=True)


async def main(*arguments: str) -> None:
    name, port, domain, *next_port = arguments
    data = Path(name)
    router = Router(
        local_domains=[domain],
        smart_host=HostPort("127.0.0.1", int(next_port[0])) if next_port else None,
        resolver=DnsResolver(),
        shuffle=random.shuffle,
        hostname=f"{name}.example",
    )
    mailboxes = Maildir(
        data / "mail", hostname=f"{name}.example", now=time.time, random_bytes=os.urandom
    )
    async with SQLiteSpool.open(data / "spool") as spool, anyio.create_task_group() as tasks:
        relay = Relay(
            hostname=f"{name}.example",
            spool=spool,
            mailboxes=mailboxes,
            router=router,
            networks=[ip_network("127.0.0.0/8")],
            observe=tell,
        )
        await tasks.start(relay.run, [Listener("smtp", "127.0.0.1", int(port))])
        print(f"{name} is up", flush=True)


anyio.run(main, *sys.argv[1:])
