"""What a client's session goes through, told as it happens: to measure it, log it, show it.

::

    async with Client("mail.example.org", observe=print) as client: ...

An observer is called with one frozen value for each thing that happens. No event holds a
password, a response of a login or any content, so all of them may be kept. `wire_log` makes an
observer of something that takes lines of text, `progress` one of something that takes octets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from attrs import frozen

from .core.command import Bdat, Command
from .core.event import Chunk, EndOfContent, TlsInfo
from .core.reply import Reply
from .stream import shown

__all__ = [
    "Closed",
    "CommandSent",
    "Connected",
    "ContentProgress",
    "Event",
    "Observer",
    "ReplyReceived",
    "TlsStarted",
    "command_sent",
    "progress",
    "wire_log",
]


@frozen
class Connected:
    """There is a stream. `peer` and `local` are IP address and port, ("", 0) where it has none."""

    host: str
    port: int
    peer: tuple[str, int]
    local: tuple[str, int]
    seconds: float  # that it took


@frozen
class TlsStarted:
    """The handshake is done; `seconds` is how long it took."""

    info: TlsInfo
    seconds: float


@frozen
class CommandSent:
    """A command leaves, with the next write at the latest.

    `line` is what it looks like on the wire, secrets as `****`. A response within a login has
    the verb `""`; the end of the content is `.`, a chunk of it its BDAT line.
    """

    verb: str
    line: str


@frozen
class ReplyReceived:
    """A reply came, `seconds` after what it answers was given to the stream.

    `verb` is that of the command, as in CommandSent; `greeting` for the first of all.
    """

    verb: str
    reply: Reply
    seconds: float


@frozen
class ContentProgress:
    """So many octets of the content are with the transport; of `total`, where that is known.

    They count as SIZE does (RFC 1870 §3). Nothing is accepted before the last reply.
    """

    octets: int
    total: int | None


@frozen
class Closed:
    """The stream is closed; `reason` says why, and is empty where we wanted it so."""

    reason: str = ""


Event: TypeAlias = "Connected | TlsStarted | CommandSent | ReplyReceived | ContentProgress | Closed"
Observer: TypeAlias = Callable[[Event], None]


def command_sent(thing: Command | Chunk | EndOfContent) -> CommandSent:
    """Make the event of something that is sent, without its secrets."""
    if isinstance(thing, Chunk):
        thing = Bdat(len(thing.data), thing.last)
    verb = thing.verb.decode() if isinstance(thing, Command) else "."
    return CommandSent(verb, "".join(shown(thing)))


def wire_log(write: Callable[[str], None]) -> Observer:
    """Write the dialogue line by line, as in `C: EHLO example.org` and `S: 250 ok`.

    Nothing in a line can end it or steer a terminal.
    """

    def observer(event: Event) -> None:
        if isinstance(event, CommandSent):
            write(f"C: {event.line}")
        elif isinstance(event, ReplyReceived):
            for line in shown(event.reply):
                write(f"S: {line}")

    return observer


def progress(report: Callable[[int, int | None], None]) -> Observer:
    """Call `report(octets, total)` while content is sent, as in ContentProgress."""

    def observer(event: Event) -> None:
        if isinstance(event, ContentProgress):
            report(event.octets, event.total)

    return observer
