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

from smtpproto.client import Client, Tls
from smtpproto.core.command import Mail, Rcpt
from smtpproto.core.envelope import Envelope
from smtpproto.core.reply import Severity
from smtpproto.relay import HostPort
from smtpproto.relay.spool import incoming
from smtpproto.resolve import Mx, NoRecords, NoSuchDomain, ResolveFailed
from smtpproto.result import ClientError, Fate, RefusedError
from tests.relay.aftermath import WAYS

from .ledger import PROMPT, Broken, Ledger, Promise, domain_of
from .loop import LIFE, run
from .network import Network
from .nodes import Node, SQLiteDisk
from .peers import GOOD, Mood, Peer

__all__ = ["COUNTS", "Outcome", "simulate"]

START = 1_700_000_000.0
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
#: How long there is trouble, and how long afterwards the last report has found its reader.
TROUBLE, AFTERWARDS = DAY, 6.5 * DAY
#: How many messages clients hand in; most worlds are small, or there would be few.
MESSAGES = (1, 2, 4, 6, 12)

BAD_MOODS = (
    Mood("refuses", connect="refuse"),
    Mood("does not answer", connect="nobody"),
    Mood("is mute", connect="mute"),
    Mood("is greylisting", greylist=True),
    Mood("has trouble", trouble=0.3),
    Mood("has much trouble", trouble=0.7),
    Mood("is busy", trouble=0.5, troubles=("421", "452")),
    Mood("refuses some", trouble=0.1, troubles=("550", "554", "450")),
    Mood("is slow", trouble=0.5, troubles=("slow",), links="poor"),
    Mood("is far away", links="poor"),
    Mood("is cut off", links="reset"),
    Mood("falls silent", links="silent"),
    Mood("hangs", trouble=0.2, troubles=("hang",)),
)
KEYWORDS = ("PIPELINING", "8BITMIME", "SIZE 10000000", "CHUNKING", "DSN")


