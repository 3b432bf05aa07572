"""What settings come to on this machine before a node starts: what cannot be, what is doubtful.

Both are told in words that begin with the key. Everything here blocks, and changes nothing.
"""

from __future__ import annotations

import errno
import os
import shlex
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from urllib.parse import urlsplit

import click
from cryptography import x509

from smtpproto.relay import HostPort
from smtpproto.relay.accounts.passwd import read_accounts

from .config import ServeSettings
from .daemon import group_number, identity
from .node import Certificate, NodeError
from .options import PASSWORD_VARIABLE, BadInput, password_for, where
from .routes import rules_of
from .running import metrics_installed
from .values import is_loopback
from .words import explain

__all__ = ["doubts", "unusable"]

#: Seconds for a filter's server to take a connection.
PATIENCE = 3.0


def unusable(settings: ServeSettings) -> list[str]:
    """Say what of files, users and addresses cannot be used: the node would not start."""
    readers: list[tuple[str, Callable[[], object]]] = [
        ("data", partial(_data, settings)),
        ("data", partial(_certificate, settings)),
        ("user", partial(_user, settings)),
        ("group", partial(_group, settings)),
        ("metrics", partial(_metrics, settings)),
        ("accounts", partial(_accounts, settings)),
        ("smart-host-password-file", partial(_password, settings)),
    ]
    for number, route in enumerate(settings.routes, start=1):
        readers.append((f"routes: entry {number}", partial(rules_of, [route])))
    for name, at in _places(settings):
        readers.append((name, partial(_bindable, at)))
    problems: list[str] = []
    for key, read in readers:
        try:
            read()
        except click.ClickException as error:
            problems.append(f"{key}: {error.format_message().removeprefix(f'{key}: ')}")
    return problems


def doubts(settings: ServeSettings) -> list[str]:
    """Say what can be used, and may not be what is wanted."""
    return [
        *_openness(settings),
        *_secrets(settings),
        *_busy(settings),
        *_silent_filters(settings),
    ]


def _places(settings: ServeSettings) -> list[tuple[str, HostPort]]:
    places = [("listen", settings.listen), ("submission", settings.submission)]
    if settings.submissions is not None:
        places.append(("submissions", settings.submissions))
    if settings.metrics is not None:
        places.append(("metrics", settings.metrics))
    return places


# What cannot be


def _data(settings: ServeSettings) -> None:
    data = settings.data
    there = next(each for each in (data.absolute(), *data.absolute().parents) if each.exists())
    if not there.is_dir():
        raise BadInput(f"{there} is no directory")
    if settings.user is None and not os.access(there, os.W_OK | os.X_OK):
        raise BadInput(f"who runs this may not write to {there}")


def _certificate(settings: ServeSettings) -> None:
    files = Certificate(settings.data / "tls" / "cert.pem", settings.data / "tls" / "key.pem")
    try:
        if files.cert.exists() and not files.key.exists():
            raise BadInput(f"{files.cert} is there, and its key is not: {files.key}")
        if files.cert.exists():
            files.reloadable()
    except PermissionError as error:
        raise BadInput(f"{error.filename} cannot be read: {error.strerror}") from None
    except NodeError as error:
        raise BadInput(str(error)) from None


def _user(settings: ServeSettings) -> None:
    if settings.user is not None:
        identity(settings.user)


def _group(settings: ServeSettings) -> None:
    if settings.group is not None:
        group_number(settings.group)


def _metrics(settings: ServeSettings) -> None:
    if settings.metrics is not None:
        metrics_installed()


def _accounts(settings: ServeSettings) -> None:
    file = settings.accounts
    if file is None:
        return
    try:
        read_accounts(file.read_bytes())
    except FileNotFoundError:
        make = f"smtpproto account --file {shlex.quote(str(file))} add NAME"
        raise BadInput(f"{file} does not exist; make it: {make}") from None
    except OSError as error:
        raise BadInput(f"{file}: {error.strerror or error}") from None


def _password(settings: ServeSettings) -> None:
    if settings.smart_host_login is not None and settings.smart_host_password_file is not None:
        password_for(settings.smart_host_login, settings.smart_host_password_file)


def _bind(at: HostPort) -> None:
    """Bind to an address for a moment. OSError if that cannot be."""
    host = at.host or None
    passive = socket.AI_PASSIVE
    for family, kind, protocol, _, address in socket.getaddrinfo(
        host, at.port, type=socket.SOCK_STREAM, flags=passive
    ):
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind(address)


