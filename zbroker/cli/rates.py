"""What changes in a broker, from two answers of `status`: rates a second, and how they look in so many columns. No I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from patterns.wire.words import counted
from zbroker.cli.answer import Group, Guard, Status
from zbroker.cli.words import brief_time_of, cleaned, columns_of, fitted

_GAP: Final = 2
_NAME_COLUMNS_MIN: Final = 12
_NAME_COLUMNS: Final = 24  # on a terminal of 80 columns, where figures give way for them
_FIGURE_COLUMNS: Final = 9  # 1,234,567
_MIB: Final = 1 << 20
_STREAM_COLUMNS: Final = (
    "append/s",
    "ack/s",
    "lag",
    "behind",
    "pending",
    "messages",
)  # those on the right give way first
_GROUP_FACTS: Final = ("lag", "lag_s", "pending", "members", "leased", "waiting", "dead", "paused")
_GROUP_COLUMNS: Final = ("ack/s", "lag", "behind", "members", "leased", "dead")  # what is pending is its lag


def frame_of(before: Status, after: Status) -> dict[str, Any]:
    """One refresh. Rates are per second, over the time between the answers on the broker's own clock.

    A broker that was started again has forgotten what it counted: then all rates are None.
    """
    elapsed_ms = after.uptime_ms - before.uptime_ms
    is_same = before.epoch == after.epoch and elapsed_ms > 0
    old, new = _totals(before), _totals(after)

    def rate(now: int, then: int | None) -> float | None:
        return round((now - (then or 0)) * 1_000 / elapsed_ms, 1) if is_same else None

    streams: dict[str, dict[str, Any]] = {}
    acked, acked_before = _acked(after), _acked(before)
    for name, stream in after.streams.items():
        members, was = _groups_of(after, name), before.streams.get(name)
        streams[name] = {
            "append": rate(stream.next_offset, was.next_offset if was else None),
            "ack": rate(acked[name], acked_before.get(name)) if members else None,
            "lag": max((group.lag for group in members), default=None),
            "lag_s": max((group.lag_s for group in members if group.lag_s is not None), default=None),
            "pending": sum(group.pending for group in members) if members else None,
            "messages": stream.messages,
        }
    groups: dict[str, dict[str, Any]] = {}
    for name, group in after.groups.items():
        known = before.groups.get(name)
        groups[name] = {"ack": rate(group.acked, known.acked if known else None)}
        groups[name] |= {fact: getattr(group, fact) for fact in _GROUP_FACTS}
    guard = after.guard or Guard()
    return {
        "epoch": after.epoch,
        "uptime_ms": after.uptime_ms,
        "interval_ms": elapsed_ms if is_same else None,
        "rates": {name: rate(count, old[name]) for name, count in new.items()},
        "streams": streams,
        "groups": groups,
        "sessions": after.sessions,
        "connections": guard.connections,
        "cuts": sum(guard.cuts.values()),
        "memory_bytes": guard.rss_bytes,
        "warnings": after.warnings,
    }


def _totals(status: Status) -> dict[str, int]:
    counters = status.counters
    plain = sum(count for name, count in counters.items() if name.startswith("plain_dropped"))
    return {
        "requests": counters.get("requests", 0),
        "published": counters.get("published", 0),
        "dropped": counters.get("live_dropped", 0) + plain,
        "refused": sum(status.refused.values()),
    }


def _groups_of(status: Status, stream: str) -> list[Group]:
    return [group for name, group in status.groups.items() if name.rpartition("/")[0] == stream]


def _acked(status: Status) -> dict[str, int]:
    """Messages acked by all groups of each stream."""
    return {name: sum(group.acked for group in _groups_of(status, name)) for name in status.streams}


# -- for people --------------------------------------------------------------------------------------------------


def lines_of(frame: Mapping[str, Any], columns: int) -> Iterator[str]:
    """A refresh as lines of at most so many columns."""
    for line in _lines(frame, columns):
        yield fitted(line, columns)


def _lines(frame: Mapping[str, Any], columns: int) -> Iterator[str]:
    for warning in frame["warnings"]:
        yield f"warning: {warning}"
    if frame["interval_ms"] is None:
        yield "the broker was started again: rates come with the next refresh"
    memory = frame["memory_bytes"]
    facts = [f"{name} {_figure(value)}/s" for name, value in frame["rates"].items()]
    facts += [
        cleaned(counted(count, role if role != "total" else "session")) for role, count in frame["sessions"].items()
    ]
    facts += [f"connections {_figure(frame['connections'])}", f"cuts {frame['cuts']}"]
    facts += [f"memory {memory / _MIB:.0f} MiB"] if memory else []
    yield from _packed(facts, columns)
    if frame["streams"]:
        busiest = sorted(frame["streams"].items(), key=lambda item: (-(item[1]["append"] or 0), item[0]))
        yield from _table("streams", _STREAM_COLUMNS, busiest, columns)
    if frame["groups"]:
        farthest = sorted(frame["groups"].items(), key=lambda item: (-item[1]["lag"], item[0]))
        rows = [(f"{name} (paused)" if group["paused"] else name, group) for name, group in farthest]
        yield from _table("groups", _GROUP_COLUMNS, rows, columns)


def _packed(facts: Sequence[str], columns: int) -> Iterator[str]:
    """As many facts a line as fit."""
    line = ""
    for fact in facts:
        if line and len(line) + _GAP + len(fact) > columns:
            yield line
            line = ""
        line += f"{'  ' if line else ''}{fact}"
    yield line


def _table(
    title: str, titles: Sequence[str], rows: Sequence[tuple[str, Mapping[str, Any]]], columns: int
) -> Iterator[str]:
    """A blank line, titles, rows; columns that have no room are left out, and a long name is cut."""
    wanted = _NAME_COLUMNS if columns >= 80 else _NAME_COLUMNS_MIN
    room = max(columns - wanted, _GAP + _FIGURE_COLUMNS)
    shown = titles[: room // (_GAP + _FIGURE_COLUMNS)]
    longest = max(map(columns_of, map(cleaned, (title, *(name for name, _ in rows)))))
    width = min(longest, max(_NAME_COLUMNS_MIN, columns - len(shown) * (_GAP + _FIGURE_COLUMNS)))
    yield ""
    yield _row(title, shown, width)
    for name, row in rows:
        yield _row(name, [_cell(row, column) for column in shown], width)


def _cell(row: Mapping[str, Any], title: str) -> str:
    if title != "behind":
        return _figure(row[title.removesuffix("/s")])
    return "-" if row["lag_s"] is None else brief_time_of(row["lag_s"])


def _row(name: str, cells: Sequence[str], width: int) -> str:
    name = fitted(name, width)
    return name + " " * (width - columns_of(name)) + "".join(cell.rjust(_GAP + _FIGURE_COLUMNS) for cell in cells)


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.1f}" if 0 < value < 10 and isinstance(value, float) else f"{value:,.0f}"
