"""What a sabotage is."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

from attrs import frozen

__all__ = ["Sabotage", "replace"]


@frozen
class Sabotage:
    """A fault, by its name; `seen` are the invariants one of which has to notice it.

    Worlds from the `first` on are tried: of what is rare, from one in which it happens.
    """

    name: str
    seen: tuple[str, ...]
    done: Callable[[], AbstractContextManager[Any]]
    first: int = 0


def replace(cls: Any, name: str, make: Callable[[Any], Any]) -> AbstractContextManager[Any]:
    """Put what `make` makes of an attribute in its place, for as long as that lasts."""
    return patch.object(cls, name, make(getattr(cls, name)))
