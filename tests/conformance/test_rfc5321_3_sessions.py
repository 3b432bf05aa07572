"""RFC 5321 §3.1, §3.2 and §3.8: how a session begins and how it ends, at either end."""

import pytest

from smtpproto import (
    NEED_DATA,
    STANDARD,
    ClientConnection,
    Command,
    ConnectionClosed,
    Data,
    Ehlo,
    Helo,
    LocalProtocolError,
    Mail,
    Noop,
    Quit,
    Rcpt,
    Reply,
    Rset,
    ServerConnection,
    State,
)
from smtpproto.client import ClientDeadlines
from smtpproto.extensions import SIZE
from smtpproto.result import Fate, RefusedError
from smtpproto.server import Server, Session
from smtpproto.testing.pair import answer
from tests.adapters.wire import Wire, connect, raw_server, script
from tests.adapters.world import ENVELOPE, MESSAGE, Box, clear, running
from tests.conformance.ends import HELLO, MAIL, RCPT, agreed, client_after, hear, say, server_after

DATA = RCPT + b"DATA\r\n"
PLACES = [b"", HELLO, MAIL, RCPT]


# The greeting


@pytest.mark.rfc("5321 §3.1 server-speaks-first")
def test_the_server_speaks_first() -> None:
    server, client = ServerConnection("mx.example"), ClientConnection()
    assert server.replies_owed == 1
    assert (client.next_event(), client.owed) == (NEED_DATA, 1)
    for command in (Ehlo("c"), Helo("c"), Quit()):
        with pytest.raises(LocalProtocolError):
            client.send(command)
    server.receive_data(b"EHLO c\r\n")  # who cannot wait is not heard yet
    assert not isinstance(server.next_event(), Command)
    hear(client, server.send(server.suggested_reply()))
    assert client.send(Ehlo("c")) == b"EHLO c\r\n"
    assert server.next_event() == Ehlo("c")


@pytest.mark.rfc("5321 §3.1 software-need-not-be-told")
def test_the_usual_greeting_tells_no_software() -> None:
    assert answer(ServerConnection("mx.example", STANDARD))[1] == b"220 mx.example ESMTP\r\n"


@pytest.mark.rfc("5321 §3.1 server-may-tell-its-software")
def test_a_greeting_may_tell_the_software() -> None:
    own = Reply(220, None, "mx.example ESMTP Example Mail 1.2 ready")
    server, client = ServerConnection("mx.example"), ClientConnection()
    assert hear(client, server.send(own)) == [own]
    client.send(Ehlo("c"))


@pytest.mark.rfc(
    "5321 §3.1 server-may-greet-with-554",
    "5321 §3.1 refusing-server-waits-for-quit",
    "5321 §3.1 refusing-server-answers-503",
)
def test_a_server_may_greet_with_554_and_waits_for_quit() -> None:
    server, client = ServerConnection("mx.example", STANDARD), ClientConnection(STANDARD)
    refusal = Reply(554, None, "No mail from 192.0.2.1, see https://mx.example/why")
    assert hear(client, server.send(refusal)) == [refusal]
    for command in (Ehlo("c"), Helo("c"), Noop(), Rset()):
        with pytest.raises(LocalProtocolError):
            client.send(command)
        assert say(server, command.serialize())[:3] == b"503"
        assert server.state is State.REFUSED
    for line in (b"MAIL FROM:<a@b>", b"RCPT TO:<a@b>", b"DATA", b"VRFY a"):
        assert say(server, line + b"\r\n")[:3] == b"503"
        assert server.state is State.REFUSED
    said = say(server, client.send(Quit()))
    assert [reply.code for reply in hear(client, said)] == [221]
    assert server.state is State.CLOSED


@pytest.mark.anyio
@pytest.mark.rfc("5321 §3.1 refusal-tells-why")
async def test_why_a_session_is_refused_is_told() -> None:
    why = "No mail from 127.0.0.1, see https://mx.example/why"

    class Choosy(Box):
        async def connect(self, session: Session) -> Reply | None:
            return Reply(554, None, why)

    async with running(Server(Choosy())) as port:
        with pytest.raises(RefusedError) as caught:
            await clear(port).__aenter__()
    assert caught.value.reply == Reply(554, None, why)
    assert why in str(caught.value)


# EHLO and HELO


@pytest.mark.rfc(
    "5321 §3.2 ehlo-asks-for-the-extensions", "5321 §3.2 no-extensions-in-the-reply-to-helo"
)
def test_ehlo_asks_for_extensions_and_helo_for_none() -> None:
    server, client = server_after(b"", (SIZE,)), ClientConnection(STANDARD)
    hear(client, b"220 mx.example\r\n")
    sized = Mail("a@b", {"SIZE": 1})
    said = say(server, client.send(Ehlo("c")))
    assert said == b"250-mx.example greets c\r\n250 SIZE 26214400\r\n"
    hear(client, said)
    assert say(server, client.send(sized))[:3] == b"250"
    hear(client, b"250 ok\r\n")
    said = say(server, client.send(Helo("c")))
    assert said == b"250 mx.example\r\n"
    hear(client, said)
    with pytest.raises(LocalProtocolError):
        client.send(sized)
    assert say(server, sized.serialize())[:3] == b"555"


@pytest.mark.rfc("5321 §3.2 client-may-say-helo")
def test_a_client_may_say_helo() -> None:
    client = ClientConnection(STANDARD)
    hear(client, b"220 mx.example\r\n")
    assert client.send(Helo("c.example")) == b"HELO c.example\r\n"
    hear(client, say(server_after(), b"HELO c.example\r\n"))
    assert client.state is State.READY
    agreed(client, Mail("a@b"), Rcpt("c@d"), Data())


