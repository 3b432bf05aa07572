"""Rounds of numbers, made into medians, ratios, and a table to read."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Measure", "ratios", "summary", "table"]

HEADINGS = {"rate": "messages/s", "cpu": "CPU µs/message", "peak": "peak MB"}


@dataclass(frozen=True)
class Measure:
    """One program in one round. `peak` is None where it is not measured."""

    rate: float  # messages a second of wall time
    cpu: float  # microseconds of CPU for each message
    peak: float | None = None  # megabytes

    def values(self) -> dict[str, float]:
        found = {"rate": self.rate, "cpu": self.cpu, "peak": self.peak}
        return {name: value for name, value in found.items() if value is not None}


#: Median, smallest, largest.
Spread = tuple[float, float, float]


def _spread(values: Sequence[float]) -> Spread:
    return statistics.median(values), min(values), max(values)


def summary(rounds: Sequence[Measure]) -> dict[str, Spread]:
    """Return the spread of each quantity over the rounds."""
    columns = [measure.values() for measure in rounds]
    return {name: _spread([column[name] for column in columns]) for name in columns[0]}


def ratios(ours: Sequence[Measure], peer: Sequence[Measure]) -> dict[str, Spread]:
    """Return the spread of ours/peer, divided round by round: what disturbs one, disturbs both."""
    pairs = [(one.values(), other.values()) for one, other in zip(ours, peer, strict=True)]
    names = [name for name in pairs[0][0] if name in pairs[0][1]]
    return {name: _spread([one[name] / other[name] for one, other in pairs]) for name in names}


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _cell(spread: Spread | None, unit: str = "") -> str:
    if spread is None:
        return ""
    middle, low, high = (_number(value) + unit for value in spread)
    return middle if low == high else f"{middle} ({low}-{high})"


def table(results: Mapping[str, Mapping[str, Sequence[Measure]]], ours: Iterable[str]) -> list[str]:
    """Return the lines of the table: scenario by scenario the programs, then the pairs."""
    favourites = set(ours)
    rows: list[tuple[str, ...]] = [("median (min-max)", *HEADINGS.values())]
    for scenario, programs in results.items():
        rows += [(), (scenario,)]
        for program, rounds in programs.items():
            found = summary(rounds)
            rows.append((f"  {program}", *(_cell(found.get(name)) for name in HEADINGS)))
        rows.append(())
        for one in (name for name in programs if name in favourites):
            for other in (name for name in programs if name not in favourites):
                found = ratios(programs[one], programs[other])
                shares = (_cell(found.get(name), "×") for name in HEADINGS)
                rows.append((f"  {one} / {other}", *shares))
    full = [row for row in rows if len(row) > 1]
    widths = [max(len(row[column]) for row in full) for column in range(len(full[0]))]
    lines: list[str] = []
    for row in rows:
        first, *others = row or ("",)
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=False)]
        lines.append("  ".join([first.ljust(widths[0]) if cells else first, *cells]).rstrip())
    return lines
