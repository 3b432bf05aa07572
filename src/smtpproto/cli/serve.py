"""`smtpproto serve`: a working mail node, from nothing."""

from __future__ import annotations

import logging
import os
import random
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import click
from anyio import to_thread
from anyio.abc import TaskStatus

from smtpproto import __version__
from smtpproto.core.connection import Limits
from smtpproto.core.path import ForwardPath
from smtpproto.relay import (
    Access,
    AccountFile,
    AliasTable,
    DnsResolver,
    Host,
    HostPort,
    Listener,
    Maildir,
    Passwords,
    Relay,
    Router,
    RouteTable,
    SQLiteSpool,
)
from smtpproto.relay.accounts import every_sender
from smtpproto.relay.filters import Filter
from smtpproto.relay.quota import Quota, quotas
from smtpproto.relay.relay import Kind
from smtpproto.relay.spool import SpoolUnavailable
from smtpproto.relay.story import (
    Accepted,
    Deferred,
    Delivered,
    Discarded,
    Event,
    Expanded,
    Failed,
    Held,
    Judged,
    Reported,
)
from smtpproto.stream import causes

from .config import ConfigError, ServeSettings, build, load
from .console import amount, safe, say
from .filters import in_order, open_filters
from .node import (
    Certificate,
    Login,
    NodeError,
    ensure_certificate,
    ensure_login,
    ensure_secret,
)
from .options import (
    DATA,
    BadInput,
    Failure,
    Value,
    backend_option,
    listen,
    password_for,
    run,
    server,
    where,
)
from .routes import rules_of
from .values import domain, is_loopback, network
from .words import explain

__all__ = ["serve"]

#: So many of a message's recipients are named when it is accepted.
NAMED = 5


@click.command()
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Read settings from this TOML file; options given here override it.",
)
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help=f"Where mail, spool, login and certificate are kept. [default: {DATA}]",
)
@click.option(
    "--listen",
    type=listen,
    metavar="HOST:PORT",
    help="SMTP, for other servers. [default: 127.0.0.1:2525]",
)
@click.option(
    "--submission",
    type=listen,
    metavar="HOST:PORT",
    help="Submission, for mail programs. [default: 127.0.0.1:2587]",
)
@click.option(
    "--submissions",
    type=listen,
    metavar="HOST:PORT",
    help="The same, with TLS from the first octet. [default: nowhere]",
)
@click.option(
    "--accounts",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Who may log in, as `smtpproto account` writes it. [default: a login of its own]",
)
@click.option(
    "--local-domain",
    "local_domains",
    type=Value("NAME", domain),
    multiple=True,
    metavar="NAME",
    help="Mail for this domain ends here; may be repeated. [default: localhost]",
)
@click.option(
    "--smart-host",
    type=server(587),
    metavar="HOST:PORT",
    help="Hand all other mail to this server, instead of asking the DNS.",
)
@click.option(
    "--relay-from",
    type=Value("CIDR", network),
    multiple=True,
    metavar="CIDR",
    help="Relay for clients in this network without a login; may be repeated. [default: nobody]",
)
@backend_option
def serve(*, config: Path | None, backend: str, **given: Any) -> None:
    """Run a mail node.

    Without any option it works at once: mail for anybody@localhost arrives in Maildirs, and the
    screen says what to enter in a mail program. Ctrl-C or SIGTERM lets what is under way finish,
    and exits with 0. SIGHUP reads the certificate again, for a new one without a restart.
    """
    try:
        chosen = build(load(config) if config else {}, given)
    except ConfigError as error:
        raise BadInput(str(error)) from None
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    run(backend, partial(_serve, chosen, backend))


async def _serve(chosen: ServeSettings, backend: str) -> None:
    try:
        smart_login = await to_thread.run_sync(_smart_login, chosen)
        routes = RouteTable(await to_thread.run_sync(rules_of, chosen.routes))
        names = [chosen.hostname, *chosen.local_domains]
        certificate = await to_thread.run_sync(ensure_certificate, chosen.data, names)
        async with SQLiteSpool.open(chosen.data / "spool") as spool:
            # Not before: a node that runs on this data has its own address in the login.
            login = await _login(chosen, chosen.submission.port)
            accounts = await to_thread.run_sync(_accounts, chosen)
            relay = _relay(
                chosen,
                spool,
                certificate,
                smart_login,
                login=login,
                accounts=accounts,
                routes=routes,
            )
            async with open_filters(
                chosen.filters, chosen.limits, hostname=chosen.hostname, data=chosen.data
            ) as filters:
                await _run(relay, chosen, certificate, backend, filters)
    except (SpoolUnavailable, NodeError) as error:
        raise Failure(str(error)) from None
    except OSError as error:
        raise Failure(f"cannot keep data in {chosen.data}: {error.strerror or error}") from None


