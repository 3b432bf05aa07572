"""The programs under test, and how one measured run of each is made."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

from environment import Peers, find
from processes import BenchmarkError, finish, serving
from report import LOOPS, Measure, on, workers_on
from scenarios import Scenario
from shared import HOST, content

__all__ = ["Bench"]

HERE = Path(__file__).resolve().parent

#: What makes one measured run.
Run = Callable[[], Measure]
#: Sends to a port a scenario's messages, those before it included, and measures itself.
Client = Callable[[int], Measure]


class Bench:
    """Runs programs one at a time. `directory` is for its files."""

    def __init__(self, peers: Peers, directory: Path) -> None:
        self.peers = peers
        self.directory = directory
        self.source = find("smtp-source")
        self.sink = find("smtp-sink")
        # smtp-sink refuses to work as root, and insists on -u only then.
        self.user = ("-u", "nobody") if os.getuid() == 0 else ()

    def runs(self, scenario: Scenario) -> dict[str, Run]:
        """Return program -> what measures it once."""
        if scenario.side == "server":
            return {
                name: partial(self.measure_server, command, scenario)
                for name, command in self.servers(scenario)
            }
        return {
            name: partial(self.measure_client, client, scenario)
            for name, client in self.clients(scenario)
        }

    # Servers

    @cached_property
    def certificate(self) -> Path:
        return self.peers.certificate(self.directory)

    def servers(self, scenario: Scenario) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Give names and command lines; `{port}` stands for the port."""
        options: tuple[str, ...] = ()
        if scenario.way == "starttls":
            options = ("--certificate", f"{self.certificate}")
        elif scenario.way == "login":
            options = ("--login",)
        script = (f"{self.peers.python}", f"{HERE / 'run_server.py'}")
        if scenario.work:
            for loop in LOOPS:
                ours = (*script, f"smtpproto-{loop}", "{port}", "--work", f"{scenario.work}")
                yield on(loop), ours
                yield workers_on(loop), (*ours, "--workers", "2")
            return
        for loop in LOOPS:
            yield on(loop), (*script, f"smtpproto-{loop}", "{port}", *options)
        yield "aiosmtpd", (*script, "aiosmtpd", "{port}", *options)
        if (node := self.peers.node) is not None:
            yield "smtp-server", (*node.command(HERE / "run_server.js"), "{port}",
                                  f"{self.certificate}", scenario.way)  # fmt: skip
        if not options:  # it has neither STARTTLS nor AUTH
            yield "smtp-sink", (self.sink, *self.user, f"{HOST}:{{port}}", "100")

    def measure_server(self, command: Sequence[str], scenario: Scenario) -> Measure:
        with serving(*command) as server:
            server.cpu()  # waits until it is idle: all of its workers have started then
            if before := scenario.before():
                self.load(server.port, replace(scenario, messages=before))
            used = server.cpu()
            seconds = self.load(server.port, scenario)
            return _measure(scenario, seconds, server.cpu() - used, server.peak())

    def load(self, port: int, scenario: Scenario) -> float:
        """Send a scenario's messages; return the seconds that took. It fails at any refusal."""
        if scenario.way in ("plain", "reconnect"):
            return self.smtp_source(port, scenario)[0]
        sizes = (scenario.messages, scenario.sessions, scenario.octets)
        script = (f"{self.peers.python}", f"{HERE / 'run_load.py'}")
        told = json.loads(finish(*script, scenario.way, f"{port}", *map(str, sizes)).output)
        _all_of(scenario, "run_load.py", told["messages"])
        seconds: float = told["seconds"]
        return seconds

    def smtp_source(self, port: int, scenario: Scenario) -> tuple[float, float, int]:
        """Run it; return its seconds of wall time and of CPU, and its peak octets."""
        messages = scenario.messages
        done = finish(
            self.source,
            *("-c", "-s", f"{min(scenario.sessions, messages)}", "-m", f"{messages}"),
            *("-r", f"{scenario.recipients}", "-l", f"{scenario.octets}"),
            *("-M", "client.example.test"),
            *(() if scenario.way == "reconnect" else ("-d",)),
            f"{HOST}:{port}",
        )
        _all_of(scenario, "smtp-source", done.output.strip().split("\r")[-1])
        return done.seconds, done.cpu, done.peak

    # Clients

    def clients(self, scenario: Scenario) -> Iterator[tuple[str, Client]]:
        """Give names, and what sends."""
        own, other, node = self.peers.python, self.peers.other, self.peers.node
        script = (f"{HERE / 'run_client.py'}",)
        for loop in LOOPS:
            command = (f"{own}", *script, f"smtpproto-{loop}")
            yield on(loop), partial(self.script, command, scenario, f"{scenario.octets}")
        for name in ("aiosmtplib", "smtplib"):
            command = (f"{own}", *script, name)
            yield name, partial(self.script, command, scenario, f"{scenario.octets}")
        if other is not None:
            command = (f"{other}", "-E", *script, "other")  # not ours by a PYTHONPATH
            yield "PyPI's smtpproto", partial(self.script, command, scenario, f"{scenario.octets}")
        if node is not None:
            message = self.directory / f"message-{scenario.octets}"
            if not message.exists():
                message.write_bytes(content(scenario.octets))
            command = node.command(HERE / "run_client.js")
            yield "nodemailer", partial(self.script, command, scenario, f"{message}")
        yield "smtp-source", partial(self.source_client, scenario)

    def source_client(self, scenario: Scenario, port: int) -> Measure:
        if before := scenario.before():
            self.smtp_source(port, replace(scenario, messages=before))
        return _measure(scenario, *self.smtp_source(port, scenario))

    def script(
        self, command: Sequence[str], scenario: Scenario, message: str, port: int
    ) -> Measure:
        sizes = (scenario.before(), scenario.messages, scenario.sessions, scenario.recipients)
        options = (*map(str, sizes), message, scenario.way)
        told = json.loads(finish(*command, f"{port}", *options).output)
        _all_of(scenario, command[-1], told["messages"])
        return _measure(scenario, told["seconds"], told["cpu"], told["peak"])

    def measure_client(self, client: Client, scenario: Scenario) -> Measure:
        with serving(self.sink, "-c", *self.user, f"{HOST}:{{port}}", "100") as sink:
            measure = client(sink.port)
            sent = scenario.before() + scenario.messages
            # Who has its reply to the last message may be ahead of what smtp-sink writes of it.
            if (counted := sink.says(r"mesg=(\d+)", f"{sent}")) != f"{sent}":
                raise BenchmarkError(f"smtp-sink counted {counted!r} of {sent} messages")
        return measure


def _all_of(scenario: Scenario, program: str, counted: int | str) -> None:
    if str(counted) != str(scenario.messages):
        raise BenchmarkError(f"{program} counted {counted!r} of {scenario.messages} messages")


def _measure(scenario: Scenario, seconds: float, cpu: float, peak: int) -> Measure:
    return Measure(scenario.messages / seconds, cpu / scenario.messages * 1e6, peak / 1e6)
