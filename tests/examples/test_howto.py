"""Every file in `examples/howto/` runs, and does what the page that shows it says."""

import os
import re
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from smtpproto.cli.node import ensure_certificate
from smtpproto.server import Server
from tests.adapters.world import PASSWORD, Accounts, Box, certificates, running
from tests.examples.test_examples import EXAMPLES, PATIENCE, ROOT, listening, output


def test_there_are_no_others() -> None:
    """One that is added gets a test here; what the tutorials show is run with them."""
    assert {file.name for file in (EXAMPLES / "howto").glob("*.py")} == {
        *("accept_into_app.py", "asyncio_protocol.py", "behind_proxy.py", "blocking.py"),
        *("lmtp.py", "mechanism.py", "send_with_login.py", "stream_content.py"),
        *("test_policy.py", "xclient.py", "face_the_world.py"),
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


def test_xclient() -> None:
    greeting, listed, stranger = output("howto/xclient.py")
    assert greeting.startswith("220 ")
    assert listed == "192.0.2.1 is taken for 203.0.113.5"
    assert stranger == "198.51.100.9 is taken for 198.51.100.9"


def test_lmtp() -> None:
    assert output("howto/lmtp.py") == [
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


def test_the_tests_on_the_page_pass() -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull),
            *("--rootdir", str(EXAMPLES), str(EXAMPLES / "howto" / "test_policy.py")),
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout
