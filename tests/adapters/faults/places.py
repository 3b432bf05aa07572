"""Where a session of the server may be when its client falls, its handler fails, or it is stopped.

`pages.py` writes the other tables of `docs/explanation/faults.md` of these; `test_server.py`,
`test_handler.py` and `test_drain.py` play them.
"""

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

__all__ = ["DRAINS", "FAILURES", "PLACES", "TLS", "Drain", "Failure", "Place", "Step"]

#: What a client says, and the codes of the replies that it waits for then.
Step = tuple[str, str]
#: In place of a step: the handshake.
TLS: Step = ("TLS", "")

GREETED: Step = ("", "220")
EHLO: Step = ("EHLO c.example\r\n", "250")
MAIL: Step = ("MAIL FROM:<a@b.example>\r\n", "250")
RCPT: Step = ("RCPT TO:<c@d.example>\r\n", "250")
DATA: Step = ("DATA\r\n", "354")
END: Step = ("hi\r\n.\r\n", "250")
ENVELOPE = (GREETED, EHLO, MAIL, RCPT)
SECURE = (GREETED, EHLO, ("STARTTLS\r\n", "220"), TLS, EHLO)
LOGIN = (GREETED, EHLO, ("AUTH LOGIN\r\n", "334"))
LMTP = (GREETED, ("LHLO c.example\r\n", "250"), MAIL, RCPT, RCPT, DATA)
SLOW = "421 4.4.2"


@frozen
class Place:
    """A client goes through the steps, says `half`, and falls.

    What it hears then, if it has half-closed, or is `silent` until the deadline. What the handler
    `sees` last before `closed`. `options` are the server's.
    """

    name: str
    steps: tuple[Step, ...]
    half: str
    half_closed: str
    silent: str
    deadline: str
    sees: str
    taken: bool = False
    options: Mapping[str, Any] = field(factory=dict, kw_only=True)


PROXIED = {"proxy_from": ["127.0.0.1"]}
SPEAKS_LMTP = {"lmtp": True}

PLACES = (
    Place("before a PROXY header", (), "", "", "", "proxy", "", options=PROXIED),
    Place("within a PROXY header", (), "PROXY TCP4 192", "", "", "proxy", "", options=PROXIED),
    Place("behind the greeting", (GREETED,), "", "", SLOW, "command", "connect"),
    Place("within a command", (GREETED, EHLO), "MAIL FROM:<a", "", SLOW, "command", "helo"),
    Place("behind EHLO", (GREETED, EHLO), "", "", SLOW, "command", "helo"),
    Place("behind STARTTLS", SECURE[:3], "", "", "", "tls", "helo"),
    Place("within the TLS handshake", SECURE[:3], "\x16\x03\x01", "", "", "tls", "helo"),
    Place(
        "within a TLS record", SECURE, "MAIL FROM:<a@b.example>\r\n", "", SLOW, "command", "helo"
    ),
    Place("behind MAIL, under TLS", (*SECURE, MAIL), "", "", SLOW, "command", "mail"),
    Place("behind a challenge of AUTH", LOGIN, "", "", SLOW, "auth", "helo"),
    Place("behind MAIL", ENVELOPE[:3], "", "", SLOW, "command", "mail"),
    Place("behind RCPT", ENVELOPE, "", "", SLOW, "command", "rcpt"),
    Place("behind 354", (*ENVELOPE, DATA), "", "", SLOW, "block", "content broke off"),
    Place("within content", (*ENVELOPE, DATA), "Subj", "", SLOW, "block", "content broke off"),
    Place(
        "within the final dot",
        (*ENVELOPE, DATA),
        "hi\r\n.\r",
        "",
        SLOW,
        "block",
        "content broke off",
    ),
    Place(
        "behind the final dot",
        (*ENVELOPE, DATA),
        "hi\r\n.\r\n",
        "250 2.0.0",
        f"250 2.0.0, {SLOW}",
        "command",
        "end of content",
        True,
    ),
    Place("within a chunk", ENVELOPE, "BDAT 9\r\nhi\r\n", "", SLOW, "block", "content broke off"),
    Place(
        "between two chunks",
        (*ENVELOPE, ("BDAT 4\r\nhi\r\n", "250")),
        "",
        "",
        SLOW,
        "command",
        "content broke off",
    ),
    Place(
        "behind the last chunk",
        ENVELOPE,
        "BDAT 4 LAST\r\nhi\r\n",
        "250 2.0.0",
        f"250 2.0.0, {SLOW}",
        "command",
        "end of content",
        True,
    ),
    Place(
        "behind the final dot of LMTP",
        LMTP,
        "hi\r\n.\r\n",
        "250 2.0.0, 250 2.0.0",
        f"250 2.0.0, 250 2.0.0, {SLOW}",
        "command",
        "end of content",
        True,
        options=SPEAKS_LMTP,
    ),
    Place("behind QUIT", (GREETED, EHLO, ("QUIT\r\n", "221")), "", "", "", "", "helo"),
)


