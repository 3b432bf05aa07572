"""What is supported, as Markdown for the docs: `python -m smtpproto.extensions.table`."""

from __future__ import annotations

from collections.abc import Iterable

from smtpproto.core.extension import Extension

from . import STANDARD

__all__ = ["support_table"]

_HEAD = ("Keyword", "RFC", "MAIL", "RCPT", "Verbs", "Needs", "Offering it obliges you to")


def support_table(extensions: Iterable[Extension] = STANDARD) -> str:
    """Return one row for each extension; those that oblige to nothing are offered by default."""
    rows = [_HEAD, ("---",) * len(_HEAD)]
    rows += [
        (
            f"`{e.keyword}`",
            "none" if e.rfc is None else str(e.rfc),
            _code(p.keyword for p in e.mail),
            _code(p.keyword for p in e.rcpt),
            _code(verb.verb.decode() for verb in e.verbs),
            _code(e.needs),
            e.obliges,
        )
        for e in extensions
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _code(words: Iterable[str]) -> str:
    return " ".join(f"`{word}`" for word in words)


if __name__ == "__main__":
    print(support_table(), end="")
