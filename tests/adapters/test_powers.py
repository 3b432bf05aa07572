"""Powers that a handler may have beside mail, rcpt and content; what fails in one is a 451."""

import asyncio
import base64
from typing import Any, Self

import anyio
import pytest
from attrs import frozen

from smtpproto import STANDARD, Command, Ehlo, Envelope, Extension, Helo, Mail, Rcpt, Reply
from smtpproto.core.command import Expn, Vrfy
from smtpproto.core.event import BadCommand
from smtpproto.core.value import taken
from smtpproto.extensions.etrn import Etrn
from smtpproto.handler import (
    HangUp,
    HeloJudge,
    Interpreter,
    ListExpander,
    MailboxVerifier,
    QueueRunner,
)
from smtpproto.mechanisms import STANDARD as MECHANISMS
from smtpproto.powers import Powers
from smtpproto.server import ContentStream, Server, ServerDeadlines, Session

from .clock import anyio_backend  # noqa: F401 - a fixture
from .wire import Wire, connect, opened
from .world import PASSWORD, Accounts, Box, Certificates, Scripted, running, until

pytestmark = pytest.mark.anyio

LOGIN = base64.b64encode(f"\0ann\0{PASSWORD}".encode()).decode()
FAILED = "451 4.3.0 Local error in processing"


@frozen
class Knock(Command):
    """A verb of somebody's own extension."""

    verb = b"XKNOCK"
    text: bytes = b""

    @classmethod
    def parse(cls, argument: bytes) -> Self:
        return taken(cls, text=argument)

    def argument(self) -> bytes:
        return self.text


KNOCK = Extension("XKNOCK", verbs=(Knock,))


class Clerk(Box):
    """Has all of them, and keeps what it was asked."""

    answer: Reply | None = None

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, str, Any]] = []

    async def ask(self, name: str, session: Session, command: Any) -> Reply | None:
        self.asked.append((name, session.helo_name, command))
        await anyio.lowlevel.checkpoint()
        return self.answer

    async def helo(self, session: Session, command: Ehlo | Helo) -> Reply | None:
        if command.name.endswith(b".bad"):
            return Reply(550, "5.7.1", "Not you")
        if command.name.endswith(b".forged"):
            return Reply(250, None, ["hi", "XFAKE"])
        return await self.ask("helo", session, command)

    async def vrfy(self, session: Session, command: Vrfy) -> Reply | None:
        return await self.ask("vrfy", session, command)

    async def expn(self, session: Session, command: Expn) -> Reply | None:
        return await self.ask("expn", session, command)

    async def etrn(self, session: Session, command: Etrn) -> Reply | None:
        return await self.ask("etrn", session, command)

    async def unknown(self, session: Session, command: Command | BadCommand) -> Reply | None:
        return await self.ask("unknown", session, command)


def test_they_are_protocols_that_can_be_looked_for() -> None:
    clerk = Clerk()
    for power in (HeloJudge, MailboxVerifier, ListExpander, QueueRunner, Interpreter):
        assert isinstance(clerk, power)
        assert not isinstance(Box(), power)


def lines_of(reply: str) -> set[str]:
    return {line[4:].split(" ")[0] for line in reply.splitlines()[1:]}


async def test_expn_and_etrn_are_offered_by_whoever_answers_them(box: Box) -> None:
    for handler, offered in ((box, set[str]()), (Clerk(), {"EXPN", "ETRN"})):
        async with running(Server(handler)) as port, await connect(port) as wire:
            await wire.reply()
            assert lines_of(await wire.ask("EHLO c.example")) & {"EXPN", "ETRN"} == offered
    explicit = Server(Clerk(), offer=[])
    async with running(explicit) as port, await connect(port) as wire:
        await wire.reply()
        assert lines_of(await wire.ask("EHLO c.example")) == set()


