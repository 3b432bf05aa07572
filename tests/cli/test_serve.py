"""`serve` as its user has it: a process, its screen, its files, its end."""

import errno
import os
import re
import shutil
import signal
import smtplib
import socket
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from smtpproto.cli.node import ensure_certificate, load_login
from smtpproto.cli.options import cannot_listen
from tests.cli.conftest import SOURCE, Run
from tests.peers.programs import find, listening, wait_for

PATIENCE = 60
ANY_PORTS = ("--listen", "127.0.0.1:0", "--submission", "127.0.0.1:0")
MODULE = (sys.executable, "-m", "smtpproto")
DATA = Path("smtpproto-data")  # where `serve` keeps what is its own, in the test's own directory

both_backends = pytest.mark.parametrize("backend", ["asyncio", "trio"])
both_signals = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


def environment() -> dict[str, str]:
    """What the commands see; `smtpproto` is on the PATH where `./bin` has it."""
    path = f"{Path.cwd() / 'bin'}:{os.environ.get('PATH', os.defpath)}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(SOURCE), "PYTHONUNBUFFERED": "1"}


class Node:
    """A run of it, from the moment that it is ready."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.screen = self.until(r"ready")
        text = "\n".join(self.screen)
        self.smtp, self.submission = (
            int(re.findall(rf"^  {name} .*?:(\d+) ", text, re.MULTILINE)[0])
            for name in ("SMTP", "submission")
        )

    def until(self, pattern: str, times: int = 1) -> list[str]:
        """Read its lines up to one that is `pattern`, so many times."""
        lines: list[str] = []
        assert self.process.stdout is not None
        for line in self.process.stdout:
            lines.append(line.removesuffix("\n"))
            times -= re.fullmatch(pattern, lines[-1]) is not None
            if not times:
                return lines
        pytest.fail(f"it never said {pattern!r}:\n" + "\n".join(lines))

    def story(self, word: str, times: int = 1) -> list[str]:
        """Read up to the line that says `word` (a pattern) of a message, so many times."""
        return self.until(rf"\S+ \w{{15}} {word} .*", times)

    def session(self) -> smtplib.SMTP:
        """Connect to it as another server would."""
        return smtplib.SMTP("127.0.0.1", self.smtp, "client.example", PATIENCE)

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> int:
        """Read the rest of what it says; the exit code."""
        assert self.process.stdout is not None
        self.rest = self.process.stdout.read()
        return self.process.wait()


@contextmanager
def serving(*options: object, command: tuple[str, ...] = MODULE, umask: int = -1) -> Iterator[Node]:
    """Run it in this directory, on any free ports; it is killed should it take too long."""
    process = subprocess.Popen(
        [*command, "serve", *ANY_PORTS, *map(str, options)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
        umask=umask,
    )
    assert process.stdout is not None
    watchdog = threading.Timer(PATIENCE, process.kill)
    watchdog.start()
    try:
        yield Node(process)
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()
        process.stdout.close()


def refused(*options: object, command: tuple[str, ...] = MODULE) -> tuple[int, str]:
    """Run it where it cannot start: the exit code, and the one line that it says."""
    done = subprocess.run(
        [*command, "serve", *map(str, options)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment(),
        timeout=PATIENCE,
        check=False,
    )
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    return done.returncode, done.stderr.strip()


@pytest.fixture
def refused_here(cli: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """Do the same in this process, where it is an error if anything begins."""

    def run(*options: object) -> tuple[int, str]:
        monkeypatch.setattr(anyio, "run", lambda *_, **__: pytest.fail("it began"))
        result = cli("serve", *options)
        assert result.stdout == ""
        assert result.stderr.count("\n") == 1, result.stderr
        return result.exit_code, result.stderr.strip()

    return run


def paste(line: str) -> "subprocess.CompletedProcess[str]":
    """Do as a person does with a line on the screen."""
    done = subprocess.run(
        ["sh", "-c", line],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done


def mails(mailbox: str = "localhost/you", data: Path = DATA) -> list[str]:
    return [file.read_text() for file in sorted((data / "mail" / mailbox / "new").glob("*"))]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# The screen


@both_backends
def test_the_screen_says_all_that_is_needed_and_then_ready(backend: str) -> None:
    with serving("--backend", backend, command=on_the_path()) as node:
        screen = node.screen
    assert len(screen) <= 24, "one screen"
    assert screen[-1] == "ready"
    parts = "\n".join(screen).split("\n\n")
    heads = [part.partition("\n")[0] for part in parts]
    assert heads[0].endswith(f"a mail node called localhost, on {backend}")
    wanted = ["Listening", "Where mail goes", "In a mail program", "Send a first message"]
    assert heads[1:-1] == wanted
    listening, mail, program, lines = parts[1:-1]
    assert node.smtp
    assert node.submission
    assert f"127.0.0.1:{node.smtp} " in listening
    assert "nobody else" in listening
    assert "smtpproto-data/mail/localhost/<mailbox>/  (Maildir)" in mail
    login = load_login(DATA)
    assert (login.host, login.port) == ("127.0.0.1", node.submission)
    assert f"127.0.0.1, {node.submission}\n" in program
    assert "STARTTLS" in program
    assert f"{login.username}, password {login.password}" in program
    assert [re.findall(r"\w+ send|swaks", line) for line in lines.split("\n")[1:]] == [
        ["smtpproto send"],
        ["swaks"],
    ]
    assert max(len(line) for line in screen if line not in lines) <= 80


def script(path: str) -> tuple[str, ...]:
    """Install the command there, as pip does."""
    file = Path(path)
    file.parent.mkdir(parents=True)
    file.write_text(f"#!{sys.executable}\nfrom smtpproto.cli import main\nmain()\n")
    file.chmod(0o755)
    return (path,)


def on_the_path() -> tuple[str, ...]:
    script("bin/smtpproto")
    return ("env", "smtpproto")


@pytest.mark.parametrize(
    ("install", "called", "backend"),
    [
        (lambda: MODULE, "-m smtpproto", "asyncio"),
        (on_the_path, "smtpproto", "trio"),
        (lambda: script(".venv/bin/smtpproto"), ".venv/bin/smtpproto", "asyncio"),
        (lambda: script("my bin/smtpproto"), "'my bin/smtpproto'", "trio"),
    ],
    ids=["module", "path", "near", "quoted"],
)
def test_our_line_sends_a_first_message_as_printed(
    install: Callable[[], tuple[str, ...]], called: str, backend: str
) -> None:
    with serving("--backend", backend, command=install()) as node:
        (line,) = (line for line in node.screen if "--subject" in line)
        assert called in line
        paste(line)
        node.story("delivered")
    (mail,) = mails()
    assert "\nSubject: Hello\n" in mail
    assert " with ESMTPSA " in mail


@both_backends
def test_the_line_for_swaks_sends_a_first_message_as_printed(backend: str) -> None:
    find("swaks", "swaks")
    with serving("--backend", backend) as node:
        (line,) = (line for line in node.screen if line.startswith("swaks"))
        paste(line)
        node.story("delivered")
    (mail,) = mails()
    assert "X-Mailer: swaks" in mail
    assert " with ESMTPSA " in mail


def test_the_lines_work_with_data_elsewhere_and_on_all_addresses() -> None:
    data = Path("my data")
    with serving("--data", data, "--submission", ":0", "--local-domain", "our.example") as node:
        assert f"  submission      *:{node.submission}  " in "\n".join(node.screen)
        for line in node.screen[node.screen.index("Send a first message") + 1 :]:
            if line.startswith("swaks") and shutil.which("swaks") is None:
                continue
            if line and line != "ready":
                paste(line)
                node.story("delivered")
    assert mails("our.example/you", data)
    assert not DATA.exists()


# What happens


@both_backends
def test_one_line_for_each_message_and_each_delivery(backend: str) -> None:
    domains = ("--local-domain", "a.example", "--local-domain", "b.example")
    with serving(*domains, "--backend", backend) as node:
        with node.session() as session:
            session.sendmail("x@ext.example", ["jo@a.example", "jo@b.example"], "Subject: 1\n\n1\n")
            session.sendmail("<>", ["jo@b.example"], "Subject: 2\n\n2\n")
        lines = node.story("delivered", 3)
        node.end()
    assert "\n".join(lines).count(" accepted ") == 2
    assert len(lines) == 5
    for line in lines:
        assert re.fullmatch(r"\d\d:\d\d:\d\d \w{15} (accepted|delivered) +<?\w.*", line), line
    (both,) = (line for line in lines if "from <x@ext.example>" in line)
    assert " for <jo@a.example>, <jo@b.example>, " in both
    assert node.rest == "stopping: what is under way may finish (once more: at once)\n"
    assert len(mails("a.example/jo")) == 1
    assert len(mails("b.example/jo")) == 2


def test_a_message_for_very_many_is_one_short_line() -> None:
    with serving() as node:
        with node.session() as session:
            to = [f"user{number}@localhost" for number in range(40)]
            session.sendmail("x@ext.example", to, "Subject: all\n\n")
        (line,) = (line for line in node.story("delivered", 40) if " accepted " in line)
    assert "<user4@localhost> and 35 more, " in line
    assert "user5" not in line


def test_mail_is_taken_for_local_domains_alone() -> None:
    with serving("--local-domain", "a.example") as node, node.session() as session:
        session.ehlo()
        session.mail("x@ext.example")
        assert session.rcpt("jo@A.Example")[0] == 250
        assert session.rcpt("jo@localhost")[0] == 550
        assert session.rcpt("jo@ext.example")[0] == 550


@both_backends
def test_other_mail_goes_to_the_smart_host_for_listed_networks(backend: str) -> None:
    other = {"asyncio": "trio", "trio": "asyncio"}[backend]
    there = Path("there")
    domain = ("--local-domain", "far.example")
    with serving("--data", there, *domain, "--backend", other) as far:
        smart_host = ("--smart-host", f"127.0.0.1:{far.smtp}", "--relay-from", "127.0.0.0/8")
        with serving(*smart_host, "--backend", backend) as node:
            screen = "\n".join(node.screen)
            assert f"to the smart host 127.0.0.1:{far.smtp}; " in screen
            assert "logged-in users and 127.0.0.0/8\n" in screen
            with node.session() as session:
                session.sendmail(
                    "x@localhost", ["jo@far.example", "jo@nowhere.example"], "Subject: far\n\n"
                )
            lines = "\n".join(node.story("reported"))
            assert re.search(r" delivered <jo@far.example> to 127.0.0.1:\d+: 250 ", lines)
            assert re.search(r" failed    <jo@nowhere.example> at 127.0.0.1:\d+: 550 ", lines)
            node.story("delivered")
        far.story("delivered")
    (mail,) = mails("far.example/jo", there)
    assert mail.count("Received: ") == 2
    (report,) = mails("localhost/x")
    assert "Final-Recipient: rfc822; jo@nowhere.example" in report


def test_settings_of_a_file_hold_and_flags_override_them(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path("etc")
    folder.mkdir()
    there = Path("there")
    with serving("--data", there) as far:
        login = load_login(there)
        (folder / "password").write_text(f"{login.password}\n")
        (folder / "node.toml").write_text(
            f"""
            data = "node"
            listen = "192.0.2.1:1"  # not ours; a flag overrides it
            hostname = "mail.our.example"
            local-domains = ["our.example", "also.example"]
            smart-host = "localhost:{far.submission}"
            smart-host-login = "{login.username}"
            smart-host-password-file = "password"
            max-message = "1K"
            relay-from = ["127.0.0.1", "::1"]

            [aliases]
            "sales@our.example" = "a@also.example"
            """
        )
        monkeypatch.setenv("SSL_CERT_FILE", str(there / "tls" / "cert.pem"))
        with serving("--config", folder / "node.toml") as node:
            assert "a mail node called mail.our.example," in node.screen[0]
            with node.session() as session:
                assert session.ehlo()[1].startswith(b"mail.our.example ")
                assert session.esmtp_features["size"] == "1024"
                session.sendmail("x@our.example", ["sales@our.example", "b@localhost"], "a: b\n\n")
            story = node.story("delivered", 2)
            assert any(line.endswith("<sales@our.example> to <a@also.example>") for line in story)
        accepted, _ = far.story("delivered")
        assert f" by ESMTPSA as {login.username}, TLSv1" in accepted
    assert len(mails("also.example/a", folder / "node")) == 1
    assert len(mails("localhost/b", there)) == 1


def test_routes_of_the_file_are_shown_and_followed(cli: Run) -> None:
    there = Path("there")
    with serving("--data", there, "--local-domain", "far.example") as far:
        login = load_login(there)
        Path("password").write_text(f"{login.password}\n")
        Path("node.toml").write_text(
            f"""
            local-domains = ["our.example"]
            relay-domains = ["backup.example"]
            relay-from = ["127.0.0.1"]

            [[routes]]
            recipients = "far.example"
            senders = "our.example"
            via = "smtp:localhost:{far.submission}"
            login = "{login.username}"
            password-file = "password"
            ca-file = "{there / "tls" / "cert.pem"}"
            [[routes]]
            recipients = [".moving.example", "backup.example"]
            via = "hold: until Monday"
            [[routes]]
            recipients = "null.example"
            via = "discard"
            [[routes]]
            recipients = "old.example"
            via = "refuse:550 5.1.6 They have moved"
            """
        )
        with serving("--config", "node.toml") as node:
            screen = "\n".join(node.screen)
            assert (
                f"far.example from our.example smtp:localhost:{far.submission} as "
                f"{login.username}, TLS required\n" in screen
            )
            assert ".moving.example, backup.example on hold: until Monday\n" in screen
            assert "null.example    discarded\n" in screen
            assert "old.example     refused: 550 5.1.6 They have moved\n" in screen
            assert "relaying to     backup.example, from everybody\n" in screen
            with node.session() as session:
                session.ehlo()
                session.mail("x@our.example")
                assert session.rcpt("a@old.example") == (550, b"5.1.6 They have moved")
                session.rset()
                to = ["a@far.example", "b@x.moving.example", "c@null.example"]
                session.sendmail("x@our.example", to, "a: b\n\n")
            story = "\n".join(node.story("(held|delivered|discarded)", 3))
            assert re.search(r" delivered <a@far.example> to localhost:\d+: 250 ", story)
            assert " held      <b@x.moving.example> on hold: until Monday" in story
            assert " discarded <c@null.example> discarded" in story
            done = " ".join(cli("queue", "list").stdout.split())
            assert re.search(r" waits \d+ \w+ <b@x.moving.example> on hold: until Monday", done)
        far.story("delivered")


def test_quotas_tags_and_a_catch_all_of_a_file() -> None:
    bob = Path("node/mail/our.example/bob")
    (bob / ".shop").mkdir(parents=True)
    Path("node.toml").write_text(
        """
        data = "node"
        listen = "127.0.0.1:0"
        submission = "127.0.0.1:0"
        local-domains = ["our.example"]
        mailbox-quota = "1K"
        subaddress-separator = "="
        subaddress-folders = true

        [mailbox-quotas]
        "ann@our.example" = { size = "1M", messages = 1 }

        [aliases]
        "@our.example" = "ann@our.example"
        """
    )
    with serving("--config", Path("node.toml")) as node:
        assert any("a mailbox holds" in line and "1 KiB" in line for line in node.screen)
        with node.session() as session:
            session.sendmail("x@ext.example", ["bob=shop@our.example"], "a: b\n\n")
            session.sendmail("x@ext.example", ["who@our.example"], "a: b\n\n")
            node.story("delivered", 2)
            with pytest.raises(smtplib.SMTPRecipientsRefused) as caught:
                session.sendmail("x@ext.example", ["ann@our.example"], "a: b\n\n")
            assert caught.value.recipients["ann@our.example"][0] == 452
            session.sendmail("x@our.example", ["bob@our.example"], f"a: b\n\n{'x' * 900}\n")
            story = node.story("reported")
            assert any(" failed " in line and "552 5.2.2" in line for line in story), story
    assert len(list((bob / ".shop" / "new").iterdir())) == 1
    assert list((bob / "new").iterdir()) == []


# What is kept


@both_backends
def test_a_restart_keeps_login_certificate_and_mail(backend: str) -> None:
    with serving("--backend", backend) as node:
        with node.session() as session:
            session.sendmail("x@ext.example", ["you@localhost"], "Subject: 1\n\n")
        node.story("delivered")
        assert node.end() == 0
    tls = {file.name: file.read_bytes() for file in (DATA / "tls").iterdir()}
    assert tls.keys() == {"cert.pem", "key.pem"}
    before = load_login(DATA)
    with serving("--backend", backend) as node:
        after = load_login(DATA)
        assert (after.username, after.password) == (before.username, before.password)
        assert after.port == node.submission
        assert after.password in "\n".join(node.screen)
    assert {file.name: file.read_bytes() for file in (DATA / "tls").iterdir()} == tls
    assert len(mails()) == 1


def test_nobody_else_reads_any_of_it() -> None:
    with serving(umask=0) as node:
        with node.session() as session:
            session.sendmail("x@ext.example", ["you@localhost"], "Subject: 1\n\n")
        node.story("delivered")
        found = [DATA, *DATA.rglob("*")]
        assert {mode(path) for path in found if path.is_dir()} == {0o700}
        assert mode(DATA / "login.toml") == mode(DATA / "tls" / "key.pem") == 0o600
        (mail,) = (path for path in found if path.is_file() and path.parent.name == "new")
        assert mode(mail) == 0o600


# The end


@contextmanager
def half_a_message(node: Node) -> Iterator[smtplib.SMTP]:
    """Be in the middle of a message."""
    session = node.session()
    try:
        session.ehlo()
        session.mail("x@ext.example")
        session.rcpt("you@localhost")
        assert session.docmd("DATA")[0] == 354
        session.send("Subject: under way\r\n\r\nfirst half\r\n")
        yield session
    finally:
        session.close()


@both_signals
@both_backends
@pytest.mark.rfc("5321 §3.8 stopping-server-says-421")
def test_a_signal_lets_what_is_under_way_finish(backend: str, number: signal.Signals) -> None:
    with (
        serving("--backend", backend) as node,
        node.session() as idle,
        half_a_message(node) as session,
    ):
        idle.ehlo()
        node.process.send_signal(number)
        node.until("stopping: .*")
        assert idle.getreply()[0] == 421
        idle.close()
        wait_for(lambda: not listening(node.smtp), "the listener to close")
        session.send("second half\r\n.\r\n")
        assert session.getreply()[0] == 250
        assert session.getreply()[0] == 421
        session.close()  # else it would listen for a while
        assert node.ended() == 0
    if not mails():  # accepted, and on disk
        with serving("--backend", backend) as node:
            node.story("delivered")
    (mail,) = mails()
    assert mail.endswith("\nfirst half\nsecond half\n")


@both_signals
@both_backends
def test_a_second_signal_does_not_wait(backend: str, number: signal.Signals) -> None:
    with serving("--backend", backend) as node:
        with half_a_message(node) as session:
            node.process.send_signal(number)
            node.until("stopping: .*")
            assert node.end(number) == 0
            code = 421  # may be said, or just done
            with suppress(smtplib.SMTPServerDisconnected, ConnectionError):
                code = session.getreply()[0]
            assert code == 421
        assert "Traceback" not in node.rest
    assert not mails()


@both_signals
@both_backends
def test_an_idle_node_ends_at_once_and_says_so(backend: str, number: signal.Signals) -> None:
    with serving("--backend", backend) as node:
        assert node.end(number) == 0
        assert node.rest.splitlines() == [
            "stopping: what is under way may finish (once more: at once)"
        ]


def shown_certificate(node: Node) -> bytes:
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname = False
    anybody.verify_mode = ssl.CERT_NONE
    with node.session() as session:
        session.starttls(context=anybody)
        assert isinstance(session.sock, ssl.SSLSocket)
        certificate = session.sock.getpeercert(binary_form=True)
        assert certificate is not None
        return certificate


@both_backends
def test_a_hangup_reads_the_certificate_again(backend: str, tmp_path: Path) -> None:
    """Where the new one is of no use, the old one stays, and why is said."""
    new = ensure_certificate(tmp_path / "new", ["localhost"])
    with serving("--backend", backend) as node:
        old = shown_certificate(node)
        shutil.copy(new.key, DATA / "tls" / "key.pem")
        node.process.send_signal(signal.SIGHUP)
        node.until("ERROR smtpproto.certificates: the old certificates stay, .* mismatch .*")
        assert shown_certificate(node) == old
        shutil.copy(new.cert, DATA / "tls" / "cert.pem")
        node.process.send_signal(signal.SIGHUP)
        node.until("the certificate was read again")
        assert shown_certificate(node) == ssl.PEM_cert_to_DER_cert(new.cert.read_text())
        assert node.end() == 0


# What is wrong is one line


@both_backends
@pytest.mark.parametrize("flag", ["--listen", "--submission"])
def test_a_port_in_use(flag: str, backend: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, line = refused(*ANY_PORTS, flag, address, "--backend", backend)
    assert code == 1
    assert (
        line == f"smtpproto: cannot listen on {address}: the address is in use by another program"
    )


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("192.0.2.1:2525", "this machine does not have that address"),
        ("nosuch.invalid:2525", "there is no such host"),
    ],
)
def test_an_address_that_is_not_ours(address: str, words: str) -> None:
    code, line = refused(*ANY_PORTS, "--listen", address)
    assert code == 1
    assert line.startswith(f"smtpproto: cannot listen on {address}: ")
    if "invalid" not in address or "looked up" not in line:  # there may be no DNS here
        assert line.endswith(words)


@pytest.mark.parametrize(
    ("at", "why", "helped"),
    [
        ("127.0.0.1:25", errno.EACCES, True),
        ("*:1023", errno.EPERM, True),
        ("*:1024", errno.EACCES, False),
        ("*:25", errno.EADDRINUSE, False),
    ],
)
def test_a_port_for_which_there_is_no_right_is_told_with_what_helps(
    at: str, why: int, helped: bool
) -> None:
    first, *advice = cannot_listen(at, OSError(why, "no")).format_message().split("\n")
    assert first.startswith(f"cannot listen on {at}: ")
    assert ["CAP_NET_BIND_SERVICE" in line for line in advice] == [True][:helped]


@both_backends
def test_data_in_use_by_another_node_which_is_left_alone(backend: str) -> None:
    with serving("--backend", backend) as node:
        before = (DATA / "login.toml").read_bytes()
        code, line = refused(*ANY_PORTS, "--backend", backend)
        assert code == 1
        assert "smtpproto-data" in line
        assert "another process serves it" in line
        assert (DATA / "login.toml").read_bytes() == before
        assert load_login(DATA).port == node.submission
        assert node.end() == 0


@both_backends
def test_data_where_a_file_is(backend: str) -> None:
    Path("file").touch()
    code, line = refused("--data", "file/data", *ANY_PORTS, "--backend", backend)
    assert code == 1
    assert line == "smtpproto: cannot keep data in file/data: Not a directory"
    assert refused("--data", "file", *ANY_PORTS)[0] == 2


@pytest.mark.parametrize("data", ["locked", "locked/data"])
def test_data_where_we_may_not_write(data: str) -> None:
    command: tuple[str, ...] = MODULE
    if os.getuid() == 0:  # root, without what makes root pass over permissions
        command = (find("setpriv", "util-linux"), "--bounding-set=-all", "--", *MODULE)
    locked = Path("locked")
    locked.mkdir(mode=0o555)
    code, line = refused("--data", data, *ANY_PORTS, command=command)
    assert code == 1
    assert line == f"smtpproto: cannot keep data in {data}: Permission denied"
    assert not list(locked.iterdir())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('listn = ":25"', 'listn: no such key; did you mean "listen"?'),
        ("listen = 25", "listen: takes a text HOST:PORT, such as"),
        ('listen = "localhost"', 'listen: "localhost" is without a port'),
        ('relay-from = ["0.0.0.0/0"]', "relay-from: "),
        ("listen =", "no TOML: "),
    ],
)
def test_a_wrong_setting_names_file_and_key_before_anything_is_opened(
    text: str, words: str, refused_here: Callable[..., tuple[int, str]]
) -> None:
    Path("node.toml").write_text(text)
    code, line = refused_here("--config", "node.toml", "--data", "data")
    assert code == 2
    assert line.startswith(f"smtpproto: node.toml: {words}")
    assert not Path("data").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--listen", "25"), "'--listen': '25' is without a port"),
        (("--submission", "a:b"), "'--submission': 'a:b' is "),
        (("--local-domain", "a b"), "'--local-domain': 'a b' is no domain name"),
        (("--smart-host", ":25"), "'--smart-host': ':25' is no HOST:PORT"),
        (("--relay-from", "10.0.0.1/8"), 'did you mean "10.0.0.0/8"?'),
        (("--config", "nosuch.toml"), "'--config': File 'nosuch.toml' does not exist"),
        (("--backend", "curio"), "'--backend'"),
    ],
)
def test_a_wrong_flag_says_what_is_accepted_before_anything_is_opened(
    options: tuple[str, ...], words: str, refused_here: Callable[..., tuple[int, str]]
) -> None:
    code, line = refused_here(*options)
    assert code == 2
    assert words in line
    assert not DATA.exists()


def test_what_is_wrong_ends_the_process() -> None:
    Path("node.toml").write_text("listen = 25")
    assert refused("--config", "node.toml")[0] == 2
    assert refused("--listen", "25")[0] == 2
    assert not DATA.exists()


def test_the_module_is_the_command() -> None:
    def said(*arguments: Any) -> str:
        return subprocess.run(
            arguments, capture_output=True, text=True, env=environment(), check=True
        ).stdout

    assert said(*MODULE, "--help") == said(*script("bin/smtpproto"), "--help")


def test_accounts_take_the_place_of_its_own_login(cli: Run) -> None:
    """One that is added while it runs may log in at once; all by TLS, at once or by STARTTLS."""
    done = cli("account", "add", "ann", SMTPPROTO_PASSWORD="horse")
    assert done.exit_code == 0
    ports = (*ANY_PORTS, "--submissions", "127.0.0.1:0", "--accounts", DATA / "accounts")
    with serving(*ports, "--local-domain", "example.org") as node:
        screen = "\n".join(node.screen)
        assert "smtpproto account --file smtpproto-data/accounts add NAME" in screen
        assert "password" not in screen
        assert not (DATA / "login.toml").exists()
        assert stat.S_IMODE((DATA / "secret").stat().st_mode) == 0o600
        (submissions,) = re.findall(r"^  submissions .*?:(\d+) ", screen, re.MULTILINE)
        assert cli("account", "add", "bob", SMTPPROTO_PASSWORD="mouse").exit_code == 0
        trusted = ssl.create_default_context(cafile=DATA / "tls" / "cert.pem")
        message = "From: {0}@example.org\r\n\r\nhello\r\n"
        with smtplib.SMTP_SSL(
            "127.0.0.1", int(submissions), timeout=PATIENCE, context=trusted
        ) as session:
            session.login("ann", "horse")
            with pytest.raises(smtplib.SMTPSenderRefused, match=r"5\.7\.1"):
                session.sendmail("bob@example.org", ["x@example.org"], message.format("bob"))
            with pytest.raises(smtplib.SMTPDataError, match=r"5\.7\.1"):
                session.sendmail("ann@example.org", ["x@example.org"], message.format("bob"))
            session.sendmail("ann@example.org", ["x@example.org"], message.format("ann"))
        with smtplib.SMTP("127.0.0.1", node.submission, timeout=PATIENCE) as session:
            session.starttls(context=trusted)
            session.login("bob", "mouse")
            session.sendmail("bob@example.org", ["x@example.org"], message.format("bob"))
        node.story("delivered", 2)
        assert node.end() == 0


def test_accounts_that_are_not_there_are_explained(cli: Run) -> None:
    said = cli("serve", *ANY_PORTS, "--accounts", "nowhere")
    assert said.exit_code == 1
    assert "cannot read the accounts in nowhere: No such file or directory" in said.output
    assert "account --file nowhere add NAME" in said.output
