"""Fuzzes with atheris, for as long as you like: `python tests/fuzz/run.py --minutes 60`.

It needs `pip install -e '.[fuzz]'`, starts from the seeds and the saved corpus, and runs the
targets side by side, one process for each CPU unless told otherwise. The first half of the time is
shared evenly; the second goes where the first half found most that was new. Then the corpus is
merged and saved, and what failed is made as small as it gets and stored as a finding. It exits with
1 if there is one.
"""

import argparse
import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[0] = str(ROOT)  # as a script it would see its own folder instead

from tests.fuzz import corpus  # noqa: E402
from tests.fuzz.failure import failure, minimised  # noqa: E402
from tests.fuzz.seeds import seeds, words  # noqa: E402
from tests.fuzz.targets import TARGETS  # noqa: E402

__all__ = ["main"]

LONGEST = 2048  # octets of an input
HANGS = 20  # seconds that no input may take
DONE = re.compile(r"stat::number_of_executed_units: +([0-9]+)")


class Job:
    """The fuzzing of one target, in a folder of its own."""

    def __init__(self, target: str, folder: Path) -> None:
        self.target = target
        self.folder = folder / target
        self.inputs = self.folder / "inputs"
        self.failures = self.folder / "failures"
        self.words = self.folder / "words"
        self.seconds = 0.0
        self.runs = 0
        for each in (self.inputs, self.failures):
            each.mkdir(parents=True)
        self.words.write_text("".join(f'"{_escaped(word)}"\n' for word in words()))
        for data in (*seeds(target), *corpus.load(target)):
            (self.inputs / hashlib.sha1(data).hexdigest()).write_bytes(data)
        self.known = self.count

    def __str__(self) -> str:
        minutes = f"{self.seconds / 60:.1f} minutes"
        return f"{self.target}: {self.runs:,} runs in {minutes}, {self.count - self.known} new"

    @property
    def count(self) -> int:
        """How many inputs there are now."""
        return sum(1 for _ in self.inputs.iterdir())

    def fuzz(self, seconds: float) -> None:
        """Look for more inputs, and for failures."""
        began = time.monotonic()
        while (left := seconds - (time.monotonic() - began)) >= 1:
            said = self.start(
                f"-max_total_time={int(left)}",
                f"-max_len={LONGEST}",
                f"-timeout={HANGS}",
                f"-dict={self.words}",
                f"-artifact_prefix={self.failures}/",
                "-rss_limit_mb=2048",
                "-print_final_stats=1",
                str(self.inputs),
            )
            match = DONE.search(said)
            if match is None:
                raise RuntimeError(f"the fuzzer of {self.target} came to grief: {said[-2000:]}")
            self.runs += int(match[1])
        self.seconds += time.monotonic() - began
        failures = sum(1 for _ in self.failures.iterdir())
        print(f"{self}, {failures} failures so far", flush=True)

    def merge(self) -> set[bytes]:
        """Return the fewest inputs that reach all that was reached."""
        merged = self.folder / "merged"
        merged.mkdir()
        again = self.folder / "again"  # how libFuzzer starts itself
        again.write_text(
            f'#!/bin/sh\nexec {sys.executable} -m {WORKER} {self.target} {self.folder} "$@"\n'
        )
        again.chmod(0o755)
        options = ("-merge=1", f"-max_len={LONGEST}", str(merged))
        said = self.start(*options, str(self.inputs), FUZZ_PROGRAM=str(again))
        found = {file.read_bytes() for file in merged.iterdir()}
        if not found:
            raise RuntimeError(f"nothing came of merging {self.target}: {said[-2000:]}")
        return found

    def start(self, *options: str, **environment: str) -> str:
        """Run one worker to its end; return what it said."""
        command = [sys.executable, "-m", WORKER, self.target, str(self.folder), *options]
        done = subprocess.run(
            command,
            check=False,
            cwd=ROOT,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        return done.stdout.decode("utf-8", "replace")

    def report(self) -> list[str]:
        """Store what failed, as small as it gets; return a line for each."""
        lines: list[str] = []
        for file in sorted(self.failures.iterdir()):
            data = file.read_bytes()
            where = failure(TARGETS[self.target], data)
            if where is not None:
                data = minimised(TARGETS[self.target], data)
            stored = corpus.store_finding(self.target, data)
            lines.append(f"{self.target}: {where or file.name}: {stored.relative_to(ROOT)}")
        return lines


WORKER = "tests.fuzz.worker"


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{octet:02X}" for octet in word)


def main(arguments: list[str] | None = None) -> int:
    """Run all of it; return the status to exit with."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--target", choices=["all", *TARGETS], default="all")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args(arguments)
    if importlib.util.find_spec("atheris") is None:
        parser.error("it needs atheris: pip install -e '.[fuzz]'")
    names = list(TARGETS) if given.target == "all" else [given.target]
    processes = min(given.processes, len(names))
    with tempfile.TemporaryDirectory(prefix="smtpproto-fuzz-") as folder:
        jobs = [Job(name, Path(folder)) for name in names]
        budget = given.minutes * 60 * processes / 2
        with ThreadPoolExecutor(processes) as pool:
            list(pool.map(lambda job: job.fuzz(budget / len(jobs)), jobs))
            shares = shares_by_yield(jobs)
            list(pool.map(lambda job: job.fuzz(budget * shares[job.target]), jobs))
            merged = dict(zip(names, pool.map(Job.merge, jobs), strict=True))
        for job in jobs:
            corpus.store(job.target, merged[job.target])
            print(f"{job}, {len(merged[job.target])} kept")
        found = [line for job in jobs for line in job.report()]
    print("\n".join(found) or "nothing fails")
    return 1 if found else 0


def shares_by_yield(jobs: list[Job]) -> Mapping[str, float]:
    """Return the share of each job in all that was new, none less than a tenth of the mean."""
    new = {job.target: job.count - job.known + 1 for job in jobs}
    least = sum(new.values()) / len(jobs) / 10
    weights = {target: max(count, least) for target, count in new.items()}
    return {target: weight / sum(weights.values()) for target, weight in weights.items()}


if __name__ == "__main__":
    sys.exit(main())
