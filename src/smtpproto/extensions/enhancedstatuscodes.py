"""ENHANCEDSTATUSCODES (RFC 2034): replies carry a status of RFC 3463 in front of their text."""

from __future__ import annotations

from smtpproto.core.extension import Extension

__all__ = ["ENHANCEDSTATUSCODES"]

ENHANCEDSTATUSCODES = Extension("ENHANCEDSTATUSCODES", rfc=2034)
