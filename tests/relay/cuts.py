"""What a spool promised, step by step, and whether it is so on each disk that a cut may leave.

In short:

    with Tape().runs() as tape:
        await work(path, tape)
    await Enumeration(path, tape, scratch).run()
"""

import hashlib
import itertools
import random
import shutil
from collections.abc import Awaitable, Callable, Container, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

import anyio
import pytest
from attrs import define, field, frozen

from smtpproto.core.command import Mail, Rcpt
from smtpproto.relay.spool import incoming
from smtpproto.relay.spool.disk import Disk
from smtpproto.relay.spool.seam import Fresh, Settlement, SpoolUnavailable
from smtpproto.relay.spool.sqlite import SQLiteSpool
from tests.relay.aftermath import (
    WAYS,
    Dropped,
    Image,
    Kept,
    LastTorn,
    Platter,
    Torn,
    Way,
)
from tests.relay.tape import Tape

__all__ = [
    "Began",
    "Client",
    "Enumeration",
    "Mails",
    "NoSync",
    "Returned",
    "found_in",
    "put",
    "work",
]

#: number -> (RCPT, attempts, next attempt, last reply) of who is owed it; content -> these
Owed: TypeAlias = dict[int, tuple[bytes, int, float, str | None]]
Mails: TypeAlias = dict[bytes, Owed]

MAIL = Mail("ann@example.org")


# What was promised


@frozen(eq=False)
class Step:
    """One change of the spool, to one message and the reports on it."""

    key: int
    apply: Callable[[Mails], None]


@frozen
class Began:
    step: Step


@frozen
class Returned:
    """Its caller knows that it is done."""

    step: Step


class Promise:
    """What the spool has to have, by what has been asked of it."""

    def __init__(self) -> None:
        self._steps: dict[int, list[tuple[Step, bool]]] = {}
        self._outcomes: dict[int, list[Mails]] = {}

    def hear(self, mark: Began | Returned) -> None:
        steps = self._steps.setdefault(mark.step.key, [])
        self._outcomes.pop(mark.step.key, None)
        if isinstance(mark, Began):
            steps.append((mark.step, False))
        else:
            steps[steps.index((mark.step, False))] = mark.step, True

    def outcomes(self, key: int) -> list[Mails]:
        """Return what may be there: each step that has not returned was done, or was not."""
        if key not in self._outcomes:
            outcomes: list[Mails] = [{}]
            for step, returned in self._steps[key]:
                without = [] if returned else outcomes
                done = [{content: dict(owed) for content, owed in m.items()} for m in outcomes]
                for mails in done:
                    step.apply(mails)
                outcomes = without + [mails for mails in done if mails not in without]
            self._outcomes[key] = outcomes
        return self._outcomes[key]

    def hold(self, found: Mails) -> None:
        """Fail unless it was kept."""
        of_key: dict[int, Mails] = {key: {} for key in self._steps}
        for content, owed in found.items():
            of_key[key_of(content)][content] = owed
        for key, mails in of_key.items():
            if mails not in self.outcomes(key):
                there = _readable(mails)
                promised = "\n      or ".join(map(_readable, self.outcomes(key)))
                pytest.fail(f"of {key}\n   found {there}\npromised {promised}", pytrace=False)


def _readable(mails: Mails) -> str:
    return " and ".join(f"{len(c)} octets for {o}" for c, o in mails.items()) or "nothing"


