"""Every wait has a deadline with a name (RFC 5321 §4.5.3.2, and those it does not name)."""

from collections.abc import AsyncIterator

import anyio
import pytest
from attrs import fields

from smtpproto import Envelope, Mail, Rcpt, Reply
from smtpproto.client import Client, ClientDeadlines
from smtpproto.core.sasl import Verify
from smtpproto.deadline import DeadlineError, deadline
from smtpproto.result import ConnectError
from smtpproto.server import ContentStream, Server, ServerDeadlines, Session

from .clock import anyio_backend  # noqa: F401 - a fixture
from .wire import HOST, Wire, connect, opened, raw_server, script
from .world import (
    ENVELOPE,
    MESSAGE,
    PASSWORD,
    Accounts,
    Box,
    Certificates,
    Scripted,
    clear,
    running,
)

pytestmark = pytest.mark.anyio

SHORT = 0.03


OPENING = "S: 220 hi\nC: EHLO *\nS: 250-hi\n"
IN_TURN = OPENING + "S: 250 HELP\n"
# What the server plays before it falls silent, for each deadline of the client's.
SILENT_AT = {
    "greeting": "",
    "ehlo": "S: 220 hi\nC: EHLO *",
    "tls": OPENING + "S: 250 STARTTLS\nC: STARTTLS\nS: 220 go",
    "auth": OPENING + "S: 250 AUTH PLAIN\nC: AUTH *",
    "mail": IN_TURN + "C: MAIL *",
    "rcpt": IN_TURN + "C: MAIL *\nS: 250 ok\nC: RCPT *",
    "data": IN_TURN + "C: MAIL *\nS: 250 ok\nC: RCPT *\nS: 250 ok\nC: DATA",
    "final_dot": OPENING + "S: 250 PIPELINING\nC: MAIL *\nC: RCPT *\nC: DATA\n"
    "S: 250 ok\nS: 250 ok\nS: 354 go",
}
BEFORE_MAIL = {"greeting", "ehlo", "tls", "auth"}


def options(name: str, tls: Certificates) -> dict[str, object]:
    return {
        "tls": "required" if name == "tls" else "none",
        "ssl_context": tls.trusting,
        "login": ("ann", PASSWORD) if name == "auth" else None,
        "login_in_clear": True,
    }


@pytest.mark.rfc("5321 §4.5.3.2 client-has-timers", "5321 §4.5.3.2 timers-can-be-set")
@pytest.mark.parametrize("name", SILENT_AT)
@pytest.mark.parametrize("session", [False, True])
async def test_client_deadline(name: str, session: bool, tls: Certificates) -> None:
    """Each fires by its own name; and the whole session's, wherever the time is spent."""
    field = "session" if session else name
    deadlines = ClientDeadlines(**{"quit": SHORT, field: SHORT})
    message = rf"the {field} deadline of {SHORT:g} s"
    async with raw_server(script(SILENT_AT[name])) as port:
        client = Client(HOST, port, deadlines=deadlines, **options(name, tls))  # type: ignore[arg-type]  # the table is loose
        if name in BEFORE_MAIL:
            with pytest.raises(ConnectError, match=message) as caught:
                await client.__aenter__()
            cause = caught.value.__cause__
            assert isinstance(cause, DeadlineError)
            assert (cause.name, cause.seconds) == (field, SHORT)
        else:
            async with client:
                result = await client.deliver(ENVELOPE, MESSAGE)
                assert not client.usable
            assert message in f"the {result.outcomes[0].reason.partition('the ')[2]}"
            fate = "unknown" if name == "final_dot" else "transient"
            assert result.outcomes[0].fate.value == fate


@pytest.mark.rfc("5321 §4.5.3.2.1 greeting-is-not-the-connection")
@pytest.mark.parametrize("field", ["connect", "session"])
async def test_client_deadline_for_connecting(field: str) -> None:
    async def never(host: str, port: int) -> anyio.abc.ByteStream:
        await anyio.sleep_forever()
        raise AssertionError

    with pytest.raises(ConnectError, match=f"the {field} deadline"):
        await clear(25, connector=never, deadlines=ClientDeadlines(**{field: SHORT})).__aenter__()


