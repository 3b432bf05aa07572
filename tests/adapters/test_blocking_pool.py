"""A pool for threads and for scripts: the same pool, and what is the caller's stays there."""

import asyncio
import inspect
import itertools
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from smtpproto import Envelope, LocalProtocolError, Reply
from smtpproto import pool as asynchronous
from smtpproto.blocking import Client, Pool
from smtpproto.handler import ContentStream, Session
from smtpproto.handlers import Memory
from smtpproto.result import ClientError, ConnectError, DeliveryError, Fate, HeldOffError
from smtpproto.testing import HARD, Fault, SmtpServer
from tests.peers.programs import free_port

from .test_blocking import ENVELOPE, MESSAGE, PATIENCE, clear, ended, no_thread_left, server

__all__ = ["no_thread_left", "server"]  # fixtures

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("unmeasured")


def to(server: SmtpServer, **options: object) -> Callable[[], Client]:
    return lambda: clear(server, **options)


def envelope(number: int) -> Envelope:
    return Envelope("ann@example.org", [f"bob{number}@example.net"])


def sessions(server: SmtpServer) -> list[int]:
    return [message.session.id for message in server.messages]


def test_it_is_the_same_pool() -> None:
    """But for what it cannot be: a base of attrs, and asynchronous."""
    theirs = inspect.signature(asynchronous.Pool).parameters
    ours = inspect.signature(Pool).parameters
    assert [(p.name, p.default, p.kind) for p in ours.values()] == [
        (p.name, p.default, p.kind) for p in theirs.values()
    ]
    for name in ("send", "deliver", "send_many"):
        assert list(inspect.signature(getattr(Pool, name)).parameters) == list(
            inspect.signature(getattr(asynchronous.Pool, name)).parameters
        )


def test_sessions_are_kept(server: SmtpServer) -> None:
    with Pool(to(server)) as pool:
        assert pool.send(ENVELOPE, MESSAGE).all_accepted
        assert pool.deliver(ENVELOPE, "Subject: more\n\n").all_accepted
        assert pool.send(ENVELOPE, [MESSAGE[:9], MESSAGE[9:]])
    contents = [message.content for message in server.messages]
    assert contents == [MESSAGE, b"Subject: more\r\n\r\n", MESSAGE]
    assert sessions(server) == [1, 1, 1]
    assert server.dialogue[-2] == "1 C: QUIT"


def test_errors_are_those_of_the_pool(server: SmtpServer) -> None:
    with Pool(to(server), hold_off=60) as pool:
        server.faults = [Fault("RCPT", HARD)]
        with pytest.raises(DeliveryError):
            pool.send(ENVELOPE, MESSAGE)
        with pytest.raises(LocalProtocolError, match="bare CR or LF"):
            pool.deliver(ENVELOPE, b"a\nb\r\n")
        with pytest.raises(TypeError, match="pieces of content are bytes, not str"):
            pool.deliver(ENVELOPE, ["text"])  # type: ignore[list-item]  # that is what is tested
    with Pool(lambda: Client("127.0.0.1", free_port(), tls="none"), hold_off=60) as pool:
        with pytest.raises(ConnectError):
            pool.send(ENVELOPE, MESSAGE)
        with pytest.raises(HeldOffError):
            pool.send(ENVELOPE, MESSAGE)


class Together(Memory):
    """Takes content when so many sessions have come to that point."""

    def __init__(self, sessions: int) -> None:
        super().__init__()
        self.barrier = asyncio.Barrier(sessions)

    async def content(
        self, session: Session, envelope: Envelope, content: ContentStream
    ) -> Reply | None:
        await asyncio.wait_for(self.barrier.wait(), PATIENCE)
        return await super().content(session, envelope, content)


def test_threads_send_at_the_same_time() -> None:
    """And what is a thread's own is run there."""
    threads: Counter[int] = Counter()

    def pieces(number: int) -> Iterator[bytes]:
        here = threading.get_ident()
        threads[here] += 1
        yield b"%d\r\n" % number
        assert threading.get_ident() == here
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()

    with (
        SmtpServer(Together(4), backend="asyncio") as server,
        Pool(to(server)) as pool,
        ThreadPoolExecutor(4) as workers,
    ):
        for result in workers.map(lambda n: pool.send(ENVELOPE, pieces(n)), range(20)):
            assert result.all_accepted
        assert sorted(message.content for message in server.messages) == sorted(
            b"%d\r\n" % number for number in range(20)
        )
        assert len(set(sessions(server))) in (4, 5)
    assert threading.get_ident() not in threads
    assert threads.total() == 20


