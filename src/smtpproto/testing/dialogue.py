r"""Plays a dialogue, written as people write them, against either end of the protocol.

One line each; `#` begins a comment, and empty lines are nothing::

    S: 220 mx.example ESMTP
    C: EHLO client.example
    S: 250-mx.example greets client.example
    S: 250-...
    S: 250 ...
    C: DATA\r\n.\n
    -- TLS

- `C: ` what the client sends, with CRLF behind it. `\r \n \t \0 \\` and `\x80` are octets.
  `C| ` is the same without the CRLF.
- The octets of a BDAT chunk are the lines behind it, in the same turn.
- `S: ` a line the server sends, exactly; `...` at the end stands for any rest.
- `-- TLS` the handshake succeeds; `-- EOF` the client closes; `-- CLOSED` the server's side is
  closed here, after its reply.

The `C:` lines between two `S:` lines arrive together, cut as the caller likes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from attrs import frozen

from smtpproto.core.client_connection import ClientConnection
from smtpproto.core.command import (
    BASE_VERBS,
    LMTP_VERBS,
    AuthResponse,
    Bdat,
    Command,
    parse_command,
)
from smtpproto.core.event import Chunk, ConnectionClosed, Content, EndOfContent, Signal
from smtpproto.core.reply import Reply
from smtpproto.core.server_connection import ServerConnection, ServerEvent
from smtpproto.core.state import State
from smtpproto.extensions import STANDARD

from .pair import Cut, Policy, answer, pieces, suggested, whole

__all__ = ["Dialogue", "DialogueError", "Line", "play_client", "play_server"]

_ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|([rnt0\\]))")
_NAMED = {"r": "\r", "n": "\n", "t": "\t", "0": "\0", "\\": "\\"}
_MARKS = ("C:", "C|", "S:", "--")


class DialogueError(AssertionError):
    """The dialogue went otherwise than it is written, or is not written as dialogues are."""


@frozen
class Line:
    """One line of a dialogue: its `number` in the text, its `mark`, its octets without CRLF."""

    number: int
    mark: str
    octets: bytes

    @property
    def wire(self) -> bytes:
        """What it is on the wire."""
        return self.octets if self.mark == "C|" else self.octets + b"\r\n"

    def fits(self, actual: bytes) -> bool:
        """Whether a line that the server sent, without CRLF, is this one."""
        if self.octets.endswith(b"..."):
            return actual.startswith(self.octets[:-3])
        return actual == self.octets


def _octets(text: str) -> bytes:
    def octet(match: re.Match[str]) -> str:
        return chr(int(match[1], 16)) if match[1] else _NAMED[match[2]]

    try:
        return _ESCAPE.sub(octet, text).encode("latin-1")
    except UnicodeEncodeError:
        raise DialogueError(f"write octets over 127 as \\xNN: {text!r}") from None


@frozen
class Dialogue:
    """The lines of a dialogue."""

    lines: tuple[Line, ...]

    @classmethod
    def parse(cls, text: str) -> Dialogue:
        """Read a dialogue; DialogueError names the line that is none."""
        lines: list[Line] = []
        for number, written in enumerate(text.split("\n"), 1):
            if not written.strip() or written.startswith("#"):
                continue
            mark, rest = written[:2], written[3:]
            if mark not in _MARKS or written[2:3] not in ("", " "):
                raise DialogueError(f"line {number} is neither C:, C|, S:, -- nor #: {written!r}")
            if mark == "--" and rest not in ("TLS", "EOF", "CLOSED"):
                raise DialogueError(f"line {number}: not TLS, EOF or CLOSED: {rest!r}")
            lines.append(Line(number, mark, _octets(rest)))
        return cls(tuple(lines))

    @property
    def client_octets(self) -> int:
        """How many octets the client sends in all: one more than there are points to cut at."""
        return sum(len(line.wire) for line in self.lines if line.mark.startswith("C"))

    @property
    def server_octets(self) -> int:
        """How many octets the server's lines have in all, taken as they are written."""
        return sum(len(line.wire) for line in self.lines if line.mark == "S:")


def _turns(lines: Iterable[Line]) -> Iterator[list[Line]]:
    """Group neighbouring lines of one speaker; each `--` line stands alone."""
    turn: list[Line] = []
    for line in lines:
        if turn and (line.mark[0] != turn[0].mark[0] or line.mark == "--"):
            yield turn
            turn = []
        turn.append(line)
    if turn:
        yield turn


