"""Workers: they share a port, are started anew when they die, and end together."""

import os
import re
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from shutil import copy

import anyio
import pytest
from anyio.streams.tls import TLSAttribute, TLSStream

from smtpproto import LocalProtocolError, workers
from smtpproto.cli.node import ensure_certificate
from smtpproto.server import At
from smtpproto.worker import Order, Question
from smtpproto.workers import Make, Sockets, WorkerError, supervise

from .crew import (
    answers,
    answers_soon,
    fails,
    fails_after,
    fails_when_told,
    in_a_context,
    plain,
    with_tls,
)
from .wire import HOST, LOST, Wire, connect

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("unmeasured")]

ALL_TOGETHER = 60


class Crew:
    """A running supervisor: the port, the task's end, and what tells one worker from another."""

    def __init__(self, bound: list[tuple[str, int]]) -> None:
        self.bound = bound
        self.port = bound[0][1]
        self.done = anyio.Event()

    async def open(self) -> tuple[int, Wire]:
        """Connect; the process that greets, and the wire to it."""
        wire = await connect(self.port)
        try:
            greeting = await wire.reply()
        except LOST:
            await anyio.aclose_forcefully(wire.stream)
            raise
        match = re.fullmatch(r"220 w(\d+)\.example ESMTP", greeting)
        assert match is not None
        return int(match[1]), wire

    async def pids(self, number: int, but: frozenset[int] = frozenset()) -> frozenset[int]:
        """Connect until so many have greeted us; but not those, who may be dying yet."""
        found: set[int] = set()
        while len(found - but) < number:
            try:
                pid, wire = await self.open()
            except LOST:  # nobody listens, or somebody who is dying
                continue
            found.add(pid)
            await anyio.aclose_forcefully(wire.stream)
        return frozenset(found - but)


@asynccontextmanager
async def running(backend: str, make: Make, number: int = 2, *places: At) -> AsyncIterator[Crew]:
    """Supervise as a program does; the test ends when it has."""
    begin = partial(supervise, backend=backend)  # type: ignore[arg-type]  # one of them
    with anyio.fail_after(ALL_TOGETHER):
        async with anyio.create_task_group() as tasks:

            async def run(*, task_status: anyio.abc.TaskStatus[list[tuple[str, int]]]) -> None:
                await begin(make, number, places or [At(HOST)], task_status=task_status)
                crew.done.set()

            crew: Crew
            bound = await tasks.start(run)
            crew = Crew(bound)
            yield crew
            await crew.done.wait()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def wait_until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - another process will see to it
        await anyio.sleep(0.02)


