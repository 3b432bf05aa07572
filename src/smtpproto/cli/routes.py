"""The entries of `[[routes]]` in the file of `serve`, and the rules that they come to."""

from __future__ import annotations

import math
import re
import ssl
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias, cast

from attrs import evolve, field, frozen

from smtpproto.client import Tls
from smtpproto.core.errors import LocalProtocolError
from smtpproto.core.reply import Reply
from smtpproto.relay import (
    Access,
    ByMx,
    Discard,
    Here,
    Host,
    NextHop,
    OnHold,
    Refuse,
    Rule,
    Schedule,
)
from smtpproto.relay.routing.schedule import DEFAULT

from .options import context_for, password_for
from .setting import (
    PASSWORD_FILE,
    TIME,
    TLS,
    USER,
    Setting,
    a_duration,
    a_list,
    a_path,
    a_text,
    read_entries,
    read_table,
)
from .values import host_port, is_loopback

__all__ = ["RETRIES", "RouteSettings", "Via", "read_routes", "rules_of", "schedule_of"]

#: What is done: hosts have their access yet to get.
Via: TypeAlias = NextHop | Here | ByMx | OnHold | Discard | Refuse

VIA = (
    'there are "smtp:HOST:PORT", "lmtp:HOST:PORT", "lmtp:unix:PATH", "mx", "here", "hold:REASON", '
    '"discard" and "refuse:550 5.7.1 TEXT"'
)
_REFUSAL = re.compile(r"([45][0-5][0-9])(?: ([45]\.[0-9]{1,3}\.[0-9]{1,3}))?(?: (.+))?")


@frozen
class RouteSettings:
    """One entry: whom it is for, what is done, and for hosts how they are talked to.

    `tls` None is as is usual for each host (`tls_of`).
    """

    via: Via
    recipients: tuple[str, ...] = ()
    senders: tuple[str, ...] = ()
    tls: Tls | None = None
    login: str | None = None
    password_file: Path | None = None
    #: The certificates that are trusted there, and no others.
    ca_file: Path | None = None
    #: What is said of its retries, by the names of `RETRIES`; the rest is as for all mail.
    times: Mapping[str, float] = field(factory=dict[str, float])

    def tls_of(self, host: Host) -> Tls:
        """Return how sessions with one of the hosts are secured."""
        if self.tls is not None:
            return self.tls
        if host.port == 465:
            return Tls.IMPLICIT
        if self.ca_file is not None or (self.login is not None and not _is_near(host)):
            return Tls.REQUIRED
        return Tls.OPPORTUNISTIC if host.path is None else Tls.NONE

    def __str__(self) -> str:
        if not isinstance(self.via, NextHop):
            return str(self.via)
        login = "" if self.login is None else f" as {self.login}"

        def in_words(host: Host) -> str:
            tls = self.tls_of(host)
            usual = Tls.OPPORTUNISTIC if host.path is None else Tls.NONE
            return f"{host}{login}" + ("" if tls is usual else f", TLS {tls.value}")

        return "; else ".join(" or ".join(map(in_words, level)) for level in self.via.levels)

    def takes(self, domain: str) -> bool:
        """Tell whether all mail for a domain goes by this, if it comes so far."""
        return not self.senders and (not self.recipients or domain in self.recipients)

    @property
    def whose(self) -> str:
        """Whom it is for, in few words."""
        to = _some(self.recipients) or ("" if self.senders else "all mail")
        of = f"from {_some(self.senders)}" if self.senders else ""
        return " ".join(filter(None, (to, of)))


def _is_near(host: Host) -> bool:
    """Tell whether nobody stands in between: it is on this machine."""
    return host.path is not None or is_loopback(host.name)


def _some(patterns: Sequence[str]) -> str:
    more = f" and {len(patterns) - 3} more" if len(patterns) > 3 else ""
    return ", ".join(patterns[:3]) + more


