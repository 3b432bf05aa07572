"""Whether a server is one to log in to: real servers, real certificates (RFC 7817, RFC 9525)."""

import ssl
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest
from anyio.abc import ByteStream
from attrs import define, field
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from smtpproto.client import Tls
from smtpproto.core.sasl import Verify
from smtpproto.discover import Account, Verdict
from smtpproto.discover.check import Check, check, vouches
from smtpproto.handler import Session
from tests.adapters.world import Scripted

from .world import Authority, World

pytestmark = pytest.mark.anyio

ANN = Account.of("ann@example.org")
HOST = "mail.example.org"


async def look(world: World, port: int, host: str = HOST, **options: Any) -> Check:
    settings: dict[str, Any] = {
        "context": world.authority.trusting(),
        "connector": world.connect,
        "seconds": 20.0,
        **options,
    }
    tls = Tls.IMPLICIT if port == 465 else Tls.REQUIRED
    with anyio.fail_after(60):
        return await check(host, port, tls, ANN, **settings)


@pytest.mark.parametrize("port", [465, 587])
async def test_tls_for_the_right_name_and_logins_under_it(world: World, port: int) -> None:
    async with world.serving((HOST, port)):
        found = await look(world, port)
    assert found.verdict is Verdict.USABLE
    assert "PLAIN" in found.mechanisms
    assert found.server_name == HOST
    assert not found.vouches
    assert HOST in found.reason
    assert len(world.connected) == 1


@define
class Guard:
    """Keeps the logins that are tried."""

    asked: list[Verify] = field(factory=list)

    async def verify(self, session: Session, question: Verify) -> bool:
        self.asked.append(question)
        return True


class Overheard(ByteStream):
    """A stream that keeps what goes out through it."""

    def __init__(self, inner: ByteStream, said: list[bytes]) -> None:
        self.inner, self.said = inner, said

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        return await self.inner.receive(max_bytes)

    async def send(self, item: bytes) -> None:
        self.said.append(bytes(item))
        await self.inner.send(item)

    async def send_eof(self) -> None:
        await self.inner.send_eof()

    async def aclose(self) -> None:
        await self.inner.aclose()


@pytest.mark.rfc("8314 §5.1")
async def test_nothing_is_said_of_the_user(world: World) -> None:
    """No MAIL, no AUTH, and nothing in clear but EHLO and STARTTLS."""
    said: list[bytes] = []

    async def connect(host: str, port: int) -> ByteStream:
        return Overheard(await world.connect(host, port), said)

    guard = Guard()
    async with world.serving((HOST, 587), authenticator=guard):
        assert (await look(world, 587, connector=connect)).verdict is Verdict.USABLE
    clear = [octets for octets in said if octets[:1].isalpha()]
    assert [octets.split()[0] for octets in clear] == [b"EHLO", b"STARTTLS"]
    assert len(said) > len(clear)
    assert not any(b"ann" in octets for octets in said)
    assert not guard.asked
    assert not world.box.received


@pytest.mark.rfc("7817 §3")
@pytest.mark.parametrize("port", [465, 587])
async def test_a_certificate_for_the_domain_will_do(world: World, port: int) -> None:
    async with world.serving((HOST, port), names=["example.org"]):
        found = await look(world, port)
    assert found.verdict is Verdict.USABLE
    assert found.server_name == "example.org"
    assert found.vouches


@pytest.mark.rfc("9525 §6.1")
async def test_a_certificate_for_another_name_will_not(world: World) -> None:
    async with world.serving((HOST, 465), names=["mail.example.net"]):
        found = await look(world, 465)
    assert found.verdict is Verdict.UNTRUSTED
    assert HOST in found.reason
    assert found.mechanisms == ()


@pytest.mark.rfc("7817 §3")
async def test_a_certificate_that_nobody_trusts_will_not(world: World) -> None:
    async with world.serving((HOST, 465)):
        found = await look(world, 465, context=ssl.create_default_context())
    assert found.verdict is Verdict.UNTRUSTED
    assert len(world.connected) == 1, "another name would not make it better"


async def test_no_logins(world: World) -> None:
    async with world.serving((HOST, 465), authenticator=None):
        found = await look(world, 465)
    assert found.verdict is Verdict.NO_LOGIN


async def test_no_tls(world: World) -> None:
    async with world.serving((HOST, 587), tls=None):
        found = await look(world, 587)
    assert found.verdict is Verdict.NO_TLS


async def test_starttls_where_tls_was_expected(world: World) -> None:
    async with world.serving((HOST, 587)):
        world.ports[HOST, 465] = world.ports[HOST, 587]
        found = await look(world, 465)
    assert found.verdict is Verdict.NO_TLS


