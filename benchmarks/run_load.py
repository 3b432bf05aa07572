"""Load for what smtp-source cannot do: python run_load.py WAY PORT MESSAGES SESSIONS OCTETS.

WAY is `pipelined`, `starttls`, `login` or `domains`. Each session is a process of its own with a
blocking socket, and looks at each reply: one that is not as expected ends it all. At the end it
prints how many messages were accepted, and the seconds from the first connection to the last reply.
Run by `servers_and_clients.py` and `relay.py`.

- `pipelined`: a connection is kept, and what may be one write is one: a message's content and its
  final dot together with MAIL, RCPT and DATA of the next. DATA has to be the last of a group, so
  there is a round trip for each message, not for each command (RFC 2920 §3.1).
- `starttls`, `login`: for each message a new connection with a full handshake, or AUTH PLAIN; then
  a round trip for each command, as smtp-source has it.
- `domains`: as smtp-source, on a connection that is kept, but to DOMAINS domains by turns, as
  `run_dns.py` knows them. They are one more argument.
"""

from __future__ import annotations

import base64
import json
import multiprocessing
import socket
import ssl
import sys
import time

from shared import HELO_NAME, HOST, SENDER, content, shares

PATIENCE = 60  # seconds for any one answer
GROUP = (
    b"MAIL FROM:<%b>\r\n" % SENDER.encode(),
    b"RCPT TO:<recipient0@example.test>\r\n",
    b"DATA\r\n",
)
EHLO = b"EHLO %b\r\n" % HELO_NAME.encode()
AUTH = b"AUTH PLAIN %b\r\n" % base64.b64encode(b"\0user\0secret")


class Connection:
    """One connection: octets out, replies in."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection((HOST, port), timeout=PATIENCE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._unread = b""
        self.expect("220")

    def ask(self, octets: bytes, *codes: str) -> None:
        """Write, and wait for replies with these codes."""
        self._socket.sendall(octets)
        self.expect(*codes)

    def expect(self, *codes: str) -> None:
        for code in codes:
            while (line := self._line())[3:4] == b"-":
                pass
            if line[:3] != code.encode():
                raise ConnectionError(f"{line!r} where {code} was expected")

    def _line(self) -> bytes:
        while True:
            line, end, rest = self._unread.partition(b"\n")
            if end:
                self._unread = rest
                return line
            received = self._socket.recv(65536)
            if not received:
                raise ConnectionError("closed by the server")
            self._unread += received

    def start_tls(self, context: ssl.SSLContext) -> None:
        self._socket = context.wrap_socket(self._socket, server_hostname=HOST)

    def quit(self) -> None:
        self.ask(b"QUIT\r\n", "221")
        self._socket.close()


def pipelined(port: int, messages: int, octets: bytes) -> None:
    connection = Connection(port)
    connection.ask(EHLO, "250")
    group = b"".join(GROUP)
    connection.ask(group, "250", "250", "354")
    for _ in range(messages - 1):
        connection.ask(octets + group, "250", "250", "250", "354")
    connection.ask(octets, "250")
    connection.quit()


def each_anew(port: int, messages: int, octets: bytes, tls: ssl.SSLContext | None) -> None:
    """Send each message on a connection of its own: with TLS, or logged in."""
    mail, rcpt, data = GROUP
    for _ in range(messages):
        connection = Connection(port)
        connection.ask(EHLO, "250")
        if tls is None:
            connection.ask(AUTH, "235")
        else:
            connection.ask(b"STARTTLS\r\n", "220")
            connection.start_tls(tls)
            connection.ask(EHLO, "250")
        connection.ask(mail, "250")
        connection.ask(rcpt, "250")
        connection.ask(data, "354")
        connection.ask(octets, "250")
        connection.quit()


def to_domains(port: int, messages: int, octets: bytes, first: int, domains: int) -> None:
    """Send messages on one connection, to each domain once in `domains` of them."""
    connection = Connection(port)
    connection.ask(EHLO, "250")
    for number in range(first, first + messages):
        connection.ask(GROUP[0], "250")
        # In steps, so that neighbours in the list are not neighbours in time.
        connection.ask(b"RCPT TO:<a@%d.d.test>\r\n" % (number * 37 % domains), "250")
        connection.ask(GROUP[2], "354")
        connection.ask(octets, "250")
    connection.quit()


def main(way: str, *numbers: int) -> None:
    port, messages, sessions, octets, *more = numbers
    message = content(octets) + b".\r\n"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # what is measured is the server
    fork = multiprocessing.get_context("fork")
    children = []
    first = 0
    for share in filter(None, shares(messages, sessions)):
        if way == "domains":
            args = (port, share, message, first, *more)
            child = fork.Process(target=to_domains, args=args)
            first += share
        elif way == "pipelined":
            child = fork.Process(target=pipelined, args=(port, share, message))
        else:
            tls = context if way == "starttls" else None
            child = fork.Process(target=each_anew, args=(port, share, message, tls))
        children.append(child)
    began = time.perf_counter()
    for child in children:
        child.start()
    for child in children:
        child.join()
    seconds = time.perf_counter() - began
    if any(child.exitcode for child in children):
        sys.exit("not every message was accepted")
    print(json.dumps({"messages": messages, "seconds": seconds}))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
