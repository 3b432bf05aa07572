"""`smtpproto send`, as its user meets it."""

import binascii
import email
import email.policy
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from smtpproto.cli.node import ensure_certificate, ensure_login
from smtpproto.cli.send import exit_code
from smtpproto.core.sasl import Mechanism
from smtpproto.mechanisms import LOGIN as LOGIN_MECHANISM
from smtpproto.mechanisms import PLAIN
from smtpproto.result import Fate
from smtpproto.server import Server
from tests.cli.conftest import Run
from tests.cli.servers import LOGIN, PASSWORD, Mailroom, Site, scripted, serving
from tests.peers.programs import free_port, smtp_sink

FROM_TO = ("--from", "ann@example.org", "--to", "bob@example.net")
HELLO = (*FROM_TO, "--subject", "hello")
TO_250 = (b"220 ok\r\n", b"250 ok\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n")


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def message(tmp_path: Path) -> Path:
    path = tmp_path / "message.eml"
    path.write_bytes(b"Subject: x\n\n.dots\n.\nend")
    return path


def test_a_composed_message_is_accepted(
    cli: Run, clear_port: int, mailroom: Mailroom, backend: str
) -> None:
    result = cli("send", "--server", f"127.0.0.1:{clear_port}", *HELLO, "--backend", backend)
    assert result.exit_code == 0, result.output
    assert "accepted  <bob@example.net>  250 2.0.0" in result.stdout
    assert result.stderr == ""
    ((envelope, content),) = mailroom.mails
    assert str(envelope.reverse_path) == "<ann@example.org>"
    assert b"\r\nSubject: hello\r\n" in content


def test_a_finished_message_goes_as_it_is(
    cli: Run, clear_port: int, mailroom: Mailroom, message: Path
) -> None:
    result = cli("send", "--server", f"127.0.0.1:{clear_port}", *FROM_TO, message)
    assert result.exit_code == 0, result.output
    assert mailroom.mails[0][1] == b"Subject: x\r\n\r\n.dots\r\n.\r\nend\r\n"


def test_a_message_from_standard_input(cli: Run, clear_port: int, mailroom: Mailroom) -> None:
    server = f"127.0.0.1:{clear_port}"
    result = cli("send", "--server", server, *FROM_TO, "-", stdin=b"A: b\n\nc\n")
    assert result.exit_code == 0, result.output
    result = cli("send", "--server", server, *FROM_TO, "--body", "-", stdin="süß")
    assert result.exit_code == 0, result.output
    assert mailroom.mails[0][1] == b"A: b\r\n\r\nc\r\n"
    body = email.message_from_bytes(mailroom.mails[1][1], policy=email.policy.default)
    assert body.get_content() == "süß\r\n"


@pytest.mark.parametrize(
    ("recipients", "code", "words"),
    [
        (["a@x.y", "b@x.y"], 0, ["accepted"]),
        (["550no@x.y", "b@x.y"], 3, ["accepted", "refused", "550 5.0.0 [bold]no[/bold] no"]),
        (["450no@x.y", "b@x.y"], 3, ["accepted", "not now", "450 4.0.0 [bold]no[/bold] no"]),
        (["550a@x.y", "450b@x.y"], 1, ["refused", "not now"]),
        (["550a@x.y"], 1, ["refused  <550a@x.y>  550 5.0.0 [bold]no[/bold] a"]),
    ],
)
def test_the_exit_code_and_a_line_tell_what_became_of_each(
    cli: Run, clear_port: int, recipients: list[str], code: int, words: list[str]
) -> None:
    to = [argument for recipient in recipients for argument in ("--to", recipient)]
    arguments = ["--from", "a@b.c", "--body", "x", "--server", f"127.0.0.1:{clear_port}", *to]
    result = cli("send", *arguments)
    assert result.exit_code == code, result.output
    for word in [*words, *recipients]:
        assert word in result.stdout


def test_many_recipients_are_readable_on_80_columns(cli: Run, clear_port: int) -> None:
    local = "550" + "x" * 90
    to = ["--to", f"{local}@example.org", "--to", "b@example.org"]
    result = cli(
        "send", "--from", "a@b.c", "--body", "x", "--server", f"127.0.0.1:{clear_port}", *to
    )
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert local in "".join(line[13:47].strip() for line in lines).replace(" ", "") or (
        "".join(result.stdout.split()).count("x") >= 180  # folded, not cut
    )


