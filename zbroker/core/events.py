"""What the broker's engine has to tell people: events in the past tense, for the log. Nothing depends on their being read."""

from __future__ import annotations

import msgspec


class WarningRaised(msgspec.Struct, gc=False, frozen=True):
    """`status` shows this warning from now on; its text may change."""

    key: str
    text: str


class WarningGone(msgspec.Struct, gc=False, frozen=True):
    """`status` does not show it any more."""

    key: str


class SessionBegan(msgspec.Struct, gc=False, frozen=True):
    """A client was admitted, or has come back. `session` names it in SessionEnded too: the begin of its nonce."""

    session: str
    role: str
    name: str
    resumed: bool


class SessionRefused(msgspec.Struct, gc=False, frozen=True):
    """A HELLO was answered with an error."""

    session: str
    role: str
    name: str
    error: str
    detail: str


class SessionEnded(msgspec.Struct, gc=False, frozen=True):
    """A session is over; `reason` as in Host.ended()."""

    session: str
    role: str
    name: str
    reason: str


class PlainDropped(msgspec.Struct, gc=False, frozen=True):
    """Messages of plain ZeroMQ publishers are dropped for this fault: `count` since the start. `wanted` is what would pass."""

    fault: str
    count: int
    wanted: str


class GroupExpired(msgspec.Struct, gc=False, frozen=True):
    """A group had no member for as long as its configuration allows, and was deleted."""

    stream: str
    group: str
    idle_s: float


Event = WarningRaised | WarningGone | SessionBegan | SessionRefused | SessionEnded | PlainDropped | GroupExpired
