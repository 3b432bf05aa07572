"""`smtpproto sink`: take all mail, keep none."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from multiprocessing.sharedctypes import SynchronizedArray

import anyio
import click
from anyio.abc import TaskStatus
from attrs import define

from smtpproto.core.command import Mail, Rcpt
from smtpproto.core.connection import Limits
from smtpproto.core.envelope import Envelope
from smtpproto.core.reply import Reply
from smtpproto.core.sasl import Verify
from smtpproto.handler import ContentStream, Session
from smtpproto.relay.route import HostPort
from smtpproto.server import At, Connections, Server
from smtpproto.workers import WorkerError
from smtpproto.workers import run as supervise

from .console import amount, per_second, say
from .options import Failure, backend_option, listen, run, where
from .words import explain

__all__ = ["Drain", "drain_mail", "sink"]


@define
class Drain:
    """A handler that reads everything and counts it, and an authenticator that lets all in."""

    verbose: bool = False
    sessions: int = 0
    messages: int = 0
    recipients: int = 0
    octets: int = 0
    #: When the first message began and the last ended, by a monotonic clock.
    first: float = 0.0
    last: float = 0.0

    async def connect(self, session: Session) -> Reply | None:
        """Count a session."""
        self.sessions += 1
        return None

    async def verify(self, session: Session, question: Verify) -> bool:
        """Believe anybody."""
        return True

    async def mail(self, session: Session, command: Mail) -> Reply | None:
        """Take any sender."""
        self.first = self.first or time.monotonic()
        return None

    async def rcpt(self, session: Session, command: Rcpt) -> Reply | None:
        """Take any recipient."""
        return None

    async def content(
        self, session: Session, envelope: Envelope, content: ContentStream
    ) -> Reply | None:
        """Read it to its end."""
        octets = 0
        async for chunk in content:
            octets += len(chunk)
        self.messages += 1
        self.recipients += len(envelope.rcpts)
        self.octets += octets
        self.last = time.monotonic()
        if self.verbose:
            to = ", ".join(map(str, envelope.forward_paths))
            say(f"{session.id:>4}  {envelope.reverse_path} -> {to}  {amount(octets)}")
        return None

    def line(self) -> str:
        """Return the counters as one line."""
        took = self.last - self.first
        rate = f", {per_second(self.messages, took)}" if self.messages > 1 else ""
        return (
            f"{self.sessions} sessions, {self.messages} messages, "
            f"{self.recipients} recipients, {amount(self.octets)}{rate}"
        )


@click.command()
@click.option(
    "--listen",
    "address",
    type=listen,
    default="127.0.0.1:2525",
    show_default=True,
    metavar="HOST:PORT",
    help="Where to listen; :PORT for all addresses, port 0 for any that is free.",
)
@click.option("-v", "--verbose", is_flag=True, help="Print a line for each message.")
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="Have so many processes share the connections.",
)
@backend_option
def sink(*, address: HostPort, verbose: bool, workers: int, backend: str) -> None:
    """Accept all mail and discard it.

    Syntax is checked as any server does it, and nothing else: every sender, recipient and size
    is accepted, and on loopback every login. Ctrl-C or SIGTERM ends it; what it has counted is
    printed then.
    """
    drain = Drain(verbose)
    if workers > 1:
        drain_mail_together(address, drain, workers, backend)
    else:
        run(backend, partial(drain_mail, address, drain))
    say(drain.line())


def server_for(drain: Drain) -> Server:
    """Return a server that lets everybody in and sends nobody away."""
    return Server(
        drain,
        authenticator=drain,
        plaintext_auth="loopback",
        limits=Limits(message=None, recipients=100_000),
        connections=Connections(100_000, None),
        max_commands=None,
        max_idle_commands=None,
    )


def say_listening(wanted: HostPort, bound: tuple[str, int]) -> None:
    """Say where we listen now."""
    here = HostPort(bound[0] if wanted.host else "", bound[1])
    say(f"listening on {where(here)}, keeping nothing; Ctrl-C ends")


def drain_mail_together(address: HostPort, drain: Drain, workers: int, backend: str) -> None:
    """Do as `drain_mail` in so many processes, and count in `drain` what all of them took."""
    totals = multiprocessing.get_context("spawn").Array("d", 6)
    try:
        supervise(
            partial(counting, drain.verbose, totals),
            workers,
            [At(address.host or None, address.port)],
            backend="trio" if backend == "trio" else "asyncio",
            ready=lambda bound: say_listening(address, bound[0]),
        )
    except OSError as error:
        raise Failure(f"cannot listen on {where(address)}: {explain(error)}") from None
    except WorkerError as error:
        raise Failure(str(error)) from None
    drain.sessions, drain.messages, drain.recipients, drain.octets = map(int, totals[:4])
    drain.first, drain.last = totals[4:]


@asynccontextmanager
async def counting(verbose: bool, totals: SynchronizedArray[float]) -> AsyncIterator[Server]:
    """Give a worker's server; at its end, add what it took to the totals of all."""
    drain = Drain(verbose)
    yield server_for(drain)
    with totals.get_lock():
        mine = drain.sessions, drain.messages, drain.recipients, drain.octets
        totals[:4] = [of_all + one for of_all, one in zip(totals[:4], mine, strict=True)]
        totals[4] = min(filter(None, (totals[4], drain.first)), default=0.0)
        totals[5] = max(totals[5], drain.last)


async def drain_mail(address: HostPort, drain: Drain) -> None:
    """Listen until SIGINT or SIGTERM; a second one does not wait for sessions to end."""
    server = server_for(drain)
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with anyio.create_task_group() as tasks:

            async def serve(*, task_status: TaskStatus[tuple[str, int]]) -> None:
                await server.serve(address.host or None, address.port, task_status=task_status)
                tasks.cancel_scope.cancel()

            try:
                host, port = await tasks.start(serve)
            except OSError as error:
                raise Failure(f"cannot listen on {where(address)}: {explain(error)}") from None
            say_listening(address, (host, port))
            async for _ in signals:
                if server.stopping.is_set():
                    tasks.cancel_scope.cancel()
                server.stop()
                if server.dialogues:
                    say("stopping; once more does not wait for sessions")
