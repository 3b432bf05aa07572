"""The memory of next hops: what is down is held as one, what is crowded fills nobody's hands."""

from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from anyio.abc import ByteStream

from smtpproto.client import ClientDeadlines
from smtpproto.core.reply import Reply
from smtpproto.relay import HostPort, Schedule
from smtpproto.relay.delivery.hops import Hops
from smtpproto.relay.reports.story import Deferred, Delivered, Failed, Reported
from tests.relay.world import DAY, MESSAGE, START, Node, World, world

pytestmark = pytest.mark.anyio

BUSY = Reply(421, "4.3.2", "busy")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def memory(clock: Callable[[], float], **settings: float) -> Hops:
    return Hops(clock=clock, random=lambda: 0.5, **settings)  # type: ignore[arg-type]


# Down


def test_what_is_down_is_held_for_longer_each_time() -> None:
    clock = Clock()
    hops = memory(clock, hold=Schedule(first=60, longest=200, spread=0))  # type: ignore[arg-type]
    waits: list[float] = []
    for _ in range(4):
        assert hops.held("a") is None
        hops.down("a", "mx.a:25", BUSY, "", began=clock.now)
        hold = hops.held("a")
        assert hold is not None
        assert (hold.since, hold.where, hold.reply) == (clock.now, "mx.a:25", BUSY)
        waits.append(hold.until - clock.now)
        clock.now = hold.until
    assert waits == [60, 120, 200, 200]
    hops.up("a", "mx.a")
    hops.down("a", "mx.a:25", None, "refused", began=clock.now)
    assert hops.held("b") is None
    clock.now += 60
    assert hops.held("a") is None


def test_those_who_failed_side_by_side_make_one_failure() -> None:
    clock = Clock()
    hops = memory(clock)
    for _ in range(10):
        hops.down("a", "mx.a:25", BUSY, "", began=1000)
        clock.now += 1
    hold = hops.held("a")
    assert hold is not None
    assert 60 <= hold.until - hold.since <= 66


def test_who_is_asked_for_is_tried_but_a_thousand_are_one_attempt() -> None:
    clock = Clock()
    hops = memory(clock)
    hops.down("a", "mx.a:25", BUSY, "", began=clock.now)
    asked = clock.now + 1
    clock.now += 2
    assert hops.held("a") is not None
    assert hops.held("a", asked=asked) is None
    hops.down("a", "mx.a:25", BUSY, "", began=clock.now)
    assert hops.held("a", asked=asked) is not None
    assert hops.held("a", asked=clock.now + 1) is None


def test_no_more_is_remembered_than_there_is_room_for() -> None:
    hops = memory(Clock(), capacity=3)
    for name in "abcd":
        hops.down(name, name, BUSY, "", began=1000)
    assert [name for name in "abcd" if hops.held(name)] == ["b", "c", "d"]
    for name in "abcd":
        hops.silent(name)
    assert hops.in_order("dcba") == ["a", "d", "c", "b"]


# Silent


def test_a_silent_host_is_the_last_and_none_is_left_out() -> None:
    clock = Clock()
    hops = memory(clock)
    assert hops.in_order("abc") == "abc"
    hops.silent("a")
    assert hops.in_order("abc") == ["b", "c", "a"]
    hops.silent("c")
    assert hops.in_order("abc") == ["b", "a", "c"]
    hops.silent("b")
    assert hops.in_order("abc") == ["a", "b", "c"]
    hops.up("hop", "b")
    assert hops.in_order("abc") == ["b", "a", "c"]


def test_when_its_time_is_over_one_tries_it_in_its_place_and_the_others_do_not() -> None:
    clock = Clock()
    hops = memory(clock)
    hops.silent("a")
    clock.now += 299
    assert hops.in_order("ab") == ["b", "a"]
    clock.now += 1
    assert hops.in_order("ba") == ["b", "a"]  # nobody tries it there
    assert hops.in_order("ab") == ["a", "b"]
    assert hops.in_order("ab") == ["b", "a"]
    clock.now += 300
    assert hops.in_order("ab") == ["a", "b"]
    hops.up("hop", "a")
    assert hops.in_order("ab") == "ab"


