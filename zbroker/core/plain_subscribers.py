"""Plain ZeroMQ subscribers (SPEC.md 8.1): batches taken apart for an XPUB, as far as somebody's prefix can match."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

from patterns.wire import codec
from patterns.wire.engine import Close, PeerId
from patterns.wire.frames import Frames
from patterns.wire.messages import Columns, Publish
from zbroker.core.effects import PLAIN_SUBSCRIBERS, Effect, Offer
from zbroker.core.prefixes import Prefixes


class PlainSubscribers:
    """All that listen at the XPUB. What is offered there has left our account: libzmq drops at its high-water mark and tells nobody.

    Args:
        effects: where offers go.
    """

    def __init__(self, effects: list[Effect]) -> None:
        self._effects = effects
        self._prefixes = Prefixes()
        self.counters: Counter[str] = Counter()

    def __bool__(self) -> bool:
        """Whether anybody listens to anything."""
        return bool(self._prefixes)

    def connected(self, peer: PeerId, now: int) -> None:
        """A connection has come."""
        self._prefixes.came(peer, now)

    def disconnected(self, peer: PeerId, now: int) -> None:
        """A connection has gone."""
        self._prefixes.went(peer, now)

    def receive(self, peer: PeerId, frames: Frames, now: int) -> None:
        """What XPUB reports: one frame, 1 or 0 and a prefix. Anything else is somebody's message, and nobody's business here."""
        match frames:
            case [report] if report[:1] == b"\1":
                offender = self._prefixes.subscribe(peer, report[1:], now)
                if offender is not None:
                    self.counters["plain_subscribers_closed"] += 1
                    self._effects.append(Close(PLAIN_SUBSCRIBERS, offender))
            case [report] if report[:1] == b"\0":
                if not self._prefixes.cancel(peer, report[1:], now):
                    self.counters["plain_ignored"] += 1
            case _:
                self.counters["plain_ignored"] += 1

    def offer(self, header: Publish, columns: Columns, topics: list[str], payload: Any) -> None:
        """Offer those messages of a checked batch that a prefix may match; the others cost a look at their topic.

        Args:
            header: of the batch.
            columns: of the batch, decoded.
            topics: the distinct ones.
            payload: bytes, or a view of them.
        """
        hears = self._prefixes.hears
        wanted = [topic.encode() if hears(topic) else None for topic in topics]
        if not any(wanted):
            return
        sizes = None if isinstance(columns.sizes, msgspec.UnsetType) else columns.sizes
        items = codec.items_of(header.codec, bytes(payload), header.count, sizes)
        if isinstance(columns.topic, msgspec.UnsetType):
            topic = wanted[0]
            assert topic is not None
            messages = [[topic, bytes(item)] for item in items]
        else:
            messages = [
                [topic, bytes(item)]
                for item, place in zip(items, columns.topic, strict=True)
                if (topic := wanted[place]) is not None
            ]
        if messages:  # a column may name topics that no message has
            self.counters["plain_offered"] += len(messages)
            self._effects.append(Offer(messages))

    def not_offered(self, count: int) -> None:
        """So many of the last offer were left out."""
        self.counters["plain_offered"] -= count
        self.counters["plain_dropped.behind"] += count

    def status(self) -> dict[str, int]:
        """Connections, and distinct prefixes."""
        return {"subscribers": self._prefixes.connections, "prefixes": len(self._prefixes)}
