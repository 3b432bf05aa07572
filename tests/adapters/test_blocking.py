"""The blocking face: the same client, wherever it is called from, and nothing of it left behind."""

import asyncio
import inspect
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.message import EmailMessage
from pathlib import Path

import anyio
import pytest
from anyio.abc import SocketAttribute

from smtpproto import Envelope, LocalProtocolError, Noop, Reply
from smtpproto import client as asynchronous
from smtpproto.blocking import Client, send_message
from smtpproto.client import ClientDeadlines
from smtpproto.connector import UnixConnector
from smtpproto.handler import ContentStream, Session
from smtpproto.handlers import Discard
from smtpproto.observe import Closed, CommandSent, Event
from smtpproto.result import (
    ClientError,
    ConnectError,
    DeliveryError,
    Fate,
    LoginError,
    RefusedError,
    TlsError,
)
from smtpproto.testing import HARD, SOFT, Fault, SmtpServer

ROOT = Path(__file__).parents[2]
ENVELOPE = Envelope("ann@example.org", ["bob@example.net"])
MESSAGE = b"Subject: hello\r\n\r\nGood morning\r\n"
PATIENCE = 60

pytestmark = pytest.mark.usefixtures("unmeasured")


@pytest.fixture(params=["asyncio", "trio"])
def server(request: pytest.FixtureRequest) -> Iterator[SmtpServer]:
    with SmtpServer(backend=request.param) as one:
        yield one


