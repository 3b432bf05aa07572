"""RFC 5802 §§5, 7: the messages of SCRAM, what is read and what is refused."""

from __future__ import annotations

import pytest
from attrs import evolve

from smtpproto.core.sasl import (
    AuthenticationError,
    Challenge,
    ChannelBinding,
    Credentials,
    ExchangeError,
    Lookup,
    ServerContext,
    ServerExchange,
)
from smtpproto.mechanisms import (
    SCRAM_SHA_256,
    SCRAM_SHA_256_PLUS,
)
from smtpproto.mechanisms.scram import derive_keys
from tests.conformance.scram_peer import (
    BOUND,
    CONTEXT,
    FIRST,
    SALT,
    SCRAM,
    Peer,
    asks,
    b64,
    begun,
    client_behind,
    disbelieved,
    fails,
    finish,
    refused,
)


def marked(row: str, *values: object) -> list[object]:
    """Cases that bear a production's row."""
    return [pytest.param(value, marks=pytest.mark.rfc(f"5802 §7 {row}")) for value in values]


# §§5, 7 The client's first message, as a server reads it


@pytest.mark.rfc("5802 §7 client-first-message", "5802 §7 client-first-message-bare")
@pytest.mark.parametrize(
    "message",
    [
        *marked("gs2-cbind-flag", b"n,,n=ann,r=abc", b"y,,n=ann,r=abc"),
        *marked("gs2-header", b"n,,n=ann,r=abc", b"n,a=ann,n=ann,r=abc"),
        *marked("authzid", b"n,a=ann,n=ann,r=abc", b"n,a=b=2Cc=3D,n=ann,r=abc"),
        *marked("username", b"n,,n=ann,r=abc"),
        *marked("saslname", b"n,,n=a=2Cb=3D,r=abc", b"n,,n==3D,r=abc", b"n,,n=a b,r=abc"),
        *marked("value-safe-char", b"n,,n=!-<>~,r=abc"),
        *marked("UTF8-2", "n,,n=\u00e0\u07ff,r=abc".encode()),
        *marked("UTF8-3", "n,,n=\u0800\ud7ff\uf900,r=abc".encode()),
        *marked("UTF8-4", "n,,n=\U00010348\U000dfffd,r=abc".encode()),
        *marked("nonce", b"n,,n=ann,r=a", b"n,,n=ann,r=%b" % (b"a" * 1000)),
        *marked("c-nonce", b"n,,n=ann,r=a==b"),
        *marked("printable", b"n,,n=ann,r=" + bytes({*range(0x21, 0x7F)} - {0x2C})),
        *marked("extensions", b"n,,n=ann,r=abc,x=1", b"n,,n=ann,r=abc,x=1,y=2,x=1"),
        *marked("attr-val", b"n,,n=ann,r=abc,x=1,Z=2", b"n,,n=ann,r=abc,M=1"),
        *marked("value", b"n,,n=ann,r=abc,x=1", "n,,n=ann,r=abc,x=\u00fc \u20ac".encode()),
        *marked("value-char", b"n,,n=ann,r=abc,x==a=="),
        *marked("ALPHA", b"n,,n=ann,r=abc,a=1,z=1,A=1,Z=1"),
    ],
)
def test_first_messages_that_are_read(message: bytes) -> None:
    assert isinstance(asks(message), Lookup)