def content_of(key: int, octets: int, part: int = 0) -> bytes:
    """Make content that is told from any other, and from any part of itself."""
    head = b"%d %d\r\n" % (key, part)
    body = b"".join(b"%064x\r\n" % (n * 0x9E3779B97F4A7C15) for n in range(octets // 66))
    return head + body + hashlib.sha256(head + body).hexdigest().encode()


def key_of(content: bytes) -> int:
    return int(content.split(b" ", 1)[0])


# What is asked of it


@define
class Client:
    """Asks things of a spool, and tells the tape what it asks and what it was answered."""

    spool: SQLiteSpool
    tape: Tape
    parts: Iterator[int]
    refused: int = 0

    async def _ask(self, step: Step, asked: Callable[[], Awaitable[object]]) -> bool:
        self.tape.mark(Began(step))
        try:
            await asked()
        except SpoolUnavailable:
            self.refused += 1
            return False
        self.tape.mark(Returned(step))
        return True

    async def keep(self, key: int, octets: int, rcpts: int = 2) -> None:
        content = content_of(key, octets)
        commands = [Rcpt(f"{n}@{key}.example") for n in range(rcpts)]

        def apply(mails: Mails) -> None:
            mails[content] = {
                n: (rcpt.serialize(), 0, 0.0, None) for n, rcpt in enumerate(commands)
            }

        try:
            async with self.spool.receive() as incoming:
                for at in range(0, len(content), 3000):
                    await incoming.write(content[at : at + 3000])
                step = Step(key, apply)
                await self._ask(step, lambda: incoming.commit(MAIL, commands, now=0.0))
        except SpoolUnavailable:
            self.refused += 1

    async def claim(self) -> dict[int, str]:
        """Borrow all; return the id of each message, by its key. Reports wait."""
        try:
            entries = await self.spool.claim(1000.0, 1000, 60.0)
        except SpoolUnavailable:
            self.refused += 1
            return {}
        return {
            int(str(e.recipients[0].rcpt.forward_path.mailbox.domain.split(b".")[0], "ascii")): e.id
            for e in entries
            if e.mail.reverse_path.mailbox is not None
        }

    async def settle(self, key: int, id: str, some: Sequence[Settlement], *reports: int) -> None:
        """Settle, with reports of so many octets; again and again, as the dispatcher does."""
        fresh = [
            Fresh(
                Mail(None),
                (Rcpt(f"0@{key}.example"),),
                content_of(key, octets, next(self.parts)),
                "",
            )
            for octets in reports
        ]

        def apply(mails: Mails) -> None:
            for content, owed in list(mails.items()):
                if content.startswith(b"%d 0\r\n" % key) and not owed.keys().isdisjoint(
                    [s.recipient for s in some]
                ):
                    for s in some:
                        rcpt, attempts, *_ = owed.pop(s.recipient, (b"", 0))
                        if s.next_attempt is not None and rcpt:
                            owed[s.recipient] = rcpt, attempts + 1, s.next_attempt, s.reply
                    if not owed:
                        del mails[content]
                    for new in fresh:
                        mails[new.content] = {0: (new.rcpts[0].serialize(), 0, 5.0, None)}

        for _ in range(3):
            step = Step(key, apply)
            if await self._ask(step, lambda: self.spool.settle(id, some, fresh, now=5.0)):
                break

    async def delete(self, key: int, id: str) -> None:
        await self._ask(Step(key, lambda mails: mails.clear()), lambda: self.spool.delete(id))


async def work(path: Path, tape: Tape) -> int:
    """All that a spool does, twice over, with a restart between; return how often it refused."""
    dice = random.Random(3)
    parts = itertools.count(1)
    refused = 0
    for first in (0, 10):
        try:
            async with SQLiteSpool.open(
                path, disk=tape, clock=lambda: 1e6, random=dice.randrange
            ) as spool:
                client = Client(spool, tape, parts)
                await _day(client, first)
                refused += client.refused
        except SpoolUnavailable:
            refused += 1
    return refused


async def _day(client: Client, first: int) -> None:
    async with anyio.create_task_group() as tasks:
        for key in range(first, first + 6):
            tasks.start_soon(client.keep, key, [40, 9000, 3000][key % 3])
    async with client.spool.receive() as left:
        try:
            await left.write(bytes(9000))
        except SpoolUnavailable:
            client.refused += 1
    ids = await client.claim()
    some = [
        (Settlement(0, None), Settlement(1, None)),  # delivered
        (Settlement(0, None), Settlement(1, 900.0, "450 later")),
        (Settlement(0, 800.0), Settlement(1, 900.0, "450 later")),
    ]
    reports = [(), (500,), (9000,)]
    async with anyio.create_task_group() as tasks:
        for key, id in ids.items():
            if key != first + 3:
                settle = partial(client.settle, key, id, some[key % 3], *reports[key % 7 % 3])
                tasks.start_soon(settle)
        tasks.start_soon(client.keep, first + 6, 6000)
    if first + 3 in ids:
        await client.delete(first + 3, ids[first + 3])
    await client.keep(first + 7, 2000, 1)
    if first + 4 in ids:
        await client.settle(first + 4, ids[first + 4], [Settlement(1, None)], 100, 9000)


# What is found


class NoSync(Disk):
    """For disks that nothing happens to."""

    def sync(self, file: int) -> None:
        pass


async def found_in(path: Path, disk: Disk) -> Mails:
    """Open the spool, and return what it has; fail where it is not sound in itself."""
    async with SQLiteSpool.open(path, disk=disk) as spool:
        entries = await spool.claim(1000.0, 1000, 60.0)  # all: no lease has outlived the cut
        found: Mails = {}
        in_files: set[str] = set()
        for entry in entries:
            content = b"".join([chunk async for chunk in spool.content(entry.id)])
            assert content not in found
            assert len(content) == entry.octets
            if entry.octets > incoming.INLINE_OCTETS:
                in_files.add(entry.id)
            found[content] = {
                r.number: (r.rcpt.serialize(), r.attempts, r.next_attempt, r.last_reply)
                for r in entry.recipients
            }
        assert {file.name for file in (path / "content").iterdir()} == in_files
        verdict = await spool.database.read(
            lambda db: [
                db.execute("PRAGMA integrity_check").fetchall(),
                db.execute("SELECT count(*) FROM message").fetchone(),
            ]
        )
        assert verdict == [[("ok",)], (len(entries),)]
    return found


def put(image: Image, path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    for name, content in image.items():
        if content is None:
            (path / name).mkdir()
        else:
            (path / name).write_bytes(content)
    # SQLite's index of its log is no file but memory; whatever of it is left means nothing.
    (path / "spool.db-shm").write_bytes(b"left from before" * 2048)


def relative(image: Image, root: Path) -> Image:
    return {path.relative_to(root): content for path, content in image.items()}


@define
class Enumeration:
    """Goes through a tape, and through all that a cut may leave of it."""

    root: Path
    tape: Tape
    scratch: Path
    promise: Promise = field(factory=Promise)
    before: Image = field(factory=dict[Path, bytes | None])
    seen: set[tuple[int, bytes]] = field(factory=set[tuple[int, bytes]])
    opened: int = 0

    def disks(self, ways: Sequence[Way], moments: Container[int]) -> Iterator[tuple[Image, str]]:
        """Give each disk that may be left at each of some moments, once, and say which it is."""
        platter = Platter(self.root, self.before)
        promised = 0  # counts what the promise has heard
        log: list[str] = []
        for moment, operation in enumerate([None, *self.tape.operations]):
            if isinstance(operation, (Began, Returned)):
                self.promise.hear(operation)
                promised += 1
                log.append(type(operation).__name__)
            elif operation is not None:
                platter.play(operation)
                log.append(str(operation))
            for n, way in enumerate(ways if moment in moments else ()):
                image = relative(platter.cut(way, n), self.root)
                mark = hashlib.sha256(repr(sorted(image.items())).encode()).digest()
                if (promised, mark) not in self.seen:
                    self.seen.add((promised, mark))
                    lines = "\n  ".join(log[-8:])
                    yield image, f"cut at {moment}, {type(way).__name__}:\n  {lines}"

    async def run(
        self, ways: Sequence[Way] = WAYS, *, moments: Container[int] | None = None, again: int = 0
    ) -> None:
        """Look at each disk; and at one in `again`, cut the power during recovery, too."""
        if moments is None:
            moments = range(len(self.tape.operations) + 1)
        with Tape(real=False).runs():
            for image, where in self.disks(ways, moments):
                try:
                    put(image, self.scratch)
                    if again and self.opened % again == again - 1:
                        await self._cut_again(image)
                        put(image, self.scratch)
                    self.promise.hold(await found_in(self.scratch, NoSync()))
                except BaseException as error:
                    error.add_note(where)
                    raise
                self.opened += 1

    async def _cut_again(self, image: Image) -> None:
        with Tape().runs() as tape:
            await found_in(self.scratch, tape)
        before = {self.scratch / path: content for path, content in image.items()}
        second = self.scratch.with_name("again")
        inner = Enumeration(self.scratch, tape, second, self.promise, before)
        await inner.run([Dropped(), Kept(), LastTorn(), Torn()])
        self.opened += inner.opened
