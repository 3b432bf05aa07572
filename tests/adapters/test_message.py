"""envelope_of: whom a header names, and nobody else (RFC 5322 §3.4, §3.6)."""

from __future__ import annotations

import email
import smtplib
from email import policy
from email.headerregistry import Address
from email.message import EmailMessage, Message
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpproto import Envelope, LocalProtocolError, Mailbox
from smtpproto.message import envelope_of

ANN = "ann@example.org"


def plain(*fields: tuple[str, str]) -> Message[Any, Any]:
    """A message whose fields are kept as they are given."""
    message: Message[str, str] = Message()
    for name, value in fields:
        message[name] = value
    return message


def to(value: str) -> list[str]:
    envelope = envelope_of(plain(("From", ANN), ("To", value)))
    return [str(path)[1:-1] for path in envelope.forward_paths]


def sender_and_recipients(envelope: Envelope) -> tuple[str, list[str]]:
    return str(envelope.reverse_path), [str(path) for path in envelope.forward_paths]


# Which fields count


@pytest.mark.rfc("5322 3.6.3")
def test_the_recipients_are_those_of_to_cc_and_bcc() -> None:
    message = EmailMessage()
    message["From"] = "Ann <ann@example.org>"
    message["Bcc"] = "secret@example.net"
    message["Cc"] = "cc@example.net, Bob <bob@example.net>"
    message["To"] = Address("Bob, the first", "bob", "example.net")
    message["Reply-To"] = "elsewhere@example.net"
    before = message.as_bytes()
    assert sender_and_recipients(envelope_of(message)) == (
        "<ann@example.org>",
        ["<bob@example.net>", "<cc@example.net>", "<secret@example.net>"],
    )
    assert message.as_bytes() == before


@pytest.mark.rfc("5322 3.6.2")
def test_the_sender_field_says_who_sent_what_others_wrote() -> None:
    fields = [("From", "ann@example.org, bob@example.org"), ("To", "c@example.net")]
    with pytest.raises(LocalProtocolError, match=r"2 senders in From: which\? \(RFC 5322"):
        envelope_of(plain(*fields))
    message = plain(*fields, ("Sender", "Secretary <sec@example.org>"))
    assert str(envelope_of(message).reverse_path) == "<sec@example.org>"


@pytest.mark.rfc("5322 3.6.6")
def test_of_a_resent_message_the_resent_fields_count_and_no_others() -> None:
    original = [("From", ANN), ("Sender", ANN), ("To", "b@example.net"), ("Bcc", "c@example.net")]
    again = [
        ("Resent-Date", "Mon, 05 Jan 2026 10:00:00 +0000"),
        ("Resent-From", "dan@example.org"),
        ("Resent-To", "e@example.net"),
        ("Resent-Bcc", "f@example.net"),
    ]
    assert sender_and_recipients(envelope_of(plain(*again, *original))) == (
        "<dan@example.org>",
        ["<e@example.net>", "<f@example.net>"],
    )
    by = ("Resent-Sender", "gus@example.org")
    assert str(envelope_of(plain(by, *again, *original)).reverse_path) == "<gus@example.org>"
    # It takes but one of them: else it would go again to those who have it.
    assert to_of(plain(("Resent-To", "e@example.net"), again[1], *original)) == ["e@example.net"]
    with pytest.raises(LocalProtocolError, match="no sender in Resent-From"):
        envelope_of(plain(("Resent-To", "e@example.net"), *original))
    with pytest.raises(LocalProtocolError, match="no recipient in Resent-To, Resent-Cc"):
        envelope_of(plain(*again[:2], *original))


@pytest.mark.rfc("5322 3.6.6")
@pytest.mark.parametrize("name", ["Resent-Date", "Resent-From", "Resent-To"])
def test_two_resendings_are_not_told_apart_by_guessing(name: str) -> None:
    block = [("Resent-Date", "x"), ("Resent-From", ANN), ("Resent-To", "e@example.net")]
    twice = [field for field in block if field[0] == name]
    with pytest.raises(LocalProtocolError, match="resent more than once"):
        envelope_of(plain(*block, *twice))


