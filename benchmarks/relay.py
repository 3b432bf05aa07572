"""`smtpproto serve` against Postfix, both as relays to one smart host: python benchmarks/relay.py.

smtp-source hands messages in over 20 connections, and a sink counts what comes out. Both relays
run in each round, one after the other in turned order, on the same disk, with fsync and a log. See
README.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from environment import find
from nodes import Start, postfix, smtpproto
from processes import BenchmarkError, Serving, finish, interruptible, serving
from report import Spread, aligned, cell
from run_sink import Counted
from shared import HOST

HERE = Path(__file__).resolve().parent
OURS, THEIRS = "smtpproto", "Postfix"
NODES: dict[str, Start] = {OURS: smtpproto, THEIRS: postfix}
SESSIONS = 20
PATIENCE = 600.0  # seconds for all messages to come out
GLANCE = 0.25  # seconds between two looks at the memory
SYNCS = "fsync,fdatasync,sync_file_range,msync,syncfs,sync"


@dataclass(frozen=True)
class Load:
    """What is sent. Of `defer` recipients the next hop puts off one; `queued` wait already."""

    title: str
    messages: int
    octets: int
    defer: int = 0
    queued: int = 0

    def before(self) -> int:
        """Return how many messages go first, unmeasured."""
        return min(200, self.messages)


LOADS = (
    Load("4 KiB", 4000, 4096),
    Load("100 KiB", 1000, 102400),
    Load("4 KiB, 5 % deferred", 4000, 4096, defer=20),
)


@dataclass(frozen=True)
class Figures:
    """One relay in one round."""

    accepted: float  # messages a second, from the first connection to the last 250
    delivered: float  # messages a second, from the first connection to the last at the next hop
    cpu: float  # microseconds for each message, of all its processes
    peak: float  # megabytes


HEADINGS = {
    "accepted": "accepted/s",
    "delivered": "delivered/s",
    "cpu": "CPU µs/message",
    "peak": "peak MB",
}


@dataclass(frozen=True)
class Floor:
    """What the ratio of ours to Postfix's has to come to."""

    load: str
    figure: str
    limit: float


FLOORS = (
    Floor("4 KiB", "delivered", 3),
    Floor("4 KiB", "accepted", 2),
    Floor("100 KiB", "delivered", 1.5),
    Floor("100 KiB", "accepted", 2),
)


@contextmanager
def sink(directory: Path, defer: int) -> Generator[tuple[int, Counted]]:
    counters = directory / "counters"
    counted = Counted(counters)
    script = (sys.executable, f"{HERE / 'run_sink.py'}", HOST, "{port}")
    with serving(*script, f"{counters}", f"{defer}") as running:
        yield running.port, counted


class Memory:
    """The most that a relay has had, looked at now and then by a thread."""

    def __init__(self, relay: Serving) -> None:
        self.peak = 0
        self._relay = relay
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._over.wait(GLANCE):
            self.peak = max(self.peak, self._relay.memory())

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def send(port: int, load: Load) -> float:
    """Hand in all messages of a load; return the seconds that took. It fails at any refusal."""
    done = finish(
        *(find("smtp-source"), "-c", "-d", "-s", f"{min(SESSIONS, load.messages)}"),
        *("-m", f"{load.messages}", "-l", f"{load.octets}", "-M", "client.example.test"),
        *("-f", "sender@example.test", "-t", "recipient@example.net", f"{HOST}:{port}"),
    )
    if (counted := done.output.strip().split("\r")[-1]) != f"{load.messages}":
        raise BenchmarkError(f"smtp-source counted {counted!r} of {load.messages} messages")
    return done.seconds


def arrived(counted: Counted, number: int) -> float:
    """Wait until so many messages came out or were put off; return when the last did."""
    deadline = time.monotonic() + PATIENCE
    while True:
        taken, deferred, last = counted.read()
        if taken + deferred >= number:
            break
        if time.monotonic() > deadline:
            raise BenchmarkError(f"{taken} messages, and {deferred} put off, of {number} came out")
        time.sleep(0.01)
    time.sleep(0.2)
    taken, deferred, _ = counted.read()
    if taken + deferred != number:
        raise BenchmarkError(f"{taken} messages, and {deferred} put off, of {number} came out")
    return last


def measure(start: Start, load: Load, directory: Path) -> Figures:
    """Run a relay once."""
    with sink(directory, load.defer) as (port, counted), start(directory / "node", port) as relay:
        before = load.before()
        send(relay.port, replace(load, messages=before))
        arrived(counted, before)
        used = relay.cpu()
        with Memory(relay) as memory:
            began = time.monotonic()
            accepted = send(relay.port, load)
            delivered = arrived(counted, before + load.messages) - began
        cpu = relay.cpu() - used
    return Figures(
        load.messages / accepted,
        load.messages / delivered,
        cpu / load.messages * 1e6,
        memory.peak / 1e6,
    )


