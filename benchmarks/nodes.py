"""The two relays under test, each a process tree with all its files in one directory of a disk.

Both take mail from loopback without a login, keep it safe by fsync, hand it all to one smart host,
and log each message to a file. Of Postfix all is at its defaults but what these need, and what
would ask the DNS.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias

from environment import find
from processes import BenchmarkError, Serving, free_port, serving
from shared import HOST

__all__ = ["Start", "postfix", "smtpproto"]

#: What `serve` is told to run on.
BACKEND = "asyncio" if find_spec("uvloop") is None else "uvloop"
CORES = os.cpu_count() or 1
#: Starts a relay in a directory, which may be of an earlier run, for a next hop at a port.
Start: TypeAlias = "Callable[[Path, int | None], AbstractContextManager[Serving]]"


@contextmanager
def smtpproto(
    directory: Path,
    next_hop: int | None,
    backend: str = BACKEND,
    *,
    workers: int = CORES,
    config: Path | None = None,
    source: Path | None = None,
) -> Generator[Serving]:
    """`smtpproto serve`, as it is installed; on uvloop if that is, and on all cores.

    `config` is a file of settings, and `source` where another version of it is.
    """
    path = "" if source is None else f"import sys; sys.path.insert(0, {str(source)!r}); "
    told = () if config is None else ("--config", f"{config}")
    hop = () if next_hop is None else ("--smart-host", f"{HOST}:{next_hop}")
    many = () if workers == 1 else ("--workers", f"{workers}")
    directory.mkdir(exist_ok=True)
    with serving(
        *(sys.executable, "-c", f"{path}from smtpproto.cli import main; main()"),
        *("serve", *told, "--data", f"{directory / 'data'}", "--backend", backend, *many),
        *("--listen", f"{HOST}:{{port}}", "--submission", f"{HOST}:0"),
        *("--relay-from", f"{HOST}/32", *hop),
        log=directory / "log",
    ) as running:
        yield running


SETTINGS = {
    "compatibility_level": "3.6",
    "inet_interfaces": HOST,
    "inet_protocols": "ipv4",
    "myhostname": "postfix.example.test",
    "mynetworks": f"{HOST}/32",
    "mydestination": "",
    "alias_maps": "",
    "alias_database": "",
    "local_recipient_maps": "",
    "local_transport": "error:no local mail here",
    "smtpd_peername_lookup": "no",
    "smtpd_relay_restrictions": "permit_mynetworks reject_unauth_destination",
    "biff": "no",
}
#: To a smart host nobody asks the DNS.
NO_DNS = {"disable_dns_lookups": "yes", "smtp_host_lookup": "native"}

# service, type, private, unprivileged, chroot, wakeup, maxproc, command; as installed, but for
# the chroot that Debian has.
SERVICES = """\
{address} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


@contextmanager
def postfix(directory: Path, next_hop: int | None) -> Generator[Serving]:
    """Postfix. It needs root: it starts its daemons under users of their own."""
    if os.getuid():
        raise BenchmarkError("Postfix has to be started by root")
    directory.mkdir(mode=0o711, exist_ok=True)
    directory.chmod(0o711)  # its users have to come in, whatever the umask is
    etc, port = directory / "etc", free_port()
    settings = SETTINGS | {
        "queue_directory": f"{directory}/queue",
        "data_directory": f"{directory}/own",
        "maillog_file": f"{directory}/log",
        "maillog_file_prefixes": f"{directory}",
    }
    if next_hop is not None:  # else it asks the DNS
        settings |= NO_DNS | {"relayhost": f"[{HOST}]:{next_hop}"}
    for name, user in {"etc": "root", "queue": "root", "own": "postfix"}.items():
        (directory / name).mkdir(mode=0o755, exist_ok=True)
        shutil.chown(directory / name, user)
    files = {
        "main.cf": "".join(f"{name} = {value}\n" for name, value in settings.items()),
        "master.cf": SERVICES.format(address=f"{HOST}:{port}"),
    }
    for name, text in files.items():
        (etc / name).write_text(text)
        os.utime(etc / name, (0, 0))  # it waits seconds before it trusts a file just written
    if not (directory / "queue" / "deferred").exists():
        checked = subprocess.run(  # makes the queue's directories
            (find("postfix"), "-c", f"{etc}", "check"), capture_output=True, text=True, check=False
        )
        if checked.returncode:
            raise BenchmarkError(f"postfix check: {checked.stderr}")
    daemons = subprocess.run(
        (find("postconf"), "-c", f"{etc}", "-h", "daemon_directory"),
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    master = (f"{daemons}/master", "-c", f"{etc}", "-s")
    with serving(*master, port=port, log=directory / "output") as running:
        yield running
