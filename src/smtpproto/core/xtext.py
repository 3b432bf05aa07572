"""xtext (RFC 3461 §4): any octets, written with those that an ESMTP value may hold."""

from __future__ import annotations

import re

from .errors import GrammarError

__all__ = ["decode_xtext", "encode_xtext"]

# xtext = *( xchar / hexchar ) ; xchar: %d33 to %d126 without "+" and "="
# hexchar = "+" and two upper case hexadecimal digits
_XTEXT = re.compile(rb"(?:[\x21-\x2a\x2c-\x3c\x3e-\x7e]|\+[0-9A-F]{2})*")
_HEXCHAR = re.compile(rb"\+([0-9A-F]{2})")
_NOT_XCHAR = re.compile(rb"[^\x21-\x2a\x2c-\x3c\x3e-\x7e]")


def decode_xtext(octets: bytes) -> bytes:
    """Return the octets that `octets` stand for; GrammarError 501 5.5.4 if they are no xtext."""
    if _XTEXT.fullmatch(octets) is None:
        raise GrammarError("not xtext (RFC 3461 section 4)")
    return _HEXCHAR.sub(lambda match: bytes((int(match[1], 16),)), octets)


def encode_xtext(octets: bytes) -> bytes:
    """Write `octets` as xtext, each octet as itself where it can be."""
    return _NOT_XCHAR.sub(lambda match: b"+%02X" % match[0][0], octets)
