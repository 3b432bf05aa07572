"""The file of accounts: what is read of it, and how it is changed."""

import os
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from smtpproto.core.errors import GrammarError
from smtpproto.relay.accounts.passwd import (
    AccountFileError,
    add_account,
    as_address,
    key_of,
    read_accounts,
    remove_account,
)

KEYS = "{SCRAM-SHA-256}4096,c2FsdA==," + ",".join(["A" * 43 + "="] * 2)


def test_a_file_is_read_as_dovecot_has_it() -> None:
    found = read_accounts(
        b"# who may log in\n\n"
        b"ann:{PLAIN}one::::::\n"
        b"Bob:{PLAIN}two:1000:1000:Bob:/home/bob:/bin/sh:"
        b"userdb_mail=x addresses=B@x.example,@Y.example\r\n"
        b"carl:{PLAIN}three::::::addresses=\n"
        b"dora@x.example:{PLAIN}four"
    )
    assert found.broken == ()
    assert {name: each.addresses for name, each in found.by_name.items()} == {
        "ann": None,
        "bob": ("b@x.example", "@y.example"),
        "carl": (),
        "dora@x.example": None,
    }
    assert all(each.name == name for name, each in found.by_name.items())
    assert found.by_name["bob"].secret.fits("two")


def test_a_line_that_is_wrong_is_told_by_its_number_and_the_others_stand() -> None:
    found = read_accounts(
        b"ann:{PLAIN}secret\n"
        b"bob\n"
        b"carl:{SSHA}secret\n"
        b"d\xe9ra:{PLAIN}secret\n"
        b":{PLAIN}secret\n"
        b"e f:{PLAIN}secret\n"
        b"ANN:{PLAIN}secret\n"
        b"gus:{PLAIN}secret::::::addresses=nobody\n"
        b"hal:{PLAIN}secret::::::allow_nets=127.0.0.1\n"
        b"ida:{PLAIN}secret::::::nologin\n"
        b"jim:{PLAIN}secret::::::nodelay=y\n"
        b"kim:{PLAIN}secret::::::allow_real_nets=127.0.0.1\n"
        b"leo:{PLAIN}secret::::::fail=y\n"
        b"mia:{PLAIN}secret::::::noauthenticate=y\n"
    )
    assert sorted(found.by_name) == ["ann", "jim"]
    told = dict(line.split(": ", 1) for line in found.broken)
    assert list(told) == [f"line {number}" for number in (*range(2, 11), 12, 13, 14)]
    assert told["line 2"] == "bob: no password"
    assert "{SSHA} is not known here" in told["line 3"]
    assert told["line 4"] == "not UTF-8"
    assert "there already" in told["line 7"]
    assert "'nobody' is no address" in told["line 8"]
    assert told["line 9"] == "hal: allow_nets is not known here, so nobody logs in"
    assert "secret" not in repr(found)


@given(st.text(max_size=8))
@example("H\u0331")
@example("\u10a0")
def test_a_name_is_read_as_it_was_written(name: str) -> None:
    try:
        key = key_of(name, stored=True)
    except GrammarError:
        return
    assert key_of(key, stored=True) == key
    assert key_of(name) == key


def test_a_file_that_is_made_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "accounts"
    add_account(path, "Ann", "{PLAIN}one", ["Ann@x.example", "@y.example"])
    assert path.read_bytes() == b"ann:{PLAIN}one::::::addresses=ann@x.example,@y.example\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["accounts"]


def test_all_that_is_not_asked_for_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "accounts"
    others = b"# mine\nbob:{PLAIN}x:1:2::/home/bob::quota=1\nwhat is this?\n"
    path.write_bytes(others.removesuffix(b"\n"))
    path.chmod(0o640)  # Dovecot's group reads it
    add_account(path, "ann", KEYS)
    assert path.read_bytes() == others + f"ann:{KEYS}\n".encode()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    remove_account(path, "ANN")
    assert path.read_bytes() == others
    add_account(path, "bob", "{PLAIN}y", replace=True)
    assert path.read_bytes() == others.replace(b"{PLAIN}x", b"{PLAIN}y")
    add_account(path, "bob", "{PLAIN}z", ["b@x.example"], replace=True)
    add_account(path, "bob", "{PLAIN}z", ["c@x.example"], replace=True)
    given = others.replace(b"{PLAIN}x", b"{PLAIN}z")
    assert path.read_bytes() == given.replace(b"quota=1", b"quota=1 addresses=c@x.example")


def test_a_link_to_the_file_stays_one(tmp_path: Path) -> None:
    path, target = tmp_path / "accounts", tmp_path / "dovecot" / "users"
    target.parent.mkdir()
    path.symlink_to(target)
    add_account(path, "ann", KEYS)
    add_account(path, "bob", KEYS)
    remove_account(path, "ann")
    assert path.is_symlink()
    assert list(read_accounts(target.read_bytes()).by_name) == ["bob"]


def test_an_account_is_added_and_removed_once(tmp_path: Path) -> None:
    path = tmp_path / "accounts"
    add_account(path, "ann", KEYS)
    before = path.read_bytes()
    with pytest.raises(AccountFileError, match="ann has an account already"):
        add_account(path, "Ann", "{PLAIN}x")
    with pytest.raises(AccountFileError, match="no account bob"):
        remove_account(path, "bob")
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["", "a:b", "a b", "#a", "a\nb", "a\tb", "\u00ad"])
def test_a_name_that_is_none_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(AccountFileError):
        add_account(tmp_path / "accounts", name, KEYS)
    assert os.listdir(tmp_path) == []


def test_nothing_can_forge_a_field_or_a_line(tmp_path: Path) -> None:
    path = tmp_path / "accounts"
    for secret in "{PLAIN}a:b", "{PLAIN}a\nroot:{PLAIN}x":
        with pytest.raises(AccountFileError):
            add_account(path, "ann", secret)
    for address in (
        "a",
        "a@",
        "@",
        "a,b@x.example",
        '"a b"@x.example',
        "%u@x.example",
        "a@[IPv6:::1]",
        "@[IPv6:::1]",
    ):
        with pytest.raises(ValueError, match="address"):
            add_account(path, "ann", KEYS, [address])
        with pytest.raises(ValueError, match="address"):
            as_address(address)
    assert os.listdir(tmp_path) == []


def test_what_fails_halfway_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "accounts"
    add_account(path, "ann", KEYS)
    before = path.read_bytes()

    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        add_account(path, "bob", KEYS)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["accounts"]


def test_those_who_change_it_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "accounts"
    threads = [
        threading.Thread(target=add_account, args=(path, f"user{number}", KEYS))
        for number in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_accounts(path.read_bytes()).by_name) == 20
