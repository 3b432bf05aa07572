"""RFC 4954 §§4, 6: who is logged in, what says so, and how the session goes on."""

from __future__ import annotations

import base64

import pytest
from attrs import evolve

from smtpproto import (
    BadCommand,
    Ehlo,
    EnhancedStatus,
    LocalProtocolError,
    Mail,
    Reply,
    ServerConnection,
    State,
)
from smtpproto.core.command import Auth, AuthResponse
from smtpproto.core.sasl import (
    AuthenticationError,
    Authorize,
    Challenge,
    ClientExchange,
    Credentials,
    Mechanism,
    ServerExchange,
    Verify,
    VerifyExternal,
    VerifyToken,
)
from smtpproto.core.server_connection import ServerEvent
from smtpproto.mechanisms import (
    EXTERNAL,
    LOGIN,
    OAUTHBEARER,
    PLAIN,
    SCRAM_SHA_256,
    XOAUTH2,
)
from smtpproto.server import Server
from smtpproto.testing.pair import octet_by_octet, whole
from tests.adapters.wire import connect
from tests.adapters.world import PASSWORD, Accounts, Box, running
from tests.conformance.logins import (
    BINDING,
    CONTEXT,
    IN,
    SECRET,
    TEST,
    UNBOUND,
    greeted,
    log_in,
    logins,
    play,
    reply_to,
)
from tests.sasl.exchange import ALL

# §4 Identities


ACTING = Credentials("test", "1234", "\u2168", token="token", external=True, iterations=(1, 9))


@pytest.mark.rfc("4954 §4 identities-are-prepared")
@pytest.mark.parametrize("mechanism", [PLAIN, SCRAM_SHA_256, EXTERNAL, OAUTHBEARER, XOAUTH2])
def test_both_ends_prepare_the_identity(mechanism: Mechanism) -> None:
    wire = ClientExchange(mechanism, ACTING).initial_response()
    assert wire is not None
    assert b"IX" in wire
    if mechanism is SCRAM_SHA_256:  # whose server asks only behind the proof
        account = evolve(TEST, may_act_as="IX")
        pair = greeted(mechanism, policy=logins(account))
        assert log_in(pair, mechanism, ACTING).code == 235
        assert account.log[-1] == Authorize("test", "IX")
        return
    # A client that does not prepare it is understood as if it had.
    question = ServerExchange(mechanism, wire.replace(b"IX", "\u2168".encode()), UNBOUND).step()
    assert isinstance(question, (Verify, VerifyExternal, VerifyToken))
    assert question.authorization == "IX"


