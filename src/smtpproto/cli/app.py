"""The command `smtpproto`: its subcommands, and what becomes of an error on the way out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

import click

from smtpproto import __version__

from .console import complain, err, say

__all__ = ["COMMANDS", "app"]

#: Every command, in the order of the help: `NAME` is the function `NAME` in the module beside.
COMMANDS = ("serve", "config", "account", "send", "probe", "discover", "sink", "queue", "demo")
#: Where it is in another: `config` is what reads the settings.
_MODULES = {"config": "configure"}


class App(click.Group):
    """A group that loads a command's module when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f".{_MODULES.get(cmd_name, cmd_name)}", __package__)
        command: click.Command = getattr(module, cmd_name)
        return command

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> NoReturn:
        """Run, and exit with the command's code; an error is one line on the error console."""
        try:
            code = super().main(
                args,
                prog_name or "smtpproto",
                complete_var,
                standalone_mode=False,
                windows_expand_args=windows_expand_args,
                **extra,
            )
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(error.exit_code)
        except click.UsageError as error:
            path = error.ctx.command_path if error.ctx else "smtpproto"
            complain(error, path, f"  (see {path} --help)")
            sys.exit(error.exit_code)
        except click.ClickException as error:
            complain(error, "smtpproto")
            sys.exit(error.exit_code)
        except (click.Abort, KeyboardInterrupt):
            say("interrupted", console=err())
            sys.exit(130)
        sys.exit(code if isinstance(code, int) else 0)


@click.command("smtpproto", cls=App, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="smtpproto", message="%(prog)s %(version)s")
def app() -> None:
    """SMTP from the command line: run a node, send mail, swallow it, look at a server."""
