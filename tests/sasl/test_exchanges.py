"""Client and server of each mechanism joined: they agree exactly when their secrets do."""

import base64
import hashlib
import hmac

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from smtpproto import LocalProtocolError
from smtpproto.core.errors import GrammarError
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
    ServerContext,
    ServerExchange,
    VerifyToken,
)
from smtpproto.mechanisms import (
    ANONYMOUS,
    CRAM_MD5,
    EXTERNAL,
    LOGIN,
    OAUTHBEARER,
    PLAIN,
    SCRAM_SHA_1,
    SCRAM_SHA_1_PLUS,
    SCRAM_SHA_256,
    SCRAM_SHA_256_PLUS,
    XOAUTH2,
)
from smtpproto.mechanisms.saslprep import saslprep
from smtpproto.mechanisms.scram import derive_keys

from .exchange import ALL, FEW, Account, join

BINDING = ChannelBinding("tls-server-end-point", b"\x00certificate\xff")
CONTEXT = ServerContext("mx.example", (BINDING,), iterations=FEW)
PASSWORDS = [
    PLAIN,
    LOGIN,
    CRAM_MD5,
    SCRAM_SHA_1,
    SCRAM_SHA_1_PLUS,
    SCRAM_SHA_256,
    SCRAM_SHA_256_PLUS,
]
SCRAM = [SCRAM_SHA_1, SCRAM_SHA_1_PLUS, SCRAM_SHA_256, SCRAM_SHA_256_PLUS]
WITHOUT_BINDING = evolve(CONTEXT, bindings=())


def binding(mechanism: Mechanism) -> ChannelBinding | None:
    return BINDING if mechanism.binds else None


def credentials(mechanism: Mechanism, name: str, password: str, acting_as: str = "") -> Credentials:
    return Credentials(
        name, password, acting_as, binding=binding(mechanism), iterations=(1, 10_000)
    )


names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
passwords = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)


def storable(text: str) -> bool:
    try:
        return bool(saslprep(text, stored=True))
    except GrammarError:
        return False


@pytest.mark.parametrize("mechanism", PASSWORDS, ids=lambda m: m.name)
@given(
    account=st.builds(Account, names.filter(storable), passwords.filter(storable)),
    other=st.tuples(names, passwords),
    change=st.sampled_from(["nothing", "name", "password", "both"]),
    at_once=st.booleans(),
)
def test_they_agree_exactly_when_the_secrets_do(
    mechanism: Mechanism, account: Account, other: tuple[str, str], change: str, at_once: bool
) -> None:
    name = other[0] if change in ("name", "both") else account.username
    password = other[1] if change in ("password", "both") else account.password
    given_ = credentials(mechanism, name, password)
    try:
        prepared = saslprep(name), saslprep(password)
    except GrammarError:
        prepared = None
    same = prepared == (saslprep(account.username), saslprep(account.password))
    if mechanism is CRAM_MD5:  # the secret is taken as it is
        same = same and password == account.password
    try:
        identity = join(
            mechanism, given_, account, CONTEXT, at_once=at_once and mechanism.client_first
        )
    except (AuthenticationError, LocalProtocolError):
        assert not same
    else:
        assert same
        assert identity == saslprep(account.username)


@pytest.mark.parametrize("mechanism", ALL, ids=lambda m: m.name)
def test_nothing_shows_a_secret(mechanism: Mechanism) -> None:
    given_ = Credentials(
        "ann", "s3cret", token="s3cret", trace="", external=True, binding=binding(mechanism)
    )
    account = Account("ann", "s3cret", "s3cret")
    join(mechanism, evolve(given_, iterations=(1, 9)), account, CONTEXT)
    assert "s3cret" not in repr(given_) + repr(account.log) + repr(CONTEXT)
    assert repr(CONTEXT.secret)[2:-1] not in repr(CONTEXT)


