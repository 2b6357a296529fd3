"""How the engine's events and the guard's cuts read in the log: level, name, fields. Names are stable; no I/O lives here."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from patterns.io.guard_account import Cut
from zbroker.config import LogLevel
from zbroker.core.events import (
    Event,
    GroupExpired,
    PlainDropped,
    SessionBegan,
    SessionEnded,
    SessionRefused,
    WarningGone,
    WarningRaised,
)

News = tuple[LogLevel, str, dict[str, Any]]

# Warnings of `status` that have names of their own here: level, when it is raised, when it is gone.
WARNINGS: Final[dict[str, tuple[LogLevel, str, str]]] = {
    "storage_full": ("warning", "journal_full", "journal_has_room"),
    "storage_failed": ("error", "journal_failed", "journal_recovered"),
    "journal": ("error", "journal_error", "journal_error_gone"),
    "damage": ("error", "journal_damaged", "journal_damage_gone"),
    "rot": ("error", "journal_rot", "journal_rot_gone"),
    "unreadable": ("warning", "journal_unreadable", "journal_readable"),
    "reads": ("error", "reads_stuck", "reads_go_on"),
    "sidecar": ("warning", "sidecar_died", "sidecar_returned"),
    "clock": ("warning", "clock_jumped", "clock_is_back"),
    "guard": ("error", "guard_died", "guard_lives"),
    "gate": ("warning", "plain_subscribers_held_back", "plain_subscribers_let_in"),
}
_OTHER: Final[tuple[LogLevel, str, str]] = ("warning", "warning", "warning_gone")


def news_of(event: Event) -> News:
    """An event of the engine as a record."""
    match event:
        case WarningRaised(key=key, text=text):
            level, raised, _ = WARNINGS.get(key, _OTHER)
            return level, raised, {"warning": key, "text": text}
        case WarningGone(key=key):
            return "info", WARNINGS.get(key, _OTHER)[2], {"warning": key}
        case PlainDropped():
            return "warning", "plain_dropped", msgspec.structs.asdict(event)
        case GroupExpired():
            return "info", "group_expired", msgspec.structs.asdict(event)
        case SessionBegan():
            name = "session_began"
        case SessionRefused():
            name = "session_refused"
        case SessionEnded():
            name = "session_ended"
    return "debug", name, msgspec.structs.asdict(event)


def news_of_cut(cut: Cut) -> News:
    """A connection that the guard has cut."""
    fields = {
        "remote": cut.remote,
        "reason": cut.reason.value,
        "undelivered_bytes": cut.undelivered_bytes,
        "allowance_bytes": cut.allowance_bytes,
    }
    return "warning", "guard_cut", fields
