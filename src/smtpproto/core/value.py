"""Values are validated when a caller makes them, and taken as they are when the parser did."""

from __future__ import annotations

from typing import TypeVar

__all__ = ["taken"]

T = TypeVar("T")

_set = object.__setattr__


def taken(cls: type[T], **fields: object) -> T:
    """Make a frozen value from octets that a parser has checked, running no validator again.

    `fields` must name every attribute of `cls`, already in its final form.
    """
    value = cls.__new__(cls)
    for name, content in fields.items():
        _set(value, name, content)
    return value
