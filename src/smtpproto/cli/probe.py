"""`smtpproto probe`: talk to a server, show all that is said, and say what is wrong."""

from __future__ import annotations

from pathlib import Path

import click

from smtpproto.client import Tls
from smtpproto.relay.routing.route import HostPort

from .certificate import facts
from .console import dialogue, mark, out, say, table
from .examine import Findings, Probe
from .options import (
    backend_option,
    ca_option,
    context_for,
    helo_option,
    password_for,
    password_option,
    run,
    server,
    tls_option,
)
from .words import offer_in_words

__all__ = ["probe"]


@click.command(epilog="Exit codes: 0 all is well; 1 something is wrong; 2 wrong usage.")
@click.argument("address", metavar="HOST[:PORT]", type=server(0))
@tls_option(
    "Default: implicit on port 465; elsewhere STARTTLS if it is offered. "
    "The certificate is always checked."
)
@ca_option
@click.option("--login", metavar="USER", help="Try to log in as this user.")
@password_option
@helo_option
@click.option(
    "--timeout",
    type=click.FloatRange(0.1, 3600),
    default=30,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for each answer.",
)
@backend_option
def probe(
    *,
    address: HostPort,
    tls: str | None,
    ca: Path | None,
    login: str | None,
    password_file: Path | None,
    helo: str | None,
    timeout: float,
    backend: str,
) -> None:
    """Look at an SMTP server, and say what is wrong.

    Shows the dialogue as it happens, what the server offers, TLS and certificate. No mail is
    sent. A password is sent only under TLS with a good certificate, or on loopback.

    Without a port it is 465 with --tls implicit, 587 with --login, and else 25, where servers
    take mail from other servers.
    """
    if password_file is not None and login is None:
        raise click.UsageError("--password-file goes with --login")
    if not address.port:
        implicit = tls == Tls.IMPLICIT.value
        address = HostPort(address.host, 465 if implicit else 587 if login else 25)
    if tls is None and address.port == 465:
        tls = Tls.IMPLICIT.value
    probing = Probe(
        address,
        tls=Tls(tls) if tls else None,
        context=context_for(ca),
        login=(login, password_for(login, password_file)) if login else None,
        helo_name=helo,
        seconds=timeout,
        show=_show,
    )
    say((str(address), "head"))
    run(backend, probing.run)
    _report(probing.findings)
    raise SystemExit(1 if probing.findings.problems else 0)


def _show(line: str) -> None:
    if line.startswith("-- "):
        say((f"  {line}", "dim"))
    else:
        dialogue(line)


def _report(findings: Findings) -> None:
    console = out()
    if findings.offered:
        rows = [
            (f"{keyword} {argument}".rstrip(), offer_in_words(keyword, argument))
            for keyword, argument in findings.offered.items()
        ]
        console.print()
        console.print(table("", "", rows=rows, title="What the server offers"))
    if findings.tls is not None:
        rows = [("version", findings.tls.version), ("cipher", findings.tls.cipher)]
        if findings.certificate:
            rows += facts(findings.certificate)
            rows.append(("trusted", "yes" if findings.trusted else "no"))
        console.print()
        console.print(table("", "", rows=rows, title="TLS"))
    console.print()
    for note in findings.notes:
        say(mark("warn"), f" {note}")
    if findings.logged_in:
        say(mark("good"), " the login works")
    for problem in findings.problems:
        say(mark("bad"), f" {problem}")
    if not findings.problems:
        say(mark("good"), " all is well")
