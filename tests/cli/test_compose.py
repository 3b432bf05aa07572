"""The messages that `send` makes, and those it takes as they are."""

import email
import email.policy
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpproto.cli.compose import Correspondent, compose, finished

DATE = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)


def made(
    *attachments: Path,
    sender: str = "ann@example.org",
    recipients: tuple[str, ...] = ("bob@example.net",),
    subject: str | None = "hello",
    body: str = "words\n",
) -> bytes:
    draft = compose(
        Correspondent.sender(sender),
        [Correspondent.recipient(recipient) for recipient in recipients],
        subject=subject,
        body=body,
        attachments=attachments,
        date=DATE,
    )
    return draft.octets_for(1)


def parsed(octets: bytes) -> EmailMessage:
    message = email.message_from_bytes(octets, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    assert not message.defects
    return message


def text_of(message: EmailMessage) -> str:
    body = message.get_body()
    assert isinstance(body, EmailMessage)
    return str(body.get_content()).replace("\r\n", "\n")


@pytest.mark.rfc("5322 §3.6")
def test_a_composed_message_has_the_fields_it_needs() -> None:
    message = parsed(made(sender="Ann <ann@example.org>", recipients=("bob@example.net", "c@d.e")))
    assert message["From"] == "Ann <ann@example.org>"
    assert message["To"] == "bob@example.net, c@d.e"
    assert message["Subject"] == "hello"
    assert message["Date"].datetime == DATE
    assert message["Message-ID"].endswith("@example.org>")
    assert text_of(message) == "words\n"


@given(st.text(st.characters(exclude_categories=["C"]), max_size=80), st.text(max_size=2000))
def test_any_text_goes_as_seven_bits_with_crlf(subject: str, body: str) -> None:
    body = "".join(c for c in body if not 0xD800 <= ord(c) < 0xE000)
    octets = made(subject=subject, body=body)
    assert octets.isascii()
    assert octets.count(b"\r\n") == octets.count(b"\n") == octets.count(b"\r")
    assert max(map(len, octets.split(b"\r\n"))) <= 998


def test_letters_beyond_ascii_arrive() -> None:
    message = parsed(made(sender="Änn <ann@example.org>", subject="Grüße", body="süß\n" * 40))
    assert message["From"].addresses[0].display_name == "Änn"
    assert message["Subject"] == "Grüße"
    assert text_of(message) == "süß\n" * 40


@pytest.mark.parametrize("subject", ["a\r\nBcc: c@d.e", "a\nb", "a\rb"])
def test_a_subject_is_one_line(subject: str) -> None:
    with pytest.raises(ValueError, match="linefeed or carriage return"):
        made(subject=subject)


def test_attachments_arrive_as_they_are(tmp_path: Path) -> None:
    contents = {
        "a.txt": b"text\r\n\n\r\xff",
        "b.png": bytes(range(256)),
        "c": b"",
        "d.tar.gz": b"\x1f\x8b",
        "e.eml": b"Subject: inner\n\nx",
        "ä ö.pdf": b"%PDF",
    }
    for name, octets in contents.items():
        (tmp_path / name).write_bytes(octets)
    message = parsed(made(*(tmp_path / name for name in contents)))
    found = list(message.iter_attachments())
    assert [part.get_filename() for part in found] == list(contents)
    assert [part.get_payload(decode=True) for part in found] == list(contents.values())
    assert [part.get_content_type() for part in found] == [
        "text/plain",
        "image/png",
        "application/octet-stream",
        "application/octet-stream",
        "application/octet-stream",
        "application/pdf",
    ]


@pytest.mark.rfc("5322 §3.6.4")
def test_each_copy_has_an_identity_of_its_own() -> None:
    draft = compose(
        Correspondent.sender("a@b.c"),
        [Correspondent.recipient("d@e.f")],
        subject=None,
        body="",
        attachments=(),
        date=DATE,
    )
    copies = {draft.octets_for(number) for number in (1, 2, 2)}
    assert len(copies) == 3
    assert len({copy.partition(b"\r\n")[2] for copy in copies}) == 1


@pytest.mark.parametrize(
    ("text", "address", "name"),
    [
        ("a@b.c", "a@b.c", ""),
        ("<a@b.c>", "a@b.c", ""),
        ("Ann <a@b.c>", "a@b.c", "Ann"),
        ('"Ann, Dr." <a@b.c>', "a@b.c", "Ann, Dr."),
        ('"a b"@c.d', '"a b"@c.d', ""),
        ("a@[192.0.2.1]", "a@[192.0.2.1]", ""),
        ("Postmaster", "Postmaster", ""),
    ],
)
def test_a_recipient(text: str, address: str, name: str) -> None:
    assert Correspondent.recipient(text) == Correspondent(address, name)
    message = parsed(made(recipients=(text,)))
    assert message["To"].addresses[0].display_name == name


def test_nobody_is_a_sender_and_no_recipient() -> None:
    assert Correspondent.sender("<>").address == Correspondent.sender("").address == ""
    with pytest.raises(ValueError, match="no address"):
        Correspondent.recipient("<>")


@pytest.mark.parametrize(
    "text",
    [
        "ann",
        "ä@b.c",
        "a@b> NOTIFY=NEVER, c@d",
        "a@b.c\r\nRCPT TO:<d@e.f>",
        "Ann\r\nX <a@b.c>",
        "Ann, Dr. <a@b.c>",
        "a@b.c>",
        "a@b..c",
        "@a:b@c.d",
        "a@" + "b." * 200 + "c",
    ],
)
def test_what_is_no_address(text: str) -> None:
    for read in (Correspondent.sender, Correspondent.recipient):
        with pytest.raises(ValueError, match="no address"):
            read(text)


@pytest.mark.rfc("5321 §2.3.8 nothing-else-is-written-as-a-line-end")
@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (b"A: b\n\nc\n", b"A: b\r\n\r\nc\r\n"),
        (b"A: b\r\n\r\nc\r\n", b"A: b\r\n\r\nc\r\n"),
        (b"A: b\r\rc", b"A: b\r\n\r\nc"),
        (b"A:\xff\n\n\0\x85.\n.\n", b"A:\xff\r\n\r\n\0\x85.\r\n.\r\n"),
        (b"A : obsolete\n", b"A : obsolete\r\n"),
        (b"X-a!b: c", b"X-a!b: c"),
    ],
)
def test_a_finished_message_only_gets_its_line_ends(given: bytes, sent: bytes) -> None:
    draft = finished(given)
    assert draft.octets_for(1) == draft.octets_for(2) == sent


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (b"", "empty"),
        (b"\n\n", "empty"),
        (b"From ann Mon Jan  1\nA: b\n", "mailbox file"),
        (b"hello\nA: b\n", "no header field"),
        (b"\nA: b\n", "no header field"),
        (b" A: b\n", "no header field"),
        (b"\x7fELF\x02:", "no header field"),
        (b"http//no colon", "no header field"),
        (b"two words: x", "no header field"),
    ],
)
def test_what_does_not_look_like_a_message(given: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        finished(given)
