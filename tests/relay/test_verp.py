"""VERP: what goes out has a return path for each recipient, and what comes to it is understood."""

from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from hypothesis import example, given
from hypothesis import strategies as st

from smtpproto.core.command import Mail, Rcpt
from smtpproto.core.errors import LocalProtocolError
from smtpproto.core.path import Mailbox
from smtpproto.core.status import EnhancedStatus
from smtpproto.relay import AliasTable, MailingList, OnHold, RouteTable, Rule, Verp
from smtpproto.relay.mailboxes.mailbox import listed_mailboxes
from smtpproto.relay.mailboxes.verp import Notice, envelopes, notice_in
from smtpproto.relay.reports.story import Bounced, Delivered, Expanded, Held
from smtpproto.relay.spool.seam import Entry, Recipient
from smtpproto.testing import strategies
from tests.relay.world import DAY, Host, World, world

pytestmark = pytest.mark.anyio

OWNER = Mailbox.parse("owner@our.dom")
VERP = Verp(["owner@our.dom"])
BOB, CYD = Mailbox.parse("bob@ext.example"), Mailbox.parse("cyd@ext.example")
LIST = AliasTable({}, lists={"dev@our.dom": MailingList([BOB, CYD], OWNER)})
REPORT = (
    b"From: MAILER-DAEMON@ext.example\r\n"
    b"Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n"
    b"--b\r\n\r\nsorry\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\n"
    b"Reporting-MTA: dns; mx.ext.example\r\n\r\nFinal-Recipient: rfc822; bob@ext.example\r\n"
    b"Action: failed\r\nStatus: 5.2.1\r\n\r\n--b--\r\n"
)


@pytest.mark.parametrize(
    ("recipient", "path"),
    [
        ("bob@ext.example", "owner+bob=ext.example@our.dom"),
        ("b=o+b@ext.example", "owner+b=o+b=ext.example@our.dom"),
        ('"b o b"@ext.example', '"owner+b o b=ext.example"@our.dom'),
        ("bob@[192.0.2.1]", '"owner+bob=[192.0.2.1]"@our.dom'),
        (f"{'x' * 60}@{'y' * 60}.{'z' * 60}.{'v' * 60}.example", "owner@our.dom"),  # too long
    ],
)
def test_the_return_path_of_a_recipient(recipient: str, path: str) -> None:
    mailbox = Mailbox.parse(recipient)
    assert str(VERP.address(OWNER, mailbox)) == path
    read = VERP.read(Mailbox.parse(path))
    assert read == (None if path == "owner@our.dom" else (OWNER, mailbox))
    assert VERP.address(Mailbox.parse("else@our.dom"), mailbox) == Mailbox.parse("else@our.dom")


@given(
    recipient=strategies.mailboxes(), separator=st.sampled_from("+-=.#_"), sender=st.text("a+-b")
)
@example(BOB, "-", "a-b")
def test_every_return_path_is_read_back(recipient: Mailbox, separator: str, sender: str) -> None:
    if separator == "=":
        with pytest.raises(LocalProtocolError):
            Verp([OWNER], separator=separator)
        return
    owner = Mailbox(sender, "our.dom")
    verp = Verp([owner], separator=separator)
    path = verp.address(owner, recipient)
    assert verp.read(path) == (None if path == owner else (owner, recipient))


@pytest.mark.parametrize(
    "address",
    [
        "owner@our.dom",
        "owner+bob@our.dom",
        "owner+bob=@our.dom",
        '"owner+bob=ext example"@our.dom',
        "else+bob=ext.example@our.dom",
        "owner+bob=ext.example@else.example",
        "+bob=ext.example@our.dom",
    ],
)
def test_what_is_no_return_path(address: str) -> None:
    assert VERP.read(Mailbox.parse(address)) is None


@pytest.mark.parametrize("separator", ["", "++", "@", "=", " ", '"', "\\", "é"])
def test_what_cannot_separate(separator: str) -> None:
    with pytest.raises(LocalProtocolError):
        Verp(["owner@our.dom"], separator=separator)


def test_senders_have_to_be_told_apart() -> None:
    with pytest.raises(LocalProtocolError, match="could be taken"):
        Verp(["News@our.dom", "news-week@our.dom"], separator="-")
    assert len(Verp(["news@our.dom", "news-week@our.dom", "news+a@else.dom"]).senders) == 3


def test_a_message_is_parted_by_its_senders() -> None:
    def recipient(number: int, mailbox: Mailbox, mail: Mail | None = None) -> Recipient:
        return Recipient(number, Rcpt(mailbox), 0, 0.0, None, mail=mail)

    mail, owned = Mail("ann@our.dom", {"RET": "FULL"}), Mail("owner@our.dom")
    entry = Entry("1", 0.0, mail, (recipient(0, BOB), recipient(1, CYD)), 9, "")
    assert envelopes(entry, VERP) == [entry]
    three = evolve(
        entry, recipients=(recipient(0, BOB), recipient(1, BOB, owned), recipient(2, CYD))
    )
    assert [
        (part.mail, [r.number for r in part.recipients]) for part in envelopes(three, Verp())
    ] == [
        (mail, [0, 2]),
        (owned, [1]),
    ]
    opted = Verp(["ann@our.dom", "owner@our.dom"])
    assert [
        (str(part.mail.reverse_path), [r.number for r in part.recipients])
        for part in envelopes(three, opted)
    ] == [
        ("<ann+bob=ext.example@our.dom>", [0]),
        ("<owner+bob=ext.example@our.dom>", [1]),
        ("<ann+cyd=ext.example@our.dom>", [2]),
    ]
    null = evolve(entry, mail=Mail(None))
    assert envelopes(null, VERP) == [null]


