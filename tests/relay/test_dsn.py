"""Reports as they were asked for (RFC 3461): who hears what, and what the next hop is asked."""

import math
from pathlib import Path
from typing import Any

import pytest

from smtpproto.client import Client, Tls
from smtpproto.core.command import Mail, Rcpt
from smtpproto.core.envelope import Envelope
from smtpproto.relay import AliasTable, Schedule
from smtpproto.relay.relay import Kind
from smtpproto.relay.reports.story import Deferred, Delivered, Failed, Reported
from smtpproto.result import Result
from tests.relay.test_delivery import delivery_status
from tests.relay.world import MESSAGE, Host, Node, World, world

pytestmark = pytest.mark.anyio

SENDER = "ann@our.dom"
WITH_DSN = ("8BITMIME", "PIPELINING", "DSN")
ASKED = {"ENVID": "QQ+2B314159", "RET": "HDRS"}
OF_BOB = {"NOTIFY": "SUCCESS,DELAY,FAILURE", "ORCPT": "rfc822;Bob+2Bold@Else.Example"}


async def hand_over(
    node: Node,
    recipients: dict[str, dict[str, str]],
    asked: dict[str, str] = ASKED,
    *,
    sender: str | None = SENDER,
) -> Result:
    """Submit a message that asks for reports."""
    envelope = Envelope(Mail(sender, asked), [Rcpt(a, p) for a, p in recipients.items()])
    async with Client(
        "127.0.0.1", node.ports["smtp"], tls=Tls.NONE, helo_name="client.example"
    ) as client:
        assert "DSN" in client.offered
        return await client.deliver(envelope, MESSAGE)


async def reports(node: Node, count: int = 1) -> list[tuple[Any, list[dict[str, str]]]]:
    """The reports that the sender has got, once there are so many."""

    def arrived() -> int:
        return sum(event.where == f"mailbox {SENDER}" for event in node.told(Delivered))

    while arrived() < count:
        await node.until(Delivered, len(node.told(Delivered)) + 1)
    return [delivery_status(octets) for octets in node.mail(SENDER)]


async def there(w: World, says: dict[str, str] | None = None, *, dsn: bool) -> Host:
    keywords = WITH_DSN if dsn else WITH_DSN[:-1]
    return await w.host("mx.ext.example", "ext.example", says, keywords=keywords)


# What is passed on


