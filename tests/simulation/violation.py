"""What the checkers raise. Its own type, so that a run tells a broken promise from a broken simulation."""

from __future__ import annotations


class Violation(AssertionError):
    """An invariant does not hold; the text begins with its number in the list of README.md beside this file."""


def require(holds: bool, claim: str) -> None:
    """Raise Violation unless it holds. Texts are built by the caller, so only use it where that is cheap."""
    if not holds:
        raise Violation(claim)
