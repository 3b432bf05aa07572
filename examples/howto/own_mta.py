"""An MTA, part by part: python examples/howto/own_mta.py DIRECTORY PORT"""

import os
import random
import sys
import time
from pathlib import Path

import anyio

from smtpproto.core.command import Mail
from smtpproto.core.reply import Reply
from smtpproto.handler import Session
from smtpproto.pool import Pool
from smtpproto.relay import DnsResolver, Host, HousePolicy, Maildir, Router, SQLiteSpool
from smtpproto.relay.delivery.clients import Clients
from smtpproto.relay.delivery.deliver import Deliverer
from smtpproto.relay.delivery.dispatch import Dispatcher
from smtpproto.relay.delivery.hops import Hops
from smtpproto.relay.intake.handler import Intake
from smtpproto.server import Server

NAME = "mail.example.org"


class NoPlayground(HousePolicy):
    """The house's policy, and one rule more."""

    async def sender(self, session: Session, command: Mail) -> Reply | None:
        if str(command.reverse_path).endswith("@playground.example>"):
            return Reply(550, "5.7.1", "Not from there")
        return await super().sender(session, command)


async def main(data: Path, port: int) -> None:
    router = Router(
        local_domains=["example.org"],  # all else goes where its MX records lead
        smart_host=None,
        resolver=DnsResolver(),
        shuffle=random.shuffle,
        hostname=NAME,
    )
    boxes = Maildir(data / "mail", hostname=NAME, now=time.time, random_bytes=os.urandom)
    hops = Hops(clock=time.time, random=random.random)
    pool: Pool[Host] = Pool(Clients(NAME), hold_off=0)  # hops are held by `hops`
    async with SQLiteSpool.open(data / "spool") as spool, pool, anyio.create_task_group() as tasks:
        out = Deliverer(router, boxes, spool, pool, hops, began=time.time())
        queue = Dispatcher(NAME, out, spool, time.time, random.random, observe=print)
        policy = NoPlayground(takes_no_mail=router.takes_no_mail)
        handler = Intake(NAME, policy, router, boxes, spool, time.time, print, queue.wake)
        server = Server(handler, NAME)
        address = await tasks.start(server.serve, "127.0.0.1", port)
        print("listening on", *address, flush=True)
        await queue.run()


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]), int(sys.argv[2]))
