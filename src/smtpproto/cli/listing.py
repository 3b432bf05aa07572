"""Messages of a queue as `smtpproto queue` shows them: a table for people, JSON for programs.

The table is printed as it is read, so its columns have their widths beforehand. A message has a
line, and each recipient one below it, with the same edges; the last reply stands below that.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from attrs import define, field
from rich.text import Text

from smtpproto.relay.delivery.times import Times
from smtpproto.relay.spool.seam import Entry, Recipient

from .console import amount, columns, out, safe, say

__all__ = ["ENTRY", "RECIPIENT", "Listing", "ago", "as_dict", "now", "span", "state", "whom"]

#: Widths: id, or state and when it is tried next; age, or attempts; size. The rest is text.
_FIRST, _AGE, _OCTETS = 17, 6, 10
_TEXT = _FIRST + _AGE + _OCTETS + 4
#: The least that is left for text in a terminal.
_NARROW = 24

#: The members of a message in JSON: type and meaning.
ENTRY: Mapping[str, tuple[str, str]] = {
    "id": ("string", "what it is called in the log, in our 250 and in its Received line"),
    "arrived": ("number", "when it came: seconds since 1970, UTC"),
    "from": ("string", "the reverse-path in angle brackets; `<>` of a report"),
    "octets": ("number", "the size of its content"),
    "origin": ("string", "who handed it in, for people"),
    "held_until": ("number or null", "when its sender wanted it to go (RFC 4865), as `arrived`"),
    "wanted_by": ("number or null", "when its sender wanted it delivered (RFC 2852), as `arrived`"),
    "recipients": ("array", "those to whom it is still owed"),
}
#: The same of each recipient.
RECIPIENT: Mapping[str, tuple[str, str]] = {
    "to": ("string", "the forward-path, in angle brackets"),
    "from": ("string", "under what it goes on: that of the message, or of a list"),
    "attempts": ("number", "how often it was tried in vain"),
    "next_attempt": ("number or null", "when it is due, as `arrived`; null on hold"),
    "held": ("boolean", "whether it is on hold: see `queue release`"),
    "last_reply": ("string or null", "what the last attempt came to, or why it is on hold"),
}


def now() -> float:
    """Return the time as `time.time` does."""
    return datetime.now(UTC).timestamp()


@define
class Listing:
    """Prints messages one by one, and at last what they come to.

    `width` is that of the terminal, where long text is folded; None where there is none: for
    programs, a line is a line.
    """

    width: int | None = field(factory=columns)
    messages: int = 0
    octets: int = 0
    recipients: int = 0
    deferred: int = 0
    held: int = 0
    oldest: float | None = None

    def add(self, entry: Entry) -> None:
        """Print a message; before the first one, what the columns are."""
        if not self.messages:
            self._row(("ID", ""), "AGE", "SIZE", ("SENDER", "dim"), style="dim")
            self._row(("  STATE    NEXT", ""), "TRIES", "", ("RECIPIENT", "dim"), style="dim")
        self.messages += 1
        self.octets += entry.octets
        if self.oldest is None or entry.arrived < self.oldest:
            self.oldest = entry.arrived
        age = span(max(now() - entry.arrived, 0))
        sender = str(entry.mail.reverse_path)
        self._row((entry.id, "head"), age, _size(entry.octets), (sender, ""))
        for recipient in entry.recipients:
            self._recipient(entry, recipient)

    def _recipient(self, entry: Entry, recipient: Recipient) -> None:
        self.recipients += 1
        self.held += recipient.held
        self.deferred += recipient.attempts > 0 and not recipient.held
        word, next = _columns(entry, recipient)
        style = "warn" if recipient.held or recipient.attempts else ""
        tries = str(recipient.attempts or "")
        self._row((f"  {word:<8} {next}", style), tries, "", (whom(recipient), ""))
        if recipient.last_reply:
            self._row(("", ""), "", "", (recipient.last_reply, "dim"))

    def _row(
        self,
        first: tuple[str, str],
        age: str,
        size: str,
        text: tuple[str, str],
        style: str = "",
    ) -> None:
        head = f"{age:>{_AGE}}{size:>{_OCTETS}}  "
        lines = self._folded(safe(text[0]))
        say((f"{first[0]:<{_FIRST}}  ", first[1] or style), (head, style), (lines[0], text[1]))
        for line in lines[1:]:
            say(" " * _TEXT, (line, text[1]))

    def _folded(self, said: str) -> list[str]:
        if self.width is None:
            return [said]
        lines = Text(said).wrap(out(), max(self.width - _TEXT, _NARROW), overflow="fold")
        return [line.plain.rstrip() for line in lines] or [""]

    def end(self) -> None:
        """Print what they come to: the summary."""
        if not self.messages:
            return
        assert self.oldest is not None
        words = {"deferred": self.deferred, "on hold": self.held}
        some = ", ".join(f"{number} {word}" for word, number in words.items() if number)
        say(
            f"{_number(self.messages, 'message')} for {_number(self.recipients, 'recipient')}",
            f" ({some})" if some else "",
            f", {amount(self.octets)}; the oldest came {ago(self.oldest)}.",
        )


def _size(octets: int) -> str:
    return f"{octets} B" if octets < 1024 else amount(octets)


def _number(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _columns(entry: Entry, recipient: Recipient) -> tuple[str, str]:
    """Say in a word how it is with a recipient, and when it is tried next."""
    if recipient.held:
        return "on hold", ""
    asked = (Times.of(entry).release or 0) - now()
    if asked > 0:
        return "later", span(asked)  # as its sender asked
    left = recipient.next_attempt - now()
    # A rule, or a host that is held off, puts mail off untried; then there is a reply all the same.
    untried = "waits" if recipient.last_reply else "new"
    return "deferred" if recipient.attempts else untried, "now" if left <= 0 else span(left)


def ago(seconds: float) -> str:
    """Write how long ago something was: `3 h ago`."""
    return f"{span(max(now() - seconds, 0))} ago"


def span(seconds: float) -> str:
    """Write a time span for people: `40 s`, `7 min`, `3 h`, `2 d`."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def whom(recipient: Recipient) -> str:
    """Name a recipient, and the owner of the list through which it gets the message."""
    by = "" if recipient.mail is None else f", sent by {recipient.mail.reverse_path}"
    return f"{recipient.rcpt.forward_path}{by}"


