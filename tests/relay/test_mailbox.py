"""Maildir: whole or not there, on disk when it returns, and no name breaks out."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from smtpproto import LocalProtocolError, Mailbox
from smtpproto.maildir import MailboxUnavailable, safe_name
from smtpproto.relay.mailboxes.mailbox import (
    MailboxPolicy,
    Maildir,
    every_mailbox,
    listed_mailboxes,
    present_mailboxes,
)

pytestmark = pytest.mark.anyio

ANN = Mailbox("Ann", "Example.org")
MESSAGE = b"Return-Path: <>\r\n\r\nHi\r\n.\r\n"


def maildir(root: Path, policy: MailboxPolicy = every_mailbox) -> Maildir:
    numbers = itertools.count()
    return Maildir(
        root,
        hostname="mx/our:dom",
        now=lambda: 1_700_000_000.25,
        random_bytes=lambda size: next(numbers).to_bytes(size, "big"),
        policy=policy,
    )


async def chunks(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def files(root: Path) -> dict[str, bytes]:
    found = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in found}


@pytest.mark.rfc("5321 §2.3.10 delivery-is-into-a-message-store")
@pytest.mark.rfc("5321 §4.1.1.3 final-delivery-is-into-the-mailbox")
async def test_a_message_lands_in_new_below_domain_and_mailbox(tmp_path: Path) -> None:
    root = tmp_path / "data" / "mail"
    await maildir(root).deliver(ANN, chunks(MESSAGE))
    (name, content) = files(root).popitem()
    assert content == MESSAGE.replace(b"\r\n", b"\n")
    folder, unique = os.path.split(name)
    assert folder == "example.org/ann/new"
    assert unique.startswith("1700000000.M250000P")
    assert unique.endswith(f".mx_our_dom,S={len(content)}")
    mailbox = root / "example.org" / "ann"
    assert sorted(path.name for path in mailbox.iterdir()) == ["cur", "new", "tmp"]
    assert mailbox.stat().st_mode & 0o77 == 0
    assert (root / name).stat().st_mode & 0o77 == 0


async def test_many_at_once_have_names_of_their_own(tmp_path: Path) -> None:
    store = maildir(tmp_path)
    async with anyio.create_task_group() as tasks:
        for number in range(60):
            tasks.start_soon(store.deliver, ANN, chunks(b"%d\r\n" % number))
    found = files(tmp_path)
    assert sorted(found.values()) == sorted(b"%d\n" % number for number in range(60))
    assert all("/new/" in name for name in found)


@pytest.mark.parametrize("cut", range(9))
async def test_line_ends_become_lf_wherever_the_chunks_are_cut(tmp_path: Path, cut: int) -> None:
    octets = b"a\r\nb\rc\r\r\n\r"
    whole = MESSAGE * 20_000  # several pieces are written
    await maildir(tmp_path).deliver(ANN, chunks(octets[:cut], octets[cut:], whole, b"\r", b"\n"))
    (content,) = files(tmp_path).values()
    assert content == b"a\nb\rc\r\n\r" + whole.replace(b"\r\n", b"\n") + b"\n"


async def test_a_cr_and_its_lf_in_two_pieces(tmp_path: Path) -> None:
    piece = b"x" * (1 << 18) + b"\r"
    await maildir(tmp_path).deliver(ANN, chunks(piece, b"\n" + piece, b"y"))
    (content,) = files(tmp_path).values()
    assert content == piece[:-1] + b"\n" + piece + b"y"


async def test_an_empty_message_is_a_message(tmp_path: Path) -> None:
    await maildir(tmp_path).deliver(ANN, chunks())
    assert list(files(tmp_path).values()) == [b""]


@pytest.mark.rfc("1047")
@pytest.mark.parametrize("where", ["new", "cur", "elsewhere"])
async def test_a_delivery_is_known_again_while_its_file_is_in_the_mailbox(
    tmp_path: Path, where: str
) -> None:
    key = "00HbXm5a4uDoYxUN0"
    await maildir(tmp_path).deliver_once(ANN, chunks(MESSAGE), key=key, again=False)
    (name,) = files(tmp_path)
    if where != "new":  # a reader has seen it
        flagged = tmp_path / name.replace("/new/", f"/{where}/")
        flagged.parent.mkdir(exist_ok=True)
        (tmp_path / name).rename(flagged.with_name(f"{flagged.name}:2,S"))
    store = maildir(tmp_path)  # after a crash
    await store.deliver_once(ANN, chunks(MESSAGE), key=key, again=True)
    assert len(files(tmp_path)) == (2 if where == "elsewhere" else 1)
    await store.deliver_once(ANN, chunks(MESSAGE), key=key, again=True)
    assert len(files(tmp_path)) == (2 if where == "elsewhere" else 1)


async def test_another_delivery_is_not_taken_for_it(tmp_path: Path) -> None:
    keys = ["00HbXm5a4uDoYxUN1", "00HbXm5a4uDoYxUN11", "0HbXm5a4uDoYxUN1"]
    store = maildir(tmp_path)
    for key in keys:
        await store.deliver_once(ANN, chunks(MESSAGE), key=key, again=True)
    await store.deliver_once(Mailbox("bob", "b.example"), chunks(MESSAGE), key=keys[0], again=True)
    assert len(files(tmp_path)) == 4


async def test_what_cannot_be_looked_for_is_not_delivered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = maildir(tmp_path)
    await store.deliver(ANN, chunks(MESSAGE))

    def fail(_: object) -> None:
        raise OSError(errno.EIO, "as told")

    with monkeypatch.context() as while_it_lasts:
        while_it_lasts.setattr(os, "listdir", fail)
        with pytest.raises(MailboxUnavailable):
            await store.deliver_once(ANN, chunks(MESSAGE), key="x", again=True)
    assert len(files(tmp_path)) == 1


class Log:
    """Writes down what happens to the disk, by names."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events: list[tuple[str, str]] = []
        fsync, rename, mkdir = os.fsync, Path.rename, Path.mkdir

        def logged_fsync(descriptor: int) -> None:
            fsync(descriptor)
            self.events.append(("sync", os.readlink(f"/proc/self/fd/{descriptor}")))

        def logged_rename(path: Path, target: Path) -> Path:
            self.events.append(("rename", str(target)))
            return rename(path, target)

        def logged_mkdir(path: Path, *args: Any, **named: Any) -> None:
            if not path.exists():
                self.events.append(("mkdir", str(path)))
            mkdir(path, *args, **named)

        monkeypatch.setattr(os, "fsync", logged_fsync)
        monkeypatch.setattr(Path, "rename", logged_rename)
        monkeypatch.setattr(Path, "mkdir", logged_mkdir)


