"""`smtpproto demo`: one message walks through three servers before your eyes, reports walk back.

Everything is real (sockets, TLS, spools, mailboxes) but the distances: all servers listen on
loopback, and the demo's own DNS and connector tell each where the others are.
"""

from __future__ import annotations

import email
import email.policy
import os
import random
import ssl
import tempfile
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from email.message import EmailMessage
from email.utils import localtime, make_msgid
from functools import partial
from ipaddress import ip_network
from itertools import pairwise
from pathlib import Path

import anyio
import click
from anyio.abc import ByteStream, TaskGroup, TaskStatus
from attrs import define, field
from rich.console import Console
from rich.panel import Panel
from rich.text import Text
from rich.tree import Tree

from smtpproto.client import Client, connect_tcp
from smtpproto.core.command import Mail, Rcpt
from smtpproto.core.envelope import Envelope
from smtpproto.core.path import Mailbox
from smtpproto.relay import (
    Access,
    HostPort,
    Listener,
    Maildir,
    Passwords,
    Relay,
    Router,
    Schedule,
    SQLiteSpool,
)
from smtpproto.relay.relay import Kind
from smtpproto.relay.reports.story import (
    Accepted,
    Bounced,
    Deferred,
    Delivered,
    Discarded,
    Event,
    Expanded,
    Failed,
    Held,
    Intervened,
    Judged,
    Refused,
    Reported,
)
from smtpproto.resolve import Mx, NoSuchDomain

from .console import out, safe
from .node import ensure_certificate
from .options import Failure, backend_option, run

__all__ = ["demo"]

#: Seconds the demo gives itself.
WITHIN = 50

OUT, MIDDLE, LAST = "out.sender.example", "relay.example", "mx.recipient.example"
SENDER, RECIPIENT, NOBODY = (
    "alice@sender.example",
    "bob@recipient.example",
    "nobody@recipient.example",
)
LOGIN = ("alice", "wonderland")
PROGRAM = "mail program"
IN_ASCII = str.maketrans({"│": "|", "●": "*", "✓": "+", "…": "~", "✗": "x", "→": "->"})
STYLES = {PROGRAM: "yellow", OUT: "cyan", MIDDLE: "magenta", LAST: "green"}


class DemoDns:
    """A resolver with all the names that there are in the demo, on addresses nobody has."""

    addresses_of: Mapping[str, str] = {OUT: "192.0.2.1", MIDDLE: "192.0.2.2", LAST: "192.0.2.3"}
    names: Mapping[str, str] = {address: name for name, address in addresses_of.items()}
    mx_of: Mapping[str, str] = {"sender.example": OUT, "recipient.example": LAST}

    async def mx(self, domain: str) -> Sequence[Mx]:
        if domain not in self.mx_of:
            raise NoSuchDomain(domain)
        return [Mx(10, self.mx_of[domain])]

    async def addresses(self, host: str) -> Sequence[str]:
        return [self.addresses_of[host]]


