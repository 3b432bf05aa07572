"""Nodes of ours: the real relay, spool and Maildir, in processes that die and start again."""

import errno
import random
import shutil
from collections import deque
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Protocol

import anyio
import trio
from attrs import define, field

from smtpproto.core.command import Mail, Rcpt
from smtpproto.core.envelope import Envelope
from smtpproto.core.path import Mailbox
from smtpproto.core.reply import Reply
from smtpproto.handler import ContentStream, Session
from smtpproto.maildir import MailboxUnavailable
from smtpproto.relay import AliasTable, HostPort, Maildir, Relay, Router, SQLiteSpool
from smtpproto.relay.mailboxes.mailbox import listed_mailboxes
from smtpproto.relay.reports.story import Event
from smtpproto.relay.spool.database import READERS
from smtpproto.relay.spool.incoming import SQLiteIncoming
from smtpproto.relay.spool.seam import Entry, Fresh, Settlement, SpoolUnavailable
from smtpproto.relay.spool.sqlite import ARRIVAL_OCTETS, ARRIVALS
from smtpproto.resolve import Resolver
from smtpproto.server import Server
from tests.relay.aftermath import Platter, Way
from tests.relay.tape import MakeDirectory, Operation, Remove, SyncDirectory, Tape

from .ledger import Copy, Ledger, path_of
from .loop import LIFE, Died, Life, bury
from .network import End, Host, Link, Network

__all__ = ["SESSIONS", "SESSIONS_EACH", "WORKERS", "Node", "SQLiteDisk", "Surroundings"]

#: How small the nodes are, so that a crowd is soon there.
SESSIONS, SESSIONS_EACH, WORKERS = 24, 2, 60
#: Nobody else changes the spool, so there is no need to look often.
POLL = 6 * 3600.0


class Surroundings(Protocol):
    """What a node needs of its world."""

    dice: random.Random
    network: Network
    ledger: Ledger

    def clock(self) -> float: ...
    def tell(self, text: str) -> None: ...
    def accepted(self, node: "Node", id: str) -> None: ...
    def resolver(self, node: "Node") -> Resolver: ...


class FaultyDisk(Tape):
    """A node's disk: a process may die at any step, and it is full or broken at times.

    What is done to it is played to the model of a disk, of which a power cut leaves what it likes.
    """

    def __init__(self, node: "Node", life: Life) -> None:
        super().__init__(real=False)
        self._node = node
        self._life = life

    def mark(self, mark: object) -> None:
        self._node.record(mark)

    def refuses(self, operation: Operation) -> int:
        self._life.step()
        return self._node.ask(operation)

    def sync(self, file: int) -> None:
        super().sync(file)
        self._life.step()

    def remove(self, path: Path) -> None:
        if path.exists():  # a start has nothing else to do with it
            super().remove(path)

    def free(self, path: Path) -> int:
        return 0 if self._node.trouble == errno.ENOSPC else 1 << 40


class SQLiteDisk(Tape):
    """The same for what SQLite does, of all nodes."""

    def __init__(self, nodes: Sequence["Node"]) -> None:
        super().__init__()  # with syncs, or those of directories would go unseen
        self._nodes = nodes
        self._known: dict[Path, Node] = {}

    def _of(self, path: Path) -> "Node":
        if path not in self._known:
            node = next(n for n in self._nodes if path.is_relative_to(n.directory))
            self._known[path] = node
        return self._known[path]

    def mark(self, mark: Any) -> None:
        self._of(mark.path).record(mark)

    def refuses(self, operation: Operation) -> int:
        node = self._of(operation.path)
        # Nothing can be raised through SQLite: the dead go on, and it has no effect.
        with suppress(Died):
            if node.life is not None:
                node.life.step()
        return node.ask(operation)


