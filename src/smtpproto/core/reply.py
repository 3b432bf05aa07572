"""Replies (RFC 5321 §4.2): a code, perhaps an enhanced status, and lines of text."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from functools import lru_cache

from attrs import evolve, field, frozen

from .errors import GrammarError, LocalProtocolError
from .grammar import PRINTABLE, REPLY_LINE
from .path import as_octets
from .status import EnhancedStatus
from .value import taken

__all__ = ["Reply", "ReplyReader", "Severity"]

MAX_REPLY_LINE = 512  # octets, with code and CRLF (§4.5.3.1.5)

_STATUS_AND_TEXT = re.compile(
    rb"([245]\.(?:0|[1-9][0-9]{0,2})\.(?:0|[1-9][0-9]{0,2}))(?: (.*))?", re.DOTALL
)


_UNPRINTABLE = re.compile(rb"[^\t\x20-\x7e]")

# The same few stand in all replies.
_read_status = lru_cache(maxsize=256)(EnhancedStatus.parse)


class Severity(enum.IntEnum):
    """The first digit of a reply code (§4.2.1): all that a client has to go by."""

    __hash__ = int.__hash__  # Enum's is Python, and every reply is looked up in the table

    COMPLETION = 2
    INTERMEDIATE = 3
    TRANSIENT = 4
    PERMANENT = 5


_GENERAL = {
    Severity.COMPLETION: 250,
    Severity.INTERMEDIATE: 354,
    Severity.TRANSIENT: 450,
    Severity.PERMANENT: 550,
}
_SEVERITIES = {int(severity): severity for severity in Severity}


def _is_code(value: int) -> bool:
    # Reply-code = %x32-35 %x30-35 %x30-39
    return 200 <= value <= 559 and value // 10 % 10 <= 5


def _code(value: int) -> int:
    if not _is_code(value):
        raise LocalProtocolError(f"not a reply code (RFC 5321 §4.2): {value}")
    return value


def _status(value: EnhancedStatus | str | None) -> EnhancedStatus | None:
    try:
        return value if value is None or isinstance(value, EnhancedStatus) else _read_status(value)
    except GrammarError as error:
        raise LocalProtocolError(f"{error} (text comes third: Reply(code, None, text))") from None


def _lines(value: str | bytes | Iterable[str | bytes]) -> tuple[bytes, ...]:
    lines = [value] if isinstance(value, (str, bytes)) else value
    return tuple(as_octets(line) for line in lines) or (b"",)


@frozen
class Reply:
    """One reply, of one or more lines.

    `code` is 200 to 559, `status` an EnhancedStatus or its text ("2.1.0"), `lines` text or
    octets without code, status and line end: one, or an iterable of them. A status that all
    lines spell out in front of their text is lifted into `status`, so that what is written and
    read back is equal. The text may hold UTF-8, which only passes where the client asked for it
    (RFC 6531 §3.7.4). LocalProtocolError where the result would be no reply: control octets, lines
    over 512 octets, a status that contradicts the code (RFC 2034 §4).
    """

    code: int = field(converter=_code)
    status: EnhancedStatus | None = field(converter=_status, default=None)
    lines: tuple[bytes, ...] = field(converter=_lines, default=())
    #: The first digit of the code.
    severity: Severity = field(init=False, eq=False, repr=False)
    # Written once: a server says the same few replies over and over.
    _wire: bytes = field(default=b"", init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "severity", _SEVERITIES[self.code // 100])
        if self.status is None:
            status, lines = _lift(self.code, self.lines)
            object.__setattr__(self, "status", status)
            object.__setattr__(self, "lines", lines)
        elif self.status.class_ != self.code // 100:
            raise LocalProtocolError(f"status {self.status} contradicts reply code {self.code}")
        for line in self.lines:
            if PRINTABLE.fullmatch(line) is None:
                raise LocalProtocolError(f"octets no reply can hold: {line!r}")
        wire = self._wire_lines(with_status=True)
        if max(map(len, wire)) > MAX_REPLY_LINE:
            raise LocalProtocolError("a reply line has at most 512 octets (RFC 5321 §4.5.3.1.5)")
        object.__setattr__(self, "_wire", b"".join(wire))

    @classmethod
    def parse(cls, octets: bytes) -> Reply:
        """Read exactly one whole reply from its octets; GrammarError if they are not that."""
        reader = ReplyReader(max_octets=len(octets))
        lines = octets.split(b"\r\n")
        if lines.pop() != b"":
            raise GrammarError("a reply ends with CRLF")
        replies = [reader.feed(line) for line in lines]
        reply = replies.pop() if replies else None
        if reply is None or any(replies):
            raise GrammarError("not exactly one reply")
        return reply

    @property
    def text(self) -> str:
        """The lines as text, joined by newlines; control and non-UTF-8 octets shown escaped."""
        text = "\n".join(line.decode("utf-8", "backslashreplace") for line in self.lines)
        if text.isprintable():  # as mostly
            return text
        return "".join(c if c == "\n" or c.isprintable() else f"\\x{ord(c):02x}" for c in text)

    def is_writable(self, *, utf8: bool = False) -> bool:
        """Tell whether a server may say it: one that was read off the wire may hold anything.

        Its code is one that a caller could give; its text is printable ASCII, with `utf8` UTF-8 too
        (RFC 5321 §4.2, RFC 6531 §3.7.4), in lines of 512 octets at most (§4.5.3.1.5) but for a
        challenge of AUTH (RFC 4954 §4).
        """
        if self._wire:  # looked at when it was made
            return utf8 or self._wire.isascii()
        wire = self._wire_lines(with_status=True)
        return _is_code(self.code) and all(
            (len(line) <= MAX_REPLY_LINE or self.code == 334)
            and (utf8 or line.isascii())
            and PRINTABLE.fullmatch(line, 0, len(line) - 2) is not None
            for line in wire
        )

    def writable(self) -> Reply:
        """Return it as a server may say it, such as a next hop's that is passed on.

        Itself where that `is_writable`. Else a code that the grammar does not know becomes the
        general one of its class, 571 thus 550 (RFC 5321 §4.2.1); the status stays; octets that no
        reply may hold become `?`, and lines are cut.
        """
        if self.is_writable():
            return self
        code = self.code if _is_code(self.code) else _GENERAL[self.severity]
        lines = [_UNPRINTABLE.sub(b"?", line)[: self._room] for line in self.lines]
        return Reply(code, self.status, lines)

    def named(self, hostname: str) -> Reply:
        """Return it with a server's name before its text, as 221 and 421 have it (§4.2.2).

        Itself where it stands there already. The first line is cut to what a line holds.
        """
        (first, *others), name = self.lines, hostname.encode()
        if first.partition(b" ")[0].lower() == name.lower():
            return self
        return evolve(self, lines=[(b"%b %b" % (name, first)).rstrip()[: self._room], *others])

    def with_general_status(self) -> Reply:
        """Return it with a status that says no more than its class does: 2.0.0, 4.0.0, 5.0.0.

        Itself where it has a status, is a 3yz, or has a line that is too long for one more word.
        """
        if self.status or self.severity is Severity.INTERMEDIATE or max(map(len, self.lines)) > 500:
            return self
        return evolve(self, status=EnhancedStatus(self.code // 100, 0, 0))

    def serialize(self, *, with_status: bool = True) -> bytes:
        """Write it, the status in every line (RFC 2034 §4), with CRLF after each."""
        if self._wire and (with_status or self.status is None):
            return self._wire
        return b"".join(self._wire_lines(with_status=with_status))

    def _wire_lines(self, *, with_status: bool) -> list[bytes]:
        status = f"{self.status} ".encode() if self.status and with_status else b""
        *others, last = self.lines
        wire = [b"%d-%b%b\r\n" % (self.code, status, line) for line in others]
        wire.append(b"%d %b%b\r\n" % (self.code, status, last))
        return wire

    @property
    def _room(self) -> int:
        """How many octets of text a line holds, beside a status."""
        return MAX_REPLY_LINE - len("250 \r\n") - len(f"{self.status or '0.0.0'} ")

    def __str__(self) -> str:
        status = f"{self.status} " if self.status else ""
        return f"{self.code} {status}{self.text}"


def _lift(code: int, lines: tuple[bytes, ...]) -> tuple[EnhancedStatus | None, tuple[bytes, ...]]:
    """Lift out a status that every line begins with and that fits the code (RFC 2034 §4)."""
    found: set[bytes] = set()
    texts: list[bytes] = []
    for line in lines:
        match = _STATUS_AND_TEXT.fullmatch(line)
        if match is None:
            return None, lines
        found.add(match[1])
        texts.append(match[2] or b"")
    if len(found) != 1:
        return None, lines
    status = _read_status(found.pop().decode())
    if status.class_ != code // 100:
        return None, lines
    return status, tuple(texts)


_SHORT = 128  # octets of a line that is worth remembering


@lru_cache(maxsize=256)
def _of_one_line(line: bytes) -> Reply | None:
    """Return the reply that this line is; None where it is none, or not all of it.

    Remembered, for a server says the same few replies over and over.
    """
    match = REPLY_LINE.fullmatch(line)
    if match is None or match[2] == b"-" or b"\r" in line or b"\n" in line:
        return None
    return _read(int(match[1]), (match[3] or b"",))


def _read(code: int, lines: tuple[bytes, ...]) -> Reply:
    """Make a reply of what stood behind the code in its lines."""
    status, lines = _lift(code, lines)
    severity = _SEVERITIES[code // 100]
    return taken(Reply, code=code, status=status, lines=lines, severity=severity, _wire=b"")


class ReplyReader:
    """Gathers the lines of one reply after the other, within `max_octets` for each reply."""

    __slots__ = ("_code", "_lines", "_max_octets", "_octets", "inside")

    def __init__(self, max_octets: int) -> None:
        self._max_octets = max_octets
        self._code = b""
        self._lines: list[bytes] = []
        self._octets = 0
        #: A reply has begun and not ended.
        self.inside = False

    def feed(self, line: bytes) -> Reply | None:
        """Take one line without its CRLF; return the reply that it ends, else None.

        GrammarError: no reply line, a code that changes between lines (§4.2.1), a bare CR or
        LF, or more octets than agreed.
        """
        if not self.inside and len(line) <= _SHORT and len(line) + 2 <= self._max_octets:
            whole = _of_one_line(line)
            if whole is not None:
                return whole
        match = REPLY_LINE.fullmatch(line)
        if match is None or b"\r" in line or b"\n" in line:
            raise GrammarError(f"not a reply line: {line[:80]!r}")
        code, more, text = match.groups()
        if self.inside and code != self._code:
            raise GrammarError(f"the code of a reply changed from {self._code!r} to {code!r}")
        self._octets += len(line) + 2
        if self._octets > self._max_octets:
            raise GrammarError(f"a reply of more than {self._max_octets} octets")
        self._code = code
        self._lines.append(text or b"")
        self.inside = more == b"-"
        if self.inside:
            return None
        lines = tuple(self._lines)
        self._lines.clear()
        self._octets = 0
        return _read(int(code), lines)
