"""The page of the state machine: `docs/reference/state-machine.md`."""

from collections.abc import Iterable, Mapping

from smtpproto import State

from .clauses import FORBIDDEN, Clause
from .kept import KEPT
from .sending import DENIED, UNKNOWABLE
from .tables import MEANINGS, SILENT, Row, rows

__all__ = ["as_markdown"]

HEAD = """\
# The state machine

This page, the picture and [the same as JSON](state-machine.json) are made by `python -m
tests.machine` from `MOVES` in `src/smtpproto/core/state.py`, the one table that both ends of a
session run. A test holds them to it, and it to what real connections do.

A move is made by a *reply*: from a state, by what was asked there, and by the first digit.

```{raw} html
:file: state-machine.svg
```

## The moves

*2yz*, *3yz*, *4yz, 5yz*: where a reply with this digit leads. An empty cell is a reply that may
not be said there: a protocol error of whoever says it. What has no row in a state is out of
sequence there: it is refused, and nothing moves. *421* leads to CLOSED from anywhere.

*greeting* is asked for by connecting, *end of content* by the final dot or the last chunk,
*response* is a line of the client's within AUTH. An *extension verb* is one that has no row of its
own; ETRN is a *verb kept out of transactions*, XCLIENT a *verb that starts over*. In LMTP the end
of the content has a reply for each recipient, and the last of them makes the move.
"""

HELD = """\
## What a server is held to

`tests/machine/` tells a session anew, from the RFCs and from what passes on the wire alone, and
walks with it through all that a real `ServerConnection` can come to: every state, with and
without TLS and login, behind EHLO, HELO and LHLO, with none, one and two recipients, with the
content whole, cut, faulty and too long. Everywhere the client says every command, well and badly,
and the server is told to say a reply of each class. Two sessions count as one only where the
server holds the same, hidden or not. What a client says when it has waited for a reply it says
once more without waiting, and it has to come to the same.

`python -m tests.machine --walk` counts the configurations, and prints the shortest way to
whatever is broken.

### What it may not say

A reply is refused by `send` exactly where one of these forbids it.
"""

KEPT_HEAD = """\
### What has to be so

Behind every step.
"""

SENDING = """\
## What a client is held to

A `ClientConnection` and a server walk together, with up to three commands in flight. `send`
refuses exactly what one of these denies, going by what will be known if all that is in flight is
answered well. The client believes the replies that a server may say, and no others. Where
nothing is in flight both are in one state, and agree on login, TLS, and what is offered.
"""

UNKNOWN = """\
What a server may not accept, and its client may still try, or believe:
"""


def _table(heads: Iterable[str], cells: Iterable[Iterable[str]]) -> str:
    lines = [list(heads)]
    lines += [["---"] * len(lines[0]), *map(list, cells)]
    return "".join(
        "|".join(["", *(f" {cell} " if cell else " " for cell in line), ""]) + "\n"
        for line in lines
    )


def _state(state: State, found: list[Row]) -> str:
    """Write one state: what is asked alike is one row."""
    alike: dict[tuple[State | None, ...], list[str]] = {}
    for row in found:
        leads = tuple(row.leads.get(digit) for digit in (2, 3, 4))
        alike.setdefault(leads, []).append(row.asked)

    def to(lead: State | None) -> str:
        if lead is None:
            return ""
        return "stays" if lead is state else f"[{lead.name}](#{lead.name.lower()})"

    parts = [f"### {state.name}\n", f"{MEANINGS[state][0].upper()}{MEANINGS[state][1:]}.\n"]
    if alike:
        cells = (
            [", ".join(f"`{a}`" if a.isupper() else a for a in asked), *map(to, leads)]
            for leads, asked in alike.items()
        )
        parts.append(_table(("asked", "2yz", "3yz", "4yz, 5yz"), cells))
    parts += [
        f"Without a reply: {by} leads to {to(end)}.\n"
        for start, by, end in SILENT
        if start is state
    ]
    if state is State.CLOSED:
        ways = " and ".join(by for start, by, _ in SILENT if start is None)
        parts.append(f"Without a reply, {ways} lead here from anywhere.\n")
    return "\n".join(parts)


def _clauses(clauses: Mapping[Clause, object]) -> str:
    return _table(("", "by"), ((clause.says, clause.cites) for clause in clauses))


def as_markdown() -> str:
    """Write the page."""
    found = rows()
    parts = [
        HEAD,
        *(_state(state, [row for row in found if row.state is state]) for state in State),
        HELD,
        _clauses(FORBIDDEN),
        KEPT_HEAD,
        _clauses(KEPT),
        SENDING,
        _clauses(DENIED),
        UNKNOWN,
        _table(("not held", "for"), UNKNOWABLE.items()),
    ]
    return "\n".join(parts)