@pytest.fixture(scope="module")
def secure() -> Iterator[SmtpServer]:
    with SmtpServer(tls="starttls", accounts={"ann": "sëcret"}, login_required=True) as one:
        yield one


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    """Whatever a test does, the client's threads have ended, or do as soon as they are told."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        if thread.name.startswith(("smtpproto", "AnyIO worker")):
            thread.join(PATIENCE)
            assert not thread.is_alive(), thread


def clear(server: SmtpServer, **options: object) -> Client:
    return Client(server.host, server.port, tls="none", **options)  # type: ignore[arg-type]  # any


# The same client


def public(kind: type) -> dict[str, object]:
    return {
        name: member
        for name, member in inspect.getmembers_static(kind)
        if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, property))
    }


def test_it_has_all_that_the_client_has() -> None:
    theirs, ours = public(asynchronous.Client), public(Client)
    assert {name.removeprefix("a") if name == "aclose" else name for name in theirs} | {
        "greeting"
    } == set(ours)
    for name, method in theirs.items():
        if inspect.isfunction(method) and name != "aclose":
            mine = ours[name]
            assert callable(mine)
            assert list(inspect.signature(mine).parameters) == list(
                inspect.signature(method).parameters
            )


def test_it_takes_the_arguments_of_the_client() -> None:
    assert inspect.signature(Client).parameters == inspect.signature(asynchronous.Client).parameters
    for function in (send_message, asynchronous.send_message):
        message, *others = inspect.signature(function).parameters.values()
        assert (message.name, message.kind) == ("message", message.POSITIONAL_ONLY)
        assert others == list(inspect.signature(Client).parameters.values())
    with pytest.raises(TypeError, match="prot"):
        Client("localhost", prot=25)  # type: ignore[call-arg]  # so type checkers see it, too
    with pytest.raises(TypeError, match="greeting"):
        Client("localhost", greeting=None)  # type: ignore[call-arg]  # it is no argument
    with pytest.raises(ValueError, match="nonsense"):
        Client("localhost", tls="nonsense")
    with pytest.raises(LocalProtocolError, match="port 25"):
        Client("localhost", 25, lmtp=True)


def test_a_session(server: SmtpServer) -> None:
    with clear(server, helo_name="me.example") as client:
        assert client.greeting is not None
        assert client.greeting.code == 220
        assert "PIPELINING" in client.offered
        assert client.tls_info is None
        assert client.usable
        assert client.stream.extra(SocketAttribute.remote_address) == (server.host, server.port)
        assert client.send(ENVELOPE, MESSAGE).all_accepted
        assert client.deliver(ENVELOPE, "Subject: more\n\n").all_accepted
        assert client.command(Noop()).code == 250
    assert [message.content for message in server.messages] == [MESSAGE, b"Subject: more\r\n\r\n"]
    assert server.messages[0].session.helo_name == "me.example"
    assert "1 C: QUIT" in server.dialogue
    assert "me.example" in repr(client)


def test_with_tls_and_a_login(secure: SmtpServer) -> None:
    trusting = secure.authority.client_context()
    login = ("ann", "sëcret")
    with Client(secure.host, secure.port, ssl_context=trusting, login=login) as client:
        assert client.tls_info is not None
        client.send(ENVELOPE, MESSAGE)
    assert secure.messages[-1].session.identity == "ann"
    assert "sëcret" not in repr(client)
    wrong = Client(secure.host, secure.port, ssl_context=trusting, login=("ann", "guess"))
    with pytest.raises(LoginError), wrong:
        pytest.fail("it was let in")
    with pytest.raises(TlsError), Client(secure.host, secure.port):
        pytest.fail("it trusts anybody")


def test_errors_are_those_of_the_client(server: SmtpServer) -> None:
    with clear(server) as client:
        server.faults = [Fault("RCPT", HARD, times=1)]
        with pytest.raises(DeliveryError) as caught:
            client.send(Envelope(None, ["no@example.net", "bob@example.net"]), MESSAGE)
        assert [outcome.fate for outcome in caught.value.result.outcomes] == [
            Fate.PERMANENT,
            Fate.ACCEPTED,
        ]
        server.faults = [Fault("RCPT", SOFT)]
        assert client.deliver(ENVELOPE, MESSAGE).outcomes[0].fate is Fate.TRANSIENT
        server.faults = ()
        with pytest.raises(LocalProtocolError, match="bare CR or LF"):
            client.send(ENVELOPE, b"a\nb\r\n")
        with pytest.raises(TypeError, match="no content can be made of int"):
            client.send(ENVELOPE, 3)  # type: ignore[arg-type]  # that is what is tested
        client.send(ENVELOPE, MESSAGE)  # none of these ended the session
    server.faults = [Fault("CONNECT", Reply(554, None, "No"))]
    with pytest.raises(RefusedError), clear(server):
        pytest.fail("it was let in")
    server.stop()
    with pytest.raises(ConnectError), clear(server):
        pytest.fail("there is nobody")


def test_deadlines_are_those_of_the_client(server: SmtpServer) -> None:
    server.faults = [Fault(".", delay=PATIENCE)]
    with clear(server, deadlines=ClientDeadlines(final_dot=0.05)) as client:
        (outcome,) = client.deliver(ENVELOPE, MESSAGE).outcomes
        assert (outcome.fate, outcome.reason) == (
            Fate.UNKNOWN,
            "no progress within the final_dot deadline of 0.05 s",
        )
        assert not client.usable
    server.faults = [Fault("CONNECT", delay=PATIENCE)]
    impatient = clear(server, deadlines=ClientDeadlines(greeting=0.05))
    with pytest.raises(ConnectError, match="greeting deadline"), impatient:
        pytest.fail("it was welcomed")


def test_a_session_is_open_within_its_block_and_may_be_opened_again(server: SmtpServer) -> None:
    client = clear(server)
    for _ in range(2):
        with pytest.raises(ClientError, match="no session"):
            client.send(ENVELOPE, MESSAGE)
        with client:
            client.send(ENVELOPE, MESSAGE)
            with pytest.raises(ClientError, match="open already"):
                client.__enter__()
        client.close()  # once more does nothing
    assert len(server.messages) == 2
    server.faults = [Fault("CONNECT", SOFT, times=1)]
    with pytest.raises(RefusedError):
        client.__enter__()
    with client:  # and after one that failed
        client.send(ENVELOPE, MESSAGE)


def test_to_a_mail_store_by_a_unix_socket(tmp_path: Path) -> None:
    """LMTP, and a connector: each recipient with a verdict of its own (RFC 2033 §4.2)."""
    path = tmp_path / "lmtp"
    said = (
        b"220 store LMTP\r\n",
        b"250-store\r\n250 PIPELINING\r\n",
        b"250 ok\r\n250 ok\r\n250 ok\r\n354 go on\r\n",
        b"250 kept\r\n452 4.2.2 Full\r\n",
        b"221 bye\r\n",
    )

    async def store(started: threading.Event) -> None:
        async with await anyio.create_unix_listener(path) as listener:
            started.set()
            async with await listener.accept() as stream:
                for reply in said:
                    await stream.send(reply)
                    if reply is not said[-1]:
                        await stream.receive()

    here, told = threading.get_ident, list[tuple[tuple[int, Reply], int]]()
    started = threading.Event()
    with ThreadPoolExecutor(1) as thread:
        serving = thread.submit(anyio.run, store, started)
        assert started.wait(PATIENCE)
        with Client("store", lmtp=True, tls="none", connector=UnixConnector(path)) as client:
            envelope = Envelope(None, ["a@x.example", "b@x.example"])
            result = client.deliver(
                envelope, MESSAGE, told=lambda *each: told.append((each, here()))
            )
        serving.result(PATIENCE)
    assert [outcome.fate for outcome in result.outcomes] == [Fate.ACCEPTED, Fate.TRANSIENT]
    assert told == [((n, outcome.reply), here()) for n, outcome in enumerate(result.outcomes)]


# Content


def test_content_of_every_kind(server: SmtpServer, tmp_path: Path) -> None:
    path = tmp_path / "message"
    path.write_bytes(MESSAGE)
    message = EmailMessage()
    message["Subject"] = "hello"
    message.set_content("Good morning\n")

    async def pieces() -> AsyncIterator[bytes]:
        await anyio.lowlevel.checkpoint()
        yield MESSAGE

    with clear(server) as client:
        client.send(ENVELOPE, MESSAGE)
        client.send(ENVELOPE, MESSAGE.decode())
        client.send(ENVELOPE, path)
        with path.open("rb") as file:
            client.send(ENVELOPE, file)
        client.send(ENVELOPE, [MESSAGE[:9], b"", MESSAGE[9:]])
        client.send(ENVELOPE, iter([MESSAGE]))
        client.send(ENVELOPE, pieces())
        client.send(ENVELOPE, message)
    *same, flattened = (message.content for message in server.messages)
    assert same == [MESSAGE] * 7
    assert flattened.endswith(b"\r\n\r\nGood morning\r\n")


@pytest.mark.parametrize("content", [bytearray(MESSAGE), memoryview(MESSAGE), ["text"], {1: 2}])
def test_content_comes_in_octets(server: SmtpServer, content: Iterable[bytes]) -> None:
    with clear(server) as client:
        with pytest.raises(TypeError, match=r"pieces of content are bytes, not (int|str)"):
            client.send(ENVELOPE, content)
        client.send(ENVELOPE, MESSAGE)
    assert len(server.messages) == 1


class Watching(Discard):
    """Says when the first octets of content have arrived."""

    def __init__(self) -> None:
        self.arrived = threading.Event()

    async def content(
        self, session: Session, envelope: Envelope, content: ContentStream
    ) -> Reply | None:
        async for _ in content:
            self.arrived.set()
        return None


def test_a_generator_is_not_read_ahead() -> None:
    """The server has the beginning before the generator has made the end."""
    handler = Watching()

    def pieces() -> Iterator[bytes]:
        for _ in range(3):
            yield b"x" * 70 + b"\r\n"
            yield (b"y" * 70 + b"\r\n") * 1000
        assert handler.arrived.wait(PATIENCE)
        yield b"the end\r\n"

    with SmtpServer(handler) as server, clear(server) as client:
        client.send(ENVELOPE, pieces())
        (message,) = server.messages
    assert len(message.content) == 3 * 72 * 1001 + len("the end\r\n")


def test_a_generator_runs_where_the_caller_does(server: SmtpServer) -> None:
    """In its thread, and in no event loop: what asks for that (a database) finds it."""
    seen: list[object] = []

    def pieces() -> Iterator[bytes]:
        seen.append(threading.get_ident())
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        yield MESSAGE

    with clear(server) as client:
        client.send(ENVELOPE, pieces())
    assert seen == [threading.get_ident()]


class OwnError(Exception):
    pass


@pytest.mark.parametrize("big", [False, True], ids=["before MAIL", "in the midst"])
def test_what_a_generator_raises_comes_out(server: SmtpServer, big: bool) -> None:
    def pieces() -> Iterator[bytes]:
        yield MESSAGE * (10_000 if big else 1)
        raise OwnError

    with clear(server) as client:
        with pytest.raises(OwnError):
            client.send(ENVELOPE, pieces())
        assert client.usable  # by BDAT (RFC 3030 §3)
        client.send(ENVELOPE, MESSAGE)
    assert len(server.messages) == 1


def test_a_generator_is_closed_where_no_more_is_wanted(server: SmtpServer) -> None:
    closed: list[int] = []

    def pieces() -> Iterator[bytes]:
        try:
            while True:
                yield MESSAGE * 10_000
        finally:
            closed.append(threading.get_ident())

    server.faults = [Fault("RCPT", HARD)]
    with clear(server) as client:
        assert not client.deliver(ENVELOPE, pieces())
        assert closed == [threading.get_ident()]


# Who is told


def test_observers_are_told_where_the_caller_is(
    server: SmtpServer, caplog: pytest.LogCaptureFixture
) -> None:
    events: list[Event] = []
    lines: list[str] = []

    def observe(event: Event) -> None:
        assert threading.current_thread() is threading.main_thread()
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        events.append(event)
        if event == CommandSent("NOOP", "NOOP"):
            raise OwnError

    with clear(server, observe=observe, trace=lines.append) as client:
        assert lines[-1].startswith("S: 250 ")  # told before the call is over
        with caplog.at_level(logging.CRITICAL, "smtpproto.blocking"):
            client.command(Noop())
    assert events[-1] == Closed()
    assert [line for line in lines if line.startswith("C: ")] == [
        "C: EHLO [127.0.0.1]",
        "C: NOOP",
        "C: QUIT",
    ]


def test_an_observer_that_fails_is_logged(
    server: SmtpServer, caplog: pytest.LogCaptureFixture
) -> None:
    def observe(event: Event) -> None:
        raise OwnError

    with clear(server, observe=observe) as client:
        client.send(ENVELOPE, MESSAGE)
    assert {record.message for record in caplog.records} == {"an observer failed"}


# Wherever it is called


@pytest.mark.anyio
async def test_in_a_thread_that_runs_an_event_loop() -> None:
    """It stands still meanwhile, as with smtplib; the session is the same one as elsewhere."""
    with SmtpServer() as server, clear(server) as client:
        client.send(ENVELOPE, MESSAGE)
        await anyio.to_thread.run_sync(client.send, ENVELOPE, MESSAGE)
        client.send(ENVELOPE, iter([MESSAGE]))
        server.faults = [Fault("RCPT", HARD)]
        with pytest.raises(DeliveryError):
            client.send(ENVELOPE, MESSAGE)
    assert [message.session.id for message in server.messages] == [1, 1, 1]


def test_in_a_callback_of_an_event_loop(server: SmtpServer) -> None:
    """There is no task, and a loop all the same."""

    async def main() -> None:
        done = asyncio.Event()

        def call() -> None:
            with clear(server) as client:
                client.send(ENVELOPE, MESSAGE)
            done.set()

        asyncio.get_running_loop().call_soon(call)
        await done.wait()

    asyncio.run(main())
    assert len(server.messages) == 1


def test_threads_that_share_a_client_take_turns(server: SmtpServer) -> None:
    def pieces(number: int) -> Iterator[bytes]:
        yield b"%d\r\n" % number
        yield b"%d\r\n" % number

    with clear(server) as client, ThreadPoolExecutor(4) as threads:
        for result in threads.map(lambda n: client.send(ENVELOPE, pieces(n)), range(40)):
            assert result.all_accepted
    assert sorted(message.content for message in server.messages) == sorted(
        b"%d\r\n%d\r\n" % (number, number) for number in range(40)
    )


@pytest.mark.parametrize(
    "call",
    [lambda client: client.send(ENVELOPE, MESSAGE), lambda client: client.close()],
    ids=["send", "close"],
)
def test_content_cannot_use_the_session_that_it_goes_by(
    server: SmtpServer, call: Callable[[Client], object]
) -> None:
    with clear(server) as client:

        def pieces() -> Iterator[bytes]:
            yield MESSAGE
            with pytest.raises(RuntimeError, match="in the midst of a call"):
                call(client)
            with clear(server) as another:
                another.send(ENVELOPE, b"of another\r\n")

        client.send(ENVELOPE, pieces())
    assert [message.content for message in server.messages] == [b"of another\r\n", MESSAGE]
    assert server.dialogue[-2] == "1 C: QUIT"


def test_the_event_loop_of_others_is_left_alone(server: SmtpServer) -> None:
    """It is none that others get when they ask for one."""

    async def loop() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    with asyncio.Runner() as runner:
        before = runner.run(loop())
        with clear(server) as client:
            assert runner.run(loop()) is before
            client.send(ENVELOPE, MESSAGE)
        assert runner.run(loop()) is before


# Whatever ends it

PRELUDE = """\
import gc, os, signal, sys, threading, time
from smtpproto import Envelope
from smtpproto.blocking import Client
from smtpproto.client import verifying
from smtpproto.result import ClientError

host, port, ca, *_ = sys.argv[1:]

def observe(event):
    print(type(event).__name__, flush=True)

def trace(line):
    print(line, flush=True)

client = Client(host, int(port), ssl_context=verifying(ca), observe=observe, trace=trace)
envelope = Envelope("ann@example.org", ["bob@example.net"])
"""


def script(server: SmtpServer, text: str, *arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [
            *(sys.executable, "-W", "error", "-c", PRELUDE + textwrap.dedent(text)),
            *(server.host, str(server.port), str(server.authority.ca_file), *map(str, arguments)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )


def ended(process: "subprocess.Popen[str]") -> list[str]:
    with process:
        try:
            return process.communicate(timeout=PATIENCE)[0].splitlines()
        finally:
            process.kill()


def until(process: "subprocess.Popen[str]", line: str) -> None:
    assert process.stdout is not None
    for each in process.stdout:
        if each == f"{line}\n":
            return
    ended(process)
    pytest.fail(f"it never said {line}")


@pytest.fixture
def encrypted() -> Iterator[SmtpServer]:
    with SmtpServer(tls="starttls") as one:
        yield one


CONTENT = "'Subject: x\\n\\n'"
INTERRUPTED = """
try:
    with client:
        client.send(envelope, {content})
except KeyboardInterrupt:
    print("usable:", client.usable)
    sys.exit(3)  # waits for all threads, also for one that is only being started
