"""Target `grammar`: what is read and written again is read as the same, and then never changes.

One law for each kind of thing. Reading raises GrammarError and nothing else, with a reply that can
be sent; making raises LocalProtocolError and nothing else; with what has been read or made all goes
well.
"""

from collections.abc import Callable
from typing import Any

from attrs import frozen

from smtpproto import (
    AuthResponse,
    Command,
    Ehlo,
    EnhancedStatus,
    Expn,
    ForwardPath,
    GrammarError,
    Helo,
    Help,
    Lhlo,
    LocalProtocolError,
    Mail,
    Mailbox,
    Noop,
    Parameter,
    Parameters,
    Rcpt,
    Reply,
    ReversePath,
    Vrfy,
)
from smtpproto.core.command import BASE_VERBS, LMTP_VERBS, Auth, Bdat, parse_command
from smtpproto.core.xtext import decode_xtext, encode_xtext
from smtpproto.extensions.deliverby import min_by_time
from smtpproto.extensions.etrn import Etrn, Queue
from smtpproto.extensions.futurerelease import Horizon
from smtpproto.extensions.limits import Maxima
from smtpproto.extensions.xclient import XClient
from smtpproto.extensions.xforward import XForward

from .draw import Draw
from .ends import EXTENSIONS

__all__ = ["grammar_laws"]

VERBS = {
    **BASE_VERBS,
    **LMTP_VERBS,
    **{verb.verb: verb for extension in EXTENSIONS for verb in extension.verbs},
}
PARAMETERS: tuple[Parameter[Any], ...] = tuple(
    parameter for extension in EXTENSIONS for parameter in (*extension.mail, *extension.rcpt)
)


def grammar_laws(data: bytes) -> None:
    """Draw a law, and hold it up against the wire."""
    draw = Draw(data)
    law = draw.one_of(LAWS)
    reply: Reply | None = None
    try:
        value = law.get(draw)
    except law.error as error:
        if isinstance(error, GrammarError):
            text = str(error)[:400].encode("ascii", "replace")
            reply = Reply(error.code, error.status, text)
    else:
        law.check(value)
    assert reply is None or reply.code // 100 in (4, 5)


@frozen
class Law:
    """`get` reads or makes something, or raises `error`; `check` sees whether it is right."""

    get: Callable[[Draw], Any]
    check: Callable[[Any], None]
    error: type[Exception] = GrammarError


def wire_of(read: Callable[[bytes], object]) -> Callable[[Draw], object]:
    """Read all that is on the wire."""
    return lambda draw: read(draw.wire)


def text_of(read: Callable[[str], object]) -> Callable[[Draw], object]:
    """Read all that is on the wire, a character for each octet."""
    return lambda draw: read(draw.wire.decode("latin-1"))


# What is read


def check_command(command: Command) -> None:
    wire = command.serialize()
    line = wire.removesuffix(b"\r\n")
    assert len(wire) == len(line) + 2
    assert not any(octet < 0x20 or octet == 0x7F for octet in line), "it can break out of its line"
    response = isinstance(command, AuthResponse)
    read = AuthResponse.parse(line) if response else parse_command(line, VERBS)
    assert read == command
    assert hash(read) == hash(command)
    assert read.serialize() == wire
    if isinstance(command, (Mail, Rcpt)):
        for parameter in PARAMETERS:
            try:
                value = parameter.of(command.parameters)
            except GrammarError:
                continue  # it is well-formed, whoever knows it or not
            if value is not None:
                check_value((parameter, value))


def a_value(draw: Draw) -> tuple[Parameter[Any], object]:
    """Read the value of a parameter, as perhaps no line holds it."""
    parameter = draw.one_of(PARAMETERS)
    return parameter, parameter.read(draw.wire)


def check_value(known: tuple[Parameter[Any], object]) -> None:
    parameter, value = known
    written = parameter.write(value)
    # It can stand in a command,
    parameters = Parameters({parameter.keyword: written})
    assert Parameters.parse(parameters.serialize()) == parameters
    # and says the same there.
    assert parameter.of(parameters) == value
    assert parameter.write(parameter.read(written)) == written


def check_reply(reply: Reply) -> None:
    wire = reply.serialize()
    assert Reply.parse(wire) == reply
    assert Reply.parse(wire).serialize() == wire
    assert wire.count(b"\r") == wire.count(b"\n") == wire.count(b"\r\n") == len(reply.lines)
    assert "".join(reply.text.split("\n")).isprintable()


def check_mailbox(mailbox: Mailbox) -> None:
    wire = mailbox.serialize()
    assert not any(octet < 0x20 or octet == 0x7F for octet in wire)
    assert mailbox.is_ascii is wire.isascii()
    assert Mailbox(mailbox.local_part, mailbox.domain) == mailbox
    assert ForwardPath.read(b"<%b>" % wire) == (ForwardPath(mailbox), len(wire) + 2)
    if mailbox.domain:
        assert Mailbox.parse(wire) == Mailbox.of(wire) == mailbox
        assert Mailbox.parse(wire).serialize() == wire
        assert ReversePath.read(b"<%b>" % wire) == (ReversePath(mailbox), len(wire) + 2)


