"""The picture of the state machine: boxes and lines placed by hand, digits taken from the tables.

Each line says which states it leaves, what has to be asked there, and where it leads; the digits
beside it are looked up. `undrawn` gives the moves that no line stands for, and a test holds that
these leave the state as it is.
"""

from collections.abc import Iterator
from math import dist
from xml.sax.saxutils import escape

from attrs import frozen

from smtpproto import State

from .tables import MEANINGS, Row, rows

__all__ = ["LINES", "as_svg", "undrawn"]

WIDTH, HEIGHT = 880, 856
_S = State
Point = tuple[float, float]


@frozen
class Box:
    """A state: its middle and its size."""

    x: float
    y: float
    width: float = 124
    height: float = 50


BOXES = {
    _S.CONNECTED: Box(380, 62),
    _S.GREETED: Box(380, 186),
    _S.READY: Box(380, 322, width=200, height=72),
    _S.MAIL: Box(380, 504),
    _S.RCPT: Box(380, 630),
    _S.CONTENT: Box(380, 800),
    _S.REFUSED: Box(120, 62),
    _S.CLOSED: Box(120, 314),
    _S.TLS: Box(640, 186),
    _S.AUTH: Box(770, 332),
    _S.SPOILED: Box(720, 504),
    _S.CHUNKS: Box(720, 630),
}
USUAL = (_S.CONNECTED, _S.GREETED, _S.READY, _S.MAIL, _S.RCPT, _S.CONTENT, _S.CLOSED)
#: A transaction: left, top, right, bottom.
FRAME = (262, 458, 852, 706)


@frozen
class Line:
    """What is `asked` in any of the `states` leads `to`, along `points`.

    The words stand at `words`: `shown`, or what is asked, and the digits; "|" breaks them.
    `style` is usual for the way of a session in which nothing fails, seldom for what our own
    server never does.
    """

    states: tuple[State, ...]
    asked: tuple[str, ...]
    to: State
    points: tuple[Point, ...]
    words: Point
    shown: str = ""
    anchor: str = "middle"
    style: str = "other"


_TRANSACTION = (_S.MAIL, _S.RCPT, _S.CHUNKS, _S.SPOILED)
_HELLOS = ("EHLO", "HELO", "LHLO")

LINES = (
    # The usual way, from top to bottom and back on the left
    Line(
        (_S.CONNECTED,), ("greeting",), _S.GREETED,
        ((380, 87), (380, 161)), (370, 129), "", "end", "usual",
    ),
    Line(
        (_S.GREETED,), _HELLOS, _S.READY,
        ((380, 211), (380, 286)), (370, 254), "EHLO", "end", "usual",
    ),
    Line((_S.READY,), ("MAIL",), _S.MAIL, ((380, 358), (380, 479)), (370, 424), "", "end", "usual"),
    Line((_S.MAIL,), ("RCPT",), _S.RCPT, ((380, 529), (380, 605)), (370, 572), "", "end", "usual"),
    Line(
        (_S.RCPT,), ("DATA",), _S.CONTENT,
        ((380, 655), (380, 775)), (370, 746), "", "end", "usual",
    ),
    Line(
        (_S.CONTENT,), ("end of content",), _S.READY,
        ((318, 808), (206, 808), (206, 338), (280, 338)), (196, 640), "", "end", "usual",
    ),
    Line((_S.READY,), ("QUIT",), _S.CLOSED, ((280, 314), (182, 314)), (234, 304), style="usual"),
    # Before a transaction
    Line((_S.CONNECTED,), ("greeting",), _S.REFUSED, ((318, 62), (182, 62)), (250, 52)),
    Line((_S.REFUSED,), ("QUIT",), _S.CLOSED, ((90, 87), (90, 289)), (80, 192), anchor="end"),
    Line((_S.GREETED,), ("QUIT",), _S.CLOSED, ((318, 186), (150, 186), (150, 289)), (234, 176)),
    Line(
        (_S.READY,), ("verb that starts over",), _S.GREETED,
        ((422, 286), (422, 211)), (431, 254), "XCLIENT", "start",
    ),
    Line((_S.READY,), ("STARTTLS",), _S.TLS, ((480, 298), (640, 298), (640, 211)), (560, 288)),
    Line((_S.TLS,), (), _S.GREETED, ((578, 186), (442, 186)), (511, 176), "handshake"),
    Line((_S.READY,), ("AUTH",), _S.AUTH, ((480, 322), (708, 322)), (595, 316)),
    Line((_S.AUTH,), ("response",), _S.READY, ((708, 346), (480, 346)), (595, 364)),
    Line(
        (_S.AUTH,), ("response",), _S.AUTH,
        ((754, 307), (754, 283), (788, 283), (788, 307)), (771, 274),
    ),
    # Within one
    Line(
        (_S.RCPT,), ("RCPT",), _S.RCPT,
        ((406, 655), (406, 679), (434, 679), (434, 655)), (443, 682), anchor="start",
    ),
    Line((_S.RCPT,), ("BDAT",), _S.CHUNKS, ((442, 638), (658, 638)), (552, 656)),
    Line(
        (_S.CHUNKS,), ("BDAT",), _S.CHUNKS,
        ((706, 655), (706, 679), (734, 679), (734, 655)), (743, 682), anchor="start",
    ),
    Line(
        (_S.RCPT,), ("BDAT",), _S.SPOILED,
        ((442, 620), (552, 620), (552, 504), (658, 504)), (562, 568), anchor="start",
    ),
    Line((_S.CHUNKS,), ("BDAT",), _S.SPOILED, ((720, 605), (720, 529)), (729, 572), anchor="start"),
    Line(
        (_S.MAIL,), ("DATA",), _S.CONTENT,
        ((318, 504), (286, 504), (286, 790), (318, 790)), (278, 746), "", "end", "seldom",
    ),
    # Out of it
    Line(
        _TRANSACTION, ("RSET", *_HELLOS), _S.READY,
        ((520, 458), (520, 416), (424, 416), (424, 358)), (530, 441), "RSET, EHLO", "start",
    ),
    Line(
        (_S.RCPT, _S.CHUNKS, _S.SPOILED), ("end of content",), _S.READY,
        ((650, 458), (650, 386), (456, 386), (456, 358)), (660, 428), "last chunk", "start",
    ),
    Line(
        _TRANSACTION, ("QUIT",), _S.CLOSED,
        ((262, 504), (128, 504), (128, 339)), (118, 480), "", "end",
    ),
)  # fmt: skip