async def test_without_them_nothing_is_told() -> None:
    """252 whether there is such a mailbox or not, for nobody is asked (RFC 5321 §3.5.3, §7.3)."""

    class Silent(Box):
        async def rcpt(self, session: Session, command: Rcpt) -> Reply | None:
            raise AssertionError("nobody is asked")

    async with running(Server(Silent())) as port, await connect(port) as wire:
        await wire.play(
            """
            S: 220*
            C: EHLO c.example
            S: 250-*
            """,
            side="C",
        )
        while (await wire.hear())[3] == "-":
            pass
        await wire.play(
            """
            C: VRFY bob@example.net
            S: 252 2.5.0 Cannot verify; send some mail, I will try
            C: VRFY no-bob@example.net
            S: 252 2.5.0 Cannot verify; send some mail, I will try
            C: EXPN list
            S: 502 5.5.1 Command not implemented
            C: ETRN example.org
            S: 502 5.5.1 Command not implemented
            C: XKNOCK
            S: 500 5.5.2 command not recognized
            """,
            side="C",
        )


async def test_what_they_say_is_said() -> None:
    clerk = Clerk()
    server = Server(clerk, extensions=(*STANDARD, KNOCK))
    async with running(server) as port, await connect(port) as wire:
        await wire.reply()
        assert "XKNOCK" in lines_of(await wire.ask("EHLO one.example"))
        for line, usual, code in (
            ("VRFY bob", "252 2.5.0", 250),
            ("EXPN list", "252 2.5.0", 550),
            ("ETRN example.org", "458 4.5.0", 459),
            ("XKNOCK twice", "502 5.5.1", 250),
            ("XBOO", "500 5.5.2", 521),
            ("AUTH PLAIN", "502 5.5.1", 530),
        ):
            clerk.answer = None
            assert (await wire.ask(line)).startswith(usual)
            clerk.answer = Reply(code, f"{code // 100}.7.0", "so be it")
            assert await wire.ask(line) == f"{code} {code // 100}.7.0 so be it"
        clerk.answer = None
        await wire.ask("HELO two.example")
    names = ["helo", *(name for name in ("vrfy", "expn", "etrn") for _ in "12")]
    assert [name for name, _, _ in clerk.asked] == [*names, *["unknown"] * 6, "helo"]
    assert {type(thing) for name, _, thing in clerk.asked if name == "unknown"} == {
        Knock,
        BadCommand,
    }
    # What the session knows is what was accepted, so not yet the name that is judged.
    assert [helo for name, helo, _ in clerk.asked if name == "helo"] == ["", "one.example"]


async def test_what_is_no_command_cannot_be_accepted(caplog: pytest.LogCaptureFixture) -> None:
    clerk = Clerk()
    async with running(Server(clerk)) as port, await opened(port) as wire:
        clerk.answer = Reply(250, "2.0.0", "gladly")
        assert await wire.ask("XBOO") == FAILED
        clerk.answer = Reply(421, "4.7.0", "go away")
        assert await wire.ask("XBOO") == "421 4.7.0 localhost go away"
        assert await wire.rest() == b""
    assert "a handler's reply is none" in caplog.text


@pytest.mark.rfc("5321 §4.2.2 closing-codes-name-the-server")
@pytest.mark.parametrize("said", ["going down", "LocalHost going down"])
async def test_a_421_of_a_handler_says_whose_it_is(said: str) -> None:
    clerk = Clerk()
    async with running(Server(clerk)) as port, await connect(port) as wire:
        await wire.reply()
        clerk.answer = Reply(421, None, [said, "for today"])
        await wire.send(b"EHLO c.example\r\n")
        name = said.partition(" ")[0] if said[0] == "L" else "localhost"
        assert await wire.rest() == f"421-{name} going down\r\n421 for today\r\n".encode()


async def test_malformed_lines_are_not_the_interpreters() -> None:
    clerk = Clerk()
    async with running(Server(clerk)) as port, await connect(port) as wire:
        await wire.reply()
        for line in ("EHLO", "MAIL FROM:<a@b", "RCPT TO:<a@b.example>", "ETRN", "X" * 3000):
            assert (await wire.ask(line))[0] == "5"
    assert clerk.asked == []


