"""The server's end: pulls commands and content, sends replies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias, TypeVar

from .answer import misleads
from .command import (
    BASE_VERBS,
    LMTP_VERBS,
    NOT_IMPLEMENTED,
    Auth,
    AuthResponse,
    Bdat,
    Command,
    Data,
    Ehlo,
    Helo,
    Lhlo,
    Mail,
    Query,
    Quit,
    Rcpt,
    Rset,
    StartTls,
    parse_command,
)
from .connection import DEFAULT_LIMITS, Connection, Limits
from .envelope import Envelope
from .errors import GrammarError, LocalProtocolError, RemoteProtocolError
from .event import (
    NEED_DATA,
    PAUSED,
    BadCommand,
    ConnectionClosed,
    Content,
    EndOfChunk,
    EndOfContent,
    Signal,
)
from .extension import Extension, Standing
from .offer import UNKNOWN_PARAMETER, Offer, offer_for, verbs_of
from .reception import Reception
from .refusal import (
    ALREADY_IN,
    ALREADY_TLS,
    AUTH_TOO_LONG,
    HTTP_VERBS,
    NO_BINARY,
    NO_RECIPIENT,
    NO_SIZE,
    NO_UTF8_REPLIES,
    NON_ASCII_RECIPIENT,
    NON_ASCII_SENDER,
    NON_ASCII_VALUE,
    NOT_SMTP,
    OUT_OF_SEQUENCE,
    TOO_LONG,
    TOO_MANY_ERRORS,
    TOO_MANY_RECIPIENTS,
    refusal_for,
)
from .reply import Reply, Severity
from .sasl import CANCELLED, Mechanism
from .state import SILENT, Asked, Greeting, State, expected, next_state
from .transaction import Transaction
from .welcome import greeting, hello, named, own_name

__all__ = ["ServerConnection", "ServerEvent"]

C = TypeVar("C", bound=Command)

ServerEvent: TypeAlias = (
    Command | BadCommand | Content | EndOfChunk | EndOfContent | ConnectionClosed
)

ACCEPTED = Reply(250, "2.0.0", "Message accepted")

_BASE = frozenset((*BASE_VERBS.values(), *LMTP_VERBS.values()))
_TLS_RECORD = b"\x16"  # first octet of a ClientHello
_HELLOS = frozenset((Ehlo, Helo, Lhlo))


class ServerConnection(Connection):
    """The server's end of one session.

    `hostname` is the domain or address literal it calls itself. `extensions` is what it knows:
    parsed, and shown to policy. `offer` is what it announces and permits; by default those that
    oblige the caller to nothing. `mechanisms` are those for AUTH; plaintext ones are announced
    under TLS only, unless `plaintext_auth`. `tls_available` says that STARTTLS can be honoured.
    `repair` makes CRLF of bare CR or LF after DATA, instead of refusing it. `lmtp` speaks LMTP
    (RFC 2033): LHLO, and a reply to the content for each accepted recipient.
    """

    def __init__(
        self,
        hostname: str,
        extensions: Sequence[Extension] = (),
        *,
        offer: Sequence[Extension] | None = None,
        limits: Limits = DEFAULT_LIMITS,
        mechanisms: Sequence[Mechanism] = (),
        plaintext_auth: bool = False,
        tls_available: bool = False,
        repair: bool = False,
        lmtp: bool = False,
    ) -> None:
        super().__init__(limits)
        self.lmtp = lmtp
        self.hostname = own_name(hostname)
        self.mechanisms = tuple(mechanisms)
        #: The name the client gave in EHLO or HELO; None before.
        self.helo_name: bytes | None = None
        #: The client said EHLO, so extensions apply: their verbs and parameters.
        self.extended = False
        #: The client talked before the greeting, which RFC 5321 §4.3.1 forbids.
        self.early_talker = False
        free = (e for e in extensions if not e.obliges)
        self._extensions = tuple(free if offer is None else offer)
        #: As given; another value counts from where the session begins, or begins anew.
        self.plaintext_auth = plaintext_auth
        self._tls_available, self._repair = tls_available, repair
        self._owed: Asked | None = Greeting
        self._asked: Command | EndOfContent | None = None
        self._suggestion: Reply | None = None  # None: the usual one
        self._only_refuse = False
        self._transaction = Transaction()
        self._receiving: Data | Bdat | None = None  # what asked for the octets that come now
        self._refused: tuple[BadCommand, Bdat] | None = None
        self._to_swallow = 0
        self._replies_left = 0  # to the end of the content
        self._bad_commands = 0
        self._verbs = verbs_of(tuple(extensions), lmtp=lmtp)
        self._offer = self._offer_now()

    # What is offered

    def _offer_now(self) -> Offer:
        usable = tuple(
            m.name
            for m in self.mechanisms
            if self.tls is not None or not (m.binds or (m.plaintext and not self.plaintext_auth))
        )
        standing = Standing(
            tls=self.tls is not None,
            tls_available=self._tls_available,
            mechanisms=usable,
            max_octets=self.limits.message,
            max_recipients=self.limits.recipients,
        )
        return offer_for(self._extensions, standing)

    @property
    def offered(self) -> Mapping[str, str]:
        """Keyword -> argument of the extensions offered now."""
        return self._offer.lines

    # What the transaction holds

    @property
    def envelope(self) -> Envelope | None:
        """The transaction's accepted MAIL and RCPTs; None until a recipient is accepted."""
        return self._transaction.envelope

    def preamble(self, verb: type[C]) -> C | None:
        """Return what MAIL or an extension's `preamble` verb said of this transaction, or the next.

        None if it said nothing; `Command.added_to` says what several of them come to.
        """
        said = self._transaction.said(verb)
        return said if isinstance(said, verb) else None

    def suggested_reply(self) -> Reply:
        """Return the usual reply to what was pulled last: 354, 221, all lines of EHLO, …

        For MAIL, RCPT and good content it accepts; for a BadCommand or a fault it refuses. For an
        extension's verb it is the command's own `suggested`, 502 unless the extension says other.
        LocalProtocolError when no reply is owed.
        """
        if self._owed is None:
            raise LocalProtocolError("no reply is owed")
        if self._suggestion is not None:
            return self._suggestion
        if self._owed is Greeting:
            return greeting(self.hostname, lmtp=self.lmtp)
        asked = self._asked
        if isinstance(asked, Ehlo):
            return hello(self.hostname, asked.name, self._offer.ehlo_lines)
        if isinstance(asked, Helo):
            return Reply(250, None, self.hostname)
        if isinstance(asked, Quit):
            return self.closing(Quit.suggested)
        return asked.suggested if isinstance(asked, Command) else ACCEPTED

    def closing(self, reply: Reply) -> Reply:
        """Return a 221 or 421 with our name before its text (§4.2.2), cut to what a line holds."""
        return named(self.hostname, reply)

    # Octets in, events out

    def next_event(self) -> ServerEvent | Signal:
        """Pull the next event; PAUSED while a reply or the TLS handshake is owed.

        Raises RemoteProtocolError, with the reply to send before closing, where the peer cannot
        be followed any more: a line without end, HTTP or TLS on this port, a BDAT of no size.
        """
        if self._owed is not None:
            return PAUSED
        if self._receiving is not None and self._transaction.reception is not None:
            return self._next_content(self._transaction.reception)
        if self._state in SILENT:
            if self._state is State.CLOSED:
                return ConnectionClosed()
            # What was pipelined behind STARTTLS came in clear, and is never executed.
            self._buffer.clear()
            return self._close() if self._eof else PAUSED
        if self._refused is not None:
            return self._swallow(*self._refused)
        line, length = self._buffer.take_line(self._offer.keep) or (None, self._buffer.line_length)
        if (self._buffer.peek(1) if line is None else line).startswith(_TLS_RECORD):
            raise self._lost("TLS where SMTP in clear was expected", NOT_SMTP)
        if length > self.limits.endless_line:
            raise self._lost("a line without end", TOO_LONG)
        if line is None:
            return self._close() if self._eof else NEED_DATA
        event = self._judge(line, length)
        command = event.command if isinstance(event, BadCommand) else event
        if command is None and isinstance(event, BadCommand) and self._may_be_bdat(event.line):
            # How many octets of content come now, nobody knows.
            raise self._lost("a chunk of no size", NO_SIZE)
        if isinstance(command, Bdat):
            self._owed = None  # not before its octets are here
            if isinstance(event, BadCommand):
                self._refused, self._to_swallow = (event, command), command.size
                return self._swallow(event, command)
            self._begin(command)
        else:
            self._asked = command
        return event

    def _may_be_bdat(self, line: bytes) -> bool:
        known = self._state is not State.AUTH and Bdat.verb in self._verbs
        return known and line[:4].upper() == Bdat.verb

    def _lost(self, message: str, reply: Reply) -> RemoteProtocolError:
        self._close()
        return RemoteProtocolError(message, reply)

    def _judge(self, line: bytes, length: int) -> Command | BadCommand:
        """Make a command of a line, or say what is wrong with it."""
        self._suggestion = None
        self._only_refuse = False
        if self._state is State.AUTH:
            self._owed = AuthResponse
            if length - 2 > AuthResponse.max_line:
                return self._bad(line, AUTH_TOO_LONG)
            try:
                response = AuthResponse.parse(line)
            except GrammarError as error:
                return self._bad(line, refusal_for(error))
            if response.data is None:  # RFC 4954 §4
                self._suggestion, self._only_refuse = CANCELLED, True
            return response
        self._owed = Command
        if length > self._offer.short:
            known = self._verb_of(line)
            longest = self._offer.max_line.get(known, known.max_line) if known else Command.max_line
            if length > longest:
                return self._bad(line, AUTH_TOO_LONG if known is Auth else TOO_LONG)
        try:
            command = parse_command(line, self._verbs)
        except GrammarError as error:
            self._verb_of(line)
            return self._bad(line, refusal_for(error))
        return self._place(line, command)

    def _verb_of(self, line: bytes) -> type[Command] | None:
        if (verb := line.partition(b" ")[0].upper()) in HTTP_VERBS:
            raise self._lost("HTTP on an SMTP port", NOT_SMTP)
        return self._verbs.get(verb)

    def _place(self, line: bytes, command: Command) -> Command | BadCommand:
        """Let a well-formed command pass if it is possible here and offered."""
        asked = type(command)
        foreign = asked not in _BASE
        if foreign and asked not in self._offer.verbs:
            if isinstance(command, StartTls) and self.tls is not None:
                return self._bad(line, ALREADY_TLS, command)
            if isinstance(command, Auth) and self.mechanisms:
                return self._bad(line, Auth.suggested, command)
            return self._bad(line, NOT_IMPLEMENTED, command)
        if expected(self._state, asked) is None:
            no_recipient = self._state is State.MAIL and isinstance(command, Bdat)
            reply = NO_RECIPIENT if no_recipient else OUT_OF_SEQUENCE[self._state]
            # Chunks behind a refused one may have been on their way (RFC 3030 §2).
            in_flight = self._state is State.SPOILED and isinstance(command, Bdat)
            return self._bad(line, reply, command, counts=not in_flight)
        if foreign and not self.extended and asked in self._offer.behind_ehlo:
            return self._bad(line, OUT_OF_SEQUENCE[State.GREETED], command)
        if isinstance(command, (Mail, Rcpt)):
            return self._place_path(line, command)
        if isinstance(command, Query) and not (self.extended and "SMTPUTF8" in self._offer.lines):
            if not command.is_ascii:
                return self._bad(line, NON_ASCII_RECIPIENT, command)
            if command.smtputf8:
                return self._bad(line, NO_UTF8_REPLIES, command)
        if isinstance(command, Data):
            if not self._transaction.rcpts:
                return self._bad(line, NO_RECIPIENT, command)
            if self._transaction.is_binary:
                return self._bad(line, NO_BINARY, command)
        if isinstance(command, Auth):
            if self.authenticated:
                return self._bad(line, ALREADY_IN, command)
            if command.mechanism not in self._offer.standing.mechanisms:
                return self._bad(line, Auth.suggested, command)
        if foreign and (refusal := self._offer.refusal(command)) is not None:
            return self._bad(line, refusal, command)
        self._owed = asked
        return command

    def _place_path(self, line: bytes, command: Mail | Rcpt) -> Command | BadCommand:
        asked = type(command)
        if not (line.isascii() or self._transaction.asks_for_utf8(command)):
            if not command.is_ascii:
                needs = NON_ASCII_SENDER if asked is Mail else NON_ASCII_RECIPIENT
                return self._bad(line, needs, command)
            if not command.parameters.is_ascii:
                return self._bad(line, NON_ASCII_VALUE, command)
        objection = None
        if command.parameters:
            objection = self._offer.objection(command, extended=self.extended)
            if objection is not None and objection is not UNKNOWN_PARAMETER:
                return self._bad(line, objection, command)
        if asked is Rcpt and len(self._transaction.rcpts) >= self.limits.recipients:
            return self._bad(line, TOO_MANY_RECIPIENTS, command, counts=False)
        self._owed = asked
        if objection is not None:  # policy may know the parameter better
            return self._bad(line, objection, command, only_refuse=False)
        return command

    def _bad(
        self,
        line: bytes,
        reply: Reply,
        command: Command | None = None,
        *,
        only_refuse: bool = True,
        counts: bool = True,
    ) -> BadCommand:
        self._bad_commands += counts
        if self._bad_commands > self.limits.bad_commands:
            reply, only_refuse = self.closing(TOO_MANY_ERRORS), True
        self._only_refuse = only_refuse
        self._suggestion = reply
        return BadCommand(line, reply, command)

    def _next_content(self, reception: Reception) -> ServerEvent | Signal:
        if (data := reception.take(self._buffer)) is not None:
            return Content(data)
        if not reception.ended:
            return self._close() if self._eof else NEED_DATA
        command, self._receiving = self._receiving, None
        fault = reception.fault(final=not (isinstance(command, Bdat) and not command.last))
        self._suggestion = fault
        self._only_refuse = fault is not None
        if isinstance(command, Bdat) and not command.last:
            self._owed, self._asked = Bdat, command
            return EndOfChunk(command.size, fault)
        self._owed, self._asked = EndOfContent, EndOfContent(reception.octets, fault)
        self._replies_left = len(self._transaction.rcpts) if self.lmtp else 1
        return self._asked

    def _begin(self, command: Data | Bdat) -> None:
        self._transaction.begin(command, self.limits.message, repair=self._repair)
        self._receiving = command

    def _swallow(self, refused: BadCommand, chunk: Bdat) -> ServerEvent | Signal:
        """Throw away the octets of a refused chunk, and only then refuse it (RFC 3030 §2)."""
        while self._to_swallow:
            if not len(self._buffer):
                return self._close() if self._eof else NEED_DATA
            octets = min(self._to_swallow, len(self._buffer))
            self._buffer.skip(octets)
            self._to_swallow -= octets
        self._refused = None
        if self.lmtp and chunk.last and self._state is State.MAIL and Bdat in self._offer.verbs:
            # As many replies as accepted recipients: none at all (RFC 2033 §4.3).
            self._state = State.READY
            self._transaction = Transaction()
            return self.next_event()
        self._owed, self._asked = Command, chunk
        if self._state is State.SPOILED and chunk.last:
            self._owed = EndOfContent  # the last of those that were on their way
            self._replies_left = len(self._transaction.rcpts) if self.lmtp else 1
        return refused

    @property
    def replies_owed(self) -> int:
        """How many replies are owed now: LMTP wants one for each recipient after the content."""
        if self._owed is None:
            return 0
        return self._replies_left if self._owed is EndOfContent else 1

    # Replies in, octets out

    def send(self, reply: Reply) -> bytes:
        """Answer what was pulled last (first of all: greet); return what to write.

        A 421 may be sent whether or not a reply is owed, and closes.
        LocalProtocolError, and nothing changes, when no reply is owed, when this one is illegal
        here, when it accepts what is at fault, or by a code that is not the command's (354 to DATA,
        334 with one line of base64 and 235 to AUTH, 220 to STARTTLS, 221 to QUIT alone), when it is
        a 250 to EHLO that announces other extensions than those offered (`suggested_reply()` has
        them), or when its text holds UTF-8 that the client did not ask for (RFC 6531 §3.7.4).
        """
        if self._state in SILENT:
            raise LocalProtocolError(f"nothing can be sent in {self._state.name}")
        owed = self._owed
        if owed is None:
            if reply.code != 421:  # the one that needs no command (RFC 5321 §3.8)
                raise LocalProtocolError("no reply is owed")
            owed = Command
        state = next_state(self._state, owed, reply)
        accepts = reply.code < 400
        if state is None or (accepts and (self._only_refuse or misleads(owed, reply))):
            what = getattr(owed, "verb", b"").decode() or owed.__name__
            raise LocalProtocolError(f"{reply.code} is no answer to {what} in {self._state.name}")
        to_hello = owed in _HELLOS
        if accepts and to_hello:
            # Behind HELO that is nothing at all (RFC 5321 §3.2).
            announced = () if owed is Helo else self._offer.ehlo_lines
            if reply.lines[1:] != announced:
                raise LocalProtocolError("the greeting does not announce what is offered")
        if not (reply.is_writable() or self._lets_utf8_into(reply)):
            raise LocalProtocolError(f"a reply that this client did not ask for: {reply!r}")
        # RFC 2034 §4: no status in a greeting, also a second one, nor in a reply to EHLO and HELO.
        again = accepts and isinstance(self._asked, Command) and self._asked.starts_over
        greets = again or owed is Greeting or to_hello
        with_status = "ENHANCEDSTATUSCODES" in self._offer.lines and not greets
        said = reply.with_general_status() if with_status else reply
        wire = said.serialize(with_status=with_status)
        self._owed = owed
        self._move(state, reply, accepts)
        return wire

    def _lets_utf8_into(self, reply: Reply) -> bool:
        """Tell whether the client asked for UTF-8 where this reply has it (RFC 6531 §3.7.4)."""
        if isinstance(self._asked, Rcpt):
            asked = reply.code in (251, 551) and self._transaction.asks_for_utf8(self._asked)
        else:
            offered = not self._only_refuse
            asked = isinstance(self._asked, Query) and self._asked.smtputf8 and offered
        return asked and reply.is_writable(utf8=True)

    def _move(self, state: State, reply: Reply, accepts: bool) -> None:
        asked, command = self._owed, self._asked
        if asked is EndOfContent and state is not State.CLOSED:
            self._replies_left -= 1
            if self._replies_left:
                return
        self._owed = self._asked = self._suggestion = None
        self._state = state
        if state is State.CLOSED:
            self._close()
        if asked is Greeting:
            self.early_talker = len(self._buffer) > 0
        if asked is EndOfContent or (accepts and (asked is Rset or asked in _HELLOS)):
            self._transaction = Transaction()
        if not accepts or not isinstance(command, Command):
            return
        if isinstance(command, (Mail, Rcpt)):
            self._transaction.accept(command)
        elif isinstance(command, Data):
            self._begin(command)
        elif isinstance(command, (Ehlo, Helo)):
            self.helo_name = command.name
            self.extended = isinstance(command, Ehlo)
        elif isinstance(command, (Auth, AuthResponse)) and reply.severity is Severity.COMPLETION:
            self.authenticated = True
        elif state is State.TLS:
            self._buffer.clear()
        elif command.starts_over:
            self._forget()
        else:
            self._transaction.accept(command)

    def _close(self) -> ConnectionClosed:
        # What can be said yet, the error has with it.
        self._owed = self._asked = self._suggestion = None
        self._transaction = Transaction()
        return super()._close()

    def _forget(self) -> None:
        self.helo_name = None
        self.extended = False
        self.authenticated = False
        self._transaction = Transaction()
        self._offer = self._offer_now()