@pytest.mark.parametrize("field", ["block", "session"])
async def test_client_deadline_for_a_block_of_content(field: str) -> None:
    """The server has said 354 and reads no more."""

    async def behaviour(wire: Wire) -> None:
        await wire.play(SILENT_AT["final_dot"])
        await anyio.sleep_forever()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"and on and on\r\n" * 5000

    deadlines = ClientDeadlines(**{field: SHORT})
    async with raw_server(behaviour) as port, clear(port, deadlines=deadlines) as client:
        (outcome,) = (await client.deliver(ENVELOPE, endless())).outcomes
    assert outcome.fate.value == "transient"
    assert f"the {field} deadline" in outcome.reason


@pytest.mark.parametrize("early", [True, False])
async def test_client_session_deadline_bounds_a_slow_source(early: bool) -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield b"a beginning\r\n" * (1 if early else 10_000)
        await anyio.sleep_forever()

    deadlines = ClientDeadlines(session=SHORT)
    play = script(SILENT_AT["mail" if early else "final_dot"].removesuffix("C: MAIL *"))
    async with raw_server(play) as port, clear(port, deadlines=deadlines) as client:
        (outcome,) = (await client.deliver(ENVELOPE, slow())).outcomes
    assert "the session deadline" in outcome.reason
    assert outcome.fate.value == "transient"


async def test_a_server_that_dribbles_does_not_gain_time() -> None:
    """The deadline is for the reply, not for each octet of it."""

    async def behaviour(wire: Wire) -> None:
        while True:
            await wire.say("220-not yet")
            await anyio.sleep(SHORT / 4)

    async with raw_server(behaviour) as port:
        with pytest.raises(ConnectError, match="the greeting deadline"):
            await clear(port, deadlines=ClientDeadlines(greeting=2 * SHORT)).__aenter__()


async def test_client_without_deadlines(box: Box) -> None:
    none = ClientDeadlines(**{field.name: None for field in fields(ClientDeadlines)})
    async with running(Server(box)) as port, clear(port, deadlines=none) as client:
        await client.send(ENVELOPE, MESSAGE)


# The server's


class Hanging(Box):
    """Hangs in the method named, as a handler that waits for its database for ever."""

    where = ""
    reads = True

    async def maybe(self, name: str) -> None:
        if self.where == name:
            await anyio.sleep_forever()

    async def connect(self, session: Session) -> Reply | None:
        await self.maybe("connect")
        return None

    async def mail(self, session: Session, command: Mail) -> Reply | None:
        await self.maybe("mail")
        return None

    async def rcpt(self, session: Session, command: Rcpt) -> Reply | None:
        await self.maybe("rcpt")
        return None

    async def content(
        self, session: Session, envelope: Envelope, content: ContentStream
    ) -> Reply | None:
        await self.maybe("before content")
        await anext(content)
        await self.maybe("within content")
        async for _ in content:
            pass
        await self.maybe("after content")
        return None

    async def verify(self, session: Session, question: Verify) -> bool:
        await self.maybe("verify")
        return True


async def in_content(port: int) -> Wire:
    wire = await opened(port)
    await wire.say("MAIL FROM:<ann@example.org>", "RCPT TO:<bob@example.net>", "DATA")
    replies = [await wire.reply() for _ in range(3)]
    assert replies[-1].startswith("354")
    return wire


TIMED_OUT = b"421 4.4.2 localhost Timed out\r\n"


@pytest.mark.rfc("5321 §3.8 server-may-close-after-a-timeout")
@pytest.mark.rfc("5321 §4.5.3.2.7 server-does-not-wait-for-ever")
@pytest.mark.parametrize("field", ["command", "session"])
async def test_server_deadline_for_a_command(field: str, box: Box) -> None:
    server = Server(box, deadlines=ServerDeadlines(**{field: SHORT}))
    async with running(server) as port, await connect(port) as wire:
        assert (await wire.reply()).startswith("220")
        assert await wire.rest() == TIMED_OUT


