"""The relay: listeners in front, the spool in the middle, delivery behind.

::

    client -> Server -> Intake -> Spool -> Dispatcher -> Deliverer -> Maildir
                                    ^                        |    `-> Client -> next hop
                                    `------- reports --------'

All that touches the world is handed in: the spool, the mailboxes, the resolver (in the router),
the connector, the clock, randomness.
"""

from __future__ import annotations

import random
import ssl
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, TypeAlias

import anyio
from anyio.abc import TaskStatus
from attrs import define, field, frozen

from smtpproto.client import ClientDeadlines, Connector, connect_tcp
from smtpproto.core.connection import Limits
from smtpproto.extensions import STANDARD
from smtpproto.extensions.dsn import DSN
from smtpproto.handler import Authenticator, Session
from smtpproto.pool import Pool
from smtpproto.server import Certificates, Connections, Server, ServerDeadlines
from smtpproto.trust import Network

from .aliases import Aliases, no_aliases
from .deliver import Access, Clients, Deliverer
from .dispatch import Dispatcher
from .hops import Hops, hold_for
from .intake import Intake
from .mailbox import MailboxStore
from .route import Host, Router
from .schedule import DEFAULT, Schedule
from .spool import Spool
from .story import Observer, harmless, ignore

__all__ = ["Kind", "Listener", "Relay"]

Kind: TypeAlias = Literal["smtp", "submission", "submissions"]


@frozen
class Listener:
    """Where to listen, and for whom.

    `kind` is "smtp" for other servers, "submission" for mail programs (STARTTLS), "submissions"
    for those with TLS from the first octet (RFC 8314 §3.3). Port 0 is any that is free; `host`
    None is every address.
    """

    kind: Kind
    host: str | None
    port: int


@define(eq=False, kw_only=True)
class Relay:
    """A queueing mail server to embed.

    `hostname` is what it calls itself. `networks` may relay without a login; empty by default.
    Logins need TLS except from loopback (RFC 4954 §4), and `authenticator` to be possible at
    all. `aliases` are addresses of ours that stand for others. `connections` are those of all
    listeners together. There are `sessions` with next hops at most, and `sessions_each` with one
    host; one that is unused is kept for `idle` seconds. `observe` is told every message's story,
    `trace` every line of every dialogue, as (session, peer, line): the session is that of a
    client, or "next hop".
    """

    hostname: str
    spool: Spool
    mailboxes: MailboxStore
    router: Router
    access: Access = field(factory=Access)
    networks: Sequence[Network] = ()
    tls: ssl.SSLContext | Certificates | None = None
    authenticator: Authenticator | None = None
    aliases: Aliases = no_aliases
    schedule: Schedule = DEFAULT
    limits: Limits = field(factory=Limits)
    connections: Connections = field(factory=Connections)
    server_deadlines: ServerDeadlines = field(factory=ServerDeadlines)
    client_deadlines: ClientDeadlines = field(factory=lambda: ClientDeadlines(session=4 * 3600))
    sessions: int = 100
    sessions_each: int = 20
    idle: float = 5.0
    connector: Connector = connect_tcp
    clock: Callable[[], float] = time.time
    random: Callable[[], float] = random.random
    observe: Observer = ignore
    trace: Callable[[str, str, str], None] | None = None

    dispatcher: Dispatcher = field(init=False)
    hops: Hops = field(init=False)
    _pool: Pool[Host] = field(init=False)
    _servers: list[Server] = field(factory=list[Server], init=False)
    _stopping: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.observe = harmless(self.observe)
        self.trace = None if self.trace is None else harmless(self.trace)
        clients = Clients(
            self.hostname,
            self.access,
            self.connector,
            self.client_deadlines,
            None if self.trace is None else partial(self.trace, "next hop"),
        )
        self._pool = Pool(
            clients,
            total=self.sessions,
            each=self.sessions_each,
            idle=self.idle,
            hold_off=0,  # next hops are held by us, and by our clock
        )
        self.hops = Hops(
            clock=self.clock,
            random=self.random,
            hold=hold_for(self.schedule),
            front=2 * self.sessions_each,
        )
        deliverer = Deliverer(
            self.router,
            self.mailboxes,
            self.spool,
            self._pool,
            self.hops,
            self.aliases,
            began=self.clock(),
        )
        self.dispatcher = Dispatcher(
            hostname=self.hostname,
            deliverer=deliverer,
            spool=self.spool,
            clock=self.clock,
            random=self.random,
            observe=self.observe,
            schedule=self.schedule,
        )

    def server(self, kind: Kind) -> Server:
        """Make the server for one kind of listener; it spools what it accepts."""
        handler = Intake(
            hostname=self.hostname,
            router=self.router,
            mailboxes=self.mailboxes,
            spool=self.spool,
            clock=self.clock,
            observe=self.observe,
            accepted=self.dispatcher.wake,
            networks=self.networks,
            submission=kind != "smtp",
            aliases=self.aliases,
        )
        return Server(
            handler,
            self.hostname,
            tls=self.tls,
            implicit_tls=kind == "submissions",
            authenticator=self.authenticator,
            # We report as asked, and pass on what was asked.
            offer=[each for each in STANDARD if not each.obliges or each is DSN],
            plaintext_auth="loopback",
            limits=self.limits,
            connections=self.connections,
            deadlines=self.server_deadlines,
            trace=None if self.trace is None else self._show,
        )

    async def run(
        self,
        listeners: Sequence[Listener],
        *,
        task_status: TaskStatus[list[tuple[str, int]]] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Listen, relay and deliver until `stop()` or cancellation; a relay is run once.

        Reports the bound addresses, in the order of `listeners`, when all of them are ready.
        OSError (in a group) if one cannot be bound, with its address as `filename`.
        """
        async with self._pool, anyio.create_task_group() as tasks:
            bound: list[tuple[str, int]] = []
            # All of them before the first wait, so that stop() reaches all of them.
            self._servers = [self.server(listener.kind) for listener in listeners]
            if self._stopping:
                self.stop()
            for listener, server in zip(listeners, self._servers, strict=True):
                try:
                    bound.append(await tasks.start(server.serve, listener.host, listener.port))
                except OSError as error:
                    where = f"{listener.host or '*'}:{listener.port}"
                    raise OSError(error.errno, error.strerror, where) from error
            tasks.start_soon(self.dispatcher.run)
            task_status.started(bound)

    def stop(self) -> None:
        """End gracefully: 421 to idle clients, transactions and deliveries under way finish."""
        self._stopping = True
        for server in self._servers:
            server.stop()
        self.dispatcher.stop()

    def reload(self) -> bool:
        """Read the files of the certificates again, as `Server.reload`; it blocks."""
        return self.tls.reload() if isinstance(self.tls, Certificates) else True

    def _show(self, session: Session, line: str) -> None:
        if self.trace is not None:
            self.trace(f"session {session.id}", session.peer[0], line)
