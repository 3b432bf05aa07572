"""`queue`: what waits in a spool is seen and moved, whether its node runs or not."""

import json
import os
import re
import shlex
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any
from weakref import ref

import anyio
import anyio.lowlevel
import pytest
from rich.cells import cell_len

from smtpproto.cli.listing import ENTRY, RECIPIENT
from smtpproto.core.command import Mail, Rcpt
from smtpproto.core.path import ForwardPath, ReversePath
from smtpproto.relay.reports.story import Accepted, Failed, Reported
from smtpproto.relay.reports.story_file import StoryFile
from smtpproto.relay.spool.seam import Entry, Settlement, Successor
from smtpproto.relay.spool.sqlite import SQLiteSpool
from tests.cli.conftest import Run
from tests.relay.process import SOURCE, serving

DATA = Path("smtpproto-data")
REPLY = "451 4.7.1 Come [bold]again[/bold] later, we are \x1b[2J\x9b2Jgreylisting"
CONTENT = b"Subject: =?utf-8?q?caf=C3=A9?=\r\nX-Odd: \x1b]0;title\x07 \xff\r\n\r\nthe body\r\n"
NOBODY = "8DnobodyNobody0"

both_backends = pytest.mark.parametrize("backend", ["asyncio", "trio"])


def stored(
    *recipients: str,
    sender: str | None = "ann@our.example",
    attempts: int = 0,
    asked: dict[str, str | None] | None = None,
) -> str:
    """Put a message into the spool of a node that does not run; its id."""

    async def store() -> str:
        now = time.time()
        async with SQLiteSpool.open(DATA / "spool") as spool:
            async with spool.receive() as incoming:
                await incoming.write(CONTENT)
                rcpts = [Rcpt(recipient) for recipient in recipients]
                mail = Mail(sender, asked)
                await incoming.commit(mail, rcpts, now=now - 7200, origin="192.0.2.7")
            for _ in range(attempts):
                later = [Settlement(n, now + 600.5, REPLY) for n in range(len(recipients))]
                await spool.settle(incoming.id, later, now=now)
        return incoming.id

    return anyio.run(store)


def parsed(cli: Run, *arguments: object) -> Any:
    result = cli("queue", *arguments)
    assert result.exit_code == 0, result.output
    assert result.stdout.replace("\n", "").isascii()
    assert result.stdout.replace("\n", "").isprintable()
    return json.loads(result.stdout)


def said(cli: Run, *arguments: object, width: int = 200, **env: str) -> str:
    result = cli("queue", *arguments, **env)
    assert result.exit_code == 0, result.output
    lines: list[str] = result.stdout.splitlines()
    assert max(map(cell_len, lines)) <= width
    return "\n".join(line.rstrip() for line in lines)


def failed(cli: Run, *arguments: object, advice: str = "") -> tuple[int, str]:
    """The exit code, and the line that says why; below it there is `advice`."""
    result = cli("queue", *arguments)
    assert result.stdout == ""
    line, *others = result.stderr.splitlines()
    assert [other.strip() for other in others] == [advice][: bool(advice)]
    return result.exit_code, line


ELSEWHERE = (
    "name what the node has as `data` by --data DIR or in SMTPPROTO_DATA, or its file by --config"
)


def test_who_sends_to_a_member_of_a_list_is_named(cli: Run) -> None:
    id = stored("dev@our.example")
    owned = Successor(Rcpt("bob@far.example"), Mail("owner@our.example"))

    async def expand() -> None:
        async with SQLiteSpool.open(DATA / "spool") as spool:
            await spool.settle(id, [Settlement(0, None, becomes=(owned,))], now=time.time())

    anyio.run(expand)
    for arguments in (), ("show", id):
        assert "<bob@far.example>, sent by <owner@our.example>" in said(cli, *arguments)
    (entry,) = parsed(cli, "--json")
    assert [recipient["from"] for recipient in entry["recipients"]] == ["<owner@our.example>"]


