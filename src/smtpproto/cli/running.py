"""A node as it runs in one process: its spool and its relay, made anew when settings change."""

from __future__ import annotations

import gc
import logging
import shlex
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import click
from anyio import to_thread
from anyio.abc import TaskStatus
from attrs import define, evolve, field, frozen

from smtpproto.relay import AccountFile, Listener, Relay, SQLiteSpool
from smtpproto.relay.relay import Kind
from smtpproto.relay.reports.story import Event, Observer, harmless
from smtpproto.relay.reports.story_file import StoryFile
from smtpproto.relay.spool.seam import SpoolUnavailable
from smtpproto.server import At
from smtpproto.worker import Bound

from .assembly import Outside, accounts_of, read_outside, relay_of
from .config import ConfigError, ServeSettings, build, load
from .filters import open_filters
from .manual import with_fixed
from .node import Certificate, Login, NodeError, ensure_certificate, ensure_login
from .options import Failure
from .shares import Share
from .telling import Teller

if TYPE_CHECKING:
    from smtpproto.relay.metrics import Metrics

__all__ = [
    "Node",
    "NotNowError",
    "Source",
    "certificate_of",
    "explained",
    "login_of",
    "metrics_installed",
    "open_node",
    "places_of",
]

log = logging.getLogger(__name__)

#: Objects that come before what is garbage among them is looked for; Python's own is 700.
GARBAGE = 10_000


class NotNowError(Exception):
    """Something cannot be told of a node, or is not so; the message says why."""


@frozen
class Source:
    """Where settings come from: a file, if there is one, and what is `given` besides."""

    config: Path | None
    given: Mapping[str, Any]

    def read(self) -> ServeSettings:
        """Read them. ConfigError. Blocks."""
        return build(load(self.config) if self.config else {}, self.given)


def places_of(chosen: ServeSettings) -> dict[Kind, At]:
    """Return where mail is to come in."""
    wanted: dict[Kind, At] = {}
    wanted["smtp"] = At(chosen.listen.host or None, chosen.listen.port)
    wanted["submission"] = At(chosen.submission.host or None, chosen.submission.port)
    if (at := chosen.submissions) is not None:
        wanted["submissions"] = At(at.host or None, at.port)
    return wanted


def login_of(chosen: ServeSettings, port: int) -> Login | None:
    """Make sure of the node's own login, where there are no accounts. Blocks."""
    if chosen.accounts is not None:
        return None
    # A mail program needs an address to connect to, and "all of them" is none.
    return ensure_login(chosen.data, chosen.submission.host or chosen.hostname, port)


def certificate_of(chosen: ServeSettings) -> Certificate:
    """Make sure of the node's certificate. Blocks."""
    return ensure_certificate(chosen.data, [chosen.hostname, *chosen.local_domains])


def metrics_installed() -> None:
    """Make sure that what counts is installed; Failure if it is not."""
    if any(find_spec(needed) is None for needed in ("prometheus_client", "h11")):
        raise Failure("metrics needs what is not installed: pip install 'smtpproto[metrics]'")


@contextmanager
def explained(chosen: ServeSettings) -> Generator[None]:
    """Make a Failure of what goes wrong with the data directory."""
    try:
        yield
    except (SpoolUnavailable, NodeError) as error:
        raise Failure(str(error)) from None
    except OSError as error:
        advice = ""
        if isinstance(error, PermissionError) and chosen.user is not None:
            folder = shlex.quote(str(chosen.data))
            advice = f"\nmake it his: install -d -m 700 -o {shlex.quote(chosen.user)} {folder}"
        why = f"{error.strerror or error}{advice}"
        raise Failure(f"cannot keep data in {chosen.data}: {why}") from None


