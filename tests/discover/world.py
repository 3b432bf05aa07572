"""A small internet on loopback: name servers and web servers that are dictionaries, real SMTP."""

import datetime
import errno
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import ByteStream
from attrs import define, field
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from smtpproto.client import connect_tcp
from smtpproto.discover import Bounds, Discovery, FetchError, discover
from smtpproto.resolve import Mx, NoRecords, Srv
from smtpproto.server import Server
from smtpproto.testing.signing import with_identifiers
from tests.adapters.wire import HOST
from tests.adapters.world import Accounts, Box, running

ADDRESS = "ann@example.org"
SUBMISSIONS = "_submissions._tcp.example.org"
SUBMISSION = "_submission._tcp.example.org"
OWN_FILE = "https://autoconfig.example.org/mail/config-v1.1.xml?emailaddress=ann@example.org"
WELL_KNOWN = "https://example.org/.well-known/autoconfig/mail/config-v1.1.xml"

SRV_NAME = x509.ObjectIdentifier("1.3.6.1.5.5.7.8.7")


class Authority:
    """Signs certificates, and is trusted by `trusting`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._own = self._sign(self._key, "test authority", None)
        self.file = directory / "ca.pem"
        self.file.write_bytes(self._own.public_bytes(serialization.Encoding.PEM))
        self._made: dict[tuple[tuple[str, ...], tuple[str, ...]], ssl.SSLContext] = {}

    def trusting(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.file))

    def certificate(
        self, key: ec.EllipticCurvePrivateKey, *names: str, srv: Sequence[str] = ()
    ) -> x509.Certificate:
        others = [x509.OtherName(SRV_NAME, ia5_string(name)) for name in srv]
        return self._sign(key, "a server", [*map(x509.DNSName, names), *others])

    def der(self, *names: str, srv: Sequence[str] = ()) -> bytes:
        made = self.certificate(ec.generate_private_key(ec.SECP256R1()), *names, srv=srv)
        return made.public_bytes(serialization.Encoding.DER)

    def context(self, *names: str, srv: Sequence[str] = ()) -> ssl.SSLContext:
        """The context of a server whose certificate is for `names`, and has SRV-IDs `srv`."""
        known = self._made.get((names, tuple(srv)))
        if known is not None:
            return known
        key = ec.generate_private_key(ec.SECP256R1())
        file = self.directory / f"{len(self._made)}.pem"
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            + self.certificate(key, *names, srv=srv).public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        self._made[names, tuple(srv)] = context
        return context

    def _sign(
        self,
        key: ec.EllipticCurvePrivateKey,
        subject: str,
        names: Sequence[x509.GeneralName] | None,
    ) -> x509.Certificate:
        def called(name: str) -> x509.Name:
            return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])

        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(called(subject))
            .issuer_name(called("test authority"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )
        builder = with_identifiers(builder, key, self._key, authority=names is None)
        if names is not None:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())


def ia5_string(text: str) -> bytes:
    octets = text.encode()
    length = bytes([len(octets)]) if len(octets) < 128 else bytes([0x81, len(octets)])
    return b"\x16" + length + octets


@define
class World:
    """What is where. An exception in a table is what the question gets; None waits for ever."""

    authority: Authority
    srvs: dict[str, Any] = field(factory=dict)
    mxs: dict[str, Any] = field(factory=dict)
    files: dict[str, Any] = field(factory=dict)
    #: (host, port) -> the port on loopback that is meant.
    ports: dict[tuple[str, int], int] = field(factory=dict)
    asked: list[str] = field(factory=list)
    connected: list[tuple[str, int]] = field(factory=list)
    box: Box = field(factory=Box)
    #: How many wait for an answer now, and how many did at most.
    waiting: int = 0
    most_waiting: int = 0

    async def srv(self, name: str) -> Sequence[Srv]:
        self.asked.append(name)
        found: Sequence[Srv] = await self._wait(self.srvs, name, NoRecords(name))
        return found

    async def mx(self, domain: str) -> Sequence[Mx]:
        self.asked.append(f"{domain} MX")
        found: Sequence[Mx] = await self._wait(self.mxs, domain, NoRecords(domain))
        return found

    async def _wait(self, table: dict[str, Any], name: str, missing: Exception) -> Any:
        with self._counted():
            await anyio.lowlevel.checkpoint()
            found = table.get(name, missing)
            if found is None:
                await anyio.sleep_forever()
            if isinstance(found, Exception):
                raise found
            return found

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self.waiting += 1
        self.most_waiting = max(self.waiting, self.most_waiting)
        try:
            yield
        finally:
            self.waiting -= 1

    async def fetch(self, url: str, most: int) -> bytes:
        self.asked.append(url)
        found: Any = await self._wait(self.files, url, FetchError("no such file: 404"))
        assert len(found) <= most
        return bytes(found)

    async def connect(self, host: str, port: int) -> ByteStream:
        self.connected.append((host, port))
        with self._counted():
            await anyio.lowlevel.checkpoint()
            if (host, port) in self.ports:
                return await connect_tcp(HOST, self.ports[host, port])
            if any(there == host for there, _ in self.ports):
                raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def discover(self, address: str = ADDRESS, **options: Any) -> Discovery:
        chosen: dict[str, Any] = {
            "resolver": self,
            "fetcher": self.fetch,
            "connector": self.connect,
            "ssl_context": self.authority.trusting(),
            "bounds": Bounds(each=20, seconds=60),
            "randint": lambda low, high: high,
            **options,
        }
        return await discover(address, **chosen)

    @asynccontextmanager
    async def serving(
        self, *wheres: tuple[str, int], names: Sequence[str] = (), **options: Any
    ) -> AsyncIterator[None]:
        """A submission server at these places; by default its certificate is for their hosts.

        TLS from the first octet at port 465. Logins are offered unless `authenticator` is None.
        """
        async with AsyncExitStack() as stack:
            for host, port in wheres:
                settings: dict[str, Any] = {
                    "tls": self.authority.context(*(names or [host])),
                    "implicit_tls": port == 465,
                    "authenticator": Accounts(),
                    **options,
                }
                server = Server(self.box, **settings)
                self.ports[host, port] = await stack.enter_async_context(running(server))
            yield


def config(*servers: str, extra: str = "") -> bytes:
    """A configuration file with these outgoing servers."""
    inner = "".join(f'<outgoingServer type="smtp">{server}</outgoingServer>' for server in servers)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<clientConfig version="1.1">{extra}<emailProvider id="example.org">'
        '<incomingServer type="imap"><hostname>imap.example.org</hostname><port>993</port>'
        "<socketType>SSL</socketType></incomingServer>"
        f"{inner}</emailProvider></clientConfig>"
    ).encode()


def server(
    host: str = "mail.example.org",
    port: int | str = 465,
    socket_type: str = "SSL",
    username: str = "%EMAILADDRESS%",
    authentication: str = "password-cleartext",
) -> str:
    return (
        f"<hostname>{host}</hostname><port>{port}</port><socketType>{socket_type}</socketType>"
        f"<username>{username}</username><authentication>{authentication}</authentication>"
    )
