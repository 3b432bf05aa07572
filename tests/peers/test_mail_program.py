"""A mail program's path from nothing: account, settings, submission, filters, mailbox, reading."""

from __future__ import annotations

import contextlib
import imaplib
import poplib
import re
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest
from attrs import define
from click.testing import CliRunner

from smtpproto.cli.account import account
from smtpproto.client import Tls
from smtpproto.discover import Candidate, FetchError, discover
from smtpproto.resolve import DnsResolver
from tests.relay.process import Served, serving

from .names import named
from .programs import HOST, PATIENCE, Dovecot, dovecot, find, free_port, run, swaks
from .rspamd import GTUBE, rspamd

pytestmark = [
    pytest.mark.peer("rspamd"),
    pytest.mark.peer("dovecot"),
    pytest.mark.peer("named"),
]

ANN = "ann@our.test"
PASSWORD = "correct horse 1%"

SETTINGS = """\
local-domains = ["our.test"]
accounts = "accounts"
submissions = "127.0.0.1:0"

[[filters]]
use = "header"
listeners = ["smtp", "submission", "submissions"]

[[filters]]
use = "rspamd"
url = "{url}"
listeners = ["smtp", "submission", "submissions"]
"""

#: What the page "read your mail" shows.
SHOWN = Path(__file__).parents[2] / "examples" / "howto" / "dovecot.conf"
POP3 = """
service pop3-login {{
  chroot =
  inet_listener pop3 {{
    port = {port}
  }}
  inet_listener pop3s {{
    port = 0
  }}
}}
"""


@define
class Site:
    node: Served
    server: Candidate
    store: Dovecot
    pop3: int
    directory: Path

    @property
    def certificate(self) -> Path:
        return self.node.data / "tls" / "cert.pem"

    def by_imap(self) -> list[bytes]:
        with imaplib.IMAP4(HOST, self.store.port, timeout=PATIENCE) as session:
            session.login(ANN, PASSWORD)
            session.select()
            _, numbers = session.search(None, "ALL")
            found = [session.fetch(number, "(RFC822)")[1][0] for number in numbers[0].split()]
        return [part[1] for part in found if isinstance(part, tuple)]

    def by_pop3(self) -> list[bytes]:
        session = poplib.POP3(HOST, self.pop3, timeout=PATIENCE)
        session.user(ANN)
        session.pass_(PASSWORD)
        count, _ = session.stat()
        mail = [b"\r\n".join(session.retr(n)[1]) + b"\r\n" for n in range(1, count + 1)]
        session.quit()
        return mail

    def said(self, words: str) -> str:
        """The line of its log with these words."""
        self.node.until(lambda: any(words in line for line in self.node.lines), f"to say {words}")
        return next(line for line in self.node.lines if words in line)


async def no_web(url: str, most: int) -> bytes:
    raise FetchError("there is no web here")


def discovered(port: int, certificate: Path) -> Candidate:
    """What a mail program finds out by the SRV records of RFC 8314 §5.1."""
    zones = {
        "our.test": f"_submissions._tcp SRV 0 1 {port} localhost.",
        "localhost": "@ A 127.0.0.1",
    }
    with named(zones) as names:

        async def search() -> Candidate | None:
            found = await discover(
                ANN,
                resolver=DnsResolver([HOST], port=names.port),
                fetcher=no_web,
                ssl_context=ssl.create_default_context(cafile=certificate),
            )
            return found.best

        best = anyio.run(search)
    assert best is not None
    return best


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with contextlib.ExitStack() as stack:
        accounts = tmp_path / "accounts"
        added = CliRunner(env={"SMTPPROTO_PASSWORD": PASSWORD}).invoke(
            account, ["--file", str(accounts), "add", ANN, "--scheme", "SCRAM-SHA-256"]
        )
        assert added.exit_code == 0, added.output
        config = tmp_path / "smtpproto.toml"
        config.write_text(SETTINGS.format(url=stack.enter_context(rspamd()).url))
        data = tmp_path / "data"
        node = stack.enter_context(serving(data, "--config", config))
        (port,) = re.findall(r"^ *submissions .*?:(\d+) ", "".join(node.lines), re.MULTILINE)
        best = discovered(int(port), data / "tls" / "cert.pem")
        assert (best.host, best.port, best.tls) == ("localhost", int(port), Tls.IMPLICIT)
        assert best.usernames[0] == ANN
        pop3 = free_port()
        store = stack.enter_context(
            dovecot(
                tmp_path / "nowhere",
                accounts=accounts,
                users=[ANN],
                settings=SHOWN.read_text()
                .replace("/var/lib/smtpproto", str(data))
                .replace("/etc/smtpproto", str(tmp_path))
                .replace("=smtpproto", "=mail")
                + POP3.format(port=pop3),
            )
        )
        yield Site(node, best, store, pop3, tmp_path)


