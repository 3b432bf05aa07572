"""SIZE (RFC 1870): the largest message, and how large this one is going to be."""

from __future__ import annotations

from collections.abc import Mapping

from smtpproto.core.command import Command, Mail
from smtpproto.core.errors import GrammarError
from smtpproto.core.extension import Extension, Standing
from smtpproto.core.parameter import Parameter
from smtpproto.core.reply import Reply

__all__ = ["SIZE", "SIZE_OCTETS"]

TOO_BIG = Reply(552, "5.3.4", "Message size exceeds fixed maximum message size")


def _is_size(octets: bytes) -> bool:
    # size-value ::= 1*20DIGIT (RFC 1870 §5)
    return octets.isdigit() and len(octets) <= 20


def _read(value: bytes | None) -> int:
    if value is None or not _is_size(value):
        raise GrammarError("SIZE takes 1 to 20 digits")
    return int(value)


SIZE_OCTETS: Parameter[int] = Parameter("SIZE", _read, lambda size: b"%d" % size, octets=26)


def _announce(standing: Standing) -> str | None:
    # RFC 1870 §3: 0 says that there is no fixed maximum.
    return str(standing.max_octets or 0)


def _judge(command: Command, offered: Mapping[str, str]) -> Reply | None:
    size = SIZE_OCTETS.of(command.parameters) if isinstance(command, Mail) else None
    if size is None or not _is_size(limit := offered["SIZE"].encode()):
        return None
    return TOO_BIG if size > int(limit) > 0 else None


SIZE = Extension("SIZE", rfc=1870, mail=(SIZE_OCTETS,), announce=_announce, judge=_judge)
