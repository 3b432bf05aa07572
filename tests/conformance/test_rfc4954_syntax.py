"""RFC 4954 §§5, 8: the AUTH parameter of MAIL, and the formal syntax."""

from __future__ import annotations

import base64

import pytest

from smtpproto import (
    STANDARD,
    ClientConnection,
    Content,
    Data,
    Ehlo,
    EndOfContent,
    GrammarError,
    LocalProtocolError,
    Mail,
    Mailbox,
    Parameters,
    Rcpt,
    RemoteProtocolError,
    Reply,
    State,
)
from smtpproto.core.command import Auth, AuthResponse, parse_command
from smtpproto.core.sasl import (
    Challenge,
    Credentials,
)
from smtpproto.core.xtext import decode_xtext, encode_xtext
from smtpproto.extensions.auth import SUBMITTER, Submitter
from smtpproto.mechanisms import (
    PLAIN,
)
from smtpproto.testing import play_client, play_server
from tests.conformance.logins import (
    HELLO,
    SECRET,
    greeted,
    log_in,
    logins,
    make_server,
    reply_to,
)

# §5 AUTH= in MAIL


@pytest.mark.rfc(
    "4954 §5 parameter-is-a-mailbox-or-none",
    "4954 §5 mailbox-is-xtext",
    "4954 §5 parameter-is-taken-from-anybody",
    "4954 §5.1 submitter-known",
    "4954 §5.1 submitter-unknown",
    "4954 §5 none-means-unknown",
)
@pytest.mark.parametrize(
    ("line", "submitter"),
    [
        (
            "MAIL FROM:<e=mc2@example.com> AUTH=e+3Dmc2@example.com",
            Submitter(Mailbox.parse("e=mc2@example.com")),
        ),
        ("MAIL FROM:<john+@example.org> AUTH=<>", Submitter(None)),
        ("MAIL FROM:<john+@example.org>", None),
    ],
)
def test_who_submitted(line: str, submitter: Submitter | None) -> None:
    text = f"{HELLO}S: 250 AUTH PLAIN\nC: {line}\nS: 250 2.1.0...\n"
    for login in (False, True):
        server = make_server(PLAIN)
        said = text if not login else text.replace("C: MAIL", f"C: AUTH PLAIN {SECRET}\nC: MAIL")
        said = said if not login else said.replace("S: 250 2.1", "S: 235 2.7.0...\nS: 250 2.1")
        (*_, mail) = play_server(said, server, policy=logins())
        assert isinstance(mail, Mail)
        assert SUBMITTER.of(mail.parameters) == submitter
        # Nothing is put in the place of what the client did not say.
        assert ("AUTH" in mail.parameters) is (submitter is not None)
    play_client(text, ClientConnection(STANDARD))
    if submitter is not None:
        assert Mail("a@b", SUBMITTER(submitter)).serialize().decode().split()[-1] == line.split()[2]


@pytest.mark.rfc("4954 §5 one-login-for-many-submitters")
def test_one_session_submits_for_many() -> None:
    pair = greeted(PLAIN)
    log_in(pair, PLAIN, Credentials("test", "1234"))
    for name in ("ann", "bob"):
        submitter = Submitter(Mailbox.parse(f"{name}@example.com"))
        assert reply_to(pair, Mail("list@example.com", SUBMITTER(submitter))).code == 250
        mail = pair.server_events[-1]
        assert isinstance(mail, Mail)
        assert SUBMITTER.of(mail.parameters) == submitter
        for thing in (Rcpt("c@example.net"), Data()):
            pair.send(thing)
        pair.send(Content(b"hi\r\n"), EndOfContent())


# §8 Formal syntax


@pytest.mark.rfc("4954 §8 hexchar", "4954 §8 xchar", "4954 §8 xtext")
def test_xtext() -> None:
    xchar = {*range(0x21, 0x2B), *range(0x2C, 0x3D), *range(0x3E, 0x7F)}
    for octet in range(256):
        one = bytes((octet,))
        hexchar = b"+%02X" % octet
        assert decode_xtext(hexchar) == one
        if octet in xchar:
            assert decode_xtext(one) == encode_xtext(one) == one
        else:
            assert encode_xtext(one) == hexchar
            with pytest.raises(GrammarError):
                decode_xtext(one)
    for written in (b"+", b"+4", b"a+", b"+4G", b"+ 4"):
        with pytest.raises(GrammarError):
            decode_xtext(written)
    assert decode_xtext(b"") == b""


