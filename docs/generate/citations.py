"""Where the source cites which clause: comments, docstrings and messages are read, code is not."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

__all__ = ["Citation", "citations_of", "cited", "sections"]


@frozen
class Citation:
    """A mention of an RFC, or of one of its sections (else empty), at a line of a file."""

    rfc: int
    section: str
    file: str
    line: int


_NUMBER = r"[0-9]+(?:\.[0-9]+)*(?:-[0-9]+)?"
#: `RFC 5321`, `RFCs 3463, 5248`; then `§4.1.2-3`, `§§5.1, 9`, or ` section 4` behind an RFC.
MENTION = re.compile(
    r"RFCs?[ \n]+(?P<rfcs>[0-9]{3,5}(?:(?:,| and)[ \n][0-9]{4}(?![0-9]))*)"
    rf"|§§ ?(?P<list>{_NUMBER}(?:(?:, | and ){_NUMBER})*)"
    rf"|§ ?(?P<one>{_NUMBER})"
    rf"|(?<=[0-9])[ \n]section (?P<word>{_NUMBER})"
)


def sections(text: str) -> list[str]:
    """Return the sections that `4.1.2-3` or `5.1, 9` stand for."""
    found: list[str] = []
    for one in re.findall(_NUMBER, text):
        first, _, last = one.partition("-")
        above, dot, number = first.rpartition(".")
        numbers = range(int(number), int(last or number) + 1)
        found += [f"{above}{dot}{each}" for each in numbers]
    return found


def cited(text: str, default: int | None) -> Iterator[tuple[int, str, int, int]]:
    """Find the mentions in a text: RFC, section, and from where to where they stand.

    A § without an RFC goes on with the one whose section was named last in this text; if there
    was none, it is of `default`, and nothing where that is None.
    """
    named: int | None = None
    current = default
    for match in MENTION.finditer(text):
        if match["rfcs"]:
            numbers = [int(number) for number in re.findall("[0-9]+", match["rfcs"])]
            named = numbers[-1]
            if not re.match(r"[ \n](?:§|section [0-9])", text[match.end() :]):
                for number in numbers:
                    yield number, "", *match.span()
                named = None
            continue
        if named is not None:
            current, named = named, None
        if current is not None:
            for section in sections(match["list"] or match["one"] or match["word"]):
                yield current, section, *match.span()


def citations_of(path: Path, file: str) -> list[Citation]:
    """Return the citations in one Python file, called `file` in them, in its order.

    A § alone, in a text that names no RFC with a section, is of the first RFC that the module's
    docstring names, or else of the last one named with a section further up.
    """
    code = path.read_text(encoding="utf-8")
    first = re.search(r"RFC[ \n]+([0-9]+)", ast.get_docstring(ast.parse(code)) or "")
    default = int(first[1]) if first else None
    found: list[Citation] = []
    for line, text in sorted(_texts(code)):
        last = next((c.rfc for c in reversed(found) if c.section), None)
        for rfc, section, start, _ in cited(text, default if default is not None else last):
            found.append(Citation(rfc, section, file, line + text.count("\n", 0, start)))
    return list(dict.fromkeys(found))


def _texts(code: str) -> Iterator[tuple[int, str]]:
    """Yield each run of comment lines and each string, with its first line."""
    comment: list[str] = []
    begun = 0
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type == tokenize.COMMENT:
            if comment and token.start[0] != begun + len(comment):
                yield begun, "\n".join(comment)
                comment = []
            if not comment:
                begun = token.start[0]
            comment.append(token.string.lstrip("#: "))
        elif token.type == tokenize.STRING or token.type == getattr(tokenize, "FSTRING_MIDDLE", -1):
            # Indentation goes, so that a mention may be broken at the end of a line.
            yield token.start[0], re.sub(r"\n[ \t]+", "\n", token.string)
    if comment:
        yield begun, "\n".join(comment)
