"""A relay with messages that wait already, put there by short cuts that it may not take itself."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from pathlib import Path

from nodes import Start
from processes import BenchmarkError
from relay_loads import Load, send
from shared import content

from smtpproto.core.command import Mail, Rcpt
from smtpproto.relay.spool.seam import new_id

__all__ = ["fill_postfix", "fill_smtpproto"]

DAY = 86400
OCTETS = 4096
NEXT_HOP_DOWN = 9  # nobody listens at discard


def fill_smtpproto(start: Start, directory: Path, number: int) -> None:
    """Put so many messages into its spools, due tomorrow."""
    with start(directory, NEXT_HOP_DOWN):
        pass  # it makes them
    spools = [*(directory / "data").glob("spool*/spool.db")]
    for path in spools:
        _fill(path, number // len(spools))


def _fill(path: Path, number: int) -> None:
    now = time.time() - number
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA synchronous = OFF")
    db.execute("BEGIN")
    mail, octets = Mail("ann@example.org").serialize(), content(OCTETS)
    ids = [new_id(now + n, n) for n in range(number)]
    db.executemany(
        "INSERT INTO message (id, arrived, mail, origin, octets, content)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        ((id, now + n, mail, "benchmark", len(octets), octets) for n, id in enumerate(ids)),
    )
    due = now + number + DAY
    db.executemany(
        "INSERT INTO recipient (message, number, rcpt, attempts, next_attempt, due)"
        " VALUES (?, 0, ?, 1, ?, ?)",
        ((id, Rcpt(f"b@{n % 1000}.example").serialize(), due, due) for n, id in enumerate(ids)),
    )
    db.execute("COMMIT")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()


def fill_postfix(start: Start, directory: Path, number: int) -> None:
    """Let it defer a message, and copy that."""
    with start(directory, NEXT_HOP_DOWN) as relay:
        send(relay.port, Load("", 1, OCTETS))
        queue = directory / "queue" / "deferred"
        deadline = time.monotonic() + 60
        while not (found := [path for path in queue.glob("*/*") if path.is_file()]):
            if time.monotonic() > deadline:
                raise BenchmarkError("Postfix does not defer a message")
            time.sleep(0.1)
    (model,) = found
    octets, stat, tomorrow = model.read_bytes(), model.stat(), time.time() + DAY
    os.utime(model, (tomorrow, tomorrow))  # it is one of them, and not to come in between
    for n in range(number):
        name = f"{n:010X}"[::-1]  # so that it is spread over the directories, by the first digit
        path = queue / name[0] / name
        if not n < 16 or not path.parent.exists():
            path.parent.mkdir(mode=0o700, exist_ok=True)
            shutil.chown(path.parent, stat.st_uid, stat.st_gid)
        path.write_bytes(octets)
        path.chmod(0o700)
        os.chown(path, stat.st_uid, stat.st_gid)
        os.utime(path, (tomorrow, tomorrow))  # which is when it is tried
