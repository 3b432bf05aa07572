"""A node as its operator has it: logs for programs, the story of a message, what goes on now."""

import json
import signal
import smtplib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run
from tests.cli.test_serve import ANY_PORTS, MODULE, PATIENCE, environment

DATA = Path("smtpproto-data")

both_backends = pytest.mark.parametrize("backend", ["asyncio", "trio"])


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

    def port(self, kind: str = "smtp") -> int:
        return int(self.ready["listening"][kind].rpartition(":")[2])

    def end(self) -> list[dict[str, Any]]:
        self.process.terminate()
        assert self.process.stdout is not None
        rest = [json.loads(line) for line in self.process.stdout]
        assert self.process.wait(PATIENCE) == 0
        return rest


@contextmanager
def logging_json(*options: object) -> Iterator[Lines]:
    process = subprocess.Popen(
        [*MODULE, "serve", *ANY_PORTS, "--log", "json", *map(str, options)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
    )
    try:
        yield Lines(process)
    finally:
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
    story = json.loads(cli("queue", "trace", id, "--json").stdout)["story"]
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