def check_path(found: tuple[ReversePath | ForwardPath, int]) -> None:
    path, end = found
    wire = path.serialize()
    assert wire.startswith(b"<")
    assert wire.endswith(b">")
    assert end > 0
    again, end = type(path).read(wire)
    assert (again, end) == (path, len(wire))
    assert again.serialize() == wire
    if path.mailbox is not None:
        check_mailbox(path.mailbox)


def some_parameters(draw: Draw) -> Parameters:
    parameters = Parameters.parse(draw.wire)
    assert len(parameters) == len([word for word in draw.wire.split(b" ") if word])
    return parameters


def check_parameters(parameters: Parameters) -> None:
    wire = parameters.serialize()
    assert Parameters.parse(wire) == parameters == Parameters(parameters)
    assert Parameters.parse(wire).serialize() == wire


def check_status(status: EnhancedStatus) -> None:
    assert EnhancedStatus.parse(str(status)) == status
    assert status.meaning


def check_xtext(octets: bytes) -> None:
    assert decode_xtext(encode_xtext(octets)) == octets


def check_horizon(horizon: Horizon) -> None:
    assert Horizon.parse(horizon.serialize()) == horizon


def an_announcement(text: str) -> Maxima:
    assert (min_by_time(text) or 0) >= 0
    return Maxima.parse(text)


def check_maxima(maxima: Maxima) -> None:
    assert Maxima.parse(maxima.serialize()) == maxima


# What is made


def texts(draw: Draw, count: int) -> list[str]:
    """Take some texts off the wire: UTF-8 or a character for each octet, parted by two NUL."""
    encoding = draw.one_of(("utf-8", "latin-1"))
    parts = [part.decode(encoding, "surrogateescape") for part in draw.wire.split(b"\0\0")]
    return [*parts, *[""] * count][:count]


def a_made_command(draw: Draw) -> Command:
    one, two = texts(draw, 2)
    makers: tuple[Callable[[], Command], ...] = (
        lambda: Mail(one),
        lambda: Rcpt(one),
        lambda: Mail(one, {two: None}),
        lambda: Mail(one, {"X": two}),
        lambda: Rcpt("Postmaster", {one: two}),
        lambda: Ehlo(one),
        lambda: Lhlo(one),
        lambda: Helo(one),
        lambda: Noop(one),
        lambda: Help(one),
        lambda: Vrfy(one),
        lambda: Expn(one),
        lambda: Auth(one, draw.one_of((None, two.encode("utf-8", "surrogateescape")))),
        lambda: AuthResponse(one.encode("utf-8", "surrogateescape")),
        lambda: Bdat(draw.below(65536), draw.flag()),
        lambda: Etrn(one, draw.one_of(tuple(Queue))),
        lambda: XClient({one: two}),
        lambda: XClient({"NAME": one, "LOGIN": two}),
        lambda: XForward({"IDENT": one, "PROTO": two}),
    )
    return draw.one_of(makers)()


def a_made_reply(draw: Draw) -> Reply:
    status = draw.one_of((None, "2.0.0", "4.7.1", "5.1.1"))
    return Reply(draw.below(1000), status, texts(draw, 1 + draw.below(3)))


def check_made_reply(reply: Reply) -> None:
    check_reply(reply)
    assert max(map(len, reply.serialize().split(b"\r\n"))) <= 510


LAWS = (
    Law(wire_of(lambda line: parse_command(line, VERBS)), check_command),
    Law(a_value, check_value),
    Law(wire_of(Reply.parse), check_reply),
    Law(wire_of(Mailbox.parse), check_mailbox),
    Law(wire_of(ReversePath.read), check_path),
    Law(wire_of(ForwardPath.read), check_path),
    Law(some_parameters, check_parameters),
    Law(wire_of(AuthResponse.parse), check_command),
    Law(text_of(EnhancedStatus.parse), check_status),
    Law(wire_of(bytes), check_xtext),
    Law(wire_of(decode_xtext), check_xtext),
    Law(text_of(Horizon.parse), check_horizon),
    Law(text_of(an_announcement), check_maxima),
    Law(a_made_command, check_command, LocalProtocolError),
    Law(a_made_reply, check_made_reply, LocalProtocolError),
    Law(lambda draw: Mailbox(*texts(draw, 2)), check_mailbox, LocalProtocolError),
    Law(lambda draw: ReversePath(draw.wire), lambda p: check_path((p, 1)), LocalProtocolError),
    Law(lambda draw: ForwardPath.of(draw.wire), lambda p: check_path((p, 1)), LocalProtocolError),
)
