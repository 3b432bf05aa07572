"""The statements of an RFC: its text cut into sections, sentences and ABNF productions.

    python tests/conformance/statements.py --rfcs DIR               what no row of the ledger covers
    python tests/conformance/statements.py --rfcs DIR 5321 4.5.2    each statement of one section

DIR holds the RFCs as `rfcNNNN.txt`; without `--rfcs` the variable SMTPPROTO_RFCS names it. No text
of an RFC is kept in this repository: the ledger has a digest of each statement, and this file finds
the statement again by it. Exit code 1: a statement is covered by no row, or a row's is gone.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.conformance.ledger import SCOPE, Ledger, in_scope, read_ledger

# What a page break leaves behind: the foot of one page and the head of the next.
_FOOT = re.compile(r"^\S.*\[Page \d+\]$")
_HEAD = re.compile(r"^RFC \d+ .*\b(?:19|20)\d\d$")
_HEADING = re.compile(r"^(\d+(?:\.\d+)*)\.?\s{1,3}(\S.*)$")
_PRODUCTION = re.compile(r"^\s*<?([A-Za-z][A-Za-z0-9-]*)>?\s*(?:=/?|::=)\s")
_ITEM = re.compile(r"^\s*(?:[o*+-]|\(?[0-9a-zA-Z]{1,2}[.)])\s+\S")
# A sentence ends where a capital, a digit or an opening mark follows its full stop …
_END = re.compile(r"(?<=[.!?])([\"')\]]*)\s+(?=[\"'(<\[]*[A-Z0-9])")
# … unless the stop is that of an abbreviation.
_ABBREVIATION = re.compile(r"(?:\b(?:e\.g|i\.e|cf|vs|etc|al|Sec|No|Inc|resp)|\b[A-Z])\.[\"')\]]*$")
_NORMATIVE = re.compile(
    r"\b(?:must|shall|should|may|required|requires?|recommended|optional|cannot|can not|can only"
    r"|permitted|prohibited|forbidden|allowed|illegal|invalid|has to|have to|need(?:s|ed)? to"
    r"|only if|ought to|obliged|mandatory|violation|it is (?:an error|important)|no more than)\b",
    re.IGNORECASE,
)
# These hardly use the words of RFC 2119 (older, or by habit): the future tense obliges there.
_FUTURE = frozenset({1870, 1985, 2033, 2034, 2852, 2920, 3030, 6152})
_WILL = re.compile(r"\bwill\b", re.IGNORECASE)


@attrs.frozen
class Statement:
    """A sentence or an ABNF production of one section."""

    rfc: int
    section: str
    text: str
    production: str | None = None

    @property
    def digest(self) -> str:
        """Eight hex digits of SHA-256 over the text with its white space made single."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:8]

    @property
    def normative(self) -> bool:
        """Whether it is a production or speaks of duty, permission or prohibition."""
        if self.production or _NORMATIVE.search(self.text):
            return True
        return self.rfc in _FUTURE and _WILL.search(self.text) is not None


def statements(rfc: int, text: str) -> Iterator[Statement]:
    """All statements of an RFC's text, in its order."""
    section = ""
    for block in _blocks(text):
        heading = _HEADING.match(block[0])
        if heading:
            section = heading[1]
        lines = block[1:] if heading else block  # a heading may stand directly over its text
        if section and lines:
            yield from _cut(rfc, section, lines)


def _blocks(text: str) -> Iterator[list[str]]:
    """Paragraphs as lists of lines; one that a page break cut in two is made whole."""
    block: list[str] = []
    gap = page = False  # what stands between the block and the next line
    for line in map(str.rstrip, text.expandtabs().splitlines()):
        if _FOOT.match(line) or _HEAD.match(line):
            page = True
        elif not line:
            gap = True
        else:
            if block and (gap or page) and not (page and _continues(block, line)):
                yield block
                block = []
            gap = page = False
            block.append(line)
    if block:
        yield block


def _continues(block: list[str], line: str) -> bool:
    """Whether `line`, the first of a page, goes on with a paragraph of the page before."""
    if _HEADING.match(line) or _ITEM.match(line) or _PRODUCTION.match(line):
        return False
    unfinished = re.search(r"[\w,;/)-]$", block[-1]) or line.lstrip()[0].islower()
    indent = len(line) - len(line.lstrip())
    return bool(unfinished) and abs(indent - _indent(block)) <= 4


def _indent(block: list[str]) -> int:
    return min(len(line) - len(line.lstrip()) for line in block)


def _cut(rfc: int, section: str, block: list[str]) -> Iterator[Statement]:
    run: list[str] = []
    production: str | None = None

    def done() -> Iterator[Statement]:
        text = " ".join(" ".join(run).split())
        if production:
            yield Statement(rfc, section, text, production)
        elif text:
            for sentence in _sentences(text):
                yield Statement(rfc, section, sentence)

    for line in block:
        named = _PRODUCTION.match(line)
        if named or (_ITEM.match(line) and production is None):
            yield from done()
            run, production = [], named[1] if named else None
        run.append(line)
    yield from done()


def _sentences(text: str) -> Iterator[str]:
    start = 0
    for end in _END.finditer(text):
        if not _ABBREVIATION.search(text[start : end.end(1)]):
            yield text[start : end.end(1)]
            start = end.end()
    yield text[start:]


@attrs.frozen
class Gap:
    """Where the ledger and an RFC's text disagree."""

    rfc: int
    section: str
    digest: str
    why: str


def gaps(rfc: int, text: str, ledger: Ledger) -> Iterator[Gap]:
    """Normative statements without a row, and digests of rows that no statement has."""
    known = ledger.digests(rfc)
    found: set[tuple[str, str]] = set()
    for statement in statements(rfc, text):
        key = (statement.section, statement.digest)
        found.add(key)
        if statement.normative and in_scope(rfc, statement.section) and key not in known:
            found.add(key)
            yield Gap(rfc, *key, f"no row: {statement.text}")
    for section, digest in sorted(known - found):
        yield Gap(rfc, section, digest, "the ledger has a digest that no statement here has")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rfcs", type=Path, default=os.environ.get("SMTPPROTO_RFCS"))
    parser.add_argument("--all", action="store_true", help="those that oblige nobody, too")
    parser.add_argument("rfc", nargs="?", type=int)
    parser.add_argument("section", nargs="?", default="", help="with all below it")
    given = parser.parse_args()
    if given.rfcs is None:
        parser.error("say where the RFCs are: --rfcs DIR or SMTPPROTO_RFCS")
    ledger = read_ledger()

    def text(rfc: int) -> str:
        return (Path(given.rfcs) / f"rfc{rfc}.txt").read_text(encoding="utf-8", errors="replace")

    if given.section:
        known = ledger.digests(given.rfc)
        for each in statements(given.rfc, text(given.rfc)):
            if f"{each.section}.".startswith(f"{given.section}.") and (given.all or each.normative):
                mark = "+" if (each.section, each.digest) in known else "-"
                print(f"{mark} {each.section} {each.digest} {each.text}\n")
        return 0
    open_ends = [
        gap for rfc in ([given.rfc] if given.rfc else SCOPE) for gap in gaps(rfc, text(rfc), ledger)
    ]
    for gap in open_ends:
        print(f"RFC {gap.rfc} §{gap.section} {gap.digest}: {gap.why}")
    print(f"{len(open_ends)} gaps", file=sys.stderr)
    return 1 if open_ends else 0


if __name__ == "__main__":
    sys.exit(main())
