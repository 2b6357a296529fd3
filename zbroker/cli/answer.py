"""What a broker answers to `status`, as far as this version reads it; what it does not know is left alone. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from patterns.wire.errors import BadBody
from zbroker.cli.bodies import is_json

# What counts is never negative, and more than 63 bits is no count of anything; arithmetic and formats stay exact.
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e12)]
Fact = str | int | float | None


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """Of a row of `streams`; what may be None is only shown."""

    next_offset: Count
    messages: Count
    kept_messages: Count | None = None
    kept_bytes: Count | None = None
    first_offset: Count | None = None
    producers: Count | None = None
    groups: Count | None = None
    lost: Count | None = None


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Of a row of `groups`."""

    acked: Count
    lag: Count
    pending: Count
    lag_s: Seconds | None = None
    accepted: Count | None = None
    lost: Count | None = None
    delayed: Count | None = None
    doomed: Count | None = None
    paused: bool | None = None
    leased: Count | None = None
    waiting: Count | None = None
    dead: Count | None = None
    expired: Count | None = None
    passed: Count | None = None
    redelivered: Count | None = None
    members: Count | None = None


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """Of a row of `services`."""

    repliers: Count | None = None
    waiting: Count | None = None
    credit: Count | None = None


class Guard(msgspec.Struct, frozen=True, kw_only=True):
    """What became of connections; of a cut and a failed handshake by kind."""

    connections: Count | None = None
    accepted: Count = 0
    handshakes: Count = 0
    disconnected: Count = 0
    handshakes_failed: dict[str, Count] = {}
    cuts: dict[str, Count] = {}
    rss_bytes: Count | None = None


class Journal(msgspec.Struct, frozen=True, kw_only=True):
    """Of the journal: what is warned of, and facts that are shown in this order."""

    folder: Fact = None
    epoch: Fact = None
    bytes: Fact = None
    live_bytes: Fact = None
    reserve_bytes: Fact = None
    segments: Fact = None
    segments_compacted: Fact = None
    reclaimed_bytes: Fact = None
    waiting_records: Fact = None
    last_sync_us: Fact = None
    sync_p50_us: Fact = None
    sync_p99_us: Fact = None
    checkpoint_age_ms: Fact = None
    checkpoint_records_behind: Fact = None
    file_system: Fact = None
    full: bool | str | None = None
    failed: str | None = None
    damage: list[Any] = []
    warnings: list[str] = []


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The answer itself."""

    epoch: Count
    uptime_ms: Count
    streams: dict[str, Stream] = {}
    groups: dict[str, Group] = {}
    services: dict[str, Service] = {}
    subscriptions: dict[str, Count] = {}
    plain: dict[str, Count] = {}
    sessions: dict[str, Count] = {}
    counters: dict[str, Count] = {}
    refused: dict[str, Count] = {}
    guard: Guard | None = None
    journal: Journal | None = None
    warnings: list[str] = []


def understood(found: dict[str, Any], url: str) -> Status:
    """An answer of the broker at `url`, read. Raises BadBody: it has another shape; the text says where."""
    try:
        return msgspec.convert(found, Status)
    except msgspec.ValidationError as error:
        raise _misunderstood(url, str(error)) from error


class Extent(msgspec.Struct, frozen=True, kw_only=True):
    """Of a row of show_stream: what there is to read."""

    first_offset: Count
    durable_next: Count
    published_last: Count | None = None


def extent_of(row: dict[str, Any], url: str) -> Extent:
    """Of an answer to show_stream, read. Raises BadBody."""
    try:
        return msgspec.convert(row, Extent)
    except msgspec.ValidationError as error:
        raise _misunderstood(url, str(error), "a stream") from error


def config_of(row: dict[str, Any], url: str) -> dict[str, Any]:
    """The configuration in an answer to show_stream or show_group. Raises BadBody: there is none."""
    config = row.get("config")
    if not isinstance(config, dict):
        raise _misunderstood(url, "it has no `config`", "a configuration")
    return config


def number_of(row: Mapping[str, Any], name: str) -> int:
    """A count that is only told; 0 when the broker does not say it."""
    count = row.get(name)
    return count if isinstance(count, int) else 0


def as_told(found: dict[str, Any], url: str) -> dict[str, Any]:
    """An answer to be printed as JSON, whatever its shape is. Raises BadBody: JSON cannot express it."""
    if not is_json(found):
        raise BadBody(f"the broker at {url} answered with what JSON cannot express, or what is nested too deep")
    return found


def _misunderstood(url: str, where: str, what: str = "a status") -> BadBody:
    return BadBody(f"the broker at {url} answered with {what} that this version does not understand: {where}")
