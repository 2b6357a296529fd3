"""Groups under SIGKILL of the broker, its sidecar, both, and of members: account, attempts, leases and stale acks as the model has them.

Each round: some messages, deliveries whose number is known exactly, a fate for each of them, a kill. Half of the kills come after
every answer: then the account must be exact. The others come amid settles on their way, which count or do not.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

from patterns.sync import Producer
from tests.crash.audit import SMALL, status_of, verify
from tests.crash.bare_member import BareMember
from tests.crash.group_account import GroupAccount, Message
from tests.processes import LONG, Broker, until

KILLS = 200 if LONG else 15
GROUPS = ("billing", "audit", "mail")
MEMBERS = 2  # of each
ROUND_MESSAGES = 12
WAIT_S = 60.0
ACTIONS = ("ack", "ack", "ack", "ack", "nack", "nack", "reject", "release", "extend", "")
VICTIMS = ("broker", "broker", "both", "sidecar")

pytestmark = pytest.mark.timeout(2400 if LONG else 240)


class Play:
    """A broker, three groups, their model, and the dice."""

    def __init__(self, broker: Broker, out: Producer, dice: random.Random) -> None:
        self.broker, self.out, self.dice = broker, out, dice
        self.accounts = {name: GroupAccount(name) for name in GROUPS}
        self.members: dict[str, list[BareMember]] = {name: [] for name in GROUPS}
        self.numbers = count()
        self.kills = 0

    def hear(self) -> None:
        for name, members in self.members.items():
            for member in list(members):
                self.accounts[name].hear(member)
                if member.is_over:
                    members.remove(member)

    def wait(self, done: Callable[[], bool], what: str) -> None:
        """Until it is so; everybody listens meanwhile."""

        def is_done() -> bool:
            self.hear()
            return done()

        until(is_done, WAIT_S, what)

    # -- a round ------------------------------------------------------------------------------------------------------

    def produce(self) -> None:
        bodies = [[next(self.numbers), "x" * self.dice.choice([0, 0, 500])] for _ in range(ROUND_MESSAGES)]
        for body, receipt in zip(bodies, self.out.send_many(bodies), strict=True):
            self.stored(receipt.offset, body)

    def stored(self, offset: int, body: list[object]) -> None:
        for account in self.accounts.values():
            assert offset not in account.messages, f"offset {offset} was given twice"
            account.messages[offset] = Message(body)

    def join(self) -> None:
        """As many members as there should be."""
        for name, members in self.members.items():
            while len(members) < MEMBERS:
                members.append(BareMember(self.broker.url, "work", name))
        self.wait(lambda: all(one.joined for members in self.members.values() for one in members), "each member's JOIN")

    def take_all(self) -> None:
        """Everything that is pending is lent, and no credit is left over."""
        self.join()
        rows = status_of(self.broker.url)["groups"]
        pending = {name: rows[f"work/{name}"]["pending"] for name in GROUPS}
        self.wait(
            lambda: sum(self._takes(name, pending[name]) for name in GROUPS) == len(GROUPS),
            "the delivery of what is pending",
        )
        for account in self.accounts.values():
            account.resolve()
        self.compare()

    def _takes(self, name: str, pending: int) -> bool:
        """Whether all of a group's is lent; who is missing, because the machine stood still for long, is replaced."""
        account, members = self.accounts[name], self.members[name]
        if len(members) < MEMBERS:
            members.append(BareMember(self.broker.url, "work", name))
        wanted = pending - len(account.held()) - sum(member.granted - member.taken for member in members)
        if wanted and members[-1].joined:
            first = self.dice.randint(0, wanted)
            for member, share in zip(members, (first, wanted - first), strict=False):
                if share:
                    member.grant(share)
        return len(account.held()) == pending

    def act(self) -> None:
        """A fate for each message that is held, and some acks of what is not one's own."""
        for name, account in self.accounts.items():
            for offset in account.held():
                message = account.messages[offset]
                others = [member for member in self.members[name] if member is not message.holder]
                if others and self.dice.random() < 0.1:
                    account.settle_stale(self.dice.choice(others), offset, message.lease)
                if action := self.dice.choice(ACTIONS):
                    account.settle(message.holder, offset, action)

    def await_answers(self) -> None:
        self.wait(lambda: not any(account.asked for account in self.accounts.values()), "an answer to each SETTLE")

    def compare(self) -> None:
        rows = status_of(self.broker.url)["groups"]
        for name, account in self.accounts.items():
            account.compare(rows[f"work/{name}"])

    # -- kills --------------------------------------------------------------------------------------------------------

    def kill(self, victim: str) -> None:
        """Returns when the broker serves again."""
        self.kills += 1
        children = self.broker.children()
        if victim != "broker":
            for child in children:
                os.kill(child, 9)
        if victim == "sidecar":
            return
        self.broker.kill()
        self.broker.start()

    def die(self) -> dict[str, dict[BareMember, list[int]]]:
        """Nobody's session has outlived the broker; what each of them held."""
        held = {name: account.killed() for name, account in self.accounts.items()}
        for name, members in self.members.items():
            for member in members:
                member.die()
            members.clear()
            assert not self.accounts[name].asked
        return held

    def claim(self, held: dict[str, dict[BareMember, list[int]]]) -> None:
        """Members come back and ack some of what they held, by the leases of before."""
        for name, account in self.accounts.items():
            for member, offsets in held[name].items():
                leases = tuple(sorted({account.messages[offset].lease for offset in offsets}))
                heir = BareMember(self.broker.url, "work", name, older=member, leases=leases)
                self.members[name].append(heir)
        self.join()
        for name, account in self.accounts.items():
            for heir, offsets in zip(self.members[name], held[name].values(), strict=False):
                for offset in offsets:
                    if self.dice.random() < 0.5:
                        account.claim(heir, offset)
        self.await_answers()

    def refuse_stale(self) -> None:
        """New members ack by leases of another life, which nobody claims for them."""
        self.join()
        for name, account in self.accounts.items():
            for offset, message in account.messages.items():
                if message.lease and message.holder is None and self.dice.random() < 0.1:
                    account.settle_stale(self.members[name][0], offset, message.lease)
        self.await_answers()

    def lose_a_member(self) -> None:
        """It is killed; others will get what it held."""
        name = self.dice.choice(GROUPS)
        if self.members[name]:
            member = self.members[name].pop()
            member.die()
            self.accounts[name].gone(member)


