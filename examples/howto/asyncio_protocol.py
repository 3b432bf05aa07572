"""The core in an asyncio.Protocol: python examples/howto/asyncio_protocol.py PORT."""

import asyncio
import sys

from smtpproto import (
    NEED_DATA,
    PAUSED,
    STANDARD,
    Content,
    EndOfContent,
    Limits,
    RemoteProtocolError,
    ServerConnection,
)
from smtpproto.core.server_connection import ServerEvent


class Session(asyncio.Protocol):
    def __init__(self) -> None:
        self.server = ServerConnection("mx.example.org", STANDARD, limits=Limits(message=1_000_000))
        self.body = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.work()

    def data_received(self, data: bytes) -> None:
        self.server.receive_data(data)
        self.work()

    def eof_received(self) -> None:
        self.server.receive_data(b"")
        self.work()

    def work(self) -> None:
        """Go on until the other side has to."""
        try:
            while (event := self.server.next_event()) is not NEED_DATA:
                if event is PAUSED:
                    self.transport.write(self.server.send(self.server.suggested_reply()))
                elif not self.take(event):  # type: ignore[arg-type]  # no signal, so an event
                    break
        except RemoteProtocolError as error:
            if error.reply is not None:
                self.transport.write(error.reply.serialize())
            self.transport.close()

    def take(self, event: ServerEvent) -> bool:
        """Take note of an event; return whether there is more to come."""
        match event:
            case Content(data=data):
                self.body += data
            case EndOfContent(fault=fault):
                if fault is None and self.server.envelope:
                    to = self.server.envelope.forward_paths
                    print(*to, len(self.body), "octets", flush=True)
                self.body.clear()
            case _ if self.server.replies_owed == 0:  # ConnectionClosed
                self.transport.close()
                return False
        return True


async def main(port: str) -> None:
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(Session, "127.0.0.1", int(port))
    print("listening on", *listener.sockets[0].getsockname(), flush=True)
    await listener.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