@pytest.mark.parametrize("mechanism", [PLAIN, *SCRAM], ids=lambda m: m.name)
def test_acting_as_another_is_the_callers_question(mechanism: Mechanism) -> None:
    account = Account("ann", "pw", may_act_as="bob=,")
    assert (
        join(mechanism, credentials(mechanism, "ann", "pw", "bob=,"), account, CONTEXT) == "bob=,"
    )
    with pytest.raises(AuthenticationError):
        join(mechanism, credentials(mechanism, "ann", "pw", "eve"), account, CONTEXT)
    # Nobody is asked for one who has not proved to be anybody.
    account.log.clear()
    with pytest.raises(AuthenticationError):
        join(mechanism, credentials(mechanism, "ann", "no", "bob=,"), account, CONTEXT)
    assert not any(isinstance(question, Authorize) for question in account.log)


@pytest.mark.parametrize("mechanism", [LOGIN, CRAM_MD5], ids=lambda m: m.name)
def test_mechanisms_without_room_for_another_identity_do_not_serve_it(mechanism: Mechanism) -> None:
    assert mechanism.serves(Credentials("ann", "pw"))
    assert not mechanism.serves(Credentials("ann", "pw", "bob"))


@pytest.mark.rfc(
    "4954 §4 initial-response-out-of-turn-gets-501",
    "4954 §4 initial-response-out-of-turn-has-status-5-7-0",
)
def test_no_initial_response_where_the_server_speaks_first() -> None:
    with pytest.raises(AuthenticationError, match=r"501 5\.7\.0"):
        ServerExchange(CRAM_MD5, b"").step()


@pytest.mark.parametrize("mechanism", [OAUTHBEARER, XOAUTH2], ids=lambda m: m.name)
def test_a_refused_token(mechanism: Mechanism) -> None:
    account = Account("ann", "", token="right")
    assert join(mechanism, Credentials("ann", token="right"), account) == "ann"
    with pytest.raises(AuthenticationError, match=r"535 5\.7\.8"):
        join(mechanism, Credentials("ann", token="wrong"), account)


@pytest.mark.parametrize("mechanism", [OAUTHBEARER, XOAUTH2], ids=lambda m: m.name)
def test_nobody_gets_in_without_a_token(mechanism: Mechanism) -> None:
    message = {"OAUTHBEARER": b"n,,\1auth=\1\1", "XOAUTH2": b"user=ann\1auth=\1\1"}[mechanism.name]
    server = ServerExchange(mechanism, message)
    assert isinstance(server.step(), VerifyToken)
    assert isinstance(server.step("ann"), Challenge)  # says a careless caller
    with pytest.raises(AuthenticationError):
        server.step(b"\1")


@pytest.mark.parametrize("mechanism", [OAUTHBEARER, XOAUTH2], ids=lambda m: m.name)
def test_a_server_that_refuses_a_token_and_lets_us_in(mechanism: Mechanism) -> None:
    client = ClientExchange(mechanism, Credentials("ann", token="t"))
    client.initial_response()
    client.respond(b"{}")
    with pytest.raises(ExchangeError):
        client.succeed()


@pytest.mark.parametrize("answer", [None, "", True, b"ann"])
@pytest.mark.parametrize("mechanism", [EXTERNAL, ANONYMOUS], ids=lambda m: m.name)
def test_only_an_identity_lets_in(mechanism: Mechanism, answer: object) -> None:
    server = ServerExchange(mechanism, b"")
    server.step()
    with pytest.raises(AuthenticationError, match="535"):
        server.step(answer)  # type: ignore[arg-type]  # that is the point


# SCRAM


def mitm(mechanism: Mechanism, flag: bytes, context: ServerContext) -> Lookup:
    """Give the server a first message with a flag of our own."""
    step = ServerExchange(mechanism, flag + b",,n=ann,r=abc", context).step()
    assert isinstance(step, Lookup)
    return step


