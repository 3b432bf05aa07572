"""TLS 1.3 from a client that sends what no library would: keys renewed for ever, little records."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from smtpproto import Mail, Reply
from smtpproto.server import Server, ServerDeadlines, Session

from .tls13 import APPLICATION_DATA, Records, shake_hands
from .wire import HOST, LOST
from .world import ENVELOPE, MESSAGE, Box, Certificates, certificates, clear, running, until

pytestmark = pytest.mark.anyio


@pytest.fixture
def own_tls(tmp_path: Path) -> Certificates:
    """Contexts of the test's own, for the client's is told to give its keys away."""
    return certificates(tmp_path)


@asynccontextmanager
async def session(port: int, tls: Certificates, folder: Path) -> AsyncIterator[Records]:
    """A session that has been greeted; no test here may hang."""
    with anyio.fail_after(20):
        async with await anyio.connect_tcp(HOST, port) as stream:
            records = await shake_hands(stream, tls.trusting, folder / "keys")
            assert (await records.receive()).startswith(b"220")
            yield records
            await anyio.aclose_forcefully(stream)


async def hear_all(records: Records, replies: int) -> bytes:
    heard = b""
    while heard.count(b"\r\n") < replies:
        heard += await records.receive()
    return heard


def secure(box: Box, tls: Certificates) -> Server:
    # Where a client is not cut off, nothing here but its deadline would end it.
    return Server(box, tls=tls.server, implicit_tls=True, deadlines=ServerDeadlines(command=60))


@pytest.mark.rfc("8446 §4.6.3")
async def test_new_keys_may_be_asked_for_between_any_two_records(
    box: Box, own_tls: Certificates, tmp_path: Path
) -> None:
    async with running(secure(box, own_tls)) as port, session(port, own_tls, tmp_path) as records:
        for _ in range(3):
            await records.send(b"NO")
            await records.stream.send(b"".join(records.keys.key_update() for _ in range(20)))
            await records.send(b"OP\r\n")
            assert (await records.receive()).startswith(b"250")


class Slow(Box):
    """Takes its time for a sender."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.go = anyio.Event(), anyio.Event()

    async def mail(self, session: Session, command: Mail) -> Reply | None:
        self.asked.set()
        await self.go.wait()
        return None


async def test_who_asks_for_new_keys_and_nothing_else_is_cut_off(
    own_tls: Certificates, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each costs us much more than it costs to send. Meanwhile others have their turn.

    All of it is at hand when it is read, so that there is no other wait in which they had it.
    """
    slow = Slow()
    server = secure(slow, own_tls)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await anyio.lowlevel.checkpoint()

    async with running(server) as port:
        async with session(port, own_tls, tmp_path) as records:
            await records.send(b"EHLO c.example\r\n")
            await records.receive()
            await records.send(b"MAIL FROM:<a@b.example>\r\n")
            flood = b"".join(records.keys.key_update() for _ in range(6000))
            await slow.asked.wait()
            await records.stream.send(flood)
            async with anyio.create_task_group() as tasks:
                slow.go.set()
                tasks.start_soon(others)
                with pytest.raises(LOST):
                    await hear_all(records, 1000)
                tasks.cancel_scope.cancel()
            await until(lambda: not server.dialogues)
        async with clear(port, tls="implicit", ssl_context=own_tls.trusting) as client:
            await client.send(ENVELOPE, MESSAGE)
    assert turns > 25  # behind the first 16 KiB there are sips of 1 KiB
    assert len(slow.received) == 1
    assert caplog.text == ""


async def test_a_record_for_each_octet_is_a_session_like_any_other(
    box: Box, own_tls: Certificates, tmp_path: Path
) -> None:
    """What is around the octets is 22 times as much, and 178 kB in all."""
    async with running(secure(box, own_tls)) as port, session(port, own_tls, tmp_path) as records:
        await records.send(b"EHLO c.example\r\n")
        await records.receive()
        for _ in range(15):
            octets = b"NOOP\r\n" * 90
            seal = records.keys.seal
            await records.stream.send(
                b"".join(seal(APPLICATION_DATA, octets[n : n + 1]) for n in range(len(octets)))
            )
            assert (await hear_all(records, 90)).startswith(b"250")
            for line in (b"MAIL FROM:<a@b.example>", b"RCPT TO:<c@d.example>", b"DATA", b"x\r\n."):
                await records.send(line + b"\r\n")
                await records.receive()
    assert len(box.received) == 15


async def test_records_as_large_as_they_may_be_are_data(
    box: Box, own_tls: Certificates, tmp_path: Path
) -> None:
    """Received in pieces that end anywhere within them."""
    async with running(secure(box, own_tls)) as port, session(port, own_tls, tmp_path) as records:
        for line in (b"EHLO c", b"MAIL FROM:<a@b.example>", b"RCPT TO:<c@d.example>", b"DATA"):
            await records.send(line + b"\r\n")
            await records.receive()
        piece = b"x" * 16_382 + b"\r\n"
        for _ in range(40):
            record = records.keys.seal(APPLICATION_DATA, piece)
            await records.stream.send(record[:9_001])
            await records.stream.send(record[9_001:])
        await records.send(b".\r\n")
        assert (await records.receive()).startswith(b"250")
    assert box.received[0].content == piece * 40
