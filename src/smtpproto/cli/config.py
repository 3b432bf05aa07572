"""The settings of `serve`, from a TOML file and from flags, checked before anything is opened.

One table, SETTINGS, holds what both have in common: the name (`local-domains` in the file), how
it is read, and the words for what is accepted. Nothing here touches the world but `load`, which
reads the file.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import partial
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from attrs import evolve, field, fields, frozen

from smtpproto.client import Tls
from smtpproto.relay.filters import Limit
from smtpproto.relay.mailboxes.quota import Quota
from smtpproto.relay.routing.schedule import DEFAULT, Schedule
from smtpproto.relay.routing.transport import HostPort

from .filters import FAILING, FilterSettings, read_filters, read_limits
from .lists import ListSettings, alias_table, mailbox, read_lists, separator, verp_of
from .mailboxes import read_aliases, read_quotas
from .routes import RETRIES, RouteSettings, read_routes, schedule_of
from .setting import (
    PASSWORD_FILE,
    TIME,
    TLS,
    USER,
    Setting,
    a_count,
    a_duration,
    a_list,
    a_path,
    a_size,
    a_text,
    instead,
    problems_of,
    read_setting,
    yes_or_no,
)
from .values import domain, host_port, is_loopback, listen_address, network

__all__ = ["SETTINGS", "ConfigError", "ServeSettings", "build", "load", "parse"]

T = TypeVar("T")

LISTEN = HostPort("127.0.0.1", 2525)
SUBMISSION = HostPort("127.0.0.1", 2587)
#: How what happens is told.
LOGS = ("people", "json")
#: What may stand before a tag: what a local part may hold without quotes, but for letters, digits
#: and what routed mail in former days (%, !).
SEPARATORS = ("+", "-", "_", "=", "#", "~", "^", "/", ".")

#: More processes than that help no machine.
MOST_WORKERS = 64


class ConfigError(Exception):
    """Settings that cannot be used; the message names file, key, and what is accepted.

    `problems` are its lines, one for each.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@frozen
