"""What somebody at the wire knows of a session: told anew, from the RFCs and the octets alone.

`Past` is a second, small model of an SMTP or LMTP session. It looks at no connection: only at
what the client said and at the codes that the server answered. The clauses in `clauses.py` are
about it, and the exploration holds real connections against it.
"""

import re
from typing import NamedTuple

from attrs import field, frozen

from smtpproto import Extension
from smtpproto.core.sasl import Mechanism

__all__ = ["CONTENT_LIMIT", "RECIPIENT_LIMIT", "Asked", "Past", "Said", "Setting"]

#: Octets that a message may have, and recipients: as few as make every difference.
CONTENT_LIMIT = 4
RECIPIENT_LIMIT = 2

_BARE = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)")


@frozen
class Setting:
    """How a server was made: what it knows, and what it is to offer in clear and under TLS.

    `clear` and `secure` map keyword to argument as the EHLO reply is to have them, spelled out,
    so that nothing of the offer is taken from the code that makes it; the argument None means
    any.
    """

    name: str
    known: tuple[Extension, ...]
    clear: dict[str, str | None] = field(factory=dict, eq=False)
    secure: dict[str, str | None] = field(factory=dict, eq=False)
    mechanisms: tuple[Mechanism, ...] = ()
    lmtp: bool = False
    #: What is said to it beside what is said to all.
    lines: tuple["Said", ...] = field(default=(), eq=False)

    def offered(self, *, tls: bool) -> dict[str, str | None]:
        """Return what is to be offered now."""
        return self.secure if tls else self.clear


@frozen(cache_hash=True)
class Said:
    """What a client says in one go.

    `verb` is the command it is, "" for a line that is none; `kind` tells apart the forms of one
    that matter. A BDAT has `size` and `last`, and in `content` the octets behind it, perhaps not
    all of them. Content has `content`, without stuffing, and `ends` with its final dot.
    `loses` is what no server can go on from.
    """

    octets: bytes
    verb: str = ""
    kind: str = ""
    size: int = 0
    last: bool = False
    content: bytes = b""
    ends: bool = False
    loses: bool = False

    def __str__(self) -> str:
        shown = repr(self.octets)[2:-1]
        return shown if len(shown) < 60 else f"{shown[:40]}… ({len(self.octets)} octets)"


@frozen(cache_hash=True)
class Asked:
    """What a reply is owed to: a verb, or GREETING, RESPONSE (in AUTH), END (of the content).

    "" is a line that was no command. `fault`: its content broke a rule on the way.
    """

    verb: str
    kind: str = ""
    fault: bool = False