async def test_a_name_that_is_refused_is_not_known() -> None:
    clerk = Clerk()
    async with running(Server(clerk)) as port, await connect(port) as wire:
        await wire.reply()
        assert await wire.ask("EHLO x.bad") == "550 Not you"  # no status (RFC 2034 §4)
        assert (await wire.ask("MAIL FROM:<a@b.example>")).startswith("503")
        await wire.ask("EHLO good.example")
        assert await wire.ask("HELO y.bad") == "550 Not you"
        # What announces what is not offered is no reply.
        assert await wire.ask("EHLO z.forged") == "451 Local error in processing"
        await wire.ask("MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "DATA")
        assert [(await wire.reply())[:3] for _ in range(2)] == ["250", "354"]
        assert (await wire.ask("hi", ".")).startswith("250")
    assert clerk.received[0].session.helo_name == "good.example"
    assert clerk.received[0].session.extended


# What fails


class Failing(Clerk):
    """Fails in one power, as it is told to."""

    where = ""

    def fail(self) -> None:
        raise ValueError("the secret of the house")

    async def maybe(self, name: str) -> None:
        await anyio.lowlevel.checkpoint()
        if self.where == name:
            self.fail()

    async def connect(self, session: Session) -> Reply | None:
        await self.maybe("connect")
        return None

    async def before(
        self, session: Session, command: Command | BadCommand, usual: Reply | None
    ) -> Reply | None:
        await self.maybe("before")
        return None

    async def helo(self, session: Session, command: Ehlo | Helo) -> Reply | None:
        await self.maybe("helo")
        return None

    async def ask(self, name: str, session: Session, command: Any) -> Reply | None:
        await self.maybe(name)
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
        await self.maybe("content")
        return await super().content(session, envelope, content)

    async def closed(self, session: Session) -> None:
        await self.maybe("closed")

    async def verify(self, session: Session, question: object) -> bool:
        await self.maybe("verify")
        return True


DIALOGUE = [
    ("helo", "EHLO c.example", "451"),
    ("before", "NOOP", "451"),
    ("vrfy", "VRFY bob", "451"),
    ("expn", "EXPN list", "451"),
    ("etrn", "ETRN example.org", "451"),
    ("unknown", "XBOO", "451"),
    ("verify", "AUTH PLAIN AGFubgB4", "454"),
    ("mail", "MAIL FROM:<a@b.example>", "451"),
    ("rcpt", "RCPT TO:<c@d.example>", "451"),
    ("content", "DATA\r\nhi\r\n.", "451"),
    ("before", "RSET", "451"),
]


async def test_an_exception_in_any_power(caplog: pytest.LogCaptureFixture) -> None:
    """No text of it on the wire, a traceback in the log, and the session goes on."""
    handler = Failing()
    server = Server(
        handler, authenticator=handler, plaintext_auth="always", failed_login_delay=0.001
    )
    async with running(server) as port:
        async with await connect(port) as wire:
            await wire.reply()
            for name, line, code in DIALOGUE:
                handler.where = name
                reply = await wire.ask(line)
                if reply.startswith("354"):
                    reply = await wire.reply()
                assert reply.startswith(code), line
                assert "secret" not in reply
                assert "the secret of the house" in caplog.text
                assert "Traceback" in caplog.text
                caplog.clear()
                handler.where = ""
                if name == "content":
                    await wire.ask("MAIL FROM:<a@b.example>")
                    await wire.ask("RCPT TO:<c@d.example>")
                good = await wire.ask(line)
                if good.startswith("354"):
                    good = await wire.reply()
                assert good[:3] in ("250", "235", "252", "458", "500"), line
            handler.where = "closed"
            assert (await wire.ask("QUIT")).startswith("221")
            assert await wire.rest() == b""
        await until(lambda: "after session" in caplog.text)
        handler.where = "connect"
        caplog.clear()
        async with await connect(port) as wire:
            assert await wire.reply() == "421 localhost Service not available"
            assert await wire.rest() == b""
            assert "the secret of the house" in caplog.text
            handler.where = ""
        async with await connect(port) as wire:
            assert (await wire.reply()).startswith("220")
    assert len(handler.received) == 1


class Astray(Box):
    """Awaits what was cancelled by others."""

    async def mail(self, session: Session, command: Mail) -> Reply | None:
        await self.get_lost()
        return None

    async def closed(self, session: Session) -> None:
        await self.get_lost()

    async def get_lost(self) -> None:
        gone = asyncio.get_running_loop().create_future()
        gone.cancel()
        await gone


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # trio knows none that are not its own
async def test_a_cancellation_astray_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """asyncio raises it for those, too, who only await a task that was cancelled."""
    async with running(Server(Astray())) as port, await connect(port) as other:
        await other.reply()
        async with await connect(port) as wire:
            await wire.reply()
            await wire.ask("EHLO c.example")
            assert await wire.ask("MAIL FROM:<a@b.example>") == FAILED
            assert (await wire.ask("QUIT")).startswith("221")
            assert await wire.rest() == b""
        assert (await other.ask("EHLO c.example")).startswith("250")
        assert "a handler failed in session" in caplog.text
        await until(lambda: "a handler failed after session" in caplog.text)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_cancellation_that_is_wanted_is_obeyed() -> None:
    entered = anyio.Event()

    class Waits(Box):
        async def mail(self, session: Session, command: Mail) -> Reply | None:
            entered.set()
            await anyio.sleep_forever()
            raise AssertionError

    stream = Scripted(b"EHLO c.example\r\n", b"MAIL FROM:<a@b.example>\r\n")
    task = asyncio.ensure_future(Server(Waits()).serve_stream(stream))
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stream.closed


async def test_orders_and_faults_come_out_of_a_handlers_task_group(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Grouped(Box):
        async def rcpt(self, session: Session, command: Rcpt) -> Reply | None:
            async with anyio.create_task_group():
                if str(command.forward_path).startswith("<hang-up"):
                    raise HangUp(b"bye\r\n")
            return None

        async def content(
            self, session: Session, envelope: Envelope, content: ContentStream
        ) -> Reply | None:
            async with anyio.create_task_group():
                await super().content(session, envelope, content)
            return None

    async with running(Server(Grouped())) as port, await opened(port) as wire:
        await wire.say("MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "DATA", "a\nb", ".")
        assert [(await wire.reply())[:3] for _ in range(4)] == ["250", "250", "354", "554"]
        await wire.ask("MAIL FROM:<a@b.example>")
        await wire.say("RCPT TO:<hang-up@d.example>")
        assert await wire.rest() == b"bye\r\n"
    assert caplog.text == ""


async def test_a_handler_that_answers_with_something_else(
    box: Box, caplog: pytest.LogCaptureFixture
) -> None:
    box.replies["mail"] = "250 fine"  # type: ignore[assignment]  # what untyped code may do
    async with running(Server(box)) as port, await opened(port) as wire:
        assert await wire.ask("MAIL FROM:<a@b.example>") == FAILED
        assert (await wire.ask("NOOP")).startswith("250")
    assert "a handler's reply is none" in caplog.text


class Interfering(Box):
    """Answers one verb in the server's place."""

    def __init__(self, verb: bytes, answer: Reply | str) -> None:
        super().__init__()
        self.verb, self.answer = verb, answer
        self.replies["content"] = Reply(250, "2.0.0", "kept")

    async def before(
        self, session: Session, command: Command | BadCommand, usual: Reply | None
    ) -> Reply | None:
        if not isinstance(command, Command) or command.verb != self.verb:
            return None
        if self.answer == "hangs":
            await anyio.sleep_forever()
        return usual if self.answer == "usual" else self.answer  # type: ignore[return-value]  # a Reply, or what fails


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("EHLO c.example", "usual"),
        ("HELO c.example", "usual"),
        ("STARTTLS", "usual"),
        ("XCLIENT NAME=a.example", Reply(220, None, "new")),
        ("AUTH PLAIN AGFubgB4", Reply(235, "2.7.0", "in")),
        ("AUTH LOGIN", Reply(334)),
        ("DATA", "usual"),
        ("DATA", Reply(354, None, "go")),
    ],
)
async def test_what_more_follows_than_a_reply_is_not_accepted_by_another(
    line: str, answer: Reply | str, tls: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    """The session would be where nobody leads it: in a handshake, logged in as nobody."""
    verb, _, _ = line.partition(" ")
    handler = Interfering(b"none", answer)
    server = Server(
        handler,
        authenticator=Accounts(),
        plaintext_auth="always",
        tls=tls.server,
        xclient_from=["127.0.0.1"],
    )
    async with running(server) as port, await opened(port) as wire:
        if verb == "DATA":
            await wire.ask("MAIL FROM:<a@b.example>")
            await wire.ask("RCPT TO:<c@d.example>")
        handler.verb = verb.encode()
        assert (await wire.ask(line)).startswith("451")
        assert f"cannot accept {verb}" in caplog.text
        handler.verb = b"none"
        assert (await wire.ask("NOOP")).startswith("250")
        if verb == "DATA":
            await wire.ask("DATA")
            assert await wire.ask("x", ".") == "250 2.0.0 kept"
        elif verb == "AUTH":
            assert (await wire.ask(f"AUTH PLAIN {LOGIN}")).startswith("235")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Reply(552, "5.2.2", "no room"), "552 5.2.2 no room"),
        (Reply(250, "2.0.0", "gladly"), FAILED),
        ("no reply at all", FAILED),
        ("hangs", FAILED),
    ],
)
async def test_a_chunk_can_be_refused_behind_its_octets(answer: Reply | str, said: str) -> None:
    handler = Interfering(b"BDAT", answer)
    server = Server(handler, deadlines=ServerDeadlines(handler=0.05))
    async with running(server) as port, await chunked(port) as wire:
        await wire.send(b"BDAT 6\r\nNOOP\r\nBDAT 6 LAST\r\nQUIT\r\n")
        assert (await wire.reply())[:3] == "250"
        assert await wire.reply() == said
        handler.verb = b"none"
        await wire.ask("MAIL FROM:<a@b.example>")
        await wire.ask("RCPT TO:<c@d.example>")
        await wire.send(b"BDAT 1 LAST\r\nx")
        assert await wire.reply() == "250 2.0.0 kept"
    assert [one.content for one in handler.received] == [b"x"]


