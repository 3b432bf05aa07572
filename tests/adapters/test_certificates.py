"""Certificates by name, and new ones without a restart: in handshakes that real clients make."""

import logging
import ssl
from contextlib import AsyncExitStack
from pathlib import Path
from shutil import copy

import anyio
import pytest
from anyio.streams.tls import TLSAttribute, TLSStream
from attrs import define
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from smtpproto import LocalProtocolError
from smtpproto.certificates import Certificates, KeyPair
from smtpproto.cli.node import ensure_certificate
from smtpproto.client import Client
from smtpproto.result import TlsError
from smtpproto.server import At, Server

from .wire import HOST, connect
from .world import ENVELOPE, MESSAGE, Box, running

pytestmark = pytest.mark.anyio


def pair(directory: Path, *names: str) -> KeyPair:
    """Make a certificate of its own for these names."""
    made = ensure_certificate(directory, names)
    return KeyPair(made.cert, made.key)


def der(one: KeyPair) -> bytes:
    return ssl.PEM_cert_to_DER_cert(Path(one.cert).read_text())


@define
class Site:
    """Key pairs by what they are for, and the certificates of a server that has them."""

    default: KeyPair
    exact: KeyPair
    wild: KeyPair
    umlaut: KeyPair
    certificates: Certificates


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("site")
    default = pair(folder / "default", "default.example")
    exact = pair(folder / "exact", "mail.example.net")
    wild = pair(folder / "wild", "wild.example.net")
    umlaut = pair(folder / "umlaut", "xn--bcher-kva.example")
    names = {
        "mail.example.net": exact,
        "*.example.net": wild,
        "b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher.example": umlaut,
    }
    return Site(default, exact, wild, umlaut, Certificates(default, names))


async def shown(port: int, name: str | None, *, starttls: bool = True) -> bytes:
    """The certificate that is shown to a client who asks for a name."""
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname = False
    anybody.verify_mode = ssl.CERT_NONE
    async with await connect(port) as wire:
        if starttls:
            await wire.reply()
            await wire.ask("EHLO client.example")
            assert (await wire.ask("STARTTLS")).startswith("220")
        stream = await TLSStream.wrap(
            wire.stream,
            hostname=name,
            server_side=False,
            ssl_context=anybody,
            standard_compatible=False,
        )
        wire.stream = stream
        if not starttls:
            assert (await wire.reply()).startswith("220")
        assert (await wire.ask("EHLO client.example")).startswith("250")
        certificate = stream.extra(TLSAttribute.peer_certificate_binary)
        assert certificate is not None
        return certificate


@pytest.mark.rfc("6066 §3")
@pytest.mark.parametrize("starttls", [True, False])
@pytest.mark.parametrize(
    ("name", "whose"),
    [
        (None, "default"),
        ("elsewhere.example", "default"),
        ("example.net", "default"),
        ("a.b.example.net", "default"),
        ("default.example", "default"),
        ("mail.example.net", "exact"),
        ("MAIL.Example.NET", "exact"),
        ("www.example.net", "wild"),
        ("xn--bcher-kva.example", "umlaut"),
    ],
)
async def test_the_name_that_a_client_gives_chooses(
    starttls: bool, name: str | None, whose: str, site: Site, box: Box
) -> None:
    server = Server(box, tls=site.certificates, implicit_tls=not starttls)
    async with running(server) as port:
        assert await shown(port, name, starttls=starttls) == der(getattr(site, whose))


async def test_our_client_trusts_it_by_its_name(site: Site, box: Box) -> None:
    trusting = ssl.create_default_context(cafile=site.default.cert)
    async with running(Server(box, tls=site.certificates)) as port:
        async with Client("localhost", port, ssl_context=trusting) as client:
            await client.send(ENVELOPE, MESSAGE)
        trusting = ssl.create_default_context(cafile=site.exact.cert)
        with pytest.raises(TlsError):
            await Client("localhost", port, ssl_context=trusting).__aenter__()


