"""The seam: a `Filter` is asked at the stages it names, and answers with what is to be done.

class NoMondays:
    name = "no-mondays"
    stages = frozenset({Stage.MAIL})

    async def judge(self, stage: Stage, seen: Seen) -> Answer | None:
        monday = time.gmtime(seen.now).tm_wday == 0
        return Refuse(Reply(450, "4.7.1", "Not on Mondays")) if monday else None
"""

from __future__ import annotations

import re
from collections.abc import Collection
from enum import Enum
from typing import Protocol, TypeAlias, runtime_checkable

from attrs import define, field, frozen

from smtpproto.core.command import Mail, Rcpt
from smtpproto.core.reply import Reply
from smtpproto.handler import Session

from .held import Held

__all__ = [
    "Accept",
    "Answer",
    "Filter",
    "Finding",
    "Quarantine",
    "Refuse",
    "Seen",
    "Stage",
    "Tag",
    "Tagging",
]


_FIELD_NAME = re.compile(r"[!-9;-~]{1,70}")


class Stage(Enum):
    """When a filter is asked: each time with more to look at."""

    CONNECT = "connect"
    HELO = "helo"
    MAIL = "mail"
    RCPT = "rcpt"
    CONTENT = "content"


@frozen
class Accept:
    """No filter behind this one needs to be asked.

    Not for the rest of the session (at CONNECT and HELO), of the transaction (at MAIL), for this
    recipient (at RCPT), for this message (at CONTENT).
    """

    reason: str


@frozen
class Refuse:
    """Say no: 5yz refuses, 4yz defers. `reason` is for the log; None: the reply's text."""

    reply: Reply
    reason: str | None = None


@frozen
class Tag:
    """Go on, and let it be seen: `fields` are put in front of the message, as (name, value).

    ValueError for what can be no field's name (RFC 5322 §2.2).
    """

    reason: str
    fields: tuple[tuple[str, str], ...] = ()

    def __attrs_post_init__(self) -> None:
        for name, _ in self.fields:
            if _FIELD_NAME.fullmatch(name) is None:
                raise ValueError(f"{name!r} is no name of a field")


@frozen
class Quarantine:
    """Take the message, and keep it in the queue until the operator lets it go."""

    reason: str


Answer: TypeAlias = Accept | Refuse | Tag | Quarantine


@frozen
class Finding:
    """What one filter answered at one stage; `answer` None is no objection.

    `failed`: it did not answer, for this reason in words.
    """

    filter: str
    stage: Stage
    answer: Answer | None = None
    failed: str | None = None


@define
class Seen:
    """What there is to look at, and what was found so far; one for each session.

    `now` is wall time in seconds since the epoch, `helo` the name the client gives. `trusted`: the
    client has logged in, or its network may relay. `mail` is the sender from MAIL on, `rcpt` the
    recipient that is judged at RCPT, `rcpts` those accepted before it, and `content` what has come
    at CONTENT. `id` is the message's in the queue, from CONTENT on.
    """

    session: Session
    now: float
    helo: str = ""
    trusted: bool = False
    mail: Mail | None = None
    rcpt: Rcpt | None = None
    rcpts: tuple[Rcpt, ...] = ()
    content: Held | None = None
    id: str = ""
    findings: tuple[Finding, ...] = field(default=())


class Filter(Protocol):
    """One opinion on clients and their mail."""

    @property
    def name(self) -> str:
        """What it is called in the log, and in the message: an atom (RFC 5322 §3.2.3)."""
        ...

    @property
    def stages(self) -> Collection[Stage]:
        """When it wants to be asked."""
        ...

    async def judge(self, stage: Stage, seen: Seen) -> Answer | None:
        """Say what is to be done; None is no objection.

        What it raises, and taking too long, is a failure: see `Chain`.
        """
        ...


@runtime_checkable
class Tagging(Protocol):
    """A filter that writes fields of its own, and tells which.

    A message that comes with such fields loses them, whatever this filter says of it: who sorts by
    them goes by ours. Of a filter that does not tell, those are removed that it writes.
    """

    @property
    def fields(self) -> Collection[str]:
        """Return the names of all that its `Tag` may have (RFC 5322 §2.2)."""
        ...
