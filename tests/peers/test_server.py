"""Our server against clients that others wrote; it runs in a thread, on both event loops."""

import asyncio
import contextlib
import smtplib
import ssl
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from pathlib import Path

import aiosmtplib
import pytest
from anyio.from_thread import start_blocking_portal

from smtpproto import Reply
from smtpproto.server import Server
from tests.adapters.test_lmtp_server import Store
from tests.adapters.world import PASSWORD, Accounts, Box, Certificates, certificates, until

from .programs import HOST, PATIENCE, PostfixServer, postfix, smtp_source, swaks

Serving = Callable[[Server], int]


@pytest.fixture
def serving(anyio_backend: str) -> Iterator[Serving]:
    """`serving(server)`: run it in a thread until the test ends; gives its port."""
    with contextlib.ExitStack() as stack:
        portal = stack.enter_context(start_blocking_portal(anyio_backend))

        def serve(server: Server) -> int:
            running, address = portal.start_task(server.serve, HOST)
            port: int = address[1]

            def stop() -> None:
                portal.call(server.stop)
                running.result(timeout=PATIENCE)

            stack.callback(stop)
            return port

        yield serve


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def tls(directory: Path) -> Certificates:
    return certificates(directory)


@pytest.fixture
def box() -> Box:
    return Box()


def message(text: str = "Grüße\n.\n..dots\n") -> EmailMessage:
    made = EmailMessage()
    made["From"] = "ann@example.org"
    made["To"] = "bob@example.net"
    made["Subject"] = "hello"
    made.set_content(text)
    return made


def submission(box: Box, tls: Certificates) -> Server:
    return Server(box, tls=tls.server, authenticator=Accounts(), failed_login_delay=0.001)


# smtplib


@pytest.mark.peer("smtplib")
def test_smtplib_submits(serving: Serving, box: Box, tls: Certificates) -> None:
    port = serving(submission(box, tls))
    with smtplib.SMTP(HOST, port, timeout=PATIENCE) as client:
        client.starttls(context=tls.trusting)
        with pytest.raises(smtplib.SMTPAuthenticationError):
            client.login("ann", "wrong")
        client.login("ann", PASSWORD)
        client.send_message(message())
        refused = client.sendmail(
            "ann@example.org", ["no-x@example.net", "b@example.net"], b"raw\r\n.\r\ndots\r\n"
        )
        assert list(refused) == ["no-x@example.net"]
        assert client.noop()[0] == 250
        assert client.verify("bob")[0] == 252
    first, second = box.received
    assert first.session.identity == "ann"
    assert first.session.tls is not None
    assert b"Subject: hello\r\n" in first.content
    assert second.content == b"raw\r\n.\r\ndots\r\n"


@pytest.mark.peer("smtplib")
def test_smtplib_over_implicit_tls(serving: Serving, box: Box, tls: Certificates) -> None:
    port = serving(Server(box, tls=tls.server, implicit_tls=True))
    with smtplib.SMTP_SSL(HOST, port, timeout=PATIENCE, context=tls.trusting) as client:
        client.send_message(message())
    assert len(box.received) == 1


@pytest.mark.peer("smtplib")
def test_smtplib_says_helo(serving: Serving, box: Box) -> None:
    with smtplib.SMTP(HOST, serving(Server(box)), timeout=PATIENCE) as client:
        client.helo("old.example")
        client.sendmail("ann@example.org", ["b@example.net"], b"old\r\n")
    assert box.received[0].session.helo_name == "old.example"
    assert not box.received[0].session.extended


# aiosmtplib


@pytest.mark.peer("aiosmtplib")
@pytest.mark.parametrize("implicit", [False, True])
def test_aiosmtplib_submits(implicit: bool, serving: Serving, box: Box, tls: Certificates) -> None:
    server = submission(box, tls)
    server.implicit_tls = implicit
    port = serving(server)

    async def submit(context: ssl.SSLContext) -> None:
        client = aiosmtplib.SMTP(
            hostname=HOST,
            port=port,
            tls_context=context,
            use_tls=implicit,
            start_tls=not implicit,
            username="ann",
            password=PASSWORD,
        )
        async with client:
            protocol = client.protocol
            for _ in range(3):
                await client.send_message(message())
        assert protocol is not None  # it does not wait for what it closes
        await until(lambda: protocol.transport is None)

    asyncio.run(submit(tls.trusting))
    assert [received.session.identity for received in box.received] == ["ann"] * 3


# swaks


