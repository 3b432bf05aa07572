"""SASL (RFC 4422): PLAIN (RFC 4616) and LOGIN, both sides."""

import pytest

from smtpproto import LocalProtocolError
from smtpproto.core.sasl import (
    AuthenticationError,
    Challenge,
    ClientExchange,
    Credentials,
    Mechanism,
    ServerExchange,
    Verify,
    random_nonce,
)
from smtpproto.mechanisms import LOGIN, PLAIN


@pytest.mark.parametrize("mechanism", [PLAIN, LOGIN])
@pytest.mark.parametrize("answer", [True, False])
@pytest.mark.parametrize("at_once", [True, False])
def test_the_two_sides_understand_each_other(
    mechanism: Mechanism, answer: bool, at_once: bool
) -> None:
    client = ClientExchange(mechanism, Credentials("üser", "pass wörd"))
    initial = client.initial_response()
    server = ServerExchange(mechanism, initial if at_once else None)
    question = server.step()
    if not at_once and initial is not None:
        assert question == Challenge(b"")
        question = server.step(initial)
    while isinstance(question, Challenge):
        response = client.respond(question.data)
        assert response is not None
        question = server.step(response)
    assert question == Verify("üser", "pass wörd")
    assert "pass" not in repr(question)
    if answer:
        assert server.step(True) == "üser"
    else:
        with pytest.raises(AuthenticationError) as caught:
            server.step(False)
        assert caught.value.reply.code == 535
    assert client.respond(b"more?") is None


@pytest.mark.rfc("4616 §2 three-parts-in-order")
def test_plain_acts_for_another() -> None:
    client = ClientExchange(PLAIN, Credentials("me", "pw", "you"))
    server = ServerExchange(PLAIN, client.initial_response())
    assert server.step() == Verify("me", "pw", "you")
    assert server.step(True) == "you"


@pytest.mark.rfc("4616 §2 message")
@pytest.mark.parametrize(
    "message",
    [b"", b"a", b"\0a", b"\0\0b", b"\0a\0", b"\0a\0b\0", b"\0a\0b\0c", b"\0\xff\0b", b"\xff\0a\0b"],
)
def test_malformed_plain(message: bytes) -> None:
    with pytest.raises(AuthenticationError) as caught:
        ServerExchange(PLAIN, message).step()
    assert str(caught.value.reply).startswith("501 5.5.2")


@pytest.mark.rfc("4616 §2 no-nul-in-a-part")
@pytest.mark.parametrize("parts", [("a\0b", "c", ""), ("a", "b\0c", ""), ("a", "b", "c\0d")])
def test_a_client_writes_no_nul_into_plain(parts: tuple[str, str, str]) -> None:
    with pytest.raises(LocalProtocolError):
        ClientExchange(PLAIN, Credentials(*parts)).initial_response()


def test_login_takes_the_name_at_once_or_asks() -> None:
    server = ServerExchange(LOGIN, None)
    assert server.step() == Challenge(b"Username:")
    assert server.step(b"u") == Challenge(b"Password:")
    assert server.step(b"p") == Verify("u", "p")
    server = ServerExchange(LOGIN, b"u")
    assert server.step() == Challenge(b"Password:")


@pytest.mark.parametrize(
    ("name", "password", "code"), [(b"", b"p", 535), (b"\xff", b"p", 501), (b"u", b"\xff", 501)]
)
def test_malformed_login(name: bytes, password: bytes, code: int) -> None:
    server = ServerExchange(LOGIN, name)
    server.step()
    with pytest.raises(AuthenticationError) as caught:
        server.step(password)
    assert caught.value.reply.code == code


@pytest.mark.rfc("4954 §4 cancelled-exchange-gets-501")
def test_cancelling() -> None:
    server = ServerExchange(PLAIN, None)
    server.step()
    with pytest.raises(AuthenticationError) as caught:
        server.step(None)
    assert str(caught.value.reply).startswith("501 5.7.0")


def test_a_client_begins_once_and_first_of_all() -> None:
    client = ClientExchange(PLAIN, Credentials("a", "b"))
    with pytest.raises(LocalProtocolError):
        client.respond(b"")
    assert client.initial_response() == b"\0a\0b"
    with pytest.raises(LocalProtocolError):
        client.initial_response()


def test_only_true_is_true() -> None:
    for answer in (b"yes", b"", False):
        server = ServerExchange(PLAIN, b"\0a\0b")
        server.step()
        with pytest.raises(AuthenticationError):
            server.step(answer)


def test_a_challenge_is_as_long_as_it_has_to_be() -> None:
    assert Challenge(b"").reply().serialize() == b"334 \r\n"
    assert Challenge(b"Username:").reply().serialize() == b"334 VXNlcm5hbWU6\r\n"
    assert len(Challenge(b"x" * 3000).reply().serialize()) == 4006


@pytest.mark.parametrize("mechanism", [PLAIN, LOGIN])
def test_both_show_the_password(mechanism: Mechanism) -> None:
    assert mechanism.plaintext


def test_a_nonce_has_144_fresh_bits() -> None:
    one, other = random_nonce(), random_nonce()
    assert len(bytes.fromhex(one)) * 8 == len(bytes.fromhex(other)) * 8 == 144
    assert one != other


def test_a_server_that_has_said_nothing_has_said_nothing() -> None:
    client = ClientExchange(LOGIN, Credentials("u", "p"))
    assert client.last_challenge is None
    client.initial_response()
    client.respond(b"Username:")
    assert client.last_challenge == b"Username:"
