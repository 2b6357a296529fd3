"""The verbs of an Admin (SPEC.md 10): what a caller hands over, checked, as ADMIN carries it. No session, no answer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple, TypeVar

from msgspec.msgpack import encode

from patterns.wire.configs import GroupConfig, Start, StreamConfig, config_of, start_of, told
from patterns.wire.errors import BadArgument, BadBody
from patterns.wire.limits import HEADER_BYTES_MAX, INTEGER_MAX
from patterns.wire.names import check_name

CONFIG_BYTES_MAX: Final = HEADER_BYTES_MAX - 1_024  # it travels in a header, with a verb and some flags beside
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_Config = TypeVar("_Config", StreamConfig, GroupConfig)


class Verb(NamedTuple):
    """Of an ADMIN."""

    name: str
    arguments: dict[str, object]


def create(kind: type[_Config], config: _Config, *, dry_run: bool, change: bool) -> Verb:
    """create_stream, or create_group. Raises BadName, BadArgument."""
    name = "create_stream" if kind is StreamConfig else "create_group"
    if not isinstance(config, kind):
        raise BadArgument(
            f"{name}({str(config)[:100]!r}): a {kind.__name__}, for example {kind.__name__}('orders', ..)"
        )
    found = told(config_of(kind, told(config)))  # a Struct takes any value until somebody looks
    size = len(encode(found))
    if size > CONFIG_BYTES_MAX:
        raise BadArgument(f"{kind.__name__} of {size:,} bytes, at most {CONFIG_BYTES_MAX:,}: use wildcards in topics")
    return Verb(name, {"config": found, "dry_run": bool(dry_run), "change": bool(change)})


def of_stream(name: str, stream: str) -> Verb:
    """delete_stream, show_stream. Raises BadName."""
    return Verb(name, {"stream": check_name(stream, "stream")})


def list_of(name: str, stream: str | None = None) -> Verb:
    """list_streams; list_groups and list_dead, of one stream or of all. Raises BadName."""
    return Verb(name, {}) if stream is None else of_stream(name, stream)


def of_group(name: str, stream: str, group: str) -> Verb:
    """delete_group, show_group, pause_group, resume_group. Raises BadName."""
    return Verb(name, {"stream": check_name(stream, "stream"), "group": check_name(group, "group")})


def purge_stream(stream: str, keep: int | None, before: int | datetime | None) -> Verb:
    """Raises BadName, BadArgument."""
    verb = of_stream("purge_stream", stream)
    if keep is not None and before is not None:
        raise BadArgument(f"keep={keep!r} and before={before!r}: one of them")
    if keep is not None:
        verb.arguments["keep"] = _count("keep", keep, least=0)
    elif isinstance(before, datetime):
        verb.arguments["published_before"] = milliseconds_of("before", before)
    elif before is not None:
        verb.arguments["before"] = _count("before", before, least=0)
    return verb


def reset_group(stream: str, group: str, start: Start | None) -> Verb:
    """Raises BadName, BadArgument."""
    verb = of_group("reset_group", stream, group)
    if start is not None:
        begins = start_of(start)
        if isinstance(begins, datetime):
            verb.arguments.update(start="time", published_at=milliseconds_of("start", begins))
        elif isinstance(begins, int | str) and not isinstance(begins, bool):
            verb.arguments["start"] = begins
        else:
            raise BadArgument(f"start={start!r}: 'first', 'new', an offset, or an aware datetime")
    return verb


def show_dead(stream: str, first: int, count: int | None, all: bool) -> Verb:
    """Raises BadName, BadArgument."""
    verb = of_stream("show_dead", stream)
    verb.arguments.update(first=_count("first", first, least=0), all=bool(all))
    if count is not None:
        verb.arguments["count"] = _count("count", count)
    return verb


def redrive_dead(stream: str, count: int | None, to: str | None, first: int | None, last: int | None) -> Verb:
    """Raises BadName, BadArgument."""
    verb = of_stream("redrive_dead", stream)
    if count is not None:
        verb.arguments["count"] = _count("count", count)
    if to is not None:
        verb.arguments["to"] = check_name(to, "stream")
    for name, offset in (("first", first), ("last", last)):
        if offset is not None:
            verb.arguments[name] = _count(name, offset, least=0)
    if first is not None and last is not None and first > last:
        raise BadArgument(f"first={first} lies behind last={last}")
    return verb


def rows_of(verb: Verb, result: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """The rows of a list's result. Raises BadBody: it has none."""
    rows = result.get(key)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BadBody(f"the result of {verb.name} has no list of {key}")
    return rows


def count_of(verb: Verb, result: dict[str, Any]) -> int:
    """How many rows there are in all. Raises BadBody: it does not say."""
    count = result.get("count")
    if not isinstance(count, int):
        raise BadBody(f"the result of {verb.name} has no count")
    return count


def milliseconds_of(name: str, instant: datetime) -> int:
    """Since 1970; a part of one counts as whole. Raises BadArgument for a time without a zone."""
    if instant.utcoffset() is None:
        raise BadArgument(f"{name}={instant!r}: a time without a zone; datetime.now(timezone.utc) has one")
    return max(0, -((_EPOCH - instant) // timedelta(milliseconds=1)))


def _count(name: str, value: int, *, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= INTEGER_MAX:
        raise BadArgument(f"{name}={value!r}: a whole number, {least} to {INTEGER_MAX:,}")
    return value
