"""The ledger: every normative statement of the RFCs that we claim, and the tests that bear it.

    python tests/conformance/ledger.py           totals by RFC and by whom rows bind; what is wrong
    python tests/conformance/ledger.py --json    the same with every row, for tools

Both run the tests that bear a row (`--collect`: they are only found, not run). Exit code 1: a row
says tested and no passing test bears it, a test names no row, or a row has neither test nor reason.

The rows are in `rows/`, a file for each RFC or part of one; README.md beside this says how to
write one. A test bears a row with `@pytest.mark.rfc("5321 §4.5.2 leading-dot-is-doubled")`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
import tomllib
from collections import Counter, defaultdict
from collections.abc import Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest

__all__ = [
    "SCOPE",
    "Ledger",
    "Recorder",
    "Row",
    "Verdict",
    "errors",
    "in_scope",
    "read_ledger",
    "report",
    "unproved",
]

ROWS = Path(__file__).with_name("rows")
TESTS = Path(__file__).parents[1]

# The RFCs accounted for, and of each the sections that bind an implementation of the protocol:
# None is all but the front and back matter.
SCOPE: Mapping[int, tuple[str, ...]] = {
    5321: ("2", "3", "4", "5", "6", "7"),
    1870: ("3", "4", "5", "6", "7"),
    1985: ("3", "4", "5", "6"),
    2033: ("3", "4", "5"),
    2034: ("3", "4", "5"),
    2852: ("2", "3", "4", "5"),
    2920: ("2", "3"),
    3030: ("2", "3", "4"),
    3207: ("2", "3", "4", "6"),
    3461: ("3", "4", "5", "6", "7"),
    3464: ("2", "3"),
    4616: ("2", "3", "4"),
    4865: ("3", "4", "5", "6", "7"),
    4954: ("3", "4", "5", "6", "8", "9"),
    5802: ("2", "3", "4", "5", "6", "7", "8", "9"),
    6152: ("2", "3", "4"),
    6409: ("3", "4", "5", "6", "7", "8"),
    6531: ("3",),
    6710: ("3", "4", "5", "6", "7"),
    7293: ("3", "4", "5", "6", "7", "8"),
    7504: ("2", "3", "4", "5"),
    7505: ("3", "4"),
    7677: ("2", "3", "4"),
    8314: ("3", "4"),
    8689: ("2", "3", "4", "5", "6"),
}
# Whom a row binds: the first two are the core's and its adapters', `caller` is who builds on us.
# Nobody of these: an empty list, where the RFC speaks to authors, registries or people.
BINDS = ("client", "server", "relay", "submission", "caller")
STATUSES = ("tested", "by design", "not applicable", "not yet")

_KEY = re.compile(r"^(\d+(?:\.\d+)*) ([A-Za-z0-9]+(?:-[A-Za-z0-9]+)*)$")
_MARK = re.compile(r"^(\d{4,5})(?: §(\S+))?(?: (\S+))?$")


def in_scope(rfc: int, section: str) -> bool:
    """Whether the ledger has to account for this section."""
    return section.split(".", 1)[0] in SCOPE[rfc]


@attrs.frozen
class Row:
    """One statement or ABNF production, in our own words."""

    rfc: int
    section: str
    name: str
    says: str
    binds: tuple[str, ...]
    digests: tuple[str, ...]
    status: str
    reason: str

    @property
    def id(self) -> str:
        """What a test's marker says: `5321 §4.5.2 leading-dot-is-doubled`."""
        return f"{self.rfc} §{self.section} {self.name}"

    @property
    def binds_core(self) -> bool:
        """Whether a client or a server owes it, so that the core or its adapters can keep it."""
        return "client" in self.binds or "server" in self.binds


@attrs.frozen
class Ledger:
    """All rows, and the statements that bind nobody though they sound so: section and digest."""

    rows: tuple[Row, ...]
    narrative: frozenset[tuple[int, str, str]]

    def digests(self, rfc: int) -> set[tuple[str, str]]:
        """Section and digest of each statement of an RFC that is accounted for."""
        told = {(section, digest) for of, section, digest in self.narrative if of == rfc}
        return told | {(r.section, d) for r in self.rows if r.rfc == rfc for d in r.digests}


