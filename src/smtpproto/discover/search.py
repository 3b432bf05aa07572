"""The search itself: who is asked, in which order, and for how long.

In stages, and the next one only where the last has found nothing to log in to: what the domain
publishes (SRV, its configuration file); what the provider behind its MX records publishes; the
usual names.
"""

from __future__ import annotations

import random
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol, TypeVar

import anyio
from anyio import to_thread
from attrs import define, field, frozen

from smtpproto.client import Connector, Tls, connect_tcp, verifying
from smtpproto.resolve import DnsResolver, Mx, NoSuchDomain, ResolveError, ResolveFailed, Srv

from .account import Account, host_name
from .autoconfig import Outgoing, own_urls, provider_url, read_config
from .check import Check, check
from .fetch import Fetcher, FetchError, HttpxFetcher
from .found import Candidate, Discovery, Finding, Source, Verdict
from .names import guesses, provider_domains, provider_hosts, usual_hosts
from .srv import SERVICES, in_order, unavailable

__all__ = ["Bounds", "Resolver", "discover"]


T = TypeVar("T")


class Resolver(Protocol):
    """What is asked of the DNS: `smtpproto.resolve.DnsResolver` can. Raises its ResolveErrors."""

    async def srv(self, name: str) -> Sequence[Srv]:
        """Return the SRV records of a name, in any order; at least one."""
        ...

    async def mx(self, domain: str) -> Sequence[Mx]:
        """Return the MX records of a domain, in any order; at least one."""
        ...


@frozen
class Bounds:
    """How far a search goes.

    `seconds` is the time for all of it, `each` for one question or one wait within a session;
    `concurrency` how many questions or sessions there are at a time. At most `candidates` servers
    are tried, those that are named first; a configuration file has at most `file` octets.
    """

    seconds: float = 60
    each: float = 10
    concurrency: int = 8
    candidates: int = 32
    file: int = 65_536


async def discover(
    address: str,
    *,
    everything: bool = False,
    resolver: Resolver | None = None,
    fetcher: Fetcher | None = None,
    connector: Connector = connect_tcp,
    ssl_context: ssl.SSLContext | None = None,
    bounds: Bounds | None = None,
    randint: Callable[[int, int], int] = random.randint,
) -> Discovery:
    """Find the servers to which `address` may hand its mail, and try each of them.

    It ends with the first stage that has found a usable server; with `everything` none is left
    out. A server is usable if it can be reached, has a certificate that is trusted and made for
    its name, and offers logins under TLS. No login is tried. Servers in other domains are
    connected to as well, so that there is something to ask the user about (RFC 8314 §5.1 would
    have them asked before); they hear nothing that tells who the user is.

    `resolver` and `fetcher` are by default a DnsResolver and an HttpxFetcher. `ssl_context` is for
    the mail servers and has to verify. `randint(a, b)` returns a number from a to b, both
    included; it decides among SRV records of equal priority.

    Raises AddressError for what has no domain to ask; ValueError for a context that does not
    verify. What others do wrong is in the result.
    """
    account = Account.of(address)
    if ssl_context is None:
        ssl_context = await to_thread.run_sync(verifying)
    if not ssl_context.check_hostname:
        raise ValueError("the SSL context does not verify, so nothing could be said of a server")
    search = _Search(
        account,
        resolver or DnsResolver(),
        fetcher or HttpxFetcher(),
        connector,
        ssl_context,
        bounds or Bounds(),
        randint,
    )
    return await search.run(everything=everything)


#: Where a server is, and how TLS begins there.
_Where = tuple[str, int, Tls]


@frozen
class _Named:
    """Who named a server, and what else they said. `vouched`: the domain itself, by HTTPS."""

    sources: tuple[Source, ...]
    usernames: tuple[str, ...] = ()
    authentication: tuple[str, ...] = ()
    vouched: bool = False

    def joined(self, other: _Named) -> _Named:
        return _Named(
            tuple(dict.fromkeys(self.sources + other.sources)),
            self.usernames or other.usernames,
            self.authentication or other.authentication,
            self.vouched or other.vouched,
        )