class ServeSettings:
    """Everything that `serve` can be told. The defaults make a working node on loopback."""

    #: Where spool, mail, login and certificate are.
    data: Path = Path("smtpproto-data")
    #: How what happens is told: for "people", or as "json".
    log: str = "people"
    #: Octets of the files that keep every message's story; 0: nothing is kept.
    story_size: int = 1 << 26
    #: Who the node is once it is bound; None: who started it.
    user: str | None = None
    #: His group; None: his own first one.
    group: str | None = None
    #: How many processes take mail, each with a spool of its own.
    workers: int = 1
    #: Where numbers and health are told over HTTP; None: nowhere.
    metrics: HostPort | None = None
    #: Where mail from other servers comes in; an empty host means all addresses.
    listen: HostPort = LISTEN
    #: Where mail programs submit, with a login.
    submission: HostPort = SUBMISSION
    #: Where they do over TLS from the first octet (RFC 8314 §3.3); None: nowhere.
    submissions: HostPort | None = None
    #: A passwd-file of those who may log in; None: a login of our own making.
    accounts: Path | None = None
    #: Domains whose mail stays here.
    local_domains: tuple[str, ...] = ("localhost",)
    #: Domains of ours that live elsewhere: mail for them is taken from everybody, and goes on.
    relay_domains: tuple[str, ...] = ()
    #: Whether their next hop is asked, when mail comes in, who exists there.
    verify_recipients: bool = False
    #: Addresses that stand for others: each name, and those behind it.
    aliases: Mapping[str, tuple[str, ...]] = field(factory=dict[str, tuple[str, ...]])
    #: What is done with mail, by recipient and sender; the first that fits decides.
    routes: tuple[RouteSettings, ...] = ()
    #: Octets that a mailbox may hold; 0: as many as come.
    mailbox_quota: int = 0
    #: The same in messages.
    mailbox_quota_messages: int = 0
    #: What single mailboxes may hold instead.
    mailbox_quotas: Mapping[str, Quota] = field(factory=dict[str, Quota])
    #: What stands before the tag of an address (`you+tag`); empty: addresses have none.
    subaddress_separator: str = "+"
    #: Whether mail with a tag goes into the mailbox's folder of that name, if there is one.
    subaddress_folders: bool = False
    #: Those of them that have an owner, to whom what fails is reported.
    lists: Mapping[str, ListSettings] = field(factory=dict[str, ListSettings])
    #: Senders whose mail has a return path for each recipient, besides owners of such lists.
    verp: tuple[str, ...] = ()
    verp_separator: str = "+"
    #: Seconds from a first failure to the second attempt; further waits double,
    first_retry: float = DEFAULT.first
    #: up to this one.
    longest_retry: float = DEFAULT.longest
    #: The age in seconds at which mail is given up,
    lifetime: float = DEFAULT.lifetime
    #: and that at which its sender hears that it is late.
    notice: float = DEFAULT.notice
    #: How many sessions there are with next hops,
    sessions_out: int = 100
    #: and with one of them.
    sessions_out_each: int = 20
    #: Who is told what failed of mail without a sender; None: it is shown, and dropped.
    double_bounces: str | None = None
    #: Whether strangers, too, may ask for reports.
    dsn_to_all: bool = False
    #: Seconds that mail has to have left, to be deliverable by a time or returned; None: any.
    least_by: float | None = None
    #: Seconds for which submitted mail is held if it asks for that; 0: it is not.
    longest_hold: float = 30 * 86_400.0
    #: Whether Bcc stays in what is submitted.
    keep_bcc: bool = False
    #: Where all other mail goes; None: by MX.
    smart_host: HostPort | None = None
    #: How sessions with it are secured. `build` makes it implicit on port 465 and else required
    #: with a login, unless it is told.
    smart_host_tls: Tls = Tls.OPPORTUNISTIC
    smart_host_login: str | None = None
    #: Its first line is the password for `smart_host_login`; None: see options.password_for.
    smart_host_password_file: Path | None = None
    #: Networks that may send anywhere without a login. None by default, loopback neither.
    relay_from: tuple[IPv4Network | IPv6Network, ...] = ()
    #: The name in the greeting, in Received lines, and in EHLO.
    hostname: str = "localhost"
    #: Octets that a login may have waiting here to be sent later.
    hold_quota: int = 1 << 28
    #: The same in messages.
    hold_quota_messages: int = 1000
    #: Octets that one message may have.
    max_message: int = 26_214_400
    #: Recipients that one transaction may have.
    max_recipients: int = 1000
    #: How many clients may be connected,
    sessions_in: int = 1000
    #: and from one network.
    sessions_in_each: int = 50
    #: Whether a stranger's domain has to take mail; None: unless we are on loopback.
    check_senders: bool | None = None
    #: What is kept out: filters in the order in which they are asked.
    filters: tuple[FilterSettings, ...] = ()
    #: How much is taken of whom in which time; `filters` may say where in their order.
    limits: tuple[Limit, ...] = ()
    #: What becomes of mail where a filter fails.
    filters_fail: Literal["pass", "defer"] = "pass"

    @property
    def schedule(self) -> Schedule:
        """When mail is tried again that no route has a schedule for."""
        return schedule_of({key: getattr(self, _name(key)) for key in RETRIES})


def _story_size(value: object, folder: Path) -> int:
    return 0 if value == "none" else a_size(value, folder)


def _log(text: str) -> str:
    if text not in LOGS:
        raise ValueError(instead(text, list(LOGS), "none of them"))
    return text


def _account(text: str) -> str:
    if not text or not text.isprintable() or ":" in text:
        raise ValueError("no name")
    return text


def _recipients(value: object, folder: Path) -> int:
    found = a_count(value, folder)
    if found < 100:
        raise ValueError(f"{found} is too few: every server takes 100 (RFC 5321 §4.5.3.1.8)")
    return found


