"""The little reStructuredText that the generated pages are written in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

__all__ = ["Pages", "escape", "heading", "link", "prose", "table"]

_CODE = re.compile(r"`([^`]+)`")


def escape(text: str) -> str:
    """Make text that means itself."""
    return re.sub(r"([\\*`_|<>])", r"\\\1", text)


def prose(text: str) -> str:
    """Make text of a sentence in which `code` stands between single backticks."""
    parts = _CODE.split(text)
    # Code as a literal, set apart from its neighbours by escaped spaces.
    return "".join(
        rf"\ ``{part}``\ " if number % 2 else escape(part) for number, part in enumerate(parts)
    )


def heading(text: str, mark: str) -> str:
    """Make a heading; `mark` says of which level."""
    return f"{text}\n{mark * len(text)}\n\n"


def link(text: str, page: str, anchor: str = "") -> str:
    """Link to an anchor of a page, both as this extension made them; `page` without suffix."""
    target = f"{page}#{anchor}" if anchor else page
    return f":at:`{escape(text)} <{target}>`"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], name: str = "") -> str:
    """Make a table; cells are reStructuredText."""
    lines = [".. list-table::", "   :header-rows: 1", f"   :class: {name or 'plain'}", ""]
    for row in (head, *rows):
        for number, cell in enumerate(row):
            first, *others = cell.split("\n")
            lines.append(f"   {'-' if number else '* -'} {first}".replace("   - ", "     - ", 1))
            lines += [f"       {other}" for other in others]
    return "\n".join(lines) + "\n\n"


class Pages:
    """Writes pages into a folder: those that have changed, so that Sphinx reads no other anew."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._written: set[Path] = set()

    def write(self, name: str, text: str) -> None:
        """Write one page."""
        path = self.folder / name
        self._written.add(path)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")

    def sweep(self) -> None:
        """Remove what an earlier build wrote and this one did not."""
        for path in self.folder.rglob("*"):
            if path.is_file() and path not in self._written:
                path.unlink()
