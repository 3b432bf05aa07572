"""Real connections as the walks need them: made, forked, looked at, and told what to do."""

from collections import deque
from collections.abc import Collection, Iterator
from copy import copy
from enum import Enum
from functools import cache
from typing import Any, TypeVar

from attrs import frozen

from smtpproto import (
    AuthResponse,
    BadCommand,
    Bdat,
    Command,
    ConnectionClosed,
    EndOfContent,
    Limits,
    LocalProtocolError,
    Mail,
    RemoteProtocolError,
    Reply,
    ServerConnection,
    Signal,
    State,
)
from smtpproto.core.connection import Connection
from smtpproto.core.offer import Offer
from smtpproto.core.reception import Reception
from smtpproto.core.server_connection import ServerEvent
from smtpproto.extensions.xforward import XForward

from .clauses import OWN_CODES, Answer
from .kept import Step, View
from .session import CONTENT_LIMIT, RECIPIENT_LIMIT, Past, Said, Setting
from .words import ENDLESS_LINE

__all__ = ["Act", "answers", "beginning", "do", "fork", "image", "make_server", "pull", "view"]

AnyEnd = TypeVar("AnyEnd", bound=Connection)


@cache
def _attributes(kind: Any) -> tuple[str, ...] | None:
    """Name what an object of the core's that changes in place is made of; None for a value.

    A value is equal to its like; and offers, which never change, are shared by connections.
    """
    is_value = kind.__hash__ is not None and kind.__eq__ is not object.__eq__
    if not kind.__module__.startswith("smtpproto.core") or issubclass(kind, Enum | Offer):
        return None
    slots = (name for each in kind.__mro__ for name in getattr(each, "__slots__", ()))
    return None if is_value else tuple(name for name in slots if not name.startswith("__"))


def fork(end: AnyEnd) -> AnyEnd:
    """Return a second connection that stands where `end` stands, and goes its own way."""
    twin = object.__new__(type(end))
    twin.__dict__ = {name: _fork(value) for name, value in vars(end).items()}
    return twin


def _fork(value: Any) -> Any:
    kind: Any = type(value)
    if kind in _PLAIN:
        return value
    if kind in (list, dict, bytearray, deque):
        return value.copy()
    names = _attributes(kind)
    if names is None:
        return value
    twin: Any = object.__new__(kind)
    for name in names:
        object.__setattr__(twin, name, _fork(getattr(value, name)))
    return twin


#: What only grows: bad commands, of which there are never too many here, and offsets, which are
#: compared with each other alone. And how a buffer is read, and which code was read last.
_NO_DIFFERENCE = frozenset(("_bad_commands", "_pulled", "_begun", "_marks", "_window", "_code"))


def image(end: Connection, new: Connection) -> tuple[object, ...]:
    """Return all in which an end differs from a `new` one: with equal images they behave alike.

    Of commands and replies only the class counts, and what makes a difference later on; of octets
    past the limit, that they are; of a spoiled transaction not what was received of it.
    """
    start = vars(new)
    ignored = _NO_DIFFERENCE if end.state is not State.SPOILED else _NO_DIFFERENCE | {"reception"}
    return tuple(
        (name, _image(value, ignored))
        for name, value in vars(end).items()
        if value is not start[name] and name not in ignored and value != start[name]
    )


_PLAIN = frozenset((bool, int, bytes, str, type, type(None), State, tuple))


def _image(value: Any, ignored: Collection[str]) -> object:
    kind: Any = type(value)
    if kind in (list, tuple, deque):
        return tuple(_image(item, ignored) for item in value)
    if kind in _PLAIN:
        return value
    if kind is dict:
        return tuple((key, _image(item, ignored)) for key, item in value.items())
    if kind is bytearray:
        return bytes(value)
    if isinstance(value, Mail):
        return kind, value.parameters.get("BODY"), "SMTPUTF8" in value.parameters
    if isinstance(value, Bdat):
        return kind, value.last
    if isinstance(value, AuthResponse):
        return kind, value.data is None
    if isinstance(value, EndOfContent):
        return kind, value.fault is None
    if isinstance(value, Reply):
        return value.code // 100
    names = _attributes(kind)
    if names is None:
        return kind if isinstance(value, (Command, BadCommand)) else value
    if isinstance(value, Reception):
        value = copy(value)
        value.octets = min(value.octets, CONTENT_LIMIT + 1)
    return tuple(_image(getattr(value, name), ignored) for name in names if name not in ignored)