def _hold(value: object, folder: Path) -> float:
    return 0.0 if value == "none" else a_duration(value, folder)


def _workers(value: object, folder: Path) -> int:
    if a_count(value, folder) > MOST_WORKERS:
        raise ValueError(f"{value} is more than {MOST_WORKERS}")
    return a_count(value, folder)


def _separator(text: str) -> str:
    if text and text not in SEPARATORS:
        raise ValueError(f"none of {' '.join(SEPARATORS)}, nor empty")
    return text


_SMTP_HOST = partial(host_port, default_port=None)
_ADDRESS = 'a text HOST:PORT, such as "127.0.0.1:2525", "[::1]:2525" or ":25" (all addresses)'

SETTINGS: Mapping[str, Setting] = {
    "data": Setting(a_path, "a text: the path of a directory, relative to the file's own"),
    "log": Setting(partial(a_text, read=_log), 'one of "people", "json"'),
    "story-size": Setting(_story_size, 'a number of octets, or a text such as "64M", or "none"'),
    "user": Setting(partial(a_text, read=_account), "a text: the name of a user of this system"),
    "group": Setting(partial(a_text, read=_account), "a text: the name of a group of this system"),
    "workers": Setting(_workers, f"a number of processes, up to {MOST_WORKERS}"),
    "metrics": Setting(partial(a_text, read=listen_address), _ADDRESS),
    "listen": Setting(partial(a_text, read=listen_address), _ADDRESS),
    "submission": Setting(partial(a_text, read=listen_address), _ADDRESS),
    "submissions": Setting(partial(a_text, read=listen_address), _ADDRESS),
    "accounts": Setting(a_path, "a text: the path of a file of accounts (smtpproto account)"),
    "local-domains": Setting(
        partial(a_list, read=domain), 'a list of domain names, such as ["example.org"]'
    ),
    "relay-domains": Setting(
        partial(a_list, read=domain), 'a list of domain names, such as ["example.org"]'
    ),
    "verify-recipients": Setting(yes_or_no, "true or false"),
    "aliases": Setting(
        read_aliases,
        'a table of names and whom each stands for, such as "sales@example.org" = '
        '["ann@example.org", "bob@example.net"]',
    ),
    "routes": Setting(
        read_routes, 'tables, each below its own [[routes]], such as via = "lmtp:unix:/run/lmtp"'
    ),
    "mailbox-quota": Setting(a_size, 'a number of octets, or a text such as "1G"'),
    "mailbox-quota-messages": Setting(a_count, "a number of messages"),
    "mailbox-quotas": Setting(
        read_quotas,
        'a table of mailboxes and what each may hold, such as "ann@example.org" = "5G", '
        '"bob" = { size = "1G", messages = 10000 } or "postmaster" = "none"',
    ),
    "subaddress-separator": Setting(
        partial(a_text, read=_separator), 'a text of one character, such as "+", or "" for no tags'
    ),
    "subaddress-folders": Setting(yes_or_no, "true or false"),
    "lists": Setting(
        read_lists,
        'a table for each list, such as [lists."dev@example.org"] with owner = '
        '"ann@example.org" and members = ["bob@example.net"]',
    ),
    "verp": Setting(
        partial(a_list, read=mailbox), 'a list of senders, such as ["news@example.org"]'
    ),
    "verp-separator": Setting(partial(a_text, read=separator), 'a text of one character: "+"'),
    **RETRIES,
    "sessions-out": Setting(a_count, "a number of sessions"),
    "sessions-out-each": Setting(a_count, "a number of sessions"),
    "double-bounces": Setting(
        partial(a_text, read=mailbox), 'a text: an address, such as "postmaster@example.org"'
    ),
    "dsn-to-all": Setting(yes_or_no, "true or false"),
    "least-by": TIME,
    "longest-hold": Setting(_hold, f'{TIME.accepts}, or "none"'),
    "keep-bcc": Setting(yes_or_no, "true or false"),
    "smart-host": Setting(
        partial(a_text, read=_SMTP_HOST), 'a text HOST:PORT, such as "mail.example.org:587"'
    ),
    "smart-host-tls": TLS,
    "smart-host-login": USER,
    "smart-host-password-file": PASSWORD_FILE,
    "relay-from": Setting(
        partial(a_list, read=network), 'a list of networks, such as ["192.0.2.0/24", "::1"]'
    ),
    "hostname": Setting(
        partial(a_text, read=domain), 'a text: a domain name, such as "mail.example.org"'
    ),
    "hold-quota": Setting(a_size, 'a number of octets, or a text such as "1G"'),
    "hold-quota-messages": Setting(a_count, "a number of messages"),
    "max-message": Setting(a_size, 'a number of octets, or a text such as "25M"'),
    "max-recipients": Setting(_recipients, "a number of recipients, 100 or more"),
    "sessions-in": Setting(a_count, "a number of sessions"),
    "sessions-in-each": Setting(a_count, "a number of sessions"),
    "check-senders": Setting(yes_or_no, "true or false"),
    "filters": Setting(
        read_filters, 'tables, each below its own [[filters]], such as use = "greylist"'
    ),
    "limits": Setting(
        read_limits,
        'tables, each below its own [[limits]], such as what = "messages", per = "account", '
        'most = 100, in = "1 h"',
    ),
    "filters-fail": FAILING,
}


