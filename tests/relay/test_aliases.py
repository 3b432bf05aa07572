"""Aliases: what an address stands for, once and for all; and rings that end (RFC 5321 §3.9)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from smtpproto.core.command import Rcpt
from smtpproto.core.errors import LocalProtocolError
from smtpproto.core.path import Mailbox
from smtpproto.relay import AliasTable, MailingList
from smtpproto.relay.mailboxes.aliases import TooManyTargetsError, expand, has_been_at
from smtpproto.relay.mailboxes.mailbox import listed_mailboxes
from smtpproto.relay.reports.story import Deferred, Delivered, Expanded, Failed, Reported
from smtpproto.trace import HeaderScan
from tests.relay.test_dsn import SENDER, hand_over, reports
from tests.relay.world import MESSAGE, world

pytestmark = pytest.mark.anyio


async def found(table: AliasTable, address: str) -> list[str] | None:
    targets = await table.find(Mailbox.parse(address))
    assert not isinstance(targets, MailingList)
    return None if targets is None else [str(target) for target in targets]


@pytest.mark.parametrize(
    ("address", "targets"),
    [
        ("sales@our.dom", ["ann@our.dom", "bob@else.example"]),
        ("SALES@Our.Dom", ["ann@our.dom", "bob@else.example"]),
        ("sales+fair@our.dom", ["fair@our.dom"]),
        ("sales+other@our.dom", ["ann@our.dom", "bob@else.example"]),
        ("root@our.dom", ["ann@our.dom"]),
        ("root@their.dom", ["ann@our.dom"]),
        ("anybody@old.dom", ["anybody@our.dom"]),
        ("any+tag@old.dom", ["any+tag@our.dom"]),
        ("anybody@catch.dom", ["ann@our.dom"]),
        ("anybody@our.dom", None),
        ("+@our.dom", None),
    ],
)
async def test_what_an_address_is_called(address: str, targets: list[str] | None) -> None:
    table = AliasTable(
        {
            "sales@our.dom": ["ann@our.dom", "bob@else.example"],
            "Sales+Fair@our.dom": ["fair@our.dom"],
            "root": ["ann@our.dom"],
            "@old.dom": ["@our.dom"],
            "@catch.dom": ["ann@our.dom"],
        }
    )
    assert await found(table, address) == targets


async def test_without_a_separator_there_are_no_tags() -> None:
    table = AliasTable({"a@our.dom": ["b@our.dom"]}, separator="")
    assert await found(table, "a+b@our.dom") is None


@pytest.mark.parametrize("table", [{"a@": ["b@c.dom"]}, {"a@b.dom": ["c"]}, {"a@b.dom": []}])
def test_what_is_no_alias_is_not_taken(table: dict[str, list[str]]) -> None:
    with pytest.raises(LocalProtocolError):
        AliasTable(table)


async def behind(table: Mapping[str, Sequence[str]], name: str = "a") -> list[str] | None:
    full = {f"{k}@our.dom": [f"{t}@our.dom" for t in targets] for k, targets in table.items()}
    found = await expand(Rcpt(f"{name}@our.dom"), AliasTable(full))
    return None if found is None else [str(t.rcpt.forward_path)[1:-9] for t in found.targets]


@pytest.mark.parametrize(
    ("table", "names"),
    [
        ({"b": "c"}, None),
        ({"a": "bc"}, ["b", "c"]),
        ({"a": "bc", "b": "de", "c": "ef"}, ["d", "e", "f"]),
        ({"a": "ab"}, ["a", "b"]),  # a copy stays
        ({"a": "b", "b": "a"}, ["a"]),  # round: somebody's mailbox, or nobody's
        ({"a": "bc", "b": "a", "c": "b"}, ["a", "b"]),
        ({"a": "bb"}, ["b"]),
    ],
)
async def test_aliases_of_aliases_each_once(table: dict[str, str], names: list[str] | None) -> None:
    assert await behind({k: list(v) for k, v in table.items()}) == names


async def test_an_alias_that_explodes_is_not_followed() -> None:
    table = {f"n{i}": [f"n{i + 1}", *(f"x{i}-{k}" for k in range(500))] for i in range(10)}
    with pytest.raises(TooManyTargetsError):
        await behind(table, "n0")


@pytest.mark.parametrize(
    ("header", "there"),
    [
        (b"Delivered-To: ann@our.dom\r\n\r\n", True),
        (b"a: b\r\ndelivered-to:<ANN@our.dom> \r\n\r\n", True),
        (b"Delivered-To: bob@our.dom\r\n\r\n", False),
        (b"X: y\r\n\r\nDelivered-To: ann@our.dom\r\n", False),
        (b"X-Delivered-To: ann@our.dom\r\n\r\n", False),
        (b"Delivered-To: " + b" " * 1_000_000 + b"x", False),
    ],
)
def test_where_a_message_has_been(header: bytes, there: bool) -> None:
    scan = HeaderScan()
    scan.feed(header)
    assert has_been_at(Mailbox.parse("ann@our.dom"), scan) is there


# In a relay


@pytest.mark.rfc(
    "5321 §3.9.1 alias-replaces-the-recipient-alone", "3461 §5.2.7.2 alias-for-one-reports-nothing"
)
@pytest.mark.rfc("3461 §5.2.7.2 alias-for-one-keeps-the-parameters")
async def test_an_alias_for_one_is_that_one(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example", keywords=("DSN", "PIPELINING"))
        node = await w.node("relay.example", aliases=AliasTable({"a@our.dom": ["b@ext.example"]}))
        asked = {"NOTIFY": "SUCCESS,FAILURE"}
        assert await hand_over(node, {"a@our.dom": asked})
        (expanded,) = await node.until(Expanded)
        assert [str(path) for path in expanded.becomes] == ["<b@ext.example>"]
        await node.until(Delivered)
        assert [line for line in host.lines if line[:4] in ("MAIL", "RCPT")] == [
            "MAIL FROM:<ann@our.dom> RET=HDRS ENVID=QQ+2B314159",
            "RCPT TO:<b@ext.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;a@our.dom",
        ]
        assert host.contents[0].startswith(b"Delivered-To: a@our.dom\r\nReceived: from")
        assert host.contents[0].endswith(MESSAGE)
        assert node.told(Reported) == []
        assert await node.queue() == []


@pytest.mark.rfc(
    "3464 §2.3.3 expanded-is-not-the-end",
    "3464 §3 alias-for-many-is-expanded",
)
@pytest.mark.rfc("3461 §5.2.7.3 alias-for-many-takes-one-of-three-ways")
async def test_an_alias_for_many_is_told_of_as_expanded(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example", keywords=("DSN", "PIPELINING"))
        table = AliasTable({"all": ["b@ext.example", "c@ext.example", "all@our.dom"]})
        node = await w.node("relay.example", aliases=table)
        await hand_over(node, {"all@our.dom": {"NOTIFY": "SUCCESS,FAILURE"}, "x@our.dom": {}})
        ((report, (_, theirs)),) = await reports(node)
        assert report["Subject"] == "Mail was delivered to a list"
        assert (theirs["Action"], theirs["Final-Recipient"]) == ("expanded", "rfc822; all@our.dom")
        await node.until(Delivered, 5)
        assert [line for line in host.lines if line.startswith("RCPT")] == [
            f"RCPT TO:<{name}@ext.example> NOTIFY=FAILURE ORCPT=rfc822;all@our.dom" for name in "bc"
        ]
        assert len(node.mail("all@our.dom")) == len(node.mail("x@our.dom")) == 1
        assert b"\nDelivered-To: all@our.dom\n" in node.mail("all@our.dom")[0]
        assert b"Delivered-To" not in node.mail("x@our.dom")[0]
        assert await node.queue() == []


async def test_an_alias_for_many_asked_for_success_alone_asks_for_nothing_more(
    tmp_path: Path,
) -> None:
    found = await expand(
        Rcpt("all@our.dom", {"NOTIFY": "SUCCESS"}),
        AliasTable({"all": ["b@ext.example", "c@ext.example"]}),
    )
    assert found is not None
    assert {target.rcpt.parameters["NOTIFY"] for target in found.targets} == {b"NEVER"}


async def test_only_aliases_and_mailboxes_are_taken(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await w.node(
            "relay.example",
            networks=(),
            policy=listed_mailboxes(["ann"]),
            aliases=AliasTable({"sales": ["ann@our.dom"], "out": ["v@ext.example"]}),
        )
        async with node.dial() as wire:
            await wire.hello()
            await wire.say("MAIL FROM:<eve@far.example>")
            for name, code in ("ann", 250), ("sales", 250), ("out", 250), ("bob", 550):
                reply = await wire.say(f"RCPT TO:<{name}@our.dom>")
                assert reply.startswith(str(code)), name


async def test_a_ring_over_another_host_ends(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        one = await w.node(
            "one.example",
            ["one.dom", "our.dom"],
            aliases=AliasTable({"a@one.dom": ["a@two.dom"]}),
            smart_host=None,
        )
        two = await w.node(
            "two.example", ["two.dom"], aliases=AliasTable({"a@two.dom": ["a@one.dom"]})
        )
        w.lead("one.dom", one)
        w.lead("two.dom", two)
        w.mx_of["our.dom"] = w.mx_of["one.dom"]
        await one.send(SENDER, ["a@one.dom"])
        (failed,) = await two.until(Failed)
        assert failed.reply.startswith("554 5.4.6")  # so it was refused, to who brought it back
        assert len(two.told(Expanded)) == 1
        await one.until(Delivered, 2)
        assert len(one.mail(SENDER)) == 1
        assert one.told(Failed) == []


@pytest.mark.rfc("5321 §6.3 loops-are-stopped")
async def test_nobody_hears_of_a_ring_but_who_brings_it(tmp_path: Path) -> None:
    """A stranger can forge both where a message has been and who gets the report."""
    async with world(tmp_path) as w:
        victim = await w.host("mx.victim.example", "victim.example")
        aliases = AliasTable({"all": ["ann@our.dom"], "bob": ["bob@our.dom"]})
        node = await w.node("relay.example", networks=(), aliases=aliases)
        forged = b"delivered-to: <ALL@our.dom>\r\n" + MESSAGE
        for recipients in (["all@our.dom"], ["bob@our.dom", "cyd@our.dom", "all@Our.Dom"]):
            refused = await node.send("ann@victim.example", recipients, forged)
            assert {str(o.reply)[:9] for o in refused.outcomes} == {"554 5.4.6"}
        many = b"".join(b"Delivered-To: n%d@x.example\r\n" % n for n in range(100))
        refused = await node.send("ann@victim.example", ["all@our.dom"], many + forged)
        assert {str(o.reply)[:9] for o in refused.outcomes} == {"554 5.4.6"}
        await node.send("eve@far.example", ["cyd@our.dom", "bob@our.dom"], forged)
        await node.until(Delivered, 2)
        assert await node.queue() == []
        assert victim.sessions == 0
        assert node.told(Failed) == []


async def test_a_ring_that_was_none_when_it_came_is_reported(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await w.node("relay.example", aliases=AliasTable({"a": ["ann@our.dom"]}))
        content = b"Delivered-To: a@our.dom\r\n" + MESSAGE
        await w.put(node, SENDER, "a@our.dom", content=content)
        (failed,) = await node.until(Failed)
        assert failed.reply.startswith("554 5.4.6")
        await node.until(Delivered)
        assert len(node.mail(SENDER)) == 1


async def test_an_alias_nobody_can_look_up_defers(tmp_path: Path) -> None:
    class Broken(AliasTable):
        async def find(self, mailbox: Mailbox) -> Sequence[Mailbox] | MailingList | None:
            if broken:
                raise OSError("no such table")
            return await super().find(mailbox)

    broken = False
    async with world(tmp_path) as w:
        node = await w.node("relay.example", aliases=Broken({"a": ["ann@our.dom"]}))
        await w.put(node, SENDER, "other@our.dom", content=MESSAGE)
        await node.until(Delivered)
        broken = True
        await w.put(node, SENDER, "a@our.dom", content=MESSAGE)
        (deferred,) = await node.until(Deferred)
        assert deferred.reply.startswith("451 4.3.0")
        broken = False
        w.move(600)
        await node.until(Delivered, 2)
        assert len(node.mail("ann@our.dom")) == 1


async def test_an_alias_for_nobody_loses_no_mail(tmp_path: Path) -> None:
    class Empty:
        async def find(self, mailbox: Mailbox) -> Sequence[Mailbox] | None:
            return [] if mailbox.local_part == b"a" else None

    async with world(tmp_path) as w:
        node = await w.node("relay.example", aliases=Empty())
        await w.put(node, SENDER, "a@our.dom", content=MESSAGE)
        (deferred,) = await node.until(Deferred)
        assert deferred.reply.startswith("451 4.3.0")
        assert len(await node.queue()) == 1


async def test_a_domain_is_one_however_it_is_spelled() -> None:
    # What asks has A-labels (`Router.home`), and who writes a table may have U-labels.
    table = AliasTable(
        {"sales@bücher.example": ["ann@bücher.example"], "@käse.example": ["@Bücher.example"]}
    )
    for domain in ("bücher.example", "BÜCHER.example", "xn--bcher-kva.example"):
        assert await found(table, f"sales@{domain}") == ["ann@bücher.example"]
    assert await found(table, "x@xn--kse-qla.example") == ["x@Bücher.example"]
    assert await table.is_caught(Mailbox.parse("x@xn--kse-qla.example"))


async def test_an_alias_behind_an_alias_is_found_by_its_u_labels(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        table = AliasTable(
            {"a@bücher.example": ["b@bücher.example"], "b@xn--bcher-kva.example": ["c@our.dom"]}
        )
        node = await w.node("relay.example", ["our.dom", "bücher.example"], aliases=table)
        await node.send("ann@our.dom", ["a@xn--bcher-kva.example"])
        await node.until(Delivered)
        assert len(node.mail("c@our.dom")) == 1


async def test_a_tag_that_orcpt_has_no_room_for_keeps_nothing_from_its_alias(
    tmp_path: Path,
) -> None:
    # In xtext each of these is three octets, and ORCPT takes 500 (RFC 3461 §4.2).
    async with world(tmp_path) as w:
        node = await w.node("relay.example", aliases=AliasTable({"sales": ["ann@our.dom"]}))
        await node.send(SENDER, [f"sales+{'=' * 200}@our.dom"])
        await node.until(Delivered)
        assert len(node.mail("ann@our.dom")) == 1
