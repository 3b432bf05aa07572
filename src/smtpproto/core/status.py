"""Enhanced status codes (RFC 3463), as RFC 2034 puts them into replies, and their registry."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from attrs import field, frozen

from .errors import GrammarError, LocalProtocolError

__all__ = ["CLASSES", "REGISTRY", "SUBJECTS", "EnhancedStatus", "Meaning"]

# status-code = class "." subject "." detail ; subject and detail: 1*3digit, no leading zeros
_STATUS = re.compile(r"([245])\.(0|[1-9][0-9]{0,2})\.(0|[1-9][0-9]{0,2})")


@frozen(order=True)
class EnhancedStatus:
    """`class_.subject.detail`: 2 success, 4 persistent transient, 5 permanent failure."""

    class_: int
    subject: int
    detail: int

    def __attrs_post_init__(self) -> None:
        if _STATUS.fullmatch(str(self)) is None:
            raise LocalProtocolError(f"not an enhanced status code (RFC 3463 §2): {self}")

    @classmethod
    def parse(cls, text: str) -> EnhancedStatus:
        """Read `5.1.1`; GrammarError if it is not such a code."""
        match = _STATUS.fullmatch(text)
        if match is None:
            raise GrammarError(f"not an enhanced status code: {text!r}")
        return cls(int(match[1]), int(match[2]), int(match[3]))

    @classmethod
    def of(cls, value: EnhancedStatus | str) -> EnhancedStatus:
        """Take a status or a caller's text for one; LocalProtocolError if it is not."""
        if isinstance(value, EnhancedStatus):
            return value
        try:
            return cls.parse(value)
        except GrammarError as error:
            raise LocalProtocolError(str(error)) from None

    @property
    def registered(self) -> Meaning | None:
        """What the registry has under subject and detail; None where it has nothing."""
        return REGISTRY.get((self.subject, self.detail))

    @property
    def meaning(self) -> str:
        """What it says, in a few words; of an unknown one, what its subject or class says.

        RFC 3463 §2: the class is understood even where the subject is not, and so on.
        """
        meaning = self.registered or REGISTRY.get((self.subject, 0))
        return meaning.text if meaning else CLASSES[self.class_]

    def __str__(self) -> str:
        return f"{self.class_}.{self.subject}.{self.detail}"


@frozen
class Meaning:
    """A row of the registry: the meaning in our words, the RFC, the reply codes it goes with.

    The codes are those that are registered for it (RFC 5248 §2.4 and later), in any class;
    none where none are. No other is forbidden.
    """

    text: str
    rfc: int
    replies: tuple[int, ...] = field(default=())


#: The first number (RFC 3463 §2).
CLASSES: Mapping[int, str] = MappingProxyType(
    {2: "success", 4: "a failure that may pass", 5: "a failure that will last"}
)

#: The second number (RFC 3463 §2): what it is about.
SUBJECTS: Mapping[int, str] = MappingProxyType(
    {
        0: "nothing in particular",
        1: "an address",
        2: "a mailbox",
        3: "the mail system",
        4: "the network and routing",
        5: "the protocol",
        6: "the content",
        7: "security and policy",
    }
)

