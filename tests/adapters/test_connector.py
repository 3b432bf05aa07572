"""How a client comes to its stream; and whom it takes for the server, by RFC 9525."""

import datetime
import ipaddress
import socket
import ssl
from pathlib import Path

import pytest
from anyio.abc import SocketAttribute
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from smtpproto.client import Client, TcpConnector, verifying
from smtpproto.result import ConnectError, TlsError
from smtpproto.server import Server
from smtpproto.testing.signing import with_identifiers

from .wire import HOST
from .world import ENVELOPE, MESSAGE, Box, clear, running

pytestmark = pytest.mark.anyio


async def test_our_end_has_the_address_we_want(box: Box) -> None:
    connector = TcpConnector(local_host="127.0.0.2")
    async with running(Server(box)) as port, clear(port, connector=connector) as client:
        assert client.stream.extra(SocketAttribute.local_address)[0] == "127.0.0.2"
        await client.send(ENVELOPE, MESSAGE)
    assert box.received[0].session.peer[0] == "127.0.0.2"


async def test_an_address_that_is_not_ours(box: Box) -> None:
    connector = TcpConnector(local_host="192.0.2.1")
    async with running(Server(box)) as port:
        with pytest.raises(ConnectError, match="cannot connect"):
            await clear(port, connector=connector).__aenter__()


async def test_the_next_address_is_tried(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 6555: nobody listens at the first."""
    async with running(Server(box)) as port:
        look_up = socket.getaddrinfo

        def both(host: object, *args: object, **options: object) -> object:
            if host in ("two.example", b"two.example"):
                kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
                return [(*kind, (address, port)) for address in ("127.0.0.9", HOST)]
            return look_up(host, *args, **options)  # type: ignore[arg-type]  # passed on as they came

        monkeypatch.setattr(socket, "getaddrinfo", both)
        async with Client("two.example", port, tls="none") as client:
            await client.send(ENVELOPE, MESSAGE)
    assert len(box.received) == 1


# The server's identity


class Authority:
    """Signs certificates for any names; `trusting` is a context that goes by it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._sign(self.key, "authority", (), ca=True)
        file = directory / "ca.pem"
        file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        self.trusting = verifying(str(file))

    def _sign(
        self,
        key: ec.EllipticCurvePrivateKey,
        common_name: str,
        names: tuple[str, ...],
        *,
        ca: bool = False,
    ) -> x509.Certificate:
        def general(name: str) -> x509.GeneralName:
            if name.startswith("ip:"):
                return x509.IPAddress(ipaddress.ip_address(name[3:]))
            return x509.DNSName(name)

        issuer = "authority"
        now = datetime.datetime.now(datetime.UTC)
        day = datetime.timedelta(days=1)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - day)
            .not_valid_after(now + day)
        )
        builder = with_identifiers(builder, key, self.key, authority=ca)
        if names:
            alternatives = x509.SubjectAlternativeName([general(name) for name in names])
            builder = builder.add_extension(alternatives, critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def chain(self, common_name: str, *names: str) -> Path:
        """A file with a key and its certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        file = self.directory / "own.pem"
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            + self._sign(key, common_name, names).public_bytes(serialization.Encoding.PEM)
        )
        return file

    def serving(self, common_name: str, *names: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.chain(common_name, *names))
        return context


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


GOOD = [
    ("mx.example", ("mx.example",)),
    ("MX.Example", ("mx.example",)),
    ("mx.example", ("other.example", "mx.example")),
    ("mx.mail.example", ("*.mail.example",)),
    ("bücher.example", ("xn--bcher-kva.example",)),
    ("straße.example", ("xn--strae-oqa.example",)),  # by IDNA 2008, not as `strasse`
    ("xn--bcher-kva.example", ("xn--bcher-kva.example",)),
    (HOST, ("ip:127.0.0.1",)),
    ("::1", ("ip:::1",)),
]
BAD = [
    ("mx.example", ()),  # a common name is no identifier (§2, §6.3)
    ("mx.example", ("other.example",)),
    ("a.mx.mail.example", ("*.mail.example",)),  # a wildcard is one label
    ("mx.mail.example", ("m*.mail.example",)),  # and a whole one (§6.3)
    ("mail.example", ("*.mail.example",)),
    (HOST, ("127.0.0.1",)),  # an address is no name
    (HOST, ("ip:127.0.0.2",)),
    ("straße.example", ("strasse.example",)),
]


@pytest.mark.rfc("3207 §4.1 certificate-has-the-servers-name", "9525 §6")
@pytest.mark.parametrize(("name", "names", "good"), [
    *((*case, True) for case in GOOD), *((*case, False) for case in BAD)
])  # fmt: skip
async def test_the_servers_name_is_in_its_certificate(
    name: str, names: tuple[str, ...], good: bool, box: Box, authority: Authority
) -> None:
    server = Server(box, tls=authority.serving(name if name.isascii() else "x", *names))
    async with running(server) as port:
        client = Client(HOST, port, server_name=name, ssl_context=authority.trusting)
        if good:
            async with client:
                await client.send(ENVELOPE, MESSAGE)
        else:
            with pytest.raises(TlsError, match="certificate verify failed"):
                await client.__aenter__()
    assert len(box.received) == good


async def test_the_server_is_told_the_name(box: Box, authority: Authority) -> None:
    asked: list[str | None] = []
    context = authority.serving("x", "mx.example", "ip:127.0.0.1")
    context.sni_callback = lambda _, name, __: asked.append(name)
    async with running(Server(box, tls=context)) as port:
        for name in "mx.example", HOST:
            async with Client(HOST, port, server_name=name, ssl_context=authority.trusting):
                pass
    assert asked == ["mx.example", None]  # an address is none (RFC 6066 §3)


async def test_a_client_certificate_is_in_the_context(box: Box, authority: Authority) -> None:
    context = authority.serving("x", "localhost")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.directory / "ca.pem")
    ours = verifying(str(authority.directory / "ca.pem"))
    ours.load_cert_chain(authority.chain("ann", "ann.example"))
    async with running(Server(box, tls=context)) as port:
        async with Client("localhost", port, ssl_context=ours) as client:
            await client.send(ENVELOPE, MESSAGE)
        with pytest.raises((TlsError, ConnectError)):
            async with Client("localhost", port, ssl_context=authority.trusting):
                pass
    info = box.received[0].session.tls
    assert info is not None
    assert b"ann.example" in info.certificate


def test_what_verifies_by_default() -> None:
    context = verifying()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert not context.hostname_checks_common_name
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
