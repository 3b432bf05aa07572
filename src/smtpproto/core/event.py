"""What `next_event()` returns beside commands (server) and replies (client)."""

from __future__ import annotations

import enum
from collections.abc import Iterator

from attrs import field, frozen

from .command import Command
from .content import has_bare
from .errors import LocalProtocolError
from .reply import Reply
from .value import taker

__all__ = [
    "NEED_DATA",
    "PAUSED",
    "BadCommand",
    "Chunk",
    "ConnectionClosed",
    "Content",
    "EndOfChunk",
    "EndOfContent",
    "Lines",
    "Signal",
    "TlsInfo",
]


class Signal(enum.Enum):
    """Not an event: why there is none."""

    #: Nothing whole has been received: call `receive_data`.
    NEED_DATA = enum.auto()
    #: Something is owed first: a server its reply, either side the TLS handshake.
    PAUSED = enum.auto()


NEED_DATA = Signal.NEED_DATA
PAUSED = Signal.PAUSED


@frozen
class BadCommand:
    """A line that is no command, or one that is not possible here. Answer it like any command.

    `line` is what came, without CRLF (cut where it was too long to keep); `reply` is what it
    has earned; `command` is what was understood of it, if anything was, for policy to look at:
    a MAIL or RCPT with parameters that nobody offered may even be accepted.
    """

    line: bytes
    reply: Reply
    command: Command | None = None


@frozen
class Content:
    """A piece of a message's content, without dot-stuffing, cut anywhere."""

    data: bytes


@frozen
class Lines(Content):
    """Content in which no CR or LF stands alone, which its maker found and nobody looks for again.

    LocalProtocolError where one does (RFC 5321 §2.3.8).
    """

    def __attrs_post_init__(self) -> None:
        if has_bare(self.data):
            raise LocalProtocolError("content with a bare CR or LF (RFC 5321 §2.3.8)")

    def pieces(self, octets: int) -> Iterator[Lines]:
        """Cut it into so many octets each, at least 2, and one fewer rather than part a CRLF."""
        at = 0
        while at < len(self.data):
            end = at + octets
            if self.data.startswith(b"\n", end):
                end -= 1
            yield _take_lines(self.data[at:end])
            at = end


_take_lines = taker(Lines, "data")


@frozen
class EndOfContent:
    """The content is whole; the reply to it is owed.

    `octets` counts the content as RFC 1870 does, stuffed dots not included. `fault` is the
    reply owed if the content broke a rule on the way; it must not be accepted then.
    A client that sends one gives neither.
    """

    octets: int = 0
    fault: Reply | None = None


@frozen
class Chunk:
    """For a client to send: a BDAT line and the octets it announces, in one (RFC 3030 §2).

    So there is never a chunk that was promised and not sent.
    """

    data: bytes
    last: bool = False


@frozen
class EndOfChunk:
    """A BDAT chunk that is not the last one is whole; the reply to it is owed.

    `octets` counts this chunk, `fault` as in EndOfContent.
    """

    octets: int
    fault: Reply | None = None


@frozen
class ConnectionClosed:
    """Nothing more will come: end of file, QUIT or 421. It is returned for ever after."""


@frozen
class TlsInfo:
    """What is known of a TLS layer: protocol version and cipher, as the TLS library names them.

    `certificate` is the peer's, in DER, and `unique` what tls-unique binds to (RFC 5929 §3); both
    are empty where there is none, as the latter is from TLS 1.3 on. `verified`: that certificate
    leads to one that is trusted, and names the server that was meant.
    """

    version: str = ""
    cipher: str = ""
    certificate: bytes = field(default=b"", repr=False)
    unique: bytes = field(default=b"", repr=False)
    verified: bool = False
