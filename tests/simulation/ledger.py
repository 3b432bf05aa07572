"""What was promised, what became of it, and whether that is what had to.

The relay's own story (`observe`) is held against what happened outside of it: what next hops
took, what stands in mailboxes, what is in the spool when a node starts, who heard 250.
"""

import re
from collections.abc import Sequence
from typing import Any

import anyio
from attrs import define, field, frozen

from smtpproto.core.command import Mail, Rcpt
from smtpproto.core.path import ForwardPath
from smtpproto.relay.reports.story import Delivered, Event, Expanded, Failed
from smtpproto.relay.routing.schedule import DEFAULT
from smtpproto.relay.spool.seam import Entry, Fresh

from .loop import Life
from .network import Pipe

__all__ = ["Broken", "Copy", "Held", "Key", "Ledger", "Promise"]

#: A message in a node's spool: the node's name, and the id there.
Key = tuple[str, str]

#: Seconds after which a recipient that nothing is wrong with has to be delivered.
PROMPT = 300.0


class Broken(AssertionError):  # noqa: N818 - an invariant
    """An invariant does not hold. `which` is its name."""

    def __init__(self, which: str, text: str) -> None:
        super().__init__(f"{which}: {text}")
        self.which = which


@define(eq=False)
class Copy:
    """A next hop, or a mailbox, has taken a message for a recipient.

    It was heard where the sender has read its reply's last octet, the one at `until` of `pipe`. A
    mailbox has no pipe: what stands there can be found again by whoever delivers after a death.
    """

    where: str
    life: Life | None
    at: float
    pipe: Pipe | None
    until: int = 0
    dsn: bool = False
    recorded: bool = False

    @property
    def excused(self) -> bool:
        """Whether the sender cannot know, so that it may be sent once more (RFC 1047)."""
        return self.pipe is not None and not self.recorded and self.unheard

    @property
    def unheard(self) -> bool:
        """Whether its sender did not live to write it down, or never hears of it."""
        if self.life is not None and (self.life.dead or self.life.refused):
            return True
        if self.pipe is None:
            return False
        return self.pipe.read < self.until and self.pipe.over


@define(eq=False)
class Held:
    """A message that a node has said 250 to, or made itself (`report`)."""

    key: Key
    mail: Mail
    arrived: float
    asked: dict[str, Rcpt]
    report: bool
    owed: dict[str, Rcpt] = field(init=False)
    ended: dict[str, str] = field(factory=dict, init=False)
    prompt: set[str] = field(factory=set)

    def __attrs_post_init__(self) -> None:
        self.owed = dict(self.asked)

    @property
    def sender(self) -> str:
        mailbox = self.mail.reverse_path.mailbox
        return "" if mailbox is None else str(mailbox).lower()


@frozen
class Promise:
    """What is known to be wrong with addresses."""

    #: Domains and addresses that are said not to exist, or not to take mail.
    hopeless: frozenset[str]
    #: Domains that nobody ever reaches: all others can be, before a message expires.
    dead: frozenset[str]
    #: Domains where nothing ever goes wrong.
    good: frozenset[str]


def path_of(rcpt: Rcpt) -> str:
    return str(rcpt.forward_path.mailbox).lower()


def domain_of(path: str) -> str:
    return path.rpartition("@")[2]


_BY = re.compile(rb"\bby\s+([\w.-]+).*?\bid\s+(\w+)", re.DOTALL)
_RECIPIENT = re.compile(rb"^Final-Recipient: rfc822; (\S+)\r\nAction: (\w+)", re.MULTILINE)
_MESSAGE_ID = re.compile(rb"^Message-ID: (<[^>]+>)", re.MULTILINE)


