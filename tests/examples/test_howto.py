"""Every file in `examples/howto/` runs, and does what the page that shows it says."""

import os
import random
import re
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import pytest
from anyio import to_thread
from anyio.abc import ByteReceiveStream, ByteSendStream, ByteStream, SocketAttribute
from anyio.streams.buffered import BufferedByteReceiveStream
from hypothesis import given

from examples.howto import (
    come_from_smtplib,
    find_settings,
    lmtp_server,
    memory_spool,
    routes,
    seams,
    try_again,
)
from smtpproto import Envelope, Mail, Mailbox, Rcpt, ReversePath
from smtpproto.blocking import Client as BlockingClient
from smtpproto.cli.config import build, load
from smtpproto.cli.node import ensure_certificate
from smtpproto.cli.routes import rules_of
from smtpproto.client import Client
from smtpproto.relay import Host as RelayHost
from smtpproto.relay import Listener, NextHop, Relay, RouteTable, Routing, SQLiteSpool
from smtpproto.relay.reports.story import Delivered, Event
from smtpproto.relay.spool.seam import (
    Fresh,
    Settlement,
    Spool,
    SpoolUnavailable,
    Successor,
    successor,
)
from smtpproto.resolve import Srv
from smtpproto.server import At, Server
from smtpproto.testing import HARD, SOFT, Fault, SmtpServer
from tests.adapters.wire import LOST
from tests.adapters.world import PASSWORD, Accounts, Box, certificates, running
from tests.discover.world import Authority, World
from tests.examples.test_examples import EXAMPLES, PATIENCE, ROOT, Listening, listening, output
from tests.peers.programs import wait_for
from tests.relay import test_spool
from tests.relay.process import serving

pytestmark = pytest.mark.usefixtures("unmeasured")


def test_there_are_no_others() -> None:
    """One that is added gets a test here; what the tutorials show is run with them."""
    assert {file.name for file in (EXAMPLES / "howto").glob("*.py")} == {
        *("accept_into_app.py", "asyncio_protocol.py", "behind_proxy.py", "blocking.py"),
        *("come_from_smtplib.py", "core_lmtp.py", "embedded_relay.py", "face_the_world.py"),
        *("find_settings.py", "own_mta.py", "seams.py"),
        *("lmtp.py", "lmtp_server.py", "mailboxes.py", "mailing_list.py", "mechanism.py"),
        *("memory_spool.py", "observe.py", "own_authenticator.py", "own_filter.py"),
        *("ready_handlers.py", "routes.py"),
        *("send_many.py", "send_with_login.py", "stream_content.py", "test_policy.py"),
        *("test_sending.py", "through_socks.py", "try_again.py", "xclient.py"),
    }


@pytest.mark.anyio
async def test_send_with_login(tmp_path: Path) -> None:
    """It trusts no certificate but what the system does, here the one that we say."""
    tls = certificates(tmp_path).server
    box = Box()
    server = Server(box, tls=tls, authenticator=Accounts(), failed_login_delay=0)

    async def send(password: str, ca: str, *recipients: str) -> list[str]:
        done = await anyio.run_process(
            [
                *(sys.executable, "-W", "error", str(EXAMPLES / "howto" / "send_with_login.py")),
                *("localhost", str(port), "ann", "ann@example.org", *recipients),
            ],
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT / "src"),
                "SMTP_PASSWORD": password,
                "SSL_CERT_FILE": ca,
            },
            check=False,
            stderr=subprocess.STDOUT,
        )
        return [f"exit {done.returncode}", *done.stdout.decode().splitlines()]

    async with running(server) as port:
        trusted = str(tmp_path / "ca.pem")
        assert await send(PASSWORD, trusted, "bob@example.net", "no-one@example.net") == [
            "exit 1",
            "<bob@example.net> is the server's business now",
            "<no-one@example.net> is refused: 550 5.1.1 No such mailbox",
        ]
        assert await send(PASSWORD, trusted, "later-bob@example.net") == [
            "exit 1",
            "<later-bob@example.net> may go well later: 451 4.2.1 Not now",
        ]
        (code, wrong) = await send("guess", trusted, "bob@example.net")
        assert (code, wrong[:31]) == ("exit 1", "wrong user or password: 535 5.7")
        (code, wrong) = await send(PASSWORD, os.devnull, "bob@example.net")
        assert wrong.startswith("no TLS that can be relied on, so nothing was sent: ")
    (code, wrong) = await send(PASSWORD, trusted, "bob@example.net")
    assert wrong.startswith("no session, try again later: ")
    assert len(box.received) == 1
    assert box.received[0].session.identity == "ann"


