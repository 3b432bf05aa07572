"""Reports are read back with the standard library's parser, field by field, whatever went in."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage, Message
from email.utils import parsedate_to_datetime
from quopri import decodestring
from typing import Any, cast

import pytest
from attrs import evolve
from hypothesis import example, given
from hypothesis import strategies as st

from smtpproto import EnhancedStatus, ForwardPath, LocalProtocolError, Mailbox, Reply, ReversePath
from smtpproto.core.reply import ReplyReader
from smtpproto.relay.reports.report import (
    MAX_RETURNED,
    Action,
    Failure,
    failure_report,
    is_report_owed,
)

ARRIVED = datetime(2024, 2, 24, 8, 0, 0, tzinfo=UTC)
NOW = ARRIVED + timedelta(days=5)
LAST = NOW - timedelta(minutes=1)
SENDER = Mailbox("sam", "sender.example")
ORIGINAL = b"From: sam@sender.example\r\nSubject: hello\r\n\r\nDear Ann,\r\n.\r\n--BOUND\r\n"

FAILURE = Failure(
    ForwardPath.of("ann@ext.example"),
    "failed",
    "5.1.1",
    Reply(550, "5.1.1", ["No such user", "Ask the postmaster"]),
    remote_mta="mx.ext.example",
    original_recipient="rfc822;Ann@Ext.Example",
    last_attempt=LAST,
)


def report(*failures: Failure, **changes: Any) -> bytes:
    arguments: dict[str, Any] = {
        "hostname": "mx.our.dom",
        "to": SENDER,
        "failures": failures or [FAILURE],
        "original": ORIGINAL,
        "whole": True,
        "arrived": ARRIVED,
        "now": NOW,
        "message_id": "<1.2@mx.our.dom>",
        "boundary": "BOUNDARY",
    }
    return failure_report(**{**arguments, **changes})


def parse(octets: bytes) -> EmailMessage:
    message = message_from_bytes(octets, policy=policy.SMTP)
    for part in message.walk():
        assert not part.defects, part
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    assert len(parts(message)) == 3
    return message


def parts(message: EmailMessage) -> list[Message]:
    return cast("list[Message]", message.get_payload())


def groups(octets: bytes) -> list[Message]:
    """The fields of message/delivery-status: the message's, then each recipient's."""
    status = parts(parse(octets))[1]
    assert status.get_content_type() == "message/delivery-status"
    found = cast("list[Message]", status.get_payload())
    return [group for group in found if group.keys()]


def returned(octets: bytes) -> tuple[str, bytes]:
    """The third part's type, and its octets as they stand, or decoded."""
    part = parts(parse(octets))[2]
    raw = octets.rpartition(b"\r\n--BOUNDARY--")[0].rpartition(b"--BOUNDARY\r\n")[2]
    raw = raw.partition(b"\r\n\r\n")[2]
    if part["Content-Transfer-Encoding"]:
        raw = cast("bytes", part.get_payload(decode=True))
    return part.get_content_type(), raw


def is_7bit(octets: bytes) -> bool:
    lines = octets.split(b"\r\n")
    return (
        octets.isascii()
        and not any(octet in line for line in lines for octet in (b"\r", b"\n", b"\0"))
        and max(map(len, lines)) <= 998
    )


@pytest.mark.rfc("3464 §2 report-goes-to-the-return-path")
@pytest.mark.rfc("3461 §6.2 report-is-multipart-report")
def test_the_header_of_a_report() -> None:
    message = parse(report())
    assert message["From"] == "Mail Delivery System <MAILER-DAEMON@mx.our.dom>"
    assert message["To"] == "sam@sender.example"
    assert message["Subject"] == "Mail could not be delivered"
    assert parsedate_to_datetime(message["Date"]) == NOW
    assert message["Message-ID"] == "<1.2@mx.our.dom>"
    assert message["MIME-Version"] == "1.0"


@pytest.mark.rfc("3834 §5.2")
def test_a_report_says_that_nobody_wrote_it() -> None:
    assert parse(report())["Auto-Submitted"] == "auto-replied"


