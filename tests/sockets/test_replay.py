"""Old messages over real sockets: read from the disk by the broker's reader thread while a producer goes on sending."""

from __future__ import annotations

from pathlib import Path

import pytest

from patterns.sync import Admin, Consumer, Producer
from patterns.wire.limits import MIB
from tests.processes import Broker, only_long, until
from tests.sockets.places import Crowd

BODY_BYTES = 8_000
IDLE_S = 30.0


def _body(number: int) -> bytes:
    return number.to_bytes(8, "big") * (BODY_BYTES // 8)


def _send_backlog(broker: Broker, count: int) -> None:
    with Producer(broker.url, "work", codec="raw") as out:
        for begin in range(0, count, 1_000):
            out.send_many([_body(number) for number in range(begin, min(begin + 1_000, count))])


def _replay_beside_a_producer(broker: Broker, backlog: int, more: int) -> None:
    """A group from the first message on, while each of `more` is confirmed one at a time."""

    def send() -> None:
        with Producer(broker.url, "work", codec="raw") as out:
            for number in range(backlog, backlog + more):
                assert out.send(_body(number)).offset == number

    crowd = Crowd()
    crowd.run(send)
    seen = 0
    with Consumer(broker.url, "work", group="late", start="first", codec="raw", idle_timeout_s=IDLE_S) as consumer:
        for batch in consumer.batches():
            assert batch.offsets == range(seen, seen + len(batch)), "once, and in order"
            assert all(bytes(body) == _body(number) for number, body in zip(batch.offsets, batch.bodies, strict=True))
            seen += len(batch)
            batch.ack()
            if seen == backlog + more:
                break
    crowd.join(30)
    assert seen == backlog + more


def test_after_a_restart_a_group_gets_the_whole_backlog_once_and_in_order_while_a_producer_sends(
    tmp_path: Path,
) -> None:
    with Broker(tmp_path) as broker:
        _send_backlog(broker, 2_000)  # 16 MB, of which the next life has nothing in memory
        broker.restart()
        _replay_beside_a_producer(broker, 2_000, 200)
        with Admin(broker.url) as admin:
            until(lambda: admin.status()["reads"]["wanted_bytes"] >= 2_000 * BODY_BYTES)  # refreshed once a second
            reads = admin.status()["reads"]
        assert reads["read_bytes"] < 4 * reads["wanted_bytes"]
        assert (reads["failures"], reads["waiting"]) == (0, 0)


@only_long
def test_a_backlog_four_times_the_cache_arrives_once_and_in_order_while_a_producer_sends(tmp_path: Path) -> None:
    with Broker(tmp_path) as broker:
        count = 256 * MIB // BODY_BYTES
        _send_backlog(broker, count)
        _replay_beside_a_producer(broker, count, 2_000)


@pytest.mark.parametrize("name", ["after", "beside"])
def test_a_broker_that_reads_stops_in_order(tmp_path: Path, name: str) -> None:
    with Broker(tmp_path) as broker:
        _send_backlog(broker, 1_000)
        broker.restart()
        with Consumer(broker.url, "work", start="first", codec="raw", idle_timeout_s=IDLE_S) as consumer:
            batches = consumer.batches()
            assert next(batches).offsets[0] == 0
            if name == "beside":
                assert broker.terminate() == 0
                return
        assert broker.terminate() == 0
