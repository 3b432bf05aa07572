"""As many recipients, transactions and domains as the next hop takes at a time (RFC 9422)."""

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpproto.core.command import Rcpt
from smtpproto.core.reply import Reply
from smtpproto.relay import HostPort
from smtpproto.relay.delivery.onward import Batches, is_crowded
from smtpproto.relay.reports.story import Deferred, Delivered, Failed
from smtpproto.relay.spool.seam import Recipient
from tests.relay.world import Host, Node, World, world

SENDER = "ann@our.dom"


def recipients(count: int) -> list[Recipient]:
    return [Recipient(n, Rcpt(f"{n}@ext.example"), 0, 0.0, None) for n in range(count)]


def names(host: Host) -> list[list[str]]:
    """The local parts that the host took in each transaction."""
    return [[line.partition("<")[2].partition("@")[0] for line in each] for each in host.accepted]


# --- the batches -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "crowded"),
    [
        (Reply(452, "4.5.3", "x"), True),
        (Reply(452, None, "x"), True),
        (Reply(552, "5.5.3", "x"), True),
        (Reply(552, None, "x"), True),
        (Reply(452, "4.3.1", "x"), False),
        (Reply(450, "4.5.3", "x"), False),
        (Reply(552, "5.3.4", "x"), False),
        (None, False),
    ],
)
def test_too_many_recipients_is_told_from_other_trouble(reply: Reply | None, crowded: bool) -> None:
    assert is_crowded(reply) == crowded


@given(st.integers(0, 60), st.lists(st.integers(0, 20), min_size=1, max_size=8))
def test_each_recipient_is_asked_for_until_he_is_taken_or_nobody_is(
    count: int, rooms: list[int]
) -> None:
    batches = Batches(recipients(count))
    taken: list[Recipient] = []
    asked = turn = 0
    while batch := batches.next():
        room = rooms[min(turn, len(rooms) - 1)]
        turn += 1
        asked += len(batch)
        taken += batch[:room]
        batches.note(batch[room:])
    assert [each.number for each in taken] == list(range(len(taken)))
    if 0 not in rooms:
        assert len(taken) == count
    if len(set(rooms)) == 1:  # a host that knows its mind is asked for few of them twice
        assert asked <= 2 * count


def test_who_takes_less_and_less_is_asked_for_less() -> None:
    batches = Batches(recipients(10))
    asked = []
    for room in (5, 2, 2, 1):
        batch = batches.next()
        asked.append(len(batch))
        batches.note(batch[room:])
    assert asked == [10, 5, 2, 1]


# --- at the next hop -------------------------------------------------------------------------


async def sent(w: World, to: list[str], **settings: Any) -> Node:
    node = await w.node("relay.example", **settings)
    await node.send(SENDER, to)
    return node


FIVE = [f"{letter}@ext.example" for letter in "abcde"]


