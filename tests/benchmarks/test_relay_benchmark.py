"""The relay's benchmark runs beside Postfix; and what it makes of the numbers."""

import json
import os
import re
from pathlib import Path

import pytest

from tests.peers.programs import find, missing

from .test_benchmark import ROOT, benchmark

PAGE = ROOT / "docs" / "explanation" / "performance.md"
QUEUED, DOMAINS = "4 KiB, 100,000 queued", "4 KiB, 1,000 domains"
DOWN = f"{DOMAINS}, a tenth down"
FIGURES = {"accepted", "delivered", "cpu", "peak"}


@pytest.mark.peer("postfix")
def test_relays_are_measured_and_lose_nothing(tmp_path: Path) -> None:
    """It ends with an error itself if any message does not come out."""
    for program, package in (
        ("postfix", "postfix"),
        ("unshare", "util-linux"),
        ("ip", "iproute2"),
    ):
        find(program, package)
    if os.getuid() != 0:
        missing("root: Postfix starts its daemons under users of their own")
    file = tmp_path / "numbers.json"
    loads = [option for load in ("4 KiB", QUEUED, DOMAINS) for option in ("--only", load)]
    small = "--rounds", 1, "--messages", 60, "--queued", 40, "--no-syncs"
    done = benchmark("relay.py", *small, *loads, "--json", file)
    numbers = json.loads(file.read_text())
    assert numbers["measured"].keys() == {"4 KiB", QUEUED, DOMAINS}
    for load, found in numbers["measured"].items():
        alone = {"smtpproto, one process"} if load == "4 KiB" else set()
        assert found.keys() == {"smtpproto", "Postfix"} | alone
        for (figures,) in found.values():
            assert figures.keys() == FIGURES
            assert min(figures["accepted"], figures["delivered"], figures["cpu"]) > 0
    assert f"{DOWN}: delivered/s ≥ 0.81 × with {DOMAINS}  " in done.stdout


@pytest.mark.peer("postfix")
def test_filters_are_measured_beside_none(tmp_path: Path) -> None:
    find("smtp-source", "postfix")
    file, page = tmp_path / "numbers.json", tmp_path / "page.md"
    page.write_text("<!-- measured: written by benchmarks/filters.py -->\n<!-- /measured -->\n")
    small = "--rounds", 1, "--messages", 40, "--also", ROOT
    benchmark("filters.py", *small, "--json", file, "--page", page)
    measured = json.loads(file.read_text())["measured"]
    other = f"none, {ROOT.name}"
    assert list(measured) == ["none", "none, again", "header", "networks, header, limits", other]
    for (figures,) in measured.values():
        assert figures.keys() == FIGURES
        assert min(figures["accepted"], figures["delivered"], figures["cpu"]) > 0
    written = page.read_text()
    assert all(f"\n| {kind} | " in written for kind in measured)


def rounds(*delivered: float) -> list[dict[str, float]]:
    return [
        {"accepted": 2 * each, "delivered": each, "cpu": 500.0, "peak": 50.0} for each in delivered
    ]


NUMBERS = {
    "machine": {"date": "today", "commit": "abc", "machine": "a machine"},
    "rounds": 3,
    "measured": {
        "4 KiB": {"smtpproto": rounds(310, 320, 290), "Postfix": rounds(100, 100, 100)},
        QUEUED: {"smtpproto": rounds(300, 310, 280)},
        DOWN: {"smtpproto": rounds(80, 80, 80)},
        DOMAINS: {"smtpproto": rounds(100, 100, 100)},
    },
    "syncs": {"4 KiB": {"smtpproto": 0.125, "Postfix": 1.0}},
}


def test_floors_are_judged_by_what_each_round_gave(tmp_path: Path) -> None:
    file = tmp_path / "numbers.json"
    file.write_text(json.dumps(NUMBERS))
    done = benchmark("relay.py", "--again", file)
    judged = dict(re.findall(r"^(4 KiB.*|100 KiB.*)  (\S.*)$", done.stdout, re.MULTILINE))
    words = {name.split("  ")[0]: verdict for name, verdict in judged.items() if "≥" in name}
    assert words == {
        "4 KiB: delivered/s ≥ 3 × Postfix": "met, within noise",
        "4 KiB: accepted/s ≥ 2 × Postfix": "met",
        "100 KiB: delivered/s ≥ 1.5 × Postfix": "not measured",
        "100 KiB: accepted/s ≥ 2 × Postfix": "not measured",
        f"{QUEUED}: delivered/s ≥ 0.9 × with 4 KiB": "met",
        f"{DOWN}: delivered/s ≥ 0.81 × with {DOMAINS}": "NOT MET",
    }


def test_the_page_shows_them_and_is_else_the_same(tmp_path: Path) -> None:
    file, page = tmp_path / "numbers.json", tmp_path / "page.md"
    file.write_text(json.dumps(NUMBERS))
    was = PAGE.read_text(encoding="utf-8")
    page.write_text(was, encoding="utf-8")
    for _ in range(2):
        benchmark("relay.py", "--again", file, "--page", page)
    shown = page.read_text(encoding="utf-8")
    begin, end = "<!-- measured: written by benchmarks/relay.py -->", "<!-- /measured -->"
    assert shown.partition(begin)[0] == was.partition(begin)[0]
    assert shown.partition(begin)[2].partition(end)[2] == was.partition(begin)[2].partition(end)[2]
    assert "\n| 4 KiB | ratio | 3.1× (2.9-3.2) | 3.1× (2.9-3.2) | 1× | 1× |  |\n" in shown
    assert "| 50 | 0.12 |\n" in shown
