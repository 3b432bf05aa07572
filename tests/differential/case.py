"""One case: what is sent, what the question is, and what a clause demands of the answer."""

import re

from attrs import field, frozen

from .play import Step

__all__ = ["EHLO", "MAIL", "RCPT", "Case", "escaped"]

EHLO = b"EHLO c.example\r\n"
MAIL = b"MAIL FROM:<a@c.example>\r\n"
RCPT = b"RCPT TO:<b@example.test>\r\n"
LOGIN = b"AUTH PLAIN AGFubgBodW50ZXIyLWFuZC1tb3Jl\r\n"

# What leads up to where a case begins; every server answers it well.
_AFTER: dict[str, tuple[bytes, ...]] = {
    "at once": (),
    "HELO": (b"HELO c.example\r\n",),
    "EHLO": (EHLO,),
    "AUTH": (EHLO, LOGIN),
    "MAIL": (EHLO, MAIL),
    "RCPT": (EHLO, MAIL, RCPT),
    "DATA": (EHLO, MAIL, RCPT, b"DATA\r\n"),
}

_CODE = r"[2-5](?:[0-9]{2}|yz)"
_ITEM = re.compile(rf"{_CODE}(?:/{_CODE})*(?:×[0-9]+)?|TLS|closed|…")


def _steps(sends: Step | tuple[Step, ...]) -> tuple[Step, ...]:
    return sends if isinstance(sends, tuple) else (sends,)


def _demand(text: str) -> str:
    for item in re.split(r" \| |, ", text):
        if _ITEM.fullmatch(item) is None:
            raise ValueError(f"no such demand: {item!r}")
    return text


@frozen
class Case:
    """Behind `after`, the steps `sends` are played, and `demand` is what they may get.

    A demand is what the RFCs permit, by `clause` (§ alone: RFC 5321) and for the reason `why`:
    alternatives between ` | `, each of them the whole answer, its items between commas. An item
    is a code, or several between slashes, or a class such as `5yz`, with `×25` behind it if
    there are as many; or "TLS", or "closed", or "…" for whatever else may come.
    `contents` are those that messages may arrive with, the one that was sent first; None if
    that is not the question. Without the extension that it `needs` there is no case. `early`
    does not wait for the greeting; `leaves` adds no QUIT, for the steps make every server close.
    `shown` is for the page, where the octets are too many.
    `by_design` says why our own server does what the clause does not permit.
    """

    name: str
    sends: tuple[Step, ...] = field(converter=_steps)
    demand: str = field(converter=_demand)
    clause: str
    why: str
    after: str = field(default="EHLO", kw_only=True)
    contents: tuple[bytes, ...] | None = field(default=None, kw_only=True)
    needs: str = field(default="", kw_only=True)
    early: bool = field(default=False, kw_only=True)
    leaves: bool = field(default=False, kw_only=True)
    shown: str = field(default="", kw_only=True)
    by_design: str = field(default="", kw_only=True)

    @property
    def before(self) -> tuple[bytes, ...]:
        """The lines that lead up to where the case begins."""
        return _AFTER[self.after]

    def permits(self, words: tuple[str, ...], contents: tuple[bytes, ...]) -> bool:
        """Tell whether these answers, and these contents of messages, are permitted."""
        codes = "".join(f" {word.split()[0]}" for word in words)
        return any(re.fullmatch(_pattern(one), codes) for one in self.demand.split(" | ")) and (
            self.contents is None or all(content in self.contents for content in contents)
        )


def _pattern(alternative: str) -> str:
    """Make a regex of one alternative of a demand, over codes with a space before each."""
    pattern = ""
    for item in alternative.split(", "):
        code, _, times = item.partition("×")
        one = code.replace("yz", "[0-9]{2}").replace("/", "|")
        pattern += "(?: .*)?" if item == "…" else f"(?: (?:{one})){{{times or 1}}}"
    return pattern


def escaped(octets: bytes) -> str:
    """Write octets in ASCII; a long run of one octet as that octet and a number."""
    text = "".join(chr(octet) if 0x20 <= octet < 0x7F else f"\\x{octet:02x}" for octet in octets)
    for octet, name in (("\\x0d", "\\r"), ("\\x0a", "\\n"), ("\\x09", "\\t"), ("\\x00", "\\0")):
        text = text.replace(octet, name)
    return re.sub(r"(.)\1{19,}", lambda run: f"{run[1]}…({len(run[0])})…", text)
