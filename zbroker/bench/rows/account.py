"""What a broker did to its disk during a sample; and words of workers that say how far they are."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from patterns.sync import Admin
from zbroker.bench.footprint import allocated_in
from zbroker.bench.processes import Broker, Worker
from zbroker.bench.rows.plan import Settings

_LOOKED_S: Final = 1.2
_PAUSE_S: Final = 0.05
Factors = dict[str, float | None]


class DiskAccount:
    """From now on, of a broker with a journal.

    Args:
        running: with its children, whichever of them writes.
        address: where it is asked.
    """

    def __init__(self, running: Broker, address: str) -> None:
        self._running = running
        self._address = address
        with Admin(address) as admin:
            self._syncs = admin.status()["journal"]["syncs"]
        self._written = running.usage().written_bytes

    def of(self, messages: int, body_bytes: int) -> Factors:
        """Fields of a sample: so many messages were stored since, and are all still there.

        What is allocated ahead of the log is left out of the space: it does not grow with what is stored.
        """
        written = self._running.usage().written_bytes
        with Admin(self._address) as admin:
            journal = fresh_journal(admin)
        assert self._running.folder is not None
        taken_up = allocated_in(Path(self._running.folder)) - journal.get("reserve_bytes", 0)
        known = written is not None and self._written is not None and body_bytes > 0
        return {
            "per_commit": messages / max(1, journal["syncs"] - self._syncs),
            "write_factor": ((written or 0) - (self._written or 0)) / body_bytes if known else None,
            "space_factor": taken_up / body_bytes if body_bytes else None,
        }


def fresh_journal(admin: Admin) -> dict[str, Any]:
    """What status says of the journal from now on: the broker looks once a second, and shows what it saw last."""
    before: dict[str, Any] = admin.status()["journal"]
    until = time.monotonic() + _LOOKED_S
    while True:
        time.sleep(_PAUSE_S)
        found: dict[str, Any] = admin.status()["journal"]
        if found != before or time.monotonic() >= until:
            return found


def last_said(worker: Worker, settings: Settings, done: Callable[[int], None] | None = None) -> dict[str, Any]:
    """What a worker says at its end; before it, that it is ready, and how many messages are done."""
    while True:
        said = worker.said(settings.patience_s)
        if "done" in said:
            if done is not None:
                done(said["done"])
        elif "ready" not in said:
            return said
