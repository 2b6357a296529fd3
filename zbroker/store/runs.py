"""Which records are read by one call: those that lie close together in one file."""

from collections.abc import Sequence

import msgspec

from patterns.wire.records import Position

GAP_BYTES_MAX = 16 << 10  # to read so much in vain costs less than another call
AMPLIFICATION_MAX = 4  # bytes read for one that is wanted
RUN_BYTES_MAX = 1 << 20  # a read holds a buffer; one record may be longer


class Run(msgspec.Struct, gc=False):
    """A stretch of one file.

    Attributes:
        key: number and generation of the segment.
        wanted: bytes of the records in it.
        numbers: of these, among the positions that were asked for.
    """

    key: tuple[int, int]
    start: int
    end: int
    wanted: int
    numbers: list[int]


def runs_of(positions: Sequence[Position]) -> list[Run]:
    """All positions, in runs by segment and offset."""
    runs: list[Run] = []
    run: Run | None = None
    for number in sorted(range(len(positions)), key=lambda number: _place(positions[number])):
        position = positions[number]
        key, start, end = (position.segment, position.generation), position.offset, position.offset + position.size
        if run is not None and run.key == key and _fits(run, start, end):
            run.end = max(run.end, end)
            run.wanted += position.size
            run.numbers.append(number)
        else:
            run = Run(key, start, end, position.size, [number])
            runs.append(run)
    return runs


def _place(position: Position) -> tuple[int, int, int]:
    return position.segment, position.generation, position.offset


def _fits(run: Run, start: int, end: int) -> bool:
    size = max(run.end, end) - run.start
    is_near = start - run.end <= GAP_BYTES_MAX and size <= RUN_BYTES_MAX
    return is_near and size <= AMPLIFICATION_MAX * (run.wanted + end - start)