def test_an_unused_session_is_closed_while_nobody_calls(server: SmtpServer) -> None:
    with Pool(to(server), idle=0.01) as pool:
        pool.send(ENVELOPE, MESSAGE)
        deadline = threading.Event()
        for _ in range(PATIENCE * 100):
            if "1 C: QUIT" in server.dialogue:
                break
            deadline.wait(0.01)
        else:
            pytest.fail("it was kept")


def test_observers_are_called_in_the_pool_s_thread_which_cannot_wait_for_it(
    server: SmtpServer,
) -> None:
    errors: list[str] = []

    def trace(line: str) -> None:
        assert threading.current_thread() is not threading.main_thread()
        if line == "C: QUIT":
            with pytest.raises(RuntimeError, match="cannot wait for it") as caught:
                pool.send(ENVELOPE, MESSAGE)
            errors.append(str(caught.value))

    with Pool(to(server, trace=trace)) as pool:
        pool.send(ENVELOPE, MESSAGE)
    assert len(errors) == 1


def test_it_is_open_within_its_block(server: SmtpServer) -> None:
    pool = Pool(to(server))
    with pytest.raises(ClientError, match="not open"):
        pool.send(ENVELOPE, MESSAGE)
    with pool:
        pool.send(ENVELOPE, MESSAGE)
    for call in (pool.send, pool.deliver):
        with pytest.raises(ClientError, match="not open"):
            call(ENVELOPE, MESSAGE)
    with pytest.raises(RuntimeError, match="once"):
        pool.__enter__()
    with pytest.raises(ValueError, match="at least one"):
        Pool(to(server), each=0)


def test_what_the_block_raises_comes_out(server: SmtpServer) -> None:
    def block() -> None:
        with Pool(to(server)) as pool:
            pool.send(ENVELOPE, MESSAGE)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        block()


# Many


def test_many_messages(server: SmtpServer) -> None:
    here = threading.get_ident()

    def messages() -> Iterator[tuple[Envelope, Iterator[bytes]]]:
        for number in range(50):
            assert threading.get_ident() == here
            yield envelope(number), pieces(number)

    def pieces(number: int) -> Iterator[bytes]:
        assert threading.get_ident() == here
        yield b"%d\r\n" % number

    source = list(messages())
    with Pool(to(server)) as pool, pool.send_many(source, concurrency=7) as outcomes:
        told = {sent.number: sent for sent in outcomes}
    assert all(told.values())
    assert [told[number].message for number in range(50)] == source
    assert sorted(message.content for message in server.messages) == sorted(
        b"%d\r\n" % number for number in range(50)
    )


def test_the_destination_is_part_of_the_message(server: SmtpServer) -> None:
    def connect(host: str, port: int) -> Client:
        return Client(host, port, tls="none")

    nobody = free_port()
    with Pool(connect) as pool:
        assert pool.send(ENVELOPE, MESSAGE, server.host, server.port)
        source = [(ENVELOPE, MESSAGE, server.host, port) for port in (server.port, nobody)]
        with pool.send_many(source) as outcomes:
            fates = {sent.message[3]: sent.result.outcomes[0].fate for sent in outcomes}
    assert fates == {server.port: Fate.ACCEPTED, nobody: Fate.TRANSIENT}


def test_nothing_is_read_before_there_is_room_for_it(server: SmtpServer) -> None:
    read = 0

    def counted() -> Iterator[tuple[Envelope, bytes]]:
        nonlocal read
        for number in range(20):
            read += 1
            yield envelope(number), MESSAGE

    taken = 0
    with Pool(to(server)) as pool, pool.send_many(counted(), concurrency=3) as outcomes:
        assert read == 0
        for _ in outcomes:
            taken += 1
            assert read <= taken + 3
    assert taken == read == 20