@pytest.mark.peer("swaks")
@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--pipeline",),
        ("--tls",),
        ("--tls", "--pipeline"),
        ("--protocol", "SMTP"),
        ("--tls", "--auth", "PLAIN"),
        ("--tls", "--auth", "LOGIN"),
        ("--tls", "--auth", "PLAIN", "--pipeline"),
    ],
    ids=" ".join,
)
def test_swaks_sends(flags: tuple[str, ...], serving: Serving, box: Box, tls: Certificates) -> None:
    port = serving(submission(box, tls))
    login = ("--auth-user", "ann", "--auth-password", PASSWORD) if "--auth" in flags else ()
    done = swaks(
        *("--server", f"{HOST}:{port}", "--helo", "swaks.example"),
        *("--from", "ann@example.org", "--to", "bob@example.net,eve@example.net"),
        *flags,
        *login,
    )
    assert done.returncode == 0, done.stdout
    (received,) = box.received
    assert len(received.envelope.rcpts) == 2
    assert (received.session.tls is not None) is ("--tls" in flags)
    assert received.session.identity == ("ann" if login else None)
    assert b"This is a test mailing" in received.content


@pytest.mark.peer("swaks")
def test_swaks_over_implicit_tls(serving: Serving, box: Box, tls: Certificates) -> None:
    port = serving(Server(box, tls=tls.server, implicit_tls=True))
    done = swaks(
        *("--server", f"{HOST}:{port}", "--tls-on-connect", "--helo", "swaks.example"),
        *("--from", "ann@example.org", "--to", "bob@example.net"),
    )
    assert done.returncode == 0, done.stdout
    assert len(box.received) == 1


@pytest.mark.peer("swaks")
def test_swaks_is_refused(serving: Serving, box: Box, tls: Certificates) -> None:
    port = serving(submission(box, tls))
    common = ("--server", f"{HOST}:{port}", "--from", "a@example.org", "--helo", "swaks.example")
    wrong = swaks(
        *(*common, "--to", "b@example.net", "--tls"),
        *("--auth", "PLAIN", "--auth-user", "ann", "--auth-password", "wrong"),
    )
    assert "535 5.7.8" in wrong.stdout
    unknown = swaks(*common, "--to", "no-b@example.net")
    assert "550 5.1.1 No such mailbox" in unknown.stdout
    assert wrong.returncode
    assert unknown.returncode
    assert box.received == []


@pytest.mark.peer("swaks")
@pytest.mark.parametrize("pipeline", [False, True])
def test_swaks_speaks_lmtp(pipeline: bool, serving: Serving) -> None:
    """It reads a reply for each recipient, and tells so if one is refused."""
    store = Store(outcomes={"full": Reply(452, "4.2.2", "Mailbox full")})
    port = serving(Server(store, lmtp=True))
    done = swaks(
        *("--server", f"{HOST}:{port}", "--protocol", "LMTP", "--helo", "swaks.example"),
        *("--from", "ann@example.org", "--to", "al@example.net,full@example.net,bo@example.net"),
        *(("--pipeline",) if pipeline else ()),
    )
    assert "<-  250 2.0.0 Message accepted" in done.stdout
    assert "<** 452 4.2.2 Mailbox full" in done.stdout
    ((recipients, content),) = store.delivered
    assert len(recipients) == 3
    assert b"This is a test mailing" in content


@pytest.mark.peer("swaks")
@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize("tls_on_connect", [False, True])
def test_swaks_as_a_proxy(
    version: str, tls_on_connect: bool, serving: Serving, box: Box, tls: Certificates
) -> None:
    server = Server(box, tls=tls.server, implicit_tls=tls_on_connect, proxy_from=[HOST])
    port = serving(server)
    done = swaks(
        *("--server", f"{HOST}:{port}", "--helo", "swaks.example"),
        *("--from", "ann@example.org", "--to", "bob@example.net"),
        *("--proxy-version", version, "--proxy-family", {"1": "TCP4", "2": "AF_INET"}[version]),
        *("--proxy-source", "192.0.2.7", "--proxy-source-port", "40000"),
        *("--proxy-dest", "192.0.2.25", "--proxy-dest-port", "25"),
        *(("--tls-on-connect",) if tls_on_connect else ()),
    )
    assert done.returncode == 0, done.stdout
    (received,) = box.received
    assert received.session.peer == ("192.0.2.7", 40_000)
    assert received.session.local == ("192.0.2.25", 25)