@pytest.mark.rfc(
    "3464 §2.2 message-fields-once",
    "3464 §2.2.1 envelope-id",
    "3464 §2.2.1 envelope-id-once",
    "3464 §2.2.2 mta-name",
    "3464 §2.2.2 reporting-mta-is-there",
    "3464 §2.2.3 gateways-say-so-and-nobody-else",
    "3464 §2.2.5 arrival-date-field",
    "3464 §2.2.5 zone-is-in-digits",
)
@pytest.mark.rfc(
    "3461 §6.2 second-part-is-for-programs",
    "3461 §6.3 reporting-mta-is-there",
    "3461 §6.3 full-name-is-of-type-dns",
    "3461 §6.3 more-message-fields-may-be-there",
    "2852 §5 reports-have-an-arrival-date",
    "4865 §5.1.2 reports-have-an-arrival-date",
)
def test_the_fields_of_the_message() -> None:
    (fields, _) = groups(report(envelope_id="Env+1 x"))
    assert fields.items() == [
        ("Original-Envelope-Id", "Env+1 x"),
        ("Reporting-MTA", "dns; mx.our.dom"),
        ("Arrival-Date", "Sat, 24 Feb 2024 08:00:00 +0000"),
    ]


@pytest.mark.rfc(
    "3464 §2.2.1 envelope-id-keeps-its-case",
    "3464 §2.2.2 mta-names-keep-their-case",
    "3464 §2.3.2 final-recipient-is-as-it-came",
    "3464 §2.3.2 final-recipient-keeps-its-case",
)
@pytest.mark.rfc(
    "2852 §5 deliver-by-date-field",
    "4865 §5.1.2 future-release-request-field",
)
def test_what_was_asked_of_times_is_repeated() -> None:
    until = "until;2024-02-24T09:00:00Z"
    fields = groups(report(deliver_by=ARRIVED + timedelta(hours=1), release=until))[0]
    assert fields["Deliver-By-Date"] == "Sat, 24 Feb 2024 09:00:00 +0000"
    assert fields["Future-Release-Request"] == until


def test_names_are_spelled_as_they_came() -> None:
    failure = evolve(FAILURE, recipient=ForwardPath.of("Ann.X@Ext.Example"))
    ours, theirs = groups(report(failure, hostname="Mx.Our.Dom", envelope_id="aBc"))
    assert (ours["Original-Envelope-Id"], ours["Reporting-MTA"]) == ("aBc", "dns; Mx.Our.Dom")
    assert theirs["Final-Recipient"] == "rfc822; Ann.X@Ext.Example"


@pytest.mark.rfc("3464 §2.2.1 without-envelope-id-no-field")
@pytest.mark.rfc("3461 §6.3 no-original-envelope-id-without-envid")
def test_without_envid_there_is_no_original_envelope_id() -> None:
    assert groups(report())[0]["Original-Envelope-Id"] is None


@pytest.mark.rfc("3464 §2.1.2 mta-name-type")
@pytest.mark.rfc("3461 §6.3 other-names-are-not-of-type-dns")
@pytest.mark.parametrize("hostname", ["localhost", "[127.0.0.1]"])
def test_a_name_that_is_not_fully_qualified_does_not_say_so(hostname: str) -> None:
    octets = report(hostname=hostname)
    assert groups(octets)[0]["Reporting-MTA"] == f"x-local-hostname; {hostname}"
    assert f"MAILER-DAEMON@{hostname}" in parse(octets)["From"]


@pytest.mark.rfc(
    "3464 §2.1.2 address-type",
    "3464 §2.1.2 diagnostic-type",
    "3464 §2.3.1 generic-address",
    "3464 §2.3.2 final-recipient-is-as-it-came",
    "3464 §2.3.3 action-is-there",
    "3464 §2.3.4 status-is-there",
    "3464 §2.3.4 status-field",
    "3464 §2.3.4 status-code",
    "3464 §2.3.5 remote-mta-field",
    "3464 §2.3.6 whose-word-a-diagnostic-is",
    "3464 §2.3.6 diagnostic-is-there-if-known",
    "3464 §2.3.7 last-attempt-date-field",
    "3464 §2.3.7 zone-is-in-digits",
    "3464 §3 other-fields-are-there-where-they-fit",
)
@pytest.mark.rfc(
    "3461 §6.3 final-recipient-is-from-the-envelope",
    "3461 §6.3 action-is-there",
    "3461 §6.3 status-is-there",
    "3461 §6.3 remote-mta-is-who-refused",
    "3461 §6.3 diagnostic-code-is-the-reply",
    "3461 §6.3 more-recipient-fields-may-be-there",
)
def test_the_fields_of_a_recipient() -> None:
    assert groups(report())[1].items() == [
        ("Original-Recipient", "rfc822; Ann@Ext.Example"),
        ("Final-Recipient", "rfc822; ann@ext.example"),
        ("Action", "failed"),
        ("Status", "5.1.1"),
        ("Remote-MTA", "dns; mx.ext.example"),
        ("Diagnostic-Code", "smtp; 550-5.1.1 No such user 550 5.1.1 Ask the postmaster"),
        ("Last-Attempt-Date", "Thu, 29 Feb 2024 07:59:00 +0000"),
    ]


