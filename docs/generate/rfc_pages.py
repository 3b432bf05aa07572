"""A page for each RFC: clauses, their status, tests that bear them, source that cites them.

And one before these, with the totals.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from .citations import Citation
from .ledger import STATUSES, Ledger, Row, bound, counts, section_anchor, section_order, shares
from .rst import Pages, escape, heading, link, prose, table
from .source_pages import place, test_link

__all__ = ["write_rfc_pages"]

#: So many tests of a row are shown at once; more are folded away.
SHOWN = 3

LEGEND = """\
A *row* is one thing that an RFC demands, allows or defines, in our words. Its status is one of

- :status:`tested`: a test fails where this is not kept;
- :status:`by design`: it holds by the shape of the code, or it is a permission we leave unused;
- :status:`not applicable`: it speaks to somebody else;
- :status:`not yet`: it is not kept so far, or no test says so.

"""


def write_rfc_pages(
    pages: Pages,
    ledger: Ledger,
    citations: Sequence[Citation],
    titles: Mapping[int, str],
    lines_of_tests: Mapping[str, int],
) -> None:
    """Write `index` and `rfcNNNN` into `pages`.

    `titles` says what an RFC is about; `lines_of_tests` where the tests stand, by their id.
    """
    by_rfc: dict[int, list[Citation]] = defaultdict(list)
    for citation in citations:
        by_rfc[citation.rfc].append(citation)
    pages.write("index.rst", _summary(ledger, by_rfc, titles))
    for rfc in ledger.rfcs():
        page = _page(rfc, ledger.of_rfc(rfc), by_rfc[rfc], titles, lines_of_tests)
        pages.write(f"rfc{rfc}.rst", page)


def _summary(
    ledger: Ledger, by_rfc: Mapping[int, list[Citation]], titles: Mapping[int, str]
) -> str:
    text = heading("RFCs, clause by clause", "=")
    text += (
        "Every normative statement and every production of these RFCs has a row in a ledger "
        "(``tests/conformance/``). It names the tests that hold us to it, or says why there are "
        "none. These pages are made from it, and from the source, whenever the site is built: "
        "the tests are found then, not run; CI runs them.\n\n"
    )
    text += LEGEND
    if ledger.errors:
        text += ".. warning::\n\n   The ledger is not in order, so do not rely on all of this:\n\n"
        text += "".join(f"   - {escape(error)}\n" for error in ledger.errors[:20])
        if len(ledger.errors) > 20:
            text += f"   - and {len(ledger.errors) - 20} more\n"
        text += "\n"
    head = ("RFC", "About", "Rows", *(status.capitalize() for status in STATUSES), "Core")
    rows: list[tuple[str, ...]] = [
        (link(f"RFC {rfc}", f"reference/rfc/rfc{rfc}"), titles[rfc], *_numbers(ledger.of_rfc(rfc)))
        for rfc in ledger.rfcs()
    ]
    if ledger.rows:
        rows.append(("**all**", "", *(f"**{number}**" for number in _numbers(ledger.rows))))
        text += table(head, rows, "totals")
        text += (
            "*Core*: of the rows that bind a client or a server, how many are tested. The other "
            "rows bind a relay, a submission server, or whoever builds on the library.\n\n"
        )
        text += table(
            ("Binds", "Rows", *(status.capitalize() for status in STATUSES), "Share"),
            [(who, *_of_those(of)) for who, of in bound(ledger.rows).items()],
            "totals",
        )
        text += "*Share*: how many are tested of those that are tested or not yet.\n\n"
    text += (
        f"The other way round: {link('what each file cites', 'reference/source/index')}, "
        f"and {link('which rows each test bears', 'reference/source/tests')}.\n\n"
    )
    others = sorted(set(by_rfc) - set(ledger.rfcs()))
    if others:
        text += heading("Cited, and not in the ledger", "-")
        text += table(
            ("RFC", "About", "Cited in"),
            ((f"RFC {rfc}", titles.get(rfc, ""), _places(by_rfc[rfc])) for rfc in others),
            "cited",
        )
    text += ".. toctree::\n   :hidden:\n\n"
    return text + "".join(f"   RFC {rfc} <rfc{rfc}>\n" for rfc in ledger.rfcs())


def _numbers(rows: Iterable[Row]) -> tuple[str, ...]:
    rows = list(rows)
    core, tested = shares(rows)
    percent = f"{int(100 * tested / core)}%" if core else ""
    return (str(len(rows)), *(str(number or "") for number in counts(rows).values()), percent)


def _of_those(rows: Sequence[Row]) -> tuple[str, ...]:
    counted = counts(rows)
    owed = counted["tested"] + counted["not yet"]
    share = f"{int(100 * counted['tested'] / owed)}%" if owed else ""
    return (str(len(rows)), *(str(number or "") for number in counted.values()), share)


def _page(
    rfc: int,
    rows: Sequence[Row],
    citations: Sequence[Citation],
    titles: Mapping[int, str],
    lines_of_tests: Mapping[str, int],
) -> str:
    text = heading(f"RFC {rfc}: {titles[rfc]}", "=")
    text += _bar(rows)
    core, tested = shares(rows)
    total = ", ".join(f"{number} {status}" for status, number in counts(rows).items() if number)
    text += f"{len(rows)} rows: {total}."
    if core:
        text += f" Of the {core} that bind a client or a server, {tested} are tested."
    text += "\n\n"
    whole = [citation for citation in citations if not citation.section]
    if whole:
        text += f":dim:`The RFC as a whole is named in` {_places(whole)}\n\n"
    cites: dict[str, list[Citation]] = defaultdict(list)
    for citation in citations:
        if citation.section:
            cites[citation.section].append(citation)
    by_section = {section: list(of) for section, of in groupby(rows, lambda row: row.section)}
    for section in sorted(by_section.keys() | cites.keys(), key=section_order):
        text += f".. _{section_anchor(rfc, section)}:\n\n" + heading(f"§{section}", "-")
        if section in cites:
            text += f":dim:`Cited in` {_places(cites[section])}\n\n"
        for row in by_section.get(section, []):
            text += _row(row, lines_of_tests)
        if section not in by_section:
            text += ":dim:`The ledger has no row of this section itself.`\n\n"
    return text


def _bar(rows: Sequence[Row]) -> str:
    parts = "".join(
        f'<span class="is-{_class(status)}" style="flex-grow:{number}"></span>'
        for status, number in counts(rows).items()
        if number
    )
    return f'.. raw:: html\n\n   <div class="bar" aria-hidden="true">{parts}</div>\n\n'


def _class(status: str) -> str:
    return status.replace(" ", "-")


def _row(row: Row, lines_of_tests: Mapping[str, int]) -> str:
    binds = " ".join(f":binds:`{who}`" for who in row.binds)
    inside = f".. _{row.anchor}:\n\n:clause-name:`{row.name}` :status:`{row.status}` {binds}\n\n"
    inside += prose(row.says) + "\n\n"
    if row.reason:
        inside += f":dim:`Why:` {prose(row.reason)}\n\n"
    links = [f"- {test_link(test, lines_of_tests)}\n" for test in row.tests]
    if len(links) > SHOWN:
        summary = f"{len(links)} tests"
        inside += f".. raw:: html\n\n   <details><summary>{summary}</summary>\n\n"
        inside += "".join(links) + "\n.. raw:: html\n\n   </details>\n\n"
    elif links:
        inside += "".join(links) + "\n"
    indented = "".join(f"   {line}\n" if line else "\n" for line in inside.split("\n"))
    return f".. container:: clause is-{_class(row.status)}\n\n{indented}\n"


def _places(citations: Iterable[Citation]) -> str:
    """Name files and lines: `core/content.py` 3, 29; `core/path.py` 36."""
    files = groupby(sorted(citations, key=lambda c: (c.file, c.line)), lambda c: c.file)
    return "; ".join(place(file, [citation.line for citation in of]) for file, of in files)
