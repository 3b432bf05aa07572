"""What has to be so behind every step of a server: one small function for each clause of the RFCs.

Each says True or False of a step, or None where it has nothing to say of it. They are about what
was said, what is known at the wire, and what is public of the server; they look no deeper.
"""

import re
from collections.abc import Callable
from typing import TypeAlias

from attrs import define, frozen

from smtpproto import (
    NEED_DATA,
    PAUSED,
    BadCommand,
    ConnectionClosed,
    Content,
    EndOfChunk,
    EndOfContent,
    Reply,
    Signal,
    State,
)
from smtpproto.core.server_connection import ServerEvent

from .clauses import HELLOS, Answer, Clause, forbidding
from .session import CONTENT_LIMIT, Past, Said, Setting

__all__ = ["KEPT", "Step", "View"]


@frozen(cache_hash=True)
class View:
    """What is public of a server."""

    state: State
    tls: bool = False
    authenticated: bool = False
    extended: bool = False
    helo_name: bytes | None = None
    offered: tuple[tuple[str, str], ...] = ()
    #: XFORWARD is remembered.
    preamble: bool = False
    #: Of the MAIL in the envelope: its kind, "" where there is no envelope.
    mail: str = ""
    recipients: int = 0
    replies_owed: int = 0
    buffered: int = 0

    @property
    def session(self) -> tuple[object, ...]:
        """What a command may change."""
        known = (self.state, self.tls, self.authenticated, self.extended, self.helo_name)
        return (*known, self.offered, self.preamble, self.mail, self.recipients)


@define
class Step:
    """One step of a session: what was done, and what came of it."""

    setting: Setting
    before: Past
    was: View
    after: Past
    now: View
    #: The client said this, or
    said: Said | None = None
    #: the server was told to say this, and did, unless it was `refused`; or
    answer: Answer | None = None
    refused: bool = False
    wire: bytes = b""
    #: TLS was begun (False: it was refused); or
    handshake: bool | None = None
    #: the client's end of file came.
    eof: bool = False
    #: What the server pulled then, why it stopped, and the reply of a RemoteProtocolError.
    events: tuple[ServerEvent, ...] = ()
    signal: Signal | None = None
    lost: Reply | None = None
    suggested: Reply | None = None

    @property
    def hears(self) -> str:
        """What the server listened for when the client spoke; "" where it did not speak."""
        return self.before.listens if self.said is not None else ""

    @property
    def asks(self) -> str:
        """What the client asked for by speaking; "" where it did not, or that was no command."""
        asked = self.after.asked
        return asked.verb if asked is not None and self.said is not None else ""

    @property
    def digit(self) -> int:
        """The first digit of what the server said; 0 where it said nothing, or 421."""
        code = self.answer.code if self.answer is not None and not self.refused else 0
        return 0 if code == 421 else code // 100

    @property
    def answers(self) -> str:
        """The verb that the server has answered; "" where it has not, or with 421."""
        return self.before.asked.verb if self.digit and self.before.asked is not None else ""

    @property
    def secured(self) -> bool:
        """Whether TLS has begun behind STARTTLS."""
        return self.handshake is True and self.before.handshake


Keeps: TypeAlias = Callable[[Step], "bool | None"]
KEPT: dict[Clause, Keeps] = {}


def keeps(cites: str) -> Callable[[Keeps], Keeps]:
    """Enter a clause; what it says is the docstring."""

    def enter(check: Keeps) -> Keeps:
        KEPT[Clause((check.__doc__ or "").rstrip("."), cites)] = check
        return check

    return enter


# Replies


@keeps("RFC 5321 §4.2")
def one_reply_for_each_command(step: Step) -> bool | None:
    """Each command is owed one reply."""
    if step.after.asked is None or step.said is None or step.asks == "END":
        return None
    return step.now.replies_owed == 1 and step.signal is PAUSED


@keeps("RFC 5321 §3.3, §4.3.2")
def one_reply_for_the_content(step: Step) -> bool | None:
    """The content is owed one reply."""
    if step.asks != "END" or step.after.lmtp:
        return None
    return step.now.replies_owed == 1 and step.signal is PAUSED


