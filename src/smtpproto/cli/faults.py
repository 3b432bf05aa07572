"""The options by which `smtpproto sink` goes wrong on purpose."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import click

from smtpproto.core.command import BASE_VERBS
from smtpproto.core.errors import GrammarError
from smtpproto.core.reply import Reply, Severity
from smtpproto.extensions import STANDARD
from smtpproto.handlers import CLOSING, HARD, SOFT, Fault

from .options import Value

__all__ = ["fault_options", "faults", "places", "reply", "waits"]

F = TypeVar("F", bound=Callable[..., Any])

_VERBS = [*BASE_VERBS, *(verb.verb for extension in STANDARD for verb in extension.verbs)]
_PLACES = ["CONNECT", "CONTENT", ".", *(verb.decode() for verb in _VERBS)]
_ODDS = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)%")
_SECONDS = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,6})?")


def places(text: str) -> list[tuple[str, float]]:
    """Read COMMAND[:ODDS%], or several with commas between them; each with its probability."""
    return [(_place(at), _odds(odds)) for at, odds in _split(text)]


def waits(text: str) -> list[tuple[str, float, float]]:
    """Read COMMAND:SECONDS[:ODDS%], or several; each with its seconds and its probability."""
    found: list[tuple[str, float, float]] = []
    for at, rest in _split(text):
        seconds, _, odds = rest.partition(":")
        if _SECONDS.fullmatch(seconds) is None:
            raise ValueError('without a number of seconds, as in "RCPT:0.5" or "RCPT:0.5:10%"')
        found.append((_place(at), float(seconds), _odds(odds)))
    return found


def reply(severity: Severity) -> Callable[[str], Reply]:
    """Return what reads a reply of one severity, such as "450 4.3.0 Not now"."""

    def read(text: str) -> Reply:
        try:
            found = Reply.parse(text.encode() + b"\r\n")
        except GrammarError as error:
            raise ValueError(
                f'no reply, such as "{severity}50 {severity}.3.0 No": {error}'
            ) from None
        if found.severity is not severity:
            raise ValueError(f"no {severity}yz reply")
        if not found.is_writable():
            raise ValueError("no reply of printable ASCII in 512 octets")
        return found

    return read


def _split(text: str) -> Iterable[tuple[str, str]]:
    for one in re.split(r"[,\s]+", text.strip()):  # as smtp-sink has them
        at, _, rest = one.partition(":")
        yield at, rest


def _place(text: str) -> str:
    if text.upper() not in _PLACES:
        raise ValueError(f"none of {', '.join(_PLACES)}" if text else "without a command")
    return text.upper()


def _odds(text: str) -> float:
    match = _ODDS.fullmatch(text) if text else None
    if text and (match is None or float(match[1]) > 100):
        raise ValueError('without odds from 0% to 100%, as in "RCPT:10%"')
    return float(match[1]) / 100 if match else 1.0


def _at(name: str, kind: Value, text: str) -> Callable[[F], F]:
    return click.option(name, type=kind, multiple=True, metavar=f"{kind.name},…", help=text)


def _said(by: str, usual: Reply) -> Callable[[F], F]:
    kind = Value("REPLY", reply(usual.severity))
    text = f"What {by} says."
    return click.option(f"{by}-reply", type=kind, default=str(usual), show_default=True, help=text)


def fault_options(command: F) -> F:
    """Add --soft, --hard, --close, --cut, --delay, --soft-reply, --hard-reply and --seed."""
    where = Value("COMMAND[:ODDS%]", places)
    wait = Value("COMMAND:SECONDS[:ODDS%]", waits)
    options = [
        _at(
            "--soft",
            where,
            "Refuse a command for now. CONNECT stands for the greeting, '.' for the end of "
            "content; CONTENT refuses it before it was read, and hangs up.",
        ),
        _at("--hard", where, "Refuse it for good."),
        _at("--close", where, "Answer 421 and hang up."),
        _at("--cut", where, "Hang up without an answer."),
        _at("--delay", wait, "Wait before the answer; at CONTENT, before it is read."),
        _said("--soft", SOFT),
        _said("--hard", HARD),
        click.option(
            "--seed",
            type=int,
            default=0,
            show_default=True,
            help="What odds are drawn by: the same for a session of the same number.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def faults(
    *,
    soft: Iterable[list[tuple[str, float]]],
    hard: Iterable[list[tuple[str, float]]],
    close: Iterable[list[tuple[str, float]]],
    cut: Iterable[list[tuple[str, float]]],
    delay: Iterable[list[tuple[str, float, float]]],
    soft_reply: Reply,
    hard_reply: Reply,
) -> list[Fault]:
    """Make faults of what the options say. UsageError for those that cannot be."""
    found = [Fault(at, delay=s, odds=odds) for one in delay for at, s, odds in one]
    try:
        for said, given in (soft_reply, soft), (hard_reply, hard), (CLOSING, close):
            for at, odds in (place for one in given for place in one):
                found.append(Fault(at, said, cut="after" if at == "CONTENT" else None, odds=odds))
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    return [*found, *(Fault(at, cut="before", odds=odds) for one in cut for at, odds in one)]
