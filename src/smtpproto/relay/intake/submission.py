"""Submission (RFC 6409): what is asked of a mail program, and done for it.

Who submits has logged in; sends under an address of their own; names domains in full; and hands
over a message as RFC 5322 has it, but for what is completed here: Date, Message-ID, From, Sender.
Bcc goes. All else is refused with the reason, and nothing is repaired by guessing. Fields that stay
keep their octets, and what is added stands in front, so that a signature (DKIM) stays good.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Self

from anyio import to_thread
from attrs import field, frozen

from smtpproto.core.command import Mail, Rcpt
from smtpproto.core.envelope import Envelope
from smtpproto.core.errors import LocalProtocolError
from smtpproto.core.path import Mailbox
from smtpproto.core.reply import Reply
from smtpproto.handler import ContentError, ContentStream, Session
from smtpproto.message import mailboxes_in
from smtpproto.relay.accounts.login import SenderPolicy, every_sender
from smtpproto.relay.content.header import (
    MAX_LINE,
    Field,
    ImproperError,
    is_date,
    is_message_id,
    split_header,
)
from smtpproto.trace import END_OF_HEADER, MAX_HEADER, date_time

__all__ = ["Submission", "Submitted"]

LOGIN_FIRST = Reply(530, "5.7.0", "Authentication required")
TOO_LONG = Reply(554, "5.6.0", f"A header has at most {MAX_HEADER} octets")
LONG_LINE = Reply(554, "5.6.0", f"A line has more than {MAX_LINE} octets (RFC 5322 2.1.1)")

#: Octets of a header from which on it is read in a thread: it takes seconds for the largest.
BIG = 1 << 13
#: What there may be one of (RFC 5322 §3.6).
_ONCE = (
    *("from", "sender", "reply-to", "to", "cc", "bcc", "date", "message-id"),
    *("in-reply-to", "references", "subject"),
)
_SENDERS = ("from", "sender", "resent-from", "resent-sender")
_ADDRESSES = (*_SENDERS, "reply-to", "to", "cc", "resent-to", "resent-cc")
#: Blind copies are blind, and Return-Path is written by who delivers (RFC 5321 §4.4).
_BLIND = ("bcc", "resent-bcc")
#: Fields that say nothing when they are empty, and then are not as RFC 5322 has them.
_EMPTY = ("reply-to", "to", "cc", "resent-to", "resent-cc")


@frozen
class Submission:
    """What a submission listener asks beyond what others do.

    `is_local` tells whether a domain is ours: such a name needs no dot. `senders` tells who may
    send as whom. `keep_bcc` leaves Bcc fields where they are. `hostname` is ours, for Message-ID.
    """

    hostname: str
    is_local: Callable[[bytes], bool]
    senders: SenderPolicy = every_sender
    keep_bcc: bool = field(default=False, kw_only=True)

    async def mail(self, session: Session, command: Mail) -> Reply | None:
        """Refuse who has not logged in (RFC 6409 §4.3), or sends as somebody else (§6.1)."""
        if session.identity is None:
            return LOGIN_FIRST
        mailbox = command.reverse_path.mailbox
        if mailbox is None:
            return None
        if not self._is_complete(mailbox):
            return Reply(554, "5.1.8", "The sender's domain is not complete")
        return None if await self.senders(session.identity, mailbox) else _not_yours(mailbox)

    def rcpt(self, command: Rcpt) -> Reply | None:
        """Refuse a recipient whose domain is not complete (RFC 6409 §4.2)."""
        mailbox = command.forward_path.mailbox
        if self._is_complete(mailbox):
            return None
        return Reply(554, "5.1.2", "The recipient's domain is not complete")

    async def complete(
        self, session: Session, envelope: Envelope, content: ContentStream, *, id: str, now: float
    ) -> Submitted:
        """Read the header, and return the content with that completed.

        `id` is an atom for a Message-ID, `now` as `time.time`. ContentError, with the reply, for a
        message that is refused; so may reading what is returned.
        """
        octets = bytearray()
        end = None
        async for chunk in content:
            begin = max(0, len(octets) - 1)
            octets += chunk
            if end := END_OF_HEADER.search(octets, begin):
                break
            if len(octets) > MAX_HEADER:
                raise ContentError(TOO_LONG)
        at = len(octets) if end is None else end.start()
        read = partial(self._read, bytes(octets[:at]), utf8="SMTPUTF8" in envelope.mail.parameters)
        try:
            fields, named = read() if at < BIG else await to_thread.run_sync(read)
            added = self._missing(envelope.mail, fields, named, id, now)
        except ImproperError as error:
            raise ContentError(Reply(554, "5.6.0", str(error)[:400])) from None
        for each, mailboxes in named.items():
            if each.name in _SENDERS:
                await self._check_sender(session, each, mailboxes)
        head = [b"%b: %b\r\n" % each for each in added]
        head += [each.octets for each in fields if self._stays(each)]
        names = ", ".join(name.decode() for name, _ in added)
        comment = f"added: {names}" if names else ""
        return Submitted(b"".join(head), bytes(octets[at:]), content, comment)

    def _read(self, header: bytes, *, utf8: bool) -> tuple[list[Field], dict[Field, list[Mailbox]]]:
        """Return the fields, and the mailboxes that each of them names. ImproperError."""
        fields = split_header(header, utf8=utf8)
        count = Counter(each.name for each in fields)
        for name in _ONCE:
            if count[name] > 1:
                raise ImproperError(f"{count[name]} fields {name.title()}, where one may be")
        return fields, {
            each: self._mailboxes(each) for each in fields if each.name in _ADDRESSES and each.value
        }

    def _mailboxes(self, field: Field) -> list[Mailbox]:
        try:
            mailboxes = mailboxes_in(field.name, field.value)
        except LocalProtocolError as error:
            raise ImproperError(str(error)) from None
        for mailbox in mailboxes:
            if not self._is_complete(mailbox):
                raise ImproperError(
                    f"{field.name} has a domain that is not complete: {str(mailbox)!a}"
                )
        if field.name in ("sender", "resent-sender") and len(mailboxes) != 1:
            raise ImproperError(f"{field.name} names one mailbox (RFC 5322 3.6.2)")
        if field.name in ("from", "resent-from") and not mailboxes:
            raise ImproperError(f"{field.name} names nobody")
        return mailboxes

    def _missing(
        self,
        mail: Mail,
        fields: Sequence[Field],
        named: dict[Field, list[Mailbox]],
        id: str,
        now: float,
    ) -> list[tuple[bytes, bytes]]:
        """Return the fields that have to be added (RFC 6409 §8.1 to §8.3)."""
        values = {each.name: each.value for each in fields}
        authors = [mailboxes for each, mailboxes in named.items() if each.name == "from"]
        senders = [each for each in named if each.name == "sender"]
        path = mail.reverse_path.mailbox
        added: list[tuple[bytes, bytes]] = []
        if not is_date(values.get("date", b"")):
            added.append((b"Date", date_time(datetime.fromtimestamp(now, UTC)).encode()))
        if not is_message_id(values.get("message-id", b"")):
            added.append((b"Message-ID", b"<%b@%b>" % (id.encode(), self.hostname.encode())))
        if not authors or (len(authors[0]) > 1 and not senders):
            what = "Sender" if authors else "From"
            if path is None:
                raise ImproperError(f"there is no {what}, and no sender in MAIL to take for one")
            if not path.is_ascii and "SMTPUTF8" not in mail.parameters:
                raise ImproperError(f"there is no {what}")
            added.append((what.encode(), path.serialize()))
        return added

    async def _check_sender(
        self, session: Session, field: Field, mailboxes: Sequence[Mailbox]
    ) -> None:
        for mailbox in dict.fromkeys(mailboxes):
            if not await self.senders(session.identity or "", mailbox):
                raise ContentError(_not_yours(mailbox, field.name))

    def _stays(self, field: Field) -> bool:
        if field.name in _BLIND:
            return self.keep_bcc
        if field.name == "date":
            return is_date(field.value)
        if field.name == "message-id":
            return is_message_id(field.value)
        if field.name in ("from", "sender", *_EMPTY):
            return bool(field.value)
        return field.name != "return-path"

    def _is_complete(self, mailbox: Mailbox) -> bool:
        domain = mailbox.domain
        return b"." in domain or domain[:1] in (b"", b"[") or self.is_local(domain)


def _not_yours(mailbox: Mailbox, field: str = "") -> Reply:
    whom = str(mailbox) if mailbox.is_ascii else "this address"
    where = f"{field.title()}: " if field else ""
    return Reply(550, "5.7.1", f"{where}you may not send as {whom}")


class Submitted(AsyncIterator[bytes]):
    """The content of a submitted message: its header, then the rest as it comes.

    `comment` says what was added, for Received (RFC 5321 §6.4). ContentError behind a line that is
    too long.
    """

    def __init__(self, header: bytes, begun: bytes, rest: ContentStream, comment: str) -> None:
        self.comment = comment
        self._header = header
        self._begun = begun
        self._rest = rest
        self._line = 0  # octets of the line that the last chunk broke off in

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._header:
            header, self._header = self._header, b""
            return header
        if self._begun:
            chunk, self._begun = self._begun, b""
        else:
            chunk = await anext(self._rest)
        self._measure(chunk)
        return chunk

    def _measure(self, chunk: bytes) -> None:
        first, *others = map(len, chunk.split(b"\n"))
        longest = max(self._line + first, *others, 0)
        self._line = others[-1] if others else self._line + first
        if longest > MAX_LINE + 1:  # CR is counted
            raise ContentError(LONG_LINE)
