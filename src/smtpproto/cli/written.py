"""Values of settings as a TOML file has them: the way back from `setting`."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from typing import cast

from smtpproto.relay.mailboxes.quota import Quota
from smtpproto.relay.routing.route import HostPort

from .routes import RouteSettings

__all__ = ["quoted", "written"]


def written(value: object) -> str:
    """Write a value on one line; what is None is empty."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case math.inf:  # the time of what never comes
            return quoted("never")
        case int() | float():
            return repr(value).removesuffix(".0")
        case enum.Enum():
            return written(value.value)
        case Quota(octets=octets, messages=messages):
            return written(
                {"size": octets or "none", **({"messages": messages} if messages else {})}
            )
        case HostPort(host="", port=port):
            return quoted(f":{port}")
        case RouteSettings():
            return quoted(f"{value.whose}: {value}")
        case str():
            return quoted(value)
        case Mapping():
            pairs = cast("Mapping[object, object]", value).items()
            inner = ", ".join(f"{_key(str(key))} = {written(each)}" for key, each in pairs)
            return f"{{ {inner} }}" if inner else "{}"
        case list() | tuple():
            return f"[{', '.join(map(written, cast('Sequence[object]', value)))}]"
        case _:
            return quoted(str(value))


def _key(text: str) -> str:
    bare = text.isascii() and text.replace("-", "").replace("_", "").isalnum()
    return text if bare else quoted(text)


def quoted(text: str) -> str:
    """Write a TOML basic string. What is no Unicode, as in a path, comes out as U+FFFD."""
    return '"' + "".join(_escaped(character) for character in text) + '"'


def _escaped(character: str) -> str:
    if character in {'"', "\\"}:
        return "\\" + character
    if character.isprintable():
        return character
    code = 0xFFFD if "\ud800" <= character <= "\udfff" else ord(character)
    return f"\\U{code:08x}"
