"""RFC 5321 §4.4: the fields that a relay writes, and that it touches nothing else."""

import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from smtpproto import ForwardPath, ReversePath
from smtpproto.relay.reports.story import Delivered, Reported
from smtpproto.trace import received, return_path
from tests.relay.world import parsed, world

# The productions, put together from the RFC's own names. WSP and CRLF WSP are FWS (RFC 5322
# §3.2.2); a comment may stand in CFWS, and we write none.
FWS = r"(?:(?:[ \t]*\r\n)?[ \t]+)"
CFWS = FWS
ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
DOMAIN = r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?"
LITERAL = r"\[(?:IPv6:[0-9A-Fa-f:.]+|[0-9]+(?:\.[0-9]+){3})\]"
TCP_INFO = rf"(?:{LITERAL}|{DOMAIN}{FWS}{LITERAL})"
EXTENDED = rf"(?:{DOMAIN}(?:{FWS}\({TCP_INFO}\))?|{LITERAL}{FWS}\({TCP_INFO}\))"
DATE_TIME = (
    r"(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), )?[0-9]{1,2} "
    r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [0-9]{4} "
    r"[0-9]{2}:[0-9]{2}(?::[0-9]{2})? [+-][0-9]{4}"
)
TIME_STAMP_LINE = re.compile(
    rf"Received:{FWS}"
    rf"(?i:from){FWS}(?P<from>{EXTENDED})"
    rf"{CFWS}(?i:by){FWS}(?P<by>{EXTENDED})"
    rf"(?:{CFWS}(?i:via){FWS}(?P<via>{ATOM}))?"
    rf"(?:{CFWS}(?i:with){FWS}(?P<with>{ATOM}))?"
    rf"(?:{CFWS}(?i:id){FWS}(?P<id>{ATOM}))?"
    rf"(?:{CFWS}(?i:for){FWS}(?P<for><[^ ]+>))?"
    rf"{CFWS}?;{FWS}(?P<date>{DATE_TIME})\r\n"
)
EAST = timezone(timedelta(hours=5, minutes=45))


@pytest.mark.rfc(
    "5321 §4.4 Time-stamp-line",
    "5321 §4.4 Stamp",
    "5321 §4.4 From-domain",
    "5321 §4.4 By-domain",
    "5321 §4.4 Extended-Domain",
    "5321 §4.4 TCP-info",
    "5321 §4.4 Opt-info",
    "5321 §4.4 With",
    "5321 §4.4 Protocol",
    "5321 §4.4 Attdl-Protocol",
    "5321 §4.4 ID",
    "5321 §4.4 For",
    "5321 §4.4 no-obsolete-dates",
    "5321 §4.4 from-clause-is-there",
    "5321 §4.4 from-clause-has-name-and-address",
    "5321 §4.4 dates-have-numeric-offsets",
)
@pytest.mark.parametrize("helo", ["client.example", "[192.0.2.9]", "not a name"])
@pytest.mark.parametrize(
    ("peer", "literal"),
    [("192.0.2.7", "[192.0.2.7]"), ("2001:db8::1", "[IPv6:2001:db8::1]")],
)
@pytest.mark.parametrize("protocol", ["SMTP", "ESMTP", "ESMTPSA"])
@pytest.mark.parametrize("to", [[], ["v@our.dom"], ["v@our.dom", "w@our.dom"]])
@pytest.mark.parametrize(
    "now", [datetime(2024, 2, 9, tzinfo=UTC), datetime(999, 1, 1, tzinfo=EAST)]
)
def test_a_received_field_fits_the_grammar(
    *, helo: str, peer: str, literal: str, protocol: str, to: list[str], now: datetime
) -> None:
    line = received(
        helo=helo,
        peer=peer,
        hostname="mx.our.dom",
        protocol=protocol,
        queue_id="4XyZ",
        recipients=[ForwardPath.of(path) for path in to],
        now=now,
    ).decode()
    match = TIME_STAMP_LINE.fullmatch(line)
    assert match is not None, line
    name = literal if " " in helo else helo
    assert match["from"].split() == [name, f"({literal})"]
    assert (match["by"], match["via"], match["with"], match["id"]) == (
        "mx.our.dom",
        None,
        protocol,
        "4XyZ",
    )
    assert match["for"] == (f"<{to[0]}>" if len(to) == 1 else None)
    assert match["date"].split()[3] == f"{now.year:04}"
    assert match["date"].endswith(f"{now:%z}")


@pytest.mark.rfc("5321 §4.4 Return-path-line")
@pytest.mark.parametrize("sender", [None, "a@b.example", '"a b"@[192.0.2.1]'])
def test_a_return_path_fits_the_grammar(sender: str | None) -> None:
    line = return_path(ReversePath.of(sender)).decode()
    assert re.fullmatch(rf"Return-Path:{FWS}<{re.escape(sender or '')}>\r\n", line)