class WitnessedSpool(SQLiteSpool):
    """The real one, and the ledger sees what reports it takes in."""

    node: "Node"
    life: Life
    #: Who is settling: its reports, and what they become.
    settling: dict[Any, tuple[Sequence[Fresh], list[SQLiteIncoming]]]

    async def settle(
        self,
        id: str,
        settlements: Sequence[Settlement],
        fresh: Sequence[Fresh] = (),
        *,
        now: float,
    ) -> list[str]:
        task = trio.lowlevel.current_task()
        self.settling[task] = fresh, []
        try:
            ids = await super().settle(id, settlements, fresh, now=now)
            if ids and task in self.settling:
                self._report(fresh, ids)
        finally:
            self.settling.pop(task, None)
        return ids

    def _begin(self) -> SQLiteIncoming:
        incoming = super()._begin()
        _, reports = self.settling.get(trio.lowlevel.current_task(), ((), []))
        reports.append(incoming)
        return incoming

    async def _remove(self, paths: Sequence[Path]) -> None:
        # It is committed, and from here on the reports may be delivered: now they are known.
        task = trio.lowlevel.current_task()
        fresh, reports = self.settling.get(task, ((), []))
        if len(fresh) == len(reports):
            self.settling.pop(task, None)
            self._report(fresh, [report.id for report in reports])
        await super()._remove(paths)

    def _report(self, fresh: Sequence[Fresh], ids: Sequence[str]) -> None:
        if self.life.dead:
            return
        for new, report in zip(fresh, ids, strict=True):
            self.node.world.ledger.reported(self.node.name, report, new)
            self.node.world.tell(f"{self.node.name} queues {report}, a {new.origin}")

    async def claim(self, now: float, limit: int, lease: float) -> list[Entry]:
        self.node.check_bounds()
        return await super().claim(now, limit, lease)


class WitnessedMaildir(Maildir):
    """The real one, and the ledger sees what is put there."""

    node: "Node"
    life: Life

    async def deliver_once(
        self, mailbox: Mailbox, content: AsyncIterable[bytes], *, key: str, again: bool
    ) -> None:
        if self.node.trouble and self.node.world.dice.random() < 0.2:
            raise self.node.mailbox_trouble()
        octets = b"".join([chunk async for chunk in content])

        async def same() -> AsyncIterator[bytes]:
            yield octets

        ledger = self.node.world.ledger
        message = ledger.identify(octets)
        if message is None:
            raise ledger.breach("content", f"mailbox {mailbox} got what is of none of our nodes")
        copy = Copy(f"mailbox {mailbox}", self.life, self.node.world.clock(), None)
        directory = self.directory(mailbox)
        before = files_in(directory, key)
        try:
            await super().deliver_once(mailbox, same(), key=key, again=again)
        finally:
            # Dead or alive: it is there if it has its name.
            if files_in(directory, key) > before:
                ledger.arrived_for(copy, message, str(mailbox))


def files_in(directory: Path, key: str) -> int:
    """Count what stands there of the delivery with this key."""
    try:
        return sum(f"K{key}." in path.name for path in (directory / "new").iterdir())
    except FileNotFoundError:
        return 0


@define(eq=False)
class Witness:
    """The intake, and the ledger sees what it says 250 to."""

    intake: Any
    node: "Node"
    life: Life

    async def mail(self, session: Session, command: Mail) -> Reply | None:
        return await self.intake.mail(session, command)  # type: ignore[no-any-return]

    async def rcpt(self, session: Session, command: Rcpt) -> Reply | None:
        return await self.intake.rcpt(session, command)  # type: ignore[no-any-return]

    async def content(
        self, session: Session, envelope: Envelope, content: ContentStream
    ) -> Reply | None:
        head = _Head(content)
        world = self.node.world
        reply: Reply | None = await self.intake.content(session, envelope, head)
        if reply is None or reply.code != 250 or self.life.dead:
            return reply
        id = reply.text.rpartition(" ")[2]
        world.ledger.accepted((self.node.name, id), envelope.mail, envelope.rcpts)
        world.accepted(self.node, id)
        near = world.network.by_port[session.peer[1]]
        if near.life is not None:
            key = world.ledger.identify(bytes(head.octets))
            if key is None:
                raise world.ledger.breach("content", f"{id} comes from a node, and has none's line")
            pipe = near.incoming
            until = pipe.sent + len(reply.serialize())
            for rcpt in envelope.rcpts:
                copy = Copy(self.node.name, near.life, anyio.current_time(), pipe, until, dsn=True)
                world.ledger.arrived_for(copy, key, path_of(rcpt))
        return reply


