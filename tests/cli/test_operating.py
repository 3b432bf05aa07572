"""A node as its operator has it: logs for programs, the story of a message, what goes on now."""

import http.client
import json
import os
import pwd
import re
import signal
import smtplib
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from smtpproto.cli.daemon import become
from smtpproto.cli.options import Failure
from tests.cli.conftest import Run
from tests.cli.test_serve import ANY_PORTS, MODULE, PATIENCE, environment
from tests.peers.programs import WORKER, WORKERS

DATA = Path("smtpproto-data")

both_backends = pytest.mark.parametrize("backend", ["asyncio", "trio"])
alone_and_together = pytest.mark.parametrize("workers", [1, 2])


class Lines:
    """A node that logs JSON: its lines, as objects."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.ready = self.until("ready")[-1]

    def until(self, event: str) -> list[dict[str, Any]]:
        assert self.process.stdout is not None
        found: list[dict[str, Any]] = []
        for line in self.process.stdout:
            found.append(json.loads(line))
            if found[-1]["event"] == event:
                return found
        pytest.fail(f"never {event}: {found}")

    def until_all(self, **wanted: int) -> None:
        """Read until there were so many of each, and nothing else."""
        assert self.process.stdout is not None
        seen: Counter[str] = Counter()
        for line in self.process.stdout:
            seen[json.loads(line)["event"]] += 1
            if seen == wanted:
                return
        pytest.fail(f"there were {seen}")

    def port(self, kind: str = "smtp") -> int:
        return int(self.ready["listening"][kind].rpartition(":")[2])

    def end(self) -> list[dict[str, Any]]:
        self.process.terminate()
        assert self.process.stdout is not None
        rest = [json.loads(line) for line in self.process.stdout]
        assert self.process.wait(PATIENCE) == 0
        return rest


@contextmanager
def logging_json(*options: object, before: Sequence[str] = ()) -> Iterator[Lines]:
    """Run it in this directory, on any free ports; it is killed should it take too long."""
    process = subprocess.Popen(
        [*before, *MODULE, "serve", *ANY_PORTS, "--log", "json", *map(str, options)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
    )
    watchdog = threading.Timer(PATIENCE, process.kill)
    watchdog.start()
    try:
        yield Lines(process)
    finally:
        watchdog.cancel()
        process.kill()
        process.communicate()


def send(port: int, *recipients: str) -> None:
    with smtplib.SMTP("127.0.0.1", port, "client.example", PATIENCE) as session:
        session.sendmail("ann@far.example", recipients, "Subject: Hi\r\n\r\nHi\r\n")


@both_backends
def test_every_line_is_an_object_and_no_password_is_in_it(backend: str) -> None:
    with logging_json("--backend", backend) as node:
        send(node.port(), "bob@localhost")
        accepted, delivered = node.until("delivered")
        rest = node.end()
    assert node.ready["hostname"] == "localhost"
    assert set(node.ready["listening"]) == {"smtp", "submission"}
    assert "password" not in json.dumps(node.ready)
    assert accepted["event"] == "accepted"
    assert accepted["from"] == "<ann@far.example>"
    assert accepted["recipients"] == ["<bob@localhost>"]
    assert (delivered["id"], delivered["to"]) == (accepted["id"], "<bob@localhost>")
    assert [line["event"] for line in rest] == ["stopping"]
    for line in (node.ready, accepted, delivered, *rest):
        assert (line["time"][-1], line["level"]) == ("Z", "info")


def test_what_libraries_log_is_one_too() -> None:
    code = (
        "import logging; from smtpproto.cli.telling import Teller; Teller(True).listen()\n"
        "try: 1 / 0\n"
        "except ZeroDivisionError: logging.getLogger('some').exception('it %s', 'broke\\nhere')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    (line,) = done.stderr.splitlines()
    record = json.loads(line)
    assert record["exception"].endswith("ZeroDivisionError: division by zero")
    assert {name: record[name] for name in ("level", "event", "logger", "message")} == {
        "level": "error",
        "event": "log",
        "logger": "some",
        "message": "it broke\nhere",
    }


@both_backends
def test_the_story_of_a_message_is_told_when_the_node_has_ended(cli: Run, backend: str) -> None:
    """Also without `--json`, and without any log."""
    with logging_json("--backend", backend) as node:
        send(node.port(), "bob@localhost", "eve@localhost")
        node.until("delivered")
        id = node.until("delivered")[-1]["id"]
        node.end()
    told = cli("queue", "trace", id, "--json")
    assert told.exit_code == 0, (told.stderr, told.exception, list(DATA.iterdir()))
    story = json.loads(told.stdout)["story"]
    assert [told["event"] for told in story] == ["accepted", "delivered", "delivered"]
    assert {told.get("to") for told in story} == {None, "<bob@localhost>", "<eve@localhost>"}
    words = [line.split()[2] for line in cli("queue", "trace", id).stdout.splitlines()]
    assert words == ["accepted", "delivered", "delivered"]


def test_no_story_is_kept_where_none_is_wanted(cli: Run) -> None:
    Path("smtp.toml").write_text('story-size = "none"\n')
    with logging_json("--config", "smtp.toml", "--data", DATA) as node:
        send(node.port(), "bob@localhost")
        id = node.until("delivered")[-1]["id"]
        node.end()
    assert not (DATA / "story.jsonl").exists()
    result = cli("queue", "trace", id)
    assert result.exit_code == 1
    assert "no story is kept" in result.stderr


# Reload

SETTINGS = """
local-domains = ["our.example"]
max-message = 100000
hostname = "mail.our.example"
"""


def hang_up(node: Lines, event: str) -> dict[str, Any]:
    node.process.send_signal(signal.SIGHUP)
    return node.until(event)[-1]


def answers(session: smtplib.SMTP, *recipients: str) -> list[int]:
    session.ehlo()
    session.mail("ann@far.example")
    codes = [session.rcpt(recipient)[0] for recipient in recipients]
    session.rset()
    return codes


@both_backends
def test_a_hangup_takes_the_new_settings_for_new_sessions(backend: str) -> None:
    """Who is there stays, by the rules that he began with."""
    file = Path("smtp.toml")
    file.write_text(SETTINGS)
    asked = "bob@our.example", "bob@new.example", "all@our.example"
    with logging_json("--config", file, "--backend", backend) as node:
        with smtplib.SMTP("127.0.0.1", node.port(), "client.example", PATIENCE) as before:
            assert answers(before, *asked) == [250, 550, 250]
            file.write_text(
                SETTINGS.replace('our.example"]', 'new.example", "our.example"]').replace(
                    "100000", "50000"
                )
                + '[[routes]]\nrecipients = "all@our.example"\nvia = "refuse:550 5.7.1 No"\n'
            )
            assert hang_up(node, "reloaded")["restart"] == []
            assert answers(before, *asked) == [250, 550, 250]
            with smtplib.SMTP("127.0.0.1", node.port(), "client.example", PATIENCE) as after:
                assert answers(after, *asked) == [250, 250, 550]
                assert after.esmtp_features["size"] == "50000"
        send(node.port(), "bob@new.example")
        assert node.until("delivered")[-1]["where"].startswith("mailbox")
        node.end()


@both_backends
def test_settings_that_are_wrong_change_nothing(backend: str) -> None:
    file = Path("smtp.toml")
    file.write_text(SETTINGS)
    with logging_json("--config", file, "--backend", backend) as node:
        for wrong in (
            'local-domains = ["new.example"]\nmax-message = "much"\n',
            'local-domains = ["new.example"]\naccounts = "nowhere"\n',
            'local-domains = ["new.example"]\n[[routes]]\nvia = "smtp:a.example:25"\n'
            'ca-file = "nowhere"\n',
        ):
            file.write_text(wrong)
            said = hang_up(node, "log")
            assert said["message"].startswith("the old settings stay: ")
            with smtplib.SMTP("127.0.0.1", node.port(), "client.example", PATIENCE) as session:
                assert answers(session, "bob@our.example", "bob@new.example") == [250, 550]
        node.end()


@both_backends
def test_a_certificate_of_no_use_changes_nothing_and_is_told_once(backend: str) -> None:
    file = Path("smtp.toml")
    file.write_text(SETTINGS)
    with logging_json("--config", file, "--backend", backend) as node:
        certificate = DATA / "tls" / "cert.pem"
        good = certificate.read_bytes()
        certificate.write_text("none")
        file.write_text(SETTINGS.replace("our.example", "new.example"))
        node.process.send_signal(signal.SIGHUP)
        said = [node.until("log")[-1]["message"] for _ in range(2)]
        assert said[0].startswith("the old certificates stay, as new ones cannot be used: ")
        assert said[1] == "the old settings stay, too"
        with smtplib.SMTP("127.0.0.1", node.port(), "client.example", PATIENCE) as session:
            assert answers(session, "bob@our.example", "bob@new.example") == [250, 550]
        certificate.write_bytes(good)
        node.process.send_signal(signal.SIGHUP)
        assert [each["event"] for each in node.until("reloaded")] == ["reloaded"]
        node.end()


def test_what_takes_a_restart_is_said(cli: Run) -> None:
    file = Path("smtp.toml")
    file.write_text(SETTINGS)
    with logging_json("--config", file) as node:
        file.write_text(
            SETTINGS.replace("mail.our", "other.our").replace('our.example"]', 'new.example"]')
        )
        said = hang_up(node, "reloaded")
        assert said["restart"] == ["hostname"]
        assert said["message"].endswith("; hostname: only after a restart")
        with smtplib.SMTP("127.0.0.1", node.port(), "client.example", PATIENCE) as session:
            assert answers(session, "bob@new.example") == [250]
            assert b"mail.our.example" in session.ehlo()[1]
        node.end()


# Metrics


def ask(node: Lines, path: str, method: str = "GET") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", node.port("metrics"), timeout=PATIENCE)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def numbers(text: str) -> dict[str, float]:
    return {
        sample.name + "".join(f" {value}" for _, value in sorted(sample.labels.items())): (
            sample.value
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


METRICS = """
metrics = "127.0.0.1:0"
relay-from = ["127.0.0.0/8"]
local-domains = ["our.example"]
[aliases]
"team@our.example" = ["ann@our.example", "bob@our.example"]
[[routes]]
recipients = "held.example"
via = "hold"
[[routes]]
recipients = "gone.example"
via = "discard"
[[routes]]
recipients = "down.example"
via = "smtp:127.0.0.1:1"
"""


@alone_and_together
@both_backends
def test_what_is_scraped_is_what_happened(backend: str, workers: int) -> None:
    """A load of known messages; no address or domain of theirs is in it."""
    Path("smtp.toml").write_text(METRICS)
    options = ("--config", "smtp.toml", "--backend", backend, "--workers", workers)
    with logging_json(*options) as node:
        before = numbers(ask(node, "/metrics")[1])
        assert before["smtpproto_messages_accepted_total"] == 0
        assert before["smtpproto_recipients_total failed"] == 0
        for _ in range(7):
            send(node.port(), "bob@our.example", "eve@our.example")
        send(node.port(), "team@our.example")
        for domain in ("gone", "held", "down"):
            send(node.port(), f"you@{domain}.example")
        node.until_all(accepted=11, delivered=16, expanded=1, discarded=1, held=1, deferred=1)
        text = ask(node, "/metrics")[1]
        found = numbers(text)
        node.end()
    octets = found["smtpproto_octets_accepted_total"]
    told = {name: value for name, value in found.items() if value and "_created" not in name}
    assert {name: value for name, value in told.items() if not name.startswith(TIMES)} == {
        "smtpproto_messages_accepted_total": 11,
        "smtpproto_octets_accepted_total": octets,
        "smtpproto_recipients_total delivered": 16,
        "smtpproto_recipients_total expanded": 1,
        "smtpproto_recipients_total discarded": 1,
        "smtpproto_recipients_total held": 1,
        "smtpproto_recipients_total deferred": 1,
        "smtpproto_queue_messages": 2,
        "smtpproto_queue_recipients": 2,
        "smtpproto_next_hops_held": 1,
    }
    assert found["smtpproto_delivery_seconds_count"] == 16
    assert octets > 11 * len("Subject: Hi\r\n\r\nHi\r\n")
    assert "example" not in text


TIMES = ("smtpproto_delivery_seconds", "smtpproto_queue_oldest_seconds")


@alone_and_together
@both_backends
def test_health_and_readiness(backend: str, workers: int) -> None:
    Path("smtp.toml").write_text(METRICS)
    options = ("--config", "smtp.toml", "--backend", backend, "--workers", workers)
    with logging_json(*options) as node:
        assert ask(node, "/health") == (200, "alive\n")
        assert ask(node, "/ready") == (200, "ready\n")
        assert ask(node, "/ready?why", "HEAD") == (200, "")
        assert ask(node, "/metrics", "POST")[0] == 405
        assert ask(node, "/")[0] == 404
        with smtplib.SMTP("127.0.0.1", node.port(), "client.example", PATIENCE) as session:
            session.ehlo()
            session.mail("ann@far.example")
            node.process.terminate()
            node.until("stopping")
            why = "not listening" if workers == 1 else "not all workers are there"
            assert ask(node, "/ready") == (503, f"{why}\n")
            assert ask(node, "/health") == (200, "alive\n")
            session.quit()


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"EHLO client.example\r\n\r\n", b"400"),
        (b"GET /metrics HTTP/1.1\r\n\r\n", b"400"),  # without Host
        (b"GET /" + b"x" * 20_000, b"431"),
        (b"\x16\x03\x01\x02\x00", b"400"),
        (b"", b""),
    ],
)
def test_what_is_no_request_is_answered_or_left(sent: bytes, code: bytes) -> None:
    Path("smtp.toml").write_text(METRICS)
    with logging_json("--config", "smtp.toml") as node:
        with socket.create_connection(("127.0.0.1", node.port("metrics")), PATIENCE) as stream:
            stream.sendall(sent)
            stream.shutdown(socket.SHUT_WR)
            answer = b""
            with suppress(ConnectionResetError):
                while octets := stream.recv(65_536):
                    answer += octets
        assert answer[9:12] == code
        assert ask(node, "/health")[0] == 200
        assert [line["event"] for line in node.end()] == ["stopping"]


def test_a_port_for_metrics_that_is_taken(cli: Run) -> None:
    """It is bound before anybody else is become, as those for mail are."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        Path("smtp.toml").write_text(f'metrics = "127.0.0.1:{port}"\nuser = "nosuchuser"\n')
        result = cli("serve", *ANY_PORTS, "--config", "smtp.toml")
    assert result.exit_code == 1
    assert f"cannot listen on 127.0.0.1:{port}: the address is in use" in result.stderr
    assert not DATA.exists()  # it was found before anything was made


