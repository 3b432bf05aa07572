"""A real rspamd on loopback, with no rules but those built in: GTUBE is spam, the rest is not."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .programs import HOST, LIFETIME, find, free_port, running, workspace

#: What every filter takes for spam, so that it can be tested.
GTUBE = b"XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"

# No module, no Redis, and a DNS that is not there.
SETTINGS = """\
options {{
    pidfile = "{directory}/pid";
    tempdir = "{directory}";
    hs_cache_dir = "{directory}";
    cache_file = "{directory}/cache";
    control_socket = "{directory}/control mode=0600";
    url_tld = "{directory}/tld";
    filters = "";
    enable_test_patterns = true;
    dns {{ nameserver = ["{host}:1"]; timeout = 1s; retransmits = 1; }}
}}
logging {{ type = "console"; level = "info"; }}
actions {{ reject = 15; add_header = 6; greylist = 4; }}
worker "normal" {{ bind_socket = "{host}:{port}"; count = 1; task_timeout = 8s; }}
"""


@dataclass(frozen=True)
class RspamdServer:
    port: int
    directory: Path

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def log(self) -> str:
        return (self.directory / "output").read_text(errors="replace")


@contextlib.contextmanager
def rspamd() -> Iterator[RspamdServer]:
    """Run its normal worker."""
    program = find("rspamd", "rspamd")
    with workspace() as directory:
        server = RspamdServer(free_port(), directory)
        config = directory / "rspamd.conf"
        config.write_text(SETTINGS.format(directory=directory, host=HOST, port=server.port))
        (directory / "tld").write_text("com\nexample\n")  # all of them take it seconds to compile
        config.chmod(0o644)
        variables = [f"--var={name}={directory}" for name in ("DBDIR", "RUNDIR", "LOGDIR")]
        command = ["timeout", "-k2", LIFETIME, program, "-f", "-c", str(config), *variables]
        if os.getuid() == 0:
            shutil.chown(directory, "nobody")
            drop = ("--reuid=nobody", "--regid=nogroup", "--clear-groups")
            command = ["setpriv", *drop, *command]
        with running(*command, port=server.port, output=directory / "output"):
            yield server
