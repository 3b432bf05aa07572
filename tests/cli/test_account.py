"""`account` as its user has it: accounts come and go, and nothing of a password is seen."""

import json
import os
import pty
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from smtpproto.relay.accounts.passwd import read_accounts
from smtpproto.relay.accounts.schemes import SCHEMES
from tests.cli.conftest import SOURCE, Run

FILE = Path("smtpproto-data/accounts")


def add(cli: Run, *args: object, password: str = "correct horse", code: int = 0) -> str:
    result = cli("account", "add", *args, SMTPPROTO_PASSWORD=password)
    assert result.exit_code == code, result.output
    assert not password or password not in result.output
    return result.output


def test_an_account_is_added_listed_and_removed(cli: Run) -> None:
    assert add(cli, "Ann") == f"ann may log in. {FILE} has 1 account.\n"
    add(cli, "bob", "--address", "Sales@example.org", "--address", "@example.net")
    listed = cli("account")
    assert listed.stdout == cli("account", "list").stdout
    rows = [line.split() for line in listed.stdout.splitlines()[2:]]
    assert rows == [
        ["ann", "SCRAM-SHA-256", "its", "own"],
        ["bob", "SCRAM-SHA-256", "sales@example.org,", "@example.net"],
    ]
    told = json.loads(cli("account", "list", "--json").stdout)
    assert told == {
        "accounts": [
            {"name": "ann", "scheme": "SCRAM-SHA-256", "addresses": None},
            {
                "name": "bob",
                "scheme": "SCRAM-SHA-256",
                "addresses": ["sales@example.org", "@example.net"],
            },
        ],
        "broken": [],
    }
    gone = cli("account", "remove", "ANN")
    assert gone.stdout == f"ANN may not log in any more. {FILE} has 1 account.\n"
    assert list(read_accounts(FILE.read_bytes()).by_name) == ["bob"]


def test_who_is_kept_out_by_something_else_is_not_said_to_be_let_in(cli: Run) -> None:
    FILE.parent.mkdir()
    FILE.write_text("ann:{PLAIN}x::::::nologin=y\n")
    said = add(cli, "ann", "--replace", "--address", "ann@example.org")
    assert "ann may not log in" in said
    assert "nologin is not known here" in said
    assert FILE.read_text().endswith("::::::nologin=y addresses=ann@example.org\n")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_password_is_kept_as_it_was_asked_for(cli: Run, scheme: str) -> None:
    add(cli, "ann", "--scheme", scheme.lower())
    assert stat.S_IMODE(FILE.stat().st_mode) == 0o600
    account = read_accounts(FILE.read_bytes()).by_name["ann"]
    assert account.secret.scheme == scheme
    assert account.secret.fits("correct horse")
    assert (b"horse" in FILE.read_bytes()) is (scheme == "PLAIN")


def test_a_password_comes_from_a_file_or_from_standard_input(cli: Run, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("one\n")
    assert cli("account", "add", "ann", "--password-file", "secret").exit_code == 0
    assert cli("account", "add", "bob", "--password-file", "-", stdin="two\n").exit_code == 0
    found = read_accounts(FILE.read_bytes()).by_name
    assert found["ann"].secret.fits("one")
    assert found["bob"].secret.fits("two")
    nothing = cli("account", "add", "carl")
    assert nothing.exit_code == 2
    assert "give --password-file or set SMTPPROTO_PASSWORD" in nothing.output


def test_a_password_that_is_typed_is_typed_twice(tmp_path: Path) -> None:
    parent, child = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "smtpproto", "account", "add", "ann"],
        stdin=child,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=tmp_path,
        start_new_session=True,  # so that it has no terminal but this one
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    ) as process:
        watchdog = threading.Timer(60, process.kill)
        watchdog.start()
        assert process.stdout is not None
        printed = b""
        for typed in "one", "two", "three", "three":
            while not printed.endswith((b" ann: ", b" confirmation: ")):
                printed += process.stdout.read(1) or pytest.fail(printed.decode())
            printed += b"\n"
            os.write(parent, f"{typed}\n".encode())
        printed += process.stdout.read()
        watchdog.cancel()
    os.close(child)
    os.close(parent)
    assert process.returncode == 0, printed
    assert b"one" not in printed
    assert b"do not match" in printed
    assert read_accounts((tmp_path / FILE).read_bytes()).by_name["ann"].secret.fits("three")


