"""The pages say what is so: what they tell a reader to do is done here, and comes out so."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT

import pytest

from tests.peers.programs import free_port

from .pages import DOCS, includes, matches, plain_blocks, steps

ROOT = DOCS.parent
EXAMPLES = ROOT / "examples"
TUTORIALS = sorted(page for page in DOCS.glob("tutorial/*.md") if page.stem != "index")
HOWTOS = sorted(DOCS.glob("howto/*.md"))
PATIENCE = 60

pytestmark = pytest.mark.usefixtures("unmeasured")


def ids(page: Path) -> str:
    return page.stem


# Following a tutorial


class Background:
    """A command that goes on; what it prints is gathered as it comes."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self._printed = ""
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                with self._news:
                    self._printed += line
                    self._news.notify_all()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()

    def says(self, expected: tuple[str, ...]) -> None:
        """Wait until it has said this, and nothing else, since it was last asked."""
        with self._news:
            if not self._news.wait_for(lambda: matches(expected, self._printed), PATIENCE):
                pytest.fail(f"expected {expected}, and it printed:\n{self._printed}")
            self._printed = ""


class Reader:
    """Somebody who follows a page in `folder`, with two ports of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports: dict[str, str] = {"2525": str(free_port()), "2526": str(free_port())}
        self.background: dict[str, Background] = {}
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT / "src"),
            "PYTHONUNBUFFERED": "1",
            "COLUMNS": "120",
            "LC_ALL": "C.UTF-8",
        }

    def own(self, text: str) -> str:
        """Put our ports in the place of those that are written."""
        return re.sub(r"\b252[56]\b", lambda match: self.ports[match[0]], text)

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(self.own(text), encoding="utf-8")

    def start(self, command: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            ["bash", "-c", f"exec {self.own(command)}"],
            cwd=self.folder,
            env=self.environment,
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            text=True,
        )

    def run(self, command: str) -> str:
        done = subprocess.run(
            ["bash", "-c", self.own(command)],
            cwd=self.folder,
            env=self.environment,
            stdin=DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        return done.stdout + done.stderr

    def mine(self, lines: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(self.own, lines))


@contextmanager
def reader(folder: Path) -> Iterator[Reader]:
    one = Reader(folder)
    try:
        yield one
    finally:
        for background in one.background.values():
            background.end()


@pytest.mark.parametrize("page", TUTORIALS, ids=ids)
def test_a_tutorial_goes_as_it_is_told(page: Path, tmp_path: Path) -> None:
    with reader(tmp_path) as one:
        for step in steps(page):
            lines = one.mine(step.lines)
            if step.kind == "file":
                one.write(step.name, step.text)
            elif step.kind == "background":
                one.background[step.name] = Background(one.start(step.text))
                one.background[step.name].says(lines)
            elif step.kind == "run":
                printed = one.run(step.text)
                assert matches(lines, printed), f"{step.text} printed:\n{printed}"
            elif step.kind == "said":
                one.background[step.name].says(lines)
            else:
                one.background[step.name].process.send_signal(signal.SIGINT)


def test_a_page_that_is_wrong_is_noticed() -> None:
    assert matches(("a", "...", "b ... c"), "a\nx\ny\nb 1 c\n")
    assert matches(("a", "...", "b"), "a\nb\n")
    assert not matches(("a", "b"), "a\nx\nb\n")
    assert not matches(("a",), "a\nb\n")
    assert not matches(("a ... c",), "a b\n c\n")


def test_every_tutorial_has_steps_of_each_kind() -> None:
    for page in TUTORIALS:
        kinds = {step.kind for step in steps(page)}
        assert kinds >= {"file", "run", "background", "said"}, page


# Code on pages


@pytest.mark.parametrize("page", [*TUTORIALS, *HOWTOS], ids=ids)
def test_code_comes_from_an_example(page: Path) -> None:
    """And examples are tested. Whatever is too short for one stands within a sentence."""
    for language in ("python", "py", "pycon", ""):
        assert plain_blocks(page, language) == []
    for include in includes(page):
        assert include.path.is_relative_to(EXAMPLES)
        text = include.path.read_text(encoding="utf-8")
        for option in ("start-at", "start-after", "end-before"):
            assert include.options.get(option, "").strip('"') in text
        if name := include.options.get("pyobject"):
            defined = rf"^ *(?:async def|def|class) {name.split('.')[-1]}\b"
            assert re.search(defined, text, re.MULTILINE)


def test_every_example_for_a_page_is_on_one() -> None:
    shown = {include.path for page in (*TUTORIALS, *HOWTOS) for include in includes(page)}
    assert {*EXAMPLES.glob("tutorial/*.py"), *EXAMPLES.glob("howto/*.py")} <= shown


def test_only_tutorials_have_commands_to_follow() -> None:
    """For only there a test follows them."""
    assert all(plain_blocks(page, "console") == [] for page in HOWTOS)


# The reference


def modules() -> set[str]:
    """Every module that somebody may import; those of extensions are listed by themselves."""
    source = ROOT / "src"
    found = {
        ".".join(path.relative_to(source).with_suffix("").parts).removesuffix(".__init__")
        for path in source.rglob("*.py")
    }
    inside = (
        "smtpproto.cli.",
        "smtpproto.testing.strategies.",
        "smtpproto.extensions.",
        "smtpproto.__main__",
    )
    return {name for name in found if not name.startswith(inside) and name != "smtpproto.core"}


def test_every_module_is_described_once() -> None:
    pages = "\n".join(page.read_text() for page in sorted(DOCS.glob("reference/api/*.md")))
    described = re.findall(r"^\.\. automodule:: ([\w.]+)$", pages, re.MULTILINE)
    assert sorted(described) == sorted(modules())


@pytest.mark.parametrize("folder", ["tutorial", "howto", "explanation"])
def test_every_page_is_on_its_index(folder: str) -> None:
    index = (DOCS / folder / "index.md").read_text()
    for page in DOCS.glob(f"{folder}/*.md"):
        if page.stem != "index":
            assert f"]({page.name})" in index