@keeps("RFC 2033 §4.2, §4.3")
def one_reply_for_each_recipient(step: Step) -> bool | None:
    """In LMTP the content is owed a reply for each accepted recipient."""
    if step.asks != "END" or not step.after.lmtp:
        return None
    return step.now.replies_owed == step.before.rcpts and step.signal is PAUSED


@keeps("RFC 2033 §4.3")
def no_reply_for_no_recipient(step: Step) -> bool | None:
    """In LMTP the last chunk for nobody is owed no reply."""
    past = step.before
    nobody = past.lmtp and past.offers_chunks and past.mail != "" and not past.rcpts
    if not nobody or step.after.mail or step.after.over or step.hears not in ("line", "octets"):
        return None
    return step.now.replies_owed == 0 and step.signal is NEED_DATA and not step.events


@keeps("RFC 5321 §4.2")
def one_reply_pays_for_one(step: Step) -> bool | None:
    """Each reply pays for one command."""
    if not step.answers:
        return None
    return step.now.replies_owed == step.was.replies_owed - 1 == step.before.owed - 1


_REPLY = re.compile(rb"(?:(\d{3})-[^\r\n]*\r\n)*(\d{3})(?: [^\r\n]*)?\r\n")


@keeps("RFC 5321 §4.2")
def one_reply_on_the_wire(step: Step) -> bool | None:
    """A reply is one reply on the wire."""
    if step.answer is None or step.refused:
        return None
    found = _REPLY.fullmatch(step.wire)
    return found is not None and {found[1] or found[2], found[2]} == {b"%d" % step.answer.code}


@keeps("RFC 5321 §4.2")
def deaf_while_owing(step: Step) -> bool | None:
    """While a reply is owed nothing more is heard."""
    return step.signal is PAUSED if step.after.owed and not step.refused else None


@keeps("RFC 5321 §4.2")
def listening_while_not(step: Step) -> bool | None:
    """While none is owed, the server listens."""
    if step.after.listens in ("reply", "tls", "nothing") or step.refused:
        return None
    return step.signal is NEED_DATA and step.now.replies_owed == 0


@keeps("RFC 5321 §4.3.2")
def suggestions(step: Step) -> bool | None:
    """What the server suggests may be said."""
    if step.suggested is None:
        return None
    return not forbidding(step.setting, step.after, Answer(step.suggested))


@keeps("RFC 5321 §4.2")
def refused_by_the_server_itself(step: Step) -> bool | None:
    """What cannot be said, or done, changes nothing."""
    return step.now == step.was and not step.wire if step.refused else None


# The end


@keeps("RFC 5321 §4.1.1.10")
def quit(step: Step) -> bool | None:
    """QUIT, once answered, is the end."""
    return step.now.state is State.CLOSED if step.answers == "QUIT" else None


@keeps("RFC 5321 §3.8")
def shutting_down(step: Step) -> bool | None:
    """421 is the end."""
    said = step.answer is not None and step.answer.code == 421 and not step.refused
    return step.now.state is State.CLOSED if said else None


@keeps("RFC 5321 §4.1.1.10, §3.8")
def deaf_after_the_end(step: Step) -> bool | None:
    """After the end nothing is heard."""
    if not step.before.over or step.refused:
        return None
    return set(step.events) == {ConnectionClosed()} and step.now == step.was


@keeps("RFC 5321 §4.1.1.10, §3.8")
def nothing_owed_after_the_end(step: Step) -> bool | None:
    """After the end no reply is owed."""
    return step.now.replies_owed == 0 if step.now.state is State.CLOSED else None


@keeps("RFC 5321 §3.8, §4.1.1.5")
def no_other_end(step: Step) -> bool | None:
    """A server closes for QUIT, 421 and lost framing, and nothing else."""
    return None if step.after.over else step.now.state is not State.CLOSED


@keeps("RFC 5321 §4.2.4, RFC 3030 §2")
def lost_framing(step: Step) -> bool | None:
    """What no one can go on from is refused, and the end."""
    if step.hears not in ("line", "response") or step.said is None or not step.said.loses:
        return None if step.lost is None else False
    refused = step.lost is not None and step.lost.code // 100 == 5
    return refused and step.now.state is State.CLOSED