def state(entry: Entry, recipient: Recipient) -> str:
    """Say in a sentence how it is with a recipient."""
    if recipient.held:
        return "on hold"
    asked = (Times.of(entry).release or 0) - now()
    if asked > 0:
        return f"held for {span(asked)}, as its sender asked"
    left = recipient.next_attempt - now()
    due = "due" if left <= 0 else f"next try in {span(left)}"
    if not recipient.attempts:
        return due
    return f"{due}; tried {recipient.attempts} time{'' if recipient.attempts == 1 else 's'}"


def as_dict(entry: Entry) -> dict[str, Any]:
    """Return a message as JSON has it: `ENTRY` and `RECIPIENT`."""
    times = Times.of(entry)
    return {
        "id": entry.id,
        "arrived": entry.arrived,
        "from": str(entry.mail.reverse_path),
        "octets": entry.octets,
        "origin": entry.origin,
        "held_until": times.begins if times.begins > entry.arrived else None,
        "wanted_by": None if times.wanted is None else times.wanted.at,
        "recipients": [
            {
                "to": str(recipient.rcpt.forward_path),
                "from": str((recipient.mail or entry.mail).reverse_path),
                "attempts": recipient.attempts,
                "next_attempt": None if recipient.held else abs(recipient.next_attempt),
                "held": recipient.held,
                "last_reply": recipient.last_reply,
            }
            for recipient in entry.recipients
        ],
    }