async def test_all_is_synced_and_in_the_right_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log(monkeypatch)
    root = tmp_path / "a" / "b"
    await maildir(root).deliver(ANN, chunks(MESSAGE))
    events = log.events
    made = [name for what, name in events if what == "mkdir"]
    here = str(root / "example.org" / "ann")
    assert made[:4] == [str(tmp_path / "a"), str(root), str(root / "example.org"), here]
    for name in made:  # each name is on disk before anything is promised
        assert ("sync", os.path.dirname(name)) in events[events.index(("mkdir", name)) :]
    (renamed,) = (at for at, (what, _) in enumerate(events) if what == "rename")
    synced_file, after = events[renamed - 1], events[renamed + 1 :]
    assert synced_file[0] == "sync"
    assert synced_file[1].startswith(here + "/tmp/")
    assert after == [("sync", here + "/new")]


async def test_a_directory_found_is_synced_once_in_case_its_maker_never_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await maildir(tmp_path).deliver(ANN, chunks(MESSAGE))
    log = Log(monkeypatch)
    store = maildir(tmp_path)
    await store.deliver(ANN, chunks(MESSAGE))
    assert ("sync", str(tmp_path / "example.org")) in log.events
    log.events.clear()
    await store.deliver(ANN, chunks(MESSAGE))
    assert [what for what, _ in log.events] == ["sync", "rename", "sync"]


async def test_a_mailbox_removed_meanwhile_is_made_again(tmp_path: Path) -> None:
    store = maildir(tmp_path)
    await store.deliver(ANN, chunks(MESSAGE))
    (tmp_path / "example.org").rename(tmp_path / "old.example")
    await store.deliver(ANN, chunks(MESSAGE))
    assert {name.split("/")[0] for name in files(tmp_path)} == {"example.org", "old.example"}


@pytest.mark.parametrize("name", ["new", "tmp", "cur"])
async def test_a_mailbox_that_somebody_broke_is_mended(tmp_path: Path, name: str) -> None:
    store = maildir(tmp_path)
    await store.deliver(ANN, chunks(MESSAGE))
    (tmp_path / "example.org" / "ann" / name).rename(tmp_path / "away")
    if name == "new":  # seen too late to be mended at once
        with pytest.raises(MailboxUnavailable):
            await store.deliver(ANN, chunks(MESSAGE))
    await store.deliver(ANN, chunks(MESSAGE))
    assert len(files(tmp_path)) == 2


