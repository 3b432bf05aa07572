"""RFC 4954 §§3-4: AUTH at both ends, up to how it ends."""

from __future__ import annotations

import binascii
import re

import pytest
from attrs import evolve

from smtpproto import (
    STANDARD,
    BadCommand,
    ClientConnection,
    Content,
    Data,
    EndOfContent,
    LocalProtocolError,
    Mail,
    Mailbox,
    Rcpt,
    Reply,
    ServerConnection,
)
from smtpproto.core.command import Auth, AuthResponse
from smtpproto.core.sasl import (
    Challenge,
    ClientExchange,
    Credentials,
    Mechanism,
    ServerContext,
)
from smtpproto.extensions import AUTH
from smtpproto.extensions.auth import SUBMITTER, Submitter
from smtpproto.mechanisms import (
    CRAM_MD5,
    EXTERNAL,
    LOGIN,
    OAUTHBEARER,
    PLAIN,
    SCRAM_SHA_256,
    SCRAM_SHA_256_PLUS,
)
from smtpproto.result import LoginError
from smtpproto.testing import play_client, play_server
from smtpproto.testing.pair import Cut, octet_by_octet, whole
from tests.adapters.wire import raw_server, script
from tests.adapters.world import PASSWORD, clear
from tests.conformance.logins import (
    HELLO,
    IN,
    SECRET,
    both,
    challenging,
    greeted,
    log_in,
    logins,
    make_server,
    play,
    reply_to,
)
from tests.sasl.exchange import Account

# §4.1 The examples, with mechanisms that we have


@pytest.mark.rfc(
    "4954 §3 keyword-is-auth",
    "4954 §3 verb-is-auth",
    "4954 §3 mechanisms-change-behind-starttls",
    "4954 §4 mechanism-is-named-first",
    "4954 §4 offered-mechanism-is-performed",
    "4954 §4 initial-response-saves-a-round-trip",
    "4954 §4.1 plain-at-once",
)
def test_plain_with_an_initial_response_behind_starttls() -> None:
    text = (
        HELLO
        + f"""\
S: 250-STARTTLS
S: 250 AUTH SCRAM-SHA-256
C: STARTTLS
S: 220 2.0.0 Ready to start TLS
-- TLS
C: EHLO client.example.com
S: 250-smtp.example.com greets client.example.com
S: 250-PIPELINING
S: 250-ENHANCEDSTATUSCODES
S: 250 AUTH SCRAM-SHA-256 PLAIN
C: AUTH PLAIN {SECRET}
S: 235 2.7.0 Authentication successful
"""
    )
    server = make_server(SCRAM_SHA_256, PLAIN, in_clear=False, tls_available=True)
    both(text, server, logins())
    assert server.authenticated


@pytest.mark.rfc(
    "4954 §4 missing-initial-response-is-asked-for",
    "4954 §4 empty-challenge-is-334-and-a-space",
    "4954 §4 response-is-a-line-of-base64",
    "4954 §4.1 plain-when-asked",
)
def test_plain_without_an_initial_response() -> None:
    lines = f"C: AUTH PLAIN\nS: 334 \nC: {SECRET}\nS: 235 2.7.0 Authentication successful\n"
    both(f"{HELLO}S: 250 AUTH PLAIN\n{lines}", make_server(PLAIN), logins())


@pytest.mark.rfc("4954 §4 challenge-is-334-with-base64", "4954 §4.1 cram-md5")
def test_cram_md5() -> None:
    challenge = "PDQxOTI5NDIzNDEuMTI4Mjg0NzJAc291cmNlZm91ci5hbmRyZXcuY211LmVkdT4="
    response = "cmpzMyBlYzNhNTlmZWQzOTVhYmExZWM2MzY3YzRmNGI0MWFjMA=="
    context = ServerContext("sourcefour.andrew.cmu.edu", nonce=lambda: "4192942341.12828472")
    # The secret is not told; who logs in so is not the point here, the words are.
    lines = f"C: AUTH CRAM-MD5\nS: 334 {challenge}\nC: {response}\nS: 535 5.7.8...\n"
    text = f"{HELLO}S: 250 AUTH CRAM-MD5\n{lines}"
    both(text, make_server(CRAM_MD5), logins(lambda question: b"secret", context))


