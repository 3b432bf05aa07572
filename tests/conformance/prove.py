"""Prove that the tests which bear a row fail when its promise is broken.

    python tests/conformance/prove.py                  all of `breaks/`, some minutes
    python tests/conformance/prove.py "5321 §4.5.2"    those whose rows begin so

Each entry of `breaks/` is one small change to the source and the rows it breaks. It is made in a
copy of `src/`, and the tests that bear the row run against the copy: one of them has to fail.
Exit code 1: a break that no bearing test notices.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.conformance.ledger import TESTS, run

BREAKS = Path(__file__).with_name("breaks")
SOURCE = TESTS.parent / "src"


@attrs.frozen
class Break:
    """`old`, which is exactly once in `file` (below `src/smtpproto/`), becomes `new`."""

    file: str
    old: str
    new: str
    rows: tuple[str, ...]

    def made_in(self, source: Path) -> str:
        """The text of the file, broken. ValueError: `old` is not there exactly once."""
        text = (source / "smtpproto" / self.file).read_text(encoding="utf-8")
        if text.count(self.old) != 1:
            raise ValueError(f"{self.file}: {text.count(self.old)} times: {self.old!r}")
        return text.replace(self.old, self.new)


def read_breaks() -> Iterator[Break]:
    """Every entry of every file of `breaks/`."""
    for file in sorted(BREAKS.glob("*.toml")):
        for entry in tomllib.loads(file.read_text(encoding="utf-8"))["break"]:
            yield Break(entry["file"], entry["old"], entry["new"], tuple(entry["rows"]))


def is_noticed(change: Break, tests: list[str], source: Path) -> bool:
    """Whether one of `tests` fails when `change` is made in the copy at `source`."""
    file = source / "smtpproto" / change.file
    whole = file.read_text(encoding="utf-8")
    file.write_text(change.made_in(source), encoding="utf-8")
    try:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-qx", "-p", "no:cacheprovider"),
                *("-p", "no:clauses", *tests),  # that a test was skipped would pass for noticing
            ],
            cwd=TESTS.parent,
            env=os.environ | {"PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
            timeout=600,
        )
    finally:
        file.write_text(whole, encoding="utf-8")
    return done.returncode == pytest.ExitCode.TESTS_FAILED


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("rows", nargs="?", default="", help="how the rows' names begin")
    given = parser.parse_args()
    bearing = run(collect=True).bearing
    tried = missed = 0
    with tempfile.TemporaryDirectory() as folder:
        source = Path(shutil.copytree(SOURCE, Path(folder) / "src"))
        for change in read_breaks():
            for row in change.rows:
                if row.startswith(given.rows):
                    tried += 1
                    noticed = bool(bearing[row]) and is_noticed(change, bearing[row], source)
                    missed += not noticed
                    print("noticed" if noticed else "MISSED ", row, f"({change.file})", flush=True)
    print(f"{tried} breaks of a row, {missed} not noticed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