def by_swaks(site: Site, *options: str) -> tuple[int, str]:
    """PLAIN, for it knows no SCRAM."""
    done = swaks(
        *("--server", f"{site.server.host}:{site.server.port}", "--tls-on-connect"),
        *("--tls-verify", "--tls-ca-path", str(site.certificate), "--auth", "PLAIN"),
        *("--auth-user", ANN, "--auth-password", PASSWORD, "--helo", "swaks.example"),
        *("--from", ANN, "--to", ANN, *options),
    )
    return done.returncode, done.stdout


def by_mutt(site: Site, *, body: str = "hello", password: str = PASSWORD) -> tuple[int, str]:
    """SCRAM-SHA-256, and nothing else."""
    file = site.directory / "muttrc"
    file.write_text(
        f"""
set smtp_url="smtps://{ANN.replace("@", "%40")}@{site.server.host}:{site.server.port}/"
set smtp_pass="{password}"
set smtp_authenticators="scram-sha-256"
set ssl_ca_certificates_file="{site.certificate}"
set ssl_usesystemcerts=no
set from="{ANN}" use_envelope_from=yes hostname="our.test" copy=no
"""
    )
    letter = site.directory / "letter"
    letter.write_text(body)
    shell = 'HOME="$1" exec "$2" -n -F "$3" -d 2 -s "from mutt" -- "$4" < "$5"'
    done = run(
        *("sh", "-c", shell, "sh", str(site.directory), find("mutt", "mutt"), str(file)),
        *(ANN, str(letter)),
    )
    return done.returncode, done.stdout


@pytest.mark.peer("swaks")
@pytest.mark.peer("mutt")
@pytest.mark.parametrize("send", [by_swaks, by_mutt])
def test_from_an_account_that_is_added_to_mail_that_is_read(
    site: Site, send: Callable[[Site], tuple[int, str]]
) -> None:
    code, output = send(site)
    assert code == 0, output
    accepted = site.said("accepted")
    assert f"by ESMTPSA as {ANN}, TLSv1.3" in accepted
    site.said("delivered")
    (mail,) = site.by_imap()
    assert site.by_pop3() == [mail]
    assert b"X-Filtered: localhost; header=pass; rspamd=tag (no action, 0 of 15" in mail
    assert re.search(rb"\bwith ESMTPSA\b", mail)
    assert f"Return-Path: <{ANN}>".encode() in mail


@pytest.mark.peer("mutt")
def test_a_wrong_password_is_no_way_in(site: Site) -> None:
    code, output = by_mutt(site, password="guess")
    assert code != 0
    assert "SASL authentication failed" in output
    assert site.by_imap() == []


@pytest.mark.peer("swaks")
def test_spam_of_a_user_is_refused_and_the_screen_says_why(site: Site) -> None:
    code, output = by_swaks(site, "--body", GTUBE.decode())
    assert code != 0
    assert "554 5.7.1 This is taken for spam" in output
    told = site.said("rspamd=refuse (reject, 15 of 15: GTUBE)")
    assert re.search(r"\d\d:\d\d:\d\d \S+ judged +127\.0\.0\.1 at content: rspamd", told)
    assert site.by_imap() == []
