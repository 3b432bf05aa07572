"""Mailboxes shared with Dovecot: who counts what, and mail handed to it by LMTP."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import anyio
import pytest

from smtpproto import Envelope, Mailbox
from smtpproto.client import Client, UnixConnector
from smtpproto.maildir import MailboxUnavailable
from smtpproto.relay.mailboxes.mailbox import Maildir
from smtpproto.relay.mailboxes.quota import Quota, quotas
from smtpproto.result import Fate

from .programs import HOST, Dovecot, dovecot

pytestmark = [pytest.mark.anyio, pytest.mark.peer("dovecot")]

T = TypeVar("T")

ANN = Mailbox("ann", "our.dom")
USER = "ann@our.dom"
MESSAGE = b"From: bob@ext.example\r\nSubject: hello\r\n\r\nwords\r\n"


async def in_thread(work: Callable[[], T]) -> T:
    return await anyio.to_thread.run_sync(work)


class Shared:
    """One root of Maildirs: ours to deliver into, Dovecot's to read and to sort."""

    def __init__(self, root: Path, quota: Quota) -> None:
        self.home = root / "our.dom" / "ann"
        numbers = itertools.count()
        self.maildir = Maildir(
            root,
            hostname="mx.our.dom",
            now=time.time,
            random_bytes=lambda size: next(numbers).to_bytes(size, "big"),
            quota=quotas(quota),
            folders=True,
        )

    async def deliver(self, octets: int, mailbox: Mailbox = ANN) -> str:
        """Deliver so many octets, as they are on disk; return the reply if it is refused."""
        head = b"Subject: x\r\n\r\n"
        text = head + b"x" * (octets - len(head) + 2)

        async def chunks() -> AsyncIterator[bytes]:
            yield text

        try:
            await self.maildir.deliver(mailbox, chunks())
        except MailboxUnavailable as error:
            return f"{error.reply.code} {error.reply.status}"
        return ""

    def counted(self) -> tuple[int, int]:
        """The sum in the file."""
        _, *lines = (self.home / "maildirsize").read_text().splitlines()
        changes = [tuple(map(int, line.split())) for line in lines]
        return sum(change[0] for change in changes), sum(change[1] for change in changes)


@pytest.fixture
def shared(tmp_path: Path, peers: contextlib.ExitStack) -> tuple[Shared, Dovecot]:
    # Dovecot as nobody has a right to all files, but a way to them it needs as well.
    root = tmp_path / "mail"
    server = peers.enter_context(
        dovecot(f"{root}/%d/%n", quota="bytes=8192:messages=10", users=[USER])
    )
    return Shared(root, Quota(8192, 10)), server


async def test_dovecot_sees_what_we_count_and_we_see_what_it_counts(
    shared: tuple[Shared, Dovecot],
) -> None:
    ours, server = shared
    assert await ours.deliver(2048) == ""
    assert await ours.deliver(1024) == ""
    file = ours.home / "maildirsize"
    before = await anyio.Path(file).read_bytes()
    assert before == b"8192S,10C\n0 0\n2048 1\n1024 1\n"
    assert await in_thread(lambda: server.usage(USER)) == {"STORAGE": (3, 8), "MESSAGE": (2, 10)}
    assert await anyio.Path(file).read_bytes() == before  # it took our word

    def append_and_remove() -> None:
        with server.login(USER) as session:
            session.append("INBOX", "", "", b"Subject: theirs\r\n\r\n" + b"y" * 2000 + b"\r\n")
            session.create("shop")
            session.select("INBOX")
            session.copy("1", "shop")
            session.store("2", "+FLAGS", "\\Deleted")
            session.expunge()

    await in_thread(append_and_remove)
    assert (await anyio.Path(file).read_bytes()).startswith(before)  # it went on where we stood
    used = await in_thread(ours.counted)
    assert used[1] == 3
    octets = sum(path.stat().st_size for path in _messages(ours.home))
    assert used[0] == octets
    assert await ours.deliver(8192 - octets + 1) == "452 4.2.2"
    left = 8192 - octets - len("Delivered-To: ann+shop@our.dom\n")
    assert await ours.deliver(left, Mailbox("ann+shop", "our.dom")) == ""
    assert await ours.maildir.is_full(ANN)
    usage = await in_thread(lambda: server.usage(USER))
    assert usage == {"STORAGE": (8, 8), "MESSAGE": (4, 10)}
    folder = await in_thread(lambda: len(_messages(ours.home / ".shop")))
    assert folder == 2


