"""`smtpproto sink`: it takes everything, counts it, and ends when asked."""

import re
import signal
import smtplib
import subprocess

import pytest

from tests.cli.conftest import Run, Spawn
from tests.peers.programs import free_port, smtp_source, swaks


def port_of(process: "subprocess.Popen[str]") -> int:
    """The port, once it listens."""
    assert process.stdout is not None
    line = process.stdout.readline()
    match = re.search(r"^listening on \S+:(\d+),", line)
    assert match is not None, (line, process.stderr and process.stderr.read())
    return int(match[1])


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.peer("smtp-source")
def test_it_takes_everything_and_counts_it(spawn: Spawn, backend: str, end: signal.Signals) -> None:
    process = spawn("sink", "--listen", "127.0.0.1:0", "--backend", backend)
    port = port_of(process)
    done = smtp_source(
        *("-m", "30", "-s", "3", "-r", "2", "-l", "1000", f"127.0.0.1:{port}"),
    )
    assert done.returncode == 0, done.stdout
    process.send_signal(end)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert err == ""
    assert re.fullmatch(
        r"(?:stopping.*\n)?\d+ sessions, 30 messages, 60 recipients, [\d.]+ KiB, \d+/s\n", out
    )


def test_a_session_under_way_may_finish(spawn: Spawn, backend: str) -> None:
    process = spawn("sink", "--listen", "127.0.0.1:0", "--verbose", "--backend", backend)
    with smtplib.SMTP("127.0.0.1", port_of(process), timeout=30) as session:
        session.ehlo()
        session.mail("ann@example.org")
        session.rcpt("bob@example.net")
        assert session.docmd("DATA")[0] == 354
        process.send_signal(signal.SIGTERM)
        session.send(b"Subject: x\r\n\r\nx\r\n.\r\n")
        assert session.getreply()[0] == 250
        assert session.getreply()[0] == 421
        session.close()
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "<ann@example.org> -> <bob@example.net>  17 octets" in out
    assert "1 sessions, 1 messages, 1 recipients, 17 octets" in out


def test_a_second_signal_does_not_wait(spawn: Spawn, backend: str) -> None:
    process = spawn("sink", "--listen", "127.0.0.1:0", "--backend", backend)
    with smtplib.SMTP("127.0.0.1", port_of(process), timeout=30) as session:
        session.ehlo()
        session.mail("ann@example.org")
        session.rcpt("bob@example.net")
        assert session.docmd("DATA")[0] == 354
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert process.stdout.readline() == "stopping; once more does not wait for sessions\n"
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=30)
        assert process.returncode == 0
        assert "0 messages" in out
        session.close()


@pytest.mark.peer("smtp-source")
def test_workers_take_and_count_everything_together(spawn: Spawn, backend: str) -> None:
    process = spawn("sink", "--listen", "127.0.0.1:0", "--workers", "2", "--backend", backend)
    port = port_of(process)
    done = smtp_source(*("-m", "40", "-s", "8", "-r", "2", "-l", "1000", f"127.0.0.1:{port}"))
    assert done.returncode == 0, done.stdout
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert err == ""
    assert re.fullmatch(r"\d+ sessions, 40 messages, 80 recipients, [\d.]+ KiB, \d+/s\n", out)


def test_workers_on_a_port_that_is_taken(cli: Run, clear_port: int) -> None:
    result = cli("sink", "--listen", f"127.0.0.1:{clear_port}", "--workers", "2")
    assert result.exit_code == 1
    assert "the address is in use by another program" in result.stderr


@pytest.mark.peer("swaks")
def test_on_loopback_every_login_is_taken(spawn: Spawn) -> None:
    process = spawn("sink", "--listen", "127.0.0.1:0")
    server = f"127.0.0.1:{port_of(process)}"
    done = swaks(
        *("--server", server, "--from", "a@example.org", "--to", "b@example.org"),
        *("--auth", "LOGIN", "--auth-user", "anybody", "--auth-password", "anything"),
    )
    assert done.returncode == 0, done.stdout


def test_a_port_that_is_taken(cli: Run, clear_port: int) -> None:
    result = cli("sink", "--listen", f"127.0.0.1:{clear_port}")
    assert result.exit_code == 1
    assert result.stderr == (
        f"smtpproto: cannot listen on 127.0.0.1:{clear_port}: "
        "the address is in use by another program\n"
    )


def test_an_address_that_is_none(cli: Run) -> None:
    result = cli("sink", "--listen", f"192.0.2.1:{free_port()}")
    assert result.exit_code == 1
    assert "this machine does not have that address" in result.stderr
    result = cli("sink", "--listen", "25")
    assert result.exit_code == 2
    assert "'25' is without a port" in result.stderr