@pytest.mark.rfc("1047")
def test_unknown_when_the_reply_to_the_final_dot_is_lost(cli: Run, backend: str) -> None:
    with scripted(*TO_250) as port:
        result = cli("send", "--server", f"127.0.0.1:{port}", *HELLO, "--backend", backend)
    assert result.exit_code == 4, result.output
    assert "unknown  <bob@example.net>  " in result.stdout


@pytest.mark.parametrize(
    ("fates", "code"),
    [
        ([Fate.ACCEPTED], 0),
        ([Fate.PERMANENT, Fate.TRANSIENT], 1),
        ([Fate.PERMANENT, Fate.ACCEPTED], 3),
        ([Fate.UNKNOWN, Fate.ACCEPTED], 4),
        ([Fate.UNKNOWN, Fate.PERMANENT], 4),
    ],
)
def test_exit_codes(fates: list[Fate], code: int) -> None:
    assert exit_code(fates) == code


def test_nobody_listens(cli: Run, backend: str) -> None:
    port = free_port()
    result = cli("send", "--server", f"127.0.0.1:{port}", *HELLO, "--backend", backend)
    assert result.exit_code == 1
    assert result.stderr == (
        f"smtpproto: 127.0.0.1:{port}: connection refused: nothing listens there\n"
    )
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("turns", "words"),
    [
        ([b"SSH-2.0-x\x1b[31m\r\n"], "does not keep to SMTP"),
        ([b"554 go \x1b[31maway\r\n"], "greeting was refused: 554 go \\x1b[31maway"),
        ([b"220 ok\r\n", b"421 busy\r\n"], "421 busy"),
    ],
)
def test_no_session(cli: Run, turns: list[bytes], words: str) -> None:
    with scripted(*turns) as port:
        result = cli("send", "--server", f"127.0.0.1:{port}", *HELLO)
    assert result.exit_code == 1, result.output
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stderr.count("127.0.0.1") == 1
    assert "\x1b" not in result.output


def test_tls_that_is_required_and_not_offered(
    cli: Run, clear_port: int, mailroom: Mailroom
) -> None:
    result = cli("send", "--server", f"127.0.0.1:{clear_port}", "--tls", "required", *HELLO)
    assert result.exit_code == 1
    assert "does not offer STARTTLS" in result.stderr
    assert "--tls opportunistic" in result.stderr
    assert not mailroom.mails


def test_a_certificate_that_nobody_vouches_for(cli: Run, tls_port: int, mailroom: Mailroom) -> None:
    result = cli("send", "--server", f"127.0.0.1:{tls_port}", "--tls", "required", *HELLO)
    assert result.exit_code == 1
    assert "the certificate is self-signed" in result.stderr
    assert "--ca FILE" in result.stderr
    assert not mailroom.mails


def test_a_login(cli: Run, tls_port: int, site: Site, mailroom: Mailroom, backend: str) -> None:
    Path("password").write_text(PASSWORD + "\r\nmore\n")
    server = ["--server", f"127.0.0.1:{tls_port}", "--ca", site.cert, "--backend", backend]
    login = ["--login", LOGIN, "--password-file", "password"]
    result = cli("send", *server, *login, *HELLO, "--verbose")
    assert result.exit_code == 0, result.output
    assert mailroom.identities == [LOGIN]
    assert "C: AUTH PLAIN ****" in result.stdout


@pytest.mark.parametrize("mechanism", [PLAIN, LOGIN_MECHANISM])
def test_a_password_is_never_printed(
    cli: Run, site: Site, mailroom: Mailroom, mechanism: Mechanism
) -> None:
    secret = "s3cr3t-w0rd"
    server = Server(
        mailroom,
        tls=site.context,
        authenticator=mailroom,
        mechanisms=(mechanism,),
        failed_login_delay=0,
    )
    with serving(server) as port:
        address = ["--server", f"127.0.0.1:{port}", "--ca", site.cert]
        for command in (["send", *address, *HELLO, "-v"], ["probe", *address[1:]]):
            result = cli(*command, "--login", LOGIN, SMTPPROTO_PASSWORD=secret)
            assert result.exit_code == 1
            assert "535 5.7.8" in result.output
            assert "C: ****" in result.output or "C: AUTH PLAIN ****" in result.output
            for hidden in (secret, base64(secret), base64(f"\0{LOGIN}\0{secret}")):
                assert hidden not in result.output


def base64(text: str) -> str:
    return binascii.b2a_base64(text.encode(), newline=False).decode()


