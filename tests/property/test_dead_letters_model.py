"""A dead letter is there if, and only if, its group is done with the message; likewise what was sent back: over a crash at any record."""

from __future__ import annotations

import os
from collections import Counter
from random import Random
from typing import Any

import msgspec

from patterns.wire.messages import Admin, Columns, Role
from patterns.wire.records import Record, RecordKind
from tests.property.test_checkpoint_replay import Cutting, image, opened, position, tries
from tests.unit.core import durable
from tests.unit.core.durable import SECOND, Durable
from zbroker.core import checkpoint, dead_letters
from zbroker.core.catalog import operations_of
from zbroker.core.tail import stored_of

SEEDS = 120 if os.environ.get("ZBROKER_TEST_LONG") else 30
STEPS = 80
GROUPS = {"g": "dead", "h": "dead2", "plain": ""}


class Graveyard:
    """Members that reject, fail and die, of three groups; and somebody who sends dead letters back."""

    def __init__(self, rig: Durable, seed: int) -> None:
        self.rig = rig
        self.random = Random(seed)
        self.acked: set[tuple[str, int]] = set()  # group and offset: somebody has asked for it
        self.held: list[tuple[str, bytes, Any]] = []
        self.lives = 0
        for name, dead in GROUPS.items():
            failures = {"max_deliveries": self.random.choice([0, 1, 2, 3]), "dead_letter": dead} if dead else {}
            rig.ask("create_group", config={"stream": "s", "name": name, **failures})
        self.producer = rig.producer()
        self.members = {name: self.join(name) for name in GROUPS}

    def join(self, group: str) -> bytes:
        self.lives += 1
        mode = self.random.choice(["batches", "slices"])
        return self.rig.consumer(f"{group}{self.lives}".encode()[:16], group=group, credit=10_000, mode=mode)

    def act(self) -> None:
        choice = self.random.random()
        if choice < 0.3:
            headers: list[dict[str, str] | None] = [{"n": str(number)} for number in range(self.random.randint(1, 5))]
            self.producer.append(*headers, columns=Columns(headers=headers))
        elif choice < 0.8:
            self.settle()
        elif choice < 0.87:
            self.redrive()
        elif choice < 0.93:
            self.die()
        else:
            full = self.random.random() < 0.3
            self.rig.streams.storage(full=full, failed=False)
            self.rig.pass_time(self.random.choice([1_000, 20_000]))
        self.rig.turn(sync=self.random.random() < 0.8)
        for name, peer in self.members.items():
            self.held += [(name, peer, delivery) for delivery in self.rig.deliveries(peer)]

    def settle(self) -> None:
        if not self.held:
            return
        group, peer, delivery = self.held.pop(self.random.randrange(len(self.held)))
        action = self.random.choice(["ack", "nack", "nack", "reject", "reject", "release"])
        if action == "ack":
            self.acked |= {(group, offset) for offset in delivery.offsets}
        self.rig.settle(peer, delivery, action, reason=self.random.choice(["", "x", "y"]))

    def redrive(self) -> None:
        """Without a wait for the answer, which may take turns."""
        rig = self.rig
        if b"admin" not in rig.inbox:
            rig.hello(b"admin", Role.ADMIN)
        rig.asked += 1
        arguments = {"stream": self.random.choice(["dead", "dead2"]), "count": self.random.randint(1, 4)}
        rig.send(b"admin", Admin(rig.asked, "redrive_dead", arguments))

    def die(self) -> None:
        group = self.random.choice(list(GROUPS))
        gone = self.members[group]
        self.rig.disconnect(gone)
        self.rig.pass_time(3 * SECOND)
        self.held = [one for one in self.held if one[1] != gone]
        self.members[group] = self.join(group)


def _letters(records: list[Record]) -> tuple[Counter[tuple[str, int]], Counter[tuple[str, int]]]:
    """What was moved, by group and offset; and what was sent back, by dead-letter stream and offset, as the records themselves say."""
    told = {one.index: msgspec.msgpack.decode(one.payload) for one in records if one.kind == RecordKind.CATALOG}
    names = {index: entry[1] for index, entry in told.items() if entry[0] == "stream"}
    died, back = Counter[tuple[str, int]](), Counter[tuple[str, int]]()
    for record in records:
        if record.kind != RecordKind.APPEND:
            continue
        stored = stored_of(record)
        for headers in msgspec.msgpack.decode(stored.columns, type=Columns).headers or []:  # type: ignore[union-attr]
            if headers and "zb-dead-offset" in headers:
                died[headers["zb-dead-group"], int(headers["zb-dead-offset"])] += 1
        for what, stream_id, _, ranges in operations_of(stored):
            if what == "redriven" and isinstance(ranges, list):
                back.update(
                    (names.get(stream_id, ""), offset) for first, last in ranges for offset in range(first, last + 1)
                )
    return died, back


