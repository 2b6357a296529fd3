"""Replies in parts over real sockets: in order, as far ahead as somebody takes, and stopped when nobody does."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from patterns.roles import incoming
from patterns.sync import Replier, Requester
from patterns.wire.errors import (
    ApplicationError,
    BadArgument,
    Cancelled,
    Closed,
    HandlerFailed,
    NoReplier,
    OutcomeUnknown,
    Overloaded,
    ReplierLost,
    TimedOut,
    Unavailable,
    ValidationFailed,
)
from patterns.wire.limits import PARTS_WINDOW
from tests.processes import LONG, Broker, Program, program, until
from tests.sockets.places import Crowd, Place, serving

DEAD = "tcp://127.0.0.1:9"  # the discard port: nobody listens, and no test takes it

PARTS_REPLIER = """
import sys
from patterns.sync import Replier
def rows(body):
    yield from range(body)
    print("made", flush=True)
    sys.stdin.readline()
with Replier(sys.argv[1], "rows", rows) as replier:
    replier.ready()
    print(replier.address)
    replier.serve_forever()
"""

PARTS_REQUESTER = """
import sys
from patterns.sync import Requester
with Requester(sys.argv[1]) as requester:
    for part in requester.stream("rows", 1_000_000):
        print(part, flush=True)
        sys.stdin.readline()
