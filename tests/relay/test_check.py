"""`check_spool`: what is wrong with a spool is found, and mended without losing any of it."""

import errno
import json
import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from zlib import crc32

import anyio
import pytest

from smtpproto.core.command import Mail, Rcpt
from smtpproto.relay.spool import check, database
from smtpproto.relay.spool.check import Checked, Finding, check_spool
from smtpproto.relay.spool.database import PAGE_OCTETS
from smtpproto.relay.spool.disk import Disk
from smtpproto.relay.spool.salvage import MENDED
from smtpproto.relay.spool.seam import Entry, SpoolUnavailable
from smtpproto.relay.spool.sqlite import SQLiteSpool
from tests.relay.test_spool import VERSION_1

SMALL = b"Subject: small\r\n\r\nbody\r\n"
LARGE = bytes(range(256)) * 600


def filled(path: Path, *contents: bytes, rcpts: int = 2) -> list[str]:
    """A spool that was closed as it should be; the ids of what is in it."""

    async def fill() -> list[str]:
        dice = random.Random(1)
        async with SQLiteSpool.open(path, clock=lambda: 1e6, random=dice.randrange) as spool:
            ids: list[str] = []
            for content in contents:
                async with spool.receive() as incoming:
                    await incoming.write(content)
                    owed = [Rcpt(f"{n}@far.example") for n in range(rcpts)]
                    await incoming.commit(Mail("ann@our.dom"), owed, now=0.0, origin="a test")
                ids.append(incoming.id)
        return ids

    return anyio.run(fill)


def left(path: Path) -> dict[str, tuple[Entry, bytes]]:
    """What a server finds there."""

    async def look() -> dict[str, tuple[Entry, bytes]]:
        async with SQLiteSpool.open(path) as spool:
            return {
                entry.id: (entry, b"".join([chunk async for chunk in spool.content(entry.id)]))
                async for entry in spool.entries()
            }

    return anyio.run(look)


def sql(path: Path, statement: str, *arguments: object) -> list[Any]:
    with closing(sqlite3.connect(path / "spool.db", isolation_level=None)) as db:
        return db.execute(statement, arguments).fetchall()


def quarantined(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (path / "quarantine").glob("*")}


def envelope(path: Path, id: str) -> Any:
    return json.loads(quarantined(path)[f"{id}.json"])


def check_and_mend(path: Path) -> tuple[Finding, ...]:
    """Both find the same; only one changes anything; and afterwards nothing is found."""
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    found = check_spool(path)
    assert not found.sound
    assert not any(finding.done or finding.mended for finding in found.findings)
    after = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    assert after == before
    mended = check_spool(path, repair=True)
    assert [(f.what, f.problem) for f in mended.findings][: len(found.findings)] == [
        (f.what, f.problem) for f in found.findings
    ]
    return mended.findings


def sound(path: Path, messages: int) -> None:
    assert check_spool(path) == Checked(messages, False, ())


def test_nothing_is_wrong_with_a_sound_spool(tmp_path: Path) -> None:
    filled(tmp_path, SMALL, LARGE, b"")
    for repair in (False, True):
        assert check_spool(tmp_path, repair=repair) == Checked(3, False, ())
    assert not (tmp_path / "quarantine").exists()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE message SET mail = 'MAIL FROM:<ann@our.dom>' WHERE id = ?",  # text, no octets
        "UPDATE message SET mail = CAST('no command' AS BLOB) WHERE id = ?",
        "UPDATE message SET mail = CAST('RCPT TO:<ann@our.dom>' AS BLOB) WHERE id = ?",
        "UPDATE recipient SET rcpt = x'ff' WHERE message = ?",
        "DELETE FROM recipient WHERE message = ?",
        "DELETE FROM message WHERE id = ?",
    ],
)
@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
def test_what_cannot_be_delivered_is_kept_in_quarantine(
    tmp_path: Path, statement: str, content: bytes
) -> None:
    first, bad, last = filled(tmp_path, SMALL, content, LARGE)
    sql(tmp_path, statement, bad)
    findings = check_and_mend(tmp_path)
    assert {finding.what for finding in findings} == {bad}
    assert all(finding.mended for finding in findings)
    kept = quarantined(tmp_path)
    assert envelope(tmp_path, bad)["id"] == bad
    if "DELETE FROM recipient" not in statement:
        assert len(envelope(tmp_path, bad)["recipients"]) == 2
    if "DELETE FROM message" not in statement or content is LARGE:
        assert kept[f"{bad}.eml"] == content
    assert set(left(tmp_path)) == {first, last}
    assert {file.name for file in (tmp_path / "content").iterdir()} == {last}
    sound(tmp_path, 2)


