"""Logins over real connections: our client with our server, and a program that is neither."""

import shutil
import ssl
from pathlib import Path
from typing import Any

import anyio
import pytest
from attrs import evolve, frozen

from smtpproto import EnhancedStatus
from smtpproto.client import Client
from smtpproto.core.sasl import (
    ChannelBinding,
    Credentials,
    Lookup,
    Mechanism,
    ScramKeys,
    ServerContext,
    TokenRefusal,
    VerifyAnonymous,
    VerifyExternal,
    VerifyToken,
)
from smtpproto.handler import AnyAuthenticator
from smtpproto.mechanisms import (
    ANONYMOUS,
    CRAM_MD5,
    OAUTHBEARER,
    SCRAM_SHA_1,
    SCRAM_SHA_256,
    SCRAM_SHA_256_PLUS,
    STANDARD,
    XOAUTH2,
)
from smtpproto.mechanisms.binding import tls_server_end_point
from smtpproto.mechanisms.scram import derive_keys
from smtpproto.result import LoginError, TlsError
from smtpproto.server import Server, Session
from tests.adapters.wire import raw_server, script
from tests.adapters.world import (
    ENVELOPE,
    MESSAGE,
    Accounts,
    Box,
    Certificates,
    certificates,
    clear,
    running,
)

pytestmark = pytest.mark.anyio

KEYS = {
    name: derive_keys("pencil", b"0123456789abcdef", mechanism=name)
    for name in ("SCRAM-SHA-1", "SCRAM-SHA-256")
}
ANN = Credentials("ann", "pencil")


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    directory: Path = tmp_path_factory.mktemp("certificates")
    return certificates(directory)


@frozen
class Keys:
    """Knows `ann` by her keys."""

    stored: tuple[str, ...] = ("SCRAM-SHA-1", "SCRAM-SHA-256")

    async def lookup(self, session: Session, question: Lookup) -> ScramKeys | bytes | None:
        if question.username != "ann":
            return None
        return b"pencil" if question.mechanism == "CRAM-MD5" else KEYS[question.mechanism]


class Tokens:
    """Knows a token, and lets guests in."""

    async def verify_token(
        self, session: Session, question: VerifyToken
    ) -> str | TokenRefusal | None:
        return "ann" if question.token == "t" else TokenRefusal(scope="mail")

    async def verify_anonymous(self, session: Session, question: VerifyAnonymous) -> str | None:
        return "guest"


async def logged_in(server: Server, box: Box, tls: Certificates, **options: Any) -> str | None:
    """Send a message over TLS; return who the server takes us for."""
    settings: dict[str, Any] = {"ssl_context": tls.trusting, **options}
    refused: LoginError | None = None
    async with running(server) as port:
        try:
            async with Client("localhost", port, **settings) as client:
                await client.send(ENVELOPE, MESSAGE)
        except LoginError as error:
            refused = error
    if refused is not None:  # raised here, it is not wrapped into a group
        raise refused
    return box.received[-1].session.identity


@pytest.mark.rfc("4954 §4 no-data-with-success", "5802 §5 client-speaks-first")
@pytest.mark.parametrize("mechanism", [SCRAM_SHA_1, SCRAM_SHA_256], ids=lambda m: m.name)
async def test_scram(mechanism: Mechanism, tls: Certificates) -> None:
    box = Box()
    server = Server(box, tls=tls.server, authenticator=Keys(), failed_login_delay=0.001)
    assert await logged_in(server, box, tls, login=ANN, mechanisms=[mechanism]) == "ann"
    with pytest.raises(LoginError, match=r"535 5\.7\.8"):
        await logged_in(server, box, tls, login=("ann", "wrong"), mechanisms=[mechanism])


async def test_what_is_offered_is_what_the_authenticator_can_answer(tls: Certificates) -> None:
    cases: list[tuple[AnyAuthenticator, str | None]] = [
        (Keys(), "SCRAM-SHA-256 SCRAM-SHA-1"),
        (Keys(("SCRAM-SHA-256",)), "SCRAM-SHA-256"),
        (Keys(("CRAM-MD5",)), None),  # off unless it is asked for
        (Tokens(), "ANONYMOUS"),  # tokens are for TLS
        (Accounts(), None),  # and so are passwords
    ]
    for authenticator, offered in cases:
        server = Server(Box(), tls=tls.server, authenticator=authenticator)
        async with running(server) as port, clear(port) as client:
            assert client.offered.get("AUTH") == offered


@pytest.mark.rfc("5802 §6 server-lists-both")
async def test_bound_mechanisms_are_offered_under_tls_alone(tls: Certificates) -> None:
    sasl = ServerContext(bindings=(ChannelBinding("tls-server-end-point", b"x"),))
    server = Server(Box(), tls=tls.server, authenticator=Keys(), sasl=sasl)
    async with running(server) as port:
        async with clear(port) as client:
            assert "PLUS" not in client.offered["AUTH"]
        async with Client("localhost", port, ssl_context=tls.trusting) as client:
            assert client.offered["AUTH"].startswith("SCRAM-SHA-256-PLUS SCRAM-SHA-1-PLUS")


