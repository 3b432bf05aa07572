"""What our server and client have to reach, and whether a run did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from report import LOOPS, Report, Spread, cell, on, ratios, workers_on

__all__ = ["FLOORS", "Floor", "judged", "verdict_line"]


@dataclass(frozen=True)
class Floor:
    """What the ratio of ours to a peer has to come to: a rate at least, CPU at most.

    With `workers`, the server with two of them is compared to itself with one process.
    """

    scenario: str
    figure: Literal["rate", "cpu"]
    peer: str
    limit: float
    goal: float | None = None
    workers: bool = False

    def __str__(self) -> str:
        figure = {"rate": "messages/s", "cpu": "CPU a message"}[self.figure]
        return f"{self.scenario}: {figure} {self.sign} {_share(self.limit)} {self.peer}" + (
            "" if self.goal is None else f" (goal {_share(self.goal)})"
        )

    @property
    def sign(self) -> str:
        return "≥" if self.figure == "rate" else "≤"

    def reached(self, ratio: float, limit: float) -> bool:
        return ratio >= limit if self.figure == "rate" else ratio <= limit

    def ratio(self, report: Report, loop: str) -> Spread | None:
        """Return the ratio on a loop; None where the run has not measured it."""
        ours, peer = (workers_on(loop), on(loop)) if self.workers else (on(loop), self.peer)
        programs = report.measured.get(self.scenario, {})
        if ours not in programs or peer not in programs:
            return None
        return ratios(programs[ours], programs[peer])[self.figure]

    def verdict(self, ratio: Spread) -> str:
        """Judge the median; say so where smallest and largest lie on either side of the floor."""
        if not self.reached(ratio.middle, self.limit):
            word = "NOT MET"
        elif self.goal is not None and self.reached(ratio.middle, self.goal):
            word = "goal met"
        else:
            word = "met"
        sure = self.reached(ratio.low, self.limit) == self.reached(ratio.high, self.limit)
        return word if sure else f"{word}, within noise"


def _share(limit: float) -> str:
    return f"{limit:g} ×" if limit >= 1 else f"1/{1 / limit:g} ×"


KEPT, ANEW = "server, persistent connections", "server, a connection for each message"

FLOORS = (
    Floor(KEPT, "rate", "aiosmtpd", 3, 4),
    Floor(KEPT, "cpu", "aiosmtpd", 1 / 3, 1 / 4),
    Floor(ANEW, "rate", "aiosmtpd", 2.5, 3),
    Floor("server, bulk", "rate", "aiosmtpd", 6, 8),
    Floor(KEPT, "cpu", "smtp-sink", 2, 1.5),
    Floor("server, 0.5 ms of work in the handler", "rate", "one process", 1.7, workers=True),
    Floor("client, 20 connections", "rate", "aiosmtplib", 2, 3),
    Floor("client, one connection", "rate", "aiosmtplib", 3, 4),
    Floor("client, 10 recipients", "cpu", "smtplib", 1 / 3),
)


def judged(report: Report) -> list[Sequence[str]]:
    """Return the rows of the table: each floor, and on each loop its ratio and the verdict."""
    rows: list[Sequence[str]] = [("floor, and the ratio measured", *LOOPS)]
    for floor in FLOORS:
        found = [floor.ratio(report, loop) for loop in LOOPS]
        cells = (
            "not measured" if ratio is None else f"{cell(ratio, '×')} {floor.verdict(ratio)}"
            for ratio in found
        )
        rows.append((f"{floor}", *cells))
    return rows


def verdict_line(report: Report) -> str:
    """Return one line that counts, for each loop."""
    counts: list[str] = []
    for loop in LOOPS:
        ratios = [(floor, ratio) for floor in FLOORS if (ratio := floor.ratio(report, loop))]
        met = sum(floor.reached(ratio.middle, floor.limit) for floor, ratio in ratios)
        counts.append(f"{loop} {met} of {len(ratios)}")
    return f"floors met of those measured: {', '.join(counts)}"
