"""`smtpproto queue`: what is in a node's spool, whether the node runs or not."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from textwrap import indent
from typing import Literal, TypeVar

import click
from attrs import asdict, evolve, frozen
from click.core import ParameterSource

from smtpproto.relay.delivery.times import Times
from smtpproto.relay.reports.story_file import Told, read_story
from smtpproto.relay.spool.check import Checked, Finding, check_spool
from smtpproto.relay.spool.seam import Entry, SpoolUnavailable

from .config import ConfigError, load
from .console import amount, mark, out, safe, say, table
from .listing import Listing, ago, as_dict, now, state, whom
from .options import (
    DATA,
    DATA_VARIABLE,
    BadInput,
    Failure,
    Family,
    backend_option,
    data_option,
    run,
)
from .selection import Wanted, confirmed, selection
from .shares import Share, Spools, spools_in, stories_in
from .telling import BY_OPERATOR, in_words

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

    def spool(self, ask: Callable[[Spools], Awaitable[T]]) -> T:
        """Open the spool as a visitor and ask it something."""

        async def visit() -> T:
            try:
                async with Spools.open(self.data) as spools:
                    return await ask(spools)
            except SpoolUnavailable as error:
                raise Failure(f"cannot look into the queue: {self.why(error)}") from None

        return run(self.backend, visit)

    def why(self, error: SpoolUnavailable) -> str:
        """Say why the spool cannot be opened, and where it may be instead."""
        if (self.data / "spool").is_dir():
            return str(error)
        return (
            f"{error}\nname what the node has as `data` by --data DIR or in {DATA_VARIABLE}, "
            "or its file by --config"
        )

    def choose(self, what: str, ids: Sequence[str], wanted: Wanted, *, yes: bool) -> Sequence[str]:
        """Return the messages to act on: those named, or, when that is confirmed, those wanted.

        Failure for one that is not there, a UsageError for neither.
        """
        if bool(ids) == bool(wanted):
            raise click.UsageError("give either an ID (or several) or a filter, such as --to")

        async def find(spool: Spools) -> list[str]:
            for id in ids:
                await _get(spool, id)
            if ids:
                return list(ids)
            return [entry.id async for entry in wanted.among(spool, now())]

        found = self.spool(find)
        if found and not ids and not yes:
            if not sys.stdin.isatty():
                raise click.UsageError(f"{len(found)} messages: --yes is needed")
            many = f"{len(found)} message{'' if len(found) == 1 else 's'}"
            click.confirm(f"{what} {many}?", abort=True, err=True)
        return found

    def each(self, ids: Sequence[str], act: Callable[[Spools, str], Awaitable[int]]) -> int:
        """Do something to each message, in one visit; the sum of what that returns."""

        async def act_on_all(spool: Spools) -> int:
            return sum([await act(spool, id) for id in ids])

        return self.spool(act_on_all) if ids else 0

    def stop(
        self, ids: Sequence[str], act: Callable[[Spools, str], Awaitable[int]]
    ) -> tuple[int, str]:
        """Do to each message what keeps it from being tried, until that is so.

        Return the sum as `each`, and what is still to be said of it.
        """

        async def act_on_all(spool: Spools) -> tuple[int, bool]:
            return sum([await act(spool, id) for id in ids]), await spool.noticed()

        done, served = self.spool(act_on_all) if ids else (0, False)
        return done, " What the node was sending by then goes on." if done and served else ""

    def tell(self, found: object, said: str) -> None:
        """Print what has been done, in the form that was asked for."""
        if self.as_json:
            self.print_json(found)
        else:
            say(said)

    def print_json(self, value: object) -> None:
        click.echo(json.dumps(value, indent=2))  # in ASCII: strangers' controls stay escaped


@click.group(
    cls=Family,
    invoke_without_command=True,
    subcommand_metavar="[list | show ID | trace ID | hold | release | retry | delete | check]",
    context_settings={
        "allow_interspersed_args": True,  # options are the same for all of them,
        "ignore_unknown_options": True,  # but for what a command has of its own
    },
)
@data_option
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Take the directory that `data` names in this file of `serve`.",
)
@backend_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.pass_context
def queue(ctx: click.Context, data: Path, config: Path | None, backend: str, as_json: bool) -> None:
    """Look at the messages that wait in a node, and act on them.

    Safe while the node runs: it notices within seconds. Without a command: list.
    """
    if config is not None:
        if ctx.get_parameter_source("data") is ParameterSource.COMMANDLINE:
            raise click.UsageError("--data and --config name the same thing: give one of them")
        try:
            data = load(config).get("data", DATA)
        except ConfigError as error:
            raise BadInput(str(error)) from None
    ctx.obj = _Visit(data, backend, as_json)
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_)


@queue.command("list")
@selection
@click.pass_obj
def list_(visit: _Visit, wanted: Wanted) -> None:
    """List the messages, the oldest first."""

    async def ask(spool: Spools) -> None:
        # As they come: there may be a million.
        if visit.as_json:
            await _list_json(spool, wanted)
            return
        listing = Listing()
        async for entry in wanted.among(spool, now()):
            listing.add(entry)
        listing.end()
        if not listing.messages:
            say("Nothing in the queue is so." if wanted else "The queue is empty.")

    visit.spool(ask)


async def _list_json(spool: Spools, wanted: Wanted) -> None:
    """Print an array as `print_json` does, one entry at a time."""
    before = "["
    async for entry in wanted.among(spool, now()):
        click.echo(f"{before}\n{indent(json.dumps(as_dict(entry), indent=2), '  ')}", nl=False)
        before = ","
    click.echo("[]" if before == "[" else "\n]")


@queue.command()
@click.argument("id")
@click.pass_obj
def show(visit: _Visit, id: str) -> None:
    """Show one message: its recipients, and its header."""

    async def ask(spool: Spools) -> tuple[Entry, bytes, str | None]:
        entry = await _get(spool, id)
        content = bytearray()
        problem = None
        try:
            async for chunk in spool.content(id):
                content += chunk
                if len(content) >= SHOWN or b"\r\n\r\n" in content:
                    break
        except SpoolUnavailable as error:
            problem = str(error)
        return entry, bytes(content[:SHOWN]).partition(b"\r\n\r\n")[0], problem

    entry, header, problem = visit.spool(ask)
    if visit.as_json:
        shown = header.decode("utf-8", "backslashreplace")
        visit.print_json({**as_dict(entry), "header": shown, "problem": problem})
        return
    rows: list[tuple[object, object]] = [
        ("id", entry.id),
        ("from", entry.mail.reverse_path),
        ("arrived", f"{_date(entry.arrived)} ({ago(entry.arrived)})"),
        ("size", amount(entry.octets)),
        ("origin", entry.origin),
    ]
    times = Times.of(entry)
    if times.begins > entry.arrived:
        rows.append(("held until", _date(times.begins)))
    if times.wanted is not None:
        mode = times.wanted.mode.name.lower()
        rows.append(("wanted by", f"{_date(times.wanted.at)}, or {mode}"))
    for recipient in entry.recipients:
        rows.append(("to", f"{whom(recipient)}: {state(entry, recipient)}"))
        if recipient.last_reply:
            rows.append(("", recipient.last_reply))
    if problem is not None:
        rows.append(("problem", problem))
    out().print(table("", "", rows=rows))
    say("")
    for line in header.split(b"\r\n"):
        say("  ", (safe(line), "dim"))


@queue.command()
@click.argument("id")
@click.pass_obj
def trace(visit: _Visit, id: str) -> None:
    """Tell the whole story of a message, also of one that has left.

    And of one that a filter has refused. It is read from DIR/story.jsonl, which `serve` keeps, up
    to the size that `story-size` says.
    """
    try:
        stories = stories_in(visit.data)
        story = [told for path in stories for told in read_story(path, id)]
    except OSError as error:
        raise Failure(
            f"the stories in {visit.data} cannot be read: {error.strerror or error}"
        ) from None
    if not stories:
        raise Failure(f"no story is kept in {visit.data}")
    story.sort(key=lambda told: told.time)
    try:
        entry = visit.spool(lambda spool: spool.get(id))
    except Failure:
        entry = None  # the story is worth telling without it
    if not story and entry is None:
        raise Failure(f"nothing is known of a message {id}")
    if visit.as_json:
        found = {"id": id, "story": [told.record for told in story]}
        visit.print_json({**found, "queue": None if entry is None else as_dict(entry)})
        return
    for told in story:
        _tell(told, id)
    if entry is not None:
        say(("in the queue now:", "head"))
        Listing().add(entry)


def _tell(told: Told, id: str) -> None:
    try:
        when = f"{datetime.fromisoformat(told.time).astimezone():%Y-%m-%d %H:%M:%S}"
    except ValueError:
        when = told.time
    if told.event is None:
        word, style, said = str(told.record.get("event")), "dim", json.dumps(dict(told.record))
    else:
        word, style, said = in_words(told.event)
    if told.record.get("id") != id:
        said += f"; it is that on {told.record.get('id')}"
    say((f"{when} ", "dim"), (f"{word:<9} ", style), said)


_IDS = click.argument("ids", nargs=-1, metavar="[ID]...")


@queue.command()
@_IDS
@selection
@confirmed
@click.option("--reason", default=BY_OPERATOR, show_default=True, help="Why; it is shown.")
@click.pass_obj
def hold(visit: _Visit, ids: tuple[str, ...], wanted: Wanted, yes: bool, reason: str) -> None:
    """Keep messages where they are until they are released.

    However old they grow: they are neither tried nor given up. When this returns the node tries
    none of them any more; an attempt that it has begun goes on.
    """
    found = visit.choose("Hold", ids, wanted, yes=yes)
    held, more = visit.stop(found, lambda spool, id: spool.hold(id, reason))
    visit.tell({"recipients": held}, f"{_recipients(held)} on hold.{more}")


@queue.command()
@_IDS
@selection
@confirmed
@click.pass_obj
def release(visit: _Visit, ids: tuple[str, ...], wanted: Wanted, yes: bool) -> None:
    """Let go of messages that are on hold: they are due now."""
    found = visit.choose("Release", ids, evolve(wanted, held=True) if wanted else wanted, yes=yes)
    moved = visit.each(found, lambda spool, id: spool.release(id, now()))
    visit.tell({"recipients": moved}, f"{_recipients(moved)} released.")


@queue.command()
@_IDS
@selection
@confirmed
@click.pass_obj
def retry(visit: _Visit, ids: tuple[str, ...], wanted: Wanted, yes: bool) -> None:
    """Make messages due now; all but those on hold, if none is named.

    What an ID or a filter names is due, on hold or not.
    """
    if ids or wanted:
        found = visit.choose("Retry", ids, wanted, yes=yes)
        moved = visit.each(found, lambda spool, id: spool.retry(id, now()))
    else:
        moved = visit.spool(lambda spool: spool.retry(None, now()))
    visit.tell({"recipients": moved}, f"{_recipients(moved)} brought forward to now.")


@queue.command()
@_IDS
@selection
@confirmed
@click.pass_obj
def delete(visit: _Visit, ids: tuple[str, ...], wanted: Wanted, yes: bool) -> None:
    """Drop messages, without a report to their senders.

    When this returns the node tries none of them any more; an attempt that it has begun goes on.
    """
    found = visit.choose("Delete", ids, wanted, yes=yes)
    deleted: list[str] = []

    async def drop(spool: Spools, id: str) -> int:
        if await spool.delete(id):
            deleted.append(id)
        return 1

    _, more = visit.stop(found, drop)
    if len(ids) == 1:
        visit.tell({"deleted": ids[0]}, f"{ids[0]} is deleted.{more}")
    else:
        said = f"{len(deleted)} message{'' if len(deleted) == 1 else 's'} deleted."
        visit.tell({"deleted": deleted}, f"{said}{more}")


def _recipients(number: int) -> str:
    return f"{number} recipient{'' if number == 1 else 's'}"


@queue.command(
    epilog="Exit codes: 0 all is well, or is so now; 1 something is wrong; 2 wrong usage."
)
@click.option("--repair", is_flag=True, help="Mend what can be mended. The node has to be stopped.")
@click.pass_obj
def check(visit: _Visit, repair: bool) -> None:
    """Look for damage: in the database, every message, every file.

    All of it is read. Content that has changed on the disk is told, and left where it is: it is not
    sent.

    With --repair: what cannot be delivered any more, and a database that had to be made anew, is
    kept in DIR/spool/quarantine.
    """
    try:
        checked = _checked(visit.data, repair=repair)
    except SpoolUnavailable as error:
        raise Failure(f"cannot check the queue: {visit.why(error)}") from None
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


def _checked(data: Path, *, repair: bool) -> Checked:
    """Check all spools of a node; of more than one, each finding says where it is."""
    shares = spools_in(data) or [Share()]
    messages, served = 0, False
    findings: list[Finding] = []
    for share in shares:
        path = share.spool(data)
        checked = check_spool(path, repair=repair)
        messages += checked.messages
        served = served or checked.served
        where = f"{path.name}: " if len(shares) > 1 else ""
        findings += [evolve(each, what=f"{where}{each.what}") for each in checked.findings]
    return Checked(messages, served, tuple(findings))


async def _get(spool: Spools, id: str) -> Entry:
    entry = await spool.get(id)
    if entry is None:
        raise Failure(f"no message {id} in the queue")
    return entry


def _date(seconds: float) -> str:
    return format_datetime(datetime.fromtimestamp(seconds, UTC))
