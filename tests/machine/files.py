"""The files that are made of the state machine, and how."""

from collections.abc import Callable
from pathlib import Path

from .diagram import as_svg
from .page import as_markdown
from .tables import as_json

__all__ = ["FILES"]

_REFERENCE = Path(__file__).parents[2] / "docs" / "reference"

FILES: dict[Path, Callable[[], str]] = {
    _REFERENCE / "state-machine.md": as_markdown,
    _REFERENCE / "state-machine.svg": as_svg,
    _REFERENCE / "state-machine.json": as_json,
}
