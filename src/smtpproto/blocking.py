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
import signal
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Coroutine, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
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

    def takes(self, envelope: Envelope) -> bool:
        """Tell whether its domains may still be named (`smtpproto.client.Client.takes`)."""
        return self._inner.takes(envelope)

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
        self._loop = _new_loop()
        self._errands: deque[Callable[[], object]] = deque()
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
        task.add_done_callback(lambda _: self._loop.stop())
        try:
            while not task.done():
                self._until_stopped()
                while self._errands:
                    self._errands.popleft()()
        except BaseException:  # Ctrl-C, wherever it found us
            task.cancel()
            while not task.done():
                self._until_stopped()
            if not task.cancelled():
                task.exception()  # seen
            while self._errands:
                self._errands.popleft()()
            raise
        return task.result()

    def _until_stopped(self) -> None:
        """Let the loop turn until the task is done, or has left an errand; or for no reason."""
        if not _in_event_loop():
            self._turn_here()
            return
        # There is one loop in a thread at a time, so ours gets a thread for the while. Ctrl-C may
        # come before that has begun, and before we know that it has.
        outcome: Future[None] = Future()
        try:
            turning = partial(self._turn_elsewhere, outcome)
            threading.Thread(target=turning, name="smtpproto").start()
            outcome.result()
        except BaseException:
            if not outcome.cancel():
                self._loop.call_soon_threadsafe(self._loop.stop)
                wait([outcome])
            raise

    def _turn_elsewhere(self, outcome: Future[None]) -> None:
        if outcome.set_running_or_notify_cancel():
            try:
                self._turn_here()
            except BaseException as error:  # noqa: BLE001 - it is for who waits
                outcome.set_exception(error)
            else:
                outcome.set_result(None)

    def _turn_here(self) -> None:
        # Ctrl-C raises where it comes, and so in the midst of asyncio; here it stops the loop
        # first. Who presses again does not want to wait for that.
        pressed = False

        def note(number: int, frame: object) -> None:
            nonlocal pressed
            if pressed:
                raise KeyboardInterrupt
            pressed = True
            self._loop.call_soon_threadsafe(self._loop.stop)

        ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if ours and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, note)
            try:
                self._loop.run_forever()
            finally:
                signal.signal(signal.SIGINT, signal.default_int_handler)
            if pressed:
                raise KeyboardInterrupt
        else:
            self._loop.run_forever()

    # In the loop

    def leave(self, errand: Callable[[], object]) -> None:
        """Leave an errand for the caller."""
        self._errands.append(errand)
        self._loop.stop()

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
