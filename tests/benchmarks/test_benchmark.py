"""The benchmarks run, and count every message; what they measure here means nothing."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

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
    assert json.loads((tmp_path / "numbers.json").read_text())
    for name in ("transaction", "content in", "content out", "idle connection"):
        assert re.search(rf"^{name}\W.* \d+(\.\d+)?( B)?$", done.stdout, re.MULTILINE)


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
