"""A server that throws mail away: python run_server.py NAME PORT [--certificate FILE] [--login] ...

NAME is `aiosmtpd`, `smtpproto-asyncio`, `smtpproto-uvloop` or `smtpproto-trio`. Each runs with its
own defaults, alone in its process, until it is signalled. Run by `servers_and_clients.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import ssl
import time
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from shared import HOST, backend

if TYPE_CHECKING:
    from smtpproto.server import Server

HOSTNAME = "server.example.test"


def tls(certificate: Path | None) -> ssl.SSLContext | None:
    """Return a context with the certificate and key of a PEM file."""
    if certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def aiosmtpd(given: argparse.Namespace) -> None:
    from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session  # noqa: PLC0415

    class Discard:
        async def handle_DATA(  # noqa: N802 - the name that aiosmtpd looks for
            self, server: SMTP, session: Session, envelope: Envelope
        ) -> str:
            return "250 2.0.0 OK"

    def login(*_: object) -> AuthResult:
        return AuthResult(success=True)

    context = tls(given.certificate)

    def protocol() -> SMTP:
        if given.login:
            return SMTP(Discard(), hostname=HOSTNAME, authenticator=login, auth_require_tls=False)
        return SMTP(Discard(), hostname=HOSTNAME, tls_context=context)

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(protocol, HOST, given.port)
        await server.serve_forever()

    asyncio.run(serve())


def make_smtpproto(given: argparse.Namespace, number: int = 0) -> Server:
    """Return our server; workers make one each."""
    from smtpproto import Envelope, Reply  # noqa: PLC0415 - none pays for another
    from smtpproto.core.sasl import Verify  # noqa: PLC0415
    from smtpproto.handler import ContentStream, Session  # noqa: PLC0415
    from smtpproto.handlers import Discard  # noqa: PLC0415
    from smtpproto.server import Server  # noqa: PLC0415

    class Busy(Discard):
        """Computes for a while, as an application does that looks into messages."""

        async def content(
            self, session: Session, envelope: Envelope, content: ContentStream
        ) -> Reply | None:
            reply = await super().content(session, envelope, content)
            end = time.thread_time() + given.work
            while time.thread_time() < end:
                pass
            return reply

    class Anybody:
        async def verify(self, session: Session, question: Verify) -> bool:
            return True

    return Server(
        Busy() if given.work else Discard(),
        HOSTNAME,
        tls=tls(given.certificate),
        authenticator=Anybody() if given.login else None,
        plaintext_auth="loopback" if given.login else "never",
    )


def smtpproto(given: argparse.Namespace, loop: str) -> None:
    if given.workers > 1:
        # By name: not every checkout has them.
        workers, server = (import_module(f"smtpproto.{name}") for name in ("workers", "server"))
        place = server.At(HOST, given.port)
        workers.run(partial(make_smtpproto, given), given.workers, [place], **backend(loop))
    else:
        import anyio  # noqa: PLC0415 - none pays for another

        anyio.run(make_smtpproto(given).serve, HOST, given.port, **backend(loop))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("port", type=int)
    parser.add_argument("--certificate", type=Path, metavar="FILE", help="offer STARTTLS")
    parser.add_argument("--login", action="store_true", help="offer AUTH, and let anybody in")
    parser.add_argument("--work", type=float, default=0, help="seconds of CPU for each message")
    parser.add_argument("--workers", type=int, default=1, help="processes that serve")
    given = parser.parse_args()
    library, _, loop = given.name.partition("-")
    if library == "aiosmtpd":
        aiosmtpd(given)
    else:
        smtpproto(given, loop)


if __name__ == "__main__":
    main()
