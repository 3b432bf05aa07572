"""The examples that the RFCs give of each mechanism, octet for octet."""

import base64
import hmac

import pytest

from smtpproto.core.sasl import (
    AuthenticationError,
    Challenge,
    ClientExchange,
    Credentials,
    Lookup,
    Mechanism,
    ServerContext,
    ServerExchange,
    TokenRefusal,
    Verify,
    VerifyAnonymous,
    VerifyExternal,
    VerifyToken,
)
from smtpproto.mechanisms import (
    ANONYMOUS,
    CRAM_MD5,
    EXTERNAL,
    OAUTHBEARER,
    PLAIN,
    SCRAM_SHA_1,
    SCRAM_SHA_256,
    XOAUTH2,
)
from smtpproto.mechanisms.oauth import read_refusal
from smtpproto.mechanisms.scram import derive_keys

SHA_1 = (
    "fyko+d2lbbFgONRv9qkxdawL",
    "3rfcNHYJY1ZVvWVs7j",
    "QSXCR+Q6sek8bf92",
    b"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL",
    b"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
    b"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
    b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
)
SHA_256 = (
    "rOprNGfwEbeRWgbNEkqO",
    "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
    "W22ZaJ0SNY7soEsUEjb6gQ==",
    b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
    b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
    b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
    b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
)


@pytest.mark.parametrize(
    ("mechanism", "vector"),
    [
        pytest.param(SCRAM_SHA_1, SHA_1, marks=pytest.mark.rfc("5802 §5 example-of-sha-1")),
        pytest.param(SCRAM_SHA_256, SHA_256, marks=pytest.mark.rfc("7677 §3 example")),
    ],
)
def test_scram(
    mechanism: Mechanism, vector: tuple[str, str, str, bytes, bytes, bytes, bytes]
) -> None:
    client_nonce, server_nonce, salt, first, server_first, final, server_final = vector
    client = ClientExchange(mechanism, Credentials("user", "pencil", nonce=lambda: client_nonce))
    initial = client.initial_response()
    assert initial == first
    server = ServerExchange(mechanism, initial, ServerContext(nonce=lambda: server_nonce))
    assert server.step() == Lookup("user", mechanism.name)
    keys = derive_keys("pencil", base64.b64decode(salt), mechanism=mechanism.name)
    assert server.step(keys) == Challenge(server_first)
    assert client.respond(server_first) == final
    assert server.step(final) == Challenge(server_final)
    assert client.respond(server_final) == b""
    assert server.step(b"") == "user"
    client.succeed()


@pytest.mark.rfc("2195 §2")
def test_cram_md5() -> None:
    client = ClientExchange(CRAM_MD5, Credentials("tim", "tanstaaftanstaaf"))
    assert client.initial_response() is None
    context = ServerContext("postoffice.reston.mci.net", nonce=lambda: "1896.697170952")
    server = ServerExchange(CRAM_MD5, None, context)
    challenge = b"<1896.697170952@postoffice.reston.mci.net>"
    assert server.step() == Challenge(challenge)
    response = client.respond(challenge)
    assert response == b"tim b913a602c7eda7a495b4e6e7334d3890"
    assert server.step(response) == Lookup("tim", "CRAM-MD5")
    assert server.step(b"tanstaaftanstaaf") == "tim"
    client.succeed()


@pytest.mark.rfc("4954 §4.1 cram-md5")
def test_cram_md5_in_smtp() -> None:
    challenge = base64.b64decode("PDQxOTI5NDIzNDEuMTI4Mjg0NzJAc291cmNlZm91ci5hbmRyZXcuY211LmVkdT4=")
    response = base64.b64decode("cmpzMyBlYzNhNTlmZWQzOTVhYmExZWM2MzY3YzRmNGI0MWFjMA==")
    number, _, host = challenge[1:-1].decode().partition("@")
    server = ServerExchange(CRAM_MD5, None, ServerContext(host, nonce=lambda: number))
    assert server.step() == Challenge(challenge)
    assert server.step(response) == Lookup("rjs3", "CRAM-MD5")
    assert hmac.digest(b"no", challenge, "md5").hex() != response[-32:].decode()


