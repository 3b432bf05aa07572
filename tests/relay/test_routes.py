"""Mail goes by the rules: to fixed hosts, stores, smart hosts; or nowhere, for now or for ever."""

from base64 import b64encode
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from pathlib import Path

import anyio.lowlevel
import pytest

from smtpproto.core.path import Mailbox, ReversePath
from smtpproto.core.reply import Reply
from smtpproto.relay import (
    Access,
    AliasTable,
    ByMx,
    Discard,
    Here,
    Host,
    NextHop,
    OnHold,
    Refuse,
    RouteTable,
    Rule,
    Schedule,
)
from smtpproto.relay.mailboxes.mailbox import listed_mailboxes
from smtpproto.relay.reports.story import (
    Deferred,
    Delivered,
    Discarded,
    Expanded,
    Failed,
    Held,
    Reported,
)
from smtpproto.resolve import Mx
from smtpproto.result import DeliveryError
from tests.relay.test_dsn import hand_over, reports
from tests.relay.world import DAY, MESSAGE, START, Node, world

pytestmark = pytest.mark.anyio

SENDER = "ann@our.dom"
SOCKET = "/run/store/lmtp"
NO = Refuse(Reply(550, "5.7.1", "We do not write to them"))


def fixed(name: str = "there.example", port: int = 25, login: str | None = None) -> NextHop:
    """By SMTP to a host of the world, with a login if it is named."""
    pair = None if login is None else (login, "secret")
    return NextHop.fixed(Host(name, port=port, access=Access("none", pair, login_in_clear=True)))


def store() -> NextHop:
    return NextHop.fixed(Host("localhost", path=SOCKET, lmtp=True, access=Access("none")))


class Changing(RouteTable):
    """A table that can be changed, or break, as one in a database can."""

    broken = False

    def put(self, *rules: Rule) -> None:
        super().__init__(rules)

    async def find(self, mailbox: Mailbox, sender: ReversePath) -> Rule | None:
        if self.broken:
            raise OSError("no such table")
        return await super().find(mailbox, sender)


async def asked(node: Node, *recipients: str, sender: str = "<eve@far.example>") -> list[str]:
    """What a stranger hears when he asks for these recipients."""
    async with node.dial() as wire:
        await wire.hello()
        await wire.say(f"MAIL FROM:{sender}")
        replies = [await wire.say(f"RCPT TO:<{recipient}>") for recipient in recipients]
    return [reply[:9].rstrip() for reply in replies]


def wheres(events: Sequence[Delivered]) -> dict[str, str]:
    return {str(event.forward_path): event.where for event in events}


# Hosts


