"""A relay in which every part is another: python examples/howto/seams.py DIRECTORY

The Internet is a folder of UNIX sockets here, the DNS a table, and an hour takes a second.
"""

import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncIterable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path

import anyio
from anyio import to_thread
from anyio.abc import ByteStream

from smtpproto import Envelope, Mail, Mailbox, Rcpt, Reply, ReversePath
from smtpproto.client import Client
from smtpproto.core.path import as_octets
from smtpproto.handler import Session
from smtpproto.handlers import Memory
from smtpproto.maildir import MailboxUnavailable
from smtpproto.relay import (
    Host,
    Listener,
    NextHop,
    Relay,
    Router,
    Rule,
    SQLiteSpool,
)
from smtpproto.relay.filters import Answer, Refuse, Seen, Stage
from smtpproto.relay.reports.story import Deferred, Delivered, Event
from smtpproto.relay.routing import transport
from smtpproto.resolve import Mx, NoSuchDomain
from smtpproto.result import DeliveryError
from smtpproto.server import At, Server

NO_WAY = Reply(550, "5.1.2", "We send nothing")


class FastClock:
    """A clock: wall time, in which an hour takes a second."""

    def __init__(self, speed: float = 3600) -> None:
        self.speed, self.began, self.since = speed, time.time(), time.monotonic()

    def __call__(self) -> float:
        return self.began + (time.monotonic() - self.since) * self.speed


class Zone:
    """A resolver: the DNS as a table, domain -> address of its mail server."""

    def __init__(self, hosts: Mapping[str, str]) -> None:
        self.hosts = hosts

    async def mx(self, domain: str) -> Sequence[Mx]:
        if domain not in self.hosts:
            raise NoSuchDomain(domain)
        return [Mx(10, f"mx.{domain}")]

    async def addresses(self, host: str) -> Sequence[str]:
        return [self.hosts[host.removeprefix("mx.")]]


class Sockets:
    """A connector: each address is a UNIX socket in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def __call__(self, host: str, port: int) -> ByteStream:
        return await anyio.connect_unix(self.folder / host)


class Database:
    """An SQLite file, asked in a thread; each question is a transaction, on disk when it ends."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def ask(self, sql: str, *values: object) -> list[tuple[str, ...]]:
        # Once begun it is brought to its end: whoever is cancelled meanwhile waits for that.
        return await to_thread.run_sync(partial(self._ask, sql, values))

    def _ask(self, sql: str, values: Sequence[object]) -> list[tuple[str, ...]]:
        db = sqlite3.connect(self.path)
        try:
            with db:
                db.execute("PRAGMA synchronous = FULL")
                return db.execute(sql, values).fetchall()
        finally:
            db.close()


class MailTable:
    """A mailbox store: a table of people, and one of their mail."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def exists(self, mailbox: Mailbox) -> bool:
        return bool(await self.database.ask("SELECT 1 FROM people WHERE name = ?", str(mailbox)))

    async def deliver(self, mailbox: Mailbox, content: AsyncIterable[bytes]) -> None:
        mail = bytearray()
        async for chunk in content:
            mail += chunk
            if len(mail) > 10_000_000:
                raise MailboxUnavailable(Reply(552, "5.3.4", "Too large for this database"))
        try:
            await self.database.ask("INSERT INTO mail VALUES (?, ?)", str(mailbox), bytes(mail))
        except sqlite3.Error as error:  # its text is for the log, and not for the sender
            raise MailboxUnavailable(Reply(451, "4.3.0", "Try again later")) from error


class AliasesTable:
    """Aliases: a table of names and targets. What the database raises defers the mail."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def find(self, mailbox: Mailbox) -> Sequence[Mailbox] | None:
        sql = "SELECT target FROM aliases WHERE name = ?"
        return [Mailbox.of(t) for (t,) in await self.database.ask(sql, str(mailbox))] or None


class KnownSenders:
    """A policy: mail for us from some addresses, and nothing else."""

    def __init__(self, addresses: Collection[str]) -> None:
        self.addresses = addresses

    def trusts(self, session: Session) -> bool:
        return False

    async def sender(self, session: Session, command: Mail) -> Reply | None:
        known = str(command.reverse_path.mailbox).lower() in self.addresses
        return None if known else Reply(550, "5.7.1", "We do not know you")

    async def recipient(self, session: Session, command: Rcpt, *, ours: bool) -> Reply | None:
        return None if ours else Reply(550, "5.7.1", "Relaying denied")


class NoPrograms:
    """A filter: looks at the beginning of a message for the name of a program."""

    name = "programs"
    stages = frozenset({Stage.CONTENT})

    async def judge(self, stage: Stage, seen: Seen) -> Answer | None:
        if seen.content is None or b'.exe"' not in await seen.content.beginning(65_536):
            return None
        return Refuse(Reply(554, "5.7.0", "No programs by mail"))


