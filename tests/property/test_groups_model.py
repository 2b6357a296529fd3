"""A group under random deliveries, settles, losses and restarts, against a model of dictionaries."""

from __future__ import annotations

import os
from random import Random

import pytest

from patterns.wire.messages import Goodbye
from tests.simulation.run import packed_early
from tests.unit.core.durable import SECOND, Client, Delivery, Durable

SEEDS = 400 if os.environ.get("ZBROKER_TEST_LONG") else 60
STEPS = 60
LEASE_US = 30 * SECOND
ACTIONS = ("ack", "ack", "ack", "nack", "nack", "reject", "release", "extend")


class Held:
    """A lease as its member sees it."""

    def __init__(self, peer: bytes, delivery: Delivery, now: int) -> None:
        self.peer, self.attempt, self.until = peer, delivery.attempt, now + LEASE_US
        self.offsets = set(delivery.offsets)


class Model:
    """What must be true of the group, and the random life that tries to make it false."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.rig = Durable(tail_bytes=self.random.choice([3_000, 1 << 20]))
        self.acked: set[int] = set()
        self.dead: set[int] = set()
        self.tries: dict[int, int] = {}
        self.slack: dict[int, int] = {}  # offsets whose attempts a restart may have changed: the least that is allowed
        self.returned: set[int] = set()  # given back before anybody began with them
        self.leases: dict[int, Held] = {}
        self.ids: set[int] = set()
        self.renewed: dict[bytes, int] = {}
        self.due: dict[int, int] = {}  # not before this they come again
        self.is_paused = self.is_exclusive = False
        self.count = self.produced = self.peers = 0
        self.members: list[bytes] = []
        self.producer: Client = self.rig.producer()

    # -- steps ----------------------------------------------------------------------------------------------------

    def step(self) -> None:
        steps = (
            self.produce, self.produce, self.join, self.grant, self.settle, self.settle, self.settle, self.wait,
            self.long_wait, self.goodbye, self.drop, self.resume, self.restart, self.pause, self.pause, self.exclude,
            self.reset,
        )  # fmt: skip
        self.random.choice(steps)()
        self.rig.turn()
        self.observe()
        self.check()

    def produce(self) -> None:
        for _ in range(self.random.randrange(1, 4)):
            size = self.random.randrange(1, 9)
            self.producer.append(*range(self.produced, self.produced + size))
            self.produced += size

    def join(self) -> None:
        if len(self.members) < 4:
            self.peers += 1
            peer = b"c%d" % self.peers
            mode = self.random.choice(["batches", "slices"])
            self.rig.consumer(peer, credit=self.random.randrange(12), mode=mode)
            self.members.append(peer)
            self.renewed[peer] = -LEASE_US

    def grant(self) -> None:
        for session in list(self.rig.sessions):
            for peer in self.members:
                if session.peer == (0, peer):
                    self.rig.credit(peer, session.out.messages_max + self.random.randrange(10))

    def settle(self) -> None:
        if not self.leases:
            return
        id = self.random.choice(sorted(self.leases))
        lease, action = self.leases[id], self.random.choice(ACTIONS)
        some = sorted(offset for offset in lease.offsets if self.random.random() < 0.6)
        ranges = [(offset, offset) for offset in some] if self.random.random() < 0.7 else []
        named = set(some) if ranges else set(lease.offsets)
        delay_ms = self.random.choice([0, 0, 400, 5_000]) if action == "nack" else 40_000 * (action == "extend")
        peer = lease.peer if self.random.random() < 0.9 else self.random.choice(self.members)
        self.rig.settle(peer, id, action, ranges=ranges, delay_ms=delay_ms)
        self.renewed[peer] = self.rig.now
        if peer != lease.peer:
            return
        if action == "extend":
            lease.until = max(lease.until, self.rig.now + 40 * SECOND)
            return
        {"ack": self.acked, "reject": self.dead}.get(action, set()).update(named)
        self.due.update(dict.fromkeys(named, self.rig.now + delay_ms * 1_000))
        self.let_go(id, named, lease.attempt - 1 if action == "release" else lease.attempt)

    def let_go(self, id: int, offsets: set[int], tries: int) -> None:
        lease = self.leases[id]
        lease.offsets -= offsets
        self.tries.update(dict.fromkeys(offsets, tries))
        self.returned |= set() if tries else offsets
        if not lease.offsets:
            del self.leases[id]

    def wait(self) -> None:
        self.pass_time(self.random.choice([5_000, 100_000, 500_000]))

    def long_wait(self) -> None:
        self.pass_time(self.random.randrange(2, 20) * SECOND)

    def pass_time(self, us: int) -> None:
        """Leases whose time is over by then are nobody's; deliveries may follow at once."""
        for id, lease in list(self.leases.items()):
            if max(lease.until, self.renewed[lease.peer] + LEASE_US) <= self.rig.now + us:
                self.let_go(id, set(lease.offsets), lease.attempt)
        self.rig.pass_time(us)

    def goodbye(self) -> None:
        if self.members:
            peer = self.members.pop(self.random.randrange(len(self.members)))
            self.rig.send(peer, Goodbye())
            for id in [id for id, lease in self.leases.items() if lease.peer == peer]:
                self.let_go(id, set(self.leases[id].offsets), self.leases[id].attempt - 1)

    def drop(self) -> None:
        if self.members:
            peer = self.members.pop(self.random.randrange(len(self.members)))
            self.rig.disconnect(peer)
            self.rig.turn()
            self.observe()
            for id in [id for id, lease in self.leases.items() if lease.peer == peer]:
                self.let_go(id, set(self.leases[id].offsets), self.leases[id].attempt)
            self.pass_time(2 * SECOND)

    def resume(self) -> None:
        if not self.members:
            return
        place = self.random.randrange(len(self.members))
        old = self.members[place]
        self.rig.disconnect(old)
        held = sorted(id for id, lease in self.leases.items() if lease.peer == old)
        kept = [id for id in held if self.random.random() < 0.5]
        self.rig.resume(old[:3].rstrip(b"+"), new := old + b"+", kept, credit=self.random.randrange(12))
        self.members[place], self.renewed[new] = new, self.renewed[old]
        for id in held:
            if id in kept:
                self.leases[id].peer = new
            else:
                self.let_go(id, set(self.leases[id].offsets), self.leases[id].attempt - 1)

    def pause(self) -> None:
        if self.rig.streams.status(1_000, 0)["groups"]:
            self.observe()
            self.is_paused = not self.is_paused
            self.rig.ask("pause_group" if self.is_paused else "resume_group", stream="s", group="g")

    def exclude(self) -> None:
        self.observe()
        self.is_exclusive = not self.is_exclusive
        config = {"stream": "s", "name": "g", "exclusive": self.is_exclusive}
        self.rig.ask("create_group", config=config, change=True)

    def reset(self) -> None:
        """All of it comes again, to those who are there, as if it never had."""
        if self.rig.streams.status(1_000, 0)["groups"] and self.random.random() < 0.3:
            self.observe()
            self.rig.ask("reset_group", stream="s", group="g", start="first")
            for one in (self.acked, self.dead, self.tries, self.slack, self.returned, self.leases, self.due):
                one.clear()

    def restart(self) -> None:
        clean = self.random.random() < 0.5
        if clean:  # the journal learns of deliveries within 10 ms of the last one
            for _ in range(3):
                self.pass_time(20_000)
            self.observe()
        elif self.leases:  # what was acked but did not reach the disk is delivered again
            lease = self.random.choice(sorted(self.leases))
            self.rig.settle(self.leases[lease].peer, lease)
            self.rig.turn(sync=False)
        for id in list(self.leases):
            self.let_go(id, set(self.leases[id].offsets), self.leases[id].attempt)
        for offset, tries in self.tries.items():
            self.slack[offset] = min(self.slack.get(offset, tries), tries if clean else 0)
        if not clean:
            self.due.clear()
            self.returned.clear()  # the journal may not have heard of it
        self.due = {offset: due - 1_000 for offset, due in self.due.items()}  # told in milliseconds
        before = self.rig.group() if self.rig.streams.status(1_000, 0)["groups"] else None
        self.rig = self.rig.crash(tail_bytes=3_000)
        self.members, self.leases = [], {}
        self.producer = self.rig.producer(b"p%d" % self.rig.epoch)
        if before is not None and clean:
            after = self.rig.group()
            assert [after[key] for key in ("acked", "dead", "floor", "lag")] == [
                before[key] for key in ("acked", "dead", "floor", "lag")
            ]

    # -- what must be true ----------------------------------------------------------------------------------------

    def observe(self) -> None:
        found = [(delivery, peer) for peer in list(self.rig.inbox) for delivery in self.rig.deliveries(peer)]
        for delivery, peer in sorted(found, key=lambda one: one[0].lease):  # as the broker gave them
            assert delivery.lease not in self.ids, "a lease id came twice"
            self.ids.add(delivery.lease)
            assert delivery.bodies == delivery.offsets
            for offset in delivery.offsets:
                self.delivered(offset, delivery.attempt)
            assert not self.is_paused, "a paused group lends"
            assert not self.is_exclusive or peer == self.members[0], f"{peer!r} is given what is {self.members[0]!r}'s"
            self.leases[delivery.lease] = Held(peer, delivery, self.rig.now)

    def delivered(self, offset: int, attempt: int) -> None:
        assert offset not in self.acked, f"{offset} came back after its ack"
        assert offset not in self.dead, f"{offset} came back after its reject"
        holders = [id for id, lease in self.leases.items() if offset in lease.offsets]
        assert not holders, f"{offset} is lent by {holders}"
        assert not self.returned or min(self.returned) >= offset, (
            f"{offset} before {min(self.returned)}, which was given back"
        )
        self.returned.discard(offset)
        assert self.rig.now >= self.due.pop(offset, 0), f"{offset} comes before its time"
        tries = self.tries.get(offset, 0)
        least = self.slack.pop(offset, None)
        if least is None:
            assert attempt == tries + 1, f"{offset} has attempt {attempt} after {tries}"
        else:  # a restart: may count a released attempt, and after an unclean one forget the last
            assert least + 1 <= attempt <= tries + 2, f"{offset} has attempt {attempt} after {tries}, {least}"

    def check(self) -> None:
        if not self.rig.streams.status(1_000, 0)["groups"]:
            return
        group = self.rig.group()
        assert group["balanced"], group
        assert group["accepted"] == group["acked"] + group["dead"] + group["pending"] == self.produced
        assert (group["acked"], group["dead"]) == (len(self.acked), len(self.dead))
        assert group["leased"] == sum(len(lease.offsets) for lease in self.leases.values())


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_group_agrees_with_its_model(seed: int) -> None:
    with packed_early(seed):
        model = Model(seed)
        for _ in range(STEPS):
            model.step()


@pytest.mark.parametrize("seed", range(SEEDS // 4))
def test_everything_settles_once_faults_stop(seed: int) -> None:
    model = Model(1_000 + seed)
    for _ in range(STEPS // 2):
        model.step()
    if model.is_paused:
        model.pause()
    if model.is_exclusive:
        model.exclude()
    model.rig.consumer(b"last", credit=1 << 30, mode="batches")
    model.members.append(b"last")
    model.renewed[b"last"] = 0
    for _ in range(100):
        model.pass_time(SECOND)
        model.observe()
        for id, lease in sorted(model.leases.items()):
            model.rig.settle(lease.peer, id)
            model.acked |= lease.offsets
        model.leases.clear()
        model.rig.turn()
        model.observe()
    assert model.rig.group()["pending"] == len(model.leases) == 0
    assert model.acked | model.dead == set(range(model.produced))
