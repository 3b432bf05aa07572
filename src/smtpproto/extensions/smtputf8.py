"""SMTPUTF8 (RFC 6531): addresses and header fields beyond ASCII."""

from __future__ import annotations

from smtpproto.core.command import Expn, Vrfy
from smtpproto.core.extension import Extension

from .values import flag

__all__ = ["SMTPUTF8", "UTF8", "utf8_query"]

UTF8 = flag("SMTPUTF8", octets=10)


def utf8_query(query: Vrfy | Expn) -> tuple[bytes, bool]:
    """Take apart `VRFY text [SMTPUTF8]`, and EXPN likewise (§3.7.4.2).

    Returns what was asked for, and whether the reply to it may hold UTF-8. Without SMTPUTF8 a
    reply that would need it is 252 or 550, with status x.6.8. To ask so as a client, write
    the word behind the text: `Vrfy("Jo SMTPUTF8")`.
    """
    text, _, word = query.text.rpartition(b" ")
    if text and word.upper() == b"SMTPUTF8":
        return text.rstrip(b" "), True
    return query.text, False


SMTPUTF8 = Extension(
    "SMTPUTF8",
    rfc=6531,
    mail=(UTF8,),
    needs=("8BITMIME",),
    obliges="pass such messages on to servers that offer this, or report failure",
)
