"""`smtpproto discover`: the settings with which an address sends its mail."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from smtpproto.client import Tls
from smtpproto.discover import (
    Account,
    AddressError,
    Bounds,
    Candidate,
    Discovery,
    HttpxFetcher,
    Source,
    Verdict,
)
from smtpproto.discover import discover as look
from smtpproto.relay.routing.route import HostPort

from .console import mark, out, say, table
from .options import BadInput, backend_option, ca_option, context_for, run
from .words import explain

__all__ = ["discover"]

_SOURCES = {
    Source.SRV: "SRV record",
    Source.AUTOCONFIG: "config file",
    Source.PROVIDER: "provider's file",
    Source.GUESS: "usual name",
    Source.PROVIDER_GUESS: "provider's name",
}

_TLS = {Tls.IMPLICIT: "TLS", Tls.REQUIRED: "STARTTLS", Tls.NONE: "none"}

#: As the menus of mail programs have it.
_SECURITY = {Tls.IMPLICIT: "SSL/TLS", Tls.REQUIRED: "STARTTLS"}


@click.command(epilog="Exit codes: 0 a server was found; 1 none was; 2 wrong usage.")
@click.argument("address", metavar="USER@DOMAIN")
@click.option("--all", "everything", is_flag=True, help="Go on when a server has been found.")
@ca_option
@click.option(
    "--timeout",
    type=click.FloatRange(0.1, 3600),
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="How long to look in all.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@backend_option
def discover(
    *,
    address: str,
    everything: bool,
    ca: Path | None,
    timeout: float,
    as_json: bool,
    backend: str,
) -> None:
    """Find the server by which an address sends, and what to enter.

    Asks the DNS (SRV records), then the file that mail programs read, at the domain and at its
    provider, then tries the usual names. Each server is tried: whether it can be reached, has a
    good certificate, and offers logins under TLS. No password is asked for, none is sent.
    """
    try:
        Account.of(address)
    except AddressError as error:
        raise BadInput(str(error)) from None
    search = partial(
        look,
        address,
        everything=everything,
        fetcher=HttpxFetcher(context_for(ca)),
        ssl_context=context_for(ca),
        bounds=Bounds(seconds=timeout, each=min(timeout, Bounds().each)),
    )
    discovery = run(backend, search)
    if as_json:
        click.echo(json.dumps(_as_dict(discovery), indent=2))  # in ASCII: controls stay escaped
    else:
        _report(discovery)
    raise SystemExit(0 if discovery.best is not None else 1)


def _report(discovery: Discovery) -> None:
    say((discovery.address, "head"))
    for finding in discovery.findings:
        say("  ", finding.asked)
        say("    ", (finding.found, "warn" if finding.failed else "dim"))
    console = out()
    if discovery.candidates:
        console.print()
        console.print(_servers(discovery.candidates))
    console.print()
    best = discovery.best
    if best is not None:
        console.print(table("", "", rows=_settings(best), title="For your mail program"))
        console.print()
        _remarks(best)
    elif discovery.no_such_domain:
        say(mark("bad"), f" there is no domain {discovery.domain}")
    elif discovery.unanswered:
        say(
            mark("bad"),
            " no name server answered: either there is no network here, "
            f"or those of {discovery.domain} are out of order",
        )
    else:
        say(
            mark("bad"),
            f" no server was found to which {discovery.address} could hand its mail; "
            "the provider's help pages should name one (see it with: smtpproto probe HOST:465)",
        )


def _servers(candidates: Sequence[Candidate]) -> Table:
    rows = [
        (
            HostPort(candidate.host, candidate.port),
            _TLS[candidate.tls],
            ", ".join(_SOURCES[source] for source in candidate.sources),
            _verdict(candidate),
        )
        for candidate in candidates
    ]
    made = table("server", "by", "named by", "", rows=rows)
    # The others fold first.
    made.columns[0].no_wrap = all(len(str(server)) <= 40 for server, *_ in rows)
    return made


def _verdict(candidate: Candidate) -> str:
    if candidate.usable:
        return "usable, once you have confirmed it" if candidate.confirm else "usable"
    if candidate.error is not None:
        return explain(candidate.error, candidate.host)
    return candidate.reason


def _settings(best: Candidate) -> list[tuple[str, object]]:
    first, *others = best.usernames
    username = first + "".join(f" (if that is refused: {other})" for other in others)
    return [
        ("outgoing server", best.host),
        ("port", best.port),
        ("security", _SECURITY[best.tls]),
        ("login", _login(best.mechanisms)),
        ("user name", username),
    ]


def _login(mechanisms: tuple[str, ...]) -> str:
    ways: list[str] = []
    if {"PLAIN", "LOGIN"} & {*mechanisms}:
        ways.append("normal password")
    if any(mechanism.startswith(("SCRAM-", "CRAM-", "DIGEST-")) for mechanism in mechanisms):
        ways.append("encrypted password")
    if {"XOAUTH2", "OAUTHBEARER"} & {*mechanisms}:
        ways.append("OAuth2")
    if "GSSAPI" in mechanisms:
        ways.append("Kerberos")
    return f"{' or '.join(ways) or 'required'} (AUTH {' '.join(mechanisms)})"


def _remarks(best: Candidate) -> None:
    if best.server_name != best.host:
        say(
            mark("warn"),
            f" its certificate is for {best.server_name}: a program that looks for {best.host} "
            "in it will complain",
        )
    if best.confirm:
        say(
            mark("warn"),
            f" is {best.host} your provider's? Make sure before you enter a password: "
            f"{best.confirm_reason}",
        )
    else:
        say(mark("good"), " it can be reached, its certificate is good, and it offers logins")


def _as_dict(discovery: Discovery) -> dict[str, Any]:
    best = discovery.best
    return {
        "address": discovery.address,
        "domain": discovery.domain,
        "best": None if best is None else _candidate(best),
        "candidates": [_candidate(candidate) for candidate in discovery.candidates],
        "findings": [
            {
                "source": finding.source.value,
                "asked": finding.asked,
                "found": finding.found,
                "failed": finding.failed,
            }
            for finding in discovery.findings
        ],
    }


def _candidate(candidate: Candidate) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "host": candidate.host,
        "port": candidate.port,
        "tls": candidate.tls.value,
        "usernames": candidate.usernames,
        "sources": [source.value for source in candidate.sources],
        "verdict": candidate.verdict.value,
        "reason": candidate.reason if candidate.usable else _verdict(candidate),
        "mechanisms": candidate.mechanisms,
        "authentication": candidate.authentication,
        "confirm": candidate.confirm,
    }
    if candidate.confirm:
        shown["confirm_reason"] = candidate.confirm_reason
    if candidate.verdict in {Verdict.USABLE, Verdict.NO_LOGIN}:
        shown["server_name"] = candidate.server_name
    return shown
