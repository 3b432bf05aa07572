"""Our client hands mail to a store by LMTP (RFC 2033): a verdict for each, in the same Result."""

from pathlib import Path

import pytest

from smtpproto import Envelope, LocalProtocolError, Noop, Reply
from smtpproto.client import Client, ClientDeadlines, UnixConnector
from smtpproto.result import ConnectError, RefusedError, Result
from smtpproto.server import Server
from smtpproto.source import CHUNK, Source

from .store import ALL, DELIVERED, FULL, UNKNOWN, Store
from .wire import Wire, raw_server, script
from .world import ENVELOPE, MESSAGE, Box, clear, running

pytestmark = pytest.mark.anyio

MIXED = Envelope("ann@example.org", [f"{n}@example.net" for n in ("b", "no-c", "full-d", "e")])
BIG = b"0123456789012345678901234567890\r\n" * 8000
GREETED = "S: 220 hi\nC: LHLO *\nS: 250-hi\nS: 250 PIPELINING\n"


def fates(result: Result) -> list[str]:
    return [outcome.fate.value for outcome in result.outcomes]


@pytest.mark.rfc(
    "2033 §4.1 lhlo-replaces-helo-and-ehlo",
    "2033 §4.2 final-dot-has-a-reply-for-each-recipient",
    "2033 §4.3 last-chunk-has-a-reply-for-each-recipient",
)
@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("content", [MESSAGE, BIG])
async def test_each_recipient_has_a_verdict(chunked: bool, content: bytes) -> None:
    store = Store(
        ALL if chunked else [e for e in ALL if e.keyword not in ("CHUNKING", "BINARYMIME")]
    )
    lines: list[str] = []
    async with store.running() as port, clear(port, lmtp=True, trace=lines.append) as client:
        result = await client.deliver(MIXED, content)
        assert fates(result) == ["accepted", "permanent", "transient", "accepted"]
        assert [o.reply for o in result.outcomes] == [DELIVERED, UNKNOWN, FULL, DELIVERED]
        assert (await client.command(Noop())).code == 250
        twice = Envelope("ann@example.org", ["b@example.net", "b@example.net"])
        assert fates(await client.deliver(twice, content)) == ["accepted", "accepted"]
    assert [taken for _, taken in store.received] == [content, content]
    assert any(line.startswith("C: LHLO ") for line in lines)
    assert ("C: DATA" in lines) is not chunked


@pytest.mark.rfc("2033 §4.2 final-dot-has-a-reply-for-each-recipient")
async def test_verdicts_are_told_as_they_come() -> None:
    store, told = Store(), list[tuple[int, Reply]]()

    def tell(number: int, reply: Reply) -> None:
        told.append((number, reply))

    async with store.running() as port, clear(port, lmtp=True) as client:
        result = await client.deliver(MIXED, MESSAGE, told=tell)
    # Who was refused before the content has no verdict on it.
    assert told == [
        (number, outcome.reply)
        for number, outcome in enumerate(result.outcomes)
        if outcome.reply != UNKNOWN
    ]


async def test_over_a_unix_socket(tmp_path: Path) -> None:
    store, path = Store(), tmp_path / "lmtp"
    async with (
        store.running(str(path)),
        Client("localhost", lmtp=True, tls="none", connector=UnixConnector(path)) as client,
    ):
        await client.send(ENVELOPE, MESSAGE)
        assert fates(await client.deliver(MIXED, Source(MESSAGE, binary=True)))[0] == "accepted"
    assert [taken for _, taken in store.received] == [MESSAGE, MESSAGE]


async def test_a_unix_socket_that_is_not_there(tmp_path: Path) -> None:
    client = Client("localhost", lmtp=True, connector=UnixConnector(tmp_path / "none"))
    with pytest.raises(ConnectError, match=r"No such file or directory: '.*/none'"):
        await client.__aenter__()


