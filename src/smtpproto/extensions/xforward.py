"""XFORWARD: a filter says whom it had the mail from, for the log. Postfix's, in no RFC.

Source: Postfix's XFORWARD_README.
"""

from __future__ import annotations

import re

from attrs import frozen

from smtpproto.core.command import Command
from smtpproto.core.value import taken

from .attributes import AttributeCommand, Attributes, attribute_extension, is_port

__all__ = ["XFORWARD", "XForward"]

# Nothing that is special in a message's header, for values end up in Received fields.
_PLAIN = re.compile(rb"""[!#-'*-:=?A-\[\]-~]+""")


def _is_plain(value: bytes) -> bool:
    return _PLAIN.fullmatch(value) is not None


@frozen
class XForward(AttributeCommand):
    """XFORWARD: what is known of the client that the next transaction came from.

    Attributes add up from command to command, and are forgotten when the transaction ends, by its
    content, RSET or EHLO: `ServerConnection.preamble(XForward)` has what they come to. From the
    first on, one that was not given is UNAVAILABLE, whatever the session itself would say; ADDR
    UNAVAILABLE says that the message was submitted locally. SOURCE is LOCAL or REMOTE. Not allowed
    within a transaction.
    """

    verb = b"XFORWARD"
    pipelined = True
    preamble = True
    rules = {  # noqa: RUF012 (a ClassVar, declared in the base)
        "NAME": _is_plain,
        "ADDR": _is_plain,
        "PORT": is_port,
        "PROTO": lambda value: len(value) <= 64 and _is_plain(value),
        "HELO": _is_plain,
        "IDENT": _is_plain,
        "SOURCE": lambda value: value.upper() in (b"LOCAL", b"REMOTE"),
    }

    def added_to(self, earlier: Command) -> XForward:
        if not isinstance(earlier, XForward):
            return self
        return taken(XForward, attributes=Attributes({**earlier.attributes, **self.attributes}))


XFORWARD = attribute_extension(XForward, obliges="believe none but listed peers")
