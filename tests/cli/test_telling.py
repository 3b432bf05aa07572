"""What a node prints while it runs."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from smtpproto.cli import telling
from smtpproto.cli.telling import Teller
from smtpproto.core.path import ForwardPath
from smtpproto.relay.reports.story import Delivered

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