@define
class _Question:
    """One question: `ask` returns what was found in words, `finding` is there when it has."""

    source: Source
    asked: str
    ask: Callable[[], Awaitable[str]]
    finding: Finding | None = None

    def answered(self, found: str, *, failed: bool = False) -> None:
        self.finding = Finding(self.source, self.asked, found, failed)


@define
class _Search:
    account: Account
    resolver: Resolver
    fetcher: Fetcher
    connector: Connector
    context: ssl.SSLContext
    bounds: Bounds
    randint: Callable[[int, int], int]

    named: dict[_Where, _Named] = field(factory=dict[_Where, _Named])
    checks: dict[_Where, Check] = field(factory=dict[_Where, Check])
    questions: list[_Question] = field(factory=list[_Question])
    records: dict[Tls, Sequence[Srv]] = field(factory=dict[Tls, Sequence[Srv]])
    files: dict[str, list[Outgoing]] = field(factory=dict[str, list[Outgoing]])
    exchange: str | None = None
    no_domain: bool = False

    async def run(self, *, everything: bool) -> Discovery:
        with anyio.move_on_after(self.bounds.seconds):
            for stage in self._published, self._at_provider, self._guessed:
                await stage()
                await self._check_all()
                if not everything and self._found_one():
                    break
        return Discovery(
            self.account.address,
            self.account.domain,
            tuple(self._candidate(where) for where in self.named),
            tuple(self._findings()),
            no_such_domain=self.no_domain,
        )

    def _found_one(self) -> bool:
        return any(checked.verdict is Verdict.USABLE for checked in self.checks.values())

    # The stages

    async def _published(self) -> None:
        urls = own_urls(self.account)
        await self._ask_all(
            *(self._srv(tls, service) for tls, service in SERVICES.items()),
            *(self._file(Source.AUTOCONFIG, url) for url in urls),
        )
        for tls, record in in_order(self.records, self.randint, self.bounds.candidates):
            try:
                host = host_name(record.target)
            except ValueError:
                continue
            self._name((host, record.port, tls), _Named((Source.SRV,)))
        self._name_files(Source.AUTOCONFIG, urls, vouched=True)

    async def _at_provider(self) -> None:
        await self._ask_all(self._mx())
        domains = provider_domains(self.account, self.exchange)
        urls = [provider_url(domain, self.account) for domain in domains]
        await self._ask_all(*(self._file(Source.PROVIDER, url) for url in urls))
        # That the provider is the provider is what the DNS says, where anybody can lie.
        self._name_files(Source.PROVIDER, urls, vouched=False)

    async def _guessed(self) -> None:
        if self.no_domain:
            return  # and so there is nothing below it (RFC 8020 §2)
        absent = {tls for tls, records in self.records.items() if unavailable(records)}
        for source, hosts in (
            (Source.GUESS, usual_hosts(self.account, self.exchange)),
            (Source.PROVIDER_GUESS, provider_hosts(self.account, self.exchange)),
        ):
            for where in guesses(hosts, absent):
                self._name(where, _Named((source,)))

    # What is asked

    def _srv(self, tls: Tls, service: str) -> _Question:
        name = f"{service}._tcp.{self.account.domain}"

        async def ask() -> str:
            records = self.records[tls] = await self.resolver.srv(name)
            if unavailable(records):
                return "the domain has no such service"
            return ", ".join(f"{r.target}:{r.port}" for r in records[: self.bounds.candidates])

        return _Question(Source.SRV, f"{name} SRV", ask)

    def _mx(self) -> _Question:
        async def ask() -> str:
            try:
                records = await self.resolver.mx(self.account.domain)
            except NoSuchDomain:
                self.no_domain = True
                raise
            first = min(records, key=lambda record: (record.preference, record.exchange))
            if first.exchange == ".":
                return "the domain takes no mail"  # and may send some (RFC 7505 §4.2)
            self.exchange = host_name(first.exchange)
            return first.exchange

        return _Question(Source.PROVIDER, f"{self.account.domain} MX", ask)

    def _file(self, source: Source, url: str) -> _Question:
        async def ask() -> str:
            octets = await self.fetcher(url, self.bounds.file)
            servers = read_config(octets, self.account, most=self.bounds.candidates)
            self.files[url] = servers
            named = ", ".join(f"{server.host}:{server.port}" for server in servers)
            return named or "a file that names no SMTP server"

        return _Question(source, url, ask)

    async def _ask_all(self, *questions: _Question) -> None:
        self.questions += questions
        await self._each(self._answer, questions)

    async def _answer(self, question: _Question) -> None:
        try:
            with anyio.fail_after(self.bounds.each):
                question.answered(await question.ask())
        except ResolveFailed:
            question.answered("no name server answers", failed=True)
        except NoSuchDomain:
            question.answered("no such name")
        except ResolveError:
            question.answered("no such record")
        except FetchError as error:
            question.answered(str(error), failed=error.failed)
        except ValueError as error:  # a file or a name that is none
            question.answered(f"not usable: {error}")
        except TimeoutError:
            question.answered(f"no answer within {self.bounds.each:g} s", failed=True)

    async def _each(self, work: Callable[[T], Awaitable[None]], things: Iterable[T]) -> None:
        limiter = anyio.CapacityLimiter(self.bounds.concurrency)

        async def one(thing: T) -> None:
            async with limiter:
                await work(thing)

        async with anyio.create_task_group() as tasks:
            for thing in things:
                tasks.start_soon(one, thing)

    # Who was named

    def _name(self, where: _Where, named: _Named) -> None:
        known = self.named.get(where)
        if known is not None:
            self.named[where] = known.joined(named)
        elif len(self.named) < self.bounds.candidates:
            self.named[where] = named

    def _name_files(self, source: Source, urls: Iterable[str], *, vouched: bool) -> None:
        for url in urls:
            for server in self.files.get(url, ()):
                usernames = (server.username,) if server.username else ()
                self._name(
                    (server.host, server.port, server.tls),
                    _Named((source,), usernames, server.authentication, vouched),
                )

    async def _check_all(self) -> None:
        await self._each(self._check, [where for where in self.named if where not in self.checks])

    async def _check(self, where: _Where) -> None:
        host, port, tls = where
        if tls is Tls.NONE:
            reason = "it is published without TLS, where a password can be overheard"
            self.checks[where] = Check(Verdict.IN_CLEAR, reason)
            return
        self.checks[where] = await check(
            host,
            port,
            tls,
            self.account,
            context=self.context,
            connector=self.connector,
            seconds=self.bounds.each,
        )

    # What comes out

    def _candidate(self, where: _Where) -> Candidate:
        named = self.named[where]
        checked = self.checks.get(where, Check(Verdict.NOT_TRIED, "the time was up"))
        host, port, tls = where
        account = self.account
        confirm = ""
        known = account.covers(host) or named.vouched or checked.vouches
        if checked.verdict is Verdict.USABLE and not known:
            confirm = (
                f"{host} is not in {account.domain}, its certificate does not have that name, "
                "and the DNS, which led there, can be forged"
            )
        return Candidate(
            host,
            port,
            tls,
            named.usernames or tuple(dict.fromkeys([account.address, account.local_part])),
            named.sources,
            checked.verdict,
            checked.reason,
            checked.mechanisms,
            confirm=bool(confirm),
            confirm_reason=confirm,
            server_name=checked.server_name,
            authentication=named.authentication,
            error=checked.error,
        )

    def _findings(self) -> Iterable[Finding]:
        for question in self.questions:
            if question.finding is None:
                question.answered("no answer before the time was up", failed=True)
                assert question.finding is not None
            yield question.finding
