"""The header of a message as fields, each with its octets as they came (RFC 5322 §2.2, §3.6)."""

from __future__ import annotations

import re

from attrs import frozen

__all__ = ["MAX_LINE", "Field", "ImproperError", "is_date", "is_message_id", "split_header"]

#: Octets of a line, CRLF not counted (RFC 5322 §2.1.1, RFC 5321 §4.5.3.1.6).
MAX_LINE = 998


class ImproperError(ValueError):
    """A message is not as RFC 5322 has it; the text, in ASCII, tells its sender why."""


@frozen
class Field:
    """A field: its name in small letters, its value unfolded, and all its octets with CRLF."""

    name: str
    value: bytes
    octets: bytes


_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:(.*)\r\n", re.DOTALL)
_END_OF_FIELD = re.compile(rb"(?<=\r\n)(?![ \t])")


def split_header(header: bytes, *, utf8: bool = False) -> list[Field]:
    """Return the fields of a whole header, without the empty line behind it.

    ImproperError for what is no field, a line that is too long or is folded and empty, NUL, a CR or
    LF that stands alone (RFC 5322 §2.2), and octets beyond ASCII: with `utf8` (RFC 6532 §3) only
    where they are not UTF-8.
    """
    if header and not header.endswith(b"\r\n"):
        header += b"\r\n"  # a message that is all header, by BDAT
    fields = [_field(octets) for octets in _END_OF_FIELD.split(header) if octets]
    if not header.isascii():
        for field in fields:
            _check_utf8(field, utf8=utf8)
    return fields


def _field(octets: bytes) -> Field:
    match = _FIELD.fullmatch(octets)
    if match is None:
        raise ImproperError(f"no header field: {_shown(octets)}")
    name = match[1].decode()
    lines = octets.split(b"\r\n")[:-1]
    if any(len(line) > MAX_LINE for line in lines):
        raise ImproperError(f"{name} has a line of more than {MAX_LINE} octets")
    if any(not line.strip(b" \t") for line in lines):
        raise ImproperError(f"{name} is folded around an empty line")
    if b"\0" in octets:
        raise ImproperError(f"{name} has a NUL")
    value = match[2].replace(b"\r\n", b"")
    if b"\r" in value or b"\n" in value:  # some would read another field there
        raise ImproperError(f"{name} has a CR or LF that stands alone")
    return Field(name.lower(), value.strip(b" \t"), octets)


def _check_utf8(field: Field, *, utf8: bool) -> None:
    if field.octets.isascii():
        return
    if not utf8:
        raise ImproperError(f"{field.name} goes beyond ASCII, which takes SMTPUTF8 (RFC 6531)")
    try:
        field.octets.decode()
    except UnicodeDecodeError:
        raise ImproperError(f"{field.name} is not UTF-8") from None


def _shown(octets: bytes) -> str:
    return ascii(octets[:40].decode("ascii", "backslashreplace").rstrip("\r\n"))


_ZONE = rb"(?:[+-]\d{2}[0-5]\d|UTC?|GMT|[ECMP][SD]T|[A-IK-Z])"
# RFC 5322 §3.3, and what §4.3 adds: two digits of a year, names of zones. CFWS is read as spaces
# between, and as comments behind.
_DATE = re.compile(
    rb"(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)\s*,\s*)?(?:0?[1-9]|[12]\d|3[01])\s+"
    rb"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)\s+(?:\d{2,3}|[1-9]\d{3})\s+"
    rb"(?:[01]\d|2[0-3])\s*:\s*[0-5]\d(?:\s*:\s*(?:[0-5]\d|60))?\s+%b(?:\s*\([^()\\]*\))*" % _ZONE,
    re.IGNORECASE,
)
_ATOM = rb"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~\x80-\xFF]+"
_DOT_ATOM = rb"%b(?:\.%b)*" % (_ATOM, _ATOM)
_MESSAGE_ID = re.compile(
    rb'<(?:%b|"(?:[^"\\]|\\.)*")@(?:%b|\[[^][\\]*\])>' % (_DOT_ATOM, _DOT_ATOM)
)


def is_date(value: bytes) -> bool:
    """Tell whether this is a date-time (RFC 5322 §3.3, §4.3), by its form."""
    return _DATE.fullmatch(value) is not None


def is_message_id(value: bytes) -> bool:
    """Tell whether this is one msg-id (RFC 5322 §3.6.4, §4.5.4)."""
    return _MESSAGE_ID.fullmatch(value) is not None
