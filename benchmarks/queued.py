"""What it costs the spool to have many messages queued: to open it, and each step of its work.

For each number of messages a spool is filled, half of it due and half to wait; one message in a
hundred has its content in a file (which is sparse). Then it is opened, with what the system
remembers of its files forgotten if it lets us, and worked with. Syncs are on. What a step costs is
the median, so the first steps, which read what is not in memory yet, do not show; opening is done
once. At last a part of it is drained: claimed, read and settled, by many at once.

    python benchmarks/queued.py [--messages N]... [--octets N] [--in-file N] [--directory DIR]
                                [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import anyio

sys.path.insert(0, str(Path(__file__).parent))
from shared import content, peak

from smtpproto.core.command import Mail, Rcpt
from smtpproto.relay.spool.seam import Settlement, new_id
from smtpproto.relay.spool.sqlite import SQLiteSpool

START = 1_700_000_000.0
STEPS = 200
DRAINED = 3_000
WORKERS = 100
IN_FILE = 100_000  # octets


def rows(number: int, octets: int, each: int) -> Iterator[tuple[object, ...]]:
    mail = Mail("ann@example.org").serialize()
    inline = content(octets)
    for n in range(number):
        in_file = n % each == each - 1
        size = IN_FILE if in_file else len(inline)
        id = new_id(START + n / 1000, n % 1000)
        yield id, START, mail, "benchmark", size, None if in_file else inline


def recipients(number: int) -> Iterator[tuple[object, ...]]:
    for n in range(number):
        rcpt = Rcpt(f"bob@{n % 1000}.example").serialize()
        next_attempt = START + (n % 3600) if n % 2 else START + 1e6 + n
        id = new_id(START + n / 1000, n % 1000)
        yield id, 0, rcpt, 0, next_attempt, next_attempt, None, 0, None, None


async def fill(directory: Path, number: int, octets: int, each: int) -> None:
    """Put so many messages there, by short cuts that a spool may not take."""
    async with SQLiteSpool.open(directory):
        pass
    db = sqlite3.connect(directory / "spool.db", isolation_level=None)
    db.execute("PRAGMA synchronous = OFF")
    db.execute("BEGIN")
    db.executemany(
        "INSERT INTO message VALUES (?, ?, ?, ?, ?, ?, NULL)", rows(number, octets, each)
    )
    db.executemany(f"INSERT INTO recipient VALUES ({', '.join('?' * 10)})", recipients(number))
    db.execute("COMMIT")
    for (id,) in db.execute("SELECT id FROM message WHERE content IS NULL"):
        with (directory / "content" / id).open("wb") as file:
            file.truncate(IN_FILE)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()


def forget(directory: Path) -> None:
    """Ask the system to forget what it remembers of the files."""
    os.sync()
    for path in directory.glob("spool.db*"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


async def timed(step: Callable[[int], Awaitable[object]]) -> float:
    """Return the median of what one of many steps takes, in seconds."""
    taken: list[float] = []
    for n in range(STEPS):
        begun = time.perf_counter()
        await step(n)
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


async def drain(spool: SQLiteSpool, messages: int, now: float) -> None:
    """Do for so many messages what a relay does, but for sending them."""

    async def work() -> None:
        nonlocal messages
        while messages > 0 and (claimed := await spool.claim(now, 5, 3600.0)):
            messages -= len(claimed)
            for entry in claimed:
                async for _ in spool.content(entry.id):
                    pass
                await spool.settle(entry.id, [Settlement(0, None)], now=now)

    async with anyio.create_task_group() as tasks:
        for _ in range(WORKERS):
            tasks.start_soon(work)


async def measure(directory: Path, number: int, octets: int) -> dict[str, float]:
    """Return seconds for each thing that is done, and what memory it took, in octets."""
    figures: dict[str, float] = {"messages": number}
    now = START + 7200
    begun = time.perf_counter()
    async with SQLiteSpool.open(directory) as spool:
        figures["open"] = time.perf_counter() - begun
        held: list[str] = []

        async def claim(_: int) -> None:
            held.extend(entry.id for entry in await spool.claim(now, 5, 3600.0))

        async def next_due(_: int) -> None:
            assert await spool.next_due() is not None

        async def keep(_: int) -> None:
            async with spool.receive() as incoming:
                await incoming.write(content(octets))
                await incoming.commit(Mail("ann@example.org"), [Rcpt("bob@new.example")], now=now)

        async def settle(n: int) -> None:
            await spool.settle(held[n], [Settlement(0, None)], now=now)

        figures["claim 5"] = await timed(claim)
        assert len(held) >= STEPS
        figures["next due"] = await timed(next_due)
        figures["keep"] = await timed(keep)
        figures["settle"] = await timed(settle)
        begun, cpu = time.perf_counter(), time.process_time()
        await drain(spool, DRAINED, now)
        figures["drained a second"] = DRAINED / (time.perf_counter() - begun)
        figures["CPU of each"] = (time.process_time() - cpu) / DRAINED
    figures["peak"] = peak()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--messages", type=int, action="append", metavar="N")
    parser.add_argument("--octets", type=int, default=4096, metavar="N", help="of each message")
    parser.add_argument(
        "--in-file", type=int, default=100, metavar="N", help="one in so many has a file"
    )
    parser.add_argument("--directory", type=Path, metavar="DIR", help="where there is room")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the figures")
    given = parser.parse_args()
    every: list[dict[str, float]] = []
    for number in given.messages or [10_000, 100_000, 1_000_000]:
        with tempfile.TemporaryDirectory(dir=given.directory) as directory:
            spool = Path(directory) / "spool"
            anyio.run(fill, spool, number, given.octets, given.in_file)
            forget(spool)
            figures = anyio.run(measure, spool, number, given.octets)
        every.append(figures)
        steps = ", ".join(
            f"{name} {1000 * figures[name]:.2f} ms"
            for name in ("claim 5", "next due", "keep", "settle")
        )
        print(
            f"{number:>9,} queued: open {figures['open']:.2f} s, {steps}, "
            f"drain {figures['drained a second']:,.0f}/s, "
            f"{1e6 * figures['CPU of each']:.0f} µs CPU each, "
            f"peak {figures['peak'] / 1e6:.0f} MB",
            flush=True,
        )
    if given.json:
        given.json.write_text(json.dumps(every, indent=2))


if __name__ == "__main__":
    main()
