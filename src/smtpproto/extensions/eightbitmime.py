"""8BITMIME (RFC 6152): content with octets over 127, declared as BODY=8BITMIME."""

from __future__ import annotations

from smtpproto.core.errors import GrammarError
from smtpproto.core.extension import Extension
from smtpproto.core.parameter import Parameter

__all__ = ["BODY", "EIGHTBITMIME"]

# body-value ::= "7BIT" / "8BITMIME" (RFC 6152 §2)
_VALUES = ("7BIT", "8BITMIME")


def _read(value: bytes | None) -> str:
    body = (value or b"").decode("ascii", "replace").upper()
    if body not in _VALUES:
        raise GrammarError("BODY takes 7BIT or 8BITMIME")
    return body


BODY: Parameter[str] = Parameter("BODY", _read, str.encode, octets=17)

EIGHTBITMIME = Extension("8BITMIME", rfc=6152, mail=(BODY,))
