"""The name a client gives in EHLO, and the one that the DNS gives its address.

RFC 5321 §4.1.4 forbids to refuse a client because the two differ, and nothing here does. What is
told are names that cannot be true, and addresses without a name: marks of a machine that should not
be sending mail at all.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol

from attrs import field, frozen

from smtpproto.core.grammar import DOMAIN, is_address_literal
from smtpproto.core.reply import Reply
from smtpproto.resolve import ResolveError, ResolveFailed
from smtpproto.trust import as_address

from .blocklist import is_public
from .seam import Answer, Refuse, Seen, Stage, Tag

__all__ = ["ClientNames", "Names"]

NOT_OURS = Reply(550, "5.7.1", "You are not who you say: that is my name")
NO_NAME = Reply(550, "5.7.25", "Your address has no name in the DNS that leads back to it")
NO_NAME_YET = Reply(450, "4.7.25", "The name of your address cannot be looked up, try again later")
BARE = Reply(550, "5.7.1", "That is no host's name: give a full domain or an address literal")


class Names(Protocol):
    """What these filters ask of the DNS; they raise the three ResolveErrors."""

    async def addresses(self, host: str) -> Sequence[str]:
        """Return the addresses of a host."""
        ...

    async def names(self, address: str) -> Sequence[str]:
        """Return the names that an IP address has (PTR, RFC 1035 §3.5)."""
        ...


@frozen
class ClientNames:
    """Looks at names: of clients that are not trusted, when they say HELO or EHLO.

    `hostname` is ours: nobody else's. `bare` and `nameless` say what becomes of a client that gives
    a name without a dot, and of one whose address has no name that leads back to it ("FCrDNS",
    RFC 8601 §2.7.3): "tag" them or "refuse" them. This machine may have our name, and addresses
    that are not public need none.
    """

    resolver: Names
    hostname: str
    bare: str = "tag"
    nameless: str = "tag"
    name: str = "names"
    stages: Collection[Stage] = field(default=frozenset({Stage.HELO}), init=False)

    async def judge(self, stage: Stage, seen: Seen) -> Answer | None:
        """Judge by the name given, and then by the address's own."""
        if seen.trusted:
            return None
        said = seen.helo
        address = as_address(seen.session.peer[0])
        here = address is None or address.is_loopback or peer_is_local(seen)
        if not here and said.lower().rstrip(".") == self.hostname.lower():
            return Refuse(NOT_OURS, f"it says that it is {said}")
        if not _is_full(said):
            if self.bare == "refuse":
                return Refuse(BARE, f"it says that it is {said}")
            return Tag(f"it says that it is {said}")
        if address is None or not is_public(address):
            return None
        try:
            found = await self._confirmed(address)
        except ResolveFailed:
            return Refuse(NO_NAME_YET) if self.nameless == "refuse" else None
        if found:
            return None
        if self.nameless == "refuse":
            return Refuse(NO_NAME)
        return Tag("its address has no name that leads back to it")

    async def _confirmed(self, address: IPv4Address | IPv6Address) -> str | None:
        """Return a name of the address that has the address (RFC 8601 §2.7.3)."""
        failed: ResolveFailed | None = None
        try:
            names = await self.resolver.names(str(address))
        except ResolveFailed:
            raise
        except ResolveError:
            return None
        for name in names[:10]:
            try:
                addresses = await self.resolver.addresses(name)
            except ResolveFailed as error:
                failed = error
            except ResolveError:
                pass
            else:
                if address in map(as_address, addresses):
                    return name
        if failed is not None:
            raise failed
        return None


def peer_is_local(seen: Seen) -> bool:
    """Tell whether a client comes from this machine."""
    return as_address(seen.session.peer[0]) == as_address(seen.session.local[0])


def _is_full(name: str) -> bool:
    octets = name.encode("utf-8", "replace")
    if octets[:1] == b"[" and octets[-1:] == b"]":
        return is_address_literal(octets[1:-1])
    return b"." in octets.rstrip(b".") and DOMAIN.fullmatch(octets.rstrip(b".")) is not None
