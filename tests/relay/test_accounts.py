"""Accounts on disk as an authenticator: who is let in, by what, and what they may send as."""

import logging
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest

from smtpproto.client import Client, Tls
from smtpproto.core.envelope import Envelope
from smtpproto.core.path import Mailbox
from smtpproto.core.sasl import AuthenticationError, Lookup, Mechanism, ScramKeys, Verify
from smtpproto.handler import Session
from smtpproto.mechanisms import LOGIN, PLAIN, SCRAM_SHA_256
from smtpproto.mechanisms.scram import derive_keys
from smtpproto.powers import Powers
from smtpproto.relay.accounts.guessing import Bucket, Guessing
from smtpproto.relay.accounts.login import AccountFile
from smtpproto.relay.accounts.schemes import (
    ITERATIONS,
    SCHEMES,
    Plain,
    ScramSha256,
    Secret,
    ShaCrypt,
    make_secret,
)
from smtpproto.relay.reports.story import Delivered
from smtpproto.result import LoginError, TlsError
from tests.relay.world import Node, world

pytestmark = pytest.mark.anyio

SESSION = Session(1, ("192.0.2.1", 4000), ("192.0.2.25", 587))
SECRET = bytes(32)


def file(tmp_path: Path, *lines: str) -> Path:
    """Write a file of accounts, as something else than what was there."""
    path, new = tmp_path / "accounts", tmp_path / "new"
    new.write_text("".join(f"{line}\n" for line in lines))
    new.replace(path)
    return path


def accounts(tmp_path: Path, *lines: str, **settings: Any) -> AccountFile:
    return AccountFile(file(tmp_path, *lines), secret=SECRET, **settings)


async def lets_in(them: AccountFile, username: str, password: str, authorization: str = "") -> bool:
    return await them.verify(SESSION, Verify(username, password, authorization))


# --- who is let in -----------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_a_password_lets_its_user_in_and_nobody_else(tmp_path: Path, scheme: str) -> None:
    them = accounts(tmp_path, f"ann:{make_secret('horse', scheme)}", "bob:{PLAIN}mouse")
    assert await lets_in(them, "ann", "horse")
    assert await lets_in(them, "Ann", "horse", "ANN")
    for wrong in ("ann", "mouse"), ("ann", "horse", "bob"), ("bob", "horse"), ("eve", "horse"):
        assert not await lets_in(them, *wrong)


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_a_password_that_no_keys_are_of_is_wrong(tmp_path: Path, scheme: str) -> None:
    # A query may have what Unicode 3.2 does not know, and what is stored may not (RFC 3454 §7).
    them = accounts(tmp_path, f"ann:{make_secret('horse', scheme)}")
    assert not await lets_in(them, "ann", "horse\U0001f600")
    assert not await lets_in(them, "eve", "horse\U0001f600")


async def test_an_empty_file_lets_nobody_in(tmp_path: Path) -> None:
    them = accounts(tmp_path)
    assert not await lets_in(them, "ann", "")
    assert await them.lookup(SESSION, Lookup("ann", "SCRAM-SHA-256")) is not None


async def test_a_password_of_thousands_of_octets_is_not_hashed(tmp_path: Path) -> None:
    them = accounts(tmp_path, "ann:{PLAIN}" + "x" * 2000)
    assert not await lets_in(them, "ann", "x" * 2000)


def test_a_file_that_is_not_there_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        AccountFile(tmp_path / "accounts")


