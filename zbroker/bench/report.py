"""What a run found, and its JSON. Keys are stable: results of today are compared with those of next year."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from zbroker.bench.figures import Figure, figure, ratios

FORMAT: Final = 1


class Sample(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One measurement of one row.

    Attributes:
        rate: messages per second at the receiving end.
        bytes_rate: bytes of bodies per second.
        p50_us, p99_us, p999_us, max_us: of one operation after another, or from the intended time of each message.
        messages: how many the figures rest on.
        lost: sent and never received.
        damaged: received with another body than was sent.
        timed: operations that the percentiles rest on, where that is not `messages`.
        per_batch: messages in a batch, on average, where the row knows.
        offered: the fixed rate that was asked for, messages per second.
        cpu_us: of the broker, a message.
        cpu_percent: of the broker, of one core.
        resident_bytes: of the broker, a connection.
        back_s: until all clients were back.
        per_commit: messages that one sync covered, on average.
        write_factor: bytes that were written to the disk, for each byte of bodies that was stored.
        space_factor: bytes of disk taken up, for each byte of bodies that is still there to be delivered.
        held_bytes: memory of the broker, at its most.
        ready_s: from the start of a broker until it serves.
        ready_cpu_s: CPU time of the broker and its children until then: what others on the machine cannot change.
    """

    rate: float | None = None
    bytes_rate: float | None = None
    p50_us: float | None = None
    p99_us: float | None = None
    p999_us: float | None = None
    max_us: float | None = None
    messages: int = 0
    lost: int = 0
    damaged: int = 0
    timed: float | None = None
    per_batch: float | None = None
    offered: float | None = None
    cpu_us: float | None = None
    cpu_percent: float | None = None
    resident_bytes: float | None = None
    back_s: float | None = None
    per_commit: float | None = None
    write_factor: float | None = None
    space_factor: float | None = None
    held_bytes: float | None = None
    ready_s: float | None = None
    ready_cpu_s: float | None = None


# What a row can be asked for, and whether more of it is better.
FIGURES: Final[dict[str, bool]] = {
    "rate": True,
    "bytes_rate": True,
    "p50_us": False,
    "p99_us": False,
    "p999_us": False,
    "max_us": False,
    "cpu_us": False,
    "cpu_percent": False,
    "resident_bytes": False,
    "back_s": False,
    "write_factor": False,
    "space_factor": False,
    "held_bytes": False,
    "ready_s": False,
    "ready_cpu_s": False,
}


class Row(msgspec.Struct, kw_only=True):
    """All samples of one thing that was measured.

    Attributes:
        name: stable, for --rows and for comparisons.
        group: rows of one group were interleaved.
        label: for people.
        api: the calls that a message goes through.
        body: what a message is.
        size: of a raw body, bytes, where several sizes were run.
    """

    name: str
    group: str
    label: str
    api: str
    body: str
    samples: list[Sample]
    size: int | None = None

    def values(self, field: str) -> list[float]:
        """One field of all samples that have it."""
        return [value for sample in self.samples if (value := getattr(sample, field)) is not None]

    def figure(self, field: str) -> Figure | None:
        """Its middle and ends."""
        return figure(self.values(field))

    @property
    def lost(self) -> int:
        return sum(sample.lost for sample in self.samples)

    @property
    def damaged(self) -> int:
        return sum(sample.damaged for sample in self.samples)


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """What a row is held against.

    Attributes:
        row: whose figure.
        field: one of FIGURES.
        against: rows whose figures are added up; empty: the figure itself is compared.
        bar: the number to reach; None: the design has none.
        at_least: whether more is better.
        text: the bar as the design words it.
    """

    row: str
    field: str
    against: tuple[str, ...]
    bar: float | None
    at_least: bool
    text: str


class Ratio(msgspec.Struct, kw_only=True):
    """A bar and what was measured; `met` by the median, None without a bar. Never a verdict: a noisy machine misses bars."""

    row: str
    field: str
    against: tuple[str, ...]
    value: Figure
    bar: float | None
    at_least: bool
    met: bool | None
    text: str
    size: int | None = None


class Report(msgspec.Struct, kw_only=True):
    """A whole run."""

    format: int = FORMAT
    made_at: str
    machine: dict[str, Any]
    versions: dict[str, str]
    disk: dict[str, Any]
    settings: dict[str, Any]
    rows: list[Row]
    ratios: list[Ratio]


def held_against(bar: Bar, rows: dict[str, Row]) -> Ratio | None:
    """The ratio round by round; None when one of its rows was not run or measured nothing."""
    if any(name not in rows for name in (bar.row, *bar.against)):
        return None
    found = figure(_ratios_by_round(bar, rows) if bar.against else rows[bar.row].values(bar.field))
    if found is None:
        return None
    met = None
    if bar.bar is not None:
        met = found.median >= bar.bar if bar.at_least else found.median <= bar.bar
    return Ratio(
        row=bar.row,
        field=bar.field,
        against=bar.against,
        value=found,
        bar=bar.bar,
        at_least=bar.at_least,
        met=met,
        text=bar.text,
        size=rows[bar.row].size,
    )


def _ratios_by_round(bar: Bar, rows: dict[str, Row]) -> list[float]:
    """Of rounds in which all rows have the figure: what a row looks for need not happen in each."""
    rounds = zip(*(rows[name].samples for name in (bar.row, *bar.against)), strict=False)
    figures = [[getattr(sample, bar.field) for sample in samples] for samples in rounds]
    whole = [found for found in figures if None not in found]
    return ratios([found[0] for found in whole], [sum(found[1:]) for found in whole])


def summary(report: Report) -> dict[str, Any]:
    """The report as plain data, each row with the medians of its samples beside them."""
    plain: dict[str, Any] = msgspec.to_builtins(report)
    for row, data in zip(report.rows, plain["rows"], strict=True):
        found = {field: row.figure(field) for field in (*FIGURES, "timed", "per_batch", "per_commit", "offered")}
        data["figures"] = {field: msgspec.to_builtins(value) for field, value in found.items() if value is not None}
        data["lost"], data["damaged"] = row.lost, row.damaged
    return plain


def to_json(report: Report) -> bytes:
    """One JSON object."""
    return msgspec.json.encode(summary(report))
