"""XCLIENT: a trusted peer says whom the server is to take it for. Postfix's, in no RFC.

Source: Postfix's XCLIENT_README.
"""

from __future__ import annotations

from attrs import frozen

from smtpproto.core.grammar import is_address_literal

from .attributes import AttributeCommand, attribute_extension, is_port, is_word

__all__ = ["XCLIENT", "XClient"]


def _is_address(value: bytes) -> bool:
    # IPv4 as it is, IPv6 behind "IPV6:"; other tagged literals are not for here.
    return is_address_literal(value) and (b":" not in value or value[:5].upper() == b"IPV6:")


@frozen
class XClient(AttributeCommand):
    """XCLIENT: take me for another client from here on.

    Accepted with 220, the greeting of a session that begins anew. Not allowed within a
    transaction. NAME is a host name, ADDR an IPv4 address or `IPV6:` and an IPv6 one, DESTADDR
    and DESTPORT are where the client went.
    """

    verb = b"XCLIENT"
    starts_over = True
    rules = {  # noqa: RUF012 (a ClassVar, declared in the base)
        "NAME": is_word,
        "ADDR": _is_address,
        "PORT": is_port,
        "PROTO": lambda value: value.upper() in (b"SMTP", b"ESMTP"),
        "HELO": is_word,
        "LOGIN": is_word,
        "DESTADDR": _is_address,
        "DESTPORT": is_port,
    }


XCLIENT = attribute_extension(XClient, obliges="obey none but listed peers")