@pytest.mark.rfc("5802 §7 client-first-message", "5802 §5 attributes-and-commas")
@pytest.mark.parametrize(
    "message",
    [
        *marked("client-first-message-bare", b"n,,", b"n,,n=ann", b"n,,r=abc", b"n,,n=ann,r=abc,"),
        *marked("client-first-message", b"", b"n=ann,r=abc", b"n,,n=ann,r=abc\n"),
        *marked("gs2-cbind-flag", b",,n=ann,r=abc", b"nn,,n=ann,r=abc", b"p,,n=ann,r=abc"),
        *marked("cb-name", b"p=,,n=ann,r=abc", b"p=a_b,,n=ann,r=abc", b"p=a b,,n=ann,r=abc"),
        *marked("gs2-header", b"n,n=ann,r=abc", b"n,b,n=ann,r=abc", b"n,,,n=ann,r=abc"),
        *marked("authzid", b"n,a=,n=ann,r=abc", b"n,a=b=c,n=ann,r=abc", b"n,a=b\0,n=ann,r=abc"),
        *marked("username", b"n,,n=,r=abc", b"n,,ann,r=abc", b"n,,u=ann,r=abc"),
        *marked("saslname", b"n,,n=a=,r=abc", b"n,,n==2,r=abc", b"n,,n==2D,r=abc", b"n,,n=a,b,r=c"),
        *marked("value-safe-char", b"n,,n=a\0b,r=abc", b"n,,n=a=b,r=abc"),
        *marked("UTF8-2", b"n,,n=\xc1\xbf,r=abc", b"n,,n=\xc3,r=abc"),
        *marked("UTF8-3", b"n,,n=\xed\xa0\x80,r=abc", b"n,,n=\xe0\x80\x80,r=abc"),
        *marked("UTF8-4", b"n,,n=\xf4\x90\x80\x80,r=abc", b"n,,n=\xf0\x80\x80\x80,r=abc"),
        *marked("nonce", b"n,,n=ann,r=", b"n,,n=ann,abc", b"n,,n=ann,R=abc"),
        *marked("c-nonce", b"n,,n=ann,r=a b", b"n,,n=ann,r=\xc3\xbc"),
        *marked("printable", *(b"n,,n=ann,r=a%cb" % o for o in (0, 9, 0x1F, 0x20, 0x7F, 0x80))),
        *marked("reserved-mext", b"n,,m=1,n=ann,r=abc", b"n,,n=ann,r=abc,m=1"),
        *marked("extensions", b"n,,n=ann,r=abc,,x=1", b"n,,n=ann,r=abc,x=1,"),
        *marked("attr-val", b"n,,n=ann,r=abc,x", b"n,,n=ann,r=abc,xy=1", b"n,,n=ann,r=abc,=1"),
        *marked("value", b"n,,n=ann,r=abc,x=", b"n,,n=ann,r=abc,x=\xff"),
        *marked("value-char", b"n,,n=ann,r=abc,x=a\0"),
        *marked("ALPHA", b"n,,n=ann,r=abc,1=1", b"n,,n=ann,r=abc,-=1"),
    ],
)
def test_first_messages_that_are_none(message: bytes) -> None:
    assert refused(message) == 501


@pytest.mark.rfc("5802 §7 cb-name", "5802 §7 DIGIT")
@pytest.mark.parametrize("name", ["tls-unique", "x", "A.9-z", "0"])
def test_names_of_bindings(name: str) -> None:
    context = evolve(CONTEXT, bindings=(ChannelBinding(name, b"x"),))
    assert asks(f"p={name},,n=ann,r=abc".encode(), SCRAM_SHA_256_PLUS, context).username == "ann"


@pytest.mark.rfc("5802 §5 first-letter-n-y-or-p", "5802 §5.1 attribute-names-are-case-sensitive")
@pytest.mark.parametrize("flag", [b"N", b"Y", b"x", b"F", b"q=tls-unique", b" n", b"P=tls-unique"])
def test_any_other_first_letter_fails(flag: bytes) -> None:
    for mechanism in SCRAM:
        assert refused(flag + b",,n=ann,r=abc", mechanism, BOUND) == 501


@pytest.mark.rfc("5802 §5.1 attribute-names-are-case-sensitive", "5802 §5.1 order-is-fixed")
@pytest.mark.parametrize(
    "message",
    [b"n,,N=ann,r=abc", b"n,A=x,n=ann,r=abc", b"n,,r=abc,n=ann", b"n,,x=1,n=ann,r=abc"],
)
def test_names_and_order_in_the_first_message(message: bytes) -> None:
    assert refused(message) == 501


@pytest.mark.rfc("5802 §5.1 m-fails", "5802 §5.1 mandatory-extensions-fail")
def test_what_has_to_be_understood_and_is_not() -> None:
    assert refused(b"n,,m=ext,n=ann,r=abc") == 501
    server, server_first = begun()
    middle = b"m=ext,c=biws,r=abcxyz"
    proof = Peer(SCRAM_SHA_256).proof(FIRST, server_first, middle)
    with pytest.raises(AuthenticationError):
        server.step(middle + b",p=" + b64(proof))
    assert fails(without_proof=b"c=biws,r=abcxyz,m=ext") == 501
    first = Peer(SCRAM_SHA_256).server_first
    disbelieved(b"m=ext," + first)
    disbelieved(first + b",m=ext")
    client, _ = client_behind(first)
    signature = Peer(SCRAM_SHA_256).signature(FIRST, first, b"c=biws,r=abcxyz")
    with pytest.raises(ExchangeError):
        client.respond(b"v=" + b64(signature) + b",m=ext")


