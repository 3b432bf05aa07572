"""The settings of `serve` for lists and return paths, and what the relay makes of them."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import cast

from attrs import frozen

from smtpproto.core.errors import LocalProtocolError
from smtpproto.core.path import Mailbox
from smtpproto.relay.mailboxes.aliases import AliasTable, MailingList
from smtpproto.relay.mailboxes.verp import Verp

__all__ = ["ListSettings", "alias_table", "mailbox", "read_lists", "separator", "verp_of"]


@frozen
class ListSettings:
    """One list; with `verp` each member has a return path of its own."""

    owner: str
    members: tuple[str, ...]
    verp: bool = False


def mailbox(text: str) -> str:
    """Check an address with a domain; ValueError says that it is none."""
    try:
        if Mailbox.parse(text).domain:
            return text
    except ValueError:
        pass
    raise ValueError("no address")


def separator(text: str) -> str:
    """Check what stands behind the sender in a return path; ValueError."""
    try:
        Verp((), separator=text)
    except LocalProtocolError:
        raise ValueError("no character that separates, such as + or -") from None
    return text


def read_lists(value: object, folder: Path) -> dict[str, ListSettings]:
    """Read the table of lists. TypeError if it is none, ValueError for what is wrong in it."""
    if not isinstance(value, dict):
        raise TypeError
    tables = cast("dict[str, object]", value)
    return {name: _read_list(name, table) for name, table in tables.items()}


_KEYS = ("owner", "members", "verp")


def _read_list(name: str, value: object) -> ListSettings:
    try:
        AliasTable({name: ["a@example.org"]})
    except LocalProtocolError:
        raise ValueError(f'"{name}" is no address, local part or @domain') from None
    if not isinstance(value, dict):
        raise ValueError(f'"{name}" is no table with "owner" and "members"')
    table = cast("dict[str, object]", value)
    for key in table:
        if key not in _KEYS:
            close = difflib.get_close_matches(key.lower(), _KEYS, 1)
            instead = f'did you mean "{close[0]}"?' if close else f"there are {', '.join(_KEYS)}"
            raise ValueError(f'"{name}": no such key "{key}"; {instead}')
    owner, members, verp = (table.get(key) for key in _KEYS)
    if not isinstance(owner, str):
        raise ValueError(f'"{name}" needs an owner: who hears of what fails')
    if not isinstance(members, list) or not members:
        raise ValueError(f'"{name}" needs members: a list of addresses')
    if not isinstance(verp, (bool, type(None))):
        raise ValueError(f'"{name}": verp is true or false')
    addresses = [owner, *cast("list[object]", members)]
    for address in addresses:
        try:
            mailbox(address if isinstance(address, str) else "")
        except ValueError:
            raise ValueError(f'"{name}": "{address}" is no address') from None
    texts = cast("list[str]", addresses)
    return ListSettings(texts[0], tuple(texts[1:]), bool(verp))


def alias_table(
    aliases: Mapping[str, tuple[str, ...]],
    lists: Mapping[str, ListSettings],
    *,
    separator: str = "+",
) -> AliasTable:
    """Make the table of both. ValueError for a name that is in both."""
    try:
        return AliasTable(
            aliases,
            lists={name: MailingList(a.members, a.owner) for name, a in lists.items()},
            separator=separator,
        )
    except LocalProtocolError as error:
        raise ValueError(str(error)) from None


def verp_of(
    senders: Collection[str],
    lists: Mapping[str, ListSettings],
    separator: str,
    local_domains: Collection[str],
) -> Verp:
    """Make what knows the return paths. ValueError for a sender to whom nothing would return."""
    wanted = {*senders, *(each.owner for each in lists.values() if each.verp)}
    for sender in sorted(wanted):
        if Mailbox.parse(sender).domain.decode().lower() not in local_domains:
            raise ValueError(f"{sender} is in no local domain, so that nothing comes back to us")
    try:
        return Verp(sorted(wanted), separator=separator)
    except LocalProtocolError as error:
        raise ValueError(str(error)) from None
