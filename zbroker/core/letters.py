"""What a dead letter looks like: the message as it was, and headers that say why it died and of which group. Pure functions.

Their names begin with `zb-dead-`; names that begin with `zb-` are the broker's, and what a producer had there is written over.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from patterns.wire.frames import JSON, MSGPACK, pack_columns
from patterns.wire.limits import COLUMNS_BYTES_MAX
from patterns.wire.messages import Columns
from patterns.wire.settled import Range
from zbroker.core.doomed import Taken
from zbroker.core.tail import Batch, Split

REASON: Final = "zb-dead-reason"
STREAM: Final = "zb-dead-stream"
GROUP: Final = "zb-dead-group"
OFFSET: Final = "zb-dead-offset"
ATTEMPTS: Final = "zb-dead-attempts"
PUBLISHED_AT: Final = "zb-dead-published-at"
TAKEN_OUT: Final = "zb-dead-headers-taken-out"
REDRIVEN: Final = "zb-redriven"
_DEAD: Final = "zb-dead-"

JSON_GROWTH_MAX: Final = 6  # of columns: U+0000 is six bytes there; what is below a sixth of the limit fits in any form

Headers = dict[str, str]


class Letter(msgspec.Struct, gc=False):
    """Messages of one batch, ready to be stored elsewhere."""

    count: int
    columns: bytes
    payload: bytes


def died(split: Split, taken: Sequence[Taken], stream: str, group: str) -> Letter | None:
    """Dead letters of these messages, which are all of the batch; None: with their headers they are too many for one.

    Raises:
        UNREADABLE: the batch's bytes make no sense.
    """
    batch = split.batch
    headers: list[Headers] = []
    for one in taken:
        common = {
            REASON: one.reason,
            STREAM: stream,
            GROUP: group,
            ATTEMPTS: str(one.tries),
            PUBLISHED_AT: str(batch.published_at),
        }
        headers += [{**common, OFFSET: str(offset)} for offset in range(one.first, one.last + 1)]
    return _letter(split, [(one.first, one.last) for one in taken], headers, is_death=True)


def redriven(split: Split, ranges: Sequence[Range]) -> Letter | None:
    """The messages at these offsets of a dead-letter stream as they were, but for a header that counts how often; as died()."""
    count = sum(last - first + 1 for first, last in ranges)
    return _letter(split, ranges, [{} for _ in range(count)], is_death=False)


def headers_of(split: Split, first: int, last: int) -> list[Headers]:
    """Of the messages at these offsets, none of which is cut out. Raises UNREADABLE."""
    columns, _ = split.pick(places(split.batch, [(first, last)]))
    return [one or {} for one in _column(columns, last - first + 1)]


def places(batch: Batch, ranges: Sequence[Range]) -> list[slice]:
    """Where the messages at these offsets stand among those that the batch holds."""
    found: list[slice] = []
    for first, last in ranges:
        begin, _, before = batch.run(first - batch.base)
        at = before + first - batch.base - begin
        found.append(slice(at, at + last - first + 1))
    return found


def _column(columns: Columns, count: int) -> list[Headers | None]:
    return [None] * count if columns.headers is msgspec.UNSET else columns.headers


def _letter(split: Split, ranges: Sequence[Range], added: list[Headers], *, is_death: bool) -> Letter | None:
    columns, payload = split.pick(places(split.batch, ranges))
    old = _column(columns, len(added))
    columns.delays = msgspec.UNSET  # it has waited before
    columns.headers = [_joined(had or {}, new, is_death=is_death) for had, new in zip(old, added, strict=True)]
    packed = pack_columns(columns, MSGPACK)
    if not _fits(columns, packed):
        if len(added) > 1:
            return None
        columns.headers = [{**added[0], TAKEN_OUT: str(len(old[0] or {}))}]
        packed = pack_columns(columns, MSGPACK)
    return Letter(len(added), packed, payload)


def _joined(had: Headers, new: Headers, *, is_death: bool) -> Headers:
    kept = {name: value for name, value in had.items() if not name.startswith(_DEAD)}
    if not is_death:
        kept[REDRIVEN] = str(1 + _number(had.get(REDRIVEN, "0")))
    return {**kept, **new}


def _number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 10 else 0


def _fits(columns: Columns, packed: bytes) -> bool:
    """Whether a peer of either form can be given them."""
    return len(packed) <= COLUMNS_BYTES_MAX // JSON_GROWTH_MAX or len(pack_columns(columns, JSON)) <= COLUMNS_BYTES_MAX
