"""`smtpproto serve`: a working mail node, from nothing."""

from __future__ import annotations

import gc
import logging
import os
import random
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Sequence
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
    AliasTable,
    DnsResolver,
    HostPort,
    Listener,
    Maildir,
    Passwords,
    Relay,
    Router,
    SQLiteSpool,
)
from smtpproto.relay.spool import SpoolUnavailable
from smtpproto.relay.story import (
    Accepted,
    Deferred,
    Delivered,
    Event,
    Expanded,
    Failed,
    Reported,
)
from smtpproto.stream import causes

from .config import ConfigError, ServeSettings, build, load
from .console import amount, safe, say
from .node import Certificate, Login, NodeError, ensure_certificate, ensure_login
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
from .values import domain, is_loopback, network
from .words import explain

__all__ = ["serve"]

#: Objects that come before what is garbage among them is looked for; Python's own is 700.
GARBAGE = 10_000
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
        names = [chosen.hostname, *chosen.local_domains]
        certificate = await to_thread.run_sync(ensure_certificate, chosen.data, names)
        async with SQLiteSpool.open(chosen.data / "spool") as spool:
            # Not before: a node that runs on this data has its own address in the login.
            login = await _login(chosen, chosen.submission.port)
            await _run(
                _relay(chosen, login, smart_login, certificate, spool), chosen, certificate, backend
            )
    except (SpoolUnavailable, NodeError) as error:
        raise Failure(str(error)) from None
    except OSError as error:
        raise Failure(f"cannot keep data in {chosen.data}: {error.strerror or error}") from None


async def _run(relay: Relay, chosen: ServeSettings, certificate: Certificate, backend: str) -> None:
    """Run until SIGINT or SIGTERM, and drain; a second signal does not wait for that.

    SIGHUP has it read its certificate again.
    """
    listeners = [
        Listener("smtp", chosen.listen.host or None, chosen.listen.port),
        Listener("submission", chosen.submission.host or None, chosen.submission.port),
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
            smtp, submission = (
                HostPort(wanted.host, port)
                for wanted, (_, port) in zip((chosen.listen, chosen.submission), bound, strict=True)
            )
            login = await _login(chosen, submission.port)
            show(
                chosen,
                smtp=smtp,
                submission=submission,
                login=login,
                certificate=certificate,
                backend=backend,
            )
            # What there is now stays: nobody has to look through it for what does not.
            gc.collect()
            gc.freeze()
            gc.set_threshold(GARBAGE)
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


async def _login(chosen: ServeSettings, port: int) -> Login:
    # A mail program needs an address to connect to, and "all of them" is none.
    host = chosen.submission.host or chosen.hostname
    return await to_thread.run_sync(ensure_login, chosen.data, host, port)


def _smart_login(chosen: ServeSettings) -> tuple[str, str] | None:
    if chosen.smart_host_login is None:
        return None
    return chosen.smart_host_login, password_for(
        chosen.smart_host_login, chosen.smart_host_password_file
    )


def _relay(
    chosen: ServeSettings,
    login: Login,
    smart_login: tuple[str, str] | None,
    certificate: Certificate,
    spool: SQLiteSpool,
) -> Relay:
    access = Access()
    if chosen.smart_host is not None:
        access = Access(
            chosen.smart_host_tls,
            login=smart_login,
            login_in_clear=is_loopback(chosen.smart_host.host),
        )
    return Relay(
        hostname=chosen.hostname,
        spool=spool,
        mailboxes=Maildir(
            chosen.data / "mail",
            hostname=chosen.hostname,
            now=time.time,
            random_bytes=os.urandom,
        ),
        router=Router(
            local_domains=chosen.local_domains,
            smart_host=chosen.smart_host,
            resolver=DnsResolver(),
            shuffle=random.shuffle,
            hostname=chosen.hostname,
        ),
        access=access,
        aliases=AliasTable(chosen.aliases),
        networks=chosen.relay_from,
        tls=certificate.reloadable(),
        authenticator=Passwords({login.username: login.password}),
        limits=Limits(message=chosen.max_message),
        observe=tell,
    )


def show(
    chosen: ServeSettings,
    *,
    smtp: HostPort,
    submission: HostPort,
    login: Login,
    certificate: Certificate,
    backend: str,
) -> None:
    """Print the one screen: where it listens, where mail goes, what to enter, what to paste."""

    def part(title: str, *rows: tuple[object, object]) -> None:
        say("")
        say((title, "head"))
        for name, value in rows:
            say("  ", (f"{safe(name):<16}", "dim"), safe(value))

    say(
        ("smtpproto", "head"), f" {__version__}, a mail node called {chosen.hostname}, on {backend}"
    )
    others = ", ".join(map(str, chosen.relay_from)) or "nobody else"
    part(
        "Listening",
        ("SMTP", f"{where(smtp)}  mail for the domains below, from everybody"),
        ("submission", f"{where(submission)}  mail for all the world, with the login below"),
        ("relaying for", f"logged-in users and {others}"),
    )
    here = f"{chosen.data / 'mail'}/<domain>/<mailbox>/  (Maildir)"
    onward = (
        f"to the smart host {chosen.smart_host}" if chosen.smart_host else "by MX, over the DNS"
    )
    part(
        "Where mail goes",
        *((domain, here.replace("<domain>", domain)) for domain in chosen.local_domains),
        ("elsewhere", f"{onward}; what waits: {_ours()} queue{_data_option(chosen)}"),
    )
    part(
        "In a mail program",
        ("server, port", f"{login.host}, {login.port}"),
        ("security", f"STARTTLS; our own certificate: {certificate.cert}"),
        ("login", f"{login.username}, password {login.password}"),
    )
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
    say("")
    say(("ready", "good"))


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
    now = time.strftime("%H:%M:%S")
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
        case Expanded():
            return "expanded", "good", f"{event.forward_path} to {_some(event.becomes)}"
        case Delivered():
            return "delivered", "good", f"{event.forward_path} to {event.where}: {event.reply}"
        case Deferred():
            said = f"{event.forward_path} at {event.where}: {event.reply}"
            return "deferred", "warn", f"{said}; next try in {event.wait:.0f} s"
        case Failed():
            return "failed", "bad", f"{event.forward_path} at {event.where}: {event.reply}"
        case Reported():
            if not event.report:
                return "dropped", "bad", "there is nobody to report the failure to"
            return "reported", "warn", f"to {event.reverse_path} by {event.report}"
