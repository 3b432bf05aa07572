"""What relays are given to do, and one measured run of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from environment import find
from network import NAMESERVER
from nodes import Start
from processes import BenchmarkError, Serving, finish, serving
from run_sink import Counted
from shared import HOST

__all__ = ["LOADS", "Figures", "Load", "count_syncs", "measure"]

HERE = Path(__file__).resolve().parent
SESSIONS = 20
PATIENCE = 600.0  # seconds for all messages to come out
GLANCE = 0.25  # seconds between two looks at the memory
SYNCS = "fsync,fdatasync,sync_file_range,msync,syncfs,sync"


@dataclass(frozen=True)
class Load:
    """What is sent, and what there is when it comes.

    Of `defer` recipients the next hop puts off one; `queued` messages wait already, for tomorrow.
    With `domains` there is no smart host: each has a mail server of its own, but of `down` one has
    none that can be reached.
    """

    title: str
    messages: int
    octets: int
    defer: int = 0
    queued: int = 0
    domains: int = 0
    down: int = 0

    @property
    def before(self) -> int:
        """How many messages go first, unmeasured."""
        return self.domains or min(200, self.messages)

    def living(self, messages: int) -> int:
        """Return how many of so many messages are for a domain that can be reached."""
        if not self.down:
            return messages
        return sum(n * 37 % self.domains % self.down > 0 for n in range(messages))


LOADS = (
    Load("4 KiB", 4000, 4096),
    Load("100 KiB", 1000, 102400),
    Load("4 KiB, 5 % deferred", 4000, 4096, defer=20),
    Load("4 KiB, 100,000 queued", 4000, 4096, queued=100_000),
    Load("4 KiB, 1,000 domains", 4000, 4096, domains=1000),
    Load("4 KiB, 1,000 domains, a tenth down", 4000, 4096, domains=1000, down=10),
)


@dataclass(frozen=True)
class Figures:
    """One relay in one round. Messages for domains that are down count as accepted only."""

    accepted: float  # messages a second, from the first connection to the last 250
    delivered: float  # messages a second, from the first connection to the last at the next hop
    cpu: float  # microseconds for each message, of all its processes
    peak: float  # megabytes


@contextmanager
def next_hop(directory: Path, load: Load) -> Generator[tuple[int | None, Counted]]:
    """Run a sink for a load, and the DNS that leads there if it takes one; give its port."""
    counters = directory / "counters"
    counted = Counted(counters)
    script = (sys.executable, f"{HERE / 'run_sink.py'}")
    if not load.domains:
        command = (*script, HOST, "{port}", f"{counters}", f"{load.defer}")
        with serving(*command) as running:
            yield running.port, counted
        return
    dns = (sys.executable, f"{HERE / 'run_dns.py'}", NAMESERVER, "53")
    with (
        serving(*script, "0.0.0.0", "25", f"{counters}", "0", port=25),
        serving(*dns, f"{load.domains}", f"{load.down}", port=53, host=NAMESERVER),
    ):
        yield None, counted


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

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def send(port: int, load: Load) -> float:
    """Hand in all messages of a load; return the seconds that took. It fails at any refusal."""
    if load.domains:
        sizes = (load.messages, SESSIONS, load.octets, load.domains)
        script = (sys.executable, f"{HERE / 'run_load.py'}", "domains", f"{port}")
        seconds: float = json.loads(finish(*script, *map(str, sizes)).output)["seconds"]
        return seconds
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
    """Run a relay once; its files are in `directory / "node"`, where there may be some already."""
    with (
        next_hop(directory, load) as (port, counted),
        start(directory / "node", port) as relay,
    ):
        first = warm_up(relay, load, counted)
        used = relay.cpu()
        living = load.living(load.messages)
        with Memory(relay) as memory:
            began = time.monotonic()
            accepted = send(relay.port, load)
            delivered = arrived(counted, first + living) - began
        cpu = relay.cpu() - used
    return Figures(
        load.messages / accepted,
        living / delivered,
        cpu / load.messages * 1e6,
        memory.peak / 1e6,
    )


def warm_up(relay: Serving, load: Load, counted: Counted) -> int:
    """Send what goes first; return how many came out."""
    send(relay.port, replace(load, messages=load.before))
    first = load.living(load.before)
    arrived(counted, first)
    return first


def count_syncs(start: Start, load: Load, directory: Path) -> float:
    """Count the syncs for a message of a load, in a run for that: it is traced."""
    trace = directory / "trace"
    with (
        next_hop(directory, load) as (port, counted),
        start(directory / "node", port) as relay,
    ):
        first = warm_up(relay, load, counted)
        relay.cpu()  # waits until it is idle
        processes = [option for pid in relay.pids() for option in ("-p", f"{pid}")]
        strace = (find("strace", "strace"), "-f", "-I1", "-e", f"trace={SYNCS}", "-o", f"{trace}")
        with subprocess.Popen((*strace, *processes), stderr=subprocess.DEVNULL) as tracing:
            try:
                time.sleep(1)
                send(relay.port, load)
                arrived(counted, first + load.living(load.messages))
                relay.cpu()
            finally:
                tracing.terminate()
    return len(re.findall(r"^\d+ +\w+\(", trace.read_text(), re.MULTILINE)) / load.messages
