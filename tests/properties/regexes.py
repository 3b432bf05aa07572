"""How much a backtracking matcher has to do, counted: Python's own does not say.

A regex is read by Python's parser and run by a small machine of the kind that Python's is: it
tries one way, and when that fails takes back the last choice. Each step counts. (Python's does
some steps at once; none of its tricks turns more than linear work into linear.)
"""

import importlib
import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeAlias

parser: Any = importlib.import_module("re._parser")  # no stubs know it

#: What to do at one place: match one character, go on at either of two places, look, end.
Instruction: TypeAlias = tuple[str, Any, Any]


def steps(pattern: re.Pattern[Any], text: bytes, most: int = 100_000) -> int:
    """Count what `pattern.fullmatch(text)` has to do; no more than `most` is done."""
    return _run(_program(pattern), text, most)[1]


def fits(pattern: re.Pattern[Any], text: bytes) -> bool:
    """Tell whether it matches, by this machine."""
    return _run(_program(pattern), text, 10**7)[0]


@cache
def _program(pattern: re.Pattern[Any]) -> list[Instruction]:
    program: list[Instruction] = []
    _emit(program, parser.parse(pattern.pattern, pattern.flags), pattern.flags)
    return [*program, ("end", None, None)]


def _run(
    program: Sequence[Instruction], text: bytes, most: int, start: int = 0, *, whole: bool = True
) -> tuple[bool, int]:
    done = 0
    waiting = [(0, start)]
    while waiting and done < most:
        at, position = waiting.pop()
        while done < most:
            done += 1
            what, one, other = program[at]
            if what == "end":
                if whole and position < len(text):
                    break
                return True, done
            if what == "match":
                if position == len(text) or not one(text[position]):
                    break
                at, position = at + 1, position + 1
            elif what == "split":
                waiting.append((other, position))
                at = one
            elif what == "look":
                inside, back = one
                found, more = position >= back, 0
                if found:
                    found, more = _run(inside, text, most - done, position - back, whole=False)
                done += more
                if found is not other:
                    break
                at += 1
            elif what == "at":
                if not one(text, position):
                    break
                at += 1
            else:
                at = one
    return False, done


def _emit(program: list[Instruction], tree: Any, flags: int) -> None:
    for node, argument in tree:
        name = str(node)
        if name in ("LITERAL", "NOT_LITERAL", "ANY", "IN"):
            program.append(("match", _one_of(name, argument, flags), None))
        elif name == "SUBPATTERN":
            _emit(program, argument[-1], flags)
        elif name == "BRANCH":
            _emit_branch(program, argument[1], flags)
        elif name == "MAX_REPEAT":
            _emit_repeat(program, argument, flags)
        elif name == "AT":
            program.append(("at", _PLACES[str(argument), bool(flags & re.MULTILINE)], None))
        elif name in ("ASSERT", "ASSERT_NOT"):
            direction, tree_inside = argument
            inside: list[Instruction] = []
            _emit(inside, tree_inside, flags)
            inside.append(("end", None, None))
            back = tree_inside.getwidth()[0] if direction < 0 else 0
            program.append(("look", (inside, back), name == "ASSERT"))
        else:
            raise NotImplementedError(name)


_WORD = frozenset(b"_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")


def _is_boundary(text: bytes, at: int) -> bool:
    before, behind = at > 0 and text[at - 1] in _WORD, at < len(text) and text[at] in _WORD
    return before is not behind


_PLACES: dict[tuple[str, bool], Callable[[bytes, int], bool]] = {
    ("AT_BEGINNING", False): lambda text, at: at == 0,
    ("AT_BEGINNING", True): lambda text, at: at == 0 or text[at - 1] == 10,
    ("AT_END", True): lambda text, at: at == len(text) or text[at] == 10,
    ("AT_BOUNDARY", True): _is_boundary,
    ("AT_END_STRING", False): lambda text, at: at == len(text),
    ("AT_END_STRING", True): lambda text, at: at == len(text),
}
_CATEGORIES = {"CATEGORY_SPACE": b" \t\n\r\f\v", "CATEGORY_DIGIT": b"0123456789"}


def _emit_branch(program: list[Instruction], branches: Sequence[Any], flags: int) -> None:
    ends: list[int] = []
    for branch in branches[:-1]:
        choice = len(program)
        program.append(("", None, None))
        _emit(program, branch, flags)
        ends.append(len(program))
        program.append(("", None, None))
        program[choice] = ("split", choice + 1, len(program))
    _emit(program, branches[-1], flags)
    for end in ends:
        program[end] = ("go", len(program), None)


def _emit_repeat(program: list[Instruction], argument: tuple[int, Any, Any], flags: int) -> None:
    least, most, body = argument
    for _ in range(least):
        _emit(program, body, flags)
    for_ever = most is parser.MAXREPEAT
    choices: list[int] = []
    for _ in range(1 if for_ever else most - least):
        choices.append(len(program))
        program.append(("", None, None))
        _emit(program, body, flags)
    if for_ever:
        assert body.getwidth()[0] > 0, "it may go round without getting on"
        program.append(("go", choices[0], None))
    for choice in choices:
        program[choice] = ("split", choice + 1, len(program))


def _one_of(name: str, argument: Any, flags: int) -> Callable[[int], bool]:
    """Return the test of one character."""
    if name == "ANY":
        octets = set(range(256)) - (set() if flags & re.DOTALL else {10})
    else:
        items = argument if name == "IN" else [(name.removeprefix("NOT_"), argument)]
        octets = set()
        for kind, value in items:
            if str(kind) == "RANGE":
                octets |= {*range(value[0], min(value[1], 255) + 1)}
            elif str(kind) == "LITERAL":
                octets.add(value)
            elif str(kind) == "CATEGORY":
                octets |= {*_CATEGORIES[str(value)]}
            elif str(kind) != "NEGATE":
                raise NotImplementedError(str(kind))
        if flags & re.IGNORECASE:
            octets |= {ord(chr(o).swapcase()) for o in octets if o < 128}
        if name == "NOT_LITERAL" or str(items[0][0]) == "NEGATE":
            octets = set(range(256)) - octets
    return frozenset(octets).__contains__