def _bindable(at: HostPort) -> None:
    try:
        _bind(at)
    except OSError as error:
        if error.errno not in {errno.EADDRINUSE, errno.EACCES, errno.EPERM, errno.EAFNOSUPPORT}:
            raise BadInput(f"cannot listen on {where(at)}: {explain(error, at.host)}") from None


# What is doubtful


def _openness(settings: ServeSettings) -> Iterator[str]:
    if not is_loopback(settings.listen.host):
        if settings.hostname == "localhost":
            yield (
                "hostname: it is localhost, and others are let in: give the name that the DNS has "
                "for this machine"
            )
        if settings.local_domains == ("localhost",) and not settings.relay_domains:
            yield "local-domains: there is none of yours: mail from outside is refused"
        if settings.smart_host is None:
            yield (
                "smart-host: without one mail goes to each domain's own server, by port 25, which "
                "many providers block, and from an address that has to be trusted"
            )
    at = settings.metrics
    if at is not None and not is_loopback(at.host):
        yield f"metrics: whoever gets to {where(at)} is told: let nobody else get there"


def _secrets(settings: ServeSettings) -> Iterator[str]:
    user, file = settings.smart_host_login, settings.smart_host_password_file
    if user is not None and file is None and not os.environ.get(PASSWORD_VARIABLE):
        yield (
            f"smart-host-login: the password of {user} is asked for at the start: nobody is there "
            f"to answer under a service manager; smart-host-password-file, or {PASSWORD_VARIABLE}"
        )
    if settings.accounts is not None:
        try:
            table = read_accounts(settings.accounts.read_bytes())
        except OSError:
            return  # it cannot be used at all
        for broken in table.broken:
            yield f"accounts: {settings.accounts}: {broken}; this line is passed over"
        if not table.by_name:
            yield f"accounts: {settings.accounts} has none: nobody can log in"
    for name, kept in (
        ("accounts", settings.accounts),
        ("smart-host-password-file", settings.smart_host_password_file),
        *((f"routes: entry {n}", each.password_file) for n, each in enumerate(settings.routes, 1)),
    ):
        with suppress(OSError):  # what cannot be read is a problem, and told as one
            if kept is not None and kept.stat().st_mode & stat.S_IROTH:
                yield f"{name}: everybody on this machine can read {kept}: chmod o= {kept}"
    yield from _expiry(settings)


def _expiry(settings: ServeSettings) -> Iterator[str]:
    file = settings.data / "tls" / "cert.pem"
    try:
        made = x509.load_pem_x509_certificate(file.read_bytes())
    except (OSError, ValueError):
        return
    if made.not_valid_after_utc < datetime.now(UTC):
        yield f"data: the certificate {file} has expired: mail programs refuse it"


def _busy(settings: ServeSettings) -> Iterator[str]:
    """Say which ports are not free: perhaps because the node runs already."""
    if settings.user is not None and hasattr(os, "geteuid"):
        with suppress(click.ClickException):  # there is none: that has been said
            if os.geteuid() not in (0, identity(settings.user).uid):
                yield (
                    f"user: only root can become {settings.user}: start the node as root, "
                    "or leave it out"
                )
    for name, at in _places(settings):
        try:
            if at.port:
                _bind(at)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                yield f"{name}: {where(at)} is in use, by the node itself or by another program"
            elif error.errno in {errno.EACCES, errno.EPERM}:
                words = "start it as root, and give it a user, or by systemd"
                yield f"{name}: only root may listen on {where(at)}: {words}"


def _silent_filters(settings: ServeSettings) -> Iterator[str]:
    """Say which filters' servers do not take a connection."""
    for number, each in enumerate(settings.filters, start=1):
        if each.use != "rspamd":
            continue
        url: str = each.given["url"]
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            socket.create_connection((host, port), PATIENCE).close()
        except OSError as error:
            why = f"no answer within {PATIENCE:g} s"
            if not isinstance(error, TimeoutError):
                why = explain(error, host)
            then = "passes unseen" if settings.filters_fail == "pass" else "is put off"
            yield (
                f"filters: entry {number}: rspamd at {url} is not in reach: {why}; "
                f"as long as that is so mail {then} (filters-fail)"
            )