def stop(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_workers_share_a_port_and_end_with_the_supervisor(
    number: int, anyio_backend: str
) -> None:
    async with running(anyio_backend, plain) as crew:
        pids = await crew.pids(2)
        assert os.getpid() not in pids
        stop(number)
    assert not any(map(alive, pids))
    with pytest.raises(OSError, match="connect"):
        await connect(crew.port)


async def test_all_listen_at_all_places(anyio_backend: str) -> None:
    async with running(anyio_backend, plain, 1, At(HOST), At(HOST), At(None)) as crew:
        assert len({port for _, port in crew.bound}) == 3
        heard = set()
        for _, port in crew.bound:
            async with await connect(port) as wire:
                heard.add(await wire.reply())
        assert len(heard) == 1
        stop()


async def test_a_signal_lets_transactions_finish(anyio_backend: str) -> None:
    async with running(anyio_backend, plain, 1) as crew:
        _, idle = await crew.open()
        await idle.ask("NOOP")  # so that it waits for a command
        _, busy = await crew.open()
        async with idle, busy:
            for line in "EHLO x.example", "MAIL FROM:<a@example.org>", "RCPT TO:<b@example.org>":
                assert (await busy.ask(line)).startswith("250")
            assert (await busy.ask("DATA")).startswith("354")
            stop()
            assert (await idle.reply()).startswith("421 4.3.2")
            assert (await busy.ask("text", ".")).startswith("250")
            assert (await busy.reply()).startswith("421")


async def test_what_does_not_finish_hears_421(anyio_backend: str) -> None:
    async with running(anyio_backend, partial(plain, drain=0.1), 1) as crew:
        _, wire = await crew.open()
        async with wire:
            for line in "EHLO x.example", "MAIL FROM:<a@example.org>":
                assert (await wire.ask(line)).startswith("250")
            stop()
            assert (await wire.reply()).startswith("421 4.3.2")


async def test_the_second_signal_does_not_wait(anyio_backend: str) -> None:
    async with running(anyio_backend, partial(plain, drain=ALL_TOGETHER), 1) as crew:
        pid, wire = await crew.open()
        async with wire:
            for line in "EHLO x.example", "MAIL FROM:<a@example.org>":
                assert (await wire.ask(line)).startswith("250")
            stop()
            while not await refuses(crew.port):
                pass
            stop()
            await wire.rest()
    assert not alive(pid)


async def refuses(port: int) -> bool:
    await anyio.lowlevel.checkpoint()
    try:
        await anyio.aclose_forcefully((await connect(port)).stream)
    except OSError:
        return True
    return False


async def test_one_that_dies_is_started_anew(
    anyio_backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(anyio_backend, plain) as crew:
        first = await crew.pids(2)
        victim, wire = await crew.open()
        async with wire:
            await wire.ask("EHLO x.example")
            await wire.say("MAIL FROM:<die@example.org>")
            await wire.rest()
        (new,) = await crew.pids(1, but=first)
        assert not alive(victim)
        (other,) = first - {victim}
        assert await crew.pids(2, but=frozenset({victim})) == {new, other}
        stop()
    assert "ended with 3; another one begins in 0.1 s" in caplog.text


async def test_a_worker_may_be_asked_to_end_and_another_begins(anyio_backend: str) -> None:
    async with running(anyio_backend, plain, 1) as crew:
        (pid,) = await crew.pids(1)
        os.kill(pid, signal.SIGTERM)
        await crew.pids(1, but=frozenset({pid}))
        stop()


async def test_crashing_again_and_again_takes_longer_and_longer(
    anyio_backend: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workers, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(workers, "LONGEST_WAIT", 0.03)
    starts = tmp_path / "starts"
    async with running(anyio_backend, partial(fails_after, starts, 1), 1) as crew:
        (pid,) = await crew.pids(1)
        os.kill(pid, signal.SIGKILL)
        await wait_until(lambda: len(waits(caplog)) >= 5)
        stop()
    assert waits(caplog)[:5] == ["0.01", "0.02", "0.03", "0.03", "0.03"]
    assert "ended with -9" in caplog.text
    assert "ended with 7" in caplog.text


async def test_one_that_dies_with_an_order_unread_is_started_anew(
    anyio_backend: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its end is a reset then, which is no fault of the supervisor's."""
    orders: list[str] = []
    tell = workers._Worker.tell

    def told(worker: workers._Worker, order: Order) -> None:
        tell(worker, order)
        orders.append(order)

    monkeypatch.setattr(workers._Worker, "tell", told)
    starts, die = tmp_path / "starts", tmp_path / "die"
    async with running(anyio_backend, partial(fails_when_told, starts, die), 1) as crew:
        (pid,) = await crew.pids(1)
        os.kill(pid, signal.SIGKILL)
        await wait_until(lambda: read(starts).count("\n") == 2)
        stop(signal.SIGHUP)
        await wait_until(lambda: orders == ["reload"])
        write(die, "now")
        await crew.pids(1, but=frozenset({pid}))
        stop()
    assert "ended with 7" in caplog.text


def waits(caplog: pytest.LogCaptureFixture) -> list[str]:
    return re.findall(r"another one begins in ([\d.]+) s", caplog.text)


async def test_one_that_hangs_is_killed(
    anyio_backend: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(workers, "PATIENCE", 0.5)
    hung = tmp_path / "hung"
    async with running(anyio_backend, partial(plain, drain=0.1, hung=hung), 1) as crew:
        pid, wire = await crew.open()
        async with wire:
            await wire.ask("EHLO x.example")
            await wire.say("MAIL FROM:<hang@example.org>")
            await wait_until(hung.exists)
            stop()
            await wire.rest()
    assert not alive(pid)
    assert "does not end, and is killed" in caplog.text


async def test_cancelling_ends_all_at_once(anyio_backend: str) -> None:
    begin = partial(supervise, backend=anyio_backend)  # type: ignore[arg-type]  # one of them
    with anyio.fail_after(ALL_TOGETHER):
        async with anyio.create_task_group() as tasks:
            crew = Crew(await tasks.start(begin, plain, 2, [At(HOST)]))
            pids = await crew.pids(2)
            tasks.cancel_scope.cancel()
    assert not any(map(alive, pids))


async def test_workers_end_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    program = (
        "from smtpproto.workers import run; from smtpproto.server import At;"
        "from tests.adapters.crew import plain;"
        "run(plain, 1, [At()], ready=lambda bound: print(bound[0][1], flush=True))"
    )
    root = Path(__file__).parents[2]
    path = {**os.environ, "PYTHONPATH": f"{root / 'src'}:{root}"}
    with anyio.fail_after(ALL_TOGETHER):
        async with await anyio.open_process([sys.executable, "-c", program], env=path) as process:
            assert process.stdout is not None
            port = int(await process.stdout.receive())
            crew = Crew([(HOST, port)])
            pid, wire = await crew.open()
            async with wire:
                process.kill()
                assert (await wire.reply()).startswith("421")
            await wait_until(lambda: not alive(pid))


# More than a server


async def test_each_has_a_number_and_answers(anyio_backend: str) -> None:
    with await Sockets.bind([At(HOST)], 2) as sockets:
        crew = workers.Crew(answers, sockets, anyio_backend, more=1)  # type: ignore[arg-type]  # one of them
        ready = anyio.Event()
        async with anyio.create_task_group() as tasks:

            async def work() -> None:
                await crew.work(lambda _: ready.set())

            tasks.start_soon(work)
            with anyio.fail_after(ALL_TOGETHER):
                await ready.wait()
                assert crew.ready
                said = await crew.ask("who?")
                assert sorted(said) == [(0, "who?", 1), (1, "who?", 1), (2, "who?", 0)]
                with pytest.raises(WorkerError, match=r"worker \d does not answer"):
                    await crew.ask("what nobody knows")
                said = await crew.ask("who?")
                assert len(said) == 3
                stop()
    assert not crew.ready


async def test_who_does_not_answer_is_asked_no_more_when_he_owes_much(
    anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "ANSWER", 0.05)
    asked: list[object] = []
    tell = workers._Worker.tell

    def told(worker: workers._Worker, order: Order | Question) -> None:
        tell(worker, order)
        if isinstance(order, Question):
            asked.append(order)

    monkeypatch.setattr(workers._Worker, "tell", told)
    with await Sockets.bind([At(HOST)], 1) as sockets:
        crew = workers.Crew(answers, sockets, anyio_backend)  # type: ignore[arg-type]  # one of them
        ready = anyio.Event()
        with anyio.fail_after(ALL_TOGETHER):
            async with anyio.create_task_group() as tasks:

                async def work() -> None:
                    await crew.work(lambda _: ready.set())

                tasks.start_soon(work)
                await ready.wait()
                for _ in range(2 * workers.MOST_UNANSWERED):
                    with pytest.raises(WorkerError, match="worker 1 does not answer"):
                        await crew.ask("for ever?")
                stop()
    assert len(asked) == workers.MOST_UNANSWERED


async def test_no_answer_in_time_is_no_answer(
    anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker gives up first, and says that it has none."""
    monkeypatch.setattr(workers, "ANSWER", float(ALL_TOGETHER))
    with await Sockets.bind([At(HOST)], 1) as sockets:
        crew = workers.Crew(answers_soon, sockets, anyio_backend)  # type: ignore[arg-type]  # one of them
        ready = anyio.Event()
        with anyio.fail_after(ALL_TOGETHER):
            async with anyio.create_task_group() as tasks:

                async def work() -> None:
                    await crew.work(lambda _: ready.set())

                tasks.start_soon(work)
                await ready.wait()
                with pytest.raises(WorkerError, match="worker 1 does not answer"):
                    await crew.ask("for ever?")
                assert await crew.ask("who?") == [(0, "who?", 1)]
                stop()


async def test_who_comes_for_one_that_has_died_waits_for_the_next(
    anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "FIRST_WAIT", 0.5)
    async with running(anyio_backend, plain, 1) as crew:
        (pid,) = await crew.pids(1)
        os.kill(pid, signal.SIGKILL)
        await wait_until(lambda: not alive(pid))
        new, wire = await crew.open()  # while nobody accepts
        assert new != pid
        await anyio.aclose_forcefully(wire.stream)
        stop()


# At the start


async def test_a_worker_that_cannot_start_ends_it_all(anyio_backend: str) -> None:
    with pytest.raises(WorkerError, match="ended with 7 before it was ready"):
        await supervise(fails, 2, [At(HOST)], backend=anyio_backend)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("number", "places", "why"),
    [
        (0, [At(HOST)], "not a number of workers"),
        (2, [At(HOST), At(path="smtp.sock")], "cannot share a UNIX socket"),
    ],
)
async def test_what_cannot_be(number: int, places: list[At], why: str) -> None:
    with pytest.raises(LocalProtocolError, match=why):
        await supervise(plain, number, places)


async def test_a_port_that_is_taken(anyio_backend: str) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="in use") as caught:
            await supervise(plain, 1, [At(HOST, port)])
    assert caught.value.filename == f"{HOST}:{port}"


async def test_a_port_of_other_workers_is_taken_too(anyio_backend: str) -> None:
    """Who shares it among his own does not share it with us: each would get a part of the mail."""
    with await Sockets.bind([At(HOST)], 2) as others:
        ((_, port),) = others.bound
        with pytest.raises(OSError, match="in use") as caught:
            await Sockets.bind([At(HOST, port)], 2)
    assert caught.value.filename == f"{HOST}:{port}"
    with await Sockets.bind([At(HOST, port)], 2) as ours:
        assert ours.bound == [(HOST, port)]


async def test_ctrl_c_while_they_begin(anyio_backend: str) -> None:
    """It is for all at the terminal; the supervisor hears it, and none of them says a word."""
    program = (
        "from smtpproto.workers import run; from smtpproto.server import At;"
        "from tests.adapters.crew import plain;"
        f"run(plain, 2, [At()], backend={anyio_backend!r})"
    )
    root = Path(__file__).parents[2]
    path = {**os.environ, "PYTHONPATH": f"{root / 'src'}:{root}"}
    process = await anyio.open_process(
        [sys.executable, "-c", program], env=path, start_new_session=True
    )
    with anyio.fail_after(ALL_TOGETHER):
        async with process:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            begun = partial(_run_spawn_main, children, 2)
            await wait_until(begun)
            os.killpg(process.pid, signal.SIGINT)
            assert process.stderr is not None
            said = b"".join([some async for some in process.stderr])
            assert await process.wait() == 0
    assert said == b""


def _run_spawn_main(children: Path, number: int) -> bool:
    commands = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children.read_text().split()]
    return sum(b"spawn_main" in command for command in commands) == number


async def test_what_a_worker_opened_is_closed_at_its_end(
    anyio_backend: str, tmp_path: Path
) -> None:
    async with running(anyio_backend, partial(in_a_context, tmp_path), 1) as crew:
        (pid,) = await crew.pids(1)
        stop()
    assert read(tmp_path / str(pid)) == "closed"


def read(file: Path) -> str:
    return file.read_text()


def write(file: Path, text: str) -> None:
    file.write_text(text)


async def test_a_hangup_is_passed_on(anyio_backend: str, tmp_path: Path) -> None:
    old = ensure_certificate(tmp_path / "old", ["localhost"])
    new = ensure_certificate(tmp_path / "new", ["localhost"])
    make = partial(with_tls, str(old.cert), str(old.key))
    async with running(anyio_backend, make, 1) as crew:
        before = await shown(crew)
        copy(new.cert, old.cert)
        copy(new.key, old.key)
        stop(signal.SIGHUP)
        while await shown(crew) == before:
            pass
        assert await shown(crew) == ssl.PEM_cert_to_DER_cert(read(new.cert))
        stop()


async def shown(crew: Crew) -> bytes:
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname = False
    anybody.verify_mode = ssl.CERT_NONE
    _, wire = await crew.open()
    async with wire:
        await wire.ask("EHLO x.example")
        await wire.ask("STARTTLS")
        stream = await TLSStream.wrap(
            wire.stream, server_side=False, ssl_context=anybody, standard_compatible=False
        )
        wire.stream = stream
        certificate = stream.extra(TLSAttribute.peer_certificate_binary)
        assert certificate is not None
        return certificate


def test_run_has_a_loop_of_its_own(anyio_backend: str) -> None:
    bound: list[tuple[str, int]] = []

    def ready(where: list[tuple[str, int]]) -> None:
        bound.extend(where)
        stop()

    workers.run(plain, 1, [At(HOST)], backend=anyio_backend, ready=ready)  # type: ignore[arg-type]
    ((host, port),) = bound
    assert host == HOST
    assert port
