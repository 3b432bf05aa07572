"""What the clause ledger says, as values: its rows, its totals, and what is wrong with it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from attrs import frozen

__all__ = [
    "STATUSES",
    "Ledger",
    "Row",
    "ask",
    "bound",
    "counts",
    "read",
    "section_anchor",
    "section_order",
    "shares",
]

STATUSES = ("tested", "by design", "not applicable", "not yet")
BINDS = ("client", "server", "relay", "submission", "caller")


@frozen
class Row:
    """One normative statement, in our own words; `tests` are ids of pytest without parameters."""

    rfc: int
    section: str
    name: str
    says: str
    binds: tuple[str, ...]
    status: str
    reason: str
    tests: tuple[str, ...]

    @property
    def anchor(self) -> str:
        """The row's id within the page of its RFC, and in the whole site."""
        return f"{section_anchor(self.rfc, self.section)}-{self.name.lower()}"


@frozen
class Ledger:
    """Every row, in the order of the ledger, and its `errors` in words."""

    rows: tuple[Row, ...] = ()
    errors: tuple[str, ...] = ()

    @classmethod
    def of(cls, told: dict[str, Any]) -> Ledger:
        """Read what `tests/conformance/ledger.py --json` prints."""
        rows = (
            Row(
                rfc=row["rfc"],
                section=row["section"],
                name=row["name"],
                says=row["says"],
                binds=tuple(row["binds"]),
                status=row["status"],
                reason=row["reason"],
                tests=tuple(row["tests"]),
            )
            for row in told["rows"]
        )
        return cls(tuple(rows), tuple(told.get("errors", ())))

    def rfcs(self) -> list[int]:
        """Return the RFCs accounted for, in the order of the ledger."""
        return list(dict.fromkeys(row.rfc for row in self.rows))

    def of_rfc(self, rfc: int) -> list[Row]:
        """Return the rows of one RFC."""
        return [row for row in self.rows if row.rfc == rfc]


def ask(root: Path) -> Ledger:
    """Ask the ledger of the checkout at `root`; the tests are found, not run.

    RuntimeError, with what it printed, where it has no answer.
    """
    tool = root / "tests" / "conformance" / "ledger.py"
    done = subprocess.run(  # noqa: S603 - a program of ours
        [sys.executable, str(tool), "--json", "--collect"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        return Ledger.of(json.loads(done.stdout))  # exit code 1: it has errors, which we show
    except ValueError:
        raise RuntimeError(f"{tool} gave no JSON:\n{done.stdout}{done.stderr}") from None


def read(path: Path) -> Ledger:
    """Read what the ledger printed into a file earlier."""
    return Ledger.of(json.loads(path.read_text(encoding="utf-8")))


def counts(rows: Iterable[Row]) -> dict[str, int]:
    """Return how many rows there are of each status, in the order of STATUSES."""
    counted = Counter(row.status for row in rows)
    return {status: counted[status] for status in STATUSES}


def shares(rows: Iterable[Row]) -> tuple[int, int]:
    """Return how many rows bind a client or server, and how many of these are tested."""
    core = [row for row in rows if {"client", "server"} & set(row.binds)]
    return len(core), sum(row.status == "tested" for row in core)


def bound(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Return the rows by whom they bind; one that binds several is there for each."""
    rows = list(rows)
    return {who: [row for row in rows if who in row.binds] for who in BINDS}


def section_order(section: str) -> list[int]:
    """Return the numbers of a section, to sort by."""
    return [int(number) for number in section.split(".") if number.isdecimal()]


def section_anchor(rfc: int, section: str) -> str:
    """Return the id of a section within the page of its RFC."""
    return f"rfc{rfc}-{section.replace('.', '-')}"
