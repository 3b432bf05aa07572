"""What a server refuses with by itself, and what a client need not ask it for.

What a server suggests otherwise stands with each command.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from .errors import GrammarError
from .reply import Reply
from .state import State

__all__ = [
    "ALREADY_IN",
    "ALREADY_TLS",
    "AUTH_TOO_LONG",
    "HTTP_VERBS",
    "NON_ASCII_RECIPIENT",
    "NON_ASCII_SENDER",
    "NON_ASCII_VALUE",
    "NOT_SMTP",
    "NO_BINARY",
    "NO_RECIPIENT",
    "NO_SIZE",
    "NO_UTF8_REPLIES",
    "OUT_OF_SEQUENCE",
    "TOO_LONG",
    "TOO_MANY_ERRORS",
    "TOO_MANY_RECIPIENTS",
    "UNRECOGNIZED",
    "not_offered",
    "refusal_for",
]

UNRECOGNIZED = Reply(500, "5.5.2", "command not recognized")  # as `parse_command` says it
TOO_LONG = Reply(500, "5.5.2", "Line too long")
AUTH_TOO_LONG = Reply(500, "5.5.6", "Authentication exchange line is too long")
TOO_MANY_ERRORS = Reply(421, "4.7.0", "Too many errors")
NOT_SMTP = Reply(500, "5.5.2", "This is an SMTP port")
NO_SIZE = Reply(501, "5.5.4", "Syntax: BDAT size [LAST]")
TOO_MANY_RECIPIENTS = Reply(452, "4.5.3", "Too many recipients")
NO_BINARY = Reply(503, "5.5.1", "BODY=BINARYMIME goes by BDAT")
NO_RECIPIENT = Reply(503, "5.5.1", "No valid recipient")
ALREADY_TLS = Reply(503, "5.5.1", "TLS is already on")
ALREADY_IN = Reply(503, "5.5.1", "Already authenticated")

# RFC 6531 §3.5 has a code of its own for each of the two.
NON_ASCII_SENDER = Reply(550, "5.6.7", "Address needs SMTPUTF8")
NON_ASCII_RECIPIENT = Reply(553, "5.6.7", "Address needs SMTPUTF8")
NON_ASCII_VALUE = Reply(501, "5.5.4", "malformed parameter")
NO_UTF8_REPLIES = Reply(504, "5.5.4", "SMTPUTF8 is not offered")
#: A browser or proxy has been lured here, and its next lines may be SMTP.
HTTP_VERBS = frozenset(b"GET POST HEAD PUT DELETE OPTIONS CONNECT PATCH TRACE".split())

#: To what cannot be asked for where the session is.
OUT_OF_SEQUENCE: Mapping[State, Reply] = MappingProxyType(
    {
        State.REFUSED: Reply(503, "5.5.1", "No service here; QUIT is all that is left"),
        State.GREETED: Reply(503, "5.5.1", "Send EHLO first"),
        State.READY: Reply(503, "5.5.1", "Send MAIL first"),
        State.MAIL: Reply(503, "5.5.1", "A transaction is under way"),
        State.RCPT: Reply(503, "5.5.1", "A transaction is under way"),
        State.CHUNKS: Reply(503, "5.5.1", "Only more chunks may follow, or RSET"),
        State.SPOILED: Reply(503, "5.5.1", "The transaction has failed; send RSET"),
    }
)


def refusal_for(error: GrammarError) -> Reply:
    """Return the reply that octets have earned which do not fit their rule."""
    return Reply(error.code, error.status, str(error))


# Status of a refusal to go without an extension, where its RFC has one of its own (RFC 8689 §5).
_UNMET = {"REQUIRETLS": (550, "5.7.30")}


def not_offered(extension: str) -> Reply:
    """Return what is needed and cannot be had of a server that does not offer this."""
    code, status = _UNMET.get(extension, (555, "5.5.4"))
    return Reply(code, status, f"The server does not offer {extension}")
