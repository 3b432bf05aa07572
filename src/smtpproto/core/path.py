"""Mailboxes and the two paths (RFC 5321 §4.1.2): who sent it, and for whom."""

from __future__ import annotations

import re
from typing import TypeAlias

from attrs import field, frozen

from .errors import GrammarError, LocalProtocolError
from .grammar import (
    ADDRESS_LITERAL,
    CONTROL,
    DOMAIN,
    DOMAIN_UTF8,
    DOT_STRING,
    DOT_STRING_UTF8,
    PATH,
    PATH_UTF8,
    QUOTED_PAIR,
    is_address_literal,
)
from .value import taker

__all__ = [
    "AnyForwardPath",
    "AnyMailbox",
    "AnyReversePath",
    "ForwardPath",
    "Mailbox",
    "ReversePath",
    "as_domain",
    "as_octets",
    "is_utf8",
]

MAX_PATH = 256  # octets, with the brackets (§4.5.3.1.3)
MAX_DOMAIN = 255  # octets (§4.5.3.1.2)
_POSTMASTER = b"Postmaster"
# §4.5.3.1.1 asks everybody to take 64 octets of local part; return paths that carry the
# recipient's address (VERP) are longer in daily life, so the path's limit is the only one.

AnyMailbox: TypeAlias = "Mailbox | str | bytes"
AnyReversePath: TypeAlias = "ReversePath | Mailbox | str | bytes | None"
AnyForwardPath: TypeAlias = "ForwardPath | Mailbox | str | bytes"


def as_octets(value: str | bytes) -> bytes:
    """Encode what a caller gives as text; UTF-8, so that nothing is lost before it is judged.

    Surrogates, too, become octets, which no rule of the grammar takes. A buffer is copied: what
    was judged must not change behind that.
    """
    if isinstance(value, str):
        return value.encode(errors="surrogatepass")
    return value if type(value) is bytes else bytes(memoryview(value))


def as_domain(value: str | bytes, *, utf8: bool = False) -> bytes:
    """Check a Domain or address-literal (§4.1.2) that a caller gives; LocalProtocolError else.

    With `utf8`, labels may be U-labels in UTF-8 (RFC 6531 §3.3).
    """
    domain = as_octets(value)
    if not _is_domain(domain, DOMAIN_UTF8 if utf8 and not domain.isascii() else DOMAIN):
        raise LocalProtocolError(f"not a domain or address literal: {domain!r}")
    return domain


def _is_domain(domain: bytes, grammar: re.Pattern[bytes]) -> bool:
    if len(domain) > MAX_DOMAIN:
        return False
    if domain[:1] == b"[":
        return bool(ADDRESS_LITERAL.fullmatch(domain)) and is_address_literal(domain[1:-1])
    return grammar.fullmatch(domain) is not None


def _match_path(octets: bytes, at: int = 0) -> re.Match[bytes] | None:
    match = PATH.match(octets, at)
    return match or (None if octets.isascii() else PATH_UTF8.match(octets, at))


class _Written:
    __slots__ = ("_wire",)
    _wire: bytes  # once it was written: one address stands in many lines


@frozen
class Mailbox(_Written):
    """A local part at a domain.

    `local_part` holds the octets that are meant, without quotes or backslashes, so that quoted
    and unquoted forms are equal (§4.1.2). `domain` is a Domain or an address literal with its
    brackets, compared without regard to case; it is empty for the bare `Postmaster` alone, which
    has one spelling, as its case means nothing (§4.1.1.3).
    Both may hold UTF-8 (RFC 6531 §3.3), which only passes in a transaction that asked for
    SMTPUTF8; it is never normalised. Making one raises LocalProtocolError where the grammar has
    no way to write it.
    """

    local_part: bytes = field(converter=as_octets)
    domain: bytes = field(converter=as_octets, eq=bytes.lower)

    def __attrs_post_init__(self) -> None:
        if CONTROL.search(self.local_part) or not is_utf8(self.local_part):
            raise LocalProtocolError(f"octets no local part can hold: {self.local_part!r}")
        if not self.domain and self.local_part.lower() == b"postmaster":
            object.__setattr__(self, "local_part", _POSTMASTER)
        else:
            as_domain(self.domain, utf8=True)
        if len(self.serialize()) + 2 > MAX_PATH:
            raise LocalProtocolError(f"a path has at most {MAX_PATH} octets (RFC 5321 §4.5.3.1.3)")

    @classmethod
    def parse(cls, text: str | bytes) -> Mailbox:
        """Read `local@domain` as SMTP writes it, quotes included; GrammarError if it is not one."""
        octets = as_octets(text)
        path = b"<%b>" % octets
        match = _match_path(path)
        if match is None or match.end() != len(path) or octets.startswith(b"@"):
            raise GrammarError(f"not a mailbox: {octets!r}", 501, "5.1.3")
        return _from_match(match, "5.1.3")

    @classmethod
    def of(cls, value: AnyMailbox) -> Mailbox:
        """Take a Mailbox, or text that a caller means as one; LocalProtocolError if it is not."""
        if isinstance(value, Mailbox):
            return value
        try:
            return cls.parse(value)
        except GrammarError as error:
            raise LocalProtocolError(str(error)) from None

    def serialize(self) -> bytes:
        """Write it with the least quoting that will do (§4.1.2)."""
        wire: bytes | None = getattr(self, "_wire", None)
        if wire is None:
            local = self.local_part
            if (DOT_STRING if local.isascii() else DOT_STRING_UTF8).fullmatch(local) is None:
                local = b'"%b"' % local.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
            wire = b"%b@%b" % (local, self.domain) if self.domain else local
            object.__setattr__(self, "_wire", wire)
        return wire

    @property
    def is_ascii(self) -> bool:
        """Whether it needs no SMTPUTF8."""
        return self.local_part.isascii() and self.domain.isascii()

    def __str__(self) -> str:
        return self.serialize().decode()


