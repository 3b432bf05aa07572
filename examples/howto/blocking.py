"""The core on blocking sockets and threads: python examples/howto/blocking.py PORT."""

import socketserver
import sys
from collections.abc import Iterator

from smtpproto import (
    NEED_DATA,
    PAUSED,
    STANDARD,
    ConnectionClosed,
    Content,
    EndOfContent,
    Rcpt,
    RemoteProtocolError,
    Reply,
    ServerConnection,
)
from smtpproto.core.server_connection import ServerEvent


class Session(socketserver.BaseRequestHandler):
    timeout = 300

    def handle(self) -> None:
        self.request.settimeout(self.timeout)
        server = ServerConnection("mx.example.org", STANDARD)
        self.answer(server, None)  # the greeting
        body = bytearray()
        try:
            for event in self.events(server):
                if isinstance(event, Content):
                    body += event.data
                elif isinstance(event, EndOfContent):
                    if event.fault is None and server.envelope:
                        print(*server.envelope.forward_paths, len(body), "octets", flush=True)
                    body.clear()
                self.answer(server, event)
        except RemoteProtocolError as error:  # its octets mean nothing any more
            if error.reply is not None:
                self.request.sendall(error.reply.serialize())
        except OSError:
            pass  # gone, or silent for too long

    def events(self, server: ServerConnection) -> Iterator[ServerEvent]:
        while True:
            event = server.next_event()
            if event is NEED_DATA:
                server.receive_data(self.request.recv(65_536))
            elif isinstance(event, ConnectionClosed):
                return
            elif event is not PAUSED:
                yield event  # type: ignore[misc]  # no signal, so an event

    def answer(self, server: ServerConnection, event: ServerEvent | None) -> None:
        """Send the replies that are owed now; after a piece of content there is none."""
        while server.replies_owed:
            reply = server.suggested_reply()
            if isinstance(event, Rcpt) and event.forward_path.mailbox.domain != b"example.org":
                reply = Reply(550, "5.7.1", "Not here")
            self.request.sendall(server.send(reply))


class Listener(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def main(port: str) -> None:
    with Listener(("127.0.0.1", int(port)), Session) as listener:
        print("listening on", *listener.server_address, flush=True)
        listener.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1])
