"""What a server bears of connections, commands, errors, slow octets; under pressure, less."""

import socket
from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest
from attrs import define, fields

from smtpproto import Envelope, Limits, LocalProtocolError, Rcpt, Reply
from smtpproto.deadline import Alarm
from smtpproto.server import Connections, ContentStream, Server, ServerDeadlines, Session

from .clock import anyio_backend  # noqa: F401 - a fixture
from .wire import HOST, Wire
from .world import ENVELOPE, MESSAGE, Accounts, Box, Certificates, clear, running, until

pytestmark = pytest.mark.anyio

SHORT = 0.05
AGES = 3600.0
TIMED_OUT = b"421 4.4.2 localhost Timed out\r\n"
MAIL = "MAIL FROM:<ann@example.org>"
RCPT = "RCPT TO:<bob@example.net>"


class Heard(Wire):
    """A wire on which nobody waits for ever: a limit that does not hold is an error soon."""

    async def receive(self) -> bytes:
        with anyio.fail_after(60):
            return await super().receive()


async def connect(port: int) -> Wire:
    return Heard(await anyio.connect_tcp(HOST, port))


async def opened(port: int, *lines: str) -> Wire:
    wire = await connect(port)
    assert (await wire.reply()).startswith("220")
    for line in lines:
        await wire.ask(line)
    return wire


async def in_content(port: int) -> Wire:
    wire = await opened(port, "EHLO client.example", MAIL, RCPT)
    assert (await wire.ask("DATA")).startswith("354")
    return wire


# Counting


@define(eq=False)
class Somebody:
    pressed: bool = False

    def press(self, pressed: bool) -> None:
        self.pressed = pressed


@pytest.mark.parametrize(
    ("one", "other", "prefixes", "together"),
    [
        ("192.0.2.1", "192.0.2.1", {}, True),
        ("192.0.2.1", "192.0.2.2", {}, False),
        ("192.0.2.1", "192.0.2.254", {"ipv4_prefix": 24}, True),
        ("192.0.2.1", "192.0.3.1", {"ipv4_prefix": 24}, False),
        ("192.0.2.1", "::ffff:192.0.2.1", {}, True),
        ("192.0.2.1", "::ffff:192.0.2.9", {"ipv4_prefix": 24}, True),
        ("2001:db8::1", "2001:db8::ffff:0:0:1", {}, True),
        ("2001:db8::1", "2001:db8:0:1::1", {}, False),
        ("2001:db8::1", "2001:db8:0:1::1", {"ipv6_prefix": 48}, True),
        ("2001:db8::1", "2001:db8::2", {"ipv6_prefix": 128}, False),
        ("fe80::1%eth0", "fe80::1%eth1", {}, True),
        ("0.0.0.1", "::1", {"ipv4_prefix": 0, "ipv6_prefix": 0}, False),
    ],
)
def test_who_is_in_one_network(
    one: str, other: str, prefixes: dict[str, int], together: bool
) -> None:
    connections = Connections(1000, 1, **prefixes)
    assert connections.enter(Somebody(), one)
    assert connections.of(one) == 1
    assert connections.of(other) == together
    assert connections.enter(Somebody(), other) is not together


@pytest.mark.parametrize("prefix", [{"ipv4_prefix": 33}, {"ipv6_prefix": -1}])
def test_a_prefix_that_no_address_has(prefix: dict[str, int]) -> None:
    with pytest.raises(LocalProtocolError, match="at most 32 bits"):
        Connections(**prefix)


def test_who_is_turned_away_or_left_is_not_counted() -> None:
    connections = Connections(2, 1)
    first, second, third = Somebody(), Somebody(), Somebody()
    assert connections.enter(first, "192.0.2.1")
    assert not connections.enter(second, "192.0.2.1")
    assert len(connections) == 1
    assert connections.enter(second, "192.0.2.2")
    assert not connections.enter(third, "192.0.2.3")
    connections.leave(third)
    connections.leave(first)
    connections.leave(first)
    assert (len(connections), connections.of("192.0.2.1")) == (1, 0)
    assert connections.enter(third, "192.0.2.1")