def _name(key: str) -> str:
    """Return the field of ServeSettings that a key stands for."""
    return key.replace("-", "_")


assert {_name(key) for key in SETTINGS} == {one.name for one in fields(ServeSettings)}


def load(path: Path) -> dict[str, Any]:
    """Read a TOML file; return what it sets, by the names of ServeSettings' fields. Blocks.

    ConfigError if it cannot be read, and as `parse`.
    """
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8, which TOML has to be") from None
    return parse(text, str(path), path.parent)


def parse(text: str, source: str, folder: Path) -> dict[str, Any]:
    """Read the text of a TOML file that is called `source` and lies in `folder`.

    ConfigError for what is no TOML, and for all keys that are not known and values that are not
    accepted.
    """
    try:
        found = tomllib.loads(f"{text}\n")  # else what is wrong is "at end of document"
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source}: no TOML: {_in_words(error)}") from None
    read: dict[str, Any] = {}
    problems: list[str] = []
    for key, value in found.items():
        try:
            read[_name(key)] = read_setting(SETTINGS, key, value, folder)
        except ValueError as error:
            problems += [
                f"{source}: {each}{_misplaced(key, value, each)}" for each in problems_of(error)
            ]
    if problems:
        raise ConfigError(*problems)
    return read


#: Settings that have tables below them.
_TABLES = ("aliases", "filters", "limits", "lists", "mailbox-quotas", "routes")


def _misplaced(key: str, value: object, problem: str) -> str:
    """Say which setting stands below a table by mistake, where TOML takes it for its own."""
    tables = cast("list[object]", value if isinstance(value, list) else [value])
    names = [
        name
        for each in tables
        if isinstance(each, dict)
        for name in cast("dict[str, object]", each)
        if name in SETTINGS
    ]
    if not names or key not in _TABLES:
        return ""
    name = next((name for name in names if f" {name}: " in problem), names[0])
    return f' ("{name}" is a setting of its own: it has to stand above all tables)'


def _in_words(error: tomllib.TOMLDecodeError) -> str:
    said = str(error)
    for beginning, words in _TOML.items():
        if said.startswith(beginning):
            return f"{said} - {words}"
    return said


#: What the reader of TOML says, and what that means.
_TOML = {
    "Invalid value": 'a text stands in quotes, as in key = "text"',
    "Cannot overwrite a value": "this key is there already, above",
    "Cannot declare": "this table is there already, above; entries have two brackets: [[routes]]",
    "Illegal character '\\n'": "a text has no end: its second quote is missing",
    "Unterminated": "something has no end: a quote or bracket is missing",
    "Expected '=' after a key": "a line has a key, = and a value",
}


