"""A damaged spool database: what can be read of it, into a new one.

SQLite stops at the first page that makes no sense. So rows are read from both ends towards the
damage, and what lies between by halves, until what cannot be read is single rows. Where the first
page is gone, which says where everything else is, that of a new spool is lent: they are alike.

The new database takes the old one's place in steps that may be broken off anywhere and be taken
again, and the old one is kept in `quarantine`.
"""

from __future__ import annotations

import shutil
import sqlite3
import struct
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from .database import PAGE_OCTETS, connect, is_code
from .disk import Disk
from .schema import migrate
from .seam import SpoolUnavailable

__all__ = ["MENDED", "finish", "keep_file", "rebuild", "until_damage"]

#: Complete, and about to take the place of `spool.db`.
MENDED = "spool.db.mended"
_PARTIAL = "spool.db.partial"
_LENT = "spool.db.lent"
_LOGS = ("-wal", "-shm", "-journal")

#: So many times may a range of rows be unreadable before the rest is given up.
_PATIENCE = 100_000


#: SQLite's result codes for what cannot be read; the last one where the schema says what is none.
_DAMAGE = (
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_ERROR,
)


@contextmanager
def until_damage() -> Generator[Callable[[], bool], None, None]:
    """End the block where the database cannot be read; what is given tells whether it was whole."""
    whole = True
    try:
        yield lambda: whole
    except sqlite3.DatabaseError as error:
        if not any(is_code(error, code) for code in _DAMAGE):
            raise
        whole = False
    except UnicodeDecodeError:  # a name in the schema, which SQLite would have said
        whole = False


def rebuild(directory: Path, disk: Disk) -> tuple[int, list[tuple[str, int]]]:
    """Make `MENDED` of what can be read of the database.

    Returns how many messages that are, and which recipients of theirs, by id and number, are known
    to be lost.
    """
    lost: list[tuple[str, int]] = []
    _remove(directory / _PARTIAL, disk)
    with closing(connect(directory / _PARTIAL, create=True, busy_timeout=0)) as new:
        migrate(new, may_change=True)
        # Until it is complete nobody depends on it, and so large a transaction would double it.
        new.execute("PRAGMA journal_mode = OFF")
        new.execute("PRAGMA synchronous = OFF")
        for old in _readable(directory, disk):
            with closing(old):
                new.execute("BEGIN")
                _copy_messages(old, new)
                _copy_recipients(old, new)
                _copy_parked(old, new)
                new.execute("COMMIT")
                lost = _lost_recipients(old, new)
        (messages,) = new.execute("SELECT count(*) FROM message").fetchone()
        new.execute("PRAGMA journal_mode = WAL")
    _remove(directory / _LENT, disk)
    disk.sync_file(directory / _PARTIAL)
    disk.rename(directory / _PARTIAL, directory / MENDED)
    disk.sync_directory(directory)
    return int(messages), lost


def finish(directory: Path, disk: Disk) -> None:
    """Let `MENDED` take the database's place, and keep the old one in `quarantine`."""
    for suffix in ("", "-wal"):
        old = directory / f"spool.db{suffix}"
        if old.exists():
            keep_file(old, directory / "quarantine" / old.name, disk)
    # The old log would be taken for the new database's.
    for suffix in _LOGS:
        disk.remove(directory / f"spool.db{suffix}")
    disk.sync_directory(directory)
    disk.rename(directory / MENDED, directory / "spool.db")
    disk.sync_directory(directory)


def keep_file(file: Path, kept: Path, disk: Disk) -> Path:
    """Have a file under another name, too, in the same file system, durably; return that.

    A name that is taken by another file gets a number behind it.
    """
    disk.make_directory(kept.parent)
    names = (kept.with_name(f"{kept.name}.{n}" if n else kept.name) for n in range(10_000))
    for name in names:
        if name.exists():
            if name.samefile(file):
                return name
            continue
        disk.link(file, name)
        disk.sync_directory(name.parent)
        return name
    raise FileExistsError(f"{kept}: too many of that name")


