"""Content made fit for a next hop that takes less: 8-bit and binary MIME encoded in 7-bit lines.

RFC 6152 §3 and RFC 3030 §3 leave a relay the choice to convert or to fail, and want a conversion
to lose nothing and to give valid MIME. So only what says what it is, is converted: a part called
8bit becomes quoted-printable, one called binary base64, and what holds them is called 7bit, for it
may not be encoded itself (RFC 2045 §6.4). All else stays octet for octet. What must not be touched,
or contradicts itself, is not converted, and `objection` says why, in words for its sender.

It streams: the content is walked in one pass, in memory that does not grow with it. Whether it can
be converted is known at its end only, and has to be known before MAIL; so the relay walks it twice,
the first time to look (`survey`). It lies in the spool, and nothing is kept between the two. Both
go in a thread: a chunk that is all boundaries takes a quarter of a second.

Boundaries are looked for as RFC 2046 §5.1 has them, those of outer multiparts within inner ones,
too, but as whole lines: that is how readers find them.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from typing import TypeAlias

from anyio import to_thread
from attrs import define, field, frozen

from smtpproto.core.content import LineEnds

from .header import MAX_LINE
from .mime_header import FIELD, MAX_BOUNDARY, Said
from .quoted import QuotedPrintable

__all__ = ["Downgrade", "Survey", "downgraded", "survey"]

#: Octets of the header of one part, and of the whole, that are read for what it says.
MAX_HEADER = 1 << 18
#: Multiparts within each other.
MAX_DEPTH = 50
# A line that ends a part, with the CRLF in front and behind, has no more octets than this: spaces
# may stand at its end. It is found whole or not at all.
_HOLD = 2 * MAX_BOUNDARY + 10

# Why it is not converted. They follow "this message cannot be converted: ".
NOT_MIME = "it is no MIME message, and so does not say what its 8-bit text is"
HEADER = "there are octets beyond ASCII in its header"
SEALED = "it is signed or encrypted, and that would not survive"
FRAGMENT = "a part of it may not be encoded by the rules of MIME"
UNSAID = "a part of it has 8-bit octets and does not say so"
ENCODED = "a part of it is said to be encoded, and is not"
BETWEEN = "there is 8-bit text in front of its parts, or behind them"
MALFORMED = "its MIME structure cannot be read"
TOO_LARGE = "a header in it is too long, or its parts are nested too deep"
NO_LINES = "a part of it that is not called binary has no proper lines"

_IDENTITY = (b"7bit", b"8bit", b"binary")
_SEALED = (b"multipart/signed", b"multipart/encrypted")  # RFC 1847 §2


class Downgrade:
    """Converts one message; feed it the content's chunks, cut anywhere, then finish.

    With `eight_bit` the next hop takes 8-bit lines, and only what is called binary is encoded.
    What comes out is worth something as long as there is no `objection`.
    """

    def __init__(self, *, eight_bit: bool = False) -> None:
        self._eight_bit = eight_bit
        #: Why it cannot be converted; empty where it can.
        self.objection = ""
        #: A header, of a part of it too, is beyond ASCII.
        self.utf8_header = False
        #: It says of a part, or of all, that it is binary.
        self.binary = False
        self._buffer = bytearray()
        self._skip = 0  # octets at its beginning that were sent on already
        self._header: bytearray | None = bytearray()  # None: in a body
        self._frames: list[_Frame] = []
        self._unclear = False  # a line of the header is no field
        self._sealed = ""  # why nothing in here may be touched
        self._in_multipart = False
        self._in_digest = False
        self._body: _Body = _Plain("")

    def feed(self, chunk: bytes) -> bytes:
        """Take more of the content; return what can be sent on."""
        self._buffer += chunk
        out: list[bytes] = []
        while self._step(out, final=False):
            pass
        return b"".join(out)

    def finish(self) -> bytes:
        """Say that this was all; return the rest."""
        out: list[bytes] = []
        while self._step(out, final=True):
            pass
        if self._header is not None:  # it ended within a header
            out.append(self._begun(bytes(self._header), b""))
        out.append(self._body.finish())
        self._note(self._body)
        if isinstance(self._body, _Base64):
            out.append(b"\r\n")
        return b"".join(out)

    def _step(self, out: list[bytes], *, final: bool) -> bool:
        """Go one step further; tell whether there may be another."""
        if self._header is not None:
            return self._read_header(self._header, out, final=final)
        return self._read_body(out, final=final)

    @property
    def _in_header(self) -> bool:
        return self._header is not None

    def _object(self, reason: str) -> None:
        self.objection = self.objection or reason

    # Bodies

    def _read_body(self, out: list[bytes], *, final: bool) -> bool:
        if not self._frames:
            self._pass_on(len(self._buffer), out)
            return False
        decided = len(self._buffer) - (0 if final else _HOLD)
        if decided <= 0 and not (final and self._buffer):
            return False
        match = self._find_boundary(self._buffer)
        if match is None or match.start() >= decided:
            self._pass_on(decided, out)
            return False
        boundary, last = self._frames[-1].ends[_without_spaces(match)]
        end = match.end() - 2 * (last and match[0].endswith(b"\r\n"))
        self._pass_on(match.start(), out)
        self._part_ends(boundary, out, last=last)
        # Behind the last part the line's CRLF may belong to the boundary of what is around it.
        out.append(bytes(self._buffer[self._skip : match.end() - match.start()]))
        del self._buffer[: end - match.start()]
        self._skip = 2 if last else 0
        return True

    def _find_boundary(self, text: bytes | bytearray) -> re.Match[bytes] | None:
        """Find the first line that is a boundary of one of the multiparts that we are in."""
        ends = self._frames[-1].ends
        match = _DASHED.search(text)
        while match is not None and _without_spaces(match) not in ends:
            match = _DASHED.search(text, match.end(1))
        return match

    def _pass_on(self, octets: int, out: list[bytes]) -> None:
        data = bytes(self._buffer[self._skip : octets])
        self._skip = max(self._skip - octets, 0)
        del self._buffer[:octets]
        if data:
            out.append(self._body.feed(data))

    def _part_ends(self, boundary: bytes, out: list[bytes], *, last: bool) -> None:
        """Leave the part that a boundary ends, and all in it."""
        out.append(self._body.finish())
        self._note(self._body)
        while self._frames[-1].boundary != boundary:
            self._frames.pop()
        frame = self._frames[-1]
        self._sealed, self._in_digest = frame.sealed, frame.digest
        if last:
            self._frames.pop()
            self._body = _Plain(self._sealed or BETWEEN)
        else:
            self._in_multipart = True
            self._header = bytearray()

    def _note(self, body: _Body) -> None:
        if isinstance(body, _Plain) and not body.ascii and not self._eight_bit:
            self._object(body.objection)

    # Headers

    def _read_header(self, header: bytearray, out: list[bytes], *, final: bool) -> bool:
        at = self._buffer.find(b"\r\n")
        if (at if at >= 0 else len(self._buffer)) + len(header) > MAX_HEADER:
            self._header, self._body = None, _Plain(self._sealed or TOO_LARGE)
            out.append(self._body.feed(bytes(header)))
            return True
        if at < 0 and not final:
            return False
        line = bytes(self._buffer[: at + 2] if at >= 0 else self._buffer)
        if not line:
            return False
        if line == b"\r\n":
            self._header = None
            out.append(self._begun(bytes(header), line))
            if self._frames and not self._in_header:
                self._skip = 2  # it may be the CRLF of a boundary, too
            else:
                del self._buffer[:2]
            return True
        if self._frames and (match := self._find_boundary(b"\r\n" + line)):
            # A part that breaks off before it has a body.
            boundary, last = self._frames[-1].ends[_without_spaces(match)]
            self._header = None
            out.append(self._begun(bytes(header), b""))
            self._part_ends(boundary, out, last=last)
            out.append(line)
            del self._buffer[: len(line) - 2 * (last and line.endswith(b"\r\n"))]
            self._skip = 2 if last else 0
            return True
        folded = header and line[:1] in b" \t"
        if not folded and FIELD.match(line) is None:
            self._unclear = True  # some would take it for the body's first line
        header += line
        del self._buffer[: len(line)]
        return True

    def _begun(self, header: bytes, blank: bytes) -> bytes:
        """Begin the body behind a header; return the header as it is sent on."""
        if not header.isascii():
            self.utf8_header = True
            if not self._eight_bit:
                self._object(HEADER)
        said = Said.of(header, b"message/rfc822" if self._in_digest else b"text/plain")
        self.binary |= said.coding == b"binary"
        mime = self._in_multipart or b"mime-version" in said.names
        self._in_multipart = self._in_digest = False
        coding = said.coding
        if not mime:
            self._body = _Plain(self._sealed or NOT_MIME)
        elif self._unclear or said.unclear:
            self._body = _Plain(self._sealed or MALFORMED)
        else:
            coding = self._begin(said)
        self._unclear = False
        if coding == said.coding:
            return header + blank
        written = b"Content-Transfer-Encoding: %b\r\n" % coding
        return header[: said.start] + written + header[said.end :] + blank

    def _begin(self, said: Said) -> bytes:
        """Begin a body of this kind; return what it is encoded in from here on."""
        kind, coding, sealed = said.kind, said.coding, self._sealed
        within = b"8bit" if self._eight_bit else b"7bit"
        whole = within if coding in _IDENTITY[1:] and not sealed else coding
        if kind.startswith(b"multipart/") and coding in _IDENTITY:
            self._begin_multipart(kind, said.boundary)
            return whole
        if kind == b"message/rfc822" and coding in _IDENTITY:
            self._header = bytearray()
            return whole
        # RFC 6532 §3.7, RFC 6533 §6: these alone of `message` may be encoded.
        opaque = kind.startswith(b"message/") and not kind.startswith(b"message/global")
        if sealed or opaque or coding not in _IDENTITY:
            self._body = _Plain(sealed or (FRAGMENT if opaque else ENCODED))
            return coding
        if coding == b"binary":
            self._body = _Base64()
            return b"base64"
        if coding == b"8bit" and not self._eight_bit:
            self._body = QuotedPrintable()
            return b"quoted-printable"
        self._body = _Plain(UNSAID)
        return coding

    def _begin_multipart(self, kind: bytes, boundary: bytes | None) -> None:
        if boundary is None:
            self._body = _Plain(self._sealed or MALFORMED)
        elif len(self._frames) == MAX_DEPTH:
            self._body = _Plain(self._sealed or TOO_LARGE)
        else:
            self._body = _Plain(self._sealed or BETWEEN)
            self._sealed = self._sealed or (SEALED if kind in _SEALED else "")
            digest = kind == b"multipart/digest"
            ends = {**self._frames[-1].ends} if self._frames else {}
            ends |= {b"--" + boundary: (boundary, False), b"--%b--" % boundary: (boundary, True)}
            self._frames.append(_Frame(boundary, ends, self._sealed, digest))


@frozen
class _Frame:
    """A multipart that we are in.

    `ends` has the lines that end a part of it, or of one around it: each with its boundary, and
    whether it is behind the last part.
    """

    boundary: bytes
    ends: Mapping[bytes, tuple[bytes, bool]]
    sealed: str
    digest: bool


# A line that may end a part. Boundaries come from the content: a regex made of each costs more
# than all else.
_DASHED = re.compile(rb"\r\n(--[^\r\n]{1,%d})(?:\r\n|\Z)" % (_HOLD - 6))


def _without_spaces(match: re.Match[bytes]) -> bytes:
    return match[1].rstrip(b" \t")


# --- bodies ----------------------------------------------------------------------------------


@define
class _Plain:
    """A body that stays as it is; `objection` is what there is to say if it is not ASCII."""

    objection: str
    ascii: bool = True

    def feed(self, data: bytes) -> bytes:
        self.ascii = self.ascii and data.isascii()
        return data

    def finish(self) -> bytes:
        return b""


class _Base64:
    """Encodes as RFC 2045 §6.8 has it; there is no CRLF behind its last line."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._between = b""

    def feed(self, data: bytes) -> bytes:
        self._held += data
        whole = len(self._held) // 57 * 57
        text = binascii.b2a_base64(self._held[:whole], newline=False)
        del self._held[:whole]
        return self._write(text)

    def finish(self) -> bytes:
        return self._write(binascii.b2a_base64(self._held, newline=False))

    def _write(self, text: bytes) -> bytes:
        if not text:
            return b""
        lines = b"\r\n".join(text[at : at + 76] for at in range(0, len(text), 76))
        between, self._between = self._between, b"\r\n"
        return between + lines