"""


def interrupted(process: "subprocess.Popen[str]", line: str) -> list[str]:
    """Press Ctrl-C where this has been said."""
    until(process, line)
    process.send_signal(signal.SIGINT)
    lines = ended(process)
    assert process.returncode == 3, lines
    assert "C: QUIT" not in lines
    return lines


@pytest.mark.parametrize(
    ("at", "line"),
    [
        ("CONNECT", "Connected"),
        ("EHLO", "C: EHLO [127.0.0.1]"),
        ("RCPT", "C: RCPT TO:<bob@example.net>"),
        (".", "C: BDAT 14 LAST"),
    ],
)
def test_ctrl_c_ends_a_call(encrypted: SmtpServer, at: str, line: str) -> None:
    """And with it the session: a reply is owed, and nobody waits for it."""
    encrypted.faults = [Fault(at, delay=PATIENCE)]
    process = script(encrypted, INTERRUPTED.format(content=CONTENT))
    assert "usable: False" in interrupted(process, line)


def test_ctrl_c_ends_content_that_the_caller_makes(encrypted: SmtpServer) -> None:
    program = """
def pieces():
    yield b"a\\r\\n" * 100_000
    print("in the midst", flush=True)
    time.sleep(600)
"""
    process = script(encrypted, program + INTERRUPTED.format(content="pieces()"))
    interrupted(process, "in the midst")
    encrypted.stop()
    assert not encrypted.messages


def test_ctrl_c_in_a_thread_with_an_event_loop(encrypted: SmtpServer) -> None:
    """As in a notebook: there the loop does not take the signal for itself."""
    encrypted.faults = [Fault(".", delay=PATIENCE)]
    program = """
