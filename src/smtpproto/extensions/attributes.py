"""The attributes that XCLIENT and XFORWARD carry: NAME=value pairs in xtext.

Source: Postfix's XCLIENT_README and XFORWARD_README.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar, Self, TypeAlias

from attrs import field, frozen

from smtpproto.core.command import Command
from smtpproto.core.errors import GrammarError, LocalProtocolError
from smtpproto.core.extension import Extension
from smtpproto.core.path import as_octets
from smtpproto.core.reply import Reply
from smtpproto.core.value import taken
from smtpproto.core.xtext import decode_xtext, encode_xtext

__all__ = [
    "TEMPUNAVAIL",
    "UNAVAILABLE",
    "AttributeCommand",
    "Attributes",
    "Unknown",
    "attribute_extension",
    "is_port",
    "is_word",
]


class Unknown(enum.Enum):
    """What stands for a value that is not there."""

    UNAVAILABLE = b"[UNAVAILABLE]"  #: there is none, or it could not be found out
    TEMPUNAVAIL = b"[TEMPUNAVAIL]"  #: it could not be found out for now


UNAVAILABLE = Unknown.UNAVAILABLE
TEMPUNAVAIL = Unknown.TEMPUNAVAIL

Value: TypeAlias = "bytes | Unknown"

_MAX_VALUE = 255  # octets as written
# Decoded, a value holds no control, no space, nothing beyond ASCII.
_WORD = re.compile(rb"[\x21-\x7e]+")
_PORT = re.compile(rb"[0-9]{1,5}")


def is_word(value: bytes) -> bool:
    """Tell whether a value is anything at all."""
    return _WORD.fullmatch(value) is not None


def is_port(value: bytes) -> bool:
    """Tell whether a value is a port number in decimal, 0 to 65535."""
    return _PORT.fullmatch(value) is not None and int(value) <= 65535


class Attributes(Mapping[str, Value]):
    """Attribute -> octets that are meant, or an Unknown; names are upper case, order is kept."""

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[str, str | Value]) -> None:
        self._items: dict[str, Value] = {
            name.upper(): value if isinstance(value, Unknown) else as_octets(value)
            for name, value in items.items()
        }
        if len(self._items) != len(items):
            raise LocalProtocolError("an attribute twice")

    def __getitem__(self, name: str) -> Value:
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(frozenset(self._items.items()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._items!r})"


def _attributes(items: Mapping[str, str | Value]) -> Attributes:
    return items if isinstance(items, Attributes) else Attributes(items)


@frozen
class AttributeCommand(Command):
    """A command that carries attributes. Subclass it with `verb` and `rules`.

    Takes a mapping of names to text, octets or an Unknown; LocalProtocolError for a name that
    the verb does not have, or a value that does not fit.
    """

    in_transaction = False
    suggested = Reply(550, "5.7.0", "Insufficient authorization")  # whoever trusts, decides

    #: Name -> whether it takes a decoded value, in the order in which they are announced.
    rules: ClassVar[Mapping[str, Callable[[bytes], bool]]] = {}

    attributes: Attributes = field(converter=_attributes)

    def __attrs_post_init__(self) -> None:
        try:
            read = self.parse(self.argument())
        except GrammarError as error:
            raise LocalProtocolError(str(error)) from None
        if read.attributes != self.attributes:
            raise LocalProtocolError("an attribute that would be read as another")

    @classmethod
    def parse(cls, argument: bytes) -> Self:
        found: dict[str, Value] = {}
        for pair in filter(None, argument.split(b" ")):
            name, separator, written = pair.partition(b"=")
            attribute = name.decode("ascii", "replace").upper()
            rule = cls.rules.get(attribute)
            if rule is None or not separator or attribute in found:
                raise GrammarError(f"Syntax: {cls.verb.decode()} attribute=value, each once")
            value = _read(written)
            if not isinstance(value, Unknown) and not rule(value):
                raise GrammarError(f"{attribute} does not take such a value")
            found[attribute] = value
        if not found:
            raise GrammarError(f"Syntax: {cls.verb.decode()} attribute=value")
        return taken(cls, attributes=Attributes(found))

    def argument(self) -> bytes:
        return b" ".join(
            b"%b=%b" % (name.encode("utf-8", "surrogatepass"), _write(value))
            for name, value in self.attributes.items()
        )


def _read(written: bytes) -> Value:
    try:
        return Unknown(written.upper())
    except ValueError:
        value = decode_xtext(written)
    if len(written) > _MAX_VALUE or not is_word(value):
        raise GrammarError(f"an attribute has 1 to {_MAX_VALUE} characters, none of them a space")
    return value


def _write(value: Value) -> bytes:
    return value.value if isinstance(value, Unknown) else encode_xtext(value)


def attribute_extension(verb: type[AttributeCommand], *, obliges: str) -> Extension:
    """Make the extension that announces `verb` and the names of its attributes."""
    keyword = verb.verb.decode()

    def judge(command: Command, offered: Mapping[str, str]) -> Reply | None:
        if not isinstance(command, verb) or set(command.attributes) <= set(
            offered[keyword].split()
        ):
            return None
        return Reply(501, "5.5.4", f"{keyword} takes {offered[keyword]}")

    return Extension(
        keyword,
        verbs=(verb,),
        obliges=obliges,
        announce=lambda _: " ".join(verb.rules),
        judge=judge,
    )