async def test_a_fixed_host_is_no_matter_of_the_dns(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.failing.add("ext.example")
        host = await w.fixed(("there.example", 2525))
        table = RouteTable([Rule(fixed(port=2525), recipients=["ext.example"])])
        node = await w.node("relay.example", routes=table)
        await node.send(SENDER, ["v@ext.example"])
        (delivered,) = await node.until(Delivered)
        assert delivered.where == "there.example:2525"
        assert len(host.accepted) == 1


async def test_several_hosts_are_tried_in_their_order_until_one_takes_it(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.fixed(("sulking.example", 25), {"greeting": "421 4.3.2 not now"})
        backup = await w.fixed(("backup.example", 2525))
        hop = NextHop.fixed(
            Host("dead.example"), Host("sulking.example"), *fixed("backup.example", 2525).hosts
        )
        node = await w.node("relay.example", routes=RouteTable([Rule(hop)]))
        await node.send(SENDER, ["v@ext.example"])
        (delivered,) = await node.until(Delivered)
        assert delivered.where == "backup.example:2525"
        assert w.connected == ["dead.example", "sulking.example", "backup.example"]
        backup.says["RCPT"] = "550 5.1.1 who?"
        await node.send(SENDER, ["w@ext.example"])
        await node.until(Failed)


async def test_several_hosts_that_are_down_are_held_as_one(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        hop = NextHop.fixed(Host("a.example"), Host("b.example"))
        node = await w.node("relay.example", routes=RouteTable([Rule(hop)]))
        await node.send(SENDER, ["v@ext.example"])
        await node.until(Deferred)
        await node.send(SENDER, ["w@ext.example"])
        await node.until(Deferred, 2)
        assert w.connected == ["a.example", "b.example"]


async def test_a_refusal_by_one_of_several_hosts_is_the_word_of_all(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.fixed(("a.example", 25), {"RCPT": "550 5.1.1 who?"})
        other = await w.fixed(("b.example", 25))
        hop = NextHop.fixed(Host("a.example"), Host("b.example"))
        node = await w.node("relay.example", routes=RouteTable([Rule(hop)]))
        await node.send(SENDER, ["v@ext.example"])
        await node.until(Failed)
        assert other.sessions == 0


async def test_a_store_has_a_second_one_behind_it(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        second = await w.fixed(("store.example", 24), lmtp=True)
        hop = NextHop.fixed(*store().hosts, Host("store.example", port=24, lmtp=True))
        table = RouteTable([Rule(hop, recipients=["our.dom"])])
        node = await w.node("relay.example", routes=table)
        await node.send("bob@far.example", ["ann@our.dom"])
        (delivered,) = await node.until(Delivered)
        assert delivered.where == "store.example:24"
        assert second.lines[0] == "LHLO relay.example"


async def test_recipients_of_one_next_hop_share_a_transaction_whatever_their_rules(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as w:
        host = await w.fixed(("there.example", 25))
        rules = [Rule(fixed(), recipients=[f"{name}.example"]) for name in "abc"]
        node = await w.node("relay.example", routes=RouteTable(rules))
        await node.send(SENDER, ["v@a.example", "v@b.example", "v@c.example"])
        await node.until(Delivered, 3)
        ((first, *others),) = host.accepted
        assert (first, len(others)) == ("RCPT TO:<v@a.example>", 2)


async def test_two_logins_at_one_host_share_neither_session_nor_transaction(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as w:
        host = await w.fixed(("smart.example", 587), keywords=("AUTH PLAIN",))
        host.says["AUTH"] = "235 2.7.0 welcome"
        rules = [
            Rule(fixed("smart.example", 587, login), recipients=[f"{login}.example"])
            for login in ("one", "two")
        ]
        node = await w.node("relay.example", routes=RouteTable(rules))
        for count in (2, 4):  # sessions are kept, and used again
            await node.send(SENDER, ["v@one.example", "v@two.example"])
            await node.until(Delivered, count)
        assert [len(rcpts) for rcpts in host.accepted] == [1, 1, 1, 1]
        assert host.sessions == 2
        logins = [line.split()[2] for line in host.lines if line.startswith("AUTH")]
        assert {b64encode(f"\0{who}\0secret".encode()).decode() for who in ("one", "two")} == {
            *logins
        }
        assert len(logins) == 2


@pytest.mark.rfc("3207 §6 relay-demands-tls-of-chosen-hosts")
async def test_one_host_has_to_have_tls_and_another_may_do_without(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        safe = await w.fixed(("safe.example", 25))
        await w.fixed(("any.example", 25))
        rules = [
            Rule(
                NextHop.fixed(Host("safe.example", access=Access("required"))),
                recipients=["safe.example"],
            ),
            Rule(NextHop.fixed(Host("any.example")), recipients=["any.example"]),
        ]
        node = await w.node("relay.example", routes=RouteTable(rules))
        await node.send(SENDER, ["v@safe.example", "v@any.example"])
        (delivered,) = await node.until(Delivered)
        (deferred,) = await node.until(Deferred)
        assert str(delivered.forward_path) == "<v@any.example>"
        assert str(deferred.forward_path) == "<v@safe.example>"
        assert not any(line.startswith("MAIL") for line in safe.lines)


@pytest.mark.rfc(
    "4954 §5 none-is-passed-on",
    "4954 §5 nobody-may-be-trusted",
    "4954 §5 no-mailbox-to-make-sends-none",
    "4954 §5 untrusted-submitter-counts-as-none",
)
async def test_who_has_a_login_of_ours_hears_that_nobody_is_vouched_for(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        smart = await w.fixed(("smart.example", 587), keywords=("AUTH PLAIN",))
        smart.says["AUTH"] = "235 2.7.0 welcome"
        open_ = await w.fixed(("open.example", 2525), keywords=("AUTH PLAIN",))
        rules = [
            Rule(fixed("smart.example", 587, "one"), recipients=["one.example"]),
            Rule(fixed("open.example", 2525), recipients=["two.example"]),
        ]
        node = await w.node("relay.example", routes=RouteTable(rules))
        async with node.dial() as wire:
            await wire.hello()
            for to in ("v@one.example", "v@two.example"):
                await wire.say(f"MAIL FROM:<{SENDER}> AUTH=e+3Dmc2@example.com")
                await wire.say(f"RCPT TO:<{to}>")
                await wire.say("DATA")
                assert (await wire.say(MESSAGE + b".")).startswith("250")
        await node.until(Delivered, 2)
        said = [line for host in (smart, open_) for line in host.lines if line.startswith("MAIL")]
        assert said == [f"MAIL FROM:<{SENDER}> AUTH=<>", f"MAIL FROM:<{SENDER}>"]


async def test_a_sender_has_a_smart_host_of_its_own(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        theirs = await w.fixed(("theirs.example", 587))
        ours = await w.fixed(("ours.example", 587))
        reports_host = await w.fixed(("reports.example", 25))
        table = RouteTable(
            [
                Rule(fixed("theirs.example", 587), senders=["their.dom"]),
                Rule(fixed("reports.example"), senders=["<>"]),
            ]
        )
        node = await w.node(
            "relay.example", routes=table, smart_host=Host("ours.example", port=587)
        )
        await node.send("bob@their.dom", ["v@ext.example"])
        await node.send("ann@our.dom", ["v@ext.example"])
        await node.send(None, ["v@ext.example"])
        await node.until(Delivered, 3)
        assert "MAIL FROM:<bob@their.dom>" in theirs.lines
        assert "MAIL FROM:<ann@our.dom>" in ours.lines
        assert "MAIL FROM:<>" in reports_host.lines
        assert len(theirs.accepted) == len(ours.accepted) == len(reports_host.accepted) == 1


async def test_a_login_that_fails_holds_up_only_who_goes_by_it(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await w.fixed(("smart.example", 587), keywords=("AUTH PLAIN",))
        bad = b64encode(b"\0bad\0secret").decode()
        host.says |= {"AUTH": "235 2.7.0 welcome", f"AUTH PLAIN {bad}": "535 5.7.8 who are you?"}
        rules = [
            Rule(fixed("smart.example", 587, login), senders=[f"{login}.dom"])
            for login in ("bad", "good")
        ]
        node = await w.node("relay.example", routes=RouteTable(rules))
        await node.send("ann@bad.dom", ["v@ext.example"])
        await node.until(Deferred)
        await node.send("ann@good.dom", ["v@ext.example"])
        await node.until(Delivered)
        await node.send("ann@bad.dom", ["w@ext.example"])
        _, held = await node.until(Deferred, 2)
        assert held.reply.startswith("535")
        assert sum(line.startswith("AUTH") for line in host.lines) == 2  # it was not tried again


async def test_a_route_by_mx_is_an_exception_from_a_later_rule(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        direct = await w.host("mx.friend.example", "friend.example")
        smart = await w.fixed(("smart.example", 25))
        table = RouteTable(
            [Rule(ByMx(), recipients=["friend.example"]), Rule(fixed("smart.example"))]
        )
        node = await w.node("relay.example", routes=table)
        await node.send(SENDER, ["v@friend.example", "v@ext.example"])
        await node.until(Delivered, 2)
        assert direct.accepted == [["RCPT TO:<v@friend.example>"]]
        assert smart.accepted == [["RCPT TO:<v@ext.example>"]]


async def test_a_domain_that_is_held_holds_nothing_that_goes_by_another_rule(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as w:
        w.failing.add("ext.example")
        host = await w.fixed(("there.example", 25))
        table = RouteTable([Rule(fixed(), senders=["bob@our.dom"])])
        node = await w.node("relay.example", routes=table)
        await node.send(SENDER, ["v@ext.example"])
        await node.until(Deferred)
        await node.send("bob@our.dom", ["v@ext.example"])
        await node.until(Delivered)
        assert len(host.accepted) == 1


# LMTP


@pytest.mark.rfc(
    "2033 §4.2 2yz-takes-responsibility-for-its-recipient", "2033 §3 one-reply-for-each-recipient"
)
@pytest.mark.parametrize("where", [SOCKET, ("store.example", 24)])
async def test_by_lmtp_each_recipient_has_its_own_end(
    tmp_path: Path, where: str | tuple[str, int]
) -> None:
    async with world(tmp_path) as w:
        host = await w.fixed(
            where,
            {
                ". <full@our.dom>": "452 4.2.2 the mailbox is full",
                ". <gone@our.dom>": "550 5.1.1 no such user",
                "RCPT TO:<never@": "550 5.1.1 who?",
            },
            lmtp=True,
        )
        hop = store()
        if isinstance(where, tuple):
            hop = NextHop.fixed(Host(where[0], port=where[1], lmtp=True))
        node = await w.node("relay.example", routes=RouteTable([Rule(hop, recipients=["our.dom"])]))
        names = ["ann", "full", "gone", "never"]
        await node.send("bob@far.example", [f"{name}@our.dom" for name in names])
        (delivered,) = await node.until(Delivered)
        (deferred,) = await node.until(Deferred)
        failed = await node.until(Failed, 2)
        assert str(delivered.forward_path) == "<ann@our.dom>"
        assert (str(deferred.forward_path), deferred.reply[:9]) == ("<full@our.dom>", "452 4.2.2")
        assert {str(each.forward_path): each.reply for each in failed} == {
            "<gone@our.dom>": "550 5.1.1 no such user",
            "<never@our.dom>": "550 5.1.1 who?",
        }
        assert delivered.where == ("localhost:" + SOCKET if where == SOCKET else "store.example:24")
        assert host.lines[0] == "LHLO relay.example"
        assert len(host.contents) == 1
        del host.says[". <full@our.dom>"]
        w.move(600)
        await node.until(Delivered, 2)
        assert host.accepted == [["RCPT TO:<ann@our.dom>"], ["RCPT TO:<full@our.dom>"]]
        assert node.files() == []  # our own mailboxes have no part in it


@pytest.mark.rfc("2033 §4.2 2yz-takes-responsibility-for-its-recipient")
async def test_by_lmtp_whoever_has_it_is_done_with_though_the_attempt_is_cut_off(
    tmp_path: Path,
) -> None:
    # The store takes its time for the second, and we are to end.
    async with world(tmp_path) as w:
        host = await w.fixed(SOCKET, {". <two@our.dom>": "hang"}, lmtp=True)
        heard = anyio.Event()

        def trace(session: str, peer: str, line: str) -> None:
            if line.endswith("250 2.0.0 kept"):
                heard.set()

        table = RouteTable([Rule(store(), recipients=["our.dom"])])
        node = await w.node("relay.example", routes=table, trace=trace)
        node.relay.dispatcher.drain = 0
        await node.send("bob@far.example", ["one@our.dom", "two@our.dom", "three@our.dom"])
        await heard.wait()
        await host.reached.wait()
        node.relay.dispatcher.stop()
        (delivered,) = await node.until(Delivered)
        assert str(delivered.forward_path) == "<one@our.dom>"
        assert delivered.reply == "250 2.0.0 kept"
        (entry,) = await node.queue()
        left = [(str(each.rcpt.forward_path), each.attempts) for each in entry.recipients]
        assert left == [("<two@our.dom>", 0), ("<three@our.dom>", 0)]


async def test_a_store_that_is_down_is_waited_for(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        quick = Schedule(first=10, longest=60, lifetime=3600, spread=0)
        table = RouteTable([Rule(store(), recipients=["our.dom"], schedule=quick)])
        node = await w.node("relay.example", routes=table)
        await node.send("bob@far.example", ["ann@our.dom"])
        (deferred,) = await node.until(Deferred)
        assert "No such file" in deferred.reply
        assert (deferred.where, deferred.wait) == (f"localhost:{SOCKET}", 10)
        await node.send("bob@far.example", ["bob@our.dom"])
        _, held = await node.until(Deferred, 2)
        assert 2 <= held.wait <= 2.2  # the next hop is held by the same rule: a fifth of it
        assert w.connected == [SOCKET]
        host = await w.fixed(SOCKET, lmtp=True)
        w.move(10)
        await node.until(Delivered, 2)
        assert len(host.accepted) == 2


async def test_an_alias_is_one_wherever_its_domain_lives(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await w.fixed(SOCKET, lmtp=True)
        table = RouteTable([Rule(store(), recipients=["our.dom", "inner.dom"])])
        aliases = AliasTable({"all@our.dom": ["ann@our.dom"], "all@inner.dom": ["bob@inner.dom"]})
        node = await w.node(
            "relay.example", routes=table, relay_domains=["inner.dom"], aliases=aliases
        )
        await node.send("bob@far.example", ["all@our.dom", "all@inner.dom"])
        await node.until(Delivered, 2)
        assert len(node.told(Expanded)) == 2
        rcpts = sorted(rcpt for each in host.accepted for rcpt in each)
        assert rcpts == ["RCPT TO:<ann@our.dom>", "RCPT TO:<bob@inner.dom>"]
        assert all(content.startswith(b"Delivered-To: all@") for content in host.contents)


@pytest.mark.rfc("5321 §4.5.1 postmaster-is-a-mailbox-in-any-case")
async def test_the_bare_postmaster_has_a_domain_elsewhere(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await w.fixed(SOCKET, lmtp=True)
        table = RouteTable([Rule(store(), recipients=["our.dom"])])
        node = await w.node("relay.example", routes=table)
        await node.send("bob@far.example", ["postmaster"])
        await node.until(Delivered)
        assert host.accepted == [["RCPT TO:<Postmaster@our.dom>"]]


@pytest.mark.rfc("3461 §6.3 remote-mta-is-who-refused")
@pytest.mark.parametrize(
    ("path", "host", "where", "remote"),
    [
        ("/run/a:b/lmtp", None, "localhost:/run/a:b/lmtp", "localhost"),
        (None, "2001:db8::7", "[2001:db8::7]:24", "[IPv6:2001:db8::7]"),
        (None, "192.0.2.7", "192.0.2.7:24", "[192.0.2.7]"),
        (None, "store.example", "store.example:24", "store.example"),
    ],
)
async def test_a_report_names_who_refused_as_the_dns_does(
    tmp_path: Path, path: str | None, host: str | None, where: str, remote: str
) -> None:
    async with world(tmp_path) as w:
        refuses = {"RCPT TO:<gone@": "550 5.1.1 who?"}
        await w.fixed(path or (host or "", 24), refuses, lmtp=True)
        there = Host(host or "localhost", port=24, lmtp=True, path=path, access=Access("none"))
        table = RouteTable([Rule(NextHop.fixed(there), recipients=["there.dom"])])
        node = await w.node("relay.example", routes=table)
        await node.send(SENDER, ["gone@there.dom"])
        (failed,) = await node.until(Failed)
        assert failed.where == where
        ((_, (_, theirs)),) = await reports(node)
        assert theirs["Remote-MTA"] == f"dns; {remote}"


def test_an_address_literal_is_its_own_name() -> None:
    host = Host("[ipv6:2001:db8::7]", "2001:db8::7")
    assert host.where == "[ipv6:2001:db8::7]:25"
    assert host.domain == "[ipv6:2001:db8::7]"


# Domains of ours that live elsewhere


async def test_mail_for_relay_domains_is_taken_from_everybody_and_no_other(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        inner = await w.host("inner.example", "backup.dom", preference=10)
        w.mx_of["backup.dom"].append(Mx(20, "relay.example"))
        node = await w.node("relay.example", networks=(), relay_domains=["Backup.dom"])
        assert await asked(node, "v@backup.dom", "v@sub.backup.dom", "v%x@backup.dom") == [
            "250 2.1.5",
            "550 5.7.1",
            "550 5.7.1",
        ]
        await node.send("eve@far.example", ["v@backup.dom"])
        await node.until(Delivered)
        assert inner.accepted == [["RCPT TO:<v@backup.dom>"]]


@pytest.mark.rfc("5321 §5.1 nothing-left-is-an-error")
async def test_a_relay_domain_that_leads_back_to_us_is_a_loop(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.dead("relay.example", "backup.dom")
        node = await w.node("relay.example", relay_domains=["backup.dom"])
        await node.send("eve@far.example", ["v@backup.dom"])
        (failed,) = await node.until(Failed)
        assert failed.reply.startswith("554 5.4.6")


async def test_rules_for_where_mail_goes_let_nobody_relay(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        rules = [Rule(fixed(), senders=["our.dom"]), Rule(fixed(), recipients=["ext.example"])]
        rules += [Rule(OnHold(), recipients=["hold.example"]), Rule(NO, recipients=["no.example"])]
        node = await w.node("relay.example", networks=(), routes=RouteTable(rules))
        recipients = ["v@ext.example", "v@x.example", "v@hold.example", "v@no.example"]
        assert await asked(node, *recipients, sender="<ann@our.dom>") == ["550 5.7.1"] * 4


async def test_what_a_rule_keeps_here_is_a_mailbox_here(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        table = RouteTable([Rule(Here(), recipients=["help@ext.example"])])
        node = await w.node(
            "relay.example",
            networks=(),
            routes=table,
            policy=listed_mailboxes(["help@ext.example"]),
        )
        assert await asked(node, "help@ext.example", "help+x@ext.example", "v@ext.example") == [
            "250 2.1.5",
            "250 2.1.5",  # a tag of that mailbox
            "550 5.7.1",
        ]
        await node.send("eve@far.example", ["help@ext.example"])
        await node.until(Delivered)
        assert len(node.mail("help@ext.example")) == 1


# On hold


async def test_what_is_on_hold_stays_until_the_rule_is_gone(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example")
        table = Changing([Rule(OnHold("they move house"), recipients=["ext.example"])])
        node = await w.node("relay.example", routes=table)
        await node.send(SENDER, ["v@ext.example"])
        (held,) = await node.until(Held)
        assert held.reason == "on hold: they move house"
        for _ in range(30):
            w.move(DAY)
            await node.spool.retry(None, w.now)
            while (await node.queue())[0].recipients[0].next_attempt < w.now:
                await anyio.lowlevel.checkpoint()  # it is looked at, and says nothing
        ((recipient,),) = [entry.recipients for entry in await node.queue()]
        assert (recipient.attempts, recipient.warned) == (0, False)
        assert recipient.last_reply == "on hold: they move house"
        assert len(node.told(Held)) == 1  # the same is not said again and again
        assert (node.told(Reported), node.told(Deferred), w.connected) == ([], [], [])
        table.put()
        await node.spool.retry(None, w.now)
        await node.until(Delivered)
        assert len(host.accepted) == 1


async def test_what_is_on_hold_notices_by_itself_that_the_rule_is_gone(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.host("mx.ext.example", "ext.example")
        table = Changing([Rule(OnHold())])
        node = await w.node("relay.example", routes=table)
        await node.send(SENDER, ["v@ext.example"])
        (held,) = await node.until(Held)
        assert held.reason == "on hold"
        table.put()
        w.move(3600)
        await node.until(Delivered)


# Discarded


async def test_what_is_discarded_is_gone_and_nobody_hears_of_it(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        table = RouteTable([Rule(Discard("test mail"), recipients=["null.example"])])
        node = await w.node("relay.example", routes=table)
        assert await hand_over(node, {"v@null.example": {"NOTIFY": "SUCCESS,FAILURE,DELAY"}})
        (discarded,) = await node.until(Discarded)
        assert discarded.reason == "discarded: test mail"
        assert await node.queue() == []
        assert (node.told(Delivered), node.told(Reported), node.mail(SENDER)) == ([], [], [])


# Refused


async def test_what_is_refused_is_refused_when_it_is_asked_for(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        later = Refuse(Reply(450, "4.3.2", "Not today"))
        rules = [
            Rule(NO, recipients=["no.example", "old@our.dom"]),
            Rule(later, senders=["slow@far.example"]),
        ]
        node = await w.node("relay.example", routes=RouteTable(rules))
        assert await asked(node, "v@no.example", "old@our.dom", "ann@our.dom") == [
            "550 5.7.1",
            "550 5.7.1",
            "250 2.1.5",
        ]
        assert await asked(node, "ann@our.dom", sender="<slow@far.example>") == ["450 4.3.2"]
        with pytest.raises(DeliveryError):
            raise DeliveryError(await node.send(SENDER, ["v@no.example"]))
        assert node.events == []


async def test_who_comes_through_an_alias_fails_or_waits_by_the_rule(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        later = Refuse(Reply(450, "4.3.2", "Not today"))
        rules = [Rule(NO, recipients=["no.example"]), Rule(later, recipients=["later.example"])]
        aliases = AliasTable({"all": ["v@no.example", "v@later.example"]})
        node = await w.node("relay.example", routes=RouteTable(rules), aliases=aliases)
        await hand_over(node, {"all@our.dom": {"NOTIFY": "FAILURE"}})
        ((_, (_, theirs)),) = await reports(node)
        assert theirs["Final-Recipient"] == "rfc822; v@no.example"
        assert (theirs["Action"], theirs["Status"]) == ("failed", "5.7.1")
        assert "Remote-MTA" not in theirs
        (deferred,) = await node.until(Deferred)
        assert deferred.reply.startswith("450 4.3.2")
        ((waiting,),) = [entry.recipients for entry in await node.queue()]
        assert (waiting.attempts, waiting.next_attempt) == (1, START + 600)
        # Nothing is held by that: others of the domain are judged by their own rules.
        assert node.relay.hops.held("later.example") is None


# The schedule of a rule


async def test_a_rule_has_its_own_retries_notice_and_end(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.dead("mx.slow.example", "slow.example")
        w.dead("mx.ext.example", "ext.example")
        patient = Schedule(
            first=1800, factor=1, longest=1800, lifetime=7 * DAY, notice=DAY, spread=0
        )
        table = RouteTable([Rule(ByMx(), recipients=["slow.example"], schedule=patient)])
        node = await w.node("relay.example", routes=table)
        await node.send(SENDER, ["v@slow.example", "v@ext.example"])
        waits = {str(each.forward_path): each.wait for each in await node.until(Deferred, 2)}
        assert waits == {"<v@slow.example>": 1800, "<v@ext.example>": 600}
        w.move(0.9 * DAY)
        await node.until(Deferred, 4)
        ((_, notice),) = await reports(node)
        assert [each.get("Final-Recipient") for each in notice[1:]] == ["rfc822; v@ext.example"]
        w.move(5 * DAY)
        await node.until(Failed)
        (_, (_, *both)) = (await reports(node, 2))[1]
        assert {each["Final-Recipient"][-12:]: each["Action"] for each in both} == {
            "slow.example": "delayed",
            "@ext.example": "failed",
        }
        until = next(each["Will-Retry-Until"] for each in both if "Will-Retry-Until" in each)
        assert parsedate_to_datetime(until).timestamp() == START + 7 * DAY
        w.move(2 * DAY)
        assert str((await node.until(Failed, 2))[1].forward_path) == "<v@slow.example>"


async def test_a_life_that_no_calendar_has_an_end_for_is_no_fault(tmp_path: Path) -> None:
    # The date in the notice of delay could not be made, and so nothing was written down: who had
    # the message got it again every five seconds.
    async with world(tmp_path) as w:
        w.dead("mx.slow.example", "slow.example")
        forever = Schedule(lifetime=99_999_999 * DAY, notice=0)
        node = await w.node("relay.example", schedule=forever)
        await node.send(SENDER, ["v@slow.example", "bob@our.dom"])
        await node.until(Deferred)
        assert len(node.mail("bob@our.dom")) == 1
        ((_, (_, theirs)),) = await reports(node)
        assert theirs["Action"] == "delayed"
        assert "Will-Retry-Until" not in theirs


# The table of another


async def test_a_table_that_fails_says_for_good_of_nobody_that_he_is_a_stranger(
    tmp_path: Path,
) -> None:
    """A domain may be ours by a rule alone."""
    async with world(tmp_path) as w:
        table = Changing([Rule(Here(), recipients=["guest.dom"])])
        node = await w.node("relay.example", routes=table, networks=())
        recipients = ["bob@guest.dom", "v@ext.example", "bob@our.dom"]
        assert await asked(node, *recipients) == ["250 2.1.5", "550 5.7.1", "250 2.1.5"]
        table.broken = True
        assert await asked(node, *recipients) == ["451 4.3.0"] * 3


async def test_a_table_that_fails_defers_and_loses_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await w.fixed(("there.example", 25))
        table = Changing([Rule(fixed(), recipients=["ext.example"])])
        node = await w.node("relay.example", routes=table)
        table.broken = True
        assert await asked(node, "v@ext.example") == ["451 4.3.0"]
        await w.put(node, SENDER, "v@ext.example", "ann@our.dom", content=MESSAGE)
        for deferred in await node.until(Deferred, 2):
            assert deferred.reply.startswith("451 4.3.0")
        table.broken = False
        w.move(600)
        delivered = wheres(await node.until(Delivered, 2))
        assert delivered["<v@ext.example>"] == "there.example:25"
        assert len(host.accepted) == len(node.mail(SENDER)) == 1
