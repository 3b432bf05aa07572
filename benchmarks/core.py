"""The core alone, no sockets, one core: python benchmarks/core.py [--rounds N] [--json FILE].

What a second is worth differs from machine to machine, so each figure stands beside a yardstick
measured in the same rounds, and only their ratio means something:

- content, in and out, against the bare primitives that its checks need, on the same chunks;
- one transaction of a server (MAIL, RCPT, DATA, 4 KiB of content, final dot, all replies) against
  `json.loads('{"a": [1, 2, 3]}')`;
- the memory of an idle connection behind EHLO, by tracemalloc.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

from smtpproto import (
    STANDARD,
    ClientConnection,
    Command,
    Content,
    Data,
    Ehlo,
    EndOfContent,
    Limits,
    Mail,
    Rcpt,
    ServerConnection,
    Signal,
)

LINE = b"x" * 74 + b"\r\n"
BODY = LINE * 54  # 4 KiB
FEW, MANY = 30, 3000


def seconds(work: Callable[[], object], times: int) -> float:
    """Return the seconds that one `work()` takes, over so many."""
    begun = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - begun) / times


def ready_server() -> ServerConnection:
    """Return a server that has answered EHLO."""
    server = ServerConnection("mx.example.org", STANDARD)
    server.send(server.suggested_reply())
    server.receive_data(b"EHLO client.example.net\r\n")
    server.next_event()
    server.send(server.suggested_reply())
    return server


def transaction(server: ServerConnection) -> None:
    """Take one message through a server's end, segment by segment."""
    for line in (
        b"MAIL FROM:<ann@example.net> SIZE=4104\r\n",
        b"RCPT TO:<bob@example.org>\r\n",
        b"DATA\r\n",
    ):
        server.receive_data(line)
        server.next_event()
        server.send(server.suggested_reply())
    server.receive_data(BODY + b".\r\n")
    while not isinstance(server.next_event(), EndOfContent):
        pass
    server.send(server.suggested_reply())


def in_content() -> tuple[ServerConnection, ClientConnection]:
    """Return two ends joined, with 354 said."""
    server = ServerConnection("mx.example.org", STANDARD, limits=Limits(message=None))
    client = ClientConnection(STANDARD)
    commands: list[Command] = [
        Ehlo("client.example.net"),
        Mail("ann@example.net"),
        Rcpt("bob@example.org"),
        Data(),
    ]
    client.receive_data(server.send(server.suggested_reply()))
    client.next_event()
    for command in commands:
        server.receive_data(client.send(command))
        server.next_event()
        client.receive_data(server.send(server.suggested_reply()))
        client.next_event()
    return server, client


def receiving(size: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """Return how a server takes content in chunks of `size`, and the bare primitives for it."""
    server, _ = in_content()
    chunk = chunk_of(size)

    def ours() -> None:
        server.receive_data(chunk)
        while not isinstance(server.next_event(), Signal):
            pass

    def bare() -> None:
        chunk.count(b"\r")
        chunk.count(b"\n")
        chunk.count(b"\r\n")
        chunk.find(b"\r\n.")

    return ours, bare


def sending(size: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """Return how a client sends content in chunks of `size`, and the bare primitives for it."""
    _, client = in_content()
    chunk = chunk_of(size)
    content = Content(chunk)

    def bare() -> None:
        chunk.find(b"\r\n.")
        chunk.replace(b"\r\n.", b"\r\n..")

    return lambda: client.send(content), bare


def chunk_of(size: int) -> bytes:
    """Return `size` octets of lines, the last of them whole."""
    lines = LINE * (size // len(LINE) + 1)
    return lines[: size - 2] + b"\r\n"


def idle_octets(connections: int = 500) -> float:
    """Return the octets that one idle connection behind EHLO holds."""
    ready_server()  # what all of them share
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    kept = [ready_server() for _ in range(connections)]
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return (after - before) / len(kept)


def main() -> None:
    """Measure, interleaved, and print a table of medians."""
    parser = argparse.ArgumentParser(description="The core alone, no sockets, one core.")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    server = ready_server()
    pairs: dict[str, tuple[Callable[[], object], Callable[[], object], int, float]] = {
        # name: ours, yardstick, how often, octets or things in one go
        "transaction": (
            lambda: transaction(server),
            lambda: json.loads('{"a": [1, 2, 3]}'),
            MANY,
            1,
        ),
    }
    for size in (65_536, 1_460):
        often = FEW * (65_536 // size)
        pairs[f"content in, {size}"] = (*receiving(size), often, size)
        pairs[f"content out, {size}"] = (*sending(size), often, size)

    found: dict[str, dict[str, list[float]]] = {
        name: {"ours": [], "bare": [], "ratio": []} for name in pairs
    }
    for _ in range(options.rounds):
        for name, (ours, bare, often, _amount) in pairs.items():
            a, b = seconds(ours, often), seconds(bare, often)
            found[name]["ours"].append(a)
            found[name]["bare"].append(b)
            found[name]["ratio"].append(a / b)

    print(f"{'':<22}{'ours':>14}{'yardstick':>14}{'ours / yardstick':>18}")
    for name, (_, _, _, amount) in pairs.items():
        middle = {key: statistics.median(values) for key, values in found[name].items()}
        if name == "transaction":
            ours, bare = f"{middle['ours'] * 1e6:.1f} us", f"{middle['bare'] * 1e6:.2f} us"
        else:
            ours, bare = (f"{amount / middle[key] / 1e6:.0f} MB/s" for key in ("ours", "bare"))
        print(f"{name:<22}{ours:>14}{bare:>14}{middle['ratio']:>18.2f}")
    idle = idle_octets()
    print(f"{'idle connection':<22}{idle:>12.0f} B")
    if options.json:
        options.json.write_text(json.dumps({"rounds": found, "idle": idle}, indent=2))


if __name__ == "__main__":
    main()
