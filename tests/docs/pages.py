"""The pages that people follow step by step, read so that a test can follow them.

Beside Sphinx' own directives these comments, which the site does not show, say what a block is::

    % background NAME      the command goes on while the rest of the page is followed
    % said by NAME         what such a command has said since it was last asked
    % interrupt NAME       press Ctrl-C there

NAME is the command's first word where none is given.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TypeAlias

from attrs import frozen

__all__ = ["DOCS", "Include", "Step", "includes", "matches", "plain_blocks", "steps"]

DOCS = Path(__file__).parents[2] / "docs"

Kind: TypeAlias = Literal["file", "run", "background", "said", "interrupt"]


@frozen
class Step:
    """One step: `name` is a file or a command in the background, `lines` what is expected."""

    kind: Kind
    name: str
    text: str = ""
    lines: tuple[str, ...] = ()


@frozen
class Include:
    """A literalinclude: which file, and with which options."""

    path: Path
    options: dict[str, str]


_FENCE = re.compile(
    r"^```(?P<info>[^\n]*)\n(?P<body>.*?)^```$|^% (?P<comment>[^\n]*)$", re.MULTILINE | re.DOTALL
)


def _fences(page: Path) -> Iterator[tuple[str, str]]:
    """Yield the kind and body of each fenced block; `%` and the text of each comment."""
    for match in _FENCE.finditer(page.read_text(encoding="utf-8")):
        yield ("%", match["comment"]) if match["comment"] else (match["info"], match["body"])


def includes(page: Path) -> list[Include]:
    """Return the literalincludes of a page."""
    found: list[Include] = []
    for info, body in _fences(page):
        if info.startswith("{literalinclude}"):
            options = dict(re.findall(r"^:([\w-]+): ?(.*)$", body, re.MULTILINE))
            found.append(Include((page.parent / info.split()[1]).resolve(), options))
    return found


def plain_blocks(page: Path, language: str) -> list[str]:
    """Return the blocks of one language that are written on the page itself."""
    kinds = (language, f"{{code-block}} {language}")
    return [body for info, body in _fences(page) if info in kinds]


def steps(page: Path) -> Iterator[Step]:
    """Yield what a reader of this page does, in this order."""
    comment = ""
    for info, body in _fences(page):
        if info == "%":
            if body.startswith("interrupt "):
                yield Step("interrupt", body.split()[1])
            else:
                comment = body
            continue
        said, comment = comment, ""
        if info.startswith("{literalinclude}"):
            (caption,) = re.findall(r"^:caption: (.*)$", body, re.MULTILINE)
            path = page.parent / info.split()[1]
            yield Step("file", caption, path.read_text(encoding="utf-8"))
        elif info == "console":
            for command, *lines in _commands(body):
                if said.startswith("background"):
                    name = said.removeprefix("background").strip() or command.split()[0]
                    yield Step("background", name, command, tuple(lines))
                else:
                    yield Step("run", "", command, tuple(lines))
        elif said.startswith("said by "):
            lines = body.removesuffix("\n").split("\n")
            yield Step("said", said.removeprefix("said by "), "", tuple(lines))


def _commands(body: str) -> Iterator[list[str]]:
    """Yield each command, behind `$ `, and the lines that it prints."""
    current: list[str] = []
    for line in body.removesuffix("\n").split("\n"):
        if line.startswith("$ "):
            if current:
                yield current
            current = [line.removeprefix("$ ")]
        else:
            current.append(line)
    if current:
        yield current


def matches(expected: tuple[str, ...], printed: str) -> bool:
    """Whether this was printed; `...` stands for any text, on a line of its own for any lines."""
    pattern = ""
    for line in expected:
        if line == "...":
            pattern += r"(?:[^\n]*\n)*"
        else:
            pattern += r"[^\n]*".join(map(re.escape, line.split("..."))) + r"\n"
    return re.fullmatch(pattern, printed) is not None
