"""`smtpproto serve`: a working mail node, from nothing."""

from __future__ import annotations

import gc
import logging
import shlex
import signal
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import click
from anyio import to_thread
from anyio.abc import TaskGroup, TaskStatus
from attrs import define, evolve

from smtpproto.relay import (
    AccountFile,
    HostPort,
    Listener,
    Relay,
    SQLiteSpool,
)
from smtpproto.relay.relay import Kind
from smtpproto.relay.reports.story import Event, Observer, harmless
from smtpproto.relay.reports.story_file import StoryFile
from smtpproto.relay.spool.seam import SpoolUnavailable
from smtpproto.stream import causes
from smtpproto.wire import listen_tcp

from .assembly import Outside, accounts_of, read_outside, relay_of
from .config import LOGS, STORY, ConfigError, ServeSettings, build, load
from .daemon import become, notify
from .filters import open_filters
from .manual import with_fixed
from .node import (
    Certificate,
    Login,
    NodeError,
    ensure_certificate,
    ensure_login,
)
from .options import (
    DATA,
    BadInput,
    Failure,
    Value,
    backend_option,
    listen,
    run,
    server,
    where,
)
from .screen import show
from .telling import Teller
from .values import domain, network
from .words import explain

if TYPE_CHECKING:
    from smtpproto.relay.metrics import Metrics

__all__ = ["serve"]

log = logging.getLogger(__name__)

#: Objects that come before what is garbage among them is looked for; Python's own is 700.
GARBAGE = 10_000


@click.command()
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Read settings from this TOML file; options given here override it.",
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

    def settings() -> ServeSettings:
        return build(load(config) if config else {}, given)

    try:
        chosen = settings()
    except ConfigError as error:
        raise BadInput(str(error)) from None
    teller = Teller(chosen.log == "json")
    teller.listen()
    run(backend, partial(_serve, chosen, backend, teller, settings if config else None))


async def _serve(
    chosen: ServeSettings,
    backend: str,
    teller: Teller,
    settings: Callable[[], ServeSettings] | None,
) -> None:
    listeners = _listeners(chosen)
    async with AsyncExitStack() as stack:
        if chosen.user is not None:
            listeners = [await _bound(each, stack) for each in listeners]
            become(chosen.user, chosen.group)
        await _serve_at(listeners, chosen, backend, teller, settings)


async def _bound(listener: Listener, stack: AsyncExitStack) -> Listener:
    try:
        bound = await listen_tcp(listener.host, listener.port)
    except OSError as error:
        at = where(HostPort(listener.host or "", listener.port))
        raise Failure(f"cannot listen on {at}: {explain(error)}") from None
    stack.push_async_callback(bound.aclose)
    return evolve(listener, bound=bound)


async def _serve_at(
    listeners: Sequence[Listener],
    chosen: ServeSettings,
    backend: str,
    teller: Teller,
    settings: Callable[[], ServeSettings] | None,
) -> None:
    try:
        outside = await to_thread.run_sync(read_outside, chosen)
        names = [chosen.hostname, *chosen.local_domains]
        certificate = await to_thread.run_sync(ensure_certificate, chosen.data, names)
        async with SQLiteSpool.open(chosen.data / "spool") as spool, AsyncExitStack() as opened:
            story = StoryFile(chosen.data / STORY, limit=chosen.story_size)
            observers = [teller.event, *([story.observe] if chosen.story_size else [])]
            counts = None if chosen.metrics is None else _metrics()
            if counts is not None:
                observers.append(counts.observe)
            node = _Node(
                chosen,
                spool,
                certificate,
                outside,
                teller,
                observe=partial(_observe, [harmless(each) for each in observers]),
                settings=settings,
                opened=opened,
            )
            await _run(node, listeners, backend=backend, story=story, counts=counts)
    except (SpoolUnavailable, NodeError) as error:
        raise Failure(str(error)) from None
    except OSError as error:
        advice = ""
        if isinstance(error, PermissionError) and chosen.user is not None:
            folder = shlex.quote(str(chosen.data))
            advice = f"\nmake it his: install -d -m 700 -o {shlex.quote(chosen.user)} {folder}"
        why = f"{error.strerror or error}{advice}"
        raise Failure(f"cannot keep data in {chosen.data}: {why}") from None


def _observe(observers: Sequence[Observer], event: Event) -> None:
    for observe in observers:
        observe(event)