def _messages(home: Path) -> list[Path]:
    return [
        file
        for file in home.rglob("*")
        if file.parent.name in {"new", "cur"} and not file.name.startswith(".")
    ]


async def test_each_makes_the_file_anew_as_the_other_would(shared: tuple[Shared, Dovecot]) -> None:
    ours, server = shared

    def fill() -> None:
        with server.login(USER) as session:
            for name in ("Trash", "one", "one.two"):
                session.create(name)
                session.append(name, "", "", b"Subject: x\r\n\r\n" + b"y" * 500 + b"\r\n")

    await in_thread(fill)
    assert await ours.deliver(700) == ""
    file = ours.home / "maildirsize"
    file.unlink()
    await in_thread(lambda: server.usage(USER))
    theirs = await in_thread(ours.counted)
    file.unlink()
    assert await ours.deliver(14) == ""
    octets, count = await in_thread(ours.counted)
    assert (octets - 14, count - 1) == theirs
    assert count == 4  # what is in Trash counts for neither


# By LMTP

USERS = ["ann@our.dom", "bob@our.dom"]


@contextlib.contextmanager
def mail_store(directory: Path, settings: str = "") -> Iterator[Dovecot]:
    """Dovecot with mailboxes for ann and bob, of 4 KiB each, and nobody else; bob's is full."""
    bob = directory / "our.dom" / "bob"
    for name in ("tmp", "new", "cur"):
        (bob / name).mkdir(parents=True)
    (bob / "new" / "1.large").write_bytes(b"a: b\n\n" + b"x" * 5000)
    location = f"{directory}/%d/%n"
    with dovecot(location, lmtp=True, users=USERS, quota="bytes=4096", settings=settings) as server:
        yield server


def client(store: Dovecot, place: str) -> Client:
    if place == "tcp":
        return Client(HOST, store.lmtp_port, tls="none", lmtp=True)
    connector = UnixConnector(store.lmtp_socket)
    return Client("localhost", tls="none", lmtp=True, connector=connector)


@pytest.mark.rfc("2033 §4.2 final-dot-has-a-reply-for-each-recipient")
@pytest.mark.parametrize(
    "over_quota",
    [
        # Behind the content it says no for good; asked to look at RCPT already, no for now.
        ("", Fate.PERMANENT, "552 5.2.2"),
        ("lmtp_rcpt_check_quota = yes\nquota_full_tempfail = yes\n", Fate.TRANSIENT, "452 4.2.2"),
    ],
)
@pytest.mark.parametrize("place", ["tcp", "unix"])
async def test_dovecot_answers_for_each_recipient_by_lmtp(
    tmp_path: Path,
    peers: contextlib.ExitStack,
    place: str,
    over_quota: tuple[str, Fate, str],
) -> None:
    settings, fate, reply = over_quota
    store = peers.enter_context(mail_store(tmp_path, settings))
    async with client(store, place) as session:
        envelope = Envelope("bob@ext.example", ["ann@our.dom", "carol@our.dom", "bob@our.dom"])
        ann, carol, bob = (await session.deliver(envelope, MESSAGE)).outcomes
        assert ann.fate is Fate.ACCEPTED
        assert carol.fate is Fate.PERMANENT
        assert str(carol.reply).startswith("550 5.1.1")
        assert bob.fate is fate
        assert str(bob.reply).startswith(reply)
        # And the session goes on.
        assert await session.deliver(Envelope("bob@ext.example", ["ann@our.dom"]), MESSAGE)
    messages = await in_thread(lambda: {user: store.messages(user) for user in USERS})
    assert [len(messages[user]) for user in USERS] == [2, 1]
    for_both, for_ann = messages["ann@our.dom"]
    assert for_both.endswith(MESSAGE)
    # It tells addresses where we do, and as we do.
    assert for_ann.startswith(b"Return-Path: <bob@ext.example>\r\nDelivered-To: ann@our.dom\r\n")


@pytest.mark.parametrize("place", ["tcp", "unix"])
async def test_for_nobody_nothing_is_sent(
    tmp_path: Path, peers: contextlib.ExitStack, place: str
) -> None:
    store = peers.enter_context(mail_store(tmp_path))
    async with client(store, place) as session:
        envelope = Envelope("bob@ext.example", ["carol@our.dom", "dave@our.dom"])
        result = await session.deliver(envelope, MESSAGE)
        assert [outcome.fate for outcome in result.outcomes] == [Fate.PERMANENT] * 2
        assert await session.deliver(Envelope("bob@ext.example", ["ann@our.dom"]), MESSAGE)
    assert len(await in_thread(lambda: store.messages("ann@our.dom"))) == 1