#: (subject, detail) -> what it means. The class says whether it succeeded or failed, and for how
#: long; where RFC 4865 gave X.7.16 and X.7.17 away a second time, the registered ones stand here.
REGISTRY: Mapping[tuple[int, int], Meaning] = MappingProxyType(
    {
        # nothing in particular
        (0, 0): Meaning("no more is known", 3463),
        # an address
        (1, 0): Meaning("something about the address", 3463),
        (1, 1): Meaning("no such mailbox", 3463, (451, 550)),
        (1, 2): Meaning("no such domain, or it takes no mail", 3463),
        (1, 3): Meaning("the recipient's address is malformed", 3463, (501,)),
        (1, 4): Meaning("the address could mean several mailboxes", 3463),
        (1, 5): Meaning("the recipient is right", 3463, (250,)),
        (1, 6): Meaning("the mailbox has moved, nobody knows where to", 3463),
        (1, 7): Meaning("the sender's address is malformed", 3463),
        (1, 8): Meaning("the sender's domain does not exist or takes no mail", 3463, (451, 501)),
        (1, 9): Meaning("passed on to a system that sends no reports", 3886),
        (1, 10): Meaning("the recipient's domain says that it takes no mail", 7505, (556,)),
        # a mailbox
        (2, 0): Meaning("something about the mailbox", 3463),
        (2, 1): Meaning("the mailbox is switched off", 3463),
        (2, 2): Meaning("the mailbox is full", 3463, (552,)),
        (2, 3): Meaning("larger than this mailbox takes", 3463, (552,)),
        (2, 4): Meaning("the mailing list could not be expanded", 3463, (450, 452)),
        # the mail system
        (3, 0): Meaning("something about the mail system", 3463, (221, 250, 421, 451, 550, 554)),
        (3, 1): Meaning("the mail system is full", 3463, (452,)),
        (3, 2): Meaning("the system takes no mail at present, or ever", 3463, (453, 521)),
        (3, 3): Meaning("the system lacks what the message asks for", 3463),
        (3, 4): Meaning("larger than the system takes", 3463, (552, 554)),
        (3, 5): Meaning("the system is set up wrongly", 3463),
        (3, 6): Meaning("taken, with another priority than asked for", 6710, (250, 251)),
        # the network and routing
        (4, 0): Meaning("something about the network", 3463),
        (4, 1): Meaning("the host does not answer", 3463, (451,)),
        (4, 2): Meaning("the connection was lost or is of no use", 3463, (421,)),
        (4, 3): Meaning("a directory, such as DNS, does not answer", 3463, (451, 550)),
        (4, 4): Meaning("no way leads there", 3463),
        (4, 5): Meaning("too much mail at present", 3463, (451,)),
        (4, 6): Meaning("the message goes round in a loop", 3463),
        (4, 7): Meaning("not delivered in the time allowed", 3463),
        # the protocol
        (5, 0): Meaning(
            "something about the protocol",
            3463,
            (220, 250, 251, 252, 253, 451, 452, 454, 458, 459, 501, 502, 503, 554),
        ),
        (5, 1): Meaning(
            "a command that is unknown or not possible here",
            3463,
            (430, 500, 501, 503, 530, 550, 554, 555),
        ),
        (5, 2): Meaning("a command that cannot be read", 3463, (500, 501, 502, 550, 555)),
        (5, 3): Meaning("too many recipients", 3463, (451,)),
        (5, 4): Meaning(
            "an argument that is wrong or not supported",
            3463,
            (451, 501, 502, 503, 504, 550, 555),
        ),
        (5, 5): Meaning("another version of the protocol", 3463),
        (5, 6): Meaning("a line of a login that is too long", 4954, (500,)),
        # the content
        (6, 0): Meaning("something about the content", 3463),
        (6, 1): Meaning("this kind of content is not taken", 3463),
        (6, 2): Meaning("it would have to be converted, which is forbidden", 3463),
        (6, 3): Meaning("it would have to be converted, which is not possible here", 3463, (554,)),
        (6, 4): Meaning("converted, and something was lost", 3463, (250,)),
        (6, 5): Meaning("it could not be converted", 3463),
        (6, 6): Meaning("the content could not be fetched", 4468, (554,)),
        (6, 7): Meaning("no address beyond ASCII is taken there", 6531, (550, 553)),
        (6, 8): Meaning(
            "the reply would need UTF-8, which the client lacks", 6531, (252, 550, 553)
        ),
        (6, 9): Meaning("a recipient's system lacks UTF-8 in headers", 6531, (550,)),
        (6, 10): Meaning("the same as X.6.8, which is to be used", 6531),
        # security and policy
        (7, 0): Meaning(
            "something about security",
            3463,
            (220, 235, 450, 454, 500, 501, 503, 504, 530, 535, 550),
        ),
        (7, 1): Meaning("the sender may not send there", 3463, (451, 454, 502, 503, 533, 550, 551)),
        (7, 2): Meaning("the sender may not write to this list", 3463, (550,)),
        (7, 3): Meaning("its protection would have to be converted, which cannot be done", 3463),
        (7, 4): Meaning("protected in a way that is not supported", 3463, (504,)),
        (7, 5): Meaning("it could not be decrypted or verified", 3463),
        (7, 6): Meaning("an algorithm that is not supported", 3463),
        (7, 7): Meaning("the content was altered on its way", 3463),
        (7, 8): Meaning("the login is wrong", 4954, (535, 554)),
        (7, 9): Meaning("this way to log in is too weak", 4954, (534,)),
        (7, 10): Meaning("TLS is needed first", 5248, (523,)),
        (7, 11): Meaning("this way to log in needs TLS", 4954, (524, 538)),
        (7, 12): Meaning("log in with the password itself once", 4954, (422, 432)),
        (7, 13): Meaning("the account is switched off", 5248, (525,)),
        (7, 14): Meaning(
            "the server is not trusted by the one that has the content", 5248, (535, 554)
        ),
        (7, 15): Meaning("the priority is too low for the present", 6710, (450, 550)),
        (7, 16): Meaning("too large for its priority", 6710, (552,)),
        (7, 17): Meaning("the mailbox belongs to somebody else now", 7293),
        (7, 18): Meaning("the domain belongs to somebody else now", 7293),
        (7, 19): Meaning("nobody can tell whose the mailbox was then", 7293),
        (7, 20): Meaning("no DKIM signature holds", 7372, (550,)),
        (7, 21): Meaning("no DKIM signature holds that is acceptable", 7372, (550,)),
        (7, 22): Meaning("no DKIM signature holds for the author", 7372, (550,)),
        (7, 23): Meaning("SPF says that the sender does not send from there", 7372, (550,)),
        (7, 24): Meaning("SPF could not be checked", 7372, (451, 550)),
        (7, 25): Meaning("the client's address has no good name in DNS", 7372, (550,)),
        (7, 26): Meaning("several checks of the sender failed", 7372, (550,)),
        (7, 27): Meaning("the sender's domain says that it takes no mail", 7505, (550,)),
        (7, 29): Meaning("the ARC chain does not hold", 8617, (550,)),
        (7, 30): Meaning("the next server does not promise TLS all the way", 8689, (550,)),
    }
)
