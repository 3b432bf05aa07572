"""RFC 8314: submission over TLS, at once or by STARTTLS, and what is told of it."""

import re
import ssl
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.streams.tls import TLSStream

from smtpproto.certificates import server_context
from smtpproto.cli.node import ensure_certificate
from smtpproto.client import Client, connect_tcp, verifying
from smtpproto.core.envelope import Envelope
from smtpproto.core.errors import LocalProtocolError
from smtpproto.core.path import ForwardPath
from smtpproto.mechanisms.scram import derive_keys
from smtpproto.relay.accounts.login import AccountFile
from smtpproto.relay.accounts.schemes import ScramSha256
from smtpproto.relay.relay import Kind
from smtpproto.relay.reports.story import Accepted, Delivered
from smtpproto.server import Server
from smtpproto.trace import ciphersuite, received
from tests.adapters.world import Box, Certificates, certificates, running
from tests.relay.world import LOGIN, MESSAGE, Node, World, world

pytestmark = pytest.mark.anyio

NAME = "relay.example"


async def submit(w: World, node: Node, kind: Kind, trust: ssl.SSLContext | None = None) -> None:
    async with Client(
        "127.0.0.1",
        node.ports[kind],
        tls="implicit" if kind == "submissions" else "required",
        login=LOGIN,
        server_name=NAME,
        ssl_context=trust or w.trusting(NAME),
    ) as client:
        assert (await client.send(Envelope("ann@our.dom", ["v@our.dom"]), MESSAGE)).all_accepted


def clause(mail: bytes) -> list[str]:
    field = mail[mail.index(b"Received:") :].split(b";")[0].decode()
    return re.findall(r"\stls\s+(\S+)", field)


# Names as the registry of IANA has them: RFC 5289, RFC 7905, RFC 8446.
SUITES = {
    "TLS_AES_256_GCM_SHA384": "TLS_AES_256_GCM_SHA384",
    "ECDHE-RSA-AES128-GCM-SHA256": "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "ECDHE-ECDSA-CHACHA20-POLY1305": "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "DHE-RSA-AES256-SHA256": "TLS_DHE_RSA_WITH_AES_256_CBC_SHA256",
    "ECDHE-ECDSA-AES128-SHA": "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "ECDHE-ECDSA-AES256-CCM8": "TLS_ECDHE_ECDSA_WITH_AES_256_CCM_8",
    "AES128-SHA": "TLS_RSA_WITH_AES_128_CBC_SHA",
    "GOST2001-GOST89-GOST89": "",
    "ECDHE-RSA-AES128": "",
    "": "",
}


@pytest.mark.rfc("8314 §4.3 suite-by-its-registered-name")
@pytest.mark.parametrize("name", SUITES)
def test_suites_are_called_as_they_are_registered(name: str) -> None:
    assert ciphersuite(name) == SUITES[name]


def test_no_suite_that_is_offered_is_nameless() -> None:
    names = [each["name"] for each in server_context().get_ciphers()]
    # A system may list suites for secrets that both ends have from elsewhere, which we never have.
    for name in (each for each in names if "PSK" not in each and "SRP" not in each):
        assert ciphersuite(name).startswith("TLS_"), name


@pytest.mark.rfc("8314 §4.3 tls-cipher-clause", "8314 §4.3 tls-cipher-name", "8314 §4.3 tls-cipher")
def test_the_clause_stands_behind_the_others() -> None:
    def field(tls: str) -> bytes:
        made = received(
            helo="c.example",
            peer=None,
            hostname=NAME,
            protocol="ESMTPSA",
            queue_id="1",
            recipients=[ForwardPath.of("v@our.dom")],
            now=datetime(2023, 11, 14, tzinfo=UTC),
            tls=tls,
        )
        return b" ".join(made.split())

    assert b" for <v@our.dom> tls TLS_AES_128_GCM_SHA256; Tue, 14 Nov" in field(
        "TLS_AES_128_GCM_SHA256"
    )
    assert b" for <v@our.dom>; Tue, 14 Nov" in field("")
    with pytest.raises(LocalProtocolError):
        field("TLS (forged)")


@pytest.mark.rfc(
    "8314 §3.3 both-ways-to-tls",
    "8314 §4 submission-has-tls",
    "8314 §4 implicit-tls-is-supported",
    "8314 §4 starttls-is-supported",
    "8314 §4 received-has-the-suite",
    "8314 §4 log-has-the-suite",
    "8314 §4.3 tls-clause-is-written",
    "3848",
)
@pytest.mark.parametrize("kind", ["submission", "submissions"])
async def test_a_message_comes_over_tls_and_says_by_which_suite(tmp_path: Path, kind: Kind) -> None:
    async with world(tmp_path) as w:
        node = await w.node(NAME, kinds=[kind], tls=True)
        await submit(w, node, kind)
        await node.until(Delivered)
        (mail,) = node.mail("v@our.dom")
        (suite,) = clause(mail)
        assert suite.startswith("TLS_")
        assert b" with ESMTPSA id" in mail
        (accepted,) = node.told(Accepted)
        assert accepted.origin == f"127.0.0.1 by ESMTPSA as ann, TLSv1.3 {suite}"


