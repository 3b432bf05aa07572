"""One attempt at one message: to mailboxes here, or through the client to the next hop.

Nothing in here remembers: it takes an Entry from the spool, tries the recipients that are due,
and says of each what happened. What follows from that is `dispatch.py`'s.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import TypeAlias, TypeVarTuple

import anyio
from attrs import define, field, frozen

from smtpproto.client import Client, ClientDeadlines, Connector, Tls, connect_tcp
from smtpproto.core.command import Mail, Rcpt
from smtpproto.core.envelope import Envelope
from smtpproto.core.errors import LocalProtocolError
from smtpproto.core.path import Mailbox
from smtpproto.core.reply import Reply
from smtpproto.maildir import MailboxUnavailable
from smtpproto.result import ClientError, Fate, LoginError, RefusedError
from smtpproto.source import Source
from smtpproto.trace import return_path

from .mailbox import MailboxStore
from .route import Host, Local, NextHop, Route, Router, Undetermined, Unroutable
from .spool import Entry, Recipient, Spool, SpoolUnavailable

__all__ = ["Access", "Attempt", "Deliverer", "Sessions"]

log = logging.getLogger(__name__)

Ts = TypeVarTuple("Ts")


@frozen
class Access:
    """How next hops are talked to: TLS as the client takes it, and a login for a smart host.

    With a login, opportunistic TLS becomes required: unverified, it shows the password to whoever
    stands in between. `login_in_clear` permits that, and no TLS at all: for loopback.
    """

    tls: Tls = field(default=Tls.OPPORTUNISTIC, converter=Tls)
    login: tuple[str, str] | None = field(default=None, repr=False)
    ssl_context: ssl.SSLContext | None = None
    login_in_clear: bool = False

    def __attrs_post_init__(self) -> None:
        risky = self.login is not None and not self.login_in_clear
        if risky and self.tls is Tls.OPPORTUNISTIC:
            object.__setattr__(self, "tls", Tls.REQUIRED)


@define
class _Lane:
    """The way to one next hop: its free slots, and how many use it or wait for it."""

    slots: anyio.Semaphore
    users: int = 0


class Sessions:
    """Counts the sessions to next hops: at most `total`, and `each` with the same one.

    So a next hop that is slow holds up what goes there, and nothing else.
    """

    def __init__(self, total: int = 100, each: int = 20) -> None:
        self._each = each
        self._total = anyio.Semaphore(total)
        self._lanes: dict[str, _Lane] = {}

    @asynccontextmanager
    async def slot(self, name: str) -> AsyncGenerator[None]:
        """Wait for a session with the next hop of this name, and hold it in the block."""
        lane = self._lanes.setdefault(name, _Lane(anyio.Semaphore(self._each)))
        lane.users += 1
        try:
            async with lane.slots, self._total:
                yield
        finally:
            lane.users -= 1
            if not lane.users:
                del self._lanes[name]


@frozen
class Attempt:
    """What one attempt came to for one recipient.

    `where` is the mailbox or the host that was tried, `reply` its answer, or None and the
    `reason` in words. `remote` tells a host's own answer from ours.
    """

    recipient: Recipient
    fate: Fate
    where: str
    reply: Reply | None = None
    reason: str = ""
    remote: bool = False

    @property
    def text(self) -> str:
        """The answer or the reason, on one line."""
        return " ".join(str(self.reply).split()) if self.reply else self.reason


Done: TypeAlias = Callable[[Sequence[Attempt]], Awaitable[None]]

NO_MAILBOX = Reply(550, "5.1.1", "No such mailbox here")
UNFIT = Reply(554, "5.6.0", "The content may not be sent as it is")
STORED = Reply(250, "2.1.5", "Delivered")


@frozen
class Deliverer:
    """Carries messages on, with what it has been handed to do so.

    `sessions` bounds the sessions with next hops at any time, `deadlines.session` the time for
    one of them. `trace(id, host, line)` is shown the dialogues.
    """

    hostname: str
    router: Router
    mailboxes: MailboxStore
    spool: Spool
    access: Access = field(factory=Access)
    connector: Connector = connect_tcp
    deadlines: ClientDeadlines = field(factory=lambda: ClientDeadlines(session=4 * 3600))
    sessions: Sessions = field(factory=Sessions)
    trace: Callable[[str, str, str], None] | None = None

    async def attempt(self, entry: Entry, done: Done) -> None:
        """Try every recipient of `entry` once.

        `done` is awaited with attempts as they come to their end, before anything else is waited
        for; together its calls name every recipient once. A recipient that they do not name fell
        to a fault of ours, which has been logged.
        """
        routes = await self._routes(entry.recipients)
        settled: list[Attempt] = []
        local: list[tuple[Recipient, Local]] = []
        remote: dict[str, tuple[NextHop, list[Recipient]]] = {}
        for recipient in entry.recipients:
            match routes[recipient.rcpt.forward_path.mailbox.domain.lower()]:
                case Local() as route:
                    local.append((recipient, route))
                case NextHop() as route:
                    remote.setdefault(route.name, (route, []))[1].append(recipient)
                case Unroutable() | Undetermined() as route:
                    where = recipient.rcpt.forward_path.mailbox.domain.decode()
                    fate = Fate.of(route.reply)
                    settled.append(Attempt(recipient, fate, where, route.reply))
        if settled:
            await done(settled)
        async with anyio.create_task_group() as hops:
            if local:
                hops.start_soon(self._apart, self._to_mailboxes, entry, local, done)
            for route, recipients in remote.values():
                hops.start_soon(self._apart, self._to_next_hop, entry, route, recipients, done)

    async def _apart(self, way: Callable[[*Ts], Awaitable[None]], *args: *Ts) -> None:
        """Keep a fault on one way from tearing transactions on the others."""
        try:
            await way(*args)
        except Exception:
            log.exception("a delivery broke off")

    async def _routes(self, recipients: Sequence[Recipient]) -> dict[bytes, Route]:
        """Route every domain once, side by side."""
        routes: dict[bytes, Route] = {}

        async def look_up(domain: bytes) -> None:
            async with at_once:
                routes[domain] = await self.router.route(domain)

        at_once = anyio.Semaphore(10)
        domains = {recipient.rcpt.forward_path.mailbox.domain.lower() for recipient in recipients}
        async with anyio.create_task_group() as lookups:
            for domain in domains:
                lookups.start_soon(look_up, domain)
        return routes

    # Here

    async def _to_mailboxes(
        self, entry: Entry, recipients: Sequence[tuple[Recipient, Local]], done: Done
    ) -> None:
        for recipient in recipients:
            await done([await self._to_mailbox(entry, *recipient)])

    async def _to_mailbox(self, entry: Entry, recipient: Recipient, route: Local) -> Attempt:
        mailbox = Mailbox(recipient.rcpt.forward_path.mailbox.local_part, route.domain)
        where = f"mailbox {mailbox}"
        try:
            if not await self.mailboxes.exists(mailbox):
                return Attempt(recipient, Fate.PERMANENT, where, NO_MAILBOX)
            async with aclosing(self._final_content(entry)) as content:
                await self.mailboxes.deliver(mailbox, content)
        except MailboxUnavailable as error:
            return Attempt(recipient, Fate.TRANSIENT, where, error.reply)
        except SpoolUnavailable as error:
            return Attempt(recipient, Fate.TRANSIENT, where, reason=f"spool: {error}")
        return Attempt(recipient, Fate.ACCEPTED, where, STORED)

    async def _final_content(self, entry: Entry) -> AsyncGenerator[bytes]:
        # Final delivery is where the reverse-path leaves the envelope (RFC 5321 §4.4).
        yield return_path(entry.mail.reverse_path)
        async for chunk in self.spool.content(entry.id):
            yield chunk

    # Onward

    async def _to_next_hop(
        self, entry: Entry, route: NextHop, recipients: Sequence[Recipient], done: Done
    ) -> None:
        """Try one host after the other, until none is left or nobody to try it for.

        RFC 5321 §5.1: on to the next until an attempt succeeds. A refusal in a transaction is
        the domain's word and ends it; who refuses to talk speaks for that host alone, and only
        where all of them do is nothing to be hoped for.
        """
        left = {recipient.number: recipient for recipient in recipients}
        open_: dict[int, Attempt] = {}
        async with self.sessions.slot(route.name):
            for host in route.hosts:
                async with AsyncExitStack() as session:
                    attempts, final = await self._to_host(session, entry, host, [*left.values()])
                    decided = [a for a in attempts if final and a.fate is not Fate.TRANSIENT]
                    if decided:
                        await done(decided)  # and only then QUIT: nobody knows how long it takes
                for attempt in decided:
                    del left[attempt.recipient.number]
                for attempt in attempts:
                    if attempt.fate is Fate.TRANSIENT or attempt.recipient.number not in open_:
                        open_[attempt.recipient.number] = attempt
                if not left:
                    return
        await done([open_[number] for number in left])

    async def _to_host(
        self, session: AsyncExitStack, entry: Entry, host: Host, recipients: Sequence[Recipient]
    ) -> tuple[Sequence[Attempt], bool]:
        """Try one host, leaving the client open in `session`.

        Tell also whether what is permanent now is so for the other hosts, too.
        """
        where = f"{host.name}:{host.port}"

        def all_of_them(
            fate: Fate, reply: Reply | None = None, reason: str = "", *, remote: bool = False
        ) -> Sequence[Attempt]:
            return [Attempt(r, fate, where, reply, reason, remote=remote) for r in recipients]

        try:
            client = await session.enter_async_context(self._client(entry, host))
        except LoginError as error:
            # Ours to mend, whatever its first digit: no mail is lost by it.
            return all_of_them(Fate.TRANSIENT, error.reply, remote=True), False
        except RefusedError as error:
            return all_of_them(Fate.of(error.reply), error.reply, remote=True), False
        except (ClientError, LocalProtocolError) as error:
            return all_of_them(Fate.TRANSIENT, reason=str(error)), False
        # The envelope's own parameters were between the last hop and us; the client adds those
        # that are for this one.
        envelope = Envelope(
            Mail(entry.mail.reverse_path), [Rcpt(r.rcpt.forward_path) for r in recipients]
        )
        try:
            # What came without SMTPUTF8 goes on without it: it is not for us to look into.
            utf8 = "SMTPUTF8" in entry.mail.parameters
            content = Source(self.spool.content(entry.id), entry.octets, utf8=utf8)
            result = await client.deliver(envelope, content)
        except SpoolUnavailable as error:
            return all_of_them(Fate.TRANSIENT, reason=f"spool: {error}"), True
        except ClientError as error:
            return all_of_them(Fate.TRANSIENT, reason=str(error)), True
        except LocalProtocolError as error:
            log.error("message %s cannot be sent on: %s", entry.id, error)
            return all_of_them(Fate.PERMANENT, UNFIT), True
        attempts = [
            Attempt(
                recipient, outcome.fate, where, outcome.reply, outcome.reason, not outcome.local
            )
            for recipient, outcome in zip(recipients, result.outcomes, strict=True)
        ]
        return attempts, True

    def _client(self, entry: Entry, host: Host) -> Client:
        trace = self.trace
        return Client(
            host.address or host.name,
            host.port,
            tls=self.access.tls,
            ssl_context=self.access.ssl_context,
            # Only a smart host comes without an address; it alone may see the password.
            login=self.access.login if host.address is None else None,
            login_in_clear=self.access.login_in_clear,
            helo_name=self.hostname,
            server_name=host.name,
            deadlines=self.deadlines,
            connector=self.connector,
            trace=None if trace is None else lambda line: trace(entry.id, host.name, line),
        )
