"""What came of the mutants: `python -m tests.mutation.survivors [--show] [--page] [file ...]`.

A survivor is a missing test, or changes nothing that anybody could notice. What is of the second
kind is explained one by one in `explained/`, in one file for each file of core/. The exit status
is 1 where a survivor is not explained, a mutant has not been tried, or an explanation has no
survivor: its mutant is gone, or a test notices it.
"""

from __future__ import annotations

import argparse
import difflib
import json
import re
import subprocess
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from attrs import evolve, frozen

from tests.mutation.run import KILLED, SKIPPED, SURVIVED, TIMEOUT, sources

CORE = Path("mutants/src/smtpproto/core")
EXPLAINED = Path(__file__).parent / "explained"
PAGE = Path("docs/explanation/mutants.md")
#: By the number that mutmut and `run.py` keep. Out of time is a kill, too: no test passed.
KINDS: dict[int | None, str] = {
    KILLED: "killed",
    TIMEOUT: "out of time",
    SURVIVED: "survived",
    SKIPPED: "words",
}


@frozen
class Change:
    """A function by its qualified name, and the lines that were and that became, stripped.

    Where a function has the same lines more than once, `nth` tells which are meant, from 1.
    """

    function: str
    was: str
    became: str
    nth: int = 1

    def __str__(self) -> str:
        head = self.function if self.nth == 1 else f"{self.function} (nth = {self.nth})"
        was = (f"- {line}" for line in self.was.splitlines())
        became = (f"+ {line}" for line in self.became.splitlines())
        return "\n".join([head, *was, *became])


@frozen
class Verdict:
    """On one mutant: `name` as `mutmut show` wants it, and its kind, `explained` among them."""

    name: str
    kind: str
    change: Change


def explained(module: str) -> dict[Change, str]:
    """Return why no test can notice which changes of a file of core/."""
    path = EXPLAINED / f"{module}.toml"
    told = tomllib.loads(path.read_text()) if path.exists() else {}
    found: dict[Change, str] = {}
    for each in told.get("mutant", []):
        was, became = each["was"].strip(), each["became"].strip()
        change = Change(each["function"], was, became, each.get("nth", 1))
        if change in found or not each["why"].strip():
            raise ValueError(f"{path.name}: twice, or without a reason:\n{change}")
        found[change] = each["why"]
    return found


def change_of(mutant: str, before: str, after: str) -> Change:
    """Compare two functions, as `sources` has them."""
    mangled = mutant.rpartition(".")[2].rpartition("__mutmut_")[0]
    *_, name = function = mangled[2:].split("ǁ")
    was, became = (
        re.sub(rf"\b{mangled}__mutmut_\w+", name, source).splitlines() for source in (before, after)
    )
    found: dict[str, list[str]] = {"-": [], "+": []}
    for line in difflib.ndiff(was, became):
        if line[0] in found:
            found[line[0]].append(line[2:].strip())
    return Change(".".join(function), "\n".join(found["-"]), "\n".join(found["+"]))


def verdicts(module: str) -> Iterator[Verdict]:
    """Tell the verdict on every mutant of a file of core/."""
    meta = CORE / f"{module}.py.meta"
    known: dict[str, int | None] = json.loads(meta.read_text())["exit_code_by_key"]
    reasons = explained(module)
    seen: Counter[Change] = Counter()
    for mutant, before, after in sources(meta):
        change = change_of(mutant, before, after)
        seen[change] += 1
        change = evolve(change, nth=seen[change])
        kind = KINDS.get(known[mutant], "untried")
        if kind == "survived" and change in reasons:
            kind = "explained"
        yield Verdict(mutant, kind, change)


def idle(module: str, found: Iterable[Verdict]) -> list[Change]:
    """Return what is explained and did not survive."""
    needed = {each.change for each in found if each.kind == "explained"}
    return [change for change in explained(module) if change not in needed]


def row(name: str, counted: Counter[str]) -> str:
    """Return a line of the table."""
    killed = counted["killed"] + counted["out of time"]
    tried = killed + counted["explained"] + counted["survived"]
    cells = [
        name, tried, killed, counted["explained"], counted["survived"], counted["words"],
        counted["untried"], percent(killed, tried), percent(killed, tried - counted["explained"]),
    ]  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


def percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else ""


def table(counted: dict[str, Counter[str]]) -> str:
    """Return how many mutants of each file are of which kind, and the scores."""
    total = sum(counted.values(), Counter[str]())
    lines = [
        "| file | tried | killed | explained | survived | words | untried | score | of the rest |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
        *(row(f"`{module}.py`", each) for module, each in counted.items()),
        row("all", total),
    ]
    return "\n".join(lines)


def write_page(counted: dict[str, Counter[str]]) -> None:
    """Put the table, and the revision that it is of, between the marks in the page."""
    revision = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], text=True).strip()
    late = sum(each["out of time"] for each in counted.values())
    said = f"Measured at revision `{revision}`. {late} of the killed ran out of CPU time."
    begin, end = "<!-- survivors.py: begin -->\n", "<!-- survivors.py: end -->"
    head, _, rest = PAGE.read_text().partition(begin)
    _, _, tail = rest.partition(end)
    PAGE.write_text(f"{head}{begin}\n{said}\n\n{table(counted)}\n\n{end}{tail}")


def main() -> int:
    parser = argparse.ArgumentParser(description="What came of the mutants.")
    parser.add_argument("--show", action="store_true", help="print what is wrong")
    parser.add_argument("--page", action="store_true", help=f"write the table into {PAGE}")
    parser.add_argument("modules", nargs="*")
    asked = parser.parse_args()
    if asked.page and asked.modules:
        parser.error("the page has all files")
    counted: dict[str, Counter[str]] = {}
    wrong: list[str] = []
    for module in asked.modules or sorted(path.stem for path in CORE.glob("[a-z]*.py")):
        found = [*verdicts(module)]
        if found:
            counted[module] = Counter(each.kind for each in found)
        missing = (each for each in found if each.kind in ("survived", "untried"))
        wrong += [f"{each.kind}: {each.name}\n{each.change}\n" for each in missing]
        wrong += [f"explained, but no survivor: {module}.{each}\n" for each in idle(module, found)]
    print(table(counted))
    if asked.page:
        write_page(counted)
    if asked.show:
        print(*wrong, sep="\n")
    elif wrong:
        print(f"{len(wrong)} to explain or to mend: --show prints them")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
