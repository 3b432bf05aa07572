"""The core alone, no sockets, one core: python benchmarks/core.py [--rounds N] [--json FILE].

What a second is worth differs from machine to machine, and from moment to moment, so each figure
stands beside a yardstick measured in turns with it, for some milliseconds of this process's CPU
time each, and only their ratio means something; shown are medians over the rounds.

- one transaction of a server (MAIL, RCPT, DATA, 4 KiB of content, final dot, all replies), the
  core's part of one at a client (pipelined, four replies with a status), and one command parsed
  and answered (MAIL with SIZE, RCPT and RSET, by turns), each against
  `json.loads('{"a": [1, 2, 3]}')`;
- content, in and out, against the bare primitives that its checks need, on the same chunks: lines
  of text, and base64, which has no dot;
- the memory of an idle connection behind EHLO, and the most that one whole session holds at a
  time, by tracemalloc.

The last line tells which of the floors are met.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

from attrs import frozen

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

Work = Callable[[], object]

LINE = b"x" * 74 + b"\r\n"
TEXT_LINE = b"A line of text has a full stop. So it is with the next; 76 octets in all..\r\n"
BODY = LINE * 54  # 4 KiB
TEXTS = {"content": TEXT_LINE, "base64": LINE}
SIZES = (65_536, 1_460)
ROUND = 0.002  # seconds that one measurement takes, about


@frozen
class Floor:
    """What one figure has to come to; the others of its kind only inform."""

    name: str
    limit: float
    at_most: bool
    goal: float | None = None

    def verdict(self, figure: float) -> str:
        """Write the figure, the floor, and whether it is met."""
        sign = "<=" if self.at_most else ">="
        text = f"{self.name} {figure:.4g} {sign} {self.limit:g}: {self._word(figure, self.limit)}"
        if self.goal is None:
            return text
        return f"{text} (goal {self.goal:g}: {self._word(figure, self.goal)})"

    def _word(self, figure: float, limit: float) -> str:
        return "met" if (figure <= limit if self.at_most else figure >= limit) else "NOT MET"


FLOORS = (
    Floor("transaction, server", 45, at_most=True, goal=30),
    Floor("content in, 65536", 0.6, at_most=False),
    Floor("content out, 65536", 0.6, at_most=False),
    Floor("idle connection", 4096, at_most=True),
)


def seconds(work: Work, times: int) -> float:
    """Return the seconds that one `work()` takes, over so many."""
    begun = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - begun) / times


def yardstick() -> object:
    """Do what transactions and commands are measured by."""
    return json.loads('{"a": [1, 2, 3]}')


def answer(server: ServerConnection, line: bytes) -> bytes:
    """Let a server take one line and answer it."""
    server.receive_data(line)
    server.next_event()
    return server.send(server.suggested_reply())


def ready_server() -> ServerConnection:
    """Return a server that has answered EHLO."""
    server = ServerConnection("mx.example.org", STANDARD)
    server.send(server.suggested_reply())
    answer(server, b"EHLO client.example.net\r\n")
    return server


def transaction(server: ServerConnection) -> None:
    """Take one message through a server's end, segment by segment."""
    answer(server, b"MAIL FROM:<ann@example.net> SIZE=4104\r\n")
    answer(server, b"RCPT TO:<bob@example.org>\r\n")
    answer(server, b"DATA\r\n")
    server.receive_data(BODY + b".\r\n")
    while not isinstance(server.next_event(), EndOfContent):
        pass
    server.send(server.suggested_reply())


def three_commands(server: ServerConnection) -> None:
    """Let a server take and answer three commands."""
    answer(server, b"MAIL FROM:<ann@example.net> SIZE=4104\r\n")
    answer(server, b"RCPT TO:<bob@example.org>\r\n")
    answer(server, b"RSET\r\n")


def ready_client() -> ClientConnection:
    """Return a client that has been answered to EHLO."""
    server, client = ServerConnection("mx.example.org", STANDARD), ClientConnection(STANDARD)
    client.receive_data(server.send(server.suggested_reply()))
    client.next_event()
    client.receive_data(answer(server, client.send(Ehlo("client.example.net"))))
    client.next_event()
    return client


def client_transaction(client: ClientConnection) -> None:
    """Send one message from a client's end; its commands are one write, and so are the replies."""
    client.send(Mail("ann@example.net", {"SIZE": len(BODY)}))
    client.send(Rcpt("bob@example.org"))
    client.send(Data())
    client.receive_data(b"250 2.1.0 Sender ok\r\n250 2.1.5 Recipient ok\r\n354 Go ahead\r\n")
    while not isinstance(client.next_event(), Signal):
        pass
    client.send(Content(BODY))
    client.send(EndOfContent())
    client.receive_data(b"250 2.0.0 Message accepted\r\n")
    client.next_event()


