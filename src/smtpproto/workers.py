"""A server in several processes: one Python runs on one core, and a machine has more of them.

Each worker is an interpreter of its own with a server of its own, and all listen at the same ports
(SO_REUSEPORT): the kernel shares the connections out. A supervisor starts them, starts anew those
that die, and passes signals on; it hears no SMTP. The sockets are bound by it and lent to them: so
who may not bind can work there, and a client that comes for one that has just died waits for the
next.

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
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from types import TracebackType
from typing import Any, Self

import anyio
from anyio.abc import TaskStatus
from attrs import define, evolve, field

from .core.errors import LocalProtocolError
from .server import At
from .worker import ANSWER, Answer, Backend, Bound, Make, Order, Question, work

__all__ = ["Backend", "Crew", "Make", "Sockets", "WorkerError", "run", "supervise"]

log = logging.getLogger(__name__)


#: Seconds before a worker that died is started anew: at first, and when it dies again and again.
FIRST_WAIT = 0.1
LONGEST_WAIT = 30.0
#: Whoever lived for so many seconds has not died again and again.
LONG_LIFE = 60.0
#: Seconds that a worker has to end, beyond those for its sessions.
PATIENCE = 10.0
#: A worker that owes so many answers is asked nothing more.
MOST_UNANSWERED = 16


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

    async def work() -> None:
        with await Sockets.bind(places, workers) as sockets:
            await Crew(make, sockets, backend, backend_options).work(ready or (lambda _: None))

    anyio.run(work, backend=backend)


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
    place cannot be bound, or is shared by others already. WorkerError if a worker ends before it is
    ready, at the start: later ones are only logged.
    """
    with await Sockets.bind(places, workers) as sockets:
        await Crew(make, sockets, backend, backend_options).work(task_status.started)


class Sockets:
    """Listening sockets for several workers, who share places by them; made by `bind`."""

    def __init__(self) -> None:
        self.bound: Bound = []
        self._lent: list[list[tuple[At, list[socket.socket]]]] = []
        self._open = ExitStack()

    @classmethod
    async def bind(cls, places: Sequence[At], workers: int) -> Self:
        """Listen at `places` for so many; clients wait then, until there is who accepts.

        LocalProtocolError and OSError as `supervise`.
        """
        if workers < 1:
            raise LocalProtocolError(f"not a number of workers: {workers}")
        if any(place.path is not None for place in places):
            raise LocalProtocolError("workers cannot share a UNIX socket")
        made, places = cls(), list(places)
        with ExitStack() as stack:
            for worker in range(workers):
                made._lent.append([])
                for index, place in enumerate(places):
                    if worker == 0 and place.port:
                        await _must_be_free(place)
                    sockets = await _listening(place, stack)
                    host, port = sockets[0].getsockname()[:2]
                    places[index] = evolve(place, port=port)  # the others have it, too
                    made._lent[worker].append((places[index], sockets))
                    if worker == 0:
                        made.bound.append((host, port))
            made._open = stack.pop_all()
        return made

    def __len__(self) -> int:
        return len(self._lent)

    def of(self, worker: int) -> Sequence[tuple[At, Sequence[socket.socket]]]:
        """Return what a worker listens at; nothing for one that there are no sockets for."""
        return self._lent[worker] if worker < len(self._lent) else ()

    def close(self) -> None:
        """Listen no more; workers have sockets of their own."""
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


@define(eq=False)
class _Worker:
    """One process, and the line to it."""

    process: SpawnProcess
    line: Connection
    #: Seconds that its sessions may have when it is told to stop; None: as long as they like.
    sessions: float | None = 0
    ready: bool = False
    #: Who waits for the answer to which question.
    asked: dict[int, Callable[[Answer], None]] = field(
        factory=dict[int, "Callable[[Answer], None]"]
    )
    #: How many questions it has not answered, whoever still waits.
    unanswered: int = 0
    #: What is left of its time then.
    left: anyio.CancelScope = field(factory=anyio.CancelScope)

    def tell(self, order: Order | Question) -> None:
        with suppress(OSError):  # it has gone
            self.line.send(order)

    async def ask(self, question: Question) -> Answer | None:
        """Ask it; None if it does not answer in time.

        One that hears nothing any more is not asked again and again: what nobody reads fills the
        line, and then to write would block.
        """
        if self.unanswered >= MOST_UNANSWERED:
            return None
        self.unanswered += 1
        answer: Answer | None = None
        done = anyio.Event()

        def hear(said: Answer) -> None:
            nonlocal answer
            answer = said
            done.set()

        self.asked[question.number] = hear
        try:
            self.tell(question)
            with anyio.move_on_after(ANSWER):
                await done.wait()
        finally:
            del self.asked[question.number]
        return answer