@pytest.mark.parametrize(
    ("turns", "verdict"),
    [
        ([b"554 5.7.1 go away\r\n"], Verdict.REFUSED),
        ([b"421 4.3.2 later\r\n"], Verdict.REFUSED),
        ([b"220 ok\r\n", b"554 5.7.1 no\r\n", b"554 5.7.1 no\r\n"], Verdict.REFUSED),
        ([b"220 ok\r\n", b"250 no extensions\r\n"], Verdict.NO_TLS),
        ([b"220 ok\r\n", b"250-me\r\n250 STARTTLS\r\n", b"454 not now\r\n"], Verdict.NO_TLS),
        ([b"220 ok\r\n", b"250-me\r\n250 STARTTLS\r\n", b"220 go\r\n", b"no TLS"], Verdict.NO_TLS),
        ([b"HTTP/1.1 400 Bad Request\r\n\r\n"], Verdict.UNREACHABLE),
        # What was injected before TLS (RFC 3207 §6).
        (
            [b"220 ok\r\n", b"250-me\r\n250 STARTTLS\r\n", b"220 go\r\n250 AUTH PLAIN\r\n"],
            Verdict.UNREACHABLE,
        ),
    ],
)
async def test_servers_that_misbehave(world: World, turns: list[bytes], verdict: Verdict) -> None:
    async def connect(host: str, port: int) -> ByteStream:
        return Scripted(*turns)

    assert (await look(world, 587, connector=connect, seconds=0.5)).verdict is verdict


async def test_a_server_that_says_nothing(world: World) -> None:
    stream = Scripted()

    async def connect(host: str, port: int) -> ByteStream:
        return stream

    found = await look(world, 587, connector=connect, seconds=0.05)
    assert found.verdict is Verdict.UNREACHABLE
    assert "greeting" in found.reason
    assert stream.closed


async def test_nobody_there(world: World) -> None:
    assert (await look(world, 465)).verdict is Verdict.UNREACHABLE
    world.ports[HOST, 587] = 1
    assert (await look(world, 465)).verdict is Verdict.UNREACHABLE


# What a certificate vouches for


@pytest.mark.rfc("7817 §3")
@pytest.mark.parametrize(
    ("names", "srv", "tls", "vouched"),
    [
        (["example.org"], [], Tls.IMPLICIT, True),
        (["a.example", "EXAMPLE.org"], [], Tls.REQUIRED, True),
        (["mail.example.org"], [], Tls.IMPLICIT, False),
        (["*.example.org"], [], Tls.IMPLICIT, False),
        (["a.example"], ["_submissions.example.org"], Tls.IMPLICIT, True),
        (["a.example"], ["_Submission.Example.ORG"], Tls.REQUIRED, True),
        (["a.example"], ["_submission.example.org"], Tls.IMPLICIT, False),
        (["a.example"], ["_submissions.example.org"], Tls.REQUIRED, False),
        (["a.example"], ["_imaps.example.org"], Tls.IMPLICIT, False),
        (["a.example"], ["_submissions.example.net"], Tls.IMPLICIT, False),
        (["a.example"], ["_submissions.*.org"], Tls.IMPLICIT, False),
        (["a.example"], ["_submissions._tcp.example.org"], Tls.IMPLICIT, False),
        ([], [], Tls.IMPLICIT, False),
    ],
)
async def test_dns_ids_and_srv_ids(
    authority: Authority, names: list[str], srv: list[str], tls: Tls, vouched: bool
) -> None:
    assert vouches(authority.der(*names, srv=srv), "example.org", tls) is vouched


@pytest.mark.rfc("9525 §6.3")
@pytest.mark.parametrize(
    ("name", "domain", "vouched"),
    [
        ("*.example.org", "mail.example.org", True),
        ("*.example.org", "a.mail.example.org", False),
        ("m*.example.org", "mail.example.org", False),
        ("*", "org", False),
    ],
)
async def test_a_star_is_one_whole_label(
    authority: Authority, name: str, domain: str, vouched: bool
) -> None:
    assert vouches(authority.der(name), domain, Tls.IMPLICIT) is vouched


async def test_a_long_srv_id(authority: Authority) -> None:
    domain = ".".join(["a" * 50] * 3)
    der = authority.der("a.example", srv=[f"_submissions.{domain}"])
    assert vouches(der, domain, Tls.IMPLICIT)


@pytest.mark.parametrize("der", [b"", b"\x30\x03\x02\x01\x00", b"x" * 100])
async def test_what_is_no_certificate_vouches_for_nothing(der: bytes) -> None:
    assert not vouches(der, "example.org", Tls.IMPLICIT)


def with_extensions(*extensions: x509.ExtensionType) -> bytes:
    """A certificate with these extensions, whatever they are."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mail.example.org")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(1))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


SAN = x509.ObjectIdentifier("2.5.29.17")
KEY_USAGE = x509.ObjectIdentifier("2.5.29.15")


@pytest.mark.parametrize(
    "der",
    [
        # GeneralNames with an ediPartyName, which the library does not know (RFC 5280 §4.2.1.6).
        with_extensions(x509.UnrecognizedExtension(SAN, bytes.fromhex("3006a504a1020c00"))),
        with_extensions(x509.UnrecognizedExtension(SAN, bytes.fromhex("30068204ffffffff"))),
        with_extensions(x509.UnrecognizedExtension(SAN, b"nonsense")),
        # One extension twice (RFC 5280 §4.2): the same identifier, written over another's.
        with_extensions(
            x509.SubjectAlternativeName([x509.DNSName("example.org")]),
            x509.UnrecognizedExtension(KEY_USAGE, bytes.fromhex("3000")),
        ).replace(bytes.fromhex("0603551d0f"), bytes.fromhex("0603551d11")),
    ],
)
async def test_a_certificate_that_cannot_be_read_vouches_for_nothing(der: bytes) -> None:
    assert not vouches(der, "example.org", Tls.IMPLICIT)
