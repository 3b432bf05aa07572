"""A node in several processes: what belongs to which of them, and to all.

Each process is a relay with a spool of its own, so that none waits for another's disk or lock. The
first has what a node in one process has; the spools and stories of the others have their number
(`spool-2`). Mail of a process that is no more waits in its spool: whoever starts the node gives
every spool that holds mail a process, and a process without listeners where there are fewer now.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
from anyio import to_thread
from attrs import evolve, frozen

from smtpproto.relay import SQLiteSpool
from smtpproto.relay.accounts.guessing import Bucket, Guessing
from smtpproto.relay.spool.seam import Entry

__all__ = ["Share", "Spools", "holds_mail", "spools_in", "stories_in"]

SPOOL = "spool"
STORY = "story"


@frozen
class Share:
    """What one process has of a node: it is `number`, from 0 on, `of` so many that take mail."""

    number: int = 0
    of: int = 1

    def each(self, together: int) -> int:
        """Return what one may have, where all may have so many `together`."""
        return -(-together // self.of)

    def guard(self) -> Guessing:
        """Return who counts failed logins, for the share of them that is seen here."""
        whole = Guessing()

        def part(bucket: Bucket) -> Bucket:
            return evolve(bucket, failures=self.each(bucket.failures), each=bucket.each * self.of)

        return Guessing(part(whole.by_account), part(whole.by_network), part(whole.anywhere))

    def spool(self, data: Path) -> Path:
        """Return where its spool is."""
        return data / _numbered(SPOOL, self.number)

    def story(self, data: Path) -> Path:
        """Return where the stories of its messages are kept."""
        return data / f"{_numbered(STORY, self.number)}.jsonl"


def _numbered(name: str, number: int) -> str:
    return name if number == 0 else f"{name}-{number + 1}"


def spools_in(data: Path) -> list[Share]:
    """Return whose spools there are, in the order of their numbers. Blocks; OSError."""
    found = [int(match[1] or 1) - 1 for match in _matches(data, rf"{SPOOL}(?:-(\d+))?")]
    return [Share(number) for number in sorted(found)]


def stories_in(data: Path) -> list[Path]:
    """Return the files of stories that there are. Blocks; OSError."""
    return [data / match[0] for match in _matches(data, rf"{STORY}(?:-(\d+))?\.jsonl")]


def _matches(data: Path, pattern: str) -> list[re.Match[str]]:
    names = (path.name for path in data.iterdir()) if data.is_dir() else ()
    return [match for name in names if (match := re.fullmatch(pattern, name))]


async def holds_mail(path: Path) -> bool:
    """Tell whether there is a message in a spool. SpoolUnavailable."""
    async with SQLiteSpool.open(path, serving=False) as spool:
        async for _ in spool.entries():
            return True
    return False


class Spools:
    """All spools of a node, as somebody sees them who looks in: one queue. Made by `open`."""

    def __init__(self, spools: Sequence[SQLiteSpool]) -> None:
        self._spools = spools

    @classmethod
    @asynccontextmanager
    async def open(cls, data: Path) -> AsyncGenerator[Spools]:
        """Look into the spools in `data`, whether a node serves them or not. SpoolUnavailable."""
        shares = await to_thread.run_sync(spools_in, data) or [Share()]
        async with AsyncExitStack() as stack:
            opened = [SQLiteSpool.open(each.spool(data), serving=False) for each in shares]
            yield cls([await stack.enter_async_context(each) for each in opened])

    async def entries(self) -> AsyncIterator[Entry]:
        """Read all messages, the oldest first: as their ids are sorted."""
        streams = [aiter(spool.entries()) for spool in self._spools]
        heads = [await anext(stream, None) for stream in streams]
        while True:
            first = min((head.id for head in heads if head is not None), default=None)
            for at, head in enumerate(heads):
                if head is not None and head.id == first:
                    yield head
                    heads[at] = await anext(streams[at], None)
                    break
            else:
                return

    async def get(self, id: str) -> Entry | None:
        """Return a message; None if there is none."""
        for spool in self._spools:
            if (entry := await spool.get(id)) is not None:
                return entry
        return None

    async def content(self, id: str) -> AsyncIterator[bytes]:
        """Read a message's content, a chunk at a time; nothing if there is no such message."""
        for spool in self._spools:
            if await spool.get(id) is not None:
                async for chunk in spool.content(id):
                    yield chunk
                return

    async def retry(self, id: str | None, now: float) -> int:
        """Do as `Spool.retry`."""
        return sum([await spool.retry(id, now) for spool in self._spools])

    async def hold(self, id: str, reason: str) -> int:
        """Do as `Spool.hold`."""
        return sum([await spool.hold(id, reason) for spool in self._spools])

    async def delete(self, id: str) -> bool:
        """Do as `Spool.delete`."""
        return any([await spool.delete(id) for spool in self._spools])

    async def noticed(self) -> bool:
        """Do as `SQLiteSpool.noticed`, for all of them at once."""
        served: list[bool] = []

        async def ask(spool: SQLiteSpool) -> None:
            served.append(await spool.noticed())

        async with anyio.create_task_group() as tasks:
            for spool in self._spools:
                tasks.start_soon(ask, spool)
        return any(served)
