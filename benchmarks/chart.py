"""All medians as one picture: bars, an axis for each quantity, for light and dark pages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from math import ceil, floor, log10

from report import Measure, Report, Spread, mine, number, summary

__all__ = ["chart"]

WIDTH = 880
NAMES = 190  # for the names, left of the bars
GAP = 24  # between the two halves, and at the right
PLOT = (WIDTH - NAMES - 2 * GAP) / 2
BARS = 0.78  # of a plot: the largest value ends there, and its number has room behind it
ROW, HEAD, AXIS = 17, 30, 42  # heights: a program, a scenario's title, its axis
TICKS = 4  # at most, beside 0

#: Figure -> what its axis is called.
AXES = {"cpu": "CPU, µs a message (less is better)", "rate": "messages a second (more is better)"}

LIGHT = {
    "text": "#1f2328",
    "soft": "#57606a",
    "line": "#d0d7de",
    "ours": "#0969da",
    "peer": "#8c959f",
}
DARK = {
    "text": "#e6edf3",
    "soft": "#9da7b3",
    "line": "#373e47",
    "ours": "#58a6ff",
    "peer": "#6e7681",
}


def chart(report: Report) -> str:
    """Return an SVG that needs nothing else. Site and system may each ask for dark colours."""
    body: list[str] = []
    top = 30.0
    for scenario, programs in report.measured.items():
        body += _scenario(scenario, report.sizes[scenario], programs, top)
        top += HEAD + ROW * len(programs) + AXIS
    about = report.machine
    body += [
        _text(0, 14, f"Blue: ours. Bars: {report.meaning()}.", "soft"),
        _text(0, top + 14, f"{about['date']}, Python {about['python']}, {about['commit']}", "soft"),
        _text(0, top + 30, about["machine"], "soft"),
    ]
    return "\n".join(
        (
            f'<svg class="benchmark" xmlns="http://www.w3.org/2000/svg" role="img" '
            f'viewBox="0 0 {WIDTH} {top + 40:.0f}" width="100%" aria-labelledby="benchmark-title">',
            '<title id="benchmark-title">CPU a message and messages a second of servers and '
            "clients</title>",
            f"<style>\n{_style()}\n</style>",
            *body,
            "</svg>\n",
        )
    )


def _style() -> str:
    return "\n".join(
        (
            ".benchmark text{font:12px system-ui,'Segoe UI','DejaVu Sans',sans-serif}",
            ".benchmark .title{font-weight:600;font-size:14px}",
            ".benchmark .grid{stroke-width:1}.benchmark .range{stroke-width:1.5}",
            _colours(LIGHT),
            f"@media (prefers-color-scheme:dark){{{_colours(DARK)}}}",
            _colours(LIGHT, 'body[data-theme="light"] '),
            _colours(DARK, 'body[data-theme="dark"] '),
        )
    )


def _colours(palette: Mapping[str, str], where: str = "") -> str:
    fills = {"text": "text", ".soft": "soft", "rect": "peer", "rect.ours": "ours"}
    strokes = {".grid": "line", ".range": "text"}
    return "".join(
        f"{where}.benchmark {name}{{{attribute}:{palette[colour]}}}"
        for attribute, names in (("fill", fills), ("stroke", strokes))
        for name, colour in names.items()
    )


def _scenario(
    name: str, size: str, programs: Mapping[str, Sequence[Measure]], top: float
) -> Iterator[str]:
    yield (
        f'<text y="{top + 18:.0f}"><tspan class="title">{escape(name)}</tspan>'
        f'<tspan class="soft" dx="8">{escape(size)}</tspan></text>'
    )
    top += HEAD
    bottom = top + ROW * len(programs)
    found = {program: summary(rounds) for program, rounds in programs.items()}
    for row, program in enumerate(programs):
        yield _text(NAMES - 8, top + ROW * row + 13, program, "", "end")
    for half, (figure, title) in enumerate(AXES.items()):
        left = NAMES + half * (PLOT + GAP)
        largest = max(spreads[figure].high for spreads in found.values())
        scale = PLOT * BARS / largest
        for tick in _ticks(largest):
            x = left + tick * scale
            yield f'<path class="grid" d="M{x:.1f} {top:.0f}V{bottom + 4:.0f}"/>'
            yield _text(x, bottom + 17, f"{tick:,.10g}", "soft", "middle")
        yield _text(left, bottom + 33, title, "soft")
        for row, program in enumerate(programs):
            yield from _bar(left, top + ROW * row, found[program][figure], scale, mine(program))


def _bar(left: float, top: float, spread: Spread, scale: float, ours: bool) -> Iterator[str]:
    kind = ' class="ours"' if ours else ""
    width = spread.middle * scale
    yield f'<rect{kind} x="{left:.1f}" y="{top + 3:.0f}" width="{width:.1f}" height="{ROW - 5}"/>'
    low, high, middle = left + spread.low * scale, left + spread.high * scale, top + ROW / 2 + 0.5
    if spread.low != spread.high:
        yield f'<path class="range" d="M{low:.1f} {middle:.1f}H{high:.1f}"/>'
    yield _text(high + 5, top + 13, number(spread.middle))


def _ticks(largest: float) -> list[float]:
    """Return 0 and a few round numbers up to the largest value."""
    rough = largest / TICKS
    power = 10.0 ** floor(log10(rough))
    step = next(power * round_ for round_ in (1, 2, 5, 10) if power * round_ >= rough)
    return [step * tick for tick in range(ceil(largest / step) + 1) if step * tick <= largest]


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "") -> str:
    attributes = (f' class="{kind}"' if kind else "") + (
        f' text-anchor="{anchor}"' if anchor else ""
    )
    return f'<text x="{x:.1f}" y="{y:.1f}"{attributes}>{escape(text)}</text>'
