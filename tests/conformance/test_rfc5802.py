"""RFC 5802: SCRAM, both ends: what they compute, check and say of themselves."""

from __future__ import annotations

import re

import pytest
from attrs import evolve

from smtpproto import LocalProtocolError, ServerConnection, State, TlsInfo
from smtpproto.core.sasl import (
    AuthenticationError,
    Authorize,
    Challenge,
    ChannelBinding,
    ClientExchange,
    Credentials,
    ExchangeError,
    Lookup,
    Mechanism,
    ScramKeys,
    ServerContext,
    ServerExchange,
    random_nonce,
)
from smtpproto.extensions import AUTH
from smtpproto.handler import Session
from smtpproto.mechanisms import (
    PLAIN,
    SCRAM_SHA_1,
    SCRAM_SHA_1_PLUS,
    SCRAM_SHA_256,
    SCRAM_SHA_256_PLUS,
    strongest,
)
from smtpproto.mechanisms.binding import binding_of
from smtpproto.mechanisms.scram import derive_keys
from smtpproto.server import Server
from smtpproto.testing.pair import answer
from tests.adapters.world import Box
from tests.conformance.scram_peer import (
    ANN,
    BOUND,
    CONTEXT,
    END_POINT,
    FIRST,
    SALT,
    SCRAM,
    UNIQUE,
    Peer,
    asks,
    b64,
    begun,
    client_behind,
    disbelieved,
    finish,
    refused,
)
from tests.sasl.exchange import Account, join

# §§2, 3 What is computed


@pytest.mark.rfc(
    "5802 §2.1 what-a-server-keeps",
    "5802 §2.2 hmac-hash-and-xor",
    "5802 §2.2 hi-is-pbkdf2",
    "5802 §3 keys-and-proofs",
    "5802 §3 auth-message",
    "5802 §3 server-recovers-the-client-key",
    "5802 §3 client-checks-the-signature",
    "5802 §5 client-final-message-has",
    "5802 §5.1 p-is-the-proof",
    "5802 §5.1 v-is-the-signature",
)
@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("mechanism", [SCRAM_SHA_1, SCRAM_SHA_256], ids=lambda m: m.name)
def test_the_formulas(mechanism: Mechanism, count: int) -> None:
    peer = Peer(mechanism, count=count)
    assert derive_keys("pw", SALT, iterations=count, mechanism=mechanism.name) == peer.keys
    client, final = client_behind(peer.server_first, mechanism=mechanism)
    without_proof = b"c=biws,r=abcxyz"
    said = FIRST, peer.server_first, without_proof
    assert final == without_proof + b",p=" + b64(peer.proof(*said))
    assert client.respond(b"v=" + b64(peer.signature(*said))) == b""
    client.succeed()
    server = ServerExchange(mechanism, b"n,," + FIRST, CONTEXT)
    server.step()
    assert server.step(peer.keys) == Challenge(peer.server_first)
    assert server.step(final) == Challenge(b"v=" + b64(peer.signature(*said)))
    assert server.step(b"") == "ann"


@pytest.mark.rfc("5802 §2.2 normalize-by-saslprep", "5802 §2.2 ascii-or-saslprep", "5802 §3 utf-8")
@pytest.mark.parametrize(
    ("text", "prepared"),
    [
        ("\u00bd", "1\u20442"),  # whose forms C and KC differ
        ("x\u00b4", "x \u0301"),
        ("I\u00adX", "IX"),
        ("\u00fc\u20ac\U00010348", "\u00fc\u20ac\U00010348"),
    ],
)
def test_names_and_passwords_beyond_ascii(text: str, prepared: str) -> None:
    assert (
        derive_keys(text, SALT, iterations=1)
        == Peer(SCRAM_SHA_256, prepared.encode(), count=1).keys
    )
    account = Account(prepared, prepared)
    for name, password in ((text, prepared), (prepared, text)):
        given = evolve(ANN, username=name, password=password)
        initial = ClientExchange(SCRAM_SHA_256, given).initial_response()
        assert initial == f"n,,n={prepared},r=abc".encode()
        assert join(SCRAM_SHA_256, given, account, CONTEXT) == prepared


@pytest.mark.rfc("5802 §2.2 normalize-as-stored")
def test_a_password_holds_nothing_unassigned() -> None:
    with pytest.raises(LocalProtocolError):
        derive_keys("\U0001f600", SALT)
    with pytest.raises(LocalProtocolError):
        ClientExchange(SCRAM_SHA_256, evolve(ANN, password="\U0001f600")).initial_response()


