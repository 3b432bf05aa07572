"""`config`: every mistake in a file is told at once, and what is in force with where it is from."""

import json
import shlex
import tomllib
from pathlib import Path

import pytest

from smtpproto.cli import usable
from smtpproto.cli.config import SETTINGS
from tests.cli.conftest import Run

FILE = Path("smtp.toml")


@pytest.fixture(autouse=True)
def _ports_are_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usable, "_bind", lambda at: None)


def checked(cli: Run, text: str, *options: object) -> tuple[int, list[str]]:
    FILE.write_text(text)
    result = cli("config", "check", FILE, *options)
    assert result.stderr == ""
    return result.exit_code, result.stdout.splitlines()


def test_all_mistakes_at_once_each_with_its_line(cli: Run) -> None:
    code, lines = checked(
        cli,
        """listen = 25
# hostname = "in a comment"
  hostname="my host"
"max-mesage" = 1

[aliases]
root = "ann"
[[routes]]
via = "mx"
[[ routes ]]
via = "nowhere"
""",
    )
    assert code == 1
    starts = ["1: listen: ", "3: hostname: ", "4: max-mesage: ", "6: aliases: ", "10: routes: "]
    assert len(lines) == len(starts)
    for line, start in zip(lines, starts, strict=True):
        assert line.startswith(f"✗ line {start}")
    assert 'did you mean "max-message"?' in lines[2]


def test_serve_says_the_same_and_does_not_start(cli: Run) -> None:
    FILE.write_text('listen = 25\nhostname = "my host"\n')
    result = cli("serve", "--config", FILE)
    assert result.exit_code == 2
    assert [line.split(": ")[-2:-1] for line in result.stderr.splitlines()] == [
        ["listen"],
        ["hostname"],
    ]
    assert not Path("smtpproto-data").exists()


def test_a_file_that_is_right(cli: Run) -> None:
    assert checked(cli, 'hostname = "mail.example.org"\n') == (0, ["✓ smtp.toml can be used."])


def test_what_is_no_toml_has_its_line_from_the_reader(cli: Run) -> None:
    code, (line,) = checked(cli, "listen = :25\n")
    assert code == 1
    assert "no TOML" in line
    assert "line 1" in line


def test_files_that_are_named_are_read(cli: Run) -> None:
    """Passwords, certificates and accounts: nothing of it waits for the first message."""
    Path("empty").touch(0o600)
    code, lines = checked(
        cli,
        """accounts = "accounts"
smart-host = "mail.example.org:587"
smart-host-login = "ann"
smart-host-password-file = "empty"
[[routes]]
via = "smtp:mail.example.org:25"
ca-file = "empty"
""",
    )
    assert code == 1
    assert [line.split(": ")[:2] for line in lines] == [
        ["✗ line 1", "accounts"],
        ["✗ line 4", "smart-host-password-file"],
        ["✗ line 5", "routes"],
    ]
    assert list(Path().glob("*")) != []
    assert not Path("smtpproto-data").exists()


def test_a_user_and_a_group_that_are_not_there(cli: Run) -> None:
    code, lines = checked(cli, 'user = "nosuchuser"\ngroup = "nosuchgroup"\n')
    assert code == 1
    assert lines == [
        "✗ line 1: user: there is no user nosuchuser; make one: useradd --system nosuchuser",
        "✗ line 2: group: there is no group nosuchgroup",
    ]
    assert checked(cli, 'user = "nobody"\n')[0] == 0


@pytest.mark.parametrize("name", ["accounts", "of us"])
def test_accounts_that_are_not_there_yet_are_made_by_what_it_says(cli: Run, name: str) -> None:
    text = f'accounts = "{name}"\n'
    code, (line,) = checked(cli, text)
    assert code == 1
    said, _, command = line.partition("; make it: smtpproto ")
    assert said == f"✗ line 1: accounts: {name} does not exist"
    assert cli(*shlex.split(command), SMTPPROTO_PASSWORD="secret").exit_code == 0
    assert checked(cli, text) == (0, ["✓ smtp.toml can be used."])


