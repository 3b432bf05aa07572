"""The entries of `[[filters]]` and `[[limits]]` in the file of `serve`, and what they come to."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from attrs import field, frozen

from smtpproto.relay.filters import (
    BlockList,
    ClientNames,
    Filter,
    Greylist,
    HeaderSanity,
    Limit,
    Networks,
    RateLimits,
    SQLiteMemory,
)
from smtpproto.relay.filters.memory import Memory
from smtpproto.relay.filters.rspamd import Rspamd
from smtpproto.relay.relay import Kind
from smtpproto.resolve import DnsResolver

from .options import Failure
from .setting import (
    TIME,
    Setting,
    a_list,
    a_size,
    a_text,
    instead,
    read_entries,
    read_setting,
    read_table,
)
from .values import domain, network

__all__ = [
    "FAILING",
    "USES",
    "FilterSettings",
    "in_order",
    "needs_memory",
    "open_filters",
    "read_filters",
    "read_limits",
]

KINDS: tuple[Kind, ...] = ("smtp", "submission", "submissions")


@frozen
class FilterSettings:
    """One entry: which filter, at which listeners, and what it is told by its own keys."""

    use: str
    listeners: tuple[Kind, ...] = ("smtp",)
    given: Mapping[str, Any] = field(factory=dict[str, Any])

    def __str__(self) -> str:
        own = self.given.get("zone") or self.given.get("url") or ""
        does = self.given.get("does") or self.given.get("rejects") or ""
        at = "" if self.listeners == USES[self.use].listeners else " and ".join(self.listeners)
        return ", ".join(filter(None, (own, does, at and f"at {at}")))


@frozen
class Use:
    """A filter that an entry may name: its own keys, those it needs, and its listeners."""

    keys: Mapping[str, Setting]
    needs: tuple[str, ...] = ()
    listeners: tuple[Kind, ...] = ("smtp",)
    #: It looks at strangers: who logs in does so behind it, or is none of its business.
    strangers: bool = False


def _word(value: object, folder: Path, words: Sequence[str]) -> str:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError(instead(text, list(words), "none of them"))
        return text

    return a_text(value, folder, read)


def _one_of(*words: str) -> Setting:
    return Setting(partial(_word, words=words), "one of " + ", ".join(f'"{w}"' for w in words))


def _some(value: object, folder: Path, read: Callable[[str], Any]) -> tuple[Any, ...]:
    found = a_list([value] if isinstance(value, str) else value, folder, read)
    if not found:
        raise ValueError("there is nothing in this list")
    return found


def _code(text: str) -> str:
    numbers = text.split(".")
    good = len(numbers) == 4 and all(n.isascii() and n.isdigit() and int(n) < 256 for n in numbers)
    if not good or numbers[0] != "127":
        raise ValueError('no answer of a list, such as "127.0.0.2"')
    return ".".join(str(int(n)) for n in numbers)


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError('no address of an HTTP server, such as "http://127.0.0.1:11333"')
    return text


def _listener(text: str) -> str:
    if text not in KINDS:
        raise ValueError(instead(text, list(KINDS), "no listener"))
    return text


_SIZE = 'a number, or for octets a text such as "25M"'
_DOES = _one_of("refuse", "tag")

USES: Mapping[str, Use] = {
    "networks": Use(
        {
            "networks": Setting(
                partial(_some, read=network), 'a list of networks, such as ["192.0.2.0/24", "::1"]'
            ),
            "does": _one_of("accept", "tag", "refuse"),
        },
        needs=("networks",),
    ),
    "blocklist": Use(
        {
            "zone": Setting(
                partial(a_text, read=domain), 'a text: the list\'s domain, such as "bl.example.org"'
            ),
            "of": _one_of("address", "sender"),
            "codes": Setting(
                partial(_some, read=_code), 'a list of its answers that count, such as "127.0.0.2"'
            ),
            "does": _one_of("refuse", "tag", "accept"),
        },
        needs=("zone",),
        strangers=True,
    ),
    "names": Use({"bare": _DOES, "nameless": _DOES}, strangers=True),
    "greylist": Use({"delay": TIME, "window": TIME, "known": TIME}, strangers=True),
    "header": Use({"does": _DOES}),
    "rspamd": Use(
        {
            "url": Setting(partial(a_text, read=_url), 'a text, such as "http://127.0.0.1:11333"'),
            "rejects": _one_of("refuse", "quarantine"),
            "largest": Setting(a_size, 'a number of octets, or a text such as "20M"'),
        },
        needs=("url",),
    ),
    "limits": Use({}, listeners=KINDS),
}

COMMON: Mapping[str, Setting] = {
    "use": _one_of(*USES),
    "listeners": Setting(
        partial(_some, read=_listener), 'a list of "smtp", "submission" and "submissions"'
    ),
}

FAILING = _one_of("pass", "defer")


def read_filters(value: object, folder: Path) -> tuple[FilterSettings, ...]:
    """Read all entries; TypeError and ValueError as a `Setting.read`."""
    return tuple(read_entries(value, partial(_filter, folder=folder)))


def read_limits(value: object, folder: Path) -> tuple[Limit, ...]:
    """Read all entries; TypeError and ValueError as a `Setting.read`."""
    return tuple(read_entries(value, partial(_limit, folder=folder)))


def _filter(entry: Mapping[str, object], folder: Path) -> FilterSettings:
    if "use" not in entry:
        raise ValueError(f"use is missing: there are {', '.join(USES)}")
    name = read_setting(COMMON, "use", entry["use"], folder)
    use = USES[name]
    settings = {**COMMON, **use.keys}
    given = read_table(settings, entry, folder)
    for key in use.needs:
        if key not in given:
            raise ValueError(f"{key} is missing: {name} takes {use.keys[key].accepts}")
    del given["use"]
    listeners = given.pop("listeners", use.listeners)
    if use.strangers and set(listeners) - {"smtp"}:
        raise ValueError(
            f'listeners: {name} looks at strangers, so it takes "smtp" alone; '
            "users come from any address, and log in only then"
        )
    if given.get("delay", 60) >= given.get("window", 86400):
        raise ValueError("window has to be longer than delay, or nobody ever comes in time")
    return FilterSettings(name, listeners, given)


def _name(text: str) -> str:
    if not text or not text.isprintable():
        raise ValueError("no account, network or domain")
    return text


LIMIT: Mapping[str, Setting] = {
    "what": _one_of("messages", "recipients", "octets", "size"),
    "per": _one_of("account", "network", "domain"),
    "most": Setting(a_size, _SIZE),
    "in": TIME,
    "who": Setting(partial(a_text, read=_name), "a text: an account, a network or a domain"),
}


def _limit(entry: Mapping[str, object], folder: Path) -> Limit:
    given = read_table(LIMIT, entry, folder)
    for key in ("what", "per", "most"):
        if key not in given:
            raise ValueError(f"{key} is missing: it takes {LIMIT[key].accepts}")
    what, per, who = given["what"], given["per"], given.get("who")
    if what == "size" and "in" in given:
        raise ValueError("in: the size of one message has no time")
    if what != "size" and "in" not in given:
        raise ValueError(f"in is missing: it takes {TIME.accepts}")
    if per == "domain" and what not in {"recipients", "size"}:
        raise ValueError(f'what = "{what}" is not for a domain, which has recipients and size')
    if who is not None and per != "account":
        read = network if per == "network" else domain
        try:
            who = str(read(who))
        except ValueError as error:
            raise ValueError(f'who: "{who}" is {error}') from None
    return Limit(what, per, given["most"], given.get("in", 0), who)


def needs_memory(filters: Sequence[FilterSettings], limits: Sequence[Limit]) -> bool:
    """Tell whether anything has to be remembered over restarts."""
    return bool(limits) or any(each.use == "greylist" for each in filters)


def in_order(
    filters: Sequence[FilterSettings], limits: Sequence[Limit]
) -> Sequence[FilterSettings]:
    """Return the entries as they are asked: limits come last, unless they have a place."""
    if limits and not any(each.use == "limits" for each in filters):
        return [*filters, FilterSettings("limits", KINDS)]
    return filters


@asynccontextmanager
async def open_filters(
    filters: Sequence[FilterSettings], limits: Sequence[Limit], *, hostname: str, data: Path
) -> AsyncGenerator[Mapping[Kind, Sequence[Filter]]]:
    """Make the filters of each listener, in their order; what they remember is open meanwhile.

    That is a file in `data`, if any of them needs one. Failure if it cannot be used.
    """
    if not needs_memory(filters, limits):
        yield _filters_of(filters, limits, hostname, None)
        return
    path = data / "memory.db"
    async with AsyncExitStack() as stack:
        try:
            memory = await stack.enter_async_context(SQLiteMemory.open(path))
        except (sqlite3.Error, OSError) as error:
            raise Failure(
                f"cannot use {path}: {error}\n"
                "greylisting and limits are kept there, and no mail; without it they begin anew"
            ) from None
        yield _filters_of(filters, limits, hostname, memory)


def _filters_of(
    filters: Sequence[FilterSettings],
    limits: Sequence[Limit],
    hostname: str,
    memory: Memory | None,
) -> Mapping[Kind, Sequence[Filter]]:
    asked = in_order(filters, limits)
    if not asked:
        return {}
    resolver = DnsResolver()  # of its own: strangers' addresses would push out where mail goes
    made = [(each, _make(each, limits, hostname, resolver, memory)) for each in asked]
    return {kind: [one for each, one in made if kind in each.listeners] for kind in KINDS}


def _make(
    settings: FilterSettings,
    limits: Sequence[Limit],
    hostname: str,
    resolver: DnsResolver,
    memory: Memory | None,
) -> Filter:
    given = dict(settings.given)
    match settings.use:
        case "networks":
            return Networks(**given)
        case "blocklist":
            return BlockList(given.pop("zone"), resolver, **given)
        case "names":
            return ClientNames(resolver, hostname, **given)
        case "greylist":
            assert memory is not None
            return Greylist(memory, **given)
        case "header":
            return HeaderSanity(**given)
        case "rspamd":
            quarantine = given.pop("rejects", "refuse") == "quarantine"
            return Rspamd(given.pop("url"), hostname, quarantine, **given)
        case _:
            assert memory is not None
            return RateLimits(limits, memory)