@pytest.mark.rfc(
    "3461 §3 requests-are-passed-on",
    "3461 §3 original-recipient-is-passed-on",
    "3461 §3 envelope-id-is-passed-on",
    "3461 §5.2.1 envid-is-passed-on",
    "3461 §5.2.1 ret-is-passed-on",
    "3461 §5.2.1 notify-is-passed-on",
    "3461 §5.2.1 orcpt-is-passed-on-as-it-is",
)
async def test_what_was_asked_is_passed_on_letter_for_letter(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await there(w, dsn=True)
        node = await w.node("relay.example")
        assert await hand_over(node, {"bob@ext.example": OF_BOB, "eve@ext.example": {}})
        await node.until(Delivered, 2)
        (mail,) = [line for line in host.lines if line.startswith("MAIL")]
        assert mail.startswith("MAIL FROM:<ann@our.dom> RET=HDRS ENVID=QQ+2B314159")
        assert [line for line in host.lines if line.startswith("RCPT")] == [
            "RCPT TO:<bob@ext.example> NOTIFY=SUCCESS,DELAY,FAILURE"
            " ORCPT=rfc822;Bob+2Bold@Else.Example",
            "RCPT TO:<eve@ext.example>",
        ]
        assert node.told(Reported) == []  # that is the next hop's now


@pytest.mark.rfc(
    "3464 §2 report-goes-to-the-return-path",
    "3464 §2 report-has-the-null-path",
)
@pytest.mark.rfc("3461 §6.1 notify-of-a-report-is-never")
async def test_nobody_wants_a_report_on_a_report(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await there(w, {"RCPT TO:<bob": "550 5.1.1 nobody"}, dsn=True)
        node = await w.node("relay.example")
        await hand_over(node, {"bob@ext.example": {}}, sender="liar@ext.example")
        await node.until(Delivered)
        assert [line for line in host.lines if line[:4] in ("MAIL", "RCPT")][-2:] == [
            "MAIL FROM:<>",
            "RCPT TO:<liar@ext.example> NOTIFY=NEVER",
        ]


# Success


@pytest.mark.rfc(
    "3464 §2.2.1 envelope-id-is-repeated",
    "3464 §2.3.3 relayed-is-for-who-asked-for-success",
)
@pytest.mark.rfc(
    "3461 §5.2.2 relayed-is-reported",
    "3461 §4.4 envid-is-in-every-report",
    "3461 §6.3 original-envelope-id-is-envid",
    "3461 §6.3 original-recipient-is-orcpt",
)
async def test_where_the_next_hop_does_not_report_we_say_that_it_was_relayed(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as w:
        host = await there(w, {"RCPT TO:<no@": "550 5.1.1 nobody"}, dsn=False)
        node = await w.node("relay.example")
        await hand_over(
            node,
            {
                "bob@ext.example": OF_BOB,
                "eve@ext.example": {},
                "joe@ext.example": {"NOTIFY": "FAILURE"},
                "no@ext.example": {"NOTIFY": "SUCCESS"},
            },
        )
        ((report, (ours, *theirs)),) = await reports(node)
        assert report["Subject"] == "Mail was passed on"
        assert ours["Original-Envelope-Id"] == "QQ+314159"
        assert len(theirs) == 1
        assert theirs[0]["Final-Recipient"] == "rfc822; bob@ext.example"
        assert theirs[0]["Original-Recipient"] == "rfc822; Bob+old@Else.Example"
        assert (theirs[0]["Action"], theirs[0]["Status"]) == ("relayed", "2.1.5")
        assert theirs[0]["Remote-MTA"] == "dns; mx.ext.example"
        assert not any("NOTIFY" in line or "ENVID" in line for line in host.lines)


@pytest.mark.rfc("3461 §5.2.3 success-asked-for-is-reported")
async def test_delivery_to_a_mailbox_is_reported(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await w.node("relay.example")
        await hand_over(node, {"bob@our.dom": OF_BOB, "eve@our.dom": {}})
        ((report, (_, *theirs)),) = await reports(node)
        assert report["Subject"] == "Mail was delivered"
        assert [each["Final-Recipient"] for each in theirs] == ["rfc822; bob@our.dom"]
        assert theirs[0]["Action"] == "delivered"
        assert "Remote-MTA" not in theirs[0]
        await node.until(Delivered, 3)  # theirs, and the report
        assert len(node.mail("bob@our.dom")) == len(node.mail("eve@our.dom")) == 1


# Failure


@pytest.mark.rfc("3461 §4.3 hdrs-returns-the-header")
@pytest.mark.parametrize(
    ("ret", "kind"), [("HDRS", "text/rfc822-headers"), ("FULL", "message/rfc822")]
)
async def test_as_much_comes_back_as_was_asked_for(tmp_path: Path, ret: str, kind: str) -> None:
    async with world(tmp_path) as w:
        await there(w, {"RCPT": "550 5.1.1 nobody"}, dsn=True)
        node = await w.node("relay.example")
        await hand_over(node, {"bob@ext.example": OF_BOB}, {"RET": ret})
        ((report, (ours, theirs)),) = await reports(node)
        assert [part.get_content_type() for part in report.iter_parts()][2] == kind
        assert theirs["Original-Recipient"] == "rfc822; Bob+old@Else.Example"
        assert theirs["Action"] == "failed"
        assert "Original-Envelope-Id" not in ours


@pytest.mark.parametrize("notify", ["NEVER", "SUCCESS", "DELAY,SUCCESS"])
async def test_failure_is_not_reported_to_who_did_not_ask(tmp_path: Path, notify: str) -> None:
    async with world(tmp_path) as w:
        await there(w, {"RCPT": "550 5.1.1 nobody"}, dsn=True)
        node = await w.node("relay.example")
        await hand_over(node, {"bob@ext.example": {"NOTIFY": notify}})
        (reported,) = await node.until(Reported)
        assert reported.report == ""
        assert await node.queue() == []


# Delay


LATE = {"late@ext.example": {"NOTIFY": "DELAY"}, "quiet@ext.example": {"NOTIFY": "FAILURE"}}


@pytest.mark.rfc("3464 §2.3.3 delayed-is-not-the-end")
@pytest.mark.rfc("3461 §4.1 long-delays-may-be-reported")
async def test_a_delay_is_told_once_and_to_those_who_want_to_know(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await there(w, {"RCPT": "450 4.2.1 later"}, dsn=True)
        schedule = Schedule(first=3600, factor=1, longest=3600, spread=0)
        node = await w.node("relay.example", schedule=schedule)
        await hand_over(node, LATE | {"usual@ext.example": {}})
        for hour in range(8):
            await node.until(Deferred, 3 * (hour + 1))
            assert len(node.told(Reported)) == (hour >= 4)
            await node.until(Delivered, hour >= 4)  # or its lease is over while it is on its way
            w.move(3600)
        await node.until(Deferred, 27)
        ((report, (_, *theirs)),) = [delivery_status(octets) for octets in node.mail(SENDER)]
        assert report["Subject"] == "Mail is delayed"
        assert [each["Final-Recipient"] for each in theirs] == [
            "rfc822; late@ext.example",
            "rfc822; usual@ext.example",
        ]
        assert {(each["Action"], each["Status"]) for each in theirs} == {("delayed", "4.2.1")}
        assert "Will-Retry-Until" in theirs[0]
        # And failure all the same, in the end.
        w.move(5 * 86400)
        await node.until(Failed, 3)


async def test_what_is_held_is_late_too(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.dead("mx.ext.example", "ext.example")
        node = await w.node("relay.example", schedule=Schedule(notice=3600))
        await hand_over(node, LATE)
        await node.until(Deferred, 2)
        w.now += 3600
        node.relay.hops.down("ext.example", "mx.ext.example:25", None, "it is down", began=w.now)
        node.relay.dispatcher.wake()
        await node.until(Reported)


async def test_a_schedule_may_have_no_notice(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await there(w, {"RCPT": "450 4.2.1 later"}, dsn=True)
        schedule = Schedule(first=86400, factor=1, longest=86400, spread=0, notice=math.inf)
        node = await w.node("relay.example", schedule=schedule)
        await hand_over(node, LATE)
        for day in range(4):
            await node.until(Deferred, 2 * (day + 1))
            w.move(86400)
        assert node.told(Reported) == []


# Who may ask


async def keywords(node: Node, kind: Kind = "smtp") -> set[str]:
    async with node.dial(kind) as wire:
        await wire.reply()
        await wire.stream.send(b"EHLO client.example\r\n")
        return {line.removeprefix("250 ").split()[0] for line in await wire.lines()}


async def test_who_may_not_relay_is_not_offered_reports(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await w.node("relay.example", networks=(), kinds=["smtp", "submission"])
        assert "DSN" not in await keywords(node)
        assert "DSN" in await keywords(node, "submission")
        async with node.dial() as wire:
            await wire.hello()
            assert (await wire.say("MAIL FROM:<far@ext.example>")).startswith("250")
            refused = await wire.say("RCPT TO:<ann@our.dom> NOTIFY=SUCCESS")
            assert refused.startswith("555 5.5.4")
        assert "DSN" in await keywords(await w.node("other.example"))


async def test_everybody_may_be_offered_reports(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await w.node("relay.example", networks=(), dsn_to_all=True)
        assert "DSN" in await keywords(node)


# What has no sender


@pytest.mark.rfc(
    "5321 §4.5.5 failed-notifications-may-go-to-postmaster",
    "5321 §6.1 nobody-is-notified-of-mail-from-nobody",
)
async def test_what_cannot_be_reported_may_go_to_the_postmaster(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await there(w, {"RCPT": "550 5.1.1 nobody"}, dsn=True)
        node = await w.node("relay.example", postmaster="root@our.dom")
        await hand_over(node, {"bob@ext.example": OF_BOB}, sender="liar@ext.example")
        to_liar, to_root = await node.until(Reported, 2)
        assert (to_liar.postmaster, str(to_root.postmaster)) == (None, "root@our.dom")
        assert to_root.id == to_liar.report
        await node.until(Delivered)
        ((told, (_, theirs)),) = [delivery_status(octets) for octets in node.mail("root@our.dom")]
        assert told["Subject"] == "Mail without a sender could not be delivered"
        assert told["To"] == "root@our.dom"
        assert (theirs["Action"], theirs["Final-Recipient"]) == (
            "failed",
            "rfc822; liar@ext.example",
        )
        assert node.mail("root@our.dom")[0].startswith(b"Return-Path: <>\n")


@pytest.mark.rfc("5321 §4.5.5 failed-notifications-may-go-to-postmaster")
async def test_without_a_postmaster_the_observer_alone_is_told(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await there(w, {"RCPT": "550 5.1.1 nobody"}, dsn=True)
        node = await w.node("relay.example")
        await node.send(None, ["bob@ext.example"])
        (reported,) = await node.until(Reported)
        assert (reported.report, reported.postmaster) == ("", None)
        assert await node.queue() == []


@pytest.mark.parametrize("behind", [None, "boss@ext.example"])
async def test_what_the_postmaster_cannot_be_told_ends_there(
    tmp_path: Path, behind: str | None
) -> None:
    async with world(tmp_path) as w:
        await there(w, {"RCPT": "550 5.1.1 nobody"}, dsn=True)
        address = "root@ext.example" if behind is None else "root@our.dom"
        table = AliasTable({} if behind is None else {"root@our.dom": [behind]})
        node = await w.node("relay.example", postmaster=address, aliases=table)
        await node.send(None, ["bob@ext.example", "eve@ext.example"])
        of_both, of_report = await node.until(Reported, 2)
        assert of_both.report == of_report.id
        assert of_report.report == ""
        assert len(node.told(Failed)) == 3
        assert await node.queue() == []


async def test_however_the_postmasters_domain_is_spelled_that_is_the_end(tmp_path: Path) -> None:
    # The report comes back under A-labels, and was once taken for somebody else's: without end.
    async with world(tmp_path) as w:
        await there(w, {"RCPT": "550 5.1.1 nobody"}, dsn=False)
        table = AliasTable({"root": ["boss@ext.example"]})
        node = await w.node(
            "relay.example", ["bücher.example"], postmaster="root@bücher.example", aliases=table
        )
        await node.send(None, ["bob@ext.example"])
        _, of_report = await node.until(Reported, 2)
        assert of_report.report == ""


async def test_the_postmaster_hears_of_failures_alone(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await there(w, {"RCPT": "450 4.2.1 later"}, dsn=True)
        schedule = Schedule(first=3600, factor=1, longest=3600, spread=0, notice=0)
        node = await w.node("relay.example", schedule=schedule, postmaster="root@our.dom")
        await node.send(None, ["bob@ext.example"])
        await node.until(Deferred)
        w.move(3600)
        await node.until(Deferred, 2)
        assert node.told(Reported) == []


@pytest.mark.rfc("3461 §5.2.6 failure-not-asked-for-is-not-reported")
async def test_who_wants_no_report_has_none_sent_to_the_postmaster_either(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await there(w, {"RCPT": "550 5.1.1 nobody"}, dsn=True)
        node = await w.node("relay.example", postmaster="root@our.dom")
        await hand_over(node, {"bob@ext.example": {"NOTIFY": "NEVER"}})
        (reported,) = await node.until(Reported)
        assert reported.report == ""
        assert await node.queue() == []


# One report for several

ONE_HANGS = {"RCPT TO:<joe": "550 5.1.1 nobody", "RCPT TO:<eve": "hang"}


async def test_what_fails_soon_after_is_told_in_the_same_report(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await there(w, {"RCPT": "550 5.1.1 nobody"}, dsn=True)
        table = AliasTable({"all@our.dom": ["bob@ext.example", "eve@ext.example"]})
        node = await w.node("relay.example", aliases=table)
        node.relay.dispatcher.together = math.inf
        await hand_over(node, {"joe@ext.example": {}, "all@our.dom": {}, "kim@ext.example": {}})
        await node.until(Reported)
        ((_, (_, *theirs)),) = await reports(node)
        assert {each["Final-Recipient"] for each in theirs} == {
            f"rfc822; {name}@ext.example" for name in ("bob", "eve", "joe", "kim")
        }
        assert len(node.told(Reported)) == 1
        assert await node.queue() == []


async def test_what_failed_waits_for_the_rest_no_longer_than_it_should(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await there(
            w, {"RCPT TO:<joe": "550 5.1.1 nobody", "RCPT TO:<eve": "hang"}, dsn=True
        )
        table = AliasTable({"all@our.dom": ["eve@ext.example"]})
        node = await w.node("relay.example", aliases=table)
        node.relay.dispatcher.together = 0.05
        await hand_over(node, {"joe@ext.example": {}, "all@our.dom": {}})
        ((_, (_, *theirs)),) = await reports(node)
        assert [each["Final-Recipient"] for each in theirs] == ["rfc822; joe@ext.example"]
        host.released.set()
        await node.until(Delivered, 2)
        assert await node.queue() == []


async def test_what_waits_to_be_told_is_queued_until_it_is(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await there(
            w, {"RCPT TO:<joe": "550 5.1.1 nobody", "RCPT TO:<eve": "hang"}, dsn=True
        )
        table = AliasTable({"all@our.dom": ["eve@ext.example"]})
        node = await w.node("relay.example", aliases=table)
        node.relay.dispatcher.together = math.inf
        await hand_over(node, {"joe@ext.example": {}, "all@our.dom": {}})
        await host.reached.wait()
        (entry,) = await node.queue()
        assert len(entry.recipients) == 2
        await node.cancel()
        host.says.pop("RCPT TO:<eve")
        node = await w.node("relay.example", aliases=table)
        await node.until(Reported)
        await node.until(Delivered, 2)
        assert len(node.mail(SENDER)) == 1
        assert await node.queue() == []


# In UTF-8


@pytest.mark.rfc("6533 §4.5")
@pytest.mark.rfc("6531 §3.2 report-of-that-follows-the-rules")
async def test_a_report_to_an_address_beyond_ascii_goes_with_smtputf8(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        says = {"RCPT TO:<bob": "550 5.1.1 nobody"}
        host = await w.host(
            "mx.ext.example", "ext.example", says, keywords=("8BITMIME", "SMTPUTF8", "DSN")
        )
        node = await w.node("relay.example")
        async with node.spool.receive() as incoming:
            await incoming.write("Subject: é\r\n\r\n".encode())
            mail = Mail("josé@ext.example", {"SMTPUTF8": None})
            await incoming.commit(mail, [Rcpt("bob@ext.example")], now=w.now)
        node.relay.dispatcher.wake()
        await node.until(Delivered)
        sent = [line for line in host.lines if line[:4] in ("MAIL", "RCPT")][-2:]
        assert sent[0].startswith("MAIL FROM:<> ")
        assert {"SMTPUTF8", "BODY=8BITMIME"} <= set(sent[0].split())
        assert sent[1] == "RCPT TO:<josé@ext.example> NOTIFY=NEVER"
        assert (
            b"Content-Type: message/global\r\nContent-Transfer-Encoding: 8bit" in host.contents[-1]
        )
