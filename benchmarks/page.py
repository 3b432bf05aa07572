"""The part of a Markdown page that a run writes: between two markers, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from floors import judged, verdict_line
from processes import BenchmarkError
from report import COMPARED, HEADINGS, Report, comparison

__all__ = ["BEGIN", "END", "filled", "filled_with"]

BEGIN, END = "<!-- measured: written by benchmarks/servers_and_clients.py -->", "<!-- /measured -->"


def filled(page: str, report: Report, chart: str | None) -> str:
    """Return a page with the report in the place of what is between its markers.

    `chart` is the picture's file, as seen from the page.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BenchmarkError(f"the page has no place for it: {BEGIN} ... {END}")
    return before + "\n".join((BEGIN, "", *_written(report, chart), "", END)) + after


def filled_with(
    page: str, program: str, about: Sequence[str], *tables: Sequence[Sequence[str]]
) -> str:
    """Return a page with lines and tables between the markers of a program, as `filled` does."""
    before, begin, rest = page.partition(f"<!-- measured: written by benchmarks/{program} -->")
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BenchmarkError(f"the page has no place for it: {begin or program} ... {END}")
    lines = [begin, "", *about]
    for each in tables:
        lines += ["", *_markdown(each)]
    return before + "\n".join((*lines, "", END)) + after


def _written(report: Report, chart: str | None) -> Iterator[str]:
    about = report.machine
    yield f"- Measured {about['date']} at commit {about['commit']}: {report.meaning()}."
    yield f"- The machine: {about['machine']}."
    others = {key: about[key] for key in about if key not in ("date", "commit", "machine")}
    yield f"- Versions: {', '.join(f'{name} {version}' for name, version in others.items())}."
    if report.skipped:
        yield f"- Not measured: {'; '.join(report.skipped)}."
    yield from ("", "### The floors", "", *_markdown(judged(report)), "")
    yield verdict_line(report).capitalize() + "."
    if chart is not None:
        yield from ("", "### The chart", "", "```{raw} html", f":file: {chart}", "```")
    yield from ("", "### All medians")
    for scenario, programs in report.measured.items():
        yield from ("", f"#### {scenario}", "", f"{report.sizes[scenario]}.", "")
        head = ("program", *HEADINGS.values(), *COMPARED.values())
        yield from _markdown([head, *comparison(programs)])


def _markdown(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    head, *others = rows
    yield f"| {' | '.join(head)} |"
    yield f"| --- |{' ---: |' * (len(head) - 1)}"
    yield from (f"| {' | '.join(row)} |" for row in others)
