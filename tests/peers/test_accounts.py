"""Accounts among real programs: `smtpproto account` adds them, swaks submits, Dovecot reads on."""

import imaplib
import re
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from click.testing import CliRunner

from smtpproto.cli.account import account
from smtpproto.client import Client
from smtpproto.core.envelope import Envelope
from smtpproto.mechanisms import SCRAM_SHA_256
from smtpproto.relay.accounts.schemes import SCHEMES, make_secret, read_secret
from tests.relay.process import Served, serving

from .programs import HOST, PATIENCE, dovecot, find, run, swaks

PASSWORD = "correct horse 1%"
FROM, TO = "ann@our.test", "bob@our.test"

Add = Callable[..., Path]


@pytest.fixture
def add(tmp_path: Path) -> Add:
    """Add accounts by the command line; the file they are in."""
    path = tmp_path / "accounts"

    def by_cli(name: str, *options: str) -> Path:
        done = CliRunner(env={"SMTPPROTO_PASSWORD": PASSWORD}).invoke(
            account, ["--file", str(path), "add", name, *options]
        )
        assert done.exit_code == 0, done.output
        return path

    return by_cli


@pytest.mark.peer("dovecot")
@pytest.mark.parametrize("scheme", SCHEMES)
def test_doveadm_verifies_what_we_make_and_we_what_it_makes(scheme: str) -> None:
    program = find("doveadm", "dovecot-core")
    ours = make_secret(PASSWORD, scheme)
    verified = run(program, "pw", "-t", ours, "-p", PASSWORD)
    assert "(verified)" in verified.stdout, verified.stdout
    assert "(verified)" not in run(program, "pw", "-t", ours, "-p", "wrong").stdout
    made = run(program, "pw", "-s", scheme, "-p", PASSWORD).stdout.strip()
    secret = read_secret(made)
    assert secret.scheme == scheme
    assert secret.fits(PASSWORD)
    assert not secret.fits("wrong")


@pytest.mark.peer("dovecot")
def test_dovecot_lets_in_whom_we_let_in(add: Add) -> None:
    path = add("nobody-else")
    for scheme in SCHEMES:
        add(scheme.lower(), "--scheme", scheme, "--address", f"{scheme.lower()}@our.test")
    with dovecot("~/mail", accounts=path) as server:
        for scheme in SCHEMES:
            user = scheme.lower()
            assert server.lets_in(user, PASSWORD), server.log()
        assert not server.lets_in("argon2id", "wrong")
        assert not server.lets_in("nobody", PASSWORD)
        with imaplib.IMAP4(HOST, server.port, timeout=PATIENCE) as session:
            assert session.login("argon2id", PASSWORD)[0] == "OK"


@pytest.fixture(params=["asyncio", "trio"])
def served(request: pytest.FixtureRequest, tmp_path: Path, add: Add) -> Any:
    path = add("ann")
    options = ("--local-domain", "our.test", "--accounts", path, "--submissions", f"{HOST}:0")
    with serving(tmp_path / "data", *options, backend=request.param) as node:
        yield node


def submissions(served: Served) -> int:
    (port,) = re.findall(r"^ *submissions .*?:(\d+) ", "".join(served.lines), re.MULTILINE)
    return int(port)


def mail(served: Served) -> list[bytes]:
    return [each.read_bytes() for each in (served.data / "mail/our.test/bob").glob("new/*")]


def by_swaks(served: Served, way: str, *options: str, password: str = PASSWORD) -> Any:
    at_once = way == "implicit TLS"
    port = submissions(served) if at_once else served.submission
    return swaks(
        *("--server", f"{HOST}:{port}", "--tls-on-connect" if at_once else "--tls"),
        *("--auth-user", "ann", "--auth-password", password, "--helo", "swaks.example"),
        *("--from", FROM, "--to", TO, "--h-Bcc", "eve@our.test", *options),
    )


@pytest.mark.peer("swaks")
@pytest.mark.parametrize(("way", "mechanism"), [("STARTTLS", "LOGIN"), ("implicit TLS", "PLAIN")])
def test_swaks_submits_with_an_account(served: Served, way: str, mechanism: str) -> None:
    done = by_swaks(served, way, "--auth", mechanism)
    assert done.returncode == 0, done.stdout
    assert "SCRAM-SHA-256" in done.stdout  # which swaks could use, if it knew it
    served.until(lambda: len(mail(served)) == 1, "to deliver")
    (message,) = mail(served)
    assert b"with ESMTPSA" in message
    assert re.search(rb"\stls\s+TLS_", message)
    assert b"Bcc" not in message


@pytest.mark.peer("swaks")
def test_swaks_sends_as_nobody_else(served: Served) -> None:
    said = by_swaks(served, "STARTTLS", "--auth", "PLAIN", "--from", "eve@our.test").stdout
    assert "550 5.7.1 you may not send as eve@our.test" in said
    said = by_swaks(served, "STARTTLS", "--auth", "PLAIN", "--h-From", "eve@our.test").stdout
    assert "550 5.7.1 From: you may not send as eve@our.test" in said
    assert mail(served) == []


@pytest.mark.parametrize("way", ["STARTTLS", "implicit TLS"])
def test_our_own_client_proves_itself_by_scram(served: Served, way: str) -> None:
    async def submit() -> None:
        async with Client(
            HOST,
            served.submission if way == "STARTTLS" else submissions(served),
            tls="required" if way == "STARTTLS" else "implicit",
            login=("ann", PASSWORD),
            mechanisms=[SCRAM_SHA_256],
            ssl_context=ssl.create_default_context(cafile=served.data / "tls" / "cert.pem"),
        ) as client:
            await client.send(Envelope(FROM, [TO]), b"From: ann@our.test\r\n\r\nhi\r\n")

    anyio.run(submit)
    served.until(lambda: len(mail(served)) == 1, "to deliver")