@define
class _Node:
    """What a node runs by, and how it is made anew of settings that have changed."""

    chosen: ServeSettings
    spool: SQLiteSpool
    certificate: Certificate
    outside: Outside
    teller: Teller
    observe: Observer
    #: Reads them again; None: there is no file.
    settings: Callable[[], ServeSettings] | None
    #: What filters remember by; that of old ones stays open, for sessions that began with them.
    opened: AsyncExitStack

    async def guarded(self, listeners: Sequence[Listener]) -> list[Listener]:
        """Give each its filters."""
        chosen = self.chosen
        filters = await self.opened.enter_async_context(
            open_filters(chosen.filters, chosen.limits, hostname=chosen.hostname, data=chosen.data)
        )
        return [evolve(each, filters=filters.get(each.kind, ())) for each in listeners]

    async def relay(self, port: int) -> Relay:
        """Make the relay; `port` is that of submission."""
        # Not before the spool is ours: a node that runs on it has its own address in the login.
        login = await _login(self.chosen, port)
        accounts = await to_thread.run_sync(accounts_of, self.chosen)
        relay = relay_of(
            self.chosen,
            self.spool,
            self.certificate,
            self.outside,
            login=login,
            accounts=accounts,
            observe=self.observe,
        )
        if accounts is not None:
            accounts.changed = relay.forget
        return relay

    async def reload(self, running: Relay, port: int) -> None:
        """Read settings and certificates again; where they are of no use, the old ones stay."""
        renewed = await to_thread.run_sync(running.reload)
        if self.settings is None:
            if renewed:
                self.teller.note("reloaded", "the certificate was read again")
            return
        try:
            told = await to_thread.run_sync(self.settings)
            fresh, kept = with_fixed(told, self.chosen)
            outside = await to_thread.run_sync(read_outside, fresh, self.outside)
            node = evolve(self, chosen=fresh, outside=outside)
            relay = await node.relay(port)
            listeners = await node.guarded(_listeners(fresh))
        except (ConfigError, click.ClickException, NodeError, OSError) as error:
            why = error.format_message() if isinstance(error, click.ClickException) else error
            log.error("the old settings stay: %s", why)
            return
        running.adopt(relay, listeners)
        if isinstance(relay.authenticator, AccountFile):
            relay.authenticator.changed = running.forget
        self.chosen, self.outside = fresh, outside
        what = "settings and certificate were" if renewed else "the settings were"
        more = f"; {', '.join(kept)}: only after a restart" if kept else ""
        self.teller.note("reloaded", f"{what} read again{more}", restart=kept)


def _metrics() -> Metrics:
    if any(find_spec(needed) is None for needed in ("prometheus_client", "h11")):
        raise Failure("metrics needs what is not installed: pip install 'smtpproto[metrics]'")
    from smtpproto.relay.metrics import Metrics  # noqa: PLC0415 - an extra

    return Metrics()


async def _watch(tasks: TaskGroup, node: _Node, relay: Relay, counts: Metrics) -> str:
    """Begin to answer over HTTP; where."""
    from .monitor import Monitor  # noqa: PLC0415 - an extra

    at = node.chosen.metrics
    assert at is not None
    monitor = Monitor(relay, node.spool, counts)
    try:
        port = await tasks.start(monitor.serve, at.host or None, at.port)
    except OSError as error:
        raise Failure(f"cannot listen on {where(at)}: {explain(error)}") from None
    return where(HostPort(at.host, port))


async def _run(
    node: _Node,
    listeners: Sequence[Listener],
    *,
    backend: str,
    story: StoryFile,
    counts: Metrics | None,
) -> None:
    """Run until SIGINT or SIGTERM, and drain; a second signal does not wait for that.

    SIGHUP has it read its settings and its certificate again.
    """
    chosen, teller = node.chosen, node.teller
    listeners = await node.guarded(listeners)
    relay = await node.relay(chosen.submission.port)
    hangup = getattr(signal, "SIGHUP", signal.SIGTERM)  # there is none on Windows
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, hangup) as signals:
        async with anyio.create_task_group() as tasks:

            async def run_relay(*, task_status: TaskStatus[list[tuple[str, int]]]) -> None:
                await relay.run(listeners, task_status=task_status)
                tasks.cancel_scope.cancel()

            tasks.start_soon(story.run)
            tasks.start_soon(teller.run)
            watched = None if counts is None else await _watch(tasks, node, relay, counts)
            try:
                bound = await tasks.start(run_relay)
            except* OSError as group:
                error = next(e for e in causes(group) if isinstance(e, OSError))
                raise Failure(f"cannot listen on {error.filename}: {explain(error)}") from None
            places: dict[Kind, HostPort] = {
                listener.kind: HostPort(listener.host or "", port)
                for listener, (_, port) in zip(listeners, bound, strict=True)
            }
            port = places["submission"].port
            login = await _login(chosen, port)
            if teller.as_json:
                told: dict[str, str] = {kind: where(place) for kind, place in places.items()}
                told |= {"metrics": watched} if watched else {}
                teller.note("ready", "ready", hostname=chosen.hostname, listening=told)
            else:
                show(
                    chosen,
                    places=places,
                    login=login,
                    certificate=node.certificate,
                    backend=backend,
                    watched=watched,
                )
            # What there is now stays: nobody has to look through it for what does not.
            gc.collect()
            gc.freeze()
            gc.set_threshold(GARBAGE)
            notify("READY=1")
            stopping = False
            async for number in signals:
                if number == hangup != signal.SIGTERM:
                    await node.reload(relay, port)
                    continue
                if stopping:
                    tasks.cancel_scope.cancel()
                    return
                stopping = True
                notify("STOPPING=1")
                teller.note(
                    "stopping", "stopping: what is under way may finish (once more: at once)"
                )
                relay.stop()


def _listeners(chosen: ServeSettings) -> list[Listener]:
    wanted: dict[Kind, HostPort] = {"smtp": chosen.listen, "submission": chosen.submission}
    if chosen.submissions is not None:
        wanted["submissions"] = chosen.submissions
    return [Listener(kind, at.host or None, at.port) for kind, at in wanted.items()]


async def _login(chosen: ServeSettings, port: int) -> Login | None:
    """Make sure of the node's own login, where there are no accounts."""
    if chosen.accounts is not None:
        return None
    # A mail program needs an address to connect to, and "all of them" is none.
    host = chosen.submission.host or chosen.hostname
    return await to_thread.run_sync(ensure_login, chosen.data, host, port)
