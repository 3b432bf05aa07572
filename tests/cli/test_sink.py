"""`smtpproto sink`: it takes everything, counts it, and ends when asked."""

import re
import signal
import smtplib
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import click
import pytest

from smtpproto import Reply
from smtpproto.cli import sink
from smtpproto.cli.faults import faults, places, reply, waits
from smtpproto.cli.options import Backend
from smtpproto.core.reply import Severity
from smtpproto.handlers import HARD, SOFT, Fault
from tests.cli.conftest import Run, Spawn
from tests.peers.programs import free_port, smtp_sink, smtp_source, swaks


def port_of(process: "subprocess.Popen[str]") -> int:
    """The port, once it listens."""
    assert process.stdout is not None
    line = process.stdout.readline()
    match = re.search(r"^listening on \S+:(\d+),", line)
    assert match is not None, (line, process.stderr and process.stderr.read())
    return int(match[1])


@pytest.fixture(params=["asyncio", "uvloop", "trio"])
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
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert err == ""
    assert re.fullmatch(
        r"(?:stopping.*\n)?\d+ sessions, 30 messages, 60 recipients, [\d.]+ KiB, \d+/s\n", out
    )


def test_a_session_under_way_may_finish(spawn: Spawn, backend: str) -> None:
    process = spawn("sink", "--listen", "127.0.0.1:0", "--verbose", "--backend", backend)
    with smtplib.SMTP("127.0.0.1", port_of(process), timeout=60) as session:
        session.ehlo()
        session.mail("ann@example.org")
        session.rcpt("bob@example.net")
        assert session.docmd("DATA")[0] == 354
        process.send_signal(signal.SIGTERM)
        session.send(b"Subject: x\r\n\r\nx\r\n.\r\n")
        assert session.getreply()[0] == 250
        assert session.getreply()[0] == 421
        session.close()
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "<ann@example.org> -> <bob@example.net>  17 octets" in out
    assert "1 sessions, 1 messages, 1 recipients, 17 octets" in out


def test_a_second_signal_does_not_wait(spawn: Spawn, backend: str) -> None:
    process = spawn("sink", "--listen", "127.0.0.1:0", "--backend", backend)
    with smtplib.SMTP("127.0.0.1", port_of(process), timeout=60) as session:
        session.ehlo()
        session.mail("ann@example.org")
        session.rcpt("bob@example.net")
        assert session.docmd("DATA")[0] == 354
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert process.stdout.readline() == "stopping; once more does not wait for sessions\n"
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
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
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert err == ""
    assert re.fullmatch(r"\d+ sessions, 40 messages, 80 recipients, [\d.]+ KiB, \d+/s\n", out)


@pytest.mark.parametrize("backend", Backend)
def test_workers_run_on_the_loop_that_was_asked_for(
    cli: Run, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, object] = {}

    def supervise(*args: object, **options: object) -> None:
        told.update(options)

    monkeypatch.setattr(sink, "supervise", supervise)
    assert cli("sink", "--workers", "2", "--backend", backend.value).exit_code == 0
    del told["ready"]
    assert told == backend.options()


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


# What goes wrong on request

TURNS = {
    "CONNECT": "",
    "EHLO": "EHLO c.example",
    "NOOP": "NOOP",
    "VRFY": "VRFY x",
    "MAIL": "MAIL FROM:<a@b.example>",
    "RCPT": "RCPT TO:<c@d.example>",
    "DATA": "DATA",
    ".": ".",
    "RSET": "RSET",
    "QUIT": "QUIT",
}
#: What goes wrong: the option of ours, that of smtp-sink, and how an answer to it begins.
WRONG = {
    "soft": ("--soft", "-r", "4"),
    "hard": ("--hard", "-f", "5"),
    "close": ("--close", "-Q", "421"),
    "cut": ("--cut", "-q", ""),
}


def conversation(port: int) -> dict[str, str]:
    """Say one of each, for as long as we are answered; the last line of each answer."""
    answers: dict[str, str] = {}
    with socket.create_connection(("127.0.0.1", port), 60) as sock, sock.makefile("rb") as lines:
        for at, line in TURNS.items():
            try:
                if line:
                    sock.sendall(f"{line}\r\n".encode())
                while (heard := lines.readline())[3:4] == b"-":
                    pass
            except ConnectionError:
                break
            if not heard:
                break
            answers[at] = heard.decode()
    return answers