def test_a_recipient_that_cannot_be_read_does_not_hold_up_the_others(tmp_path: Path) -> None:
    (id,) = filled(tmp_path, LARGE, rcpts=3)
    sql(tmp_path, "UPDATE recipient SET rcpt = x'0d' WHERE message = ? AND number = 1", id)
    assert left(tmp_path) == {}
    (finding,) = check_and_mend(tmp_path)
    assert finding.problem.startswith("recipient 1: ")
    entry, content = left(tmp_path)[id]
    assert [recipient.number for recipient in entry.recipients] == [0, 2]
    assert content == LARGE == quarantined(tmp_path)[f"{id}.eml"]
    assert [r["rcpt"] for r in envelope(tmp_path, id)["recipients"]] == [""]
    sound(tmp_path, 1)


COLUMNS = {
    "message": ("id", "arrived", "mail", "origin", "octets", "content", "checksum"),
    "recipient": (
        *("message", "number", "rcpt", "attempts", "next_attempt", "due", "last_reply"),
        *("warned", "alias", "mail"),
    ),
}
ODD = {
    "blob": "x'fffe'",
    "text": "'no such thing'",
    "no UTF-8": "CAST(x'fffe' AS TEXT)",
    "NUL": "'a' || char(0) || 'b'",
    "path up": "'../../precious'",
    "path": "'{}/precious'",
    "number": "5",
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
@pytest.mark.parametrize("table", COLUMNS)
def test_whatever_a_column_holds_is_kept_and_hurts_nothing_else(
    tmp_path: Path, table: str, odd: str
) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"somebody's")
    for column in COLUMNS[table]:
        path = tmp_path / column
        path.mkdir()
        first, bad, last = filled(path, SMALL, LARGE, SMALL)
        key, only = ("id", "") if table == "message" else ("message", " AND number = 0")
        value = odd.format(tmp_path)
        sql(path, f"UPDATE {table} SET {column} = {value} WHERE {key} = ?{only}", bad)
        found = check_spool(path, repair=True).findings
        again = check_spool(path).findings
        assert all("; it is not sent, and" in finding.problem for finding in again), column
        assert precious.read_bytes() == b"somebody's"
        assert {file.name for file in tmp_path.iterdir()} == {
            "precious",
            *COLUMNS[table][: COLUMNS[table].index(column) + 1],
        }

        there = {entry.id: entry for entry in anyio.run(entries, path)}
        assert {first, last} <= there.keys()
        owed = len(there[bad].recipients) if bad in there else 0
        kept = b"".join(quarantined(path).values())
        assert owed + kept.count(b'"last_reply"') == 2, column
        assert owed or kept.count(LARGE) == 1
        assert bool(found) == bool(owed < 2 or again), column


async def entries(path: Path) -> list[Entry]:
    async with SQLiteSpool.open(path) as spool:
        return [entry async for entry in spool.entries()]


def test_a_command_that_is_no_octets_does_not_hold_up_the_others(tmp_path: Path) -> None:
    ids = filled(tmp_path, SMALL, SMALL, SMALL, SMALL)
    sql(tmp_path, "UPDATE message SET mail = 'MAIL FROM:<a@b.example>' WHERE id = ?", ids[0])
    sql(tmp_path, "UPDATE recipient SET rcpt = 5 WHERE message = ?", ids[1])
    sql(tmp_path, "UPDATE recipient SET mail = 5 WHERE message = ?", ids[2])
    assert set(left(tmp_path)) == {ids[3]}


