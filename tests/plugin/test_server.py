"""SmtpServer: every kind of test can use it, and it tells what it saw."""

import asyncio
import base64
import builtins
import smtplib
import ssl
import threading
from collections.abc import Iterator
from email.message import EmailMessage
from typing import Any

import aiosmtplib
import anyio
import pytest

from smtpproto import Envelope, LocalProtocolError, Rcpt, Reply
from smtpproto.client import ClientDeadlines
from smtpproto.handler import ContentStream, Session
from smtpproto.handlers import Discard
from smtpproto.result import ConnectError, Fate, LoginError
from smtpproto.server import Connections
from smtpproto.testing import HARD, SOFT, Fault, NotArrivedError, SmtpClient, SmtpServer

ENVELOPE = Envelope("ann@example.org", ["bob@example.net"])
MESSAGE = "Subject: hello\n\nGood morning\n"


@pytest.fixture(params=["asyncio", "trio"])
def server(request: pytest.FixtureRequest) -> Iterator[SmtpServer]:
    with SmtpServer(backend=request.param) as one:
        yield one


@pytest.fixture(scope="module")
def secure() -> Iterator[SmtpServer]:
    with SmtpServer(tls="starttls", accounts={"ann": "sëcret"}, login_required=True) as one:
        yield one


def mail(number: int = 1) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"] = "ann@example.org", "bob@example.net"
    message["Subject"] = f"hello {number}"
    message.set_content("Good morning\n")
    return message


# Every kind of test


def test_a_blocking_test(server: SmtpServer) -> None:
    with smtplib.SMTP(server.host, server.port, "me.example") as session:
        session.send_message(mail())
    (message,) = server.wait_for(1)
    assert (message.sender, message.recipients) == ("ann@example.org", ["bob@example.net"])
    assert message.message["Subject"] == "hello 1"
    assert message.message.get_content() == "Good morning\n"
    assert message.content.endswith(b"\r\n\r\nGood morning\r\n")
    assert message.session.helo_name == "me.example"
    assert (message.session.tls, message.session.identity) == (None, None)


@pytest.mark.anyio
async def test_a_coroutine_of_anyio(server: SmtpServer) -> None:
    async with server.client() as client:
        await client.send(ENVELOPE, MESSAGE)
    assert await server.arrives(1) == server.messages


@pytest.mark.anyio
async def test_it_starts_within_an_event_loop_of_another_kind() -> None:
    with SmtpServer() as server:
        async with server.client() as client:
            await client.send(ENVELOPE, MESSAGE)
    assert len(server.messages) == 1


def test_a_coroutine_of_asyncio_alone(server: SmtpServer) -> None:
    async def test() -> None:
        await aiosmtplib.send(mail(), hostname=server.host, port=server.port)
        async with server.client() as client:
            await client.send(ENVELOPE, MESSAGE)
        assert len(await server.arrives(2)) == 2

    asyncio.run(test())


@pytest.mark.anyio
async def test_what_this_loop_sends_later_can_be_awaited(server: SmtpServer) -> None:
    async def later() -> None:
        await anyio.lowlevel.checkpoint()
        async with server.client() as client:
            await client.send(ENVELOPE, MESSAGE)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(later)
        (message,) = await server.arrives(timeout=60)
    assert message.message["Subject"] == "hello"


def test_what_another_thread_sends_is_waited_for(server: SmtpServer) -> None:
    thread = threading.Thread(target=server.deliver, args=(ENVELOPE, MESSAGE))
    thread.start()
    assert len(server.wait_for(1, timeout=60)) == 1
    thread.join()


def test_several_at_once() -> None:
    with SmtpServer() as one, SmtpServer() as other:
        assert one.port != other.port
        one.deliver(ENVELOPE, MESSAGE)
        assert (len(one.messages), len(other.messages)) == (1, 0)


def test_a_port_of_ones_choice(server: SmtpServer) -> None:
    with pytest.raises(OSError, match="in use"), SmtpServer(port=server.port):
        pass
    with SmtpServer() as one:
        port = one.port
    with SmtpServer(port=port) as one:
        assert one.port == port


# Waiting in vain


def test_what_arrived_is_told_where_more_was_expected(server: SmtpServer) -> None:
    server.deliver(ENVELOPE, MESSAGE)
    with pytest.raises(NotArrivedError) as caught:
        server.wait_for(2, timeout=0.01)
    told = str(caught.value)
    assert told.startswith("1 of 2 messages arrived within 0.01 s\n")
    assert "\n  1. <ann@example.org> -> bob@example.net: 'hello', 32 octets\n" in told
    assert "\n  1 C: MAIL FROM:<ann@example.org> SIZE=32\n" in told
    assert told.splitlines()[-1].startswith("  1 S: 221 2.0.0 localhost ")
    assert "await" not in told


