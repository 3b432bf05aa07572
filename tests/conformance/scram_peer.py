"""SCRAM by the formulas of RFC 5802 §3, in few lines: a peer for either end of ours."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from attrs import evolve

from smtpproto.core.sasl import (
    AuthenticationError,
    Challenge,
    ChannelBinding,
    ClientExchange,
    Credentials,
    ExchangeError,
    Lookup,
    Mechanism,
    Question,
    ScramKeys,
    ServerContext,
    ServerExchange,
)
from smtpproto.mechanisms import (
    SCRAM_SHA_1,
    SCRAM_SHA_1_PLUS,
    SCRAM_SHA_256,
    SCRAM_SHA_256_PLUS,
)

SCRAM = [SCRAM_SHA_1, SCRAM_SHA_1_PLUS, SCRAM_SHA_256, SCRAM_SHA_256_PLUS]
SALT = b"0123456789abcdef"
FEW = 2
UNIQUE = ChannelBinding("tls-unique", b"finished")
END_POINT = ChannelBinding("tls-server-end-point", b"\x00certificate\xff")
CONTEXT = ServerContext("mx.example", nonce=lambda: "xyz", iterations=FEW)
BOUND = evolve(CONTEXT, bindings=(END_POINT, UNIQUE))
ANN = Credentials("ann", "pw", nonce=lambda: "abc", iterations=(1, 10_000))
FIRST = b"n=ann,r=abc"


def b64(octets: bytes) -> bytes:
    return base64.b64encode(octets)


def hi(hash_name: str, text: bytes, salt: bytes, count: int) -> bytes:
    """Hi() of §2.2, as it is written there."""
    u = hmac.digest(text, salt + (1).to_bytes(4, "big"), hash_name)
    result = int.from_bytes(u, "big")
    for _ in range(count - 1):
        u = hmac.digest(text, u, hash_name)
        result ^= int.from_bytes(u, "big")
    return result.to_bytes(len(u), "big")


class Peer:
    """Either end of SCRAM: what it computes of a password."""

    def __init__(self, mechanism: Mechanism, password: bytes = b"pw", count: int = FEW) -> None:
        self.hash = {"SCRAM-SHA-1": "sha1", "SCRAM-SHA-256": "sha256"}[mechanism.family]
        self.count = count
        salted = hi(self.hash, password, SALT, count)
        self.client_key = hmac.digest(salted, b"Client Key", self.hash)
        self.stored_key = hashlib.new(self.hash, self.client_key).digest()
        self.server_key = hmac.digest(salted, b"Server Key", self.hash)
        self.keys = ScramKeys(SALT, count, self.stored_key, self.server_key)
        self.server_first = b"r=abcxyz,s=%b,i=%d" % (b64(SALT), count)

    def proof(self, *auth_message: bytes) -> bytes:
        signature = hmac.digest(self.stored_key, b",".join(auth_message), self.hash)
        return bytes(a ^ b for a, b in zip(self.client_key, signature, strict=True))

    def signature(self, *auth_message: bytes) -> bytes:
        return hmac.digest(self.server_key, b",".join(auth_message), self.hash)


def asks(
    message: bytes, mechanism: Mechanism = SCRAM_SHA_256, context: ServerContext = CONTEXT
) -> Lookup:
    """What the server asks behind a client-first-message."""
    question = ServerExchange(mechanism, message, context).step()
    assert isinstance(question, Lookup)
    return question


def refused(
    message: bytes, mechanism: Mechanism = SCRAM_SHA_256, context: ServerContext = CONTEXT
) -> int:
    with pytest.raises(AuthenticationError) as caught:
        ServerExchange(mechanism, message, context).step()
    return caught.value.reply.code


def begun(
    header: bytes = b"n,,",
    bare: bytes = FIRST,
    mechanism: Mechanism = SCRAM_SHA_256,
    context: ServerContext = CONTEXT,
) -> tuple[ServerExchange, bytes]:
    """A server behind its first message, and that."""
    server = ServerExchange(mechanism, header + bare, context)
    assert isinstance(server.step(), Lookup)
    challenge = server.step(Peer(mechanism).keys)
    assert isinstance(challenge, Challenge)
    return server, challenge.data


def finish(
    header: bytes = b"n,,",
    bare: bytes = FIRST,
    mechanism: Mechanism = SCRAM_SHA_256,
    context: ServerContext = CONTEXT,
    *,
    bound: bytes = b"",
    without_proof: bytes | None = None,
    password: bytes = b"pw",
) -> tuple[ServerExchange, Question | str]:
    """Let somebody who knows the password talk with the server, and say what it says then."""
    server, server_first = begun(header, bare, mechanism, context)
    middle = without_proof or b"c=%b,r=abcxyz" % b64(header + bound)
    proof = Peer(mechanism, password).proof(bare, server_first, middle)
    return server, server.step(middle + b",p=" + b64(proof))


def fails(**arguments: object) -> int:
    with pytest.raises(AuthenticationError) as caught:
        finish(**arguments)  # type: ignore[arg-type]  # its own
    return caught.value.reply.code


def client_behind(
    server_first: bytes, credentials: Credentials = ANN, mechanism: Mechanism = SCRAM_SHA_256
) -> tuple[ClientExchange, bytes]:
    """A client that has read a server-first-message, and what it answers."""
    client = ClientExchange(mechanism, credentials)
    client.initial_response()
    final = client.respond(server_first)
    assert final is not None
    return client, final


def disbelieved(server_first: bytes) -> None:
    client = ClientExchange(SCRAM_SHA_256, ANN)
    client.initial_response()
    with pytest.raises(ExchangeError):
        client.respond(server_first)
