"""What the header of a message says of its envelope (RFC 5322 §3.6.2, §3.6.3, §3.6.6)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from email.errors import InvalidHeaderDefect
from email.headerregistry import BaseHeader
from email.message import Message
from itertools import pairwise
from typing import Any

from .core.envelope import Envelope
from .core.errors import LocalProtocolError
from .core.path import Mailbox

__all__ = ["envelope_of", "mailboxes_in"]

_RECIPIENTS = ("To", "Cc", "Bcc")
_RESENT = ("Resent-From", "Resent-Sender", "Resent-Date", *(f"Resent-{x}" for x in _RECIPIENTS))

_FOLD = re.compile(rb"\r?\n(?=[ \t])")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
# White space, a quoted string, a domain literal, an atom with UTF-8 (RFC 6532 §3.2), or a special.
_TOKEN = re.compile(
    rb'[ \t]+|"(?:[^"\\]|\\.)*"|\[[^][\\]*\]|[^][ \t()<>:;@\\,."]+|[<>:;@,.]', re.DOTALL
)
_IN_COMMENT = re.compile(rb"(?:[^()\\]|\\.)*", re.DOTALL)
_SPECIALS = frozenset([b"<", b">", b":", b";", b"@", b",", b"."])


def envelope_of(message: Message[Any, Any]) -> Envelope:
    """Return the envelope that the header of a message asks for.

    The sender is that of Sender, or without it the one of From; the recipients are those of To,
    Cc and Bcc, in this order, each once, a group's members among them. Has the message been
    resent, then these are the fields with Resent- (RFC 5322 §3.6.6), and no others. The message
    stays as it is; sent as content, it goes without its Bcc.

    Raises LocalProtocolError where that is not clear: no sender, or several; no recipient; an
    address that is none, or cannot be written in SMTP; a line end or another control character
    that would begin something new; fields of more than one resending.
    """
    fields: dict[str, list[object]] = {}
    for name, value in message.raw_items():
        fields.setdefault(name.lower(), []).append(value)
    resent = [name for name in _RESENT if name.lower() in fields]
    if any(len(fields[name.lower()]) > 1 for name in resent):
        raise LocalProtocolError("resent more than once: which Resent- fields count is not clear")
    prefix = "Resent-" if resent else ""

    def mailboxes(*names: str) -> Iterator[Mailbox]:
        for name in names:
            for value in fields.get(name.lower(), ()):
                yield from _mailboxes(name, value)

    sender = prefix + "Sender" if prefix.lower() + "sender" in fields else prefix + "From"
    senders = list(mailboxes(sender))
    if not senders:
        raise LocalProtocolError(f"no sender in {sender}")
    if len(senders) > 1:
        raise LocalProtocolError(f"{len(senders)} senders in {sender}: which? (RFC 5322 §3.6.2)")
    recipients = dict.fromkeys(mailboxes(*(prefix + name for name in _RECIPIENTS)))
    if not recipients:
        raise LocalProtocolError(
            f"no recipient in {', '.join(prefix + name for name in _RECIPIENTS)}"
        )
    return Envelope(senders[0], recipients)


def mailboxes_in(name: str, value: bytes) -> list[Mailbox]:
    """Return the mailboxes of an address-list (RFC 5322 §3.4), a group's members among them.

    `value` is what stands behind the colon of the field `name`, folded or not. As strict as
    `envelope_of`: LocalProtocolError, in ASCII, for what is malformed.
    """
    return list(_mailboxes(name, value.decode("ascii", "surrogateescape")))


def _mailboxes(name: str, value: object) -> Iterator[Mailbox]:
    """Read an address-list (RFC 5322 §3.4, §4.4), without its names and comments.

    Strictly: what a lenient reader repairs, two of them repair differently, and the message goes
    to somebody whom nobody meant. Encoded words are not decoded, for they make no address
    (RFC 2047 §5).
    """
    if isinstance(value, BaseHeader):  # made of text by the email package, which repairs
        for defect in value.defects:
            if isinstance(defect, InvalidHeaderDefect):
                raise LocalProtocolError(f"{name}: {defect}: read as {str(value)!r}")
    try:
        # As parsed from octets, what is not ASCII stands there in escapes.
        octets = _FOLD.sub(b"", str(value).encode(errors="surrogateescape"))
        if _CONTROL.search(octets):
            raise ValueError("a line end or another control character")
        yield from map(Mailbox.of, _addresses(_tokens(octets)))
    except (ValueError, LocalProtocolError) as error:
        raise LocalProtocolError(f"{name}: {error}: {str(value)!r}") from None


def _tokens(octets: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(octets):
        if octets[at : at + 1] == b"(":
            at = _behind_comment(octets, at)
            continue
        match = _TOKEN.match(octets, at)
        if match is None:
            raise ValueError("no list of addresses")
        at = match.end()
        if not match[0].isspace():
            yield match[0]


def _behind_comment(octets: bytes, at: int) -> int:
    depth = 0
    while True:
        if octets[at : at + 1] == b"(":
            depth += 1
        elif octets[at : at + 1] == b")":
            depth -= 1
            if not depth:
                return at + 1
        else:
            raise ValueError("a comment without its end")
        match = _IN_COMMENT.match(octets, at + 1)
        assert match is not None
        at = match.end()


def _addresses(tokens: Iterable[bytes]) -> Iterator[bytes]:
    """Give the addr-spec of each mailbox."""
    words: list[bytes] = []  # of the mailbox that is being read: a name, or the address itself
    angle: list[bytes] | None = None  # the address in angle brackets
    closed = grouped = False
    for token in tokens:
        if angle is not None and not closed:
            if token == b">":
                closed = True
            else:
                angle.append(token)
        elif token in (b",", b";"):
            if words or angle is not None:
                yield _addr_spec(words, angle)
            words, angle, closed = [], None, False
            if token == b";":
                if not grouped:
                    raise ValueError("the end of no group")
                grouped = False
        elif token == b":":
            if grouped or not words or b"@" in words:
                raise ValueError("a colon where no group begins")
            words, grouped = [], True
        elif closed:
            raise ValueError("something behind an address")
        elif token == b"<":
            angle = []
        else:
            words.append(token)
    if grouped or (angle is not None and not closed):
        raise ValueError("a group or an address without its end")
    if words or angle is not None:
        yield _addr_spec(words, angle)


def _addr_spec(words: list[bytes], angle: list[bytes] | None) -> bytes:
    if angle is not None:
        if b"@" in words:
            raise ValueError("a name with an @ and without quotes")
        if angle[:1] == [b"@"] and b":" in angle:  # a route (§4.4), which means nothing any more
            angle = angle[angle.index(b":") + 1 :]
        words = angle
    if any(not _SPECIALS & {one, other} for one, other in pairwise(words)):
        raise ValueError("no address")
    return b"".join(words)
