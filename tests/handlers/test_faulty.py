"""Faults: each does what it says, where it says, as often as it says; and the rest goes on."""

from collections.abc import Sequence

import anyio
import pytest

from smtpproto import STANDARD, Envelope, Rcpt, Reply
from smtpproto.client import ClientDeadlines
from smtpproto.core.command import Command, Mail, Noop
from smtpproto.core.event import BadCommand
from smtpproto.extensions import CHUNKING
from smtpproto.handler import Authenticator, HangUp, Interceptor, Session, Welcomer
from smtpproto.handlers import CLOSING, HARD, SOFT, Discard, Fault, Faulty, Memory
from smtpproto.handlers.faulty import Asked
from smtpproto.result import ConnectError, Fate
from smtpproto.server import Server, ServerDeadlines
from tests.adapters.clock import anyio_backend  # noqa: F401 - a fixture
from tests.adapters.wire import Wire, connect
from tests.adapters.world import (
    ENVELOPE,
    MESSAGE,
    Accounts,
    Box,
    Certificates,
    certificates,
    clear,
    running,
    session,
)

pytestmark = pytest.mark.anyio

ODD = Reply(459, "4.7.7", "Odd")
TURNS = [
    ("CONNECT", ""),
    ("EHLO", "EHLO c.example"),
    ("AUTH", "AUTH PLAIN AGFubgBndWVzcw=="),
    ("NOOP", "NOOP"),
    ("VRFY", "VRFY x"),
    ("MAIL", "MAIL FROM:<a@b.example>"),
    ("RCPT", "RCPT TO:<c@d.example>"),
    ("DATA", "DATA"),
    (".", "."),
    ("RSET", "RSET"),
    ("EXPN", "EXPN list"),
    ("QUIT", "QUIT"),
]


async def dialogue(wire: Wire, until: str = "") -> dict[str, str]:
    """Say one of each, to the end of the connection or up to one; what was answered."""
    answers: dict[str, str] = {}
    for at, line in TURNS:
        if at == until:
            break
        try:
            answers[at] = await (wire.ask(line) if line else wire.reply())
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            break
    return answers


def server_with(faults: Sequence[Fault], memory: Memory | None = None, *, seed: int = 0) -> Server:
    return Server(
        Faulty(memory or Memory(), faults, seed=seed),
        "mx.example",
        authenticator=Accounts(),
        plaintext_auth="always",
        failed_login_delay=0,
    )


@pytest.mark.parametrize("at", [at for at, _ in TURNS if at not in ("CONNECT", "EHLO", "QUIT")])
async def test_any_refusal_at_any_command_and_the_session_goes_on(at: str) -> None:
    async with running(server_with([])) as port, await connect(port) as wire:
        usual = await dialogue(wire)
    async with running(server_with([Fault(at, ODD)])) as port, await connect(port) as wire:
        answers = await dialogue(wire)
    assert answers[at] == "459 4.7.7 Odd"
    assert answers.keys() == usual.keys()
    behind = {"MAIL": ["RCPT", "DATA", "."], "RCPT": ["DATA", "."], "DATA": ["."]}.get(at, [])
    for other in set(usual) - {at, *behind}:
        assert answers[other] == usual[other]
    for other in behind:  # nothing was begun, so the session is where it was
        assert answers[other].startswith("5")


@pytest.mark.parametrize(("at", "said"), [("CONNECT", "459 Odd"), ("EHLO", "459 Odd")])
async def test_a_refused_greeting_has_no_status(at: str, said: str) -> None:
    async with running(server_with([Fault(at, ODD)])) as port, await connect(port) as wire:
        assert (await dialogue(wire))[at] == said


@pytest.mark.parametrize("at", [at for at, _ in TURNS])
async def test_421_ends_the_session_wherever_it_is(at: str) -> None:
    async with running(server_with([Fault(at, CLOSING)])) as port, await connect(port) as wire:
        answers = await dialogue(wire)
        assert list(answers)[-1] == at
        assert answers[at].startswith("421 ")
        assert await wire.rest() == b""


@pytest.mark.parametrize("at", [at for at, _ in TURNS])
@pytest.mark.parametrize("cut", ["before", "within", "after"])
async def test_a_cut_before_within_and_after_any_reply(at: str, cut: str) -> None:
    async with running(server_with([])) as port, await connect(port) as wire:
        usual = (await dialogue(wire))[at].replace("\n", "\r\n").encode() + b"\r\n"
    fault = Fault(at, cut=cut)  # type: ignore[arg-type]  # one of the three
    async with running(server_with([fault])) as port, await connect(port) as wire:
        before = await dialogue(wire, until=at)
        assert list(before) == [other for other, _ in TURNS][: len(before)]
        await wire.send(dict(TURNS)[at].encode() + b"\r\n" if at != "CONNECT" else b"")
        rest = await wire.rest()
    if cut == "before":
        assert rest == b""
    elif at in ("CONNECT", "AUTH"):  # no usual one is known there
        assert rest.endswith(b"\r\n") is (cut == "after")
        assert rest[:1] in b"25"
    elif cut == "after":
        assert rest == usual
    else:
        assert rest
        assert usual.startswith(rest)
        assert rest != usual


