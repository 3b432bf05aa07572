"""The command as a whole: help, errors, and what is not installed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from smtpproto import __version__
from smtpproto.cli.app import COMMANDS
from tests.cli.conftest import SOURCE, Run, Spawn
from tests.cli.servers import scripted


def test_version(cli: Run) -> None:
    assert cli("--version").stdout == f"smtpproto {__version__}\n"


@pytest.mark.parametrize("command", [[], *([command] for command in COMMANDS)])
def test_help_fits_80_columns(cli: Run, command: list[str]) -> None:
    result = cli(*command, "--help")
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert result.stdout.startswith("Usage: smtpproto")


@pytest.mark.parametrize(
    "command", [c for c in COMMANDS if c not in ("account", "config", "queue")]
)
def test_every_command_runs_on_all_backends(cli: Run, command: str) -> None:
    assert "--backend [asyncio|uvloop|trio]" in cli(command, "--help").stdout


def test_without_a_command_it_says_what_there_is(cli: Run) -> None:
    result = cli()
    assert result.exit_code == 2
    assert all(command in result.stderr for command in COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["frobnicate"], "smtpproto: No such command 'frobnicate'."),
        (["send", "--frobnicate"], "smtpproto send: No such option"),
        (["sink", "--backend", "curio"], "smtpproto sink: Invalid value for '--backend'"),
    ],
)
def test_wrong_usage_is_one_line_and_2(cli: Run, arguments: list[str], words: str) -> None:
    result = cli(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert "--help)" in result.stderr
    assert result.stderr.count("\n") == 1


def without(module: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the command where `module` is not installed."""
    code = f"""
import sys, importlib.util
sys.modules[{module!r}] = None
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name == {module!r} else find_spec(name)
from smtpproto.cli import main
main()
"""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(SOURCE)},
    )


@pytest.mark.parametrize(
    ("module", "package"),
    [("click", "click"), ("rich", "rich"), ("cryptography", "cryptography"), ("dns", "dnspython")],
)
def test_a_package_of_the_extra_is_missing(module: str, package: str) -> None:
    done = without(module, "send", "--help")
    assert done.returncode == 1
    assert f"needs {package}, which is not installed" in done.stderr
    assert "smtpproto[cli]" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_relay_says_which_package_it_lacks() -> None:
    code = "import sys; sys.modules['dns'] = None; import smtpproto.relay"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(SOURCE)},
    )
    assert done.returncode == 1
    assert "smtpproto.relay needs dnspython, which is not installed" in done.stderr
    assert "pip install 'smtpproto[relay]'" in done.stderr


@pytest.mark.parametrize("missing", ["prometheus_client", "h11"])
def test_metrics_without_their_extra_are_no_settings_to_start_with(
    tmp_path: Path, missing: str
) -> None:
    file = tmp_path / "smtp.toml"
    file.write_text('metrics = "127.0.0.1:0"\n')
    for command in (["config", "check", file], ["serve", "--config", file]):
        done = without(missing, *map(str, command))
        assert done.returncode == 1
        assert "pip install 'smtpproto[metrics]'" in done.stdout + done.stderr


@pytest.mark.parametrize("backend", ["trio", "uvloop"])
def test_a_backend_is_missing(backend: str) -> None:
    done = without(backend, "sink", "--backend", backend)
    assert done.returncode == 2
    assert f"{backend} is not installed: pip install {backend}" in done.stderr
    assert done.stderr.count("\n") == 1
    assert without(backend, "sink", "--help").returncode == 0


def test_the_library_does_not_need_the_command_line() -> None:
    code = "import sys, smtpproto.cli; assert not {'click', 'rich', 'anyio'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(SOURCE)})


def test_output_in_ascii(spawn: Spawn) -> None:
    process = spawn("probe", "nosuch.invalid")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert "nosuch.invalid" in out


FLOOD = ("--from", "a@b.c", "--to", "d@e.f", "--body", "x", "--count", "9", "--sessions", "3")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("command", [["probe"], ["send", *FLOOD, "--verbose", "--server"]])
def test_ctrl_c_is_no_traceback(spawn: Spawn, backend: str, command: list[str]) -> None:
    with scripted(b"220 ok\r\n", hang_up=False) as port:
        process = spawn(*command, f"127.0.0.1:{port}", "--backend", backend)
        assert process.stdout is not None
        while "C: EHLO" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.strip() == "interrupted"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_whoever_reads_our_output_may_leave(spawn: Spawn, backend: str) -> None:
    with scripted(b"", b"220 ok\r\n", hang_up=False) as port:
        process = spawn("probe", f"127.0.0.1:{port}", "--backend", backend, "--timeout", "0.5")
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
        assert process.wait(60) == 1


# Completion, as a shell asks for it


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("smtpproto ", set(COMMANDS)),
        ("smtpproto s", {"serve", "send", "sink"}),
        ("smtpproto queue re", {"release", "retry"}),
        ("smtpproto config ", {"check", "show"}),
        ("smtpproto queue list --h", {"--held", "--help"}),
        ("smtpproto serve --log ", {"people", "json"}),
    ],
)
def test_a_shell_is_told_what_may_come_next(words: str, offered: set[str]) -> None:
    code = "import sys; sys.argv[0] = 'smtpproto'; from smtpproto.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={
            **os.environ,
            "PYTHONPATH": str(SOURCE),
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split(" ")) - 1),
            "_SMTPPROTO_COMPLETE": "bash_complete",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert {line.partition(",")[2] for line in done.stdout.splitlines()} == offered, done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_script(shell: str, cli: Run) -> None:
    script = cli(_SMTPPROTO_COMPLETE=f"{shell}_source").stdout
    assert "_SMTPPROTO_COMPLETE=" in script
    assert "_smtpproto_completion" in script


@pytest.mark.parametrize("command", [[], ["config"], ["account"], ["queue"]])
def test_each_command_is_told_in_a_line(cli: Run, command: list[str]) -> None:
    _, commands, told = cli(*command, "--help").stdout.partition("\nCommands:\n")
    assert commands
    assert "..." not in told


@pytest.mark.parametrize("help_", ["--help", "-h"])
@pytest.mark.parametrize(
    ("command", "own", "shared"),
    [
        (["queue", "hold"], "--reason TEXT", "`smtpproto queue` may stand here, too: --data, "),
        (["account", "add"], "--scheme ", "`smtpproto account` may stand here, too: --file, "),
    ],
)
def test_help_behind_a_command_is_about_that_one(
    cli: Run, command: list[str], own: str, shared: str, help_: str
) -> None:
    shown = cli(*command, help_).stdout
    assert shown.startswith(f"Usage: smtpproto {' '.join(command)} [OPTIONS]")
    assert own in shown
    assert shared in " ".join(shown.split())
    assert max(map(len, shown.splitlines())) <= 80
