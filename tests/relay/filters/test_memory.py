"""What is remembered of clients: greylisting (RFC 6647), limits, and the memory below them."""

import math
import sqlite3
import stat
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import TypeVar

import anyio
import pytest
from anyio import to_thread
from hypothesis import given
from hypothesis import strategies as st

from smtpproto.core.command import Mail, Rcpt
from smtpproto.core.reply import Reply
from smtpproto.extensions.size import SIZE_OCTETS
from smtpproto.relay.filters import (
    Answer,
    Greylist,
    Limit,
    RateLimits,
    Refuse,
    SQLiteMemory,
    Stage,
)
from smtpproto.relay.filters.limits import What, Whom
from smtpproto.relay.filters.memory import SWEEP, Book
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


async def test_a_clock_that_is_put_back_makes_nobody_wait_longer() -> None:
    async with grey() as one:
        await rcpt(one, 86000)
        assert "in 60 seconds" in str(await rcpt(one, 0))


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
    async with grey(enough=3) as one:
        for number in range(3):
            assert await rcpt(one, 100, rcpt=f"other{number}@our.dom") is not None
            await rcpt(one, 0, rcpt=f"r{number}@our.dom")
            assert await rcpt(one, 100, rcpt=f"r{number}@our.dom") is None
            assert await rcpt(one, 101, rcpt=f"r{number}@our.dom") is None  # once each
        assert await rcpt(one, 200, rcpt="new@our.dom") is None


@pytest.mark.rfc("6647 §5")
async def test_who_has_come_again_may_write_to_everybody() -> None:
    async with grey() as one:
        await rcpt(one, 0)
        assert await rcpt(one, 60) is None
        assert await rcpt(one, 60, peer="192.0.2.8", rcpt="new@our.dom") is None


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


def said(answer: Answer | None) -> str:
    return str(answer.reply) if isinstance(answer, Refuse) else ""


async def count(
    one: RateLimits,
    after: float,
    who: str | None = "ann",
    *,
    peer: str = "192.0.2.7",
    to: Sequence[str] = ("bob@there.example",),
    octets: int = 100,
) -> str:
    """Send a message; what is said, at last."""
    looked = seen(peer, identity=who, now=NOON + after)
    if refused := said(await one.judge(Stage.MAIL, looked)):
        return refused
    refused = ""
    for each in to:
        looked.rcpt = Rcpt(each)
        if answer := said(await one.judge(Stage.RCPT, looked)):
            refused = answer
        else:
            looked.rcpts += (looked.rcpt,)
    looked.rcpt = None
    if not looked.rcpts:
        return refused
    async with await holding(b"x" * octets) as looked.content:
        return said(await one.judge(Stage.CONTENT, looked)) or refused


@asynccontextmanager
async def limits(*some: Limit, path: Path | str = ":memory:") -> AsyncIterator[RateLimits]:
    async with SQLiteMemory.open(path) as memory:
        yield RateLimits(some, memory)


async def test_what_is_over_the_limit_is_told_when_to_come_back() -> None:
    async with limits(Limit("messages", "account", 3, 60)) as one:
        for second in range(3):
            assert await count(one, second) == ""
        assert await count(one, 3) == (
            "452 4.7.1 Too much mail: 3 messages in 1 minute is the limit, come again in 77 seconds"
        )
        assert await count(one, 3, "bob") == ""
        assert await count(one, 3 + 76) != ""
        assert await count(one, 3 + 77) == ""


@pytest.mark.parametrize(("ahead", "free"), [(60, 150), (180, 0), (86400 * 365, 0)])
async def test_a_clock_that_is_put_back_makes_nobody_wait_for_another_time(
    ahead: float, free: float
) -> None:
    async with limits(Limit("messages", "account", 2, 60)) as one:
        for second in range(2):
            assert await count(one, ahead + second) == ""
        if free:
            assert await count(one, 0) != ""  # by a little: it still counts
        assert await count(one, free) == ""


