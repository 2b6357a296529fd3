"""Old records, read without a thread."""

from __future__ import annotations

from collections import deque

from patterns.io.journal import Reader
from zbroker.core.effects import Read
from zbroker.processes.reads import Answer


class ImmediateReads:
    """Reads while it is asked."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._answers: deque[Answer] = deque()

    def ask(self, read: Read) -> None:
        self._answers.append((read, self._reader.read(read.positions)))

    def fileno(self) -> int:
        return -1

    @property
    def is_answered(self) -> bool:
        return bool(self._answers)

    def answers(self) -> list[Answer]:
        answers = list(self._answers)
        self._answers.clear()
        return answers

    def complaint(self) -> str:
        return ""

    def status(self) -> dict[str, object]:
        return self._reader.status()