def test_a_clock_that_was_set_back_makes_no_host_the_last_for_longer() -> None:
    clock = Clock()
    hops = memory(clock)
    hops.silent("a")
    clock.now -= 1000
    assert hops.in_order("ab") == ["a", "b"]


# Crowded


async def test_who_finds_no_place_in_time_is_to_come_again() -> None:
    clock = Clock()
    hops = memory(clock, front=1, patience=0.01)
    delays: list[float] = []
    async with hops.turn("a", "s") as first:
        assert first is None
        for _ in range(9):
            async with hops.turn("a", "s") as again:
                assert again is not None
                delays.append(again - clock.now)
                clock.now = again + 1000 if len(delays) == 8 else clock.now + 2 * delays[-1]
        async with hops.turn("b", "s") as elsewhere:
            assert elsewhere is None
    # Half of 5, 10, 20 … 300 seconds, as the dice have it; and 5 again when all was quiet.
    assert delays == [2.5, 5, 10, 20, 40, 80, 150, 150, 2.5]
    async with hops.turn("a", "s") as last:
        assert last is None
    assert hops._lines == {}


async def test_one_alone_stands_before_who_has_not_talked_with_us() -> None:
    hops = memory(Clock(), front=3, patience=60)
    inside: list[int] = []
    leave = anyio.Event()

    async def stand(number: int) -> None:
        async with hops.turn("a", "s") as again:
            assert again is None
            inside.append(number)
            await leave.wait()

    async def crowd() -> int:
        inside.clear()
        for number in range(5):
            tasks.start_soon(stand, number)
        await anyio.wait_all_tasks_blocked()
        return len(inside)

    async def all_gone() -> None:
        nonlocal leave
        leave.set()
        await anyio.wait_all_tasks_blocked()
        leave = anyio.Event()
        assert hops._lines == {}

    async with anyio.create_task_group() as tasks:
        assert await crowd() == 1
        hops.up("a", "mx.a")  # while the first is there still
        await anyio.wait_all_tasks_blocked()
        assert len(inside) == 3
        await all_gone()
        assert await crowd() == 3  # it has talked with us
        await all_gone()
        hops.down("a", "mx.a:25", BUSY, "", began=1000)
        assert await crowd() == 1
        await all_gone()


async def test_senders_take_turns() -> None:
    hops = memory(Clock(), front=1, patience=60)
    order: list[str] = []

    async def stand(sender: str) -> None:
        async with hops.turn("a", sender) as again:
            assert again is None
            order.append(sender)

    async with anyio.create_task_group() as tasks, hops.turn("a", "first"):
        for sender in ["flood"] * 5 + ["ann", "bob", "bob"]:
            tasks.start_soon(stand, sender)
            await anyio.wait_all_tasks_blocked()
    assert order == ["flood", "ann", "bob", "flood", "bob", "flood", "flood", "flood"]


async def test_who_is_cancelled_in_the_line_leaves_it_whole() -> None:
    hops = memory(Clock(), front=1, patience=60)

    async def stand() -> None:
        async with hops.turn("a", "s"):
            pass

    async with anyio.create_task_group() as tasks:
        async with hops.turn("a", "s"):
            async with anyio.create_task_group() as waiting:
                waiting.start_soon(stand)
                await anyio.wait_all_tasks_blocked()
                waiting.cancel_scope.cancel()
            tasks.start_soon(stand)
            await anyio.wait_all_tasks_blocked()
            # It has its turn, and is cancelled before it knows.
        tasks.cancel_scope.cancel()
    assert hops._lines == {}
    async with hops.turn("a", "s") as again:
        assert again is None


# In a relay


async def put_many(w: World, node: object, count: int, domain: str) -> None:
    for number in range(count):
        await w.put(node, "ann@our.dom", f"v{number}@{domain}", content=MESSAGE)  # type: ignore[arg-type]


