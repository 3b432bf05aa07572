"""Connections that are kept, shared, replaced and closed; and no message sent twice."""

import io
import itertools
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
from anyio.abc import ByteStream, SocketAttribute

from smtpproto import STANDARD, Envelope, LocalProtocolError, Reply
from smtpproto.client import Client, ClientDeadlines, connect_tcp
from smtpproto.extensions.limits import LIMITS, Maxima, limits
from smtpproto.handlers import CLOSING, HARD, Fault, Faulty
from smtpproto.observe import CommandSent, Event, ReplyReceived
from smtpproto.pool import Pool
from smtpproto.result import (
    ClientError,
    ConnectError,
    DeliveryError,
    Fate,
    LoginError,
    RefusedError,
    Result,
)
from smtpproto.server import Connections, ContentStream, Server, Session
from smtpproto.source import CHUNK, Source
from tests.peers.programs import free_port

from .wire import Wire, raw_server
from .world import ENVELOPE, MESSAGE, Accounts, Box, clear, running, until

pytestmark = pytest.mark.anyio

LARGE = MESSAGE * 4000
UNWILLING = "S: 220 hi\nC: EHLO *\nS: 250 hi\nC: MAIL *\nS: 550 no\n"
IMPATIENT = ClientDeadlines(quit=0.05)


def to(port: int, **options: Any) -> Callable[[], Client]:
    return lambda: clear(port, **options)


def at(port: int) -> Client:
    """For pools in which a port is a destination."""
    return clear(port)


def fates(result: Result) -> list[str]:
    return [outcome.fate.value for outcome in result.outcomes]


def sessions(box: Box) -> list[int]:
    """Which session brought each message."""
    return [received.session.id for received in box.received]


class Busy(Box):
    """Counts the messages that are with it at a time; none goes on before it is let."""

    def __init__(self, go: anyio.Event | None = None) -> None:
        super().__init__()
        self.now = self.most = 0
        self.go = go

    async def content(
        self, session: Session, envelope: Envelope, content: ContentStream
    ) -> Reply | None:
        self.now += 1
        self.most = max(self.most, self.now)
        if self.go is not None:
            await self.go.wait()
        reply = await super().content(session, envelope, content)
        await anyio.lowlevel.checkpoint()
        self.now -= 1
        return reply


class Counting:
    """A connector that counts; and whose connections can be reset."""

    def __init__(self) -> None:
        self.streams: list[ByteStream] = []
        self.attempts = 0

    async def __call__(self, host: str, port: int) -> ByteStream:
        self.attempts += 1
        stream = await connect_tcp(host, port)
        self.streams.append(stream)
        return stream


# Kept


async def test_one_session_is_used_again_and_left_politely(box: Box) -> None:
    said: list[str] = []

    def observe(event: Event) -> None:
        if isinstance(event, CommandSent):
            said.append(event.verb)

    async with running(Server(box)) as port:
        async with Pool(to(port, observe=observe)) as pool:
            for _ in range(3):
                assert await pool.send(ENVELOPE, MESSAGE)
            assert "QUIT" not in said
        assert said.count("EHLO") == said.count("QUIT") == 1
    assert sessions(box) == [1, 1, 1]


async def test_send_raises_unless_all_were_accepted(box: Box) -> None:
    some = Envelope("ann@example.org", ["bob@example.net", "no-one@example.net"])
    async with running(Server(box)) as port, Pool(to(port)) as pool:
        with pytest.raises(DeliveryError) as caught:
            await pool.send(some, MESSAGE)
        assert fates(caught.value.result) == ["accepted", "permanent"]
        assert await pool.deliver(some, MESSAGE) == caught.value.result
    assert sessions(box) == [1, 1]  # a refusal costs no session


async def test_an_envelope_may_be_made_for_the_session_it_gets(box: Box) -> None:
    made: list[str] = []

    def suited(offered: Mapping[str, str]) -> Envelope:
        made.append(offered["SIZE"])
        if len(made) == 2:
            raise RuntimeError("it may not go there")
        return ENVELOPE

    async with running(Server(box)) as port, Pool(to(port), total=1) as pool:
        assert await pool.deliver(suited, MESSAGE)
        with pytest.raises(RuntimeError, match="may not go"):
            await pool.deliver(suited, MESSAGE)
        assert await pool.deliver(suited, MESSAGE)
    assert len(made) == 3
    assert sessions(box) == [1, 1]  # what it raises costs no session
    assert box.received[0].envelope.rcpts == ENVELOPE.rcpts