def play_server(
    dialogue: Dialogue | str,
    server: ServerConnection,
    *,
    policy: Policy = suggested,
    cut: Cut = whole,
) -> list[ServerEvent]:
    """Play the client's part against `server`; return the events that it pulled.

    `policy` answers for the server; `cut` cuts each turn of the client's. DialogueError where
    the server says anything else than is written, or says more.
    """
    if isinstance(dialogue, str):
        dialogue = Dialogue.parse(dialogue)
    events, said = answer(server, policy)

    def feed(data: bytes) -> None:
        nonlocal said
        server.receive_data(data)
        pulled, wire = answer(server, policy)
        if not events or not isinstance(events[-1], ConnectionClosed):
            events.extend(pulled)
        said += wire

    for turn in _turns(dialogue.lines):
        first = turn[0]
        if first.mark == "S:":
            for line in turn:
                actual, end, said = said.partition(b"\r\n")
                if not end or not line.fits(actual):
                    raise DialogueError(f"line {line.number}: {line.octets!r}, not {actual!r}")
            continue
        if said:
            raise DialogueError(f"before line {first.number} the server said more: {said!r}")
        if first.octets == b"TLS":
            server.tls_started()
        elif first.octets == b"EOF" and first.mark == "--":
            feed(b"")
        elif first.mark == "--":
            if server.state is not State.CLOSED:
                raise DialogueError(f"line {first.number}: not closed but {server.state.name}")
        else:
            for piece in pieces(cut, b"".join(line.wire for line in turn)):
                feed(piece)
    if said:
        raise DialogueError(f"at the end the server said more: {said!r}")
    return events


def play_client(
    dialogue: Dialogue | str, client: ClientConnection, *, cut: Cut = whole
) -> list[Reply]:
    """Play the server's part against `client`, the mirror of `play_server`.

    The client sends the commands that are written, which therefore have to be ones that it may
    send and as it writes them; `cut` cuts the server's turns, of which `...` is no part.
    Returns the replies that the client pulled. DialogueError where its octets or the replies
    are others than those written.
    """
    if isinstance(dialogue, str):
        dialogue = Dialogue.parse(dialogue)
    replies: list[Reply] = []
    closed = False
    for turn in _turns(dialogue.lines):
        first = turn[0]
        if first.mark == "--":
            if first.octets == b"TLS":
                client.tls_started()
            elif first.octets == b"CLOSED" and not closed:
                raise DialogueError(f"line {first.number}: the client has not seen the end")
            continue
        if first.mark == "S:":
            texts = [
                line.octets[:-3] if line.octets.endswith(b"...") else line.octets for line in turn
            ]
            for piece in pieces(cut, b"".join(text + b"\r\n" for text in texts)):
                client.receive_data(piece)
                while not isinstance(event := client.next_event(), Signal):
                    if isinstance(event, ConnectionClosed):
                        closed = True
                        break
                    replies.append(event)
            if client.state is State.CLOSED:
                closed = True
            if client.owed and not closed:
                raise DialogueError(f"line {turn[-1].number}: {client.owed} replies are owed")
            continue
        lines = iter(turn)
        for line in lines:
            thing, wire = _thing(line, client), line.wire
            if isinstance(thing, Bdat):
                chunk = _chunk(line, thing, lines)
                wire += chunk.data
                sent = client.send(chunk)
            else:
                sent = client.send(thing)
            if sent != wire:
                raise DialogueError(f"line {line.number}: the client writes {sent!r}")
    return replies


_VERBS = {
    **BASE_VERBS,
    **LMTP_VERBS,
    **{verb.verb: verb for e in STANDARD for verb in e.verbs},
}


def _thing(line: Line, client: ClientConnection) -> Command | Content | EndOfContent:
    """Return what the client has to send for one written line."""
    if client.state is State.CONTENT:
        if line.wire == b".\r\n":
            return EndOfContent()
        return Content(line.wire.removeprefix(b"."))
    if client.state is State.AUTH:
        return AuthResponse.parse(line.octets)
    return parse_command(line.octets, _VERBS)


def _chunk(line: Line, bdat: Bdat, behind: Iterator[Line]) -> Chunk:
    """Gather the octets of a chunk from the lines behind its BDAT."""
    octets = b""
    while len(octets) < bdat.size and (next_line := next(behind, None)) is not None:
        octets += next_line.wire
    if len(octets) != bdat.size:
        raise DialogueError(f"line {line.number}: {len(octets)} octets behind it")
    return Chunk(octets, bdat.last)
