"""OAUTHBEARER (RFC 7628) and its elder, XOAUTH2: a bearer token instead of a password.

A refusal comes as a challenge, in JSON, with what would do instead; the client answers it with
next to nothing, and then the login fails.
"""

from __future__ import annotations

import json
import re
from typing import cast

from smtpproto.core.errors import LocalProtocolError
from smtpproto.core.sasl import (
    MALFORMED,
    AuthenticationError,
    Challenge,
    ClientSteps,
    Credentials,
    ExchangeError,
    Mechanism,
    ServerContext,
    ServerSteps,
    TokenRefusal,
    VerifyToken,
)

from .text import initial_message, own_name, presented_name, quoted, text_of, unquoted

__all__ = ["OAUTHBEARER", "XOAUTH2", "read_refusal", "write_refusal"]

# client-resp = gs2-header kvsep *kvpair kvsep (RFC 7628 §3.1); no channel binding is defined.
_RESPONSE = re.compile(
    rb"[ny],(?:a=((?:[^\x00\x01=,]|=2C|=3D)+))?,\x01((?:[A-Za-z]+=[\x20-\x7E\t\r\n]*\x01)*)\x01"
)
# As its authors describe it: no header, the user in its stead.
_XOAUTH2 = re.compile(rb"user=([^\x00\x01]+)\x01auth=([\x20-\x7E]*)\x01\x01")
# RFC 6750 §2.1; without a token it asks for the scope (RFC 7628 §4.3).
_BEARER = re.compile(r"(?:Bearer +([A-Za-z0-9._~+/\-]+=*))?", re.IGNORECASE)
_PORT = re.compile(r"[1-9][0-9]{0,4}")


def _bearer_server(initial: bytes | None, context: ServerContext) -> ServerSteps:
    message = yield from initial_message(initial)
    text_of(message)
    match = _RESPONSE.fullmatch(message)
    if match is None:
        raise AuthenticationError(MALFORMED)
    values: dict[str, str] = {}
    for pair in text_of(match[2]).split("\1")[:-1]:
        key, _, value = pair.partition("=")
        if key in values:
            raise AuthenticationError(MALFORMED)
        values[key] = value
    if "auth" not in values:
        raise AuthenticationError(MALFORMED)
    authorization = unquoted(match[1] or b"")
    port = values.get("port", "0")
    if port != "0" and _PORT.fullmatch(port) is None:
        raise AuthenticationError(MALFORMED)
    question = VerifyToken(
        _token(values["auth"]),
        presented_name(authorization),
        "OAUTHBEARER",
        values.get("host", ""),
        int(port),
    )
    return (yield from _judged(question))


def _xoauth2_server(initial: bytes | None, context: ServerContext) -> ServerSteps:
    message = yield from initial_message(initial)
    text_of(message)
    match = _XOAUTH2.fullmatch(message)
    if match is None:
        raise AuthenticationError(MALFORMED)
    token = _token(match[2].decode())
    return (yield from _judged(VerifyToken(token, presented_name(match[1]), "XOAUTH2")))


def _token(auth: str) -> str:
    match = _BEARER.fullmatch(auth)
    if match is None:
        raise AuthenticationError(MALFORMED)
    return match[1] or ""


def _judged(question: VerifyToken) -> ServerSteps:
    answer = yield question
    if isinstance(answer, str) and answer and question.token:
        return answer
    refusal = answer if isinstance(answer, TokenRefusal) else TokenRefusal()
    yield Challenge(write_refusal(refusal))
    raise AuthenticationError  # whatever it said to that (RFC 7628 §3.2.3)


def _bearer_client(credentials: Credentials) -> ClientSteps:
    name = quoted(own_name(credentials.authorization or credentials.username))
    host, port = credentials.host, credentials.port
    if not host.isascii() or not (host or "-").isprintable():
        raise LocalProtocolError("a host name in OAUTHBEARER is ASCII")
    message = b"n,%b,\1" % (b"a=" + name if name else b"")
    if host:
        message += b"host=%b\1" % host.encode()
    if port:
        message += b"port=%d\1" % port
    challenge = yield message + b"auth=Bearer %b\1\1" % _own_token(credentials)
    yield from _refused(challenge, b"\1")


def _xoauth2_client(credentials: Credentials) -> ClientSteps:
    name = own_name(credentials.authorization or credentials.username)
    challenge = yield b"user=%b\1auth=Bearer %b\1\1" % (name, _own_token(credentials))
    yield from _refused(challenge, b"")


def _own_token(credentials: Credentials) -> bytes:
    token = credentials.token or ""
    if not _BEARER.fullmatch(f"Bearer {token}"):
        raise LocalProtocolError("not a bearer token (RFC 6750 §2.1)")
    return token.encode()


def _refused(challenge: bytes | None, dummy: bytes) -> ClientSteps:
    if challenge is None:
        return
    if (yield dummy) is None:
        raise ExchangeError("the server let us in after refusing our token")


def write_refusal(refusal: TokenRefusal) -> bytes:
    """Write a refusal as the JSON of RFC 7628 §3.2.2."""
    members = {
        "status": refusal.status,
        "scope": refusal.scope,
        "openid-configuration": refusal.openid_configuration,
    }
    return json.dumps({name: text for name, text in members.items() if text}).encode()


def read_refusal(challenge: bytes) -> TokenRefusal | None:
    """Read what `ClientExchange.last_challenge` says about a refused token; None if nothing."""
    try:
        said: object = json.loads(challenge)
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict):
        return None
    members = cast("dict[str, object]", said)
    status, scope, configuration = (
        value if isinstance(value := members.get(name), str) else ""
        for name in ("status", "scope", "openid-configuration")
    )
    return TokenRefusal(status, scope, configuration)


def _serves(credentials: Credentials) -> bool:
    return bool(credentials.token)


def _serves_with_name(credentials: Credentials) -> bool:
    return bool(credentials.token) and bool(credentials.authorization or credentials.username)


# Whoever sees a token has it: never without TLS (RFC 7628 §3).
OAUTHBEARER = Mechanism(
    "OAUTHBEARER",
    plaintext=True,
    server=_bearer_server,
    client=_bearer_client,
    asks=VerifyToken,
    serves=_serves,
)
XOAUTH2 = Mechanism(
    "XOAUTH2",
    plaintext=True,
    server=_xoauth2_server,
    client=_xoauth2_client,
    asks=VerifyToken,
    serves=_serves_with_name,
)
