"""A session as the RFCs tell it, in facts instead of states. It knows no code of ours.

`asked` is the verb of a command or, in lower case, what is asked without one: `greeting` by
connecting, `response` or `cancel` by a line within AUTH, `content` by the end of the content.
`BDAT LAST` is the last chunk. Codes are those of replies; sections without more, of RFC 5321.
"""

from dataclasses import dataclass, field

HELLOS = ("EHLO", "HELO", "LHLO")
#: RFC 2920 §3.1, RFC 3030 §2: behind these more may be sent before the reply is there.
PIPELINED = ("MAIL", "RCPT", "RSET", "BDAT", "BDAT LAST", "XFORWARD")
#: At any time (§4.1.4); all but RSET without effect.
ANY_TIME = ("NOOP", "HELP", "VRFY", "EXPN", "RSET")
#: Said outside of transactions; of these XCLIENT makes the session begin anew.
BETWEEN = ("ETRN", "XFORWARD", "XCLIENT")
#: Announced by EHLO (§2.2.1).
EXTENSIONS = ("BDAT", "BDAT LAST", "STARTTLS", "AUTH", *BETWEEN)
#: By what, and nothing else, these are accepted (§4.3.2, RFC 3207 §4, RFC 4954 §4).
OWN_CODES = {
    "greeting": (220,),
    "STARTTLS": (220,),
    "AUTH": (235, 334),
    "response": (235, 334),
    "DATA": (354,),
    "QUIT": (221,),
}


@dataclass
class Session:
    """Where a session stands, by what has been answered; `lmtp` if it is one of RFC 2033."""

    lmtp: bool = False
    service: bool | None = None  # greeted with 220; False: with 554 (§3.1)
    hello: str = ""  # the greeting verb that was accepted last
    sender: object = None  # of the transaction: what MAIL said
    recipients: list[object] = field(default_factory=list)  # and the accepted RCPTs
    forwarded: bool = False  # XFORWARD told of it
    dotted: bool = False  # content is due, up to the final dot
    chunks: int = 0  # accepted so far
    spoiled: bool = False  # a chunk was refused, and the last is still to come
    uncertain: bool = False  # a chunk was refused: RSET comes next (RFC 3030 §2)
    exchange: bool = False  # within AUTH
    user: bool = False  # logged in
    handshake: bool = False  # of TLS, due
    tls: bool = False
    closed: bool = False

    # What may be asked

    def allows(self, asked: str) -> bool:
        """Tell whether it is this command's turn."""
        if self.closed or self.handshake:
            return False
        if self.service is None:
            return asked == "greeting"  # §4.3.1
        if self.exchange or self.dotted:
            return asked in (("response", "cancel") if self.exchange else ("content",))
        if asked == "QUIT" or not self.service:
            return asked == "QUIT"  # §4.1.1.10; after 554 nothing else (§3.1)
        if asked in HELLOS:
            return (asked == "LHLO") is self.lmtp  # RFC 2033 §4.1
        if asked in ANY_TIME:
            return True
        begun = self.sender is not None
        chunked = self.chunks > 0 or self.spoiled
        if asked in EXTENSIONS and self.hello not in ("EHLO", "LHLO"):
            return False  # §2.2.1: EHLO is what announces them
        if asked in BETWEEN:
            return not begun
        rules = {
            "MAIL": not begun,
            "RCPT": begun and not chunked,
            "DATA": begun and not chunked,  # RFC 3030 §2
            "BDAT": self.recipients != [] and not self.spoiled,
            "BDAT LAST": self.recipients != [] and not self.spoiled,
            "STARTTLS": not (begun or self.tls),  # RFC 3207 §4
            "AUTH": not (begun or self.user),  # RFC 4954 §4
        }
        return self.hello != "" and rules.get(asked, False)

    def offers(self, asked: str) -> bool:
        """Tell whether a client may think so: extensions are for who said EHLO (§4.1.1.1)."""
        return asked not in EXTENSIONS or self.hello in ("EHLO", "LHLO")

    def replies(self, asked: str) -> int:
        """Count the replies: in LMTP the content has one for each recipient (RFC 2033 §4.2)."""
        ends = asked == "content" or (asked == "BDAT LAST" and self.recipients)
        return len(self.recipients) if self.lmtp and ends else 1

    # What may be answered, and what comes of it

    def permits(self, asked: str, code: int) -> bool:
        """Tell whether a server may reply with `code` (§4.3.2)."""
        own = code in OWN_CODES[asked] if asked in OWN_CODES else code != 221
        return self.believes(asked, code) and (code >= 400 or own)

    def believes(self, asked: str, code: int) -> bool:
        """Tell whether a client takes `code` for the reply: it goes by the first digit (§4.3.2)."""
        if self.closed or self.handshake:
            return False
        digit = code // 100
        if asked == "RSET" and self.sender is not None:
            return digit == 2 or code == 421  # §4.1.1.5: it is not refused
        if digit in (4, 5) or not self.allows(asked):
            return digit in (4, 5)  # anything can fail, and 421 is one of them (§3.8)
        if asked in ("DATA", "cancel"):
            return digit == 3 and asked == "DATA"  # RFC 4954 §4: who cancels is refused
        return digit == 2 or (digit == 3 and asked in ("AUTH", "response"))

    def answer(self, asked: str, code: int, said: object = None) -> None:
        """Take note of the (last) reply to what was asked; `said` is the path of MAIL and RCPT."""
        good, turn = code < 400, self.allows(asked)
        # In LMTP it is the recipients that a last chunk is refused for.
        self.uncertain |= not good and asked in ("BDAT", *["BDAT LAST"] * (not self.lmtp))
        self.uncertain &= asked != "RSET"  # it has been issued
        if code == 421 or (asked == "QUIT" and turn):
            self.closed = True
        elif asked == "greeting":
            self.service = good
        elif asked in ("content", "BDAT LAST") and (turn or self.spoiled):
            self.drop()  # accepted or not, that was it
        elif asked == "BDAT" and turn and not good:
            self.spoiled = True
        elif asked in ("response", "cancel"):
            self.exchange, self.user = code // 100 == 3, code // 100 == 2
        elif good and turn:
            self.accept(asked, code, said)

    def accept(self, asked: str, code: int, said: object) -> None:
        """A command was accepted in its turn."""
        if asked in HELLOS:
            self.hello = asked
            self.drop()  # §4.1.4: as if by RSET
        elif asked == "RSET":
            self.drop()
        elif asked == "MAIL":
            self.sender = said
        elif asked == "RCPT":
            self.recipients.append(said)
        elif asked == "DATA":
            self.dotted = True
        elif asked == "BDAT":
            self.chunks += 1
        elif asked == "AUTH":
            self.exchange, self.user = code // 100 == 3, code // 100 == 2
        elif asked == "STARTTLS":
            self.handshake = True
        elif asked == "XFORWARD":
            self.forwarded = True
        elif asked == "XCLIENT":
            self.begin_anew()

    def drop(self) -> None:
        """The transaction is over."""
        self.sender, self.recipients, self.forwarded = None, [], False
        self.dotted, self.chunks, self.spoiled = False, 0, False

    def shake_hands(self) -> None:
        """TLS is on; what was learned in clear is forgotten (RFC 3207 §4.2)."""
        self.handshake, self.tls = False, True
        self.begin_anew()

    def begin_anew(self) -> None:
        """Nothing is known of the client any more."""
        self.hello, self.user = "", False
        self.drop()
