"""What came of the mutants: `python -m tests.mutation.survivors [--show] [file ...]`.

What no test enters is counted apart: it runs when a module is imported, before any switch is
thrown. So are the mutants that change nothing but the words of an exception, which nobody tried.
"""

from __future__ import annotations

import argparse
import difflib
import json
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

from tests.mutation.run import NO_TESTS, SKIPPED, SURVIVED, sources

CORE = Path("mutants/src/smtpproto/core")
#: By the number that mutmut and `run.py` keep.
KINDS = {1: "killed", SKIPPED: "text", NO_TESTS: "import", SURVIVED: "other", None: "untried"}


@frozen
class Verdict:
    """Of one mutant: `name` as `mutmut show` wants it, one of `KINDS`, and the lines it changed."""

    name: str
    kind: str
    change: str


def _changed(before: str, after: str) -> str:
    changes = difflib.ndiff(before.splitlines()[1:], after.splitlines()[1:])
    return "\n".join(line for line in changes if line[0] in "+-" and "__mutmut_" not in line)


def verdicts(module: str) -> Iterator[Verdict]:
    """Tell the verdict on every mutant of a file of core/."""
    meta = CORE / f"{module}.py.meta"
    known: dict[str, int | None] = json.loads(meta.read_text())["exit_code_by_key"]
    for mutant, before, after in sources(meta):
        kind = KINDS.get(known[mutant], "killed")
        yield Verdict(mutant, kind, _changed(before, after))


def main() -> None:
    parser = argparse.ArgumentParser(description="What came of the mutants.")
    parser.add_argument("--show", action="store_true", help="print each other survivor")
    parser.add_argument("modules", nargs="*")
    asked = parser.parse_args()
    modules = asked.modules or sorted(path.stem for path in CORE.glob("[a-z]*.py"))
    print("| file | mutants | killed | texts | at import | others |")
    print("|---|--:|--:|--:|--:|--:|")
    total = dict.fromkeys(KINDS.values(), 0)
    for module in modules:
        found = list(verdicts(module))
        counted = {kind: sum(each.kind == kind for each in found) for kind in KINDS.values()}
        total = {kind: total[kind] + counted[kind] for kind in KINDS.values()}
        if found:
            _row(f"`{module}.py`", counted)
        for each in found if asked.show else ():
            if each.kind in ("other", "import"):
                print(f"{each.name}\n{each.change}\n")
    _row("all", total)


def _row(name: str, counted: dict[str, int]) -> None:
    every = sum(counted.values())
    cells = (name, every, *(counted[kind] for kind in KINDS.values() if kind != "untried"))
    untried = f" ({counted['untried']} untried)" if counted["untried"] else ""
    print(f"| {' | '.join(map(str, cells))} |{untried}")


if __name__ == "__main__":
    main()
