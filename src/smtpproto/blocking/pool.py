"""Connections that several threads share, and many messages over few of them."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, TypeVarTuple, cast

from anyio.from_thread import BlockingPortal, start_blocking_portal
from attrs import evolve

from smtpproto.client import Client as AsyncClient
from smtpproto.core.envelope import Envelope
from smtpproto.core.reply import Reply
from smtpproto.pool import Pool as AsyncPool
from smtpproto.pool import Sent
from smtpproto.result import ClientError, Result
from smtpproto.source import AnyContent

from .client import Client, inner_of
from .content import BlockingContent, content_of, pulled, told_to

__all__ = ["Pool"]

D = TypeVarTuple("D")
T = TypeVar("T")


class Pool(Generic[*D]):
    """`smtpproto.pool.Pool` that blocks; a context manager, opened once.

    `client` makes a blocking Client, not entered yet, for a destination; all else is as there, also
    what is never sent twice. Any number of threads may send at the same time.

    Connections are kept, and closed in time, also while nobody calls; so a pool has a thread while
    it is open. That calls `client`, and the observers of what it makes. Iterables, of content and
    of messages, are run by the thread that sends them, while it waits. Ctrl-C ends the call.

    ClientError where the pool is not open (any more); RuntimeError in a process that was forked
    from its own, which has to make a pool itself, and for who would wait for the pool in its own
    thread: observers.
    """

    def __init__(
        self,
        client: Callable[[*D], Client],
        *,
        total: int = 50,
        each: int = 5,
        idle: float = 10,
        life: float = 300,
        messages: int = 100,
        hold_off: float = 1,
        hold_off_longest: float = 60,
        patience: float = 0,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        def inner(*destination: *D) -> AsyncClient:
            return inner_of(client(*destination))

        self._pool = AsyncPool(
            inner,
            total=total,
            each=each,
            idle=idle,
            life=life,
            messages=messages,
            hold_off=hold_off,
            hold_off_longest=hold_off_longest,
            patience=patience,
            jitter=jitter,
        )
        self._portal: BlockingPortal | None = None
        self._thread: int | None = None
        self._process = os.getpid()
        self._open = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal(name="smtpproto"))
            stack.enter_context(portal.wrap_async_context_manager(self._pool))
            self._thread = portal.call(threading.get_ident)
            self._open = stack.pop_all()
        self._portal, self._process = portal, os.getpid()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process == os.getpid():  # else all of it is the parent's
            self._open.close()
            self._portal = None

    def send(self, envelope: Envelope, content: BlockingContent, *destination: *D) -> Result:
        """Hand a message over, to all of its recipients (`smtpproto.pool.Pool.send`)."""
        caller = self._caller()
        call = partial(self._pool.send, envelope, content_of(content, caller), *destination)
        return caller.run(call)

    def deliver(
        self,
        envelope: Envelope,
        content: BlockingContent,
        *destination: *D,
        told: Callable[[int, Reply], None] | None = None,
    ) -> Result:
        """Hand a message over; return an outcome for each (`smtpproto.pool.Pool.deliver`)."""
        caller = self._caller()
        call = partial(
            self._pool.deliver,
            envelope,
            content_of(content, caller),
            *destination,
            told=told_to(told, caller),
        )
        return caller.run(call)

    @contextmanager
    def send_many(
        self,
        messages: Iterable[tuple[Envelope, BlockingContent, *D]],
        *,
        concurrency: int = 20,
    ) -> Generator[Iterator[Sent[*D]]]:
        """Deliver messages as they come; a context manager, whose value gives what became of each.

        As `smtpproto.pool.Pool.send_many`. Messages are read, and iterables of content run, while
        the thread waits for the next Sent; what is read goes on its way meanwhile. ValueError for a
        concurrency below 1.
        """
        caller = self._caller()
        given: dict[int, tuple[Envelope, BlockingContent, *D]] = {}

        async def asked_for() -> AsyncGenerator[tuple[Envelope, AnyContent, *D]]:
            number = 0
            async for message in pulled(messages, caller):
                given[number] = message
                number += 1
                envelope, content, *destination = message
                yield envelope, content_of(content, caller), *cast("tuple[*D]", tuple(destination))

        def told() -> Iterator[Sent[*D]]:
            while (sent := caller.run(lambda: anext(outcomes, None))) is not None:
                # As it was given; what an iterable of content is to the pool, nobody can use.
                yield evolve(sent, message=cast("Any", given.pop(sent.number)))

        many = self._pool.send_many(asked_for(), concurrency=concurrency)
        sending = caller.portal.wrap_async_context_manager(many)
        outcomes = sending.__enter__()
        try:
            yield told()
        finally:
            sending.__exit__(None, None, None)  # not the error: Ctrl-C would end the thread
            caller.do_errands()

    def _caller(self) -> _Caller:
        if self._portal is None:
            raise ClientError("this pool is not open: it begins and ends with the `with` block")
        if self._process != os.getpid():
            raise RuntimeError("this pool belongs to the process that opened it")
        if self._thread == threading.get_ident():
            raise RuntimeError("the thread of this pool cannot wait for it")
        return _Caller(self._portal)


class _Caller:
    """One thread, as long as it waits for coroutines in the pool's; it runs what is its own."""

    def __init__(self, portal: BlockingPortal) -> None:
        self.portal = portal
        #: None behind the last of a call.
        self._errands: SimpleQueue[Callable[[], object] | None] = SimpleQueue()

    def run(self, function: Callable[[], Awaitable[T]]) -> T:
        """Run it to its end, and return what it does."""

        async def call() -> T:
            try:
                return await function()
            finally:
                self._errands.put(None)

        running = self.portal.start_task_soon(call)
        try:
            while (errand := self._errands.get()) is not None:
                errand()
        except BaseException:  # Ctrl-C, here or in an errand
            running.cancel()
            while (errand := self._errands.get()) is not None:
                errand()
            raise
        return running.result()

    def do_errands(self) -> None:
        """Do what was left when nobody waited."""
        while not self._errands.empty():
            if (errand := self._errands.get()) is not None:
                errand()

    # In the loop

    def leave(self, errand: Callable[[], object]) -> None:
        """Leave an errand for the caller."""
        self._errands.put(errand)

    async def ask(self, function: Callable[[], T]) -> T:
        """Have the caller call a function, and return what it does."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def settle(value: T | None, error: Exception | None) -> None:
            if answer.done():  # cancelled
                return
            if error is None:
                answer.set_result(cast("T", value))
            else:
                answer.set_exception(error)

        def errand() -> None:
            if answer.done():
                return
            value, failure = None, None
            try:
                value = function()
            except Exception as error:  # noqa: BLE001 - it is for who asked
                failure = error
            loop.call_soon_threadsafe(settle, value, failure)

        self.leave(errand)
        return await answer
