"""Options that commands share, and how a command enters the event loop."""

from __future__ import annotations

import enum
import os
import signal
import ssl
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from textwrap import fill, indent
from typing import Any, TypeVar, cast

import anyio
import click

from smtpproto.client import Tls, verifying
from smtpproto.core.errors import LocalProtocolError
from smtpproto.core.path import as_domain
from smtpproto.relay.routing.route import HostPort

from .values import host_port, listen_address
from .words import explain

__all__ = [
    "Backend",
    "BadInput",
    "Failure",
    "Family",
    "Value",
    "backend_option",
    "ca_option",
    "cannot_listen",
    "context_for",
    "data_option",
    "helo_option",
    "listen",
    "password_for",
    "password_option",
    "run",
    "server",
    "tls_option",
    "where",
]

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

#: Ports below are for whom the system lets.
PRIVILEGED = 1024
#: Where the data of a node is, if nobody says anything else.
DATA = Path("smtpproto-data")
#: … or this environment variable.
DATA_VARIABLE = "SMTPPROTO_DATA"
PASSWORD_VARIABLE = "SMTPPROTO_PASSWORD"  # noqa: S105 - a name


class Failure(click.ClickException):
    """What could not be done, for the user in one line; further lines may advise. Exit code 1."""


class BadInput(Failure):
    """A file or a setting that cannot be used. Exit code 2, as for wrong usage."""

    exit_code = 2


class Family(click.Group):
    """Commands with options in common, which may stand behind the command as well as before it.

    But `--help` behind a command is about that one.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take note of the command that is named, before `--help` ends the reading."""
        ctx.meta[__name__] = next((each for each in args if each in self.commands), None)
        return super().parse_args(ctx, args)

    def get_help(self, ctx: click.Context) -> str:
        """Return the help of the command that was named, if there is one."""
        name: str | None = ctx.meta.get(__name__)
        if name is None:
            return super().get_help(ctx)
        with click.Context(self.commands[name], info_name=name, parent=ctx) as inner:
            text = self.commands[name].get_help(inner)
        ours = ", ".join(each.opts[0] for each in self.params)
        also = f"Options of `{ctx.command_path}` may stand here, too: {ours}."
        return f"{text}\n\n{indent(fill(also, 76, break_on_hyphens=False), '  ')}"


