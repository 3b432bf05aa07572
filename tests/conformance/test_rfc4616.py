"""RFC 4616: PLAIN, both ends."""

import pytest

from smtpproto import GrammarError, LocalProtocolError
from smtpproto.core.sasl import (
    AuthenticationError,
    Challenge,
    ClientExchange,
    Credentials,
    ServerExchange,
    Verify,
)
from smtpproto.handler import Session
from smtpproto.mechanisms import PLAIN
from smtpproto.mechanisms.scram import derive_keys
from smtpproto.relay.accounts.login import Passwords
from tests.sasl.exchange import Account, join

SESSION = Session(1, ("192.0.2.1", 1), ("192.0.2.2", 587))


def read(message: bytes) -> Verify:
    """What the server asks its caller, behind this message."""
    question = ServerExchange(PLAIN, message).step()
    assert isinstance(question, Verify)
    return question


def written(username: str, password: str, authorization: str = "") -> bytes:
    message = ClientExchange(PLAIN, Credentials(username, password, authorization))
    octets = message.initial_response()
    assert octets is not None
    return octets


def refusal(message: bytes) -> int:
    with pytest.raises(AuthenticationError) as caught:
        ServerExchange(PLAIN, message).step()
    return caught.value.reply.code


@pytest.mark.rfc(
    "4616 §2 one-message-in-utf-8",
    "4616 §2 three-parts-in-order",
    "4616 §2 own-identity-is-left-out",
    "4616 §2 message",
    "4616 §2 UTF8NUL",
)
@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (("tim", "pass word"), b"\0tim\0pass word"),
        (("Kurt", "xipj3plmq", "Ursel"), b"Ursel\0Kurt\0xipj3plmq"),
        (("\u00fc", "\u00df\u20ac", "\U0001d518"), "U\0ü\0ß€".encode()),
    ],
)
def test_the_message(parts: tuple[str, ...], message: bytes) -> None:
    assert written(*parts) == message
    question = read(message)
    assert (question.username, question.password) == parts[:2]
    assert question.authorization == message.split(b"\0")[0].decode()
    # One message is all: it is asked for once, and the client has nothing more to say.
    server = ServerExchange(PLAIN, None)
    assert server.step() == Challenge(b"")
    assert server.step(message) == question
    client = ClientExchange(PLAIN, Credentials(*parts))
    client.initial_response()
    assert client.respond(b"more?") is None


@pytest.mark.rfc(
    "4616 §2 message",
    "4616 §2 authcid",
    "4616 §2 passwd",
    "4616 §2 UTF8NUL",
    "4616 §2 no-nul-in-a-part",
)
@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"a",
        b"a\0b",
        b"\0a",
        b"\0\0b",
        b"\0a\0",
        b"\0a\0b\0",
        b"z\0a\0b\0c",
        b"\0\0\0",
        b"\0\0",
    ],
)
def test_what_is_no_message(message: bytes) -> None:
    assert refusal(message) == 501


SAFE = [
    ("UTF1", "\x20", "\x7e"),
    ("UTF2", "\xa1", "\u07ff"),
    ("UTF3", "\u0800", "\u1000", "\ucfff", "\ud7ff", "\uf900", "\uffee"),
    ("UTF4", "\U00010000", "\U0003fffd", "\U00040000", "\U000dfffd"),
]


@pytest.mark.parametrize("part", ["authzid", "authcid", "passwd"])
@pytest.mark.parametrize(
    "characters",
    [pytest.param(row[1:], marks=pytest.mark.rfc(f"4616 §2 {row[0]}"), id=row[0]) for row in SAFE],
)
@pytest.mark.rfc("4616 §2 SAFE", "4616 §2 authzid", "4616 §2 authcid", "4616 §2 passwd")
def test_every_character_may_be_there(part: str, characters: tuple[str, ...]) -> None:
    for character in characters:
        texts = {"authzid": "z", "authcid": "c", "passwd": "p"} | {part: f"a{character}b"}
        question = read("\0".join(texts.values()).encode())
        names = (question.authorization, question.username, question.password)
        assert names[list(texts).index(part)].startswith("a")


@pytest.mark.rfc("4616 §2 UTF4")
@pytest.mark.parametrize("character", ["\U000ffffd", "\U00100000", "\U0010fffd"])
def test_what_no_name_may_hold_is_read_all_the_same(character: str) -> None:
    assert refusal(f"\0a{character}\0b".encode()) == 535  # RFC 4013 §2.3; 501 where it is no UTF-8


@pytest.mark.parametrize("part", [0, 1, 2])
@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(octets, marks=pytest.mark.rfc(f"4616 §2 {row}", "4616 §2 SAFE"))
        for row, several in {
            "UTF1": [b"\x80", b"\xff"],
            "UTF2": [b"\xc0\x80", b"\xc1\xbf", b"\xc2", b"\xc2a"],
            "UTF3": [b"\xe0\x9f\xbf", b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xe1\x80"],
            "UTF4": [b"\xf0\x8f\xbf\xbf", b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xf1\x80a"],
            "UTF0": [b"\xc3\x7f", b"\xc3\xc0", b"\xe1\x80\x7f", b"\xf1\x80\x80\xc0", b"\xbf"],
        }.items()
        for octets in several
    ],
)
@pytest.mark.rfc("4616 §2 one-message-in-utf-8")
def test_what_is_no_utf_8(octets: bytes, part: int) -> None:
    texts = [b"z", b"c", b"p"]
    texts[part] += octets
    assert refusal(b"\0".join(texts)) == 501


