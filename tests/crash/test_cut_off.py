"""Members that are stopped, and members in other network namespaces that are cut off and healed: each message has one valid ack."""

from __future__ import annotations

import functools
import itertools
import json
import random
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from patterns.sync import Admin, Consumer, Producer
from patterns.wire.limits import EXPIRY_MS
from tests.processes import LONG, PYTHON, Broker, Program, program, until

STOPS_S = (1, 2, 3, 4, 5, 6, 7, 8, 10, 14, 20, 30, 45, 60) if LONG else (1, 3, 5, 7, 8)
CUTS = 12 if LONG else 2
WAIT_S = 90.0
SURELY_IN_TIME_S = EXPIRY_MS / 1_000 - 1  # whoever was heard of again by then has kept its session
STALE = "StaleLease"
UNKNOWN = "Unknown"  # the connection broke between the ack and its answer
MANY = str(1 << 40)

MEMBER = """
import json, sys
from itertools import islice
from patterns.sync import Consumer
with Consumer(sys.argv[1], "work", group="g", credit=1) as consumer:
    for d in islice(consumer, int(sys.argv[2])):
        print(json.dumps([d.offset, d.attempt, d.token]))
        sys.stdin.readline()
        try:
            d.ack(confirm=True)
            print(json.dumps("acked"))
        except Exception as error:
            print(json.dumps("Unknown" if "it may be acked" in str(error) else type(error).__name__))
"""
PRODUCER = """
import sys
from patterns.sync import Producer
with Producer(sys.argv[1], "work") as out:
    print(out.send(None).offset)
    for line in sys.stdin:
        print(out.send(None).offset)
"""
STATUS = """
import json, sys
from patterns.sync import Admin
with Admin(sys.argv[1], timeout_s=30) as admin:
    print(json.dumps(admin.status()["groups"]["work/g"]))
"""

pytestmark = pytest.mark.timeout(900 if LONG else 180)


# -- SIGSTOP ----------------------------------------------------------------------------------------------------------


class Steady:
    """A member that is always there: it surely acks whatever it gets."""

    def __init__(self, url: str) -> None:
        self.got: dict[int, tuple[int, int]] = {}  # offset -> attempt, token
        self.errors: list[BaseException] = []
        self._consumer = Consumer(url, "work", group="g", credit=100)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for d in self._consumer:
                d.ack(confirm=True)
                self.got[d.offset] = d.attempt, d.token
        except BaseException as error:  # noqa: BLE001  the test's thread must hear of it
            self.errors.append(error)

    def __enter__(self) -> Steady:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()
        self._thread.join(WAIT_S)


