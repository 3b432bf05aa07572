"""Go wrong on purpose: to test those who send.

::

    Faulty(handler, [Fault("RCPT", SOFT, times=1), Fault("DATA", delay=2), Fault(".", drop=True)])
"""

from __future__ import annotations

import random
import re
import weakref
from collections.abc import Callable, Iterable
from typing import Literal, TypeAlias

import anyio
from attrs import define, field, frozen

from smtpproto.core.command import AuthResponse, Command
from smtpproto.core.envelope import Envelope
from smtpproto.core.event import BadCommand
from smtpproto.core.reply import Reply, Severity
from smtpproto.core.server_connection import ACCEPTED
from smtpproto.handler import ContentStream, Handler, HangUp, Interceptor, Session, Welcomer

from .wrapper import Wrapper

__all__ = ["CLOSING", "HARD", "SOFT", "Asked", "Fault", "Faulty"]

#: Not now.
SOFT = Reply(450, "4.3.0", "Command failed, try again later")
#: Not at all.
HARD = Reply(550, "5.3.0", "Command failed")
#: Not now, and the connection is closed.
CLOSING = Reply(421, "4.3.2", "Service not available, closing the connection")

GREETING = Reply(220, None, "localhost ESMTP")

#: What a fault is about: a command, the envelope of some content, or None for the greeting.
Asked: TypeAlias = "Command | BadCommand | Envelope | None"

_AT = re.compile(r"[A-Z][A-Z0-9]*|\.")
#: More follows a good answer to these than a reply, so here they can only be refused.
_GO_ON = frozenset({"EHLO", "HELO", "LHLO", "DATA", "STARTTLS", "AUTH", "XCLIENT"})


def _at(value: str) -> str:
    at = value.upper()
    if _AT.fullmatch(at) is None:
        raise ValueError(f"no command, nor CONNECT, CONTENT or '.': {value!r}")
    return at


@frozen
class Fault:
    """One thing that goes wrong, and when.

    `at` is the verb of a command, `CONNECT` (before the greeting), `CONTENT` (behind the 354 to
    DATA, or behind the first BDAT), or `.` (the end of the content). What happens there, in this
    order:

    - `delay` seconds pass;
    - with `drop`, content is read and thrown away, though answered as if it were kept;
    - `reply` is said instead of the usual one, and nothing is accepted; CLOSING ends the session;
    - `cut` closes the connection: `before` the reply, `within` it, or `after` it. At `.`, content
      has been kept by then, unless dropped or refused: so `cut="before"` loses a good reply
      (RFC 1047). At CONTENT, `within` reads a piece of it first.

    It happens with probability `odds`, at most `times` in all, where `when` agrees; this gets the
    session and the command, at CONTENT and `.` the envelope, at CONNECT None.

    ValueError for a combination that SMTP has no place for: a good reply to EHLO, HELO, LHLO, DATA,
    STARTTLS, AUTH or XCLIENT, behind which more follows; one to BDAT; one within content, unless
    `cut` comes `after` it; `drop` of what is no content.
    """

    at: str = field(converter=_at)
    reply: Reply | None = None
    delay: float = field(default=0.0, kw_only=True)
    cut: Literal["before", "within", "after"] | None = field(default=None, kw_only=True)
    drop: bool = field(default=False, kw_only=True)
    odds: float = field(default=1.0, kw_only=True)
    times: int | None = field(default=None, kw_only=True)
    when: Callable[[Session, Asked], bool] | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        good = self.reply is not None and self.reply.severity < Severity.TRANSIENT
        if good and self.at in _GO_ON and self.cut is None:
            raise ValueError(f"more follows {self.at} than a good reply; refuse it, or cut")
        if self.reply is not None and self.at == "BDAT":
            raise ValueError("a chunk is answered behind its octets: refuse the content at '.'")
        if self.at == "CONTENT" and (self.reply is None) != (self.cut != "after"):
            raise ValueError("within content there is no reply, but one to cut after")
        if self.drop and self.at != ".":
            raise ValueError("only content can be dropped: at '.'")
        if not 0 <= self.odds <= 1:
            raise ValueError(f"no probability: {self.odds}")
        if self.delay < 0 or (self.times is not None and self.times < 0):
            raise ValueError("neither a delay nor a number of times is negative")

    @property
    def decides(self) -> bool:
        """Whether it does more than wait."""
        return self.reply is not None or self.cut is not None or self.drop


