"""The story of every message in a file of JSON lines, to be read when somebody asks.

Each line is an object: `time` (ISO 8601, UTC), `event` (the event's name in small letters), and the
event's fields, of which `reverse_path` is `from`, `forward_path` is `to` and `forward_paths` are
`recipients`. Names are not changed; there may be more of them one day.

Who writes is on the loop and never waits: lines go through a bounded queue to a thread. What the
disk does not take is lost and counted, and nothing happens to the mail.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from threading import Lock
from types import NoneType
from typing import Any, BinaryIO, cast, get_args

import anyio
from anyio import CapacityLimiter, to_thread
from attrs import fields, frozen

from smtpproto.core.errors import GrammarError
from smtpproto.core.path import ForwardPath, Mailbox, ReversePath
from smtpproto.core.status import EnhancedStatus

from .story import Event

__all__ = [
    "StoryFile",
    "Told",
    "add_to_story",
    "as_record",
    "event_of",
    "read_story",
    "timestamp",
]

log = logging.getLogger(__name__)

#: Events that may wait for the disk; more are lost.
WAITING = 10_000
#: Seconds in which lines gather, so that they go to the disk together.
GATHER = 0.05
#: Seconds that the last lines may take.
LAST = 5.0
#: Octets of a line that is read; a longer one is none of ours.
LONGEST = 1 << 22

_NAMES = {"reverse_path": "from", "forward_path": "to", "forward_paths": "recipients"}
_FIELDS = {name: field for field, name in _NAMES.items()}
_CLASSES: Mapping[str, type[Any]] = {each.__name__.lower(): each for each in get_args(Event)}


def _names(cls: type[Any]) -> Sequence[tuple[str, str]]:
    names: list[str] = [field.name for field in fields(cls)]
    return [(_NAMES.get(name, name), name) for name in names]


#: What an event is called, and what its fields are called there and here.
_SHAPES = {each: (name, _names(each)) for name, each in _CLASSES.items()}
_PLAIN = frozenset({str, int, float, NoneType})


def as_record(event: Event) -> dict[str, object]:
    """Return an event as JSON has it, without its time."""
    said, names = _SHAPES[type(event)]
    found: dict[str, object] = {"event": said}
    for name, field in names:
        value = getattr(event, field)
        found[name] = value if type(value) in _PLAIN else _plain(value)
    return found


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return [_plain(each) for each in cast("tuple[object, ...]", value)]
    return value if isinstance(value, (str, int, float)) or value is None else str(value)


def event_of(record: Mapping[str, object]) -> Event | None:
    """Return the event that a record is of; None for what is none, or not of this version."""
    made = _CLASSES.get(str(record.get("event")))
    if made is None:
        return None
    known = {field.name for field in fields(made)}
    given = {_FIELDS.get(name, name): value for name, value in record.items()}
    try:
        return cast(
            "Event", made(**{name: _read(name, given[name]) for name in known & given.keys()})
        )
    except (TypeError, GrammarError):
        return None


def _read(name: str, value: Any) -> object:
    match name:
        case "reverse_path":
            return ReversePath.read(str(value).encode())[0]
        case "forward_path":
            return ForwardPath.read(str(value).encode())[0]
        case "forward_paths" | "becomes":
            return tuple(ForwardPath.read(str(each).encode())[0] for each in value)
        case "sender" | "recipient":
            return Mailbox.parse(str(value))
        case "postmaster":
            return None if value is None else Mailbox.parse(str(value))
        case "status":
            return None if value is None else EnhancedStatus.parse(str(value))
        case _:
            return tuple(cast("list[object]", value)) if isinstance(value, list) else value


def timestamp(seconds: float) -> str:
    """Write a time as logs have it: ISO 8601 in UTC, to the millisecond."""
    whole, thousandths = divmod(round(seconds * 1_000_000) // 1000, 1000)
    return f"{_second(whole)}.{thousandths:03d}Z"


@lru_cache(16)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().removesuffix("+00:00")


class StoryFile:
    """Writes events to `path`: `observe` takes them, `run` carries them to the disk.

    Together with the older one beside it, `path.1`, the file has `limit` octets at most. `clock`
    gives wall time in seconds since the epoch.
    """

    def __init__(
        self,
        path: Path,
        *,
        limit: int = 1 << 26,
        clock: Callable[[], float] = time.time,
        waiting: int = WAITING,
    ) -> None:
        self.path = path
        self.limit = limit
        self.lost = 0
        self._clock = clock
        self._waiting = waiting
        self._queue: deque[tuple[float, Event]] = deque()
        self._more = anyio.Event()
        self._writing = Lock()
        self._limiter = CapacityLimiter(2)  # the one that hangs, and the next
        self._failing = False

    def observe(self, event: Event) -> None:
        """Take an event; it is lost if too many wait already.

        One that is of no message is left out: strangers could drive out the others with it.
        """
        if not event.id:
            return
        if len(self._queue) >= self._waiting:
            self.lost += 1
            return
        self._queue.append((self._clock(), event))
        if not self._more.is_set():
            self._more.set()

    async def run(self) -> None:
        """Write until cancellation; then what is left, in a few seconds."""
        try:
            while True:
                await self._more.wait()
                await anyio.sleep(GATHER)
                await self._flush()
        finally:
            with anyio.move_on_after(LAST, shield=True):
                await self._flush()

    async def _flush(self) -> None:
        self._more = anyio.Event()
        await to_thread.run_sync(self._write, abandon_on_cancel=True, limiter=self._limiter)

    def _write(self) -> None:
        # One after the other, also behind one that was left alone with a disk that hangs. And what
        # waits is taken here: a thread that is left alone may never come so far.
        with self._writing:
            self._write_next([self._queue.popleft() for _ in range(len(self._queue))])

    def _write_next(self, batch: Sequence[tuple[float, Event]]) -> None:
        if not batch:
            return
        chunk, lines = bytearray(), 0
        for when, event in batch:
            chunk += _line(when, event)
            lines += 1
            if len(chunk) > self.limit // 8:
                self._keep(bytes(chunk), lines)
                chunk, lines = bytearray(), 0
        self._keep(bytes(chunk), lines)

    def _keep(self, octets: bytes, lines: int) -> None:
        try:
            self._append(octets)
            self._failing = False
        except OSError as error:
            self.lost += lines
            if not self._failing:
                log.error("%s: the story is not written: %s", self.path, error.strerror or error)
            self._failing = True

    def _append(self, octets: bytes) -> None:
        descriptor = self._opened()
        try:
            size = os.fstat(descriptor).st_size
            if size and size + len(octets) > self.limit // 2:
                os.close(descriptor)
                descriptor = -1
                self.path.replace(_older(self.path))
                descriptor = self._opened()
            _write(descriptor, octets)
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    def _opened(self) -> int:
        return os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _line(when: float, event: Event) -> bytes:
    return json.dumps({"time": timestamp(when), **as_record(event)}).encode() + b"\n"


def add_to_story(path: Path, event: Event, when: float) -> None:
    """Add an event to a story file that a `StoryFile` writes, or has written. Blocks; OSError.

    Nothing is added where no story is kept. It is for its owner to keep it within its size.
    """
    for each in (path, _older(path)):  # that one, while its owner begins another
        with suppress(FileNotFoundError):
            descriptor = os.open(each, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            try:
                _write(descriptor, _line(when, event))
            finally:
                os.close(descriptor)
            return


def _write(descriptor: int, octets: bytes) -> None:
    """Add all of it to a file, or nothing."""
    size = os.fstat(descriptor).st_size
    view = memoryview(octets)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError:
        os.ftruncate(descriptor, size)  # no half of a line
        raise


def _older(path: Path) -> Path:
    return path.with_name(f"{path.name}.1")


@frozen
class Told:
    """A line of a story: when (ISO 8601, UTC), the record as it was read, and its event.

    `event` is None where this version knows none of that name.
    """

    time: str
    record: Mapping[str, object]
    event: Event | None


def read_story(path: Path, id: str) -> list[Told]:
    """Read what a story file tells of one message, and of the message that it reports on. Blocks.

    OSError if there is no such file; lines that are none are passed over.
    """
    needle = json.dumps(id).encode()
    found: list[Told] = []
    for line in _lines(path):
        if needle not in line:
            continue
        try:
            record: object = json.loads(line)
        except ValueError:
            continue
        if not isinstance(record, dict):
            continue
        told = cast("dict[str, object]", record)
        if id in (told.get("id"), told.get("report")):
            found.append(Told(str(told.get("time", "")), told, event_of(told)))
    return found


def _lines(path: Path) -> Iterator[bytes]:
    with ExitStack() as stack:
        # This one first: should it become the older in between, it is the same one twice.
        files: list[BinaryIO] = [stack.enter_context(path.open("rb"))]
        try:
            older = stack.enter_context(_older(path).open("rb"))
        except FileNotFoundError:
            pass
        else:
            if not os.path.sameopenfile(older.fileno(), files[0].fileno()):
                files.insert(0, older)
        for file in files:
            while line := file.readline(LONGEST):
                yield line