@pytest.mark.parametrize("alias", ["x'ff'", "'ann'", "x'00'"])
def test_an_alias_that_cannot_be_read_is_found_too(tmp_path: Path, alias: str) -> None:
    (id,) = filled(tmp_path, LARGE, rcpts=3)
    sql(tmp_path, f"UPDATE recipient SET alias = {alias} WHERE message = ? AND number = 1", id)
    (finding,) = check_spool(tmp_path, repair=True).findings
    assert finding.what == id
    assert "it came by no alias" in finding.problem
    assert finding.mended
    assert [r["rcpt"] for r in envelope(tmp_path, id)["recipients"]] == ["RCPT TO:<1@far.example>"]
    assert check_spool(tmp_path).findings == ()


@pytest.mark.parametrize("mail", ["x'ff'", "'MAIL FROM:<a@b.example>'", "x'00'"])
def test_a_sender_of_a_recipient_that_cannot_be_read_is_found_too(
    tmp_path: Path, mail: str
) -> None:
    (id,) = filled(tmp_path, LARGE, rcpts=3)
    sql(tmp_path, f"UPDATE recipient SET mail = {mail} WHERE message = ? AND number = 1", id)
    (finding,) = check_spool(tmp_path, repair=True).findings
    assert finding.what == id
    assert finding.problem.startswith("recipient 1: ")
    assert finding.mended
    assert [r["rcpt"] for r in envelope(tmp_path, id)["recipients"]] == ["RCPT TO:<1@far.example>"]
    assert check_spool(tmp_path).findings == ()


@pytest.mark.parametrize("there", [None, LARGE[:500], LARGE + b"more"], ids=["no", "half", "more"])
def test_content_that_is_not_whole_is_told_and_its_sender_still_hears(
    tmp_path: Path, there: bytes | None
) -> None:
    """It cannot be made whole; in the queue it is reported when it expires, and never sent."""
    (id,) = filled(tmp_path, LARGE)
    file = tmp_path / "content" / id
    if there is None:
        file.unlink()
    else:
        file.write_bytes(there)
    (finding,) = check_and_mend(tmp_path)
    assert finding.what == id
    assert ("gone" if there is None else f"{len(there)} octets") in finding.problem
    assert not finding.mended
    assert not check_spool(tmp_path, repair=True).sound


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
def test_content_that_has_changed_is_told_and_its_sender_still_hears(
    tmp_path: Path, content: bytes
) -> None:
    """Nobody can mend it; as long as it is here, a copy may be put in its place."""
    good, bad = filled(tmp_path, content, content)
    file, at = tmp_path / "content" / bad, len(content) // 2
    changed = content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :]
    put = "UPDATE message SET content = ? WHERE id = ?"
    if content is LARGE:
        file.write_bytes(changed)
    else:
        sql(tmp_path, put, changed, bad)
    (finding,) = check_and_mend(tmp_path)
    assert finding.what == bad
    assert finding.problem.startswith("its content has changed since it came; it is not sent")
    assert not finding.mended
    assert not (tmp_path / "quarantine").exists()
    assert {entry.id for entry in anyio.run(entries, tmp_path)} == {good, bad}
    if content is LARGE:
        file.write_bytes(content)
    else:
        sql(tmp_path, put, content, bad)
    sound(tmp_path, 2)
    assert {got for _, got in left(tmp_path).values()} == {content}


def test_a_file_that_cannot_be_read_does_not_end_the_check(tmp_path: Path) -> None:
    ids = filled(tmp_path, LARGE, LARGE)

    class Broken(Disk):
        def read(self, path: Path, offset: int, octets: int) -> bytes:
            if path.name == ids[0] and offset:
                raise OSError(errno.EIO, "Input/output error")
            return super().read(path, offset, octets)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check, "PIECE", 100_000)
        (finding,) = check_spool(tmp_path, disk=Broken()).findings
    assert finding.what == ids[0]
    assert finding.problem.startswith("its content cannot be read: Input/output error; ")


