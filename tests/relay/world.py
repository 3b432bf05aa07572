"""A small world for relays: names, hosts and a clock, all the test's; only the sockets are real.

    async with world(tmp_path) as w:
        there = await w.host("mx.there.example", "there.example", {"RCPT": "450 later"})
        node = await w.node("relay.example")
        await node.send("ann@our.dom", ["bob@there.example"])
        await node.until(Deferred)
        w.move(3600)

Addresses are those that nobody has (TEST-NET), and `World.connect` finds the local port behind.
"""

import random
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from ipaddress import ip_network
from pathlib import Path
from typing import Any, TypeVar

import anyio
from anyio.abc import ByteStream, TaskGroup, TaskStatus
from anyio.streams.buffered import BufferedByteReceiveStream

from smtpproto.cli.node import ensure_certificate
from smtpproto.client import Client, Connector, Tls, connect_tcp
from smtpproto.core.command import Mail, Rcpt
from smtpproto.core.envelope import Envelope
from smtpproto.core.path import Mailbox
from smtpproto.relay import (
    HostPort,
    Listener,
    Maildir,
    Passwords,
    Relay,
    Router,
    Schedule,
    SQLiteSpool,
)
from smtpproto.relay.filters import Filter
from smtpproto.relay.intake.policy import Policy
from smtpproto.relay.mailboxes.mailbox import MailboxPolicy, every_mailbox
from smtpproto.relay.mailboxes.quota import QuotaPolicy, no_quotas
from smtpproto.relay.relay import Kind
from smtpproto.relay.reports.story import Event
from smtpproto.relay.routing.table import Routes, no_routes
from smtpproto.relay.routing.transport import Host as MailHost
from smtpproto.relay.spool.seam import Entry
from smtpproto.relay.spool.sqlite import SQLiteIncoming
from smtpproto.resolve import Mx, NoSuchDomain, ResolveFailed
from smtpproto.result import Result

__all__ = [
    "DAY",
    "LOGIN",
    "MESSAGE",
    "START",
    "FaultySpool",
    "Host",
    "Node",
    "Wire",
    "World",
    "parsed",
    "world",
]

T = TypeVar("T")

START = 1_700_000_000.0
DAY = 86400.0
LOGIN = ("ann", "correct horse")
MESSAGE = b"From: ann@our.dom\r\nSubject: greetings\r\n\r\n.dots and words\r\n"
#: Nothing that is promised takes this long; a test that hangs ends here.
PATIENCE = 60


def parsed(octets: bytes) -> EmailMessage:
    message = BytesParser(policy=default).parsebytes(octets)
    assert isinstance(message, EmailMessage)
    return message


class Wire:
    """A client that says exactly what the test says."""

    def __init__(self, stream: ByteStream) -> None:
        self.stream = stream
        self._buffered = BufferedByteReceiveStream(stream)

    async def reply(self) -> str:
        """The next reply's last line; "" when the connection has ended."""
        return (await self.lines())[-1]

    async def lines(self) -> list[str]:
        """The next reply's lines, the codes of those before the last cut off."""
        lines: list[str] = []
        while True:
            try:
                line = (await self._buffered.receive_until(b"\r\n", 65536)).decode()
            except (anyio.IncompleteRead, anyio.BrokenResourceError):
                return [*lines, ""]
            if line[3:4] != "-":
                return [*lines, line]
            lines.append(line[4:])

    async def say(self, line: str | bytes) -> str:
        """Say a line and return the reply to it."""
        octets = line if isinstance(line, bytes) else line.encode()
        await self.stream.send(octets + b"\r\n")
        return await self.reply()

    async def hello(self, name: str = "client.example") -> None:
        assert (await self.reply()).startswith("220")
        assert (await self.say(f"EHLO {name}")).startswith("250")


