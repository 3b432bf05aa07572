"""Nodes of ours: the real relay, spool and Maildir, in processes that die and start again."""

import errno
import random
import shutil
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Protocol

import anyio
import trio
from attrs import define, evolve, field

from smtpproto.core.path import Mailbox, ReversePath
from smtpproto.lanes import FAILED
from smtpproto.maildir import MailboxUnavailable
from smtpproto.relay import AliasTable, Relay, Router, SQLiteSpool
from smtpproto.relay.accounts.login import Passwords
from smtpproto.relay.intake.handler import Intake
from smtpproto.relay.mailboxes.mailbox import listed_mailboxes
from smtpproto.relay.mailboxes.verp import Verp
from smtpproto.relay.reports.story import Event
from smtpproto.relay.routing.table import RouteTable, Rule
from smtpproto.relay.spool.database import READERS
from smtpproto.relay.spool.seam import SpoolUnavailable
from smtpproto.relay.spool.sqlite import ARRIVAL_OCTETS, ARRIVALS
from smtpproto.resolve import Resolver
from smtpproto.server import Server
from tests.relay.aftermath import Platter, Way
from tests.relay.tape import Operation

from .books import MAX_HOPS
from .disks import FaultyDisk, Trouble
from .ledger import Ledger
from .loop import LIFE, Life, bury
from .network import End, Host, Link, Network
from .plans import Plan
from .witness import Witness, WitnessedMaildir, WitnessedSpool

__all__ = ["SESSIONS", "SESSIONS_EACH", "USER", "WORKERS", "Node", "Surroundings"]

#: How small the nodes are, so that a crowd is soon there.
SESSIONS, SESSIONS_EACH, WORKERS = 24, 2, 60
#: Who changes a spool, or mends a disk, says so: there is no need to look often (see `wake`).
POLL = 6 * 3600.0
#: Who may submit, from loopback.
USER = ("ann", "secret")
SUBMISSION = 587


class Surroundings(Protocol):
    """What a node needs of its world."""

    dice: random.Random
    network: Network
    ledger: Ledger

    def clock(self) -> float: ...
    def tell(self, text: str) -> None: ...
    def accepted(self, node: "Node", id: str) -> None: ...
    def resolver(self, node: "Node") -> Resolver: ...


class Changing:
    """A table that somebody changes while it is asked."""

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self.table = RouteTable(rules)

    async def find(self, mailbox: Mailbox, sender: ReversePath) -> Rule | None:
        return await self.table.find(mailbox, sender)


@define(eq=False)
class Visit:
    """What the operator does with a spool, and what came of it; None: nobody knows."""

    work: Callable[[SQLiteSpool], Awaitable[int]]
    result: int | None = None
    over: bool = False


