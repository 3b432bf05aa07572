"""What a client's session tells of itself: every step in its order, and no secret."""

import anyio
import pytest

from smtpproto import Envelope, Reply
from smtpproto.client import Client
from smtpproto.mechanisms import LOGIN, PLAIN
from smtpproto.observe import (
    Closed,
    CommandSent,
    Connected,
    ContentProgress,
    Event,
    ReplyReceived,
    TlsStarted,
    progress,
    wire_log,
)
from smtpproto.server import Server
from smtpproto.source import CHUNK

from .clock import anyio_backend  # noqa: F401 - a fixture
from .store import Store
from .test_flow import secrets
from .wire import HOST, Wire, raw_server
from .world import ENVELOPE, MESSAGE, PASSWORD, Accounts, Box, Certificates, clear, running

pytestmark = pytest.mark.anyio

BIG = b"0123456789012345678901234567890\r\n" * 8000


def kinds(events: list[Event]) -> list[str]:
    return [type(event).__name__ for event in events]


async def test_a_session_is_told_step_by_step(box: Box, tls: Certificates) -> None:
    events: list[Event] = []
    server = Server(box, tls=tls.server, authenticator=Accounts())
    async with (
        running(server) as port,
        Client(
            "localhost",
            port,
            ssl_context=tls.trusting,
            login=("ann", PASSWORD),
            mechanisms=[PLAIN],
            helo_name="me.example",
            observe=events.append,
        ) as client,
    ):
        await client.send(ENVELOPE, MESSAGE)
    first, last = events[0], events[-1]
    assert isinstance(first, Connected)
    assert (first.host, first.port, first.peer) == ("localhost", port, (HOST, port))
    assert first.local[0] == HOST
    assert last == Closed()
    (secured,) = [event for event in events if isinstance(event, TlsStarted)]
    assert secured.info == client.tls_info
    size = len(MESSAGE)
    assert [event.line for event in events if isinstance(event, CommandSent)] == [
        "EHLO me.example",
        "STARTTLS",
        "EHLO me.example",
        "AUTH PLAIN ****",
        f"MAIL FROM:<ann@example.org> SIZE={size}",
        "RCPT TO:<bob@example.net>",
        f"BDAT {size} LAST",
        "QUIT",
    ]
    replies = [event for event in events if isinstance(event, ReplyReceived)]
    assert [(event.verb, event.reply.code) for event in replies] == [
        ("greeting", 220),
        ("EHLO", 250),
        ("STARTTLS", 220),
        ("EHLO", 250),
        ("AUTH", 235),
        ("MAIL", 250),
        ("RCPT", 250),
        ("BDAT", 250),
        ("QUIT", 221),
    ]
    assert all(event.seconds >= 0 for event in replies)
    assert ContentProgress(size, size) in events


async def test_seconds_are_those_since_the_command() -> None:
    """Pipelined, each counts from its own; the clock is the event loop's."""
    events: list[Event] = []

    async def behaviour(wire: Wire) -> None:
        await wire.play(
            "S: 220 hi\nC: EHLO *\nS: 250-hi\nS: 250 PIPELINING\nC: MAIL *\nC: RCPT *\nC: DATA"
        )
        await wire.say("250 ok")
        await anyio.sleep(0.05)
        await wire.say("550 no", "503 nobody")
        await wire.rest()

    async with raw_server(behaviour) as port, anyio.create_task_group() as tasks:
        client = clear(port, observe=events.append)
        await client.__aenter__()
        await client.deliver(ENVELOPE, MESSAGE)
        tasks.start_soon(client.aclose)
        tasks.cancel_scope.cancel()
    times = {event.verb: event.seconds for event in events if isinstance(event, ReplyReceived)}
    assert times["MAIL"] < times["RCPT"]
    assert min(times["RCPT"], times["DATA"]) >= 0.05


@pytest.mark.parametrize("mechanism", [PLAIN, LOGIN])
@pytest.mark.parametrize("password", [PASSWORD, "wrong-" + PASSWORD])
async def test_no_event_has_a_secret(mechanism: object, password: str, box: Box) -> None:
    events: list[Event] = []
    server = Server(
        box, authenticator=Accounts(), plaintext_auth="always", failed_login_delay=0.001
    )
    async with running(server) as port:
        client = clear(
            port,
            login=("ann", password),
            login_in_clear=True,
            mechanisms=[mechanism],
            observe=events.append,
        )
        try:
            async with client:
                await client.send(ENVELOPE, MESSAGE)
        except Exception:  # noqa: BLE001 - whatever it is: what was told counts
            assert password != PASSWORD
    text = repr(events)
    assert not any(secret in text for secret in secrets(password))
    assert "a dot" not in text
    assert "****" in text


async def test_content_is_counted_as_it_goes(box: Box) -> None:
    reports: list[tuple[int, int | None]] = []

    def report(octets: int, total: int | None) -> None:
        reports.append((octets, total))

    async with running(Server(box)) as port, clear(port, observe=progress(report)) as client:
        await client.send(ENVELOPE, BIG)
    steps = [*range(CHUNK, len(BIG), CHUNK), len(BIG)]
    assert reports == [(octets, len(BIG)) for octets in steps]


async def test_a_trace_is_the_wire_log_of_the_events(box: Box) -> None:
    logged: list[str] = []
    traced: list[str] = []
    async with (
        running(Server(box)) as port,
        clear(port, observe=wire_log(logged.append), trace=traced.append) as client,
    ):
        await client.send(ENVELOPE, MESSAGE)
    assert logged == traced
    assert logged[0] == "S: 220 localhost ESMTP"
    assert logged[-2:] == ["C: QUIT", "S: 221 2.0.0 localhost Closing connection"]


async def test_why_a_session_was_closed() -> None:
    events: list[Event] = []

    async def behaviour(wire: Wire) -> None:
        await wire.play("S: 220 hi\nC: EHLO *\nS: 250 hi\nC: MAIL *")

    async with raw_server(behaviour) as port, clear(port, observe=events.append) as client:
        await client.deliver(ENVELOPE, MESSAGE)
    assert kinds(events)[-2:] == ["CommandSent", "Closed"]
    assert events[-1] == Closed("the server closed the connection")


async def test_lmtp_verdicts_are_told_one_by_one() -> None:
    events: list[Event] = []
    envelope = Envelope("ann@example.org", ["b@example.net", "full-c@example.net"])
    async with Store().running() as port, clear(port, lmtp=True, observe=events.append) as client:
        await client.deliver(envelope, MESSAGE)
        await client.deliver(envelope, MESSAGE)
    replies = [(e.verb, e.reply.code) for e in events if isinstance(e, ReplyReceived)]
    one = [("MAIL", 250), ("RCPT", 250), ("RCPT", 250), ("BDAT", 250), ("BDAT", 452)]
    assert replies == [("greeting", 220), ("LHLO", 250), *one, *one, ("QUIT", 221)]


async def test_an_observer_that_fails_changes_nothing(
    box: Box, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(event: Event) -> None:
        raise RuntimeError("no room in the log")

    async with running(Server(box)) as port, clear(port, observe=fail) as client:
        result = await client.send(ENVELOPE, MESSAGE)
    assert result.outcomes[0].reply == Reply(250, "2.0.0", "Message accepted")
    assert "no room in the log" in caplog.text