@pytest.mark.rfc("4954 §4 empty-initial-response-is-equals", "4954 §4.1 external")
def test_external_with_an_empty_initial_response() -> None:
    lines = "C: AUTH EXTERNAL =\nS: 235 2.7.0 Authentication successful\n"
    both(f"{HELLO}S: 250 AUTH EXTERNAL\n{lines}", make_server(EXTERNAL), logins())
    # There and empty is not the same as not there.
    assert Auth("EXTERNAL", b"").serialize() == b"AUTH EXTERNAL =\r\n"
    assert Auth("EXTERNAL").serialize() == b"AUTH EXTERNAL\r\n"
    events = play(lines, EXTERNAL)
    assert events[-1] == Auth("EXTERNAL", b"")


# §3 What is announced


@pytest.mark.rfc("4954 §3 mechanisms-are-listed", "4954 §3 keyword-is-auth")
def test_the_names_are_listed_with_spaces_between() -> None:
    pair = greeted(SCRAM_SHA_256, PLAIN, LOGIN)
    assert b"250 AUTH SCRAM-SHA-256 PLAIN LOGIN\r\n" in pair.to_client
    assert pair.client.offered["AUTH"].split() == ["SCRAM-SHA-256", "PLAIN", "LOGIN"]


@pytest.mark.rfc("4954 §3 mechanisms-are-listed")
def test_the_names_are_those_of_mechanisms_that_can_be_used_now() -> None:
    """Not those that show a password, nor those that bind to TLS, while there is no TLS."""
    server = make_server(SCRAM_SHA_256_PLUS, SCRAM_SHA_256, PLAIN, LOGIN, in_clear=False)
    assert server.offered["AUTH"] == "SCRAM-SHA-256"
    server.tls_started()
    assert server.offered["AUTH"] == "SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN LOGIN"
    assert "AUTH" not in make_server(PLAIN, in_clear=False).offered


@pytest.mark.rfc("4954 §3 parameter-adds-500-octets")
@pytest.mark.parametrize(("mechanisms", "longest"), [((PLAIN,), 512 + 500), ((), 512)])
def test_the_parameter_makes_room_for_itself(
    mechanisms: tuple[Mechanism, ...], longest: int
) -> None:
    for surplus in (0, 1):
        server = ServerConnection("s", (AUTH,), mechanisms=mechanisms, plaintext_auth=True)
        server.send(server.suggested_reply())
        server.receive_data(b"EHLO c.example\r\n")
        server.next_event()
        server.send(server.suggested_reply())
        head = b"MAIL FROM:<> AUTH="
        server.receive_data(head + b"x" * (longest + surplus - len(head) - 2) + b"\r\n")
        event = server.next_event()
        assert isinstance(event, BadCommand)
        assert (event.reply.code == 500) is (surplus > 0)


@pytest.mark.rfc("4954 §3 parameter-adds-500-octets")
def test_a_client_uses_the_room() -> None:
    # Every `=` becomes three octets.
    submitter = Submitter(Mailbox.parse(f"{'=' * 64}@{'.'.join(['d' * 60] * 3)}"))
    sender = f"{'a' * 64}@{'.'.join(['s' * 60] * 3)}"
    command = Mail(sender, SUBMITTER(submitter))
    assert len(command.serialize()) > 512
    pair = greeted(PLAIN)
    assert reply_to(pair, command).code == 250
    assert pair.server_events[-1] == command


# §4 When it may be said


@pytest.mark.rfc("4954 §4 only-one-login", "4954 §4 second-login-gets-503")
def test_one_login_a_session() -> None:
    pair = greeted(PLAIN)
    assert log_in(pair, PLAIN, Credentials("test", "1234")).code == 235
    with pytest.raises(LocalProtocolError):
        pair.send(Auth("PLAIN", b""))
    play(
        f"C: AUTH PLAIN {SECRET}\nS: 235 2.7.0...\n"
        f"C: AUTH PLAIN {SECRET}\nS: 503 5.5.1...\nC: AUTH PLAIN\nS: 503 5.5.1...\n",
        PLAIN,
    )


@pytest.mark.rfc("4954 §4 no-login-in-a-transaction", "4954 §4 login-in-a-transaction-gets-503")
def test_no_login_within_a_transaction() -> None:
    pair = greeted(PLAIN)
    for command in (Mail("a@example.org"), Rcpt("b@example.net")):
        pair.send(command)
        with pytest.raises(LocalProtocolError):
            pair.send(Auth("PLAIN"))
        pair.feed_server(b"")
        pair.server.receive_data(f"AUTH PLAIN {SECRET}\r\n".encode())
        event = pair.server.next_event()
        assert isinstance(event, BadCommand)
        assert (event.reply.code, event.command) == (503, Auth("PLAIN", b"test\0test\x001234"))
        with pytest.raises(LocalProtocolError):
            pair.server.send(IN)
        pair.server.send(event.reply)
    pair.send(Data())
    with pytest.raises(LocalProtocolError):
        pair.send(Auth("PLAIN"))
    pair.send(Content(b"hi\r\n"), EndOfContent())
    assert log_in(pair, PLAIN, Credentials("test", "1234")).code == 235


