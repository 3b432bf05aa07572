"""`smtpproto serve` against Postfix, both as relays: python benchmarks/relay.py, as root.

smtp-source hands messages in over 20 connections, and a sink counts what comes out. Both relays
run in each round, one after the other in turned order, on the same disk, with fsync and a log. See
README.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

from environment import existing, machine
from network import inside
from nodes import Start, postfix, smtpproto
from page import filled_with
from processes import BenchmarkError, interruptible
from relay_loads import LOADS, Figures, Load, count_syncs, measure
from relay_queued import fill_postfix, fill_smtpproto
from relay_report import ALONE, OURS, THEIRS, RelayReport, table, verdicts
from report import aligned

RELAYS: dict[str, Start] = {
    OURS: smtpproto,
    ALONE: partial(smtpproto, workers=1),
    THEIRS: postfix,
}
FILL = {OURS: fill_smtpproto, THEIRS: fill_postfix}
#: Loads that one process of ours has, too.
PLAIN = ("4 KiB", "100 KiB")
TRACED = 500  # messages of the run in which syncs are counted


def run(given: argparse.Namespace, loads: list[Load], top: Path) -> RelayReport:
    """Measure each load with each relay, once a round; then count syncs."""
    wanted = [name for name in RELAYS if given.relay in name]
    report = RelayReport(machine(existing(Path(sys.executable), top)), given.rounds)
    names_for = {
        load: [name for name in wanted if name != ALONE or load.title in PLAIN] for load in loads
    }
    kept = {load: {name: prepared(load, name, top) for name in names_for[load]} for load in loads}
    for turn in range(given.rounds):
        for load in loads:
            names = names_for[load]
            first = turn % len(names)
            found: dict[str, Figures] = {}
            for name in names[first:] + names[:first]:
                tell(f"round {turn + 1} of {given.rounds}: {load.title}: {name}")
                with at_work(kept[load][name], top) as directory:
                    found[name] = measure(RELAYS[name], load, directory)
            for name in names:
                rounds = report.measured.setdefault(load.title, {}).setdefault(name, [])
                rounds.append(found[name])
    for load in loads if given.syncs else ():
        if load.down:
            continue  # what is put off is synced as well, and how often says nothing
        for name in names_for[load]:
            tell(f"syncs: {load.title}: {name}")
            traced = replace(load, messages=min(load.messages, TRACED))
            with at_work(kept[load][name], top) as directory:
                each = count_syncs(RELAYS[name], traced, directory)
            report.syncs.setdefault(load.title, {})[name] = each
    return report


class at_work:  # noqa: N801 - a context manager
    """A directory that a relay works in: one that is kept, or a new one that is not."""

    def __init__(self, kept: Path | None, top: Path) -> None:
        self._kept, self._top = kept, top
        self._made: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Path:
        if self._kept is not None:
            return self._kept
        self._made = tempfile.TemporaryDirectory(dir=self._top)
        directory = Path(self._made.name)
        directory.chmod(0o711)  # Postfix's users have to pass
        return directory

    def __exit__(self, *_: object) -> None:
        if self._made is not None:
            self._made.cleanup()


def prepared(load: Load, name: str, top: Path) -> Path | None:
    """Fill a directory with what is to be queued before; None where there is nothing."""
    if not load.queued:
        return None
    tell(f"filling: {load.title}: {name}")
    directory = Path(tempfile.mkdtemp(dir=top))
    directory.chmod(0o711)
    FILL[name](RELAYS[name], directory / "node", load.queued)
    return directory


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def show(report: RelayReport, given: argparse.Namespace) -> None:
    """Print the report, and write it to the files that were asked for."""
    for name, value in report.machine.items():
        print(f"{name:16} {value}")
    print("", *aligned(table(report)), "", *aligned(verdicts(report)), sep="\n")
    if given.json:
        given.json.write_text(json.dumps(report.as_json(), indent=2) + "\n")
    if given.page:
        page = given.page.read_text(encoding="utf-8")
        about = [f"Measured {report.machine['date']} at commit {report.machine['commit']}"
                 f" ({report.rounds} rounds; medians, smallest and largest) on"
                 f" {report.machine['machine']}."]  # fmt: skip
        given.page.write_text(
            filled_with(page, "relay.py", about, verdicts(report), table(report)), encoding="utf-8"
        )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--only", action="append", metavar="TITLE", help="this load alone; may be repeated"
    )
    parser.add_argument("--relay", default="", metavar="TEXT", help="relays with TEXT in the name")
    parser.add_argument("--messages", type=int, metavar="N", help="so many instead, of each load")
    parser.add_argument("--queued", type=int, metavar="N", help="so many instead, where some are")
    parser.add_argument("--no-syncs", dest="syncs", action="store_false", help="do not count syncs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number to FILE, too")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the tables into FILE")
    parser.add_argument(
        "--again", type=Path, metavar="FILE", help="measure nothing: report what --json has written"
    )
    parser.add_argument(
        "--directory",
        type=Path,
        default=Path("/var/tmp"),
        metavar="DIR",
        help="where all files are: on a disk; default: %(default)s",
    )
    given = parser.parse_args()
    if given.rounds < 1:
        parser.error("--rounds: at least 1")
    return given


def main() -> None:
    given = arguments()
    if given.again:
        show(RelayReport.from_json(json.loads(given.again.read_text())), given)
        return
    if os.getuid():
        raise BenchmarkError("this takes root: for Postfix, and for a network of its own")
    loads = [load for load in LOADS if given.only is None or load.title in given.only]
    if not loads:
        raise BenchmarkError(f"the loads are: {'; '.join(load.title for load in LOADS)}")
    if most := given.messages:
        loads = [replace(one, messages=most, domains=min(one.domains, most)) for one in loads]
    if given.queued:
        loads = [replace(one, queued=min(one.queued, given.queued)) for one in loads]
    with tempfile.TemporaryDirectory(dir=given.directory, ignore_cleanup_errors=True) as name:
        top = Path(name)
        top.chmod(0o711)
        show(run(given, loads, top), given)


if __name__ == "__main__":
    if os.getuid() == 0 and "--again" not in sys.argv and not {"-h", "--help"} & {*sys.argv}:
        inside()
    interruptible()
    try:
        main()
    except BenchmarkError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