@contextmanager
def played(folder: Path, dice: random.Random) -> Iterator[Play]:
    with (
        Broker(folder, environment=SMALL, ready_s=WAIT_S) as broker,
        Producer(broker.url, "work", timeout_s=WAIT_S) as out,
    ):
        yield Play(broker, out, dice)


def _round(play: Play, *, takes: bool) -> None:
    """One kill, and the account after it."""
    dice = play.dice
    play.produce()
    if takes:
        play.take_all()
        if dice.random() < 0.3:
            play.lose_a_member()
    play.act()
    victim, is_exact = dice.choice(VICTIMS), dice.random() < 0.5
    posted = []
    if is_exact:
        play.await_answers()
        play.compare()
    else:
        bodies = [[next(play.numbers), ""] for _ in range(3)]
        posted = [(body, play.out.post(body)) for body in bodies]
    play.kill(victim)
    dead = play.die() if victim != "sidecar" else None
    for body, one in posted:
        play.stored(one.result(WAIT_S).offset, body)
    if dead is None:
        play.await_answers()
    play.compare()
    if dead is not None and dice.random() < 0.5:
        play.claim(dead)
    elif dead is not None:
        play.refuse_stale()
    play.compare()


def test_groups_agree_with_their_model_after_each_kill(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seed = int(os.environ.get("ZBROKER_TEST_SEED", random.randrange(1 << 32)))
    print(f"seed {seed}: ZBROKER_TEST_SEED={seed} repeats the dice")
    with played(tmp_path, random.Random(seed)) as play:
        while play.kills < KILLS:
            _round(play, takes=play.kills % 2 == 0)
        _drain(play)
        assert play.broker.terminate() == 0
        met = sum((account.met for account in play.accounts.values()), start=Counter[str]())
    with capsys.disabled():
        print(f"\n{play.kills} kills; {dict(met)}")
    assert verify(play.broker.data)[0] == 0
    assert min(met[what] for what in ("exact", "bounded", "again", "stale", "acked", "dead")) > 0


def _drain(play: Play) -> None:
    play.take_all()
    for account in play.accounts.values():
        for offset in account.held():
            account.settle(account.messages[offset].holder, offset, "ack")
    play.await_answers()
    play.compare()
    for account in play.accounts.values():
        assert all(message.done for message in account.messages.values())
