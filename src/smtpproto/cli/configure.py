"""`smtpproto config`: what is wrong with the settings of `serve`, and which are in force."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
from attrs import asdict, frozen

from smtpproto.resolve import DnsResolver

from .config import SETTINGS, ConfigError, ServeSettings, build, load
from .console import mark, out, say, table
from .manual import default_of
from .options import BadInput, backend_option, run
from .public import Finding, Names, Public
from .serve import serve
from .usable import doubts, unusable
from .written import written

__all__ = ["config"]

#: What `--public` asks by.
DNS: Callable[[], Names] = DnsResolver


@frozen
class Problem:
    """What is wrong: in words, with the line of the file and the key, where there are such."""

    text: str
    line: int | None = None
    key: str | None = None

    def __str__(self) -> str:
        return f"line {self.line}: {self.text}" if self.line else self.text


@click.group()
def config() -> None:
    """Check the settings of a node, and show which are in force."""


_FILE = click.argument(
    "file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


@config.command(epilog="Exit codes: 0 all is well; 1 something is wrong; 2 wrong usage.")
@_FILE
@_JSON
@click.option(
    "--public",
    is_flag=True,
    help="Look, too, at what the internet sees: names, block lists, port 25, MX, certificate.",
)
@backend_option
def check(*, file: Path | None, as_json: bool, public: bool, backend: str, **given: Any) -> None:
    """Say all that is wrong with a file of `serve` and those it names.

    With options of `serve`: as they would override it. --public asks the DNS, and tries one
    server's port 25.
    """
    settings, problems = examine(file, given)
    warnings = [] if settings is None else [_located(each, file) for each in doubts(settings)]
    findings: list[Finding] = []
    if public and settings is not None:
        findings = run(backend, Public(settings, DNS()).look)
    if as_json:
        found = {
            "sound": not problems,
            "problems": [asdict(problem) for problem in problems],
            "warnings": [asdict(warning) for warning in warnings],
            **({"public": [asdict(each) for each in findings]} if public else {}),
        }
        click.echo(json.dumps(found, indent=2))
    else:
        for problem in problems:
            say(mark("bad"), f" {problem}")
        for warning in warnings:
            say(mark("warn"), f" {warning}")
        for finding in findings:
            say(mark(finding.kind), f" {finding.said}")
            if finding.advice:
                say(f"    {finding.advice}")
        if not problems:
            say(mark("good"), f" {file or 'The command line'} can be used.")
    bad = any(finding.kind == "bad" for finding in findings)
    raise SystemExit(1 if problems or bad else 0)


def examine(
    file: Path | None, given: Mapping[str, Any]
) -> tuple[ServeSettings | None, list[Problem]]:
    """Return the settings of a file and flags, if they can be read, and what is wrong. Blocks."""
    try:
        settings = build(load(file) if file else {}, given)
    except ConfigError as error:
        return None, [_located(problem, file) for problem in error.problems]
    return settings, [_located(problem, file) for problem in unusable(settings)]


def _located(problem: str, file: Path | None) -> Problem:
    """Find the line that a problem is about; TOML's own reader does not tell it."""
    text = problem.removeprefix(f"{file}: ")
    if (place := re.search(r"^no TOML: .* \(at line (\d+), column", text)) is not None:
        return Problem(text, int(place[1]))
    key, colon, _ = text.partition(":")
    if not colon or file is None or re.fullmatch(r"[\w-]+", key) is None:
        return Problem(text)
    name = re.escape(key)
    at = re.compile(rf"""\s*(?:["']?{name}["']?\s*[.=]|\[\[?\s*["']?{name}["']?\s*[.\]])""")
    try:
        lines = file.read_text("utf-8").split("\n")
    except (OSError, ValueError):
        return Problem(text)
    found = [number for number, line in enumerate(lines, start=1) if at.match(line)]
    entry = re.match(r"[\w-]+: entry (\d+):", text)
    which = 0 if entry is None else int(entry[1]) - 1
    return Problem(text, found[which] if which < len(found) else None, key)


@config.command()
@_FILE
@_JSON
def show(*, file: Path | None, as_json: bool, **given: Any) -> None:
    """Show every setting that is in force, and where it comes from.

    That is file, flag or default. With options of `serve`: as they would override it. No password
    is shown.
    """
    try:
        said = load(file) if file else {}
        settings = build(said, given)
    except ConfigError as error:
        raise BadInput(str(error)) from None
    shown: dict[str, tuple[object, str]] = {}
    for name in SETTINGS:
        field = name.replace("-", "_")
        source = (
            "flag" if given.get(field) not in (None, ()) else "file" if field in said else "default"
        )
        shown[name] = getattr(settings, field), source
    if as_json:
        found = {
            name: {"value": _plain(value), "source": source}
            for name, (value, source) in shown.items()
        }
        click.echo(json.dumps(found, indent=2))
        return
    rows = [(name, _said(name, value, source), source) for name, (value, source) in shown.items()]
    out().print(table("setting", "value", "source", rows=rows))


def _said(name: str, value: object, source: str) -> str:
    nothing = value is None or value in ((), {}, 0)
    return default_of(name) if nothing and source == "default" else written(value)


def _plain(value: object) -> object:
    """Return a value as JSON has it: what a TOML file says would be read as."""
    text = written(value)
    return tomllib.loads(f"it = {text}")["it"] if text else None


for _command in (check, show):
    _command.params += [each for each in serve.params if each.name not in {"config", "backend"}]
