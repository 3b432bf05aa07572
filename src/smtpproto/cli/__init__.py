"""The `smtpproto` command: `main` is its entry point.

Its own packages (the extra `cli`) are loaded only when it runs.
"""

from __future__ import annotations

import io
import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line with the arguments of this process, and exit."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a terminal cannot show, it shows escaped
            stream.reconfigure(errors="backslashreplace")
    try:
        from .app import app  # noqa: PLC0415 - here, so that what is missing can be named

        app()  # loads the command's own module, which may need more
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in {"", "smtpproto"}:
            raise
        missing = {"dns": "dnspython"}.get(missing, missing)
        sys.exit(
            f"smtpproto: the command line needs {missing}, which is not installed: "
            "install smtpproto with its extra `cli`, as in: pip install 'smtpproto[cli]'"
        )