@pytest.mark.rfc("3464 §2.1.1 fields-may-be-folded")
@pytest.mark.rfc("3461 §9.2")
def test_a_reply_of_several_lines_is_folded_as_it_came() -> None:
    expected = b"Diagnostic-Code: smtp; 550-5.1.1 No such user\r\n 550 5.1.1 Ask the postmaster\r\n"
    assert expected in report()


@pytest.mark.rfc(
    "3464 §2.3.1 original-recipient-came-with-the-message",
    "3464 §2.3.5 without-a-remote-mta-no-field",
    "3464 §2.3.7 without-an-attempt-no-field",
    "3464 §3 original-recipient-is-never-made-up",
)
@pytest.mark.rfc("3464 §2.3.1 type-may-be-unknown")
@pytest.mark.rfc("3461 §6.3 no-original-recipient-without-orcpt")
def test_what_is_not_known_is_left_out() -> None:
    failure = Failure(ForwardPath.of("Postmaster"), "failed", "4.4.7")
    assert groups(report(failure))[1].items() == [
        ("Final-Recipient", "rfc822; Postmaster"),
        ("Action", "failed"),
        ("Status", "4.4.7"),
    ]


def test_an_original_recipient_without_its_type_is_of_unknown_type() -> None:
    failure = evolve(FAILURE, original_recipient="ann")
    assert groups(report(failure))[1]["Original-Recipient"] == "unknown; ann"


@pytest.mark.rfc(
    "3464 §2 one-report-may-tell-of-several",
    "3464 §2.1 delivery-status-content",
    "3464 §2.3.2 final-recipient-is-there",
)
@pytest.mark.rfc("5321 §4.4 all-who-failed-are-listed", "5321 §4.4 one-notification-for-all")
@pytest.mark.rfc("3461 §5.2.8 one-report-for-several")
def test_one_report_names_all_recipients() -> None:
    failures = [
        evolve(FAILURE, recipient=ForwardPath.of(f"r{number}@ext.example")) for number in range(250)
    ]
    octets = report(*failures)
    found = [group["Final-Recipient"] for group in groups(octets)[1:]]
    assert found == [f"rfc822; r{number}@ext.example" for number in range(250)]
    words = str(parts(parse(octets))[0].get_payload())
    assert "r99@ext.example" in words
    assert "r100@" not in words
    assert "and 150 more" in words


@pytest.mark.rfc(
    "3464 §2.3.9 will-retry-until-is-for-delays",
    "3464 §2.3.9 will-retry-until-field",
)
def test_only_what_is_delayed_will_be_retried() -> None:
    until = NOW + timedelta(days=1)
    delayed = evolve(FAILURE, action="delayed", status="4.4.1", retry_until=until)
    assert parsedate_to_datetime(groups(report(delayed))[1]["Will-Retry-Until"]) == until
    assert groups(report(evolve(FAILURE, retry_until=until)))[1]["Will-Retry-Until"] is None


@pytest.mark.rfc("3464 §2.3.3 action-field")
@pytest.mark.parametrize(
    ("action", "subject"),
    [
        ("failed", "Mail could not be delivered"),
        ("delayed", "Mail is delayed"),
        ("delivered", "Mail was delivered"),
        ("relayed", "Mail was passed on"),
        ("expanded", "Mail was delivered to a list"),
    ],
)
def test_every_action_has_its_words(action: Action, subject: str) -> None:
    octets = report(evolve(FAILURE, action=action, diagnostic=None))
    assert parse(octets)["Subject"] == subject
    assert groups(octets)[1]["Action"] == action
    if action != "failed":
        mixed = parse(report(evolve(FAILURE, action=action), FAILURE))
        assert mixed["Subject"] == "Mail could not be delivered"