async def test_rset_is_not_refused_within_a_transaction(caplog: pytest.LogCaptureFixture) -> None:
    """Not even by a handler that intercepts it: nobody could say whose recipients come next."""

    class Stubborn(Box):
        async def before(
            self, session: Session, command: Command | BadCommand, usual: Reply | None
        ) -> Reply | None:
            refused = not isinstance(command, BadCommand) and command.verb == b"RSET"
            return Reply(450, "4.3.0", "no") if refused else None

    async with running(Server(Stubborn())) as port, await opened(port) as wire:
        assert (await wire.ask("RSET")).startswith("450")
        await wire.ask("MAIL FROM:<a@b.example>")
        assert (await wire.ask("RSET")).startswith("250")
        assert (await wire.ask("MAIL FROM:<a@b.example>")).startswith("250")
    assert "a handler's reply is none" in caplog.text


# Found out once


async def test_what_a_handler_can_do_is_found_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[object] = []
    of = Powers.of

    def counting(handler: Any, *args: Any) -> Powers:
        found.append(handler)
        return of(handler, *args)

    monkeypatch.setattr(Powers, "of", counting)
    first, second = Box(), Clerk()
    server = Server(first, authenticator=Accounts(), plaintext_auth="always")
    async with running(server) as port:
        for _ in range(3):
            async with await connect(port) as wire:
                await wire.reply()
                assert "AUTH" in lines_of(await wire.ask("EHLO c.example"))
        server.handler = second
        for _ in range(2):
            async with await connect(port) as wire:
                await wire.reply()
                assert "EXPN" in lines_of(await wire.ask("EHLO c.example"))
        server.authenticator = None
        async with await connect(port) as wire:
            await wire.reply()
            assert "AUTH" not in lines_of(await wire.ask("EHLO c.example"))
    assert found == [first, second, second]