@both_backends
def test_an_empty_queue(cli: Run, backend: str) -> None:
    id = stored("bob@far.example")
    cli("queue", "delete", id)
    assert said(cli, "--backend", backend) == "The queue is empty."
    assert parsed(cli, "list", "--json", "--backend", backend) == []


@both_backends
@pytest.mark.parametrize("command", [[], ["list"]])
def test_the_list_has_each_recipient_and_why_it_waits(
    cli: Run, backend: str, command: list[str]
) -> None:
    first = stored("bob@far.example", "eve@far.example", attempts=1)
    second = stored("bob@far.example", sender=None)
    visible = REPLY.replace("\x1b", "\\x1b").replace("\x9b", "\\x9b")
    assert said(cli, *command, "--backend", backend).split("\n") == [
        "ID                    AGE      SIZE  SENDER",
        "  STATE    NEXT     TRIES            RECIPIENT",
        f"{first}       2 h      {len(CONTENT)} B  <ann@our.example>",
        "  deferred 10 min       1            <bob@far.example>",
        f"                                     {visible}",
        "  deferred 10 min       1            <eve@far.example>",
        f"                                     {visible}",
        f"{second}       2 h      {len(CONTENT)} B  <>",
        "  new      now                       <bob@far.example>",
        f"2 messages for 3 recipients (2 deferred), {2 * len(CONTENT)} octets; the oldest came "
        "2 h ago.",
    ]


def test_in_a_terminal_long_text_is_folded_within_its_column(cli: Run) -> None:
    long = "a.very.long.name.of.somebody.who.is.at@a.very.long.name.of.a.domain.example"
    id = stored(long, "\u7528\u6237@far.example", attempts=1, asked={"SMTPUTF8": None})
    cli("queue", "hold", id, "--reason", "nobody knows why, " * 9)
    for width in 80, 120:
        terminal = {"TTY_COMPATIBLE": "1", "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": str(width)}
        head, words, first, *rest, last = said(cli, width=width, **terminal).split("\n")
        edge = head.index("SENDER")
        assert first.startswith(id)
        assert words.index("RECIPIENT") == first.index("<ann@") == edge
        starts = [line[:edge].split() for line in rest]
        assert [each for each in starts if each] == [["on", "hold", "1"]] * 2
        texts = "".join(line[edge:] for line in rest)
        assert f"<{long}>" in texts
        assert "<\u7528\u6237@far.example>" in texts
        assert last.startswith("1 message for 2 recipients (2 on hold), ")


def test_the_summary_counts_what_is_listed(cli: Run) -> None:
    stored("bob@far.example", attempts=1)
    cli("queue", "hold", stored("bob@far.example", "eve@far.example"))
    said_of_all = said(cli).split("\n")[-1]
    assert said_of_all.startswith("2 messages for 3 recipients (1 deferred, 2 on hold), ")
    assert said(cli, "list", "--deferred").split("\n")[-1] == (
        f"1 message for 1 recipient (1 deferred), {len(CONTENT)} octets; the oldest came 2 h ago."
    )


def test_the_list_as_json(cli: Run) -> None:
    before = time.time()
    id = stored("bob@far.example", attempts=2)
    (entry,) = parsed(cli, "--json")
    assert list(entry) == list(ENTRY)  # as the reference has them
    (recipient,) = entry.pop("recipients")
    assert list(recipient) == list(RECIPIENT)
    assert 7100 < before - entry.pop("arrived") < 7201
    assert 590 < recipient.pop("next_attempt") - before < 700
    assert entry == {
        "id": id,
        "from": "<ann@our.example>",
        "octets": len(CONTENT),
        "origin": "192.0.2.7",
        "held_until": None,
        "wanted_by": None,
    }
    assert recipient == {
        "to": "<bob@far.example>",
        "from": "<ann@our.example>",
        "attempts": 2,
        "held": False,
        "last_reply": REPLY,
    }