def to_of(message: Message[Any, Any]) -> list[str]:
    return [str(path)[1:-1] for path in envelope_of(message).forward_paths]


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ([("To", ANN)], "no sender in From"),
        ([("From", ""), ("To", ANN)], "no sender in From"),
        ([("From", ANN), ("Sender", ""), ("To", ANN)], "no sender in Sender"),
        ([("From", ANN), ("From", ANN), ("To", ANN)], "2 senders in From"),
        ([("From", ANN)], "no recipient in To, Cc, Bcc"),
        ([("From", ANN), ("To", "undisclosed-recipients:;")], "no recipient in To, Cc, Bcc"),
        ([("From", "<>"), ("To", ANN)], "From: not a mailbox"),
    ],
)
def test_what_is_missing_is_said(fields: list[tuple[str, str]], error: str) -> None:
    with pytest.raises(LocalProtocolError, match=error):
        envelope_of(plain(*fields))


# What an address list is


@pytest.mark.rfc("5322 3.4")
@pytest.mark.parametrize(
    ("value", "addresses"),
    [
        ("bob@example.net", ["bob@example.net"]),
        ("Bob B. <bob@example.net> (at work)", ["bob@example.net"]),
        ("a@example.net,, <b@example.net>,", ["a@example.net", "b@example.net"]),
        ("friends: a@example.net, B <b@example.net>;, c@example.net", ["a", "b", "c"]),
        ("us:; them: a@example.net;", ["a"]),
        ('"Doe, John <x@example.com>" <john@example.net>', ["john"]),
        ("(not (this: x@example.com), \\) y) john (nor) @ (this) example.net", ["john"]),
        ('"john doe"@example.net', ['"john doe"@example.net']),
        (r'"a\"b\\c@d"@example.net', [r'"a\"b\\c@d"@example.net']),
        ('"plain"@example.net', ["plain"]),
        ("john@[192.0.2.1], j@[IPv6:2001:db8::1]", ["john@[192.0.2.1]", "j@[IPv6:2001:db8::1]"]),
        ("<@relay.example,@other.example:john@example.net>", ["john"]),
        ("[List] John <john@example.net>", ["john"]),
        ("=?utf-8?q?J=C3=BCrg=2C_x=40example=2Ecom?= <john@example.net>", ["john"]),
        ("Jürg <jürg@bücher.example>", ["jürg@bücher.example"]),
        ("a@example.net, A <a@EXAMPLE.NET>, A@example.net", ["a", "A"]),
        ("a@example.net,\r\n b@example.net,\n\tc@example.net", ["a", "b", "c"]),
    ],
)
def test_an_address_list(value: str, addresses: list[str]) -> None:
    whole = [each if "@" in each else f"{each}@example.net" for each in addresses]
    assert to(value) == whole


@pytest.mark.rfc("2047 5")
def test_an_encoded_word_is_no_address() -> None:
    """Decoded it would be another one, at a host that nobody has read there."""
    assert to("=?utf-8?q?x=40example=2Ecom=3E?=@example.net") == [
        "=?utf-8?q?x=40example=2Ecom=3E?=@example.net"
    ]
    with pytest.raises(LocalProtocolError, match="To: not a mailbox"):
        to("x@=?utf-8?q?example.com?=")


@pytest.mark.parametrize(
    "value",
    [
        "bob",
        "Doe, John <john@example.net>",
        "a@example.net b@example.net",
        "a@example.net; b@example.net",
        "x@example.com <bob@example.net>",
        "bob@example.net <x@example.com> more",
        "<bob@example.net",
        "bob@example.net>",
        "friends: a@example.net",
        "a: b: c@example.net;;",
        "bob@example.net (Bob",
        '"bob@example.net',
        "a@b@example.net",
        "bob@example..net",
        "<>",
        "<>, bob@example.net",
        "a\\b@example.net",
        "bob@example.net\r\nBcc: x@example.com",
        "bob@example.net\nRCPT TO:<x@example.com>",
        "bob@example.net\r x@example.com",
        '"bob\r\nRCPT TO:<x@example.com>"@example.net',
        '"bob\x00"@example.net',
        "bob\x7f@example.net",
        "bob\ud800@example.net",
        f"{'b' * 300}@example.net",
    ],
)
def test_what_is_no_address_list_goes_to_nobody(value: str) -> None:
    with pytest.raises(LocalProtocolError, match=r"^To: "):
        to(value)


