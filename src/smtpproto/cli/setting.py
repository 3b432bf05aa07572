"""How single settings of a file are read: the readers, and the words for what went wrong.

A reader takes what TOML has and the folder that relative paths are relative to. It raises TypeError
for the wrong type, and ValueError, with the value and words, for the wrong value.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from attrs import frozen

from smtpproto.client import Tls

from .values import duration, size

__all__ = [
    "PASSWORD_FILE",
    "TIME",
    "TLS",
    "USER",
    "Setting",
    "SeveralError",
    "a_count",
    "a_duration",
    "a_list",
    "a_path",
    "a_size",
    "a_text",
    "instead",
    "problems_of",
    "read_entries",
    "read_setting",
    "read_table",
    "yes_or_no",
]

T = TypeVar("T")
V = TypeVar("V")


@frozen
class Setting:
    """One key: how its value is read, and what is accepted, to complete "KEY takes ..."."""

    #: From what TOML has; `folder` is what relative paths are relative to. TypeError for the
    #: wrong type, ValueError with the value and words for the wrong value.
    read: Callable[[Any, Path], Any]
    accepts: str


def a_text(value: object, folder: Path, read: Callable[[str], T]) -> T:
    """Read a text by a function of `values`."""
    if not isinstance(value, str):
        raise TypeError
    try:
        return read(value)
    except ValueError as error:
        raise ValueError(f'"{value}" is {error}') from None


def a_list(value: object, folder: Path, read: Callable[[str], T]) -> tuple[T, ...]:
    """Read a list of texts, each one once."""
    if not isinstance(value, list):
        raise TypeError
    texts = cast("list[object]", value)
    return tuple(dict.fromkeys(collected(lambda text: a_text(text, folder, read), texts)))


class SeveralError(ValueError):
    """More than one thing is wrong with a value: `problems`, each in words."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


def problems_of(error: ValueError) -> tuple[str, ...]:
    """Return all that an error tells of."""
    return error.problems if isinstance(error, SeveralError) else (str(error),)


def collected(read: Callable[[V], T], values: Iterable[V]) -> list[T]:
    """Read each value, and raise what is wrong with any of them: SeveralError."""
    found: list[T] = []
    problems: list[str] = []
    for value in values:
        try:
            found.append(read(value))
        except ValueError as error:
            problems += problems_of(error)
    if problems:
        raise SeveralError(problems)
    return found


def a_path(value: object, folder: Path) -> Path:
    """Read a path."""
    if not isinstance(value, str):
        raise TypeError
    if not value or "\0" in value:
        raise ValueError(f'"{value}" is no path')
    return folder / value


def a_duration(value: object, folder: Path) -> float:
    """Read a time span, in seconds."""
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise TypeError
    return a_text(str(value), folder, duration)


def a_size(value: object, folder: Path) -> int:
    """Read a number of octets above 0, or of anything that is counted so."""
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise TypeError
    return a_text(str(value), folder, size)


def a_count(value: object, folder: Path) -> int:
    """Read a number above 0."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError
    if not 0 < value < 10**15:
        raise ValueError(f"{value} is no number above 0")
    return value


def yes_or_no(value: object, folder: Path) -> bool:
    """Read true or false."""
    if not isinstance(value, bool):
        raise TypeError
    return value


def _tls(text: str) -> Tls:
    try:
        return Tls(text)
    except ValueError:
        raise ValueError(instead(text, [tls.value for tls in Tls], "none of them")) from None


def _user(text: str) -> str:
    if not text or not text.isprintable():
        raise ValueError("no user name")
    return text


def read_setting(settings: Mapping[str, Setting], key: str, value: object, folder: Path) -> Any:
    """Read one key of a table; ValueError in words, that begin with the key."""
    setting = settings.get(key)
    if setting is None:
        raise ValueError(f"{key}: {instead(key, list(settings), 'no such key')}")
    try:
        return setting.read(value, folder)
    except TypeError:
        got = f"{_kind(value)} was given"
        raise ValueError(f"{key}: takes {setting.accepts}; {got}") from None
    except ValueError as error:
        raise SeveralError(f"{key}: {problem}" for problem in problems_of(error)) from None


def read_table(
    settings: Mapping[str, Setting], table: Mapping[str, object], folder: Path
) -> dict[str, Any]:
    """Read all keys of a table, by their names; ValueErrors as of `read_setting`."""
    return dict(
        collected(lambda pair: (pair[0], read_setting(settings, *pair, folder)), table.items())
    )


def read_entries(value: object, read: Callable[[Mapping[str, object]], T]) -> list[T]:
    """Read an array of tables; what is wrong with one begins with its number, from 1."""
    if not isinstance(value, list):
        raise TypeError
    entries = cast("list[object]", value)
    if not all(isinstance(entry, dict) for entry in entries):
        raise TypeError

    def numbered(pair: tuple[int, object]) -> T:
        number, entry = pair
        try:
            return read(cast("dict[str, object]", entry))
        except ValueError as error:
            raise SeveralError(f"entry {number}: {each}" for each in problems_of(error)) from None

    return collected(numbered, enumerate(entries, start=1))


def instead(given: str, accepted: list[str], what: str) -> str:
    """Say `what` is wrong with a word, and which one was meant or what there is."""
    close = difflib.get_close_matches(given.replace("_", "-").lower(), accepted, 1)
    if close:
        return f'{what}; did you mean "{close[0]}"?'
    return f"{what}; there are {', '.join(accepted)}"


_KINDS = {
    "str": "a text",
    "bool": "true or false",
    "int": "a number",
    "float": "a number with a fraction",
    "dict": "a table",
}


def _kind(value: object) -> str:
    if isinstance(value, list):
        items = cast("list[object]", value)
        odd = next((item for item in items if not isinstance(item, str)), None)
        return "a list" if odd is None else f"a list with {_kind(odd)} in it"
    return _KINDS.get(type(value).__name__, "a date or time")


TIME = Setting(
    a_duration, 'a number of seconds, or a text such as "30 s", "10 min", "4 h" or "5 d"'
)
TLS = Setting(partial(a_text, read=_tls), "one of " + ", ".join(f'"{tls.value}"' for tls in Tls))
USER = Setting(partial(a_text, read=_user), "a text: the user to log in as")
PASSWORD_FILE = Setting(a_path, "a text: the path of a file whose first line is the password")
