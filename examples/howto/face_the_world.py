"""A server at several ports: face_the_world.py CERT KEY PORT TLS_PORT [WORKERS].

Without WORKERS it runs in this process. SIGHUP reads the certificate again, SIGTERM drains.
"""

import signal
import sys
from functools import partial

import anyio
from anyio import to_thread

from smtpproto import Envelope, Mail, Rcpt, Reply
from smtpproto.certificates import Certificates, KeyPair
from smtpproto.server import At, Connections, ContentStream, Server, ServerDeadlines, Session
from smtpproto.workers import run


class Nothing:
    """Refuses every recipient."""

    async def mail(self, session: Session, command: Mail) -> Reply | None:
        return None

    async def rcpt(self, session: Session, command: Rcpt) -> Reply | None:
        return Reply(550, "5.1.1", "No such mailbox")

    async def content(
        self, session: Session, envelope: Envelope, content: ContentStream
    ) -> Reply | None:
        raise AssertionError("nobody gets so far")


def make_server(cert: str, key: str, number: int = 0) -> Server:
    """Make the server of this process; `workers.run` calls it in each of them, with its number."""
    own = KeyPair(cert, key)
    return Server(
        Nothing(),
        "mx.example.org",
        tls=Certificates(own, {"mx.example.org": own, "*.example.net": own}),
        connections=Connections(2000, 20, ipv6_prefix=56),
        deadlines=ServerDeadlines(session=3600, drain=60),
    )


async def serve(cert: str, key: str, places: list[At]) -> None:
    """Run a server here, and do by hand what workers do by themselves."""
    server = make_server(cert, key)
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGHUP) as signals:
        async with anyio.create_task_group() as tasks:
            print("listening on", await tasks.start(server.serve_at, places), flush=True)
            async for number in signals:
                if number == signal.SIGHUP:
                    await to_thread.run_sync(server.reload)
                else:
                    server.stop()
                    break


def main(cert: str, key: str, port: str, tls_port: str, workers: str = "") -> None:
    """Listen for STARTTLS, and for TLS from the first octet."""
    places = [At(None, int(port)), At(None, int(tls_port), implicit_tls=True)]
    if workers:
        run(
            partial(make_server, cert, key),
            int(workers),
            places,
            ready=lambda bound: print("listening on", bound, flush=True),
        )
    else:
        anyio.run(serve, cert, key, places)


if __name__ == "__main__":
    main(*sys.argv[1:])
