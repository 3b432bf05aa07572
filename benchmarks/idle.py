"""How much memory a connection holds that waits for its next command.

The server is a process of its own; so many clients connect from this one, say EHLO, and then
nothing. What its resident memory has grown by is divided by their number. It needs Linux.

    python benchmarks/idle.py [--connections N] [--backend asyncio|trio] [--tls] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import socket
import ssl
import subprocess
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path

SERVER = """
import sys
import anyio
from smtpproto.certificates import Certificates, KeyPair
from smtpproto.server import Connections, Server, ServerDeadlines

class Nobody:
    async def mail(self, session, command): pass
    async def rcpt(self, session, command): pass
    async def content(self, session, envelope, content): pass

async def main(number, directory):
    tls = None
    if directory:
        tls = Certificates(KeyPair(directory + "/tls/cert.pem", directory + "/tls/key.pem"))
    server = Server(Nobody(), tls=tls, connections=Connections(2 * number, None),
                    deadlines=ServerDeadlines(command=600))
    async with anyio.create_task_group() as tasks:
        _, port = await tasks.start(server.serve, "127.0.0.1")
        print(port, flush=True)
        await anyio.to_thread.run_sync(sys.stdin.read)  # until we are let go
        tasks.cancel_scope.cancel()

anyio.run(main, int(sys.argv[2]), sys.argv[3], backend=sys.argv[1])
"""
#: Connections before the measuring begins: what is made once is not theirs.
WARM = 50
PATIENCE = 60


def allow_files(number: int) -> int:
    """Raise how many files we may have open, as far as we may; return how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < number:
        wanted = number if hard == resource.RLIM_INFINITY else min(number, hard)
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def resident(pid: int) -> int:
    """Return a process's resident memory in octets."""
    pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def heard(connection: socket.socket, end: bytes) -> None:
    """Read one reply, whose last line begins with `end`."""
    data = b""
    while not data.endswith(b"\r\n") or not data.split(b"\r\n")[-2].startswith(end):
        more = connection.recv(4096)
        if not more:
            raise SystemExit(f"the server closed the connection: {data!r}")
        data += more


def idle(port: int, context: ssl.SSLContext | None) -> socket.socket:
    """Connect, say EHLO, and leave it at that."""
    connection = socket.create_connection(("127.0.0.1", port), PATIENCE)
    heard(connection, b"220 ")
    connection.sendall(b"EHLO idle.example\r\n")
    heard(connection, b"250 ")
    if context is not None:
        connection.sendall(b"STARTTLS\r\n")
        heard(connection, b"220 ")
        connection = context.wrap_socket(connection)
        connection.sendall(b"EHLO idle.example\r\n")
        heard(connection, b"250 ")
    return connection


def measure(backend: str, number: int, tls: bool) -> float:
    """Return octets for each of so many idle connections."""
    with ExitStack() as stack:
        directory, context = "", None
        if tls:
            from smtpproto.cli.node import ensure_certificate  # noqa: PLC0415 - not needed otherwise

            directory = stack.enter_context(tempfile.TemporaryDirectory())
            ensure_certificate(Path(directory))
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-c", SERVER, backend, str(number), directory],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        stack.callback(process.kill)
        assert process.stdout is not None
        port = int(process.stdout.readline())
        held = [stack.enter_context(idle(port, context)) for _ in range(WARM)]
        before = resident(process.pid)
        held += [stack.enter_context(idle(port, context)) for _ in range(number)]
        after = resident(process.pid)
        for connection in held[:: max(1, number // 20)]:  # they are all still there
            connection.sendall(b"NOOP\r\n")
            heard(connection, b"250 ")
        return (after - before) / number


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--connections", type=int, default=5000, metavar="N")
    parser.add_argument("--backend", choices=["asyncio", "trio"], action="append")
    parser.add_argument("--tls", action="store_true", help="each of them under TLS")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the figures, in octets")
    given = parser.parse_args()
    number = min(
        given.connections, allow_files(given.connections + 2 * WARM + 100) - 2 * WARM - 100
    )
    if number < given.connections:
        print(f"only {number} connections, as no more files may be open (ulimit -n)")
    figures: dict[str, float] = {}
    for backend in given.backend or ["asyncio", "trio"]:
        figures[backend] = measure(backend, number, given.tls)
        how = "under TLS" if given.tls else "in clear"
        kib = figures[backend] / 1024
        print(f"{backend:8} {number} idle connections {how}: {kib:.1f} KiB each", flush=True)
    if given.json:
        given.json.write_text(json.dumps({"connections": number, "octets": figures}))


if __name__ == "__main__":
    main()
