"""What comes of a message: delivered, tried again, or reported; never lost, never both."""

import math
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import ByteStream

from smtpproto.client import ClientDeadlines
from smtpproto.core.path import Mailbox
from smtpproto.core.reply import Reply
from smtpproto.maildir import MailboxUnavailable
from smtpproto.relay import Access, ByMx, Host, RouteTable, Rule, Schedule, SQLiteSpool
from smtpproto.relay.mailboxes.mailbox import Maildir, listed_mailboxes
from smtpproto.relay.reports.story import Deferred, Delivered, Failed, Reported
from smtpproto.relay.spool.seam import SpoolUnavailable
from tests.relay.world import DAY, LOGIN, MESSAGE, START, Node, World, parsed, world

pytestmark = pytest.mark.anyio

SENDER = "ann@our.dom"


def delivery_status(octets: bytes) -> tuple[EmailMessage, list[dict[str, str]]]:
    """Take a report apart: the message, and its groups of fields."""
    report = parsed(octets)
    assert report.get_content_type() == "multipart/report"
    _, status, _ = report.iter_parts()
    assert status.get_content_type() == "message/delivery-status"
    groups = [dict(group.items()) for group in status.get_payload()]  # type: ignore[union-attr]  # a list of messages
    return report, [{k: str(v) for k, v in group.items()} for group in groups]


async def the_report(node: Node) -> tuple[EmailMessage, list[dict[str, str]]]:
    """The one report in the sender's mailbox, once that is settled."""
    while f"mailbox {SENDER}" not in (event.where for event in node.told(Delivered)):
        await node.until(Delivered, len(node.told(Delivered)) + 1)
    (octets,) = node.mail(SENDER)
    return delivery_status(octets)


# --- what is accepted ------------------------------------------------------------------------


