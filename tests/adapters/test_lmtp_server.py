"""A server of LMTP (RFC 2033): an outcome for each recipient, over TCP and UNIX sockets."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from attrs import define, field

from smtpproto import Envelope, LocalProtocolError, Rcpt, Reply
from smtpproto.server import ContentStream, Server, ServerDeadlines, Session
from smtpproto.trace import protocol_of
from smtpproto.wire import Listener, connect_unix

from .clock import anyio_backend  # noqa: F401 - a fixture
from .wire import Wire, connect
from .world import Box, running

pytestmark = pytest.mark.anyio

FULL = Reply(452, "4.2.2", "Mailbox full")
FAILED = "451 4.3.0 Local error in processing"


@define
class Store(Box):
    """Delivers to each; `outcomes` by local part, "lost" is left out."""

    outcomes: dict[str, Reply | None] = field(factory=dict)
    more: list[str] = field(factory=list)
    delivered: list[tuple[list[str], bytes]] = field(factory=list)

    async def deliver(
        self, session: Session, envelope: Envelope, content: ContentStream
    ) -> Mapping[Rcpt, Reply | None]:
        octets = b"".join([chunk async for chunk in content])
        self.delivered.append(([str(path) for path in envelope.forward_paths], octets))
        rcpts = [*envelope.rcpts, *map(Rcpt, self.more)]
        names = {rcpt: rcpt.forward_path.mailbox.local_part.decode() for rcpt in rcpts}
        return {rcpt: self.outcomes.get(n) for rcpt, n in names.items() if n != "lost"}


@asynccontextmanager
async def speaking(server: Server) -> AsyncIterator[Wire]:
    async with running(server) as port, await connect(port) as wire:
        assert await wire.reply() == "220 localhost LMTP"
        assert (await wire.ask("LHLO client.example")).startswith("250-")
        yield wire


async def replies(wire: Wire, number: int) -> list[str]:
    return [await wire.reply() for _ in range(number)]


def transaction(*names: str) -> list[str]:
    return ["MAIL FROM:<ann@example.org>", *(f"RCPT TO:<{n}@example.net>" for n in names)]


async def put(wire: Wire, how: str, content: bytes, *names: str) -> list[str]:
    """A transaction in one write; gives the replies behind those to RCPT."""
    rcpts = len(transaction(*names))
    await wire.say(*transaction(*names))
    taken = [reply.startswith("250") for reply in await replies(wire, rcpts)][1:]
    if how == "DATA":
        assert (await wire.ask("DATA")).startswith("354")
        await wire.send(content + b".\r\n")
    else:
        half = len(content) // 2
        await wire.send(b"BDAT %d\r\n%b" % (half, content[:half]))
        rest = content[half:]
        await wire.send(b"BDAT %d LAST\r\n%b" % (len(rest), rest))
        first = await wire.reply()
        if not first.startswith("250"):
            return [first, *await replies(wire, sum(taken))]
    return await replies(wire, sum(taken))


HOW = pytest.mark.parametrize("how", ["DATA", "BDAT"])


@HOW
async def test_an_outcome_for_each_recipient(how: str) -> None:
    """One reply for each that was accepted, in their order (RFC 2033 §4.2, §4.3)."""
    store = Store(outcomes={"full": FULL})
    async with speaking(Server(store, lmtp=True)) as wire:
        names = ("al", "no-one", "full", "al", "bo")
        assert await put(wire, how, b"hello\r\n", *names) == [
            "250 2.0.0 Message accepted",
            "452 4.2.2 Mailbox full",
            "250 2.0.0 Message accepted",  # twice asked for, twice answered
            "250 2.0.0 Message accepted",
        ]
        assert (await wire.ask("NOOP")).startswith("250")
        assert await put(wire, how, b"again\r\n", "bo") == ["250 2.0.0 Message accepted"]
    assert [octets for _, octets in store.delivered] == [b"hello\r\n", b"again\r\n"]
    assert store.received == []


@HOW
async def test_a_recipient_without_an_outcome(how: str, caplog: pytest.LogCaptureFixture) -> None:
    """It was not delivered to: nobody else's outcome is taken for its."""
    store = Store(outcomes={"full": FULL}, more=["stranger@example.net"])
    async with speaking(Server(store, lmtp=True)) as wire:
        assert await put(wire, how, b"x\r\n", "lost", "full", "al") == [
            FAILED,
            "452 4.2.2 Mailbox full",
            "250 2.0.0 Message accepted",
        ]
    assert "no outcome for" in caplog.text
    assert "lost@example.net" in caplog.text
    assert "stranger@example.net" in caplog.text