def _remove(path: Path, disk: Disk) -> None:
    for suffix in ("", *_LOGS):
        disk.remove(path.with_name(path.name + suffix))


def _readable(directory: Path, disk: Disk) -> Iterator[sqlite3.Connection]:
    """Give the database as it is, and if that is none, as it is with a first page that is lent."""
    database = directory / "spool.db"
    if not database.exists():
        return
    db = _opened(database)
    legible = False
    with until_damage():
        for query in (_MESSAGES, _RECIPIENTS):
            db.execute(f"{query} LIMIT 0")
        legible = True
    if legible:
        yield db
        return
    db.close()
    _lend_first_page(directory, disk)
    yield _opened(directory / _LENT)


def _opened(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)
    db.text_factory = _legible
    return db


def _legible(octets: bytes) -> str:
    """Read text from the database, where not all of it need be text any more."""
    return octets.decode("utf-8", "replace")


def _lend_first_page(directory: Path, disk: Disk) -> None:
    """Make a copy that begins as a new spool does (https://sqlite.org/fileformat2.html).

    But for what later versions of the schema added: where that is, nobody can tell.
    """
    lent = directory / _LENT
    _remove(lent, disk)
    size = _page_octets(directory / "spool.db")
    with closing(connect(lent, create=True, busy_timeout=0, page=size)) as new:
        migrate(new, may_change=True)
        added = (
            "SELECT type, name FROM sqlite_master WHERE tbl_name NOT IN ('message', 'recipient')"
            " AND sql IS NOT NULL OR type = 'trigger' ORDER BY type = 'table'"
        )
        for kind, name in new.execute(added).fetchall():
            new.execute(f"DROP {kind} {name}")
    first = bytearray(lent.read_bytes()[:size])
    _remove(lent, disk)
    shutil.copyfile(directory / "spool.db", lent)
    if (directory / "spool.db-wal").exists():
        shutil.copyfile(directory / "spool.db-wal", lent.with_name(f"{_LENT}-wal"))
    pages = lent.stat().st_size // size
    first[28:32] = pages.to_bytes(4, "big")
    first[32:40] = bytes(8)  # no free pages
    first[92:96] = first[24:28]  # so that the number of pages counts
    with lent.open("r+b") as file:
        file.write(first)


def _page_octets(database: Path) -> int:
    """Find out how many octets a page has, where the first one does not tell.

    The log says so; and the tables and indexes of the first schema begin in pages 2 to 5.
    """
    log = database.with_name(f"{database.name}-wal")
    if log.exists():
        with log.open("rb") as file:
            magic, _, said = struct.unpack(">III", file.read(12).ljust(12, b"\0"))
        if magic in _WAL and said in _PAGES:
            return int(said)
    with database.open("rb") as file:

        def roots(size: int) -> int:
            """Count those that are where they should be in pages of this size."""
            found = 0
            for number, kinds in _ROOTS.items():
                file.seek((number - 1) * size)
                header = file.read(8)
                if len(header) == 8:
                    kind, free, cells, content, _ = struct.unpack(">BHHHB", header)
                    begin = 8 + 2 * cells
                    found += kind in kinds and free < size and begin <= (content or 65536) <= size
            return found

        return max(_PAGES, key=roots)  # the first of equals


#: How SQLite's log begins.
_WAL = (0x377F0682, 0x377F0683)
#: Octets that a page may have: ours, then SQLite's own, then any that the first page fits into.
_PAGES = (PAGE_OCTETS, 4096, 16384, 32768, 65536)
#: What stands first in pages of a table, and in those of an index, or a table without rowid.
_TABLE, _INDEX = (5, 13), (2, 10)
#: The pages in which message, its index, recipient and recipient_due begin.
_ROOTS = {2: _TABLE, 3: _INDEX, 4: _INDEX, 5: _INDEX}

_MESSAGES = "SELECT rowid, * FROM message"
_RECIPIENTS = "SELECT * FROM recipient"
#: What the columns have that later versions of the schema added behind those of version 1.
_ADDED = (0, None, None)
_NO_CHECKSUM = (None,)


