"""ESMTP parameters of MAIL and RCPT: octets on the wire, typed for those who know the keyword."""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterator, Mapping
from typing import Any, Generic, TypeAlias, TypeVar

from attrs import field, frozen

from .errors import GrammarError, LocalProtocolError
from .grammar import KEYWORD, PARAMETER
from .path import as_octets
from .value import taker

__all__ = ["NO_PARAMETERS", "AnyParameters", "Parameter", "Parameters", "as_keyword"]

T = TypeVar("T")
AnyParameters: TypeAlias = "Mapping[str, bytes | str | int | None]"


def as_keyword(value: str) -> str:
    """Check a keyword (RFC 5321 §4.1.2), make it upper case; LocalProtocolError if it is none."""
    if KEYWORD.fullmatch(as_octets(value)) is None:
        raise LocalProtocolError(f"not an ESMTP keyword: {value!r}")
    return value.upper()


class Parameters(Mapping[str, bytes | None]):
    """The parameters of one command, in their order: keyword -> value octets, or None for none.

    Keywords are upper case; values are kept as they were written, whoever knows them or not.
    Build one from a mapping; text and numbers become octets, None is for no value.
    LocalProtocolError where a keyword or value is not what RFC 5321 §4.1.2 allows. Values may hold
    UTF-8 (RFC 6531 §3.3), which only passes in a transaction that asked for SMTPUTF8.
    """

    __slots__ = ("_items",)

    def __init__(self, items: AnyParameters | None = None) -> None:
        self._items: dict[str, bytes | None] = {}
        for keyword, value in (items or {}).items():
            if isinstance(value, bool):
                raise LocalProtocolError(f"a parameter without a value has None: {keyword}")
            octets = as_octets(str(value)) if isinstance(value, int) else value
            octets = as_octets(octets) if octets is not None else None
            wire = as_octets(keyword) + (b"" if octets is None else b"=" + octets)
            match = PARAMETER.fullmatch(wire)
            if match is None or match[2] != octets or keyword.upper() in self._items:
                raise LocalProtocolError(f"not an ESMTP parameter: {wire!r}")
            self._items[keyword.upper()] = octets

    @classmethod
    def of(cls, value: AnyParameters | None) -> Parameters:
        """Take parameters, or a mapping that a caller means as some; None is for none."""
        if value is None:
            return NO_PARAMETERS
        return value if isinstance(value, Parameters) else cls(value)

    @classmethod
    def parse(cls, octets: bytes) -> Parameters:
        """Read `KEY=value KEY …`, any run of spaces between; GrammarError 501 if it is not that."""
        items: dict[str, bytes | None] = {}
        for wire in octets.split(b" "):
            if not wire:
                continue
            match = PARAMETER.fullmatch(wire)
            if match is None:
                raise GrammarError("malformed parameter")
            keyword = match[1].decode().upper()
            if keyword in items:
                raise GrammarError("duplicate parameter")
            items[keyword] = match[2]
        return _take(items)

    @property
    def is_ascii(self) -> bool:
        """Whether they need no SMTPUTF8 (RFC 6531 §3.3)."""
        return all(value is None or value.isascii() for value in self._items.values())

    def serialize(self) -> bytes:
        """Write them, each with a space in front."""
        return b"".join(
            b" %b" % keyword.encode() if value is None else b" %b=%b" % (keyword.encode(), value)
            for keyword, value in self._items.items()
        )

    def __getitem__(self, keyword: str) -> bytes | None:
        return self._items[keyword]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    # Mapping's own would call __getitem__ each time, and let it raise.

    def __contains__(self, keyword: object) -> bool:
        return keyword in self._items

    def get(self, keyword: str, default: Any = None) -> Any:
        return self._items.get(keyword, default)

    def items(self) -> ItemsView[str, bytes | None]:
        return self._items.items()

    def __hash__(self) -> int:
        return hash(frozenset(self._items.items()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Parameters) and self._items == other._items

    def __repr__(self) -> str:
        return f"Parameters({self._items!r})"


_take = taker(Parameters, "_items")
#: What most commands have.
NO_PARAMETERS = Parameters()


@frozen
class Parameter(Generic[T]):
    """What an extension knows of one parameter.

    `read` turns the value's octets (None: no value was given) into the typed value and raises
    GrammarError; `write` is its reverse. `octets` is what the parameter, its space included,
    adds to the longest command line (RFC 5321 §4.5.3.1.4), where its RFC says so.
    LocalProtocolError for a keyword that is none.
    """

    keyword: str = field(converter=as_keyword)
    read: Callable[[bytes | None], T]
    write: Callable[[T], bytes | None]
    octets: int = 0

    def __call__(self, value: T) -> dict[str, bytes | None]:
        """Return `{keyword: octets}`, to build parameters from; LocalProtocolError if unfit."""
        try:
            written = self.write(value)
            self.read(written)
        except GrammarError as error:
            raise LocalProtocolError(str(error)) from None
        return {self.keyword: written}

    def of(self, parameters: Parameters) -> T | None:
        """Return the typed value in `parameters`, None where it is absent; may GrammarError."""
        return self.read(parameters[self.keyword]) if self.keyword in parameters else None
