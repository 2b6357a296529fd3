"""Dead letters of real members: rejected, failed too often, left by members that they kill; seen and sent back, from Python and by command."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

import patterns.aio
from patterns.sync import Admin, Consumer, Delivery, GroupConfig, Producer
from patterns.wire.errors import BadArgument, NoSuchStream, StaleLease
from tests.processes import PYTHON, Broker, until

Ask = Callable[..., Any]

# Takes messages until one kills it; "poison" does.
_MEMBER = """
import os, sys
from patterns.sync import Consumer
with Consumer(sys.argv[1], "work", group="g", idle_timeout_s=3.0) as consumer:
    for delivery in consumer:
        if delivery.body == "poison":
            os._exit(13)
        delivery.ack(confirm=True)
        print(delivery.body, flush=True)
"""


@pytest.fixture(params=["sync", "aio"])
def ask(request: pytest.FixtureRequest, broker: Broker) -> Ask:
    """Calls a verb by name."""

    def in_sync(verb: str, *arguments: Any, **more: Any) -> Any:
        with Admin(broker.url, timeout_s=30) as admin:
            return getattr(admin, verb)(*arguments, **more)

    async def in_aio(verb: str, *arguments: Any, **more: Any) -> Any:
        async with patterns.aio.Admin(broker.url, timeout_s=30) as admin:
            return await getattr(admin, verb)(*arguments, **more)

    if request.param == "sync":
        return in_sync
    return lambda *arguments, **more: asyncio.run(in_aio(*arguments, **more))


def _make(broker: Broker, **config: Any) -> None:
    with Admin(broker.url, timeout_s=30) as admin:
        admin.create_group(GroupConfig("work", "g", dead_letter="dead", **config))


def _send(broker: Broker, *bodies: Any) -> None:
    with Producer(broker.url, "work") as out:
        for body in bodies:
            out.post(body, key="k", headers={"trace": "t"})
        out.flush()


def _taken(broker: Broker, count: int, stream: str = "work", group: str | None = "g") -> Iterator[Delivery]:
    with Consumer(broker.url, stream, group=group) as consumer:
        yield from islice(consumer, count)


def _row(broker: Broker, name: str) -> dict[str, Any]:
    with Admin(broker.url, timeout_s=30) as admin:
        row: dict[str, Any] = admin.status()["groups"][name]
        return row


def _zbroker(broker: Broker, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "zbroker", *words, "--url", broker.url, "--timeout", "30"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_what_is_rejected_is_shown_and_goes_back_to_its_group_alone(broker: Broker, ask: Ask) -> None:
    _make(broker)
    _send(broker, "good", "bad")
    for delivery in _taken(broker, 2):
        if delivery.body == "good":
            delivery.ack(confirm=True)
        else:
            delivery.reject("no such customer")
    until(lambda: _row(broker, "work/g")["dead"] == 1, what="the move")
    for delivery in _taken(broker, 2, group="audit"):
        delivery.ack(confirm=True)
    [listed] = ask("list_dead")
    assert (listed["stream"], listed["pending"]) == ("dead", 1)
    [letter] = ask("show_dead", "dead")["letters"]
    assert (letter["reason"], letter["origin_offset"], letter["attempts"]) == ("no such customer", 1, 1)
    assert (letter["body"], letter["key"], letter["headers"]) == ('"bad"', "k", {"trace": "t"})
    assert ask("redrive_dead", "dead")["redriven"] == 1
    [again] = _taken(broker, 1)
    assert (again.body, again.key, again.attempt) == ("bad", "k", 1)
    assert again.headers == {"trace": "t", "zb-redriven": "1"}
    until(lambda: _row(broker, "work/g")["balanced"], what="the account")
    assert ask("redrive_dead", "dead")["redriven"] == 0


def test_a_confirmed_reject_is_a_letter_whatever_comes_next(tmp_path: Path) -> None:
    with Broker(tmp_path) as broker:
        _make(broker)
        _send(broker, "a", "b")
        with Consumer(broker.url, "work", group="g") as consumer:
            consumer.receive(timeout_s=30).reject("torn", confirm=True)
            held = consumer.receive(timeout_s=30)
            broker.restart()
            with pytest.raises(StaleLease):
                held.reject("of the life before", confirm=True)
        with Admin(broker.url, timeout_s=30) as admin:
            [letter] = admin.show_dead("dead")["letters"]
    assert (letter["reason"], letter["body"]) == ("torn", '"a"')


def test_who_asks_for_what_is_not_there_is_told_what_is(ask: Ask, broker: Broker) -> None:
    with pytest.raises(NoSuchStream, match="stream list"):
        ask("show_dead", "nowhere")
    _send(broker, 1)
    with pytest.raises(BadArgument, match="has had no dead letters"):
        ask("redrive_dead", "work")


def test_a_dead_letter_is_read_like_any_message(broker: Broker) -> None:
    _make(broker)
    _send(broker, {"n": 1})
    for delivery in _taken(broker, 1):
        delivery.reject("x")
    [letter] = _taken(broker, 1, stream="dead", group=None)
    assert letter.body == {"n": 1}
    assert letter.headers["zb-dead-stream"] == "work"
    assert letter.headers["zb-dead-reason"] == "x"


def test_a_message_that_kills_its_members_moves_and_its_neighbours_do_not(broker: Broker) -> None:
    _make(broker, max_deliveries=2)
    good = [f"good {number}" for number in range(40)]
    _send(broker, *good[:20], "poison", *good[20:])
    codes: list[int] = []
    printed: list[str] = []
    while _row(broker, "work/g")["pending"]:
        assert len(codes) < 30
        member = subprocess.run([*PYTHON, "-c", _MEMBER, broker.url], capture_output=True, text=True, timeout=60)
        codes.append(member.returncode)
        printed += member.stdout.splitlines()
    assert codes.count(13) == 2, (codes, member.stderr)
    assert sorted(printed) == sorted(good)
    row = _row(broker, "work/g")
    assert (row["acked"], row["dead"], row["pending"], row["balanced"]) == (40, 1, 0, True)
    with Admin(broker.url, timeout_s=30) as admin:
        [letter] = admin.show_dead("dead")["letters"]
    assert (letter["body"], letter["reason"], letter["attempts"]) == ('"poison"', "max_deliveries", 2)


def test_the_commands_list_show_and_redrive(broker: Broker) -> None:
    _make(broker)
    _send(broker, "a", "b", "c")
    for delivery in _taken(broker, 3):
        delivery.reject("because")
    until(lambda: _row(broker, "work/g")["dead"] == 3, what="the moves")
    table = _zbroker(broker, "dead", "list")
    assert table.returncode == 0, table.stderr
    assert "work/g" in table.stdout
    shown = _zbroker(broker, "dead", "show", "dead")
    assert shown.stdout.count("because") == 3
    letters = [json.loads(line) for line in _zbroker(broker, "dead", "show", "dead", "--json").stdout.splitlines()]
    assert [letter["offset"] for letter in letters] == [0, 1, 2]
    [listed] = map(json.loads, _zbroker(broker, "dead", "list", "--json").stdout.splitlines())
    instants = [listed["oldest_at"], letters[0]["died_at"], letters[0]["published_at"]]
    assert all(datetime.fromisoformat(one).tzinfo is not None for one in instants)
    assert listed["oldest_at"] in table.stdout
    assert letters[0]["died_at"] in shown.stdout
    one = _zbroker(broker, "dead", "redrive", "dead", "--first", "1", "--last", "1", "--json")
    assert json.loads(one.stdout)["redriven"] == 1
    everything = _zbroker(broker, "dead", "show", "dead", "--all").stdout
    assert (everything.count("waits"), everything.count("sent back")) == (2, 1)
    rest = _zbroker(broker, "dead", "redrive", "dead")
    assert (rest.returncode, "2 letters sent back; 0 pending" in rest.stderr) == (0, True), rest.stderr
    assert sorted(delivery.body for delivery in _taken(broker, 3)) == ["a", "b", "c"]


def test_a_command_that_cannot_be_says_why(broker: Broker) -> None:
    found = _zbroker(broker, "dead", "show", "nowhere")
    assert (bool(found.returncode), "there is no stream 'nowhere'" in found.stderr) == (True, True), found.stderr
    found = _zbroker(broker, "dead", "redrive", "x", "--first", "2", "--last", "1")
    assert (found.returncode, "--first 2 is above --last 1" in found.stderr) == (2, True), found.stderr


def test_thousands_that_are_rejected_are_sent_back_once_over_a_kill_of_the_broker(tmp_path: Path) -> None:
    count = 1_500
    with Broker(tmp_path) as broker:
        _make(broker)
        _send(broker, *range(count))
        with Consumer(broker.url, "work", group="g") as consumer:
            for delivery in islice(consumer, count):
                delivery.reject("all")
            until(lambda: _row(broker, "work/g")["dead"] == count, what="the moves")
        with Admin(broker.url, timeout_s=30) as admin:
            assert admin.redrive_dead("dead", count=500)["redriven"] == 500
        broker.restart()
        with Admin(broker.url, timeout_s=30) as admin:
            assert admin.redrive_dead("dead")["redriven"] == count - 500
        seen: list[int] = []
        with Consumer(broker.url, "work", group="g") as consumer:
            for batch in consumer.batches():
                seen += batch.bodies
                batch.ack()
                if len(seen) >= count:
                    break
        assert sorted(seen) == list(range(count))