def make_server(setting: Setting) -> ServerConnection:
    """Make the server that a setting speaks of."""
    return ServerConnection(
        "mx.example",
        setting.known,
        offer=[e for e in setting.known if e.keyword in setting.clear],
        limits=Limits(
            message=CONTENT_LIMIT,
            recipients=RECIPIENT_LIMIT,
            bad_commands=10**6,
            endless_line=ENDLESS_LINE,
        ),
        mechanisms=setting.mechanisms,
        tls_available="STARTTLS" in setting.clear,
        lmtp=setting.lmtp,
    )


def beginning(setting: Setting) -> Past:
    """Return what is known when a client has connected."""
    return Past(
        setting.lmtp,
        knows_chunks=any(extension.keyword == "CHUNKING" for extension in setting.known),
        offers_chunks="CHUNKING" in setting.clear,
    )


def view(server: ServerConnection) -> View:
    """Look at a server from outside."""
    envelope = server.envelope
    mail = ""
    if envelope is not None:
        parameters = envelope.mail.parameters
        binary = parameters.get("BODY") == b"BINARYMIME"
        mail = "binary" if binary else "utf8" if "SMTPUTF8" in parameters else "plain"
    return View(
        server.state,
        server.tls is not None,
        server.authenticated,
        server.extended,
        server.helo_name,
        tuple(server.offered.items()),
        server.preamble(XForward) is not None,
        mail,
        len(envelope.rcpts) if envelope is not None else 0,
        server.replies_owed,
        server.buffered,
    )


@frozen(cache_hash=True)
class Act:
    """What is done in one step: the client says, the server answers, TLS begins.

    None of them is the client's end of file. `in_clear` are octets that came before TLS.
    """

    said: Said | None = None
    answer: Answer | None = None
    in_clear: bytes | None = None

    def __str__(self) -> str:
        if self.said is not None:
            return f"C: {self.said}"
        if self.answer is not None:
            return f"S: {self.answer}"
        return "TLS" if self.in_clear is not None else "C: end of file"


def do(step: Step, server: ServerConnection, act: Act) -> None:
    """Do it, and note in `step` what comes of it."""
    past = step.before
    step.said, step.answer = act.said, act.answer
    try:
        if act.said is not None:
            server.receive_data(act.said.octets)
            step.after = past.heard(act.said)
        elif act.answer is not None:
            step.wire = server.send(act.answer.reply)
            if past.owed or act.answer.code == 421:
                step.after = past.answered(act.answer.code)
        elif act.in_clear is not None:
            if act.in_clear:
                server.receive_data(act.in_clear)
            step.handshake = False
            server.tls_started()
            step.handshake = True
            step.after = past.secured()
        else:
            server.receive_data(b"")
            step.eof = True
            step.after = past.ended()
    except LocalProtocolError:
        step.refused = True
    else:
        pull(step, server)
    step.now = view(server)


def pull(step: Step, server: ServerConnection) -> None:
    """Pull until something is owed, or missing."""
    events: list[ServerEvent] = []
    while True:
        try:
            event = server.next_event()
        except RemoteProtocolError as error:
            step.lost = error.reply
            break
        if isinstance(event, Signal):
            step.signal = event
            break
        events.append(event)
        if isinstance(event, ConnectionClosed):
            break
    step.events = tuple(events)
    if server.replies_owed:
        step.suggested = server.suggested_reply()


_ANSWERS = {code: Answer(Reply(code)) for code in (250, 354, 450, 550, 421)}
_CHALLENGE = Answer(Reply(334))
_LOGGED_IN = Answer(Reply(235))
_GOODBYE = Answer(Reply(221))
_SILENT = Answer(Reply(250, None, "hello"), announces=False)


def answers(past: Past, server: ServerConnection) -> Iterator[Answer]:
    """Give a reply of each class; to EHLO, one that announces and one that does not."""
    usual = server.suggested_reply() if server.replies_owed else None
    asked = past.asked
    hello = asked is not None and asked.verb in ("EHLO", "LHLO")
    for code, answer in _ANSWERS.items():
        if usual is not None and usual.code // 100 == code // 100 and code != 421:
            yield Answer(usual)
            if hello and len(usual.lines) > 1:
                yield _SILENT
        elif code == 354 and asked is not None and asked.verb != "DATA":
            yield _CHALLENGE
        elif code == 250 and asked is not None and asked.verb in ("AUTH", "RESPONSE"):
            yield _LOGGED_IN
        else:
            yield _SILENT if hello and code == 250 else answer
    # What accepts by the code of another.
    if usual is None or usual.code != 221:
        yield _GOODBYE
    if asked is not None and asked.verb in OWN_CODES:
        yield _ANSWERS[250]
        yield _CHALLENGE if asked.verb == "DATA" else _ANSWERS[354]
