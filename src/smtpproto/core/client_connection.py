"""The client's end: sends commands and content, pulls replies."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TypeAlias

from .command import BASE_VERBS, Auth, AuthResponse, Command, Ehlo, Helo, Mail, Rcpt
from .connection import DEFAULT_LIMITS, Connection, Limits
from .content import DotWriter
from .errors import GrammarError, LocalProtocolError, RemoteProtocolError
from .event import NEED_DATA, PAUSED, ConnectionClosed, Content, EndOfContent, Signal
from .extension import Extension
from .grammar import EHLO_LINE
from .reply import Reply, ReplyReader, Severity
from .state import Asked, Greeting, State, moves, next_state

__all__ = ["ClientConnection", "ClientEvent"]

ClientEvent: TypeAlias = Reply | ConnectionClosed

_BASE = frozenset((*BASE_VERBS.values(), AuthResponse))


class ClientConnection(Connection):
    """The client's end of one session.

    `extensions` is what it knows; what the server offers is learned from its reply to EHLO, and
    nothing is sent that was not offered. Replies come in the order of what was sent.

    It keeps two cursors: `state`, by what was answered, and `asked`, by what was sent if all of
    it succeeds. Pipelining (RFC 2920) is their distance, `owed`.
    """

    def __init__(
        self, extensions: Sequence[Extension] = (), *, limits: Limits = DEFAULT_LIMITS
    ) -> None:
        super().__init__(extensions, limits)
        #: Keyword -> argument, as the server's last reply to EHLO had them.
        self.offered: dict[str, str] = {}
        self._owed: deque[Command | EndOfContent | Greeting] = deque([Greeting()])
        # How many octets had come when each of those was asked: its reply begins behind them.
        self._marks = deque([0])
        self._pulled = 0  # octets taken off the buffer
        self._begun = 0  # where the reply that is being read began
        self._asked = State.GREETED
        self._asked_is_stale = False
        self._reader = ReplyReader(limits.reply)
        self._writer: DotWriter | None = None
        self._broken = False
        self._verbs = {verb: e.keyword for e in extensions for verb in e.verbs}
        self._judges = [(e.keyword, e.judge) for e in extensions if e.judge is not None]
        self._parameters = {
            Mail: {p.keyword: (e.keyword, p) for e in extensions for p in e.mail},
            Rcpt: {p.keyword: (e.keyword, p) for e in extensions for p in e.rcpt},
        }

    @property
    def owed(self) -> int:
        """How many replies are to come."""
        return len(self._owed)

    @property
    def asked(self) -> State:
        """Where the session will be when all that is owed has been answered well."""
        if self._asked_is_stale:
            state = self._state
            for thing in self._owed:
                state = _expected(state, type(thing)) or state
            self._asked = state
            self._asked_is_stale = False
        return self._asked

    # Values in, octets out

    def send(self, thing: Command | Content | EndOfContent) -> bytes:
        """Return what to write for a command, a piece of content, or its end.

        LocalProtocolError, and nothing is to be written, when it is out of sequence, may not be
        pipelined here, was not offered, or is too long; or when unread input waits: a reply
        received before a command can never be its answer. Content with a bare CR or LF is
        refused so too, and then there is nothing left but to close the connection.
        """
        if self._broken or self._state in (State.CLOSED, State.TLS):
            raise LocalProtocolError(f"nothing can be sent in {self._state.name}")
        if not isinstance(thing, Command):
            return self._send_content(thing)
        if self._owed:
            last = self._owed[-1]
            if not (isinstance(last, Command) and last.pipelined and "PIPELINING" in self.offered):
                raise LocalProtocolError("the reply to what was sent last has to come first")
        else:
            self._check_nothing_waits()
        expected = _expected(self.asked, type(thing))
        if expected is None:
            raise LocalProtocolError(f"{type(thing).__name__} is out of sequence in {self.asked}")
        wire = thing.serialize()
        self._check_offered(thing, len(wire))
        self._ask(thing)
        self._asked = expected
        return wire

    def _check_nothing_waits(self) -> None:
        # Nothing is owed, so whatever is there already can be no answer to what comes next.
        if self.buffered or self._reader.inside:
            raise LocalProtocolError("unread input: call next_event() first")

    def _check_offered(self, command: Command, length: int) -> None:
        if type(command) not in _BASE:
            keyword = self._verbs.get(type(command), command.verb.decode())
            if keyword not in self.offered:
                raise LocalProtocolError(f"the server does not offer {keyword}")
        if isinstance(command, Auth) and self.authenticated:
            raise LocalProtocolError("already authenticated (RFC 4954 §4)")
        # RFC 4954 §4: the AUTH line itself keeps to RFC 5321's limit.
        longest = 512 if isinstance(command, Auth) else command.max_line
        if isinstance(command, (Mail, Rcpt)):
            known = self._parameters[type(command)]
            for keyword, value in command.parameters.items():
                extension, parameter = known.get(keyword, (keyword, None))
                if parameter is None or extension not in self.offered:
                    raise LocalProtocolError(f"the server does not offer {extension}")
                try:
                    parameter.read(value)
                except GrammarError as error:
                    raise LocalProtocolError(str(error)) from None
                longest += parameter.octets
        for keyword, judge in self._judges:
            if keyword in self.offered and (refusal := judge(command, self.offered)) is not None:
                raise LocalProtocolError(refusal.text)
        if length - 2 * isinstance(command, AuthResponse) > longest:
            raise LocalProtocolError(f"a line of {length} octets; at most {longest} are allowed")

    def _send_content(self, thing: Content | EndOfContent) -> bytes:
        if self._writer is None or self._owed:
            raise LocalProtocolError("content is for after the 354 to DATA")
        self._check_nothing_waits()
        try:
            if isinstance(thing, Content):
                return self._writer.feed(thing.data)
            wire = self._writer.finish()
        except LocalProtocolError:
            self._broken = True
            raise
        self._writer = None
        self._ask(thing)
        self._asked = State.READY
        return wire

    def _ask(self, thing: Command | EndOfContent) -> None:
        self._owed.append(thing)
        self._marks.append(self._pulled + self.buffered)

    # Octets in, events out

    def next_event(self) -> ClientEvent | Signal:
        """Pull the next reply; PAUSED while the TLS handshake is owed.

        A 421 comes whether or not something is owed, and closes. RemoteProtocolError: octets
        that are no reply or go on without end, a reply that nobody asked for or that is no
        answer to what was asked, anything between the 220 to STARTTLS and the handshake.
        """
        if self._state is State.CLOSED:
            return ConnectionClosed()
        if self._state is State.TLS:
            self._no_clear_text()
            return self._close() if self._eof else PAUSED
        while (found := self._buffer.take_line(self.limits.reply)) is not None:
            line, length = found
            if length > self.limits.reply:
                raise self._lost("a reply without end")
            if not self._reader.inside:
                self._begun = self._pulled
            self._pulled += length
            try:
                reply = self._reader.feed(line)
            except GrammarError as error:
                raise self._lost(str(error)) from None
            if reply is not None:
                return self._answered(reply)
        if self._buffer.line_length > self.limits.reply:
            raise self._lost("a reply without end")
        return self._close() if self._eof else NEED_DATA

    def _answered(self, reply: Reply) -> Reply:
        if reply.code == 421:
            if self._owed:
                self._owed.popleft()
            self._close()
            return reply
        if not self._owed:
            raise self._lost(f"a reply that nobody asked for: {reply.code}")
        thing = self._owed[0]
        state = next_state(self._state, type(thing), reply)
        if state is None:
            raise self._lost(f"{reply.code} is no answer to {type(thing).__name__}")
        if self._begun < self._marks.popleft():
            raise self._lost(f"a reply from before its command: {reply.code}")
        self._owed.popleft()
        self._asked_is_stale = True
        self._state = state
        if state is State.TLS:
            self._no_clear_text()
        elif state is State.CONTENT:
            self._writer = DotWriter()
        elif state is State.CLOSED:
            self._close()
        elif reply.severity is Severity.COMPLETION:
            if isinstance(thing, (Auth, AuthResponse)):
                self.authenticated = True
            elif isinstance(thing, (Ehlo, Helo)):
                self.offered = _offered(reply) if isinstance(thing, Ehlo) else {}
        return reply

    def _close(self) -> ConnectionClosed:
        self._asked_is_stale = True  # what is still owed will not come
        return super()._close()

    def _lost(self, message: str) -> RemoteProtocolError:
        self._close()
        return RemoteProtocolError(message)

    def _no_clear_text(self) -> None:
        # RFC 3207 §4: what stands behind the 220 was put there by somebody in between.
        if self.buffered:
            raise self._lost("octets in clear between the 220 to STARTTLS and the handshake")

    def _discard_clear_text(self) -> None:
        self._no_clear_text()

    def _forget(self) -> None:
        self.offered = {}
        self.authenticated = False
        self._asked_is_stale = True


def _expected(state: State, asked: Asked | type[Greeting]) -> State | None:
    """Return where a good answer leads; None where `asked` is out of sequence."""
    row = moves(state, asked)
    if row is None:
        return None
    return row.get(Severity.COMPLETION) or row.get(Severity.INTERMEDIATE)


def _offered(reply: Reply) -> dict[str, str]:
    """Read the keyword lines of a reply to EHLO; lines that are none are passed over."""
    offered: dict[str, str] = {}
    for line in reply.lines[1:]:
        match = EHLO_LINE.fullmatch(line)
        if match is not None:
            offered[match[1].decode().upper()] = " ".join(match[2].decode().split())
    return offered
