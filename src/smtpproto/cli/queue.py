"""`smtpproto queue`: what is in a node's spool, whether the node runs or not."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from textwrap import indent
from typing import Any, Literal, TypeVar

import click
from attrs import asdict, frozen

from smtpproto.relay.spool import Entry, Recipient, SpoolUnavailable
from smtpproto.relay.sqlite_check import check_spool
from smtpproto.relay.sqlite_spool import SQLiteSpool

from .console import amount, mark, out, safe, say, table
from .options import Failure, backend_option, data_option, run

__all__ = ["queue"]

T = TypeVar("T")

#: Octets of a message's header that `show` prints.
SHOWN = 16_384


@frozen
class _Visit:
    """Where the spool is, and how to go there."""

    data: Path
    backend: str
    as_json: bool

    def spool(self, ask: Callable[[SQLiteSpool], Awaitable[T]]) -> T:
        """Open the spool as a visitor and ask it something."""

        async def visit() -> T:
            try:
                async with SQLiteSpool.open(self.data / "spool", serving=False) as spool:
                    return await ask(spool)
            except SpoolUnavailable as error:
                raise Failure(f"cannot look into the queue: {error}") from None

        return run(self.backend, visit)

    def print_json(self, value: object) -> None:
        click.echo(json.dumps(value, indent=2))  # in ASCII: strangers' controls stay escaped


@click.group(
    invoke_without_command=True,
    subcommand_metavar="[list | show ID | retry [ID] | delete ID | check]",
    context_settings={
        "allow_interspersed_args": True,  # options are the same for all of them,
        "ignore_unknown_options": True,  # but for what a command has of its own
    },
)
@data_option
@backend_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.pass_context
def queue(ctx: click.Context, data: Path, backend: str, as_json: bool) -> None:
    """Look at the messages that wait in a node's spool, and act on them.

    Safe while the node runs: it notices within seconds. Without a command: list.
    """
    ctx.obj = _Visit(data, backend, as_json)
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_)


@queue.command("list")
@click.pass_obj
def list_(visit: _Visit) -> None:
    """List the messages, the oldest first."""

    async def ask(spool: SQLiteSpool) -> None:
        # As they come: there may be a million.
        if visit.as_json:
            await _list_json(spool)
            return
        empty = True
        async for entry in spool.entries():
            empty = False
            _list_entry(entry)
        if empty:
            say("The queue is empty.")

    visit.spool(ask)


def _list_entry(entry: Entry) -> None:
    said = f"  {_ago(entry.arrived)}, {amount(entry.octets)}, from {entry.mail.reverse_path}"
    say((entry.id, "head"), said)
    for recipient in entry.recipients:
        say(f"  to {recipient.rcpt.forward_path}: ", (_state(recipient), "warn"))
        if recipient.last_reply:
            say("    ", (recipient.last_reply, "dim"))


async def _list_json(spool: SQLiteSpool) -> None:
    """Print an array as `print_json` does, one entry at a time."""
    before = "["
    async for entry in spool.entries():
        click.echo(f"{before}\n{indent(json.dumps(_as_dict(entry), indent=2), '  ')}", nl=False)
        before = ","
    click.echo("[]" if before == "[" else "\n]")


@queue.command()
@click.argument("id")
@click.pass_obj
def show(visit: _Visit, id: str) -> None:
    """Show one message: its recipients, and its header."""

    async def ask(spool: SQLiteSpool) -> tuple[Entry, bytes]:
        entry = await _get(spool, id)
        content = bytearray()
        async for chunk in spool.content(id):
            content += chunk
            if len(content) >= SHOWN or b"\r\n\r\n" in content:
                break
        return entry, bytes(content[:SHOWN]).partition(b"\r\n\r\n")[0]

    entry, header = visit.spool(ask)
    if visit.as_json:
        shown = header.decode("utf-8", "backslashreplace")
        visit.print_json({**_as_dict(entry), "header": shown})
        return
    rows: list[tuple[object, object]] = [
        ("id", entry.id),
        ("from", entry.mail.reverse_path),
        ("arrived", f"{_date(entry.arrived)} ({_ago(entry.arrived)})"),
        ("size", amount(entry.octets)),
        ("origin", entry.origin),
    ]
    for recipient in entry.recipients:
        rows.append(("to", f"{recipient.rcpt.forward_path}: {_state(recipient)}"))
        if recipient.last_reply:
            rows.append(("", recipient.last_reply))
    out().print(table("", "", rows=rows))
    say("")
    for line in header.split(b"\r\n"):
        say("  ", (safe(line), "dim"))


@queue.command()
@click.argument("id", required=False)
@click.pass_obj
def retry(visit: _Visit, id: str | None) -> None:
    """Make one message, or without ID all of them, due now."""

    async def ask(spool: SQLiteSpool) -> int:
        if id is not None:
            await _get(spool, id)
        return await spool.retry(id, _now())

    moved = visit.spool(ask)
    if visit.as_json:
        visit.print_json({"recipients": moved})
    else:
        say(f"{moved} recipient{'' if moved == 1 else 's'} brought forward to now.")


@queue.command()
@click.argument("id")
@click.pass_obj
def delete(visit: _Visit, id: str) -> None:
    """Drop one message, without a report to its sender."""
    if not visit.spool(lambda spool: spool.delete(id)):
        raise Failure(f"no message {id} in the queue")
    if visit.as_json:
        visit.print_json({"deleted": id})
    else:
        say(f"{id} is deleted.")


@queue.command(
    epilog="Exit codes: 0 all is well, or is so now; 1 something is wrong; 2 wrong usage."
)
@click.option("--repair", is_flag=True, help="Mend what can be mended. The node has to be stopped.")
@click.pass_obj
def check(visit: _Visit, repair: bool) -> None:
    """Look for damage in the spool: its database, every message, every file.

    With --repair: what cannot be delivered any more, and a database that had to be made anew, is
    kept in DIR/spool/quarantine.
    """
    try:
        checked = check_spool(visit.data / "spool", repair=repair)
    except SpoolUnavailable as error:
        raise Failure(f"cannot check the queue: {error}") from None
    if visit.as_json:
        visit.print_json({**asdict(checked), "sound": checked.sound})
    else:
        for finding in checked.findings:
            kind: Literal["good", "bad"] = "good" if finding.mended else "bad"
            say(mark(kind), f" {finding.what}: {finding.problem}")
            if finding.done:
                say(f"    {finding.done}")
        many = f"{checked.messages} message{'' if checked.messages == 1 else 's'}"
        wrong = sum(not finding.mended for finding in checked.findings)
        if not wrong:
            say(f"{many}; all is well{' now' if checked.findings else ''}.")
        else:
            say(f"{many}; {wrong} thing{'' if wrong == 1 else 's'} wrong.")
            if not repair:
                say("--repair mends what can be mended, with the node stopped.")
    raise SystemExit(0 if checked.sound else 1)


async def _get(spool: SQLiteSpool, id: str) -> Entry:
    entry = await spool.get(id)
    if entry is None:
        raise Failure(f"no message {id} in the queue")
    return entry


def _now() -> float:
    return datetime.now(UTC).timestamp()


def _date(seconds: float) -> str:
    return format_datetime(datetime.fromtimestamp(seconds, UTC))


def _ago(seconds: float) -> str:
    return f"{_span(max(_now() - seconds, 0))} ago"


def _span(seconds: float) -> str:
    """Write a time span for people: `40 s`, `7 min`, `3 h`, `2 d`."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _state(recipient: Recipient) -> str:
    left = recipient.next_attempt - _now()
    due = "due" if left <= 0 else f"next try in {_span(left)}"
    if not recipient.attempts:
        return due
    return f"{due}; tried {recipient.attempts} time{'' if recipient.attempts == 1 else 's'}"


def _as_dict(entry: Entry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "arrived": entry.arrived,
        "from": str(entry.mail.reverse_path),
        "octets": entry.octets,
        "origin": entry.origin,
        "recipients": [
            {
                "to": str(recipient.rcpt.forward_path),
                "attempts": recipient.attempts,
                "next_attempt": abs(recipient.next_attempt),
                "last_reply": recipient.last_reply,
            }
            for recipient in entry.recipients
        ],
    }