def syncs(start: Start, load: Load, directory: Path) -> float:
    """Count the syncs for a message of a load, in a run for that: it is traced."""
    trace = directory / "trace"
    strace = (find("strace"), "-f", "--seccomp-bpf", "-qq", "-ttt", "-e", f"trace={SYNCS}")
    with (
        sink(directory, load.defer) as (port, counted),
        start(directory / "node", port, *strace, "-o", f"{trace}") as relay,
    ):
        before = load.before()
        send(relay.port, replace(load, messages=before))
        arrived(counted, before)
        relay.cpu()
        began = time.time()
        send(relay.port, load)
        arrived(counted, before + load.messages)
        relay.cpu()
        ended = time.time()
    calls = re.findall(r"^\d+ +([\d.]+) \w+\(", trace.read_text(), re.MULTILINE)
    return sum(began <= float(call) <= ended for call in calls) / load.messages


Rounds = dict[str, dict[str, list[Figures]]]


def spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values))


def ratios(found: dict[str, list[Figures]], figure: str) -> Spread:
    """Divide ours by theirs, round by round."""
    pairs = zip(found[OURS], found[THEIRS], strict=True)
    return spread([getattr(one, figure) / getattr(other, figure) for one, other in pairs])


def table(rounds: Rounds, syncs: dict[str, dict[str, float]]) -> list[tuple[str, ...]]:
    """Return the rows of all loads."""
    rows: list[tuple[str, ...]] = [("", *HEADINGS.values(), "syncs/message")]
    for load, found in rounds.items():
        rows += [(), (load,)]
        for node, figures in found.items():
            cells = (cell(spread([getattr(one, name) for one in figures])) for name in HEADINGS)
            rows.append((f"  {node}", *cells, number(syncs.get(load, {}).get(node))))
        if found.keys() >= {OURS, THEIRS}:
            rows.append(("  ratio", *(cell(ratios(found, name), "×") for name in HEADINGS), ""))
    return rows


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"


def verdicts(rounds: Rounds) -> list[tuple[str, ...]]:
    """Return the rows of the floors."""
    rows: list[tuple[str, ...]] = [("floor", "measured", "")]
    for floor in FLOORS:
        found = rounds.get(floor.load, {})
        if not found.keys() >= {OURS, THEIRS}:
            continue
        ratio = ratios(found, floor.figure)
        word = "met" if ratio.middle >= floor.limit else "NOT MET"
        if (ratio.low >= floor.limit) != (ratio.high >= floor.limit):
            word += ", within noise"
        name = f"{floor.load}: {HEADINGS[floor.figure]} ≥ {floor.limit:g} × Postfix"
        rows.append((name, cell(ratio, "×"), word))
    return rows


def run(given: argparse.Namespace) -> tuple[Rounds, dict[str, dict[str, float]]]:
    rounds: Rounds = {}
    synced: dict[str, dict[str, float]] = {}
    loads = [load for load in LOADS if given.only in load.title]
    if given.messages:
        loads = [replace(load, messages=given.messages) for load in loads]
    names = [name for name in NODES if given.node in name]
    for turn in range(given.rounds):
        for load in loads:
            order = names[turn % len(names) :] + names[: turn % len(names)]
            found: dict[str, Figures] = {}
            for name in order:
                print(f"round {turn + 1}: {load.title}: {name}", file=sys.stderr, flush=True)
                with tempfile.TemporaryDirectory(dir=given.directory) as directory:
                    Path(directory).chmod(0o711)
                    found[name] = measure(NODES[name], load, Path(directory))
                print(f"  {found[name]}", file=sys.stderr, flush=True)
            for name in names:
                rounds.setdefault(load.title, {}).setdefault(name, []).append(found[name])
    for load in loads if given.syncs else ():
        for name in names:
            with tempfile.TemporaryDirectory(dir=given.directory) as directory:
                Path(directory).chmod(0o711)
                traced = replace(load, messages=min(load.messages, 1000))
                each = syncs(NODES[name], traced, Path(directory))
                synced.setdefault(load.title, {})[name] = each
    return rounds, synced


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default: %(default)s")
    parser.add_argument("--only", default="", metavar="TEXT", help="loads with TEXT in their title")
    parser.add_argument("--node", default="", metavar="TEXT", help="relays with TEXT in their name")
    parser.add_argument("--messages", type=int, metavar="N", help="so many instead, of each load")
    parser.add_argument("--no-syncs", dest="syncs", action="store_false", help="do not count syncs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number to FILE, too")
    parser.add_argument(
        "--directory", type=Path, default=Path("/var/tmp"), metavar="DIR",
        help="where all files are: on a disk; default: %(default)s",
    )  # fmt: skip
    return parser.parse_args()


def main() -> None:
    given = arguments()
    rounds, synced = run(given)
    print(*aligned(table(rounds, synced)), "", *aligned(verdicts(rounds)), sep="\n")
    if given.json:
        numbers = {
            load: {name: [asdict(one) for one in figures] for name, figures in found.items()}
            for load, found in rounds.items()
        }
        given.json.write_text(json.dumps({"measured": numbers, "syncs": synced}, indent=2) + "\n")


if __name__ == "__main__":
    interruptible()
    try:
        main()
    except BenchmarkError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
