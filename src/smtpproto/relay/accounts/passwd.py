"""The file of accounts: a passwd-file that Dovecot reads, too.

::

    # name:{SCHEME}password:uid:gid:gecos:home:shell:extra
    ann:{SCRAM-SHA-256}32768,...::::::addresses=ann@example.org,sales@example.org
    bob:{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$...

What stands between password and extra fields is Dovecot's. Of the extra fields `addresses` is
ours: what the account may send as, separated by commas; `@example.org` is the whole domain. Names
are compared in small letters, as Dovecot has them by default. All functions block.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path

from attrs import Factory, field, frozen

from smtpproto.core.errors import GrammarError, LocalProtocolError
from smtpproto.core.path import Mailbox, as_domain
from smtpproto.mechanisms.saslprep import saslprep
from smtpproto.relay.routing.transport import canonical

from .schemes import Secret, read_secret

__all__ = [
    "Account",
    "AccountExistsError",
    "AccountFileError",
    "AccountTable",
    "add_account",
    "as_address",
    "key_of",
    "read_accounts",
    "remove_account",
    "spelled",
]

#: Which of a line's fields, by colons, are extra ones: all from there on.
_EXTRA = 7
#: Extra fields that keep somebody out in Dovecot; what they say is not known here.
_KEEPS_OUT = {"allow_nets", "allow_real_nets", "fail", "noauthenticate", "nologin", "nopassword"}


class AccountFileError(Exception):
    """The accounts cannot be changed as asked; the message says why."""


class AccountExistsError(AccountFileError):
    """There is an account of that name."""


@frozen
class Account:
    """Somebody who may log in. `addresses` is what they may send as; None: nothing is said."""

    name: str
    secret: Secret = field(repr=False)
    addresses: tuple[str, ...] | None = None


def _names_of(table: AccountTable) -> tuple[str, ...]:
    return tuple(table.by_name)


@frozen
class AccountTable:
    """What a file says: accounts by name, and what is wrong, by line, in words for its owner.

    `names` are those of `by_name`, to be counted off.
    """

    by_name: Mapping[str, Account]
    broken: tuple[str, ...] = ()
    names: tuple[str, ...] = field(
        init=False, repr=False, default=Factory(_names_of, takes_self=True)
    )


def key_of(name: str, *, stored: bool = False) -> str:
    """Return the form of a name that is compared: SASLprep, and small letters. GrammarError."""
    # Small letters may be one with the mark behind them where capitals are not.
    return saslprep(saslprep(name, stored=stored).lower(), stored=stored)


def spelled(mailbox: Mailbox) -> str:
    """Spell an address in the one way it is compared in: small letters, its domain `canonical`."""
    local, at, _ = str(mailbox).lower().rpartition("@")
    return f"{local}{at}{canonical(mailbox.domain)}"


def as_address(text: str) -> str:
    """Read what an account may send as: `ann@example.org`, or `@example.org` for all there.

    Returns it as it is compared. ValueError for what is neither, or cannot stand in the file.
    """
    try:
        if text.startswith("@"):
            found = f"@{canonical(as_domain(text[1:], utf8=True))}"
        else:
            found = spelled(Mailbox.parse(text))
    except (GrammarError, LocalProtocolError):
        raise ValueError(f"{text!r} is no address") from None
    if set(found) & set(":,% "):  # Dovecot replaces what begins with %
        raise ValueError(f"{text!r} is an address that cannot stand in a file of accounts")
    return found


def read_accounts(octets: bytes) -> AccountTable:
    """Read a file's content. A line that is wrong is told in `broken`, and the others stand."""
    found: dict[str, Account] = {}
    broken: list[str] = []
    for number, line in enumerate(octets.split(b"\n"), 1):
        if not line.strip() or line.startswith(b"#"):
            continue
        try:
            account = _account(line.removesuffix(b"\r"))
            if account.name in found:
                raise ValueError(f"{account.name} is there already, on a line above")
            found[account.name] = account
        except ValueError as error:
            broken.append(f"line {number}: {error}")
    return AccountTable(found, tuple(broken))