def test_who_turns_out_to_be_from_elsewhere_is_counted_there() -> None:
    """As behind a proxy, which tells the client's address later."""
    connections = Connections(1, 1)
    somebody = Somebody()
    assert connections.enter(somebody, "192.0.2.1")
    assert connections.enter(somebody, "2001:db8::1")
    assert (connections.of("192.0.2.1"), connections.of("2001:db8::1")) == (0, 1)
    connections.leave(somebody)
    assert (len(connections), connections.of("2001:db8::1")) == (0, 0)


def test_no_limit_for_a_network() -> None:
    connections = Connections(3, None)
    assert [connections.enter(Somebody(), "192.0.2.1") for _ in range(4)] == [True] * 3 + [False]
    assert connections.of("192.0.2.1") == 3


def test_pressure_comes_and_goes_with_some_play() -> None:
    connections = Connections(100, None)  # pressed above 80, until 70
    everybody = [Somebody() for _ in range(81)]
    for somebody in everybody[:80]:
        assert connections.enter(somebody, "192.0.2.1")
        assert not connections.pressed
    connections.enter(everybody[80], "192.0.2.1")
    assert connections.pressed
    assert all(somebody.pressed for somebody in everybody)
    late = Somebody()
    connections.enter(late, "192.0.2.1")
    assert late.pressed
    connections.leave(late)
    for somebody in everybody[:10]:
        connections.leave(somebody)
    assert connections.pressed
    connections.leave(everybody[10])
    assert not connections.pressed
    assert not any(somebody.pressed for somebody in everybody[11:])


def test_under_pressure_no_deadline_is_longer() -> None:
    usual, tight = ServerDeadlines(command=5, block=None), ServerDeadlines.under_pressure()
    both = usual.at_most(tight)
    assert usual.at_most(ServerDeadlines(proxy=1)).proxy == 1
    assert (both.command, both.block, both.tls) == (5, tight.block, tight.tls)
    assert (both.rate, both.drain, both.cut) == (usual.rate, usual.drain, usual.cut)


def test_a_hurry_goes_by_the_deadlines_of_now() -> None:
    server = Server(Box(), under_pressure=ServerDeadlines(command=30))
    assert server.patience(pressed=True).command == 30
    server.deadlines = ServerDeadlines(command=5)
    assert server.patience(pressed=True).command == 5
    server.under_pressure = ServerDeadlines(command=1)
    assert server.patience(pressed=True).command == 1
    assert server.patience(pressed=False) is server.deadlines


@pytest.mark.rfc("5321 §4.5.4.2 sessions-may-be-limited")
async def test_each_network_has_its_share(box: Box) -> None:
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(running(Server(box, connections=Connections(9, 1))))
        await stack.enter_async_context(await opened(port))
        async with await connect(port) as wire:
            assert await wire.rest() == b"421 localhost Too many connections\r\n"
        async with Wire(await anyio.connect_tcp(HOST, port, local_host="127.0.0.2")) as wire:
            assert (await wire.reply()).startswith("220")


async def test_who_has_gone_counts_until_the_handler_has_let_go_of_it() -> None:
    """Else what a handler keeps for each session could grow with every new connection."""
    let_go = anyio.Event()

    class Slow(Box):
        async def closed(self, session: Session) -> None:
            await let_go.wait()

    server = Server(Slow(), connections=Connections(1))
    async with running(server) as port:
        async with await connect(port) as wire:
            assert (await wire.ask("QUIT")).startswith("220")
            await wire.rest()
        await until(lambda: not server.dialogues)
        assert len(server.connections) == 1
        let_go.set()
        await until(lambda: len(server.connections) == 0)


async def test_servers_that_share_their_connections_are_counted_as_one(box: Box) -> None:
    shared = Connections(1)
    async with (
        running(Server(box, connections=shared)) as one,
        running(Server(box, connections=shared)) as other,
        await opened(one),
        await connect(other) as wire,
    ):
        assert await wire.rest() == b"421 localhost Too many connections\r\n"
        assert len(shared) == 1