_Body: TypeAlias = _Plain | QuotedPrintable | _Base64


# --- both passes -----------------------------------------------------------------------------


@define
class _Shape:
    """What content looks like: the octets and lines of it."""

    octets: int = 0
    ascii: bool = True
    longest: int = 0
    _ends: LineEnds = field(factory=LineEnds, init=False)
    _line: int = field(default=0, init=False)  # octets of it so far

    def feed(self, data: bytes) -> None:
        self.octets += len(data)
        self.ascii = self.ascii and data.isascii()
        self._ends.feed(data)
        first, *others = data.split(b"\n")  # each with its CR
        self._line += len(first)
        self.longest = max(self.longest, self._line - 1 if others else self._line)
        if others:
            self.longest = max(self.longest, *(len(each) - 1 for each in others))
            self._line = len(others[-1])

    def has_lines(self, longest: int | None) -> bool:
        """Tell whether all that was fed are lines, none longer than that."""
        self._ends.finish()
        return not self._ends.bare and (longest is None or self.longest <= longest)


@frozen
class Survey:
    """What a look at content found.

    It may go `as_it_is` to who takes no binary content: it has lines, and does not call a part
    binary; `ascii` tells whether to who takes no 8-bit content, too. `utf8_header`: a header, of a
    part of it too, is beyond ASCII. `objection` is why it cannot be converted, and empty where it
    can; then it becomes so many `octets`.
    """

    as_it_is: bool
    ascii: bool
    utf8_header: bool
    objection: str
    octets: int


