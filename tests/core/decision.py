"""A row of `docs/explanation/decisions.md`, the server that it speaks of, and ways to write one."""

from attrs import frozen

from smtpproto import Limits, ServerConnection
from smtpproto.extensions import (
    AUTH,
    BINARYMIME,
    CHUNKING,
    EIGHTBITMIME,
    ENHANCEDSTATUSCODES,
    EXPN,
    HELP,
    PIPELINING,
    SIZE,
    SMTPUTF8,
    STARTTLS,
)
from smtpproto.mechanisms import LOGIN, PLAIN

__all__ = [
    "AFTER",
    "BASIC",
    "BINARY",
    "CHUNKED",
    "DATA",
    "HELLO",
    "LMTP",
    "MAIL",
    "OLD_HELLO",
    "OLD_RCPT",
    "RCPT",
    "UTF8",
    "WITH_MORE_VERBS",
    "Decision",
    "chunks",
    "content",
    "line",
    "lmtp",
    "make_server",
    "utf8",
]

#: What the page speaks of; more extensions know more parameters, and allow longer lines.
BASIC = (PIPELINING, SIZE, EIGHTBITMIME, ENHANCEDSTATUSCODES, STARTTLS, AUTH)
WITH_MORE_VERBS = (*BASIC, HELP, EXPN)
CHUNKED = (*BASIC, CHUNKING, BINARYMIME)

HELLO = b"EHLO c.example\r\n"
OLD_HELLO = b"HELO c\r\n"
MAIL = HELLO + b"MAIL FROM:<a@b>\r\n"
RCPT = MAIL + b"RCPT TO:<c@d>\r\n"
OLD_RCPT = OLD_HELLO + b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"
DATA = RCPT + b"DATA\r\n"
BINARY = HELLO + b"MAIL FROM:<a@b> BODY=BINARYMIME\r\nRCPT TO:<c@d>\r\n"
UTF8 = HELLO + b"MAIL FROM:<a@b> SMTPUTF8\r\n"
LMTP = b"LHLO c.example\r\nMAIL FROM:<a@b>\r\n"
LMTP_TWO = LMTP + b"RCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\n"

#: What the page calls what was sent before.
AFTER = {
    b"": "at once",
    HELLO: "EHLO",
    OLD_HELLO: "HELO",
    MAIL: "MAIL",
    RCPT: "RCPT",
    OLD_RCPT: "HELO, MAIL, RCPT",
    DATA: "DATA",
    BINARY: "RCPT, BODY=BINARYMIME",
    UTF8: "MAIL … SMTPUTF8",
    LMTP: "LHLO, MAIL",
    LMTP_TWO: "two RCPT",
}


@frozen
class Decision:
    """Input `octets`, sent after `before`, gets exactly the `replies` named; `why` says why.

    `options` are those of the ServerConnection, where they are not the usual ones; `shown` is
    what the page has instead of the octets.
    """

    octets: bytes
    replies: str
    why: str
    before: bytes = HELLO
    options: tuple[tuple[str, object], ...] = ()
    shown: bytes = b""


def make_server(decision: Decision) -> ServerConnection:
    """Make the server that a decision speaks of."""
    usual: dict[str, object] = {
        "extensions": BASIC,
        "limits": Limits(message=1000, recipients=1),
        "mechanisms": (PLAIN, LOGIN),
        "plaintext_auth": True,
        "tls_available": True,
    }
    return ServerConnection("mx.example", **(usual | dict(decision.options)))  # type: ignore[arg-type]  # a table of options


def line(text: str, replies: str, why: str, before: bytes = HELLO, **options: object) -> Decision:
    octets = text.encode("utf-8") + b"\r\n"
    return Decision(octets, replies, why, before, tuple(options.items()))


def content(octets: bytes, replies: str, why: str, **options: object) -> Decision:
    return Decision(octets, replies, why, DATA, tuple(options.items()))


def chunks(octets: bytes, replies: str, why: str, before: bytes = RCPT) -> Decision:
    return Decision(octets, replies, why, before, (("extensions", CHUNKED), ("offer", CHUNKED)))


def utf8(text: str, replies: str, why: str, before: bytes = HELLO) -> Decision:
    with_utf8 = (*BASIC, SMTPUTF8)
    return line(text, replies, why, before, extensions=with_utf8, offer=with_utf8)


def lmtp(octets: bytes, replies: str, why: str, before: bytes = LMTP_TWO) -> Decision:
    limits = Limits(message=1000, recipients=2)
    options = {"extensions": CHUNKED, "offer": CHUNKED, "lmtp": True, "limits": limits}
    return Decision(octets, replies, why, before, tuple(options.items()))
