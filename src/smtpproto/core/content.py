"""Message content on the wire: dot transparency (RFC 5321 §4.5.2) and counted chunks (RFC 3030).

Only CRLF "." CRLF ends it. A bare CR or LF (§2.3.8) is counted as a fault and changes nothing
else, so both sides stay in step whatever the content holds. All work is done by `find`, `count`
and `replace` on whole chunks; at most four octets are held back between two of them.
"""

from __future__ import annotations

import re

from .errors import LocalProtocolError

__all__ = ["DotReader", "DotWriter", "LineEnds"]

_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")


class DotReader:
    """Reads dot-stuffed content up to its end.

    `repair` turns each bare CR or LF into CRLF instead of counting it as a fault; the end of the
    content is found in what was received, never in what the repair made.
    """

    __slots__ = ("_held", "_repair", "_virtual", "bare", "ended")

    def __init__(self, *, repair: bool = False) -> None:
        # The CRLF that ended the DATA command is the first half of the end mark (§4.1.1.4).
        self._held: bytes = b"\r\n"
        self._virtual = True
        self._repair = repair
        #: A CR or LF stood alone.
        self.bare = False
        #: The end mark has been read.
        self.ended = False

    def feed(self, data: bytes) -> tuple[bytes, int]:
        """Take received octets; return the content in them and how many lie behind its end."""
        data = self._held + data
        dotted = data.find(b"\r\n.")
        end = data.find(b"\r\n.\r\n", dotted) if dotted >= 0 else -1
        if end >= 0:
            self.ended = True
            body, behind = data[: end + 2], len(data) - (end + 5)
        else:
            # A body never ends between the CR and the LF of a pair: that CR would be held.
            held = _unfinished(data)
            body, self._held, behind = data[: len(data) - held], data[len(data) - held :], 0
        if not body:
            return b"", behind
        if body.count(b"\r") != (pairs := body.count(b"\r\n")) or body.count(b"\n") != pairs:
            self.bare = True
        if 0 <= dotted < len(body) - 2:
            body = body.replace(b"\r\n.", b"\r\n")
        if self._virtual:
            self._virtual = False
            body = body[2:]
        if self._repair and self.bare:
            body = _BARE.sub(b"\r\n", body)
        return body, behind


def _unfinished(data: bytes) -> int:
    """Count the octets at the end of `data` that may be the beginning of CRLF "." CRLF."""
    if data.endswith(b"\r"):
        return 4 if data.endswith(b"\r\n.\r") else 1
    if data.endswith(b"\n"):
        return 2 if data.endswith(b"\r\n") else 0
    return 3 if data.endswith(b"\r\n.") else 0


class DotWriter:
    """Writes content dot-stuffed, and its end.

    Octets with a bare CR or LF are refused with LocalProtocolError before any of that chunk
    leaves; the writer is of no more use then, and the connection has to be closed without the
    end mark.
    """

    __slots__ = ("_held", "_line_start")

    def __init__(self) -> None:
        self._held = b""  # a CR whose LF may come with the next chunk
        self._line_start = True

    def feed(self, data: bytes) -> bytes:
        """Return what to send for `data`."""
        data = self._held + data if self._held else data
        held = b"\r" if data.endswith(b"\r") else b""
        body = data[:-1] if held else data
        pairs = body.count(b"\r\n")
        if body.count(b"\n") != pairs or body.count(b"\r") != pairs:
            raise LocalProtocolError("content with a bare CR or LF (RFC 5321 §2.3.8)")
        self._held = held
        if not body:
            return b""
        stuffed = body.replace(b"\r\n.", b"\r\n..") if pairs else body
        if self._line_start and body.startswith(b"."):
            stuffed = b"." + stuffed
        self._line_start = body.endswith(b"\r\n")
        return stuffed

    def finish(self) -> bytes:
        """Return the end mark, with the CRLF that the last line may lack (§4.1.1.4)."""
        if self._held:
            raise LocalProtocolError("content with a bare CR or LF (RFC 5321 §2.3.8)")
        return b".\r\n" if self._line_start else b"\r\n.\r\n"


class LineEnds:
    """Looks for a CR or LF that stands alone, in content that needs no transparency (BDAT).

    It changes nothing. A CR at the end of one piece may find its LF at the beginning of the
    next; at the end of the content, `finish` says whether it did.
    """

    __slots__ = ("_cr", "bare")

    def __init__(self) -> None:
        self._cr = False
        #: A CR or LF stood alone.
        self.bare = False

    def feed(self, data: bytes) -> None:
        """Look at the next octets."""
        if not data:
            return
        pairs = data.count(b"\r\n")
        lone_lf = data.count(b"\n") - pairs
        lone_cr = data.count(b"\r") - pairs
        if self._cr:
            if data.startswith(b"\n"):
                lone_lf -= 1
            else:
                lone_cr += 1
        self._cr = data.endswith(b"\r")
        if lone_lf or lone_cr - self._cr:
            self.bare = True

    def finish(self) -> None:
        """Look at what is left when the content has ended."""
        self.bare |= self._cr
