"""Hostile input over real sockets, of which the core's tests know every octet already."""

from contextlib import suppress
from email.message import Message
from itertools import pairwise

import anyio
import pytest

from smtpproto import Envelope, Limits, LocalProtocolError, Noop
from smtpproto.message import envelope_of
from smtpproto.result import ConnectError, Fate
from smtpproto.server import Server, ServerDeadlines
from tests.core.test_end_of_data import NO_ENDS

from .test_flow import MB
from .wire import LOST, Wire, connect, raw_server
from .world import ENVELOPE, MESSAGE, Box, clear, running, until

pytestmark = pytest.mark.anyio

EVIL = b"MAIL FROM:<evil@b.example>\r\nRCPT TO:<evil@d.example>\r\nDATA\r\n"
SLOW = 60  # seconds in which nothing here may have to wait for a deadline


async def pour(wire: Wire, piece: bytes) -> int:
    """Send it again and again until the other end is gone; gives how many octets that took."""
    sent = 0
    with suppress(*LOST):
        while sent < 100 * MB:
            await wire.send(piece)
            sent += len(piece)
        pytest.fail("there is no end of it")
    return sent


# To a server


async def heard_to_the_end(server: Server, wire: Wire, *pieces: bytes) -> None:
    """Send the pieces, each when the server has read the one before."""
    (dialogue,) = server.dialogues
    for piece in pieces:
        awaited = dialogue.pump.received + len(piece)
        await wire.send(piece)
        await until(lambda awaited=awaited: dialogue.pump.received >= awaited)  # type: ignore[misc]


@pytest.mark.rfc("5321 §4.1.1.4 crlf-dot-crlf-ends-the-content")
@pytest.mark.parametrize("repair", [False, True])
@pytest.mark.parametrize("no_end", NO_ENDS)
async def test_nothing_is_smuggled_wherever_the_segments_end(
    no_end: bytes, repair: bool, box: Box
) -> None:
    """Refused, or taken as one message; nothing of it is a command, and the session is in step."""
    refused = not repair and no_end.replace(b"\r\n", b"").strip(b"\0. \x0b\x85\xe2\x80\xa8") != b""
    limits = Limits(bad_commands=0)
    server = Server(box, repair=repair, limits=limits, max_quick_errors=0, max_idle_commands=None)
    cuts = [0, *range(1, len(no_end) + 1)]
    async with running(server) as port, await connect(port) as wire:
        await wire.reply()
        await wire.ask("EHLO client.example")
        for cut in cuts:
            await wire.say("MAIL FROM:<ann@example.org>", "RCPT TO:<bob@example.net>", "DATA")
            assert [(await wire.reply())[:3] for _ in range(3)] == ["250", "250", "354"]
            first, second = b"hi" + no_end[:cut], no_end[cut:] + EVIL + b".\r\n"
            await heard_to_the_end(server, wire, first, second)
            assert (await wire.reply()).startswith("554 5.6.0" if refused else "250 2.0.0")
            assert (await wire.ask("NOOP")).startswith("250 2.0.0")
    assert len(box.received) == (0 if refused else len(cuts))
    assert all(received.envelope == ENVELOPE for received in box.received)


@pytest.mark.parametrize("piece", [b"x" * 60_000, b"\0" * 60_000, b"\r" * 60_000])
async def test_a_line_without_end_is_the_end(piece: bytes, box: Box) -> None:
    """Of which no more is read than the limit has it, and some until the client has heard why."""
    server = Server(box, deadlines=ServerDeadlines(command=SLOW, linger=SLOW))
    async with running(server) as port, await connect(port) as wire:
        await wire.reply()
        with anyio.fail_after(20):
            assert await pour(wire, piece) < 32 * MB  # most of it held by the kernel at either end
        await until(lambda: not server.dialogues)


# To a client


WITHOUT_END = {
    "lines": b"250-and more\r\n" * 4000,
    "a line": b"250-" + b"x" * 60_000,
    "nothing that is a reply": b"\0" * 60_000,
}


@pytest.mark.parametrize("behind", ["", "EHLO", "MAIL"])
@pytest.mark.parametrize("what", WITHOUT_END)
async def test_a_reply_without_end_ends_the_session(what: str, behind: str) -> None:
    poured: list[int] = []

    async def behaviour(wire: Wire) -> None:
        if behind:
            await wire.say("220 hi")
            await wire.hear()
        if behind == "MAIL":
            await wire.say("250 hi")
            await wire.hear()
        poured.append(await pour(wire, WITHOUT_END[what]))

    async with raw_server(behaviour) as port:
        with anyio.fail_after(20):
            if behind == "MAIL":
                async with clear(port) as client:
                    (outcome,) = (await client.deliver(ENVELOPE, MESSAGE)).outcomes
                    assert outcome.fate is Fate.TRANSIENT
                    assert not client.usable
            else:
                with pytest.raises(ConnectError):
                    await clear(port).__aenter__()
            await until(lambda: bool(poured))
    assert poured[0] < 32 * MB


@pytest.mark.parametrize("octet", ["\r\n", "\n", "\r", "\0", "\x1b", "\x7f", " "])
async def test_what_a_caller_gives_breaks_out_nowhere(octet: str) -> None:
    """It is the caller's mistake, and not an octet of it leaves."""
    heard: list[bytes] = []

    async def behaviour(wire: Wire) -> None:
        with suppress(*LOST):
            await wire.say("220 hi")
            await wire.hear()
            await wire.say("250 hi")
            await wire.hear()
        heard.append(b"".join(wire.reads))

    text = f"a{octet}MAIL FROM:<evil@b.example>"
    async with raw_server(behaviour) as port:
        with pytest.raises(LocalProtocolError):
            await clear(port, helo_name=text).__aenter__()
        async with clear(port, helo_name="c.example") as client:
            for sender, recipient in (
                (f"a{octet}@b.example", "c@d.example"),
                ("a@b.example", f"c@d{octet}.example"),
                ("a@b.example", f"c@d.example> NOTIFY=NEVER{octet}, e@f.example"),
            ):
                with pytest.raises(LocalProtocolError):
                    Envelope(sender, [recipient])
            if octet != " ":  # which a text may have
                with pytest.raises(LocalProtocolError):
                    await client.command(Noop(text.encode()))
        await until(lambda: len(heard) == 2)
    assert sorted(heard) == [b"", b"EHLO c.example\r\nQUIT\r\n"]


# To a sender


HEADERS = {
    "nested comments": "(" * 100_000 + ")" * 100_000 + " b@c.example",
    "comments without end": "(" * 100_000,
    "nested groups": "a:" * 100_000,
    "empty groups": "a:;," * 50_000 + "b@c.example",
    "empty members": "," * 100_000 + "b@c.example",
    "angles": "<" * 100_000,
    "quotes": '"a" ' * 50_000 + "<b@c.example>",
    "a route": "<" + "@a.example," * 20_000 + "@a.example:b@c.example>",
    "addresses": ",".join(f"b{n}@c.example" for n in range(20_000)),
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_a_header_of_any_shape_costs_what_its_octets_do(header: str) -> None:
    """It is read in a time that grows with its octets, or refused; nothing recurses."""
    message = Message()
    message["From"] = "a@b.example"
    message["To"] = header
    try:
        envelope = envelope_of(message)
    except LocalProtocolError:
        return
    recipients = [str(path) for path in envelope.forward_paths]
    assert all(one != other for one, other in pairwise(recipients))
    assert recipients[-1] in ("<b@c.example>", "<b19999@c.example>")
