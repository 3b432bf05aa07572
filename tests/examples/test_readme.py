"""The README says what is so: its commands, its code, its links."""

import itertools
import re
import subprocess
import textwrap
from pathlib import Path

import pytest

from smtpproto.cli.app import COMMANDS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")]
)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)\n```$", README, re.MULTILINE | re.DOTALL)


def test_the_first_two_sh_blocks_are_one_line_each_and_share_their_set_up() -> None:
    serve, tests = blocks("sh")[:2]
    assert "\n" not in serve + tests
    set_up = re.compile(
        r"test -x \.venv/bin/python \|\| python3 -m venv \.venv; "
        r"\.venv/bin/pip install -q -e '\.\[([a-z,]+)\]' && (.+)"
    )
    found = [set_up.fullmatch(line) for line in (serve, tests)]
    extras, commands = zip(*(one.groups() for one in found if one), strict=True)
    assert extras == ("all", "all,dev")
    assert commands[0] == ".venv/bin/smtpproto serve"
    assert commands[1].startswith(".venv/bin/python -m pytest")
    for line in (serve, tests):
        subprocess.run(["sh", "-n", "-c", line], check=True)


def test_ci_runs_the_second() -> None:
    """It finds it in the README, as awk counts blocks."""
    script = (ROOT / ".ci" / "run").read_text()
    (program,) = re.findall(r"awk '(.*)' README\.md", script)
    found = subprocess.run(
        ["awk", program, "README.md"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert found == blocks("sh")[1] + "\n"


def paragraphs(code: str) -> list[list[str]]:
    """Split at blank lines; each without the indentation that all of its lines share."""
    return [textwrap.dedent(one).split("\n") for one in re.split(r"\n\s*\n", code.strip("\n"))]


def position(wanted: list[str], lines: list[str], start: int) -> int | None:
    """Find consecutive lines, wherever they are indented to; the line behind them."""
    for at in range(start, len(lines) - len(wanted) + 1):
        if textwrap.dedent("\n".join(lines[at : at + len(wanted)])).split("\n") == wanted:
            return at + len(wanted)
    return None


QUOTES = re.findall(
    r"^## [^\n]*\]\((examples/[\w/]+\.py)\)\n\n```python\n(.*?)\n```$",
    README,
    re.MULTILINE | re.DOTALL,
)


def test_each_python_block_is_an_example() -> None:
    assert [name for name, _ in QUOTES] == [
        *("examples/core.py", "examples/client.py", "examples/howto/send_many.py"),
        "examples/script.py",
        *("examples/server.py", "examples/relay.py"),
    ]
    assert [code for _, code in QUOTES] == blocks("python")


@pytest.mark.parametrize(("name", "code"), QUOTES)
def test_what_is_quoted_stands_in_the_file(name: str, code: str) -> None:
    lines = (ROOT / name).read_text().split("\n")
    at = 0
    for paragraph in paragraphs(code):
        found = position(paragraph, lines, at)
        assert found is not None, f"not in {name}, or not in this order:\n" + "\n".join(paragraph)
        at = found


def test_what_is_not_in_a_file_is_not_found() -> None:
    lines = ["def f():", "    a = 1", "    b = 2"]
    assert position(["a = 1", "b = 2"], lines, 0) == 3
    assert position(["a = 1", "    b = 2"], lines, 0) is None
    assert position(["a = 1", "b = 2"], lines, 2) is None
    assert paragraphs("    x\n      y\n\nz") == [["x", "  y"], ["z"]]


def test_every_command_is_named_and_no_other() -> None:
    assert set(re.findall(r"^\| `smtpproto (\w+)", README, re.MULTILINE)) == set(COMMANDS)


def test_the_other_package_of_that_name_is_mentioned() -> None:
    assert "`smtpproto` on PyPI is another one" in README


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    plain = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings)
    return {re.sub(r"[^\w -]", "", heading).replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("name", PAGES)
def test_every_relative_link_leads_somewhere(name: str) -> None:
    page = ROOT / name
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    inline = re.findall(r"\]\(<?([^)\s>]+)", text)
    defined = re.findall(r"^\[[^]]+\]: *(\S+)", text, re.MULTILINE)
    for link in itertools.chain(inline, defined):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{name}: {link}"
        assert target.is_relative_to(ROOT), f"{name}: {link}"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{name}: {link}"
