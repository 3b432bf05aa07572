"""A server behind a proxy that says who the client is, and a client that plays the proxy.

It speaks the PROXY protocol, of HAProxy, nginx and cloud load balancers.
"""

import anyio
from anyio.abc import ByteStream

from smtpproto import Envelope, Mail, Rcpt, Reply
from smtpproto.client import Client
from smtpproto.core.proxy import ProxyHeader
from smtpproto.server import ContentStream, Server, Session
from smtpproto.wire import connect_tcp


class Printer:
    async def mail(self, session: Session, command: Mail) -> Reply | None:
        print("a client at", session.peer[0])
        return None

    async def rcpt(self, session: Session, command: Rcpt) -> Reply | None:
        return None

    async def content(
        self, session: Session, envelope: Envelope, content: ContentStream
    ) -> Reply | None:
        return None


def server() -> Server:
    """Believes its own machine; a header from anybody else is a bad command."""
    return Server(Printer(), proxy_from=["127.0.0.0/8", "::1"])


async def connect_as_proxy(host: str, port: int) -> ByteStream:
    """Connect, and say on whose behalf: a `connector` for the client."""
    stream = await connect_tcp(host, port)
    header = ProxyHeader(source=("192.0.2.7", 40_000), destination=("192.0.2.25", 25))
    await stream.send(header.serialize())
    return stream


async def main() -> None:
    async with anyio.create_task_group() as tasks:
        host, port = await tasks.start(server().serve)
        async with Client(host, port, tls="none", connector=connect_as_proxy) as client:
            envelope = Envelope("a@example.net", ["b@example.org"])
            print(await client.send(envelope, "Subject: Hi\n\n"))
        tasks.cancel_scope.cancel()


if __name__ == "__main__":
    anyio.run(main)
