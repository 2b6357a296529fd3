"""One group with delays, nacks, backoff and restarts, against a table of its messages: by a full replay, and by a checkpoint and a replay."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from patterns.wire.configs import GroupConfig, told
from tests.processes import LONG
from tests.simulation.run import packed_early
from zbroker.core import checkpoint
from zbroker.core.catalog import Catalog, Recorder, decode_operations, encode_operations
from zbroker.core.groups import Group
from zbroker.core.leases import Leases

CONFIG = GroupConfig("s", "g", backoff_s=[0.005, 0.02])
BACKOFF = [5, 20]  # ms
produce = st.tuples(st.just("produce"), st.lists(st.sampled_from([0, 0, 3, 40]), min_size=1, max_size=8))
deliver = st.tuples(st.just("deliver"), st.integers(1, 5))
settle = st.tuples(
    st.just("settle"),
    st.integers(0, 9),
    st.sampled_from(["ack", "reject", "nack", "nack", "release", "expire"]),
    st.integers(1, 31),
    st.sampled_from([0, 0, 7, 50]),
)
wait = st.tuples(st.just("wait"), st.sampled_from([1, 5, 30]))
record = st.tuples(st.just("record"))
cut = st.tuples(st.just("cut"), st.integers(0, 3))
restart = st.tuples(st.just("restart"), st.booleans(), st.sampled_from([0] * 7 + [-1_000, 10, 1_000]))
steps = st.one_of(produce, deliver, deliver, deliver, settle, settle, settle, wait, record, cut, restart)


@dataclass
class Message:
    """`place` is fresh, lent, waiting, delayed or settled; `due` counts on the engine's clock, `told` on the other one.

    Who looks into the journal finds `told` until it is lent.
    """

    asked: int
    published: int
    place: str = "fresh"
    tries: int = 0
    due: int = 0
    told: int = 0
    delay: int = 0


class World:
    """A group, its journal, and the table. Milliseconds."""

    def __init__(self) -> None:
        self.now, self.ahead = 100, 5_000
        self.sweep = self.now
        self.group = _opened([], None, 0, self.now, self.ahead)
        self.messages: list[Message] = []
        self.leases = Leases(self.group)
        self.lent = 0
        self.journal: list[bytes] = []
        self.known: list[Message] = []  # what the journal says
        self.pieces: tuple[int, list[Any]] | None = None
        self.is_skewed = False

    def produce(self, delays: list[int]) -> None:
        self.messages += [Message(delay, self.now) for delay in delays]

    def deliver(self, count: int) -> None:
        piece = self.group.next_piece(len(self.messages))
        waiting = [at for at, one in enumerate(self.messages) if one.place == "waiting"]
        fresh = [at for at, one in enumerate(self.messages) if one.place == "fresh"]
        if piece is None:
            assert not waiting
            assert not fresh
            return
        returned = [at for at in waiting if not self.messages[at].tries]
        assert piece.first in ([returned[0]] if returned else waiting + fresh[:1])
        one = self.messages[piece.first]
        age = self.now - one.published
        if one.place == "fresh" and one.asked > age:
            self.group.postpone(piece.first, piece.first, 1_000 * self.now, one.asked, one.asked - age)
            self._delay(one, one.asked, one.asked - age)
            return
        last = piece.first
        while last < min(piece.last, piece.first + count - 1) and self._goes_along(one, self.messages[last + 1]):
            last += 1
        lent = self.messages[piece.first : last + 1]
        assert {(message.place, message.tries) for message in lent} == {(one.place, piece.tries)}
        for message in lent:
            message.place, message.tries, message.told = "lent", message.tries + 1, 0
        self.lent += 1
        self.leases.add(self.group.lend(self.lent, piece, last, 0))

    def _goes_along(self, one: Message, other: Message) -> bool:
        return one.place != "fresh" or other.asked <= self.now - other.published

    def _delay(self, one: Message, delay: int, left: int) -> None:
        one.place, one.delay, one.due = "delayed", delay, self.now + left
        one.told = one.due + self.ahead

    def settle(self, place: int, action: str, mask: int, delay: int) -> None:
        leases = list(self.leases)
        if not leases:
            return
        lease = leases[place % len(leases)]
        named = [lease.first + bit for bit in range(5) if mask >> bit & 1]
        held = [at for at in named if lease.held >> (at - lease.first) & 1]
        count = self.group.settle(lease, [(at, at) for at in named], action, 1_000 * self.now, delay)
        assert count == len(held)
        for at in held:
            self._settled(self.messages[at], action, delay)
        self.leases.keep(lease)

    def _settled(self, one: Message, action: str, delay: int) -> None:
        if action in ("ack", "reject"):
            one.place = "settled"
        elif action == "release":
            one.place, one.tries = "waiting", one.tries - 1
        else:
            delay = delay or BACKOFF[min(one.tries, 2) - 1]
            self._delay(one, delay, delay)

    def wait(self, ms: int) -> None:
        self.now += ms
        while self.group.wake(1_000 * self.now):
            pass
        if not any((one.place, one.tries) == ("waiting", 0) for one in self.messages):
            self.sweep = self.now  # else what is due by now waits for those that were due before
        for one in self.messages:
            if one.place == "delayed" and one.due <= self.sweep:
                one.place = "waiting"

    def record(self) -> None:
        self.journal += encode_operations([self.group], self.ahead)
        self.known = deepcopy(self.messages)

    def cut(self, back: int) -> None:
        """A checkpoint; its replay begins some records before."""
        self.record()
        pieces = msgspec.msgpack.decode(msgspec.msgpack.encode(list(checkpoint._group(self.group, self.ahead))))
        self.pieces = max(len(self.journal) - back, 0), pieces

    def restart(self, by_checkpoint: bool, skew: int) -> None:
        self.is_skewed |= skew != 0
        self.ahead += skew
        count = len(self.messages)
        whole = _opened(self.journal, None, count, self.now, self.ahead)
        if self.pieces is not None and not self.is_skewed:  # what was longer under way because of a clock is told so
            begin, pieces = self.pieces
            short = _opened(self.journal[begin:], pieces, count, self.now, self.ahead)
            assert _image(short) == _image(whole)
            whole = short if by_checkpoint else whole
        begun = {
            at: one.tries for at, one in enumerate(self.known) if one.place in ("lent", "waiting") and not one.told
        }
        told = _image(whole)["tries"]
        assert {at: told.get(at, 1) for at in begun} == begun
        self.group, self.leases = whole, Leases(whole)
        self.group.release_recovered()
        self.messages = deepcopy(self.known) + [
            Message(one.asked, one.published) for one in self.messages[len(self.known) :]
        ]
        for one in self.messages:
            if one.place == "lent":
                one.place = "waiting"
            elif one.place == "settled":
                continue
            elif one.told:  # as it was to be, and no later than if it were delayed now
                one.place = "delayed"
                one.due = min(max(one.told - self.ahead, self.now), self.now + one.delay)
        self.sweep = self.now
        self.wait(0)


def _opened(journal: list[bytes], pieces: list[Any] | None, count: int, now: int, ahead: int) -> Group:
    catalog = Catalog(Recorder([]))
    catalog.add(1, "s")
    group = catalog.add_group(catalog.by_id[1], 2, "g", 0)
    group.config = msgspec.convert(told(CONFIG), GroupConfig)
    for kind, *fields in pieces or []:
        checkpoint._RESTORERS[kind](catalog, *fields)
    group = catalog.groups[1, 2]
    for payload in journal:
        for what, _, _, value in decode_operations(payload):
            group.recover(what, value)
    group.opened(count, 1_000 * now, ahead)
    while group.wake(1_000 * now):  # that its time has come is known to a checkpoint, and to no record
        pass
    return group


def _image(group: Group) -> dict[str, Any]:
    rows = (
        (first + at, *rest)
        for blocks in group.delays(0)
        for first, more, *rest in zip(*(block.values(0, block.count) for block in blocks), strict=True)
        for at in range(more + 1)
    )
    tries = {at: piece.tries for piece in group.attempts() for at in range(piece.first, piece.last + 1)}
    return {
        "delays": sorted(rows),
        "tries": {at: count for at, count in tries.items() if at not in group.settled},
        "settled": list(group.settled.missing(0, 500)),
        # Not whether it is held for who had it: of what was nacked and has waited, a checkpoint says no more than of what was lent once.
        "counts": (group.cursor, group.waiting, group.acked, group.dead),
    }


@given(st.lists(steps, min_size=30, max_size=80), st.integers(0, 1))
@settings(deadline=None, max_examples=3_000 if LONG else 200)
def test_a_group_with_delays_agrees_with_its_table(found: list[tuple[Any, ...]], seed: int) -> None:
    with packed_early(seed):
        world = World()
        for name, *arguments in found:
            getattr(world, name)(*arguments)
            group, count = world.group, len(world.messages)
            assert group.balance(count)
            places = [one.place for one in world.messages]
            assert (group.delayed, group.leased) == (places.count("delayed"), places.count("lent"))
            assert group.waiting == places.count("delayed") + places.count("waiting")
            assert group.acked + group.dead == places.count("settled")
