"""The slots that an ESMTP extension fills (RFC 5321 §2.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from attrs import field, frozen

from .command import Command
from .errors import LocalProtocolError
from .parameter import Parameter, as_keyword
from .reply import Reply

__all__ = ["Extension", "Standing"]


@frozen
class Standing:
    """What an extension may look at to decide how it is announced now."""

    tls: bool
    tls_available: bool
    mechanisms: tuple[str, ...]  # of those configured, the ones usable now
    max_octets: int | None  # of a message
    max_recipients: int  # of a transaction


def _always(_: Standing) -> str | None:
    return ""


def _parameters(values: Iterable[Parameter[Any]]) -> tuple[Parameter[Any], ...]:
    return tuple(values)


def _verbs(values: Iterable[type[Command]]) -> tuple[type[Command], ...]:
    verbs = tuple(values)
    for each in verbs:
        verb = each.verb.decode("ascii", "backslashreplace")
        if as_keyword(verb) != verb:
            raise LocalProtocolError(f"a verb is declared in upper case: {verb}")
    return verbs


def _keywords(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(as_keyword(value) for value in values)


@frozen(eq=False)
class Extension:
    """One ESMTP keyword and all that comes with it.

    `rfc` is the number of the RFC that defines it, None where none does. `mail` and `rcpt` are
    the parameters it defines, `verbs` its commands, `needs` the keywords without which it is not
    offered. `announce` gives what stands behind the keyword in the EHLO reply, or None when it
    cannot be offered now; it goes by its argument alone. `obliges` says in a few words what the
    server's caller takes on by offering it; empty where the core alone keeps the promise. `judge`
    may refuse one of its verbs, or a MAIL or RCPT with parameters, that is well-formed.
    It sees what is offered, keyword -> argument, and so gives the same answer at both ends: the
    server replies with it, the client sends nothing.

    Keywords are in upper case, however they were given. LocalProtocolError for what is no keyword
    or verb. One is equal to itself alone: what it does is in its functions.
    """

    keyword: str = field(converter=as_keyword)
    rfc: int | None = None
    mail: tuple[Parameter[Any], ...] = field(converter=_parameters, default=())
    rcpt: tuple[Parameter[Any], ...] = field(converter=_parameters, default=())
    verbs: tuple[type[Command], ...] = field(converter=_verbs, default=())
    needs: tuple[str, ...] = field(converter=_keywords, default=())
    obliges: str = ""
    announce: Callable[[Standing], str | None] = _always
    judge: Callable[[Command, Mapping[str, str]], Reply | None] | None = None
