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
from email.message import EmailMessage
from functools import partial
from typing import Literal, TypeAlias

import anyio
from anyio.abc import TaskStatus
from attrs import define, evolve, field, frozen

from smtpproto.client import ClientDeadlines, Connector, UnixConnector, connect_tcp
from smtpproto.core.command import Mail
from smtpproto.core.connection import Limits
from smtpproto.core.envelope import Envelope
from smtpproto.core.extension import Extension
from smtpproto.core.path import Mailbox
from smtpproto.core.sasl import ServerContext
from smtpproto.handler import AnyAuthenticator, LoginGuard, Session
from smtpproto.mechanisms import STANDARD as MECHANISMS
from smtpproto.pool import Pool
from smtpproto.server import At, Certificates, Connections, Server, ServerDeadlines
from smtpproto.source import CHUNK, Reading, source
from smtpproto.trust import Network
from smtpproto.wire import Listener as Bound

from .accounts.guessing import Guessing
from .accounts.login import SenderPolicy, every_sender
from .delivery.callout import Callout, Verifier
from .delivery.clients import Clients
from .delivery.deliver import Deliverer
from .delivery.dispatch import Dispatcher
from .delivery.hops import Hops, hold_for
from .filters.chain import Chain
from .filters.seam import Filter
from .intake.handler import Intake
from .intake.holding import Holding
from .intake.offers import RENEWED_EACH, offer
from .intake.policy import HousePolicy, Policy
from .intake.screening import ScreenedIntake
from .intake.submission import Submission
from .mailboxes.aliases import Aliases, no_aliases
from .mailboxes.mailbox import MailboxesFirst, MailboxStore
from .mailboxes.quota import Quota
from .mailboxes.verp import Returns, Verp
from .reports.story import Accepted, Observer, harmless, ignore
from .routing.access import Access
from .routing.route import Routing
from .routing.schedule import DEFAULT, Schedule
from .routing.transport import Host
from .spool.seam import Spool

__all__ = ["Kind", "Listener", "Relay"]

#: What `Relay.adopt` takes over.
_ADOPTED = (
    "router",
    "mailboxes",
    "aliases",
    "networks",
    "authenticator",
    "sasl",
    "senders",
    "keep_bcc",
    "verify",
    "check_senders",
    "policy",
    "failing_filter",
    "verp",
    "postmaster",
    "dsn_to_all",
    "least_by",
    "longest_hold",
    "limits",
    "hold_quota",
)

Kind: TypeAlias = Literal["smtp", "submission", "submissions"]

#: Seconds in which a submission server answers (RFC 6409 §5.3 has fewer than two minutes).
ANSWER = 110


@frozen
class Listener:
    """Where to listen, and for whom.

    `kind` is "smtp" for other servers, "submission" for mail programs (STARTTLS), "submissions"
    for those with TLS from the first octet (RFC 8314 §3.3). Port 0 is any that is free; `host`
    None is every address. `filters` are asked in their order, of all mail that comes in here: of
    users' too. `bound` is a socket that listens there already, for who gives up the right to bind
    before he begins.
    """

    kind: Kind
    host: str | None
    port: int
    filters: Sequence[Filter] = ()
    bound: Bound | None = None


# Spelled out: attrs lends its type to the parameter, and an alias that is a string is none there.
def _mailbox(value: Mailbox | str | bytes | None) -> Mailbox | None:
    return None if value is None else Mailbox.of(value)


