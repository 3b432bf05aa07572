"""An event loop that turns only while somebody waits for it, in the thread of whoever does."""

from __future__ import annotations

import asyncio
import os
import selectors
import signal
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextvars import Context
from functools import partial
from typing import Any, TypeVar

import anyio

from smtpproto.result import ClientError

__all__ = ["Loop"]

T = TypeVar("T")


class Loop:
    """The loop of one session, for one call at a time.

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
