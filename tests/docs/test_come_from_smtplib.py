"""The page that leads from smtplib here: both sides of each row are run, and do the same."""

import ast
import re
import smtplib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import aiosmtplib
import anyio
import pytest
from anyio.from_thread import start_blocking_portal
from attrs import evolve, frozen

import smtpproto
from smtpproto import STANDARD, BadCommand, Command, Expn, Help, Reply, Vrfy, blocking, result
from smtpproto.client import (
    Client,
    ClientDeadlines,
    TcpConnector,
    UnixConnector,
    send_message,
)
from smtpproto.extensions.dsn import NEVER, NOTIFY
from smtpproto.extensions.etrn import Etrn
from smtpproto.handler import Session
from smtpproto.handlers import Discard
from smtpproto.message import envelope_of
from smtpproto.testing import HARD, Fault, SmtpServer
from tests.adapters.store import Store
from tests.peers.programs import free_port

from .pages import DOCS

PAGE = DOCS / "howto" / "come-from-smtplib.md"
PATIENCE = 30
PASSWORD = "hunter2"
CONTENT = "Subject: hello\r\n\r\n.Good morning\r\n"


@frozen
class Row:
    """One line of a table; each side is code, one statement after the other."""

    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    when: str


def code(cell: str) -> tuple[str, ...]:
    return tuple(re.findall(r"`([^`]+)`", cell))


def rows(heading: str) -> list[Row]:
    text = PAGE.read_text(encoding="utf-8")
    (section,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    found = []
    for line in re.findall(r"^\| (`.*) \|$", section, re.MULTILINE):
        theirs, ours, *when = line.split(" | ")
        found.append(Row(code(theirs), code(ours), "".join(when)))
    return found


OPENING = rows("Open a session")
CALLS = rows("Send and ask")
ERRORS = rows("Catch errors")
AIO = rows("Come from aiosmtplib")


def ids(row: Row) -> str:
    return row.theirs[-1]


def test_the_tables_are_found() -> None:
    assert [len(table) for table in (OPENING, CALLS, ERRORS, AIO)] == [9, 13, 13, 5]
    assert all(row.theirs and len(row.ours) == 1 for row in [*OPENING, *CALLS, *ERRORS, *AIO])


class Knowing(Discard):
    """Has something to say to each question."""

    async def before(
        self, session: Session, command: Command | BadCommand, usual: Reply
    ) -> Reply | None:
        if isinstance(command, (Vrfy, Expn)):
            return Reply(250, "2.1.5", "<ann@example.org>")
        if isinstance(command, Help):
            return Reply(214, "2.0.0", "Read RFC 5321")
        return Reply(253, "2.0.0", "1 message") if isinstance(command, Etrn) else None


#: What is asked for by both sides in the same words: no BDAT.
OFFER = [
    evolve(each, obliges="")
    for each in STANDARD
    if each.keyword in {"SIZE", "DSN", "ETRN", "EXPN", "HELP"}
]


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, SmtpServer]]:
    """By how TLS begins there."""
    with (
        SmtpServer(offer=OFFER, handler=Knowing()) as clear,
        SmtpServer(tls="starttls", accounts={"ann": PASSWORD}) as starttls,
        SmtpServer(tls="implicit") as implicit,
    ):
        yield {"clear": clear, "starttls": starttls, "implicit": implicit}


def message() -> EmailMessage:
    made = EmailMessage()
    made["From"], made["To"] = "Ann <ann@example.org>", "Bob <bob@example.net>"
    made["Cc"], made["Bcc"] = "carol@example.net", "dan@example.net"
    made["Subject"] = "hello"
    made.set_content("Good morning\n")
    return made


#: What stands on the page is run with these.
NAMES = {
    name: getattr(smtpproto, name)
    for name in ("Envelope", "Rcpt", "Noop", "Rset", "Vrfy", "Expn", "Help")
} | {
    "ClientDeadlines": ClientDeadlines,
    "Etrn": Etrn,
    "NEVER": NEVER,
    "NOTIFY": NOTIFY,
    "TcpConnector": TcpConnector,
    "UnixConnector": UnixConnector,
    "aiosmtplib": aiosmtplib,
    "content": CONTENT,
    "envelope_of": envelope_of,
    "password": PASSWORD,
    "send_message": send_message,
    "smtplib": smtplib,
}


