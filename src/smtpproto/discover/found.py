"""What comes out: servers that were named, what each is good for, and who named it."""

from __future__ import annotations

import enum

from attrs import field, frozen

from smtpproto.client import Tls
from smtpproto.result import ClientError

__all__ = ["Candidate", "Discovery", "Finding", "Source", "Verdict"]


class Source(enum.Enum):
    """Who named a server. What a domain says of itself goes before what is concluded or guessed."""

    #: SRV records of the domain (RFC 6186 §3.1, RFC 8314 §5.1).
    SRV = "srv"
    #: The domain's own configuration file, by HTTPS.
    AUTOCONFIG = "autoconfig"
    #: That of the provider to which its MX records lead.
    PROVIDER = "provider"
    #: A usual name in the domain.
    GUESS = "guess"
    #: A usual name at the provider.
    PROVIDER_GUESS = "provider-guess"

    @property
    def published(self) -> bool:
        """Whether the domain itself says so."""
        return self in (Source.SRV, Source.AUTOCONFIG)


_RANK = {source: 0 if source.published else rank for rank, source in enumerate(Source)}


class Verdict(enum.Enum):
    """What a server turned out to be."""

    #: TLS, verified, and logins under it.
    USABLE = "usable"
    #: No SMTP session: no such host, nobody listens, silence, something else than SMTP.
    UNREACHABLE = "unreachable"
    #: The server answered the greeting or EHLO with a refusal.
    REFUSED = "refused"
    #: TLS is not offered, is refused, or fails.
    NO_TLS = "no-tls"
    #: TLS, and a certificate that is not trusted, or made for another name.
    UNTRUSTED = "untrusted"
    #: TLS, and no AUTH under it (RFC 4954 §4).
    NO_LOGIN = "no-login"
    #: Published as a server without TLS, and for that not tried (RFC 8314 §5.1).
    IN_CLEAR = "in-clear"
    #: The time was up.
    NOT_TRIED = "not-tried"


@frozen
class Candidate:
    """A submission server that somebody named, and what it turned out to be.

    `usernames` are to be tried in this order (RFC 6186 §4). `reason` says in words why the
    verdict is so, `error` is what the client raised. `mechanisms` are those of SASL that the
    server offers under TLS; `authentication` is what a configuration file says of logins, in its
    own words.

    `confirm`: it is usable, but before anybody enters a password, ask them whether this host is
    their provider's, for `confirm_reason`. `server_name` is the name that the certificate has to
    have; it is not `host` where only the address's domain is in the certificate (RFC 7817 §3).
    """

    host: str
    port: int
    tls: Tls
    usernames: tuple[str, ...]
    sources: tuple[Source, ...]
    verdict: Verdict
    reason: str
    mechanisms: tuple[str, ...] = ()
    confirm: bool = field(default=False, kw_only=True)
    confirm_reason: str = field(default="", kw_only=True)
    server_name: str = field(default="", kw_only=True)
    authentication: tuple[str, ...] = field(default=(), kw_only=True)
    error: ClientError | None = field(default=None, eq=False, repr=False, kw_only=True)

    @property
    def usable(self) -> bool:
        return self.verdict is Verdict.USABLE

    @property
    def rank(self) -> tuple[int, bool, bool]:
        """What is lower is better: who named it, what to confirm, whose certificate it has."""
        named = min(_RANK[source] for source in self.sources)
        return named, self.confirm, self.server_name not in ("", self.host)


@frozen
class Finding:
    """One question that was asked, and what came of it.

    `failed`: there was no answer, so it may be another one at another time. An answer that there
    is nothing is an answer.
    """

    source: Source
    asked: str
    found: str
    failed: bool = False


@frozen
class Discovery:
    """All that was found out about an address.

    `candidates` are in the order in which they were named, `findings` in that of the questions.
    `no_such_domain`: the DNS says so, and then no name was guessed.
    """

    address: str
    domain: str
    candidates: tuple[Candidate, ...]
    findings: tuple[Finding, ...]
    no_such_domain: bool = field(default=False, kw_only=True)

    @property
    def best(self) -> Candidate | None:
        """The one to use: of the usable ones the first of the lowest rank. None: there is none."""
        usable = [candidate for candidate in self.candidates if candidate.usable]
        return min(usable, key=lambda candidate: candidate.rank, default=None)

    @property
    def unanswered(self) -> bool:
        """Whether no name server answered: there is no network here, or the domain is broken."""
        asked = [finding for finding in self.findings if finding.source is Source.SRV]
        return all(finding.failed for finding in asked) and self.best is None
