"""Child processes: started, measured from outside, and always stopped. Linux only, for /proc."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

__all__ = ["HOST", "BenchmarkError", "Finished", "Serving", "finish", "interruptible", "serving"]

HOST = "127.0.0.1"
PATIENCE = 300  # seconds for any one run: far more than it takes


class BenchmarkError(Exception):
    """A run that did not do what it was to do; there is nothing to measure then."""


def free_port() -> int:
    with socket.create_server((HOST, 0)) as probe:
        port: int = probe.getsockname()[1]
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
            process.terminate()
            try:
                process.wait(timeout=10)
            except BaseException:
                process.kill()
                process.wait()
                raise


def _read(output: IO[bytes]) -> str:
    output.seek(0)
    return output.read().decode(errors="replace")


@dataclass(frozen=True)
class Finished:
    """A program that has run to its good end: seconds of wall time and of CPU (user + system)."""

    seconds: float
    cpu: float
    output: str


def finish(*command: str) -> Finished:
    """Run a program to its end. BenchmarkError if it fails or does not end."""
    with tempfile.TemporaryFile() as output:
        began = time.perf_counter()
        with _child(command, output) as process:
            descriptor = os.pidfd_open(process.pid)
            try:
                if not select.select([descriptor], [], [], PATIENCE)[0]:
                    raise BenchmarkError(f"{' '.join(command)} takes longer than {PATIENCE} s")
                seconds = time.perf_counter() - began
            finally:
                os.close(descriptor)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        said = _read(output)
    if process.returncode:
        code = process.returncode
        raise BenchmarkError(f"{' '.join(command)} ended with {code}:\n{said[-2000:]}")
    return Finished(seconds, usage.ru_utime + usage.ru_stime, said)


@dataclass(frozen=True)
class Serving:
    """A server that listens on `port`."""

    port: int
    process: subprocess.Popen[bytes]
    output: IO[bytes]

    def said(self) -> str:
        """Return what it has printed so far."""
        return _read(self.output)

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
        tasks = Path(f"/proc/{self.process.pid}/task")
        try:
            # The clock ticks of `stat` are 10 ms.
            nanoseconds = ((task / "schedstat").read_text().split()[0] for task in tasks.iterdir())
            return sum(map(int, nanoseconds)) / 1e9
        except FileNotFoundError:
            stat = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
            return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")

    def peak_octets(self) -> int:
        """Return the most memory that it had resident at any time."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


@contextmanager
def serving(*command: str) -> Generator[Serving]:
    """Run a server for the block, on a free port that stands for `{port}` in its arguments."""
    port = free_port()
    arguments = [argument.replace("{port}", str(port)) for argument in command]
    with tempfile.TemporaryFile() as output, _child(arguments, output) as process:
        deadline = time.monotonic() + 15
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise BenchmarkError(f"{' '.join(arguments)} does not listen:\n{_read(output)}")
            time.sleep(0.02)
        yield Serving(port, process, output)
        if (code := process.poll()) is not None:
            raise BenchmarkError(f"{' '.join(arguments)} ended with {code}:\n{_read(output)}")


def _listens(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


def interruptible() -> None:
    """Make SIGTERM and SIGHUP end this process as Ctrl-C does, so that children are stopped."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
