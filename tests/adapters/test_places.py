"""Listening at several places at once: as one server, each with TLS of its own."""

import os
import socket
import ssl
import stat
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import SocketAttribute

from smtpproto import LocalProtocolError
from smtpproto.server import At, Connections, Server
from smtpproto.wire import connect_unix, listen_unix
from tests.peers.programs import free_port

from .wire import HOST, Wire, connect
from .world import ENVELOPE, MESSAGE, Box, Certificates, Scripted, clear, until

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def running_at(server: Server, places: Sequence[At]) -> AsyncIterator[list[tuple[str, int]]]:
    async with anyio.create_task_group() as tasks:
        yield await tasks.start(server.serve_at, places)
        tasks.cancel_scope.cancel()
    assert not server.dialogues
    assert len(server.connections) == 0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "smtp.sock"


async def greeted(wire: Wire) -> bool:
    return (await wire.reply()).startswith("220")


async def tls_connect(port: int, context: ssl.SSLContext) -> Wire:
    wire = await connect(port)
    await wire.start_tls(context, server_side=False)
    return wire


async def test_several_places_with_tls_of_their_own(
    box: Box, tls: Certificates, path: Path
) -> None:
    server = Server(box, tls=tls.server)
    places = [At(HOST), At(HOST, implicit_tls=True), At(path=path)]
    async with running_at(server, places) as bound:
        (_, clear_port), (_, tls_port), local = bound
        assert local == (str(path), 0)
        async with await connect(clear_port) as wire:
            assert await greeted(wire)
            assert "STARTTLS" in await wire.ask("EHLO client.example")
        async with await tls_connect(tls_port, tls.trusting) as wire:
            assert await greeted(wire)
            assert "STARTTLS" not in await wire.ask("EHLO client.example")
        async with Wire(await connect_unix(path)) as wire:
            assert await greeted(wire)
            assert "STARTTLS" in await wire.ask("EHLO client.example")


async def test_a_place_in_clear_on_a_server_with_implicit_tls(box: Box, tls: Certificates) -> None:
    server = Server(box, tls=tls.server, implicit_tls=True)
    async with running_at(server, [At(HOST), At(HOST, implicit_tls=False)]) as bound:
        async with await tls_connect(bound[0][1], tls.trusting) as wire:
            assert await greeted(wire)
        async with await connect(bound[1][1]) as wire:
            assert await greeted(wire)


async def test_all_places_are_counted_together(box: Box) -> None:
    server = Server(box, connections=Connections(1))
    async with running_at(server, [At(HOST), At(HOST)]) as bound:
        async with await connect(bound[0][1]) as wire:
            assert await greeted(wire)
            async with await connect(bound[1][1]) as other:
                assert await other.rest() == b"421 localhost Too many connections\r\n"
        await until(lambda: not server.dialogues)
        async with await connect(bound[1][1]) as wire:
            assert await greeted(wire)


async def test_stop_ends_all_places(box: Box, path: Path) -> None:
    server = Server(box)
    async with anyio.create_task_group() as tasks:
        bound = await tasks.start(server.serve_at, [At(HOST), At(HOST), At(path=path)])
        server.stop()
    for _, port in bound[:2]:
        with pytest.raises(OSError, match="connect"):
            await connect(port)
    assert not there(path)


async def test_a_place_that_cannot_be_bound_ends_all(box: Box) -> None:
    free = free_port()
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="in use") as caught:
            await Server(box).serve_at([At(HOST, free), At(HOST, port)])
        assert caught.value.filename == f"{HOST}:{port}"
        socket.create_server((HOST, free)).close()


async def test_implicit_tls_needs_a_context(box: Box) -> None:
    with pytest.raises(LocalProtocolError, match="needs a TLS context"):
        await Server(box).serve_at([At(HOST, implicit_tls=True)])


def test_places_are_written_as_people_do() -> None:
    assert [str(at) for at in (At(None, 25), At(HOST, 465), At(path="/run/smtp.sock"))] == [
        "*:25",
        f"{HOST}:465",
        "/run/smtp.sock",
    ]


async def test_two_processes_may_share_a_port(box: Box) -> None:
    shared = At(HOST, reuse_port=True)
    async with running_at(Server(box), [shared]) as [(_, port)]:
        again = At(HOST, port, reuse_port=True)
        async with running_at(Server(box), [again]), clear(port) as client:
            await client.send(ENVELOPE, MESSAGE)
        with pytest.raises(OSError, match="in use"):
            await Server(box).serve(HOST, port)


# UNIX sockets


def there(path: Path) -> bool:
    return path.exists()


def permissions(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def remove(path: Path) -> None:
    path.unlink()


def write(path: Path, text: str) -> None:
    path.write_text(text)


async def test_a_unix_socket_has_the_permissions_asked_for(path: Path, box: Box) -> None:
    async with running_at(Server(box), [At(path=path, mode=0o600)]):
        assert permissions(path) == 0o600
    assert not there(path)


async def test_a_unix_socket_that_was_left_behind_is_replaced(path: Path, box: Box) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with running_at(Server(box), [At(path=path)]), Wire(await connect_unix(path)) as wire:
        assert await greeted(wire)


async def test_a_unix_socket_in_use_is_left_alone(path: Path, box: Box) -> None:
    async with running_at(Server(box), [At(path=path)]):
        with pytest.raises(OSError, match="in use") as caught:
            await Server(box).serve_at([At(path=path)])
        assert caught.value.filename == str(path)
        async with Wire(await connect_unix(path)) as wire:
            assert await greeted(wire)


async def test_a_unix_socket_of_somebody_else_by_now_is_not_removed(path: Path) -> None:
    listener = await listen_unix(path)
    remove(path)
    async with await listen_unix(path):
        await listener.aclose()
        assert there(path)


async def test_a_file_is_no_socket(path: Path, box: Box) -> None:
    write(path, "mine")
    with pytest.raises(OSError, match="in use"):
        await Server(box).serve_at([At(path=path)])
    assert there(path)


async def test_an_abstract_socket(box: Box) -> None:
    name = f"\0smtpproto-{os.getpid()}"
    async with running_at(Server(box), [At(path=name)]) as bound:
        assert bound == [(name, 0)]
        async with Wire(await connect_unix(name)) as wire:
            assert await greeted(wire)


class Called(Scripted):
    """A stream whose ends have such a name."""

    def __init__(self, name: bytes, *chunks: bytes) -> None:
        super().__init__(*chunks)
        self.name = name

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return dict.fromkeys(
            (SocketAttribute.remote_address, SocketAttribute.local_address), lambda: self.name
        )


@pytest.mark.parametrize("name", [b"\0", b"\0abc"])
async def test_a_name_that_is_no_path_is_no_address(name: bytes, box: Box) -> None:
    """A client may have bound its own end; the shortest of such names has one octet."""
    lines = b"EHLO a.example\r\n", b"MAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\n"
    stream = Called(name, *lines, b"BDAT 1 LAST\r\nx", b"QUIT\r\n", b"")
    await Server(box).serve_stream(stream)
    assert b"".join(stream.sent).startswith(b"220 ")
    (session,) = [one.session for one in box.received]
    assert (session.peer, session.local) == (("", 0), ("", 0))


async def test_a_stream_that_cannot_be_asked_ends_with_its_session(
    box: Box, caplog: pytest.LogCaptureFixture
) -> None:
    stream = Called(b"")
    del stream.name
    await Server(box).serve_stream(stream)
    assert stream.closed
    assert "ended by an error" in caplog.text
