"""What the commands print with: two consoles, and the one way from the network to the screen.

Markup is off in both consoles, so brackets are brackets. What strangers said goes through `safe`
first, so that no octet of theirs can move the cursor, set a title or forge a line.
"""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Iterable
from typing import Literal, TextIO

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

from smtpproto.core.reply import Reply

__all__ = [
    "amount",
    "columns",
    "complain",
    "dialogue",
    "err",
    "is_terminal",
    "mark",
    "out",
    "per_second",
    "reply_text",
    "safe",
    "say",
    "table",
]

THEME = Theme(
    {
        "good": "green",
        "bad": "bold red",
        "warn": "yellow",
        "dim": "dim",
        "ours": "cyan",
        "head": "bold",
    }
)


def out() -> Console:
    """Return the console for results. Colours only on terminals and without NO_COLOR."""
    return _console(stderr=False)


def err() -> Console:
    """Return the console for errors, progress and questions."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    # Made for each use and not kept: the streams of this process may be others by then.
    return Console(stderr=stderr, theme=THEME, markup=False, emoji=False, highlight=False)


def safe(thing: object) -> str:
    """Write anything as one line of visible characters; the others appear as backslash escapes.

    Escaped are controls of all kinds (C0, C1, escape, line and paragraph separators, invisible
    and direction-changing ones) and octets that are no text.
    """
    if isinstance(thing, (bytes, bytearray)):
        thing = thing.decode("utf-8", "backslashreplace")
    text = str(thing)
    if text.isascii() and text.isprintable():
        return text
    return "".join(_visible(character) for character in text)


def _visible(character: str) -> str:
    if character == " " or unicodedata.category(character)[0] not in "CZ":
        return character
    if unicodedata.category(character) == "Zs":
        return " "
    return character.encode("unicode_escape").decode()


def say(*parts: str | tuple[str, str], console: Console | None = None) -> None:
    """Print one line of parts: text, or (text, style). Each is made `safe`; nothing is cut."""
    if console is None and not is_terminal(sys.stdout):
        # Rich would write the same, and take twenty times as long.
        texts = [part if isinstance(part, str) else part[0] for part in parts]
        sys.stdout.write(safe("".join(texts)) + "\n")
        sys.stdout.flush()
        return
    shown = [safe(part) if isinstance(part, str) else (safe(part[0]), part[1]) for part in parts]
    (console or out()).print(Text.assemble(*shown), soft_wrap=True)


def is_terminal(stream: TextIO) -> bool:
    """Tell whether it is one, or to be taken for one; by the same signs as Rich."""
    return (
        bool(os.environ.get("FORCE_COLOR"))
        or os.environ.get("TTY_COMPATIBLE") == "1"
        or stream.isatty()
    )


def columns() -> int | None:
    """Return how wide the terminal is; None where the output is none."""
    return out().width if is_terminal(sys.stdout) else None


def dialogue(line: str, *, console: Console | None = None) -> None:
    """Print a line of a session's trace, as in `C: EHLO example.org` or `S: 250 ok`."""
    side, _, said = line.partition(" ")
    style = "ours" if side == "C:" else "bad" if said[:1] in {"4", "5"} else ""
    say("  ", (side, "dim"), " ", (said, style), console=console)


def mark(kind: Literal["good", "bad", "warn"]) -> tuple[str, str]:
    """Return the sign that begins a line of judgement, in its colour."""
    # Words and ASCII where the output has no other characters, as in LANG=C.
    fancy = (sys.stdout.encoding or "").lower().startswith("utf")
    signs = {"good": ("✓", "ok"), "bad": ("✗", "!!"), "warn": ("•", "--")}
    return signs[kind][0 if fancy else 1], kind


def table(*columns: str, rows: Iterable[Iterable[object]], title: str = "") -> Table:
    """Make a table of rows of Text (as it is) or anything else (made `safe`). Long cells fold."""
    made = Table(
        title=Text(title, style="head") if title else None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        show_header=any(columns),
        header_style="dim",
    )
    for column in columns:
        made.add_column(Text(column), overflow="fold")
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(safe(cell)) for cell in row))
    return made


def reply_text(reply: Reply) -> str:
    """Write a reply on one line."""
    return safe(" / ".join(str(reply).split("\n")))


def amount(octets: int) -> str:
    """Write a number of octets for people: `512 octets`, `4.2 MiB`."""
    if octets < 1024:
        return f"{octets} octet{'' if octets == 1 else 's'}"
    value, units = octets / 1024, ["GiB", "MiB", "KiB"]
    unit = units.pop()
    while value >= 1024 and units:
        value, unit = value / 1024, units.pop()
    return f"{value:.3g} {unit}" if value < 1000 else f"{value:.0f} {unit}"


def per_second(count: int, seconds: float) -> str:
    """Write a rate; nothing can be said of no time at all."""
    return f"{count / seconds:.0f}/s" if seconds > 0 else "-"


def complain(error: click.ClickException, path: str, advice: str = "") -> None:
    """Print what is wrong on the error console; `path` is the command that says it."""
    first, *others = error.format_message().split("\n")
    say((f"{path}: ", "bad"), first, (advice, "dim"), console=err())
    for line in others:
        say("  ", line, console=err())
