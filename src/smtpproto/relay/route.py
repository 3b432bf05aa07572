"""Where mail for a domain goes (RFC 5321 §5.1): here, to the smart host, or by MX.

A `Router` keeps nothing and knows no network but its Resolver, so the same question has the
same answer as long as DNS and shuffle give theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, MutableSequence
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from itertools import groupby
from typing import Any, TypeAlias

import anyio
from attrs import frozen

from smtpproto.core.path import as_octets
from smtpproto.core.reply import Reply
from smtpproto.resolve import Mx, NoRecords, NoSuchDomain, ResolveError, ResolveFailed, Resolver

__all__ = [
    "OWN_ADDRESSES",
    "Host",
    "HostPort",
    "Local",
    "NextHop",
    "Route",
    "Router",
    "Undetermined",
    "Unroutable",
    "canonical",
]

#: What always leads back to this machine: loopback, and the unspecified address.
OWN_ADDRESSES = ("127.0.0.0/8", "::1", "0.0.0.0/8", "::")

SMTP_PORT = 25


@frozen
class HostPort:
    """A host, by name or IP address, and a TCP port."""

    host: str
    port: int = SMTP_PORT

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@frozen
class Host:
    """One attempt: connect to `address` at `port`, and expect `name` there (TLS, Remote-MTA).

    `address` is an IP address; None leaves it to the connector to resolve `name`.
    """

    name: str
    address: str | None
    port: int


@frozen
class Local:
    """The mail is for us. `domain` is what stands behind the `@` of its mailbox here."""

    domain: str


@frozen
class NextHop:
    """Try `hosts` in this order until one takes the mail.

    Recipients whose next hops have one `name` may share a transaction.
    """

    hosts: tuple[Host, ...]
    name: str


@frozen
class Unroutable:
    """There is no way, and there will be none: `reply` (5yz) is what its recipients get."""

    reply: Reply


@frozen
class Undetermined:
    """The DNS did not say; ask again later. `reply` (4yz) says what failed."""

    reply: Reply


Route: TypeAlias = Local | NextHop | Unroutable | Undetermined

_NO_DOMAIN = Unroutable(Reply(550, "5.1.2", "No such domain"))
_NO_HOST = Unroutable(Reply(550, "5.4.4", "No mail host of this domain has an address"))
_NO_LITERAL = Unroutable(Reply(550, "5.1.2", "No route to such an address literal"))
_NULL_MX = Unroutable(Reply(556, "5.1.10", "Domain does not accept mail"))  # RFC 7505 §4.1
_LOOP = Unroutable(Reply(554, "5.4.6", "Mail for this domain would loop back to this host"))
_DNS_FAILED = Undetermined(Reply(451, "4.4.3", "Domain name server failed, try again later"))

Address: TypeAlias = IPv4Address | IPv6Address


class Router:
    """Decides where mail for a domain goes.

    `local_domains` are ours, each exactly, in any case; the first is where the bare Postmaster
    lives (without any: `hostname`). All else goes to `smart_host`, if there is one, or where
    the MX records that `resolver` finds lead, at `port`.

    `shuffle` puts a list into random order in place, as `random.shuffle` does: records of equal
    preference are tried so. `hostname` and the local domains are the names, `own_addresses`
    the addresses and networks (`10.1.2.3`, `fd00::/8`), that mean ourselves: what leads to
    them by DNS would come back, and is not tried. No more than `max_hosts` mail exchangers are
    looked up, and no more than `max_hosts` addresses returned.
    """

    def __init__(
        self,
        *,
        local_domains: Iterable[str | bytes],
        smart_host: HostPort | None,
        resolver: Resolver,
        shuffle: Callable[[MutableSequence[Any]], None],
        hostname: str,
        own_addresses: Iterable[str] = OWN_ADDRESSES,
        port: int = SMTP_PORT,
        max_hosts: int = 10,
    ) -> None:
        locals_ = dict.fromkeys(canonical(domain) for domain in local_domains)
        self._local_domains = locals_
        self._postmaster_domain = next(iter(locals_), canonical(hostname))
        self._smart_host = smart_host
        self._resolver = resolver
        self._shuffle = shuffle
        self._own_names = {*locals_, canonical(hostname)}
        self._own_networks = [ip_network(address) for address in own_addresses]
        self._port = port
        self._max_hosts = max_hosts

    def is_local(self, domain: bytes | str) -> bool:
        """Tell whether mail for `domain` stays here; no DNS is asked."""
        name = canonical(domain)
        return not name or name in self._local_domains

    async def route(self, domain: bytes | str) -> Route:
        """Decide for `domain`: a Domain or address literal, or empty for the bare Postmaster.

        Nothing is raised for what the DNS says or does not say: it is part of the answer.
        """
        name = canonical(domain)
        if self.is_local(domain):
            return Local(name or self._postmaster_domain)
        if self._smart_host is not None:
            there = Host(self._smart_host.host, None, self._smart_host.port)
            return NextHop((there,), str(self._smart_host))
        if name.startswith("["):
            return self._to_literal(name)
        try:
            return await self._by_mx(name)
        except NoSuchDomain:
            return _NO_DOMAIN
        except ResolveError:
            return _DNS_FAILED

    def _to_literal(self, name: str) -> Route:
        address = _address_in(name)
        if address is None:
            return _NO_LITERAL
        if self._is_own(address):
            return _LOOP
        return NextHop((Host(name, str(address), self._port),), name)

    async def _by_mx(self, name: str) -> Route:
        try:
            records = await self._resolver.mx(name)
        except NoRecords:
            records = ()
        if not records:
            records = (Mx(0, name),)  # the implicit MX
        elif all(record.exchange in {".", ""} for record in records):
            return _NULL_MX

        order: list[Mx] = []
        by_preference = sorted(records, key=lambda record: record.preference)
        for _, equals in groupby(by_preference, key=lambda record: record.preference):
            level = [record for record in equals if record.exchange not in {".", ""}]
            if any(canonical(record.exchange) in self._own_names for record in level):
                # We stand here: what is as good or worse would send it to us (RFC 5321 §5.1).
                if not order:
                    return _LOOP
                break
            self._shuffle(level)
            order += level
        return await self._to_exchanges(name, order[: self._max_hosts])

    async def _to_exchanges(self, name: str, order: list[Mx]) -> Route:
        found: list[list[Address]] = [[] for _ in order]
        failed: list[ResolveFailed] = []

        async def look_up(number: int) -> None:
            try:
                texts = await self._resolver.addresses(order[number].exchange)
            except ResolveFailed as error:
                failed.append(error)
            except ResolveError:
                pass  # this one leads nowhere; the others may
            else:
                found[number] = [ip_address(text) for text in texts]

        async with anyio.create_task_group() as tasks:
            for number in range(len(order)):
                tasks.start_soon(look_up, number)

        own = [
            record.preference
            for record, addresses in zip(order, found, strict=True)
            if any(map(self._is_own, addresses))
        ]
        better = min(own, default=1 << 16)  # a preference has 16 bits
        hosts = [
            Host(record.exchange, str(address), self._port)
            for record, addresses in zip(order, found, strict=True)
            if record.preference < better
            for address in addresses
        ]
        if hosts:
            return NextHop(tuple(hosts[: self._max_hosts]), name)
        if failed:
            return _DNS_FAILED
        return _LOOP if own else _NO_HOST

    def _is_own(self, address: Address) -> bool:
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(_within(address, network) for network in self._own_networks)


def _within(address: Address, network: IPv4Network | IPv6Network) -> bool:
    return address.version == network.version and address in network


@lru_cache(4096)
def canonical(domain: bytes | str) -> str:
    """Spell a domain in the one way it is compared in: small letters, no final dot."""
    name = as_octets(domain).lower().decode("ascii", "backslashreplace").removesuffix(".")
    address = _address_in(name)
    return name if address is None else _literal(address)


def _literal(address: Address) -> str:
    return f"[ipv6:{address}]" if isinstance(address, IPv6Address) else f"[{address}]"


def _address_in(name: str) -> Address | None:
    """Read the IP address of an address literal in small letters (RFC 5321 §4.1.3), if it is one.

    Leading zeros are decimal there: `[010.0.0.1]` is 10.0.0.1.
    """
    if not (name.startswith("[") and name.endswith("]")):
        return None
    inside = name[1:-1]
    try:
        if inside.startswith("ipv6:"):
            return IPv6Address(inside.removeprefix("ipv6:"))
        return IPv4Address(".".join(part.lstrip("0") or "0" for part in inside.split(".")))
    except ValueError:
        return None
