"""What `serve` says while it runs: for people, or a JSON object a line for programs.

A line of JSON has `time`, `level` and `event`. Of a message's story they are those of
`relay.story_file`; a record of Python's logging has `event` "log", `logger` and `message`; and what
the node says of itself has the names in `note`.

A busy node has thousands of events a second, and to write each by itself costs several times what
it costs to make a line of it. So what does not go to a terminal gathers for a moment (`run`).

Several processes may write to one pipe, and it keeps only what is short together (PIPE_BUF): what
is longer would be cut by others while nobody reads. So they take `Turns`.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TextIO

import anyio
import click
from attrs import define, field

from smtpproto.core.path import ForwardPath
from smtpproto.relay.reports.story import (
    Accepted,
    Bounced,
    Deferred,
    Delivered,
    Discarded,
    Event,
    Expanded,
    Failed,
    Held,
    Intervened,
    Judged,
    Refused,
    Reported,
    harmless,
)
from smtpproto.relay.reports.story_file import as_record, timestamp

from .console import amount, is_terminal, safe, say

__all__ = ["BY_OPERATOR", "Teller", "Turns", "in_words"]

#: Seconds in which events gather.
GATHER = 0.05
#: So many of a message's recipients are named when it is accepted.
NAMED = 5
BY_OPERATOR = "by the operator"
#: What the operator did, as something that has happened.
_DONE = {"hold": "held", "release": "released", "retry": "retried", "delete": "deleted"}
_LEVELS = {"head": "info", "good": "info", "dim": "info", "warn": "warning", "bad": "error"}


class Turns:
    """One process at a time, of those that have the same directory; who dies has had his turn.

    For systems with flock(2), which are those that have several processes. OSError.
    """

    def __init__(self, directory: Path) -> None:
        self._lock = os.open(directory, os.O_RDONLY)  # until the process ends
        self._here = threading.RLock()

    @contextmanager
    def take(self) -> Generator[None]:
        """Wait for the turn, and have it. Blocks."""
        import fcntl  # noqa: PLC0415 - there is none on Windows

        with self._here:
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._lock, fcntl.LOCK_UN)


@define
class Teller:
    """Prints events, and what the node has to say, in one of the two forms."""

    as_json: bool = False
    #: Where other processes write to the same.
    turns: Turns | None = None
    #: When, and what; while it gathers.
    _events: list[tuple[float, Event]] = field(factory=list[tuple[float, Event]], init=False)
    _more: anyio.Event = field(factory=anyio.Event, init=False)
    _gathers: bool = field(default=False, init=False)

    def listen(self, process: str = "") -> None:
        """Have Python's logging printed the same way, on the error stream.

        With the name of this `process` of the node, where several may say the same.
        """
        handler = _Handler(self)
        words = "%(levelname)s %(name)s: %(message)s"
        handler.setFormatter(
            _AsJson(process)
            if self.as_json
            else logging.Formatter(f"{process}: {words}" if process else words)
        )
        logging.basicConfig(handlers=[handler], level=logging.WARNING)

    def turn(self) -> AbstractContextManager[None]:
        """Have the turn to write, until the context is left. Blocks."""
        return nullcontext() if self.turns is None else self.turns.take()

    def event(self, event: Event) -> None:
        """Print one line of a message's story; soon, where it gathers."""
        if not self._events:
            self._more.set()
        self._events.append((time.time(), event))
        if not self._gathers:
            self._tell()

    async def run(self) -> None:
        """Let events gather where nobody sits before them, and print them, until cancellation."""
        tell = harmless(self._tell)
        self._gathers = self.as_json or not is_terminal(sys.stdout)
        try:
            while True:
                if not self._events:
                    self._more = anyio.Event()
                    await self._more.wait()
                await anyio.sleep(GATHER)
                tell()
        finally:
            self._gathers = False
            tell()

    def _tell(self) -> None:
        events, self._events = self._events, []
        if not self.as_json and is_terminal(sys.stdout):
            for when, event in events:
                word, style, said = in_words(event)
                say((f"{_clock(when)} {event.id} ", "dim"), (f"{word:<9} ", style), said)
        elif events:
            text = "\n".join([self._line(when, event) for when, event in events])
            with self.turn():
                click.echo(text)

    def _line(self, when: float, event: Event) -> str:
        word, style, said = in_words(event)
        if self.as_json:
            return _as_line(when, _LEVELS[style], as_record(event))
        return safe(f"{_clock(when)} {event.id} {word:<9} {said}")

    def note(self, event: str, text: str, **more: object) -> None:
        """Say something of the node itself; programs get its name and `more`, too."""
        self._tell()
        with self.turn():
            if self.as_json:
                click.echo(_as_line(time.time(), "info", {"event": event, "message": text, **more}))
            else:
                say(text)


