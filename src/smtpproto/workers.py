"""A server in several processes: one Python runs on one core, and a machine has more of them.

Each worker is an interpreter of its own with a server of its own, and all listen at the same ports
(SO_REUSEPORT): the kernel shares the connections out. A supervisor starts them, starts anew those
that die, and passes signals on; it hears no SMTP.

Workers are spawned, not forked: one that is started anew years later finds what the first ones
found, and none inherits another's event loop, threads, locks, files or randomness. So what makes a
server has to be found by its name in a module, and the program be one that may be imported
(`if __name__ == "__main__":`). For systems with SO_REUSEPORT and POSIX signals.
"""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import signal
import socket
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    ExitStack,
    asynccontextmanager,
    nullcontext,
    suppress,
)
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, Literal, TypeAlias

import anyio
from anyio import to_thread
from anyio.abc import TaskStatus
from attrs import define, evolve, field

from .core.errors import LocalProtocolError
from .server import At, Server

__all__ = ["Backend", "Make", "WorkerError", "run", "supervise"]

log = logging.getLogger(__name__)

#: What makes the server of a worker, there; if it is a context, it is left when the server ends.
Make: TypeAlias = "Callable[[], Server | AbstractAsyncContextManager[Server]]"
Bound: TypeAlias = "list[tuple[str, int]]"
Backend: TypeAlias = Literal["asyncio", "trio"]
Order: TypeAlias = Literal["stop", "cancel", "reload"]

#: Seconds before a worker that died is started anew: at first, and when it dies again and again.
FIRST_WAIT = 0.1
LONGEST_WAIT = 30.0
#: Whoever lived for so many seconds has not died again and again.
LONG_LIFE = 60.0
#: Seconds that a worker has to end, beyond those for its sessions.
PATIENCE = 10.0


class WorkerError(Exception):
    """A worker ended before it was ready. Why is said on stderr: by itself, as it knows."""


def run(
    make: Make,
    workers: int,
    places: Sequence[At],
    *,
    backend: Backend = "asyncio",
    backend_options: dict[str, Any] | None = None,
    ready: Callable[[Bound], None] | None = None,
) -> None:
    """Do as `supervise`, in an event loop of its own. For the main thread of a program.

    `ready` is called with what is bound. `backend_options` are those of `anyio.run`.
    """
    begin = partial(_Crew, make, workers, places, backend, backend_options)
    anyio.run(lambda: begin().work(ready or (lambda _: None)), backend=backend)