# Who it is

as_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become somebody else"
)


@pytest.fixture
def everybody_can_go_there(tmp_path: Path) -> Iterator[None]:
    """Another user can reach this test's directory."""
    above = [each for each in tmp_path.parents if Path(tempfile.gettempdir()) in each.parents]
    modes = {each: stat.S_IMODE(each.stat().st_mode) for each in (tmp_path, *above)}
    for folder, mode in modes.items():
        folder.chmod(mode | 0o011)
    yield
    for folder, mode in modes.items():
        folder.chmod(mode)


def all_can_read(file: str) -> bool:
    return all(each.stat().st_mode & stat.S_IXOTH for each in Path(file).resolve().parents)


#: Python may be where root alone can read it, in /root: then he keeps that one right.
READABLE = all_can_read(os.__file__) and all_can_read(become.__code__.co_filename)
KEEPING = () if READABLE else ("setpriv", "--securebits", "+no_setuid_fixup")


@as_root
@pytest.mark.usefixtures("everybody_can_go_there")
@alone_and_together
@both_backends
def test_it_is_somebody_else_once_it_is_bound(backend: str, workers: int) -> None:
    """And what it writes is his; root is given up for good, with all its groups."""
    if workers > 1 and not READABLE:
        pytest.skip("Python is where only root can read it, and other processes have to start it")
    nobody = pwd.getpwnam("nobody")
    home = Path("home")
    home.mkdir()
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    with free_low_ports(2) as (port, watched):
        Path("smtp.toml").write_text(
            f'user = "nobody"\ndata = "home/data"\nmetrics = "127.0.0.1:{watched}"\n'
            f"workers = {workers}\n"
        )
        at = f"127.0.0.1:{port}"
        options = ("--config", "smtp.toml", "--backend", backend, "--listen", at)
        with logging_json(*options, before=KEEPING) as node:
            assert node.port() == port < 1024
            assert node.port("metrics") == watched < 1024
            assert ask(node, "/ready") == (200, "ready\n")
            status = Path(f"/proc/{node.process.pid}/status").read_text()
            send(node.port(), "bob@localhost")
            node.until("delivered")
            hang_up(node, "reloaded")
            node.end()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    assert fields["Uid"].split() == [str(nobody.pw_uid)] * 4
    assert fields["Gid"].split() == [str(nobody.pw_gid)] * 4
    assert "0" not in fields["Groups"].split()
    assert not READABLE or int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == 0
    files = [home / "data", *(home / "data").rglob("*")]
    assert {each.stat().st_uid for each in files} == {nobody.pw_uid}
    assert {each.stat().st_gid for each in files} == {nobody.pw_gid}
    assert any((home / "data").glob("story*.jsonl"))  # that of the process that took it


