"""Ready handlers that keep mail: what they keep, where, and that 250 means it is there."""

import errno
import io
import mailbox
import os
import threading
import time
from collections.abc import AsyncIterator
from email.message import EmailMessage
from pathlib import Path

import anyio
import pytest

from smtpproto import Envelope, Rcpt, Reply
from smtpproto.handler import Handler, Session
from smtpproto.handlers import Debug, Discard, Maildirs, Mbox, Memory
from smtpproto.server import Server
from tests.adapters.wire import connect
from tests.adapters.world import ENVELOPE, MESSAGE, clear, running, session

pytestmark = pytest.mark.anyio

SENT = MESSAGE.replace(b"\r\n", b"\n")


async def handed(handler: Handler, *contents: bytes, envelope: Envelope = ENVELOPE) -> list[int]:
    """Send messages to a server with that handler; the codes they got."""
    codes: list[int] = []
    async with session(Server(handler)) as client:
        for content in contents or [MESSAGE]:
            (outcome, *_) = (await client.deliver(envelope, content)).outcomes
            codes.append(outcome.reply.code if outcome.reply else 0)
    return codes


async def broken_off(handler: Handler) -> None:
    """Send half a message, and be gone."""
    async with running(Server(handler)) as port, await connect(port) as wire:
        await wire.reply()
        await wire.ask("EHLO c")
        await wire.ask("MAIL FROM:<a@b.example>")
        await wire.ask("RCPT TO:<c@d.example>")
        await wire.ask("DATA")
        await wire.send(b"Subject: half\r\n" * 60_000)


# In memory, on paper, nowhere


async def test_discard_takes_everything() -> None:
    assert await handed(Discard(), MESSAGE, b"") == [250, 250]


async def test_memory_keeps_envelope_content_and_facts() -> None:
    memory = Memory()
    message = EmailMessage()
    message["Subject"] = "Grüße"
    message.set_content("hello\n")
    async with session(Server(memory), helo_name="me.example") as client:
        await client.send(Envelope(None, ["b@example.net", "c@example.net"]), message)
        await client.send(ENVELOPE, MESSAGE)
    first, second = memory.received
    assert (first.sender, first.recipients) == ("", ["b@example.net", "c@example.net"])
    assert first.message["Subject"] == "Grüße"
    assert first.message is first.message
    assert first.message.get_content() == "hello\n"
    assert first.session.helo_name == "me.example"
    assert first.session.tls is None
    assert second.content == MESSAGE
    assert str(second) == "<ann@example.org> -> bob@example.net: 'hello', 39 octets"


async def test_memory_keeps_what_the_session_was_then() -> None:
    memory = Memory()
    async with running(Server(memory)) as port, await connect(port) as wire:
        await wire.reply()
        for name in "first.example", "second.example":
            await wire.ask(f"EHLO {name}")
            await wire.ask("MAIL FROM:<a@b.example>")
            await wire.ask("RCPT TO:<c@d.example>")
            await wire.ask("DATA")
            await wire.ask(".")
    assert [one.session.helo_name for one in memory.received] == ["first.example", "second.example"]


@pytest.mark.parametrize("handler", [Memory(), Debug(io.StringIO())], ids=["memory", "debug"])
async def test_what_breaks_off_is_not_kept(handler: Memory | Debug) -> None:
    await broken_off(handler)
    assert not (handler.received if isinstance(handler, Memory) else handler._out.getvalue())  # type: ignore[union-attr]  # a StringIO


async def test_debug_prints_envelope_and_content_and_nothing_steers_the_terminal() -> None:
    out = io.StringIO()
    hostile = b"Subject: \x1b]0;title\x07\r\n\r\n\xff caf\xc3\xa9\tx\r\n"
    assert await handed(Debug(out), hostile) == [250]
    assert out.getvalue().splitlines() == [
        "-------- <ann@example.org> -> <bob@example.net>",
        "Subject: \\x1b]0;title\\x07",
        "",
        "\\xff café\tx",
        "--------",
    ]


async def test_debug_cuts_what_is_long() -> None:
    out = io.StringIO()
    await handed(Debug(out, max_octets=10), b"x" * 70_000 + b"\r\n")
    assert out.getvalue().splitlines()[1:3] == ["x" * 10, "-------- and 69992 octets more"]


async def test_debug_prints_where_the_output_has_no_such_characters() -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, "ascii", newline="\n")
    assert await handed(Debug(out), "\r\né\r\n".encode()) == [250]
    assert b"\\xe9\n" in raw.getvalue()


# Maildirs


def kept(root: Path) -> dict[str, bytes]:
    return {
        f"{path.parent.relative_to(root)}": path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }


@pytest.mark.rfc("5321 §4.4 return-path-is-inserted-at-final-delivery")
async def test_a_message_is_in_the_maildir_of_each_mailbox_once(tmp_path: Path) -> None:
    envelope = Envelope(
        "ann@example.org", ["bob@example.net", "Bob@Example.Net", "eve@example.net"]
    )
    handler = Maildirs(tmp_path, hostname="mx.example.net", now=lambda: 1e9)
    assert await handed(handler, envelope=envelope) == [250]
    found = kept(tmp_path)
    assert set(found) == {"example.net/bob/new", "example.net/eve/new"}
    (content,) = set(found.values())
    head, _, rest = content.partition(b"Subject: hello")
    assert rest == SENT.partition(b"Subject: hello")[2]
    lines = head.decode().splitlines()
    assert lines[0] == "Return-Path: <ann@example.org>"
    assert lines[1].startswith("Received: from [127.0.0.1] ([127.0.0.1]) by mx.example.net with")
    assert lines[-1].endswith("Sun, 09 Sep 2001 01:46:40 +0000")
    assert not any("eve" in line for line in lines)  # nobody learns of the others


@pytest.mark.parametrize("name", ["../../x", "a/b", ".", "%", "x" * 64])
async def test_no_name_leads_out_of_the_root(tmp_path: Path, name: str) -> None:
    root = tmp_path / "root"
    await handed(Maildirs(root), envelope=Envelope("a@b.example", [f'"{name}"@[127.0.0.1]']))
    (place,) = kept(root)
    assert len(Path(place).parts) == 3
    assert os.listdir(tmp_path) == ["root"]


async def test_all_mail_in_one_maildir_by_overriding(tmp_path: Path) -> None:
    class One(Maildirs):
        def directory(self, mailbox: object) -> Path:
            return self.root

    await handed(
        One(tmp_path / "m"), envelope=Envelope("a@b.example", ["c@d.example", "e@f.example"])
    )
    assert set(kept(tmp_path)) == {"m/new"}
    assert len(mailbox.Maildir(tmp_path / "m")) == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
async def test_a_maildir_that_fails_leaves_nothing_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    link = os.link

    def not_there(source: Path, target: Path) -> None:
        if "last.example" in str(target):
            raise OSError(number, "secret")
        link(source, target)

    envelope = Envelope("a@b.example", ["c@d.example", "e@f.example", "g@last.example"])
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", not_there)  # the others have it by then
        async with session(Server(Maildirs(tmp_path))) as client:
            (one, *others) = (await client.deliver(envelope, MESSAGE)).outcomes
    assert {other.reply for other in others} == {one.reply}
    assert str(one.reply).startswith("452 4.3.1" if number == errno.ENOSPC else "451 4.3.0")
    assert "secret" not in str(one.reply)
    assert kept(tmp_path) == {}
    assert await handed(Maildirs(tmp_path), envelope=envelope) == [250]
    assert len(kept(tmp_path)) == 3


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was synced so far."""
    fsync, paths = os.fsync, list[str]()

    def noted(descriptor: int) -> None:
        fsync(descriptor)
        paths.append(os.readlink(f"/proc/self/fd/{descriptor}"))

    monkeypatch.setattr(os, "fsync", noted)
    return paths


async def test_250_is_said_when_the_names_are_on_disk_too(
    tmp_path: Path, synced: list[str]
) -> None:
    envelope = Envelope("a@b.example", ["c@d.example", "e@f.example"])
    assert await handed(Maildirs(tmp_path), envelope=envelope) == [250]
    for new in "d.example/c/new", "f.example/e/new":
        assert str(tmp_path / new) in synced
    synced.clear()
    assert await handed(Mbox(tmp_path / "mbox")) == [250]
    assert synced == [str(tmp_path), str(tmp_path / "mbox")]


async def test_what_breaks_off_leaves_no_file(tmp_path: Path) -> None:
    await broken_off(Maildirs(tmp_path))
    assert kept(tmp_path) == {}


async def test_content_at_fault_leaves_no_file(tmp_path: Path) -> None:
    for handler in Maildirs(tmp_path), Mbox(tmp_path / "mbox"):
        async with running(Server(handler)) as port, await connect(port) as wire:
            await wire.reply()
            await wire.ask("EHLO c")
            await wire.ask("MAIL FROM:<a@b.example>")
            await wire.ask("RCPT TO:<c@d.example>")
            await wire.ask("DATA")
            assert (await wire.ask("a bare\nline end", ".")).startswith("554")
        assert kept(tmp_path) == {}


# mbox


@pytest.mark.rfc("5321 §4.4 return-path-is-inserted-at-final-delivery")
async def test_an_mbox_is_what_the_standard_library_reads(tmp_path: Path) -> None:
    path = tmp_path / "mbox"
    contents = [
        b"Subject: 1\r\n\r\nFrom here\r\n From there\r\n>From quoted\r\n",
        b"Subject: 2\r\n\r\nno end of line\r\n\r\n",
        b"",
    ]
    assert await handed(Mbox(path, now=lambda: 1e9), *contents) == [250] * 3
    box = mailbox.mbox(path)
    first, second, third = box
    assert first.get_from() == "ann@example.org Sun Sep  9 01:46:40 2001"
    assert first["Return-Path"] == "<ann@example.org>"
    assert first.get_payload() == ">From here\n From there\n>From quoted\n"
    assert second.get_payload() == "no end of line\n\n"
    assert third["Received"]
    box.close()
    assert b"\r" not in path.read_bytes()
    assert os.listdir(tmp_path) == ["mbox"]  # no lock is left
    assert path.stat().st_mode & 0o77 == 0


async def test_a_sender_cannot_write_the_separator(tmp_path: Path) -> None:
    path = tmp_path / "mbox"
    envelope = Envelope('"x  Sun Sep  9 01:46:40 2001 y"@example.org', ["b@example.net"])
    await handed(Mbox(path, now=lambda: 0), envelope=envelope)
    await handed(Mbox(path, now=lambda: 0), envelope=Envelope(None, ["b@example.net"]))
    box = mailbox.mbox(path)
    first, second = box
    assert first.get_from().split(" ")[1:] == ["Thu", "Jan", "", "1", "00:00:00", "1970"]
    assert second.get_from() == "MAILER-DAEMON Thu Jan  1 00:00:00 1970"
    box.close()


@pytest.mark.parametrize("cut", [65_535, 65_536, 65_537, 131_072])
async def test_long_lines_and_line_ends_at_every_seam(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "mbox"
    content = b"S: 1\r\n\r\n" + b"x" * cut + b"From x\r\nFrom y\r\n"
    assert await handed(Mbox(path), content) == [250]
    assert path.read_bytes().endswith(b"x" * cut + b"From x\n>From y\n\n")


async def test_many_at_once_do_not_mingle(tmp_path: Path) -> None:
    path = tmp_path / "mbox"
    async with running(Server(Mbox(path))) as port, anyio.create_task_group() as tasks:

        async def send(number: int) -> None:
            async with clear(port) as client:
                await client.send(ENVELOPE, b"Subject: %d\r\n\r\n%d\r\n" % (number, number))

        for number in range(20):
            tasks.start_soon(send, number)
    box = mailbox.mbox(path)
    assert sorted(int(str(one["Subject"])) for one in box) == list(range(20))
    assert all(one.get_payload() == f"{one['Subject']}\n" for one in box)
    box.close()


async def test_nobody_here_lets_go_of_the_lock_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that fails to lock what it has locked already has it no more (POSIX)."""
    lock, clashes = mailbox.mbox.lock, 0

    def slowly(box: mailbox.mbox) -> None:
        nonlocal clashes
        try:
            lock(box)
            time.sleep(0.01)
        except mailbox.ExternalClashError:
            clashes += 1
            raise

    monkeypatch.setattr(mailbox.mbox, "lock", slowly)
    async with (
        running(Server(Mbox(tmp_path / "mbox"))) as port,
        anyio.create_task_group() as tasks,
    ):
        for _ in range(5):
            tasks.start_soon(clear_and_send, port)
    assert clashes == 0
    box = mailbox.mbox(tmp_path / "mbox")
    assert len(box) == 5
    box.close()


