"""Mutation testing of `core/`: does a test fail for each small change of the code?

    python tests/mutation/run.py                # all of core/, about half an hour
    python tests/mutation/run.py reply path     # of these files, what has no verdict yet
    python tests/mutation/run.py --again path   # and what survived, for there are new tests

mutmut makes the mutants, all of them in one copy of the tree (`mutants/`) with a switch in front of
each function. It would start pytest anew for each mutant, which takes hours here. So this collects
the tests once, notes which functions each of them enters, and forks for each mutant: the child
throws the switch and runs those tests, the quick ones first, until one fails.

Verdicts are kept where mutmut keeps its own: `mutmut show NAME` prints a mutant, and
`tests/mutation/survivors.py` tells what came of it all. What runs only while modules are imported
is tried in a process of its own.
"""

from __future__ import annotations

import argparse
import ast
import functools
import gc
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

__all__ = ["KILLED", "SKIPPED", "SURVIVED", "TIMEOUT", "sources"]

#: Verdicts, as mutmut numbers them.
KILLED, SURVIVED, SKIPPED, TIMEOUT = VERDICTS = 1, 0, 34, 36
#: Those that need no socket.
SELECTED = (
    "tests/core",
    "tests/extensions",
    "tests/sasl",
    "tests/conformance",
    "tests/dialogues",
    "tests/properties",
)
#: What needs an event loop, what reads the source, what all others have to pass already, what
#: cannot be run twice, and what counts work: whether a mutant is slower is no verdict on it.
LEFT_OUT = (
    "asyncio or trio or test_every_reply or test_ledger or test_breaks or test_statements"
    " or test_strategies or test_linearity"
)
#: Where no test enters a function: what looks at the tables that were made by it, by the module.
AT_IMPORT = {
    "state": ("tests/core/test_state.py::test_every_move",),
    "proxy": (
        "tests/core/test_proxy.py::test_sums_that_others_worked_out",
        "tests/core/test_proxy.py::test_a_sum_behind_its_octets_always_gives_the_same_sum",
    ),
}
#: Octets that a mutant may take.
MOST_MEMORY = 2 << 30
#: CPU seconds: longer tests repeat what shorter ones say, for all inputs.
LONGEST = 0.1

NO_MUTANT = "no.mutant"

Mutants = dict[str, Callable[..., Any]]


def sources(meta: Path) -> Iterator[tuple[str, str, str]]:
    """Return the name of each mutant of a file, the function as it was, and as it became."""
    mutants = json.loads(meta.read_text())["exit_code_by_key"]
    lines = meta.with_suffix("").read_text().splitlines()
    if not mutants:
        return
    spans = json.loads(meta.with_suffix(".spans").read_text())["spans"]

    def source(name: str) -> str:
        first, last = spans[name]
        body = [line for line in lines[first - 1 : last] if line.strip()]
        return textwrap.dedent("\n".join(body))

    for mutant in mutants:
        name = mutant.rpartition(".")[2]
        yield mutant, source(name.rpartition("__mutmut_")[0] + "__mutmut_orig"), source(name)


class _Speechless(ast.NodeTransformer):
    """Takes the words out of errors, and the name off a function."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        if name.endswith("Error") or name == "_lost":
            node.args = node.args[1:]
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.generic_visit(node)
        node.name = ""
        return node


def is_of_words(before: str, after: str) -> bool:
    """Tell whether two functions differ in nothing but what their exceptions say."""
    one, other = (ast.dump(_Speechless().visit(ast.parse(each))) for each in (before, after))
    return one == other


class Switch:
    """Stands in front of every function that has mutants."""

    def __init__(self) -> None:
        self.entered: set[str] = set()
        self.thrown = ""

    def wrap(
        self, mutants: Mutants, is_classmethod: bool = False
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Do what mutmut's decorator does, with less ado."""

        def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
            module = function.__module__
            entered: list[str] = []

            @functools.wraps(function)
            def switched(*args: Any, **kwargs: Any) -> Any:
                chosen = mutants["_mutmut_orig"]
                if self.thrown:
                    where, _, name = self.thrown.rpartition(".")
                    if where == module:
                        chosen = mutants.get(name, chosen)
                else:
                    if not entered:
                        name = chosen.__name__.removesuffix("__mutmut_orig")
                        entered.append(f"{module}.{name}")
                    self.entered.add(entered[0])
                if is_classmethod:
                    return getattr(args[0], chosen.__name__)(*args[1:], **kwargs)
                return chosen(*args, **kwargs)

            return switched

        return decorate


class _TooLong(BaseException):
    """Ends a test, whatever it catches."""


def _stop(*_: object) -> None:
    raise _TooLong