@pytest.mark.anyio
@pytest.mark.rfc("9422")
async def test_rcptmax_is_obeyed_in_one_attempt(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        keywords = ("PIPELINING", "LIMITS RCPTMAX=2")
        host = await w.host("mx.ext.example", "ext.example", keywords=keywords)
        node = await sent(w, FIVE)
        await node.until(Delivered, 5)
        assert names(host) == [["a", "b"], ["c", "d"], ["e"]]
        assert host.sessions == 1
        assert sum(line.startswith("RCPT") for line in host.lines) == 5
        assert node.told(Deferred) == []


class Narrow(Host):
    """A host that takes two recipients in a transaction, and says so when there are more."""

    code = "452 4.5.3 too many recipients"

    def answer(self, line: str) -> str | None:
        if line.startswith("MAIL"):
            self.count = 0
        if line.startswith("RCPT") and super().answer(line) is None:
            self.count += 1
            if self.count > 2:
                return self.code
        return super().answer(line)


async def narrow(w: World, monkeypatch: pytest.MonkeyPatch, says: dict[str, str]) -> Host:
    monkeypatch.setattr("tests.relay.world.Host", Narrow)
    return await w.host("mx.ext.example", "ext.example", says)


@pytest.mark.anyio
@pytest.mark.rfc("5321 §4.5.3.1.10 rest-of-the-recipients-is-sent-later")
@pytest.mark.parametrize("code", ["452 4.5.3 too many", "452 too many", "552 too many"])
async def test_too_many_recipients_go_in_another_transaction_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    monkeypatch.setattr(Narrow, "code", code)
    async with world(tmp_path) as w:
        host = await narrow(w, monkeypatch, {"RCPT TO:<b@": "550 5.1.1 nobody"})
        node = await sent(w, FIVE)
        await node.until(Delivered, 4)
        (failed,) = await node.until(Failed)
        assert failed.reply == "550 5.1.1 nobody"
        assert names(host) == [["a", "c"], ["d", "e"]]
        assert host.sessions == 1
        assert node.told(Deferred) == []


@pytest.mark.anyio
async def test_who_takes_nobody_is_not_asked_again_at_once(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        says = {"RCPT": "452 4.5.3 too many"}
        host = await w.host("mx.ext.example", "ext.example", says)
        node = await sent(w, FIVE)
        await node.until(Deferred, 5)
        assert sum(line.startswith("MAIL") for line in host.lines) == 1


@pytest.mark.anyio
async def test_no_room_on_the_disk_is_not_too_many_recipients(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        says = {"RCPT TO:<c@": "452 4.3.1 disk full"}
        host = await w.host("mx.ext.example", "ext.example", says)
        node = await sent(w, FIVE)
        await node.until(Delivered, 4)
        await node.until(Deferred)
        assert names(host) == [["a", "b", "d", "e"]]


async def says_mail_once_settled(
    monkeypatch: pytest.MonkeyPatch, node: Node, host: Host, said: str
) -> None:
    """Let the host answer MAIL so from when the node first writes down what it took."""
    settle = node.spool.settle

    async def then(*args: Any, **kwargs: Any) -> list[str]:
        host.says["MAIL"] = said
        return await settle(*args, **kwargs)

    monkeypatch.setattr(node.spool, "settle", then)


@pytest.mark.anyio
async def test_what_was_taken_is_written_down_before_the_rest_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A crash in the second transaction must not send the first one again (RFC 1047).
    async with world(tmp_path) as w:
        host = await narrow(w, monkeypatch, {})
        node = await w.node("relay.example")
        await says_mail_once_settled(monkeypatch, node, host, "hang")
        await node.send(SENDER, FIVE[:3])
        await host.reached.wait()
        left = [r.rcpt.forward_path for entry in await node.queue() for r in entry.recipients]
        assert [str(path) for path in left] == ["<c@ext.example>"]
        host.released.set()
        await node.until(Delivered, 3)


@pytest.mark.anyio
async def test_a_second_transaction_that_fails_leaves_the_first_one_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path) as w:
        host = await narrow(w, monkeypatch, {})
        node = await w.node("relay.example")
        await says_mail_once_settled(monkeypatch, node, host, "")
        await node.send(SENDER, FIVE)
        await node.until(Delivered, 2)
        await node.until(Deferred, 3)
        assert names(host) == [["a", "b"]]
        monkeypatch.undo()
        host.says.clear()
        w.move(600)
        await node.until(Delivered, 5)
        assert names(host)[0] == ["a", "b"]
        assert sorted(itertools.chain(*names(host))) == [*"abcde"]


@pytest.mark.anyio
@pytest.mark.rfc("9422")
async def test_mailmax_ends_a_session(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        keywords = ("LIMITS MAILMAX=2 RCPTMAX=1",)
        host = await w.host("mx.ext.example", "ext.example", keywords=keywords)
        node = await sent(w, FIVE)
        await node.until(Delivered, 5)
        assert names(host) == [[letter] for letter in "abcde"]
        assert host.sessions == 3


@pytest.mark.anyio
@pytest.mark.rfc("9422")
async def test_rcptdomainmax_takes_another_session(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        keywords = ("LIMITS RCPTDOMAINMAX=1",)
        host = await w.host("smart.example", "smart.example", keywords=keywords)
        w.ports["smart.example", 25] = next(iter(w.ports.values()))
        node = await sent(
            w,
            ["a@one.example", "b@two.example", "c@one.example"],
            smart_host=HostPort("smart.example", 25),
        )
        await node.until(Delivered, 3)
        assert names(host) == [["a", "c"], ["b"]]
        assert host.sessions == 2
        assert node.told(Deferred) == []