async def supervise(
    make: Make,
    workers: int,
    places: Sequence[At],
    *,
    backend: Backend = "asyncio",
    backend_options: dict[str, Any] | None = None,
    task_status: TaskStatus[Bound] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Serve at `places` in so many worker processes until SIGTERM or SIGINT, or cancellation.

    `make` makes the server of each worker. It is pickled, so it is a function at the top of a
    module, or a partial of one. Limits of connections are each worker's own. Reports what the
    places are bound to when all workers are ready.

    SIGTERM and SIGINT stop the servers (`Server.stop`), and this returns when all workers have
    ended. A second one ends them at once, as does cancellation. Who does not end when his sessions
    should have is killed. SIGHUP is for `Server.reload`. A worker that ends by itself is started
    anew, after waits that get longer as long as that does not help.

    LocalProtocolError for no workers, or for UNIX sockets, which cannot be shared so. OSError if a
    place cannot be bound. WorkerError if a worker ends before it is ready, at the start: later ones
    are only logged.
    """
    crew = _Crew(make, workers, places, backend, backend_options)
    await crew.work(task_status.started)


@define(eq=False)
class _Worker:
    """One process, and the line to it."""

    process: SpawnProcess
    line: Connection
    #: Seconds that its sessions may have when it is told to stop; None: as long as they like.
    sessions: float | None = 0
    #: What is left of its time then.
    left: anyio.CancelScope = field(factory=anyio.CancelScope)

    def tell(self, order: Order) -> None:
        with suppress(OSError):  # it has gone
            self.line.send(order)


@define(eq=False)
class _Crew:
    make: Make
    size: int
    places: Sequence[At]
    backend: Backend
    backend_options: dict[str, Any] | None

    _stopping: anyio.Event = field(factory=anyio.Event, init=False)
    _workers: set[_Worker] = field(factory=set[_Worker], init=False)
    _ready: set[int] = field(factory=set[int], init=False)
    _all_ready: anyio.Event = field(factory=anyio.Event, init=False)
    _failure: WorkerError | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        if self.size < 1:
            raise LocalProtocolError(f"not a number of workers: {self.size}")
        if any(place.path is not None for place in self.places):
            raise LocalProtocolError("workers cannot share a UNIX socket")

    async def work(self, ready: Callable[[Bound], None]) -> None:
        async with AsyncExitStack() as stack:
            taken = [await stack.enter_async_context(_reserved(place)) for place in self.places]
            self.places = [place for place, _ in taken]
            numbers = signal.SIGTERM, signal.SIGINT, signal.SIGHUP
            # Before there is a worker, so that none is left behind by an early signal.
            signals = stack.enter_context(anyio.open_signal_receiver(*numbers))
            async with anyio.create_task_group() as listening:
                listening.start_soon(self._pass_on, signals)
                async with anyio.create_task_group() as keeping:
                    for number in range(self.size):
                        keeping.start_soon(self._keep, number, keeping.cancel_scope)
                    await self._all_ready.wait()
                    if not self._stopping.is_set():
                        ready([address for _, address in taken])
                listening.cancel_scope.cancel()
        if self._failure is not None:
            raise self._failure

    async def _pass_on(self, signals: Any) -> None:
        async for number in signals:
            if number == signal.SIGHUP:
                self._tell("reload")
            elif not self._stopping.is_set():
                self._stopping.set()
                self._tell("stop")
            else:
                self._tell("cancel")
                soon = anyio.current_time() + PATIENCE
                for worker in self._workers:
                    worker.left.deadline = min(worker.left.deadline, soon)

    def _tell(self, order: Order) -> None:
        for worker in self._workers:
            worker.tell(order)

    async def _keep(self, number: int, everybody: anyio.CancelScope) -> None:
        """Have a worker, and another one when it has died, until we stop."""
        wait = FIRST_WAIT
        while not self._stopping.is_set():
            began = anyio.current_time()
            code = await self._have_one(number)
            if self._stopping.is_set():
                break
            if number not in self._ready:
                self._failure = WorkerError(f"a worker ended with {code} before it was ready")
                everybody.cancel()
                break
            if anyio.current_time() - began > LONG_LIFE:
                wait = FIRST_WAIT
            log.error("worker %d ended with %s; another one begins in %g s", number, code, wait)
            with anyio.move_on_after(wait):
                await self._stopping.wait()
            wait = min(2 * wait, LONGEST_WAIT)
        self._is_ready(number)

    def _is_ready(self, number: int) -> None:
        self._ready.add(number)
        if len(self._ready) == self.size:
            self._all_ready.set()

    async def _have_one(self, number: int) -> int | None:
        """Start a worker and wait until it has ended; return its exit code."""
        spawn = multiprocessing.get_context("spawn")
        ours, theirs = spawn.Pipe()
        what = self.make, self.places, theirs, self.backend, self.backend_options
        worker = _Worker(spawn.Process(target=_work, args=what, name=f"worker {number}"), ours)
        with ours:
            with theirs:
                worker.process.start()
            self._workers.add(worker)
            try:
                async with anyio.create_task_group() as ending:
                    ending.start_soon(self._end, worker)
                    await anyio.wait_readable(ours.fileno())
                    with suppress(EOFError, OSError):  # it has gone, perhaps with an order unread
                        worker.sessions = ours.recv()
                        self._is_ready(number)
                    await anyio.wait_readable(worker.process.sentinel)
                    ending.cancel_scope.cancel()
            finally:
                self._workers.discard(worker)
                worker.process.kill()  # where we are cancelled
                worker.process.join()
        return worker.process.exitcode

    async def _end(self, worker: _Worker) -> None:
        """Kill it if it does not end in time."""
        await self._stopping.wait()
        with worker.left:
            if worker.sessions is not None:
                worker.left.deadline = anyio.current_time() + worker.sessions + PATIENCE
            await anyio.sleep_forever()
        log.error("%s does not end, and is killed", worker.process.name)
        worker.process.kill()


@asynccontextmanager
async def _reserved(place: At) -> AsyncGenerator[tuple[At, tuple[str, int]], None]:
    """Keep a place to ourselves and our workers; give it with its port, and its address.

    Sockets that are bound and do not listen get no connections.
    """
    with ExitStack() as stack:
        port = place.port
        bound: list[tuple[str, int]] = []
        try:
            found = await anyio.getaddrinfo(
                place.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            for family, kind, _, _, address in found:
                try:
                    sock = stack.enter_context(socket.socket(family, kind))
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                    if family == socket.AF_INET6:
                        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                    sock.bind((address[0], port, *address[2:]))
                except OSError as error:
                    if place.host is None and error.errno in _NO_SUCH_FAMILY:
                        continue
                    raise
                port = sock.getsockname()[1]
                bound.append((sock.getsockname()[0], port))
            if not bound:
                raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
        except OSError as error:
            raise OSError(error.errno, error.strerror or str(error), str(place)) from error
        yield evolve(place, port=port, reuse_port=True), bound[0]


# What is said where a machine has no IPv6.
_NO_SUCH_FAMILY = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


# In the worker


def _work(
    make: Make,
    places: Sequence[At],
    line: Connection,
    backend: Backend,
    backend_options: dict[str, Any] | None,
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's, who tells us
    main = partial(_serve, make, places, line)
    anyio.run(main, backend=backend, backend_options=backend_options)


async def _serve(make: Make, places: Sequence[At], line: Connection) -> None:
    made = make()
    async with AsyncExitStack() as stack:
        context = nullcontext(made) if isinstance(made, Server) else made
        server = await stack.enter_async_context(context)
        signals = stack.enter_context(anyio.open_signal_receiver(signal.SIGTERM, signal.SIGHUP))
        async with anyio.create_task_group() as tasks:

            async def serve(*, task_status: TaskStatus[Bound]) -> None:
                await server.serve_at(places, task_status=task_status)
                tasks.cancel_scope.cancel()

            async def hear_signals() -> None:
                async for number in signals:
                    await obey("stop" if number == signal.SIGTERM else "reload")

            async def hear_orders() -> None:
                while True:
                    await anyio.wait_readable(line.fileno())
                    try:
                        order: Order = line.recv()
                    except (EOFError, OSError):
                        server.stop()  # the supervisor has died
                        return
                    await obey(order)

            async def obey(order: Order) -> None:
                match order:
                    case "stop":
                        server.stop()
                    case "cancel":
                        tasks.cancel_scope.cancel()
                    case "reload":
                        await to_thread.run_sync(server.reload)

            tasks.start_soon(hear_signals)
            await tasks.start(serve)
            drain, cut = server.deadlines.drain, server.deadlines.cut
            line.send(None if drain is None or cut is None else drain + cut)
            tasks.start_soon(hear_orders)
