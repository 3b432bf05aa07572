"""`smtpproto serve` as a process of its own, to be killed."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest

from smtpproto.cli.node import load_login

__all__ = ["SOURCE", "Served", "serving"]

SOURCE = Path(__file__).parents[2] / "src"
PATIENCE = 60


class Served:
    """One run of it, from the moment it is ready. `lines` is what it has printed."""

    def __init__(self, data: Path, *options: object) -> None:
        self.data = data
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._ready = False
        # What measures coverage takes as long as all else that a process begins with.
        plain = {name: value for name, value in os.environ.items() if "COVERAGE" not in name}
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-c", "from smtpproto.cli import main; main()"),
                *("serve", "--data", str(data), *map(str, options)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**plain, "PYTHONPATH": str(SOURCE), "PYTHONUNBUFFERED": "1"},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self.until(lambda: self._ready, "to be ready")
        except BaseException:
            self.kill()
            raise
        text = "".join(self.lines)
        self.smtp, self.submission = (
            int(re.findall(rf"^ *{name} .*?:(\d+) ", text, re.MULTILINE)[0])
            for name in ("SMTP", "submission")
        )

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.lines.append(line)
                self._ready |= line.strip() == "ready"
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def until(self, true: Callable[[], bool], what: str) -> None:
        """Wait until something is true; it is looked at with each line that is printed."""
        with self._news:
            while not true():
                alive = self._reader.is_alive()
                if not self._news.wait(PATIENCE if alive else 0):
                    output = "".join(self.lines[-40:])
                    pytest.fail(f"waited in vain for serve {what}:\n{output}", pytrace=False)

    @property
    def login(self) -> tuple[str, str]:
        login = load_login(self.data)
        return login.username, login.password

    def kill(self) -> None:
        """Pull the plug."""
        self.process.kill()
        self._ended()

    def stop(self) -> int:
        """Ask it to end; return the exit code."""
        self.process.terminate()
        return self._ended()

    def _ended(self) -> int:
        code = self.process.wait(PATIENCE)
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


@contextmanager
def serving(data: Path, *options: object, backend: str = "asyncio") -> Iterator[Served]:
    """Run it on any free ports."""
    ports = ("--listen", "127.0.0.1:0", "--submission", "127.0.0.1:0")
    with Served(data, *ports, "--backend", backend, *options) as served:
        yield served