@pytest.mark.rfc("5802 §6 y-fails-where-binding-is-supported", "5802 §6 unknown-binding-type-fails")
@pytest.mark.parametrize(
    ("plus", "plain"), [(SCRAM_SHA_1_PLUS, SCRAM_SHA_1), (SCRAM_SHA_256_PLUS, SCRAM_SHA_256)]
)
def test_flags_of_channel_binding(plus: Mechanism, plain: Mechanism) -> None:
    bound = b"p=tls-server-end-point"
    mitm(plus, bound, CONTEXT)
    mitm(plain, b"n", CONTEXT)
    mitm(plain, b"n", WITHOUT_BINDING)
    mitm(plain, b"y", WITHOUT_BINDING)
    for mechanism, flag, context in [
        (plain, b"y", CONTEXT),  # somebody cut our list
        (plain, bound, CONTEXT),
        (plain, bound, WITHOUT_BINDING),
        (plus, b"n", CONTEXT),
        (plus, b"y", CONTEXT),
        (plus, b"p=tls-unique", CONTEXT),  # not one of ours
    ]:
        with pytest.raises(AuthenticationError, match="535"):
            mitm(mechanism, flag, context)


@pytest.mark.rfc("5802 §6 no-n-from-a-client-that-can", "5802 §6 n-from-a-client-that-cannot")
def test_what_the_client_says_of_binding() -> None:
    able = Credentials("ann", "pw", binding=BINDING, nonce=lambda: "abc")
    first = {
        m: ClientExchange(m, able).initial_response() for m in (SCRAM_SHA_256, SCRAM_SHA_256_PLUS)
    }
    assert first[SCRAM_SHA_256] == b"y,,n=ann,r=abc"
    assert first[SCRAM_SHA_256_PLUS] == b"p=tls-server-end-point,,n=ann,r=abc"
    unable = ClientExchange(SCRAM_SHA_256, evolve(able, binding=None))
    assert unable.initial_response() == b"n,,n=ann,r=abc"
    with pytest.raises(LocalProtocolError):
        ClientExchange(SCRAM_SHA_256_PLUS, evolve(able, binding=None)).initial_response()


@pytest.mark.rfc("5802 §6 c-is-always-checked")
def test_somebody_in_the_middle_has_another_channel() -> None:
    theirs = evolve(CONTEXT, bindings=(ChannelBinding(BINDING.type, b"another"),))
    with pytest.raises(AuthenticationError, match="535"):
        join(
            SCRAM_SHA_256_PLUS,
            credentials(SCRAM_SHA_256_PLUS, "ann", "pw"),
            Account("ann", "pw"),
            theirs,
        )


@pytest.mark.rfc("5802 §6 y-fails-where-binding-is-supported")
def test_a_cut_list_of_mechanisms_is_noticed() -> None:
    able = evolve(credentials(SCRAM_SHA_256, "ann", "pw"), binding=BINDING)
    with pytest.raises(AuthenticationError):
        join(SCRAM_SHA_256, able, Account("ann", "pw"), CONTEXT)
    join(SCRAM_SHA_256, able, Account("ann", "pw"), WITHOUT_BINDING)


def first_answer(name: str, context: ServerContext, account: Account) -> bytes:
    server = ServerExchange(SCRAM_SHA_256, f"n,,n={name},r=abc".encode(), context)
    question = server.step()
    assert not isinstance(question, str)
    challenge = server.step(account(question))
    assert isinstance(challenge, Challenge)
    return challenge.data


def test_an_unknown_user_looks_like_a_known_one() -> None:
    context = evolve(CONTEXT, nonce=lambda: "s")
    account = Account("ann", "pw")
    known, unknown = (first_answer(name, context, account) for name in ("ann", "eve"))
    assert unknown != known
    assert len(unknown) == len(known)
    assert unknown.rpartition(b",")[2] == known.rpartition(b",")[2]
    assert first_answer("eve", context, account) == unknown  # always the same salt
    assert first_answer("bob", context, account) != unknown
    another = evolve(context, secret=b"another server's")
    assert first_answer("eve", another, account) != unknown
    with pytest.raises(AuthenticationError, match=r"535 5\.7\.8"):
        join(SCRAM_SHA_256, credentials(SCRAM_SHA_256, "eve", "pw"), account, context)


