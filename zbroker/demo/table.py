"""The last step of the tour: what each deployment costs, measured here and now with the rows of `zbroker bench`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from zbroker.bench.compare import chosen, compare, disk_folder
from zbroker.bench.report import Report, Row
from zbroker.bench.rows import Settings

Say = Callable[[str], None]
_SECONDS: Final = 0.8  # a sample; six of them and their processes take about ten seconds
_BODY_BYTES: Final = 100
# deployment -> the row of its rate, the row of its latency, what that latency is of
_DEPLOYMENTS: Final = (
    ("peer to peer", "live-peer", "request-peer", "request and reply"),
    ("brokered", "live-broker", "request-broker", "request and reply"),
    ("brokered, durable", "durable", "confirm-one", "one send, on disk"),
)


def step_table(say: Say) -> dict[str, Any]:
    """5. A table of rates."""
    say("5. The same roles in the three deployments, measured on this machine (one short sample each)")
    names = [name for _, rate, latency, _ in _DEPLOYMENTS for name in (rate, latency)]
    with disk_folder(None) as folder:
        settings = Settings(seconds=_SECONDS, repeat=1, size=_BODY_BYTES, folder=folder)
        report = compare(chosen(names), settings, _in_silence)
    rows = {row.name: row for row in report.rows}
    say(f"   {'':20}{'messages/s':>12}{'MB/s':>8}{'p50 us':>9}{'p99 us':>9}{'lost':>6}   latency of")
    seen = []
    for name, rate, latency, of in _DEPLOYMENTS:
        line = _line(rows[rate], rows[latency])
        seen.append({"deployment": name, **line})
        say(
            f"   {name:20}{line['messages_per_s']:>12,.0f}{line['mb_per_s']:>8.1f}{line['p50_us']:>9,.0f}"
            f"{line['p99_us']:>9,.0f}{line['lost']:>6}   {of}"
        )
    say(f"   {_BODY_BYTES} B raw bodies, one publisher or producer, one receiver; {_where(report)}")
    say("   `zbroker bench compare` measures properly, beside bare sockets and libzmq's own proxy")
    return {"rows": seen}


def _line(rate: Row, latency: Row) -> dict[str, float]:
    return {
        "messages_per_s": _median(rate, "rate"),
        "mb_per_s": _median(rate, "bytes_rate") / 1e6,
        "p50_us": _median(latency, "p50_us"),
        "p99_us": _median(latency, "p99_us"),
        "lost": rate.lost + rate.damaged + latency.lost + latency.damaged,
    }


def _median(row: Row, field: str) -> float:
    figure = row.figure(field)
    assert figure is not None, f"row {row.name} measures {field}"
    return figure.median


def _where(report: Report) -> str:
    synced_us = report.disk["write_4k_and_fdatasync_p50_us"]
    return f"data on {report.disk['file_system']}, 4 KiB synced in {synced_us:.0f} us"


def _in_silence(done: float, total: int, label: str) -> None:
    """The table is short enough without a bar."""
