"""What was decided about the replies that a client hears: for decisions.py."""

from collections.abc import Sequence

from attrs import frozen

from smtpproto import (
    ClientConnection,
    Command,
    Data,
    Ehlo,
    Mail,
    Noop,
    Rcpt,
    Reply,
    Rset,
    StartTls,
)

from .hearing import hear, make

__all__ = ["HEARD", "Heard", "asking"]

#: What the page calls what was asked: what came before, its replies, and what is owed one now.
_ASKED: dict[str, tuple[Sequence[Command], bytes, Sequence[Command]]] = {
    "nothing": ((), b"", ()),
    "NOOP": ((), b"", (Noop(),)),
    "EHLO": ((), b"", (Ehlo("c.example"),)),
    "STARTTLS": ((), b"", (StartTls(),)),
    "MAIL": ((), b"", (Mail("a@b"),)),
    "MAIL, RCPT": ((), b"", (Mail("a@b"), Rcpt("c@d"))),
    "DATA": ((Mail("a@b"), Rcpt("c@d")), b"250 a\r\n250 b\r\n", (Data(),)),
    "RSET": ((), b"", (Rset(),)),
    "RSET, of a transaction": ((Mail("a@b"),), b"250 a\r\n", (Rset(),)),
    "RSET of a transaction, MAIL": ((Mail("a@b"),), b"250 a\r\n", (Rset(), Mail("e@f"))),
}


@frozen
class Heard:
    """Octets that come when `asked` was asked, what they are to the client, and why.

    `result` is the codes that are pulled, and *closed* where that is the end.
    """

    asked: str
    octets: bytes
    result: str
    why: str
    shown: bytes = b""


def asking(heard: Heard) -> ClientConnection:
    """Make the client that hears it."""
    before, replies, asked = _ASKED[heard.asked]
    client = make()
    for command in before:
        client.send(command)
    if replies:
        assert all(isinstance(event, Reply) for event in hear(client, replies))
    for command in asked:
        client.send(command)
    return client


_LONG = b"".join(b"250-X%d\r\n" % number for number in range(10_000))

HEARD = [
    Heard("NOOP", b"250 ok\r\n", "250", ""),
    Heard("NOOP", b"250\r\n", "250", "A bare code is a reply (§4.2)."),
    Heard("NOOP", b"250 \xff\x1b\r\n", "250", "Its text may be anything: it is kept, and escaped."),
    Heard("NOOP", b"279 ok\r\n", "279", "An unknown code goes by its first digit (§4.3.2)."),
    Heard("NOOP", b"599 no\r\n", "599", "The same."),
    Heard("NOOP", b"250-a\r\n250-\r\n250 b\r\n", "250", "Of several lines, some of them empty."),
    Heard("NOOP", b"250-a\r\n251 b\r\n", "closed", "The code changes (§4.2.1)."),
    Heard("NOOP", b"250-a\r\n\r\n", "closed", "An empty line is none."),
    Heard("NOOP", b"150 wait\r\n", "closed", "There are no 1yz (§4.2.1)."),
    Heard("NOOP", b"354 go\r\n", "closed", "3yz is for DATA and AUTH."),
    Heard("NOOP", b"250 a\n250 b\r\n", "closed", "A bare LF ends no line."),
    Heard("NOOP", b"hello\r\n", "closed", "No reply."),
    Heard("NOOP", b"+OK\r\n", "closed", "Nor is POP3."),
    Heard("NOOP", b"250 ok\r\n250 ok\r\n", "250, closed", "The second answers nothing,"),
    Heard("nothing", b"250 ok\r\n", "closed", "as nothing was asked."),
    Heard("nothing", b"421 4.3.2 bye\r\n", "421, closed", "421 may come at any time (§3.8)."),
    Heard("MAIL, RCPT", b"421 bye\r\n250 ok\r\n", "421, closed", "Nothing behind it is heard."),
    Heard("MAIL", b"354 go\r\n", "closed", "Nobody asked for DATA."),
    Heard("DATA", b"250 ok\r\n", "closed", "Content is what was asked for."),
    Heard("DATA", b"554 no\r\n", "554", "Or is not."),
    Heard("RSET", b"250 ok\r\n", "250", ""),
    Heard("RSET", b"530 no\r\n", "530", "There was nothing to drop (RFC 3207 §4)."),
    Heard("RSET, of a transaction", b"250 ok\r\n", "250", ""),
    Heard("RSET, of a transaction", b"500 no\r\n", "closed", "There was, and who has it now?"),
    Heard(
        "RSET of a transaction, MAIL",
        b"451 no\r\n503 nested\r\n",
        "closed",
        "Whatever came next would be for the old sender and recipients (§4.1.1.5).",
    ),
    Heard("STARTTLS", b"220 go\r\n", "220", ""),
    Heard(
        "EHLO",
        _LONG + b"250 HELP\r\n",
        "closed",
        "10,001 lines: more than 65536 octets of one reply.",
        shown=b"250-X0\r\n(and so on)\r\n250 HELP\r\n",
    ),
    Heard("EHLO", b"250 " + b"x" * 65_530 + b"\r\n", "250", "65536 of them."),
    Heard("EHLO", b"250 " + b"x" * 65_531 + b"\r\n", "closed", "65537."),
]