def test_show_has_the_envelope_and_the_header_and_nothing_moves_the_cursor(cli: Run) -> None:
    id = stored("bob@far.example", "eve@far.example", attempts=1)
    shown = said(cli, "show", id)
    for words in (id, "<ann@our.example>", "192.0.2.7", "(2 h ago)", "<eve@far.example>: next try"):
        assert words in shown
    assert "\n  Subject: =?utf-8?q?caf=C3=A9?=\n  X-Odd: \\x1b]0;title\\x07 \\xff" in shown
    assert "the body" not in shown
    assert "\x1b" not in shown


def test_show_as_json_is_the_entry_with_its_header(cli: Run) -> None:
    id = stored("bob@far.example")
    (entry,) = parsed(cli, "list", "--json")
    shown = parsed(cli, "show", id, "--json")
    assert shown.pop("header") == CONTENT.partition(b"\r\n\r\n")[0].decode(
        errors="backslashreplace"
    )
    assert shown.pop("problem") is None
    assert shown == entry


def test_show_tells_of_content_that_cannot_be_read(cli: Run) -> None:
    id = stored("bob@far.example")
    damage("UPDATE message SET content = CAST('Subject: no' AS BLOB)")
    assert f" message {id} is damaged: {len(CONTENT)} octets expected" in said(cli, "show", id)
    shown = parsed(cli, "show", id, "--json")
    assert shown["header"] == ""
    assert shown["problem"].startswith(f"message {id} is damaged: ")


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_the_list_holds_one_entry_at_a_time(
    cli: Run, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    """A queue may be longer than memory."""
    for _ in range(5):
        stored("bob@far.example")
    read = SQLiteSpool.entries
    seen: list[ref[Entry]] = []
    alive: list[int] = []

    async def entries(self: SQLiteSpool) -> AsyncIterator[Entry]:
        async for entry in read(self):
            alive.append(sum(other() is not None for other in seen))
            seen.append(ref(entry))
            yield entry

    monkeypatch.setattr("smtpproto.relay.spool.sqlite.PAGE_ENTRIES", 1)
    monkeypatch.setattr(SQLiteSpool, "entries", entries)
    cli("queue", *options)
    assert len(alive) == 5
    assert max(alive) <= 1  # the one before, whose name is still in use


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_list_that_nobody_reads_to_its_end_is_no_fault(cli: Run, options: list[str]) -> None:
    """`smtpproto queue | head`"""
    for _ in range(10):
        stored(*[f"bob{n}@far.example" for n in range(1000)])  # more than a pipe holds
    program = [sys.executable, "-c", "from smtpproto.cli import main; main()", "queue", *options]
    with subprocess.Popen(
        program,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 1


def test_what_is_held_is_told_from_what_waits(cli: Run) -> None:
    # It came two hours ago.
    id = stored("bob@far.example", asked={"HOLDFOR": "18000", "BY": "19000;R"})
    assert "\n  later    3 h                       <bob@far.example>\n" in said(cli, "list")
    shown = said(cli, "show", id)
    assert "<bob@far.example>: held for 3 h, as its sender asked" in shown
    assert "held until" in shown
    assert re.search(r"wanted by .*, or return", shown)
    (entry,) = parsed(cli, "--json")
    assert entry["held_until"] == entry["arrived"] + 18000
    assert entry["wanted_by"] == entry["arrived"] + 19000
    cli("queue", "delete", id)
    stored("bob@far.example", asked={"HOLDFOR": "60"})
    assert "\n  new      now                       <bob@far.example>\n" in said(cli, "list")


def test_retry_makes_one_or_all_due_now(cli: Run) -> None:
    first = stored("bob@far.example", "eve@far.example", attempts=1)
    stored("bob@far.example", attempts=1)
    assert said(cli, "retry", first) == "2 recipients brought forward to now."
    assert [
        [recipient["next_attempt"] <= time.time() for recipient in entry["recipients"]]
        for entry in parsed(cli, "--json")
    ] == [[True, True], [False]]
    assert said(cli, "retry") == "1 recipient brought forward to now."
    assert parsed(cli, "retry", "--json") == {"recipients": 0}


def test_delete_drops_one(cli: Run) -> None:
    first, second = stored("bob@far.example"), stored("bob@far.example")
    assert said(cli, "delete", first) == f"{first} is deleted."
    assert parsed(cli, "delete", second, "--json") == {"deleted": second}
    assert parsed(cli, "--json") == []


@pytest.mark.parametrize("command", ["show", "retry", "delete"])
def test_an_unknown_id(cli: Run, command: str) -> None:
    stored("bob@far.example")
    assert failed(cli, command, NOBODY) == (1, f"smtpproto: no message {NOBODY} in the queue")
    assert len(parsed(cli, "--json")) == 1


@both_backends
@pytest.mark.parametrize("command", [["list"], ["show", NOBODY], ["retry"], ["delete", NOBODY]])
def test_where_no_spool_is_none_is_made(cli: Run, command: list[str], backend: str) -> None:
    where = "--data", "nosuch", "--backend", backend
    code, line = failed(cli, *command, *where, advice=ELSEWHERE)
    assert (code, line) == (1, "smtpproto: cannot look into the queue: no spool in nosuch/spool")
    assert not Path("nosuch").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["show"], "Missing argument 'ID'"),
        (["delete"], "give either an ID (or several) or a filter"),
        (["hold"], "give either an ID (or several) or a filter"),
        (["release", NOBODY, "--held"], "give either an ID (or several) or a filter"),
        (["list", "--older", "soon"], "no time above 0"),
        (["list", "--domain", "b c"], "no domain name"),
        (["list", "extra"], "unexpected extra argument"),
        (["list", "--frobnicate"], "No such option"),
        (["list", "--backend", "curio"], "Invalid value for '--backend'"),
    ],
)
def test_wrong_usage(cli: Run, arguments: list[str], words: str) -> None:
    code, line = failed(cli, *arguments)
    assert code == 2
    assert words in line