async def test_it_is_made_again_for_the_session_that_takes_the_place_of_a_dead_one(
    box: Box,
) -> None:
    made = 0

    def suited(_: Mapping[str, str]) -> Envelope:
        nonlocal made
        made += 1
        return ENVELOPE

    connector = Counting()
    async with running(Server(box)) as port, Pool(to(port, connector=connector)) as pool:
        assert await pool.deliver(suited, MESSAGE)
        raw = connector.streams[0].extra(SocketAttribute.raw_socket)
        raw.shutdown(socket.SHUT_RDWR)
        assert await pool.deliver(suited, MESSAGE)
    assert (made, connector.attempts) == (3, 2)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"messages": 2}, [1, 1, 2, 2, 3]),
        ({"life": 0}, [1, 2, 3, 4, 5]),
        ({}, [1, 1, 1, 1, 1]),
    ],
)
async def test_a_session_carries_so_many_messages_and_grows_so_old(
    options: dict[str, Any], expected: list[int], box: Box
) -> None:
    async with running(Server(box)) as port, Pool(to(port), **options) as pool:
        for _ in range(5):
            await pool.send(ENVELOPE, MESSAGE)
        assert not pool._opening  # nothing is kept of what is done
    assert sessions(box) == expected


def offering(maxima: Maxima) -> list[Any]:
    offer = [extension for extension in STANDARD if extension is not LIMITS]
    return [*(extension for extension in offer if not extension.obliges), limits(maxima)]


@pytest.mark.rfc("9422")
async def test_mailmax_ends_a_session_and_not_the_pool(box: Box) -> None:
    server = Server(box, offer=offering(Maxima(mail=2)))
    async with running(server) as port, Pool(to(port)) as pool:
        for _ in range(5):
            await pool.send(ENVELOPE, MESSAGE)
    assert sessions(box) == [1, 1, 2, 2, 3]


@pytest.mark.rfc("9422")
async def test_domains_that_are_too_many_for_a_session_get_another(box: Box) -> None:
    server = Server(box, offer=offering(Maxima(rcpt_domain=2)))
    async with running(server) as port, Pool(to(port)) as pool:
        for names in ("ab", "b", "bc", "c", "abc"):
            rcpts = [f"bob@{name}.example" for name in names]
            result = await pool.deliver(Envelope("ann@example.org", rcpts), MESSAGE)
            assert [outcome.accepted for outcome in result.outcomes] == [True, True, False][
                : len(names)
            ]
    assert sessions(box) == [1, 1, 2, 2, 3]


# Shared


async def test_no_more_sessions_than_allowed_and_no_less_where_they_are_wanted() -> None:
    go = anyio.Event()
    busy = Busy(go)
    server = Server(busy)
    async with (
        running(server) as port,
        Pool(to(port), each=3) as pool,
        anyio.create_task_group() as tasks,
    ):
        for _ in range(20):
            tasks.start_soon(pool.send, ENVELOPE, MESSAGE)
        await until(lambda: busy.now == 3)
        assert len(server.connections) == 3
        go.set()
    assert busy.most == 3
    assert len(busy.received) == 20
    assert set(sessions(busy)) == {1, 2, 3}


async def test_destinations_share_what_there_is_in_all() -> None:
    boxes = [Busy(), Busy()]
    async with running(Server(boxes[0])) as one, running(Server(boxes[1])) as two:
        connector = Counting()
        async with (
            Pool(lambda port: clear(port, connector=connector), total=3, each=2) as pool,
            anyio.create_task_group() as tasks,
        ):
            for number in range(20):
                tasks.start_soon(pool.send, ENVELOPE, MESSAGE, (one, two)[number % 2])
    assert [len(box.received) for box in boxes] == [10, 10]
    assert max(box.most for box in boxes) <= 2
    assert connector.attempts < 10


async def test_a_slow_destination_holds_up_nobody_else(box: Box) -> None:
    go = anyio.Event()
    slow = Busy(go)
    async with (
        running(Server(slow)) as sluggish,
        running(Server(box)) as brisk,
        Pool(at, total=3, each=2) as pool,
        anyio.create_task_group() as tasks,
    ):
        for _ in range(20):
            tasks.start_soon(pool.send, ENVELOPE, MESSAGE, sluggish)
        await until(lambda: slow.now == 2)
        for _ in range(5):
            await pool.send(ENVELOPE, MESSAGE, brisk)
        assert not slow.received
        go.set()
    assert len(slow.received) == 20


