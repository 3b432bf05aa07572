"""HELP (RFC 5321 §4.1.1.8), which a server that answers it has to announce (§4.1.1.1)."""

from __future__ import annotations

from smtpproto.core.command import Help
from smtpproto.core.extension import Extension

__all__ = ["HELP"]

HELP = Extension("HELP", rfc=5321, verbs=(Help,))
