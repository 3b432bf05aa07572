"""The benchmarks run, and count every message; what they measure here means nothing."""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.peers.programs import find

ROOT = Path(__file__).parents[2]
PATIENCE = 300
# Without what measures coverage: here it would only be slow.
ENVIRONMENT = {name: value for name, value in os.environ.items() if "COVERAGE" not in name}
FIGURES = {"rate", "cpu", "peak"}
OURS = {"smtpproto, asyncio", "smtpproto, uvloop", "smtpproto, trio"}
SERVERS = OURS | {"aiosmtpd", "smtp-sink"}
CLIENTS = OURS | {"aiosmtplib", "smtplib", "smtp-source"}
NODE = ROOT / "benchmarks" / ".peers" / "node" / "stamp"
OTHER = ROOT / "benchmarks" / ".peers" / "other" / "stamp"
PAGE = ROOT / "docs" / "explanation" / "performance.md"


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


def programs_of(scenario: str) -> set[str]:
    """Return what has to run: what is installed apart, by the benchmark, only where it was."""
    side, _, title = scenario.partition(", ")
    node = shutil.which("node") is not None and NODE.exists()
    if title.endswith("in the handler"):
        return OURS | {f"{one}, 2 workers" for one in OURS}
    if side == "server":
        no_sink = {"smtp-sink"} if title in ("STARTTLS", "AUTH") else set[str]()
        return SERVERS - no_sink | ({"smtp-server"} if node else set())
    others = {"nodemailer"} if node else set[str]()
    return CLIENTS | others | ({"PyPI's smtpproto"} if OTHER.exists() else set())


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
    assert numbers["quick"]
    assert "says nothing about speed" in done.stdout
    measured = numbers["measured"]
    workers = find_spec("smtpproto.workers") is not None
    sides = [scenario.partition(",")[0] for scenario in measured]
    assert sides == ["server"] * (6 + workers) + ["client"] * 5
    for scenario, programs in measured.items():
        assert set(programs) == programs_of(scenario)
        for (figures,) in programs.values():
            assert figures.keys() == FIGURES
            assert all(figure > 0 for figure in figures.values())
        mine = {name for name in programs if name.startswith("smtpproto, ")}
        pairs = {f"{one} / {other}" for one in mine for other in programs.keys() - mine}
        assert numbers["ratios"][scenario].keys() == pairs
        for figure in numbers["ratios"][scenario].values():
            assert figure.keys() == FIGURES
            assert all(one["low"] <= one["middle"] <= one["high"] for one in figure.values())
        assert f"\n{scenario}: " in done.stdout
        for program in programs:
            assert re.search(rf"^  {re.escape(program)} .*\d", done.stdout, re.MULTILINE)
    for what, there in (
        ("smtp-server, nodemailer", shutil.which("node") is not None and NODE.exists()),
        ("PyPI's smtpproto", OTHER.exists()),
        ("two workers", workers),
    ):
        assert (f"\nnot measured: {what}: " in done.stdout) != there


def figures(rates: "list[float]", cpus: "list[float]") -> "list[dict[str, float]]":
    both = zip(rates, cpus, strict=True)
    return [{"rate": rate, "cpu": cpu, "peak": 30.0} for rate, cpu in both]


def numbers_of(kept: "dict[str, list[dict[str, float]]]") -> str:
    """Write the numbers of a run of one scenario."""
    name = "server, persistent connections"
    machine = {"date": "today", "python": "3.13", "commit": "abc", "machine": "a <machine>"}
    report = {
        "machine": machine,
        "rounds": 3,
        "quick": False,
        "skipped": ["node: none"],
        "sizes": {name: "3 messages"},
        "measured": {name: kept},
    }
    return json.dumps(report)


RUN = numbers_of(
    {
        "smtpproto, asyncio": figures([410, 400, 390], [24, 25, 24]),
        "smtpproto, uvloop": figures([350, 290, 310], [30, 31, 40]),
        "smtpproto, trio": figures([210, 200, 190], [60, 50, 51]),
        "aiosmtpd": figures([100, 100, 100], [100, 100, 100]),
        "smtp-sink": figures([900, 900, 900], [20, 20, 20]),
    }
)


def test_each_floor_is_judged_by_the_median_and_its_noise(tmp_path: Path) -> None:
    """A goal is beyond its floor; what lies on either side of a floor in turns says so."""
    numbers = tmp_path / "numbers.json"
    numbers.write_text(RUN)
    done = benchmark("servers_and_clients.py", "--again", numbers)
    rows = [re.split(r"  +", line) for line in done.stdout.splitlines()]
    judged = {first: others for first, *others in rows if "× aiosmtpd" in first}
    kept = "server, persistent connections: "
    assert judged[f"{kept}messages/s ≥ 3 × aiosmtpd (goal 4 ×)"] == [
        "4× (3.9-4.1) goal met",
        "3.1× (2.9-3.5) met, within noise",
        "2× (1.9-2.1) NOT MET",
    ]
    assert judged[f"{kept}CPU a message ≤ 1/3 × aiosmtpd (goal 1/4 ×)"] == [
        "0.24× (0.24-0.25) goal met",
        "0.31× (0.3-0.4) met, within noise",
        "0.51× (0.5-0.6) NOT MET",
    ]
    assert judged["server, bulk: messages/s ≥ 6 × aiosmtpd (goal 8 ×)"] == ["not measured"] * 3
    assert rows[-1] == [
        "floors met of those measured: asyncio 3 of 3, uvloop 3 of 3, trio 0 of 3",
    ]


