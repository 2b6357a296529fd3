"""Bytes as a fuzzer has them, read as what a target wants: numbers, choices, frames. And the way back, for seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

_T = TypeVar("_T")


class Script:
    """Reads a fuzzer's bytes from the front; what is beyond the end is zeros, so every input is one."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def is_over(self) -> bool:
        return self._at >= len(self._data)

    def take(self, count: int) -> bytes:
        """The next bytes, fewer at the end."""
        self._at += count
        return self._data[self._at - count : self._at]

    def byte(self) -> int:
        return (self.take(1) or b"\0")[0]

    def number(self, bytes_count: int) -> int:
        return int.from_bytes(self.take(bytes_count), "big")

    def one_of(self, choices: Sequence[_T]) -> _T:
        return choices[self.byte() % len(choices)]

    def text(self) -> bytes:
        """A length of two bytes and as many bytes as are there."""
        return self.take(self.number(2))

    def frames(self) -> list[bytes]:
        """A number below eight, and as many frames."""
        return [self.text() for _ in range(self.byte() % 8)]

    def rest(self) -> bytes:
        return self.take(len(self._data))


def written(text: bytes) -> bytes:
    """What text() reads back."""
    return len(text).to_bytes(2, "big") + text


def written_frames(frames: Sequence[bytes]) -> bytes:
    """What frames() reads back; frames of 64 KiB and more are left out of seeds."""
    return bytes([len(frames)]) + b"".join(map(written, frames))