@contextmanager
def free_low_ports(number: int) -> Iterator[list[int]]:
    found: list[int] = []
    for port in range(1023 - WORKER, 600, -WORKERS):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            found.append(port)
        if len(found) == number:
            break
    else:
        pytest.skip(f"no {number} ports below 1024 are free")
    yield found


@as_root
@pytest.mark.parametrize("key", ["metrics", "submissions"])
def test_who_may_not_bind_a_port_is_told_what_to_do(key: str) -> None:
    with free_low_ports(1) as (port,):
        Path("smtp.toml").write_text(f'{key} = "127.0.0.1:{port}"\n')
        less = ("setpriv", "--bounding-set=-net_bind_service", "--inh-caps=-net_bind_service")
        code, lines = started("--config", "smtp.toml", before=less)
    assert code == 1
    assert lines[0] == f"smtpproto: cannot listen on 127.0.0.1:{port}: permission denied"
    assert "a port below 1024 takes root, which `user`" in lines[1]


@as_root
@pytest.mark.skipif(not READABLE, reason="Python is where only root can read it")
@pytest.mark.usefixtures("everybody_can_go_there")
def test_data_that_is_not_his_is_explained() -> None:
    Path("mine").mkdir(mode=0o700)
    Path("smtp.toml").write_text('user = "nobody"\ndata = "mine"\n')
    code, lines = started("--config", "smtp.toml")
    assert code == 1
    assert lines[0].startswith("smtpproto: cannot keep data in mine: Permission denied")
    assert lines[1].strip() == "make it his: install -d -m 700 -o nobody mine"
    assert list(Path("mine").iterdir()) == []