class Past(NamedTuple):
    """What was said and answered so far, as far as it matters."""

    lmtp: bool = False
    #: The greeting: None before it, True for 220, False for 554.
    greeted: bool | None = None
    tls: bool = False
    #: 220 was said to STARTTLS, and the handshake is not done.
    handshake: bool = False
    #: The EHLO, HELO or LHLO accepted last, "" for none.
    hello: str = ""
    login: bool = False
    #: 334 was said last.
    exchange: bool = False
    #: XFORWARD said something of the next transaction, or of this one.
    preamble: bool = False
    #: The kind of the MAIL accepted, "" without a transaction.
    mail: str = ""
    rcpts: int = 0
    #: A chunk was accepted, or one was refused.
    chunks: bool = False
    spoiled: bool = False
    #: Octets of content so far (one over the limit stands for all above), whether a CR or LF
    #: stood alone, and whether a CR came last.
    octets: int = 0
    bare: bool = False
    tail: bool = False
    #: 354 was said and the final dot has not come.
    content: bool = False
    #: Octets still to come of a chunk, whether it is the last, and whether it is received.
    left: int = 0
    last: bool = False
    receives: bool = False
    #: What the replies are owed to, and how many.
    asked: Asked | None = Asked("GREETING")
    owed: int = 1
    #: Whether the server can tell a chunk from a line, and offers them.
    knows_chunks: bool = False
    offers_chunks: bool = False
    over: bool = False

    @property
    def extended(self) -> bool:
        """The client said EHLO (or LHLO) last."""
        return self.hello in ("EHLO", "LHLO")

    @property
    def listens(self) -> str:
        """For what: nothing, tls, reply (the server's own), content, octets, response, line."""
        if self.over:
            return "nothing"
        if self.handshake:
            return "tls"
        if self.owed:
            return "reply"
        if self.content:
            return "content"
        if self.left:
            return "octets"
        return "response" if self.exchange else "line"

    @property
    def takes_chunks(self) -> bool:
        """Whether BDAT is a command here, and not only a line that octets follow."""
        return self.offers_chunks and self.extended

    # The client speaks

    def heard(self, said: Said) -> "Past":
        """Return what is known when the client has said this, too."""
        match self.listens:
            case "nothing" | "tls":
                return self
            case "content":
                return self._content(said.content, ends=said.ends)
            case "octets":
                return self._octets(said.content)
        if said.loses:
            return self.ended()
        if said.verb == "BDAT" and self.knows_chunks:
            receives = self.takes_chunks and self.rcpts > 0 and not self.spoiled
            begun = self._replace(left=said.size, last=said.last, receives=receives)
            return begun._octets(said.content)
        verb = "RESPONSE" if self.exchange else said.verb
        return self._replace(asked=Asked(verb, said.kind), owed=1)

    def _content(self, content: bytes, *, ends: bool) -> "Past":
        octets = min(self.octets + len(content), CONTENT_LIMIT + 1)
        bare = self.bare or _BARE.search(content) is not None
        past = self._replace(octets=octets, bare=bare, content=not ends)
        return past._end("DATA", fault=bare or octets > CONTENT_LIMIT) if ends else past

    def _octets(self, content: bytes) -> "Past":
        past = self._replace(left=self.left - len(content))
        if self.receives:
            stands = (b"\r" if self.tail else b"") + content
            bare = self.bare or (self.mail != "binary" and _BARE.search(stands) is not None)
            past = past._replace(
                octets=min(self.octets + len(content), CONTENT_LIMIT + 1),
                bare=bare,
                tail=self.mail != "binary" and stands.endswith(b"\r"),
            )
        return past if past.left else past._chunk()

    def _chunk(self) -> "Past":
        bare = self.bare or (self.last and self.tail)
        fault = self.receives and (bare or self.octets > CONTENT_LIMIT)
        over = self._replace(last=False, receives=False)
        if self.last and self.takes_chunks and self.rcpts:
            return over._end("BDAT", fault=fault or self.spoiled)
        if self.last and self.lmtp and self.takes_chunks and self.mail:
            return over.without_transaction()  # no recipients, no replies (RFC 2033 §4.3)
        return over._replace(asked=Asked("BDAT", fault=fault), owed=1)

    def _end(self, by: str, *, fault: bool) -> "Past":
        asked = Asked("END", by, fault)
        return self._replace(asked=asked, owed=self.rcpts if self.lmtp else 1)

    # The server speaks

    def answered(self, code: int) -> "Past":
        """Return what is known when the server has answered with this code."""
        if code == 421:
            return self.ended()
        if self.owed > 1:
            return self._replace(owed=self.owed - 1)
        asked = self.asked
        assert asked is not None, "nothing was asked"
        past = self._replace(owed=0, asked=None)
        accepted, goes_on = code // 100 == 2, code // 100 == 3
        match asked.verb:
            case "GREETING":
                return past._replace(greeted=accepted)
            case "QUIT":
                return self.ended()
            case "END":
                return past.without_transaction()
            case "BDAT" if accepted:
                return past._replace(chunks=True)
            case "BDAT" if self.takes_chunks and self.rcpts:
                return past._replace(spoiled=True)._without_content()
            case "AUTH" | "RESPONSE":
                return past._replace(exchange=goes_on, login=self.login or accepted)
            case "DATA" if goes_on:
                return past._replace(content=True)
        if not accepted:
            return past
        match asked.verb:
            case "EHLO" | "HELO" | "LHLO":
                return past.without_transaction()._replace(hello=asked.verb)
            case "RSET":
                return past.without_transaction()
            case "MAIL":
                return past._replace(mail=asked.kind if asked.kind != "big" else "plain")
            case "RCPT":
                return past._replace(rcpts=self.rcpts + 1)
            case "STARTTLS":
                return past._replace(handshake=True)
            case "XCLIENT":
                return past.without_session()
            case "XFORWARD":
                return past._replace(preamble=True)
        return past

    def secured(self) -> "Past":
        """Return what is known when TLS has begun."""
        return self.without_session()._replace(tls=True, handshake=False)

    def ended(self) -> "Past":
        """Return what is known of a session that is over: nothing else matters any more."""
        return Past(lmtp=self.lmtp, over=True, asked=None, owed=0)

    def without_transaction(self) -> "Past":
        """Forget the envelope and all content."""
        past = self._replace(preamble=False, mail="", rcpts=0, chunks=False, spoiled=False)
        return past._without_content()

    def without_session(self) -> "Past":
        """Forget what the client said of itself, too."""
        return self.without_transaction()._replace(hello="", login=False)

    def _without_content(self) -> "Past":
        return self._replace(octets=0, bare=False, tail=False)