def _account(line: bytes) -> Account:
    try:
        name, *fields = line.decode().split(":")
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    name = _name(name)
    try:
        if not fields:
            raise ValueError("no password")
        secret = read_secret(fields[0])
        extra: dict[str, str] = {}
        for each in ":".join(fields[_EXTRA - 1 :]).split():
            key, _, value = each.partition("=")
            extra[key] = value
        if out := _KEEPS_OUT & extra.keys():
            raise ValueError(f"{min(out)} is not known here, so nobody logs in")
        addresses = None
        if "addresses" in extra:
            addresses = tuple(as_address(each) for each in extra["addresses"].split(",") if each)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    return Account(name, secret, addresses)


def _name(text: str) -> str:
    try:
        name = key_of(text, stored=True)
    except GrammarError as error:
        raise ValueError(str(error)) from None
    if not name or set(name) & set(": \t") or name.startswith("#"):
        raise ValueError(f"{text!r} is no name: it is empty, or has a colon, a space or # in front")
    return name


# Changes


def add_account(
    path: Path, name: str, secret: str, addresses: Sequence[str] = (), *, replace: bool = False
) -> None:
    """Write an account into a file, which is made if it is not there.

    `secret` is as `make_secret` has it. What is there is changed with `replace`: its password, its
    addresses if there are any. AccountExistsError without; AccountFileError for a name that is
    none, ValueError for an address that is none. OSError.
    """
    try:
        name = _name(name)
    except ValueError as error:
        raise AccountFileError(str(error)) from None
    if set(secret) & set(":\r\n"):
        raise AccountFileError("a {PLAIN} password in a file of accounts has no colon")
    given = ",".join(map(as_address, addresses))

    def change(lines: list[bytes]) -> list[bytes]:
        at = [number for number, each in enumerate(lines) if _is_for(each, name)]
        if at and not replace:
            raise AccountExistsError(f"{name} has an account already")
        if not at:
            return [*lines, _changed(b"", name, secret, given)]
        kept = [each for number, each in enumerate(lines) if number not in at[1:]]
        kept[at[0]] = _changed(kept[at[0]], name, secret, given)
        return kept

    _rewrite(path, change)


def remove_account(path: Path, name: str) -> None:
    """Take an account out of a file. AccountFileError if it is not there; OSError."""

    def change(lines: list[bytes]) -> list[bytes]:
        kept = [each for each in lines if not _is_for(each, name)]
        if len(kept) == len(lines):
            raise AccountFileError(f"there is no account {name}")
        return kept

    _rewrite(path, change)


def _is_for(line: bytes, name: str) -> bool:
    text = line.partition(b":")[0].decode(errors="replace")
    try:
        return not text.startswith("#") and bool(text) and key_of(text) == key_of(name)
    except GrammarError:
        return False


def _changed(line: bytes, name: str, secret: str, addresses: str) -> bytes:
    """Change the password of a line, and its addresses if some are given; the rest is Dovecot's."""
    fields = line.removesuffix(b"\r").split(b":")
    fields[:2] = [name.encode(), secret.encode()]
    if addresses:
        fields += [b""] * (_EXTRA - len(fields))
        extra = b":".join(fields[_EXTRA:]).split()
        kept = [each for each in extra if each.partition(b"=")[0] != b"addresses"]
        fields[_EXTRA:] = [b" ".join([*kept, b"addresses=" + addresses.encode()])]
    return b":".join(fields)


def _rewrite(path: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    """Put a changed file in the place of the one there, whole or not at all.

    A new one is for its owner alone; one that is there keeps owner and permissions, by which
    Dovecot may read it. A symbolic link stays one.
    """
    path = Path(os.path.realpath(path))
    with _alone(path.parent):
        try:
            before: os.stat_result | None = path.stat()
            octets = path.read_bytes()
        except FileNotFoundError:
            before, octets = None, b""
        lines = change(octets.split(b"\n")[:-1] if octets.endswith(b"\n") else _lines(octets))
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(file, "wb") as written:
                written.writelines(line + b"\n" for line in lines)
                written.flush()
                if before is not None:
                    os.fchown(file, before.st_uid, before.st_gid)
                    os.fchmod(file, before.st_mode & 0o777)
                os.fsync(file)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _lines(octets: bytes) -> list[bytes]:
    return octets.split(b"\n") if octets else []


@contextlib.contextmanager
def _alone(directory: Path) -> Generator[None]:
    """Let one change at a time: two that read the same file would lose one of theirs."""
    held = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
        os.fsync(held)
    finally:
        os.close(held)
