"""Where nobody says anything: the usual names, and the provider behind an MX record."""

from __future__ import annotations

from collections.abc import Container, Iterable

from smtpproto.client import Tls

from .account import Account

__all__ = ["PORTS", "guesses", "provider_domains", "provider_hosts", "usual_hosts"]

#: RFC 8314 §3.3: both, TLS from the first octet preferred.
PORTS = {Tls.IMPLICIT: 465, Tls.REQUIRED: 587}

# Second-level labels below which registries of countries let names be registered. Not the whole
# of the public suffix list: what is missed is asked a question that nobody answers.
_REGISTRIES = frozenset(
    ("ac", "co", "com", "edu", "go", "gob", "gov", "ltd", "mil", "ne", "net", "nom", "or", "org")
)


def usual_hosts(account: Account, exchange: str | None) -> list[str]:
    """Return the hosts of a domain that may take its users' mail.

    `exchange` is where mail for the domain goes: one's own server is often all of it.
    """
    domain = account.domain
    hosts = [f"smtp.{domain}", f"mail.{domain}"]
    if exchange is not None and account.covers(exchange):
        hosts.append(exchange)
    return list(dict.fromkeys([*hosts, domain]))


def provider_domains(account: Account, exchange: str | None) -> list[str]:
    """Return the domains of whoever takes the mail for a domain, if that is somebody else.

    Mail programs conclude from the mail exchanger `mx.europe.example.net` that
    `europe.example.net`, or else `example.net`, has the settings.
    """
    if exchange is None or account.covers(exchange):
        return []
    labels = exchange.split(".")
    short = 3 if len(labels[-1]) == 2 and labels[-2:-1] and labels[-2] in _REGISTRIES else 2
    domains = [".".join(labels[1:]), ".".join(labels[-short:])]
    return [
        domain
        for domain in dict.fromkeys(domains)
        if len(domain.split(".")) >= short and domain != account.domain
    ]


def provider_hosts(account: Account, exchange: str | None) -> list[str]:
    """Return the hosts of that provider that may take the mail of its users."""
    domains = provider_domains(account, exchange)
    hosts = [f"{name}.{domain}" for domain in domains for name in ("smtp", "mail")]
    if exchange is not None and not account.covers(exchange):
        hosts.append(exchange)
    return list(dict.fromkeys(hosts))


def guesses(hosts: Iterable[str], without: Container[Tls]) -> list[tuple[str, int, Tls]]:
    """Return what to try at each host: the two ports of submission, but for kinds `without`."""
    return [
        (host, port, tls) for host in hosts for tls, port in PORTS.items() if tls not in without
    ]
