"""The benchmarks run, and count every message; what they measure here means nothing."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.peers.programs import find

ROOT = Path(__file__).parents[2]
PATIENCE = 120
# Without what measures coverage: here it would only be slow.
ENVIRONMENT = {name: value for name, value in os.environ.items() if "COVERAGE" not in name}
FIGURES = {"rate", "cpu", "peak"}


def benchmark(name: str, *options: object) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / name), *map(str, options)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**ENVIRONMENT, "PYTHONPATH": str(ROOT / "src")},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def test_servers_and_clients_are_measured_in_one_run(tmp_path: Path) -> None:
    """It ends with an error itself if any program has not sent or taken all messages."""
    find("smtp-source", "postfix")
    find("smtp-sink", "postfix")
    file = tmp_path / "numbers.json"
    done = benchmark(
        "servers_and_clients.py", "--quick", "--python", sys.executable, "--json", file
    )
    numbers = json.loads(file.read_text())
    assert numbers["rounds"] == 1
    servers = {"smtpproto sink, asyncio", "smtpproto sink, trio", "aiosmtpd", "smtp-sink"}
    clients = {
        *("smtpproto Client, asyncio", "smtpproto Client, trio", "smtpproto send, whole process"),
        *("aiosmtplib", "smtplib", "smtp-source"),
    }
    measured = numbers["measured"]
    assert [scenario.partition(",")[0] for scenario in measured] == ["server"] * 3 + ["client"] * 3
    for scenario, programs in measured.items():
        assert set(programs) == (servers if scenario.startswith("server") else clients)
        for (figures,) in programs.values():
            assert figures["rate"] > 0
            assert figures["cpu"] > 0
        ours = {name for name in programs if name.startswith("smtpproto")}
        pairs = {f"{one} / {other}" for one in ours for other in programs.keys() - ours}
        assert numbers["ratios"][scenario].keys() == pairs
        for figure in numbers["ratios"][scenario].values():
            assert figure.keys() <= FIGURES
            assert all(low <= middle <= high for middle, low, high in figure.values())
        assert scenario in done.stdout
        for pair in pairs:
            assert re.search(rf"^  {re.escape(pair)} .*×$", done.stdout, re.MULTILINE)


def test_the_core_is_measured_beside_its_yardsticks(tmp_path: Path) -> None:
    done = benchmark("core.py", "--rounds", 1, "--json", tmp_path / "numbers.json")
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    timed = {"transaction, server", "transaction, client", "command"}
    timed |= {
        f"{content} {way}, {size}"
        for content in ("content", "base64")
        for way in ("in", "out")
        for size in (65536, 1460)
    }
    assert numbers["rounds"].keys() == timed
    figures = numbers["figures"]
    assert figures.keys() == timed | {"idle connection", "session, at most"}
    for name, figure in figures.items():
        assert figure > 0
        assert re.search(rf"^{name} .* \d+(\.\d+)?( B)?$", done.stdout, re.MULTILINE)


def test_the_last_line_tells_which_floors_of_the_core_are_met(tmp_path: Path) -> None:
    """Whether they are is not tested: here it says nothing."""
    done = benchmark("core.py", "--rounds", 1, "--json", tmp_path / "numbers.json")
    figures = json.loads((tmp_path / "numbers.json").read_text())["figures"]
    *_, last = done.stdout.splitlines()
    transaction = figures["transaction, server"]
    octets_in, octets_out = figures["content in, 65536"], figures["content out, 65536"]
    idle = figures["idle connection"]
    assert last == (
        f"floors: transaction, server {transaction:.4g} <= 45: {word(transaction <= 45)}"
        f" (goal 30: {word(transaction <= 30)})"
        f"; content in, 65536 {octets_in:.4g} >= 0.6: {word(octets_in >= 0.6)}"
        f"; content out, 65536 {octets_out:.4g} >= 0.6: {word(octets_out >= 0.6)}"
        f"; idle connection {idle:.4g} <= 4096: {word(idle <= 4096)}"
    )


def word(met: bool) -> str:
    return "met" if met else "NOT MET"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_idle_connections_are_weighed(backend: str, tmp_path: Path) -> None:
    file = tmp_path / "numbers.json"
    done = benchmark("idle.py", "--connections", 300, "--backend", backend, "--json", file)
    numbers = json.loads(file.read_text())
    assert numbers["connections"] == 300
    assert 0 < numbers["octets"][backend] < 40 << 10
    assert re.search(rf"^{backend} +300 idle connections in clear: [\d.]+ KiB each$", done.stdout)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_nothing_grows_while_clients_do_everything_wrong(backend: str) -> None:
    """A short soak; `benchmarks/README.md` has the long one."""
    options = "--minutes", 1 / 6, "--connections", 60, "--seed", 7
    done = benchmark("soak.py", *options, "--backend", backend)
    assert done.stderr == ""
    assert "passed: nothing grew" in done.stdout


def test_a_miscount_is_an_error(tmp_path: Path) -> None:
    """A program that loses messages has no rate."""
    source = find("smtp-source", "postfix")
    find("smtp-sink", "postfix")
    liar = tmp_path / "smtp-source"
    liar.write_text(f'#!/bin/sh\n{source} "$@"\nprintf "\\r1\\n"\n')
    liar.chmod(0o755)
    done = subprocess.run(
        [
            *(sys.executable, str(ROOT / "benchmarks" / "servers_and_clients.py"), "--quick"),
            *("--python", sys.executable, "--only", "server, persistent"),
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={
            **ENVIRONMENT,
            "PYTHONPATH": str(ROOT / "src"),
            "PATH": f"{tmp_path}:{os.environ.get('PATH', os.defpath)}",
        },
        check=False,
    )
    assert done.returncode == 1
    assert re.search(r"counted '1' of \d+ messages$", done.stderr.strip())
