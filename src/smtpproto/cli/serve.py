"""`smtpproto serve`: a working mail node, from nothing."""

from __future__ import annotations

import logging
import signal
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import click
from anyio import to_thread
from anyio.abc import SocketAttribute, SocketStream, TaskStatus
from anyio.streams.stapled import MultiListener
from attrs import evolve, frozen

from smtpproto.relay import HostPort
from smtpproto.relay.relay import Kind
from smtpproto.server import At
from smtpproto.stream import causes
from smtpproto.worker import Bound
from smtpproto.workers import Crew, Sockets, WorkerError

from .assembly import read_outside
from .config import LOGS, MOST_WORKERS, ConfigError, ServeSettings
from .console import complain
from .daemon import become, notify
from .options import (
    DATA,
    Backend,
    BadInput,
    Failure,
    Value,
    backend_option,
    cannot_listen,
    listen,
    run,
    server,
    where,
)
from .running import (
    Node,
    Source,
    certificate_of,
    explained,
    login_of,
    metrics_installed,
    open_node,
    places_of,
)
from .screen import show
from .shares import Share, holds_mail, spools_in
from .telling import Teller, Turns
from .together import Together
from .values import domain, network

if TYPE_CHECKING:
    from .monitor import Watched

__all__ = ["serve"]

log = logging.getLogger(__name__)


@click.command()
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Read settings from this TOML file, of which `smtpproto config show` has all that there "
    "are; options given here override it.",
)
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help=f"Where mail, spool, login and certificate are kept. [default: {DATA}]",
)
@click.option(
    "--listen",
    type=listen,
    metavar="HOST:PORT",
    help="SMTP, for other servers. [default: 127.0.0.1:2525]",
)
@click.option(
    "--submission",
    type=listen,
    metavar="HOST:PORT",
    help="Submission, for mail programs. [default: 127.0.0.1:2587]",
)
@click.option(
    "--submissions",
    type=listen,
    metavar="HOST:PORT",
    help="The same, with TLS from the first octet. [default: nowhere]",
)
@click.option(
    "--accounts",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Who may log in, as `smtpproto account` writes it. [default: a login of its own]",
)
@click.option(
    "--local-domain",
    "local_domains",
    type=Value("NAME", domain),
    multiple=True,
    metavar="NAME",
    help="Mail for this domain ends here; may be repeated. [default: localhost]",
)
@click.option(
    "--smart-host",
    type=server(587),
    metavar="HOST:PORT",
    help="Hand all other mail to this server, instead of asking the DNS.",
)
@click.option(
    "--relay-from",
    type=Value("CIDR", network),
    multiple=True,
    metavar="CIDR",
    help="Relay for clients in this network without a login; may be repeated. [default: nobody]",
)
@click.option(
    "--workers",
    type=click.IntRange(1, MOST_WORKERS),
    metavar="N",
    help="Take mail and deliver it in so many processes. [default: 1]",
)
@click.option(
    "--log",
    type=click.Choice(LOGS),
    help="How what happens is told: in words, or as a JSON object a line. [default: people]",
)
@backend_option
def serve(*, config: Path | None, backend: str, **given: Any) -> None:
    """Run a mail node.

    Without any option it works at once: mail for anybody@localhost arrives in Maildirs, and the
    screen says what to enter in a mail program. Ctrl-C or SIGTERM lets what is under way finish,
    and exits with 0. SIGHUP reads the file and the certificate again, without a restart.
    """

    source = Source(config, given)
    try:
        chosen = source.read()
    except ConfigError as error:
        raise BadInput(str(error)) from None
    teller = Teller(chosen.log == "json")
    teller.listen()
    run(backend, partial(_serve, chosen, source, backend, teller))


async def _serve(chosen: ServeSettings, source: Source, backend: str, teller: Teller) -> None:
    async with AsyncExitStack() as stack:
        # All that only root may bind, before there is no root.
        watch = None if chosen.metrics is None else await _watch_at(chosen.metrics, stack)
        places = places_of(chosen)
        several = chosen.workers > 1 or await to_thread.run_sync(_are_more, chosen.data)
        sockets: Sockets | None = None
        if several:
            try:
                sockets = await Sockets.bind([*places.values()], chosen.workers)
            except OSError as error:
                raise cannot_listen(str(error.filename), error) from None
            stack.callback(sockets.close)
        elif chosen.user is not None:
            places = {kind: await _bound(at, stack) for kind, at in places.items()}
        if chosen.user is not None:
            become(chosen.user, chosen.group)
        begun = _Begun(chosen, backend, teller, watch)
        if sockets is None:
            await _serve_alone(begun, source, [*places.values()])
        else:
            await _serve_together(begun, source, sockets)


def _are_more(data: Path) -> bool:
    """Tell whether there are spools beside the one of the first process."""
    return any(share.number for share in spools_in(data))


async def _bound(place: At, stack: AsyncExitStack) -> At:
    try:
        bound = await place.listen()
    except OSError as error:
        raise cannot_listen(str(error.filename), error) from None
    stack.push_async_callback(bound.aclose)
    return evolve(place, bound=bound)


