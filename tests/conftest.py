"""What every test may use."""

import os
import sys
from collections.abc import Generator, Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.conformance.ledger import Verdict

# Wall time says nothing about what is promised here, so no example has a deadline.
_COMMON = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("local", _COMMON, max_examples=60)
settings.register_profile("ci", _COMMON, max_examples=100, database=None, print_blob=True)
# Whether a mutant is noticed is no matter of luck (tests/mutation).
settings.register_profile("mutants", _COMMON, max_examples=100, database=None, derandomize=True)
settings.register_profile("long", _COMMON, max_examples=5000)
settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if "CI" in os.environ else "local")
)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run each async test on both event loops."""
    backend: str = request.param
    return backend


@pytest.fixture
def untraced() -> Iterator[None]:
    """Do not measure what a test covers that goes through the same lines millions of times.

    It says little, others cover them, and to measure it takes twice as long as the test.
    """
    tracer = sys.gettrace()
    sys.settrace(None)
    yield
    sys.settrace(tracer)


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have processes that a test starts not measure what of us they cover.

    Half of the time of a short one goes there; what they run is covered by tests in this process,
    or by processes in `tests/cli`.
    """
    for name in [name for name in os.environ if "COVERAGE" in name]:
        monkeypatch.delenv(name)


def pytest_configure(config: pytest.Config) -> None:
    """At its end, a run fails for each row of the clause ledger that its tests leave unproved."""
    config.pluginmanager.register(Verdict(), "clauses")


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_xdist_auto_num_workers() -> Generator[None, int, int]:
    """For `-n auto`: one more than CPUs, for a third of its time a worker waits for processes.

    Each finds all tests first, and takes 250 MB; more than eight gain nothing.
    """
    return min((yield) + 1, 8)