def server_first(iterations: object = 4096, nonce: str = "abcdef", salt: str = "QQ==") -> bytes:
    return f"r={nonce},s={salt},i={iterations}".encode()


@pytest.mark.rfc("5802 §9 big-counts-are-refused")
@pytest.mark.parametrize("iterations", [2**31, 1_000_001, 4095, 1, 9**15])
def test_a_server_cannot_keep_us_busy_or_careless(iterations: int) -> None:
    client = ClientExchange(SCRAM_SHA_256, Credentials("ann", "pw", nonce=lambda: "abc"))
    client.initial_response()
    with pytest.raises(ExchangeError, match="iterations"):
        client.respond(server_first(iterations))


@pytest.mark.rfc("5802 §7 server-first-message", "5802 §5.1 client-checks-the-nonce")
@pytest.mark.parametrize(
    "challenge",
    [
        b"",
        b"r=abcdef",
        server_first(nonce="abc"),
        server_first(nonce="xyzdef"),
        server_first(0),
        server_first("04096"),
        server_first("4_096"),
        server_first("٤٠٩٦"),
        server_first("9" * 5000),
        server_first(salt="Q"),
        server_first(salt=""),
        b"m=x," + server_first(),
        server_first() + b",m=x",
        server_first() + b",x",
        server_first() + b"\n",
        b"e=other-error",
    ],
)
def test_malformed_first_messages_of_a_server(challenge: bytes) -> None:
    client = ClientExchange(SCRAM_SHA_256, Credentials("ann", "pw", nonce=lambda: "abc"))
    client.initial_response()
    with pytest.raises(ExchangeError):
        client.respond(challenge)


@pytest.mark.rfc("5802 §5.1 unknown-extensions-are-ignored")
def test_optional_extensions_are_ignored() -> None:
    client = ClientExchange(SCRAM_SHA_256, Credentials("ann", "pw", nonce=lambda: "abc"))
    client.initial_response()
    assert client.respond(server_first() + b",x=1,y=2") is not None
    server = ServerExchange(SCRAM_SHA_256, b"n,,n=ann,r=abc,x=1")
    assert server.step() == Lookup("ann", "SCRAM-SHA-256")


@pytest.mark.rfc("5802 §5 wrong-signature-fails")
@pytest.mark.parametrize(
    "final", [b"v=" + b"A" * 43 + b"=", b"v=AAAA", b"v=", b"e=invalid-proof", b"", b"v=A,m=1"]
)
def test_a_server_that_does_not_know_us_is_refused(final: bytes) -> None:
    client = ClientExchange(SCRAM_SHA_256, Credentials("ann", "pw", nonce=lambda: "abc"))
    client.initial_response()
    client.respond(server_first())
    with pytest.raises(ExchangeError):
        client.respond(final)


@pytest.mark.rfc("5802 §5 wrong-signature-fails")
@pytest.mark.parametrize("challenges", [[], [server_first()]])
def test_a_server_that_proves_nothing_is_refused(challenges: list[bytes]) -> None:
    client = ClientExchange(SCRAM_SHA_256, Credentials("ann", "pw", nonce=lambda: "abc"))
    client.initial_response()
    for challenge in challenges:
        client.respond(challenge)
    with pytest.raises(ExchangeError, match="without proving"):
        client.succeed()


