"""Sessions that break, at every octet: each recipient has an outcome, and the next session works.

RFC 5321 §4.2.4.2, §6.1; RFC 1047 for what nobody can know: the reply to the final dot.
"""

import socket
import struct
from collections.abc import AsyncIterator

import anyio
import pytest
from anyio.abc import ByteStream, SocketAttribute

from smtpproto import Envelope
from smtpproto.client import ClientDeadlines
from smtpproto.result import ConnectError, Fate, RefusedError
from smtpproto.server import Server

from .wire import HOST, Wire, connect, raw_server, silence
from .world import ENVELOPE as SIMPLE
from .world import MESSAGE, Box, clear, running, until

pytestmark = pytest.mark.anyio

ENVELOPE = Envelope("ann@example.org", ["b@example.net", "no-c@example.net", "d@example.net"])

# What the server says, and what it waits for before each.
PIPELINED = [
    (b"", b"220 hi\r\n"),
    (b"EHLO", b"250-hi\r\n250 PIPELINING\r\n"),
    (b"DATA\r\n", b"250 ok\r\n250 ok\r\n550 5.1.1 no\r\n250 ok\r\n354 go\r\n"),
    (b"\r\n.\r\n", b"250 2.0.0 taken\r\n"),
]
IN_TURN = [
    (b"", b"220 hi\r\n"),
    (b"EHLO", b"250 hi\r\n"),
    (b"MAIL", b"250 ok\r\n"),
    (b"RCPT", b"250 ok\r\n"),
    (b"RCPT", b"550 5.1.1 no\r\n"),
    (b"RCPT", b"250 ok\r\n"),
    (b"DATA", b"354 go\r\n"),
    (b"\r\n.\r\n", b"250 2.0.0 taken\r\n"),
]
CHUNKED = [
    (b"", b"220 hi\r\n"),
    (b"EHLO", b"250-hi\r\n250-CHUNKING\r\n250 PIPELINING\r\n"),
    (b"<d@example.net>", b"250 ok\r\n250 ok\r\n550 5.1.1 no\r\n250 ok\r\n"),
    (b"and the end\r\n", b"250 2.0.0 taken\r\n"),
]
Turns = list[tuple[bytes, bytes]]


def length(turns: Turns) -> int:
    return sum(len(said) for _, said in turns)


async def cut(wire: Wire, turns: Turns, octets: int, ending: bytes, *, reset: bool) -> None:
    """Play the server for so many octets, say the ending, and go."""
    heard = b""
    for awaited, said in turns:
        while awaited not in heard:
            heard += await wire.receive()
        heard = b""
        await wire.send(said[:octets] if octets < len(said) else said)
        octets -= len(said)
        if octets < 0:
            break
    await wire.send(ending)
    if reset:
        reset_on_close(wire.stream)


def reset_on_close(stream: ByteStream) -> None:
    raw = stream.extra(SocketAttribute.raw_socket)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.rfc("5321 §2.1 client-transfers-or-reports", "5321 §3.8 lost-connection-counts-as-451")
@pytest.mark.rfc("5321 §4.2.5 without-2yz-the-client-keeps-it")
@pytest.mark.parametrize(
    "turns", [PIPELINED, IN_TURN, CHUNKED], ids=["pipelined", "in turn", "chunked"]
)
@pytest.mark.parametrize("ending", ["cut", "reset"])
async def test_every_recipient_has_an_outcome_wherever_the_session_ends(
    turns: Turns, ending: str
) -> None:
    state = {"octets": 0}

    async def behaviour(wire: Wire) -> None:
        await cut(wire, turns, state["octets"], b"", reset=ending == "reset")

    final = len(turns[-1][1])
    opening = sum(len(said) for _, said in turns[:2])
    async with raw_server(behaviour) as port:
        for octets in range(length(turns)):
            state["octets"] = octets
            try:
                async with clear(port, deadlines=ClientDeadlines(quit=0.05)) as client:
                    result = await client.deliver(ENVELOPE, MESSAGE)
                    assert not client.usable
            except (ConnectError, RefusedError):
                assert octets < opening, "once there is a session, nothing but outcomes"
                continue
            fates = [outcome.fate for outcome in result.outcomes]
            assert len(fates) == 3
            if octets < length(turns) - final:
                # Before the dot nobody can have been accepted, nor is anything in doubt.
                assert Fate.UNKNOWN not in fates
                assert Fate.ACCEPTED not in fates
            else:
                assert fates == [Fate.UNKNOWN, Fate.PERMANENT, Fate.UNKNOWN], octets
                assert result.outcomes[0].reason
            if octets >= length(turns) - final - len(b"354 go\r\n") and turns is IN_TURN:
                assert fates[1] is Fate.PERMANENT, "a refusal stays one"


