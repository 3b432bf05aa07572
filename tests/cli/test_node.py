"""What a node keeps: made once, whole, and not for everybody's eyes."""

import socket
import ssl
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from smtpproto.cli.node import (
    Login,
    NodeError,
    ensure_certificate,
    ensure_login,
    load_login,
    machine_name,
)
from smtpproto.client import Tls
from smtpproto.core.path import as_domain


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_login_is_made_once(tmp_path: Path) -> None:
    data = tmp_path / "some" / "data"
    login = ensure_login(data)
    assert (login.host, login.port, login.security) == ("127.0.0.1", 2587, Tls.REQUIRED)
    assert len(login.password) >= 20
    assert login.password.isalnum()  # it can be pasted into any shell
    assert ensure_login(data) == load_login(data) == login
    assert mode(data / "login.toml") == 0o600
    assert mode(data) == 0o700
    assert login.password != ensure_login(tmp_path / "other").password


def test_a_login_follows_the_listener_and_keeps_its_password(tmp_path: Path) -> None:
    login = ensure_login(tmp_path)
    moved = ensure_login(tmp_path, "::1", 10587)
    assert (moved.host, moved.port) == ("::1", 10587)
    assert moved.password == login.password
    assert load_login(tmp_path) == moved
    assert mode(tmp_path / "login.toml") == 0o600


def test_a_password_of_ones_own_is_kept_whatever_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "login.toml").write_text(
        'host = "127.0.0.1"\nport = 1\nsecurity = "implicit"\nusername = "ä\\"\\\\"\n'
        'password = "a\\tb\\u007f\\\\"\n'
    )
    login = ensure_login(tmp_path, "127.0.0.1", 2)
    assert login == Login("127.0.0.1", 2, 'ä"\\', "a\tb\x7f\\", Tls.IMPLICIT)
    assert load_login(tmp_path) == login


def test_a_login_is_not_shown_by_accident(tmp_path: Path) -> None:
    login = ensure_login(tmp_path)
    assert login.password not in repr(login)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("host = ", "TOML|Invalid"),
        ('host = "a"', "port: missing"),
        ('host = "a"\nport = "1"', "port: no int"),
        ('host = "a"\nport = true', "port: no int"),
        (
            'host = "a"\nport = 1\nusername = "u"\npassword = "p"\nsecurity = "x"',
            "tls is one of required, opportunistic, implicit, none",
        ),
    ],
)
def test_a_login_file_that_cannot_be_used(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "login.toml").write_text(text)
    with pytest.raises(NodeError, match=words) as caught:
        load_login(tmp_path)
    assert str(tmp_path / "login.toml") in str(caught.value)


def test_without_a_node_there_is_no_login(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_login(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_certificate_is_made_once_for_ten_years(tmp_path: Path) -> None:
    now = datetime(2026, 3, 1, tzinfo=UTC)
    made = ensure_certificate(tmp_path, ["Mail.example.org"], now=lambda: now)
    octets = made.cert.read_bytes(), made.key.read_bytes()
    assert mode(made.key) == 0o600
    cert = x509.load_pem_x509_certificate(octets[0])
    assert cert.not_valid_before_utc <= now
    assert (cert.not_valid_after_utc - now).days >= 3650
    assert ensure_certificate(tmp_path, ["other.example"]) == made
    assert (made.cert.read_bytes(), made.key.read_bytes()) == octets
    assert sorted(path.name for path in (tmp_path / "tls").iterdir()) == ["cert.pem", "key.pem"]


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1", "mail.example.org"])
def test_a_certificate_is_good_for_loopback_and_its_names(tmp_path: Path, name: str) -> None:
    made = ensure_certificate(tmp_path, ["mail.example.org"])
    client = ssl.create_default_context(cafile=made.cert)
    client.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13 on
    handshake(made.server_context(), client, name)


def test_a_certificate_is_good_for_nobody_else(tmp_path: Path) -> None:
    made = ensure_certificate(tmp_path, ["mail.example.org"])
    client = ssl.create_default_context(cafile=made.cert)
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        handshake(made.server_context(), client, "other.example.org")


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> None:
    """Run both ends in memory; whatever either raises is raised."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(10):
        for end in list(ends):
            try:
                end.do_handshake()
                ends.remove(end)
            except ssl.SSLWantReadError:
                pass
    assert not ends


def test_a_certificate_of_ones_own_is_used(tmp_path: Path) -> None:
    other = ensure_certificate(tmp_path / "other")
    data = tmp_path / "data"
    (data / "tls").mkdir(parents=True)
    for name in ("cert.pem", "key.pem"):
        (data / "tls" / name).write_bytes((tmp_path / "other" / "tls" / name).read_bytes())
    assert ensure_certificate(data).cert.read_bytes() == other.cert.read_bytes()


def test_a_certificate_for_a_key_that_is_there(tmp_path: Path) -> None:
    key = ensure_certificate(tmp_path / "other").key.read_bytes()
    (tmp_path / "data" / "tls").mkdir(parents=True)
    (tmp_path / "data" / "tls" / "key.pem").write_bytes(key)
    made = ensure_certificate(tmp_path / "data")
    made.server_context()  # NodeError if the two did not fit
    assert made.key.read_bytes() == key


def test_a_certificate_without_its_key(tmp_path: Path) -> None:
    ensure_certificate(tmp_path).key.unlink()
    with pytest.raises(NodeError, match="its key is not"):
        ensure_certificate(tmp_path)


@pytest.mark.parametrize("octets", [b"", b"no key"])
def test_a_key_that_is_none(tmp_path: Path, octets: bytes) -> None:
    (tmp_path / "tls").mkdir()
    (tmp_path / "tls" / "key.pem").write_bytes(octets)
    with pytest.raises(NodeError, match=r"key\.pem"):
        ensure_certificate(tmp_path)


def test_a_pair_that_does_not_fit(tmp_path: Path) -> None:
    made = ensure_certificate(tmp_path / "a")
    other = ensure_certificate(tmp_path / "b")
    made.key.write_bytes(other.key.read_bytes())
    with pytest.raises(NodeError, match=r"cert\.pem"):
        made.server_context()


def test_two_that_start_at_once_agree(tmp_path: Path) -> None:
    def start(_: int) -> tuple[str, bytes]:
        made = ensure_certificate(tmp_path)
        made.server_context()
        return ensure_login(tmp_path).password, made.cert.read_bytes()

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(start, range(16)))) == 1


def test_the_name_of_this_machine_is_a_domain(monkeypatch: pytest.MonkeyPatch) -> None:
    as_domain(machine_name())  # LocalProtocolError if it were none
    monkeypatch.setattr(socket, "gethostname", lambda: "Bob's Laptop")
    assert machine_name() == "localhost"
    monkeypatch.setattr(socket, "gethostname", lambda: "MX1.example.org")
    assert machine_name() == "mx1.example.org"
