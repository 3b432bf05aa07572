"""DELIVERBY (RFC 2852): deliver within so many seconds, or else tell me or give up."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping

from attrs import frozen

from smtpproto.core.command import Command, Mail
from smtpproto.core.errors import GrammarError, LocalProtocolError
from smtpproto.core.extension import Extension
from smtpproto.core.parameter import Parameter
from smtpproto.core.reply import Reply

__all__ = ["BY", "DELIVERBY", "ByMode", "DeliverBy", "deliverby", "min_by_time"]

# by-value = by-time ";" by-mode [by-trace] ; by-time = ["-" / "+"] 1*9digit (§4)
_BY_VALUE = re.compile(rb"([+-]?[0-9]{1,9});([NnRr])([Tt])?")
# deliverby-param = min-by-time *( "," extension-token ) ; min-by-time = [1*9DIGIT] (§2)
_MIN_BY_TIME = re.compile(r"([0-9]{1,9})?(?:,[^ ,\x00-\x1f]+)*")
_MOST = 999_999_999


class ByMode(enum.Enum):
    """What to do when the time is over (§4.1)."""

    NOTIFY = "N"  #: go on, and tell the sender
    RETURN = "R"  #: give up


@frozen
class DeliverBy:
    """Deliver within `seconds` (−999,999,999 to 999,999,999; over 0 to RETURN it), else `mode`.

    `trace` asks for a report from each server that relays it. LocalProtocolError where the
    numbers are out of range.
    """

    seconds: int
    mode: ByMode
    trace: bool = False

    def __attrs_post_init__(self) -> None:
        if abs(self.seconds) > _MOST:
            raise LocalProtocolError("the seconds of BY have at most 9 digits")
        if self.mode is ByMode.RETURN and self.seconds <= 0:
            raise LocalProtocolError("BY with mode R needs a time over 0 (RFC 2852 section 4)")


def _read(value: bytes | None) -> DeliverBy:
    match = _BY_VALUE.fullmatch(value or b"")
    if match is None:
        raise GrammarError("BY takes seconds;N or seconds;R, and T behind for a trace")
    try:
        return DeliverBy(int(match[1]), ByMode(match[2].decode().upper()), match[3] is not None)
    except LocalProtocolError as error:
        raise GrammarError(str(error)) from None


def _write(by: DeliverBy) -> bytes:
    return b"%d;%b%b" % (by.seconds, by.mode.value.encode(), b"T" if by.trace else b"")


BY: Parameter[DeliverBy] = Parameter("BY", _read, _write, octets=17)


def min_by_time(argument: str) -> int | None:
    """Read what stands behind DELIVERBY in the EHLO reply: the least seconds for mode RETURN.

    None where the server does not say, or says what nobody can read.
    """
    match = _MIN_BY_TIME.fullmatch(argument)
    return int(match[1]) if match and match[1] else None


def _judge(command: Command, offered: Mapping[str, str]) -> Reply | None:
    by = BY.of(command.parameters) if isinstance(command, Mail) else None
    least = min_by_time(offered["DELIVERBY"])
    if by is None or least is None or by.mode is not ByMode.RETURN or by.seconds >= least:
        return None
    return Reply(555, "5.5.4", f"BY with mode R takes at least {least} seconds")


def deliverby(least: int | None = None) -> Extension:
    """Make the extension for a server that takes mode RETURN from `least` seconds up."""
    if least is not None and not 0 <= least <= _MOST:
        raise LocalProtocolError("the least seconds of DELIVERBY have at most 9 digits")
    argument = "" if least is None else str(least)
    return Extension(
        "DELIVERBY",
        rfc=2852,
        mail=(BY,),
        obliges="keep the time, report as asked, and pass on what is left of it",
        announce=lambda _: argument,
        judge=_judge,
    )


DELIVERBY = deliverby()
