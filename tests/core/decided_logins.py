"""What was decided about AUTH and its mechanisms: for decisions.py."""

import base64
import hmac

from attrs import evolve

from smtpproto.core.sasl import Challenge, ClientExchange, Credentials, Lookup, ServerExchange
from smtpproto.mechanisms import SCRAM_SHA_256
from tests.sasl.exchange import ALL, FEW

from .decision import MAIL, OLD_HELLO, Decision, line
from .logins import CONTEXT, USER

__all__ = ["LOGINS"]


def _b64(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


def _login(mechanism: str, said: list[bytes], replies: str, why: str) -> Decision:
    """Write an AUTH of `mechanism`: initial response (empty: none), then the others."""
    initial, *responses = said
    octets = f"AUTH {mechanism} {_b64(initial)}".rstrip()
    octets += "".join(f"\r\n{_b64(response)}" for response in responses)
    shown = b"AUTH " + mechanism.encode() + (b" {%b}" % initial if initial else b"")
    shown += b"".join(b"\r\n{%b}" % response for response in responses)
    return evolve(line(octets, replies, why, mechanisms=ALL), shown=shown)


def _scram(password: str, *, tampered: tuple[bytes, bytes] = (b"", b"")) -> list[bytes]:
    """Return what a client of SCRAM-SHA-256 says."""
    few = Credentials("a", password, nonce=lambda: "mine", iterations=(FEW, FEW))
    client = ClientExchange(SCRAM_SHA_256, few)
    initial = client.initial_response()
    server = ServerExchange(SCRAM_SHA_256, initial, CONTEXT)
    question = server.step()
    assert isinstance(question, Lookup)
    challenge = server.step(USER(question))
    assert initial is not None
    assert isinstance(challenge, Challenge)
    response = client.respond(challenge.data)
    assert response is not None
    return [initial, response.replace(*tampered)]


def _cram(digest: str) -> list[bytes]:
    challenge = b"<nonce@mx.example>"
    return [b"", b"a " + (digest or hmac.digest(b"b", challenge, "md5").hex()).encode()]


_MECHANISMS = [
    _login("PLAIN", [b"\0a\0b\0"], "501 5.5.2", "PLAIN has three parts (RFC 4616 §2)."),
    _login("PLAIN", [b"\0a\0"], "501 5.5.2", "A password is not empty (RFC 4616 §2)."),
    _login("PLAIN", [b"\0\0b"], "501 5.5.2", "Nor is a name."),
    _login("PLAIN", [b"\0\xff\0b"], "501 5.5.2", "No UTF-8."),
    _login("PLAIN", [b"a\0a\0b"], "235 2.7.0", "To act as oneself."),
    _login("PLAIN", [b"c\0a\0b"], "535 5.7.8", "To act as another is for the caller to allow."),
    _login("PLAIN", ["\0\u00aa\0b".encode()], "235 2.7.0", "Names are prepared (RFC 4013)."),
    _login("PLAIN", [b"\0a\x07\0b"], "535 5.7.8", "A name that preparing forbids."),
    _login("CRAM-MD5", [b"x"], "501 5.7.0", "The server speaks first (RFC 4954 §4)."),
    _login("CRAM-MD5", _cram(""), "334, 235 2.7.0", "RFC 2195."),
    _login("CRAM-MD5", _cram("0" * 32), "334, 535 5.7.8", "A wrong digest."),
    _login(
        "CRAM-MD5", _cram("A" * 32), "334, 501 5.5.2", "Digits are in lower case (RFC 2195 §2)."
    ),
    _login("SCRAM-SHA-256", [*_scram("b"), b""], "334, 334, 235 2.7.0", "RFC 7677, RFC 5802."),
    _login("SCRAM-SHA-256", _scram("c"), "334, 535 5.7.8", "A wrong password."),
    _login(
        "SCRAM-SHA-256",
        _scram("b", tampered=(b"minenonce", b"minenoncf")),
        "334, 535 5.7.8",
        "Another nonce.",
    ),
    _login(
        "SCRAM-SHA-256",
        _scram("b", tampered=(b"c=biws", b"c=eSws")),
        "334, 535 5.7.8",
        "Another header than at first.",
    ),
    _login("SCRAM-SHA-256", [b"n,,n=a"], "501 5.5.2", "No nonce."),
    _login(
        "SCRAM-SHA-256", [b"n,,m=x,n=a,r=b"], "501 5.5.2", "A mandatory extension (RFC 5802 §5.1)."
    ),
    _login("SCRAM-SHA-256", [b"n,,n=a=b,r=b"], "501 5.5.2", "`=` is written `=3D`."),
    _login("SCRAM-SHA-256", [b"p=tls-unique,,n=a,r=b"], "535 5.7.8", "Binding, and no -PLUS."),
    _login("SCRAM-SHA-256", [*_scram("b"), b"x"], "334, 334, 501 5.5.2", "Nothing is left to say."),
    line("AUTH SCRAM-SHA-256-PLUS", "504 5.5.4", "There is no TLS to bind to.", mechanisms=ALL),
    _login(
        "XOAUTH2", [b"user=a\1auth=Bearer token\1\1"], "235 2.7.0", "As its authors describe it."
    ),
    _login(
        "XOAUTH2",
        [b"user=a\1auth=Bearer other\1\1", b""],
        "334, 535 5.7.8",
        "A refusal says what would do, and hears something back.",
    ),
    _login("XOAUTH2", [b"user=a\1auth=Basic token\1\1"], "501 5.5.2", "Bearer tokens only."),
    _login("OAUTHBEARER", [b"n,a=a,\1auth=Bearer token\1\1"], "235 2.7.0", "RFC 7628."),
    _login("OAUTHBEARER", [b"n,,\1auth=Bearer token\1\1"], "235 2.7.0", "The token says who."),
    _login(
        "OAUTHBEARER",
        [b"n,,\1auth=Bearer other\1\1", b"\1"],
        "334, 535 5.7.8",
        "The same (RFC 7628 §3.2.3).",
    ),
    _login(
        "OAUTHBEARER", [b"n,,\1auth=\1\1", b"\1"], "334, 535 5.7.8", "It asks for the scope (§4.3)."
    ),
    _login(
        "OAUTHBEARER",
        [b"p=x,,\1auth=Bearer token\1\1"],
        "501 5.5.2",
        "No binding is defined for it.",
    ),
    _login(
        "OAUTHBEARER",
        [b"n,,\1auth=Bearer token\1auth=Bearer token\1\1"],
        "501 5.5.2",
        "Each key once.",
    ),
    _login("OAUTHBEARER", [b"n,,\1port=0x19\1auth=Bearer token\1\1"], "501 5.5.2", "No port."),
    _login("EXTERNAL", [b"a"], "235 2.7.0", "RFC 4422 appendix A."),
    line("AUTH EXTERNAL =", "235 2.7.0", "As whom the connection says.", mechanisms=ALL),
    _login("EXTERNAL", [b"c"], "535 5.7.8", "As another."),
    _login("EXTERNAL", [b"a\0"], "501 5.5.2", "No NUL."),
    _login("ANONYMOUS", [b"sirhc"], "235 2.7.0", "RFC 4505."),
    line("AUTH ANONYMOUS =", "235 2.7.0", "No trace.", mechanisms=ALL),
    _login("ANONYMOUS", [b"x" * 256], "501 5.5.2", "255 characters at most (RFC 4505 §2)."),
    _login("ANONYMOUS", [b"a\x07"], "501 5.5.2", "No control characters."),
    _login("ANONYMOUS", [b"a\0"], "501 5.5.2", "No NUL."),
    _login("LOGIN", [b"a\0", b"b"], "334, 535 5.7.8", "What has NUL in it is no name of ours."),
    _login("LOGIN", [b"a", b"b\0"], "334, 535 5.7.8", "Nor a password."),
    _login("CRAM-MD5", [b"", b"a\0 " + b"0" * 32], "334, 535 5.7.8", "The same."),
    _login("SCRAM-SHA-256", [b"n,,n=a\0,r=mine"], "501 5.5.2", "Not in SCRAM (RFC 5802 §7)."),
    _login("XOAUTH2", [b"user=a\0\1auth=Bearer token\1\1"], "501 5.5.2", "No NUL."),
    _login("OAUTHBEARER", [b"n,a=a\0,\1auth=Bearer token\1\1"], "501 5.5.2", "No NUL."),
]

LOGINS: dict[str, list[Decision]] = {
    "AUTH": [
        line(
            "AUTH PLAIN AGEAYg==",
            "504 5.5.4",
            "In clear, unless it is allowed.",
            plaintext_auth=False,
        ),
        line("AUTH PLAIN AGEAYg==", "503 5.5.1", "EHLO first.", b""),
        line("AUTH PLAIN AGEAYg==", "235 2.7.0", "HELO will do: devices say it.", OLD_HELLO),
        line("AUTH PLAIN AGEAYg==", "503 5.5.1", "Not in a transaction (RFC 4954 §4).", MAIL),
        line("AUTH PLAIN AGEAYg==", "502 5.5.1", "No mechanisms: not offered.", mechanisms=()),
        line("AUTH", "501 5.5.4", "Which?"),
        line("AUTH CRAM-MD5", "504 5.5.4", "Not configured."),
        line("AUTH P!AIN", "501 5.5.4", "No name of a mechanism."),
        line("AUTH PLAIN AGEAYg", "501 5.5.2", "base64 without its padding (RFC 4954 §4)."),
        line("AUTH PLAIN AGE", "501 5.5.2", "Length 4n+3."),
        line("AUTH PLAIN AGEAYg==AAAA", "501 5.5.2", "Padding ends it."),
        line("AUTH PLAIN AG EA", "501 5.5.2", "No spaces in base64."),
        line("AUTH PLAIN AGEAYg==\x0c", "501 5.5.2", "Nor anything else."),
        line("AUTH PLAIN AGEA\0Yg==", "501 5.5.2", "Nor NUL,"),
        line("AUTH PLAIN\r\nAGEA\0Yg==", "334, 501 5.5.2", "in a response, too,"),
        line("AUTH PL\0AIN AGEAYg==", "501 5.5.2", "nor in a name."),
        line("AUTH PLAIN *", "501 5.5.2", "`*` cancels only what has begun."),
        line("AUTH PLAIN " + "A" * 20000, "500 5.5.6", "Over 12288 octets (RFC 4954 §4)."),
        line("AUTH PLAIN\r\nA", "334, 501 5.5.2", "A response of bad base64."),
        line("AUTH PLAIN\r\n*", "334, 501 5.7.0", "Cancelled (RFC 4954 §4)."),
        line("AUTH PLAIN\r\n=", "334, 501 5.5.2", "`=` is an initial response, not a response."),
        line("AUTH PLAIN\r\n", "334, 501 5.5.2", "An empty response is one, and no PLAIN."),
        line("AUTH PLAIN =", "501 5.5.2", "An empty initial response, and no PLAIN."),
        line("AUTH PLAIN\r\n" + "A" * 12289, "334, 500 5.5.6", "12289 octets without CRLF."),
        line("AUTH plain AGEAYg==", "235 2.7.0", "Names of mechanisms in any case."),
        line("AUTH PLAIN AGEAYg==\r\nAUTH PLAIN", "235 2.7.0, 503 5.5.1", "Once (RFC 4954 §4)."),
        line(
            "AUTH LOGIN YQ==\r\nYg==",
            "334, 235 2.7.0",
            "LOGIN was never standardised: taken so, too.",
        ),
        line("AUTH LOGIN\r\nYQ==\r\nYw==", "334, 334, 535 5.7.8", "A wrong password."),
    ],
    "Mechanisms, for the user `a` with the password `b` and the token `token`": _MECHANISMS,
}
