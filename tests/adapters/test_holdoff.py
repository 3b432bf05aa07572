"""A destination that is down is left alone for a while, and who sends there hears it at once."""

from collections.abc import AsyncIterator, Iterator
from contextlib import nullcontext
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpproto import Envelope
from smtpproto.client import Client
from smtpproto.handlers import CLOSING, HARD, Fault, Faulty
from smtpproto.holdoff import HoldOffs
from smtpproto.pool import Pool
from smtpproto.result import ClientError, ConnectError, Fate, HeldOffError, LoginError, RefusedError
from smtpproto.server import Connections, Server
from tests.peers.programs import free_port

from .clock import anyio_backend  # noqa: F401 - a fixture
from .test_pool import Busy, Counting, to
from .world import ENVELOPE, MESSAGE, Accounts, Box, clear, running, until

DOWN = ConnectError("nobody is there")


class Time:
    """A clock that is set by hand, and a jitter as well."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.jitter = 0.0

    def held(self, first: float = 1, longest: float = 60) -> HoldOffs:
        return HoldOffs(first, longest, lambda: self.jitter, lambda: self.now)


# For how long


def waits(held: HoldOffs, time: Time, took: float = 0) -> Iterator[float]:
    """Fail again and again, each time as soon as it is tried again."""
    while True:
        held.failed("a", DOWN, took)
        refusal = held.refusal("a")
        assert refusal is not None
        yield refusal.seconds
        time.now += refusal.seconds


def test_it_doubles_up_to_the_longest() -> None:
    time = Time()
    found = [wait for wait, _ in zip(waits(time.held(), time), range(9), strict=False)]
    assert found == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60, 60])


def test_it_is_no_shorter_than_the_attempt_took() -> None:
    time = Time()
    found = [wait for wait, _ in zip(waits(time.held(), time, 30), range(8), strict=False)]
    assert found == pytest.approx([30, 30, 30, 30, 30, 32, 60, 60])
    assert next(waits(time.held(), time, 300)) == pytest.approx(60)


@given(jitter=st.floats(0, 1, exclude_max=True), failures=st.integers(1, 3000))
def test_it_is_lengthened_by_a_quarter_at_most(jitter: float, failures: int) -> None:
    time = Time()
    time.jitter = jitter
    held = time.held(0.001, 10)
    for _ in range(failures):
        held.failed("a", DOWN, 0)
    refusal = held.refusal("a")
    assert refusal is not None
    expected = min(10, 0.001 * 2.0 ** min(failures - 1, 50)) * (1 + jitter / 4)
    assert refusal.seconds == pytest.approx(expected)
    assert refusal.failures == failures


def test_it_ends_and_is_forgotten() -> None:
    time = Time()
    held = time.held()
    held.failed("a", DOWN, 0)
    held.failed("a", DOWN, 0)
    assert held.refusal("b") is None
    time.now += 2
    assert held.refusal("a") is None
    held.failed("a", DOWN, 0)  # in a row, for it was not long ago
    refusal = held.refusal("a")
    assert refusal is not None
    assert refusal.seconds == pytest.approx(4)
    held.reached("a")
    assert held.refusal("a") is None
    held.reached("a")
    held.failed("a", DOWN, 0)
    time.now += 62
    held.failed("a", DOWN, 0)
    refusal = held.refusal("a")
    assert refusal is not None
    assert (refusal.failures, refusal.seconds) == (1, 1)


def test_those_of_long_ago_take_no_room() -> None:
    time = Time()
    held = time.held()
    for number in range(10_000):
        held.failed(number, DOWN, 0)
        time.now += 1
        assert len(held) <= 130
    assert len(held) >= 61  # what is not over is not forgotten


@pytest.mark.parametrize(
    ("first", "longest"),
    [(-1, 60), (2, 1), (1, float("inf")), (float("nan"), 60), (1, float("nan"))],
)
def test_no_time_is_an_error(first: float, longest: float) -> None:
    with pytest.raises(ValueError, match="hold-off"):
        Pool(to(25), hold_off=first, hold_off_longest=longest)


# In a pool


@pytest.mark.anyio
async def test_a_destination_that_is_down_is_refused_at_once_and_said_when_it_is_tried() -> None:
    connector = Counting()
    async with Pool(to(free_port(), connector=connector), hold_off=40, jitter=lambda: 0.4) as pool:
        with pytest.raises(ConnectError) as first:
            await pool.send(ENVELOPE, MESSAGE)
        assert not isinstance(first.value, HeldOffError)
        for _ in range(3):
            with pytest.raises(HeldOffError) as caught:
                await pool.deliver(ENVELOPE, MESSAGE)
            assert 40 < caught.value.seconds <= 44
            assert str(caught.value).startswith("not tried for another 4")
            assert str(caught.value).endswith(f"s, as the last attempt failed: {first.value}")
            assert caught.value.__cause__ is caught.value.error
    assert connector.attempts == 1


@pytest.mark.anyio
async def test_it_is_tried_again_and_then_all_is_as_before(box: Box) -> None:
    faulty = Faulty(box, [Fault("CONNECT", CLOSING)])
    server = Server(faulty)
    time = Time()
    async with running(server) as port, Pool(to(port)) as pool:
        pool._held = time.held()
        for failures in (1, 2):
            with pytest.raises(RefusedError):
                await pool.send(ENVELOPE, MESSAGE)
            with pytest.raises(HeldOffError) as caught:
                await pool.send(ENVELOPE, MESSAGE)
            assert caught.value.failures == failures
            time.now += caught.value.seconds
        faulty.faults = ()
        await pool.send(ENVELOPE, MESSAGE)
        await pool.send(ENVELOPE, MESSAGE)
    assert len(box.received) == 2
    assert next(server.ids) == 4


@pytest.mark.anyio
async def test_a_thousand_messages_for_one_that_is_down_cost_one_attempt(box: Box) -> None:
    """And hold up nothing for the others."""
    connector = Counting()
    nobody = free_port()

    def connect(port: int) -> Client:
        return clear(port, connector=connector)

    async with running(Server(box)) as port, Pool(connect, hold_off=60, each=2) as pool:
        ports = [nobody, port]
        source = ((ENVELOPE, MESSAGE, ports[number % 10 == 0]) for number in range(1000))
        async with pool.send_many(source) as outcomes:
            told = [sent async for sent in outcomes]
    down = [sent for sent in told if sent.message[2] == nobody]
    assert {outcome.fate for sent in down for outcome in sent.result.outcomes} == {Fate.TRANSIENT}
    assert sum(isinstance(sent.error, HeldOffError) for sent in down) >= 880
    assert all("not tried" in sent.result.outcomes[0].reason for sent in down[30:])
    assert len(box.received) == 100
    assert connector.attempts <= 3


@pytest.mark.anyio
async def test_a_wrong_password_is_not_tried_for_each_message(box: Box) -> None:
    server = Server(box, authenticator=Accounts(), plaintext_auth="always", failed_login_delay=0)
    async with (
        running(server) as port,
        Pool(to(port, login=("ann", "guess"), login_in_clear=True), hold_off=60) as pool,
    ):
        with pytest.raises(LoginError):
            await pool.send(ENVELOPE, MESSAGE)
        with pytest.raises(HeldOffError) as caught:
            await pool.send(ENVELOPE, MESSAGE)
        assert isinstance(caught.value.error, LoginError)
    assert next(server.ids) == 2


@pytest.mark.anyio
async def test_a_refusal_for_ever_is_no_verdict_on_what_was_not_tried(box: Box) -> None:
    """554 to the greeting is a verdict on who asked then (RFC 5321 §3.1), and on nobody else."""
    source = [(Envelope("ann@example.org", ["bob@example.net"]), MESSAGE)] * 2
    async with (
        running(Server(Faulty(box, [Fault("CONNECT", HARD)]))) as port,
        Pool(to(port), hold_off=60) as pool,
        pool.send_many(source, concurrency=1) as outcomes,
    ):
        fates = [sent.result.outcomes[0].fate async for sent in outcomes]
    assert fates == [Fate.PERMANENT, Fate.TRANSIENT]


@pytest.mark.anyio
async def test_what_is_the_caller_s_own_fault_holds_nothing_off() -> None:
    asked = 0

    def no_client() -> Client:
        nonlocal asked
        asked += 1
        raise LookupError("no such account")

    async with Pool(no_client, hold_off=60) as pool:
        for _ in range(2):
            with pytest.raises(LookupError):
                await pool.send(ENVELOPE, MESSAGE)
    assert asked == 2


@pytest.mark.anyio
async def test_who_has_connections_there_waits_for_them_and_is_not_held_off() -> None:
    go = anyio.Event()
    busy = Busy(go)
    server = Server(busy, connections=Connections(most_per_network=1))
    async with (
        running(server) as port,
        Pool(to(port), hold_off=60) as pool,
        anyio.create_task_group() as tasks,
    ):
        for _ in range(4):
            tasks.start_soon(pool.send, ENVELOPE, MESSAGE)
        await until(lambda: busy.now == 1 and next(server.ids) > 2)
        go.set()
    assert len(busy.received) == 4


@pytest.mark.anyio
async def test_a_pool_that_is_over_says_that_first() -> None:
    async with Pool(to(free_port()), hold_off=60) as pool:
        with pytest.raises(ConnectError):
            await pool.send(ENVELOPE, MESSAGE)
    with pytest.raises(ClientError, match="this pool was closed"):
        await pool.send(ENVELOPE, MESSAGE)


@pytest.mark.anyio
async def test_an_attempt_that_was_given_up_holds_nothing_off(box: Box) -> None:
    """Nobody was there to be told of it, but the pool's own end."""
    asked = anyio.Event()

    async def connector(host: str, port: int) -> Any:
        asked.set()
        await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks, Pool(to(25, connector=connector)) as pool:
        tasks.start_soon(pool.deliver, ENVELOPE, MESSAGE)
        await asked.wait()
        tasks.cancel_scope.cancel()
    assert not pool._held