async def test_reload_is_for_sessions_from_then_on(tmp_path: Path, box: Box) -> None:
    old, new = pair(tmp_path / "old", "localhost"), pair(tmp_path / "new", "localhost")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    used = KeyPair(cert, key)
    copy(old.cert, cert)
    copy(str(old.key), key)
    server = Server(box, tls=Certificates(used, {"other.example": used}))
    trusting = ssl.create_default_context(cafile=old.cert)
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(running(server))
        client = Client("localhost", port, ssl_context=trusting)
        before = await stack.enter_async_context(client)
        copy(new.cert, cert)
        copy(str(new.key), key)
        assert await shown(port, "localhost") == der(old)
        assert server.reload()
        assert await shown(port, "localhost") == der(new)
        assert await shown(port, "other.example") == der(new)
        await before.send(ENVELOPE, MESSAGE)  # it is not disturbed
    assert len(box.received) == 1


def spoil(pair: KeyPair, how: str, other: KeyPair) -> None:
    cert, key = Path(pair.cert), Path(str(pair.key))
    match how:
        case "missing":
            key.unlink()
        case "garbage":
            cert.write_text("-----BEGIN CERTIFICATE-----\nnone\n")
        case "wrong key":
            copy(str(other.key), key)
        case _:
            encrypted = load_pem_private_key(key.read_bytes(), None).private_bytes(
                Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
            )
            key.write_bytes(encrypted)


@pytest.mark.parametrize("broken", ["missing", "garbage", "wrong key", "encrypted"])
async def test_new_files_that_are_broken_change_nothing(
    broken: str, tmp_path: Path, box: Box, caplog: pytest.LogCaptureFixture
) -> None:
    good, other = pair(tmp_path / "good", "localhost"), pair(tmp_path / "other", "localhost")
    server = Server(box, tls=Certificates(good, {"other.example": other}))
    was = der(other)
    spoil(other, broken, good)
    async with running(server) as port:
        with caplog.at_level(logging.ERROR):
            assert not server.reload()
        assert "the old certificates stay" in caplog.text
        assert str(other.cert) in caplog.text
        assert await shown(port, "other.example") == was
        assert await shown(port, None) == der(good)


async def test_a_server_with_a_plain_context_has_nothing_to_reload(site: Site, box: Box) -> None:
    assert Server(box).reload()
    assert Server(box, tls=site.certificates.context).reload()


async def test_a_context_of_ones_own_making(tmp_path: Path, box: Box) -> None:
    """What it says of TLS holds for each certificate."""

    def only_1_2() -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        return context

    one = pair(tmp_path, "localhost")
    server = Server(box, tls=Certificates(one, {"localhost": one}, make=only_1_2))
    trusting = ssl.create_default_context(cafile=one.cert)
    async with running(server) as port, Client("localhost", port, ssl_context=trusting) as client:
        await client.send(ENVELOPE, MESSAGE)
    tls = box.received[0].session.tls
    assert tls is not None
    assert tls.version == "TLSv1.2"


def test_what_cannot_be_used_at_first_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"none\.pem"):
        Certificates(KeyPair(tmp_path / "none.pem"))


@pytest.mark.parametrize("name", ["", "*.", "*", "a..b", "-.example", "*.*.example", "a b.example"])
def test_what_is_no_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(LocalProtocolError, match="not a domain name"):
        Certificates(pair(tmp_path, "localhost"), {name: KeyPair("x")})


async def test_a_key_with_a_password(tmp_path: Path, box: Box) -> None:
    made = pair(tmp_path, "localhost")
    spoil(made, "encrypted", made)
    server = Server(box, tls=Certificates(KeyPair(made.cert, made.key, "secret")))
    async with running(server) as port:
        assert await shown(port, None) == der(made)


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(KeyPair("cert.pem", "key.pem", "secret"))


async def test_places_share_them(site: Site, box: Box) -> None:
    server = Server(box, tls=site.certificates)
    async with anyio.create_task_group() as tasks:
        bound = await tasks.start(server.serve_at, [At(HOST), At(HOST, implicit_tls=True)])
        for (_, port), starttls in zip(bound, [True, False], strict=True):
            assert await shown(port, "mail.example.net", starttls=starttls) == der(site.exact)
        tasks.cancel_scope.cancel()
