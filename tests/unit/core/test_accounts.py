"""Rows about streams and groups."""

import pytest

from tests.unit.core.durable import SECOND, Durable


@pytest.fixture
def rig() -> Durable:
    return Durable()


def test_a_stream_tells_how_old_its_messages_are(rig: Durable) -> None:
    producer = rig.producer()
    rig.ask("create_stream", config={"name": "s"})
    assert rig.ask("show_stream", stream="s")["published_first"] is None
    producer.append("a")
    rig.turn()
    rig.pass_time(2 * SECOND)
    producer.append("b")
    rig.turn()
    shown = rig.ask("show_stream", stream="s")
    assert shown["published_last"] - shown["published_first"] == 2_000


def test_a_group_without_anything_to_do_lags_nowhere(rig: Durable) -> None:
    rig.producer().append("a")
    peer = rig.consumer()
    rig.pass_time(SECOND)
    assert rig.ask("show_group", stream="s", group="g")["lag_s"] >= 1
    rig.settle(peer, rig.deliveries(peer)[0])
    rig.turn()
    shown = rig.ask("show_group", stream="s", group="g")
    assert (shown["lag"], shown["lag_s"], shown["oldest"]) == (0, 0.0, None)


def test_a_message_that_nobody_holds_has_no_holder(rig: Durable) -> None:
    rig.producer().append("a")
    rig.ask("create_group", config={"stream": "s", "name": "g"})
    assert rig.ask("show_group", stream="s", group="g")["oldest"]["holder"] is None