@pytest.mark.rfc("5321 §4.5.4.1 one-copy-for-one-server")
@pytest.mark.rfc(
    "5321 §2.1 one-copy-for-many-recipients",
    "5321 §2.3.4 relay-goes-by-name",
    "5321 §3.6.2 relay-becomes-a-client",
    "5321 §3.6.3 relay-leaves-the-message-alone",
)
@pytest.mark.rfc("5321 §4.1.4 client-names-its-primary-host")
@pytest.mark.rfc("5321 §4.2.5 taken-mail-is-delivered")
async def test_one_message_for_many_goes_once_to_each_next_hop(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        one = await w.host("mx.one.example", "one.example")
        two = await w.host("mx.two.example", "two.example")
        node = await w.node("relay.example")
        await node.send(
            SENDER,
            ["a@one.example", "x@our.dom", "b@two.example", "c@one.example", "y@our.dom"],
        )
        await node.until(Delivered, 5)
        assert one.accepted == [["RCPT TO:<a@one.example>", "RCPT TO:<c@one.example>"]]
        assert two.accepted == [["RCPT TO:<b@two.example>"]]
        assert (one.sessions, two.sessions) == (1, 1)
        assert len(node.mail("x@our.dom")) == len(node.mail("y@our.dom")) == 1
        assert await node.queue() == []
        (content,) = one.contents
        assert content.startswith(b"Received: from client.example ([127.0.0.1]) by relay.example")
        assert content.endswith(MESSAGE)
        assert "MAIL FROM:<ann@our.dom>" in one.lines[1]
        assert one.lines[0] == "EHLO relay.example"


async def test_each_recipient_has_an_outcome_of_its_own(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await w.host(
            "mx.ext.example",
            "ext.example",
            {"RCPT TO:<no@": "550 5.1.1 nobody", "RCPT TO:<later@": "450 4.2.1 busy"},
        )
        node = await w.node("relay.example")
        await node.send(SENDER, ["yes@ext.example", "no@ext.example", "later@ext.example"])
        await node.until(Reported)
        (delivered, *_) = node.told(Delivered)
        (deferred,) = node.told(Deferred)
        (failed,) = node.told(Failed)
        assert str(delivered.forward_path) == "<yes@ext.example>"
        assert (str(deferred.forward_path), deferred.reply) == (
            "<later@ext.example>",
            "450 4.2.1 busy",
        )
        assert (str(failed.forward_path), failed.reply) == ("<no@ext.example>", "550 5.1.1 nobody")
        assert failed.where == "mx.ext.example:25"
        # Who has it does not get it again.
        host.says.clear()
        w.move(600)
        while len(host.accepted) < 2:
            await node.until(Delivered, len(node.told(Delivered)) + 1)
        assert host.accepted == [["RCPT TO:<yes@ext.example>"], ["RCPT TO:<later@ext.example>"]]


# --- what is tried again ---------------------------------------------------------------------


@pytest.mark.rfc("5321 §2.1 relay-queues-and-tries-again")
@pytest.mark.rfc(
    "5321 §4.5.4.1 undelivered-mail-is-queued-and-retried", "5321 §4.5.4.1 retry-is-delayed"
)
@pytest.mark.rfc("5321 §4.2.1 4yz-is-tried-again", "5321 §4.2.5 taken-mail-is-retried")
async def test_transient_failures_are_retried_on_schedule(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example", {"RCPT": "450 4.7.1 greylisted"})
        node = await w.node("relay.example")
        await node.send(SENDER, ["v@ext.example"])
        for attempt, wait in enumerate((600, 1200, 2400), 1):
            *_, deferred = await node.until(Deferred, attempt)
            assert deferred.wait == wait
            assert deferred.reply == "450 4.7.1 greylisted"
            (entry,) = await node.queue()
            (recipient,) = entry.recipients
            assert (recipient.attempts, recipient.next_attempt) == (attempt, w.now + wait)
            assert recipient.last_reply == "450 4.7.1 greylisted"
            # A moment too early, nothing happens.
            w.move(wait - 1)
            due = await node.spool.next_due()
            assert due == w.now + 1
            assert host.lines.count("RCPT TO:<v@ext.example>") == attempt
            w.move(1)
        await node.until(Deferred, 4)
        host.says.clear()
        w.move(4800)
        await node.until(Delivered)
        assert host.lines.count("RCPT TO:<v@ext.example>") == 5
        assert await node.queue() == []


@pytest.mark.rfc("5321 §4.2.5 without-2yz-the-client-keeps-it")
@pytest.mark.parametrize("step", ["greeting", "EHLO", "MAIL", "RCPT", "DATA", "."])
async def test_a_4yz_at_any_step_defers(tmp_path: Path, step: str) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example", {step: "421 4.3.2 not now"})
        node = await w.node("relay.example")
        await node.send(SENDER, ["v@ext.example"])
        (deferred,) = await node.until(Deferred)
        assert deferred.reply == "421 4.3.2 not now"
        assert node.told(Failed) == []
        host.says.clear()
        w.move(600)
        await node.until(Delivered)
        assert len(host.accepted) == 1


@pytest.mark.rfc("5321 §3.8 relay-tries-again-after-a-loss")
@pytest.mark.parametrize("step", ["greeting", "EHLO", "MAIL", "RCPT", "DATA", "."])
async def test_a_connection_cut_at_any_step_defers(tmp_path: Path, step: str) -> None:
    # After the final dot nobody knows (RFC 1047): again is better than never.
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example", {step: ""})
        node = await w.node("relay.example")
        await node.send(SENDER, ["v@ext.example"])
        (deferred,) = await node.until(Deferred)
        assert deferred.wait == 600
        assert node.told(Failed) == []
        host.says.clear()
        w.move(600)
        await node.until(Delivered)
        assert len(host.accepted) == 1


@pytest.mark.rfc("5321 §4.5.4 queue-times-each-command")
async def test_a_silent_host_defers(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.host("mx.ext.example", "ext.example", {"MAIL": "hang"})
        deadlines = ClientDeadlines(mail=0.05, quit=0.05)
        node = await w.node("relay.example", client_deadlines=deadlines)
        await node.send(SENDER, ["v@ext.example"])
        (deferred,) = await node.until(Deferred)
        assert "mail deadline" in deferred.reply


@pytest.mark.rfc("5321 §5.1 temporary-error-queues")
async def test_a_domain_that_dns_cannot_tell_of_defers(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example")
        w.failing.add("ext.example")
        node = await w.node("relay.example")
        await node.send(SENDER, ["v@ext.example"])
        (deferred,) = await node.until(Deferred)
        assert deferred.reply.startswith("451 4.4.3")
        w.failing.clear()
        w.move(600)
        await node.until(Delivered)
        assert len(host.accepted) == 1


@pytest.mark.rfc(
    "5321 §4.5.4.1 four-days-at-least",
    "5321 §4.5.4.1 schedule-can-be-set",
    "5321 §6.2 delivered-refused-or-returned",
)
@pytest.mark.rfc("5321 §4.2.5 transient-failure-can-be-told")
@pytest.mark.rfc("3461 §5.2.5 delays-need-not-be-reported")
async def test_after_five_days_the_sender_is_told(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.dead("mx.ext.example", "ext.example")
        schedule = Schedule(first=DAY, factor=1, longest=DAY, spread=0, notice=math.inf)
        node = await w.node("relay.example", schedule=schedule)
        await node.send(SENDER, ["v@ext.example"])
        for day in range(1, 6):
            await node.until(Deferred, day)
            assert node.told(Failed) == []
            w.move(DAY)
        await node.until(Failed)
        report, (ours, theirs) = await the_report(node)
        assert w.now == START + 5 * DAY
        assert len(w.connected) == 6
        assert theirs["Action"] == "failed"
        assert theirs["Status"] == "5.4.7"
        assert theirs["Final-Recipient"] == "rfc822; v@ext.example"
        assert ours["Arrival-Date"] == "Tue, 14 Nov 2023 22:13:20 +0000"
        assert report["To"] == SENDER
        assert await node.queue() == []


# --- what fails ------------------------------------------------------------------------------


@pytest.mark.rfc(
    "5321 §2.3.1 reports-go-to-the-sender-of-the-envelope",
    "5321 §3.6.3 failure-after-acceptance-is-reported",
    "5321 §3.6.3 reports-have-the-standard-format",
    "5321 §3.6.3 reports-are-from-who-found-out",
    "5321 §3.6.3 reports-have-the-null-reverse-path",
)
@pytest.mark.rfc("3464")
@pytest.mark.rfc(
    "5321 §4.2.5 failures-of-taken-mail-are-reported", "5321 §4.2.5 5yz-is-left-to-people"
)
@pytest.mark.rfc(
    "5321 §4.4 all-who-failed-are-listed",
    "5321 §4.4 one-notification-for-all",
    "5321 §6.1 failure-after-acceptance-is-notified",
    "5321 §6.2 delivered-refused-or-returned",
)
@pytest.mark.rfc("5321 §4.1.1.4 later-errors-are-reported-by-mail")
@pytest.mark.rfc(
    "3461 §5.2.8 one-report-for-several",
    "3461 §6 report-goes-to-the-sender",
    "3461 §6.3 remote-mta-is-who-refused",
    "3461 §6.3 diagnostic-code-is-the-reply",
)
async def test_all_failures_of_an_attempt_are_one_report(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.host("mx.one.example", "one.example", {"RCPT": "550 5.1.1 nobody"})
        await w.host("mx.two.example", "two.example", {".": "554 5.6.0 dislike it"})
        node = await w.node("relay.example")
        await node.send(SENDER, ["a@one.example", "b@two.example", "c@nowhere.example"])
        (reported,) = await node.until(Reported)
        report, (_, *theirs) = await the_report(node)
        assert len(node.told(Failed)) == 3
        assert str(reported.reverse_path) == f"<{SENDER}>"
        found = {group["Final-Recipient"]: group for group in theirs}
        assert {who: group["Status"] for who, group in found.items()} == {
            "rfc822; a@one.example": "5.1.1",
            "rfc822; b@two.example": "5.6.0",
            "rfc822; c@nowhere.example": "5.1.2",
        }
        one = found["rfc822; a@one.example"]
        assert one["Remote-MTA"] == "dns; mx.one.example"
        assert one["Diagnostic-Code"] == "smtp; 550 5.1.1 nobody"
        assert "Remote-MTA" not in found["rfc822; c@nowhere.example"]
        assert report["From"] == "Mail Delivery System <MAILER-DAEMON@relay.example>"
        assert report["Auto-Submitted"] == "auto-replied"
        *_, original = report.iter_parts()
        assert "greetings" in original.as_string()
        (octets,) = node.mail(SENDER)
        assert octets.startswith(b"Return-Path: <>\n")
        assert await node.queue() == []


@pytest.mark.rfc("5321 §3.6.3 no-reports-about-reports")
@pytest.mark.rfc(
    "5321 §4.5.4 no-errors-about-errors",
    "5321 §6.1 nobody-is-notified-of-mail-from-nobody",
    "5321 §6.1 null-events-may-be-told-locally",
)
@pytest.mark.rfc("5321 §4.2.1 5yz-ends-the-attempts")
@pytest.mark.rfc(
    "3461 §5.2 mail-from-nobody-is-not-reported", "3461 §5.2 operator-hears-of-it-instead"
)
async def test_a_failed_message_from_nobody_is_reported_to_nobody(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example", {"RCPT": "550 5.1.1 nobody"})
        node = await w.node("relay.example")
        await node.send(None, ["v@ext.example"])
        (reported,) = await node.until(Reported)
        assert (reported.report, reported.reverse_path.mailbox) == ("", None)
        assert await node.queue() == []
        assert node.files() == []
        assert host.sessions == 1


@pytest.mark.rfc("5321 §3.6.3 no-reports-about-reports")
@pytest.mark.rfc("5321 §4.5.4 no-errors-about-errors")
async def test_a_report_that_cannot_be_delivered_ends_there(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.host("mx.ext.example", "ext.example", {"RCPT": "550 5.1.1 nobody"})
        node = await w.node("relay.example")
        await node.send("liar@ext.example", ["v@ext.example"])
        first, second = await node.until(Reported, 2)
        assert second.id == first.report
        assert second.report == ""
        assert await node.queue() == []
        assert len(node.told(Failed)) == 2


@pytest.mark.rfc("5321 §3.3 late-failure-of-a-recipient-is-reported-by-mail")
@pytest.mark.rfc("3461 §3 yes-to-rcpt-means-deliver-or-report")
async def test_a_mailbox_that_is_gone_by_now_fails(tmp_path: Path) -> None:
    names = ["ann", "bob"]
    async with world(tmp_path) as w:
        node = await w.node("relay.example", policy=listed_mailboxes(names))
        await w.put(node, SENDER, "gone@our.dom", "bob@our.dom", content=MESSAGE)
        await node.until(Reported)
        _, (_, theirs) = await the_report(node)
        assert theirs["Status"] == "5.1.1"
        assert theirs["Final-Recipient"] == "rfc822; gone@our.dom"
        assert len(node.mail("bob@our.dom")) == 1


async def test_a_full_mailbox_defers(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await w.node("relay.example")
        full = MailboxUnavailable(Reply(452, "4.2.2", "Mailbox full"))
        node.trouble["full@our.dom"] = full
        await node.send(SENDER, ["full@our.dom", "v@our.dom"])
        (deferred,) = await node.until(Deferred)
        assert deferred.reply == "452 4.2.2 Mailbox full"
        assert deferred.where == "mailbox full@our.dom"
        await node.until(Delivered)
        node.trouble.clear()
        w.move(600)
        await node.until(Delivered, 2)
        assert len(node.mail("full@our.dom")) == len(node.mail("v@our.dom")) == 1


# --- where it goes ---------------------------------------------------------------------------


@pytest.mark.rfc("5321 §2.1 relay-tries-other-addresses")
@pytest.mark.rfc("5321 §5.1 each-address-can-be-tried", "5321 §5.1 two-addresses-at-least")
@pytest.mark.parametrize(
    "first",
    [
        {"greeting": "554 5.3.2 no mail here"},
        {"greeting": "421 4.3.2 busy"},
        {"greeting": ""},
        {"EHLO": "550 go away", "HELO": "550 go away"},
        {"MAIL": ""},
        {"MAIL": "421 4.3.2 closing"},
        {"RCPT": "451 4.3.0 disk"},
        {".": "452 4.3.1 full"},
    ],
)
async def test_the_next_host_is_tried_until_one_takes_it(
    tmp_path: Path, first: dict[str, str]
) -> None:
    async with world(tmp_path) as w:
        one = await w.host("mx1.ext.example", "ext.example", first, preference=10)
        two = await w.host("mx2.ext.example", "ext.example", preference=20)
        node = await w.node("relay.example")
        await node.send(SENDER, ["v@ext.example"])
        (delivered,) = await node.until(Delivered)
        assert delivered.where == "mx2.ext.example:25"
        assert (one.sessions, two.sessions, len(two.accepted)) == (1, 1, 1)
        assert await node.queue() == []


async def test_only_who_was_put_off_is_tried_at_the_next_host(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        says = {"RCPT TO:<later@": "450 4.2.1 busy", "RCPT TO:<no@": "550 5.1.1 nobody"}
        one = await w.host("mx1.ext.example", "ext.example", says, preference=10)
        two = await w.host("mx2.ext.example", "ext.example", preference=20)
        node = await w.node("relay.example")
        await node.send(SENDER, [f"{name}@ext.example" for name in ("later", "no", "yes")])
        await node.until(Delivered, 2)
        assert one.accepted == [["RCPT TO:<yes@ext.example>"]]
        assert two.accepted == [["RCPT TO:<later@ext.example>"]]
        (failed,) = await node.until(Failed)
        assert failed.reply == "550 5.1.1 nobody"


async def test_after_the_final_dot_no_other_host_is_tried(tmp_path: Path) -> None:
    # Whether the first has it nobody knows; a second may not be asked now (RFC 1047).
    async with world(tmp_path) as w:
        await w.host("mx1.ext.example", "ext.example", {".": ""}, preference=10)
        two = await w.host("mx2.ext.example", "ext.example", preference=20)
        node = await w.node("relay.example")
        await node.send(SENDER, ["v@ext.example"])
        await node.until(Deferred)
        assert two.sessions == 0


async def test_a_host_that_refuses_to_talk_does_not_speak_for_one_that_is_down(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as w:
        w.dead("mx1.ext.example", "ext.example", 10)
        await w.host("mx2.ext.example", "ext.example", {"greeting": "554 no"}, preference=20)
        node = await w.node("relay.example")
        await node.send(SENDER, ["v@ext.example"])
        (deferred,) = await node.until(Deferred)
        assert "nobody at" in deferred.reply
        assert node.told(Failed) == []


async def test_where_every_host_refuses_to_talk_it_fails(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        for number in 1, 2:
            await w.host(f"mx{number}.ext.example", "ext.example", {"greeting": "554 no"})
        node = await w.node("relay.example")
        await node.send(SENDER, ["v@ext.example"])
        await node.until(Reported)
        _, (_, theirs) = await the_report(node)
        assert theirs["Diagnostic-Code"] == "smtp; 554 no"
        assert theirs["Remote-MTA"].startswith("dns; mx")


@pytest.mark.rfc("7505 §4.1 failure-is-reported-at-once", "7504 §4 dns-tells-who-takes-no-mail")
async def test_a_null_mx_fails_at_once(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.dead(".", "ext.example", 0)
        node = await w.node("relay.example")
        await node.send(SENDER, ["v@ext.example"])
        await node.until(Reported)
        _, (_, theirs) = await the_report(node)
        assert theirs["Status"] == "5.1.10"
        assert w.connected == []


@pytest.mark.rfc("5321 §5.1 implicit-mx")
async def test_without_mx_the_domain_is_its_own_host(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await w.host("ext.example", "ext.example")
        w.mx_of["ext.example"] = []
        node = await w.node("relay.example")
        await node.send(SENDER, ["v@ext.example"])
        (delivered,) = await node.until(Delivered)
        assert delivered.where == "ext.example:25"
        assert len(host.accepted) == 1


# --- the smart host, TLS and logins ----------------------------------------------------------


async def with_smart_host(w: World, **access: object) -> tuple[Node, Node]:
    """A relay that sends everything to another over submission."""
    smart = await w.node("smart.example", ["ext.example"], kinds=["submission"], tls=True)
    settings = {"tls": "required", "login": LOGIN, "ssl_context": w.trusting("smart.example")}
    to_it = Access(**(settings | access))  # type: ignore[arg-type]  # each is what it should be
    node = await w.node("relay.example", smart_host=Host("smart.example", port=587, access=to_it))
    return node, smart


async def test_a_smart_host_gets_all_with_tls_and_a_login(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node, smart = await with_smart_host(w)
        await node.send(SENDER, ["v@ext.example"])
        await smart.until(Delivered)
        (message,) = smart.mail("v@ext.example")
        assert b"from relay.example ([127.0.0.1]) by smart.example with ESMTPSA" in message
        assert b"by relay.example with ESMTP id" in message
        assert w.connected == ["smart.example"]


async def test_a_smart_host_nobody_vouches_for_gets_neither_mail_nor_password(
    tmp_path: Path,
) -> None:
    # Unverified, opportunistic TLS would show the password to whoever stands in between.
    async with world(tmp_path) as w:
        node, smart = await with_smart_host(w, tls="opportunistic", ssl_context=None)
        await node.send(SENDER, ["v@ext.example"])
        (deferred,) = await node.until(Deferred)
        assert "certificate" in deferred.reply.lower()
        assert smart.events == []


async def test_a_login_that_fails_loses_no_mail(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node, smart = await with_smart_host(w, login=("ann", "old password"))
        await node.send(SENDER, ["v@ext.example"])
        (deferred,) = await node.until(Deferred)
        assert deferred.reply.startswith("535")
        assert node.told(Failed) == []
        assert smart.events == []


async def test_a_login_that_cannot_be_written_loses_no_mail(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.node("smart.example", kinds=["submission"], tls=True)
        trusting = w.trusting("smart.example")
        node = await w.node(
            "relay.example",
            smart_host=Host(
                "smart.example",
                port=587,
                access=Access("required", login=("me", "a\0b"), ssl_context=trusting),
            ),
        )
        await node.send(SENDER, ["v@ext.example"])
        (deferred,) = await node.until(Deferred)
        assert "NUL" in deferred.reply
        assert len(await node.queue()) == 1


async def test_the_login_is_for_the_smart_host_alone(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example", keywords=("AUTH PLAIN LOGIN",))
        smart = Host("smart.example", access=Access("none", login=LOGIN, login_in_clear=True))
        table = RouteTable([Rule(ByMx(), recipients=["ext.example"])])
        node = await w.node("relay.example", smart_host=smart, routes=table)
        await node.send(SENDER, ["v@ext.example"])
        await node.until(Delivered)
        assert not [line for line in host.lines if line.startswith("AUTH")]


async def test_a_login_without_a_host_of_its_own_is_refused(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        with pytest.raises(ValueError, match="belongs to the access of the Host"):
            await w.node("relay.example", access=Access("none", login=LOGIN))


async def test_a_login_goes_in_clear_where_that_was_asked_for(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node, smart = await with_smart_host(w, tls="none", ssl_context=None, login_in_clear=True)
        await node.send(SENDER, ["v@ext.example"])
        await smart.until(Delivered)
        (message,) = smart.mail("v@ext.example")
        assert b"with ESMTPA id" in message


@pytest.mark.rfc("3207 §6 client-can-be-told-to-demand-tls")
async def test_where_tls_is_required_and_missing_nothing_is_sent(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example")
        node = await w.node("relay.example", access=Access("required"))
        await node.send(SENDER, ["v@ext.example"])
        (deferred,) = await node.until(Deferred)
        assert "TLS is required" in deferred.reply
        assert host.lines == ["EHLO relay.example", "QUIT"]


@pytest.mark.rfc("7435", "8689 §4.2.2 tls-may-fail")
async def test_opportunistic_tls_falls_back_to_clear(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example", keywords=("STARTTLS",))
        host.says["STARTTLS"] = "220 go\r\nthis is no handshake"
        node = await w.node("relay.example")
        await node.send(SENDER, ["v@ext.example"])
        await node.until(Deferred)  # a peer that injects is not believed
        host.says["STARTTLS"] = "454 4.7.0 no certificate today"
        w.move(600)
        await node.until(Delivered)
        assert len(host.accepted) == 1


@pytest.mark.rfc("8689 §3 tls-is-tried-all-the-same")
async def test_between_two_of_ours_tls_is_used_though_nobody_vouches(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        there = await w.node("mx.ext.example", ["ext.example"], networks=(), tls=True)
        address = w.dead("mx.ext.example", "ext.example")
        w.ports[address, 25] = there.ports["smtp"]
        node = await w.node("relay.example")
        await node.send(SENDER, ["v@ext.example"])
        await there.until(Delivered)
        (message,) = there.mail("v@ext.example")
        assert b"by mx.ext.example with ESMTPS id" in message


# --- what is sent ----------------------------------------------------------------------------

EIGHT_BIT = "Subject: a\r\n\r\nGrüße\r\n".encode()


@pytest.mark.rfc("6152 §3 no-8-bit-where-it-is-not-offered", "6152 §3 convert-or-fail")
async def test_8_bit_content_is_not_sent_where_it_is_not_taken(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example", keywords=())
        node = await w.node("relay.example")
        await node.send(SENDER, ["v@ext.example"], EIGHT_BIT)
        await node.until(Reported)
        _, (_, theirs) = await the_report(node)
        assert theirs["Status"] == "5.6.3"
        assert host.contents == []
        # 7-bit content is.
        await node.send(SENDER, ["v@ext.example"])
        while not host.accepted:
            await node.until(Delivered, len(node.told(Delivered)) + 1)


@pytest.mark.rfc("6152 §3 relayed-mail-keeps-its-bits", "6152 §3 body-says-what-data-carries")
async def test_8_bit_content_arrives_as_it_is_where_it_is_taken(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example")
        node = await w.node("relay.example")
        await node.send(SENDER, ["v@ext.example"], EIGHT_BIT)
        await node.until(Delivered)
        (content,) = host.contents
        assert content.endswith(EIGHT_BIT)
        assert "BODY=8BITMIME" in host.lines[1]


@pytest.mark.rfc(
    "5321 §2.3.10 relay-adds-its-trace-and-nothing-else",
    "5321 §2.4 relay-does-not-look-into-content",
)
async def test_content_of_any_size_and_shape_arrives_whole(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example")
        node = await w.node("relay.example")
        lines = [b"." * (n % 5) + b"x" * (n % 900) for n in range(3000)]
        for content in b"\r\n", b".\r\n..\r\n", b"\r\n".join(lines) + b"\r\n":
            await node.send(SENDER, ["v@ext.example", "v@our.dom"], content)
            await node.until(Delivered, 2)
            node.events.clear()
            assert host.contents[-1].endswith(b"+0000\r\n" + content)
            found = [mail.partition(b"+0000\n")[2] for mail in node.mail("v@our.dom")]
            assert content.replace(b"\r\n", b"\n") in found


@pytest.mark.rfc("7504 §2 timeout-is-retried")
async def test_a_host_that_does_not_answer_a_connection_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path) as w:
        await w.host("mx.ext.example", "ext.example")
        connect = w.connect

        async def silent(host: str, port: int) -> ByteStream:
            if w.now < START + DAY:
                await anyio.sleep_forever()
            return await connect(host, port)

        monkeypatch.setattr(w, "connect", silent)
        deadlines = ClientDeadlines(connect=0.02)
        node = await w.node("relay.example", client_deadlines=deadlines)
        await node.send(SENDER, ["v@ext.example"])
        for count in (1, 2, 3):
            *_, deferred = await node.until(Deferred, count)
            w.move(deferred.wait)
        assert node.told(Failed) == []
        w.move(DAY)
        await node.until(Delivered)


@pytest.mark.rfc("5321 §4.4 one-return-path-when-delivered")
async def test_a_return_path_that_a_message_came_with_is_not_delivered(tmp_path: Path) -> None:
    foreign = b"Return-Path: <eve@evil.example>\r\nreturn-path :\r\n <eve@evil.example>\r\n"
    quoted = b"\r\nReturn-Path: <eve@evil.example>\r\n"
    async with world(tmp_path) as w:
        node = await w.node("relay.example")
        await node.send(SENDER, ["bob@our.dom"], foreign + MESSAGE + quoted + foreign)
        await node.until(Delivered)
        (mail,) = node.mail("bob@our.dom")
        header, _, body = mail.partition(b"\n\n")
        assert header.startswith(b"Return-Path: <ann@our.dom>\nReceived: ")
        assert header.lower().count(b"return-path") == 1
        assert b"Subject" in header
        assert body.endswith((quoted + foreign).replace(b"\r\n", b"\n"))


@pytest.mark.rfc("5321 §4.4 return-path-is-inserted-at-final-delivery")
async def test_the_return_path_is_written_at_the_end_of_the_way_alone(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example")
        node = await w.node("relay.example")
        await node.send(SENDER, ["v@ext.example", "v@our.dom"])
        await node.until(Delivered, 2)
        assert b"Return-Path" not in host.contents[0]
        (mail,) = node.mail("v@our.dom")
        assert mail.count(b"Return-Path: <ann@our.dom>\n") == 1


# --- the spool in trouble --------------------------------------------------------------------


async def test_what_was_delivered_is_written_down_however_long_it_takes(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example")
        node = await w.node("relay.example")
        node.faults["settle"] = [SpoolUnavailable("locked"), SpoolUnavailable("full", full=True)]
        await node.send(SENDER, ["v@ext.example"])
        await node.until(Delivered)
        assert len(host.accepted) == 1
        assert node.faults["settle"] == []
        assert await node.queue() == []


async def test_whoever_is_to_end_tries_once_more_to_write_down_what_was_delivered(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example")
        node = await w.node("relay.example")
        node.faults["settle"] = [SpoolUnavailable("the disk fails")] * 4
        await node.send(SENDER, ["v@ext.example"])
        while node.faults["settle"]:  # noqa: ASYNC110 - nobody tells of it
            await anyio.sleep(0.01)
        await node.cancel()  # while it waits for the next time
        assert len(host.accepted) == 1
        async with SQLiteSpool.open(node.directory / "spool") as spool:
            assert await spool.next_due() is None


async def test_content_that_is_lost_does_not_keep_the_sender_from_being_told(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as w:
        await w.host("mx.ext.example", "ext.example", {"RCPT": "450 4.2.1 later"})
        node = await w.node("relay.example", schedule=Schedule(first=DAY, longest=DAY))
        await node.send(SENDER, ["v@ext.example"], MESSAGE + b"x" * 60 + b"\r\n" * 80_000)
        await node.until(Deferred)
        (file,) = (node.directory / "spool" / "content").iterdir()
        file.unlink()
        w.move(5 * DAY)
        await node.until(Reported)
        _, (_, theirs) = await the_report(node)
        assert theirs["Final-Recipient"] == "rfc822; v@ext.example"
        assert all(str(tmp_path).encode() not in octets for octets in node.mail(SENDER))
        assert await node.queue() == []


async def test_a_message_is_settled_before_the_session_is_closed(tmp_path: Path) -> None:
    # However long the next hop takes for its goodbye, and whatever happens to us meanwhile.
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example", {"QUIT": "hang"})
        node = await w.node("relay.example")
        await node.send(SENDER, ["v@ext.example"])
        await host.reached.wait()
        assert await node.queue() == []
        assert len(node.told(Delivered)) == 1
        await node.cancel()
        host.released.set()
        again = await w.node("relay.example")
        assert await again.queue() == []


async def test_local_recipients_are_settled_one_by_one(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await w.node("relay.example")
        reached, never = anyio.Event(), anyio.Event()
        mailboxes = node.relay.mailboxes
        assert isinstance(mailboxes, Maildir)
        deliver_once = mailboxes.deliver_once

        async def slow(mailbox: Mailbox, *args: Any, **kwargs: Any) -> None:
            if mailbox.local_part == b"slow":
                reached.set()
                await never.wait()
            await deliver_once(mailbox, *args, **kwargs)

        mailboxes.deliver_once = slow  # type: ignore[method-assign]  # the test's
        await node.send(SENDER, ["fast@our.dom", "slow@our.dom"])
        await reached.wait()
        (entry,) = await node.queue()
        assert [str(r.rcpt.forward_path) for r in entry.recipients] == ["<slow@our.dom>"]
