"""Worlds from seeds, one after the other: `python -m tests.simulation`.

--seed N           this one alone
--show             with its story
--seeds N          so many, from `--from` on; 500 without
--forever          until it is interrupted
--broken NAME      with the relay broken on purpose; no name lists them
"""

import argparse
import itertools
import sys
from collections import Counter
from collections.abc import Iterable
from contextlib import nullcontext
from time import process_time

from .sabotage import SABOTAGES
from .world import COUNTS, Outcome, simulate


def show(outcome: Outcome) -> None:
    for line in outcome.story:
        print(line)


def told(outcome: Outcome) -> str:
    counts = ", ".join(f"{count} {what}" for what, count in outcome.counts.items() if count)
    return f"seed {outcome.seed}: {outcome.broken or counts}; trace {outcome.trace[:16]}"


def many(seeds: Iterable[int], messages: int | None) -> int:
    """Simulate them until one fails; return the exit code."""
    start, total, count, slowest = process_time(), Counter[str](), 0, 0.0
    try:
        for seed in seeds:
            outcome = simulate(seed, messages)
            count += 1
            total.update(outcome.counts)
            slowest = max(slowest, outcome.slowest)
            if outcome.broken is not None:
                show(outcome)
                print(told(outcome))
                size = f" --messages {messages}" if messages else ""
                print(f"again: python -m tests.simulation --seed {seed}{size} --show")
                return 1
            if count % 100 == 0:
                print(f"{count} worlds, the last of seed {seed}", flush=True)
    except KeyboardInterrupt:
        pass
    print(f"{count} worlds in {process_time() - start:.0f} s of CPU: every invariant was kept")
    print(", ".join(f"{total[what]:,} {what}" for what in COUNTS))
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--show", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--seeds", type=int, default=500, help=argparse.SUPPRESS)
    parser.add_argument("--from", type=int, default=0, dest="first", help=argparse.SUPPRESS)
    parser.add_argument("--forever", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--messages", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--broken", nargs="?", const="", help=argparse.SUPPRESS)
    asked = parser.parse_args()

    sabotage = next((each for each in SABOTAGES if each.name == asked.broken), None)
    if asked.broken is not None and sabotage is None:
        for each in SABOTAGES:
            print(f"{each.name:32} seen by: {', '.join(each.seen)}")
        return 2
    with nullcontext() if sabotage is None else sabotage.done():
        if asked.seed is not None:
            outcome = simulate(asked.seed, asked.messages)
            if asked.show:
                show(outcome)
            print(told(outcome))
            return outcome.broken is not None
        seeds = (
            itertools.count(asked.first)
            if asked.forever
            else range(asked.first, asked.first + asked.seeds)
        )
        return many(seeds, asked.messages)


if __name__ == "__main__":
    sys.exit(main())
