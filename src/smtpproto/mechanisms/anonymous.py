"""ANONYMOUS (RFC 4505): a guest, who may leave a trace."""

from __future__ import annotations

from smtpproto.core.errors import GrammarError, LocalProtocolError
from smtpproto.core.sasl import (
    MALFORMED,
    AuthenticationError,
    ClientSteps,
    Credentials,
    Mechanism,
    ServerContext,
    ServerSteps,
    VerifyAnonymous,
)

from .saslprep import check_trace
from .text import initial_message, own_octets, text_of

__all__ = ["ANONYMOUS"]

MAX_TRACE = 255  # characters (RFC 4505 §2); no mail address is longer


def _server(initial: bytes | None, context: ServerContext) -> ServerSteps:
    message = yield from initial_message(initial)
    trace = text_of(message)
    try:
        _check(trace)
    except GrammarError:
        raise AuthenticationError(MALFORMED) from None
    identity = yield VerifyAnonymous(trace)
    if not isinstance(identity, str) or not identity:
        raise AuthenticationError
    return identity


def _client(credentials: Credentials) -> ClientSteps:
    trace = credentials.trace or ""
    try:
        _check(trace)
    except GrammarError as error:
        raise LocalProtocolError(str(error)) from None
    yield own_octets(trace)


def _check(trace: str) -> None:
    if len(trace) > MAX_TRACE:
        raise GrammarError("a trace of more than 255 characters (RFC 4505 §2)")
    check_trace(trace)


def _serves(credentials: Credentials) -> bool:
    return credentials.trace is not None


ANONYMOUS = Mechanism(
    "ANONYMOUS",
    plaintext=False,
    server=_server,
    client=_client,
    asks=VerifyAnonymous,
    serves=_serves,
)
