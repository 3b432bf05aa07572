"""STARTTLS (RFC 3207): go over to TLS. Its moves stand in `core/state.py`."""

from __future__ import annotations

from smtpproto.core.command import StartTls
from smtpproto.core.extension import Extension, Standing

__all__ = ["STARTTLS"]


def _announce(standing: Standing) -> str | None:
    # RFC 3207 §4.2: not announced once TLS is on.
    return "" if standing.tls_available and not standing.tls else None


STARTTLS = Extension("STARTTLS", rfc=3207, verbs=(StartTls,), announce=_announce)