@pytest.mark.rfc("6532 3.2")
@pytest.mark.parametrize("kept_by", [policy.default, policy.compat32, policy.SMTPUTF8])
def test_a_message_that_was_parsed_from_octets(kept_by: Any) -> None:
    octets = (
        "From: =?utf-8?q?J=C3=BCrg?= <a@example.org>\r\n"
        "To: jürg@bücher.example,\r\n\tBücher <b@example.net>\r\n\r\n"
    ).encode()
    assert to_of(email.message_from_bytes(octets, policy=kept_by)) == [
        "jürg@bücher.example",
        "b@example.net",
    ]
    latin = octets.replace("Bücher <".encode(), b"B\xfccher <")  # a name may be anything
    assert to_of(email.message_from_bytes(latin, policy=kept_by))[1] == "b@example.net"
    broken = octets.replace("bücher".encode(), b"b\xfccher")
    with pytest.raises(LocalProtocolError, match="To: not a mailbox"):
        envelope_of(email.message_from_bytes(broken, policy=kept_by))


@pytest.mark.parametrize(
    "value",
    ["x@example.com <bob@example.net>", "a@example.net b@example.net", "bob@example.net (Bob"],
)
def test_what_the_email_package_repairs_is_not_believed(value: str) -> None:
    """It has thrown away what it did not understand before we see it."""
    message = EmailMessage()
    message["From"], message["To"] = ANN, value
    with pytest.raises(LocalProtocolError, match=r"^To: .*: read as '"):
        envelope_of(message)


# For all messages


LOCAL_PARTS = st.text(
    st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=9
)
MAILBOXES = st.builds(
    Mailbox, LOCAL_PARTS, st.sampled_from(["example.net", "bücher.example", "[192.0.2.1]"])
)
NAMES = st.sampled_from(["", "Bob ", '"Doe, John <x@example.com>" ', "=?utf-8?q?=2C?= ", "(x@y) "])


@given(st.lists(st.tuples(NAMES, MAILBOXES, st.booleans()), min_size=1, max_size=5))
def test_every_mailbox_that_smtp_can_write_is_found_and_nothing_else(
    people: list[tuple[str, Mailbox, bool]],
) -> None:
    value = ", ".join(
        f"some: {name}<{mailbox}>;" if grouped else f"{name}<{mailbox}>"
        for name, mailbox, grouped in people
    )
    envelope = envelope_of(plain(("From", ANN), ("To", value)))
    expected = dict.fromkeys(mailbox for _, mailbox, _ in people)
    assert [path.mailbox for path in envelope.forward_paths] == list(expected)


@given(st.text(st.sampled_from('ab@.,:;<>()[]"\\ \t\r\n=?é\x00\udcff'), max_size=40))
def test_whatever_stands_there_it_is_an_envelope_or_a_local_error(value: str) -> None:
    try:
        found = to(value)
    except LocalProtocolError:
        return
    for address in found:
        assert str(Mailbox.parse(address)) == address
        assert "\n" not in address


@given(
    st.lists(
        st.sampled_from(["a@example.net", "B <b@example.net>", '"c d"@example.net']), min_size=1
    )
)
def test_smtplib_sends_to_the_same(people: list[str]) -> None:
    message = plain(("From", f"Ann <{ANN}>"), ("To", ", ".join(people)), ("Cc", people[0]))
    asked: list[tuple[str, list[str]]] = []

    class Recorder(smtplib.SMTP):
        def ehlo_or_helo_if_needed(self) -> None:
            pass

        def sendmail(self, from_addr: str, to_addrs: Any, *args: Any, **kwargs: Any) -> Any:
            asked.append((from_addr, to_addrs))

    Recorder(local_hostname="me.example").send_message(message)
    ((sender, recipients),) = asked
    envelope = envelope_of(message)
    assert envelope.reverse_path.mailbox == Mailbox.parse(sender)
    assert [path.mailbox for path in envelope.forward_paths] == list(
        dict.fromkeys(map(Mailbox.parse, recipients))
    )