@define(eq=False)
class Demo:
    """Three servers and a mail program, on the way of one message."""

    console: Console
    directory: Path
    tasks: TaskGroup
    relays: list[Relay] = field(factory=list[Relay], init=False)
    ports: dict[tuple[str, str], int] = field(factory=dict[tuple[str, str], int], init=False)
    retried: bool = field(default=False, init=False)
    delivered: bool = field(default=False, init=False)
    reports: int = field(default=0, init=False)  # those in alice's mailbox
    news: anyio.Event = field(factory=anyio.Event, init=False)

    async def walk(self) -> None:
        """Show it all."""
        self.chapter("Two servers are up; the recipient's server is still down")
        await self.start(OUT, "sender.example", submission=True, smart_host=HostPort(MIDDLE))
        await self.start(MIDDLE, "relay.example", networks=["127.0.0.1/32"])

        self.chapter("A mail program submits a message: with TLS and a login, for two recipients")
        await self.submit()
        await self.until(lambda: self.retried)

        self.chapter("It is late, and its sender is told so (in life, after some hours)")
        await self.until(lambda: self.reports == 1)

        self.chapter("The recipient's server comes up; the relay tries again")
        await self.start(LAST, "recipient.example")
        await self.until(lambda: self.delivered and self.reports == 3)
        for relay in self.relays:
            relay.stop()
        self.ending()

    async def until(self, seen: Callable[[], bool]) -> None:
        while not seen():
            self.news = anyio.Event()
            await self.news.wait()

    # What is seen

    def say(self, who: str, text: str, style: str = "") -> None:
        """Print a line beside the name of who said it; on a screen, a long one is folded there."""
        width = max(40, self.console.width - 23) if self.console.is_terminal else 1000
        bar, text = " │ ", safe(text)
        if self.console.options.ascii_only:
            bar, text = bar.translate(IN_ASCII), text.translate(IN_ASCII)
        for number, part in enumerate(textwrap.wrap(text, width)):
            name = "" if number else who
            line = Text.assemble((f"{name:>20}", STYLES[who]), (bar, "dim"), (part, style))
            self.console.print(line, soft_wrap=True)

    def chapter(self, text: str) -> None:
        self.console.print()
        self.console.print(Text(text, style="bold"), soft_wrap=True)

    def line(self, who: str, line: str) -> None:
        self.say(who, line, "bold red" if line[:4] in ("S: 4", "S: 5") else "dim")

    def tell(self, who: str, event: Event) -> None:
        """Show what happens to a message at one server, and note what the demo waits for."""
        match event:
            case Accepted():
                to = ", ".join(map(str, event.forward_paths))
                self.say(who, f"● {event.id} in the spool, for {to}", "bold")
            case Delivered():
                self.say(who, f"✓ {event.id} {event.forward_path} → {event.where}", "bold green")
                if event.where.startswith("mailbox"):
                    self.delivered |= who == LAST
                    self.reports += who == OUT
            case Expanded():
                to = ", ".join(map(str, event.becomes))
                self.say(who, f"● {event.id} {event.forward_path} stands for {to}", "bold")
            case Deferred():
                again = f"{event.reply}; again in {event.wait:.0f} s"
                self.say(who, f"… {event.id} {event.forward_path}: {again}", "bold yellow")
                self.retried = True
            case Judged() | Refused() | Held() | Discarded() | Intervened():
                pass  # there are no filters, rules and operators here
            case Failed():
                self.say(who, f"✗ {event.id} {event.forward_path}: {event.reply}", "bold red")
            case Reported():
                to = str(event.reverse_path)
                self.say(who, f"● {event.report} in the spool, a report on it to {to}", "bold")
            case Bounced():
                self.say(who, f"● {event.id} came back from {event.recipient}", "bold")
        self.news.set()

    def ending(self) -> None:
        """Show the message as it arrived, the way it took, and the reports."""
        (message,) = self.mail_at(LAST, RECIPIENT)
        self.console.print()
        self.console.print(Panel(Text(message.as_string().rstrip()), title="bob's mailbox"))
        way = Tree(Text(f"{SENDER} (mail program)", style="bold"))
        branch = way
        for number, hop in enumerate(reversed(message.get_all("Received", []))):
            words = str(hop).partition(";")[0].split()
            clause = dict(pairwise(words))
            host = clause.get("by", "?")
            text = Text.assemble(
                (f"{host:<22}", STYLES.get(host, "")), f"with {clause.get('with', '?'):<8}"
            )
            text.append(f" id {clause.get('id', '?')}", "dim")
            branch = branch.add(text) if number else way.add(text)
        branch.add(Text(f"{RECIPIENT} (mailbox)", style="bold"))
        self.console.print()
        self.console.print(Text("The way it took, by its Received lines:", style="bold"))
        self.console.print(way)
        self.console.print()
        self.console.print(Text("What its sender was told, in this order:", style="bold"))
        for report in self.mail_at(OUT, SENDER):
            body = report.get_body(("plain",))
            told = str(body.get_content()).rstrip() if body is not None else ""
            self.console.print(Panel(Text(told), title=f"alice's mailbox: {report['Subject']}"))

    def mail_at(self, name: str, address: str) -> list[EmailMessage]:
        """Read the messages in a mailbox, in the order of their arrival."""
        local, _, domain = address.partition("@")
        new = self.directory / name / "mail" / domain / local / "new"
        files = sorted(new.iterdir(), key=lambda file: file.stat().st_mtime_ns)
        return [
            email.message_from_bytes(f.read_bytes(), policy=email.policy.default) for f in files
        ]

    # What is there

    async def submit(self) -> None:
        message = EmailMessage()
        message["From"], message["To"] = SENDER, f"{RECIPIENT}, {NOBODY}"
        message["Subject"] = "The long way round"
        message["Date"], message["Message-ID"] = localtime(), make_msgid(domain="sender.example")
        message.set_content("Dear Bob,\n\nthis has come through three servers.\n\nAlice\n")
        async with Client(
            "127.0.0.1",
            self.ports[OUT, "submission"],
            server_name=OUT,
            ssl_context=self.trusting(OUT),
            login=LOGIN,
            helo_name="laptop.sender.example",
            trace=lambda line: self.line(PROGRAM, line),
        ) as client:
            rcpts = [Rcpt(to, {"NOTIFY": "SUCCESS,FAILURE,DELAY"}) for to in (RECIPIENT, NOBODY)]
            await client.send(Envelope(Mail(SENDER), rcpts), message)

    async def start(
        self,
        name: str,
        domain: str,
        *,
        submission: bool = False,
        smart_host: HostPort | None = None,
        networks: Sequence[str] = (),
    ) -> None:
        """Start one server; its ports are where `connect` will find it."""
        kinds: list[Kind] = ["smtp", "submission"] if submission else ["smtp"]
        make = partial(self.relay, name, domain, smart_host, networks)
        bound = await self.tasks.start(self.serve, name, make, kinds)
        for kind, (_, port) in zip(kinds, bound, strict=True):
            self.ports[name, kind] = port
        self.say(name, f"is up; mail for {domain} ends here", "bold")

    async def serve(
        self,
        name: str,
        make: Callable[[SQLiteSpool], Relay],
        kinds: Sequence[Kind],
        *,
        task_status: TaskStatus[list[tuple[str, int]]],
    ) -> None:
        async with SQLiteSpool.open(self.directory / name) as spool:
            relay = make(spool)
            self.relays.append(relay)
            listeners = [Listener(kind, "127.0.0.1", 0) for kind in kinds]
            await relay.run(listeners, task_status=task_status)

    def relay(
        self,
        name: str,
        domain: str,
        smart_host: HostPort | None,
        networks: Sequence[str],
        spool: SQLiteSpool,
    ) -> Relay:
        access = Access()  # TLS where it is offered, as between any two servers
        if smart_host is not None:
            access = Access("required", ssl_context=self.trusting(smart_host.host))
        return Relay(
            hostname=name,
            spool=spool,
            mailboxes=Maildir(
                self.directory / name / "mail",
                hostname=name,
                now=time.time,
                random_bytes=os.urandom,
                policy=alice_and_bob,
            ),
            router=Router(
                local_domains=[domain],
                smart_host=smart_host,
                resolver=DemoDns(),
                shuffle=random.shuffle,
                hostname=name,
            ),
            access=access,
            networks=[ip_network(network) for network in networks],
            tls=ensure_certificate(self.directory / name, [name]).server_context(),
            authenticator=Passwords(dict([LOGIN])),
            schedule=Schedule(first=2, factor=1, longest=2, notice=1),
            dsn_to_all=True,  # so that the last one reports, and not the one before it
            idle=0,  # so that each dialogue ends where it is read
            connector=self.connect,
            observe=lambda event: self.tell(name, event),
            trace=lambda id, peer, line: self.trace(name, id, peer, line),
        )

    def trace(self, name: str, id: str, peer: str, line: str) -> None:
        # Else it is the other end of the same dialogue, or a report's, which is like the others.
        if id == "next hop" and peer != OUT:
            self.line(name, line)

    def trusting(self, name: str) -> ssl.SSLContext:
        """Return a client's context that trusts one server's certificate."""
        return ssl.create_default_context(
            cafile=ensure_certificate(self.directory / name, [name]).cert
        )

    async def connect(self, host: str, port: int) -> ByteStream:
        """Connect to the server that lives at a name or address of the demo."""
        name = DemoDns.names.get(host, host)
        there = self.ports.get((name, "smtp"))
        if there is None:
            raise ConnectionRefusedError(f"{name} is down")
        return await connect_tcp("127.0.0.1", there)


async def alice_and_bob(mailbox: Mailbox, directory: Path) -> bool:
    """Tell which mailboxes exist: two."""
    return mailbox.local_part.lower() in (b"alice", b"bob")


async def _demo() -> None:
    console = out()
    with tempfile.TemporaryDirectory(prefix="smtpproto-demo-") as directory:
        with anyio.move_on_after(WITHIN) as scope:
            async with anyio.create_task_group() as tasks:
                await Demo(console, Path(directory), tasks).walk()
        if scope.cancelled_caught:
            raise Failure(f"the demo did not come to its end within {WITHIN} seconds")
    console.print()
    console.print("Done: one message delivered, three reports returned.")


@click.command()
@backend_option
def demo(backend: str) -> None:
    """Watch one message walk through three servers.

    A mail program submits it with TLS and a login; the outgoing server relays it to a second, and
    that to the recipient's, which is down at first. Reports come back: that it is late, that it was
    delivered, and that one of its recipients does not exist. The dialogues in which they do are not
    shown. All of it happens on loopback, in temporary directories.
    """
    run(backend, _demo)