@pytest.mark.anyio
@pytest.mark.parametrize("at_first", [True, False], ids=["the first too", "those behind it"])
async def test_who_has_patience_waits_until_it_is_tried_again(at_first: bool, box: Box) -> None:
    """Content that can be read only once is still there then."""
    times = 3 if at_first else 2
    faulty = Faulty(box, [Fault("CONNECT", CLOSING, times=times)])
    server = Server(faulty)

    async def pieces() -> AsyncIterator[bytes]:
        yield MESSAGE

    async with (
        running(server) as port,
        Pool(to(port), hold_off=0.01, hold_off_longest=0.02, patience=60) as pool,
    ):
        if not at_first:
            pool._held.failed((), DOWN, 0)
        source = [(ENVELOPE, pieces()) for _ in range(50)]
        async with pool.send_many(source, concurrency=5) as outcomes:
            assert [bool(sent) async for sent in outcomes] == [True] * 50
    assert [received.content for received in box.received] == [MESSAGE] * 50
    assert faulty.happened == times


@pytest.mark.anyio
async def test_patience_ends_before_it_is_tried_in_vain() -> None:
    connector = Counting()
    pool = Pool(
        to(free_port(), connector=connector),
        hold_off=0.01,
        hold_off_longest=60,
        patience=0.05,
        jitter=lambda: 0,
    )
    async with pool:
        with pytest.raises(ConnectError) as caught:
            await pool.send(ENVELOPE, MESSAGE)
        assert not isinstance(caught.value, HeldOffError)
    assert connector.attempts == 3  # behind 0.01 and 0.02, and 0.04 would be too long