def _as_line(when: float, level: str, record: dict[str, object]) -> str:
    return json.dumps({"time": timestamp(when), "level": level, **record})


def _clock(when: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(when))


class _Handler(logging.StreamHandler[TextIO]):
    def __init__(self, teller: Teller) -> None:
        super().__init__()
        self._teller = teller

    def emit(self, record: logging.LogRecord) -> None:
        with self._teller.turn():
            super().emit(record)


class _AsJson(logging.Formatter):
    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        found: dict[str, object] = {
            "time": timestamp(record.created),
            "level": record.levelname.lower(),
            "event": "log",
            "logger": record.name,
            "message": record.getMessage(),
        }
        if self._process:
            found["process"] = self._process
        if record.exc_info:
            found["exception"] = self.formatException(record.exc_info)
        return json.dumps(found)


def _some(paths: Sequence[ForwardPath]) -> str:
    more = f" and {len(paths) - NAMED} more" if len(paths) > NAMED else ""
    return ", ".join(map(str, paths[:NAMED])) + more


def in_words(event: Event) -> tuple[str, str, str]:
    """Return what happened in a word, its style, and the rest of the line."""
    match event:
        case Accepted():
            to = _some(event.forward_paths)
            said = f"from {event.reverse_path} for {to}, {amount(event.octets)}, {event.origin}"
            return "accepted", "head", said
        case Judged():
            style = "warn" if "=refuse" in event.said or "=defer" in event.said else "dim"
            return "judged", style, f"{event.peer} at {event.stage}: {event.said}"
        case Refused():
            to = _some(event.forward_paths)
            said = f"from {event.reverse_path} for {to}, {event.origin}: {event.reply}"
            return "refused", "warn", said
        case Bounced():
            what = event.action or "no report"
            said = f"{what} {event.status or ''}".rstrip()
            return "bounced", "warn", f"to {event.sender}, of {event.recipient}: {said}"
        case Expanded():
            return "expanded", "good", f"{event.forward_path} to {_some(event.becomes)}"
        case Delivered():
            return "delivered", "good", f"{event.forward_path} to {event.where}: {event.reply}"
        case Deferred():
            said = f"{event.forward_path} at {event.where}: {event.reply}"
            return "deferred", "warn", f"{said}; next try in {event.wait:.0f} s"
        case Held():
            return "held", "warn", f"{event.forward_path} {event.reason}"
        case Intervened():
            why = "" if event.reason in ("", BY_OPERATOR) else f": {event.reason}"
            return _DONE.get(event.did, event.did), "warn", f"{BY_OPERATOR}{why}"
        case Discarded():
            return "discarded", "warn", f"{event.forward_path} {event.reason}"
        case Failed():
            return "failed", "bad", f"{event.forward_path} at {event.where}: {event.reply}"
        case Reported():
            if not event.report:
                return "dropped", "bad", "there is nobody to report the failure to"
            reader = event.postmaster or event.reverse_path
            return "reported", "warn", f"to {reader} by {event.report}"
