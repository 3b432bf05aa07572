"""`smtpproto sink`: take all mail, keep none, and go wrong on request."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from multiprocessing.sharedctypes import SynchronizedArray
from typing import Any

import anyio
import click
from anyio.abc import TaskStatus
from attrs import define

from smtpproto.core.command import Mail, Rcpt
from smtpproto.core.connection import Limits
from smtpproto.core.envelope import Envelope
from smtpproto.core.reply import Reply
from smtpproto.core.sasl import Verify
from smtpproto.handler import ContentStream, Handler, Session
from smtpproto.handlers import Fault, Faulty
from smtpproto.relay.routing.route import HostPort
from smtpproto.server import At, Connections, Server
from smtpproto.workers import WorkerError
from smtpproto.workers import run as supervise

from .console import amount, per_second, say
from .faults import fault_options, faults
from .options import (
    Backend,
    Failure,
    backend_option,
    cannot_listen,
    listen,
    run,
    where,
)

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
@fault_options
@backend_option
def sink(
    *, address: HostPort, verbose: bool, workers: int, seed: int, backend: str, **wrong: Any
) -> None:
    """Accept all mail and discard it, or go wrong on purpose.

    Syntax is checked as any server does it, and nothing else: every sender, recipient and size
    is accepted, and on loopback every login. Ctrl-C or SIGTERM ends it; what it has counted is
    printed then.

    To test those who send, --soft, --hard, --close, --cut and --delay each name commands to do
    that at, always or with some odds: --soft RCPT,DATA:10% --delay .:2
    """
    drain = Drain(verbose)
    planned = faults(**wrong)
    if workers > 1:
        happened = drain_mail_together(
            address, drain, planned, seed=seed, workers=workers, backend=backend
        )
    else:
        faulty = Faulty(drain, planned, seed=seed)
        run(backend, partial(drain_mail, address, drain, faulty if planned else drain))
        happened = faulty.happened
    say(drain.line() + (f", {happened} faults" if planned else ""))


def server_for(drain: Drain, handler: Handler) -> Server:
    """Return a server that lets everybody in and sends nobody away."""
    return Server(
        handler,
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


def drain_mail_together(
    address: HostPort,
    drain: Drain,
    planned: Sequence[Fault],
    *,
    seed: int,
    workers: int,
    backend: str,
) -> int:
    """Do as `drain_mail` in so many processes, and count in `drain` what all of them took.

    Returns how many faults have happened. Each of the processes has them for itself.
    """
    totals = multiprocessing.get_context("spawn").Array("d", 7)
    try:
        supervise(
            partial(counting, drain.verbose, tuple(planned), seed, totals),
            workers,
            [At(address.host or None, address.port)],
            ready=lambda bound: say_listening(address, bound[0]),
            **Backend(backend).options(),
        )
    except OSError as error:
        raise cannot_listen(where(address), error) from None
    except WorkerError as error:
        raise Failure(str(error)) from None
    *counters, happened = map(int, totals[:5])
    drain.sessions, drain.messages, drain.recipients, drain.octets = counters
    drain.first, drain.last = totals[5:]
    return happened


@asynccontextmanager
async def counting(
    verbose: bool,
    planned: Sequence[Fault],
    seed: int,
    totals: SynchronizedArray[float],
    number: int,
) -> AsyncGenerator[Server, None]:
    """Give a worker's server; at its end, add what it took to the totals of all."""
    drain = Drain(verbose)
    faulty = Faulty(drain, planned, seed=seed)
    yield server_for(drain, faulty if planned else drain)
    mine = drain.sessions, drain.messages, drain.recipients, drain.octets, faulty.happened
    with totals.get_lock():
        totals[:5] = [of_all + one for of_all, one in zip(totals[:5], mine, strict=True)]
        totals[5] = min(filter(None, (totals[5], drain.first)), default=0.0)
        totals[6] = max(totals[6], drain.last)


async def drain_mail(address: HostPort, drain: Drain, handler: Handler) -> None:
    """Listen until SIGINT or SIGTERM; a second one does not wait for sessions to end."""
    server = server_for(drain, handler)
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with anyio.create_task_group() as tasks:

            async def serve(*, task_status: TaskStatus[tuple[str, int]]) -> None:
                await server.serve(address.host or None, address.port, task_status=task_status)
                tasks.cancel_scope.cancel()

            try:
                host, port = await tasks.start(serve)
            except OSError as error:
                raise cannot_listen(where(address), error) from None
            say_listening(address, (host, port))
            async for _ in signals:
                if server.stopping.is_set():
                    tasks.cancel_scope.cancel()
                server.stop()
                if server.dialogues:
                    say("stopping; once more does not wait for sessions")
