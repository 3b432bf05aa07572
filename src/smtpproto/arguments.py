"""Functions that take what makes a client in place of a client: one signature, written once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

__all__ = ["arguments_of"]

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
