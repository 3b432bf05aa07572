"""AUTH (RFC 4954): log in. Its moves stand in `core/state.py`, its mechanisms in `core/sasl.py`."""

from __future__ import annotations

from smtpproto.core.command import Auth
from smtpproto.core.extension import Extension, Standing

__all__ = ["AUTH"]


def _announce(standing: Standing) -> str | None:
    # Never announced unless it would work.
    return " ".join(standing.mechanisms) or None


AUTH = Extension("AUTH", rfc=4954, verbs=(Auth,), announce=_announce)
