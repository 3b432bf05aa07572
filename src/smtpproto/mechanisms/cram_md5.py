"""CRAM-MD5 (RFC 2195): a challenge hashed with the secret, which the server must hold in clear.

Off unless it is asked for: it does not say who the server is, and MD5 protects no weak password.
"""

from __future__ import annotations

import hmac
import re

from smtpproto.core.sasl import (
    MALFORMED,
    AuthenticationError,
    Challenge,
    ClientSteps,
    Credentials,
    ExchangeError,
    Lookup,
    Mechanism,
    ServerContext,
    ServerSteps,
)

from .login import LOGIN
from .text import fresh, octets_of, own_name, own_octets, presented

__all__ = ["CRAM_MD5"]

# user name SP digest, in lower case (RFC 2195 §2)
_RESPONSE = re.compile(rb"(.+) ([0-9a-f]{32})", re.DOTALL)


def _server(initial: bytes | None, context: ServerContext) -> ServerSteps:
    # It looks like a message identifier (RFC 2195 §2); fresh is all that it has to be.
    challenge = b"<%b@%b>" % (fresh(context.nonce()), context.hostname.encode())
    match = _RESPONSE.fullmatch(octets_of((yield Challenge(challenge))))
    if match is None:
        raise AuthenticationError(MALFORMED)
    username = presented(match[1])
    secret = yield Lookup(username, "CRAM-MD5")
    known = isinstance(secret, bytes)
    digest = _digest(secret if isinstance(secret, bytes) else context.secret, challenge)
    if not hmac.compare_digest(digest, match[2]) or not known:
        raise AuthenticationError
    return username


def _client(credentials: Credentials) -> ClientSteps:
    name, secret = own_name(credentials.username), own_octets(credentials.password)
    challenge = yield None
    if challenge is None:
        raise ExchangeError("the server let us in without having asked for anything")
    yield name + b" " + _digest(secret, challenge)


def _digest(secret: bytes, challenge: bytes) -> bytes:
    return hmac.digest(secret, challenge, "md5").hex().encode()


CRAM_MD5 = Mechanism(
    "CRAM-MD5",
    plaintext=False,
    server=_server,
    client=_client,
    client_first=False,
    asks=Lookup,
    serves=LOGIN.serves,
)
