"""What filters cost `smtpproto serve`, and that none cost nothing: python benchmarks/filters.py.

The same load as in relay.py (smtp-source over 20 connections, a sink behind) goes in turns to a
node without filters, to the same once more, and to nodes with filters that ask nobody. The two
without are the same program: what lies between them is this machine's noise. With `--also DIR`
another checkout takes part, such as an earlier one. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from dataclasses import asdict
from functools import partial
from pathlib import Path

from environment import existing, machine
from nodes import Start, smtpproto
from page import filled_with
from processes import BenchmarkError, interruptible
from relay_loads import Figures, Load, measure
from report import aligned

NONE, AGAIN = "none", "none, again"
HEADER = '[[filters]]\nuse = "header"\ndoes = "tag"\n'
KNOWN = '[[filters]]\nuse = "networks"\nnetworks = ["192.0.2.0/24"]\n' + HEADER
LIMITS = '[[limits]]\nwhat = "messages"\nper = "network"\nmost = 1000000\nin = "1 h"\n'
#: What is measured: its name, and what the file of settings says.
KINDS = {
    NONE: "",
    AGAIN: "",
    "header": HEADER,
    "networks, header, limits": KNOWN + LIMITS,
}
MEASURED = {"accepted": "accepted/s", "delivered": "delivered/s", "cpu": "CPU µs/message"}


def starts(top: Path, also: list[Path]) -> dict[str, Start]:
    """Return what to start each kind by; `also` are the roots of other checkouts."""
    found: dict[str, Start] = {}
    for number, (kind, settings) in enumerate(KINDS.items()):
        file = top / f"{number}.toml"
        file.write_text(settings)
        found[kind] = partial(smtpproto, workers=1, config=file)
    for root in also:
        found[f"none, {root.name}"] = partial(smtpproto, workers=1, source=root.resolve() / "src")
    return found


def spread(values: list[float], form: str) -> str:
    """Write the median, and the smallest and largest."""
    middle, low, high = (format(f(values), form) for f in (statistics.median, min, max))
    return f"{middle} ({low}-{high})"


def rows(measured: dict[str, list[Figures]]) -> list[list[str]]:
    """Return a table: numbers, and each round's ratio to the node without filters."""
    table = [["filters", *MEASURED.values(), *(f"{name}, ratio" for name in MEASURED.values())]]
    for kind, found in measured.items():
        row = [kind]
        row += [spread([getattr(each, name) for each in found], ",.0f") for name in MEASURED]
        for name in MEASURED:
            pairs = zip(found, measured[NONE], strict=True)
            shares = [getattr(each, name) / getattr(none, name) for each, none in pairs]
            row.append("" if kind == NONE else spread(shares, ".2f"))
        table.append(row)
    return table


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default: %(default)s")
    parser.add_argument("--messages", type=int, default=3000, metavar="N", help="of 4 KiB each")
    parser.add_argument(
        "--also",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="another checkout, without filters, too; may be repeated",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number to FILE, too")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the table into FILE")
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"), metavar="DIR")
    given = parser.parse_args()
    if min(given.rounds, given.messages) < 1:
        parser.error("--rounds, --messages: at least 1")
    return given


def main() -> None:
    given = arguments()
    load = Load("4 KiB", given.messages, 4096)
    with tempfile.TemporaryDirectory(dir=given.directory) as directory:
        top = Path(directory)
        about = machine(existing(Path(sys.executable), top))
        known = starts(top, given.also)
        measured: dict[str, list[Figures]] = {kind: [] for kind in known}
        for turn in range(given.rounds):
            kinds = list(known)
            first = turn % len(kinds)
            for kind in kinds[first:] + kinds[:first]:
                print(f"round {turn + 1} of {given.rounds}: {kind}", file=sys.stderr, flush=True)
                with tempfile.TemporaryDirectory(dir=top) as place:
                    measured[kind].append(measure(known[kind], load, Path(place)))
    for name, value in about.items():
        print(f"{name:16} {value}")
    print("", *aligned(rows(measured)), sep="\n")
    if given.json:
        told = {kind: [asdict(each) for each in found] for kind, found in measured.items()}
        given.json.write_text(json.dumps({"machine": about, "measured": told}, indent=2) + "\n")
    if given.page:
        said = (
            f"Measured {about['date']} at commit {about['commit']} ({given.rounds} rounds of "
            f"{given.messages} messages of 4 KiB; medians, smallest and largest) on "
            f"{about['machine']}."
        )
        page = given.page.read_text(encoding="utf-8")
        filled = filled_with(page, "filters.py", [said], rows(measured))
        given.page.write_text(filled, encoding="utf-8")


if __name__ == "__main__":
    os.umask(0o077)
    interruptible()
    try:
        main()
    except BenchmarkError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