async def test_a_reply_lost_at_the_dot_leaves_a_message_that_is_kept() -> None:
    """RFC 1047: then the client cannot know, and will send it again."""
    memory = Memory()
    async with session(server_with([Fault(".", cut="before")], memory)) as client:
        (outcome,) = (await client.deliver(ENVELOPE, MESSAGE)).outcomes
    assert outcome.fate is Fate.UNKNOWN
    assert [one.content for one in memory.received] == [MESSAGE]


async def test_content_that_is_dropped_or_refused_is_not_kept() -> None:
    memory = Memory()
    faults = [Fault(".", drop=True, times=1), Fault(".", HARD, times=1)]
    async with session(server_with(faults, memory)) as client:
        fates = [(await client.deliver(ENVELOPE, MESSAGE)).outcomes[0].fate for _ in range(3)]
    assert fates == [Fate.ACCEPTED, Fate.PERMANENT, Fate.ACCEPTED]
    assert len(memory.received) == 1


async def test_dropped_content_that_is_at_fault_is_refused_all_the_same() -> None:
    async with running(server_with([Fault(".", drop=True)])) as port, await connect(port) as wire:
        await dialogue(wire, until=".")
        assert (await wire.ask("bare\nline", ".")).startswith("554")


@pytest.mark.parametrize("cut", ["before", "within"])
async def test_a_cut_in_the_midst_of_content(cut: str) -> None:
    memory = Memory()
    fault = Fault("CONTENT", cut=cut, times=1)  # type: ignore[arg-type]  # one of the two
    async with running(server_with([fault], memory)) as port:
        async with await connect(port) as wire:
            assert list(await dialogue(wire, until="."))[-1] == "DATA"
            await wire.send(b"Subject: x\r\n" * 1000)
            assert await wire.rest() == b""
        async with clear(port) as client:
            await client.send(ENVELOPE, MESSAGE)
    assert len(memory.received) == 1


async def test_a_reply_before_the_content_was_read() -> None:
    async with (
        running(server_with([Fault("CONTENT", HARD, cut="after")])) as port,
        await connect(port) as wire,
    ):
        await dialogue(wire, until=".")
        assert await wire.rest() == b"550 5.3.0 Command failed\r\n"


@pytest.mark.parametrize("at", ["CONNECT", "EHLO", "MAIL", "DATA", "CONTENT", "."])
async def test_a_delay_is_seen_by_the_clients_deadlines(at: str) -> None:
    names = {"CONNECT": "greeting", "CONTENT": "final_dot", ".": "final_dot"}
    deadlines = ClientDeadlines(**{names.get(at, at.lower()): 0.2})
    memory = Memory()
    async with running(server_with([Fault(at, delay=30, times=1)], memory)) as port:
        if at in ("CONNECT", "EHLO"):
            with pytest.raises(ConnectError, match=names.get(at, at.lower())):
                await clear(port, deadlines=deadlines).__aenter__()
        else:
            by_data = [each for each in STANDARD if each is not CHUNKING]
            async with clear(port, deadlines=deadlines, extensions=by_data) as client:
                (outcome,) = (await client.deliver(ENVELOPE, MESSAGE)).outcomes
            assert names.get(at, at.lower()) in outcome.reason
        async with clear(port) as client:
            await client.send(ENVELOPE, MESSAGE)


async def test_a_delay_and_a_refusal_at_one_place_both_happen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("smtpproto.handlers.faulty.anyio.sleep", sleep)
    faults = [
        Fault("MAIL", delay=1),
        Fault("MAIL", SOFT),
        Fault("MAIL", HARD),
        Fault("MAIL", delay=2),
    ]
    async with session(server_with(faults)) as client:
        (outcome,) = (await client.deliver(ENVELOPE, MESSAGE)).outcomes
    assert outcome.reply == SOFT
    assert slept == [3]