class Host:
    """A mail server by script: `says` maps how a line begins to what it is answered.

    The longest beginning counts. "greeting" and "." have answers, too; the answer "" cuts the
    connection, and "hang" waits for `released`. With `lmtp` it is greeted by LHLO, and has an
    answer to the content for each recipient: ". <bob@our.dom>".
    """

    def __init__(
        self, name: str, says: dict[str, str], keywords: Sequence[str], *, lmtp: bool = False
    ) -> None:
        self.lmtp = lmtp
        self.says = says
        self.keywords = keywords
        self.name = name
        self.lines: list[str] = []
        self.contents: list[bytes] = []
        self.accepted: list[list[str]] = []
        self.released = anyio.Event()
        self.reached = anyio.Event()
        self.sessions = 0

    def answer(self, line: str) -> str | None:
        fitting = [key for key in self.says if line.upper().startswith(key.upper())]
        return self.says[max(fitting, key=len)] if fitting else None

    async def serve(self, stream: ByteStream) -> None:
        self.sessions += 1
        try:
            await self._talk(stream)
        except (anyio.IncompleteRead, anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass
        finally:
            await anyio.aclose_forcefully(stream)

    async def _reply(self, stream: ByteStream, line: str, usual: str) -> bool:
        """Answer; tell whether it was yes."""
        said = self.answer(line)
        if said == "hang":
            self.reached.set()
            await self.released.wait()
            said = None
        if said == "":
            raise anyio.ClosedResourceError
        text = usual if said is None else said
        await stream.send(text.encode() + b"\r\n")
        return text[0] in "23"

    async def _talk(self, stream: ByteStream) -> None:
        lines = BufferedByteReceiveStream(stream)
        await self._reply(stream, "greeting", f"220 {self.name} ESMTP")
        recipients: list[str] = []
        while True:
            line = (await lines.receive_until(b"\r\n", 65536)).decode()
            self.lines.append(line)
            verb = line[:4].upper()
            usual = "250 ok"
            if verb == ("LHLO" if self.lmtp else "EHLO"):
                usual = "\r\n".join(
                    [f"250-{self.name}", *(f"250-{word}" for word in self.keywords), "250 HELP"]
                )
            elif verb == "MAIL":
                recipients = []
            elif verb == "DATA":
                usual = "354 go on" if recipients else "554 5.5.1 for nobody?"
            said = await self._reply(stream, line, usual)
            if verb == "RCPT" and said:
                recipients.append(line)
            if verb == "DATA" and said:
                content = await lines.receive_until(b"\r\n.\r\n", 1 << 24) + b"\r\n"
                self.contents.append(content.replace(b"\r\n..", b"\r\n."))
                if self.lmtp:
                    each = [
                        rcpt
                        for rcpt in recipients
                        if await self._reply(stream, f". {rcpt[8:]}", "250 2.0.0 kept")
                    ]
                    self.accepted.append(each)
                elif await self._reply(stream, ".", "250 2.0.0 taken"):
                    self.accepted.append(recipients)
            if verb == "QUIT":
                return


class FaultySpool(SQLiteSpool):
    """A spool whose next calls of a name fail as `faults[name]` says; None: this one works."""

    faults: dict[str, list[Exception | None]]

    def fail(self, name: str) -> None:
        waiting = self.faults.get(name)
        if waiting and (fault := waiting.pop(0)) is not None:
            raise fault

    @asynccontextmanager
    async def receive(self) -> AsyncIterator[SQLiteIncoming]:
        self.fail("receive")
        async with super().receive() as incoming:
            commit = incoming.commit

            async def faulty(*args: Any, **kwargs: Any) -> None:
                self.fail("commit")
                await commit(*args, **kwargs)

            incoming.commit = faulty  # type: ignore[method-assign]  # the fault is the test's
            yield incoming

    async def settle(self, *args: Any, **kwargs: Any) -> list[str]:
        self.fail("settle")
        return await super().settle(*args, **kwargs)

    async def claim(self, now: float, limit: int, lease: float) -> list[Entry]:
        self.fail("claim")
        return await super().claim(now, limit, lease)


class FaultyMaildir(Maildir):
    """A Maildir that is as `trouble` says, for the mailboxes named there."""

    trouble: dict[str, BaseException]

    async def deliver(self, mailbox: Mailbox, content: Any) -> None:
        if (error := self.trouble.get(str(mailbox))) is not None:
            raise error
        await super().deliver(mailbox, content)

    async def deliver_once(self, mailbox: Mailbox, content: Any, *, key: str, again: bool) -> None:
        if (error := self.trouble.get(str(mailbox))) is not None:
            raise error
        await super().deliver_once(mailbox, content, key=key, again=again)


class Node:
    """One relay of ours, with its files under `directory`."""

    def __init__(self, world: "World", name: str, directory: Path) -> None:
        self.world = world
        self.name = name
        self.directory = directory
        self.events: list[Event] = []
        self.faults: dict[str, list[Exception | None]] = {}
        self.trouble: dict[str, BaseException] = {}
        self.broken: Exception | None = None
        self.ports: dict[Kind, int] = {}
        self.relay: Relay
        self.spool: FaultySpool
        self.ended = anyio.Event()
        self.scope = anyio.CancelScope()
        self._news = anyio.Event()

    # What it tells

    def tell(self, event: Event) -> None:
        self.events.append(event)
        self._news.set()
        self._news = anyio.Event()
        if self.broken is not None:
            raise self.broken

    def told(self, kind: type[T]) -> list[T]:
        return [event for event in self.events if isinstance(event, kind)]

    async def until(self, kind: type[T], count: int = 1) -> list[T]:
        """Wait until so many events of a kind have been told; return them."""
        while len(self.told(kind)) < count:
            await self._news.wait()
        return self.told(kind)

    # What it keeps

    def mail(self, address: str) -> list[bytes]:
        """What is in a mailbox, lines ended by LF as Maildir has them."""
        directory = self.relay.mailboxes.directory(Mailbox.parse(address))  # type: ignore[attr-defined]  # a Maildir
        return [file.read_bytes() for file in sorted(directory.glob("new/*"))]

    def files(self) -> list[Path]:
        return [path for path in (self.directory / "mail").rglob("*") if path.is_file()]

    async def queue(self) -> list[Entry]:
        return [entry async for entry in self.spool.entries()]

    # What it is asked

    @asynccontextmanager
    async def dial(self, kind: Kind = "smtp") -> AsyncIterator[Wire]:
        async with await connect_tcp("127.0.0.1", self.ports[kind]) as stream:
            yield Wire(stream)

    async def send(
        self,
        sender: str | None,
        recipients: Iterable[str],
        content: bytes = MESSAGE,
        *,
        kind: Kind = "smtp",
        login: tuple[str, str] | None = None,
    ) -> Result:
        async with Client(
            "127.0.0.1",
            self.ports[kind],
            tls=Tls.NONE,
            login=login,
            login_in_clear=True,
            helo_name="client.example",
        ) as client:
            return await client.deliver(Envelope(sender, list(recipients)), content)

    async def stop(self) -> None:
        """Gracefully."""
        self.relay.stop()
        await self.ended.wait()

    async def cancel(self) -> None:
        self.scope.cancel()
        await self.ended.wait()


class World:
    def __init__(self, directory: Path, tasks: TaskGroup) -> None:
        self.directory = directory
        self.tasks = tasks
        self.now = START
        self.nodes: list[Node] = []
        self.connected: list[str] = []  # hosts that were tried, by address or name
        self.mx_of: dict[str, list[Mx]] = {}
        self.addresses_of: dict[str, list[str]] = {}
        self.failing: set[str] = set()
        self.ports: dict[tuple[str, int], int] = {}
        self.sockets: dict[str, int] = {}  # ports again, by the paths of UNIX sockets
        self.random = random.Random(20)

    # Time

    def clock(self) -> float:
        return self.now

    def move(self, seconds: float) -> None:
        """Let so much wall time pass at once."""
        self.now += seconds
        for node in self.nodes:
            node.relay.dispatcher.wake()

    # Names and the way to them

    async def mx(self, domain: str) -> Sequence[Mx]:
        if domain in self.failing:
            raise ResolveFailed(domain)
        if domain not in self.mx_of:
            raise NoSuchDomain(domain)
        return self.mx_of[domain]

    async def addresses(self, host: str) -> Sequence[str]:
        if host not in self.addresses_of:
            raise NoSuchDomain(host)
        return self.addresses_of[host]

    async def connect(self, host: str, port: int) -> ByteStream:
        self.connected.append(host)
        there = self.ports.get((host, port))
        if there is None:
            raise ConnectionRefusedError(f"nobody at {host}:{port}")
        return await connect_tcp("127.0.0.1", there)

    def unix(self, path: str) -> Connector:
        """Lead to who listens on the UNIX socket at a path of this world."""

        async def connect(host: str, port: int) -> ByteStream:
            self.connected.append(path)
            if path not in self.sockets:
                raise FileNotFoundError(2, "No such file or directory", path)
            return await connect_tcp("127.0.0.1", self.sockets[path])

        return connect

    def dead(self, name: str, domain: str, preference: int = 10) -> str:
        """Give `domain` one more mail exchanger, at whose address nobody listens; return it."""
        address = f"192.0.2.{len(self.addresses_of) + 1}"
        self.addresses_of[name] = [address]
        self.mx_of.setdefault(domain, []).append(Mx(preference, name))
        return address

    def lead(self, domain: str, node: Node) -> None:
        """Let the mail for a domain go to a node."""
        self.ports[self.dead(node.name, domain), 25] = node.ports["smtp"]

    async def host(
        self,
        name: str,
        domain: str,
        says: dict[str, str] | None = None,
        *,
        preference: int = 10,
        keywords: Sequence[str] = ("8BITMIME", "PIPELINING", "SIZE 10000000"),
    ) -> Host:
        """Run a scripted mail exchanger for `domain`."""
        host = Host(name, says or {}, keywords)
        self.ports[self.dead(name, domain, preference), 25] = await self._listen(host)
        return host

    async def fixed(
        self,
        where: tuple[str, int] | str,
        says: dict[str, str] | None = None,
        *,
        lmtp: bool = False,
        keywords: Sequence[str] = ("8BITMIME", "PIPELINING"),
    ) -> Host:
        """Run a scripted host at a name and port, or at the path of a UNIX socket."""
        host = Host("store.example", says or {}, keywords, lmtp=lmtp)
        port = await self._listen(host)
        if isinstance(where, str):
            self.sockets[where] = port
        else:
            self.ports[where] = port
        return host

    async def _listen(self, host: Host) -> int:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
        self.tasks.start_soon(self._serve_host, listener, host)
        port: int = listener.extra(anyio.abc.SocketAttribute.local_port)
        return port

    async def _serve_host(self, listener: Any, host: Host) -> None:
        async with listener:
            await listener.serve(host.serve)

    # Relays

    async def node(
        self,
        name: str,
        local_domains: Sequence[str] = ("our.dom",),
        *,
        kinds: Sequence[Kind] = ("smtp",),
        networks: Sequence[str] = ("127.0.0.1/32",),
        smart_host: MailHost | HostPort | None = None,
        routes: Routes = no_routes,
        relay_domains: Sequence[str] = (),
        policy: MailboxPolicy = every_mailbox,
        who_may: Policy | None = None,
        quota: QuotaPolicy = no_quotas,
        schedule: Schedule = Schedule(first=600, factor=2, longest=4 * 3600, spread=0),  # noqa: B008
        tls: bool = False,
        filters: Sequence[Filter] = (),
        **settings: Any,
    ) -> Node:
        """Run a relay; other nodes reach it by its name (ports 25 and 587), as a smart host."""
        directory = self.directory / name
        node = Node(self, name, directory)

        def make(spool: FaultySpool) -> Relay:
            maildir = FaultyMaildir(
                directory / "mail",
                hostname=name,
                now=self.clock,
                random_bytes=self.random.randbytes,
                policy=policy,
                quota=quota,
            )
            maildir.trouble = node.trouble
            router = Router(
                local_domains=local_domains,
                smart_host=smart_host,
                resolver=self,
                shuffle=self.random.shuffle,
                hostname=name,
                relay_domains=relay_domains,
                routes=routes,
            )
            settings.setdefault("authenticator", Passwords(dict([LOGIN])))
            relay = Relay(
                hostname=name,
                spool=spool,
                mailboxes=maildir,
                router=router,
                networks=[ip_network(network) for network in networks],
                policy=who_may,
                tls=ensure_certificate(directory, [name]).server_context() if tls else None,
                schedule=schedule,
                connector=self.connect,
                unix=self.unix,
                clock=self.clock,
                random=self.random.random,
                observe=node.tell,
                **settings,
            )
            relay.dispatcher.poll = 0.05  # so that a visitor's retry is seen while we look
            return relay

        listeners = [Listener(kind, "127.0.0.1", 0, filters) for kind in kinds]
        await self.tasks.start(self._serve_node, node, make, listeners)
        ports = {"smtp": 25, "submission": 587, "submissions": 465}
        for kind, port in node.ports.items():
            self.ports[name, ports[kind]] = port
        self.nodes.append(node)
        return node

    async def _serve_node(
        self,
        node: Node,
        make: Callable[[FaultySpool], Relay],
        listeners: Sequence[Listener],
        *,
        task_status: TaskStatus[None],
    ) -> None:
        try:
            with node.scope:
                async with FaultySpool.open(
                    node.directory / "spool", clock=self.clock, random=self.random.randrange
                ) as spool:
                    assert isinstance(spool, FaultySpool)
                    node.spool = spool
                    spool.faults = node.faults
                    node.relay = make(spool)

                    async def run(*, task_status: TaskStatus[Any]) -> None:
                        await node.relay.run(listeners, task_status=task_status)

                    async with anyio.create_task_group() as tasks:
                        bound = await tasks.start(run)
                        for listener, (_, port) in zip(listeners, bound, strict=True):
                            node.ports[listener.kind] = port
                        task_status.started()
        finally:
            if node in self.nodes:
                self.nodes.remove(node)
            node.ended.set()

    async def put(self, node: Node, sender: str | None, *recipients: str, content: bytes) -> str:
        """Put a message into a node's spool, past its listeners; return its id."""
        async with node.spool.receive() as incoming:
            await incoming.write(content)
            rcpts = [Rcpt(recipient) for recipient in recipients]
            await incoming.commit(Mail(sender), rcpts, now=self.now, origin="test")
        node.relay.dispatcher.wake()
        return incoming.id

    def trusting(self, name: str) -> ssl.SSLContext:
        """A client's context that trusts one node's certificate."""
        certificate = ensure_certificate(self.directory / name, [name])
        return ssl.create_default_context(cafile=certificate.cert)


@asynccontextmanager
async def world(directory: Path) -> AsyncIterator[World]:
    """A world that ends with the block; what the test raises comes out as it is."""
    failure: BaseException | None = None
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            try:
                yield World(directory, tasks)
            except Exception as error:  # noqa: BLE001 - led around the group
                failure = error
            tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
