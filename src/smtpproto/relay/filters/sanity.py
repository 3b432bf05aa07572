"""A header that is none: what RFC 5322 asks of every message, and most of what is broken lacks."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from email.utils import parsedate_to_datetime
from typing import Literal

from attrs import field, frozen

from smtpproto.core.reply import Reply
from smtpproto.trace import END_OF_HEADER

from .seam import Answer, Refuse, Seen, Stage, Tag

__all__ = ["HeaderSanity"]

#: Octets of a header that are looked at; one that is longer is at fault.
LOOKED_AT = 1 << 18
#: Fields of which there is one at most (RFC 5322 §3.6).
ONCE = b"date from sender reply-to to cc bcc message-id in-reply-to references subject".split()
#: Octets that a line may have, CRLF not counted (RFC 5322 §2.1.1).
LONGEST = 998

_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:")
_LINE_END = re.compile(rb"\r?\n")


@frozen
class HeaderSanity:
    """Looks at the header of a message: "refuse" it, or "tag" it.

    One From, one Date that can be read, no field twice that may be there once, no line that is no
    field, nothing over 998 octets, no header without an end (RFC 5322 §2.1.1, §2.2, §3.6).
    """

    does: Literal["refuse", "tag"] = "refuse"
    name: str = "header"
    stages: Collection[Stage] = field(default=frozenset({Stage.CONTENT}), init=False)

    async def judge(self, stage: Stage, seen: Seen) -> Answer | None:
        """Judge the message by its header."""
        if seen.content is None:
            return None
        fault = fault_of(await seen.content.beginning(LOOKED_AT), whole=seen.content.octets)
        if fault is None:
            return None
        if self.does == "tag":
            return Tag(fault)
        return Refuse(Reply(550, "5.6.0", f"The header is at fault: {fault}"), fault)


def fault_of(beginning: bytes, *, whole: int) -> str | None:
    """Say what is wrong with a header, by the beginning of its message; None if nothing is.

    `whole` is how many octets the message has.
    """
    end = END_OF_HEADER.search(beginning)
    if end is None and len(beginning) < whole:
        return f"it has more than {len(beginning)} octets"
    lines = _LINE_END.split(beginning if end is None else beginning[: end.start()])
    count: Counter[bytes] = Counter()
    dates: list[bytes] = []
    name = b""
    for line in lines:
        if len(line) > LONGEST:
            return f"a line has more than {LONGEST} octets"
        if not line:
            continue
        if name and line[:1] in b" \t":
            if name == b"date":
                dates[-1] += b" " + line.strip()  # folded (RFC 5322 §2.2.3)
            continue
        match = _FIELD.match(line)
        if match is None:
            return "a line is no field"
        name = match[1].lower()
        count[name] += 1
        if name == b"date":
            dates.append(line[match.end() :].strip())
    for name in ONCE:
        if count[name] > 1:
            return f"{count[name]} fields {name.decode().title()}"
    if not count[b"from"]:
        return "no field From"
    if not dates:
        return "no field Date"
    try:
        parsedate_to_datetime(dates[0].decode("ascii", "replace"))
    except (ValueError, TypeError, OverflowError):
        return "a Date that is no date"
    return None
