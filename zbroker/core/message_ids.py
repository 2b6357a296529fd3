"""The window of message ids of one stream (SPEC.md 9.5): what is stored already, by the id that its sender gave it."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from operator import itemgetter
from typing import Any, Final, NamedTuple

from msgspec import UnsetType

from patterns.wire.configs import StreamConfig
from patterns.wire.frames import MSGPACK, pack_columns
from patterns.wire.settled import Range
from zbroker.core.column import decode_block, pack
from zbroker.core.tail import Batch, Split, Stored, marks_of

_DIGEST_BYTES: Final = 16  # ids of up to 64 KiB must not be held; two of equal digests nobody will live to see
_PIECE: Final = 4_096  # ids in one piece of a checkpoint: about 70 KiB
Repeat = tuple[int, int]  # place in the batch, and the offset that its message has had before


def digest_of(message_id: str) -> bytes:
    """What stands for an id; 16 bytes."""
    return blake2b(message_id.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).digest()


class _Run(NamedTuple):
    """Ids that came with one batch: when, and how many."""

    published_at: int
    size: int


class _At(NamedTuple):
    """Where and when the message of an id was stored; the newer one is the greater."""

    offset: int
    published_at: int


class MessageIds:
    """Ids of the newest messages of a stream, each with the offset of its message; as many and as old as `config` lets them be.

    What it holds follows from the APPEND records alone, so a broker that was started again knows the same.
    """

    def __init__(self) -> None:
        self._offsets: dict[bytes, int] = {}
        self._order: deque[bytes] = deque()  # oldest first; beside the dict, whose front is slow to take from
        self._runs: deque[_Run] = deque()
        self._recovered: dict[
            bytes, _At
        ] = {}  # until opened(); of messages with one id the last, for it was stored again

    def __len__(self) -> int:
        return len(self._offsets)

    def repeats(self, ids: Sequence[str | None], base: int, config: StreamConfig, now_ms: int) -> list[Repeat]:
        """Which messages of a batch are stored already, or stand in it twice.

        Args:
            base: the offset that the first message of the batch gets that is not.
            now_ms: when the batch gets published.
        """
        self.trim(config, now_ms)
        if not config.dedup_s:
            return []
        found: list[Repeat] = []
        new: dict[bytes, int] = {}
        for place, message_id in enumerate(ids):
            if not message_id:  # "" is none either, as in all of the protocol
                continue
            digest = digest_of(message_id)
            known = self._offsets.get(digest)
            if known is None:
                known = new.get(digest)
            if known is None:
                new[digest] = base + place - len(found)
            else:
                found.append((place, known))
        return found

    def note(self, ids: Iterable[str | None], offsets: Iterable[int], published_at: int, config: StreamConfig) -> None:
        """Messages with these ids are stored at these offsets; an id that is known stays with its first message."""
        count = 0
        for message_id, offset in zip(ids, offsets, strict=True):
            if message_id:
                count += self._add(digest_of(message_id), offset)
        if count:
            self._runs.append(_Run(published_at, count))
        self.trim(config, published_at)

    def _add(self, digest: bytes, offset: int) -> bool:
        if digest in self._offsets:
            return False
        self._offsets[digest] = offset
        self._order.append(digest)
        return True

    def trim(self, config: StreamConfig, now_ms: int) -> None:
        """Forget what is too old, and what is too much."""
        runs, since = self._runs, now_ms - config.dedup_s * 1_000
        while runs and runs[0].published_at <= since:
            self._forget(runs.popleft().size)
        while (beyond := len(self._order) - config.dedup_ids_max) > 0:
            run = runs.popleft()
            if run.size > beyond:
                runs.appendleft(run._replace(size=run.size - beyond))
            self._forget(min(run.size, beyond))

    def _forget(self, count: int) -> None:
        for _ in range(count):
            del self._offsets[self._order.popleft()]

    # -- over restarts ------------------------------------------------------------------------------------------------

    def pieces(self) -> Iterator[list[Any]]:
        """All of it as it is now, in parts for a checkpoint: digests, and columns of offsets and instants."""
        order = list(self._order)
        offsets = [self._offsets[digest] for digest in order]
        instants = [run.published_at for run in self._runs for _ in range(run.size)]
        for begin in range(0, len(order), _PIECE):
            end = begin + _PIECE
            columns = (pack(array("Q", column[begin:end])).encoded() for column in (offsets, instants))
            yield [b"".join(order[begin:end]), *columns]

    def restore(self, digests: bytes, offsets: list[Any], instants: list[Any]) -> None:
        """Put back one part. Raises ValueError if it is none."""
        if not isinstance(digests, bytes):
            raise ValueError("digests of message ids that are no bytes")
        blocks = decode_block(*offsets), decode_block(*instants)
        if any(block.count * _DIGEST_BYTES != len(digests) for block in blocks):
            raise ValueError(f"{len(digests)} bytes of digests for {blocks[0].count} message ids")
        rows = zip(*(block.values(0, block.count) for block in blocks), strict=True)
        for place, (offset, published_at) in enumerate(rows):
            self._recover(digests[place * _DIGEST_BYTES : (place + 1) * _DIGEST_BYTES], _At(offset, published_at))

    def recover(
        self, ids: Iterable[str | None], offsets: Iterable[int], published_at: int, config: StreamConfig
    ) -> None:
        """As note(), of a record, which may be older than what a checkpoint told: so nothing is forgotten before all is known."""
        for message_id, offset in zip(ids, offsets, strict=True):
            if message_id:
                self._recover(digest_of(message_id), _At(offset, published_at))
        if len(self._recovered) > 2 * config.dedup_ids_max:
            self._recovered = dict(sorted(self._recovered.items(), key=itemgetter(1))[-config.dedup_ids_max :])

    def _recover(self, digest: bytes, at: _At) -> None:
        if digest not in self._recovered or self._recovered[digest] < at:
            self._recovered[digest] = at

    def opened(self, config: StreamConfig, now_ms: int, lost: Sequence[Range]) -> None:
        """Recovery is over: what a checkpoint and the records behind it told of the same messages stands in order, once.

        Args:
            now_ms: when the newest message of the stream was published.
            lost: what damage took; who sends it again has it stored again.
        """
        for digest, at in sorted(self._recovered.items(), key=itemgetter(1)):
            if not any(first <= at.offset <= last for first, last in lost):
                self._add(digest, at.offset)
                self._runs.append(_Run(at.published_at, 1))
        self._recovered = {}
        self.trim(config, now_ms)


def runs_of(repeats: Sequence[Repeat]) -> list[tuple[int, int, int]]:
    """As CONFIRM tells them: first place, its offset, and for how many messages both go on."""
    runs: list[tuple[int, int, int]] = []
    for place, offset in repeats:
        if runs and (place, offset) == (runs[-1][0] + runs[-1][2], runs[-1][1] + runs[-1][2]):
            runs[-1] = (*runs[-1][:2], runs[-1][2] + 1)
        else:
            runs.append((place, offset, 1))
    return runs


def others(repeats: Sequence[Repeat], count: int) -> list[slice]:
    """Stretches of the batch that are no repeats."""
    stretches: list[slice] = []
    begin = 0
    for place, _ in [*repeats, (count, 0)]:
        if place > begin:
            stretches.append(slice(begin, place))
        begin = place + 1
    return stretches


def take_out(stored: Stored, payload: Any, count: int, repeats: list[Repeat]) -> tuple[bytes, int]:
    """Leave these messages out of a batch; `stored` says so afterwards. The payload and the count of what is left."""
    batch = Batch(0, 0, count, stored.codec, stored.topic, 0, stored.columns, payload)
    columns, left = Split(batch).pick(others(repeats, count))
    stored.columns, stored.repeats, stored.marks = pack_columns(columns, MSGPACK), repeats, marks_of(columns)
    return left, count - len(repeats)


def ids_of(columns: bytes) -> list[str | None]:
    """The ids in a batch's columns, in msgpack form, of which IDS is marked."""
    ids = MSGPACK.columns.decode(columns).ids
    return [] if isinstance(ids, UnsetType) else ids
