"""SASLprep (RFC 4013), and the trace profile of ANONYMOUS (RFC 4505 §3): stringprep, RFC 3454.

Both are bound to Unicode 3.2, which the standard library keeps for them.
"""

from __future__ import annotations

import stringprep
from collections.abc import Callable, Iterable
from typing import TypeAlias
from unicodedata import ucd_3_2_0 as unicode_3_2

from smtpproto.core.errors import GrammarError

__all__ = ["check_trace", "saslprep"]

Table: TypeAlias = Callable[[str], bool]

# RFC 4505 §3; SASLprep has two tables more (RFC 4013 §2.3).
_NOT_IN_TRACE: tuple[Table, ...] = (
    stringprep.in_table_c21_c22,  # control characters
    stringprep.in_table_c3,  # private use
    stringprep.in_table_c4,  # no characters
    stringprep.in_table_c5,  # surrogates
    stringprep.in_table_c6,  # inappropriate for plain text
    stringprep.in_table_c8,  # changing how others are displayed
    stringprep.in_table_c9,  # tags
)
_NOT_IN_NAMES: tuple[Table, ...] = (
    stringprep.in_table_c12,  # spaces other than the ASCII one
    stringprep.in_table_c7,  # inappropriate for canonical representation
    *_NOT_IN_TRACE,
)


def saslprep(text: str, *, stored: bool = False) -> str:
    """Return the one form of a user name or password that is compared (RFC 4013 §2).

    A `stored` string may hold no code points that Unicode 3.2 does not know, a query may
    (RFC 3454 §7). GrammarError for characters that names and passwords cannot have.
    """
    if text.isascii() and text.isprintable():
        return text
    mapped = "".join(
        " " if stringprep.in_table_c12(character) else character
        for character in text
        if not stringprep.in_table_b1(character)
    )
    prepared = unicode_3_2.normalize("NFKC", mapped)
    _refuse(prepared, _NOT_IN_NAMES)
    if stored:
        _refuse(prepared, (stringprep.in_table_a1,))
    return prepared


def check_trace(text: str) -> None:
    """Raise GrammarError for what cannot be left as a trace (RFC 4505 §3)."""
    _refuse(text, _NOT_IN_TRACE)


def _refuse(text: str, tables: Iterable[Table]) -> None:
    for table in tables:
        for character in text:
            if table(character):
                raise GrammarError(f"no name or password can hold {character!r}")
    # Right-to-left text stands alone, and begins and ends so (RFC 3454 §6).
    if any(map(stringprep.in_table_d1, text)) and (
        any(map(stringprep.in_table_d2, text))
        or not (stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1]))
    ):
        raise GrammarError("text of both directions in a name or password")