@define(eq=False, kw_only=True)
class Relay:
    """A queueing mail server to embed.

    `hostname` is what it calls itself. `networks` may relay without a login; empty by default.
    `policy` tells who may send to whom; None: the house's, by `networks` and `check_senders`, of
    which then only `networks` has a meaning beside it: DSN is for those.
    Logins of any kind need TLS except from loopback (RFC 8314 §4.1), and `authenticator` to be
    possible at all; `guard` refuses those who guess. `senders` tells who may submit as whom, and
    `keep_bcc` leaves Bcc in what is submitted. `sasl` is what mechanisms need. Deliverable by a
    time in mode R is what has `least_by` seconds for it (RFC 2852; None: any), and submitted mail
    is held for `longest_hold` seconds at most, if it asks for that (RFC 4865; 0: never), and of
    each login no more at a time than `hold_quota`.

    `aliases` are addresses of ours that stand for others. `verify` tells who exists of those who
    are ours and live elsewhere: "callout" asks their next hop; with None all do, and what is
    refused there later comes back to senders who may be forged. With `check_senders`, the DNS is
    asked whether a stranger's domain takes mail itself (RFC 7505 §4.1). A filter that fails lets
    mail "pass", or "defer"s it.

    `verp` are senders whose mail has a return path for each recipient. `postmaster` gets a report
    of what failed and has no sender to report to; without one the observer alone is told. Reports
    of success are for those who may relay: others are offered neither DSN nor DELIVERBY, unless
    `dsn_to_all`.

    `access` is how next hops are talked to that have none of their own, such as MX finds;
    ValueError for one with a login, which belongs to a Host. `connector` leads to hosts, `unix`
    makes what leads to the path of a UNIX socket. `connections` are those of all listeners
    together. There are `sessions` with next hops at most, and `sessions_each` with one host; one
    that is unused is kept for `idle` seconds.

    `observe` is told every message's story, `trace` every line of every dialogue, as (session,
    peer, line): the session is that of a client, or "next hop".
    """

    hostname: str
    spool: Spool
    mailboxes: MailboxStore
    router: Routing
    access: Access = field(factory=Access)
    networks: Sequence[Network] = ()
    policy: Policy | None = None
    tls: ssl.SSLContext | Certificates | None = None
    authenticator: AnyAuthenticator | None = None
    guard: LoginGuard | None = field(factory=Guessing)
    sasl: ServerContext = field(factory=ServerContext)
    senders: SenderPolicy = every_sender
    keep_bcc: bool = False
    aliases: Aliases = no_aliases
    verify: Verifier | Literal["callout"] | None = None
    check_senders: bool = True
    failing_filter: Literal["pass", "defer"] = "pass"
    verp: Verp = field(factory=Verp)
    postmaster: Mailbox | None = field(default=None, converter=_mailbox)
    dsn_to_all: bool = False
    schedule: Schedule = DEFAULT
    least_by: int | None = None
    longest_hold: int = 30 * 86_400
    hold_quota: Quota = field(factory=lambda: Quota(1 << 28, 1000))
    limits: Limits = field(factory=Limits)
    connections: Connections = field(factory=Connections)
    server_deadlines: ServerDeadlines = field(factory=ServerDeadlines)
    client_deadlines: ClientDeadlines = field(factory=lambda: ClientDeadlines(session=4 * 3600))
    sessions: int = 100
    sessions_each: int = 20
    idle: float = 5.0
    connector: Connector = connect_tcp
    unix: Callable[[str], Connector] = UnixConnector
    clock: Callable[[], float] = time.time
    random: Callable[[], float] = random.random
    observe: Observer = ignore
    trace: Callable[[str, str, str], None] | None = None

    dispatcher: Dispatcher = field(init=False)
    hops: Hops = field(init=False)
    _pool: Pool[Host] = field(init=False)
    _callout: Callout = field(init=False)
    _holding: Holding = field(init=False)
    _servers: list[Server] = field(factory=list[Server], init=False)
    _bound: bool = field(default=False, init=False)
    _stopping: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        if self.access.login is not None:
            raise ValueError("a login belongs to the access of the Host that it is for")
        self.observe = harmless(self.observe)
        self.trace = None if self.trace is None else harmless(self.trace)
        self.aliases = MailboxesFirst(self.aliases, self.mailboxes)
        clients = Clients(
            self.hostname,
            self.access,
            self.connector,
            self.unix,
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
        self._callout = Callout(clients, self.hops, self.clock)
        self._holding = Holding(self.spool, self.hold_quota)
        deliverer = Deliverer(
            self.router,
            self.mailboxes,
            self.spool,
            self._pool,
            self.hops,
            Returns(self.aliases, self.verp),
            verp=self.verp,
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
            verp=self.verp,
            postmaster=self.postmaster,
        )

    def server(self, kind: Kind, filters: Sequence[Filter] = ()) -> Server:
        """Make the server for one kind of listener; it spools what it accepts."""
        submission, deadlines = None, self.server_deadlines
        if kind != "smtp":
            submission = Submission(
                self.hostname, self.router.is_local, self.senders, keep_bcc=self.keep_bcc
            )
            patience = ANSWER if deadlines.handler is None else min(ANSWER, deadlines.handler)
            deadlines = evolve(deadlines, handler=patience)
        takes_no_mail = self.router.takes_no_mail if self.check_senders else None
        make = Intake if not filters else partial(ScreenedIntake, chain=self._chain(filters))
        handler = make(
            hostname=self.hostname,
            policy=self.policy or HousePolicy(self.networks, takes_no_mail),
            router=self.router,
            mailboxes=self.mailboxes,
            spool=self.spool,
            clock=self.clock,
            observe=self.observe,
            accepted=self.dispatcher.wake,
            submission=submission,
            aliases=Returns(self.aliases, self.verp),
            verifier=self._callout if self.verify == "callout" else self.verify,
            holding=self._holding,
        )
        return Server(
            handler,
            self.hostname,
            tls=self.tls,
            implicit_tls=kind == "submissions",
            authenticator=self.authenticator,
            guard=self.guard,
            sasl=self.sasl,
            # Who submits without TLS shows the message; so a login of any kind waits for it.
            mechanisms=[evolve(each, plaintext=True) for each in MECHANISMS],
            offer=self._offer(submission=kind != "smtp"),
            # The RFC knows no less than all of it: who is not offered it reports himself that he
            # has passed the message on (RFC 3461 §5.2.2). And by BY, too, a stranger has reports
            # sent to whom he likes: of each relay, or of a time that was over when he gave it.
            offer_only_to={}
            if kind != "smtp" or self.dsn_to_all
            else {"DSN": self.networks, "DELIVERBY": self.networks},
            plaintext_auth="loopback",
            limits=self.limits,
            connections=self.connections,
            deadlines=deadlines,
            trace=None if self.trace is None else self._show,
        )

    def _chain(self, filters: Sequence[Filter]) -> Chain:
        return Chain(filters, hostname=self.hostname, failing=self.failing_filter)

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
            self._servers = [self.server(each.kind, each.filters) for each in listeners]
            if self._stopping:
                self.stop()
            for listener, server in zip(listeners, self._servers, strict=True):
                try:
                    at = At(listener.host, listener.port, bound=listener.bound)
                    bound += await tasks.start(server.serve_at, [at])
                except OSError as error:
                    where = f"{listener.host or '*'}:{listener.port}"
                    raise OSError(error.errno, error.strerror, where) from error
            tasks.start_soon(self._dispatch, listeners)
            self._bound = True
            task_status.started(bound)

    def _offer(self, *, submission: bool) -> Sequence[Extension]:
        return offer(
            submission=submission,
            least_by=self.least_by,
            longest_hold=self.longest_hold,
            now=self.clock(),
        )

    async def _dispatch(self, listeners: Sequence[Listener]) -> None:
        """Work the spool to the end, and meanwhile keep what is offered up to date."""

        async def renew() -> None:
            while True:
                await anyio.sleep(RENEWED_EACH)
                for listener, server in zip(listeners, self._servers, strict=True):
                    server.offer = self._offer(submission=listener.kind != "smtp")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(renew)
            await self.dispatcher.run()
            tasks.cancel_scope.cancel()

    async def submit(
        self,
        envelope: Envelope,
        content: bytes | str | EmailMessage,
        *,
        origin: str = "us",
    ) -> str:
        """Take a message from the program that this runs in; return its id.

        It is safe in the spool then, and the observer is told what becomes of it, under that id.
        Neither policy nor filters are asked. Text gets CRLF line ends, an EmailMessage loses its
        Bcc; Date, Message-ID and the rest are the program's to write.

        SpoolUnavailable if it cannot be kept for now. LocalProtocolError for a bare CR or LF.
        """
        made = await Reading.of(await source(content, eight_bit_offered=False))
        octets, mail, rcpts = made.head, envelope.mail, envelope.rcpts
        utf8 = made.utf8 or not (mail.is_ascii and all(rcpt.is_ascii for rcpt in rcpts))
        if utf8 and "SMTPUTF8" not in mail.parameters:
            mail = Mail(mail.reverse_path, {**mail.parameters, "SMTPUTF8": None})
        async with self.spool.receive() as incoming:
            for begin in range(0, len(octets), CHUNK):
                await incoming.write(octets[begin : begin + CHUNK])
            await incoming.commit(mail, rcpts, now=self.clock(), origin=origin)
        paths = envelope.reverse_path, envelope.forward_paths
        self.observe(Accepted(incoming.id, *paths, len(octets), origin))
        self.dispatcher.wake()
        return incoming.id

    def stop(self) -> None:
        """End gracefully: 421 to idle clients, transactions and deliveries under way finish."""
        self._stopping = True
        for server in self._servers:
            server.stop()
        self.dispatcher.stop()

    @property
    def ready(self) -> bool:
        """Whether all listeners are bound, and none is to stop."""
        return self._bound and not self._stopping

    @property
    def sessions_in(self) -> int:
        """How many clients are connected."""
        return len(self.connections)

    @property
    def sessions_out(self) -> int:
        """How many connections there are with next hops."""
        return len(self._pool)

    def adopt(self, other: Relay, listeners: Sequence[Listener]) -> None:
        """Go on by the rules of another relay, one that is never run.

        That is who may send, as whom, and how much (`networks`, `authenticator`, `sasl`, `senders`,
        `keep_bcc`, `limits`, `least_by`, `longest_hold`, `hold_quota`), what is ours and who exists
        (`mailboxes`, `aliases`, `verify`, `check_senders`), where mail goes (`router`), who is told
        what of it (`verp`, `postmaster`, `dsn_to_all`), and the filters of `listeners`, those that
        it runs with, in their order. All of it at once, for new sessions and new attempts;
        sessions that are there go on as they began. Everything else stays: spool, name, schedule,
        certificates, what is known of next hops, who is counted. ValueError for other listeners.
        """
        if len(listeners) != len(self._servers):
            raise ValueError("a relay that runs keeps its listeners")
        for name in _ADOPTED:
            setattr(self, name, getattr(other, name))
        self.dispatcher.deliverer = evolve(
            self.dispatcher.deliverer,
            router=self.router,
            mailboxes=self.mailboxes,
            aliases=Returns(self.aliases, self.verp),
            verp=self.verp,
        )
        self._holding.quota = self.hold_quota
        self.dispatcher.verp, self.dispatcher.postmaster = self.verp, self.postmaster
        for server, listener in zip(self._servers, listeners, strict=True):
            fresh = self.server(listener.kind, listener.filters)
            server.handler, server.authenticator = fresh.handler, fresh.authenticator
            server.sasl, server.limits = fresh.sasl, fresh.limits
            server.offer, server.offer_only_to = fresh.offer, fresh.offer_only_to

    def reload(self) -> bool:
        """Read the files of the certificates again, as `Server.reload`; it blocks."""
        return self.tls.reload() if isinstance(self.tls, Certificates) else True

    def forget(self) -> None:
        """Find out again which mechanisms the authenticator can serve, for new sessions."""
        for server in self._servers:
            server.forget()

    def _show(self, session: Session, line: str) -> None:
        if self.trace is not None:
            self.trace(f"session {session.id}", session.peer[0], line)
