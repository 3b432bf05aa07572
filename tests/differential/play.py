"""Says the client's part of a dialogue to a server, and keeps what the server answers.

Nothing here depends on time: behind each step a reply is awaited; behind the last comes QUIT,
and then everything is read until the server closes. The deadline is only there so that a server
that never closes is noticed.
"""

import re
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self, TypeAlias

from attrs import define, field, frozen

__all__ = ["Cut", "Handshake", "Reply", "Step", "Talk", "talk"]

HOST = "127.0.0.1"
DEADLINE = 60.0
QUIT = b"QUIT\r\n"

_LINE = re.compile(rb"([0-9]{3})([ -]?)(?:([245]\.[0-9]{1,3}\.[0-9]{1,3})\s)?.*", re.DOTALL)


@frozen
class Cut:
    """Octets behind which the client ends its side of the connection; nothing is awaited."""

    octets: bytes


@frozen
class Handshake:
    """The client's part of a TLS handshake, if the last reply was 220; else nothing."""


#: Octets that leave in one write, or something else that is done.
Step: TypeAlias = bytes | Cut | Handshake


@frozen
class Reply:
    """A reply's code and enhanced status (empty for none), and the octets of all its lines."""

    code: str
    status: str
    octets: bytes

    def __str__(self) -> str:
        return f"{self.code} {self.status}".rstrip()


@frozen
class Talk:
    """What came of a dialogue: `words` are replies, "TLS" for a handshake, "closed" at the end
    if the server closed without being asked.
    """

    words: tuple[str, ...]
    replies: tuple[Reply, ...]


def talk(
    port: int,
    steps: Sequence[Step],
    *,
    before: Sequence[bytes] = (),
    trusting: ssl.SSLContext | None = None,
    early: bool = False,
    leaves: bool = False,
) -> Talk:
    """Say `before`, line by line, which must be answered well; then `steps`, and last QUIT.

    `early` does not wait for the greeting. `leaves` says that the steps make the server close,
    so that no QUIT is added; the answer to an added one is left out. `trusting` is for the
    handshake.
    OSError where the server keeps silent for a minute, RuntimeError where `before` is refused.
    """
    with _Client(port, trusting) as client:
        if not early:
            client.expect_good()
        for line in before:
            client.send(line)
            client.expect_good()
        for step in steps:
            if client.closed:
                break
            client.do(step)
        return client.finish(leaves=leaves)


@define
class _Client:
    port: int
    trusting: ssl.SSLContext | None
    words: list[str] = field(factory=list, init=False)
    replies: list[Reply] = field(factory=list, init=False)
    closed: bool = field(default=False, init=False)
    _socket: socket.socket = field(init=False)
    _unread: bytearray = field(factory=bytearray, init=False)

    def __enter__(self) -> Self:
        self._socket = socket.create_connection((HOST, self.port), timeout=DEADLINE)
        # One write is one segment, whatever is on its way.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    def expect_good(self) -> None:
        reply = self._read_reply()
        if reply is None or reply.code[0] not in "23":
            raise RuntimeError(f"{reply or 'closed'} before the case has begun")

    def do(self, step: Step) -> None:
        match step:
            case Handshake():
                if self.replies and self.replies[-1].code == "220":
                    self._shake_hands()
            case Cut():
                self.send(step.octets)
                with suppress(OSError):
                    self._socket.shutdown(socket.SHUT_WR)
            case _:
                self.send(step)
                self._hear()

    def send(self, octets: bytes) -> None:
        with suppress(ConnectionError):  # a server that has closed: reading tells
            self._socket.sendall(octets)

    @property
    def _said_goodbye(self) -> bool:
        return bool(self.words) and self.words[-1].startswith("221")

    def finish(self, *, leaves: bool) -> Talk:
        leaves |= self._said_goodbye  # to something that is no QUIT, and yet
        if not leaves:
            self.send(QUIT)
        while not self.closed:
            self._hear()
        if not self._said_goodbye:
            self.words.append("closed")
        elif not leaves:
            self.words.pop()
        return Talk(tuple(self.words), tuple(self.replies))

    def _hear(self) -> None:
        if (reply := self._read_reply()) is None:
            self.closed = True
        else:
            self.replies.append(reply)
            self.words.append(str(reply))

    def _shake_hands(self) -> None:
        assert self.trusting is not None
        try:
            self._socket = self.trusting.wrap_socket(self._socket, server_hostname="localhost")
            self.words.append("TLS")
        except (ssl.SSLError, ConnectionError):
            self.words.append("no TLS")
            self.closed = True

    def _read_reply(self) -> Reply | None:
        """All lines of one reply; None at the end of file."""
        octets = b""
        while True:
            line = self._read_line()
            if line is None:
                return None
            octets += line
            match = _LINE.fullmatch(line)
            assert match is not None, f"no line of a reply: {line!r}"
            if match[2] != b"-":
                return Reply(match[1].decode(), (match[3] or b"").decode(), octets)

    def _read_line(self) -> bytes | None:
        while b"\n" not in self._unread:
            try:
                octets = self._socket.recv(65_536)
            except (ConnectionError, ssl.SSLEOFError):
                octets = b""
            if not octets:
                return None
            self._unread += octets
        end = self._unread.index(b"\n") + 1
        line = bytes(self._unread[:end])
        del self._unread[:end]
        return line
