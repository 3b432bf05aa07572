"""Whether a node can face the internet: what others look at before they take its mail.

The DNS and the way out are handed in. Each finding says what to do about it.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Literal, Protocol, TypeAlias

import anyio
from attrs import field, frozen
from cryptography import x509

from smtpproto.connector import Connector, connect_tcp
from smtpproto.relay.filters.blocklist import LISTED, REFUSALS, is_public, question
from smtpproto.resolve import Mx, ResolveError, ResolveFailed

from .config import ServeSettings
from .values import is_loopback
from .words import explain

__all__ = ["Finding", "Names", "Public"]

Kind: TypeAlias = Literal["good", "warn", "bad"]

#: Lists that many servers ask. Of the first, answers .10 and .11 are ranges of dial-up lines.
LISTS = ("zen.spamhaus.org", "bl.spamcop.net")
DIAL_UP = ("127.0.0.10", "127.0.0.11")
#: Whose server is tried at port 25, if there is one to be found.
SOMEBODY = "gmail.com"
#: Seconds for each thing that is asked of others.
PATIENCE = 15.0
SOON = timedelta(days=14)

SMART_HOST = (
    "the way round: a smart host, some provider's server for submission (smart-host, with a login)"
)


class Names(Protocol):
    """What is asked of the DNS; each raises the three ResolveErrors, as `DnsResolver` does."""

    async def mx(self, domain: str) -> Sequence[Mx]:
        """Return MX records."""
        ...

    async def addresses(self, host: str) -> Sequence[str]:
        """Return IPv4 and IPv6 addresses."""
        ...

    async def ipv4(self, name: str) -> Sequence[str]:
        """Return A records."""
        ...

    async def names(self, address: str) -> Sequence[str]:
        """Return the names that an address has."""
        ...


@frozen
class Finding:
    """What was found: a line, and what to do about it if it is not good."""

    kind: Kind
    said: str
    advice: str = ""


@frozen
class Public:
    """Looks at what the world sees of a node with these settings."""

    settings: ServeSettings
    dns: Names
    connect: Connector = connect_tcp
    now: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))
    patience: float = PATIENCE

    async def look(self) -> list[Finding]:
        """Ask everything, one behind the other. Reads the certificate's file."""
        found: list[Finding] = []
        addresses: list[str] = []
        name = self.settings.hostname
        if is_loopback(name) or "." not in name:
            found.append(
                Finding(
                    "bad",
                    f"hostname is {name}, which is nobody's name on the internet",
                    'set hostname to a name of yours that leads here, such as "mail.example.org"',
                )
            )
        else:
            found += await self._asked(f"the addresses of {name}", self._own_name, addresses)
        for address in addresses:
            found += await self._asked(f"the name of {address}", self._reverse, address)
            for zone in LISTS:
                found += await self._asked(f"{zone} about {address}", self._listed, address, zone)
        for zone, of in self._own_lists():
            found += await self._asked(f"{zone} about its test entry", self._answers, zone, of)
        if self.settings.smart_host is None:
            found += await self._way_out()
        else:
            found.append(
                Finding("good", f"other mail goes by the smart host {self.settings.smart_host}")
            )
        for domain in (*self.settings.local_domains, *self.settings.relay_domains):
            if not is_loopback(domain):
                found += await self._asked(f"the MX of {domain}", self._exchanger, domain)
        found += await anyio.to_thread.run_sync(self._certificate)
        return found

    async def _asked(
        self, what: str, ask: Callable[..., Awaitable[list[Finding]]], *given: object
    ) -> list[Finding]:
        """Ask within the deadline; no answer is a finding, too."""
        with anyio.move_on_after(self.patience):
            try:
                return await ask(*given)
            except ResolveFailed:
                pass
        return [
            Finding(
                "warn",
                f"the DNS did not answer: {what}",
                "ask again later; if it stays so, see to this machine's resolver",
            )
        ]

    async def _own_name(self, addresses: list[str]) -> list[Finding]:
        name = self.settings.hostname
        try:
            every = await self.dns.addresses(name)
        except ResolveFailed:
            raise
        except ResolveError:
            return [
                Finding(
                    "bad",
                    f"{name} has no address in the DNS",
                    f"give it an A record (and AAAA) with this machine's own: {name}. A 192.0.2.1",
                )
            ]
        addresses += [each for each in every if is_public(ip_address(each))]
        if not addresses:
            return [
                Finding(
                    "bad",
                    f"{name} leads to {', '.join(every)}, where the internet does not come",
                    "give it the address that the world sees of this machine",
                )
            ]
        return [Finding("good", f"{name} leads to {', '.join(addresses)}")]

    async def _reverse(self, address: str) -> list[Finding]:
        name = self.settings.hostname
        try:
            pointers = [each.rstrip(".").lower() for each in await self.dns.names(address)]
        except ResolveFailed:
            raise
        except ResolveError:
            pointers = []
        if name in pointers:
            return [Finding("good", f"{address} has the name {name}, and they agree")]
        said = f"has the name {pointers[0]}, not {name}" if pointers else "has no name (PTR)"
        kind: Kind = "bad" if self.settings.smart_host is None else "warn"
        return [
            Finding(
                kind,
                f"{address} {said}; many servers refuse mail from there",
                f"{SMART_HOST}; or have who rents you the address set its reverse DNS to {name}",
            )
        ]

    async def _listed(self, address: str, zone: str) -> list[Finding]:
        try:
            answers = await self.dns.ipv4(question(ip_address(address), zone))
        except ResolveFailed:
            raise
        except ResolveError:
            return [Finding("good", f"{address} is not on {zone}")]
        if all(ip_address(a) not in LISTED or ip_address(a) in REFUSALS for a in answers):
            return [
                Finding(
                    "warn",
                    f"{zone} does not answer this resolver about {address}",
                    "ask by a resolver of your own: it does not answer large public ones",
                )
            ]
        kind: Kind = "bad" if self.settings.smart_host is None else "warn"
        if any(answer in DIAL_UP for answer in answers):
            return [
                Finding(
                    kind,
                    f"{address} is in a range of home lines, by {zone}; few take mail from there",
                    f"{SMART_HOST}; or rent an address that is meant for servers",
                )
            ]
        return [
            Finding(
                kind,
                f"{address} is on the block list {zone}",
                f"{SMART_HOST}; find out why at the list's own site, end that, and ask for removal",
            )
        ]

    def _own_lists(self) -> list[tuple[str, str]]:
        """Return the block lists that the settings name, and what is looked up there."""
        lists = [each.given for each in self.settings.filters if each.use == "blocklist"]
        return list(dict.fromkeys((each["zone"], each.get("of", "address")) for each in lists))

    async def _answers(self, zone: str, of: str) -> list[Finding]:
        """Ask a list for what each has, and for what none may have (RFC 5782 §5)."""
        listed, never = ("test", "invalid") if of == "sender" else ("127.0.0.2", "127.0.0.1")
        has = await self._has(zone, listed)
        if not has and of == "address" and (v6 := await self._has(zone, f"::ffff:{listed}")):
            has, never = v6, f"::ffff:{never}"  # a list of IPv6 addresses alone
        if any(ip_address(answer) in REFUSALS for answer in has):
            return [
                Finding(
                    "bad",
                    f"the block list {zone} does not answer this resolver ({', '.join(has)}): the "
                    "filter finds nothing",
                    "ask by a resolver of your own: most lists do not answer large public ones, or "
                    "who asks too much; else take it out of filters",
                )
            ]
        if not any(ip_address(answer) in LISTED for answer in has):
            return [
                Finding(
                    "bad",
                    f"the block list {zone} does not have its test entry, {listed}: it is dead, or "
                    "does not answer this resolver, and the filter finds nothing",
                    "look at the list's own site who may ask, and by which zone; ask by a resolver "
                    "of your own; else take it out of filters",
                )
            ]
        if any(ip_address(answer) in LISTED for answer in await self._has(zone, never)):
            return [
                Finding(
                    "bad",
                    f"the block list {zone} has {never}, which none may have: it has come to list "
                    "everybody, and is passed over",
                    "take it out of filters",
                )
            ]
        return [Finding("good", f"the block list {zone} answers, and has its test entry")]

    async def _has(self, zone: str, what: str) -> Sequence[str]:
        asked = f"{what}.{zone}" if what.isalpha() else question(ip_address(what), zone)
        try:
            return await self.dns.ipv4(asked)
        except ResolveFailed:
            raise
        except ResolveError:
            return []

    async def _way_out(self) -> list[Finding]:
        host = SOMEBODY
        why = f"no answer within {self.patience:g} s"
        with anyio.move_on_after(self.patience):
            try:
                records = sorted(await self.dns.mx(SOMEBODY), key=lambda each: each.preference)
                host = records[0].exchange
                stream = await self.connect(host, 25)
                async with stream:
                    greeting = await stream.receive()
                if greeting.startswith(b"220"):
                    return [Finding("good", f"port 25 of others is in reach: {host} answers")]
                why = "what answers there is no mail server"
            except ResolveError:
                return [
                    Finding(
                        "warn",
                        f"whether port 25 is in reach is not known: no MX of {SOMEBODY} was found",
                        "see to this machine's resolver",
                    )
                ]
            except (OSError, anyio.EndOfStream, anyio.BrokenResourceError) as error:
                why = explain(error, host)
        return [
            Finding(
                "bad",
                f"port 25 of others is not in reach: {host}: {why}",
                f"{SMART_HOST}, by port 587 or 465; or ask your provider to open port 25",
            )
        ]

    async def _exchanger(self, domain: str) -> list[Finding]:
        name = self.settings.hostname
        record = f"{domain}. MX 10 {name}."
        try:
            records = await self.dns.mx(domain)
        except ResolveFailed:
            raise
        except ResolveError:
            return [
                Finding("warn", f"{domain} has no MX record", f"for mail to come here: {record}")
            ]
        hosts = [each.exchange.lower() for each in records]
        if name in hosts:
            return [Finding("good", f"the MX of {domain} leads here")]
        said = f"the MX of {domain} leads to {', '.join(hosts)}, not to {name}"
        return [Finding("warn", said, f"if mail is to come here first: {record}")]

    def _certificate(self) -> list[Finding]:
        name = self.settings.hostname
        file = self.settings.data / "tls" / "cert.pem"
        advice = f"get one for {name} (by ACME it is free), and put it there, with key.pem beside"
        try:
            made = x509.load_pem_x509_certificate(file.read_bytes())
        except FileNotFoundError:
            return [Finding("warn", f"there is no certificate yet: {file}", advice)]
        except (OSError, ValueError) as error:
            return [Finding("bad", f"{file} cannot be read: {error}", advice)]
        left = made.not_valid_after_utc - self.now()
        if left < timedelta(0):
            return [Finding("bad", f"the certificate {file} has expired", advice)]
        if not _is_for(made, name):
            return [Finding("warn", f"the certificate {file} is not for {name}", advice)]
        if made.issuer == made.subject:
            said = f"the certificate {file} is signed by itself: mail programs will not trust it"
            return [Finding("warn", said, advice)]
        if left < SOON:
            days = math.ceil(left / timedelta(days=1))
            return [Finding("warn", f"the certificate {file} ends in {days} days", advice)]
        return [Finding("good", f"the certificate is for {name}, for {left.days} days more")]


def _is_for(certificate: x509.Certificate, name: str) -> bool:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    given = [each.lower() for each in names.get_values_for_type(x509.DNSName)]
    return name in given or f"*.{name.partition('.')[2]}" in given