@pytest.mark.rfc("3461 §6.2 first-part-is-for-people")
def test_the_words_say_who_said_what() -> None:
    words = parts(parse(report()))[0]
    assert words.get_content_type() == "text/plain"
    text = str(words.get_payload())
    assert "mail server at mx.our.dom" in text
    assert "  <ann@ext.example>" in text
    assert "mx.ext.example said:" in text
    assert "550-5.1.1 No such user 550 5.1.1 Ask the postmaster" in text
    assert "The reason:" in str(parts(parse(report(evolve(FAILURE, remote_mta=None))))[0])
    assert all(len(line) <= 78 for line in text.splitlines())


# --- the message that comes back -------------------------------------------------------------

HEADER = ORIGINAL.partition(b"\r\n\r\n")[0] + b"\r\n"


@pytest.mark.rfc(
    "3461 §4.3 without-ret-either-is-returned",
    "3461 §6.2 third-part-is-the-message",
    "3461 §6.2 third-part-says-what-it-is",
)
def test_a_small_message_comes_back_whole() -> None:
    assert returned(report()) == ("message/rfc822", ORIGINAL)
    full = ORIGINAL + (b"x" * 76 + b"\r\n") * 700
    full = full[:MAX_RETURNED]
    full = full[:-2] + b"xx"
    assert returned(report(original=full)) == ("message/rfc822", full)


@pytest.mark.parametrize(
    "changes",
    [
        {"whole": False},
        pytest.param(
            {"original": ORIGINAL + (b"x" * 76 + b"\r\n") * 700},
            marks=pytest.mark.rfc("3461 §6.2 big-messages-go-back-as-header"),
        ),
        {"original": ORIGINAL + b"caf\xc3\xa9\r\n"},
        {"original": ORIGINAL + b"a\nb\r\n"},
        {"original": ORIGINAL + b"a\rb\r\n"},
        {"original": ORIGINAL + b"a\0b\r\n"},
        {"original": ORIGINAL + b"x" * 999 + b"\r\n"},
        pytest.param(
            {"failures": [evolve(FAILURE, action="delayed")]},
            marks=pytest.mark.rfc(
                "3461 §4.3 header-alone-where-nothing-failed",
                "3461 §6.2 header-alone-where-nothing-failed",
            ),
        ),
    ],
)
@pytest.mark.rfc("6522 §3")
@pytest.mark.rfc("3461 §4.3 without-ret-either-is-returned", "3461 §6.2 third-part-says-what-it-is")
def test_else_its_header_alone_comes_back(changes: dict[str, Any]) -> None:
    octets = report(**changes)
    assert is_7bit(octets)
    assert returned(octets) == ("text/rfc822-headers", HEADER)


@pytest.mark.rfc("6522 §4")
@pytest.mark.parametrize(
    "bad",
    [
        b"Subject: caf\xc3\xa9 \r\n",
        b"X: a\rb\r\n",
        b"X: a\nY: b\r\n",
        b"X: \0\x1b[31m\r\n",
        b"X: " + b"x" * 2000 + b"\r\n",
        b"--BOUNDARY--\xff\r\n",
    ],
)
def test_a_header_that_is_no_7bit_text_comes_back_encoded(bad: bytes) -> None:
    octets = report(original=bad + ORIGINAL)
    assert is_7bit(octets)
    if b"BOUNDARY" not in bad:
        assert returned(octets) == ("text/rfc822-headers", bad + HEADER)
    part = parts(parse(octets))[2]
    assert part.get_payload(decode=True) == bad + HEADER


def test_a_header_without_end_comes_back_in_part() -> None:
    lines = b"".join(b"X-%d: %b\r\n" % (number, b"y" * 60) for number in range(10_000))
    kind, header = returned(report(original=lines))
    assert kind == "text/rfc822-headers"
    assert lines.startswith(header)
    assert header.endswith(b"\r\n")
    assert MAX_RETURNED - 80 < len(header) <= MAX_RETURNED
    kind, header = returned(report(original=b"x" * 200_000))
    assert len(header) == MAX_RETURNED


