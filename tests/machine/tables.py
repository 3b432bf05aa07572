"""The state machine as data, taken from `MOVES` in `src/smtpproto/core/state.py`.

`rows` gives every move; `machine` the whole of it, for `docs/reference/state-machine.json`.
"""

import inspect
import json
import re

from attrs import frozen

from smtpproto import AuthResponse, Command, EndOfContent, Severity, State
from smtpproto.core.state import MOVES, Asked, Greeting, moves

__all__ = ["MEANINGS", "SILENT", "Row", "as_json", "asked_name", "rows"]


class OtherVerb(Command):
    """A verb that an extension brought."""


class OutsideVerb(Command):
    """One that is not for transactions."""

    in_transaction = False


class NewVerb(Command):
    """One behind which the session begins anew."""

    starts_over = True


_NAMES: dict[Asked, str] = {
    Greeting: "greeting",
    EndOfContent: "end of content",
    AuthResponse: "response",
    OtherVerb: "extension verb",
    OutsideVerb: "verb kept out of transactions",
    NewVerb: "verb that starts over",
}
#: What each state means, by the comments of its source.
MEANINGS: dict[State, str] = {
    State[name]: meaning
    for name, meaning in re.findall(r"(\w+) = enum.auto\(\)  #: (.+)", inspect.getsource(State))
}
#: Moves that no reply makes: from, what happens, to. From None is from anywhere.
SILENT: tuple[tuple[State | None, str, State], ...] = (
    (State.TLS, "handshake", State.GREETED),
    (None, "end of file", State.CLOSED),
    (None, "lost framing", State.CLOSED),
    (State.MAIL, "last chunk for nobody (LMTP)", State.READY),
)


def asked_name(asked: Asked) -> str:
    """Name what a reply is owed to: a verb, or what is asked without a command."""
    if asked in _NAMES:
        return _NAMES[asked]
    assert issubclass(asked, Command)
    return asked.verb.decode()


@frozen
class Row:
    """What is asked in a state, and where each digit of the reply leads."""

    state: State
    asked: str
    leads: dict[int, State]


def rows() -> list[Row]:
    """Return all rows, by state; those of extensions' verbs stand last."""
    found = {
        (state, asked_name(asked)): {int(digit): to for digit, to in sorted(row.items())}
        for (state, asked), row in MOVES.items()
    }
    for state in State:
        for asked in (OtherVerb, OutsideVerb, NewVerb):
            row = moves(state, asked)
            if row is not None:
                found[state, asked_name(asked)] = {int(d): to for d, to in sorted(row.items())}
    order = list(State)
    return [
        Row(state, asked, leads)
        for (state, asked), leads in sorted(found.items(), key=lambda item: order.index(item[0][0]))
    ]


def as_json() -> str:
    """Write the machine for other programs."""
    machine = {
        "source": "smtpproto.core.state.MOVES",
        "initial": State.CONNECTED.name,
        "final": [State.CLOSED.name],
        "states": {state.name: MEANINGS[state] for state in State},
        "severities": {str(int(severity)): severity.name.lower() for severity in Severity},
        "rules": [
            "A reply makes the move: from a state, by what was asked there, by its first digit.",
            "421 leads to CLOSED from anywhere.",
            "What has no row in a state is out of sequence: refused by 4yz or 5yz, moving nothing.",
            "A digit that has no entry in a row is a protocol error of whoever says it.",
            "In LMTP the end of the content has a reply for each recipient; the last one moves.",
        ],
        "moves": [
            {"from": row.state.name, "asked": row.asked, "digit": digit, "to": to.name}
            for row in rows()
            for digit, to in row.leads.items()
        ],
        "without_reply": [
            {"from": state.name if state else "any", "by": by, "to": to.name}
            for state, by, to in SILENT
        ],
    }
    return json.dumps(machine, indent=1, ensure_ascii=False) + "\n"
