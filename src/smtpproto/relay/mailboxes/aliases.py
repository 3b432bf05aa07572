"""Aliases and lists: addresses of ours that stand for others (RFC 5321 §3.9).

`Aliases` is the seam; `AliasTable` is the one real table, in memory. An alias is replaced when its
message is delivered, in one durable step: its recipient goes, those behind it come. They are final,
so that a name may stand among its own targets (`ann: ann, archive` keeps a copy) and no ring of
names goes round for ever. Rings that lead over other hosts are found by Delivered-To, when the
message comes back (`intake`), for that field can be forged, and a report would go to whoever was
named as the sender.

A list is an alias with an owner, to whom what fails for its members is reported: they get the
message under the owner's reverse-path (§3.9.2). Nothing else of it changes, its header neither
(§3.9), so there is no List-Id and no Precedence; who wants these puts them there before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol, runtime_checkable

from attrs import evolve, field, frozen

from smtpproto.core.command import Mail, Rcpt
from smtpproto.core.errors import GrammarError, LocalProtocolError
from smtpproto.core.path import AnyMailbox, Mailbox, ReversePath, as_domain, as_octets
from smtpproto.extensions.dsn import DSN, NOTIFY, ORCPT, RET, Notify, OriginalRecipient, Ret
from smtpproto.relay.reports.report import Action
from smtpproto.relay.routing.transport import canonical, folded
from smtpproto.trace import HeaderScan

__all__ = [
    "AliasTable",
    "Aliases",
    "CatchAll",
    "Expansion",
    "MailingList",
    "Target",
    "TooManyTargetsError",
    "delivered_to",
    "expand",
    "has_been_at",
    "mail_of_list",
    "no_aliases",
]

#: Addresses that one alias may come to, through however many others.
MAX_TARGETS = 1000


class TooManyTargetsError(Exception):
    """An alias comes to more than MAX_TARGETS addresses."""


def _mailbox(value: AnyMailbox) -> Mailbox:
    return Mailbox.of(value)


def _mailboxes(values: Iterable[AnyMailbox]) -> tuple[Mailbox, ...]:
    return tuple(map(Mailbox.of, values))


@frozen
class MailingList:
    """An address that stands for its members, and whose mail they get as sent by its owner.

    LocalProtocolError for what is no address, and for a list without a member.
    """

    members: tuple[Mailbox, ...] = field(converter=_mailboxes)
    owner: Mailbox = field(converter=_mailbox)

    def __attrs_post_init__(self) -> None:
        if not self.members:
            raise LocalProtocolError(f"a list without a member, of {self.owner}")
        if not self.owner.domain:
            raise LocalProtocolError("the owner of a list needs a domain")


class Aliases(Protocol):
    """Tells what an address of ours stands for."""

    async def find(self, mailbox: Mailbox) -> Sequence[Mailbox] | MailingList | None:
        """Return the addresses that `mailbox` stands for, at least one; None if it is no alias.

        They may be ours, aliases or lists themselves, or elsewhere. What is raised defers the
        message.
        """
        ...


@runtime_checkable
class CatchAll(Protocol):
    """Aliases that have names for what has no other; mailboxes come before those."""

    async def is_caught(self, mailbox: Mailbox) -> bool:
        """Tell whether `find` knows an address by such a name alone."""
        ...


class AliasTable:
    """Aliases by a table: what an address is called -> what it stands for.

    A name is an address (`sales@our.dom`), a local part alone, which is then one in every domain of
    ours, or `@our.dom`: what has no other name in that domain, nor, in a relay, a mailbox. Case
    makes no difference. An address with a tag (`sales+fair@our.dom`) is looked up as it is, and
    then without it; `separator` stands before the tag, empty for no tags. A target is an address,
    or `@else.dom`: the same local part there.

    `lists` are those among the names that have an owner; they have no targets with `@` in front.

    LocalProtocolError for what is no address, a name without a target, or one in both tables.
    """

    def __init__(
        self,
        table: Mapping[str, Iterable[AnyMailbox]],
        *,
        lists: Mapping[str, MailingList] | None = None,
        separator: str = "+",
    ) -> None:
        self._separator = separator.encode()
        self._table: dict[bytes, list[Mailbox | bytes] | MailingList] = {}
        for name, targets in table.items():
            self._table[_checked(name)] = found = [_target(target) for target in targets]
            if not found:
                raise LocalProtocolError(f"an alias that stands for nobody: {name}")
        for name, each in (lists or {}).items():
            if (known := _checked(name)) in self._table:
                raise LocalProtocolError(f"both an alias and a list: {name}")
            self._table[known] = each

    async def find(self, mailbox: Mailbox) -> Sequence[Mailbox] | MailingList | None:
        """Return what an address stands for by the table."""
        name = self._found(mailbox)
        if name is None:
            return None
        targets = self._table[name]
        if isinstance(targets, MailingList):
            return targets
        return [
            Mailbox(mailbox.local_part, target) if isinstance(target, bytes) else target
            for target in targets
        ]

    async def is_caught(self, mailbox: Mailbox) -> bool:
        """Tell whether it has no name but that of its domain."""
        return self._found(mailbox) == b"@" + canonical(mailbox.domain).encode()

    def _found(self, mailbox: Mailbox) -> bytes | None:
        return next((name for name in self._names(mailbox) if name in self._table), None)

    def _names(self, mailbox: Mailbox) -> Iterable[bytes]:
        """Return what an address may be called in the table, what fits best first."""
        local, domain = mailbox.local_part.lower(), canonical(mailbox.domain).encode()
        locals_ = [local]
        if self._separator and (untagged := local.partition(self._separator)[0]) not in ("", local):
            locals_.append(untagged)
        for each in locals_:
            yield b"%b@%b" % (each, domain)
        yield from locals_
        yield b"@%b" % domain


def _checked(name: str) -> bytes:
    octets = as_octets(name).lower()
    if octets.startswith(b"@"):
        return b"@" + canonical(as_domain(octets[1:], utf8=True)).encode()
    if b"@" not in octets:
        return Mailbox(octets, "x.example").local_part
    return folded(Mailbox.of(octets))


def _target(target: AnyMailbox) -> Mailbox | bytes:
    if not isinstance(target, Mailbox) and as_octets(target).startswith(b"@"):
        return as_domain(as_octets(target)[1:], utf8=True)
    return Mailbox.of(target)


class _NoAliases:
    async def find(self, mailbox: Mailbox) -> Sequence[Mailbox] | MailingList | None:
        return None


#: No address stands for another.
no_aliases: Aliases = _NoAliases()


@frozen
class Target:
    """An address behind an alias, and the owner of the list, if any, through which it is there."""

    rcpt: Rcpt
    owner: Mailbox | None = None


@frozen
class Expansion:
    """What an address comes to; `action` is what a report to who asked for SUCCESS calls it."""

    targets: tuple[Target, ...]
    action: Action | None


async def expand(rcpt: Rcpt, aliases: Aliases) -> Expansion | None:
    """Replace a recipient that is an alias by whom it stands for; None if it is no alias.

    Aliases and lists among these are replaced in turn, each once. What was asked of reports goes
    on to one address as it is, and to several without SUCCESS (RFC 3461 §5.2.7.2, §5.2.7.3 c); who
    was asked for first is named in ORCPT. To members of a list goes nothing of that (§5.2.7.1 b):
    at it the message is delivered, and its owner is told of failures. Raises TooManyTargetsError,
    what `aliases` raises, and ValueError where it says that an alias stands for nobody.
    """
    first = rcpt.forward_path.mailbox
    if await aliases.find(first) is None:
        return None
    seen: set[Mailbox] = set()
    final: dict[Mailbox, Mailbox | None] = {}
    ahead: list[tuple[Mailbox, Mailbox | None]] = [(first, None)]
    alone: Mailbox | None = first  # as long as each stands for one
    action: Action | None = None
    while ahead:
        mailbox, owner = ahead.pop()
        targets = None if mailbox in seen else await aliases.find(mailbox)
        seen.add(mailbox)
        if targets is None:
            final.setdefault(mailbox, owner)
            continue
        behind: Sequence[Mailbox]
        if isinstance(targets, MailingList):
            if mailbox == alone:
                action, alone = "delivered", None
            behind, owner = targets.members, targets.owner
        else:
            behind = targets
            if mailbox == alone:
                alone = behind[0] if len(behind) == 1 else None
        ahead += [(target, owner) for target in reversed(behind)]
        if len(final) + len(ahead) > MAX_TARGETS:
            raise TooManyTargetsError
    if not final:  # else its mail would go to nobody, and nobody would hear
        raise ValueError(f"an alias that stands for nobody: {first}")
    if action is None and len(final) > 1:
        action = "expanded"
    parameters = dict(rcpt.parameters)
    if "ORCPT" not in parameters:
        with suppress(LocalProtocolError):  # a long tag, in xtext, may be too long for it
            parameters |= ORCPT(OriginalRecipient.of(first))
    if len(final) > 1:
        parameters |= _without_success(rcpt)
    return Expansion(
        tuple(
            Target(evolve(rcpt, forward_path=each, parameters=parameters))
            if owner is None
            else Target(Rcpt(each, NOTIFY({Notify.FAILURE})), owner)
            for each, owner in final.items()
        ),
        action,
    )


def mail_of_list(mail: Mail, owner: Mailbox) -> Mail:
    """Return under what the members of a list get a message that came under `mail`.

    Of failures the owner gets the header. The null reverse-path stays: there would be no end to
    reports (RFC 5321 §4.5.5). Of the parameters those stay that are no DSN's (RFC 3461 §5.2.7.1 b).
    """
    asked = {parameter.keyword for parameter in DSN.mail}
    parameters = {k: v for k, v in mail.parameters.items() if k not in asked}
    if mail.reverse_path.mailbox is None:
        return evolve(mail, parameters=parameters)
    return Mail(ReversePath(owner), parameters | RET(Ret.HDRS))


def _without_success(rcpt: Rcpt) -> dict[str, bytes | None]:
    try:
        asked = NOTIFY.of(rcpt.parameters)
    except GrammarError:
        return {}
    return {} if asked is None else NOTIFY(asked - {Notify.SUCCESS})


def delivered_to(mailbox: Mailbox) -> bytes:
    """Return the field that says that a message has come through an alias, with CRLF."""
    return b"Delivered-To: %b\r\n" % mailbox.serialize()


def has_been_at(mailbox: Mailbox, scan: HeaderScan) -> bool:
    """Tell by the header of a message whether it has come through this alias before."""
    return mailbox.serialize().lower() in scan.delivered_to
