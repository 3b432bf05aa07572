"""Rounds of numbers, made into medians, ratios, and a table to read."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = [
    "COMPARED",
    "HEADINGS",
    "LOOPS",
    "Measure",
    "Report",
    "Spread",
    "aligned",
    "cell",
    "mine",
    "number",
    "on",
    "ratios",
    "summary",
    "table",
    "workers_on",
]  # fmt: skip

HEADINGS = {"rate": "messages/s", "cpu": "CPU µs/message", "peak": "peak MB"}

#: Of these, how ours on asyncio compares to a program.
COMPARED = {"rate": "asyncio / it, messages/s", "cpu": "asyncio / it, CPU"}

#: What we run on, the default first.
LOOPS = ("asyncio", "uvloop", "trio")


def on(loop: str) -> str:
    """Return the name of our program on a loop; that of no peer begins so."""
    return f"smtpproto, {loop}"


def workers_on(loop: str) -> str:
    """Return the name of our server with two processes."""
    return f"{on(loop)}, 2 workers"


def mine(program: str) -> bool:
    return program.startswith("smtpproto, ")


@dataclass(frozen=True)
class Measure:
    """One program in one round."""

    rate: float  # messages a second of wall time
    cpu: float  # microseconds of CPU for each message
    peak: float  # megabytes


@dataclass(frozen=True)
class Report:
    """All that one run has found: scenario -> program -> what each round gave."""

    machine: dict[str, str]
    rounds: int
    quick: bool
    skipped: list[str] = field(default_factory=list[str])
    sizes: dict[str, str] = field(default_factory=dict[str, str])  # of each scenario
    measured: dict[str, dict[str, list[Measure]]] = field(
        default_factory=dict[str, dict[str, list[Measure]]]
    )

    def add(self, scenario: str, size: str, program: str, measure: Measure) -> None:
        self.sizes[scenario] = size
        self.measured.setdefault(scenario, {}).setdefault(program, []).append(measure)

    def meaning(self) -> str:
        """Say what the numbers are."""
        if self.quick:
            return "quick: a few messages once, which says nothing about speed"
        return f"medians of {self.rounds} rounds, smallest and largest"

    def as_json(self) -> dict[str, Any]:
        """Every number of every round, and the ratios of ours to the peers'."""
        pairs = {
            scenario: {
                f"{one} / {other}": {name: asdict(share) for name, share in ratios(*both).items()}
                for one, other, *both in _pairs(programs)
            }
            for scenario, programs in self.measured.items()
        }
        return asdict(self) | {"ratios": pairs}

    @classmethod
    def from_json(cls, numbers: dict[str, Any]) -> Report:
        """Return what `as_json` was made of."""
        measured = {
            scenario: {name: [Measure(**one) for one in found] for name, found in programs.items()}
            for scenario, programs in numbers["measured"].items()
        }
        kept = {name: numbers[name] for name in ("machine", "rounds", "quick", "skipped", "sizes")}
        return cls(**kept, measured=measured)


@dataclass(frozen=True)
class Spread:
    """Median, smallest and largest of what the rounds gave."""

    middle: float
    low: float
    high: float


def _spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values))


def summary(rounds: Sequence[Measure]) -> dict[str, Spread]:
    """Return the spread of each quantity over the rounds."""
    return {name: _spread([getattr(one, name) for one in rounds]) for name in HEADINGS}


def ratios(ours: Sequence[Measure], peer: Sequence[Measure]) -> dict[str, Spread]:
    """Return the spread of ours/peer, divided round by round: what disturbs one, disturbs both."""
    pairs = list(zip(ours, peer, strict=True))
    return {
        name: _spread([getattr(one, name) / getattr(other, name) for one, other in pairs])
        for name in HEADINGS
    }


def _pairs(
    programs: Mapping[str, list[Measure]],
) -> Iterator[tuple[str, str, list[Measure], list[Measure]]]:
    """Give each of ours with each of the peers."""
    for one in filter(mine, programs):
        for other in programs:
            if not mine(other):
                yield one, other, programs[one], programs[other]


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def cell(spread: Spread, unit: str = "") -> str:
    """Write a spread, as narrow as it can be."""
    middle = number(spread.middle) + unit
    if spread.low == spread.high:
        return middle
    return f"{middle} ({number(spread.low)}-{number(spread.high)})"


def comparison(programs: Mapping[str, list[Measure]]) -> list[tuple[str, ...]]:
    """Return the rows of one scenario: each program, and how ours on the default loop compares."""
    own = on(LOOPS[0])
    rows: list[tuple[str, ...]] = []
    for program, rounds in programs.items():
        found = summary(rounds)
        row = (program, *(cell(found[name]) for name in HEADINGS))
        if program != own:
            shares = ratios(programs[own], rounds)
            row += tuple(cell(shares[name], "×") for name in COMPARED)
        else:
            row += ("",) * len(COMPARED)
        rows.append(row)
    return rows


def table(report: Report) -> list[str]:
    """Return the lines of the table, scenario by scenario."""
    rows: list[tuple[str, ...]] = [("", *HEADINGS.values(), *COMPARED.values())]
    for scenario, programs in report.measured.items():
        rows += [(), (f"{scenario}: {report.sizes[scenario]}",)]
        rows += [(f"  {program}", *cells) for program, *cells in comparison(programs)]
    return aligned(rows)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Write rows as columns: the first to the left, the others to the right; one alone runs on."""
    full = [row for row in rows if len(row) > 1]
    widths = [max(len(row[column]) for row in full) for column in range(len(full[0]))]
    lines: list[str] = []
    for row in rows:
        first, *others = row or ("",)
        cells = [text.rjust(width) for text, width in zip(others, widths[1:], strict=False)]
        lines.append("  ".join([first.ljust(widths[0]) if cells else first, *cells]).rstrip())
    return lines