"""


class Rows:
    """A handler that streams numbers, and what it has done."""

    def __init__(self) -> None:
        self.made = 0
        self.closed = threading.Event()

    def __call__(self, body: int) -> Iterator[int]:
        try:
            for number in range(body):
                self.made += 1
                yield number
        finally:
            self.closed.set()


def _replier(place: Place, folder: Path) -> tuple[Program, str]:
    found = program(PARTS_REPLIER, folder, place.bind)
    address = found.line()
    return found, place.broker.url if place.broker else address


def test_parts_come_in_order_and_the_loop_ends(place: Place) -> None:
    with serving(place.bind, "rows", Rows()) as replier, Requester(place.of(replier)) as asker:
        for count in (0, 1, 3 * PARTS_WINDOW + 1):
            rows = asker.stream("rows", count)
            assert list(rows) == list(range(count))
            assert list(rows) == []
        assert not asker._streams
        assert not asker._outcomes


def test_parts_are_translated_and_validated_each(place: Place) -> None:
    class Row(msgspec.Struct):
        number: int

    def rows(body: object) -> Iterator[object]:
        yield {"number": 1}
        yield {"number": None if body == "odd" else 2}

    with serving(place.bind, "rows", rows) as replier, Requester(place.of(replier), codec="json") as asker:
        assert list(asker.stream("rows", "fine", type=Row)) == [Row(1), Row(2)]
        odd = asker.stream("rows", "odd", type=Row)
        assert next(odd) == Row(1)
        with pytest.raises(ValidationFailed, match="number"):
            next(odd)
        assert list(odd) == []


def test_a_service_that_replies_once_gives_one_part(place: Place) -> None:
    with serving(place.bind, "double", lambda body: body * 2) as replier, Requester(place.of(replier)) as asker:
        assert list(asker.stream("double", 4)) == [8]


def test_one_reply_of_a_service_that_streams_is_refused_and_nothing_runs(place: Place) -> None:
    rows = Rows()
    with serving(place.bind, "rows", rows) as replier, Requester(place.of(replier)) as asker:
        with pytest.raises(BadArgument, match=r"ask it with stream\(\)"):
            asker.request("rows", 3)
        assert rows.made == 0
        assert list(asker.stream("rows", 2)) == [0, 1]


def test_what_the_handler_raises_comes_after_the_parts(place: Place) -> None:
    def rows(body: str) -> Iterator[int]:
        yield 1
        yield 2
        raise ApplicationError("there are no more", code="no_more") if body == "known" else KeyError(body)

    with serving(place.bind, "rows", rows) as replier, Requester(place.of(replier)) as asker:
        for body, error in (("known", ApplicationError), ("other", HandlerFailed)):
            taken: list[int] = []
            with pytest.raises(error):
                _take_into(taken, asker, body)
            assert taken == [1, 2]


def _take_into(taken: list[Any], asker: Requester, body: object, **more: Any) -> None:
    for part in asker.stream("rows", body, **more):
        taken.append(part)  # noqa: PERF402  extend() would keep nothing of what came before the error


def test_whoever_does_not_take_stops_the_generator_a_window_ahead(place: Place) -> None:
    rows = Rows()
    with serving(place.bind, "rows", rows) as replier, Requester(place.of(replier)) as asker:
        with asker.stream("rows", 1_000_000) as parts:
            for taken in range(1, 3 * PARTS_WINDOW):
                next(parts)
                assert rows.made <= taken + PARTS_WINDOW
            until(lambda: rows.made >= taken + PARTS_WINDOW // 2, what="the window")
            assert asker.stream("rows", 0) is not None  # others are asked beside it
        assert rows.closed.wait(30)
        assert rows.made <= taken + PARTS_WINDOW + 1


def test_who_takes_nothing_for_long_loses_the_rest_and_holds_nobody_up(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incoming, "ROOM_US", 200_000)
    closed = threading.Event()

    def parts(count: int) -> Iterator[int]:
        try:
            yield from range(count)
        finally:
            closed.set()

    with serving(place.bind, "parts", parts) as replier, Requester(place.of(replier)) as asker:
        held = asker.stream("parts", 1_000, timeout_s=600, part_timeout_s=600)
        assert next(held) == 0
        assert closed.wait(30)
        assert list(asker.stream("parts", 3, timeout_s=60)) == [0, 1, 2]
        with pytest.raises(Overloaded, match="no part"):
            list(held)


def test_large_parts_stop_it_sooner(place: Place) -> None:
    made: list[int] = []

    def rows(body: object) -> Iterator[bytes]:
        for number in range(1_000):
            made.append(number)
            yield bytes(100_000)

    with serving(place.bind, "rows", rows) as replier, Requester(place.of(replier)) as asker:
        with asker.stream("rows", None) as parts:
            assert len(next(parts)) == 100_000
            until(lambda: len(made) >= 3, what="what is ahead")
            assert len(next(parts)) == 100_000
            assert len(made) <= 2 + 4  # 256 KiB, and what overruns it
        assert sum(map(len, asker.stream("rows", None))) == 100_000_000


@pytest.mark.parametrize("how", ["break", "close", "let go", "exception"])
def test_leaving_closes_the_generator(place: Place, how: str) -> None:
    rows = Rows()
    with serving(place.bind, "rows", rows) as replier, Requester(place.of(replier)) as asker:
        if how == "break":
            for part in asker.stream("rows", 1_000_000):
                if part == 5:
                    break
        elif how == "exception":
            with pytest.raises(ZeroDivisionError), asker.stream("rows", 1_000_000) as held:
                1 / next(held)
        else:
            parts = asker.stream("rows", 1_000_000)
            next(parts)
            if how == "close":
                parts.close()
                assert list(parts) == []
            del parts
            gc.collect()
        assert rows.closed.wait(30)
        assert rows.made <= 6 + PARTS_WINDOW + 1
        assert list(asker.stream("rows", 3)) == [0, 1, 2]


def test_a_requester_that_closes_stops_its_streams(place: Place) -> None:
    rows = Rows()
    with serving(place.bind, "rows", rows) as replier:
        asker = Requester(place.of(replier))
        parts = asker.stream("rows", 1_000_000)
        next(parts)
        asker.close()
        with pytest.raises(Closed):
            list(parts)
        assert rows.closed.wait(30)


def test_a_requester_that_dies_stops_its_streams(place: Place, tmp_path: Path) -> None:
    if not place.brokered and not LONG:
        pytest.skip("peer to peer it takes the 6 s of an expiry: set ZBROKER_TEST_LONG=1")
    rows = Rows()
    with serving(place.bind, "rows", rows) as replier, program(PARTS_REQUESTER, tmp_path, place.of(replier)) as dying:
        assert dying.line() == "0"
        dying.kill()
        assert rows.closed.wait(30)


def test_a_replier_killed_in_the_middle_is_lost_after_what_came(place: Place, tmp_path: Path) -> None:
    killed, address = _replier(place, tmp_path)
    with killed, Requester(address) as asker:
        parts = asker.stream("rows", 10, idempotent=True, part_timeout_s=20)
        taken = [next(parts) for _ in range(10)]
        assert killed.line() == "made"
        killed.kill()
        with pytest.raises(ReplierLost):
            next(parts)
        assert taken == list(range(10))
        assert list(parts) == []


def test_a_broker_killed_in_the_middle_leaves_the_outcome_unknown(tmp_path: Path) -> None:
    with Broker(tmp_path, durable=False) as broker:
        held, address = _replier(Place(broker), tmp_path)
        with held, Requester(address) as asker:
            parts = asker.stream("rows", 3, part_timeout_s=20)
            assert [next(parts) for _ in range(3)] == [0, 1, 2]
            broker.kill()
            with pytest.raises(OutcomeUnknown):
                next(parts)


def test_a_part_that_does_not_come_in_time_ends_the_wait_and_tells_the_replier(place: Place) -> None:
    gone = threading.Event()

    def rows(body: object, request: Any) -> Iterator[int]:
        yield 1
        until(lambda: request.is_cancelled, what="the cancelling")
        gone.set()
        yield 2

    with serving(place.bind, "rows", rows) as replier, Requester(place.of(replier)) as asker:
        parts = asker.stream("rows", None, part_timeout_s=0.3)
        assert next(parts) == 1
        with pytest.raises(TimedOut, match="1 parts came before"):
            next(parts)
        assert gone.wait(30)


def test_the_deadline_of_the_whole_holds_though_parts_come(place: Place) -> None:
    def rows(body: object, request: Any) -> Iterator[float]:
        while True:
            yield request.remaining_s

    with serving(place.bind, "rows", rows) as replier, Requester(place.of(replier)) as asker:
        taken: list[float] = []
        with pytest.raises(TimedOut):
            _take_into(taken, asker, None, timeout_s=0.5)
        assert taken
        assert max(taken) <= 0.5


def test_send_part_and_end_in_a_loop_over_requests(place: Place) -> None:
    with Replier(place.bind, "rows", idle_timeout_s=20) as replier:
        replier.ready()
        crowd, seen = Crowd(), []

        def serve() -> None:
            for request in replier:
                seen.append((request.takes_parts, request.body))
                if not request.takes_parts:
                    request.reply("whole")
                    continue
                try:
                    for number in range(request.body):
                        request.send_part(number)
                except Cancelled:
                    request.fail("nobody waits")
                    continue
                if request.body % 2:
                    request.reply("last")
                else:
                    request.end()
                if request.body == 4:
                    return

        crowd.run(serve)
        with Requester(place.of(replier)) as asker:
            assert asker.request("rows", 1) == "whole"
            assert list(asker.stream("rows", 3)) == [0, 1, 2, "last"]
            for part in asker.stream("rows", 1_000_000, part_timeout_s=20):
                if part == 1:
                    break
            assert list(asker.stream("rows", 4, part_timeout_s=20)) == [0, 1, 2, 3]
        crowd.join()
        assert [takes for takes, _ in seen] == [False, True, True, True]


def test_streams_and_requests_of_many_threads_share_a_requester(place: Place) -> None:
    with (
        serving(place.bind, "rows", Rows()) as one,
        serving(place.bind, "echo", lambda body: body) as two,
        Requester(place.of(one, two)) as asker,
    ):

        def take(count: int) -> None:
            assert list(asker.stream("rows", count, part_timeout_s=30)) == list(range(count))

        def ask(who: int) -> None:
            for number in range(50):
                assert asker.request("echo", [who, number], timeout_s=30, wait_s=30) == [who, number]

        crowd = Crowd()
        for who in range(4):
            crowd.run(take, 300 + who)
            crowd.run(ask, who)
        crowd.join(60)


def test_nobody_there_is_unavailable_and_nobody_who_offers_is_no_replier(place: Place) -> None:
    for address in (DEAD, DEAD.replace("tcp", "zb")):
        with Requester(address) as asker, pytest.raises(Unavailable, match=r"127\.0\.0\.1:9"):
            next(asker.stream("rows", 1, part_timeout_s=0.5, wait_s=0.3))
    with serving(place.bind, "rows", Rows()) as replier, Requester(place.of(replier)) as asker:
        with pytest.raises(NoReplier, match="elsewhere"):
            next(asker.stream("elsewhere", 1, part_timeout_s=20, wait_s=0.1))
        assert list(asker.stream("rows", 1)) == [0]


def test_wrong_use_is_refused_at_once(place: Place) -> None:
    with serving(place.bind, "rows", Rows()) as replier, Requester(place.of(replier)) as asker:
        for more in ({"timeout_s": 0}, {"part_timeout_s": 0}, {"part_timeout_s": float("nan")}):
            with pytest.raises(BadArgument):
                asker.stream("rows", 1, **more)
        with pytest.raises(BadArgument):
            asker.stream("rows", 1, headers={"a": 1})
        assert asker._engine.outstanding == 0
