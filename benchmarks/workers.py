"""What more worker processes bring: python benchmarks/workers.py.

One server with one process, and with `--workers` of them, in turns; the load is `--sources`
processes of Postfix's smtp-source, so that it need not be the limit where the machine has cores for
it. Whether it was tells the last column: a server whose processes were not busy all the time waited
for the load, or for a core. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path

from environment import existing, machine
from processes import BenchmarkError, interruptible, serving
from programs import Bench
from report import LOOPS, aligned
from scenarios import Scenario
from shared import shares

HERE = Path(__file__).resolve().parent
#: Part of its time for which a process that is the limit is busy at least.
BUSY = 0.85


@dataclass(frozen=True)
class Run:
    """Messages a second; and on average the cores that server and load used, and nobody did."""

    rate: float
    server: float
    load: float
    idle: float

    def cpu(self) -> float:
        """Return the microseconds that a message costs the server."""
        return self.server / self.rate * 1e6

    def limit(self, workers: int, sources: int, cores: int) -> str:
        """Say what was the limit."""
        if self.server >= BUSY * min(workers, cores):
            return "the server"
        if self.load >= BUSY * min(sources, cores):
            return "the load"
        if self.idle > (1 - BUSY) * cores:
            return "neither: they waited for each other, so take more sessions"
        if self.server + self.load >= BUSY * cores:
            return "the machine: load and server need all of it"
        return "others on this machine"


def idle_seconds() -> float:
    """Return for how many seconds the machine's cores had nothing to do so far, added up."""
    with open("/proc/stat", encoding="ascii") as stat:
        _, _, _, _, idle, iowait, *_ = stat.readline().split()
    return (int(idle) + int(iowait)) / os.sysconf("SC_CLK_TCK")


def measure(bench: Bench, loop: str, workers: int, given: argparse.Namespace) -> Run:
    """Run a server, and send it all messages."""
    command = (
        *(f"{bench.peers.python}", f"{HERE / 'run_server.py'}", f"smtpproto-{loop}", "{port}"),
        *("--workers", f"{workers}", "--work", f"{given.work}"),
    )
    load = Scenario("server", "workers", given.messages, sessions=given.sessions)
    messages, sessions = (shares(each, given.sources) for each in (given.messages, given.sessions))
    parts = [
        replace(load, messages=share, sessions=at_once)
        for share, at_once in zip(messages, sessions, strict=True)
    ]
    with serving(*command) as server, ThreadPoolExecutor(given.sources) as sources:
        server.cpu()  # waits until it is idle: all of its workers have started then
        bench.smtp_source(server.port, replace(load, messages=max(1, given.messages // 10)))
        used = server.cpu()
        began, idle = time.perf_counter(), idle_seconds()
        done = list(sources.map(lambda part: bench.smtp_source(server.port, part), parts))
        seconds, idle = time.perf_counter() - began, idle_seconds() - idle
        used = server.cpu() - used
    cpu = sum(cpu for _, cpu, _ in done)
    return Run(given.messages / seconds, used / seconds, cpu / seconds, idle / seconds)


def middle(runs: Sequence[Run]) -> Run:
    """Return the medians."""
    each = (astuple(run) for run in runs)
    return Run(*map(statistics.median, zip(*each, strict=True)))


def rows(runs: dict[str, dict[int, list[Run]]], sources: int, cores: int) -> list[Sequence[str]]:
    """Return the table: for each loop a row for each number of processes."""
    table: list[Sequence[str]] = [
        ("loop", "processes", "messages/s", "cores: server", "load", "idle", "CPU µs/message",
         "ratio", "at most", "the limit was")
    ]  # fmt: skip
    for loop, found in runs.items():
        (_, base), *_ = found.items()
        for workers, measured in found.items():
            run = middle(measured)
            pairs = zip(measured, base, strict=True)
            ratio = statistics.median(one.rate / other.rate for one, other in pairs)
            # With all cores busy, a message takes what it costs both ends of them.
            most = min(workers, cores * run.server / (run.server + run.load))
            table.append(
                (loop, f"{workers}", f"{run.rate:.0f}", f"{run.server:.2f}", f"{run.load:.2f}",
                 f"{run.idle:.2f}", f"{run.cpu():.0f}", f"{ratio:.2f}", f"{most:.2f}",
                 run.limit(workers, sources, cores))
            )  # fmt: skip
    return table


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    for name, usual, what in (
        ("workers", 2, "processes to compare to one"),
        ("sources", 2, "processes of smtp-source"),
        ("messages", 6000, "messages of 4 KiB in each run"),
        ("sessions", 40, "connections in all"),
        ("rounds", 5, "rounds"),
    ):
        help_ = f"{what}; default: %(default)s"
        parser.add_argument(f"--{name}", type=int, default=usual, metavar="N", help=help_)
    parser.add_argument(
        "--work",
        type=float,
        default=0,
        metavar="SECONDS",
        help="of CPU that the handler takes for each message; default: %(default)s",
    )
    parser.add_argument("--backend", choices=LOOPS, help="one event loop only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number to FILE")
    given = parser.parse_args()
    if min(given.workers, given.sources, given.rounds) < 1:
        parser.error("--workers, --sources, --rounds: at least 1")
    if not given.sources <= given.sessions <= given.messages:
        parser.error("each source needs a session, and each session a message")
    return given


def main() -> None:
    given = arguments()
    peers = existing(Path(sys.executable), HERE / ".peers")
    for name, value in machine(peers).items():
        print(f"{name:16} {value}")
    loops = [given.backend] if given.backend else list(LOOPS)
    numbers = sorted({1, given.workers})
    runs: dict[str, dict[int, list[Run]]] = {loop: {n: [] for n in numbers} for loop in loops}
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(peers, Path(directory))
        for number in range(given.rounds):
            for loop in loops:
                print(f"round {number + 1} of {given.rounds}: {loop}", file=sys.stderr, flush=True)
                for workers in numbers if number % 2 else reversed(numbers):
                    runs[loop][workers].append(measure(bench, loop, workers, given))
    print("", *aligned(rows(runs, given.sources, len(os.sched_getaffinity(0)))), sep="\n")
    if given.json:
        told = {
            loop: {n: [asdict(run) for run in measured] for n, measured in found.items()}
            for loop, found in runs.items()
        }
        given.json.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    interruptible()
    try:
        main()
    except BenchmarkError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