import asyncio

async def main():
    signal.signal(signal.SIGINT, signal.default_int_handler)
"""
    inside = textwrap.indent(INTERRUPTED.format(content=CONTENT), "    ")
    process = script(encrypted, f"{program}{inside}\nasyncio.run(main())\n")
    assert "usable: False" in interrupted(process, "C: BDAT 14 LAST")


AT_ANY_MOMENT = """
import asyncio, random

client = Client(host, int(port), tls="none")
moments = random.Random(1)
main = threading.main_thread().ident

def pieces():
    for _ in range(20):
        yield b"x\\r\\n" * 1000

def interrupted():
    press = threading.Timer(moments.random() / 50, signal.pthread_kill, (main, signal.SIGINT))
    try:
        press.start()
        with client:
            while True:
                client.send(envelope, pieces())
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    press.join()

async def inside():
    signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupted()

for _ in range(40):
    interrupted()
    asyncio.run(inside())
"""


def test_ctrl_c_at_any_moment_ends_the_session_and_another_may_follow() -> None:
    """Also between two turns of the loop, and while a thread for it is being started."""
    with SmtpServer(tls="starttls") as server:
        process = script(server, AT_ANY_MOMENT)
        lines = ended(process)
    assert process.returncode == 0, lines
    assert lines.count("interrupted") == 80


@pytest.mark.parametrize("sent", [False, True], ids=["at rest", "used"])
def test_a_session_that_nobody_closed_keeps_no_interpreter_from_ending(
    encrypted: SmtpServer, sent: bool
) -> None:
    process = script(
        encrypted,
        f"""
        import warnings
        warnings.simplefilter("ignore", ResourceWarning)
        client.__enter__()
        if {sent}:
            client.send(envelope, b"x\\r\\n")
        print("the end", flush=True)
        """,
    )
    lines = ended(process)
    assert process.returncode == 0
    assert lines[-1] == "the end"


def test_between_calls_there_is_no_thread(encrypted: SmtpServer) -> None:
    """Those that looked a name up, or read certificates, were told to end."""
    process = script(
        encrypted,
        """
        with client:
            client.send(envelope, b"x\\r\\n")
            for thread in set(threading.enumerate()) - {threading.main_thread()}:
                thread.join(30)
            print(threading.enumerate() == [threading.main_thread()])
        """,
    )
    assert "True" in ended(process)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_process_leaves_the_session_to_its_parent(
    encrypted: SmtpServer, tmp_path: Path
) -> None:
    """And neither it nor what becomes of its copy disturbs what the parent does."""
    path = tmp_path / "message"
    path.write_bytes(b"by the parent\r\n")
    process = script(
        encrypted,
        """
        import warnings
        with client:
            client.send(envelope, b"by the parent\\r\\n")
            child = os.fork()
            if not child:
                warnings.simplefilter("ignore", ResourceWarning)
                try:
                    client.send(envelope, b"by the child\\r\\n")
                except RuntimeError as error:
                    print(error, flush=True)
                client.close()
                del client
                gc.collect()
                print("the child is done", flush=True)
                sys.exit()
            assert os.waitpid(child, 0) == (child, 0)
            with open(sys.argv[-1], "rb") as file:  # a thread of ours reads it
                client.send(envelope, file)
        """,
        path,
    )
    lines = ended(process)
    assert process.returncode == 0, lines
    assert "this session belongs to the process that opened it" in lines
    assert "the child is done" in lines
    assert lines.count("C: QUIT") == 1
    assert [message.content for message in encrypted.messages] == [b"by the parent\r\n"] * 2


# One message, one call


def mail() -> EmailMessage:
    message = EmailMessage()
    message["From"] = "Ann <ann@example.org>"
    message["To"], message["Cc"] = "Bob <bob@example.net>", "carol@example.net"
    message["Bcc"] = "dan@example.net"
    message["Subject"] = "hello"
    message.set_content("Good morning\n")
    return message


def check(server: SmtpServer) -> None:
    (message,) = server.messages
    assert message.sender == "ann@example.org"
    assert message.recipients == ["bob@example.net", "carol@example.net", "dan@example.net"]
    assert message.message["Subject"] == "hello"
    assert b"dan@example.net" not in message.content
    assert server.dialogue[-2] == "1 C: QUIT"


def test_send_message(server: SmtpServer) -> None:
    assert send_message(mail(), server.host, server.port, tls="none").all_accepted
    check(server)
    server.faults = [Fault("RCPT", HARD, times=1)]
    with pytest.raises(DeliveryError):
        send_message(mail(), server.host, server.port, tls="none")


@pytest.mark.anyio
async def test_send_message_by_the_asynchronous_client() -> None:
    with SmtpServer() as server:
        host, port = server.host, server.port
        result = await asynchronous.send_message(mail(), host, port, tls="none")
        assert len(result.outcomes) == 3
        check(server)
        server.faults = [Fault("RCPT", HARD, times=1)]
        with pytest.raises(DeliveryError):
            await asynchronous.send_message(mail(), host, port, tls="none")


@pytest.mark.anyio
async def test_a_message_without_recipients_connects_to_nobody() -> None:
    message = EmailMessage()
    message["From"] = "ann@example.org"

    async def connect(host: str, port: int) -> anyio.abc.ByteStream:
        pytest.fail("it connects")

    with pytest.raises(LocalProtocolError, match="no recipient"):
        await asynchronous.send_message(message, "localhost", connector=connect)
    with pytest.raises(LocalProtocolError, match="no recipient"):
        send_message(message, "localhost", connector=connect)


@pytest.mark.rfc("6531 3.4")
def test_an_address_beyond_ascii_asks_for_smtputf8() -> None:
    from smtpproto.extensions import SMTPUTF8, STANDARD  # noqa: PLC0415 - here alone

    message = mail()
    message["Reply-To"] = "ann@example.org"
    del message["To"]
    message["To"] = "Jürg <jürg@bücher.example>"
    offer = [one for one in STANDARD if one.keyword in {"8BITMIME", "PIPELINING"}]
    with SmtpServer(offer=[*offer, SMTPUTF8]) as server:
        send_message(message, server.host, server.port, tls="none")
        (received,) = server.messages
        assert "jürg@bücher.example" in received.recipients
        assert "SMTPUTF8" in received.envelope.mail.parameters
        assert "Jürg <jürg@bücher.example>".encode() in received.content
    with SmtpServer() as server, pytest.raises(DeliveryError) as caught:
        send_message(message, server.host, server.port, tls="none")
    assert caught.value.result.failed[0].local