async def test_who_was_asked_is_told_of_the_end() -> None:
    """Also where another handler has its place by then, which never heard of the session."""

    class Keeping(Box):
        def __init__(self) -> None:
            super().__init__()
            self.gone: list[int] = []

        async def closed(self, session: Session) -> None:
            self.gone.append(session.id)

    first, second = Keeping(), Keeping()
    server = Server(first)
    async with running(server) as port:
        async with await connect(port) as wire:
            await wire.reply()
            server.handler = second
        await until(lambda: not server.dialogues)
        async with await connect(port) as wire:
            await wire.reply()
        await until(lambda: bool(second.gone))
    assert (first.gone, second.gone) == ([1], [2])


def test_powers() -> None:
    none = Powers.of(Box(), None, MECHANISMS)
    assert (none.welcomer, none.interceptor, none.interpreter, none.closer) == (None,) * 4
    assert not none.commands
    assert not none.mechanisms
    assert not {"EXPN", "ETRN", "DSN"} & {e.keyword for e in none.offer(STANDARD)}
    clerk = Clerk()
    some = Powers.of(clerk, Accounts(), MECHANISMS)
    assert some.interpreter is clerk
    assert {m.name for m in some.mechanisms} == {"PLAIN", "LOGIN"}
    assert {"EXPN", "ETRN"} < {e.keyword for e in some.offer(STANDARD)}


