"""What a node keeps under its data directory, beside spool and mail, and how it first comes there.

::

    login.toml      who may submit mail, and where; mode 0600
    secret          what strangers are told of accounts that do not exist hangs on it; mode 0600
    tls/key.pem     the key of its certificate; mode 0600
    tls/cert.pem    self-signed, unless you put your own there

All functions block. Nothing that exists is ever overwritten but the address in `login.toml`.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import secrets
import socket
import ssl
import tomllib
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from attrs import evolve, field, frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from smtpproto.certificates import Certificates, KeyPair, server_context
from smtpproto.client import Tls

from .values import domain
from .written import quoted

__all__ = [
    "Certificate",
    "Login",
    "NodeError",
    "ensure_certificate",
    "ensure_login",
    "ensure_secret",
    "load_login",
    "machine_name",
]

#: Without what is easily taken for something else, and safe in every shell.
PASSWORD_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"  # noqa: S105
LIFETIME = timedelta(days=3652)
OWN_NAMES = ("localhost", "127.0.0.1", "::1")


class NodeError(Exception):
    """What is in the data directory cannot be used; the message says what and where."""


@frozen
class Login:
    """What to enter in a mail program to submit mail to this node."""

    host: str
    port: int
    username: str
    password: str = field(repr=False)
    security: Tls = Tls.REQUIRED


@frozen
class Certificate:
    """A PEM file with a certificate, perhaps followed by its chain, and one with its key."""

    cert: Path
    key: Path

    def reloadable(self) -> Certificates:
        """Return what serves TLS with it, and reads it again when asked to. NodeError as below."""
        try:
            return Certificates(KeyPair(self.cert, self.key))
        except OSError as error:
            raise NodeError(self._fault() or str(error)) from error

    def server_context(self) -> ssl.SSLContext:
        """Return a context to serve TLS with. NodeError if the two do not fit."""
        context = server_context()
        try:
            context.load_cert_chain(self.cert, self.key)
        except (OSError, ssl.SSLError) as error:
            words = self._fault() or f"{self.cert} with {self.key}: {error}"
            raise NodeError(words) from error
        return context

    def _fault(self) -> str:
        """Say in words what is wrong with the files, if that is one of the usual mistakes."""
        file = self.cert
        try:
            certificate = x509.load_pem_x509_certificate(file.read_bytes())
            file = self.key
            key = serialization.load_pem_private_key(file.read_bytes(), None)
        except OSError as error:
            return f"{file} cannot be read: {error.strerror or error}"
        except TypeError:
            return f"{file} has a password, which nobody is there to give; take it off"
        except ValueError:
            what = "certificate" if file == self.cert else "private key"
            return f"{file} has no {what} in PEM that can be read"
        if key.public_key() != certificate.public_key():
            return f"{self.key} is not the key of {self.cert}"
        return ""


def machine_name() -> str:
    """Return this machine's own name where it can be a domain name, else `localhost`."""
    try:
        return domain(socket.gethostname())
    except ValueError:
        return "localhost"


# The login


def ensure_login(data: Path, host: str = "127.0.0.1", port: int = 2587) -> Login:
    """Return the login of the node in `data`, made with a random password if there is none.

    `host` and `port` are where submission listens now, and are written there if they changed.
    OSError and NodeError when it cannot be read or made.
    """
    _make_directory(data)
    path = data / "login.toml"
    if not path.exists():
        password = "".join(secrets.choice(PASSWORD_LETTERS) for _ in range(20))
        _create(path, _login_toml(Login(host, port, "me", password)), 0o600)
    login = load_login(data)
    if (login.host, login.port) != (host, port):
        login = evolve(login, host=host, port=port)
        temporary = _written(path, _login_toml(login), 0o600)
        temporary.replace(path)
        _sync(data)
    return login


def ensure_secret(data: Path) -> bytes:
    """Return 32 random octets, the same for the node in `data` as long as it is there. OSError."""
    _make_directory(data)
    path = data / "secret"
    if not path.exists():
        _create(path, secrets.token_bytes(32), 0o600)
    return path.read_bytes()


def load_login(data: Path) -> Login:
    """Read the login of the node in `data`. FileNotFoundError if there is no node; NodeError."""
    path = data / "login.toml"
    try:
        found: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))
        return Login(
            host=_typed(found, "host", str),
            port=_typed(found, "port", int),
            username=_typed(found, "username", str),
            password=_typed(found, "password", str),
            security=Tls(_typed(found, "security", str)),
        )
    except ValueError as error:  # TOML, UTF-8, or what _typed and Tls find
        raise NodeError(f"{path}: {error}") from None


def _typed(found: dict[str, Any], key: str, kind: type[Any]) -> Any:
    if type(found.get(key)) is not kind:
        raise ValueError(f"{key}: {'missing' if key not in found else f'no {kind.__name__}'}")
    return found[key]


def _login_toml(login: Login) -> bytes:
    return f"""\
# What to enter in a mail program to send through this node. Keep it to yourself.
# security: "required" is STARTTLS, "implicit" is TLS from the start.
host = {quoted(login.host)}
port = {login.port}
security = {quoted(login.security.value)}
username = {quoted(login.username)}
password = {quoted(login.password)}
""".encode()


# The certificate


def ensure_certificate(
    data: Path,
    names: Iterable[str] = (),
    *,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Certificate:
    """Return the certificate of the node in `data`, made for ten years if there is none.

    It is valid for `names` (domains or IP addresses) and this machine's loopback, and signed by
    itself. OSError and NodeError when it cannot be read or made.
    """
    files = Certificate(data / "tls" / "cert.pem", data / "tls" / "key.pem")
    _make_directory(data)
    _make_directory(data / "tls")
    if not files.cert.exists():
        # The key first: who dies in between, or comes second, goes on with that same key.
        if not files.key.exists():
            _create(files.key, _pem(ec.generate_private_key(ec.SECP256R1())), 0o600)
        unique = list(dict.fromkeys([*OWN_NAMES, *(name.lower() for name in names)]))
        try:
            key = serialization.load_pem_private_key(files.key.read_bytes(), None)
        except (ValueError, TypeError) as error:
            raise NodeError(f"{files.key}: no private key: {error}") from None
        if not isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey)):
            raise NodeError(f"{files.key}: neither an EC nor an RSA key")
        _create(files.cert, _self_signed(key, unique, now()), 0o644)
    if not files.key.exists():
        raise NodeError(f"{files.cert} is there, and its key is not: {files.key}")
    return files


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _self_signed(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, names: list[str], now: datetime
) -> bytes:
    public = key.public_key()
    # The common name is for people's eyes; programs go by the list below it. At most 64 octets.
    named = next((name for name in names if name not in OWN_NAMES and len(name) <= 64), names[0])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, named)])
    key_id = x509.SubjectKeyIdentifier.from_public_key(public)
    usage = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))  # clocks differ
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectAlternativeName([_general_name(n) for n in names]), False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        .add_extension(x509.KeyUsage(digital_signature=True, **usage), True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
        .add_extension(key_id, False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id), False
        )
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


# Files


def _make_directory(path: Path) -> None:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)


def _create(path: Path, octets: bytes, mode: int) -> None:
    """Make a file that is whole from the moment it is there; one that is there stays."""
    temporary = _written(path, octets, mode)
    try:
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink()
    _sync(path.parent)


def _written(path: Path, octets: bytes, mode: int) -> Path:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with open(descriptor, "wb") as file:
        file.write(octets)
        file.flush()
        os.fsync(descriptor)
    return temporary


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
