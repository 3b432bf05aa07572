"""Lists: aliases with an owner, who hears of what fails (RFC 5321 §3.9.2, RFC 3461 §5.2.7.1)."""

from pathlib import Path

import pytest

from smtpproto.core.command import Mail, Rcpt
from smtpproto.core.errors import LocalProtocolError
from smtpproto.core.path import Mailbox
from smtpproto.relay import AliasTable, MailingList
from smtpproto.relay.mailboxes.aliases import expand, mail_of_list
from smtpproto.relay.reports.story import Delivered, Expanded, Failed, Reported
from tests.relay.test_delivery import delivery_status
from tests.relay.test_dsn import SENDER, hand_over, reports
from tests.relay.world import MESSAGE, Host, World, world

pytestmark = pytest.mark.anyio

DEV = MailingList(["bob@ext.example", "cyd@our.dom"], "owner@our.dom")
LISTS = AliasTable({}, lists={"dev@our.dom": DEV})


async def there(w: World, says: dict[str, str] | None = None) -> Host:
    return await w.host("mx.ext.example", "ext.example", says, keywords=("PIPELINING", "DSN"))


def envelopes(host: Host) -> list[str]:
    return [line for line in host.lines if line[:4] in ("MAIL", "RCPT")]


@pytest.mark.rfc("3464 §3 lists-have-their-own-return-path")
@pytest.mark.rfc(
    "5321 §3.9 aliases-and-lists-are-supported",
    "5321 §3.9 lists-have-their-own-sender",
    "5321 §3.9 lists-leave-the-header-alone",
    "5321 §3.9 lists-are-used-as-they-are",
    "5321 §3.9.2 list-replaces-the-recipient",
)
@pytest.mark.rfc(
    "3461 §5.2.7.1 lists-put-their-owner-as-sender",
    "3461 §5.2.7.1 lists-take-over-no-parameters",
    "3461 §5.2.7.1 lists-may-ask-for-themselves",
    "3461 §5.2.7.1 orcpt-is-the-subscriber",
    "3461 §4.2 lists-give-the-subscribers-address",
)
async def test_members_get_it_from_the_owner_and_nothing_else_is_changed(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await there(w)
        node = await w.node("relay.example", aliases=LISTS)
        asked = {"NOTIFY": "DELAY", "ORCPT": "rfc822;dev@our.dom"}
        await hand_over(node, {"dev@our.dom": asked, "eve@ext.example": {"NOTIFY": "DELAY"}})
        await node.until(Delivered, 3)
        assert sorted(envelopes(host)) == [
            "MAIL FROM:<ann@our.dom> RET=HDRS ENVID=QQ+2B314159",
            "MAIL FROM:<owner@our.dom> RET=HDRS",
            "RCPT TO:<bob@ext.example> NOTIFY=FAILURE",
            "RCPT TO:<eve@ext.example> NOTIFY=DELAY",
        ]
        (by_list,) = [each for each in host.contents if each.startswith(b"Delivered-To: dev@our.")]
        assert by_list.partition(b"Received: ")[0] == b"Delivered-To: dev@our.dom\r\n"
        assert by_list.endswith(b"\r\n" + MESSAGE)
        (kept,) = node.mail("cyd@our.dom")
        assert kept.startswith(b"Return-Path: <owner@our.dom>\nDelivered-To: dev@our.dom\n")
        assert node.told(Reported) == []
        assert await node.queue() == []


@pytest.mark.rfc(
    "3464 §2.3.3 lists-are-not-expanded",
    "3464 §3 delivered-or-failed-once",
    "3464 §3 lists-report-like-mailboxes",
)
@pytest.mark.rfc(
    "3461 §5.2.7.1 reaching-the-list-is-delivery",
    "3461 §5.2.7.1 delivered-or-failed-but-not-both",
    "3461 §5.2.7.4 secret-addresses-are-like-a-list",
)
@pytest.mark.rfc("5321 §3.9.2 errors-of-a-list-go-to-its-administrator")
async def test_its_author_hears_of_the_list_and_its_owner_of_its_members(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await there(w, {"RCPT": "550 5.1.1 nobody"})
        node = await w.node("relay.example", aliases=LISTS)
        await hand_over(node, {"dev@our.dom": {"NOTIFY": "SUCCESS,FAILURE"}})
        ((told, (ours, theirs)),) = await reports(node)
        assert told["Subject"] == "Mail was delivered"
        assert ours["Original-Envelope-Id"] == "QQ+314159"
        assert (theirs["Action"], theirs["Final-Recipient"]) == ("delivered", "rfc822; dev@our.dom")
        await node.until(Delivered, 3)
        ((told, (ours, theirs)),) = [delivery_status(m) for m in node.mail("owner@our.dom")]
        assert told["To"] == "owner@our.dom"
        assert (theirs["Action"], theirs["Final-Recipient"]) == (
            "failed",
            "rfc822; bob@ext.example",
        )
        assert "Original-Recipient" not in theirs
        assert "Original-Envelope-Id" not in ours
        assert [p.get_content_type() for p in told.iter_parts()][2] == "text/rfc822-headers"
        assert len(node.mail(SENDER)) == 1
        assert len(node.mail("cyd@our.dom")) == 1


@pytest.mark.rfc(
    "5321 §4.5.5 null-paths-are-handled-with-care",
    "5321 §4.5.5 null-stays-null-when-it-is-forwarded",
)
async def test_mail_from_nobody_stays_so_on_a_list(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await there(w, {"RCPT": "550 5.1.1 nobody"})
        node = await w.node("relay.example", aliases=LISTS)
        await node.send(None, ["dev@our.dom"])
        (reported,) = await node.until(Reported)
        assert reported.report == ""
        assert envelopes(host)[0] == "MAIL FROM:<>"
        assert node.mail("owner@our.dom") == []


async def test_a_list_that_leads_back_to_itself_ends(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        ring = MailingList(["a@two.dom"], "owner@our.dom")
        one = await w.node(
            "one.example",
            ["one.dom", "our.dom"],
            aliases=AliasTable({}, lists={"a@one.dom": ring}),
        )
        two = await w.node(
            "two.example", ["two.dom"], aliases=AliasTable({"a@two.dom": ["a@one.dom"]})
        )
        w.lead("one.dom", one)
        w.lead("two.dom", two)
        w.mx_of["our.dom"] = w.mx_of["one.dom"]
        await one.send("far@else.example", ["a@one.dom"])
        (failed,) = await two.until(Failed)
        assert failed.reply.startswith("554 5.4.6")
        assert len(two.told(Expanded)) == 1
        await one.until(Delivered, 2)
        assert len(one.mail("owner@our.dom")) == 1


@pytest.mark.parametrize(
    ("name", "found", "action"),
    [
        ("list", {"x": "o", "y": "o"}, "delivered"),
        ("alone", {"x": "o", "y": "o"}, "delivered"),  # an alias for a list is that list
        ("both", {"m": None, "x": "o", "y": "o"}, "expanded"),
        ("outer", {"z": "p", "x": "o", "y": "o"}, "delivered"),  # each list has its own owner
        ("ring", {"ring": "o", "x": "o"}, "delivered"),
        ("one", {"m": None}, None),
    ],
)
async def test_what_a_list_comes_to(
    name: str, found: dict[str, str | None], action: str | None
) -> None:
    def at(names: str) -> list[str]:
        return [f"{each}@our.dom" for each in names.split()]

    table = AliasTable(
        {"alone": at("list"), "both": at("m list"), "one": at("m")},
        lists={
            "list": MailingList(at("x y"), "o@our.dom"),
            "outer": MailingList(at("z list"), "p@our.dom"),
            "ring": MailingList(at("ring x"), "o@our.dom"),
        },
    )
    asked = Rcpt(f"{name}@our.dom", {"NOTIFY": "SUCCESS,DELAY", "ORCPT": "rfc822;q@our.dom"})
    expansion = await expand(asked, table)
    assert expansion is not None
    assert expansion.action == action
    assert {
        str(t.rcpt.forward_path.mailbox): None if t.owner is None else str(t.owner)
        for t in expansion.targets
    } == {f"{k}@our.dom": v and f"{v}@our.dom" for k, v in found.items()}
    for target in expansion.targets:
        ours = target.owner is not None
        assert ("ORCPT" in target.rcpt.parameters) is not ours


def test_what_mail_of_a_list_keeps() -> None:
    owner = Mailbox.parse("owner@our.dom")
    came = Mail("ann@our.dom", {"SMTPUTF8": None, "RET": "FULL", "ENVID": "x", "BODY": "8BITMIME"})
    assert mail_of_list(came, owner) == Mail(
        owner, {"SMTPUTF8": None, "BODY": "8BITMIME", "RET": "HDRS"}
    )
    assert mail_of_list(Mail(None, {"RET": "FULL"}), owner) == Mail(None)


def test_what_is_no_list_is_not_taken() -> None:
    for members, owner in ([], "o@our.dom"), (["x"], "o@our.dom"), (["x@our.dom"], "Postmaster"):
        with pytest.raises(LocalProtocolError):
            MailingList(members, owner)
    with pytest.raises(LocalProtocolError, match="both"):
        AliasTable({"Dev@our.dom": ["a@our.dom"]}, lists={"dev@our.dom": DEV})