class Value(click.ParamType[Any]):
    """An option's type by one of the functions in `values`."""

    def __init__(self, name: str, read: Callable[[str], Any]) -> None:
        self.name = name
        self._read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read text; what is a value already is passed through."""
        if not isinstance(value, str):
            return value
        try:
            return self._read(value)
        except ValueError as error:
            self.fail(f"{value!r} is {error}", param, ctx)


def server(default_port: int | None = None) -> Value:
    """Return the type of a HOST[:PORT] to connect to."""
    return Value("HOST:PORT", lambda text: host_port(text, default_port))


#: The type of a HOST:PORT to listen on.
listen = Value("HOST:PORT", listen_address)


class Backend(enum.Enum):
    """The event loops that anyio runs on."""

    ASYNCIO = "asyncio"
    UVLOOP = "uvloop"  # asyncio, and another loop below it
    TRIO = "trio"

    def options(self) -> dict[str, Any]:
        """Return what anyio.run is told."""
        if self is Backend.UVLOOP:
            return {"backend": "asyncio", "backend_options": {"use_uvloop": True}}
        return {"backend": self.value}


def _installed(ctx: click.Context, param: click.Parameter, value: str) -> str:
    if find_spec(value) is None:
        raise click.BadParameter(f"{value} is not installed: pip install {value}", ctx, param)
    return value


def backend_option(command: F) -> F:
    """Add --backend."""
    return click.option(
        "--backend",
        type=click.Choice([backend.value for backend in Backend]),
        default=Backend.ASYNCIO.value,
        show_default=True,
        callback=_installed,
        help="The event loop to run on.",
    )(command)


def tls_option(text: str) -> Callable[[F], F]:
    """Add --tls; `text` says what happens without it."""
    return click.option(
        "--tls",
        type=click.Choice([tls.value for tls in Tls]),
        help=f"STARTTLS required and verified; taken where offered (opportunistic); TLS from the "
        f"first octet (implicit); or none. {text}",
    )


def ca_option(command: F) -> F:
    """Add --ca."""
    return click.option(
        "--ca",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Trust the certificates in this PEM file, and no others.",
    )(command)


def context_for(ca: Path | None) -> ssl.SSLContext | None:
    """Return a context that trusts the certificates in `ca` alone; None for None. Blocks."""
    if ca is None:
        return None
    try:
        return verifying(ca)
    except ssl.SSLError as error:
        raise BadInput(f"{ca} has no certificates in PEM: {error}") from None
    except OSError as error:
        raise BadInput(f"cannot read {ca}: {error.strerror or error}") from None


def _helo_name(text: str) -> str:
    try:
        return as_domain(text).decode()
    except LocalProtocolError:
        raise ValueError("no domain name or address literal") from None


def helo_option(command: F) -> F:
    """Add --helo."""
    return click.option(
        "--helo",
        type=Value("DOMAIN", _helo_name),
        metavar="NAME",
        help="The name to greet the server with. Default: our address, as a literal.",
    )(command)


def data_option(command: F) -> F:
    """Add --data."""
    return click.option(
        "--data",
        type=click.Path(file_okay=False, path_type=Path),
        default=DATA,
        show_default=True,
        metavar="DIR",
        envvar=DATA_VARIABLE,
        show_envvar=True,
        help="The local node's data.",
    )(command)


def password_option(command: F) -> F:
    """Add --password-file."""
    return click.option(
        "--password-file",
        type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
        metavar="FILE",
        help=f"The password is this file's first line. Without it: the environment variable "
        f"{PASSWORD_VARIABLE}; without that, you are asked.",
    )(command)


def password_for(username: str, file: Path | None) -> str:
    """Find the password for a login; see --password-file. Blocks."""
    if file is not None:
        try:
            with click.open_file(str(file), encoding="utf-8") as lines:
                text: str = lines.readline()
        except (OSError, UnicodeDecodeError) as error:
            why = (error.strerror if isinstance(error, OSError) else None) or error
            raise BadInput(f"cannot read the password from {file}: {why}") from None
        password = text.rstrip("\r\n")
        if not password:
            raise BadInput(f"{file}: the first line, which should be the password, is empty")
        return password
    password = os.environ.get(PASSWORD_VARIABLE, "")
    if password:
        return password
    if not sys.stdin.isatty():
        raise click.UsageError(
            f"no password for {username}: give --password-file or set {PASSWORD_VARIABLE}"
        )
    return str(click.prompt(f"Password for {username}", hide_input=True, err=True))


def run(backend: str, main: Callable[[], Awaitable[T]]) -> T:
    """Run `main` in an event loop, the one of this name.

    Out of any group, what ends a command (a ClickException, Ctrl-C, nobody who reads on) is raised
    as itself, and LocalProtocolError (the user asked for what SMTP forbids) as BadInput.
    """
    try:
        return anyio.run(_unless_interrupted, main, **Backend(backend).options())
    except BaseException as group:
        for error in _leaves(group):
            if isinstance(
                error, (click.ClickException, KeyboardInterrupt, SystemExit, BrokenPipeError)
            ):
                raise error from None
            if isinstance(error, LocalProtocolError):
                raise BadInput(f"this cannot be sent: {error}") from None
        raise


async def _unless_interrupted(main: Callable[[], Awaitable[T]]) -> T:
    """Await `main`; Ctrl-C cancels it. KeyboardInterrupt then, and only then.

    Raised wherever it strikes, as Python does it, it can tear a scope that is just being entered,
    and then nothing ends at all.
    """
    if threading.current_thread() is not threading.main_thread():
        return await main()
    interrupted = False
    results: list[T] = []
    with anyio.open_signal_receiver(signal.SIGINT) as signals:
        async with anyio.create_task_group() as tasks:

            async def watch() -> None:
                nonlocal interrupted
                async for _ in signals:
                    interrupted = True
                    tasks.cancel_scope.cancel()

            tasks.start_soon(watch)
            results.append(await main())
            tasks.cancel_scope.cancel()
    if not results:
        assert interrupted
        raise KeyboardInterrupt
    return results[0]


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        yield error
        return
    for inner in cast("BaseExceptionGroup[BaseException]", error).exceptions:
        yield from _leaves(inner)


def where(address: HostPort) -> str:
    """Write an address that we listen on."""
    return f"*:{address.port}" if not address.host else str(address)


def cannot_listen(at: str, error: OSError) -> Failure:
    """Say why an address, written as above, cannot be had, and what would help."""
    words = f"cannot listen on {at}: {explain(error)}"
    port = int(at.rpartition(":")[2] or 0)
    if isinstance(error, PermissionError) and 0 < port < PRIVILEGED:
        words += (
            f"\na port below {PRIVILEGED} takes root, which `user` in the file of `serve` then "
            "gives up, or the capability CAP_NET_BIND_SERVICE"
        )
    return Failure(words)
