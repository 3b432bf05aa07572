"""What a target needs, drawn from octets that a fuzzer made: the same with or without the fuzzer.

Such octets are::

    wire                choices              count
    any octets          `count` of them      the last octet

The *wire* is what some peer says, or what values are made of; *choices* pick from tables, and are
all 0, the plainest choice, when they have run out. Either can change without moving the other, so
a fuzzer may cut, join and mutate the wire as the text it is.
"""

import itertools
import re
from collections.abc import Sequence
from typing import Self, TypeVar

__all__ = ["OCTETWISE", "Draw", "cut_at", "drawn_from", "edges"]

T = TypeVar("T")

#: Cut between any two octets; the rest of a long input comes whole, for there is time for others.
OCTETWISE = range(300)
#: How far from the beginning `edges` are everywhere, and how many there are at most.
_NEAR, _MOST = 12, 300
_ENDS_OR_BEGINS = re.compile(rb"[\r\n]|(?<=\n)\.")


class Draw:
    """Draws from a fuzzer's octets."""

    def __init__(self, data: bytes) -> None:
        count = min(data[-1], len(data) - 1) if data else 0
        end = len(data) - 1 - count
        self.wire = data[: max(end, 0)]
        self.choices = data[end:-1] if count else b""
        self._next = 0

    def fork(self) -> Self:
        """Return another one, which draws from here on what this one will draw."""
        other = type(self)(b"")
        other.wire, other.choices, other._next = self.wire, self.choices, self._next
        return other

    def backwards(self) -> Self:
        """Return another one, which draws from the end, so that neither shifts the other."""
        other = type(self)(b"")
        other.wire, other.choices = self.wire, self.choices[::-1]
        return other

    def below(self, bound: int) -> int:
        """Draw a number from 0 to `bound` - 1, of one octet or, where that is too few, two."""
        size = 1 if bound <= 256 else 2
        octets = self.choices[self._next : self._next + size]
        self._next += size
        return int.from_bytes(octets) % bound

    def flag(self) -> bool:
        """Draw False or True."""
        return self.below(2) == 1

    def one_of(self, options: Sequence[T]) -> T:
        """Draw one of them; the first when the choices have run out."""
        return options[self.below(len(options))]

    def take(self, octets: int) -> bytes:
        """Take octets off the front of the wire."""
        taken, self.wire = self.wire[:octets], self.wire[octets:]
        return taken

    def points(self) -> list[int]:
        """Draw up to seven offsets to cut at."""
        return [self.below(4096) for _ in range(self.below(8))]


def drawn_from(wire: bytes, choices: Sequence[int] = ()) -> bytes:
    """Return the octets of which these are drawn: how seeds are written."""
    return wire + bytes(choices[:255]) + bytes((min(len(choices), 255),))


def cut_at(points: Sequence[int], octets: bytes) -> list[bytes]:
    """Cut `octets` at those offsets that lie inside, into pieces that are not empty."""
    edges = [0, *sorted({p for p in points if 0 < p < len(octets)}), len(octets)]
    return [octets[a:b] for a, b in itertools.pairwise(edges) if a < b]


def edges(octets: bytes) -> list[int]:
    """Return the offsets where a cut can matter.

    The first few, and those beside each line end and the dot behind it.
    Elsewhere octets only gather, and each piece more costs as much as the last; drawn points cut
    there, too.
    """
    beside = (at for match in _ENDS_OR_BEGINS.finditer(octets) for at in match.span())
    return sorted({*range(_NEAR), *beside})[:_MOST]
