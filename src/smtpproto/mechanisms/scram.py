"""SCRAM (RFC 5802, RFC 7677): both ends prove that they know the password, and none tells it.

The server stores keys that do not give the password away. The -PLUS forms are bound to the TLS
channel, so that nobody can stand in the middle of it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from functools import partial

from smtpproto.core.base64 import decode_base64, encode_base64
from smtpproto.core.errors import GrammarError, LocalProtocolError
from smtpproto.core.sasl import (
    MALFORMED,
    AuthenticationError,
    Authorize,
    Challenge,
    ClientSteps,
    Credentials,
    ExchangeError,
    Lookup,
    Mechanism,
    ScramKeys,
    ServerContext,
    ServerSteps,
)

from .saslprep import saslprep
from .text import (
    fresh,
    initial_message,
    octets_of,
    own_name,
    presented,
    presented_name,
    quoted,
    text_of,
    unquoted,
)

__all__ = [
    "SCRAM_SHA_1",
    "SCRAM_SHA_1_PLUS",
    "SCRAM_SHA_256",
    "SCRAM_SHA_256_PLUS",
    "derive_keys",
]

# Formal syntax, RFC 5802 §7. Everything is UTF-8 without NUL, which is looked at apart.
_NAME = rb"((?:[^\0=,]|=2C|=3D)+)"
_NONCE = rb"([\x21-\x2B\x2D-\x7E]+)"
_BASE64 = rb"([A-Za-z0-9+/]+={0,2})"
# Optional ones, to be ignored; `m`, mandatory ones, is known to nobody and fails.
_EXTENSIONS = rb"((?:,[A-Za-ln-z]=[^\0,]+)*)"

_CLIENT_FIRST = re.compile(
    rb"((n|y|p=([A-Za-z0-9.\-]+)),(?:a=%b)?,)(n=%b,r=%b%b)" % (_NAME, _NAME, _NONCE, _EXTENSIONS)
)
_SERVER_FIRST = re.compile(rb"r=%b,s=%b,i=([1-9][0-9]{0,15})%b" % (_NONCE, _BASE64, _EXTENSIONS))
_CLIENT_FINAL = re.compile(rb"(c=%b,r=%b%b),p=%b" % (_BASE64, _NONCE, _EXTENSIONS, _BASE64))
_SERVER_FINAL = re.compile(rb"v=%b%b" % (_BASE64, _EXTENSIONS))
_SERVER_ERROR = re.compile(rb"e=([^\0,]+)%b" % _EXTENSIONS)

_HASHES = {"SCRAM-SHA-1": "sha1", "SCRAM-SHA-256": "sha256"}


def derive_keys(
    password: str, salt: bytes, *, iterations: int = 4096, mechanism: str = "SCRAM-SHA-256"
) -> ScramKeys:
    """Return what to store of a password (RFC 5802 §3).

    `salt` is fresh and random for each user, 16 octets as those that a server makes up for
    users who do not exist; `iterations` at least 4096, and the same for all users. It takes the
    time of that many hashes: a server's event loop wants it in a thread. LocalProtocolError for
    a password that SASLprep refuses, for an empty salt and an unknown mechanism.
    """
    hash_name = _HASHES.get(mechanism)
    if hash_name is None or not salt or iterations < 1:
        raise LocalProtocolError(f"no keys of {mechanism} with {iterations} iterations")
    salted = hashlib.pbkdf2_hmac(hash_name, _prepared(password), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", hash_name)
    stored_key = hashlib.new(hash_name, client_key).digest()
    return ScramKeys(salt, iterations, stored_key, hmac.digest(salted, b"Server Key", hash_name))


def _prepared(password: str) -> bytes:
    try:
        return saslprep(password, stored=True).encode()  # RFC 5802 §2.2
    except GrammarError as error:
        raise LocalProtocolError(str(error)) from None


def _made_up(context: ServerContext, family: str, username: str) -> ScramKeys:
    """Return what a user who does not exist might have: always the same, and fitting nothing."""
    size = hashlib.new(_HASHES[family]).digest_size

    def part(use: str) -> bytes:
        return hmac.digest(context.secret, f"{use}\0{family}\0{username}".encode(), "sha256")

    return ScramKeys(part("salt")[:16], context.iterations, part("a")[:size], part("b")[:size])


def _server(
    initial: bytes | None, context: ServerContext, *, family: str, plus: bool
) -> ServerSteps:
    hash_name = _HASHES[family]

    # client-first-message
    message = yield from initial_message(initial)
    text_of(message)
    match = _CLIENT_FIRST.fullmatch(message)
    if match is None:
        raise AuthenticationError(MALFORMED)
    gs2_header, flag, binding_type, authzid, client_bare, name, client_nonce, _ = match.groups()
    bound = _bound(flag, (binding_type or b"").decode(), context, plus=plus)
    username, authorization = presented(unquoted(name)), presented_name(unquoted(authzid or b""))

    # server-first-message
    found = yield Lookup(username, family)
    known = isinstance(found, ScramKeys)
    keys = found if isinstance(found, ScramKeys) else _made_up(context, family, username)
    nonce = client_nonce + fresh(context.nonce())
    server_first = b"r=%b,s=%b,i=%d" % (nonce, encode_base64(keys.salt), keys.iterations)
    response = octets_of((yield Challenge(server_first)))

    # client-final-message
    text_of(response)
    match = _CLIENT_FINAL.fullmatch(response)
    if match is None:
        raise AuthenticationError(MALFORMED)
    without_proof, binding, same_nonce, _, encoded_proof = match.groups()
    proof = _octets(encoded_proof)
    if proof is None or len(proof) != hashlib.new(hash_name).digest_size:
        raise AuthenticationError(MALFORMED)
    auth_message = b",".join((client_bare, server_first, without_proof))
    signature = hmac.digest(keys.stored_key, auth_message, hash_name)
    stored_key = hashlib.new(hash_name, _xor(proof, signature)).digest()
    right = (
        hmac.compare_digest(stored_key, keys.stored_key),
        hmac.compare_digest(binding, encode_base64(gs2_header + bound)),
        hmac.compare_digest(same_nonce, nonce),
        known,
    )
    if not all(right):
        raise AuthenticationError
    if (
        authorization not in ("", username)
        and (yield Authorize(username, authorization)) is not True
    ):
        raise AuthenticationError

    # server-final-message; the client has nothing to say to it.
    final = b"v=" + encode_base64(hmac.digest(keys.server_key, auth_message, hash_name))
    if octets_of((yield Challenge(final))):
        raise AuthenticationError(MALFORMED)
    return authorization or username


def _bound(flag: bytes, binding_type: str, context: ServerContext, *, plus: bool) -> bytes:
    """Return the octets of the channel binding that the client chose (RFC 5802 §6)."""
    if flag == b"y" and context.bindings:
        # The client could and thinks that we cannot: somebody has cut our list of mechanisms.
        raise AuthenticationError
    if plus is not (flag[:1] == b"p"):
        raise AuthenticationError
    if not plus:
        return b""
    for binding in context.bindings:
        if binding.type == binding_type:
            return binding.data
    raise AuthenticationError


def _client(credentials: Credentials, *, family: str, plus: bool) -> ClientSteps:
    hash_name = _HASHES[family]
    password = _prepared(credentials.password or "")
    name = quoted(own_name(credentials.username))
    if not name:
        raise LocalProtocolError("SCRAM needs a name (RFC 5802 §5.1)")

    # client-first-message
    binding = credentials.binding
    if plus and binding is None:
        raise LocalProtocolError("SCRAM with channel binding needs one")
    flag, bound = b"n", b""
    if plus and binding is not None:
        flag, bound = b"p=" + binding.type.encode(), binding.data
    elif binding is not None:
        flag = b"y"  # we could, and have not seen that the server can
    authzid = own_name(credentials.authorization)
    gs2_header = b"%b,%b," % (flag, b"a=" + quoted(authzid) if authzid else b"")
    client_nonce = fresh(credentials.nonce())
    client_bare = b"n=%b,r=%b" % (name, client_nonce)
    server_first = yield gs2_header + client_bare

    # server-first-message
    match = _SERVER_FIRST.fullmatch(_proving(server_first))
    if match is None or (salt := _octets(match[2])) is None:
        raise ExchangeError("a malformed first message of SCRAM")
    nonce, iterations = match[1], int(match[3])
    if not nonce.startswith(client_nonce) or nonce == client_nonce:
        raise ExchangeError("the server's nonce is not ours and its own")
    fewest, most = credentials.iterations
    if not fewest <= iterations <= most:
        raise ExchangeError(f"the server asks for {iterations} iterations, not {fewest} to {most}")
    salted = hashlib.pbkdf2_hmac(hash_name, password, salt, iterations)

    # client-final-message
    client_key = hmac.digest(salted, b"Client Key", hash_name)
    stored_key = hashlib.new(hash_name, client_key).digest()
    without_proof = b"c=%b,r=%b" % (encode_base64(gs2_header + bound), nonce)
    auth_message = b",".join((client_bare, match[0], without_proof))
    proof = _xor(client_key, hmac.digest(stored_key, auth_message, hash_name))
    server_final = yield b"%b,p=%b" % (without_proof, encode_base64(proof))

    # server-final-message
    match = _SERVER_FINAL.fullmatch(_proving(server_final))
    signature = _octets(match[1]) if match else None
    if signature is None:
        raise ExchangeError("a malformed last message of SCRAM")
    server_key = hmac.digest(salted, b"Server Key", hash_name)
    if not hmac.compare_digest(signature, hmac.digest(server_key, auth_message, hash_name)):
        raise ExchangeError("the server does not know our password: it is not what it claims to be")
    yield b""


def _proving(challenge: bytes | None) -> bytes:
    """Return a challenge; ExchangeError where there is none or it says that it failed."""
    if challenge is None:
        raise ExchangeError("the server let us in without proving that it knows us (RFC 5802 §5)")
    error = _SERVER_ERROR.fullmatch(challenge)
    if error is not None:
        said = error[1][:80].decode("utf-8", "backslashreplace")
        raise ExchangeError(f"the server refused us: {said!r}")
    return challenge


def _octets(base64: bytes) -> bytes | None:
    """Decode the one canonical spelling of some octets (RFC 5802 §2.1); None for all others."""
    try:
        octets = decode_base64(base64)
    except GrammarError:
        return None
    return octets if encode_base64(octets) == base64 else None


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


def _serves(credentials: Credentials, *, plus: bool) -> bool:
    with_binding = credentials.binding is not None or not plus
    return with_binding and credentials.username != "" and credentials.password is not None


def _mechanism(family: str, *, plus: bool) -> Mechanism:
    return Mechanism(
        f"{family}-PLUS" if plus else family,
        plaintext=False,
        server=partial(_server, family=family, plus=plus),
        client=partial(_client, family=family, plus=plus),
        binds=plus,
        asks=Lookup,
        serves=partial(_serves, plus=plus),
    )


SCRAM_SHA_1 = _mechanism("SCRAM-SHA-1", plus=False)
SCRAM_SHA_1_PLUS = _mechanism("SCRAM-SHA-1", plus=True)
SCRAM_SHA_256 = _mechanism("SCRAM-SHA-256", plus=False)
SCRAM_SHA_256_PLUS = _mechanism("SCRAM-SHA-256", plus=True)
