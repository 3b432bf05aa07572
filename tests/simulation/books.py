"""What the ledger keeps: messages, copies of them, and what is known of the world they are in."""

from collections.abc import Callable, Mapping, Sequence

from attrs import define, field, frozen

from smtpproto.core.command import Mail, Rcpt

from .loop import Life
from .network import Pipe
from .plans import Plan
from .terms import Terms, sender_of

__all__ = [
    "MAX_HOPS",
    "ON_ITS_WAY",
    "PROMPT",
    "Broken",
    "Copy",
    "Held",
    "Key",
    "Promise",
    "offer_of",
]

#: A message in a node's spool: the node's name, and the id there.
Key = tuple[str, str]

#: Seconds after which a recipient that nothing is wrong with has to be delivered.
PROMPT = 300.0
#: How many servers of ours a message may pass.
MAX_HOPS = 12
#: What a command may take to its next hop.
ON_ITS_WAY = 60.0


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
    `asked_at`, by the loop's clock, is when MAIL came, with the parameters `asked`, to who `offers`
    these extensions.
    """

    where: str
    life: Life | None
    at: float
    pipe: Pipe | None
    until: int = 0
    offers: Sequence[str] = ()
    asked: Mapping[str, str] | None = None
    asked_at: float | None = None
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

    def offered(self, keyword: str) -> str | None:
        """Return what was offered of an extension, "" where it has no argument; None: not that."""
        return offer_of(self.offers, keyword)


def offer_of(offers: Sequence[str], keyword: str) -> str | None:
    words = (each.partition(" ") for each in offers)
    return next((rest for word, _, rest in words if word == keyword), None)


@define(eq=False)
class Held:
    """A message that a node has said 250 to, or made itself (`report`).

    `senders` are those of recipients behind a list, `hops` how many nodes it has come through.
    `stopped`: the operator keeps it, for sure or (None) perhaps; `quiet`: and since then no attempt
    is under way.
    """

    key: Key
    mail: Mail
    arrived: float
    asked: dict[str, Rcpt]
    report: bool
    hops: int = 0
    owed: dict[str, Rcpt] = field(init=False)
    ended: dict[str, str] = field(factory=dict, init=False)
    prompt: set[str] = field(factory=set)
    senders: dict[str, str] = field(factory=dict)
    stopped: bool | None = False
    quiet: bool = False
    terms: Terms = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.owed = dict(self.asked)
        self.terms = Terms.of(self.mail, self.arrived)

    def sender(self, path: str) -> str:
        return self.senders.get(path, sender_of(self.mail))


@frozen
class Promise:
    """What is known of addresses, by who made the world."""

    #: Domains and addresses that are said not to exist, or not to take mail.
    hopeless: frozenset[str]
    #: Domains that nobody ever reaches: all others can be, before a message expires.
    dead: frozenset[str]
    plans: Mapping[str, Plan]
    #: (node, sender, path) -> the names of the hosts that mail may go to, now.
    places: Callable[[str, str, str], frozenset[str]]
    #: (node, sender, path) -> what a rule does with it instead, now; "" for nothing.
    says: Callable[[str, str, str], str]
    #: Host -> what it offers.
    offers: Callable[[str], Sequence[str]]
