"""A server behind a proxy that says who the client is, and a client that plays the proxy.

It speaks the PROXY protocol, of HAProxy, nginx and cloud load balancers.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import anyio
from anyio.abc import ByteStream, SocketAttribute
from attrs import define

from smtpproto import Envelope, Mail, Rcpt, RemoteProtocolError, Reply
from smtpproto.client import Client
from smtpproto.core.proxy import ProxyHeader, ProxyReader
from smtpproto.server import ContentStream, Server, Session
from smtpproto.stream import peer_address
from smtpproto.wire import connect_tcp, listen_tcp

PROXIES = {"127.0.0.1"}  # whom to believe; a header from anybody else is refused
PATIENCE = 5.0  # seconds


@define(eq=False)
class Proxied(ByteStream):
    """A stream whose header has been read: `leftover` came behind it."""

    stream: ByteStream
    header: ProxyHeader
    leftover: bytes

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        if self.leftover:
            data, self.leftover = self.leftover[:max_bytes], self.leftover[max_bytes:]
            return data
        return await self.stream.receive(max_bytes)

    async def send(self, item: bytes) -> None:
        await self.stream.send(item)

    async def send_eof(self) -> None:
        await self.stream.send_eof()

    async def aclose(self) -> None:
        await self.stream.aclose()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        source, destination = self.header.source, self.header.destination
        if not isinstance(source, tuple):  # LOCAL: the proxy itself, looking whether we are well
            return self.stream.extra_attributes
        return {
            **self.stream.extra_attributes,
            SocketAttribute.remote_address: lambda: source,
            SocketAttribute.local_address: lambda: destination,
        }


async def accept(server: Server, stream: ByteStream) -> None:
    """Read the header, and serve the client that it names."""
    reader, header = ProxyReader(), None
    try:
        if peer_address(stream)[0] in PROXIES:
            with anyio.fail_after(PATIENCE):
                while header is None:
                    header = reader.feed(await stream.receive())
    except (RemoteProtocolError, TimeoutError, anyio.EndOfStream, anyio.BrokenResourceError):
        pass
    if header is None:
        await anyio.aclose_forcefully(stream)  # without a word: nobody knows who is listening
    else:
        await server.serve_stream(Proxied(stream, header, reader.leftover))


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


async def connect_as_proxy(host: str, port: int) -> ByteStream:
    """Connect, and say on whose behalf: a `connector` for the client."""
    stream = await connect_tcp(host, port)
    header = ProxyHeader(source=("192.0.2.7", 40_000), destination=("192.0.2.25", 25))
    await stream.send(header.serialize())
    return stream


async def main() -> None:
    server = Server(Printer())
    async with await listen_tcp("127.0.0.1", 0) as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, partial(accept, server), tasks)
        port = listener.address[1]
        connector = connect_as_proxy
        async with Client("127.0.0.1", port, tls="none", connector=connector) as client:
            envelope = Envelope("a@example.net", ["b@example.org"])
            print(await client.send(envelope, "Subject: Hi\n\n"))
        tasks.cancel_scope.cancel()


if __name__ == "__main__":
    anyio.run(main)
