"""How a client's session is secured: the choices, and by which certificates."""

from __future__ import annotations

import enum
import ssl
from pathlib import Path

import idna

from .wire.tls import refuse_old_versions

__all__ = ["Tls", "a_labels", "verifying"]


class Tls(enum.Enum):
    """How a session is secured."""

    #: STARTTLS, verified, or nothing is sent.
    REQUIRED = "required"
    #: STARTTLS where it is offered, unverified: against those who only listen (RFC 7435).
    OPPORTUNISTIC = "opportunistic"
    #: TLS from the first octet, verified (RFC 8314 §3.3).
    IMPLICIT = "implicit"
    #: In clear.
    NONE = "none"

    @classmethod
    def _missing_(cls, value: object) -> Tls:
        raise ValueError(f"tls is one of {', '.join(each.value for each in cls)}, not {value!r}")


def verifying(cafile: str | Path | None = None) -> ssl.SSLContext:
    """Return a context that verifies the server and its name as RFC 9525 has it.

    By the certificates that the system trusts, or those of the PEM file `cafile`. Beyond
    Python's own default, TLS is 1.2 or later wherever it runs, and a common name never stands in
    for a missing subjectAltName (§6.3). Blocks; OSError and ssl.SSLError as the file has it.
    """
    context = ssl.create_default_context(cafile=cafile)
    refuse_old_versions(context)
    if ssl.HAS_NEVER_CHECK_COMMON_NAME:
        context.hostname_checks_common_name = False
    return context


def a_labels(host: str) -> str:
    """Write a name as certificates do, by the IDNA that it is looked up by (RFC 9525 §6.3)."""
    return host if host.isascii() else idna.encode(host, uts46=True).decode()
