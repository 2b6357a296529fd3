"""What a stream and a group are told to be: the values that users write, verbs carry and CATALOG records hold. No logic but checks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from msgspec import Struct, ValidationError, convert
from msgspec.structs import asdict, fields

from patterns.wire.errors import BadArgument
from patterns.wire.limits import (
    DEDUP_IDS_MAX,
    DELAY_MS_MAX,
    INTEGER_MAX,
    SECONDS_MAX,
    TOPICS_CAPTURED_MAX,
    UNSETTLED_MAX,
)
from patterns.wire.names import check_meant, check_name

if TYPE_CHECKING:
    Start = int | str | datetime
else:
    Start = int | str  # on the wire an instant is ISO 8601; msgspec takes no union of two kinds of text

BACKOFFS_MAX: Final = 64  # what comes after so many tries is the same ever after
LEASE_S_MIN: Final = 1.0  # a session's heartbeat takes two
CONFIRM_LEVELS: Final = ("received", "written", "durable")  # the weakest first


class StreamConfig(Struct, frozen=True, omit_defaults=True, gc=False):
    """What a stream is told to be. None: the broker's own setting, or no bound.

    Attributes:
        name: of the stream.
        topics: patterns; live messages of these topics are stored.
        retention: `limits`: beyond its bounds the oldest messages go. `work`: a message goes when every group has settled it;
            without a group all stay.
        age_max_s: of `limits`: older messages go.
        bytes_max: of `limits`: beyond so many bytes of records the oldest go; None: the broker's `stream_bytes`. Of `work`:
            beyond so many, producers are refused with STREAM_FULL until consumers have made room; None: no such bound.
        messages_max: the same in messages; None: no bound.
        keep_unsettled: of `limits`: what an existing group has not settled stays, bounds or not; else it goes as well, and
            counts as expired there.
        overflow: of `work`: what happens at the bounds. `reject`, with a retry-after, is all there is.
        quota_bytes: what the stream may take on disk, whatever it keeps them for; then producers are refused with STREAM_FULL.
            None: the broker's `stream_quota_bytes`.
        dedup_s: so long a message_id is remembered; 0: not at all.
        dedup_ids_max: and so many of them.
        confirm_min: the weakest level that producers may ask for: `received`, `written` or `durable`.
    """

    name: str
    topics: list[str] = []
    retention: Literal["limits", "work"] = "limits"
    age_max_s: float | None = None
    bytes_max: int | None = None
    messages_max: int | None = None
    keep_unsettled: bool = True
    overflow: Literal["reject"] = "reject"
    quota_bytes: int | None = None
    dedup_s: float = 120.0
    dedup_ids_max: int = 100_000
    confirm_min: Literal["received", "written", "durable"] = "received"

    def check(self) -> StreamConfig:
        """Itself. Raises BadName, BadArgument."""
        check_name(self.name, "stream")
        if len(self.topics) > TOPICS_CAPTURED_MAX:
            raise BadArgument(f"{len(self.topics)} topics, at most {TOPICS_CAPTURED_MAX}: use wildcards")
        for pattern in self.topics:
            check_meant(pattern)
        _check_seconds("age_max_s", self.age_max_s)
        _check_seconds("dedup_s", self.dedup_s, least=0)
        for name in ("bytes_max", "messages_max", "quota_bytes"):
            _check_count(name, getattr(self, name), INTEGER_MAX)
        _check_count("dedup_ids_max", self.dedup_ids_max, DEDUP_IDS_MAX)
        if self.retention == "work" and self.age_max_s is not None:
            raise BadArgument("age_max_s with retention 'work', where nothing goes that is not processed; use 'limits'")
        if self.retention == "work" and not self.keep_unsettled:
            raise BadArgument(
                "keep_unsettled=False with retention 'work', which keeps what is not processed; use 'limits'"
            )
        return self


class GroupConfig(Struct, frozen=True, omit_defaults=True, gc=False):
    """What a group is told to be.

    Attributes:
        stream, name: whose, and its own.
        start: `first`, `new`, an offset, or an aware datetime (on the wire ISO 8601); counts when the group is made or reset.
        lease_s: without progress of its member a lease ends after this.
        processing_max_s: so long a Consumer keeps what it holds while its handler computes, unless it says otherwise itself;
            None: the Consumer's own default.
        max_deliveries: after so many failed ones a message moves to the dead-letter stream; 0: it is offered again, for ever.
        backoff_s: how long a message waits after its first, second, .. failed delivery; the last one counts for all further.
            A nack with a delay has its own.
        dead_letter: the stream where rejected messages and those beyond max_deliveries go; "": what is rejected is counted,
            and gone.
        unsettled_max: lent, delayed and failed messages together; beyond it the group gets nothing new until some are settled.
        exclusive: one member at a time is given messages; another one takes over when it has gone.
        idle_expiry_s: without members for so long, in one life of the broker, the group is deleted; None: never.
    """

    stream: str
    name: str
    start: Start = "first"
    lease_s: float = 30.0
    processing_max_s: float | None = None
    max_deliveries: int = 0
    backoff_s: list[float] = []
    dead_letter: str = ""
    unsettled_max: int = 1_000_000
    exclusive: bool = False
    idle_expiry_s: float | None = None

    def check(self) -> GroupConfig:
        """Itself. Raises BadName, BadArgument."""
        check_name(self.stream, "stream")
        check_name(self.name, "group")
        start_of(self.start)
        _check_seconds("lease_s", self.lease_s, least=LEASE_S_MIN)
        _check_seconds("processing_max_s", self.processing_max_s, least=0.1)
        _check_seconds("idle_expiry_s", self.idle_expiry_s, least=1)
        _check_count("max_deliveries", self.max_deliveries, 1_000_000, least=0)
        _check_count("unsettled_max", self.unsettled_max, UNSETTLED_MAX)
        if len(self.backoff_s) > BACKOFFS_MAX:
            raise BadArgument(f"{len(self.backoff_s)} times in backoff_s, at most {BACKOFFS_MAX}; the last one repeats")
        for delay_s in self.backoff_s:
            _check_seconds("backoff_s", delay_s, least=0, most=DELAY_MS_MAX / 1_000)
        if self.dead_letter:
            check_name(self.dead_letter, "stream")
        if self.dead_letter == self.stream:
            raise BadArgument(
                f"dead_letter {self.dead_letter!r} is the group's own stream: it would get its dead letters again"
            )
        if self.max_deliveries and not self.dead_letter:
            raise BadArgument(
                f"max_deliveries={self.max_deliveries} without dead_letter: say where the messages go then"
            )
        return self


_Config = TypeVar("_Config", StreamConfig, GroupConfig)


def config_of(kind: type[_Config], found: object) -> _Config:
    """What a verb's argument says, checked.

    Raises:
        BadArgument: an unknown field, or a value that is none; BadName.
    """
    if not isinstance(found, dict):
        raise BadArgument(f"config is a {type(found).__name__}, not a map")
    known = [field.name for field in fields(kind)]
    unknown = sorted(str(name)[:64] for name in found if name not in known)
    if unknown:
        raise BadArgument(f"{unknown[0]!r} is not a field of {kind.__name__}; there are {', '.join(known)}")
    try:
        config = convert(found, kind)
    except ValidationError as error:
        raise BadArgument(f"{kind.__name__}: {error}") from error
    config.check()
    return config


def told(config: StreamConfig | GroupConfig) -> dict[str, Any]:
    """As a verb carries it: all fields, instants as text."""
    found = asdict(config)
    if isinstance(found.get("start"), datetime):
        found["start"] = found["start"].isoformat()
    return found


def start_of(start: Start) -> int | Literal["first", "new"] | datetime:
    """Where a group begins. Raises BadArgument."""
    if isinstance(start, str) and start not in ("first", "new"):
        try:
            start = datetime.fromisoformat(start)
        except ValueError:
            raise BadArgument(f"start={str(start)[:64]!r}: 'first', 'new', an offset, or an aware datetime") from None
    if isinstance(start, datetime):
        if start.tzinfo is None:
            raise BadArgument(f"start={start.isoformat()}: a time without a zone; datetime.now(timezone.utc) has one")
        return start
    if isinstance(start, int):
        _check_count("start", start, INTEGER_MAX, least=0)
    return start  # type: ignore[return-value]  # one of the two words


_STREAM_CHANGES: Final = {
    "topics": "for live messages that come from now on",
    "retention": "now, for what is stored too",
    "age_max_s": "now, for what is stored too",
    "bytes_max": "now, for what is stored too",
    "messages_max": "now, for what is stored too",
    "keep_unsettled": "now, for what is stored too",
    "overflow": "for messages that come from now on",
    "quota_bytes": "for messages that come from now on",
    "dedup_s": "now; what was forgotten stays forgotten",
    "dedup_ids_max": "now; what was forgotten stays forgotten",
    "confirm_min": "for batches that come from now on",
}
_GROUP_CHANGES: Final = {
    "start": "when the group is reset, or made anew; not for this one",
    "lease_s": "for leases that are given or renewed from now on",
    "processing_max_s": "for members that join from now on",
    "max_deliveries": "for deliveries that fail from now on",
    "backoff_s": "for deliveries that fail from now on",
    "dead_letter": "for messages that are rejected, or fail, from now on",
    "unsettled_max": "now",
    "exclusive": "now; what other members hold they may settle",
    "idle_expiry_s": "now, counted from when the last member left",
}


def changes(old: _Config, new: _Config) -> Iterator[tuple[str, Any, Any, str]]:
    """What differs: the field, before and after, and from when on the new value counts."""
    texts = _STREAM_CHANGES if isinstance(old, StreamConfig) else _GROUP_CHANGES
    before, after = told(old), told(new)
    for name, text in texts.items():
        if before[name] != after[name]:
            yield name, before[name], after[name], text


def _check_seconds(name: str, value: float | None, *, least: float = 0.001, most: float = SECONDS_MAX) -> None:
    if value is None:
        return
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not math.isfinite(value)
        or not least <= value <= most
    ):
        raise BadArgument(f"{name}={value!r}: a number of seconds, {least:g} to {most:,.0f}")


def _check_count(name: str, value: int | None, most: int, *, least: int = 1) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise BadArgument(f"{name}={value!r}: a whole number, {least} to {most:,}")
