"""What was promised, what became of it, and whether that is what had to.

The relay's own story (`observe`) is held against what happened outside of it: what next hops
took, what stands in mailboxes, what is in the spool when a node starts, who heard 250.
"""

from collections.abc import Callable, Sequence

import anyio
from attrs import define, evolve, field

from smtpproto.core.command import Mail, Rcpt
from smtpproto.relay.reports.story import Bounced, Delivered, Discarded, Event, Expanded, Failed
from smtpproto.relay.routing.schedule import DEFAULT
from smtpproto.relay.spool.seam import Entry, Fresh

from .books import MAX_HOPS, ON_ITS_WAY, Broken, Copy, Held, Key, Promise, offer_of
from .loop import Life
from .readings import END, hops_of, identify, message_id_of, read_report
from .terms import Terms, behind, domain_of, owed, path_of, sender_of

__all__ = ["Ledger"]

#: Servers behind which a message is at an alias of its ring again, wherever it came in.
ROUND = 4


@define(eq=False)
class Ledger:
    """The books of a world."""

    promise: Promise
    clock: Callable[[], float]
    held: dict[Key, Held] = field(factory=dict)
    copies: dict[tuple[Key, str], list[Copy]] = field(factory=dict)
    #: Reports by what they are on: (message, recipient, action) -> the report's key.
    reports: dict[tuple[Key, str, str], Key] = field(factory=dict)
    _by_message_id: dict[bytes, Key] = field(factory=dict)
    _refusals: set[tuple[str, str]] = field(factory=set)  # node, and path or host
    #: Times that a recipient got a message again, in a window.
    again: int = 0
    delivered: int = 0
    failed: int = 0
    #: What came of some kinds of mail.
    listed: int = 0
    returned: int = 0
    orphans: int = 0
    discarded: int = 0
    overdue: int = 0
    waited: int = 0
    rings: int = 0
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

    def identify(self, content: bytes) -> Key | None:
        """Tell whose message this is: by its trace, or a report by its Message-ID."""
        key = identify(content)
        if key is None and (message_id := message_id_of(content)) is not None:
            key = self._by_message_id.get(message_id)
        return key

    # What comes in

    def accepted(
        self,
        key: Key,
        mail: Mail,
        rcpts: Sequence[Rcpt],
        *,
        arrived: float | None = None,
        hops: int = 0,
        report: bool = False,
    ) -> Held:
        """A node has it, and has said so, or is about to; it came through `hops` nodes before."""
        if key in self.held:
            raise self.breach("ids", f"{key} is the id of two messages")
        if hops > MAX_HOPS:
            raise self.breach("loops", f"{key} has come through {hops} servers")
        asked = {path_of(rcpt): rcpt for rcpt in rcpts}
        at = self.clock() if arrived is None else arrived
        self.held[key] = held = Held(key, mail, at, asked, report, hops)
        return held

    def reported(self, node: str, id: str, fresh: Fresh) -> None:
        """A node has put a report into its spool."""
        key = node, id
        if fresh.mail.reverse_path.mailbox is not None:
            raise self.breach("reports", f"{key} is a report with a reverse-path")
        self.accepted(key, fresh.mail, fresh.rcpts, report=True)
        self._read_report(key, fresh.content, fresh.origin)

    def _read_report(self, key: Key, content: bytes, origin: str) -> None:
        message_id = message_id_of(content)
        assert message_id is not None
        self._by_message_id[message_id] = key
        about = key[0], origin.removeprefix("report on ")
        if about not in self.held:
            raise self.breach("reports", f"{key} is a report on nothing that we had")
        on = self.held[about]
        reading = read_report(content)
        if reading.original and not on.report and self.identify(reading.original) != about:
            raise self.breach("reports", f"{key} is on {about}, and gives back another message")
        if not reading.told:
            raise self.breach("reports", f"{key} reports on nobody")
        for path, action in reading.told:
            self._check_report(key, on, path, action)
            # Of a list's members its owner asks for the header (RFC 3461 §5.2.7.1 b).
            own = path not in on.senders
            header_only = on.terms.header_only if own else bool(on.sender(path))
            if reading.envid != (on.terms.envid if own else None):
                raise self.breach("reports", f"{key} is on the envelope {reading.envid}")
            if reading.whole and header_only:
                raise self.breach("reports", f"{key} gives back more than the header")

    def _check_report(self, key: Key, on: Held, path: str, action: str) -> None:
        if path not in on.asked:
            raise self.breach(
                "reports", f"{key} reports on {path}, who was not asked for in {on.key}"
            )
        plan, sender = self.promise.plans[key[0]], on.sender(path)
        reader = plan.return_path(sender, path) if sender else self._orphans_reader(on, path)
        if reader is None or (not sender and action != "failed"):
            raise self.breach("reports", f"{key} is a report to <>, on {on.key}")
        if sender and not self._wanted(on, path, action):
            raise self.breach("reports", f"{key}: nobody wants to hear of {path}: {action}")
        if (on.key, path, action) in self.reports:
            raise self.breach("reports", f"{key}: {path} of {on.key} is reported twice as {action}")
        if action == "delayed" and self.clock() < on.terms.late:
            raise self.breach("reports", f"{key}: {path} of {on.key} is not late yet")
        (rcpt,) = self.held[key].asked
        if rcpt != reader:
            raise self.breach("reports", f"{key} goes to {rcpt}, and not to {reader}")
        self.orphans += not sender
        self.reports[on.key, path, action] = key

    def _wanted(self, on: Held, path: str, action: str) -> bool:
        """Tell whether somebody asked for it: by NOTIFY, or by BY (RFC 2852 §4.1.4)."""
        rcpt = on.asked[path]
        unasked = action == "relayed" and on.terms.by is not None
        return owed(rcpt, action) or (unasked and rcpt.parameters.get("NOTIFY") != b"NEVER")

    def _orphans_reader(self, on: Held, path: str) -> str | None:
        """Return who hears of what has no sender: not of what was for himself."""
        postmaster = self.promise.plans[on.key[0]].postmaster
        return None if path == postmaster else postmaster

    def _behind(self, node: str, path: str) -> dict[str, str | None] | None:
        return self.promise.plans[node].behind(path)

    # What goes out

    def arrived(self, copy: Copy, paths: Sequence[str], content: bytes, sender: str) -> None:
        """A next hop has taken it for these recipients."""
        key = self.identify(content)
        if key is None:
            raise self.breach(
                "content", f"{copy.where} got what is of none of our nodes: {content[:300]!r}"
            )
        if END.strip() not in content[-40:] and not self._is_report(key):
            raise self.breach("content", f"{copy.where} got a part of {key}")
        if key in self.held and copy.asked is not None:
            self._check_asked(copy, self.held[key])
        for path in paths:
            self.arrived_for(copy, key, path, sender)

    def _is_report(self, key: Key) -> bool:
        return key in self.held and (self.held[key].report or not sender_of(self.held[key].mail))

    def _check_asked(self, copy: Copy, held: Held) -> None:
        """Look what MAIL asked a next hop for: what it offers, and what is left of the time."""
        asked, terms = copy.asked or {}, held.terms
        keywords = {"RET": "DSN", "ENVID": "DSN", "BY": "DELIVERBY"}
        for parameter in asked:
            keyword = keywords.get(parameter, {"BODY": "8BITMIME"}.get(parameter, parameter))
            if copy.offered(keyword) is None:
                raise self.breach("asked", f"{copy.where} was asked for {parameter}")
        if terms.by is None:
            return
        offered, said = copy.offered("DELIVERBY"), asked.get("BY")
        assert copy.asked_at is not None
        left = terms.by - (self.clock() - anyio.current_time() + copy.asked_at)
        if terms.returns:
            if left < -ON_ITS_WAY:
                raise self.breach("by", f"{held.key} goes to {copy.where} {-left:.0f} s too late")
            if offered is None or float(offered or 0) > left + ON_ITS_WAY:
                raise self.breach("by", f"{copy.where} does not promise the time of {held.key}")
        if offered is None:
            return
        seconds, _, mode = (said or "").partition(";")
        wanted = ("R" if terms.returns else "N") + ("T" if terms.trace else "")
        if mode != wanted or not left - 1 <= float(seconds) <= left + ON_ITS_WAY:
            raise self.breach("by", f"{copy.where} is asked for {said}, and {left:.0f} s are left")

    def arrived_for(self, copy: Copy, key: Key, path: str, sender: str) -> None:
        path = path.lower()
        before = self.copies.setdefault((key, path), [])
        # Who takes it so slowly that the sender is gone already may be the second.
        for each in () if copy.unheard else before:
            if not each.excused:
                raise self.breach("twice", f"{path} gets {key} again, and there was no reason to")
        self.again += bool(before)
        before.append(evolve(copy))  # each is written down for itself
        # By a life that did not live to see it taken in, it may come to be known later.
        if key in self.held:
            self._check_arrival(copy, self.held[key], path, sender)

    def _check_arrival(self, copy: Copy, held: Held, path: str, sender: str) -> None:
        now, (node, _) = self.clock(), held.key
        if now < held.terms.begins:
            raise self.breach(
                "early", f"{copy.where} gets {held.key} {held.terms.begins - now:.0f} s too early"
            )
        if path not in held.asked:
            return  # behind an alias whose expansion nobody lived to tell of
        from_ = self.promise.plans[node].return_path(held.sender(path), path)
        if sender != from_:
            raise self.breach("senders", f"{path} gets {held.key} from {sender}, and not {from_}")
        places = self.promise.places(node, held.sender(path), path)
        if copy.where not in places:
            said = self.promise.says(node, held.sender(path), path)
            which = "held" if said == "held" else "places"
            raise self.breach(which, f"{copy.where} gets {held.key}, and not {', '.join(places)}")
        if held.stopped and held.quiet and not copy.unheard:
            raise self.breach("held", f"{copy.where} gets {held.key}, which the operator keeps")

    def refused(self, life: Life | None, whom: str) -> None:
        """A next hop has said 5yz to this process: about one recipient, or as a host."""
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
                self.listed += path in held.senders
                self.waited += held.terms.begins > held.arrived
                if path in held.prompt:
                    self.slowest = max(self.slowest, self.clock() - held.terms.begins)
                self._check_success(held, path, copies[-1])
            case Failed():
                path = str(event.forward_path.mailbox).lower()
                self._end(held, path, "failed")
                self._check_failure(held, path)
                self.failed += 1
            case Discarded():
                path = str(event.forward_path.mailbox).lower()
                self._end(held, path, "discarded")
                self._check_discarded(held, path)
            case Expanded() | Bounced():
                path = str(event.forward_path.mailbox).lower()
                becomes = (
                    [event.sender]
                    if isinstance(event, Bounced)
                    else [each.mailbox for each in event.becomes]
                )
                self._expand(held, path, [str(each).lower() for each in becomes])
                self.returned += isinstance(event, Bounced)
            case _:
                pass

    def _end(self, held: Held, path: str, how: str) -> None:
        if path not in held.owed:
            before = held.ended.get(path)
            which = "twice" if before else "lost"
            raise self.breach(which, f"{path} of {held.key} is {how}, and was {before}")
        del held.owed[path]
        held.ended[path] = how

    def _expand(self, held: Held, path: str, becomes: Sequence[str]) -> None:
        rcpt = held.asked[path]
        self._end(held, path, "expanded")
        expected = self._behind(held.key[0], path) or {}
        if sorted(becomes) != sorted(expected):
            raise self.breach("lists", f"{path} of {held.key} is {becomes}, and not {[*expected]}")
        if path.startswith("round@") and held.hops >= ROUND:
            raise self.breach("loops", f"{path} of {held.key} has been there before")
        self._put(held, path, rcpt)
        lists = self.promise.plans[held.key[0]].lists
        action = "delivered" if path in lists else "expanded"
        several = path in lists or len(becomes) > 1
        due = bool(held.sender(path)) and several and owed(rcpt, "expanded")
        reported = (held.key, path, action) in self.reports
        if due != reported:
            raise self.breach("reports", f"{path} of {held.key} expanded; {due=}, {reported=}")

    def _put(self, held: Held, path: str, rcpt: Rcpt) -> None:
        """Put those behind an alias or a list in its place."""
        expected = self._behind(held.key[0], path) or {}
        for new, owner in expected.items():
            held.owed[new] = held.asked[new] = behind(rcpt, new, len(expected), owner)
            if owner is not None:
                held.senders[new] = owner if held.sender(path) else ""

    def _check_failure(self, held: Held, path: str) -> None:
        node, sender, terms = held.key[0], held.sender(path), held.terms
        age = self.clock() - terms.begins
        places = self.promise.places(node, sender, path)
        says = self.promise.says(node, sender, path)
        ring = held.hops >= 2 and (path.startswith("round@") or domain_of(path) == "loop.example")
        reason = (
            (domain_of(path) in self.promise.dead and age >= DEFAULT.lifetime - DEFAULT.first)
            or (says == "" and {path, domain_of(path)} & self.promise.hopeless)
            or says == "refused"
            or any((node, whom) in self._refusals for whom in (path, *places))
            or ring
            or self._out_of_time(terms, places)
        )
        if not reason:
            raise self.breach("lost", f"{path} of {held.key} is given up after {age:.0f} s, why?")
        self.overdue += terms.returns and terms.by is not None
        self.rings += ring
        reported = (held.key, path, "failed") in self.reports
        due = (
            owed(held.asked[path], "failed")
            if sender
            else self._orphans_reader(held, path) is not None
        )
        if due != reported:
            raise self.breach("reports", f"{path} of {held.key} failed; {due=}, {reported=}")

    def _out_of_time(self, terms: Terms, places: frozenset[str]) -> bool:
        """Tell whether BY in mode R is reason enough: it is over, or nobody promises to keep it."""
        if terms.by is None or not terms.returns:
            return False
        left = terms.by - self.clock()
        offers = [offer_of(self.promise.offers(host), "DELIVERBY") for host in places]
        return left < 2 or any(offer is None or float(offer or 0) > left - 1 for offer in offers)

    def _check_success(self, held: Held, path: str, copy: Copy) -> None:
        action, rcpt, terms = (
            "delivered" if copy.pipe is None else "relayed",
            held.asked[path],
            held.terms,
        )
        due = owed(rcpt, action) and copy.offered("DSN") is None
        if action == "relayed" and terms.by is not None:
            # Told in any case: with a trace, and where nobody will say any more that it is late.
            left = terms.by - (self.clock() - anyio.current_time() + (copy.asked_at or copy.at))
            silent = not terms.returns and copy.offered("DELIVERBY") is None
            if silent and not terms.trace and abs(left) < ON_ITS_WAY:
                return  # it was over just about then
            if terms.trace or (silent and left > 0):
                due = rcpt.parameters.get("NOTIFY") != b"NEVER"
        due = due and bool(held.sender(path))
        reported = (held.key, path, action) in self.reports
        if due != reported:
            raise self.breach("reports", f"{path} of {held.key} {action}; {due=}, {reported=}")

    def _check_discarded(self, held: Held, path: str) -> None:
        if self.promise.says(held.key[0], held.sender(path), path) != "discarded":
            raise self.breach("lost", f"{path} of {held.key} is thrown away")
        if any(on == held.key and whom == path for on, whom, _ in self.reports):
            raise self.breach("reports", f"somebody hears of {path} of {held.key}")
        self.discarded += 1

    # What is there

    def found(self, life: Life, entries: Sequence[Entry], contents: dict[str, bytes]) -> None:
        """A node starts, and this is in its spool; `contents` by id."""
        node = life.node.name
        there = {(node, entry.id): entry for entry in entries}
        for key, entry in there.items():
            # Kept, but the one who kept it did not live to say so.
            if key not in self.held:
                self._find(key, entry, contents[entry.id])
            held = self.held[key]
            for recipient in entry.recipients:
                path = path_of(recipient.rcpt)
                alias = str(recipient.alias).lower()
                if recipient.alias is not None and alias in held.owed:
                    self._end(held, alias, "expanded")
                    self._put(held, alias, held.asked[alias])
                if path not in held.owed:
                    how = held.ended.get(path)
                    raise self.breach("twice", f"{path} of {key} was {how}, and is queued again")
            stopped = {recipient.held for recipient in entry.recipients}
            if held.stopped is not None and stopped != {held.stopped}:
                said = "keeps" if held.stopped else "has let go of"
                raise self.breach("held", f"the operator {said} {key}, and the spool has not heard")
            if held.stopped is None:
                held.stopped = True in stopped
            held.quiet = held.stopped
        for key, held in self.held.items():
            if key[0] == node:
                waiting = {path_of(r.rcpt) for r in there[key].recipients} if key in there else ()
                for path in [path for path in held.owed if path not in waiting]:
                    self._missing(held, path)

    def _find(self, key: Key, entry: Entry, content: bytes) -> None:
        report = entry.origin.startswith("report on ")
        hops = 0 if report else hops_of(content) - 1
        rcpts = [recipient.rcpt for recipient in entry.recipients]
        held = self.accepted(
            key, entry.mail, rcpts, arrived=entry.arrived, hops=hops, report=report
        )
        for recipient in entry.recipients:
            if recipient.mail is not None:
                held.senders[path_of(recipient.rcpt)] = sender_of(recipient.mail)
        if report:
            self._read_report(key, content, entry.origin)

    def _missing(self, held: Held, path: str) -> None:
        """It is not queued any more: written down by one who did not live to tell."""
        copies = self.copies.get((held.key, path))
        says = self.promise.says(held.key[0], held.sender(path), path)
        told = held.sender(path) and owed(held.asked[path], "failed")
        if copies:
            for copy in copies:
                copy.recorded = True
            self._end(held, path, "delivered")
        elif says == "discarded":
            self._end(held, path, "discarded")
        elif (held.key, path, "failed") in self.reports or not told:
            self._end(held, path, "failed")
            self._check_failure(held, path)
        else:
            raise self.breach("lost", f"{path} of {held.key} is gone, and nobody has it")

    def expect(self, held: Held, paths: Sequence[str]) -> None:
        """These are to be delivered soon, whatever becomes of the others."""
        held.prompt.update(paths)

    def late(self, key: Key) -> list[str]:
        """Return who is still owed what was to be delivered soon."""
        held = self.held[key]
        return [path for path in held.prompt if path in held.owed]

    def untold(self, held: Held) -> list[str]:
        """Return who is behind the time of BY, though nobody has given up or said so."""
        if held.terms.returns:
            return [*held.owed]
        late = [path for path, rcpt in held.owed.items() if owed(rcpt, "delayed")]
        told = [path for path in late if (held.key, path, "delayed") in self.reports]
        return [path for path in late if path not in told and held.sender(path)]

    def close(self) -> None:
        """All is over, and nothing is left."""
        for held in self.held.values():
            if held.owed:
                raise self.breach(
                    "empties", f"{held.key} is still queued for {', '.join(held.owed)}"
                )