_take_mailbox = taker(Mailbox, "local_part", "domain")


def is_utf8(octets: bytes) -> bool:
    """Tell whether octets are text in UTF-8 (RFC 3629)."""
    try:
        octets.decode()
    except UnicodeDecodeError:
        return False
    return True


def _from_match(match: re.Match[bytes], status: str) -> Mailbox:
    local, domain = match.groups()
    if len(local) + len(domain) + len("<@>") > MAX_PATH:
        raise GrammarError("address too long", 501, status)
    if domain[:1] == b"[" and not is_address_literal(domain[1:-1]):
        raise GrammarError("malformed address literal", 501, status)
    if local[:1] == b'"':
        local = QUOTED_PAIR.sub(rb"\1", local[1:-1])
    return _take_mailbox(local, domain)


def _mailbox_or_null(value: AnyMailbox | None) -> Mailbox | None:
    return Mailbox.of(value) if value else None


@frozen
class ReversePath:
    """Where reports about a message go: a mailbox, or None for the null path `<>` (§4.5.5)."""

    mailbox: Mailbox | None = field(converter=_mailbox_or_null)

    def __attrs_post_init__(self) -> None:
        if self.mailbox and not self.mailbox.domain:
            raise LocalProtocolError("a reverse path needs a domain")

    @classmethod
    def read(cls, octets: bytes, at: int = 0) -> tuple[ReversePath, int]:
        """Read `<>` or `<[route:]mailbox>` at offset `at`; return it and the offset behind it.

        GrammarError 501 5.1.7 if neither stands there.
        """
        match = _match_path(octets, at)
        if match is not None:
            return _take_reverse_path(_from_match(match, "5.1.7")), match.end()
        if octets.startswith(b"<>", at):
            return NULL_PATH, at + 2
        raise GrammarError("malformed sender address", 501, "5.1.7")

    @classmethod
    def of(cls, value: AnyReversePath) -> ReversePath:
        """Take a path, a mailbox or its text; None and "" mean the null path."""
        return value if isinstance(value, ReversePath) else cls(value)

    def serialize(self) -> bytes:
        """Write it, brackets included; `<>` for the null path."""
        return b"<%b>" % (self.mailbox.serialize() if self.mailbox else b"")

    def __str__(self) -> str:
        return self.serialize().decode()


_take_reverse_path = taker(ReversePath, "mailbox")
NULL_PATH = _take_reverse_path(None)


def _mailbox(value: AnyMailbox) -> Mailbox:
    return Mailbox.of(value)


@frozen
class ForwardPath:
    """Where a message goes: a mailbox; the bare `<Postmaster>` is one without a domain."""

    mailbox: Mailbox = field(converter=_mailbox)

    @classmethod
    def read(cls, octets: bytes, at: int = 0) -> tuple[ForwardPath, int]:
        """Read `<[route:]mailbox>` or `<Postmaster>` at offset `at`; return it and what is behind.

        GrammarError 501 5.1.3 if neither stands there.
        """
        match = _match_path(octets, at)
        if match is not None:
            return _take_forward_path(_from_match(match, "5.1.3")), match.end()
        end = at + len(b"<postmaster>")
        if octets[at:end].lower() == b"<postmaster>":
            return _take_forward_path(_take_mailbox(_POSTMASTER, b"")), end
        raise GrammarError("malformed recipient address", 501, "5.1.3")

    @classmethod
    def of(cls, value: AnyForwardPath) -> ForwardPath:
        """Take a path, a mailbox or its text; "Postmaster" alone is the bare one."""
        if isinstance(value, ForwardPath):
            return value
        if not isinstance(value, Mailbox) and as_octets(value).lower() == b"postmaster":
            return cls(Mailbox(value, b""))
        return cls(value)

    def serialize(self) -> bytes:
        """Write it, brackets included."""
        return b"<%b>" % self.mailbox.serialize()

    def __str__(self) -> str:
        return self.serialize().decode()


_take_forward_path = taker(ForwardPath, "mailbox")
