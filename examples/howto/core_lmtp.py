"""LMTP with the core: hand a message to a mailbox server, and hear about each recipient by itself.

Here the server is a thread of ours, at the other end of a pair of sockets.
"""

import socket
import threading
from collections.abc import Iterable, Iterator

from smtpproto import (
    NEED_DATA,
    PAUSED,
    STANDARD,
    ClientConnection,
    ConnectionClosed,
    Content,
    Data,
    EndOfContent,
    Envelope,
    Lhlo,
    Quit,
    Reply,
    ServerConnection,
    Severity,
)

FULL = Reply(452, "4.2.2", "Mailbox full")


def replies(client: ClientConnection, sock: socket.socket, wire: bytes) -> Iterator[Reply]:
    """Send, and pull every reply that is owed."""
    sock.sendall(wire)
    while client.owed:
        event = client.next_event()
        if event is NEED_DATA:
            client.receive_data(sock.recv(65_536))
        elif isinstance(event, Reply):
            yield event
        else:
            raise ConnectionError("the server has closed the connection")


def deliver(sock: socket.socket, envelope: Envelope, content: bytes) -> Iterator[str]:
    client = ClientConnection(STANDARD, lmtp=True)
    (greeting,) = replies(client, sock, b"")
    (hello,) = replies(client, sock, client.send(Lhlo("client.example.org")))
    (mail,) = replies(client, sock, client.send(envelope.mail))
    for reply in (greeting, hello, mail):
        if reply.severity is not Severity.COMPLETION:
            raise ConnectionError(str(reply))
    accepted: list[str] = []
    for rcpt in envelope.rcpts:
        (reply,) = replies(client, sock, client.send(rcpt))
        if reply.severity is Severity.COMPLETION:
            accepted.append(str(rcpt.forward_path))
        else:
            yield f"{rcpt.forward_path}: {reply}"
    if accepted:
        (go_ahead,) = replies(client, sock, client.send(Data()))
        if go_ahead.severity is not Severity.INTERMEDIATE:
            raise ConnectionError(str(go_ahead))
        wire = client.send(Content(content)) + client.send(EndOfContent())
        # As many replies as recipients were accepted, in their order (RFC 2033 §4.2).
        for path, verdict in zip(accepted, replies(client, sock, wire), strict=True):
            yield f"{path}: {verdict}"
    list(replies(client, sock, client.send(Quit())))


def serve(sock: socket.socket, full: Iterable[str]) -> None:
    """Take mail; who is in `full` has no room left."""
    server = ServerConnection("mailbox.example.org", STANDARD, lmtp=True)
    verdicts: list[Reply] = []
    with sock:
        while True:
            event = server.next_event()
            if event is PAUSED:
                reply = verdicts.pop(0) if verdicts else server.suggested_reply()
                sock.sendall(server.send(reply))
            elif event is NEED_DATA:
                server.receive_data(sock.recv(65_536))
            elif isinstance(event, EndOfContent) and event.fault is None and server.envelope:
                verdicts = [
                    FULL if str(path) in full else Reply(250, "2.0.0", "Delivered")
                    for path in server.envelope.forward_paths
                ]
            elif isinstance(event, ConnectionClosed):
                return


def main() -> None:
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=serve, args=(theirs, ["<bo@example.org>"]))
    thread.start()
    with ours:
        envelope = Envelope("jo@example.net", ["al@example.org", "bo@example.org"])
        for line in deliver(ours, envelope, b"Subject: Hi\r\n\r\nHello.\r\n"):
            print(line)
    thread.join()


if __name__ == "__main__":
    main()
