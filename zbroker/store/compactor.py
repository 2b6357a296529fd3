"""Which segment is compacted next, and what follows: the engine hears of new places, then the old file goes. FORMAT.md 7.4.

One at a time, a bounded piece a turn, and none of it while a checkpoint is written: its indexes must not mix two files.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice, pairwise
from typing import Final

from patterns.wire.records import FIRST_INDEX, Damage, Move
from zbroker.store.checkpoint import INDEX_SUFFIX, Checkpoints, index_name
from zbroker.store.compacted import EMPTY_BYTES
from zbroker.store.compaction import DRAFT, Compaction, Slicer, Verdict
from zbroker.store.disk import Disk
from zbroker.store.listing import SegmentFile
from zbroker.store.liveness import Liveness
from zbroker.store.segment import SALT_BYTES, SegmentHeader, segment_name
from zbroker.store.spares import OUT_OF_SPACE

STEP_BYTES: Final = 256 << 10  # of a step's budget: 1 to 2 ms
PACE_US: Final = 2_000  # between two steps: turns with nothing but work for others come between them
LOOK_US: Final = 1_000_000  # between two looks at all segments; what dies in less time dies together
RETRY_US: Final = 5_000_000  # after a want of space; it frees more than it takes, but takes first
SEGMENTS_A_STEP: Final = 16  # weighed by their spans in one step
MOVES_A_STEP: Final = 512  # told in one step


class Compactor:
    """Compacts the segments of one journal. Calls raise OSError for what is not a want of space.

    Args:
        begun: told of the header of the new file, once it is the segment.

    Attributes:
        segments, reclaimed_bytes, abandoned: of this life; abandoned for want of space.
    """

    def __init__(
        self,
        disk: Disk,
        folder: str,
        liveness: Liveness,
        checkpoints: Checkpoints,
        headers: Mapping[int, SegmentHeader],
        *,
        random_bytes: Callable[[int], bytes],
        wall_ms: Callable[[], int],
        slicer: Slicer | None,
        begun: Callable[[SegmentHeader], None],
    ) -> None:
        self._disk = disk
        self._folder = folder
        self._liveness = liveness
        self._checkpoints = checkpoints
        self._headers = headers
        self._random_bytes = random_bytes
        self._wall_ms = wall_ms
        self._slicer = slicer
        self._begun = begun
        self._queue: deque[int] = deque()
        self._due: int | None = None  # None: nothing has changed since the last look
        self._looked_at = 0
        self._allowed: dict[int, int] = {}  # by segment: it is looked through again when no more bytes are live
        self._left_alone: set[int] = set()
        self._compaction: Compaction | None = None
        self._moves: Iterator[Move] | None = None
        self._old: SegmentHeader | None = None  # whose moves are being told, or were
        self.segments = self.reclaimed_bytes = self.abandoned = 0
        self.oldest_needed = FIRST_INDEX  # a checkpoint that begins before it lacks what was left out

    # -- time ---------------------------------------------------------------------------------------------------------

    @property
    def due(self) -> int | None:
        """When step() has something to do; None while nothing is."""
        return None if self._checkpoints.is_writing else self._due

    @property
    def is_moving(self) -> bool:
        """Whether the engine does not know yet where everything is."""
        return self._old is not None

    def wake(self) -> None:
        """More is dead, or more may be compacted: look at it, a second after the last look."""
        if self._due is None:
            self._due = self._looked_at + LOOK_US

    def step(self, now: int, damage: Sequence[Damage]) -> list[Move]:
        """A bounded piece of what is to be done; returns moves that the engine must hear of."""
        if self.due is None or self.due > now:
            return []
        self._due = now + PACE_US
        if self._moves is not None:
            return self._tell(self._moves)
        if self._old is not None:
            self._remove(self._old)
        elif self._compaction is not None:
            self._go_on(self._compaction, now)
        else:
            self._choose(now, damage)
        return []

    # -- which --------------------------------------------------------------------------------------------------------

    def _choose(self, now: int, damage: Sequence[Damage]) -> None:
        if not self._queue:
            if now < self._looked_at + LOOK_US and self._looked_at:
                self._due = self._looked_at + LOOK_US
                return
            self._looked_at = max(1, now)
            self._queue.extend(self._below_older())
        for _ in range(min(SEGMENTS_A_STEP, len(self._queue))):
            number = self._queue.popleft()
            if self._is_candidate(number, damage):
                self._begin(number)
                return
        if not self._queue:
            self._due = None

    def _below_older(self) -> list[int]:
        """Segments that lie wholly below the older checkpoint, so that both have what the operations in them did.

        The segment in which that one begins is told by the first index of the next: it must stay as it was written.
        """
        older = self._checkpoints.older_index
        numbers = sorted(self._headers)
        below: list[int] = []
        for number, following in pairwise(numbers):
            if self._headers[following].first_index >= older:
                break
            below.append(number)
        return below

    def _is_candidate(self, number: int, damage: Sequence[Damage]) -> bool:
        header = self._headers.get(number)
        if header is None or not self._is_half_dead(number):
            return False
        if not self._liveness.live(number) and number in self._liveness.droppable(self._headers, number + 1):
            return False  # it goes with the next checkpoint but one
        bound = self._bound(number)
        return bound is not None and not any(
            hole.first_index < bound and header.first_index <= hole.last_index for hole in damage
        )

    def wants_checkpoint(self) -> bool:
        """Whether another one, or two, give something back: segments that are dead, or of which half is, above the older one."""
        numbers = sorted(self._headers)
        droppable = self._liveness.droppable(self._headers, numbers[-1])
        if droppable - self._checkpoints.left_out:
            return True
        above = numbers[len(self._below_older()) : -1]
        return any(self._is_half_dead(number) and number not in droppable for number in above)

    def _is_half_dead(self, number: int) -> bool:
        """By bytes; or more, once it was looked through."""
        size = self._headers[number].segment_bytes
        if number in self._left_alone or size <= 2 * EMPTY_BYTES:
            return False
        live = self._liveness.live(number)
        return live is not None and live <= self._allowed.get(number, size // 2)

    def _bound(self, number: int) -> int | None:
        """Where its records end, or what a life confirmed of them; None when the segment that says it is gone."""
        following = min((other for other in self._headers if other > number), default=None)
        if following is None:
            return None
        header, after = self._headers[number], self._headers[following]
        is_told = following == number + 1 or header.epoch == after.epoch or header.generation
        return after.first_index if is_told else None

    # -- the course ---------------------------------------------------------------------------------------------------

    def _begin(self, number: int) -> None:
        bound = self._bound(number)
        assert bound is not None
        self.oldest_needed = self._checkpoints.older_index
        self._compaction = Compaction(
            self._disk,
            self._folder,
            self._headers[number],
            bound,
            self._liveness,
            self._slicer,
            salt=self._random_bytes(SALT_BYTES),
            oldest_needed=self.oldest_needed,
            created_ms=self._wall_ms(),
        )

    def _go_on(self, compaction: Compaction, now: int) -> None:
        try:
            compaction.step(STEP_BYTES)
        except OSError as error:
            if error.errno not in OUT_OF_SPACE:
                raise
            self._give_up(compaction)
            self._due = now + RETRY_US
            return
        if compaction.verdict is Verdict.RUNNING:
            return
        self._compaction = None
        number = compaction.source.number
        if compaction.verdict is Verdict.DONE:
            self._adopt(compaction)
            self._allowed[number] = self._live(number) // 2
            return
        if compaction.verdict is Verdict.NOT_WORTH_IT:
            self._allowed[number] = self._live(number) * 4 // 5
        else:
            self._left_alone.add(number)
        compaction.abandon()

    def _live(self, number: int) -> int:
        return self._liveness.live(number) or 0

    def _adopt(self, compaction: Compaction) -> None:
        """From here on the new file is the segment."""
        number = compaction.source.number
        self._liveness.load(number, compaction.spans, compaction.sizes)
        self._checkpoints.indexed.discard(number)
        self._begun(compaction.header)
        self.segments += 1
        self.reclaimed_bytes += compaction.source.segment_bytes - compaction.written
        self._old, self._moves = compaction.source, compaction.moves()

    def _tell(self, moves: Iterator[Move]) -> list[Move]:
        told = list(islice(moves, MOVES_A_STEP))
        if len(told) < MOVES_A_STEP:
            self._moves = None
        return told

    def _remove(self, old: SegmentHeader) -> None:
        """Everybody knows better by now; who has the file open may go on reading it."""
        self._old = None
        for name in (segment_name(old.number, old.generation), index_name(old.number, old.generation)):
            try:
                self._disk.unlink(f"{self._folder}/{name}")
            except FileNotFoundError:
                pass  # an index need not exist

    def _give_up(self, compaction: Compaction) -> None:
        self._compaction = None
        self.abandoned += 1
        self._queue.append(compaction.source.number)
        compaction.abandon()

    def make_room(self) -> bool:
        """The log needs space: give back what a half-made file takes. False when there is none."""
        compaction = self._compaction
        if compaction is None or not compaction.is_writing:
            return False
        self._give_up(compaction)
        if self._due is not None:
            self._due += RETRY_US
        return True

    def drop(self, number: int) -> None:
        """The segment is gone."""
        self._allowed.pop(number, None)
        self._left_alone.discard(number)
        compaction = self._compaction
        if compaction is not None and compaction.source.number == number:
            self._compaction = None
            compaction.abandon()

    def close(self) -> None:
        """Let go of the files; what is half made, the next open removes."""
        if self._compaction is not None:
            self._compaction.close()

    def status(self) -> dict[str, object]:
        """For people and metrics."""
        compaction = self._compaction
        now = None
        if compaction is not None:
            now = {
                "segment": compaction.source.number,
                "live_bytes": compaction.live_bytes,
                "written_bytes": compaction.written if compaction.is_writing else 0,
            }
        return {
            "segments_compacted": self.segments,
            "reclaimed_bytes": self.reclaimed_bytes,
            "compactions_abandoned": self.abandoned,
            "compaction": now,
        }


def remove_superseded(disk: Disk, folder: str, files: Sequence[SegmentFile]) -> None:
    """What compactions that were interrupted have left: drafts, and other generations of what the log is read from."""
    names = disk.listdir(folder)
    for path in [path for file in files for path in file.superseded]:
        disk.unlink(path)
        names.remove(path.rpartition("/")[2])
    for name in names:
        if name.endswith(INDEX_SUFFIX) and name.removesuffix(INDEX_SUFFIX) + ".seg" not in names:
            disk.unlink(f"{folder}/{name}")
    if DRAFT in names:
        disk.unlink(f"{folder}/{DRAFT}")
