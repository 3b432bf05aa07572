"""Who exists elsewhere: asked at RCPT, remembered, and put off where nobody can say."""

from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from smtpproto.core.path import Mailbox
from smtpproto.core.reply import Reply
from smtpproto.relay import Access, AliasTable, ByMx, Callout, NextHop, RouteTable, Rule
from smtpproto.relay import Host as MailHost
from smtpproto.relay.delivery.clients import Clients
from smtpproto.relay.delivery.hops import Hops
from smtpproto.relay.reports.story import Delivered
from tests.relay.test_routes import SOCKET, asked, store
from tests.relay.world import DAY, Host, Node, World, world

pytestmark = pytest.mark.anyio

YES, NO, LATER = "250 2.1.5", "550 5.1.1", "451 4.4.1"
UNKNOWN = {"RCPT": "550 5.1.1 who?", "RCPT TO:<ann@": "250 ok", "RCPT TO:<bob@": "250 ok"}


async def behind(w: World, says: dict[str, str], **settings: object) -> tuple[Node, Host]:
    """A node whose mailboxes are in a store, and that store."""
    host = await w.fixed(SOCKET, dict(says), lmtp=True)
    table = RouteTable([Rule(store(), recipients=["our.dom"])])
    node = await w.node("relay.example", networks=(), routes=table, verify="callout", **settings)  # type: ignore[arg-type]  # each is what it should be
    return node, host


def questions(host: Host) -> list[str]:
    return [line for line in host.lines if line.startswith(("MAIL", "RCPT", "DATA"))]