@pytest.mark.rfc("5321 §3.8 421-may-be-said-at-any-time")
@pytest.mark.parametrize("turns", [PIPELINED, IN_TURN], ids=["pipelined", "in turn"])
@pytest.mark.parametrize("last", [b"421 4.3.2 bye\r\n", b"nonsense\r\n"])
async def test_421_or_nonsense_in_place_of_each_line(turns: Turns, last: bytes) -> None:
    state = {"octets": 0}

    async def behaviour(wire: Wire) -> None:
        await cut(wire, turns, state["octets"], last, reset=False)

    ends = [0]
    for _, said in turns:
        for line in said.splitlines(keepends=True):
            ends.append(ends[-1] + len(line))
    async with raw_server(behaviour) as port:
        for octets in ends[:-1]:
            state["octets"] = octets
            try:
                async with clear(port) as client:
                    result = await client.deliver(ENVELOPE, MESSAGE)
                    assert not client.usable
            except (ConnectError, RefusedError):
                assert octets < ends[3]
                continue
            fates = {outcome.fate for outcome in result.outcomes}
            if last.startswith(b"421"):
                # To the final dot, too, it is a reply: the message was not taken.
                assert fates <= {Fate.TRANSIENT, Fate.PERMANENT}
                replies = [outcome.reply for outcome in result.outcomes if outcome.reply]
                assert 421 in [reply.code for reply in replies]
            else:
                doubt = Fate.UNKNOWN if octets == ends[-2] else Fate.TRANSIENT
                assert doubt in fates
                assert fates <= {doubt, Fate.PERMANENT}


async def test_421_in_the_midst_of_content_is_a_loss_without_doubt() -> None:
    async def behaviour(wire: Wire) -> None:
        heard = b""
        for awaited, said in PIPELINED[:-1]:
            while awaited not in heard:
                heard += await wire.receive()
            heard = b""
            await wire.send(said)
        await wire.say("421 4.3.0 no more")

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"and on\r\n" * 5000

    async with raw_server(behaviour) as port, clear(port) as client:
        result = await client.deliver(ENVELOPE, endless())
    assert [outcome.fate.value for outcome in result.outcomes] == [
        "transient",
        "permanent",
        "transient",
    ]


CLIENT = [
    b"EHLO client.example\r\n",
    b"MAIL FROM:<ann@example.org>\r\n",
    b"RCPT TO:<bob@example.net>\r\n",
    b"DATA\r\n",
    b"Subject: x\r\n\r\nbody\r\n.\r\n",
    b"QUIT\r\n",
]


@pytest.mark.parametrize("reset", [False, True])
async def test_a_client_that_goes_at_any_octet_leaves_nothing_behind(
    reset: bool, box: Box, caplog: pytest.LogCaptureFixture
) -> None:
    """The server takes a message if and only if its final dot came, and lives on."""
    octets = b"".join(CLIENT)
    whole = octets.index(b"\r\n.\r\n") + 5
    server = Server(box)
    async with running(server) as port:
        for count in range(len(octets) + 1):
            box.received.clear()
            async with await connect(port) as wire:
                await wire.send(octets[:count])
                if not reset:
                    await wire.stream.send_eof()
                    await wire.rest()
                else:
                    if count >= whole:  # else it may never hear of what was sent before
                        await until(lambda: bool(box.received))
                    reset_on_close(wire.stream)
            await until(lambda: not server.dialogues)
            assert len(box.received) == (count >= whole)
        async with clear(port) as client:
            await client.send(SIMPLE, MESSAGE)
    assert caplog.text == ""


async def test_a_connection_that_is_gone_before_it_is_served(box: Box) -> None:
    """Its addresses cannot be had any more; the server does not mind."""
    server = Server(box)
    async with raw_server(silence) as port:
        stream = await anyio.connect_tcp(HOST, port)
        await anyio.aclose_forcefully(stream)
        await server.serve_stream(stream)
    assert not server.dialogues


async def test_nothing_comes_but_the_end_of_file(box: Box) -> None:
    async with running(Server(box)) as port, await connect(port) as wire:
        assert (await wire.reply()).startswith("220")
        await wire.stream.send_eof()
        assert await wire.rest() == b""