@define(eq=False)
class Ledger:
    """The books of a world."""

    promise: Promise
    clock: Any
    held: dict[Key, Held] = field(factory=dict)
    copies: dict[tuple[Key, str], list[Copy]] = field(factory=dict)
    #: Reports by what they are on: (message, recipient, action) -> the report's key.
    reports: dict[tuple[Key, str, str], Key] = field(factory=dict)
    _by_message_id: dict[bytes, Key] = field(factory=dict)
    _refusals: set[tuple[str, str]] = field(factory=set)  # node, and path or domain
    #: Times that a recipient got a message again, in a window.
    again: int = 0
    delivered: int = 0
    failed: int = 0
    slowest: float = 0.0

    #: The first invariant that did not hold, and that there is one.
    broken: Broken | None = None
    over: anyio.Event = field(factory=anyio.Event)

    def breach(self, which: str, text: str) -> Broken:
        """Keep that an invariant does not hold: who raises it may not be heard."""
        broken = Broken(which, text)
        if self.broken is None:
            self.broken = broken
            self.over.set()
        return broken

    # What a message is

    def identify(self, content: bytes) -> Key | None:
        """Tell whose message this is, by what the last of our nodes wrote on top."""
        header = content.partition(b"\r\n\r\n")[0] + b"\r\n"
        while header.startswith((b"Return-Path:", b"Delivered-To:")):
            header = header.partition(b"\r\n")[2]
        if header.startswith(b"Received:"):
            first = re.split(rb"\r\n(?![ \t])", header, maxsplit=1)[0]
            if (match := _BY.search(first)) is not None:
                return match[1].decode(), match[2].decode()
        if (match := _MESSAGE_ID.search(header)) is not None:
            return self._by_message_id.get(match[1])
        return None

    # What comes in

    def accepted(
        self, key: Key, mail: Mail, rcpts: Sequence[Rcpt], *, report: bool = False
    ) -> Held:
        """A node has it, and has said so, or is about to."""
        if key in self.held:
            raise self.breach("ids", f"{key} is the id of two messages")
        asked = {path_of(rcpt): rcpt for rcpt in rcpts}
        self.held[key] = held = Held(key, mail, self.clock(), asked, report)
        return held

    def reported(self, node: str, id: str, fresh: Fresh) -> None:
        """A node has put a report into its spool."""
        key = node, id
        if fresh.mail.reverse_path.mailbox is not None:
            raise self.breach("reports", f"{key} is a report with a reverse-path")
        self.accepted(key, fresh.mail, fresh.rcpts, report=True)
        self._read_report(key, fresh.content, fresh.origin)

    def _read_report(self, key: Key, content: bytes, origin: str) -> None:
        match = _MESSAGE_ID.search(content)
        assert match is not None
        self._by_message_id[match[1]] = key
        about = key[0], origin.removeprefix("report on ")
        if about not in self.held:
            raise self.breach("reports", f"{key} is a report on nothing that we had")
        on = self.held[about]
        # The second part is ours; in the third anything may stand.
        fields = content.partition(b"Content-Type: message/delivery-status")[2]
        ours, _, original = fields.partition(b"Content-Type: ")
        original = original.partition(b"\r\n\r\n")[2].lstrip(b"\r\n")
        if not original.startswith(b"--") and not on.report and self.identify(original) != about:
            raise self.breach("reports", f"{key} is on {about}, and gives back another message")
        told = _RECIPIENT.findall(ours)
        if not told:
            raise self.breach("reports", f"{key} reports on nobody")
        for address, action in told:
            self._check_report(key, on, address.decode().lower(), action.decode())

    def _check_report(self, key: Key, on: Held, path: str, action: str) -> None:
        if not on.sender:
            raise self.breach("reports", f"{key} is a report to <>, on {on.key}")
        if path not in on.asked:
            raise self.breach(
                "reports", f"{key} reports on {path}, who was not asked for in {on.key}"
            )
        if not owed(on.asked[path], action):
            raise self.breach("reports", f"{key}: nobody wants to hear of {path}: {action}")
        if (on.key, path, action) in self.reports:
            raise self.breach("reports", f"{key}: {path} of {on.key} is reported twice as {action}")
        (rcpt,) = self.held[key].asked
        if rcpt != on.sender:
            raise self.breach("reports", f"{key} goes to {rcpt}, and not to {on.sender}")
        self.reports[on.key, path, action] = key

    # What goes out

    def arrived(self, copy: Copy, paths: Sequence[str], content: bytes) -> None:
        """A next hop has taken it for these recipients."""
        key = self.identify(content)
        if key is None:
            raise self.breach(
                "content", f"{copy.where} got what is of none of our nodes: {content[:300]!r}"
            )
        if (b"\r\nX-End: 1" not in content[-40:]) and not self._is_report(key):
            raise self.breach("content", f"{copy.where} got a part of {key}")
        for path in paths:
            self.arrived_for(copy, key, path)

    def _is_report(self, key: Key) -> bool:
        return key in self.held and (self.held[key].report or not self.held[key].sender)

    def arrived_for(self, copy: Copy, key: Key, path: str) -> None:
        before = self.copies.setdefault((key, path.lower()), [])
        # Who takes it so slowly that the sender is gone already may be the second.
        for each in () if copy.unheard else before:
            if not each.excused:
                raise self.breach("twice", f"{path} gets {key} again, and there was no reason to")
        self.again += bool(before)
        before.append(copy)

    def refused(self, life: Life | None, whom: str) -> None:
        """A next hop has said 5yz to this process: about one recipient, or all of a domain."""
        if life is not None:
            self._refusals.add((life.node.name, whom))

    # What they say of it

    def told(self, life: Life, event: Event) -> None:
        if life.dead:
            return
        key = life.node.name, event.id
        held = self.held.get(key)
        if held is None:
            return  # taken in by a life that did not live to see it; known from the next start on
        match event:
            case Delivered():
                path = str(event.forward_path.mailbox).lower()
                self._end(held, path, "delivered")
                copies = self.copies.get((key, path))
                if not copies:
                    raise self.breach("lost", f"{path} of {key} is delivered, and nobody has it")
                for copy in copies:
                    copy.recorded = True
                self.delivered += 1
                if path in held.prompt:
                    self.slowest = max(self.slowest, self.clock() - held.arrived)
                self._check_success(held, path, copies[-1])
            case Failed():
                path = str(event.forward_path.mailbox).lower()
                self._end(held, path, "failed")
                self._check_failure(held, path)
                self.failed += 1
            case Expanded():
                path = str(event.forward_path.mailbox).lower()
                rcpt = held.asked[path]
                self._end(held, path, "expanded")
                for each in event.becomes:
                    new = str(each.mailbox).lower()
                    held.owed[new] = held.asked[new] = _behind(rcpt, each, len(event.becomes))
                due = bool(held.sender) and len(event.becomes) > 1 and owed(rcpt, "expanded")
                reported = (key, path, "expanded") in self.reports
                if due != reported:
                    raise self.breach("reports", f"{path} of {key} expanded; {due=}, {reported=}")
            case _:
                pass

    def _end(self, held: Held, path: str, how: str) -> None:
        if path not in held.owed:
            before = held.ended.get(path)
            which = "twice" if before else "lost"
            raise self.breach(which, f"{path} of {held.key} is {how}, and was {before}")
        del held.owed[path]
        held.ended[path] = how

    def _check_failure(self, held: Held, path: str) -> None:
        age = self.clock() - held.arrived
        reason = (
            (domain_of(path) in self.promise.dead and age >= DEFAULT.lifetime - DEFAULT.first)
            or path in self.promise.hopeless
            or domain_of(path) in self.promise.hopeless
            or (held.key[0], path) in self._refusals
            or (held.key[0], domain_of(path)) in self._refusals
        )
        if not reason:
            raise self.breach("lost", f"{path} of {held.key} is given up after {age:.0f} s, why?")
        reported = (held.key, path, "failed") in self.reports
        due = bool(held.sender) and owed(held.asked[path], "failed")
        if due != reported:
            raise self.breach("reports", f"{path} of {held.key} failed; {due=}, {reported=}")

    def _check_success(self, held: Held, path: str, copy: Copy) -> None:
        action = "delivered" if copy.pipe is None else "relayed"
        due = bool(held.sender) and owed(held.asked[path], action) and not copy.dsn
        reported = (held.key, path, action) in self.reports
        if due != reported:
            raise self.breach("reports", f"{path} of {held.key} {action}; {due=}, {reported=}")

    # What is there

    def found(self, life: Life, entries: Sequence[Entry], reports: dict[str, bytes]) -> None:
        """A node starts, and this is in its spool; `reports` are contents, by id."""
        node = life.node.name
        there = {(node, entry.id): entry for entry in entries}
        for key, entry in there.items():
            # Kept, but the one who kept it did not live to say so.
            if key not in self.held:
                rcpts = [recipient.rcpt for recipient in entry.recipients]
                held = self.accepted(key, entry.mail, rcpts, report=entry.id in reports)
                held.arrived = entry.arrived
                if entry.id in reports:
                    self._read_report(key, reports[entry.id], entry.origin)
            held = self.held[key]
            for recipient in entry.recipients:
                path = path_of(recipient.rcpt)
                if recipient.alias is not None and path not in held.asked:
                    held.owed[path] = held.asked[path] = recipient.rcpt
                    alias = str(recipient.alias).lower()
                    if held.owed.pop(alias, None) is not None:
                        held.ended[alias] = "expanded"
                if path not in held.owed:
                    how = held.ended.get(path)
                    raise self.breach("twice", f"{path} of {key} was {how}, and is queued again")
        for key, held in self.held.items():
            if key[0] == node:
                waiting = {path_of(r.rcpt) for r in there[key].recipients} if key in there else ()
                for path in [path for path in held.owed if path not in waiting]:
                    self._missing(held, path)

    def _missing(self, held: Held, path: str) -> None:
        """It is not queued any more: written down by one who did not live to tell."""
        copies = self.copies.get((held.key, path))
        if copies:
            for copy in copies:
                copy.recorded = True
            self._end(held, path, "delivered")
        elif (held.key, path, "failed") in self.reports or not (
            held.sender and owed(held.asked[path], "failed")
        ):
            self._end(held, path, "failed")
            self._check_failure(held, path)
        else:
            raise self.breach("lost", f"{path} of {held.key} is gone, and nobody has it")

    def expect(self, held: Held, paths: Sequence[str]) -> None:
        """These are to be delivered soon, whatever becomes of the others."""
        held.prompt.update(paths)

    def overdue(self, key: Key) -> list[str]:
        held = self.held[key]
        return [path for path in held.prompt if path in held.owed]

    def queue(self, node: str) -> int:
        return sum(len(held.owed) for key, held in self.held.items() if key[0] == node)

    def close(self) -> None:
        """All is over, and nothing is left."""
        for held in self.held.values():
            if held.owed:
                raise self.breach(
                    "empties", f"{held.key} is still queued for {', '.join(held.owed)}"
                )


def _behind(rcpt: Rcpt, path: ForwardPath, of: int) -> Rcpt:
    """Return who stands behind an alias; of several, nobody asks for success (RFC 3461 §5.2.7)."""
    asked = rcpt.parameters.get("NOTIFY")
    if asked is None:
        return Rcpt(path)
    words = [word for word in asked.decode().split(",") if of == 1 or word != "SUCCESS"]
    return Rcpt(path, {"NOTIFY": (",".join(words) or "NEVER").encode()})


def owed(rcpt: Rcpt, action: str) -> bool:
    """Tell whether NOTIFY asks for a report of this (RFC 3461 §4.1)."""
    value = rcpt.parameters.get("NOTIFY")
    words = {"FAILURE", "DELAY"} if value is None else set(value.decode().upper().split(","))
    wanted = {"failed": "FAILURE", "delayed": "DELAY"}.get(action, "SUCCESS")
    return wanted in words
