"""Rounds of relays, made into a table, and what ours have to reach."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from relay_loads import Figures
from report import Spread, cell

__all__ = ["ALONE", "FLOORS", "OURS", "THEIRS", "RelayReport", "table", "verdicts"]

OURS, THEIRS = "smtpproto", "Postfix"
#: Ours in one process; OURS has one for each core.
ALONE = "smtpproto, one process"
HEADINGS = {
    "accepted": "accepted/s",
    "delivered": "delivered/s",
    "cpu": "CPU µs/message",
    "peak": "peak MB",
}


@dataclass
class RelayReport:
    """All that one run has found: load -> relay -> what each round gave, and its syncs."""

    machine: dict[str, str]
    rounds: int
    measured: dict[str, dict[str, list[Figures]]] = field(
        default_factory=dict[str, dict[str, list[Figures]]]
    )
    syncs: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, numbers: dict[str, Any]) -> RelayReport:
        measured = {
            load: {name: [Figures(**one) for one in rounds] for name, rounds in found.items()}
            for load, found in numbers["measured"].items()
        }
        return cls(numbers["machine"], numbers["rounds"], measured, numbers["syncs"])


@dataclass(frozen=True)
class Floor:
    """What ours has to come to in a load, compared to Postfix; or to itself with `than`."""

    load: str
    figure: Literal["accepted", "delivered"]
    limit: float
    than: str = ""

    def __str__(self) -> str:
        other = f"with {self.than}" if self.than else THEIRS
        return f"{self.load}: {HEADINGS[self.figure]} ≥ {self.limit:g} × {other}"

    def ratio(self, report: RelayReport) -> Spread | None:
        """Return what it came to; None where that was not measured."""
        ours = report.measured.get(self.load, {}).get(OURS)
        other = report.measured.get(self.than or self.load, {}).get(OURS if self.than else THEIRS)
        return None if ours is None or other is None else ratios(ours, other, self.figure)


FLOORS = (
    Floor("4 KiB", "delivered", 3),
    Floor("4 KiB", "accepted", 2),
    Floor("100 KiB", "delivered", 1.5),
    Floor("100 KiB", "accepted", 2),
    Floor("4 KiB, 100,000 queued", "delivered", 0.9, "4 KiB"),
    # What is for those that are down is handed in, too: a tenth of it all, which the others do not
    # get. So nine tenths are left where that costs nothing, and of these it may cost a tenth.
    Floor("4 KiB, 1,000 domains, a tenth down", "delivered", 0.81, "4 KiB, 1,000 domains"),
)


def spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values))


def ratios(ours: Sequence[Figures], other: Sequence[Figures], figure: str) -> Spread:
    """Divide round by round: what disturbs one, disturbs both."""
    pairs = zip(ours, other, strict=True)
    return spread([getattr(one, figure) / getattr(two, figure) for one, two in pairs])


def table(report: RelayReport) -> list[tuple[str, ...]]:
    """Return the rows of all loads."""
    rows: list[tuple[str, ...]] = [("load", "relay", *HEADINGS.values(), "syncs/message")]
    for load, found in report.measured.items():
        for name, rounds in found.items():
            cells = (cell(spread([getattr(one, each) for one in rounds])) for each in HEADINGS)
            syncs = report.syncs.get(load, {}).get(name)
            rows.append((load, name, *cells, "" if syncs is None else f"{syncs:.2f}"))
        for ours, word in (OURS, "ratio"), (ALONE, "ratio of one process"):
            if found.keys() >= {ours, THEIRS}:
                both = found[ours], found[THEIRS]
                cells = (cell(ratios(*both, each), "×") for each in HEADINGS)
                rows.append((load, word, *cells, ""))
    return rows


def verdicts(report: RelayReport) -> list[tuple[str, ...]]:
    """Return the rows of the floors."""
    rows: list[tuple[str, ...]] = [("floor", "measured", "verdict")]
    for floor in FLOORS:
        ratio = floor.ratio(report)
        if ratio is None:
            rows.append((f"{floor}", "", "not measured"))
            continue
        word = "met" if ratio.middle >= floor.limit else "NOT MET"
        if (ratio.low >= floor.limit) != (ratio.high >= floor.limit):
            word += ", within noise"
        rows.append((f"{floor}", cell(ratio, "×"), word))
    return rows
