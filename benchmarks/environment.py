"""Where it runs: the interpreter with all Python peers, Postfix's programs, the machine."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from processes import BenchmarkError

__all__ = ["find", "machine", "prepare"]

CHECKOUT = Path(__file__).resolve().parent.parent
PEERS = ("aiosmtpd>=1.4.6,<1.5", "aiosmtplib>=5,<6", "trio>=0.25")
SHOWN = ("smtpproto", "anyio", "trio", "aiosmtpd", "aiosmtplib")


def prepare(directory: Path) -> Path:
    """Make a virtual environment with this checkout and the peers, if it is not there yet.

    Return its Python: all Python programs run in this one, so none has a better interpreter.
    The checkout is installed editable: what is measured is the source as it is now.
    """
    wanted = hashlib.sha256(
        "\n".join((sys.version, *PEERS, (CHECKOUT / "pyproject.toml").read_text())).encode()
    ).hexdigest()
    python, stamp = directory / "bin" / "python", directory / "stamp"
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    print(f"installing the peers into {directory}", file=sys.stderr)
    directory.mkdir(parents=True, exist_ok=True)
    _run(sys.executable, "-m", "venv", "--clear", f"{directory}")
    (directory / ".gitignore").write_text("*\n")
    pip = (f"{python}", "-m", "pip", "--quiet", "--disable-pip-version-check")
    _run(*pip, "install", "--editable", f"{CHECKOUT}[cli]", *PEERS)
    stamp.write_text(wanted)
    return python


def _run(*command: str) -> None:
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        raise BenchmarkError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}")


def find(program: str) -> str:
    """Return the path of one of Postfix's programs; they live where not everybody looks."""
    path = shutil.which(program, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin")
    if path is None:
        raise BenchmarkError(f"needs {program} (apt-get install postfix)")
    return path


def machine(python: Path) -> dict[str, str]:
    """Return what there is to know of the machine and the versions measured."""
    names = f"{{name: version(name) for name in {SHOWN!r}}}"
    code = f"import json; from importlib.metadata import version; print(json.dumps({names}))"
    asked = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    versions: dict[str, str] = json.loads(asked.stdout)
    postfix = subprocess.run(
        [find("postconf"), "-d", "-h", "mail_version"], capture_output=True, text=True, check=False
    )
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{len(os.sched_getaffinity(0))} × {_cpu()}, {platform.system()} "
        f"{platform.release()}, load {load} at the start",
        "python": platform.python_version(),
        "postfix": postfix.stdout.strip() or "unknown",
        "commit": _commit(),
        **versions,
    }


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _commit() -> str:
    command = ("git", "-C", f"{CHECKOUT}", "describe", "--always", "--dirty")
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "unknown"
    return done.stdout.strip() or "unknown"
