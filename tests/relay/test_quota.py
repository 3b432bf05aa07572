"""What a mailbox may hold: counted as Maildir++ does, in a file that may be wrong and mends."""

from __future__ import annotations

import errno
import itertools
import os
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpproto import Mailbox
from smtpproto.maildir import MailboxUnavailable
from smtpproto.relay.mailboxes.mailbox import Maildir, listed_mailboxes
from smtpproto.relay.mailboxes.quota import MaildirSize, Quota, Usage, quotas
from smtpproto.relay.reports.story import Deferred, Delivered, Failed
from tests.relay.world import world

pytestmark = pytest.mark.anyio

ANN = Mailbox("ann", "our.dom")


class Store:
    """A Maildir with a quota for ann, and her files."""

    def __init__(self, root: Path, quota: Quota, **settings: Any) -> None:
        self.home = root / "our.dom" / "ann"
        self.now = 0.0  # so no file is old
        numbers = itertools.count()
        self.maildir = Maildir(
            root,
            hostname="mx.our.dom",
            now=lambda: self.now,
            random_bytes=lambda size: next(numbers).to_bytes(size, "big"),
            quota=quotas(quota),
            **settings,
        )

    @property
    def file(self) -> Path:
        return self.home / "maildirsize"

    @property
    def lines(self) -> list[str]:
        text = self.file.read_text()
        assert text.endswith("\n")
        return text.splitlines()

    async def deliver(self, octets: int, mailbox: Mailbox = ANN) -> str:
        """Deliver so many octets; return "" or what it was refused with."""
        try:
            await self.maildir.deliver(mailbox, chunks(b"x" * octets))
        except MailboxUnavailable as error:
            return f"{error.reply.code} {error.reply.status}"
        return ""

    def put(self, octets: int, place: str = "cur", name: str = "") -> Path:
        """Put a message there past us."""
        directory = self.home / place
        directory.mkdir(parents=True, exist_ok=True)
        file = directory / (name or f"{len(list(directory.iterdir()))}.them,S={octets}:2,S")
        file.write_bytes(b"x" * octets)
        return file

    def messages(self) -> int:
        return len([*self.home.rglob("new/*"), *self.home.rglob("cur/*")])


async def chunks(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


# The file


async def test_limits_stand_above_what_came(tmp_path: Path) -> None:
    store = Store(tmp_path, Quota(1000, 10))
    assert await store.deliver(100) == ""
    assert store.lines == ["1000S,10C", "0 0", "100 1"]
    assert await store.deliver(50) == ""
    assert store.lines == ["1000S,10C", "0 0", "100 1", "50 1"]
    assert store.file.stat().st_mode & 0o77 == 0


@pytest.mark.parametrize(
    ("quota", "first"), [(Quota(500), "500S"), (Quota(0, 7), "7C"), (Quota(500, 7), "500S,7C")]
)
async def test_a_limit_that_is_none_is_not_written(
    tmp_path: Path, quota: Quota, first: str
) -> None:
    store = Store(tmp_path, quota)
    await store.deliver(1)
    assert store.lines[0] == first


async def test_without_a_quota_there_is_no_file_and_one_that_is_there_is_kept(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path, Quota())
    await store.deliver(100)
    assert not store.file.exists()
    store.file.write_text("9S\n5 1\n")
    await store.deliver(100)
    assert store.lines == ["9S", "5 1", "100 1"]


async def test_sizes_are_those_on_disk_with_lf(tmp_path: Path) -> None:
    store = Store(tmp_path, Quota(1000))
    await store.maildir.deliver(ANN, chunks(b"a\r\nb\r\n"))
    assert store.lines[-1] == "4 1"


async def test_others_limits_are_replaced_by_ours(tmp_path: Path) -> None:
    store = Store(tmp_path, Quota(1000))
    store.put(10)
    store.file.write_text("5S,3C\n5 1\n")
    assert await store.deliver(100) == ""
    assert store.lines == ["1000S", "10 1", "100 1"]


@pytest.mark.parametrize("order", ["10C,1000S", "1000S,10C"])
async def test_limits_may_stand_in_any_order(tmp_path: Path, order: str) -> None:
    store = Store(tmp_path, Quota(1000, 10))
    (store.home / "new").mkdir(parents=True)
    store.file.write_text(f"{order}\n500 2\n-100 -1\n")
    assert await store.deliver(100) == ""
    assert store.lines == [order, "500 2", "-100 -1", "100 1"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1000S",
        "1000S\n1 1",
        "1000S\nhello\n",
        "1000S\n1\n",
        "1000S,5X\n1 1\n",
        "1000S\n-5 -1\n",
        "\n",
        "\0\0\n",
        "1000S\n" + "0 0\n" * 1280,
        "1000S\n" + "0 0\n" * 1277 + "0 000\n",  # 5120 octets
        "1000S\n" + "9" * 30 + " 1\n",
    ],
)
async def test_a_file_that_cannot_be_read_or_is_too_long_is_made_anew(
    tmp_path: Path, text: str
) -> None:
    store = Store(tmp_path, Quota(1000))
    store.put(10)
    store.file.write_text(text)
    assert await store.deliver(100) == ""
    assert store.lines == ["1000S", "10 1", "100 1"]


