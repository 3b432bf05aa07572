"""What clients say to the servers that are explored: commands, well and badly; content; junk."""

from typing import TypeAlias

from attrs import frozen

from smtpproto import Command, Extension
from smtpproto.extensions import (
    AUTH,
    BINARYMIME,
    CHUNKING,
    EIGHTBITMIME,
    ENHANCEDSTATUSCODES,
    ETRN,
    EXPN,
    HELP,
    PIPELINING,
    SIZE,
    SMTPUTF8,
    STARTTLS,
    XCLIENT,
    XFORWARD,
)
from smtpproto.mechanisms import CRAM_MD5, PLAIN

from .session import Said, Setting

__all__ = ["ENDLESS_LINE", "SETTINGS", "Foreign", "to_say"]

ENDLESS_LINE = 13_000  # octets


@frozen
class Foreign(Command):
    """A verb of somebody else's extension."""

    verb = b"XFOREIGN"

    @classmethod
    def parse(cls, argument: bytes) -> "Foreign":
        return cls()


FOREIGN = Extension("XFOREIGN", rfc=0, verbs=(Foreign,))


def _line(text: str, verb: str = "", kind: str = "", *, loses: bool = False) -> Said:
    return Said(text.encode() + b"\r\n", verb, kind, loses=loses)


def _chunk(size: int, content: bytes, *, last: bool = False) -> Said:
    line = b"BDAT %d%b\r\n" % (size, b" LAST" if last else b"")
    return Said(line + content, "BDAT", size=size, last=last, content=content)


def _content(octets: bytes, *, ends: bool = False) -> Said:
    return Said(octets + b".\r\n" * ends, content=octets, ends=ends)


LINES = (
    _line("EHLO c.example", "EHLO"),
    _line("HELO c.example", "HELO"),
    _line("LHLO c.example", "LHLO"),
    _line("EHLO"),
    _line("MAIL FROM:<a@b>", "MAIL", "plain"),
    _line("MAIL FROM:<>", "MAIL", "plain"),
    _line("MAIL FROM:<é@b>", "MAIL", "unasked"),
    _line("MAIL FROM:<a@b> XYZ=1", "MAIL", "plain"),
    _line("MAIL FROM:a@b"),
    _line("RCPT TO:<c@d>", "RCPT"),
    _line("RCPT TO:<c@d> XYZ=1", "RCPT"),
    _line("RCPT TO:<é@d>", "RCPT", "unasked"),
    _line("RCPT TO:<>"),
    _line("DATA", "DATA"),
    _line("DATA now"),
    _line("RSET", "RSET"),
    _line("RSET now"),
    _line("NOOP", "NOOP"),
    _line("HELP", "HELP"),
    _line("VRFY c", "VRFY"),
    _line("VRFY"),
    _line("EXPN c", "EXPN"),
    _line("QUIT", "QUIT"),
    _line("QUIT now"),
    _line("STARTTLS", "STARTTLS"),
    _line("STARTTLS now"),
    _line("AUTH PLAIN", "AUTH", "PLAIN"),
    _line("AUTH PLAIN AGEAYg==", "AUTH", "PLAIN"),
    _line("AUTH CRAM-MD5", "AUTH", "CRAM-MD5"),
    _line("AUTH XYZ", "AUTH", "XYZ"),
    _line("AUTH PLAIN AGEAYg"),
    _line("XYZZY"),
    _line(""),
    _line("NOOP \0"),
    _line("NOOP " + "x" * 510),
    Said(b"NOOP\n.\r\n"),
    _line("GET / HTTP/1.1", loses=True),
    Said(b"\x16\x03\x01", loses=True),
    Said(b"x" * (ENDLESS_LINE + 1), loses=True),
)

CHUNKS = (
    _line("BDAT x", loses=True),
    _chunk(0, b""),
    _chunk(0, b"", last=True),
    _chunk(2, b"ab"),
    _chunk(2, b"ab", last=True),
    _chunk(2, b"a"),
    _chunk(2, b"a", last=True),
    _chunk(2, b"a\r"),
    _chunk(2, b"\nb", last=True),
    _chunk(2, b"a\r", last=True),
    _chunk(5, b"QUIT\n"),
    _chunk(6, b"QUIT\r\n", last=True),
)