def test_come_from_smtplib(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is sent before, after and at once is the same; so is what is told of who was refused."""
    with SmtpServer(tls="starttls", accounts={"ann": PASSWORD}, login_required=True) as server:
        context = server.authority.client_context()
        monkeypatch.setattr(ssl, "create_default_context", lambda cafile=None: context)
        monkeypatch.setenv("SMTP_PASSWORD", PASSWORD)
        people = ("ann@example.org", "bob@example.net", "carol@example.net")
        come_from_smtplib.main("localhost", str(server.port), "ann", *people)
        before, *others = (
            (each.sender, each.recipients, each.content, each.session.identity, each.session.tls)
            for each in server.messages
        )
        assert others == [before] * 2
        assert before[0:2] == (people[0], list(people[1:]))

    with SmtpServer() as server:
        told: list[str] = []
        for bad in (people[1:2], people[1:]):
            server.faults = [Fault("RCPT", HARD, when=partial(_is_for, bad))]
            with smtplib.SMTP(server.host, server.port) as smtp:
                come_from_smtplib.refused_before(smtp, people[0], list(people[1:]), "Hello\n")
            told.append(capsys.readouterr().out)
            with BlockingClient(server.host, server.port, tls="none") as client:
                come_from_smtplib.refused_after(client, people[0], list(people[1:]), "Hello\n")
            assert capsys.readouterr().out == told[-1]
    assert told[0] == "bob@example.net 550 5.3.0 Command failed\n"
    assert told[1].count("\n") == 2


def _is_for(people: tuple[str, ...], session: object, asked: object) -> bool:
    return isinstance(asked, Rcpt) and str(asked.forward_path.mailbox) in people


@pytest.mark.anyio
async def test_send_many(tmp_path: Path) -> None:
    """It logs in a few times, and not for each letter; and says of each who did not get it."""
    box = Box()
    server = Server(box, tls=certificates(tmp_path).server, authenticator=Accounts())
    names = ["bob", "no-one", "later-bob", *(f"bob{number}" for number in range(37))]
    file = tmp_path / "names"
    file.write_text("".join(f"{name}@example.net {name.title()}\n" for name in names))
    async with running(server) as port:
        done = await anyio.run_process(
            [
                *(sys.executable, "-W", "error", str(EXAMPLES / "howto" / "send_many.py")),
                *("localhost", str(port), "ann", "ann@example.org", str(file)),
            ],
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT / "src"),
                "SMTP_PASSWORD": PASSWORD,
                "SSL_CERT_FILE": str(tmp_path / "ca.pem"),
            },
            check=False,
            stderr=subprocess.STDOUT,
        )
    *failures, count = done.stdout.decode().splitlines()
    assert done.returncode == 1
    assert sorted(count.split(", ")) == ["1 permanent", "1 transient", "38 accepted"]
    assert sorted(failures) == [
        "line 2: <no-one@example.net> permanent: 550 5.1.1 No such mailbox",
        "line 3: <later-bob@example.net> transient: 451 4.2.1 Not now",
    ]
    assert len({received.session.id for received in box.received}) <= 5
    assert {bytes(received.content).partition(b"\r\n\r\n")[2] for received in box.received} == {
        b"Dear %b,\r\n\r\nthere are some.\r\n" % name.title().encode()
        for name in names
        if not name.startswith(("no-", "later-"))
    }


@pytest.mark.anyio
async def test_try_again(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever was put off, and when nobody could be asked; who was refused is let be."""
    arguments = ("0,0.01,0.01", "ann@example.org", "bob@example.net", "eve@example.net")
    with SmtpServer() as server:
        server.faults = [
            Fault("CONNECT", SOFT, times=1),
            Fault("RCPT", SOFT, when=lambda _, command: "bob" in str(command), times=1),
            Fault("RCPT", HARD, when=lambda _, command: "eve" in str(command)),
        ]
        with pytest.raises(SystemExit):
            await try_again.main(server.host, str(server.port), "1.3,0.01,0.01", *arguments[1:])
    ((bob,),) = [message.envelope.forward_paths for message in server.messages]
    assert str(bob) == "<bob@example.net>"
    first, *others = capsys.readouterr().out.splitlines()
    assert first.startswith("greeting was refused: 4")
    assert [line.partition(":")[0] for line in others] == ["<eve@example.net> permanent"]
    with pytest.raises(SystemExit):
        await try_again.main(server.host, str(server.port), *arguments)
    assert capsys.readouterr().out.splitlines()[-1] == (
        "nobody knows yet: <bob@example.net> <eve@example.net>"
    )


@pytest.mark.anyio
async def test_find_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a world of its own: two providers, one in the domain and one that its SRV record names."""
    world = World(Authority(tmp_path))
    context = world.authority.trusting()
    monkeypatch.setattr(find_settings, "discover", world.discover)
    monkeypatch.setattr(
        find_settings, "Client", partial(Client, connector=world.connect, ssl_context=context)
    )
    monkeypatch.setenv("SMTP_PASSWORD", PASSWORD)
    async with world.serving(
        ("smtp.example.org", 587), ("smtp.hoster.example", 465), failed_login_delay=0
    ):
        await find_settings.main("ann@example.org")
        refused, done = capsys.readouterr().out.splitlines()
        assert refused.startswith("not as ann@example.org: 535 5.7.8")
        assert done == "smtp.example.org:587, required, as ann"

        world.srvs["_submissions._tcp.example.org"] = [Srv(0, 1, 465, "smtp.hoster.example")]
        asked: list[str] = []

        def answer(words: str, prompt: str) -> str:
            asked.append(prompt)
            return words

        monkeypatch.setattr(find_settings, "input", partial(answer, "no"), raising=False)
        with pytest.raises(SystemExit, match="no server for"):
            await find_settings.main("ann@example.org")
        assert asked[0].startswith("Is smtp.hoster.example your provider's? ")
        monkeypatch.setattr(find_settings, "input", partial(answer, "yes"), raising=False)
        await find_settings.main("ann@example.org")
        assert "smtp.hoster.example:465, implicit, as ann" in capsys.readouterr().out

    world.ports.clear()
    with pytest.raises(SystemExit, match="no server"):
        await find_settings.main("ann@example.org")
    assert "smtp.hoster.example:465: cannot connect" in capsys.readouterr().out


def test_accept_into_app(tmp_path: Path) -> None:
    with listening("howto/accept_into_app.py", tmp_path, 0) as app:
        with smtplib.SMTP("127.0.0.1", app.port, "client.example", PATIENCE) as session:
            message = b"From: jo\r\nSubject: how?\r\n\r\n"
            session.sendmail("jo@example.net", ["Help+1@Example.org"], message)
            assert "jo asks: how?" in app.until("asks")
            (kept,) = tmp_path.iterdir()
            assert kept.read_bytes() == message
            for nobody in ("al@example.org", "help@example.com"):
                with pytest.raises(smtplib.SMTPRecipientsRefused):
                    session.sendmail("jo@example.net", [nobody], message)
            session.mail("jo@example.net")
            session.rcpt("help@example.org")
            session.docmd("DATA")
            session.send(b"a bare\nline end\r\n.\r\n")
            assert session.getreply()[0] == 554
        assert list(tmp_path.iterdir()) == [kept]


@pytest.mark.parametrize("workers", [[], ["2"]])
def test_face_the_world(workers: list[str], tmp_path: Path) -> None:
    made = ensure_certificate(tmp_path, ["mx.example.org"])
    file = EXAMPLES / "howto" / "face_the_world.py"
    process = subprocess.Popen(
        [sys.executable, "-W", "error", file, made.cert, made.key, "0", "0", *workers],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            ports = re.fullmatch(r"listening on \[\(.+, (\d+)\), \(.+, (\d+)\)\]\n", line)
            assert ports is not None, line
            trusting = ssl.create_default_context(cafile=made.cert)
            with smtplib.SMTP("localhost", int(ports[1]), timeout=PATIENCE) as session:
                session.starttls(context=trusting)
                with pytest.raises(smtplib.SMTPRecipientsRefused):
                    session.sendmail("jo@example.net", ["al@example.org"], b"")
            with smtplib.SMTP_SSL("localhost", int(ports[2]), context=trusting) as session:
                process.send_signal(signal.SIGHUP)
                assert session.noop()[0] == 250
                process.send_signal(signal.SIGTERM)
                assert process.wait(PATIENCE) == 0
                assert session.getreply()[0] == 421
                session.close()
        finally:
            process.kill()


def test_stream_content() -> None:
    streamed, sized, refused = output("howto/stream_content.py")
    assert streamed == sized
    assert streamed.startswith("<b@example.org> accepted: 250 2.0.0 36000023 octets, ")
    assert refused.startswith("<b@example.org> permanent: 552 5.3.4 ")


def test_mechanism() -> None:
    accepted, refused = output("howto/mechanism.py")
    assert accepted == "<al@example.org> accepted: 250 2.0.0 Thank you, jo"
    assert refused.startswith("535 5.7.8 ")


def test_behind_proxy() -> None:
    assert output("howto/behind_proxy.py") == [
        "a client at 192.0.2.7",
        "<b@example.org> accepted: 250 2.0.0 Message accepted",
    ]


class Socks:
    """A SOCKS5 proxy (RFC 1928) that lets `jo` through to one host, whatever it is called."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.asked: list[bytes] = []

    async def serve(self, client: ByteStream) -> None:
        async with client:
            stream = BufferedByteReceiveStream(client)
            _, methods = await stream.receive_exactly(2)
            assert 2 in await stream.receive_exactly(methods)
            await client.send(b"\5\2")
            assert await stream.receive_exactly(1) == b"\1"
            login = [await self._counted(stream), await self._counted(stream)]
            good = login == [b"jo", b"secret"]
            await client.send(b"\1\0" if good else b"\1\1")
            if not good:
                return
            assert await stream.receive_exactly(4) == b"\5\1\0\3"
            self.asked.append(await self._counted(stream))
            await stream.receive_exactly(2)
            if self.asked[-1] != b"mx.example":
                await client.send(b"\5\4\0\1" + bytes(6))  # host unreachable
                return
            await client.send(b"\5\0\0\1" + bytes(6))
            async with (
                await anyio.connect_tcp("127.0.0.1", self.port) as server,
                anyio.create_task_group() as ways,
            ):
                ways.start_soon(self._pass, stream, server)
                ways.start_soon(self._pass, server, client)

    async def _counted(self, stream: BufferedByteReceiveStream) -> bytes:
        (length,) = await stream.receive_exactly(1)
        return await stream.receive_exactly(length)

    async def _pass(self, source: ByteReceiveStream, sink: ByteSendStream) -> None:
        with suppress(*LOST):  # whichever end goes first
            async for octets in source:
                await sink.send(octets)
            await sink.aclose()


@pytest.mark.anyio
async def test_observe() -> None:
    async with running(Server(Box())) as port:
        done = await anyio.run_process(
            [
                *(sys.executable, "-W", "error", str(EXAMPLES / "howto" / "observe.py")),
                *("127.0.0.1", str(port), "ann@example.org", "bob@example.net"),
            ],
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        )
    lines = done.stdout.decode().splitlines()
    replies = [line.partition(" after ")[0] for line in lines if " after " in line]
    chunks = ["BDAT: 250"] * 6
    assert replies == ["greeting: 220", "EHLO: 250", "MAIL: 250", "RCPT: 250", *chunks, "QUIT: 221"]
    assert [line for line in lines if "octets" in line][-1] == "100% of 360023 octets"


@pytest.mark.anyio
async def test_through_socks() -> None:
    box = Box()

    async def send(login: str, host: str) -> str:
        done = await anyio.run_process(
            [
                *(sys.executable, "-W", "error", str(EXAMPLES / "howto" / "through_socks.py")),
                *(f"socks5://{login}@127.0.0.1:{proxy_port}", host, "25"),
                *("ann@example.org", "bob@example.net"),
            ],
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
            check=False,
            stderr=subprocess.STDOUT,
        )
        return done.stdout.decode().splitlines()[-1]

    async with (
        running(Server(box)) as port,
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as tasks,
    ):
        proxy_port = listener.extra(SocketAttribute.local_port)
        proxy = Socks(port)
        tasks.start_soon(listener.serve, proxy.serve)
        accepted = "<bob@example.net> accepted: 250 2.0.0 Message accepted"
        assert await send("jo:secret", "mx.example") == accepted
        assert "cannot connect to nobody.example:25: the proxy says" in await send(
            "jo:secret", "nobody.example"
        )
        assert "cannot connect to mx.example:25: the proxy says" in await send(
            "jo:guess", "mx.example"
        )
        tasks.cancel_scope.cancel()
    assert proxy.asked == [b"mx.example", b"nobody.example"]  # by their names
    assert len(box.received) == 1


def test_mailing_list(tmp_path: Path) -> None:
    assert output("howto/mailing_list.py", tmp_path) == [
        "Expanded <dev@example.org>",
        "Failed <gone@example.org>",
        "gone@example.org bounced: 5.1.1",
    ]
    (report,) = (tmp_path / "mail" / "example.org" / "dev-owner" / "new").iterdir()
    assert "\nTo: <dev-owner+gone=example.org@example.org>\n" in report.read_text()


def test_xclient() -> None:
    said = output("howto/xclient.py")
    assert [line[:3] for line in said if line[:3].isdigit()] == [
        *("220", "250", "220", "250", "250", "250", "221")
    ]
    assert "mail from a client at 203.0.113.5" in said
    assert "which was passed on for b'198.51.100.9'" in said


def test_lmtp_server() -> None:
    assert output("howto/lmtp_server.py") == [
        "220 mailbox.example.org LMTP",
        "250 HELP",
        "250 2.1.0 Sender ok",
        "250 2.1.5 Recipient ok",
        "550 5.1.1 No such mailbox",
        "250 2.1.5 Recipient ok",
        "354 End data with <CR><LF>.<CR><LF>",
        "250 2.0.0 Message accepted",
        "452 4.2.2 Mailbox full",
        "221 2.0.0 mailbox.example.org Closing connection",
    ]


def test_lmtp() -> None:
    assert output("howto/lmtp.py") == [
        "<al@example.org> accepted: 250 2.0.0 Delivered",
        "<bo@example.org> transient: 452 4.2.2 Mailbox full",
        "not delivered: <bo@example.org>",
    ]


@pytest.mark.anyio
async def test_routes(tmp_path: Path) -> None:
    store = lmtp_server.Mailboxes({b"al": 10_000})

    def use(relay: Listening) -> None:
        with smtplib.SMTP("127.0.0.1", relay.port, "client.example", PATIENCE) as session:
            refused = session.sendmail(
                "jo@example.net",
                ["al@example.org", "no@example.org", "noreply@example.org", "x@old.example"],
                "Subject: Hi\n\n",
            )
        assert {name: reply[0] for name, reply in refused.items()} == {
            "no@example.org": 550,  # the store was asked
            "x@old.example": 550,  # and nobody may relay
        }
        told = relay.until("Discarded(", "Delivered(")
        (delivered,) = (line for line in told if line.startswith("Delivered("))
        assert "localhost:" in delivered

    with TemporaryDirectory() as directory:  # the path of a socket has to be short
        path = f"{directory}/lmtp"
        async with anyio.create_task_group() as tasks:
            await tasks.start(Server(store, lmtp=True).serve_at, [At(path=path)])

            def run() -> None:
                with listening("howto/routes.py", tmp_path, 0, path) as relay:
                    use(relay)

            await to_thread.run_sync(run)
            tasks.cancel_scope.cancel()
    (kept,) = store.kept[b"al"]
    assert kept.endswith(b"Subject: Hi\r\n\r\n")


@pytest.mark.anyio
async def test_routes_of_our_own() -> None:
    customers = routes.Customers({"a.example": "mail.a.example", "b.example": "suspended"})
    said = [
        await customers.find(Mailbox.parse(f"x@{domain}.example"), ReversePath(None))
        for domain in "abc"
    ]
    assert [str(rule and rule.to) for rule in said] == [
        "smtp:mail.a.example:25",
        "refused: 450 4.2.1 This customer is suspended",
        "mx",
    ]


ROUTED = {
    ("jo@far.example", "noreply@example.org"): "discarded",
    ("jo@far.example", "al@example.org"): "lmtp:unix:/run/dovecot/lmtp",
    ("jo@far.example", "al@sub.branch.example"): "smtp:mail.branch.example:25",
    ("jo@far.example", "al@moving.example"): "on hold: they move until Monday",
    ("al@example.org", "jo@old.example"): "refused: 550 5.1.6 They are at new.example now",
    ("al@shop.example.org", "jo@far.example"): "smtp:smtp.shop-mail.example:587",
    ("al@example.org", "jo@friend.example"): "mx",
    ("al@example.org", "jo@far.example"): "smtp:smtp.provider.example:465",
    (None, "jo@far.example"): "smtp:smtp.provider.example:465",
}


@pytest.mark.anyio
async def test_routes_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "routes.toml"
    file.write_text((EXAMPLES / "howto" / "routes.toml").read_text(encoding="utf-8"))
    (tmp_path / "shop.password").write_text("one\n")
    (tmp_path / "provider.password").write_text("two\n")
    made = ensure_certificate(tmp_path, ["mail.branch.example"])
    (tmp_path / "branch.pem").write_bytes(made.cert.read_bytes())
    settings = build(load(file))
    assert settings.verify_recipients
    table = RouteTable(rules_of(settings.routes))
    for (sender, recipient), said in ROUTED.items():
        rule = await table.find(Mailbox.parse(recipient), ReversePath(sender))
        assert rule is not None
        assert str(rule.to) == said


def test_seams() -> None:
    """With every part another, strangers and programs are kept out, and the rest arrives."""
    stranger, program, *events, sum_ = output("howto/seams.py")
    assert stranger == "<all@example.org> permanent: 550 5.7.1 We do not know you"
    refused = re.fullmatch(
        r"<all@example\.org> permanent: 554 5\.7\.0 No programs by mail \((\w+)\)", program
    )
    assert refused
    assert sorted(events) == [
        "Deferred <jo@far.example> mx.far.example:25",
        "Delivered <ann@example.org> mailbox ann@example.org",
        "Delivered <jo@far.example> mx.far.example:25",
    ]
    assert sum_ == "1 in the database, 1 out there"


@pytest.mark.anyio
async def test_seams_that_are_asked_of_those_elsewhere() -> None:
    partners = seams.Partners({"al@partner.example"})
    there = NextHop.fixed(RelayHost("mx.partner.example"))
    assert await partners.verify(Mailbox("Al", "partner.example"), there) is None
    refusal = await partners.verify(Mailbox("bo", "partner.example"), there)
    assert str(refusal) == "550 5.1.1 No such mailbox"


@pytest.mark.anyio
async def test_a_relay_by_a_router_of_our_own(tmp_path: Path) -> None:
    """All that is ours goes into one store, and nothing anywhere else, whoever asks."""
    store, delivered = lmtp_server.Mailboxes({b"al": 10_000}), anyio.Event()

    def observe(event: Event) -> None:
        if isinstance(event, Delivered):
            delivered.set()

    with TemporaryDirectory() as directory:  # the path of a socket has to be short
        path = f"{directory}/lmtp"
        router: Routing = seams.OneStore("example.org", path)
        mailboxes = seams.MailTable(seams.Database(tmp_path / "none"))  # is not asked
        async with (
            SQLiteSpool.open(tmp_path / "spool") as spool,
            anyio.create_task_group() as tasks,
        ):
            relay = Relay(
                hostname="mail.example.org",
                spool=spool,
                mailboxes=mailboxes,
                router=router,
                networks=[ip_network("127.0.0.0/8")],
                observe=observe,
            )
            await tasks.start(Server(store, lmtp=True).serve_at, [At(path=path)])
            ((_, port),) = await tasks.start(relay.run, [Listener("smtp", "127.0.0.1", 0)])
            async with Client("127.0.0.1", port, tls="none") as client:
                result = await client.deliver(
                    Envelope("jo@example.net", ["al@Example.org", "jo@far.example"]), "Hi\n"
                )
            with anyio.fail_after(PATIENCE):
                await delivered.wait()
            tasks.cancel_scope.cancel()
    assert [str(outcome.reply)[:9] for outcome in result.outcomes] == ["250 2.0.0", "550 5.1.2"]
    assert len(store.kept[b"al"]) == 1
    assert not (tmp_path / "none").exists()


def test_own_mta(tmp_path: Path) -> None:
    with listening("howto/own_mta.py", tmp_path, 0) as mta:
        with smtplib.SMTP("127.0.0.1", mta.port, "client.example", PATIENCE) as session:
            refused = session.sendmail(
                "<>", ["ann@example.org", "jo@far.example"], "Subject: Hi\n\nhello\n"
            )
            assert {name: reply[0] for name, reply in refused.items()} == {"jo@far.example": 550}
            with pytest.raises(smtplib.SMTPSenderRefused, match="Not from there"):
                session.sendmail("eve@playground.example", ["ann@example.org"], "")
        mta.until("Delivered(")
    (mail,) = (tmp_path / "mail/example.org/ann/new").iterdir()
    assert "\nReceived: from client.example" in mail.read_text()


def test_embedded_relay(tmp_path: Path) -> None:
    """The program hears of each order; the reverse-path gets the report as any other."""
    with SmtpServer() as server:
        server.faults = [Fault("RCPT", HARD, when=lambda _, command: "no-one" in str(command))]
        told = output("howto/embedded_relay.py", tmp_path, server.host, server.port)
        assert sorted(told) == [
            f"order 17: the letter is with 127.0.0.1:{server.port}",
            "order 18: will not arrive: 550 5.3.0 Command failed",
        ]
        (letter,) = server.messages
        assert letter.message["Subject"] == "Your order 17"


def test_home_server(tmp_path: Path) -> None:
    """What listens where, whose mail stays, and where the rest goes, as the page has it."""
    file = tmp_path / "home.toml"
    file.write_text((EXAMPLES / "howto" / "home_server.toml").read_text(encoding="utf-8"))
    (tmp_path / "provider.password").write_text("secret\n")
    settings = build(load(file))
    assert str(settings.smart_host) == "smtp.provider.example:587"
    assert settings.smart_host_tls.value == "required"
    assert str(settings.listen) == "127.0.0.1:2525"
    assert [str(network) for network in settings.relay_from] == ["127.0.0.1/32"]
    assert list(settings.local_domains) == ["example.org"]


def test_catch_all(tmp_path: Path) -> None:
    """Everybody's mail is taken from everybody, and stays."""
    config = EXAMPLES / "howto" / "catch_all.toml"
    with serving(tmp_path, "--config", str(config), backend="asyncio") as served:
        with smtplib.SMTP("127.0.0.1", served.smtp, "client.example", PATIENCE) as session:
            people = ["ann@example.org", "jo@far.example", "who@localhost"]
            assert session.sendmail("eve@gone.example", people, "Subject: 1\n\nhi\n") == {}
        wait_for(lambda: len([*tmp_path.glob("mail/*/*/new/*")]) == 3, "three messages")
        assert "by MX" not in "".join(served.lines)
    found = {str(file.parent.relative_to(tmp_path)) for file in tmp_path.glob("mail/*/*/new/*")}
    assert found == {
        "mail/example.org/ann/new",
        "mail/far.example/jo/new",
        "mail/localhost/who/new",
    }


def test_own_authenticator(tmp_path: Path) -> None:
    sent, other, wrong, told, again, locked = output("howto/own_authenticator.py", tmp_path)
    assert sent == "sent"
    assert "550 5.7.1 you may not send as boss@example.org" in other
    assert told == "al is locked out at 127.0.0.1"
    assert wrong == again == "535 5.7.8 Authentication credentials invalid"
    assert locked == "454 4.7.0 Too many failed logins; try again in 10 minutes"


def test_own_filter(tmp_path: Path) -> None:
    said = output("howto/own_filter.py", tmp_path)
    assert said.count("al@example.net to <di@example.org>: accepted") == 1
    assert said.count("jo@example.net to <di@example.org>: transient") == 1
    for line in (
        "  rcpt: crowds=defer (No more than 2 at once, please)",
        "  mail: crowds=accept (a friend)",
        "  content: header=pass",
        "  content: crowds=quarantine (it speaks of prizes)",
        "  held for <bo@example.org>: crowds: it speaks of prizes",
    ):
        assert line in said


def test_filters_by_the_file_of_serve(tmp_path: Path) -> None:
    """All that the page shows is read, and asked: here of the size, before anything is sent."""
    config = EXAMPLES / "howto" / "filters.toml"
    with serving(tmp_path / "data", "--config", str(config), backend="asyncio") as served:
        shown = re.findall(r"^ +(\d)\. (\w+)", "".join(served.lines), re.MULTILINE)
        assert [name for _, name in shown] == [
            *("networks", "blocklist", "names", "greylist", "header", "rspamd", "limits")
        ]
        with smtplib.SMTP("127.0.0.1", served.smtp, "client.example", PATIENCE) as session:
            session.ehlo()
            assert session.mail("ann@example.net")[0] == 250
            code, text = session.rcpt("bob@example.org")
            assert (code, text[:17]) == (450, b"4.7.1 Greylisted:")


def test_core_lmtp() -> None:
    assert output("howto/core_lmtp.py") == [
        "<al@example.org>: 250 2.0.0 Delivered",
        "<bo@example.org>: 452 4.2.2 Mailbox full",
    ]


@pytest.mark.parametrize("name", ["blocking", "asyncio_protocol"])
def test_the_core_elsewhere(name: str) -> None:
    with listening(f"howto/{name}.py", 0) as server:
        with smtplib.SMTP("127.0.0.1", server.port, "client.example", PATIENCE) as session:
            for _ in range(2):
                session.sendmail(
                    "jo@example.net", ["al@example.org"], b"Subject: 1\r\n\r\n.dot\r\n"
                )
                (told,) = server.until("octets")
                assert told == "<al@example.org> 20 octets"
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\n")
            with sock.makefile("rb") as replies:
                assert [line[:3] for line in replies] == [b"220", b"500"]  # and closed


def test_ready_handlers(tmp_path: Path) -> None:
    with (
        listening("howto/ready_handlers.py", tmp_path, 0) as gate,
        smtplib.SMTP("127.0.0.1", gate.port, "client.example", PATIENCE) as session,
    ):
        content = "Subject: 1\r\n\r\nhello\r\n"
        refused = session.sendmail("jo@example.net", ["a/l@example.org", "b@example.com"], content)
        assert refused == {"b@example.com": (550, b"5.7.1 Not here")}
        with pytest.raises(smtplib.SMTPSenderRefused, match="Not from there"):
            session.sendmail("jo@example.com", ["al@example.org"], content)
    (kept,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert kept.parent == tmp_path / "example.org" / "a%2fl" / "new"
    text = kept.read_text()
    assert text.startswith("Return-Path: <jo@example.net>\nReceived: ")
    assert "by gate.example.org" in text
    assert "by mx.example.org" in text
    assert text.endswith("\nSubject: 1\n\nhello\n")


def mail_in(root: Path) -> dict[str, int]:
    """How many messages there are, by the directories that they are in."""
    mail = root / "mail/example.org"
    return Counter(str(file.parent.relative_to(mail)) for file in mail.glob("**/new/*"))


def tell_mailboxes(port: int, data: Path, delivered: Callable[[int], object]) -> None:
    """Go through what the page on mailboxes says, with mailboxes at example.org.

    `delivered` waits until so many more are: a message is in its place before it is counted.
    """
    (data / "mail/example.org/ann/.shop").mkdir(parents=True)
    (data / "mail/example.org/bob/cur").mkdir(parents=True)

    def send(*names: str) -> dict[str, int]:
        with smtplib.SMTP("127.0.0.1", port, "client.example", PATIENCE) as session:
            recipients = [f"{name}@example.org" for name in names]
            try:
                refused = session.sendmail("jo@example.net", recipients, "Subject: 1\r\n\r\nhi\r\n")
            except smtplib.SMTPRecipientsRefused as error:
                refused = error.recipients
        return {name.partition("@")[0]: code for name, (code, _) in refused.items()}

    assert send("ann+shop", "ann+other", "bob", "sales", "who") == {}
    delivered(5)
    assert mail_in(data) == {"ann/.shop/new": 1, "ann/new": 2, "bob/new": 2}
    (tagged,) = (data / "mail/example.org/ann/.shop/new").iterdir()
    assert "\nDelivered-To: ann+shop@example.org\n" in tagged.read_text()
    assert send("bob", "bob+x", "ann") == {"bob": 452, "bob+x": 452}
    delivered(1)
    assert mail_in(data)["ann/new"] == 3


def test_mailboxes(tmp_path: Path) -> None:
    with listening("howto/mailboxes.py", tmp_path, 0) as relay:
        tell_mailboxes(
            relay.port, tmp_path, lambda more: [relay.until("Delivered(") for _ in range(more)]
        )


def test_mailboxes_by_the_file_of_serve(tmp_path: Path) -> None:
    data = tmp_path / "data"
    config = EXAMPLES / "howto" / "mailboxes.toml"
    expected = 0
    with serving(data, "--config", str(config), backend="asyncio") as served:

        def delivered(more: int) -> None:
            nonlocal expected
            expected += more
            served.until(
                lambda: "".join(served.lines).count(" delivered ") >= expected, "to deliver"
            )

        tell_mailboxes(served.smtp, data, delivered)


@pytest.mark.parametrize("name", ["test_policy", "test_sending"])
def test_the_tests_on_the_page_pass(name: str) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull),
            *("-p", "pytest_smtpproto", "--strict-markers"),  # installed or not
            *("--rootdir", str(EXAMPLES), str(EXAMPLES / "howto" / f"{name}.py")),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout


def test_a_relay_with_its_queue_in_memory(tmp_path: Path) -> None:
    with listening("howto/memory_spool.py", tmp_path, 0) as relay:
        with smtplib.SMTP("127.0.0.1", relay.port, "client.example", PATIENCE) as session:
            session.sendmail(
                "ann@example.org", ["bob@example.org", "eve@example.org"], "Subject: 1\n\nhello\n"
            )
        relay.until("Delivered(")
        relay.until("Delivered(")
    for name in ("bob", "eve"):
        (mail,) = (tmp_path / "example.org" / name / "new").iterdir()
        assert mail.read_text().endswith("\nSubject: 1\n\nhello\n")
    assert not (tmp_path / "spool").exists()


@given(steps=test_spool.STEPS)
def test_the_spool_in_memory_does_what_the_model_does(steps: list[test_spool.Step]) -> None:
    """What `SQLiteSpool` is held to, but for restarts."""

    def opens(watch: test_spool.Watch) -> AbstractAsyncContextManager[Spool]:
        dice = random.Random(2)
        return nullcontext(
            memory_spool.MemorySpool(lambda: 1_000_000.0, watch, random=dice.randrange)
        )

    lasting = (step for step in steps if step[0] != "restart")
    anyio.run(test_spool.run_steps, opens, lasting)


@pytest.mark.anyio
async def test_the_spool_in_memory_replaces_an_alias_and_loses_what_is_done() -> None:
    spool = memory_spool.MemorySpool()
    alias, ann, bob = (
        Mailbox("all", "example.org"),
        Rcpt("ann@example.org"),
        Rcpt("bob@example.org"),
    )
    async with spool.receive() as incoming:
        await incoming.write(b"Hi\r\n")
        await incoming.commit(Mail("eve@example.net"), [Rcpt("all@example.org")], now=1)
    expanded = Settlement(
        0, None, "250 so it is", becomes=(Successor(ann), Successor(bob)), alias=alias
    )
    await spool.settle(incoming.id, [expanded], now=2)
    (entry,) = await spool.claim(2, 5, 60)
    assert [(r.number, r.rcpt, r.alias) for r in entry.recipients] == [
        (successor(0, 0), ann, alias),
        (successor(0, 1), bob, alias),
    ]
    await spool.settle(entry.id, [Settlement(r.number, None) for r in entry.recipients], now=3)
    assert await spool.next_due() is None
    with pytest.raises(SpoolUnavailable):
        [chunk async for chunk in spool.content(entry.id)]
    with pytest.raises(ValueError, match="recipient"):
        spool.put("x", Fresh(Mail(None), (), b"", ""), 3)