class _Head:
    """Content as it passes, of which the beginning is kept."""

    def __init__(self, content: ContentStream) -> None:
        self._content = content
        self.octets = bytearray()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        chunk = await anext(self._content)
        if len(self.octets) < 4096:
            self.octets += chunk
        return chunk


@define(eq=False)
class Node(Host):
    """One machine, and the processes that are its relay, one after the other."""

    world: Surroundings
    name: str
    domain: str
    address: str
    home: Path
    mailboxes: Sequence[str]
    aliases: Mapping[str, Sequence[str]]
    smart_host: HostPort | None = None

    life: Life | None = field(default=None, init=False)
    lives: int = field(default=0, init=False)
    deaths: int = field(default=0, init=False)
    cuts: int = field(default=0, init=False)  # of these
    #: What the disk has just now, an errno; 0: nothing.
    trouble: int = field(default=0, init=False)
    relay: Relay | None = field(default=None, init=False)
    spool: WitnessedSpool | None = field(default=None, init=False)
    server: Server | None = field(default=None, init=False)
    up: bool = field(default=False, init=False)
    _arrivals: deque[End] = field(factory=deque, init=False)
    _bell: anyio.Event = field(factory=anyio.Event, init=False)

    #: What is surely on its disk, and what perhaps.
    platter: Platter = field(init=False)
    #: How the power is cut when it dies; None: it is only killed.
    way: Way | None = field(default=None, init=False)

    #: Where its spool is.
    directory: Path = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.directory = self.home / "spool"
        self.platter = Platter(self.directory)

    def record(self, mark: object) -> None:
        if self.life is not None and not self.life.dead:
            self.platter.play(mark)  # type: ignore[arg-type]  # a tape has nothing else

    def ask(self, operation: Operation) -> int:
        """Return how the disk refuses to do it, if it does."""
        if not self.trouble or isinstance(operation, (Remove, SyncDirectory, MakeDirectory)):
            return 0
        return self.trouble if self.world.dice.random() < 0.3 else 0

    def mailbox_trouble(self) -> MailboxUnavailable:
        return MailboxUnavailable.because(OSError(self.trouble, "so the plan has it"))

    # On the network

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
        assert self.server is not None
        self.server.stop()
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
        reports = {
            entry.id: b"".join([chunk async for chunk in spool.content(entry.id)])
            for entry in entries
            if entry.origin.startswith("report on ")
        }
        world.ledger.found(life, entries, reports)
        world.tell(f"{self.name} begins its life {life.number} with {len(entries)} messages")
        maildir = WitnessedMaildir(
            self.home / "mail",
            hostname=self.name,
            now=world.clock,
            random_bytes=world.dice.randbytes,
            policy=listed_mailboxes(self.mailboxes),
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
                local_domains=[self.domain],
                smart_host=self.smart_host,
                resolver=world.resolver(self),
                shuffle=world.dice.shuffle,
                hostname=self.name,
            ),
            networks=[ip_network("198.51.100.0/24"), ip_network("203.0.113.0/24")],
            aliases=AliasTable(self.aliases),
            sessions=SESSIONS,
            sessions_each=SESSIONS_EACH,
            connector=self._connect,
            clock=world.clock,
            random=world.dice.random,
            observe=observe,
        )
        relay.dispatcher.poll = POLL
        relay.dispatcher.workers = WORKERS
        self.server = server = relay.server("smtp")
        server.handler = Witness(server.handler, self, life)
        self.up = True
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._accept, server, tasks)
            await relay.run([])
            while server.dialogues:  # noqa: ASYNC110 - seconds cost nothing here
                await anyio.sleep(1)
            tasks.cancel_scope.cancel()

    async def _connect(self, host: str, port: int) -> Any:
        return await self.world.network.connect(self.address, host, port)

    async def _accept(self, server: Server, tasks: Any) -> None:
        while True:
            while self._arrivals:
                tasks.start_soon(server.serve_stream, self._arrivals.popleft())
            self._bell = anyio.Event()
            await self._bell.wait()

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
        yield "next hops that are held", len(relay.hops._down), 100
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
