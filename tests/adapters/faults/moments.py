"""Where a server may fall, how, and what its client makes of that: the first table of the page.

`pages.py` writes `docs/explanation/faults.md` of it; `test_client.py` plays every row over a real
socket.
"""

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

__all__ = ["ENDINGS", "MOMENTS", "RECIPIENTS", "TLS", "WORDS", "Dialogue", "Moment", "Turn"]

#: How it falls -> what that is.
ENDINGS = {
    "closed": "it closes the connection; under TLS, without close_notify",
    "reset": "the connection is reset; while connecting, refused",
    "half-closed": "it says that it will say no more, and reads on; under TLS, by close_notify",
    "silent": "it neither says nor reads anything any more",
    "421": "it says 421, and reads on",
    "nonsense": "it says what is no reply, and reads on",
}

#: What a cell says -> what the caller sees, and whether sending again is safe.
WORDS = {
    "ConnectError": ("is raised on entering the client", "safe"),
    "RefusedError": ("is raised on entering the client; it has the reply", "safe"),
    "LoginError": ("the same, of the login", "safe"),
    "TlsError": ("is raised on entering the client, where TLS is required", "safe"),
    "transient": (
        "an outcome, `Fate.TRANSIENT`, with reply or reason",
        "safe: nobody has it; of LMTP see below",
    ),
    "unknown": (
        "an outcome, `Fate.UNKNOWN`, with its reason",
        "may come twice: the server may have it (RFC 1047)",
    ),
    "accepted": ("an outcome, `Fate.ACCEPTED`, with the reply", "no need"),
}

#: The second is refused with 550, once it is answered.
RECIPIENTS = ("b@example.net", "no-c@example.net", "d@example.net")

#: What is awaited of the client, and said then.
Turn = tuple[bytes, bytes]
#: In place of a turn: the handshake.
TLS: Turn = (b"TLS", b"")


@frozen
class Dialogue:
    """What a server says that does not fall: before a message, and to one."""

    opening: tuple[Turn, ...]
    message: tuple[Turn, ...]
    options: Mapping[str, Any] = field(factory=dict)


HELLO: tuple[Turn, ...] = ((b"", b"220 hi\r\n"), (b"EHLO", b"250 hi\r\n"))
TRANSACTION: tuple[Turn, ...] = (
    (b"MAIL", b"250 ok\r\n"),
    (b"RCPT TO:<b@", b"250 ok\r\n"),
    (b"RCPT TO:<no-c@", b"550 5.1.1 no\r\n"),
    (b"RCPT TO:<d@", b"250 ok\r\n"),
    (b"DATA\r\n", b"354 go\r\n"),
    (b"\r\n.\r\n", b"250 2.0.0 taken\r\n"),
)
ENVELOPE_AT_ONCE: Turn = (b"<d@example.net>\r\n", b"250 ok\r\n250 ok\r\n550 5.1.1 no\r\n250 ok\r\n")

CLEAR = Dialogue(HELLO, TRANSACTION)
STARTTLS: tuple[Turn, ...] = (
    (b"", b"220 hi\r\n"),
    (b"EHLO", b"250-hi\r\n250 STARTTLS\r\n"),
    (b"STARTTLS\r\n", b"220 go\r\n"),
    TLS,
    (b"EHLO", b"250 hi\r\n"),
)
SECURE = Dialogue(STARTTLS, TRANSACTION, {"tls": "required"})
LOGIN = Dialogue(
    ((b"", b"220 hi\r\n"), (b"EHLO", b"250-hi\r\n250 AUTH PLAIN\r\n"), (b"AUTH", b"235 ok\r\n")),
    TRANSACTION,
    {"login": ("ann", "secret"), "login_in_clear": True},
)
LMTP = Dialogue(
    ((b"", b"220 hi\r\n"), (b"LHLO", b"250-hi\r\n250 PIPELINING\r\n")),
    (
        (b"DATA\r\n", b"250 ok\r\n250 ok\r\n550 5.1.1 no\r\n250 ok\r\n354 go\r\n"),
        (b"\r\n.\r\n", b"250 2.0.0 b has it\r\n"),
        (b"", b"250 2.0.0 d has it\r\n"),
    ),
    {"lmtp": True},
)
CHUNKED = Dialogue(
    ((b"", b"220 hi\r\n"), (b"EHLO", b"250-hi\r\n250-CHUNKING\r\n250 PIPELINING\r\n")),
    (ENVELOPE_AT_ONCE, (b"and the end\r\n", b"250 2.0.0 taken\r\n")),
)


def alike(word: str, **others: str) -> dict[str, str]:
    """Say the same of each ending, but for `others`: `said` is 421."""
    return dict.fromkeys(ENDINGS, word) | {
        {"said": "421", "half": "half-closed"}.get(name, name): other
        for name, other in others.items()
    }


