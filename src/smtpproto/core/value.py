"""Values are validated when a caller makes them, and taken as they are when the parser did."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import ParamSpec, TypeVar, cast

__all__ = ["remembered", "taken", "taker"]

P = ParamSpec("P")
T = TypeVar("T")

_new, _set = object.__new__, object.__setattr__


def taken(cls: type[T], **fields: object) -> T:
    """Make a frozen value from octets that a parser has checked, running no validator again.

    `fields` must name every attribute of `cls`, already in its final form.
    """
    value = _new(cls)
    for name, content in fields.items():
        _set(value, name, content)
    return value


def taker(cls: type[T], first: str, second: str | None = None) -> Callable[..., T]:
    """Return a `taken` for one class, thrice as fast: for what every transaction is full of.

    It takes the attributes in this order; there is no loop in it, so there are one or two.
    """
    set_first = getattr(cls, first).__set__
    if second is None:

        def take_one(content: object) -> T:
            value = _new(cls)
            set_first(value, content)
            return value

        return take_one

    set_second = getattr(cls, second).__set__

    def take_two(content: object, other: object) -> T:
        value = _new(cls)
        set_first(value, content)
        set_second(value, other)
        return value

    return take_two


def remembered(function: Callable[P, T]) -> Callable[P, T]:
    """Remember what a function of a few values returned for them, the last thousand of them."""
    return cast("Callable[P, T]", lru_cache(maxsize=1024)(function))
