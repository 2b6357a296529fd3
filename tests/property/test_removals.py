"""What is removed by chance: checkpoint + replay = full replay amid purges and deletions; accounts add up; nothing owed goes unasked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import starmap
from random import Random
from typing import Any

from patterns.wire.messages import ErrorHeader, Join
from tests.property.test_checkpoint_replay import Cutting, Workload, image, opened, position, tries
from tests.unit.core import durable
from tests.unit.core.durable import SECOND, Durable
from zbroker.core import checkpoint
from zbroker.core.column import decode_block
from zbroker.core.log import StreamLog
from zbroker.core.policy import Policy

SEEDS = 400 if os.environ.get("ZBROKER_TEST_LONG") else 80


class Removing(Workload):
    """One in which streams, groups and messages are removed as well; members join again what is made anew."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.groups = dict(zip(self.consumers, "ggh", strict=True))
        self.count = 0

    def act(self) -> None:
        super().act()
        if self.random.random() < 0.1:
            self.remove()

    def come_again(self) -> None:
        super().come_again()
        self.groups = dict(zip(self.consumers, "ggh", strict=True))

    def remove(self) -> None:
        dice, rig = self.random, self.rig
        stream, sync = dice.choice("sst"), dice.random() < 0.7
        log = rig.streams._catalog.by_name.get(stream)
        rig.sync()
        rig.inbox.pop(b"admin", None)  # the answer to the one before may have waited for that
        if log is None:
            return
        match dice.randrange(5):
            case 0:
                rig.ask("delete_stream", sync=sync, stream=stream)
            case 1 if log.groups:
                rig.ask("delete_group", sync=sync, stream=stream, group=dice.choice(sorted(log.groups)))
            case 2:
                rig.ask("purge_stream", sync=sync, stream=stream, keep=dice.randrange(5))
            case _:
                rig.ask("purge_stream", sync=sync, stream=stream, before=dice.randint(0, log.next_offset))
        self.count += 1
        for peer in self.consumers:
            if any(error.scope == "stream" for error in rig.take(peer, ErrorHeader)):
                rig.send(peer, Join(id=self.count + 1, stream="s", group=self.groups[peer]))


def _kept(rig: Cutting, pieces: list[Any]) -> Iterator[tuple[int, ...]]:
    """Each batch of which something is kept: its stream, and all that a checkpoint tells of it."""
    for stream_id, columns in pieces:
        given_up = rig.streams._catalog.by_id[stream_id].given_up
        for row in zip(*(block.values(0, block.count) for block in starmap(decode_block, columns)), strict=True):
            if given_up.count(row[0], row[0] + row[1] - 1) < row[1]:
                yield stream_id, *row


def _comparable(rig: Cutting) -> dict[str, Any]:
    found = image(rig)
    found.get("deleted", []).sort()
    found["batches"] = sorted(_kept(rig, found.pop("batches", [])))
    for row in found["status"]["streams"].values():
        row["batches"] = 0  # one that is gone may stand there for where offsets go on
    return found


def test_checkpoint_and_replay_are_full_replay_amid_purges_and_deletions(monkeypatch: Any) -> None:
    monkeypatch.setattr(durable, "_position", position)
    monkeypatch.setattr(checkpoint, "CHUNK_BYTES", 300)  # many pieces, so many turns in between
    monkeypatch.setattr(checkpoint, "_BATCHES", 2)
    removed = 0
    for seed in range(SEEDS):
        work = Removing(seed)
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
        assert _comparable(short) == _comparable(whole), f"seed {seed}"
        assert tries(short) == tries(whole), f"seed {seed}"
        for name, row in work.rig.streams.status(1_000, work.rig.now)["groups"].items():  # type: ignore[attr-defined]
            assert row["balanced"], f"seed {seed}: {name}: {row}"
        removed += work.count
    assert removed > SEEDS


class Kept:
    """The model: of a stream, the offsets that must be there, and those that may."""

    def __init__(self, log: StreamLog) -> None:
        self.log = log
        self.unsettled: set[int] = set()  # of the only group

    def check(self, gone: set[int], seed: int) -> None:
        if self.log.config.keep_unsettled:
            assert not gone & self.unsettled, f"seed {seed}: {sorted(gone & self.unsettled)} was owed"


def test_nothing_unsettled_goes_but_where_that_is_wanted_and_then_accounts_add_up() -> None:
    for seed in range(SEEDS):
        dice = Random(seed)
        config = {
            "name": "s",
            "retention": dice.choice(["limits", "limits", "work"]),
            "messages_max": dice.choice([None, 3, 30]),
            "bytes_max": dice.choice([None, 500]),
        }
        if config["retention"] == "limits":
            config |= {"age_max_s": dice.choice([None, 5.0]), "keep_unsettled": dice.random() < 0.5}
        rig = Durable(policy=Policy(stream_bytes=dice.choice([0, 400, 1 << 30])))
        rig.ask("create_stream", config=config)
        rig.consumer(credit=10**6, mode="batches")
        producer, held = rig.producer(), []
        kept, accepted, sent = Kept(rig.streams._catalog.by_name["s"]), 0, 0
        for _ in range(60):
            if dice.random() < 0.5:
                producer.append(*range(dice.randint(1, 4)), sequence=sent + 1, previous=sent)
                rig.turn()
                if rig.errors(b"p"):
                    producer.sequence = sent
                else:
                    sent += 1
                    kept.unsettled |= set(range(accepted, kept.log.next_offset))
                    accepted = kept.log.next_offset
            held += rig.deliveries(b"c")
            if held and dice.random() < 0.6:
                delivery = held.pop(dice.randrange(len(held)))
                rig.settle(b"c", delivery)
                kept.unsettled -= set(delivery.offsets)
            rig.pass_time(dice.choice([20_000, SECOND]))
            kept.check({offset for _, first, last in rig.forgotten for offset in range(first, last + 1)}, seed)
            row = rig.group()
            assert row["balanced"], f"seed {seed}: {row}"
            assert row["expired"] == 0 or not kept.log.config.keep_unsettled, f"seed {seed}: {row}"
        for delivery in [*held, *rig.deliveries(b"c")]:
            rig.settle(b"c", delivery)
        for _ in range(20):
            rig.pass_time(SECOND)
        _check_bounds(rig, config, seed)


def _check_bounds(rig: Durable, config: dict[str, Any], seed: int) -> None:
    """Nothing is owed any more, so no more is kept than there may be."""
    row = rig.stream()
    log = rig.streams._catalog.by_name["s"]
    left = log.next_offset - log.given_up.count(0, log.next_offset - 1)
    if config["retention"] == "work" or config.get("age_max_s"):
        assert left == 0, f"seed {seed}: {row}"
    if config["messages_max"]:
        assert left <= config["messages_max"], f"seed {seed}: {row}"
    if config["bytes_max"]:
        assert row["kept_bytes"] <= config["bytes_max"], f"seed {seed}: {row}"