def _read_via(text: str, folder: Path) -> Via:
    """Read what is done with mail; a path is relative to `folder`. ValueError as in `values`."""
    what, colon, rest = text.partition(":")
    match what, bool(colon), bool(rest.strip()):
        case "smtp" | "lmtp", True, _:
            return NextHop.fixed(_read_host(text, folder))
        case "mx", False, _:
            return ByMx()
        case "here", False, _:
            return Here()
        case "hold", _, reason if reason or not colon:
            return OnHold(_words(rest))
        case "discard", _, reason if reason or not colon:
            return Discard(_words(rest))
        case "refuse", True, True:
            return _refusal(rest)
        case _:
            raise ValueError(f"no way for mail; {VIA}")


def _read_host(text: str, folder: Path) -> Host:
    what, colon, rest = text.partition(":")
    if what == "smtp" and colon:
        there = host_port(rest)
        return Host(there.host, port=there.port)
    if what != "lmtp" or not colon:
        raise ValueError('no host, by "smtp:" or "lmtp:", as they all are where there are several')
    if rest.startswith("unix:"):
        path = rest.removeprefix("unix:")
        if not path or "\0" in path:
            raise ValueError('without a path, as in "lmtp:unix:/run/dovecot/lmtp"')
        return Host("localhost", path=str(folder / path), lmtp=True)
    if rest.startswith("/"):
        raise ValueError('a path without "unix:", as in "lmtp:unix:/run/dovecot/lmtp"')
    there = host_port(rest)
    try:
        return Host(there.host, port=there.port, lmtp=True)
    except LocalProtocolError:
        raise ValueError("LMTP at port 25, which is for SMTP alone") from None


def _words(text: str) -> str:
    text = text.strip()
    if not text.isprintable():
        raise ValueError("no line of text")
    return text


def _refusal(text: str) -> Refuse:
    found = _REFUSAL.fullmatch(text.strip())
    try:
        if found is not None and text.isascii() and text.isprintable():
            code, status, words = found.groups()
            return Refuse(Reply(int(code), status, words or "Refused"))
    except LocalProtocolError:
        pass
    raise ValueError('no refusal, such as "refuse:550 5.7.1 We do not write to them"')


def _pattern(text: str, *, null: bool = False) -> str:
    """Read an address, a domain or .domain, and with `null` `<>`. ValueError as in `values`."""
    try:
        Rule(Here(), recipients=() if null else (text,), senders=(text,) if null else ())
    except LocalProtocolError:
        more = ', and no "<>" for reports' if null else ""
        raise ValueError(
            'no address, domain or ".domain" (for all below it), such as "ann@example.org", '
            f'"example.org" or ".example.org"{more}'
        ) from None
    return text


def _patterns(value: object, folder: Path, *, null: bool = False) -> tuple[str, ...]:
    some = [value] if isinstance(value, str) else value
    found = a_list(some, folder, partial(_pattern, null=null))
    if not found:
        raise ValueError("nobody is in this list; without the key it is everybody")
    return found


def _via(value: object, folder: Path) -> Via:
    if not isinstance(value, list):
        return a_text(value, folder, partial(_read_via, folder=folder))
    read = partial(_read_host, folder=folder)
    levels = [
        a_list(cast("object", each), folder, read)
        if isinstance(each, list)
        else (a_text(each, folder, read),)
        for each in cast("list[object]", value)
    ]
    hosts = [host for level in levels for host in level]
    if not levels or () in levels:
        raise ValueError("no host is in this list")
    if len(set(hosts)) < len(hosts):
        raise ValueError("a host is named twice")
    if len({host.lmtp for host in hosts}) > 1:
        raise ValueError("some hosts speak SMTP, and others LMTP")
    return NextHop.fixed(*levels)


def _notice(value: object, folder: Path) -> float:
    return math.inf if value == "never" else a_duration(value, folder)


#: When mail is tried again: for all of it, and in an entry for what that is for.
RETRIES: Mapping[str, Setting] = {
    "first-retry": TIME,
    "longest-retry": TIME,
    "lifetime": TIME,
    "notice": Setting(_notice, f'{TIME.accepts}, or "never"'),
}
_PATTERNS = 'an address, domain or ".domain", or a list of such'

