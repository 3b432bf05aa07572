"""The tables `[aliases]` and `[mailbox-quotas]` in the file of `serve`."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from smtpproto.core.errors import LocalProtocolError
from smtpproto.core.path import Mailbox
from smtpproto.relay.mailboxes.aliases import AliasTable
from smtpproto.relay.mailboxes.quota import Quota

from .setting import a_count, a_size

__all__ = ["read_aliases", "read_quotas"]


def read_aliases(value: object, folder: Path) -> dict[str, tuple[str, ...]]:
    """Read names and those they stand for; TypeError and ValueError as a `Setting.read`."""
    if not isinstance(value, dict):
        raise TypeError
    found: dict[str, tuple[str, ...]] = {}
    for name, targets in cast("dict[str, object]", value).items():
        some = [targets] if isinstance(targets, str) else targets
        if not isinstance(some, list):
            raise TypeError
        texts = cast("list[object]", some)
        found[name] = tuple(each for each in texts if isinstance(each, str))
        if len(found[name]) != len(texts):
            raise TypeError
    for name, targets in found.items():
        if not targets:
            raise ValueError(f'"{name}" stands for nobody')
        if not _is_alias(name, "a@example.org"):
            raise ValueError(f'"{name}" is no address, local part or @domain')
        for target in targets:
            if not _is_alias("a", target):
                raise ValueError(f'"{target}" is no address or @domain')
    return found


def read_quotas(value: object, folder: Path) -> dict[str, Quota]:
    """Read what single mailboxes may hold; TypeError and ValueError as a `Setting.read`."""
    if not isinstance(value, dict):
        raise TypeError
    found: dict[str, Quota] = {}
    for name, told in cast("dict[str, object]", value).items():
        if not _is_mailbox(name):
            raise ValueError(f'"{name}" is no address or local part')
        limits = cast("dict[str, object]", told) if isinstance(told, dict) else {"size": told}
        if odd := sorted(limits.keys() - {"size", "messages"}):
            raise ValueError(f'"{name}" has "{odd[0]}", and takes "size" and "messages"')
        octets = limits.get("size", "none")
        found[name] = Quota(
            0 if octets == "none" else a_size(octets, folder),
            a_count(limits["messages"], folder) if "messages" in limits else 0,
        )
    return found


def _is_mailbox(name: str) -> bool:
    try:
        Mailbox.of(name) if "@" in name else Mailbox(name, "x.example")
    except LocalProtocolError:
        return False
    return bool(name)


def _is_alias(name: str, target: str) -> bool:
    try:
        AliasTable({name: [target]})
    except LocalProtocolError:
        return False
    return True