@pytest.mark.rfc("2046 §5.1.1")
@pytest.mark.parametrize("line", [b"--BOUNDARY\r\n", b"--BOUNDARY--\r\n", b"--BOUNDARY.0--\r\n"])
def test_a_message_cannot_end_its_part(line: bytes) -> None:
    evil = ORIGINAL + line + b"Content-Type: text/html\r\n\r\nevil\r\n"
    octets = report(original=evil)
    message = parse(octets)
    assert evil in octets
    assert str(message.get_boundary()).startswith("BOUNDARY.")


def test_a_message_of_many_nested_parts_costs_nothing_and_comes_back() -> None:
    line = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"
    evil = line * (MAX_RETURNED // len(line))
    assert evil in report(original=evil)


def test_no_message_at_all_comes_back_as_nothing() -> None:
    assert returned(report(original=b"")) == ("message/rfc822", b"")


# --- nothing breaks out ----------------------------------------------------------------------


def foreign(octets: bytes) -> Reply:
    """A reply as a client reads it from the wire: any octets but CR and LF."""
    reply = ReplyReader(max_octets=1 << 20).feed(b"550 " + octets)
    assert reply is not None
    return reply


def test_escape_octets_in_a_reply_are_shown_and_not_passed_on() -> None:
    octets = report(evolve(FAILURE, diagnostic=foreign(b"\x1b[2J\x07caf\xc3\xa9\x7f\x0b\x0c\x85")))
    assert is_7bit(octets)
    assert b"\x1b" not in octets
    code = groups(octets)[1]["Diagnostic-Code"]
    assert code == r"smtp; 550 \x1b[2J\x07caf\xc3\xa9\x7f\x0b\x0c\x85"


def test_a_reply_without_end_is_cut() -> None:
    reader = ReplyReader(max_octets=1 << 20)
    for _ in range(5000):
        assert reader.feed(b"550-" + b"\x1b" * 100) is None
    reply = reader.feed(b"550 the end")
    octets = report(evolve(FAILURE, diagnostic=reply))
    assert len(octets) < 20_000
    assert groups(octets)[1]["Diagnostic-Code"].endswith(" 550 the end")


ACTIONS: list[Action] = ["failed", "delayed", "delivered", "relayed", "expanded"]
TEXT = st.none() | st.text(max_size=30) | st.sampled_from(["a\r\nStatus: 2.0.0", "\r\n\r\nX: y"])
LOCAL = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=64)
REPLIES = st.binary(max_size=900).map(
    lambda octets: foreign(octets.replace(b"\r", b"\x1b").replace(b"\n", b"\xff"))
)
FAILURES = st.builds(
    Failure,
    recipient=LOCAL.map(lambda local: ForwardPath(Mailbox(local, "ext.example"))),
    action=st.sampled_from(ACTIONS),
    status=st.sampled_from(["5.1.1", "4.4.7", "2.0.0"]),
    diagnostic=st.none() | REPLIES,
    remote_mta=TEXT,
    original_recipient=TEXT,
    last_attempt=st.none() | st.just(LAST),
    retry_until=st.none() | st.just(NOW),
)
ORIGINALS = st.binary(max_size=300) | st.lists(
    st.sampled_from(
        [b"A: b", b"--BOUNDARY", b"--", b"\r\n", b"\n", b"\r", b"\xff", b"=", b" ", b"."]
    )
).map(b"".join)