@pytest.mark.rfc(
    "3464 §2.1.1 names-in-any-case",
    "3464 §2.3.3 action-in-any-case",
)
@pytest.mark.parametrize(
    ("text", "notice"),
    [
        (REPORT, Notice("failed", EnhancedStatus(5, 2, 1))),
        (b"Subject: on holiday\r\n\r\nBack soon.\r\n", Notice()),
        (b"\r\nAction: explode\r\nStatus: 5.1.1\r\n", Notice()),
        (b"\r\nACTION : Delayed\r\n", Notice("delayed")),
        (b"Action: " + b" " * 1_000_000, Notice()),
    ],
)
def test_what_a_bounce_says(text: bytes, notice: Notice) -> None:
    assert notice_in(text) == notice


# In a relay


async def there(w: World, says: dict[str, str] | None = None) -> Host:
    return await w.host("mx.ext.example", "ext.example", says, keywords=("PIPELINING", "DSN"))


async def test_each_member_of_a_list_has_a_transaction(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await there(w)
        node = await w.node("relay.example", aliases=LIST, verp=VERP)
        await node.send("ann@our.dom", ["dev@our.dom"])
        await node.until(Delivered, 2)
        assert sorted(line for line in host.lines if line[:4] in ("MAIL", "RCPT")) == [
            "MAIL FROM:<owner+bob=ext.example@our.dom> RET=HDRS",
            "MAIL FROM:<owner+cyd=ext.example@our.dom> RET=HDRS",
            "RCPT TO:<bob@ext.example> NOTIFY=FAILURE",
            "RCPT TO:<cyd@ext.example> NOTIFY=FAILURE",
        ]
        assert len(host.accepted) == 2


async def test_a_sender_of_many_return_paths_has_one_turn_as_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path) as w:
        await there(w)
        node = await w.node("relay.example", aliases=LIST, verp=VERP)
        turns: list[str] = []
        turn = node.relay.hops.turn

        def noted(hop: str, who: str) -> Any:
            turns.append(who)
            return turn(hop, who)

        monkeypatch.setattr(node.relay.hops, "turn", noted)
        await node.send("ann@our.dom", ["dev@our.dom", "eve@ext.example"])
        await node.until(Delivered, 3)
        assert sorted(turns) == ["ann@our.dom", "owner@our.dom", "owner@our.dom"]


@pytest.mark.rfc("3464 §3 lists-may-read-their-reports")
async def test_a_bounce_says_who_bounced_and_goes_to_the_owner(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await w.node(
            "relay.example",
            networks=(),
            aliases=LIST,
            verp=VERP,
            policy=listed_mailboxes(["owner"]),
        )
        assert await node.send(None, ["owner+bob=ext.example@our.dom"], REPORT)
        (bounced,) = await node.until(Bounced)
        assert (bounced.sender, bounced.recipient) == (OWNER, BOB)
        assert (bounced.action, str(bounced.status)) == ("failed", "5.2.1")
        await node.until(Delivered)
        assert b"\nDelivered-To: owner+bob=ext.example@our.dom\n" in node.mail("owner@our.dom")[0]
        # A letter to that address is none.
        await node.send("bob@ext.example", ["owner+bob=ext.example@our.dom"])
        await node.until(Expanded)
        await node.until(Delivered, 2)
        assert len(node.told(Bounced)) == 1
        assert len(node.mail("owner@our.dom")) == 2


async def test_what_we_report_ourselves_is_a_bounce_like_others(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await there(w, {"RCPT TO:<bob": "550 5.1.1 nobody", "RCPT TO:<cyd": "450 4.2.2 full"})
        node = await w.node("relay.example", aliases=LIST, verp=VERP)
        await node.send("ann@our.dom", ["dev@our.dom"])
        (bounced,) = await node.until(Bounced)
        assert (bounced.recipient, bounced.action, str(bounced.status)) == (BOB, "failed", "5.1.1")
        w.move(6 * DAY)
        _, bounced = await node.until(Bounced, 2)
        assert (bounced.recipient, bounced.action, str(bounced.status)) == (CYD, "failed", "5.4.7")


async def test_a_sender_of_ours_may_have_it_too(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await there(w)
        node = await w.node("relay.example", verp=Verp(["News@our.dom"], separator="-"))
        await node.send("news@our.dom", ["bob@ext.example", "cyd@ext.example", "eve@our.dom"])
        await node.send("else@our.dom", ["bob@ext.example", "cyd@ext.example"])
        await node.until(Delivered, 5)
        assert sorted(line for line in host.lines if line.startswith("MAIL")) == [
            "MAIL FROM:<else@our.dom>",
            "MAIL FROM:<news-bob=ext.example@our.dom>",
            "MAIL FROM:<news-cyd=ext.example@our.dom>",
        ]
        assert node.mail("eve@our.dom")[0].startswith(b"Return-Path: <news-eve=our.dom@our.dom>\n")


async def test_a_rule_for_a_sender_is_one_for_its_return_paths(tmp_path: Path) -> None:
    # Where the separator is not that of the table, it was a rule at RCPT and none when it went out.
    async with world(tmp_path) as w:
        await there(w)
        table = RouteTable([Rule(OnHold("not yet"), senders=["news@our.dom"])])
        verp = Verp(["news@our.dom"], separator="-")
        node = await w.node("relay.example", verp=verp, routes=table)
        await node.send("news@our.dom", ["bob@ext.example"])
        await node.send("else@our.dom", ["bob@ext.example"])
        await node.until(Delivered)
        await node.until(Held)
        assert len(node.told(Delivered)) == 1