class Faulty(Wrapper):
    """A handler that does what `handler` does, but for `faults`.

    Of several faults at one place, all that wait do so, and the first that does more is the last.
    The same `seed` draws the same lots for the same commands in a server's first session, in its
    second, and so on, whatever others do meanwhile. `faults` may be replaced at any time.
    """

    def __init__(self, handler: Handler, faults: Iterable[Fault] = (), *, seed: int = 0) -> None:
        super().__init__(handler)
        self.faults = tuple(faults)
        self._seed = seed
        self._dice: dict[int, random.Random] = {}

    @property
    def faults(self) -> tuple[Fault, ...]:
        """The faults in force. Those that are set have not happened yet."""
        return tuple(plan.fault for plan in self._plans)

    @faults.setter
    def faults(self, faults: Iterable[Fault]) -> None:
        self._plans = [_Plan(fault) for fault in faults]

    @property
    def happened(self) -> int:
        """How many times one of the faults in force has happened."""
        return sum(plan.happened for plan in self._plans)

    async def connect(self, session: Session) -> Reply | None:
        """Let the handler judge a connection, after the faults at CONNECT."""
        fault = await self._strike("CONNECT", session, None)
        reply = fault.reply if fault else None
        if reply is None and isinstance(self.handler, Welcomer):
            reply = await self.handler.connect(session)
        return _answer(fault, reply, GREETING)

    async def before(
        self, session: Session, command: Command | BadCommand, usual: Reply | None
    ) -> Reply | None:
        """Answer in the handler's place where there is a fault."""
        if isinstance(command, AuthResponse):
            return None
        verb = command.line.split(b" ")[0] if isinstance(command, BadCommand) else command.verb
        fault = await self._strike(verb.decode("ascii", "replace").upper(), session, command)
        reply = fault.reply if fault else None
        if reply is None and isinstance(self.handler, Interceptor):
            reply = await self.handler.before(session, command, usual)
        return _answer(fault, reply, usual)

    async def content(
        self, session: Session, envelope: Envelope, content: ContentStream
    ) -> Reply | None:
        """Let the handler have the content, if no fault at CONTENT or `.` has it."""
        begin = await self._strike("CONTENT", session, envelope)
        if begin is not None and begin.cut == "within":
            await anext(content, None)
        if begin is not None and begin.cut is not None:
            raise HangUp(begin.reply.serialize() if begin.reply else b"")
        drawn = self._draw(".", session, envelope)
        last = _decision(drawn)
        if last is not None and (last.drop or last.reply is not None):
            async for _ in content:
                pass
            reply = last.reply
        else:
            reply = await self.handler.content(session, envelope, content)
        await _wait(drawn)
        return _answer(last, reply, ACCEPTED)

    async def _strike(self, at: str, session: Session, asked: Asked) -> Fault | None:
        """Wait as the faults here want it; return the one that does more."""
        drawn = self._draw(at, session, asked)
        await _wait(drawn)
        return _decision(drawn)

    def _draw(self, at: str, session: Session, asked: Asked) -> list[Fault]:
        """Draw the faults that happen here: those that wait, and at most one that does more."""
        drawn: list[Fault] = []
        decided = False
        for plan in self._plans:
            fault = plan.fault
            if fault.at != at or plan.happened == fault.times or (decided and fault.decides):
                continue
            if fault.when is not None and not fault.when(session, asked):
                continue
            if fault.odds < 1 and self._die(session).random() >= fault.odds:
                continue
            plan.happened += 1
            drawn.append(fault)
            decided = decided or fault.decides
        return drawn

    def _die(self, session: Session) -> random.Random:
        die = self._dice.get(session.id)
        if die is None:
            die = random.Random(f"{self._seed} {session.id}")  # noqa: S311 - guards nothing
            self._dice[session.id] = die
            weakref.finalize(session, self._dice.pop, session.id, None).atexit = False
        return die


@define
class _Plan:
    fault: Fault
    happened: int = 0


def _decision(drawn: list[Fault]) -> Fault | None:
    return next((fault for fault in drawn if fault.decides), None)


async def _wait(drawn: list[Fault]) -> None:
    if seconds := sum(fault.delay for fault in drawn):
        await anyio.sleep(seconds)


def _answer(fault: Fault | None, reply: Reply | None, usual: Reply | None) -> Reply | None:
    """Return the reply, None for the usual one; or cut where the fault has it."""
    if fault is None or fault.cut is None:
        return reply
    said = reply or usual
    octets = said.serialize() if said is not None and fault.cut != "before" else b""
    raise HangUp(octets[: len(octets) // 2] if fault.cut == "within" else octets)
