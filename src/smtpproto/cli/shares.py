"""A node in several processes: what belongs to which of them, and to all.

Each process is a relay with a spool of its own, so that none waits for another's disk or lock. The
first has what a node in one process has; the spools and stories of the others have their number
(`spool-2`). Mail of a process that is no more waits in its spool: whoever starts the node gives
every spool that holds mail a process, and a process without listeners where there are fewer now.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
from anyio import to_thread
from attrs import evolve, frozen

from smtpproto.relay import SQLiteSpool
from smtpproto.relay.accounts.guessing import Bucket, Guessing
from smtpproto.relay.reports.story import Intervened
from smtpproto.relay.reports.story_file import add_to_story
from smtpproto.relay.spool.seam import Entry

__all__ = ["Share", "Spools", "holds_mail", "spools_in", "stories_in"]

log = logging.getLogger(__name__)

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
    """All spools of a node, as somebody sees them who looks in: one queue. Made by `open`.

    What is done to a message is added to its story, where one is kept.
    """

    def __init__(self, spools: Mapping[Path, SQLiteSpool]) -> None:
        self._by_story = spools
        self._spools = list(spools.values())

    @classmethod
    @asynccontextmanager
    async def open(cls, data: Path) -> AsyncGenerator[Spools]:
        """Look into the spools in `data`, whether a node serves them or not. SpoolUnavailable."""
        shares = await to_thread.run_sync(spools_in, data) or [Share()]
        async with AsyncExitStack() as stack:
            opened: dict[Path, SQLiteSpool] = {}
            for each in shares:
                spool = SQLiteSpool.open(each.spool(data), serving=False)
                opened[each.story(data)] = await stack.enter_async_context(spool)
            yield cls(opened)

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
        """Do as `Spool.retry`. Of all of them at once no story says so."""
        if id is None:
            return sum([await spool.retry(None, now) for spool in self._spools])
        return await self._each(lambda spool: spool.retry(id, now), Intervened(id, "retry"))

    async def release(self, id: str, now: float) -> int:
        """Do the same, and call it by its name."""
        return await self._each(lambda spool: spool.retry(id, now), Intervened(id, "release"))

    async def hold(self, id: str, reason: str) -> int:
        """Do as `Spool.hold`."""
        return await self._each(
            lambda spool: spool.hold(id, reason), Intervened(id, "hold", reason)
        )

    async def delete(self, id: str) -> bool:
        """Do as `Spool.delete`."""
        return await self._each(lambda spool: spool.delete(id), Intervened(id, "delete")) > 0

    async def _each(self, act: Callable[[SQLiteSpool], Awaitable[int]], event: Intervened) -> int:
        """Act on a message, wherever it is; tell it where that has changed something."""
        changed = 0
        for story, spool in self._by_story.items():
            at = time.time()  # so that what a node makes of it comes behind
            if done := await act(spool):
                changed += done
                try:
                    await to_thread.run_sync(add_to_story, story, event, at)
                except OSError as error:
                    log.warning("%s does not say so: %s", story, error.strerror or error)
        return changed

    async def noticed(self) -> bool:
        """Do as `SQLiteSpool.noticed`, for all of them at once."""
        served: list[bool] = []

        async def ask(spool: SQLiteSpool) -> None:
            served.append(await spool.noticed())

        async with anyio.create_task_group() as tasks:
            for spool in self._spools:
                tasks.start_soon(ask, spool)
        return any(served)
