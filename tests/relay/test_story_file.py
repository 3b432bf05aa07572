"""The story file: what is written comes back, and nothing that goes wrong reaches the mail."""

import json
import logging
import os
import stat
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import get_args

import anyio
import pytest
from attrs import fields

from smtpproto.core.path import ForwardPath, Mailbox, ReversePath
from smtpproto.core.status import EnhancedStatus
from smtpproto.relay.reports.story import (
    Accepted,
    Bounced,
    Deferred,
    Delivered,
    Discarded,
    Event,
    Expanded,
    Failed,
    Held,
    Intervened,
    Judged,
    Refused,
    Reported,
)
from smtpproto.relay.reports.story_file import (
    StoryFile,
    add_to_story,
    as_record,
    event_of,
    read_story,
)

ID = "0123456789abcde"
ANN, NOBODY = ReversePath.of("ann@our.example"), ReversePath.of(None)
BOB, ODD = ForwardPath.of("bob@far.example"), ForwardPath.of('"b\\" o\\\\b"@far.example')
SAID = "550 5.7.1 \x1b[2J \u2028 \N{SNOWMAN}"

EVENTS: list[Event] = [
    Accepted(ID, ANN, (BOB, ODD, ForwardPath.of("postmaster")), 512, "192.0.2.7 by ESMTP"),
    Accepted(ID, NOBODY, (BOB,), 0, ""),
    Judged(ID, "2001:db8::7", "content", "rspamd=tag (15.0)"),
    Expanded(ID, BOB, (ODD, BOB)),
    Delivered(ID, BOB, "mailbox bob", "250 2.1.5 Delivered"),
    Deferred(ID, BOB, "far.example:25", SAID, 300.5),
    Held(ID, BOB, "by a rule"),
    Intervened(ID, "hold", "who is that?"),
    Discarded(ID, BOB, ""),
    Failed(ID, ODD, "far.example:25", SAID),
    Bounced(
        ID,
        BOB,
        Mailbox.parse("news@our.example"),
        Mailbox.parse("bob@far.example"),
        "failed",
        EnhancedStatus(5, 1, 1),
    ),
    Bounced(ID, ODD, Mailbox.parse("news@our.example"), Mailbox.parse("b@far.example"), None, None),
    Reported(ID, "aaaaa9876543210", NOBODY, Mailbox.parse("postmaster@our.example")),
    Reported(ID, "", NOBODY),
    Refused(ID, NOBODY, (BOB, ODD), "2001:db8::7 by ESMTP", "554 5.7.1 No"),
    Reported(ID, "edcba9876543210", ANN),
]