def test_a_password_is_not_risked(cli: Run) -> None:
    for tls in ("none", "opportunistic"):
        result = cli(
            *("send", "--server", "192.0.2.1:25", "--login", "a", "--tls", tls, *HELLO),
            SMTPPROTO_PASSWORD="x",
        )
        assert result.exit_code == 2
        assert "could give the password to somebody in between" in result.stderr


def test_without_a_server_it_goes_to_the_local_node(
    cli: Run, mailroom: Mailroom, tmp_path: Path, backend: str
) -> None:
    data = tmp_path / "smtpproto-data"
    made = ensure_certificate(data)
    login = ensure_login(data)

    class Node(Mailroom):
        async def verify(self, session: object, question: object) -> bool:
            given = (getattr(question, "username", ""), getattr(question, "password", ""))
            return given == (login.username, login.password)

    node = Node()
    server = Server(node, tls=made.server_context(), authenticator=node)
    with serving(server) as port:
        ensure_login(data, "127.0.0.1", port)
        result = cli("send", *HELLO, "--backend", backend)
        assert result.exit_code == 0, result.output
        result = cli("send", *HELLO, "--data", data, "-v")
        assert result.exit_code == 0, result.output
    assert node.identities == [login.username] * 2
    assert login.password not in result.output


def test_without_a_node(cli: Run) -> None:
    result = cli("send", *HELLO)
    assert result.exit_code == 2
    assert "there is no node in smtpproto-data" in result.stderr


def test_a_server_that_waits_for_tls_may_be_what_hangs_up(cli: Run) -> None:
    with scripted(b"") as port:
        result = cli("send", "--server", f"127.0.0.1:{port}", *HELLO)
    assert result.exit_code == 1
    first, advice = result.stderr.splitlines()
    assert first.endswith("the server closed the connection")
    assert "--tls implicit" in advice


def test_a_node_that_does_not_run(cli: Run, tmp_path: Path) -> None:
    port = free_port()
    ensure_certificate(tmp_path / "smtpproto-data")
    ensure_login(tmp_path / "smtpproto-data", "127.0.0.1", port)
    result = cli("send", *HELLO)
    assert result.exit_code == 1
    first, advice = result.stderr.splitlines()
    assert first == f"smtpproto: 127.0.0.1:{port}: connection refused: nothing listens there"
    assert "`smtpproto serve` starts it" in advice


def test_a_node_with_accounts_has_no_login_for_us(cli: Run, tmp_path: Path) -> None:
    (tmp_path / "smtpproto-data" / "spool").mkdir(parents=True)
    result = cli("send", *HELLO)
    assert result.exit_code == 2
    assert "the node in smtpproto-data has accounts: give --server and --login" in result.stderr


def test_a_node_whose_login_cannot_be_read(cli: Run, tmp_path: Path) -> None:
    (tmp_path / "smtpproto-data").mkdir()
    (tmp_path / "smtpproto-data" / "login.toml").write_text("x")
    result = cli("send", *HELLO)
    assert result.exit_code == 2
    assert "login.toml" in result.stderr


USAGE = [
    ([], "Missing option '--from'"),
    (["--from", "a@b.c"], "Missing option '--to'"),
    (FROM_TO, "nothing to send"),
    ([*HELLO, "message.eml"], "FILE is a finished message"),
    ([*FROM_TO, "missing.eml"], "does not exist"),
    (["--from", "a", "--to", "b@c.d", "--body", "x"], "'a' is no address: there is no \"@\""),
    (["--from", "a@b.c", "--to", "ü@c.d", "--body", "x"], "beyond ASCII"),
    (["--from", "<>", "--to", "b@c.d", "--body", "x"], "needs a sender"),
    ([*FROM_TO, "--subject", "a\nb"], "cannot compose"),
    ([*HELLO, "--server", "a:b"], "'a:b' is no good: a port is a number"),
    ([*HELLO, "--server", "a", "--direct"], "exclude each other"),
    ([*HELLO, "--direct", "--count", "2"], "--count is for one server"),
    ([*HELLO, "--direct", "--login", "a"], "--login goes with a server"),
    ([*HELLO, "--direct", "--tls", "implicit"], "no implicit TLS"),
    ([*HELLO, "--server", "a", "--tls", "x"], "'x' is not one of"),
    ([*HELLO, "--server", "a", "--ca", "message.eml"], "message.eml has no certificates"),
    ([*HELLO, "--server", "a", "--login", "u"], "no password for u"),
    ([*HELLO, "--server", "a", "--password-file", "message.eml"], "goes with --login"),
    ([*HELLO, "--server", "a", "--helo", "a b"], "no domain name"),
    ([*HELLO, "--server", "a", "--attach", "missing"], "does not exist"),
    ([*HELLO, "--server", "a", "--count", "0"], "not in the range"),
]