async def test_a_busy_destination_gives_up_its_only_place(box: Box) -> None:
    """Though there is always somebody who would use it."""
    first = Busy()
    done = anyio.Event()

    async def again_and_again(pool: Pool[int], port: int) -> None:
        while not done.is_set():
            await pool.send(ENVELOPE, MESSAGE, port)

    async with (
        running(Server(first)) as busy,
        running(Server(box)) as other,
        Pool(at, total=1) as pool,
        anyio.create_task_group() as tasks,
    ):
        for _ in range(3):
            tasks.start_soon(again_and_again, pool, busy)
        await until(lambda: len(first.received) > 3)
        with anyio.fail_after(60):
            await pool.send(ENVELOPE, MESSAGE, other)
        done.set()


async def test_an_unused_session_makes_room_for_another_destination(box: Box) -> None:
    other = Box()
    servers = Server(box), Server(other)
    async with (
        running(servers[0]) as one,
        running(servers[1]) as two,
        Pool(at, total=1) as pool,
    ):
        await pool.send(ENVELOPE, MESSAGE, one)
        assert servers[0].connections
        await pool.send(ENVELOPE, MESSAGE, two)
        await until(lambda: not servers[0].connections)
        await pool.send(ENVELOPE, MESSAGE, two)
    assert sessions(other) == [1, 1]


# Replaced


def reset(stream: ByteStream) -> None:
    """Close it with RST."""
    raw = stream.extra(SocketAttribute.raw_socket)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def contents(tmp_path: Path, octets: bytes) -> dict[str, Any]:
    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(octets), 1000):
            yield octets[at : at + 1000]
            yield b""

    file = tmp_path / "message"
    file.write_bytes(octets)
    return {
        "bytes": octets,
        "str": octets.decode(),
        "path": file,
        "file": io.BytesIO(octets),
        "iterator": pieces(),
        "source": Source(pieces(), len(octets)),
        "source at hand": Source(octets),
        "source when wanted": Source(lambda: octets),
    }


FORMS = [
    *("bytes", "str", "path", "file", "iterator"),
    *("source", "source at hand", "source when wanted"),
]
DEATHS = ["end", "reset", "421", "421 and reset", "421 later", "garbage"]


def taking(death: str, taken: list[bytes], dead: anyio.Event) -> Callable[[Wire], Any]:
    """A server whose first session dies behind its first message; later ones take what comes."""

    connections = itertools.count(1)

    async def behaviour(wire: Wire) -> None:
        first = next(connections) == 1
        await wire.play("S: 220 hi\nC: EHLO *\nS: 250-hi\nS: 250-SIZE\nS: 250 PIPELINING")
        while (await wire.hear()).startswith("MAIL"):
            await wire.hear()
            await wire.hear()
            await wire.say("250 ok", "250 ok", "354 go")
            lines = await wire.hear_content()
            taken.append("".join(f"{line.removeprefix('.')}\r\n" for line in lines).encode())
            await wire.say("250 taken")
            if not first:
                continue
            if death == "421 later":
                dead.set()
                await wire.hear()
            if death.startswith("421"):
                await wire.say("421 4.4.2 idle for too long")
            elif death == "garbage":
                await wire.say("have you gone?")
            if death.endswith("reset"):
                reset(wire.stream)
            break
        else:
            await wire.say("221 bye")
            await wire.rest()
        await anyio.aclose_forcefully(wire.stream)
        dead.set()

    return behaviour


@pytest.mark.parametrize("death", DEATHS)
async def test_a_session_that_died_unused_is_replaced(death: str) -> None:
    taken: list[bytes] = []
    dead = anyio.Event()
    async with (
        raw_server(taking(death, taken, dead)) as port,
        Pool(to(port, deadlines=IMPATIENT)) as pool,
    ):
        await pool.send(ENVELOPE, MESSAGE)
        await dead.wait()
        second = MESSAGE + b"of the second\r\n"
        result = await pool.deliver(ENVELOPE, second)
        assert result.all_accepted, str(result)
        assert taken == [MESSAGE, second]