class Partners:
    """A verifier: who exists at those domains of ours that live elsewhere, by a list."""

    def __init__(self, names: Collection[str]) -> None:
        self.names = names

    async def verify(self, mailbox: Mailbox, route: NextHop) -> Reply | None:
        exists = str(mailbox).lower() in self.names
        return None if exists else Reply(550, "5.1.1", "No such mailbox")


class OneStore:
    """A router without any DNS: one domain is ours, in a mail store; there is nowhere else."""

    def __init__(self, domain: str, socket: str) -> None:
        self.domain = as_octets(domain)
        self.store = Rule(NextHop.fixed(Host("localhost", path=socket, lmtp=True)))
        self.nowhere = Rule(transport.Refuse(NO_WAY))

    def is_local(self, domain: bytes) -> bool:
        return domain.lower() in (b"", self.domain)

    is_ours = is_local

    def home(self, mailbox: Mailbox) -> Mailbox:
        return Mailbox(mailbox.local_part, mailbox.domain.lower() or self.domain)

    async def rule(self, mailbox: Mailbox, sender: ReversePath) -> Rule:
        return self.store if self.is_ours(mailbox.domain) else self.nowhere

    async def by_mx(self, domain: bytes | str) -> transport.Unroutable:
        return transport.Unroutable(NO_WAY)  # never asked: no rule says ByMx

    async def takes_no_mail(self, domain: bytes) -> bool:
        return False


class Shy(Memory):
    """A server out there, which takes nothing from whom it has not seen before."""

    seen = 0

    async def rcpt(self, session: Session, command: Rcpt) -> Reply | None:
        self.seen += 1
        return Reply(450, "4.7.1", "Come again in five minutes") if self.seen == 1 else None


class Teller:
    """An observer: of all that happens, who has their mail, and who has to wait."""

    def __init__(self, count: int) -> None:
        self.left, self.all_delivered = count, anyio.Event()

    def __call__(self, event: Event) -> None:
        if isinstance(event, (Delivered, Deferred)):
            print(type(event).__name__, event.forward_path, event.where, flush=True)
        if isinstance(event, Delivered):
            self.left -= 1
        if not self.left:
            self.all_delivered.set()


async def send(port: int, sender: str, content: str) -> None:
    async with Client("127.0.0.1", port, tls="none") as client:
        try:
            await client.send(Envelope(sender, ["all@example.org"]), content)
        except DeliveryError as error:
            print(error)


async def main(data: Path) -> None:
    database, clock, out_there = Database(data / "mail.db"), FastClock(), Shy()
    teller = Teller(2)
    await database.ask("CREATE TABLE people (name)")
    await database.ask("CREATE TABLE mail (mailbox, content)")
    await database.ask("CREATE TABLE aliases (name, target)")
    await database.ask("INSERT INTO people VALUES ('ann@example.org')")
    for target in ("ann@example.org", "jo@far.example"):
        await database.ask("INSERT INTO aliases VALUES ('all@example.org', ?)", target)
    async with (
        SQLiteSpool.open(data / "spool", clock=clock) as spool,
        anyio.create_task_group() as tasks,
    ):
        relay = Relay(
            hostname="mail.example.org",
            spool=spool,
            mailboxes=MailTable(database),
            aliases=AliasesTable(database),
            router=Router(
                local_domains=["example.org"],
                smart_host=None,
                resolver=Zone({"far.example": "192.0.2.1"}),
                shuffle=random.shuffle,
                hostname="mail.example.org",
            ),
            policy=KnownSenders({"bo@example.net"}),
            verify=Partners({"al@partner.example"}),
            connector=Sockets(data),
            clock=clock,
            random=lambda: 0.5,
            observe=teller,
        )
        relay.dispatcher.poll = 0.05  # real seconds until it looks at the clock again
        await tasks.start(Server(out_there).serve_at, [At(path=data / "192.0.2.1")])
        listener = Listener("smtp", "127.0.0.1", 0, [NoPrograms()])
        ((_, port),) = await tasks.start(relay.run, [listener])
        await send(port, "eve@example.net", "Subject: Hi\n\nhello\n")
        await send(port, "bo@example.net", 'Subject: Hi\n\nrun "hello.exe" now\n')
        await send(port, "bo@example.net", "Subject: Hi\n\nhello\n")
        await teller.all_delivered.wait()
        ((kept,),) = await database.ask("SELECT count(*) FROM mail")
        print(kept, "in the database,", len(out_there.received), "out there")
        tasks.cancel_scope.cancel()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:  # the path of a socket has to be short
        anyio.run(main, Path(sys.argv[1] if len(sys.argv) > 1 else directory))