async def _run(
    relay: Relay,
    chosen: ServeSettings,
    certificate: Certificate,
    backend: str,
    filters: Mapping[Kind, Sequence[Filter]],
) -> None:
    """Run until SIGINT or SIGTERM, and drain; a second signal does not wait for that.

    SIGHUP has it read its certificate again.
    """
    wanted: dict[Kind, HostPort] = {"smtp": chosen.listen, "submission": chosen.submission}
    if chosen.submissions is not None:
        wanted["submissions"] = chosen.submissions
    listeners = [
        Listener(kind, at.host or None, at.port, filters.get(kind, ()))
        for kind, at in wanted.items()
    ]
    hangup = getattr(signal, "SIGHUP", signal.SIGTERM)  # there is none on Windows
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, hangup) as signals:
        async with anyio.create_task_group() as tasks:

            async def run_relay(*, task_status: TaskStatus[list[tuple[str, int]]]) -> None:
                await relay.run(listeners, task_status=task_status)
                tasks.cancel_scope.cancel()

            try:
                bound = await tasks.start(run_relay)
            except* OSError as group:
                error = next(e for e in causes(group) if isinstance(e, OSError))
                raise Failure(f"cannot listen on {error.filename}: {explain(error)}") from None
            places: dict[Kind, HostPort] = {
                kind: HostPort(at.host, port)
                for (kind, at), (_, port) in zip(wanted.items(), bound, strict=True)
            }
            login = await _login(chosen, places["submission"].port)
            show(chosen, places=places, login=login, certificate=certificate, backend=backend)
            stopping = False
            async for number in signals:
                if number == hangup != signal.SIGTERM:
                    if await to_thread.run_sync(relay.reload):
                        say("the certificate was read again")
                    continue
                if stopping:
                    tasks.cancel_scope.cancel()
                    return
                stopping = True
                say("stopping: what is under way may finish (once more: at once)")
                relay.stop()


async def _login(chosen: ServeSettings, port: int) -> Login | None:
    """Make sure of the node's own login, where there are no accounts."""
    if chosen.accounts is not None:
        return None
    # A mail program needs an address to connect to, and "all of them" is none.
    host = chosen.submission.host or chosen.hostname
    return await to_thread.run_sync(ensure_login, chosen.data, host, port)


def _accounts(chosen: ServeSettings) -> AccountFile | None:
    if chosen.accounts is None:
        return None
    secret = ensure_secret(chosen.data)
    try:
        return AccountFile(chosen.accounts, domains=chosen.local_domains, secret=secret)
    except OSError as error:
        why = error.strerror or error
        advice = f"make it: {_ours()} account --file {shlex.quote(str(chosen.accounts))} add NAME"
        raise Failure(f"cannot read the accounts in {chosen.accounts}: {why}\n{advice}") from None


def _smart_login(chosen: ServeSettings) -> tuple[str, str] | None:
    if chosen.smart_host_login is None:
        return None
    return chosen.smart_host_login, password_for(
        chosen.smart_host_login, chosen.smart_host_password_file
    )


def _relay(
    chosen: ServeSettings,
    spool: SQLiteSpool,
    certificate: Certificate,
    smart_login: tuple[str, str] | None,
    *,
    login: Login | None,
    accounts: AccountFile | None,
    routes: RouteTable,
) -> Relay:
    smart_host: Host | None = None
    if chosen.smart_host is not None:
        access = Access(
            chosen.smart_host_tls,
            login=smart_login,
            login_in_clear=is_loopback(chosen.smart_host.host),
        )
        smart_host = Host(chosen.smart_host.host, None, chosen.smart_host.port, access=access)
    relay = Relay(
        hostname=chosen.hostname,
        spool=spool,
        mailboxes=Maildir(
            chosen.data / "mail",
            hostname=chosen.hostname,
            now=time.time,
            random_bytes=os.urandom,
            quota=quotas(
                Quota(chosen.mailbox_quota, chosen.mailbox_quota_messages), chosen.mailbox_quotas
            ),
            separator=chosen.subaddress_separator,
            folders=chosen.subaddress_folders,
        ),
        router=Router(
            local_domains=chosen.local_domains,
            relay_domains=chosen.relay_domains,
            routes=routes,
            smart_host=smart_host,
            resolver=DnsResolver(),
            shuffle=random.shuffle,
            hostname=chosen.hostname,
        ),
        aliases=AliasTable(chosen.aliases, separator=chosen.subaddress_separator),
        verify="callout" if chosen.verify_recipients else None,
        # Strangers do not reach loopback, and the DNS may be out of reach from here.
        check_senders=not is_loopback(chosen.listen.host),
        failing_filter=chosen.filters_fail,
        networks=chosen.relay_from,
        tls=certificate.reloadable(),
        authenticator=accounts or Passwords({login.username: login.password} if login else {}),
        senders=every_sender if accounts is None else accounts.may_send,
        limits=Limits(message=chosen.max_message),
        observe=tell,
    )
    if accounts is not None:
        accounts.changed = relay.forget
    return relay


