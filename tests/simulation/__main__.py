"""`python -m tests.simulation --seed 7 [--trace] [--faults cut,rot]`, or `--seeds 0..1000 --seconds 60` for many."""

from __future__ import annotations

import argparse
import sys

from tests.simulation.faults import KINDS
from tests.simulation.run import run_many, run_seed, shrink
from tests.simulation.world import World

FOREVER_S = 10.0**9
SHOWN = 20


def main() -> int:
    """0 when everything held."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this one; a failure is run again with fewer and fewer faults")
    parser.add_argument("--trace", action="store_true", help="print every message and fault of --seed")
    parser.add_argument("--faults", help=f"admit only these: {','.join(KINDS)}; 'none' for none")
    parser.add_argument("--seeds", default="0..1000000000", metavar="A..B", help="run these, two at a time")
    parser.add_argument("--seconds", type=float, default=FOREVER_S, help="for so long at most")
    given = parser.parse_args()
    kinds = None if given.faults is None else [kind for kind in given.faults.split(",") if kind in KINDS]
    if given.seed is None:
        first, _, last = given.seeds.partition("..")
        tally = run_many(range(int(first), int(last)), given.seconds, kinds=kinds)
        print("\n".join(tally.lines()))
        for failure in tally.failures[:SHOWN]:
            print(f"seed {failure.seed}: {failure.error}")
        return 1 if tally.failures else 0
    if given.trace:
        return trace(given.seed, kinds)
    found = run_seed(given.seed, kinds=kinds)
    print(
        f"seed {found.seed}: {found.steps} steps, {found.simulated_us / 1e6:.0f} s simulated, trace {found.trace_crc:08x}"
    )
    if not found.error:
        return 0
    print(found.error)
    least = shrink(given.seed, kinds=kinds)
    print(f"still fails with {len(least.plan)} of {len(found.plan)} faults: {least.error}")
    for fault in least.plan:
        print(f"  {fault}")
    return 1


def trace(seed: int, kinds: list[str] | None) -> int:
    """Every line, up to the failure if there is one."""
    world = World(seed, kinds=kinds, trace=True)
    try:
        world.run()
    finally:
        print("\n".join(world.lines or []))
    return 0


if __name__ == "__main__":
    sys.exit(main())
