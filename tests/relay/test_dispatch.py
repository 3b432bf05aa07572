"""The loop over the spool: bounded, fair, and never at a loss for what it has borrowed."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from attrs import evolve

from smtpproto.core.command import Mail, Rcpt
from smtpproto.core.reply import Reply
from smtpproto.extensions.dsn import NOTIFY, Notify
from smtpproto.relay import Maildir, Schedule, SQLiteSpool
from smtpproto.relay.delivery.attempt import Attempt
from smtpproto.relay.delivery.deliver import Deliverer
from smtpproto.relay.delivery.dispatch import Dispatcher
from smtpproto.relay.reports.story import Deferred, Delivered, Failed, Reported, harmless, ignore
from smtpproto.relay.spool.seam import Entry, SpoolUnavailable
from smtpproto.result import Fate
from tests.relay.world import DAY, MESSAGE, START, World, world

pytestmark = pytest.mark.anyio

SENDER = "ann@our.dom"


class Scripted:
    """In a Deliverer's place: does with an entry what the test says."""

    def __init__(self, do: Callable[[Entry, Any], Awaitable[None]]) -> None:
        self.attempt = do


def as_deliverer(do: Callable[[Entry, Any], Awaitable[None]]) -> Deliverer:
    return Scripted(do)  # type: ignore[return-value]  # it has what the dispatcher uses


async def accepted(entry: Entry, done: Any) -> None:
    await done([Attempt(r, Fate.ACCEPTED, "there") for r in entry.recipients])


def id_of(event: object) -> str:
    assert isinstance(event, (Delivered, Deferred, Failed))
    return event.id


# --- side by side ----------------------------------------------------------------------------


