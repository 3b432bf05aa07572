"""The ledger is true: what it calls tested has a test that passes, and the rest says why."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conformance import ledger
from tests.conformance.ledger import Recorder, Row, errors, read_ledger, totals

ROOT = ledger.TESTS.parent
COMMAND = str(Path(ledger.__file__))


def python(*arguments: str, folder: Path | None = None) -> "subprocess.CompletedProcess[str]":
    """Run it without what measures coverage, which would only be slow."""
    environment = {name: value for name, value in os.environ.items() if "COVERAGE" not in name}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_rows_and_markers_agree() -> None:
    done = python(COMMAND, "--json", "--collect")
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


RUN = """
import pytest

@pytest.mark.rfc({skipped!r})
@pytest.mark.parametrize("number", range(4))
def test_skipped(number):
    pytest.skip("not today")

@pytest.mark.rfc({proved!r})
@pytest.mark.parametrize("number", range(4))
def test_passed_once(number):
    if number:
        pytest.skip("once is enough")

@pytest.mark.peer("nobody")
@pytest.mark.rfc({excused!r})
def test_excused():
    pytest.skip("not here")
"""


@pytest.mark.parametrize(
    ("how", "only", "code"),
    [
        (("-p", "no:xdist"), "", pytest.ExitCode.TESTS_FAILED),
        (("-n", "2"), "", pytest.ExitCode.TESTS_FAILED),
        (("-p", "no:xdist"), "once or excused", pytest.ExitCode.OK),
    ],
    ids=["alone", "workers", "not selected"],
)
def test_a_run_fails_for_the_rows_it_leaves_unproved(
    how: tuple[str, str], only: str, code: int, tmp_path: Path
) -> None:
    """Of rows that none of its tests bears it says nothing."""
    tested = [row.id for row in read_ledger().rows if row.status == "tested"]
    skipped, proved, excused, *others = tested
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n  rfc: a row\n  peer: a program\n")
    (tmp_path / "test_it.py").write_text(
        RUN.format(skipped=skipped, proved=proved, excused=excused), encoding="utf-8"
    )
    done = python("-m", "pytest", "-p", "tests.conftest", *how, "-k", only, folder=tmp_path)
    assert done.returncode == code, done.stdout
    assert " failed" not in done.stdout
    said = f"\n{skipped}: no test that bears it has passed (test_it.py"
    assert (said in done.stdout) is (code != pytest.ExitCode.OK)
    assert not any(f"\n{row}:" in done.stdout for row in (proved, excused, *others))


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
