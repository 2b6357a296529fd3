"""Every decoder and every engine that reads what somebody else wrote, by name, with seeds to begin from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from tests.fuzz import checkpoints, decoders, dialogues, disks, vectors
from tests.fuzz.script import written_frames


class Target(NamedTuple):
    """What is attacked.

    Attributes:
        run: reads the bytes; raises for a finding only.
        seeds: valid inputs, and some that are not.
        bytes_max: of an input; longer ones find nothing more, and are slower.
    """

    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    bytes_max: int = 2_048


def _frames() -> list[bytes]:
    return [written_frames(frames) for frames in vectors.messages()]


def _payloads() -> list[bytes]:
    found: list[bytes] = [b"\2\1\1\2\0\1\0\2abc"]
    for codec, payload in vectors.payloads():
        found += [bytes([codec == "json", count, 0]) + payload for count in (0, 1, 2)]
    return found


def _translations() -> list[bytes]:
    return [bytes([codec == "msgpack", strict]) + payload for codec, payload in vectors.payloads() for strict in (0, 1)]


def _portables() -> list[bytes]:
    return [payload for codec, payload in vectors.payloads() if codec == "msgpack"]


def _names() -> list[bytes]:
    texts = [text.encode(errors="surrogateescape") for text in vectors.names()]
    return [*texts, *(b"\xff".join(texts[at : at + 6]) for at in range(0, len(texts), 3)), b"a.*.>\xffa.b.c\xff>\xffa"]


def _addresses() -> list[bytes]:
    return [
        b"zb://a,zb://b:1", b"tcp://127.0.0.1:7000", b"@tcp://[::1]:0", b">ipc:///tmp/x", b"inproc://x",
        b"zb+ipc://@abstract", b"tcp://*:5", b"zb://localhost:99999", b"tcp://host:", b"http://x",
    ]  # fmt: skip


def _configurations() -> list[bytes]:
    whole = b'bind = "tcp://127.0.0.1:7700"\ndata = "off"\ninsecure = true\nmemory_bytes = 1_000\nlog_level = "debug"\n'
    return [
        b"\0" + whole,
        b"\1\0\4BIND\0\3off" + whole,
        b"\1\0\10INSECURE\0\1x",
        b"\0bnid = 1",
        b"\0[table]\nx = {a = [1]}\n",
        b"\0x = \xff",
    ]


def _command_lines() -> list[bytes]:
    return [b'\0{"a": 1}\n"text"\n\n[1, 2.5, null]', b"\1raw\nlines\n", b"\0nojson", b'\0"\xff"\n', b"\0" + b"[" * 200]


def _journals() -> list[bytes]:
    return [
        bytes([0, 1, 32, 0, 4]) + b"rots", bytes([1, 0, 64, 0, 2]), bytes([2, 2, 48, 0]), bytes([3, 1]),
        bytes([4, 0, 1, 5]) + bytes(8), bytes([5, 1, 32, 0, 4]) + b"bodycol" + bytes(30),
    ]  # fmt: skip


def _guards() -> list[bytes]:
    return [b"\0\x14tcp://127.0.0.1:7700" + bytes(range(80)), bytes(64)]


TARGETS: Final[dict[str, Target]] = {
    "frames": Target(decoders.frames, _frames),
    "payloads": Target(decoders.payloads, _payloads),
    "translations": Target(decoders.translations, _translations),
    "portables": Target(decoders.portables, _portables),
    "names": Target(decoders.names, _names, 512),
    "addresses": Target(decoders.addresses, _addresses, 512),
    "configurations": Target(decoders.configurations, _configurations, 1_024),
    "command_lines": Target(decoders.command_lines, _command_lines),
    "lost_payloads": Target(decoders.lost_payloads, lambda: [seed[9:] for seed in disks.catalogued()]),
    "guards": Target(decoders.guards, _guards, 512),
    "journals": Target(disks.journals, _journals, 512),
    "recoveries": Target(disks.recoveries, disks.catalogued, 1_024),
    "checkpoints": Target(checkpoints.pieces, checkpoints.seeds_of_pieces),
    "checkpoint_files": Target(checkpoints.files, checkpoints.seeds_of_files, 4_096),
    "broker": Target(dialogues.broker, dialogues.seeds_of_broker, 4_096),
    "clients": Target(dialogues.clients, dialogues.seeds_of_clients),
}
