"""The tables as a page: `python -m tests.adapters.faults.pages` writes it."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from .moments import ENDINGS, MOMENTS, WORDS, Moment
from .places import DRAINS, FAILURES, PLACES, TLS, Drain, Failure, Place, Step

__all__ = ["PAGE", "render"]

PAGE = Path(__file__).parents[3] / "docs" / "explanation" / "faults.md"

BEGIN = """\
# What is cut when

A connection may end at any moment, and either end may stop to speak without ending it; handlers
fail, and servers are stopped. This is what client and server then do and report. The page is made
of the tables in `tests/adapters/faults/`, and the tests play every cell over a real socket, on
asyncio and trio, so it cannot say what is not so.

Beyond these moments, `tests/adapters/test_loss.py` cuts dialogues at every octet, and
`test_cancel.py` cancels client, pool and server at every await: each recipient has an outcome,
nothing is left open, and the next session works.
"""

CLIENT = """\
## To a client: the server falls

The server falls behind what the client has said last, without an answer to it:
"""

OUTCOMES = """\
The client then reports, once the session is open always as an outcome for each recipient:
"""

MATRIX = """\
Recipients who were refused before keep their refusal. Where the server is silent, the deadline
named last ends the wait (`ClientDeadlines`); a session in which anything of this has happened is
not `usable` any more.
"""

AFTERWARDS = """\
Worth knowing:

- While content is on its way the client listens to nobody. So who half-closes or says 421 there,
  and reads on, is heard behind the final dot: then a 421 is its answer, and an end without one
  leaves the outcome unknown.
- In LMTP whoever has no reply has failed for now (RFC 2033 §5), though the server may have
  delivered. It is transient, and may come twice; that is what the RFC prefers to a loss. Who is cut
  off between two replies, by a deadline of their own say, learns who has it by `deliver(told=…)`.
- TLS's own end, close_notify, changes nothing when it is missing: SMTP marks the ends of all that
  counts.
- With `tls="opportunistic"` a failed handshake is no end: the client connects anew, in clear.

A `Pool` reports the same, of a new session and of one that it kept, with one exception: a kept
session that falls *behind MAIL*, and has answered nothing, is replaced by another, for nothing
was begun. Who waits for a session that cannot be opened gets the error of the attempt. Behind the
first reply no message is ever tried again.
"""

SERVER = """\
## To a server: the client falls

The client goes (closed, or reset), or half-closes, or falls silent, behind what it has said last
and had answered. The next client is served, nothing is logged but a PROXY header that did not
come (as information), and `closed` is told to the handler if it ever knew of the session. What a
client hears that half-closes or is silent, and the deadline that ends the silence
(`ServerDeadlines`):
"""

DOUBT = """\
A message is taken if and only if all of it has come, however the connection ends meanwhile; the
client that does not hear the 250 has to reckon with that (RFC 1047).
"""

HANDLER = """\
## To a server: its handler fails

What raises is in the log with its traceback, and nothing of it on the wire; what takes longer
than the deadline `handler` is cancelled, and the log says so. The client hears, and the session
goes on unless it is 421:
"""

CANCELLED = """\
Where a handler raises `HangUp` instead, or the server is cancelled while it waits, the connection
is closed without another word, and nothing is logged; a handler that is cancelled sees that as
any coroutine does. In none of this is a message taken, or 250 said to one. `closed` is told in
each case; if that fails, it is logged.
"""

STOP = """\
## To a server: it is stopped

`stop()` ends at once whatever is between messages. All else may go on to the end of its
transaction, handshake or login, for the seconds of the deadline `drain`:
"""

CUT = """\
Whom that ends, the handler is cancelled and the message is not taken. A handler that does not let
itself be cancelled, and a client that does not listen, have `cut` seconds more, and are then cut
off without a word. Cancelling `serve` does that to everybody at once.
"""


def render() -> str:
    """Write the page."""
    endings = [f"- **{name}**: {what};" for name, what in ENDINGS.items()]
    endings[-1] = endings[-1].removesuffix(";") + "."
    words = ([f"`{word}`", *said] for word, said in WORDS.items())
    sections = (
        BEGIN,
        CLIENT,
        "\n".join(endings) + "\n",
        OUTCOMES,
        _table(("", "what the caller sees", "to send it again is"), words),
        MATRIX,
        _table(("when", *ENDINGS, "deadline"), map(_moment, MOMENTS)),
        AFTERWARDS,
        SERVER,
        _table(
            ("when", "half-closed", "silent", "deadline", "the handler saw last", "the message is"),
            map(_place, PLACES),
        ),
        DOUBT,
        HANDLER,
        _table(
            ("where", "the client said", "it raises", "it takes too long"), map(_fails, FAILURES)
        ),
        CANCELLED,
        STOP,
        _table(
            ("when", "at once", "may go on with", "and hears then", "hears at the end of `drain`"),
            map(_drain, DRAINS),
        ),
        CUT,
    )
    return "\n".join(sections)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    first = list(head)
    lines = [first, ["---"] * len(first), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _moment(moment: Moment) -> Iterator[str]:
    yield moment.name
    yield from (moment.outcomes.get(ending, "–") for ending in ENDINGS)
    yield f"`{moment.deadline}`"


def _place(place: Place) -> Iterator[str]:
    yield place.name
    yield from (said or "nothing" for said in (place.half_closed, place.silent))
    yield f"`{place.deadline}`" if place.deadline else "–"
    yield {
        "": "nothing, not even `closed`",
        "content broke off": "`ContentError` from the content",
        "end of content": "the end of the content",
    }.get(place.sees, f"`{place.sees}`")
    yield "taken" if place.taken else "–"


def _fails(failure: Failure) -> Iterator[str]:
    power, _, more = failure.power.partition(",")
    yield {
        "content": "`content`, before it reads",
        "within content": "`content`, while it reads",
        "end of content": "`content`, behind the end" if not more else "`deliver`, behind the end",
    }.get(power, f"`{power}`")
    yield _said(failure.asks)
    yield failure.raises
    yield failure.waits


def _drain(drain: Drain) -> Iterator[str]:
    yield drain.name
    yield drain.at_once or "nothing"
    if drain.at_once:
        yield from ("–",) * 3
        return
    yield ", ".join(map(_step, drain.goes_on)) or "waiting for the handler"
    yield drain.hears
    yield drain.behind or "nothing"


def _step(step: Step) -> str:
    return "the handshake" if step is TLS else _said(step[0])


def _said(text: str) -> str:
    if not text:
        return "nothing yet"
    return "`" + text.removesuffix("\r\n").replace("\r\n", "\\r\\n") + "`"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