@pytest.mark.rfc("2033 §5 not-on-port-25")
def test_port_25_is_for_smtp() -> None:
    with pytest.raises(LocalProtocolError, match="port 25"):
        Client("store.example", 25, lmtp=True)


@pytest.mark.rfc("2033 §4.1 misconfiguration-shows", "2033 §4.1 no-2yz-to-helo-and-ehlo")
async def test_a_server_of_the_other_kind_is_noticed(box: Box) -> None:
    async with running(Server(box)) as port:
        with pytest.raises(RefusedError, match="LHLO was refused: 500"):
            await clear(port, lmtp=True).__aenter__()
    async with Store().running() as port:
        with pytest.raises(RefusedError, match="EHLO was refused: 500"):
            await clear(port).__aenter__()


@pytest.mark.rfc(
    "2033 §5 replies-that-came-count", "2033 §5 replies-that-did-not-come-are-temporary-failures"
)
@pytest.mark.parametrize("said", [0, 1, 2])
@pytest.mark.parametrize("ending", ["", "S: 421 4.3.2 bye\n", "S: nonsense\n"])
async def test_a_session_that_ends_between_the_verdicts(said: int, ending: str) -> None:
    async def behaviour(wire: Wire) -> None:
        await wire.play(GREETED + "C: MAIL *\nC: RCPT *\nC: RCPT *\nC: RCPT *\nC: DATA")
        await wire.say("250 ok", "250 ok", "250 ok", "250 ok", "354 go")
        await wire.hear_content()
        verdicts = ["250-of several lines\r\n250 one", "554 no"][:said]
        await wire.say(*verdicts, *ending.removeprefix("S: ").splitlines())

    envelope = Envelope("ann@example.org", [f"{name}@example.net" for name in "bcd"])
    async with raw_server(behaviour) as port, clear(port, lmtp=True) as client:
        result = await client.deliver(envelope, MESSAGE)
        assert not client.usable
    expected = ["accepted", "permanent"][:said]
    assert fates(result) == expected + ["transient"] * (3 - said)


async def test_354_for_nobody_is_no_lmtp() -> None:
    play = GREETED + "C: MAIL *\nC: RCPT *\nC: DATA\nS: 250 ok\nS: 550 5.1.1 no\nS: 354 go"
    async with raw_server(script(play)) as port, clear(port, lmtp=True) as client:
        result = await client.deliver(ENVELOPE, MESSAGE)
        assert result.outcomes[0].reply == Reply(550, "5.1.1", "no")
        assert not client.usable


@pytest.mark.rfc("2033 §4.3 other-chunks-have-one-reply")
async def test_a_chunk_refused_on_the_way_decides_for_all() -> None:
    async def behaviour(wire: Wire) -> None:
        await wire.play(
            GREETED.replace("250 PIPE", "250-CHUNKING\nS: 250 PIPE")
            + "C: MAIL *\nC: RCPT *\nC: RCPT *"
        )
        await wire.say("250 ok", "250 ok", "250 ok")
        await wire.hear()
        await wire.take(CHUNK)
        await wire.hear()
        await wire.take(CHUNK)
        await wire.say("452 4.3.1 full", "503 what")
        rest = await wire.hear()
        while rest != "RSET":
            size = int(rest.split()[1])
            await wire.take(size)
            await wire.say(*["503 what"] * (2 if rest.endswith("LAST") else 1))
            rest = await wire.hear()
        await wire.say("250 ok", "550 no", "503 no")
        await wire.rest()

    envelope = Envelope("ann@example.org", ["b@example.net", "c@example.net"])
    quick = ClientDeadlines(quit=0.05)
    async with raw_server(behaviour) as port, clear(port, lmtp=True, deadlines=quick) as client:
        result = await client.deliver(envelope, BIG)
        assert fates(result) == ["transient", "transient"]
        assert fates(await client.deliver(ENVELOPE, MESSAGE)) == ["permanent"]
