"""A relay that runs goes on by the rules of another: new sessions and attempts, all at once."""

from pathlib import Path

import pytest

from smtpproto.core.reply import Reply
from smtpproto.relay import Listener, Relay, Router
from smtpproto.relay.filters.seam import Answer, Refuse, Seen, Stage
from smtpproto.relay.reports.story import Accepted, Delivered, Judged
from smtpproto.relay.routing.table import RouteTable, Rule
from smtpproto.relay.routing.transport import Here, OnHold
from tests.relay.world import Node, world

pytestmark = pytest.mark.anyio


class Closed:
    """A filter that lets nobody in."""

    name = "closed"
    stages = (Stage.MAIL,)

    async def judge(self, stage: Stage, seen: Seen) -> Answer | None:
        return Refuse(Reply(550, "5.7.1", "Not today"), "closed")


def another(node: Node, *rules: Rule, domain: str = "our.example") -> Relay:
    old = node.relay
    router = Router(
        local_domains=[domain],
        routes=RouteTable(rules),
        resolver=node.world,
        smart_host=None,
        shuffle=lambda each: None,
        hostname=old.hostname,
    )
    return Relay(hostname=old.hostname, spool=old.spool, mailboxes=old.mailboxes, router=router)


async def test_new_sessions_go_by_the_new_rules_and_old_ones_by_theirs(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await w.node("our.example", ["our.example"], networks=())
        async with node.dial() as before:
            await before.hello()
            node.relay.adopt(another(node, domain="new.example"), [Listener("smtp", None, 0)])
            assert (await before.say("MAIL FROM:<ann@far.example>")).startswith("250")
            assert (await before.say("RCPT TO:<bob@our.example>")).startswith("250")
            assert (await before.say("RCPT TO:<bob@new.example>")).startswith("550")
            async with node.dial() as after:
                await after.hello()
                assert (await after.say("MAIL FROM:<ann@far.example>")).startswith("250")
                assert (await after.say("RCPT TO:<bob@our.example>")).startswith("550")
                assert (await after.say("RCPT TO:<bob@new.example>")).startswith("250")


async def test_what_waits_goes_by_the_new_routes(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await w.node("our.example", ["our.example"])
        listeners = [Listener("smtp", None, 0)]
        node.relay.adopt(another(node, Rule(OnHold("wait"))), listeners)
        await node.send("ann@far.example", ["bob@our.example"])
        (accepted,) = await node.until(Accepted)
        node.relay.adopt(another(node, Rule(Here())), listeners)
        await node.spool.retry(accepted.id, node.relay.clock())
        node.relay.dispatcher.wake()
        (delivered,) = await node.until(Delivered)
        assert delivered.where == "mailbox bob@our.example"


async def test_filters_are_those_of_the_listener(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await w.node("our.example", ["our.example"])
        node.relay.adopt(another(node), [Listener("smtp", None, 0, filters=[Closed()])])
        async with node.dial() as wire:
            await wire.hello()
            assert await wire.say("MAIL FROM:<ann@far.example>") == "550 5.7.1 Not today"
        await node.until(Judged)
        node.relay.adopt(another(node), [Listener("smtp", None, 0)])
        async with node.dial() as wire:
            await wire.hello()
            assert (await wire.say("MAIL FROM:<ann@far.example>")).startswith("250")


async def test_listeners_are_those_that_there_are(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await w.node("our.example", ["our.example"])
        with pytest.raises(ValueError, match="keeps its listeners"):
            node.relay.adopt(another(node), [])


async def test_it_is_ready_between_binding_and_stopping(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await w.node("our.example", ["our.example"])
        assert node.relay.ready
        assert not another(node).ready
        assert (node.relay.sessions_in, node.relay.sessions_out) == (0, 0)
        async with node.dial() as wire:
            await wire.hello()
            assert node.relay.sessions_in == 1
        await node.stop()
        assert not node.relay.ready


async def offered(node: Node) -> list[str]:
    async with node.dial("submission") as wire:
        await wire.reply()
        await wire.stream.send(b"EHLO client.example\r\n")
        return await wire.lines()


async def test_what_is_offered_is_new_for_new_sessions(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await w.node("our.example", ["our.example"], kinds=["submission"])
        before = " ".join(await offered(node))
        other = another(node)
        other.longest_hold, other.least_by = 0, 300
        node.relay.adopt(other, [Listener("submission", None, 0)])
        after = " ".join(await offered(node))
        assert "FUTURERELEASE" in before
        assert "DELIVERBY 300" not in before
        assert "FUTURERELEASE" not in after
        assert "DELIVERBY 300" in after
