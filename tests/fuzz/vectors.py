"""Seeds from tests/vectors: what implementers in other languages are held to is where a fuzzer begins."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from tests.interop.test_vectors import frame_of, frames_of, load

FRAME_BYTES_MAX = 4_096  # a fuzzer's inputs are short, so that it tries many


@cache
def messages() -> tuple[list[bytes], ...]:
    """Frames of valid, unusual and invalid messages."""
    found: list[Any] = [vector[form] for vector in load("valid.json") for form in ("msgpack", "json")]
    found += [
        vector["frames"] for name in ("spellings.json", "invalid.json") for vector in load(name) if "frames" in vector
    ]
    every = (frames_of(one) for one in found)
    return tuple(
        frames for frames in every if len(frames) < 8 and all(len(frame) < FRAME_BYTES_MAX for frame in frames)
    )


@cache
def payloads() -> tuple[tuple[str, bytes], ...]:
    """Codec and payload of every translation."""
    return tuple(_payloads())


def _payloads() -> Iterator[tuple[str, bytes]]:
    translations = load("translation.json")
    for vector in [*translations["same"], *translations["refused"]]:
        for codec in ("msgpack", "json"):
            if codec in vector:
                yield codec, frame_of(vector[codec])
        if "payload" in vector:
            yield vector["codec"], frame_of(vector["payload"])


@cache
def names() -> tuple[str, ...]:
    """Everything in names.json that is text."""
    return tuple(sorted(set(_texts(load("names.json")))))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
