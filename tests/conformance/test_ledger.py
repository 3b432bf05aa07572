"""The ledger is true: what it calls tested has a test that passes, and the rest says why."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conformance import ledger
from tests.conformance.ledger import Recorder, Row, errors, read_ledger, totals

COMMAND = str(Path(ledger.__file__))


def test_rows_and_markers_agree() -> None:
    done = subprocess.run(
        [sys.executable, COMMAND, "--json", "--collect"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.stdout, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert told["errors"] == []
    assert done.returncode == 0
    assert told["totals"] == totals(read_ledger().rows)


def test_the_core_is_accounted_for() -> None:
    """The goal: 95 of a hundred rows that bind a client or a server."""
    counts = totals(read_ledger().rows)
    assert counts["rows"] > 1000
    assert counts["core tested"] >= 0.95 * counts["core"]


@pytest.mark.last
def test_rows_called_tested_have_a_test_that_passed(request: pytest.FixtureRequest) -> None:
    """Of the tests that this run has had: a file run alone answers for its own rows."""
    recorder = request.config.pluginmanager.get_plugin("clauses")
    assert isinstance(recorder, Recorder)
    for row in read_ledger().rows:
        ran = [test for test in recorder.bearing[row.id] if test in recorder.outcomes]
        if row.status == "tested" and ran and not recorder.peers.issuperset(ran):
            assert "passed" in map(recorder.outcomes.get, ran), row.id


def row(status: str = "tested", reason: str = "") -> Row:
    return Row(5321, "4.5.2", "a-name", "Says.", ("client",), ("00000000",), status, reason)


def found(*names: str, outcome: str = "passed") -> Recorder:
    recorder = Recorder()
    for number, name in enumerate(names):
        recorder.bearing[name].append(f"test_{number}")
        recorder.outcomes[f"test_{number}"] = outcome
    return recorder


BORNE = "5321 §4.5.2 a-name"


@pytest.mark.parametrize(
    ("rows", "recorded", "says"),
    [
        ([row()], found(), "no test bears it"),
        ([row()], found(BORNE, outcome="failed"), "no test that bears it has passed"),
        ([row()], found(BORNE, outcome="skipped"), "no test that bears it has passed"),
        ([row("not yet")], found(), "neither tested nor is a reason given"),
        ([row("by design", "so")], found(BORNE), "but test_0 bears it"),
        ([], found("5321 §4.5.2 another"), "no such row"),
        ([], found("5321 §4.5.2"), "no such row"),
        ([], found("RFC 5321"), "a marker says"),
    ],
)
def test_what_is_wrong_is_said(rows: list[Row], recorded: Recorder, says: str) -> None:
    [error] = errors(ledger.Ledger(tuple(rows), frozenset()), recorded, ran=True)
    assert says in error


def test_nothing_wrong_is_said_of_what_is_right() -> None:
    kept = ledger.Ledger((row(),), frozenset())
    assert not list(errors(kept, found(BORNE, "5322 §3.6", "1047"), ran=True))


def test_a_row_borne_only_by_tests_that_may_be_skipped_is_wrong() -> None:
    recorded = found(BORNE)
    recorded.peers.add("test_0")
    assert list(errors(ledger.Ledger((row(),), frozenset()), recorded, ran=True))


@pytest.mark.parametrize(
    "text",
    [
        'rfc = 5321\n["4.5.2 Not a name"]\nsays="a"\nbinds="client"\nhash="0"\nstatus="tested"',
        'rfc = 5321\n["4.5.2 name"]\nbinds="client"\nhash="0"\nstatus="tested"',
        'rfc = 5321\n["4.5.2 name"]\nsays="a"\nbinds="clients"\nhash="0"\nstatus="tested"',
        'rfc = 5321\n["4.5.2 name"]\nsays="a"\nbinds=[]\nhash="0"\nstatus="tested"',
        'rfc = 5321\n["4.5.2 name"]\nsays="a"\nbinds="client"\nhash="0"\nstatus="done"',
        'rfc = 5321\n["8.5 name"]\nsays="a"\nbinds="client"\nhash="0"\nstatus="tested"',
        'rfc = 5321\n["4.5.2 name"]\nsays="a"\nbinds="client"\nhash="0"\nstat="tested"',
    ],
)
def test_a_malformed_row_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "rfc5321.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"rfc5321\.toml: "):
        read_ledger(tmp_path)
