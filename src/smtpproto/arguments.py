"""Arguments: functions that take those of a client in its place; and those of another kind."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

__all__ = ["arguments_of", "expect", "expect_pair"]

P = ParamSpec("P")
F = TypeVar("F")
M = TypeVar("M")
R = TypeVar("R")


def arguments_of(
    make: Callable[P, M],
) -> Callable[[Callable[[F, M], R]], Callable[Concatenate[F, P], R]]:
    """Let a function of two arguments take, instead of the second, the arguments that `make` has.

    Type checkers and `inspect.signature` see them all by their names. `arguments_of` on the
    result says whose they are.
    """

    def decorate(
        function: Callable[[F, M], R],
    ) -> Callable[Concatenate[F, P], R]:
        @wraps(function)
        def wrapper(first: F, /, *args: P.args, **kwargs: P.kwargs) -> R:
            return function(first, make(*args, **kwargs))

        plain: Any = wrapper
        own = inspect.signature(function)
        first = next(iter(own.parameters.values())).replace(kind=inspect.Parameter.POSITIONAL_ONLY)
        plain.__signature__ = own.replace(
            parameters=[first, *inspect.signature(make).parameters.values()]
        )
        plain.arguments_of = make
        return wrapper

    return decorate


def expect(value: object, kind: type, wanted: str) -> None:
    """TypeError where a value is of another kind, which type checkers see, and not all use one.

    It begins with what is `wanted`, in words.
    """
    if not isinstance(value, kind):
        found = type(value)
        raise TypeError(f"{wanted}, not {found.__module__}.{found.__qualname__}")


def expect_pair(value: object, wanted: str) -> None:
    """TypeError where a value is no pair. It says nothing of the value, which may be a secret."""
    # A text would pass for one, letter by letter.
    if not isinstance(value, (tuple, list)) or len(cast("Sequence[object]", value)) != 2:
        raise TypeError(wanted)
