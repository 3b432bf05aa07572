"""The loop that empties the spool: claim what is due, attempt it, and settle what became of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial

import anyio
from attrs import define, evolve, field

from smtpproto.core.command import Mail, Rcpt
from smtpproto.core.path import Mailbox
from smtpproto.deadline import is_stray
from smtpproto.extensions.dsn import NEVER, NOTIFY
from smtpproto.relay.mailboxes.verp import Verp, envelopes
from smtpproto.relay.reports.report import MAX_RETURNED, Failure, failure_report
from smtpproto.relay.reports.story import Failed, Observer, Reported
from smtpproto.relay.routing.schedule import DEFAULT, Schedule
from smtpproto.relay.spool.seam import Entry, Fresh, Recipient, Settlement, Spool, SpoolUnavailable
from smtpproto.result import Fate

from .attempt import Attempt
from .deliver import Deliverer
from .hands import Hands
from .times import deadline, release_asked
from .verdict import Verdict, envelope_id, judge, whole_wanted

__all__ = ["Dispatcher"]

log = logging.getLogger(__name__)

#: What a report to an address beyond ASCII is sent with (RFC 6531 §3.4).
IN_UTF8: Mapping[str, str | None] = {"BODY": "8BITMIME", "SMTPUTF8": None}
CUT_OFF = "the attempt was not brought to an end"


@define(eq=False)
class _Untold:
    """What one attempt at an envelope came to and nobody has been told yet."""

    entry: Entry
    verdicts: Sequence[Verdict]
    taken: bool = False
    written: bool = False
    done: anyio.Event = field(factory=anyio.Event)


@define(eq=False)
class _InHand:
    """A message that is being tried, and what has come of it so far."""

    entry: Entry
    #: Those of whom there is something to write down, until it is.
    left: dict[int, Recipient] = field(init=False)
    attempted: dict[int, Attempt] = field(factory=dict[int, Attempt], init=False)
    #: What is written down at the end, and whether there is more to come soon.
    waiting: list[Verdict] = field(factory=list[Verdict], init=False)
    soon: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.left = {recipient.number: recipient for recipient in self.entry.recipients}

    @property
    def unwritten(self) -> Entry:
        """The message for those alone that are still ours: others may be lent to the next."""
        ours = {*self.left, *(verdict.settlement.recipient for verdict in self.waiting)}
        rest = tuple(each for each in self.entry.recipients if each.number in ours)
        return evolve(self.entry, recipients=rest)


@define(eq=False)
class Dispatcher:
    """Works the spool until it is stopped.

    `clock` gives wall time in seconds since the epoch and `random` numbers in [0, 1). At most
    `workers` messages are attempted at a time, each for `patience` seconds, which the spool's
    `lease` has to outlast. `poll` is how long another process's `queue retry` may take to be
    noticed, and `drain` how long attempts may go on after `stop()`. What failed waits `together`
    seconds for the rest of its message where that is about to be tried: one report tells of all.
    `postmaster` is told what failed of mail without a sender; None: the observer alone is.
    """

    hostname: str
    deliverer: Deliverer
    spool: Spool
    clock: Callable[[], float]
    random: Callable[[], float]
    observe: Observer
    schedule: Schedule = DEFAULT
    workers: int = 500
    patience: float = 3600
    lease: float = 2 * 3600
    poll: float = 5.0
    drain: float = 30.0
    together: float = 10.0
    verp: Verp = field(factory=Verp)
    postmaster: Mailbox | None = None

    _more: anyio.Event = field(factory=anyio.Event, init=False)
    _stopping: bool = field(default=False, init=False)
    _busy: dict[int, Entry] = field(factory=dict[int, Entry], init=False)  # by Python's id()
    #: Recipients who are done, and the disk does not take it: a lease may end over that.
    _unwritten: set[tuple[str, int]] = field(factory=set[tuple[str, int]], init=False)
    _untold: dict[tuple[str, bytes], list[_Untold]] = field(
        factory=dict[tuple[str, bytes], list[_Untold]], init=False
    )

    def wake(self) -> None:
        """Say that something may be due: a message has come in, or a worker is free."""
        self._more.set()

    def stop(self) -> None:
        """Claim nothing more; `run` returns when the attempts under way have ended."""
        self._stopping = True
        self.wake()

    async def run(self) -> None:
        """Work until `stop()`, or cancellation; either way what was claimed is given back."""
        try:
            async with anyio.create_task_group() as tasks:
                hands = Hands(tasks, self._attempt, self._conclude, lambda: self.patience)
                while not self._stopping:
                    self._more = anyio.Event()
                    try:
                        for entry in await self._claim():
                            self._busy[id(entry)] = entry
                            hands.give(_InHand(entry))
                        wait = await self._nothing_due()
                    except SpoolUnavailable as error:
                        log.error("the spool cannot be used: %s", error)
                        wait = self.poll
                    with anyio.move_on_after(wait):
                        await self._more.wait()
                tasks.cancel_scope.deadline = anyio.current_time() + self.drain
                hands.dismiss()
        finally:
            if self._busy:
                with anyio.move_on_after(5, shield=True):
                    await self._release([*self._busy.values()])

    async def _claim(self) -> list[Entry]:
        room = self.workers - len(self._busy)
        claimed = [] if room <= 0 else await self.spool.claim(self.clock(), room, self.lease)
        if self._unwritten:
            claimed = [rest for entry in claimed if (rest := self._without_unwritten(entry))]
        return [part for entry in claimed for part in envelopes(entry, self.verp)]

    def _without_unwritten(self, entry: Entry) -> Entry | None:
        rest = [r for r in entry.recipients if (entry.id, r.number) not in self._unwritten]
        return evolve(entry, recipients=tuple(rest)) if rest else None

    async def _nothing_due(self) -> float:
        """Return for how many seconds there will be nothing to claim."""
        if len(self._busy) >= self.workers:
            return self.poll  # and no longer than until a worker is free
        due = await self.spool.next_due()
        return self.poll if due is None else min(max(due - self.clock(), 0.01), self.poll)

    async def _attempt(self, hand: _InHand) -> None:
        try:
            await self.deliverer.attempt(hand.entry, partial(self._done, hand))
        except BaseException as error:
            if not (isinstance(error, Exception) or is_stray(error)):
                raise
            log.exception("an attempt at message %s broke off", hand.entry.id)

    async def _conclude(self, hand: _InHand) -> None:
        """Write down what is left of an attempt that has ended, or was cut off."""
        entry = hand.entry
        try:
            if hand.left:
                # A fault of ours, or no end in sight. As with any other failure there is a next
                # time, and a last one.
                unknown = partial(Attempt, where=self.hostname, reason=CUT_OFF)
                await self._done(
                    hand,
                    [
                        hand.attempted.get(number) or unknown(recipient, Fate.TRANSIENT)
                        for number, recipient in hand.left.items()
                    ],
                )
            await self._tell(entry, hand.waiting, soon=hand.soon)
        except BaseException as error:
            if not (isinstance(error, Exception) or is_stray(error)):
                raise
            log.exception("what became of message %s is not all written down", entry.id)
            await anyio.sleep(self.poll)
            await self._release([hand.unwritten])
        # A cancelled attempt stays among the busy: `run` gives it back.
        full = len(self._busy) >= self.workers
        del self._busy[id(entry)]
        if full:
            self.wake()

    async def _done(self, hand: _InHand, attempts: Sequence[Attempt]) -> None:
        hand.attempted.update({attempt.recipient.number: attempt for attempt in attempts})
        now, jitter = self.clock(), self.random()  # one for all: they go together the next time
        verdicts = [
            judge(
                hand.entry,
                attempt,
                now=now,
                jitter=jitter,
                schedule=attempt.schedule or self.schedule,
                postmaster=self.postmaster,
            )
            for attempt in attempts
        ]
        rest = [verdict for verdict in verdicts if not verdict.waits]
        hand.soon |= any(_comes_soon(verdict.settlement, now + self.together) for verdict in rest)
        await self._write_down(hand.entry, rest)
        hand.waiting.extend(verdict for verdict in verdicts if verdict.waits)
        for attempt in attempts:
            del hand.left[attempt.recipient.number]

    async def _tell(self, entry: Entry, waiting: Sequence[Verdict], *, soon: bool) -> None:
        """Write down what failed or is late, with what other attempts at this envelope left.

        Until then it is queued, and lent: who dies before has lost nothing, and tries it again.
        """
        if not waiting and not self._untold:
            return
        key = entry.id, entry.mail.serialize()
        if not waiting and key not in self._untold:
            return
        there = self._untold.get(key, [])
        idle = [entry, *(untold.entry for untold in there)]
        at_work = any(
            other.id == entry.id and other.mail == entry.mail and other not in idle
            for other in self._busy.values()
        )
        if not waiting and (soon or at_work):
            return  # who comes next tells of the others
        soon = at_work or (soon and not there)
        ours = _Untold(entry, waiting)
        there = self._untold.setdefault(key, [])
        there.append(ours)
        try:
            if soon and not self._stopping:
                self.wake()  # what takes the place of an alias is due now
                with anyio.move_on_after(self.together):
                    await ours.done.wait()
            if ours.taken:
                await ours.done.wait()
                if not ours.written:
                    raise RuntimeError("who was to write it down has failed")
                return
            all_ = self._untold.pop(key)
            try:
                for each in all_:
                    each.taken = True
                await self._write_down(entry, [v for each in all_ for v in each.verdicts])
                for each in all_:
                    each.written = True
            finally:
                for each in all_:
                    each.done.set()
        finally:
            if not ours.taken:  # cancelled
                there.remove(ours)
                if not there:
                    self._untold.pop(key, None)

    async def _release(self, entries: Sequence[Entry]) -> None:
        try:
            await self.spool.release(entries)
        except SpoolUnavailable as error:
            log.error("leases run on until they end: %s", error)

    async def _write_down(self, entry: Entry, verdicts: Sequence[Verdict]) -> None:
        """Settle recipients and tell the sender what is owed, in one durable step."""
        if not verdicts:
            return
        now = self.clock()
        told = [verdict.report for verdict in verdicts if verdict.report is not None]
        fresh: list[Fresh] = []
        sender = entry.mail.reverse_path.mailbox
        reader = self.postmaster if sender is None else sender
        if told and reader is not None:
            content = await self._report(entry, reader, told, now)
            # RFC 3461 §6.1: nobody wants a report on a report.
            rcpt = Rcpt(reader, NOTIFY(NEVER))
            mail = Mail(None, {} if reader.is_ascii else IN_UTF8)
            fresh.append(Fresh(mail, (rcpt,), content, f"report on {entry.id}"))
        settlements = [verdict.settlement for verdict in verdicts]
        reports = await self._settle(entry, settlements, fresh)
        if reports or any(each.becomes or each.next_attempt is not None for each in settlements):
            self.wake()  # something is in the spool now that may be due before we look again
        for verdict in verdicts:
            if verdict.event is not None:
                self.observe(verdict.event)
        if reports or any(isinstance(verdict.event, Failed) for verdict in verdicts):
            report = reports[0] if reports else ""
            postmaster = reader if report and sender is None else None
            self.observe(Reported(entry.id, report, entry.mail.reverse_path, postmaster))

    async def _report(
        self, entry: Entry, reader: Mailbox, told: Sequence[Failure], now: float
    ) -> bytes:
        original = bytearray()
        try:
            with anyio.CancelScope(shield=True):  # who has it by now would get it once more
                async for chunk in self.spool.content(entry.id):
                    original += chunk
                    if len(original) > MAX_RETURNED:
                        break
        except SpoolUnavailable as error:
            # Content that is damaged must not keep its sender from being told.
            log.error("the report on message %s goes without it: %s", entry.id, error)
        unique = f"{int(now * 1_000_000):x}.{int(self.random() * 2**48):012x}"
        when = datetime.fromtimestamp(now, UTC)
        wanted = deadline(entry.mail, entry.arrived)
        return failure_report(
            hostname=self.hostname,
            to=reader,
            orphan=entry.mail.reverse_path.mailbox is None,
            failures=told,
            original=bytes(original),
            whole=len(original) >= entry.octets and whole_wanted(entry),
            utf8="SMTPUTF8" in entry.mail.parameters,
            arrived=datetime.fromtimestamp(entry.arrived, UTC),
            now=when,
            message_id=f"<{unique}@{self.hostname.strip('[]')}>",
            boundary=f"={unique}=",
            envelope_id=envelope_id(entry),
            deliver_by=None if wanted is None else datetime.fromtimestamp(wanted.at, UTC),
            release=release_asked(entry.mail),
        )

    async def _settle(
        self, entry: Entry, settlements: Sequence[Settlement], fresh: Sequence[Fresh]
    ) -> list[str]:
        """Write it down, again and again if need be: what is not written is sent twice."""
        wait = 0.1
        ours = {(entry.id, settlement.recipient) for settlement in settlements}
        try:
            while True:
                try:
                    return await self.spool.settle(entry.id, settlements, fresh, now=self.clock())
                except SpoolUnavailable as error:
                    log.error("message %s: what was done cannot be written: %s", entry.id, error)
                self._unwritten |= ours
                try:
                    await anyio.sleep(wait)
                except anyio.get_cancelled_exc_class():
                    # We are to end: the disk may have come back since we tried.
                    with suppress(SpoolUnavailable), anyio.CancelScope(shield=True):
                        await self.spool.settle(entry.id, settlements, fresh, now=self.clock())
                    raise
                wait = min(wait * 2, 30)
        finally:
            self._unwritten -= ours


def _comes_soon(settlement: Settlement, by: float) -> bool:
    """Tell whether the same envelope has something to be tried by then."""
    if any(new.mail is None for new in settlement.becomes):
        return True
    return settlement.next_attempt is not None and settlement.next_attempt <= by