def build(file: Mapping[str, Any], flags: Mapping[str, Any] | None = None) -> ServeSettings:
    """Make the settings of a file and the command line's flags, both by the names of fields.

    Flags override the file; one that was not given, None or (), overrides nothing. ConfigError
    for settings that contradict each other.
    """
    given = {name: value for name, value in (flags or {}).items() if value not in (None, ())}
    merged: dict[str, Any] = {**file, **given}
    try:
        times = {key: merged[_name(key)] for key in RETRIES if _name(key) in merged}
        usual = schedule_of(times)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    settings = ServeSettings(**merged)
    settings = evolve(settings, first_retry=usual.first, longest_retry=usual.longest)
    if "smart_host_tls" not in merged and settings.smart_host is not None:
        if settings.smart_host.port == 465:
            settings = evolve(settings, smart_host_tls=Tls.IMPLICIT)
        elif settings.smart_host_login is not None:
            settings = evolve(settings, smart_host_tls=Tls.REQUIRED)
    _check(settings, merged)
    return settings


def _check(settings: ServeSettings, given: Collection[str]) -> None:
    """Raise what contradicts each other: all of it, each beginning with a key."""
    problems = [*_clashes(settings), *_contradictions(settings, given)]
    if problems:
        raise ConfigError(*problems)


def _clashes(settings: ServeSettings) -> Iterator[str]:
    """Say which ports are meant for two things."""
    taken: dict[str, HostPort] = {}
    for name in ("listen", "submission", "submissions", "metrics"):
        at: HostPort | None = getattr(settings, name)
        if at is None or not at.port:
            continue
        for other, there in taken.items():
            if at.port == there.port and (at.host == there.host or not (at.host and there.host)):
                yield f"{name}: {other} and {name} are both at port {at.port}; they have to differ"
        taken[name] = at
    if settings.smart_host is not None and _is_ours(settings.smart_host, settings, taken.values()):
        yield f"smart-host: {settings.smart_host} is this node: mail would go round and round"


def _is_ours(host: HostPort, settings: ServeSettings, places: Iterable[HostPort]) -> bool:
    by_name = host.host.lower() == settings.hostname
    near = is_loopback(host.host)
    return any(
        host.port == at.port and (by_name or (near and (not at.host or is_loopback(at.host))))
        for at in places
    )


def _contradictions(settings: ServeSettings, given: Collection[str]) -> Iterator[str]:
    if settings.group is not None and settings.user is None:
        yield "group: it needs user"
    for name in settings.relay_domains:
        if name in settings.local_domains:
            yield f"relay-domains: {name} is both in local-domains and relay-domains"
    if not settings.limits and any(each.use == "limits" for each in settings.filters):
        yield 'filters: use = "limits" needs [[limits]] that say which'
    if settings.submissions is None:
        for each in settings.filters:
            if each.listeners == ("submissions",):
                yield f"filters: {each.use} has the listener submissions, and there is none"
    try:
        alias_table(settings.aliases, settings.lists)
    except ValueError as error:
        yield f"aliases: with lists: {error}"
    try:
        verp_of(settings.verp, settings.lists, settings.verp_separator, settings.local_domains)
    except ValueError as error:
        yield f"verp: {error}"
    host, tls = settings.smart_host, settings.smart_host_tls
    if host is None:
        for name in sorted(given):
            if name.startswith("smart_host_"):
                yield f"{name.replace('_', '-')}: it needs a smart-host"
    elif settings.smart_host_password_file is not None and settings.smart_host_login is None:
        yield "smart-host-password-file: it needs smart-host-login"
    elif settings.smart_host_login is None or is_loopback(host.host):
        pass
    elif tls in {Tls.NONE, Tls.OPPORTUNISTIC}:
        yield (
            f'smart-host-tls: "{tls.value}" could give the password to somebody in between; '
            'with smart-host-login it takes "required" or "implicit"'
        )
