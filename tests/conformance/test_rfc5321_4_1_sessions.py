"""RFC 5321 §4.1 where it needs a connection: how a session begins, and how it ends."""

import anyio
import pytest
from anyio.abc import ByteStream

from smtpproto import Reply
from smtpproto.client import ClientDeadlines
from smtpproto.result import RefusedError
from smtpproto.server import Server
from tests.adapters.wire import Wire, connect, raw_server
from tests.adapters.world import (
    ENVELOPE,
    MESSAGE,
    Box,
    Scripted,
    clear,
    running,
    session,
    until,
)

pytestmark = pytest.mark.anyio

OPENED = ["EHLO c.example", "MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>"]


async def heard(said_to_ehlo: str, **options: str | None) -> list[str]:
    """All that our client says to a server that grants everything, entered and left again."""
    lines: list[str] = []

    async def behaviour(wire: Wire) -> None:
        await wire.say("220 mx.example")
        while (line := await wire.hear()) != "QUIT":
            lines.append(line)
            await wire.say(said_to_ehlo if len(lines) == 1 else "250 ok")
        lines.append(line)
        await wire.say("221 bye")

    async with raw_server(behaviour) as port, clear(port, **options):
        pass
    return lines


@pytest.mark.rfc(
    "5321 §2.2.1 client-prefers-ehlo", "5321 §3.2 client-says-ehlo-behind-the-greeting"
)
@pytest.mark.rfc(
    "5321 §4.1.1.1 session-begins-with-ehlo", "5321 §4.1.4 client-says-ehlo-before-anything"
)
async def test_a_client_says_ehlo_first_of_all() -> None:
    assert await heard("250 mx.example", helo_name="c.example") == ["EHLO c.example", "QUIT"]


@pytest.mark.rfc("5321 §4.1.1.1 client-names-itself", "5321 §4.1.1.1 client-falls-back-to-helo")
async def test_the_name_that_it_was_given_is_what_a_client_says() -> None:
    lines = await heard("500 what?", helo_name="c.example")
    assert lines == ["EHLO c.example", "HELO c.example", "QUIT"]


@pytest.mark.rfc(
    "5321 §4.1.1.1 literal-where-there-is-no-name", "5321 §4.1.4 literal-where-there-is-no-name"
)
async def test_a_client_without_a_name_says_its_address_literal() -> None:
    assert await heard("250 mx.example") == ["EHLO [127.0.0.1]", "QUIT"]


@pytest.mark.rfc("5321 §4.1.4 name-that-does-not-fit-refuses-nothing")
@pytest.mark.parametrize("name", ["elsewhere.example", "[192.0.2.77]", "localhost"])
async def test_mail_is_taken_from_who_gives_a_name_that_is_not_its_own(name: str) -> None:
    box = Box()
    async with session(Server(box), helo_name=name) as client:
        await client.send(ENVELOPE, MESSAGE)
    assert [received.session.helo_name for received in box.received] == [name]


@pytest.mark.rfc("5321 §4.1.1.10 quit-gets-221-and-the-end")
async def test_the_server_closes_behind_221() -> None:
    async with running(Server(Box())) as port, await connect(port) as wire:
        await wire.reply()
        assert (await wire.ask("EHLO c.example")).startswith("250")
        assert (await wire.ask("QUIT")).startswith("221")
        with anyio.fail_after(60):
            assert await wire.rest() == b""


@pytest.mark.rfc(
    "5321 §4.1.1.10 client-stays-until-it-has-said-quit",
    "5321 §4.1.1.10 client-waits-for-the-answer-to-quit",
    "5321 §4.1.4 client-ends-with-quit",
)
@pytest.mark.parametrize("refused", [[], [b"550 no\r\n"]])
async def test_a_client_says_quit_and_closes_when_it_has_the_answer(refused: list[bytes]) -> None:
    answer = [b"221-by", b"e\r\n221 bye\r\n"]
    stream = Watched(b"220 hi\r\n", b"250 hi\r\n", *refused, *answer)

    async def connector(host: str, port: int) -> ByteStream:
        return stream

    async with clear(25, connector=connector) as client:
        if refused:  # an error before it changes nothing
            await client.deliver(ENVELOPE, MESSAGE)
    assert stream.passed[-4:] == [b"QUIT\r\n", *answer, b"closed"]


