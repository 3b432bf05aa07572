"""Where it runs: interpreters with the peers, Postfix's programs, the machine."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from processes import BenchmarkError

__all__ = ["Node", "Peers", "existing", "find", "machine", "prepare"]

CHECKOUT = Path(__file__).resolve().parent.parent
PYTHON_PEERS = ("aiosmtpd>=1.4.6,<1.5", "aiosmtplib>=5,<6", "trio>=0.25", "uvloop>=0.21")
OTHER = "smtpproto>=2,<3"  # on PyPI, by others; it has our name, so it needs its own environment
NODE_PEERS = ("smtp-server@3", "nodemailer@10")
SHOWN = ("smtpproto", "anyio", "trio", "uvloop", "aiosmtpd", "aiosmtplib")


@dataclass(frozen=True)
class Node:
    """Node, and the folder in which npm has put the peers."""

    program: str
    directory: Path

    def command(self, script: Path) -> tuple[str, ...]:
        return self.program, f"{script}", f"{self.directory}"

    def versions(self) -> dict[str, str]:
        found = {"node": _output(self.program, "--version").removeprefix("v")}
        for name in ("smtp-server", "nodemailer"):
            package = self.directory / "node_modules" / name / "package.json"
            found[name] = json.loads(package.read_text())["version"]
        return found


@dataclass(frozen=True)
class Peers:
    """What there is to run: all Python programs on one interpreter, the package of our name apart.

    `skipped` says what is not there, and why.
    """

    python: Path
    other: Path | None = None
    node: Node | None = None
    workers: bool = False  # whether this checkout can serve with several processes
    skipped: list[str] = field(default_factory=list[str])

    def certificate(self, directory: Path) -> Path:
        """Make a certificate for loopback, key included; return the file."""
        code = (
            "import sys; from pathlib import Path; "
            "from smtpproto.testing.certificate import Authority; "
            "print(Authority(Path(sys.argv[1])).issue('127.0.0.1'))"
        )
        return Path(_output(f"{self.python}", "-c", code, f"{directory}"))


def prepare(directory: Path) -> Peers:
    """Make the environments of the peers in a directory, if they are not there yet.

    This checkout is installed editable: what is measured is the source as it is now.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / ".gitignore").write_text("*\n")
    pyproject = (CHECKOUT / "pyproject.toml").read_text()
    python = _virtual(
        directory / "python",
        ("--editable", f"{CHECKOUT}[cli]", *PYTHON_PEERS),
        (f"{CHECKOUT}", pyproject),
    )
    _virtual(directory / "other", (OTHER,))
    npm = shutil.which("npm")
    if npm is not None:
        folder = directory / "node"
        if not _made(folder, *NODE_PEERS):
            _clear(folder)
            (folder / "package.json").write_text("{}\n")
            quiet = ("--no-audit", "--no-fund", "--silent", "--ignore-scripts")
            _run(npm, "install", "--prefix", f"{folder}", *quiet, *NODE_PEERS)
            _stamp(folder, *NODE_PEERS)
    return existing(python, directory)


def existing(python: Path, directory: Path) -> Peers:
    """Return what is there already: an interpreter with our Python peers, the others if any."""
    skipped: list[str] = []
    other: Path | None = directory / "other" / "bin" / "python"
    if not (directory / "other" / "stamp").is_file():
        other = None
        skipped.append(f"PyPI's smtpproto: not installed in {directory / 'other'}")
    program = shutil.which("node")
    node = None
    if program is None:
        skipped.append("smtp-server, nodemailer: there is no node")
    elif not (directory / "node" / "stamp").is_file():
        why = "not installed" if shutil.which("npm") else "there is no npm to install them"
        skipped.append(f"smtp-server, nodemailer: {why} in {directory / 'node'}")
    else:
        node = Node(program, directory / "node")
    code = "from importlib.util import find_spec; print(find_spec('smtpproto.workers') is not None)"
    workers = _output(f"{python}", "-c", code) == "True"
    if not workers:
        skipped.append("two workers: this checkout serves with one process only")
    return Peers(python, other, node, workers, skipped)


def _virtual(directory: Path, wanted: tuple[str, ...], known: tuple[str, ...] = ()) -> Path:
    """Make a virtual environment with packages, unless it is there; return its Python."""
    python = directory / "bin" / "python"
    if not _made(directory, *wanted, *known):
        _clear(directory)
        _run(sys.executable, "-m", "venv", f"{directory}")
        pip = (f"{python}", "-m", "pip", "--quiet", "--disable-pip-version-check")
        _run(*pip, "install", *wanted)
        _stamp(directory, *wanted, *known)
    return python


def _made(directory: Path, *wanted: str) -> bool:
    stamp = directory / "stamp"
    return stamp.is_file() and stamp.read_text() == _hash(*wanted)


def _stamp(directory: Path, *wanted: str) -> None:
    (directory / "stamp").write_text(_hash(*wanted))


def _hash(*wanted: str) -> str:
    return hashlib.sha256("\n".join((sys.version, *wanted)).encode()).hexdigest()


def _clear(directory: Path) -> None:
    print(f"installing peers into {directory}", file=sys.stderr)
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()


def _run(*command: str) -> None:
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        raise BenchmarkError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}")


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchmarkError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout.strip()


def find(program: str, package: str = "postfix") -> str:
    """Return the path of a program, of Postfix by default; some live where not everybody looks."""
    path = shutil.which(program, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
    if path is None:
        raise BenchmarkError(f"needs {program} (apt-get install {package})")
    return path


def machine(peers: Peers) -> dict[str, str]:
    """Return what there is to know of the machine and the versions measured."""
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    about = {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{len(os.sched_getaffinity(0))} × {_cpu()}, {platform.system()} "
        f"{platform.release()}, load {load} at the start",
        "commit": _commit(),
        "python": _output(
            f"{peers.python}", "-c", "import platform as p; print(p.python_version())"
        ),
        **_versions(peers.python, *SHOWN),
    }
    if peers.other is not None:
        about["PyPI's smtpproto"] = _versions(peers.other, "smtpproto")["smtpproto"]
    if peers.node is not None:
        about |= peers.node.versions()
    return about | {"postfix": _output(find("postconf"), "-d", "-h", "mail_version")}


def _versions(python: Path, *names: str) -> dict[str, str]:
    asked = f"{{name: version(name) for name in {names!r}}}"
    code = f"import json; from importlib.metadata import version; print(json.dumps({asked}))"
    found: dict[str, str] = json.loads(_output(f"{python}", "-c", code))
    return found


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
