"""Every change of state, in one table.

Theory of operation
===================

SMTP moves when a command is *answered*. So a move is looked up by where the session is and what
was asked, and then by the severity of the reply: ``MOVES[state, asked][severity] -> state``.
This file does not know which side it serves: both run the same table, and so they agree
whenever nothing is on its way between them.

Two things are asked without a command: the greeting (asked for by connecting) and the verdict on
the content (asked for by its end). They have rows of their own, under `Greeting` and
`EndOfContent`.

::

    CONNECTED --greeting 2--> GREETED --EHLO 2--> READY --MAIL 2--> MAIL --RCPT 2--> RCPT
        |                                          ^ |                                 |
        +--greeting 5--> REFUSED                   | +--STARTTLS 2--> TLS              DATA 3
                                                   | +--AUTH 3--> AUTH                 |
                                                   +------ end of content -------- CONTENT
                                                   +-- last chunk -- CHUNKS <--BDAT 2-- RCPT

- 421 closes from any state (RFC 5321 §3.8); so does the answer to QUIT.
- 3yz is legal only for DATA and AUTH, 2yz never for DATA (§4.3.2): what a row does not list is
  a protocol error of whoever says it.
- What is asked where its row is missing is out of sequence (503) and moves nothing.
- EHLO and RSET drop the transaction (§4.1.4); a refused EHLO changes nothing.
- RSET may be refused where it has nothing to drop (RFC 3207 §4), and never in a transaction
  (§4.1.1.5, §4.3.2): what comes behind it would belong to one of which nobody can say which it is.
- STARTTLS ends in TLS, where no octet of SMTP may pass until the handshake is done; the session
  then begins anew without a greeting (RFC 3207 §4.2).
- A command refused in AUTH ends the exchange: there is no other way out of it (RFC 4954 §4).
- BDAT moves when its octets have been counted. The verdict on the last chunk is that on the content
  (`EndOfContent`). A chunk that is refused spoils the transaction: what is pipelined behind it is
  refused until the last chunk or RSET (RFC 3030 §2).
- LMTP answers the end of the content once for each accepted recipient; the move is made by the last
  of these replies, whatever they say (RFC 2033 §4.2).
- DATA without an accepted recipient is in the table, for a server may say 354 to a pipelining
  client that could not yet know (RFC 2920 §3.1). Ours never does: ServerConnection refuses it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeAlias

from .command import (
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
    Noop,
    Quit,
    Rcpt,
    Rset,
    StartTls,
    Vrfy,
)
from .event import EndOfContent
from .reply import Reply, Severity

__all__ = ["MOVES", "SILENT", "Asked", "Greeting", "State", "expected", "moves", "next_state"]


class State(enum.Enum):
    """Where a session is."""

    __hash__ = object.__hash__  # Enum's is Python, and every lookup in the table needs one

    CONNECTED = enum.auto()  #: the greeting is owed
    REFUSED = enum.auto()  #: greeted with 554: nothing but QUIT is of use (RFC 5321 §3.1)
    GREETED = enum.auto()  #: no EHLO or HELO yet
    READY = enum.auto()  #: no transaction
    MAIL = enum.auto()  #: a sender was accepted, no recipient
    RCPT = enum.auto()  #: at least one recipient was accepted
    CONTENT = enum.auto()  #: content is on its way, up to the final dot
    CHUNKS = enum.auto()  #: some chunks of content were accepted, and not the last
    SPOILED = enum.auto()  #: a chunk was refused; so are the others, until the last or RSET
    AUTH = enum.auto()  #: within a SASL exchange
    TLS = enum.auto()  #: the handshake is owed
    CLOSED = enum.auto()  #: over


#: Where no octet of SMTP may pass.
SILENT = frozenset({State.TLS, State.CLOSED})


class Greeting:
    """What is asked for by connecting."""


Asked: TypeAlias = "type[Command | EndOfContent | Greeting]"
Row: TypeAlias = Mapping[Severity, State]

_OK, _GO_ON = Severity.COMPLETION, Severity.INTERMEDIATE
_BAD = (Severity.TRANSIENT, Severity.PERMANENT)


def _row(bad: State, *, ok: State | None = None, go_on: State | None = None) -> Row:
    row: dict[Severity, State] = dict.fromkeys(_BAD, bad)
    if ok is not None:
        row[_OK] = ok
    if go_on is not None:
        row[_GO_ON] = go_on
    return row


def _good(row: Row) -> State | None:
    return row.get(_OK) or row.get(_GO_ON)


_S = State
_TRANSACTION = (_S.MAIL, _S.RCPT, _S.CHUNKS, _S.SPOILED)


def _table() -> dict[tuple[State, Asked], Row]:
    table: dict[tuple[State, Asked], Row] = {
        (_S.CONNECTED, Greeting): _row(_S.REFUSED, ok=_S.GREETED),
        (_S.READY, Mail): _row(_S.READY, ok=_S.MAIL),
        (_S.MAIL, Rcpt): _row(_S.MAIL, ok=_S.RCPT),
        (_S.RCPT, Rcpt): _row(_S.RCPT, ok=_S.RCPT),
        (_S.MAIL, Data): _row(_S.MAIL, go_on=_S.CONTENT),
        (_S.RCPT, Data): _row(_S.RCPT, go_on=_S.CONTENT),
        (_S.CONTENT, EndOfContent): _row(_S.READY, ok=_S.READY),
        (_S.RCPT, Bdat): _row(_S.SPOILED, ok=_S.CHUNKS),
        (_S.CHUNKS, Bdat): _row(_S.SPOILED, ok=_S.CHUNKS),
        (_S.SPOILED, Bdat): _row(_S.SPOILED),
        (_S.RCPT, EndOfContent): _row(_S.READY, ok=_S.READY),
        (_S.CHUNKS, EndOfContent): _row(_S.READY, ok=_S.READY),
        (_S.SPOILED, EndOfContent): _row(_S.READY),
        (_S.READY, StartTls): _row(_S.READY, ok=_S.TLS),
        (_S.READY, Auth): _row(_S.READY, ok=_S.READY, go_on=_S.AUTH),
        (_S.AUTH, AuthResponse): _row(_S.READY, ok=_S.READY, go_on=_S.AUTH),
    }
    for state in (_S.REFUSED, _S.GREETED, _S.READY, *_TRANSACTION):
        table[state, Quit] = _row(_S.CLOSED, ok=_S.CLOSED)
    for state in (_S.GREETED, _S.READY, *_TRANSACTION):
        for hello in (Ehlo, Helo, Lhlo):
            table[state, hello] = _row(state, ok=_S.READY)
        for idle in (Noop, Help, Vrfy, Expn, Rset):
            table[state, idle] = _row(state, ok=state)
    for state in _TRANSACTION:
        table[state, Rset] = {_OK: _S.READY}
    return table


_TABLE = _table()
#: (state, asked) -> severity of the reply -> next state.
MOVES: Mapping[tuple[State, Asked], Row] = MappingProxyType(_TABLE)

#: A verb that an extension brought: not before that was announced, and it moves nothing,
_FOREIGN = {state: _row(state, ok=state) for state in (_S.READY, *_TRANSACTION)}
#: unless the session starts over, which no transaction survives.
_STARTS_OVER = {_S.READY: _row(_S.READY, ok=_S.GREETED)}
_EXPECTED = {place: _good(row) for place, row in _TABLE.items()}
_KNOWN = frozenset(asked for _, asked in MOVES)


def moves(state: State, asked: Asked) -> Row | None:
    """Return severity -> next state for what is asked here; None where it is out of sequence."""
    row = _TABLE.get((state, asked))
    if row is not None or asked in _KNOWN:
        return row
    if issubclass(asked, Command):
        if asked.starts_over:
            return _STARTS_OVER.get(state)
        if not asked.in_transaction and state in _TRANSACTION:
            return None
    return _FOREIGN.get(state)


def expected(state: State, asked: Asked) -> State | None:
    """Return where a good answer leads; None where there is none, so nothing to ask for."""
    return _EXPECTED.get((state, asked)) or _good(moves(state, asked) or {})


def next_state(state: State, asked: Asked, reply: Reply) -> State | None:
    """Return the state after `reply`; None where such a reply is illegal.

    What is out of sequence can be refused, and moves nothing.
    """
    if reply.code == 421:
        return State.CLOSED
    row = _TABLE.get((state, asked)) or moves(state, asked)
    if row is None:
        return state if reply.severity in _BAD else None
    return row.get(reply.severity)
