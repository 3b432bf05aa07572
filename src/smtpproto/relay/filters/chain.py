"""Filters in their order, and what follows from what they answer.

At each stage those that want to be asked are, one after the other, until one refuses, or accepts
for good. Every answer is a `Finding`: told to the log, and written into the message.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Literal

import anyio
from attrs import frozen

from smtpproto.core.reply import Reply

from .seam import Accept, Answer, Filter, Finding, Quarantine, Refuse, Seen, Stage, Tag, Tagging

__all__ = ["FIELD", "Chain", "No", "Outcome", "words_of"]

log = logging.getLogger(__name__)

#: The field in which a message says what the filters found.
FIELD = "X-Filtered"

NOT_NOW = Reply(451, "4.7.1", "A check of this mail could not be made, try again later")
#: What is kept of each stage of one message, and written into it.
MAX_FINDINGS = 50
WIDTH = 77  # octets a line wants to stay within, CRLF not counted (RFC 5322 §2.1.1)

#: Of whom a finding holds: for all that follows in the session, or for one transaction.
_SESSION = {Stage.CONNECT, Stage.HELO}


@frozen
class No:
    """A refusal, and what led to it."""

    reply: Reply
    finding: Finding


@frozen
class Outcome:
    """What the filters make of a message: what to write in front of it, and whether to hold it.

    `removed` are the names of fields that are ours to write, and not the stranger's it came from.
    """

    fields: bytes
    quarantine: str | None
    removed: frozenset[str] = frozenset()


class Chain:
    """Asks `filters` in this order, each for `seconds` at most, and for `altogether` at one stage.

    `failing` says what is done where one of them fails or is too slow: "pass" goes on without it,
    "defer" answers 451. `hostname` is ours.
    """

    def __init__(
        self,
        filters: Sequence[Filter],
        *,
        hostname: str,
        seconds: float = 30,
        altogether: float = 60,
        failing: Literal["pass", "defer"] = "pass",
    ) -> None:
        self._filters = {
            stage: [each for each in filters if stage in each.stages] for stage in Stage
        }
        self._ours = frozenset(
            {
                FIELD,
                *(name for each in filters if isinstance(each, Tagging) for name in each.fields),
            }
        )
        self._hostname = hostname
        self._seconds = seconds
        self._altogether = altogether
        self._failing = failing

    def wants(self, stage: Stage) -> bool:
        """Tell whether any filter is asked at a stage."""
        return bool(self._filters[stage])

    async def judge(self, stage: Stage, seen: Seen) -> No | None:
        """Ask at a stage; None is to go on.

        `seen.findings` are those that hold; it is brought up to date here. What led to a refusal
        is not among them: nothing comes of it. Nor is what was found of a recipient who is refused.
        """
        seen.findings = tuple(f for f in seen.findings if _holds(f, stage))
        if any(isinstance(f.answer, Accept) and _covers(f.stage, stage) for f in seen.findings):
            return None
        before = seen.findings
        ends = anyio.current_time() + self._altogether  # nobody waits for our greeting for long
        for each in self._filters[stage]:
            seconds = min(self._seconds, ends - anyio.current_time())
            finding = await self._ask(each, stage, seen, seconds)
            no = self._refused(finding)
            if no is not None:
                if stage is Stage.RCPT:
                    seen.findings = before
                return no
            seen.findings = _with(seen.findings, finding)
            if isinstance(finding.answer, Accept):
                break
        return None

    def _refused(self, finding: Finding) -> No | None:
        if isinstance(finding.answer, Refuse):
            return No(finding.answer.reply, finding)
        if finding.failed is not None and self._failing == "defer":
            return No(NOT_NOW, finding)
        return None

    async def _ask(self, each: Filter, stage: Stage, seen: Seen, seconds: float) -> Finding:
        answer: Answer | None = None
        failed: str | None = "it took too long"
        with anyio.move_on_after(seconds):
            try:
                answer = await each.judge(stage, seen)
                failed = None
            except Exception as error:  # noqa: BLE001 - a filter's fault is not the mail's
                failed = f"{type(error).__name__}: {error}"
        if failed is not None:
            log.error("the filter %s did not answer at %s: %s", each.name, stage.value, failed)
        return Finding(each.name, stage, answer, failed)

    def outcome(self, seen: Seen) -> Outcome:
        """Return what follows for the message that all of them let pass."""
        fields: list[str] = []
        removed = set(self._ours)
        quarantine: str | None = None
        for finding in seen.findings:
            match finding.answer:
                case Tag(_, tags):
                    fields += [_field(name, [value]) for name, value in tags]
                    removed.update(name for name, _ in tags)
                case Quarantine(reason):
                    quarantine = quarantine or f"{finding.filter}: {reason}"
                case _:
                    pass
        if seen.findings:
            parts = [self._hostname, *map(words_of, seen.findings)]
            fields.insert(0, _field(FIELD, [f"{part};" for part in parts[:-1]] + parts[-1:]))
        return Outcome("".join(fields).encode("ascii"), quarantine, frozenset(removed))


def _with(findings: tuple[Finding, ...], finding: Finding) -> tuple[Finding, ...]:
    """Add one that says something new; a thousand recipients that pass are one.

    So are several stages at which one filter has no objection: it is told where it was asked last.
    Those of one stage crowd out none of another, and nothing crowds out the first Quarantine.
    """
    if finding in findings:
        return findings
    if _passes(finding):
        findings = tuple(f for f in findings if not (_passes(f) and f.filter == finding.filter))
    quarantine = isinstance(finding.answer, Quarantine)
    alike = [
        each
        for each in findings
        if (isinstance(each.answer, Quarantine) if quarantine else each.stage is finding.stage)
    ]
    return (*findings, finding) if len(alike) < MAX_FINDINGS else findings


def _passes(finding: Finding) -> bool:
    return finding.answer is None and finding.failed is None


def _holds(finding: Finding, stage: Stage) -> bool:
    """Tell whether a finding says something at this stage: a new HELO or MAIL makes old ones void.

    A message that has come is the transaction's last stage; whoever is next begins with MAIL.
    """
    if stage is Stage.CONNECT:
        return False
    if stage is Stage.HELO:
        return finding.stage is Stage.CONNECT
    return stage is not Stage.MAIL or finding.stage in _SESSION


def _covers(accepted: Stage, stage: Stage) -> bool:
    """Tell whether an Accept spares the filters of a stage: who is known is not asked again."""
    return accepted in _SESSION or (accepted is Stage.MAIL and stage is not Stage.MAIL)


def words_of(finding: Finding) -> str:
    """Say a finding on one line: `dnsbl=refuse (listed at zen.example)`."""
    word, reason = _word(finding)
    said = f"{finding.filter}={word}"
    return f"{said} ({_comment(reason)})" if reason else said


def _word(finding: Finding) -> tuple[str, str]:
    match finding.answer:
        case None:
            return ("pass", "") if finding.failed is None else ("error", finding.failed)
        case Refuse(reply, reason):
            said = b" ".join(reply.lines).decode("ascii", "replace")
            return "refuse" if reply.code >= 500 else "defer", reason or said
        case Accept(reason):
            return "accept", reason
        case Tag(reason, _):
            return "tag", reason
        case Quarantine(reason):
            return "quarantine", reason


def _comment(text: str) -> str:
    """Write text as the inside of a comment (RFC 5322 §3.2.2) that stays on its line."""
    text = "".join(c if c.isascii() and c.isprintable() else "?" for c in text)[:200]
    return text.replace("\\", "/").replace("(", "[").replace(")", "]").replace(";", ",")


def _field(name: str, parts: Sequence[str]) -> str:
    lines: list[str] = []
    line = f"{name}:"
    for part in parts:
        clean = "".join(c if c.isascii() and c.isprintable() else "?" for c in part)[:900]
        if len(line) + 1 + len(clean) > WIDTH and line.strip() != f"{name}:":
            lines.append(line)
            line = ""
        line += f" {clean}"
    return "\r\n".join([*lines, line]) + "\r\n"
