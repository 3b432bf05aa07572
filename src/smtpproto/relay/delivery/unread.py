"""What becomes of a message that the spool cannot give: it waits, and who looks after it hears.

It is tried again as any other, for the disk may come back, or somebody put the content there as it
was; and its sender hears in time that it is late, and that it was given up.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from smtpproto.core.reply import Reply
from smtpproto.relay.routing.transport import canonical
from smtpproto.relay.spool.seam import DamagedError, Entry, Recipient, SpoolUnavailable
from smtpproto.result import Fate

from .attempt import Attempt

__all__ = ["unread", "was_unread"]

log = logging.getLogger(__name__)

#: Why, is for the operator.
UNREADABLE = Reply(451, "4.3.0", "The message cannot be read from the queue for now")
DAMAGED = Reply(451, "4.3.0", "The message is damaged in the queue")
_SAID = (str(UNREADABLE), str(DAMAGED))


def was_unread(entry: Entry) -> bool:
    """Tell whether the last attempt came to nothing because the message could not be read."""
    return any(recipient.last_reply in _SAID for recipient in entry.recipients)


def unread(
    entry: Entry, recipients: Sequence[Recipient], error: SpoolUnavailable
) -> Sequence[Attempt]:
    """Put some recipients off; the log says why, but not again at each attempt."""
    damaged = isinstance(error, DamagedError)
    if not was_unread(entry):
        if damaged:
            log.error("%s; it is not sent: see `smtpproto queue check`", error)
        else:
            log.error("message %s cannot be read: %s", entry.id, error)
    reply = DAMAGED if damaged else UNREADABLE
    return [
        Attempt(each, Fate.TRANSIENT, canonical(each.rcpt.forward_path.mailbox.domain), reply)
        for each in recipients
    ]