async def test_replies_held_back_leave_before_a_cut() -> None:
    """What was answered already stays answered (RFC 2920 §3.2)."""
    async with (
        running(server_with([Fault("DATA", cut="before")])) as port,
        await connect(port) as wire,
    ):
        await dialogue(wire, until="MAIL")
        await wire.say("MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "DATA")
        assert (await wire.rest()).count(b"250 2.1.") == 2


@pytest.mark.parametrize("octets", [1, 200_000])
async def test_the_last_words_are_heard_whatever_was_left_unread(octets: int) -> None:
    server = server_with([Fault("CONTENT", delay=0.05), Fault("CONTENT", HARD, cut="after")])
    async with running(server) as port, await connect(port) as wire:
        await dialogue(wire, until=".")
        await wire.send(b"x" * octets)
        assert await wire.rest() == b"550 5.3.0 Command failed\r\n"


async def test_starttls_and_its_cut(tmp_path_factory: pytest.TempPathFactory) -> None:
    tls: Certificates = certificates(tmp_path_factory.mktemp("tls"))
    for fault in Fault("STARTTLS", SOFT), Fault("STARTTLS", cut="after"):
        server = Server(Faulty(Discard(), [fault]), tls=tls.server)
        async with running(server) as port, await connect(port) as wire:
            await dialogue(wire, until="AUTH")
            answer = await wire.ask("STARTTLS")
            assert answer[:3] == ("450" if fault.reply else "220")
            if fault.cut:
                assert await wire.rest() == b""
            else:
                assert (await wire.ask("NOOP")).startswith("250")


async def test_where_the_command_is_right() -> None:
    def to_bob(_: Session, asked: Asked) -> bool:
        return isinstance(asked, Rcpt) and asked.forward_path.mailbox.local_part == b"bob"

    async with session(server_with([Fault("RCPT", HARD, when=to_bob)])) as client:
        result = await client.deliver(
            Envelope("a@b.example", ["bob@x.example", "eve@x.example"]), MESSAGE
        )
    assert [one.fate for one in result.outcomes] == [Fate.PERMANENT, Fate.ACCEPTED]


# Chance


async def refusals(seed: int, *, sessions: int = 3, meanwhile: bool = False) -> list[list[int]]:
    codes: list[list[int]] = []
    faults = [Fault("NOOP", SOFT, odds=0.5)]
    async with running(server_with(faults, seed=seed)) as port:
        for _ in range(sessions):
            async with await connect(port) as wire:
                await wire.reply()
                await wire.ask("EHLO c")
                codes.append([])
                for _ in range(20):
                    codes[-1].append(int((await wire.ask("NOOP"))[:3]))
                    if meanwhile and len(codes) == sessions:
                        async with await connect(port) as other:  # a later session
                            await other.reply()
                            await other.ask("EHLO c")
                            await other.ask("NOOP")
    return codes


async def test_the_seed_decides() -> None:
    one = await refusals(1)
    assert one == await refusals(1)
    assert one == await refusals(1, meanwhile=True)
    assert one != await refusals(2)
    assert one[0] != one[1] != one[2]
    assert {code for codes in one for code in codes} == {250, 450}


@pytest.mark.parametrize(("odds", "code"), [(0.0, 250), (1.0, 450)])
async def test_never_and_always(odds: float, code: int) -> None:
    async with (
        running(server_with([Fault("NOOP", SOFT, odds=odds)])) as port,
        await connect(port) as wire,
    ):
        await dialogue(wire, until="NOOP")
        assert {int((await wire.ask("NOOP"))[:3]) for _ in range(20)} == {code}


async def test_nothing_is_kept_of_a_session_that_is_over() -> None:
    faulty = Faulty(Discard(), [Fault("NOOP", SOFT, odds=0.5)])
    async with running(Server(faulty)) as port:
        for _ in range(5):
            async with await connect(port) as wire:
                await wire.reply()
                await wire.ask("EHLO c")
                await wire.ask("NOOP")
                await wire.ask("QUIT")
    assert len(faulty._dice) <= 1


async def test_faults_that_are_set_begin_anew() -> None:
    faulty = Faulty(Discard(), [Fault("NOOP", SOFT, times=1)])
    async with session(Server(faulty)) as client:
        codes = [(await client.command(Noop())).code for _ in range(2)]
        faulty.faults = faulty.faults
        codes += [(await client.command(Noop())).code for _ in range(2)]
        faulty.faults = ()
        codes += [(await client.command(Noop())).code]
    assert codes == [450, 250, 450, 250, 250]


# What makes no sense; powers


@pytest.mark.parametrize(
    "make",
    [
        lambda: Fault("no such thing"),
        lambda: Fault("EHLO", Reply(250)),
        lambda: Fault("LHLO", Reply(250)),
        lambda: Fault("XCLIENT", Reply(220)),
        lambda: Fault("DATA", Reply(354)),
        lambda: Fault("BDAT", SOFT),
        lambda: Fault("CONTENT", SOFT),
        lambda: Fault("CONTENT", cut="after"),
        lambda: Fault("MAIL", drop=True),
        lambda: Fault("MAIL", odds=1.5),
        lambda: Fault("MAIL", delay=-1),
        lambda: Fault("MAIL", times=-1),
    ],
)
def test_a_fault_that_cannot_be(make: object) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=r"\w"):
        make()