def session() -> None:
    """Lead a server through a whole session, from its greeting to QUIT, with one message."""
    server = ready_server()
    transaction(server)
    answer(server, b"QUIT\r\n")


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
        client.receive_data(answer(server, client.send(command)))
        client.next_event()
    return server, client


def receiving(line: bytes, size: int) -> tuple[Work, Work]:
    """Return how a server takes content in chunks of `size`, and the bare primitives for it."""
    server, _ = in_content()
    chunk = chunk_of(line, size)

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


def sending(line: bytes, size: int) -> tuple[Work, Work]:
    """Return how a client sends content in chunks of `size`, and the bare primitives for it."""
    _, client = in_content()
    chunk = chunk_of(line, size)
    content = Content(chunk)

    def bare() -> None:
        chunk.find(b"\r\n.")
        chunk.replace(b"\r\n.", b"\r\n..")

    return lambda: client.send(content), bare


def chunk_of(line: bytes, size: int) -> bytes:
    """Return `size` octets of lines, the last of them whole."""
    lines = line * (size // len(line) + 1)
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


def session_octets() -> int:
    """Return the most octets that one whole session holds at a time."""
    session()  # what all of them share
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    session()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most - before


@frozen
class Row:
    """What is measured, its yardstick, how much one go of it is worth, and of what."""

    ours: Work
    bare: Work
    amount: int = 1
    unit: str = "us"

    def ratio(self, ours: float, bare: float) -> float:
        """Return how two times compare: rates of octets, times of everything else."""
        return bare / ours if self.unit == "MB/s" else ours / self.amount / bare

    def shown(self, ours: float, bare: float) -> tuple[str, str]:
        """Write two times in the row's unit; the yardstick of a command is a time."""
        if self.unit == "MB/s":
            return f"{self.amount / ours / 1e6:.0f} MB/s", f"{self.amount / bare / 1e6:.0f} MB/s"
        mine = f"{ours * 1e6:.1f} us" if self.unit == "us" else f"{self.amount / ours:.0f}/s"
        return mine, f"{bare * 1e6:.2f} us"

    def measured(self, rounds: int) -> list[tuple[float, float]]:
        """Return the seconds that one go takes, and one of the yardstick, for each round."""
        often, bare_often = (1 + int(ROUND / seconds(work, 20)) for work in (self.ours, self.bare))
        return [(seconds(self.ours, often), seconds(self.bare, bare_often)) for _ in range(rounds)]


def table() -> dict[str, Row]:
    """Return all that is measured in seconds."""
    server, talker, client = ready_server(), ready_server(), ready_client()
    rows = {
        "transaction, server": Row(lambda: transaction(server), yardstick),
        "transaction, client": Row(lambda: client_transaction(client), yardstick),
        "command": Row(lambda: three_commands(talker), yardstick, 3, "/s"),
    }
    for name, line in TEXTS.items():
        for size in SIZES:
            rows[f"{name} in, {size}"] = Row(*receiving(line, size), size, "MB/s")
            rows[f"{name} out, {size}"] = Row(*sending(line, size), size, "MB/s")
    return rows


def main() -> None:
    """Measure, and print a table of medians."""
    parser = argparse.ArgumentParser(description="The core alone, no sockets, one core.")
    parser.add_argument("--rounds", type=int, default=99, help="short ones")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    rounds: dict[str, list[tuple[float, float]]] = {}
    figures: dict[str, float] = {}
    print(f"{'':<22}{'ours':>14}{'yardstick':>14}{'ours / yardstick':>18}")
    for name, row in table().items():
        rounds[name] = row.measured(options.rounds)
        figures[name] = statistics.median(row.ratio(*times) for times in rounds[name])
        middle = (statistics.median(column) for column in zip(*rounds[name], strict=True))
        ours, bare = row.shown(*middle)
        print(f"{name:<22}{ours:>14}{bare:>14}{figures[name]:>18.2f}")
    figures["idle connection"], figures["session, at most"] = idle_octets(), session_octets()
    for name in ("idle connection", "session, at most"):
        print(f"{name:<22}{figures[name]:>12.0f} B")
    verdicts = {floor.name: floor.verdict(figures[floor.name]) for floor in FLOORS}
    print("floors:", "; ".join(verdicts.values()))
    if options.json:
        numbers = {"rounds": rounds, "figures": figures, "floors": verdicts}
        options.json.write_text(json.dumps(numbers, indent=2))


if __name__ == "__main__":
    main()