def show(
    chosen: ServeSettings,
    *,
    places: Mapping[Kind, HostPort],
    login: Login | None,
    certificate: Certificate,
    backend: str,
) -> None:
    """Print the one screen: where it listens, where mail goes, what to enter, what to paste."""

    def part(title: str, *rows: tuple[object, object]) -> None:
        say("")
        say((title, "head"))
        for name, value in rows:
            say("  ", (f"{safe(name):<15} ", "dim"), safe(value))

    say(
        ("smtpproto", "head"), f" {__version__}, a mail node called {chosen.hostname}, on {backend}"
    )
    others = ", ".join(map(str, chosen.relay_from)) or "nobody else"
    whose = "the login below" if login else f"an account of {chosen.accounts}"
    rows = [
        ("SMTP", f"{where(places['smtp'])}  mail for the domains below, from everybody"),
        ("submission", f"{where(places['submission'])}  mail for all the world, with {whose}"),
    ]
    if "submissions" in places:
        rows.append(("submissions", f"{where(places['submissions'])}  the same, over TLS at once"))
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
            *(("at most", f"{limit} per {limit.who or limit.per}") for limit in chosen.limits),
            ("where one fails", "mail passes" if chosen.filters_fail == "pass" else "mail waits"),
        )
    here = f"{chosen.data / 'mail'}/<domain>/<mailbox>/  (Maildir)"
    onward = (
        f"to the smart host {chosen.smart_host}" if chosen.smart_host else "by MX, over the DNS"
    )
    part(
        "Where mail goes",
        *((route.whose, route) for route in chosen.routes),
        *(
            (domain, here.replace("<domain>", domain))
            for domain in chosen.local_domains
            if not any(route.takes(domain) for route in chosen.routes)
        ),
        *(("a mailbox holds", quota) for quota in [_quota(chosen)] if quota),
        ("elsewhere", f"{onward}; what waits: {_ours()} queue{_data_option(chosen)}"),
    )
    secured = f"STARTTLS; our own certificate: {certificate.cert}"
    if login is None:
        submission = places["submission"]
        file = shlex.quote(str(chosen.accounts))
        part(
            "In a mail program",
            ("server, port", f"{submission.host or chosen.hostname}, {submission.port}"),
            ("security", secured),
            ("login", f"an account; one more: {_ours()} account --file {file} add NAME"),
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
        f"{_ours()} send{_data_option(chosen)} --from {sender} --to {to} --subject Hello",
        f"swaks --server {HostPort(login.host, login.port)} --tls --auth PLAIN "
        f"--auth-user {shlex.quote(login.username)} "
        f"--auth-password {shlex.quote(login.password)} --from {sender} --to {to}",
    ):
        say((line, "ours"))


def _quota(chosen: ServeSettings) -> str:
    limits = [amount(chosen.mailbox_quota)] if chosen.mailbox_quota else []
    limits += [f"{chosen.mailbox_quota_messages} messages"] if chosen.mailbox_quota_messages else []
    others = "; some, what mailbox-quotas says" if limits and chosen.mailbox_quotas else ""
    return ", ".join(limits) + others


def _ours() -> str:
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


def tell(event: Event) -> None:
    """Print one line of a message's story."""
    word, style, said = _story(event)
    now = datetime.now().astimezone().strftime("%H:%M:%S")
    say((f"{now} {event.id} ", "dim"), (f"{word:<9} ", style), said)


def _some(paths: Sequence[ForwardPath]) -> str:
    more = f" and {len(paths) - NAMED} more" if len(paths) > NAMED else ""
    return ", ".join(map(str, paths[:NAMED])) + more


def _story(event: Event) -> tuple[str, str, str]:
    match event:
        case Accepted():
            to = _some(event.forward_paths)
            said = f"from {event.reverse_path} for {to}, {amount(event.octets)}, {event.origin}"
            return "accepted", "head", said
        case Judged():
            style = "warn" if "=refuse" in event.said or "=defer" in event.said else "dim"
            return "judged", style, f"{event.peer} at {event.stage}: {event.said}"
        case Expanded():
            return "expanded", "good", f"{event.forward_path} to {_some(event.becomes)}"
        case Delivered():
            return "delivered", "good", f"{event.forward_path} to {event.where}: {event.reply}"
        case Deferred():
            said = f"{event.forward_path} at {event.where}: {event.reply}"
            return "deferred", "warn", f"{said}; next try in {event.wait:.0f} s"
        case Held():
            return "held", "warn", f"{event.forward_path} {event.reason}"
        case Discarded():
            return "discarded", "warn", f"{event.forward_path} {event.reason}"
        case Failed():
            return "failed", "bad", f"{event.forward_path} at {event.where}: {event.reply}"
        case Reported():
            if not event.report:
                return "dropped", "bad", "there is nobody to report the failure to"
            return "reported", "warn", f"to {event.reverse_path} by {event.report}"
