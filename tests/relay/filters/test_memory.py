"""What is remembered of clients: greylisting (RFC 6647), limits, and the memory below them."""

import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpproto.core.reply import Reply
from smtpproto.relay.filters import Greylist, Limit, Limits, Refuse, SQLiteMemory, Stage
from smtpproto.relay.filters.memory import Book
from tests.relay.filters.seen import NOON, holding, seen

T = TypeVar("T")

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def grey(path: Path | str = ":memory:", **settings: float) -> AsyncIterator[Greylist]:
    async with SQLiteMemory.open(path) as memory:
        yield Greylist(memory, **settings)  # type: ignore[arg-type]  # numbers, all of them


async def rcpt(
    one: Greylist, after: float, peer: str = "192.0.2.7", rcpt: str = "bob@our.dom"
) -> Reply | None:
    answer = await one.judge(Stage.RCPT, seen(peer, rcpt=rcpt, now=NOON + after))
    return answer.reply if isinstance(answer, Refuse) else None


@pytest.mark.rfc("6647 §5")
async def test_a_stranger_has_to_come_again_but_not_at_once() -> None:
    async with grey() as one:
        first = await rcpt(one, 0)
        assert first is not None
        assert first.serialize() == (
            b"450 4.7.1 Greylisted: not known yet, come again in 60 seconds\r\n"
        )
        assert "in 1 seconds" in str(await rcpt(one, 59.5))
        assert await rcpt(one, 60) is None
        assert await rcpt(one, 61) is None


@pytest.mark.rfc("6647 §5")
async def test_who_comes_too_late_is_a_stranger_again() -> None:
    async with grey() as one:
        await rcpt(one, 0)
        assert await rcpt(one, 86400 + 1) is not None


async def test_who_is_known_stays_so_while_mail_comes() -> None:
    async with grey() as one:
        await rcpt(one, 0)
        for day in (1, 34, 68, 102):
            assert await rcpt(one, day * 86400 - 1) is None
        assert await rcpt(one, (102 + 36) * 86400) is not None


async def test_another_recipient_or_network_is_another_matter() -> None:
    async with grey() as one:
        await rcpt(one, 0)
        assert await rcpt(one, 100, rcpt="eve@our.dom") is not None
        assert await rcpt(one, 100, peer="192.0.3.7") is not None
        assert await rcpt(one, 100, peer="192.0.2.200") is None  # a big sender's other machine
        assert await rcpt(one, 100, peer="2001:db8::1") is not None
        assert await rcpt(one, 200, peer="2001:db8::ffff") is None


async def test_a_network_that_comes_again_often_enough_is_a_friend() -> None:
    async with grey(enough=2) as one:
        for number in range(2):
            await rcpt(one, 0, rcpt=f"r{number}@our.dom")
            assert await rcpt(one, 100, rcpt=f"r{number}@our.dom") is None
            assert await rcpt(one, 101, rcpt=f"r{number}@our.dom") is None  # once each
        assert await rcpt(one, 200, rcpt="new@our.dom") is None


@pytest.mark.rfc("6647 §5")
async def test_who_is_trusted_is_not_greylisted() -> None:
    async with grey() as one:
        assert await one.judge(Stage.RCPT, seen(rcpt="b@our.dom", trusted=True)) is None


async def test_what_is_known_outlives_a_restart(tmp_path: Path) -> None:
    async with grey(tmp_path / "memory.db") as one:
        await rcpt(one, 0)
    async with grey(tmp_path / "memory.db") as one:
        assert await rcpt(one, 60) is None


# Limits


async def count(one: Limits, after: float, who: str = "ann", *, stage: Stage = Stage.MAIL) -> str:
    looked = seen(rcpt="bob@there.example", identity=who, now=NOON + after)
    answer = await one.judge(stage, looked)
    return str(answer.reply) if isinstance(answer, Refuse) else ""


async def test_what_is_over_the_limit_is_told_when_to_come_back() -> None:
    async with SQLiteMemory.open(":memory:") as memory:
        one = Limits([Limit("messages", "account", 3, 60)], memory)
        for second in range(3):
            assert await count(one, second) == ""
        said = await count(one, 3)
        assert said == (
            "450 4.7.1 Too much mail: 3 messages in 1 minutes is the limit,"
            " come again in 77 seconds"
        )
        assert await count(one, 3, "bob") == ""
        assert await count(one, 3 + 76) != ""
        assert await count(one, 3 + 77) == ""


async def test_of_several_limits_the_longest_wait_is_told_and_nothing_is_counted() -> None:
    async with SQLiteMemory.open(":memory:") as memory:
        one = Limits(
            [Limit("messages", "account", 5, 60), Limit("messages", "account", 1, 3600)], memory
        )
        assert await count(one, 0) == ""
        for _ in range(10):
            assert "1 messages in 1 hours" in await count(one, 1)
        assert await count(one, 7200) == ""