@pytest.mark.parametrize(
    ("number", "reply"),
    [
        (errno.ENOSPC, "452 4.3.1"),
        (errno.EDQUOT, "452 4.3.1"),
        (errno.EIO, "451 4.3.0"),
        (errno.EROFS, "451 4.3.0"),
        (errno.EACCES, "451 4.3.0"),
    ],
)
@pytest.mark.parametrize("call", ["write", "fsync", "open", "rename", "mkdir", "last fsync"])
async def test_trouble_with_the_disk_is_transient_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, reply: str
) -> None:
    store = maildir(tmp_path)
    if call == "last fsync":
        await store.deliver(ANN, chunks())
    before = files(tmp_path)
    fsync = os.fsync

    def fail(*args: Any, **named: Any) -> Any:
        raise OSError(number, "secret of the system")

    def fail_late(descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith("/new"):
            fail()
        fsync(descriptor)

    with monkeypatch.context() as patch:
        if call in {"rename", "mkdir"}:
            patch.setattr(Path, call, fail)
        elif call == "last fsync":
            patch.setattr(os, "fsync", fail_late)
        else:
            patch.setattr(os, call, fail)
        with pytest.raises(MailboxUnavailable) as caught:
            await store.deliver(ANN, chunks(MESSAGE))
    assert f"{caught.value.reply.code} {caught.value.reply.status}" == reply
    assert "secret" not in str(caught.value)
    assert isinstance(caught.value.__cause__, OSError)
    assert files(tmp_path) == before
    await store.deliver(ANN, chunks(MESSAGE))  # and it works again
    assert len(files(tmp_path)) == len(before) + 1


async def test_content_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * (1 << 19)
        raise RuntimeError("the spool is gone")

    with pytest.raises(RuntimeError, match="spool"):
        await maildir(tmp_path).deliver(ANN, broken())
    assert files(tmp_path) == {}


async def test_a_cancelled_delivery_leaves_nothing(tmp_path: Path) -> None:
    waiting = anyio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"x" * (1 << 19)
        waiting.set()
        await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(maildir(tmp_path).deliver, ANN, endless())
        await waiting.wait()
        assert len(files(tmp_path)) == 1
        tasks.cancel_scope.cancel()
    assert files(tmp_path) == {}


async def test_memory_does_not_grow_with_the_message(tmp_path: Path) -> None:
    async def much() -> AsyncIterator[bytes]:
        for _ in range(1024):
            yield b"0123456789abcd\r\n" * 2048  # 32 MiB in all

    tracemalloc.start()
    try:
        await maildir(tmp_path).deliver(ANN, much())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20
    (content,) = files(tmp_path).values()
    assert len(content) == 1024 * 2048 * 15


# --- which mailboxes exist -------------------------------------------------------------------


async def test_by_default_every_mailbox_exists(tmp_path: Path) -> None:
    assert await maildir(tmp_path).exists(ANN)


async def test_listed_mailboxes_exist_and_no_others(tmp_path: Path) -> None:
    names: Iterable[Any] = ["Bob", "ann@example.ORG", Mailbox("a b", "example.org")]
    exists = maildir(tmp_path, listed_mailboxes(names)).exists
    for name in ("bob@example.org", "BOB@example.net", "Ann@Example.org", '"A b"@example.org'):
        assert await exists(Mailbox.parse(name)), name
    for name in ("bobby@example.org", "ann@example.net", '"a b"@example.net', '""@example.org'):
        assert not await exists(Mailbox.parse(name)), name


async def test_mailboxes_present_on_disk_exist_and_no_others(tmp_path: Path) -> None:
    (tmp_path / "example.org" / "ann").mkdir(parents=True)
    (tmp_path / "example.org" / "file").touch()
    exists = maildir(tmp_path, present_mailboxes).exists
    assert await exists(ANN)
    assert not await exists(Mailbox("bob", "example.org"))
    assert not await exists(Mailbox("file", "example.org"))
    assert not await exists(Mailbox("ann", "example.net"))


@pytest.mark.rfc("5321 §4.5.1 postmaster-is-a-mailbox-in-any-case")
@pytest.mark.parametrize("policy", [present_mailboxes, listed_mailboxes([])])
@pytest.mark.rfc("5321 §4.1.1.3 postmaster-is-read-in-any-case")
async def test_postmaster_exists_always(tmp_path: Path, policy: MailboxPolicy) -> None:
    exists = maildir(tmp_path, policy).exists
    assert await exists(Mailbox("PostMaster", "example.org"))
    assert not await exists(Mailbox("postmaster2", "example.org"))


async def test_not_being_able_to_look_is_transient(tmp_path: Path) -> None:
    async def sick(mailbox: Mailbox, directory: Path) -> bool:
        raise PermissionError(errno.EACCES, "no")

    with pytest.raises(MailboxUnavailable) as caught:
        await maildir(tmp_path, sick).exists(ANN)
    assert caught.value.reply.code == 451


# --- names -----------------------------------------------------------------------------------

HOSTILE = [
    "../../etc/passwd",
    "..",
    ".",
    "/",
    "|cmd",
    ";id;",
    "${run{x}}",
    "a/b",
    "a\\b",
    "%2e%2e",
    "",
    "-rf",
    "~root",
    "new",
    "CON",
    "a" * 64,
    "/" * 240,
]


@pytest.mark.parametrize("local", HOSTILE)
async def test_hostile_local_parts_stay_in_their_place(tmp_path: Path, local: str) -> None:
    root = tmp_path / "mail"
    await maildir(root).deliver(Mailbox(local, "example.org"), chunks(MESSAGE))
    (name,) = files(tmp_path)
    parts = Path(name).parts
    assert parts[:2] == ("mail", "example.org")
    assert parts[3] == "new"
    assert len(parts) == 5


async def test_address_literals_and_no_domain_are_domains_too(tmp_path: Path) -> None:
    store = maildir(tmp_path)
    await store.deliver(Mailbox("a", "[IPv6:2001:db8::1]"), chunks())
    await store.deliver(Mailbox("postmaster", ""), chunks())
    assert {name.split("/")[0] for name in files(tmp_path)} == {
        "%5bipv6%3a2001%3adb8%3a%3a1%5d",
        "%",
    }


def test_plain_names_stay_as_they_are() -> None:
    assert safe_name(b"Ann.Lee+tag=x_1-2") == "ann.lee+tag=x_1-2"
    assert safe_name(b".hidden/\0%") == "%2ehidden%2f%00%25"


def test_long_names_are_bounded_and_distinct() -> None:
    names = {safe_name(b"/" * 80 + b"%d" % number) for number in range(100)}
    names |= {safe_name(b"x" * length) for length in (199, 200, 201, 202)}
    assert len(names) == 104
    assert max(map(len, names)) <= 200


ANY = st.binary(max_size=260) | st.text("./%\\ab2e\0", max_size=90).map(str.encode)


@given(ANY, ANY)
@example(b"%", b"")
@example(b"%2f", b"/")
@example(b"/" * 100, safe_name(b"/" * 100).encode())
@example(b"a" * 201, b"a" * 100 + hashlib.sha256(b"a" * 201).hexdigest().encode())
def test_distinct_octets_have_distinct_safe_names(one: bytes, other: bytes) -> None:
    names = [safe_name(one), safe_name(other)]
    for name in names:
        assert 0 < len(name) <= 200
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789._+=-%")
        assert not name.startswith(".")
    assert (names[0] == names[1]) == (one.lower() == other.lower())


LOCAL = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60)
DOMAIN = st.sampled_from(["example.org", "EXAMPLE.org", "a.b", "[127.0.0.1]", "x" * 63 + ".y"])


@given(LOCAL, DOMAIN, LOCAL, DOMAIN)
def test_distinct_mailboxes_have_distinct_places_inside_the_root(
    one: str, domain: str, other: str, another: str
) -> None:
    store = maildir(Path("/mail/root"))
    places: list[Path] = []
    for local, at in ((one, domain), (other, another)):
        place = store.directory(Mailbox(local, at))
        assert Path(os.path.normpath(place)) == place
        assert place.parent.parent == Path("/mail/root")
        places.append(place)
    same = (one.lower(), domain.lower()) == (other.lower(), another.lower())
    assert (places[0] == places[1]) == same


def test_octets_no_mailbox_can_hold_do_not_get_here() -> None:
    makers: list[Callable[[], object]] = [
        lambda: Mailbox("a\0b", "example.org"),
        lambda: Mailbox("a", "../x"),
        lambda: Mailbox("a", ".."),
    ]
    for make in makers:
        with pytest.raises(LocalProtocolError):
            make()
