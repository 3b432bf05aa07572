"""What the machine has said, what the model calls it, and where the model says that one is."""

from smtpproto import (
    Auth,
    AuthResponse,
    Chunk,
    Command,
    Content,
    Data,
    Ehlo,
    EndOfContent,
    Expn,
    Helo,
    Help,
    Lhlo,
    Mail,
    Noop,
    Rcpt,
    Reply,
    Rset,
    StartTls,
    State,
    Vrfy,
)
from smtpproto.extensions.etrn import Etrn
from smtpproto.extensions.xclient import XClient
from smtpproto.extensions.xforward import XForward
from smtpproto.testing.strategies import Thing

from .model import OWN_CODES, Session

UTF8, BINARY = Mail("ü@b.example", {"SMTPUTF8": None}), Mail(None, {"BODY": "BINARYMIME"})

HELLO: list[Command] = [Ehlo("c.example"), Ehlo("c.example"), Lhlo("c.example"), Helo("c.example")]
MAIL = [Mail("a@b.example"), Mail(None), UTF8, BINARY]
RCPT = [Rcpt("c@d.example"), Rcpt("e@f.example"), Rcpt("Postmaster"), Rcpt("ü@d.example")]
LOGIN = [Auth("PLAIN"), Auth("LOGIN", b""), AuthResponse(b"x"), AuthResponse(None)]
IDLE: list[Command] = [Noop(), Help(), Vrfy("jo"), Expn("all"), Rset()]
BETWEEN: list[Command] = [
    Etrn("d.example"), XForward({"NAME": "c.example"}), XClient({"LOGIN": "jo"})
]  # fmt: skip
COMMANDS: list[Command] = [*HELLO, *MAIL, *RCPT, *LOGIN, *IDLE, *BETWEEN, Data(), StartTls()]
LEADING_NOWHERE: list[list[Command]] = [HELLO, IDLE, BETWEEN]
UNDUE: list[Thing] = [Chunk(b"abc"), Chunk(b"RCPT TO:<a@b>\r\n", last=True)]
CONTENT: list[Thing] = [Content(b".\r\n"), EndOfContent(), Chunk(b"x" * 30), Chunk(b"", last=True)]


def name(thing: object) -> str:
    """What the model calls what a client sends."""
    if isinstance(thing, Chunk):
        return "BDAT LAST" if thing.last else "BDAT"
    if isinstance(thing, AuthResponse):
        return "cancel" if thing.data is None else "response"
    if isinstance(thing, Command):
        return thing.verb.decode()
    return "content" if isinstance(thing, (Content, EndOfContent)) else "greeting"


def place(session: Session) -> State:
    """The state in which an end has to be."""
    for there, state in (
        (session.closed, State.CLOSED),
        (session.handshake, State.TLS),
        (session.service is None, State.CONNECTED),
        (not session.service, State.REFUSED),
        (session.exchange, State.AUTH),
        (session.dotted, State.CONTENT),
        (session.spoiled, State.SPOILED),
        (session.chunks, State.CHUNKS),
        (session.recipients, State.RCPT),
        (session.sender is not None, State.MAIL),
        (session.hello, State.READY),
    ):
        if there:
            return state
    return State.GREETED


def good(asked: str) -> int:
    own = OWN_CODES.get(asked)
    return own[0] if own else 250


def well(thing: Thing | None) -> Reply:
    """A good answer; to AUTH without an initial response, that one is wanted."""
    ask = isinstance(thing, Auth) and thing.initial_response is None
    return Reply(334 if ask else good(name(thing)))


def asks_for(session: Session, what: str) -> bool:
    """Whether the transaction's MAIL says SMTPUTF8, or BINARYMIME."""
    sender = session.sender
    return isinstance(sender, Mail) and what.encode() in sender.parameters.serialize()


def unfit(session: Session, thing: Thing) -> bool:
    """What is wrong with it here, though it be its turn (RFC 6531 §3.3, RFC 3030 §3)."""
    if isinstance(thing, Rcpt):
        return not (thing.is_ascii or asks_for(session, "SMTPUTF8"))
    return isinstance(thing, Data) and asks_for(session, "BINARYMIME")