async def test_limits_of_octets_recipients_networks_and_domains() -> None:
    async with SQLiteMemory.open(":memory:") as memory:
        one = Limits(
            [
                Limit("octets", "account", 1000, 60),
                Limit("recipients", "domain", 2, 60),
                Limit("recipients", "network", 3, 60, who="192.0.2.9/32"),
            ],
            memory,
            size={"ann": 800},
        )
        assert set(one.stages) == {Stage.CONTENT, Stage.RCPT}
        small, big, huge = [await holding(b"x" * size) for size in (500, 700, 801)]
        for held, said in [(huge, "552 5.3.4"), (small, ""), (big, "450 4.7.1"), (small, "")]:
            answer = await one.judge(Stage.CONTENT, seen(identity="ann", content=held))
            assert (str(answer.reply) if isinstance(answer, Refuse) else "").startswith(said)
        answer = await one.judge(
            Stage.CONTENT, seen(identity="eve", content=await holding(b"x" * 1001))
        )
        assert isinstance(answer, Refuse)
        assert str(answer.reply).endswith("is the limit")  # it will never fit
        assert [await count(one, 0, who, stage=Stage.RCPT) for who in "abc"][:2] == ["", ""]
        assert (await count(one, 0, stage=Stage.RCPT)).startswith("452 4.5.3")
        for number in range(4):
            answer = await one.judge(Stage.RCPT, seen("192.0.2.9", rcpt=f"x@d{number}.example"))
            assert (answer is None) is (number < 3)


def test_a_limit_that_cannot_be_kept_is_refused() -> None:
    with pytest.raises(ValueError, match="recipients"):
        Limit("messages", "domain", 1, 60)
    with pytest.raises(ValueError, match="number"):
        Limit("messages", "account", -1, 60)


async def test_limits_hold_over_a_restart(tmp_path: Path) -> None:
    for number in range(4):
        async with SQLiteMemory.open(tmp_path / "memory.db") as memory:
            one = Limits([Limit("messages", "account", 3, 3600)], memory)
            assert (await count(one, number) == "") is (number < 3)


class Dictionary:
    """The shortest memory."""

    def __init__(self) -> None:
        self.kept: dict[str, tuple[tuple[float, ...], float]] = {}

    def get(self, key: str, now: float) -> tuple[float, ...] | None:
        value, expires = self.kept.get(key, ((), -math.inf))
        return value if expires > now else None

    def put(self, key: str, value: tuple[float, ...], expires: float) -> None:
        self.kept[key] = (value, expires)

    async def transact(self, work: Callable[[Book], T]) -> T:
        return work(self)


@given(
    st.integers(1, 5),
    st.lists(st.floats(0, 40), min_size=1, max_size=60),
)
def test_a_wait_that_is_told_is_enough(most: int, steps: Sequence[float]) -> None:
    async def main() -> None:
        one = Limits([Limit("messages", "account", most, 60)], Dictionary())
        at, accepted = 0.0, list[float]()
        for step in steps:
            at += step
            said = await count(one, at)
            if said:
                wait = float(said.split()[-2])
                assert await count(one, at + wait) == "", said
                at += wait
            accepted.append(at)
            # Whole windows never pass more than the limit; the estimate is what slides.
            window = (NOON + at) // 60
            assert sum((NOON + t) // 60 == window for t in accepted) <= most

    anyio.run(main, backend="asyncio")


# The memory


async def test_nothing_is_remembered_of_work_that_failed() -> None:
    def fail(book: Book) -> None:
        book.put("key", (1.0,), NOON + 10)
        raise RuntimeError

    async with SQLiteMemory.open(":memory:") as memory:
        with pytest.raises(RuntimeError):
            await memory.transact(fail)
        assert await memory.transact(lambda book: book.get("key", NOON)) is None


async def test_strangers_cannot_fill_the_disk_with_keys() -> None:
    async with SQLiteMemory.open(":memory:", capacity=1000) as memory:

        def put(batch: int, book: Book) -> None:
            for number in range(batch, batch + 100):
                book.put(f"key {number}", (1.0, 2.5), NOON + number)

        for batch in range(0, 10_000, 100):
            await memory.transact(partial(put, batch))

        def kept(book: Book) -> list[int]:
            return [n for n in range(10_000) if book.get(f"key {n}", NOON - 1)]

        left = await memory.transact(kept)
        assert 1000 <= len(left) <= 1200
        assert max(left) == 9999
        assert left == list(range(10_000 - len(left), 10_000))


async def test_many_at_once_are_one_after_the_other() -> None:
    def add(book: Book) -> None:
        (value,) = book.get("key", NOON) or (0.0,)
        book.put("key", (value + 1,), NOON + 10)

    async with SQLiteMemory.open(":memory:") as memory:
        async with anyio.create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(memory.transact, add)
        assert await memory.transact(lambda book: book.get("key", NOON)) == (50.0,)