def test_a_new_password_takes_the_place_of_the_old_one(cli: Run) -> None:
    add(cli, "ann", "--address", "a@example.org", password="one")
    said = add(cli, "ann", password="two", code=2)
    assert said == f"smtpproto: {FILE}: ann has an account already\n  --replace changes it\n"
    add(cli, "ann", "--replace", password="two")
    account = read_accounts(FILE.read_bytes()).by_name["ann"]
    assert account.secret.fits("two")
    assert account.addresses == ("a@example.org",)  # as they were


def test_who_keeps_scram_from_being_offered_is_named(cli: Run) -> None:
    assert "SCRAM" not in add(cli, "ann", "--scheme", "ARGON2ID")
    said = add(cli, "bob")
    assert "Nobody can use SCRAM-SHA-256, for there are no keys for: ann" in said


def test_the_file_of_a_configuration_is_meant(cli: Run, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    config = tmp_path / "etc" / "smtp.toml"
    config.write_text('accounts = "users"\n')
    env = {"SMTPPROTO_PASSWORD": "x"}
    assert cli("account", "--config", config, "add", "ann", **env).exit_code == 0
    assert list(read_accounts((tmp_path / "etc" / "users").read_bytes()).by_name) == ["ann"]
    assert "ann" in cli("account", "--file", tmp_path / "etc" / "users").stdout
    config.write_text("")
    said = cli("account", "--config", config)
    assert said.exit_code == 2
    assert 'names no file of accounts (accounts = "FILE")' in said.output
    both = cli("account", "--config", config, "--file", "x")
    assert both.exit_code == 2


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["a b"], "'a b' is no name"),
        (["a:b"], "'a:b' is no name"),
        (["a\tb"], "no name or password can hold"),
        (["ann", "--scheme", "MD5"], "'MD5' is not one of"),
        (["ann", "--address", "nobody"], "'nobody' is no address"),
        (["ann", "--address", "%u@example.org"], "cannot stand in a file of accounts"),
    ],
)
def test_what_cannot_be_an_account_is_explained(cli: Run, args: list[str], words: str) -> None:
    said = add(cli, *args, code=2)
    assert words in " ".join(said.split())
    assert not FILE.exists()


def test_passwords_that_cannot_be_are_explained(cli: Run) -> None:
    assert "has no colon" in add(cli, "ann", "--scheme", "PLAIN", password="a:b", code=2)
    assert "at most 1024 octets" in add(cli, "ann", password="x" * 1025, code=2)
    assert not FILE.exists()


def test_what_is_not_there_is_said_so(cli: Run) -> None:
    for command in ("list",), ("remove", "ann"):
        said = cli("account", *command)
        assert said.exit_code == 1
        assert said.output.startswith(f"smtpproto: {FILE}: ") or "cannot write" in said.output
    add(cli, "ann")
    said = cli("account", "remove", "bob")
    assert said.exit_code == 1
    assert "there is no account bob" in said.output


def test_a_line_that_is_wrong_is_shown(cli: Run) -> None:
    add(cli, "ann")
    with FILE.open("a") as lines:
        lines.write("bob:{MAGIC}secret\n\x1b[31m:{PLAIN}x\n")
    said = cli("account")
    assert "line 2: bob: {MAGIC} is not known here" in said.output
    assert "line 3: " in said.output
    assert "\x1b" not in said.output
    assert "secret" not in said.output