@pytest.mark.rfc(
    "4954 §4 unusable-mechanism-gets-504",
    "4954 §4 unusable-mechanism-has-status-5-5-4",
    "4954 §6 not-advertised-in-clear",
    "4954 §6 suggested-statuses",
)
def test_a_mechanism_that_cannot_be_used_here() -> None:
    unknown, needs_tls = "S: 504 5.5.4...\n", "C: AUTH PLAIN\nS: 504 5.5.4...\n"
    play(f"C: AUTH GSSAPI\n{unknown}C: AUTH LOGIN YQ==\n{unknown}", PLAIN)
    text = f"{HELLO}S: 250 AUTH SCRAM-SHA-256\n{needs_tls}"
    play_server(text, make_server(SCRAM_SHA_256, PLAIN, in_clear=False), policy=logins())


# §4 Initial responses, challenges and responses


@pytest.mark.rfc(
    "4954 §4 auth-line-is-no-longer-than-others", "4954 §4 long-initial-response-waits"
)
def test_the_line_of_auth_has_512_octets_at_most() -> None:
    pair = greeted(EXTERNAL)
    fits = Auth("EXTERNAL", b"x" * 372)
    assert len(fits.serialize()) == 512
    with pytest.raises(LocalProtocolError):
        pair.client.send(evolve(fits, initial_response=b"x" * 373))
    assert pair.client.owed == 0
    pair.client.send(fits)


@pytest.mark.rfc(
    "4954 §4 initial-response-out-of-turn-gets-501",
    "4954 §4 initial-response-out-of-turn-has-status-5-7-0",
)
@pytest.mark.parametrize("response", ["=", "QQ=="])
def test_an_initial_response_where_the_server_speaks_first(response: str) -> None:
    play(f"C: AUTH CRAM-MD5 {response}\nS: 501 5.7.0...\nC: NOOP\nS: 250 2.0.0...\n", CRAM_MD5)


NO_BASE64 = [
    "AAAA=",
    "AAAA====",
    "=AAA",
    "AAA=BBB",
    "A",
    "AA",
    "AAA",
    "AA=",
    "AA=A",
    "AAA=AAA=",
    "AA==AA==",
    "AA AA===",
    "AA-_",
    "AAA\\x80",
    "AA.A",
    "====",
]


@pytest.mark.rfc(
    "4954 §4 undecodable-response-gets-501-5-5-2",
    "4954 §4 base64-is-read-strictly",
    "4954 §4 initial-response-is-base64-or-equals",
)
@pytest.mark.rfc("4954 §8 base64-has-no-needless-padding")
@pytest.mark.parametrize("text", NO_BASE64)
def test_a_response_that_is_no_base64(text: str) -> None:
    play(f"C: AUTH PLAIN {text}\nS: 501 5.5.2...\nC: NOOP\nS: 250 2.0.0...\n", PLAIN)
    asked = f"C: AUTH PLAIN\nS: 334 \nC: {text}\nS: 501 5.5.2...\nC: NOOP\nS: 250 2.0.0...\n"
    assert isinstance(play(asked, PLAIN, cut=octet_by_octet)[-2], BadCommand)


@pytest.mark.anyio
@pytest.mark.rfc("4954 §4 undecodable-challenge-is-cancelled", "4954 §4 base64-is-read-strictly")
@pytest.mark.parametrize("text", ["=AAA", "AAA=BBB", "no base64", "AAA", "AA==AA==", "AAAA="])
async def test_a_challenge_that_is_no_base64(text: str) -> None:
    lines = f"""
    S: 220 hi\nC: EHLO *\nS: 250-hi\nS: 250 AUTH LOGIN
    C: AUTH LOGIN\nS: 334 {text}
    C: [*]\nS: 501 5.7.0 cancelled\nC: QUIT\nS: 221 bye
    """
    async with raw_server(script(lines)) as port:
        with pytest.raises(LoginError, match=r"501 5\.7\.0 cancelled"):
            await clear(
                port, login=("ann", PASSWORD), login_in_clear=True, mechanisms=[LOGIN]
            ).__aenter__()


