"""CHUNKING (RFC 3030 §2): content in counted chunks, without transparency.

Its moves stand in `core/state.py`, its counting in the connections.
"""

from __future__ import annotations

from smtpproto.core.command import Bdat
from smtpproto.core.extension import Extension

__all__ = ["CHUNKING"]

CHUNKING = Extension("CHUNKING", rfc=3030, verbs=(Bdat,))
