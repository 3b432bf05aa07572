"""What a node prints while it runs."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import anyio
import pytest

from smtpproto.cli import telling
from smtpproto.cli.telling import Teller
from smtpproto.core.path import ForwardPath
from smtpproto.relay.reports.story import Delivered
from tests.cli.test_serve import environment

pytestmark = pytest.mark.anyio

DELIVERED = Delivered("one", ForwardPath("ann@example.org"), "mx.example:25", "250 2.0.0 Ok")
OTHER = Delivered("two", ForwardPath("bob@example.org"), "mx.example:25", "250 2.0.0 Ok")


class Full(io.StringIO):
    """A log on a disk without room."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = anyio.Event()

    def write(self, _: str) -> int:
        self.asked.set()
        raise OSError(28, "No space left on device")


@asynccontextmanager
async def running(teller: Teller) -> AsyncIterator[None]:
    """It prints what gathers until the block ends, which has to be soon."""
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(teller.run)
            await anyio.wait_all_tasks_blocked()
            yield
            tasks.cancel_scope.cancel()


def test_an_event_is_printed_at_once_where_nothing_gathers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Teller().event(DELIVERED)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith("one delivered <ann@example.org> to mx.example:25: 250 2.0.0 Ok")


async def test_events_gather_and_are_printed_in_their_order(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "GATHER", 0.01)
    teller = Teller(as_json=True)
    async with running(teller):
        teller.note("ready", "ready")  # nobody waits in vain behind that
        capsys.readouterr()
        teller.event(DELIVERED)
        teller.event(OTHER)
        assert not capsys.readouterr().out
        out = ""
        while not out:
            await anyio.sleep(0.01)
            out = capsys.readouterr().out
    assert [json.loads(line)["id"] for line in out.splitlines()] == ["one", "two"]


async def test_what_has_gathered_comes_before_what_the_node_says_and_before_the_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "GATHER", 60)
    teller = Teller(as_json=True)
    async with running(teller):
        teller.event(DELIVERED)
        teller.note("reloaded", "the settings were read again")
        teller.event(OTHER)
    events = [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()]
    assert events == ["delivered", "reloaded", "delivered"]


async def test_a_log_that_takes_nothing_ends_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "GATHER", 0.01)
    teller = Teller()
    async with running(teller):
        full = Full()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", full)
            teller.event(DELIVERED)
            await full.asked.wait()
        teller.event(OTHER)
    (line,) = capsys.readouterr().out.splitlines()
    assert " two " in line


WRITES = """
import logging, sys
from pathlib import Path
from smtpproto.cli.telling import Teller, Turns
teller = Teller(True, Turns(Path(sys.argv[1])))
teller.listen("worker")
Path(sys.argv[2]).touch()
for _ in range(5):
    teller.note("long", "x" * 100_000)
    logging.error("y" * 100_000)
"""


def test_lines_stay_whole_however_long_where_several_processes_write(tmp_path: Path) -> None:
    """More than a pipe holds, and it is full while both write: each waits for the other's line."""
    reads, writes = os.pipe()
    begun = [tmp_path / "one", tmp_path / "two"]
    with open(reads, "rb", buffering=0) as pipe, ExitStack() as stack:
        writers = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", WRITES, str(tmp_path), str(file)],
                    stdout=writes,
                    stderr=writes,
                    env=environment(),
                )
            )
            for file in begun
        ]
        os.close(writes)
        while not all(file.exists() for file in begun):
            assert all(writer.poll() is None for writer in writers)
            time.sleep(0.01)
        said = b""
        while some := pipe.read(3000):
            said += some
            time.sleep(0.0005)  # a reader who is slower than they are
    assert [len(json.loads(line)["message"]) for line in said.splitlines()] == [100_000] * 20