def test_files_are_looked_at_piece_by_piece_and_messages_some_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "PIECE", 1000)
    monkeypatch.setattr(check, "SOME", 2)
    filled(tmp_path, LARGE, SMALL, LARGE[:-1], b"", SMALL)
    asked: list[int] = []

    class Recording(Disk):
        def read(self, path: Path, offset: int, octets: int) -> bytes:
            asked.append(octets)
            return super().read(path, offset, octets)

    assert check_spool(tmp_path, disk=Recording()) == Checked(5, False, ())
    assert set(asked) == {1000}


def test_inline_content_of_another_length_is_never_sent(tmp_path: Path) -> None:
    filled(tmp_path, SMALL)
    sql(tmp_path, "UPDATE message SET octets = octets + 1")
    (finding,) = check_and_mend(tmp_path)
    assert f"{len(SMALL)} octets" in finding.problem
    with pytest.raises(SpoolUnavailable, match="octets expected"):
        left(tmp_path)


def test_a_file_without_a_message_is_kept(tmp_path: Path) -> None:
    (id,) = filled(tmp_path, LARGE)
    orphan = tmp_path / "content" / "orphan0"
    for content in (b"one", b"another"):
        orphan.write_bytes(content)
        (finding,) = check_and_mend(tmp_path)
        assert finding.what == "orphan0"
        assert not orphan.exists()
    assert quarantined(tmp_path) == {"orphan0.eml": b"one", "orphan0.eml.1": b"another"}
    assert left(tmp_path)[id][1] == LARGE


# A database that is damaged


def pages_of(path: Path, name: str) -> list[int]:
    """The pages, from 1, that hold a table or an index, overflow excepted."""
    with closing(sqlite3.connect(path / "spool.db")) as db:
        (root,) = db.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = ?", (name,)
        ).fetchone()
    octets = (path / "spool.db").read_bytes()
    pages, todo = [], [int(root)]
    while todo:
        page = todo.pop()
        pages.append(page)
        at = (page - 1) * PAGE_OCTETS
        if octets[at] in (2, 5):  # an inner page: its children
            count = int.from_bytes(octets[at + 3 : at + 5], "big")
            cells = [at + 12 + 2 * n for n in range(count)]
            starts = [at + int.from_bytes(octets[c : c + 2], "big") for c in cells]
            todo += [int.from_bytes(octets[s : s + 4], "big") for s in [*starts, at + 8]]
    return pages


def tear(path: Path, page: int, octets: int = PAGE_OCTETS) -> None:
    """Overwrite a page with rubbish."""
    with (path / "spool.db").open("r+b") as file:
        file.seek((page - 1) * octets)
        file.write(random.Random(page).randbytes(octets))


def many(path: Path, count: int = 300) -> dict[str, bytes]:
    contents = [b"%d\r\n" % n * (50 + n % 700) for n in range(count - 2)] + [LARGE, LARGE]
    return dict(zip(filled(path, *contents), contents, strict=True))


def all_is_somewhere(
    path: Path, sent: dict[str, bytes], least: int, findings: Sequence[Finding] = ()
) -> None:
    """What is in the queue is whole, or told; content in files is there or in quarantine."""
    lost = Counter(f.what for f in findings if f.problem.startswith("its recipient"))
    there = left(path)
    assert len(there) >= least
    for id, (entry, content) in there.items():
        assert content == sent[id]
        assert len(entry.recipients) == 2 - lost[id]
    kept = quarantined(path)
    assert "spool.db" in kept
    for id, content in sent.items():
        if content is LARGE:
            assert id in there or kept[f"{id}.eml"] == LARGE
    sound(path, len(there))