@define(eq=False)
class Node(Host):
    """One machine, and the processes that are its relay, one after the other."""

    world: Surroundings
    plan: Plan
    home: Path

    life: Life | None = field(default=None, init=False)
    lives: int = field(default=0, init=False)
    deaths: int = field(default=0, init=False)
    cuts: int = field(default=0, init=False)  # of these
    #: What the disk has just now.
    trouble: Trouble | None = field(default=None, init=False)
    relay: Relay | None = field(default=None, init=False)
    spool: WitnessedSpool | None = field(default=None, init=False)
    servers: dict[int, Server] = field(factory=dict, init=False)  # by port
    up: bool = field(default=False, init=False)
    _arrivals: deque[End] = field(factory=deque, init=False)
    _visits: deque[Visit] = field(factory=deque, init=False)
    _visitors: list[SQLiteSpool] = field(factory=list, init=False)
    _bell: anyio.Event = field(factory=anyio.Event, init=False)

    #: What is surely on its disk, and what perhaps.
    platter: Platter = field(init=False)
    #: How the power is cut when it dies; None: it is only killed.
    way: Way | None = field(default=None, init=False)

    #: Where its spool is.
    directory: Path = field(init=False)
    #: Its transport table, as it is now.
    table: Changing = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.directory = self.home / "spool"
        self.platter = Platter(self.directory)
        self.table = Changing((*self.plan.at_first, *self.plan.rules))

    @property
    def name(self) -> str:
        return self.plan.name

    @property
    def full(self) -> bool:
        """Whether nothing more has room on its disk."""
        return self.trouble is not None and self.trouble.errno == errno.ENOSPC

    def record(self, mark: object) -> None:
        if self.life is not None and not self.life.dead:
            self.platter.play(mark)  # type: ignore[arg-type]  # a tape has nothing else

    def ask(self, operation: Operation) -> int:
        """Return how the disk refuses to do it, if it does."""
        return 0 if self.trouble is None else self.trouble.refuses(operation, self.world.dice)

    def mailbox_trouble(self) -> MailboxUnavailable:
        assert self.trouble is not None
        return MailboxUnavailable.because(OSError(self.trouble.errno, "so the plan has it"))

    # On the network

    @property
    def ports(self) -> tuple[int, ...]:
        return (25, SUBMISSION)

    def answer(self, address: str) -> Link | None:
        if not self.up:
            raise ConnectionRefusedError(111, "Connection refused")
        dice = self.world.dice
        luck = dice.random()
        if luck < 0.1:
            return Link((0.01, 1.0), 5)
        if luck < 0.2:
            back = dice.choice([None, dice.randrange(1, 800)])
            return Link((0.001, 0.1), 3, dice.randrange(1, 3000), back)
        return Link(pieces=dice.choice([1, 1, 4]))

    def arrive(self, end: End) -> None:
        end.life = self.life
        self._arrivals.append(end)
        self._bell.set()

    # Lives

    async def live(self, fatal: int | None, until: float, *, gently: bool) -> None:
        """Be a process: until that time, by the loop's clock, or until the fatal step.

        At its time it is killed, or `gently` asked to end.
        """
        life = Life(self, self.lives + 1, fatal)
        life.die = lambda: self._die(life)
        self.life = life
        self.lives += 1
        self._arrivals.clear()
        self._visits.clear()
        async with trio.open_nursery() as nursery:
            found: list[trio.lowlevel.Task] = []
            nursery.start_soon(self._work, life, found)
            try:
                await self._end_of(life, until)
                if gently and not life.dead and not life.ended.is_set():
                    await self._stop(life)
            except trio.Cancelled:  # the world is over
                life.dead = True
                with trio.CancelScope(shield=True):
                    await bury(life, found)
                self._close(life)
                raise
            if not life.ended.is_set():
                if not life.dead:
                    self._die(life)
                await bury(life, found)
        self.up = False
        if life.dead:
            self._clean(life)
        elif self.trouble:
            life.refused = True

    async def _end_of(self, life: Life, until: float) -> None:
        with anyio.CancelScope(deadline=until):
            async with anyio.create_task_group() as either:

                async def first(event: anyio.Event) -> None:
                    await event.wait()
                    either.cancel_scope.cancel()

                either.start_soon(first, life.died)
                either.start_soon(first, life.ended)

    async def _stop(self, life: Life) -> None:
        self.world.tell(f"{self.name} is asked to end")
        self.up = False
        assert self.relay is not None
        for server in self.servers.values():
            server.stop()
        self.relay.stop()
        with anyio.move_on_after(45):
            await life.ended.wait()

    def _die(self, life: Life) -> None:
        """From here on nothing has any effect: what is on the disk is what there is."""
        life.dead = True
        self.up = False
        self.deaths += 1
        self.world.tell(f"{self.name} dies, at step {life.steps} of its life {life.number}")
        self.world.network.sever(life)
        left = self.directory.with_name("left")
        if self.way is None:
            shutil.copytree(self.directory, left, ignore=shutil.ignore_patterns("*-shm"))
        else:
            self._cut_power(self.way, left)
        life.died.set()

    def _cut_power(self, way: Way, left: Path) -> None:
        self.cuts += 1
        self.world.tell(f"the power is cut: {type(way).__name__}")
        image = self.platter.cut(way, self.world.dice.getrandbits(32))
        left.mkdir()
        there: dict[Path, bytes | None] = {}
        for path, content in image.items():
            new = left / path.relative_to(self.directory)
            if content is None:
                new.mkdir()
            else:
                new.write_bytes(content)
            there[path] = content
        self.platter = Platter(self.directory, there)

    def _clean(self, life: Life) -> None:
        """Take away what the dead one had open, and put in its place what was on its disk."""
        self._close(life)
        shutil.rmtree(self.directory)
        self.directory.with_name("left").rename(self.directory)

    def _close(self, life: Life) -> None:
        life.buried = True
        for visitor in self._visitors:
            visitor._stop()
        self._visitors.clear()
        if self.spool is not None:
            self.spool._stop()
            self.spool = None

    async def _work(self, life: Life, found: list[trio.lowlevel.Task]) -> None:
        found.append(trio.lowlevel.current_task())
        LIFE.set(life)
        try:
            with life.scope:
                async with self._spool(life) as spool:
                    await self._relay(life, spool)
        except SpoolUnavailable as error:
            self.world.tell(f"{self.name} cannot start: {error}")
            if not self.trouble:
                raise self.world.ledger.breach("starts", f"{self.name}: {error}") from error
        except BaseException:
            if not life.dead:
                raise
        finally:
            life.ended.set()

    @asynccontextmanager
    async def _spool(self, life: Life) -> AsyncIterator[WitnessedSpool]:
        self.directory.mkdir(exist_ok=True)
        world = self.world
        async with WitnessedSpool.open(
            self.directory,
            clock=world.clock,
            random=world.dice.randrange,
            disk=FaultyDisk(self, life),
        ) as spool:
            assert isinstance(spool, WitnessedSpool)
            spool.node, spool.life, spool.settling = self, life, {}
            self.spool = spool
            yield spool
        self.spool = None

    async def _relay(self, life: Life, spool: WitnessedSpool) -> None:
        world = self.world
        entries = [entry async for entry in spool.entries()]
        contents: dict[str, bytes] = {}
        for entry in entries:
            try:
                contents[entry.id] = b"".join([chunk async for chunk in spool.content(entry.id)])
            except SpoolUnavailable as error:
                raise world.ledger.breach("lost", f"the content of {entry.id}: {error}") from error
        world.ledger.found(life, entries, contents)
        world.tell(f"{self.name} begins its life {life.number} with {len(entries)} messages")
        maildir = WitnessedMaildir(
            self.home / "mail",
            hostname=self.name,
            now=world.clock,
            random_bytes=world.dice.randbytes,
            policy=listed_mailboxes(self.plan.mailboxes),
        )
        maildir.node, maildir.life = self, life

        def observe(event: Event) -> None:
            if not life.dead:
                world.tell(f"{self.name}: {_words(event)}")
                world.ledger.told(life, event)

        self.relay = relay = Relay(
            hostname=self.name,
            spool=spool,
            mailboxes=maildir,
            router=Router(
                local_domains=[self.plan.domain],
                relay_domains=self.plan.relayed,
                routes=self.table,
                smart_host=self.plan.smart_host,
                resolver=world.resolver(self),
                shuffle=world.dice.shuffle,
                hostname=self.name,
            ),
            networks=[ip_network("198.51.100.0/24"), ip_network("203.0.113.0/24")],
            authenticator=Passwords(dict([USER])),
            aliases=AliasTable(self.plan.aliases, lists=self.plan.lists),
            verp=Verp(self.plan.verp),
            postmaster=self.plan.postmaster,
            sessions=SESSIONS,
            sessions_each=SESSIONS_EACH,
            connector=self._connect,
            clock=world.clock,
            random=world.dice.random,
            observe=observe,
        )
        relay.dispatcher.poll = POLL
        relay.dispatcher.workers = WORKERS
        self.servers = {25: relay.server("smtp"), SUBMISSION: relay.server("submission")}
        for server in self.servers.values():
            assert isinstance(server.handler, Intake)
            intake = evolve(server.handler, max_hops=MAX_HOPS)
            server.handler = Witness(intake, self, life)
        self.up = True
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._accept, life, tasks)
            await relay.run([])
            while any(each.dialogues for each in self.servers.values()):  # noqa: ASYNC110
                await anyio.sleep(1)  # seconds cost nothing here
            tasks.cancel_scope.cancel()

    async def _connect(self, host: str, port: int) -> Any:
        return await self.world.network.connect(self.plan.address, host, port)

    async def _accept(self, life: Life, tasks: Any) -> None:
        while True:
            while self._arrivals:
                end = self._arrivals.popleft()
                tasks.start_soon(self.servers[end.local[1]].serve_stream, end)
            while self._visits:
                tasks.start_soon(self._receive, life, self._visits.popleft())
            self._bell = anyio.Event()
            await self._bell.wait()

    # Who visits

    async def visit(self, work: Callable[[SQLiteSpool], Awaitable[int]]) -> int | None:
        """Let the operator do something with the spool of a node that is up, beside it.

        Return what came of it; None where that is not known, for it failed, or the node died.
        """
        visit, life = Visit(work), self.life
        self._visits.append(visit)
        self._bell.set()
        while not visit.over and self.life is life and self.up:  # noqa: ASYNC110
            await anyio.sleep(1)
        return visit.result

    async def _receive(self, life: Life, visit: Visit) -> None:
        world = self.world
        try:
            async with SQLiteSpool.open(
                self.directory,
                serving=False,
                clock=world.clock,
                random=world.dice.randrange,
                disk=FaultyDisk(self, life),
                busy_timeout=0.1,
            ) as spool:
                self._visitors.append(spool)
                try:
                    visit.result = await visit.work(spool)
                finally:
                    if not life.dead:
                        self._visitors.remove(spool)
        except SpoolUnavailable as error:
            world.tell(f"the operator at {self.name}: {error}")
        visit.over = True

    def wake(self) -> None:
        """Have it look into its spool, as it would within some seconds by itself."""
        if self.up and self.relay is not None:
            self.relay.dispatcher.wake()

    def is_trying(self, id: str) -> bool:
        """Tell whether there is an attempt at a message."""
        assert self.relay is not None
        return any(entry.id == id for entry in self.relay.dispatcher._busy.values())

    # What it keeps in memory

    def sizes(self) -> Iterator[tuple[str, int, int]]:
        """Name what it holds: how much, and how much it may."""
        assert self.relay is not None
        assert self.spool is not None
        relay, spool = self.relay, self.spool
        yield "messages in hand", len(relay.dispatcher._busy), WORKERS
        yield "sessions with next hops", relay._pool._lanes.count, SESSIONS
        yield "lines before next hops", len(relay.hops._lines), WORKERS * 10
        users = sum(line.users for line in relay.hops._lines.values())
        yield "who stands in them", users, WORKERS * 10
        firsts = relay._pool._lanes._firsts
        yield "first connections that open", firsts[0], SESSIONS
        yield "of these to who was silent before", firsts[FAILED], SESSIONS // 2
        yield "next hops that are held", len(relay.hops._down), 100
        yield "next hops that are held to be up", len(relay.hops._live), 100
        yield "hosts that are held to be silent", len(relay.hops._silent), 100
        yield "hosts that are held to be either", len(relay._pool._lanes._answered), 100
        yield "looks into the database", len(spool.database._looks.works), WORKERS + 200
        yield "changes of the database", len(spool.database._changes.works), WORKERS + 200
        yield "readers of the database", len(spool.database._readers), READERS
        yield "questions to the database", len(spool.database._questions.works), WORKERS + 200
        yield "messages that have just come in", len(spool.arrivals._entries), ARRIVALS
        octets = sum(map(len, spool.arrivals._content.values()))
        yield "octets of content at hand", octets, ARRIVAL_OCTETS
        yield "recipients that are lent", len(spool._leases._lent), (WORKERS + ARRIVALS) * 20
        untold = sum(map(len, relay.dispatcher._untold.values()))
        yield "attempts that nobody has been told of", untold, WORKERS

    def check_bounds(self) -> None:
        if self.relay is None or self.spool is None:
            return
        for what, count, most in self.sizes():
            if count > most:
                raise self.world.ledger.breach(
                    "memory", f"{self.name} has {count} {what}, and may have {most}"
                )


def _words(event: Event) -> str:
    parts = [type(event).__name__, event.id]
    for name in ("forward_path", "where", "reply", "wait", "report"):
        value = getattr(event, name, None)
        if value is not None and value != "":
            parts.append(f"{value:.0f} s" if isinstance(value, float) else str(value))
    return " ".join(parts)