# Between two chunks of a message


async def chunked(port: int) -> Wire:
    wire = await opened(port)
    await wire.say("MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>")
    await wire.send(b"BDAT 5\r\none\r\n")
    assert [(await wire.reply())[:3] for _ in range(3)] == ["250"] * 3
    return wire


async def test_a_power_that_is_slow_between_two_chunks(caplog: pytest.LogCaptureFixture) -> None:
    """It is answered for, and the message goes on."""

    class Slow(Clerk):
        async def vrfy(self, session: Session, command: Vrfy) -> Reply | None:
            await anyio.sleep_forever()
            return None

    slow = Slow()
    server = Server(slow, deadlines=ServerDeadlines(handler=0.05))
    async with running(server) as port, await chunked(port) as wire:
        assert await wire.ask("VRFY bob") == FAILED
        await wire.send(b"BDAT 5 LAST\r\ntwo\r\n")
        assert (await wire.reply()).startswith("250")
    assert slow.received[0].content == b"one\r\ntwo\r\n"
    assert "took longer than 0.05 s" in caplog.text


async def test_hanging_up_between_two_chunks() -> None:
    """The handler that reads is told that there will be no more, and cannot go on."""

    class Hanging(Clerk):
        told = ""

        async def content(
            self, session: Session, envelope: Envelope, content: ContentStream
        ) -> Reply | None:
            try:
                return await super().content(session, envelope, content)
            except Exception as error:  # noqa: BLE001 - what a careless handler does
                self.told = str(error)
                return None

        async def vrfy(self, session: Session, command: Vrfy) -> Reply | None:
            raise HangUp(b"bye")

    hanging = Hanging()
    async with running(Server(hanging)) as port, await chunked(port) as wire:
        await wire.say("VRFY bob")
        assert await wire.rest() == b"bye"
    assert hanging.told == "the content broke off"
    assert hanging.received == []
