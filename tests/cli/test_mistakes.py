"""`config check` by every kind of mistake: each is explained, with its line and a way out."""

from __future__ import annotations

import json
import os
import pwd
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from smtpproto.cli import usable
from smtpproto.cli.node import ensure_certificate
from smtpproto.relay import HostPort
from tests.cli.conftest import Run

FILE = Path("smtp.toml")
TLS = Path("node/tls")


#: What listens there on this machine is none of this test's business.
USUAL = {25, 2525, 2587}


@pytest.fixture(autouse=True)
def _usual_ports_are_free(monkeypatch: pytest.MonkeyPatch) -> None:
    bind = usable._bind

    def unless_usual(at: HostPort) -> None:
        if at.port not in USUAL or at.host not in {"", "127.0.0.1", "::1"}:
            bind(at)

    monkeypatch.setattr(usable, "_bind", unless_usual)


def checked(cli: Run, text: str) -> tuple[list[str], list[str]]:
    """Check a file; return what is wrong, and what is doubtful."""
    FILE.write_text(text)
    result = cli("config", "check", FILE, "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == (1 if found["problems"] else 0)
    assert found["sound"] is not bool(found["problems"])
    shown = cli("config", "check", FILE).stdout

    def lines(kind: str) -> list[str]:
        said = [
            (f"line {each['line']}: " if each["line"] else "") + each["text"]
            for each in found[kind]
        ]
        assert all(each in shown for each in said)
        return said

    return lines("problems"), lines("warnings")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        # Keys
        ('hostnam = "a"', 'line 1: hostnam: no such key; did you mean "hostname"?'),
        (
            '[[filters]]\nuse = "blocklst"',
            'line 1: filters: entry 1: use: "blocklst" is none of them; did you mean "blocklist"?',
        ),
        (
            '[[filters]]\nuse = "blocklist"\nzon = "a.example"\nzone = "b.example"',
            'line 1: filters: entry 1: zon: no such key; did you mean "zone"?',
        ),
        (
            '[[routes]]\nvia = "mx"\n[[routes]]\nvia = "mx"\nlogn = "x"',
            'line 3: routes: entry 2: logn: no such key; did you mean "login"?',
        ),
        (
            '[aliases]\nroot = "ann@localhost"\nhostname = "a.example"',
            'line 1: aliases: "a.example" is no address or @domain ("hostname" is a setting of its '
            "own: it has to stand above all tables)",
        ),
        (
            '[[filters]]\nuse = "header"\nmax-message = "1M"',
            "line 1: filters: entry 1: max-message: no such key; there are use, listeners, does "
            '("max-message" is a setting of its own: it has to stand above all tables)',
        ),
        # Types
        (
            '[routes]\nvia = "mx"',
            "line 1: routes: takes tables, each below its own [[routes]], such as via = "
            '"lmtp:unix:/run/lmtp"; a table was given',
        ),
        (
            "listen = 25",
            'line 1: listen: takes a text HOST:PORT, such as "127.0.0.1:2525", "[::1]:2525" or '
            '":25" (all addresses); a number was given',
        ),
        (
            "max-recipients = 50",
            "line 1: max-recipients: 50 is too few: every server takes 100 (RFC 5321 §4.5.3.1.8)",
        ),
        (
            'lifetime = "forever"',
            'line 1: lifetime: "forever" is no time above 0, such as 30, "30 s", "10 min", "4 h" '
            'or "5 d"',
        ),
        # Files
        (
            'accounts = "nofile"',
            "line 1: accounts: nofile does not exist; make it: smtpproto account "
            "--file nofile add NAME",
        ),
        ('accounts = "."', "line 1: accounts: .: Is a directory"),
        ('data = "file"', "line 1: data: {here}/file is no directory"),
        ('data = "file/below"', "line 1: data: {here}/file is no directory"),
        (
            '[[routes]]\nvia = "smtp:a.example:25"\nca-file = "nofile"',
            "line 1: routes: entry 1: cannot read nofile: No such file or directory",
        ),
        (
            'smart-host = "a.example:587"\nsmart-host-login = "ann"\n'
            'smart-host-password-file = "nofile"',
            "line 3: smart-host-password-file: cannot read the password from nofile: No such file "
            "or directory",
        ),
        # Users
        (
            'user = "nosuchuser"',
            "line 1: user: there is no user nosuchuser; make one: useradd --system nosuchuser",
        ),
        ('user = "root"', "line 1: user: root is whom not to be"),
        (
            'user = "nobody"\ngroup = "nosuchgroup"',
            "line 2: group: there is no group nosuchgroup",
        ),
        # Addresses
        (
            'listen = "192.0.2.77:2525"',
            "line 1: listen: cannot listen on 192.0.2.77:2525: this machine does not have that "
            "address",
        ),
        # What contradicts each other
        ('group = "mail"', "line 1: group: it needs user"),
        (
            'metrics = "127.0.0.1:2525"',
            "line 1: metrics: listen and metrics are both at port 2525; they have to differ",
        ),
        (
            'submission = ":2525"',
            "line 1: submission: listen and submission are both at port 2525; they have to differ",
        ),
        (
            'first-retry = "2 h"\nlongest-retry = "1 h"',
            "line 2: longest-retry: it has to be as long as first-retry, or longer",
        ),
        (
            '[[filters]]\nuse = "limits"',
            'line 1: filters: use = "limits" needs [[limits]] that say which',
        ),
        (
            'smart-host = "localhost:2525"',
            "line 1: smart-host: localhost:2525 is this node: mail would go round and round",
        ),
        (
            'hostname = "a.example"\nlisten = "[::1]:25"\nsmart-host = "a.example:25"',
            "line 3: smart-host: a.example:25 is this node: mail would go round and round",
        ),
    ],
)
def test_a_mistake_is_explained(cli: Run, text: str, said: str) -> None:
    Path("file").touch()
    problems, _ = checked(cli, text)
    assert problems == [said.format(here=Path.cwd()) if "{here}" in said else said]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('hostname = "a.example"\nlisten = :25', 2, 'a text stands in quotes, as in key = "text"'),
        ('listen = ":25"\nlisten = ":26"', 2, "this key is there already, above"),
        ('hostname = "a.example\n', 1, "a text has no end: its second quote is missing"),
        (
            '[routes]\nvia = "mx"\n[routes]\nvia = "mx"',
            3,
            "this table is there already, above; entries have two brackets: [[routes]]",
        ),
    ],
)
def test_what_is_no_toml_is_said_in_words_too(cli: Run, text: str, line: int, words: str) -> None:
    ((problem,), _) = checked(cli, text)
    assert problem.startswith(f"line {line}: no TOML: ")
    assert problem.endswith(f" - {words}")