RESPONSES = (
    _line("AGEAYg=="),
    _line(""),
    _line("*", kind="cancel"),
    _line("QUIT"),  # base64 of three octets
    _line("RSET now", kind="bad"),
    _line("AGEAYg", kind="bad"),
    _line("A" * 12_289, kind="bad"),
    Said(b"A" * (ENDLESS_LINE + 1), loses=True),
)

CONTENTS = (
    _content(b"", ends=True),
    _content(b"a\r\n", ends=True),
    _content(b"a\n\r\n", ends=True),
    _content(b"QUIT\r\n", ends=True),
    _content(b"a\r\n"),
    _content(b"\n.\r\n"),
    _content(b"QUIT\r\n"),
)

REST = (Said(b"b", content=b"b"), Said(b"\n", content=b"\n"))


OF_MESSAGES = (_line("MAIL FROM:<a@b> BODY=BINARYMIME", "MAIL", "binary"), *CHUNKS)
OF_PARAMETERS = (
    _line("MAIL FROM:<é@b> SMTPUTF8", "MAIL", "utf8"),
    _line("MAIL FROM:<a@b> SIZE=5", "MAIL", "big"),
    _line("ETRN c.example", "ETRN"),
    _line("XFOREIGN", "XFOREIGN"),
)
OF_LOGIN = (
    _line("XCLIENT NAME=c.example", "XCLIENT"),
    _line("XFORWARD NAME=c.example", "XFORWARD"),
    *CHUNKS,
)


def to_say(setting: Setting, listens: str) -> tuple[Said, ...]:
    """Return all that a client is made to say to a server that listens for this."""
    match listens:
        case "content":
            return CONTENTS
        case "octets":
            return REST
        case "response":
            return RESPONSES
        case "tls" | "nothing":
            return LINES[:20]
    return LINES + setting.lines


Offered: TypeAlias = dict[str, str | None]

_CHUNKED: Offered = {
    "PIPELINING": "",
    "8BITMIME": "",
    "ENHANCEDSTATUSCODES": "",
    "CHUNKING": "",
    "BINARYMIME": "",
    "HELP": "",
    "EXPN": "",
}
_PARAMETERS: Offered = {
    "PIPELINING": "",
    "SIZE": "4",
    "SMTPUTF8": "",
    "8BITMIME": "",
    "ETRN": "",
    "XFOREIGN": "",
}
_CLEAR: Offered = {
    "PIPELINING": "",
    "ENHANCEDSTATUSCODES": "",
    "STARTTLS": "",
    "AUTH": "CRAM-MD5",
    "XCLIENT": None,
    "XFORWARD": None,
}
_SECURE: Offered = {
    "PIPELINING": "",
    "ENHANCEDSTATUSCODES": "",
    "AUTH": "PLAIN CRAM-MD5",
    "XCLIENT": None,
    "XFORWARD": None,
}

_FOR_CHUNKS = (PIPELINING, EIGHTBITMIME, ENHANCEDSTATUSCODES, CHUNKING, BINARYMIME, HELP, EXPN)
_FOR_PARAMETERS = (PIPELINING, SIZE, SMTPUTF8, EIGHTBITMIME, ETRN, FOREIGN)
#: CHUNKING is known here, and not offered.
_FOR_LOGIN = (PIPELINING, ENHANCEDSTATUSCODES, STARTTLS, AUTH, XCLIENT, XFORWARD, CHUNKING)
_BOTH = (PLAIN, CRAM_MD5)


def _login(name: str, *, lmtp: bool) -> Setting:
    return Setting(name, _FOR_LOGIN, _CLEAR, _SECURE, _BOTH, lmtp, OF_LOGIN)


SETTINGS = (
    Setting("chunks", _FOR_CHUNKS, _CHUNKED, _CHUNKED, lines=OF_MESSAGES),
    Setting("chunks, LMTP", _FOR_CHUNKS, _CHUNKED, _CHUNKED, lmtp=True, lines=OF_MESSAGES),
    Setting("parameters", _FOR_PARAMETERS, _PARAMETERS, _PARAMETERS, lines=OF_PARAMETERS),
    _login("TLS and login", lmtp=False),
    _login("TLS and login, LMTP", lmtp=True),
    Setting("RFC 5321 alone", ()),
)
