"""Makes `docs/reference/differences.md` of the cases and the record."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from .case import Case, escaped
from .cases import THEMES
from .play import Cut, Handshake, Step
from .record import CASES, Answer, Observation
from .servers import LIMIT, REFUSED, STRICT

__all__ = ["AIOSMTPD", "OURS", "PAGE", "POSTFIX", "POSTFIX_STRICT", "render"]

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "differences.md"

OURS, AIOSMTPD, POSTFIX, POSTFIX_STRICT = "smtpproto", "aiosmtpd", "Postfix", "Postfix, strict"
#: Those that are compared; the last is the same program, told to be strict.
_COMPARED = (OURS, AIOSMTPD, POSTFIX)

_INTRODUCTION = """\
# Where servers differ

The same {count} dialogues, said to three servers over a real socket: ours, aiosmtpd and Postfix's
smtpd; to Postfix a second time with stricter settings. The page is made by
`python -m tests.differential --write`, and the tests hold it to what our server does now, and to
what the others do where their versions are the same.

How to read it:

- *Permitted* is what the clause permits: codes between slashes, any of `5yz`, one behind the
  other between commas, whole alternatives between bars, `…` for anything. § alone is RFC 5321.
  **What the clause does not permit is bold.** Where a rule of the grammar is broken and no clause
  says what a server does then, it may refuse, and it may understand: that is *free*.
- A dialogue begins behind what *after* says, and ends with QUIT, whose answer is left out.
  *closed*: the server closed the connection without being asked. Steps stand between arrows:
  each leaves in one write, and a reply is awaited before the next.
- What arrived is counted; *changed* says that it was not what was sent. Postfix delivers to a
  file, so its line ends are read as CRLF.
- Every server takes all mail but for `{refused}`, messages up to {limit} octets, and one
  login. Else all have their defaults, but for what keeps DNS, waiting and the host's
  configuration out; ours offers SMTPUTF8, too. Postfix asks Dovecot about logins, so that the
  rows on AUTH say as much of Dovecot.
- *Strict* is {strict}.
  Postfix 3.9 and later have the first by default.
"""


def render(record: Mapping[str, Observation]) -> str:
    """Write the page."""
    strict = ", ".join(f"`{key} = {value}`".replace(" `", "`") for key, value in STRICT.items())
    page = [
        _INTRODUCTION.format(count=len(CASES), refused=REFUSED, limit=f"{LIMIT:,}", strict=strict),
        *_summary(record),
    ]
    names = [
        name if name == POSTFIX_STRICT else f"{name} {seen.version}"
        for name, seen in record.items()
    ]
    for theme, cases in THEMES.items():
        head = ["case", "after", "sent", *names, "permitted", "right", "by"]
        page += ["", f"## {theme}", "", _row(head), _row(["---"] * len(head))]
        page += [_row(_cells(case, record)) for case in cases]
    return "\n".join(page) + "\n"


def _summary(record: Mapping[str, Observation]) -> list[str]:
    agree, free, against = _sorts(CASES, record)
    lines = [
        f"Of {len(CASES)} cases the three agree in {agree}; in {free} they differ and all are",
        f"permitted to; in {against} at least one of them does what the clause does not permit.",
        "",
        _row(["server", "version", "announces", "cases", "permitted", "not permitted"]),
        _row(["---"] * 6),
    ]
    for name, seen in record.items():
        good = sum(_permits(case, seen) is True for case in CASES)
        bad = sum(_permits(case, seen) is False for case in CASES)
        offers = ", ".join(sorted(seen.offers))
        lines.append(_row([name, seen.version, offers, f"{good + bad}", f"{good}", f"{bad}"]))
    head = ["theme", "cases", "agree", "free", *(f"{name}: not permitted" for name in record)]
    lines += ["", _row(head), _row(["---"] * len(head))]
    for theme, cases in THEMES.items():
        agree, free, _ = _sorts(cases, record)
        bad_of = (sum(_permits(case, seen) is False for case in cases) for seen in record.values())
        link = f"[{theme}](#{theme.lower().replace(' ', '-')})"
        lines.append(_row([link, *map(str, (len(cases), agree, free)), *map(str, bad_of)]))
    lines += ["", "What is not permitted, by server:", ""]
    lines += [f"- {name}: {_against(seen) or 'nothing'}." for name, seen in record.items()]
    return lines


def _against(seen: Observation) -> str:
    """Name the cases, under their themes, where a server does what it may not."""
    found = {
        theme: [case.name for case in cases if _permits(case, seen) is False]
        for theme, cases in THEMES.items()
    }
    return "; ".join(f"*{theme}*: {', '.join(names)}" for theme, names in found.items() if names)


def _sorts(cases: Sequence[Case], record: Mapping[str, Observation]) -> tuple[int, int, int]:
    """Count the cases where the three agree, differ and may, and where one does what it may not."""
    sorts = [_sort(case, record) for case in cases]
    return sorts.count("agree"), sorts.count("free"), sorts.count("against")


def _sort(case: Case, record: Mapping[str, Observation]) -> str:
    compared = [record[name] for name in _COMPARED]
    if any(_permits(case, seen) is False for seen in compared):
        return "against"
    answers = (seen.answers.get(case.name) for seen in compared)
    outcomes = {_outcome(answer) for answer in answers if answer is not None}
    return "agree" if len(outcomes) == 1 else "free"


def _outcome(answer: Answer) -> tuple[object, ...]:
    """What two answers are compared by: enhanced statuses are advice."""
    return tuple(word.split()[0] for word in answer.words), answer.contents


def _permits(case: Case, seen: Observation) -> bool | None:
    answer = seen.answers.get(case.name)
    return None if answer is None else case.permits(answer.words, answer.contents)


def _cells(case: Case, record: Mapping[str, Observation]) -> list[str]:
    by = f"{case.clause}: {case.why}"
    if case.by_design:
        by += f" Ours does not, by design: {case.by_design}"
    return [
        case.name,
        case.after,
        _sent(case),
        *(_answered(case, seen) for seen in record.values()),
        case.demand,
        _right(case, record),
        by,
    ]


def _answered(case: Case, seen: Observation) -> str:
    answer = seen.answers.get(case.name)
    if answer is None:
        return "not offered"
    text = f"{answer}"
    if answer.contents:
        count = len(answer.contents)
        text += f"; {count} message{'s' * (count > 1)}"
        if case.contents and any(content != case.contents[0] for content in answer.contents):
            text += ", changed"
    return text if _permits(case, seen) else f"**{text}**"


def _right(case: Case, record: Mapping[str, Observation]) -> str:
    match _sort(case, record):
        case "agree":
            return "all"
        case "free":
            return "all: free"
    right = [name for name, seen in record.items() if _permits(case, seen)]
    return "; ".join(right) or "none"


def _sent(case: Case) -> str:
    if case.shown:
        return _code(case.shown)
    return " → ".join(_step(step) for step in case.sends)


def _step(step: Step) -> str:
    match step:
        case Handshake():
            return "TLS handshake"
        case Cut():
            return f"{_code(escaped(step.octets))} and the end" if step.octets else "the end"
        case _:
            return _code(escaped(step.removesuffix(b"\r\n")))


def _code(text: str) -> str:
    if not text:
        return "nothing"
    return f"`` {text} ``" if "`" in text or text != text.strip() else f"`{text}`"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