ROUTE: Mapping[str, Setting] = {
    "recipients": Setting(_patterns, _PATTERNS),
    "senders": Setting(partial(_patterns, null=True), f'{_PATTERNS}; "<>" is that of reports'),
    "via": Setting(_via, f"a text: {VIA}; or several hosts, in a list"),
    "tls": TLS,
    "login": USER,
    "password-file": PASSWORD_FILE,
    "ca-file": Setting(a_path, "a text: the path of a file of certificates to trust, in PEM"),
    **RETRIES,
}


def read_routes(value: object, folder: Path) -> tuple[RouteSettings, ...]:
    """Read all entries; TypeError and ValueError as a `Setting.read`."""
    return tuple(read_entries(value, partial(_route, folder=folder)))


def _route(entry: Mapping[str, object], folder: Path) -> RouteSettings:
    """Read one entry; ValueError in words, that begin with the key where it is about one."""
    read = read_table(ROUTE, entry, folder)
    if "via" not in read:
        raise ValueError(f"via is missing: {VIA}")
    times = {name: read.pop(name) for name in RETRIES if name in read}
    schedule_of(times)
    given = {key.replace("-", "_"): value for key, value in read.items()}
    route = RouteSettings(**given, times=times)
    if not isinstance(route.via, NextHop):
        for name in ("tls", "login", "password_file", "ca_file"):
            if name in given:
                raise ValueError(f'{name.replace("_", "-")} is for a host, by "smtp:" or "lmtp:"')
        return route
    if (route.login is None) != (route.password_file is None):
        raise ValueError("login and password-file need each other")
    if route.tls in {None, Tls.REQUIRED, Tls.IMPLICIT}:
        return route
    assert route.tls is not None
    if route.login is not None and not all(map(_is_near, route.via.hosts)):
        raise ValueError(
            f'tls = "{route.tls.value}" could give the password to somebody in between; '
            'with login it takes "required" or "implicit"'
        )
    if route.ca_file is not None:
        raise ValueError('ca-file needs tls = "required" or "implicit": else nobody is verified')
    return route


def schedule_of(times: Mapping[str, float], usual: Schedule = DEFAULT) -> Schedule:
    """Return a schedule by what is said of it, by the names of `RETRIES`; the rest is as usual.

    ValueError in words, if the longest wait is said to be shorter than the first.
    """
    first, longest = times.get("first-retry"), times.get("longest-retry")
    if first is None:
        first = usual.first if longest is None else min(usual.first, longest)
    elif longest is not None and longest < first:
        raise ValueError("longest-retry: it has to be as long as first-retry, or longer")
    return evolve(
        usual,
        first=first,
        longest=max(usual.longest, first) if longest is None else longest,
        lifetime=times.get("lifetime", usual.lifetime),
        notice=times.get("notice", usual.notice),
    )


def rules_of(routes: Sequence[RouteSettings], usual: Schedule = DEFAULT) -> list[Rule]:
    """Make the rules, with passwords and certificates from their files. Blocks.

    What an entry does not say of its retries is as `usual`, that of all mail.
    BadInput for a file that cannot be used.
    """
    contexts: dict[Path, ssl.SSLContext | None] = {}  # one for each, so that sessions are shared
    rules: list[Rule] = []
    for route in routes:
        to: Via = route.via
        if isinstance(to, NextHop):
            with_access = _access(route, contexts)
            to = NextHop.fixed(*([with_access(host) for host in level] for level in to.levels))
        schedule = schedule_of(route.times, usual) if route.times else None
        rules.append(
            Rule(to, recipients=route.recipients, senders=route.senders, schedule=schedule)
        )
    return rules


def _access(
    route: RouteSettings, contexts: dict[Path, ssl.SSLContext | None]
) -> Callable[[Host], Host]:
    """Return what says of each host of a route how it is talked to."""
    if route.ca_file is not None and route.ca_file not in contexts:
        contexts[route.ca_file] = context_for(route.ca_file)
    context = None if route.ca_file is None else contexts[route.ca_file]
    login = None
    if route.login is not None:
        login = route.login, password_for(route.login, route.password_file)

    def with_access(host: Host) -> Host:
        access = Access(route.tls_of(host), login, context, login_in_clear=_is_near(host))
        return evolve(host, access=access)

    return with_access