@pytest.mark.rfc(
    "5802 §3 first-message-may-come-with-auth",
    "5802 §3 name-then-salt-and-count",
    "5802 §5 client-speaks-first",
    "5802 §5 server-first-message-has",
    "5802 §5.1 s-is-the-salt",
    "5802 §5.1 i-is-there",
    "5802 §5.1 r-grows",
)
@pytest.mark.parametrize("at_once", [True, False])
def test_who_says_what_when(at_once: bool) -> None:
    assert SCRAM_SHA_256.client_first
    first = b"n,," + FIRST
    assert ClientExchange(SCRAM_SHA_256, ANN).initial_response() == first
    server = ServerExchange(SCRAM_SHA_256, first if at_once else None, CONTEXT)
    question = server.step()
    if not at_once:
        assert question == Challenge(b"")
        question = server.step(first)
    assert question == Lookup("ann", "SCRAM-SHA-256")
    salt = b"another salt"
    peer = Peer(SCRAM_SHA_256)
    said = server.step(evolve(peer.keys, salt=salt, iterations=7))
    assert said == Challenge(b"r=abcxyz,s=%b,i=7" % b64(salt))


# §4 Names


@pytest.mark.rfc(
    "5802 §4 mechanism-name", "5802 §4 names-of-20-octets", "5802 §4 scram-sha-1-is-there"
)
def test_names() -> None:
    names = [m.name for m in SCRAM]
    assert names == ["SCRAM-SHA-1", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"]
    assert max(map(len, names)) <= 20
    assert strongest(["SCRAM-SHA-1"], ANN) is SCRAM_SHA_1
    assert join(SCRAM_SHA_1, ANN, Account("ann", "pw"), CONTEXT) == "ann"


class Keys:
    """Has the keys of both hashes."""

    stored = ("SCRAM-SHA-1", "SCRAM-SHA-256")

    async def lookup(self, session: Session, question: Lookup) -> ScramKeys | bytes | None:
        return None


@pytest.mark.rfc(
    "5802 §4 plus-goes-with-binding",
    "5802 §6 server-lists-both",
    "5802 §6 server-without-binding-lists-no-plus",
    "5802 §6 binding-is-optional",
)
def test_what_a_server_lists() -> None:
    def names(context: ServerContext) -> list[str]:
        server = Server(Box(), authenticator=Keys(), sasl=context)
        return [m.name for m in server.powers.mechanisms]

    assert names(CONTEXT) == ["SCRAM-SHA-256", "SCRAM-SHA-1"]
    assert sorted(names(BOUND)) == sorted(m.name for m in SCRAM)


@pytest.mark.rfc("5802 §6 plus-alone-where-nothing-else-would-do")
def test_a_server_may_insist_on_binding() -> None:
    server = ServerConnection("mx.example", (AUTH,), mechanisms=(SCRAM_SHA_256_PLUS,))
    server.tls_started()
    server.send(server.suggested_reply())
    server.receive_data(b"EHLO c.example\r\nAUTH SCRAM-SHA-256\r\n")
    _, said = answer(server)
    assert b"250 AUTH SCRAM-SHA-256-PLUS\r\n504 " in said
    assert server.state is State.READY


# §5.1 Names


@pytest.mark.rfc(
    "5802 §5 client-first-message-has", "5802 §5.1 n-is-there", "5802 §5.1 a-is-optional"
)
@pytest.mark.parametrize(
    ("mechanism", "authorization", "binding", "message"),
    [
        (SCRAM_SHA_256, "", None, b"n,,n=ann,r=abc"),
        (SCRAM_SHA_256, "bob", None, b"n,a=bob,n=ann,r=abc"),
        (SCRAM_SHA_256, "", UNIQUE, b"y,,n=ann,r=abc"),
        (SCRAM_SHA_256_PLUS, "bob", UNIQUE, b"p=tls-unique,a=bob,n=ann,r=abc"),
    ],
)
def test_the_clients_first_message(
    mechanism: Mechanism, authorization: str, binding: ChannelBinding | None, message: bytes
) -> None:
    given = evolve(ANN, authorization=authorization, binding=binding)
    assert ClientExchange(mechanism, given).initial_response() == message


@pytest.mark.rfc(
    "5802 §5.1 a-names-another-user",
    "5802 §5.1 a-is-verified",
    "5802 §5.1 without-a-the-name-counts",
    "5802 §5.1 a-becomes-the-identity",
    "5802 §5.1 n-is-authenticated-always",
    "5802 §5 server-verifies-and-concludes",
)
def test_acting_as_somebody_else() -> None:
    account = Account("ann", "pw", may_act_as="bob")
    assert join(SCRAM_SHA_256, ANN, account, CONTEXT) == "ann"
    assert not any(isinstance(question, Authorize) for question in account.log)
    assert join(SCRAM_SHA_256, evolve(ANN, authorization="bob"), account, CONTEXT) == "bob"
    assert account.log[-2:] == [Lookup("ann", "SCRAM-SHA-256"), Authorize("ann", "bob")]
    for wrong in (
        evolve(ANN, authorization="eve"),
        evolve(ANN, authorization="bob", password="no"),
    ):
        with pytest.raises(AuthenticationError, match="535"):
            join(SCRAM_SHA_256, wrong, account, CONTEXT)


@pytest.mark.rfc("5802 §5.1 comma-and-equals-are-quoted", "5802 §5.1 a-is-quoted-as-n")
def test_commas_and_equals_signs_in_names() -> None:
    given = evolve(ANN, username="a,b=c", authorization="=,=2C")
    wire = ClientExchange(SCRAM_SHA_256, given).initial_response()
    assert wire == b"n,a==3D=2C=3D2C,n=a=2Cb=3Dc,r=abc"
    account = Account("a,b=c", "pw", may_act_as="=,=2C")
    assert join(SCRAM_SHA_256, given, account, CONTEXT) == "=,=2C"
    assert account.log == [Lookup("a,b=c", "SCRAM-SHA-256"), Authorize("a,b=c", "=,=2C")]


@pytest.mark.rfc("5802 §5.1 wrong-quoting-fails")
@pytest.mark.parametrize("name", ["=", "a=", "=a", "=2", "=2B", "=3E", "=2C=", "==2C", "=%2C"])
def test_other_uses_of_the_equals_sign(name: str) -> None:
    assert refused(f"n,,n={name},r=abc".encode()) == 501
    assert refused(f"n,a={name},n=ann,r=abc".encode()) == 501


@pytest.mark.rfc("5802 §5.1 client-prepares-the-name", "5802 §5.1 client-gives-up-on-a-name")
def test_the_client_prepares_its_name() -> None:
    def first(name: str) -> bytes | None:
        return ClientExchange(SCRAM_SHA_256, evolve(ANN, username=name)).initial_response()

    assert first("I\u00adX") == b"n,,n=IX,r=abc"
    assert first("\U0001f600") == "n,,n=\U0001f600,r=abc".encode()  # unassigned: a query
    for name in ("\x07", "\u00ad", "\u0627\u0031"):
        with pytest.raises(LocalProtocolError):
            first(name)


@pytest.mark.rfc(
    "5802 §5.1 server-prepares-the-name",
    "5802 §5.1 server-gives-up-on-a-name",
    "5802 §5.1 name-is-hashed-as-received",
)
def test_the_server_prepares_the_name_and_hashes_what_it_heard() -> None:
    for name in ("I\u00adX", "\u2168"):
        bare = f"n={name},r=abc".encode()
        assert asks(b"n,," + bare).username == "IX"
        server, said = finish(bare=bare)
        assert isinstance(said, Challenge)
        assert server.step(b"") == "IX"
    assert asks("n,,n=\U0001f600,r=abc".encode()).username == "\U0001f600"
    for name in ("\x07", "\u00ad", "\u0627\u0031"):
        assert refused(f"n,,n={name},r=abc".encode()) == 535


# §5.1 Nonces


@pytest.mark.rfc("5802 §5.1 r-is-printable", "5802 §7 nonce")
def test_our_own_nonces() -> None:
    assert re.fullmatch(r"[\x21-\x2b\x2d-\x7e]+", random_nonce())
    every = "".join(map(chr, {*range(0x21, 0x7F)} - set(b",<>@")))
    client = ClientExchange(SCRAM_SHA_256, evolve(ANN, nonce=lambda: every))
    assert client.initial_response() == f"n,,n=ann,r={every}".encode()  # nothing is quoted


@pytest.mark.rfc("5802 §5.1 r-is-printable")
@pytest.mark.parametrize("nonce", ["a,b", "a b", "", "\x7f", "\u00e4"])
def test_a_nonce_that_cannot_be_said(nonce: str) -> None:
    client = ClientExchange(SCRAM_SHA_256, evolve(ANN, nonce=lambda: nonce))
    with pytest.raises(LocalProtocolError):
        client.initial_response()
    server = ServerExchange(SCRAM_SHA_256, b"n,," + FIRST, evolve(CONTEXT, nonce=lambda: nonce))
    server.step()
    with pytest.raises(LocalProtocolError):
        server.step(Peer(SCRAM_SHA_256).keys)


@pytest.mark.rfc("5802 §5.1 r-is-fresh")
def test_every_login_has_nonces_of_its_own() -> None:
    assert len({random_nonce() for _ in range(50)}) == 50
    assert len(bytes.fromhex(random_nonce())) >= 16
    given = Credentials("ann", "pw")
    firsts = {ClientExchange(SCRAM_SHA_256, given).initial_response() for _ in range(5)}
    assert len(firsts) == 5
    context = ServerContext("mx.example")
    assert len({begun(context=context)[1] for _ in range(5)}) == 5


@pytest.mark.rfc("5802 §5.1 client-checks-the-nonce")
@pytest.mark.parametrize("nonce", [b"abc", b"ab", b"xyzabc", b"ABCxyz", b"xyz", b"ab,cxyz"])
def test_a_nonce_that_is_not_ours_and_the_servers(nonce: bytes) -> None:
    disbelieved(Peer(SCRAM_SHA_256).server_first.replace(b"abcxyz", nonce))


# §6 Channel binding


@pytest.mark.rfc("5802 §5.1 c-is-header-and-binding", "5802 §7 cbind-input", "5802 §7 cbind-data")
@pytest.mark.parametrize(
    ("mechanism", "binding", "authorization", "expected"),
    [
        (SCRAM_SHA_256, None, "", b"n,,"),
        (SCRAM_SHA_256, UNIQUE, "", b"y,,"),
        (SCRAM_SHA_256, None, "bob", b"n,a=bob,"),
        (SCRAM_SHA_256_PLUS, UNIQUE, "", b"p=tls-unique,,finished"),
        (
            SCRAM_SHA_1_PLUS,
            END_POINT,
            "bob",
            b"p=tls-server-end-point,a=bob,\x00certificate\xff",
        ),
    ],
)
def test_what_c_holds(
    mechanism: Mechanism, binding: ChannelBinding | None, authorization: str, expected: bytes
) -> None:
    given = evolve(ANN, binding=binding, authorization=authorization)
    _, final = client_behind(Peer(mechanism).server_first, given, mechanism)
    assert final.startswith(b"c=%b,r=abcxyz,p=" % b64(expected))


@pytest.mark.rfc(
    "5802 §6 c-is-always-checked",
    "5802 §5.2 authzid-is-protected",
    "5802 §6 negotiation-is-protected",
    "5802 §7 cbind-input",
)
@pytest.mark.parametrize(
    ("mechanism", "header", "bound", "said", "right"),
    [
        (SCRAM_SHA_256, b"n,,", b"", b"n,,", True),
        (SCRAM_SHA_256, b"n,,", b"", b"y,,", False),
        (SCRAM_SHA_256, b"n,,", b"", b"n,,finished", False),
        (SCRAM_SHA_256, b"n,a=ann,", b"", b"n,a=ann,", True),
        (SCRAM_SHA_256, b"n,a=ann,", b"", b"n,,", False),
        (SCRAM_SHA_256, b"n,,", b"", b"p=tls-unique,,finished", False),
        (SCRAM_SHA_256_PLUS, b"p=tls-unique,,", b"finished", b"p=tls-unique,,finished", True),
        (SCRAM_SHA_256_PLUS, b"p=tls-unique,,", b"finished", b"p=tls-unique,,another", False),
        (SCRAM_SHA_256_PLUS, b"p=tls-unique,,", b"finished", b"p=tls-unique,,", False),
        (SCRAM_SHA_256_PLUS, b"p=tls-unique,,", b"finished", b"n,,", False),
        (
            SCRAM_SHA_256_PLUS,
            b"p=tls-unique,,",
            b"finished",
            b"p=tls-server-end-point,,finished",
            False,
        ),
    ],
)
def test_what_the_server_makes_of_c(
    mechanism: Mechanism, header: bytes, bound: bytes, said: bytes, right: bool
) -> None:
    """Somebody who knows the password says in `c=` what is not so."""
    middle = b"c=%b,r=abcxyz" % b64(said)
    context = BOUND if mechanism.binds else CONTEXT
    if right:
        server, _ = finish(header, FIRST, mechanism, context, without_proof=middle)
        assert server.step(b"") == "ann"
        return
    with pytest.raises(AuthenticationError, match="535"):
        finish(header, FIRST, mechanism, context, without_proof=middle)


@pytest.mark.rfc("5802 §6.1 type-of-the-client-is-taken")
@pytest.mark.parametrize("binding", [UNIQUE, END_POINT])
@pytest.mark.parametrize("mechanism", [SCRAM_SHA_1_PLUS, SCRAM_SHA_256_PLUS], ids=lambda m: m.name)
def test_the_client_chooses_the_type(mechanism: Mechanism, binding: ChannelBinding) -> None:
    header = b"p=%b,," % binding.type.encode()
    server, _ = finish(header, FIRST, mechanism, BOUND, bound=binding.data)
    assert server.step(b"") == "ann"


@pytest.mark.rfc(
    "5802 §6 no-n-from-a-client-that-can",
    "5802 §6 p-where-plus-is-offered",
    "5802 §6 n-from-a-client-that-cannot",
    "5802 §6 p-where-binding-is-required",
    "5802 §6 binding-is-optional",
)
@pytest.mark.parametrize(
    ("offered", "binding", "mechanisms", "flag"),
    [
        ("SCRAM-SHA-256 SCRAM-SHA-256-PLUS", UNIQUE, None, b"p=tls-unique"),
        ("SCRAM-SHA-256 SCRAM-SHA-1-PLUS", UNIQUE, None, b"p=tls-unique"),
        ("SCRAM-SHA-256", UNIQUE, None, b"y"),
        ("SCRAM-SHA-256 SCRAM-SHA-256-PLUS", None, None, b"n"),
        ("SCRAM-SHA-256", None, None, b"n"),
        ("SCRAM-SHA-256", UNIQUE, [SCRAM_SHA_256_PLUS], None),
        ("SCRAM-SHA-256-PLUS", UNIQUE, [SCRAM_SHA_256_PLUS], b"p=tls-unique"),
        ("SCRAM-SHA-256-PLUS", None, None, None),
    ],
)
def test_what_the_client_says_of_binding(
    offered: str,
    binding: ChannelBinding | None,
    mechanisms: list[Mechanism] | None,
    flag: bytes | None,
) -> None:
    given = evolve(ANN, binding=binding)
    chosen = (
        strongest(offered.split(), given)
        if mechanisms is None
        else strongest(offered.split(), given, mechanisms)
    )
    if flag is None:
        assert chosen is None
        return
    assert chosen is not None
    message = ClientExchange(chosen, given).initial_response()
    assert message is not None
    assert message.partition(b",")[0] == flag


@pytest.mark.rfc("5802 §6.1 tls-unique-is-the-default", "5802 §6.1 client-has-tls-unique")
def test_the_client_binds_to_tls_unique_where_there_is_one() -> None:
    assert binding_of(TlsInfo("TLSv1.2", "c", certificate=b"any", unique=b"finished")) == UNIQUE
    assert binding_of(TlsInfo("TLSv1.2", "c", unique=b"finished")) == UNIQUE
    assert binding_of(TlsInfo("TLSv1.3", "c")) is None


# §9


@pytest.mark.rfc("5802 §9 preference-is-the-clients", "5802 §9 stronger-hash-first")
def test_the_order_is_the_clients() -> None:
    offered = ["PLAIN", "SCRAM-SHA-1", "SCRAM-SHA-256"]
    for names in (offered, offered[::-1]):
        assert strongest(names, ANN) is SCRAM_SHA_256
        assert strongest(names, ANN, [PLAIN, SCRAM_SHA_256]) is PLAIN
        assert strongest(names, ANN, [SCRAM_SHA_1, SCRAM_SHA_256]) is SCRAM_SHA_1


@pytest.mark.rfc("5802 §9 big-counts-are-refused")
def test_a_count_that_would_keep_us_busy() -> None:
    client = ClientExchange(SCRAM_SHA_256, Credentials("ann", "pw", nonce=lambda: "abc"))
    client.initial_response()
    with pytest.raises(ExchangeError, match="iterations"):
        client.respond(b"r=abcxyz,s=QQ==,i=9999999999")


@pytest.mark.rfc("5802 §5.1 client-has-a-name")
@pytest.mark.parametrize("mechanism", [SCRAM_SHA_1, SCRAM_SHA_256])
def test_a_client_needs_a_name(mechanism: Mechanism) -> None:
    with pytest.raises(LocalProtocolError):
        ClientExchange(mechanism, evolve(ANN, username="")).initial_response()