@asynccontextmanager
async def writing(story: StoryFile) -> AsyncIterator[None]:
    """Let it write; at the end it is told to end."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(story.run)
        yield
        tasks.cancel_scope.cancel()


def test_every_event_comes_back() -> None:
    assert {type(event) for event in EVENTS} >= set(get_args(Event)) - _new()
    for event in EVENTS:
        assert event_of(json.loads(json.dumps(as_record(event)))) == event


def _new() -> set[type]:
    """Events whose fields are of kinds that are all seen here: they need no example."""
    seen = {field.name for event in EVENTS for field in fields(type(event))}
    return {each for each in get_args(Event) if {f.name for f in fields(each)} <= seen}


def test_names_are_what_programs_rely_on() -> None:
    assert as_record(EVENTS[0]) == {
        "event": "accepted",
        "id": ID,
        "from": "<ann@our.example>",
        "recipients": ["<bob@far.example>", str(ODD), "<Postmaster>"],
        "octets": 512,
        "origin": "192.0.2.7 by ESMTP",
    }
    assert as_record(EVENTS[5]) == {
        "event": "deferred",
        "id": ID,
        "to": "<bob@far.example>",
        "where": "far.example:25",
        "reply": SAID,
        "wait": 300.5,
    }
    assert as_record(EVENTS[3])["becomes"] == [str(ODD), "<bob@far.example>"]


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"event": "unheard-of", "id": ID},
        {"event": "delivered", "id": ID},
        {"event": "delivered", "id": ID, "to": "bob", "where": "", "reply": ""},
        {"event": "accepted", "id": ID, "from": 5, "recipients": 7, "octets": 1, "origin": ""},
    ],
)
def test_what_is_no_event_of_ours_is_none(record: dict[str, object]) -> None:
    assert event_of(record) is None


@pytest.mark.anyio
async def test_a_story_is_written_and_read(tmp_path: Path) -> None:
    path = tmp_path / "story.jsonl"
    story = StoryFile(path, clock=lambda: 1_700_000_000.25)
    async with writing(story):
        for event in EVENTS:
            story.observe(event)
        story.observe(Delivered("another00000000", BOB, "mailbox bob", ID))
    told = read_story(path, ID)
    assert [each.event for each in told] == EVENTS
    assert {each.time for each in told} == {"2023-11-14T22:13:20.250Z"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.event for each in read_story(path, "edcba9876543210")] == EVENTS[-1:]


def _length(path: Path) -> int:
    return len(read_story(path, ID)) if path.exists() else 0


@pytest.mark.anyio
async def test_it_is_there_while_it_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "story.jsonl"
    story = StoryFile(path)
    with anyio.fail_after(30):
        async with writing(story):
            for number in range(3):
                story.observe(EVENTS[4])
                while _length(path) <= number:  # noqa: ASYNC110 - a file has no event
                    await anyio.sleep(0.01)


@pytest.mark.anyio
async def test_who_ends_waits_for_what_is_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    story = StoryFile(tmp_path / "story.jsonl")
    write, begun, go_on = story._write_next, threading.Event(), threading.Event()

    def slowly(batch: Sequence[tuple[float, Event]]) -> None:
        if batch:
            begun.set()
            go_on.wait(60)
        write(batch)

    monkeypatch.setattr(story, "_write_next", slowly)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(story.run)
            story.observe(EVENTS[4])
            await anyio.to_thread.run_sync(begun.wait)
            tasks.cancel_scope.cancel()
            threading.Timer(0.05, go_on.set).start()
    assert [told.event for told in read_story(story.path, ID)] == [EVENTS[4]]


@pytest.mark.anyio
async def test_who_ends_before_a_thread_has_begun_loses_nothing(tmp_path: Path) -> None:
    """A thread that nobody waits for any more may not even begin."""
    story = StoryFile(tmp_path / "story.jsonl")
    flush = story._flush

    async def cancelled() -> None:
        tasks.cancel_scope.cancel()
        await flush()

    story._flush = cancelled  # type: ignore[method-assign]  # the moment is the point
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(story.run)
            story.observe(EVENTS[4])
    assert [told.event for told in read_story(story.path, ID)] == [EVENTS[4]]


@pytest.mark.anyio
async def test_what_is_of_no_message_is_left_out(tmp_path: Path) -> None:
    """A stranger who is refused a thousand times drives out nobody's story."""
    story = StoryFile(tmp_path / "story.jsonl")
    async with writing(story):
        story.observe(Judged("", "192.0.2.7", "connect", "dnsbl=refuse (listed)"))
    assert not story.path.exists()


def _sizes(folder: Path) -> dict[str, int]:
    return {each.name: each.stat().st_size for each in folder.iterdir()}


@pytest.mark.anyio
async def test_one_batch_keeps_to_the_bound_too(tmp_path: Path) -> None:
    story = StoryFile(tmp_path / "story.jsonl", limit=20_000)
    async with writing(story):
        for _ in range(800):
            story.observe(EVENTS[4])
    assert sum(_sizes(tmp_path).values()) <= 20_000
    assert 50 < len(read_story(story.path, ID)) < 800


@pytest.mark.anyio
async def test_it_is_bounded_and_the_last_is_kept(tmp_path: Path) -> None:
    limit = 20_000
    story = StoryFile(tmp_path / "story.jsonl", limit=limit)
    for number in range(40):
        async with writing(story):
            for _ in range(20):
                story.observe(Delivered(ID, BOB, "mailbox bob", f"250 {number}"))
    sizes = _sizes(tmp_path)
    assert sorted(sizes) == ["story.jsonl", "story.jsonl.1"]
    assert limit // 4 < sum(sizes.values()) <= limit
    replies = [told.record["reply"] for told in read_story(story.path, ID)]
    assert replies[-1] == "250 39"
    assert replies == sorted(replies, key=lambda reply: int(str(reply)[4:]))