@as_root
@pytest.mark.skipif(READABLE, reason="Python is where all can read it")
def test_a_program_that_he_cannot_read_is_explained() -> None:
    Path("smtp.toml").write_text('user = "nobody"\n')
    code, lines = started("--config", "smtp.toml")
    assert (code, len(lines)) == (1, 1)
    assert lines[0].startswith("smtpproto: user: nobody cannot read /")
    assert not DATA.exists()


def started(*options: str, before: tuple[str, ...] = ()) -> tuple[int, list[str]]:
    # Who is nobody cannot write down what was covered, and would say so.
    plain = {name: value for name, value in environment().items() if "COVERAGE" not in name}
    done = subprocess.run(
        [*before, *MODULE, "serve", *ANY_PORTS, *options],
        capture_output=True,
        text=True,
        env=plain,
        timeout=PATIENCE,
        check=False,
    )
    return done.returncode, done.stderr.splitlines()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ('user = "nosuchuser"', "there is no user nosuchuser"),
        ('user = "root"', "root is whom not to be"),
        ('user = "nobody"\ngroup = "nosuchgroup"', "there is no group nosuchgroup"),
    ],
)
def test_somebody_it_cannot_be_and_nothing_is_written(settings: str, words: str) -> None:
    Path("smtp.toml").write_text(settings)
    code, lines = started("--config", "smtp.toml")
    assert code == 1
    assert words in lines[0]
    assert not DATA.exists()


def test_who_is_not_root_cannot_become_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(Failure, match="only root can become nobody"):
        become("nobody")


def test_who_is_that_user_stays_it(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = pwd.getpwnam("nobody")
    monkeypatch.setattr(os, "geteuid", lambda: nobody.pw_uid)
    monkeypatch.setattr(os, "getegid", lambda: nobody.pw_gid)
    become("nobody")
    become(str(nobody.pw_uid))


@both_backends
def test_a_service_manager_is_told(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(PATIENCE)
        manager.bind("notify")
        monkeypatch.setenv("NOTIFY_SOCKET", str(Path("notify").resolve()))
        with logging_json("--backend", backend) as node:
            assert manager.recv(100) == b"READY=1"
            node.end()
            assert manager.recv(100) == b"STOPPING=1"


def test_the_unit_starts_what_there_is(cli: Run) -> None:
    unit = Path(__file__).parents[2] / "examples" / "systemd" / "smtpproto.service"
    commands = re.findall(r"^Exec\w+=\S+/smtpproto (.*)$", unit.read_text(), re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        words = [word for word in command.split() if not word.startswith("/etc")]
        assert cli(*(words if words[-1] != "--config" else words[:-1]), "--help").exit_code == 0