async def test_the_next_hop_is_asked_once_who_exists(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node, host = await behind(w, UNKNOWN)
        for _ in range(2):
            assert await asked(node, "ann@our.dom", "eve@our.dom") == [YES, NO]
        assert questions(host) == [
            "MAIL FROM:<>",
            "RCPT TO:<ann@our.dom>",
            "MAIL FROM:<>",
            "RCPT TO:<eve@our.dom>",
        ]
        assert host.lines.count("QUIT") == 2
        del host.says["RCPT"]
        w.move(600)  # a no is not for long
        assert await asked(node, "ann@our.dom", "eve@our.dom") == [YES, YES]
        await node.send("bob@far.example", ["ann@our.dom"])
        await node.until(Delivered)
        assert len(questions(host)) == 4 + 2 + 3


async def test_aliases_and_strangers_are_not_asked_for(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        aliases = AliasTable({"sales": ["eve@our.dom"]})
        node, host = await behind(w, UNKNOWN, aliases=aliases, relay_domains=["backup.dom"])
        assert await asked(node, "sales@our.dom", "sales@backup.dom") == [YES, YES]
        assert await asked(node, "v@ext.example", "v%x@our.dom") == ["550 5.7.1", "550 5.7.1"]
        assert questions(host) == []


@pytest.mark.parametrize(
    "says",
    [
        {"greeting": "554 5.3.2 no service"},
        {"greeting": ""},
        {"MAIL": "550 5.7.1 not from nobody"},
        {"MAIL": ""},
        {"RCPT": ""},
        {"RCPT": "421 4.3.2 going down"},
    ],
)
async def test_who_cannot_be_asked_for_is_put_off_and_who_is_known_is_not(
    tmp_path: Path, says: dict[str, str]
) -> None:
    async with world(tmp_path) as w:
        node, host = await behind(w, {})
        assert await asked(node, "ann@our.dom") == [YES]
        w.move(DAY)  # what is known is old now
        host.says |= says
        assert await asked(node, "ann@our.dom", "bob@our.dom") == [YES, LATER]
        host.says.clear()
        w.move(600)
        assert await asked(node, "bob@our.dom") == [YES]


async def test_who_is_to_come_again_later_is_told_so(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node, _ = await behind(w, {"RCPT": "450 4.2.1 greylisted"})
        assert await asked(node, "ann@our.dom") == ["450 4.2.1"]


async def test_a_strange_refusal_is_said_in_plain_words(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        says = {"RCPT": "553-4.7.1 n\xf6, \x1b[31m\r\n553 " + 400 * "n"}
        node, _ = await behind(w, says)
        async with node.dial() as wire:
            await wire.hello()
            await wire.say("MAIL FROM:<>")
            reply = await wire.say("RCPT TO:<ann@our.dom>")
        assert reply.startswith("550 5.1.1 ")
        assert reply.isascii()
        assert reply.strip().isprintable()
        assert len(reply) < 250


async def test_what_is_down_is_not_asked_again_and_again(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node, _ = await behind(w, {})
        del w.sockets[SOCKET]
        names = [f"v{number}@our.dom" for number in range(5)]
        assert await asked(node, *names) == [LATER] * 5
        assert w.connected == [SOCKET]


async def test_a_silent_exchanger_is_asked_once(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        silent = await w.fixed(("first.example", 25), {"greeting": ""})
        host = await w.fixed(("second.example", 25), UNKNOWN)
        verifier = callout(w, w.connect)
        access = Access("none")
        route = NextHop.fixed(
            MailHost("first.example", access=access), MailHost("second.example", access=access)
        )
        for name in ("ann", "bob", "eve"):
            await verifier.verify(Mailbox.parse(f"{name}@our.dom"), route)
        assert (silent.sessions, len(questions(host))) == (1, 6)
        # Where the other one fails, it is asked all the same, and first from then on.
        silent.says, host.says = host.says, {"greeting": "421 4.3.2 busy"}
        for name in ("x", "y"):
            refusal = await verifier.verify(Mailbox.parse(f"{name}@our.dom"), route)
            assert str(refusal).startswith(NO)
        assert (silent.sessions, host.sessions) == (3, 4)


async def test_a_better_exchanger_of_a_relay_domain_is_asked(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.dead("down.example", "backup.dom", 5)
        host = await w.host("inner.example", "backup.dom", UNKNOWN)
        node = await w.node(
            "relay.example",
            networks=(),
            relay_domains=["backup.dom", "sick.dom", "loop.dom"],
            routes=RouteTable([Rule(ByMx(), recipients=["backup.dom"])]),
            verify="callout",
        )
        w.failing.add("sick.dom")
        w.dead("relay.example", "loop.dom")
        recipients = ["ann@backup.dom", "eve@backup.dom", "ann@sick.dom", "ann@loop.dom"]
        assert await asked(node, *recipients) == [YES, NO, "451 4.4.3", "554 5.4.6"]
        assert len(questions(host)) == 4


# By itself


def callout(w: World, ask: Callable[[str, int], object], **settings: int) -> Callout:
    clients = Clients("relay.example", connector=ask)  # type: ignore[arg-type]  # it hangs
    hops = Hops(clock=w.clock, random=w.random.random)
    return Callout(clients, hops, w.clock, **settings)


ROUTE = NextHop.fixed(MailHost("store.example", access=Access("none")))


async def test_a_store_that_hangs_is_asked_for_a_while_and_by_few(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        now, most = 0, 0

        async def hang(host: str, port: int) -> None:
            nonlocal now, most
            now += 1
            most = max(most, now)
            try:
                await anyio.sleep_forever()
            finally:
                now -= 1

        verifier = callout(w, hang, at_once=3)
        verifier.patience = 0.05
        replies: list[Reply | None] = []

        async def ask(number: int) -> None:
            replies.append(await verifier.verify(Mailbox.parse(f"v{number}@our.dom"), ROUTE))

        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(ask, number)
        assert [str(reply)[:9] for reply in replies] == [LATER] * 10
        assert (most, now) == (3, 0)


async def test_no_more_is_remembered_than_there_is_room_for(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await w.fixed(("store.example", 25), UNKNOWN)
        verifier = callout(w, w.connect, capacity=2)
        for name in ("ann", "x", "y", "z", "ann"):
            await verifier.verify(Mailbox.parse(f"{name}@our.dom"), ROUTE)
        assert len(questions(host)) == 8  # a flood of strangers does not push out who exists
        await verifier.verify(Mailbox.parse("x@our.dom"), ROUTE)
        assert len(questions(host)) == 10


async def test_a_mailbox_beyond_ascii_is_taken_unasked(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        verifier = callout(w, w.connect)
        assert await verifier.verify(Mailbox.parse("jürgen@our.dom"), ROUTE) is None
        assert w.connected == []
