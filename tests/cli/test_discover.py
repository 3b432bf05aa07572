"""`smtpproto discover`: what it found, what to enter where, and what to ask about."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from smtpproto.discover import FetchError
from smtpproto.discover import discover as look
from smtpproto.resolve import Mx, NoSuchDomain, ResolveFailed, Srv
from smtpproto.server import Server
from tests.cli.conftest import SOURCE, Run
from tests.cli.servers import Mailroom, serving
from tests.discover.world import (
    OWN_FILE,
    SUBMISSION,
    SUBMISSIONS,
    WELL_KNOWN,
    Authority,
    World,
    config,
    server,
)

MAIL = "mail.example.org"
HOSTER = "smtp.hoster.example"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(Path(tmp_path_factory.mktemp("authority")))


@pytest.fixture
def world(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> World:
    """What the command finds instead of the internet."""
    world = World(authority)

    async def elsewhere(address: str, **options: Any) -> Any:
        seams = {"resolver": world, "fetcher": world.fetch, "connector": world.connect}
        return await look(address, **{**options, **seams})

    monkeypatch.setattr("smtpproto.cli.discover.look", elsewhere)
    return world


def submission(world: World, *names: str, implicit: bool = True, logins: bool = True) -> Server:
    mailroom = Mailroom()
    return Server(
        mailroom,
        tls=world.authority.context(*names),
        implicit_tls=implicit,
        authenticator=mailroom if logins else None,
    )


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_what_to_enter_in_a_mail_program(
    cli: Run, world: World, authority: Authority, backend: str
) -> None:
    world.srvs[SUBMISSIONS] = [Srv(0, 1, 465, MAIL)]
    with serving(submission(world, MAIL)) as port:
        world.ports[MAIL, 465] = port
        result = cli("discover", "ann@example.org", "--ca", authority.file, "--backend", backend)
    assert result.exit_code == 0, result.output
    shown = " ".join(result.stdout.split())
    for words in (
        f"{SUBMISSIONS} SRV {MAIL}:465",
        f"{SUBMISSION} SRV no such record",
        f"{WELL_KNOWN} no such file: 404",
        f"{MAIL}:465 TLS SRV record usable",
        "For your mail program",
        f"outgoing server {MAIL} port 465 security SSL/TLS",
        "login normal password (AUTH PLAIN LOGIN)",
        "user name ann@example.org (if that is refused: ann)",
        "its certificate is good",
    ):
        assert words in shown, words
    assert "your provider's?" not in shown


def test_what_to_make_sure_of_first(cli: Run, world: World, authority: Authority) -> None:
    world.srvs[SUBMISSION] = [Srv(0, 1, 587, HOSTER)]
    with serving(submission(world, HOSTER, implicit=False)) as port:
        world.ports[HOSTER, 587] = port
        result = cli("discover", "ann@example.org", "--ca", authority.file)
    assert result.exit_code == 0, result.output
    shown = " ".join(result.stdout.split())
    assert "STARTTLS SRV record usable, once you have confirmed it" in shown
    assert f"is {HOSTER} your provider's? Make sure before you enter a password" in shown
    assert "its certificate is good" not in shown


def test_a_certificate_that_programs_will_complain_about(
    cli: Run, world: World, authority: Authority
) -> None:
    with serving(submission(world, "example.org")) as port:
        world.ports["smtp.example.org", 465] = port
        result = cli("discover", "ann@example.org", "--ca", authority.file)
    assert result.exit_code == 0, result.output
    assert "its certificate is for example.org" in result.stdout


def test_json(cli: Run, world: World, authority: Authority) -> None:
    world.files[OWN_FILE] = config(
        server(MAIL, 25, "plain"), server(HOSTER, username="id-%EMAILLOCALPART%")
    )
    with serving(submission(world, HOSTER)) as port:
        world.ports[HOSTER, 465] = port
        result = cli("discover", "ann@example.org", "--json", "--ca", authority.file)
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["domain"] == "example.org"
    assert said["best"] == said["candidates"][1]
    assert said["best"].pop("mechanisms")
    assert said["best"].pop("reason").startswith("TLSv1.")
    assert said["best"] == {
        "host": HOSTER,
        "port": 465,
        "tls": "implicit",
        "usernames": ["id-ann"],
        "sources": ["autoconfig"],
        "verdict": "usable",
        "authentication": ["password-cleartext"],
        "confirm": False,
        "server_name": HOSTER,
    }
    assert said["candidates"][0]["verdict"] == "in-clear"
    assert said["candidates"][0]["tls"] == "none"
    assert [finding["source"] for finding in said["findings"]] == ["srv"] * 2 + ["autoconfig"] * 2


def test_why_nothing_will_do(cli: Run, world: World, authority: Authority) -> None:
    world.srvs[SUBMISSIONS] = [
        Srv(0, 1, 465, "a.example.org"),
        Srv(1, 1, 465, "b.example.org"),
        Srv(2, 1, 465, "c.example.org"),
    ]
    with (
        serving(submission(world, "other.example")) as wrong,
        serving(submission(world, "b.example.org", logins=False)) as useless,
    ):
        world.ports["a.example.org", 465] = wrong
        world.ports["b.example.org", 465] = useless
        result = cli("discover", "ann@example.org", "--ca", authority.file)
    assert result.exit_code == 1
    shown = " ".join(result.stdout.split())
    assert "a.example.org:465 TLS SRV record the certificate is not for a.example.org" in shown
    assert "b.example.org:465 TLS SRV record no logins are offered there" in shown
    assert "c.example.org:465 TLS SRV record there is no host named c.example.org" in shown
    assert "no server was found to which ann@example.org could hand its mail" in shown
    assert "For your mail program" not in shown
    result = cli("discover", "ann@example.org", "--ca", authority.file, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["best"] is None


def test_all_goes_on(cli: Run, world: World, authority: Authority) -> None:
    world.srvs[SUBMISSIONS] = [Srv(0, 1, 465, MAIL)]
    world.mxs["example.org"] = [Mx(0, "mx.hoster.example")]
    with serving(submission(world, MAIL)) as port:
        world.ports[MAIL, 465] = port
        result = cli("discover", "ann@example.org", "--ca", authority.file, "--all")
    assert result.exit_code == 0, result.output
    assert "smtp.hoster.example:465   TLS        provider's name" in result.stdout


def test_no_network(cli: Run, world: World) -> None:
    world.srvs |= {SUBMISSION: ResolveFailed("x"), SUBMISSIONS: ResolveFailed("x")}
    world.mxs["example.org"] = ResolveFailed("x")
    lost = FetchError("no answer: unreachable", failed=True)
    world.files |= {OWN_FILE: lost, WELL_KNOWN: lost}
    result = cli("discover", "ann@example.org")
    assert result.exit_code == 1
    assert "no name server answered: either there is no network here" in result.stdout


def test_no_such_domain(cli: Run, world: World) -> None:
    missing = NoSuchDomain("x")
    world.srvs |= {SUBMISSION: missing, SUBMISSIONS: missing}
    world.mxs["example.org"] = missing
    result = cli("discover", "ann@example.org")
    assert result.exit_code == 1
    assert "there is no domain example.org" in result.stdout


def test_no_stranger_steers_the_terminal(cli: Run, world: World) -> None:
    world.srvs[SUBMISSIONS] = [Srv(0, 1, 465, "\x1b]0;x\x07.example.org")]
    world.files[OWN_FILE] = config(server(username="&#x202e;moc", authentication="\x7f"))
    result = cli("discover", "ann@example.org")
    assert not any(c in result.output for c in "\x1b\x07\x7f\u202e")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Missing argument"),
        (["ann"], "not a mail address: 'ann'"),
        (["ann@[192.0.2.1]"], "has an IP address where its domain would be"),
        (["ann@192.0.2.1"], "has no domain that the DNS could know"),
        (["ann@example.org", "--timeout", "0"], "not in the range"),
        (["ann@example.org", "--ca", "missing"], "does not exist"),
    ],
)
def test_wrong_usage(cli: Run, arguments: list[str], words: str) -> None:
    result = cli("discover", *arguments)
    assert result.exit_code == 2
    assert words in result.stderr


@pytest.mark.parametrize(("module", "package"), [("httpx", "httpx"), ("dns", "dnspython")])
def test_a_missing_package_is_named(module: str, package: str) -> None:
    def run(code: str) -> "subprocess.CompletedProcess[str]":
        hidden = f"import sys; sys.modules[{module!r}] = None; sys.argv[1:] = ['discover', 'a@b']; "
        command = [sys.executable, "-c", hidden + code]
        env = {"PYTHONPATH": str(SOURCE)}
        return subprocess.run(command, capture_output=True, text=True, env=env, check=False)

    done = run("from smtpproto.cli import main; main()")
    assert done.returncode == 1
    assert f"needs {package}, which is not installed" in done.stderr
    assert "Traceback" not in done.stderr
    done = run("import smtpproto.discover")
    assert f"smtpproto.discover needs {package}" in done.stderr
    assert "pip install 'smtpproto[discover]'" in done.stderr