@pytest.mark.rfc("4616 §4 tim-logs-in", "4616 §4 kurt-may-not-act-as-ursel")
@pytest.mark.parametrize(
    ("message", "question"),
    [
        (b"\0tim\0tanstaaftanstaaf", Verify("tim", "tanstaaftanstaaf")),
        (b"Ursel\0Kurt\0xipj3plmq", Verify("Kurt", "xipj3plmq", "Ursel")),
    ],
)
def test_plain(message: bytes, question: Verify) -> None:
    assert ServerExchange(PLAIN, message).step() == question
    parts = question.username, question.password, question.authorization
    assert ClientExchange(PLAIN, Credentials(*parts)).initial_response() == message


BEARER = (
    b"n,a=user@example.com,\1host=server.example.com\1port=587\1"
    b"auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\1\1"
)


@pytest.mark.rfc("7628 §4.1")
def test_oauthbearer() -> None:
    token = "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg=="
    client = ClientExchange(
        OAUTHBEARER,
        Credentials("user@example.com", token=token, host="server.example.com", port=587),
    )
    assert client.initial_response() == BEARER
    server = ServerExchange(OAUTHBEARER, BEARER)
    question = VerifyToken(token, "user@example.com", "OAUTHBEARER", "server.example.com", 587)
    assert server.step() == question
    assert token not in repr(question)
    assert server.step("user@example.com") == "user@example.com"
    client.succeed()


@pytest.mark.rfc("7628 §4.3")
def test_a_failed_exchange_of_oauthbearer() -> None:
    message = b"n,a=user@example.com,\1host=server.example.com\1port=143\1auth=\1\1"
    server = ServerExchange(OAUTHBEARER, message)
    assert server.step() == VerifyToken(
        "", "user@example.com", "OAUTHBEARER", "server.example.com", 143
    )
    configuration = "https://example.com/.well-known/openid-config"
    refusal = TokenRefusal("invalid_token", "example_scope", configuration)
    challenge = server.step(refusal)
    assert isinstance(challenge, Challenge)
    assert read_refusal(challenge.data) == refusal
    said = base64.b64decode(
        "eyJzdGF0dXMiOiJpbnZhbGlkX3Rva2VuIiwic2NvcGUiOiJleGFtcGxlX3Njb3BlIiwib3BlbmlkLWNvbmZpZ3Vy"
        "YXRpb24iOiJodHRwczovL2V4YW1wbGUuY29tLy53ZWxsLWtub3duL29wZW5pZC1jb25maWd1cmF0aW9uIn0="
    )
    read = read_refusal(said)
    assert read is not None
    assert (read.status, read.scope) == ("invalid_token", "example_scope")
    client = ClientExchange(OAUTHBEARER, Credentials("user@example.com", token="old"))
    client.initial_response()
    assert client.respond(said) == b"\1"
    assert client.last_challenge == said
    with pytest.raises(AuthenticationError, match="535"):
        server.step(b"\1")


def test_xoauth2_as_its_authors_show_it() -> None:
    encoded = (
        "dXNlcj1zb21ldXNlckBleGFtcGxlLmNvbQFhdXRoPUJlYXJlciB5YTI5LnZGOWRmdDRxbVRjMk52YjNSbGNrQmhk"
        "SFJoZG1semRHRXVZMjl0Q2cBAQ=="
    )
    message = base64.b64decode(encoded)
    token = "ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg"
    client = ClientExchange(XOAUTH2, Credentials("someuser@example.com", token=token))
    assert client.initial_response() == message
    server = ServerExchange(XOAUTH2, message)
    assert server.step() == VerifyToken(token, "someuser@example.com", "XOAUTH2")
    assert client.respond(b'{"status":"401"}') == b""
    challenge = server.step(None)
    assert isinstance(challenge, Challenge)
    with pytest.raises(AuthenticationError, match="535"):
        server.step(b"")


@pytest.mark.rfc("4422 §A.2")
@pytest.mark.parametrize("authorization", ["", "fred@example.com"])
def test_external(authorization: str) -> None:
    client = ClientExchange(EXTERNAL, Credentials(authorization=authorization, external=True))
    message = client.initial_response()
    assert message == authorization.encode()
    server = ServerExchange(EXTERNAL, None)
    assert server.step() == Challenge(b"")
    assert server.step(message) == VerifyExternal(authorization)
    assert server.step("fred") == "fred"


@pytest.mark.rfc("4505 §4")
def test_anonymous() -> None:
    client = ClientExchange(ANONYMOUS, Credentials(trace="sirhc"))
    message = client.initial_response()
    assert message == base64.b64decode("c2lyaGM=")
    server = ServerExchange(ANONYMOUS, message)
    assert server.step() == VerifyAnonymous("sirhc")
    assert server.step("guest") == "guest"