async def test_a_handler_with_one_answer_gives_it_to_all(box: Box) -> None:
    async with speaking(Server(box, lmtp=True)) as wire:
        assert await put(wire, "DATA", b"x\r\n", "al", "bo") == ["250 2.0.0 Message accepted"] * 2
        box.replies["content"] = FULL
        assert await put(wire, "BDAT", b"x\r\n", "al", "bo") == ["452 4.2.2 Mailbox full"] * 2
        assert (await wire.ask("NOOP")).startswith("250")
    assert protocol_of(box.received[0].session) == "LMTP"


async def test_one_that_delivers_may_serve_smtp_too() -> None:
    store = Store()
    async with running(Server(store)) as port, await connect(port) as wire:
        await wire.reply()
        assert (await wire.ask("LHLO c.example")).startswith("500")
        await wire.ask("EHLO c.example")
        await wire.ask("MAIL FROM:<ann@example.org>", *transaction("al", "bo")[1:], "DATA")
        await replies(wire, 3)
        assert await wire.ask("x", ".") == "250 2.0.0 Message accepted"
        assert (await wire.ask("NOOP")).startswith("250 2.0.0 ")
    assert store.delivered == []
    assert len(store.received) == 1


async def test_pipelined_to_the_end(box: Box) -> None:
    """All of two transactions in one write; BDAT lets content go with it."""
    store = Store(outcomes={"full": FULL})
    async with speaking(Server(store, lmtp=True)) as wire:
        one = "".join(f"{line}\r\n" for line in transaction("al", "full")).encode()
        two = "".join(f"{line}\r\n" for line in transaction("bo")).encode()
        await wire.send(one + b"BDAT 4 LAST\r\nhi\r\n" + two + b"BDAT 0 LAST\r\nQUIT\r\n")
        codes = [reply[:3] for reply in await replies(wire, 9)]
        assert codes == ["250"] * 3 + ["250", "452"] + ["250"] * 2 + ["250"] + ["221"]


async def test_no_recipient_no_content(box: Box) -> None:
    """RFC 2033 §4.2: DATA is refused; a last chunk has no reply where nobody waits for one."""
    async with speaking(Server(box, lmtp=True)) as wire:
        await wire.say(*transaction("no-al"))
        assert [r[:3] for r in await replies(wire, 2)] == ["250", "550"]
        assert (await wire.ask("DATA")).startswith("503")
        await wire.send(b"BDAT 4 LAST\r\nhi\r\nNOOP\r\n")
        assert (await wire.reply()).startswith("250 2.0.0 ")
        assert (await wire.ask("MAIL FROM:<a@b.example>")).startswith("250")
    assert box.received == []


@HOW
async def test_content_at_fault_is_refused_for_each(how: str) -> None:
    store = Store()
    async with speaking(Server(store, lmtp=True)) as wire:
        heard = await put(wire, how, b"a bare\nline end, and more\r\n", "al", "bo")
        assert [reply[0] for reply in heard] == ["5"] * len(heard)
        assert (await wire.ask("NOOP")).startswith("250")
    assert store.delivered == []