async def test_a_session_that_dies_between_two_messages_is_replaced_as_well() -> None:
    """Though somebody waited for it, and it was never unused."""
    taken: list[bytes] = []
    async with (
        raw_server(taking("end", taken, anyio.Event())) as port,
        Pool(to(port, deadlines=IMPATIENT), each=1) as pool,
    ):
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(pool.send, ENVELOPE, MESSAGE)
        assert taken == [MESSAGE] * 3


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("octets", [MESSAGE, LARGE], ids=["small", "large"])
async def test_no_content_is_lost_with_it(form: str, octets: bytes, tmp_path: Path) -> None:
    """Nor said twice, though it can be read only once."""
    taken: list[bytes] = []
    dead = anyio.Event()
    assert len(LARGE) > 2 * CHUNK
    async with (
        raw_server(taking("end", taken, dead)) as port,
        Pool(to(port, deadlines=IMPATIENT)) as pool,
    ):
        await pool.send(ENVELOPE, MESSAGE)
        await dead.wait()
        await pool.send(ENVELOPE, contents(tmp_path, octets)[form])
        assert taken == [MESSAGE, octets]


async def test_the_source_of_content_is_left(box: Box) -> None:
    left: list[str] = []

    async def pieces(fault: bytes) -> AsyncIterator[bytes]:
        try:
            yield LARGE
            yield fault
            yield LARGE
        finally:
            left.append("left")

    async with running(Server(box)) as port, Pool(to(port)) as pool:
        with pytest.raises(LocalProtocolError):
            await pool.deliver(ENVELOPE, pieces(b"a bare\nline end"))
        assert left == ["left"]
        await pool.send(ENVELOPE, pieces(b""))
        assert left == ["left", "left"]
        with pytest.raises(TypeError, match="no content can be made of int"):
            await pool.deliver(ENVELOPE, 7)  # type: ignore[arg-type]
        await pool.deliver(Envelope("ann@example.org", ["no-b@example.net"]), pieces(b""))
        assert left == ["left", "left", "left"]


async def test_those_unused_as_long_are_not_tried(box: Box) -> None:
    """Where one session has died, a message does not go through all of them."""
    go = anyio.Event()
    busy = Busy(go)
    faulty = Faulty(busy, [Fault("MAIL", cut="before", when=lambda s, _: s.id in (1, 2, 3))])
    quiet, faulty.faults = faulty.faults, ()
    async with running(Server(faulty)) as port, Pool(to(port), each=4) as pool:
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(pool.send, ENVELOPE, MESSAGE)
            await until(lambda: busy.now == 3)
            go.set()
        faulty.faults = quiet
        await pool.send(ENVELOPE, MESSAGE)
        assert faulty.happened == 1
    assert sessions(busy)[-1] == 4


async def test_a_new_session_that_dies_is_not_replaced(box: Box) -> None:
    """It did not die of being unused, and the next might do the same, and the next."""
    faulty = Faulty(box, [Fault("MAIL", cut="before")])
    async with running(Server(faulty)) as port, Pool(to(port)) as pool:
        result = await pool.deliver(ENVELOPE, MESSAGE)
        assert (fates(result), result.unheard) == (["transient"], True)
        assert faulty.happened == 1
        faulty.faults = (Fault("MAIL", CLOSING),)
        result = await pool.deliver(ENVELOPE, MESSAGE)
        assert (fates(result), result.unheard) == (["transient"], True)
        assert str(result).endswith(
            "421 4.3.2 localhost Service not available, closing the connection"
        )
        assert faulty.happened == 1


@pytest.mark.rfc("1047")
@pytest.mark.parametrize(
    ("fault", "fate", "taken"),
    [
        (Fault("MAIL", cut="after"), Fate.TRANSIENT, 1),
        (Fault("RCPT", cut="before"), Fate.TRANSIENT, 1),
        (Fault("RCPT", CLOSING), Fate.TRANSIENT, 1),
        (Fault("DATA", cut="before"), Fate.TRANSIENT, 1),
        (Fault("DATA", CLOSING), Fate.TRANSIENT, 1),
        (Fault("CONTENT", cut="before"), Fate.UNKNOWN, 1),
        (Fault(".", drop=True, cut="before"), Fate.UNKNOWN, 1),
        (Fault(".", cut="before"), Fate.UNKNOWN, 2),
        (Fault(".", CLOSING), Fate.TRANSIENT, 1),
        (Fault("MAIL", HARD), Fate.PERMANENT, 1),
    ],
    ids=lambda value: (
        f"{value.at} {value.cut or value.reply}" if isinstance(value, Fault) else None
    ),
)
async def test_once_a_reply_has_come_a_message_is_never_tried_again(
    fault: Fault, fate: Fate, taken: int, box: Box
) -> None:
    """The first session serves one message, and goes wrong at the second."""
    faulty = Faulty(box)
    offer = [e for e in STANDARD if not e.obliges and e.keyword != "CHUNKING"]
    async with running(Server(faulty, offer=offer)) as port:
        connector = Counting()
        async with Pool(to(port, connector=connector)) as pool:
            await pool.send(ENVELOPE, MESSAGE)
            faulty.faults = (fault,)
            result = await pool.deliver(ENVELOPE, MESSAGE)
            assert [outcome.fate for outcome in result.outcomes] == [fate]
            assert not result.unheard
            assert faulty.happened == 1
            assert len(box.received) == taken
            assert connector.attempts == 1
            faulty.faults = ()
            assert await pool.send(ENVELOPE, MESSAGE)


