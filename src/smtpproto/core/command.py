"""The commands (RFC 5321 §4.1.1 and the RFCs named), one frozen class for each verb.

The same values travel both ways: a client sends them, a server pulls them. Each class carries
its traits; what a command *does* to the session stands in `state.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar, Self

from attrs import field, frozen

from .base64 import decode_base64, encode_base64
from .errors import GrammarError, LocalProtocolError
from .grammar import HELO_NAME, SASL_MECHANISM, TEXT, TEXT_UTF8
from .parameter import NO_PARAMETERS, AnyParameters, Parameters
from .path import (
    AnyForwardPath,
    AnyReversePath,
    ForwardPath,
    ReversePath,
    as_domain,
    as_octets,
)
from .reply import Reply
from .value import taken, taker

__all__ = [
    "BASE_VERBS",
    "LMTP_VERBS",
    "NOT_IMPLEMENTED",
    "Auth",
    "AuthResponse",
    "Bdat",
    "Command",
    "Data",
    "Ehlo",
    "Expn",
    "Helo",
    "Help",
    "Lhlo",
    "Mail",
    "Noop",
    "Query",
    "Quit",
    "Rcpt",
    "Rset",
    "StartTls",
    "Vrfy",
    "parse_command",
]

NOT_IMPLEMENTED = Reply(502, "5.5.1", "Command not implemented")


class Command:
    """A line that a client sends: a verb and its argument.

    To add a verb, subclass it with attrs' `frozen`, give `verb`, and write `argument()` and
    `parse()`; then name the class in an Extension's `verbs`.
    """

    __slots__ = ("_wire",)
    _wire: bytes  # once it was written: many are looked at before they leave, or leave twice

    verb: ClassVar[bytes] = b""
    #: Another command may follow before the reply is there (RFC 2920 §3.1); the reply of such a
    #: command may wait for others to share a write (§3.2).
    pipelined: ClassVar[bool] = False
    #: The session begins anew behind a positive answer, as after the greeting.
    starts_over: ClassVar[bool] = False
    #: An extension's verb may stand between MAIL and the end of the content.
    in_transaction: ClassVar[bool] = True
    #: Octets that the line may have, CRLF included (RFC 5321 §4.5.3.1.4).
    max_line: ClassVar[int] = 512
    #: What a server answers where its caller decides nothing; a verb that obliges the caller to
    #: something refuses here.
    suggested: ClassVar[Reply] = NOT_IMPLEMENTED
    #: An extension's verb speaks of the transaction that follows: once accepted it is kept
    #: (`ServerConnection.preamble`), and dropped when that transaction ends.
    preamble: ClassVar[bool] = False

    @classmethod
    def parse(cls, argument: bytes) -> Self:
        """Read what stands behind the verb and its space; GrammarError if it is not right."""
        raise NotImplementedError

    def argument(self) -> bytes:
        """Write what stands behind the verb and its space; empty for none."""
        return b""

    def added_to(self, earlier: Command) -> Command:
        """Return what holds once this was accepted behind `earlier`, of the same `preamble` verb.

        Bounded, please: a client may send such commands for ever.
        """
        return self

    def serialize(self) -> bytes:
        """Write the whole line, CRLF included."""
        wire: bytes | None = getattr(self, "_wire", None)
        if wire is None:
            argument = self.argument()
            wire = b"%b %b\r\n" % (self.verb, argument) if argument else self.verb + b"\r\n"
            object.__setattr__(self, "_wire", wire)
        return wire


class _Bare(Command):
    __slots__ = ()

    @classmethod
    def parse(cls, argument: bytes) -> Self:
        if argument:
            raise GrammarError(f"{cls.verb.decode()} takes no argument")
        return cls()


def _text(value: str | bytes) -> bytes:
    octets = as_octets(value)
    if TEXT.fullmatch(octets) is None or octets != octets.strip():
        raise LocalProtocolError(f"octets no argument can hold: {octets!r}")
    return octets


@frozen
class _Text(Command):
    text: bytes = field(converter=_text, default=b"")

    @classmethod
    def parse(cls, argument: bytes) -> Self:
        if TEXT.fullmatch(argument) is None:
            raise GrammarError("octets that no argument may hold")
        return taken(cls, text=argument.strip())

    def argument(self) -> bytes:
        return self.text


@frozen
class _Hello(Command):
    name: bytes = field(converter=as_domain)

    @classmethod
    def parse(cls, argument: bytes) -> Self:
        if HELO_NAME.fullmatch(argument) is None:
            try:
                as_domain(argument)
            except LocalProtocolError:
                raise GrammarError(f"Syntax: {cls.verb.decode()} hostname") from None
        return taken(cls, name=argument)

    def argument(self) -> bytes:
        return self.name


@frozen
class Ehlo(_Hello):
    """EHLO: greet, and ask for the extensions. `name` is a domain or address literal."""

    verb = b"EHLO"


@frozen
class Lhlo(Ehlo):
    """LHLO: the EHLO of LMTP (RFC 2033 §4.1)."""

    verb = b"LHLO"


@frozen
class Helo(_Hello):
    """HELO: greet an old server, or as an old client (RFC 5321 §3.2)."""

    verb = b"HELO"


def _path_offset(argument: bytes, keyword: bytes) -> int:
    """Return where the path begins behind `FROM:` or `TO:`.

    A space before it is read, though never written: RFC 5321 §3.3 forbids it, much old software
    sends it, and nothing else could be meant.
    """
    size = len(keyword)
    if argument[:size].upper() != keyword:
        raise GrammarError(f"Syntax: {keyword.decode()}<address>")
    return size + argument.startswith(b" ", size)


def _parameters(argument: bytes, at: int) -> Parameters:
    if at == len(argument):
        return NO_PARAMETERS
    if not argument.startswith(b" ", at):
        raise GrammarError("no space between address and parameters")
    return Parameters.parse(argument[at:])


def _reverse_path(value: AnyReversePath) -> ReversePath:
    return ReversePath.of(value)


def _forward_path(value: AnyForwardPath) -> ForwardPath:
    return ForwardPath.of(value)


def _given(value: AnyParameters | None) -> Parameters:
    return Parameters.of(value)


@frozen
class Mail(Command):
    """MAIL: begin a transaction (§4.1.1.2). Takes a mailbox or its text; None is the null path."""

    verb = b"MAIL"
    pipelined = True
    suggested = Reply(250, "2.1.0", "Sender ok")

    reverse_path: ReversePath = field(converter=_reverse_path)
    parameters: Parameters = field(converter=_given, default=None)

    @classmethod
    def parse(cls, argument: bytes) -> Mail:
        path, end = ReversePath.read(argument, _path_offset(argument, b"FROM:"))
        return _take_mail(path, _parameters(argument, end))

    @property
    def is_ascii(self) -> bool:
        """Whether its path needs no SMTPUTF8 (RFC 6531 §3.3); of the parameters, they say."""
        return self.reverse_path.mailbox is None or self.reverse_path.mailbox.is_ascii

    def argument(self) -> bytes:
        return b"FROM:%b%b" % (self.reverse_path.serialize(), self.parameters.serialize())


_take_mail = taker(Mail, "reverse_path", "parameters")


@frozen
class Rcpt(Command):
    """RCPT: name one recipient (§4.1.1.3). Takes a mailbox or its text."""

    verb = b"RCPT"
    pipelined = True
    suggested = Reply(250, "2.1.5", "Recipient ok")

    forward_path: ForwardPath = field(converter=_forward_path)
    parameters: Parameters = field(converter=_given, default=None)

    @classmethod
    def parse(cls, argument: bytes) -> Rcpt:
        path, end = ForwardPath.read(argument, _path_offset(argument, b"TO:"))
        return _take_rcpt(path, _parameters(argument, end))

    @property
    def is_ascii(self) -> bool:
        """Whether its path needs no SMTPUTF8 (RFC 6531 §3.3); of the parameters, they say."""
        return self.forward_path.mailbox.is_ascii

    def argument(self) -> bytes:
        return b"TO:%b%b" % (self.forward_path.serialize(), self.parameters.serialize())


_take_rcpt = taker(Rcpt, "forward_path", "parameters")


@frozen
class Data(_Bare):
    """DATA: the content follows (§4.1.1.4)."""

    verb = b"DATA"
    suggested = Reply(354, None, "End data with <CR><LF>.<CR><LF>")


# chunk-size ::= 1*DIGIT (RFC 3030 §2); more than 20 digits is a size that nothing has.
_CHUNK = re.compile(rb"([0-9]{1,20})( +LAST)?", re.IGNORECASE)


def _chunk_size(value: int) -> int:
    if not 0 <= value < 10**20:
        raise LocalProtocolError(f"not the size of a chunk: {value}")
    return value


@frozen
class Bdat(Command):
    """BDAT: `size` octets of content follow this line; with `last`, the final ones (RFC 3030 §2).

    A server pulls it; a client sends a Chunk, which is this line and its octets in one.
    """

    verb = b"BDAT"
    pipelined = True
    suggested = Reply(250, "2.0.0", "Chunk received")

    size: int = field(converter=_chunk_size)
    last: bool = False

    @classmethod
    def parse(cls, argument: bytes) -> Self:
        match = _CHUNK.fullmatch(argument)
        if match is None:
            raise GrammarError("Syntax: BDAT size [LAST]")
        return taken(cls, size=int(match[1]), last=match[2] is not None)

    def argument(self) -> bytes:
        return b"%d LAST" % self.size if self.last else b"%d" % self.size


@frozen
class Rset(_Bare):
    """RSET: drop the transaction (§4.1.1.5)."""

    verb = b"RSET"
    pipelined = True
    suggested = Reply(250, "2.0.0", "Reset")


@frozen
class Noop(_Text):
    """NOOP: nothing (§4.1.1.9); `text` is ignored by everybody."""

    verb = b"NOOP"
    suggested = Reply(250, "2.0.0", "Ok")


@frozen
class Quit(_Bare):
    """QUIT: the last command (§4.1.1.10)."""

    verb = b"QUIT"
    suggested = Reply(221, "2.0.0", "Closing connection")


def _lift_smtputf8(text: bytes) -> tuple[bytes, bool]:
    """Take off the word that may follow what is asked for; tell whether it was there."""
    before, _, word = text.rpartition(b" ")
    if before and word.upper() == b"SMTPUTF8":
        return before.rstrip(), True
    return text, False


def _query_text(value: str | bytes) -> bytes:
    octets = as_octets(value)
    if TEXT_UTF8.fullmatch(octets) is None or not octets or octets != octets.strip():
        raise LocalProtocolError(f"nothing that can be asked for: {octets!r}")
    return octets


@frozen
class Query(Command):
    """VRFY or EXPN: `text` is what is asked for.

    `smtputf8` is the parameter of RFC 6531 §3.7.4.2: the reply may hold UTF-8. Written behind the
    text it is lifted out of it. A client may send it, and UTF-8 in the text, where the server
    offers SMTPUTF8.
    """

    text: bytes = field(converter=_query_text)
    smtputf8: bool = False

    def __attrs_post_init__(self) -> None:
        if not self.smtputf8:
            text, smtputf8 = _lift_smtputf8(self.text)
            object.__setattr__(self, "text", text)
            object.__setattr__(self, "smtputf8", smtputf8)

    @classmethod
    def parse(cls, argument: bytes) -> Self:
        text = argument.strip(b" ")
        if not text:
            raise GrammarError(f"Syntax: {cls.verb.decode()} text")
        if TEXT_UTF8.fullmatch(text) is None:
            raise GrammarError("octets that no argument may hold")
        text, smtputf8 = _lift_smtputf8(text)
        return taken(cls, text=text, smtputf8=smtputf8)

    @property
    def is_ascii(self) -> bool:
        """Whether it asks for nothing that needs SMTPUTF8."""
        return self.text.isascii()

    def argument(self) -> bytes:
        return self.text + b" SMTPUTF8" if self.smtputf8 else self.text


@frozen
class Vrfy(Query):
    """VRFY: does this mailbox exist? (§4.1.1.6)"""

    verb = b"VRFY"
    suggested = Reply(252, "2.5.0", "Cannot verify; send some mail, I will try")


@frozen
class Expn(Query):
    """EXPN: who is on this list? (§4.1.1.7)"""

    verb = b"EXPN"
    suggested = Reply(252, "2.5.0", "Cannot tell")  # where it is offered (§7.3)


@frozen
class Help(_Text):
    """HELP: tell me about it (§4.1.1.8)."""

    verb = b"HELP"
    suggested = Reply(214, "2.0.0", "See RFC 5321")


@frozen
class StartTls(_Bare):
    """STARTTLS: go over to TLS (RFC 3207)."""

    verb = b"STARTTLS"
    suggested = Reply(220, "2.0.0", "Ready to start TLS")


def _mechanism(value: str) -> str:
    if SASL_MECHANISM.fullmatch(as_octets(value)) is None:
        raise LocalProtocolError(f"not the name of a SASL mechanism: {value!r}")
    return value.upper()


@frozen
class Auth(Command):
    """AUTH: log in (RFC 4954 §4). `initial_response` is decoded; None means that none was sent."""

    verb = b"AUTH"
    max_line = 12288  # for what servers read; see ClientConnection for what a client may write
    suggested = Reply(504, "5.5.4", "Authentication mechanism not available")

    mechanism: str = field(converter=_mechanism)
    initial_response: bytes | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, argument: bytes) -> Self:
        name, _, response = argument.partition(b" ")
        if SASL_MECHANISM.fullmatch(name) is None:
            raise GrammarError("Syntax: AUTH mechanism [initial-response]")
        initial = None if not response else b"" if response == b"=" else decode_base64(response)
        return taken(cls, mechanism=name.decode().upper(), initial_response=initial)

    def argument(self) -> bytes:
        name = self.mechanism.encode()
        if self.initial_response is None:
            return name
        return b"%b %b" % (name, encode_base64(self.initial_response) or b"=")


@frozen
class AuthResponse(Command):
    """A line of the client's in an AUTH exchange; `data` is decoded, None cancels it (`*`)."""

    max_line = 12288
    suggested = Reply(535, "5.7.8", "Authentication credentials invalid")

    data: bytes | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, argument: bytes) -> Self:
        return taken(cls, data=None if argument == b"*" else decode_base64(argument))

    def serialize(self) -> bytes:
        if self.data is None:
            return b"*\r\n"
        return encode_base64(self.data) + b"\r\n"


