"""Days of mail in worlds full of trouble, each from one seed: what was promised holds in all."""

import subprocess
import sys
from collections import Counter

import pytest

from .sabotage import SABOTAGES, Sabotage
from .world import COUNTS, simulate

#: Worlds in a test, and tests of them; more by `python -m tests.simulation`.
WORLDS, TESTS = 20, 10


pytestmark = pytest.mark.usefixtures("untraced")


@pytest.mark.rfc(
    "5321 §4.2.5 2yz-takes-responsibility",
    "5321 §6.1 250-takes-responsibility",
    "5321 §6.1 nothing-is-lost-by-a-crash",
)
@pytest.mark.parametrize("first", range(0, WORLDS * TESTS, WORLDS))
def test_every_invariant_is_kept(first: int) -> None:
    total = Counter[str]()
    for seed in range(first, first + WORLDS):
        outcome = simulate(seed)
        assert outcome.broken is None, (
            f"{outcome.broken}: python -m tests.simulation --seed {seed} --show"
        )
        total.update(outcome.counts)
    # Worlds in which nothing happens would show nothing.
    assert set(USUAL) <= {what for what, count in total.items() if count}


#: What is counted in any twenty worlds; the rest, in any hundred.
USUAL = COUNTS[:7]
#: What the story of any hundred worlds tells of.
TROUBLES = (
    "Connection refused",
    "no progress within the connect deadline",
    "no progress within the greeting deadline",
    "no progress within the final_dot deadline",
    "reset by peer",
    "with 421",
    "with 450",
    "with 550",
    "with close",
    "with hang",
    "greylisted",
    "Domain name server failed",
    "No such domain",
    "Domain does not accept mail",
    "has ENOSPC",
    "has EIO",
    "has EROFS, always",
    "cannot start",
    "SQLITE_IOERR",
    "is asked to end",
    "the power is cut: Torn",
    "dies, at step",
    "Expanded",
    "Bounced",
    "Discarded",
    "Held",
    "the operator holds",
    "the operator lets go",
    "the tables are mended",
    "a stranger at",
    "550 5.7.1 Relaying denied to user0@good.example",
    "530 5.7.0 Authentication required",
    "boxes.example answers for",
    "HOLDFOR=",
    "HOLDUNTIL=",
    "Not delivered by the time",
    "does not promise to deliver in time",
    "has been at an alias of its recipients before",
    "Too many hops",
)


def test_all_kinds_of_trouble_occur() -> None:
    missing, uncounted, seed = set(TROUBLES), set(COUNTS), 1000
    while (missing or uncounted) and seed < 1100:
        outcome = simulate(seed)
        story = "\n".join(outcome.story)
        missing = {trouble for trouble in missing if trouble not in story}
        uncounted -= {what for what, count in outcome.counts.items() if count}
        seed += 1
    assert not missing
    assert not uncounted


def test_a_seed_is_the_same_world_each_time() -> None:
    assert simulate(7).trace == simulate(7).trace
    assert simulate(7).trace != simulate(8).trace


@pytest.mark.parametrize("hashes", ["1", "2"])
def test_and_in_each_process(hashes: str) -> None:
    """Whatever strings hash to, and whoever runs beside it."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation", "--seed", "7", "--show"],
        env={"PYTHONHASHSEED": hashes, "PYTHONPATH": ":".join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[:-1] == simulate(7).story


@pytest.mark.parametrize("sabotage", SABOTAGES, ids=lambda each: each.name)
def test_it_sees_a_relay_that_is_broken(sabotage: Sabotage) -> None:
    with sabotage.done():
        breaches = (simulate(sabotage.first + turn).broken for turn in range(60))
        broken = next(filter(None, breaches), None)
    assert broken is not None, "nobody has noticed"
    assert broken.which in sabotage.seen