@define(eq=False)
class Crew:
    """The workers, and who looks after them: what `supervise` does, in steps.

    There is one for each of the `sockets`, and so many `more`, that do not listen: they have
    something else to do.
    """

    make: Make
    sockets: Sockets
    backend: Backend = "asyncio"
    backend_options: dict[str, Any] | None = None
    more: int = 0
    #: Called when a signal has said that it is to end.
    stopping: Callable[[], None] = lambda: None

    _questions: int = field(default=0, init=False)
    _stopping: anyio.Event = field(factory=anyio.Event, init=False)
    _workers: set[_Worker] = field(factory=set[_Worker], init=False)
    _ready: set[int] = field(factory=set[int], init=False)
    _all_ready: anyio.Event = field(factory=anyio.Event, init=False)
    _failure: WorkerError | None = field(default=None, init=False)

    @property
    def size(self) -> int:
        """How many workers there are to be."""
        return len(self.sockets) + self.more

    async def work(self, ready: Callable[[Bound], None]) -> None:
        """Have workers until SIGTERM, SIGINT or cancellation; call `ready` when all are ready.

        WorkerError as `supervise`.
        """
        numbers = signal.SIGTERM, signal.SIGINT, signal.SIGHUP
        # Before there is a worker, so that none is left behind by an early signal.
        with anyio.open_signal_receiver(*numbers) as signals:
            async with anyio.create_task_group() as listening:
                listening.start_soon(self._pass_on, signals)
                async with anyio.create_task_group() as keeping:
                    for number in range(self.size):
                        keeping.start_soon(self._keep, number, keeping.cancel_scope)
                    await self._all_ready.wait()
                    if not self._stopping.is_set():
                        ready(self.sockets.bound)
                listening.cancel_scope.cancel()
        if self._failure is not None:
            raise self._failure

    @property
    def ready(self) -> bool:
        """Whether all workers are there and have said that they are ready, and none is to stop."""
        there = len(self._workers) == self.size and all(each.ready for each in self._workers)
        return there and not self._stopping.is_set()

    async def ask(self, question: str) -> list[Any]:
        """Ask all workers something (`Serving.answer`); return what they answer.

        WorkerError if one of them does not, in a few seconds.
        """
        if not self.ready:
            raise WorkerError("not all workers are there")
        self._questions += 1
        asked = Question(self._questions, question)
        answers: dict[str, Answer | None] = {}

        async def ask(worker: _Worker) -> None:
            answers[worker.process.name] = await worker.ask(asked)

        async with anyio.create_task_group() as tasks:
            for worker in self._workers:
                tasks.start_soon(ask, worker)
        values: list[Any] = []
        for name, answer in answers.items():
            if answer is None or answer.failed:
                raise WorkerError(f"{name} does not answer")
            values.append(answer.value)
        return values

    async def _pass_on(self, signals: Any) -> None:
        async for number in signals:
            if number == signal.SIGHUP:
                self._tell("reload")
            elif not self._stopping.is_set():
                self._stopping.set()
                self.stopping()
                self.sockets.close()  # who comes now is refused
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
            log.error("worker %d ended with %s; another one begins in %g s", number + 1, code, wait)
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
        lent = self.sockets.of(number)
        what = partial(self.make, number), lent, theirs, self.backend, self.backend_options
        name = f"worker {number + 1}"
        worker = _Worker(spawn.Process(target=work, args=what, name=name), ours)
        with ours:
            with theirs, _deaf_to_interrupts():
                worker.process.start()
            self._workers.add(worker)
            try:
                async with anyio.create_task_group() as ending:
                    ending.start_soon(self._end, worker)
                    await self._listen(worker, number)
                    await anyio.wait_readable(worker.process.sentinel)
                    ending.cancel_scope.cancel()
            finally:
                self._workers.discard(worker)
                worker.process.kill()  # where we are cancelled
                worker.process.join()
        return worker.process.exitcode

    async def _listen(self, worker: _Worker, number: int) -> None:
        """Hear what a worker says: that it is ready, and then answers; until it has gone."""
        while True:
            await anyio.wait_readable(worker.line.fileno())
            try:
                said: Answer | float | None = worker.line.recv()
            except (EOFError, OSError):  # perhaps with an order unread
                return
            if not isinstance(said, Answer):
                worker.sessions = said
                worker.ready = True
                self._is_ready(number)
                continue
            worker.unanswered -= 1
            if (hear := worker.asked.get(said.number)) is not None:
                hear(said)

    async def _end(self, worker: _Worker) -> None:
        """Kill it if it does not end in time."""
        await self._stopping.wait()
        with worker.left:
            if worker.sessions is not None:
                worker.left.deadline = anyio.current_time() + worker.sessions + PATIENCE
            await anyio.sleep_forever()
        log.error("%s does not end, and is killed", worker.process.name)
        worker.process.kill()


@contextmanager
def _deaf_to_interrupts() -> Generator[None]:
    """Have who is started meanwhile not hear SIGINT; we hear it afterwards.

    Ctrl-C is for all at the terminal, and an interpreter that begins would die of it with a
    traceback: it is a while before a worker can say that it ignores that (`work`).
    """
    resource_tracker.ensure_running()  # until Python 3.12 its start would end what we begin here
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


async def _must_be_free(place: At) -> None:
    """Raise OSError if others listen there: by SO_REUSEPORT we would get some of their clients."""
    with ExitStack() as stack:
        await _listening(place, stack, shared=False)


async def _listening(place: At, stack: ExitStack, *, shared: bool = True) -> list[socket.socket]:
    """Bind to a place, and listen; the sockets, which `stack` closes. They may be lent.

    Unless others may have the place too (`shared`), it is only bound.
    """
    port = place.port
    sockets: list[socket.socket] = []
    try:
        found = await anyio.getaddrinfo(
            place.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, kind, _, _, address in found:
            try:
                sock = stack.enter_context(socket.socket(family, kind))
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if shared:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.bind((address[0], port, *address[2:]))
                if shared:
                    sock.listen(socket.SOMAXCONN)
            except OSError as error:
                if place.host is None and error.errno in _NO_SUCH_FAMILY:
                    continue
                raise
            port = sock.getsockname()[1]
            sockets.append(sock)
        if not sockets:
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(place)) from error
    return sockets


# What is said where a machine has no IPv6.
_NO_SUCH_FAMILY = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