# Not to be had


async def test_one_attempt_tells_all_who_wait() -> None:
    connector = Counting()
    errors: list[ConnectError] = []

    async def one(pool: Pool[()]) -> None:
        with pytest.raises(ConnectError) as caught:
            await pool.send(ENVELOPE, MESSAGE)
        errors.append(caught.value)

    async with Pool(to(free_port(), connector=connector), hold_off=0) as pool:
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(one, pool)
        assert connector.attempts == 1
        assert len({str(error) for error in errors}) == 1
        assert len({id(error) for error in errors}) == 20
        await one(pool)
        assert connector.attempts == 2


async def test_a_refusal_is_told_whole_to_all(box: Box) -> None:
    faulty = Faulty(box, [Fault("CONNECT", HARD, delay=0.02)])
    codes: list[int] = []

    async def one(pool: Pool[()]) -> None:
        with pytest.raises(RefusedError) as caught:
            await pool.send(ENVELOPE, MESSAGE)
        assert caught.value.step == "greeting"
        codes.append(caught.value.reply.code)

    async with running(Server(faulty)) as port, Pool(to(port), hold_off=0) as pool:
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(one, pool)
        assert codes == [550] * 5
        assert faulty.happened == 1
        faulty.faults = ()
        await pool.send(ENVELOPE, MESSAGE)


async def test_a_wrong_password_is_tried_once_and_a_right_one_used_once(box: Box) -> None:
    server = Server(box, authenticator=Accounts(), plaintext_auth="always", failed_login_delay=0)
    async with (
        running(server) as port,
        Pool(to(port, login=("ann", "guess"), login_in_clear=True)) as pool,
    ):
        with pytest.raises(LoginError):
            await pool.send(ENVELOPE, MESSAGE)
    assert next(server.ids) == 2


async def test_a_server_that_wants_no_more_sessions_gets_the_messages_by_those_it_took() -> None:
    busy = Busy()
    server = Server(busy, connections=Connections(most_per_network=2))
    async with (
        running(server) as port,
        Pool(to(port)) as pool,
        anyio.create_task_group() as tasks,
    ):
        for _ in range(20):
            tasks.start_soon(pool.send, ENVELOPE, MESSAGE)
    assert len(busy.received) == 20
    assert busy.most <= 2
    assert next(server.ids) < 12


async def test_a_connection_that_is_long_in_opening_holds_up_nobody() -> None:
    """Who could have one that is free takes that."""
    go = anyio.Event()
    busy = Busy(go)
    asked = 0

    async def connector(host: str, port: int) -> ByteStream:
        nonlocal asked
        asked += 1
        if asked > 1:
            await anyio.sleep_forever()
        return await connect_tcp(host, port)

    async with running(Server(busy)) as port:
        async with Pool(to(port, connector=connector)) as pool:
            with anyio.fail_after(60):
                async with anyio.create_task_group() as tasks:
                    for _ in range(4):
                        tasks.start_soon(pool.send, ENVELOPE, MESSAGE)
                    await until(lambda: busy.now == 1 and asked == 4)
                    go.set()
        assert sessions(busy) == [1, 1, 1, 1]