@pytest.mark.anyio
@pytest.mark.rfc("4954 §4 challenge-of-two-lines-is-cancelled")
async def test_a_challenge_of_two_lines_is_cancelled() -> None:
    lines = """
    S: 220 hi\nC: EHLO *\nS: 250-hi\nS: 250 AUTH LOGIN
    C: AUTH LOGIN\nS: 334-VXNlcm5hbWU6\nS: 334 VXNlcm5hbWU6
    C: [*]\nS: 501 5.7.0 cancelled\nC: QUIT\nS: 221 bye
    """
    async with raw_server(script(lines)) as port:
        with pytest.raises(LoginError, match=r"501 5\.7\.0 cancelled"):
            await clear(
                port, login=("ann", PASSWORD), login_in_clear=True, mechanisms=[LOGIN]
            ).__aenter__()


@pytest.mark.rfc("4954 §4 star-cancels", "4954 §4 cancelled-exchange-gets-501")
@pytest.mark.parametrize(
    "lines",
    [
        "C: AUTH PLAIN\nS: 334 \nC: *\nS: 501 5.7.0...\nC: NOOP\nS: 250 2.0.0 Ok\n",
        "C: AUTH LOGIN dGVzdA==\nS: 334 UGFzc3dvcmQ6\nC: *\nS: 501 5.7.0...\n"
        "C: NOOP\nS: 250 2.0.0 Ok\n",
    ],
)
def test_either_end_cancels_and_goes_on(lines: str) -> None:
    events = play(lines, PLAIN, LOGIN)
    assert events[-2] == AuthResponse(None)
    text = f"{HELLO}S: 250 AUTH PLAIN LOGIN\n{lines}"
    client = ClientConnection(STANDARD)
    play_client(text, client)
    assert not client.authenticated


@pytest.mark.rfc("4954 §4 challenge-holds-nothing-else")
@pytest.mark.parametrize("data", [b"", b"a", bytes(range(256)), b"x" * 9000])
def test_a_challenge_is_one_line_of_base64_and_no_status(data: bytes) -> None:
    pair = greeted(PLAIN, policy=challenging(data))
    before = len(pair.to_client)
    (reply,) = pair.send(Auth("PLAIN"))
    line = re.fullmatch(rb"334 ([A-Za-z0-9+/]*=*)\r\n", pair.to_client[before:])
    assert line is not None
    assert binascii.a2b_base64(line[1], strict_mode=True) == data
    assert isinstance(reply, Reply)
    assert reply.lines == (line[1],)


@pytest.mark.rfc(
    "4954 §4 long-lines-are-handled",
    "4954 §4 auth-lines-have-limits-of-their-own",
    "4954 §4 12288-octets-are-enough",
)
@pytest.mark.parametrize("cut", [whole, octet_by_octet])
def test_long_challenges_and_responses(cut: Cut) -> None:
    token = "t" * 9000
    account = Account("test", "", token)
    pair = greeted(OAUTHBEARER, policy=logins(account), cut=cut)
    exchange = ClientExchange(OAUTHBEARER, Credentials("test", token=token))
    initial = exchange.initial_response()
    with pytest.raises(LocalProtocolError):
        pair.client.send(Auth("OAUTHBEARER", initial))
    assert reply_to(pair, Auth("OAUTHBEARER")) == Challenge(b"").reply()
    response = AuthResponse(initial)
    assert 12_000 < len(response.serialize()) <= 12_290
    assert reply_to(pair, response).code == 235
    # A server also reads what a client should have held back.
    server = make_server(OAUTHBEARER)
    line = Auth("OAUTHBEARER", initial).serialize().decode().removesuffix("\r\n")
    text = f"{HELLO}S: 250 AUTH OAUTHBEARER\nC: {line}\nS: 235 2.7.0...\n"
    play_server(text, server, policy=logins(account), cut=cut)


@pytest.mark.rfc(
    "4954 §4 overlong-response-gets-500",
    "4954 §4 overlong-response-has-status-5-5-6",
    "4954 §6 overlong-response-status",
    "4954 §6 suggested-statuses",
)
@pytest.mark.parametrize("cut", [whole, octet_by_octet])
def test_a_response_that_is_too_long(cut: Cut) -> None:
    line, after = "A" * 12_292, "S: 500 5.5.6...\nC: NOOP\nS: 250 2.0.0...\n"
    play(f"C: AUTH PLAIN\nS: 334 \nC: {line}\n{after}", PLAIN, cut=cut)
    play(f"C: AUTH PLAIN {line}\n{after}", PLAIN, cut=cut)