def moves_of(line: Line) -> Iterator[tuple[Row, int]]:
    """Give the moves that a line stands for: the row, and the digit.

    Where a session stays, only what was accepted is drawn.
    """
    for row in rows():
        if row.state in line.states and row.asked in line.asked:
            for digit, to in row.leads.items():
                if to is line.to and (digit < 4 or to is not row.state):
                    yield row, digit


def undrawn() -> list[tuple[State, str, int, State]]:
    """Return the moves that no line stands for."""
    drawn = {(row.state, row.asked, digit) for line in LINES for row, digit in moves_of(line)}
    return [
        (row.state, row.asked, digit, to)
        for row in rows()
        for digit, to in row.leads.items()
        if (row.state, row.asked, digit) not in drawn
    ]


# Two palettes: in light and in dark.
_LIGHT = {
    "ink": "#1f2328", "soft": "#57606a", "line": "#7d8590", "usual": "#0969da",
    "box": "#f6f8fa", "main": "#ddf4ff", "frame": "#f6f8fa",
    "yes": "#1a7f37", "more": "#8250df", "no": "#cf222e",
}  # fmt: skip
_DARK = {
    "ink": "#e6edf3", "soft": "#9da7b3", "line": "#848d97", "usual": "#58a6ff",
    "box": "#21262d", "main": "#12304f", "frame": "#1a1d22",
    "yes": "#56d364", "more": "#bc8cff", "no": "#ff7b72",
}  # fmt: skip
_RULES = (
    ("text", "fill", "ink"),
    (".soft", "fill", "soft"),
    (".d2", "fill", "yes"),
    (".d3", "fill", "more"),
    (".d4", "fill", "no"),
    (".box", "fill", "box"),
    (".box", "stroke", "line"),
    (".main", "fill", "main"),
    (".main", "stroke", "usual"),
    (".frame", "fill", "frame"),
    (".frame", "stroke", "line"),
    (".line", "stroke", "line"),
    (".usual", "stroke", "usual"),
    (".tip", "fill", "line"),
    (".usual-tip", "fill", "usual"),
)


def _colours(palette: dict[str, str], within: str = "") -> str:
    # Each rule begins with the class of the picture: within a page, styles are everybody's.
    return " ".join(
        f"{within}.smtp-machine {what}{{{how}:{palette[colour]}}}" for what, how, colour in _RULES
    )


def _style() -> str:
    """Write the style: by what the reader prefers, and by what they chose on the page (furo)."""
    return "\n".join(
        (
            ".smtp-machine text{font:14px system-ui,'Segoe UI','DejaVu Sans',sans-serif}",
            ".smtp-machine .name{font-weight:600;font-size:15px}",
            ".smtp-machine .small{font-size:12px}",
            ".smtp-machine .d2,.smtp-machine .d3,.smtp-machine .d4{font-weight:700}",
            ".smtp-machine .box{stroke-width:1.5}",
            ".smtp-machine .main{stroke-width:2}",
            ".smtp-machine .frame{stroke-dasharray:5 4}",
            ".smtp-machine .line{fill:none;stroke-width:1.5}",
            ".smtp-machine .usual{stroke-width:3}",
            ".smtp-machine .seldom{stroke-dasharray:2 4}",
            _colours(_LIGHT),
            f"@media (prefers-color-scheme:dark){{{_colours(_DARK)}}}",
            _colours(_LIGHT, 'body[data-theme="light"] '),
            _colours(_DARK, 'body[data-theme="dark"] '),
        )
    )