@pytest.mark.parametrize("index", ["recipient_due", "sqlite_autoindex_message_1"])
def test_a_damaged_index_is_made_anew(tmp_path: Path, index: str) -> None:
    sent = many(tmp_path)
    tear(tmp_path, pages_of(tmp_path, index)[-1])
    check_and_mend(tmp_path)
    there = left(tmp_path)
    assert {id: content for id, (_, content) in there.items()} == sent
    assert all(len(entry.recipients) == 2 for entry, _ in there.values())
    sound(tmp_path, len(sent))


@pytest.mark.parametrize("bit", [0x10, 0x40, 0x20, 1])
def test_an_index_that_leads_back_makes_no_list_without_an_end(tmp_path: Path, bit: int) -> None:
    ids = filled(tmp_path, SMALL, SMALL, SMALL)
    (page,) = pages_of(tmp_path, "sqlite_autoindex_message_1")
    sound_ones = (tmp_path / "spool.db").read_bytes()
    ends = 0
    for id in ids:
        octets = bytearray(sound_ones)
        octets[octets.index(id.encode(), (page - 1) * PAGE_OCTETS) + 5] ^= bit
        (tmp_path / "spool.db").write_bytes(octets)
        try:
            assert len(anyio.run(entries, tmp_path)) <= 3
        except SpoolUnavailable as error:
            ends += "queue check" in str(error)
    assert ends
    check_and_mend(tmp_path)
    assert sorted(left(tmp_path)) == sorted(ids)


@pytest.mark.parametrize("table", ["message", "recipient"])
@pytest.mark.parametrize("which", [1, 3, -1])
def test_of_a_damaged_table_all_is_saved_that_can_be_read(
    tmp_path: Path, table: str, which: int
) -> None:
    sent = many(tmp_path)
    pages = pages_of(tmp_path, table)
    assert len(pages) > 4
    tear(tmp_path, pages[which])
    findings = check_and_mend(tmp_path)
    assert "made anew, with the " in " ".join(finding.done for finding in findings)
    all_is_somewhere(tmp_path, sent, len(sent) - 120, findings)


def checksums(path: Path) -> dict[str, int | None]:
    return dict(sql(path, "SELECT id, checksum FROM message"))


@pytest.mark.parametrize("damage", ["a table", "the first page"])
def test_checksums_are_saved_with_their_messages(tmp_path: Path, damage: str) -> None:
    sent = many(tmp_path)
    tear(tmp_path, 1 if damage == "the first page" else pages_of(tmp_path, "message")[3])
    check_and_mend(tmp_path)
    saved = checksums(tmp_path)
    assert len(saved) > len(sent) - 60
    assert saved == {id: crc32(sent[id]) for id in saved}


def test_messages_older_than_checksums_are_saved_without(tmp_path: Path) -> None:
    sent = many(tmp_path)
    sql(tmp_path, "ALTER TABLE message DROP COLUMN checksum")
    sql(tmp_path, "PRAGMA user_version = 4")
    tear(tmp_path, pages_of(tmp_path, "message")[3])
    check_spool(tmp_path, repair=True)
    saved = checksums(tmp_path)
    assert len(saved) > len(sent) - 60
    assert set(saved.values()) == {None}
    sound(tmp_path, len(saved))


@pytest.mark.parametrize("pages", [(1, -1), (5, 10)])
def test_what_lies_between_two_damaged_pages_is_saved(
    tmp_path: Path, pages: tuple[int, int]
) -> None:
    sent = many(tmp_path)
    found = pages_of(tmp_path, "message")  # the last leaf comes first
    for page in pages:
        tear(tmp_path, found[page])
    findings = check_and_mend(tmp_path)
    all_is_somewhere(tmp_path, sent, len(sent) - 60, findings)


