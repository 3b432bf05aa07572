"""What is to be sent later (FUTURERELEASE), and how much of it each may have here at one time.

RFC 4865 §6: mail that waits for its time fills the queue, and who may submit would have all the
room there is; so each has a share. What is refused has not the status that the RFC gave it, 5.7.16:
in the registry that has become another's (RFC 6710).
"""

from __future__ import annotations

import anyio
from attrs import define, field

from smtpproto.core.command import Mail
from smtpproto.core.errors import GrammarError
from smtpproto.core.reply import Reply
from smtpproto.extensions.size import SIZE_OCTETS
from smtpproto.handler import Session
from smtpproto.relay.accounts.passwd import key_of
from smtpproto.relay.delivery.times import release_time
from smtpproto.relay.mailboxes.quota import Quota, Usage
from smtpproto.relay.spool.seam import Parked, Spool

__all__ = ["Holding"]

USED_UP = Reply(552, "5.7.0", "You have too much mail here that is to be sent later")


@define(eq=False)
class Holding:
    """Sees that nobody has more mail waiting for its time than `quota`, over all listeners.

    What is counted is in `spool`. A name in any case is the same name, as in the file of accounts.
    """

    spool: Spool
    quota: Quota = field(factory=Quota)

    #: Held from the last look until the message is counted, so that two do not take one place.
    turn: anyio.Lock = field(factory=anyio.Lock, init=False)

    def of(self, session: Session, mail: Mail, now: float) -> Parked | None:
        """Return whose a message is that is to be sent later, and when; None for any other."""
        until = release_time(mail, now)
        if session.identity is None or until is None or until <= now:
            return None
        try:
            return Parked(key_of(session.identity), until)
        except GrammarError:
            return Parked(session.identity, until)

    async def refusal(self, parked: Parked, octets: int, now: float) -> Reply | None:
        """Refuse a message of so many octets that would go beyond the quota. SpoolUnavailable."""
        if self.quota == Quota():
            return None
        messages, there = await self.spool.parked(parked.owner, now)
        used = Usage(there + max(octets, 1), messages + 1)
        return None if self.quota.holds(used) else USED_UP

    async def mail(self, session: Session, command: Mail, now: float) -> Reply | None:
        """Judge MAIL, by the SIZE that it declares (RFC 4865 §6). SpoolUnavailable."""
        parked = self.of(session, command, now)
        if parked is None:
            return None
        return await self.refusal(parked, SIZE_OCTETS.of(command.parameters) or 0, now)