@frozen
class Failure:
    """The handler fails in `power`: what the client hears for `asks`, behind the steps.

    `raises` is for an exception, `waits` for a handler that takes too long. The session goes on
    behind them where the reply is no 421. It is closed where the handler hangs up, or is cancelled
    with the server.
    """

    power: str
    steps: tuple[Step, ...]
    asks: str
    raises: str
    waits: str
    options: Mapping[str, Any] = field(factory=dict, kw_only=True)


FAILED = "451 4.3.0"
IN_CONTENT = (*ENVELOPE, DATA)
FAILURES = (
    Failure("connect", (), "", "421", "421"),
    Failure("before", (GREETED, EHLO), "NOOP\r\n", FAILED, FAILED),
    Failure("helo", (GREETED,), "EHLO c.example\r\n", "451", "451"),
    Failure("verify", (GREETED, EHLO), "AUTH PLAIN AGFubgB4\r\n", "454 4.7.0", "454 4.7.0"),
    Failure("mail", (GREETED, EHLO), MAIL[0], FAILED, FAILED),
    Failure("rcpt", ENVELOPE[:3], RCPT[0], FAILED, FAILED),
    Failure("content", IN_CONTENT, END[0], FAILED, FAILED),
    Failure("within content", IN_CONTENT, END[0], FAILED, FAILED),
    Failure("end of content", IN_CONTENT, END[0], FAILED, FAILED),
    Failure("vrfy", (GREETED, EHLO), "VRFY c\r\n", FAILED, FAILED),
    Failure("expn", (GREETED, EHLO), "EXPN c\r\n", FAILED, FAILED),
    Failure("etrn", (GREETED, EHLO), "ETRN d.example\r\n", FAILED, FAILED),
    Failure("unknown", (GREETED, EHLO), "XBOO\r\n", FAILED, FAILED),
    Failure(
        "end of content, by LMTP",
        LMTP,
        END[0],
        f"{FAILED}, {FAILED}",
        f"{FAILED}, {FAILED}",
        options=SPEAKS_LMTP,
    ),
)


@frozen
class Drain:
    """A server is stopped when a client is behind the steps, and has said `half`.

    What it hears `at_once`; or what it may go on with, and what it hears then, and at the end of
    the `drain` deadline if it says nothing. `holds` is a power that answers when it may go on.
    """

    name: str
    steps: tuple[Step, ...]
    at_once: str = ""
    goes_on: tuple[Step, ...] = field(default=(), kw_only=True)
    hears: str = field(default="", kw_only=True)
    behind: str = field(default="", kw_only=True)
    half: str = field(default="", kw_only=True)
    holds: str = field(default="", kw_only=True)
    options: Mapping[str, Any] = field(factory=dict, kw_only=True)

    @property
    def takes(self) -> bool:
        """Whether a message is taken if the client goes on."""
        return "BDAT" in str(self.goes_on) or "final dot" in self.name or END in self.goes_on


DOWN = "421 4.3.2"
NAME_AND_PASSWORD = (("YW5u\r\n", "334"), ("c2VjcmV0\r\n", "235"))
DRAINS = (
    Drain("before the greeting", (), holds="connect", hears=f"220, {DOWN}", behind="421"),
    Drain("behind the greeting", (GREETED,), DOWN),
    Drain("behind EHLO", (GREETED, EHLO), DOWN),
    Drain("within a command", (GREETED, EHLO), DOWN, half="NOO"),
    Drain("behind EHLO, under TLS", SECURE, DOWN),
    Drain("between two messages", (*ENVELOPE, DATA, END), DOWN),
    Drain("within the TLS handshake", SECURE[:3], goes_on=(TLS,), hears=DOWN, behind=""),
    Drain("behind a challenge of AUTH", LOGIN, goes_on=NAME_AND_PASSWORD, hears=DOWN, behind=DOWN),
    Drain("behind MAIL", ENVELOPE[:3], goes_on=(RCPT, DATA, END), hears=DOWN, behind=DOWN),
    Drain("behind RCPT", ENVELOPE, goes_on=(DATA, END), hears=DOWN, behind=DOWN),
    Drain("behind 354", (*ENVELOPE, DATA), goes_on=(END,), hears=DOWN, behind=DOWN),
    Drain(
        "within content", (*ENVELOPE, DATA), half="Subj", goes_on=(END,), hears=DOWN, behind=DOWN
    ),
    Drain(
        "between two chunks",
        (*ENVELOPE, ("BDAT 4\r\nhi\r\n", "250")),
        goes_on=(("BDAT 4 LAST\r\nhi\r\n", "250"),),
        hears=DOWN,
        behind=DOWN,
    ),
    Drain(
        "behind the final dot",
        (*ENVELOPE, DATA),
        half="hi\r\n.\r\n",
        holds="end of content",
        hears=f"250 2.0.0, {DOWN}",
        behind=DOWN,
    ),
    Drain(
        "behind the final dot of LMTP",
        LMTP,
        half="hi\r\n.\r\n",
        holds="end of content",
        hears=f"250 2.0.0, 250 2.0.0, {DOWN}",
        behind=DOWN,
        options=SPEAKS_LMTP,
    ),
)
