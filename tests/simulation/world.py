"""A world from one seed: what is in it, what befalls it, and what has to hold all the while."""

import errno
import hashlib
import logging
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from attrs import define, field, frozen

from smtpproto.relay.routing.transport import Here, NextHop
from smtpproto.relay.spool import incoming
from tests.relay.aftermath import WAYS

from .books import PROMPT, Broken, Key
from .clients import Clients
from .disks import SQLiteDisk, Trouble
from .ledger import Ledger
from .loop import LIFE, run
from .making import TROUBLE, build
from .network import Network
from .nodes import Node
from .operators import Operator
from .peers import Peer
from .places import Destination, Resolver
from .plans import FRONT, LMTP
from .strangers import Strangers
from .terms import domain_of

__all__ = ["COUNTS", "Outcome", "simulate"]

START = 1_700_000_000.0
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
#: How long after the trouble the last report has found its reader.
AFTERWARDS = 6.5 * DAY
#: How many messages clients hand in, how many strangers come, and how often the operator acts;
#: most worlds are small, or there would be few.
MESSAGES, STRANGERS, KEPT = (1, 2, 4, 6, 12), (0, 0, 1, 2, 4), (0, 1, 1, 3)
#: Where nothing ever goes wrong.
FINE = frozenset({"good.example", "plain.example"})

#: What is counted in a world.
COUNTS = (
    "messages accepted",
    "recipients delivered",
    "given up",
    "reports",
    "sent again in a window",
    "kills",
    "power cuts",
    "by LMTP",
    "to members of lists",
    "bounces to return paths",
    "reports to postmasters",
    "failed with BY",
    "delivered after a hold",
    "thrown away by a rule",
    "rings",
    "kept by the operator",
    "requests of strangers refused",
    "messages of strangers",
)


@frozen
class Outcome:
    """What became of a world.

    `trace` is a hash of its `story`, `broken` the first breach; `slowest` how many seconds a
    delivery took at most that nothing was in the way of.
    """

    seed: int
    trace: str
    story: Sequence[str]
    broken: Broken | None
    counts: Mapping[str, int]
    slowest: float


