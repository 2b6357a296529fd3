"""Randomness by name: one generator for each actor and each kind of fault, so that taking one away changes no other."""

from __future__ import annotations

from random import Random


class Chances:
    """Makes generators of a seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def of(self, name: str) -> Random:
        """The generator of that name; text seeds do not depend on PYTHONHASHSEED."""
        return Random(f"{self.seed}/{name}")


def some(random: Random, items: list[str], share: float) -> list[str]:
    """A subset, in order; swarm testing: a fault that never happens lets others go deeper."""
    return [item for item in items if random.random() < share]