def run(code: str, names: dict[str, Any]) -> Any:
    return eval(compile(ast.parse(code, mode="eval"), str(PAGE), "eval"), {**NAMES, **names})


def what_came(server: SmtpServer) -> list[tuple[object, ...]]:
    """Each message, with what is known of who sent it; its lines in any order."""
    return [
        (
            received.sender,
            sorted(received.recipients),
            [dict(rcpt.parameters) for rcpt in received.envelope.rcpts],
            sorted(received.content.split(b"\r\n")),
            received.session.tls is not None,
            received.session.identity,
            received.session.peer[0],
        )
        for received in server.messages
    ]


# Sessions


@pytest.mark.parametrize("row", OPENING, ids=ids)
def test_sessions_are_the_same(
    row: Row, servers: dict[str, SmtpServer], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if "LMTP" in row.theirs[0]:
        with mail_store(tmp_path / "lmtp") as store:
            theirs, ours = run_sessions(row, {"path": str(tmp_path / "lmtp")}, store.received.copy)
        assert theirs == ours[:1] == ours[1:]
        return
    steps = {step.split("(")[0] for step in row.theirs}
    kind = "starttls" if "smtp.starttls" in steps else "clear"
    if "smtplib.SMTP_SSL" in steps:
        kind = "implicit"
    server = servers[kind]
    context = server.authority.client_context() if kind != "clear" else None
    names = {"host": server.host, "port": server.port, "context": context}
    capfd.readouterr()
    server.clear()
    theirs, ours = run_sessions(row, names, lambda: what_came(server))
    assert theirs == ours[:1] == ours[1:]
    helos = {received.session.helo_name for received in server.messages}
    assert ("me.example" in row.theirs[0]) == (helos == {"me.example"})
    # Who watches sees the commands in both.
    shown = capfd.readouterr()
    watched = {"MAIL" in shown.err.upper(), "MAIL" in shown.out.upper()}
    assert watched == {"smtp.set_debuglevel" in steps}


def run_sessions(row: Row, names: dict[str, Any], came: Callable[[], list[Any]]) -> tuple[Any, Any]:
    opening, *steps = row.theirs
    with run(opening, names) as smtp:
        for step in steps:
            run(step, {**names, "smtp": smtp})
        assert smtp.sendmail("ann@example.org", ["bob@example.net"], CONTENT) == {}
    theirs = came()
    with run(row.ours[0], {**names, "Client": blocking.Client}) as client:
        client.send(smtpproto.Envelope("ann@example.org", ["bob@example.net"]), CONTENT)
    return theirs, came()


class mail_store(AbstractContextManager[Store]):  # noqa: N801 - read as a word
    """A store that speaks LMTP at a UNIX socket, for two sessions."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._portal = start_blocking_portal()

    def __enter__(self) -> Store:
        store = Store(offer=())
        portal = self._portal.__enter__()
        ready = threading.Event()

        async def serve() -> None:
            async with await anyio.create_unix_listener(self._path) as listener:
                ready.set()
                for _ in range(2):
                    async with await listener.accept() as stream:
                        await store.serve(stream)

        self._serving = portal.start_task_soon(serve)
        assert ready.wait(PATIENCE)
        return store

    def __exit__(self, *error: object) -> None:
        self._serving.result(PATIENCE)
        self._portal.__exit__(None, None, None)


# Calls


def plain(value: object) -> object:
    """A reply as smtplib has it."""
    if isinstance(value, Reply):
        status = f"{value.status} " if value.status else ""
        return value.code, f"{status}{value.text}"
    if isinstance(value, tuple):
        code, text = value
        return code, text.decode()
    if isinstance(value, bytes):
        return value.decode()
    return value


@pytest.mark.parametrize("row", CALLS, ids=ids)
def test_calls_do_the_same(row: Row, servers: dict[str, SmtpServer]) -> None:
    server = servers["clear"]

    def seen() -> list[object]:
        """The commands behind EHLO, without what they are dressed in; and what arrived.

        Recipients in any order: smtplib has those of Bcc before those of Cc.
        """
        said = [re.sub(r"^\d+ ", "", line) for line in server.dialogue]
        said = [line for line in said if line.startswith("C: ") and not line.startswith("C: EHLO")]
        came = what_came(server)
        server.clear()
        said = [re.sub(r" (SIZE|BODY)=\S+", "", line).upper() for line in said]
        rcpts = iter(sorted(line for line in said if "C: RCPT" in line))
        return [[next(rcpts) if "C: RCPT" in line else line for line in said], came]

    server.clear()
    with smtplib.SMTP(server.host, server.port) as smtp:
        smtp.ehlo()
        theirs = run(row.theirs[0], {"smtp": smtp, "message": message()})
    by_theirs = seen()
    with blocking.Client(server.host, server.port, tls="none") as client:
        ours = run(row.ours[0], {"client": client, "message": message()})
    assert seen() == by_theirs
    assert by_theirs[0]
    if "send" in row.theirs[0]:
        assert theirs == {}
        assert by_theirs[1]
    elif row.theirs[0] != "smtp.quit()":
        assert plain(theirs) in (plain(ours), ("".join(str(ours).split(" ", 1)[1:])))


# Errors


@frozen
class Trouble:
    """What goes wrong, and how each side meets it."""

    faults: tuple[Fault, ...] = ()
    server: str = "clear"
    recipient: str = "bob@example.net"
    starttls: bool = False
    trusts: bool = True
    login: bool = False
    silent: bool = False
    gone: bool = False


CUT = {"cut": "before"}
TROUBLES = {
    "the greeting is no welcome": Trouble((Fault("CONNECT", Reply(554, None, "No")),)),
    "neither EHLO nor HELO will do": Trouble((Fault("EHLO", HARD), Fault("HELO", HARD))),
    "the login is refused": Trouble(server="starttls", starttls=True, login=True),
    "STARTTLS is wanted and not offered": Trouble(starttls=True),
    "the certificate is not to be trusted": Trouble(server="starttls", starttls=True, trusts=False),
    "nobody listens": Trouble(gone=True),
    "the greeting does not come": Trouble(silent=True),
    "the connection breaks before a session is open": Trouble((Fault("CONNECT", cut="before"),)),
    "MAIL is refused": Trouble((Fault("MAIL", HARD),)),
    "each RCPT is refused": Trouble((Fault("RCPT", HARD),)),
    "DATA or the content is refused": Trouble((Fault(".", HARD),)),
    "the connection breaks within a transaction": Trouble((Fault(".", cut="before"),)),
    "an address needs SMTPUTF8, which is not offered": Trouble(recipient="jürg@example.net"),
}


def test_each_trouble_is_on_the_page() -> None:
    assert [row.when for row in ERRORS] == list(TROUBLES)


@pytest.mark.parametrize("row", ERRORS, ids=lambda row: row.when)
def test_errors_stand_for_the_same(row: Row, servers: dict[str, SmtpServer]) -> None:
    trouble = TROUBLES[row.when]
    server = servers[trouble.server]
    context = server.authority.client_context() if trouble.server != "clear" else None
    if not trouble.trusts:
        context = ssl.create_default_context()
    login = ("ann", "guess") if trouble.login else None
    server.faults = trouble.faults
    with closing(socket.create_server((server.host, 0))) as mute:
        port = mute.getsockname()[1] if trouble.silent else server.port
        port = free_port() if trouble.gone else port
        seconds = 0.2 if trouble.silent else PATIENCE
        try:
            with pytest.raises(Exception) as theirs:  # noqa: PT011 - the page says which
                by_smtplib((server.host, port), trouble, context, login, seconds)
            client = blocking.Client(
                server.host,
                port,
                tls="required" if trouble.starttls else "none",
                ssl_context=context,
                login=login,
                deadlines=ClientDeadlines(greeting=seconds),
            )
            envelope = smtpproto.Envelope("ann@example.org", [trouble.recipient])
            with pytest.raises(result.ClientError) as ours, client:
                client.send(envelope, CONTENT)
        finally:
            server.faults = ()
    assert (type(theirs.value).__name__, type(ours.value).__name__) == (*row.theirs, *row.ours)


def by_smtplib(
    address: tuple[str, int],
    trouble: Trouble,
    context: ssl.SSLContext | None,
    login: tuple[str, str] | None,
    seconds: float,
) -> None:
    with smtplib.SMTP(*address, timeout=seconds) as smtp:
        if trouble.starttls:
            smtp.starttls(context=context)
        if login is not None:
            smtp.login(*login)
        made = message()
        del made["To"], made["Cc"], made["Bcc"]
        made["To"] = trouble.recipient
        smtp.send_message(made)


def test_the_words_on_errors_hold() -> None:
    assert issubclass(smtplib.SMTPRecipientsRefused, smtplib.SMTPException)
    errors = {name for row in ERRORS for name in row.ours}
    assert all(issubclass(getattr(result, name), result.ClientError) for name in errors)
    assert issubclass(smtplib.SMTPAuthenticationError, smtplib.SMTPResponseException)


# What differs on purpose


def test_smtplib_verifies_nobody_without_a_context(servers: dict[str, SmtpServer]) -> None:
    server = servers["starttls"]
    with smtplib.SMTP(server.host, server.port) as smtp:
        assert smtp.starttls()[0] == 220
    with pytest.raises(result.TlsError), blocking.Client(server.host, server.port):
        pytest.fail("it trusts anybody")


def test_smtplib_sends_a_bare_line_end_and_takes_ascii_alone(
    servers: dict[str, SmtpServer],
) -> None:
    server = servers["clear"]
    everybody = ("ann@example.org", ["bob@example.net"])
    envelope = smtpproto.Envelope(*everybody)
    with smtplib.SMTP(server.host, server.port) as smtp:
        with pytest.raises(UnicodeEncodeError):
            smtp.sendmail(*everybody, "Grüße\n")
        with pytest.raises(smtplib.SMTPDataError):  # our server, which does not take it
            smtp.sendmail(*everybody, b"a\n.\nb\r\n")
    with (
        blocking.Client(server.host, server.port, tls="none") as client,
        pytest.raises(smtpproto.LocalProtocolError),
    ):
        client.send(envelope, b"a\n.\nb\r\n")
    starttls = servers["starttls"]
    context = starttls.authority.client_context()
    with blocking.Client(starttls.host, starttls.port, ssl_context=context) as client:
        client.send(envelope, "Subject: x\n\nGrüße\n")
    assert starttls.messages[-1].content.endswith("Grüße\r\n".encode())


# aiosmtplib


@pytest.mark.parametrize("row", AIO, ids=ids)
def test_aiosmtplib_does_the_same(row: Row, servers: dict[str, SmtpServer]) -> None:
    clear = "start_tls=False" in row.theirs[0]
    server = servers["clear" if clear else "starttls"]
    context = None if clear else server.authority.client_context()

    async def both() -> list[Any]:
        seen = []
        for line in (row.theirs[0], row.ours[0]):
            server.clear()
            names: dict[str, Any] = {
                **NAMES,
                "Client": Client,
                "host": server.host,
                "port": server.port,
                "context": context,
                "message": message(),
            }
            exec(f"async def run():\n    {line}", names)
            await names["run"]()
            said = [each for each in server.dialogue if each.endswith(("C: NOOP", "C: QUIT"))]
            seen.append((what_came(server), [each.split()[-1] for each in said]))
        return seen

    theirs, ours = anyio.run(both)
    assert theirs == ours
    assert ours[0] or clear
