"""The peers against each other, without us: these tell a broken machine from a broken library."""

import contextlib
import smtplib
from collections.abc import Callable
from pathlib import Path

import pytest

from .programs import (
    HOST,
    PATIENCE,
    PostfixServer,
    SmtpSink,
    dovecot,
    free_port,
    missing,
    postfix,
    smtp_sink,
    smtp_source,
    swaks,
)

MESSAGE = b"From: ann@example.org\r\nSubject: greetings\r\n\r\n.dots and words\r\n"


def submit(port: int, *recipients: str) -> None:
    with smtplib.SMTP(HOST, port, timeout=PATIENCE) as session:
        session.sendmail("ann@example.org", recipients, MESSAGE)


@pytest.mark.peer("smtp-source")
@pytest.mark.peer("smtp-sink")
def test_smtp_source_fills_smtp_sink(sink: SmtpSink) -> None:
    done = smtp_source(
        "-m", "20", "-s", "4", "-f", "a@example.org", "-t", "b@example.org", sink.address
    )
    assert done.returncode == 0, done.stdout
    assert sink.dump().count("X-Rcpt-Args: <b@example.org>") == 20


@pytest.mark.peer("swaks")
@pytest.mark.peer("smtp-sink")
def test_swaks_sends_to_smtp_sink(sink: SmtpSink) -> None:
    done = swaks("--server", sink.address, "--from", "a@example.org", "--to", "b@example.org")
    assert done.returncode == 0, done.stdout
    assert "This is a test mailing" in sink.wait_for("X-Rcpt-Args: <b@example.org>")


@pytest.mark.peer("swaks")
@pytest.mark.peer("smtp-sink")
def test_smtp_sink_refuses_on_demand() -> None:
    with smtp_sink("-f", "RCPT") as sink:
        done = swaks("--server", sink.address, "--from", "a@example.org", "--to", "b@example.org")
    assert done.returncode != 0
    assert "500 5.3.0" in done.stdout


@pytest.mark.peer("postfix")
@pytest.mark.peer("smtp-sink")
def test_postfix_as_smart_host(sink: SmtpSink, smart_host: Callable[[int], PostfixServer]) -> None:
    server = smart_host(sink.port)
    submit(server.port, "b@example.org")
    dump = sink.wait_for(".dots and words")
    assert "X-Rcpt-Args: <b@example.org>" in dump
    assert "by postfix.example.test (Postfix)" in dump
    server.wait_for_log("status=sent")


@pytest.mark.peer("postfix")
@pytest.mark.peer("smtp-sink")
def test_postfix_logs_in_to_its_smart_host() -> None:
    with (
        smtp_sink("-v") as sink,
        postfix(relay_to=sink.port, login=("ann", "secret")) as server,
    ):
        submit(server.port, "b@example.org")
        sink.wait_for(".dots and words")
        assert "AUTH PLAIN AGFubgBzZWNyZXQ=" in sink.log()  # \0ann\0secret


@pytest.mark.peer("postfix")
def test_postfix_tries_again(peers: contextlib.ExitStack) -> None:
    port = free_port()
    server = peers.enter_context(postfix(relay_to=port))
    submit(server.port, "b@example.org")
    server.wait_for_log("status=deferred")
    peers.enter_context(smtp_sink(port=port)).wait_for(".dots and words")


@pytest.mark.peer("postfix")
def test_postfix_as_next_hop(next_hop: PostfixServer) -> None:
    submit(next_hop.port, "alice@example.test", "bob@example.test")
    for mailbox in ("alice@example.test", "bob@example.test"):
        (message,) = next_hop.wait_for_messages(mailbox)
        assert message.startswith(b"Return-Path: <ann@example.org>\n")
        assert message.endswith(b"\n\n.dots and words\n")


@pytest.mark.peer("postfix")
@pytest.mark.parametrize("recipient", ["nobody@example.test", "alice@elsewhere.test"])
def test_postfix_refuses_whom_it_does_not_serve(next_hop: PostfixServer, recipient: str) -> None:
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        submit(next_hop.port, recipient)


@pytest.mark.peer("dovecot")
def test_dovecot_reads_a_maildir(tmp_path: Path) -> None:
    maildir = tmp_path / "example.test" / "alice"
    for name in "cur", "new", "tmp":
        (maildir / name).mkdir(parents=True)
    (maildir / "new" / "1.made.by.hand").write_bytes(MESSAGE.replace(b"\r\n", b"\n"))
    with dovecot(f"{tmp_path}/%d/%n") as server:
        assert server.messages("alice@example.test") == [MESSAGE]
        # What arrives later is seen as well, as it would be in a mail program.
        (maildir / "new" / "2.made.by.hand").write_bytes(b"Subject: second\n\nmore\n")
        assert len(server.messages("alice@example.test")) == 2


def test_missing_peer_skips_or_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SMTPPROTO_REQUIRE_PEERS", raising=False)
    with pytest.raises(pytest.skip.Exception, match="needs a peer"):
        missing("a peer")
    monkeypatch.setenv("SMTPPROTO_REQUIRE_PEERS", "1")
    with pytest.raises(pytest.fail.Exception, match="needs a peer"):
        missing("a peer")