@pytest.mark.peer("swaks")
def test_swaks_says_xclient(serving: Serving, box: Box) -> None:
    port = serving(Server(box, xclient_from=[HOST]))
    done = swaks(
        *("--server", f"{HOST}:{port}", "--helo", "swaks.example"),
        *("--from", "ann@example.org", "--to", "bob@example.net"),
        *("--xclient-addr", "192.0.2.7", "--xclient-port", "40000", "--xclient-login", "ann"),
        *("--xclient-name", "client.example"),
    )
    assert done.returncode == 0, done.stdout
    (received,) = box.received
    assert received.session.peer == ("192.0.2.7", 40_000)
    assert received.session.identity == "ann"
    assert received.session.helo_name == "swaks.example"


# smtp-source


@pytest.mark.peer("smtp-source")
def test_smtp_source_speaks_lmtp(serving: Serving) -> None:
    store = Store()
    port = serving(Server(store, lmtp=True))
    flags = ("-L", "-s", "4", "-m", "20", "-r", "5", "-d")
    done = smtp_source(*flags, "-f", "a@example.org", "-t", "b@example.net", f"{HOST}:{port}")
    assert done.returncode == 0, done.stdout
    assert [len(recipients) for recipients, _ in store.delivered] == [5] * 20


@pytest.mark.peer("smtp-source")
@pytest.mark.parametrize(
    "flags",
    [
        ("-s", "1", "-m", "50"),
        ("-s", "10", "-m", "200", "-c"),
        ("-s", "5", "-m", "50", "-d"),  # one session for all of a connection's messages
        ("-s", "2", "-m", "10", "-r", "150"),  # recipients of each
        ("-s", "4", "-m", "20", "-l", "500000"),  # octets of each
    ],
    ids=" ".join,
)
def test_smtp_source_sends_many(flags: tuple[str, ...], serving: Serving, box: Box) -> None:
    port = serving(Server(box))
    done = smtp_source(*flags, "-f", "a@example.org", "-t", "b@example.net", f"{HOST}:{port}")
    assert done.returncode == 0, done.stdout
    assert len(box.received) == int(flags[3])
    if "-r" in flags:
        assert all(len(received.envelope.rcpts) == 150 for received in box.received)
    if "-l" in flags:
        assert all(len(received.content) > 490_000 for received in box.received)
    if "-d" in flags:
        assert len({received.session.id for received in box.received}) <= 5


# Postfix


@pytest.mark.peer("postfix")
def test_postfix_hands_over_to_us(
    serving: Serving,
    box: Box,
    tls: Certificates,
    smart_host: Callable[[int], PostfixServer],
) -> None:
    port = serving(Server(box, tls=tls.server))
    server = smart_host(port)
    with smtplib.SMTP(HOST, server.port, timeout=PATIENCE) as client:
        client.sendmail(
            "ann@example.org", ["b@example.net", "no-c@example.net"], b"x: y\r\n\r\n.\r\n"
        )
    log = server.wait_for_log("status=bounced")
    log = server.wait_for_log("status=sent")
    assert "No such mailbox" in log
    delivered = [r for r in box.received if r.content.endswith(b"\r\n\r\n.\r\n")]
    assert [str(path) for path in delivered[0].envelope.forward_paths] == ["<b@example.net>"]


@pytest.mark.peer("postfix")
def test_postfix_delivers_by_lmtp(serving: Serving, peers: contextlib.ExitStack) -> None:
    """It hears of each recipient by itself, and keeps but the one that it is to try again."""
    store = Store(outcomes={"full": Reply(452, "4.2.2", "Mailbox full")})
    store.replies["content"] = Reply(550, "5.0.0", "Not asked")
    port = serving(Server(store, lmtp=True))
    settings = {
        "transport_maps": f"static:lmtp:inet:{HOST}:{port}",
        "lmtp_host_lookup": "native",
        "lmtp_destination_recipient_limit": "10",
    }
    server = peers.enter_context(postfix(relay_to=port, settings=settings))
    with smtplib.SMTP(HOST, server.port, timeout=PATIENCE) as client:
        names = ["al@example.net", "full@example.net", "no-one@example.net", "bo@example.net"]
        client.sendmail("ann@example.org", names, b"x: y\r\n\r\n.\r\n")
    server.wait_for_log("status=deferred")
    server.wait_for_log("status=bounced")
    log = server.wait_for_log("to=<bo@example.net>")
    assert log.count("status=sent") >= 2
    assert "Mailbox full" in log
    recipients, content = store.delivered[0]
    assert set(recipients) == {"<al@example.net>", "<full@example.net>", "<bo@example.net>"}
    assert content.endswith(b"\r\n\r\n.\r\n")
