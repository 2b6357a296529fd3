"""The thread that reads old records while the loop turns. It knows no engine: positions in, records out, a bell that rings.

What is asked for at once is read together, so neighbours are one call of the disk whoever asked for them.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from patterns.io.journal import Reader
from patterns.wire.limits import MIB
from patterns.wire.records import Record
from zbroker.core.effects import Read
from zbroker.processes.reads import Answer
from zbroker.store.faults import RecordUnreadable

ANSWERED_BYTES_MAX: Final = 4 * MIB  # read and not yet taken: then it waits for the loop
ROUND_BYTES: Final = 1 * MIB  # read in one go; who asked first must not wait for all the others
TAKEN_BYTES: Final = 1 * MIB  # by the loop in one turn; others have theirs
STUCK_US: Final = 10_000_000  # a disk that is only slow has answered by then
LET_GO_S: Final = 2.0  # files are opened anew so often: one that is gone takes its space as long as it is open
_CLOSE_S: Final = 5.0


class ReadingThread:
    """Reads, in the order in which it was asked.

    The queue needs no bound of its own: the engine asks for so many bytes and waits for them. What is read and not taken is
    bounded here.

    Args:
        reader: belongs to the thread from start() to close().
        folder: for people.
        clock: microseconds, monotonic.
    """

    def __init__(self, reader: Reader, folder: str, clock: Callable[[], int]) -> None:
        self._reader = reader
        self._folder = folder
        self._clock = clock
        self._asked: deque[Read] = deque()
        self._answers: deque[tuple[int, Answer]] = deque()
        self._answered_bytes = 0
        self._changed = threading.Condition()
        self._bell_in, self._bell_out = os.pipe()
        self._is_closing = False
        self._busy_since: int | None = None
        self._let_go_at: int | None = None  # None: no file is open
        self._thread = threading.Thread(target=self._run, name="zbroker-reader", daemon=True)
        self.failures = 0

    def start(self) -> None:
        self._thread.start()

    # -- the loop's side ----------------------------------------------------------------------------------------------

    def fileno(self) -> int:
        """Readable as long as there are answers."""
        return self._bell_in

    def ask(self, read: Read) -> None:
        """Read this, after what was asked before."""
        with self._changed:
            self._asked.append(read)
            self._changed.notify()

    @property
    def is_answered(self) -> bool:
        return bool(self._answers)

    def answers(self) -> list[Answer]:
        """A turn's worth, oldest first."""
        taken: list[Answer] = []
        size = 0
        with self._changed:
            while self._answers and size < TAKEN_BYTES:
                answered, answer = self._answers.popleft()
                taken.append(answer)
                size += answered
            self._answered_bytes -= size
            if taken and not self._answers:
                os.read(self._bell_in, 1)
            self._changed.notify()
        return taken

    def complaint(self) -> str:
        """What is wrong with it; empty when nothing is."""
        if not self._thread.is_alive() and not self._is_closing:
            return "the thread that reads old messages has died: only new ones are delivered; restart the broker"
        since = self._busy_since
        waited_us = 0 if since is None else self._clock() - since
        if waited_us < STUCK_US:
            return ""
        return f"the disk of {self._folder} has not answered a read for {waited_us // 1_000_000} s: old messages wait for it"

    def status(self) -> dict[str, object]:
        """For people and metrics."""
        return {"waiting": len(self._asked), "failures": self.failures, **self._reader.status()}

    def close(self) -> bool:
        """End the thread and let go of its files; False when the disk holds it, and it ends with the process."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(_CLOSE_S)
        if self._thread.is_alive():
            return False
        self._reader.close()
        os.close(self._bell_in)
        os.close(self._bell_out)
        return True

    # -- the thread's side --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while (reads := self._next_round()) is not None:
            if reads:
                self._busy_since = self._clock()
                answers = self._serve(reads)
                self._busy_since = None
                self._hand_over(answers)
            self._let_go()

    def _let_go(self) -> None:
        now = self._clock()
        if self._let_go_at is None:
            self._let_go_at = now + int(LET_GO_S * 1e6)
        elif now >= self._let_go_at:
            self._reader.close()
            self._let_go_at = None

    def _next_round(self) -> list[Read] | None:
        """Waits for something to do and for room to do it; []: nothing is, for a while; None: it is over."""
        with self._changed:
            while not self._is_closing and (not self._asked or self._answered_bytes >= ANSWERED_BYTES_MAX):
                if not self._changed.wait(None if self._let_go_at is None else LET_GO_S) and not self._asked:
                    return []
            if self._is_closing:
                return None
            reads: list[Read] = []
            size = 0
            while self._asked and size < ROUND_BYTES:
                reads.append(self._asked.popleft())
                size += _size(reads[-1])
            return reads

    def _serve(self, reads: list[Read]) -> list[Answer]:
        positions = [position for read in reads for position in read.positions]
        try:
            found = self._reader.read(positions)
        except Exception as error:  # noqa: BLE001  the top of this thread: counted, told as a warning, tried again
            self.failures += 1
            failed = RecordUnreadable(self._folder, positions[0].segment, f"{type(error).__name__}: {error}")
            found = [failed] * len(positions)
        answers: list[Answer] = []
        begin = 0
        for read in reads:
            end = begin + len(read.positions)
            answers.append((read, found[begin:end]))
            begin = end
        return answers

    def _hand_over(self, answers: list[Answer]) -> None:
        with self._changed:
            is_first = not self._answers
            for read, found in answers:
                size = sum(len(record.payload) for record in found if isinstance(record, Record))
                self._answers.append((size, (read, found)))
                self._answered_bytes += size
            if is_first:
                os.write(self._bell_out, b"!")


def _size(read: Read) -> int:
    return sum(position.size for position in read.positions)
