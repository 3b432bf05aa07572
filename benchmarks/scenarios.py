"""What is sent, how, and whether a server or a client is measured by it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

__all__ = ["SCENARIOS", "Scenario", "Way"]

#: How a message is sent. `plain` is smtp-source's: a round trip for each command, and a connection
#: that is kept; `reconnect` is a new one for each message. The others are run_load.py's:
#: `pipelined` on a connection that is kept, `starttls` and `login` on a new one for each message.
Way = Literal["plain", "reconnect", "pipelined", "starttls", "login"]


@dataclass(frozen=True)
class Scenario:
    """One load; `name` is side and title."""

    side: Literal["server", "client"]
    title: str
    messages: int
    sessions: int = 20
    recipients: int = 1
    octets: int = 4096
    way: Way = "plain"
    warm_up: bool = True  # a tenth of it is sent before, unmeasured
    work: float = 0  # seconds of CPU that the handler takes; served by one process, and by two

    @property
    def name(self) -> str:
        return f"{self.side}, {self.title}"

    @property
    def size(self) -> str:
        """Say how much that is."""
        octets = f"{self.octets // 1024} KiB" if self.octets < 1e6 else f"{self.octets / 1e6:g} MB"
        return (
            f"{self.messages} messages of {octets}, "
            f"sessions: {self.sessions}, recipients: {self.recipients}"
        )

    def before(self) -> int:
        """Return how many messages go first, unmeasured."""
        return max(1, self.messages // 10) if self.warm_up else 0

    def quick(self) -> Scenario:
        """Return the same in little: enough to see that it runs."""
        return replace(
            self, messages=20, sessions=min(self.sessions, 10), octets=min(self.octets, 1_000_000),
            warm_up=False,
        )  # fmt: skip


SCENARIOS = (
    Scenario("server", "persistent connections", 4000),
    Scenario("server", "a connection for each message", 2000, way="reconnect"),
    Scenario("server", "pipelined", 6000, way="pipelined"),
    Scenario("server", "bulk", 20, octets=10_000_000),
    Scenario("server", "STARTTLS", 800, way="starttls"),
    Scenario("server", "AUTH", 2000, way="login"),
    Scenario("server", "0.5 ms of work in the handler", 3000, work=0.0005),
    Scenario("client", "one connection", 1500, sessions=1),
    Scenario("client", "20 connections", 4000),
    Scenario("client", "10 recipients", 1000, sessions=1, recipients=10),
    Scenario("client", "a connection for each message", 1000, way="reconnect"),
    Scenario("client", "bulk", 20, sessions=1, octets=10_000_000),
)
