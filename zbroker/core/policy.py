"""What a broker does with streams and groups where their own configuration says nothing."""

from __future__ import annotations

from typing import Final

import msgspec

from patterns.wire.errors import NoSuchStream

STREAM_BYTES: Final = 4 << 30  # a disk of a small machine holds some of these
STREAM_QUOTA_BYTES: Final = 16 << 30


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """A broker's settings for its streams; 0 as a bound: none.

    Attributes:
        stream_bytes: so much each stream keeps of what no group is owed; 0: nothing of it.
        stream_quota_bytes: what one stream may take on disk.
        folder_quota_bytes: what all of them together may.
        auto_create: streams and groups are made by first use.
        group_idle_s: groups made by first use that had no member for so long are deleted.
    """

    stream_bytes: int = STREAM_BYTES
    stream_quota_bytes: int = STREAM_QUOTA_BYTES
    folder_quota_bytes: int = 0
    auto_create: bool = True
    group_idle_s: float = 0.0


DEFAULT_POLICY: Final = Policy()


def no_stream(name: str) -> NoSuchStream:
    """What to raise where streams are not made by first use."""
    return NoSuchStream(
        f"there is no stream {name!r}, and `auto_create` is off; make it first: `zbroker stream create {name}`"
    )
