"""What a server may answer to what, beyond the first digit by which the session moves."""

from __future__ import annotations

from collections.abc import Mapping

from .base64 import decode_base64
from .command import Auth, AuthResponse, Data, Quit, StartTls
from .errors import GrammarError
from .reply import Reply
from .state import Asked, Greeting

__all__ = ["misleads"]

_LOGIN = (235, 334)

#: What is accepted by no other code than these (RFC 5321 §4.3.2, RFC 3207 §4, RFC 4954 §4): clients
#: wait for the very number, for something happens then.
_OWN_CODES: Mapping[Asked, tuple[int, ...]] = {
    Greeting: (220,),
    StartTls: (220,),
    Auth: _LOGIN,
    AuthResponse: _LOGIN,
    Data: (354,),
    Quit: (221,),
}


def misleads(asked: Asked, reply: Reply) -> bool:
    """Tell whether a client would take a `reply` that accepts what was asked for what it is not.

    It is not the code of its own that the command has; 221, of which the close follows, to anything
    but QUIT (§4.2.2); or a challenge that is not one line of base64 (RFC 4954 §4).
    """
    own = _OWN_CODES.get(asked)
    if own is None:
        return reply.code == 221
    return reply.code not in own or (reply.code == 334 and not _is_challenge(reply))


def _is_challenge(reply: Reply) -> bool:
    first, *others = reply.lines
    if others or reply.status is not None:
        return False
    try:
        decode_base64(first)
    except GrammarError:
        return False
    return True
