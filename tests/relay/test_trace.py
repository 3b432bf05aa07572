"""Trace fields: they parse, they fold, nothing breaks out, and hops are counted."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from email import message_from_bytes, policy
from email.utils import parsedate_to_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpproto import ForwardPath, LocalProtocolError, ReversePath
from smtpproto.trace import (
    HeaderScan,
    count_received,
    received,
    return_path,
    transmission_type,
)

NOW = datetime(2024, 2, 29, 23, 59, 58, tzinfo=timezone(timedelta(hours=-3, minutes=-30)))


def field(
    *,
    helo: str | bytes = "client.example",
    peer: str | None = "192.0.2.7",
    hostname: str = "mx.example.org",
    protocol: str = "ESMTPS",
    queue_id: str = "4XyZ",
    to: tuple[str, ...] = ("ann@example.org",),
    now: datetime = NOW,
) -> bytes:
    return received(
        helo=helo,
        peer=peer,
        hostname=hostname,
        protocol=protocol,
        queue_id=queue_id,
        recipients=[ForwardPath.of(path) for path in to],
        now=now,
    )


def unfold(octets: bytes) -> bytes:
    assert octets.endswith(b"\r\n")
    return octets[:-2].replace(b"\r\n ", b" ")


@pytest.mark.rfc(
    "5321 §4.4 from-clause-is-there",
    "5321 §4.4 from-clause-has-name-and-address",
    "5321 §4.4 dates-have-numeric-offsets",
)
@pytest.mark.rfc("5321 §4.1.1.4 trace-record-says-from-by-and-when")
def test_received_names_who_from_whom_how_for_whom_and_when() -> None:
    assert unfold(field()) == (
        b"Received: from client.example ([192.0.2.7]) by mx.example.org with ESMTPS id 4XyZ"
        b" for <ann@example.org>; Thu, 29 Feb 2024 23:59:58 -0330"
    )


@pytest.mark.rfc("5321 §4.1.3 IPv6-address-literal")
def test_an_ipv6_peer_is_written_with_its_tag_and_without_its_scope() -> None:
    assert b" ([IPv6:2001:db8::1]) " in unfold(field(peer="2001:db8:0::1%eth0"))


def test_a_peer_without_address_has_no_tcp_info() -> None:
    assert b"from client.example by mx.example.org" in unfold(field(peer=None))


@pytest.mark.rfc(
    "5321 §4.4 for-names-one-recipient",
    "5321 §7.2 recipients-are-not-copied-into-the-header",
    "5321 §7.6 no-for-clause-with-several-recipients",
)
@pytest.mark.parametrize("to", [(), ("a@x.org", "b@x.org")])
def test_recipients_are_named_only_where_there_is_one(to: tuple[str, ...]) -> None:
    octets = field(to=to)
    assert b" for " not in octets
    assert b"id 4XyZ; " in unfold(octets)


def test_the_bare_postmaster_is_no_path_and_left_out() -> None:
    assert b" for " not in field(to=("Postmaster",))


@pytest.mark.parametrize(
    "helo",
    [
        b"a b",
        b"x\r\nBcc: v@ext",
        b"x\n evil",
        b"(comment",
        b"a;b",
        b"x" * 5000,
        b"",
        b"\xff",
        b"[192.0.2.999]",
        b"[x]\r\n",
        "naïve",
    ],
)
def test_a_helo_name_that_is_none_is_not_repeated(helo: bytes | str) -> None:
    assert unfold(field(helo=helo)).startswith(b"Received: from [192.0.2.7] ([192.0.2.7]) by mx.")
    assert unfold(field(helo=helo, peer=None)).startswith(b"Received: from unknown by mx.")


@pytest.mark.parametrize("helo", [b"[192.0.2.9]", b"[IPv6:::1]", b"my_machine"])
def test_literals_and_underscores_are_repeated(helo: bytes) -> None:
    assert b"from %b (" % helo in unfold(field(helo=helo))


@pytest.mark.parametrize(
    "bad",
    [
        {"hostname": "mx example"},
        {"hostname": "mx\r\nX: y"},
        {"protocol": "E SMTP"},
        {"queue_id": "1;2"},
        {"queue_id": ""},
        {"queue_id": "a\r\nb"},
        {"queue_id": "a" * 256},
    ],
)
def test_what_we_say_of_ourselves_has_to_be_right(bad: dict[str, str]) -> None:
    with pytest.raises(LocalProtocolError):
        field(**bad)  # type: ignore[arg-type]  # only str fields are varied


def test_a_time_without_zone_or_a_peer_without_address_is_refused() -> None:
    with pytest.raises(ValueError, match="zone"):
        field(now=NOW.replace(tzinfo=None))
    with pytest.raises(ValueError, match="not-an-ip"):
        field(peer="not-an-ip")


LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
DOMAIN = st.lists(LABEL, min_size=1, max_size=5).map(".".join)
LOCAL = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=64)


def quoted(local: str) -> str:
    return '"' + local.replace("\\", "\\\\").replace('"', '\\"') + '"'


@given(
    helo=DOMAIN | st.binary(max_size=80),
    hostname=DOMAIN,
    local=LOCAL,
    to=DOMAIN,
    peer=st.ip_addresses().map(str),
    now=st.datetimes(min_value=datetime(1970, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
)
def test_received_is_one_field_folded_and_readable(
    *, helo: str | bytes, hostname: str, local: str, to: str, peer: str, now: datetime
) -> None:
    recipient = f"{quoted(local)}@{to}"
    octets = field(helo=helo, peer=peer, hostname=hostname, to=(recipient,), now=now)
    message = message_from_bytes(octets + b"\r\n", policy=policy.default)
    assert message.keys() == ["Received"]
    assert not message.defects
    lines = octets.split(b"\r\n")
    assert lines.pop() == b""
    for number, line in enumerate(lines):
        assert b"\r" not in line
        assert b"\n" not in line
        assert number == 0 or line.startswith(b" ")
        assert line.strip() == line[number > 0 :]  # no line of spaces only, none trailing
        # Longer only where there was no space to fold at.
        assert len(line) < 78 or line.count(b" ") <= 1 + (number == 0) + local.count(" ")
    assert parsedate_to_datetime(unfold(octets).decode().rpartition(";")[2].strip()) == now.replace(
        microsecond=0
    )
    assert ForwardPath.of(recipient).serialize() in unfold(octets)


@pytest.mark.rfc("3848")
@pytest.mark.parametrize(
    ("extended", "tls", "authenticated", "keyword"),
    [
        (False, False, False, "SMTP"),
        (False, True, False, "SMTP"),
        (True, False, False, "ESMTP"),
        (True, True, False, "ESMTPS"),
        (True, False, True, "ESMTPA"),
        (True, True, True, "ESMTPSA"),
    ],
)
def test_transmission_types(extended: bool, tls: bool, authenticated: bool, keyword: str) -> None:
    assert transmission_type(extended=extended, tls=tls, authenticated=authenticated) == keyword


@pytest.mark.rfc("6531 §3.1 received-names-lmtp-and-submission", "6531 §4.3")
@pytest.mark.parametrize("ends", ["", "S", "A", "SA"])
def test_transmission_types_tell_smtputf8(ends: str) -> None:
    secured = {"extended": True, "tls": "S" in ends, "authenticated": "A" in ends}
    assert transmission_type(**secured, utf8=True) == f"UTF8SMTP{ends}"
    assert transmission_type(**secured, utf8=True, lmtp=True) == f"UTF8LMTP{ends}"


@pytest.mark.rfc("6531 §3.7.3 trace-is-ascii-without-smtputf8")
def test_a_recipient_beyond_ascii_is_not_named() -> None:
    octets = field(to=("grüße@example.org",))
    assert octets.isascii()
    assert b" for " not in octets


@pytest.mark.rfc("5321 §4.4 Return-path-line")
def test_return_path() -> None:
    assert return_path(ReversePath.of("a@example.org")) == b"Return-Path: <a@example.org>\r\n"
    assert return_path(ReversePath.of(None)) == b"Return-Path: <>\r\n"


# --- counting hops ---------------------------------------------------------------------------

HEADER = (
    b"Return-Path: <>\r\n"
    b"Received: from a\r\n\tReceived: not this, it is folded\r\n"
    b"X-Received: nor this\r\n"
    b"rEcEiVeD : obsolete space\r\n"
    b"Received-SPF: nor this\r\n"
    b"Subject: Received: nor this\r\n"
    b"Received:\r\n"
    b"\r\n"
    b"Received: the body\r\n\r\nReceived: again\r\n"
)


@pytest.mark.rfc("5321 §6.3 loops-are-stopped")
def test_fields_are_counted_and_nothing_else() -> None:
    assert count_received(HEADER) == 3


@pytest.mark.parametrize("first", range(len(HEADER) + 1))
def test_the_count_is_the_same_at_every_split_point(first: int) -> None:
    scan = HeaderScan()
    scan.feed(HEADER[:first])
    scan.feed(HEADER[first:])
    assert scan.received == 3
    assert scan.ended


def test_octet_by_octet_the_end_is_where_it_is() -> None:
    scan = HeaderScan()
    end = HEADER.index(b"\r\n\r\n") + 4
    for at in range(len(HEADER)):
        assert scan.ended == (at >= end)
        scan.feed(HEADER[at : at + 1])
    assert scan.received == 3


@pytest.mark.parametrize(
    ("octets", "count", "ended"),
    [
        (b"", 0, False),
        (b"\r\nReceived: body\r\n", 0, True),
        (b"\nReceived: body\r\n", 0, True),
        (b"Received: no end", 1, False),
        (b"Received", 0, False),
        (b"Deceived: a\r\nRelivered-To: b\r\n", 0, False),
        (b"Received: a\nReceived: b\n\nReceived: c\n", 2, True),
        (b"Received" + b" " * 500 + b": far too obsolete\r\n", 0, False),
    ],
)
def test_corners(octets: bytes, count: int, ended: bool) -> None:
    scan = HeaderScan()
    scan.feed(octets)
    assert (scan.received, scan.ended) == (count, ended)


def test_a_header_without_end_is_given_up_within_bounds() -> None:
    scan = HeaderScan(max_octets=100)
    for _ in range(10):
        scan.feed(b"Received: " + b"x" * 13 + b"\r\n")
    assert scan.ended
    assert scan.received == 4


def test_a_line_without_end_is_not_kept() -> None:
    scan = HeaderScan()
    for _ in range(64):
        scan.feed(b"x" * 8192)
        assert len(scan._line) <= 1024
    assert not scan.received


PLACES = (
    b"Delivered-To: ann@our.dom\r\n"
    b"X-Delivered-To: no@our.dom\r\n"
    b"delivered-to :\t<BOB@our.dom> \n"
    b"Received: from x\r\n Delivered-To: no@our.dom\r\n"
    b"Delivered-To:" + b" " * 2000 + b"far@our.dom\r\n"
    b"Delivered-To: cyd@our.dom\r\n\r\nDelivered-To: no@our.dom\r\n"
)


@pytest.mark.parametrize("step", [1, 2, 7, 1000, 1024, 10_000])
def test_where_a_message_has_been_is_the_same_at_every_split_point(step: int) -> None:
    scan = HeaderScan()
    for at in range(0, len(PLACES), step):
        scan.feed(PLACES[at : at + step])
    assert scan.delivered_to == [b"ann@our.dom", b"bob@our.dom", b"", b"cyd@our.dom"]
    assert scan.received == 1


def test_no_more_places_are_kept_than_a_message_may_have_been_at() -> None:
    scan = HeaderScan()
    for number in range(1000):
        scan.feed(b"Delivered-To: n%d@our.dom\r\n" % number)
    scan.feed(b"Delivered-To: last@our.dom")
    assert scan.delivered_to == [b"n%d@our.dom" % number for number in range(100)]


@given(
    st.lists(
        st.sampled_from(
            [b"Received:", b"received :", b"\r\n", b"\n", b"\r", b" ", b"x", b"y" * 40, b"R", b"ec"]
        ),
        max_size=40,
    ),
    st.integers(0, 7),
)
def test_splitting_changes_nothing(pieces: list[bytes], step: int) -> None:
    octets = b"".join(pieces)
    scan = HeaderScan()
    for at in range(0, len(octets), step + 1):
        scan.feed(octets[at : at + step + 1])
    assert scan.received == count_received(octets)
    header = re.split(rb"(?m)^\r?\n", octets, maxsplit=1)[0]
    assert scan.received == sum(
        re.match(rb"(?i)received[ \t]{0,16}:", line) is not None for line in header.split(b"\n")
    )