def read_ledger(folder: Path = ROWS) -> Ledger:
    """Read every file of `folder`. ValueError names the file and the row that is malformed."""
    rows: list[Row] = []
    narrative: set[tuple[int, str, str]] = set()
    for file in sorted(folder.glob("*.toml")):
        try:
            content = tomllib.loads(file.read_text(encoding="utf-8"))
            rfc = content.pop("rfc")
            for section, digests in content.pop("narrative", {}).items():
                narrative.update((rfc, section, digest) for digest in digests)
            rows += [_row(rfc, key, fields) for key, fields in content.items()]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{file.name}: {error}") from error
    rows.sort(key=lambda row: (list(SCOPE).index(row.rfc), _order(row.section)))
    return Ledger(tuple(rows), frozenset(narrative))


def _row(rfc: int, key: str, fields: dict[str, object]) -> Row:
    named = _KEY.match(key)
    if not named:
        raise ValueError(f"{key!r}: a key is a section and a name, like '4.5.2 dot-is-doubled'")
    unknown = fields.keys() - {"says", "binds", "hash", "status", "reason"}
    if unknown:
        raise ValueError(f"{key}: unknown {sorted(unknown)}")
    says, status, reason = (str(fields.get(name, "")) for name in ("says", "status", "reason"))
    binds, digests = (_strings(key, fields.get(name, [])) for name in ("binds", "hash"))
    if not says or not digests or "binds" not in fields:
        raise ValueError(f"{key}: needs says, binds and hash")
    if not binds and status != "not applicable":
        raise ValueError(f"{key}: binds nobody, so it is not applicable")
    if not set(binds) <= set(BINDS):
        raise ValueError(f"{key}: binds {binds}, of {BINDS}")
    if status not in STATUSES:
        raise ValueError(f"{key}: status {status!r}, of {STATUSES}")
    if not in_scope(rfc, named[1]):
        raise ValueError(f"{key}: not in the ledger's scope")
    return Row(rfc, named[1], named[2], says, binds, digests, status, reason)


def _strings(key: str, value: object) -> tuple[str, ...]:
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
        raise ValueError(f"{key}: binds and hash are strings or lists of them")
    return tuple(listed)


def _order(section: str) -> list[int]:
    return [int(number) for number in section.split(".")]


