"""A real DNS server on loopback: BIND's named, with the zones that a test writes.

with named({"ext.example": "@ MX 10 mx\\nmx A 192.0.2.1"}) as server:
    DnsResolver([HOST], port=server.port)
"""

import contextlib
import os
import shutil
import signal
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .programs import HOST, LIFETIME, find, free_port, running, wait_for, workspace

#: Nobody is at home there; who is silent has to be told from who refuses.
BLACK_HOLE = "127.0.0.2"

# It says all that it is asked. CNAMEs are followed from zone to zone, for which it takes recursion;
# whom it would ask for what is in no zone it does not know: it has the root itself.
SETTINGS = """\
options {{
    directory "{directory}";
    pid-file "{directory}/pid";
    session-keyfile none;
    listen-on port {port} {{ {host}; }};
    listen-on-v6 {{ none; }};
    recursion yes;
    dnssec-validation no;
    empty-zones-enable no;
    notify no;
    querylog yes;
    minimal-responses yes;
    version none;
}};
controls {{ }};
zone "." {{ type primary; file "root.zone"; }};
"""
ZONE = 'zone "{name}" {{ type primary; file "{name}.zone"; }};\n'

# The last number is for how long a no is believed (RFC 2308 §4).
HEAD = """\
$TTL 300
@ SOA ns who ({serial} 3600 600 86400 120)
@ NS ns
ns A 127.0.0.1
"""


@dataclass
class NameServer:
    port: int
    directory: Path
    serials: dict[str, int] = field(default_factory=dict)

    def log(self) -> str:
        return (self.directory / "output").read_text(errors="replace")

    def asked(self, name: str, kind: str) -> int:
        """How often it was asked for records of a kind."""
        return self.log().count(f"query: {name} IN {kind} ")

    def write(self, zone: str, text: str) -> None:
        """Write a zone: its records in the form of RFC 1035 §5, without SOA and NS."""
        serial = self.serials[zone] = self.serials.get(zone, 0) + 1
        lines = [line.strip() for line in text.splitlines()]  # indented, it would lack its name
        file = self.directory / f"{zone or 'root'}.zone"
        file.write_text(f"$ORIGIN {zone}.\n{HEAD.format(serial=serial)}" + "\n".join([*lines, ""]))
        file.chmod(0o644)

    def replace(self, zone: str, text: str) -> None:
        """Write a zone anew; it is served when this returns."""
        self.write(zone, text)
        os.kill(int((self.directory / "pid").read_text()), signal.SIGHUP)
        loaded = f"zone {zone}/IN: loaded serial {self.serials[zone]}"
        wait_for(lambda: loaded in self.log(), f"named to say {loaded!r}")


@contextlib.contextmanager
def named(zones: Mapping[str, str]) -> Iterator[NameServer]:
    """Serve zones, each by its name and its records; one that is no zone is answered SERVFAIL.

    What is in none of them does not exist.
    """
    program = find("named", "bind9")
    with workspace() as directory:
        server = NameServer(free_port(), directory)
        config = directory / "named.conf"
        config.write_text(
            SETTINGS.format(directory=directory, port=server.port, host=HOST)
            + "".join(ZONE.format(name=name) for name in zones)
        )
        config.chmod(0o644)
        for name, text in {"": "", **zones}.items():
            server.write(name, text)
        # In the foreground, all that it says to stderr, one thread for each thing that needs one.
        command = [program, "-g", "-4", "-n", "1", "-c", str(config)]
        if os.getuid() == 0:
            shutil.chown(directory, "nobody")
            command += ["-u", "nobody"]
        with running(
            *("timeout", "-k2", LIFETIME, *command), port=server.port, output=directory / "output"
        ):
            yield server


@contextlib.contextmanager
def black_hole(port: int) -> Iterator[None]:
    """Listen at BLACK_HOLE for questions that nobody reads."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hole:
        hole.bind((BLACK_HOLE, port))
        yield
