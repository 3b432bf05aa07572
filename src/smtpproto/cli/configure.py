"""`smtpproto config`: what is wrong with the settings of `serve`, and which are in force."""

from __future__ import annotations

import json
import re
import shlex
import stat
import tomllib
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import click
from attrs import asdict, frozen

from smtpproto.relay.accounts.passwd import read_accounts

from .config import SETTINGS, ConfigError, ServeSettings, build, load
from .console import mark, out, say, table
from .daemon import group_number, identity
from .manual import default_of
from .options import BadInput, backend_option, password_for, run
from .public import Dns, Finding, Names, Public
from .routes import rules_of
from .serve import must_have_metrics, serve
from .values import is_loopback
from .written import written

__all__ = ["config"]

#: What `--public` asks by.
DNS: Callable[[], Names] = Dns


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
    warnings = [] if settings is None else list(_doubts(settings))
    findings: list[Finding] = []
    if public and settings is not None:
        findings = run(backend, Public(settings, DNS()).look)
    if as_json:
        found = {
            "sound": not problems,
            "problems": [asdict(problem) for problem in problems],
            "warnings": warnings,
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
    return settings, [_located(problem, file) for problem in _unusable(settings)]


def _located(problem: str, file: Path | None) -> Problem:
    """Find the line that a problem is about; TOML's own reader does not tell it."""
    text = problem.removeprefix(f"{file}: ")
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


def _unusable(settings: ServeSettings) -> list[str]:
    """Say which of the files that are named cannot be used."""

    def accounts() -> None:
        if settings.accounts is not None:
            try:
                read_accounts(settings.accounts.read_bytes())
            except FileNotFoundError:
                make = f"smtpproto account --file {shlex.quote(str(settings.accounts))} add NAME"
                raise BadInput(f"{settings.accounts} does not exist; make it: {make}") from None
            except OSError as error:
                raise BadInput(f"{settings.accounts}: {error.strerror or error}") from None

    def password() -> None:
        if settings.smart_host_login is not None and settings.smart_host_password_file is not None:
            password_for(settings.smart_host_login, settings.smart_host_password_file)

    def user() -> None:
        if settings.user is not None:
            identity(settings.user)

    def group() -> None:
        if settings.group is not None:
            group_number(settings.group)

    def metrics() -> None:
        if settings.metrics is not None:
            must_have_metrics()

    readers: list[tuple[str, Callable[[], object]]] = [
        ("user", user),
        ("group", group),
        ("metrics", metrics),
        ("accounts", accounts),
        ("smart-host-password-file", password),
    ]
    for number, route in enumerate(settings.routes, start=1):
        readers.append((f"routes: entry {number}", partial(rules_of, [route])))
    problems: list[str] = []
    for key, read in readers:
        try:
            read()
        except click.ClickException as error:
            problems.append(f"{key}: {error.format_message().removeprefix(f'{key}: ')}")
    return problems


def _doubts(settings: ServeSettings) -> list[str]:
    """Say what can be used, and may not be what is wanted."""
    doubts: list[str] = []
    if not is_loopback(settings.listen.host):
        if settings.hostname == "localhost":
            doubts.append(
                "hostname is localhost, and others are let in: give the name that the DNS has for "
                "this machine"
            )
        if settings.local_domains == ("localhost",) and not settings.relay_domains:
            doubts.append("local-domains has none of yours: mail from outside is refused")
    if settings.smart_host is None and not is_loopback(settings.listen.host):
        doubts.append(
            "without a smart-host mail goes to each domain's own server, by port 25, which many "
            "providers block, and from an address that has to be trusted"
        )
    for name, file in (
        ("accounts", settings.accounts),
        ("smart-host-password-file", settings.smart_host_password_file),
        *((f"routes: entry {n}", each.password_file) for n, each in enumerate(settings.routes, 1)),
    ):
        with suppress(OSError):  # what cannot be read is a problem, and told as one
            if file is not None and file.stat().st_mode & stat.S_IROTH:
                doubts.append(f"{name}: everybody on this machine can read {file}: chmod o= {file}")
    return doubts


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
