"""BINARYMIME (RFC 3030 §3): content of any octets, declared as BODY=BINARYMIME, sent by BDAT.

The parameter BODY is of 8BITMIME, which judges its values by what is offered.
"""

from __future__ import annotations

from smtpproto.core.extension import Extension

__all__ = ["BINARYMIME"]

BINARYMIME = Extension(
    "BINARYMIME",
    rfc=3030,
    needs=("CHUNKING", "8BITMIME"),
    obliges="keep every bit, and pass it on to servers that offer this, encode it, or report",
)
