"""Content as callers have it: iterables that run in their thread, and in no event loop."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Generator, Iterable
from contextlib import aclosing
from email.message import Message
from functools import partial
from pathlib import Path
from typing import Protocol, TypeAlias, TypeVar, cast

from smtpproto.core.reply import Reply
from smtpproto.source import AnyContent, Source

__all__ = ["BlockingContent", "Caller", "content_of", "pulled", "told_to"]

T = TypeVar("T")

#: What the client takes, and iterables of octets, such as generators.
BlockingContent: TypeAlias = "AnyContent | Iterable[bytes]"


class Caller(Protocol):
    """Whoever waits for a coroutine, as seen from there."""

    def leave(self, errand: Callable[[], object]) -> None:
        """Leave an errand for the caller."""
        ...

    async def ask(self, function: Callable[[], T]) -> T:
        """Have the caller call a function, and return what it does."""
        ...


def content_of(content: object, caller: Caller) -> AnyContent:
    """Return what a client takes: where it is an iterable, one that asks the caller."""
    known = isinstance(content, (bytes, str, Message, Path, Source, AsyncIterable))
    if known or hasattr(content, "read") or not isinstance(content, Iterable):
        return cast("AnyContent", content)
    return _octets(cast("Iterable[object]", content), caller)


def told_to(
    told: Callable[[int, Reply], None] | None, caller: Caller
) -> Callable[[int, Reply], None] | None:
    """Return what leaves it to the caller to call `told`."""
    if told is None:
        return None
    return lambda number, reply: caller.leave(partial(told, number, reply))


async def _octets(pieces: Iterable[object], caller: Caller) -> AsyncGenerator[bytes]:
    async with aclosing(pulled(pieces, caller)) as given:
        async for piece in given:
            if not isinstance(piece, bytes):
                raise TypeError(f"pieces of content are bytes, not {type(piece).__name__}")
            yield piece


async def pulled(things: Iterable[T], caller: Caller) -> AsyncGenerator[T]:
    """Give the things that the caller has, each made when it is asked for.

    A generator is closed when no more are wanted.
    """
    end = object()
    iterator = await caller.ask(lambda: iter(things))
    try:
        while (thing := await caller.ask(lambda: next(iterator, end))) is not end:
            yield cast("T", thing)
    finally:
        if isinstance(iterator, Generator):
            caller.leave(iterator.close)
