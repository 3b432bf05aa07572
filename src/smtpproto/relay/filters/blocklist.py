"""Block lists over the DNS (RFC 5782): is a client's address, or a sender's domain, on one?"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Literal, Protocol

from attrs import frozen

from smtpproto.core.reply import Reply
from smtpproto.resolve import ResolveError, ResolveFailed
from smtpproto.security import a_labels
from smtpproto.trust import as_address

from .seam import Accept, Answer, Refuse, Seen, Stage, Tag

__all__ = ["BlockList", "Listings", "is_public", "question"]

log = logging.getLogger(__name__)

#: Where an answer means that something is listed (RFC 5782 §2.3).
LISTED = ip_network("127.0.0.0/8")
#: Answers that say that the question was not for us to ask: known of widely used lists.
REFUSALS = ip_network("127.255.255.0/24")


class Listings(Protocol):
    """What a block list's questions need of the DNS; it raises the three ResolveErrors."""

    async def ipv4(self, name: str) -> Sequence[str]:
        """Return the A records of a name."""
        ...

    async def texts(self, name: str) -> Sequence[str]:
        """Return the TXT records of a name."""
        ...


@frozen
class BlockList:
    """Asks one list of one zone.

    `of` is what is looked up: the client's "address" (at CONNECT), or the "sender"'s domain (at
    MAIL). `codes` are those answers that count (`127.0.0.2`), empty for all. `does` says what being
    listed leads to: "refuse", "tag", or "accept" for a list of the good. A list that has what none
    may have, its test entry, has come to list all the world, and says nothing (RFC 5782 §5).
    """

    zone: str
    resolver: Listings
    of: Literal["address", "sender"] = "address"
    codes: Collection[str] = ()
    does: Literal["refuse", "tag", "accept"] = "refuse"
    name: str = "dnsbl"

    @property
    def stages(self) -> Collection[Stage]:
        """Return the one stage at which there is something to look up."""
        return {Stage.CONNECT if self.of == "address" else Stage.MAIL}

    async def judge(self, stage: Stage, seen: Seen) -> Answer | None:
        """Look it up; that the list has no answer for now is a failure (`Chain`)."""
        asked = self._question(seen)
        if asked is None:
            return None
        what, name = asked
        if not await self._lists(name):
            return None
        if await self._lists(self._never(what)):
            log.error("the block list %s lists what no list may (RFC 5782 §5)", self.zone)
            return None
        reason = f"{what} is listed at {self.zone}"
        if self.does == "accept":
            return Accept(reason)
        if self.does == "tag":
            return Tag(reason)
        why = await self._why(name)
        text = f"{reason}: {why}" if why else reason
        return Refuse(Reply(554 if stage is Stage.CONNECT else 550, "5.7.1", text), text)

    async def _lists(self, name: str) -> bool:
        try:
            answers = await self.resolver.ipv4(name)
        except ResolveFailed:
            raise
        except ResolveError:
            return False
        return any(self._counts(answer) for answer in answers)

    def _never(self, what: str) -> str:
        """Return what a list never has, unless it has come to list everything (RFC 5782 §5)."""
        address = as_address(what)
        if address is None:
            return f"invalid.{self.zone}"
        mapped = IPv6Address("::ffff:127.0.0.1")
        return question(
            IPv4Address("127.0.0.1") if isinstance(address, IPv4Address) else mapped, self.zone
        )

    def _question(self, seen: Seen) -> tuple[str, str] | None:
        if self.of == "address":
            address = as_address(seen.session.peer[0])
            if seen.trusted or address is None or not is_public(address):
                return None
            return str(address), question(address, self.zone)
        mailbox = None if seen.mail is None else seen.mail.reverse_path.mailbox
        if seen.trusted or mailbox is None or mailbox.domain.startswith(b"["):
            return None
        try:  # as the DNS has it, and as a reply can (RFC 5890 §2.3.2.1)
            domain = a_labels(mailbox.domain.decode("utf-8").lower().rstrip("."))
        except UnicodeError:
            return None  # there is no such domain
        return domain, f"{domain}.{self.zone}"

    def _counts(self, answer: str) -> bool:
        address = ip_address(answer)
        if address not in LISTED or address in REFUSALS:
            return False  # a zone that has been given up, or that does not want us to ask
        return not self.codes or answer in self.codes

    async def _why(self, name: str) -> str:
        """Return what the list says of it, on one line (RFC 5782 §2.1)."""
        try:
            texts = await self.resolver.texts(name)
        except ResolveError:
            return ""
        text = " ".join(texts[:1])
        return "".join(c if c.isascii() and c.isprintable() else "?" for c in text)[:200]


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Tell whether an address is one that a list of strangers can have something to say of."""
    return address.is_global


def question(address: IPv4Address | IPv6Address, zone: str) -> str:
    """Return the name to look an address up by (RFC 5782 §2.1, §2.4)."""
    if isinstance(address, IPv4Address):
        return ".".join([*reversed(str(address).split(".")), zone])
    # Not of its text: of IPv4 in IPv6, Python's versions write different ones.
    return ".".join([*reversed(address.packed.hex()), zone])
