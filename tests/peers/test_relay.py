"""`smtpproto serve` among real mail programs, on both event loops: to it, through it, behind it."""

import contextlib
import smtplib
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.relay.process import Served, serving

from .programs import (
    HOST,
    PATIENCE,
    PostfixServer,
    SmtpSink,
    dovecot,
    free_port,
    postfix,
    smtp_sink,
    smtp_source,
    swaks,
)

SENDER = "ann@our.test"
LOCAL = "bob@our.test"
REMOTE = "alice@example.test"

Serve = Callable[..., Served]


@pytest.fixture(params=["asyncio", "trio"])
def serve(
    request: pytest.FixtureRequest, peers: contextlib.ExitStack, tmp_path: Path
) -> Callable[..., Served]:
    """Start it with mail for our.test, and more options: `serve("--smart-host", address)`."""

    def start(*options: str) -> Served:
        options = ("--local-domain", "our.test", *options)
        return peers.enter_context(serving(tmp_path / "data", *options, backend=request.param))

    return start


def mailbox(served: Served, address: str = LOCAL) -> list[bytes]:
    local_part, _, domain = address.partition("@")
    maildir = served.data / "mail" / domain / local_part
    files = sorted([*maildir.glob("new/*"), *maildir.glob("cur/*")])  # IMAP moves what it has seen
    return [file.read_bytes() for file in files]


def wait_for_mail(served: Served, count: int = 1, address: str = LOCAL) -> list[bytes]:
    what = f"to deliver {count} messages to {address}"
    served.until(lambda: len(mailbox(served, address)) >= count, what)
    return mailbox(served, address)


def submit(served: Served, *recipients: str, text: str) -> None:
    """Submit as a mail program does: STARTTLS, verified, and a login."""
    trusted = ssl.create_default_context(cafile=served.data / "tls" / "cert.pem")
    with smtplib.SMTP(HOST, served.submission, timeout=PATIENCE) as session:
        session.starttls(context=trusted)
        session.login(*served.login)
        message = f"From: {SENDER}\r\nSubject: {text}\r\n\r\n.dots and words\r\n"
        session.sendmail(SENDER, recipients, message.encode())


def by_smtplib(served: Served, recipient: str) -> None:
    submit(served, recipient, text="by smtplib")


def by_swaks(served: Served, recipient: str) -> None:
    user, password = served.login
    done = swaks(
        *("--server", f"{HOST}:{served.submission}", "--tls"),
        *("--auth", "PLAIN", "--auth-user", user, "--auth-password", password),
        *("--from", SENDER, "--to", recipient, "--h-Subject", "by swaks"),
    )
    assert done.returncode == 0, done.stdout


def by_smtp_source(served: Served, recipient: str) -> None:
    # It knows no login: to others than us it may send from a listed network alone.
    address = f"{HOST}:{served.smtp}"
    done = smtp_source("-f", SENDER, "-t", recipient, "-S", "by smtp-source", address)
    assert done.returncode == 0, done.stdout


PROGRAMS = [
    pytest.param(by_smtplib, "by smtplib", id="smtplib"),
    pytest.param(by_swaks, "by swaks", id="swaks", marks=pytest.mark.peer("swaks")),
    pytest.param(
        by_smtp_source, "by smtp-source", id="smtp-source", marks=pytest.mark.peer("smtp-source")
    ),
]


@pytest.mark.parametrize(("program", "subject"), PROGRAMS)
def test_a_message_arrives_in_the_maildir(
    serve: Serve, program: Callable[[Served, str], None], subject: str
) -> None:
    served = serve()
    program(served, LOCAL)
    (message,) = wait_for_mail(served)
    assert message.startswith(b"Return-Path: <ann@our.test>\nReceived: from ")
    assert f"\nSubject: {subject}\n".encode() in message
    assert served.stop() == 0


@pytest.mark.peer("postfix")
@pytest.mark.parametrize(("program", "subject"), PROGRAMS)
def test_a_message_goes_on_to_postfix_as_smart_host(
    serve: Serve, next_hop: PostfixServer, program: Callable[[Served, str], None], subject: str
) -> None:
    served = serve("--smart-host", next_hop.address, "--relay-from", "127.0.0.1/32")
    program(served, REMOTE)
    (message,) = next_hop.wait_for_messages(REMOTE)
    assert f"\nSubject: {subject}\n".encode() in message
    assert b"\nReceived: from localhost " in message  # what Postfix says of us
    assert b" by localhost with " in message  # and we of the program


