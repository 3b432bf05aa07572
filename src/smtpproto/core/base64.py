"""Base64 as AUTH has it (RFC 4954 §8): whole groups of four, and padding only where it is due."""

from __future__ import annotations

import binascii
import re

from .errors import GrammarError

__all__ = ["decode_base64", "encode_base64"]

# base64 = base64-terminal / ( 1*(4base64-char) [base64-terminal] ); and the empty one
_BASE64 = re.compile(rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")


def decode_base64(octets: bytes) -> bytes:
    """Return the octets that `octets` stand for; GrammarError 501 5.5.2 if they are no base64."""
    if _BASE64.fullmatch(octets) is None:
        raise GrammarError("malformed base64", 501, "5.5.2")
    return binascii.a2b_base64(octets)


def encode_base64(octets: bytes) -> bytes:
    """Write `octets` as base64, on one line."""
    return binascii.b2a_base64(octets, newline=False)
