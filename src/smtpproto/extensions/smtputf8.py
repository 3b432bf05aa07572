"""SMTPUTF8 (RFC 6531): addresses and header fields beyond ASCII.

Where UTF-8 may stand on the wire, the connections know: it hangs on what was asked for (§3.7.4).
"""

from __future__ import annotations

from smtpproto.core.extension import Extension

from .values import flag

__all__ = ["SMTPUTF8", "UTF8"]

#: The parameter of MAIL. That of VRFY and EXPN is their `smtputf8`.
UTF8 = flag("SMTPUTF8", octets=10)

SMTPUTF8 = Extension(
    "SMTPUTF8",
    rfc=6531,
    mail=(UTF8,),
    needs=("8BITMIME",),
    obliges="pass such messages on to servers that offer this, or report failure",
)