@pytest.mark.rfc("5802 §7 client-first-message")
@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"", 501),
        (b"n,,n=,r=abc", 501),
        (b"n,,n=ann,r=", 501),
        (b"n,,n=ann,r=a b", 501),
        (b"x,,n=ann,r=abc", 501),
        (b"p=,,n=ann,r=abc", 501),
        (b"n,,m=1,n=ann,r=abc", 501),
        (b"n,,n=ann,r=abc,m=1", 501),
        (b"n,,n=a=n,r=abc", 501),
        (b"n,,n=a=2c,r=abc", 501),
        (b"n,,n=a\0n,r=abc", 501),
        (b"n,,n=\xff,r=abc", 501),
        (b"n,a=,n=ann,r=abc", 501),
        (b"n,,n=\x07,r=abc", 535),
        (b"n,,n=\xc2\xad,r=abc", 535),  # prepared, nothing is left of it
        (b"n,a=\x07,n=ann,r=abc", 535),
    ],
)
def test_malformed_first_messages_of_a_client(message: bytes, code: int) -> None:
    with pytest.raises(AuthenticationError) as caught:
        ServerExchange(SCRAM_SHA_256, message).step()
    assert caught.value.reply.code == code


@pytest.mark.rfc("5802 §7 client-final-message", "5802 §6 c-is-always-checked")
@pytest.mark.parametrize(
    ("change", "code"),
    [
        ((b"c=biws", b"c=eSws"), 535),  # `y,,`: not what it said first
        ((b"r=abc", b"r=abd"), 535),
        ((b",p=", b",m=1,p="), 501),
        ((b",p=", b",p=AAAA"), 501),
        ((b",p=", b",p=="), 501),
        ((b"c=biws,", b""), 501),
        ((b",p=", b",x=1,p="), 535),  # an extension counts in the proof
    ],
)
def test_last_messages_that_were_tampered_with(change: tuple[bytes, bytes], code: int) -> None:
    account = Account("ann", "pw")
    given_ = evolve(credentials(SCRAM_SHA_256, "ann", "pw"), nonce=lambda: "abc")
    client = ClientExchange(SCRAM_SHA_256, given_)
    server = ServerExchange(SCRAM_SHA_256, client.initial_response(), CONTEXT)
    question = server.step()
    assert isinstance(question, Lookup)
    challenge = server.step(account(question))
    assert isinstance(challenge, Challenge)
    final = client.respond(challenge.data)
    assert final is not None
    assert change[0] in final
    with pytest.raises(AuthenticationError) as caught:
        server.step(final.replace(*change))
    assert caught.value.reply.code == code


def test_a_made_up_nonce_source_is_told() -> None:
    for nonce in ("", "a,b", "a b", "ä"):
        client = ClientExchange(SCRAM_SHA_256, Credentials("a", "b", nonce=lambda: nonce))  # noqa: B023
        with pytest.raises(LocalProtocolError):
            client.initial_response()


def test_an_exchange_that_is_over_says_so() -> None:
    server = ServerExchange(ANONYMOUS, b"")
    server.step()
    server.step("guest")
    with pytest.raises(LocalProtocolError):
        server.step(b"")


def test_what_is_made_up_lets_nobody_in() -> None:
    # Even who knows the server's own secret is nobody by it.
    context = evolve(CONTEXT, secret=b"made up")
    with pytest.raises(AuthenticationError):
        join(CRAM_MD5, Credentials("eve", "made up"), Account("ann", "pw"), context)


@pytest.mark.rfc("5802 §5.1 server-checks-the-nonce", "5802 §5 server-verifies-and-concludes")
def test_another_nonce_in_the_last_message_even_with_a_fitting_proof() -> None:
    """Somebody who knows the password cannot drop the server's part of the nonce."""
    password, salt = b"pw", b"0123456789abcdef"
    keys = derive_keys("pw", salt, iterations=FEW)
    first = b"n=ann,r=abc"
    server = ServerExchange(SCRAM_SHA_256, b"n,," + first, CONTEXT)
    server.step()
    challenge = server.step(keys)
    assert isinstance(challenge, Challenge)
    without_proof = b"c=biws,r=abc"
    auth_message = b",".join((first, challenge.data, without_proof))
    salted = hashlib.pbkdf2_hmac("sha256", password, salt, FEW)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    signature = hmac.digest(keys.stored_key, auth_message, "sha256")
    proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
    with pytest.raises(AuthenticationError, match=r"535 5\.7\.8"):
        server.step(without_proof + b",p=" + base64.b64encode(proof))
