"""`send --count N --sessions S`: the same message many times, and how fast that went."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import anyio
from attrs import define, field
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from smtpproto.client import Client
from smtpproto.core.envelope import Envelope
from smtpproto.result import ClientError, Fate, RefusedError

from .compose import Draft
from .console import err, per_second, reply_text, safe
from .words import explain

__all__ = ["Tally", "flood"]

#: Failures to have a session, one after the other, after which a worker gives up.
PATIENCE = 3
#: Different reasons that are kept; servers like to put an ever new identity into each reply.
REASONS = 100
#: Seconds between two looks at the bar; each costs as much as a message.
REFRESH = 0.1


@define
class Tally:
    """What became of many messages.

    One is `accepted` when all its recipients were, `failed` when it was never or only perhaps
    handed over, and else `refused`.
    """

    accepted: int = 0
    refused: int = 0
    failed: int = 0
    seconds: float = 0.0
    fates: set[Fate] = field(factory=set[Fate])
    reasons: Counter[str] = field(factory=Counter[str])

    @property
    def done(self) -> int:
        return self.accepted + self.refused + self.failed

    @property
    def handed_over(self) -> int:
        """How many the server has judged."""
        return self.accepted + self.refused

    def line(self) -> str:
        """Return the one line that says it all."""
        return (
            f"{self.accepted} accepted, {self.refused} refused, {self.failed} failed "
            f"in {self.seconds:.2f} s ({per_second(self.handed_over, self.seconds)})"
        )

    def no_session(self, error: ClientError) -> None:
        """Count a message for which there was no session."""
        self.failed += 1
        self.fates.add(Fate.TRANSIENT)
        if isinstance(error, RefusedError):
            self.because(f"{error.step}: {reply_text(error.reply)}")
        else:
            self.because(safe(explain(error)))

    def because(self, reason: str, times: int = 1) -> None:
        """Remember why."""
        if reason in self.reasons or len(self.reasons) < REASONS:
            self.reasons[reason] += times


async def flood(
    client: Callable[[Callable[[str], None] | None], Client],
    envelope: Envelope,
    draft: Draft,
    *,
    count: int,
    sessions: int,
    trace: Callable[[str], None] | None = None,
) -> Tally:
    """Send `count` copies over at most `sessions` sessions at once, each kept while it lasts.

    A progress bar is on the error console if that is a terminal. LocalProtocolError, perhaps in
    a group, for what cannot be sent at all.
    """
    tally = Tally()
    numbers = iter(range(1, count + 1))
    console = err()
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[refused]} refused", style="warn"),
        TextColumn("{task.fields[failed]} failed", style="bad"),
        TimeRemainingColumn(),
    )
    began = time.monotonic()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=count, rate="", refused=0, failed=0)

        def show() -> None:
            now = time.monotonic()
            if progress.disable or now - began - tally.seconds < REFRESH:
                return
            tally.seconds = now - began
            progress.update(
                bar,
                completed=tally.done,
                rate=per_second(tally.handed_over, tally.seconds),
                refused=tally.refused,
                failed=tally.failed,
            )

        async def work(worker: int) -> None:
            named = None if trace is None else _named(trace, worker, sessions)
            failures = 0
            number = next(numbers, None)
            while number is not None and failures < PATIENCE:
                try:
                    async with client(named) as session:
                        while number is not None and session.usable:
                            await _one(session, envelope, draft.octets_for(number), tally)
                            failures = 0
                            show()
                            number = next(numbers, None)
                except ClientError as error:
                    failures += 1
                    tally.no_session(error)
                    show()
                    number = next(numbers, None)

        async with anyio.create_task_group() as workers:
            for worker in range(min(sessions, count)):
                workers.start_soon(work, worker + 1)
    if tally.done < count:  # nobody was left to try
        tally.because("not tried, after that", count - tally.done)
        tally.failed += count - tally.done
    tally.seconds = time.monotonic() - began
    return tally


def _named(trace: Callable[[str], None], worker: int, sessions: int) -> Callable[[str], None]:
    return trace if sessions == 1 else lambda line: trace(f"{line}  [{worker}]")


async def _one(session: Client, envelope: Envelope, content: bytes, tally: Tally) -> None:
    result = await session.deliver(envelope, content)
    fates = {outcome.fate for outcome in result.outcomes}
    tally.fates |= fates
    lost = [outcome for outcome in result.outcomes if outcome.reply is None]
    if result.all_accepted:
        tally.accepted += 1
    elif lost:
        tally.failed += 1
    else:
        tally.refused += 1
    for outcome in result.outcomes:
        if not outcome.accepted:
            tally.because(reply_text(outcome.reply) if outcome.reply else safe(outcome.reason))