@pytest.mark.rfc("4616 §2 UTF0")
def test_the_octets_behind_the_first() -> None:
    assert read(b"\0a\0\xc3\x80\xc3\xbf").password == "\u00c0\u00ff"
    assert read(b"\0a\0\xe2\x82\xac\xf0\x9f\x98\x80").password == "\u20ac\U0001f600"


@pytest.mark.rfc("4616 §2 parts-of-255-octets")
@pytest.mark.parametrize("character", ["x", "\u00e9", "\u20ac", "\U0001f600"])
def test_parts_of_255_octets(character: str) -> None:
    text = character * (255 // len(character.encode()))
    text += "x" * (255 - len(text.encode()))
    message = written(text, text, text)
    assert len(message) == 3 * 255 + 2
    assert read(message) == Verify(text, text, text)


@pytest.mark.rfc("4616 §2 password-and-identity-are-judged")
@pytest.mark.parametrize(
    ("password", "authorization", "right"),
    [
        ("pw", "", True),
        ("pw", "ann", True),
        ("pw", "bob", True),
        ("pw", "eve", False),
        ("no", "", False),
        ("no", "bob", False),
    ],
)
def test_the_password_and_whom_it_may_act_as(
    password: str, authorization: str, right: bool
) -> None:
    account = Account("ann", "pw", may_act_as="bob")
    given = Credentials("ann", password, authorization)
    if right:
        assert join(PLAIN, given, account) == (authorization or "ann")
        return
    with pytest.raises(AuthenticationError, match="535"):
        join(PLAIN, given, account)


@pytest.mark.rfc("4616 §4 kurt-may-not-act-as-ursel")
def test_kurt_may_not_act_as_ursel() -> None:
    account = Account("Kurt", "xipj3plmq")
    assert join(PLAIN, Credentials("Kurt", "xipj3plmq"), account) == "Kurt"
    with pytest.raises(AuthenticationError, match="535"):
        join(PLAIN, Credentials("Kurt", "xipj3plmq", "Ursel"), account)


@pytest.mark.rfc(
    "4616 §2 presented-strings-are-prepared",
    "4616 §2 presented-strings-are-queries",
    "4616 §2 identity-comes-of-the-prepared-name",
)
@pytest.mark.parametrize(
    ("presented", "prepared"),
    [("I\u00adX", "IX"), ("\u2168", "IX"), ("a\u00a0b", "a b"), ("\U0001f600", "\U0001f600")],
)
def test_what_is_presented_is_prepared(presented: str, prepared: str) -> None:
    server = ServerExchange(PLAIN, f"\0{presented}\0{presented}".encode())
    assert server.step() == Verify(prepared, prepared)
    assert server.step(True) == prepared


@pytest.mark.rfc("4616 §2 client-leaves-no-part-empty")
@pytest.mark.parametrize(("name", "password"), [("", "pw"), ("ann", ""), ("ann", None)])
def test_a_client_leaves_no_part_empty(name: str, password: str | None) -> None:
    with pytest.raises(LocalProtocolError):
        ClientExchange(PLAIN, Credentials(name, password)).initial_response()


@pytest.mark.rfc("4616 §2 kept-strings-are-stored-ones")
@pytest.mark.parametrize("kept", [{"a\u0221": "pw"}, {"ann": "\u0221"}])
def test_what_is_kept_holds_nothing_unassigned(kept: dict[str, str]) -> None:
    with pytest.raises(GrammarError):
        Passwords(kept)


@pytest.mark.anyio
@pytest.mark.rfc("4616 §2 kept-strings-are-prepared")
async def test_what_is_kept_is_prepared() -> None:
    kept = Passwords({"I\u00adX": "\u2168"})
    assert await kept.verify(SESSION, read("\0\u2168\0I\u00adX".encode()))
    assert not await kept.verify(SESSION, read(b"\0IX\0ix"))


@pytest.mark.rfc("4616 §2 hashed-strings-are-prepared-first")
def test_keys_are_made_of_the_prepared_password() -> None:
    assert derive_keys("I\u00adX", b"salt", iterations=1) == derive_keys(
        "\u2168", b"salt", iterations=1
    )
    assert derive_keys("IX", b"salt", iterations=1) != derive_keys("ix", b"salt", iterations=1)


@pytest.mark.rfc("4616 §2 failed-preparation-fails-the-login")
@pytest.mark.parametrize("text", ["\x07", "\u00ad", "\u0627\u0031", "\ue000"])
def test_what_cannot_be_prepared(text: str) -> None:
    for message in (f"\0{text}\0pw", f"\0ann\0{text}"):
        assert refusal(message.encode()) == 535
