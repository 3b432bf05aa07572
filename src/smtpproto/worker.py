"""What runs in a worker: one of the processes that `workers` starts and looks after.

It gets its sockets, and a line to its supervisor. By that line it is told what to do, and asked.
"""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext, suppress
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Literal, Protocol, TypeAlias

import anyio
from anyio import to_thread
from anyio.abc import TaskStatus
from attrs import evolve, frozen

from .server import At, Server
from .wire import Listener

__all__ = ["ANSWER", "Answer", "Backend", "Bound", "Make", "Order", "Question", "Serving", "work"]

log = logging.getLogger(__name__)

Backend: TypeAlias = Literal["asyncio", "trio"]
Order: TypeAlias = Literal["stop", "cancel", "reload"]

#: Seconds that a worker has to answer a question.
ANSWER = 5.0

Bound: TypeAlias = "list[tuple[str, int]]"


class Serving(Protocol):
    """What runs in a worker, if it is more than a `Server`."""

    async def serve_at(self, places: Sequence[At], *, task_status: TaskStatus[Bound]) -> None:
        """Serve there until `stop`, as `Server.serve_at`; report when all is ready."""
        ...

    def stop(self) -> None:
        """End gracefully; `serve_at` returns when that is done."""
        ...

    async def reload(self) -> None:
        """Read again what may have changed (SIGHUP)."""
        ...

    async def answer(self, question: str) -> Any:
        """Return what `Crew.ask` wants to know; it is pickled. What is raised is logged."""
        ...

    @property
    def patience(self) -> float | None:
        """How many seconds it may take to end after `stop`; None: as long as it likes."""
        ...


#: What makes the server of a worker, there; if it is a context, it is left when the server ends.
#: It is called with the worker's number, from 0 on, which one that is started anew has again.
Make: TypeAlias = (
    "Callable[[int], Server | Serving | AbstractAsyncContextManager[Server | Serving]]"
)


@frozen
class Question:
    """What a supervisor wants to know."""

    number: int
    said: str


@frozen
class Answer:
    """What a worker says to it; `value` is worth nothing if it `failed`."""

    number: int
    value: Any
    failed: bool


@frozen
class _OneServer:
    """A Server as something that serves."""

    server: Server

    async def serve_at(self, places: Sequence[At], *, task_status: TaskStatus[Bound]) -> None:
        await self.server.serve_at(places, task_status=task_status)

    def stop(self) -> None:
        self.server.stop()

    async def reload(self) -> None:
        await to_thread.run_sync(self.server.reload)

    async def answer(self, question: str) -> Any:
        raise LookupError(question)  # nobody asks a Server

    @property
    def patience(self) -> float | None:
        drain, cut = self.server.deadlines.drain, self.server.deadlines.cut
        return None if drain is None or cut is None else drain + cut


def work(
    make: Callable[[], Any],
    lent: Sequence[tuple[At, Sequence[socket.socket]]],
    line: Connection,
    backend: Backend,
    backend_options: dict[str, Any] | None,
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's, who tells us
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # which we began with
    main = partial(_serve, make, lent, line)
    anyio.run(main, backend=backend, backend_options=backend_options)


async def _serve(
    make: Callable[[], Any], lent: Sequence[tuple[At, Sequence[socket.socket]]], line: Connection
) -> None:
    places = [evolve(place, bound=Listener(sockets)) for place, sockets in lent]
    made = make()
    async with AsyncExitStack() as stack:
        signals = stack.enter_context(anyio.open_signal_receiver(signal.SIGTERM, signal.SIGHUP))
        context = made if hasattr(made, "__aenter__") else nullcontext(made)
        given: Server | Serving = await stack.enter_async_context(context)
        serving = _OneServer(given) if isinstance(given, Server) else given
        async with anyio.create_task_group() as tasks:

            async def serve(*, task_status: TaskStatus[Bound]) -> None:
                await serving.serve_at(places, task_status=task_status)
                tasks.cancel_scope.cancel()

            async def hear_signals() -> None:
                async for number in signals:
                    await obey("stop" if number == signal.SIGTERM else "reload")

            async def hear_orders() -> None:
                while True:
                    await anyio.wait_readable(line.fileno())
                    try:
                        order: Order | Question = line.recv()
                    except (EOFError, OSError):
                        serving.stop()  # the supervisor has died
                        return
                    if isinstance(order, Question):
                        tasks.start_soon(answer, order)
                    else:
                        await obey(order)

            async def obey(order: Order) -> None:
                match order:
                    case "stop":
                        serving.stop()
                    case "cancel":
                        tasks.cancel_scope.cancel()
                    case "reload":
                        await serving.reload()

            async def answer(question: Question) -> None:
                said, failed = None, True
                with anyio.move_on_after(ANSWER):
                    try:
                        said = await serving.answer(question.said)
                        failed = False
                    except Exception:
                        log.exception("what was asked cannot be answered")
                with suppress(OSError):
                    line.send(Answer(question.number, said, failed))

            tasks.start_soon(hear_signals)
            await tasks.start(serve)
            line.send(serving.patience)
            tasks.start_soon(hear_orders)
