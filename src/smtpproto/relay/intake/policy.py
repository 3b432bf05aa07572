"""Who may send, and to whom.

`Policy` is the seam: it is asked of every client, and knows nothing of what exists here or has
room, which is asked behind it. `HousePolicy` is the one real policy: everybody may send to us, and
to others who has logged in or comes from a listed network. No network is listed unless an operator
does it, not even loopback.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import anyio
from attrs import frozen

from smtpproto.core.command import Mail, Rcpt
from smtpproto.core.reply import Reply
from smtpproto.handler import Session
from smtpproto.trust import Network, is_listed

__all__ = ["HousePolicy", "Policy"]

NO_RELAY = Reply(550, "5.7.1", "Relaying denied")
NULL_SENDER = Reply(550, "5.7.27", "Sender's domain does not accept mail")  # RFC 7505 §4.1

#: So many seconds a client waits for what the DNS says of its sender; it may stay unsaid.
SENDER_PATIENCE = 5.0

#: Octets by which local parts once told a host where to relay to: user%host, host!user, @a:b@c.
_ROUTING = b"%!@:"


class Policy(Protocol):
    """Tells whom mail is taken from, and for whom.

    A refusal is 4yz or 5yz; None is no objection. What is raised is answered with 451.
    """

    def trusts(self, session: Session) -> bool:
        """Tell whether a client is one of ours. Filters spare it; asked often, so of memory."""
        ...

    async def sender(self, session: Session, command: Mail) -> Reply | None:
        """Judge a sender. On a listener for submission, those who may submit."""
        ...

    async def recipient(self, session: Session, command: Rcpt, *, ours: bool) -> Reply | None:
        """Judge a recipient: `ours`, or one whose mail would have to go on to somebody else.

        `session.preamble(Mail)` is who sends. Nobody else keeps strangers from relaying: who has no
        objection here makes us send the mail (RFC 5321 §7.9).
        """
        ...


@frozen
class HousePolicy:
    """The rules of this house: from everybody to us, and from our own to everybody.

    `networks` are our own, and so is who has logged in. `takes_no_mail` tells of a sender's domain
    whether it says so itself: from there no stranger may send, for nobody would get a report
    (RFC 7505 §4.1). `Router.takes_no_mail` asks the DNS; None: nobody is asked.
    """

    networks: Sequence[Network] = ()
    takes_no_mail: Callable[[bytes], Awaitable[bool]] | None = None

    def trusts(self, session: Session) -> bool:
        """Tell whether a client may send to others than us: it is logged in, or listed."""
        return session.identity is not None or is_listed(session.peer[0], tuple(self.networks))

    async def sender(self, session: Session, command: Mail) -> Reply | None:
        """Refuse a stranger whose domain takes no mail."""
        sender = command.reverse_path.mailbox
        if sender is None or self.takes_no_mail is None or self.trusts(session):
            return None
        with anyio.move_on_after(SENDER_PATIENCE):
            if await self.takes_no_mail(sender.domain):
                return NULL_SENDER
        return None

    async def recipient(self, session: Session, command: Rcpt, *, ours: bool) -> Reply | None:
        """Refuse strangers who would have us relay."""
        if self.trusts(session):
            return None
        # A name with a route in it would stay here; but who asks for one wants to know whether we
        # relay, and a yes is taken for one.
        local_part = command.forward_path.mailbox.local_part
        return None if ours and not any(o in _ROUTING for o in local_part) else NO_RELAY
