"""The proxy: it answers what the next hop says, and accepts nothing before that one has."""

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
import pytest
from attrs import frozen

from smtpproto import STANDARD, Envelope, Mail, Rcpt, Reply
from smtpproto.client import ClientDeadlines
from smtpproto.handlers import CLOSING, HARD, SOFT, Fault, Faulty, Forward, Memory, NextHop
from smtpproto.result import Fate
from smtpproto.server import Server, ServerDeadlines
from tests.adapters.clock import anyio_backend  # noqa: F401 - a fixture
from tests.adapters.wire import HOST, Behaviour, Wire, connect, raw_server, script
from tests.adapters.world import (
    ENVELOPE,
    MESSAGE,
    PASSWORD,
    Accounts,
    Certificates,
    certificates,
    clear,
    running,
    until,
)

pytestmark = pytest.mark.anyio

THREE = Envelope("ann@example.org", ["b@example.net", "no-c@example.net", "d@example.net"])


@pytest.fixture(autouse=True)
def _no_errors(caplog: pytest.LogCaptureFixture) -> object:
    """What the next hop does is no error of ours."""
    yield
    errors = [r.getMessage() for r in caplog.get_records("call") if r.levelno >= logging.ERROR]
    assert [error for error in errors if "took longer" not in error] == []


@frozen
class Chain:
    """A proxy, and what is behind it."""

    port: int
    proxy: Forward
    behind: Memory
    server: Server


@asynccontextmanager
async def chain(
    faults: Sequence[Fault] = (), *, hides: Sequence[str] = (), **options: object
) -> AsyncIterator[Chain]:
    """A proxy, and a server behind it that has faults and offers less."""
    behind = Memory()
    faulty = Faulty(behind, faults)
    extensions = [e for e in STANDARD if e.keyword not in hides]
    server = Server(faulty, "behind.example", extensions=extensions)
    async with running(server) as there:
        proxy = Forward(
            lambda: NextHop(HOST, there, tls="none", **options),  # type: ignore[arg-type]  # a Client's
            hostname="proxy.example",
        )
        async with running(Server(proxy, "proxy.example")) as port:
            yield Chain(port, proxy, behind, server)
        assert not proxy._hops


@asynccontextmanager
async def before(behaviour: Behaviour) -> AsyncIterator[int]:
    """A proxy before a raw server, which has no answer to QUIT."""
    deadlines = ClientDeadlines(quit=0.01)
    async with raw_server(behaviour) as there:
        proxy = Forward(lambda: NextHop(HOST, there, tls="none", deadlines=deadlines))
        async with running(Server(proxy)) as port:
            yield port
        assert not proxy._hops


async def test_content_passes_with_one_line_in_front() -> None:
    async with chain() as it, clear(it.port) as client:
        (outcome,) = (await client.send(ENVELOPE, MESSAGE)).outcomes
        assert outcome.reply == Reply(250, "2.0.0", "Message accepted")
        (received,) = it.behind.received
        head, _, rest = received.content.partition(b"Subject: ")
        assert head.startswith(
            b"Received: from [127.0.0.1] ([127.0.0.1]) by proxy.example with ESMTP"
        )
        assert rest == MESSAGE.partition(b"Subject: ")[2]
        assert received.envelope.reverse_path == ENVELOPE.reverse_path
        assert received.envelope.forward_paths == ENVELOPE.forward_paths


async def test_each_recipient_has_the_next_hops_answer() -> None:
    def named_no(_: object, command: object) -> bool:
        assert isinstance(command, Rcpt)
        return command.forward_path.mailbox.local_part.startswith(b"no-")

    refusal = Reply(550, "5.1.1", ["No such", "mailbox"])
    async with chain([Fault("RCPT", refusal, when=named_no)]) as it, clear(it.port) as client:
        outcomes = (await client.deliver(THREE, MESSAGE)).outcomes
        assert [one.fate for one in outcomes] == [Fate.ACCEPTED, Fate.PERMANENT, Fate.ACCEPTED]
        assert outcomes[1].reply == refusal
        (received,) = it.behind.received
        assert received.recipients == ["b@example.net", "d@example.net"]


