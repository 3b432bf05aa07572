"""The server that `soak.py` torments: backend, most connections, and a directory for its key.

It prints its port, and for each line that it is sent, what it has by then.
"""

from __future__ import annotations

import ctypes
import gc
import json
import logging
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Literal, cast

import anyio
from anyio import from_thread

from smtpproto import Envelope, Limits, Mail, Rcpt, Reply
from smtpproto.certificates import Certificates, KeyPair
from smtpproto.cli.node import ensure_certificate
from smtpproto.core.sasl import Verify
from smtpproto.server import Connections, ContentStream, Server, ServerDeadlines, Session

QUICK = ServerDeadlines(
    tls=5, command=2, block=2, rate=1000, grace=2, write=5, linger=0.5, handler=0.5, session=20
)
HURRIED = ServerDeadlines(command=1, block=1, grace=1)


class Capricious:
    """Refuses, raises and dawdles by the names in an address."""

    def __init__(self) -> None:
        self.messages = 0

    async def mail(self, session: Session, command: Mail) -> Reply | None:
        return await self.judge(str(command.reverse_path))

    async def rcpt(self, session: Session, command: Rcpt) -> Reply | None:
        return await self.judge(str(command.forward_path))

    async def judge(self, path: str) -> Reply | None:
        match path.lstrip("<").partition("@")[0]:
            case "raise":
                raise AskedForError("asked for")
            case "no":
                return Reply(550, "5.1.1", "No such mailbox")
            case "later" | "busy":
                return Reply(451, "4.2.1", "Not now")
            case "slow":
                await anyio.sleep(0.02 if self.messages % 10 else 2)
        return None

    async def content(
        self, session: Session, envelope: Envelope, content: ContentStream
    ) -> Reply | None:
        async for _ in content:
            pass
        self.messages += 1
        if not self.messages % 20:
            raise AskedForError("asked for")
        return None

    async def verify(self, session: Session, question: Verify) -> bool:
        return False


class AskedForError(Exception):
    """What a handler raises on purpose."""


class Unexpected(logging.Handler):
    """Counts and shows errors that nobody asked for."""

    number = 0

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, AskedForError) or "took longer than" in record.getMessage():
            return
        self.number += 1
        print(logging.Formatter().format(record), file=sys.stderr)


async def main(most: int, directory: Path) -> None:
    unexpected = Unexpected()
    logging.getLogger().addHandler(unexpected)
    made = ensure_certificate(directory)
    handler = Capricious()
    server = Server(
        handler,
        tls=Certificates(KeyPair(made.cert, made.key)),
        authenticator=handler,
        plaintext_auth="always",
        limits=Limits(message=100_000, bad_commands=10),
        connections=Connections(most, None),
        deadlines=QUICK,
        under_pressure=HURRIED,
        error_delay=0.05,
        max_quick_errors=5,
        failed_login_delay=0.05,
    )

    def count() -> dict[str, int]:
        gc.collect()
        with suppress(AttributeError, OSError):  # glibc has it
            ctypes.CDLL(None).malloc_trim(0)  # what is free is no growth
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return {
            "octets": pages * os.sysconf("SC_PAGE_SIZE"),
            "objects": len(gc.get_objects()),
            "tasks": len(anyio.get_running_tasks()),
            "files": len(os.listdir("/proc/self/fd")),
            "sessions": len(server.dialogues) + len(server.connections),
            "messages": handler.messages,
            "unexpected": unexpected.number,
        }

    async with anyio.create_task_group() as tasks:
        _, port = await tasks.start(server.serve, "127.0.0.1")
        print(port, flush=True)

        def answer() -> None:
            for _ in sys.stdin:
                print(json.dumps(from_thread.run_sync(count)), flush=True)

        await anyio.to_thread.run_sync(answer)
        tasks.cancel_scope.cancel()


if __name__ == "__main__":
    loop = cast(Literal["asyncio", "trio"], sys.argv[1])
    anyio.run(main, int(sys.argv[2]), Path(sys.argv[3]), backend=loop)