@define(eq=False)
class Node:
    """A running node, or the share of it that one process has. Made by `open_node`, run once."""

    chosen: ServeSettings
    share: Share
    spool: SQLiteSpool
    certificate: Certificate
    outside: Outside
    teller: Teller
    story: StoryFile
    counts: Metrics | None
    observe: Observer
    source: Source
    #: What filters remember by; that of old ones stays open, for sessions that began with them.
    opened: AsyncExitStack
    #: There once it serves.
    relay: Relay | None = None
    port: int = 0
    _listeners: Sequence[Listener] = ()
    _stopping: bool = field(default=False, init=False)

    async def serve_at(
        self,
        places: Sequence[At],
        *,
        task_status: TaskStatus[Bound] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Take mail at these places, which are those of `places_of` in their order, and deliver.

        Until `stop` or cancellation. With no places at all, what is in the spool is delivered.
        OSError (in a group) with its `filename` for one that cannot be bound; Failure for what
        cannot be used.
        """
        kinds = list(places_of(self.chosen))
        listeners = [
            Listener(kind, at.host, at.port, bound=at.bound)
            for kind, at in zip(kinds, places, strict=False)
        ]
        self.port = next((each.port for each in listeners if each.kind == "submission"), 0)
        with explained(self.chosen):
            self._listeners = listeners = await self._guarded(listeners)
            relay = self.relay = await self._make()
        if self._stopping:
            relay.stop()
        async with anyio.create_task_group() as tasks:

            async def run(*, task_status: TaskStatus[Bound]) -> None:
                await relay.run(listeners, task_status=task_status)
                tasks.cancel_scope.cancel()

            tasks.start_soon(self.story.run)
            tasks.start_soon(self.teller.run)
            bound = await tasks.start(run)
            if listeners:
                self.port = bound[kinds.index("submission")][1]
            # What there is now stays: nobody has to look through it for what does not.
            gc.collect()
            gc.freeze()
            gc.set_threshold(GARBAGE)
            task_status.started(bound)

    def stop(self) -> None:
        """End gracefully, as `Relay.stop`."""
        self._stopping = True
        if self.relay is not None:
            self.relay.stop()

    @property
    def patience(self) -> float | None:
        """A delivery that is under way takes as long as it takes."""
        return None

    async def reload(self) -> None:
        """Read settings and certificates again; where they are of no use, the old ones stay."""
        running = self.relay
        if running is None:
            return
        renewed = await to_thread.run_sync(running.reload)
        if self.source.config is None:
            if renewed and not self.share.number:  # the others do the same
                self.teller.note("reloaded", "the certificate was read again")
            return
        if not renewed:  # why has just been said, and would be again
            log.error("the old settings stay, too")
            return
        try:
            told = await to_thread.run_sync(self.source.read)
            fresh, kept = with_fixed(told, self.chosen)
            outside = await to_thread.run_sync(read_outside, fresh, self.outside.smart_login)
            node = evolve(self, chosen=fresh, outside=outside)
            relay = await node._make()
            listeners = await node._guarded(self._listeners)
        except (ConfigError, click.ClickException, NodeError, OSError) as error:
            why = error.format_message() if isinstance(error, click.ClickException) else error
            log.error("the old settings stay: %s", why)
            return
        running.adopt(relay, listeners)
        if isinstance(relay.authenticator, AccountFile):
            relay.authenticator.changed = running.forget
        self.chosen, self.outside = fresh, outside
        more = f"; {', '.join(kept)}: only after a restart" if kept else ""
        if not self.share.number:
            self.teller.note(
                "reloaded", f"settings and certificate were read again{more}", restart=kept
            )

    async def answer(self, question: str) -> bytes | None:
        """Answer a supervisor: "metrics", or "ready", to which there is no answer but a failure."""
        if question == "metrics":
            return await self.metrics()
        await self.must_be_ready()
        return None

    async def metrics(self) -> bytes:
        """Return what has been counted, and what there is, for Prometheus. NotNowError."""
        if self.counts is None or self.relay is None:
            raise NotNowError("nothing is counted")
        try:
            return await self.counts.text(self.relay, self.spool)
        except SpoolUnavailable as error:
            raise NotNowError(f"the spool cannot be counted: {error}") from None

    async def must_be_ready(self) -> None:
        """Do nothing if it listens and its spool can be used; else raise NotNowError."""
        if self.relay is None or not self.relay.ready:
            raise NotNowError("not listening")
        try:
            await self.spool.next_due()
        except SpoolUnavailable as error:
            raise NotNowError(f"the spool cannot be used: {error}") from None

    async def _guarded(self, listeners: Sequence[Listener]) -> list[Listener]:
        """Give each its filters."""
        chosen = self.chosen
        filters = await self.opened.enter_async_context(
            open_filters(chosen.filters, chosen.limits, hostname=chosen.hostname, data=chosen.data)
        )
        return [evolve(each, filters=filters.get(each.kind, ())) for each in listeners]

    async def _make(self) -> Relay:
        """Make the relay that the settings ask for."""
        # Not before the spool is ours: a node that runs on it has its own address in the login.
        login = None
        if self._listeners:
            login = await to_thread.run_sync(login_of, self.chosen, self.port)
        accounts = await to_thread.run_sync(accounts_of, self.chosen)
        relay = relay_of(
            self.chosen,
            self.spool,
            self.certificate,
            self.outside,
            login=login,
            accounts=accounts,
            observe=self.observe,
            share=self.share,
        )
        if accounts is not None:
            accounts.changed = relay.forget
        return relay


@asynccontextmanager
async def open_node(
    chosen: ServeSettings,
    source: Source,
    teller: Teller,
    *,
    share: Share = Share(),  # noqa: B008 - it is frozen
    login: tuple[str, str] | None = None,
) -> AsyncGenerator[Node]:
    """Open the spool of a node, or of a share of it, and all else that it needs to run.

    `login` is that for the smart host, if it is known. Failure says what cannot be used.
    """
    counts: Metrics | None = None
    if chosen.metrics is not None:
        metrics_installed()
        from smtpproto.relay.metrics import Metrics  # noqa: PLC0415 - an extra

        counts = Metrics()
    with explained(chosen):
        outside = await to_thread.run_sync(read_outside, chosen, login)
        certificate = await to_thread.run_sync(certificate_of, chosen)
        async with SQLiteSpool.open(share.spool(chosen.data)) as spool, AsyncExitStack() as opened:
            story = StoryFile(share.story(chosen.data), limit=share.each(chosen.story_size))
            observers = [teller.event, *([story.observe] if chosen.story_size else [])]
            if counts is not None:
                observers.append(counts.observe)
            safe = [harmless(each) for each in observers]

            def observe(event: Event) -> None:
                for each in safe:
                    each(event)

            yield Node(
                chosen,
                share,
                spool,
                certificate,
                outside,
                teller,
                story,
                counts,
                observe,
                source,
                opened,
            )