class Trial:
    """Runs every test once, and then for each mutant those that enter its function."""

    def __init__(self, switch: Switch, files: list[str], again: bool) -> None:
        self.switch = switch
        self.files = files
        self.again = again

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        bearing: dict[str, list[tuple[float, pytest.Item]]] = {}
        signal.signal(signal.SIGPROF, _stop)
        for item in session.items:
            self.switch.entered.clear()
            begun = time.process_time()
            fails, left = True, 0.0
            gc.disable()  # what is raised while it runs is lost, and hypothesis' count with it
            try:
                signal.setitimer(signal.ITIMER_PROF, LONGEST)
                fails = self._fails(item)
                left, _ = signal.setitimer(signal.ITIMER_PROF, 0)
            except _TooLong:
                pass
            gc.enable()
            if not left:
                session._setupstate.teardown_exact(None)  # what a test that was ended had set up
                continue
            if fails:
                print("left out, for it does not pass:", item.nodeid, flush=True)
                continue
            took = time.process_time() - begun
            for function in self.switch.entered:
                bearing.setdefault(function, []).append((took, item))
        every = {item: took for tests in bearing.values() for took, item in tests}
        print(f"{len(every)} tests of {sum(every.values()):.1f} CPU seconds", flush=True)
        for tests in bearing.values():
            tests.sort(key=lambda test: test[0])
        caches = [each for each in gc.get_objects() if isinstance(each, type(functools.cache(len)))]
        gc.freeze()  # so that a child copies little
        # Tests that fail a second time, with no mutant, would kill everything.
        if self._try(NO_MUTANT, [(took, item) for item, took in every.items()], caches):
            raise pytest.UsageError("the tests fail in a child with no mutant at all")
        if any(try_at_import(f"{module}.none") == KILLED for module in AT_IMPORT):
            raise pytest.UsageError("the tests of AT_IMPORT fail with no mutant at all")
        found = {meta.name.partition(".")[0]: meta for meta in Path("src").rglob("core/*.meta")}
        for name in self.files or sorted(found):
            self._try_file(found[name], bearing, caches)
        return True

    def _fails(self, item: Any) -> bool:
        names: tuple[str, ...] = getattr(item, "fixturenames", ())
        values = item.callspec.params if hasattr(item, "callspec") else {}
        if {*names} - {*values} or item.get_closest_marker("xfail"):
            return any(report.failed for report in runtestprotocol(item, log=False, nextitem=None))
        try:
            item.obj(**values)  # all that it needs: ten times as quick
        except BaseException:  # noqa: BLE001  # pytest's own are no Exceptions
            return True
        return False

    def _try_file(
        self, meta: Path, bearing: dict[str, list[tuple[float, pytest.Item]]], caches: list[Any]
    ) -> None:
        known = json.loads(meta.read_text())
        verdicts: dict[str, int | None] = known["exit_code_by_key"]
        settled = {*VERDICTS} - {SURVIVED} if self.again else {*VERDICTS}
        for mutant, before, after in list(sources(meta)):
            tests = bearing.get(mutant.rpartition("__mutmut_")[0], [])
            if verdicts[mutant] not in settled:
                if is_of_words(before, after):
                    verdicts[mutant] = SKIPPED
                else:
                    verdicts[mutant] = (
                        self._try(mutant, tests, caches) if tests else try_at_import(mutant)
                    )
                meta.write_text(json.dumps(known, indent=4))
        survived = sum(verdict == SURVIVED for verdict in verdicts.values())
        if verdicts:
            print(f"{meta.name}: {survived} of {len(verdicts)} survived", flush=True)

    def _try(self, mutant: str, tests: list[tuple[float, pytest.Item]], caches: list[Any]) -> int:
        child = os.fork()
        if not child:
            # What was worked out before the switch was thrown is not to be found again.
            for cache in caches:
                cache.cache_clear()
            seconds = int(5 + 5 * sum(seconds for seconds, _ in tests))
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
            # One that goes on for ever may gather something for ever, too.
            resource.setrlimit(resource.RLIMIT_DATA, (MOST_MEMORY, MOST_MEMORY))
            self.switch.thrown = mutant
            failed = next((item for _, item in tests if self._fails(item)), None)
            if failed is not None and mutant == NO_MUTANT:
                print(failed.nodeid, "fails when it is run twice", flush=True)
            os._exit(SURVIVED if failed is None else KILLED)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            return TIMEOUT
        return os.waitstatus_to_exitcode(status)


def try_at_import(mutant: str) -> int:
    """Try one that no test enters in a new process: it may run while modules are imported."""
    if not tests_at_import(mutant):
        return SURVIVED
    tried = subprocess.run(
        [sys.executable, __file__, "--import", mutant],
        cwd="..",
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},  # half the time
        capture_output=True,
        check=False,
    )
    return KILLED if tried.returncode else SURVIVED


def tests_at_import(mutant: str) -> tuple[str, ...]:
    return AT_IMPORT.get(mutant.split(".")[-2], ())


def make_mutants() -> None:
    """Let mutmut write `mutants/` anew, where a source has changed."""
    mutmut: Any = importlib.import_module("mutmut.__main__")
    Path("mutants").mkdir(exist_ok=True)
    mutmut.copy_src_dir()
    mutmut.copy_also_copy_files()
    mutmut.create_mutants(1)


def main() -> int:
    parser = argparse.ArgumentParser(description="Try the mutants of core/.")
    parser.add_argument("--again", action="store_true", help="what survived, too")
    parser.add_argument("--import", dest="at_import", metavar="MUTANT", help=argparse.SUPPRESS)
    parser.add_argument("modules", nargs="*")
    asked = parser.parse_args()
    switch = Switch()
    if asked.at_import:
        switch.thrown = asked.at_import
    else:
        make_mutants()
    trampoline: Any = importlib.import_module("mutmut.mutation.trampoline")
    trampoline.wrap_in_trampoline = switch.wrap
    os.chdir("mutants")
    sys.path.insert(0, str(Path("src").resolve()))
    os.environ["HYPOTHESIS_PROFILE"] = "mutants"
    args = ["--rootdir=.", "-q", "-p", "no:cacheprovider", "-p", "no:unraisableexception"]
    if asked.at_import:
        return pytest.main([*args, "-x", *tests_at_import(asked.at_import)])
    trial = Trial(switch, asked.modules, asked.again)
    return pytest.main([*args, "-k", f"not ({LEFT_OUT})", *SELECTED], plugins=[trial])


if __name__ == "__main__":
    raise SystemExit(main())
