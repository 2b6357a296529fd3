"""What plain subscribers listen to: prefixes of bytes, as an XPUB reports them. It decides whether a message is worth splitting
out of its batch; who gets it, libzmq knows alone.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from patterns.wire.engine import PeerId
from patterns.wire.holdings import Holdings
from patterns.wire.limits import PLAIN_PREFIXES_BYTES_MAX, PLAIN_PREFIXES_BYTES_MAX_OF_ALL

_COUNTED_MAX: Final = 65_536  # distinct prefixes; behind it we stop telling them apart
_TOPICS_CACHED: Final = 65_536
_QUIET_US: Final = 5_000_000  # news of connections take a quarter of a second; then whoever is there is known to be


class Prefixes:
    """The live prefixes, counted, and what each connection holds of them.

    XPUB reports each subscription and each cancellation with the connection that it came from. When a connection ends, it reports
    a cancellation for each of its prefixes, from nobody; these are true, whoever it was. A peer's own word is taken for
    what it subscribed itself: else anybody could cancel everybody's.

    Who subscribes twice to the same, which libzmq's own SUB never does, is counted twice and ends once: it cannot be told from a
    new connection on the same fd, and that one must be heard. What is left over costs looks, and goes when nobody is there.

    Args:
        bytes_max, bytes_max_of_all: what one connection may hold, and all together.
    """

    def __init__(
        self, bytes_max: int = PLAIN_PREFIXES_BYTES_MAX, bytes_max_of_all: int = PLAIN_PREFIXES_BYTES_MAX_OF_ALL
    ) -> None:
        self._live: Counter[bytes] = Counter()
        self._lengths: Counter[int] = Counter()
        self._held: Holdings[PeerId] = Holdings(bytes_max, bytes_max_of_all)
        self._excluded: set[PeerId] = set()
        self._is_beyond_count = False
        self._peers: set[PeerId] = set()
        self._stirred_at = 0
        self._heard: dict[str, bool] = {}

    def __len__(self) -> int:
        return len(self._live)

    def __bool__(self) -> bool:
        return bool(self._live) or self._is_beyond_count

    @property
    def connections(self) -> int:
        """How many are there."""
        return len(self._peers)

    def came(self, peer: PeerId, now: int) -> None:
        """A connection stands; its subscriptions may have come before this."""
        self._stir(now)
        self._peers.add(peer)

    def subscribe(self, peer: PeerId, prefix: bytes, now: int) -> PeerId | None:
        """A prefix of a connection; from nobody, when it is not known.

        Returns:
            The connection that must be closed, since it holds too much; None if all is well. It is named once.
        """
        self._stir(now)
        self._add(prefix)
        if not peer or peer in self._excluded:
            return None
        offender = self._held.add(peer, prefix)
        if offender is not None:
            self._excluded.add(offender)  # its prefixes stay live until libzmq reports the end of each
        return offender

    def _stir(self, now: int) -> None:
        """Somebody is there. When nobody was for a while, what still seems to live is left over."""
        if now - self._stirred_at > _QUIET_US and not self._peers and not self._held:
            for mine in (self._live, self._lengths, self._excluded, self._heard):
                mine.clear()
            self._is_beyond_count = False
        self._stirred_at = now

    def cancel(self, peer: PeerId, prefix: bytes, now: int) -> bool:
        """A prefix no longer. Returns False for what that connection does not hold, and changes nothing then."""
        self._stirred_at = now
        if peer and not self._held.drop(peer, prefix):
            return False
        self._remove(prefix)
        return True

    def went(self, peer: PeerId, now: int) -> None:
        """A connection has ended; libzmq reports its prefixes one by one, before this or after it."""
        self._stirred_at = now
        self._peers.discard(peer)
        self._excluded.discard(peer)
        self._held.forget(peer)

    def _add(self, prefix: bytes) -> None:
        if prefix not in self._live:
            if len(self._live) >= _COUNTED_MAX:
                self._is_beyond_count = True  # everything is offered then, and libzmq tells what is wanted
                return
            self._lengths[len(prefix)] += 1
            self._heard.clear()
        self._live[prefix] += 1

    def _remove(self, prefix: bytes) -> None:
        if prefix not in self._live:
            return
        self._live[prefix] -= 1
        if not self._live[prefix]:
            del self._live[prefix]
            self._lengths[len(prefix)] -= 1
            if not self._lengths[len(prefix)]:
                del self._lengths[len(prefix)]
            self._heard.clear()

    def hears(self, topic: str) -> bool:
        """Whether some prefix matches this topic."""
        found = self._heard.get(topic)
        if found is None:
            if len(self._heard) >= _TOPICS_CACHED:
                self._heard.clear()
            found = self._heard[topic] = self._is_beyond_count or self._search(topic.encode())
        return found

    def _search(self, topic: bytes) -> bool:
        live = self._live
        return any(topic[:length] in live for length in self._lengths if length <= len(topic))
