"""BINARYMIME (RFC 3030 §3): content of any octets, declared as BODY=BINARYMIME, sent by BDAT.

It adds a value to the parameter BODY of 8BITMIME, and may be offered without that (§4.2).
"""

from __future__ import annotations

from smtpproto.core.extension import Extension

from .eightbitmime import BODY, judge_body

__all__ = ["BINARYMIME"]

BINARYMIME = Extension(
    "BINARYMIME",
    rfc=3030,
    mail=(BODY,),
    needs=("CHUNKING",),
    obliges="keep every bit, and pass it on to servers that offer this, encode it, or report",
    judge=judge_body,
)
