"""VERP: a return path for each recipient, so that a bounce says by its address who bounced.

What owner@our.dom sends to ann@else.example goes out from `owner+ann=else.example@our.dom`.
There is no RFC for it, but this form is the usual one. It costs a transaction for each recipient,
so it is for senders who are named: `Verp` knows which.

Pure; `Returns` reads such an address as an alias, and what comes to it goes to the sender it is of.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from attrs import evolve, field, frozen

from smtpproto.core.command import Mail
from smtpproto.core.errors import LocalProtocolError
from smtpproto.core.path import AnyMailbox, Mailbox, ReversePath
from smtpproto.core.status import EnhancedStatus
from smtpproto.relay.routing.transport import folded
from smtpproto.relay.spool.seam import Entry, Recipient

from .aliases import Aliases, MailingList

__all__ = ["NO_NOTICE", "Notice", "Returns", "Verp", "envelopes", "notice_in"]


def _known(senders: Iterable[AnyMailbox]) -> dict[bytes, Mailbox]:
    return {folded(mailbox): mailbox for mailbox in map(Mailbox.of, senders)}


@frozen
class Verp:
    """Senders whose mail has a return path for each recipient, and what stands in it.

    `separator` stands between the sender's local part and the recipient; it has to be what is
    understood as the beginning of a tag where bounces arrive. LocalProtocolError for a separator
    that is none, for what is no address, and for senders that could be taken for each other.
    """

    senders: dict[bytes, Mailbox] = field(converter=_known, factory=dict[bytes, Mailbox])
    separator: str = field(default="+", kw_only=True)

    def __attrs_post_init__(self) -> None:
        if re.fullmatch(r"[!-~]", self.separator) is None or self.separator in '@="\\<>':
            raise LocalProtocolError(f"no separator for addresses: {self.separator!r}")
        for one in self.senders.values():
            begins = one.local_part.lower() + self.separator.encode()
            for other in self.senders.values():
                if one.domain == other.domain and other.local_part.lower().startswith(begins):
                    raise LocalProtocolError(f"return paths of {other} could be taken for {one}'s")

    def address(self, sender: Mailbox, recipient: Mailbox) -> Mailbox:
        """Return the return path of what `sender` sends to `recipient`.

        It is `sender` itself where no such path is wanted, or it would be too long for SMTP.
        """
        if folded(sender) not in self.senders or not recipient.domain:
            return sender
        behind = b"%b=%b" % (recipient.local_part, recipient.domain)
        local = b"%b%b%b" % (sender.local_part, self.separator.encode(), behind)
        try:
            return Mailbox(local, sender.domain)
        except LocalProtocolError:
            return sender

    def read(self, mailbox: Mailbox) -> tuple[Mailbox, Mailbox] | None:
        """Return whose return path `mailbox` is, and for which recipient; None if it is none."""
        if not self.senders:
            return None
        separator = self.separator.encode()
        parts = mailbox.local_part.split(separator)
        for number in range(1, len(parts)):
            local = separator.join(parts[:number])
            user, equals, domain = separator.join(parts[number:]).rpartition(b"=")
            if not equals:
                continue
            try:
                sender = self.senders.get(folded(Mailbox(local, mailbox.domain)))
                if sender is not None:
                    return sender, Mailbox(user, domain)
            except LocalProtocolError:
                continue
        return None


def envelopes(entry: Entry, verp: Verp) -> list[Entry]:
    """Part a message by what its recipients have as MAIL; each part is a message for itself.

    A list's recipients go on under the list's, and with VERP each recipient has one of its own.
    """
    if not verp.senders and all(recipient.mail is None for recipient in entry.recipients):
        return [entry]
    parts: dict[bytes, tuple[Mail, list[Recipient]]] = {}
    for recipient in entry.recipients:
        mail = recipient.mail or entry.mail
        sender = mail.reverse_path.mailbox
        if sender is not None:
            address = verp.address(sender, recipient.rcpt.forward_path.mailbox)
            if address is not sender:
                mail = evolve(mail, reverse_path=ReversePath(address))
        parts.setdefault(mail.serialize(), (mail, []))[1].append(recipient)
    if len(parts) == 1 and next(iter(parts.values()))[0] is entry.mail:
        return [entry]
    return [
        evolve(entry, mail=mail, recipients=tuple(recipients))
        for mail, recipients in parts.values()
    ]


@frozen
class Returns:
    """Aliases that know the return paths of a Verp, besides those that it is given."""

    aliases: Aliases
    verp: Verp

    async def find(self, mailbox: Mailbox) -> Sequence[Mailbox] | MailingList | None:
        """Return what an address stands for: the sender, if it is a return path of theirs."""
        returned = self.verp.read(mailbox)
        return await self.aliases.find(mailbox) if returned is None else [returned[0]]


# --- what a bounce says ----------------------------------------------------------------------


@frozen
class Notice:
    """What a message to a return path says, by its first such fields (RFC 3464 §2.3).

    `action` is one of RFC 3464's words in small letters, None where it is no report. Whoever knows
    the address can send such a message: it is a hint and no proof.
    """

    action: str | None = None
    status: EnhancedStatus | None = None


NO_NOTICE = Notice()

_ACTION = re.compile(
    rb"^action[ \t]{0,16}:[ \t]{0,16}(failed|delayed|delivered|relayed|expanded)\b",
    re.IGNORECASE | re.MULTILINE,
)
_STATUS = re.compile(
    rb"^status[ \t]{0,16}:[ \t]{0,16}([245])\.(\d{1,3})\.(\d{1,3})\b", re.IGNORECASE | re.MULTILINE
)


def notice_in(beginning: bytes) -> Notice:
    """Read what the beginning of a message says of a delivery. It is searched, not parsed."""
    action, status = _ACTION.search(beginning), _STATUS.search(beginning)
    if action is None:
        return NO_NOTICE
    told = None if status is None else EnhancedStatus(*map(int, status.groups()))
    return Notice(action[1].decode().lower(), told)
