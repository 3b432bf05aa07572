"""`smtpproto probe`: it shows what is said, and says what is wrong."""

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from anyio.abc import ByteStream

from smtpproto.cli.examine import Probe
from smtpproto.cli.node import ensure_certificate
from smtpproto.client import connect_tcp
from smtpproto.server import Server
from tests.cli.conftest import Run
from tests.cli.servers import LOGIN, PASSWORD, Mailroom, Site, scripted, serving
from tests.peers.programs import free_port, smtp_sink


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def implicit_port(mailroom: Mailroom, site: Site) -> Iterator[int]:
    server = Server(mailroom, tls=site.context, implicit_tls=True, authenticator=mailroom)
    with serving(server) as port:
        yield port


def test_all_is_well(cli: Run, tls_port: int, site: Site, mailroom: Mailroom, backend: str) -> None:
    result = cli("probe", f"127.0.0.1:{tls_port}", "--ca", site.cert, "--backend", backend)
    assert result.exit_code == 0, result.output
    shown = result.stdout
    for words in (
        "S: 220 mail.example.org ESMTP",
        "C: EHLO [127.0.0.1]",
        "C: STARTTLS",
        "TLS handshake: TLSv1.",
        "C: QUIT",
        "What the server offers",
        "takes messages of up to 25 MiB",
        "takes logins by PLAIN LOGIN",
        "logins are offered only after TLS",
        "names     localhost, 127.0.0.1, ::1",
        "trusted   yes",
        "all is well",
    ):
        assert words in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert not mailroom.mails
    assert "MAIL FROM" not in shown


def test_implicit_tls(cli: Run, implicit_port: int, site: Site) -> None:
    address = f"127.0.0.1:{implicit_port}"
    result = cli("probe", address, "--tls", "implicit", "--ca", site.cert)
    assert result.exit_code == 0, result.output
    assert "TLS handshake" in result.stdout.partition("S: 220")[0]


def test_a_right_login(cli: Run, tls_port: int, site: Site, backend: str) -> None:
    address = [f"127.0.0.1:{tls_port}", "--ca", site.cert, "--backend", backend]
    result = cli("probe", *address, "--login", LOGIN, SMTPPROTO_PASSWORD=PASSWORD)
    assert result.exit_code == 0, result.output
    assert "the login works" in result.stdout
    assert PASSWORD not in result.output


def test_a_wrong_login(cli: Run, tls_port: int, site: Site, backend: str) -> None:
    address = [f"127.0.0.1:{tls_port}", "--ca", site.cert, "--backend", backend]
    result = cli("probe", *address, "--login", LOGIN, SMTPPROTO_PASSWORD="wrong")
    assert result.exit_code == 1
    assert "the login is wrong, says the server: 535 5.7.8" in result.stdout
    assert "all is well" not in result.stdout


def test_no_password_goes_to_a_server_that_nobody_vouches_for(
    cli: Run, tls_port: int, mailroom: Mailroom
) -> None:
    result = cli("probe", f"127.0.0.1:{tls_port}", "--login", LOGIN, SMTPPROTO_PASSWORD=PASSWORD)
    assert result.exit_code == 1
    assert "the login was not tried" in result.stdout
    assert "C: AUTH" not in result.stdout


def test_a_login_that_is_offered_only_after_tls(cli: Run, tls_port: int) -> None:
    address = [f"127.0.0.1:{tls_port}", "--tls", "none"]
    result = cli("probe", *address, "--login", LOGIN, SMTPPROTO_PASSWORD=PASSWORD)
    assert result.exit_code == 1
    assert "no login is offered in clear; under TLS it may be" in result.stdout


def test_a_login_that_is_not_offered(cli: Run, clear_port: int) -> None:
    result = cli("probe", f"127.0.0.1:{clear_port}", "--login", "a", SMTPPROTO_PASSWORD="b")
    assert result.exit_code == 1
    assert "no login is offered here; try port 587 or 465" in result.stdout


def test_a_server_without_tls_is_only_a_remark_on_loopback(cli: Run, clear_port: int) -> None:
    address = f"127.0.0.1:{clear_port}"
    result = cli("probe", address)
    assert result.exit_code == 0
    assert "the server offers no TLS" in result.stdout
    assert cli("probe", address, "--tls", "required").exit_code == 1


def test_a_self_signed_certificate(cli: Run, tls_port: int, backend: str) -> None:
    result = cli("probe", f"127.0.0.1:{tls_port}", "--backend", backend)
    assert result.exit_code == 1
    assert "the certificate is self-signed" in result.stdout
    assert "trusted   no" in result.stdout
    assert "takes logins by" in result.stdout  # the rest is seen, too


def test_a_certificate_that_has_expired(cli: Run, mailroom: Mailroom, tmp_path: Path) -> None:
    past = datetime.now(UTC) - timedelta(days=4000)
    made = ensure_certificate(tmp_path / "old", now=lambda: past)
    with serving(Server(mailroom, tls=made.server_context())) as port:
        result = cli("probe", f"127.0.0.1:{port}", "--ca", made.cert)
    assert result.exit_code == 1
    assert "the certificate has expired" in result.stdout


def test_a_certificate_that_ends_soon(cli: Run, mailroom: Mailroom, tmp_path: Path) -> None:
    past = datetime.now(UTC) - timedelta(days=3652 - 5, hours=-1)
    made = ensure_certificate(tmp_path / "old", now=lambda: past)
    with serving(Server(mailroom, tls=made.server_context())) as port:
        result = cli("probe", f"127.0.0.1:{port}", "--ca", made.cert)
    assert result.exit_code == 0, result.output
    assert "the certificate ends in 5 days" in result.stdout