def _check(rig: Durable, records: list[Record], acked: set[tuple[str, int]]) -> None:
    died, back = _letters(records)
    assert set(died.values()) | set(back.values()) <= {1}, "a letter of which there are two"
    by_name = rig.streams._catalog.by_name
    for name in GROUPS:
        group = by_name["s"].groups.get(name) if "s" in by_name else None
        if group is None:
            continue
        mine = {offset for letter, offset in died if letter == name}
        assert all(offset in group.settled for offset in mine), "a letter of what is pending"
        assert not GROUPS[name] or group.dead == len(mine), "dead without a letter"
        assert group.balance(by_name["s"].durable_next)
        done = group.acked + group.dead + group.expired + group.passed
        assert done == group.settled.count(group.start, by_name["s"].next_offset)
        assert {offset for whose, offset in acked if whose == name} | mine >= _settled(rig, records, name), (
            "gone for no reason"
        )
    for dead in filter(None, GROUPS.values()):
        if dead in by_name and "redrive" in by_name[dead].groups:
            redrive = by_name[dead].groups["redrive"]
            assert redrive.acked == sum(stream == dead for stream, _ in back)
            assert redrive.balance(by_name[dead].durable_next)


def _settled(rig: Durable, records: list[Record], name: str) -> set[int]:
    """What a group is done with, but for what was sent back to another one, and what a group without letters rejected."""
    log = rig.streams._catalog.by_name["s"]
    group = log.groups[name]
    if not GROUPS[name]:
        return set()
    others = _for_others(rig, records, name)
    return {offset for offset in range(log.next_offset) if offset in group.settled and offset not in others}


def _for_others(rig: Durable, records: list[Record], name: str) -> set[int]:
    found: set[int] = set()
    log = rig.streams._catalog.by_name["s"]
    for record in records:
        is_in_it = record.kind == RecordKind.APPEND and record.stream_id == log.id
        if is_in_it and stored_of(record).group not in (None, name):
            found |= set(range(record.base_offset, record.base_offset + record.count))
    return found


def test_a_letter_is_there_iff_its_group_is_done_wherever_the_log_ends() -> None:
    moved = sent = 0
    for seed in range(SEEDS):
        work = Graveyard(Durable(), seed)
        for _ in range(STEPS):
            work.act()
        work.rig.streams.storage(full=False, failed=False)
        work.rig.turn()
        work.rig.pass_time(20_000)
        records = work.rig.records
        _check(work.rig, records, work.acked)
        for end in range(0, len(records) + 1, 1 if len(records) < 120 else 3):
            _check(Durable(records[:end], epoch=2), records[:end], work.acked)
        died, back = _letters(records)
        moved, sent = moved + died.total(), sent + back.total()
    assert moved > 10 * SEEDS
    assert sent > SEEDS


def test_what_goes_on_after_a_crash_loses_and_doubles_nothing() -> None:
    moved = 0
    for seed in range(SEEDS):
        work = Graveyard(Durable(), seed)
        for _ in range(STEPS // 2):
            work.act()
        for life in range(2, 5):
            records = work.rig.records[: work.random.randint(len(work.rig.records) // 2, len(work.rig.records))]
            work.rig = Durable(list(records), life, work.rig.now + SECOND)
            work.held.clear()
            work.producer = work.rig.producer(b"p%d" % life)
            work.members = {name: work.join(name) for name in GROUPS}
            for _ in range(STEPS // 4):
                work.act()
        work.rig.streams.storage(full=False, failed=False)
        for _ in range(4):
            work.rig.pass_time(3 * SECOND)
        _check(work.rig, work.rig.records, work.acked)
        moved += _letters(work.rig.records)[0].total()
    assert moved > 5 * SEEDS


def test_a_checkpoint_amid_moves_and_what_follows_are_all_that_there_is(monkeypatch: Any) -> None:
    monkeypatch.setattr(durable, "_position", position)
    monkeypatch.setattr(checkpoint, "CHUNK_BYTES", 1)  # each piece in a turn of its own
    monkeypatch.setattr(dead_letters, "TURN_BYTES", 1)  # one move a turn, so pieces of the checkpoint between them
    moved = 0
    for seed in range(SEEDS):
        work = Graveyard(Cutting(), seed)
        rig = work.rig
        assert isinstance(rig, Cutting)
        for _ in range(work.random.randint(STEPS // 2, STEPS)):
            work.act()
        rig.sync()
        rig.turn()
        first = rig.begin()
        for _ in range(400):
            if rig.ended_at is not None:
                break
            work.settle()  # more than can be moved in one turn
            work.settle()
            work.act()
        assert rig.ended_at is not None
        rig.pass_time(20_000)
        rig.sync()
        whole, short = opened(rig.records, first, None), opened(rig.records, first, rig.pieces)
        assert image(short) == image(whole), f"seed {seed}"
        assert tries(short) == tries(whole), f"seed {seed}"
        _check(short, rig.records, work.acked)
        moved += _letters([record for record in rig.records if record.index >= first])[0].total()
    assert moved > SEEDS