@keeps("RFC 5321 §4.1.1.5, §4.1.1.10")
def end_of_file(step: Step) -> bool | None:
    """The end of file is the end."""
    if not step.eof:
        return None
    return step.now.state is State.CLOSED and set(step.events) == {ConnectionClosed()}


# TLS and login


@keeps("RFC 3207 §4.2")
def clear_text_behind_starttls(step: Step) -> bool | None:
    """What came in clear behind STARTTLS is never heard."""
    if not step.before.handshake or step.eof or step.refused:
        return None
    return not step.events and step.now.buffered == 0


@keeps("RFC 3207 §4.2")
def login_and_starttls(step: Step) -> bool | None:
    """No login survives STARTTLS."""
    return not step.now.authenticated if step.secured else None


@keeps("RFC 3207 §4.2")
def ehlo_and_starttls(step: Step) -> bool | None:
    """No EHLO survives STARTTLS."""
    return step.now.helo_name is None and not step.now.extended if step.secured else None


@keeps("RFC 3207 §4.2")
def envelope_and_starttls(step: Step) -> bool | None:
    """No envelope survives STARTTLS."""
    return step.now.mail == "" and step.now.state is State.GREETED if step.secured else None


@keeps("RFC 3207 §4.2")
def extensions_and_starttls(step: Step) -> bool | None:
    """No extension survives STARTTLS: what is offered then is what is offered under TLS."""
    return (
        [word for word, _ in step.now.offered] == [*step.setting.secure] if step.secured else None
    )


@keeps("RFC 3207 §4, §4.2")
def where_tls_begins(step: Step) -> bool | None:
    """TLS begins behind the 220 to STARTTLS, or first of all, and once."""
    if step.handshake is None:
        return None
    first = step.before.greeted is None and not step.before.tls and not step.before.over
    return step.handshake is (step.before.handshake or first)


@keeps("RFC 4954 §4, §6")
def login(step: Step) -> bool | None:
    """A login is a 2yz to AUTH, and nothing else is."""
    return None if step.after.over else step.now.authenticated == step.after.login


# The session


@keeps("RFC 5321 §2.2.1, RFC 4954 §3")
def offer(step: Step) -> bool | None:
    """What is offered is what should be, in clear and under TLS."""
    if step.after.over:
        return None
    wanted = step.setting.offered(tls=step.after.tls)
    return len(wanted) == len(step.now.offered) and all(
        keyword in wanted and wanted[keyword] in (None, argument)
        for keyword, argument in step.now.offered
    )


@keeps("RFC 5321 §4.1.1.1")
def announcement(step: Step) -> bool | None:
    """The reply to EHLO announces what is offered, and that to HELO nothing."""
    if step.answers not in HELLOS or step.digit != 2:
        return None
    lines = step.wire.split(b"\r\n")[1:-1]
    keywords = [line[4:].split(b" ")[0].decode() for line in lines]
    wanted = step.setting.offered(tls=step.after.tls)
    return keywords == ([] if step.answers == "HELO" else list(wanted))


@keeps("RFC 5321 §4.1.1.1, RFC 3207 §4.2")
def hello(step: Step) -> bool | None:
    """EHLO is remembered until the session begins anew."""
    if step.after.over:
        return None
    named = step.now.helo_name is not None
    extended = step.after.hello in ("EHLO", "LHLO")
    return named == (step.after.hello != "") and step.now.extended == extended


@keeps("RFC 5321 §4.1.4")
def heard_and_not_answered(step: Step) -> bool | None:
    """What is heard changes nothing before it is answered."""
    if not step.after.owed or step.said is None:
        return None
    return step.now.session == step.was.session


@keeps("RFC 5321 §4.1.4")
def refused_command(step: Step) -> bool | None:
    """A refused command changes nothing."""
    moves = ("GREETING", "QUIT", "END", "BDAT", "RESPONSE")
    if step.digit not in (4, 5) or step.answers in moves:
        return None
    return step.now.session == step.was.session


@keeps("RFC 5321 §4.1.1.6-9")
def idle_command(step: Step) -> bool | None:
    """NOOP, HELP, VRFY and EXPN change nothing."""
    if step.answers not in ("NOOP", "HELP", "VRFY", "EXPN"):
        return None
    return step.now.session == step.was.session


