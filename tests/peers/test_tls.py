"""Our server under TLS, against OpenSSL's own client, which shakes hands again when told to."""

import os
import select
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal

from smtpproto.certificates import Certificates, KeyPair
from smtpproto.server import Server
from smtpproto.testing.certificate import Authority
from tests.adapters.world import Box

from .programs import HOST, find

PATIENCE = 30
#: SSL_OP_ALLOW_CLIENT_RENEGOTIATION of OpenSSL 3; before, that was the default.
ALLOW_RENEGOTIATION = 1 << 8


class SClient:
    """`openssl s_client`; what is written to it at a time is one command of its, or sent as it is.

    A command is a letter: R shakes hands again. So what is sent begins with a small letter.
    """

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process
        self._heard = b""

    def say(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def hears(self, text: str) -> None:
        """Wait until it has printed that, behind what it was waited for before."""
        assert self.process.stdout is not None
        awaited, end = text.encode(), time.monotonic() + PATIENCE
        while awaited not in self._heard:
            ready, _, _ = select.select([self.process.stdout], [], [], end - time.monotonic())
            piece = os.read(self.process.stdout.fileno(), 65_536) if ready else b""
            assert piece, f"waited in vain for {text!r} in {self._heard!r}"
            self._heard += piece
        self._heard = self._heard.partition(awaited)[2]

    def ask(self, text: str, expected: str) -> None:
        self.say(text)
        self.hears(expected)


@contextmanager
def s_client(port: int, authority: Authority) -> Iterator[SClient]:
    trusted = ("-CAfile", f"{authority.ca_file}", "-verify_return_error")
    with subprocess.Popen(
        [find("openssl", "openssl"), "s_client", "-connect", f"{HOST}:{port}", "-tls1_2",
         *trusted],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        try:
            client = SClient(process)
            client.hears("220 ")
            yield client
        finally:
            process.kill()


@contextmanager
def serving(backend: str, tls: ssl.SSLContext | Certificates, box: Box) -> Iterator[int]:
    """Run a server with TLS from the first octet in a thread; gives its port."""
    with start_blocking_portal(backend) as portal:
        server = portal.call(partial(Server, box, tls=tls, implicit_tls=True))
        running, (_, port) = portal.start_task(server.serve, HOST)
        try:
            yield port
        finally:
            portal.call(server.stop)
            running.result(timeout=PATIENCE)


def own_context(authority: Authority) -> ssl.SSLContext:
    return authority.server_context("localhost", HOST)


def certificates(authority: Authority) -> Certificates:
    return Certificates(KeyPair(authority.issue("localhost", HOST)))


@pytest.mark.peer("openssl")
@pytest.mark.parametrize("make", [own_context, certificates])
def test_nobody_shakes_hands_again(
    anyio_backend: str,
    make: Callable[[Authority], ssl.SSLContext | Certificates],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The server says no (RFC 5246 §7.2.2, no_renegotiation); s_client takes that for the end."""
    authority = Authority(tmp_path)
    with serving(anyio_backend, make(authority), Box()) as port:
        for _ in range(2):  # and the next session goes as this one did
            with s_client(port, authority) as client:
                client.ask("noop\r\n", "250 2.0.0")
                client.ask("R\n", "no renegotiation")
    assert caplog.text == ""


@pytest.mark.peer("openssl")
def test_where_a_context_lets_them_the_session_goes_on(anyio_backend: str, tmp_path: Path) -> None:
    """Between commands, and where content is due."""
    authority, box = Authority(tmp_path), Box()
    context = own_context(authority)
    context.options |= ssl.Options(ALLOW_RENEGOTIATION)
    with serving(anyio_backend, context, box) as port, s_client(port, authority) as client:
        client.ask("R\n", "verify return:1")
        client.ask("ehlo c.example\r\n", "250 HELP")
        client.ask("mail from:<ann@example.org>\r\n", "250 2.1.0")
        client.ask("rcpt to:<bob@example.net>\r\n", "250 2.1.5")
        client.ask("data\r\n", "354 ")
        client.ask("R\n", "verify return:1")
        client.ask("one\r\n.\r\n", "250 2.0.0")
        client.ask("quit\r\n", "221 ")
    assert [received.content for received in box.received] == [b"one\r\n"]


def test_our_own_contexts_say_so_to_every_openssl(tmp_path: Path) -> None:
    context = certificates(Authority(tmp_path)).context
    assert context.options & ssl.OP_NO_RENEGOTIATION