async def test_the_handlers_other_powers_are_kept() -> None:
    class Powerful(Box):
        async def verify(self, session: Session, question: object) -> bool:
            return True

        async def connect(self, session: Session) -> Reply | None:
            return Reply(554, None, "Not you")

    faulty = Faulty(Powerful())
    assert isinstance(faulty, (Authenticator, Welcomer))
    assert isinstance(faulty, Authenticator)
    assert not isinstance(Faulty(Box()), Authenticator)
    async with running(Server(faulty)) as port, await connect(port) as wire:
        assert await wire.reply() == "554 Not you"


# The hook itself


class Silent(Discard):
    """Answers NOOP and what it does not know; raises at VRFY."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def before(
        self, session: Session, command: Command | BadCommand, usual: Reply | None
    ) -> Reply | None:
        self.seen.append(type(command).__name__)
        if isinstance(command, Noop):
            return Reply(250, "2.0.0", "noop indeed")
        if isinstance(command, BadCommand):
            return Reply(250, "2.0.0", "fine by me")
        if command.verb == b"VRFY":
            raise RuntimeError("no such luck")
        return None


async def test_an_interceptor_may_answer_but_not_accept_what_is_wrong() -> None:
    handler = Silent()
    assert isinstance(handler, Interceptor)
    assert not isinstance(Discard(), Interceptor)
    async with running(Server(handler)) as port, await connect(port) as wire:
        await wire.reply()
        await wire.ask("EHLO c")
        assert await wire.ask("NOOP") == "250 2.0.0 noop indeed"
        assert (await wire.ask("MAIL")).startswith("451")  # a good reply would be a lie
        assert (await wire.ask("VRFY x")).startswith("451")
        assert (await wire.ask("QUIT")).startswith("221")
    assert handler.seen == ["Ehlo", "Noop", "BadCommand", "Vrfy", "Quit"]


async def test_a_handler_with_faults_may_intercept_too() -> None:
    server = Server(Faulty(Silent(), [Fault("NOOP", SOFT, times=1)]))
    async with running(server) as port, await connect(port) as wire:
        await wire.reply()
        await wire.ask("EHLO c")
        assert await wire.ask("NOOP") == str(SOFT)
        assert await wire.ask("NOOP") == "250 2.0.0 noop indeed"


class Waiter(Discard):
    async def before(
        self, session: Session, command: Command | BadCommand, usual: Reply | None
    ) -> Reply | None:
        if isinstance(command, Noop):
            await anyio.sleep_forever()
        return None


async def test_an_interceptor_has_the_handlers_deadline() -> None:
    server = Server(Waiter(), deadlines=ServerDeadlines(handler=0.05))
    async with running(server) as port, await connect(port) as wire:
        await wire.reply()
        await wire.ask("EHLO c")
        assert (await wire.ask("NOOP")).startswith("451")


class Leaves(Discard):
    """Hangs up on one sender, and knows who has gone."""

    def __init__(self) -> None:
        self.gone: list[int] = []

    async def mail(self, session: Session, command: Mail) -> Reply | None:
        raise HangUp(b"451 bye\r\n")

    async def closed(self, session: Session) -> None:
        await anyio.lowlevel.checkpoint()
        self.gone.append(session.id)
        if session.id == 2:
            raise RuntimeError("a handler's fault")
        await anyio.sleep(0 if session.id == 1 else 3600)


async def test_any_power_may_hang_up_and_the_end_is_told() -> None:
    handler = Leaves()
    async with running(Server(handler)) as port:
        for _ in range(2):
            async with await connect(port) as wire:
                await wire.reply()
                await wire.ask("EHLO c")
                await wire.say("MAIL FROM:<a@b.example>")
                assert await wire.rest() == b"451 bye\r\n"
    assert handler.gone == [1, 2]


async def test_the_end_is_told_within_a_limit_even_when_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("smtpproto.server.FAREWELL", 0.05)
    handler = Leaves()
    handler.gone = []
    server = Server(handler)
    for _ in range(2):
        next(server.ids)
    async with running(server) as port:
        wire = await connect(port)
        await wire.reply()
    async with wire:
        assert handler.gone == [3]
