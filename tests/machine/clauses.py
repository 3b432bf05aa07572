"""Which reply a server may not say, and where: one small function for each clause of the RFCs.

A server has to refuse to say a reply exactly where one of them objects. So whatever it permits is
forbidden by none of them, and whatever it refuses is forbidden by one. They know what somebody at
the wire knows, and look into no connection.
"""

from collections.abc import Callable
from typing import TypeAlias

from attrs import field, frozen

from smtpproto import Reply

from .session import RECIPIENT_LIMIT, Past, Setting

__all__ = ["FORBIDDEN", "HELLOS", "OWN_CODES", "Answer", "Clause", "Saying", "forbidding"]


@frozen(cache_hash=True)
class Clause:
    """What is held, in a sentence, and where it is written."""

    says: str
    cites: str

    def __str__(self) -> str:
        return f"{self.says} ({self.cites})"


@frozen(cache_hash=True)
class Answer:
    """A reply to be said; `announces`: it has the lines that a reply to EHLO needs."""

    reply: Reply
    announces: bool = True

    @property
    def code(self) -> int:
        return self.reply.code

    def __str__(self) -> str:
        return f"{self.reply.code} {'…' if len(self.reply.lines) > 1 else self.reply.text}"


@frozen
class Saying:
    """A server is about to say a reply: what it answers then, and its first digit."""

    setting: Setting
    past: Past
    answer: Answer
    verb: str = field(init=False)
    kind: str = field(init=False)
    digit: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        asked = self.past.asked
        object.__setattr__(self, "verb", asked.verb if asked else "nothing")
        object.__setattr__(self, "kind", asked.kind if asked else "")
        object.__setattr__(self, "digit", self.answer.code // 100)

    def accepts(self, *verbs: str) -> bool:
        """Whether this is a 2yz or 3yz to one of the verbs."""
        return self.digit < 4 and self.verb in verbs


Forbids: TypeAlias = Callable[[Saying], bool]
FORBIDDEN: dict[Clause, Forbids] = {}


def forbids(cites: str) -> Callable[[Forbids], Forbids]:
    """Enter a clause; what it says is the docstring."""

    def enter(check: Forbids) -> Forbids:
        FORBIDDEN[Clause((check.__doc__ or "").rstrip("."), cites)] = check
        return check

    return enter


def forbidding(setting: Setting, past: Past, answer: Answer) -> list[Clause]:
    """Return the clauses that object."""
    saying = Saying(setting, past, answer)
    return [clause for clause, objects in FORBIDDEN.items() if objects(saying)]


HELLOS = ("EHLO", "HELO", "LHLO")
TRANSACTION = ("MAIL", "RCPT", "DATA", "BDAT")
EXTENSIONS = ("BDAT", "STARTTLS", "AUTH", "ETRN", "XCLIENT", "XFORWARD", "XFOREIGN")


@forbids("RFC 5321 §4.1.1.10, §3.8")
def the_end(it: Saying) -> bool:
    """After QUIT or 421 nothing is said."""
    return it.past.over


@forbids("RFC 3207 §4")
def handshake_owed(it: Saying) -> bool:
    """Between the 220 to STARTTLS and the handshake nothing is said."""
    return it.past.handshake


@forbids("RFC 5321 §4.2, §3.8")
def unasked(it: Saying) -> bool:
    """Nothing but 421 is said unasked."""
    return not it.past.owed and it.answer.code != 421


@forbids("RFC 5321 §4.2.1, §4.3.2, RFC 4954 §4")
def intermediate(it: Saying) -> bool:
    """A 3yz answers DATA and AUTH alone."""
    return it.digit == 3 and it.verb not in ("DATA", "AUTH", "RESPONSE")


@forbids("RFC 5321 §4.3.2")
def data_completed(it: Saying) -> bool:
    """A 2yz never answers DATA."""
    return it.digit == 2 and it.verb == "DATA"


OWN_CODES = {
    "GREETING": (220,),
    "STARTTLS": (220,),
    "AUTH": (235, 334),
    "RESPONSE": (235, 334),
    "DATA": (354,),
    "QUIT": (221,),
}


@forbids("RFC 5321 §4.3.2, RFC 3207 §4, RFC 4954 §4")
def own_code(it: Saying) -> bool:
    """A greeting, STARTTLS, AUTH, DATA and QUIT are accepted by codes of their own."""
    return it.digit < 4 and it.answer.code not in OWN_CODES.get(it.verb, (it.answer.code,))


@forbids("RFC 5321 §4.2.2, §4.3.2")
def closing(it: Saying) -> bool:
    """221 answers QUIT alone."""
    return it.answer.code == 221 and it.verb != "QUIT"


@forbids("RFC 5321 §4.2.4, §4.3.2")
def malformed(it: Saying) -> bool:
    """What is no command is refused."""
    return it.accepts("")


@forbids("RFC 5321 §4.1.1.5, §4.3.2")
def rset_refused(it: Saying) -> bool:
    """RSET is not refused in a transaction, but by 421."""
    drops = it.verb == "RSET" and it.past.mail != ""
    return drops and it.digit > 3 and it.answer.code != 421


@forbids("RFC 5321 §3.1")
def greeted_with_554(it: Saying) -> bool:
    """A 554 greeting leaves nothing but QUIT."""
    return it.past.greeted is False and it.digit < 4 and it.verb not in ("QUIT", "nothing")


@forbids("RFC 2033 §4.1")
def wrong_greeting(it: Saying) -> bool:
    """LHLO is of LMTP; EHLO and HELO are of SMTP."""
    return it.accepts("EHLO", "HELO") if it.past.lmtp else it.accepts("LHLO")


@forbids("RFC 5321 §4.1.1.1")
def unannounced(it: Saying) -> bool:
    """The 250 to EHLO announces what is offered."""
    return it.accepts("EHLO", "LHLO") and not it.answer.announces


@forbids("RFC 5321 §2.2.1, §4.2.4")
def not_offered(it: Saying) -> bool:
    """No verb of an extension is accepted that is not offered."""
    keyword = "CHUNKING" if it.verb == "BDAT" else it.verb
    return it.accepts(*EXTENSIONS) and keyword not in it.setting.offered(tls=it.past.tls)


@forbids("RFC 5321 §2.2.1, §4.1.4")
def not_extended(it: Saying) -> bool:
    """Verbs of extensions are accepted behind EHLO; for STARTTLS and AUTH, HELO will do."""
    safer = it.past.hello != "" and it.verb in ("STARTTLS", "AUTH")
    return it.accepts(*EXTENSIONS) and not (it.past.extended or safer)


@forbids("RFC 5321 §3.5.2, §4.1.1.1")
def not_announced(it: Saying) -> bool:
    """EXPN and HELP are accepted where they are announced."""
    return it.accepts("EXPN", "HELP") and it.verb not in it.setting.offered(tls=it.past.tls)


@forbids("RFC 5321 §4.1.4")
def no_hello(it: Saying) -> bool:
    """There is no transaction without EHLO or HELO."""
    return not it.past.hello and it.accepts(*TRANSACTION)


@forbids("RFC 5321 §4.1.4")
def nested_mail(it: Saying) -> bool:
    """MAILs do not nest."""
    return it.past.mail != "" and it.accepts("MAIL")


@forbids("RFC 5321 §3.3, §4.1.4")
def no_mail(it: Saying) -> bool:
    """RCPT and DATA come behind MAIL."""
    return it.past.mail == "" and it.accepts("RCPT", "DATA")


@forbids("RFC 5321 §4.5.3.1.10")
def too_many_recipients(it: Saying) -> bool:
    """There are no more recipients than the limit."""
    return it.past.rcpts >= RECIPIENT_LIMIT and it.accepts("RCPT")


@forbids("RFC 5321 §3.3, RFC 2033 §4.2")
def data_without_recipient(it: Saying) -> bool:
    """There is no 354 without an accepted recipient."""
    return it.past.mail != "" and it.past.rcpts == 0 and it.accepts("DATA")


@forbids("RFC 3030 §2, RFC 5321 §3.3")
def chunk_without_recipient(it: Saying) -> bool:
    """No chunk is accepted without an accepted recipient."""
    return it.past.rcpts == 0 and it.accepts("BDAT")


@forbids("RFC 3030 §2")
def behind_a_chunk(it: Saying) -> bool:
    """Behind a chunk there is nothing of a transaction but chunks."""
    return (it.past.chunks or it.past.spoiled) and it.accepts("MAIL", "RCPT", "DATA")


@forbids("RFC 3030 §2")
def behind_a_refused_chunk(it: Saying) -> bool:
    """Behind a chunk that was refused no other is accepted."""
    return it.past.spoiled and it.accepts("BDAT", "END")


@forbids("RFC 3030 §3")
def binary_by_data(it: Saying) -> bool:
    """BINARYMIME goes by BDAT."""
    return it.past.mail == "binary" and it.accepts("DATA")


@forbids("RFC 5321 §2.3.8, §4.5.3.1.9, RFC 1870 §6.3")
def faulty_content(it: Saying) -> bool:
    """Content with a bare CR or LF, or too much of it, is never accepted."""
    return it.past.asked is not None and it.past.asked.fault and it.accepts("BDAT", "END")


@forbids("RFC 1870 §6.1")
def declared_too_big(it: Saying) -> bool:
    """What is declared too big is refused."""
    known = it.past.extended and "SIZE" in it.setting.offered(tls=it.past.tls)
    return known and it.kind == "big" and it.accepts("MAIL")


@forbids("RFC 6531 §3.4, §3.5")
def not_ascii(it: Saying) -> bool:
    """A UTF-8 address needs SMTPUTF8 with its MAIL."""
    asked_for = it.past.mail == "utf8" and it.verb == "RCPT"
    return it.kind == "unasked" and not asked_for and it.accepts("MAIL", "RCPT")


@forbids("RFC 5321 §4.1.4, RFC 3207 §4")
def misplaced_starttls(it: Saying) -> bool:
    """STARTTLS comes in no transaction."""
    return it.past.mail != "" and it.accepts("STARTTLS")


@forbids("RFC 3207 §4.2")
def second_starttls(it: Saying) -> bool:
    """There is no STARTTLS under TLS."""
    return it.past.tls and it.accepts("STARTTLS")


@forbids("RFC 4954 §4")
def misplaced_auth(it: Saying) -> bool:
    """AUTH comes in no transaction."""
    return it.past.mail != "" and it.accepts("AUTH")


@forbids("RFC 4954 §4")
def second_auth(it: Saying) -> bool:
    """There is no AUTH behind one that succeeded."""
    return it.past.login and it.accepts("AUTH")


@forbids("RFC 4954 §3, §4")
def unknown_mechanism(it: Saying) -> bool:
    """No mechanism is accepted that is not offered."""
    offered = it.setting.offered(tls=it.past.tls).get("AUTH") or ""
    return it.accepts("AUTH") and it.kind not in offered.split()


@forbids("RFC 4954 §4")
def no_base64(it: Saying) -> bool:
    """What is no base64 ends the exchange."""
    return it.kind == "bad" and it.accepts("RESPONSE")


@forbids("RFC 4954 §4")
def cancelled(it: Saying) -> bool:
    """A cancelled exchange is refused."""
    return it.kind == "cancel" and it.accepts("RESPONSE")


@forbids("RFC 1985 §5, Postfix's XCLIENT_README, XFORWARD_README")
def not_in_a_transaction(it: Saying) -> bool:
    """ETRN, XCLIENT and XFORWARD stay out of transactions."""
    return it.past.mail != "" and it.accepts("ETRN", "XCLIENT", "XFORWARD")
