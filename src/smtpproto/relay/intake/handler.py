"""What comes in: judged by the policy, and by what exists here; and into the spool with it.

Two kinds of listeners share one handler. SMTP takes mail from everybody for whom the policy lets
(`policy`). Submission takes mail only from those who have logged in, and completes it
(`submission`).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterable, Callable, Sequence
from functools import partial

from attrs import field, frozen

from smtpproto.core.command import Mail, Rcpt
from smtpproto.core.envelope import Envelope
from smtpproto.core.path import Mailbox, ReversePath
from smtpproto.core.reply import Reply, Severity
from smtpproto.handler import ContentStream, Session
from smtpproto.maildir import MailboxUnavailable
from smtpproto.relay.delivery.callout import Verifier
from smtpproto.relay.delivery.times import hold_refusal
from smtpproto.relay.mailboxes.aliases import Aliases, has_been_at, no_aliases
from smtpproto.relay.mailboxes.mailbox import Bounded, MailboxStore
from smtpproto.relay.reports.story import Accepted, Held, Judged, Observer
from smtpproto.relay.routing.route import Routing
from smtpproto.relay.routing.transport import (
    ByMx,
    Here,
    NextHop,
    Refuse,
    Transport,
    Undetermined,
    Unroutable,
)
from smtpproto.relay.spool.seam import Incoming, Spool, SpoolUnavailable
from smtpproto.trace import MAX_HOPS, HeaderScan, protocol_of, stamp

from .holding import Holding
from .policy import Policy
from .submission import Submission, Submitted

__all__ = ["Intake", "origin_of"]

log = logging.getLogger(__name__)

NO_MAILBOX = Reply(550, "5.1.1", "No such mailbox here")
NO_ROOM = Reply(452, "4.2.2", "Mailbox full, try again later")
LOOP = Reply(554, "5.4.6", "Too many hops; this message is in a loop")
ROUND = Reply(554, "5.4.6", "The message has been at an alias of its recipients before")
FULL = Reply(452, "4.3.1", "Insufficient system storage")
UNAVAILABLE = Reply(451, "4.3.0", "Mail system temporarily unavailable")


@frozen
class Handed:
    """A message that is handed in at `now`: our own fields are the `head` of its content."""

    session: Session
    envelope: Envelope
    head: bytes
    content: AsyncIterable[bytes]
    incoming: Incoming
    now: float


@frozen
class Intake:
    """A handler that judges senders and recipients, and spools what it accepts.

    `clock` gives wall time in seconds since the epoch; `accepted` is called after each message
    that is safe in the spool. `verifier` tells who exists of those who are ours and live elsewhere;
    without one they all do. `max_hops` is how often a message may have been received before.
    `holding` bounds what each may have waiting that is to be sent later.
    """

    hostname: str
    policy: Policy
    router: Routing
    mailboxes: MailboxStore
    spool: Spool
    clock: Callable[[], float]
    observe: Observer
    accepted: Callable[[], None]
    submission: Submission | None = None
    aliases: Aliases = no_aliases
    verifier: Verifier | None = None
    max_hops: int = field(default=MAX_HOPS)
    holding: Holding | None = None

    async def mail(self, session: Session, command: Mail) -> Reply | None:
        """Refuse those who may not submit before they go to any trouble (RFC 6409 §4.3).

        And those that the policy objects to, and a message that may not be sent before it is too
        late (RFC 4865 §5.2.2), or of which there are too many (§6).
        """
        if self.submission is not None:
            refusal = await self.submission.mail(session, command)
            if refusal is None:
                refusal = hold_refusal(command, self.clock())
            if refusal is None and self.holding is not None:
                try:
                    refusal = await self.holding.mail(session, command, self.clock())
                except SpoolUnavailable as error:
                    log.error("what is to be sent later cannot be counted: %s", error)
                    refusal = UNAVAILABLE
            if refusal is not None:
                return refusal
        return await self.policy.sender(session, command)

    async def rcpt(self, session: Session, command: Rcpt) -> Reply | None:
        """Accept whom the policy lets through, and of ours who exists and has room.

        An alias is one whatever its domain's transport; else a rule may refuse.
        """
        if self.submission is not None and (refusal := self.submission.rcpt(command)) is not None:
            return refusal
        mailbox = command.forward_path.mailbox
        home = self.router.home(mailbox)
        ours = self.router.is_ours(mailbox.domain)
        if ours and await self.aliases.find(home) is not None:
            return await self.policy.recipient(session, command, ours=True)
        mail = session.preamble(Mail)
        sender = ReversePath(None) if mail is None else mail.reverse_path
        to = (await self.router.rule(mailbox, sender)).to
        here = isinstance(to, Here)
        refusal = await self.policy.recipient(session, command, ours=ours or here)
        if refusal is not None:
            if not ours and isinstance(to, Refuse) and to.reply.severity is Severity.TRANSIENT:
                return to.reply  # the rule that is not known for now may be what makes it ours
            return refusal
        if isinstance(to, Refuse):
            return to.reply
        if not isinstance(to, Here):
            return await self._elsewhere(home, to) if ours else None
        try:
            if not await self.mailboxes.exists(home):
                return NO_MAILBOX
            if isinstance(self.mailboxes, Bounded) and await self.mailboxes.is_full(home):
                return NO_ROOM
        except MailboxUnavailable as error:
            return error.reply
        return None

    async def _elsewhere(self, mailbox: Mailbox, to: Transport) -> Reply | None:
        """Judge a recipient of ours who lives elsewhere, if somebody knows who does."""
        if self.verifier is None:
            return None
        route = await self.router.by_mx(mailbox.domain) if isinstance(to, ByMx) else to
        if isinstance(route, NextHop):
            return await self.verifier.verify(mailbox, route)
        return route.reply if isinstance(route, (Unroutable, Undetermined)) else None

    async def content(
        self, session: Session, envelope: Envelope, content: ContentStream
    ) -> Reply | None:
        """Put the content into the spool behind our Received line; 250 when it is on disk."""
        now = self.clock()
        try:
            async with self.spool.receive() as incoming:
                source: ContentStream | Submitted = content
                comment = ""
                if self.submission is not None:
                    source = await self.submission.complete(
                        session, envelope, content, id=incoming.id, now=now
                    )
                    comment = source.comment
                trace = stamp(
                    session,
                    envelope,
                    hostname=self.hostname,
                    queue_id=incoming.id,
                    now=now,
                    comment=comment,
                )
                return await self._take(Handed(session, envelope, trace, source, incoming, now))
        except SpoolUnavailable as error:
            log.error("a message from %s is put off: %s", session.peer[0], error)
            return FULL if error.full else UNAVAILABLE

    async def _is_round(self, envelope: Envelope, scan: HeaderScan) -> bool:
        """Tell whether a message has come through an alias that it is for (RFC 5321 §6.3).

        That would be found when the alias is replaced, too; but then its sender gets a report, and
        anybody can write a Delivered-To, and the name of a sender who has nothing to do with it.
        """
        for path in envelope.forward_paths:
            home = self.router.home(path.mailbox)
            if (
                has_been_at(home, scan)
                and self.router.is_ours(path.mailbox.domain)
                and await self.aliases.find(home) is not None
            ):
                return True
        return False

    async def _take(self, handed: Handed) -> Reply:
        """Judge a message whose content comes, and keep it."""
        return await self._keep(handed)

    async def _keep(
        self, handed: Handed, *, held: str | None = None, judged: Sequence[Judged] = ()
    ) -> Reply:
        """Write a message into the spool, and say how it went.

        `held` is why it stays there, `judged` what is to be told of it if it is accepted.
        """
        session, envelope, incoming = handed.session, handed.envelope, handed.incoming
        now = handed.now
        scan = HeaderScan()
        await incoming.write(handed.head)
        octets = len(handed.head)
        async for chunk in handed.content:
            scan.feed(chunk)
            if octets == len(handed.head) and chunk.startswith((b" ", b"\t")):
                # It would go on with our last field (RFC 5322 §2.2.3): it is no header, but text.
                octets += 2
                await incoming.write(b"\r\n")
            octets += len(chunk)
            await incoming.write(chunk)
        if max(scan.received, len(scan.delivered_to)) >= self.max_hops:
            return LOOP
        if scan.delivered_to and await self._is_round(envelope, scan):
            return ROUND
        origin = origin_of(session)
        commit = partial(
            incoming.commit, envelope.mail, envelope.rcpts, now=now, origin=origin, held=held
        )
        parked = None
        if self.submission is not None and self.holding is not None:
            parked = self.holding.of(session, envelope.mail, now)
        if parked is None or self.holding is None:
            await commit()
        else:
            async with self.holding.turn:
                refusal = await self.holding.refusal(parked, octets, now)
                if refusal is not None:
                    return refusal
                await commit(parked=parked)
        self.observe(
            Accepted(incoming.id, envelope.reverse_path, envelope.forward_paths, octets, origin)
        )
        for said in judged:
            self.observe(said)
        if held is not None:
            for path in envelope.forward_paths:
                self.observe(Held(incoming.id, path, held))
        self.accepted()
        return Reply(250, "2.0.0", f"Accepted as {incoming.id}")


def origin_of(session: Session) -> str:
    """Say on one line who hands a message in."""
    who = f" as {session.identity}" if session.identity is not None else ""
    tls = "" if session.tls is None else f", {session.tls.version} {session.tls.cipher}"
    return f"{session.peer[0]} by {protocol_of(session)}{who}{tls}"