@pytest.mark.rfc("4954 §4 unpreparable-identity-fails")
@pytest.mark.parametrize("identity", [b"\x07", b"\xc2\xad", "\u0627\u0031".encode()])
@pytest.mark.parametrize(
    ("mechanism", "message"),
    [
        (PLAIN, b"%b\0test\x001234"),
        (SCRAM_SHA_256, b"n,a=%b,n=test,r=abc"),
        (EXTERNAL, b"%b"),
        (OAUTHBEARER, b"n,a=%b,\1auth=Bearer token\1\1"),
        (XOAUTH2, b"user=%b\1auth=Bearer token\1\1"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_an_identity_that_cannot_be_prepared(
    mechanism: Mechanism, message: bytes, identity: bytes
) -> None:
    with pytest.raises(AuthenticationError) as caught:
        ServerExchange(mechanism, message % identity, UNBOUND).step()
    assert caught.value.reply.code == 535
    if mechanism in (PLAIN, EXTERNAL):  # where it is left out, there is nothing to prepare
        assert not isinstance(ServerExchange(mechanism, message % b"").step(), str)


# §4 How it ends


@pytest.mark.rfc("4954 §4 failure-gets-535", "4954 §6 suggested-statuses")
def test_wrong_credentials() -> None:
    wrong = base64.b64encode(b"\0test\x004321").decode()
    play(f"C: AUTH PLAIN {wrong}\nS: 535 5.7.8...\nC: NOOP\nS: 250 2.0.0...\n", PLAIN)


@pytest.mark.anyio
@pytest.mark.rfc(
    "4954 §4 success-gets-235",
    "4954 §4 failure-gets-535",
    "4954 §6 suggested-statuses",
    "4954 §6 overlong-response-status",
)
async def test_the_server_says_it_with_the_codes_suggested() -> None:
    server = Server(
        Box(),
        authenticator=Accounts(),
        plaintext_auth="always",
        failed_login_delay=0.001,
        max_failed_logins=10,
    )
    wrong, right = (
        base64.b64encode(f"\0ann\0{word}".encode()).decode() for word in ("wrong", PASSWORD)
    )
    async with running(server) as port, await connect(port) as wire:
        await wire.reply()
        await wire.ask("EHLO client.example")
        await wire.play(
            f"""
            C: AUTH PLAIN {wrong}
            S: 535 5.7.8 *
            C: AUTH PLAIN
            S: 334 *
            C: {"A" * 12_292}
            S: 500 5.5.6 *
            C: AUTH PLAIN =AAA
            S: 501 5.5.2 *
            C: AUTH PLAIN
            S: 334 *
            C: *
            S: 501 5.7.0 *
            C: AUTH PLAIN {right}
            S: 235 2.7.0 *
            C: AUTH PLAIN {right}
            S: 503 5.5.1 *
            """,
            side="C",
        )


CREDENTIALS = Credentials(
    "test",
    "1234",
    token="token",
    external=True,
    trace="",
    binding=BINDING,
    iterations=(1, 9),
)


@pytest.mark.rfc(
    "4954 §4 security-layer-is-left-unused",
    "4954 §4 no-data-with-success",
    "4954 §4 mechanisms-may-be-compared",
)
@pytest.mark.parametrize("mechanism", ALL, ids=lambda m: m.name)
def test_the_session_goes_on_as_it_was(mechanism: Mechanism) -> None:
    """No mechanism of ours puts a layer over the session, so nobody has anything to forget."""
    bound = mechanism.binds
    pair = greeted(mechanism, policy=logins(context=CONTEXT if bound else UNBOUND), tls=bound)
    offered = dict(pair.client.offered)
    given = CREDENTIALS if bound else evolve(CREDENTIALS, binding=None)
    assert log_in(pair, mechanism, given) == IN  # what was left to prove came as a challenge
    assert pair.client.authenticated
    assert pair.server.authenticated
    assert (pair.client.offered, pair.server.helo_name) == (offered, b"client.example.com")
    assert (pair.client.state, pair.server.state) == (State.READY, State.READY)
    assert reply_to(pair, Mail("a@example.org")).code == 250
    # Who wants to see whether somebody cut the list asks again.
    pair.send(Ehlo("client.example.com"))
    assert pair.client.offered == offered
    assert pair.server.authenticated


@pytest.mark.rfc("4954 §4 failed-login-may-be-left-at-that", "4954 §4 failed-login-may-be-repeated")
def test_behind_a_login_that_failed() -> None:
    pair = greeted(PLAIN, LOGIN)
    assert log_in(pair, PLAIN, Credentials("test", "wrong")).code == 535
    assert reply_to(pair, Mail("a@example.org")).code == 250
    pair = greeted(PLAIN, LOGIN)
    assert log_in(pair, PLAIN, Credentials("test", "wrong")).code == 535
    assert log_in(pair, PLAIN, Credentials("test", "1234")).code == 235
    pair = greeted(PLAIN, LOGIN)
    assert log_in(pair, PLAIN, Credentials("test", "wrong")).code == 535
    assert log_in(pair, LOGIN, Credentials("test", "1234")).code == 235


@pytest.mark.rfc("4954 §4 no-passwords-in-clear-can-be-had", "4954 §9 shown-secrets-need-tls")
def test_without_tls_no_mechanism_that_shows_a_secret() -> None:
    plaintext = [m for m in ALL if m.plaintext]
    assert {m.name for m in plaintext} >= {"PLAIN", "LOGIN", "OAUTHBEARER", "XOAUTH2"}
    for tls in (False, True):
        pair = greeted(*plaintext, in_clear=False, tls=tls)
        assert ("AUTH" in pair.client.offered) is tls
        for mechanism in plaintext:
            pair.server.receive_data(b"AUTH %b\r\n" % mechanism.name.encode())
            event = pair.server.next_event()
            assert isinstance(event, Auth if tls else BadCommand)
            pair.server.send(AuthenticationError().reply)


@pytest.mark.rfc("4954 §4 auth-ends-a-group")
def test_nothing_is_pipelined_behind_auth() -> None:
    for command in (Auth("PLAIN"), Auth("PLAIN", b"\0test\x001234")):
        client = greeted(PLAIN).client
        client.send(command)
        for other in (Mail("a@example.org"), Auth("PLAIN")):
            with pytest.raises(LocalProtocolError):
                client.send(other)


@pytest.mark.rfc("4954 §4 group-behind-a-whole-login")
def test_what_is_pipelined_behind_a_whole_login_is_heard() -> None:
    for cut in (whole, octet_by_octet):
        play(
            f"C: AUTH PLAIN {SECRET}\nC: MAIL FROM:<a@example.org>\nC: RCPT TO:<b@example.net>\n"
            "S: 235 2.7.0...\nS: 250 2.1.0...\nS: 250 2.1.5...\n",
            PLAIN,
            cut=cut,
        )
        # It is heard as what it is: with a challenge between, the next line is the response.
        play("C: AUTH PLAIN\nC: NOOP\nC: NOOP\nS: 334 \nS: 501 5.5.2...\nS: 250 2.0.0...\n", PLAIN)


# §6 The replies


CODES = [
    ("235 2.7.0", "success"),
    ("432 4.7.12", "password-transition"),
    ("454 4.7.0", "temporary-failure"),
    ("534 5.7.9", "too-weak"),
    ("535 5.7.8", "invalid-credentials"),
    ("500 5.5.6", "line-too-long"),
    ("538 5.7.11", "encryption-required"),
]


@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize(
    "code",
    [pytest.param(c, marks=pytest.mark.rfc(f"4954 §6 {c[:3]}-is-{name}")) for c, name in CODES],
)
def test_what_may_answer_auth(code: str, asked: bool) -> None:
    number, status = code.split()
    said = Reply(int(number), status, "so it is")

    def policy(server: ServerConnection, event: ServerEvent | None) -> Reply:
        if isinstance(event, Auth) and asked:
            return Challenge(b"").reply()
        return said if isinstance(event, (Auth, AuthResponse)) else server.suggested_reply()

    pair = greeted(PLAIN, policy=policy)
    reply = reply_to(pair, Auth("PLAIN"))
    if asked:
        reply = reply_to(pair, AuthResponse(b"\0test\x001234"))
    assert reply == said
    assert f"\n{code} so it is\r\n".encode() in pair.to_client
    assert pair.server.authenticated is pair.client.authenticated is (number == "235")
    assert pair.client.state is pair.server.state is State.READY
    assert reply_to(pair, Mail("a@example.org")).code == 250


@pytest.mark.rfc("4954 §6 530-is-login-first")
def test_what_may_ask_for_a_login() -> None:
    first = Reply(530, "5.7.0", "Authentication required")
    check = logins()

    def policy(server: ServerConnection, event: ServerEvent | None) -> Reply:
        wants = isinstance(event, Mail) and not server.authenticated
        return first if wants else check(server, event)

    pair = greeted(PLAIN, policy=policy)
    assert reply_to(pair, Mail("a@example.org")) == first
    assert log_in(pair, PLAIN, Credentials("test", "1234")).code == 235
    assert reply_to(pair, Mail("a@example.org")).code == 250


@pytest.mark.rfc("4954 §6 new-statuses")
@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        (["5.7.8"], 535),
        (["5.7.9"], 534),
        (["5.7.11"], 538),
        (["5.5.6", "4.5.6"], 500),
        (["4.7.12"], 432),
    ],
)
def test_the_registry_knows_the_statuses(statuses: list[str], code: int) -> None:
    for status in statuses:
        meaning = EnhancedStatus.parse(status).registered
        assert meaning is not None
        assert (meaning.rfc, code in meaning.replies) == (4954, True)