@pytest.mark.rfc("3464 §2.1 fields-are-7bit")
@given(
    failures=st.lists(FAILURES, min_size=1, max_size=4),
    original=ORIGINALS,
    local=LOCAL,
    envelope_id=TEXT,
    whole=st.booleans(),
)
@example([FAILURE], b"\r\n--BOUNDARY--\r\n", '"', "\r\n", True)
def test_whatever_goes_in_a_report_is_7bit_and_reads_back(
    failures: list[Failure], original: bytes, local: str, envelope_id: str | None, whole: bool
) -> None:
    octets = report(
        *failures,
        original=original,
        to=Mailbox(local, "sender.example"),
        envelope_id=envelope_id,
        whole=whole,
    )
    assert is_7bit(octets)
    message = cast("EmailMessage", message_from_bytes(octets, policy=policy.compat32))
    assert set(message.keys()) == {
        "From",
        "To",
        "Subject",
        "Date",
        "Message-ID",
        "Auto-Submitted",
        "MIME-Version",
        "Content-Type",
    }
    assert message["To"].encode() == b"<%b>" % Mailbox(local, "sender.example").serialize()
    three = parts(message)
    kinds = [part.get_content_type() for part in three]
    assert kinds[:2] == ["text/plain", "message/delivery-status"]
    assert kinds[2] in {"message/rfc822", "text/rfc822-headers"}
    status = cast("list[Message]", three[1].get_payload())
    ours, *theirs = [group for group in status if group.keys()]
    assert set(ours.keys()) <= {"Original-Envelope-Id", "Reporting-MTA", "Arrival-Date"}
    assert [group["Action"] for group in theirs] == [failure.action for failure in failures]
    assert [group["Status"] for group in theirs] == [str(failure.status) for failure in failures]
    for group, failure in zip(theirs, failures, strict=True):
        assert group["Final-Recipient"] == f"rfc822; {failure.recipient.mailbox}"
        assert len(group.keys()) == len(set(group.keys()))
        assert (group["Diagnostic-Code"] is None) == (failure.diagnostic is None)
    if kinds[2] == "message/rfc822":
        assert b"Content-Type: message/rfc822\r\n\r\n" + original + b"\r\n--" in octets


@pytest.mark.parametrize(
    "bad",
    [
        {"hostname": "mx\r\nBcc: x@y"},
        {"hostname": ""},
        {"message_id": "<a@b>\r\nBcc: x@y"},
        {"message_id": "1.2@mx.our.dom"},
        {"message_id": "<a b@c>"},
        {"boundary": 'a"b'},
        {"boundary": "a\r\n"},
        {"boundary": ""},
        {"boundary": "x" * 61},
        {"failures": []},
    ],
)
def test_what_the_caller_gives_has_to_be_right(bad: dict[str, Any]) -> None:
    with pytest.raises(LocalProtocolError):
        report(**bad)


def test_a_time_without_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="zone"):
        report(now=NOW.replace(tzinfo=None))


@pytest.mark.rfc("3464 §2.3.4 status-has-no-space-and-no-leading-zeros")
def test_a_status_is_taken_as_text_too() -> None:
    assert FAILURE.status == EnhancedStatus(5, 1, 1)


# --- whether a report is owed ----------------------------------------------------------------


@pytest.mark.rfc(
    "5321 §4.5.4 no-errors-about-errors", "5321 §6.1 nobody-is-notified-of-mail-from-nobody"
)
@pytest.mark.rfc("3461 §5.2 mail-from-nobody-is-not-reported")
@pytest.mark.parametrize("notify", [None, "FAILURE", "SUCCESS,FAILURE,DELAY"])
@pytest.mark.parametrize("action", ACTIONS)
def test_the_null_reverse_path_never_hears(notify: str | None, action: Action) -> None:
    assert not is_report_owed(ReversePath.of(None), notify, action)


@pytest.mark.rfc(
    "3461 §4.1 never-asks-for-no-report",
    "3461 §4.1 success-and-failure-are-asked-for",
    "3461 §4.1 delay-is-welcome-with-delay",
    "3461 §4.1 without-notify-failures-are-reported",
    "3461 §5.2.5 delay-may-be-reported-with-delay",
    "3461 §5.2.5 delay-may-be-reported-without-notify",
    "3461 §5.2.5 delay-not-asked-for-is-not-reported",
)
@pytest.mark.parametrize(
    ("notify", "owed"),
    [
        (None, {"failed", "delayed"}),
        ("NEVER", set()),
        (b"never", set()),
        ("FAILURE", {"failed"}),
        ("failure,Delay", {"failed", "delayed"}),
        (b"DELAY", {"delayed"}),
        ("SUCCESS", {"delivered", "relayed", "expanded"}),
        ("SUCCESS,FAILURE", {"failed", "delivered", "relayed", "expanded"}),
        ("FAILURES", set()),
        (b"\xff", set()),
    ],
)
def test_notify_decides(notify: str | bytes | None, owed: set[str]) -> None:
    sender = ReversePath.of("sam@sender.example")
    assert {action for action in ACTIONS if is_report_owed(sender, notify, action)} == owed