async def test_server_deadline_for_a_command_that_dribbles(box: Box) -> None:
    server = Server(box, deadlines=ServerDeadlines(command=3 * SHORT))
    async with running(server) as port, await connect(port) as wire:
        await wire.reply()
        async with anyio.create_task_group() as tasks:

            async def dribble() -> None:
                while True:
                    await wire.send(b"N")
                    await anyio.sleep(SHORT / 4)

            tasks.start_soon(dribble)
            assert await wire.hear() == TIMED_OUT.decode().strip()
            tasks.cancel_scope.cancel()


@pytest.mark.rfc("5321 §3.8 server-may-close-after-a-timeout")
@pytest.mark.parametrize("field", ["block", "session"])
async def test_server_deadline_for_content(field: str, box: Box) -> None:
    server = Server(box, deadlines=ServerDeadlines(**{field: SHORT}))
    async with running(server) as port, await in_content(port) as wire:
        await wire.say("Subject: no more")
        assert await wire.rest() == TIMED_OUT
    assert box.received == []


async def test_a_handler_that_will_not_hear_of_it_does_not_prolong_the_wait() -> None:
    class Deaf(Box):
        tries = 0

        async def content(
            self, session: Session, envelope: Envelope, content: ContentStream
        ) -> Reply | None:
            for _ in range(1000):
                try:
                    async for _ in content:
                        pass
                except Exception:  # noqa: BLE001 - what a careless handler does
                    self.tries += 1
            return None

    deaf = Deaf()
    server = Server(deaf, deadlines=ServerDeadlines(block=SHORT))
    async with running(server) as port, await in_content(port) as wire:
        with anyio.fail_after(2 * SHORT):  # by a clock that stands still
            assert await wire.rest() == TIMED_OUT
    assert deaf.tries == 1000


async def test_a_session_that_began_again_in_clear_has_its_deadlines_too() -> None:
    sessions = 0

    async def serve(wire: Wire) -> None:
        nonlocal sessions
        sessions += 1
        await wire.send(b"220 mx\r\n")
        assert (await wire.reply()).startswith("EHLO")
        await wire.send(b"250-mx\r\n250 STARTTLS\r\n")
        await wire.reply()
        if sessions == 1:
            await wire.send(b"220 go on\r\n")
            await wire.stream.receive()
            await wire.send(b"that is no handshake\r\n")
        else:
            await anyio.sleep_forever()

    deadlines = ClientDeadlines(mail=SHORT)
    async with raw_server(serve) as port:
        client = Client(HOST, port, tls="opportunistic", deadlines=deadlines)
        with anyio.fail_after(50 * SHORT):
            async with client:
                result = await client.deliver(ENVELOPE, MESSAGE)
    assert sessions == 2
    assert {outcome.reason for outcome in result.outcomes} == {str(DeadlineError("mail", SHORT))}


