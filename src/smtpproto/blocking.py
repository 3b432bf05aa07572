"""The client for scripts: the same as `smtpproto.client`, without an event loop to be seen.

::

    with blocking.Client("mail.example.org", 587, login=("me", "secret")) as client:
        client.send(Envelope("me@example.org", ["you@example.net"]), message)

The loop that drives it turns only while a call waits, in the thread that called. So between calls
there is no thread, and nothing to be lost in a fork or to keep the interpreter from ending. What is
the caller's, iterables of content and observers, is run by the caller's thread as well, and never
within a loop.

Any thread may call, also one that runs an event loop of its own; that stands still meanwhile, so in
a coroutine you want `smtpproto.client`. Threads that share a client take turns. Ctrl-C ends a call
and breaks its transaction off, and the session where that was in the midst of something. A child
process leaves the session to its parent.
"""

from __future__ import annotations

import asyncio
import logging
import os
import selectors
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Coroutine, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from email.message import Message
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias, TypeVar, cast

import anyio
from anyio.abc import ByteStream

from .arguments import arguments_of
from .client import Client as AsyncClient
from .core.command import Command
from .core.envelope import Envelope
from .core.event import TlsInfo
from .core.reply import Reply
from .message import envelope_of
from .result import ClientError, Result
from .source import AnyContent, Source

__all__ = ["BlockingContent", "Client", "send_message"]

log = logging.getLogger(__name__)

T = TypeVar("T")

#: What the client takes, and iterables of octets, such as generators.
BlockingContent: TypeAlias = "AnyContent | Iterable[bytes]"


class Client:
    """One session with one server, as a context manager: `smtpproto.client.Client` that blocks.

    It takes the same arguments, and raises the same; deadlines are the same, too. ClientError
    where there is no session (any more), RuntimeError in a process that was forked from that of
    the session, and where content asks its own session for something.
    """

    @arguments_of(AsyncClient)
    def __init__(self, inner: AsyncClient) -> None:
        self._inner = inner
        self._loop: _Loop | None = None
        if inner.observe is not None:
            inner.observe = self._here(inner.observe)
        if inner.trace is not None:
            inner.trace = self._here(inner.trace)

    def __repr__(self) -> str:
        return f"blocking.{self._inner!r}"

    def __enter__(self) -> Self:
        if self._loop is not None:
            raise ClientError("this session is open already")
        self._loop = _Loop()
        try:
            self._loop.run(self._inner.__aenter__)
        except BaseException:
            self._loop.close()
            self._loop = None
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Say QUIT where that is possible, wait for its answer within the deadline, and close."""
        loop = self._loop
        if loop is not None and not loop.inherited:
            try:
                loop.run(self._inner.aclose, last=True)
            finally:
                self._loop = None if loop.closed else loop

    @property
    def greeting(self) -> Reply | None:
        """The server's greeting, once connected."""
        return self._inner.greeting

    @property
    def offered(self) -> dict[str, str]:
        """Keyword -> argument of the extensions that the server offers."""
        return self._inner.offered

    @property
    def tls_info(self) -> TlsInfo | None:
        """The TLS layer, None in clear."""
        return self._inner.tls_info

    @property
    def stream(self) -> ByteStream:
        """The stream below, for its attributes (certificate, addresses)."""
        return self._inner.stream

    @property
    def usable(self) -> bool:
        """Whether another transaction may be tried (`smtpproto.client.Client.usable`)."""
        return self._inner.usable

    def send(self, envelope: Envelope, content: BlockingContent) -> Result:
        """Hand a message over, to all of its recipients (`smtpproto.client.Client.send`)."""
        loop = self._open()
        return loop.run(partial(self._inner.send, envelope, _content(content, loop)))

    def deliver(self, envelope: Envelope, content: BlockingContent) -> Result:
        """Hand a message over; return an outcome for each (`smtpproto.client.Client.deliver`).

        An iterable gives its octets one by one, as they can be sent; a generator is closed when
        no more are wanted.
        """
        loop = self._open()
        return loop.run(partial(self._inner.deliver, envelope, _content(content, loop)))

    def command(self, command: Command) -> Reply:
        """Send a command that is no part of a transaction (`smtpproto.client.Client.command`)."""
        return self._open().run(partial(self._inner.command, command))

    def _open(self) -> _Loop:
        if self._loop is None:
            raise ClientError("no session: it begins and ends with the `with` block")
        return self._loop

    def _here(self, observe: Callable[[T], object]) -> Callable[[T], None]:
        """Have it called by the thread that called us."""

        def call(value: T) -> None:
            try:
                observe(value)
            except Exception:
                log.exception("an observer failed")

        return lambda value: self._open().leave(partial(call, value))


@arguments_of(Client)
def send_message(message: Message[Any, Any], client: Client) -> Result:
    """Hand one message over, in a session of its own (`smtpproto.client.send_message`)."""
    envelope = envelope_of(message)
    with client:
        return client.send(envelope, message)


