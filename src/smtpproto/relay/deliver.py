"""One attempt at one message: to mailboxes here, or through the pool to the next hop.

It takes an Entry from the spool, tries the recipients that are due, and says of each what
happened. What follows from that is `dispatch.py`'s; what is learned of the next hop is for
`hops.py` to remember.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, TypeAlias, TypeVarTuple

import anyio
from attrs import evolve, field, frozen

from smtpproto.client import Client, ClientDeadlines, Connector, Tls, connect_tcp
from smtpproto.core.command import Mail, Rcpt
from smtpproto.core.envelope import Envelope
from smtpproto.core.errors import LocalProtocolError
from smtpproto.core.parameter import Parameter, Parameters
from smtpproto.core.path import Mailbox
from smtpproto.core.reply import Reply
from smtpproto.extensions.dsn import DSN
from smtpproto.maildir import MailboxUnavailable
from smtpproto.pool import Pool
from smtpproto.result import ClientError, Fate, LoginError, RefusedError
from smtpproto.source import Source
from smtpproto.trace import MAX_HEADER, return_path

from .aliases import Aliases, TooManyTargetsError, delivered_to, expand, has_been_at, no_aliases
from .hops import Hold, Hops
from .mailbox import MailboxStore
from .report import Action
from .route import Host, Local, NextHop, Route, Router, Undetermined, Unroutable, canonical
from .spool import Entry, Recipient, Spool, SpoolUnavailable

__all__ = ["Access", "Attempt", "Clients", "Deliverer"]

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


@frozen
class Attempt:
    """What one attempt came to for one recipient.

    `where` is the mailbox or the host that was tried, `reply` its answer, or None and the
    `reason` in words. `remote` tells a host's own answer from ours. With `put_off`, wall time in
    seconds, nothing was tried: the next hop is held until then, or has no place in its line.
    `action` is what a success is called in a report of ours; None where the next hop reports.
    `becomes` are those that take the place of `alias`, which this one was addressed to.
    """

    recipient: Recipient
    fate: Fate
    where: str
    reply: Reply | None = None
    reason: str = ""
    remote: bool = False
    put_off: float | None = None
    action: Action | None = None
    becomes: tuple[Rcpt, ...] = ()
    alias: Mailbox | None = None

    @property
    def text(self) -> str:
        """The answer or the reason, on one line."""
        return " ".join(str(self.reply).split()) if self.reply else self.reason


Done: TypeAlias = Callable[[Sequence[Attempt]], Awaitable[None]]

NO_MAILBOX = Reply(550, "5.1.1", "No such mailbox here")
UNFIT = Reply(554, "5.6.0", "The content may not be sent as it is")
STORED = Reply(250, "2.1.5", "Delivered")
EXPANDED = Reply(250, "2.1.5", "Replaced by the addresses behind it")
TOO_MANY = Reply(554, "5.4.6", "This alias stands for too many addresses")
ROUND = Reply(554, "5.4.6", "The message has been at this alias before")
#: Why, is for the operator.
UNREADABLE = Reply(451, "4.3.0", "The message cannot be read from the queue for now")
NO_ANSWER = Reply(451, "4.3.0", "The alias could not be looked up")


@frozen
class Clients:
    """Makes the Client for a host: what a Pool of ours is given.

    `deadlines.session` bounds the time for one session. `trace(name, line)` is shown the
    dialogues.
    """

    hostname: str
    access: Access = field(factory=Access)
    connector: Connector = connect_tcp
    deadlines: ClientDeadlines = field(factory=lambda: ClientDeadlines(session=4 * 3600))
    trace: Callable[[str, str], None] | None = None

    def __call__(self, host: Host) -> Client:
        """Return a Client for the host, not entered yet."""
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
            dispensable=(DSN,),
            trace=None if self.trace is None else partial(self.trace, host.name),
        )


@frozen
class Deliverer:
    """Carries messages on, with what it has been handed to do so.

    `pool` keeps the sessions with next hops, and bounds them; it is open while there are attempts.
    """

    router: Router
    mailboxes: MailboxStore
    spool: Spool
    pool: Pool[Host]
    hops: Hops
    aliases: Aliases = no_aliases

    async def attempt(self, entry: Entry, done: Done) -> None:
        """Try every recipient of `entry` once.

        `done` is awaited with attempts as they come to their end, before anything else is waited
        for; together its calls name every recipient once. A recipient that they do not name fell
        to a fault of ours, which has been logged.
        """
        held, due = self._held(entry)
        began = self.hops.now()
        routes = await self._routes(due)
        settled = held
        local: list[tuple[Recipient, Local]] = []
        remote: dict[tuple[str, Mailbox | None], tuple[NextHop, list[Recipient]]] = {}
        for recipient in due:
            domain = _domain(recipient)
            match routes[domain]:
                case Local() as route:
                    local.append((recipient, route))
                case NextHop() as route:
                    together = route.name, recipient.alias
                    remote.setdefault(together, (route, []))[1].append(recipient)
                case Unroutable() as route:
                    settled.append(Attempt(recipient, Fate.PERMANENT, domain, route.reply))
                case Undetermined() as route:
                    self.hops.down(domain, domain, route.reply, "", began=began)
                    settled.append(Attempt(recipient, Fate.TRANSIENT, domain, route.reply))
        if settled:
            await done(settled)
        async with anyio.create_task_group() as hops:
            if local:
                hops.start_soon(self._apart, self._to_mailboxes, entry, local, done)
            for route, recipients in remote.values():
                hops.start_soon(self._apart, self._to_next_hop, entry, route, recipients, done)

    def _held(self, entry: Entry) -> tuple[list[Attempt], list[Recipient]]:
        """Tell those whose domain is held as the name of a next hop from those to be routed."""
        held: list[Attempt] = []
        due: list[Recipient] = []
        for recipient in entry.recipients:
            hold = self.hops.held(_domain(recipient), asked=recipient.asked)
            if hold is None:
                due.append(recipient)
            else:
                held.append(_put_off(recipient, hold))
        return held, due

    async def _apart(self, way: Callable[[*Ts], Awaitable[None]], *args: *Ts) -> None:
        """Keep a fault on one way from tearing transactions on the others."""
        try:
            await way(*args)
        except Exception:
            log.exception("a delivery broke off")

    async def _routes(self, recipients: Sequence[Recipient]) -> dict[str, Route]:
        """Route every domain once, side by side."""
        routes: dict[str, Route] = {}

        async def look_up(domain: str) -> None:
            async with at_once:
                routes[domain] = await self.router.route(domain)

        at_once = anyio.Semaphore(10)
        domains = dict.fromkeys(map(_domain, recipients))  # in their order
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
            if recipient.alias is None:
                behind = await expand(evolve(recipient.rcpt, forward_path=mailbox), self.aliases)
                if behind is not None:
                    return await self._through_alias(entry, recipient, mailbox, behind)
        except TooManyTargetsError:
            return Attempt(recipient, Fate.PERMANENT, where, TOO_MANY)
        except SpoolUnavailable as error:
            log.error("message %s cannot be read: %s", entry.id, error)
            return Attempt(recipient, Fate.TRANSIENT, where, UNREADABLE)
        except Exception:
            log.exception("an alias could not be looked up")
            return Attempt(recipient, Fate.TRANSIENT, where, NO_ANSWER)
        try:
            if not await self.mailboxes.exists(mailbox):
                return Attempt(recipient, Fate.PERMANENT, where, NO_MAILBOX)
            async with aclosing(self._final_content(entry, recipient.alias)) as content:
                await self.mailboxes.deliver(mailbox, content)
        except MailboxUnavailable as error:
            return Attempt(recipient, Fate.TRANSIENT, where, error.reply)
        except SpoolUnavailable as error:
            log.error("message %s cannot be read: %s", entry.id, error)
            return Attempt(recipient, Fate.TRANSIENT, where, UNREADABLE)
        return Attempt(recipient, Fate.ACCEPTED, where, STORED, action="delivered")

    async def _through_alias(
        self, entry: Entry, recipient: Recipient, alias: Mailbox, behind: tuple[Rcpt, ...]
    ) -> Attempt:
        where = f"alias {alias}"
        beginning = bytearray()
        async for chunk in self.spool.content(entry.id):
            beginning += chunk
            if len(beginning) >= MAX_HEADER or b"\r\n\r\n" in beginning:
                break
        if has_been_at(alias, bytes(beginning)):
            return Attempt(recipient, Fate.PERMANENT, where, ROUND)
        # One address: there is nothing to tell (RFC 3461 §5.2.7.2).
        action: Action | None = "expanded" if len(behind) > 1 else None
        return Attempt(
            recipient, Fate.ACCEPTED, where, EXPANDED, action=action, becomes=behind, alias=alias
        )

    async def _final_content(self, entry: Entry, alias: Mailbox | None) -> AsyncGenerator[bytes]:
        # Final delivery is where the reverse-path leaves the envelope (RFC 5321 §4.4).
        yield return_path(entry.mail.reverse_path)
        if alias is not None:
            yield delivered_to(alias)
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
        asked = max((r.asked for r in recipients if r.asked is not None), default=None)
        async with self.hops.turn(route.name, str(entry.mail.reverse_path)) as come_again:
            if come_again is not None:
                crowded = partial(
                    Attempt, fate=Fate.TRANSIENT, where=route.name, put_off=come_again
                )
                await done([crowded(recipient) for recipient in recipients])
                return
            # Only here: who stood before us may have learned it.
            hold = self.hops.held(route.name, asked=asked)
            if hold is not None:
                await done([_put_off(recipient, hold) for recipient in recipients])
                return
            began = self.hops.now()
            left = {recipient.number: recipient for recipient in recipients}
            open_: dict[int, Attempt] = {}
            down = True
            for host in route.hosts:
                attempts, talked = await self._to_host(entry, host, [*left.values()])
                if talked:
                    down = False
                    self.hops.up(route.name)
                decided = [a for a in attempts if talked and a.fate is not Fate.TRANSIENT]
                if decided:
                    await done(decided)
                for attempt in decided:
                    del left[attempt.recipient.number]
                for attempt in attempts:
                    if attempt.fate is Fate.TRANSIENT or attempt.recipient.number not in open_:
                        open_[attempt.recipient.number] = attempt
                if not left:
                    return
        rest = [open_[number] for number in left]
        last = next((a for a in reversed(rest) if a.fate is Fate.TRANSIENT), None)
        if down and last is not None:
            self.hops.down(route.name, last.where, last.reply, last.reason, began=began)
        await done(rest)

    async def _to_host(
        self, entry: Entry, host: Host, recipients: Sequence[Recipient]
    ) -> tuple[Sequence[Attempt], bool]:
        """Try one host; tell also whether it talked with us.

        If it did, what is permanent now is so for the other hosts, too.
        """
        where = f"{host.name}:{host.port}"

        def all_of_them(
            fate: Fate, reply: Reply | None = None, reason: str = "", *, remote: bool = False
        ) -> Sequence[Attempt]:
            return [Attempt(r, fate, where, reply, reason, remote=remote) for r in recipients]

        # Only what was asked of reports goes on (RFC 3461 §5.2.1): the other parameters were
        # between the last hop and us, and the client adds those that are for this one.
        mail = Mail(entry.mail.reverse_path, _of(DSN.mail, entry.mail))
        envelope = Envelope(
            mail, [Rcpt(r.rcpt.forward_path, _of(DSN.rcpt, r.rcpt)) for r in recipients]
        )
        # What came without SMTPUTF8 goes on without it: it is not for us to look into.
        utf8 = "SMTPUTF8" in entry.mail.parameters
        reading = _Reading(self.spool.content(entry.id), recipients[0].alias)
        content = Source(reading, len(reading.first) + entry.octets, utf8=utf8)
        try:
            result = await self.pool.deliver(envelope, content, host)
        except LoginError as error:
            # Ours to mend, whatever its first digit: no mail is lost by it.
            return all_of_them(Fate.TRANSIENT, error.reply, remote=True), False
        except RefusedError as error:
            return all_of_them(Fate.of(error.reply), error.reply, remote=True), False
        except ClientError as error:
            return all_of_them(Fate.TRANSIENT, reason=str(error)), False
        except SpoolUnavailable as error:
            log.error("message %s cannot be read: %s", entry.id, error)
            return all_of_them(Fate.TRANSIENT, UNREADABLE), True
        except LocalProtocolError as error:
            if not reading.begun:  # ours to mend, as a login that cannot be written: none is lost
                log.error("no session with %s can be opened: %s", where, error)
                return all_of_them(Fate.TRANSIENT, reason=str(error)), False
            log.error("message %s cannot be sent on: %s", entry.id, error)
            return all_of_them(Fate.PERMANENT, UNFIT), True
        action: Action | None = "relayed" if "NOTIFY" in result.left_out else None
        attempts = [
            Attempt(
                recipient,
                outcome.fate,
                where,
                outcome.reply,
                outcome.reason,
                not outcome.local,
                action=action,
            )
            for recipient, outcome in zip(recipients, result.outcomes, strict=True)
        ]
        return attempts, True


class _Reading(AsyncIterator[bytes]):
    """The content for a next hop; `begun` when somebody has asked for it.

    Behind an alias it says first through which it came.
    """

    def __init__(self, chunks: AsyncIterator[bytes], alias: Mailbox | None) -> None:
        self.begun = False
        self.first = b"" if alias is None else delivered_to(alias)
        self._chunks = chunks

    async def __anext__(self) -> bytes:
        first, self.begun = not self.begun, True
        return self.first if first and self.first else await anext(self._chunks)


def _of(parameters: Iterable[Parameter[Any]], command: Mail | Rcpt) -> Parameters:
    """Return those of a command's parameters, as they came."""
    there = command.parameters
    return Parameters({p.keyword: there[p.keyword] for p in parameters if p.keyword in there})


def _domain(recipient: Recipient) -> str:
    """Return the domain of a recipient, in the spelling that a Router names its next hop by."""
    return canonical(recipient.rcpt.forward_path.mailbox.domain)


def _put_off(recipient: Recipient, hold: Hold) -> Attempt:
    return Attempt(
        recipient, Fate.TRANSIENT, hold.where, hold.reply, hold.reason, put_off=hold.until
    )
