"""What comes in: who may hand over mail, for whom, and into the spool with it.

Two listeners share one handler. SMTP takes mail for local mailboxes from everybody, and for
others only from those who may relay: who has logged in, or comes from a listed network. No
network is listed unless an operator does it, not even loopback. Submission (RFC 6409) takes mail
only from those who have logged in.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from attrs import field, frozen

from smtpproto.core.command import Mail, Rcpt
from smtpproto.core.envelope import Envelope
from smtpproto.core.path import Mailbox
from smtpproto.core.reply import Reply
from smtpproto.handler import ContentStream, Session
from smtpproto.maildir import MailboxUnavailable
from smtpproto.trace import MAX_HOPS, HeaderScan, protocol_of, stamp
from smtpproto.trust import Network, is_listed

from .aliases import Aliases, no_aliases
from .mailbox import MailboxStore
from .route import Local, Router
from .spool import Spool, SpoolUnavailable
from .story import Accepted, Observer
from .times import hold_refusal

__all__ = ["Intake", "may_relay"]

log = logging.getLogger(__name__)

LOGIN_FIRST = Reply(530, "5.7.0", "Authentication required")
NO_RELAY = Reply(550, "5.7.1", "Relaying denied")
NO_MAILBOX = Reply(550, "5.1.1", "No such mailbox here")
LOOP = Reply(554, "5.4.6", "Too many hops; this message is in a loop")
FULL = Reply(452, "4.3.1", "Insufficient system storage")
UNAVAILABLE = Reply(451, "4.3.0", "Mail system temporarily unavailable")

#: Octets by which local parts once told a host where to relay to: user%host, host!user, @a:b@c.
_ROUTING = b"%!@:"


def may_relay(session: Session, networks: Sequence[Network]) -> bool:
    """Tell whether a client may send to others than our own: it is logged in, or listed."""
    return session.identity is not None or is_listed(session.peer[0], tuple(networks))


@frozen
class Intake:
    """A handler that judges senders and recipients, and spools what it accepts.

    `clock` gives wall time in seconds since the epoch; `accepted` is called after each message
    that is safe in the spool.
    """

    hostname: str
    router: Router
    mailboxes: MailboxStore
    spool: Spool
    clock: Callable[[], float]
    observe: Observer
    accepted: Callable[[], None]
    networks: Sequence[Network] = ()
    submission: bool = False
    aliases: Aliases = no_aliases
    max_hops: int = field(default=MAX_HOPS)

    async def mail(self, session: Session, command: Mail) -> Reply | None:
        """Refuse those who may not submit before they go to any trouble (RFC 6409 §4.3).

        And a message that may not be sent before it is too late (RFC 4865 §5.2.2).
        """
        if self.submission and session.identity is None:
            return LOGIN_FIRST
        return hold_refusal(command, self.clock())

    async def rcpt(self, session: Session, command: Rcpt) -> Reply | None:
        """Accept local mailboxes that exist, and for others those who may relay."""
        mailbox = command.forward_path.mailbox
        trusted = may_relay(session, self.networks)
        if not self.router.is_local(mailbox.domain):
            return None if trusted else NO_RELAY
        if not trusted and any(octet in _ROUTING for octet in mailbox.local_part):
            # It would stay here; but who asks so wants to know whether we relay, and a yes is
            # taken for one.
            return NO_RELAY
        try:
            home = await self._at_home(mailbox)
            if await self.aliases.find(home) is not None:
                return None
            exists = await self.mailboxes.exists(home)
        except MailboxUnavailable as error:
            return error.reply
        return None if exists else NO_MAILBOX

    async def _at_home(self, mailbox: Mailbox) -> Mailbox:
        """Spell the domain as it is spelled here; the bare Postmaster gets one."""
        route = await self.router.route(mailbox.domain)
        assert isinstance(route, Local)
        return Mailbox(mailbox.local_part, route.domain)

    async def content(
        self, session: Session, envelope: Envelope, content: ContentStream
    ) -> Reply | None:
        """Put the content into the spool behind our Received line; 250 when it is on disk."""
        now = self.clock()
        scan = HeaderScan()
        try:
            async with self.spool.receive() as incoming:
                trace = stamp(
                    session, envelope, hostname=self.hostname, queue_id=incoming.id, now=now
                )
                await incoming.write(trace)
                octets = len(trace)
                async for chunk in content:
                    scan.feed(chunk)
                    octets += len(chunk)
                    await incoming.write(chunk)
                if scan.received >= self.max_hops:
                    return LOOP
                origin = _origin(session)
                await incoming.commit(envelope.mail, envelope.rcpts, now=now, origin=origin)
        except SpoolUnavailable as error:
            log.error("a message from %s is put off: %s", session.peer[0], error)
            return FULL if error.full else UNAVAILABLE
        self.observe(
            Accepted(incoming.id, envelope.reverse_path, envelope.forward_paths, octets, origin)
        )
        self.accepted()
        return Reply(250, "2.0.0", f"Accepted as {incoming.id}")


def _origin(session: Session) -> str:
    who = f" as {session.identity}" if session.identity is not None else ""
    return f"{session.peer[0]} by {protocol_of(session)}{who}"
