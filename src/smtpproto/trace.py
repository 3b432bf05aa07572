"""Trace fields: what a hop writes in front of a message, and how many hops it has had.

RFC 5321 §4.4 gives the two fields, RFC 3848 the protocol keywords, RFC 8314 §4.3 the ciphersuite,
RFC 5321 §6.3 the use of counting. Nothing here reads a clock; times are handed in.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

from .core.envelope import Envelope
from .core.errors import LocalProtocolError
from .core.grammar import ADDRESS_LITERAL, HELO_NAME, is_address_literal
from .core.path import ForwardPath, ReversePath, as_domain, as_octets
from .handler import Session

__all__ = [
    "END_OF_HEADER",
    "MAX_HEADER",
    "MAX_HOPS",
    "FieldRemoval",
    "HeaderScan",
    "address_literal",
    "ciphersuite",
    "count_received",
    "date_time",
    "protocol_of",
    "received",
    "return_path",
    "stamp",
    "transmission_type",
    "without_fields",
]

#: Received fields from which on a message is taken to be in a loop (RFC 5321 §6.3).
MAX_HOPS = 100
#: Octets of a header that are looked at before giving up on finding its end.
MAX_HEADER = 1 << 20

_WIDTH = 77  # octets a line wants to stay within, CRLF not counted (RFC 5322 §2.1.1)
_ATOM = re.compile(rb"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~]+(?:\.[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~]+)*")


def date_time(when: datetime) -> str:
    """Write a date-time as RFC 5322 §3.3 does, zone as digits; ValueError without a zone."""
    if when.tzinfo is None:
        raise ValueError("a date without its zone says nothing to the next hop")
    return _date_time(when)


#: A second has many messages; and a session, and a client, too.
_date_time = lru_cache(16)(format_datetime)
_own_name = lru_cache(16)(as_domain)


@lru_cache(16)
def _second(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


@lru_cache(1024)
def address_literal(address: str) -> bytes:
    """Write an IP address, given as text, as an address literal (RFC 5321 §4.1.3).

    An IPv6 scope (`%eth0`) has a meaning on this host only and is left out. ValueError if
    `address` is not an IP address.
    """
    ip = ip_address(address.partition("%")[0])
    return (f"[IPv6:{ip}]" if isinstance(ip, IPv6Address) else f"[{ip}]").encode()


def transmission_type(
    *, extended: bool, tls: bool, authenticated: bool, lmtp: bool = False, utf8: bool = False
) -> str:
    """Choose the protocol keyword of a Received field (RFC 3848, RFC 6531 §4.3).

    `extended` tells EHLO, or LHLO, from HELO, and `utf8` that MAIL asked for SMTPUTF8. There is no
    keyword for TLS or a login without EHLO.
    """
    if not extended:
        return "SMTP"
    usual, beyond = ("LMTP", "UTF8LMTP") if lmtp else ("ESMTP", "UTF8SMTP")
    return (beyond if utf8 else usual) + "S" * tls + "A" * authenticated


# How a suite before TLS 1.3 is called here and there: key exchange, cipher, hash.
_SUITE = re.compile(
    r"(?:(ECDHE|DHE)-(ECDSA|RSA)-)?(?:AES(128|256)(-GCM|-CCM8?)?|(CHACHA20-POLY1305))(?:-(SHA\d*))?"
)


def ciphersuite(name: str) -> str:
    """Return the registered name (IANA) of a suite that OpenSSL calls `name`; "" if not known.

    Known are those of TLS 1.3, and of TLS 1.2 with AES and ChaCha20.
    """
    if name.startswith("TLS_") and name.replace("_", "").isalnum() and name.isascii():
        return name  # TLS 1.3: one name for both
    match = _SUITE.fullmatch(name)
    if match is None:
        return ""
    exchange, signature, bits, mode, chacha, digest = match.groups()
    key = f"{exchange}_{signature}" if exchange else "RSA"
    if chacha:
        return f"TLS_{key}_WITH_CHACHA20_POLY1305_SHA256"
    if mode and "CCM" in mode:
        return f"TLS_{key}_WITH_AES_{bits}_{mode[1:].replace('CCM8', 'CCM_8')}"
    cipher = f"AES_{bits}_{'GCM' if mode else 'CBC'}"
    return f"TLS_{key}_WITH_{cipher}_{digest}" if digest else ""


def received(
    *,
    helo: str | bytes,
    peer: str | None,
    hostname: str | bytes,
    protocol: str,
    queue_id: str,
    recipients: Sequence[ForwardPath],
    now: datetime,
    tls: str = "",
    comment: str = "",
) -> bytes:
    """Return the Received field that a server puts in front of what it accepts (RFC 5321 §4.4).

    `helo` is the name the client gave; one that is no domain or address literal is not
    repeated, and the address stands in its place. `peer` is the client's IP address, None
    where it has none. `hostname` is ours, `protocol` a keyword of `transmission_type`,
    `queue_id` an atom that finds the message in our log. The recipient is named only where
    there is one, so that nobody learns of the others (§7.2), and its address is ASCII, so that the
    message can go on without SMTPUTF8 to whoever stands behind it. `tls` is a registered
    ciphersuite, "" where there was none (RFC 8314 §4.3). `comment`, of printable ASCII, tells what
    was changed (RFC 5321 §6.4). The result ends with CRLF; lines
    are folded within 78 octets where their words allow it.

    LocalProtocolError if `hostname`, `protocol`, `queue_id` or `tls` is not what it has to be,
    ValueError for a `peer` that is no address or a `now` without zone.
    """
    literal = b"" if peer is None else address_literal(peer)
    name = as_octets(helo)
    if not _is_helo_name(name):
        name = literal or b"unknown"
    words = [b"from", name]
    if literal:
        words.append(b"(%b)" % literal)
    words += [b"by", _own_name(hostname), b"with", _atom(protocol), b"id", _atom(queue_id)]
    if len(recipients) == 1 and recipients[0].mailbox.domain and recipients[0].mailbox.is_ascii:
        words += [b"for", recipients[0].serialize()]
    if tls:
        words += [b"tls", _atom(tls)]
    if comment:
        words += f"({comment})".encode("ascii").split(b" ")
    words[-1] += b";"
    words.append(date_time(now).encode())
    return _fold(b"Received:", words)


def protocol_of(session: Session, *, utf8: bool = False) -> str:
    """Return the protocol keyword of a session (RFC 3848), or of a message with SMTPUTF8 in it."""
    return transmission_type(
        extended=session.extended,
        tls=session.tls is not None,
        authenticated=session.identity is not None,
        lmtp=session.lmtp,
        utf8=utf8,
    )


def stamp(
    session: Session,
    envelope: Envelope,
    *,
    hostname: str,
    queue_id: str,
    now: float,
    comment: str = "",
) -> bytes:
    """Return the Received field for a message that came in a session; `now` as `time.time`."""
    return received(
        helo=session.helo_name,
        peer=session.peer[0] or None,
        hostname=hostname,
        protocol=protocol_of(session, utf8="SMTPUTF8" in envelope.mail.parameters),
        queue_id=queue_id,
        recipients=envelope.forward_paths,
        now=_second(int(now)),  # nobody writes parts of a second
        tls="" if session.tls is None else ciphersuite(session.tls.cipher),
        comment=comment,
    )


@lru_cache(1024)
def _is_helo_name(name: bytes) -> bool:
    if name[:1] == b"[":
        fits = len(name) <= 255 and ADDRESS_LITERAL.fullmatch(name) is not None
        return fits and is_address_literal(name[1:-1])
    return HELO_NAME.fullmatch(name) is not None


def _atom(text: str) -> bytes:
    octets = as_octets(text)
    if len(octets) > 255 or _ATOM.fullmatch(octets) is None:
        raise LocalProtocolError(f"not an atom: {text!r}")
    return octets


def _fold(line: bytes, words: Sequence[bytes]) -> bytes:
    # A clause's keyword stays with its value only if there is room: folds stand at any space.
    parts, at, has_word = [line], len(line), False
    for word in words:
        octets = 1 + len(word)
        if at + octets > _WIDTH and has_word:
            parts.append(b"\r\n")
            at = 0
        parts += (b" ", word)
        at, has_word = at + octets, True
    return b"".join(parts) + b"\r\n"


def return_path(reverse_path: ReversePath) -> bytes:
    """Return the Return-Path field that final delivery puts first (RFC 5321 §4.4), with CRLF."""
    return b"Return-Path: %b\r\n" % reverse_path.serialize()


class FieldRemoval:
    """Leaves fields out of a message's header while it streams by, each with its folded lines.

    `names` are those of the fields, in any case; only a whole name fits. Feed it the content's
    chunks, cut anywhere, until `ended`; what `feed` returns, and `end` behind it, is what stays.
    It keeps back the beginning of a line that may become such a field, at most what a line may
    have, and nothing else. A bare LF ends a line, too. All else stays octet by octet.
    """

    __slots__ = ("_dropping", "_ends", "_field", "_held", "_in_line", "_names", "ended")

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(name.lower().encode("ascii") for name in names)
        self._field, self._ends = _field_patterns(self._names)
        self._held = b""
        self._in_line = self._dropping = False
        #: Whether the header's end has been reached: no need to feed more.
        self.ended = not self._names

    def feed(self, chunk: bytes) -> bytes:
        """Take the next octets of the content, and return those that stay."""
        if self.ended:
            return chunk
        octets, self._held = self._held + chunk, b""
        kept: list[bytes] = []
        at = 0
        while at < len(octets):
            if not self._in_line:
                whole = self._alike(octets, at)
                if not self._dropping:
                    kept.append(octets[at:whole])
                if (at := whole) == len(octets):
                    break
                if _is_blank(octets, at):
                    self.ended = True
                    kept.append(octets[at:])
                    break
                if self._is_undecided(octets, at):
                    self._held = octets[at:]
                    break
                if octets[at] not in b" \t":  # folded lines share the fate of their first
                    found = self._field.match(octets, at, at + _LONGEST)
                    self._dropping = found is not None
            end = octets.find(b"\n", at) + 1
            self._in_line = end == 0
            if not self._dropping:
                kept.append(octets[at : end or None])
            at = end or len(octets)
        return b"".join(kept)

    def end(self) -> bytes:
        """Return what was kept back, of a content that ends within a line."""
        held, self._held = self._held, b""
        return held

    def _alike(self, octets: bytes, at: int) -> int:
        """Return how far it goes on as it is, in whole lines: they may be short, and very many."""
        if self._dropping:
            folded = _FOLDED.match(octets, at)
            return at if folded is None else folded.end()
        found = self._ends.search(octets, at)
        return max(at, octets.rfind(b"\n", at) + 1) if found is None else found.start()

    def _is_undecided(self, octets: bytes, at: int) -> bool:
        """Tell whether a line that is not all there may become a field of those, or the blank."""
        if len(octets) - at >= _LONGEST or octets.find(b"\n", at) >= 0:
            return False
        begun = octets[at:].lower()
        name = begun.rstrip(b" \t")
        if name != begun:
            return name in self._names
        return name == b"\r" or any(each.startswith(name) for each in self._names)


#: Octets of a line, CRLF not counted (RFC 5322 §2.1.1).
_LONGEST = 998


def _is_blank(octets: bytes, at: int) -> bool:
    return octets.startswith((b"\r\n", b"\n"), at)


#: Folded lines, each whole.
_FOLDED = re.compile(rb"(?:[ \t][^\n]*\n)+")


@lru_cache(64)
def _field_patterns(names: frozenset[bytes]) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    # Spaces before the colon are obsolete and read (RFC 5322 §4.5.8), as far as a line goes.
    some = b"|".join(map(re.escape, sorted(names)))
    return (
        re.compile(rb"(?:%b)[ \t]*:" % some, re.IGNORECASE),
        re.compile(rb"^(?:\r?\n|(?:%b)[ \t]*+:)" % some, re.IGNORECASE | re.MULTILINE),
    )


def without_fields(content: AsyncIterable[bytes], names: Iterable[str]) -> AsyncIterator[bytes]:
    """Leave out the fields of these names that a message came with, while it streams by.

    For those that only we may write: Return-Path at final delivery, of which one is enough
    (RFC 5321 §4.4), and the findings of filters. See `FieldRemoval`.
    """
    return _WithoutFields(content, FieldRemoval(names))


class _WithoutFields(AsyncIterator[bytes]):
    # No generator: whoever breaks off reading owes it nothing.
    def __init__(self, content: AsyncIterable[bytes], removal: FieldRemoval) -> None:
        self._chunks = aiter(content)
        self._removal = removal

    async def __anext__(self) -> bytes:
        async for chunk in self._chunks:
            if kept := self._removal.feed(chunk):
                return kept
        if kept := self._removal.end():
            return kept
        raise StopAsyncIteration


# Spaces before the colon are obsolete and read (RFC 5322 §4.5.8), up to a number, and of an address
# no more than a line may have (§2.1.1), so that _PREFIX octets of a line always decide.
# What is ahead is looked at first because that passes most lines by.
_HOP = re.compile(
    rb"^(?=[rd]e)(?:received[ \t]{0,16}:|delivered-to[ \t]{0,16}:([^\r\n]{0,980}))",
    re.IGNORECASE | re.MULTILINE,
)
_PREFIX = 1024
#: The empty line behind a header; a bare LF ends a line, too.
END_OF_HEADER = re.compile(rb"^\r?\n", re.MULTILINE)


class HeaderScan:
    """Counts the hops that a message has had, while it streams by (RFC 5321 §6.3).

    They say so by Received, and those that have replaced a recipient by Delivered-To. Feed it the
    content's chunks, cut anywhere, until `ended`. It keeps some octets of the line that a chunk
    breaks off in, MAX_HOPS addresses, and nothing else; its work is linear in what it is fed, and
    it looks at no more than `max_octets` of a header that does not end. A bare LF ends a line, too:
    whoever looks for loops should see what the hops before may have seen.
    """

    __slots__ = ("_count", "_left", "_line", "_places", "ended")

    def __init__(self, max_octets: int = MAX_HEADER) -> None:
        self._count = 0
        self._places: list[bytes] = []
        self._left = max_octets
        self._line = b""
        #: Whether the header's end, or `max_octets`, has been reached: no need to feed more.
        self.ended = max_octets <= 0

    @property
    def received(self) -> int:
        """Received fields seen so far."""
        return self._count + sum(match[1] is None for match in _HOP.finditer(self._line))

    @property
    def delivered_to(self) -> list[bytes]:
        """The first MAX_HOPS addresses that Delivered-To fields name, in small letters.

        Octets as they stand there, without angle brackets.
        """
        last = [_place(match[1]) for match in _HOP.finditer(self._line) if match[1] is not None]
        return (self._places + last)[:MAX_HOPS]

    def feed(self, chunk: bytes) -> None:
        """Take the next octets of the content; those behind the header's end change nothing."""
        if self.ended:
            return
        chunk = chunk[: self._left]
        self._left -= len(chunk)
        octets = self._line + chunk
        end = END_OF_HEADER.search(octets)
        whole = end.start() if end else octets.rfind(b"\n") + 1
        for match in _HOP.finditer(octets, 0, whole):
            if match[1] is None:
                self._count += 1
            elif len(self._places) < MAX_HOPS:
                self._places.append(_place(match[1]))
        self._line = b"" if end else octets[whole : whole + _PREFIX]
        self.ended = end is not None or self._left == 0


def _place(value: bytes) -> bytes:
    return value.strip(b" \t<>").lower()


def count_received(header: bytes, max_octets: int = MAX_HEADER) -> int:
    """Count the Received fields in a message, or its header, at the beginning of `header`."""
    scan = HeaderScan(max_octets)
    scan.feed(header)
    return scan.received
