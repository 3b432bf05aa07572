"""How each node is set up, and where its mail has to go by that: told without asking the relay.

Three nodes of a company, and a domain `boxes.example` that lives behind an LMTP server:

- `front` takes mail for all, has the lists, and hands `boxes.example` on by LMTP;
- `back` finds all others by MX; mail of one sender goes to a smart host;
- `branch` sends all to `front`.

`loop.example` is what an operator did wrong: each of two nodes takes it for the other's.
"""

from collections.abc import Mapping, Sequence

from attrs import field, frozen

from smtpproto.core.reply import Reply, Severity
from smtpproto.relay import HostPort
from smtpproto.relay.mailboxes.aliases import MailingList
from smtpproto.relay.routing.table import Rule
from smtpproto.relay.routing.transport import Discard, Here, Host, NextHop, OnHold, Refuse

from .terms import domain_of

__all__ = ["BACK", "BRANCH", "FRONT", "LMTP", "SMART", "Plan", "plans"]

FRONT, BACK, BRANCH = "front.example", "back.example", "branch.example"
LMTP, SMART = "boxes.example", "smart.example"
#: What the tables refuse or throw away for good, and what they do not let through for a while.
REFUSED, DISCARDED, LATER, HELD = (
    f"{word}.example" for word in ("refused", "discarded", "later", "held")
)

_SAYS = {Refuse: "refused", Discard: "discarded", OnHold: "held"}


@frozen
class Plan:
    """One node: what is its own, and its table.

    `rules` stand for good; those in `at_first` stand before them until somebody takes them out.
    """

    name: str
    address: str
    smart_host: HostPort | None = None
    mailboxes: Sequence[str] = ("ann", "bob", "owner", "postmaster")
    aliases: Mapping[str, Sequence[str]] = field(factory=dict[str, Sequence[str]])
    lists: Mapping[str, MailingList] = field(factory=dict[str, MailingList])
    relayed: Sequence[str] = ()
    rules: Sequence[Rule] = ()
    at_first: Sequence[Rule] = ()
    postmaster: str | None = None
    verp: Sequence[str] = ()

    @property
    def domain(self) -> str:
        return self.name

    def rule(self, sender: str, path: str, *, first: bool) -> Rule | None:
        """Return the rule that fits; `first`: while those stand that are taken out later."""
        for rule in [*(self.at_first if first else ()), *self.rules]:
            to_whom = not rule.recipients or not {path, domain_of(path)}.isdisjoint(rule.recipients)
            if to_whom and (not rule.senders or (sender or "<>") in rule.senders):
                return rule
        return None

    def says(self, sender: str, path: str, *, first: bool) -> str:
        """Name what the table does instead of sending it on; "" where it does nothing of that."""
        rule = self.rule(sender, path, first=first)
        if rule is None:
            return ""
        if isinstance(rule.to, Refuse) and rule.to.reply.severity is Severity.TRANSIENT:
            return "later"
        return _SAYS.get(type(rule.to), "")

    def owner(self, path: str) -> str | None:
        """Return whose return path an address is (VERP), if it is one."""
        local, _, domain = path.rpartition("@")
        name, tag, rest = local.partition("+")
        sender = f"{name}@{domain}"
        return sender if tag and "=" in rest and sender in self.verp else None

    def return_path(self, sender: str, path: str) -> str:
        """Return under what `sender`'s mail for a recipient leaves the node."""
        if sender not in self.verp:
            return sender
        local, _, domain = sender.rpartition("@")
        return f"{local}+{path.replace('@', '=')}@{domain}"

    def behind(self, path: str) -> dict[str, str | None] | None:
        """Return who stands behind an address, each with a list's owner; None: it is no alias."""
        if self.owner(path) is not None:
            return {str(self.owner(path)): None}
        if path not in self.aliases and path not in self.lists:
            return None
        final: dict[str, str | None] = {}
        seen: set[str] = set()

        def look(path: str, owner: str | None) -> None:
            there = self.lists.get(path)
            if path in seen or (there is None and path not in self.aliases):
                final.setdefault(path, owner)
                return
            seen.add(path)
            if there is not None:
                owner = str(there.owner)
            for each in self.aliases[path] if there is None else map(str, there.members):
                look(each, owner)

        look(path, None)
        return final


def plans(postmasters: Sequence[str | None], lmtp: Host, smart: Host) -> Sequence[Plan]:
    """Make those of a world: who hears of what has no sender, and the hosts of others."""
    refused = Rule(Refuse(Reply(550, "5.7.1", "Not from here")), recipients=[REFUSED])
    discarded = Rule(Discard("nobody wants it"), recipients=[DISCARDED])
    later = Rule(Refuse(Reply(451, "4.7.1", "Not now")), recipients=[LATER])
    held = Rule(OnHold("until the rule is gone"), recipients=[HELD])

    def here(domain: str) -> Rule:
        return Rule(Here(), recipients=[domain])

    def aliases(domain: str) -> dict[str, Sequence[str]]:
        return {
            f"team@{domain}": [f"ann@{domain}", "crew@good.example", "crew@bad0.example"],
            f"info@{domain}": [f"bob@{domain}"],
        }

    members = [
        f"ann@{FRONT}",
        f"ann@{BACK}",
        f"nobody@{BACK}",
        "member@good.example",
        "member@bad1.example",
        "member@bad2.example",
        "nobody@boxes.example",
        "member@boxes.example",
        f"info@{FRONT}",
    ]
    mixed = [f"some@{domain}" for domain in (REFUSED, DISCARDED, LATER, HELD, LMTP)]
    return (
        Plan(
            FRONT,
            "203.0.113.1",
            aliases={
                **aliases(FRONT),
                f"mixed@{FRONT}": mixed,
                f"round@{FRONT}": [f"round@{BACK}"],
            },
            lists={f"list@{FRONT}": MailingList(members, f"owner@{FRONT}")},
            relayed=[LMTP],
            rules=[
                here(FRONT),
                refused,
                discarded,
                Rule(NextHop.fixed(lmtp), recipients=[LMTP]),
                Rule(NextHop.fixed(Host(BACK)), recipients=["loop.example"]),
                Rule(NextHop.fixed(smart), senders=[f"bob@{FRONT}"]),
            ],
            at_first=[later, held],
            postmaster=postmasters[0],
            verp=[f"owner@{FRONT}"],
        ),
        Plan(
            BACK,
            "203.0.113.2",
            aliases={**aliases(BACK), f"round@{BACK}": [f"round@{FRONT}"]},
            lists={
                f"few@{BACK}": MailingList(
                    ["few@good.example", "few@bad1.example"], "ann@front.example"
                )
            },
            rules=[
                here(BACK),
                refused,
                Rule(NextHop.fixed(Host(FRONT)), recipients=["loop.example"]),
                Rule(NextHop.fixed(smart), senders=["user@good.example"]),
            ],
            at_first=[held],
            postmaster=postmasters[1],
        ),
        Plan(
            BRANCH,
            "203.0.113.3",
            HostPort(FRONT),
            aliases={f"team@{BRANCH}": aliases(BRANCH)[f"team@{BRANCH}"]},
            postmaster=postmasters[2],
        ),
    )