async def survey(
    content: AsyncIterable[bytes], *, eight_bit: bool = False, lines: bool = False
) -> Survey:
    """Look at content, and at what a Downgrade would make of it.

    With `lines`, it comes from where there need not be any (BINARYMIME), and has to have lines of
    at most 998 octets where it goes; else they are as long as they were when it came.
    """
    walk = Downgrade(eight_bit=eight_bit)
    before, after = _Shape(), _Shape()

    def look(chunk: bytes) -> None:
        before.feed(chunk)
        after.feed(walk.feed(chunk))

    async for chunk in content:
        await to_thread.run_sync(look, chunk)
    after.feed(walk.finish())
    longest = MAX_LINE if lines else None
    objection = walk.objection or ("" if after.has_lines(longest) else NO_LINES)
    as_it_is = before.has_lines(longest) and not walk.binary
    return Survey(as_it_is, before.ascii, walk.utf8_header, objection, after.octets)


async def downgraded(
    content: AsyncIterable[bytes], *, eight_bit: bool = False
) -> AsyncGenerator[bytes]:
    """Give content as a Downgrade makes it; `survey` has found no objection to that."""
    walk = Downgrade(eight_bit=eight_bit)
    async for chunk in content:
        if converted := await to_thread.run_sync(walk.feed, chunk):
            yield converted
    if converted := walk.finish():
        yield converted
