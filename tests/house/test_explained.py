"""What is said of mutants that no test can notice is said of the code as it is."""

import ast
from pathlib import Path

import pytest

import smtpproto
from tests.mutation.survivors import EXPLAINED, Change, change_of, explained

CORE = Path(smtpproto.__file__).parent / "core"
MODULES = sorted(path.stem for path in EXPLAINED.glob("*.toml"))


def functions(module: str) -> dict[str, set[str]]:
    """Return qualified name -> lines, stripped, of the functions and methods of a file."""
    source = (CORE / f"{module}.py").read_text(encoding="utf-8")
    tree = ast.parse(source)
    named = [("", node) for node in tree.body]
    named += [
        (f"{c.name}.", node) for _, c in named if isinstance(c, ast.ClassDef) for node in c.body
    ]
    found: dict[str, set[str]] = {}
    for owner, node in named:
        if isinstance(node, ast.FunctionDef):
            segment = ast.get_source_segment(source, node) or ""
            lines = found.setdefault(owner + node.name, set())
            lines.update(line.strip() for line in segment.splitlines())
    return found


@pytest.mark.parametrize("module", MODULES)
def test_every_line_that_is_explained_is_there(module: str) -> None:
    there = functions(module)
    for change in explained(module):
        assert change.function in there, change
        assert set(change.was.splitlines()) <= there[change.function], change
        assert change.became != change.was, change


def test_a_change_is_told_by_the_lines_that_differ() -> None:
    mutant = "smtpproto.core.proxy.xǁProxyReaderǁ__init____mutmut_1"
    before = "def xǁProxyReaderǁ__init____mutmut_orig(self, most: int = 4096) -> None:\n    pass"
    after = "def xǁProxyReaderǁ__init____mutmut_1(self, most: int = 4097) -> None:\n    pass"
    assert change_of(mutant, before, after) == Change(
        "ProxyReader.__init__",
        "def __init__(self, most: int = 4096) -> None:",
        "def __init__(self, most: int = 4097) -> None:",
    )
    before = "def x__octets__mutmut_orig(one):\n    return f(\n        one,\n        2\n    )"
    after = "def x__octets__mutmut_7(one):\n    return f(\n        2\n    )"
    changed = change_of("smtpproto.core.proxy.x__octets__mutmut_7", before, after)
    assert changed == Change("_octets", "one,", "")