@pytest.mark.parametrize("faults", [(), (Fault("MAIL", cut="before", times=1),)])
async def test_a_connection_that_nobody_waits_for_any_more_is_for_the_next(
    faults: tuple[Fault, ...], box: Box
) -> None:
    """It may die before that, and is replaced like one that was used."""
    go = anyio.Event()
    attempts = 0
    opened: list[Event] = []

    async def connector(host: str, port: int) -> ByteStream:
        nonlocal attempts
        attempts += 1
        await go.wait()
        return await connect_tcp(host, port)

    def observe(event: Event) -> None:
        if isinstance(event, ReplyReceived) and event.verb == "EHLO":
            opened.append(event)

    async with (
        running(Server(Faulty(box, faults))) as port,
        Pool(to(port, connector=connector, observe=observe)) as pool,
    ):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pool.send, ENVELOPE, MESSAGE)
            await until(lambda: attempts == 1)
            tasks.cancel_scope.cancel()
        go.set()
        await until(lambda: bool(opened))
        await pool.send(ENVELOPE, MESSAGE)
        assert attempts == 1 + len(faults)
    assert len(box.received) == 1


async def test_what_the_function_raises_is_for_who_asked() -> None:
    def no_client() -> Client:
        raise LookupError("no such account")

    async with Pool(no_client) as pool:
        for _ in range(2):
            with pytest.raises(LookupError):
                await pool.send(ENVELOPE, MESSAGE)


@pytest.mark.parametrize("option", ["total", "each", "messages"])
def test_a_pool_of_nothing_is_none(option: str) -> None:
    with pytest.raises(ValueError, match="at least one"):
        Pool(to(25), **cast("Any", {option: 0}))


# Opened and closed


async def test_before_and_after_there_is_no_session(box: Box) -> None:
    async with running(Server(box)) as port:
        pool = Pool(to(port))
        with pytest.raises(ClientError, match="not open"):
            await pool.send(ENVELOPE, MESSAGE)
        async with pool:
            await pool.send(ENVELOPE, MESSAGE)
            with pytest.raises(RuntimeError):
                await pool.__aenter__()
        with pytest.raises(ClientError, match="closed"):
            await pool.send(ENVELOPE, MESSAGE)
        with pytest.raises(RuntimeError):
            await pool.__aenter__()


async def test_leaving_waits_for_what_is_under_way_and_for_nothing_else() -> None:
    go = anyio.Event()
    busy = Busy(go)
    came: Counter[str] = Counter()
    server = Server(busy)

    async def one(pool: Pool[()]) -> None:
        try:
            await pool.send(ENVELOPE, MESSAGE)
        except ClientError as error:
            came[str(error)] += 1
        else:
            came["sent"] += 1

    async def let_go() -> None:
        """When the pool has had all the time to go."""
        await until(lambda: came.total() == 3)
        for _ in range(200):
            await anyio.lowlevel.checkpoint()
        go.set()

    async with running(server) as port, anyio.create_task_group() as tasks:
        async with Pool(to(port), each=2) as pool:
            for _ in range(5):
                tasks.start_soon(one, pool)
            await until(lambda: busy.now == 2)
            tasks.start_soon(let_go)
        assert len(busy.received) == 2
        await until(lambda: not server.connections)
    assert came == {"sent": 2, "this pool was closed": 3}


async def test_leaving_waits_for_nothing_that_is_still_opening() -> None:
    errors: list[str] = []
    asked = anyio.Event()

    async def connector(host: str, port: int) -> ByteStream:
        asked.set()
        await anyio.sleep_forever()
        raise AssertionError

    async def one(pool: Pool[()]) -> None:
        with pytest.raises(ClientError) as caught:
            await pool.send(ENVELOPE, MESSAGE)
        errors.append(str(caught.value))

    async def leave(tasks: anyio.abc.TaskGroup) -> None:
        async with Pool(to(25, connector=connector)) as pool:
            tasks.start_soon(one, pool)
            await asked.wait()

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            await leave(tasks)
    assert errors == ["this pool was closed"]


async def test_what_the_block_raises_comes_out_as_it_is(box: Box) -> None:
    async def block(port: int) -> None:
        async with Pool(to(port)) as pool:
            await pool.send(ENVELOPE, MESSAGE)
            raise KeyError("mine")

    async with running(Server(box)) as port:
        with pytest.raises(KeyError, match="mine"):
            await block(port)


async def test_tls_sessions_are_kept_as_well(box: Box, tls: Any) -> None:
    server = Server(box, tls=tls.server)
    connect = partial(Client, "localhost", ssl_context=tls.trusting)
    async with running(server) as port:
        connector = Counting()
        async with Pool(lambda: connect(port, connector=connector)) as pool:
            for _ in range(3):
                await pool.send(ENVELOPE, MESSAGE)
    assert sessions(box) == [1, 1, 1]
    assert connector.attempts == 1