@pytest.mark.parametrize(
    ("text", "starts"),
    [
        (
            'relay-from = ["192.0.2.1/24", "x", "0.0.0.0/0"]',
            [
                'line 1: relay-from: "192.0.2.1/24" is an address within a network; did you mean',
                'line 1: relay-from: "x" is no network, such as "192.0.2.0/24"',
                'line 1: relay-from: "0.0.0.0/0" is everybody, which would make an open relay',
            ],
        ),
        (
            'local-domains = ["a b", "[192.0.2.1]", "a.example"]',
            [
                'line 1: local-domains: "a b" is no domain name',
                'line 1: local-domains: "[192.0.2.1]" is an address; a domain name is needed',
            ],
        ),
        (
            '[[filters]]\nuse = "names"\nbare = "no"\nnamless = "tag"\n[[filters]]\nuse = "rspamd"',
            [
                'line 1: filters: entry 1: bare: "no" is none of them; there are refuse, tag',
                'line 1: filters: entry 1: namless: no such key; did you mean "nameless"?',
                "line 5: filters: entry 2: url is missing: rspamd takes a text, such as",
            ],
        ),
        (
            'smart-host-tls = "none"\nsmart-host-login = "ann"\ngroup = "mail"',
            [
                "line 3: group: it needs user",
                "line 2: smart-host-login: it needs a smart-host",
                "line 1: smart-host-tls: it needs a smart-host",
            ],
        ),
    ],
)
def test_all_mistakes_of_a_value_are_told(cli: Run, text: str, starts: list[str]) -> None:
    problems, _ = checked(cli, text)
    assert len(problems) == len(starts)
    for problem, start in zip(problems, starts, strict=True):
        assert problem.startswith(start)


# The certificate


def key() -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def with_password() -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )


def a_directory(file: Path) -> Callable[[], None]:
    def make() -> None:
        file.unlink()
        file.mkdir()

    return make


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            lambda: (TLS / "key.pem").write_bytes(key()),
            "node/tls/key.pem is not the key of node/tls/cert.pem",
        ),
        (
            lambda: (TLS / "key.pem").write_bytes(with_password()),
            "node/tls/key.pem has a password, which nobody is there to give; take it off",
        ),
        (
            lambda: (TLS / "key.pem").write_text("none"),
            "node/tls/key.pem has no private key in PEM that can be read",
        ),
        (
            lambda: (TLS / "cert.pem").write_text("none"),
            "node/tls/cert.pem has no certificate in PEM that can be read",
        ),
        (
            (TLS / "key.pem").unlink,
            "node/tls/cert.pem is there, and its key is not: node/tls/key.pem",
        ),
        (a_directory(TLS / "cert.pem"), "node/tls/cert.pem cannot be read: Is a directory"),
        (a_directory(TLS / "key.pem"), "node/tls/key.pem cannot be read: Is a directory"),
    ],
)
def test_a_certificate_that_cannot_be_used(
    cli: Run, spoil: Callable[[], object], said: str
) -> None:
    ensure_certificate(Path("node"))
    assert checked(cli, 'data = "node"') == ([], [])
    spoil()
    assert checked(cli, 'data = "node"') == ([f"line 1: data: {said}"], [])
    result = cli("serve", "--config", FILE)  # and `serve` says the same
    assert result.exit_code == 1
    assert said in result.stderr