@pytest.mark.rfc("5802 §5.1 unknown-extensions-are-ignored", "5802 §5.1 order-is-fixed")
def test_what_need_not_be_understood() -> None:
    # In any order, from either end, in each message, and covered by the proof.
    for extensions in (b",x=1,f=2", b",f=2,x=1"):
        bare = FIRST + extensions
        server, _ = finish(bare=bare, without_proof=b"c=biws,r=abcxyz" + extensions)
        assert server.step(b"") == "ann"
        peer = Peer(SCRAM_SHA_256)
        first = peer.server_first + extensions
        client, _ = client_behind(first)
        signature = peer.signature(FIRST, first, b"c=biws,r=abcxyz")
        assert client.respond(b"v=" + b64(signature) + extensions) == b""


# §§5, 7 The client's last message, as a server reads it


@pytest.mark.rfc(
    "5802 §7 client-final-message",
    "5802 §7 client-final-message-without-proof",
    "5802 §7 channel-binding",
    "5802 §7 proof",
    "5802 §5.1 order-is-fixed",
)
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"c=biws,r=abcxyz", b"r=abcxyz,c=biws"),
        (b"c=biws,", b""),
        (b",r=abcxyz", b""),
        (b"c=biws", b"c="),
        (b"c=biws", b"C=biws"),
        (b"c=biws", b"c=bi s"),
        (b",p=", b",P="),
        (b",p=", b",p=,p="),
        (b",p=", b""),
        (b"c=biws,r=abcxyz,p=", b"p=biws,c=biws,r=abcxyz,q="),
        (b",p=", b",p=A"),
        (b"=", b"= "),
    ],
)
def test_last_messages_that_are_none(old: bytes, new: bytes) -> None:
    server, server_first = begun()
    middle = b"c=biws,r=abcxyz"
    final = middle + b",p=" + b64(Peer(SCRAM_SHA_256).proof(FIRST, server_first, middle))
    assert old in final
    with pytest.raises(AuthenticationError, match="501"):
        server.step(final.replace(old, new))
    server, _ = begun()
    assert isinstance(server.step(final), Challenge)


@pytest.mark.rfc(
    "5802 §2.1 base64-has-no-white-space",
    "5802 §7 base64",
    "5802 §7 base64-char",
    "5802 §7 base64-4",
    "5802 §7 base64-3",
    "5802 §7 base64-2",
    "5802 §7 salt",
)
@pytest.mark.parametrize(
    ("text", "right"),
    [
        (b"QUJD", True),
        (b"QUI=", True),
        (b"QQ==", True),
        (b"QUJDQUI=", True),
        (b"QUJDQQ==", True),
        (b"+/09azAZ", True),
        (b"", False),
        (b"Q", False),
        (b"QQ", False),
        (b"QQ=", False),
        (b"QUI", False),
        (b"=QUI", False),
        (b"Q===", False),
        (b"QQ==QUJD", False),
        (b"QU-_", False),
        (b"QU JD", False),
        (b"QUJD ", False),
        (b"QU\tJD", False),
        pytest.param(b"QUJD=", False, marks=pytest.mark.rfc("5802 §2.1 base64-is-canonical")),
        pytest.param(b"QR==", False, marks=pytest.mark.rfc("5802 §2.1 base64-is-canonical")),
        pytest.param(b"QUJ=", False, marks=pytest.mark.rfc("5802 §2.1 base64-is-canonical")),
    ],
)
def test_base64_in_a_message(text: bytes, right: bool) -> None:
    message = b"r=abcxyz,s=%b,i=2" % text
    if right:
        client_behind(message)
    else:
        disbelieved(message)


# §§5, 7 What a client reads


@pytest.mark.rfc("5802 §7 server-first-message", "5802 §7 s-nonce", "5802 §5.1 order-is-fixed")
@pytest.mark.parametrize(
    ("message", "right"),
    [
        (b"r=abcxyz,s=QQ==,i=2", True),
        (b"r=abc!#+-.~,s=QQ==,i=2", True),
        (b"r=abcxyz,s=QQ==,i=2,x=1", True),
        (b"", False),
        (b"s=QQ==,r=abcxyz,i=2", False),
        (b"r=abcxyz,i=2,s=QQ==", False),
        (b"r=abcxyz,s=QQ==", False),
        (b"r=abcxyz,i=2", False),
        (b"s=QQ==,i=2", False),
        (b"r=abcx z,s=QQ==,i=2", False),
        (b"r=abc\xc3\xbc,s=QQ==,i=2", False),
        (b"R=abcxyz,s=QQ==,i=2", False),
        (b"r=abcxyz,s=QQ==,i=2,", False),
        (b"r=abcxyz,s=QQ==,i=2\n", False),
    ],
)
def test_first_messages_of_a_server(message: bytes, right: bool) -> None:
    if right:
        client_behind(message)
    else:
        disbelieved(message)