# Floods


async def test_a_flood_of_recipients(box: Box) -> None:
    """452 past the limit of a transaction (§4.5.3.1.10), 421 past that of commands."""
    server = Server(box, limits=Limits(recipients=3), max_commands=10)
    async with running(server) as port, await opened(port, "EHLO client.example", MAIL) as wire:
        await wire.say(*[RCPT] * 50)
        heard = [(await wire.reply())[:9] for _ in range(9)]
        assert heard == ["250 2.1.5"] * 3 + ["452 4.5.3"] * 5 + ["421 4.7.0"]
        assert await wire.rest() == b""


async def test_a_flood_of_unknown_commands(box: Box) -> None:
    server = Server(box, limits=Limits(bad_commands=5), error_delay=0)
    async with running(server) as port, await opened(port) as wire:
        await wire.say(*["XYZZY"] * 10_000)
        heard = [(await wire.reply())[:3] for _ in range(6)]
        assert heard == ["500"] * 5 + ["421"]
        assert await wire.rest() == b""


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("NOOP", "250"),
        ("HELP", "214"),
        ("VRFY bob", "252"),
        ("EHLO again.example", "250"),
        ("RSET", "250"),
    ],
)
async def test_a_flood_of_commands_without_mail(line: str, answer: str, box: Box) -> None:
    server = Server(box, max_idle_commands=5)
    async with running(server) as port, await opened(port, "EHLO client.example") as wire:
        await wire.say(*[line] * 10_000)
        heard = [(await wire.reply())[:3] for _ in range(5)]
        assert heard == [answer] * 4 + ["421"]
        assert await wire.rest() == b""


async def test_mail_makes_up_for_idle_commands(box: Box) -> None:
    server = Server(box, max_idle_commands=3)
    async with running(server) as port, await opened(port, "EHLO client.example") as wire:
        for _ in range(5):
            heard = [await wire.ask(line) for line in ("NOOP", MAIL, RCPT, "DATA")]
            assert [reply[0] for reply in heard] == ["2", "2", "2", "3"]
            assert (await wire.ask("text", ".")).startswith("250")
        assert [(await wire.ask("NOOP"))[:3] for _ in range(4)] == ["250"] * 3 + ["421"]
    assert len(box.received) == 5


async def test_a_flood_of_empty_chunks(box: Box) -> None:
    server = Server(box, max_commands=10)
    async with (
        running(server) as port,
        await opened(port, "EHLO client.example", MAIL, RCPT) as wire,
    ):
        await wire.say(*["BDAT 0"] * 10_000)
        heard = [(await wire.reply())[:3] for _ in range(8)]
        assert heard == ["250"] * 7 + ["421"]
        assert await wire.rest() == b""
    assert box.received == []


async def test_large_chunks_are_no_flood(box: Box) -> None:
    server = Server(box, max_commands=5)
    async with (
        running(server) as port,
        await opened(port, "EHLO client.example", MAIL, RCPT) as wire,
    ):
        for _ in range(20):
            await wire.send(b"BDAT 2000\r\n" + b"x" * 1998 + b"\r\n")
            assert (await wire.reply()).startswith("250")
        assert (await wire.ask("BDAT 0 LAST")).startswith("250")
    assert len(box.received[0].content) == 40_000


class Refusing(Box):
    async def rcpt(self, session: Session, command: Rcpt) -> Reply | None:
        return Reply(550, "5.1.1", "No such mailbox")


@pytest.mark.parametrize("line", ["XYZZY", RCPT])
async def test_errors_behind_the_first_are_answered_slowly(line: str) -> None:
    """What was said before leaves; the others are served meanwhile."""
    server = Server(Refusing(), max_quick_errors=2, error_delay=AGES)
    async with running(server) as port, await opened(port, "EHLO client.example", MAIL) as wire:
        await wire.say(line, line, "NOOP", line, "NOOP")
        assert [(await wire.reply())[0] for _ in range(3)] == ["5", "5", "2"]
        with anyio.move_on_after(2 * SHORT) as waited:
            await wire.reply()
        assert waited.cancelled_caught
        async with await opened(port) as other:
            assert (await other.ask("NOOP")).startswith("250")