async def test_what_is_counted(tmp_path: Path) -> None:
    """New and cur, of the mailbox and its folders; sizes by name, else by stat; not Trash."""
    store = Store(tmp_path, Quota(10_000))
    store.put(1, "new", "1.a")
    store.put(10, "cur", "2.a,S=10:2,FS")
    store.put(999, "cur", "3.a,S=100,W=120:2,T")  # what the name says counts
    store.put(1000, ".Sub.Folder/cur")
    store.put(2000, ".Trash.kept/new")
    store.put(5, ".Trash/new")
    store.put(5, ".Trash/cur")
    store.put(5, "tmp")
    store.put(5, "cur", ".hidden")
    store.put(5, "other/cur")
    assert await store.deliver(1) == ""
    assert store.lines[1] == "3111 5"


async def test_a_folder_of_another_is_not_ours_to_count(tmp_path: Path) -> None:
    store = Store(tmp_path, Quota(1000))
    store.put(700, "../bob/.Shared/new")
    store.put(10)
    (store.home / ".Shared").symlink_to(tmp_path / "our.dom" / "bob" / ".Shared")
    assert await store.deliver(1) == ""
    assert store.lines[1] == "10 1"


async def test_a_message_that_moves_while_we_count_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path, Quota(1000))
    await store.deliver(1)
    store.file.unlink()
    replace = Path.replace

    def moved(path: Path, target: Path) -> Path:
        store.put(10, "new")
        os.utime(store.home / "new", (1, 1))  # its time may be any other one
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", moved)
        assert await store.deliver(1) == ""
    assert not store.file.exists()
    assert await store.deliver(1) == ""
    assert store.lines == ["1000S", "12 3", "1 1"]


def test_a_file_replaced_between_the_look_and_the_message_counts_for_nothing(
    tmp_path: Path,
) -> None:
    """Whether the new one has the message in it, nobody can tell."""
    store = Store(tmp_path, Quota(1000))
    (store.home / "new").mkdir(parents=True)
    store.file.write_text("1000S\n1 1\n")
    size = MaildirSize(store.home, Quota(1000), now=lambda: 0, unique_name=lambda: "x")
    size.admit(100)
    (tmp_path / "new").write_text("1000S\n100 1\n")
    (tmp_path / "new").replace(store.file)
    size.add(100)
    assert not store.file.exists()


@pytest.mark.parametrize("call", ["write", "half", "fstat"])
async def test_a_line_that_cannot_be_written_costs_the_file_and_not_the_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    store = Store(tmp_path, Quota(1000))
    await store.deliver(1)
    size = MaildirSize(store.home, Quota(1000), now=lambda: 0, unique_name=lambda: "x")
    size.admit(100)

    def fail(*args: Any) -> Any:
        raise OSError(errno.ENOSPC, "full")

    write = os.write
    with monkeypatch.context() as patch:
        if call == "half":
            patch.setattr(os, "write", lambda file, octets: write(file, octets[:2]))
        else:
            patch.setattr(os, call, fail)
        size.add(100)
    assert not store.file.exists()


@pytest.mark.parametrize("call", ["write", "half", "replace"])
async def test_a_file_that_cannot_be_made_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    store = Store(tmp_path, Quota(1000))
    store.put(990)
    (store.home / "tmp").mkdir()
    size = MaildirSize(store.home, Quota(1000), now=lambda: 0, unique_name=lambda: "x")
    write = os.write

    def fail(*args: Any) -> Any:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        if call == "half":
            patch.setattr(os, "write", lambda file, octets: write(file, octets[:2]))
        elif call == "write":
            patch.setattr(os, "write", fail)
        else:
            patch.setattr(Path, "replace", fail)
        size.admit(10)
        size.add(10)
        with pytest.raises(MailboxUnavailable):
            size.admit(11)
    assert not store.file.exists()
    assert list((store.home / "tmp").iterdir()) == []