def test_a_certificate_for_another_name(
    cli: Run, tls_port: int, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def connect(host: str, port: int) -> ByteStream:
        return await connect_tcp("127.0.0.1", port)

    monkeypatch.setattr("smtpproto.cli.probe.Probe", partial(Probe, connector=connect))
    result = cli("probe", f"mail.example.org:{tls_port}", "--ca", site.cert)
    assert result.exit_code == 1, result.output
    assert "the certificate is not for mail.example.org" in result.stdout


@pytest.mark.parametrize(
    ("turns", "words"),
    [
        ([b"SSH-2.0-OpenSSH_9.2\r\n"], "what answers there is no SMTP server"),
        ([b"HTTP/1.1 400 Bad Request\r\n\r\n"], "is no SMTP server"),
        ([b"\x15\x03\x01\x00\x02\x02\x0a\r\n"], "is no SMTP server"),
        ([b"554 5.7.1 \x1b]0;x\x07 go\r\n"], "does not want to talk to us: 554 5.7.1 \\x1b]0;x"),
        ([b"421 4.3.2 later\r\n"], "does not want to talk to us: 421 4.3.2 later"),
        ([b""], "no answer to the greeting: the server closed the connection"),
        ([b"220 ok\r\n", b""], "no answer to EHLO: the server closed the connection"),
        ([b"220 ok\r\n", b"451 no\r\n"], "the server refuses our EHLO: 451 no"),
        ([b"220 ok\r\n", b"220 what\r\nx"], "what answers there does not keep to SMTP"),
        (
            [b"220 ok\r\n", b"250-me\r\n250 STARTTLS\r\n", b"454 no TLS now\r\n"],
            "offers STARTTLS and then refuses it: 454 no TLS now",
        ),
        (
            [b"220 ok\r\n", b"250-me\r\n250 STARTTLS\r\n", b"220 go\r\n250 evil\r\n"],
            "does not keep to SMTP: octets in clear",
        ),
        (
            [b"220 ok\r\n", b"250-me\r\n250 STARTTLS\r\n", b"220 go\r\n", b"250 no TLS\r\n"],
            "the TLS handshake failed: the server does not speak TLS",
        ),
    ],
)
def test_what_is_wrong_in_plain_words(cli: Run, turns: list[bytes], words: str) -> None:
    with scripted(*turns) as port:
        result = cli("probe", f"127.0.0.1:{port}")
    assert result.exit_code == 1, result.output
    assert words in result.stdout
    assert "\x1b" not in result.output


def test_a_server_that_knows_no_ehlo(cli: Run) -> None:
    session = (b"220 ok\r\n", b"502 what\r\n", b"250 hello\r\n", b"221 bye\r\n")
    with scripted(*session) as port:
        result = cli("probe", f"127.0.0.1:{port}")
    assert result.exit_code == 0, result.output
    assert "does not know EHLO" in result.stdout
    assert "C: HELO" in result.stdout


def test_a_server_that_says_nothing(cli: Run, backend: str) -> None:
    with scripted(b"", hang_up=False) as port:
        result = cli("probe", f"127.0.0.1:{port}", "--timeout", "0.2", "--backend", backend)
    assert result.exit_code == 1
    assert "no greeting came within 0.2 s" in result.stdout


def test_implicit_tls_where_there_is_none(cli: Run, clear_port: int) -> None:
    result = cli("probe", f"127.0.0.1:{clear_port}", "--tls", "implicit")
    assert result.exit_code == 1
    assert "the server does not speak TLS here" in result.stdout


def test_nobody_listens(cli: Run, backend: str) -> None:
    result = cli("probe", f"127.0.0.1:{free_port()}", "--backend", backend)
    assert result.exit_code == 1
    assert "connection refused: nothing listens there" in result.stdout


def test_no_such_host(cli: Run, backend: str) -> None:
    result = cli("probe", "nosuch.invalid", "--backend", backend)
    assert result.exit_code == 1
    assert "nosuch.invalid:25" in result.stdout
    assert "there is no host named nosuch.invalid" in result.stdout or "DNS" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "port"),
    [([], 25), (["--login", "a"], 587), (["--tls", "implicit"], 465)],
)
def test_the_port_it_takes(cli: Run, arguments: list[str], port: int) -> None:
    result = cli("probe", "nosuch.invalid", *arguments, SMTPPROTO_PASSWORD="x")
    assert result.stdout.startswith(f"nosuch.invalid:{port}\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Missing argument"),
        (["a b"], "no HOST:PORT"),
        (["a", "--timeout", "0"], "not in the range"),
        (["a", "--login", "u"], "no password for u"),
        (["a", "--ca", "missing"], "does not exist"),
    ],
)
def test_wrong_usage(cli: Run, arguments: list[str], words: str) -> None:
    result = cli("probe", *arguments)
    assert result.exit_code == 2
    assert words in result.stderr


@pytest.mark.peer("smtp-sink")
def test_smtp_sink(cli: Run, backend: str) -> None:
    with smtp_sink() as sink:
        result = cli("probe", sink.address, "--backend", backend)
    assert result.exit_code == 0, result.output
    assert "PIPELINING" in result.stdout


def test_old_tls_is_named(cli: Run, mailroom: Mailroom, site: Site, tmp_path: Path) -> None:
    made = ensure_certificate(tmp_path / "new")
    context = made.server_context()
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    with serving(Server(mailroom, tls=context)) as port:
        result = cli("probe", f"127.0.0.1:{port}", "--ca", made.cert)
    assert result.exit_code == 0, result.output
    assert "TLSv1.2" in result.stdout