@pytest.mark.rfc("5321 §4.5.4.1 unreachable-hosts-are-remembered")
async def test_a_dead_host_is_asked_once_and_its_mail_is_held_as_one(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        address = w.dead("mx.dead.example", "dead.example")
        node = await w.node("relay.example")
        await put_many(w, node, 1, "dead.example")
        (tried,) = await node.until(Deferred)
        await put_many(w, node, 200, "dead.example")
        deferred = await node.until(Deferred, 201)
        assert w.connected == [address]
        assert {event.reply for event in deferred} == {tried.reply}
        held = [r for entry in await node.queue() for r in entry.recipients if not r.attempts]
        assert len(held) == 200
        assert all(w.now + 120 <= r.next_attempt <= w.now + 132 for r in held)
        assert {r.last_reply for r in held} == {tried.reply}
        # When it is up again, all of it goes.
        host = await w.host("mx.dead.example", "dead.example")
        w.mx_of["dead.example"] = w.mx_of["dead.example"][:1]
        w.move(132)
        await node.until(Delivered, 200)
        w.move(600)
        await node.until(Delivered, 201)
        assert len(host.contents) == 201
        assert host.sessions <= 20


async def test_a_smart_host_that_is_down_holds_the_mail_for_all_domains(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await w.node("relay.example", smart_host=HostPort("smart.example", 587))
        for number in range(5):
            await put_many(w, node, 1, f"domain{number}.example")
            await node.until(Deferred, number + 1)
        assert w.connected == ["smart.example"]


async def test_a_host_that_came_back_is_held_for_a_short_time_again(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.there.example", "there.example", {"greeting": "421 4.3.2 busy"})
        node = await w.node("relay.example", idle=0.01)
        waits: list[float] = []
        for busy in (True, True, False, True):
            host.says = {"greeting": "421 4.3.2 busy"} if busy else {}
            told = len(node.told(Deferred)) + len(node.told(Delivered))
            await put_many(w, node, 1, "there.example")
            while len(node.told(Deferred)) + len(node.told(Delivered)) == told:  # noqa: ASYNC110 - of two kinds
                await anyio.sleep(0.01)
            hold = node.relay.hops.held("there.example")
            waits.append(0 if hold is None else int((hold.until - w.now) / 120))
            await until_no_session(node)  # so that the next one is greeted again
            w.move(waits[-1] * 132 + 1)
        assert waits == [1, 2, 0, 1]


async def test_the_operator_s_word_ends_a_hold(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.dead("mx.dead.example", "dead.example")
        node = await w.node("relay.example")
        await put_many(w, node, 1, "dead.example")
        await node.until(Deferred)
        w.move(1)
        await put_many(w, node, 1, "dead.example")
        await node.until(Deferred, 2)
        assert len(w.connected) == 1
        w.move(1)
        await node.spool.retry(None, w.now)
        node.relay.dispatcher.wake()
        await node.until(Deferred, 4)
        assert len(w.connected) == 2


async def test_what_is_held_to_the_end_of_its_life_is_reported(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.dead("mx.dead.example", "dead.example")
        node = await w.node("relay.example", schedule=Schedule(first=DAY, longest=DAY, lifetime=50))
        await put_many(w, node, 1, "dead.example")
        await node.until(Reported)  # no second attempt fits into its life
        await put_many(w, node, 1, "dead.example")
        (held,) = await node.until(Deferred)
        assert held.wait == 50
        w.move(50)
        await node.until(Reported, 2)
        assert len(w.connected) == 1


async def test_a_domain_that_dns_does_not_tell_of_is_asked_for_once(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.failing.add("lame.example")
        node = await w.node("relay.example")
        asked: list[str] = []
        mx = w.mx

        async def count(domain: str) -> object:
            asked.append(domain)
            return await mx(domain)

        w.mx = count  # type: ignore[method-assign, assignment]  # it passes all on
        await put_many(w, node, 1, "lame.example")
        await node.until(Deferred)
        await put_many(w, node, 20, "lame.example")
        await node.until(Deferred, 21)
        assert asked == ["lame.example"]


@pytest.mark.rfc(
    "5321 §4.5.4.1 unreachable-hosts-are-remembered", "5321 §5.1 each-address-can-be-tried"
)
async def test_a_first_host_that_is_silent_costs_one_message_its_deadline(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        silent = await w.host("mx1.there.example", "there.example", {"greeting": "hang"})
        second = await w.host("mx2.there.example", "there.example", preference=20)
        deadlines = ClientDeadlines(greeting=0.05)
        node = await w.node("relay.example", client_deadlines=deadlines)
        for count in range(1, 6):
            await put_many(w, node, 1, "there.example")
            await node.until(Delivered, count)
        assert (silent.sessions, len(second.accepted)) == (1, 5)
        # When its time is over, one looks for it again.
        w.move(300)
        for count in range(6, 9):
            await put_many(w, node, 1, "there.example")
            await node.until(Delivered, count)
        assert (silent.sessions, len(second.accepted)) == (2, 8)
        # It is back: all mail goes there again, as it is preferred.
        silent.says.clear()
        w.move(300)
        for count in range(9, 12):
            await put_many(w, node, 1, "there.example")
            await node.until(Delivered, count)
        assert (len(silent.accepted), len(second.accepted)) == (3, 8)


@pytest.mark.rfc("5321 §5.1 each-address-can-be-tried")
async def test_a_silent_host_is_tried_where_the_others_fail(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        first = await w.host("mx1.there.example", "there.example", {"greeting": ""})
        second = await w.host("mx2.there.example", "there.example", preference=20)
        node = await w.node("relay.example", idle=0.01)
        await put_many(w, node, 1, "there.example")
        await node.until(Delivered)
        await until_no_session(node)
        first.says, second.says = second.says, first.says
        await put_many(w, node, 1, "there.example")
        await node.until(Delivered, 2)
        assert (first.sessions, second.sessions) == (2, 2)
        # It has talked with us, and is preferred again.
        await put_many(w, node, 1, "there.example")
        await node.until(Delivered, 3)
        assert second.sessions == 2
        assert (len(first.accepted), len(second.accepted)) == (2, 1)


@pytest.mark.rfc("5321 §5.1 lowest-preference-first")
async def test_who_refuses_to_talk_is_no_silent_host(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        busy = await w.host("mx1.there.example", "there.example", {"greeting": "421 4.3.2 busy"})
        await w.host("mx2.there.example", "there.example", preference=20)
        node = await w.node("relay.example")
        for count in 1, 2, 3:
            await put_many(w, node, 1, "there.example")
            await node.until(Delivered, count)
        assert busy.sessions == 3


async def test_silent_next_hops_leave_hands_for_the_others(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        silence = Silence(w, 3)
        await w.host("mx.known.example", "known.example")
        node = await w.node("relay.example")
        node.relay.dispatcher.workers = 60
        node.relay.hops.patience = 0.01
        for domain in silence.domains:
            await put_many(w, node, 40, domain)
        await silence.reached(3)
        await put_many(w, node, 30, "known.example")
        while len(node.told(Delivered)) < 30:
            w.move(5)  # some may have stood in line until the first was through
            await anyio.sleep(0.01)
        assert silence.waiting == 3


async def test_a_slow_first_message_holds_up_nobody_once_there_is_a_session(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.new.example", "new.example", {"MAIL FROM:<slow@": "hang"})
        node = await w.node("relay.example")
        await w.put(node, "slow@our.dom", "v@new.example", content=MESSAGE)
        await host.reached.wait()
        await put_many(w, node, 3, "new.example")
        await node.until(Delivered, 3)
        host.released.set()
        await node.until(Delivered, 4)


class Silence:
    """Domains whose hosts never answer, until `over` is set: then they are refused."""

    def __init__(self, w: World, count: int) -> None:
        self.domains = [f"silent{number}.example" for number in range(count)]
        self.addresses = {w.dead(f"mx.{domain}", domain) for domain in self.domains}
        self.over = anyio.Event()
        self.waiting = 0
        self._connect = w.connect
        w.connect = self.connect  # type: ignore[method-assign]  # it passes all on

    async def connect(self, host: str, port: int) -> ByteStream:
        if host in self.addresses:
            self.waiting += 1
            try:
                await self.over.wait()
            finally:
                self.waiting -= 1
        return await self._connect(host, port)

    async def reached(self, count: int) -> None:
        """Wait until so many connections are begun, and see that there are no more."""
        while self.waiting < count:  # noqa: ASYNC110 - of it nobody tells
            await anyio.sleep(0.01)
        await anyio.wait_all_tasks_blocked()
        assert self.waiting == count


async def test_next_hops_that_never_answer_leave_sessions_for_the_others(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        silence = Silence(w, 20)
        known = await w.host("mx.known.example", "known.example")
        node = await w.node("relay.example", sessions=8, idle=0.01)
        await put_many(w, node, 1, "known.example")
        await node.until(Delivered)
        await until_no_session(node)
        for domain in silence.domains:
            await put_many(w, node, 1, domain)
        await silence.reached(6)  # three quarters of them
        await put_many(w, node, 50, "known.example")
        await node.until(Delivered, 51)
        assert (silence.waiting, len(known.accepted)) == (6, 51)
        silence.over.set()
        await node.until(Deferred, 20)
        # When they are tried again, they leave room for one that nobody knows yet.
        silence.over = anyio.Event()
        w.move(600)
        await silence.reached(4)  # half of them
        new = await w.host("mx.new.example", "new.example")
        await put_many(w, node, 10, "new.example")
        await put_many(w, node, 10, "known.example")
        await node.until(Delivered, 71)
        assert (silence.waiting, len(new.accepted)) == (4, 10)


async def test_a_crowd_before_a_slow_host_leaves_hands_for_the_others(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        slow = await w.host("mx.slow.example", "slow.example", {"MAIL": "hang"})
        await w.host("mx.quick.example", "quick.example")
        node = await w.node("relay.example")
        node.relay.dispatcher.workers = 60
        node.relay.hops.patience = 0.01
        await put_many(w, node, 120, "slow.example")
        await slow.reached.wait()
        await put_many(w, node, 30, "quick.example")
        await node.until(Delivered, 30)
        assert slow.accepted == []
        assert node.told(Deferred) == []  # standing in a line is no attempt
        slow.released.set()
        while len(node.told(Delivered)) < 150:
            w.move(5)
            await anyio.sleep(0.01)
        assert all(r.attempts == 0 for entry in await node.queue() for r in entry.recipients)


async def test_who_never_gets_a_place_hears_that_it_is_late_and_then_that_it_is_over(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as w:
        slow = await w.host("mx.slow.example", "slow.example", {"MAIL": "hang"})
        node = await w.node("relay.example")
        node.relay.hops.patience = 0.01
        node.relay.hops.front = 1
        await put_many(w, node, 1, "slow.example")
        await slow.reached.wait()
        late = await w.put(node, "ann@our.dom", "v@slow.example", content=MESSAGE)
        for day, delays in (0.0, 0), (0.2, 1), (3.0, 1):
            w.move(START + day * DAY - w.now)
            await until_put_off(node, late, w.now)
            assert len(await node.until(Deferred, delays)) == delays  # told after it is written
        w.move(START + 5 * DAY - w.now)
        (failed,) = await node.until(Failed)
        assert (failed.id, failed.where) == (late, "slow.example")
        assert failed.reply == "451 4.4.5 Too much mail is waiting for this destination"
        delayed, gone = await told(node, 2)
        assert "\nAction: delayed\nStatus: 4.4.5\n" in delayed
        assert "\nAction: failed\nStatus: 5.4.7\n" in gone
        assert "Remote-MTA" not in gone  # it was asked nothing
        assert len(node.told(Deferred)) == 1
        assert len(await node.queue()) == 1


async def until_no_session(node: Node) -> None:
    """Wait until all sessions with next hops are closed."""
    while node.relay._pool._lanes.count:  # noqa: ASYNC110 - of whose end nobody tells
        await anyio.sleep(0.01)


async def until_put_off(node: Node, id: str, now: float) -> None:
    """Wait until a message stands in its line again; nobody is told of that."""
    while True:
        entry = await node.spool.get(id)
        assert entry is not None
        (recipient,) = entry.recipients
        assert recipient.attempts == 0
        if recipient.next_attempt > now:
            return
        await anyio.sleep(0.01)


async def told(node: Node, count: int) -> list[str]:
    """What the sender has got, once it is so many."""
    while len(node.mail("ann@our.dom")) < count:
        await node.until(Delivered, len(node.told(Delivered)) + 1)
    return [octets.decode() for octets in node.mail("ann@our.dom")]
