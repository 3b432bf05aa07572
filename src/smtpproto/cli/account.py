"""`smtpproto account`: who may log in, in a passwd-file that Dovecot reads, too."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click
from attrs import frozen

from smtpproto.core.errors import GrammarError
from smtpproto.mechanisms.saslprep import saslprep
from smtpproto.relay.accounts.passwd import (
    AccountExistsError,
    AccountFileError,
    AccountTable,
    add_account,
    as_address,
    key_of,
    read_accounts,
    remove_account,
)
from smtpproto.relay.accounts.schemes import DEFAULT, SCHEMES, make_secret

from .config import ConfigError, load
from .console import err, out, say, table
from .options import (
    DATA,
    PASSWORD_VARIABLE,
    BadInput,
    Failure,
    Family,
    Value,
    password_for,
    password_option,
)

__all__ = ["account"]

#: Schemes with which SCRAM-SHA-256 works.
_SCRAM = ("SCRAM-SHA-256", "PLAIN")


@frozen
class _File:
    path: Path

    def read(self) -> AccountTable:
        try:
            return read_accounts(self.path.read_bytes())
        except OSError as error:
            raise Failure(f"{self.path}: {error.strerror or error}") from None


@click.group(
    cls=Family,
    invoke_without_command=True,
    subcommand_metavar="[list | add NAME | remove NAME]",
    context_settings={"allow_interspersed_args": True, "ignore_unknown_options": True},
)
@click.option(
    "--file",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help=f"The file of accounts. [default: {DATA / 'accounts'}]",
)
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Take the file that `accounts` names in this file of `serve`.",
)
@click.pass_context
def account(ctx: click.Context, file: Path | None, config: Path | None) -> None:
    """Say who may log in to a node, and as whom they may send.

    `serve --accounts FILE` takes what is changed here at the next login, without a restart, and
    Dovecot reads the same file (passdb passwd-file). Without a command: list.
    """
    if config is not None and file is not None:
        raise click.UsageError("--file and --config name the same thing: give one of them")
    if config is not None:
        try:
            file = load(config).get("accounts")
        except ConfigError as error:
            raise BadInput(str(error)) from None
        if file is None:
            raise BadInput(f'{config} names no file of accounts (accounts = "FILE")')
    ctx.obj = _File(file or DATA / "accounts")
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_)


@account.command()
@click.argument("name")
@click.option(
    "--scheme",
    type=click.Choice(list(SCHEMES), case_sensitive=False),
    default=DEFAULT,
    show_default=True,
    help="How the password is kept. With any but SCRAM-SHA-256 that mechanism cannot be offered.",
)
@click.option(
    "--address",
    "addresses",
    type=Value("ADDRESS", as_address),
    multiple=True,
    metavar="ADDRESS",
    help="May send as this address, or @DOMAIN; may be repeated. [default: NAME at local domains]",
)
@click.option("--replace", is_flag=True, help="Change the account if it is there.")
@password_option
@click.pass_obj
def add(
    file: _File,
    name: str,
    scheme: str,
    addresses: tuple[str, ...],
    password_file: Path | None,
    *,
    replace: bool,
) -> None:
    """Add an account, with a password that is asked for."""
    password = _new_password(name, password_file)
    try:
        secret = make_secret(saslprep(password, stored=True), scheme)
        file.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        add_account(file.path, name, secret, addresses, replace=replace)
    except AccountExistsError as error:
        raise BadInput(f"{file.path}: {error}\n--replace changes it") from None
    except (AccountFileError, GrammarError, ValueError) as error:
        raise BadInput(f"{file.path}: {error}") from None
    except OSError as error:
        raise Failure(f"cannot write {file.path}: {error.strerror or error}") from None
    found, key = file.read(), key_of(name)
    if key in found.by_name:
        say(f"{key} may log in. {file.path} has {_many(len(found.by_name))}.")
    else:
        why = next((words for words in found.broken if f": {key}: " in words), "it is gone again")
        say((f"{key} may not log in: {file.path}, {why}", "warn"), console=err())
    without = [each.name for each in found.by_name.values() if each.secret.scheme not in _SCRAM]
    if without and len(without) < len(found.by_name):
        some = ", ".join(without[:5]) + (", ..." if without[5:] else "")
        say(("Nobody can use SCRAM-SHA-256, for there are no keys for: ", "warn"), some)


@account.command()
@click.argument("name")
@click.pass_obj
def remove(file: _File, name: str) -> None:
    """Remove an account. Sessions that are open stay so."""
    try:
        remove_account(file.path, name)
    except (AccountFileError, GrammarError) as error:
        raise Failure(f"{file.path}: {error}") from None
    except OSError as error:
        raise Failure(f"cannot write {file.path}: {error.strerror or error}") from None
    say(f"{name} may not log in any more. {file.path} has {_many(len(file.read().by_name))}.")


@account.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.pass_obj
def list_(file: _File, *, as_json: bool = False) -> None:
    """List the accounts, and what is wrong with lines that are none."""
    found = file.read()
    if as_json:
        accounts = [
            {"name": each.name, "scheme": each.secret.scheme, "addresses": each.addresses}
            for each in found.by_name.values()
        ]
        click.echo(json.dumps({"accounts": accounts, "broken": found.broken}, indent=2))
        return
    rows = [
        (
            each.name,
            each.secret.scheme,
            "its own" if each.addresses is None else ", ".join(each.addresses) or "nothing",
        )
        for each in found.by_name.values()
    ]
    if rows:
        out().print(table("name", "scheme", "may send as", rows=rows))
    else:
        say("There are no accounts.")
    for words in found.broken:
        say((f"{file.path}, {words}", "warn"), console=err())


def _new_password(name: str, file: Path | None) -> str:
    asks = file is None and not os.environ.get(PASSWORD_VARIABLE) and sys.stdin.isatty()
    if not asks:
        return password_for(name, file)
    question = f"New password for {name}"
    return str(click.prompt(question, hide_input=True, confirmation_prompt=True, err=True))


def _many(count: int) -> str:
    return f"{count} account{'' if count == 1 else 's'}"