@define(eq=False)
class World:
    dice: random.Random
    home: Path
    messages: int | None = None  # as many as usual
    story: list[str] = field(factory=list)
    network: Network = field(init=False)
    ledger: Ledger = field(init=False)
    nodes: list[Node] = field(factory=list)
    destinations: dict[str, Destination] = field(factory=dict)
    addresses: dict[str, str] = field(factory=dict)
    start: Callable[..., None] = field(init=False)
    strangers: Strangers = field(init=False)
    operator: Operator = field(init=False)
    lmtp: Peer = field(init=False)
    #: Whether the rules that were meant for a while are gone.
    lifted: bool = False
    _hash: Any = field(factory=hashlib.sha256)

    def __attrs_post_init__(self) -> None:
        self.network = Network(self.dice)
        self.strangers, self.operator = Strangers(self), Operator(self)

    # What nodes need

    def clock(self) -> float:
        return START + anyio.current_time()

    def tell(self, text: str) -> None:
        text = text.replace(str(self.home), "…").replace("\n", "; ")
        line = f"{when(anyio.current_time())} {text}"
        self.story.append(line)
        self._hash.update(line.encode() + b"\n")

    def trace(self) -> str:
        return str(self._hash.hexdigest())

    def resolver(self, node: Node) -> Resolver:
        return Resolver(self, node)

    @property
    def by_name(self) -> Mapping[str, Node]:
        return {node.name: node for node in self.nodes}

    def node_of(self, domain: str) -> Node | None:
        return self.by_name.get(domain)

    # Where mail has to go: told by hand

    def places(self, name: str, sender: str, path: str) -> frozenset[str]:
        """Name the hosts that mail may go to from a node; the mailbox, where it is to stay."""
        plan, domain = self.by_name[name].plan, domain_of(path)
        rule = plan.rule(sender, path, first=not self.lifted)
        if rule is not None and isinstance(rule.to, NextHop):
            return frozenset(host.name for host in rule.to.hosts)
        if rule is not None and not isinstance(rule.to, Here):
            return frozenset()
        if domain == plan.domain:
            return frozenset({f"mailbox {path}"})
        if plan.smart_host is not None:
            return frozenset({plan.smart_host.host})
        if (node := self.node_of(FRONT if domain == LMTP else domain)) is not None:
            return frozenset({node.name})
        there = self.destinations.get(domain)
        return frozenset(peer.name for peer in there.hosts) if there else frozenset()

    def says(self, name: str, sender: str, path: str) -> str:
        return self.by_name[name].plan.says(sender, path, first=not self.lifted)

    def offers(self, host: str) -> Sequence[str]:
        there = self.network.hosts.get(host)
        return there.keywords if isinstance(there, Peer) else ("DSN", "DELIVERBY")

    def accepted(self, node: Node, id: str) -> None:
        """A node has said 250: look later whether it is where it has to be by then."""
        held = self.ledger.held[node.name, id]
        self.tell(f"{node.name} accepts {id}: {held.mail.serialize().decode().strip()}")
        fine = {peer.name for domain in FINE for peer in self.destinations[domain].hosts}
        paths: list[str] = []
        for path in held.owed:
            places = self.places(node.name, held.sender(path), path)
            prompt = places <= fine or (places == {f"mailbox {path}"})
            if places and prompt and node.plan.behind(path) is None:
                paths.append(path)
        # What is failed at once, for it cannot be there in time, is written down with the others.
        sure = node.plan.smart_host is None and not held.terms.returns
        if paths and sure and node.trouble is None:
            self.ledger.expect(held, paths)
            self.start(self._look_later, node, held.key)
        if held.terms.by is not None:
            self.start(self._look_at_its_time, node, held.key)

    async def _look_later(self, node: Node, key: Key) -> None:
        life, troubled = node.life, False
        begins = self.ledger.held[key].terms.begins - self.clock()
        until = anyio.current_time() + max(begins, 0) + PROMPT
        while anyio.current_time() < until:
            await anyio.sleep(max(until - PROMPT - anyio.current_time(), PROMPT / 10))
            troubled |= node.trouble is not None
        if node.life is not life or not node.up or troubled:
            return
        if late := self.ledger.late(key):
            raise self.ledger.breach("starves", f"{', '.join(late)} of {key} after {PROMPT:g} s")

    async def _look_at_its_time(self, node: Node, key: Key) -> None:
        """When a message is wanted by now, it is there; or its sender is told, as BY asks."""
        held = self.ledger.held[key]
        assert held.terms.by is not None
        await anyio.sleep(max(held.terms.by - self.clock(), 0))
        free = 0
        # Nobody need act who is dead, who cannot write it down, or who is trying just now.
        while (left := self.ledger.untold(held)) and free < 6:
            await anyio.sleep(MINUTE / 3)
            able = node.up and node.trouble is None and held.stopped is False
            free = free + 1 if able and not node.is_trying(key[1]) else 0
        if left:
            raise self.ledger.breach("by", f"{key} was wanted by now: {', '.join(left)}")

    def counts(self) -> Sequence[int]:
        ledger, nodes = self.ledger, self.nodes
        cuts = sum(node.cuts for node in nodes)
        deaths = sum(node.deaths for node in nodes)
        return (
            len(ledger.held),
            ledger.delivered,
            ledger.failed,
            len(ledger.reports),
            ledger.again,
            deaths - cuts,
            cuts,
            self.lmtp.taken,
            ledger.listed,
            ledger.returned,
            ledger.orphans,
            ledger.overdue,
            ledger.waited,
            ledger.discarded,
            ledger.rings,
            self.operator.kept,
            self.strangers.refused,
            self.strangers.taken,
        )

    def start_work(self, work: Callable[..., Any], *args: Any) -> None:
        self.start(work, *args)

    # What befalls it

    async def run(self) -> None:
        async with anyio.create_task_group() as tasks:
            self.start = self._aside(tasks)
            build(self)
            for node in self.nodes:
                self.start(self._fate, node)
            clients = Clients(self)
            rushes = [self.dice.uniform(0, TROUBLE) for _ in range(3)]
            usual = self.dice.choice(MESSAGES)
            for number in range(self.messages or usual):
                at = self.dice.choice([*rushes, self.dice.uniform(0, TROUBLE)])
                self.start(clients.submit, number, at + self.dice.uniform(1, MINUTE))
            for _ in range(self.dice.choice(STRANGERS)):
                self.start(self.strangers.come, self.dice.uniform(0, TROUBLE))
            for _ in range(self.dice.choice(KEPT)):
                self.start(self.operator.keep_some, self.dice.choice(rushes))
            self.start(self.operator.mend_tables, self.dice.uniform(HOUR, TROUBLE))
            with anyio.move_on_after(TROUBLE + AFTERWARDS):
                await self.ledger.over.wait()
            if self.ledger.broken is None:
                with suppress(Broken):
                    await self._close()
            tasks.cancel_scope.cancel()

    def _aside(self, tasks: Any) -> Callable[..., None]:
        """Start what belongs to the world, whoever asks for it."""

        async def guarded(work: Callable[..., Any], *args: Any) -> None:
            LIFE.set(None)
            try:
                await work(*args)
            except* Broken:
                pass  # the ledger knows

        return partial(tasks.start_soon, guarded)

    async def _close(self) -> None:
        self.ledger.close()
        for node in self.nodes:
            node.check_bounds()
            spool = node.spool
            assert spool is not None
            if left := [entry.id async for entry in spool.entries()]:
                raise self.ledger.breach("empties", f"{node.name} still has {left}")
            if files := sorted(path.name for path in (node.directory / "content").iterdir()):
                raise self.ledger.breach("empties", f"{node.name} still has files {files}")
            for what, count, _ in node.sizes():
                if count and "readers" not in what and "held" not in what:
                    raise self.ledger.breach("memory", f"{node.name} still has {count} {what}")
        if self.network.open:
            ends = [f"{end.local}-{end.remote}" for end in self.network.open]
            raise self.ledger.breach("memory", f"connections that nobody has closed: {ends}")

    async def _fate(self, node: Node) -> None:
        """Let a node live, and die, and live again; when the trouble is over it stays."""
        dice = self.dice
        self.start(self._disk_troubles, node)
        # One in five is only ever asked to end: nothing that it does twice is excused by that.
        mortal = dice.random() < 0.8
        while anyio.current_time() < TROUBLE:
            longest = 12 * HOUR if mortal else HOUR
            until = min(TROUBLE, anyio.current_time() + dice.uniform(MINUTE, longest))
            fatal = dice.randrange(1, dice.choice([60, 200, 200, 1000])) if mortal else None
            gently = not mortal or dice.random() < 0.3
            node.way = dice.choice([None, None, *WAYS])
            await node.live(fatal, until, gently=gently)
            await anyio.sleep(dice.choice([1.0, 30.0, dice.uniform(60, HOUR)]))
        node.way = None
        while node.trouble is not None:  # noqa: ASYNC110 - until its disk is well, too
            await anyio.sleep(MINUTE)
        await node.live(None, float("inf"), gently=True)

    async def _disk_troubles(self, node: Node) -> None:
        dice = self.dice
        while True:
            await anyio.sleep(dice.uniform(HOUR, 20 * HOUR))
            if anyio.current_time() > TROUBLE - HOUR:
                return
            error = dice.choice([errno.ENOSPC, errno.EIO, errno.EROFS])
            # A moment, or hours; for some operations, or for all.
            longest = TROUBLE - anyio.current_time()
            lasts = dice.choice([30 * MINUTE, 30 * MINUTE, 8 * HOUR])
            odds = 1.0 if error == errno.EROFS else dice.choice([0.3, 0.3, 1.0])
            node.trouble = Trouble(error, odds)
            self.tell(f"the disk of {node.name} has {node.trouble}")
            await anyio.sleep(min(dice.uniform(MINUTE, lasts), longest))
            node.trouble = None
            self.tell(f"the disk of {node.name} is well again")
            await anyio.sleep(5)
            node.wake()


