"""Checkpoint + replay = full replay, wherever between the turns of a busy broker the pieces of the checkpoint were cut."""

import os
from collections.abc import Iterator
from itertools import starmap
from random import Random
from typing import Any

import msgspec

from patterns.wire.messages import Columns
from patterns.wire.records import Position, Record
from tests.unit.core import durable
from tests.unit.core.durable import SECOND, Client, Durable
from zbroker.core import checkpoint
from zbroker.core.column import decode_block
from zbroker.core.effects import Checkpoint, CheckpointEnd

SEEDS = 400 if os.environ.get("ZBROKER_TEST_LONG") else 160
RECORDS_A_SEGMENT = 7


def position(record: Record) -> Position:
    return Position(1 + record.index // RECORDS_A_SEGMENT, record.index, 64 + len(record.columns) + len(record.payload))


class Cutting(Durable):
    """A broker that hands out checkpoints."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.pieces: list[Checkpoint] = []
        self.ended_at: int | None = None
        super().__init__(*arguments, **options)

    def _carry_out(self) -> None:
        for effect in list(self.effects):
            if isinstance(effect, Checkpoint):
                self.pieces.append(effect)
            if isinstance(effect, CheckpointEnd):
                self.ended_at = effect.last_index
        super()._carry_out()

    def begin(self) -> int:
        """The index at which a replay starts."""
        first = self.records[-1].index + 1 if self.records else 1
        current = 1 + first // RECORDS_A_SEGMENT
        self.pieces, self.ended_at = [], None
        self.streams.begin_checkpoint(list(range(1, current)), current)
        return first


class Workload:
    """Producers, consumers, and everything that can become of a delivery."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.rig = Cutting()
        self.producers = [self.rig.producer(b"p1"), self.rig.producer(b"p2", name="named")]
        self.consumers = [
            self.rig.consumer(peer, group=group) for peer, group in ((b"c1", "g"), (b"c2", "g"), (b"c3", "h"))
        ]
        self.held: list[tuple[bytes, Any]] = []

    def act(self) -> None:
        choice = self.random.random()
        if choice < 0.45:
            self.produce(self.random.choice(self.producers))
        elif choice < 0.9:
            self.settle()
        elif choice < 0.95:
            self.rig.pass_time(self.random.choice([1_000, 20_000, 3 * SECOND]))
        else:
            self.come_again()
        self.rig.turn(sync=self.random.random() < 0.8)
        for peer in self.consumers:
            self.held += [(peer, delivery) for delivery in self.rig.deliveries(peer)]

    def produce(self, producer: Client) -> None:
        bodies = [self.random.randrange(1000) for _ in range(self.random.randint(1, 5))]
        delays = [self.random.choice([0, 0, 5, 90_000]) for _ in bodies]
        columns = Columns(delays=delays) if self.random.random() < 0.3 else None
        producer.append(*bodies, stream=self.random.choice(["s", "s", "t"]), columns=columns)

    def settle(self) -> None:
        if not self.held:
            return
        peer, delivery = self.held.pop(self.random.randrange(len(self.held)))
        offsets = sorted(self.random.sample(delivery.offsets, self.random.randint(1, len(delivery.offsets))))
        action = self.random.choice(["ack", "ack", "ack", "nack", "nack", "release", "reject"])
        delay_ms = self.random.choice([0, 3, 50_000]) * (action == "nack")
        ranges = [(offset, offset) for offset in offsets]
        self.rig.settle(peer, delivery, action, ranges=ranges, delay_ms=delay_ms)

    def come_again(self) -> None:
        """A consumer goes without a word, and another one comes."""
        place = self.random.randrange(len(self.consumers))
        gone = self.consumers[place]
        self.rig.disconnect(gone)
        self.rig.pass_time(3 * SECOND)
        self.held = [(peer, delivery) for peer, delivery in self.held if peer != gone]
        new = bytes([100 + self.random.randrange(100)]) + gone
        self.consumers[place] = self.rig.consumer(new[:12], group="h" if place == 2 else "g")


def opened(records: list[Record], first: int, pieces: list[Checkpoint] | None) -> Cutting:
    """A next life: from the checkpoint's pieces and the records behind it, or from all records."""
    rig = Cutting()
    if pieces is not None:
        state = [piece.chunk for piece in pieces if piece.segment == checkpoint.STATE]
        assert rig.streams.restore(state)
        for piece in pieces:
            if piece.segment != checkpoint.STATE:
                assert rig.streams.index(piece.chunk)
    for record in records:
        if pieces is None or record.index >= first:
            rig.streams.recover(record, position(record))
    rig.streams.opened(2, records[-1].index + 1, rig.now)
    return rig


def image(rig: Cutting) -> dict[str, Any]:
    """All that a broker knows, in comparable form."""
    catalog, producers = rig.streams._catalog, rig.streams._intake.producers
    found: dict[str, Any] = {}
    for chunk, _ in checkpoint.cut(catalog, producers, [], 0):
        for kind, *fields in msgspec.msgpack.decode(chunk):
            found.setdefault(kind, []).append(fields)
    found.pop("attempts", None)
    found["delayed"] = sorted(_delays(found.get("delayed", [])))
    for fields in found.get("group", []):
        group, log = catalog.groups[fields[0], fields[1]], catalog.by_id[fields[0]]
        following = next(group.settled.missing(group.cursor, log.next_offset - 1), None)
        fields[4] = log.next_offset if following is None else following[0]  # what is passed over is settled anyway
        assert group.balance(log.durable_next)
    for kind in ("stream", "group", "producer", "settled"):  # told in any order
        found.get(kind, []).sort(key=repr)
    found["status"] = rig.streams.status(1_000, 0)
    found["status"]["anomalies"] = 0
    return found


def _delays(pieces: list[Any]) -> Iterator[tuple[int, ...]]:
    """Each message that waits, when it is due, after which delay, and how often it was delivered."""
    for stream_id, group_id, columns in pieces:
        rows = zip(*(block.values(0, block.count) for block in starmap(decode_block, columns)), strict=True)
        for first, more, *rest in rows:
            for offset in range(first, first + more + 1):
                yield stream_id, group_id, offset, *rest


def tries(rig: Cutting) -> dict[tuple[int, int, int], int]:
    """How often what is not settled was delivered, if that was not once."""
    found: dict[tuple[int, int, int], int] = {}
    for key, group in rig.streams._catalog.groups.items():
        for piece in group.attempts():
            for offset in range(piece.first, piece.last + 1):
                if offset not in group.settled:
                    found[*key, offset] = piece.tries
    return found


def test_checkpoint_and_replay_are_full_replay(monkeypatch: Any) -> None:
    monkeypatch.setattr(durable, "_position", position)
    monkeypatch.setattr(checkpoint, "CHUNK_BYTES", 300)  # many pieces, so many turns in between
    monkeypatch.setattr(checkpoint, "_BATCHES", 2)
    cut = 0
    for seed in range(SEEDS):
        work = Workload(seed)
        for _ in range(work.random.randint(0, 60)):
            work.act()
        work.rig.sync()
        work.rig.turn()
        first = work.rig.begin()
        while work.rig.ended_at is None:
            work.act()
        for _ in range(work.random.randint(0, 10)):
            work.act()
        work.rig.pass_time(20_000)  # lazy counts reach the journal too
        work.rig.sync()
        records, pieces = work.rig.records, work.rig.pieces
        whole, short = opened(records, first, None), opened(records, first, pieces)
        assert image(short) == image(whole), f"seed {seed}"
        assert tries(short) == tries(whole), f"seed {seed}"
        cut += len(pieces)
    assert cut > 5 * SEEDS


def test_a_checkpoint_of_another_version_changes_nothing(monkeypatch: Any) -> None:
    work = Workload(1)
    for _ in range(30):
        work.act()
    work.rig.sync()
    monkeypatch.setattr(checkpoint, "VERSION", 2)
    work.rig.begin()
    while work.rig.ended_at is None:
        work.act()
    monkeypatch.undo()
    rig = Cutting()
    state = [piece.chunk for piece in work.rig.pieces if piece.segment == checkpoint.STATE]
    assert not rig.streams.restore(state)
    assert image(rig) == image(Cutting())


def test_any_bytes_as_a_checkpoint_raise_nothing() -> None:
    random = Random(7)
    work = Workload(2)
    for _ in range(40):
        work.act()
    work.rig.sync()
    work.rig.begin()
    while work.rig.ended_at is None:
        work.act()
    for _ in range(300):
        rig = Cutting()
        chunks = [bytearray(piece.chunk) for piece in work.rig.pieces]
        for _ in range(random.randint(1, 4)):
            chunk = random.choice(chunks)
            if chunk:
                chunk[random.randrange(len(chunk))] ^= 1 << random.randrange(8)
        if rig.streams.restore(bytes(chunk) for chunk in chunks[-3:]):
            rig.streams.opened(2, 10_000, 0)
        for chunk in chunks:
            rig.streams.index(bytes(chunk))
