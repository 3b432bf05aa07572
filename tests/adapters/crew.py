"""Servers that workers make: what they are called says which process they are in."""

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from smtpproto import Envelope, Mail, Rcpt, Reply
from smtpproto.certificates import Certificates, KeyPair
from smtpproto.server import ContentStream, Server, ServerDeadlines, Session


class Hand:
    """Takes all mail, dies when `die@…` sends some, and hears nothing any more for `hang@…`.

    That it hangs is told by a file, as nobody can ask it.
    """

    def __init__(self, hung: Path | None = None) -> None:
        self.hung = hung

    async def mail(self, session: Session, command: Mail) -> Reply | None:
        sender = str(command.reverse_path)
        if "die@" in sender:
            os._exit(3)
        if self.hung is not None and "hang@" in sender:
            self.hung.touch()
            time.sleep(600)  # noqa: ASYNC251 - the point
        return None

    async def rcpt(self, session: Session, command: Rcpt) -> Reply | None:
        return None

    async def content(
        self, session: Session, envelope: Envelope, content: ContentStream
    ) -> Reply | None:
        async for _ in content:
            pass
        return None


def plain(drain: float = 30, hung: Path | None = None) -> Server:
    deadlines = ServerDeadlines(drain=drain, cut=0.1)
    return Server(Hand(hung), f"w{os.getpid()}.example", deadlines=deadlines)


def with_tls(cert: str, key: str) -> Server:
    return Server(Hand(), f"w{os.getpid()}.example", tls=Certificates(KeyPair(cert, key)))


def fails() -> Server:
    raise SystemExit(7)


def fails_after(file: Path, good: int) -> Server:
    """Write down that it starts; fail from the start on that is behind so many good ones."""
    with file.open("a") as starts:
        starts.write(f"{os.getpid()}\n")
    if len(file.read_text().splitlines()) > good:
        raise SystemExit(7)
    return plain()


def fails_when_told(starts: Path, told: Path) -> Server:
    """Write down that it starts; fail the second time, once the other file is there."""
    with starts.open("a") as file:
        file.write(f"{os.getpid()}\n")
    if len(starts.read_text().splitlines()) == 2:
        while not told.exists():
            time.sleep(0.01)
        raise SystemExit(7)
    return plain()


@asynccontextmanager
async def in_a_context(folder: Path) -> AsyncIterator[Server]:
    file = folder / str(os.getpid())
    file.write_text("open")
    try:
        yield plain()
    finally:
        file.write_text("closed")