def test_nobody_came(server: SmtpServer) -> None:
    with pytest.raises(AssertionError, match=r"^0 of 1 messages arrived .*\nnobody came$"):
        server.wait_for(timeout=0.01)


@pytest.mark.anyio
async def test_who_blocks_the_loop_is_told(server: SmtpServer) -> None:
    with pytest.raises(NotArrivedError, match="await arrives"):
        server.wait_for(timeout=0.01)
    with pytest.raises(NotArrivedError) as caught:
        await server.arrives(timeout=0.01)
    assert "await" not in str(caught.value)


def test_what_was_is_forgotten_on_request(server: SmtpServer) -> None:
    server.deliver(ENVELOPE, MESSAGE)
    assert server.dialogue[0].startswith("1 S: 220 localhost")
    server.clear()
    assert (server.messages, server.dialogue) == ([], [])


# TLS and logins


def test_starttls_with_a_certificate_to_verify(secure: SmtpServer) -> None:
    secure.clear()
    with smtplib.SMTP("localhost", secure.port) as session:
        session.starttls(context=secure.authority.client_context())
        assert session.noop()[0] == 250
    with (
        smtplib.SMTP("localhost", secure.port) as session,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        session.starttls(context=ssl.create_default_context())


def test_who_logs_in_is_known(secure: SmtpServer) -> None:
    secure.clear()
    result = secure.deliver(ENVELOPE, MESSAGE, login=("ann", "sëcret"))
    assert result.all_accepted
    (message,) = secure.messages
    assert message.session.identity == "ann"
    assert message.session.tls is not None
    assert "sëcret" not in "".join(secure.dialogue)


def test_who_does_not_is_refused(secure: SmtpServer) -> None:
    secure.clear()
    with pytest.raises(LoginError):
        secure.deliver(ENVELOPE, MESSAGE, login=("ann", "guess"))
    (outcome,) = secure.deliver(ENVELOPE, MESSAGE).outcomes
    assert outcome.reply == Reply(530, "5.7.0", "Authentication required")
    with smtplib.SMTP("localhost", secure.port) as session:
        assert not session.has_extn("auth")  # nor is it offered in clear
        session.ehlo()
        assert not session.has_extn("auth")
    assert secure.messages == []


def test_nobody_acts_as_another() -> None:
    with (
        SmtpServer(accounts={"ann": "secret"}) as server,
        smtplib.SMTP(server.host, server.port) as session,
    ):
        session.ehlo()
        for acting, code in ("bob", 535), ("ann", 235):
            token = base64.b64encode(f"{acting}\0ann\0secret".encode()).decode()
            assert session.docmd("AUTH", f"PLAIN {token}")[0] == code


def test_implicit_tls() -> None:
    with SmtpServer(tls="implicit") as server:
        assert server.deliver(ENVELOPE, MESSAGE).all_accepted
        context = server.authority.client_context()
        with smtplib.SMTP_SSL("localhost", server.port, context=context) as session:
            session.send_message(mail())
        assert [one.session.tls is not None for one in server.messages] == [True, True]
        deadlines = ClientDeadlines(greeting=0.2)
        with pytest.raises(ConnectError):
            server.deliver(ENVELOPE, MESSAGE, tls="none", deadlines=deadlines)


def test_logins_in_clear_where_there_is_no_tls() -> None:
    with SmtpServer(accounts={"ann": "secret"}) as server:
        with smtplib.SMTP(server.host, server.port) as session:
            session.login("ann", "secret")
            session.send_message(mail())
        assert server.deliver(ENVELOPE, MESSAGE, login=("ann", "secret")).all_accepted
        assert [one.session.identity for one in server.messages] == ["ann", "ann"]


def test_tls_without_cryptography_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **named: Any) -> Any:
        if name.startswith("cryptography") or name == "signing":
            raise ModuleNotFoundError("No module named 'cryptography'", name="cryptography")
        return real(name, *args, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'smtpproto\[pytest\]'") as caught:
        SmtpServer(tls="starttls").start()
    assert caught.value.name == "cryptography"


# Faults


def test_faults_are_had_on_request_and_changed_at_any_time(server: SmtpServer) -> None:
    server.faults = (Fault("RCPT", SOFT, times=1), Fault(".", HARD, times=1))
    fates = [server.deliver(ENVELOPE, MESSAGE).outcomes[0].fate for _ in range(3)]
    assert fates == [Fate.TRANSIENT, Fate.PERMANENT, Fate.ACCEPTED]
    assert len(server.messages) == 1
    server.faults = (Fault("MAIL", cut="before"),)
    session = smtplib.SMTP(server.host, server.port)
    with pytest.raises(smtplib.SMTPServerDisconnected):
        session.sendmail("a@b.example", ["c@d.example"], b"")
    server.faults = ()
    assert server.deliver(ENVELOPE, MESSAGE).all_accepted


def test_odds_and_a_seed() -> None:
    def fates(seed: int) -> list[Fate]:
        with SmtpServer(faults=[Fault("MAIL", SOFT, odds=0.5)], seed=seed) as server:
            return [server.deliver(ENVELOPE, MESSAGE).outcomes[0].fate for _ in range(12)]

    assert fates(1) == fates(1) != fates(2)


# A handler of one's own


class Choosy(Discard):
    """Reads nothing, and takes mail for one domain."""

    async def connect(self, session: Session) -> Reply | None:
        return Reply(220, None, "choosy.example at your service")

    async def rcpt(self, session: Session, command: Rcpt) -> Reply | None:
        here = command.forward_path.mailbox.domain == b"example.net"
        return None if here else Reply(550, "5.7.1", "Not here")

    async def content(
        self, session: Session, envelope: Envelope, content: ContentStream
    ) -> Reply | None:
        if b"spam" in await anext(content):
            return Reply(554, "5.7.1", "No spam")
        return Reply(250, "2.0.0", "Thank you")


def test_a_handler_is_asked_and_what_it_accepts_is_kept() -> None:
    with SmtpServer(Choosy()) as server:
        both = Envelope("a@b.example", ["c@example.net", "c@example.com"])
        outcomes = server.deliver(both, MESSAGE + "x" * 300_000).outcomes
        assert [str(one.reply) for one in outcomes] == ["250 2.0.0 Thank you", "550 5.7.1 Not here"]
        assert str(server.deliver(ENVELOPE, "spam\n").outcomes[0].reply) == "554 5.7.1 No spam"
        (message,) = server.messages
        assert message.recipients == ["c@example.net"]
        assert message.content.endswith(b"x" * 300_000 + b"\r\n")
        assert "choosy" in server.dialogue[0]


def test_content_at_fault_is_not_kept_whoever_takes_it() -> None:
    with SmtpServer() as server, smtplib.SMTP(server.host, server.port) as session:
        session.ehlo()
        session.mail("a@b.example")
        session.rcpt("c@d.example")
        session.docmd("DATA")
        session.send(b"bare\nline\r\n.\r\n")
        assert session.getreply()[0] == 554
        session.mail("a@b.example")
        session.rcpt("c@d.example")
        session.docmd("DATA")
        session.send(b"half")
        session.close()
    assert server.messages == []


# Beginning and ending


def test_options_are_the_servers() -> None:
    with (
        SmtpServer(hostname="mx.example", connections=Connections(0)) as other,
        pytest.raises(smtplib.SMTPConnectError, match=r"mx\.example Too many"),
    ):
        smtplib.SMTP(other.host, other.port)
    with pytest.raises(ValueError, match="starttls"):
        SmtpServer(tls="yes")  # type: ignore[arg-type]  # that is the point
    with pytest.raises(LocalProtocolError):
        SmtpServer(hostname="no domain").start()


def test_it_can_be_started_again() -> None:
    one = SmtpServer(tls="starttls")
    for number in 1, 2:
        with one:
            one.deliver(ENVELOPE, MESSAGE)
            with pytest.raises(ValueError, match="is running"):
                one.start()
        assert len(one.messages) == number
    with pytest.raises(ValueError, match="not running"):
        one.deliver(ENVELOPE, MESSAGE)
    one.stop()


def test_it_ends_though_somebody_is_still_there() -> None:
    before = set(threading.enumerate())
    with SmtpServer(backend="trio") as one:
        idle = smtplib.SMTP(one.host, one.port)
        busy = smtplib.SMTP(one.host, one.port)
        for session in idle, busy:
            session.ehlo()
        busy.mail("a@b.example")
    assert idle.noop()[0] == 421
    busy.close()
    idle.close()
    assert before.issuperset(threading.enumerate())


def test_without_tls_there_is_no_authority(server: SmtpServer) -> None:
    with pytest.raises(ValueError, match="no TLS"):
        _ = server.authority


def test_a_client_to_call(server: SmtpServer) -> None:
    client = SmtpClient(server)
    assert client.deliver(ENVELOPE, MESSAGE).all_accepted
    assert client(helo_name="me.example").helo_name == "me.example"
