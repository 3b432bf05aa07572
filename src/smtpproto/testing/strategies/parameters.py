"""ESMTP parameters of MAIL and RCPT: any that are well-formed, and those that extensions define."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from hypothesis import strategies as st

from smtpproto.core.extension import Extension
from smtpproto.core.parameter import Parameter
from smtpproto.extensions import STANDARD

from .registry import values_of
from .words import LET_DIG, PRINTABLE

__all__ = [
    "Items",
    "mail_parameters",
    "parameters",
    "parameters_of",
    "rcpt_parameters",
    "standard_mail_parameters",
]

#: Keyword -> value octets, None for none: what `Parameters` is made of.
Items: TypeAlias = Mapping[str, bytes | None]

_MOST = 4  # parameters of one command


def parameters() -> st.SearchStrategy[Items]:
    """Any ESMTP parameters that are well-formed, whoever knows them."""
    keywords = st.builds(
        "{}{}".format, st.sampled_from(LET_DIG), st.text(LET_DIG + "-", max_size=6)
    ).map(str.upper)
    values = st.text(PRINTABLE.replace("=", "").replace(" ", ""), min_size=1, max_size=12)
    return st.dictionaries(keywords, st.one_of(st.none(), values.map(str.encode)), max_size=_MOST)


def parameters_of(extension: Extension) -> st.SearchStrategy[Items]:
    """One parameter that this extension defines for MAIL or RCPT, with a value that it takes.

    Nothing where it defines none; LookupError where a value's strategy is not registered.
    """
    return _one_of((*extension.mail, *extension.rcpt))


def mail_parameters(extensions: Sequence[Extension] = STANDARD) -> st.SearchStrategy[Items]:
    """Parameters that these extensions define for MAIL, each with a value that it takes.

    Up to four of them; what they say together may still be refused (HOLDFOR and HOLDUNTIL).
    """
    return _some_of([p for e in extensions for p in e.mail])


def rcpt_parameters(extensions: Sequence[Extension] = STANDARD) -> st.SearchStrategy[Items]:
    """The same for RCPT."""
    return _some_of([p for e in extensions for p in e.rcpt])


def standard_mail_parameters() -> st.SearchStrategy[Items]:
    """Parameters that the extensions in STANDARD define for MAIL, with values they take."""
    return mail_parameters(STANDARD)


def _one_of(known: Sequence[Parameter[Any]]) -> st.SearchStrategy[Items]:
    each: list[st.SearchStrategy[Items]] = [values_of(p).map(p) for p in known]
    return st.one_of(each) if each else st.just({})


def _some_of(known: Sequence[Parameter[Any]]) -> st.SearchStrategy[Items]:
    return st.lists(_one_of(known), max_size=_MOST).map(_merged)


def _merged(found: Iterable[Items]) -> Items:
    return {keyword: value for items in found for keyword, value in items.items()}