@pytest.mark.rfc("5802 §7 iteration-count", "5802 §7 posit-number", "5802 §7 DIGIT")
@pytest.mark.parametrize(
    ("count", "right"),
    [
        ("1", True),
        ("9", True),
        ("10", True),
        ("4096", True),
        ("0", False),
        ("01", False),
        ("-1", False),
        ("+1", False),
        ("1.0", False),
        ("0x10", False),
        ("", False),
        ("\u0661", False),
    ],
)
def test_counts(count: str, right: bool) -> None:
    message = f"r=abcxyz,s=QQ==,i={count}".encode()
    if right:
        client_behind(message)
    else:
        disbelieved(message)


ERRORS = [
    "invalid-encoding",
    "extensions-not-supported",
    "invalid-proof",
    "channel-bindings-dont-match",
    "server-does-support-channel-binding",
    "channel-binding-not-supported",
    "unsupported-channel-binding-type",
    "unknown-user",
    "invalid-username-encoding",
    "no-resources",
    "other-error",
]


@pytest.mark.rfc("5802 §7 server-error", "5802 §5.1 e-is-an-error")
@pytest.mark.parametrize(
    "value",
    [
        *marked("server-error-value", *ERRORS),
        *marked("server-error-value-ext", "no-such-thing", "x=y", "\u00fc"),
    ],
)
@pytest.mark.parametrize("extensions", ["", ",x=1"])
def test_a_server_says_why(value: str, extensions: str) -> None:
    client, _ = client_behind(Peer(SCRAM_SHA_256).server_first)
    with pytest.raises(ExchangeError, match=f"refused us: '{value}'"):
        client.respond(f"e={value}{extensions}".encode())


@pytest.mark.rfc(
    "5802 §7 server-final-message",
    "5802 §7 verifier",
    "5802 §5 client-authenticates-the-server",
    "5802 §5 wrong-signature-fails",
    "5802 §3 client-checks-the-signature",
)
def test_the_servers_signature() -> None:
    peer, other = Peer(SCRAM_SHA_256), Peer(SCRAM_SHA_256, b"another")
    said = FIRST, peer.server_first, b"c=biws,r=abcxyz"
    right = b"v=" + b64(peer.signature(*said))
    wrong = [
        b"v=" + b64(other.signature(*said)),
        b"v=" + b64(peer.proof(*said)),
        right[:-1],
        right.replace(b"v=", b"V="),
        b"x=1," + right,
        right + b",",
        b"v=",
        b"e=",
        b"e",
        b"",
        b"v=QQ==",
    ]
    for final in [right, right + b",x=1", *wrong]:
        client, _ = client_behind(peer.server_first)
        if final not in wrong:
            assert client.respond(final) == b""
            client.succeed()
            continue
        with pytest.raises(ExchangeError):
            client.respond(final)
    # Without any it is not believed either, whatever it says in SMTP.
    client, _ = client_behind(peer.server_first)
    with pytest.raises(ExchangeError):
        client.succeed()


@pytest.mark.rfc("5802 §5.1 failure-needs-no-last-message", "5802 §5 server-verifies-and-concludes")
def test_a_server_that_is_not_convinced_says_so_at_once() -> None:
    assert fails(password=b"another") == 535
    # And so it is for somebody who does not exist, at the same point.
    server = ServerExchange(SCRAM_SHA_256, b"n,,n=eve,r=abc", CONTEXT)
    server.step()
    challenge = server.step(None)
    assert isinstance(challenge, Challenge)
    with pytest.raises(AuthenticationError, match="535"):
        server.step(b"c=biws,r=abcxyz,p=" + b64(b"x" * 32))


@pytest.mark.rfc("5802 §5.1 i-is-4096-or-more")
def test_the_count_is_4096_where_nobody_says_otherwise() -> None:
    assert derive_keys("pw", SALT).iterations >= 4096
    assert ServerContext().iterations >= 4096
    assert Credentials().iterations[0] == 4096