async def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    store = Store(tmp_path, Quota(1000))
    await store.deliver(1)
    (tmp_path / "theirs").write_text("1000S\n1 1\n")
    store.file.unlink()
    store.file.symlink_to(tmp_path / "theirs")
    await store.deliver(1)
    assert (tmp_path / "theirs").read_text() == "1000S\n1 1\n"
    assert store.lines == ["1000S", "1 1", "1 1"]


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_nothing_stays_open(tmp_path: Path) -> None:
    store = Store(tmp_path, Quota(1000, 3))
    await store.deliver(1)
    before = descriptors()
    for octets in (1, 2000, 999, 1, 1, 1):
        await store.deliver(octets)
        await store.maildir.is_full(ANN)

    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * (1 << 19)
        raise RuntimeError("the spool is gone")

    with pytest.raises(RuntimeError):
        await Store(tmp_path, Quota(1 << 30)).maildir.deliver(ANN, broken())
    assert descriptors() == before


# Refusals


async def test_a_full_mailbox_is_transient_and_a_message_that_never_fits_is_not(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path, Quota(1000))
    assert await store.deliver(1001) == "552 5.2.2"
    assert await store.deliver(600) == ""
    assert await store.deliver(401) == "452 4.2.2"
    assert await store.deliver(1001) == "552 5.2.2"
    assert await store.deliver(400) == ""
    assert await store.deliver(1) == "452 4.2.2"
    assert store.messages() == 2
    assert list((store.home / "tmp").iterdir()) == []


async def test_messages_are_counted_too(tmp_path: Path) -> None:
    store = Store(tmp_path, Quota(0, 2))
    assert [await store.deliver(0) for _ in range(3)] == ["", "", "452 4.2.2"]
    assert await store.maildir.is_full(ANN)


async def test_what_is_too_large_is_found_before_all_of_it_is_there(tmp_path: Path) -> None:
    store = Store(tmp_path, Quota(1 << 20))
    given = 0

    async def much() -> AsyncIterator[bytes]:
        nonlocal given
        while given < 100 << 20:
            given += 1 << 18
            yield b"x" * (1 << 18)

    with pytest.raises(MailboxUnavailable) as caught:
        await store.maildir.deliver(ANN, much())
    assert str(caught.value).startswith("552 5.2.2")
    assert given <= 2 << 20
    assert list((store.home / "tmp").iterdir()) == []


async def test_who_makes_room_past_us_has_it_at_once_or_in_15_minutes(tmp_path: Path) -> None:
    store = Store(tmp_path, Quota(1000))
    there = store.put(900)
    assert await store.deliver(100) == ""
    there.unlink()
    assert await store.deliver(800) == ""  # two lines: worth another look
    assert store.lines == ["1000S", "100 1", "800 1"]
    (file,) = (path for path in (store.home / "new").iterdir() if path.stat().st_size == 800)
    store.file.write_text("1000S\n900 2\n")
    file.unlink()
    store.now = os.stat(store.file).st_mtime + 899
    assert await store.deliver(800) == "452 4.2.2"  # just counted, it says
    assert await store.maildir.is_full(ANN) is False
    store.now += 1
    assert await store.deliver(800) == ""
    assert store.lines == ["1000S", "100 1", "800 1"]


async def test_a_mailbox_is_full_where_nothing_more_fits(tmp_path: Path) -> None:
    store = Store(tmp_path, Quota(1000))
    is_full = store.maildir.is_full
    assert not await is_full(ANN)
    assert not store.home.exists()  # a question makes nothing
    await store.deliver(999)
    assert not await is_full(ANN)
    await store.deliver(1)
    assert await is_full(ANN)
    assert await is_full(Mailbox("ann+tag", "our.dom"))
    assert not await is_full(Mailbox("bob", "our.dom"))


async def test_a_tag_has_no_quota_of_its_own(tmp_path: Path) -> None:
    store = Store(tmp_path, Quota(1000), folders=True)
    store.put(0, ".shop/new")
    assert await store.deliver(340, Mailbox("ann+shop", "our.dom")) == ""
    assert await store.deliver(340, Mailbox("ann+other", "our.dom")) == ""
    assert await store.deliver(340, Mailbox("ann+shop", "our.dom")) == "452 4.2.2"
    octets = sum(file.stat().st_size for file in store.home.rglob("new/*"))
    assert [len(list(store.home.glob(f"{place}/*"))) for place in (".shop/new", "new")] == [2, 1]
    assert sum(int(line.split()[0]) for line in store.lines[1:]) == octets