def when(seconds: float) -> str:
    days, rest = divmod(seconds, DAY)
    hours, rest = divmod(rest, HOUR)
    minutes, rest = divmod(rest, 60)
    return f"{days:.0f}d {hours:02.0f}:{minutes:02.0f}:{rest:06.3f}"


class _Faults(logging.Handler):
    """What the relay logs as a fault of its own is a breach; what it logs else is told."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        life = LIFE.get()
        if life is not None and life.dead:
            return
        if record.exc_info:
            error = record.exc_info[1]
            if not isinstance(error, Broken):
                self._world.ledger.breach("faults", f"{record.getMessage()}: {error!r}")
        elif record.levelno >= logging.WARNING:
            self._world.tell(f"log: {record.getMessage()}")


@contextmanager
def _logged(world: World) -> Iterator[None]:
    logger = logging.getLogger("smtpproto")
    handler, before = _Faults(world), logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = before


@contextmanager
def _small() -> Iterator[None]:
    """What takes 128 KiB in life happens here with 4."""
    before, incoming.INLINE_OCTETS = incoming.INLINE_OCTETS, 4096
    try:
        yield
    finally:
        incoming.INLINE_OCTETS = before


def simulate(seed: int, messages: int | None = None) -> Outcome:
    """Let a world pass, with so many messages or a few, and tell what became of it."""
    home = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))

    async def main(dice: random.Random) -> Outcome:
        world = World(dice, home, messages)
        with _logged(world), _small(), SQLiteDisk(world.nodes).runs():
            await world.run()
        ledger = world.ledger
        return Outcome(
            seed,
            world.trace(),
            world.story,
            ledger.broken,
            dict(zip(COUNTS, world.counts(), strict=True)),
            ledger.slowest,
        )

    try:
        return run(seed, main)
    finally:
        shutil.rmtree(home)
