"""What to say when a package of an extra is missing."""

from __future__ import annotations


def how_to_install(extra: str) -> str:
    """The command that brings it, for whoever has installed us from a registry, and for whoever stands in a clone."""
    return f"pip install 'zbroker[{extra}]', or in a clone pip install '.[{extra}]'"
