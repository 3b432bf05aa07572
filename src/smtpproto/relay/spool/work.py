"""What the database is asked to do, and the turns in which that is done: many things in one."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from math import inf
from typing import Any, Generic, TypeVar, cast

from anyio import CancelScope, Event, current_effective_deadline, get_cancelled_exc_class

__all__ = ["Turn", "Work"]

T = TypeVar("T")


class Work(Generic[T]):
    """Something to do in a transaction of the writer's.

    `run` gets the connection; it may run again, after a rollback. `looks`: it changes nothing in
    the database. `then` is called in the writer's thread when the transaction is committed, before
    there is another. `kept` is what is known of it: False, that nothing of it is in
    the database; True, that it is; None, that it may be, now or after a crash.
    """

    def __init__(
        self,
        run: Callable[[sqlite3.Connection], T],
        *,
        looks: bool = False,
        then: Callable[[], None] | None = None,
    ) -> None:
        self.run = run
        self.looks = looks
        self.then = then
        self.kept: bool | None = False
        self.error: Exception | None = None
        self.result: T = cast("T", None)  # until it is done

    def let_go(self) -> None:
        """Forget what was to be done: it is, and mostly leads back to who keeps this.

        That would be a cycle for each message, with its content in it.
        """
        del self.run, self.then


class Turn:
    """What is done together: those who come before it begins, and wait until it is `over`."""

    def __init__(self) -> None:
        self.works: list[Work[Any]] = []
        self.begun = False
        self.over = Event()

    def begin(self) -> None:
        """Begin: from here on nobody withdraws anything."""
        self.begun = True
        for work in self.works:
            work.kept = None

    def leave(self, work: Work[Any]) -> None:
        """Withdraw what has not begun."""
        if not self.begun:
            self.works.remove(work)

    async def wait(self) -> None:
        """Wait until it is over, also where a scope is cancelled: what comes next will notice.

        It is what a shielded scope would do, which costs more to enter than all of this wait, and
        is hardly ever needed.
        """
        try:
            await self.over.wait()
        except get_cancelled_exc_class():
            if current_effective_deadline() > -inf:  # it is no scope, and asyncio knows no shields
                raise
            with CancelScope(shield=True):
                await self.over.wait()
