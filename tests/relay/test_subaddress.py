"""Tags of addresses (RFC 5233's details), and mailboxes before catch-alls."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from smtpproto import LocalProtocolError, Mailbox
from smtpproto.maildir import safe_name
from smtpproto.relay import AliasTable, MailingList
from smtpproto.relay.mailboxes.mailbox import (
    MailboxesFirst,
    MailboxStore,
    Maildir,
    every_mailbox,
    listed_mailboxes,
    present_mailboxes,
)
from smtpproto.relay.reports.story import Delivered, Expanded
from tests.relay.world import MESSAGE, parsed, world

pytestmark = pytest.mark.anyio

TO_SHOP = "ann+shop@our.dom"


def maildir(root: Path, **settings: Any) -> Maildir:
    return Maildir(
        root, hostname="mx.our.dom", now=lambda: 0.0, random_bytes=os.urandom, **settings
    )


async def chunks(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def deliver(store: Maildir, address: str | Mailbox, *pieces: bytes) -> None:
    mailbox = address if isinstance(address, Mailbox) else Mailbox.parse(address)
    pieces = pieces or (b"Return-Path: <>\r\n", MESSAGE)
    await store.deliver(mailbox, chunks(*pieces))


def places(root: Path) -> list[str]:
    """Where mail is, without the names of its files."""
    return sorted(str(file.parent.relative_to(root)) for file in root.rglob("new/*"))


def the_message(root: Path) -> bytes:
    (file,) = root.rglob("new/*")
    return file.read_bytes()


def home(root: Path, *names: str) -> None:
    for name in names:
        (root / name / "new").mkdir(parents=True)


# Whose mailbox it is


@pytest.mark.parametrize("policy", [every_mailbox, listed_mailboxes(["ann"])])
async def test_a_tag_is_for_the_mailbox_without_it(tmp_path: Path, policy: Any) -> None:
    store = maildir(tmp_path, policy=policy)
    for address in (TO_SHOP, "ann+@our.dom", "ann+a+b@our.dom", "Ann+Shop@Our.Dom"):
        assert await store.exists(Mailbox.parse(address))
        await deliver(store, address)
    assert places(tmp_path) == ["our.dom/ann/new"] * 4


async def test_present_mailboxes_have_tags(tmp_path: Path) -> None:
    home(tmp_path, "our.dom/ann")
    store = maildir(tmp_path, policy=present_mailboxes)
    assert await store.exists(Mailbox.parse(TO_SHOP))
    assert not await store.exists(Mailbox.parse("bob+shop@our.dom"))
    await deliver(store, TO_SHOP)
    assert places(tmp_path) == ["our.dom/ann/new"]


async def test_a_mailbox_of_its_own_comes_first(tmp_path: Path) -> None:
    await deliver(maildir(tmp_path, policy=listed_mailboxes(["ann", "ann+shop"])), TO_SHOP)
    assert places(tmp_path) == ["our.dom/ann+shop/new"]
    await deliver(maildir(tmp_path), TO_SHOP)  # any mailbox exists, and this one is there
    assert places(tmp_path) == ["our.dom/ann+shop/new"] * 2


@pytest.mark.parametrize("address", ["+shop@our.dom", "bob@our.dom"])
async def test_without_a_user_or_a_separator_there_is_no_tag(tmp_path: Path, address: str) -> None:
    await deliver(maildir(tmp_path), address)
    assert places(tmp_path) == [f"our.dom/{address.partition('@')[0]}/new"]


@pytest.mark.parametrize(
    ("separator", "address", "name"),
    [
        ("", TO_SHOP, "ann+shop"),
        ("-", TO_SHOP, "ann+shop"),
        ("-", "ann-shop-x@our.dom", "ann"),
        ("--", "a-nn--shop@our.dom", "a-nn"),
    ],
)
async def test_what_separates_is_configured(
    tmp_path: Path, separator: str, address: str, name: str
) -> None:
    await deliver(maildir(tmp_path, separator=separator), address)
    assert places(tmp_path) == [f"our.dom/{name}/new"]


@pytest.mark.rfc("5321 §4.5.1 postmaster-is-a-mailbox-in-any-case")
async def test_postmaster_has_tags_too(tmp_path: Path) -> None:
    store = maildir(tmp_path, policy=listed_mailboxes([]))
    assert await store.exists(Mailbox.parse("PostMaster+x@our.dom"))
    assert not await store.exists(Mailbox.parse("ann+postmaster@our.dom"))


# What it was called stays to be seen


@pytest.mark.parametrize("cut", [0, 1, 15, 16, 17, 18, 40])
async def test_the_whole_address_is_in_delivered_to(tmp_path: Path, cut: int) -> None:
    octets = b"Return-Path: <>\r\n" + MESSAGE
    await deliver(maildir(tmp_path), TO_SHOP, octets[:cut], octets[cut:])
    expected = b"Return-Path: <>\r\nDelivered-To: ann+shop@our.dom\r\n" + MESSAGE
    assert the_message(tmp_path) == expected.replace(b"\r\n", b"\n")


async def test_without_a_tag_nothing_is_added(tmp_path: Path) -> None:
    await deliver(maildir(tmp_path), "ann@our.dom", MESSAGE)
    assert the_message(tmp_path) == MESSAGE.replace(b"\r\n", b"\n")


@pytest.mark.parametrize("octets", [b"", b"nothing", b"x" * 3_000_000])
async def test_a_message_without_a_line_end_is_kept(tmp_path: Path, octets: bytes) -> None:
    await deliver(maildir(tmp_path), TO_SHOP, octets[:2], octets[2:])
    assert the_message(tmp_path) == b"Delivered-To: ann+shop@our.dom\n" + octets


# Folders


@pytest.mark.parametrize(
    ("tag", "folder"),
    [
        ("shop", ".shop"),
        ("SHOP", ".shop"),
        ("News", ".News"),
        ("news", ".news"),
        ("NEWS", ".News"),
        ("a-b_c=d", ".a-b_c=d"),
        ("none", ""),
        ("", ""),
        ("file", ""),
        ("link", ""),
        ("a.b", ""),
        ("Trash", ""),
        ("trash", ""),
        ("new", ""),
        ("&AOQ-", ""),
        (".", ""),
        ("..", ""),
        ("/../shop", ""),
        ("x/y", ""),
        ("shop/../../../root", ""),
    ],
)
async def test_a_tag_finds_a_folder_that_is_there(tmp_path: Path, tag: str, folder: str) -> None:
    there = tmp_path / "our.dom" / "ann"
    names = (".shop", ".News", ".news", ".a-b_c=d", ".a.b", ".Trash", ".&AOQ-", ".x")
    home(there, *names, ".x/y")
    (there / ".file").touch()
    (there / ".link").symlink_to(tmp_path)
    await deliver(maildir(tmp_path, folders=True), Mailbox(f"ann+{tag}", "our.dom"))
    assert places(tmp_path) == [f"our.dom/ann/{folder}{'/' if folder else ''}new"]


async def test_folders_are_not_asked_for_unless_told(tmp_path: Path) -> None:
    home(tmp_path, "our.dom/ann/.shop")
    await deliver(maildir(tmp_path), TO_SHOP)
    assert places(tmp_path) == ["our.dom/ann/new"]


# No name breaks out

LOCAL = st.text(
    st.characters(codec="utf-8", min_codepoint=32, exclude_characters="\x7f")
    | st.sampled_from("+./\\%~@"),
    max_size=80,
)
DOMAIN = st.sampled_from(
    [
        "our.dom",
        "OUR.dom",
        "a.b",
        "[127.0.0.1]",
        "[IPv6:::1]",
        "[x:../..]",
        "x" * 63 + ".y",
        "ü.dom",
    ]
)
SEPARATOR = st.sampled_from(["", "+", "-", ".", "/", "=", "%"])


@st.composite
def mailboxes(draw: st.DrawFn) -> Mailbox:
    try:
        return Mailbox(draw(LOCAL), draw(DOMAIN))
    except LocalProtocolError:
        return Mailbox(draw(st.sampled_from(["..", "a+..", "a+/", "a/..+b"])), draw(DOMAIN))


def below(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


@given(mailboxes(), mailboxes(), SEPARATOR, st.booleans())
@example(Mailbox("ann+../../x", "our.dom"), Mailbox("ann", "our.dom"), "+", True)
@example(Mailbox("a+b", "our.dom"), Mailbox("a", "our.dom"), "+", True)
@example(Mailbox("a.new", "our.dom"), Mailbox("a", "our.dom"), ".", True)
@example(Mailbox("../" * 60, "our.dom"), Mailbox("." * 3, "our.dom"), "/", True)
def test_whatever_an_address_holds_stays_in_its_place(
    tmp_path_factory: pytest.TempPathFactory,
    one: Mailbox,
    other: Mailbox,
    separator: str,
    folders: bool,
) -> None:
    """Below the root; in a mailbox by its own name or without its tag; two never share one."""
    above = tmp_path_factory.mktemp("above")
    root = above / "mail"
    store = maildir(root, separator=separator, folders=folders)
    found: list[Path] = []
    for mailbox in (one, other):
        before = set(below(above))
        anyio.run(deliver, store, mailbox)
        (file,) = set(below(above)) - before
        domain, name, new, unique = file.relative_to(root).parts
        assert new == "new"
        assert domain == safe_name(mailbox.domain)
        local = mailbox.local_part.lower()
        user = local.partition(separator.encode())[0] if separator else local
        assert name in {safe_name(local), safe_name(user)}
        assert max(len(part.encode()) for part in (domain, name, unique)) <= 255  # NAME_MAX
        found.append(file.parent.parent)
    users = [
        (m.local_part.lower().partition(separator.encode() or b"\0")[0], m.domain.lower())
        for m in (one, other)
    ]
    same_mailbox = (one.local_part.lower(), one.domain.lower()) == (
        other.local_part.lower(),
        other.domain.lower(),
    )
    if same_mailbox:
        assert found[0] == found[1]
    elif users[0] != users[1]:
        assert found[0] != found[1]


# Mailboxes and catch-alls


class Plain:
    """A store that tells nothing more than whether a mailbox exists."""

    async def exists(self, mailbox: Mailbox) -> bool:
        return mailbox.local_part == b"ann"

    async def deliver(self, mailbox: Mailbox, content: Any) -> None:
        raise NotImplementedError


TABLE = AliasTable(
    {
        "@our.dom": ["all@our.dom"],
        "sales@our.dom": ["bob@our.dom"],
        "root": ["bob@our.dom"],
        "@old.dom": ["@our.dom"],
    }
)


@pytest.mark.parametrize(
    ("address", "becomes"),
    [
        ("ann@our.dom", None),
        ("ANN@our.dom", None),
        ("ann+shop@our.dom", None),
        ("other@our.dom", "all@our.dom"),
        ("other+shop@our.dom", "all@our.dom"),
        ("postmaster@our.dom", "all@our.dom"),
        ("sales@our.dom", "bob@our.dom"),  # an alias of its own comes before a mailbox
        ("root@our.dom", "bob@our.dom"),
        ("root+x@our.dom", "bob@our.dom"),
        ("ann@old.dom", "ann@our.dom"),
        ("ann@their.dom", None),
    ],
)
@pytest.mark.parametrize("policy", ["every", "present", "listed"])
async def test_mailboxes_come_before_catch_alls(
    tmp_path: Path, policy: str, address: str, becomes: str | None
) -> None:
    home(tmp_path, "our.dom/ann", "our.dom/sales", "our.dom/root")
    policies = {
        "every": every_mailbox,
        "present": present_mailboxes,
        "listed": listed_mailboxes(["ann@our.dom", "sales", "root"]),
    }
    aliases = MailboxesFirst(TABLE, maildir(tmp_path, policy=policies[policy]))
    found = await aliases.find(Mailbox.parse(address))
    assert not isinstance(found, MailingList)
    assert (None if found is None else [str(each) for each in found]) == (
        None if becomes is None else [becomes]
    )


async def test_any_store_and_any_aliases_will_do(tmp_path: Path) -> None:
    class Everything:
        async def find(self, mailbox: Mailbox) -> list[Mailbox]:
            return [mailbox]

    store: MailboxStore = Plain()
    ann, bob = Mailbox.parse("ann@our.dom"), Mailbox.parse("bob@our.dom")
    assert await MailboxesFirst(TABLE, store).find(ann) is None
    assert await MailboxesFirst(TABLE, store).find(bob) is not None
    assert await MailboxesFirst(Everything(), store).find(ann) == [ann]


# In a relay


async def test_a_mailbox_is_not_swallowed_by_its_domains_catch_all(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        node = await w.node(
            "relay.example",
            networks=(),
            policy=listed_mailboxes(["ann", "all"]),
            aliases=AliasTable({"@our.dom": ["all@our.dom"]}),
        )
        await node.send("eve@far.example", ["ann@our.dom", TO_SHOP, "who@our.dom"])
        await node.until(Delivered, 3)
        assert [str(told.forward_path) for told in node.told(Expanded)] == ["<who@our.dom>"]
        for_ann = node.mail("ann@our.dom")
        assert sorted(parsed(each).get_all("Delivered-To") or [] for each in for_ann) == [
            [],
            [TO_SHOP],
        ]
        (caught,) = node.mail("all@our.dom")
        assert parsed(caught)["Delivered-To"] == "who@our.dom"
        assert await node.queue() == []