# --- beyond ASCII (RFC 6533) -----------------------------------------------------------------

JOSE = ForwardPath.of("josé+x@ext.example")
ZHANG = Mailbox.parse("张@发件.example")
UTF8_ORIGINAL = "From: 张@发件.example\r\nSubject: grüße\r\n\r\nGrüße,\r\n--BOUND\r\n".encode()


def six(octets: bytes) -> tuple[list[Message], list[tuple[str, str | None, bytes]]]:
    """The three parts of a report as they stand: type, encoding, and the octets decoded."""
    message = message_from_bytes(octets, policy=policy.compat32)
    boundary = str(message.get_boundary()).encode()
    pieces = octets.split(b"\r\n--" + boundary)[1:4]
    found = []
    for piece in pieces:
        header, _, body = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        lines = dict(line.split(b": ", 1) for line in header.split(b"\r\n"))
        encoding = lines.get(b"Content-Transfer-Encoding", b"").decode() or None
        if encoding == "quoted-printable":
            body = decodestring(body)
        found.append((lines[b"Content-Type"].decode(), encoding, body))
    return parts(cast("EmailMessage", message)), found


@pytest.mark.rfc("6533 §3")
@pytest.mark.rfc("6531 §3.2 dsn-beside-it-has-reports-in-utf8")
def test_an_address_beyond_ascii_is_of_type_utf_8_and_in_ascii_for_an_ascii_reader() -> None:
    failure = evolve(FAILURE, recipient=JOSE, original_recipient="utf-8;jo\u00e9 \\+=@ext.example")
    octets = report(failure)
    assert is_7bit(octets)
    fields = groups(octets)[1]
    assert fields["Final-Recipient"] == r"utf-8; jos\x{E9}\x{2B}x@ext.example"
    assert fields["Original-Recipient"] == r"utf-8; jo\x{E9}\x{20}\x{5C}\x{2B}\x{3D}@ext.example"
    (text, *_), ((kind, encoding, words), *_) = six(octets)
    assert (kind, encoding) == ("text/plain; charset=utf-8", "quoted-printable")
    assert "  <josé+x@ext.example>" in words.decode()
    assert text.get_content_charset() == "utf-8"


@pytest.mark.rfc("6533 §4.1")
def test_a_report_to_an_address_beyond_ascii_is_utf_8_itself() -> None:
    failure = evolve(FAILURE, recipient=JOSE, original_recipient="utf-8;jo\u00e9+x@ext.example")
    octets = report(failure, to=ZHANG, original=UTF8_ORIGINAL, utf8=True)
    assert "\r\nTo: <张@发件.example>\r\n".encode() in octets
    _, (words, fields, message) = six(octets)
    assert words[:2] == ("text/plain; charset=utf-8", "8bit")
    assert fields[:2] == ("message/global-delivery-status", "8bit")
    assert "\r\nFinal-Recipient: utf-8; josé+x@ext.example\r\n" in fields[2].decode()
    assert "Original-Recipient: utf-8; joé+x@ext.example\r\n" in fields[2].decode()
    assert message == ("message/global", "8bit", UTF8_ORIGINAL)


@pytest.mark.rfc("6533 §4.4")
def test_what_is_ascii_in_such_a_report_has_the_usual_types() -> None:
    _, found = six(report(to=ZHANG, utf8=True))
    assert [kind for kind, _, _ in found] == [
        "text/plain; charset=us-ascii",
        "message/delivery-status",
        "message/rfc822",
    ]


@pytest.mark.rfc("6533 §4.5")
@pytest.mark.parametrize(
    ("changes", "kind", "back"),
    [
        ({}, "message/global", UTF8_ORIGINAL),
        (
            {"whole": False},
            "message/global-headers",
            UTF8_ORIGINAL.partition(b"\r\n\r\n")[0] + b"\r\n",
        ),
        (
            {"original": b"Subject: caf\xe9\r\n\r\n", "whole": False},  # no UTF-8
            "text/rfc822-headers",
            b"Subject: caf\xe9\r\n",
        ),
    ],
)
def test_a_message_in_utf_8_comes_back_encoded_to_an_ascii_reader(
    changes: dict[str, Any], kind: str, back: bytes
) -> None:
    octets = report(**{"original": UTF8_ORIGINAL, "utf8": True, **changes})
    assert is_7bit(octets)
    _, (*_, message) = six(octets)
    assert message == (kind, "quoted-printable", back)