async def test_of_several_limits_the_longest_wait_is_told_and_nothing_is_counted() -> None:
    hourly = Limit("messages", "account", 1, 3600)
    async with limits(Limit("messages", "account", 5, 60), hourly) as one:
        assert await count(one, 0) == ""
        for _ in range(10):
            assert "1 messages in 1 hour is" in await count(one, 1)
        assert await count(one, 7200) == ""


async def test_a_message_is_counted_when_it_has_come() -> None:
    async with limits(Limit("messages", "account", 1, 60)) as one:
        for _ in range(5):  # transactions that lead to nothing
            assert await one.judge(Stage.MAIL, seen(identity="ann")) is None
        assert await count(one, 0) == ""
        assert await count(one, 0) != ""


async def test_of_many_sessions_at_once_no_more_pass() -> None:
    async with limits(Limit("messages", "account", 2, 60)) as one:
        both = [seen(identity="ann", content=await holding(b"x")) for _ in range(3)]
        assert [await one.judge(Stage.MAIL, each) for each in both] == [None] * 3
        last = [said(await one.judge(Stage.CONTENT, each)) for each in both]
        assert last[:2] == ["", ""]
        assert last[2].startswith("450 4.7.1 Too much mail")


async def test_an_account_is_the_same_however_it_is_written() -> None:
    async with limits(Limit("messages", "account", 1, 60)) as one:
        assert await count(one, 0, "ann") == ""
        for name in ("Ann", "ANN", "\uff41nn"):
            assert await count(one, 0, name) != ""


async def test_too_many_recipients_may_come_in_the_next_message() -> None:
    async with limits(Limit("recipients", "account", 3, 60)) as one:
        to = [f"r{n}@there.example" for n in range(5)]
        refused = await count(one, 0, to=to)
        assert refused.startswith("452 4.5.3 Too much mail: 3 recipients in 1 minute is the limit")
        wait = int(refused.split()[-2])
        assert (await count(one, wait - 1, to=to[3:])).startswith("452")
        assert await count(one, wait, to=to[3:4]) == ""


async def test_a_recipient_who_is_refused_later_is_not_counted() -> None:
    async with limits(Limit("recipients", "account", 3, 60)) as one:
        looked = seen(identity="ann", rcpt="r@there.example")
        for _ in range(9):
            assert await one.judge(Stage.RCPT, looked) is None


async def test_limits_of_octets_domains_and_networks() -> None:
    some = (
        Limit("octets", "account", 1000, 60),
        Limit("recipients", "domain", 2, 60, who="There.example"),
        Limit("messages", "network", 4, 60, who="198.51.100.0/24"),
    )
    async with limits(*some) as one:
        assert await count(one, 0, octets=500) == ""
        assert (await count(one, 0, octets=700)).startswith("450 4.7.1 Too much mail: 1000 octets")
        assert await count(one, 0, octets=500) == ""
        never = await count(one, 0, "eve", octets=1001, to=["bob@else.example"])
        assert never.startswith("552 5.3.4 ")
        assert "again" not in never
    async with limits(*some) as one:
        for number in range(4):
            refused = await count(
                one, 0, None, peer=f"198.51.100.{number}", to=["x@a.example", "y@there.example"]
            )
            assert refused.startswith("452 4.5.3") is (number >= 2)
        assert (await count(one, 0, None, peer="198.51.100.9")).startswith("452 4.7.1")
        assert await count(one, 0, None, peer="192.0.2.9", to=["x@a.example"]) == ""


async def test_a_limit_of_ones_own_takes_the_place_of_the_one_for_all() -> None:
    own = Limit("messages", "account", 3, 3600, who="news")
    async with limits(Limit("messages", "account", 1, 60), own) as one:
        assert [await count(one, 0, "news") == "" for _ in range(4)] == [True, True, True, False]
        assert [await count(one, 0, "ann") == "" for _ in range(2)] == [True, False]


