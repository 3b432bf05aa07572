"""The commands in this process, and as processes of their own."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from smtpproto.cli.app import app
from smtpproto.server import Server
from tests.cli.servers import Mailroom, Site, serving

Run = Callable[..., Result]
Spawn = Callable[..., "subprocess.Popen[str]"]

SOURCE = Path(__file__).parents[2] / "src"


@pytest.fixture(autouse=True)
def _plain_world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """80 columns, no password lying about, and an empty directory to be in."""
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("SMTPPROTO_PASSWORD", "SMTPPROTO_DATA", "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def cli() -> Run:
    """Run a command; no traceback is ever what its user sees."""

    def run(*args: object, stdin: str | bytes | None = None, **env: str) -> Result:
        result = CliRunner(env=env).invoke(app, [str(arg) for arg in args], input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Start a command as a process; it is ended with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*args: object, **options: Any) -> "subprocess.Popen[str]":
        code = "from smtpproto.cli import main; main()"
        process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, args)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(SOURCE), "PYTHONUNBUFFERED": "1"},
            **options,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def mailroom() -> Mailroom:
    return Mailroom()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A certificate of our own, for loopback."""
    return Site.make(tmp_path_factory.mktemp("site"))


@pytest.fixture
def clear_port(mailroom: Mailroom) -> Iterator[int]:
    """A server without TLS and logins."""
    with serving(Server(mailroom, "mail.example.org")) as port:
        yield port


@pytest.fixture
def tls_port(mailroom: Mailroom, site: Site) -> Iterator[int]:
    """A server with STARTTLS, and logins behind it."""
    server = Server(
        mailroom,
        "mail.example.org",
        tls=site.context,
        authenticator=mailroom,
        failed_login_delay=0,
    )
    with serving(server) as port:
        yield port
