"""Words of errors, warnings and the log that depend on a number."""

from __future__ import annotations


def counted(count: int, one: str, more: str = "") -> str:
    """A number with its noun: 1 message, 2 messages. Without `more` the plural is `one` with an s."""
    return f"{count} {one if count == 1 else more or f'{one}s'}"


def described(error: BaseException) -> str:
    """An exception of somebody else's code, whose str() may raise in turn: its class and what it says."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001  as traceback does: who tells of a fault must not end by another
        return f"{type(error).__name__}, which cannot say what it is about"
