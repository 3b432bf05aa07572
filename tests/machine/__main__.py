"""Writes the state machine into the docs: `python -m tests.machine`; or tells of the walks.

With --json, --svg or --markdown it prints that instead; with --walk it walks through all
configurations, and prints how many there were and which clauses were broken.
"""

import sys
from time import process_time

from .both_ends import walk
from .explore import explore
from .files import FILES
from .words import SETTINGS


def tell() -> None:
    """Walk, and print what was found."""
    for setting in SETTINGS:
        start = process_time()
        found, both = explore(setting), walk(setting)
        print(
            f"{setting.name}: a server in {found.configurations} configurations"
            f" ({len(found.nodes)} that look different), {found.answered} replies and"
            f" {found.done} other steps judged, {found.pipelined} pipelined;"
            f" both ends in {both.nodes}, {both.sent} things sent, {both.answered} replies heard;"
            f" {process_time() - start:.1f} s"
        )
        broken = {violation.clause: violation for violation in both.violations}
        broken |= {violation.clause: violation for violation in reversed(found.violations)}
        print(*broken.values(), sep="\n")


def main(arguments: list[str]) -> None:
    """Do what the arguments say."""
    if arguments == ["--walk"]:
        tell()
        return
    for file, write in FILES.items():
        if not arguments:
            file.write_text(write(), encoding="utf-8")
        elif arguments == ["--markdown" if file.suffix == ".md" else f"--{file.suffix[1:]}"]:
            print(write(), end="")


main(sys.argv[1:])