@pytest.mark.rfc("8314 §3.3 clients-verify-certificates")
@pytest.mark.parametrize("kind", ["submission", "submissions"])
async def test_a_client_verifies_the_certificate(tmp_path: Path, kind: Kind) -> None:
    async with world(tmp_path) as w:
        node = await w.node(NAME, kinds=[kind], tls=True)
        with pytest.raises(Exception, match="certificate"):
            await submit(w, node, kind, ssl.create_default_context())
        assert node.events == []


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates(Path(tmp_path_factory.mktemp("tls")))


@pytest.mark.rfc("8314 §3.4 tls-ends-before-tcp")
async def test_both_ends_say_goodbye_in_tls(made: Certificates) -> None:
    async with running(Server(Box(), tls=made.server, implicit_tls=True)) as port:
        stream = await TLSStream.wrap(
            await anyio.connect_tcp("127.0.0.1", port),
            hostname="localhost",
            ssl_context=made.trusting,
            standard_compatible=True,  # an end without an alert is an error here
        )
        await stream.receive()
        await stream.send(b"QUIT\r\n")
        await stream.receive()
        with pytest.raises(anyio.EndOfStream):
            await stream.receive()
        await anyio.aclose_forcefully(stream)


@pytest.mark.rfc("8314 §4 no-starttls-without-a-certificate")
@pytest.mark.parametrize("tls", [False, True])
async def test_starttls_is_announced_where_there_is_a_certificate(
    tmp_path: Path, tls: bool
) -> None:
    async with world(tmp_path) as w:
        node = await w.node(NAME, kinds=["submission"], tls=tls)
        async with Client("127.0.0.1", node.ports["submission"], tls="none") as client:
            assert ("STARTTLS" in client.offered) is tls


@pytest.mark.rfc(
    "8314 §4 tls-1-2-or-later",
    "8314 §4 old-versions-are-given-up",
    "8314 §4.2 certificates-are-not-asked-for-in-vain",
)
def test_what_a_node_asks_of_tls(tmp_path: Path) -> None:
    context = ensure_certificate(tmp_path).reloadable().context
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert context.verify_mode is ssl.CERT_NONE


@pytest.mark.rfc("8314 §4 tls-1-2-or-later")
@pytest.mark.parametrize("make", [server_context, verifying])
def test_where_the_system_leaves_old_versions_in_ours_are_without(
    make: Callable[[], ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python goes by the system there, as Debian builds it."""
    default = ssl.create_default_context

    def as_there(*args: Any, **options: Any) -> ssl.SSLContext:
        context = default(*args, **options)
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        return context

    monkeypatch.setattr(ssl, "create_default_context", as_there)
    assert make().minimum_version == ssl.TLSVersion.TLSv1_2


@pytest.mark.rfc("8314 §4.1 no-word-on-secrets-in-clear")
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "SCRAM-SHA-256"])
async def test_without_tls_a_right_secret_is_refused_like_a_wrong_one(
    tmp_path: Path, mechanism: str
) -> None:
    keys = ScramSha256(derive_keys("horse", b"salt")).written()
    (tmp_path / "accounts").write_text(f"ann:{{SCRAM-SHA-256}}{keys}\n")
    async with world(tmp_path) as w:
        them = AccountFile(tmp_path / "accounts")
        node = await w.node(NAME, kinds=["submission"], tls=True, authenticator=them, guard=None)
        (server,) = node.relay._servers
        server.plaintext_auth = "never"  # as for all that are not on this machine
        heard = []
        for name, password in ("ann", "horse"), ("ann", "mouse"), ("eve", "horse"):
            first = {
                "PLAIN": f"\0{name}\0{password}",
                "LOGIN": name,
                "SCRAM-SHA-256": f"n,,n={name},r=abc",
            }[mechanism]
            async with await connect_tcp("127.0.0.1", node.ports["submission"]) as stream:
                await stream.receive()
                await stream.send(b"EHLO c.example\r\n")
                assert b"AUTH" not in await stream.receive()
                secret = b64encode(first.encode())
                await stream.send(b"AUTH %b %b\r\n" % (mechanism.encode(), secret))
                heard.append(await stream.receive())
        assert len(set(heard)) == 1
        assert heard[0][:3] == b"504"  # RFC 4954 §4
