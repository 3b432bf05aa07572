"""REQUIRETLS (RFC 8689): better not delivered than sent on in clear."""

from __future__ import annotations

from smtpproto.core.extension import Extension, Standing

from .values import flag

__all__ = ["REQUIRETLS", "REQUIRE_TLS"]

REQUIRE_TLS = flag("REQUIRETLS", octets=11)


def _announce(standing: Standing) -> str | None:
    # §2: only within a session that has TLS already.
    return "" if standing.tls else None


REQUIRETLS = Extension(
    "REQUIRETLS",
    rfc=8689,
    mail=(REQUIRE_TLS,),
    obliges="pass it on over verified TLS and to servers that offer this, or report failure",
    announce=_announce,
)
