"""After `kill -9` at any moment every accepted message is still delivered, or reported."""

import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import anyio
import pytest
from anyio import to_thread

from smtpproto.client import Client, Tls
from smtpproto.core.command import Mail, Rcpt
from smtpproto.core.envelope import Envelope
from smtpproto.core.reply import Reply
from smtpproto.handler import ContentStream, Session
from smtpproto.result import ClientError
from smtpproto.server import Server
from tests.peers.programs import free_port
from tests.relay.process import Served

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.rfc("5321 §4.2.5 2yz-takes-responsibility"),
    pytest.mark.rfc("5321 §6.1 250-takes-responsibility", "5321 §6.1 nothing-is-lost-by-a-crash"),
]

# The long run, as CONTRIBUTING.md says: more of both.
KILLS = int(os.environ.get("SMTPPROTO_KILLS") or 5)
MESSAGES = 40 * KILLS
SESSIONS = 8


def dice() -> random.Random:
    """Chance, which can be had again: what a failed test prints goes into SMTPPROTO_SEED."""
    seed = int(os.environ.get("SMTPPROTO_SEED") or random.randrange(1 << 32))
    print(f"SMTPPROTO_SEED={seed}")
    return random.Random(seed)


class Load:
    """Messages on their way in, over several sessions, each sent until it is accepted."""

    def __init__(
        self, chance: random.Random, envelope: Callable[[int], Envelope], port: int
    ) -> None:
        self.chance = chance
        self.envelope = envelope
        self.port = port
        self.accepted: dict[int, bytes] = {}  # number -> content
        self._waiting = list(range(MESSAGES))
        self._news = anyio.Event()

    def content(self, number: int) -> bytes:
        """Now and then one that the spool keeps in a file of its own."""
        lines = self.chance.choice([1, 5, 20, 2000])
        body = b"".join(b"%064x\r\n" % self.chance.getrandbits(256) for _ in range(lines))
        return b"X-Number: %d\r\n\r\n%bend of %d\r\n" % (number, body, number)

    async def run(self) -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(SESSIONS):
                tasks.start_soon(self._session)

    async def _session(self) -> None:
        while self._waiting:
            try:
                async with Client("127.0.0.1", self.port, tls=Tls.NONE) as client:
                    while self._waiting and client.usable:
                        number = self._waiting.pop()
                        try:
                            await self._send(client, number)
                        finally:
                            if number not in self.accepted:
                                self._waiting.insert(0, number)
            except ClientError:
                await anyio.sleep(0.01)  # it is dead; a restart takes longer than that

    async def _send(self, client: Client, number: int) -> None:
        content = self.content(number)
        result = await client.deliver(self.envelope(number), content)
        if result.all_accepted:
            self.accepted[number] = content
            self._news.set()
            self._news = anyio.Event()

    async def until_accepted(self, count: int) -> None:
        while len(self.accepted) < count:
            await self._news.wait()


@asynccontextmanager
async def survivor(
    chance: random.Random, data: Path, envelope: Callable[[int], Envelope], *options: object
) -> AsyncIterator[tuple[Load, Served]]:
    """A server under load, killed again and again; what was accepted, and its last start."""
    listen = f"127.0.0.1:{free_port()}"
    start = partial(Served, data, "--listen", listen, "--submission", "127.0.0.1:0", *options)
    served = await to_thread.run_sync(start)
    load = Load(chance, envelope, served.smtp)
    kills = sorted(chance.sample(range(1, MESSAGES - 20), KILLS))
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(load.run)
            for count in kills:
                await load.until_accepted(count)
                await anyio.sleep(chance.uniform(0, 0.02))  # not always just after a reply
                await to_thread.run_sync(served.kill)
                served = await to_thread.run_sync(start)
        assert len(load.accepted) == MESSAGES
        yield load, served
        assert await to_thread.run_sync(served.stop) == 0
    finally:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(served.kill)


def arrived(mailbox: Path) -> list[bytes]:
    return [file.read_bytes() for file in mailbox.glob("new/*")]


def number_of(content: bytes) -> int:
    return int(content.partition(b"X-Number: ")[2].partition(b"\n")[0])