@frozen
class _Watch:
    """Where the node is asked how it is."""

    bound: MultiListener[SocketStream]
    at: str

    async def answer(self, watched: Watched) -> None:
        from .monitor import Monitor  # noqa: PLC0415 - an extra

        await Monitor(watched).serve(self.bound)


async def _watch_at(at: HostPort, stack: AsyncExitStack) -> _Watch:
    metrics_installed()
    try:
        bound = await anyio.create_tcp_listener(local_host=at.host or None, local_port=at.port)
    except OSError as error:
        raise cannot_listen(where(at), error) from None
    stack.push_async_callback(bound.aclose)
    port: int = bound.extra(SocketAttribute.local_port)
    return _Watch(bound, where(HostPort(at.host, port)))


@frozen
class _Begun:
    """A node that begins, and what it says when it is ready, and when it ends."""

    chosen: ServeSettings
    backend: str
    teller: Teller
    watch: _Watch | None

    def ready(self, bound: Bound) -> None:
        """Say where it listens. Blocks a little; nobody is served before."""
        chosen, watched = self.chosen, self.watch.at if self.watch else None
        places: dict[Kind, HostPort] = {
            kind: HostPort(at.host or "", port)
            for (kind, at), (_, port) in zip(places_of(chosen).items(), bound, strict=True)
        }
        login, certificate = login_of(chosen, places["submission"].port), certificate_of(chosen)
        if self.teller.as_json:
            told: dict[str, str] = {kind: where(place) for kind, place in places.items()}
            told |= {"metrics": watched} if watched else {}
            self.teller.note("ready", "ready", hostname=chosen.hostname, listening=told)
        else:
            show(
                chosen,
                places=places,
                login=login,
                certificate=certificate,
                backend=self.backend,
                watched=watched,
            )
        notify("READY=1")

    def stopping(self) -> None:
        notify("STOPPING=1")
        self.teller.note("stopping", "stopping: what is under way may finish (once more: at once)")


async def _serve_alone(begun: _Begun, source: Source, places: Sequence[At]) -> None:
    """Run until SIGINT or SIGTERM, and drain; a second signal does not wait for that.

    SIGHUP has it read its settings and its certificate again.
    """
    hangup = getattr(signal, "SIGHUP", signal.SIGTERM)  # there is none on Windows
    async with open_node(begun.chosen, source, begun.teller) as node:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, hangup) as signals:
            async with anyio.create_task_group() as tasks:

                async def serve(*, task_status: TaskStatus[Bound]) -> None:
                    await node.serve_at(places, task_status=task_status)
                    tasks.cancel_scope.cancel()

                if begun.watch is not None:
                    tasks.start_soon(begun.watch.answer, node)
                try:
                    bound = await tasks.start(serve)
                except* OSError as group:
                    error = next(e for e in causes(group) if isinstance(e, OSError))
                    raise cannot_listen(str(error.filename), error) from None
                await to_thread.run_sync(begun.ready, bound)
                stopping = False
                async for number in signals:
                    if number == hangup != signal.SIGTERM:
                        await node.reload()
                        continue
                    if stopping:
                        tasks.cancel_scope.cancel()
                        return
                    stopping = True
                    begun.stopping()
                    node.stop()


async def _serve_together(begun: _Begun, source: Source, sockets: Sockets) -> None:
    """Do the same in as many processes as there are sockets, and one for each spool with mail."""
    chosen = begun.chosen
    with explained(chosen):
        outside = await to_thread.run_sync(read_outside, chosen)
        # What is wrong with it is the same for all of them, and is said once.
        certificate = await to_thread.run_sync(certificate_of, chosen)
        await to_thread.run_sync(certificate.server_context)
        begun.teller.turns = Turns(chosen.data)
        left = [
            share.number
            for share in await to_thread.run_sync(spools_in, chosen.data)
            if share.number >= len(sockets) and await holds_mail(share.spool(chosen.data))
        ]
    for number in left:
        log.warning(
            "there is mail in %s, of a process that is no more; it is delivered",
            Share(number).spool(chosen.data),
        )
    make = partial(_node_of, chosen, source, outside.smart_login, [*range(len(sockets)), *left])
    options = Backend(begun.backend).options()
    crew = Crew(make, sockets, **options, more=len(left), stopping=begun.stopping)
    async with anyio.create_task_group() as tasks:
        if begun.watch is not None:
            tasks.start_soon(begun.watch.answer, Together(crew))
        try:
            await crew.work(begun.ready)
        except WorkerError as error:
            raise Failure(str(error)) from None
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def _node_of(
    chosen: ServeSettings,
    source: Source,
    login: tuple[str, str] | None,
    numbers: Sequence[int],
    worker: int,
) -> AsyncGenerator[Node]:
    """Give the node of one process, there."""
    teller = Teller(chosen.log == "json", Turns(chosen.data))
    teller.listen(f"worker {worker + 1}")
    share = Share(numbers[worker], chosen.workers)
    try:
        async with open_node(chosen, source, teller, share=share, login=login) as node:
            yield node
    except Exception as group:
        for error in causes(group):
            if isinstance(error, click.ClickException):
                complain(error, "smtpproto")
                raise SystemExit(error.exit_code) from None
        raise