async def test_chunks_behind_a_refused_one() -> None:
    """The last of them is the end of the content: a reply for each (RFC 2033 §4.2)."""
    async with speaking(Server(Store(), lmtp=True)) as wire:
        await wire.say(*transaction("al", "bo"))
        await replies(wire, 3)
        await wire.send(b"BDAT 7\r\na bare\nBDAT 2\r\nxxBDAT 2 LAST\r\nyyNOOP\r\n")
        codes = [reply[:3] for reply in await replies(wire, 5)]
        assert codes[0] == "554"
        assert codes[1][0] == "5"
        assert [code[0] for code in codes[2:4]] == ["5", "5"]
        assert codes[4] == "250"


@pytest.mark.parametrize("fails", ["raises", "hangs", "is no mapping"])
async def test_a_handler_that_fails(fails: str, caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Store):
        async def deliver(
            self, session: Session, envelope: Envelope, content: ContentStream
        ) -> Any:
            if fails == "raises":
                raise ValueError("the secret of the house")
            if fails == "hangs":
                await anyio.sleep_forever()
            return [None, None]

    server = Server(Failing(), lmtp=True, deadlines=ServerDeadlines(handler=0.05))
    async with speaking(server) as wire:
        assert await put(wire, "DATA", b"x\r\n", "al", "bo") == [FAILED] * 2
        assert (await wire.ask("NOOP")).startswith("250")
    assert caplog.text


async def test_outcomes_are_none_of_smtp() -> None:
    """One reply is for all recipients there: that of the first is not to be taken for it."""

    class Confused(Box):
        async def content(
            self, session: Session, envelope: Envelope, content: ContentStream
        ) -> Any:
            async for _ in content:
                pass
            first, *others = envelope.rcpts
            return {first: None, **dict.fromkeys(others, Reply(550))}

    async with running(Server(Confused())) as port, await connect(port) as wire:
        await wire.reply()
        await wire.ask("EHLO c.example")
        await wire.say("MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "RCPT TO:<e@f.example>")
        await wire.say("DATA", "hi", ".")
        said = [(await wire.reply())[:3] for _ in range(5)]
        assert said == ["250", "250", "250", "354", "451"]


async def test_421_among_the_outcomes_is_the_last_word() -> None:
    store = Store(outcomes={"bo": Reply(421, "4.3.2", "going down")})
    async with speaking(Server(store, lmtp=True)) as wire:
        await wire.say(*transaction("al", "bo", "cy"), "DATA")
        await replies(wire, 5)
        await wire.say("x", ".")
        said = (await wire.rest()).decode().splitlines()
        assert [line[:3] for line in said] == ["250", "421"]


def of(names: Sequence[str]) -> list[str]:
    return [f"<{name}@example.net>" for name in names]


async def test_over_a_unix_socket(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("l") / "s"
    store = Store(outcomes={"full": FULL})
    server = Server(store, lmtp=True, plaintext_auth="loopback")
    async with (
        Listener(await anyio.create_unix_listener(path)) as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, server.serve_stream, tasks)
        async with Wire(await connect_unix(path)) as wire:
            assert await wire.reply() == "220 localhost LMTP"
            assert (await wire.ask("LHLO client.example")).startswith("250-")
            heard = await put(wire, "DATA", b"x\r\n", "al", "full")
            assert [reply[:3] for reply in heard] == ["250", "452"]
        tasks.cancel_scope.cancel()
    assert store.delivered == [(of(["al", "full"]), b"x\r\n")]
    assert not server.connections


async def test_never_on_port_25(box: Box, caplog: pytest.LogCaptureFixture) -> None:
    """RFC 2033 §5."""
    server = Server(box, lmtp=True)
    with pytest.raises(LocalProtocolError, match="port 25"):
        await server.serve("127.0.0.1", 25)
    session = Session(1, ("192.0.2.1", 40_000), ("192.0.2.25", 25))
    with pytest.raises(LocalProtocolError, match="port 25"):
        await server._lead(session, None, implicit_tls=False)  # type: ignore[arg-type]  # it does not come to that