@contextmanager
def our_sink(spawn: Spawn, *options: str) -> Iterator[int]:
    process = spawn("sink", "--listen", "127.0.0.1:0", *options)
    yield port_of(process)
    process.kill()


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.peer("smtp-sink")
@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("at", ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", ".", "RSET", "QUIT"])
def test_it_goes_wrong_where_smtp_sink_does(spawn: Spawn, wrong: str, at: str) -> None:
    option, flag, begins = WRONG[wrong]
    with smtp_sink(flag, at) as theirs:
        expected = conversation(theirs.port)
    with our_sink(spawn, option, at) as port:
        heard = conversation(port)
    assert list(heard) == list(expected)
    for answers in heard, expected:
        for place, answer in answers.items():
            if place == at:
                assert answer.startswith(begins)
            elif answer[0] not in "23":  # nothing that follows on what failed can be done
                assert (place in ("DATA", ".")) or at in ("CONNECT", "EHLO", "MAIL")
    if wrong == "cut":
        assert at not in heard


def test_replies_of_ones_choice_a_delay_and_a_count(spawn: Spawn) -> None:
    process = spawn(
        *("sink", "--listen", "127.0.0.1:0", "--soft", "vrfy NOOP", "--hard", "RSET"),
        *("--soft-reply", "451 4.7.1 Greylisted", "--hard-reply", "554 No", "--delay", "MAIL:0.3"),
    )
    answers = conversation(port_of(process))
    assert answers["VRFY"] == answers["NOOP"] == "451 4.7.1 Greylisted\r\n"
    assert answers["RSET"] == "554 5.0.0 No\r\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert out.endswith(", 4 faults\n")


@pytest.mark.peer("smtp-source")
def test_odds_by_a_seed_and_the_rest_arrives(spawn: Spawn) -> None:
    def sent(seed: int) -> str:
        process = spawn(
            *("sink", "--listen", "127.0.0.1:0", "--soft", "RCPT:30%", "--seed", str(seed)),
        )
        port = port_of(process)
        for _ in range(20):
            with (
                smtplib.SMTP("127.0.0.1", port, "c.example", 60) as session,
                suppress(smtplib.SMTPRecipientsRefused),
            ):
                session.sendmail("a@b.example", ["c@d.example"], "Subject: x\n\n")
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
        found = re.search(r"^20 sessions, (\d+) messages,.* (\d+) faults$", out, re.MULTILINE)
        assert found is not None, out
        assert int(found[1]) + int(found[2]) == 20
        assert 0 < int(found[2]) < 20
        return found[2]

    assert sent(7) == sent(7)


def test_a_refusal_within_content(spawn: Spawn) -> None:
    options = ("--delay", "CONTENT:0.1", "--hard", "CONTENT")
    with (
        our_sink(spawn, *options) as port,
        socket.create_connection(("127.0.0.1", port), 60) as sock,
    ):
        sock.sendall(b"EHLO c\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n")
        heard = b""
        while octets := sock.recv(65_536):
            heard += octets
    *_, go_on, refusal = heard.splitlines()
    assert go_on.startswith(b"354 ")
    assert refusal == b"550 5.3.0 Command failed"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--soft", "RCTP"], "'RCTP' is none of CONNECT, CONTENT, ., "),
        (["--hard", ""], "'' is without a command"),
        (["--soft", "RCPT:101%"], "is without odds from 0% to 100%"),
        (["--soft", "RCPT:10"], "is without odds from 0% to 100%"),
        (["--delay", "RCPT"], "is without a number of seconds"),
        (["--delay", "RCPT:x"], "is without a number of seconds"),
        (["--soft", "BDAT"], "a chunk is answered behind its octets"),
        (["--soft-reply", "550 5.0.0 no"], "is no 4yz reply"),
        (["--hard-reply", "450 4.0.0 no"], "is no 5yz reply"),
        (["--hard-reply", "no"], 'no reply, such as "550 5.3.0 No"'),
        (["--hard-reply", "550 ä"], "is no reply of printable ASCII"),
    ],
)
def test_what_cannot_go_wrong_is_told(cli: Run, options: list[str], told: str) -> None:
    result = cli("sink", "--listen", "192.0.2.1:0", *options, COLUMNS="1000")  # should it run
    assert result.exit_code == 2
    assert told in result.stderr


def test_options_become_faults() -> None:
    assert places("rcpt, DATA:12.5%") == [("RCPT", 1.0), ("DATA", 0.125)]
    assert waits(".:2 MAIL:0.5:10%") == [(".", 2.0, 1.0), ("MAIL", 0.5, 0.1)]
    read = reply(Severity.PERMANENT)("554 5.7.1 No")
    assert read == Reply(554, "5.7.1", "No")
    made = faults(
        soft=[[("RCPT", 0.5)]],
        hard=[[("CONTENT", 1.0)]],
        close=[],
        cut=[[("QUIT", 1.0)]],
        delay=[[("RCPT", 2.0, 1.0)]],
        soft_reply=SOFT,
        hard_reply=HARD,
    )
    assert made == [
        Fault("RCPT", delay=2),
        Fault("RCPT", SOFT, odds=0.5),
        Fault("CONTENT", HARD, cut="after"),
        Fault("QUIT", cut="before"),
    ]
    with pytest.raises(click.UsageError):
        faults(
            soft=[[("BDAT", 1.0)]],
            hard=[],
            close=[],
            cut=[],
            delay=[],
            soft_reply=SOFT,
            hard_reply=HARD,
        )