async def test_a_message_too_large_is_refused_for_good_as_soon_as_it_is_told() -> None:
    some = (
        Limit("size", "account", 800),
        Limit("size", "account", 2000, who="big"),
        Limit("size", "domain", 500, who="small.example"),
    )
    async with limits(*some) as one:
        assert await count(one, 0, octets=800) == ""
        assert (await count(one, 0, octets=801)).startswith("552 5.3.4 ")
        assert await count(one, 0, "big", octets=2000) == ""
        to = ["a@there.example", "b@small.example"]
        assert (await count(one, 0, octets=501, to=to)).startswith("552 5.3.4 ")
        told = seen(identity="ann", rcpt="b@small.example")
        told.mail = Mail("ann@our.dom", SIZE_OCTETS(600))
        assert await one.judge(Stage.MAIL, told) is None
        assert said(await one.judge(Stage.RCPT, told)).startswith("552 5.3.4 ")
        told.rcpts, told.rcpt = (Rcpt("b@small.example"),), Rcpt("a@there.example")
        assert await one.judge(Stage.RCPT, told) is None
        told.mail = Mail("ann@our.dom", SIZE_OCTETS(801))
        assert said(await one.judge(Stage.MAIL, told)) == (
            "552 5.3.4 The message is too large: 800 octets in one message is the limit"
        )


