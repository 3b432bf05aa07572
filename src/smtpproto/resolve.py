"""Names into hosts and addresses: `Resolver` is the seam, `DnsResolver` asks real servers.

What callers need to know of a failure is one thing: whether the answer may be another one
tomorrow. `NoSuchDomain` and `NoRecords` are answers and final, `ResolveFailed` is none.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any, Literal, Protocol, TypeAlias

import anyio
import dns.asyncbackend
import dns.asyncresolver
import dns.exception
import dns.message
import dns.name
import dns.resolver
import dns.reversename
from attrs import frozen
from dns.rdata import Rdata
from dns.rdatatype import RdataType
from dns.rdtypes.ANY.MX import MX
from dns.rdtypes.ANY.PTR import PTR
from dns.rdtypes.ANY.TXT import TXT
from dns.rdtypes.IN.A import A
from dns.rdtypes.IN.AAAA import AAAA
from dns.rdtypes.IN.SRV import SRV

__all__ = [
    "DnsResolver",
    "Family",
    "Mx",
    "NoRecords",
    "NoSuchDomain",
    "ResolveError",
    "ResolveFailed",
    "Resolver",
    "Srv",
]


class ResolveError(Exception):
    """Root of what a resolver raises instead of an answer."""


class NoSuchDomain(ResolveError):  # noqa: N818 - an answer, or its lack
    """The name does not exist (NXDOMAIN), or cannot: permanent."""


class NoRecords(ResolveError):  # noqa: N818 - an answer, or its lack
    """The name exists and has no records of the kind asked for: permanent."""


class ResolveFailed(ResolveError):  # noqa: N818 - an answer, or its lack
    """No answer could be had (SERVFAIL, time-out, no network): temporary."""


@frozen
class Mx:
    """One MX record (RFC 1035 §3.3.9). The lower `preference` is tried first.

    `exchange` has no final dot, but for the root, ".", which means a null MX (RFC 7505 §3).
    """

    preference: int
    exchange: str


@frozen
class Srv:
    """One SRV record (RFC 2782): `target` offers the service at `port`.

    The lowest `priority` is tried first; among equals `weight` is the share of each. `target` has
    no final dot, but for the root, ".", which means that there is no such service here.
    """

    priority: int
    weight: int
    port: int
    target: str


#: An answer is believed for its TTL, and for no longer than this; a no for less (RFC 2308 §5).
LONGEST = 86400.0
LONGEST_NO = 3 * 3600.0
#: An answer with more records than this is asked for each time: memory is not the DNS's to fill.
MOST_RECORDS = 32


class Resolver(Protocol):
    """What the router asks of the DNS. Both methods raise the three ResolveErrors."""

    async def mx(self, domain: str) -> Sequence[Mx]:
        """Return the MX records of `domain`, CNAMEs followed, in any order; at least one."""
        ...

    async def addresses(self, host: str) -> Sequence[str]:
        """Return the IPv4 and IPv6 addresses of `host`, the one to try first first; at least one.

        What one family has is enough: ResolveFailed only where neither has anything.
        """
        ...


#: A kind of addresses, AAAA records or A records.
Family: TypeAlias = Literal["IPv6", "IPv4"]
_RECORDS: dict[Family, RdataType] = {"IPv6": RdataType.AAAA, "IPv4": RdataType.A}


class DnsResolver:
    """A resolver over dnspython, on asyncio and trio.

    `nameservers` are IP addresses, to be asked at `port`; without any, the system's
    configuration is read, and 127.0.0.1 asked where there is none. `timeout` is how long, in
    seconds, one server gets for one question, `lifetime` how long the question may take in all,
    repeats and CNAMEs included. `families` are the kinds of addresses asked for, at least one, the
    one to try first first (RFC 5321 §5.2).

    An answer is not asked for again as long as its TTL lasts, nor is a no, by its zone's SOA
    (RFC 2308 §5); no answer is nothing to remember. `keep` is how many are remembered, `now` the
    clock for that, in seconds.
    """

    def __init__(
        self,
        nameservers: Sequence[str] = (),
        *,
        port: int = 53,
        timeout: float = 5.0,
        lifetime: float = 20.0,
        families: Sequence[Family] = ("IPv6", "IPv4"),
        keep: int = 4096,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        try:
            self._resolver = dns.asyncresolver.Resolver(configure=not nameservers)
        except dns.resolver.NoResolverConfiguration:
            self._resolver = dns.asyncresolver.Resolver(configure=False)
            nameservers = ("127.0.0.1",)
        if nameservers:
            self._resolver.nameservers = list(nameservers)
            self._resolver.port = port
        self._resolver.timeout = timeout
        # Long MX sets fit one datagram; what does not is asked for again over TCP.
        self._resolver.use_edns(0, 0, 1232)
        if not families:
            raise ValueError("without a family there are no addresses")
        self.lifetime = lifetime
        self._families = [_RECORDS[family] for family in families]
        self._known = _Known(keep, now)

    async def mx(self, domain: str) -> Sequence[Mx]:
        """Return the MX records of `domain` (see Resolver.mx)."""
        answer = await self._ask(domain, RdataType.MX)
        return [
            Mx(record.preference, record.exchange.to_text(omit_final_dot=True))
            for record in answer
            if isinstance(record, MX)
        ]

    async def srv(self, name: str) -> Sequence[Srv]:
        """Return the SRV records of `name` (`_service._tcp.domain`), in any order; at least one.

        Raises the three ResolveErrors.
        """
        answer = await self._ask(name, RdataType.SRV)
        return [
            Srv(
                record.priority,
                record.weight,
                record.port,
                record.target.to_text(omit_final_dot=True),
            )
            for record in answer
            if isinstance(record, SRV)
        ]

    async def addresses(self, host: str) -> Sequence[str]:
        """Return the addresses of `host`: those of the families by turns, as they are ordered.

        By turns, so that whoever tries only the first few tries both.
        """
        found: dict[RdataType, list[str]] = {kind: [] for kind in self._families}
        errors: list[ResolveError] = []

        async def ask(kind: RdataType) -> None:
            try:
                answer = await self._ask(host, kind)
            except ResolveError as error:
                errors.append(error)
            else:
                found[kind] = [r.address for r in answer if isinstance(r, (A, AAAA))]

        async with anyio.create_task_group() as tasks:
            for kind in found:
                tasks.start_soon(ask, kind)
        pairs = zip_longest(*found.values())
        addresses = [address for pair in pairs for address in pair if address is not None]
        if addresses:
            return addresses
        for error in errors:
            if isinstance(error, ResolveFailed):
                raise error
        raise errors[0] if errors else NoRecords(f"{host} has no addresses")

    async def ipv4(self, name: str) -> Sequence[str]:
        """Return the A records of `name` alone, in any order; at least one.

        Block lists answer by them (RFC 5782 §2.1). Raises the three ResolveErrors.
        """
        answer = await self._ask(name, RdataType.A)
        return [record.address for record in answer if isinstance(record, A)]

    async def names(self, address: str) -> Sequence[str]:
        """Return the names of an IP address (PTR, RFC 1035 §3.5), without final dots.

        Raises the three ResolveErrors; NoSuchDomain for what is no address.
        """
        try:
            name = dns.reversename.from_address(address)
        except (dns.exception.DNSException, ValueError) as error:
            raise NoSuchDomain(f"{address}: not an address") from error
        answer = await self._ask(name.to_text(), RdataType.PTR)
        return [
            record.target.to_text(omit_final_dot=True)
            for record in answer
            if isinstance(record, PTR)
        ]

    async def texts(self, name: str) -> Sequence[str]:
        """Return the TXT records of `name`, the strings of each joined; at least one.

        What is not UTF-8 is replaced. Raises the three ResolveErrors.
        """
        answer = await self._ask(name, RdataType.TXT)
        return [
            b"".join(record.strings).decode("utf-8", "replace")
            for record in answer
            if isinstance(record, TXT)
        ]

    async def _ask(self, name: str, kind: RdataType) -> Sequence[Rdata]:
        question = f"{name} {kind.name}"
        try:
            # Absolute, so that no search list makes another name of it (RFC 5321 §5.1).
            qname = dns.name.from_text(name, dns.name.root)
        except (dns.exception.DNSException, UnicodeError) as error:
            raise NoSuchDomain(f"{question}: not a name") from error
        known = self._known.get(qname, kind)
        if isinstance(known, type):
            raise known(f"{question}: {_NO[known]}")
        if known is not None:
            return known
        # Named each time: dnspython would keep the first one it meets for the whole process.
        backend = dns.asyncbackend.get_backend(dns.asyncbackend.sniff())
        try:
            with anyio.fail_after(self.lifetime):
                answer = await self._resolver.resolve(
                    qname, kind, search=False, lifetime=self.lifetime, backend=backend
                )
        except (dns.resolver.NXDOMAIN, dns.resolver.YXDOMAIN) as error:
            self._known.put(qname, kind, NoSuchDomain, _ttl_of_no(error))
            raise NoSuchDomain(f"{question}: {_NO[NoSuchDomain]}") from error
        except dns.resolver.NoAnswer as error:
            self._known.put(qname, kind, NoRecords, _ttl_of_no(error))
            raise NoRecords(f"{question}: {_NO[NoRecords]}") from error
        except (dns.exception.DNSException, OSError) as error:  # TimeoutError is an OSError
            raise ResolveFailed(f"{question}: no answer") from error
        records = tuple(answer)
        if len(records) <= MOST_RECORDS:
            ttl = min(answer.chaining_result.minimum_ttl, LONGEST)
            self._known.put(qname, kind, records, ttl)
        return records


_NO: dict[type[ResolveError], str] = {
    NoSuchDomain: "no such domain",
    NoRecords: "no such records",
}


def _ttl_of_no(error: dns.exception.DNSException) -> float:
    """Return for how many seconds a no may be believed: not at all without an SOA record."""
    told: dict[str, Any] = vars(error).get(
        "kwargs", {}
    )  # where dnspython keeps, untyped, the answer
    responses: list[dns.message.QueryMessage] = [*told.get("responses", {}).values()]
    responses += [told["response"]] if "response" in told else []
    ttls = [
        response.resolve_chaining().minimum_ttl
        for response in responses
        if any(records.rdtype == RdataType.SOA for records in response.authority)
    ]
    return min(*ttls, LONGEST_NO) if ttls else 0


class _Known:
    """Answers that still hold; of too many, what was not asked for the longest goes first."""

    def __init__(self, keep: int, now: Callable[[], float]) -> None:
        self._keep = keep
        self._now = now
        self._answers: OrderedDict[
            tuple[dns.name.Name, RdataType], tuple[float, Sequence[Rdata] | type[ResolveError]]
        ] = OrderedDict()

    def get(
        self, name: dns.name.Name, kind: RdataType
    ) -> Sequence[Rdata] | type[ResolveError] | None:
        ends, answer = self._answers.get((name, kind), (0.0, None))
        if answer is None:
            return None
        if ends <= self._now():
            del self._answers[name, kind]
            return None
        self._answers.move_to_end((name, kind))
        return answer

    def put(
        self,
        name: dns.name.Name,
        kind: RdataType,
        answer: Sequence[Rdata] | type[ResolveError],
        ttl: float,
    ) -> None:
        # 0 is for the question that was asked, and no other (RFC 1035 §3.2.1).
        if ttl > 0:
            self._answers[name, kind] = self._now() + ttl, answer
            self._answers.move_to_end((name, kind))
            if len(self._answers) > self._keep:
                self._answers.popitem(last=False)