async def test_not_being_able_to_count_is_transient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path, Quota(1000))

    def fail(path: Path) -> Any:
        raise PermissionError(errno.EACCES, "secret of the system")

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", fail)
        assert await store.deliver(1) == "451 4.3.0"
        with pytest.raises(MailboxUnavailable) as caught:
            await store.maildir.is_full(ANN)
        assert "secret" not in str(caught.value)
    assert store.messages() == 0


@given(st.lists(st.integers(0, 600), max_size=12), st.integers(1, 2000), st.integers(0, 8))
def test_never_more_than_the_quota_and_never_refused_without_need(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], octets: int, messages: int
) -> None:
    store = Store(tmp_path_factory.mktemp("mail"), Quota(octets, messages))

    async def deliver_all() -> None:
        there = Usage()
        for size in sizes:
            more = Usage(there.octets + size, there.messages + 1)
            fits = more.octets <= octets and (not messages or more.messages <= messages)
            said = await store.deliver(size)
            assert said == ("" if fits else "552 5.2.2" if size > octets else "452 4.2.2")
            there = more if fits else there

    anyio.run(deliver_all)


# Whose


@pytest.mark.parametrize(
    ("address", "quota"),
    [
        ("ann@our.dom", Quota(5)),
        ("ANN@Our.Dom", Quota(5)),
        ("ann@other.dom", Quota(1)),
        ("bob@other.dom", Quota(2)),
        ('"a b"@our.dom', Quota(4)),
        ("postmaster@our.dom", Quota()),
        ("Postmaster@other.dom", Quota(3)),
    ],
)
async def test_whose_quota_is_what(address: str, quota: Quota) -> None:
    table = {
        "ann@our.dom": Quota(5),
        "Bob": Quota(2),
        '"a b"@our.dom': Quota(4),
        "postmaster@other.dom": Quota(3),
    }
    assert await quotas(Quota(1), table)(Mailbox.parse(address)) == quota


# In a relay


async def test_a_full_mailbox_refuses_at_rcpt_and_has_its_mail_wait(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await w.node(
            "relay.example",
            networks=(),
            policy=listed_mailboxes(["ann", "bob"]),
            quota=quotas(Quota(0, 1)),
        )
        await node.send("eve@far.example", ["ann@our.dom"])
        await node.until(Delivered)
        async with node.dial() as wire:
            await wire.hello()
            await wire.say("MAIL FROM:<eve@far.example>")
            assert (await wire.say("RCPT TO:<ann@our.dom>")).startswith("452 4.2.2 ")
            assert (await wire.say("RCPT TO:<bob@our.dom>")).startswith("250")
            assert (await wire.say("RCPT TO:<carol@our.dom>")).startswith("550 5.1.1")
        await w.put(node, "eve@far.example", "ann@our.dom", content=b"a: b\r\n\r\n")
        (deferred,) = await node.until(Deferred)
        assert deferred.reply.startswith("452 4.2.2")
        for file in node.files():
            file.unlink()  # ann has read it
        w.move(3600)
        await node.until(Delivered, 2)
        assert len(node.mail("ann@our.dom")) == 1


async def test_what_never_fits_is_reported_at_once(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await w.node("relay.example", quota=quotas(Quota(1000), {"eve": Quota()}))
        large = b"a: b\r\n\r\n" + b"x" * 998 + b"\r\n"
        await node.send("eve@our.dom", ["ann@our.dom"], large)
        (failed,) = await node.until(Failed)
        assert failed.reply.startswith("552 5.2.2")
        await node.until(Delivered)
        (report,) = node.mail("eve@our.dom")
        assert b"\nStatus: 5.2.2\n" in report
        assert node.mail("ann@our.dom") == []


@pytest.mark.parametrize("ask", [MaildirSize.is_full, lambda size: size.admit(1)])
async def test_the_event_loop_is_never_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ask: Callable[[MaildirSize], Any]
) -> None:
    threads: set[int] = set()
    opened = os.open

    def seen(path: Any, *args: Any, **named: Any) -> int:
        if str(path).endswith("maildirsize"):
            threads.add(threading.get_ident())
        return opened(path, *args, **named)

    monkeypatch.setattr(os, "open", seen)
    store = Store(tmp_path, Quota(1000))
    await store.deliver(1)
    await store.maildir.is_full(ANN)
    assert threads
    assert threading.get_ident() not in threads
    ask(MaildirSize(store.home, Quota(1000), now=lambda: 0, unique_name=lambda: "x"))
    assert threading.get_ident() in threads  # the watch works