#: What every server understands (RFC 5321 §4.5.1).
BASE_VERBS: Mapping[bytes, type[Command]] = {
    cls.verb: cls for cls in (Ehlo, Helo, Mail, Rcpt, Data, Rset, Noop, Quit, Vrfy)
}


#: LMTP has one greeting, and neither of SMTP's (RFC 2033 §4.1).
LMTP_VERBS: Mapping[bytes, type[Command]] = {
    Lhlo.verb: Lhlo,
    **{verb: cls for verb, cls in BASE_VERBS.items() if cls not in (Ehlo, Helo)},
}


def parse_command(line: bytes, verbs: Mapping[bytes, type[Command]]) -> Command:
    """Read one command line without its CRLF.

    Verbs are read in any case; white space at the end is tolerated (RFC 5321 §4.1.1). Raises
    GrammarError: 500 5.5.2 for an unknown verb, 501 for the rest.
    """
    verb, _, argument = line.rstrip(b" \t").partition(b" ")
    command = verbs.get(verb.upper())
    if command is None:
        raise GrammarError("command not recognized", 500, "5.5.2")
    if b"\r" in line or b"\n" in line or b"\0" in line:
        raise GrammarError("control octets in a command", 501, "5.5.2")  # §4.1.2
    return command.parse(argument)