async def test_a_slow_answer_comes(box: Box) -> None:
    server = Server(box, max_quick_errors=0, error_delay=SHORT)
    async with running(server) as port, await opened(port) as wire:
        await wire.say("XYZZY", "NOOP")
        assert [(await wire.reply())[:3] for _ in range(2)] == ["500", "250"]


async def test_a_slow_answer_ends_with_the_session(box: Box) -> None:
    deadlines = ServerDeadlines(session=4 * SHORT)
    server = Server(box, max_quick_errors=0, error_delay=AGES, deadlines=deadlines)
    async with running(server) as port, await opened(port) as wire:
        await wire.say("XYZZY")
        assert await wire.rest() == TIMED_OUT


async def test_guesses_of_passwords_are_limited(box: Box) -> None:
    server = Server(
        box, authenticator=Accounts(), plaintext_auth="always", failed_login_delay=0.001
    )
    async with running(server) as port, await opened(port, "EHLO client.example") as wire:
        await wire.say(*["AUTH PLAIN AGFubgB3cm9uZw=="] * 100)
        assert [(await wire.reply())[:3] for _ in range(3)] == ["535", "535", "421"]
        assert await wire.rest() == b""


# Slow octets


async def test_content_that_falls_behind_its_rate(box: Box) -> None:
    """However often something comes: it is the whole that counts."""
    server = Server(box, deadlines=ServerDeadlines(rate=1_000_000, grace=4 * SHORT))
    async with (
        running(server) as port,
        await in_content(port) as wire,
        anyio.create_task_group() as tasks,
    ):

        async def dribble() -> None:
            while True:
                await wire.send(b"x")
                await anyio.sleep(SHORT / 5)

        tasks.start_soon(dribble)
        assert await wire.hear() == TIMED_OUT.decode().strip()
        tasks.cancel_scope.cancel()
    assert box.received == []


async def test_content_that_keeps_to_its_rate_may_take_longer_than_the_grace(box: Box) -> None:
    server = Server(box, deadlines=ServerDeadlines(rate=1, grace=2))
    async with running(server) as port, await in_content(port) as wire:
        for _ in range(25):
            await wire.say("ten octets")
            await anyio.sleep(0.1)
        assert (await wire.ask(".")).startswith("250")
    assert len(box.received[0].content) == 25 * 12


async def test_what_a_handler_takes_is_not_the_clients_time() -> None:
    class Slow(Box):
        async def content(
            self, session: Session, envelope: Envelope, content: ContentStream
        ) -> Reply | None:
            for _ in range(2):
                await anext(content)
                await anyio.sleep(0.6)
            return await super().content(session, envelope, content)

    server = Server(Slow(), deadlines=ServerDeadlines(rate=1, grace=0.5))
    async with running(server) as port, clear(port) as client:
        await client.send(ENVELOPE, b"x" * 70 + b"\r\n" * 100_000)


async def test_a_message_that_is_too_large_is_heard_out(box: Box) -> None:
    """Octets that reach no handler are progress, too."""
    deadlines = ServerDeadlines(block=1, rate=1, grace=2)
    server = Server(box, limits=Limits(message=100), deadlines=deadlines)
    async with running(server) as port, await in_content(port) as wire:
        for _ in range(15):
            await wire.say("x" * 70)
            await anyio.sleep(0.1)
        assert (await wire.ask(".")).startswith("552 5.3.4")
        assert (await wire.ask("NOOP")).startswith("250")


async def test_a_message_that_is_too_large_and_slow_is_cut_off(box: Box) -> None:
    deadlines = ServerDeadlines(rate=1_000_000, grace=4 * SHORT)
    server = Server(box, limits=Limits(message=1), deadlines=deadlines)
    async with running(server) as port, await in_content(port) as wire:
        await wire.say("too large")
        assert await wire.rest() == TIMED_OUT