@pytest.mark.rfc("5802 §6.1 server-has-tls-unique", "5802 §6.1 client-has-tls-unique")
@pytest.mark.rfc("5929 §3")
@pytest.mark.rfc("5929 §4")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("right", [True, False])
async def test_scram_bound_to_the_channel(
    version: ssl.TLSVersion, right: bool, tls: Certificates, tmp_path: Path
) -> None:
    fresh = certificates(tmp_path)
    fresh.server.maximum_version = version
    der = ssl.PEM_cert_to_DER_cert(_certificate_in(tmp_path / "localhost.pem"))
    binding = tls_server_end_point(der)
    assert binding is not None
    bound_by_certificate = version is ssl.TLSVersion.TLSv1_3
    if not right and bound_by_certificate:
        binding = evolve(binding, data=b"somebody in the middle")
    box = Box()
    server = Server(
        box,
        tls=fresh.server,
        authenticator=Keys(),
        sasl=ServerContext(bindings=(binding,)),
        failed_login_delay=0.001,
    )
    seen: list[str] = []
    options = {"login": ANN, "bind_login": True, "trace": seen.append}
    if right or not bound_by_certificate:
        assert await logged_in(server, box, fresh, **options) == "ann"
        assert any(line.startswith("C: AUTH SCRAM-SHA-256-PLUS") for line in seen)
    else:
        with pytest.raises(LoginError, match="535"):
            await logged_in(server, box, fresh, **options)


def _certificate_in(file: Path) -> str:
    begin = "-----BEGIN CERTIFICATE-----"
    return begin + file.read_text().partition(begin)[2]


@pytest.mark.parametrize("mechanism", [OAUTHBEARER, XOAUTH2], ids=lambda m: m.name)
async def test_tokens(mechanism: Mechanism, tls: Certificates) -> None:
    box = Box()
    server = Server(box, tls=tls.server, authenticator=Tokens(), failed_login_delay=0.001)
    login = Credentials("ann", token="t")
    assert await logged_in(server, box, tls, login=login, mechanisms=[mechanism]) == "ann"
    with pytest.raises(LoginError, match="535"):
        await logged_in(
            server, box, tls, login=Credentials("ann", token="x"), mechanisms=[mechanism]
        )


async def test_guests(tls: Certificates) -> None:
    box = Box()
    server = Server(box, tls=tls.server, authenticator=Tokens())
    assert await logged_in(server, box, tls, login=Credentials(trace="me")) == "guest"


@pytest.mark.rfc("4422 §A", "3207 §6 external-may-follow")
async def test_external_by_certificate(tls: Certificates, tmp_path: Path) -> None:
    class ByCertificate:
        async def verify_external(self, session: Session, question: VerifyExternal) -> str | None:
            assert session.tls is not None
            return "ann" if session.tls.certificate else None

    theirs = certificates(tmp_path)
    theirs.server.verify_mode = ssl.CERT_OPTIONAL
    theirs.server.load_verify_locations(tmp_path / "ca.pem")
    box = Box()
    server = Server(box, tls=theirs.server, authenticator=ByCertificate(), failed_login_delay=0.001)
    external = Credentials(external=True)
    with pytest.raises(LoginError, match="535"):
        await logged_in(server, box, theirs, login=external)
    theirs.trusting.load_cert_chain(tmp_path / "localhost.pem")
    assert await logged_in(server, box, theirs, login=external) == "ann"


async def test_credentials_that_nothing_offered_serves(tls: Certificates) -> None:
    server = Server(Box(), tls=tls.server, authenticator=Keys())
    async with running(server) as port:
        client = Client(
            "localhost", port, ssl_context=tls.trusting, login=Credentials("ann", token="t")
        )
        with pytest.raises(TlsError, match="no login that we know"):
            await client.__aenter__()


@pytest.mark.rfc("5802 §5 wrong-signature-fails")
@pytest.mark.parametrize(
    ("play", "why"),
    [
        # `r=x,s=QQ==,i=1`, a server that answers with a nonce of its own alone
        ("C: AUTH SCRAM-SHA-256 *\nS: 334 cj14LHM9UVE9PSxpPTE=\nC: [*]\nS: 501 5.7.0 off", "nonce"),
        ("C: AUTH SCRAM-SHA-256 *\nS: 235 2.7.0 in", "without proving"),
    ],
)
async def test_a_server_that_proves_nothing(play: str, why: str) -> None:
    opening = "S: 220 hi\nC: EHLO *\nS: 250-hi\nS: 250 AUTH SCRAM-SHA-256\n"
    async with raw_server(script(opening + play + "\nC: QUIT\nS: 221 bye")) as port:
        with pytest.raises(LoginError, match=why):
            await clear(port, login=ANN).__aenter__()


@pytest.mark.peer("swaks")
@pytest.mark.skipif(shutil.which("swaks") is None, reason="needs swaks")
async def test_swaks_by_cram_md5() -> None:
    box = Box()
    server = Server(
        box, authenticator=Keys(("CRAM-MD5",)), mechanisms=[CRAM_MD5], failed_login_delay=0.001
    )
    async with running(server) as port:
        command = ["swaks", "--server", "127.0.0.1", "--port", str(port), "--auth", "CRAM-MD5"]
        command += ["--from", "a@example.org", "--to", "b@example.net", "--auth-user", "ann"]
        right = await anyio.run_process([*command, "--auth-password", "pencil"], check=False)
        assert right.returncode == 0, right.stdout
        wrong = await anyio.run_process([*command, "--auth-password", "wrong"], check=False)
        assert b"535 5.7.8" in wrong.stdout
    assert [received.session.identity for received in box.received] == ["ann"]


def test_the_registry_is_complete() -> None:
    names = [m.name for m in (*STANDARD, CRAM_MD5)]
    assert len(set(names)) == len(names) == 11
    assert ANONYMOUS in STANDARD
    assert SCRAM_SHA_256_PLUS.family == "SCRAM-SHA-256"
    assert EnhancedStatus(5, 7, 8).meaning == "the login is wrong"
