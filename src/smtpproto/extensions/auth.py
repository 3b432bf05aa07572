"""AUTH (RFC 4954): log in, and say who submitted a message.

The moves stand in `core/state.py`, the mechanisms in `core/sasl.py`.
"""

from __future__ import annotations

import re

from attrs import frozen

from smtpproto.core.command import Auth
from smtpproto.core.errors import GrammarError
from smtpproto.core.extension import Extension, Standing
from smtpproto.core.parameter import Parameter
from smtpproto.core.path import Mailbox
from smtpproto.core.xtext import decode_xtext, encode_xtext

__all__ = ["AUTH", "SUBMITTER", "Submitter"]


_HEXCHAR = re.compile(rb"\+[0-9A-Fa-f]{2}")


@frozen
class Submitter:
    """Who submitted a message first, as far as the sender vouches for it (§5).

    `mailbox` is None where that is not known or not to be told: `AUTH=<>`. So behave as well
    when the client's own identity is not trusted to say.
    """

    mailbox: Mailbox | None


def _read(value: bytes | None) -> Submitter:
    # The hexchar of RFC 4954 §8 is read in any case, other than that of RFC 3461.
    decoded = decode_xtext(_HEXCHAR.sub(lambda hexchar: hexchar[0].upper(), value or b""))
    if decoded == b"<>":
        return Submitter(None)
    try:
        if decoded.isascii():  # RFC 6531 does not widen this one
            return Submitter(Mailbox.parse(decoded))
    except GrammarError:
        pass
    raise GrammarError("AUTH takes a mailbox in xtext, or <>")


def _write(submitter: Submitter) -> bytes:
    return encode_xtext(submitter.mailbox.serialize()) if submitter.mailbox else b"<>"


#: The parameter of MAIL. To be taken from any client, and believed of trusted ones (§5).
SUBMITTER: Parameter[Submitter] = Parameter("AUTH", _read, _write, octets=500)


def _announce(standing: Standing) -> str | None:
    # Never announced unless it would work.
    return " ".join(standing.mechanisms) or None


AUTH = Extension("AUTH", rfc=4954, mail=(SUBMITTER,), verbs=(Auth,), announce=_announce)