def test_an_address_that_is_too_long_in_ascii_is_cut() -> None:
    long = "utf-8;" + "\u4e00" * 400 + "@ext.example"
    octets = report(evolve(FAILURE, original_recipient=long))
    assert is_7bit(octets)
    assert groups(octets)[1]["Original-Recipient"].endswith("...")


UTF8_LOCAL = st.text(
    st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("é\\+= "), max_size=20
)
UTF8_PATHS = UTF8_LOCAL.map(lambda local: ForwardPath(Mailbox(local, "ext.example")))


@given(
    failures=st.lists(st.builds(evolve, FAILURES, recipient=UTF8_PATHS), min_size=1, max_size=3),
    reader=UTF8_LOCAL,
    original=ORIGINALS | st.just(UTF8_ORIGINAL),
    utf8=st.booleans(),
)
def test_every_report_reads_back_in_three_parts_and_groups(
    failures: list[Failure], reader: str, original: bytes, utf8: bool
) -> None:
    to = Mailbox(reader, "sender.example")
    octets = report(*failures, to=to, original=original, utf8=utf8)
    assert to.is_ascii <= is_7bit(octets)
    three, found = six(octets)
    assert len(three) == 3
    fields = found[1][2].decode()
    first, *rest = fields.removesuffix("\r\n").split("\r\n\r\n")
    assert first.startswith("Reporting-MTA: dns; mx.our.dom\r\n")
    assert len(rest) == len(failures)
    for group, failure in zip(rest, failures, strict=True):
        names = [line.partition(":")[0] for line in group.split("\r\n") if line[0] != " "]
        assert len(names) == len(set(names))
        assert set(names) >= {"Final-Recipient", "Action", "Status"}
        (final,) = (v for v in group.split("\r\n") if v.startswith("Final-Recipient: "))
        mailbox = failure.recipient.mailbox
        kind, _, address = final.removeprefix("Final-Recipient: ").partition("; ")
        assert kind == ("rfc822" if mailbox.is_ascii else "utf-8")
        if kind == "utf-8" and to.is_ascii:
            address = re.sub(r"\\x\{(\w+)\}", lambda m: chr(int(m[1], 16)), address)
        assert address == str(mailbox)


# --- the thread, and what has no sender ------------------------------------------------------


@pytest.mark.rfc("3834 §3.1.6")
@pytest.mark.parametrize(
    ("header", "replied"),
    [
        (b"Message-ID: <a.b@c.example>\r\n", "<a.b@c.example>"),
        (b"MESSAGE-ID:\r\n <a@b> \r\nX: y\r\n", "<a@b>"),
        (b"Message-ID: a@b\r\n", None),
        (b"Message-ID: <a@b> <c@d>\r\n", None),
        (b"Message-ID: <" + b"a" * 300 + b"@b>\r\n", None),
        (b"X: y\r\n\r\nMessage-ID: <a@b>\r\n", None),
    ],
)
def test_a_report_stands_beside_its_message(header: bytes, replied: str | None) -> None:
    message = parse(report(original=header + b"\r\nx\r\n"))
    assert (message["In-Reply-To"], message["References"]) == (replied, replied)


def test_a_report_on_mail_without_a_sender_says_so() -> None:
    octets = report(orphan=True)
    assert parse(octets)["Subject"] == "Mail without a sender could not be delivered"
    words = str(parts(parse(octets))[0].get_payload())
    assert "A message without a sender, most likely a report, has failed." in words


def test_a_report_on_a_thousand_is_bounded() -> None:
    reader = ReplyReader(max_octets=1 << 20)
    for _ in range(50):
        assert reader.feed(b"550-" + b"\x1b" * 400) is None
    failure = evolve(FAILURE, diagnostic=reader.feed(b"550 5.1.1 the end"))
    octets = report(*[failure] * 1000)
    assert len(octets) < 1_500_000
    last = groups(octets)[-1]
    assert (last["Action"], last["Diagnostic-Code"]) == ("failed", "smtp; 550 5.1.1 the end")