@pytest.mark.parametrize("command", [[], ["list"], ["show"], ["retry"], ["delete"]])
def test_the_options_are_the_same_before_and_behind_a_command(cli: Run, command: list[str]) -> None:
    text = " ".join(cli("queue", *command, "--help").stdout.split())
    if command:
        assert "`smtpproto queue` may stand here, too: --data, --config, --backend, --json." in text
    else:
        assert "queue [OPTIONS] [list | show ID | trace ID | hold | release | retry | del" in text
        assert all(option in text for option in ("--data DIR", "--json", "--backend [asyncio|"))
    stored("bob@far.example")
    options = ["--json", "--data", DATA, "--backend", "trio"]
    if command in ([], ["list"]):
        assert parsed(cli, *options, *command) == parsed(cli, *command, *options)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--from", "ann@our.example"], "ab"),
        (["--from", "ANN@our.example"], "ab"),
        (["--from", "<>"], "c"),
        (["--to", "eve@far.example"], "b"),
        (["--domain", "far.example"], "abc"),
        (["--domain", "ar.example"], ""),
        (["--older", "1h"], "abc"),
        (["--older", "3h"], ""),
        (["--deferred"], "a"),
        (["--held"], "c"),
        (["--from", "<>", "--deferred"], ""),
    ],
)
def test_filters_say_which(cli: Run, options: list[str], names: str) -> None:
    ids = {
        "a": stored("bob@far.example", attempts=1),
        "b": stored("bob@far.example", "eve@far.example"),
        "c": stored("bob@far.example", sender=None),
    }
    cli("queue", "hold", ids["c"])
    assert [entry["id"] for entry in parsed(cli, "list", "--json", *options)] == [
        ids[name] for name in names
    ]


def test_a_filter_that_fits_nothing_is_not_an_empty_queue(cli: Run) -> None:
    stored("bob@far.example")
    assert said(cli, "list", "--held") == "Nothing in the queue is so."