class _Loop:
    """An event loop that turns only while somebody waits for it, in the thread of whoever does.

    What runs in it may leave errands for that thread, which does them while the loop stands still.
    """

    def __init__(self) -> None:
        # Its `run` is what makes Ctrl-C cancel. It is not asked to close: it would wait for a
        # thread that looks up a name, however long that takes.
        self._runner = asyncio.Runner(loop_factory=_new_loop)
        self._loop = self._runner.get_loop()
        self._errands: deque[Callable[[], object]] = deque()
        self._news: asyncio.Future[None] = self._loop.create_future()
        self._process = os.getpid()
        self._turn = threading.Lock()
        self._caller: int | None = None

    @property
    def inherited(self) -> bool:
        """Whether it belongs to the process that we were forked from."""
        return os.getpid() != self._process

    @property
    def closed(self) -> bool:
        """Whether nothing can run in it any more."""
        return self._loop.is_closed()

    def run(self, function: Callable[[], Coroutine[Any, Any, T]], *, last: bool = False) -> T:
        """Run it to its end, and return what it does; then close, where it was the last."""
        if self.inherited:
            raise RuntimeError("this session belongs to the process that opened it")
        if self._caller == threading.get_ident():
            raise RuntimeError("this session is in the midst of a call from here")
        with self._turn:
            if self.closed:
                raise ClientError("this session is over")
            self._caller = threading.get_ident()
            # One for each call, so that its threads do not outlive that.
            threads = ThreadPoolExecutor(thread_name_prefix="smtpproto")
            self._loop.set_default_executor(threads)
            try:
                return self._run(function)
            finally:
                threads.shutdown(wait=False)
                self._caller = None
                if last:
                    self.close()

    def close(self) -> None:
        """Close it; nothing runs in it."""
        self._loop.close()

    def _run(self, function: Callable[[], Coroutine[Any, Any, T]]) -> T:
        # In an empty context: the caller's may say that this is another kind of event loop.
        task = self._loop.create_task(function(), context=Context())
        try:
            while not task.done():
                self._until_news(task)
                while self._errands:
                    self._errands.popleft()()
        except BaseException:  # Ctrl-C, wherever it found us
            task.cancel()
            while not task.done():
                self._until_news(task)
            if not task.cancelled():
                task.exception()  # seen
            while self._errands:
                self._errands.popleft()()
            raise
        return task.result()

    def _until_news(self, task: asyncio.Task[Any]) -> None:
        """Let the loop turn until this is done, or has left an errand."""
        self._news = self._loop.create_future()
        if not _in_event_loop():
            self._runner.run(_first_of(task, self._news))
            return
        # There is one loop in this thread at a time, so ours gets one of its own for once.
        with ThreadPoolExecutor(1, thread_name_prefix="smtpproto") as thread:
            turning = thread.submit(self._runner.run, _first_of(task, self._news))
            try:
                turning.result()
            except BaseException:
                self._loop.call_soon_threadsafe(self._tell)
                raise

    def _tell(self) -> None:
        if not self._news.done():
            self._news.set_result(None)

    # In the loop

    def leave(self, errand: Callable[[], object]) -> None:
        """Leave an errand for the caller."""
        self._errands.append(errand)
        self._tell()

    async def ask(self, function: Callable[[], T]) -> T:
        """Have the caller call a function, and return what it does."""
        answer: asyncio.Future[T] = self._loop.create_future()

        def errand() -> None:
            if not answer.done():  # cancelled
                try:
                    answer.set_result(function())
                except Exception as error:  # noqa: BLE001 - it is for who asked
                    answer.set_exception(error)

        self.leave(errand)
        return await answer


def _new_loop() -> asyncio.AbstractEventLoop:
    # Where sockets are watched by way of a descriptor (epoll), a forked process shares that, and
    # takes our own sockets from it when it closes its copy of the loop. There are two of them.
    kind = getattr(selectors, "PollSelector", selectors.SelectSelector)
    return asyncio.SelectorEventLoop(kind())


async def _first_of(task: asyncio.Task[Any], news: asyncio.Future[None]) -> None:
    await asyncio.wait((task, news), return_when=asyncio.FIRST_COMPLETED)


def _in_event_loop() -> bool:
    """Tell whether this thread runs an event loop, asyncio's or another that anyio knows."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        try:
            anyio.get_current_task()
        except RuntimeError:
            return False
    return True


def _content(content: object, loop: _Loop) -> AnyContent:
    known = isinstance(content, (bytes, str, Message, Path, Source, AsyncIterable))
    if known or hasattr(content, "read") or not isinstance(content, Iterable):
        return cast("AnyContent", content)
    return _pulled(cast("Iterable[object]", content), loop)


async def _pulled(pieces: Iterable[object], loop: _Loop) -> AsyncGenerator[bytes]:
    iterator = await loop.ask(lambda: iter(pieces))
    try:
        while (piece := await loop.ask(lambda: next(iterator, None))) is not None:
            if not isinstance(piece, bytes):
                raise TypeError(f"pieces of content are bytes, not {type(piece).__name__}")
            yield piece
    finally:
        if isinstance(iterator, Generator):
            loop.leave(iterator.close)
