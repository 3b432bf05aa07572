"""A message's content as it lies in the spool, for those who want it otherwise."""

from __future__ import annotations

from collections.abc import AsyncIterator

from smtpproto.core.reply import Reply
from smtpproto.relay.spool.seam import Entry, Spool

from .downgrade import downgraded, survey

__all__ = ["CannotGoError", "body_of", "mailbox_content", "unfit"]


class CannotGoError(Exception):
    """The message may not go there, nor to another host of the domain; `reply` says why."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


def body_of(entry: Entry) -> str:
    """Return what BODY said of the content when it came; empty where it said nothing."""
    return str(entry.mail.parameters.get("BODY") or b"", "ascii", "replace").upper()


def unfit(what: str, objection: str) -> Reply:
    """Return the refusal of content that would have to be converted, and cannot be."""
    return Reply(554, "5.6.3", f"{what}, and this message cannot be converted: {objection}")


async def mailbox_content(spool: Spool, entry: Entry) -> AsyncIterator[bytes]:
    """Return the content for a mailbox; CannotGoError if it may not be kept there.

    Mailboxes keep lines, each with the line end that is usual there. So what came as BINARYMIME
    and has octets that are no lines is encoded: not a bit of it may be lost (RFC 3030 §3).
    """
    if body_of(entry) == "BINARYMIME":
        found = await survey(spool.content(entry.id), eight_bit=True, lines=True)
        if found.objection and not found.as_it_is:
            raise CannotGoError(unfit("Mailboxes here take no binary content", found.objection))
        if not found.as_it_is:
            return downgraded(spool.content(entry.id), eight_bit=True)
    return spool.content(entry.id)
