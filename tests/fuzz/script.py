"""What a client says in targets: a table of commands and pieces of content to draw from."""

from smtpproto import (
    Auth,
    AuthResponse,
    Bdat,
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
    Quit,
    Rcpt,
    Rset,
    StartTls,
    Vrfy,
)
from smtpproto.extensions.dsn import ENVID, NOTIFY, ORCPT, RET, Notify, OriginalRecipient, Ret
from smtpproto.extensions.etrn import Etrn, Queue
from smtpproto.extensions.xclient import XClient
from smtpproto.extensions.xforward import XForward

from .draw import Draw

__all__ = ["SCRIPT", "Thing", "drawn", "is_asked"]

Thing = Command | Content | EndOfContent | Chunk

#: What can be sent; first what seeds name by its number, so add at the end.
SCRIPT: tuple[Thing, ...] = (
    Ehlo("client.example"),
    Mail("a@b.example"),
    Rcpt("c@d.example"),
    Data(),
    Content(b"Subject: x\r\n\r\n.x\r\n"),
    EndOfContent(),
    Rset(),
    Quit(),
    Lhlo("client.example"),
    Helo("[192.0.2.1]"),
    Mail(None, {"SIZE": 10, "BODY": "8BITMIME", **RET(Ret.HDRS), **ENVID(b"id =+")}),
    Mail("é@b.example", {"SMTPUTF8": None}),
    Mail("a@b.example", {"BODY": "BINARYMIME"}),
    Mail("a@b.example", {"SIZE": 10**9, "HOLDFOR": 5, "BY": "60;R"}),
    Rcpt("Postmaster"),
    Rcpt("é@d.example"),
    Rcpt(
        '"c d"@[IPv6:::1]',
        {
            **NOTIFY({Notify.FAILURE, Notify.DELAY}),
            **ORCPT(OriginalRecipient("rfc822", "c d@e")),
        },
    ),
    Rcpt("c@d.example", {"RRVS": "2014-04-03T23:01:00Z;C"}),
    Rcpt("c@d.example", {"UNHEARD-OF": "of"}),
    Content(b"."),
    Content(b"\r"),
    Content(b"\n"),
    Content(b"x"),
    Chunk(b"ab\r\n.\r\n"),
    Chunk(b"\r"),
    Chunk(b"\n"),
    Chunk(b""),
    Chunk(b"", last=True),
    Chunk(b"cd\r\n", last=True),
    Chunk(b"bare\r", last=True),
    Bdat(3),
    StartTls(),
    Auth("PLAIN", b"\0ann\0pw"),
    Auth("PLAIN"),
    Auth("LOGIN"),
    Auth("SCRAM-SHA-256", b"n,,n=ann,r=nonce"),
    Auth("UNHEARD-OF", b""),
    AuthResponse(b"\0ann\0pw"),
    AuthResponse(b"ann"),
    AuthResponse(b"pw"),
    AuthResponse(b""),
    AuthResponse(None),
    Noop("x y"),
    Vrfy("a SMTPUTF8"),
    Expn("list"),
    Help(),
    Etrn("b.example", Queue.SUBDOMAINS),
    XClient({"NAME": "x.example", "ADDR": "192.0.2.1"}),
    XForward({"IDENT": "x+y"}),
)


def drawn(draw: Draw) -> Thing | None:
    """Draw what to send next; None for nothing, so also when the choices have run out."""
    at = draw.below(len(SCRIPT) + 1)
    return SCRIPT[at - 1] if at else None


def is_asked(thing: Thing) -> bool:
    """Whether it is owed a reply: all but content that goes on."""
    return not isinstance(thing, Content)