def _path(points: tuple[Point, ...], radius: float = 12) -> str:
    """Write a line through the points, its corners rounded."""
    commands = [f"M{_at(points[0])}"]
    for before, corner, behind in zip(points, points[1:], points[2:], strict=False):
        reach = min(radius, dist(before, corner) / 2, dist(corner, behind) / 2)
        commands.append(f"L{_at(_toward(corner, before, reach))}")
        commands.append(f"Q{_at(corner)} {_at(_toward(corner, behind, reach))}")
    return " ".join([*commands, f"L{_at(points[-1])}"])


def _toward(start: Point, end: Point, length: float) -> Point:
    part = length / dist(start, end)
    return start[0] + (end[0] - start[0]) * part, start[1] + (end[1] - start[1]) * part


def _at(point: Point) -> str:
    return f"{point[0]:g},{point[1]:g}"


def _digits(found: set[int]) -> str:
    return "".join(f' <tspan class="d{min(digit, 4)}">{digit}</tspan>' for digit in sorted(found))


def _line(line: Line) -> str:
    tip = "usual-tip" if line.style == "usual" else "tip"
    drawn = (
        f'<path class="line {line.style}" d="{_path(line.points)}" marker-end="url(#smtp-{tip})"/>'
    )
    x, y = line.words
    asked, _, rest = (line.shown or ", ".join(line.asked)).partition("|")
    digits = _digits({digit for _, digit in moves_of(line)})
    if "|" in line.shown:
        digits = f'<tspan x="{x:g}" dy="17">{rest}{digits.strip()}</tspan>'
    place = f'x="{x:g}" y="{y:g}" text-anchor="{line.anchor}"'
    return f"{drawn}\n<text {place}>{escape(asked)}{digits}</text>"


def _box(state: State, box: Box) -> str:
    kind = "box main" if state in USUAL else "box"
    left, top = box.x - box.width / 2, box.y - box.height / 2
    return (
        f"<g><title>{escape(MEANINGS[state])}</title>"
        f'<rect class="{kind}" x="{left:g}" y="{top:g}" width="{box.width:g}" '
        f'height="{box.height:g}" rx="10"/>'
        f'<text class="name" x="{box.x:g}" y="{box.y + 5:g}" text-anchor="middle">'
        f"{state.name}</text></g>"
    )


_TIP = (
    '<marker id="smtp-{id}" viewBox="0 0 10 10" refX="9" refY="5" markerUnits="userSpaceOnUse" '
    'markerWidth="{size}" markerHeight="{size}" orient="auto">'
    '<path class="{id}" d="M0,0 L10,5 L0,10 z"/></marker>'
)


def _legend() -> Iterator[str]:
    x, y = 464, 756
    samples = (
        ("usual", "usual-tip", "the usual way"),
        ("seldom", "tip", "never by our own server"),
    )
    for at, (style, tip, words) in zip((x, x + 168), samples, strict=True):
        yield f'<path class="line {style}" d="M{at},{y} h40" marker-end="url(#smtp-{tip})"/>'
        yield f'<text class="soft" x="{at + 50}" y="{y + 5}">{words}</text>'
    accepted, go_on, refused = _digits({2}), _digits({3}), _digits({4, 5})
    for line, words in enumerate(
        (
            f"first digit of the reply:{accepted} accepted,{go_on} go on,{refused} refused",
            "EHLO stands for HELO and LHLO as well",
            "not drawn: what leaves the state as it is",
        )
    ):
        yield f'<text class="soft" x="{x}" y="{y + 30 + 22 * line}">{words}</text>'


def _from_anywhere() -> Iterator[str]:
    yield '<path class="line other" d="M14,314 H58" marker-end="url(#smtp-tip)"/>'
    words = ("from anywhere:", '<tspan class="d4">421</tspan>', "end of file", "lost framing")
    for line, word in enumerate(words):
        yield f'<text class="soft" x="14" y="{364 + 19 * line}">{word}</text>'


def as_svg() -> str:
    """Draw it: a picture that is at home in a page of the docs, and stands alone as well."""
    left, top, right, bottom = FRAME
    parts = [
        f'<svg class="smtp-machine" xmlns="http://www.w3.org/2000/svg" role="img" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}" width="100%" aria-labelledby="smtp-machine-title">',
        '<title id="smtp-machine-title">The states of an SMTP session and the moves between them'
        "</title>",
        f"<style>\n{_style()}\n</style>",
        "<defs>",
        _TIP.format(id="tip", size=10),
        _TIP.format(id="usual-tip", size=13),
        "</defs>",
        f'<rect class="frame" x="{left}" y="{top}" width="{right - left}" '
        f'height="{bottom - top}" rx="14"/>',
        f'<text class="soft" x="470" y="{top + 24}">a transaction</text>',
        *map(_line, LINES),
        '<circle class="usual-tip" cx="380" cy="9" r="6"/>'
        '<path class="line usual" d="M380,9 V37" marker-end="url(#smtp-usual-tip)"/>',
        *(_box(state, box) for state, box in BOXES.items()),
        *_from_anywhere(),
        *_legend(),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"
