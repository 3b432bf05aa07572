"""Looks whether every link within the built site leads somewhere: Sphinx does not, for ours."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from html import unescape
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

__all__ = ["broken_links"]

_LINK = re.compile(r'<a\b[^>]*?\bhref="([^"]*)"')
_ID = re.compile(r'\bid="([^"]*)"')
_OUTSIDE = re.compile(r"[a-z]+:")


def broken_links(site: Path, names: Iterable[str]) -> Iterator[str]:
    """Yield what is wrong, page by page: no such page, or no such anchor on it.

    `names` are the pages, as files within `site`; what else lies there is of an earlier build.
    """
    pages = {name: (site / name).read_text(encoding="utf-8") for name in names}
    anchors = {page: {unescape(one) for one in _ID.findall(text)} for page, text in pages.items()}
    for page, text in sorted(pages.items()):
        for link in sorted({unescape(one) for one in _LINK.findall(text)}):
            if not _OUTSIDE.match(link):
                path, _, anchor = link.partition("#")
                target = _resolved(page, unquote(path)) if path else page
                if target not in pages and not (site / target).is_file():
                    yield f"{page}: no such page: {link}"
                elif anchor and target in anchors and unquote(anchor) not in anchors[target]:
                    yield f"{page}: no such anchor: {link}"


def _resolved(page: str, path: str) -> str:
    parts: list[str] = list(PurePosixPath(page).parts[:-1])
    for part in path.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)
