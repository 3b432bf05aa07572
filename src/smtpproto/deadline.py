"""How long may this take? Deadlines by the event loop's clock, each with a name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

import anyio

__all__ = ["Alarm", "DeadlineError", "LazyTimer", "deadline", "is_stray"]


class DeadlineError(TimeoutError):
    """A wait was longer than its deadline allows.

    `name` is the deadline's field in ClientDeadlines or ServerDeadlines, `seconds` its value.
    """

    def __init__(self, name: str, seconds: float) -> None:
        super().__init__(f"no progress within the {name} deadline of {seconds:g} s")
        self.name = name
        self.seconds = seconds


class deadline:  # noqa: N801 - read as a verb: `with deadline("mail", 300)`
    """Bound what is awaited inside to `seconds` by the event loop's clock; None does not.

    `left` is what is left of them where they began to run before. Raises DeadlineError, which
    names the deadline.
    """

    __slots__ = ("_left", "_name", "_scope", "_seconds")

    def __init__(self, name: str, seconds: float | None, left: float | None = None) -> None:
        self._name = name
        self._seconds = seconds
        self._left = seconds if left is None else left
        self._scope: anyio.CancelScope | None = None

    def __enter__(self) -> None:
        # A class and one scope: generators cost more.
        if self._seconds is not None and self._left is not None:
            self._scope = anyio.CancelScope(deadline=anyio.current_time() + self._left)
            self._scope.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._scope is None or self._seconds is None:
            return
        self._scope.__exit__(kind, error, traceback)
        if self._scope.cancelled_caught:  # all that it ever swallows is its own cancellation
            raise DeadlineError(self._name, self._seconds)


def is_stray(error: BaseException) -> bool:
    """Tell whether a cancellation reached this task by mistake: nobody wants it to end.

    On asyncio who awaits a task or future that was cancelled gets CancelledError as well; let
    through, it would end all that stands around it, as if that had been cancelled.
    """
    if not isinstance(error, asyncio.CancelledError):
        return False
    task = asyncio.current_task()
    wanted = task is not None and task.cancelling() > 0
    return not wanted and anyio.current_effective_deadline() > float("-inf")


def _nobody() -> None:
    pass


class LazyTimer:
    """Calls `call` at a time of an asyncio loop that is put off again and again, and hardly comes.

    What it keeps with the loop may be early: it looks again then, and is made anew only to be
    earlier. So to put it off costs next to nothing.
    """

    __slots__ = ("_at", "_call", "_due", "_handle", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
        self._loop = loop
        self._call = call
        self._at = self._due = float("inf")
        self._handle: asyncio.TimerHandle | None = None

    def set(self, at: float) -> None:
        """Call at `at`, by the loop's clock, and not when it was set to before."""
        self._at = at
        if at < self._due:
            self._cancel()
            self._due = at
            self._handle = self._loop.call_at(at, self._look)

    def off(self) -> None:
        """Never call, and leave nothing behind: neither with the loop, nor a cycle."""
        self._cancel()
        self._call, self._due = _nobody, float("-inf")  # nothing is earlier

    def _cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _look(self) -> None:
        self._handle, self._due = None, float("inf")
        if self._loop.time() < self._at:
            self.set(self._at)
        else:
            self._call()


class Alarm:
    """One deadline around many waits, which is put off before each of them.

    A session waits for a few octets again and again; a scope for each wait would cost as much as
    the rest of it. Whatever is awaited inside the `with` block is cancelled when the alarm rings,
    and the block is left without an error; `rang` then names the wait that took too long. It may
    be used for one block after another, also behind `off`.
    """

    __slots__ = ("_name", "_ringing", "_scope", "_timer", "now", "rang")

    def __init__(self) -> None:
        #: The name it rang for; None as long as it has not.
        self.rang: str | None = None
        self._name = ""
        self._ringing = False
        #: Returns the event loop's time, in seconds.
        self.now: Callable[[], float] = anyio.current_time
        self._timer: LazyTimer | None = None  # on asyncio; elsewhere the scope has the deadline
        self._scope: anyio.CancelScope | None = None

    def __enter__(self) -> Self:
        if self._timer is None:
            with suppress(RuntimeError):
                loop = asyncio.get_running_loop()
                self._timer, self.now = LazyTimer(loop, self._due), loop.time
        else:
            self._timer.set(float("inf"))
        self.rang, self._ringing = None, False
        self._scope = anyio.CancelScope()
        self._scope.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        scope, self._scope = self._scope, None
        assert scope is not None  # entered
        swallowed = scope.__exit__(kind, error, traceback)
        if scope.cancelled_caught:
            self.rang = self._name
        return swallowed

    @property
    def entered(self) -> bool:
        """Whether there is a block that it is for."""
        return self._scope is not None

    @property
    def ringing(self) -> bool:
        """Whether it rang within the block that is not left yet; as known since `set`."""
        return self._ringing

    def off(self) -> None:
        """Leave no timer behind."""
        if self._timer is not None:
            self._timer.off()
            self._timer = None  # the next block makes its own

    def set(self, name: str, at: float) -> None:
        """Ring at `at`, a time of the event loop's clock, unless it is put off until then.

        Nothing where it rings already: whoever tidies up then is not what it rings for.
        """
        if self._timer is not None:
            if not self._ringing:
                self._name = name
                self._timer.set(at)
            return
        # Where the scope is cancelled; what is merely due has not rung.
        self._ringing = self._ringing or anyio.current_effective_deadline() == float("-inf")
        if not self._ringing:
            assert self._scope is not None  # entered
            self._name, self._scope.deadline = name, at

    def _due(self) -> None:
        self.ring(self._name)

    def ring(self, name: str) -> None:
        """Ring now, for this."""
        if not self._ringing and self._scope is not None:
            self._name, self._ringing = name, True
            self._scope.cancel()
