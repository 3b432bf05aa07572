"""A next hop that counts: python run_sink.py HOST PORT COUNTERS [DEFER].

It takes every message and keeps none, with 8BITMIME, PIPELINING and SIZE, in one process with
epoll, so that it is never what is waited for. Of DEFER recipients one is answered 450 (0: none).
COUNTERS is a file of three numbers that it keeps in memory shared with whoever looks: messages
taken, recipients deferred, and when the last of either was, by the monotonic clock. See `Counted`.
"""

from __future__ import annotations

import mmap
import select
import socket
import struct
import sys
from pathlib import Path
from time import monotonic

__all__ = ["Counted"]

COUNTERS = struct.Struct("=QQd")
EHLO = b"250-sink.example.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 0\r\n"
OK, LATER = b"250 2.0.0 Ok\r\n", b"450 4.2.0 Not now\r\n"
END = b"\r\n.\r\n"


class Counted:
    """What the sink has counted, to be read while it runs."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(COUNTERS.size))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), COUNTERS.size)

    def read(self) -> tuple[int, int, float]:
        """Return messages taken, recipients deferred, and the time of the last."""
        taken, deferred, last = COUNTERS.unpack_from(self._memory)
        return taken, deferred, last


class Session:
    """One client: what it has sent and is not read yet, and what it is owed."""

    def __init__(self, sink: Sink, stream: socket.socket) -> None:
        self.sink, self.stream = sink, stream
        self.octets = b""
        self.in_content = False
        self.recipients = 0
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream.send(b"220 sink.example.test ESMTP\r\n")

    def hear(self) -> bool:
        """Read what is there and answer it; False when the client has gone."""
        try:
            octets = self.stream.recv(1 << 18)
            if not octets:
                return False
            self.octets += octets
            if replies := b"".join(iter(self._reply, None)):
                self.stream.send(replies)
        except OSError:
            return False
        return True

    def _reply(self) -> bytes | None:
        """Return what the next line, or content, is answered; None where there is none yet."""
        if self.in_content:
            at = self.octets.find(END)
            if at < 0:
                self.octets = self.octets[-len(END) :]
                return None
            self.octets = self.octets[at + len(END) :]
            self.in_content = False
            self.sink.count(1, 0)
            return OK
        line, end, rest = self.octets.partition(b"\r\n")
        if not end:
            return None
        self.octets = rest
        match line[:4].upper():
            case b"EHLO":
                return EHLO
            case b"MAIL":
                self.recipients = 0
            case b"RCPT":
                if self.sink.defers():
                    self.sink.count(0, 1)
                    return LATER
                self.recipients += 1
            case b"DATA" if not self.recipients:
                return b"554 5.5.1 No valid recipients\r\n"
            case b"DATA":
                self.in_content = True
                self.octets = b"\r\n" + self.octets  # so that END is found in an empty one, too
                return b"354 Go on\r\n"
            case b"QUIT":
                return b"221 2.0.0 Bye\r\n"
            case _:
                pass
        return OK


class Sink:
    """All sessions, and what they add up to."""

    def __init__(self, counters: Path, each: int) -> None:
        with counters.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), COUNTERS.size)
        self._taken = self._deferred = self._asked = 0
        self._each = each

    def defers(self) -> bool:
        self._asked += 1
        return self._each > 0 and self._asked % self._each == 0

    def count(self, taken: int, deferred: int) -> None:
        self._taken += taken
        self._deferred += deferred
        COUNTERS.pack_into(self._memory, 0, self._taken, self._deferred, monotonic())

    def serve(self, listening: socket.socket) -> None:
        poll = select.epoll()
        poll.register(listening, select.EPOLLIN)
        sessions: dict[int, Session] = {}
        while True:
            for number, _ in poll.poll():
                if number == listening.fileno():
                    stream, _ = listening.accept()
                    sessions[stream.fileno()] = Session(self, stream)
                    poll.register(stream, select.EPOLLIN)
                elif not sessions[number].hear():
                    poll.unregister(number)
                    sessions.pop(number).stream.close()


def main(host: str, port: str, counters: str, each: str = "0") -> None:
    with socket.create_server((host, int(port)), backlog=1000) as listening:
        Sink(Path(counters), int(each)).serve(listening)


if __name__ == "__main__":
    main(*sys.argv[1:])