def test_a_certificate_that_has_expired_is_a_doubt(cli: Run) -> None:
    ensure_certificate(Path("node"), now=lambda: datetime(2001, 1, 1, tzinfo=UTC))
    (doubt,) = checked(cli, 'data = "node"')[1]
    assert doubt.endswith("the certificate node/tls/cert.pem has expired: mail programs refuse it")


# What may pass


@pytest.fixture
def taken() -> Iterator[int]:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("key", ["listen", "submission", "submissions", "metrics"])
def test_a_port_that_is_in_use_may_be_the_nodes_own(cli: Run, taken: int, key: str) -> None:
    problems, doubts = checked(cli, f'{key} = "127.0.0.1:{taken}"')
    said = f"127.0.0.1:{taken} is in use, by the node itself or by another program"
    assert (problems, doubts) == ([], [f"line 1: {key}: {said}"])


@pytest.mark.parametrize("fail", ["pass", "defer"])
def test_an_rspamd_that_is_not_in_reach_is_a_doubt(cli: Run, taken: int, fail: str) -> None:
    url = f"http://127.0.0.1:{taken}"
    entry = f'filters-fail = "{fail}"\n[[filters]]\nuse = "rspamd"\nurl = "{{}}"'
    assert checked(cli, entry.format(url)) == ([], [])
    problems, (doubt,) = checked(cli, entry.format("http://127.0.0.1:1"))
    assert problems == []
    assert doubt.startswith(
        "line 2: filters: entry 1: rspamd at http://127.0.0.1:1 is not in reach: connection refused"
    )
    assert ("mail passes unseen" if fail == "pass" else "mail is put off") in doubt


def test_an_rspamd_that_does_not_answer_in_time(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> socket.socket:
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", never)
    entry = '[[filters]]\nuse = "rspamd"\nurl = "http://127.0.0.1"'
    (doubt,) = checked(cli, entry)[1]
    assert "is not in reach: no answer within 3 s" in doubt


def test_lines_of_accounts_that_are_passed_over(cli: Run) -> None:
    Path("accounts").touch(0o600)
    Path("accounts").write_text("ann:{PLAIN}secret\nnot a line\n")
    problems, (doubt,) = checked(cli, 'accounts = "accounts"')
    assert problems == []
    assert doubt.startswith("line 1: accounts: accounts: line 2: 'not a line' is no name: ")
    Path("accounts").write_text("# nobody yet\n")
    assert checked(cli, 'accounts = "accounts"')[1] == [
        "line 1: accounts: accounts has none: nobody can log in"
    ]


def test_a_password_that_somebody_would_have_to_type(cli: Run) -> None:
    text = 'smart-host = "a.example:587"\nsmart-host-login = "ann"'
    (doubt,) = checked(cli, text)[1]
    assert doubt.startswith("line 2: smart-host-login: the password of ann is asked for at the")
    FILE.write_text(text)
    assert "•" not in cli("config", "check", FILE, SMTPPROTO_PASSWORD="secret").stdout


def test_numbers_that_everybody_may_read(cli: Run) -> None:
    (doubt,) = checked(cli, 'metrics = ":0"')[1]
    assert doubt == "line 1: metrics: whoever gets to *:0 is told: let nobody else get there"


def test_who_is_not_root(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    (doubt,) = checked(cli, 'user = "nobody"')[1]
    assert doubt.startswith("line 1: user: only root can become nobody")
    monkeypatch.setattr(os, "geteuid", lambda: pwd.getpwnam("nobody").pw_uid)
    assert checked(cli, 'user = "nobody"')[1] == []
    (error,), doubts = checked(cli, 'user = "nosuchuser"')
    assert error.startswith("line 1: user: there is no user nosuchuser")
    assert doubts == []


def test_a_port_that_only_root_may_have(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(at: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(usable, "_bind", refused)
    problems, doubts = checked(cli, 'listen = "127.0.0.1:25"\nsubmission = "127.0.0.1:0"')
    assert problems == []
    assert doubts == [
        "line 1: listen: only root may listen on 127.0.0.1:25: start it as root, and give it a "
        "user, or by systemd"
    ]


def test_nothing_is_made_and_nothing_is_kept_bound(cli: Run) -> None:
    text = 'listen = "127.0.0.1:2525"\ndata = "node"'
    for _ in range(2):
        assert checked(cli, text) == ([], [])
    assert not Path("node").exists()