@pytest.mark.parametrize(
    ("what", "per", "most", "seconds", "words"),
    [
        ("messages", "domain", 1, 60, "recipients"),
        ("messages", "account", 0, 60, "number"),
        ("messages", "account", 1, 0, "time"),
        ("size", "account", 1, 60, "time"),
    ],
)
def test_a_limit_that_cannot_be_kept_is_refused(
    what: What, per: Whom, most: int, seconds: float, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        Limit(what, per, most, seconds)


async def test_limits_hold_over_a_restart(tmp_path: Path) -> None:
    for number in range(4):
        async with limits(
            Limit("messages", "account", 3, 3600), path=tmp_path / "memory.db"
        ) as one:
            assert (await count(one, number) == "") is (number < 3)


class Dictionary:
    """The shortest memory."""

    def __init__(self) -> None:
        self.kept: dict[str, tuple[tuple[float, ...], float]] = {}
        self.asked = 0

    def get(self, key: str, now: float) -> tuple[float, ...] | None:
        value, expires = self.kept.get(key, ((), -math.inf))
        return value if expires > now else None

    def put(self, key: str, value: tuple[float, ...], expires: float) -> None:
        self.kept[key] = (value, expires)

    async def transact(self, work: Callable[[Book], T]) -> T:
        self.asked += 1
        return work(self)


@given(
    st.integers(1, 5),
    st.lists(st.floats(0, 40), min_size=1, max_size=60),
)
def test_a_wait_that_is_told_is_enough(most: int, steps: Sequence[float]) -> None:
    async def main() -> None:
        one = RateLimits([Limit("messages", "account", most, 60)], Dictionary())
        at, accepted = 0.0, list[float]()
        for step in steps:
            at += step
            refused = await count(one, at)
            if refused:
                wait = float(refused.split()[-2])
                assert await count(one, at + wait) == "", refused
                at += wait
            accepted.append(at)
            # Whole windows never pass more than the limit; the estimate is what slides.
            window = (NOON + at) // 60
            assert sum((NOON + t) // 60 == window for t in accepted) <= most

    anyio.run(main, backend="asyncio")


@given(st.integers(1, 5), st.lists(st.tuples(st.floats(0, 40), st.booleans()), max_size=60))
def test_of_several_processes_no_more_pass_than_of_one(
    most: int, steps: Sequence[tuple[float, bool]]
) -> None:
    async def main() -> None:
        limit, shared = Limit("messages", "account", most, 60), Dictionary()
        several = [RateLimits([limit], shared) for _ in range(2)]
        alone = RateLimits([limit], Dictionary())
        at = 0.0
        for step, which in steps:
            at += step
            assert (await count(several[which], at) == "") is (await count(alone, at) == "")

    anyio.run(main, backend="asyncio")


async def test_what_another_process_has_counted_shows_at_the_end_at_the_latest(
    tmp_path: Path,
) -> None:
    limit, path = Limit("messages", "account", 2, 60), tmp_path / "memory.db"
    async with limits(limit, path=path) as one, limits(limit, path=path) as other:
        assert await count(one, 0) == ""
        assert await count(other, 1) == ""
        assert (await count(one, 2)).startswith("450 4.7.1 ")  # its MAIL went through
        assert (await count(one, 3)).startswith("452 4.7.1 ")
        assert (await count(other, 3)).startswith("452 4.7.1 ")


async def test_what_is_known_is_not_asked_again_before_the_content() -> None:
    memory = Dictionary()
    one = RateLimits(
        [Limit("messages", "account", 3, 60), Limit("recipients", "domain", 99, 60)], memory
    )
    to = ["a@there.example", "b@there.example"]
    for number, questions in enumerate((3, 1, 1, 0)):  # of MAIL, the first RCPT, and the content
        before = memory.asked
        assert (await count(one, number, to=to) == "") is bool(questions)
        assert memory.asked - before == questions


async def test_of_strangers_no_more_is_known_than_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("smtpproto.relay.filters.limits.KNOWN", 10)
    async with limits(Limit("messages", "network", 1, 60)) as one:
        for number in range(100):
            assert await count(one, 0, None, peer=f"192.0.2.{number}") == ""
            assert len(one._known) <= 11
        assert await count(one, 0, None, peer="192.0.2.1") != ""


# The memory


def add(book: Book) -> float:
    (value,) = book.get("key", NOON) or (0.0,)
    book.put("key", (value + 1,), NOON + 10)
    return value


def fail(book: Book) -> None:
    book.put("key", (99.0,), NOON + 10)
    raise RuntimeError


async def test_nothing_is_remembered_of_work_that_failed() -> None:
    async with SQLiteMemory.open(":memory:") as memory:
        with pytest.raises(RuntimeError):
            await memory.transact(fail)
        assert await memory.transact(add) == 0


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


async def test_a_flood_of_one_kind_of_keys_pushes_out_no_other() -> None:
    """A limit of an account ends sooner than what greylisting remembers, and would go first."""
    async with SQLiteMemory.open(":memory:", capacity=1000) as memory:
        one = RateLimits([Limit("messages", "account", 1, 60)], memory)
        assert await count(one, 0) == ""
        greylist = Greylist(memory)
        networks = RateLimits([Limit("messages", "network", 5, 600)], memory)
        for number in range(3000):
            looked = seen("192.0.2.7", rcpt=f"v{number}@our.dom", now=NOON)
            await greylist.judge(Stage.RCPT, looked)
            assert await count(networks, 0, None, peer=f"2001:db8:{number:x}::1") == ""
        assert "Too much mail" in await count(one, 1)
        rows = memory._db.execute("SELECT key FROM memory").fetchall()
        kinds = Counter(key.partition(" ")[0] for (key,) in rows)
        assert kinds["limit-account"] == 1
        assert 1000 <= kinds["grey"] <= 1100
        assert 1000 <= kinds["limit-network"] <= 1100


async def test_what_has_expired_is_forgotten_soon() -> None:
    async with SQLiteMemory.open(":memory:") as memory:

        def put(at: float, book: Book) -> None:
            assert book.get("none", at) is None
            for number in range(100):
                book.put(f"key {at} {number}", (1.0,), at + 10)

        for second in range(50):
            await memory.transact(partial(put, NOON + 20 * second))
        kept = memory._db.execute("SELECT count(*) FROM memory").fetchone()
        assert kept[0] <= SWEEP + 100


async def test_nobody_else_reads_who_writes_to_whom(tmp_path: Path) -> None:
    path = tmp_path / "memory.db"
    async with grey(path) as one:
        await rcpt(one, 0, rcpt="bob@our.dom")
        files = [Path(f"{path}{end}") for end in ("", "-shm", "-wal")]
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
        content = b"".join(file.read_bytes() for file in files)
        assert b"192.0.2.0/24" in content
        assert b"our.dom" not in content
        assert b"there.example" not in content


@asynccontextmanager
async def busy(memory: SQLiteMemory) -> AsyncIterator[None]:
    """Have a transaction going on in the block, so that what is asked for there waits."""
    begun, end = threading.Event(), threading.Event()

    def hang(_: Book) -> None:
        begun.set()
        assert end.wait(60)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(memory.transact, hang)
        await to_thread.run_sync(begun.wait)
        try:
            yield
            await anyio.wait_all_tasks_blocked()
        finally:
            end.set()


async def test_many_at_once_are_one_after_the_other_and_one_transaction() -> None:
    async with SQLiteMemory.open(":memory:") as memory:
        done: list[float] = []
        statements: list[str] = []

        async def ask() -> None:
            done.append(await memory.transact(add))

        async with anyio.create_task_group() as tasks:
            async with busy(memory):
                for _ in range(50):
                    tasks.start_soon(ask)
            memory._db.set_trace_callback(statements.append)
        assert done == list(range(50))
        assert statements.count("COMMIT") == 1


async def test_who_fails_by_himself_fails_for_nobody_else() -> None:
    async with SQLiteMemory.open(":memory:") as memory:
        failed: list[Exception] = []

        async def ask(work: Callable[[Book], object]) -> None:
            try:
                await memory.transact(work)
            except RuntimeError as error:
                failed.append(error)

        async with anyio.create_task_group() as tasks, busy(memory):
            for work in (add, fail, add):
                tasks.start_soon(ask, work)
        assert len(failed) == 1
        assert await memory.transact(add) == 2


async def test_who_goes_while_he_waits_has_done_nothing() -> None:
    async with SQLiteMemory.open(":memory:") as memory:
        async with anyio.create_task_group() as tasks, busy(memory):
            tasks.start_soon(memory.transact, add)
            await anyio.wait_all_tasks_blocked()
            with anyio.move_on_after(0):
                await memory.transact(add)
        assert await memory.transact(add) == 1


async def test_who_goes_as_his_turn_comes_takes_nobody_along() -> None:
    begun, end, scope = threading.Event(), threading.Event(), anyio.CancelScope()
    done: list[float] = []

    def hang(_: Book) -> None:
        begun.set()
        assert end.wait(60)

    async def before(memory: SQLiteMemory) -> None:
        await memory.transact(hang)
        scope.cancel()

    async def goes(memory: SQLiteMemory) -> None:
        with scope:
            await memory.transact(add)

    async def stays(memory: SQLiteMemory) -> None:
        done.append(await memory.transact(add))

    async with SQLiteMemory.open(":memory:") as memory, anyio.create_task_group() as tasks:
        tasks.start_soon(before, memory)
        await to_thread.run_sync(begun.wait)
        for each in (goes, stays):
            tasks.start_soon(each, memory)
            await anyio.wait_all_tasks_blocked()
        end.set()
    assert len(done) == 1


async def test_where_the_file_cannot_be_used_all_who_wait_hear_of_it(tmp_path: Path) -> None:
    path = tmp_path / "memory.db"
    async with SQLiteMemory.open(path) as memory:
        memory._db.execute("PRAGMA busy_timeout = 0")
        failed: list[Exception] = []

        async def ask() -> None:
            try:
                await memory.transact(add)
            except sqlite3.OperationalError as error:
                failed.append(error)

        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            async with anyio.create_task_group() as tasks:
                for _ in range(3):  # the first, and those who wait for it
                    tasks.start_soon(ask)
        assert len(failed) == 3
        assert await memory.transact(add) == 0
