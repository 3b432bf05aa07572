"""RFC 7677: SCRAM with SHA-256. Its computing is in test_rfc5802.py, its example in tests/sasl."""

import socket
import ssl
from functools import partial
from pathlib import Path

import pytest
from anyio import to_thread
from anyio.streams.tls import TLSAttribute

from smtpproto.client import Client
from smtpproto.core.sasl import Credentials, ServerContext
from smtpproto.mechanisms import (
    SCRAM_SHA_1,
    SCRAM_SHA_1_PLUS,
    SCRAM_SHA_256,
    SCRAM_SHA_256_PLUS,
)
from smtpproto.mechanisms.scram import derive_keys
from smtpproto.server import Server
from tests.adapters.world import Box, certificates, running
from tests.conformance.scram_peer import SALT, Peer


@pytest.mark.rfc("7677 §3 sha-256-in-the-place-of-sha-1", "7677 §4 security-of-scram")
def test_only_the_hash_differs() -> None:
    for old, new in (SCRAM_SHA_1, SCRAM_SHA_256), (SCRAM_SHA_1_PLUS, SCRAM_SHA_256_PLUS):
        assert new.name == old.name.replace("SHA-1", "SHA-256")
        assert (new.binds, new.client_first, new.asks) == (old.binds, old.client_first, old.asks)
        assert not new.plaintext
        keys = derive_keys("pw", SALT, iterations=2, mechanism=new.family)
        assert keys == Peer(new).keys
        assert len(keys.stored_key) == len(keys.server_key) == 32


@pytest.mark.rfc("7677 §3 count-is-4096-or-more")
def test_the_count_unless_somebody_says_otherwise() -> None:
    assert derive_keys("pw", SALT, mechanism="SCRAM-SHA-256").iterations >= 4096
    assert ServerContext().iterations >= 4096
    assert Credentials().iterations[0] >= 4096


@pytest.mark.anyio
@pytest.mark.rfc("7677 §4 client-binds-to-no-resumed-session")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_no_session_is_resumed(version: ssl.TLSVersion, tmp_path: Path) -> None:
    tls = certificates(tmp_path)
    tls.server.maximum_version = version
    async with running(Server(Box(), tls=tls.server)) as port:
        for _ in range(2):
            async with Client("localhost", port, ssl_context=tls.trusting) as client:
                ssl_object = client.stream.extra(TLSAttribute.ssl_object)
                assert not ssl_object.session_reused
                assert ssl_object.version() == version.name.replace("v1_", "v1.")


MESSAGE = (
    b"EHLO c.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n"
    b"x\r\n.\r\nQUIT\r\n"
)


def said(
    port: int, context: ssl.SSLContext, session: ssl.SSLSession | None
) -> tuple[ssl.SSLSession | None, bool | None]:
    """Send a message under TLS; return its session, and whether that is the old one."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as clear,
        context.wrap_socket(clear, server_hostname="localhost", session=session) as secret,
    ):
        secret.sendall(MESSAGE)
        while secret.recv(4096):
            pass
        return secret.session, secret.session_reused


@pytest.mark.rfc("7677 §4 server-binds-to-no-resumed-session")
@pytest.mark.anyio
async def test_a_server_binds_to_no_resumed_session(tmp_path: Path) -> None:
    """Python does not tell whether RFC 7627 protects it, so none is bound to."""
    tls, box = certificates(tmp_path), Box()
    for context in (tls.server, tls.trusting):
        context.maximum_version = ssl.TLSVersion.TLSv1_2  # later ones have no tls-unique
    async with running(Server(box, tls=tls.server, implicit_tls=True)) as port:
        first_time = partial(said, port, tls.trusting, None)
        session, again = await to_thread.run_sync(first_time)
        assert session is not None
        assert not again
        second_time = partial(said, port, tls.trusting, session)
        assert (await to_thread.run_sync(second_time))[1]
    first, second = (received.session.tls for received in box.received)
    assert first is not None
    assert second is not None
    assert first.unique
    assert second.unique == b""
