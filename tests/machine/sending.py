"""What a client may not send, and where: one small function for each clause of the RFCs.

As `clauses.py` for servers: a client has to refuse exactly what one of them denies. They are asked
about what will be known if all that is in flight is answered well (`hoped`): that is as far as a
client can see when it pipelines.
"""

from collections.abc import Callable
from typing import TypeAlias

from attrs import frozen

from smtpproto import Chunk, Command, Content, EndOfContent, Reply

from .clauses import Answer, Clause, forbidding
from .session import Past, Said, Setting

__all__ = ["DENIED", "UNKNOWABLE", "Thing", "Wish", "known_offer", "well_answered"]


@frozen
class Thing:
    """What a client is asked to send: the value, what it is on the wire, and what it needs."""

    value: Command | Content | EndOfContent | Chunk
    said: Said
    keywords: tuple[str, ...] = ()
    #: It has a CR or LF that stands alone.
    bare: bool = False


@frozen
class Wish:
    """A client is about to send a thing while others are in flight."""

    setting: Setting
    hoped: Past
    flight: tuple[Said, ...]
    thing: Thing
    #: A chunk was refused, and no RSET is sent behind it.
    to_reset: bool = False

    @property
    def verb(self) -> str:
        return self.thing.said.verb


def known_offer(setting: Setting, past: Past) -> dict[str, str | None]:
    """Return what the client was told that the server offers."""
    return setting.offered(tls=past.tls) if past.extended else {}


#: Sentences of `clauses.py` that a client may break, or let a server break, and why.
UNKNOWABLE = {
    "The 250 to EHLO announces what is offered": "that reply is how a client learns of it",
    "EXPN and HELP are accepted where they are announced": "old servers announce neither",
    "There are no more recipients than the limit": "it is the server's",
    "Content with a bare CR or LF, or too much of it, is never accepted": (
        "how much is too much, the server knows; a bare CR or LF is never sent"
    ),
    "A greeting, STARTTLS, AUTH, DATA and QUIT are accepted by codes of their own": (
        "a client goes by the first digit (RFC 5321 §4.3.2)"
    ),
    "221 answers QUIT alone": "a client goes by the first digit (RFC 5321 §4.3.2)",
    "There is no 354 without an accepted recipient": (
        "one may be in flight: a single dot is sent then (RFC 2920 §3.1); not in LMTP"
    ),
}


def objections(setting: Setting, past: Past, answer: Answer) -> list[Clause]:
    """Return the clauses that object to a reply, but for those that a client cannot know of."""
    found = forbidding(setting, past, answer)
    return [clause for clause in found if clause.says not in UNKNOWABLE]


def well_answered(setting: Setting, past: Past) -> Past:
    """Answer well all that is owed; what cannot be answered so leaves things where they are."""
    while past.owed:
        goes_on = past.asked is not None and past.asked.verb == "DATA"
        answer = Answer(Reply(354 if goes_on else 250))
        if objections(setting, past, answer):
            return past._replace(owed=0, asked=None)
        past = past.answered(answer.code)
    return past


Denies: TypeAlias = Callable[[Wish], bool]
DENIED: dict[Clause, Denies] = {}


def denies(cites: str) -> Callable[[Denies], Denies]:
    """Enter a clause; what it says is the docstring."""

    def enter(check: Denies) -> Denies:
        DENIED[Clause((check.__doc__ or "").rstrip("."), cites)] = check
        return check

    return enter


@denies("RFC 5321 §4.1.1.10, §3.8")
def the_end(wish: Wish) -> bool:
    """Nothing is sent after the end."""
    return wish.hoped.over


@denies("RFC 3207 §4")
def handshake_owed(wish: Wish) -> bool:
    """Nothing is sent between the 220 to STARTTLS and the handshake."""
    return wish.hoped.handshake


@denies("RFC 5321 §4.3.1, RFC 2920 §3.1")
def not_pipelining(wish: Wish) -> bool:
    """Nothing is sent before the reply to the last command, where PIPELINING is not offered."""
    return bool(wish.flight) and "PIPELINING" not in known_offer(wish.setting, wish.hoped)


@denies("RFC 2920 §3.1, RFC 3030 §4.2, Postfix's XFORWARD_README")
def end_of_group(wish: Wish) -> bool:
    """Only MAIL, RCPT, RSET, chunks and XFORWARD are followed by others before their reply."""
    followed = ("MAIL", "RCPT", "RSET", "BDAT", "XFORWARD")
    return bool(wish.flight) and wish.flight[-1].verb not in followed


@denies("RFC 3030 §2")
def early_chunk(wish: Wish) -> bool:
    """Chunks wait for the replies to MAIL and RCPT."""
    return wish.verb == "BDAT" and any(said.verb != "BDAT" for said in wish.flight)


@denies("RFC 3030 §2")
def refused_chunk(wish: Wish) -> bool:
    """Behind a chunk that was refused comes RSET, or QUIT."""
    return wish.to_reset and wish.verb not in ("RSET", "QUIT")


@denies("RFC 5321 §3.3")
def early_content(wish: Wish) -> bool:
    """Content comes behind 354."""
    return wish.verb == "" and (wish.hoped.listens != "content" or bool(wish.flight))


@denies("RFC 5321 §4.1.1.4")
def command_in_content(wish: Wish) -> bool:
    """No command stands in content."""
    return wish.verb != "" and wish.hoped.listens == "content"


@denies("RFC 4954 §4")
def exchange(wish: Wish) -> bool:
    """Within AUTH there are responses, and nowhere else."""
    return wish.verb != "" and (wish.verb == "RESPONSE") is not wish.hoped.exchange


@denies("RFC 5321 §2.3.8")
def bare_line_end(wish: Wish) -> bool:
    """No bare CR or LF is sent, but in BINARYMIME."""
    return wish.thing.bare and wish.hoped.mail != "binary"


@denies("RFC 5321 §2.2.1, §4.1.1.11")
def not_offered(wish: Wish) -> bool:
    """Nothing is sent that was not offered."""
    return not known_offer(wish.setting, wish.hoped).keys() >= set(wish.thing.keywords)


@denies("RFC 5321 §4.1.4")
def in_vain(wish: Wish) -> bool:
    """Nothing is sent that no server could accept."""
    if wish.hoped.listens not in ("line", "response") or wish.thing.said.kind == "cancel":
        return False
    past = wish.hoped.heard(wish.thing.said)
    well = [Answer(Reply(code)) for code in (250, 354)]
    return not past.owed or all(objections(wish.setting, past, answer) for answer in well)
