"""The reverse: for each source file the clauses it cites, for each test file the rows it bears.

Below them the file itself, every line of it an anchor.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from .citations import Citation
from .ledger import Ledger, Row, section_anchor
from .rst import Pages, escape, heading, link, prose, table

__all__ = ["SOURCE", "place", "source_page", "test_lines", "test_link", "write_source_pages"]

SOURCE = "src/smtpproto/"

#: No entry in the navigation, and none in the search: it would find every word of the source.
META = ":orphan:\n:nosearch:\n:hide-toc:\n\n"


def source_page(file: str) -> str:
    """Return the page of a file, `src/smtpproto/core/path.py` or `tests/core/test_path.py`."""
    short = file.removeprefix("src/").removesuffix(".py").replace("__", "--")
    return f"reference/source/{short}"


def place(file: str, lines: Iterable[int]) -> str:
    """Name a file of the source, with links to some lines of it."""
    page = source_page(file)
    numbers = ", ".join(link(str(line), page, f"line-{line}") for line in dict.fromkeys(lines))
    return f"{link(file.removeprefix(SOURCE), page)}:\\ {numbers}"


def test_lines(root: Path, tests: Iterable[str]) -> dict[str, int]:
    """Find the lines of tests, given by their ids: `tests/core/test_path.py::TestX::test_y`.

    The first line of the file for a test that is not written out there.
    """
    lines: dict[str, int] = {}
    for file, ids in groupby(sorted(set(tests)), lambda test: test.partition("::")[0]):
        tree = ast.parse((root / file).read_text(encoding="utf-8"))
        for test in ids:
            body: Sequence[ast.AST] = tree.body
            lines[test] = 1
            for name in test.split("::")[1:]:
                found = [node for node in body if getattr(node, "name", None) == name]
                body = getattr(found[-1], "body", []) if found else []
                lines[test] = getattr(found[-1], "lineno", 1) if found else 1
    return lines


def test_link(test: str, lines: Mapping[str, int]) -> str:
    """Link a test, by its id, to where it stands."""
    file, _, name = test.partition("::")
    text = f"{file.removeprefix('tests/')} {name.replace('::', '.')}"
    return link(text, source_page(file), f"line-{lines[test]}")


def write_source_pages(
    pages: Pages,
    root: Path,
    ledger: Ledger,
    citations: Sequence[Citation],
    lines: Mapping[str, int],
) -> None:
    """Write `index`, `tests`, and a page for each file of the source and each that bears a row."""
    cites: dict[str, list[Citation]] = {
        file.relative_to(root).as_posix(): [] for file in sorted((root / SOURCE).rglob("*.py"))
    }
    for citation in citations:
        cites[citation.file].append(citation)
    bears: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in ledger.rows:
        for test in row.tests:
            bears[test.partition("::")[0]][test].append(row)
    pages.write("index.rst", _source_index(cites))
    pages.write("tests.rst", _test_index(bears))
    for file, found in cites.items():
        pages.write(_name(file), _source(file, found, ledger))
    for file, tests in sorted(bears.items()):
        pages.write(_name(file), _test(file, tests, lines))


def _name(file: str) -> str:
    return source_page(file).removeprefix("reference/source/") + ".rst"


def _source_index(cites: Mapping[str, Sequence[Citation]]) -> str:
    text = heading("The source, and what it cites", "=")
    text += (
        "Each page has the clauses that a file cites, and the file itself. "
        f"For the tests there is {link('another list', 'reference/source/tests')}.\n\n"
    )
    rows = (
        (link(file.removeprefix(SOURCE), source_page(file)), _clauses(found))
        for file, found in cites.items()
    )
    text += table(("File", "Clauses cited"), rows, "files")
    return text + ".. toctree::\n   :hidden:\n\n   tests\n"


def _clauses(found: Iterable[Citation]) -> str:
    """Name what is cited, RFC by RFC, without links: `5321 §2.3.8, §4.5.2; 3030`."""
    unique = sorted(
        {(c.rfc, c.section) for c in found}, key=lambda pair: (pair[0], _order(pair[1]))
    )
    parts: list[str] = []
    for rfc, of in groupby(unique, lambda pair: pair[0]):
        sections = ", ".join(f"§{section}" for _, section in of if section)
        parts.append(f"{rfc} {sections}".strip())
    return "; ".join(parts)


def _order(section: str) -> list[int]:
    return [int(number) for number in section.split(".") if number]


def _test_index(bears: Mapping[str, Mapping[str, Sequence[Row]]]) -> str:
    text = heading("The tests, and the rows they bear", "=")
    text += "Tests that bear no row of the ledger are not named here: there are many more.\n\n"
    rows = (
        (
            link(file.removeprefix("tests/"), source_page(file)),
            str(len(tests)),
            str(len({row.anchor for of in tests.values() for row in of})),
        )
        for file, tests in sorted(bears.items())
    )
    return text + (table(("File", "Tests", "Rows"), rows, "files") if bears else "")


def _source(file: str, found: Sequence[Citation], ledger: Ledger) -> str:
    text = META + heading(file.removeprefix(SOURCE), "=")
    known = set(ledger.rfcs())
    lines: dict[tuple[int, str], list[int]] = defaultdict(list)
    for citation in found:
        lines[citation.rfc, citation.section].append(citation.line)
    rows: list[tuple[str, str, str]] = []
    for (rfc, section), at in sorted(lines.items(), key=lambda i: (i[0][0], _order(i[0][1]))):
        name = f"RFC {rfc}" + (f" §{section}" if section else "")
        if rfc in known:
            anchor = section_anchor(rfc, section) if section else ""
            name = link(name, f"reference/rfc/rfc{rfc}", anchor)
        of = [row for row in ledger.rows if (row.rfc, row.section) == (rfc, section)]
        numbers = ", ".join(f":at:`{line} <{source_page(file)}#line-{line}>`" for line in at)
        rows.append((name, str(len(of) or ""), numbers))
    text += (
        table(("Clause", "Rows", "Cited in line"), rows, "clauses")
        if rows
        else "It cites no RFC.\n\n"
    )
    return text + _listing(file, sorted({citation.line for citation in found}))


def _test(file: str, tests: Mapping[str, Sequence[Row]], lines: Mapping[str, int]) -> str:
    text = META + heading(file, "=")
    for test, rows in sorted(tests.items(), key=lambda item: lines[item[0]]):
        name = test.partition("::")[2].replace("::", ".")
        text += link(name, source_page(file), f"line-{lines[test]}") + "\n\n"
        for row in rows:
            clause = link(f"{row.rfc} §{row.section}", f"reference/rfc/rfc{row.rfc}", row.anchor)
            text += f"- {clause} {escape(row.name)}: {prose(row.says)}\n"
        text += "\n"
    return text + _listing(file, sorted(lines[test] for test in tests))


def _listing(file: str, lines: Sequence[int]) -> str:
    text = (
        f".. literalinclude:: /../{file}\n   :linenos:\n   :language: python\n   :class: listing\n"
    )
    if lines:
        text += f"   :emphasize-lines: {','.join(map(str, lines))}\n"
    return text + "\n"
