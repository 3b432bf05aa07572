"""Whole dialogues: a client's legal sessions, and octets of either end that need not be legal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

from hypothesis import strategies as st

from smtpproto.core.command import (
    Auth,
    Bdat,
    Command,
    Data,
    Ehlo,
    Helo,
    Lhlo,
    Mail,
    Quit,
    Rcpt,
    Rset,
    StartTls,
)
from smtpproto.core.content import DotWriter
from smtpproto.core.event import Chunk, Content, EndOfContent
from smtpproto.core.extension import Extension
from smtpproto.core.reply import Reply
from smtpproto.extensions import CHUNKING, PIPELINING, STANDARD

from .commands import (
    auth_responses,
    bad_lines,
    commands,
    commands_by_verb,
    mail_commands,
    rcpt_commands,
)
from .content import binary_content, chunk_octets, chunks, clean_content, cuttings, hostile_content
from .registry import full_offer
from .replies import ehlo_replies, replies

__all__ = [
    "Group",
    "Thing",
    "client_octets",
    "dialogue_octets",
    "mutations",
    "octets_of",
    "server_octets",
    "sessions",
    "transactions",
]

#: What a client sends.
Thing: TypeAlias = Command | Content | EndOfContent | Chunk
#: What it sends at once, before it hears any answer.
Group: TypeAlias = list[Thing]


class _Speech:
    """What can be said with some extensions: made once, and drawn from often."""

    def __init__(self, extensions: Sequence[Extension], *, lmtp: bool = False) -> None:
        self.extensions = tuple(extensions)
        self.commands = commands_by_verb(extensions, lmtp=lmtp)
        self.mail = mail_commands(extensions)
        self.rcpts = {
            utf8: st.lists(rcpt_commands(extensions, utf8=utf8), min_size=1, max_size=3)
            for utf8 in (False, True)
        }
        self.clean = {wide: clean_content(ascii_only=not wide) for wide in (False, True)}
        self.binary = binary_content()


def transactions(
    extensions: Sequence[Extension] = STANDARD, *, complete: bool = True
) -> st.SearchStrategy[list[Group]]:
    """One mail transaction, after EHLO: MAIL, some RCPTs, and the content, by DATA or in chunks.

    In groups as they may be sent; where they are not `complete`, it may end with RSET before.
    """
    return _transactions(_Speech(extensions), complete)


@st.composite
def _transactions(draw: st.DrawFn, speech: _Speech, complete: bool) -> list[Group]:
    extensions = speech.extensions
    mail = draw(speech.mail)
    head: Group = [mail, *draw(speech.rcpts["SMTPUTF8" in mail.parameters])]
    if not complete and draw(st.booleans()):
        cut = draw(st.integers(1, len(head)))
        return draw(_grouped([*head[:cut], Rset()], extensions))
    body_is = (mail.parameters.get("BODY") or b"").upper()
    binary = body_is == b"BINARYMIME"
    clean = speech.clean[body_is == b"8BITMIME" or "SMTPUTF8" in mail.parameters]
    if binary or (CHUNKING in extensions and draw(st.booleans())):
        content = draw(speech.binary if binary else clean)
        body: Group = [*draw(chunks(content))]
        return draw(_grouped(head, extensions)) + draw(_grouped(body, extensions))
    content = draw(clean)
    pieces = draw(cuttings(content)) if content else []
    return [*draw(_grouped([*head, Data()], extensions)), [*map(Content, pieces), EndOfContent()]]


@st.composite
def _grouped(draw: st.DrawFn, things: Group, extensions: Sequence[Extension]) -> list[Group]:
    """Cut into groups what may be pipelined (RFC 2920 §3.1); one by one without PIPELINING."""
    groups: list[Group] = [[]]
    for thing in things:
        if groups[-1] and (PIPELINING not in extensions or draw(st.integers(0, 2)) == 0):
            groups.append([])
        groups[-1].append(thing)
    return groups


def sessions(
    extensions: Sequence[Extension] = STANDARD,
    *,
    lmtp: bool = False,
    tls: bool = False,
    mechanisms: Sequence[str] = ("PLAIN", "LOGIN"),
) -> st.SearchStrategy[list[Group]]:
    """Legal sessions: all that a client sends, from EHLO to QUIT, in groups.

    Legal where the server offers `extensions` as `full_offer` has it, and accepts everything:
    AUTH by one of `mechanisms`, at once, and verbs of their own. `tls`: STARTTLS may be among it;
    the handshake behind it is yours, and verifies the server (`TlsInfo.verified`).
    """
    clear, secret = (
        _Speech([e for e in extensions if e.keyword in full_offer(extensions, tls=on)], lmtp=lmtp)
        for on in (False, True)
    )
    return _sessions(clear, secret if tls else None, list(mechanisms))


# Said at its own time, or by transactions.
_NOT_IDLE = (Ehlo, Lhlo, Helo, Mail, Rcpt, Data, Bdat, Quit, Auth, StartTls)


@st.composite
def _sessions(
    draw: st.DrawFn, speech: _Speech, secret: _Speech | None, mechanisms: list[str]
) -> list[Group]:
    hello: Group = [draw(speech.commands[Lhlo if Lhlo in speech.commands else Ehlo])]
    groups = [hello]
    once = {Auth, StartTls} if secret else {Auth}
    for _ in range(draw(st.integers(0, 4))):
        choice: list[type[Command]] = [Mail, Mail, Mail]
        choice += [verb for verb in speech.commands if verb in once or verb not in _NOT_IDLE]
        verb = draw(st.sampled_from(choice))
        if verb is Mail:
            groups += draw(_transactions(speech, complete=False))
            continue
        command = draw(speech.commands[verb])
        if isinstance(command, Auth):
            command = Auth(draw(st.sampled_from(mechanisms)), command.initial_response)
        groups.append([command])
        once -= {verb}
        if verb is StartTls and secret:
            speech, once = secret, {Auth}
        if verb is StartTls or verb.starts_over:
            groups.append(hello)
    return [*groups, [Quit()]]


def octets_of(groups: Iterable[Group]) -> bytes:
    """Write what a client would send for these groups: all of it, whatever is answered."""
    return b"".join(_written(thing for group in groups for thing in group))


def _written(things: Iterable[Thing]) -> Iterator[bytes]:
    writer = DotWriter()
    for thing in things:
        if isinstance(thing, Content):
            yield writer.feed(thing.data)
        elif isinstance(thing, EndOfContent):
            yield writer.finish()
            writer = DotWriter()
        elif isinstance(thing, Chunk):
            yield Bdat(len(thing.data), thing.last).serialize() + thing.data
        else:
            yield thing.serialize()


def client_octets(
    extensions: Sequence[Extension] = STANDARD, *, lmtp: bool = False
) -> st.SearchStrategy[bytes]:
    """A legal session (see `sessions`) as octets, without STARTTLS."""
    return sessions(extensions, lmtp=lmtp).map(octets_of)


def mutations(octets: st.SearchStrategy[bytes], most: int = 2) -> st.SearchStrategy[bytes]:
    """The same octets, or with up to `most` of them dropped, changed or added."""

    def mutate(octets: bytes, edits: Sequence[tuple[int, int, bytes]]) -> bytes:
        for at, drop, what in edits:
            where = at % (len(octets) + 1)
            octets = octets[:where] + what + octets[where + drop :]
        return octets

    edit = st.tuples(st.integers(0, 10**4), st.integers(0, 2), st.binary(max_size=2))
    return st.builds(mutate, octets, st.lists(edit, max_size=most))


def dialogue_octets(lmtp: bool = False) -> st.SearchStrategy[bytes]:
    """What a client sends in a session, mostly legal, with mutations: for a server to survive."""
    begin = b"%b client.example\r\n" % (b"LHLO" if lmtp else b"EHLO")
    legal = commands(STANDARD, lmtp=lmtp).map(lambda command: command.serialize())
    mail = st.one_of(mail_commands(STANDARD), mail_commands()).map(Mail.serialize)
    rcpts = st.lists(rcpt_commands(STANDARD).map(Rcpt.serialize), max_size=3).map(b"".join)
    data = st.one_of(clean_content(), hostile_content()).map(b"DATA\r\n%b\r\n.\r\n".__mod__)
    body = st.one_of(data, chunk_octets())
    transaction = st.tuples(mail, st.just(b"RCPT TO:<Postmaster>\r\n"), rcpts, body)
    login = st.tuples(
        st.sampled_from([b"AUTH PLAIN\r\n", b"AUTH LOGIN\r\n", b"auth login AA==\r\n"]),
        st.lists(auth_responses().map(lambda r: r.serialize()), max_size=3).map(b"".join),
    )
    noise = st.one_of(
        st.binary(max_size=30),
        hostile_content(),
        bad_lines(600).map(lambda line: line + b"\r\n"),
        st.sampled_from([b"\r\n", b"BDAT 3\r\n", b"BDAT\r\n", b"STARTTLS\r\n", b"*\r\n"]),
    )
    parts = st.lists(
        st.one_of(
            st.just(begin),
            transaction.map(b"".join),
            transaction.map(b"".join),
            login.map(b"".join),
            chunk_octets(),
            legal,
            legal,
            noise,
        ),
        max_size=8,
    )
    first = st.sampled_from([begin, begin, b""])
    return mutations(st.tuples(first, parts.map(b"".join)).map(b"".join))


def server_octets() -> st.SearchStrategy[bytes]:
    """What a server sends, to whatever it was asked, with mutations: for a client to survive."""
    reply = st.one_of(replies(), replies([2]), ehlo_replies()).map(Reply.serialize)
    noise = st.one_of(
        st.binary(max_size=30),
        st.sampled_from(
            [b"250", b"250-", b"\r\n", b"250\r\n", b"421 \r\n", b"334 =\r\n", b"6\r\n"]
        ),
    )
    return mutations(st.lists(st.one_of(reply, reply, reply, noise), max_size=9).map(b"".join))