@pytest.mark.anyio
@pytest.mark.rfc("5321 §3.2 client-falls-back-to-helo")
@pytest.mark.parametrize("refusal", ["500 what?", "502 not here", "550 no", "554 no"])
async def test_a_client_whose_ehlo_is_not_understood_says_helo(refusal: str) -> None:
    play = (
        f"S: 220 hi\nC: EHLO c.example\nS: {refusal}\nC: HELO c.example\nS: 250 hi\nC: QUIT\nS: 221"
    )
    async with raw_server(script(play)) as port, clear(port, helo_name="c.example") as client:
        assert client.usable


# The end


@pytest.mark.rfc("5321 §3.8 quit-ends-the-session", "5321 §3.8 server-answers-quit-and-closes")
@pytest.mark.parametrize("before", PLACES)
def test_quit_is_answered_and_ends_the_session(before: bytes) -> None:
    server, client = server_after(before), client_after()
    server.receive_data(client.send(Quit()))
    assert server.next_event() == Quit()
    assert server.state is not State.CLOSED  # not before it is answered
    said = server.send(server.suggested_reply())
    assert said[:3] == b"221"
    assert (server.state, server.next_event()) == (State.CLOSED, ConnectionClosed())
    hear(client, said)
    assert (client.state, client.next_event()) == (State.CLOSED, ConnectionClosed())


@pytest.mark.rfc(
    "5321 §3.8 server-does-not-close-by-itself",
    "5321 §3.8 unknown-commands-close-nothing",
    "5321 §3.8 unknown-commands-get-500",
)
@pytest.mark.parametrize("before", PLACES)
def test_an_unknown_command_gets_500_and_closes_nothing(before: bytes) -> None:
    server = server_after(before)
    kept = server.state, server.envelope
    for line in (b"XYZZY", b"LIST 1", b"\x01\xff", b"", b"z" * 600, b"AUTHENTICATE", b"250 ok"):
        assert say(server, line + b"\r\n")[:3] == b"500"
        assert (server.state, server.envelope) == kept
    assert say(server, b"NOOP\r\n")[:3] == b"250"


@pytest.mark.rfc("5321 §3.8 server-does-not-close-by-itself")
def test_nothing_closes_but_quit_421_and_the_client() -> None:
    lines = [b"HELO", b"MAIL FROM:<>", b"RCPT TO:<a@b>", b"DATA", b"RSET x", b"NOOP", b"VRFY x"]
    for code in (None, 250, 354, 450, 500, 502, 503, 550, 554, 555, 559):
        server = server_after(HELLO)

        def policy(server: ServerConnection, event: object, code: int | None = code) -> Reply:
            usual = server.suggested_reply()
            return Reply(code) if code and code >= 400 and usual.code < 400 else usual

        for line in lines:
            say(server, line + b"\r\n", policy)
            assert server.state is not State.CLOSED
            if server.state is State.CONTENT:
                say(server, b".\r\n", policy)
    for end in (b"QUIT\r\n", b""):
        server = server_after(HELLO)
        server.receive_data(end)
        answer(server)
        assert server.state is State.CLOSED


@pytest.mark.rfc("5321 §3.8 421-may-be-said-at-any-time")
@pytest.mark.parametrize("octets", [b"", HELLO, MAIL, RCPT, DATA, DATA + b"half a"])
def test_421_may_be_said_to_any_command_or_to_none(octets: bytes) -> None:
    closing = Reply(421, "4.3.2", "Going down")
    unasked = server_after(octets)
    assert unasked.send(closing).startswith(b"421 ")
    assert unasked.state is State.CLOSED
    if octets in PLACES:
        asked = server_after(octets)
        assert say(asked, b"NOOP\r\n", lambda s, _: closing).startswith(b"421 ")
        assert asked.state is State.CLOSED
    for owing in (True, False):  # the client sees it with its next command, or before
        client = client_after()
        if owing:
            client.send(Mail("a@b"))
        assert hear(client, b"421 4.3.2 Going down\r\n")[0] == closing
        assert client.state is State.CLOSED
        with pytest.raises(LocalProtocolError):
            client.send(Noop())


@pytest.mark.anyio
@pytest.mark.rfc("5321 §3.8 lost-connection-counts-as-451")
@pytest.mark.parametrize(
    "step", ["", "C: MAIL *\nS: 250 ok\n", "C: MAIL *\nS: 250 ok\nC: RCPT *\nS: 250 ok\n"]
)
async def test_a_lost_connection_puts_off(step: str) -> None:
    async def behaviour(wire: Wire) -> None:
        await wire.play("S: 220 hi\nC: EHLO *\nS: 250 hi\n")
        await wire.play(step + "C: *")

    deadlines = ClientDeadlines(quit=5)
    async with raw_server(behaviour) as port, clear(port, deadlines=deadlines) as client:
        result = await client.deliver(ENVELOPE, MESSAGE)
        assert not client.usable
    assert [outcome.fate for outcome in result.outcomes] == [Fate.TRANSIENT]


@pytest.mark.anyio
@pytest.mark.rfc(
    "5321 §3.8 server-does-not-close-by-itself", "5321 §3.8 unknown-commands-close-nothing"
)
async def test_the_connection_stays_open_until_quit() -> None:
    async with running(Server(Box())) as port, await connect(port) as wire:
        assert (await wire.reply())[:3] == "220"
        for line, code in (
            ("XYZZY", "500"),
            ("MAIL FROM:<a@b>", "503"),
            ("EHLO", "501"),
            ("EHLO c", "250"),
            ("NOOP", "250"),
            ("QUIT", "221"),
        ):
            assert (await wire.ask(line))[:3] == code
        assert await wire.rest() == b""
