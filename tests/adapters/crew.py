"""Servers that workers make: what they are called says which process they are in."""

import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from anyio.abc import TaskStatus

from smtpproto import Envelope, Mail, Rcpt, Reply, worker
from smtpproto.certificates import Certificates, KeyPair
from smtpproto.server import At, ContentStream, Server, ServerDeadlines, Session
from smtpproto.worker import Bound


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


def plain(number: int, drain: float = 30, hung: Path | None = None) -> Server:
    assert number in range(8)
    deadlines = ServerDeadlines(drain=drain, cut=0.1)
    return Server(Hand(hung), f"w{os.getpid()}.example", deadlines=deadlines)


def with_tls(cert: str, key: str, number: int) -> Server:
    return Server(Hand(), f"w{os.getpid()}.example", tls=Certificates(KeyPair(cert, key)))


def fails(number: int) -> Server:
    raise SystemExit(7)


def fails_after(file: Path, good: int, number: int) -> Server:
    """Write down that it starts; fail from the start on that is behind so many good ones."""
    with file.open("a") as starts:
        starts.write(f"{os.getpid()}\n")
    if len(file.read_text().splitlines()) > good:
        raise SystemExit(7)
    return plain(number)


def fails_when_told(starts: Path, told: Path, number: int) -> Server:
    """Write down that it starts; fail the second time, once the other file is there."""
    with starts.open("a") as file:
        file.write(f"{os.getpid()}\n")
    if len(starts.read_text().splitlines()) == 2:
        while not told.exists():
            time.sleep(0.01)
        raise SystemExit(7)
    return plain(number)


class Answering:
    """No server at all: it waits, and says who it is and at how many places it would listen."""

    patience = 1.0

    def __init__(self, number: int) -> None:
        self.number = number
        self.places: Sequence[At] = ()
        self.stopping = anyio.Event()

    async def serve_at(self, places: Sequence[At], *, task_status: TaskStatus[Bound]) -> None:
        self.places = places
        task_status.started([])
        await self.stopping.wait()

    def stop(self) -> None:
        self.stopping.set()

    async def reload(self) -> None:
        raise AssertionError("nobody asks for it")

    async def answer(self, question: str) -> tuple[int, str, int]:
        if question == "for ever?":
            await anyio.sleep_forever()
        if question != "who?":
            raise LookupError(question)
        return self.number, question, len(self.places)


answers = Answering


def answers_soon(number: int) -> Answering:
    """Make one of a process that has a tenth of a second for an answer."""
    worker.ANSWER = 0.1
    return Answering(number)


@asynccontextmanager
async def in_a_context(folder: Path, number: int) -> AsyncIterator[Server]:
    file = folder / str(os.getpid())
    file.write_text("open")
    try:
        yield plain(number)
    finally:
        file.write_text("closed")