@pytest.mark.parametrize(("arguments", "words"), USAGE, ids=[words for _, words in USAGE])
def test_wrong_usage_is_one_line_and_2(
    cli: Run, message: Path, arguments: list[str], words: str
) -> None:
    result = cli("send", *arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"hello\n", "no header field"), (b"", "empty"), (b"From x\n", "mailbox")],
)
def test_a_file_that_is_no_message(cli: Run, message: Path, content: bytes, words: str) -> None:
    message.write_bytes(content)
    for file, stdin in ((str(message), None), ("-", content)):
        result = cli("send", "--server", "a", *FROM_TO, file, stdin=stdin)
        assert result.exit_code == 2
        assert words in result.stderr


@pytest.mark.parametrize(("count", "sessions"), [(25, 4), (2, 10), (3, 1)])
def test_many(
    cli: Run, clear_port: int, mailroom: Mailroom, *, backend: str, count: int, sessions: int
) -> None:
    many = ["--count", count, "--sessions", sessions, "--backend", backend]
    result = cli("send", "--server", f"127.0.0.1:{clear_port}", *HELLO, *many)
    assert result.exit_code == 0, result.output
    assert f"{count} accepted, 0 refused, 0 failed in " in result.stdout
    assert len({content for _, content in mailroom.mails}) == count
    assert 1 <= len(mailroom.sessions) <= min(sessions, count)


@pytest.mark.parametrize(
    ("recipients", "code", "line"),
    [
        (["550a@b.c"], 1, "0 accepted, 4 refused, 0 failed"),
        (["550a@b.c", "d@e.f"], 3, "0 accepted, 4 refused, 0 failed"),
    ],
)
def test_many_refused(
    cli: Run, clear_port: int, recipients: list[str], code: int, line: str
) -> None:
    to = [argument for recipient in recipients for argument in ("--to", recipient)]
    many = ["--count", 4, "--server", f"127.0.0.1:{clear_port}", "--from", "a@b.c", "--body", "x"]
    result = cli("send", *many, *to)
    assert result.exit_code == code, result.output
    assert line in result.stdout
    assert "4 x 550 5.0.0 [bold]no[/bold] a" in result.stdout


def test_many_to_nobody(cli: Run, backend: str) -> None:
    many = ["--count", 500, "--sessions", 2, "--backend", backend]
    result = cli("send", "--server", f"127.0.0.1:{free_port()}", *HELLO, *many)
    assert result.exit_code == 1
    assert "0 accepted, 0 refused, 500 failed" in result.stdout
    assert "6 x connection refused" in result.stdout  # each session gives up after three
    assert "494 x not tried" in result.stdout


def test_a_session_that_ends_is_replaced(cli: Run) -> None:
    session = (*TO_250, b"250 taken\r\n")
    with scripted(*session) as port:
        result = cli("send", "--server", f"127.0.0.1:{port}", *HELLO, "--count", 3)
    # The second transaction of each session is lost, and the next session takes the third.
    assert result.exit_code == 3, result.output
    assert "2 accepted, 0 refused, 1 failed" in result.stdout


@pytest.mark.peer("smtp-sink")
def test_smtp_sink_takes_it(cli: Run, backend: str, tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(bytes(range(256)))
    with smtp_sink() as sink:
        result = cli(
            *("send", "--server", sink.address, *HELLO, "--attach", tmp_path / "picture.png"),
            *("--backend", backend),
        )
        assert result.exit_code == 0, result.output
        dump = sink.wait_for('filename="picture.png"')
    assert "X-Mail-Args: <ann@example.org>" in dump


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.mark.peer("smtp-sink")
@pytest.mark.parametrize(
    ("flags", "code"), [(("-r", "RCPT"), 1), (("-f", "."), 1), (("-q", "RCPT"), 1)]
)
def test_smtp_sink_refuses(cli: Run, stack: ExitStack, flags: tuple[str, ...], code: int) -> None:
    sink = stack.enter_context(smtp_sink(*flags))
    assert cli("send", "--server", sink.address, *HELLO).exit_code == code
