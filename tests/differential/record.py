"""What the servers answered: observed, and kept in `recorded.json`."""

import itertools
import json
import ssl
from collections.abc import Mapping
from pathlib import Path

from attrs import frozen

from .cases import THEMES
from .play import talk
from .servers import Running

__all__ = ["CASES", "FILE", "Answer", "Observation", "load", "observe", "save"]

FILE = Path(__file__).parent / "recorded.json"
CASES = [case for cases in THEMES.values() for case in cases]


@frozen
class Answer:
    """What one case came to: the words of the dialogue, and the contents that arrived."""

    words: tuple[str, ...]
    contents: tuple[bytes, ...] = ()

    def __str__(self) -> str:
        runs = [(word, len(list(run))) for word, run in itertools.groupby(self.words)]
        return ", ".join(
            f"{word} ×{times}" if times > 2 else ", ".join([word] * times) for word, times in runs
        )

    @classmethod
    def parse(cls, text: str, contents: tuple[bytes, ...]) -> "Answer":
        words: list[str] = []
        for run in text.split(", "):
            word, _, times = run.partition(" ×")
            words += [word] * int(times or 1)
        return cls(tuple(words), contents)


@frozen
class Observation:
    """One server: its version, the keywords it announces, and its answers by the case's name.

    There is none where what the case needs is not announced.
    """

    version: str
    offers: tuple[str, ...]
    answers: Mapping[str, Answer]


def observe(server: Running, trusting: ssl.SSLContext) -> Observation:
    """Play all cases to a server; `trusting` is the TLS context that trusts it."""
    greeted = talk(server.port, [b"EHLO c.example\r\n"]).replies[0]
    offers = tuple(line[4:].split()[0].decode() for line in greeted.octets.splitlines()[1:])
    answers = {}
    for case in CASES:
        if case.needs and case.needs not in offers:
            continue
        try:
            heard = talk(
                server.port,
                case.sends,
                before=case.before,
                trusting=trusting,
                early=case.early,
                leaves=case.leaves,
            )
        except (OSError, RuntimeError) as error:
            raise RuntimeError(f"in the case {case.name!r}") from error
        answers[case.name] = Answer(heard.words, server.arrived(heard))
    return Observation(server.version, offers, answers)


def save(observations: Mapping[str, Observation]) -> None:
    """Write the record; octets stand in it as the characters of those numbers."""
    record = {
        name: {
            "version": seen.version,
            "offers": " ".join(seen.offers),
            "answers": {
                case: [f"{answer}", *(content.decode("latin-1") for content in answer.contents)]
                for case, answer in seen.answers.items()
            },
        }
        for name, seen in observations.items()
    }
    FILE.write_text(json.dumps(record, indent=1) + "\n", encoding="ascii")


def load() -> dict[str, Observation]:
    """Read the record."""
    record = json.loads(FILE.read_text(encoding="ascii"))
    return {
        name: Observation(
            seen["version"],
            tuple(seen["offers"].split()),
            {
                case: Answer.parse(text, tuple(content.encode("latin-1") for content in contents))
                for case, (text, *contents) in seen["answers"].items()
            },
        )
        for name, seen in record.items()
    }
