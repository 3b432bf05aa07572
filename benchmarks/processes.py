"""Child processes: started, measured from outside, and always stopped. Linux only, for /proc."""

from __future__ import annotations

import os
import re
import secrets
import select
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import shared
from shared import HOST

__all__ = [
    "BenchmarkError",
    "Finished",
    "Serving",
    "finish",
    "free_port",
    "interruptible",
    "serving",
]

PATIENCE = 300  # seconds for any one run: far more than it takes
GLANCE = 0.01  # seconds between two looks at a process that runs


class BenchmarkError(Exception):
    """A run that did not do what it was to do; there is nothing to measure then."""


def free_port() -> int:
    """Return a port that nobody uses, below those that the kernel gives to whoever asks."""
    while True:
        port = 10_000 + secrets.randbelow(10_000)
        with suppress(OSError), socket.create_server((HOST, port)):
            return port


@contextmanager
def _child(command: Sequence[str], output: IO[bytes]) -> Generator[subprocess.Popen[bytes]]:
    """Run a program of our own; end it, by its process id, however the block ends."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C is for us, and we end it
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            try:
                _end(process)
            except BaseException:
                process.kill()
                process.wait()
                raise


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.terminate()  # some wait for what is under way until they are told again
        process.wait(timeout=10)


def _read(output: IO[bytes]) -> str:
    output.seek(0)
    return output.read().decode(errors="replace")


@dataclass(frozen=True)
class Finished:
    """A program that has run to its good end."""

    seconds: float  # of wall time
    cpu: float  # seconds, user + system
    # Octets resident, as last seen: it is looked at every few milliseconds. Of one that has ended
    # before the first look it is what wait4 tells, and that is too much.
    peak: int
    output: str


def finish(*command: str) -> Finished:
    """Run a program to its end. BenchmarkError if it fails or does not end."""
    with tempfile.TemporaryFile() as output:
        began = time.perf_counter()
        with _child(command, output) as process:
            descriptor = os.pidfd_open(process.pid)
            try:
                peak = _watch(descriptor, process.pid, command)
                seconds = time.perf_counter() - began
            finally:
                os.close(descriptor)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        said = _read(output)
    if process.returncode:
        code = process.returncode
        raise BenchmarkError(f"{' '.join(command)} ended with {code}:\n{said[-2000:]}")
    peak = peak or usage.ru_maxrss << 10
    return Finished(seconds, usage.ru_utime + usage.ru_stime, peak, said)


def _watch(descriptor: int, pid: int, command: Sequence[str]) -> int:
    """Wait for a process to end; return its peak, 0 if there was none to be seen any more.

    What wait4 tells is at least our own size.
    """
    peak = 0
    for _ in range(int(PATIENCE / GLANCE)):
        peak = max(peak, shared.peak(pid))
        if select.select([descriptor], [], [], GLANCE)[0]:
            return peak
    raise BenchmarkError(f"{' '.join(command)} takes longer than {PATIENCE} s")


def _family(pid: int) -> set[int]:
    """Return a process and all that descend from it."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(FileNotFoundError, ProcessLookupError):
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
                parents[int(entry.name)] = int(stat[1])
    family = {pid}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    return family


def _cpu_seconds(pid: int) -> float:
    """Return the CPU of a process, of threads and of children that have ended included."""
    try:
        own = time.clock_gettime(~pid << 3 | 2)  # its CPU clock: clock_getcpuclockid(3)
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has ended
        return 0.0
    return own + (int(stat[13]) + int(stat[14])) / os.sysconf("SC_CLK_TCK")


def _proportional(pid: int) -> int:
    """Return the octets of a process, of those that it shares its part."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0
    found = re.search(r"^Pss: *(\d+)", rollup, re.MULTILINE)
    return int(found[1]) << 10 if found else 0


@dataclass(frozen=True)
class Serving:
    """A server that listens on `port`, with all processes that it has started."""

    port: int
    process: subprocess.Popen[bytes]
    output: IO[bytes]

    def said(self) -> str:
        """Return what it has printed so far."""
        return _read(self.output)

    def says(self, pattern: str, awaited: str) -> str:
        """Return the last that it has printed of a pattern, once that is what is awaited."""
        deadline = time.monotonic() + 60
        while (last := "".join(re.findall(pattern, self.said())[-1:])) != awaited:
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
        return last

    def cpu(self) -> float:
        """Return the seconds of CPU (user + system) it has used, once it is idle."""
        now = self._cpu()
        for _ in range(100):  # two seconds at most
            before = now
            time.sleep(0.02)
            if (now := self._cpu()) - before < 0.0002:
                break
        return now

    def _cpu(self) -> float:
        return sum(map(_cpu_seconds, _family(self.process.pid)))

    def peak(self) -> int:
        """Return the most octets that it had resident at any time, its processes added up."""
        return sum(map(shared.peak, _family(self.process.pid)))

    def pids(self) -> set[int]:
        """Return its process and all that descend from it."""
        return _family(self.process.pid)

    def memory(self) -> int:
        """Return the octets that it has now; what processes share counts once."""
        return sum(map(_proportional, _family(self.process.pid)))


@contextmanager
def serving(
    *command: str, port: int | None = None, host: str = HOST, log: Path | None = None
) -> Generator[Serving]:
    """Run a server for the block, on a free port that stands for `{port}` in its arguments.

    Or on the `port` given, which it knows of. What it prints goes to the file `log`, if there is
    one.
    """
    port = port or free_port()
    arguments = [argument.replace("{port}", str(port)) for argument in command]
    with (
        tempfile.TemporaryFile() if log is None else log.open("w+b") as output,
        _child(arguments, output) as process,
    ):
        deadline = time.monotonic() + 60
        while not _listens(port, host):
            if process.poll() is not None or time.monotonic() > deadline:
                raise BenchmarkError(f"{' '.join(arguments)} does not listen:\n{_read(output)}")
            time.sleep(0.02)
        yield Serving(port, process, output)
        if (code := process.poll()) is not None:
            raise BenchmarkError(f"{' '.join(arguments)} ended with {code}:\n{_read(output)}")


def _listens(port: int, host: str) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


def interruptible() -> None:
    """Make SIGTERM and SIGHUP end this process as Ctrl-C does, so that children are stopped."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