class Recorder:
    """A pytest plugin: which tests bear which rows, and what became of them.

    Where pytest-xdist spreads the run over processes, it knows all of it in the one that leads:
    reports come there by themselves, and what the workers found is handed over when they end.
    """

    def __init__(self) -> None:
        self.bearing: dict[str, list[str]] = defaultdict(list)
        """Row or clause named by a marker -> ids of the tests that name it."""
        self.outcomes: dict[str, str] = {}
        """Id of a test -> passed, skipped, failed."""
        self.peers: set[str] = set()
        """Ids of the tests that need a peer's program, so may be skipped."""
        self.broken: list[str] = []
        """Files that could not be collected."""

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            if item.get_closest_marker("peer"):
                self.peers.add(item.nodeid)
            for mark in item.iter_markers("rfc"):
                for name in mark.args:
                    self.bearing[name].append(item.nodeid)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if (output := getattr(session.config, "workeroutput", None)) is not None:
            output["ledger"] = dict(self.bearing), sorted(self.peers)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """All workers have found the same tests; one that crashed has nothing to say."""
        if told := getattr(node, "workeroutput", {}).get("ledger"):
            bearing, peers = told
            self.bearing.update(bearing)
            self.peers.update(peers)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.broken.append(report.nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        worst = self.outcomes.get(report.nodeid, "passed")
        if report.outcome != "passed" or hasattr(report, "wasxfail"):
            worst = "failed" if report.outcome == "failed" else "skipped"
        self.outcomes[report.nodeid] = worst


class Verdict(Recorder):
    """Fail the run, at its end, for each row called tested that none of its tests has passed."""

    def __init__(self) -> None:
        super().__init__()
        self.unproved: list[str] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        result = yield
        if self.outcomes and self.bearing and not hasattr(session.config, "workerinput"):
            self.unproved += unproved(read_ledger(), self)
            session.testsfailed += len(self.unproved)  # what the exit code is made of
        return result

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.unproved:
            terminalreporter.section("rows of the clause ledger not proved", red=True, bold=True)
            for line in self.unproved:
                terminalreporter.line(line)


def unproved(ledger: Ledger, recorded: Recorder) -> Iterator[str]:
    """The rows whose tests have run, and none has passed: a file alone answers for its own rows.

    Rows that only tests with a peer would have borne in this run are not among them.
    """
    for row in ledger.rows:
        bearing = recorded.bearing.get(row.id, [])
        ran = {test: recorded.outcomes[test] for test in bearing if test in recorded.outcomes}
        excused = row.status != "tested" or recorded.peers.issuperset(ran)
        if not excused and "passed" not in ran.values():
            listed = dict.fromkeys(f"{test.partition('[')[0]} {was}" for test, was in ran.items())
            yield f"{row.id}: no test that bears it has passed ({', '.join(listed)})"


def errors(ledger: Ledger, recorded: Recorder, *, ran: bool) -> Iterator[str]:
    """What is wrong between the rows and the tests. `ran`: the tests were run, not only found."""
    rows = {row.id: row for row in ledger.rows}
    for file in recorded.broken:
        yield f"{file}: cannot be collected"
    for name in sorted(recorded.bearing):
        said = _MARK.match(name)
        if not said:
            yield f"{name!r}: a marker says an RFC's number, § and the section, a row's name"
        elif name not in rows and int(said[1]) in SCOPE and in_scope(int(said[1]), said[2] or "0"):
            yield f"{name!r}: no such row, named by {recorded.bearing[name][0]}"
    for row in ledger.rows:
        bearing = recorded.bearing.get(row.id, [])
        if row.status == "tested":
            if not bearing:
                yield f"{row.id}: says tested, and no test bears it"
            elif recorded.peers.issuperset(bearing):
                yield f"{row.id}: borne only by tests that need a peer's program"
            elif ran and not any(recorded.outcomes.get(test) == "passed" for test in bearing):
                yield f"{row.id}: no test that bears it has passed"
        elif not row.reason:
            yield f"{row.id}: neither tested nor is a reason given"
        elif bearing:
            yield f"{row.id}: says {row.status!r}, but {bearing[0]} bears it"


def report(ledger: Ledger, recorded: Recorder, *, ran: bool) -> dict[str, object]:
    """Totals, rows with their tests, and errors: what `--json` prints."""
    return {
        "totals": totals(ledger.rows),
        "rfcs": {str(rfc): totals([row for row in ledger.rows if row.rfc == rfc]) for rfc in SCOPE},
        "binds": {who: totals(row for row in ledger.rows if who in row.binds) for who in BINDS},
        "rows": [
            {"id": row.id}
            | attrs.asdict(row)
            | {"tests": list(dict.fromkeys(_functions(recorded.bearing.get(row.id, []))))}
            for row in ledger.rows
        ],
        "errors": list(errors(ledger, recorded, ran=ran)),
    }


def totals(rows: Iterable[Row]) -> dict[str, int]:
    """How many rows in all, of each status, and of those that bind the core, tested or not."""
    rows = list(rows)
    counted = Counter(row.status for row in rows)
    core = [row for row in rows if row.binds_core]
    return {
        "rows": len(rows),
        **{status: counted[status] for status in STATUSES},
        "core": len(core),
        "core tested": sum(row.status == "tested" for row in core),
    }


def _functions(tests: Iterable[str]) -> Iterator[str]:
    """The tests without their parameters."""
    return (test.partition("[")[0] for test in tests)


def run(*, collect: bool) -> Recorder:
    """Run, or only find, the tests that bear a row; their output goes to standard error."""
    recorder = Recorder()
    arguments = [
        "-q",
        "-m",
        "rfc",
        "--continue-on-collection-errors",
        "--rootdir",
        str(TESTS.parent),
        str(TESTS),
    ]
    if collect:
        arguments = ["--collect-only", "-qqq", *arguments]
    with contextlib.redirect_stdout(sys.stderr):
        code = pytest.main(arguments, plugins=[recorder])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise SystemExit(f"pytest ended with {code!r}")
    return recorder


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="all of it, for tools")
    parser.add_argument("--collect", action="store_true", help="find the tests, do not run them")
    given = parser.parse_args()
    ledger = read_ledger()
    told = report(ledger, run(collect=given.collect), ran=not given.collect)
    faults = told["errors"]
    assert isinstance(faults, list)
    if given.json:
        print(json.dumps(told, indent=1, ensure_ascii=False))
    else:
        for rfc in SCOPE:
            _print(f"RFC {rfc}", totals(row for row in ledger.rows if row.rfc == rfc))
        _print("all", totals(ledger.rows))
        for who in BINDS:
            _print(who, totals(row for row in ledger.rows if who in row.binds))
        for fault in faults:
            print(f"error: {fault}")
    return 1 if faults else 0


def _print(name: str, counts: Mapping[str, int]) -> None:
    print(f"{name:10}", *(f"{number:5} {status}" for status, number in counts.items()))


if __name__ == "__main__":
    sys.path.insert(0, str(TESTS.parent))
    sys.exit(main())
