"""The state machine: what is written of it is so, and real connections keep the clauses."""

import gc
import json
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import pytest

from smtpproto import (
    Auth,
    AuthResponse,
    Bdat,
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
    StartTls,
    State,
    Vrfy,
)
from smtpproto.core.state import MOVES, Asked, Greeting, next_state
from smtpproto.extensions.etrn import Etrn
from smtpproto.extensions.xclient import XClient
from smtpproto.extensions.xforward import XForward

from .both_ends import Walk, walk
from .clauses import FORBIDDEN, Clause
from .diagram import LINES, as_svg, moves_of, undrawn
from .explore import Exploration, explore, replay
from .files import FILES
from .kept import KEPT
from .sending import DENIED, UNKNOWABLE
from .tables import MEANINGS, SILENT, as_json
from .words import SETTINGS, Foreign

VERBS: dict[str, Asked] = {
    verb.verb.decode(): verb
    for verb in (
        Ehlo, Helo, Lhlo, Mail, Rcpt, Data, Bdat, Rset, Noop, Help, Vrfy, Expn, Quit,
        StartTls, Auth,
    )
}  # fmt: skip
#: By the words of the walks, and by those of what is written.
ASKED = VERBS | {
    "GREETING": Greeting,
    "END": EndOfContent,
    "RESPONSE": AuthResponse,
    "XFOREIGN": Foreign,
    "ETRN": Etrn,
    "XCLIENT": XClient,
    "XFORWARD": XForward,
}
WRITTEN = VERBS | {
    "greeting": Greeting,
    "end of content": EndOfContent,
    "response": AuthResponse,
    "extension verb": Foreign,
    "verb kept out of transactions": Etrn,
    "verb that starts over": XClient,
}


@pytest.fixture(autouse=True, scope="module")
def no_collecting() -> Iterator[None]:
    """Spare the garbage collector: of the many configurations none is garbage."""
    gc.disable()
    yield
    gc.enable()
    explored.cache_clear()
    walked.cache_clear()


@cache
def explored(number: int) -> Exploration:
    return explore(SETTINGS[number])


@cache
def walked(number: int) -> Walk:
    return walk(SETTINGS[number])


def everywhere() -> list[Exploration]:
    return [explored(number) for number in range(len(SETTINGS))]


EACH_SETTING = pytest.mark.parametrize(
    "number", range(len(SETTINGS)), ids=[setting.name for setting in SETTINGS]
)


#: Where both walk together; by LMTP a client logs in as by SMTP.
TOGETHER = [n for n, setting in enumerate(SETTINGS) if not (setting.lmtp and setting.mechanisms)]


# Real connections


@EACH_SETTING
def test_a_server_keeps_every_clause(number: int) -> None:
    found = explored(number)
    if found.violations:
        pytest.fail("\n".join(map(str, found.violations)), pytrace=False)


@pytest.mark.parametrize("number", TOGETHER, ids=[SETTINGS[number].name for number in TOGETHER])
def test_a_client_and_a_server_keep_every_clause_together(number: int) -> None:
    found = walked(number)
    if found.violations:
        pytest.fail("\n".join(map(str, found.violations)), pytrace=False)


@EACH_SETTING
def test_a_fork_stands_where_a_session_would(number: int) -> None:
    found = explored(number)
    for node in [*found.nodes.values()][::9]:
        assert replay(node, found.setting) == node.view, node.way()


def test_every_clause_had_something_to_say() -> None:
    objected = Counter[Clause]()
    held = Counter[Clause]()
    for found in everywhere():
        objected += found.objected
        held += found.held
    assert set(objected) == set(FORBIDDEN)
    assert set(held) == set(KEPT)
    denied = {clause for number in TOGETHER for clause in walked(number).denied}
    assert denied == set(DENIED)


def test_no_exception_is_made_for_what_never_happens() -> None:
    assert set(UNKNOWABLE) <= {clause.says for clause in FORBIDDEN}
    excused = {says for number in TOGETHER for says in walked(number).excused}
    assert excused == set(UNKNOWABLE)


#: RFC 2920 §3.1 lets a server say 354 to nobody; ours never does.
NEVER_OURS = {(State.MAIL, Data, 3)}


def test_a_server_makes_every_move_of_the_table() -> None:
    moves = set[tuple[State, str, int, State]]().union(*(found.moves for found in everywhere()))
    made = {(state, ASKED[verb], digit, to) for state, verb, digit, to in moves if verb in ASKED}
    for (state, asked), row in MOVES.items():
        for digit, to in row.items():
            ours = (state, asked, digit) not in NEVER_OURS
            assert ((state, asked, int(digit), to) in made) is ours, (state, asked, digit)


def test_a_server_makes_no_move_beside_the_table() -> None:
    for found in everywhere():
        for state, verb, digit, to in found.moves:
            stays = state if digit > 3 else None  # as what is out of sequence
            wanted = stays if verb == "" else next_state(state, ASKED[verb], Reply(digit * 110))
            assert to is wanted, (found.setting.name, state, verb, digit)


def test_what_moves_without_a_reply_is_told() -> None:
    silent = set[tuple[State, str, State]]().union(*(found.silent for found in everywhere()))
    told = {(by, to): state for state, by, to in SILENT}
    for state, by, to in silent:
        assert told[by, to] in (state, None)
    assert {(by, to) for _, by, to in silent} == set(told)


# What is written


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.suffix)
def test_the_files_are_made_of_the_tables(file: Path) -> None:
    again = "written anew by `python -m tests.machine`"
    assert file.read_text(encoding="utf-8") == FILES[file](), again


def test_the_picture_leaves_out_nothing_that_moves() -> None:
    assert [move for move in undrawn() if move[0] is not move[3]] == []
    silent = {(state, to) for state, _, to in SILENT}
    for line in LINES:
        moves = list(moves_of(line))
        drawn = {row.asked for row, _ in moves}
        assert drawn == set(line.asked), line
        assert moves or (line.states[0], line.to) in silent


def test_the_picture_is_one() -> None:
    picture = ElementTree.fromstring(as_svg())
    words = {"".join(text.itertext()) for text in picture.iter("{http://www.w3.org/2000/svg}text")}
    assert {state.name for state in State} <= words
    assert "end of content 2 4 5" in words


def test_json_tells_every_move_and_no_other() -> None:
    told = json.loads(as_json())
    assert told["states"] == {state.name: MEANINGS[state] for state in State}
    table: dict[tuple[str, str], dict[int, str]] = {}
    for move in told["moves"]:
        row = table.setdefault((move["from"], move["asked"]), {})
        assert row.setdefault(move["digit"], move["to"]) == move["to"]
    assert {asked for _, asked in table} == set(WRITTEN)
    for state in State:
        for word, asked in WRITTEN.items():
            out_of_sequence = {4: state.name, 5: state.name}
            row = table.get((state.name, word), out_of_sequence)
            for digit in (2, 3, 4, 5):
                to = next_state(state, asked, Reply(digit * 110))
                assert row.get(digit) == (to.name if to else None), (state, word, digit)