@pytest.mark.parametrize("implicit", [True, False])
@pytest.mark.parametrize("field", ["tls", "session"])
async def test_server_deadline_for_the_handshake(
    implicit: bool, field: str, box: Box, tls: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing can be said then: the connection ends without a word in clear."""
    deadlines = ServerDeadlines(**{field: SHORT})
    server = Server(box, tls=tls.server, implicit_tls=implicit, deadlines=deadlines)
    async with running(server) as port, await connect(port) as wire:
        if not implicit:
            await wire.reply()
            await wire.ask("EHLO client.example")
            assert (await wire.ask("STARTTLS")).startswith("220")
        assert await wire.rest() == b""
    assert caplog.text == ""


async def test_server_deadline_for_a_login(box: Box) -> None:
    server = Server(
        box,
        authenticator=Accounts(),
        plaintext_auth="always",
        deadlines=ServerDeadlines(auth=SHORT),
    )
    async with running(server) as port, await opened(port) as wire:
        assert (await wire.ask("AUTH LOGIN")).startswith("334")
        assert await wire.rest() == TIMED_OUT


@pytest.mark.parametrize(
    ("where", "reply"),
    [
        ("connect", "421 *"),
        ("mail", "451 4.3.0 *"),
        ("rcpt", "451 4.3.0 *"),
        ("before content", "451 4.3.0 *"),
        ("within content", "451 4.3.0 *"),
        ("after content", "451 4.3.0 *"),
        ("verify", "454 4.7.0 *"),
    ],
)
async def test_server_deadline_for_a_handler(
    where: str, reply: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What hangs is answered for, wherever it hangs, and the session goes on."""
    handler = Hanging()
    handler.where = where
    server = Server(
        handler,
        authenticator=handler,
        plaintext_auth="always",
        failed_login_delay=0.001,
        deadlines=ServerDeadlines(handler=SHORT),
    )
    async with running(server) as port, await connect(port) as wire:
        if where == "connect":
            await wire.play(f"S: {reply}", side="C")
            return
        await wire.reply()
        await wire.ask("EHLO client.example")
        if where == "verify":
            await wire.play(f"C: AUTH PLAIN AGFubgB3cm9uZw==\nS: {reply}", side="C")
        else:
            play = "C: MAIL FROM:<ann@example.org>\n"
            play += f"S: {reply}\n" if where == "mail" else "S: 250*\n"
            if where != "mail":
                play += "C: RCPT TO:<bob@example.net>\n"
                play += f"S: {reply}\n" if where == "rcpt" else "S: 250*\n"
            if where not in ("mail", "rcpt"):
                play += f"C: DATA\nS: 354*\nC: one\nC: two\nC: .\nS: {reply}\n"
            await wire.play(play, side="C")
        handler.where = ""
        await wire.play("C: RSET\nS: 250*\nC: NOOP\nS: 250*\nC: QUIT\nS: 221*", side="C")
    assert "took longer than" in caplog.text


async def test_the_clients_time_is_not_the_handlers(box: Box) -> None:
    """While content trickles in, the handler's clock stands still."""
    server = Server(box, deadlines=ServerDeadlines(handler=5 * SHORT))
    async with running(server) as port, await in_content(port) as wire:
        for _ in range(2):
            await anyio.sleep(8 * SHORT)
            await wire.say("more")
        assert (await wire.ask(".")).startswith("250")
    assert box.received[0].content == b"more\r\n" * 2


@pytest.mark.parametrize("hang_at", [0, 1, 2])
async def test_server_deadline_for_writing(
    hang_at: int, box: Box, caplog: pytest.LogCaptureFixture
) -> None:
    """A client that never reads cannot be told either; half a reply is followed by nothing."""
    stream = Scripted(b"EHLO client.example\r\n", b"HELP\r\n", hang_at=hang_at)
    server = Server(box, deadlines=ServerDeadlines(write=SHORT))
    with anyio.fail_after(60):
        await server.serve_stream(stream)
    assert len(stream.sent) == hang_at
    assert stream.closed
    assert caplog.text == ""


async def test_server_without_deadlines(box: Box) -> None:
    none = ServerDeadlines(**{field.name: None for field in fields(ServerDeadlines)})
    server = Server(box, deadlines=none)
    async with running(server) as port, clear(port) as client:
        await client.send(ENVELOPE, MESSAGE)
        await client.aclose()
        server.stop()


def test_deadline_error_says_which() -> None:
    error = DeadlineError("mail", 300)
    assert str(error) == "no progress within the mail deadline of 300 s"
    assert isinstance(error, TimeoutError)


async def test_an_outer_cancellation_is_no_deadline() -> None:
    with anyio.move_on_after(SHORT) as scope, deadline("mail", 300):
        await anyio.sleep_forever()
    assert scope.cancelled_caught
