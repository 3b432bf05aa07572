"""Many messages at a time: read as they are wanted, told as they are done, and none overlooked."""

import itertools
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from smtpproto import Envelope, LocalProtocolError, Reply
from smtpproto.handlers import HARD, SOFT, Fault, Faulty
from smtpproto.pool import Pool, Sent
from smtpproto.result import ClientError, ConnectError, Fate, LoginError, RefusedError
from smtpproto.server import ContentStream, Server, Session
from tests.peers.programs import free_port

from .test_cancel import Recording, closed
from .test_pool import at, to
from .world import ENVELOPE, MESSAGE, Accounts, Box, CancelAt, clear, running, until

pytestmark = pytest.mark.anyio


LAST = MESSAGE + b"this is the last\r\n"


def envelope(number: int) -> Envelope:
    return Envelope("ann@example.org", [f"bob{number}@example.net"])


def messages(count: int) -> Iterator[tuple[Envelope, bytes]]:
    return ((envelope(number), MESSAGE) for number in range(count))


def recipients(box: Box) -> list[str]:
    return sorted(str(received.envelope.forward_paths[0]) for received in box.received)


def expected(count: int) -> list[str]:
    return sorted(f"<bob{number}@example.net>" for number in range(count))


class Gate(Box):
    """Takes a message when it is let to, and not before."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = 0
        self.open = anyio.Event()

    async def content(
        self, session: Session, envelope: Envelope, content: ContentStream
    ) -> Reply | None:
        self.waiting += 1
        await self.open.wait()
        self.waiting -= 1
        return await super().content(session, envelope, content)


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("count", [0, 1, 50])
async def test_each_message_is_sent_once_and_told_once(
    asynchronous: bool, count: int, box: Box
) -> None:
    async def one_by_one() -> AsyncIterator[tuple[Envelope, bytes]]:
        for message in messages(count):
            await anyio.lowlevel.checkpoint()
            yield message

    told: list[Sent[()]] = []
    server = Server(box)
    async with running(server) as port, Pool(to(port)) as pool:
        source = one_by_one() if asynchronous else messages(count)
        async with pool.send_many(source, concurrency=7) as outcomes:
            async for sent in outcomes:
                assert sent
                assert sent.error is None
                assert sent.message[0].forward_paths == (sent.result.outcomes[0].forward_path,)
                assert sent.message[0] == envelope(sent.number)
                told.append(sent)
    assert sorted(sent.number for sent in told) == list(range(count))
    assert recipients(box) == expected(count)
    assert next(server.ids) <= 1 + min(5, count)


async def test_the_destination_is_part_of_the_message() -> None:
    boxes = Box(), Box()
    async with running(Server(boxes[0])) as one, running(Server(boxes[1])) as two:
        ports = itertools.cycle((one, two))
        async with Pool(at) as pool:
            source = ((*message, port) for message, port in zip(messages(9), ports, strict=False))
            async with pool.send_many(source) as outcomes:
                told = [sent async for sent in outcomes]
    assert all(sent.message[2] == (one, two)[sent.number % 2] for sent in told)
    assert [len(box.received) for box in boxes] == [5, 4]


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_nothing_is_read_before_there_is_room_for_it(concurrency: int) -> None:
    read = 0

    def counted() -> Iterator[tuple[Envelope, bytes]]:
        nonlocal read
        for message in messages(20):
            read += 1
            yield message

    gate = Gate()
    async with (
        running(Server(gate)) as port,
        Pool(to(port)) as pool,
        pool.send_many(counted(), concurrency=concurrency) as outcomes,
    ):
        await until(lambda: gate.waiting == concurrency)
        assert read == concurrency
        gate.open.set()
        # All are done, and nobody takes what became of them: so nothing more is read.
        await until(lambda: len(gate.received) == concurrency)
        for _ in range(50):
            await anyio.lowlevel.checkpoint()
        assert read == concurrency
        taken = 0
        async for _ in outcomes:
            taken += 1
            assert read <= taken + concurrency
        assert taken == read == 20


async def test_what_is_done_first_is_told_first() -> None:
    gate, box = Gate(), Box()
    async with (
        running(Server(gate)) as slow,
        running(Server(box)) as brisk,
        Pool(at, each=1) as pool,
    ):
        ports = [slow, brisk, slow, brisk, brisk]
        source = [(*message, port) for message, port in zip(messages(5), ports, strict=True)]
        async with pool.send_many(source) as outcomes:
            first = [(await anext(outcomes)).number for _ in range(3)]
            gate.open.set()
            rest = [sent.number async for sent in outcomes]
    assert (sorted(first), sorted(rest)) == ([1, 3, 4], [0, 2])


async def test_no_message_stops_the_others(box: Box, tmp_path: Path) -> None:
    server = Server(box, authenticator=Accounts(), plaintext_auth="always", failed_login_delay=0)
    shut = Server(Faulty(Box(), [Fault("CONNECT", HARD)]))
    busy = Server(Faulty(Box(), [Fault("CONNECT", SOFT)]))
    nobody = free_port()
    async with running(server) as port, running(shut) as closed, running(busy) as full:

        def connect(where: int, password: str = "") -> Any:
            login = ("ann", password) if password else None
            return clear(where, login=login, login_in_clear=True)

        some = Envelope("ann@example.org", ["bob@example.net", "no-one@example.net"])
        source: list[Any] = [
            (ENVELOPE, MESSAGE, port),
            (ENVELOPE, b"a bare\nline end", port),
            (ENVELOPE, tmp_path / "missing", port),
            (some, MESSAGE, nobody),
            (some, MESSAGE, closed),
            (ENVELOPE, MESSAGE, full),
            (ENVELOPE, MESSAGE, port, "guess"),
            (some, MESSAGE, port),
            (ENVELOPE, 7, port),
        ]
        async with Pool(connect) as pool, pool.send_many(source) as outcomes:
            told = {sent.number: sent async for sent in outcomes}
    kinds = [type(told[number].error) for number in range(len(source))]
    assert kinds == [
        *(type(None), LocalProtocolError, FileNotFoundError, ConnectError, RefusedError),
        *(RefusedError, LoginError, type(None), TypeError),
    ]
    fates = [[outcome.fate for outcome in told[n].result.outcomes] for n in range(len(source))]
    assert fates == [
        [Fate.ACCEPTED],
        [Fate.PERMANENT],  # as it is, it may be sent to nobody
        [Fate.TRANSIENT],
        [Fate.TRANSIENT] * 2,
        [Fate.PERMANENT] * 2,
        [Fate.TRANSIENT],
        [Fate.TRANSIENT],  # 535 is about the login, and no word about the mail
        [Fate.ACCEPTED, Fate.PERMANENT],
        [Fate.TRANSIENT],
    ]
    assert [bool(told[n]) for n in range(len(source))] == [True, *[False] * 8]
    refused = told[4].result.outcomes[1]
    assert str(refused.forward_path) == "<no-one@example.net>"
    assert refused.reply is not None
    assert refused.reply.code == 550
    assert "550" in refused.reason
    assert "missing" in told[2].result.outcomes[0].reason
    assert len(box.received) == 2


async def test_what_the_messages_raise_comes_behind_what_became_of_those_before(box: Box) -> None:
    def broken() -> Iterator[tuple[Envelope, bytes]]:
        yield from messages(5)
        raise LookupError("no more rows")

    told: list[int] = []

    async def take(pool: Pool[()]) -> None:
        async with pool.send_many(broken()) as outcomes:
            async for sent in outcomes:
                told.append(sent.number)  # noqa: PERF401 - it ends by an error

    async with running(Server(box)) as port, Pool(to(port)) as pool:
        with pytest.raises(LookupError, match="no more rows"):
            await take(pool)
        assert sorted(told) == list(range(5))
        assert await pool.send(ENVELOPE, MESSAGE)
    assert len(box.received) == 6


@pytest.mark.parametrize("by", ["break", "error"])
async def test_leaving_early_stops_everything_and_the_pool_goes_on(by: str) -> None:
    gate = Gate()
    left: list[str] = []
    server = Server(gate)

    async def endless() -> AsyncIterator[tuple[Envelope, bytes]]:
        try:
            for number in itertools.count():
                yield envelope(number), MESSAGE
        finally:
            left.append("left")

    async def leave(pool: Pool[()]) -> None:
        async with pool.send_many(endless(), concurrency=3):
            await until(lambda: gate.waiting == 3)
            if by == "error":
                raise KeyError("mine")

    async with running(server) as port, Pool(to(port)) as pool:
        if by == "error":
            with pytest.raises(KeyError, match="mine"):
                await leave(pool)
        else:
            await leave(pool)
        assert left == ["left"]
        gate.open.set()
        await until(lambda: not server.connections)
        gate.received.clear()
        assert await pool.send(ENVELOPE, MESSAGE)
    assert len(gate.received) == 1


async def test_leaving_where_it_was_taken_to_the_midst(box: Box) -> None:
    async with running(Server(box)) as port, Pool(to(port)) as pool:
        async with pool.send_many(messages(1000), concurrency=2) as outcomes:
            async for sent in outcomes:
                if sent.number > 3:
                    break
        assert len(box.received) < 20


async def test_all_are_read_in_one_task_and_sent_by_no_more_than_may_be(box: Box) -> None:
    """So a source may hold a scope open while it gives them; and no message costs a task."""
    readers: set[int] = set()
    senders: set[int] = set()

    async def pieces() -> AsyncIterator[bytes]:
        senders.add(anyio.get_current_task().id)
        yield MESSAGE

    async def source() -> AsyncIterator[tuple[Envelope, AsyncIterator[bytes]]]:
        async with anyio.create_task_group():
            for number in range(50):
                readers.add(anyio.get_current_task().id)
                yield envelope(number), pieces()
            readers.add(anyio.get_current_task().id)

    async with (
        running(Server(box)) as port,
        Pool(to(port)) as pool,
        pool.send_many(source(), concurrency=3) as outcomes,
    ):
        assert [bool(sent) async for sent in outcomes] == [True] * 50
    assert len(readers) == 1
    assert len(senders) == 3


async def test_who_waits_under_a_deadline_loses_none(box: Box) -> None:
    """What comes behind a wait that was cut off is there for the next one."""
    gate = Gate()
    async with (
        running(Server(gate)) as port,
        Pool(to(port)) as pool,
        pool.send_many(messages(3)) as outcomes,
    ):
        for _ in range(2):
            with anyio.move_on_after(0):
                await anext(outcomes)
        await until(lambda: gate.waiting == 3)
        gate.open.set()
        assert sorted([sent.number async for sent in outcomes]) == [0, 1, 2]
        with pytest.raises(StopAsyncIteration):
            await anext(outcomes)


async def test_several_may_take(box: Box) -> None:
    told: list[int] = []

    async def take(outcomes: AsyncIterator[Sent[()]]) -> None:
        async for sent in outcomes:
            told.append(sent.number)  # noqa: PERF401 - it is shared

    async with (
        running(Server(box)) as port,
        Pool(to(port)) as pool,
        pool.send_many(messages(30), concurrency=4) as outcomes,
        anyio.create_task_group() as tasks,
    ):
        for _ in range(3):
            tasks.start_soon(take, outcomes)
    assert sorted(told) == list(range(30))


async def test_outside_its_block_it_gives_nothing(box: Box) -> None:
    async with running(Server(box)) as port, Pool(to(port)) as pool:
        async with pool.send_many(messages(5)) as outcomes:
            await until(lambda: len(box.received) == 5)
        assert [sent async for sent in outcomes] == []


async def test_where_many_may_be_in_hand_the_others_have_their_turn(box: Box) -> None:
    read = 0

    def counted() -> Iterator[tuple[Envelope, bytes]]:
        nonlocal read
        for message in messages(5000):
            read += 1
            yield message

    async with (
        running(Server(box)) as port,
        Pool(to(port)) as pool,
        pool.send_many(counted(), concurrency=5000) as outcomes,
    ):
        assert await anext(outcomes)
        assert read < 5000


@pytest.mark.parametrize("concurrency", [0, -1])
async def test_no_concurrency_is_an_error(concurrency: int) -> None:
    async with Pool(to(25)) as pool:
        with pytest.raises(ValueError, match="at least one"):
            pool.send_many([], concurrency=concurrency)


# Cancelled


async def sweep(
    journey: Callable[[int], Awaitable[Any]], server: Server, connector: Recording
) -> AsyncIterator[int]:
    """Cancel a journey at its first wait, its second, and so on; after each, nothing is left."""
    tasks = len(anyio.get_running_tasks())
    for number in itertools.count(1):
        with anyio.CancelScope() as scope:
            going = CancelAt(journey(number), number, scope)
            await going
        yield number
        await until(lambda: all(map(closed, connector.streams)))
        await until(lambda: not server.connections)
        connector.streams.clear()
        if not going.reached:
            assert number > 8
            break
        await until(lambda: len(anyio.get_running_tasks()) == tasks)


async def test_a_pool_cancelled_at_every_await(box: Box) -> None:
    """From opening on until it is left, with several messages for few connections."""
    server = Server(box)
    connector = Recording()

    async def whole(_: int) -> None:
        async with Pool(to(port, connector=connector), each=2) as pool:
            await pool.send(ENVELOPE, MESSAGE)
            async with pool.send_many(messages(6), concurrency=4) as outcomes:
                assert sorted([sent.number async for sent in outcomes]) == list(range(6))
            await pool.send(ENVELOPE, MESSAGE)

    async with running(server) as port:
        async for _ in sweep(whole, server, connector):
            pass
        box.received.clear()
        await whole(0)
    assert len(box.received) == 8


@pytest.mark.parametrize("connection", ["new", "used", "dead"])
async def test_a_message_cancelled_at_every_await_leaves_the_pool_to_the_others(
    connection: str, box: Box
) -> None:
    """With a new connection, one that was used, and one that died since it was."""
    faulty = Faulty(box)
    server = Server(faulty)

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
            yield MESSAGE * 1500

    async with running(server) as port:
        for number in itertools.count(1):
            connector = Recording()
            async with Pool(to(port, connector=connector), each=1) as pool:
                if connection != "new":
                    await pool.send(ENVELOPE, MESSAGE)
                if connection == "dead":
                    faulty.faults = (Fault("MAIL", cut="before", times=1),)
                with anyio.CancelScope() as scope:
                    going = CancelAt(pool.deliver(ENVELOPE, pieces()), number, scope)
                    await going
                faulty.faults = ()
                with anyio.fail_after(60):
                    assert await pool.send(ENVELOPE, LAST)
            await until(lambda: not server.connections)
            contents = Counter(received.content for received in box.received)
            assert contents.pop(LAST) == 1
            assert contents.pop(MESSAGE, 0) == (connection != "new")
            assert contents.total() <= 1  # the end may have left before it was cancelled
            box.received.clear()
            assert all(map(closed, connector.streams))
            if not going.reached:
                break
        assert number > 5


async def test_those_who_wait_are_cancelled_one_by_one() -> None:
    """And each connection goes to somebody who is still there."""
    gate = Gate()
    async with (
        running(Server(gate)) as port,
        Pool(to(port), each=1) as pool,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(pool.send, ENVELOPE, MESSAGE)
        await until(lambda: gate.waiting == 1)
        scopes = [anyio.CancelScope() for _ in range(9)]
        done: list[int] = []

        async def wait(number: int) -> None:
            with scopes[number]:
                await pool.send(envelope(number), MESSAGE)
                done.append(number)

        for number in range(9):
            tasks.start_soon(wait, number)
        await anyio.wait_all_tasks_blocked()
        for number in (0, 3, 4):
            scopes[number].cancel()
        gate.open.set()
        await until(lambda: bool(done))
        for number in (7, 8):
            scopes[number].cancel()
    assert {1, 2, 5, 6} <= set(done) <= {1, 2, 5, 6, 7, 8}


async def test_a_pool_and_its_users_cancelled_together(box: Box) -> None:
    """Whoever is told first: what a message has in use is closed by that message at the latest."""
    server = Server(box)
    connector = Recording()

    async def one(pool: Pool[()]) -> None:
        with suppress(ClientError):  # the pool may be closed before they have a connection
            await pool.deliver(ENVELOPE, MESSAGE)

    async def whole(number: int) -> None:
        async with (
            anyio.create_task_group() as users,
            Pool(to(port, connector=connector), each=2) as pool,
        ):
            for _ in range(4):
                users.start_soon(one, pool)
            for _ in range(number):
                await anyio.lowlevel.checkpoint()
            users.cancel_scope.cancel()

    async with running(server) as port:
        for number in range(0, 60, 3):
            await whole(number)
            await until(lambda: all(map(closed, connector.streams)))
            await until(lambda: not server.connections)


async def test_a_pool_that_is_cancelled_leaves_a_message_to_whoever_sends_it() -> None:
    """Who is not cancelled with it: the message goes on, and closes its connection itself."""
    gate = Gate()
    connector = Recording()
    results: list[bool] = []

    async def one(pool: Pool[()]) -> None:
        results.append(bool(await pool.deliver(ENVELOPE, MESSAGE)))

    async with running(Server(gate)) as port, anyio.create_task_group() as users:
        with anyio.CancelScope() as scope:
            async with Pool(to(port, connector=connector), each=2) as pool:
                for _ in range(2):
                    users.start_soon(one, pool)
                await until(lambda: gate.waiting == 2)
                scope.cancel()
        assert not any(map(closed, connector.streams))
        gate.open.set()
        await until(lambda: len(results) == 2)
        assert results == [True, True]
        assert all(map(closed, connector.streams))