# Pressure


async def test_under_pressure_the_idle_have_to_go(box: Box) -> None:
    """Also those who were idle before: their deadline is a new one."""
    tight = ServerDeadlines(command=2 * SHORT)
    server = Server(box, connections=Connections(4, pressure=0.5), under_pressure=tight)
    async with running(server) as port, await opened(port) as first, await opened(port):
        assert not server.connections.pressed
        async with await opened(port) as third:
            assert await first.rest() == TIMED_OUT
            assert await third.rest() == TIMED_OUT
        await anyio.aclose_forcefully(first.stream)
        await until(lambda: not server.connections.pressed)
        async with await opened(port) as wire:
            await anyio.sleep(4 * SHORT)
            assert (await wire.ask("NOOP")).startswith("250")


async def test_pressure_that_comes_and_goes_gives_nobody_more_time(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    rings: list[float] = []
    put_off = Alarm.set

    def noted(self: Alarm, name: str, at: float) -> None:
        rings.append(at)
        put_off(self, name, at)

    server = Server(box, under_pressure=ServerDeadlines(command=60))
    async with running(server) as port, await opened(port):
        await until(lambda: all(dialogue.idle for dialogue in server.dialogues))
        (dialogue,) = server.dialogues
        monkeypatch.setattr(Alarm, "set", noted)
        for pressed in (True, False, True):
            await anyio.sleep(0.01)
            dialogue.press(pressed)
        assert len(rings) == 1
        assert rings[0] < dialogue.alarm.now() + 61


async def test_under_pressure_errors_are_answered_at_once(box: Box) -> None:
    server = Server(box, connections=Connections(1), max_quick_errors=0, error_delay=AGES)
    async with running(server) as port, await opened(port) as wire:
        assert server.connections.pressed
        assert (await wire.ask("XYZZY")).startswith("500")


async def test_overload_is_told_to_all_and_hurts_nobody(box: Box) -> None:
    """Past the limit 421 at once, whoever is in is served."""
    server = Server(box, connections=Connections(5, None))
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(running(server))
        inside = [await stack.enter_async_context(await opened(port)) for _ in range(4)]
        async with clear(port) as client:
            for _ in range(50):
                async with await connect(port) as wire:
                    assert await wire.rest() == b"421 localhost Too many connections\r\n"
            await client.send(ENVELOPE, MESSAGE)
        for wire in inside:
            assert (await wire.ask("NOOP")).startswith("250")
    assert len(box.received) == 1


# Names


async def test_nobody_is_asked_for_names(
    box: Box, tls: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that resolves what clients say, or who they are, can be made to wait."""

    def asked(*args: Any, **options: Any) -> Any:
        raise AssertionError(f"asked for {args}")

    server = Server(box, tls=tls.server, authenticator=Accounts(), plaintext_auth="loopback")
    async with running(server) as port:
        wire = await connect(port)
        resolvers = "getaddrinfo", "getnameinfo", "getfqdn", "gethostbyname", "gethostbyaddr"
        for module in (socket, __import__("_socket")):
            for name in (*resolvers, "gethostbyname_ex"):
                if hasattr(module, name):
                    monkeypatch.setattr(module, name, asked)
        async with wire:
            await wire.play(
                """
                S: 220 *
                C: HELO mail.example.com
                S: 250 *
                C: MAIL FROM:<ann@example.com>
                S: 250 *
                C: RCPT TO:<bob@[192.0.2.1]>
                S: 250 *
                C: VRFY bob
                S: 252 *
                C: DATA
                S: 354 *
                C: text
                C: .
                S: 250 *
                C: QUIT
                S: 221 *
                """,
                side="C",
            )
    assert len(box.received) == 1


def test_every_deadline_has_a_number() -> None:
    assert all(field.default is not None for field in fields(ServerDeadlines))
