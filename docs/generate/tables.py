"""The tables of the reference, made of what they are about: Markdown, to be included in pages."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import attrs
import click

import smtpproto
from smtpproto import (
    STANDARD,
    Auth,
    AuthResponse,
    BadCommand,
    Chunk,
    Command,
    Content,
    Data,
    Ehlo,
    EndOfContent,
    Expn,
    Helo,
    Help,
    Mail,
    Noop,
    Quit,
    Rcpt,
    Reply,
    Rset,
    ServerConnection,
    StartTls,
    Vrfy,
)
from smtpproto.core.sasl import Challenge, Mechanism
from smtpproto.core.server_connection import ServerEvent
from smtpproto.core.status import CLASSES, REGISTRY, SUBJECTS
from smtpproto.extensions.table import support_table
from smtpproto.limits import ServerDeadlines
from smtpproto.mechanisms import PLAIN
from smtpproto.testing import Pair

from .rst import Pages
from .source_pages import SOURCE

__all__ = ["write_tables"]

ROOT = Path(__file__).parents[2]


def write_tables(pages: Pages) -> None:
    """Write every table into `pages`, a file each."""
    pages.write("extensions.md", support_table())
    pages.write("extension-modules.md", _extension_modules())
    pages.write("mechanisms.md", _mechanisms())
    pages.write("statuses.md", _statuses())
    pages.write("suggested.md", _suggested())
    pages.write("fixed.md", _fixed())
    pages.write("front-door.md", _front_door())
    pages.write("command-line.md", _command_line())
    pages.write("settings.md", _serve_settings())
    pages.write("queue-json.md", _queue_json())
    for name, (module, cls) in _SETTINGS.items():
        pages.write(f"{name}.md", _settings(getattr(importlib.import_module(module), cls)))
    pages.write("under-pressure.md", _under_pressure())


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    columns = list(head)
    cells = ([cell.replace("|", r"\|") for cell in row] for row in rows)
    lines = [columns, ["---"] * len(columns), *cells]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


# Extensions and mechanisms


def _extension_modules() -> str:
    """Describe each module of the package, so that whoever adds one need not do it here."""
    names = sorted(path.stem for path in (ROOT / SOURCE / "extensions").glob("*.py"))
    modules = [f"smtpproto.extensions.{name}" for name in names if name != "__init__"]
    return "".join(
        f"## {name}\n\n```{{eval-rst}}\n.. automodule:: {name}\n```\n\n" for name in modules
    )


def _mechanisms() -> str:
    package = importlib.import_module("smtpproto.mechanisms")
    known = [getattr(package, name) for name in package.__all__]
    ours = [each for each in known if isinstance(each, Mechanism)]
    order = {mechanism.name: number for number, mechanism in enumerate(package.STANDARD)}
    ours.sort(key=lambda mechanism: order.get(mechanism.name, len(order)))
    return _table(
        ("Mechanism", "Asks your server to answer", "Shows a secret", "Bound to TLS", "By default"),
        (
            (
                f"`{mechanism.name}`",
                f"`{mechanism.asks.__name__}`",
                "yes" if mechanism.plaintext else "",
                "yes" if mechanism.binds else "",
                "yes" if mechanism.name in order else "",
            )
            for mechanism in ours
        ),
    )


# Status codes


def _statuses() -> str:
    text = ""
    for subject, about in SUBJECTS.items():
        rows = [
            (
                f"X.{subject}.{detail}",
                meaning.text,
                str(meaning.rfc),
                ", ".join(map(str, meaning.replies)),
            )
            for (of, detail), meaning in sorted(REGISTRY.items())
            if of == subject
        ]
        text += f"## X.{subject}: {about}\n\n"
        text += _table(("Status", "Meaning", "RFC", "Registered with"), rows) + "\n"
    classes = "; ".join(f"{number}: {meaning}" for number, meaning in CLASSES.items())
    return f"X, the class, is one of these. {classes}.\n\n{text}"


# Replies


def _suggested() -> str:
    rows = [
        (asked, str(reply.code), str(reply.status or ""), _text(reply))
        for asked, reply in _said().items()
    ]
    return _table(("To", "Code", "Status", "Text"), rows)


def _text(reply: Reply) -> str:
    first, *others = reply.text.split("\n")
    return _plain(f"{first} …" if others else first)


def _said() -> dict[str, Reply]:
    """Ask a server everything there is, and note what it suggests."""
    said: dict[str, Reply] = {}

    def note(server: ServerConnection, event: ServerEvent | None) -> Reply:
        reply = server.suggested_reply()
        if event is None:
            said.setdefault("the connection", reply)
        elif not isinstance(event, BadCommand):
            verb = getattr(event, "verb", b"").decode()
            said.setdefault(f"`{verb or type(event).__name__}`", reply)
        if isinstance(event, Auth) and event.initial_response is None:
            return Challenge(b"").reply()
        return reply

    ehlo, mail, rcpt = Ehlo("client.example"), Mail("a@example.net"), Rcpt("b@example.org")
    sessions: list[list[Command | Content | EndOfContent | Chunk]] = [
        [Helo("client.example")],
        [ehlo, mail, rcpt, Data(), Content(b"Hi\r\n"), EndOfContent()],
        [ehlo, mail, rcpt, Chunk(b"Hi"), Chunk(b"\r\n", last=True)],
        [ehlo, Rset(), Noop(), Vrfy("b"), Expn("b"), Help()],
        [ehlo, StartTls()],
        [ehlo, Auth("PLAIN"), AuthResponse(b"\0a\0b")],
        [Quit()],
    ]
    for things in sessions:
        server = ServerConnection(
            "server.example", STANDARD, mechanisms=[PLAIN], plaintext_auth=True, tls_available=True
        )
        pair = Pair(server, policy=note)
        for thing in things:
            pair.send(thing)
    return said


def _fixed() -> str:
    """Find every Reply that is written out in the source."""
    rows: list[tuple[str, str, str, str]] = []
    for path in sorted((ROOT / SOURCE).rglob("*.py")):
        room = path.relative_to(ROOT / SOURCE).as_posix()
        if room.startswith(("cli/", "testing/")):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id == "Reply"
                and node.args
                and isinstance(node.args[0], ast.Constant)
            ):
                code, status, text = ([*map(_shown, node.args), "", ""])[:3]
                rows.append((f"`{room}`", code, status, text))
    rows.sort(key=lambda row: row[:2])
    return _table(("Room", "Code", "Status", "Text"), rows)


def _shown(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return "" if node.value is None else _plain(str(node.value))
    if isinstance(node, ast.JoinedStr):
        return "".join(
            _shown(part) if isinstance(part, ast.Constant) else "…" for part in node.values
        )
    return "…"


def _plain(text: str) -> str:
    """Make Markdown that means itself."""
    return re.sub(r"([\\`*_\[\]<>&$~])", r"\\\1", text)


# Names


#: What is no class has no docstring to tell of it: where to read on, and a few words.
_VALUES = {
    "NEED_DATA": ("{py:obj}`~smtpproto.core.event.Signal.NEED_DATA`", "No event yet: feed it."),
    "PAUSED": ("{py:obj}`~smtpproto.core.event.Signal.PAUSED`", "No event: answer first."),
    "STANDARD": ("[`STANDARD`](../extensions.md)", "The extensions, as they are announced."),
}


def _front_door() -> str:
    rows: list[tuple[str, str]] = []
    for name in smtpproto.__all__:
        thing = getattr(smtpproto, name)
        if isinstance(thing, type):
            first = (inspect.getdoc(thing) or "").split("\n\n")[0].replace("\n", " ")
            rows.append((f"{{py:obj}}`~{thing.__module__}.{name}`", first))
        else:
            rows.append(_VALUES[name])
    return _table(("Name", "What it is"), rows)


# Settings

_SETTINGS = {
    "limits": ("smtpproto.core.connection", "Limits"),
    "client-deadlines": ("smtpproto.client", "ClientDeadlines"),
    "pool": ("smtpproto.pool", "Pool"),
    "discover": ("smtpproto.discover", "Bounds"),
    "server-deadlines": ("smtpproto.limits", "ServerDeadlines"),
    "connections": ("smtpproto.limits", "Connections"),
    "server": ("smtpproto.server", "Server"),
    "schedule": ("smtpproto.relay.routing.schedule", "Schedule"),
}


def _settings(cls: type[Any]) -> str:
    rows = [
        (f"`{field.name}`", _number(field.default))
        for field in attrs.fields(cls)
        if field.init and (field.default is None or isinstance(field.default, (int, float, str)))
    ]
    return _table(("Field", "Default"), rows)


def _under_pressure() -> str:
    usual, pressed = ServerDeadlines(), ServerDeadlines.under_pressure()
    values = attrs.asdict(usual)
    rows = [
        (f"`{name}`", _number(values[name]), _number(value))
        for name, value in attrs.asdict(pressed).items()
        if value != values[name]
    ]
    return _table(("Field", "Otherwise", "Under pressure"), rows)


def _number(value: float | str | None) -> str:
    if value is None:
        return "none"
    if isinstance(value, (bool, str)):
        return f"`{value!r}`"
    return f"{value:,.10g}".replace(",", " ")


# The command


def _command_line() -> str:
    app = importlib.import_module("smtpproto.cli.app")
    text = _help(["smtpproto"], app.app)
    for name in app.COMMANDS:
        command = app.app.get_command(click.Context(app.app), name)
        text += f"## smtpproto {name}\n\n" + _help(["smtpproto", name], command)
        if isinstance(command, click.Group):
            for below, inner in command.commands.items():
                text += f"### smtpproto {name} {below}\n\n" + _help(
                    ["smtpproto", name, below], inner
                )
    return text


def _queue_json() -> str:
    listing = importlib.import_module("smtpproto.cli.listing")
    text = ""
    for words, members in ("A message:", listing.ENTRY), ("A recipient:", listing.RECIPIENT):
        rows = [(f"`{name}`", kind, means) for name, (kind, means) in members.items()]
        text += f"{words}\n\n" + _table(("Member", "Type", "What it is"), rows) + "\n"
    return text


def _serve_settings() -> str:
    """Tell of every key in a file of `serve`, with a heading each."""
    config, manual, routes, filters, told_of = (
        importlib.import_module(f"smtpproto.cli.{name}")
        for name in ("config", "manual", "routes", "filters", "manual_filters")
    )
    text = ""
    for name, setting in config.SETTINGS.items():
        text += _setting(name, setting, manual.MANUAL[name], manual.default_of(name))
    text += "## In an entry of `[[routes]]`\n\n"
    for name, setting in routes.ROUTE.items():
        told = manual.ROUTE_MANUAL[name]
        text += _setting(name, setting, told, told.default, below="#")
    text += "## In an entry of `[[filters]]`\n\n"
    for name, setting in filters.COMMON.items():
        told = told_of.COMMON_MANUAL[name]
        text += _setting(name, setting, told, told.default, below="#")
    for use, purpose in told_of.USE_MANUAL.items():
        text += f'## With `use = "{use}"`\n\n{purpose.means}\n\n'
        for name, setting in filters.USES[use].keys.items():
            told = purpose.keys[name]
            text += _setting(name, setting, told, told.default, below="#")
    text += "## In an entry of `[[limits]]`\n\n"
    for name, setting in filters.LIMIT.items():
        told = told_of.LIMIT_MANUAL[name]
        text += _setting(name, setting, told, told.default, below="#")
    return text


def _setting(name: str, setting: Any, told: Any, default: str, below: str = "") -> str:
    quoted = default[:1] in {'"', "[", "{"} or default in {"true", "false"} or default.isdigit()
    said = f"`{default}`" if quoted else default
    accepts = re.sub(
        r"""("[^"]+" = )?(\{[^}]*\}|\["[^\]]*\]|"[^"]*")""", r"`\g<0>`", setting.accepts
    )
    restart = "- A node that runs keeps the old one until it is started anew.\n" * told.restart
    return (
        f"##{below} {name}\n\n{told.means}\n\n- Takes {accepts.replace('[[', '&#91;[')}\n"
        f"- Default: {said}\n{restart}\n```toml\n{told.example}\n```\n\n"
    )


def _help(path: list[str], command: click.Command) -> str:
    context: click.Context | None = None
    for name in path[:-1]:
        context = click.Context(
            click.Group(name), info_name=name, parent=context, help_option_names=["-h", "--help"]
        )
    with click.Context(command, info_name=path[-1], parent=context, max_content_width=88) as inner:
        shown = textwrap.dedent(command.get_help(inner))
    return f"```text\n{shown}\n```\n\n"