@pytest.mark.rfc("4954 §8 auth-param")
@pytest.mark.parametrize(
    ("parameter", "right"),
    [
        (b"AUTH=<>", True),
        (b"auth=<>", True),
        (b"AUTH=a@b.example", True),
        (b"AUTH=e+3Dmc2@example.com", True),
        (b"AUTH=+61@b.example", True),
        (b'AUTH="a+20b"@example.com', True),
        (b"AUTH", False),
        (b"AUTH=", False),
        (b"AUTH=a", False),
        (b"AUTH=<a@b.example>", False),
        (b"AUTH=<", False),
        (b"AUTH=a@b.example+20", False),
        (b"AUTH=+C3+BC@example.com", False),
        (b"AUTH=a@b=c", False),
        pytest.param(
            b"AUTH=e+3dmc2@b.example",
            True,
            marks=pytest.mark.rfc("4954 §8 hexchar-in-any-case"),
        ),
    ],
)
def test_auth_param(parameter: bytes, right: bool) -> None:
    if not right:
        with pytest.raises(GrammarError) as caught:
            SUBMITTER.of(Parameters.parse(parameter))
        assert caught.value.code == 501
        return
    submitter = SUBMITTER.of(Parameters.parse(parameter))
    assert submitter is not None
    assert SUBMITTER.of(Parameters(SUBMITTER(submitter))) == submitter


@pytest.mark.rfc("4954 §8 auth-command", "4954 §8 initial-response", "4954 §8 tokens-in-any-case")
@pytest.mark.parametrize(
    ("line", "read"),
    [
        (b"AUTH PLAIN", Auth("PLAIN")),
        (b"auth plain", Auth("PLAIN")),
        (b"Auth Scram-Sha-256 QQ==", Auth("SCRAM-SHA-256", b"A")),
        (b"AUTH PLAIN =", Auth("PLAIN", b"")),
        (b"AUTH PLAIN QUJDRA==", Auth("PLAIN", b"ABCD")),
        (b"AUTH X-9_Y QUI=", Auth("X-9_Y", b"AB")),
        (b"AUTH " + b"A" * 20, Auth("A" * 20)),
        (b"AUTH", None),
        (b"AUTH  PLAIN", None),
        (b"AUTH PLAIN  QQ==", None),
        (b"AUTH PLAIN QQ== QQ==", None),
        (b"AUTH PLAIN ==", None),
        (b"AUTH PLAIN *", None),
        (b"AUTH PL/IN", None),
        (b"AUTH " + b"A" * 21, None),
    ],
)
def test_auth_command(line: bytes, read: Auth | None) -> None:
    if read is None:
        with pytest.raises(GrammarError):
            parse_command(line, {b"AUTH": Auth})
        return
    command = parse_command(line, {b"AUTH": Auth})
    assert command == read
    wire = command.serialize()
    assert wire.upper() == line.upper() + b"\r\n"
    assert parse_command(wire[:-2], {b"AUTH": Auth}) == read


@pytest.mark.rfc("4954 §8 base64", "4954 §8 base64-char", "4954 §8 base64-terminal")
@pytest.mark.parametrize(
    ("text", "data"),
    [
        (b"QQ==", b"A"),
        (b"QUI=", b"AB"),
        (b"QUJD", b"ABC"),
        (b"QUJDRA==", b"ABCD"),
        (b"+/09azAZ", b"\xfb\xfd=k0\x19"),
        (b"qUJD", b"\xa9BC"),  # in its own case
        (b"Q", None),
        (b"QQ", None),
        (b"QQ=", None),
        (b"QUJ", None),
        (b"=QQ=", None),
        (b"Q===", None),
        (b"QQ==QUJD", None),
        (b"QU-_", None),
        (b"QUJD====", None),
        (b"QU D", None),
        (b"QUJ\xc4", None),
    ],
)
def test_base64(text: bytes, data: bytes | None) -> None:
    if data is None:
        with pytest.raises(GrammarError):
            AuthResponse.parse(text)
        return
    response = AuthResponse.parse(text)
    assert response.data == data
    assert response.serialize() == text + b"\r\n"


@pytest.mark.rfc("4954 §8 continue-req")
@pytest.mark.parametrize(
    ("line", "data"), [(b"334 \r\n", b""), (b"334 QQ==\r\n", b"A"), (b"334 QUJD\r\n", b"ABC")]
)
def test_continue_req(line: bytes, data: bytes) -> None:
    assert Challenge(data).reply().serialize() == line
    pair = greeted(PLAIN)
    pair.client.send(Auth("PLAIN"))
    pair.client.receive_data(line)
    reply = pair.client.next_event()
    assert isinstance(reply, Reply)
    assert base64.b64decode(reply.lines[0], validate=True) == data
    assert pair.client.state is State.AUTH
    # 334 answers AUTH and nothing else.
    other = greeted(PLAIN)
    other.client.send(Ehlo("client.example.com"))
    other.client.receive_data(line)
    with pytest.raises(RemoteProtocolError):
        other.client.next_event()
    other.server.receive_data(b"NOOP\r\n")
    other.server.next_event()
    with pytest.raises(LocalProtocolError):
        other.server.send(Challenge(data).reply())


@pytest.mark.rfc("4954 §8 cancel-response")
def test_cancel_response() -> None:
    assert AuthResponse.parse(b"*") == AuthResponse(None)
    assert AuthResponse(None).serialize() == b"*\r\n"
    for text in (b"**", b"* ", b"=", b"*QQ=="):
        with pytest.raises(GrammarError):
            AuthResponse.parse(text)
