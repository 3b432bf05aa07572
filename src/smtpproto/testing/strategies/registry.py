"""Which strategy makes the values of a parameter, the commands of a verb, a keyword's argument.

What the package knows is registered here, and what others add beside it: `register` what your
extension brings, and all that takes `extensions` speaks it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar, overload

from hypothesis import strategies as st

from smtpproto.core.command import Command
from smtpproto.core.connection import Limits
from smtpproto.core.extension import Extension
from smtpproto.core.parameter import Parameter
from smtpproto.core.server_connection import ServerConnection
from smtpproto.mechanisms import STANDARD as MECHANISMS

__all__ = ["arguments_of", "commands_of", "full_offer", "register", "values_of"]

T = TypeVar("T")
C = TypeVar("C", bound=Command)
Key: TypeAlias = "Parameter[Any] | type[Command] | Extension"

_strategies: dict[Key, st.SearchStrategy[Any]] = {}


@overload
def register(key: Parameter[T], strategy: st.SearchStrategy[T]) -> None: ...
@overload
def register(key: type[C], strategy: st.SearchStrategy[C]) -> None: ...
@overload
def register(key: Extension, strategy: st.SearchStrategy[str]) -> None: ...
def register(key: Key, strategy: st.SearchStrategy[Any]) -> None:
    """Say what strategy makes things of one kind: from now on, and instead of an earlier one.

    For a parameter it makes typed values, for a class of commands its commands, for an extension
    what may stand behind its keyword in an EHLO reply (which need not be registered).
    """
    _strategies[key] = strategy


def values_of(parameter: Parameter[T]) -> st.SearchStrategy[T]:
    """Typed values of one parameter. LookupError where none are registered."""
    return _registered(parameter, f"the values of {parameter.keyword}")


def commands_of(verb: type[C]) -> st.SearchStrategy[C]:
    """Commands of one class. LookupError where none are registered.

    `Mail` and `Rcpt` have any well-formed parameters; `mail_commands(extensions)` has known ones.
    """
    return _registered(verb, f"commands of {verb.__name__}")


def arguments_of(extension: Extension) -> st.SearchStrategy[str]:
    """What servers may announce behind its keyword; by default what it announces itself."""
    if extension in _strategies:
        return _strategies[extension]
    return st.just(full_offer((extension,)).get(extension.keyword, ""))


def _registered(key: Key, what: str) -> st.SearchStrategy[Any]:
    if key not in _strategies:
        raise LookupError(f"no strategy makes {what}: register() one")
    return _strategies[key]


def full_offer(extensions: Sequence[Extension], *, tls: bool | None = None) -> Mapping[str, str]:
    """Keyword -> argument of all that a server announces which offers as much as it can.

    With every mechanism and no limit on messages, in clear or under TLS; None: in either.
    """
    return _full_offer(tuple(extensions), (False, True) if tls is None else (tls,))


@lru_cache(maxsize=64)
def _full_offer(known: tuple[Extension, ...], standings: tuple[bool, ...]) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for tls in standings:
        server = ServerConnection(
            "server.example",
            known,
            offer=known,
            limits=Limits(message=None),
            mechanisms=MECHANISMS,
            plaintext_auth=True,
            tls_available=True,
        )
        if tls:
            server.tls_started()
        found.update(server.offered)
    return MappingProxyType(found)