def test_each_message_of_stopped_members_has_one_valid_ack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One is stopped for so long that another member has its message; the others for some seconds, in which that may be so."""
    with ExitStack() as stack:
        broker = stack.enter_context(Broker(tmp_path))
        members = [stack.enter_context(program(MEMBER, tmp_path, broker.url, "1")) for _ in STOPS_S]
        with Producer(broker.url, "work") as out:
            out.send_many([None] * len(members))
        held = [json.loads(member.line()) for member in members]
        assert sorted(offset for offset, *_ in held) == list(range(len(members)))
        stopped_at = time.monotonic()
        for member in members:
            member.signal(signal.SIGSTOP)
        steady = stack.enter_context(Steady(broker.url))
        verdicts = [
            _woken(member, steady, offset if stop_s == STOPS_S[-1] else None, stopped_at, stop_s)
            for member, (offset, *_), stop_s in zip(members, held, STOPS_S, strict=True)
        ]
        with Admin(broker.url, timeout_s=WAIT_S) as admin:
            others = verdicts.count(STALE)
            until(lambda: len(steady.got) >= others or bool(steady.errors), WAIT_S, "the acks of what others lost")
            until(lambda: admin.status()["groups"]["work/g"]["pending"] == 0, WAIT_S, "the last ack")
            row = admin.status()["groups"]["work/g"]
        assert steady.errors == []
    with capsys.disabled():
        print("\nstopped for", ", ".join(f"{stop_s} s: {said}" for stop_s, said in zip(STOPS_S, verdicts, strict=True)))
    assert row["acked"] == row["accepted"] == len(members)
    for (offset, attempt, token), said in zip(held, verdicts, strict=True):
        if said == UNKNOWN:
            continue  # by one of both: `acked` counts each message once
        assert (said == "acked") is (offset not in steady.got), f"{offset} was acked by both, or by nobody"
        if said != "acked":
            assert said == STALE
            assert steady.got[offset][0] > attempt
            assert steady.got[offset][1] > token


def _woken(member: Program, steady: Steady, until_given: int | None, stopped_at: float, stop_s: float) -> str:
    """What the member is told when it acks after its stop."""
    until(lambda: time.monotonic() - stopped_at >= stop_s, WAIT_S + stop_s, "the stop")
    if until_given is not None:
        until(lambda: until_given in steady.got or bool(steady.errors), WAIT_S, "another member's turn")
    member.signal(signal.SIGCONT)
    member.tell("ack")
    said: str = json.loads(member.line())
    if time.monotonic() - stopped_at < SURELY_IN_TIME_S:
        assert said == "acked", f"it was {said} within the expiry of its session"
    if until_given is not None:
        assert said != "acked"
    return said


# -- network namespaces -----------------------------------------------------------------------------------------------


@functools.cache
def _hindrance() -> str:
    """Why there are no network namespaces here; "" if there are."""
    name = f"zb-look-{random.randrange(1 << 30):x}"
    try:
        made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False, text=True)
        if made.returncode:
            return f"ip netns add: {made.stderr.strip()}"
        pair = ["ip", "-n", name, "link", "add", "near", "type", "veth", "peer", "name", "far"]
        linked = subprocess.run(pair, capture_output=True, check=False, text=True)
        subprocess.run(["ip", "netns", "delete", name], check=False)
    except OSError as error:
        return f"no ip(8): {error}"
    return f"ip link add type veth: {linked.stderr.strip()}" if linked.returncode else ""


class Island:
    """A broker and two members, each in a namespace of its own, with a link from each member to the broker."""

    def __init__(self) -> None:
        self.id = f"zb{random.randrange(1 << 24):x}"
        self.names = [f"{self.id}-broker", f"{self.id}-m1", f"{self.id}-m2"]

    def __enter__(self) -> Island:
        try:
            self._make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _make(self) -> None:
        for name in self.names:
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        for number in (1, 2):
            broker, member = self.names[0], self.names[number]
            _ip("-n", broker, "link", "add", f"to{number}", "type", "veth", "peer", "name", "near", "netns", member)
            _ip("-n", broker, "address", "add", f"10.213.{number}.1/24", "dev", f"to{number}")
            _ip("-n", member, "address", "add", f"10.213.{number}.2/24", "dev", "near")
            _ip("-n", member, "link", "set", "near", "up")
            self.link(number, is_up=True)

    def link(self, number: int, *, is_up: bool) -> None:
        _ip("-n", self.names[0], "link", "set", f"to{number}", "up" if is_up else "down")

    def interpreter(self, place: int) -> tuple[str, ...]:
        return ("ip", "netns", "exec", self.names[place], *PYTHON)

    def __exit__(self, *_: object) -> None:
        for name in self.names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, check=False, text=True)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"


class Ends:
    """The programs on an island: they hear of each other by the broker alone."""

    def __init__(self, stack: ExitStack, island: Island, folder: Path) -> None:
        self.island = island
        broker = Broker(folder, "--insecure", interpreter=island.interpreter(0))
        port = broker.url.rpartition(":")[2]
        broker._address = f"tcp://0.0.0.0:{port}"
        self.broker = stack.enter_context(broker)
        self._near = f"zb://127.0.0.1:{port}"
        self._program = functools.partial(self._begun, stack, folder)
        self.producer = self._program(PRODUCER, 0, self._near)
        self.offset = int(self.producer.line())
        self.members = [self._program(MEMBER, number, f"zb://10.213.{number}.1:{port}", MANY) for number in (1, 2)]

    def _begun(self, stack: ExitStack, folder: Path, source: str, place: int, *arguments: str) -> Program:
        errors = folder / f"{place}-{len(list(folder.iterdir()))}.err"
        return stack.enter_context(
            Program(["-c", source, *arguments], errors, interpreter=self.island.interpreter(place))
        )

    def send(self) -> None:
        self.producer.tell("")
        self.offset = int(self.producer.line())

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._program(STATUS, 0, self._near).line())
        return found


class Score:
    """Who holds what, and whose acks were taken."""

    def __init__(self, ends: Ends) -> None:
        self.ends = ends
        self.holds: list[list[int] | None] = [None, None]  # offset, attempt, token
        self.acked: dict[int, int] = {}
        self.tokens: dict[int, int] = {}
        self.stale = 0

    def hold(self, place: int) -> list[int]:
        """Until a member has a message in hands."""
        held = self.holds[place]
        if held is None:
            held = self.holds[place] = json.loads(self.ends.members[place].line(WAIT_S))
            offset, attempt, token = held
            assert offset not in self.acked, f"{offset} comes again, and its ack was confirmed"
            assert token > self.tokens.get(offset, 0)
            assert attempt > 1 or offset not in self.tokens
            self.tokens[offset] = token
        return held

    def order(self, place: int) -> None:
        """It shall ack what it has."""
        self.ends.members[place].tell("ack")

    def verdict(self, place: int) -> str:
        """What became of that ack."""
        held, self.holds[place] = self.hold(place), None
        said: str = json.loads(self.ends.members[place].line(WAIT_S))
        said = STALE if said == UNKNOWN else said  # it is cut off: its ack has gone nowhere
        assert said in ("acked", STALE)
        if said == "acked":
            assert held[0] not in self.acked, f"{held[0]} was acked twice, each time surely"
            assert held[2] == self.tokens[held[0]], f"{held[0]} was acked by an older token"
            self.acked[held[0]] = held[2]
        self.stale += said == STALE
        return said


@pytest.fixture
def score(tmp_path: Path) -> Iterator[Score]:
    if _hindrance():
        pytest.skip(f"two members need network namespaces of their own: {_hindrance()}")
    with ExitStack() as stack:
        island = stack.enter_context(Island())
        yield Score(Ends(stack, island, tmp_path))


def test_members_that_are_cut_off_and_healed_ack_each_message_once(score: Score) -> None:
    """By turns: one until the other has its message; one, or both, for a moment."""
    dice = random.Random(0)
    kinds = itertools.cycle([_cut_until_given, _cut_for_a_moment, _cut_both])
    score.ends.send()
    for kind in itertools.islice(kinds, CUTS):
        for place in (0, 1):
            score.hold(place)
        kind(score, dice)
    row = _drained(score)
    assert row["acked"] == row["accepted"] == len(score.acked)
    assert score.stale > 0


def _cut_until_given(score: Score, dice: random.Random) -> None:
    cut = dice.randrange(2)
    offset = score.hold(cut)[0]
    score.ends.island.link(cut + 1, is_up=False)
    score.order(cut)  # on its way, while there is none
    while offset not in score.acked:
        score.order(1 - cut)
        score.verdict(1 - cut)
        if offset not in score.acked:
            score.ends.send()
            score.hold(1 - cut)
    score.ends.island.link(cut + 1, is_up=True)
    assert score.verdict(cut) == STALE
    _send_for_both(score)


def _cut_for_a_moment(score: Score, dice: random.Random) -> None:
    _cut(score, [dice.randrange(2)], dice.choice([0.5, 3.0, 7.0]) if LONG else 1.0)


def _cut_both(score: Score, dice: random.Random) -> None:
    _cut(score, [0, 1], dice.choice([0.5, 3.0, 9.0]) if LONG else 1.0)


def _cut(score: Score, places: list[int], length_s: float) -> None:
    for place in places:
        score.ends.island.link(place + 1, is_up=False)
        score.order(place)
    cut_at = time.monotonic()
    until(lambda: time.monotonic() - cut_at > length_s, WAIT_S, "the cut")
    for place in places:
        score.ends.island.link(place + 1, is_up=True)
    for place in places:
        score.verdict(place)
    _send_for_both(score)


def _send_for_both(score: Score) -> None:
    """So that there is something to hold for whoever has nothing."""
    for _ in range(score.holds.count(None)):
        score.ends.send()


def _drained(score: Score) -> dict[str, Any]:
    """Everything is acked by one of them; each goes on as if nothing had been."""
    wanted = score.ends.offset + 1
    while len(score.acked) < wanted:
        for place in (0, 1):
            if score.holds[place] is None and not score.ends.members[place].is_silent:
                score.hold(place)
            if score.holds[place] is not None:
                score.order(place)
                score.verdict(place)
        threading.Event().wait(0.01)
    return score.ends.status()