@pytest.mark.parametrize("at", ["MAIL", "RCPT", "DATA", "."])
@pytest.mark.parametrize("reply", [SOFT, HARD])
async def test_a_refusal_at_any_step_is_passed_on(at: str, reply: Reply) -> None:
    async with chain([Fault(at, reply, times=1)]) as it, clear(it.port) as client:
        (outcome,) = (await client.deliver(ENVELOPE, MESSAGE)).outcomes
        assert outcome.reply == reply
        await client.send(ENVELOPE, MESSAGE)
        assert len(it.behind.received) == 1


@pytest.mark.parametrize("at", ["MAIL", "RCPT", "DATA", "."])
@pytest.mark.parametrize("cut", ["before", "within", "after", "421"])
async def test_a_next_hop_that_is_lost_is_451_and_the_next_message_goes(at: str, cut: str) -> None:
    """Never a 250 that the next hop did not say, whenever it goes."""
    fault = Fault(at, CLOSING, times=1) if cut == "421" else Fault(at, cut=cut, times=1)  # type: ignore[arg-type]  # one of the three
    async with chain([fault]) as it, clear(it.port) as client:
        (outcome,) = (await client.deliver(ENVELOPE, MESSAGE)).outcomes
        assert outcome.reply is not None
        said = at == "." and cut == "after"  # it was said, and then it went
        assert outcome.reply.code == (250 if said else 451)
        (outcome,) = (await client.deliver(ENVELOPE, MESSAGE)).outcomes
        assert outcome.accepted
        assert len(it.behind.received) == (1 if at != "." or cut == "421" else 2)


@pytest.mark.parametrize("at", ["CONNECT", "EHLO"])
async def test_a_next_hop_that_refuses_the_session(at: str) -> None:
    faults = [Fault(at, HARD, times=1), Fault("HELO", HARD)]
    async with chain(faults) as it, clear(it.port) as client:
        (outcome,) = (await client.deliver(ENVELOPE, MESSAGE)).outcomes
        assert str(outcome.reply).startswith("451 4.3.5 ")
        assert (await client.deliver(ENVELOPE, MESSAGE)).all_accepted


async def test_nobody_there() -> None:
    proxy = Forward(lambda: NextHop(HOST, 1, tls="none"))
    async with running(Server(proxy)) as port, clear(port) as client:
        (outcome,) = (await client.deliver(ENVELOPE, MESSAGE)).outcomes
        assert str(outcome.reply).startswith("451 4.4.1 ")


async def test_a_next_hop_that_keeps_silent_is_given_up() -> None:
    deadlines = ClientDeadlines(final_dot=0.1)
    faults = [Fault(".", delay=30, times=1)]
    async with chain(faults, deadlines=deadlines) as it, clear(it.port) as client:
        (outcome,) = (await client.deliver(ENVELOPE, MESSAGE)).outcomes
        assert str(outcome.reply).startswith("451 4.4.2 ")
        assert (await client.deliver(ENVELOPE, MESSAGE)).all_accepted


async def test_a_handlers_deadline_ends_it_too() -> None:
    behind = Memory()
    faulty = Faulty(behind, [Fault(".", delay=30, times=1)])
    async with running(Server(faulty)) as there:
        proxy = Forward(lambda: NextHop(HOST, there, tls="none"))
        server = Server(proxy, deadlines=ServerDeadlines(handler=0.3))
        async with running(server) as port, clear(port) as client:
            (outcome,) = (await client.deliver(ENVELOPE, MESSAGE)).outcomes
            assert outcome.reply is not None
            assert outcome.reply.code == 451
            assert not proxy._hops


async def test_tls_and_a_login_there(tmp_path_factory: pytest.TempPathFactory) -> None:
    tls: Certificates = certificates(tmp_path_factory.mktemp("tls"))
    behind = Memory()
    server = Server(behind, tls=tls.server, authenticator=Accounts())
    async with running(server) as there:
        proxy = Forward(
            lambda: NextHop("localhost", there, ssl_context=tls.trusting, login=("ann", PASSWORD))
        )
        async with running(Server(proxy)) as port, clear(port) as client:
            await client.send(ENVELOPE, MESSAGE)
    (received,) = behind.received
    assert received.session.identity == "ann"
    assert received.session.tls is not None


