"""Which offsets of a stream are done with: a floor, and above it chunks of 4,096 bits. No notion of why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

CHUNK: Final = 4_096  # 512 bytes as a bitmap: fine enough to be small, coarse enough to be few
_PIECE_BYTES: Final = 64  # of what runs() looks at in one go
_FULL: Final = (1 << CHUNK) - 1

Range = tuple[int, int]


class Settled:
    """A set of offsets that only grows. Everything below `floor` is in it."""

    __slots__ = ("_chunks", "floor")

    def __init__(self, floor: int = 0) -> None:
        self.floor = floor
        self._chunks: dict[int, int] = {}  # absent is empty; a full one holds _FULL itself, so it costs nothing

    def add(self, first: int, last: int) -> int:
        """Add first to last, both included; returns how many were not in it before. Adding twice changes nothing."""
        first = max(first, self.floor)
        if last < first:
            return 0
        if first == self.floor and not self._chunks:
            self.floor = last + 1
            return last + 1 - first
        new = 0
        for chunk in range(first // CHUNK, last // CHUNK + 1):
            mask = _mask(chunk, first, last)
            had = self._chunks.get(chunk, 0)
            new += (mask & ~had).bit_count()
            now = had | mask
            self._chunks[chunk] = _FULL if now == _FULL else now
        if first == self.floor:
            self._raise_floor(last + 1)
        return new

    def add_all(self, ranges: Iterable[Sequence[int]]) -> int:
        """Add many ranges; returns how many offsets were new. Those in order that share a chunk cost it one change."""
        new, at, bits = 0, -1, 0
        for first, last in ranges:
            chunk = first // CHUNK
            if chunk != at or last // CHUNK != at:
                new += self._add_bits(at, bits)
                at, bits = chunk, 0
                if last // CHUNK != chunk:
                    new += self.add(first, last)
                    continue
            bits |= ((1 << (last - first + 1)) - 1) << (first % CHUNK)
        return new + self._add_bits(at, bits)

    def _add_bits(self, chunk: int, bits: int) -> int:
        begin = chunk * CHUNK
        if begin < self.floor:
            below = self.floor - begin
            bits = bits >> below << below
        if not bits:
            return 0
        had = self._chunks.get(chunk, 0)
        now = self._chunks[chunk] = had | bits
        if now == _FULL:
            self._chunks[chunk] = _FULL
        if begin <= self.floor and now >> (self.floor - begin) & 1:
            self._raise_floor(self.floor)
        return (bits & ~had).bit_count()

    def bitmaps(self) -> list[tuple[int, int]]:
        """Chunks above the floor that are not empty, by number: their bits, to be encoded when there is time."""
        return list(self._chunks.items())

    @staticmethod
    def encode(bits: int) -> bytes:
        """A chunk as bytes, the lowest offset in the lowest bit; a full one is empty."""
        return b"" if bits == _FULL else bits.to_bytes(CHUNK // 8, "little")

    def restore(self, chunk: int, encoded: bytes) -> None:
        """Put back what encode() made."""
        bits = int.from_bytes(encoded, "little") if encoded else _FULL
        self._chunks[chunk] = _FULL if bits >= _FULL else bits

    def _raise_floor(self, floor: int) -> None:
        """The floor moves up to the first offset that is not in the set; chunks that it passed are forgotten."""
        low = self.floor // CHUNK
        while True:
            chunk = floor // CHUNK
            bits = self._chunks.get(chunk, 0)
            above = ~(bits >> (floor % CHUNK))  # its lowest set bit is the first gap; there is one, beyond the chunk
            gap = (above & -above).bit_length() - 1
            end = (chunk + 1) * CHUNK
            if floor + gap < end:
                floor += gap
                break
            floor = end
        for passed in range(low, floor // CHUNK):
            self._chunks.pop(passed, None)
        left = self._chunks.pop(floor // CHUNK, 0) >> (floor % CHUNK)
        if left:  # without bits below the floor, so that equal sets are held alike
            self._chunks[floor // CHUNK] = left << (floor % CHUNK)
        self.floor = floor

    def __contains__(self, offset: int) -> bool:
        return offset < self.floor or bool(self._chunks.get(offset // CHUNK, 0) >> (offset % CHUNK) & 1)

    def count(self, first: int, last: int) -> int:
        """How many of first to last are in it."""
        below = max(0, min(last + 1, self.floor) - first)
        first = max(first, self.floor)
        if last < first or not self._chunks:
            return below
        chunks = range(first // CHUNK, last // CHUNK + 1)
        return below + sum((self._chunks.get(chunk, 0) & _mask(chunk, first, last)).bit_count() for chunk in chunks)

    def missing(self, first: int, last: int) -> Iterator[Range]:
        """The ranges of first to last that are not in it, in order."""
        first = max(first, self.floor)
        if last < first:
            return
        begin, end = first, first - 1  # the run that grows; adjacent runs of two chunks are one
        for chunk in range(first // CHUNK, last // CHUNK + 1):
            gaps = _mask(chunk, first, last) & ~self._chunks.get(chunk, 0)
            for run_first, run_last in runs(gaps, chunk * CHUNK):
                if run_first != end + 1:
                    if begin <= end:
                        yield begin, end
                    begin = run_first
                end = run_last
        if begin <= end:
            yield begin, end


def _mask(chunk: int, first: int, last: int) -> int:
    low = max(first - chunk * CHUNK, 0)
    high = min(last - chunk * CHUNK, CHUNK - 1)
    return ((1 << (high - low + 1)) - 1) << low


def runs(bits: int, base: int) -> Iterator[Range]:
    """The ranges of set bits, bit 0 being offset `base`, in order. Piece by piece: each shift costs the whole length."""
    data = bits.to_bytes((bits.bit_length() + 7) // 8, "little")
    begin, end = base, base - 1  # the run that grows over pieces
    for at in range(0, len(data), _PIECE_BYTES):
        for first, last in _runs(int.from_bytes(data[at : at + _PIECE_BYTES], "little"), base + 8 * at):
            if first != end + 1:
                if begin <= end:
                    yield begin, end
                begin = first
            end = last
    if begin <= end:
        yield begin, end


def _runs(bits: int, base: int) -> Iterator[Range]:
    while bits:
        skip = (bits & -bits).bit_length() - 1
        bits >>= skip
        base += skip
        length = (~bits & (bits + 1)).bit_length() - 1
        yield base, base + length - 1
        bits >>= length
        base += length


def merged(ranges: list[Range]) -> list[Range]:
    """The same offsets in as few ranges as possible, in order."""
    result: list[Range] = []
    for first, last in sorted(ranges):
        if result and first <= result[-1][1] + 1:
            result[-1] = (result[-1][0], max(last, result[-1][1]))
        else:
            result.append((first, last))
    return result