@pytest.mark.anyio
async def test_a_full_disk_loses_lines_and_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Half of a line is taken back; when there is room again, it goes on."""
    story = StoryFile(tmp_path / "story.jsonl")
    async with writing(story):
        story.observe(EVENTS[0])
    whole = story.path.read_bytes()
    write = os.write
    left = [10]

    def full(descriptor: int, octets: bytes) -> int:
        if not left[0]:
            raise OSError(28, "No space left on device")
        room, left[0] = left[0], 0
        return write(descriptor, octets[:room])

    with caplog.at_level(logging.ERROR), monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        for _ in range(3):
            async with writing(story):
                story.observe(EVENTS[1])
                story.observe(EVENTS[2])
    assert story.lost == 6
    assert [record.getMessage() for record in caplog.records] == [
        f"{story.path}: the story is not written: No space left on device"
    ]
    assert story.path.read_bytes() == whole
    async with writing(story):
        story.observe(EVENTS[3])
    assert [told.event for told in read_story(story.path, ID)] == [EVENTS[0], EVENTS[3]]


@pytest.mark.anyio
async def test_a_disk_that_stands_still_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events that wait are bounded in number."""
    story = StoryFile(tmp_path / "story.jsonl", waiting=10)
    for _ in range(25):
        story.observe(EVENTS[0])
    assert story.lost == 15
    async with writing(story):
        pass
    assert len(read_story(story.path, ID)) == 10


def test_a_file_that_turns_while_it_is_read_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader has opened it, and before it opens the older one, that is what it has opened."""
    path = tmp_path / "story.jsonl"
    path.write_text(json.dumps({"time": "", **as_record(EVENTS[0])}) + "\n")
    original = Path.open

    def turning(self: Path, mode: str) -> object:
        file = original(self, mode)
        if self == path:
            path.replace(tmp_path / "story.jsonl.1")
        return file

    monkeypatch.setattr(Path, "open", turning)
    assert len(read_story(path, ID)) == 1


# Others who have something to tell


HELD = Intervened(ID, "hold", "who is that?")


@pytest.mark.anyio
async def test_another_process_adds_to_a_story_that_goes_on(tmp_path: Path) -> None:
    story = StoryFile(tmp_path / "story.jsonl", clock=lambda: 0.0)
    for _ in range(3):
        async with writing(story):
            story.observe(EVENTS[4])
        add_to_story(story.path, HELD, 1.5)
    told = read_story(story.path, ID)
    assert [each.event for each in told] == [EVENTS[4], HELD] * 3
    assert told[1].time == "1970-01-01T00:00:01.500Z"


def test_where_no_story_is_kept_nothing_is_added(tmp_path: Path) -> None:
    add_to_story(tmp_path / "story.jsonl", HELD, 0.0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.anyio
async def test_while_another_file_is_begun_it_is_added_to_the_older(tmp_path: Path) -> None:
    story = StoryFile(tmp_path / "story.jsonl")
    async with writing(story):
        story.observe(EVENTS[4])
    story.path.rename(tmp_path / "story.jsonl.1")
    add_to_story(story.path, HELD, 0.0)
    assert not story.path.exists()  # it would be of another user, perhaps
    async with writing(story):
        story.observe(EVENTS[5])
    assert [each.event for each in read_story(story.path, ID)] == [EVENTS[4], HELD, EVENTS[5]]


def test_no_half_of_a_line_is_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "story.jsonl"
    path.touch()
    add_to_story(path, HELD, 0.0)
    whole, write, left = path.read_bytes(), os.write, [10]

    def full(descriptor: int, octets: bytes) -> int:
        if not left[0]:
            raise OSError(28, "No space left on device")
        room, left[0] = left[0], 0
        return write(descriptor, octets[:room])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        add_to_story(path, HELD, 1.0)
    assert path.read_bytes() == whole