def test_secrets_that_everybody_can_read_are_no_errors_and_told(cli: Run) -> None:
    for name in ("accounts", "password", "other"):
        Path(name).write_text("ann:{PLAIN}secret\n")
        Path(name).chmod(0o644)
    text = """accounts = "accounts"
smart-host = "mail.example.org:587"
smart-host-login = "ann"
smart-host-password-file = "password"
[[routes]]
via = "mx"
[[routes]]
via = "smtp:mail.example.org:25"
login = "ann"
password-file = "other"
"""
    code, lines = checked(cli, text)
    assert code == 0
    keys = ["accounts", "smart-host-password-file", "routes: entry 2"]
    files = ["accounts", "password", "other"]
    told = "• line {}: {}: everybody on this machine can read {}: chmod o= {}".format
    doubts = [told(*each) for each in zip([1, 4, 7], keys, files, files, strict=True)]
    assert lines == [*doubts, "✓ smtp.toml can be used."]
    for name in ("accounts", "password", "other"):
        Path(name).chmod(0o640)
    assert checked(cli, text) == (0, ["✓ smtp.toml can be used."])


def test_settings_that_contradict_each_other_also_by_a_flag(cli: Run) -> None:
    assert checked(cli, 'relay-domains = ["example.org"]\n')[0] == 0
    code, (line,) = checked(
        cli, 'relay-domains = ["example.org"]\n', "--local-domain", "example.org"
    )
    assert code == 1
    assert "both in local-domains and relay-domains" in line


def test_doubts_are_no_errors(cli: Run) -> None:
    code, lines = checked(cli, 'listen = ":25"\n')
    assert code == 0
    assert [line[0] for line in lines] == ["•", "•", "•", "✓"]
    assert "hostname: it is localhost" in lines[0]


def test_as_json(cli: Run) -> None:
    code, lines = checked(cli, 'listen = ":25"\nhostname = 1\n', "--json")
    assert code == 1
    found = json.loads("\n".join(lines))
    (problem,) = found["problems"]
    assert (problem["line"], problem["key"]) == (2, "hostname")
    assert problem["text"].startswith("hostname: takes ")
    assert (found["sound"], found["warnings"]) == (False, [])


def test_the_settings_in_force_and_where_they_come_from(cli: Run) -> None:
    FILE.write_text('listen = ":25"\nhostname = "mail.example.org"\n')
    result = cli("config", "show", FILE, "--listen", ":26", "--json")
    assert result.exit_code == 0
    shown = json.loads(result.stdout)
    assert list(shown) == list(SETTINGS)
    assert shown["listen"] == {"value": ":26", "source": "flag"}
    assert shown["hostname"] == {"value": "mail.example.org", "source": "file"}
    assert shown["max-message"] == {"value": 26_214_400, "source": "default"}
    assert shown["smart-host"] == {"value": None, "source": "default"}


def test_they_are_shown_as_a_file_would_have_them(cli: Run) -> None:
    FILE.write_text('local-domains = ["example.org"]\n')
    result = cli("config", "show", FILE)
    rows = {line.split()[0]: line for line in result.stdout.splitlines()}
    name, value, source = rows["local-domains"].split()
    assert tomllib.loads(f"{name} = {value}") == {"local-domains": ["example.org"]}
    assert source == "file"
    assert rows["relay-from"].split() == ["relay-from", "nobody", "default"]


def test_no_password_is_shown(cli: Run) -> None:
    Path("password").write_text("correct horse\n")
    FILE.write_text(
        'smart-host = "mail.example.org:587"\nsmart-host-login = "ann"\n'
        'smart-host-password-file = "password"\n'
    )
    for options in ([], ["--json"]):
        result = cli("config", "show", FILE, *options, SMTPPROTO_PASSWORD="correct horse")
        assert "ann" in result.stdout
        assert "horse" not in result.stdout


@pytest.mark.parametrize("command", ["check", "show"])
def test_a_file_that_is_not_there_is_wrong_usage(cli: Run, command: str) -> None:
    assert cli("config", command, "nowhere.toml").exit_code == 2