def count_whole(mails: list[bytes], load: Load) -> Counter[int]:
    """How often each message arrived; each time whole, or it is none of ours."""
    found: Counter[int] = Counter()
    for mail in mails:
        # One that was not acknowledged may have come all the same, and was sent again, made anew.
        number = number_of(mail)
        assert mail.endswith(b"end of %d\n" % number), mail[-200:]
        if mail.endswith(load.accepted[number].replace(b"\r\n", b"\n")):
            found[number] += 1
    return found


@pytest.mark.rfc("5321 §2.1 success-at-the-end-takes-responsibility")
@pytest.mark.rfc("5321 §4.1.1.4 250-takes-responsibility")
async def test_what_was_accepted_is_in_the_mailbox(tmp_path: Path, anyio_backend: str) -> None:
    data = tmp_path / "data"
    mailbox = data / "mail" / "our.dom" / "v"
    options = ("--local-domain", "our.dom", "--backend", anyio_backend)

    def envelope(number: int) -> Envelope:
        return Envelope(f"s-{number}@ext.example", ["v@our.dom"])

    async with survivor(dice(), data, envelope, *options) as (load, served):

        def all_there() -> bool:
            return len(count_whole(arrived(mailbox), load)) == MESSAGES

        await to_thread.run_sync(served.until, all_there, "to deliver what it has accepted")
    mails = arrived(mailbox)
    found = count_whole(mails, load)
    assert found == dict.fromkeys(range(MESSAGES), 1)  # a delivery that was made is known again
    print(f"{MESSAGES} messages, {KILLS} kills: {len(mails) - found.total()} unsaid")


class NextHop:
    """Takes what comes, but for recipients called bad."""

    def __init__(self) -> None:
        self.mails: list[bytes] = []

    async def mail(self, session: Session, command: Mail) -> Reply | None:
        return None

    async def rcpt(self, session: Session, command: Rcpt) -> Reply | None:
        bad = command.forward_path.mailbox.local_part.startswith(b"bad-")
        return Reply(550, "5.1.1", "No such mailbox") if bad else None

    async def content(
        self, session: Session, envelope: Envelope, content: ContentStream
    ) -> Reply | None:
        octets = b"".join([chunk async for chunk in content])
        self.mails.append(octets.replace(b"\r\n", b"\n"))
        return None


@pytest.mark.rfc("5321 §2.1 success-at-the-end-takes-responsibility")
async def test_what_was_accepted_is_at_the_next_hop_or_reported(
    tmp_path: Path, anyio_backend: str
) -> None:
    data = tmp_path / "data"
    next_hop = NextHop()

    def envelope(number: int) -> Envelope:
        recipients = [f"good-{number}@ext.example"]
        if number % 5 == 0:
            recipients.append(f"bad-{number}@ext.example")
        return Envelope(f"s-{number}@our.dom", recipients)

    async with anyio.create_task_group() as tasks:
        _, port = await tasks.start(Server(next_hop, "next.example").serve)
        options = (
            *("--local-domain", "our.dom", "--backend", anyio_backend),
            *("--smart-host", f"127.0.0.1:{port}", "--relay-from", "127.0.0.1/32"),
        )
        async with survivor(dice(), data, envelope, *options) as (load, served):

            def reports(number: int) -> list[bytes]:
                mails = arrived(data / "mail" / "our.dom" / f"s-{number}")
                name = b"Final-Recipient: rfc822; bad-%d@ext.example" % number
                return [mail for mail in mails if name in mail]

            failing = range(0, MESSAGES, 5)

            def all_known() -> bool:
                there = len(count_whole(next_hop.mails, load)) == MESSAGES
                return there and all(map(reports, failing))

            await to_thread.run_sync(served.until, all_known, "to send or report all of it")
        tasks.cancel_scope.cancel()
    found = count_whole(next_hop.mails, load)
    assert set(found) == set(range(MESSAGES))
    told = Counter({number: len(reports(number)) for number in failing})
    assert min(told.values()) >= 1
    print(
        f"{MESSAGES} messages, {KILLS} kills: {found.total() - MESSAGES} sent twice, "
        f"{len(next_hop.mails) - found.total()} unsaid, "
        f"{told.total() - len(failing)} reported twice"
    )