class Watched(Scripted):
    """Notes in which order it was read, written and closed."""

    def __init__(self, *chunks: bytes) -> None:
        super().__init__(*chunks)
        self.passed: list[bytes] = []

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        data = await super().receive(max_bytes)
        self.passed.append(data)
        return data

    async def send(self, item: bytes) -> None:
        self.passed.append(item)
        await super().send(item)

    async def aclose(self) -> None:
        self.passed.append(b"closed")
        await super().aclose()


@pytest.mark.rfc("5321 §4.1.4 quit-though-no-session-was-opened")
@pytest.mark.parametrize(
    "opening", ["S: 554 no service\n", "S: 220 hi\nC: EHLO *\nS: 550 no\nC: HELO *\nS: 550 no\n"]
)
async def test_a_client_that_is_refused_says_quit(opening: str) -> None:
    ended: list[bytes] = []

    async def behaviour(wire: Wire) -> None:
        await wire.play(opening + "C: QUIT\nS: 221 bye")
        ended.append(await wire.rest())

    async with raw_server(behaviour) as port:
        with pytest.raises(RefusedError):
            await clear(port, deadlines=ClientDeadlines(quit=5)).__aenter__()
        await until(lambda: bool(ended))
    assert ended == [b""]


@pytest.mark.rfc(
    "5321 §4.1.1.4 end-of-content-is-acted-upon",
    "5321 §4.1.1.4 success-is-told",
    "5321 §4.1.1.4 failure-is-told",
)
@pytest.mark.parametrize(
    ("verdict", "code"), [(None, "250"), (Reply(451), "451"), (Reply(550), "550")]
)
async def test_what_became_of_the_message_is_what_the_client_is_told(
    verdict: Reply | None, code: str
) -> None:
    box = Box()
    if verdict is not None:
        box.replies["content"] = verdict
    async with running(Server(box)) as port, await connect(port) as wire:
        await wire.reply()
        for line in OPENED:
            assert (await wire.ask(line)).startswith("250")
        assert (await wire.ask("DATA")).startswith("354")
        assert box.received == []
        assert (await wire.ask("Subject: x", "", "y", ".")).startswith(code)
    assert [received.content for received in box.received] == [b"Subject: x\r\n\r\ny\r\n"]


@pytest.mark.rfc(
    "5321 §4.1.1.10 lost-connection-cancels-the-transaction",
    "5321 §4.1.1.10 lost-connection-undoes-nothing-that-was-completed",
    "5321 §4.1.1.5 lost-connection-is-like-quit",
)
@pytest.mark.parametrize(
    "last", [["MAIL FROM:<a@b.example>"], ["MAIL FROM:<>", "RCPT TO:<c@d.example>"]]
)
async def test_a_lost_connection_cancels_what_is_open_and_nothing_else(last: list[str]) -> None:
    box = Box()
    server = Server(box)
    async with running(server) as port:
        async with await connect(port) as wire:
            await wire.reply()
            for line in (
                "EHLO c.example",
                "MAIL FROM:<a@b.example>",
                "RCPT TO:<c@d.example>",
                "DATA",
            ):
                assert (await wire.ask(line))[0] in "23"
            assert (await wire.ask("one", ".")).startswith("250")
            for line in last:
                assert (await wire.ask(line)).startswith("250")
        await until(lambda: not server.dialogues)
        assert [received.content for received in box.received] == [b"one\r\n"]
        async with clear(port) as client:
            await client.send(ENVELOPE, MESSAGE)
    assert len(box.received) == 2