class Counting:
    """Counts what is hashed, by scheme."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.hashed: list[str] = []
        for kind in (ShaCrypt, Plain):
            monkeypatch.setattr(kind, "fits", self.counted(kind.fits))

    def counted(self, fits: Any) -> Any:
        def count(secret: Secret, password: str) -> bool:
            self.hashed.append(secret.scheme)
            found: bool = fits(secret, password)
            return found

        return count


async def test_who_does_not_exist_costs_as_much_as_who_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # RFC 4954 §9 would have nothing told; so the work is the same, and not only the answer.
    them = accounts(tmp_path, f"ann:{make_secret('horse', 'SHA512-CRYPT')}")
    count = Counting(monkeypatch)
    for username, password in ("ann", "mouse"), ("eve", "mouse"), ("eve", "y" * 2000):
        assert not await lets_in(them, username, password)
    assert not await lets_in(them, "ann", "horse", "eve")
    assert count.hashed == ["SHA512-CRYPT"] * 4


async def test_no_more_passwords_are_hashed_at_a_time_than_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    them = accounts(tmp_path, "ann:{PLAIN}horse", hashing=1, waiting=2)
    begun, go = threading.Event(), threading.Event()
    at_once: list[int] = []
    inside = 0

    def fits(secret: Plain, password: str) -> bool:
        nonlocal inside
        inside += 1
        at_once.append(inside)
        begun.set()
        assert go.wait(60)
        inside -= 1
        return True

    monkeypatch.setattr(Plain, "fits", fits)
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(lets_in, them, "ann", "horse")
        await anyio.to_thread.run_sync(begun.wait)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(AuthenticationError) as caught:  # one hashes, two wait
            await lets_in(them, "ann", "horse")
        go.set()
    assert caught.value.reply.code == 454
    assert at_once == [1, 1, 1]


# --- SCRAM -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schemes", "offered"),
    [
        ([], True),
        (["SCRAM-SHA-256"], True),
        (["SCRAM-SHA-256", "PLAIN"], True),
        (["ARGON2ID"], False),
        (["SCRAM-SHA-256", "SHA512-CRYPT"], False),
    ],
)
def test_scram_is_offered_where_everybody_can_use_it(
    tmp_path: Path, schemes: list[str], offered: bool
) -> None:
    lines = [f"user{at}:{make_secret('x', scheme)}" for at, scheme in enumerate(schemes)]
    them = accounts(tmp_path, *lines)
    wanted = (SCRAM_SHA_256, PLAIN, LOGIN)
    powers = Powers.of(None, them, wanted)  # type: ignore[arg-type]  # no handler is asked
    assert powers.mechanisms == (wanted if offered else (PLAIN, LOGIN))


@pytest.mark.rfc("5802")
async def test_who_does_not_exist_looks_like_somebody_who_does(tmp_path: Path) -> None:
    lines = f"ann:{make_secret('horse')}", f"bob:{make_secret('mouse')}"
    question = Lookup("eve", "SCRAM-SHA-256")
    first = await accounts(tmp_path, *lines).lookup(SESSION, question)
    after_restart = await accounts(tmp_path, *lines).lookup(SESSION, question)
    ann = await accounts(tmp_path, *lines).lookup(SESSION, Lookup("ann", "SCRAM-SHA-256"))
    assert isinstance(first, ScramKeys)
    assert isinstance(ann, ScramKeys)
    assert first == after_restart
    assert first.iterations == ann.iterations == ITERATIONS
    assert len(first.salt) == len(ann.salt)
    other = await accounts(tmp_path, *lines).lookup(SESSION, Lookup("adam", "SCRAM-SHA-256"))
    assert isinstance(other, ScramKeys)
    assert other.salt != first.salt


@pytest.mark.parametrize("octets", [1, 16, 100])
async def test_who_does_not_exist_has_a_salt_as_long_as_others(tmp_path: Path, octets: int) -> None:
    keys = ScramSha256(derive_keys("horse", bytes(octets), iterations=4096))
    them = accounts(tmp_path, f"ann:{{SCRAM-SHA-256}}{keys.written()}")
    found = await them.lookup(SESSION, Lookup("eve", "SCRAM-SHA-256"))
    assert isinstance(found, ScramKeys)
    assert len(found.salt) == octets


async def test_the_salt_of_a_plain_password_stays(tmp_path: Path) -> None:
    question = Lookup("ann", "SCRAM-SHA-256")
    first = await accounts(tmp_path, "ann:{PLAIN}horse").lookup(SESSION, question)
    assert first == await accounts(tmp_path, "ann:{PLAIN}horse").lookup(SESSION, question)


async def test_other_mechanisms_have_nothing_to_look_up(tmp_path: Path) -> None:
    them = accounts(tmp_path, "ann:{PLAIN}horse")
    assert await them.lookup(SESSION, Lookup("ann", "CRAM-MD5")) is None


# --- the file changes --------------------------------------------------------------------------


async def test_a_file_that_has_changed_is_read_again(tmp_path: Path) -> None:
    them = accounts(tmp_path, "ann:{PLAIN}horse")
    assert await lets_in(them, "ann", "horse")
    file(tmp_path, "bob:{PLAIN}mouse")
    assert not await lets_in(them, "ann", "horse")
    assert await lets_in(them, "bob", "mouse")
    with (tmp_path / "accounts").open("a") as more:  # an editor that writes in place
        more.write("ann:{PLAIN}horse\n")
    assert await lets_in(them, "ann", "horse")


async def test_what_is_wrong_in_it_is_logged_and_hurts_nobody_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    them = accounts(tmp_path, "ann:{PLAIN}horse")
    file(tmp_path, "carl:{MAGIC}s3cret", "ann:{PLAIN}horse")
    assert await lets_in(them, "ann", "horse")
    (record,) = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert f"{tmp_path / 'accounts'}, line 1: carl: {{MAGIC}}" in record.getMessage()
    assert "s3cret" not in caplog.text


async def test_a_file_that_is_gone_stands_as_it_was_and_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    them = accounts(tmp_path, "ann:{PLAIN}horse")
    (tmp_path / "accounts").unlink()
    assert await lets_in(them, "ann", "horse")
    assert await lets_in(them, "ann", "horse")
    assert [each.levelno for each in caplog.records] == [logging.ERROR]
    file(tmp_path, "bob:{PLAIN}mouse")
    assert await lets_in(them, "bob", "mouse")


async def test_others_are_told_when_other_mechanisms_can_be_offered(tmp_path: Path) -> None:
    told: list[tuple[str, ...]] = []
    them = accounts(tmp_path, "ann:{PLAIN}horse")
    them.changed = lambda: told.append(tuple(them.stored))
    line = f"bob:{make_secret('mouse', 'SHA256-CRYPT')}"
    file(tmp_path, "ann:{PLAIN}horse", line)
    assert await lets_in(them, "ann", "horse")
    assert await lets_in(them, "bob", "mouse")
    file(tmp_path, "ann:{PLAIN}horse")
    assert await them.lookup(SESSION, Lookup("ann", "SCRAM-SHA-256")) is not None
    assert told == [(), ("SCRAM-SHA-256",)]


# --- as whom they may send ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("identity", "address", "may"),
    [
        ("ann", "ann@our.dom", True),
        ("Ann", "ANN@Our.Dom", True),
        ("ann", "ann@second.dom", True),
        ("ann", "ann@ext.example", False),
        ("ann", "bob@our.dom", False),
        ("ann", '"ann@our.dom"@ext.example', False),
        ("bob", "bob@our.dom", False),
        ("bob", "sales@our.dom", True),
        ("bob", "anybody@shop.example", True),
        ("bob", "anybody@sub.shop.example", False),
        ("carl", "carl@our.dom", False),
        ("dora@x.example", "dora@x.example", True),
        ("dora@x.example", "dora@our.dom", False),
        ("fay", "fay@bücher.example", True),
        ("fay", "fay@xn--bcher-kva.example", True),
        ("gus", "gus@bücher.example", True),
        ("gus", "gus@xn--bcher-kva.example", True),
        ("gus", "Änne@grün.example", True),
        ("gus", "änne@xn--grn-ioa.example", True),
        ("gus", "gus@grün.example", False),
        ("hal@bücher.example", "hal@bücher.example", True),
        ("hal@bücher.example", "hal@xn--bcher-kva.example", True),
        ("ida@", "ida@our.dom", False),
        ("eve", "eve@our.dom", False),
        ("", "@our.dom", False),
    ],
)
async def test_an_account_sends_as_itself(
    tmp_path: Path, identity: str, address: str, may: bool
) -> None:
    them = accounts(
        tmp_path,
        "ann:{PLAIN}x",
        "bob:{PLAIN}x::::::addresses=sales@our.dom,@shop.example",
        "carl:{PLAIN}x::::::addresses=",
        "dora@x.example:{PLAIN}x",
        "fay:{PLAIN}x",
        "gus:{PLAIN}x::::::addresses=@bücher.example,Änne@grün.example",
        "hal@bücher.example:{PLAIN}x",
        "ida@:{PLAIN}x",
        domains=["our.dom", "second.dom", "bücher.example"],
    )
    local, _, domain = address.rpartition("@")
    mailbox = Mailbox(local or "x", domain) if not local.startswith('"') else Mailbox.parse(address)
    assert await them.may_send(identity, mailbox) is may


# --- in a relay --------------------------------------------------------------------------------


async def log_in(node: Node, password: str, mechanism: Mechanism) -> None:
    async with Client(
        "127.0.0.1",
        node.ports["submission"],
        tls=Tls.NONE,
        login=("ann", password),
        login_in_clear=True,
        mechanisms=[mechanism],
    ) as client:
        envelope = Envelope("ann@our.dom", ["v@our.dom"])
        await client.send(envelope, b"From: ann@our.dom\r\n\r\nhi\r\n")


@pytest.mark.parametrize("scheme", ["SCRAM-SHA-256", "PLAIN", "SHA512-CRYPT"])
async def test_an_account_submits_by_each_mechanism_that_its_scheme_serves(
    tmp_path: Path, scheme: str
) -> None:
    them = accounts(tmp_path, f"ann:{make_secret('horse', scheme)}", domains=["our.dom"])
    async with world(tmp_path) as w:
        node = await w.node(
            "relay.example", kinds=["submission"], authenticator=them, senders=them.may_send
        )
        mechanisms = [SCRAM_SHA_256, PLAIN, LOGIN] if them.stored else [PLAIN, LOGIN]
        for mechanism in mechanisms:
            await log_in(node, "horse", mechanism)
        await node.until(Delivered, len(mechanisms))
        with pytest.raises(LoginError, match=r"535 5\.7\.8"):
            await log_in(node, "mouse", mechanisms[0])


async def test_a_server_offers_what_the_file_allows_now(tmp_path: Path) -> None:
    them = accounts(tmp_path, f"ann:{make_secret('horse')}", domains=["our.dom"])
    async with world(tmp_path) as w:
        node = await w.node("relay.example", kinds=["submission"], authenticator=them)
        them.changed = node.relay.forget
        await log_in(node, "horse", SCRAM_SHA_256)
        file(tmp_path, f"ann:{make_secret('horse', 'SHA256-CRYPT')}")
        with pytest.raises(LoginError):  # offered before anybody saw that the file had changed
            await log_in(node, "horse", SCRAM_SHA_256)
        with pytest.raises(TlsError, match="no login that we know"):
            await log_in(node, "horse", SCRAM_SHA_256)
        await log_in(node, "horse", PLAIN)


async def test_who_guesses_in_a_relay_is_locked_out_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    them = accounts(tmp_path, f"ann:{make_secret('horse')}", domains=["our.dom"])
    async with world(tmp_path) as w:
        guard = Guessing(Bucket(1, 900), clock=w.clock)
        node = await w.node("relay.example", kinds=["submission"], authenticator=them, guard=guard)
        with pytest.raises(LoginError, match=r"535 5\.7\.8"):
            await log_in(node, "mouse", SCRAM_SHA_256)
        with pytest.raises(LoginError, match=r"454 4\.7\.0 Too many failed logins"):
            await log_in(node, "horse", PLAIN)
        assert "too many failed logins as 'ann' from 127.0.0.1" in caplog.text
        w.move(900)
        await log_in(node, "horse", PLAIN)
