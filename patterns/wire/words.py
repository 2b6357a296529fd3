"""Words of errors, warnings and the log that depend on a number."""

from __future__ import annotations


def counted(count: int, one: str, more: str = "") -> str:
    """A number with its noun: 1 message, 2 messages. Without `more` the plural is `one` with an s."""
    return f"{count} {one if count == 1 else more or f'{one}s'}"
