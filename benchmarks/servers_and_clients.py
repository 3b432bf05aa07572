"""Our server and client against others, as ratios: python benchmarks/servers_and_clients.py.

All programs of a scenario run one after the other in each round, in turned order, so that whatever
else the machine does meets all of them. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from chart import chart
from environment import Peers, existing, machine, prepare
from floors import judged, verdict_line
from page import filled
from processes import BenchmarkError, interruptible
from programs import Bench
from report import Report, aligned, table
from scenarios import SCENARIOS, Scenario

HERE = Path(__file__).resolve().parent


def run(peers: Peers, scenarios: Sequence[Scenario], rounds: int, *, quick: bool) -> Report:
    """Measure all programs of all scenarios, each once a round."""
    report = Report(machine(peers), rounds, quick, peers.skipped)
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(peers, Path(directory))
        for number in range(rounds):
            for scenario in scenarios:
                told = f"{scenario.name}: {scenario.size}"
                print(f"round {number + 1} of {rounds}: {told}", file=sys.stderr, flush=True)
                runs = list(bench.runs(scenario).items())
                first = number % len(runs)
                found = {name: measure() for name, measure in runs[first:] + runs[:first]}
                for name, _ in runs:  # in the same order in each round
                    report.add(scenario.name, scenario.size, name, found[name])
    return report


def show(report: Report, given: argparse.Namespace) -> None:
    """Print the report, and write it to the files that were asked for."""
    for name, value in report.machine.items():
        print(f"{name:16} {value}")
    for line in report.skipped:
        print(f"not measured: {line}")
    print(
        "", f"{report.meaning()}:", "", *table(report), "", *aligned(judged(report)), "", sep="\n"
    )
    print(verdict_line(report))
    if given.json:
        given.json.write_text(json.dumps(report.as_json(), indent=2) + "\n")
    if given.chart:
        given.chart.write_text(chart(report), encoding="utf-8")
    if given.page:
        picture = given.chart and os.path.relpath(given.chart, given.page.parent)
        page = filled(given.page.read_text(encoding="utf-8"), report, picture)
        given.page.write_text(page, encoding="utf-8")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="one round of a few messages: shows that all run and count all messages, no more",
    )
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="scenarios with TEXT in their name (see table)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number to FILE, too")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw the medians, as SVG")
    parser.add_argument(
        "--page",
        type=Path,
        metavar="FILE",
        help="write the tables, and the chart if there is one, between the markers of FILE",
    )
    parser.add_argument(
        "--again", type=Path, metavar="FILE", help="measure nothing: report what --json has written"
    )
    parser.add_argument(
        "--peers",
        type=Path,
        default=HERE / ".peers",
        metavar="DIR",
        help="where the environments of the peers are made; default: %(default)s",
    )
    parser.add_argument(
        "--python",
        type=Path,
        metavar="FILE",
        help="an interpreter that has smtpproto and its Python peers already; then nothing is "
        "installed, and of the others those run that --peers has",
    )
    given = parser.parse_args()
    if given.rounds < 1:
        parser.error("--rounds: at least 1")
    return given


def main() -> None:
    given = arguments()
    if given.again:
        show(Report.from_json(json.loads(given.again.read_text())), given)
        return
    scenarios = [one.quick() if given.quick else one for one in SCENARIOS if given.only in one.name]
    if not scenarios:
        sys.exit(f"no scenario has {given.only!r} in its name")
    directory = given.peers.absolute()
    python = given.python and given.python.absolute()
    peers = existing(python, directory) if python else prepare(directory)
    scenarios = [one for one in scenarios if peers.workers or not one.work]
    rounds = 1 if given.quick else given.rounds
    show(run(peers, scenarios, rounds, quick=given.quick), given)


if __name__ == "__main__":
    interruptible()
    try:
        main()
    except BenchmarkError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