def test_what_the_messages_raise_comes_behind_the_others(server: SmtpServer) -> None:
    def broken() -> Iterator[tuple[Envelope, bytes]]:
        for number in range(5):
            yield envelope(number), MESSAGE
        raise LookupError("no more rows")

    told: list[int] = []
    with Pool(to(server)) as pool:
        with pool.send_many(broken()) as outcomes, pytest.raises(LookupError, match="no more"):
            told.extend(sent.number for sent in outcomes)
        assert pool.send(ENVELOPE, MESSAGE)
        with pytest.raises(ValueError, match="at least one"), pool.send_many([], concurrency=0):
            pytest.fail("it has begun")
    assert len(server.messages) == 6
    assert set(told) <= set(range(5))


def test_leaving_early_closes_what_is_the_caller_s_and_the_pool_goes_on(
    server: SmtpServer,
) -> None:
    closed: list[tuple[str, int]] = []

    def endless() -> Iterator[tuple[Envelope, Iterator[bytes]]]:
        try:
            for number in itertools.count():
                yield envelope(number), pieces()
        finally:
            closed.append(("messages", threading.get_ident()))

    def pieces() -> Iterator[bytes]:
        try:
            yield MESSAGE
            yield MESSAGE * 5000
        finally:
            closed.append(("content", threading.get_ident()))

    def leave(pool: Pool[()]) -> None:
        with pool.send_many(endless()) as outcomes:
            assert next(outcomes)
            raise KeyError("mine")

    with Pool(to(server)) as pool:
        with pytest.raises(KeyError, match="mine"):
            leave(pool)
        assert pool.send(ENVELOPE, MESSAGE)
    kinds = Counter(kind for kind, _ in closed)
    assert kinds["messages"] == 1
    assert kinds["content"] >= 1
    assert {thread for _, thread in closed} == {threading.get_ident()}


# Whatever ends it

PRELUDE = """\
import os, signal, sys, threading, time
from smtpproto import Envelope
from smtpproto.blocking import Client, Pool

host, port = sys.argv[1:]
envelope = Envelope("ann@example.org", ["bob@example.net"])

def say(line):
    os.write(1, f"{line}\\n".encode())  # at once: the pool's thread says something, too

pool = Pool(lambda: Client(host, int(port), tls="none", trace=say))
"""


def script(server: SmtpServer, text: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [
            *(sys.executable, "-W", "error", "-c", PRELUDE + textwrap.dedent(text)),
            *(server.host, str(server.port)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )


@pytest.mark.parametrize("where", ["send", "next", "body"])
def test_ctrl_c_ends_a_call_and_the_pool_can_be_left(where: str) -> None:
    program = {
        "send": "pool.send(envelope, 'x\\n')",
        "next": "next(outcomes)",
        "body": "next(outcomes); say('here'); time.sleep(600)",
    }[where]
    with SmtpServer() as server:
        if where != "body":
            server.faults = [Fault(".", delay=PATIENCE)]
        process = script(
            server,
            f"""
            try:
                with pool:
                    with pool.send_many([(envelope, "x\\n")] * 2) as outcomes:
                        {program}
            except KeyboardInterrupt:
                say("interrupted")
                say([t.name for t in threading.enumerate() if t.name == "smtpproto"])
                sys.exit(3)
            """,
        )
        assert process.stdout is not None
        mark = "here" if where == "body" else "C: BDAT 3 LAST"
        assert any(line.startswith(mark) for line in process.stdout)
        process.send_signal(signal.SIGINT)
        lines = ended(process)
    assert process.returncode == 3, lines
    assert lines[-2:] == ["interrupted", "[]"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_leaves_it_to_its_parent() -> None:
    with SmtpServer() as server:
        process = script(
            server,
            """
            with pool:
                pool.send(envelope, "x\\n")
                child = os.fork()
                if not child:
                    try:
                        pool.send(envelope, "x\\n")
                    except RuntimeError as error:
                        say(error)
                    raise SystemExit(0)
                os.waitpid(child, 0)
                pool.send(envelope, "y\\n")
            """,
        )
        lines = ended(process)
    assert process.returncode == 0, lines
    assert "this pool belongs to the process that opened it" in lines
    assert [message.content for message in server.messages] == [b"x\r\n", b"y\r\n"]
    assert sessions(server) == [1, 1]
