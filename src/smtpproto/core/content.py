"""Message content on the wire: dot transparency (RFC 5321 §4.5.2) and counted chunks (RFC 3030).

Only CRLF "." CRLF ends it. A bare CR or LF (§2.3.8) is counted as a fault and changes nothing
else, so both sides stay in step whatever the content holds. All work is done on whole chunks, by
a regex that is a literal, `replace`, and the line end reader of `io`; at most four octets are held
back between two of them.
"""

from __future__ import annotations

import re
from io import IncrementalNewlineDecoder

from .errors import LocalProtocolError

__all__ = ["DotReader", "DotWriter", "LineEnds", "has_bare"]

_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")
_DOT_LINE = re.compile(rb"\r\n\.")


def _dot_line(data: bytes) -> int:
    """Return where the first CRLF "." stands, -1 if there is none."""
    # A regex looks for it twice as fast as `find`; and base64, most of all mail, has no dot.
    match = _DOT_LINE.search(data) if b"." in data else None
    return match.start() if match else -1


def has_bare(data: bytes) -> bool:
    """Tell whether a CR or LF stands alone in `data`."""
    # What text files are read with, in C: one pass, and it remembers which line ends it saw.
    reader = IncrementalNewlineDecoder(None, translate=False)
    reader.decode(data.decode("latin-1"), final=True)
    return reader.newlines not in (None, "\r\n")


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
        dotted = _dot_line(data)
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
        if has_bare(body):
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

    def feed(self, data: bytes, *, clean: bool = False) -> bytes:
        """Return what to send for `data`; `clean` says that no bare CR or LF is in it."""
        clean = clean and not self._held
        data = self._held + data if self._held else data
        held = b"\r" if data.endswith(b"\r") else b""
        body = data[:-1] if held else data
        if not clean and has_bare(body):
            raise LocalProtocolError("content with a bare CR or LF (RFC 5321 §2.3.8)")
        self._held = held
        if not body:
            return b""
        stuffed = body if _dot_line(body) < 0 else body.replace(b"\r\n.", b"\r\n..")
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
        if self._cr:
            data = b"\r" + data
        self._cr = data.endswith(b"\r")
        if has_bare(data[:-1] if self._cr else data):
            self.bare = True

    def finish(self) -> None:
        """Look at what is left when the content has ended."""
        self.bare |= self._cr
