"""Names into hosts and addresses: `Resolver` is the seam, `DnsResolver` asks real servers.

What callers need to know of a failure is one thing: whether the answer may be another one
tomorrow. `NoSuchDomain` and `NoRecords` are answers and final, `ResolveFailed` is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Protocol

import anyio
import dns.asyncbackend
import dns.asyncresolver
import dns.exception
import dns.name
import dns.resolver
from attrs import frozen
from dns.rdatatype import RdataType
from dns.rdtypes.ANY.MX import MX
from dns.rdtypes.IN.A import A
from dns.rdtypes.IN.AAAA import AAAA
from dns.rdtypes.IN.SRV import SRV

__all__ = [
    "DnsResolver",
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


class DnsResolver:
    """A resolver over dnspython, on asyncio and trio.

    `nameservers` are IP addresses, to be asked at `port`; without any, the system's
    configuration is read, and 127.0.0.1 asked where there is none. `timeout` is how long, in
    seconds, one server gets for one question, `lifetime` how long the question may take in all,
    repeats and CNAMEs included. Answers are remembered for as long as they say that they hold, also
    those that there is nothing (RFC 2308); `remembered` bounds how many.
    """

    def __init__(
        self,
        nameservers: Sequence[str] = (),
        *,
        port: int = 53,
        timeout: float = 5.0,
        lifetime: float = 20.0,
        remembered: int = 10_000,
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
        self._resolver.cache = dns.resolver.LRUCache(remembered)
        # Long MX sets fit one datagram; what does not is asked for again over TCP.
        self._resolver.use_edns(0, 0, 1232)
        self.lifetime = lifetime

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
        """Return the addresses of `host`: IPv6 and IPv4 by turns, beginning with IPv6.

        By turns, so that whoever tries only the first few tries both families.
        """
        found: dict[RdataType, list[str]] = {RdataType.AAAA: [], RdataType.A: []}
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
        pairs = zip_longest(found[RdataType.AAAA], found[RdataType.A])
        addresses = [address for pair in pairs for address in pair if address is not None]
        if addresses:
            return addresses
        for error in errors:
            if isinstance(error, ResolveFailed):
                raise error
        raise errors[0] if errors else NoRecords(f"{host} has no addresses")

    async def _ask(self, name: str, kind: RdataType) -> dns.resolver.Answer:
        question = f"{name} {kind.name}"
        try:
            # Absolute, so that no search list makes another name of it (RFC 5321 §5.1).
            qname = dns.name.from_text(name, dns.name.root)
        except (dns.exception.DNSException, UnicodeError) as error:
            raise NoSuchDomain(f"{question}: not a name") from error
        # Named each time: dnspython would keep the first one it meets for the whole process.
        backend = dns.asyncbackend.get_backend(dns.asyncbackend.sniff())
        try:
            with anyio.fail_after(self.lifetime):
                return await self._resolver.resolve(
                    qname, kind, search=False, lifetime=self.lifetime, backend=backend
                )
        except (dns.resolver.NXDOMAIN, dns.resolver.YXDOMAIN) as error:
            raise NoSuchDomain(f"{question}: no such domain") from error
        except dns.resolver.NoAnswer as error:
            raise NoRecords(f"{question}: no such records") from error
        except (dns.exception.DNSException, OSError) as error:  # TimeoutError is an OSError
            raise ResolveFailed(f"{question}: no answer") from error
