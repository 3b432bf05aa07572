"""Our server and client against others, as ratios: python benchmarks/servers_and_clients.py.

Servers stand under the load of Postfix's smtp-source; clients send into Postfix's smtp-sink. All
programs of a scenario run one after the other in each round, in turned order, so that whatever
else the machine does meets all of them. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from environment import find, machine, prepare
from processes import HOST, BenchmarkError, finish, interruptible, serving
from report import Measure, ratios, table
from run_client import warm_up

HERE = Path(__file__).resolve().parent
OURS = "smtpproto"
BACKENDS = ("asyncio", "trio")


@dataclass(frozen=True)
class Scenario:
    """What one measured run sends, and whether a server or a client is measured by it."""

    side: Literal["server", "client"]
    title: str
    messages: int
    sessions: int = 20
    recipients: int = 1
    octets: int = 4096
    reconnect: bool = False  # a new connection for each message

    def __str__(self) -> str:
        size = f"{self.octets // 1024} KiB" if self.octets < 1e6 else f"{self.octets / 1e6:g} MB"
        return (
            f"{self.side}, {self.title}: {self.messages} messages of {size}, "
            f"sessions: {self.sessions}, recipients: {self.recipients}"
        )

    def quick(self) -> Scenario:
        """Return the same in little: enough to see that it runs."""
        return replace(self, messages=40, octets=min(self.octets, 1_000_000))


SCENARIOS = (
    Scenario("server", "persistent connections", 4000),
    Scenario("server", "a connection for each message", 2000, reconnect=True),
    Scenario("server", "bulk", 20, octets=10_000_000),
    Scenario("client", "one connection", 1500, sessions=1),
    Scenario("client", "20 connections", 4000),
    Scenario("client", "10 recipients", 1000, sessions=1, recipients=10),
)


Client = Callable[[int], tuple[int, Measure]]


class Bench:
    """How each program is run. Each method makes one measured run of one scenario."""

    def __init__(self, python: Path) -> None:
        self.python = str(python)
        self.ours = str(python.with_name("smtpproto"))
        self.source = find("smtp-source")
        self.sink = find("smtp-sink")
        # smtp-sink refuses to work as root, and insists on -u only then.
        self.user = ("-u", "nobody") if os.getuid() == 0 else ()

    def runs(self, scenario: Scenario) -> dict[str, Callable[[], Measure]]:
        """Return program -> what measures it once."""
        if scenario.side == "server":
            return {
                name: partial(self.measure_server, command, scenario)
                for name, command in self.servers().items()
            }
        return {
            name: partial(self.measure_client, client, scenario)
            for name, client in self.clients(scenario).items()
        }

    # Servers

    def servers(self) -> dict[str, tuple[str, ...]]:
        """Return name -> command line; `{port}` stands for the port."""
        found: dict[str, tuple[str, ...]] = {}
        listen = ("--listen", f"{HOST}:{{port}}")
        for backend in BACKENDS:
            found[f"{OURS} sink, {backend}"] = (self.ours, "sink", *listen, "--backend", backend)
        found["aiosmtpd"] = (self.python, str(HERE / "run_aiosmtpd.py"), HOST, "{port}")
        found["smtp-sink"] = (self.sink, *self.user, f"{HOST}:{{port}}", "100")
        return found

    def measure_server(self, command: Sequence[str], scenario: Scenario) -> Measure:
        warm = max(1, scenario.messages // 10)
        with serving(*command) as server:
            self.load(server.port, replace(scenario, messages=warm))
            before = server.cpu()
            seconds, _ = self.load(server.port, scenario)
            cpu = server.cpu() - before
            peak = server.peak_octets()
        return Measure(scenario.messages / seconds, cpu / scenario.messages * 1e6, peak / 1e6)

    def load(self, port: int, scenario: Scenario) -> tuple[float, float]:
        """Run smtp-source; return its seconds of wall time and CPU. It fails at any refusal."""
        messages = scenario.messages
        done = finish(
            self.source,
            *("-c", "-s", f"{min(scenario.sessions, messages)}", "-m", f"{messages}"),
            *("-r", f"{scenario.recipients}", "-l", f"{scenario.octets}"),
            *("-M", "client.example.test"),
            *(() if scenario.reconnect else ("-d",)),
            f"{HOST}:{port}",
        )
        counted = done.output.strip().split("\r")[-1]
        if counted != str(messages):
            raise BenchmarkError(f"smtp-source counted {counted!r} of {messages} messages")
        return done.seconds, done.cpu

    # Clients

    def clients(self, scenario: Scenario) -> dict[str, Client]:
        """Return name -> what sends to a port, and tells how many messages it sent in all."""
        found: dict[str, Client] = {}
        for backend in BACKENDS:
            name = f"{OURS}-{backend}"
            found[f"{OURS} Client, {backend}"] = partial(self.client_script, name, scenario)
        found[f"{OURS} send, whole process"] = partial(self.send, scenario)
        for name in ("aiosmtplib", "smtplib"):
            found[name] = partial(self.client_script, name, scenario)
        found["smtp-source"] = partial(self.source_client, scenario)
        return found

    def source_client(self, scenario: Scenario, port: int) -> tuple[int, Measure]:
        seconds, cpu = self.load(port, scenario)
        return scenario.messages, _measure(scenario, seconds, cpu)

    def client_script(self, name: str, scenario: Scenario, port: int) -> tuple[int, Measure]:
        sizes = (scenario.messages, scenario.sessions, scenario.recipients, scenario.octets)
        done = finish(self.python, str(HERE / "run_client.py"), name, str(port), *map(str, sizes))
        told = json.loads(done.output)
        if told["messages"] != scenario.messages:
            raise BenchmarkError(f"{name}: {told['messages']} of {scenario.messages} accepted")
        sent = scenario.messages + warm_up(scenario.messages, scenario.sessions)
        return sent, _measure(scenario, told["seconds"], told["cpu"])

    def send(self, scenario: Scenario, port: int) -> tuple[int, Measure]:
        addresses = [f"recipient{number}@example.test" for number in range(scenario.recipients)]
        done = finish(
            *(self.ours, "send", "--server", f"{HOST}:{port}", "--tls", "none"),
            *("--from", "sender@example.test"),
            *(word for address in addresses for word in ("--to", address)),
            *("--count", f"{scenario.messages}", "--sessions", f"{scenario.sessions}"),
            *("--subject", "benchmark", "--body", ("X" * 76 + "\n") * (scenario.octets // 77)),
        )
        return scenario.messages, _measure(scenario, done.seconds, done.cpu)

    def measure_client(self, client: Client, scenario: Scenario) -> Measure:
        with serving(self.sink, "-c", *self.user, f"{HOST}:{{port}}", "100") as sink:
            sent, measure = client(sink.port)
            sink.cpu()  # waits until it is idle
            counted = re.findall(r"mesg=(\d+)", sink.said())
        if not counted or int(counted[-1]) != sent:
            raise BenchmarkError(f"smtp-sink counted {counted[-1:]} of {sent} messages")
        return measure


def _measure(scenario: Scenario, seconds: float, cpu: float) -> Measure:
    return Measure(scenario.messages / seconds, cpu / scenario.messages * 1e6)


#: Scenario -> program -> what each round gave.
Results = dict[str, dict[str, list[Measure]]]


def run(bench: Bench, scenarios: Sequence[Scenario], rounds: int) -> Results:
    """Measure all programs of all scenarios, each once a round."""
    results: Results = {}
    for number in range(rounds):
        for scenario in scenarios:
            print(f"round {number + 1} of {rounds}: {scenario}", file=sys.stderr, flush=True)
            runs = list(bench.runs(scenario).items())
            programs = results.setdefault(str(scenario), {name: [] for name, _ in runs})
            first = number % len(runs)
            for name, measure in runs[first:] + runs[:first]:
                programs[name].append(measure())
    return results


def ours(results: Results) -> set[str]:
    return {name for programs in results.values() for name in programs if name.startswith(OURS)}


def as_json(about: dict[str, str], rounds: int, results: Results) -> dict[str, object]:
    """All numbers: of each round, and of each pair the median, smallest and largest ratio."""
    favourites = ours(results)
    return {
        "machine": about,
        "rounds": rounds,
        "measured": {
            scenario: {name: [asdict(one) for one in found] for name, found in programs.items()}
            for scenario, programs in results.items()
        },
        "ratios": {
            scenario: {
                f"{one} / {other}": ratios(programs[one], programs[other])
                for one in programs
                for other in programs
                if one in favourites and other not in favourites
            }
            for scenario, programs in results.items()
        },
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="one round of a few messages: shows that all run and count all messages, no more",
    )
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="scenarios with TEXT in their name (see table)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number to FILE, too")
    parser.add_argument(
        "--peers",
        type=Path,
        default=HERE / ".peers",
        metavar="DIR",
        help="the virtual environment that is made for the peers; default: %(default)s",
    )
    parser.add_argument(
        "--python",
        type=Path,
        metavar="FILE",
        help="an interpreter that has smtpproto and all peers already; then none is made",
    )
    given = parser.parse_args()
    if given.rounds < 1:
        parser.error("--rounds: at least 1")
    return given


def main() -> None:
    given = arguments()
    rounds = 1 if given.quick else given.rounds
    scenarios = [one.quick() if given.quick else one for one in SCENARIOS if given.only in str(one)]
    if not scenarios:
        sys.exit(f"no scenario has {given.only!r} in its name")
    python = given.python.absolute() if given.python else prepare(given.peers.absolute())
    about = machine(python)
    results = run(Bench(python), scenarios, rounds)
    print("\n".join(f"{name:12} {value}" for name, value in about.items()), "", sep="\n")
    print(*table(results, ours(results)), sep="\n")
    if given.json:
        given.json.write_text(json.dumps(as_json(about, rounds, results), indent=2) + "\n")


if __name__ == "__main__":
    interruptible()
    try:
        main()
    except BenchmarkError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
