"""What the header of a MIME entity says of the body behind it (RFC 2045 §5, §6)."""

from __future__ import annotations

import re

from attrs import frozen

__all__ = ["FIELD", "MAX_BOUNDARY", "Said"]

#: Octets of a boundary; RFC 2046 §5.1.1 has 70.
MAX_BOUNDARY = 200

#: How a line begins that is a field's first.
FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:")
_FIELDS = re.compile(rb"^([!-9;-~]+)[ \t]*:((?:[^\r]|\r(?!\n[^ \t]|\n\Z))*)\r\n", re.MULTILINE)
_TOKEN = rb"[!#$%&'*+.^_`{|}~0-9A-Za-z-]+"
_KIND = re.compile(rb"\s*(%b)\s*/\s*(%b)\s*(;.*)?" % (_TOKEN, _TOKEN), re.DOTALL)
_QUOTED = rb'"(?:[^"\\]|\\.)*"'
# With its semicolon. No two runs of spaces meet in it: there would be too many ways to part them.
_PARAMETER = re.compile(rb'\s*(?:([^=;"\s]+)\s*=([^;"]*|\s*%b\s*))?(?:;|\Z)' % _QUOTED, re.DOTALL)
_BOUNDARY = re.compile(rb"[ -~]{1,%d}" % MAX_BOUNDARY)
_PIECE = re.compile(rb"%b|[()]|\\.|[^\"()\\]+" % _QUOTED, re.DOTALL)


@frozen
class Said:
    """What a header says of the body behind it; `unclear` where it says it twice, or badly.

    The field of the encoding stands between `start` and `end`, if there is one.
    """

    names: frozenset[bytes]
    kind: bytes
    boundary: bytes | None
    coding: bytes
    start: int
    end: int
    unclear: bool

    @classmethod
    def of(cls, header: bytes, kind: bytes) -> Said:
        """Read it off a header; `kind` is the type of a body that is given none."""
        names: set[bytes] = set()
        boundary: bytes | None = None
        coding = b"7bit"
        start = end = len(header)
        unclear = False
        for match in _FIELDS.finditer(header):
            name, value = match[1].lower(), _without_comments(match[2])
            if name not in (b"content-type", b"content-transfer-encoding", b"mime-version"):
                continue
            unclear |= name in names
            names.add(name)
            if name == b"content-type":
                kind, boundary = _kind_of(value)
                unclear |= not kind
            elif name == b"content-transfer-encoding":
                start, end = match.span()
                coding = value.strip().lower()
                unclear |= re.fullmatch(_TOKEN, coding) is None
        return cls(frozenset(names), kind, boundary, coding, start, end, unclear)


def _kind_of(value: bytes) -> tuple[bytes, bytes | None]:
    """Read a Content-Type: the type, empty if it cannot be read, and its boundary."""
    match = _KIND.fullmatch(value)
    if match is None:
        return b"", None
    rest, at = match[3] or b"", 1
    boundary: bytes | None = None
    while at < len(rest):
        parameter = _PARAMETER.match(rest, at)
        if parameter is None or parameter.end() == at:
            return b"", None
        at = parameter.end()
        name = (parameter[1] or b"").lower()
        if name.partition(b"*")[0] == b"boundary":
            if name != b"boundary" or boundary is not None:
                return b"", None
            said: bytes = parameter[2].strip()
            if said.startswith(b'"'):
                said = re.sub(rb"\\(.)", rb"\1", said[1:-1], flags=re.DOTALL)
            boundary = said.rstrip()
    if boundary is not None and _BOUNDARY.fullmatch(boundary) is None:
        boundary = None
    return b"%b/%b" % (match[1].lower(), match[2].lower()), boundary


def _without_comments(value: bytes) -> bytes:
    """Take the comments out of a structured field, and its folds."""
    value = value.replace(b"\r\n", b"")
    if b"(" not in value:
        return value
    kept: list[bytes] = []
    depth = 0
    for piece in _PIECE.findall(value):
        if piece == b"(":
            depth += 1
        elif piece == b")":
            depth = max(depth - 1, 0)
        elif not depth:
            kept.append(piece)
    return b"".join(kept)
