"""Tasks that are kept for the next thing to do: to begin one costs far more than to wake one up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import inf
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

    `do` is awaited with each thing, for `patience()` seconds at most, and then `finish`, which is
    not cut off. Up to `spare` tasks are kept while there is nothing to do for them, until
    `dismiss`.
    """

    def __init__(
        self,
        tasks: TaskGroup,
        do: Callable[[T], Awaitable[None]],
        finish: Callable[[T], Awaitable[None]],
        patience: Callable[[], float],
        *,
        spare: int = 100,
    ) -> None:
        self._tasks = tasks
        self._do, self._finish = do, finish
        self._patience = patience
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
                with alarm:  # one for many things: to enter it costs more than to set it
                    while given is not None:
                        alarm.set("patience", alarm.now() + self._patience())
                        await self._do(given)
                        alarm.set("rest", inf)
                        if alarm.ringing:  # at the last moment
                            break
                        await self._finish(given)
                        given = await self._next()
                if given is not None:  # it rang
                    await self._finish(given)
                    given = await self._next()
        finally:
            alarm.off()

    async def _next(self) -> T | None:
        """Wait for something to do; None where this task has to end."""
        if self._dismissed or len(self._free) >= self._spare:
            return None
        hand = _Free[T]()
        self._free.append(hand)
        await hand.called.wait()
        return hand.given
