"""Tasks that are kept for the next thing to do: to begin one costs far more than to wake one up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import anyio
from anyio.abc import TaskGroup
from attrs import define, field

from smtpproto.deadline import Alarm

__all__ = ["Hands"]

T = TypeVar("T")


@define(eq=False)
class _Free(Generic[T]):
    """A task that waits for something to do; `given` stays None where there is no more."""

    given: T | None = None
    called: anyio.Event = field(factory=anyio.Event)


class Hands(Generic[T]):
    """Does all that it is given side by side, in tasks of the group `tasks`.

    `do` is awaited with each thing, once, and with an alarm that is its task's. Up to `spare` tasks
    are kept while there is nothing to do for them, until `dismiss`.
    """

    def __init__(
        self, tasks: TaskGroup, do: Callable[[T, Alarm], Awaitable[None]], *, spare: int = 100
    ) -> None:
        self._tasks = tasks
        self._do = do
        self._spare = spare
        self._free: list[_Free[T]] = []
        self._dismissed = False

    def give(self, thing: T) -> None:
        """Have a thing done."""
        if self._free:
            hand = self._free.pop()  # the last used: so those that are too many stay unused
            hand.given = thing
            hand.called.set()
        else:
            self._tasks.start_soon(self._work, thing)

    def dismiss(self) -> None:
        """End those with nothing to do, and each of the others when it is done."""
        self._dismissed = True
        while self._free:
            self._free.pop().called.set()

    async def _work(self, given: T | None) -> None:
        alarm = Alarm()
        try:
            while given is not None:
                await self._do(given, alarm)
                if self._dismissed or len(self._free) >= self._spare:
                    return
                hand = _Free[T]()
                self._free.append(hand)
                await hand.called.wait()
                given = hand.given
        finally:
            alarm.off()
