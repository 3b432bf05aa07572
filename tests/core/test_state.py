"""The table of moves against a second, independent telling of RFC 5321 §4.1.4 and its kin."""

import itertools

import pytest

from smtpproto import (
    Auth,
    AuthResponse,
    Bdat,
    Command,
    Data,
    Ehlo,
    EndOfContent,
    Expn,
    Helo,
    Help,
    Lhlo,
    Mail,
    Noop,
    Quit,
    Rcpt,
    Reply,
    Rset,
    Severity,
    StartTls,
    State,
    Vrfy,
)
from smtpproto.core.state import MOVES, Asked, Greeting, moves, next_state


class Foreign(Command):
    """A verb that an extension brought."""

    verb = b"XFOREIGN"


class Between(Command):
    """One that is not for within a transaction."""

    verb = b"XBETWEEN"
    in_transaction = False


class Anew(Command):
    """One behind which the session starts over."""

    verb = b"XANEW"
    starts_over = True


ASKED: list[Asked] = [
    Greeting, Ehlo, Helo, Lhlo, Mail, Rcpt, Data, Bdat, EndOfContent, Rset, Noop, Help, Vrfy, Expn,
    Quit, StartTls, Auth, AuthResponse, Foreign, Between, Anew,
]  # fmt: skip
CODES = {2: 250, 3: 354, 4: 450, 5: 550}


def model(state: State, asked: Asked, digit: int) -> State | None:
    """Return where it goes, or None where such a reply is illegal: written anew, as prose is."""
    name, refused = state.name, digit in (4, 5)
    commands_heard = name in ("GREETED", "READY", "MAIL", "RCPT", "CHUNKS", "SPOILED")
    in_place = {
        Greeting: name == "CONNECTED",
        Ehlo: commands_heard,
        Helo: commands_heard,
        Lhlo: commands_heard,
        Rset: commands_heard,
        Noop: commands_heard,
        Help: commands_heard,
        Vrfy: commands_heard,
        Expn: commands_heard,
        Foreign: commands_heard and name != "GREETED",
        Between: name == "READY",
        Anew: name == "READY",
        Quit: commands_heard or name == "REFUSED",
        Mail: name == "READY",
        Rcpt: name in ("MAIL", "RCPT"),
        Data: name in ("MAIL", "RCPT"),
        Bdat: name in ("RCPT", "CHUNKS", "SPOILED"),
        EndOfContent: name in ("CONTENT", "RCPT", "CHUNKS", "SPOILED"),
        StartTls: name == "READY",
        Auth: name == "READY",
        AuthResponse: name == "AUTH",
    }[asked]
    if not in_place:
        return state if refused else None
    if asked is Quit:
        return None if digit == 3 else State.CLOSED
    if refused:
        if asked is Rset and name in ("MAIL", "RCPT", "CHUNKS", "SPOILED"):
            return None  # §4.1.1.5: it has something to drop
        if asked is Greeting:
            return State.REFUSED
        if asked is Bdat:
            return State.SPOILED
        return State.READY if asked in (EndOfContent, AuthResponse) else state
    if digit == 3:
        if asked is Data:
            return State.CONTENT
        return State.AUTH if asked in (Auth, AuthResponse) else None
    if asked is Data:
        return None
    if name == "SPOILED" and asked in (Bdat, EndOfContent):
        return None  # RFC 3030 §2: nothing of it is accepted any more
    if asked is Rset:
        return State.GREETED if name == "GREETED" else State.READY
    moved: dict[Asked, State] = {
        Greeting: State.GREETED,
        Ehlo: State.READY,
        Helo: State.READY,
        Lhlo: State.READY,
        Mail: State.MAIL,
        Rcpt: State.RCPT,
        Bdat: State.CHUNKS,
        EndOfContent: State.READY,
        StartTls: State.TLS,
        Auth: State.READY,
        AuthResponse: State.READY,
        Anew: State.GREETED,
    }
    return moved.get(asked, state)


@pytest.mark.rfc("5321 §4.1.4 commands-have-an-order")
@pytest.mark.parametrize(("state", "asked"), [*itertools.product(State, ASKED)])
def test_every_move(state: State, asked: Asked) -> None:
    for digit, code in CODES.items():
        assert next_state(state, asked, Reply(code)) is model(state, asked, digit)


@pytest.mark.rfc("5321 §3.8 421-may-be-said-at-any-time")
@pytest.mark.parametrize(("state", "asked"), [*itertools.product(State, ASKED)])
def test_421_closes_from_anywhere(state: State, asked: Asked) -> None:
    assert next_state(state, asked, Reply(421)) is State.CLOSED


def test_a_row_never_ends_nowhere() -> None:
    for (state, asked), row in MOVES.items():
        if asked is not Rset:  # which is not refused everywhere
            assert {Severity.TRANSIENT, Severity.PERMANENT} <= set(row)
            assert len(row) > 2 or state is State.SPOILED  # where nothing good can be said
    assert moves(State.CLOSED, Noop) is None
    assert moves(State.TLS, Ehlo) is None
    assert moves(State.CONTENT, Quit) is None
