"""The client's end: sends commands and content, pulls replies."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Sequence
from itertools import repeat
from typing import TypeAlias

from .command import (
    BASE_VERBS,
    LMTP_VERBS,
    Auth,
    AuthResponse,
    Bdat,
    Command,
    Data,
    Ehlo,
    Expn,
    Helo,
    Help,
    Lhlo,
    Mail,
    Query,
    Quit,
    Rcpt,
    Rset,
    StartTls,
)
from .connection import DEFAULT_LIMITS, Connection, Limits
from .content import DotWriter, LineEnds
from .errors import GrammarError, LocalProtocolError, RemoteProtocolError
from .event import NEED_DATA, PAUSED, Chunk, ConnectionClosed, Content, EndOfContent, Lines, Signal
from .extension import Extension, by_keyword
from .grammar import CONTROL, EHLO_LINE
from .parameter import NO_PARAMETERS
from .path import as_domain
from .refusal import NON_ASCII_RECIPIENT, NON_ASCII_SENDER, not_offered
from .reply import Reply, ReplyReader, Severity
from .state import SILENT, Asked, Greeting, State, expected, state_after

__all__ = ["ClientConnection", "ClientEvent"]

ClientEvent: TypeAlias = Reply | ConnectionClosed

NEEDS_TLS = Reply(523, "5.7.10", "REQUIRETLS is for verified TLS sessions (RFC 8689 §2)")
_CANCELS = AuthResponse(None)

# What is asked of every reply: up to Python 3.12 a class of Enum is slow to look into.
_COMPLETION = Severity.COMPLETION
_CONTENT, _TLS, _CLOSED = State.CONTENT, State.TLS, State.CLOSED


# What any server may be asked; old ones never announce EXPN and HELP.
_BASE = frozenset((*BASE_VERBS.values(), *LMTP_VERBS.values(), AuthResponse, Expn, Help))


class ClientConnection(Connection):
    """The client's end of one session.

    `extensions` is what it knows; what the server offers is learned from its reply to EHLO, and
    nothing is sent that was not offered. Replies come in the order of what was sent.

    `lmtp` speaks LMTP (RFC 2033): Lhlo, and a reply to the content for each accepted recipient.
    `any_octets` lets content beyond ASCII pass where MAIL did not declare it (RFC 6152 §3), as much
    old software sends it.

    It keeps two cursors: `state`, by what was answered, and `asked`, by what was sent if all of
    it succeeds. Pipelining (RFC 2920) is their distance, `owed`.
    """

    def __init__(
        self,
        extensions: Sequence[Extension] = (),
        *,
        limits: Limits = DEFAULT_LIMITS,
        lmtp: bool = False,
        any_octets: bool = False,
    ) -> None:
        super().__init__(limits)
        self.lmtp = lmtp
        self._any_octets = any_octets
        #: Keyword -> argument, as the server's last reply to EHLO had them.
        self.offered: dict[str, str] = {}
        self._owed: deque[Command | EndOfContent | Greeting] = deque([Greeting()])
        # How many octets had come when each of those was asked: its reply begins behind them.
        self._marks = deque([0])
        self._pulled = 0  # octets taken off the buffer
        self._begun = 0  # where the reply that is being read began
        # Where each of those leads if all goes well up to it.
        self._path = deque([State.GREETED])
        self._reader = ReplyReader(limits.reply)
        self._writer: DotWriter | None = None
        self._line_ends: LineEnds | None = None  # of the chunks so far
        self._mail: Mail | None = None  # of the transaction as it was asked for
        self._accepted = 0  # recipients of this transaction
        self._replies_left = 0  # to the end of the content, once its first has come
        self._broken = False
        self._must_reset = False  # a chunk was refused
        self._resets = 0  # how many RSETs are owed a reply
        self._verbs = {verb: e.keyword for e in extensions for verb in e.verbs}
        self._judges = [(e.keyword, e.judge) for e in extensions if e.judge is not None]
        self._parameters = {
            Mail: by_keyword((e, p) for e in extensions for p in e.mail),
            Rcpt: by_keyword((e, p) for e in extensions for p in e.rcpt),
        }

    @property
    def owed(self) -> int:
        """How many replies are to come."""
        return len(self._owed)

    @property
    def asked(self) -> State:
        """Where the session will be when all that is owed has been answered well."""
        return self._path[-1] if self._path and self._state is not _CLOSED else self._state

    @property
    def must_reset(self) -> bool:
        """Whether nothing but RSET or QUIT may come next: a chunk was refused (RFC 3030 §2)."""
        return self._must_reset

    def objection(self, command: Mail | Rcpt) -> Reply | None:
        """Return what a command has earned by what this server does not offer; None if it may go.

        So a caller learns beforehand, and with a status, what `send` would refuse. Whatever
        the server offers, a malformed parameter or a line too long is a LocalProtocolError.
        """
        if "SMTPUTF8" not in self.offered:
            if not command.is_ascii:
                return NON_ASCII_SENDER if isinstance(command, Mail) else NON_ASCII_RECIPIENT
            if not command.parameters.is_ascii:
                return not_offered("SMTPUTF8")
        refusal = self._unoffered(command) or self._judged(command)
        if refusal is None:
            self._check_length(command, len(command.serialize()))
        return refusal

    # Values in, octets out

    def send(self, thing: Command | Content | EndOfContent | Chunk) -> bytes:
        """Return what to write for a command, a piece of content, or its end.

        After 354, Content and EndOfContent; where CHUNKING is offered, Chunks instead of DATA.

        LocalProtocolError, and nothing is to be written, when it is out of sequence, may not be
        pipelined here, was not offered, or is too long; or when unread input waits: a reply
        received before a command can never be its answer. Content with a bare CR or LF is
        refused so too, or beyond ASCII where MAIL had neither BODY=8BITMIME or BINARYMIME nor
        SMTPUTF8; after DATA there is nothing left then but to close the connection.
        """
        if isinstance(thing, Command):
            return self.send_group((thing,))
        self._check_open()
        return self._send_chunk(thing) if isinstance(thing, Chunk) else self._send_content(thing)

    def send_group(self, commands: Sequence[Command]) -> bytes:
        """Return what to write for commands that leave together (RFC 2920 §3.1).

        As if `send` took them one by one, but all or none: LocalProtocolError for one of them, and
        none was sent.
        """
        self._check_open()
        return self._send_commands(commands)

    def _send_commands(self, commands: Sequence[Command], *, chunk: bool = False) -> bytes:
        state, mail, must_reset, resets = self.asked, self._mail, self._must_reset, 0
        pipelining = "PIPELINING" in self.offered
        may_follow = self._may_follow(pipelining)
        path: list[State] = []
        wires: list[bytes] = []
        for command in commands:
            kind = type(command)
            if kind is not Rcpt and kind is not Mail and not chunk:
                self._check_kind(command)
            if not may_follow:
                raise LocalProtocolError("the reply to what was sent last has to come first")
            leads = expected(state, kind)
            if leads is None:
                raise LocalProtocolError(f"{kind.__name__} is out of sequence in {state.name}")
            wire = command.serialize()
            if must_reset and kind is not Rset and kind is not Quit:
                raise LocalProtocolError("RSET comes next behind a refused chunk (RFC 3030 §2)")
            if isinstance(command, (Rcpt, Mail)):  # most need nothing that has to be offered
                plain = command.parameters is NO_PARAMETERS and wire.isascii()
                mail = command if isinstance(command, Mail) else mail
            elif kind is Rset:
                plain, must_reset = True, False
                resets += 1
            else:
                plain = kind is Data and not _is_binary(mail)
            if not plain:
                self._check_offered(command, wire)
                self._check_transaction(command, wire, mail)
            path.append(leads)
            wires.append(wire)
            state, may_follow = leads, pipelining and kind.pipelined
        self._owed.extend(commands)
        self._path.extend(path)
        self._marks.extend(repeat(self._pulled + self.buffered, len(path)))
        self._mail, self._must_reset = mail, must_reset
        self._resets += resets
        return b"".join(wires)

    def _check_open(self) -> None:
        if self._broken or self._state in SILENT:
            raise LocalProtocolError(f"nothing can be sent in {self._state.name}")

    def _may_follow(self, pipelining: bool) -> bool:
        """Tell whether a command may follow what is owed a reply."""
        if self._owed:
            last = self._owed[-1]
            return pipelining and isinstance(last, Command) and last.pipelined
        self._check_nothing_waits()
        return True

    def _check_kind(self, command: Command) -> None:
        """Check what is told from a command alone."""
        _check_sendable(command, Command)
        if isinstance(command, Bdat):
            raise LocalProtocolError("send a Chunk, which has its BDAT line with it")
        if isinstance(command, (Ehlo, Helo)):
            if isinstance(command, Lhlo) is not self.lmtp:
                raise LocalProtocolError(f"no {command.verb.decode()} here (RFC 2033 §4.1)")
            as_domain(command.name)  # servers read more than may be written

    def _check_transaction(self, command: Command, wire: bytes, mail: Mail | None) -> None:
        """Check what hangs on what was said and answered in this transaction, begun by `mail`."""
        utf8 = isinstance(command, (Mail, Rcpt)) and not wire.isascii()
        if utf8 and (mail is None or "SMTPUTF8" not in mail.parameters):
            raise LocalProtocolError("UTF-8 needs MAIL with SMTPUTF8 (RFC 6531 §3.3)")
        if isinstance(command, Data) and _is_binary(mail):
            raise LocalProtocolError("BODY=BINARYMIME goes by BDAT (RFC 3030 §3)")

    def _check_nothing_waits(self) -> None:
        # Nothing is owed, so whatever is there already can be no answer to what comes next.
        if self.buffered or self._reader.inside:
            raise LocalProtocolError("unread input: call next_event() first")

    def _check_offered(self, command: Command, wire: bytes) -> None:
        if type(command) not in _BASE:
            if CONTROL.search(wire[:-2]) or wire[-2:] != b"\r\n":
                # An extension's verb writes its own argument.
                raise LocalProtocolError(f"not one line: {wire!r}")
            keyword = self._verbs.get(type(command), command.verb.decode())
            if keyword not in self.offered:
                raise LocalProtocolError(f"the server does not offer {keyword}")
        utf8 = isinstance(command, Query) and (command.smtputf8 or not command.is_ascii)
        if utf8 and "SMTPUTF8" not in self.offered:
            raise LocalProtocolError("the server does not offer SMTPUTF8 (RFC 6531 §3.7.4.2)")
        if isinstance(command, Auth):
            if self.authenticated:
                raise LocalProtocolError("already authenticated (RFC 4954 §4)")
            if command.mechanism not in self.offered["AUTH"].upper().split():
                raise LocalProtocolError(f"the server does not offer AUTH {command.mechanism}")
        if isinstance(command, StartTls) and self.tls is not None:
            raise LocalProtocolError("TLS is already on (RFC 3207 §4.2)")
        refusal = self._unoffered(command) if isinstance(command, (Mail, Rcpt)) else None
        refusal = refusal or self._judged(command)
        if refusal is not None:
            raise LocalProtocolError(refusal.text)
        self._check_length(command, len(wire))

    def _unoffered(self, command: Mail | Rcpt) -> Reply | None:
        if "REQUIRETLS" in command.parameters and not (self.tls and self.tls.verified):
            return NEEDS_TLS
        known = self._parameters[type(command)]
        for keyword, value in command.parameters.items():
            defined = known.get(keyword, {})
            parameter = next((p for e, p in defined.items() if e in self.offered), None)
            if parameter is None:
                return not_offered(" or ".join(defined) or keyword)
            try:
                parameter.read(value)
            except GrammarError as error:
                raise LocalProtocolError(str(error)) from None
        return None

    def _judged(self, command: Command) -> Reply | None:
        for keyword, judge in self._judges:
            if keyword in self.offered and (refusal := judge(command, self.offered)) is not None:
                return refusal
        return None

    def _check_length(self, command: Command, length: int) -> None:
        # RFC 4954 §4: the AUTH line itself keeps to RFC 5321's limit.
        longest = 512 if isinstance(command, Auth) else command.max_line
        if isinstance(command, (Mail, Rcpt)):
            known = self._parameters[type(command)]
            # Extensions that share a parameter agree on its length.
            shared = (known[keyword].values() for keyword in command.parameters)
            longest += sum(next(iter(parameters)).octets for parameters in shared)
        if length - 2 * isinstance(command, AuthResponse) > longest:
            raise LocalProtocolError(f"a line of {length} octets; at most {longest} are allowed")

    def _send_content(self, thing: Content | EndOfContent) -> bytes:
        _check_sendable(thing, Content, EndOfContent)
        if self._writer is None or self._owed:
            raise LocalProtocolError("content is for after the 354 to DATA")
        self._check_nothing_waits()
        try:
            if isinstance(thing, Content):
                self._check_octets(thing.data)
                return self._writer.feed(thing.data, clean=isinstance(thing, Lines))
            wire = self._writer.finish()
        except LocalProtocolError:
            self._broken = True
            raise
        self._writer = None
        self._owed.append(thing)
        self._path.append(State.READY)
        self._marks.append(self._pulled)  # and nothing waits
        return wire

    def _send_chunk(self, chunk: Chunk) -> bytes:
        # RFC 3030 §2: the replies to MAIL and RCPT come first.
        if self._owed and not isinstance(self._owed[-1], Bdat):
            raise LocalProtocolError("the replies to MAIL and RCPT have to come first")
        ends = copy.copy(self._line_ends) or LineEnds()
        ends.feed(chunk.data)
        if chunk.last:
            ends.finish()
        if ends.bare and not _is_binary(self._mail):
            # Nothing has been promised for this one: RSET is possible.
            raise LocalProtocolError("content with a bare CR or LF (RFC 5321 §2.3.8)")
        self._check_octets(chunk.data)
        line = self._send_commands((Bdat(len(chunk.data), chunk.last),), chunk=True)
        if chunk.last:
            self._path[-1] = State.READY  # where the end of the content leads
        self._line_ends = ends
        return line + chunk.data

    def _check_octets(self, content: bytes) -> None:
        if self._any_octets or content.isascii():
            return
        if _body(self._mail) in (b"8BITMIME", b"BINARYMIME"):
            return
        if self._mail is None or "SMTPUTF8" not in self._mail.parameters:
            raise LocalProtocolError("content beyond ASCII needs BODY=8BITMIME (RFC 6152 §3)")

    # Octets in, events out

    def next_event(self) -> ClientEvent | Signal:
        """Pull the next reply; PAUSED while the TLS handshake is owed.

        A 421 comes whether or not something is owed, and closes. RemoteProtocolError: octets
        that are no reply or go on without end, a reply that nobody asked for or that is no
        answer to what was asked, anything between the 220 to STARTTLS and the handshake.
        """
        if self._state in SILENT:
            if self._state is _CLOSED:
                return ConnectionClosed()
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
        asked = type(thing)
        if asked is Bdat:
            asked = _asked_by(thing)
        state = state_after(self._state, asked, reply.severity)
        if state is None:
            raise self._lost(f"{reply.code} is no answer to {type(thing).__name__}")
        if self._begun < self._marks[0]:
            raise self._lost(f"a reply from before its command: {reply.code}")
        if asked is AuthResponse and thing == _CANCELS and reply.code < 400:
            raise self._lost(f"{reply.code} is no answer to a cancelled AUTH (RFC 4954 §4)")
        if state is _CONTENT and self.lmtp and not self._accepted:
            raise self._lost("354 without a recipient (RFC 2033 §4.2)")
        if asked is EndOfContent and self._more_to_come():
            return reply
        self._owed.popleft()
        self._marks.popleft()
        self._state = state
        if state is not self._path.popleft():
            self._find_path()
        if asked is not Rcpt:
            self._take_effect(thing, reply)
        elif reply.severity is _COMPLETION:
            self._accepted += 1
        return reply

    def _take_effect(self, thing: Command | EndOfContent | Greeting, reply: Reply) -> None:
        """Do what comes of a reply beyond the next state."""
        self._resets -= isinstance(thing, Rset)
        if self._state is _TLS:
            self._no_clear_text()
        elif self._state is _CONTENT:
            self._writer = DotWriter()
        elif self._state is _CLOSED:
            self._close()
        elif isinstance(thing, Bdat) and reply.code >= 400:
            # In LMTP the last has an answer for each recipient, and none for itself.
            self._must_reset |= not (self._resets or (self.lmtp and thing.last))
        elif reply.severity is _COMPLETION:
            if isinstance(thing, Mail):
                self._accepted = 0
                self._line_ends = None
            elif isinstance(thing, Command) and thing.starts_over:
                self._forget()
            elif isinstance(thing, (Auth, AuthResponse)):
                self.authenticated = True
            elif isinstance(thing, (Ehlo, Helo)):
                self.offered = _offered(reply) if isinstance(thing, Ehlo) else {}

    def _more_to_come(self) -> bool:
        """Count a reply to the content; tell whether LMTP has another one (RFC 2033 §4.2)."""
        if not self._replies_left:
            self._replies_left = self._accepted if self.lmtp else 1
        self._replies_left -= 1
        return self._replies_left > 0

    def _find_path(self) -> None:
        """Find out where what is owed leads now, up to where that is as it was."""
        state = self._state
        for at, thing in enumerate(self._owed):
            state = expected(state, _asked_by(thing)) or state
            if self._path[at] is state:
                break
            self._path[at] = state

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


def _asked_by(thing: Command | EndOfContent | Greeting) -> Asked:
    """Return the row of the table: the last chunk asks for the verdict on the content."""
    if isinstance(thing, Bdat) and thing.last:
        return EndOfContent
    return type(thing)


def _body(mail: Mail | None) -> bytes:
    body = mail.parameters.get("BODY") if mail else None
    return (body or b"").upper()


def _is_binary(mail: Mail | None) -> bool:
    return _body(mail) == b"BINARYMIME"


def _check_sendable(thing: object, *kinds: type) -> None:
    # Octets, most likely: taken for the end of the content they would be the end of all.
    if not isinstance(thing, kinds):
        hint = "octets go as Content(octets), commands as Noop(), Mail(path)"
        raise LocalProtocolError(f"what is sent is no {type(thing).__name__}: {hint}")


def _offered(reply: Reply) -> dict[str, str]:
    """Read the keyword lines of a reply to EHLO; lines that are none are passed over."""
    offered: dict[str, str] = {}
    for line in reply.lines[1:]:
        match = EHLO_LINE.fullmatch(line)
        if match is not None:
            offered[match[1].decode().upper()] = " ".join(match[2].decode().split())
    return offered