def test_chart_and_page_show_what_was_measured(tmp_path: Path) -> None:
    """And of a page nothing else is touched, however often."""
    numbers, page, chart = (tmp_path / name for name in ("n.json", "page.md", "chart.svg"))
    numbers.write_text(RUN)
    page.write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    for _ in range(2):
        benchmark(*("servers_and_clients.py", "--again", numbers, "--chart", chart, "--page", page))
    shown = page.read_text(encoding="utf-8")
    begin = "<!-- measured: written by benchmarks/servers_and_clients.py -->"
    before = PAGE.read_text(encoding="utf-8").partition(begin)[0]
    assert shown.startswith(before)
    assert shown.count(begin) == 1
    assert shown.count("<!-- measured: ") == shown.count(end := "<!-- /measured -->") == 3
    assert shown.rstrip().endswith(end)
    assert "\n| aiosmtpd | 100 | 100 | 30 | 4× (3.9-4.1) | 0.24× (0.24-0.25) |\n" in shown
    assert "asyncio 3 of 3" in shown
    assert "\n:file: chart.svg\n" in shown
    assert "\n- Not measured: node: none.\n" in shown

    svg = ElementTree.parse(chart)
    texts = ["".join(text.itertext()) for text in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert "CPU, µs a message (less is better)" in texts
    assert "messages a second (more is better)" in texts
    assert any("today" in text for text in texts)
    assert "a <machine>" in texts
    bars = list(svg.iter("{http://www.w3.org/2000/svg}rect"))
    widths = [float(bar.attrib["width"]) for bar in bars]
    assert len(widths) == 2 * 5  # programs, for each of the two figures
    assert [bar.get("class") for bar in bars] == 2 * (["ours"] * 3 + [None] * 2)
    _, _, _, aiosmtpd, sink = widths[5:]
    assert sink == pytest.approx(9 * aiosmtpd, rel=0.01)


def test_a_page_without_a_place_for_it_is_an_error(tmp_path: Path) -> None:
    numbers, page = tmp_path / "numbers.json", tmp_path / "page.md"
    numbers.write_text(RUN)
    page.write_text("Nothing.\n")
    program = str(ROOT / "benchmarks" / "servers_and_clients.py")
    done = subprocess.run(
        [sys.executable, program, "--again", str(numbers), "--page", str(page)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 1
    assert "the page has no place for it" in done.stderr
    assert page.read_text() == "Nothing.\n"


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


def test_a_full_queue_is_worked_with(tmp_path: Path) -> None:
    file = tmp_path / "numbers.json"
    done = benchmark("queued.py", "--messages", 1500, "--directory", tmp_path, "--json", file)
    (figures,) = json.loads(file.read_text())
    assert figures["messages"] == 1500
    assert all(figures[name] > 0 for name in ("open", "claim 5", "next due", "keep", "settle"))
    assert re.search(r"^ +1,500 queued: open [\d.]+ s, claim 5 [\d.]+ ms, ", done.stdout)
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_nothing_grows_while_clients_do_everything_wrong(backend: str) -> None:
    """A short soak; `benchmarks/README.md` has the long one."""
    options = "--minutes", 5, "--sessions", 600, "--connections", 60, "--seed", 7
    done = benchmark("soak.py", *options, "--backend", backend)
    assert done.stderr == ""
    assert "passed: nothing grew" in done.stdout


def test_workers_are_compared_to_one_process(tmp_path: Path) -> None:
    """By as many messages as were asked for, of several sources; and the limit has a name."""
    find("smtp-source", "postfix")
    find("smtp-sink", "postfix")
    file = tmp_path / "numbers.json"
    options = "--messages", 60, "--sessions", 6, "--rounds", 1, "--sources", 2
    done = benchmark("workers.py", *options, "--backend", "asyncio", "--json", file)
    runs = json.loads(file.read_text())["asyncio"]
    assert runs.keys() == {"1", "2"}
    for (run,) in runs.values():
        assert run.keys() == {"rate", "server", "load", "idle"}
        assert min(run["rate"], run["server"], run["load"]) > 0
    rows = [re.split(r"  +", line) for line in done.stdout.splitlines()]
    table = rows[[row[0] for row in rows].index("loop") :]
    assert table[0][-1] == "the limit was"
    assert [row[:2] for row in table[1:]] == [["asyncio", "1"], ["asyncio", "2"]]
    assert all(len(row) == len(table[0]) for row in table)
    assert table[1][table[0].index("ratio")] == "1.00"


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
