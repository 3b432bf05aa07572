"""Replies: any, those that may answer one command, and what EHLO is told; and their spellings."""

from __future__ import annotations

import binascii
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from attrs import evolve
from hypothesis import strategies as st

from smtpproto.core.command import Auth, AuthResponse, Command, Data, Ehlo, Quit, StartTls
from smtpproto.core.event import Chunk, EndOfContent
from smtpproto.core.extension import Extension
from smtpproto.core.reply import Reply
from smtpproto.core.state import Asked, Greeting, State, moves
from smtpproto.core.status import EnhancedStatus
from smtpproto.extensions import STANDARD

from .paths import domains
from .registry import arguments_of
from .words import LET_DIG, PRINTABLE, utf8_texts

__all__ = [
    "AnyAsked",
    "ehlo_replies",
    "enhanced_statuses",
    "offers",
    "replies",
    "replies_to",
    "reply_spellings",
]

# What is accepted by one code alone (RFC 5321 §4.3.2, RFC 3207 §4, RFC 4954 §4).
_OWN_CODES: Mapping[Asked, int] = {
    Greeting: 220,
    StartTls: 220,
    Auth: 235,
    AuthResponse: 235,
    Data: 354,
    Quit: 221,
}

#: What a reply may be to: something a client sent, its class, or what nobody says aloud.
AnyAsked: TypeAlias = "Command | Chunk | EndOfContent | Asked"


def enhanced_statuses(class_: int) -> st.SearchStrategy[EnhancedStatus]:
    """Enhanced statuses of one class: 2, 4 or 5."""
    return st.builds(EnhancedStatus, st.just(class_), st.integers(0, 999), st.integers(0, 999))


def replies(
    first_digits: Sequence[int] = (2, 3, 4, 5), *, utf8: bool = False
) -> st.SearchStrategy[Reply]:
    """Replies of one to four lines; 421, which closes, only if drawn by chance.

    With `utf8`, such as may answer a client that asked for that (RFC 6531 §3.7.4).
    """
    line = st.text(PRINTABLE + "\t", max_size=40)
    lines = st.lists(st.one_of(line, utf8_texts()) if utf8 else line, min_size=1, max_size=4)

    def of(first: int) -> st.SearchStrategy[Reply]:
        statuses = st.none() if first == 3 else st.one_of(st.none(), enhanced_statuses(first))
        return st.builds(Reply, st.integers(first * 100, first * 100 + 59), statuses, lines)

    return st.one_of([of(first) for first in first_digits])


def offers(extensions: Sequence[Extension] = STANDARD) -> st.SearchStrategy[Mapping[str, str]]:
    """What servers may offer of these extensions: keyword -> what they announce behind it."""
    each = {e.keyword: arguments_of(e) for e in extensions}
    return st.fixed_dictionaries({}, optional=each)


def ehlo_replies(extensions: Sequence[Extension] = STANDARD) -> st.SearchStrategy[Reply]:
    """250 to EHLO (RFC 5321 §4.1.1.1), with some of these extensions and some that nobody knows."""
    word = st.text(LET_DIG, min_size=1, max_size=6)
    strange = st.dictionaries(
        word.map("X{}".format), st.text(PRINTABLE, max_size=8).map(" ".join), max_size=2
    )

    def build(name: str, offered: Mapping[str, str], others: Mapping[str, str]) -> Reply:
        both = {**offered, **others}.items()
        lines = [f"{keyword} {argument}".rstrip() for keyword, argument in both]
        return Reply(250, None, [f"{name} greets you", *lines])

    return st.builds(build, domains(), offers(extensions), strange)


def replies_to(
    asked: AnyAsked, extensions: Sequence[Extension] = STANDARD
) -> st.SearchStrategy[Reply]:
    """Every reply that a server may say to `asked` somewhere, good or bad: but never 421.

    A command, its class, a `Chunk`, `EndOfContent` or `Greeting`. EHLO is told of `extensions`.
    """
    kind = _kind(asked)
    digits = sorted({s.value for state in State for s in (moves(state, kind) or {})})

    def of(first: int) -> st.SearchStrategy[Reply]:
        if first == 2 and issubclass(kind, Ehlo):
            return ehlo_replies(extensions)
        if first == 3 and issubclass(kind, (Auth, AuthResponse)):
            return st.binary(max_size=40).map(_challenge)
        if first < 4 and kind in _OWN_CODES:
            return replies([first]).map(lambda reply: evolve(reply, code=_OWN_CODES[kind]))
        return replies([first]).filter(lambda reply: reply.code not in (221, 421))

    return st.one_of([of(first) for first in digits])


def _kind(asked: AnyAsked) -> Asked:
    if isinstance(asked, Chunk):
        return EndOfContent
    return asked if isinstance(asked, type) else type(asked)


def _challenge(octets: bytes) -> Reply:
    return Reply(334, None, binascii.b2a_base64(octets, newline=False))


@st.composite
def reply_spellings(draw: st.DrawFn, reply: Reply) -> bytes:
    """Ways to write a reply, CRLF after each line, that read back equal.

    Beside the canonical one: a line without text may be its code alone (RFC 5321 §4.2).
    """
    wire = reply.serialize().split(b"\r\n")[:-1]
    bare = [line[:3] if line == line[:3] + b" " and draw(st.booleans()) else line for line in wire]
    return b"".join(line + b"\r\n" for line in bare)
