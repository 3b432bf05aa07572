"""EXPN (RFC 5321 §4.1.1.7), which a server that answers it has to announce (§3.5.2, §4.1.1.1)."""

from __future__ import annotations

from smtpproto.core.command import Expn
from smtpproto.core.extension import Extension

__all__ = ["EXPN"]

EXPN = Extension(
    "EXPN", rfc=5321, verbs=(Expn,), obliges="tell who is on a list, to those who may know"
)
