"""PIPELINING (RFC 2920): commands may follow before their replies are there.

Which ones is a trait of the command; that replies are matched in order, the connections' work.
"""

from __future__ import annotations

from smtpproto.core.extension import Extension

__all__ = ["PIPELINING"]

PIPELINING = Extension("PIPELINING", rfc=2920)
