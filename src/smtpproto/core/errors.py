"""What can go wrong, and whose fault it is.

::

    ProtocolError
    ├── LocalProtocolError    you asked for something illegal; nothing was sent
    └── RemoteProtocolError   the peer broke the framing; close after sending ``reply``

    GrammarError (a ValueError)   octets that do not fit an ABNF rule

A malformed, unknown or misplaced *command* is none of these: it is ordinary life, and a server
pulls it as `BadCommand`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for the annotation only: this file is the bottom of the house
    from .reply import Reply

__all__ = ["GrammarError", "LocalProtocolError", "ProtocolError", "RemoteProtocolError"]


class ProtocolError(Exception):
    """Root of the two protocol errors."""


class LocalProtocolError(ProtocolError):
    """You asked for something the protocol forbids here. Nothing was sent; state is unchanged."""


class RemoteProtocolError(ProtocolError):
    """The peer's octets can no longer be followed. The connection is of no more use.

    `reply` is what a server should send before it closes; None on the client's side.
    """

    def __init__(self, message: str, reply: Reply | None = None) -> None:
        super().__init__(message)
        self.reply = reply


class GrammarError(ValueError):
    """Octets that do not fit their rule, with the reply code and status they have earned.

    `code` is a reply code (RFC 5321 §4.2.2), `status` an enhanced status (RFC 3463) as text.
    """

    def __init__(self, message: str, code: int = 501, status: str = "5.5.4") -> None:
        super().__init__(message)
        self.code = code
        self.status = status