#: What is counted in a world.
COUNTS = (
    "messages accepted",
    "recipients delivered",
    "given up",
    "reports",
    "sent again in a window",
    "kills",
    "power cuts",
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
class Phase:
    """How a destination is until a time."""

    until: float
    mood: Mood
    dns: str = "ok"  # "servfail", "silent"


@define(eq=False)
class Destination:
    """A domain of others, and how it fares through the day."""

    domain: str
    phases: Sequence[Phase]
    hosts: Sequence[Peer] = ()
    null: bool = False
    exists: bool = True

    def now(self) -> Phase:
        now = anyio.current_time()
        return next((phase for phase in self.phases if now < phase.until), WELL)


WELL = Phase(float("inf"), GOOD)


@define(eq=False)
class Resolver:
    """The DNS, as a node sees it."""

    world: "World"
    node: Node

    async def mx(self, domain: str) -> Sequence[Mx]:
        if (node := self.world.node_of(domain)) is not None:
            await self._wait(WELL)
            return [Mx(10, node.name)]
        there = self.world.destinations.get(domain)
        await self._wait(there.now() if there else WELL)
        if there is None or not there.exists:
            raise NoSuchDomain(domain)
        if there.null:
            return [Mx(0, ".")]
        if domain == "plain.example":
            raise NoRecords(domain)
        return [Mx(10 * (1 + number // 2), peer.name) for number, peer in enumerate(there.hosts)]

    async def addresses(self, host: str) -> Sequence[str]:
        await self._wait(WELL)
        if host not in self.world.addresses:
            raise NoSuchDomain(host)
        return [self.world.addresses[host]]

    async def _wait(self, phase: Phase) -> None:
        await anyio.sleep(self.world.dice.uniform(0.001, 0.2))
        if phase.dns == "silent":
            await anyio.sleep(20)
        if phase.dns != "ok":
            raise ResolveFailed("so the plan has it")


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
    _hash: Any = field(factory=hashlib.sha256)

    def __attrs_post_init__(self) -> None:
        self.network = Network(self.dice)

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

    def node_of(self, domain: str) -> Node | None:
        return next((node for node in self.nodes if node.domain == domain), None)

    def accepted(self, node: Node, id: str) -> None:
        """A node has said 250: look later whether it is where it has to be by then."""
        self.tell(f"{node.name} accepts {id}")
        held = self.ledger.held[node.name, id]
        here = {*self.ledger.promise.good, node.domain}
        paths = [path for path in held.owed if domain_of(path) in here]
        paths = [path for path in paths if path not in node.aliases]
        if paths and node.smart_host is None and not node.trouble:
            self.ledger.expect(held, paths)
            self.start(self._look_later, node, held.key)

    async def _look_later(self, node: Node, key: tuple[str, str]) -> None:
        life, troubled = node.life, False
        until = anyio.current_time() + PROMPT
        while anyio.current_time() < until:
            await anyio.sleep(PROMPT / 10)
            troubled |= node.trouble != 0
        if node.life is not life or not node.up or troubled:
            return
        if late := self.ledger.overdue(key):
            raise self.ledger.breach("starves", f"{', '.join(late)} of {key} after {PROMPT:g} s")

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
        )

    # What is in it

    def build(self) -> None:
        dice = self.dice
        for number, (name, domain) in enumerate(
            [("front.example", "front.example"), ("back.example", "back.example")]
        ):
            self._add_node(number, name, domain, None)
        self._add_node(2, "branch.example", "branch.example", HostPort("front.example"))
        self._add_destination("good.example", [], 2)
        self._add_destination("plain.example", [], 1)
        for number in range(5):
            phases: list[Phase] = []
            now = dice.uniform(0, 2 * HOUR)
            phases.append(Phase(now, GOOD))
            while now < TROUBLE:
                now += dice.uniform(10 * MINUTE, 8 * HOUR)
                dns = dice.choice(["ok"] * 6 + ["servfail", "silent"])
                phases.append(Phase(min(now, TROUBLE), dice.choice(BAD_MOODS), dns))
                if dice.random() < 0.4:
                    now += dice.uniform(5 * MINUTE, 2 * HOUR)
                    phases.append(Phase(min(now, TROUBLE), GOOD))
            self._add_destination(f"bad{number}.example", phases, dice.randint(1, 3))
        mood = dice.choice(BAD_MOODS[:3])
        self._add_destination("dead.example", [Phase(float("inf"), mood)], 1)
        self.destinations["null.example"] = Destination("null.example", [], null=True)
        self.destinations["gone.example"] = Destination("gone.example", [], exists=False)
        hopeless = frozenset(
            ["null.example", "gone.example", *(f"nobody@{node.domain}" for node in self.nodes)]
        )
        self.ledger = Ledger(
            Promise(
                hopeless,
                frozenset({"dead.example"}),
                frozenset({"good.example", "plain.example"}),
            ),
            self.clock,
        )
        for destination in self.destinations.values():
            for peer in destination.hosts:
                peer.ledger = self.ledger

    def _add_node(self, number: int, name: str, domain: str, smart_host: HostPort | None) -> None:
        home = self.home / name
        home.mkdir(parents=True)
        address = f"203.0.113.{number + 1}"
        aliases = {f"team@{domain}": [f"ann@{domain}", "crew@good.example", "crew@bad0.example"]}
        if smart_host is None:
            aliases[f"info@{domain}"] = [f"bob@{domain}"]
        node = Node(self, name, domain, address, home, ["ann", "bob"], aliases, smart_host)
        self.nodes.append(node)
        self.addresses[name] = address
        self.network.hosts[address] = self.network.hosts[name] = node

    def _add_destination(self, domain: str, phases: Sequence[Phase], hosts: int) -> None:
        destination = Destination(domain, phases)
        peers: list[Peer] = []
        for number in range(hosts):
            name = domain if domain == "plain.example" else f"mx{number}.{domain}"
            address = f"192.0.2.{len(self.addresses) + 1}"
            keywords = [word for word in KEYWORDS if self.dice.random() < 0.6]
            # Of several hosts one may fare better than the others.
            spared = number and self.dice.random() < 0.3
            peer = Peer(
                name,
                domain,
                self.dice,
                None,  # type: ignore[arg-type]  # there is one when all is built
                self.tell,
                (lambda: GOOD) if spared else (lambda: destination.now().mood),
                self._start,
                keywords,
            )
            self.addresses[name] = address
            self.network.hosts[address] = peer
            peers.append(peer)
        destination.hosts = peers
        self.destinations[domain] = destination

    def _start(self, work: Callable[..., Any], *args: Any) -> None:
        self.start(work, *args)

    # What befalls it

    async def run(self) -> None:
        async with anyio.create_task_group() as tasks:
            self.start = self._aside(tasks)
            self.build()
            for node in self.nodes:
                self.start(self._fate, node)
            rushes = [self.dice.uniform(0, TROUBLE) for _ in range(3)]
            usual = self.dice.choice(MESSAGES)
            for number in range(self.messages or usual):
                at = self.dice.choice([*rushes, self.dice.uniform(0, TROUBLE)])
                self.start(self._submit, number, at + self.dice.uniform(1, MINUTE))
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
        await node.live(None, float("inf"), gently=True)

    async def _disk_troubles(self, node: Node) -> None:
        while True:
            await anyio.sleep(self.dice.uniform(HOUR, 20 * HOUR))
            if anyio.current_time() > TROUBLE - HOUR:
                return
            node.trouble = self.dice.choice([errno.ENOSPC, errno.EIO])
            self.tell(f"the disk of {node.name} has {errno.errorcode[node.trouble]}")
            await anyio.sleep(self.dice.uniform(MINUTE, 30 * MINUTE))
            node.trouble = 0
            self.tell(f"the disk of {node.name} is well again")

    # Clients

    async def _submit(self, number: int, at: float) -> None:
        dice = self.dice
        await anyio.sleep(at)
        node = dice.choice(self.nodes)
        envelope, content = self._message(number, node)
        for attempt in range(10):
            if await self._try(number, node, envelope, content):
                return
            await anyio.sleep(dice.uniform(10, 20 * MINUTE) * (attempt + 1))

    async def _try(self, number: int, node: Node, envelope: Envelope, content: bytes) -> bool:
        """Hand it over; tell whether that is done with."""
        try:
            async with Client(
                node.address,
                25,
                tls=Tls.NONE,
                helo_name="client.example",
                connector=partial(self.network.connect, "198.51.100.7"),
            ) as client:
                result = await client.deliver(envelope, content)
        except RefusedError as error:
            self.tell(f"client {number}: {error}")
            return error.reply.severity is Severity.PERMANENT
        except ClientError as error:
            self.tell(f"client {number}: {error}")
            return False
        self.tell(f"client {number}: {result}")
        heard = [o for o in result.outcomes if o.fate is Fate.ACCEPTED]
        for outcome in heard:
            path = str(outcome.forward_path.mailbox).lower()
            id = outcome.reply.text.rpartition(" ")[2] if outcome.reply else ""
            held = self.ledger.held.get((node.name, id))
            if held is None or path not in held.asked:
                raise self.ledger.breach(
                    "lost", f"client {number} heard 250 for {path}, for nothing"
                )
        return bool(heard) or all(o.fate is Fate.PERMANENT for o in result.outcomes)

    def _message(self, number: int, node: Node) -> tuple[Envelope, bytes]:
        dice = self.dice
        others = [each.domain for each in self.nodes]
        users = [f"ann@{domain}" for domain in others] + [f"bob@{domain}" for domain in others]
        aliases = [f"team@{node.domain}", f"info@{node.domain}"] if node.smart_host is None else []
        far = [f"user{n}@{domain}" for domain in self.destinations for n in range(3)]
        wrong = [f"nobody@{each.domain}" for each in self.nodes if each is not node]
        sender = dice.choice([None, *users, *users, "user@good.example", "user@bad1.example"])
        many = dice.choice([1, 1, 2, 3, 5])
        pool = [*far, *far, *users, *aliases, *dice.sample(wrong, 1), "user0@good.example"]
        paths = list(dict.fromkeys(dice.choice(pool) for _ in range(many)))
        if aliases[:1] and aliases[0] in paths:
            paths = [aliases[0]]  # those behind it are to be nobody else's
        if aliases and aliases[1] in paths:
            paths = [aliases[1]]
        rcpts = []
        for path in paths:
            asked = dice.choice(["", "", "NEVER", "FAILURE", "SUCCESS,FAILURE", "DELAY", "SUCCESS"])
            rcpts.append(Rcpt(path, {"NOTIFY": asked.encode()} if asked else {}))
        size = dice.choice([100, 1000, 3000, 10_000, 40_000])
        body = b"".join(b"line %d of many, and a dot\r\n.\r\n" % n for n in range(size // 34))
        content = b"Subject: number %d\r\n\r\n%bX-End: 1\r\n" % (number, body)
        return Envelope(Mail(sender), rcpts), content


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