def test_messages_are_held_and_released(cli: Run) -> None:
    id = stored("bob@far.example", "eve@far.example")
    other = stored("bob@far.example")
    assert said(cli, "hold", id, "--reason", "who is that?") == "2 recipients on hold."
    (entry,) = parsed(cli, "list", "--held", "--json")
    assert [(r["held"], r["next_attempt"]) for r in entry["recipients"]] == [(True, None)] * 2
    assert said(cli, "show", id).count("on hold") == 2
    assert "who is that?" in said(cli, "show", id)
    # What is for all is not for what is on hold; `release` is.
    assert parsed(cli, "retry", "--json") == {"recipients": 1}
    assert parsed(cli, "release", "--from", "ann@our.example", "--yes", "--json") == {
        "recipients": 2
    }
    assert parsed(cli, "list", "--held", "--json") == []
    assert [entry["id"] for entry in parsed(cli, "list", "--json")] == [id, other]


def test_what_a_filter_says_is_done_when_it_is_confirmed(cli: Run) -> None:
    id = stored("bob@far.example")
    stays = stored("bob@near.example")
    code, line = failed(cli, "delete", "--domain", "far.example")
    assert code == 2
    assert "1 messages: --yes is needed" in line
    assert [e["id"] for e in parsed(cli, "list", "--json")] == [id, stays]
    assert said(cli, "delete", "--domain", "far.example", "--yes") == "1 message deleted."
    assert [e["id"] for e in parsed(cli, "list", "--json")] == [stays]


def test_of_several_one_that_is_not_there_stops_all(cli: Run) -> None:
    id = stored("bob@far.example")
    assert failed(cli, "delete", id, NOBODY) == (1, f"smtpproto: no message {NOBODY} in the queue")
    assert [e["id"] for e in parsed(cli, "list", "--json")] == [id]
    second = stored("bob@far.example")
    assert parsed(cli, "delete", id, second, "--json") == {"deleted": [id, second]}


def test_the_story_of_a_message_that_has_left(cli: Run) -> None:
    """And of the report on it; strangers' octets do nothing to the screen."""
    id, report = "1aaaaaaaaaaaaaa", "1bbbbbbbbbbbbbb"
    stored("bob@far.example")

    async def tell() -> None:
        bob = ForwardPath.of("bob@far.example")
        ann = ReversePath.of("ann@our.example")
        story = StoryFile(DATA / "story.jsonl", clock=lambda: 0.0)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(story.run)
            story.observe(Accepted(id, ann, (bob,), 5, "192.0.2.7 by ESMTP"))
            story.observe(Accepted(NOBODY, ann, (bob,), 5, "192.0.2.7 by ESMTP"))
            story.observe(Failed(id, bob, "far.example:25", "550 \x1b[2J no"))
            story.observe(Reported(id, report, ann))
            await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()

    anyio.run(tell)
    lines = cli("queue", "trace", id).stdout.splitlines()
    assert [line.split()[2] for line in lines if line.startswith("19")] == [
        "accepted",
        "failed",
        "reported",
    ]
    assert "\\x1b[2J no" in "\n".join(lines)
    found = parsed(cli, "trace", id, "--json")
    assert [told["event"] for told in found["story"]] == ["accepted", "failed", "reported"]
    assert found["story"][0]["time"] == "1970-01-01T00:00:00.000Z"
    assert found["queue"] is None
    assert f"it is that on {id}" in cli("queue", "trace", report).stdout


def actions(cli: Run, id: str) -> list[tuple[str, str]]:
    """What the operator did, as the story has it."""
    story = parsed(cli, "trace", id, "--json")["story"]
    return [(each["did"], each["reason"]) for each in story if each["event"] == "intervened"]