# What the grammar of header fields has and what it has not; lines as no program should write them;
# every ASCII character.
ODD = (
    b"Return-Path: <somebody@else.example>\r\n"
    b"Received: from y by x; Mon, 01 Jan 2024 00:00:02 GMT\r\n"
    b"Received: from z by y; Mon, 01 Jan 24 00:00:01 EST\r\n"
    b"To: " + b",\r\n\t".join(b"r%d@list.example" % n for n in range(3000)) + b"\r\n"
    b"Subject : no Date, no Message-ID, no From\r\n"
    b"this is no field\r\n"
    b"To: another one\r\n"
    b"\r\n" + bytes(octet for octet in range(128) if octet not in b"\r\n") + b"\r\n \t\r\n"
)


@pytest.mark.anyio
@pytest.mark.rfc(
    "5321 §4.4 received-line-is-put-first",
    "5321 §4.4 received-lines-stay",
    "5321 §4.4 received-goes-on-top",
    "5321 §4.4 relay-does-not-look-for-return-path",
    "5321 §4.4 return-path-then-received-then-the-rest",
    "5321 §4.4 return-path-is-inserted-at-final-delivery",
    "5321 §4.4 return-path-is-the-reverse-path",
    "5321 §4.5.2 all-characters-reach-the-mailbox",
    "5321 §4.5.2 transformations-are-reversible",
    "5321 §4.5.3.1.8 header-is-not-validated",
    "5321 §4.5.3.1.8 recipients-in-the-header-are-not-counted",
    "5321 §6.2 faults-do-not-keep-mail-from-delivery",
    "5321 §6.4 relay-corrects-nothing",
    "5321 §7.2 nothing-is-deduced-from-the-envelope",
    "5321 §7.2 no-apparently-to",
)
async def test_a_relay_puts_its_lines_on_top_and_leaves_the_rest_as_it_is(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example")
        node = await w.node("relay.example")
        result = await node.send("a@our.dom", ["v@ext.example", "v@our.dom"], ODD)
        assert result.all_accepted
        await node.until(Delivered, 2)
        (relayed,) = host.contents
        (kept,) = node.mail("v@our.dom")
    ours, _, rest = relayed.partition(b"\r\nReturn-Path:")
    assert TIME_STAMP_LINE.fullmatch(ours.decode() + "\r\n")
    assert b"Return-Path:" + rest == ODD
    first, _, rest = kept.replace(b"\n", b"\r\n").partition(b"\r\n")
    assert first == b"Return-Path: <a@our.dom>"
    # Where delivery is final, another's Return-Path makes room for ours; that is all.
    assert rest == ours + b"\r\n" + ODD.partition(b"\r\n")[2]


@pytest.mark.anyio
@pytest.mark.rfc(
    "5321 §4.4 partial-success-is-success",
    "5321 §4.4 originator-is-told-of-those-who-failed",
    "5321 §4.4 all-who-failed-are-listed",
    "5321 §4.4 one-notification-for-all",
    "5321 §4.4 notifications-go-by-mail-from-null",
    "5321 §4.4 reverse-path-is-where-errors-go",
    "5321 §4.5.5 notifications-have-a-null-reverse-path",
    "5321 §4.5.5 notifications-go-to-the-reverse-path",
    "5321 §6.1 failure-after-acceptance-is-notified",
    "5321 §6.1 notification-has-a-null-reverse-path",
    "5321 §6.1 notification-goes-to-the-reverse-path",
    "5321 §6.1 source-route-is-stripped",
)
async def test_who_could_not_be_reached_is_told_in_one_message_from_nobody(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        refusal = {"RCPT TO:<no": "550 5.1.1 nobody"}
        there = await w.host("mx.ext.example", "ext.example", refusal)
        home = await w.host("mx.d.example", "d.example")
        node = await w.node("relay.example")
        async with node.dial() as wire:
            await wire.hello()
            await wire.say("MAIL FROM:<@a.example,@b.example:user@d.example>")
            for name in "no1", "yes", "no2":
                await wire.say(f"RCPT TO:<{name}@ext.example>")
            await wire.say("DATA")
            assert (await wire.say(b"From: other@d.example\r\n\r\nx\r\n.")).startswith("250")
        await node.until(Reported)
        await node.until(Delivered, 2)
        assert there.accepted == [["RCPT TO:<yes@ext.example>"]]
        assert home.accepted == [["RCPT TO:<user@d.example>"]]
        mail = next(line for line in home.lines if line.startswith("MAIL"))
        assert mail.split()[1] == "FROM:<>"
        (report,) = home.contents
    status = list(parsed(report).iter_parts())[1].as_string()
    assert "no1@ext.example" in status
    assert "no2@ext.example" in status
    assert "yes@ext.example" not in status


@pytest.mark.anyio
@pytest.mark.rfc("5321 §4.5.5 null-stays-null-when-it-is-forwarded")
async def test_a_null_reverse_path_stays_one_on_the_way(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example", keywords=())
        node = await w.node("relay.example")
        await node.send(None, ["v@ext.example"])
        await node.until(Delivered)
        assert "MAIL FROM:<>" in host.lines