async def test_no_more_messages_are_attempted_at_once_than_there_are_workers(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as w:
        node = await w.node("relay.example")
        dispatcher = node.relay.dispatcher
        at_once, most = 0, 0
        full, released = anyio.Event(), anyio.Event()

        async def attempt(entry: Entry, done: Any) -> None:
            nonlocal at_once, most
            at_once += 1
            most = max(most, at_once)
            if at_once == 3:
                full.set()
            await released.wait()
            at_once -= 1
            await accepted(entry, done)

        dispatcher.workers = 3
        dispatcher.deliverer = as_deliverer(attempt)
        for number in range(20):  # each wakes the dispatcher
            await w.put(node, SENDER, f"v{number}@ext.example", content=MESSAGE)
        await full.wait()
        released.set()
        await node.until(Delivered, 20)
        assert most == 3
        assert await node.queue() == []


@pytest.mark.rfc(
    "5321 §4.5.4.1 transactions-may-run-side-by-side", "5321 §4.5.4.1 sessions-are-limited"
)
async def test_a_slow_destination_holds_up_nobody_else(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        slow = await w.host("mx.slow.example", "slow.example", {"MAIL": "hang"})
        quick = await w.host("mx.quick.example", "quick.example")
        node = await w.node("relay.example")
        for number in range(120):
            await w.put(node, SENDER, f"v{number}@slow.example", content=MESSAGE)
        await slow.reached.wait()
        await w.put(node, SENDER, "v@quick.example", "v@our.dom", content=MESSAGE)
        await node.until(Delivered, 2)
        assert len(quick.accepted) == len(node.mail("v@our.dom")) == 1
        assert slow.accepted == []
        assert slow.sessions <= 20
        slow.released.set()
        await node.until(Delivered, 122)
        assert len(slow.accepted) == 120


# --- the end ---------------------------------------------------------------------------------


async def leases(spool: SQLiteSpool) -> list[float]:
    """When what is in the spool is due, leases counted."""
    due = await spool.next_due()
    return [] if due is None else [due]


async def test_stop_lets_attempts_under_way_finish_and_takes_no_more(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example", {".": "hang"})
        node = await w.node("relay.example")
        await node.send(SENDER, ["v@ext.example"])
        await host.reached.wait()
        node.relay.stop()
        await w.put(node, SENDER, "late@our.dom", content=MESSAGE)
        for _ in range(50):
            await anyio.lowlevel.checkpoint()
        assert not node.ended.is_set()
        host.released.set()
        await node.ended.wait()
        assert len(host.accepted) == 1
        assert len(node.told(Delivered)) == 1
        # The late one is for the next start, and only that one.
        again = await w.node("relay.example")
        (delivered,) = await again.until(Delivered)
        assert str(delivered.forward_path) == "<late@our.dom>"


async def test_what_does_not_end_in_time_is_given_back(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example", {"MAIL": "hang"})
        node = await w.node("relay.example")
        ended = anyio.Event()

        async def run() -> None:
            await dispatcher.run()
            ended.set()

        async with SQLiteSpool.open(tmp_path / "spool", clock=w.clock, steady=lambda: 0.0) as spool:
            dispatcher = Dispatcher(
                hostname="relay.example",
                deliverer=evolve(node.relay.dispatcher.deliverer, spool=spool),
                spool=spool,
                clock=w.clock,
                random=w.random.random,
                observe=ignore,
                drain=0,
            )
            await keep(spool, w, "v@ext.example")
            w.tasks.start_soon(run)
            await host.reached.wait()
            assert await leases(spool) == [START + dispatcher.lease]
            dispatcher.stop()
            await ended.wait()
            assert await leases(spool) == [START]  # due at once, for whoever comes next
            (entry,) = [entry async for entry in spool.entries()]
            assert entry.recipients[0].attempts == 0


async def keep(spool: SQLiteSpool, w: World, recipient: str) -> None:
    async with spool.receive() as incoming:
        await incoming.write(MESSAGE)
        await incoming.commit(Mail(SENDER), [Rcpt(recipient)], now=w.now)


async def test_cancelled_it_gives_back_what_it_borrowed(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        hanging, never = anyio.Event(), anyio.Event()

        async def attempt(entry: Entry, done: Any) -> None:
            hanging.set()
            await never.wait()

        async with SQLiteSpool.open(tmp_path / "spool", clock=w.clock, steady=lambda: 0.0) as spool:
            dispatcher = Dispatcher(
                hostname="relay.example",
                deliverer=as_deliverer(attempt),
                spool=spool,
                clock=w.clock,
                random=w.random.random,
                observe=ignore,
            )
            await keep(spool, w, "v@ext.example")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(dispatcher.run)
                await hanging.wait()
                assert await leases(spool) == [START + dispatcher.lease]
                tasks.cancel_scope.cancel()
            assert await leases(spool) == [START]


async def test_cancelled_it_still_writes_down_who_has_it_and_is_owed_a_report(
    tmp_path: Path,
) -> None:
    # Else the next run would send it again. The report gives back the message, which is read.
    async with world(tmp_path) as w:

        async def attempt(entry: Entry, done: Any) -> None:
            spool.arrivals.drop(entry.id)
            tasks.cancel_scope.cancel()
            (v,) = entry.recipients
            await done([Attempt(v, Fate.ACCEPTED, "there", action="relayed")])

        async with SQLiteSpool.open(tmp_path / "spool", clock=w.clock, steady=lambda: 0.0) as spool:
            dispatcher = Dispatcher(
                hostname="relay.example",
                deliverer=as_deliverer(attempt),
                spool=spool,
                clock=w.clock,
                random=w.random.random,
                observe=ignore,
            )
            async with spool.receive() as incoming:
                await incoming.write(MESSAGE)
                rcpt = Rcpt("v@ext.example", NOTIFY({Notify.SUCCESS}))
                await incoming.commit(Mail(SENDER), [rcpt], now=w.now)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(dispatcher.run)
            (report,) = [entry async for entry in spool.entries()]
            assert report.mail.reverse_path.mailbox is None
            content = b"".join([chunk async for chunk in spool.content(report.id)])
            assert b"Subject: greetings" in content


async def test_an_attempt_without_end_is_cut_off_before_its_lease_ends(tmp_path: Path) -> None:
    # Else the same message would be lent again, and sent twice at once.
    async with world(tmp_path) as w:
        await w.host("mx.ext.example", "ext.example", {"MAIL": "hang"})
        node = await w.node("relay.example")
        dispatcher, deliverer = node.relay.dispatcher, node.relay.dispatcher.deliverer
        assert dispatcher.patience < dispatcher.lease

        async def attempt(entry: Entry, done: Any) -> None:
            there, here = entry.recipients
            with anyio.CancelScope(shield=True):  # that is done by then, however long it takes
                await done([Attempt(here, Fate.ACCEPTED, "here")])
            await deliverer.attempt(evolve(entry, recipients=(there,)), done)

        dispatcher.deliverer = as_deliverer(attempt)
        dispatcher.patience = 0.05
        await node.send(SENDER, ["v@ext.example", "v@our.dom"])
        (deferred,) = await node.until(Deferred)
        assert str(deferred.forward_path) == "<v@ext.example>"
        assert deferred.wait == 600
        (entry,) = await node.queue()
        (recipient,) = entry.recipients
        assert (recipient.attempts, recipient.next_attempt) == (1, w.now + 600)


async def test_what_cannot_be_written_down_is_not_sent_again_when_its_lease_ends(
    tmp_path: Path,
) -> None:
    # A disk may be full for longer than a lease lasts, and to claim takes no room on it.
    async with world(tmp_path) as w:
        node = await w.node("relay.example")
        dispatcher, tried = node.relay.dispatcher, list[str]()

        async def attempt(entry: Entry, done: Any) -> None:
            tried.extend(str(recipient.rcpt.forward_path) for recipient in entry.recipients)
            await accepted(entry, done)

        dispatcher.deliverer = as_deliverer(attempt)
        dispatcher.lease = dispatcher.poll = 0.05
        node.faults["settle"] = [SpoolUnavailable("full", full=True)] * 3
        await w.put(node, SENDER, "v@our.dom", content=MESSAGE)
        await node.until(Delivered)
        assert node.faults["settle"] == []
        assert tried == ["<v@our.dom>"]


# --- what others do to the spool -------------------------------------------------------------


async def test_another_process_can_have_it_retried_at_once(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example", {"RCPT": "450 4.2.1 later"})
        node = await w.node("relay.example")
        await node.send(SENDER, ["v@ext.example"])
        await node.until(Deferred)
        host.says.clear()
        async with SQLiteSpool.open(node.directory / "spool", serving=False) as visitor:
            assert await visitor.retry(None, w.now) == 1
            await node.until(Delivered)
        assert len(host.accepted) == 1


async def test_a_message_deleted_while_it_is_tried_stays_deleted(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example", {"RCPT": "hang"})
        node = await w.node("relay.example")
        await node.send(SENDER, ["v@ext.example"])
        await host.reached.wait()
        (entry,) = await node.queue()
        async with SQLiteSpool.open(node.directory / "spool", serving=False) as visitor:
            assert await visitor.delete(entry.id)
        host.says["DATA"] = "550 5.7.1 no"
        host.released.set()
        await node.until(Failed)
        assert await node.queue() == []
        assert node.mail(SENDER) == []  # no report on what the operator took away


# --- faults ----------------------------------------------------------------------------------


async def test_an_exception_in_an_attempt_defers_that_message_alone(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await w.node("relay.example")
        node.trouble["broken@our.dom"] = ZeroDivisionError("a fault of ours")
        await node.send(SENDER, ["broken@our.dom"])
        await node.send(SENDER, ["v@our.dom"])
        (deferred,) = await node.until(Deferred)
        assert deferred.wait == 600  # not at once and for ever
        assert "fault" not in deferred.reply
        await node.until(Delivered)
        node.trouble.clear()
        w.move(600)
        await node.until(Delivered, 2)
        assert len(node.mail("broken@our.dom")) == 1


async def test_a_message_that_always_breaks_is_reported_in_the_end(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        schedule = Schedule(first=5 * DAY, longest=5 * DAY)
        node = await w.node("relay.example", schedule=schedule)
        node.trouble["broken@our.dom"] = ZeroDivisionError("a fault of ours")
        await node.send(SENDER, ["broken@our.dom"])
        await node.until(Deferred)
        w.move(5 * DAY)
        await node.until(Reported)
        await node.until(Delivered)
        assert len(node.mail(SENDER)) == 1


async def test_a_fault_on_one_way_tears_no_transaction_on_another(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example", {".": "hang"})
        node = await w.node("relay.example")
        mailboxes = node.relay.mailboxes
        assert isinstance(mailboxes, Maildir)
        deliver_once = mailboxes.deliver_once

        async def broken(*_: Any, **__: Any) -> None:
            await host.reached.wait()
            host.released.set()
            raise ZeroDivisionError("in the midst of the other's final dot")

        mailboxes.deliver_once = broken  # type: ignore[method-assign]  # the test's
        await node.send(SENDER, ["v@ext.example", "v@our.dom"])
        (delivered,) = await node.until(Delivered)
        assert str(delivered.forward_path) == "<v@ext.example>"
        (deferred,) = await node.until(Deferred)
        assert str(deferred.forward_path) == "<v@our.dom>"
        assert len(host.accepted) == 1
        mailboxes.deliver_once = deliver_once  # type: ignore[method-assign]  # as it was


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # trio knows none that are not its own
async def test_a_cancellation_astray_is_a_fault_like_any_other(tmp_path: Path) -> None:
    # It is what whoever awaits a task or future gets that others have cancelled.
    async with world(tmp_path) as w:
        await w.host("mx.ext.example", "ext.example")
        node = await w.node("relay.example")
        node.trouble["broken@our.dom"] = asyncio.CancelledError()
        await node.send(SENDER, ["broken@our.dom"])
        (deferred,) = await node.until(Deferred)
        assert str(deferred.forward_path) == "<broken@our.dom>"
        await node.send(SENDER, ["broken@our.dom", "v@ext.example"])
        (delivered,) = await node.until(Delivered)
        assert str(delivered.forward_path) == "<v@ext.example>"
        await node.until(Deferred, 2)


async def test_a_fault_after_a_good_end_is_not_counted_against_it(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await w.node("relay.example")

        async def attempt(entry: Entry, done: Any) -> None:
            await accepted(entry, done)
            raise ZeroDivisionError("too late to matter")

        node.relay.dispatcher.deliverer = as_deliverer(attempt)
        await w.put(node, SENDER, "v@ext.example", content=MESSAGE)
        await node.until(Delivered)
        await w.put(node, SENDER, "w@ext.example", content=MESSAGE)
        await node.until(Delivered, 2)
        assert node.told(Deferred) == []
        assert await node.queue() == []


async def test_a_spool_that_cannot_be_claimed_from_is_asked_again_later(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await w.node("relay.example")
        await w.put(node, SENDER, "first@our.dom", content=MESSAGE)
        await node.until(Delivered)
        node.faults["claim"] = [SpoolUnavailable("full", full=True)] * 3
        await w.put(node, SENDER, "v@our.dom", content=MESSAGE)
        await node.until(Delivered, 2)
        assert node.faults["claim"] == []


async def test_one_roll_of_the_dice_for_all_that_fail_together(tmp_path: Path) -> None:
    # So that they go in one transaction the next time, too.
    async with world(tmp_path) as w:
        host = await w.host("mx.ext.example", "ext.example", {"RCPT": "450 4.2.1 later"})
        schedule = Schedule(first=600, longest=600, factor=1, spread=0.5)
        node = await w.node("relay.example", schedule=schedule)
        await node.send(SENDER, [f"v{number}@ext.example" for number in range(5)])
        waits = {event.wait for event in await node.until(Deferred, 5)}
        assert len(waits) == 1
        assert 600 < waits.pop() <= 900
        host.says.clear()
        w.move(900)
        await node.until(Delivered, 5)
        assert [len(recipients) for recipients in host.accepted] == [5]


@pytest.mark.rfc("5321 §3.8 relay-tries-again-after-a-loss")
async def test_an_unknown_fate_is_tried_again(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await w.node("relay.example")

        async def attempt(entry: Entry, done: Any) -> None:
            await done([Attempt(r, Fate.UNKNOWN, "there", None, "cut") for r in entry.recipients])

        node.relay.dispatcher.deliverer = as_deliverer(attempt)
        await w.put(node, SENDER, "v@ext.example", content=MESSAGE)
        (deferred,) = await node.until(Deferred)
        assert deferred.reply == "cut"


def test_an_attempt_is_told_on_one_line() -> None:
    recipient: Any = None
    lines: Sequence[str] = ("first", "second")
    attempt = Attempt(recipient, Fate.PERMANENT, "there", Reply(550, "5.1.1", lines))
    assert attempt.text == "550 5.1.1 first second"


def test_what_an_observer_raises_stays_there() -> None:
    told: list[int] = []

    def observe(number: int) -> None:
        told.append(number)
        raise BrokenPipeError

    harmless(observe)(3)
    assert told == [3]


async def test_what_cannot_be_written_down_for_longer_than_a_lease_is_not_sent_again(
    tmp_path: Path,
) -> None:
    # A claim writes nothing, so a disk that is full stops settling and does not stop claiming.
    async with world(tmp_path) as w:
        host = await w.host("mx.there.example", "there.example")
        node = await w.node("relay.example")
        node.relay.dispatcher.lease = 0.2
        node.faults["settle"] = [SpoolUnavailable("full", full=True)] * 4  # 1.5 s
        await node.send(SENDER, ["bob@there.example"])
        await node.until(Delivered)
        assert host.accepted == [["RCPT TO:<bob@there.example>"]]
        assert await node.queue() == []


async def test_who_has_been_settled_is_tried_when_due_while_the_others_are_still_at_it(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as w:
        slow = await w.host("mx.slow.example", "slow.example", {"RCPT": "hang"})
        quick = await w.host("mx.quick.example", "quick.example", {"RCPT": "450 4.2.0 later"})
        node = await w.node("relay.example")
        await node.send(SENDER, ["ann@slow.example", "bob@quick.example"])
        await node.until(Deferred)
        await slow.reached.wait()
        del quick.says["RCPT"]
        w.move(700)
        await node.until(Delivered)
        assert (len(quick.accepted), len(slow.accepted)) == (1, 0)
        slow.released.set()
        await node.until(Delivered, 2)


async def test_who_is_being_tried_again_is_not_given_back_by_the_attempt_before(
    tmp_path: Path,
) -> None:
    # Else it would be lent a second time, and sent twice at once.
    async with world(tmp_path) as w:
        node = await w.node("relay.example")
        tried: list[list[int]] = []
        again, go, third, never = (anyio.Event() for _ in range(4))

        async def attempt(entry: Entry, done: Any) -> None:
            tried.append([each.number for each in entry.recipients])
            if len(tried) == 1:
                ann, bob = entry.recipients
                await done([Attempt(ann, Fate.TRANSIENT, "there", None, "later")])
                w.move(700)
                await go.wait()
                node.faults["settle"] = [ZeroDivisionError("a fault of ours")] * 2
                await done([Attempt(bob, Fate.ACCEPTED, "there")])
            elif len(tried) == 2:
                again.set()
                await never.wait()
            else:
                await accepted(entry, done)
                third.set()

        dispatcher = node.relay.dispatcher
        dispatcher.poll = 0.05
        dispatcher.deliverer = as_deliverer(attempt)
        await w.put(node, SENDER, "ann@ext.example", "bob@ext.example", content=MESSAGE)
        await again.wait()
        go.set()
        await third.wait()
        assert tried == [[0, 1], [0], [1]]