@both_backends
def test_what_the_operator_does_to_a_message_is_in_its_story(cli: Run, backend: str) -> None:
    id, other = stored("bob@far.example", "eve@far.example"), stored("bob@near.example")
    (DATA / "story.jsonl").touch()
    for arguments in (
        ("hold", id, "--reason", "who is that?"),
        ("hold", id),  # it is already
        ("release", id),
        ("hold", "--domain", "far.example", "--yes"),
        ("retry", id),
        ("retry",),  # of all, nothing is told
        ("delete", id),
    ):
        assert cli("queue", *arguments, "--backend", backend).exit_code == 0
    assert actions(cli, id) == [
        ("hold", "who is that?"),
        ("release", ""),
        ("hold", "by the operator"),
        ("retry", ""),
        ("delete", ""),
    ]
    said = [line.split(maxsplit=2)[2] for line in cli("queue", "trace", id).stdout.splitlines()]
    assert said == [
        "held      by the operator: who is that?",
        "released  by the operator",
        "held      by the operator",
        "retried   by the operator",
        "deleted   by the operator",
    ]
    assert actions(cli, other) == []


def test_where_no_story_is_kept_none_is_begun(cli: Run) -> None:
    assert said(cli, "hold", stored("bob@far.example")) == "1 recipient on hold."
    assert [path.name for path in DATA.iterdir()] == ["spool"]


def test_where_the_story_cannot_be_written_it_is_done_all_the_same(
    cli: Run, caplog: pytest.LogCaptureFixture
) -> None:
    id = stored("bob@far.example")
    (DATA / "story.jsonl").mkdir()
    assert said(cli, "hold", id) == "1 recipient on hold."
    assert [record.getMessage() for record in caplog.records] == [
        "smtpproto-data/story.jsonl does not say so: Is a directory"
    ]


def test_the_story_of_nobody(cli: Run) -> None:
    id = stored("bob@far.example")
    assert failed(cli, "trace", id)[1].startswith("smtpproto: no story is kept in ")
    (DATA / "story.jsonl").write_bytes(b'no JSON "' + NOBODY.encode() + b'"\n[]\n')
    code, line = failed(cli, "trace", NOBODY)
    assert (code, line) == (1, f"smtpproto: nothing is known of a message {NOBODY}")
    assert "in the queue now" in said(cli, "trace", id)


def test_the_queue_of_a_node_that_runs(cli: Run) -> None:
    """Its deliveries fail: nothing listens where its smart host should be."""
    first = stored("bob@far.example", "eve@far.example")
    second = stored("bob@far.example")
    with serving(DATA, "--smart-host", "127.0.0.1:1", backend="trio") as node:

        def deferred(times: int) -> None:
            def seen() -> bool:
                story = "".join(node.lines)
                return all(
                    len(re.findall(f"{id} deferred +<{name}@", story)) == times
                    for id, name in ((first, "bob"), (first, "eve"), (second, "bob"))
                )

            node.until(seen, f"that it has tried in vain {times} times")

        deferred(1)
        entries = parsed(cli, "list", "--json")
        assert [entry["id"] for entry in entries] == [first, second]
        reply = entries[0]["recipients"][0]["last_reply"]
        assert "cannot connect to 127.0.0.1:1" in reply
        assert reply in cli("queue").stdout

        assert parsed(cli, "retry", "--json") == {"recipients": 3}
        deferred(2)

        goes_on = " What the node was sending by then goes on."
        assert said(cli, "hold", second) == f"1 recipient on hold.{goes_on}"
        assert said(cli, "hold", second) == "0 recipients on hold."  # it was already
        assert said(cli, "delete", first) == f"{first} is deleted.{goes_on}"
        assert [entry["id"] for entry in parsed(cli, "--json")] == [second]
        assert actions(cli, first) == [("delete", "")]
        assert actions(cli, second) == [("hold", "by the operator")]
        assert node.stop() == 0
    (entry,) = parsed(cli, "--json")
    assert entry["recipients"][0]["attempts"] == 2


def damage(sql: str) -> None:
    with closing(sqlite3.connect(DATA / "spool" / "spool.db", isolation_level=None)) as db:
        db.execute(sql)


def test_check_finds_nothing_wrong_with_a_sound_queue(cli: Run) -> None:
    stored("bob@far.example")
    assert said(cli, "check") == "1 message; all is well."
    assert parsed(cli, "check", "--json") == {
        "messages": 1,
        "served": False,
        "findings": [],
        "sound": True,
    }