@pytest.mark.anyio
@pytest.mark.parametrize(("patience", "enough"), [(3, True), (2.9, False)])
async def test_a_hold_off_that_is_over_when_it_is_heard_of_was_waited_for(
    patience: float, enough: bool, box: Box
) -> None:
    """A loop that is busy may have no turn for who waits before it ends; here it never has."""
    faulty = Faulty(box, [Fault("CONNECT", CLOSING, times=2)])
    time = Time()

    class Late(HoldOffs):
        def failed(self, key: object, error: ClientError, took: float) -> None:
            super().failed(key, error, took)
            time.now += 100

    async with running(Server(faulty)) as port, Pool(to(port), patience=patience) as pool:
        pool._held = Late(1, 1000, lambda: 0, lambda: time.now)
        with nullcontext() if enough else pytest.raises(RefusedError):
            await pool.send(ENVELOPE, MESSAGE)
    assert len(box.received) == enough
    assert faulty.happened == 2


@pytest.mark.anyio
async def test_who_waits_when_the_pool_is_left_hears_that() -> None:
    errors: list[str] = []

    async def one(pool: Pool[()]) -> None:
        with pytest.raises(ClientError) as caught:
            await pool.send(ENVELOPE, MESSAGE)
        errors.append(str(caught.value))

    with anyio.fail_after(20):
        async with (
            anyio.create_task_group() as tasks,
            Pool(to(free_port()), hold_off=60, patience=100) as pool,
        ):
            tasks.start_soon(one, pool)
            await until(lambda: bool(pool._held))
            await anyio.wait_all_tasks_blocked()
    assert errors == ["this pool was closed"]