def test_recipients_of_one_message_between_two_damaged_pages_are_saved(tmp_path: Path) -> None:
    (id,) = filled(tmp_path, SMALL, rcpts=1000)
    pages = pages_of(tmp_path, "recipient")
    assert len(pages) > 8
    for page in (2, -2):
        tear(tmp_path, pages[page])
    findings = check_spool(tmp_path, repair=True).findings
    lost = [finding for finding in findings if finding.what == id]
    there = left(tmp_path)[id][0].recipients
    assert len(there) + len(lost) == 1000
    assert len(there) > 1000 - 3 * 1000 // (len(pages) - 1)


def test_where_the_first_page_is_gone_all_else_is_saved(tmp_path: Path) -> None:
    sent = many(tmp_path)
    tear(tmp_path, 1)
    check_and_mend(tmp_path)
    all_is_somewhere(tmp_path, sent, len(sent))


@pytest.mark.parametrize("octets", [4096, 8192, 16384, 65536])
@pytest.mark.parametrize("count", [3, 300])
def test_the_size_of_pages_is_found_out_where_the_first_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, octets: int, count: int
) -> None:
    monkeypatch.setattr(database, "PAGE_OCTETS", octets)
    sent = many(tmp_path, count)
    monkeypatch.undo()
    assert sql(tmp_path, "PRAGMA page_size") == [(octets,)]
    tear(tmp_path, 1, octets)
    check_and_mend(tmp_path)
    all_is_somewhere(tmp_path, sent, len(sent))
    assert sql(tmp_path, "PRAGMA page_size") == [(PAGE_OCTETS,)]


@pytest.mark.parametrize("junk", [b"\0", b"\x0a", b"\x0d\0\0\0\1"])
def test_what_stands_in_the_first_page_instead_leads_nobody_astray(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, junk: bytes
) -> None:
    monkeypatch.setattr(database, "PAGE_OCTETS", 4096)
    sent = many(tmp_path, 30)
    monkeypatch.undo()
    with (tmp_path / "spool.db").open("r+b") as file:
        file.write((junk * 4096)[:4096])
    check_and_mend(tmp_path)
    all_is_somewhere(tmp_path, sent, len(sent))


def test_a_spool_of_the_first_schema_is_saved_too_where_its_first_page_is_gone(
    tmp_path: Path,
) -> None:
    with closing(sqlite3.connect(tmp_path / "spool.db")) as db:
        db.execute("PRAGMA page_size = 4096")
        db.executescript(VERSION_1)
    (tmp_path / "content").mkdir()
    (tmp_path / "content" / "00HbXm5a4yEIkcZ").write_bytes(LARGE)
    tear(tmp_path, 1, 4096)
    check_spool(tmp_path, repair=True)
    assert {id: len(entry.recipients) for id, (entry, _) in left(tmp_path).items()} == {
        "00HbXm5a4uDoYxU": 1,
        "00HbXm5a4yEIkcZ": 1,
    }


@pytest.mark.parametrize("octets", [4096, 8192])
def test_where_the_first_page_is_gone_and_a_log_was_left_both_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, octets: int
) -> None:
    monkeypatch.setattr(database, "PAGE_OCTETS", octets)
    before, killed = tmp_path / "before", tmp_path / "killed"
    sent = many(before)
    monkeypatch.setattr(database, "CHECKPOINT_PAGES", 1_000_000)

    async def add() -> str:
        async with SQLiteSpool.open(before) as spool:
            async with spool.receive() as incoming:
                await incoming.write(SMALL)
                owed = [Rcpt("a@far.example"), Rcpt("b@far.example")]
                await incoming.commit(Mail("ann@our.dom"), owed, now=0.0)
            shutil.copytree(before, killed)
        return incoming.id

    sent[anyio.run(add)] = SMALL
    assert (killed / "spool.db-wal").stat().st_size
    tear(killed, 1, octets)
    monkeypatch.undo()
    check_spool(killed, repair=True)
    all_is_somewhere(killed, sent, len(sent))


