"""Each kind of wire does what a session needs of it, on the event loop that it is for."""

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.abc import SocketAttribute
from anyio.streams.tls import TLSAttribute

from smtpproto.wire import (
    BareWire,
    ForeignWire,
    LoopWire,
    TlsWire,
    Wire,
    as_wire,
    connect_tcp,
    connect_unix,
    listen_tcp,
    listen_unix,
)

from .wire import HOST, LOST
from .world import Certificates

pytestmark = pytest.mark.anyio

#: More than any two sockets hold between them.
MUCH = b"x" * (16 << 20)


@pytest.fixture(params=["own", "foreign", "tls"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Ends:
    """Both ends of one connection: a wire of the kind, and the other one, a plain wire (or TLS)."""

    def __init__(self, wire: Wire, other: Wire) -> None:
        self.wire, self.other = wire, other


@asynccontextmanager
async def joined(kind: str, tls: Certificates) -> AsyncIterator[Ends]:
    accepted: list[Wire] = []
    came = anyio.Event()

    async def keep(wire: Wire) -> None:
        accepted.append(wire)
        came.set()

    async with await listen_tcp(HOST, 0) as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, keep, tasks)
        port = listener.address[1]
        wire: Wire
        if kind == "foreign":
            wire = as_wire(await anyio.connect_tcp(HOST, port))
            assert isinstance(wire, ForeignWire)
        else:
            wire = await connect_tcp(HOST, port)
            assert as_wire(wire) is wire
        await came.wait()
        other = accepted[0]
        if kind == "tls":
            shaken: list[Wire] = []

            async def server() -> None:
                shaken.append(await TlsWire.wrap(other, tls.server, server_side=True))

            async with anyio.create_task_group() as hands:
                hands.start_soon(server)
                wire = await TlsWire.wrap(
                    wire, tls.trusting, server_side=False, hostname="localhost"
                )
            other = shaken[0]
        with anyio.fail_after(60):
            yield Ends(wire, other)
        await anyio.aclose_forcefully(wire)
        await anyio.aclose_forcefully(other)
        tasks.cancel_scope.cancel()


async def everything(wire: Wire) -> bytes:
    """All that comes up to the end."""
    octets = bytearray()
    try:
        while True:
            octets += await wire.receive()
    except anyio.EndOfStream:
        return bytes(octets)


async def test_the_kind_for_the_event_loop(anyio_backend: str, tls: Certificates) -> None:
    async with joined("own", tls) as ends:
        expected = LoopWire if anyio_backend == "asyncio" else BareWire
        assert type(ends.wire) is type(ends.other) is expected


async def test_both_directions_and_both_ends(kind: str, tls: Certificates) -> None:
    async with joined(kind, tls) as ends:
        await ends.wire.send(b"there")
        assert await ends.other.receive() == b"there"
        await ends.other.send(b"and back")
        assert await ends.wire.receive(3) == b"and"
        assert await ends.wire.receive() == b" back"
        await ends.wire.send_eof()
        assert await everything(ends.other) == b""
        # A half-closed connection still has its other half, in TLS 1.3 too (RFC 8446 §6.1).
        await ends.other.send(b"goodbye")
        await ends.other.send_eof()
        assert await everything(ends.wire) == b"goodbye"
        with pytest.raises(anyio.EndOfStream):
            await ends.wire.receive()


async def test_write_begins_and_drain_ends(kind: str, tls: Certificates) -> None:
    """What a peer does not read waits, and is not lost, however often the wait is given up."""
    async with joined(kind, tls) as ends:
        if kind != "foreign":
            assert ends.wire.write(b"little")
        assert not ends.wire.write(MUCH)
        if kind != "foreign":  # whose stream says no more, once cut off
            for _ in range(3):
                with anyio.move_on_after(0.01) as scope:
                    await ends.wire.drain()
                assert scope.cancelled_caught

        async def rest() -> None:
            await ends.wire.drain()
            await ends.wire.send_eof()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(rest)
            octets = await everything(ends.other)
        assert octets == (b"" if kind == "foreign" else b"little") + MUCH


async def test_a_foreign_write_that_was_cut_off_is_the_last(tls: Certificates) -> None:
    async with joined("foreign", tls) as ends:
        with anyio.move_on_after(0.01):
            await ends.wire.send(MUCH)
        with pytest.raises(anyio.BrokenResourceError):
            await ends.wire.send(b"more")


async def test_a_peer_that_talks_on_fills_no_memory(tls: Certificates) -> None:
    """What nobody reads stays with the sender, also where somebody did read."""
    async with joined("own", tls) as ends:
        sent = 0

        async def talk() -> None:
            nonlocal sent
            for at in range(0, len(MUCH), 65_536):
                await ends.other.send(MUCH[at : at + 65_536])
                sent = at + 65_536

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(talk)
            received = len(await ends.wire.receive())
            with anyio.move_on_after(0.1):
                await anyio.sleep_forever()
            assert sent < len(MUCH)
            while received < len(MUCH):
                received += len(await ends.wire.receive())


async def test_reset_is_not_an_end(tls: Certificates) -> None:
    async with joined("own", tls) as ends:
        raw = ends.other.extra(SocketAttribute.raw_socket)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await ends.other.aclose()
        with pytest.raises(anyio.BrokenResourceError):
            await ends.wire.receive()
        with pytest.raises(anyio.BrokenResourceError):
            await ends.wire.send(b"anybody?")


async def test_writing_to_who_has_gone_breaks_without_a_word(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Also where the loop has no turn in between, in which it could tell."""

    def write_on(wire: Wire) -> None:
        for _ in range(100):
            wire.write(b"250 OK\r\n")

    with socket.create_server((HOST, 0)) as listening:
        wire = await connect_tcp(HOST, listening.getsockname()[1])
        other, _ = listening.accept()
        other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        other.close()
        with pytest.raises(anyio.BrokenResourceError):
            write_on(wire)
        await wire.aclose()
    assert caplog.text == ""


async def test_closed_by_us(kind: str, tls: Certificates) -> None:
    async with joined(kind, tls) as ends:
        await ends.wire.aclose()
        await ends.wire.aclose()
        for use in (ends.wire.receive(), ends.wire.send(b"x")):
            with pytest.raises((anyio.ClosedResourceError, anyio.BrokenResourceError)):
                await use
        with pytest.raises(LOST):
            await ends.other.receive()


async def test_closed_while_a_task_waits(tls: Certificates) -> None:
    async with joined("own", tls) as ends:

        async def wait() -> None:
            with pytest.raises(anyio.ClosedResourceError):
                await ends.wire.receive()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            await ends.wire.aclose()


async def test_one_reader_at_a_time(tls: Certificates) -> None:
    async with joined("own", tls) as ends, anyio.create_task_group() as tasks:
        tasks.start_soon(ends.wire.receive)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(anyio.BusyResourceError):
            await ends.wire.receive()
        tasks.cancel_scope.cancel()


async def test_a_wait_that_is_cancelled_loses_nothing(tls: Certificates) -> None:
    async with joined("own", tls) as ends:
        for _ in range(3):
            with anyio.move_on_after(0.005) as scope:
                await ends.wire.receive()
            assert scope.cancelled_caught
        await ends.other.send(b"all of it")
        assert await ends.wire.receive() == b"all of it"


async def test_a_wait_that_is_given_up_loses_nothing(kind: str, tls: Certificates) -> None:
    async with joined(kind, tls) as ends:
        for _ in range(3):
            assert await ends.wire.receive_by(anyio.current_time() + 0.005) is None
        await ends.other.send(b"all of it")
        assert await ends.wire.receive_by(anyio.current_time() + 20) == b"all of it"

        async def later() -> None:
            await anyio.sleep(0.05)
            await ends.other.send(b"more")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(later)
            # A time that is over does not count for another wait.
            assert await ends.wire.receive_by(anyio.current_time() + 0.01) is None
            assert await ends.wire.receive() == b"more"


async def test_a_wait_that_is_given_up_is_no_end(kind: str, tls: Certificates) -> None:
    async with joined(kind, tls) as ends:
        await ends.other.send_eof()
        with pytest.raises(anyio.EndOfStream):
            await ends.wire.receive_by(anyio.current_time() + 20)
        await ends.wire.aclose()
        with pytest.raises(LOST):
            await ends.wire.receive_by(anyio.current_time() + 20)


@pytest.mark.parametrize("host", [HOST, "0.0.0.0"])
async def test_addresses_of_both_ends(host: str, tls: Certificates) -> None:
    """Those of a connection that was taken are known, whichever address is listened at."""
    accepted: list[Wire] = []
    came = anyio.Event()

    async def keep(wire: Wire) -> None:
        accepted.append(wire)
        came.set()

    async with await listen_tcp(host, 0) as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, keep, tasks)
        there = HOST if host == HOST else "127.0.0.3"
        wire = await connect_tcp(there, listener.address[1])
        await came.wait()
        (other,) = accepted
        assert (wire.peer, wire.local) == (other.local, other.peer)
        assert other.peer == other.extra(SocketAttribute.remote_address)
        assert other.local == other.extra(SocketAttribute.local_address)
        await wire.aclose()
        assert (wire.peer, wire.local) == (("", 0), ("", 0))
        await other.aclose()
        tasks.cancel_scope.cancel()


async def test_much_and_little_in_turns(kind: str, tls: Certificates) -> None:
    """However much room there is for what comes, all of it comes, in its order."""
    async with joined(kind, tls) as ends:
        sent = b"".join(b"%07d\n" % number for number in range(100_000))

        async def send() -> None:
            for at in range(0, len(sent), 130_000):
                await ends.other.send(sent[at : at + 130_000])
                await ends.other.send(sent[:8])
            await ends.other.send_eof()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            came = await everything(ends.wire)
        pieces = [sent[at : at + 130_000] + sent[:8] for at in range(0, len(sent), 130_000)]
        assert came == b"".join(pieces)


async def test_what_can_be_asked_of_it(kind: str, tls: Certificates) -> None:
    async with joined(kind, tls) as ends:
        ours = ends.wire.extra(SocketAttribute.local_address)
        assert ours == ends.other.extra(SocketAttribute.remote_address)
        assert ends.wire.extra(SocketAttribute.family) == socket.AF_INET
        if kind == "tls":
            assert ends.wire.extra(TLSAttribute.tls_version) == "TLSv1.3"
            assert ends.wire.extra(TLSAttribute.peer_certificate_binary)
            assert ends.other.extra(TLSAttribute.server_side)
            assert isinstance(ends.wire.extra(TLSAttribute.ssl_object), ssl.SSLObject)


async def test_tls_cut_within_a_record_is_an_end(tls: Certificates) -> None:
    """SMTP marks its own ends, and what was whole before the cut has arrived."""
    async with joined("tls", tls) as ends:
        assert isinstance(ends.wire, TlsWire)
        assert isinstance(ends.other, TlsWire)
        await ends.other.send(b"whole")
        ends.other.tls.write(b"never whole")
        record = ends.other._out.read()
        await ends.other.below.send(record[:-1])
        await ends.other.below.send_eof()
        assert await ends.wire.receive() == b"whole"
        with pytest.raises(anyio.EndOfStream):
            await ends.wire.receive()


async def test_octets_that_are_no_tls_break_it(tls: Certificates) -> None:
    async with joined("tls", tls) as ends:
        assert isinstance(ends.other, TlsWire)
        await ends.other.below.send(b"EHLO in.clear\r\n")
        with pytest.raises(anyio.BrokenResourceError):
            await ends.wire.receive()


async def test_a_handshake_with_nobody_fails(tls: Certificates) -> None:
    async with joined("own", tls) as ends:
        await ends.other.send(b"220 mx.example.org ESMTP\r\n")
        with pytest.raises(ssl.SSLError):
            await TlsWire.wrap(ends.wire, tls.trusting, server_side=False, hostname="localhost")


# Connecting


async def test_all_addresses_are_tried(monkeypatch: pytest.MonkeyPatch, tls: Certificates) -> None:
    """RFC 8305: one that refuses costs nothing, and one that is silent a quarter of a second."""
    async with await listen_tcp(HOST, 0) as listener:
        port = listener.address[1]
        refusing = socket.socket()
        refusing.bind((HOST, 0))
        silent = socket.create_server((HOST, 0), backlog=0)
        fillers = [socket.socket() for _ in range(4)]
        for each in fillers:  # a full backlog answers no SYN
            each.setblocking(False)
            each.connect_ex(silent.getsockname())

        async def found(*args: object, **options: object) -> list[object]:
            addresses = [refusing.getsockname(), silent.getsockname(), (HOST, port)]
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", each) for each in addresses]

        monkeypatch.setattr(anyio, "getaddrinfo", found)
        try:
            with anyio.fail_after(60):
                wire = await connect_tcp("many.example", port)
            assert wire.extra(SocketAttribute.remote_address) == (HOST, port)
            await wire.aclose()
        finally:
            for each in (refusing, silent, *fillers):
                each.close()


async def test_where_nobody_listens(tls: Certificates) -> None:
    with socket.socket() as bound:
        bound.bind((HOST, 0))
        with pytest.raises(ConnectionRefusedError):
            await connect_tcp(HOST, bound.getsockname()[1])


async def test_the_address_to_connect_from(tls: Certificates) -> None:
    async with await listen_tcp(HOST, 0) as listener:
        wire = await connect_tcp(HOST, listener.address[1], local_host="127.0.0.2")
        assert wire.extra(SocketAttribute.local_address)[0] == "127.0.0.2"
        await wire.aclose()


async def test_unix_sockets(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("u") / "s"
    with pytest.raises(FileNotFoundError):
        await connect_unix(path)

    async def greet(wire: Wire) -> None:
        await wire.send(b"220 here\r\n")
        await wire.aclose()

    async with (
        await listen_unix(path) as listener,
        anyio.create_task_group() as tasks,
    ):
        assert listener.address == (str(path), 0)
        tasks.start_soon(listener.serve, greet, tasks)
        wire = await connect_unix(path)
        assert await everything(wire) == b"220 here\r\n"
        await wire.aclose()
        tasks.cancel_scope.cancel()