# What a session leaves behind


async def test_one_session_there_for_each_here_and_it_ends_with_it() -> None:
    async with chain() as it:
        async with clear(it.port) as client:
            assert not it.proxy._hops
            for _ in range(3):
                await client.send(ENVELOPE, MESSAGE)
            assert len(it.server.dialogues) == 1
            assert len(it.server.connections) == 1
        await until(lambda: len(it.server.connections) == 0)
        assert {one.session.id for one in it.behind.received} == {1}


@pytest.mark.parametrize("steps", [1, 2, 3])
async def test_a_client_that_goes_in_the_midst_leaves_nothing(steps: int) -> None:
    async with chain() as it:
        async with await connect(it.port) as wire:
            await wire.reply()
            await wire.ask("EHLO c")
            for line in ["MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "DATA"][:steps]:
                await wire.ask(line)
            await wire.send(b"Subject: half\r\n" * 1000)
        await until(lambda: len(it.server.connections) == 0 and not it.proxy._hops)
        assert it.behind.received == []


async def test_content_at_fault_is_not_ended_there() -> None:
    async with chain() as it, await connect(it.port) as wire:
        await wire.reply()
        await wire.ask("EHLO c")
        for codes in ("250", "250", "354", "554"), ("250", "250", "354", "250"):
            lines = ["MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "DATA"]
            lines.append("bare\nline\r\n." if codes[-1] == "554" else "good\r\n.")
            for line, code in zip(lines, codes, strict=True):
                assert (await wire.ask(line))[:3] == code
        assert len(it.behind.received) == 1


async def test_rset_and_another_sender() -> None:
    async with chain() as it, await connect(it.port) as wire:
        await wire.reply()
        await wire.ask("EHLO c")
        await wire.ask("MAIL FROM:<a@b.example>")
        await wire.ask("RSET")
        await wire.ask("MAIL FROM:<other@b.example>")
        await wire.ask("RCPT TO:<c@d.example>")
        await wire.ask("DATA")
        assert (await wire.ask(".")).startswith("250")
        assert [one.sender for one in it.behind.received] == ["other@b.example"]


async def test_a_loop_is_refused() -> None:
    loop = b"Received: x\r\n" * 100 + b"\r\n"
    async with chain() as it, clear(it.port) as client:
        (outcome,) = (await client.deliver(ENVELOPE, loop)).outcomes
        assert str(outcome.reply).startswith("554 5.4.6 ")
        (outcome,) = (await client.deliver(ENVELOPE, loop[13:])).outcomes
        assert outcome.accepted
        assert len(it.behind.received) == 1


# What the next hop does not offer


async def test_8_bit_content_where_it_is_not_taken() -> None:
    async with chain(hides=["8BITMIME", "SIZE"]) as it, clear(it.port) as client:
        (outcome,) = (await client.deliver(ENVELOPE, "Subject: x\r\n\r\né\r\n".encode())).outcomes
        assert str(outcome.reply).startswith("554 5.6.3 ")
        assert (await client.deliver(ENVELOPE, MESSAGE)).all_accepted
        (received,) = it.behind.received
        assert not received.envelope.mail.parameters


async def test_parameters_pass_where_they_are_offered() -> None:
    async with chain() as it, clear(it.port) as client:
        await client.send(ENVELOPE, "Subject: x\r\n\r\né\r\n".encode())
        assert set(it.behind.received[0].envelope.mail.parameters) == {"SIZE", "BODY"}


@pytest.mark.parametrize(
    ("keyword", "line", "answer"),
    [
        ("SMTPUTF8", "MAIL FROM:<a@b.example> SMTPUTF8", "550 5.6.7 "),
        ("DSN", "MAIL FROM:<a@b.example> RET=HDRS", "555 5.5.4 "),
        ("BINARYMIME", "MAIL FROM:<a@b.example> BODY=BINARYMIME", "554 5.6.1 "),
    ],
)
async def test_what_cannot_be_left_out_is_refused(keyword: str, line: str, answer: str) -> None:
    behind = Memory()
    extensions = [e for e in STANDARD if e.keyword != keyword]
    async with running(Server(behind, extensions=extensions)) as there:
        proxy = Forward(lambda: NextHop(HOST, there, tls="none"))
        async with (
            running(Server(proxy, offer=STANDARD)) as port,
            await connect(port) as wire,
        ):
            await wire.reply()
            await wire.ask("EHLO c")
            assert (await wire.ask(line)).startswith(answer)
            assert (await wire.ask("MAIL FROM:<a@b.example>")).startswith("250 ")


# What a next hop may say


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ("550 5.7.1 caf\xe9", "550 5.7.1 caf??"),
        ("550 " + "x" * 600, "550 5.0.0 " + "x" * 500),
        ("571 5.7.1 not from there", "550 5.7.1 not from there"),
        ("471 not now", "450 4.0.0 not now"),
        ("421 4.3.2 mx.example going down", "451 4.3.2 mx.example going down"),
        ("250 fine", "250 2.0.0 fine"),
    ],
)
async def test_a_reply_that_cannot_be_repeated_is_made_one_that_can(said: str, heard: str) -> None:
    async def behaviour(wire: Wire) -> None:
        await wire.play("S: 220 hi\nC: EHLO *\nS: 250 hi\nC: MAIL *")
        await wire.say(said)
        await wire.rest()

    async with before(behaviour) as port, await connect(port) as wire:
        await wire.reply()
        await wire.ask("EHLO c")
        assert await wire.ask("MAIL FROM:<a@b.example>") == heard


