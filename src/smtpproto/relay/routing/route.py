"""Where mail goes (RFC 5321 §5.1): by a rule; else here, to the smart host, or by MX.

`Routing` is the seam, what intake and delivery ask; `Router` is the one real router. It keeps
nothing and knows no network but its Resolver, so the same question has the same answer as long as
rules, DNS and shuffle give theirs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, MutableSequence, Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from itertools import groupby
from typing import Any, Protocol

import anyio
from attrs import evolve

from smtpproto.core.errors import LocalProtocolError
from smtpproto.core.path import Mailbox, ReversePath
from smtpproto.core.reply import Reply
from smtpproto.resolve import Mx, NoRecords, NoSuchDomain, ResolveError, ResolveFailed, Resolver

from .table import Routes, Rule, no_routes
from .transport import (
    SMTP_PORT,
    Address,
    ByMx,
    Here,
    Host,
    HostPort,
    Local,
    NextHop,
    Refuse,
    Route,
    Undetermined,
    Unroutable,
    address_in,
    canonical,
)

__all__ = [
    "OWN_ADDRESSES",
    "Host",
    "HostPort",
    "Local",
    "NextHop",
    "Route",
    "Router",
    "Routing",
    "Undetermined",
    "Unroutable",
    "canonical",
]

log = logging.getLogger(__name__)

#: What always leads back to this machine: loopback, and the unspecified address.
OWN_ADDRESSES = ("127.0.0.0/8", "::1", "0.0.0.0/8", "::")

_NO_DOMAIN = Unroutable(Reply(550, "5.1.2", "No such domain"))
_NO_HOST = Unroutable(Reply(550, "5.4.4", "No mail host of this domain has an address"))
_NO_LITERAL = Unroutable(Reply(550, "5.1.2", "No route to such an address literal"))
_NULL_MX = Unroutable(Reply(556, "5.1.10", "Domain does not accept mail"))  # RFC 7505 §4.1
_LOOP = Unroutable(Reply(554, "5.4.6", "Mail for this domain would loop back to this host"))
_DNS_FAILED = Undetermined(Reply(451, "4.4.3", "Domain name server failed, try again later"))
#: Why, is for the operator.
_NO_RULE = Rule(Refuse(Reply(451, "4.3.0", "The route could not be looked up, try again later")))
_BY_MX, _HERE = Rule(ByMx()), Rule(Here())


class Routing(Protocol):
    """Tells what is ours, and where mail goes."""

    def is_local(self, domain: bytes) -> bool:
        """Tell whether a domain is our own: its names need no dot, its reports no other host."""
        ...

    def is_ours(self, domain: bytes) -> bool:
        """Tell whether mail for a domain is taken from everybody; for "", the bare Postmaster."""
        ...

    def home(self, mailbox: Mailbox) -> Mailbox:
        """Spell a mailbox as it is spelled here; the bare Postmaster gets a domain.

        So mailboxes, aliases and rules see one spelling of each domain, and never none.
        """
        ...

    async def rule(self, mailbox: Mailbox, sender: ReversePath) -> Rule:
        """Return what is done with mail from `sender` to `mailbox`, as far as we say so.

        Asked at RCPT, and at each attempt: the answer may be another one then. What cannot be
        known for now is a Refuse with 4yz. What is raised is answered with 451, and has the whole
        message tried again.
        """
        ...

    async def by_mx(self, domain: bytes | str) -> NextHop | Unroutable | Undetermined:
        """Return where mail for a domain goes whose rule says ByMx; nothing is raised."""
        ...

    async def takes_no_mail(self, domain: bytes) -> bool:
        """Tell whether a domain says of itself that it takes no mail (RFC 7505 §3)."""
        ...


class Router:
    """Decides where mail for a recipient goes.

    `local_domains` are ours, each exactly, in any case; the first is where the bare Postmaster
    lives (without any: `hostname`). So are `relay_domains`, which live elsewhere. What the table
    `routes` has a rule for goes by that; without one, mail for local domains stays here, and all
    else goes to `smart_host`, if there is one, or where the MX records that `resolver` finds
    lead, at `port`. A HostPort is a Host that has nothing of its own.

    `shuffle` puts a list into random order in place, as `random.shuffle` does: records of equal
    preference are tried so, and the equals of a rule. `hostname` and the local domains are the
    names, `own_addresses` the addresses and networks (`10.1.2.3`, `fd00::/8`), that mean
    ourselves: what leads to them by DNS would come back, and is not tried. No more than
    `max_hosts` mail exchangers are looked up, and no more than `max_hosts` addresses returned.
    """

    def __init__(
        self,
        *,
        local_domains: Iterable[str | bytes],
        smart_host: Host | HostPort | None,
        resolver: Resolver,
        shuffle: Callable[[MutableSequence[Any]], None],
        hostname: str,
        relay_domains: Iterable[str | bytes] = (),
        routes: Routes = no_routes,
        own_addresses: Iterable[str] = OWN_ADDRESSES,
        port: int = SMTP_PORT,
        max_hosts: int = 10,
    ) -> None:
        locals_ = dict.fromkeys(canonical(domain) for domain in local_domains)
        self._local_domains = locals_
        self._relay_domains = frozenset(canonical(domain) for domain in relay_domains)
        self._routes = routes
        self._postmaster_domain = next(iter(locals_), canonical(hostname))
        if isinstance(smart_host, HostPort):
            smart_host = Host(smart_host.host, None, smart_host.port)
        self._usual = _BY_MX if smart_host is None else Rule(NextHop.fixed(smart_host))
        self._resolver = resolver
        self._shuffle = shuffle
        self._own_names = {*locals_, canonical(hostname)}
        self._own_networks = [ip_network(address) for address in own_addresses]
        self._port = port
        self._max_hosts = max_hosts

    def is_local(self, domain: bytes | str) -> bool:
        """Tell whether mail for `domain` stays here, unless a rule says otherwise."""
        name = canonical(domain)
        return not name or name in self._local_domains

    def is_ours(self, domain: bytes | str) -> bool:
        """Tell whether mail for `domain` is taken from everybody: it is local, or we relay it."""
        return self.is_local(domain) or canonical(domain) in self._relay_domains

    def home(self, mailbox: Mailbox) -> Mailbox:
        """Spell the domain of a mailbox as it is spelled here; the bare Postmaster gets one."""
        domain = canonical(mailbox.domain) or self._postmaster_domain
        if "\\" in domain:  # no name by IDNA
            return mailbox
        here = domain.encode()
        try:
            return mailbox if here == mailbox.domain else Mailbox(mailbox.local_part, here)
        except LocalProtocolError:  # too long, in A-labels
            return mailbox

    async def rule(self, mailbox: Mailbox, sender: ReversePath) -> Rule:
        """Return the rule for mail from `sender` to `mailbox`; no DNS is asked.

        Where none fits it is what is usual, and where the table fails one that refuses for now:
        nothing is raised.
        """
        home = self.home(mailbox)
        try:
            found = await self._routes.find(home, sender)
        except Exception:
            log.exception("the route to %s could not be looked up", home)
            return _NO_RULE
        if found is None:
            return _HERE if self.is_local(mailbox.domain) else self._usual
        if not isinstance(found.to, NextHop):
            return found
        there = found.to.shuffled(self._shuffle)
        return found if there is found.to else evolve(found, to=there)

    async def route(self, mailbox: Mailbox, sender: ReversePath) -> Route:
        """Decide for one recipient: by its rule, and where that says so by the DNS.

        Nothing is raised for what the DNS says or does not say: it is part of the answer.
        """
        to = (await self.rule(mailbox, sender)).to
        home = self.home(mailbox)
        match to:
            case Here():
                return Local(home.domain.decode())
            case ByMx():
                return await self.by_mx(home.domain)
            case _:
                return to

    async def by_mx(self, domain: bytes | str) -> NextHop | Unroutable | Undetermined:
        """Ask the DNS where mail for `domain` goes; an address literal is its own host."""
        name = canonical(domain)
        if name.startswith("["):
            return self._to_literal(name)
        if "\\" in name:  # no name by IDNA
            return _NO_DOMAIN
        try:
            return await self._by_mx(name)
        except NoSuchDomain:
            return _NO_DOMAIN
        except ResolveError:
            return _DNS_FAILED

    async def takes_no_mail(self, domain: bytes | str) -> bool:
        """Tell whether a domain says so by a null MX (RFC 7505 §3).

        False where that cannot be known: by the DNS, or because a smart host saves us asking it.
        """
        name = canonical(domain)
        if self.is_ours(domain) or self._usual is not _BY_MX or name.startswith("["):
            return False
        try:
            return _is_null(await self._resolver.mx(name))
        except ResolveError:
            return False

    def _to_literal(self, name: str) -> NextHop | Unroutable:
        address = address_in(name)
        if address is None:
            return _NO_LITERAL
        if self._is_own(address):
            return _LOOP
        return NextHop((Host(name, str(address), self._port),), name)

    async def _by_mx(self, name: str) -> NextHop | Unroutable | Undetermined:
        try:
            records = await self._resolver.mx(name)
        except NoRecords:
            records = ()
        if not records:
            records = (Mx(0, name),)  # the implicit MX
        elif _is_null(records):
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

    async def _to_exchanges(
        self, name: str, order: list[Mx]
    ) -> NextHop | Unroutable | Undetermined:
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


def _is_null(records: Sequence[Mx]) -> bool:
    return all(record.exchange in {".", ""} for record in records)


def _within(address: Address, network: IPv4Network | IPv6Network) -> bool:
    return address.version == network.version and address in network
