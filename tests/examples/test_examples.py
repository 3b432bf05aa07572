"""Every file in `examples/` runs, and does what it says of itself."""

import os
import re
import smtplib
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, STDOUT

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
PATIENCE = 60

pytestmark = pytest.mark.usefixtures("unmeasured")


def start(name: str, *arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-W", "error", str(EXAMPLES / name), *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=PIPE,
        stderr=STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": "1"},
    )


def output(name: str, *arguments: object, code: int = 0) -> list[str]:
    """Run an example to its end; the lines it prints."""
    with start(name, *arguments) as process:
        text = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == code, text
    return text.splitlines()


class Listening:
    """An example that serves until it is ended; `port` is where."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        address = re.fullmatch(r"listening on 127\.0\.0\.1 (\d+)", self.until("listening")[-1])
        assert address is not None
        self.port = int(address[1])

    def until(self, *words: str) -> list[str]:
        """Read its lines until each of `words` has been in one, in whatever order."""
        lines: list[str] = []
        missing = set(words)
        assert self.process.stdout is not None
        for line in self.process.stdout:
            lines.append(line.removesuffix("\n"))
            missing -= {each for each in missing if each in line}
            if not missing:
                return lines
        pytest.fail(f"it never said {words!r}:\n" + "\n".join(lines))


@contextmanager
def listening(name: str, *arguments: object) -> Iterator[Listening]:
    with start(name, *arguments) as process:
        watchdog = threading.Timer(PATIENCE, process.kill)
        watchdog.start()
        try:
            yield Listening(process)
        finally:
            watchdog.cancel()
            process.kill()


def test_there_are_no_others() -> None:
    """One that is added gets a test here."""
    assert {file.name for file in EXAMPLES.iterdir() if file.is_file()} == {
        *("core.py", "client.py", "script.py", "server.py", "relay.py", "extension.py")
    }


def test_core() -> None:
    greeting, ehlo, offered = output("core.py")
    assert greeting == "220 mx.example.org ESMTP"
    assert ehlo == "Ehlo(name=b'laptop.example.net')"
    assert offered.startswith("250 {'PIPELINING': '', 'SIZE': '26214400', ")
    source = (EXAMPLES / "core.py").read_text()
    for printed in re.findall(r"print\(.*\)  # (.*)", source):  # its comments foretell it
        assert any(line.startswith(printed.removesuffix("…}")) for line in (ehlo, offered))


@pytest.mark.parametrize("client", ["client.py", "script.py"])
def test_client_and_server(client: str) -> None:
    with listening("server.py", 0) as server:
        there = ("127.0.0.1", server.port)
        told = output(client, *there, "ann@example.net", "bob@example.org", "eve@Example.Org")
        for recipient in ("<bob@example.org>", "<eve@Example.Org>"):
            assert f"{recipient} accepted: 250 2.0.0 " in "\n".join(told)
        printed = server.until("It arrived.")
        assert "<ann@example.net> -> <bob@example.org> <eve@Example.Org>" in printed
        assert "Subject: Hello" in printed

        refused = output(client, *there, "ann@example.net", "bob@example.com", code=1)
        assert refused[-1].endswith(": <bob@example.com> permanent: 550 5.7.1 Not here")


def test_relay_delivers_into_its_maildir(tmp_path: Path) -> None:
    with listening("relay.py", tmp_path, 0) as relay:
        with smtplib.SMTP("127.0.0.1", relay.port, "client.example", PATIENCE) as session:
            session.sendmail("ann@example.net", ["bob@example.org"], "Subject: 1\n\nhello\n")
            with pytest.raises(smtplib.SMTPRecipientsRefused):  # it is no open relay
                session.sendmail("ann@example.net", ["bob@example.com"], "Subject: 2\n\n")
        story = relay.until("Delivered(")
    assert sum("Accepted(" in line for line in story) == 1
    (mail,) = (tmp_path / "mail" / "example.org" / "bob" / "new").iterdir()
    text = mail.read_text()
    assert text.startswith("Return-Path: <ann@example.net>\nReceived: from client.example ")
    assert text.endswith("\nSubject: 1\n\nhello\n")


def test_extension() -> None:
    lines = output("extension.py")
    assert "XTICKET" in lines
    assert lines[-2:] == [
        "250 2.0.0 Ticket 4711 is open",
        "250 2.1.0 Sender ok, for ticket 4711",
    ]
