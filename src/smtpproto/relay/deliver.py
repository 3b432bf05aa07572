"""One attempt at one message: to mailboxes here, or through the client to the next hop.

Nothing in here remembers: it takes an Entry from the spool, tries the recipients that are due,
and says of each what happened. What follows from that is `dispatch.py`'s.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeAlias

import anyio
from attrs import field, frozen

from smtpproto.client import Client, ClientDeadlines, Connector, Tls, connect_tcp
from smtpproto.core.command import Mail, Rcpt
from smtpproto.core.envelope import Envelope
from smtpproto.core.errors import LocalProtocolError
from smtpproto.core.path import Mailbox
from smtpproto.core.reply import Reply
from smtpproto.result import ClientError, Fate, LoginError, RefusedError
from smtpproto.source import Source

from .mailbox import MailboxStore, MailboxUnavailable
from .route import Host, Local, NextHop, Route, Router, Undetermined, Unroutable
from .spool import Entry, Recipient, Spool, SpoolUnavailable
from .trace import return_path

__all__ = ["Access", "Attempt", "Deliverer"]

log = logging.getLogger(__name__)


@frozen
class Access:
    """How next hops are talked to: TLS as the client takes it, and a login for a smart host."""

    tls: Tls = field(default=Tls.OPPORTUNISTIC, converter=Tls)
    login: tuple[str, str] | None = field(default=None, repr=False)
    ssl_context: ssl.SSLContext | None = None


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

    `connections` bounds the sessions to next hops at any time; `deadlines.session` the time for
    one of them. `trace(id, host, line)` is shown the dialogues.
    """

    hostname: str
    router: Router
    mailboxes: MailboxStore
    spool: Spool
    access: Access = field(factory=Access)
    connector: Connector = connect_tcp
    deadlines: ClientDeadlines = field(factory=lambda: ClientDeadlines(session=1800))
    connections: anyio.Semaphore = field(factory=lambda: anyio.Semaphore(20))
    trace: Callable[[str, str, str], None] | None = None

    async def attempt(self, entry: Entry, done: Done) -> None:
        """Try every recipient of `entry` once.

        `done` is awaited as each next hop ends, with the attempts made there; together its calls
        name every recipient exactly once. SpoolUnavailable where `done` raises it.
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
                hops.start_soon(self._to_mailboxes, entry, local, done)
            for route, recipients in remote.values():
                hops.start_soon(self._to_next_hop, entry, route, recipients, done)

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
        await done([await self._to_mailbox(entry, *recipient) for recipient in recipients])

    async def _to_mailbox(self, entry: Entry, recipient: Recipient, route: Local) -> Attempt:
        mailbox = Mailbox(recipient.rcpt.forward_path.mailbox.local_part, route.domain)
        where = f"mailbox {mailbox}"
        try:
            if not await self.mailboxes.exists(mailbox):
                return Attempt(recipient, Fate.PERMANENT, where, NO_MAILBOX)
            await self.mailboxes.deliver(mailbox, self._final_content(entry))
        except MailboxUnavailable as error:
            return Attempt(recipient, Fate.TRANSIENT, where, error.reply)
        except SpoolUnavailable as error:
            return Attempt(recipient, Fate.TRANSIENT, where, reason=f"spool: {error}")
        return Attempt(recipient, Fate.ACCEPTED, where, STORED)

    async def _final_content(self, entry: Entry) -> AsyncIterator[bytes]:
        # Final delivery is where the reverse-path leaves the envelope (RFC 5321 §4.4).
        yield return_path(entry.mail.reverse_path)
        async for chunk in self.spool.content(entry.id):
            yield chunk

    # Onward

    async def _to_next_hop(
        self, entry: Entry, route: NextHop, recipients: Sequence[Recipient], done: Done
    ) -> None:
        async with self.connections:
            attempts: Sequence[Attempt] = ()
            for host in route.hosts:
                attempts, over = await self._to_host(entry, host, recipients)
                if over:
                    break
        await done(attempts)

    async def _to_host(
        self, entry: Entry, host: Host, recipients: Sequence[Recipient]
    ) -> tuple[Sequence[Attempt], bool]:
        """Try one host; tell also whether that decides it, or the next is to be tried.

        RFC 5321 §5.1: on to the next host until one takes part in a transaction.
        """
        where = f"{host.name}:{host.port}"
        fate, reply, reason = Fate.TRANSIENT, None, ""
        try:
            async with self._client(entry, host) as client:
                # The envelope's own parameters were between the last hop and us; the client adds
                # those that are for this one.
                envelope = Envelope(
                    Mail(entry.mail.reverse_path), [Rcpt(r.rcpt.forward_path) for r in recipients]
                )
                content = Source(self.spool.content(entry.id), entry.octets, None)
                result = await client.deliver(envelope, content)
        except LoginError as error:
            reply = error.reply  # ours to mend, whatever its first digit: no mail is lost by it
        except RefusedError as error:
            fate, reply = Fate.of(error.reply), error.reply
        except ClientError as error:
            reason = str(error)
        except SpoolUnavailable as error:
            reason = f"spool: {error}"
        except LocalProtocolError as error:
            log.error("message %s cannot be sent on: %s", entry.id, error)
            fate, reply = Fate.PERMANENT, UNFIT
        else:
            attempts = [
                Attempt(recipient, outcome.fate, where, outcome.reply, outcome.reason, remote=True)
                for recipient, outcome in zip(recipients, result.outcomes, strict=True)
            ]
            return attempts, True
        attempts = [Attempt(r, fate, where, reply, reason) for r in recipients]
        return attempts, reply is UNFIT

    def _client(self, entry: Entry, host: Host) -> Client:
        trace = self.trace
        return Client(
            host.address or host.name,
            host.port,
            tls=self.access.tls,
            ssl_context=self.access.ssl_context,
            login=self.access.login,
            helo_name=self.hostname,
            server_name=host.name,
            deadlines=self.deadlines,
            connector=self.connector,
            trace=None if trace is None else lambda line: trace(entry.id, host.name, line),
        )
