"""Who may log in, and what they may send as: `Passwords` in memory, `AccountFile` on disk."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeAlias

import anyio
from anyio import to_thread
from attrs import field, frozen

from smtpproto.core.errors import GrammarError
from smtpproto.core.path import Mailbox
from smtpproto.core.reply import Reply
from smtpproto.core.sasl import AuthenticationError, Lookup, ScramKeys, Verify
from smtpproto.handler import Session
from smtpproto.mechanisms.saslprep import saslprep
from smtpproto.relay.routing.route import canonical

from .passwd import Account, AccountTable, as_address, key_of, read_accounts, spelled
from .schemes import MAX_PASSWORD, Plain, ScramSha256

__all__ = ["AccountFile", "Passwords", "SenderPolicy", "every_sender"]

log = logging.getLogger(__name__)

BUSY = Reply(454, "4.7.0", "Too many logins at once; try again later")

#: Tells whether who has logged in under a name may send as an address.
SenderPolicy: TypeAlias = Callable[[str, Mailbox], Awaitable[bool]]


async def every_sender(identity: str, mailbox: Mailbox) -> bool:
    """The policy by which who has logged in may send as anybody."""
    return True


def _prepared(passwords: Mapping[str, str]) -> dict[str, str]:
    return {  # as stored strings, in which nothing unassigned may stand (RFC 4616 §2)
        saslprep(name, stored=True): saslprep(password, stored=True)
        for name, password in passwords.items()
    }


@frozen
class Passwords:
    """An Authenticator over username -> password, held in memory.

    A user acts as themselves and nobody else. An unknown user takes as long as a wrong password.
    GrammarError for names and passwords that SASLprep refuses, such as those with a tab.
    """

    passwords: Mapping[str, str] = field(repr=False, converter=_prepared)

    async def verify(self, session: Session, question: Verify) -> bool:
        """Tell whether the password is right."""
        if question.authorization not in ("", question.username):
            return False
        password = self.passwords.get(question.username)
        same = hmac.compare_digest((password or "").encode(), question.password.encode())
        return same and password is not None


_Stamp: TypeAlias = tuple[int, int, int, int]


class AccountFile:
    """An Authenticator over a passwd-file that Dovecot reads, too (see `passwd`).

    PLAIN and LOGIN are offered, and SCRAM-SHA-256 where each account has what it needs: a client
    that prefers it would else be refused, and few try another mechanism then. The file is
    read again when it has changed; a line that is wrong is named in the log, and the others
    stand. If it cannot be read any more, the log says so and what was read last stands.

    `domains` are those of accounts whose line names no addresses: `ann` may send as ann@ each of
    them, and an account that is called like an address as that. `secret` is what SCRAM is told of
    users that do not exist; keep it over restarts, or they can be told from others. At most
    `hashing` passwords are hashed at a time, for that takes memory, and `waiting` wait for it;
    others hear 454. `changed` is called when other mechanisms may be offered than before.

    Making one reads the file, and blocks: OSError where that fails.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        domains: Iterable[str] = (),
        secret: bytes | None = None,
        hashing: int = 2,
        waiting: int = 50,
        changed: Callable[[], None] | None = None,
    ) -> None:
        self.path = Path(path)
        self.changed = changed
        self._domains = {canonical(domain) for domain in domains}
        self._secret = os.urandom(32) if secret is None else secret
        self._limiter = anyio.CapacityLimiter(hashing)
        self._waiting = waiting
        self._lock = threading.Lock()
        self._stamp: _Stamp | None = None
        self._unreadable = False
        self._table = AccountTable({})
        self._keys: dict[str, ScramKeys] = {}
        self._read()
        self._offered = self.stored

    @property
    def stored(self) -> Collection[str]:
        """SCRAM-SHA-256, if there are keys for all accounts, as the file was last read."""
        return ("SCRAM-SHA-256",) if len(self._keys) == len(self._table.by_name) else ()

    async def verify(self, session: Session, question: Verify) -> bool:
        """Tell whether the password is right; an unknown user takes as long as a wrong one."""
        if self._limiter.statistics().tasks_waiting >= self._waiting:
            raise AuthenticationError(BUSY)
        right = await to_thread.run_sync(partial(self._verify, question), limiter=self._limiter)
        self._tell()
        return right

    async def lookup(self, session: Session, question: Lookup) -> ScramKeys | None:
        """Return the keys of a user, and of one that does not exist keys that nothing fits."""
        found = await to_thread.run_sync(partial(self._lookup, question.username))
        self._tell()
        return found if question.mechanism in self._offered else None

    async def may_send(self, identity: str, mailbox: Mailbox) -> bool:
        """Tell whether an account may send as an address: a SenderPolicy."""
        table = await to_thread.run_sync(self._current)
        account = table.by_name.get(_key(identity))
        return account is not None and self._owns(account, mailbox)

    def _owns(self, account: Account, mailbox: Mailbox) -> bool:
        address, domain = spelled(mailbox), canonical(mailbox.domain)
        if account.addresses is not None:
            return address in account.addresses or f"@{domain}" in account.addresses
        if "@" in account.name:
            with suppress(ValueError):  # a name need be no address
                return address == as_address(account.name)
            return False
        local = mailbox.local_part.decode().lower()
        return domain in self._domains and local == account.name

    # In a thread

    def _verify(self, question: Verify) -> bool:
        table = self._current()
        name = _key(question.username)
        account, like = table.by_name.get(name), self._some(table, name)
        itself = question.authorization == "" or _key(question.authorization) == name
        short = len(question.password.encode()) <= MAX_PASSWORD
        other = account or like
        if other is None:
            return False
        fits = other.secret.fits(question.password if short else "")
        return fits and short and itself and account is not None

    def _lookup(self, username: str) -> ScramKeys | None:
        table = self._current()
        name = _key(username)
        like = self._some(table, name)
        with self._lock:
            keys = self._keys.get(name)
            other = None if like is None else self._keys.get(like.name)
        size, iterations = (16, 4096) if other is None else (len(other.salt), other.iterations)
        # Made for who exists, too, and thrown away: it takes as long.
        made_up = ScramKeys(
            self._made_up("salt", name, size),
            iterations,
            self._made_up("stored", name),
            self._made_up("server", name),
        )
        return made_up if keys is None else keys

    def _some(self, table: AccountTable, name: str) -> Account | None:
        """Return an account for one that is not there to look like: for a name always the same."""
        number = int.from_bytes(self._made_up("like", name))
        names = table.names
        return table.by_name[names[number % len(names)]] if names else None

    def _made_up(self, use: str, name: str, octets: int = 32) -> bytes:
        # Once round, PBKDF2 is HMAC for any number of octets.
        return hashlib.pbkdf2_hmac("sha256", self._secret, f"{use}\0{name}".encode(), 1, octets)

    def _current(self) -> AccountTable:
        """Return what the file says now."""
        with self._lock:
            try:
                if _stamp(os.stat(self.path)) != self._stamp:
                    self._read()
                    log.info("%s was read again: %d accounts", self.path, len(self._table.by_name))
                self._unreadable = False
            except OSError as error:
                if not self._unreadable:
                    log.error("%s stays as it was read last: %s", self.path, error)
                self._unreadable = True
            return self._table

    def _read(self) -> None:
        with self.path.open("rb") as file:
            # Before it is read: who writes into it meanwhile has it read once more.
            stamp = _stamp(os.fstat(file.fileno()))
            table = read_accounts(file.read())
        for words in table.broken:
            log.warning("%s, %s", self.path, words)
        keys: dict[str, ScramKeys] = {}
        for name, account in table.by_name.items():
            match account.secret:
                case ScramSha256(its):
                    keys[name] = its
                case Plain() as plain:
                    keys[name] = plain.keys(self._made_up("salt", name, 16))
                case _:
                    pass
        self._table, self._keys, self._stamp = table, keys, stamp

    def _tell(self) -> None:
        """On the event loop: have it found out what is offered, if that has changed."""
        if self.stored != self._offered:
            self._offered = self.stored
            if self.changed is not None:
                self.changed()


def _stamp(status: os.stat_result) -> _Stamp:
    return status.st_mtime_ns, status.st_size, status.st_ino, status.st_dev


def _key(name: str) -> str:
    try:
        return key_of(name)
    except GrammarError:
        return ""  # nobody's