def _copy_messages(old: sqlite3.Connection, new: sqlite3.Connection) -> None:
    def copy(where: str, *arguments: int) -> tuple[bool, int]:
        """Copy until there are no more, or until damage; return which, and the last number."""
        last = 0
        with until_damage() as whole:
            for number, *row in old.execute(f"{_MESSAGES} {where}", arguments):
                _insert(new, "message", (*row, *_NO_CHECKSUM[len(row) - 6 :]))
                last = number
        return whole(), last

    whole, last = copy("ORDER BY rowid")
    if whole:
        return
    _, first = copy("WHERE rowid > ? ORDER BY rowid DESC", last)
    between = [(last + 1, (first or _highest_named(old) + 1) - 1)]
    for _ in range(_PATIENCE):
        if not between:
            return
        low, high = between.pop()
        if low <= high and not copy("WHERE rowid BETWEEN ? AND ?", low, high)[0] and low < high:
            middle = (low + high) // 2
            between += [(middle + 1, high), (low, middle)]


def _highest_named(old: sqlite3.Connection) -> int:
    """Return the highest number that the index of ids still names, 0 for none."""
    by_id = "SELECT rowid FROM message ORDER BY id"  # both are in the index
    highest = 0
    for query in (by_id, f"{by_id} DESC"):
        with until_damage():
            for (number,) in old.execute(query):
                highest = max(highest, number)
    return highest


def _copy_recipients(old: sqlite3.Connection, new: sqlite3.Connection) -> None:
    def copy(where: str, *arguments: str | int) -> None:
        with until_damage():
            for row in old.execute(f"{_RECIPIENTS} {where}", arguments):
                _insert(new, "recipient", (*row, *_ADDED[len(row) - 7 :]))

    copy("ORDER BY message, number")
    copy("ORDER BY message DESC, number DESC")
    left = new.execute(
        "SELECT id FROM message WHERE NOT EXISTS (SELECT 1 FROM recipient WHERE message = id)"
    ).fetchall()
    for (id,) in left:
        copy("WHERE message = ?", id)
    for named in _lost_recipients(old, new):
        copy("WHERE message = ? AND number = ?", *named)


def _copy_parked(old: sqlite3.Connection, new: sqlite3.Connection) -> None:
    """Copy whose messages are to be sent later; without it they are not counted, and still wait."""
    with suppress(sqlite3.OperationalError), until_damage():  # or of an older schema
        for row in old.execute("SELECT message, owner, until, octets FROM parked"):
            if new.execute("SELECT 1 FROM message WHERE id = ?", row[:1]).fetchone():
                _insert(new, "parked", row)


def _lost_recipients(old: sqlite3.Connection, new: sqlite3.Connection) -> list[tuple[str, int]]:
    """Find those that an index still names, of messages that we have."""
    lost: set[tuple[str, int]] = set()
    by_due = "SELECT message, number FROM recipient INDEXED BY recipient_due ORDER BY due"
    for query in (by_due, f"{by_due} DESC"):
        with until_damage():
            for named in old.execute(query):
                (is_lost,) = new.execute(
                    "SELECT EXISTS (SELECT 1 FROM message WHERE id = ?1) AND NOT EXISTS"
                    " (SELECT 1 FROM recipient WHERE message = ?1 AND number = ?2)",
                    named,
                ).fetchone()
                if is_lost:
                    lost.add(named)
    return sorted(lost)


def _insert(new: sqlite3.Connection, table: str, row: Sequence[object]) -> None:
    marks = ", ".join("?" * len(row))
    try:
        new.execute(f"INSERT INTO {table} VALUES ({marks})", row)  # noqa: S608 - a name of ours
    except sqlite3.IntegrityError:
        pass  # it is there already, or no row of ours
    except sqlite3.Error as error:  # this one is not damaged
        raise SpoolUnavailable(f"the new database: {error}") from error