@keeps("RFC 5321 §4.1.4")
def place(step: Step) -> bool | None:
    """The session is where somebody at the wire believes it to be."""
    return step.now.state is where(step.after)


def where(past: Past) -> State:
    """Return the state that a server should be in."""
    if past.over:
        return State.CLOSED
    if past.handshake:
        return State.TLS
    if not past.greeted:
        return State.CONNECTED if past.greeted is None else State.REFUSED
    if past.exchange:
        return State.AUTH
    judged = past.asked is not None and past.asked.verb == "END" and past.asked.kind == "DATA"
    if past.content or judged:
        return State.CONTENT
    if past.spoiled:
        return State.SPOILED
    if past.chunks:
        return State.CHUNKS
    if past.mail:
        return State.RCPT if past.rcpts else State.MAIL
    return State.READY if past.hello else State.GREETED


# The transaction


@keeps("RFC 5321 §2.3.1, §4.1.1.3")
def envelope(step: Step) -> bool | None:
    """The envelope is what was accepted, no more and no less."""
    if step.after.over:
        return None
    mail = step.after.mail if step.after.rcpts else ""
    return step.now.recipients == step.after.rcpts and step.now.mail == mail


@keeps("Postfix's XFORWARD_README")
def preamble(step: Step) -> bool | None:
    """What XFORWARD said lasts as long as its transaction."""
    return None if step.after.over else step.now.preamble == step.after.preamble


@keeps("RFC 5321 §4.1.1.5")
def rset(step: Step) -> bool | None:
    """RSET drops the transaction."""
    if step.answers != "RSET" or step.digit != 2:
        return None
    return step.now.mail == "" and step.now.state in (State.READY, State.GREETED)


@keeps("RFC 5321 §4.1.4")
def ehlo_again(step: Step) -> bool | None:
    """EHLO drops the transaction."""
    if step.answers not in HELLOS or step.digit != 2:
        return None
    return step.now.mail == "" and step.now.state is State.READY


@keeps("RFC 5321 §4.1.1.4, RFC 2033 §4.2")
def verdict(step: Step) -> bool | None:
    """The last reply to the content ends the transaction, and none before it."""
    if step.answers != "END":
        return None
    if step.before.owed > 1:
        return step.now.session == step.was.session
    return step.now.mail == "" and step.now.state is State.READY


@keeps("RFC 5321 §4.2")
def bad_command(step: Step) -> bool | None:
    """What cannot be accepted is heard as a BadCommand."""
    asked = step.after.asked
    if step.said is None or asked is None or asked.verb == "END" or asked.fault:
        return None
    well = [Answer(Reply(code)) for code in (220, 221, 235, 250, 354)]
    possible = not all(forbidding(step.setting, step.after, answer) for answer in well)
    # `*` is a response, though one that has to be refused.
    return (
        possible
        or asked.kind == "cancel"
        or any(isinstance(event, BadCommand) for event in step.events)
    )


@keeps("RFC 5321 §4.1.1.4, RFC 3030 §2")
def content(step: Step) -> bool | None:
    """Content arrives as it was sent; what is swallowed is not shown."""
    if step.hears not in ("line", "octets", "content") or step.said is None:
        return None
    came = b"".join(event.data for event in step.events if isinstance(event, Content))
    past = step.before
    begun = step.said.verb == "BDAT" and past.takes_chunks and past.rcpts and not past.spoiled
    if step.hears != "content" and not past.receives and not begun:
        return came == b""
    if step.after.octets > CONTENT_LIMIT:
        return None  # cut off
    if step.hears == "content" and (past.octets or not step.said.ends):
        return None  # some of it may be held back
    return came == step.said.content


@keeps("RFC 5321 §2.3.8, §4.5.3.1.9, RFC 1870 §6.3")
def fault(step: Step) -> bool | None:
    """A fault is told at the end of the content, or of the chunk."""
    asked = step.after.asked
    ends = [e for e in step.events if isinstance(e, (EndOfContent, EndOfChunk))]
    if not ends or asked is None:
        return None
    return len(ends) == 1 and (ends[0].fault is not None) == asked.fault
