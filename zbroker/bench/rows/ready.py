"""How long a broker takes to serve after SIGKILL, by the size of its journal."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from zbroker.bench.processes import Broker, Worker
from zbroker.bench.report import Sample
from zbroker.bench.rows.durable import BULK
from zbroker.bench.rows.plan import KIB, RAW, Plan, Settings, bars, running_broker

_MIB: Final = 1 << 20
_FILLING_S: Final = 600.0  # at most: a slow disk writes 1 GiB in less


def _ready_after(journal_bytes: int) -> Callable[[Settings], Sample]:
    def run(settings: Settings) -> Sample:
        with running_broker(settings, durable=True) as running:
            address = running.address()
            messages = _fill(address, journal_bytes)
            running.kill()
            begin = time.monotonic()
            with Broker(running.bound, running.folder) as again:
                again.address()
                ready_s, ready_cpu_s = time.monotonic() - begin, again.usage().cpu_s
        return Sample(messages=messages, ready_s=ready_s, ready_cpu_s=ready_cpu_s)

    return run


def _fill(address: str, journal_bytes: int) -> int:
    """Messages of 1 KiB in full batches."""
    if not journal_bytes:
        return 0
    most = journal_bytes // KIB
    told = {"codec": "raw", "body": RAW, "size": KIB, "seconds": _FILLING_S, "most": most}
    with Worker("produce", address=address, **told) as producer:
        sent: int = producer.said(_FILLING_S)["sent"]
    return sent


_HONOURS: Final = frozenset(("transport",))

PLANS: Final[tuple[Plan, ...]] = tuple(
    Plan(name=name, group="ready", label=label, api=BULK, body="raw, 1 KiB", run=run, honours=_HONOURS)
    for name, label, run in (
        ("ready-0", "until a broker serves, after SIGKILL, empty journal", _ready_after(0)),
        ("ready-256m", "the same, 256 MiB of messages", _ready_after(256 * _MIB)),
        ("ready-1g", "the same, 1 GiB of messages", _ready_after(1_024 * _MIB)),
    )
)

BARS: Final = bars(
    ("ready-0", "ready_s", (), 0.5, False, "ready, empty journal, s"),
    ("ready-1g", "ready_s", (), 5.0, False, "ready, 1 GiB of messages, s"),
    ("ready-1g", "ready_s", ("ready-256m",), None, False, "ready, 1 GiB / 256 MiB"),
)