async def test_nonsense_is_451() -> None:
    behaviour = script("S: 220 hi\nC: EHLO *\nS: 250 hi\nC: MAIL *\nS: nonsense")
    async with before(behaviour) as port, await connect(port) as wire:
        await wire.reply()
        await wire.ask("EHLO c")
        assert (await wire.ask("MAIL FROM:<a@b.example>")).startswith("451 4.4.2 ")
        assert (await wire.ask("QUIT")).startswith("221")


async def test_250_waits_for_the_next_hops_250() -> None:
    heard = anyio.Event()
    say = anyio.Event()

    async def behaviour(wire: Wire) -> None:
        await wire.play("S: 220 hi\nC: EHLO *\nS: 250 hi\nC: MAIL *\nS: 250 ok")
        await wire.play("C: RCPT *\nS: 250 ok\nC: DATA\nS: 354 go")
        await wire.hear_content()
        heard.set()
        await say.wait()
        await wire.say("250 2.6.0 queued there as 7")
        await wire.rest()

    async with before(behaviour) as port, await connect(port) as wire:
        await wire.reply()
        await wire.ask("EHLO c")
        await wire.ask("MAIL FROM:<a@b.example>")
        await wire.ask("RCPT TO:<c@d.example>")
        await wire.ask("DATA")
        await wire.say(".")
        await heard.wait()
        with anyio.move_on_after(0.05):
            await wire.hear()
            pytest.fail("answered before the next hop")
        say.set()
        assert await wire.hear() == "250 2.6.0 queued there as 7"


async def test_content_streams_through() -> None:
    """What the next hop does not read, the client cannot go on sending."""
    seen = 0

    async def behaviour(wire: Wire) -> None:
        nonlocal seen
        await wire.play("S: 220 hi\nC: EHLO *\nS: 250 hi\nC: MAIL *\nS: 250 ok")
        await wire.play("C: RCPT *\nS: 250 ok\nC: DATA\nS: 354 go")
        await anyio.sleep_forever()

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal seen
        for _ in range(2000):
            seen += 1
            yield b"x" * 65_534 + b"\r\n"

    async with before(behaviour) as port, clear(port) as client:
        with anyio.move_on_after(1):
            await client.deliver(ENVELOPE, chunks())
    assert 1 < seen < 500


async def test_steps_of_a_next_hop_can_be_used_alone() -> None:
    behind = Memory()

    async def chunks() -> AsyncIterator[bytes]:
        yield MESSAGE

    async with running(Server(behind)) as port, NextHop(HOST, port, tls="none") as hop:
        assert (await hop.mail(Mail("a@b.example"))).code == 250
        assert (await hop.rcpt(Rcpt("c@d.example"))).code == 250
        assert (await hop.content(chunks())).code == 250
    assert behind.received[0].content == MESSAGE
