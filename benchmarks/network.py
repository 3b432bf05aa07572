"""A network of one's own for a benchmark: addresses beyond loopback, and a DNS that all ask.

It is a network namespace, and a mount namespace with a resolv.conf of its own: Linux only, by root.
Nothing in it reaches, or is reached by, anything outside.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from environment import find

__all__ = ["NAMESERVER", "inside"]

NAMESERVER = "10.98.255.53"
_INSIDE = "SMTPPROTO_BENCHMARK_NETWORK"


def inside() -> None:
    """Begin the program anew in such a network, where it is not in one yet.

    10.98.0.0/16 is this machine. Of 10.97.0.0/16 the first half cannot be reached, which one is
    told at once, and the second never answers.
    """
    if os.environ.get(_INSIDE) != "1":
        unshare = find("unshare", "util-linux")
        os.environ[_INSIDE] = "1"
        os.execv(
            unshare,
            [unshare, "--net", "--mount", "--", sys.executable, *sys.argv],
        )
    ip = find("ip", "iproute2")
    for command in (
        "link set lo up",
        "address add 10.98.0.1/16 dev lo",
        "route add unreachable 10.97.0.0/17",
        "route add 10.97.128.0/17 dev lo",  # nobody there takes it for his
    ):
        subprocess.run((ip, *command.split()), check=True)
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as resolv:
        resolv.write(f"nameserver {NAMESERVER}\n")
        resolv.flush()
        Path(resolv.name).chmod(0o644)
        mount = (find("mount", "mount"), "--bind", resolv.name, "/etc/resolv.conf")
        subprocess.run(mount, check=True)
