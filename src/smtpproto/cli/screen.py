"""The one screen of `serve`: where it listens, where mail goes, what to enter, what to paste."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from smtpproto import __version__
from smtpproto.relay import HostPort
from smtpproto.relay.filters import Limit
from smtpproto.relay.relay import Kind

from .config import ServeSettings
from .console import amount, safe, say
from .filters import in_order
from .node import Certificate, Login
from .options import DATA, where

__all__ = ["ours", "show"]


def show(
    chosen: ServeSettings,
    *,
    places: Mapping[Kind, HostPort],
    login: Login | None,
    certificate: Certificate,
    backend: str,
    watched: str | None = None,
) -> None:
    """Print the one screen: where it listens, where mail goes, what to enter, what to paste."""

    def part(title: str, *rows: tuple[object, object]) -> None:
        say("")
        say((title, "head"))
        for name, value in rows:
            text = safe(value)
            say("  ", (f"{safe(name):<15} " if text else safe(name), "dim"), text)

    say(
        ("smtpproto", "head"), f" {__version__}, a mail node called {chosen.hostname}, on {backend}"
    )
    others = ", ".join(map(str, chosen.relay_from)) or "nobody else"
    whose = "the login below" if login else f"an account in {chosen.accounts}"
    rows = [
        ("SMTP", f"{where(places['smtp'])}  mail for the domains below, from everybody"),
        ("submission", f"{where(places['submission'])}  mail for all the world, with {whose}"),
    ]
    if "submissions" in places:
        rows.append(("submissions", f"{where(places['submissions'])}  the same, over TLS at once"))
    if watched:
        rows.append(("metrics", f"http://{watched}/metrics, /health, /ready"))
    rows.append(("relaying for", f"logged-in users and {others}"))
    if chosen.relay_domains:
        elsewhere = ", ".join(chosen.relay_domains)
        rows.append(("relaying to", f"{elsewhere}, from everybody"))
    part("Listening", *rows)
    asked = in_order(chosen.filters, chosen.limits)
    if asked:
        part(
            "What is kept out, in this order",
            *((f"{number}. {each.use}", each) for number, each in enumerate(asked, start=1)),
            *(("at most", _limit(limit)) for limit in chosen.limits),
            ("where one fails", "mail passes" if chosen.filters_fail == "pass" else "mail waits"),
        )
    here = f"{chosen.data / 'mail'}/<domain>/<mailbox>/  (Maildir)"
    onward = (
        f"to the smart host {chosen.smart_host}" if chosen.smart_host else "by MX, over the DNS"
    )
    all_mail = any(not route.senders and not route.recipients for route in chosen.routes)
    queue = f"{ours()} queue{_data_option(chosen)}"
    part(
        "Where mail goes",
        *((route.whose, route) for route in chosen.routes),
        *(
            (domain, here.replace("<domain>", domain))
            for domain in chosen.local_domains
            if not any(route.takes(domain) for route in chosen.routes)
        ),
        *(("a mailbox holds", quota) for quota in [_quota(chosen)] if quota),
        ("what waits", queue) if all_mail else ("elsewhere", f"{onward}; what waits: {queue}"),
    )
    secured = f"STARTTLS; our own certificate: {certificate.cert}"
    if login is None:
        submission = places["submission"]
        file = shlex.quote(str(chosen.accounts))
        part(
            "In a mail program",
            ("server, port", f"{submission.host or chosen.hostname}, {submission.port}"),
            ("security", secured),
            ("login", f"an account; one more: {ours()} account --file {file} add NAME"),
        )
    else:
        part(
            "In a mail program",
            ("server, port", f"{login.host}, {login.port}"),
            ("security", secured),
            ("login", f"{login.username}, password {login.password}"),
        )
        _show_first(chosen, login)
    say("")
    say(("ready", "good"))


def _show_first(chosen: ServeSettings, login: Login) -> None:
    to = f"you@{chosen.local_domains[0]}" if chosen.local_domains else "you@example.org"
    sender = f"{login.username}@{chosen.local_domains[0] if chosen.local_domains else 'localhost'}"
    say("")
    say(("Send a first message", "head"))
    for line in (
        f"{ours()} send{_data_option(chosen)} --from {sender} --to {to} --subject Hello",
        f"swaks --server {HostPort(login.host, login.port)} --tls --auth PLAIN "
        f"--auth-user {shlex.quote(login.username)} "
        f"--auth-password {shlex.quote(login.password)} --from {sender} --to {to}",
    ):
        say((line, "ours"))


def _limit(limit: Limit) -> str:
    return f"{limit} {f'for {limit.who}' if limit.who else f'per {limit.per}'}"


def _quota(chosen: ServeSettings) -> str:
    limits = [amount(chosen.mailbox_quota)] if chosen.mailbox_quota else []
    limits += [f"{chosen.mailbox_quota_messages} messages"] if chosen.mailbox_quota_messages else []
    others = "; some, what mailbox-quotas says" if limits and chosen.mailbox_quotas else ""
    return ", ".join(limits) + others


def ours() -> str:
    """Write this command the way it was called: a line to paste has to work as it is."""
    called = sys.argv[0]
    if Path(called).name == "__main__.py":
        return f"{_near(sys.executable)} -m smtpproto"
    if shutil.which("smtpproto") == called or Path(called).name != "smtpproto":
        return "smtpproto"
    return _near(called)


def _near(program: str) -> str:
    """Write a program's path for a shell in this directory."""
    near = os.path.relpath(program)
    if near.startswith(".."):
        return shlex.quote(program)
    return shlex.quote(near if os.sep in near else f"./{near}")


def _data_option(chosen: ServeSettings) -> str:
    return "" if chosen.data == DATA else f" --data {shlex.quote(str(chosen.data))}"