def unsaid(word: str) -> dict[str, str]:
    """Say the same of each ending in which nothing more is said: a line is begun."""
    return dict.fromkeys(("closed", "reset", "half-closed", "silent"), word)


@frozen
class Moment:
    """A server plays the first of the turns, `plays` of them, hears `awaited`, and falls.

    Before that it says `half` of something. `deadline` is the one that silence runs into.
    `content` goes on until it has fallen, or, `endless`, until the client gives up. `first` is what
    becomes of the first recipient where that is not what the cell says. `replaced` is a session
    that a pool had kept.
    """

    name: str
    dialogue: Dialogue
    plays: int
    awaited: bytes
    outcomes: Mapping[str, str]
    deadline: str
    half: bytes = field(default=b"", kw_only=True)
    content: bool = field(default=False, kw_only=True)
    endless: bool = field(default=False, kw_only=True)
    first: str = field(default="", kw_only=True)
    replaced: bool = field(default=False, kw_only=True)

    @property
    def connected(self) -> bool:
        """Whether there is a connection by then."""
        return "closed" in self.outcomes

    @property
    def within_a_message(self) -> bool:
        """Whether there is a session, and a message was begun."""
        return self.plays >= len(self.dialogue.opening) and self.awaited != b"QUIT\r\n"

    @property
    def turns(self) -> tuple[Turn, ...]:
        """What is said before."""
        return (*self.dialogue.opening, *self.dialogue.message)[: self.plays]


NO_SESSION = "ConnectError"
MOMENTS = (
    Moment(
        "while connecting", CLEAR, 0, b"",
        {"reset": NO_SESSION, "silent": NO_SESSION}, "connect",
    ),
    Moment(
        "before the greeting", CLEAR, 0, b"",
        alike(NO_SESSION, said="RefusedError"), "greeting",
    ),
    Moment("within the greeting", CLEAR, 0, b"", unsaid(NO_SESSION), "greeting", half=b"220 h"),
    Moment(
        "behind EHLO", CLEAR, 1, b"EHLO",
        alike(NO_SESSION, said="RefusedError"), "ehlo",
    ),
    Moment(
        "within the reply to EHLO", CLEAR, 1, b"EHLO",
        unsaid(NO_SESSION), "ehlo", half=b"250-hi\r\n250 PIPE",
    ),
    Moment(
        "behind STARTTLS", SECURE, 2, b"STARTTLS\r\n",
        alike(NO_SESSION, said="TlsError"), "ehlo",
    ),
    Moment(
        "within the TLS handshake", SECURE, 3, b"\x16\x03",
        alike("TlsError", silent=NO_SESSION), "tls",
    ),
    Moment(
        "behind AUTH", LOGIN, 2, b"AUTH",
        alike(NO_SESSION, said="LoginError"), "auth",
    ),
    Moment(
        "behind MAIL", CLEAR, 2, b"MAIL",
        alike("transient"), "mail", replaced=True,
    ),
    Moment(
        "behind MAIL, within a TLS record", SECURE, 5, b"MAIL",
        unsaid("transient"), "mail", half=b"250 ok\r\n", replaced=True,
    ),
    Moment("behind the reply to MAIL", CLEAR, 3, b"RCPT", alike("transient"), "rcpt"),
    Moment(
        "behind the replies to some RCPT", CLEAR, 5, b"RCPT TO:<d@",
        alike("transient"), "rcpt",
    ),
    Moment("behind DATA", CLEAR, 6, b"DATA\r\n", alike("transient"), "data"),
    Moment(
        "within content", CLEAR, 7, b"Subject: x",
        alike("transient", half="unknown", nonsense="unknown"), "block", content=True,
    ),
    Moment(
        "behind the final dot", CLEAR, 7, b"\r\n.\r\n",
        alike("unknown", said="transient"), "final_dot",
    ),
    Moment(
        "behind the final dot, under TLS", SECURE, 10, b"\r\n.\r\n",
        alike("unknown", said="transient"), "final_dot",
    ),
    Moment(
        "within the reply to the final dot", CLEAR, 7, b"\r\n.\r\n",
        unsaid("unknown"), "final_dot", half=b"250 2.0",
    ),
    Moment(
        "behind the reply to the first of many chunks", CHUNKED, 3, b"BDAT 65536\r\n",
        alike("transient"), "block", half=b"250 ok\r\n",
        content=True, endless=True,
    ),
    Moment(
        "behind the last chunk", CHUNKED, 3, b"and the end\r\n",
        alike("unknown", said="transient"), "final_dot",
    ),
    Moment(
        "between the replies of LMTP", LMTP, 4, b"",
        alike("transient"), "final_dot", first="accepted",
    ),
    Moment("behind QUIT", CLEAR, 8, b"QUIT\r\n", alike("accepted"), "quit"),
)  # fmt: skip
