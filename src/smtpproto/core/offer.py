"""What a server offers at one time, and what that permits its client."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

from .command import (
    BASE_VERBS,
    LMTP_VERBS,
    Auth,
    AuthResponse,
    Command,
    Expn,
    Help,
    Mail,
    Rcpt,
    StartTls,
)
from .errors import GrammarError
from .extension import Extension, Standing
from .parameter import Parameter
from .reply import Reply

__all__ = ["Offer", "offer_for", "verbs_of"]

#: EXPN and HELP are older than EHLO. Devices say HELO before STARTTLS and AUTH and know by their
#: settings that these are offered; no clause refuses them, and all that they do is make it safer.
_HELO_WILL_DO = frozenset({Expn, Help, StartTls, Auth})

UNKNOWN_PARAMETER = Reply(555, "5.5.4", "Parameters not recognized or not implemented")


class Offer:
    """The extensions of `extensions` that can be offered as things stand.

    `lines` maps keyword to argument, in the order of the EHLO reply, and `ehlo_lines` is what that
    says of them; `verbs` are the commands that come with them, `behind_ehlo` those of them that
    want EHLO first (RFC 5321 §4.1.4), `max_line` the octets that each line may have, CRLF included;
    `short` is what any line may have.
    """

    __slots__ = (
        "_judges",
        "_parameters",
        "behind_ehlo",
        "ehlo_lines",
        "keep",
        "lines",
        "max_line",
        "short",
        "standing",
        "verbs",
    )

    def __init__(self, extensions: tuple[Extension, ...], standing: Standing) -> None:
        self.standing = standing
        # Shared between connections, so nobody is to write in it.
        self.lines = MappingProxyType(_announced(extensions, standing))
        self.ehlo_lines = tuple(
            f"{word} {arg}".rstrip().encode() for word, arg in self.lines.items()
        )
        offered = [e for e in extensions if e.keyword in self.lines]
        self.verbs = frozenset(verb for e in offered for verb in e.verbs)
        self.behind_ehlo = self.verbs - {*_HELO_WILL_DO, *BASE_VERBS.values()}
        self._parameters: Mapping[type[Command], dict[str, Parameter[object]]] = {
            Mail: {p.keyword: p for e in offered for p in e.mail},
            Rcpt: {p.keyword: p for e in offered for p in e.rcpt},
        }
        self._judges = [e.judge for e in offered if e.judge is not None]
        known = {*BASE_VERBS.values(), *(verb for e in extensions for verb in e.verbs)}
        self.max_line: Mapping[type[Command], int] = {
            verb: verb.max_line + sum(p.octets for p in self._parameters.get(verb, {}).values())
            for verb in known
        }
        self.short = min(self.max_line.values())
        #: Octets of a line that are worth keeping.
        self.keep = max(*self.max_line.values(), AuthResponse.max_line)

    def objection(self, command: Mail | Rcpt, *, extended: bool) -> Reply | None:
        """Return what the parameters of a MAIL or RCPT have earned, None where they may pass.

        `UNKNOWN_PARAMETER` where nothing is wrong but that nobody knows or offered one.
        """
        permitted = self._parameters[type(command)] if extended else {}
        unknown = False
        for keyword, value in command.parameters.items():
            if keyword not in permitted:
                unknown = True
                continue
            try:
                permitted[keyword].read(value)
            except GrammarError as error:
                return Reply(error.code, error.status, str(error))
        if unknown:
            return UNKNOWN_PARAMETER
        return self.refusal(command)

    def refusal(self, command: Command) -> Reply | None:
        """Return what the extensions' judges have against a well-formed command, if anything."""
        for judge in self._judges:
            if (refusal := judge(command, self.lines)) is not None:
                return refusal
        return None


@lru_cache(maxsize=256)
def offer_for(extensions: tuple[Extension, ...], standing: Standing) -> Offer:
    """Return the offer; connections that stand alike share one.

    So `announce` is asked once for each standing. Extensions with other functions differ.
    """
    return Offer(extensions, standing)


@lru_cache(maxsize=64)
def verbs_of(extensions: tuple[Extension, ...], *, lmtp: bool) -> Mapping[bytes, type[Command]]:
    """Return verb -> command of all that is known where these are, offered or not."""
    base = LMTP_VERBS if lmtp else BASE_VERBS
    return MappingProxyType({**base, **{v.verb: v for e in extensions for v in e.verbs}})


def _announced(extensions: tuple[Extension, ...], standing: Standing) -> dict[str, str]:
    lines: dict[str, str] = {}
    needs = {e.keyword: e.needs for e in extensions}
    for extension in extensions:
        if (argument := extension.announce(standing)) is not None:
            lines[extension.keyword] = argument
    # What needs something absent goes, and then perhaps what needed that.
    while lacking := [k for k in lines if any(n not in lines for n in needs[k])]:
        for keyword in lacking:
            del lines[keyword]
    return lines