async def clear_and_send(port: int) -> None:
    async with clear(port) as client:
        await client.send(ENVELOPE, MESSAGE)


async def test_it_waits_for_whoever_has_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "mbox"
    path.write_bytes(b"")
    lock = tmp_path / "mbox.lock"
    lock.write_bytes(b"")
    assert await handed(Mbox(path, patience=0.3)) == [451]
    assert path.read_bytes() == b""
    timer = threading.Timer(0.3, lock.unlink)
    timer.start()
    assert await handed(Mbox(path)) == [250]
    timer.join()
    assert SENT.rstrip() in path.read_bytes()


async def test_a_write_that_fails_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mbox"
    assert await handed(Mbox(path)) == [250]
    before = path.read_bytes()

    def no(_: int) -> None:
        if path.stat().st_size > len(before):
            raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no)
        assert await handed(Mbox(path)) == [452]
    assert path.read_bytes() == before
    assert await handed(Mbox(path)) == [250]


async def test_a_file_that_ends_in_mid_line_is_ended_first(tmp_path: Path) -> None:
    path = tmp_path / "mbox"
    path.write_bytes(b"From x Sun Sep  9 01:46:40 2001\n\ntorn")
    assert await handed(Mbox(path)) == [250]
    box = mailbox.mbox(path)
    assert len(box) == 2
    box.close()


async def test_choosy_by_subclassing(tmp_path: Path) -> None:
    class Local(Maildirs):
        async def rcpt(self, session: Session, command: Rcpt) -> Reply | None:
            here = command.forward_path.mailbox.domain.lower() == b"example.net"
            return None if here else Reply(550, "5.7.1", "Not here")

    assert await handed(Local(tmp_path), envelope=Envelope("a@b.example", ["c@d.example"])) == [550]
    assert await handed(Local(tmp_path)) == [250]


async def test_the_chunks_of_a_maildir_stream(tmp_path: Path) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 65_534 + b"\r\n"

    async with session(Server(Maildirs(tmp_path))) as client:
        await client.send(ENVELOPE, chunks())
    (content,) = kept(tmp_path).values()
    assert content.endswith((b"x" * 65_534 + b"\n") * 100)
