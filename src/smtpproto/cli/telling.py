"""What `serve` says while it runs: for people, or a JSON object a line for programs.

A line of JSON has `time`, `level` and `event`. Of a message's story they are those of
`relay.story_file`; a record of Python's logging has `event` "log", `logger` and `message`; and what
the node says of itself has the names in `note`.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence

import click
from attrs import frozen

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
    Judged,
    Refused,
    Reported,
)
from smtpproto.relay.reports.story_file import as_record, timestamp

from .console import amount, say

__all__ = ["Teller", "in_words"]

#: So many of a message's recipients are named when it is accepted.
NAMED = 5
_LEVELS = {"head": "info", "good": "info", "dim": "info", "warn": "warning", "bad": "error"}


@frozen
class Teller:
    """Prints events, and what the node has to say, in one of the two forms."""

    as_json: bool = False

    def listen(self) -> None:
        """Have Python's logging printed the same way, on the error stream."""
        handler = logging.StreamHandler()
        handler.setFormatter(
            _AsJson() if self.as_json else logging.Formatter("%(levelname)s %(name)s: %(message)s")
        )
        logging.basicConfig(handlers=[handler], level=logging.WARNING)

    def event(self, event: Event) -> None:
        """Print one line of a message's story."""
        word, style, said = in_words(event)
        if self.as_json:
            self._print(_LEVELS[style], as_record(event))
            return
        now = time.strftime("%H:%M:%S")
        say((f"{now} {event.id} ", "dim"), (f"{word:<9} ", style), said)

    def note(self, event: str, text: str, **more: object) -> None:
        """Say something of the node itself; programs get its name and `more`, too."""
        if self.as_json:
            self._print("info", {"event": event, "message": text, **more})
        else:
            say(text)

    def _print(self, level: str, record: dict[str, object]) -> None:
        head = {"time": timestamp(time.time()), "level": level}
        click.echo(json.dumps({**head, **record}))


class _AsJson(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        found: dict[str, object] = {
            "time": timestamp(record.created),
            "level": record.levelname.lower(),
            "event": "log",
            "logger": record.name,
            "message": record.getMessage(),
        }
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
        case Discarded():
            return "discarded", "warn", f"{event.forward_path} {event.reason}"
        case Failed():
            return "failed", "bad", f"{event.forward_path} at {event.where}: {event.reply}"
        case Reported():
            if not event.report:
                return "dropped", "bad", "there is nobody to report the failure to"
            reader = event.postmaster or event.reverse_path
            return "reported", "warn", f"to {reader} by {event.report}"