def test_check_tells_what_is_wrong_and_mends_it_when_told(cli: Run) -> None:
    id = stored("bob@far.example", "eve@far.example")
    damage("UPDATE recipient SET rcpt = x'1b5d' WHERE number = 1")
    result = cli("queue", "check")
    assert result.exit_code == 1
    assert result.stdout.isprintable() or "\x1b" not in result.stdout
    assert f" {id}: recipient 1: " in result.stdout
    assert "1 message; 1 thing wrong.\n--repair mends what can be mended" in result.stdout
    result = cli("queue", "check", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["findings"][0] | {"problem": ""} == {
        "what": id,
        "problem": "",
        "done": "",
        "mended": False,
    }
    mended = said(cli, "check", "--repair")
    assert "moved to smtpproto-data/spool/quarantine" in mended
    assert mended.endswith("\n1 message; all is well now.")
    assert said(cli, "check") == "1 message; all is well."
    (entry,) = parsed(cli, "--json")
    assert [recipient["to"] for recipient in entry["recipients"]] == ["<bob@far.example>"]


def test_check_says_what_cannot_be_mended(cli: Run) -> None:
    id = stored("bob@far.example")
    damage("UPDATE message SET octets = octets + 1")
    result = cli("queue", "check", "--repair")
    assert result.exit_code == 1
    assert f" {id}: its content has {len(CONTENT)} octets, and should have" in result.stdout
    assert "its sender is told when it expires" in result.stdout


def test_check_of_a_node_that_runs(cli: Run) -> None:
    stored("bob@far.example")
    with serving(DATA, "--smart-host", "127.0.0.1:1"):
        assert parsed(cli, "check", "--json")["served"] is True
        code, line = failed(cli, "check", "--repair")
    assert code == 1
    assert "cannot check the queue: " in line
    assert "another process serves it" in line


def test_check_where_no_spool_is(cli: Run) -> None:
    code, line = failed(cli, "check", advice=ELSEWHERE)
    assert (code, line) == (
        1,
        "smtpproto: cannot check the queue: no spool in smtpproto-data/spool",
    )


def test_the_data_may_be_named_in_the_environment(cli: Run) -> None:
    id = stored("bob@far.example")
    DATA.rename("elsewhere")
    assert id in cli("queue", SMTPPROTO_DATA="elsewhere").stdout
    assert "no spool in smtpproto-data" in cli("queue").stderr
    given = cli("queue", "--data", "nosuch", SMTPPROTO_DATA="elsewhere")
    assert "no spool in nosuch" in given.stderr


def test_the_data_may_be_that_of_a_file_of_settings(cli: Run) -> None:
    id = stored("bob@far.example")
    Path("etc").mkdir()
    DATA.rename("etc/here")
    config = Path("etc/smtp.toml")
    config.write_text('data = "here"\n')  # beside it, as `serve` has it
    for arguments in (("--config", config, "list"), ("list", "--config", config)):
        assert id in cli("queue", *arguments, SMTPPROTO_DATA="elsewhere").stdout
    config.write_text("")
    given = cli("queue", "--config", config, SMTPPROTO_DATA="elsewhere")
    assert "no spool in smtpproto-data" in given.stderr  # where `serve` would have it
    code, line = failed(cli, "--config", config, "--data", "etc/here")
    assert code == 2
    assert "--data and --config name the same thing: give one of them" in line
    config.write_text("nonsense = 3\n")
    code, line = failed(cli, "check", "--config", config)
    assert (code, line.partition(": ")[2].partition(": ")[0]) == (2, "etc/smtp.toml")


def test_what_the_guide_tells_to_type_is_understood(cli: Run) -> None:
    guide = Path(__file__).parents[2] / "docs" / "howto" / "run-as-a-service.md"
    lines = re.findall(r"^smtpproto (queue .*)$", guide.read_text(), re.MULTILINE)
    assert len(lines) == 6
    for line in lines:
        result = cli(*shlex.split(line))
        assert result.exit_code == 1, line  # there is no queue here