@pytest.mark.peer("postfix")
def test_who_does_not_exist_at_postfix_is_reported_to_the_sender(
    serve: Serve, next_hop: PostfixServer
) -> None:
    served = serve("--smart-host", next_hop.address)
    submit(served, REMOTE, "nobody@example.test", LOCAL, text="to three")
    next_hop.wait_for_messages(REMOTE)
    wait_for_mail(served)
    (report,) = wait_for_mail(served, address=SENDER)
    assert report.startswith(b"Return-Path: <>\n")
    assert b"Final-Recipient: rfc822; nobody@example.test\n" in report
    assert b"\nStatus: 5.1.1\n" in report
    assert len(next_hop.messages(REMOTE)) == len(mailbox(served)) == 1


@pytest.mark.peer("postfix")
def test_postfix_has_us_as_its_smart_host_with_a_login(
    serve: Serve, peers: contextlib.ExitStack
) -> None:
    served = serve()
    server = peers.enter_context(postfix(relay_to=served.submission, login=served.login))
    with smtplib.SMTP(HOST, server.port, timeout=PATIENCE) as session:
        session.sendmail(SENDER, [LOCAL], b"Subject: by postfix\r\n\r\n.dots and words\r\n")
    (message,) = wait_for_mail(served)
    assert b"from postfix.example.test ([127.0.0.1]) by localhost with ESMTPA" in message
    assert message.endswith(b"\n\n.dots and words\n")
    server.wait_for_log("status=sent (250 2.0.0 Accepted as ")


@pytest.mark.peer("postfix")
def test_postfix_without_a_login_gets_nothing_through(
    serve: Serve, peers: contextlib.ExitStack
) -> None:
    served = serve()
    server = peers.enter_context(postfix(relay_to=served.submission))
    with smtplib.SMTP(HOST, server.port, timeout=PATIENCE) as session:
        session.sendmail(SENDER, [LOCAL], b"Subject: by postfix\r\n\r\nwords\r\n")
    server.wait_for_log("530 5.7.0 Authentication required")
    assert mailbox(served) == []


@pytest.mark.peer("smtp-sink")
def test_what_smtp_source_sends_in_bulk_is_all_at_smtp_sink(serve: Serve, sink: SmtpSink) -> None:
    served = serve("--smart-host", sink.address, "--relay-from", "127.0.0.1/32")
    done = smtp_source(
        *("-m", "100", "-s", "10", "-l", "5000", "-f", SENDER, "-t", REMOTE),
        f"{HOST}:{served.smtp}",
    )
    assert done.returncode == 0, done.stdout
    served.until(lambda: "".join(served.lines).count(" delivered ") >= 100, "to send 100 on")
    assert sink.dump().count(f"X-Rcpt-Args: <{REMOTE}>") == 100


@pytest.mark.peer("smtp-sink")
def test_a_smart_host_that_puts_off_is_asked_again(serve: Serve) -> None:
    with smtp_sink("-r", "RCPT") as sink:
        served = serve("--smart-host", sink.address)
        submit(served, REMOTE, text="later")
        served.until(lambda: " deferred " in "".join(served.lines), "to be put off")
        assert not any(" reported " in line for line in served.lines)


def test_a_smart_host_that_is_down_is_asked_again(serve: Serve) -> None:
    served = serve("--smart-host", f"{HOST}:{free_port()}")
    submit(served, REMOTE, text="later")
    served.until(lambda: " deferred " in "".join(served.lines), "to be put off")


@pytest.mark.peer("dovecot")
def test_dovecot_reads_the_mailbox(serve: Serve) -> None:
    served = serve()
    submit(served, LOCAL, text="for imap")
    (kept,) = wait_for_mail(served)
    with dovecot(f"{served.data}/mail/%d/%n") as server:
        assert server.messages(LOCAL) == [kept.replace(b"\n", b"\r\n")]
        submit(served, LOCAL, text="and one more")
        wait_for_mail(served, 2)
        first, second = server.messages(LOCAL)
    assert b"Subject: for imap\r\n" in first
    assert b"Subject: and one more\r\n" in second


@pytest.mark.peer("dovecot")
@pytest.mark.rfc("2033 §3 one-reply-for-each-recipient")
def test_dovecot_keeps_what_comes_by_lmtp(serve: Serve, tmp_path: Path) -> None:
    with dovecot("%h/../mail-%n", lmtp=True) as server:
        (server.directory / "mail-broken").write_text("a file where a mailbox should be\n")
        (tmp_path / "node.toml").write_text(
            f"""
            data = "data"
            [[routes]]
            recipients = "our.test"
            via = "lmtp:{HOST}:{server.lmtp_port}"
            """
        )
        served = serve("--config", str(tmp_path / "node.toml"))
        submit(served, LOCAL, "broken@our.test", text="for the store")
        served.until(lambda: " delivered " in "".join(served.lines), "to deliver")
        served.until(lambda: " deferred " in "".join(served.lines), "to put off")
        (message,) = server.messages(LOCAL)
        assert b"Subject: for the store\r\n" in message
        assert b"<broken@our.test> at " in "".join(served.lines).encode()
        assert not (served.data / "mail").exists()
