"""Many things at a time: read as there is room for them, worked on by a few tasks, told when done.

One task reads, and gives each thing to a worker that has nothing to do, or to a new one where there
is none. Who takes the results makes room for what is read next. They meet more than once for each
thing, so they do it at a bell: a task for each, and memory streams between them, cost as much as
half of a message.
"""

from __future__ import annotations

from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
)
from contextlib import aclosing, asynccontextmanager
from typing import Generic, TypeVar

import anyio
import anyio.lowlevel

__all__ = ["each_done"]

T = TypeVar("T")
R = TypeVar("R")


@asynccontextmanager
async def each_done(
    work: Callable[[int, T], Awaitable[R]],
    things: Iterable[T] | AsyncIterable[T],
    concurrency: int,
) -> AsyncGenerator[AsyncIterator[R]]:
    """Await `work(number, thing)` for each thing; give what it returns, as it does.

    `concurrency` things are in hand at most, each from when it is read until its result is taken.
    All are read in one task. What they raise, or `work` does, ends the reading, and is raised
    behind the results of all before. Leaving the block cuts off what is under way.
    """
    crew = _Crew(work, concurrency)
    error: Exception | None = None
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(crew.read, things)
            try:
                yield crew
            except Exception as the_block_s:  # noqa: BLE001 - it is raised below, in no group
                error = the_block_s
            tasks.cancel_scope.cancel()
    finally:
        crew.dismiss()
    if error is not None:
        raise error


class _Bell:
    """Wakes those who wait for it, each time that it rings."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event: anyio.Event | None = None

    def ring(self) -> None:
        if self._event is not None:
            self._event.set()
            self._event = None

    async def wait(self) -> None:
        if self._event is None:
            self._event = anyio.Event()
        await self._event.wait()


class _Worker(Generic[T]):
    """What one has to do next, and where it waits for that."""

    __slots__ = ("bell", "given")

    def __init__(self) -> None:
        self.given: tuple[int, T] | None = None
        self.bell = _Bell()


class _Crew(AsyncIterator[R], Generic[T, R]):
    """Those who work, the one who reads for them, and what was done."""

    def __init__(self, work: Callable[[int, T], Awaitable[R]], concurrency: int) -> None:
        self._work = work
        self._room = concurrency  # things that may be read
        self._roomy = _Bell()
        self._idle: list[_Worker[T]] = []
        self._done: deque[R] = deque()
        self._news = _Bell()  # something is done, or everything
        self._all_read = self._all_done = False
        self._failure: Exception | None = None

    async def read(self, things: Iterable[T] | AsyncIterable[T]) -> None:
        """Read all that there is, and see that it is worked on."""
        async with anyio.create_task_group() as workers, aclosing(_one_by_one(things)) as unread:
            number = 0
            while True:
                if self._room:
                    await anyio.lowlevel.checkpoint()  # much may be wanted, and all be at hand
                while not self._room and self._failure is None:
                    await self._roomy.wait()
                if self._failure is not None:
                    break
                try:  # and only now
                    thing = await anext(unread)
                except StopAsyncIteration:
                    break
                except Exception as error:  # noqa: BLE001 - it is raised behind the others
                    self._failure = error
                    break
                self._room -= 1
                if self._idle:
                    worker = self._idle.pop()
                else:
                    worker = _Worker[T]()
                    workers.start_soon(self._labour, worker)
                worker.given = number, thing
                worker.bell.ring()
                number += 1
            self._all_read = True
            for worker in self._idle:
                worker.bell.ring()
        self._all_done = True
        self._news.ring()

    async def _labour(self, worker: _Worker[T]) -> None:
        while worker.given is not None:
            try:
                self._done.append(await self._work(*worker.given))
            except Exception as error:  # noqa: BLE001 - it is raised behind the others
                self._failure = error
                self._roomy.ring()
            worker.given = None
            self._news.ring()
            if not self._all_read:
                self._idle.append(worker)
                await worker.bell.wait()

    async def __anext__(self) -> R:
        while not self._done and not self._all_done:
            await self._news.wait()
        if self._done:
            self._room += 1
            self._roomy.ring()
            return self._done.popleft()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        raise StopAsyncIteration

    def dismiss(self) -> None:
        """Have nothing more for anybody."""
        self._done.clear()
        self._failure, self._all_done = None, True
        self._news.ring()


async def _one_by_one(things: Iterable[T] | AsyncIterable[T]) -> AsyncGenerator[T]:
    if isinstance(things, AsyncIterable):
        iterator = aiter(things)
        try:
            async for thing in iterator:
                yield thing
        finally:
            if isinstance(iterator, AsyncGenerator):
                await iterator.aclose()
    else:
        for thing in things:
            yield thing