def schema(path: Path, old: bytes, new: bytes) -> None:
    """Change what the first page says of the tables, or itself."""
    octets = bytearray((path / "spool.db").read_bytes())
    first = bytes(octets[:PAGE_OCTETS])
    assert first.count(old) >= 1
    octets[:PAGE_OCTETS] = first.replace(old, new)
    (path / "spool.db").write_bytes(octets)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"content BLOB", b"cnntent BLOB"),
        (b"due REAL", b"dve REAL"),
        (b"last_reply TEXT", b"last_rfply TEXT"),
        (b"rcpt BLOB", b"\xf2cpt BLOB"),
        (b"CREATE TABLE message", b"CREATE \xd4ABLE message"),
        (b"CREATE TABLE recipient", b"CREATE TABME recipient"),
        (b"\x00\x00\x00\x04", b"\x00\x00\x00\x44"),  # the format of the schema
    ],
)
def test_where_the_schema_is_damaged_another_is_lent(
    tmp_path: Path, old: bytes, new: bytes
) -> None:
    sent = many(tmp_path)
    schema(tmp_path, old, new)
    check_and_mend(tmp_path)
    all_is_somewhere(tmp_path, sent, len(sent))


@pytest.mark.parametrize("octets", [b"", b"this is no database" * 1000, None])
def test_where_the_database_is_none_its_files_are_kept(
    tmp_path: Path, octets: bytes | None
) -> None:
    """And a server does not take it for a new spool, in which they would be orphans."""
    (id,) = filled(tmp_path, LARGE)
    database = tmp_path / "spool.db"
    if octets is None:
        database.unlink()
    else:
        database.write_bytes(octets)
    with pytest.raises(SpoolUnavailable, match="queue check"):
        left(tmp_path)
    assert (tmp_path / "content" / id).read_bytes() == LARGE
    check_and_mend(tmp_path)
    assert quarantined(tmp_path)[f"{id}.eml"] == LARGE
    assert ("spool.db" in quarantined(tmp_path)) == (octets is not None)
    assert left(tmp_path) == {}
    sound(tmp_path, 0)


class Stopped(BaseException):
    """The power is cut."""


@pytest.mark.parametrize("at", range(8))
def test_a_repair_that_is_broken_off_is_taken_up_again(tmp_path: Path, at: int) -> None:
    """A server does not touch what is half mended."""
    sent = many(tmp_path)
    tear(tmp_path, 1)

    class Stopping(Disk):
        left = at

        def sync_directory(self, path: Path) -> None:
            super().sync_directory(path)
            if not self.left:
                raise Stopped
            self.left -= 1

    try:
        check_spool(tmp_path, repair=True, disk=Stopping())
    except Stopped:
        if (tmp_path / MENDED).exists():
            with pytest.raises(SpoolUnavailable, match="repair was broken off"):
                left(tmp_path)
            assert [f.problem for f in check_spool(tmp_path).findings] == [
                "a repair was broken off"
            ]
    check_spool(tmp_path, repair=True)
    all_is_somewhere(tmp_path, sent, len(sent))
    assert {file.name for file in tmp_path.iterdir()} <= {
        *("spool.db", "spool.db-wal", "spool.db-shm", "content", "quarantine", "lock")
    }


# Beside a node


@pytest.mark.anyio
async def test_a_spool_that_is_served_can_be_looked_at_and_not_mended(tmp_path: Path) -> None:
    async with SQLiteSpool.open(tmp_path) as spool, spool.receive() as incoming:
        await incoming.write(LARGE)  # and so there is a file that has no row yet
        assert await anyio.to_thread.run_sync(check_spool, tmp_path) == Checked(0, True, ())
        with pytest.raises(SpoolUnavailable, match="another process serves"):
            check_spool(tmp_path, repair=True)


@pytest.mark.parametrize("repair", [False, True])
def test_where_no_spool_is_none_is_made(tmp_path: Path, repair: bool) -> None:
    with pytest.raises(SpoolUnavailable, match="no spool"):
        check_spool(tmp_path / "nowhere", repair=repair)
    assert not list(tmp_path.iterdir())
